//! Text to tokens: `tokenizer.json` files, and the byte-level BPE vocabularies of GGUF files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::error::CheckpointError;
use crate::gguf::Value;

/// A tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer(tokenizers::Tokenizer);

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file can't be read or is no tokenizer.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = fs::read(path).map_err(|source| CheckpointError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(path, &bytes)
    }

    /// Parses the bytes of a `tokenizer.json`; `path` is only used in messages.
    ///
    /// # Errors
    /// The bytes are no tokenizer.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let fault = |reason: String| CheckpointError::Tokenizer {
            path: path.into(),
            reason,
        };
        let mut json: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|e| fault(e.to_string()))?;
        // What a file says of padding and cutting is about batches, not about text as it stands.
        if let Some(object) = json.as_object_mut() {
            object.insert("truncation".into(), serde_json::Value::Null);
            object.insert("padding".into(), serde_json::Value::Null);
        }
        check_merges(&json).map_err(fault)?;
        contained(|| serde_json::from_value(json).map_err(|e| e.to_string()))
            .map(Self)
            .map_err(fault)
    }

    /// The tokens of a text as it stands: none is added at its beginning or end.
    ///
    /// Special tokens that the text spells out, such as `<|endoftext|>`, become the one token.
    ///
    /// # Errors
    /// The tokenizer's own reason.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        contained(|| self.0.encode_fast(text, false).map_err(|e| e.to_string()))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(EncodeError)
    }

    /// The tokens that belong before and behind a text by the file's own template: those of an empty text.
    ///
    /// # Errors
    /// The tokenizer's own reason.
    pub(crate) fn frame(&self) -> Result<Vec<u32>, EncodeError> {
        contained(|| self.0.encode_fast("", true).map_err(|e| e.to_string()))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(EncodeError)
    }

    /// Text of tokens, special ones included.
    ///
    /// # Errors
    /// The tokenizer's own reason.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, EncodeError> {
        contained(|| self.0.decode(tokens, false).map_err(|e| e.to_string())).map_err(EncodeError)
    }

    /// Tokens that stand for no text, such as `<|endoftext|>`.
    pub fn special(&self) -> BTreeSet<u32> {
        let added = self.0.get_added_tokens_decoder();
        let special = added.into_iter().filter(|(_, token)| token.special);
        special.map(|(id, _)| id).collect()
    }

    /// Number of tokens, special ones included.
    pub fn vocabulary(&self) -> usize {
        self.0.get_vocab_size(true)
    }
}

/// Why a text can't be encoded, or tokens can't be decoded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("tokenizer: {0}")]
pub struct EncodeError(String);

/// Runs a part of the `tokenizers` crate, which panics on some malformed files (a broken `precompiled_charsmap` is one).
fn contained<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // Nothing that was half changed is used afterwards: a tokenizer under construction is dropped, a finished one only read.
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err("the `tokenizers` crate failed on it".into()))
}

/// The `tokenizers` crate copies a merge's two parts into a buffer as long as the longest token and cuts the prefix off the
/// second, both without looking: every merge must therefore give a token.
fn check_merges(json: &serde_json::Value) -> Result<(), String> {
    let model = json.get("model");
    let Some(merges) = model.and_then(|m| m.get("merges")?.as_array()) else {
        return Ok(());
    };
    let Some(vocabulary) = model.and_then(|m| m.get("vocab")?.as_object()) else {
        return Ok(());
    };
    let prefix = model
        .and_then(|m| m.get("continuing_subword_prefix")?.as_str())
        .unwrap_or_default();
    for merge in merges {
        let parts = match merge {
            serde_json::Value::String(text) => text.split_once(' '),
            serde_json::Value::Array(pair) => match pair.as_slice() {
                [a, b] => a.as_str().zip(b.as_str()),
                _ => None,
            },
            _ => None,
        };
        let whole = parts.and_then(|(a, b)| Some(format!("{a}{}", b.strip_prefix(prefix)?)));
        if whole.is_none_or(|whole| !vocabulary.contains_key(&whole)) {
            return Err(format!("merge {merge} gives no token of the vocabulary"));
        }
    }
    Ok(())
}

/// What GGUF metadata says of a tokenizer.
#[derive(Clone, Debug)]
pub(crate) struct GgufVocabulary {
    model: String,
    pre: String,
    tokens: Vec<String>,
    kinds: Vec<i64>,
    merges: Vec<String>,
    unknown: Option<usize>,
}

/// Kinds of GGUF tokens that are found in text as a whole.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

impl GgufVocabulary {
    /// Takes the vocabulary out of the metadata; `None` if there is none.
    pub(crate) fn take(metadata: &mut BTreeMap<String, Value>) -> Option<Self> {
        let Some(Value::Text(model)) = metadata.remove("tokenizer.ggml.model") else {
            return None;
        };
        let mut texts = |key: &str| match metadata.remove(key) {
            Some(Value::Texts(texts)) => texts,
            _ => Vec::new(),
        };
        let tokens = texts("tokenizer.ggml.tokens");
        let merges = texts("tokenizer.ggml.merges");
        Some(Self {
            model,
            tokens,
            merges,
            pre: match metadata.remove("tokenizer.ggml.pre") {
                Some(Value::Text(pre)) => pre,
                _ => "default".into(),
            },
            kinds: match metadata.remove("tokenizer.ggml.token_type") {
                Some(Value::Integers(kinds)) => kinds,
                _ => Vec::new(),
            },
            unknown: match metadata.get("tokenizer.ggml.unknown_token_id") {
                Some(Value::Integer(id)) => usize::try_from(*id).ok(),
                _ => None,
            },
        })
    }
}

/// GPT-2's words: contractions, letters, numbers and punctuation with a space before them, spaces.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a text is cut into words before BPE, by the name that GGUF files give it: applied one after the other.
const PRE_TOKENIZERS: [(&str, &[&str]); 4] = [
    ("gpt-2", &[GPT2]),
    ("smollm", &[r"\p{N}", GPT2]),
    ("llama-bpe", &[LLAMA3]),
    (
        "default",
        &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    ),
];

/// Rebuilds a tokenizer.
pub(crate) fn of_gguf(vocabulary: &GgufVocabulary) -> Result<Tokenizer, String> {
    if vocabulary.model != "gpt2" {
        return Err(format!(
            "model `{}`; of GGUF files byte-level BPE (`gpt2`) is read, and any `tokenizer.json`",
            vocabulary.model
        ));
    }
    let (_, patterns) = PRE_TOKENIZERS
        .iter()
        .find(|(name, _)| *name == vocabulary.pre)
        .ok_or_else(|| {
            format!(
                "pre-tokenizer `{}`; those that are read: {}",
                vocabulary.pre,
                PRE_TOKENIZERS.map(|(name, _)| name).join(", ")
            )
        })?;
    if vocabulary.tokens.is_empty() || u32::try_from(vocabulary.tokens.len()).is_err() {
        return Err("it has no tokens".into());
    }
    let ids: tokenizers::models::bpe::Vocab = (0u32..)
        .zip(&vocabulary.tokens)
        .map(|(id, token)| (token.clone(), id))
        .collect();
    if ids.len() != vocabulary.tokens.len() {
        return Err("two tokens are the same".into());
    }
    let merges = vocabulary
        .merges
        .iter()
        .map(|merge| {
            merge
                .split_once(' ')
                // The crate counts on every merge giving a token.
                .filter(|(a, b)| ids.contains_key(format!("{a}{b}").as_str()))
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .ok_or_else(|| format!("merge `{merge}` gives no token of the vocabulary"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut bpe = BPE::builder()
        .vocab_and_merges(ids, merges)
        // Llama 3's words that are tokens are taken as they are.
        .ignore_merges(vocabulary.pre == "llama-bpe");
    if let Some(token) = vocabulary.unknown.and_then(|id| vocabulary.tokens.get(id)) {
        bpe = bpe.unk_token(token.clone());
    }
    let mut tokenizer = tokenizers::Tokenizer::new(bpe.build().map_err(|e| e.to_string())?);

    let mut steps = patterns
        .iter()
        .map(|pattern| {
            Split::new(
                SplitPattern::Regex((*pattern).to_owned()),
                SplitDelimiterBehavior::Isolated,
                false,
            )
            .map(PreTokenizerWrapper::Split)
            .map_err(|e| e.to_string())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let bytes = ByteLevel::new(false, true, false);
    steps.push(PreTokenizerWrapper::ByteLevel(bytes));
    tokenizer
        .with_pre_tokenizer(Some(Sequence::new(steps)))
        .with_decoder(Some(bytes));
    let special = |kind: i64, special: bool| {
        vocabulary
            .tokens
            .iter()
            .zip(&vocabulary.kinds)
            .filter(move |(token, k)| **k == kind && !token.is_empty())
            .map(move |(token, _)| AddedToken::from(token.clone(), special).normalized(false))
    };
    tokenizer
        .add_special_tokens(special(CONTROL, true))
        .and_then(|_| tokenizer.add_tokens(special(USER_DEFINED, false)))
        .map_err(|e| e.to_string())?;
    Ok(Tokenizer(tokenizer))
}
