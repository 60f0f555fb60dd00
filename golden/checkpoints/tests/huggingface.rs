//! Hugging Face's files: shards, `config.json`, FP8 weights, what is refused, hostile bytes.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::fs;
use std::path::Path;

use checkpoints::{Checkpoint, CheckpointError};
use golden::format::E4m3;
use golden::model::{ConfigHints, Model};
use golden::packed::PackedFile;
use golden::tensors::{RawTensor, TensorFile};
use half::f16;
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::{Value, json};
use support::{HEADS, HIDDEN, KV_HEADS, Llama, numbers};

/// What the `transformers` package writes for such a model, without the fields that say nothing of its arithmetic.
fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "max_position_embeddings": 32,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-6,
        "rope_scaling": null,
        "rope_theta": 5000,
        "tie_word_embeddings": false,
        "torch_dtype": "float32",
    })
}

fn hints() -> ConfigHints {
    ConfigHints {
        heads: Some(HEADS),
        kv_heads: Some(KV_HEADS),
        repetitions: None,
        context: Some(32),
        rope_base: Some(5000.0),
        rms_eps: Some(1e-6),
    }
}

fn folder(tensors: &TensorFile, config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("model.safetensors"),
        tensors.to_bytes().unwrap(),
    )
    .unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// The same tensors in three shards with an index.
fn sharded(tensors: &TensorFile, config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut shards = vec![TensorFile::new("shard"); 3];
    let mut map = serde_json::Map::new();
    for (index, (name, raw)) in tensors.tensors.iter().enumerate() {
        let shard = index % 3;
        shards[shard].tensors.insert(name.clone(), raw.clone());
        map.insert(
            name.clone(),
            format!("model-{}-of-3.safetensors", shard + 1).into(),
        );
    }
    for (shard, file) in shards.iter().enumerate() {
        fs::write(
            folder
                .path()
                .join(format!("model-{}-of-3.safetensors", shard + 1)),
            file.to_bytes().unwrap(),
        )
        .unwrap();
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(
        folder.path().join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn a_folder_a_file_and_shards_give_the_same_model() {
    let model = Llama::new();
    let single = folder(&model.file, &config());
    let shards = sharded(&model.file, &config());
    for path in [
        single.path().to_owned(),
        single.path().join("model.safetensors"),
        shards.path().to_owned(),
        shards.path().join("model.safetensors.index.json"),
    ] {
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.hints().unwrap(), hints());
        let file = checkpoint.to_tensor_file().unwrap();
        assert_eq!(file.tensors, model.file.tensors, "{}", path.display());
        let read = Model::from_tensors(file, ConfigHints::default()).unwrap();
        assert_eq!(read.config().rope_base, 5000.0);
        let name = "model.layers.1.mlp.down_proj.weight";
        let whole = model.data(name);
        let width = checkpoint.tensor(name).unwrap().width();
        assert_eq!(
            checkpoint.read_rows(name, 10..20).unwrap(),
            whole[10 * width..20 * width]
        );
    }
    assert_eq!(Checkpoint::open(shards.path()).unwrap().files().len(), 3);
}

#[test]
fn configurations_of_the_family_are_read() {
    let mut tensors = Llama::new().file;
    // Files of older versions hold what follows from the configuration.
    tensors.tensors.insert(
        "model.layers.0.self_attn.rotary_emb.inv_freq".into(),
        RawTensor::from_f32(vec![8], &[0.0; 8]),
    );
    let changed = |change: Value| {
        let mut config = config();
        for (key, value) in change.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    for (change, expected) in [
        (json!({}), hints()),
        (
            json!({"rope_theta": null, "rope_parameters": {"rope_theta": 7000.0, "rope_type": "default"}}),
            ConfigHints {
                rope_base: Some(7000.0),
                ..hints()
            },
        ),
        (json!({"rope_scaling": {"type": "default"}}), hints()),
        (
            json!({"rope_theta": null}),
            ConfigHints {
                rope_base: Some(10000.0),
                ..hints()
            },
        ),
        (json!({"head_dim": 16, "rope_interleaved": false}), hints()),
        (
            json!({"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": null}),
            hints(),
        ),
        (
            json!({"model_type": "mistral", "architectures": null, "sliding_window": 32}),
            hints(),
        ),
        (
            json!({"layer_types": ["full_attention", "full_attention"]}),
            hints(),
        ),
    ] {
        let folder = folder(&tensors, &changed(change));
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(checkpoint.hints().unwrap(), expected);
        assert!(checkpoint.tensor("lm_head.weight").is_some());
        assert_eq!(checkpoint.tensors().count(), tensors.tensors.len() - 1);
    }
    // A head that is written but tied is the embedding, whatever it holds.
    let folder = folder(&tensors, &changed(json!({"tie_word_embeddings": true})));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    checkpoint.hints().unwrap();
    assert!(checkpoint.tensor("lm_head.weight").is_none());
}

#[test]
fn what_is_not_supported_is_named() {
    let tensors = Llama::new().file;
    for (change, expected) in [
        (json!({"model_type": "qwen2"}), "model_type `qwen2`"),
        (json!({"model_type": null}), "model_type ``"),
        (
            json!({"architectures": ["LlamaForSequenceClassification"]}),
            "LlamaForSequenceClassification",
        ),
        (json!({"attention_bias": true}), "biases of the attention"),
        (json!({"mlp_bias": true}), "biases of the feed-forward"),
        (json!({"hidden_act": "gelu"}), "activation `gelu`"),
        (
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}),
            "rope scaling `llama3`",
        ),
        (
            json!({"rope_parameters": {"rope_type": "yarn"}}),
            "rope scaling `yarn`",
        ),
        (
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}),
            "full_attention",
        ),
        (json!({"rope_scaling": "linear"}), "expected an object"),
        (json!({"partial_rotary_factor": 0.5}), "of 0.5 of each head"),
        (
            json!({"model_type": "mistral", "architectures": null, "max_position_embeddings": 8192}),
            "window of 4096",
        ),
        (json!({"sliding_window": 16}), "window of 16"),
        (
            json!({"layer_types": ["sliding_attention"]}),
            "sliding_attention",
        ),
        (
            json!({"num_attention_heads": null}),
            "`num_attention_heads` is missing",
        ),
        (
            json!({"num_attention_heads": "four"}),
            "expected a number of things, found \"four\"",
        ),
        (json!({"head_dim": 32}), "`head_dim` 32"),
        (
            json!({"quantization_config": {"quant_method": "gptq"}}),
            "method `gptq`",
        ),
        (
            json!({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}}),
            "format `pack-quantized`",
        ),
        (
            json!({"quantization_config": {"quant_method": "compressed-tensors", "transform_config": {"R1": {}}}}),
            "transforms",
        ),
        (
            json!({"quantization_config": {"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}}),
            "algorithm `W4A8_AWQ`",
        ),
    ] {
        let mut config = config();
        for (key, value) in change.as_object().unwrap() {
            config[key] = value.clone();
        }
        let folder = folder(&tensors, &config);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let error = checkpoint.hints().unwrap_err();
        assert!(matches!(error, CheckpointError::Unsupported { .. }));
        let error = error.to_string();
        assert!(error.contains(expected), "{error}: {expected}");
        assert!(error.contains("config.json"), "{error}");
    }
    let without = |name: &str, added: &str| {
        let mut tensors = tensors.clone();
        tensors.tensors.remove(name);
        if !added.is_empty() {
            tensors
                .tensors
                .insert(added.into(), RawTensor::from_f32(vec![1], &[0.0]));
        }
        let folder = folder(&tensors, &config());
        Checkpoint::open(folder.path())
            .unwrap()
            .hints()
            .unwrap_err()
            .to_string()
    };
    assert!(without("lm_head.weight", "").contains("no tensor lm_head.weight"));
    for name in [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.mlp.gate_proj.weight_scale_inv",
        "score.weight",
    ] {
        assert!(without("", name).contains(name));
    }
}

#[test]
fn fp8_weights_take_their_scales() {
    let codes: Vec<u8> = (0..=255).collect();
    let decoded = |code: u8| E4m3::from_bits(code).to_f32();
    let fp8 = |shape: &[usize]| RawTensor {
        dtype: Dtype::F8_E4M3,
        shape: shape.to_vec(),
        bytes: codes.clone(),
    };
    let mut file = TensorFile::new("fp8");
    file.tensors.insert("a.weight".into(), fp8(&[4, 64]));
    file.tensors.insert(
        "a.weight_scale".into(),
        RawTensor::from_f32(vec![1], &[0.3]),
    );
    file.tensors.insert("b.weight".into(), fp8(&[4, 64]));
    let halves: Vec<f16> = [0.5, 1.0, -2.0, 3.0].map(f16::from_f32).to_vec();
    file.tensors.insert(
        "b.weight_scale".into(),
        RawTensor {
            dtype: Dtype::F16,
            shape: vec![4, 1],
            bytes: halves.iter().flat_map(|x| x.to_le_bytes()).collect(),
        },
    );
    file.tensors.insert("c.weight".into(), fp8(&[4, 64]));
    let folder = folder(&file, &json!({}));
    let path = folder.path().join("model.safetensors");
    fs::remove_file(folder.path().join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.tensors().count(), 3);

    let same = |found: Vec<f32>, expected: Vec<f32>| {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(&expected) {
            assert!(
                a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                "{a} {b}"
            );
        }
    };
    same(
        checkpoint.read_rows("a.weight", 1..3).unwrap(),
        codes[64..192].iter().map(|&c| decoded(c) * 0.3).collect(),
    );
    same(
        checkpoint.read_rows("b.weight", 0..4).unwrap(),
        codes
            .iter()
            .map(|&c| decoded(c) * [0.5, 1.0, -2.0, 3.0][usize::from(c) / 64])
            .collect(),
    );
    // Without a scale nobody knows what the codes stand for.
    let error = checkpoint.read_rows("c.weight", 0..1).unwrap_err();
    assert!(error.to_string().contains("F8_E4M3 elements"), "{error}");
    assert_eq!(checkpoint.read_raw("c.weight").unwrap(), fp8(&[4, 64]));

    file.tensors.insert(
        "b.weight_scale".into(),
        RawTensor::from_f32(vec![2, 2], &[1.0; 4]),
    );
    fs::write(&path, file.to_bytes().unwrap()).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("b.weight_scale") && error.contains("[2, 2]"),
        "{error}"
    );
}

#[test]
fn the_project_s_own_files_are_read_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("models/shared-4x3.safetensors");
    let checkpoint = Checkpoint::open(&path).unwrap();
    let expected = TensorFile::open(&path).unwrap();
    let found = checkpoint.to_tensor_file().unwrap();
    assert_eq!(found.tensors, expected.tensors);
    assert_eq!(found.metadata, expected.metadata);
    assert!(
        checkpoint.tokenizer().unwrap().is_some(),
        "beside the model"
    );

    // A packed file passes through, so that it can be told from a model.
    let mut packed = PackedFile::default();
    packed
        .plain
        .insert("x".into(), RawTensor::from_f32(vec![2], &[1.0, 2.0]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("packed.safetensors");
    packed.save(&path).unwrap();
    let file = Checkpoint::open(&path).unwrap().to_tensor_file().unwrap();
    assert_eq!(PackedFile::from_tensors(file).unwrap(), packed);
}

#[test]
fn what_is_malformed_is_named() {
    let model = Llama::new();
    let shards = sharded(&model.file, &config());
    let index = shards.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    for (changed, expected) in [
        (
            text.replace("model-1-of-3.", "../model-1-of-3."),
            "is no name of a file",
        ),
        (
            text.replace("model-1-of-3.", "/etc/model."),
            "is no name of a file",
        ),
        (text.replace("model-1-of-3.", "other."), "can't be read"),
        (
            text.replace("\"lm_head.weight\"", "\"head.weight\""),
            "has no tensor head.weight",
        ),
        (
            text.replace("weight_map", "weights"),
            "missing field `weight_map`",
        ),
        (text[..text.len() / 2].to_owned(), "EOF while parsing"),
    ] {
        fs::write(&index, changed).unwrap();
        let error = Checkpoint::open(shards.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: {expected}");
    }

    let folder = folder(&model.file, &config());
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let patched = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    for (changed, expected) in [
        (bytes[..5].to_vec(), "8 bytes of its header's length"),
        (patched(0, &u64::MAX.to_le_bytes()), "longer than the file"),
        (
            patched(0, &(1u64 << 40).to_le_bytes()),
            "longer than the file",
        ),
        (patched(8, b"["), "not a safetensors file"),
        (bytes[..bytes.len() - 1].to_vec(), "bytes, the file has"),
    ] {
        fs::write(&path, changed).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: {expected}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }

    let empty = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("found 0 such files"), "{error}");
    let error = Checkpoint::open(&empty.path().join("x.gguf")).unwrap_err();
    assert!(matches!(error, CheckpointError::Read { .. }));
}

#[test]
fn tensors_without_elements_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.safetensors");
    let header = format!(
        r#"{{"a":{{"dtype":"F32","shape":[{},0],"data_offsets":[0,0]}},"b":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}},"c":{{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}}}}"#,
        u64::MAX
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(1.5f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let rows = checkpoint.tensor("a").unwrap().rows();
    assert!(checkpoint.read_rows("a", 0..rows).unwrap().is_empty());
    assert_eq!(checkpoint.read_rows("b", 0..1).unwrap(), [1.5]);
    assert!(checkpoint.read_rows("c", 0..0).unwrap().is_empty());
    assert_eq!(checkpoint.to_tensor_file().unwrap().tensors.len(), 3);
}

fn seed_file() -> Vec<u8> {
    let mut file = TensorFile::new("seed");
    let plain = |shape: &[usize], seed| {
        let count = shape.iter().product();
        RawTensor::from_f32(shape.to_vec(), &numbers(seed, count))
    };
    file.tensors
        .insert("model.norm.weight".into(), plain(&[4], 1));
    let raw = |dtype, shape: &[usize]| RawTensor {
        dtype,
        shape: shape.to_vec(),
        bytes: vec![0x35; shape.iter().product()],
    };
    for (name, tensor) in [
        ("a.weight_packed", raw(Dtype::U8, &[2, 16])),
        ("a.weight_scale", raw(Dtype::F8_E4M3, &[2, 2])),
        ("a.weight_global_scale", plain(&[1], 2)),
        ("b.weight", raw(Dtype::U8, &[2, 8])),
        ("b.weight_scale", raw(Dtype::F8_E4M3, &[2, 1])),
        ("b.weight_scale_2", plain(&[], 3)),
        ("c.weight", raw(Dtype::F8_E4M3, &[2, 2])),
        ("c.weight_scale", plain(&[2, 1], 4)),
    ] {
        file.tensors.insert(name.into(), tensor);
    }
    // Positive, as a scale of a tensor must be.
    for name in ["a.weight_global_scale", "b.weight_scale_2"] {
        file.tensors.get_mut(name).unwrap().bytes = 0.25f32.to_le_bytes().to_vec();
    }
    file.to_bytes().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in prop::option::of(any::<prop::sample::Index>()),
        digit in prop::option::of((any::<prop::sample::Index>(), b'0'..=b'9')),
    ) {
        let mut bytes = seed_file();
        let seed = bytes.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        // Numbers of the header, so that it stays JSON.
        if let Some((at, digit)) = digit {
            let digits: Vec<usize> = (0..bytes.len())
                .filter(|&at| seed[at].is_ascii_digit() && at > 8)
                .collect();
            bytes[digits[at.index(digits.len())]] = digit;
        }
        if let Some(length) = length {
            bytes.truncate(length.index(bytes.len()));
        }
        let opened = Checkpoint::parse(Path::new("hostile"), bytes.as_slice().into());
        if bytes == seed {
            prop_assert_eq!(opened.as_ref().unwrap().tensors().count(), 4);
        }
        if let Ok(checkpoint) = opened {
            for tensor in checkpoint.tensors() {
                let _ = checkpoint.read_rows(&tensor.name, 0..tensor.rows());
                let _ = checkpoint.read_packed(&tensor.name);
            }
            let _ = checkpoint.to_tensor_file();
        }
    }
}

#[test]
fn hostile_configurations_do_no_harm() {
    let model = Llama::new();
    let folder = folder(&model.file, &config());
    for key in [
        "model_type",
        "architectures",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "max_position_embeddings",
        "sliding_window",
        "rms_norm_eps",
        "tie_word_embeddings",
        "quantization_config",
    ] {
        for value in [
            json!(0),
            json!(-1),
            json!(1e300),
            json!(u64::MAX),
            json!(4_294_967_296_u64),
            json!("x"),
            json!([]),
            json!([1]),
            json!({}),
            json!({"x": {"y": 1}}),
            json!(true),
            json!(null),
        ] {
            let mut config = config();
            config[key] = value;
            fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            if let Ok(file) = checkpoint.to_tensor_file() {
                let _ = Model::from_tensors(file, ConfigHints::default());
            }
        }
    }
}
