//! Weights: quantized once, with FP64 scores and one threshold for a whole model (numerics §3).

use crate::block::Block;
use crate::format::{BLOCK, E2M1_DECISION_QUARTERS, E2m1, E4m3, Ue4m3};
use crate::packed::{PackedError, PackedTensor, Profile, TensorScale, TensorScaleError};
use crate::profiles;
use crate::scheme::{Scheme, Selection, Share};
use crate::simd::{clip, weights as kernels};

/// Element sensitivities where none are known.
pub const UNIFORM: [f64; BLOCK] = [1.0; BLOCK];

/// A weight tensor to quantize.
#[derive(Clone, Copy, Debug)]
pub struct WeightTensor<'a> {
    /// Name, for messages.
    pub name: &'a str,
    /// Shape; the last dimension is the reduction dimension.
    pub shape: &'a [usize],
    /// Elements in row-major order.
    pub data: &'a [f32],
    /// Sensitivity of each element, 1 if absent.
    pub sensitivity: Option<&'a [f32]>,
}

/// How to quantize weights.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct WeightOptions {
    /// Which blocks become FP8. [`Scheme::Bf16`] is refused.
    pub scheme: Scheme,
    /// Whether the scale of a block is searched for the smallest weighted error, instead of taken from its amax.
    pub clip: bool,
    /// The tensor scale's rule.
    pub profile: Profile,
    /// How [`Scheme::Fgmp`] chooses its FP8 blocks.
    pub selection: Selection,
}

impl WeightOptions {
    /// This scheme with profile `fgmp` and without clipping.
    pub const fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            clip: false,
            profile: Profile::Fgmp,
            selection: Selection::Global,
        }
    }
}

impl WeightOptions {
    /// Checks that the options go together.
    ///
    /// # Errors
    /// The profile can't express the scheme, or chooses the scales that are to be searched.
    pub const fn check(&self) -> Result<(), QuantizeError> {
        let unsupported = match (self.scheme, self.profile) {
            (Scheme::Bf16, _) => true,
            (Scheme::Fp8 | Scheme::Fgmp { .. }, profile) => !matches!(profile, Profile::Fgmp),
            (Scheme::Nvfp4, _) => false,
        };
        if unsupported {
            return Err(QuantizeError::Scheme {
                profile: self.profile,
                scheme: self.scheme,
            });
        }
        if self.clip && self.profile.is_recipe() {
            return Err(QuantizeError::Clip {
                profile: self.profile,
            });
        }
        Ok(())
    }
}

/// Why weights can't be quantized.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum QuantizeError {
    /// A NaN or an infinity.
    #[error("tensor {tensor}: element {index} is {value}; weights must be finite")]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// Its position in row-major order.
        index: usize,
        /// The element.
        value: f32,
    },
    /// Data or sensitivities that don't fill the shape.
    #[error("tensor {tensor}: shape {shape:?} and {found} {what} don't match")]
    Length {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Elements or sensitivities.
        what: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A sensitivity that is negative, NaN or infinite.
    #[error("tensor {tensor}: sensitivity {value} of element {index} is negative or not finite")]
    Sensitivity {
        /// The tensor.
        tensor: String,
        /// Its position in row-major order.
        index: usize,
        /// The sensitivity.
        value: f32,
    },
    /// A scheme that the profile can't express.
    #[error("profile {} can't hold scheme {}", profile.name(), scheme.name())]
    Scheme {
        /// The profile.
        profile: Profile,
        /// The scheme.
        scheme: Scheme,
    },
    /// A scale to be searched under a profile that says what it is.
    #[error("profile {} chooses the scales of blocks itself; they can't be searched", profile.name())]
    Clip {
        /// The profile.
        profile: Profile,
    },
    /// A tensor that can't be scaled.
    #[error("tensor {tensor}: {source}")]
    Scale {
        /// The tensor.
        tensor: String,
        /// Why.
        source: TensorScaleError,
    },
    /// A tensor that can't be packed.
    #[error("tensor {tensor}: {source}")]
    Packed {
        /// The tensor.
        tensor: String,
        /// Why.
        source: PackedError,
    },
}

/// Both forms of a weight block, before the choice.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Candidates {
    /// Scale of the FP4 form.
    pub scale: Ue4m3,
    /// Impact score Σ F·(scale·q4 − q8)² in units of S², summed in FP64 in index order; NaN elements contribute nothing.
    pub score: f64,
    /// Whether an element is NaN: the block is FP8 whatever its score.
    pub nan: bool,
}

/// Scores a block of weights already divided by S; `clip` searches the scale.
pub fn candidates(z: &[f32; BLOCK], sensitivity: &[f64; BLOCK], clip: bool) -> Candidates {
    let scale = if clip {
        clipped_scale(z, sensitivity)
    } else {
        Ue4m3::of_amax(z.iter().fold(0f32, |amax, z| amax.max(z.abs())))
    };
    let score = z
        .iter()
        .zip(sensitivity)
        .filter(|(z, _)| !z.is_nan())
        .map(|(&z, f)| {
            let excess = scale.to_f64() * E2m1::quantize_scaled(z, scale).to_f64()
                - E4m3::quantize(z).to_f64();
            f * (excess * excess)
        })
        .fold(0.0, |sum, term| sum + term);
    Candidates {
        scale,
        score,
        nan: z.iter().any(|z| z.is_nan()),
    }
}

/// The block in the form chosen: FP8 iff `score > threshold` or an element is NaN.
pub fn choose(z: &[f32; BLOCK], candidates: &Candidates, threshold: f64) -> Block {
    if candidates.nan || candidates.score > threshold {
        Block::Fp8 {
            elements: z.map(E4m3::quantize),
        }
    } else {
        let scale = candidates.scale;
        Block::Fp4 {
            scale,
            elements: z.map(|z| E2m1::quantize_scaled(z, scale)),
        }
    }
}

/// The scale in 0x01 … 0x7E that minimises Σ F·(c·RNE(z/c) − z)² in FP64; the smallest wins a tie.
///
/// NaN elements contribute nothing. The same as [`clipped_scale_by_trial`], which it leaves what is infinite, negative or beyond all use to.
pub fn clipped_scale(z: &[f32; BLOCK], sensitivity: &[f64; BLOCK]) -> Ue4m3 {
    clip::clipped_scale(z, sensitivity).unwrap_or_else(|| clipped_scale_by_trial(z, sensitivity))
}

/// [`clipped_scale`] by trying all: the definition.
pub fn clipped_scale_by_trial(z: &[f32; BLOCK], sensitivity: &[f64; BLOCK]) -> Ue4m3 {
    let magnitudes = z.map(|z| if z.is_nan() { 0.0 } else { f64::from(z.abs()) });
    let mut best = (f64::INFINITY, Ue4m3::ONE);
    for scale in Ue4m3::all().skip(1) {
        // The search is symmetric in the sign, and these few FP64 operations are all exact but the
        // last three, which are those of the definition.
        let quarter = scale.to_f64() * 0.25;
        let decisions = E2M1_DECISION_QUARTERS.map(|point| quarter * f64::from(point));
        let mut error = 0.0;
        for (magnitude, f) in magnitudes.iter().zip(sensitivity) {
            let mut halves = 0.0;
            for (below, decision) in decisions.iter().enumerate() {
                let up = if below % 2 == 0 {
                    magnitude > decision
                } else {
                    magnitude >= decision
                };
                halves += if up {
                    f64::from(E2M1_STEPS[below])
                } else {
                    0.0
                };
            }
            let difference = 2.0 * quarter * halves - magnitude;
            error += f * (difference * difference);
        }
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

/// Distance from the i-th E2M1 magnitude to the next in units of 2⁻¹.
const E2M1_STEPS: [u8; 7] = {
    let mut steps = [0; 7];
    let mut code = 0;
    while code < 7 {
        steps[code] = (crate::format::E2M1.magnitude_units(code as u32 + 1)
            - crate::format::E2M1.magnitude_units(code as u32)) as u8;
        code += 1;
    }
    steps
};

/// Quantized weights.
#[derive(Clone, PartialEq, Debug)]
pub struct QuantizedWeights {
    /// In the order of the tensors given.
    pub tensors: Vec<PackedTensor>,
    /// For each tensor the threshold on scores in original units; ∓∞ where the scheme decides alone.
    pub thresholds: Vec<f64>,
}

/// Quantizes all weights of a model (or any set of tensors).
///
/// # Errors
/// A weight is not finite, a shape and its data don't match, or the profile can't express the scheme.
pub fn quantize_weights(
    tensors: &[WeightTensor<'_>],
    options: WeightOptions,
) -> Result<QuantizedWeights, QuantizeError> {
    options.check()?;
    let mut scored = tensors
        .iter()
        .map(|tensor| Scored::new(*tensor, options))
        .collect::<Result<Vec<_>, _>>()?;
    if let Selection::Random(seed) = options.selection {
        for (owner, tensor) in scored.iter_mut().enumerate() {
            for (block, candidates) in tensor.candidates.iter_mut().enumerate() {
                candidates.score = Selection::random_score(seed, owner, block);
            }
        }
    }
    let thresholds = match options.scheme {
        Scheme::Nvfp4 => vec![f64::INFINITY; scored.len()],
        Scheme::Fgmp { fp8_share } => {
            let scores: Vec<Vec<f64>> = scored.iter().map(|t| t.scores(options)).collect();
            thresholds(fp8_share, options.selection, scores, None)
        }
        Scheme::Bf16 | Scheme::Fp8 => vec![f64::NEG_INFINITY; scored.len()],
    };
    let tensors = scored
        .iter()
        .zip(&thresholds)
        .map(|(tensor, &threshold)| tensor.pack(threshold, options))
        .collect::<Result<_, _>>()?;
    Ok(QuantizedWeights {
        tensors,
        thresholds,
    })
}

/// The threshold of each group of scores: its own, or the one of all together. `uses` says how many pairs a block of each group
/// goes into, for [`Selection::Pairs`]; all alike if absent.
pub(crate) fn thresholds(
    share: Share,
    selection: Selection,
    scores: Vec<Vec<f64>>,
    uses: Option<&[u64]>,
) -> Vec<f64> {
    match (selection, uses) {
        (Selection::PerLayer, _) => scores
            .into_iter()
            .map(|mut scores| share.threshold(&mut scores))
            .collect(),
        (Selection::Pairs, Some(uses)) => {
            let groups = scores.len();
            let mut scored: Vec<(f64, u64)> = scores
                .iter()
                .zip(uses)
                .flat_map(|(scores, &uses)| scores.iter().map(move |&score| (score, uses)))
                .collect();
            vec![share.weighted_threshold(&mut scored); groups]
        }
        (Selection::Global | Selection::Pairs | Selection::Random(_), _) => {
            let groups = scores.len();
            vec![share.threshold(&mut scores.concat()); groups]
        }
    }
}

struct Scored<'a> {
    tensor: WeightTensor<'a>,
    amax: f32,
    scale: TensorScale,
    candidates: Vec<Candidates>,
}

impl<'a> Scored<'a> {
    fn new(tensor: WeightTensor<'a>, options: WeightOptions) -> Result<Self, QuantizeError> {
        let name = || tensor.name.to_owned();
        let length = |what, found| QuantizeError::Length {
            tensor: name(),
            shape: tensor.shape.into(),
            what,
            found,
        };
        let elements = tensor
            .shape
            .iter()
            .try_fold(1usize, |product, &extent| product.checked_mul(extent));
        if elements != Some(tensor.data.len()) || tensor.shape.is_empty() {
            return Err(length("elements", tensor.data.len()));
        }
        let amax = f32::from_bits(kernels::largest_bits(tensor.data));
        if !amax.is_finite() {
            return Err(profiles::not_finite(tensor.name, tensor.data));
        }
        if let Some(sensitivity) = tensor.sensitivity {
            if sensitivity.len() != tensor.data.len() {
                return Err(length("sensitivities", sensitivity.len()));
            }
            let bad = |f: &f32| !f.is_finite() || *f < 0.0;
            if !kernels::are_sensitivities(sensitivity)
                && let Some((index, &value)) = sensitivity.iter().enumerate().find(|(_, f)| bad(f))
            {
                return Err(QuantizeError::Sensitivity {
                    tensor: name(),
                    index,
                    value,
                });
            }
        }
        let scale =
            TensorScale::of_amax(amax, options.profile).map_err(|source| QuantizeError::Scale {
                tensor: name(),
                source,
            })?;
        let mut scored = Self {
            tensor,
            amax,
            scale,
            candidates: Vec::new(),
        };
        let decided = match options.scheme {
            Scheme::Fp8 => true,
            Scheme::Nvfp4 => !options.clip,
            Scheme::Bf16 | Scheme::Fgmp { .. } => false,
        };
        if !decided {
            let (data, sensitivity) = (tensor.data, tensor.sensitivity);
            scored.candidates = kernels::score(data, sensitivity, scored.k(), scale, options.clip);
        }
        Ok(scored)
    }

    fn k(&self) -> usize {
        self.tensor.shape.last().copied().unwrap_or_default()
    }

    /// Scores as thresholds are compared with them: in original units, random ones as they are.
    fn scores(&self, options: WeightOptions) -> Vec<f64> {
        let unit = match options.selection {
            Selection::Random(_) => 1.0,
            Selection::Global | Selection::Pairs | Selection::PerLayer => {
                f64::from(self.scale.get()).powi(2)
            }
        };
        self.candidates.iter().map(|c| c.score * unit).collect()
    }

    fn pack(&self, threshold: f64, options: WeightOptions) -> Result<PackedTensor, QuantizeError> {
        let (data, k) = (self.tensor.data, self.k());
        let streams = match options.scheme {
            Scheme::Fp8 => kernels::pack_fp8(data, k, self.scale),
            Scheme::Nvfp4 if !options.clip => {
                // Everything is finite, so that there are blocks.
                profiles::blocks(data, k, options.profile, self.amax, self.scale)
                    .unwrap_or_default()
            }
            _ => {
                let chosen = |(candidates, score): (&Candidates, f64)| {
                    (!candidates.nan && score <= threshold).then_some(candidates.scale)
                };
                let scores = self.scores(options);
                let choices: Vec<_> = self.candidates.iter().zip(scores).map(chosen).collect();
                kernels::pack(data, k, self.scale, &choices)
            }
        };
        PackedTensor::from_builder(self.tensor.shape, self.scale, streams).map_err(|source| {
            QuantizeError::Packed {
                tensor: self.tensor.name.into(),
                source,
            }
        })
    }
}
