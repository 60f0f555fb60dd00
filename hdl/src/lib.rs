//! What is built: rust-hdl modules and the Verilog emitter.

extern crate self as hdl;

pub mod kernel;
pub mod prelude;
pub mod primitive;
pub mod sim;
