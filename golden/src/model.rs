//! Llama-style language models: in full precision, and with the exact arithmetic of the hardware.
//!
//! RMSNorm, rotary embedding (half-split), grouped-query attention, SwiGLU, repeated layer groups. The
//! seven matrices of each layer and their inputs are what a scheme quantizes; everything else (embedding,
//! norms, attention products, head) is FP32.

mod calibration;
mod compensation;
mod forward;
mod full;
mod paged;
mod quantized;
mod rows;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use calibration::{Calibration, CalibrationWindows, Capture, GlobalPolicy};
pub use compensation::Compensation;
pub use forward::{KvCache, Tally, Trunk, forward};
pub use full::Model;
pub use paged::{BranchRow, Branches, KvPage, PAGE_TOKENS, PassCounters, PassError, Reserved};
pub use quantized::{QuantizedModel, QuantizedModelError};
pub(crate) use rows::{GroupRow, embed_row, run_group};

use crate::tensors::FileError;

/// Shape of a model.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers that have weights of their own.
    pub layers: usize,
    /// Times that the group of layers is run; each has its own keys and values.
    pub repetitions: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Tokens that the model was trained to see at once.
    pub context: usize,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Added to the mean square in RMSNorm.
    pub rms_eps: f32,
}

impl Config {
    /// Number of sites: inputs of linear layers, counted for each repetition.
    pub const fn sites(&self) -> usize {
        self.repetitions * self.layers * Input::ALL.len()
    }

    /// All sites in the order of [`Site::index`], which is the order of execution.
    pub fn all_sites(self) -> impl Iterator<Item = Site> {
        (0..self.repetitions).flat_map(move |repetition| {
            (0..self.layers).flat_map(move |layer| {
                Input::ALL.into_iter().map(move |input| Site {
                    repetition,
                    layer,
                    input,
                })
            })
        })
    }

    /// Shape of a matrix: outputs × inputs.
    pub const fn matrix_shape(&self, matrix: Matrix) -> [usize; 2] {
        let query = self.heads * self.head_width;
        let kv = self.kv_heads * self.head_width;
        match matrix {
            Matrix::Query => [query, self.hidden],
            Matrix::Key | Matrix::Value => [kv, self.hidden],
            Matrix::Output => [self.hidden, query],
            Matrix::Gate | Matrix::Up => [self.ffn, self.hidden],
            Matrix::Down => [self.hidden, self.ffn],
        }
    }

    /// Elements of a linear layer's input.
    pub const fn input_width(&self, input: Input) -> usize {
        match input {
            Input::Attention | Input::Mlp => self.hidden,
            Input::AttentionOutput => self.heads * self.head_width,
            Input::MlpDown => self.ffn,
        }
    }
}

/// What a model's tensors don't say, or say otherwise. Absent fields are detected.
///
/// Files may carry one in their metadata (`fgmp` → `config`); what a caller gives wins over it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigHints {
    /// Query heads; by default heads are 64 wide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// Key and value heads; by default as many as the key matrix has room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Repetitions of the layers; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetitions: Option<usize>,
    /// Context; 512 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Base of the rotary embedding; 10000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_base: Option<f32>,
    /// RMSNorm's epsilon; 1e-5 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rms_eps: Option<f32>,
}

impl ConfigHints {
    /// These hints, and `other`'s where these have none.
    pub fn or(self, other: Self) -> Self {
        Self {
            heads: self.heads.or(other.heads),
            kv_heads: self.kv_heads.or(other.kv_heads),
            repetitions: self.repetitions.or(other.repetitions),
            context: self.context.or(other.context),
            rope_base: self.rope_base.or(other.rope_base),
            rms_eps: self.rms_eps.or(other.rms_eps),
        }
    }

    /// The hints that reproduce a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            heads: Some(config.heads),
            kv_heads: Some(config.kv_heads),
            repetitions: Some(config.repetitions),
            context: Some(config.context),
            rope_base: Some(config.rope_base),
            rms_eps: Some(config.rms_eps),
        }
    }
}

/// A matrix of a layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Matrix {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Output of the attention.
    Output,
    /// Gate of the feed-forward layer.
    Gate,
    /// Up-projection of the feed-forward layer.
    Up,
    /// Down-projection of the feed-forward layer.
    Down,
}

impl Matrix {
    /// All seven in the order of execution.
    pub const ALL: [Self; 7] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::Gate,
        Self::Up,
        Self::Down,
    ];

    /// The name of this matrix of a layer in model files.
    pub fn tensor_name(self, layer: usize) -> String {
        let part = match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        };
        format!("model.layers.{layer}.{part}.weight")
    }

    /// The input that this matrix multiplies.
    pub const fn input(self) -> Input {
        match self {
            Self::Query | Self::Key | Self::Value => Input::Attention,
            Self::Output => Input::AttentionOutput,
            Self::Gate | Self::Up => Input::Mlp,
            Self::Down => Input::MlpDown,
        }
    }
}

/// An input of linear layers; matrices with the same input share its quantized form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// Of the query, key and value matrices.
    Attention,
    /// Of the attention's output matrix.
    AttentionOutput,
    /// Of the gate and up matrices.
    Mlp,
    /// Of the down matrix.
    MlpDown,
}

impl Input {
    /// All four in the order of execution.
    pub const ALL: [Self; 4] = [
        Self::Attention,
        Self::AttentionOutput,
        Self::Mlp,
        Self::MlpDown,
    ];

    /// The matrices that multiply this input, in the order of [`Matrix::ALL`].
    pub const fn matrices(self) -> &'static [Matrix] {
        match self {
            Self::Attention => &[Matrix::Query, Matrix::Key, Matrix::Value],
            Self::AttentionOutput => &[Matrix::Output],
            Self::Mlp => &[Matrix::Gate, Matrix::Up],
            Self::MlpDown => &[Matrix::Down],
        }
    }
}

/// One input of linear layers in one repetition: what has a tensor scale, a threshold and sensitivities of its own.
///
/// Repetitions share their weights but not their activations' ranges, so each is calibrated by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct Site {
    /// Which run of the layer group.
    pub repetition: usize,
    /// Which layer of the group.
    pub layer: usize,
    /// Which input of the layer.
    pub input: Input,
}

impl Site {
    /// Position in the order of execution.
    pub const fn index(self, config: &Config) -> usize {
        (self.repetition * config.layers + self.layer) * Input::ALL.len() + self.input as usize
    }
}

/// Why a model can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// Tensor shapes and configuration contradict one another.
    #[error("the model's configuration: {0}")]
    Config(String),
    /// A token that the vocabulary doesn't have.
    #[error("token {token} at position {position} is outside the vocabulary of {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// Its position among those given.
        position: usize,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
}

/// A model that [`forward`] can run: the unquantized trunk and the linear layers.
pub trait LanguageModel: Sync {
    /// Embedding, norms and configuration.
    fn trunk(&self) -> &Trunk;

    /// The products of the rows of `x` with the matrices of the site, in the order of [`Input::matrices`].
    ///
    /// `x` holds rows of [`Config::input_width`] elements.
    fn project(&self, site: Site, x: &[f32], tally: &mut Tally) -> Vec<Vec<f32>>;

    /// The same for rows of several repetitions, which share the weights: `repetitions` names each row's.
    ///
    /// A row's products have the bits that [`LanguageModel::project`] gives it. Models that can fetch their weights once for all rows do so; by default each repetition is by itself.
    fn project_rows(
        &self,
        layer: usize,
        input: Input,
        repetitions: &[usize],
        x: &[f32],
        tally: &mut Tally,
    ) -> Vec<Vec<f32>> {
        let width = self.trunk().config().input_width(input);
        let mut products = vec![Vec::new(); input.matrices().len()];
        let mut rest = x;
        for alike in repetitions.chunk_by(|a, b| a == b) {
            let Some((rows, others)) = rest.split_at_checked(alike.len() * width) else {
                break;
            };
            rest = others;
            let site = Site {
                repetition: alike[0],
                layer,
                input,
            };
            for (all, some) in products.iter_mut().zip(self.project(site, rows, tally)) {
                all.extend(some);
            }
        }
        products
    }
}

/// Detects the configuration from the shapes of a model's tensors, and checks each of them.
fn detect(
    shapes: &BTreeMap<String, Vec<usize>>,
    hints: ConfigHints,
    has_head: bool,
) -> Result<Config, ModelError> {
    let shape = |name: &str| -> Result<&[usize], ModelError> {
        shapes
            .get(name)
            .map(Vec::as_slice)
            .ok_or_else(|| ModelError::Config(format!("tensor {name} is missing")))
    };
    let matrix = |name: &str| -> Result<[usize; 2], ModelError> {
        <[usize; 2]>::try_from(shape(name)?)
            .ok()
            .filter(|extents| extents.iter().all(|&e| e > 0))
            .ok_or_else(|| {
                ModelError::Config(format!("tensor {name} is not a matrix with elements"))
            })
    };
    let [vocabulary, hidden] = matrix(EMBEDDING)?;
    let layers = (0..)
        .take_while(|&layer| shapes.contains_key(&Matrix::Query.tensor_name(layer)))
        .count();
    let [query, _] = matrix(&Matrix::Query.tensor_name(0))?;
    let [kv, _] = matrix(&Matrix::Key.tensor_name(0))?;
    let [ffn, _] = matrix(&Matrix::Gate.tensor_name(0))?;
    let heads = hints.heads.unwrap_or(query / DEFAULT_HEAD_WIDTH);
    let divide = |what: &str, a: usize, b: usize| {
        a.checked_div(b)
            .filter(|quotient| quotient * b == a && *quotient > 0)
            .ok_or_else(|| {
                ModelError::Config(format!(
                    "{what}: {a} is not a multiple of {b}; give the number of heads"
                ))
            })
    };
    let head_width = divide("query rows and heads", query, heads)?;
    let kv_heads = hints
        .kv_heads
        .map_or_else(|| divide("key rows and head width", kv, head_width), Ok)?;
    divide("heads and key/value heads", heads, kv_heads)?;
    let config = Config {
        hidden,
        layers,
        repetitions: hints.repetitions.unwrap_or(1),
        heads,
        kv_heads,
        head_width,
        ffn,
        vocabulary,
        context: hints.context.unwrap_or(DEFAULT_CONTEXT),
        rope_base: hints.rope_base.unwrap_or(DEFAULT_ROPE_BASE),
        rms_eps: hints.rms_eps.unwrap_or(DEFAULT_RMS_EPS),
    };
    let positive = [
        (config.repetitions > 0, "repetitions must be at least 1"),
        (config.context > 0, "the context must be at least 1"),
        (
            config.head_width.is_multiple_of(2),
            "the head width must be even for the rotary embedding",
        ),
        (
            config.rope_base.is_finite() && config.rope_base > 0.0,
            "the rotary embedding's base must be positive",
        ),
        (
            config.rms_eps.is_finite() && config.rms_eps >= 0.0,
            "RMSNorm's epsilon must not be negative",
        ),
        (
            config
                .repetitions
                .checked_mul(config.layers * 4)
                .is_some_and(|sites| sites < 1 << 20),
            "too many repetitions",
        ),
    ];
    if let Some((_, reason)) = positive.iter().find(|(holds, _)| !holds) {
        return Err(ModelError::Config((*reason).into()));
    }
    let expect = |name: &str, expected: &[usize]| {
        let found = shape(name)?;
        if found == expected {
            Ok(())
        } else {
            Err(ModelError::Config(format!(
                "tensor {name}: expected shape {expected:?}, found {found:?}"
            )))
        }
    };
    for layer in 0..layers {
        for matrix in Matrix::ALL {
            expect(&matrix.tensor_name(layer), &config.matrix_shape(matrix))?;
        }
        for norm in norm_names(layer) {
            expect(&norm, &[hidden])?;
        }
    }
    expect(FINAL_NORM, &[hidden])?;
    if has_head {
        expect(HEAD, &[vocabulary, hidden])?;
    }
    Ok(config)
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";
const DEFAULT_HEAD_WIDTH: usize = 64;
const DEFAULT_CONTEXT: usize = 512;
const DEFAULT_ROPE_BASE: f32 = 10000.0;
const DEFAULT_RMS_EPS: f32 = 1e-5;

fn norm_names(layer: usize) -> [String; 2] {
    ["input_layernorm", "post_attention_layernorm"]
        .map(|norm| format!("model.layers.{layer}.{norm}.weight"))
}
