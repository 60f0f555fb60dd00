//! Text to vectors: sentence encoders in the folders that sentence-transformers writes.

use std::path::Path;

use golden::bert::{Bert, BertError, Config};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::Checkpoint;
use crate::error::CheckpointError;
use crate::huggingface::read_json;
use crate::tokenizer::{EncodeError, Tokenizer};

/// An encoder of sentences: BERT, the mean over the tokens, length 1 (all-MiniLM-L6-v2 is one).
///
/// ```no_run
/// use std::path::Path;
/// use checkpoints::Encoder;
///
/// let encoder = Encoder::open(Path::new(".tools/models/all-MiniLM-L6-v2"))?;
/// let vectors = encoder.embed(&["Add 3 and 4 to get 7.", "3 + 4 = 7"])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Encoder {
    bert: Bert,
    tokenizer: Tokenizer,
    /// The tokens before and behind a sentence.
    ends: [u32; 2],
    longest: usize,
}

/// Why texts have no vectors.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EmbedError {
    /// A text can't be cut into tokens.
    #[error("text {text}: {reason}")]
    Encode {
        /// Which text.
        text: usize,
        /// The tokenizer's reason.
        reason: EncodeError,
    },
    /// The network can't encode the tokens.
    #[error(transparent)]
    Bert(#[from] BertError),
}

/// `config.json`.
#[derive(Deserialize)]
struct BertJson {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
}

/// `sentence_bert_config.json`.
#[derive(Deserialize, Default)]
struct SentenceJson {
    max_seq_length: Option<usize>,
    do_lower_case: Option<bool>,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct ModuleJson {
    #[serde(rename = "type")]
    kind: String,
}

/// Flags of `1_Pooling/config.json`, and numbers.
type PoolingJson = serde_json::Map<String, serde_json::Value>;

impl Encoder {
    /// Opens a folder with `model.safetensors`, `config.json` and `tokenizer.json`.
    ///
    /// What `modules.json`, `1_Pooling/config.json` and `sentence_bert_config.json` say is taken, where they are there. Vectors are given length 1 in any case.
    ///
    /// # Errors
    /// A file is missing or wrong, a tensor is missing or has another shape, or the encoder is of another kind.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join("config.json");
        let json: BertJson = read_json(&path)?;
        let unsupported = |path: &Path, reason: String| CheckpointError::Unsupported {
            path: path.into(),
            reason,
        };
        check_kind(&json).map_err(|reason| unsupported(&path, reason))?;
        let pipeline = folder.join("modules.json");
        for module in optional::<Vec<ModuleJson>>(&pipeline)?.unwrap_or_default() {
            const KNOWN: [&str; 3] = ["Transformer", "Pooling", "Normalize"];
            let kind = module.kind.rsplit('.').next().unwrap_or_default();
            if !KNOWN.contains(&kind) {
                return Err(unsupported(
                    &pipeline,
                    format!(
                        "module `{}`; encoders of {} are supported",
                        module.kind,
                        KNOWN.join(", ")
                    ),
                ));
            }
        }
        let pooling = folder.join("1_Pooling").join("config.json");
        for (key, value) in optional::<PoolingJson>(&pooling)?.unwrap_or_default() {
            if let Some(mode) = key.strip_prefix("pooling_mode_")
                && value != serde_json::Value::Bool(mode == "mean_tokens")
            {
                return Err(unsupported(
                    &pooling,
                    format!("`{key}` is {value}; the mean over the tokens alone is supported"),
                ));
            }
        }
        let limits = folder.join("sentence_bert_config.json");
        let sentence = optional::<SentenceJson>(&limits)?.unwrap_or_default();
        if sentence.do_lower_case == Some(true) {
            return Err(unsupported(
                &limits,
                "`do_lower_case`; `tokenizer.json` says how text is changed".into(),
            ));
        }
        let positions = json.max_position_embeddings;
        let longest = sentence.max_seq_length.unwrap_or(positions).min(positions);
        if longest < 3 {
            return Err(unsupported(
                &limits,
                format!("sentences of {longest} tokens; their two ends and one more are needed"),
            ));
        }

        let checkpoint = Checkpoint::open(folder)?;
        let tokenizer = checkpoint
            .tokenizer()?
            .ok_or_else(|| unsupported(folder, "there is no tokenizer.json".into()))?;
        let ends = tokenizer
            .frame()
            .map_err(|e| unsupported(folder, e.to_string()))?;
        let ends = <[u32; 2]>::try_from(ends).map_err(|ends| {
            unsupported(
                folder,
                format!(
                    "the tokenizer makes {} tokens of an empty text; one at each end is supported",
                    ends.len()
                ),
            )
        })?;
        let config = Config {
            hidden: json.hidden_size,
            layers: json.num_hidden_layers,
            heads: json.num_attention_heads,
            ffn: json.intermediate_size,
            vocabulary: json.vocab_size,
            positions,
            segments: json.type_vocab_size.unwrap_or(2),
            norm_eps: json.layer_norm_eps.unwrap_or(1e-12),
        };
        let bert = Bert::new(config, |name, shape| {
            let fault = |reason| {
                OpenError::File(CheckpointError::Tensor {
                    path: checkpoint.path().into(),
                    name: name.into(),
                    reason,
                })
            };
            let missing = || CheckpointError::Missing {
                path: checkpoint.path().into(),
                name: name.into(),
            };
            let info = checkpoint.tensor(name).ok_or_else(missing)?;
            if info.shape != shape {
                return Err(fault(format!(
                    "expected shape {shape:?}, found {:?}",
                    info.shape
                )));
            }
            let data = checkpoint.read_rows(name, 0..info.rows())?;
            if data.iter().any(|x| !x.is_finite()) {
                return Err(fault("it holds a number that is not finite".into()));
            }
            Ok(data)
        })
        .map_err(|error| match error {
            OpenError::File(error) => error,
            OpenError::Bert(error) => unsupported(&path, error.to_string()),
        })?;
        Ok(Self {
            bert,
            tokenizer,
            ends,
            longest,
        })
    }

    /// Dimensions of a vector.
    pub const fn dimensions(&self) -> usize {
        self.bert.config().hidden
    }

    /// Most tokens of a text that are seen, its two ends included; what is behind them is dropped.
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// The tokens of a text with its ends, no more than [`Encoder::longest`].
    ///
    /// # Errors
    /// The tokenizer's own.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        let [first, last] = self.ends;
        let mut tokens = self.tokenizer.encode(text)?;
        tokens.truncate(self.longest - 2);
        tokens.insert(0, first);
        tokens.push(last);
        Ok(tokens)
    }

    /// The vectors of texts, each of length 1. A text's has the same bits whatever others it is given with.
    ///
    /// # Errors
    /// The tokenizer's own, a token that the network doesn't have, or numbers beyond FP32.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let tokens = texts
            .iter()
            .enumerate()
            .map(|(text, content)| {
                self.tokens(content.as_ref())
                    .map_err(|reason| EmbedError::Encode { text, reason })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.bert.embed(&tokens)?)
    }
}

/// What the network or the file has against a tensor.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    File(#[from] CheckpointError),
    #[error(transparent)]
    Bert(#[from] BertError),
}

/// A file that need not be there.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CheckpointError> {
    if path.exists() {
        read_json(path).map(Some)
    } else {
        Ok(None)
    }
}

fn check_kind(json: &BertJson) -> Result<(), String> {
    if json.model_type != "bert" {
        return Err(format!(
            "model_type `{}`; `bert` is supported",
            json.model_type
        ));
    }
    match json.hidden_act.as_deref() {
        None | Some("gelu") => {}
        Some(other) => return Err(format!("activation `{other}`; `gelu` is supported")),
    }
    match json.position_embedding_type.as_deref() {
        None | Some("absolute") => {}
        Some(other) => {
            return Err(format!(
                "position_embedding_type `{other}`; `absolute` is supported"
            ));
        }
    }
    if json.is_decoder == Some(true) {
        return Err("a decoder; encoders are supported".into());
    }
    Ok(())
}
