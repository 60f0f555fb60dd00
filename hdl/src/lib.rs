//! What is built: rust-hdl modules and the Verilog emitter
