//! Cells, mapped netlists, their simulation and their energy.
//!
//! [`liberty`] reads a cell library into a compact model, [`netlist`] a netlist of its cells. [`sim`] runs the netlist in two ways: in
//! [`sim::zero_delay`] 64 streams at a time, where every net changes at most once a cycle, and in [`sim::timed`] one stream with the
//! library's delays, where glitches count. Both charge energy to the same terms, which [`energy`] defines.
//!
//! The crate knows nothing of rust-hdl or of any format: text in, figures out.

#![forbid(unsafe_code)]

pub mod energy;
pub mod liberty;
pub mod logic;
pub mod netlist;
pub mod sim;
