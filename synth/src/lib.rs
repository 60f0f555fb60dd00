//! What it costs: yosys and nextpnr flows over emitted modules.
//!
//! [`yosys::cells`] maps a design to a target's cells and counts them. [`nextpnr::place_and_route`] places and routes a
//! netlist on a [`device`] and tells its clock. [`table`] does both for the parts of a processing element, each in the same
//! [`harness`], and sets the figures beside their bars and those of peers. Results are kept in a [`store`]; [`estimate`]
//! tells area without synthesis from what was measured. The programs that are called are found as
//! `testbench::tool` finds them.

pub mod asic;
pub mod device;
pub mod energy;
pub mod estimate;
pub mod harness;
pub mod nextpnr;
pub mod parallel;
pub mod peers;
pub mod store;
pub mod table;
pub mod yosys;
