//! GGUF's architecture `llama`: its names, its order of rows and its configuration, and what of it is supported.

use std::collections::BTreeMap;

use golden::model::ConfigHints;

use crate::gguf::Value;

/// The one architecture of GGUF files that the engine runs.
pub(crate) const ARCHITECTURE: &str = "llama";

/// What a tensor of the file is to the model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// A tensor with Hugging Face's name for it.
    Named(String, Rows),
    /// The factor of another tensor's elements, with Hugging Face's name of that tensor.
    ScaleOf(String),
    /// The scale that an activation would be quantized with; the engine has its own.
    InputScale,
}

/// Order of a matrix's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rows {
    /// As the engine wants them.
    AsStored,
    /// Queries, interleaved for the rotary embedding: element 2j and 2j + 1 of a head form a pair.
    Queries,
    /// Keys, likewise.
    Keys,
}

/// Hugging Face's name of a ggml tensor name; `None` if a llama model that the engine runs has no such tensor.
pub(crate) fn role(name: &str) -> Option<Role> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let (target, rows) = match stem {
        "token_embd" => ("model.embed_tokens.weight".to_owned(), Rows::AsStored),
        "output" => ("lm_head.weight".to_owned(), Rows::AsStored),
        "output_norm" => ("model.norm.weight".to_owned(), Rows::AsStored),
        _ => {
            let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
            let (part, rows) = match part {
                "attn_norm" => ("input_layernorm", Rows::AsStored),
                "attn_q" => ("self_attn.q_proj", Rows::Queries),
                "attn_k" => ("self_attn.k_proj", Rows::Keys),
                "attn_v" => ("self_attn.v_proj", Rows::AsStored),
                "attn_output" => ("self_attn.o_proj", Rows::AsStored),
                "ffn_norm" => ("post_attention_layernorm", Rows::AsStored),
                "ffn_gate" => ("mlp.gate_proj", Rows::AsStored),
                "ffn_up" => ("mlp.up_proj", Rows::AsStored),
                "ffn_down" => ("mlp.down_proj", Rows::AsStored),
                _ => return None,
            };
            // The number in its one spelling, so that no two names become one.
            let number: u32 = layer.parse().ok()?;
            (number.to_string() == layer)
                .then(|| (format!("model.layers.{layer}.{part}.weight"), rows))?
        }
    };
    match suffix {
        "weight" => Some(Role::Named(target, rows)),
        "scale" => Some(Role::ScaleOf(target)),
        "input_scale" => Some(Role::InputScale),
        _ => None,
    }
}

/// Head counts and the other figures of the metadata, or why the engine can't run the model.
///
/// # Errors
/// Names what was found and what is supported.
pub(crate) fn hints(metadata: &BTreeMap<String, Value>) -> Result<ConfigHints, String> {
    let key = |name: &str| format!("{ARCHITECTURE}.{name}");
    let value = |name: &str| metadata.get(&key(name));
    let integer = |name: &str| -> Result<Option<usize>, String> {
        match value(name) {
            None => Ok(None),
            Some(Value::Integer(n)) => usize::try_from(*n)
                .ok()
                .filter(|&n| n < 1 << 32)
                .map(Some)
                .ok_or_else(|| format!("`{}` is {n}", key(name))),
            Some(Value::Integers(_)) => Err(format!(
                "`{}` differs from layer to layer; the same for all is expected",
                key(name)
            )),
            Some(other) => Err(format!(
                "`{}`: expected an integer, found {other:?}",
                key(name)
            )),
        }
    };
    let float = |name: &str| -> Result<Option<f32>, String> {
        match value(name) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x as f32)),
            Some(other) => Err(format!(
                "`{}`: expected a number, found {other:?}",
                key(name)
            )),
        }
    };
    let heads = integer("attention.head_count")?
        .filter(|&heads| heads > 0)
        .ok_or_else(|| format!("`{}` is missing", key("attention.head_count")))?;
    let kv_heads = integer("attention.head_count_kv")?.unwrap_or(heads);
    if kv_heads == 0 {
        return Err(format!("`{}` is 0", key("attention.head_count_kv")));
    }

    match value("rope.scaling.type") {
        None => {}
        Some(Value::Text(kind)) if kind == "none" => {}
        Some(kind) => {
            return Err(format!(
                "rope scaling {kind:?}; models without rope scaling are supported"
            ));
        }
    }
    for factor in ["rope.scaling.factor", "rope.scale_linear"] {
        if let Some(x) = float(factor)?
            && x != 1.0
            && x != 0.0
        {
            return Err(format!(
                "rope scaling by {x}; models without rope scaling are supported"
            ));
        }
    }
    if let Some(experts) = integer("expert_count")?.filter(|&experts| experts > 0) {
        return Err(format!(
            "{experts} experts; models with one feed-forward layer each are supported"
        ));
    }
    let context = integer("context_length")?;
    if let Some(window) = integer("attention.sliding_window")?.filter(|&window| window > 0)
        && context.is_none_or(|context| window < context)
    {
        return Err(format!(
            "attention within a sliding window of {window} tokens; full attention is supported"
        ));
    }
    if value("attention.causal") == Some(&Value::Bool(false)) {
        return Err("attention that is not causal".into());
    }
    for scale in [
        "attention.scale",
        "embedding_scale",
        "residual_scale",
        "logit_scale",
    ] {
        if let Some(x) = float(scale)?
            && x != 0.0
        {
            return Err(format!(
                "`{}` = {x}; models without it are supported",
                key(scale)
            ));
        }
    }
    // What the engine takes a head's width to be, against what the file says of it.
    if let Some(width) = integer("embedding_length")? {
        let head_width = match integer("attention.key_length")? {
            Some(length) => length,
            None => width / heads,
        };
        if let Some(value_length) = integer("attention.value_length")?
            && value_length != head_width
        {
            return Err(format!(
                "keys {head_width} wide and values {value_length}; the same width is supported"
            ));
        }
        if let Some(rotated) = integer("rope.dimension_count")?
            && rotated != head_width
        {
            return Err(format!(
                "a rotary embedding of {rotated} of a head's {head_width} elements; one of all is supported"
            ));
        }
    }
    Ok(ConfigHints {
        heads: Some(heads),
        kv_heads: Some(kv_heads),
        repetitions: None,
        context,
        // ggml's default where the metadata says nothing.
        rope_base: Some(float("rope.freq_base")?.unwrap_or(10000.0)),
        rms_eps: Some(
            float("attention.layer_norm_rms_epsilon")?.ok_or_else(|| {
                format!("`{}` is missing", key("attention.layer_norm_rms_epsilon"))
            })?,
        ),
    })
}

/// Where row `row` of the half-split order stands among rows interleaved for the rotary embedding.
///
/// A head of width w keeps the partners of its rotation at 2j and 2j + 1; the engine wants them at j and j + w/2.
pub(crate) const fn interleaved_row(row: usize, head_width: usize) -> usize {
    let (head, within) = (row / head_width, row % head_width);
    let half = head_width / 2;
    head * head_width + 2 * (within % half) + within / half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_eight_is_unshuffled() {
        let order: Vec<usize> = (8..16).map(|row| interleaved_row(row, 8)).collect();
        assert_eq!(order, [8, 10, 12, 14, 9, 11, 13, 15]);
    }

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(
            role("blk.12.attn_k.weight"),
            Some(Role::Named(
                "model.layers.12.self_attn.k_proj.weight".into(),
                Rows::Keys
            ))
        );
        assert_eq!(role("blk.012.attn_k.weight"), None);
        assert_eq!(role("blk.+1.attn_k.weight"), None);
        assert_eq!(role("blk.0.attn_q.bias"), None);
        assert_eq!(role("rope_freqs.weight"), None);
    }
}
