//! One module a command.

pub mod board;
pub mod cosim;
pub mod cosim_top;
pub mod demo;
pub mod dequantize;
pub mod emit;
pub mod eval;
pub mod fisher;
pub mod matmul;
pub mod quantize;
pub mod report;
pub mod synth;
pub mod synth_asic;
pub mod synth_energy;
