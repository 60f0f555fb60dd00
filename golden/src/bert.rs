//! BERT encoders of sentences: tokens to one vector of length 1, so that sentences that say the same lie close.
//!
//! Learned positions, attention to all tokens, layer norm behind each half of a layer, GELU with the error function; the mean over the tokens. FP32, weights as files hold them.
//!
//! Sentences are run many at once, their tokens one behind the other without padding. A sentence's vector has the same bits whatever it is run with.

use rayon::prelude::*;

use crate::gemm::{View, multiply_plain, multiply_transposed};

/// Shape of an encoder.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Config {
    /// Width of the residual stream, and dimensions of a sentence's vector.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of the attention; divides `hidden`.
    pub heads: usize,
    /// Width of the feed-forward layers.
    pub ffn: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Most tokens of a sentence, those at its ends included.
    pub positions: usize,
    /// Segments of a text that have embeddings of their own; all of a sentence is in the first.
    pub segments: usize,
    /// Added to the variance in layer norms.
    pub norm_eps: f32,
}

/// Why sentences can't be encoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BertError {
    /// Extents that no encoder has.
    #[error("the encoder's configuration: {0}")]
    Config(String),
    /// A tensor that is not as long as its shape.
    #[error("tensor {name}: expected {expected} elements, found {found}")]
    Length {
        /// The tensor.
        name: String,
        /// Elements of its shape.
        expected: usize,
        /// Elements that were given.
        found: usize,
    },
    /// A token that the vocabulary doesn't have.
    #[error("sentence {sentence}: token {token} is outside the vocabulary of {vocabulary}")]
    Token {
        /// Which sentence.
        sentence: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A sentence without tokens, or with too many.
    #[error("sentence {sentence}: it has {tokens} tokens, from 1 to {most} are encoded")]
    Tokens {
        /// Which sentence.
        sentence: usize,
        /// Its tokens.
        tokens: usize,
        /// The most that there are positions for.
        most: usize,
    },
    /// The weights are not finite, or too large.
    #[error("sentence {0}: its vector is not finite; the encoder's weights are wrong")]
    NotFinite(usize),
}

/// A matrix, outputs × inputs, and what is added to its products.
#[derive(Clone, Debug)]
struct Linear {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Gains and offsets of a layer norm.
#[derive(Clone, Debug)]
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f64,
}

#[derive(Clone, Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    ffn_norm: Norm,
}

/// An encoder.
#[derive(Clone, Debug)]
pub struct Bert {
    config: Config,
    words: Vec<f32>,
    /// The first segment's embedding is added to each.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

/// Rows that a thread encodes at a time: enough for the matrix product, few enough for caches.
const ROWS: usize = 256;

impl Bert {
    /// Takes the tensors that `tensor` gives in FP32, row-major, by the names of Hugging Face's `BertModel`; it is told which shape is expected.
    ///
    /// # Errors
    /// The configuration contradicts itself, a tensor is not as long as its shape, or `tensor` has an error.
    pub fn new<E: From<BertError>>(
        config: Config,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        check(&config)?;
        let Config {
            hidden,
            ffn,
            norm_eps,
            ..
        } = config;
        let take = &mut |name: &str, shape: &[usize]| {
            let data = tensor(name, shape)?;
            let expected = shape.iter().product();
            if data.len() == expected {
                return Ok(data);
            }
            Err(E::from(BertError::Length {
                name: name.into(),
                expected,
                found: data.len(),
            }))
        };
        let words = take(
            "embeddings.word_embeddings.weight",
            &[config.vocabulary, hidden],
        )?;
        let mut positions = take(
            "embeddings.position_embeddings.weight",
            &[config.positions, hidden],
        )?;
        let segments = take(
            "embeddings.token_type_embeddings.weight",
            &[config.segments, hidden],
        )?;
        for row in positions.chunks_exact_mut(hidden) {
            add(row, &segments);
        }
        let norm = Norm::take(take, "embeddings", hidden, norm_eps)?;
        let mut layers = Vec::new();
        for layer in 0..config.layers {
            let of = |part: &str| format!("encoder.layer.{layer}.{part}");
            layers.push(Layer {
                query: Linear::take(take, &of("attention.self.query"), hidden, hidden)?,
                key: Linear::take(take, &of("attention.self.key"), hidden, hidden)?,
                value: Linear::take(take, &of("attention.self.value"), hidden, hidden)?,
                output: Linear::take(take, &of("attention.output.dense"), hidden, hidden)?,
                attention_norm: Norm::take(take, &of("attention.output"), hidden, norm_eps)?,
                up: Linear::take(take, &of("intermediate.dense"), ffn, hidden)?,
                down: Linear::take(take, &of("output.dense"), hidden, ffn)?,
                ffn_norm: Norm::take(take, &of("output"), hidden, norm_eps)?,
            });
        }
        Ok(Self {
            config,
            words,
            positions,
            norm,
            layers,
        })
    }

    /// Shape of the encoder.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The vectors of sentences, each the tokens of one with those at its ends: the mean of its tokens' last states, scaled to length 1.
    ///
    /// # Errors
    /// A sentence has no token, too many, or one outside of the vocabulary, or the result is not finite.
    pub fn embed<T: AsRef<[u32]> + Sync>(
        &self,
        sentences: &[T],
    ) -> Result<Vec<Vec<f32>>, BertError> {
        let most = self.config.positions;
        for (index, sentence) in sentences.iter().enumerate() {
            let sentence = sentence.as_ref();
            if sentence.is_empty() || sentence.len() > most {
                return Err(BertError::Tokens {
                    sentence: index,
                    tokens: sentence.len(),
                    most,
                });
            }
            if let Some(&token) = sentence
                .iter()
                .find(|&&token| token as usize >= self.config.vocabulary)
            {
                return Err(BertError::Token {
                    sentence: index,
                    token,
                    vocabulary: self.config.vocabulary,
                });
            }
        }
        let all: usize = sentences.iter().map(|s| s.as_ref().len()).sum();
        // A part for each thread where there is little to do; a product of few rows costs nearly as much as one of some dozens.
        let rows = all
            .div_ceil(rayon::current_num_threads())
            .clamp(ROWS / 4, ROWS);
        let mut parts: Vec<&[T]> = Vec::new();
        let mut rest = sentences;
        while !rest.is_empty() {
            let mut held = 0;
            let count = rest
                .iter()
                .take_while(|sentence| {
                    let first = held == 0;
                    held += sentence.as_ref().len();
                    first || held <= rows
                })
                .count();
            let (part, others) = rest.split_at(count);
            parts.push(part);
            rest = others;
        }
        let vectors: Vec<Vec<f32>> = parts
            .into_par_iter()
            .flat_map_iter(|part| self.encode(part))
            .collect();
        match vectors
            .iter()
            .position(|vector| vector.iter().any(|x| !x.is_finite()))
        {
            Some(sentence) => Err(BertError::NotFinite(sentence)),
            None => Ok(vectors),
        }
    }

    /// Sentences that were checked, in one go.
    fn encode<T: AsRef<[u32]>>(&self, sentences: &[T]) -> Vec<Vec<f32>> {
        let width = self.config.hidden;
        let mut x = Vec::new();
        for sentence in sentences {
            let positions = self.positions.chunks_exact(width);
            for (&token, position) in sentence.as_ref().iter().zip(positions) {
                let word = &self.words[token as usize * width..][..width];
                x.extend(word.iter().zip(position).map(|(word, place)| word + place));
            }
        }
        self.norm.apply(&mut x);
        for layer in &self.layers {
            let [query, key, value] =
                [&layer.query, &layer.key, &layer.value].map(|linear| linear.apply(&x, width));
            let mut mixed = vec![0.0; x.len()];
            let mut start = 0;
            for sentence in sentences {
                let end = start + sentence.as_ref().len() * width;
                let [query, key, value] = [&query, &key, &value].map(|rows| &rows[start..end]);
                self.attend(query, key, value, &mut mixed[start..end]);
                start = end;
            }
            add(&mut x, &layer.output.apply(&mixed, width));
            layer.attention_norm.apply(&mut x);
            let mut inner = layer.up.apply(&x, width);
            inner.iter_mut().for_each(|x| *x = gelu(*x));
            add(&mut x, &layer.down.apply(&inner, self.config.ffn));
            layer.ffn_norm.apply(&mut x);
        }
        let mut rest = x.as_slice();
        sentences
            .iter()
            .map(|sentence| {
                let (rows, others) = rest.split_at(sentence.as_ref().len() * width);
                rest = others;
                unit_mean(rows, width)
            })
            .collect()
    }

    /// Attention of one sentence: every token to every token.
    fn attend(&self, query: &[f32], key: &[f32], value: &[f32], out: &mut [f32]) {
        let stride = self.config.hidden;
        let width = stride / self.config.heads;
        let scale = 1.0 / (width as f32).sqrt();
        let count = query.len() / stride;
        let mut scores = vec![0.0; count * count];
        for column in (0..stride).step_by(width) {
            let [query, key, value] = [query, key, value]
                .map(|rows| View::strided(&rows[column..], count, width, stride));
            multiply_transposed(query, key, &mut scores, count);
            for scores in scores.chunks_exact_mut(count) {
                softmax(scores, scale);
            }
            multiply_plain(
                View::dense(&scores, count),
                value,
                &mut out[column..],
                stride,
            );
        }
    }
}

fn check(config: &Config) -> Result<(), BertError> {
    /// Keeps every product of two extents far below 64 bits.
    const MOST: usize = 1 << 28;
    /// Keeps the attention of a sentence within some hundred MB.
    const MOST_POSITIONS: usize = 1 << 13;
    let extents = [
        ("hidden", config.hidden, MOST),
        ("heads", config.heads, MOST),
        ("ffn", config.ffn, MOST),
        ("vocabulary", config.vocabulary, MOST),
        ("positions", config.positions, MOST_POSITIONS),
        ("segments", config.segments, MOST),
    ];
    if let Some((name, extent, most)) = extents
        .into_iter()
        .find(|(_, extent, most)| !(1..=*most).contains(extent))
    {
        return Err(BertError::Config(format!(
            "{name} is {extent}, it must be from 1 to {most}"
        )));
    }
    if !config.hidden.is_multiple_of(config.heads) {
        return Err(BertError::Config(format!(
            "a width of {} can't be shared among {} heads",
            config.hidden, config.heads
        )));
    }
    if !(config.norm_eps >= 0.0 && config.norm_eps.is_finite()) {
        return Err(BertError::Config(format!(
            "the norms' epsilon is {}, it must not be negative",
            config.norm_eps
        )));
    }
    Ok(())
}

impl Linear {
    fn take<E>(
        tensor: &mut impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<Self, E> {
        Ok(Self {
            weight: tensor(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: tensor(&format!("{name}.bias"), &[outputs])?,
        })
    }

    /// Rows of `width` elements to rows of as many as there are outputs.
    fn apply(&self, x: &[f32], width: usize) -> Vec<f32> {
        let outputs = self.bias.len();
        let rows = View::dense(x, width);
        let mut y = vec![0.0; rows.rows() * outputs];
        multiply_transposed(rows, View::dense(&self.weight, width), &mut y, outputs);
        for row in y.chunks_exact_mut(outputs) {
            add(row, &self.bias);
        }
        y
    }
}

impl Norm {
    fn take<E>(
        tensor: &mut impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
        name: &str,
        width: usize,
        eps: f32,
    ) -> Result<Self, E> {
        Ok(Self {
            weight: tensor(&format!("{name}.LayerNorm.weight"), &[width])?,
            bias: tensor(&format!("{name}.LayerNorm.bias"), &[width])?,
            eps: eps.into(),
        })
    }

    fn apply(&self, x: &mut [f32]) {
        let width = self.weight.len();
        for row in x.chunks_exact_mut(width) {
            let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
            let squares: f64 = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
            let factor = 1.0 / (squares / width as f64 + self.eps).sqrt();
            for ((x, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
                *x = ((f64::from(*x) - mean) * factor) as f32 * weight + bias;
            }
        }
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// x · Φ(x), not its approximation by a hyperbolic tangent.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Softmax of `scale · scores`.
fn softmax(scores: &mut [f32], scale: f32) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = ((*score - largest) * scale).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// The mean of rows, scaled to length 1; zeros stay zeros.
fn unit_mean(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0f64; width];
    for row in rows.chunks_exact(width) {
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    if length == 0.0 {
        return vec![0.0; width];
    }
    // The number of rows falls out.
    sums.iter().map(|sum| (sum / length) as f32).collect()
}
