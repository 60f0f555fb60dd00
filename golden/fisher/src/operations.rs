//! The two operations whose gradients candle's own operations give too slowly.
//!
//! All else of a layer is candle's own operations and their gradients.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Error, Layout, Result, Shape, Tensor};

/// y = x · Wᵀ, W held as outputs × inputs.
///
/// As a product with a transposed view, W's gradient would come out transposed, and be copied back element by element.
pub(crate) struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = x_layout.shape().dims2()?;
        let (outputs, expected) = weight_layout.shape().dims2()?;
        if inputs != expected {
            let message = format!("rows of {inputs} elements for a matrix of {expected} inputs");
            return Err(Error::Msg(message));
        }
        let transposed = weight_layout.transpose(0, 1)?;
        let y = x.matmul(weight, (1, rows, outputs, inputs), x_layout, &transposed)?;
        Ok((y, (rows, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, weight) = (x.detach(), weight.detach());
        Ok((
            Some(gradient.matmul(&weight)?),
            Some(gradient.t()?.matmul(&x)?),
        ))
    }
}

/// Softmax of `scale · scores` over the keys that a query sees: those up to its own position.
///
/// Scores are rows of as many keys as there are positions; row r is a query at position r mod positions.
pub(crate) struct CausalSoftmax {
    pub(crate) scale: f32,
}

impl CustomOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let scores = dense(storage, layout)?;
        let positions = layout.shape().dims().last().copied().unwrap_or(1);
        let mut out = vec![0f32; scores.len()];
        for (row, (out, scores)) in rows(&mut out, scores, positions).enumerate() {
            let seen = row % positions + 1;
            let (out, scores) = (&mut out[..seen], &scores[..seen]);
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for (out, score) in out.iter_mut().zip(scores) {
                *out = ((score - largest) * self.scale).exp();
                sum += *out;
            }
            let factor = 1.0 / sum;
            out.iter_mut().for_each(|out| *out *= factor);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let op = CausalSoftmaxGradient { scale: self.scale };
        result
            .apply_op2_no_bwd(&gradient.contiguous()?, &op)
            .map(Some)
    }
}

/// From softmax p and its gradient g to that of the scores: scale · p · (g − Σ p g).
struct CausalSoftmaxGradient {
    scale: f32,
}

impl CustomOp2 for CausalSoftmaxGradient {
    fn name(&self) -> &'static str {
        "causal-softmax-gradient"
    }

    fn cpu_fwd(
        &self,
        result: &CpuStorage,
        result_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let result = dense(result, result_layout)?;
        let gradient = dense(gradient, gradient_layout)?;
        let shape = result_layout.shape();
        let positions = shape.dims().last().copied().unwrap_or(1);
        let mut out = vec![0f32; result.len()];
        let pairs = rows(&mut out, result, positions).zip(gradient.chunks_exact(positions.max(1)));
        for (row, ((out, p), g)) in pairs.enumerate() {
            let seen = row % positions + 1;
            let (out, p, g) = (&mut out[..seen], &p[..seen], &g[..seen]);
            let mean: f32 = p.iter().zip(g).map(|(p, g)| p * g).sum();
            for ((out, p), g) in out.iter_mut().zip(p).zip(g) {
                *out = self.scale * p * (g - mean);
            }
        }
        Ok((CpuStorage::F32(out), shape.clone()))
    }
}

/// The rows of an output beside those of an input.
fn rows<'a>(
    out: &'a mut [f32],
    values: &'a [f32],
    width: usize,
) -> impl Iterator<Item = (&'a mut [f32], &'a [f32])> {
    let width = width.max(1);
    out.chunks_exact_mut(width).zip(values.chunks_exact(width))
}

/// The elements of a dense FP32 tensor.
pub(crate) fn dense<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let elements = storage.as_slice::<f32>()?;
    layout
        .contiguous_offsets()
        .and_then(|(start, end)| elements.get(start..end))
        .ok_or_else(|| Error::Msg("expected a contiguous tensor".into()))
}
