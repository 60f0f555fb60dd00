//! Files that others made, against what their own packages say is in them. Needs a network, so only with `FGMP_FULL=1`.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::fs;
use std::path::Path;

use checkpoints::{Checkpoint, CheckpointError};
use golden::tensors::TensorFile;
use serde_json::Value;
use support::{full, python, run_python};

/// Every tensor of `expected` is in `checkpoint` with the same bits.
fn same(checkpoint: &Checkpoint, expected: &Path) {
    let expected = TensorFile::open(expected).unwrap();
    assert!(!expected.tensors.is_empty());
    for name in expected.tensors.keys() {
        let Ok(tensor) = expected.tensor(name) else {
            // Integers are handed on.
            assert_eq!(checkpoint.read_raw(name).unwrap(), expected.tensors[name]);
            continue;
        };
        let info = checkpoint.tensor(name).unwrap();
        assert_eq!(info.shape, tensor.shape, "{name}");
        let found = checkpoint.read_rows(name, 0..info.rows()).unwrap();
        let differing = found
            .iter()
            .zip(&tensor.data)
            .filter(|(a, b)| a.to_bits() != b.to_bits())
            .count();
        assert_eq!(differing, 0, "{name}");
        assert_eq!(found.len(), tensor.data.len(), "{name}");
    }
}

#[test]
fn files_of_others_hold_what_their_packages_say() {
    if !full() {
        eprintln!("skipped: files of others are fetched with FGMP_FULL=1");
        return;
    }
    let packages = ["gguf", "numpy", "safetensors", "tokenizers"];
    let Some(python) = python("foreign", &packages, &packages) else {
        return;
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path();
    run_python(&python, "foreign.py", &[path]);

    let made = Checkpoint::open(&path.join("made.gguf")).unwrap();
    assert_eq!(made.tensors().count(), 11);
    assert_eq!(made.hints().unwrap().heads, Some(4));
    same(&made, &path.join("made.safetensors"));

    let smollm2 = Checkpoint::open(&path.join("smollm2.gguf")).unwrap();
    assert_eq!(smollm2.tensors().count(), 272);
    let hints = smollm2.hints().unwrap();
    assert_eq!((hints.heads, hints.kv_heads), (Some(9), Some(3)));
    assert_eq!(hints.rope_base, Some(100_000.0));
    same(&smollm2, &path.join("smollm2.safetensors"));
    let tokenizer = smollm2.tokenizer().unwrap().unwrap();
    assert_eq!(tokenizer.vocabulary(), 49152);
    // What the model's own tokenizer gives: digits stand alone, spaces go with the word behind them.
    let text = "Hello, world! It's 2024.";
    let tokens = tokenizer.encode(text).unwrap();
    let pieces: Vec<String> = tokens
        .iter()
        .map(|&token| tokenizer.decode(&[token]).unwrap())
        .collect();
    assert_eq!(pieces.join("|"), "Hello|,| world|!| It|'s| |2|0|2|4|.");

    let minilm = Checkpoint::open(&path.join("minilm")).unwrap();
    same(&minilm, &path.join("minilm/model.safetensors"));
    let error = minilm.hints().unwrap_err();
    assert!(matches!(error, CheckpointError::Unsupported { .. }));
    assert!(error.to_string().contains("`bert`"), "{error}");
    let tokenizer = minilm.tokenizer().unwrap().unwrap();
    let cases: Value =
        serde_json::from_slice(&fs::read(path.join("minilm.json")).unwrap()).unwrap();
    for (text, tokens) in cases["texts"]
        .as_array()
        .unwrap()
        .iter()
        .zip(cases["tokens"].as_array().unwrap())
    {
        let found = tokenizer.encode(text.as_str().unwrap()).unwrap();
        assert_eq!(serde_json::to_value(found).unwrap(), *tokens);
    }
}
