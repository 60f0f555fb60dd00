//! `fgmp ets`: tree search.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use assert_cmd::Command;
use predicates::str::contains;
use serde_json::Value;

fn fgmp() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("fgmp"));
    command.arg("ets");
    command
}

fn json(arguments: &[&str]) -> Value {
    let output = fgmp()
        .args(arguments)
        .args(["--json", "-"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() != Some(2), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_default_problem_is_solved_and_its_tree_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree.svg");
    fgmp()
        .args(["--problem", "2 12 13 16 16:188", "--tree"])
        .arg(&tree)
        .assert()
        .success()
        .stdout(contains(
            "2 12 13 16 16:188: ETS at width 64, FGMP arithmetic, seed 1",
        ))
        .stdout(contains(
            "solved: every step is right, and every number used once",
        ));
    let svg = fs::read_to_string(tree).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("tree search for 2 12 13 16 16:188"));
}

#[test]
fn a_search_is_the_same_again_and_says_what_it_took() {
    let arguments = [
        "--problem",
        "6 7 7 8 10:65",
        "--width",
        "8",
        "--arithmetic",
        "fp32",
        "--tries",
        "1",
    ];
    let first = json(&arguments);
    let second = json(&arguments);
    let figures = |report: &Value| {
        let report = &report[0];
        (
            report["answer"].clone(),
            report["cost"]["kv_tokens"].clone(),
            report["cost"]["passes"].clone(),
        )
    };
    assert_eq!(figures(&first), figures(&second));
    assert_eq!(first.as_array().unwrap().len(), 1);
    assert_eq!(first[0]["cost"]["calls"], 32);
    let pages = (first[0]["cost"]["pages_peak"].as_u64().unwrap() / 2).to_string();
    let mut short = arguments.to_vec();
    short.extend(["--pages", &pages]);
    let third = json(&short);
    assert_eq!(third[0]["answer"], first[0]["answer"]);
    assert!(third[0]["cost"]["recomputed"].as_u64().unwrap() > 0);
}

#[test]
fn the_hardware_selects_the_same() {
    let report = json(&[
        "--problem",
        "6 7 7 8 10:65",
        "--width",
        "16",
        "--arithmetic",
        "fp32",
        "--tries",
        "1",
        "--cosim",
    ]);
    let hardware = &report[0]["cosimulation"];
    assert_eq!(hardware["instances"], 3);
    assert_eq!(hardware["mismatches"], 0);
    assert_eq!(hardware["refused"], 0);
    assert!(hardware["most_cycles"].as_u64().unwrap() < 10_000);
    fgmp()
        .args(["--cosim", "--method", "rebase"])
        .assert()
        .code(2)
        .stderr(contains(
            "--cosim: the hardware makes the selections of --method ets",
        ));
}

#[test]
fn what_can_t_be_solved_ends_with_1() {
    fgmp()
        .args([
            "--problem",
            "1 1:50",
            "--width",
            "2",
            "--tries",
            "2",
            "--arithmetic",
            "fp32",
        ])
        .assert()
        .code(1)
        .stdout(contains("no order of operations solves it"))
        .stdout(contains("this one is another"))
        .stdout(contains("at width 4"));
}

#[test]
fn wrong_arguments_are_refused() {
    for (arguments, message) in [
        (
            &["--problem", "1 2 3"][..],
            "expected numbers, a colon and a target",
        ),
        (
            &["--problem", "1 2 3 4 5 6:7"],
            "expected 2 to 5 numbers, found 6",
        ),
        (
            &["--problem", "1 2000:7"],
            "numbers and target are from 1 to 999; found 2000",
        ),
        (&["--lambda-b=-1"], "--lambda-b"),
        (
            &["--lambda-b", "1,2"],
            "several are compared with --bench only",
        ),
        (&["--score-temperature", "0"], "--score-temperature"),
        (
            &["--pages", "1"],
            "a pool of 1 page doesn't hold the prompt of 18 tokens",
        ),
        (
            &["--policy", "shared-4x3"],
            "a vocabulary of 4096 is not that of the Countdown models",
        ),
        (&["--reward", "countdown-policy"], "is no reward model"),
        (&["--reward", "nowhere.safetensors"], "nowhere.safetensors"),
        (&["--bench", "--problems", "nowhere.txt"], "nowhere.txt"),
        (&["--tree", "nowhere/tree.svg"], "nowhere/tree.svg"),
    ] {
        fgmp()
            .args(["--arithmetic", "fp32"])
            .args(arguments)
            .assert()
            .code(2)
            .stderr(contains(message));
    }
    for arguments in [
        &["--width", "0"][..],
        &["--cut", "3"],
        &["--count", "3"],
        &["--bench", "--problem", "1 2:3"],
    ] {
        fgmp().args(arguments).assert().code(2);
    }
}

#[test]
fn the_bench_compares_all_methods() {
    let folder = tempfile::tempdir().unwrap();
    let problems = folder.path().join("problems.txt");
    fs::write(&problems, "6 7 7 8 10:65\n\n1 2 4 5 11:45\n").unwrap();
    let report = json(&[
        "--bench",
        "--problems",
        problems.to_str().unwrap(),
        "--widths",
        "4,9",
        "--timed",
        "1",
    ]);
    let widths = report["widths"].as_array().unwrap();
    assert_eq!(widths.len(), 2);
    for width in widths {
        assert_eq!(width["problems"], 2);
        let lines = width["lines"].as_array().unwrap();
        assert_eq!(lines.len(), 7);
        for line in lines {
            assert!(line["kv_tokens"]["value"].as_f64().unwrap() > 0.0);
            let held = line["held_tokens"]["value"].as_f64().unwrap();
            assert!(held <= line["kv_tokens"]["value"].as_f64().unwrap());
        }
        // Six searches with enough pages, six with half of REBASE's.
        let timings = width["timings"].as_array().unwrap();
        assert_eq!(timings.len(), 12);
        assert!(timings[6]["cost"]["pages_peak"].as_u64() <= timings[6]["pages"].as_u64());
    }
    fs::write(&problems, "6 7 7 8 10:65\n1 2 four:45\n").unwrap();
    fgmp()
        .args(["--bench", "--problems"])
        .arg(&problems)
        .assert()
        .code(2)
        .stderr(contains("line 2: expected numbers, a colon and a target"));
}
