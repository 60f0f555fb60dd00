//! What is built: rust-hdl modules and the Verilog emitter.

extern crate self as hdl;

pub mod accelerator;
pub mod array;
pub mod board;
pub mod build;
pub mod bundle;
pub mod config;
pub mod core;
pub mod decoder;
pub mod emit;
pub mod ets;
pub mod float;
pub mod kernel;
pub mod mac;
pub mod memory;
pub mod prelude;
pub mod primitive;
pub mod quantizer;
pub mod requantizer;
pub mod sim;
pub mod speed;
