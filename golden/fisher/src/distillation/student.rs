//! The quantized model as candle graphs, and a window's way through both models.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Device, Error, Layout, Result, Shape as Extents, Tensor, Var,
};
use golden::model::{Input, Matrix, QuantizedModel, Site};
use golden::quantizer::ActivationQuantizer;
use half::bf16;

use crate::layer::{Layer, Shape, rms_norm, run};
use crate::network::Network;
use crate::operations::{Linear, dense};
use crate::pass::PassError;

/// The quantized model; matrices are decoded a layer at a time.
pub(super) struct Student<'m> {
    model: &'m QuantizedModel,
    /// By site.
    quantizers: Vec<Arc<ActivationQuantizer>>,
}

/// A layer in one of its repetitions.
pub(super) struct StudentLayer {
    /// Position in the order of execution within a repetition.
    layer: usize,
    /// Of attention and feed-forward layer, 1 × hidden.
    norms: [Tensor; 2],
    /// In the order of [`Matrix::ALL`].
    products: [(Tensor, Product); 7],
    /// In the order of [`Input::ALL`].
    quantizers: [Arc<ActivationQuantizer>; 4],
}

impl<'m> Student<'m> {
    pub(super) fn new(model: &'m QuantizedModel) -> std::result::Result<Self, PassError> {
        let missing = || PassError::Model("an activation quantizer is missing".into());
        Ok(Self {
            model,
            quantizers: model
                .config()
                .all_sites()
                .map(|site| {
                    let quantizer = model.quantizer(site).ok_or_else(missing)?;
                    Ok(Arc::new(quantizer.clone()))
                })
                .collect::<std::result::Result<_, PassError>>()?,
        })
    }

    /// A layer with gains in the order of execution, its matrices decoded.
    pub(super) fn layer(
        &self,
        repetition: usize,
        layer: usize,
        gains: &[Vec<f32>],
    ) -> std::result::Result<StudentLayer, PassError> {
        let missing = || PassError::Model(format!("layer {layer} is missing"));
        let config = *self.model.config();
        let site = |input| Site {
            repetition,
            layer,
            input,
        };
        let norm = |index: usize| {
            let gains = gains.get(2 * layer + index).ok_or_else(missing)?;
            Ok::<_, PassError>(row(gains)?)
        };
        let product = |matrix: Matrix| {
            let packed = self.model.packed(layer, matrix).ok_or_else(missing)?;
            let values = packed.unscaled_values();
            let shape = (packed.rows(), values.len() / packed.rows().max(1));
            let scale = self
                .model
                .output_scale(site(matrix.input()), matrix)
                .ok_or_else(missing)?
                .get();
            let weights = Tensor::from_vec(values, shape, &Device::Cpu)?;
            Ok::<_, PassError>((weights, Product { scale }))
        };
        let quantizer = |input| {
            let index = site(input).index(&config);
            self.quantizers.get(index).cloned().ok_or_else(missing)
        };
        let [q, k, v, o, gate, up, down] = Matrix::ALL;
        let [attention, output, mlp, mlp_down] = Input::ALL;
        Ok(StudentLayer {
            layer,
            norms: [norm(0)?, norm(1)?],
            products: [
                product(q)?,
                product(k)?,
                product(v)?,
                product(o)?,
                product(gate)?,
                product(up)?,
                product(down)?,
            ],
            quantizers: [
                quantizer(attention)?,
                quantizer(output)?,
                quantizer(mlp)?,
                quantizer(mlp_down)?,
            ],
        })
    }
}

impl StudentLayer {
    fn run(&self, shape: &Shape, norms: &[Tensor; 2], x: &Tensor) -> Result<Tensor> {
        run(
            shape,
            norms,
            x,
            |input, x| x.apply_op1(Quantize(self.quantizers[input as usize].clone())),
            |z, matrix| {
                let (weights, product) = &self.products[matrix as usize];
                z.apply_op2(weights, *product)
            },
        )
    }
}

/// A window on its way through both models.
pub(super) struct UnderWay {
    /// Inputs of the student's layers still to be run backwards, in the order of execution.
    inputs: Vec<Tensor>,
    /// Rows of the teacher's residual stream.
    teacher: Tensor,
    /// Rows of the student's on the way forward, their gradient on the way back.
    student: Tensor,
    /// Summed over the window's tokens, times the share.
    pub(super) loss: f64,
    /// Of the gains: of each layer's two norms in the order of execution, then of the final one.
    pub(super) gradients: Vec<Vec<f64>>,
}

impl UnderWay {
    /// `tokens` are all read.
    pub(super) fn new(teacher: &Network<'_>, tokens: &[u32]) -> Result<Self> {
        let config = teacher.shape.config;
        let rows = teacher.embed(tokens)?;
        Ok(Self {
            inputs: Vec::with_capacity(config.repetitions * config.layers),
            teacher: rows.clone(),
            student: rows,
            loss: 0.0,
            gradients: vec![vec![0.0; config.hidden]; 2 * config.layers + 1],
        })
    }

    /// Both models' next layer.
    pub(super) fn forward(
        &mut self,
        shape: &Shape,
        teacher: &Layer,
        student: &StudentLayer,
    ) -> Result<()> {
        self.teacher = teacher.forward(shape, &self.teacher)?;
        let next = student.run(shape, &student.norms, &self.student)?;
        self.inputs.push(std::mem::replace(&mut self.student, next));
        Ok(())
    }

    /// Final norms, head and loss: Σ over tokens of the divergence, times `share`.
    pub(super) fn compare(
        &mut self,
        teacher: &Network<'_>,
        final_gains: &[f32],
        share: f64,
    ) -> Result<()> {
        let config = teacher.shape.config;
        let expected = teacher.normed(&self.teacher)?;
        let hidden = Var::from_tensor(&self.student)?;
        let gains = Var::from_tensor(&row(final_gains)?)?;
        let normed = rms_norm(&hidden, &gains, config.rms_eps)?;
        let found = normed.detach();
        let positions = hidden.dim(0)?;
        let mut gradients = Vec::new();
        for first in (0..positions).step_by(teacher.head_rows()) {
            let count = teacher.head_rows().min(positions - first);
            let logits = |normed: &Tensor| -> Result<Vec<f32>> {
                let rows = normed.narrow(0, first, count)?;
                let logits = rows.apply_op2_no_bwd(&teacher.head, &Linear)?;
                logits.flatten_all()?.to_vec1()
            };
            let mut expected = logits(&expected)?;
            let mut found = logits(&found)?;
            let rows = expected.chunks_exact_mut(config.vocabulary);
            for (expected, found) in rows.zip(found.chunks_exact_mut(config.vocabulary)) {
                self.loss += share * divergence(expected, found, share);
            }
            let gradient = Tensor::from_vec(found, (count, config.vocabulary), &Device::Cpu)?;
            gradients.push(gradient.matmul(&teacher.head)?);
        }
        let gradient = Tensor::cat(&gradients, 0)?;
        let mut store = (normed * gradient)?.sum_all()?.backward()?;
        let mut take = |variable: &Tensor| store.remove(variable).ok_or_else(no_gradient);
        self.student = take(&hidden)?;
        let gradient = take(&gains)?;
        self.add(2 * config.layers, &gradient)
    }

    /// The layer before.
    pub(super) fn backward(&mut self, shape: &Shape, student: &StudentLayer) -> Result<()> {
        let input = self.inputs.pop().ok_or_else(no_gradient)?;
        let x = Var::from_tensor(&input)?;
        let [attention, mlp] = &student.norms;
        let gains = [Var::from_tensor(attention)?, Var::from_tensor(mlp)?];
        let norms = gains.each_ref().map(|gains| gains.as_tensor().clone());
        let output = student.run(shape, &norms, &x)?;
        let mut store = (output * &self.student)?.sum_all()?.backward()?;
        let mut take = |variable: &Tensor| store.remove(variable).ok_or_else(no_gradient);
        self.student = take(&x)?;
        for (index, gains) in gains.iter().enumerate() {
            let gradient = take(gains)?;
            self.add(2 * student.layer + index, &gradient)?;
        }
        Ok(())
    }

    /// Repetitions share their gains: what they say adds up.
    fn add(&mut self, norm: usize, gradient: &Tensor) -> Result<()> {
        let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
        let sums = self.gradients.get_mut(norm).ok_or_else(no_gradient)?;
        sums.iter_mut()
            .zip(gradient)
            .for_each(|(sum, gradient)| *sum += f64::from(gradient));
        Ok(())
    }
}

fn no_gradient() -> Error {
    Error::Msg("a layer has no input, or a variable no gradient".into())
}

/// Gains as 1 × hidden.
fn row(gains: &[f32]) -> Result<Tensor> {
    Tensor::from_slice(gains, (1, gains.len()), &Device::Cpu)
}

/// Σ p · (ln p − ln q) of the distributions p and q of two rows of logits. In place of `found`, its gradient times
/// `share`: share · (q − p); `expected` is overwritten.
fn divergence(expected: &mut [f32], found: &mut [f32], share: f64) -> f64 {
    let largest = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (largest_expected, largest_found) = (largest(expected), largest(found));
    let (mut total_expected, mut total_found, mut weighted) = (0f64, 0f64, 0f64);
    // Partial sums of 64 terms keep FP32's error small, as in golden::eval.
    for (expected, found) in expected.chunks_mut(64).zip(found.chunks_mut(64)) {
        let mut sums = [0f32; 3];
        for (expected, found) in expected.iter_mut().zip(found) {
            let (p, q) = (*expected - largest_expected, *found - largest_found);
            (*expected, *found) = (p.exp(), q.exp());
            sums[0] += *expected;
            sums[1] += *found;
            sums[2] += *expected * (p - q);
        }
        total_expected += f64::from(sums[0]);
        total_found += f64::from(sums[1]);
        weighted += f64::from(sums[2]);
    }
    let expected_factor = (share / total_expected) as f32;
    let found_factor = (share / total_found) as f32;
    for (found, expected) in found.iter_mut().zip(expected) {
        *found = *found * found_factor - *expected * expected_factor;
    }
    weighted / total_expected - total_expected.ln() + total_found.ln()
}

/// z of rows, padded to whole blocks, with the bits of the hardware's quantizer. Straight through: its gradient is that of x / S.
struct Quantize(Arc<ActivationQuantizer>);

impl CustomOp1 for Quantize {
    fn name(&self) -> &'static str {
        "quantize"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Extents)> {
        let (rows, channels) = layout.shape().dims2()?;
        if channels != self.0.channels() {
            let expected = self.0.channels();
            let message = format!("rows of {channels} elements for a quantizer of {expected}");
            return Err(Error::Msg(message));
        }
        let padded = self.0.padded();
        let mut row = vec![0f64; padded];
        let mut out = Vec::with_capacity(rows * padded);
        for x in dense(x, layout)?.chunks_exact(channels.max(1)) {
            self.0.quantize_row(x, &mut row);
            // Exact: they are decoded codes.
            out.extend(row.iter().map(|&z| z as f32));
        }
        Ok((CpuStorage::F32(out), (rows, padded).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let own = gradient.narrow(1, 0, self.0.channels())?;
        (own / f64::from(self.0.scale().get())).map(Some)
    }
}

/// y = RNE_BF16(z · Wᵀ · M), W held as outputs × inputs (numerics §5). Straight through the rounding; W has no gradient.
///
/// Sums are FP32: the hardware's exact ones may round to the BF16 next to it.
#[derive(Clone, Copy)]
struct Product {
    /// M.
    scale: f32,
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "quantized-product"
    }

    fn cpu_fwd(
        &self,
        z: &CpuStorage,
        z_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Extents)> {
        let (sums, shape) = Linear.cpu_fwd(z, z_layout, weight, weight_layout)?;
        let CpuStorage::F32(mut y) = sums else {
            let message = format!("expected FP32 sums, found {:?}", sums.dtype());
            return Err(Error::Msg(message));
        };
        for y in &mut y {
            *y = bf16::from_f32(*y * self.scale).to_f32();
        }
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(
        &self,
        _: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = (gradient.matmul(&weight.detach())? * f64::from(self.scale))?;
        Ok((Some(gradient), None))
    }
}
