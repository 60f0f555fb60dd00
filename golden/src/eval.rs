//! Perplexity of a model on a token stream.

use rayon::prelude::*;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::{Config, KvCache, LanguageModel, ModelError, QuantizedModel, Tally, forward};

/// What an evaluation found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Evaluation {
    /// exp of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Perplexity if the model stops after each repetition of its layers; the last is `perplexity`. Only that one unless asked for.
    pub perplexity_by_exit: Vec<f64>,
    /// Share of FP8 blocks among the activations; 0 in full precision.
    pub activation_fp8_share: f64,
    /// The same by layer, repetitions one after the other.
    pub activation_fp8_share_by_layer: Vec<f64>,
    /// Activation blocks by site.
    #[serde(skip)]
    pub tally: Tally,
}

/// What to evaluate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Tokens of a window.
    pub window: usize,
    /// At most so many windows; all if `None`.
    pub windows: Option<usize>,
    /// Whether to score every exit (the head's work once more for each).
    pub exits: bool,
}

impl Options {
    /// All windows of a model's own context, the last exit.
    pub const fn new(config: &Config) -> Self {
        Self {
            window: config.context,
            windows: None,
            exits: false,
        }
    }
}

/// Windows without overlap or carried state; position i predicts token i + 1 of the stream; a last partial window is dropped.
///
/// Windows run in parallel and are summed in their order, so that the number of threads can't change the result.
/// `progress` is told how many of how many windows are done, from any thread.
///
/// # Errors
/// A token is outside the vocabulary, or there is no whole window.
pub fn perplexity(
    model: &dyn LanguageModel,
    tokens: &[u32],
    options: Options,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Evaluation, ModelError> {
    let config = *model.trunk().config();
    // A window's last position is scored on the first token behind it.
    let whole = tokens
        .len()
        .saturating_sub(1)
        .checked_div(options.window)
        .unwrap_or(0);
    let count = options.windows.map_or(whole, |windows| windows.min(whole));
    if count == 0 {
        return Err(ModelError::Config(format!(
            "a window of {} tokens and the one behind it are needed, {} tokens were given",
            options.window,
            tokens.len()
        )));
    }
    let done = AtomicUsize::new(0);
    let windows = (0..count)
        .into_par_iter()
        .map(|index| {
            let scored = &tokens[index * options.window..=(index + 1) * options.window];
            let result = score_window(model, scored, options.exits);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, count);
            result
        })
        .collect::<Result<Vec<_>, _>>()?;

    let mut tally = Tally::new(&config);
    let exits = if options.exits { config.repetitions } else { 1 };
    let mut losses = vec![0f64; exits];
    for (window_losses, window_tally) in &windows {
        tally.add(window_tally);
        losses
            .iter_mut()
            .zip(window_losses)
            .for_each(|(sum, loss)| *sum += loss);
    }
    let tokens = count * options.window;
    let perplexity_by_exit: Vec<f64> = losses
        .iter()
        .map(|loss| (loss / tokens as f64).exp())
        .collect();
    let by_layer = tally
        .blocks
        .chunks(4)
        .zip(tally.fp8_blocks.chunks(4))
        .map(|(blocks, fp8)| {
            let blocks: u64 = blocks.iter().sum();
            if blocks == 0 {
                0.0
            } else {
                fp8.iter().sum::<u64>() as f64 / blocks as f64
            }
        });
    Ok(Evaluation {
        perplexity: perplexity_by_exit.last().copied().unwrap_or(f64::NAN),
        tokens,
        perplexity_by_exit,
        activation_fp8_share: tally.fp8_share(),
        activation_fp8_share_by_layer: by_layer.collect(),
        tally,
    })
}

/// Share of FP8 blocks among the weights of each layer.
pub fn weight_fp8_share_by_layer(model: &QuantizedModel) -> Vec<f64> {
    let tensors: Vec<_> = model.packed_tensors().collect();
    tensors
        .chunks(crate::model::Matrix::ALL.len())
        .map(|layer| {
            let fp8: usize = layer.iter().map(|(_, tensor)| tensor.fp8_blocks()).sum();
            let all: usize = layer.iter().map(|(_, tensor)| tensor.block_count()).sum();
            fp8 as f64 / all as f64
        })
        .collect()
}

/// Summed losses of a window (all its tokens but the last are read) for each exit asked for.
fn score_window(
    model: &dyn LanguageModel,
    tokens: &[u32],
    exits: bool,
) -> Result<(Vec<f64>, Tally), ModelError> {
    let trunk = model.trunk();
    let config = trunk.config();
    let mut tally = Tally::new(config);
    let (read, targets) = (&tokens[..tokens.len() - 1], &tokens[1..]);
    for (position, &token) in targets.iter().enumerate() {
        if token as usize >= config.vocabulary {
            return Err(ModelError::Token {
                token,
                position,
                vocabulary: config.vocabulary,
            });
        }
    }
    let mut losses = Vec::new();
    forward(
        model,
        read,
        &mut KvCache::new(),
        &mut tally,
        |repetition, hidden| {
            if exits || repetition + 1 == config.repetitions {
                losses.push(loss(model, hidden, targets));
            }
        },
    )?;
    Ok((losses, tally))
}

fn loss(model: &dyn LanguageModel, hidden: &[f32], targets: &[u32]) -> f64 {
    /// Rows of logits at a time: 1 MB of them for a vocabulary of 4096.
    const ROWS: usize = 64;
    let config = model.trunk().config();
    let mut sum = 0.0;
    for (hidden, targets) in hidden
        .chunks(ROWS * config.hidden)
        .zip(targets.chunks(ROWS))
    {
        let logits = model.trunk().logits(hidden);
        for (logits, &target) in logits.chunks_exact(config.vocabulary).zip(targets) {
            let largest = logits
                .iter()
                .fold(f32::NEG_INFINITY, |largest, &logit| largest.max(logit));
            // Partial sums of 64 terms keep FP32's error far below the digits shown.
            let total: f64 = logits
                .chunks(64)
                .map(|logits| {
                    f64::from(
                        logits
                            .iter()
                            .map(|logit| (logit - largest).exp())
                            .sum::<f32>(),
                    )
                })
                .sum();
            sum += total.ln() + f64::from(largest) - f64::from(logits[target as usize]);
        }
    }
    sum
}
