//! Activations: rescaled, scored and quantized by the row (numerics §3).

use multiversion::multiversion;

use super::block::{
    amax_bits, fp4_magnitudes, fp4_word, fp8_magnitudes, fp8_words, scale_code, scale_value,
};
use crate::format::{BLOCK, E4M3};
use crate::packed::StreamBuilder;

/// RNE to BF16 on the bits of a number that is not NaN.
#[inline(always)]
fn round_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

/// z of a block, and whether none is NaN.
///
/// Subnormals need no flush here: no code sees them (numerics §3).
#[inline(always)]
fn rescaled(x: &[f32; BLOCK], m: f32) -> ([f32; BLOCK], bool) {
    const MAX: f32 = E4M3.max as f32;
    let mut z = [0f32; BLOCK];
    let mut nan = 0u32;
    for (z, &x) in z.iter_mut().zip(x) {
        let product = round_to_bf16(x) * m;
        nan |= u32::from(x.is_nan()) | u32::from(product.is_nan());
        let rounded = round_to_bf16(product);
        let above = if rounded > MAX { MAX } else { rounded };
        *z = if above < -MAX { -MAX } else { above };
    }
    (z, nan == 0)
}

/// Both forms' magnitudes, the FP4 form's scale, and the impact score in units of 2⁻²⁹, `f` being in units of 2⁻⁹.
///
/// Terms and partial sums are integers, and sums of terms that are not negative: below 2⁵³ FP64 is exact in any order, and
/// what is not below 2⁵³ is not rounded to anything below it.
#[inline(always)]
pub(super) fn analyse(z: &[f32; BLOCK], f: &[f64; BLOCK]) -> ([f32; BLOCK], [f32; BLOCK], u8, f64) {
    let code = scale_code(f32::from_bits(amax_bits(z)));
    let (fp4, fp8) = (fp4_magnitudes(z, scale_value(code)), fp8_magnitudes(z));
    let mut excess = [0f32; BLOCK];
    for ((excess, fp4), fp8) in excess.iter_mut().zip(&fp4).zip(&fp8) {
        // In units of 2⁻¹⁰; the signs are the same.
        *excess = (fp4 - fp8) * 1024.0;
    }
    let mut lanes = [0f64; 8];
    for (excess, f) in excess.as_chunks::<8>().0.iter().zip(f.as_chunks::<8>().0) {
        for ((lane, &excess), f) in lanes.iter_mut().zip(excess).zip(f) {
            let excess = f64::from(excess);
            *lane += excess * excess * f;
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    let score = ((a + e) + (b + f)) + ((c + g) + (d + h));
    (fp4, fp8, code, score)
}

/// What decides: a block is FP8 iff its score is above `threshold`.
#[derive(Clone, Copy)]
pub(crate) struct Decider {
    /// M.
    pub(crate) m: f32,
    /// T, an integer below 2⁵³, −1 or ∞.
    pub(crate) threshold: f64,
    /// From here on the score isn't exact enough to decide: 2⁵³, or ∞ where any score will do.
    pub(crate) undecided: f64,
}

/// Writes the decoded values of blocks, without the tensor's scale. Adds the FP8 blocks to `fp8_blocks`.
///
/// Returns the number of blocks done: stops at one that holds NaN or can't be decided in FP64.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
pub(crate) fn values(
    decider: Decider,
    x: &[[f32; BLOCK]],
    f: &[[f64; BLOCK]],
    out: &mut [[f64; BLOCK]],
    fp8_blocks: &mut usize,
) -> usize {
    for (done, ((x, f), out)) in x.iter().zip(f).zip(out.iter_mut()).enumerate() {
        let (z, numbers) = rescaled(x, decider.m);
        let (fp4, fp8, code, score) = analyse(&z, f);
        if !numbers || score >= decider.undecided {
            return done;
        }
        let is_fp8 = score > decider.threshold;
        *fp8_blocks += usize::from(is_fp8);
        // With scale 0 all FP4 codes are +0.
        let sign = if is_fp8 || code != 0 { 1 << 31 } else { 0 };
        for (((out, fp4), fp8), z) in out.iter_mut().zip(fp4).zip(fp8).zip(z) {
            let magnitude = if is_fp8 { fp8 } else { fp4 };
            *out = f32::from_bits(magnitude.to_bits() | z.to_bits() & sign).into();
        }
    }
    x.len().min(f.len()).min(out.len())
}

/// As [`values`], into packed streams.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
pub(crate) fn pack(
    decider: Decider,
    x: &[[f32; BLOCK]],
    f: &[[f64; BLOCK]],
    streams: &mut StreamBuilder,
) -> usize {
    for (done, (x, f)) in x.iter().zip(f).enumerate() {
        let (z, numbers) = rescaled(x, decider.m);
        let (_, _, code, score) = analyse(&z, f);
        if !numbers || score >= decider.undecided {
            return done;
        }
        if score > decider.threshold {
            streams.push_fp8(fp8_words(&z));
        } else {
            streams.push_fp4(code, fp4_word(&z, scale_value(code)));
        }
    }
    x.len().min(f.len())
}

/// Writes the scores of blocks in units of 2⁻²⁹.
///
/// Returns the number of blocks done: stops at one that holds NaN or whose score isn't exact.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
pub(crate) fn scores(m: f32, x: &[[f32; BLOCK]], f: &[[f64; BLOCK]], out: &mut [f64]) -> usize {
    const EXACT: f64 = (1u64 << 53) as f64;
    for (done, ((x, f), out)) in x.iter().zip(f).zip(out.iter_mut()).enumerate() {
        let (z, numbers) = rescaled(x, m);
        let (_, _, _, score) = analyse(&z, f);
        if !numbers || score >= EXACT {
            return done;
        }
        *out = score;
    }
    x.len().min(f.len()).min(out.len())
}
