//! Choosing the format of a block and quantizing it (numerics §3).

mod offline;
mod rows;
mod stream;

use half::bf16;

pub(crate) use offline::thresholds;
pub use offline::{
    Candidates, QuantizeError, QuantizedWeights, UNIFORM, WeightOptions, WeightTensor, candidates,
    choose, clipped_scale, clipped_scale_by_trial, quantize_weights,
};
pub use rows::{RowsError, pack_rows, score_rows};
pub use stream::{ActivationQuantizer, ChannelSensitivity, Policy};

use crate::block::Block;
use crate::format::{BLOCK, E2m1, E4M3, E4m3, Ue4m3, exp2};
use crate::requantize::{ScaleError, checked};

/// The FP32 constant that an activation is multiplied with before quantizing: 0, or 2⁻⁶⁰ ≤ |M| ≤ 2⁶⁰.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct InputScale(f32);

impl InputScale {
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

/// z = clamp(RNE_BF16(RNE_FP32(x · M)), ±448); NaN and ∞ · 0 give 0x7FC0.
///
/// Hardware has no subnormals, so they are defined away: a subnormal x counts as zero of its sign;
/// the product is rounded to 24 significant bits with unbounded exponent and, if it is then below
/// 2⁻¹²⁶, becomes zero of its sign. No code and no decision can see the difference (numerics §3).
pub fn rescale(x: bf16, m: InputScale) -> bf16 {
    const MIN_NORMAL: f64 = exp2(-126);
    // From here on 24 bits round up to 2⁻¹²⁶ (the tie goes to its even significand).
    const ROUNDS_TO_MIN_NORMAL: f64 = MIN_NORMAL - exp2(-151);
    const MAX: bf16 = bf16::from_f32_const(E4M3.max as f32);

    let mut x = f64::from(x);
    if x.abs() < MIN_NORMAL {
        x = 0f64.copysign(x);
    }
    // 8 × 24 significant bits: exact in FP64.
    let product = x * f64::from(m.0);
    if product.is_nan() {
        return bf16::NAN;
    }
    if product.abs() < ROUNDS_TO_MIN_NORMAL {
        return bf16::ZERO.copysign_of(product);
    }
    let z = bf16::from_f32(product as f32);
    if z.to_f32().abs() > MAX.to_f32() {
        MAX.copysign_of(product)
    } else {
        z
    }
}

trait CopySign {
    fn copysign_of(self, sign: f64) -> Self;
}

impl CopySign for bf16 {
    fn copysign_of(self, sign: f64) -> Self {
        Self::from_bits(self.to_bits() & 0x7FFF | u16::from(sign.is_sign_negative()) << 15)
    }
}

/// Base-2 logarithm of the unit of an online impact score and of its threshold.
pub const SCORE_UNIT_EXPONENT: i32 = -29;

/// What the online quantizer made of a block, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The block in the format chosen.
    pub block: Block,
    /// Impact score in units of 2⁻²⁹, below 2⁵⁶; NaN elements contribute nothing.
    pub score: u64,
    /// The FP4 candidate; NaN elements count as zero in its scale and have code 0.
    pub fp4: ([E2m1; BLOCK], Ue4m3),
    /// The FP8 candidate.
    pub fp8: [E4m3; BLOCK],
}

/// Quantizes an activation block online: FP8 iff its score is above `threshold` or an element is NaN.
///
/// `z` is what [`rescale`] gives; larger magnitudes are clamped to 448 first. `sensitivity` is F, one
/// code a channel; `threshold` is T in units of 2⁻²⁹. All of it is exact in integers.
pub fn decide(z: &[bf16; BLOCK], sensitivity: &[Ue4m3; BLOCK], threshold: u64) -> Decision {
    let max = E4M3.max as f32;
    let z = z.map(|z| z.to_f32().clamp(-max, max));
    // f32::max drops NaN.
    let amax = z.iter().fold(0f32, |amax, z| amax.max(z.abs()));
    let scale = Ue4m3::of_amax(amax);
    let fp4 = z.map(|z| E2m1::quantize_scaled(z, scale));
    let fp8 = z.map(E4m3::quantize);
    let score = (0..BLOCK)
        .map(|i| {
            // In units of 2⁻¹⁰: the scale's 2⁻⁹ times the element's 2⁻¹, and the FP8 code's 2⁻⁹.
            let excess = fp8[i]
                .units()
                .map_or(0, |e| scale.units() as i32 * fp4[i].half_units() - 2 * e);
            u64::from(excess.unsigned_abs()).pow(2) * u64::from(sensitivity[i].units())
        })
        .sum();
    let is_nan = fp8.iter().any(|e| e.is_nan());
    let block = if is_nan || score > threshold {
        Block::Fp8 { elements: fp8 }
    } else {
        Block::Fp4 {
            scale,
            elements: fp4,
        }
    };
    Decision {
        block,
        score,
        fp4: (fp4, scale),
        fp8,
    }
}
