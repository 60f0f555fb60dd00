//! Ranges and scores of activations, from runs in full precision.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;
use rayon::prelude::*;

use super::{Config, Input, KvCache, LanguageModel, ModelError, Site, Tally, Trunk, forward};
use crate::format::{BLOCK, Ue4m3};
use crate::packed::{Profile, TensorScale};
use crate::quantizer::{ActivationQuantizer, ChannelSensitivity, Policy, thresholds};
use crate::scheme::{Selection, Share};

/// A model that shows every input of its linear layers to a function before it runs them.
pub struct Capture<'a, F> {
    model: &'a dyn LanguageModel,
    see: F,
}

impl<'a, F: Fn(Site, &[f32]) + Sync> Capture<'a, F> {
    /// Wraps a model; `see` gets the rows of each input.
    pub const fn new(model: &'a dyn LanguageModel, see: F) -> Self {
        Self { model, see }
    }
}

impl<F: Fn(Site, &[f32]) + Sync> LanguageModel for Capture<'_, F> {
    fn trunk(&self) -> &Trunk {
        self.model.trunk()
    }

    fn project(&self, site: Site, x: &[f32], tally: &mut Tally) -> Vec<Vec<f32>> {
        (self.see)(site, x);
        self.model.project(site, x, tally)
    }
}

/// Which windows of a token stream to calibrate on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CalibrationWindows {
    /// Tokens of a window.
    pub window: usize,
    /// Windows from the start of the stream that ranges are taken from, at most.
    pub ranges: usize,
    /// Windows from the start of the stream that scores are taken from, at most: eight bytes for each activation block.
    pub scores: usize,
}

impl CalibrationWindows {
    /// The first `count` windows of `window` tokens, for ranges and for scores.
    pub const fn new(window: usize, count: usize) -> Self {
        Self {
            window,
            ranges: count,
            scores: count,
        }
    }
}

/// What calibration windows say about a model's activations.
#[derive(Clone, PartialEq, Debug)]
pub struct Calibration {
    scales: Vec<TensorScale>,
    sensitivity: Vec<ChannelSensitivity>,
    /// Impact scores of the blocks of each site, in original units.
    scores: Vec<Vec<f64>>,
    /// Rows of weights that a block of each site meets.
    uses: Vec<u64>,
    /// Sites of one repetition if all repetitions are to be quantized alike, else all sites.
    distinct: usize,
}

impl Calibration {
    /// As [`Calibration::run`], with one range, one set of sensitivities and one threshold for all repetitions of an input.
    ///
    /// Rows of several repetitions can then be quantized as one, and share a product: what speculative pipelined decoding needs of hardware whose jobs have one quantizer.
    /// The range is the largest of the repetitions', the squared gradients are their means.
    ///
    /// # Errors
    /// As [`Calibration::run`].
    pub fn run_alike(
        model: &dyn LanguageModel,
        tokens: &[u32],
        windows: CalibrationWindows,
        sensitivity: Option<&[Vec<f32>]>,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self, ModelError> {
        let config = *model.trunk().config();
        let distinct = config.sites() / config.repetitions;
        let alike =
            |index: usize| (0..config.repetitions).map(move |r| r * distinct + index % distinct);
        // Checks what was given before it is indexed.
        channel_sensitivities(&config, sensitivity)?;
        let means: Option<Vec<Vec<f32>>> = sensitivity.map(|given| {
            (0..config.sites())
                .map(|site| {
                    let mean = |channel: usize| {
                        let sum: f64 = alike(site).map(|s| f64::from(given[s][channel])).sum();
                        (sum / config.repetitions as f64) as f32
                    };
                    (0..given[site].len()).map(mean).collect()
                })
                .collect()
        });
        let mut calibration = Self::ranges(
            model,
            tokens,
            windows,
            means.as_deref(),
            |maxima| {
                (0..config.sites())
                    .map(|site| alike(site).map(|s| maxima[s]).fold(0.0, f32::max))
                    .collect()
            },
            progress,
        )?;
        calibration.distinct = distinct;
        Ok(calibration)
    }

    /// Runs the windows for the ranges, and some of them once more for the scores.
    ///
    /// S_a = max|x| / 448 of each site, x rounded to BF16. `sensitivity` holds one squared gradient a
    /// channel for each site in the order of [`Site::index`]; 1 everywhere if absent. `progress` is told
    /// how many of how many windows are done, from any thread.
    ///
    /// # Errors
    /// A token is outside the vocabulary, there is no whole window, an activation is NaN or infinite, or
    /// `sensitivity` doesn't fit the model.
    pub fn run(
        model: &dyn LanguageModel,
        tokens: &[u32],
        windows: CalibrationWindows,
        sensitivity: Option<&[Vec<f32>]>,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self, ModelError> {
        Self::ranges(
            model,
            tokens,
            windows,
            sensitivity,
            |maxima| maxima,
            progress,
        )
    }

    /// `adjust` sees the largest magnitude of each site before scales are made of them.
    fn ranges(
        model: &dyn LanguageModel,
        tokens: &[u32],
        windows: CalibrationWindows,
        sensitivity: Option<&[Vec<f32>]>,
        adjust: impl FnOnce(Vec<f32>) -> Vec<f32>,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Self, ModelError> {
        let config = *model.trunk().config();
        let sensitivity = channel_sensitivities(&config, sensitivity)?;
        let read = take_windows(tokens, windows.window, windows.ranges)?;
        let scored = take_windows(tokens, windows.window, windows.scores)?;
        let all = read.len() + scored.len();
        let done = AtomicUsize::new(0);
        let step = || progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
        let maxima = Mutex::new(vec![0f32; config.sites()]);
        each_input(
            model,
            &read,
            |_, site, x| {
                // `f32::max` drops NaN, which must not go unseen.
                let larger = |amax: f32, x: &f32| if x.abs() <= amax { amax } else { x.abs() };
                let amax = bf16::from_f32(x.iter().fold(0f32, larger)).to_f32();
                if let Ok(mut maxima) = maxima.lock() {
                    maxima[site.index(&config)] = larger(maxima[site.index(&config)], &amax);
                }
            },
            step,
        )?;
        let scales = adjust(maxima.into_inner().unwrap_or_default())
            .into_iter()
            .zip(config.all_sites())
            .map(|(amax, site)| {
                TensorScale::of_amax(amax, Profile::Fgmp)
                    .map_err(|e| ModelError::Config(format!("activations at {site:?}: {e}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut calibration = Self {
            scales,
            sensitivity,
            scores: Vec::new(),
            uses: uses(&config),
            distinct: config.sites(),
        };
        calibration.scores = calibration.score(model, &scored, step)?;
        Ok(calibration)
    }

    /// The same ranges with scores for other sensitivities.
    ///
    /// # Errors
    /// As [`Calibration::run`].
    pub fn with_sensitivity(
        &self,
        model: &dyn LanguageModel,
        tokens: &[u32],
        windows: CalibrationWindows,
        sensitivity: Option<&[Vec<f32>]>,
    ) -> Result<Self, ModelError> {
        let mut calibration = Self {
            scales: self.scales.clone(),
            sensitivity: channel_sensitivities(model.trunk().config(), sensitivity)?,
            scores: Vec::new(),
            uses: self.uses.clone(),
            distinct: self.distinct,
        };
        let scored = take_windows(tokens, windows.window, windows.scores)?;
        calibration.scores = calibration.score(model, &scored, || ())?;
        Ok(calibration)
    }

    fn score(
        &self,
        model: &dyn LanguageModel,
        windows: &[&[u32]],
        step: impl Fn() + Sync,
    ) -> Result<Vec<Vec<f64>>, ModelError> {
        let config = *model.trunk().config();
        let quantizers = self
            .scales
            .iter()
            .zip(&self.sensitivity)
            .map(|(&scale, sensitivity)| {
                ActivationQuantizer::new(scale, sensitivity.clone(), Policy::Fp4)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| ModelError::Config(format!("activations: {e}")))?;
        let by_site = Mutex::new(vec![Vec::new(); config.sites()]);
        each_input(
            model,
            windows,
            |_, site, x| {
                let index = site.index(&config);
                let quantizer = &quantizers[index];
                let scores: Vec<f64> = x
                    .chunks_exact(quantizer.channels())
                    .flat_map(|row| quantizer.scores(row))
                    .collect();
                if let Ok(mut by_site) = by_site.lock() {
                    by_site[index].extend(scores);
                }
            },
            step,
        )?;
        Ok(by_site.into_inner().unwrap_or_default())
    }

    /// S_a of each site, in the order of [`Site::index`].
    pub fn scales(&self) -> &[TensorScale] {
        &self.scales
    }

    /// Impact scores of the blocks of each site, in original units and no particular order.
    pub fn scores(&self) -> &[Vec<f64>] {
        &self.scores
    }

    /// The quantizers of all sites.
    ///
    /// # Errors
    /// A site's scale is outside the range of multipliers.
    pub fn quantizers(
        &self,
        policy: GlobalPolicy,
    ) -> Result<Vec<ActivationQuantizer>, crate::requantize::ScaleError> {
        if let GlobalPolicy::Share(share, Selection::Random(seed)) = policy {
            return self.random_quantizers(share, seed);
        }
        let thresholds = match policy {
            GlobalPolicy::Share(share, selection) => {
                let mut scores = self.scores.clone();
                for later in scores.split_off(self.distinct).chunks_mut(self.distinct) {
                    scores
                        .iter_mut()
                        .zip(later)
                        .for_each(|(all, some)| all.append(some));
                }
                let found = thresholds(share, selection, scores, Some(&self.uses[..self.distinct]));
                let sites = self.scales.len();
                found.into_iter().cycle().take(sites).collect()
            }
            GlobalPolicy::Fp8 | GlobalPolicy::Fp4 => vec![0.0; self.scales.len()],
        };
        self.scales
            .iter()
            .zip(&self.sensitivity)
            .zip(thresholds)
            .map(|((&scale, sensitivity), threshold)| {
                let policy = match policy {
                    GlobalPolicy::Fp4 => Policy::Fp4,
                    GlobalPolicy::Share(..) if threshold >= 0.0 => {
                        Policy::of_original_units(threshold, scale, sensitivity.factor)
                    }
                    GlobalPolicy::Fp8 | GlobalPolicy::Share(..) => Policy::Fp8,
                };
                ActivationQuantizer::new(scale, sensitivity.clone(), policy)
            })
            .collect()
    }

    /// Random positions become FP8 as any unit can do it: T = 0, and F = 0 where a block is to stay FP4.
    ///
    /// (A block whose forms are equal stays FP4 too.)
    fn random_quantizers(
        &self,
        share: Share,
        seed: u64,
    ) -> Result<Vec<ActivationQuantizer>, crate::requantize::ScaleError> {
        self.scales
            .iter()
            .zip(&self.sensitivity)
            .enumerate()
            .map(|(site, (&scale, sensitivity))| {
                let codes = (0..sensitivity.codes.len())
                    .map(|channel| {
                        // Sites count on from the weights' tensors, far from them.
                        let owner = (1 << 32) + site % self.distinct;
                        if Selection::random_score(seed, owner, channel / BLOCK) < share.get() {
                            Ue4m3::ONE
                        } else {
                            Ue4m3::ZERO
                        }
                    })
                    .collect();
                let sensitivity = ChannelSensitivity { codes, factor: 1.0 };
                ActivationQuantizer::new(scale, sensitivity, Policy::Threshold(0))
            })
            .collect()
    }
}

/// Rows of weights that meet an input, by site.
fn uses(config: &Config) -> Vec<u64> {
    let rows = |input: Input| -> usize {
        let matrices = input.matrices().iter();
        matrices.map(|&m| config.matrix_shape(m)[0]).sum()
    };
    config
        .all_sites()
        .map(|site| rows(site.input) as u64)
        .collect()
}

/// How activations are treated, all sites alike.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum GlobalPolicy {
    /// Every block FP8.
    Fp8,
    /// Every block FP4.
    Fp4,
    /// So that at most this share of the calibration blocks is FP8.
    Share(Share, Selection),
}

/// At most `count` windows from the start of a stream.
fn take_windows(tokens: &[u32], window: usize, count: usize) -> Result<Vec<&[u32]>, ModelError> {
    if window == 0 || count == 0 || tokens.len() < window {
        return Err(ModelError::Config(format!(
            "calibration needs at least one window of {window} tokens, {} were given",
            tokens.len()
        )));
    }
    Ok(tokens.chunks_exact(window).take(count).collect())
}

/// Runs all windows and shows each input with the number of its window; `step` is called after each.
fn each_input(
    model: &dyn LanguageModel,
    windows: &[&[u32]],
    see: impl Fn(usize, Site, &[f32]) + Sync,
    step: impl Fn() + Sync,
) -> Result<(), ModelError> {
    windows
        .par_iter()
        .enumerate()
        .try_for_each(|(index, tokens)| {
            let capture = Capture::new(model, |site: Site, x: &[f32]| see(index, site, x));
            let mut tally = Tally::new(model.trunk().config());
            forward(&capture, tokens, &mut KvCache::new(), &mut tally, |_, _| ())?;
            step();
            Ok(())
        })
}

fn channel_sensitivities(
    config: &Config,
    given: Option<&[Vec<f32>]>,
) -> Result<Vec<ChannelSensitivity>, ModelError> {
    let width = |input: Input| config.input_width(input);
    let Some(given) = given else {
        return Ok(config
            .all_sites()
            .map(|site| ChannelSensitivity::uniform(width(site.input)))
            .collect());
    };
    let fits = given.len() == config.sites()
        && config
            .all_sites()
            .zip(given)
            .all(|(site, channels)| channels.len() == width(site.input));
    if !fits {
        return Err(ModelError::Config(
            "activation sensitivities don't fit the model's inputs".into(),
        ));
    }
    Ok(given
        .iter()
        .map(|channels| ChannelSensitivity::of(channels))
        .collect())
}
