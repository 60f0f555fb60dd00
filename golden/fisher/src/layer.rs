//! One layer as a candle graph: the arithmetic of `golden::model::forward`.

use candle_core::{D, Device, Result, Tensor, Var};
use golden::model::{Config, Input, Matrix};

use crate::operations::{CausalSoftmax, Linear};

/// A layer's tensors.
pub(crate) struct Layer {
    /// Of attention and feed-forward layer, 1 × hidden.
    pub(crate) norms: [Tensor; 2],
    /// In the order of [`Matrix::ALL`], outputs × inputs.
    pub(crate) matrices: [Var; 7],
}

/// What a layer's backward run gives.
pub(crate) struct Gradients {
    /// Of the layer's input.
    pub(crate) x: Tensor,
    /// Of its matrices, in the order of [`Matrix::ALL`].
    pub(crate) matrices: [Tensor; 7],
    /// Of the inputs of its linear layers, in the order of [`Input::ALL`]: a row for each token.
    pub(crate) sites: [Tensor; 4],
}

impl Layer {
    /// The layer's output without a graph; `x` and the result are rows of the residual stream.
    pub(crate) fn forward(&self, shape: &Shape, x: &Tensor) -> Result<Tensor> {
        let matrices = self.matrices.each_ref().map(|matrix| matrix.detach());
        let product = |x: &Tensor, matrix| x.apply_op2(&matrices[matrix as usize], Linear);
        run(shape, &self.norms, x, |_, input| Ok(input), product)
    }

    /// The gradients of Σ output · `gradient`.
    pub(crate) fn backward(
        &self,
        shape: &Shape,
        x: &Tensor,
        gradient: &Tensor,
    ) -> Result<Gradients> {
        let x = Var::from_tensor(x)?;
        let matrices = self
            .matrices
            .each_ref()
            .map(|matrix| matrix.as_tensor().clone());
        // A zero added to an input has that input's gradient.
        let mut zeros = Vec::with_capacity(Input::ALL.len());
        let site = |_, input: Tensor| {
            let zero = Var::zeros(input.shape(), input.dtype(), input.device())?;
            let sum = input.add(&zero);
            zeros.push(zero);
            sum
        };
        let product = |x: &Tensor, matrix: Matrix| x.apply_op2(&matrices[matrix as usize], Linear);
        let output = run(shape, &self.norms, &x, site, product)?;
        let mut store = (output * gradient)?.sum_all()?.backward()?;
        let mut take = |variable: &Tensor| {
            store
                .remove(variable)
                .ok_or_else(|| candle_core::Error::Msg("a variable has no gradient".into()))
        };
        let [attention, output, mlp, down] = zeros.as_slice() else {
            return Err(candle_core::Error::Msg("a layer has four sites".into()));
        };
        let [q, k, v, o, gate, up, d] = &matrices;
        Ok(Gradients {
            x: take(&x)?,
            matrices: [
                take(q)?,
                take(k)?,
                take(v)?,
                take(o)?,
                take(gate)?,
                take(up)?,
                take(d)?,
            ],
            sites: [take(attention)?, take(output)?, take(mlp)?, take(down)?],
        })
    }
}

/// A layer's output. `norms` are its gains, 1 × hidden; `site` sees each input of linear layers, in the order of
/// [`Input::ALL`], and gives what is used in its place; `product` multiplies that with a matrix.
pub(crate) fn run(
    shape: &Shape,
    norms: &[Tensor; 2],
    x: &Tensor,
    mut site: impl FnMut(Input, Tensor) -> Result<Tensor>,
    product: impl Fn(&Tensor, Matrix) -> Result<Tensor>,
) -> Result<Tensor> {
    let eps = shape.config.rms_eps;

    let normed = site(Input::Attention, rms_norm(x, &norms[0], eps)?)?;
    let query = shape.rotate(&product(&normed, Matrix::Query)?, shape.config.heads)?;
    let key = shape.rotate(&product(&normed, Matrix::Key)?, shape.config.kv_heads)?;
    let mixed = shape.attention(&query, &key, &product(&normed, Matrix::Value)?)?;
    let mixed = site(Input::AttentionOutput, mixed)?;
    let x = (x + product(&mixed, Matrix::Output)?)?;

    let normed = site(Input::Mlp, rms_norm(&x, &norms[1], eps)?)?;
    let gate = product(&normed, Matrix::Gate)?.silu()?;
    let gated = (gate * product(&normed, Matrix::Up)?)?;
    let gated = site(Input::MlpDown, gated)?;
    x + product(&gated, Matrix::Down)?
}

/// A model's shape for windows of one length, with their rotary embedding.
pub(crate) struct Shape {
    pub(crate) config: Config,
    positions: usize,
    /// positions × 1 × half a head.
    cosines: Tensor,
    sines: Tensor,
}

impl Shape {
    pub(crate) fn new(config: Config, positions: usize) -> Result<Self> {
        let half = config.head_width / 2;
        // In FP32 as the golden model does it: the angles of late positions depend on the rounding.
        let frequencies: Vec<f32> = (0..half)
            .map(|i| {
                1.0 / config
                    .rope_base
                    .powf((2 * i) as f32 / config.head_width as f32)
            })
            .collect();
        let table = |function: fn(f32) -> f32| {
            let values: Vec<f32> = (0..positions)
                .flat_map(|position| {
                    frequencies
                        .iter()
                        .map(move |frequency| function(position as f32 * frequency))
                })
                .collect();
            Tensor::from_vec(values, (positions, 1, half), &Device::Cpu)
        };
        Ok(Self {
            config,
            positions,
            cosines: table(f32::cos)?,
            sines: table(f32::sin)?,
        })
    }

    /// Rotates every head of every row: element i with element i + width/2. The result is positions × heads × width.
    fn rotate(&self, rows: &Tensor, heads: usize) -> Result<Tensor> {
        let half = self.config.head_width / 2;
        let rows = rows.reshape((self.positions, heads, 2 * half))?;
        let low = rows.narrow(2, 0, half)?;
        let high = rows.narrow(2, half, half)?;
        let turned = [
            (low.broadcast_mul(&self.cosines)? - high.broadcast_mul(&self.sines)?)?,
            (high.broadcast_mul(&self.cosines)? + low.broadcast_mul(&self.sines)?)?,
        ];
        Tensor::cat(&turned, 2)
    }

    /// Causal grouped-query attention. All query heads of a group stand below one another, so that their keys are not repeated.
    fn attention(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let Config {
            heads,
            kv_heads,
            head_width: width,
            ..
        } = self.config;
        let positions = self.positions;
        let group = heads / kv_heads;
        let query = query
            .reshape((positions, kv_heads, group, width))?
            .permute((1, 2, 0, 3))?
            .reshape((kv_heads, group * positions, width))?;
        let by_head = |rows: &Tensor| rows.reshape((positions, kv_heads, width))?.transpose(0, 1);
        let scale = 1.0 / (width as f32).sqrt();
        let scores = query.matmul(&by_head(key)?.t()?)?;
        let shares = scores.apply_op1(CausalSoftmax { scale })?;
        shares
            .matmul(&by_head(value)?)?
            .reshape((kv_heads, group, positions, width))?
            .permute((2, 0, 1, 3))?
            .reshape((positions, heads * width))
    }
}

/// x / √(mean x² + eps) · weight, row by row.
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let root = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(eps))?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(weight)
}
