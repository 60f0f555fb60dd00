//! That they agree: Verilator driver, stream benches, scoreboards.
//!
//! A [`design::Design`] is Verilog text with a list of ports. A [`simulator::Simulator`] runs it: [`verilator`] compiles it
//! to C++ (the arbiter). A [`stream::StreamJob`] says what goes in and how much must
//! come out; the run checks the rules of the streams. The benches make jobs, and compare what comes out with `golden`.
#![deny(unsafe_code)]

pub mod accelerator;
pub mod array;
pub mod board;
pub mod cache;
pub mod design;
pub mod ets;
mod ffi;
pub mod quantizer;
pub mod report;
pub mod rust_sim;
pub mod serial;
pub mod simulator;
pub mod speed;
pub mod stimulus;
pub mod stream;
pub mod tool;
pub mod verilator;
