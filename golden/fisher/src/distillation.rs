//! Tuning of a quantized model's norms, until it says what the full model says.

mod state;
mod student;

use std::f64::consts::PI;
use std::ops::ControlFlow;
use std::path::PathBuf;

use golden::model::{LanguageModel, Model, ModelError, QuantizedModel};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::network::Network;
use crate::pass::{PassError, check_windows};
use state::Fingerprint;
use student::{Student, UnderWay};

/// Why a distillation stopped.
#[derive(Debug, thiserror::Error)]
pub enum DistillationError {
    /// The quantized model is none of this full model.
    #[error("the quantized model is none of this full model: {0}")]
    Mismatch(String),
    /// An option has no meaning.
    #[error("distillation: {0}")]
    Options(String),
    /// The caller asked to stop.
    #[error("distillation stopped after {done} of {steps} steps; the model is as it was")]
    Interrupted {
        /// Steps done; the state file, if there is one, holds them.
        done: usize,
        /// Steps in all.
        steps: usize,
    },
    /// Loss or gradients overflow: the learning rate is too large, or the weights are not those of a working model.
    #[error("distillation step {step}: {what} is not finite")]
    NonFinite {
        /// The step, from 0.
        step: usize,
        /// Loss or gradient.
        what: &'static str,
    },
    /// Windows, full model or state file can't be used.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The quantized model doesn't take the gains.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An operation failed.
    #[error("computing gradients: {0}")]
    Operation(#[from] candle_core::Error),
}

/// How to tune.
#[derive(Clone, PartialEq, Debug)]
pub struct DistillationOptions {
    /// Updates of the gains; none leaves the model as it is.
    pub steps: usize,
    /// Windows of a step; at least 1.
    pub batch: usize,
    /// Learning rate of the first step, relative to each gain; it falls to 0 by half a cosine. Not negative.
    pub learning_rate: f64,
    /// Shares of the past in Adam's running means of gradients and of their squares; from 0, below 1.
    pub betas: [f64; 2],
    /// What Adam adds to the root of the mean square; above 0.
    pub epsilon: f64,
    /// What decides the order of the windows.
    pub seed: u64,
    /// Windows under way at a time, one a thread; at least 1. Each needs the memory of one layer's graph and of the
    /// residual stream before every layer. Doesn't change the result.
    pub parallel: usize,
    /// Where gains and Adam's means are kept after each step, so that a distillation can go on where it stopped:
    /// read if it exists. It is left there at the end. Doesn't change the result.
    pub state: Option<PathBuf>,
}

impl Default for DistillationOptions {
    fn default() -> Self {
        Self {
            steps: 40,
            batch: 4,
            learning_rate: 2e-3,
            betas: [0.9, 0.99],
            epsilon: 1e-8,
            seed: 0,
            parallel: rayon::current_num_threads(),
            state: None,
        }
    }
}

/// How far a distillation is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DistillationStep {
    /// Steps done, those of earlier runs included.
    pub done: usize,
    /// Steps in all.
    pub steps: usize,
    /// Loss of the last step's windows, before its update; `None` before the first.
    pub loss: Option<f64>,
}

/// What a distillation did.
#[derive(Clone, PartialEq, Debug)]
pub struct DistillationReport {
    /// The loss of each step's windows, before its update: the mean over tokens of the Kullback–Leibler divergence of
    /// the quantized model's distribution from the full model's, in nats. Steps see different windows.
    pub losses: Vec<f64>,
    /// The largest relative change of a gain.
    pub largest_change: f64,
}

/// Tunes the gains of the quantized model's norms, so that its distribution of the next token gets near the full model's.
///
/// Only the gains change, which are FP32 and no part of the quantized layers: codes, tags, scales and thresholds
/// stay as they are, bit for bit. The quantizers are run as the hardware runs them, and count as identities in the
/// gradients, as the rounding of results to BF16 does.
///
/// `windows` are those of [`run`](crate::run), all of one length; of each, the last token is not used. Each step
/// takes the next windows of a random order, which starts anew when all were seen. `progress` is told after every
/// step, at the start too, and may ask to stop. Neither that nor going on from a state changes the result on the same machine.
///
/// # Errors
/// The models don't belong together, an option or a window can't be used, the state file is another distillation's
/// or can't be read or written, the loss or a gradient is not finite, or `progress` asked to stop. The quantized
/// model is then as it was.
pub fn distill(
    full: &Model,
    quantized: &mut QuantizedModel,
    windows: &[Vec<u32>],
    options: &DistillationOptions,
    progress: &mut dyn FnMut(DistillationStep) -> ControlFlow<()>,
) -> Result<DistillationReport, DistillationError> {
    check_options(options)?;
    check_models(full, quantized)?;
    let positions = check_windows(full.config(), windows)?;
    let original = gains_of(quantized);
    let keep = options
        .state
        .as_deref()
        .map(|path| (path, Fingerprint::new(full, quantized, windows, options)));
    let mut tuning = match &keep {
        Some((path, fingerprint)) if path.exists() => {
            state::load(path, fingerprint, original.len(), full.config().hidden)?
        }
        _ => Tuning::new(original.iter().map(Vec::len).sum()),
    };

    let teacher = Network::new(full, positions)?;
    let student = Student::new(quantized)?;
    loop {
        let done = tuning.losses.len();
        let now = DistillationStep {
            done,
            steps: options.steps,
            loss: tuning.losses.last().copied(),
        };
        let stop = progress(now).is_break();
        if done >= options.steps {
            break;
        }
        if stop {
            let steps = options.steps;
            return Err(DistillationError::Interrupted { done, steps });
        }
        let batch: Vec<&[u32]> = (done * options.batch..(done + 1) * options.batch)
            .filter_map(|position| windows.get(window_at(position, windows.len(), options.seed)))
            .filter_map(|window| window.get(..positions))
            .collect();
        let gains = tuned(&original, &tuning.change);
        let (loss, gradients) = gradients(&teacher, &student, &gains, &batch, options.parallel)?;
        // The gain is γ · (1 + change).
        let gradient: Vec<f64> = original
            .iter()
            .flatten()
            .zip(&gradients)
            .map(|(&gain, gradient)| f64::from(gain) * gradient)
            .collect();
        let not_finite = |what| DistillationError::NonFinite { step: done, what };
        if !loss.is_finite() {
            return Err(not_finite("the loss"));
        }
        if !gradient.iter().all(|g| g.is_finite()) {
            return Err(not_finite("a gradient"));
        }
        tuning.update(loss, &gradient, options);
        if let Some((path, fingerprint)) = &keep {
            state::save(path, &tuning, fingerprint, original.len())?;
        }
    }
    drop(student);

    let mut gains = tuned(&original, &tuning.change);
    let final_norm = gains.pop().unwrap_or_default();
    let mut gains = gains.into_iter();
    let mut norms = Vec::with_capacity(full.config().layers);
    while let (Some(attention), Some(mlp)) = (gains.next(), gains.next()) {
        norms.push([attention, mlp]);
    }
    quantized.set_norms(norms, final_norm)?;
    Ok(DistillationReport {
        largest_change: tuning.change.iter().fold(0.0, |most, x| most.max(x.abs())),
        losses: tuning.losses,
    })
}

fn check_options(options: &DistillationOptions) -> Result<(), DistillationError> {
    let share = |beta: f64| (0.0..1.0).contains(&beta);
    let checks = [
        (options.batch > 0, "a step needs at least one window"),
        (
            options.learning_rate.is_finite() && options.learning_rate >= 0.0,
            "the learning rate must not be negative",
        ),
        (
            options.betas.into_iter().all(share),
            "Adam's betas must be at least 0 and below 1",
        ),
        (
            options.epsilon.is_finite() && options.epsilon > 0.0,
            "Adam's epsilon must be above 0",
        ),
    ];
    match checks.iter().find(|(holds, _)| !holds) {
        Some((_, reason)) => Err(DistillationError::Options((*reason).into())),
        None => Ok(()),
    }
}

/// Both must have one shape, and one trunk but for the norms: whose gains may have been tuned before.
fn check_models(full: &Model, quantized: &QuantizedModel) -> Result<(), DistillationError> {
    let mismatch = |reason: String| Err(DistillationError::Mismatch(reason));
    if full.config() != quantized.config() {
        return mismatch(format!(
            "the full model is {:?}, the quantized one {:?}",
            full.config(),
            quantized.config()
        ));
    }
    let (expected, found) = (full.trunk(), quantized.trunk());
    if expected.embedding() != found.embedding() {
        return mismatch("their embeddings differ".into());
    }
    if expected.head() != found.head() {
        return mismatch("their heads differ".into());
    }
    Ok(())
}

/// Of each layer's two norms in the order of execution, then of the final one.
fn gains_of(model: &QuantizedModel) -> Vec<Vec<f32>> {
    let trunk = model.trunk();
    let norms = trunk.norms().iter().flatten().cloned();
    norms.chain([trunk.final_norm().to_vec()]).collect()
}

/// γ · (1 + change).
fn tuned(original: &[Vec<f32>], change: &[f64]) -> Vec<Vec<f32>> {
    let mut change = change.iter();
    original
        .iter()
        .map(|gains| {
            gains
                .iter()
                .zip(change.by_ref())
                .map(|(&gain, change)| (f64::from(gain) * (1.0 + change)) as f32)
                .collect()
        })
        .collect()
}

/// The window at a position of the endless random order.
fn window_at(position: usize, windows: usize, seed: u64) -> usize {
    let round = position / windows;
    let mut order: Vec<usize> = (0..windows).collect();
    order.sort_by_cached_key(|&window| {
        let mut hash = Sha256::new();
        for word in [seed, round as u64, window as u64] {
            hash.update(word.to_le_bytes());
        }
        hash.finalize()
    });
    order.get(position % windows).copied().unwrap_or_default()
}

/// The loss of a batch, and its gradient by all gains.
///
/// Windows run side by side, layer by layer; what they say is added one after the other: the sums don't depend on how many run at a time.
fn gradients(
    teacher: &Network<'_>,
    student: &Student<'_>,
    gains: &[Vec<f32>],
    windows: &[&[u32]],
    parallel: usize,
) -> Result<(f64, Vec<f64>), DistillationError> {
    let config = teacher.shape.config;
    let order: Vec<(usize, usize)> = (0..config.repetitions)
        .flat_map(|repetition| (0..config.layers).map(move |layer| (repetition, layer)))
        .collect();
    let share = 1.0 / windows.iter().map(|window| window.len()).sum::<usize>() as f64;
    let final_gains = gains.last().map_or(&[][..], Vec::as_slice);
    let mut loss = 0.0;
    let mut sums = vec![0.0; gains.len() * config.hidden];
    for windows in windows.chunks(parallel.max(1)) {
        let mut under_way = windows
            .par_iter()
            .map(|window| UnderWay::new(teacher, window))
            .collect::<Result<Vec<_>, _>>()?;
        for &(repetition, layer) in &order {
            let of_teacher = teacher.layer(layer)?;
            let of_student = student.layer(repetition, layer, gains)?;
            under_way
                .par_iter_mut()
                .try_for_each(|window| window.forward(&teacher.shape, &of_teacher, &of_student))?;
        }
        under_way
            .par_iter_mut()
            .try_for_each(|window| window.compare(teacher, final_gains, share))?;
        for &(repetition, layer) in order.iter().rev() {
            let of_student = student.layer(repetition, layer, gains)?;
            under_way
                .par_iter_mut()
                .try_for_each(|window| window.backward(&teacher.shape, &of_student))?;
        }
        for window in under_way {
            loss += window.loss;
            let gradients = window.gradients.iter().flatten();
            sums.iter_mut()
                .zip(gradients)
                .for_each(|(sum, gradient)| *sum += gradient);
        }
    }
    Ok((loss, sums))
}

/// Relative changes of the gains and Adam's running means, norms one behind the other.
struct Tuning {
    change: Vec<f64>,
    /// Of the gradients.
    mean: Vec<f64>,
    /// Of their squares.
    square: Vec<f64>,
    /// One a step done.
    losses: Vec<f64>,
}

impl Tuning {
    fn new(gains: usize) -> Self {
        Self {
            change: vec![0.0; gains],
            mean: vec![0.0; gains],
            square: vec![0.0; gains],
            losses: Vec::new(),
        }
    }

    /// One step of Adam (Kingma and Ba, 2015) down the gradient.
    fn update(&mut self, loss: f64, gradient: &[f64], options: &DistillationOptions) {
        let done = self.losses.len();
        let [beta_mean, beta_square] = options.betas;
        let left = 0.5 * (1.0 + (PI * done as f64 / options.steps as f64).cos());
        let rate = options.learning_rate * left;
        // The means start at 0, hence the corrections.
        let weight = |beta: f64| 1.0 - beta.powf(done as f64 + 1.0);
        let (mean_weight, square_weight) = (weight(beta_mean), weight(beta_square));
        let means = self.mean.iter_mut().zip(&mut self.square);
        for ((change, (mean, square)), g) in self.change.iter_mut().zip(means).zip(gradient) {
            *mean = beta_mean * *mean + (1.0 - beta_mean) * g;
            *square = beta_square * *square + (1.0 - beta_square) * g * g;
            let root = (*square / square_weight).sqrt();
            *change -= rate * (*mean / mean_weight) / (root + options.epsilon);
        }
        self.losses.push(loss);
    }
}
