//! One module a command.

pub mod board;
pub mod board_build;
pub mod board_flash;
pub mod board_run;
pub mod cosim;
pub mod cosim_top;
pub mod demo;
pub mod dequantize;
pub mod emit;
pub mod estimate;
pub mod ets;
pub mod eval;
pub mod fisher;
pub mod matmul;
pub mod quantize;
pub mod report;
pub mod speed;
pub mod synth;
