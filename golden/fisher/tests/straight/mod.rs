//! A second implementation of both models, in FP64 and without gradients: what finite differences are taken of.
//!
//! Straight-through gradients are those of a model in which every quantizer adds what it added at the start, and every
//! rounding too: linear there, so that differences say what the gradient is.

use golden::model::{Config, Input, LanguageModel, Matrix, Model, QuantizedModel, Site};
use half::bf16;

/// An input of linear layers and the products with it, as they were.
type Seen = (Vec<f64>, Vec<Vec<f64>>);

pub struct Pair<'m> {
    full: &'m Model,
    quantized: &'m QuantizedModel,
    /// Decoded, by layer in the order of [`Matrix::ALL`].
    weights: Vec<Vec<Vec<f64>>>,
}

fn widen(data: &[f32]) -> Vec<f64> {
    data.iter().map(|&x| x.into()).collect()
}

/// Of each layer's two norms, then of the final one.
pub fn gains(model: &dyn LanguageModel) -> Vec<Vec<f64>> {
    let trunk = model.trunk();
    let norms = trunk.norms().iter().flatten().map(|gains| widen(gains));
    norms.chain([widen(trunk.final_norm())]).collect()
}

impl<'m> Pair<'m> {
    pub fn new(full: &'m Model, quantized: &'m QuantizedModel) -> Self {
        let decoded = |layer| {
            let decode = |matrix| widen(&quantized.packed(layer, matrix).unwrap().decode());
            Matrix::ALL.map(decode).to_vec()
        };
        Self {
            full,
            quantized,
            weights: (0..full.config().layers).map(decoded).collect(),
        }
    }

    /// Logits of the full model.
    fn expected(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let matrix = |layer, matrix| widen(self.full.matrix(layer, matrix).unwrap());
        logits(self.full, &gains(self.full), tokens, |site, x| {
            let matrices = site.input.matrices().iter();
            matrices
                .map(|&m| product(&matrix(site.layer, m), x))
                .collect()
        })
    }

    /// Logits of the quantized model by the definition, and what its linear layers saw and gave.
    fn start(&self, tokens: &[u32]) -> (Vec<Vec<f64>>, Vec<Seen>) {
        let mut seen = Vec::new();
        let logits = logits(self.quantized, &gains(self.quantized), tokens, |site, x| {
            let quantizer = self.quantized.quantizer(site).unwrap();
            let mut z = vec![0.0; quantizer.padded()];
            let row: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            quantizer.quantize_row(&row, &mut z);
            let products: Vec<Vec<f64>> = site
                .input
                .matrices()
                .iter()
                .map(|&matrix| {
                    let packed = self.quantized.packed(site.layer, matrix).unwrap();
                    let scale = self.quantized.output_scale(site, matrix).unwrap().get();
                    let sums = product(&packed.unscaled_values_f64(), &z).into_iter();
                    sums.map(|sum| bf16::from_f32(sum as f32 * scale).into())
                        .collect()
                })
                .collect();
            seen.push((x.to_vec(), products.clone()));
            products
        });
        (logits, seen)
    }

    /// The loss of windows, as [`fisher::distill`] defines it.
    pub fn loss(&self, windows: &[&[u32]]) -> f64 {
        mean(windows, |tokens| {
            divergence(&self.expected(tokens), &self.start(tokens).0)
        })
    }

    /// The loss by these gains, quantizers and roundings frozen where they are by the model's own.
    pub fn frozen<'a>(&'a self, windows: &'a [&[u32]]) -> impl Fn(&[Vec<f64>]) -> f64 + Sync + 'a {
        let known: Vec<_> = windows
            .iter()
            .map(|tokens| (self.expected(tokens), self.start(tokens).1))
            .collect();
        move |gains| {
            let mut known = known.iter();
            mean(windows, |tokens| {
                let (expected, seen) = known.next().unwrap();
                let mut seen = seen.iter();
                let found = logits(self.quantized, gains, tokens, |site, x| {
                    let (x0, y0) = seen.next().unwrap();
                    let step: Vec<f64> = x.iter().zip(x0).map(|(x, x0)| x - x0).collect();
                    let matrices = site.input.matrices().iter().zip(y0);
                    matrices
                        .map(|(&matrix, y0)| {
                            let weights = &self.weights[site.layer][matrix as usize];
                            let mut y = product(weights, &step);
                            add(&mut y, y0);
                            y
                        })
                        .collect()
                });
                divergence(expected, &found)
            })
        }
    }
}

fn mean(windows: &[&[u32]], mut sum: impl FnMut(&[u32]) -> f64) -> f64 {
    let tokens: usize = windows.iter().map(|tokens| tokens.len()).sum();
    windows.iter().map(|tokens| sum(tokens)).sum::<f64>() / tokens as f64
}

/// Σ p · (ln p − ln q), row by row.
fn divergence(expected: &[Vec<f64>], found: &[Vec<f64>]) -> f64 {
    let logarithms = |row: &[f64]| -> Vec<f64> {
        let total: f64 = row.iter().map(|x| x.exp()).sum();
        row.iter().map(|x| x - total.ln()).collect()
    };
    expected
        .iter()
        .zip(found)
        .map(|(expected, found)| {
            let (p, q) = (logarithms(expected), logarithms(found));
            p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
        })
        .sum()
}

/// A model's logits by these gains; `project` gives the products of each row with the matrices of the site.
fn logits(
    model: &dyn LanguageModel,
    gains: &[Vec<f64>],
    tokens: &[u32],
    mut project: impl FnMut(Site, &[f64]) -> Vec<Vec<f64>>,
) -> Vec<Vec<f64>> {
    let trunk = model.trunk();
    let c = *trunk.config();
    let norm = |x: &[f64], index: usize| -> Vec<f64> {
        let root = (dot(x, x) / x.len() as f64 + f64::from(c.rms_eps)).sqrt();
        x.iter()
            .zip(&gains[index])
            .map(|(x, w)| x / root * w)
            .collect()
    };
    let mut x: Vec<Vec<f64>> = tokens
        .iter()
        .map(|&token| widen(&trunk.embedding()[token as usize * c.hidden..][..c.hidden]))
        .collect();
    for repetition in 0..c.repetitions {
        for layer in 0..c.layers {
            let site = |input| Site {
                repetition,
                layer,
                input,
            };
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (position, x) in x.iter_mut().enumerate() {
                let qkv = project(site(Input::Attention), &norm(x, 2 * layer));
                let query = rotate(&c, position, &qkv[0]);
                keys.push(rotate(&c, position, &qkv[1]));
                values.push(qkv[2].clone());
                let mixed = attention(&c, &query, &keys, &values);
                add(x, &project(site(Input::AttentionOutput), &mixed)[0]);
                let gate_up = project(site(Input::Mlp), &norm(x, 2 * layer + 1));
                let gated: Vec<f64> = gate_up[0]
                    .iter()
                    .zip(&gate_up[1])
                    .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                    .collect();
                add(x, &project(site(Input::MlpDown), &gated)[0]);
            }
        }
    }
    let head = widen(trunk.head());
    x.iter()
        .map(|x| product(&head, &norm(x, 2 * c.layers)))
        .collect()
}

fn rotate(c: &Config, position: usize, row: &[f64]) -> Vec<f64> {
    let half = c.head_width / 2;
    let mut row = row.to_vec();
    for head in row.chunks_exact_mut(2 * half) {
        for i in 0..half {
            let exponent = i as f64 / half as f64;
            let angle = position as f64 / f64::from(c.rope_base).powf(exponent);
            let (low, high) = (head[i], head[i + half]);
            head[i] = low * angle.cos() - high * angle.sin();
            head[i + half] = high * angle.cos() + low * angle.sin();
        }
    }
    row
}

/// The last position's, to all keys.
fn attention(c: &Config, query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>]) -> Vec<f64> {
    let width = c.head_width;
    (0..c.heads)
        .flat_map(|head| {
            let shared = head / (c.heads / c.kv_heads) * width;
            let query = &query[head * width..][..width];
            let weights: Vec<f64> = keys
                .iter()
                .map(|key| (dot(query, &key[shared..][..width]) / (width as f64).sqrt()).exp())
                .collect();
            let total: f64 = weights.iter().sum();
            let mixed = move |i: usize| {
                let terms = weights.iter().zip(values);
                terms.map(|(w, v)| w * v[shared + i]).sum::<f64>() / total
            };
            (0..width).map(mixed).collect::<Vec<_>>()
        })
        .collect()
}

/// Matrix (outputs × inputs) times vector.
fn product(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    let rows = matrix.chunks_exact(x.len());
    rows.map(|row| dot(row, x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
