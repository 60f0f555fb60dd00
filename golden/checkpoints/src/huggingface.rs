//! Hugging Face's side: safetensors headers, the index of shards, `config.json`, and what each tensor is to the model.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use golden::model::ConfigHints;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::CheckpointError;

/// Longest JSON that is read: the `safetensors` crate's own bound on a header.
const MAX_JSON: u64 = 100_000_000;

/// A tensor of a safetensors file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SafeTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Where its bytes start in the file.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// The tensors of a safetensors file of `length` bytes and the texts of its metadata, without the data.
pub(crate) fn safetensors_header(
    path: &Path,
    reader: impl Read,
    length: u64,
) -> Result<(Vec<SafeTensor>, BTreeMap<String, String>), CheckpointError> {
    parse_header(reader, length).map_err(|reason| CheckpointError::Format {
        path: path.into(),
        reason: format!("not a safetensors file that can be read: {reason}"),
    })
}

fn parse_header(
    mut reader: impl Read,
    length: u64,
) -> Result<(Vec<SafeTensor>, BTreeMap<String, String>), String> {
    let mut bytes = [0; 8];
    reader
        .read_exact(&mut bytes)
        .map_err(|_| "it is shorter than the 8 bytes of its header's length")?;
    let header_length = u64::from_le_bytes(bytes);
    let data_length = length
        .checked_sub(8)
        .and_then(|rest| rest.checked_sub(header_length))
        .filter(|_| header_length <= MAX_JSON)
        .ok_or_else(|| {
            format!("its header of {header_length} bytes is longer than the file or {MAX_JSON}")
        })?;
    let mut header = Vec::new();
    reader
        .take(header_length)
        .read_to_end(&mut header)
        .map_err(|e| e.to_string())?;
    // The crate checks that the tensors lie one behind the other and are as long as their shapes say.
    let header: Metadata = serde_json::from_slice(&header).map_err(|e| e.to_string())?;
    if header.data_len() as u64 != data_length {
        return Err(format!(
            "its tensors have {} bytes, the file has {data_length} behind its header",
            header.data_len()
        ));
    }
    let start = 8 + header_length;
    let tensors = header
        .tensors()
        .into_iter()
        .map(|(name, info)| SafeTensor {
            name,
            dtype: info.dtype,
            shape: info.shape.clone(),
            offset: start + info.data_offsets.0 as u64,
            bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
        })
        .collect();
    let texts = header.metadata().clone().unwrap_or_default();
    Ok((tensors, texts.into_iter().collect()))
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
pub(crate) struct Index {
    /// The shard of each tensor.
    pub(crate) weight_map: BTreeMap<String, String>,
}

/// A JSON file of bounded length.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, CheckpointError> {
    let read = |source| CheckpointError::Read {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let format = |reason| CheckpointError::Format {
        path: path.into(),
        reason,
    };
    if length > MAX_JSON {
        return Err(format(format!(
            "JSON of {length} bytes; at most {MAX_JSON} are read"
        )));
    }
    let mut bytes = Vec::new();
    file.take(MAX_JSON).read_to_end(&mut bytes).map_err(read)?;
    serde_json::from_slice(&bytes).map_err(|e| format(e.to_string()))
}

/// What a tensor is to a model of the Llama family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// One that the engine reads.
    Weight,
    /// One that it can do without.
    Ignored,
    /// One that a model which it can run doesn't have.
    Foreign,
}

/// Tells by its name what a tensor is. Scales of weights are not among them: they have been joined with the weights.
pub(crate) fn part(name: &str) -> Part {
    const OF_LAYER: [&str; 9] = [
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
        "self_attn.o_proj.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
    ];
    // Frequencies follow from the configuration; the engine chooses the scales of activations itself.
    const IGNORED: [&str; 6] = [
        "rotary_emb.inv_freq",
        "input_scale",
        "input_global_scale",
        "k_scale",
        "v_scale",
        "q_scale",
    ];
    let of_layer = name
        .strip_prefix("model.layers.")
        .and_then(|rest| rest.split_once('.'))
        .is_some_and(|(layer, part)| layer.parse::<u32>().is_ok() && OF_LAYER.contains(&part));
    if of_layer
        || [
            "model.embed_tokens.weight",
            "model.norm.weight",
            "lm_head.weight",
        ]
        .contains(&name)
    {
        Part::Weight
    } else if IGNORED.iter().any(|end| {
        name.strip_suffix(end)
            .is_some_and(|stem| stem.ends_with('.'))
    }) {
        Part::Ignored
    } else {
        Part::Foreign
    }
}

/// What `config.json` says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Configuration {
    pub(crate) hints: ConfigHints,
    /// Whether the embedding is the head.
    pub(crate) tied: bool,
    /// Width of a head, where it is given.
    pub(crate) head_width: Option<usize>,
}

/// Model types that the engine runs, each with its class.
const FAMILY: [(&str, &[&str]); 2] = [
    ("llama", &["LlamaForCausalLM", "LLaMAForCausalLM"]),
    ("mistral", &["MistralForCausalLM"]),
];

/// Reads `config.json`.
///
/// # Errors
/// Names what was found and what is supported.
pub(crate) fn configuration(json: &Map<String, Value>) -> Result<Configuration, String> {
    let config = Fields(json);
    let model_type = config.text("model_type")?.unwrap_or_default();
    let (_, classes) = FAMILY
        .iter()
        .find(|(name, _)| *name == model_type)
        .ok_or_else(|| {
            format!(
                "model_type `{model_type}`; supported: {}",
                FAMILY.map(|(name, _)| name).join(", ")
            )
        })?;
    if let Some(names) = json.get("architectures").and_then(Value::as_array)
        && let Some(name) = names
            .iter()
            .find(|name| !name.as_str().is_some_and(|name| classes.contains(&name)))
    {
        return Err(format!(
            "architecture {name}; supported: {}",
            classes.join(", ")
        ));
    }
    for (key, what) in [
        ("attention_bias", "biases of the attention"),
        ("mlp_bias", "biases of the feed-forward layers"),
        ("rope_interleaved", "an interleaved rotary embedding"),
    ] {
        if config.flag(key)? == Some(true) {
            return Err(format!("{what}; models without are supported"));
        }
    }
    if let Some(activation) = config.text("hidden_act")?
        && !["silu", "swish"].contains(&activation)
    {
        return Err(format!("activation `{activation}`; `silu` is supported"));
    }
    if let Some(factor) = config.number("partial_rotary_factor")?
        && factor != 1.0
    {
        return Err(format!(
            "a rotary embedding of {factor} of each head; one of the whole is supported"
        ));
    }
    let context = config.count("max_position_embeddings")?.unwrap_or(2048);
    // Mistral's class takes 4096 where its file says nothing.
    let window = match json.get("sliding_window") {
        None if model_type == "mistral" => Some(4096),
        _ => config.count("sliding_window")?,
    };
    if let Some(window) = window
        && window < context
        && config.flag("use_sliding_window")? != Some(false)
    {
        return Err(format!(
            "attention within a sliding window of {window} tokens; full attention is supported"
        ));
    }
    if let Some(kind) = json
        .get("layer_types")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|kind| kind.as_str() != Some("full_attention"))
    {
        return Err(format!(
            "layers of type {kind}; full attention is supported"
        ));
    }

    // Newer files have all of the rotary embedding in one place.
    let mut rope_base = config.number("rope_theta")?;
    for place in ["rope_scaling", "rope_parameters"] {
        let rope = match json.get(place) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(rope)) => rope,
            Some(other) => return Err(format!("`{place}`: expected an object, found {other}")),
        };
        let fields = Fields(rope);
        let kind = match fields.text("rope_type")? {
            Some(kind) => kind,
            None => fields.text("type")?.unwrap_or("default"),
        };
        if kind != "default" {
            return Err(format!(
                "rope scaling `{kind}`; models without rope scaling are supported"
            ));
        }
        if let Some((key, _)) = rope
            .iter()
            .find(|(key, value)| value.is_object() || *key == "factor")
        {
            return Err(format!(
                "`{place}` with `{key}`; one rotary embedding without scaling is supported"
            ));
        }
        if let Some(factor) = fields.number("partial_rotary_factor")?
            && factor != 1.0
        {
            return Err(format!(
                "a rotary embedding of {factor} of each head; one of the whole is supported"
            ));
        }
        rope_base = fields.number("rope_theta")?.or(rope_base);
    }
    if let Some(Value::Object(quantization)) = json.get("quantization_config") {
        quantization_supported(&Fields(quantization))?;
    }
    let heads = config
        .count("num_attention_heads")?
        .filter(|&heads| heads > 0)
        .ok_or("`num_attention_heads` is missing")?;
    let kv_heads = match config.count("num_key_value_heads")? {
        Some(count) => count,
        None if model_type == "llama" => heads,
        None => return Err("`num_key_value_heads` is missing".into()),
    };
    Ok(Configuration {
        hints: ConfigHints {
            heads: Some(heads),
            kv_heads: Some(kv_heads),
            repetitions: None,
            context: Some(context),
            rope_base: Some(rope_base.unwrap_or(10000.0) as f32),
            rms_eps: Some(config.number("rms_norm_eps")?.unwrap_or(1e-6) as f32),
        },
        tied: config.flag("tie_word_embeddings")?.unwrap_or(false),
        head_width: config.count("head_dim")?,
    })
}

/// Whether weights that are quantized in this way can be decoded. Which tensors are, their names and types tell.
fn quantization_supported(config: &Fields<'_>) -> Result<(), String> {
    const SUPPORTED: &str = "supported: compressed-tensors' `nvfp4-pack-quantized` and `float-quantized`, modelopt's NVFP4 and FP8";
    let refuse = |what: String| Err(format!("quantization {what}; {SUPPORTED}"));
    let method = config.text("quant_method")?.unwrap_or_default();
    match method {
        "compressed-tensors" => {
            if config.0.get("transform_config").is_some_and(|transform| {
                transform
                    .as_object()
                    .is_some_and(|transform| !transform.is_empty())
            }) {
                return refuse("with transforms of the weights".into());
            }
            match config.text("format")? {
                None
                | Some("nvfp4-pack-quantized" | "float-quantized" | "mixed-precision" | "dense") => {
                    Ok(())
                }
                Some(format) => refuse(format!("format `{format}`")),
            }
        }
        "modelopt" | "modelopt_fp4" => match config.text("quant_algo")? {
            None | Some("NVFP4" | "W4A16_NVFP4" | "FP8" | "MIXED_PRECISION") => Ok(()),
            Some(algorithm) => refuse(format!("algorithm `{algorithm}`")),
        },
        // One scale for each weight, or for each of its rows; blocks of 128 × 128 are refused where their scale is met.
        "fp8" | "fbgemm_fp8" => Ok(()),
        other => refuse(format!("method `{other}`")),
    }
}

/// Fields of a JSON object, each of its type or absent; null is absent.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => convert(value)
                .map(Some)
                .ok_or_else(|| format!("`{key}`: expected {expected}, found {value}")),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        self.get(key, "a text", Value::as_str)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.get(key, "true or false", Value::as_bool)
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        self.get(key, "a number", Value::as_f64)
    }

    fn count(&self, key: &str) -> Result<Option<usize>, String> {
        self.get(key, "a number of things", |value| {
            value
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .filter(|&n| n < 1 << 32)
        })
    }
}
