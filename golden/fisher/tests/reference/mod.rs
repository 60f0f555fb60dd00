//! A second implementation of the loss, in FP64 and without gradients: what finite differences are taken of.

use std::collections::BTreeMap;

use golden::model::{Config, LanguageModel, Matrix, Model, Site};

/// A model's tensors in FP64, free to be changed.
#[derive(Clone)]
pub struct Reference {
    pub config: Config,
    pub tensors: BTreeMap<String, Vec<f64>>,
}

/// An element of a linear layer's input, and what is added to it.
#[derive(Clone, Copy)]
pub struct Nudge {
    pub site: Site,
    pub token: usize,
    pub channel: usize,
    pub amount: f64,
}

impl Reference {
    pub fn new(model: &Model) -> Self {
        let widen = |data: &[f32]| -> Vec<f64> { data.iter().map(|&x| x.into()).collect() };
        let config = *model.config();
        let mut tensors: BTreeMap<_, _> = model
            .trunk()
            .plain()
            .iter()
            .map(|(name, raw)| (name.clone(), widen(&raw.to_f32().unwrap().data)))
            .collect();
        for layer in 0..config.layers {
            for matrix in Matrix::ALL {
                let data = widen(model.matrix(layer, matrix).unwrap());
                tensors.insert(matrix.tensor_name(layer), data);
            }
        }
        Self { config, tensors }
    }

    /// Mean negative log-likelihood of a window: all its tokens but the last are read, all but the first predicted.
    pub fn loss(&self, window: &[u32], nudge: Option<Nudge>) -> f64 {
        let c = self.config;
        let embedding = &self.tensors["model.embed_tokens.weight"];
        let head = self.tensors.get("lm_head.weight").unwrap_or(embedding);
        let (read, targets) = (&window[..window.len() - 1], &window[1..]);
        let mut x: Vec<Vec<f64>> = read
            .iter()
            .map(|&token| embedding[token as usize * c.hidden..][..c.hidden].to_vec())
            .collect();
        for repetition in 0..c.repetitions {
            for layer in 0..c.layers {
                self.layer(repetition, layer, &mut x, nudge);
            }
        }
        let mut loss = 0.0;
        for (row, &target) in x.iter().zip(targets) {
            let normed = self.rms_norm(row, "model.norm.weight");
            let logits = product(head, &normed);
            let largest = logits.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
            loss += total.ln() + largest - logits[target as usize];
        }
        loss / targets.len() as f64
    }

    fn layer(&self, repetition: usize, layer: usize, x: &mut [Vec<f64>], nudge: Option<Nudge>) {
        let c = self.config;
        let matrix = |matrix: Matrix| &self.tensors[&matrix.tensor_name(layer)];
        let norm = |name: &str| format!("model.layers.{layer}.{name}.weight");
        let seen = |matrix: Matrix, token: usize, mut input: Vec<f64>| {
            let site = Site {
                repetition,
                layer,
                input: matrix.input(),
            };
            if let Some(nudge) = nudge.filter(|nudge| nudge.site == site && nudge.token == token) {
                input[nudge.channel] += nudge.amount;
            }
            input
        };
        let (mut queries, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (token, row) in x.iter().enumerate() {
            let normed = self.rms_norm(row, &norm("input_layernorm"));
            let input = seen(Matrix::Query, token, normed);
            queries.push(self.rotate(token, product(matrix(Matrix::Query), &input)));
            keys.push(self.rotate(token, product(matrix(Matrix::Key), &input)));
            values.push(product(matrix(Matrix::Value), &input));
        }
        for token in 0..x.len() {
            let mut mixed = vec![0.0; c.heads * c.head_width];
            for head in 0..c.heads {
                let own = head * c.head_width;
                let shared = head / (c.heads / c.kv_heads) * c.head_width;
                let weights: Vec<f64> = keys[..=token]
                    .iter()
                    .map(|key| {
                        let query = &queries[token][own..own + c.head_width];
                        let key = &key[shared..shared + c.head_width];
                        (dot(query, key) / (c.head_width as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&values) {
                    for i in 0..c.head_width {
                        mixed[own + i] += weight / total * value[shared + i];
                    }
                }
            }
            let mixed = seen(Matrix::Output, token, mixed);
            add(&mut x[token], &product(matrix(Matrix::Output), &mixed));
        }
        for (token, row) in x.iter_mut().enumerate() {
            let normed = self.rms_norm(row, &norm("post_attention_layernorm"));
            let input = seen(Matrix::Gate, token, normed);
            let gate = product(matrix(Matrix::Gate), &input);
            let up = product(matrix(Matrix::Up), &input);
            let hidden = gate
                .iter()
                .zip(up)
                .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                .collect();
            let hidden = seen(Matrix::Down, token, hidden);
            add(row, &product(matrix(Matrix::Down), &hidden));
        }
    }

    fn rms_norm(&self, x: &[f64], weight: &str) -> Vec<f64> {
        let mean = dot(x, x) / x.len() as f64;
        let root = (mean + f64::from(self.config.rms_eps)).sqrt();
        x.iter()
            .zip(&self.tensors[weight])
            .map(|(x, w)| x / root * w)
            .collect()
    }

    fn rotate(&self, position: usize, mut row: Vec<f64>) -> Vec<f64> {
        let half = self.config.head_width / 2;
        for head in row.chunks_exact_mut(2 * half) {
            for i in 0..half {
                let exponent = 2.0 * i as f64 / (2 * half) as f64;
                let angle = position as f64 / f64::from(self.config.rope_base).powf(exponent);
                let (sine, cosine) = angle.sin_cos();
                let (low, high) = (head[i], head[i + half]);
                head[i] = low * cosine - high * sine;
                head[i + half] = high * cosine + low * sine;
            }
        }
        row
    }
}

/// Matrix (outputs × inputs) times vector.
fn product(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix
        .chunks_exact(x.len())
        .map(|row| dot(row, x))
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let ((a, rest_a), (b, rest_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            lanes[i] += a[i] * b[i];
        }
    }
    let rest: f64 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f64>() + rest
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
