//! The complete accelerator: packed tensors in, results or packed tensors out.
//!
//! Weights and activations come as the three dense streams of a packed tensor (numerics §2), or activations as BF16 through the
//! quantizer, into on-chip memories of two halves each. A job queue with registers behind AXI4-Lite describes matrix products of any size that
//! fits the memories; the sequencer walks their tiles at one block pair a cycle in every processing element.

pub mod bank;
pub mod counters;
pub mod feed;
pub mod loader;
pub mod queue;
pub mod reader;
pub mod registers;
pub mod results;
pub mod sequencer;
pub mod top;
pub mod writer;

pub use top::Accelerator;
