//! What is right: formats, blocks, quantizer, exact arithmetic and the language-model engine.
//!
//! Everything here follows the project's numerics page; its sections are named as `numerics §n`.
//! The crate knows no tool and no Verilog: hardware, files and tests are compared with it.

pub mod bert;
pub mod block;
pub mod ets;
pub mod eval;
pub mod fisher;
pub mod format;
mod gemm;
pub mod mac;
pub mod matmul;
pub mod model;
pub mod packed;
pub mod profiles;
pub mod quantizer;
pub mod requantize;
mod scheme;
mod simd;
pub mod speed;
#[cfg(feature = "strategies")]
pub mod strategies;
pub mod tensors;

pub use matmul::matmul;
pub use scheme::{Scheme, Selection, Share, ShareError};

/// Version of the numerics page that this crate implements; written into every packed file.
pub const NUMERICS_VERSION: u32 = 1;
