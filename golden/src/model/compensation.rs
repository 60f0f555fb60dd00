//! Correction of each weight's rounding error by the weights behind it: GPTQ within FGMP's blocks.
//!
//! Formats and tensor scales stay as they were chosen; codes and scales of FP4 blocks change, so that hardware
//! sees nothing new. A row of a matrix is rounded from left to right, and what rounding an element changed in
//! the products with the calibration inputs is taken out by changing the elements behind it. With H = Σ x xᵀ over those
//! inputs and H⁻¹ = UᵀU (U upper triangular), the error e of element i moves element j by −e·U\[i\]\[j\]/U\[i\]\[i\]
//! (Frantar et al., "GPTQ", 2022). Inputs are those that the quantized model itself sees, layer after layer; the
//! target is pulled towards what the full-precision model computes from its own inputs.

use std::collections::BTreeMap;

use nalgebra::{Cholesky, DMatrix};
use rayon::prelude::*;

use super::forward::{Between, Rotation, add, embed, gated};
use super::{
    Capture, Input, KvCache, LanguageModel, Model, ModelError, QuantizedModel, Site, Tally, Trunk,
    forward,
};
use crate::block::Block;
use crate::format::{BLOCK, E2m1, E4m3, Ue4m3};
use crate::gemm::{View, multiply_transposed};
use crate::packed::PackedTensor;
use crate::quantizer::{UNIFORM, clipped_scale};

/// How rounding errors are compensated.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Compensation {
    /// How far the target moves from the matrix's product with the quantized model's inputs (0) to that with the
    /// full-precision model's (1). Models that repeat their layers have no one input a matrix, and take 0.
    pub pull: f64,
    /// What is added to the diagonal of H, relative to its mean.
    pub damping: f64,
    /// Whether scales of FP4 blocks are searched for the smallest weighted error, instead of taken from the amax.
    pub clip: bool,
}

impl Default for Compensation {
    fn default() -> Self {
        Self {
            pull: 0.5,
            damping: 0.01,
            clip: true,
        }
    }
}

/// Second moments of a site's inputs, K × K.
struct Moments {
    /// Σ x xᵀ of the quantized model's inputs.
    own: DMatrix<f64>,
    /// Σ y xᵀ, y the full-precision model's inputs.
    cross: Option<DMatrix<f64>>,
}

/// A window on its way through the layers of one model.
struct Stream {
    residual: Vec<f32>,
    /// The input of the linear layers that come next.
    input: Vec<f32>,
    kv: (Vec<f32>, Vec<f32>),
}

impl Stream {
    /// Takes the products of the input with its matrices.
    fn advance(&mut self, between: &Between<'_>, input: Input, products: Vec<Vec<f32>>) {
        match input {
            Input::Attention => {
                self.kv = Default::default();
                self.input = between.mix(products, &mut self.kv);
            }
            Input::AttentionOutput => {
                for product in products {
                    add(&mut self.residual, &product);
                }
                self.input = between.mlp_input(&self.residual);
            }
            Input::Mlp => self.input = gated(products),
            Input::MlpDown => {
                for product in products {
                    add(&mut self.residual, &product);
                }
            }
        }
    }
}

impl QuantizedModel {
    /// Rounds all matrices anew, each error compensated by the elements behind it.
    ///
    /// `full` is the model that this one was made of, `windows` are calibration tokens (all of them are held in
    /// memory, several activations each), `sensitivity` holds by tensor name what weighs the errors in the search of
    /// scales. `progress` is told how many of how many inputs of linear layers are done.
    ///
    /// # Errors
    /// A token is outside the vocabulary, there is no window, windows differ in length, `full` is another model, or the inputs of a site have no
    /// finite moments.
    pub fn compensate(
        &mut self,
        full: &Model,
        windows: &[&[u32]],
        options: Compensation,
        sensitivity: Option<&BTreeMap<String, Vec<f32>>>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        let config = *self.config();
        let length = windows.first().map_or(0, |window| window.len());
        if length == 0 || windows.iter().any(|window| window.len() != length) {
            return Err(ModelError::Config(
                "compensation needs windows of one length, at least one token long".into(),
            ));
        }
        if config != *full.config() {
            return Err(ModelError::Config(
                "compensation needs the model that the quantized one was made of".into(),
            ));
        }
        if config.repetitions > 1 {
            return self.compensate_at_once(full, windows, options, sensitivity, progress);
        }
        let rotation = Rotation::new(&config, 0, length);
        let mut streams = windows
            .iter()
            .map(|tokens| {
                let stream = |trunk| {
                    Ok::<_, ModelError>(Stream {
                        residual: embed(trunk, tokens)?,
                        input: Vec::new(),
                        kv: Default::default(),
                    })
                };
                Ok([stream(full.trunk())?, stream(self.trunk())?])
            })
            .collect::<Result<Vec<_>, ModelError>>()?;
        for layer in 0..config.layers {
            for streams in &mut streams {
                for (stream, trunk) in streams.iter_mut().zip([full.trunk(), self.trunk()]) {
                    stream.input =
                        between(trunk, layer, &rotation).attention_input(&stream.residual);
                }
            }
            for input in Input::ALL {
                let site = Site {
                    repetition: 0,
                    layer,
                    input,
                };
                let pairs: Vec<[&[f32]; 2]> = streams
                    .iter()
                    .map(|[full, own]| [full.input.as_slice(), own.input.as_slice()])
                    .collect();
                let moments = self.moments(site, &pairs)?;
                self.round_site(full, site, &moments, options, sensitivity)?;
                let own: &Self = self;
                streams.par_iter_mut().for_each(|[a, b]| {
                    let mut tally = Tally::new(&config);
                    let products = full.project(site, &a.input, &mut tally);
                    a.advance(&between(full.trunk(), layer, &rotation), input, products);
                    let products = own.project(site, &b.input, &mut tally);
                    b.advance(&between(own.trunk(), layer, &rotation), input, products);
                });
                progress(site.index(&config) + 1, config.sites());
            }
        }
        Ok(())
    }

    /// All layers by the inputs that they see before any is changed, repetitions added up.
    fn compensate_at_once(
        &mut self,
        full: &Model,
        windows: &[&[u32]],
        options: Compensation,
        sensitivity: Option<&BTreeMap<String, Vec<f32>>>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), ModelError> {
        let config = *self.config();
        let once = config.layers * Input::ALL.len();
        let mut moments: Vec<Option<DMatrix<f64>>> = vec![None; once];
        // One window at a time: the order of the sums doesn't depend on the number of threads.
        for tokens in windows {
            let seen = std::sync::Mutex::new(Vec::new());
            let own: &Self = self;
            let capture = Capture::new(own, |site: Site, x: &[f32]| {
                if let Ok(mut seen) = seen.lock() {
                    seen.push((site, x.to_vec()));
                }
            });
            let mut tally = Tally::new(&config);
            forward(&capture, tokens, &mut KvCache::new(), &mut tally, |_, _| ())?;
            let found = seen
                .into_inner()
                .unwrap_or_default()
                .into_par_iter()
                .map(|(site, x)| (site, self.decoded_input(site, &x)))
                .map(|(site, x)| {
                    let x = transposed(&x, config.input_width(site.input));
                    (site, product(&x, &x, config.input_width(site.input)))
                })
                .collect::<Vec<_>>();
            for (site, found) in found {
                let site = Site {
                    repetition: 0,
                    ..site
                };
                if let Some(sum) = moments.get_mut(site.index(&config)) {
                    match sum {
                        Some(sum) => *sum += found,
                        None => *sum = Some(found),
                    }
                }
            }
        }
        for (done, (site, own)) in config.all_sites().zip(moments).enumerate() {
            if let Some(own) = own {
                let moments = Moments { own, cross: None };
                self.round_site(full, site, &moments, options, sensitivity)?;
            }
            progress(done + 1, once);
        }
        Ok(())
    }

    /// What a site's matrices are multiplied with, S included, without padding.
    fn decoded_input(&self, site: Site, x: &[f32]) -> Vec<f32> {
        let Some(quantizer) = self.quantizer(site) else {
            return Vec::new();
        };
        let (channels, padded) = (quantizer.channels(), quantizer.padded());
        let scale = quantizer.scale().get();
        let mut values = vec![0f64; padded];
        let mut decoded = Vec::with_capacity(x.len());
        for row in x.chunks_exact(channels) {
            quantizer.quantize_row(row, &mut values);
            decoded.extend(values.iter().take(channels).map(|&v| v as f32 * scale));
        }
        decoded
    }

    /// Moments of (full-precision, own) inputs of all windows.
    fn moments(&self, site: Site, inputs: &[[&[f32]; 2]]) -> Result<Moments, ModelError> {
        let k = self.config().input_width(site.input);
        let zero = || DMatrix::<f64>::zeros(k, k);
        let (mut own, mut cross) = (zero(), zero());
        for inputs in inputs.chunks(rayon::current_num_threads()) {
            let found: Vec<_> = inputs
                .par_iter()
                .map(|[full, quantized]| {
                    let x = transposed(&self.decoded_input(site, quantized), k);
                    let y = transposed(full, k);
                    (product(&x, &x, k), product(&y, &x, k))
                })
                .collect();
            for (a, b) in found {
                own += a;
                cross += b;
            }
        }
        if own.iter().chain(cross.iter()).any(|x| !x.is_finite()) {
            return Err(ModelError::Config(format!(
                "activations at {site:?}: their second moments are not finite"
            )));
        }
        Ok(Moments {
            own,
            cross: Some(cross),
        })
    }

    /// Rounds the matrices of a site anew.
    fn round_site(
        &mut self,
        full: &Model,
        site: Site,
        moments: &Moments,
        options: Compensation,
        sensitivity: Option<&BTreeMap<String, Vec<f32>>>,
    ) -> Result<(), ModelError> {
        let k = moments.own.nrows();
        let singular = || {
            ModelError::Config(format!(
                "activations at {site:?}: their second moments are not positive definite"
            ))
        };
        let mean = moments.own.diagonal().mean();
        let damped = &moments.own
            + DMatrix::from_diagonal_element(k, k, options.damping * mean + f64::MIN_POSITIVE);
        // H = A·Aᵀ with A upper triangular is the Cholesky decomposition of H with its order reversed, and U = A⁻¹.
        let reversed = DMatrix::from_fn(k, k, |i, j| damped[(k - 1 - i, k - 1 - j)]);
        let lower = Cholesky::new(reversed).ok_or_else(singular)?.unpack();
        let inverse = lower
            .solve_lower_triangular(&DMatrix::identity(k, k))
            .ok_or_else(singular)?;
        let upper: Vec<f64> = (0..k * k)
            .map(|at| inverse[(k - 1 - at / k, k - 1 - at % k)])
            .collect();
        let pull = match (&moments.cross, options.pull) {
            (Some(cross), pull) if pull != 0.0 => {
                // ((C − H)·H⁻¹)ᵀ = H⁻¹·(C − H)ᵀ, H being symmetric.
                let difference = (cross - &moments.own).transpose();
                let solved = Cholesky::new(damped)
                    .ok_or_else(singular)?
                    .solve(&difference);
                // Row-major.
                Some(solved.transpose().as_slice().to_vec())
            }
            _ => None,
        };
        for &matrix in site.input.matrices() {
            let name = matrix.tensor_name(site.layer);
            let (Some(weights), Some(packed)) = (
                full.matrix(site.layer, matrix),
                self.packed(site.layer, matrix),
            ) else {
                continue;
            };
            let mut target: Vec<f64> = weights.iter().map(|&w| w.into()).collect();
            if let Some(pull) = &pull {
                let mut moved = vec![0.0; target.len()];
                moved
                    .par_chunks_mut(k * ROWS)
                    .zip(target.par_chunks(k * ROWS))
                    .for_each(|(moved, target)| {
                        let target = View::dense(target, k);
                        multiply_transposed(target, View::dense(pull, k), moved, k);
                    });
                target
                    .iter_mut()
                    .zip(moved)
                    .for_each(|(w, moved)| *w += options.pull * moved);
            }
            let sensitivity = sensitivity
                .and_then(|all| all.get(&name))
                .filter(|f| f.len() == target.len());
            let rounded = round_rows(target, packed, &upper, sensitivity, options.clip)?;
            self.replace(site.layer, matrix, rounded);
        }
        Ok(())
    }
}

fn between<'a>(trunk: &'a Trunk, layer: usize, rotation: &'a Rotation) -> Between<'a> {
    Between {
        trunk,
        layer,
        rotation,
        past: 0,
    }
}

/// Rows of a matrix that go through the elimination together, so that a row of U serves them all while it is in cache.
const ROWS: usize = 32;

/// Rounds rows of weights in original units to the formats of the blocks of `packed`.
fn round_rows(
    mut weights: Vec<f64>,
    packed: &PackedTensor,
    upper: &[f64],
    sensitivity: Option<&Vec<f32>>,
    clip: bool,
) -> Result<PackedTensor, ModelError> {
    let k = packed.k();
    let row_blocks = packed.row_blocks();
    let scale = f64::from(packed.scale().get());
    let formats: Vec<bool> = packed.packed_blocks().map(|block| block.tag).collect();
    let blocks: Vec<Block> = weights
        .par_chunks_mut(k * ROWS)
        .enumerate()
        .flat_map_iter(|(group, weights)| {
            weights.iter_mut().for_each(|w| *w /= scale);
            let rows = weights.len() / k;
            let mut blocks = vec![Block::ZERO; rows * row_blocks];
            let mut errors = vec![[0f64; BLOCK]; rows];
            for column in 0..row_blocks {
                let start = column * BLOCK;
                let end = k.min(start + BLOCK);
                for (row, (z, errors)) in weights.chunks_exact_mut(k).zip(&mut errors).enumerate() {
                    let absolute = group * ROWS + row;
                    let fp8 = formats
                        .get(absolute * row_blocks + column)
                        .copied()
                        .unwrap_or_default();
                    let mut f = UNIFORM;
                    if let Some(given) = sensitivity
                        .and_then(|all| all.get(absolute * k + start..absolute * k + end))
                    {
                        f.iter_mut()
                            .zip(given)
                            .for_each(|(f, &given)| *f = given.into());
                    }
                    blocks[row * row_blocks + column] =
                        round_block(&mut z[start..end], start, k, upper, errors, fp8, &f, clip);
                }
                for i in start..end {
                    let line = &upper[i * k + end..(i + 1) * k];
                    for (z, errors) in weights.chunks_exact_mut(k).zip(&errors) {
                        let e = errors[i - start];
                        for (z, u) in z[end..].iter_mut().zip(line) {
                            *z -= e * u;
                        }
                    }
                }
            }
            blocks
        })
        .collect();
    PackedTensor::from_blocks(packed.shape(), packed.scale(), blocks)
        .map_err(|e| ModelError::Config(e.to_string()))
}

/// Rounds one block of a row, and compensates within it; `errors` are e / U\[i\]\[i\] of its elements.
#[allow(clippy::too_many_arguments)]
fn round_block(
    z: &mut [f64],
    start: usize,
    k: usize,
    upper: &[f64],
    errors: &mut [f64; BLOCK],
    fp8: bool,
    sensitivity: &[f64; BLOCK],
    clip: bool,
) -> Block {
    let mut as_f32 = [0f32; BLOCK];
    as_f32
        .iter_mut()
        .zip(z.iter())
        .for_each(|(to, &z)| *to = z as f32);
    let scale = if fp8 {
        Ue4m3::ONE
    } else if clip {
        clipped_scale(&as_f32, sensitivity)
    } else {
        Ue4m3::of_amax(as_f32.iter().fold(0f32, |amax, z| amax.max(z.abs())))
    };
    let mut fp4_elements = [E2m1::ZERO; BLOCK];
    let mut fp8_elements = [E4m3::ZERO; BLOCK];
    for i in 0..z.len() {
        let x = z[i] as f32;
        let rounded = if fp8 {
            fp8_elements[i] = E4m3::quantize(x);
            fp8_elements[i].to_f64()
        } else {
            fp4_elements[i] = E2m1::quantize_scaled(x, scale);
            scale.to_f64() * fp4_elements[i].to_f64()
        };
        let line = &upper[(start + i) * k + start..(start + i) * k + start + z.len()];
        let error = (z[i] - rounded) / line[i];
        errors[i] = error;
        for j in i + 1..z.len() {
            z[j] -= error * line[j];
        }
    }
    if fp8 {
        Block::Fp8 {
            elements: fp8_elements,
        }
    } else {
        Block::Fp4 {
            scale,
            elements: fp4_elements,
        }
    }
}

/// Columns of rows of `width` elements, one after the other.
fn transposed(rows: &[f32], width: usize) -> Vec<f32> {
    let count = rows.len() / width;
    let mut columns = vec![0.0; count * width];
    for (row, values) in rows.chunks_exact(width).enumerate() {
        for (column, &value) in values.iter().enumerate() {
            columns[column * count + row] = value;
        }
    }
    columns
}

/// Σ a bᵀ over tokens of `width` elements, given by columns; FP32 sums within a window.
fn product(a: &[f32], b: &[f32], width: usize) -> DMatrix<f64> {
    let tokens = a.len() / width;
    let mut sums = vec![0f32; width * width];
    multiply_transposed(
        View::dense(a, tokens),
        View::dense(b, tokens),
        &mut sums,
        width,
    );
    DMatrix::from_row_iterator(width, width, sums.into_iter().map(f64::from))
}
