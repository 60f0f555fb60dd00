//! Ranges and scores of activations, from runs in full precision.

use std::sync::Mutex;

use half::bf16;
use rayon::prelude::*;

use super::{Config, Input, KvCache, LanguageModel, ModelError, Site, Tally, Trunk, forward};
use crate::packed::{Profile, TensorScale};
use crate::quantizer::{ActivationQuantizer, ChannelSensitivity, Policy};
use crate::scheme::Share;

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

/// What calibration windows say about a model's activations.
#[derive(Clone, PartialEq, Debug)]
pub struct Calibration {
    scales: Vec<TensorScale>,
    sensitivity: Vec<ChannelSensitivity>,
    /// Impact scores of all blocks of all sites, in original units.
    scores: Vec<f64>,
}

impl Calibration {
    /// Runs windows of `window` tokens from the start of `tokens`, at most `windows` of them, twice: for the ranges, then for the scores.
    ///
    /// S_a = max|x| / 448 of each site over all windows, x rounded to BF16. `sensitivity` holds one
    /// squared gradient a channel for each site in the order of [`Site::index`]; 1 everywhere if absent.
    ///
    /// # Errors
    /// A token is outside the vocabulary, there is no whole window, an activation is NaN or infinite, or
    /// `sensitivity` doesn't fit the model.
    pub fn run(
        model: &dyn LanguageModel,
        tokens: &[u32],
        window: usize,
        windows: usize,
        sensitivity: Option<&[Vec<f32>]>,
    ) -> Result<Self, ModelError> {
        let config = *model.trunk().config();
        if window == 0 || windows == 0 || tokens.len() < window {
            return Err(ModelError::Config(format!(
                "calibration needs at least one window of {window} tokens, {} were given",
                tokens.len()
            )));
        }
        let windows: Vec<Vec<u32>> = tokens
            .chunks_exact(window)
            .take(windows)
            .map(<[u32]>::to_vec)
            .collect();
        let sensitivity = channel_sensitivities(&config, sensitivity)?;

        let maxima = Mutex::new(vec![0f32; config.sites()]);
        each_input(model, &windows, |_, site, x| {
            // `f32::max` drops NaN, which must not go unseen.
            let larger = |amax: f32, x: &f32| if x.abs() <= amax { amax } else { x.abs() };
            let amax = bf16::from_f32(x.iter().fold(0f32, larger)).to_f32();
            if let Ok(mut maxima) = maxima.lock() {
                maxima[site.index(&config)] = larger(maxima[site.index(&config)], &amax);
            }
        })?;
        let scales = maxima
            .into_inner()
            .unwrap_or_default()
            .into_iter()
            .zip(config.all_sites())
            .map(|(amax, site)| {
                TensorScale::of_amax(amax, Profile::Fgmp)
                    .map_err(|e| ModelError::Config(format!("activations at {site:?}: {e}")))
            })
            .collect::<Result<Vec<_>, _>>()?;

        let quantizers = scales
            .iter()
            .zip(&sensitivity)
            .map(|(&scale, sensitivity)| {
                ActivationQuantizer::new(scale, sensitivity.clone(), Policy::Fp4)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| ModelError::Config(format!("activations: {e}")))?;
        let by_window = Mutex::new(vec![Vec::new(); windows.len()]);
        each_input(model, &windows, |window, site, x| {
            let quantizer = &quantizers[site.index(&config)];
            let scores: Vec<f64> = x
                .chunks_exact(quantizer.channels())
                .flat_map(|row| quantizer.scores(row))
                .collect();
            if let Ok(mut by_window) = by_window.lock() {
                by_window[window].extend(scores);
            }
        })?;
        let scores = by_window.into_inner().unwrap_or_default().concat();
        Ok(Self {
            scales,
            sensitivity,
            scores,
        })
    }

    /// S_a of each site, in the order of [`Site::index`].
    pub fn scales(&self) -> &[TensorScale] {
        &self.scales
    }

    /// Impact scores of all blocks, in original units.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// The quantizers of all sites for one global threshold.
    ///
    /// # Errors
    /// A site's scale is outside the range of multipliers.
    pub fn quantizers(
        &self,
        policy: GlobalPolicy,
    ) -> Result<Vec<ActivationQuantizer>, crate::requantize::ScaleError> {
        let threshold = match policy {
            GlobalPolicy::Share(share) => share.threshold(&mut self.scores.clone()),
            GlobalPolicy::Fp8 | GlobalPolicy::Fp4 => 0.0,
        };
        self.scales
            .iter()
            .zip(&self.sensitivity)
            .map(|(&scale, sensitivity)| {
                let policy = match policy {
                    GlobalPolicy::Fp4 => Policy::Fp4,
                    GlobalPolicy::Share(_) if threshold >= 0.0 => {
                        Policy::of_original_units(threshold, scale, sensitivity.factor)
                    }
                    GlobalPolicy::Fp8 | GlobalPolicy::Share(_) => Policy::Fp8,
                };
                ActivationQuantizer::new(scale, sensitivity.clone(), policy)
            })
            .collect()
    }
}

/// How activations are treated, all sites alike.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum GlobalPolicy {
    /// Every block FP8.
    Fp8,
    /// Every block FP4.
    Fp4,
    /// One threshold, so that at most this share of the calibration blocks is FP8.
    Share(Share),
}

/// Runs all windows and shows each input with the number of its window.
fn each_input(
    model: &dyn LanguageModel,
    windows: &[Vec<u32>],
    see: impl Fn(usize, Site, &[f32]) + Sync,
) -> Result<(), ModelError> {
    windows
        .par_iter()
        .enumerate()
        .try_for_each(|(index, tokens)| {
            let capture = Capture::new(model, |site: Site, x: &[f32]| see(index, site, x));
            let mut tally = Tally::new(model.trunk().config());
            forward(&capture, tokens, &mut KvCache::new(), &mut tally, |_, _| ()).map(drop)
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
