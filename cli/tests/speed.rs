//! `fgmp speed` as its user sees it.
#![allow(clippy::unwrap_used, clippy::panic)]

use assert_cmd::Command;
use predicates::str::contains;

fn fgmp() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("fgmp"))
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = fgmp()
        .arg("speed")
        .args(arguments)
        .args(["--json", "-"])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    serde_json::from_slice(&output).unwrap()
}

#[test]
fn text_is_that_of_decoding_token_by_token() {
    let report = json(&["--tokens", "20"]);
    assert_eq!(report["tokens_equal"], true);
    assert_eq!(report["tokens"], report["sequential_tokens"]);
    let passes = |way: &str| report[way]["passes"].as_u64().unwrap();
    assert_eq!(passes("sequential"), 60);
    assert!((22..50).contains(&passes("speculative")));
    let speculative = &report["speculative"];
    assert_eq!(speculative["committed"], 20);
    assert_eq!(
        speculative["rows"].as_u64().unwrap() + speculative["bubbles"].as_u64().unwrap(),
        3 * passes("speculative")
    );
    // 5.6125 bits of each of the layers' 3.2 million weights, once a pass.
    let bytes = speculative["weight_bytes"].as_f64().unwrap() / passes("speculative") as f64;
    assert!((bytes / 3_211_264.0 * 8.0 - 5.6125).abs() < 0.01, "{bytes}");
}

#[test]
fn drawn_tokens_follow_the_seed_and_full_precision_goes_as_well() {
    let drawn = |seed: &str| {
        let report = json(&[
            "--tokens",
            "10",
            "--temperature",
            "0.9",
            "--arithmetic",
            "fp32",
            "--seed",
            seed,
        ]);
        assert_eq!(report["tokens_equal"], true);
        report["text"].clone()
    };
    assert_eq!(drawn("3"), drawn("3"));
    assert_ne!(drawn("3"), drawn("4"));
}

#[test]
fn a_model_without_shared_layers_has_nothing_to_guess() {
    let report = json(&["--model", "base-4", "--tokens", "6", "--arithmetic", "fp32"]);
    assert_eq!(report["repetitions"], 1);
    assert_eq!(report["speculative"]["passes"], 6);
}

#[test]
fn the_pipeline_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipeline.svg");
    fgmp()
        .args(["speed", "--tokens", "12", "--diagram"])
        .arg(&file)
        .assert()
        .success()
        .stdout(contains("the same tokens as decoding token by token"))
        .stdout(contains("| pass |"));
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("committed"));
    // A frame around each committed token, besides the cells.
    assert!(svg.matches("<rect").count() > 12 * 3);
}

#[test]
fn peers_stand_in_one_table() {
    let output = fgmp()
        .args([
            "speed",
            "--bench",
            "--prompts",
            "1",
            "--prompt-tokens",
            "16",
        ])
        .args(["--tokens", "40", "--windows", "1", "--confidence", "0.5"])
        .args(["--json", "-"])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // One prompt may miss a bar that many reach; the exit status says so.
    let missed = report["bars"]
        .as_array()
        .unwrap()
        .iter()
        .any(|bar| bar["reached"] == false && bar["timed"] == false);
    assert_eq!(output.status.code(), Some(i32::from(missed)));
    let tables = report["arithmetics"].as_array().unwrap();
    assert_eq!(tables.len(), 2);
    for table in tables {
        let rows = table["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 6);
        let of = |row: usize, key: &str| rows[row][key].as_f64().unwrap();
        assert_eq!(of(0, "passes_per_token"), 3.0);
        assert!(of(1, "passes_per_token") < 1.7);
        for exact in [0, 1, 2, 4] {
            assert_eq!(of(exact, "agreement"), 1.0);
            assert_eq!(of(exact, "perplexity"), of(0, "perplexity"));
        }
        assert!(of(3, "passes_per_token") < 3.0 && of(3, "agreement") <= 1.0);
        assert_eq!(of(5, "passes_per_token"), 1.0);
        assert!(of(5, "agreement") < 1.0);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let refused = |arguments: &[&str], message: &str| {
        fgmp()
            .arg("speed")
            .args(arguments)
            .assert()
            .code(2)
            .stderr(contains(message));
    };
    refused(&["--tokens", "0"], "at least one token of each");
    refused(&["--tokens", "600"], "context of 512");
    refused(&["--temperature", "0"], "above 0");
    refused(&["--temperature", "nan"], "above 0");
    refused(&["--model", "absent.gguf"], "absent.gguf");
    refused(&["--prompts", "3"], "--bench");
    refused(&["--bench", "--tokens", "500"], "context of 512");
    refused(&["--bench", "--prompts", "9999"], "--prompts 9999");
    refused(&["--bench", "--draft", "absent"], "absent");
    refused(&["--diagram", "."], "is a folder");
    refused(&["--repetitions", "9", "--tokens", "3"], "1 to 8");
}
