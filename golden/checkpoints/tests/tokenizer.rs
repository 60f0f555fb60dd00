//! Tokenizers: a file's own, and the same one rebuilt from GGUF metadata.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use checkpoints::{Checkpoint, Tokenizer};
use golden::tensors::read_tokens;
use serde_json::{Value, json};
use support::{Gguf, Meta, llama_metadata};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

/// The tokenizer of the shipped model as GGUF metadata.
fn shipped_as_gguf() -> Gguf {
    let json: Value =
        serde_json::from_slice(&fs::read(models().join("tokenizer.json")).unwrap()).unwrap();
    let vocabulary = json["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocabulary.len()];
    for (token, id) in vocabulary {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    let merges = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|merge| match merge {
            Value::Array(pair) => {
                format!(
                    "{} {}",
                    pair[0].as_str().unwrap(),
                    pair[1].as_str().unwrap()
                )
            }
            merge => merge.as_str().unwrap().to_owned(),
        })
        .collect();
    let mut kinds = vec![1; tokens.len()];
    for special in json["added_tokens"].as_array().unwrap() {
        kinds[special["id"].as_u64().unwrap() as usize] = 3;
    }
    let mut gguf = llama_metadata();
    gguf.set("tokenizer.ggml.model", "gpt2");
    gguf.set("tokenizer.ggml.pre", "gpt-2");
    gguf.set("tokenizer.ggml.tokens", Meta::Texts(tokens));
    gguf.set("tokenizer.ggml.merges", Meta::Texts(merges));
    gguf.set("tokenizer.ggml.token_type", Meta::I32s(kinds));
    gguf
}

fn tokenizer_of(gguf: &Gguf) -> Result<Option<Tokenizer>, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), gguf.to_bytes()).unwrap();
    Checkpoint::open(file.path())
        .map_err(|e| e.to_string())?
        .tokenizer()
        .map_err(|e| e.to_string())
}

const TEXT: &str = "The tokens' order isn't  odd:\n\n\tx = [1, 22, 333]; it'll\u{a0}do — naïve «Größe» 東京 🦀 <|bos|>end ";

#[test]
fn the_shipped_streams_are_what_the_shipped_tokenizer_gives() {
    let tokenizer = Tokenizer::open(&models().join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.vocabulary(), 4096);
    let tokens: Vec<u32> = read_tokens(&models().join("valid.u16")).unwrap()[..20_000].to_vec();
    let text = tokenizer.decode(&tokens).unwrap();
    let again = tokenizer.encode(&text).unwrap();
    // The cut may have gone through a word.
    assert_eq!(again[..19_990], tokens[..19_990]);
}

#[test]
fn gguf_metadata_give_the_tokenizer_that_they_were_made_from() {
    let original = Tokenizer::open(&models().join("tokenizer.json")).unwrap();
    let rebuilt = tokenizer_of(&shipped_as_gguf()).unwrap().unwrap();
    let tokens = original.encode(TEXT).unwrap();
    assert_eq!(rebuilt.encode(TEXT).unwrap(), tokens);
    assert_eq!(rebuilt.decode(&tokens).unwrap(), TEXT);
    assert!(tokens.contains(&0), "the special token is one token");
    assert_eq!(rebuilt.vocabulary(), original.vocabulary());
    assert_eq!(original.encode("").unwrap(), [0u32; 0], "nothing is added");
}

/// One token a byte, and merges that join as much as they can: what is cut apart stays apart.
fn greedy(pre: &str, words: &[&str]) -> Gguf {
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|byte| match byte {
            // GPT-2's alphabet: printable bytes are themselves, others move behind 255.
            33..=126 | 161..=172 | 174..=255 => char::from(byte).to_string(),
            _ => {
                let rank = (0..byte)
                    .filter(|b| !matches!(b, 33..=126 | 161..=172 | 174..=255))
                    .count() as u32;
                char::from_u32(256 + rank).unwrap().to_string()
            }
        })
        .collect();
    let mut merges = Vec::new();
    for word in words {
        let word: Vec<char> = word
            .chars()
            .map(|c| if c == ' ' { 'Ġ' } else { c })
            .collect();
        for end in 2..=word.len() {
            let whole: String = word[..end].iter().collect();
            if !tokens.contains(&whole) {
                let left: String = word[..end - 1].iter().collect();
                merges.push(format!("{left} {}", word[end - 1]));
                tokens.push(whole);
            }
        }
    }
    let mut gguf = llama_metadata();
    gguf.set("tokenizer.ggml.model", "gpt2");
    gguf.set("tokenizer.ggml.pre", pre);
    gguf.set("tokenizer.ggml.tokens", Meta::Texts(tokens));
    gguf.set("tokenizer.ggml.merges", Meta::Texts(merges));
    gguf
}

#[test]
fn words_are_cut_as_each_pre_tokenizer_does() {
    // The text and everything that could be one token of it.
    let text = "x 1234 it's IT'S ++ a";
    let words = [
        "x", " 1234", " 123", "1234", "123", "234", "12", " it's", " it", "'s", " IT'S", " IT",
        "'S", " ++", "++", " a",
    ];
    let cut = |pre: &str| {
        let tokenizer = tokenizer_of(&greedy(pre, &words)).unwrap().unwrap();
        let tokens = tokenizer.encode(text).unwrap();
        tokens
            .iter()
            .map(|&token| tokenizer.decode(&[token]).unwrap())
            .collect::<Vec<_>>()
            .join("|")
    };
    assert_eq!(cut("gpt-2"), "x| 1234| it|'s| IT|'|S| ++| a");
    assert_eq!(cut("smollm"), "x| |1|2|3|4| it|'s| IT|'|S| ++| a");
    assert_eq!(cut("llama-bpe"), "x| |123|4| it|'s| IT|'S| ++| a");
    assert_eq!(cut("default"), "x| |123|4| it|'|s| IT|'|S| |++| a");
}

#[test]
fn what_is_not_read_is_named() {
    let changed = |key: &str, value: Meta| {
        let mut gguf = shipped_as_gguf();
        gguf.set(key, value);
        tokenizer_of(&gguf).unwrap_err()
    };
    let error = changed("tokenizer.ggml.model", "llama".into());
    assert!(
        error.contains("model `llama`") && error.contains("gpt2"),
        "{error}"
    );
    let error = changed("tokenizer.ggml.pre", "tekken".into());
    assert!(
        error.contains("`tekken`") && error.contains("smollm"),
        "{error}"
    );
    let error = changed(
        "tokenizer.ggml.merges",
        Meta::Texts(vec!["never there".into()]),
    );
    assert!(error.contains("merge `never there`"), "{error}");
    let error = changed("tokenizer.ggml.tokens", Meta::Texts(vec![]));
    assert!(error.contains("no tokens"), "{error}");
    let error = changed(
        "tokenizer.ggml.tokens",
        Meta::Texts(vec!["a".into(), "a".into()]),
    );
    assert!(error.contains("are the same"), "{error}");
    assert!(tokenizer_of(&llama_metadata()).unwrap().is_none());
}

#[test]
fn hostile_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let good: Value =
        serde_json::from_slice(&fs::read(models().join("tokenizer.json")).unwrap()).unwrap();
    let mut merges = good.clone();
    merges["model"]["merges"] = json!([["a", "b".repeat(1000)]]);
    let mut no_model = good.clone();
    no_model["model"] = Value::Null;
    for json in [merges, no_model, json!([]), json!({})] {
        fs::write(&path, json.to_string()).unwrap();
        let error = Tokenizer::open(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn what_the_crate_panics_on_is_an_error() {
    let file = |model: Value| {
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model,
        })
    };
    let words = || file(json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}));
    let with = |key: &str, value: Value| {
        let mut json = words();
        json[key] = value;
        json
    };
    // Not one may take the process with it; the first is known to panic inside.
    let charsmap = with(
        "normalizer",
        json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
    );
    for (json, refused) in [
        (words(), false),
        (charsmap, true),
        (
            with(
                "pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "((("}, "behavior": "Isolated", "invert": false}),
            ),
            true,
        ),
        (
            file(json!({"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]]})),
            true,
        ),
        (
            file(json!({"type": "Unigram", "unk_id": null, "vocab": [["b", 0.0]]})),
            true,
        ),
        (
            file(json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "missing"})),
            true,
        ),
        (
            file(
                json!({"type": "BPE", "continuing_subword_prefix": "####", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}),
            ),
            true,
        ),
    ] {
        let encoded = Tokenizer::parse(Path::new("hostile"), json.to_string().as_bytes())
            .map_err(|e| e.to_string())
            .and_then(|tokenizer| {
                tokenizer
                    .encode("zz a \u{1F980} \0")
                    .map_err(|e| e.to_string())
            });
        assert_eq!(encoded.is_err(), refused, "{json}: {encoded:?}");
    }
}
