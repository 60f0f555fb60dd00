//! The four-mode multiply-accumulate datapath. Twin of [`golden::mac`].
//!
//! A PE multiplies one weight block by one activation block a cycle in any of the four modes and
//! adds the exact result to its accumulator (numerics §4). One 16-lane dot product serves all modes: an E2M1 element is an
//! E4M3 element's significand without a shift, so that the sum of an FP4 x FP4 pair comes to lie in the low 13 bits of the sum and that of a
//! mixed pair in the low 27. The registers before the adders hold the bits above, so those do not toggle.

mod dot;
mod pe;
pub mod reduced;
mod scale;

pub use dot::{AlignedProduct, AlignedSum, IntegerLane, Lane, SignedProduct};
pub use pe::Pe;
pub use scale::{ScaleFirst, ScaleProduct, ScaleSecond, TermAlign};

/// Width of the FP4 x FP4 sum in units of 2^-2 (numerics §4).
pub const FOUR_BIT_SUM: usize = 13;
/// Width of the sum of a mixed pair in units of 2^-10 (numerics §4).
pub const MIXED_SUM: usize = 27;
/// Width of the FP8 x FP8 sum in units of 2^-18 (numerics §4).
pub const WIDE_SUM: usize = 41;
/// Width of one FP8 x FP8 product in units of 2^-18.
pub const WIDE_PRODUCT: usize = 37;
/// Width of the product of two elements' magnitudes as integers.
pub const INTEGER_PRODUCT: usize = 36;
/// Width of one pair's result in units of 2^-20: its magnitude is below 2^47 (numerics §4).
pub const TERM: usize = 48;

/// The places between a PE's parts where a register may stand. The accumulator, behind the last, is always one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// Before the multipliers.
    Operands,
    /// Between the multipliers and the shifters.
    Product,
    /// Between the shifters and the adders.
    Aligned,
    /// In the middle of the adder tree.
    Partial,
    /// Between the adder tree and the first scale's multiplier.
    Sum,
    /// Between the two scales' multipliers.
    Scaled,
    /// Between the second scale's multiplier and the shifter.
    Scaled2,
    /// Before the accumulator.
    Term,
}

/// Number of boundaries.
pub const BOUNDARIES: usize = 8;

/// Fewest stages of a PE, the accumulator included.
pub const MIN_STAGES: usize = 3;
/// Most stages of a PE, the accumulator included.
pub const MAX_STAGES: usize = BOUNDARIES + 1;

/// Which boundaries have a register in a PE of so many stages, [`MIN_STAGES`] to [`MAX_STAGES`].
///
/// What has the most levels of logic is cut first: the adders from the shifters, then the adder tree and the scales' multipliers, and the
/// multipliers from the shifters last.
#[must_use]
pub const fn boundaries(stages: usize) -> [bool; BOUNDARIES] {
    match stages {
        0..=3 => [true, false, false, false, true, false, false, false],
        4 => [true, false, false, false, true, false, false, true],
        5 => [true, false, true, false, true, false, false, true],
        6 => [true, false, true, false, true, false, true, true],
        7 => [true, false, true, true, true, false, true, true],
        8 => [true, false, true, true, true, true, true, true],
        _ => [true; BOUNDARIES],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_depth_has_its_registers() {
        for stages in MIN_STAGES..=MAX_STAGES {
            let present = boundaries(stages);
            // The accumulator is the last stage; operands are always held.
            assert_eq!(present.iter().filter(|&&p| p).count() + 1, stages);
            assert!(present[Boundary::Operands as usize]);
        }
    }
}
