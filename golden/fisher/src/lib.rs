//! The Fisher pass: squared loss gradients of a language model's weights and activations, averaged over calibration windows.
//!
//! For each window, the loss is the mean negative log-likelihood of its tokens. With g the gradient of that loss,
//!
//! * F of a weight is the mean of g² over the windows (numerics §3). A weight that several repetitions share has
//!   one gradient, the sum over its uses, which is then squared;
//! * F of a channel of a linear layer's input is the mean of g² over all tokens of all windows, where g is the
//!   gradient of that token's element: what all matrices that read the input say together. Repetitions are kept apart.
//!
//! A factor common to all weights, or to all activations, changes no decision: losses summed in place of averaged give the same blocks.
//!
//! Gradients are candle's. The forward run keeps each layer's input only; the way back rebuilds one layer's graph at
//! a time, so memory holds one layer's graph for each window under way, and not the model's.
//!
//! The same gradients, run through the quantizers, serve to tune the norms of a quantized model: [`distill`].

mod distillation;
mod layer;
mod network;
mod operations;
mod pass;
mod state;

pub use distillation::{
    DistillationError, DistillationOptions, DistillationReport, DistillationStep, distill,
};
pub use pass::{Options, Outcome, PassError, Progress, run, windows};
