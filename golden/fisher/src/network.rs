//! A golden model's tensors for candle, and its loss.

use candle_core::{Device, Result, Tensor, Var};
use golden::model::{LanguageModel, Matrix, Model};

use crate::layer::{Layer, Shape, rms_norm};
use crate::operations::Linear;
use crate::pass::PassError;

/// What stays in memory beside the golden model; matrices are copied a layer at a time.
pub(crate) struct Network<'m> {
    model: &'m Model,
    pub(crate) shape: Shape,
    norms: Vec<[Tensor; 2]>,
    final_norm: Tensor,
    embedding: Tensor,
    /// vocabulary × hidden.
    pub(crate) head: Tensor,
}

impl<'m> Network<'m> {
    pub(crate) fn new(model: &'m Model, positions: usize) -> std::result::Result<Self, PassError> {
        let config = *model.config();
        let plain = |name: &str, shape: (usize, usize)| {
            let tensor = model
                .trunk()
                .plain()
                .get(name)
                .and_then(|raw| raw.to_f32())
                .ok_or_else(|| PassError::Model(format!("tensor {name} is missing")))?;
            Ok::<_, PassError>(Tensor::from_vec(tensor.data, shape, &Device::Cpu)?)
        };
        let norm = |name: &str| plain(name, (1, config.hidden));
        let table = |name: &str| plain(name, (config.vocabulary, config.hidden));
        let embedding = table("model.embed_tokens.weight")?;
        let head = "lm_head.weight";
        let head = if model.trunk().plain().contains_key(head) {
            table(head)?
        } else {
            embedding.clone()
        };
        Ok(Self {
            model,
            shape: Shape::new(config, positions)?,
            norms: (0..config.layers)
                .map(|layer| {
                    let layer = format!("model.layers.{layer}");
                    Ok([
                        norm(&format!("{layer}.input_layernorm.weight"))?,
                        norm(&format!("{layer}.post_attention_layernorm.weight"))?,
                    ])
                })
                .collect::<std::result::Result<_, PassError>>()?,
            final_norm: norm("model.norm.weight")?,
            embedding,
            head,
        })
    }

    /// A layer, its matrices copied.
    pub(crate) fn layer(&self, layer: usize) -> std::result::Result<Layer, PassError> {
        let missing = || PassError::Model(format!("layer {layer} is missing"));
        let matrix = |matrix: Matrix| {
            let data = self.model.matrix(layer, matrix).ok_or_else(missing)?;
            let [rows, columns] = self.shape.config.matrix_shape(matrix);
            Ok::<_, PassError>(Var::from_slice(data, (rows, columns), &Device::Cpu)?)
        };
        let [q, k, v, o, gate, up, down] = Matrix::ALL;
        Ok(Layer {
            norms: self.norms.get(layer).ok_or_else(missing)?.clone(),
            matrices: [
                matrix(q)?,
                matrix(k)?,
                matrix(v)?,
                matrix(o)?,
                matrix(gate)?,
                matrix(up)?,
                matrix(down)?,
            ],
        })
    }

    /// Rows of the embedding.
    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let tokens = Tensor::from_slice(tokens, tokens.len(), &Device::Cpu)?;
        self.embedding.index_select(&tokens, 0)
    }

    /// Rows of the residual stream as the head sees them.
    pub(crate) fn normed(&self, hidden: &Tensor) -> Result<Tensor> {
        rms_norm(hidden, &self.final_norm, self.shape.config.rms_eps)
    }

    /// Rows of logits at a time: 32 MiB of them for each window under way.
    pub(crate) fn head_rows(&self) -> usize {
        const LOGITS: usize = 1 << 23;
        (LOGITS / self.shape.config.vocabulary).max(1)
    }

    /// Final norm, head and loss: the window's mean negative log-likelihood in nats, and its gradient by the rows of the residual stream.
    pub(crate) fn loss(&self, hidden: &Tensor, targets: &[u32]) -> Result<(f64, Tensor)> {
        let vocabulary = self.shape.config.vocabulary;
        let hidden = Var::from_tensor(hidden)?;
        let normed = self.normed(&hidden)?;
        let rows = self.head_rows();
        let share = 1.0 / targets.len() as f64;
        let mut loss = 0.0;
        let mut gradients = Vec::new();
        for (index, targets) in targets.chunks(rows).enumerate() {
            let rows = normed.detach().narrow(0, index * rows, targets.len())?;
            let logits = rows.apply_op2_no_bwd(&self.head, &Linear)?;
            let mut logits = logits.flatten_all()?.to_vec1::<f32>()?;
            for (row, &target) in logits.chunks_exact_mut(vocabulary).zip(targets) {
                loss += share * cross_entropy(row, target as usize, share);
            }
            let gradient = Tensor::from_vec(logits, (targets.len(), vocabulary), &Device::Cpu)?;
            gradients.push(gradient.matmul(&self.head)?);
        }
        let gradient = Tensor::cat(&gradients, 0)?;
        let mut store = (normed * gradient)?.sum_all()?.backward()?;
        let gradient = store
            .remove(&hidden)
            .ok_or_else(|| candle_core::Error::Msg("the loss has no gradient".into()))?;
        Ok((loss, gradient))
    }
}

/// Negative log-likelihood of a target, and in place of the logits its gradient times `share`.
fn cross_entropy(logits: &mut [f32], target: usize, share: f64) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let at_target = logits.get(target).copied().unwrap_or(f32::NAN);
    // Partial sums of 64 terms keep FP32's error small, as in golden::eval.
    let mut total = 0f64;
    for logits in logits.chunks_mut(64) {
        let mut sum = 0f32;
        for logit in logits {
            *logit = (*logit - largest).exp();
            sum += *logit;
        }
        total += f64::from(sum);
    }
    let factor = (share / total) as f32;
    logits.iter_mut().for_each(|logit| *logit *= factor);
    if let Some(logit) = logits.get_mut(target) {
        *logit -= share as f32;
    }
    total.ln() + f64::from(largest) - f64::from(at_target)
}
