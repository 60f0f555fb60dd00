//! What is right: formats, blocks, quantizer, exact arithmetic and the language-model engine.
//!
//! Everything here follows the project's numerics page; its sections are named as `numerics §n`.
//! The crate knows no tool and no Verilog: hardware, files and tests are compared with it.

pub mod block;
pub mod format;
pub mod mac;
pub mod quantizer;
pub mod requantize;

/// Version of the numerics page that this crate implements; written into every packed file.
pub const NUMERICS_VERSION: u32 = 1;
