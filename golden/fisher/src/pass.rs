//! The pass over the windows.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use golden::fisher::{FisherError, FisherInformation};
use golden::model::{Config, Input, Matrix, Model, Site};
use golden::tensors::FileError;
use rayon::prelude::*;

use crate::layer::Gradients;
use crate::network::Network;
use crate::state::{self, Fingerprint, Sums};

/// Why a pass stopped.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The windows can't be used.
    #[error("calibration windows: {0}")]
    Windows(String),
    /// A token that the vocabulary doesn't have.
    #[error(
        "window {window}: token {token} at position {position} is outside the vocabulary of {vocabulary}"
    )]
    Token {
        /// The window, from 0.
        window: usize,
        /// The token.
        token: u32,
        /// Its position in the window.
        position: usize,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// The model lacks something.
    #[error("the model: {0}")]
    Model(String),
    /// Loss or gradients overflow: the weights are not those of a working model.
    #[error("window {window}: {what} is not finite")]
    NonFinite {
        /// The window, from 0.
        window: usize,
        /// Loss or gradient.
        what: &'static str,
    },
    /// The state file is not one of this pass.
    #[error("{}: can't go on from this state: {reason}; remove it, or name another file", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The state file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The result is no Fisher information.
    #[error(transparent)]
    Fisher(#[from] FisherError),
    /// An operation failed.
    #[error("computing gradients: {0}")]
    Operation(#[from] candle_core::Error),
}

/// How to run a pass. None of this changes the result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Windows under way at a time, one a thread; at least 1. Each needs the memory of one layer's graph, and of
    /// all gradients of the weights if layers are repeated.
    pub parallel: usize,
    /// Where sums are kept, so that a pass can go on where it stopped: read if it exists. It is left there at the
    /// end, with all windows in it.
    pub state: Option<PathBuf>,
    /// Time between two writes of that file.
    pub save_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parallel: rayon::current_num_threads(),
            state: None,
            save_every: Duration::from_secs(60),
        }
    }
}

/// How far a pass is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Progress {
    /// Windows done, those of earlier runs included.
    pub done: usize,
    /// Windows in all.
    pub windows: usize,
    /// Mean negative log-likelihood of a token so far, in nats; 0 before the first window.
    pub loss: f64,
}

/// How a pass ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// All windows are done.
    Complete(FisherInformation),
    /// `progress` asked to stop; the state file, if there is one, holds the windows done.
    Interrupted(Progress),
}

/// The first `count` windows of a token stream, or as many as there are: each is `window` tokens to read and the one behind them, which the last of them predicts.
///
/// The windows of [`golden::eval::perplexity`]: no overlap but that token, no state carried over.
pub fn windows(tokens: &[u32], window: usize, count: usize) -> Vec<Vec<u32>> {
    let whole = tokens.len().saturating_sub(1).checked_div(window);
    (0..count.min(whole.unwrap_or(0)))
        .filter_map(|index| tokens.get(index * window..=(index + 1) * window))
        .map(<[u32]>::to_vec)
        .collect()
}

/// Computes the Fisher information of a model over windows, all of one length; in each the last token is only predicted.
///
/// `progress` is told after every few windows, at the start too, and may ask to stop. A run that goes on from a state gives the same bits as one run through on the same machine.
///
/// # Errors
/// The windows don't fit together or have a token outside the vocabulary, the state file is another pass's or
/// can't be read or written, or the loss or a gradient is not finite.
pub fn run(
    model: &Model,
    windows: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Outcome, PassError> {
    let config = *model.config();
    let window = check_windows(&config, windows)?;
    let keep = options
        .state
        .as_deref()
        .map(|path| (path, Fingerprint::new(model)));
    let mut sums = match &keep {
        Some((path, fingerprint)) if path.exists() => {
            state::load(path, &config, fingerprint, windows)?
        }
        _ => Sums::new(&config),
    };
    let save = |sums: &Sums| match &keep {
        Some((path, fingerprint)) => state::save(path, sums, &config, fingerprint, windows),
        None => Ok(()),
    };
    let network = Network::new(model, window)?;
    let mut saved = (Instant::now(), sums.windows);
    loop {
        let now = Progress {
            done: sums.windows,
            windows: windows.len(),
            loss: sums.loss / sums.windows.max(1) as f64,
        };
        let stop = progress(now).is_break();
        let complete = now.done == windows.len();
        if saved.1 != now.done && (stop || complete || saved.0.elapsed() >= options.save_every) {
            save(&sums)?;
            saved = (Instant::now(), now.done);
        }
        if complete {
            break;
        }
        if stop {
            return Ok(Outcome::Interrupted(now));
        }
        let end = windows.len().min(now.done + options.parallel.max(1));
        let batch = windows.get(now.done..end).unwrap_or_default();
        add_windows(&network, batch, &mut sums)?;
    }
    let information = sums.information(window);
    information.check(&config)?;
    Ok(Outcome::Complete(information))
}

/// The tokens that each window reads.
pub(crate) fn check_windows(config: &Config, windows: &[Vec<u32>]) -> Result<usize, PassError> {
    let length = windows.first().map_or(0, Vec::len);
    if length < 2 {
        let message = "at least one window of two tokens is needed: one to read, one to predict";
        return Err(PassError::Windows(message.into()));
    }
    for (index, window) in windows.iter().enumerate() {
        if window.len() != length {
            return Err(PassError::Windows(format!(
                "window {index} has {} tokens, the first has {length}",
                window.len()
            )));
        }
        let outside = |token: &u32| *token as usize >= config.vocabulary;
        if let Some(position) = window.iter().position(outside) {
            return Err(PassError::Token {
                window: index,
                token: window.get(position).copied().unwrap_or_default(),
                position,
                vocabulary: config.vocabulary,
            });
        }
    }
    Ok(length - 1)
}

/// A window on its way.
struct UnderWay {
    /// Inputs of the layers still to be run backwards, in the order of execution.
    inputs: Vec<Tensor>,
    /// Rows of the residual stream on the way forward, their gradient on the way back.
    rows: Tensor,
    loss: f64,
    /// Gradients of matrices that other repetitions use too, by layer.
    held: Vec<Option<[Tensor; 7]>>,
}

/// Runs windows side by side, layer by layer, and adds their squared gradients one window after the other: the sums don't depend on how many run at a time.
fn add_windows(
    network: &Network<'_>,
    windows: &[Vec<u32>],
    sums: &mut Sums,
) -> Result<(), PassError> {
    let config = network.shape.config;
    let first = sums.windows;
    let mut under_way = windows
        .par_iter()
        .map(|window| {
            let (_, read) = window.split_last().unwrap_or((&0, &[]));
            Ok(UnderWay {
                inputs: Vec::with_capacity(config.repetitions * config.layers),
                rows: network.embed(read)?,
                loss: 0.0,
                held: vec![None; config.layers],
            })
        })
        .collect::<Result<Vec<_>, PassError>>()?;
    let order: Vec<(usize, usize)> = (0..config.repetitions)
        .flat_map(|repetition| (0..config.layers).map(move |layer| (repetition, layer)))
        .collect();
    for &(_, layer) in &order {
        let layer = network.layer(layer)?;
        under_way.par_iter_mut().try_for_each(|window| {
            let next = layer.forward(&network.shape, &window.rows)?;
            window
                .inputs
                .push(std::mem::replace(&mut window.rows, next));
            Ok::<_, PassError>(())
        })?;
    }
    under_way
        .par_iter_mut()
        .zip(windows)
        .try_for_each(|(window, tokens)| {
            let targets = tokens.get(1..).unwrap_or_default();
            (window.loss, window.rows) = network.loss(&window.rows, targets)?;
            Ok::<_, PassError>(())
        })?;
    for (index, window) in under_way.iter().enumerate() {
        if !window.loss.is_finite() {
            return Err(PassError::NonFinite {
                window: first + index,
                what: "the loss",
            });
        }
    }
    for &(repetition, layer) in order.iter().rev() {
        let graph = network.layer(layer)?;
        let gradients = under_way
            .par_iter_mut()
            .map(|window| {
                let input = window
                    .inputs
                    .pop()
                    .ok_or_else(|| PassError::Model("a layer has no input".into()))?;
                let mut gradients = graph.backward(&network.shape, &input, &window.rows)?;
                window.rows = gradients.x.clone();
                hold(&mut gradients, &mut window.held[layer])?;
                if repetition > 0 {
                    window.held[layer] = Some(gradients.matrices.clone());
                }
                Ok(gradients)
            })
            .collect::<Result<Vec<_>, PassError>>()?;
        for (index, gradients) in gradients.iter().enumerate() {
            for (input, tensor) in Input::ALL.into_iter().zip(&gradients.sites) {
                let site = Site {
                    repetition,
                    layer,
                    input,
                };
                let to = &mut sums.activations[site.index(&config)];
                add_squared_rows(to, tensor)?;
                if to.iter().any(|sum| !sum.is_finite()) {
                    return Err(PassError::NonFinite {
                        window: first + index,
                        what: "a gradient",
                    });
                }
            }
        }
        if repetition == 0 {
            sums.weights[layer]
                .par_iter_mut()
                .zip(Matrix::ALL)
                .try_for_each(|(to, matrix)| {
                    gradients.iter().try_for_each(|gradients| {
                        add_squares(to, &gradients.matrices[matrix as usize])
                    })
                })?;
        }
    }
    sums.loss = under_way
        .iter()
        .fold(sums.loss, |sum, window| sum + window.loss);
    sums.windows += windows.len();
    Ok(())
}

/// Adds what later repetitions said of the same matrices.
fn hold(gradients: &mut Gradients, held: &mut Option<[Tensor; 7]>) -> candle_core::Result<()> {
    if let Some(held) = held.take() {
        for (gradient, held) in gradients.matrices.iter_mut().zip(held) {
            *gradient = held.add(gradient)?;
        }
    }
    Ok(())
}

/// sums += g², element by element.
fn add_squares(sums: &mut [f32], gradient: &Tensor) -> candle_core::Result<()> {
    with_values(gradient, |values| {
        for (sum, g) in sums.iter_mut().zip(values) {
            *sum += g * g;
        }
    })
}

/// sums += g², rows below one another.
fn add_squared_rows(sums: &mut [f64], gradient: &Tensor) -> candle_core::Result<()> {
    with_values(gradient, |values| {
        for row in values.chunks_exact(sums.len()) {
            for (sum, &g) in sums.iter_mut().zip(row) {
                *sum += f64::from(g) * f64::from(g);
            }
        }
    })
}

fn with_values(tensor: &Tensor, see: impl FnOnce(&[f32])) -> candle_core::Result<()> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (candle_core::Storage::Cpu(storage), Some((start, end))) => {
            see(storage
                .as_slice::<f32>()?
                .get(start..end)
                .unwrap_or_default());
            Ok(())
        }
        _ => Err(candle_core::Error::Msg(
            "expected a tensor in memory".into(),
        )),
    }
}
