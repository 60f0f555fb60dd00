//! What several tests share: a writer of GGUF files, random models, and Python.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "no test uses all of it, and a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use golden::tensors::{RawTensor, TensorFile};

/// A value of GGUF metadata, as it is written.
#[derive(Clone)]
pub enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    Bytes(Vec<u8>),
}

impl From<&str> for Meta {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<u32> for Meta {
    fn from(n: u32) -> Self {
        Self::U32(n)
    }
}

impl From<f32> for Meta {
    fn from(x: f32) -> Self {
        Self::F32(x)
    }
}

/// A GGUF file to be written, after the specification's text.
#[derive(Clone, Default)]
pub struct Gguf {
    pub metadata: Vec<(String, Meta)>,
    /// Name, shape with the outermost dimension first, type number, data.
    pub tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Gguf {
    pub fn set(&mut self, key: &str, value: impl Into<Meta>) {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.into(), value.into()));
    }

    pub fn tensor(&mut self, name: &str, shape: &[usize], kind: u32, data: Vec<u8>) {
        self.tensors.push((name.into(), shape.into(), kind, data));
    }

    pub fn tensor_f32(&mut self, name: &str, shape: &[usize], data: &[f32]) {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensor(name, shape, 0, bytes);
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            match value {
                Meta::U32(n) => {
                    out.extend(4u32.to_le_bytes());
                    out.extend(n.to_le_bytes());
                }
                Meta::F32(x) => {
                    out.extend(6u32.to_le_bytes());
                    out.extend(x.to_le_bytes());
                }
                Meta::Bool(b) => {
                    out.extend(7u32.to_le_bytes());
                    out.push((*b).into());
                }
                Meta::Text(t) => {
                    out.extend(8u32.to_le_bytes());
                    text(&mut out, t);
                }
                Meta::Texts(texts) => {
                    out.extend([9u32.to_le_bytes(), 8u32.to_le_bytes()].concat());
                    out.extend((texts.len() as u64).to_le_bytes());
                    texts.iter().for_each(|t| text(&mut out, t));
                }
                Meta::I32s(numbers) => {
                    out.extend([9u32.to_le_bytes(), 5u32.to_le_bytes()].concat());
                    out.extend((numbers.len() as u64).to_le_bytes());
                    numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
                }
                Meta::Bytes(bytes) => {
                    out.extend([9u32.to_le_bytes(), 0u32.to_le_bytes()].concat());
                    out.extend((bytes.len() as u64).to_le_bytes());
                    out.extend(bytes);
                }
            }
        }
        let mut offset = 0;
        for (name, shape, kind, data) in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            for extent in shape.iter().rev() {
                out.extend((*extent as u64).to_le_bytes());
            }
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += data.len().next_multiple_of(32);
        }
        for (_, _, _, data) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(data);
        }
        out
    }
}

/// Numbers that look like weights, the same for the same seed.
pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        })
        .collect()
}

/// A model of the Llama family under Hugging Face's names: width 64, 4 heads of 16 and 2 for keys, 2 layers.
pub struct Llama {
    pub file: TensorFile,
}

pub const HEADS: usize = 4;
pub const KV_HEADS: usize = 2;
pub const HEAD_WIDTH: usize = 16;
pub const HIDDEN: usize = HEADS * HEAD_WIDTH;
pub const FFN: usize = 96;
pub const VOCABULARY: usize = 50;
pub const LAYERS: usize = 2;

impl Llama {
    pub fn new() -> Self {
        let mut file = TensorFile::new("llama");
        let mut seed = 0;
        let mut add = |name: String, shape: &[usize]| {
            seed += 1;
            let count = shape.iter().product();
            let data: Vec<f32> = numbers(seed, count)
                .iter()
                .map(|x| if shape.len() == 1 { 1.0 + x } else { x * 0.3 })
                .collect();
            file.tensors
                .insert(name, RawTensor::from_f32(shape.to_vec(), &data));
        };
        add("model.embed_tokens.weight".into(), &[VOCABULARY, HIDDEN]);
        add("lm_head.weight".into(), &[VOCABULARY, HIDDEN]);
        add("model.norm.weight".into(), &[HIDDEN]);
        for layer in 0..LAYERS {
            let kv = KV_HEADS * HEAD_WIDTH;
            for (part, shape) in [
                ("self_attn.q_proj", &[HIDDEN, HIDDEN][..]),
                ("self_attn.k_proj", &[kv, HIDDEN]),
                ("self_attn.v_proj", &[kv, HIDDEN]),
                ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
                ("mlp.gate_proj", &[FFN, HIDDEN]),
                ("mlp.up_proj", &[FFN, HIDDEN]),
                ("mlp.down_proj", &[HIDDEN, FFN]),
                ("input_layernorm", &[HIDDEN]),
                ("post_attention_layernorm", &[HIDDEN]),
            ] {
                add(format!("model.layers.{layer}.{part}.weight"), shape);
            }
        }
        Self { file }
    }

    pub fn data(&self, name: &str) -> Vec<f32> {
        self.file.tensor(name).unwrap().data
    }
}

/// GGUF's name of one of Hugging Face's tensors.
pub fn ggml_name(name: &str) -> String {
    [
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("model.layers.", "blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// Rows as GGUF files of architecture llama hold those of queries and keys: with each head's rows seen as a matrix of
/// 2 × half, transposed.
pub fn interleave(rows: &[f32], heads: usize, width: usize) -> Vec<f32> {
    let head_rows = rows.len() / width / heads;
    let mut out = Vec::new();
    for head in rows.chunks(head_rows * width) {
        let (first, second) = head.split_at(head.len() / 2);
        for (a, b) in first.chunks(width).zip(second.chunks(width)) {
            out.extend_from_slice(a);
            out.extend_from_slice(b);
        }
    }
    out
}

/// The metadata of [`Llama`] in GGUF.
pub fn llama_metadata() -> Gguf {
    let mut gguf = Gguf::default();
    gguf.set("general.architecture", "llama");
    gguf.set("llama.block_count", LAYERS as u32);
    gguf.set("llama.context_length", 32);
    gguf.set("llama.embedding_length", HIDDEN as u32);
    gguf.set("llama.attention.head_count", HEADS as u32);
    gguf.set("llama.attention.head_count_kv", KV_HEADS as u32);
    gguf.set("llama.rope.freq_base", 5000.0);
    gguf.set("llama.rope.dimension_count", HEAD_WIDTH as u32);
    gguf.set("llama.attention.layer_norm_rms_epsilon", 1e-6);
    gguf
}

/// [`Llama`] as a GGUF file in F32.
pub fn llama_gguf(model: &Llama) -> Gguf {
    let mut gguf = llama_metadata();
    for (name, raw) in &model.file.tensors {
        let mut data = model.data(name);
        if name.contains("q_proj") {
            data = interleave(&data, HEADS, HIDDEN);
        } else if name.contains("k_proj") {
            data = interleave(&data, KV_HEADS, HIDDEN);
        }
        gguf.tensor_f32(&ggml_name(name), &raw.shape, &data);
    }
    gguf
}

/// Whether the long tests run.
pub fn full() -> bool {
    std::env::var_os("FGMP_FULL").is_some_and(|value| value == "1")
}

/// A Python that can import `modules`; with `FGMP_FULL=1` one into which `packages` have been installed.
///
/// `None`, said on standard error, if there is none.
pub fn python(test: &str, packages: &[&str], modules: &[&str]) -> Option<PathBuf> {
    let import = format!("import {}", modules.join(", "));
    let imports = |python: &Path| {
        Command::new(python)
            .args(["-c", &import])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if full() {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{test}"));
        let python = folder.join("bin/python");
        if !imports(&python) {
            let run = |command: &mut Command| {
                let output = command.output().unwrap();
                assert!(
                    output.status.success(),
                    "{}",
                    String::from_utf8_lossy(&output.stderr)
                );
            };
            run(Command::new("python3").arg("-m").arg("venv").arg(&folder));
            run(Command::new(&python)
                .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
                .args(packages));
        }
        return Some(python);
    }
    let python = PathBuf::from("python3");
    if imports(&python) {
        return Some(python);
    }
    eprintln!(
        "skipped: {test} needs python3 with {}; FGMP_FULL=1 installs them",
        packages.join(" and ")
    );
    None
}

/// Runs one of the scripts beside the tests and gives what it prints.
pub fn run_python(python: &Path, script: &str, arguments: &[&Path]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(script);
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
