//! The four-mode multiply-accumulate datapath. Twin of [`golden::mac`].
//!
//! A PE multiplies one weight block by one activation block a cycle in any of the four modes and
//! adds the exact result to its accumulator (numerics §4). Two 16-lane dot products exist: a
//! small one for FP4 x FP4 and a wide one for every pair with an FP8 block. The registers in
//! front of the one that a pair does not use hold their value, so it does not toggle.

mod dot;
mod pe;
mod scale;

pub use dot::{FourBitDot, FourBitLane, WideDot, WideLane};
pub use pe::Pe;
pub use scale::ScaleAlign;

/// Width of the FP4 x FP4 sum in units of 2^-2 (numerics §4).
pub const FOUR_BIT_SUM: usize = 13;
/// Width of the sum of a mixed pair in units of 2^-10 (numerics §4).
pub const MIXED_SUM: usize = 27;
/// Width of the FP8 x FP8 sum in units of 2^-18 (numerics §4).
pub const WIDE_SUM: usize = 41;
/// Width of one pair's result in units of 2^-20: its magnitude is below 2^47 (numerics §4).
pub const TERM: usize = 48;
