//! NVFP4 as libraries make it, bit for bit (numerics §6).
//!
//! "NVFP4" means FP4 blocks with E4M3 scales and one FP32 scale a tensor everywhere, but libraries choose the bits differently: the order of their
//! FP32 operations, what they do with small scales, with blocks of zeros and with −0. Decoding is the same for all (numerics §2).

use half::bf16;
use serde::{Deserialize, Serialize};

use crate::format::{BLOCK, E2M1, E2m1, E4M3, UE4M3, Ue4m3, exp2};
use crate::packed::{PackedTensor, StreamBuilder, TensorScale, TensorScaleError};
use crate::quantizer::QuantizeError;
use crate::simd::{block, weights as kernels};

/// How tensors are scaled, and how FP4 blocks are made of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// S = max|x| / 448, for both kinds of block; each quotient exact and rounded once.
    #[default]
    Fgmp,
    /// S = max|x| / 2688, for FP4 blocks only; each quotient exact and rounded once.
    Nvfp4,
    /// NVIDIA's modelopt, `NVFP4QTensor`.
    Modelopt,
    /// TransformerEngine's reference, which its CUDA kernels follow.
    TransformerEngine,
    /// An earlier form of TransformerEngine's reference, which divides a block's maximum by 6.
    TransformerEngineDivided,
    /// PyTorch's torchao, `nvfp4_quantize` with a tensor scale.
    Torchao,
    /// compressed-tensors, maxima observed in FP32.
    CompressedTensors,
    /// compressed-tensors on BF16 tensors: maxima observed, and divided, in BF16.
    CompressedTensorsBf16,
    /// vLLM's reference in PyTorch.
    Vllm,
    /// vLLM's kernel in Triton.
    VllmTriton,
    /// ggml's `quantize_row_nvfp4_ref`: no tensor scale.
    Ggml,
}

/// 448 · 6.
const FULL_RANGE: f32 = (E4M3.max * E2M1.max) as f32;
const E2M1_MAX: f32 = E2M1.max as f32;
const E4M3_MAX: f32 = E4M3.max as f32;
/// FP32's nearest to 1/6.
const SIXTH: f32 = 1.0 / 6.0;

impl Profile {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::Fgmp,
        Self::Nvfp4,
        Self::Modelopt,
        Self::TransformerEngine,
        Self::TransformerEngineDivided,
        Self::Torchao,
        Self::CompressedTensors,
        Self::CompressedTensorsBf16,
        Self::Vllm,
        Self::VllmTriton,
        Self::Ggml,
    ];

    /// Name as the command line and files write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fgmp => "fgmp",
            Self::Nvfp4 => "nvfp4",
            Self::Modelopt => "modelopt",
            Self::TransformerEngine => "transformer-engine",
            Self::TransformerEngineDivided => "transformer-engine-divided",
            Self::Torchao => "torchao",
            Self::CompressedTensors => "compressed-tensors",
            Self::CompressedTensorsBf16 => "compressed-tensors-bf16",
            Self::Vllm => "vllm",
            Self::VllmTriton => "vllm-triton",
            Self::Ggml => "ggml",
        }
    }

    /// Whether it reproduces a library, which chooses the scales of blocks by itself.
    pub const fn is_recipe(self) -> bool {
        !matches!(self, Self::Fgmp | Self::Nvfp4)
    }

    /// The number that the library stores beside the blocks of a tensor whose largest magnitude is `amax`.
    ///
    /// max|x| / 2688 or max|x| / 448 (to multiply with), 2688 / max|x| (to divide by: compressed-tensors, vLLM), max|x| itself (TransformerEngine),
    /// or 1 (ggml stores none). Where an all-zero tensor leaves the library nothing but 0 / 0 it is 1.
    pub fn stored_scale(self, amax: f32) -> f32 {
        if amax == 0.0 {
            return match self {
                Self::TransformerEngine | Self::TransformerEngineDivided => 0.0,
                _ => 1.0,
            };
        }
        match self {
            Self::Fgmp => amax / E4M3_MAX,
            Self::Nvfp4 | Self::Modelopt | Self::Torchao => amax / FULL_RANGE,
            Self::TransformerEngine | Self::TransformerEngineDivided => amax,
            Self::CompressedTensors => {
                finite_or_one(1.0 / amax.max(f32::MIN_POSITIVE) * FULL_RANGE)
            }
            Self::CompressedTensorsBf16 => {
                let amax = to_bf16(amax).max(f32::MIN_POSITIVE);
                finite_or_one(to_bf16(to_bf16(1.0 / amax) * FULL_RANGE))
            }
            Self::Vllm | Self::VllmTriton => FULL_RANGE / amax,
            Self::Ggml => 1.0,
        }
    }

    /// S: what multiplies the blocks' values. 1 for an all-zero tensor.
    ///
    /// # Errors
    /// S is not positive and finite, or so close to it that the library's own numbers aren't: `amax` is NaN, negative or infinite, or so small
    /// that dividing it, or by it, leaves FP32's range. For `fgmp` and `nvfp4` an `amax` whose quotient rounds to 0 gives 1 instead.
    pub fn tensor_scale(self, amax: f32) -> Result<TensorScale, TensorScaleError> {
        if !(amax >= 0.0 && amax.is_finite()) {
            return Err(TensorScaleError(amax));
        }
        if amax == 0.0 {
            return Ok(TensorScale::ONE);
        }
        let stored = self.stored_scale(amax);
        let checked = |limit: f32| {
            if limit > 0.0 && limit.is_finite() {
                Ok(())
            } else {
                Err(TensorScaleError(limit))
            }
        };
        match self {
            Self::Fgmp | Self::Nvfp4 if stored == 0.0 => Ok(TensorScale::ONE),
            Self::Fgmp | Self::Nvfp4 | Self::Ggml => TensorScale::new(stored),
            Self::Modelopt => {
                // The smallest divisor of an element.
                checked(stored * Ue4m3::all().nth(1).map_or(0.0, Ue4m3::to_f32))?;
                TensorScale::new(stored)
            }
            Self::Torchao => {
                checked(1.0 / stored)?;
                TensorScale::new(stored)
            }
            Self::TransformerEngine | Self::TransformerEngineDivided => {
                TensorScale::new(amax / FULL_RANGE)
            }
            Self::CompressedTensors
            | Self::CompressedTensorsBf16
            | Self::Vllm
            | Self::VllmTriton => {
                checked(stored)?;
                TensorScale::new(1.0 / stored)
            }
        }
    }
}

fn to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

fn finite_or_one(x: f32) -> f32 {
    if x.is_finite() { x } else { 1.0 }
}

/// A tensor as a library holds it.
#[derive(Clone, PartialEq, Debug)]
pub struct ProfiledTensor {
    /// The blocks, and S.
    pub tensor: PackedTensor,
    /// What the library stores beside them: [`Profile::stored_scale`].
    pub stored_scale: f32,
}

/// Quantizes a tensor to FP4 blocks by a profile; rows are zero-padded to whole blocks. `name` is for messages.
///
/// # Errors
/// Shape and data don't match, an element is not finite, or [`Profile::tensor_scale`] refuses the largest magnitude.
pub fn quantize(
    name: &str,
    shape: &[usize],
    data: &[f32],
    profile: Profile,
) -> Result<ProfiledTensor, QuantizeError> {
    let amax = f32::from_bits(kernels::largest_bits(data));
    if !amax.is_finite() {
        return Err(not_finite(name, data));
    }
    quantize_with_amax(name, shape, data, profile, amax)
}

/// Names the first element that is not finite.
pub(crate) fn not_finite(name: &str, data: &[f32]) -> QuantizeError {
    let mut elements = data.iter().enumerate();
    let (index, &value) = elements
        .find(|(_, x)| !x.is_finite())
        .unwrap_or((0, &f32::NAN));
    QuantizeError::NonFinite {
        tensor: name.into(),
        index,
        value,
    }
}

/// As [`quantize`], for a tensor that is a part of one whose largest magnitude is `amax`.
///
/// # Errors
/// As [`quantize`].
pub fn quantize_with_amax(
    name: &str,
    shape: &[usize],
    data: &[f32],
    profile: Profile,
    amax: f32,
) -> Result<ProfiledTensor, QuantizeError> {
    let elements = shape
        .iter()
        .try_fold(1usize, |product, &extent| product.checked_mul(extent));
    let k = match shape.last() {
        Some(&k) if elements == Some(data.len()) => k,
        _ => {
            return Err(QuantizeError::Length {
                tensor: name.into(),
                shape: shape.into(),
                what: "elements",
                found: data.len(),
            });
        }
    };
    let scale = profile
        .tensor_scale(amax)
        .map_err(|source| QuantizeError::Scale {
            tensor: name.into(),
            source,
        })?;
    let streams = blocks(data, k, profile, amax, scale).ok_or_else(|| not_finite(name, data))?;
    let tensor = PackedTensor::from_builder(shape, scale, streams).map_err(|source| {
        QuantizeError::Packed {
            tensor: name.into(),
            source,
        }
    })?;
    Ok(ProfiledTensor {
        tensor,
        stored_scale: profile.stored_scale(amax),
    })
}

/// The blocks of rows of `k` elements, if all are finite; `scale` is what the profile makes of `amax`.
pub(crate) fn blocks(
    data: &[f32],
    k: usize,
    profile: Profile,
    amax: f32,
    scale: TensorScale,
) -> Option<StreamBuilder> {
    let stored = profile.stored_scale(amax);
    let nearest = |scale: f32| Ue4m3::quantize(scale).to_bits();
    let saturated = |scale: f32| if scale > E4M3_MAX { E4M3_MAX } else { scale };
    let streams = match profile {
        Profile::Fgmp | Profile::Nvfp4 => return kernels::pack_fp4(data, k, scale),
        _ if !all_finite(data) => return None,
        _ if amax == 0.0 => {
            let zero_block = profile.zero_block();
            by_block(data, k, |_| (zero_block, 0))
        }
        Profile::Modelopt => by_block(data, k, |x| {
            let quotient = block_amax(x) / (E2M1_MAX * stored);
            let nonzero = if quotient == 0.0 { 1.0 } else { quotient };
            let code = nearest(nonzero.clamp(SMALLEST_SUBNORMAL, E4M3_MAX));
            let divisor = block::scale_value(code) * stored;
            (code, word(x, |x| x / divisor, ZeroSign::Dropped))
        }),
        Profile::TransformerEngine | Profile::TransformerEngineDivided => {
            let encode = (FULL_RANGE / amax).min(f32::MAX);
            let decode = 1.0 / encode;
            let by_sixth = encode * SIXTH;
            by_block(data, k, |x| {
                let b = block_amax(x);
                let scale = if profile == Profile::TransformerEngine {
                    b * by_sixth
                } else {
                    b / E2M1_MAX * encode
                };
                let code = nearest(saturated(scale));
                // Infinite for scale 0, hence the limit.
                let factor = (1.0 / (block::scale_value(code) * decode)).min(f32::MAX);
                (code, word(x, |x| x * factor, ZeroSign::Dropped))
            })
        }
        Profile::Torchao => {
            let reciprocal = 1.0 / stored;
            by_block(data, k, |x| {
                let quotient = block_amax(x) / E2M1_MAX / stored;
                let code = nearest(quotient.clamp(SMALLEST_NORMAL, E4M3_MAX));
                let factor = reciprocal / block::scale_value(code);
                (code, word(x, |x| x * factor, ZeroSign::Kept))
            })
        }
        Profile::CompressedTensors | Profile::CompressedTensorsBf16 => by_block(data, k, |x| {
            let sixth = block_amax(x) / E2M1_MAX;
            let observed = if profile == Profile::CompressedTensorsBf16 {
                to_bf16(sixth)
            } else {
                sixth
            };
            let code = match nearest(saturated(stored * observed)) {
                0 => INSTEAD_OF_ZERO,
                code => code,
            };
            let divisor = block::scale_value(code) / stored;
            (code, word(x, |x| x / divisor, ZeroSign::Dropped))
        }),
        Profile::Vllm => {
            let decode = 1.0 / stored;
            by_block(data, k, |x| {
                let code = nearest(saturated(stored * (block_amax(x) * SIXTH)));
                let scale = block::scale_value(code) * decode;
                let factor = 1.0 / (scale + if scale == 0.0 { 1e8 } else { 0.0 });
                (code, word(x, |x| x * factor, ZeroSign::Dropped))
            })
        }
        Profile::VllmTriton => by_block(data, k, |x| {
            let code = nearest(saturated(stored * (block_amax(x) * SIXTH)));
            let factor = match code {
                0 => 0.0,
                code => stored / block::scale_value(code),
            };
            (code, word(x, |x| x * factor, ZeroSign::Dropped))
        }),
        Profile::Ggml => by_block(data, k, ggml_block),
    };
    Some(streams)
}

fn all_finite(data: &[f32]) -> bool {
    f32::from_bits(kernels::largest_bits(data)).is_finite()
}

/// 2⁻⁹, E4M3's smallest.
const SMALLEST_SUBNORMAL: f32 = exp2(UE4M3.unit_exponent()) as f32;
/// 2⁻⁶, E4M3's smallest with an exponent.
const SMALLEST_NORMAL: f32 = exp2(1 - UE4M3.bias) as f32;
/// 0.125, which compressed-tensors takes for E4M3's precision.
const INSTEAD_OF_ZERO: u8 = 0x20;

impl Profile {
    /// The scale's code of a block of zeros.
    pub const fn zero_block(self) -> u8 {
        match self {
            Self::Modelopt => Ue4m3::ONE.to_bits(),
            Self::Torchao => 1 << UE4M3.mantissa_bits,
            Self::CompressedTensors | Self::CompressedTensorsBf16 => INSTEAD_OF_ZERO,
            Self::Fgmp
            | Self::Nvfp4
            | Self::TransformerEngine
            | Self::TransformerEngineDivided
            | Self::Vllm
            | Self::VllmTriton
            | Self::Ggml => 0,
        }
    }
}

fn by_block(
    data: &[f32],
    k: usize,
    block: impl Fn(&[f32; BLOCK]) -> (u8, u64) + Sync,
) -> StreamBuilder {
    kernels::fill_fp4(data, k, |data, k, scales, payload| {
        let mut out = scales.iter_mut().zip(payload);
        block::for_each_block(data, k, |x| {
            if let Some((scale, word)) = out.next() {
                (*scale, *word) = block(x);
            }
        });
    })
}

fn block_amax(x: &[f32; BLOCK]) -> f32 {
    f32::from_bits(block::amax_bits(x))
}

/// What an element that is −0 after scaling becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ZeroSign {
    /// Code 0: the sign is that of a comparison with 0.
    Dropped,
    /// Code 8: the sign is the number's bit.
    Kept,
}

/// The codes of scaled elements, rounded to nearest, ties to the even code, saturating.
fn word(x: &[f32; BLOCK], scaled: impl Fn(f32) -> f32, zero_sign: ZeroSign) -> u64 {
    let mut y = [0f32; BLOCK];
    for (y, &x) in y.iter_mut().zip(x) {
        let scaled = scaled(x);
        // −0 + 0 is +0, and nothing else changes.
        *y = match zero_sign {
            ZeroSign::Dropped => scaled + 0.0,
            ZeroSign::Kept => scaled,
        };
    }
    block::fp4_word(&y, 1.0)
}

/// ggml's rounding to UE4M3: halves go up, 0x7E from 240 on, and what rounds up to 2⁻⁶ from below stays below.
fn ggml_scale(x: f32) -> u8 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127 + UE4M3.bias;
    if x <= 0.0 {
        0
    } else if exponent <= 0 {
        ((x * 512.0 + 0.5) as u8).min(7)
    } else {
        // The 4 bits behind the exponent, of which the last one rounds; a carry moves on into the exponent.
        let rounded = (((exponent as u32) << 4 | bits >> 19 & 0xF) + 1) >> 1;
        if exponent >= 15 || rounded >= 15 << 3 {
            Ue4m3::MAX.to_bits()
        } else {
            rounded as u8
        }
    }
}

/// ggml takes the first of the 16 codes whose distance, rounded to FP32, is smallest: the lower magnitude at a tie, and +0 of the zeros.
fn ggml_block(x: &[f32; BLOCK]) -> (u8, u64) {
    let amax = block_amax(x);
    let code = ggml_scale(amax / E2M1_MAX);
    let scale = block::scale_value(code);
    // Between two neighbours e and e' the distances are exact (e' ≤ 2e, or e = 0 and rounding keeps the order), and to others they differ by
    // half the scale at least, which rounding can't undo while an element is below 2²⁰ scales: the comparison is that of exact numbers.
    let word = if amax < 1024.0 * scale {
        block::fp4_word_ties_down(x, scale)
    } else {
        ggml_search(x, scale)
    };
    (code, word)
}

fn ggml_search(x: &[f32; BLOCK], scale: f32) -> u64 {
    let mut word = 0;
    for (i, &x) in x.iter().enumerate() {
        let mut best = (f32::INFINITY, E2m1::ZERO);
        for element in E2m1::all() {
            let distance = (element.to_f32() * scale - x).abs();
            if distance < best.0 {
                best = (distance, element);
            }
        }
        word |= u64::from(best.1.to_bits()) << (4 * i);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::E2M1_DECISION_QUARTERS;

    #[test]
    fn ggmls_search_is_a_comparison_with_decision_points() {
        for code in 1..=Ue4m3::MAX.to_bits() {
            let scale = block::scale_value(code);
            let points = E2M1_DECISION_QUARTERS.map(|quarters| scale * quarters as f32 * 0.25);
            let numbers = points
                .into_iter()
                .chain([0.0, 1e-30, 6.0 * scale, 1000.0 * scale]);
            let numbers: Vec<f32> = numbers
                .flat_map(|x| [x.to_bits().saturating_sub(1), x.to_bits(), x.to_bits() + 1])
                .flat_map(|bits| [f32::from_bits(bits), -f32::from_bits(bits)])
                .filter(|x| !x.is_nan())
                .collect();
            for x in numbers.chunks(BLOCK) {
                let x = std::array::from_fn(|i| x.get(i).copied().unwrap_or(0.0));
                let fast = block::fp4_word_ties_down(&x, scale);
                assert_eq!(fast, ggml_search(&x, scale), "{x:?} with scale {scale}");
            }
        }
    }
}
