//! The forward pass. Linear layers are the [`LanguageModel`]'s business, all else is here in FP32.

use std::collections::BTreeMap;

use super::{
    Config, ConfigHints, EMBEDDING, FINAL_NORM, HEAD, Input, LanguageModel, ModelError, Site,
    detect, norm_names,
};
use crate::gemm::{View, multiply_plain, multiply_transposed};
use crate::tensors::{FileError, RawTensor};

/// What is never quantized: embedding, norms, head.
#[derive(Clone, Debug)]
pub struct Trunk {
    config: Config,
    embedding: Vec<f32>,
    /// Absent if the head is tied to the embedding.
    head: Option<Vec<f32>>,
    norms: Vec<[Vec<f32>; 2]>,
    final_norm: Vec<f32>,
    plain: BTreeMap<String, RawTensor>,
}

impl Trunk {
    /// Takes all tensors but the layers' matrices, whose shapes are given, and detects the configuration.
    pub(super) fn new(
        path: &std::path::Path,
        plain: BTreeMap<String, RawTensor>,
        matrix_shapes: impl IntoIterator<Item = (String, Vec<usize>)>,
        hints: ConfigHints,
    ) -> Result<Self, ModelError> {
        let mut shapes: BTreeMap<String, Vec<usize>> = matrix_shapes.into_iter().collect();
        shapes.extend(
            plain
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.shape.clone())),
        );
        let config = detect(&shapes, hints, plain.contains_key(HEAD))?;
        let values = |name: &str| -> Result<Vec<f32>, ModelError> {
            let raw = plain.get(name).ok_or_else(|| FileError::Missing {
                path: path.into(),
                name: name.into(),
            })?;
            let tensor = raw.to_f32().ok_or_else(|| FileError::Tensor {
                path: path.into(),
                name: name.into(),
                reason: format!("expected F32, F16 or BF16, found {:?}", raw.dtype),
            })?;
            Ok(tensor.data)
        };
        let norms = (0..config.layers)
            .map(|layer| {
                let [input, post] = norm_names(layer);
                Ok([values(&input)?, values(&post)?])
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            config,
            embedding: values(EMBEDDING)?,
            head: plain.contains_key(HEAD).then(|| values(HEAD)).transpose()?,
            norms,
            final_norm: values(FINAL_NORM)?,
            plain,
        })
    }

    /// Shape of the model.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The tensors that aren't quantized, as the model's file holds them.
    pub const fn plain(&self) -> &BTreeMap<String, RawTensor> {
        &self.plain
    }

    /// Rows of `hidden` elements, one for each token.
    pub fn embedding(&self) -> &[f32] {
        &self.embedding
    }

    /// Rows of `hidden` elements, one for each token; the embedding's if the head is tied to it.
    pub fn head(&self) -> &[f32] {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The gains of each layer's two norms: before the attention, before the feed-forward layer.
    pub fn norms(&self) -> &[[Vec<f32>; 2]] {
        &self.norms
    }

    /// The gains of the norm before the head.
    pub fn final_norm(&self) -> &[f32] {
        &self.final_norm
    }

    /// Puts other gains in the place of all norms', in FP32.
    ///
    /// # Errors
    /// They are not as many as the model has; then nothing is changed.
    pub(super) fn set_norms(
        &mut self,
        norms: Vec<[Vec<f32>; 2]>,
        final_norm: Vec<f32>,
    ) -> Result<(), ModelError> {
        let width = self.config.hidden;
        let fits = norms.len() == self.config.layers
            && norms
                .iter()
                .flatten()
                .chain([&final_norm])
                .all(|gains| gains.len() == width);
        if !fits {
            return Err(ModelError::Config(format!(
                "expected gains of {} layers' two norms and of the final one, {width} each",
                self.config.layers
            )));
        }
        for (layer, gains) in norms.iter().enumerate() {
            for (name, gains) in norm_names(layer).into_iter().zip(gains) {
                self.plain
                    .insert(name, RawTensor::from_f32(vec![width], gains));
            }
        }
        self.plain.insert(
            FINAL_NORM.into(),
            RawTensor::from_f32(vec![width], &final_norm),
        );
        self.norms = norms;
        self.final_norm = final_norm;
        Ok(())
    }

    /// The final norm of rows of `hidden` elements.
    pub fn normed(&self, hidden: &[f32]) -> Vec<f32> {
        rms_norm(hidden, &self.final_norm, self.config.rms_eps)
    }

    /// Final norm and head: rows of `hidden` elements to rows of `vocabulary` logits.
    pub fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let width = self.config.hidden;
        let normed = self.normed(hidden);
        let rows = hidden.len() / width;
        let mut logits = vec![0.0; rows * self.config.vocabulary];
        if rows > 0 {
            let (normed, head) = (View::dense(&normed, width), View::dense(self.head(), width));
            multiply_transposed(normed, head, &mut logits, self.config.vocabulary);
        }
        logits
    }
}

/// Keys and values of the tokens seen so far, for each repetition and layer.
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    pub(super) length: usize,
    /// (keys, values) in the order of execution, rows of `kv_heads · head_width`.
    pub(super) layers: Vec<(Vec<f32>, Vec<f32>)>,
}

impl KvCache {
    /// No tokens seen.
    pub const fn new() -> Self {
        Self {
            length: 0,
            layers: Vec::new(),
        }
    }

    /// Tokens seen.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether no tokens were seen.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets all tokens after the first `length`.
    pub fn truncate(&mut self, length: usize) {
        if length >= self.length {
            return;
        }
        for (keys, values) in &mut self.layers {
            let width = keys.len() / self.length;
            keys.truncate(length * width);
            values.truncate(length * width);
        }
        self.length = length;
    }
}

/// Activation blocks quantized, by site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Blocks of each site, in the order of [`Site::index`].
    pub blocks: Vec<u64>,
    /// How many of them became FP8.
    pub fp8_blocks: Vec<u64>,
}

impl Tally {
    /// Nothing counted.
    pub fn new(config: &Config) -> Self {
        Self {
            blocks: vec![0; config.sites()],
            fp8_blocks: vec![0; config.sites()],
        }
    }

    /// Adds another tally of the same model.
    pub fn add(&mut self, other: &Self) {
        let sum = |to: &mut [u64], from: &[u64]| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from)
        };
        sum(&mut self.blocks, &other.blocks);
        sum(&mut self.fp8_blocks, &other.fp8_blocks);
    }

    /// Counts blocks of a site.
    pub fn count(&mut self, site: usize, blocks: usize, fp8_blocks: usize) {
        if let (Some(all), Some(fp8)) = (self.blocks.get_mut(site), self.fp8_blocks.get_mut(site)) {
            *all += blocks as u64;
            *fp8 += fp8_blocks as u64;
        }
    }

    /// Share of FP8 blocks among all, 0 if there are none.
    pub fn fp8_share(&self) -> f64 {
        let blocks: u64 = self.blocks.iter().sum();
        let fp8: u64 = self.fp8_blocks.iter().sum();
        if blocks == 0 {
            0.0
        } else {
            fp8 as f64 / blocks as f64
        }
    }
}

/// Runs `tokens` behind those of `cache`, and returns the rows of the residual stream after the last repetition.
///
/// `after_repetition` sees them after each repetition (the last included): early exits apply [`Trunk::logits`] to them.
///
/// # Errors
/// A token is outside the vocabulary; then the cache is as it was.
pub fn forward(
    model: &dyn LanguageModel,
    tokens: &[u32],
    cache: &mut KvCache,
    tally: &mut Tally,
    mut after_repetition: impl FnMut(usize, &[f32]),
) -> Result<Vec<f32>, ModelError> {
    let trunk = model.trunk();
    let config = trunk.config;
    let mut x = embed(trunk, tokens)?;
    if tokens.is_empty() {
        return Ok(x);
    }
    cache
        .layers
        .resize_with(config.repetitions * config.layers, Default::default);
    let rotation = Rotation::new(&config, cache.length, tokens.len());
    let mut caches = cache.layers.iter_mut();
    for repetition in 0..config.repetitions {
        for (layer, kv) in (0..config.layers).zip(&mut caches) {
            let between = Between {
                trunk,
                layer,
                rotation: &rotation,
                past: cache.length,
            };
            let mut project = |input, x: &[f32]| {
                let site = Site {
                    repetition,
                    layer,
                    input,
                };
                model.project(site, x, tally)
            };
            let qkv = project(Input::Attention, &between.attention_input(&x));
            let mixed = between.mix(qkv, kv);
            for output in project(Input::AttentionOutput, &mixed) {
                add(&mut x, &output);
            }
            let gate_up = project(Input::Mlp, &between.mlp_input(&x));
            for output in project(Input::MlpDown, &gated(gate_up)) {
                add(&mut x, &output);
            }
        }
        after_repetition(repetition, &x);
    }
    cache.length += tokens.len();
    Ok(x)
}

/// Rows of the embedding.
pub(super) fn embed(trunk: &Trunk, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
    let config = trunk.config;
    let mut x = Vec::with_capacity(tokens.len() * config.hidden);
    for (position, &token) in tokens.iter().enumerate() {
        let start = token as usize * config.hidden;
        let row = trunk.embedding.get(start..start + config.hidden);
        x.extend_from_slice(row.ok_or(ModelError::Token {
            token,
            position,
            vocabulary: config.vocabulary,
        })?);
    }
    Ok(x)
}

/// What lies between the linear layers of one layer.
pub(super) struct Between<'a> {
    pub(super) trunk: &'a Trunk,
    pub(super) layer: usize,
    pub(super) rotation: &'a Rotation,
    /// Tokens seen before.
    pub(super) past: usize,
}

impl Between<'_> {
    fn norm(&self, x: &[f32], which: usize) -> Vec<f32> {
        let norms = &self.trunk.norms[self.layer];
        rms_norm(x, &norms[which], self.trunk.config.rms_eps)
    }

    /// [`Input::Attention`] of the residual stream.
    pub(super) fn attention_input(&self, x: &[f32]) -> Vec<f32> {
        self.norm(x, 0)
    }

    /// [`Input::AttentionOutput`] of queries, keys and values; the latter two join those of the tokens before.
    pub(super) fn mix(&self, qkv: Vec<Vec<f32>>, kv: &mut (Vec<f32>, Vec<f32>)) -> Vec<f32> {
        let query = self.remember(qkv, kv);
        attention(&self.trunk.config, &query, &kv.0, &kv.1, self.past)
    }

    /// Keys and values join those of the tokens before; the rotated queries are left.
    pub(super) fn remember(&self, qkv: Vec<Vec<f32>>, kv: &mut (Vec<f32>, Vec<f32>)) -> Vec<f32> {
        let mut qkv = qkv.into_iter();
        let mut query = qkv.next().unwrap_or_default();
        let mut key = qkv.next().unwrap_or_default();
        self.rotation.apply(&mut query);
        self.rotation.apply(&mut key);
        kv.0.extend(key);
        kv.1.extend(qkv.next().unwrap_or_default());
        query
    }

    /// [`Input::Mlp`] of the residual stream.
    pub(super) fn mlp_input(&self, x: &[f32]) -> Vec<f32> {
        self.norm(x, 1)
    }
}

/// [`Input::MlpDown`] of gate and up.
pub(super) fn gated(gate_up: Vec<Vec<f32>>) -> Vec<f32> {
    let mut gate_up = gate_up.into_iter();
    let mut gate = gate_up.next().unwrap_or_default();
    for (gate, up) in gate.iter_mut().zip(gate_up.next().unwrap_or_default()) {
        *gate = *gate / (1.0 + (-*gate).exp()) * up;
    }
    gate
}

pub(super) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let width = weight.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        // Sums by eight, so that the compiler vectorises them in an order that never changes.
        let mut lanes = [0f32; 8];
        let (chunks, rest) = row.as_chunks::<8>();
        for chunk in chunks {
            lanes
                .iter_mut()
                .zip(chunk)
                .for_each(|(lane, x)| *lane += x * x);
        }
        let squares = lanes.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>();
        let factor = 1.0 / (squares / width as f32 + eps).sqrt();
        out.extend(row.iter().zip(weight).map(|(x, w)| x * factor * w));
    }
    out
}

/// Cosines and sines of the rotary embedding for a run of positions.
pub(super) struct Rotation {
    half: usize,
    /// A row of `half` pairs for each position.
    angles: Vec<(f32, f32)>,
}

impl Rotation {
    pub(super) fn new(config: &Config, first: usize, count: usize) -> Self {
        let half = config.head_width / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| {
                1.0 / config
                    .rope_base
                    .powf((2 * i) as f32 / config.head_width as f32)
            })
            .collect();
        let angles = (first..first + count)
            .flat_map(|position| {
                frequencies.iter().map(move |frequency| {
                    let angle = position as f32 * frequency;
                    (angle.cos(), angle.sin())
                })
            })
            .collect();
        Self { half, angles }
    }

    /// Rotates every head of every row: element i with element i + width/2 (the half-split convention).
    fn apply(&self, rows: &mut [f32]) {
        let count = self.angles.len() / self.half;
        let width = rows.len() / count;
        for (row, angles) in rows
            .chunks_exact_mut(width)
            .zip(self.angles.chunks_exact(self.half))
        {
            self.turn(row, angles);
        }
    }

    /// The same for rows at any positions of the run, counted from its first.
    pub(super) fn apply_at(&self, rows: &mut [f32], positions: &[usize]) {
        let Some(width) = rows.len().checked_div(positions.len()) else {
            return;
        };
        for (row, &position) in rows.chunks_exact_mut(width.max(1)).zip(positions) {
            if let Some(angles) = self.angles.chunks_exact(self.half).nth(position) {
                self.turn(row, angles);
            }
        }
    }

    fn turn(&self, row: &mut [f32], angles: &[(f32, f32)]) {
        for head in row.chunks_exact_mut(2 * self.half) {
            let (low, high) = head.split_at_mut(self.half);
            for ((low, high), (cos, sin)) in low.iter_mut().zip(high).zip(angles) {
                (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
            }
        }
    }
}

/// Causal attention of rows of queries, the first of which is at position `past`, to all keys up to their own position.
fn attention(
    config: &Config,
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    past: usize,
) -> Vec<f32> {
    /// Query rows at a time: few enough that the masked triangle costs little.
    const ROWS: usize = 64;
    let width = config.head_width;
    let query_stride = config.heads * width;
    let kv_stride = config.kv_heads * width;
    let scale = 1.0 / (width as f32).sqrt();
    let count = query.len() / query_stride;
    let mut out = vec![0.0; query.len()];
    let mut scores = Vec::new();
    for head in 0..config.heads {
        let column = head * width;
        let kv_column = head / (config.heads / config.kv_heads) * width;
        for first in (0..count).step_by(ROWS) {
            let rows = ROWS.min(count - first);
            let seen = past + first + rows;
            let start = first * query_stride + column;
            let query = View::strided(&query[start..], rows, width, query_stride);
            let keys = View::strided(&keys[kv_column..], seen, width, kv_stride);
            let values = View::strided(&values[kv_column..], seen, width, kv_stride);
            scores.clear();
            scores.resize(rows * seen, 0.0);
            multiply_transposed(query, keys, &mut scores, seen);
            for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
                let (visible, masked) = scores.split_at_mut(past + first + row + 1);
                softmax(visible, scale);
                masked.fill(0.0);
            }
            multiply_plain(
                View::dense(&scores, seen),
                values,
                &mut out[start..],
                query_stride,
            );
        }
    }
    out
}

/// Softmax of `scale · scores`.
pub(super) fn softmax(scores: &mut [f32], scale: f32) {
    let largest = scores
        .iter()
        .fold(f32::NEG_INFINITY, |largest, &score| largest.max(score));
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = ((*score - largest) * scale).exp();
        sum += *score;
    }
    let factor = 1.0 / sum;
    scores.iter_mut().for_each(|score| *score *= factor);
}
