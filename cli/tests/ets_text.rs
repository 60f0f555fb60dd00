//! `fgmp ets --text` as its user sees it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use golden::tensors::{RawTensor, TensorFile};
use predicates::str::contains;

/// In the root of the checkout, where `./setup --models` puts the sentence encoder.
fn fgmp() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("fgmp"));
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env_remove("FGMP_MINILM")
        .arg("ets");
    command
}

/// A small search in full precision.
const SMALL: [&str; 10] = [
    "--text",
    "Return a list of",
    "--width",
    "6",
    "--steps",
    "3",
    "--step-tokens",
    "10",
    "--arithmetic",
    "fp32",
];

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = fgmp()
        .args(SMALL)
        .args(arguments)
        .args(["--json", "-"])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    serde_json::from_slice(&output).unwrap()
}

/// A sentence encoder of the right form, whose weights come from a formula.
fn encoder(folder: &Path) {
    let tiny =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/checkpoints/tests/vectors/tiny-bert");
    for name in ["config.json", "tokenizer.json", "sentence_bert_config.json"] {
        std::fs::copy(tiny.join(name), folder.join(name)).unwrap();
    }
    let mut file = TensorFile::new(folder.join("model.safetensors"));
    let mut add = |name: String, shape: &[usize]| {
        let seed = file.tensors.len();
        let data: Vec<f32> = (0..shape.iter().product())
            .map(|place: usize| ((place * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.5)
            .collect();
        file.tensors
            .insert(name, RawTensor::from_f32(shape.to_vec(), &data));
    };
    for (name, rows) in [("word", 24), ("position", 12), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, 24]);
    }
    let mut norms = vec!["embeddings".to_owned()];
    for layer in 0..2 {
        let of = |part: &str| format!("encoder.layer.{layer}.{part}");
        for (part, outputs, inputs) in [
            ("attention.self.query", 24, 24),
            ("attention.self.key", 24, 24),
            ("attention.self.value", 24, 24),
            ("attention.output.dense", 24, 24),
            ("intermediate.dense", 40, 24),
            ("output.dense", 24, 40),
        ] {
            add(of(&format!("{part}.weight")), &[outputs, inputs]);
            add(of(&format!("{part}.bias")), &[outputs]);
        }
        norms.extend([of("attention.output"), of("output")]);
    }
    for norm in norms {
        add(format!("{norm}.LayerNorm.weight"), &[24]);
        add(format!("{norm}.LayerNorm.bias"), &[24]);
    }
    file.save(&folder.join("model.safetensors")).unwrap();
}

#[test]
fn a_text_is_written_drawn_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path());
    let path = folder.path().to_str().unwrap();
    let picture = folder.path().join("tree.svg");
    let file = folder.path().join("report.json");
    fgmp()
        .args(SMALL)
        .args(["--embeddings", path, "--tree"])
        .arg(&picture)
        .arg("--json")
        .arg(&file)
        .assert()
        .success()
        .stdout(contains("ETS at width 6, FP32 arithmetic: base-4 (embedded) writes, shared-4x3 (embedded) judges"))
        .stdout(contains("that say different things"))
        .stdout(contains("6 texts are complete and say "))
        .stdout(contains("\nReturn a list of"));
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("framed: complete") && svg.contains("6 trajectories completed"));
    assert!(!svg.contains("right answer") && !svg.contains("of them right"));

    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(report["completed"], 6);
    assert_eq!(report["settings"]["cut"], 0.1);
    let texts = report["texts"].as_array().unwrap();
    let steps = report["answer"]["steps"].as_array().unwrap();
    let text: String = steps.iter().map(|step| step.as_str().unwrap()).collect();
    assert_eq!(report["answer"]["answer"], text);
    // The best of all, each in one of the clusters.
    let score = report["score"].as_f64().unwrap();
    let different = report["different"].as_u64().unwrap();
    assert!((1..=6).contains(&different));
    for it in texts {
        assert!(it["score"].as_f64().unwrap() <= score + 1e-4);
        assert!(it["cluster"].as_u64().unwrap() < different);
    }
    assert!(texts.iter().any(|it| it["text"] == text));
    // Vectors are asked for behind two steps, and for the whole texts; none twice.
    let encoded = report["encoded"].as_u64().unwrap();
    assert!((2..=18).contains(&encoded), "{encoded}");
}

#[test]
fn the_reward_model_compares_where_there_is_no_encoder() {
    let report = json(&["--embeddings", "reward"]);
    assert_eq!(report["embeddings"], "reward");
    assert_eq!(
        (&report["different"], &report["encoded"]),
        (&serde_json::Value::Null, &0.into())
    );
    // The same text for the same seed, another for another.
    let text = |it: &serde_json::Value| it["answer"]["answer"].clone();
    assert_eq!(text(&report), text(&json(&["--embeddings", "reward"])));
    assert_ne!(
        text(&report),
        text(&json(&["--embeddings", "reward", "--seed", "500"]))
    );
}

#[test]
fn methods_begin_alike_and_all_complete() {
    for method in ["rebase", "beam", "dvts", "best-of-n", "majority"] {
        let report = json(&["--embeddings", "reward", "--method", method]);
        // Beam search rounds up for each of its beams, as published: three of them are at most two above the width at each of the three steps behind the first.
        let most = if method == "beam" { 6 + 3 * 2 } else { 6 };
        let completed = report["completed"].as_u64().unwrap();
        assert!((1..=most).contains(&completed), "{method}: {completed}");
        assert!(!report["answer"].is_null(), "{method}");
    }
}

#[test]
fn minilm_compares_where_it_is_installed() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/models/all-MiniLM-L6-v2");
    let folder = std::env::var_os("FGMP_MINILM").map_or(own, PathBuf::from);
    if !folder.is_dir() {
        assert!(
            std::env::var_os("FGMP_FULL").is_none(),
            "all-MiniLM-L6-v2 is missing; ./setup --models installs it, or FGMP_MINILM names its folder"
        );
        // Past the harness, which hides what tests print that pass.
        std::io::stderr()
            .write_all(b"SKIPPED: all-MiniLM-L6-v2 is not installed (./setup --models)\n")
            .unwrap();
        return;
    }
    let folder = folder.canonicalize().unwrap();
    let report = json(&["--embeddings", folder.to_str().unwrap()]);
    assert_eq!(report["completed"], 6);
    assert!(report["different"].as_u64().unwrap() >= 1);
    // The same by the variable.
    let output = fgmp()
        .args(SMALL)
        .args(["--json", "-"])
        .env("FGMP_MINILM", &folder)
        .assert()
        .success();
    let again: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(again["texts"], report["texts"]);
}

#[test]
fn what_cannot_be_searched_is_refused_readably() {
    let refused = |arguments: &[&str], message: &str| {
        fgmp()
            .args(arguments)
            .assert()
            .failure()
            .stderr(contains(message));
    };
    let with = |more: &[&'static str]| -> Vec<&'static str> {
        let text = ["--text", "Return a list of", "--embeddings", "reward"];
        [&text[..], more].concat()
    };
    refused(
        &["--text", " \n", "--embeddings", "reward"],
        "--text: it is empty; give the beginning of a text, like \"Return a list of\"",
    );
    refused(&with(&["--policy", "no-such-model"]), "no-such-model");
    refused(&with(&["--reward", "no-such-model"]), "no-such-model");
    refused(
        &with(&["--reward", "countdown-prm"]),
        "--reward countdown-prm (embedded): has a vocabulary of",
    );
    refused(
        &with(&["--policy", "countdown-policy"]),
        "the model comes with no tokenizer, and a prompt is text; give one with --tokenizer",
    );
    refused(
        &with(&["--steps", "30"]),
        "--steps 30 of up to --step-tokens 24 don't fit behind the",
    );
    refused(&with(&["--steps", "0"]), "--steps");
    refused(&with(&["--bench"]), "cannot be used with");
    refused(&with(&["--calculator"]), "cannot be used with");
    refused(&with(&["--tries", "2"]), "cannot be used with");
    refused(&with(&["--problem", "1 2:3"]), "cannot be used with");
    refused(&["--steps", "3"], "--text");
    refused(
        &[
            "--text",
            "Return a list of",
            "--embeddings",
            "no/such/folder",
        ],
        "`./setup --models` installs all-MiniLM-L6-v2",
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    refused(&["--text", "a", "--embeddings", path], "config.json");
}
