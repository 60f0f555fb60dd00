//! The seeds of the fuzzers: small files with something of everything. `FGMP_SEEDS=1` writes them.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use checkpoints::Checkpoint;
use golden::packed::{PackedFile, PackedTensor, TensorScale};
use golden::tensors::{RawTensor, TensorFile};
use safetensors::Dtype;
use support::{Gguf, Meta, llama_metadata, numbers};

fn raw(dtype: Dtype, shape: &[usize]) -> RawTensor {
    let count: usize = shape.iter().product();
    RawTensor {
        dtype,
        shape: shape.to_vec(),
        bytes: (0..count * dtype.bitsize() / 8)
            .map(|i| i as u8 & 0x3f)
            .collect(),
    }
}

fn safetensors(tensors: &[(&str, RawTensor)]) -> Vec<u8> {
    let mut file = TensorFile::new("seed");
    for (name, tensor) in tensors {
        file.tensors.insert((*name).into(), tensor.clone());
    }
    file.to_bytes().unwrap()
}

fn gguf_of_types() -> Gguf {
    let mut gguf = Gguf::default();
    gguf.set("general.architecture", "llama");
    for (kind, elements, bytes) in [
        (0, 4, 16),
        (1, 4, 8),
        (2, 32, 18),
        (3, 32, 20),
        (6, 32, 22),
        (7, 32, 24),
        (8, 32, 34),
        (12, 256, 144),
        (13, 256, 176),
        (14, 256, 210),
        (30, 4, 8),
        (39, 32, 17),
        (40, 64, 36),
    ] {
        let data = (0..bytes).map(|i| i as u8 & 0x3f).collect();
        gguf.tensor(&format!("t{kind}"), &[1, elements], kind, data);
    }
    gguf
}

fn gguf_of_a_model() -> Gguf {
    let mut gguf = llama_metadata();
    gguf.set("llama.attention.head_count", 2);
    gguf.set("llama.attention.head_count_kv", 1);
    gguf.set("a.flag", Meta::Bool(true));
    gguf.set("a.bytes", Meta::Bytes(vec![1, 2, 3]));
    gguf.set("tokenizer.ggml.model", "gpt2");
    gguf.set("tokenizer.ggml.pre", "smollm");
    gguf.set(
        "tokenizer.ggml.tokens",
        Meta::Texts(["a", "b", "ab", "<s>"].map(String::from).to_vec()),
    );
    gguf.set("tokenizer.ggml.merges", Meta::Texts(vec!["a b".into()]));
    gguf.set("tokenizer.ggml.token_type", Meta::I32s(vec![1, 1, 1, 3]));
    gguf.tensor_f32("blk.0.attn_q.weight", &[8, 2], &numbers(1, 16));
    gguf.tensor_f32("blk.0.attn_k.weight", &[4, 2], &numbers(2, 8));
    gguf.tensor("blk.0.ffn_up.weight", &[1, 64], 40, vec![0x31; 36]);
    gguf.tensor_f32("blk.0.ffn_up.scale", &[1], &[0.5]);
    gguf.tensor_f32("output_norm.weight", &[2], &[1.0, 2.0]);
    gguf
}

fn packed() -> Vec<u8> {
    let tensor = |shape: &[usize], tags: Vec<u8>, scales: Vec<u8>, payload: &[u8]| {
        let scale = TensorScale::new(0.5).unwrap();
        PackedTensor::from_streams(shape, scale, tags, scales, payload).unwrap()
    };
    let mut file = PackedFile::default();
    let mixed = tensor(&[2, 32], vec![0b0110], vec![0x38, 0x7e], &[0x35; 48]);
    file.packed.insert("mixed".into(), mixed);
    let mut padded = [0; 8];
    padded[0] = 0x21;
    file.packed
        .insert("padded".into(), tensor(&[1, 2], vec![0], vec![1], &padded));
    file.plain.insert("plain".into(), raw(Dtype::BF16, &[3]));
    file.to_tensors(Path::new("seed"))
        .unwrap()
        .to_bytes()
        .unwrap()
}

fn seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let one = |x: f32| RawTensor::from_f32(vec![1], &[x]);
    BTreeMap::from([
        (
            "safetensors/plain",
            safetensors(&[
                ("bf16", raw(Dtype::BF16, &[2, 3])),
                ("empty", raw(Dtype::F16, &[0, 7])),
                ("f32", RawTensor::from_f32(vec![3], &[1.0, -2.5, 1e-3])),
                ("scalar", raw(Dtype::I64, &[])),
            ]),
        ),
        (
            "safetensors/compressed-tensors",
            safetensors(&[
                ("a.weight_global_scale", one(4.0)),
                ("a.weight_packed", raw(Dtype::U8, &[2, 16])),
                ("a.weight_scale", raw(Dtype::F8_E4M3, &[2, 2])),
            ]),
        ),
        (
            "safetensors/modelopt",
            safetensors(&[
                ("a.weight", raw(Dtype::U8, &[2, 8])),
                ("a.weight_scale", raw(Dtype::F8_E4M3, &[2, 1])),
                ("a.weight_scale_2", one(0.25)),
            ]),
        ),
        (
            "safetensors/fp8",
            safetensors(&[
                ("a.weight", raw(Dtype::F8_E4M3, &[2, 3])),
                (
                    "a.weight_scale",
                    RawTensor::from_f32(vec![2, 1], &[0.5, 2.0]),
                ),
                ("b.weight", raw(Dtype::F8_E4M3, &[4])),
                ("b.weight_scale", one(3.0)),
            ]),
        ),
        ("gguf/types", gguf_of_types().to_bytes()),
        ("gguf/model", gguf_of_a_model().to_bytes()),
        ("packed/mixed", packed()),
    ])
}

#[test]
fn the_seeds_are_those_that_are_committed() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let write = std::env::var_os("FGMP_SEEDS").is_some_and(|value| value == "1");
    for (name, bytes) in seeds() {
        let path = folder.join(name);
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
    }
}

#[test]
fn the_seeds_are_read_without_a_fault() {
    for (name, bytes) in seeds() {
        let checkpoint = Checkpoint::parse(Path::new(name), bytes.into()).unwrap();
        for info in checkpoint.tensors() {
            let read = checkpoint.read_rows(&info.name, 0..info.rows());
            assert_eq!(read.is_ok(), info.stored.is_float(), "{name} {}", info.name);
        }
    }
}
