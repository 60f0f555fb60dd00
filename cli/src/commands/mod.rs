//! One module a command.

pub mod board;
pub mod cosim;
pub mod demo;
pub mod dequantize;
pub mod emit;
pub mod eval;
pub mod matmul;
pub mod quantize;
pub mod synth;
