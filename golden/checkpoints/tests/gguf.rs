//! GGUF files: every type, Hugging Face's names and order of rows, what is refused, hostile bytes.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use checkpoints::gguf::Header;
use checkpoints::{Checkpoint, CheckpointError};
use golden::model::{ConfigHints, KvCache, LanguageModel, Matrix, Model, Tally, forward};
use golden::tensors::TensorFile;
use proptest::prelude::*;
use support::{
    Gguf, HEADS, HIDDEN, KV_HEADS, LAYERS, Llama, Meta, full, llama_gguf, llama_metadata, numbers,
    python, run_python,
};

fn save(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn open(gguf: &Gguf) -> Result<(Checkpoint, tempfile::NamedTempFile), CheckpointError> {
    let file = save(&gguf.to_bytes());
    Checkpoint::open(file.path()).map(|checkpoint| (checkpoint, file))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Blocks and values by type, as ggml's Python package made them (`python/ggml_vectors.py`).
fn vectors() -> BTreeMap<String, (Vec<u8>, Vec<f32>)> {
    let json: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(include_str!("vectors/ggml.json")).unwrap();
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    json.into_iter()
        .map(|(name, case)| {
            let values = bytes(&case["values"])
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect();
            (name, (bytes(&case["blocks"]), values))
        })
        .collect()
}

const TYPES: [(&str, u32); 13] = [
    ("F32", 0),
    ("F16", 1),
    ("Q4_0", 2),
    ("Q4_1", 3),
    ("Q5_0", 6),
    ("Q5_1", 7),
    ("Q8_0", 8),
    ("Q4_K", 12),
    ("Q5_K", 13),
    ("Q6_K", 14),
    ("BF16", 30),
    ("MXFP4", 39),
    ("NVFP4", 40),
];

#[test]
fn every_type_decodes_as_ggml_does() {
    let vectors = vectors();
    assert_eq!(vectors.len(), TYPES.len());
    let mut gguf = Gguf::default();
    gguf.set("general.architecture", "test");
    for (name, number) in TYPES {
        gguf.tensor(name, &[2, 256], number, vectors[name].0.clone());
    }
    let (checkpoint, _file) = open(&gguf).unwrap();
    for (name, _) in TYPES {
        let info = checkpoint.tensor(name).unwrap();
        assert_eq!(info.stored.to_string(), name);
        assert_eq!(info.bytes, vectors[name].0.len() as u64);
        let expected = bits(&vectors[name].1);
        assert_eq!(
            bits(&checkpoint.read_rows(name, 0..2).unwrap()),
            expected,
            "{name}"
        );
        assert_eq!(
            bits(&checkpoint.read_rows(name, 1..2).unwrap()),
            expected[256..],
            "{name}"
        );
    }
}

#[test]
fn the_vectors_are_those_of_ggml_s_package() {
    if !full() {
        eprintln!("skipped: the vectors are made again with FGMP_FULL=1");
        return;
    }
    let Some(python) = python("ggml", &["gguf", "numpy"], &["gguf", "numpy"]) else {
        return;
    };
    let made = run_python(&python, "ggml_vectors.py", &[]);
    assert_eq!(made, include_str!("vectors/ggml.json"));
}

#[test]
fn a_model_has_hugging_face_s_names_and_order_of_rows() {
    let model = Llama::new();
    let (checkpoint, _file) = open(&llama_gguf(&model)).unwrap();
    let names: Vec<&str> = checkpoint.tensors().map(|t| t.name.as_str()).collect();
    let expected: Vec<&str> = model.file.tensors.keys().map(String::as_str).collect();
    assert_eq!(names, expected);
    for name in names {
        let info = checkpoint.tensor(name).unwrap();
        assert_eq!(info.shape, model.file.tensors[name].shape);
        let whole = checkpoint.read_rows(name, 0..info.rows()).unwrap();
        assert_eq!(whole, model.data(name), "{name}");
        // Any rows are those of the whole.
        for start in 0..info.rows() {
            let end = info.rows().min(start + 1 + start % 7);
            assert_eq!(
                checkpoint.read_rows(name, start..end).unwrap(),
                whole[start * info.width()..end * info.width()],
                "{name} {start}..{end}"
            );
        }
    }
    assert_eq!(
        checkpoint.hints().unwrap(),
        ConfigHints {
            heads: Some(HEADS),
            kv_heads: Some(KV_HEADS),
            repetitions: None,
            context: Some(32),
            rope_base: Some(5000.0),
            rms_eps: Some(1e-6),
        }
    );
}

fn logits(model: &Model) -> Vec<f32> {
    let mut tally = Tally::new(model.config());
    let mut logits = Vec::new();
    forward(
        model,
        &[3, 1, 4, 1, 5, 9, 2, 6],
        &mut KvCache::new(),
        &mut tally,
        |_, hidden| logits = model.trunk().logits(hidden),
    )
    .unwrap();
    logits
}

#[test]
fn a_model_runs_as_the_one_it_was_made_from() {
    let original = Llama::new();
    let gguf = llama_gguf(&original);
    let (checkpoint, _file) = open(&gguf).unwrap();
    let read =
        Model::from_tensors(checkpoint.to_tensor_file().unwrap(), ConfigHints::default()).unwrap();
    let hints = checkpoint.hints().unwrap();
    let expected = Model::from_tensors(original.file, hints).unwrap();
    assert_eq!(read.config(), expected.config());
    assert_eq!(read.config().layers, LAYERS);
    assert_eq!(bits(&logits(&read)), bits(&logits(&expected)));
    // The order of rows matters to the result.
    let mut shuffled: TensorFile = checkpoint.to_tensor_file().unwrap();
    let name = Matrix::Query.tensor_name(0);
    let query = shuffled.tensors.get_mut(&name).unwrap();
    query.bytes.rotate_left(4 * HIDDEN);
    let shuffled = Model::from_tensors(shuffled, ConfigHints::default()).unwrap();
    assert_ne!(bits(&logits(&shuffled)), bits(&logits(&expected)));
}

#[test]
fn bytes_in_memory_are_read_as_files_are() {
    let bytes = llama_gguf(&Llama::new()).to_bytes();
    let file = save(&bytes);
    let on_disk = Checkpoint::open(file.path()).unwrap();
    let in_memory = Checkpoint::parse(Path::new("memory"), bytes.into()).unwrap();
    let tensors = |checkpoint: &Checkpoint| checkpoint.to_tensor_file().unwrap().tensors;
    assert_eq!(tensors(&in_memory), tensors(&on_disk));
    assert_eq!(in_memory.hints().unwrap(), on_disk.hints().unwrap());
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(
        in_memory.read_rows(name, 5..9).unwrap(),
        on_disk.read_rows(name, 5..9).unwrap()
    );
    assert_eq!(in_memory.path(), Path::new("memory"));
}

#[test]
fn float_types_stay_what_they_are() {
    let vectors = vectors();
    let mut gguf = llama_metadata();
    gguf.tensor(
        "token_embd.weight",
        &[2, 256],
        30,
        vectors["BF16"].0.clone(),
    );
    gguf.tensor("output.weight", &[2, 256], 8, vectors["Q8_0"].0.clone());
    let (checkpoint, _file) = open(&gguf).unwrap();
    let file = checkpoint.to_tensor_file().unwrap();
    let embedding = file.raw("model.embed_tokens.weight").unwrap();
    assert_eq!(format!("{:?}", embedding.dtype), "BF16");
    assert_eq!(embedding.bytes, vectors["BF16"].0);
    let head = file.raw("lm_head.weight").unwrap();
    assert_eq!(format!("{:?}", head.dtype), "F32");
    assert_eq!(
        head,
        &checkpoint.read_raw("lm_head.weight").unwrap(),
        "one tensor and the whole file"
    );
    assert_eq!(
        checkpoint.raw_type("lm_head.weight").unwrap(),
        (head.dtype, head.bytes.len())
    );
}

#[test]
fn nvfp4_keeps_its_codes_and_takes_its_scale() {
    let vectors = vectors();
    let mut blocks = vectors["NVFP4"].0.clone();
    let mut gguf = llama_metadata();
    let name = "model.layers.0.mlp.up_proj.weight";
    // A sign bit in a scale has no place in a packed tensor.
    for block in blocks.chunks_mut(36) {
        block[..4].iter_mut().for_each(|scale| *scale &= 0x7f);
    }
    gguf.tensor("blk.0.ffn_up.weight", &[8, 64], 40, blocks);
    gguf.tensor_f32("blk.0.ffn_up.scale", &[1], &[0.375]);
    gguf.tensor_f32("blk.0.ffn_up.input_scale", &[1], &[2.0]);
    let (checkpoint, _file) = open(&gguf).unwrap();
    assert_eq!(checkpoint.tensors().count(), 1);
    let values = checkpoint.read_rows(name, 0..8).unwrap();
    let packed = checkpoint.read_packed(name).unwrap().unwrap();
    assert_eq!(packed.scale().get(), 0.375);
    assert_eq!(packed.fp8_blocks(), 0);
    // Equal as numbers: ggml makes +0 of the code of −0.
    assert_eq!(packed.decode(), values);
    assert!(values.iter().any(|&x| x != 0.0));

    gguf.tensors[0].3[1] = 0x81;
    let (checkpoint, _file) = open(&gguf).unwrap();
    let error = checkpoint.read_packed(name).unwrap_err().to_string();
    assert!(error.contains("0x81"), "{error}");
}

#[test]
fn what_is_not_supported_is_named() {
    let set = |key: &str, value: Meta| {
        let mut gguf = llama_metadata();
        gguf.set(key, value);
        gguf
    };
    let with_tensor = |name: &str| {
        let mut gguf = llama_metadata();
        gguf.tensor_f32(name, &[32], &[0.0; 32]);
        gguf
    };
    let mut without_heads = llama_metadata();
    without_heads
        .metadata
        .retain(|(key, _)| key != "llama.attention.head_count");
    for (gguf, expected) in [
        (
            set("general.architecture", "qwen2".into()),
            "architecture `qwen2`",
        ),
        (
            set("llama.rope.scaling.type", "yarn".into()),
            "rope scaling",
        ),
        (
            set("llama.rope.scaling.factor", 8.0.into()),
            "rope scaling by 8",
        ),
        (with_tensor("rope_freqs.weight"), "tensor rope_freqs.weight"),
        (with_tensor("blk.0.attn_q.bias"), "tensor blk.0.attn_q.bias"),
        (with_tensor("blk.0.ffn_gate_inp.weight"), "ffn_gate_inp"),
        (set("llama.expert_count", 8.into()), "8 experts"),
        (
            set("llama.attention.sliding_window", 16.into()),
            "sliding window of 16",
        ),
        (
            set("llama.rope.dimension_count", 8.into()),
            "8 of a head's 16",
        ),
        (set("llama.attention.value_length", 8.into()), "values 8"),
        (
            set("llama.attention.causal", Meta::Bool(false)),
            "not causal",
        ),
        (set("llama.logit_scale", 0.5.into()), "logit_scale"),
        (set("split.count", 3.into()), "one of 3 parts"),
        (
            set("general.quantization_version", 1.into()),
            "quantization version 1",
        ),
        (
            set("llama.attention.head_count_kv", Meta::I32s(vec![2, 1])),
            "differs from layer to layer",
        ),
        (without_heads, "`llama.attention.head_count` is missing"),
    ] {
        // It opens, so that its tensors can be looked at, and says why it is not run.
        let (checkpoint, _file) = open(&gguf).unwrap();
        let error = checkpoint.hints().unwrap_err();
        assert!(matches!(error, CheckpointError::Unsupported { .. }));
        assert!(error.to_string().contains(expected), "{error}: {expected}");
        assert!(checkpoint.to_tensor_file().is_err());
    }
}

#[test]
fn what_is_malformed_is_named() {
    let mut good = llama_metadata();
    good.tensor_f32("output_norm.weight", &[32], &numbers(1, 32));
    good.tensor_f32("blk.0.attn_norm.weight", &[32], &numbers(2, 32));
    let bytes = good.to_bytes();
    open(&good).unwrap();
    let changed = |change: &dyn Fn(&mut Gguf)| {
        let mut gguf = good.clone();
        change(&mut gguf);
        gguf.to_bytes()
    };
    let patched = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    // Offset of the second tensor: the last 8 bytes of the header, which ends before the first tensor's data.
    let header_end = bytes.len() - 256;
    let second_offset = bytes[..header_end]
        .windows(8)
        .rposition(|window| window == 128u64.to_le_bytes())
        .unwrap();
    for (bytes, expected) in [
        (patched(4, &3u32.to_be_bytes()), "big-endian"),
        (patched(4, &7u32.to_le_bytes()), "version 7"),
        (patched(8, &u64::MAX.to_le_bytes()), "tensors don't fit"),
        (
            patched(16, &(1u64 << 40).to_le_bytes()),
            "metadata entries don't fit",
        ),
        (patched(24, &(1u64 << 62).to_le_bytes()), "a metadata key"),
        (bytes[..header_end - 20].to_vec(), "beyond the header's end"),
        (bytes[..bytes.len() - 1].to_vec(), "lie outside of the file"),
        (patched(second_offset, &[96]), "overlap"),
        (patched(second_offset, &[1]), "no multiple of the alignment"),
        (
            changed(&|g| g.set("general.alignment", 24)),
            "no power of two",
        ),
        (changed(&|g| g.tensors[0].2 = 10), "type Q2_K is not read"),
        (changed(&|g| g.tensors[0].2 = 99), "type number 99"),
        (changed(&|g| g.tensors[0].2 = 12), "no whole blocks of Q4_K"),
        (changed(&|g| g.tensors[0].1 = vec![0]), "too large or 0"),
        (
            changed(&|g| g.tensors[0].1 = vec![1 << 31, 1 << 31, 32]),
            "too large",
        ),
        (changed(&|g| g.tensors[0].1 = vec![1; 5]), "5 dimensions"),
        (
            changed(&|g| g.tensors[1].0 = g.tensors[0].0.clone()),
            "stands there twice",
        ),
        (
            changed(&|g| g.metadata.push(g.metadata[0].clone())),
            "stands there twice",
        ),
    ] {
        let file = save(&bytes);
        let error = Checkpoint::open(file.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: {expected}");
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}

#[test]
fn rows_that_are_not_there_are_refused() {
    let mut gguf = llama_metadata();
    gguf.tensor_f32("token_embd.weight", &[4, 8], &numbers(1, 32));
    let (checkpoint, file) = open(&gguf).unwrap();
    let name = "model.embed_tokens.weight";
    assert!(checkpoint.read_rows(name, 2..5).is_err());
    let (start, end) = (3, 2);
    assert!(checkpoint.read_rows(name, start..end).is_err());
    assert!(checkpoint.read_rows(name, 4..4).unwrap().is_empty());
    assert!(matches!(
        checkpoint.read_rows("token_embd.weight", 0..1),
        Err(CheckpointError::Missing { .. })
    ));
    // A file that was cut after it was opened.
    file.as_file()
        .set_len(file.as_file().metadata().unwrap().len() - 4)
        .unwrap();
    assert!(checkpoint.read_rows(name, 0..3).is_ok());
    assert!(matches!(
        checkpoint.read_rows(name, 3..4),
        Err(CheckpointError::Read { .. })
    ));
}

/// A small file with every kind of metadata.
fn seed_file() -> Vec<u8> {
    let mut gguf = llama_metadata();
    gguf.set("a.flag", Meta::Bool(true));
    gguf.set("a.array", Meta::Bytes(vec![1, 2, 3]));
    gguf.set("tokenizer.ggml.model", "gpt2");
    gguf.set(
        "tokenizer.ggml.tokens",
        Meta::Texts(vec!["a".into(), "b".into(), "ab".into()]),
    );
    gguf.set("tokenizer.ggml.merges", Meta::Texts(vec!["a b".into()]));
    gguf.set("tokenizer.ggml.token_type", Meta::I32s(vec![1, 1, 3]));
    gguf.tensor_f32("output_norm.weight", &[8], &numbers(1, 8));
    let q = numbers(2, HIDDEN * 4);
    gguf.tensor_f32("blk.0.attn_q.weight", &[HIDDEN, 4], &q);
    gguf.to_bytes()
}

/// Opens a file and reads all that it offers.
fn use_all(bytes: Vec<u8>) {
    let Ok(checkpoint) = Checkpoint::parse(Path::new("hostile"), bytes.into()) else {
        return;
    };
    for tensor in checkpoint.tensors() {
        let _ = checkpoint.read_rows(&tensor.name, 0..tensor.rows());
        let _ = checkpoint.read_packed(&tensor.name);
    }
    let _ = checkpoint.to_tensor_file();
    let _ = checkpoint.tokenizer();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = seed_file();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(length) = length {
            bytes.truncate(length.index(bytes.len()));
        }
        let _ = Header::read(bytes.as_slice(), bytes.len() as u64);
        // The length may be a lie too.
        let _ = Header::read(bytes.as_slice(), u64::MAX);
        use_all(bytes);
    }
}
