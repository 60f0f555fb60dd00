//! From the accumulator to a BF16 result (numerics §5).

use half::bf16;

use crate::format::exp2;
use crate::mac::ACC_UNIT_EXPONENT;

/// A multiplier out of the range in which nothing is subnormal or overflows.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error("scale {0:e} is neither 0 nor of a magnitude from 2^-60 to 2^60")]
pub struct ScaleError(pub f32);

/// Checks the range that numerics §5 gives multipliers.
pub(crate) fn checked(m: f32) -> Result<f32, ScaleError> {
    let magnitude = f64::from(m.abs());
    if m == 0.0 || (exp2(-60)..=exp2(60)).contains(&magnitude) {
        Ok(m)
    } else {
        Err(ScaleError(m))
    }
}

/// The FP32 constant that a result is multiplied with: 0, or 2⁻⁶⁰ ≤ |M| ≤ 2⁶⁰.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OutputScale(f32);

impl OutputScale {
    /// M = 1.
    pub const ONE: Self = Self(1.0);

    /// Checks the range.
    ///
    /// # Errors
    /// NaN, an infinity, or a magnitude outside the range.
    pub fn new(m: f32) -> Result<Self, ScaleError> {
        checked(m).map(Self)
    }

    /// The constant.
    pub const fn get(self) -> f32 {
        self.0
    }
}

/// RNE_BF16(RNE_FP32(RNE_FP32(value · 2⁻²⁰) · M)); 0x7FC0 if `nan`.
///
/// The sign of a zero result is that of `value` (0 counts as positive) times that of M.
pub fn requantize(value: i128, nan: bool, m: OutputScale) -> bf16 {
    if nan {
        return bf16::NAN;
    }
    // The power of two is exact: a nonzero value is at least 2⁻²⁰ and at most 2¹⁰⁷.
    let acc = value as f32 * exp2(ACC_UNIT_EXPONENT) as f32;
    bf16::from_f32(acc * m.0)
}
