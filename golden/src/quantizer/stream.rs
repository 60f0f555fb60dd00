//! Activations by the row: the same bits as [`rescale`](super::rescale) and [`decide`](super::decide), fast.

use half::bf16;
use serde::{Deserialize, Serialize};

use super::{Decision, InputScale, SCORE_UNIT_EXPONENT, decide, rescale};
use crate::block::Block;
use crate::format::{BLOCK, E4M3, Ue4m3, exp2};
use crate::packed::{PackedError, PackedTensor, StreamBuilder, TensorScale};
use crate::simd::activations::{self as kernels, Decider};

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
        let out = values.as_chunks_mut().0;
        self.for_each_part(row, |first, x| {
            let decider = self.decider();
            let f = self.sensitivity_units.get(first..).unwrap_or_default();
            let Some(out) = out.get_mut(first..) else {
                return x.len();
            };
            let done = kernels::values(decider, x, f, out, &mut fp8_blocks);
            if let (Some(x), Some(out)) = (x.get(done), out.get_mut(done)) {
                let block = self.block(first + done, &x.map(bf16::from_f32));
                *out = block.values().map(f64::from);
                fp8_blocks += usize::from(block.is_fp8());
            }
            done + 1
        });
        fp8_blocks
    }

    /// Rounds rows to BF16 and quantizes them into the streams that hardware gets: [rows, [`channels`](Self::channels)].
    ///
    /// # Errors
    /// `rows` is empty, or not made of whole rows.
    pub fn pack(&self, rows: &[f32]) -> Result<PackedTensor, PackedError> {
        let channels = self.channels().max(1);
        let shape = [rows.len() / channels, channels];
        if !rows.len().is_multiple_of(channels) {
            return Err(PackedError::Shape(vec![rows.len()]));
        }
        let mut streams = StreamBuilder::with_capacity(shape[0] * self.sensitivity_units.len());
        for row in rows.chunks(channels) {
            self.for_each_part(row, |first, x| {
                let f = self.sensitivity_units.get(first..).unwrap_or_default();
                let done = kernels::pack(self.decider(), x, f, &mut streams);
                if let Some(x) = x.get(done) {
                    streams.push(&self.block(first + done, &x.map(bf16::from_f32)));
                }
                done + 1
            });
        }
        PackedTensor::from_builder(&shape, self.scale, streams)
    }

    /// Calls `f` with the first block's index and with blocks until it has done all; `f` says how many it did. The last one is zero-padded.
    fn for_each_part(&self, row: &[f32], mut f: impl FnMut(usize, &[[f32; BLOCK]]) -> usize) {
        let (whole, rest) = row.as_chunks::<BLOCK>();
        let mut first = 0;
        while let Some(blocks) = whole.get(first..).filter(|blocks| !blocks.is_empty()) {
            first += f(first, blocks);
        }
        if !rest.is_empty() {
            f(whole.len(), &[padded_block(rest)]);
        }
    }

    /// The policy as the kernels take it.
    fn decider(&self) -> Decider {
        /// Integers below it are exact in FP64.
        const EXACT: f64 = exp2(53);
        let (threshold, undecided) = match self.policy {
            Policy::Fp8 => (-1.0, f64::INFINITY),
            Policy::Fp4 => (f64::INFINITY, f64::INFINITY),
            // A score that isn't exact is above such a threshold.
            Policy::Threshold(threshold) if (threshold as f64) < EXACT => {
                (threshold as f64, f64::INFINITY)
            }
            // No exact score is above such a threshold.
            Policy::Threshold(_) => (f64::INFINITY, EXACT),
        };
        Decider {
            m: self.m.get(),
            threshold,
            undecided,
        }
    }

    /// Impact scores of a row's blocks in original units: × S_a²·factor.
    pub fn scores<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
        let scale = f64::from(self.scale.get());
        let unit = exp2(SCORE_UNIT_EXPONENT) * self.sensitivity.factor * (scale * scale);
        let mut scores = vec![0.0; row.len().div_ceil(BLOCK)];
        self.for_each_part(row, |first, x| {
            let f = self.sensitivity_units.get(first..).unwrap_or_default();
            let Some(out) = scores.get_mut(first..) else {
                return x.len();
            };
            let done = kernels::scores(self.m.get(), x, f, out);
            if let (Some(x), Some(out)) = (x.get(done), out.get_mut(done)) {
                *out = self.decide(first + done, &x.map(bf16::from_f32)).score as f64;
            }
            done + 1
        });
        scores.into_iter().map(move |score| score * unit)
    }
}

fn padded_block(x: &[f32]) -> [f32; BLOCK] {
    let mut block = [0.0; BLOCK];
    for (padded, x) in block.iter_mut().zip(x) {
        *padded = *x;
    }
    block
}
