//! Activations by the row: the same bits as [`rescale`](super::rescale) and [`decide`](super::decide), fast.

use std::sync::LazyLock;

use half::bf16;
use serde::{Deserialize, Serialize};

use super::{Decision, InputScale, SCORE_UNIT_EXPONENT, decide, rescale};
use crate::block::Block;
use crate::format::{BLOCK, E4M3, Ue4m3, exp2};
use crate::packed::TensorScale;

/// What decides an activation block's format, if it holds no NaN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Always FP8. (Hardware gets T = 0: a block whose score is 0 has the same values in both formats.)
    Fp8,
    /// Always FP4.
    Fp4,
    /// FP8 iff the impact score is above T, in units of 2⁻²⁹.
    Threshold(u64),
}

impl Policy {
    /// T as hardware's register holds it.
    pub const fn threshold(self) -> u64 {
        match self {
            Self::Fp8 => 0,
            Self::Fp4 => u64::MAX,
            Self::Threshold(threshold) => threshold,
        }
    }

    /// The policy for a threshold in original units, for a tensor scale and a factor of its sensitivities.
    ///
    /// ⌊T / (S²·factor) / 2⁻²⁹⌋ in FP64, clamped to 64 bits.
    pub fn of_original_units(threshold: f64, scale: TensorScale, factor: f64) -> Self {
        let scale = f64::from(scale.get());
        // The cast floors, and clamps to the range.
        Self::Threshold((threshold / (scale * scale * factor) * exp2(-SCORE_UNIT_EXPONENT)) as u64)
    }
}

/// Channel sensitivities as hardware holds them: F = factor · code's value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChannelSensitivity {
    /// One code a channel, without padding.
    pub codes: Vec<Ue4m3>,
    /// What the codes were divided by; folded into the threshold.
    pub factor: f64,
}

impl ChannelSensitivity {
    /// F = 1 for every channel.
    pub fn uniform(channels: usize) -> Self {
        Self {
            codes: vec![Ue4m3::ONE; channels],
            factor: 1.0,
        }
    }

    /// Codes for these sensitivities, the largest at 448. NaN and negative ones count as 0; all 0 is uniform.
    pub fn of(sensitivity: &[f32]) -> Self {
        let largest = sensitivity.iter().fold(0f32, |largest, &f| largest.max(f));
        let factor = f64::from(largest) / E4M3.max;
        if factor == 0.0 || !factor.is_finite() {
            return Self::uniform(sensitivity.len());
        }
        let codes = sensitivity
            .iter()
            .map(|&f| Ue4m3::quantize((f64::from(f.max(0.0)) / factor) as f32))
            .collect();
        Self { codes, factor }
    }
}

/// The online quantizer of one linear layer's input, set up.
#[derive(Clone, PartialEq, Debug)]
pub struct ActivationQuantizer {
    scale: TensorScale,
    m: InputScale,
    policy: Policy,
    sensitivity: ChannelSensitivity,
    /// F in units of 2⁻⁹, padded with zeros to whole blocks; FP64 holds all that follows exactly.
    sensitivity_units: Vec<[f64; BLOCK]>,
}

impl ActivationQuantizer {
    /// Quantizer of rows of as many elements as `sensitivity` has codes, with tensor scale S_a = `scale` and M = RNE_FP32(1 / S_a).
    ///
    /// # Errors
    /// M is outside the range of multipliers.
    pub fn new(
        scale: TensorScale,
        sensitivity: ChannelSensitivity,
        policy: Policy,
    ) -> Result<Self, crate::requantize::ScaleError> {
        let m = InputScale::new(1.0 / scale.get())?;
        let sensitivity_units = sensitivity
            .codes
            .chunks(BLOCK)
            .map(|codes| {
                let mut units = [0.0; BLOCK];
                for (unit, code) in units.iter_mut().zip(codes) {
                    *unit = code.units().into();
                }
                units
            })
            .collect();
        Ok(Self {
            scale,
            m,
            policy,
            sensitivity,
            sensitivity_units,
        })
    }

    /// Elements of a row, without padding.
    pub fn channels(&self) -> usize {
        self.sensitivity.codes.len()
    }

    /// Elements of a row, padded to whole blocks.
    pub fn padded(&self) -> usize {
        self.sensitivity_units.len() * BLOCK
    }

    /// S_a.
    pub fn scale(&self) -> TensorScale {
        self.scale
    }

    /// M.
    pub fn input_scale(&self) -> InputScale {
        self.m
    }

    /// The policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The channel sensitivities.
    pub fn sensitivity(&self) -> &ChannelSensitivity {
        &self.sensitivity
    }

    /// The blocks of a row, by the definition. Elements beyond the row's end count as 0.
    pub fn blocks<'a>(&'a self, row: &'a [bf16]) -> impl Iterator<Item = Block> + 'a {
        (0..self.sensitivity_units.len()).map(|index| {
            let mut x = [bf16::ZERO; BLOCK];
            for (x, given) in x
                .iter_mut()
                .zip(row.iter().take(self.channels()).skip(index * BLOCK))
            {
                *x = *given;
            }
            self.block(index, &x)
        })
    }

    fn block(&self, index: usize, x: &[bf16; BLOCK]) -> Block {
        let Decision { block, fp8, .. } = self.decide(index, x);
        if self.policy == Policy::Fp8 {
            Block::Fp8 { elements: fp8 }
        } else {
            block
        }
    }

    fn decide(&self, index: usize, x: &[bf16; BLOCK]) -> Decision {
        let mut sensitivity = [Ue4m3::ZERO; BLOCK];
        for (code, given) in sensitivity
            .iter_mut()
            .zip(self.sensitivity.codes.iter().skip(index * BLOCK))
        {
            *code = *given;
        }
        decide(
            &x.map(|x| rescale(x, self.m)),
            &sensitivity,
            self.policy.threshold(),
        )
    }

    /// Rounds a row to BF16, quantizes it, and writes the decoded values without S_a. Returns the number of FP8 blocks.
    ///
    /// `row` has [`channels`](Self::channels), `values` [`padded`](Self::padded) elements; what is missing is not touched.
    pub fn quantize_row(&self, row: &[f32], values: &mut [f64]) -> usize {
        let mut fp8_blocks = 0;
        let blocks = values
            .as_chunks_mut::<BLOCK>()
            .0
            .iter_mut()
            .zip(&self.sensitivity_units);
        for (index, ((out, f), x)) in blocks.zip(row.chunks(BLOCK)).enumerate() {
            let x = padded_block(x);
            let analysis = analyse(&x, self.m.get(), f)
                .filter(|a| a.score_is_exact() || self.policy == Policy::Fp8);
            let Some(analysis) = analysis else {
                let block = self.block(index, &x.map(bf16::from_f32));
                *out = block.values().map(f64::from);
                fp8_blocks += usize::from(block.is_fp8());
                continue;
            };
            let fp8 = match self.policy {
                Policy::Fp8 => true,
                Policy::Fp4 => false,
                Policy::Threshold(threshold) => analysis.score as u64 > threshold,
            };
            fp8_blocks += usize::from(fp8);
            *out = if fp8 { analysis.fp8 } else { analysis.fp4 }.map(f64::from);
        }
        fp8_blocks
    }

    /// Impact scores of a row's blocks in original units: × S_a²·factor.
    pub fn scores<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
        let scale = f64::from(self.scale.get());
        let unit = exp2(SCORE_UNIT_EXPONENT) * self.sensitivity.factor * (scale * scale);
        row.chunks(BLOCK)
            .zip(&self.sensitivity_units)
            .enumerate()
            .map(move |(index, (x, f))| {
                let x = padded_block(x);
                let score = match analyse(&x, self.m.get(), f).filter(Analysis::score_is_exact) {
                    Some(analysis) => analysis.score,
                    None => self.decide(index, &x.map(bf16::from_f32)).score as f64,
                };
                score * unit
            })
    }
}

fn padded_block(x: &[f32]) -> [f32; BLOCK] {
    let mut block = [0.0; BLOCK];
    for (padded, x) in block.iter_mut().zip(x) {
        *padded = *x;
    }
    block
}

/// Both forms of a block without NaN, decoded, and its score in units of 2⁻²⁹.
struct Analysis {
    fp4: [f32; BLOCK],
    fp8: [f32; BLOCK],
    score: f64,
}

impl Analysis {
    /// Terms and partial sums are integers, so that FP64 is exact as long as the sum is below 2⁵³.
    fn score_is_exact(&self) -> bool {
        self.score < exp2(53)
    }
}

/// The block scale for each BF16 amax up to 448.
static SCALES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let largest = bf16::from_f32(E4M3.max as f32).to_bits();
    (0..=largest)
        .map(|bits| Ue4m3::of_amax(bf16::from_bits(bits).to_f32()).to_bits())
        .collect()
});

/// RNE to BF16 on the bits of a number that is not NaN.
fn round_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

/// The loops are straight-line code over arrays of 16, so that the compiler vectorises them. `None` if there is a NaN.
///
/// Subnormals need no flush here: no code sees them (numerics §3).
fn analyse(x: &[f32; BLOCK], m: f32, f: &[f64; BLOCK]) -> Option<Analysis> {
    let max = E4M3.max as f32;
    let mut z = [0f32; BLOCK];
    let mut nan = 0u32;
    for (z, &x) in z.iter_mut().zip(x) {
        let product = round_to_bf16(x) * m;
        nan |= u32::from(x.is_nan()) | u32::from(product.is_nan());
        let rounded = round_to_bf16(product);
        let above = if rounded > max { max } else { rounded };
        *z = if above < -max { -max } else { above };
    }
    if nan != 0 {
        return None;
    }
    let magnitude = z.map(f32::abs);
    // Bits of non-negative numbers are ordered as the numbers.
    let amax = magnitude.iter().fold(0, |amax, z| z.to_bits().max(amax));
    let scale = Ue4m3::from_bits(*SCALES.get((amax >> 16) as usize)?)?.to_f32();

    let mut fp8 = [0f32; BLOCK];
    for (fp8, &a) in fp8.iter_mut().zip(&magnitude) {
        let bits = a.to_bits();
        // Four significant bits; 20 of FP32's 23 mantissa bits go.
        let normal = f32::from_bits((bits + 0x7_FFFF + (bits >> 20 & 1)) & 0xFFF0_0000);
        // FP32's unit at 2¹⁴ is the subnormal step 2⁻⁹.
        let subnormal = (a + 16384.0) - 16384.0;
        *fp8 = if a < 1.0 / 64.0 { subnormal } else { normal };
    }
    let mut fp4 = [0f32; BLOCK];
    for (fp4, &a) in fp4.iter_mut().zip(&magnitude) {
        // Decision points times scale are exact: 3 × 4 significant bits. Ties go to the even code.
        let step = |up: bool, height: f32| if up { height } else { 0.0 };
        let q = step(a > 0.25 * scale, 0.5)
            + step(a >= 0.75 * scale, 0.5)
            + step(a > 1.25 * scale, 0.5)
            + step(a >= 1.75 * scale, 0.5)
            + step(a > 2.5 * scale, 1.0)
            + step(a >= 3.5 * scale, 1.0)
            + step(a > 5.0 * scale, 2.0);
        *fp4 = q * scale;
    }
    let mut terms = [0f64; BLOCK];
    for (((term, fp4), fp8), f) in terms.iter_mut().zip(&fp4).zip(&fp8).zip(f) {
        // In units of 2⁻¹⁰; the sign cancels.
        let excess = f64::from((fp4 - fp8) * 1024.0);
        *term = excess * excess * f;
    }
    for ((fp4, fp8), z) in fp4.iter_mut().zip(&mut fp8).zip(&z) {
        *fp4 = fp4.copysign(*z);
        *fp8 = fp8.copysign(*z);
    }
    Some(Analysis {
        fp4,
        fp8,
        score: terms.iter().sum(),
    })
}
