//! What it costs: yosys flows over an emitted bundle.
//!
//! [`yosys::cells`] maps a design to a target's cells and counts them. The programs that are called are found as
//! `testbench::tool` finds them.

pub mod yosys;
