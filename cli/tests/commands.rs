//! The command as its user sees it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use golden::tensors::{RawTensor, TensorFile};
use predicates::prelude::*;
use predicates::str::contains;
use safetensors::Dtype;

fn fgmp() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("fgmp"));
    command.env_remove("VERILATOR");
    command
}

/// A folder for one test.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes tensors and returns the file's path.
fn tensors(folder: &Path, name: &str, tensors: &[(&str, RawTensor)]) -> PathBuf {
    let path = folder.join(name);
    let mut file = TensorFile::new(&path);
    file.tensors = tensors
        .iter()
        .map(|(name, tensor)| ((*name).to_owned(), tensor.clone()))
        .collect();
    file.save(&path).unwrap();
    path
}

/// A matrix of smooth values with an outlier in each row, so that both kinds of block occur.
fn matrix(rows: usize, k: usize) -> RawTensor {
    let data: Vec<f32> = (0..rows * k)
        .map(|i| {
            let (row, column) = (i / k, i % k);
            let x = ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
            if column == (row * 7) % k { x * 40.0 } else { x }
        })
        .collect();
    RawTensor::from_f32(vec![rows, k], &data)
}

fn json(output: &[u8]) -> serde_json::Value {
    serde_json::from_slice(output)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(output)))
}

/// Nothing of a failed run is left: neither the output nor a partial file.
fn only(folder: &Path, files: &[&str]) {
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, files);
}

#[test]
fn quantize_dequantize_and_matmul_round_trip() {
    let folder = folder();
    let w = tensors(
        folder.path(),
        "w.safetensors",
        &[
            ("w", matrix(12, 40)),
            ("bias", RawTensor::from_f32(vec![3], &[1.0; 3])),
        ],
    );
    let a = tensors(folder.path(), "a.safetensors", &[("a", matrix(5, 40))]);
    for (input, output) in [(&w, "wq.safetensors"), (&a, "aq.safetensors")] {
        fgmp()
            .current_dir(folder.path())
            .arg("quantize")
            .arg(input)
            .args(["-o", output, "--fp8-share", "0.5"])
            .assert()
            .success()
            .stdout(contains("bits an element"));
    }
    let report = fgmp()
        .current_dir(folder.path())
        .args(["quantize", "w.safetensors", "--json", "-"])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let report = json(&report);
    let tensor = &report["tensors"][0];
    assert_eq!(tensor["name"], "w");
    assert_eq!(tensor["blocks"], 36);
    for field in [
        "shape",
        "tensor_scale",
        "fp8_blocks",
        "bits_per_element",
        "mse",
    ] {
        assert!(!tensor[field].is_null(), "{field} is missing");
    }

    fgmp()
        .current_dir(folder.path())
        .args(["dequantize", "wq.safetensors", "-o", "wd.safetensors"])
        .assert()
        .success()
        .stdout(contains("1 tensors decoded to f32, 1 copied"));
    let decoded = TensorFile::open(&folder.path().join("wd.safetensors")).unwrap();
    let original = TensorFile::open(&w).unwrap().tensor("w").unwrap();
    let decoded_w = decoded.tensor("w").unwrap();
    assert_eq!(decoded_w.shape, original.shape);
    assert_eq!(decoded.tensor("bias").unwrap().data, [1.0; 3]);
    // FP4's worst relative step within a block is a quarter of its largest element.
    for (block, decoded) in original.data.chunks(8).zip(decoded_w.data.chunks(8)) {
        for (x, y) in block.iter().zip(decoded) {
            assert!((x - y).abs() <= 20.0 / 6.0, "{x} became {y}");
        }
    }

    let product = fgmp()
        .current_dir(folder.path())
        .args([
            "matmul",
            "wq.safetensors",
            "aq.safetensors:a",
            "-o",
            "y.safetensors",
            "--raw",
            "--json",
            "-",
        ])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    assert_eq!(json(&product)["shape"], serde_json::json!([5, 12]));
    let y = TensorFile::open(&folder.path().join("y.safetensors")).unwrap();
    assert_eq!(y.raw("y").unwrap().dtype, Dtype::BF16);
    let accumulators = y.raw("accumulator").unwrap();
    assert_eq!(
        (accumulators.dtype, &accumulators.shape),
        (Dtype::I64, &vec![5, 12])
    );
    // Against decoded tensors in FP64: the exact sum, scaled.
    let aq = golden::packed::PackedFile::open(&folder.path().join("aq.safetensors")).unwrap();
    let wq = golden::packed::PackedFile::open(&folder.path().join("wq.safetensors")).unwrap();
    let (aq, wq) = (&aq.packed["a"], &wq.packed["w"]);
    let (av, wv) = (aq.unscaled_values(), wq.unscaled_values());
    for t in 0..5 {
        for o in 0..12 {
            let padded = aq.row_blocks() * 16;
            let sum: f64 = (0..padded)
                .map(|k| f64::from(av[t * padded + k]) * f64::from(wv[o * padded + k]))
                .sum();
            let at = (t * 12 + o) * 8;
            let stored = i64::from_le_bytes(accumulators.bytes[at..at + 8].try_into().unwrap());
            assert_eq!(stored as f64, sum * f64::from(1 << 20));
        }
    }
}

#[test]
fn the_packed_model_evaluates_as_the_model_it_came_from() {
    let folder = folder();
    fgmp()
        .current_dir(folder.path())
        .args([
            "quantize",
            "-o",
            "model.safetensors",
            "--calibration-windows",
            "1",
        ])
        .assert()
        .success()
        .stdout(contains("29.84 % below FP8's 8"));
    let perplexity = |arguments: &[&str]| {
        let output = fgmp()
            .current_dir(folder.path())
            .args(["eval", "--windows", "1", "--tokens", "valid", "--json", "-"])
            .args(arguments)
            .assert()
            .success()
            .get_output()
            .stdout
            .clone();
        json(&output)["evaluations"][0].clone()
    };
    let packed = perplexity(&["model.safetensors"]);
    let direct = perplexity(&["--scheme", "fgmp", "--calibration-windows", "1"]);
    assert_eq!(packed["perplexity"], direct["perplexity"]);
    assert_eq!(packed["tokens"], 512);
    // A window may be shorter; what calibration left can't change.
    let short = perplexity(&["model.safetensors", "--context", "128"]);
    assert_eq!(short["tokens"], 128);
    refused(
        fgmp().current_dir(folder.path()).args([
            "eval",
            "model.safetensors",
            "--calibration",
            "text.txt",
        ]),
        "is already quantized, so --calibration can't change it",
    );
    assert_eq!(
        packed["weight_fp8_share_by_layer"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    assert_eq!(
        packed["activation_fp8_share_by_layer"]
            .as_array()
            .unwrap()
            .len(),
        12
    );
}

#[test]
fn fgmp_lies_between_nvfp4_and_fp8() {
    let output = fgmp()
        .args([
            "eval",
            "--windows",
            "2",
            "--tokens",
            "valid",
            "--calibration-windows",
            "2",
            "--json",
            "-",
        ])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let report = json(&output);
    let of = |scheme: &str| {
        let row = report["evaluations"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["scheme"] == scheme)
            .unwrap();
        row["perplexity"].as_f64().unwrap()
    };
    assert!(
        of("bf16") < of("fp8") && of("fp8") < of("fgmp") && of("fgmp") < of("nvfp4"),
        "{report}"
    );
}

#[test]
fn matmul_without_arguments_multiplies_a_layer_of_the_embedded_model() {
    fgmp()
        .arg("matmul")
        .assert()
        .success()
        .stdout(contains("64 x 704 BF16, K = 256"));
}

#[test]
fn emit_writes_a_bundle() {
    let folder = folder();
    let output = fgmp()
        .current_dir(folder.path())
        .args([
            "emit", "--rows", "3", "--cols", "5", "-o", "core", "--json", "-",
        ])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let report = json(&output);
    assert_eq!(report["parameters"]["rows"], 3);
    assert_eq!(report["parameters"]["acc_bits"], 56);
    for file in report["files"].as_array().unwrap() {
        assert!(
            folder
                .path()
                .join("core")
                .join(file.as_str().unwrap())
                .is_file(),
            "{file} is missing"
        );
    }
    only(folder.path(), &["core"]);
}

#[test]
fn cosim_agrees_in_both_simulators() {
    for (simulator, vectors) in [("verilator", "4000"), ("rust-hdl", "96")] {
        let output = fgmp()
            .args([
                "cosim",
                "--rows",
                "2",
                "--cols",
                "2",
                "--quantizer-blocks",
                "8",
                "--simulator",
                simulator,
            ])
            .args(["--vectors", vectors, "--json", "-"])
            .assert()
            .success()
            .get_output()
            .stdout
            .clone();
        let report = json(&output);
        assert_eq!(report["mismatches"], 0);
        assert!(report["vectors"].as_u64().unwrap() >= vectors.parse().unwrap());
        for field in [
            "cycles",
            "cycles_per_second",
            "pairs_per_second",
            "coverage",
            "simulator",
            "pairs_by_mode",
        ] {
            assert!(!report[field].is_null(), "{field} is missing");
        }
    }
}

#[test]
fn every_layer_of_the_model_runs_through_the_accelerator() {
    let output = fgmp()
        .args([
            "cosim", "--top", "--tokens", "4", "--stalls", "10", "--json", "-",
        ])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let report = json(&output);
    assert_eq!(report["mismatches"], 0);
    for pass in report["passes"].as_array().unwrap() {
        assert_eq!(pass["products"]["runs"], 84);
        assert_eq!(pass["logits_differ"], 0);
        for layer in pass["layers"].as_array().unwrap() {
            let utilisation = layer["utilisation"].as_f64().unwrap();
            assert!(utilisation >= 0.95, "{}: {utilisation}", layer["name"]);
        }
    }
}

#[test]
fn emit_writes_the_accelerator_with_its_registers() {
    let folder = folder();
    let output = fgmp()
        .current_dir(folder.path())
        .args([
            "emit",
            "--top",
            "accelerator",
            "--rows",
            "2",
            "--cols",
            "2",
            "--json",
            "-",
        ])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let report = json(&output);
    assert_eq!(report["top"], "fgmp_accelerator");
    assert_eq!(report["parameters"]["weight_ports"], 2);
    let registers = report["registers"].as_array().unwrap();
    assert!(
        registers
            .iter()
            .any(|register| register["name"] == "CONTROL")
    );
    let bundle = folder.path().join("fgmp_accelerator");
    let header = std::fs::read_to_string(bundle.join("fgmp_registers.h")).unwrap();
    assert!(header.contains("#define FGMP_CONTROL "));
    only(folder.path(), &["fgmp_accelerator"]);
}

#[test]
fn emit_writes_the_other_tops() {
    for (arguments, top, parameter, value, files) in [
        (
            &["speed", "--rows", "1", "--cols", "2"][..],
            "fgmp_speed",
            "entry_bits",
            12,
            &["fgmp_speed_registers.h", "speed_registers.md"][..],
        ),
        (
            &["tree-selector", "--leaves", "20"],
            "fgmp_tree_selector",
            "built_leaves",
            64,
            &["tb/fgmp_tree_selector_tb.v", "tb/jobs.hex"],
        ),
        (
            &["page-table", "--segments", "100", "--pages", "99"],
            "fgmp_page_table",
            "built_segments",
            256,
            &["tb/fgmp_page_table_tb.v", "tb/commands.hex"],
        ),
    ] {
        let folder = folder();
        let output = fgmp()
            .current_dir(folder.path())
            .args(["emit", "--json", "-", "--top"])
            .args(arguments)
            .assert()
            .success()
            .get_output()
            .stdout
            .clone();
        let report = json(&output);
        assert_eq!(report["top"], top);
        assert_eq!(report["parameters"][parameter], value);
        let last = report["modules"].as_array().unwrap().last().unwrap();
        assert_eq!(last["name"], top);
        only(folder.path(), &[top]);
        for file in files {
            assert!(folder.path().join(top).join(file).is_file(), "{file}");
        }
    }
}

#[test]
fn cosim_falls_back_and_says_so_when_verilator_is_missing() {
    fgmp()
        .env("VERILATOR", "/nonexistent/verilator")
        .args([
            "cosim",
            "--rows",
            "1",
            "--cols",
            "1",
            "--vectors",
            "40",
            "--quantizer-blocks",
            "2",
        ])
        .assert()
        .success()
        .stdout(
            contains("was not found")
                .and(contains("apt-get install"))
                .and(contains("0 mismatches")),
        );
}

#[test]
fn cosim_runs_a_layer_and_records_a_waveform() {
    let folder = folder();
    fgmp()
        .current_dir(folder.path())
        .args([
            "cosim",
            "--rows",
            "2",
            "--cols",
            "2",
            "--vectors",
            "0",
            "--quantizer-blocks",
            "0",
        ])
        .args([
            "--layer",
            "layers.1.self_attn.k_proj",
            "--layer-tokens",
            "2",
            "--trace",
            "core.vcd",
        ])
        .assert()
        .success()
        .stdout(contains("layers.1.self_attn.k_proj").and(contains("wrote core.vcd")));
    let wave = std::fs::read_to_string(folder.path().join("core.vcd")).unwrap();
    assert!(wave.contains("$enddefinitions") && wave.contains("weight_valid"));
}

#[test]
fn synth_counts_the_cells_of_a_module() {
    // One of the core's, one that only the tree selector has.
    for (module, target, cell) in [
        ("aligned_product", "ice40", "SB_LUT4"),
        ("share_server", "ecp5", "LUT4"),
    ] {
        let output = fgmp()
            .args(["synth", "--module", module, "--target", target])
            .args(["--json", "-"])
            .assert()
            .success()
            .get_output()
            .stdout
            .clone();
        assert!(
            json(&output)["cells"][cell].as_u64().unwrap() > 50,
            "{module}"
        );
    }
}

#[test]
fn synth_prints_a_table_of_parts_with_bars_and_peers() {
    let folder = folder();
    let figures = folder.path().join("table.json");
    fgmp()
        .args([
            "synth",
            "--part",
            "fp4_sum",
            "--no-route",
            "--fresh",
            "--json",
        ])
        .arg(&figures)
        .assert()
        .success()
        .stdout(
            contains("fp4_sum")
                .and(contains("MX-for-FPGA"))
                .and(contains("<= 650 LUT4"))
                .and(contains("not measured")),
        );
    let figures = json(&std::fs::read(&figures).unwrap());
    assert!(figures["conditions"].is_null());
    let part = &figures["parts"][0];
    assert_eq!(part["builds"].as_array().unwrap().len(), 2);
    assert_eq!(
        part["bars"][0]["value"].as_f64(),
        part["builds"][0]["lut4"].as_f64()
    );
}

#[test]
fn synth_places_a_module_once_and_lists_it() {
    let folder = folder();
    for _ in 0..2 {
        fgmp()
            .current_dir(folder.path())
            .args(["synth", "--module", "e4m3_round", "--target", "ice40:up5k"])
            .args(["--seeds", "2", "--mhz", "20", "--store", "results.jsonl"])
            .assert()
            .success()
            .stdout(contains("ICESTORM_LC").and(contains("slowest path")));
    }
    let lines = std::fs::read_to_string(folder.path().join("results.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 3, "one mapping and two placements");
    fgmp()
        .current_dir(folder.path())
        .args(["synth", "--list", "--store", "results.jsonl"])
        .assert()
        .success()
        .stdout(contains("fgmp_e4m3_round").and(contains("MHz, seed 2")));
    std::fs::write(folder.path().join("broken.jsonl"), "not a line\n").unwrap();
    refused(
        fgmp()
            .current_dir(folder.path())
            .args(["synth", "--list", "--store", "broken.jsonl"]),
        "broken.jsonl, line 1",
    );
}

#[test]
fn synth_maps_a_module_to_standard_cells_and_proves_it() {
    let output = fgmp()
        .args(["synth", "--target", "asic", "--module", "e4m3_round"])
        .args(["--prove", "--json", "-"])
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let figures = json(&output);
    assert!(figures["area"].as_f64().unwrap() > 1000.0, "{figures}");
    assert_eq!(figures["proof"]["top"], "fgmp_e4m3_round");
    assert!(figures["library"].as_str().unwrap().contains("osu018"));
    refused(
        fgmp().args(["synth", "--target", "asic:nothing.lib"]),
        "nothing.lib",
    );
    refused(
        fgmp().args(["synth", "--energy", "--liberty", "nothing.lib"]),
        "nothing.lib",
    );
    refused(
        fgmp().args(["synth", "--energy", "--selection", "best"]),
        "invalid value 'best'",
    );
}

/// All parts mapped and simulated with the embedded model's blocks, and every result compared with the golden model's.
#[test]
fn synth_measures_energy() {
    if std::env::var("FGMP_FULL").as_deref() != Ok("1") {
        eprintln!("left out without FGMP_FULL=1: energy of the embedded model, three minutes");
        return;
    }
    let folder = folder();
    let store = folder.path().join("results.jsonl");
    let output = fgmp()
        .args(["synth", "--energy", "--selection", "pairs", "--seeds", "1"])
        .args(["--no-parallel-quantizer", "--json", "-", "--store"])
        .arg(&store)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let figures = json(&output);
    assert_eq!(figures["selection"], "pairs");
    for variant in figures["variants"].as_array().unwrap() {
        for bar in variant["bars"].as_array().unwrap() {
            let seeds = &bar["over_seeds"][1];
            assert_eq!(seeds["min"], bar["value"][1], "one seed has no spread");
        }
    }
    fgmp()
        .args(["estimate", "--no-dsp", "--store"])
        .arg(&store)
        .assert()
        .success()
        .stdout(contains("pairs").and(contains("measured")));
}

#[test]
fn estimate_tells_area_and_energy_without_synthesis() {
    let folder = folder();
    let output = fgmp()
        .args(["estimate", "--rows", "2", "--cols", "2", "--no-dsp"])
        .args(["--json", "-", "--store"])
        .arg(folder.path().join("results.jsonl"))
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let figures = json(&output);
    let lut4 = figures["resources"]["lut4"].as_f64().unwrap();
    assert!((15_000.0..40_000.0).contains(&lut4), "{lut4}");
    assert!(!figures["energies"].as_array().unwrap().is_empty());
    assert!(!figures["clocks"].as_array().unwrap().is_empty());
}

#[test]
fn board_list_names_the_boards() {
    fgmp()
        .args(["board", "list"])
        .assert()
        .success()
        .stdout(contains("icebreaker"));
}

#[test]
fn board_run_generates_what_the_golden_engine_does() {
    // Little memory, a bad line, some layers on the host: the same text.
    let run = |arguments: &[&str]| {
        let output = fgmp()
            .args([
                "board",
                "run",
                "--prompt",
                "Return",
                "--tokens",
                "2",
                "--calibration-windows",
                "1",
            ])
            .args(arguments)
            .args(["--json", "-"])
            .assert()
            .success();
        let json: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        assert_eq!(json["mismatches"], 0);
        assert_eq!(json["tokens"], json["golden_tokens"]);
        assert_eq!(json["tokens"].as_array().unwrap().len(), 2);
        json
    };
    let faulty = run(&[
        "--faults", "20000", "--units", "both", "--lanes", "16", "--rows", "3",
    ]);
    assert!(faulty["repeated"].as_u64().unwrap() > 0);
    let resident = run(&[
        "--layers",
        "resident",
        "--rows",
        "7",
        "--weight-blocks",
        "4096",
    ]);
    assert_eq!(faulty["tokens"], resident["tokens"]);
    let layers = resident["layers"].as_array().unwrap();
    let on_host = |layer: &&serde_json::Value| !layer["on_host_because"].is_null();
    let host = layers.iter().filter(on_host).count();
    assert!(0 < host && host < layers.len(), "{host} layers on the host");
    assert!(resident["bytes_sent"].as_u64() < faulty["bytes_sent"].as_u64());
}

#[test]
fn board_run_says_what_is_wrong() {
    for (arguments, message) in [
        (
            ["--port", "/nonexistent/port", "--board", "icebreaker"].as_slice(),
            "/nonexistent/port can't be opened",
        ),
        (&["--port", "/dev/null"], "--board: says at what rate"),
        (
            &["--port", "twin", "--units", "both"],
            "quantizer with lanes = 8",
        ),
        (&["--port", "twin", "--rows", "65"], "rows"),
        (&["--port", "twin", "--faults", "2"], "at least 50 bytes"),
        (
            &["--port", "/dev/null", "--rows", "2"],
            "a board says itself",
        ),
        (&["--board", "nonesuch"], "no board is called `nonesuch`"),
        (&["--tokens", "0"], "at least one token"),
        (&["--tokens", "600"], "context of 512"),
    ] {
        refused(
            fgmp()
                .args(["board", "run", "--calibration-windows", "1"])
                .args(arguments),
            message,
        );
    }
}

// What is wrong is said, with exit status 2, and nothing is left half-written.

fn refused(command: &mut Command, message: &str) {
    command.assert().code(2).stderr(contains(message));
}

#[test]
fn a_truncated_file_is_refused() {
    let folder = folder();
    let path = tensors(folder.path(), "w.safetensors", &[("w", matrix(4, 32))]);
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 5, 20, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        refused(
            fgmp().current_dir(folder.path()).args([
                "quantize",
                "w.safetensors",
                "-o",
                "out.safetensors",
            ]),
            "w.safetensors: not a safetensors file that can be read",
        );
    }
    only(folder.path(), &["w.safetensors"]);
}

#[test]
fn a_wrong_dtype_is_refused() {
    let folder = folder();
    let integers = RawTensor {
        dtype: Dtype::I32,
        shape: vec![2, 16],
        bytes: vec![0; 128],
    };
    tensors(folder.path(), "w.safetensors", &[("w", integers)]);
    refused(
        fgmp().current_dir(folder.path()).args([
            "quantize",
            "w.safetensors",
            "-o",
            "out.safetensors",
        ]),
        "expected F32, F16 or BF16 tensors of two or more dimensions, found w (I32, shape [2, 16])",
    );
    only(folder.path(), &["w.safetensors"]);
}

#[test]
fn doubles_are_refused_and_integers_beside_floats_are_copied() {
    let folder = folder();
    let doubles = RawTensor {
        dtype: Dtype::F64,
        shape: vec![1, 16],
        bytes: vec![0; 128],
    };
    let integers = RawTensor {
        dtype: Dtype::I64,
        shape: vec![1, 16],
        bytes: vec![7; 128],
    };
    tensors(
        folder.path(),
        "d.safetensors",
        &[("w", matrix(2, 16)), ("x", doubles)],
    );
    tensors(
        folder.path(),
        "i.safetensors",
        &[("w", matrix(2, 16)), ("positions", integers.clone())],
    );
    refused(
        fgmp()
            .current_dir(folder.path())
            .args(["quantize", "d.safetensors"]),
        "tensor x: expected F32, F16 or BF16, found F64",
    );
    fgmp()
        .current_dir(folder.path())
        .args(["quantize", "i.safetensors", "-o", "q.safetensors"])
        .assert()
        .success();
    let packed = TensorFile::open(&folder.path().join("q.safetensors")).unwrap();
    assert_eq!(packed.raw("positions").unwrap(), &integers);
}

#[test]
fn nan_weights_are_refused() {
    let folder = folder();
    let mut data = vec![1.0; 32];
    data[17] = f32::NAN;
    tensors(
        folder.path(),
        "w.safetensors",
        &[("w", RawTensor::from_f32(vec![2, 16], &data))],
    );
    refused(
        fgmp().current_dir(folder.path()).args([
            "quantize",
            "w.safetensors",
            "-o",
            "out.safetensors",
        ]),
        "tensor w: element 17 is NaN",
    );
    only(folder.path(), &["w.safetensors"]);
}

#[test]
fn an_empty_reduction_dimension_is_refused() {
    let folder = folder();
    tensors(
        folder.path(),
        "w.safetensors",
        &[("w", RawTensor::from_f32(vec![4, 0], &[]))],
    );
    refused(
        fgmp().current_dir(folder.path()).args([
            "quantize",
            "w.safetensors",
            "-o",
            "out.safetensors",
        ]),
        "tensor w: has shape [4, 0]",
    );
    only(folder.path(), &["w.safetensors"]);
}

#[test]
fn mismatched_shapes_are_refused() {
    let folder = folder();
    for (name, k) in [("w", 32), ("a", 48)] {
        tensors(
            folder.path(),
            &format!("{name}.safetensors"),
            &[(name, matrix(4, k))],
        );
        fgmp()
            .current_dir(folder.path())
            .args([
                "quantize",
                &format!("{name}.safetensors"),
                "-o",
                &format!("{name}q.safetensors"),
            ])
            .assert()
            .success();
    }
    refused(
        fgmp().current_dir(folder.path()).args([
            "matmul",
            "wq.safetensors",
            "aq.safetensors",
            "-o",
            "y.safetensors",
        ]),
        "weights reduce over K = 32, activations over K = 48",
    );
    refused(
        fgmp()
            .current_dir(folder.path())
            .args(["matmul", "wq.safetensors:v", "aq.safetensors"]),
        "tensor v is missing; it holds w",
    );
    refused(
        fgmp()
            .current_dir(folder.path())
            .args(["matmul", "w.safetensors", "aq.safetensors"]),
        "it is no packed file",
    );
    assert!(!folder.path().join("y.safetensors").exists());
}

#[test]
fn an_unwritable_output_is_refused_before_the_work() {
    let folder = folder();
    tensors(folder.path(), "w.safetensors", &[("w", matrix(4, 32))]);
    refused(
        fgmp().current_dir(folder.path()).args([
            "quantize",
            "w.safetensors",
            "-o",
            "missing/out.safetensors",
        ]),
        "missing/out.safetensors: can't be written",
    );
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    refused(
        fgmp()
            .current_dir(folder.path())
            .args(["quantize", "w.safetensors", "-o", "folder"]),
        "folder: is a folder",
    );
    std::fs::write(folder.path().join("file"), "").unwrap();
    refused(
        fgmp()
            .current_dir(folder.path())
            .args(["emit", "-o", "file/core"]),
        "file",
    );
    refused(
        fgmp()
            .current_dir(folder.path())
            .args(["eval", "--json", "missing/e.json"]),
        "missing/e.json: can't be written",
    );
}

#[test]
fn unknown_flags_and_values_are_refused() {
    refused(
        fgmp().args(["emit", "--columns", "4"]),
        "unexpected argument '--columns'",
    );
    refused(
        fgmp().args(["eval", "--fp8-share", "1.5"]),
        "a share lies between 0 and 1, 1.5 doesn't",
    );
    refused(fgmp().args(["emit", "--rows", "0"]), "rows = 0");
    refused(fgmp().args(["emit", "--rows", "65"]), "1 to 64 rows");
    for (arguments, message) in [
        (&["speed", "--repetitions", "9"][..], "repetitions = 9"),
        (&["tree-selector", "--leaves", "1"], "leaves = 1"),
        (&["tree-selector", "--nodes", "1000"], "nodes = 1000"),
        (&["page-table", "--pages", "5000"], "pages = 5000"),
        (&["page-table", "--page-tokens", "0"], "page_tokens = 0"),
    ] {
        refused(fgmp().args(["emit", "--top"]).args(arguments), message);
    }
    refused(fgmp().args(["cosim", "--max-k", "100"]), "multiple of 16");
    refused(
        fgmp().args(["cosim", "--layer", "model.layers.9.mlp.up_proj"]),
        "the model has no such matrix",
    );
    refused(
        fgmp().args(["synth", "--module", "adder"]),
        "no top has such a module; beside memories there are element_decoder, ",
    );
    refused(
        fgmp().args(["synth", "--part", "adder"]),
        "there is no such part; there are fp4_sum",
    );
    refused(
        fgmp().args(["synth", "--table", "--target", "ecp5"]),
        "--table needs a device, such as ecp5:85",
    );
    refused(fgmp().args(["synth", "--target", "ecp5:12"]), "ecp5:85");
    refused(
        fgmp().args(["synth", "--table", "--module", "pe"]),
        "cannot be used with",
    );
    refused(
        fgmp().args(["eval", "nothing.safetensors"]),
        "nothing.safetensors: can't be read",
    );
    refused(
        fgmp().args(["eval", "--tokens", "nothing.u16"]),
        "nothing.u16",
    );
    refused(
        fgmp().args(["quantize", "model.gguf"]),
        "model.gguf: can't be read",
    );
    refused(
        fgmp().args(["quantize", "--scheme", "bf16"]),
        "full precision has no packed form",
    );
    refused(&mut fgmp(), "Usage: fgmp");
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        "demo",
        "quantize",
        "dequantize",
        "eval",
        "matmul",
        "emit",
        "cosim",
        "synth",
        "estimate",
        "board",
    ] {
        fgmp()
            .args([command, "--help"])
            .assert()
            .success()
            .stdout(contains(format!("Example: fgmp {command}")));
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "'{}' emit --help | head -n 1 >/dev/null",
            assert_cmd::cargo::cargo_bin!("fgmp").display()
        ))
        .status()
        .unwrap();
    assert!(status.success());
}
