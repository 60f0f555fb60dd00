//! What it costs: yosys and nextpnr flows over emitted modules.
//!
//! [`yosys::cells`] maps a design to a target's cells and counts them. [`nextpnr::place_and_route`] places and routes an ECP5
//! netlist and tells its clock. [`table`] does both for the parts of a processing element, each in the same
//! [`harness`], and sets the figures beside their bars and those of peers. The programs that are called are found as
//! `testbench::tool` finds them.

pub mod asic;
pub mod energy;
pub mod harness;
pub mod nextpnr;
pub mod peers;
pub mod table;
pub mod yosys;
