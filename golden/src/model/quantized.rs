//! The model as the hardware computes it (numerics §3–5).

use std::collections::BTreeMap;
use std::path::Path;

use half::bf16;
use serde::{Deserialize, Serialize};

use super::calibration::GlobalPolicy;
use super::{
    Calibration, Config, ConfigHints, Input, LanguageModel, Matrix, Model, ModelError, Site, Tally,
    Trunk,
};
use crate::format::{BLOCK, E4M3, exp2};
use crate::gemm::{View, multiply_transposed};
use crate::mac::ACC_UNIT_EXPONENT;
use crate::matmul::matmul_integer;
use crate::packed::{PackedFile, PackedTensor, TensorScale};
use crate::quantizer::{
    ActivationQuantizer, ChannelSensitivity, Policy, QuantizeError, WeightOptions, WeightTensor,
    quantize_weights,
};
use crate::requantize::{OutputScale, ScaleError};
use crate::scheme::Scheme;
use crate::simd::few;
use crate::tensors::FileError;

/// Why a model can't be quantized, stored or read back.
#[derive(Debug, thiserror::Error)]
pub enum QuantizedModelError {
    /// The model itself is wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// A weight tensor can't be quantized.
    #[error(transparent)]
    Weights(#[from] QuantizeError),
    /// A multiplier is outside the range that the hardware takes.
    #[error("{what}: {source}")]
    Scale {
        /// The matrix or the site.
        what: String,
        /// The multiplier.
        source: ScaleError,
    },
}

/// Rows up to which [`few::multiply`] is faster than a matrix multiplication.
const FEW_ROWS: usize = 16;

/// A matrix, packed, and decoded for the FP64 product.
#[derive(Clone, Debug)]
struct Linear {
    packed: PackedTensor,
    /// Values without the tensor's scale, rows padded to whole blocks. FP32 holds them exactly: six bits of significand.
    values: Vec<f32>,
    /// Whether FP64 holds every partial sum with any activations. Those are at most 448: z is, and the largest
    /// scale of an FP4 block is then RNE(448 / 6) = 72, six times which is less.
    f64_is_exact: bool,
}

impl Linear {
    fn new(packed: PackedTensor) -> Self {
        let values: Vec<f32> = packed
            .unscaled_values_f64()
            .into_iter()
            .map(|value| value as f32)
            .collect();
        let largest = values.iter().fold(0f32, |largest, v| largest.max(v.abs()));
        let largest = f64::from(largest);
        let k = (packed.row_blocks() * BLOCK) as f64;
        let f64_is_exact = k * largest * E4M3.max <= exp2(53 + ACC_UNIT_EXPONENT);
        Self {
            packed,
            values,
            f64_is_exact,
        }
    }
}

/// A quantized model.
#[derive(Clone, Debug)]
pub struct QuantizedModel {
    trunk: Trunk,
    scheme: Scheme,
    /// Matrices by layer in the order of [`Matrix::ALL`].
    linears: Vec<Vec<Linear>>,
    /// By site.
    quantizers: Vec<ActivationQuantizer>,
    /// M of each product: by site, in the order of the input's matrices.
    output_scales: Vec<Vec<OutputScale>>,
}

impl QuantizedModel {
    /// Quantizes the weights and sets the activation quantizers up.
    ///
    /// `weight_sensitivity` holds, by tensor name, the squared gradient of each weight.
    ///
    /// # Errors
    /// A weight is not finite, the scheme is [`Scheme::Bf16`], or a multiplier is out of range.
    pub fn new(
        model: &Model,
        options: WeightOptions,
        weight_sensitivity: Option<&BTreeMap<String, Vec<f32>>>,
        calibration: &Calibration,
    ) -> Result<Self, QuantizedModelError> {
        let config = *model.config();
        let names: Vec<(String, [usize; 2])> = (0..config.layers)
            .flat_map(|layer| {
                Matrix::ALL.map(|matrix| (matrix.tensor_name(layer), config.matrix_shape(matrix)))
            })
            .collect();
        let tensors: Vec<WeightTensor<'_>> = names
            .iter()
            .enumerate()
            .map(|(index, (name, shape))| WeightTensor {
                name,
                shape,
                data: model
                    .matrix(
                        index / Matrix::ALL.len(),
                        Matrix::ALL[index % Matrix::ALL.len()],
                    )
                    .unwrap_or_default(),
                sensitivity: weight_sensitivity
                    .and_then(|all| all.get(name))
                    .map(Vec::as_slice),
            })
            .collect();
        let weights = quantize_weights(&tensors, options)?;
        let policy = match options.scheme {
            Scheme::Bf16 | Scheme::Fp8 => GlobalPolicy::Fp8,
            Scheme::Nvfp4 => GlobalPolicy::Fp4,
            Scheme::Fgmp { fp8_share } => GlobalPolicy::Share(fp8_share, options.selection),
        };
        let quantizers =
            calibration
                .quantizers(policy)
                .map_err(|source| QuantizedModelError::Scale {
                    what: "activation scale".into(),
                    source,
                })?;
        Self::assemble(
            model.trunk().clone(),
            options.scheme,
            weights.tensors,
            quantizers,
        )
    }

    /// `packed` in the order of layers and [`Matrix::ALL`], `quantizers` by site.
    fn assemble(
        trunk: Trunk,
        scheme: Scheme,
        packed: Vec<PackedTensor>,
        quantizers: Vec<ActivationQuantizer>,
    ) -> Result<Self, QuantizedModelError> {
        let config = *trunk.config();
        let fits = quantizers.len() == config.sites()
            && config
                .all_sites()
                .zip(&quantizers)
                .all(|(site, q)| q.channels() == config.input_width(site.input));
        if !fits {
            return Err(ModelError::Config(
                "the activation parameters don't fit the model's inputs".into(),
            )
            .into());
        }
        let mut packed = packed.into_iter().map(Linear::new);
        let linears: Vec<Vec<Linear>> = (0..config.layers)
            .map(|_| packed.by_ref().take(Matrix::ALL.len()).collect())
            .collect();
        let output_scales = config
            .all_sites()
            .zip(&quantizers)
            .map(|(site, quantizer)| {
                let scale = |&matrix: &Matrix| {
                    let weights = linears[site.layer][matrix as usize].packed.scale().get();
                    OutputScale::new(weights * quantizer.scale().get()).map_err(|source| {
                        QuantizedModelError::Scale {
                            what: matrix.tensor_name(site.layer),
                            source,
                        }
                    })
                };
                site.input
                    .matrices()
                    .iter()
                    .map(scale)
                    .collect::<Result<Vec<_>, _>>()
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            trunk,
            scheme,
            linears,
            quantizers,
            output_scales,
        })
    }

    /// Shape of the model.
    pub const fn config(&self) -> &Config {
        self.trunk.config()
    }

    /// The scheme that it was made with.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A packed matrix; `None` beyond the last layer.
    pub fn packed(&self, layer: usize, matrix: Matrix) -> Option<&PackedTensor> {
        self.linears
            .get(layer)
            .and_then(|layer| layer.get(matrix as usize))
            .map(|linear| &linear.packed)
    }

    /// Puts another packed form of a matrix in its place; its shape and tensor scale must be the same.
    pub(super) fn replace(&mut self, layer: usize, matrix: Matrix, packed: PackedTensor) {
        if let Some(linear) = self
            .linears
            .get_mut(layer)
            .and_then(|layer| layer.get_mut(matrix as usize))
        {
            *linear = Linear::new(packed);
        }
    }

    /// Puts other gains in the place of all norms', those of the packed file included: of each layer's two norms and of the final one.
    ///
    /// Norms are FP32 and run beside the quantized layers: codes, tags, scales and thresholds stay as they are.
    ///
    /// # Errors
    /// They are not as many as the model has; then nothing is changed.
    pub fn set_norms(
        &mut self,
        norms: Vec<[Vec<f32>; 2]>,
        final_norm: Vec<f32>,
    ) -> Result<(), ModelError> {
        self.trunk.set_norms(norms, final_norm)
    }

    /// All packed matrices with their names.
    pub fn packed_tensors(&self) -> impl Iterator<Item = (String, &PackedTensor)> {
        self.linears
            .iter()
            .enumerate()
            .flat_map(|(layer, linears)| {
                Matrix::ALL
                    .into_iter()
                    .zip(linears)
                    .map(move |(matrix, linear)| (matrix.tensor_name(layer), &linear.packed))
            })
    }

    /// The quantizer of a site; `None` beyond the last layer or repetition.
    pub fn quantizer(&self, site: Site) -> Option<&ActivationQuantizer> {
        self.quantizers.get(site.index(self.config()))
    }

    /// M of the product of a site's input with one of its matrices; `None` if it has no such site or matrix.
    pub fn output_scale(&self, site: Site, matrix: Matrix) -> Option<OutputScale> {
        let position = site.input.matrices().iter().position(|&m| m == matrix)?;
        self.output_scales
            .get(site.index(self.config()))?
            .get(position)
            .copied()
    }

    /// Quantizes rows of a site's input by the definition, as the hardware's streams carry them.
    ///
    /// `None` if there is no such site, or `x` is not made of whole rows, or there are none.
    pub fn quantize_input(&self, site: Site, x: &[f32]) -> Option<PackedTensor> {
        let quantizer = self.quantizer(site)?;
        let channels = quantizer.channels();
        if !x.len().is_multiple_of(channels) {
            return None;
        }
        let x: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let blocks = x
            .chunks_exact(channels)
            .flat_map(|row| quantizer.blocks(row));
        PackedTensor::from_blocks(&[x.len() / channels, channels], quantizer.scale(), blocks).ok()
    }

    /// Share of FP8 blocks among all weights.
    pub fn weight_fp8_share(&self) -> f64 {
        let linears = || self.linears.iter().flatten();
        let fp8: usize = linears().map(|linear| linear.packed.fp8_blocks()).sum();
        let all: usize = linears().map(|linear| linear.packed.block_count()).sum();
        fp8 as f64 / all as f64
    }

    /// Bits of a weight as packed, scales and tags included.
    pub fn bits_per_weight(&self) -> f64 {
        let tensors = || self.packed_tensors().map(|(_, tensor)| tensor);
        let elements = |tensor: &PackedTensor| (tensor.rows() * tensor.k()) as f64;
        let bits: f64 = tensors().map(|t| t.bits_per_element() * elements(t)).sum();
        bits / tensors().map(elements).sum::<f64>()
    }

    /// The model as one packed file: matrices, the trunk's tensors verbatim, and what the online quantizers need.
    pub fn to_packed_file(&self) -> PackedFile {
        let parameters = ModelParameters {
            config: ConfigHints::of(self.config()),
            scheme: self.scheme,
            activations: self
                .quantizers
                .iter()
                .map(|q| SiteParameters {
                    scale: q.scale(),
                    policy: q.policy(),
                    sensitivity: q.sensitivity().clone(),
                })
                .collect(),
        };
        let model = match serde_json::to_value(parameters) {
            Ok(serde_json::Value::Object(map)) => map,
            // A struct of numbers and lists always becomes an object.
            _ => serde_json::Map::new(),
        };
        PackedFile {
            packed: self
                .packed_tensors()
                .map(|(name, packed)| (name, packed.clone()))
                .collect(),
            plain: self.trunk.plain().clone(),
            model,
        }
    }

    /// Reads a packed model.
    ///
    /// # Errors
    /// The file is wrong, or what it says contradicts itself.
    pub fn open(path: &Path) -> Result<Self, QuantizedModelError> {
        Self::from_packed_file(path, PackedFile::open(path)?, ConfigHints::default())
    }

    /// Takes a packed file that is already in memory; `path` is only used in messages, and what `hints` say wins over the file.
    ///
    /// # Errors
    /// What the file says contradicts itself.
    pub fn from_packed_file(
        path: &Path,
        mut file: PackedFile,
        hints: ConfigHints,
    ) -> Result<Self, QuantizedModelError> {
        let parameters: ModelParameters =
            serde_json::from_value(serde_json::Value::Object(file.model)).map_err(|e| {
                FileError::Metadata {
                    path: path.into(),
                    reason: format!("this packed file holds no model: {e}"),
                }
            })?;
        let shapes: Vec<_> = file
            .packed
            .iter()
            .map(|(name, packed)| (name.clone(), packed.shape().to_vec()))
            .collect();
        let trunk = Trunk::new(path, file.plain, shapes, hints.or(parameters.config))?;
        let mut packed = Vec::new();
        for layer in 0..trunk.config().layers {
            for matrix in Matrix::ALL {
                let name = matrix.tensor_name(layer);
                packed.push(file.packed.remove(&name).ok_or(FileError::Missing {
                    path: path.into(),
                    name,
                })?);
            }
        }
        let quantizers = parameters
            .activations
            .into_iter()
            .map(|site| ActivationQuantizer::new(site.scale, site.sensitivity, site.policy))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| QuantizedModelError::Scale {
                what: "activation scale".into(),
                source,
            })?;
        Self::assemble(trunk, parameters.scheme, packed, quantizers)
    }
}

#[derive(Serialize, Deserialize)]
struct ModelParameters {
    config: ConfigHints,
    scheme: Scheme,
    /// By site.
    activations: Vec<SiteParameters>,
}

#[derive(Serialize, Deserialize)]
struct SiteParameters {
    scale: TensorScale,
    policy: Policy,
    sensitivity: ChannelSensitivity,
}

impl LanguageModel for QuantizedModel {
    fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    fn project(&self, site: Site, x: &[f32], tally: &mut Tally) -> Vec<Vec<f32>> {
        let rows = self
            .quantizer(site)
            .map_or(0, |quantizer| x.len() / quantizer.channels());
        self.project_rows(
            site.layer,
            site.input,
            &vec![site.repetition; rows],
            x,
            tally,
        )
    }

    fn project_rows(
        &self,
        layer: usize,
        input: Input,
        repetitions: &[usize],
        x: &[f32],
        tally: &mut Tally,
    ) -> Vec<Vec<f32>> {
        let channels = self.config().input_width(input);
        let padded = channels.next_multiple_of(BLOCK);
        let site = |repetition| Site {
            repetition,
            layer,
            input,
        };
        // What a row is quantized and scaled with.
        let Some(parameters) = repetitions
            .iter()
            .map(|&repetition| {
                let index = site(repetition).index(self.config());
                Some((
                    index,
                    self.quantizers.get(index)?,
                    self.output_scales.get(index)?,
                ))
            })
            .collect::<Option<Vec<_>>>()
        else {
            return Vec::new();
        };
        let mut values = vec![0f64; repetitions.len() * padded];
        for (((index, quantizer, _), row), values) in parameters
            .iter()
            .zip(x.chunks_exact(channels))
            .zip(values.chunks_exact_mut(padded))
        {
            let fp8_blocks = quantizer.quantize_row(row, values);
            tally.count(*index, padded / BLOCK, fp8_blocks);
        }
        input
            .matrices()
            .iter()
            .enumerate()
            .map(|(place, &matrix)| {
                let linear = &self.linears[layer][matrix as usize];
                let outputs = linear.packed.rows();
                let scale = |row: usize| parameters[row].2[place];
                if !linear.f64_is_exact {
                    return x
                        .chunks_exact(channels)
                        .enumerate()
                        .flat_map(|(row, x)| {
                            self.project_integer(site(repetitions[row]), linear, x, scale(row))
                        })
                        .collect();
                }
                let mut sums = vec![0f64; repetitions.len() * outputs];
                if repetitions.len() <= FEW_ROWS {
                    few::multiply(&values, &linear.values, padded, &mut sums);
                } else {
                    let weights: Vec<f64> = linear.values.iter().copied().map(f64::from).collect();
                    multiply_transposed(
                        View::dense(&values, padded),
                        View::dense(&weights, padded),
                        &mut sums,
                        outputs,
                    );
                }
                sums.chunks_exact(outputs)
                    .enumerate()
                    .flat_map(|(row, sums)| {
                        sums.iter().map(move |&sum| requantize_sum(sum, scale(row)))
                    })
                    .collect()
            })
            .collect()
    }
}

impl QuantizedModel {
    /// The same product in integers, for reductions too long for FP64.
    fn project_integer(
        &self,
        site: Site,
        linear: &Linear,
        x: &[f32],
        scale: OutputScale,
    ) -> Vec<f32> {
        self.quantize_input(site, x)
            .map(|input| matmul_integer(&linear.packed, &input).requantized(scale))
            .unwrap_or_default()
            .into_iter()
            .map(bf16::to_f32)
            .collect()
    }
}

/// [`requantize`](crate::requantize::requantize) of an exact FP64 sum; NaN stands for the flag.
///
/// Same rounding: sums are multiples of 2⁻²⁰, so that the conversion to FP32 meets no subnormal.
fn requantize_sum(sum: f64, scale: OutputScale) -> f32 {
    // −0 + 0 = +0: the accumulator has one zero.
    bf16::from_f32((sum + 0.0) as f32 * scale.get()).to_f32()
}
