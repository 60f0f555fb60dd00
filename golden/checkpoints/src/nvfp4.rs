//! NVFP4 checkpoints out: packed tensors in the layouts that inference servers read.
//!
//! Both layouts hold a weight's E2M1 codes two a byte, element of the lower index in the low nibble, and one E4M3 scale a
//! block of 16; they differ in names and in which way round the tensor's scale is (see [`Layout`]).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use golden::format::BLOCK;
use golden::model::Config;
use golden::packed::{PackedFile, PackedTensor, TensorScale};
use golden::tensors::{FileError, RawTensor, write_atomically};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

/// A layout of NVFP4 checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// `weight_packed`, `weight_scale` and `weight_global_scale` = 1/S, which decoding divides by.
    CompressedTensors,
    /// `weight`, `weight_scale` and `weight_scale_2` = S, which decoding multiplies with.
    ModelOpt,
}

/// Why tensors can't be written in a [`Layout`].
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ExportError {
    /// The layouts know FP4 blocks only.
    #[error(
        "tensor {name}: {fp8} of its {blocks} blocks are FP8, which NVFP4 files have no place for; quantize to FP4 alone"
    )]
    Fp8Blocks {
        /// The tensor.
        name: String,
        /// Its FP8 blocks.
        fp8: usize,
        /// All its blocks.
        blocks: usize,
    },
    /// A tensor that is no matrix of whole blocks.
    #[error(
        "tensor {name}: shape {shape:?}; NVFP4 files hold matrices whose rows are whole blocks of 16"
    )]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A name without the ending that readers replace.
    #[error("tensor {0}: its name doesn't end in `.weight`")]
    Name(String),
    /// Two tensors would get the same name.
    #[error("tensor {0}: two tensors would have this name")]
    Twice(String),
    /// A tensor scale whose reciprocal FP32 can't hold.
    #[error("tensor {name}: its scale {scale:e} has no finite reciprocal")]
    Reciprocal {
        /// The tensor.
        name: String,
        /// S.
        scale: f32,
    },
    /// A scale for the input of a tensor that is not packed, or none for one that is while others have one.
    #[error("input scales: {0}")]
    InputScales(String),
    /// Nothing is packed.
    #[error("no tensor is packed")]
    Nothing,
    /// A model that Hugging Face's Llama class can't express.
    #[error("the layers are run {0} times; a Llama `config.json` can't say that")]
    Repetitions(usize),
}

/// A checkpoint in one of the layouts, in memory.
#[derive(Clone, PartialEq, Debug)]
pub struct Export {
    /// Layout of the tensors.
    pub layout: Layout,
    /// The tensors of `model.safetensors`.
    pub tensors: BTreeMap<String, RawTensor>,
    /// What `config.json` has to hold as `quantization_config`.
    pub quantization_config: Value,
    /// modelopt's `hf_quant_config.json`.
    pub hf_quant_config: Option<Value>,
}

/// The FP32 number whose reciprocal is nearest `scale`: `scale` itself wherever FP32 has such a number.
///
/// `None` if it would be zero or infinite.
fn reciprocal(scale: f32) -> Option<f32> {
    let nearest = 1.0 / scale;
    let candidates = [nearest, nearest.next_down(), nearest.next_up()];
    candidates
        .into_iter()
        .find(|candidate| 1.0 / candidate == scale)
        .or(Some(nearest))
        .filter(|candidate| candidate.is_normal())
}

impl Export {
    /// Lays out a packed file. Codes and block scales stay as they are, byte for byte.
    ///
    /// `input_scales` holds S of each packed tensor's input (its largest magnitude over 2688), for readers that
    /// quantize activations too; without any the checkpoint is for weights alone.
    /// In compressed-tensors' layout S becomes 1/S rounded to FP32, so that a reader may see an S that differs in its last bit.
    ///
    /// # Errors
    /// Any [`ExportError`] but [`ExportError::Repetitions`].
    pub fn new(
        file: &PackedFile,
        layout: Layout,
        input_scales: &BTreeMap<String, TensorScale>,
    ) -> Result<Self, ExportError> {
        if file.packed.is_empty() {
            return Err(ExportError::Nothing);
        }
        if let Some(name) = input_scales
            .keys()
            .find(|name| !file.packed.contains_key(*name))
        {
            return Err(ExportError::InputScales(format!("{name} is not packed")));
        }
        let mut tensors = file.plain.clone();
        let mut add = |name: String, tensor: RawTensor| match tensors.insert(name.clone(), tensor) {
            None => Ok(()),
            Some(_) => Err(ExportError::Twice(name)),
        };
        for (name, packed) in &file.packed {
            let [rows, k] = matrix(name, packed)?;
            let stem = name
                .strip_suffix(".weight")
                .ok_or_else(|| ExportError::Name(name.clone()))?;
            let codes = RawTensor {
                dtype: Dtype::U8,
                shape: vec![rows, k / 2],
                bytes: packed
                    .payload()
                    .iter()
                    .flat_map(|word| word.to_le_bytes())
                    .collect(),
            };
            let scales = RawTensor {
                dtype: Dtype::F8_E4M3,
                shape: vec![rows, k / BLOCK],
                bytes: packed.scales().to_vec(),
            };
            let inverse = |scale: TensorScale| {
                reciprocal(scale.get()).ok_or_else(|| ExportError::Reciprocal {
                    name: name.clone(),
                    scale: scale.get(),
                })
            };
            let input_scale = input_scales.get(name).copied();
            if input_scale.is_none() && !input_scales.is_empty() {
                return Err(ExportError::InputScales(format!("{name} has none")));
            }
            add(format!("{stem}.weight_scale"), scales)?;
            match layout {
                Layout::CompressedTensors => {
                    let number = |x| RawTensor::from_f32(vec![1], &[x]);
                    add(format!("{stem}.weight_packed"), codes)?;
                    add(
                        format!("{stem}.weight_global_scale"),
                        number(inverse(packed.scale())?),
                    )?;
                    if let Some(scale) = input_scale {
                        add(
                            format!("{stem}.input_global_scale"),
                            number(inverse(scale)?),
                        )?;
                    }
                }
                Layout::ModelOpt => {
                    let number = |x: TensorScale| RawTensor::from_f32(vec![], &[x.get()]);
                    add(name.clone(), codes)?;
                    add(format!("{stem}.weight_scale_2"), number(packed.scale()))?;
                    if let Some(scale) = input_scale {
                        add(format!("{stem}.input_scale"), number(scale))?;
                    }
                }
            }
        }
        let ignored = ignored_modules(file);
        let activations = !input_scales.is_empty();
        let (quantization_config, hf_quant_config) = match layout {
            Layout::CompressedTensors => (compressed_tensors_config(activations, &ignored), None),
            Layout::ModelOpt => {
                let (config, hf) = modelopt_configs(activations, &ignored);
                (config, Some(hf))
            }
        };
        Ok(Self {
            layout,
            tensors,
            quantization_config,
            hf_quant_config,
        })
    }

    /// Writes `model.safetensors`, `config.json` (`config` with the quantization in it) and what else the layout has.
    ///
    /// # Errors
    /// A plain tensor's shape and length don't match, or the system refuses.
    pub fn save(&self, folder: &Path, config: &Map<String, Value>) -> Result<(), FileError> {
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            write_atomically(&path, bytes).map_err(|source| FileError::Write { path, source })
        };
        let path = folder.join("model.safetensors");
        let views = self
            .tensors
            .iter()
            .map(|(name, tensor)| {
                TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)
                    .map(|view| (name.as_str(), view))
                    .map_err(|e| FileError::Tensor {
                        path: path.clone(),
                        name: name.clone(),
                        reason: e.to_string(),
                    })
            })
            .collect::<Result<Vec<_>, _>>()?;
        // Hugging Face's loader wants to know whose tensors they are.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let bytes =
            safetensors::serialize(views, Some(metadata)).map_err(|e| FileError::Format {
                path: path.clone(),
                reason: e.to_string(),
            })?;
        write("model.safetensors", &bytes)?;
        let mut config = config.clone();
        config.insert(
            "quantization_config".into(),
            self.quantization_config.clone(),
        );
        write(
            "config.json",
            format!("{:#}\n", Value::Object(config)).as_bytes(),
        )?;
        match &self.hf_quant_config {
            Some(json) => write("hf_quant_config.json", format!("{json:#}\n").as_bytes()),
            None => Ok(()),
        }
    }
}

/// Rows and columns of a tensor that the layouts can hold.
fn matrix(name: &str, packed: &PackedTensor) -> Result<[usize; 2], ExportError> {
    if packed.fp8_blocks() > 0 {
        return Err(ExportError::Fp8Blocks {
            name: name.into(),
            fp8: packed.fp8_blocks(),
            blocks: packed.block_count(),
        });
    }
    <[usize; 2]>::try_from(packed.shape())
        .ok()
        .filter(|[_, k]| k.is_multiple_of(BLOCK))
        .ok_or_else(|| ExportError::Shape {
            name: name.into(),
            shape: packed.shape().into(),
        })
}

/// Linear layers that are not packed: those of plain matrices, and the head whether it is there or tied.
fn ignored_modules(file: &PackedFile) -> Vec<String> {
    const HEAD: &str = "lm_head";
    let mut names: Vec<String> = file
        .plain
        .iter()
        .filter(|(_, tensor)| tensor.shape.len() == 2)
        .filter_map(|(name, _)| name.strip_suffix(".weight"))
        .filter(|stem| !stem.ends_with("embed_tokens") && *stem != HEAD)
        .map(str::to_owned)
        .collect();
    if !file.packed.contains_key("lm_head.weight") {
        names.push(HEAD.into());
    }
    names
}

fn compressed_tensors_config(activations: bool, ignored: &[String]) -> Value {
    let arguments = |dynamic: Value| {
        json!({
            "actorder": null,
            "block_structure": null,
            "dynamic": dynamic,
            "group_size": BLOCK,
            "num_bits": 4,
            "observer": "static_minmax",
            "observer_kwargs": {},
            "strategy": "tensor_group",
            "symmetric": true,
            "type": "float",
        })
    };
    // "local": block scales of activations are found at run time, their tensor's scale is in the file.
    let input = if activations {
        arguments("local".into())
    } else {
        Value::Null
    };
    json!({
        "config_groups": {
            "group_0": {
                "format": "nvfp4-pack-quantized",
                "input_activations": input,
                "output_activations": null,
                "targets": ["Linear"],
                "weights": arguments(false.into()),
            },
        },
        "format": "nvfp4-pack-quantized",
        "global_compression_ratio": null,
        "ignore": ignored,
        "kv_cache_scheme": null,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    })
}

/// `quantization_config`, and `hf_quant_config.json` for readers that look there.
fn modelopt_configs(activations: bool, ignored: &[String]) -> (Value, Value) {
    let algorithm = if activations { "NVFP4" } else { "W4A16_NVFP4" };
    let arguments = json!({"dynamic": false, "num_bits": 4, "type": "float", "group_size": BLOCK});
    let mut group = json!({"weights": arguments, "targets": ["Linear"]});
    if activations && let Some(group) = group.as_object_mut() {
        group.insert("input_activations".into(), arguments);
    }
    let producer = json!({"name": "fgmp", "version": env!("CARGO_PKG_VERSION")});
    let config = json!({
        "config_groups": {"group_0": group},
        "ignore": ignored,
        "quant_algo": algorithm,
        "producer": producer,
        "quant_method": "modelopt",
    });
    let hf = json!({
        "producer": producer,
        "quantization": {
            "quant_algo": algorithm,
            "kv_cache_quant_algo": null,
            "group_size": BLOCK,
            "exclude_modules": ignored,
        },
    });
    (config, hf)
}

/// Matrices that inference servers join into one, whose scales S differ: {q, k, v} and {gate, up} of a layer.
///
/// vLLM then takes one of the scales for the whole group, which changes the values of the others. Give them the same S
/// when quantizing for it.
pub fn fused_with_different_scales(packed: &BTreeMap<String, PackedTensor>) -> Vec<Vec<String>> {
    const FUSED: [&[&str]; 2] = [
        &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        &["mlp.gate_proj", "mlp.up_proj"],
    ];
    let mut groups: BTreeMap<(&str, usize), Vec<(&String, f32)>> = BTreeMap::new();
    for (name, tensor) in packed {
        for (index, parts) in FUSED.iter().enumerate() {
            let layer = parts.iter().find_map(|part| {
                name.strip_suffix(".weight")?
                    .strip_suffix(part)
                    .filter(|layer| layer.ends_with('.'))
            });
            if let Some(layer) = layer {
                groups
                    .entry((layer, index))
                    .or_default()
                    .push((name, tensor.scale().get()));
            }
        }
    }
    groups
        .into_values()
        .filter(|group| {
            group
                .iter()
                .any(|(_, s)| group.first().is_some_and(|(_, f)| f != s))
        })
        .map(|group| group.into_iter().map(|(name, _)| name.clone()).collect())
        .collect()
}

/// `config.json` of a model, without its quantization, for Hugging Face's Llama class.
///
/// `tied` says that the embedding is the head; `dtype` is that of the plain tensors.
///
/// # Errors
/// [`ExportError::Repetitions`].
pub fn llama_config(
    config: &Config,
    tied: bool,
    dtype: Dtype,
) -> Result<Map<String, Value>, ExportError> {
    if config.repetitions != 1 {
        return Err(ExportError::Repetitions(config.repetitions));
    }
    // As JSON has it: the shortest decimal that gives the FP32 number.
    let number = |x: f32| x.to_string().parse::<f64>().unwrap_or(x.into());
    let fields = json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "max_position_embeddings": config.context,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": number(config.rms_eps),
        "rope_scaling": null,
        "rope_theta": number(config.rope_base),
        "tie_word_embeddings": tied,
        "torch_dtype": match dtype {
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
            _ => "float32",
        },
        "vocab_size": config.vocabulary,
    });
    match fields {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reciprocal_is_taken_back_wherever_that_is_possible() {
        let mut possible = 0;
        for step in 0..1u32 << 16 {
            // All of one binade in steps.
            let scale = f32::from_bits((127 - 12) << 23 | step << 7);
            let back = 1.0 / reciprocal(scale).unwrap();
            let exists = (-4i32..=4).any(|ulps| {
                let bits = (1.0 / scale).to_bits().wrapping_add_signed(ulps);
                1.0 / f32::from_bits(bits) == scale
            });
            assert_eq!(back == scale, exists, "{scale:e}");
            assert!(back.to_bits().abs_diff(scale.to_bits()) <= 1, "{scale:e}");
            possible += u32::from(exists);
        }
        // Below √2 each has one, above every other: FP32 is coarser there than its reciprocals.
        assert!((0.6..0.9).contains(&(f64::from(possible) / 65536.0)));
        assert_eq!(reciprocal(f32::from_bits(1)), None);
        assert_eq!(reciprocal(f32::MAX), None);
    }
}
