//! The core's bundle in the hands of other tools, for several array sizes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use hdl::build::{TOP, emit_core};
use hdl::bundle::{self, Parameters, Top};
use hdl::config::{ArrayConfig, Multiplier};
use hdl::mac::{MAX_STAGES, MIN_STAGES};
use std::path::Path;
use std::process::Command;

fn config(rows: usize, cols: usize) -> ArrayConfig {
    ArrayConfig {
        rows,
        cols,
        weight_ports: rows,
        ..ArrayConfig::default()
    }
}

/// Runs a tool in a folder; returns its output, which the caller expects to be silent.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> String {
    let (passes, text) = support::run(folder, program, program, arguments);
    assert!(passes, "{program} {arguments:?} failed:\n{text}");
    text
}

fn sources(folder: &Path) -> Vec<String> {
    let list = std::fs::read_to_string(folder.join("files.f")).unwrap();
    list.lines().map(str::to_owned).collect()
}

fn passes_every_front_end(config: ArrayConfig) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("bundle");
    bundle::write(&folder, Top::Core(config), 1).unwrap();
    let sources = sources(&folder);
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();

    let lint = run(
        &folder,
        "verilator",
        &[&["--lint-only", "-Wall", "--top-module", TOP], &sources[..]].concat(),
    );
    assert_eq!(lint, "", "verilator -Wall is not silent");

    let script = format!(
        "read_verilog {}; hierarchy -check -top {TOP}; proc; check -assert",
        sources.join(" ")
    );
    let yosys = run(&folder, "yosys", &["-q", "-p", &script]);
    assert_eq!(yosys, "", "yosys is not silent");

    let program = format!("{TOP}_tb");
    let testbench = format!("tb/{TOP}_tb.v");
    let icarus = run(
        &folder,
        "iverilog",
        &[
            &[
                "-g2005",
                "-Wall",
                "-Wno-timescale",
                "-o",
                &program,
                &testbench,
            ],
            &sources[..],
        ]
        .concat(),
    );
    assert_eq!(icarus, "", "iverilog -Wall is not silent");
    let simulation = run(&folder, "vvp", &["-N", &program]);
    assert!(simulation.contains("PASS fgmp_core: "), "{simulation}");
}

#[test]
fn the_testbench_notices_a_changed_word() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("bundle");
    bundle::write(&folder, Top::Core(config(1, 1)), 1).unwrap();
    let path = folder.join("tb/scale.hex");
    let scales = std::fs::read_to_string(&path).unwrap();
    let (first, others) = scales.split_once('\n').unwrap();
    let changed = u16::from_str_radix(first, 16).unwrap() ^ 1;
    std::fs::write(&path, format!("{changed:x}\n{others}")).unwrap();
    let testbench = format!("tb/{TOP}_tb.v");
    let sources = sources(&folder);
    let mut arguments = vec!["-g2005", "-o", "sim", &testbench];
    arguments.extend(sources.iter().map(String::as_str));
    run(&folder, "iverilog", &arguments);
    let output = Command::new("vvp")
        .current_dir(&folder)
        .args(["-N", "sim"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL fgmp_core: 1 errors"), "{text}");
}

#[test]
fn one_by_one() {
    passes_every_front_end(config(1, 1));
}

#[test]
fn four_by_four() {
    passes_every_front_end(config(4, 4));
}

#[test]
fn three_by_five() {
    passes_every_front_end(config(3, 5));
}

#[test]
fn every_depth_of_the_pipeline() {
    for pipeline in MIN_STAGES..=MAX_STAGES {
        passes_every_front_end(ArrayConfig {
            pipeline,
            ..config(1, 2)
        });
    }
}

#[test]
fn multiplier_blocks() {
    for pipeline in [MIN_STAGES, MAX_STAGES] {
        passes_every_front_end(ArrayConfig {
            pipeline,
            multiplier: Multiplier::Dsp,
            ..config(1, 2)
        });
    }
}

/// 16 x 16 with `FGMP_FULL=1`; it takes minutes.
#[test]
fn a_large_array() {
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    let side = if full { 16 } else { 8 };
    passes_every_front_end(config(side, side));
}

#[test]
fn every_accumulator_width_is_accepted_by_verilator() {
    for max_k in [16, 4096, 65_536, 1 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("bundle");
        bundle::write(
            &folder,
            Top::Core(ArrayConfig {
                max_k,
                ..config(1, 2)
            }),
            1,
        )
        .unwrap();
        let sources = sources(&folder);
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        let lint = run(
            &folder,
            "verilator",
            &[&["--lint-only", "-Wall", "--top-module", TOP], &sources[..]].concat(),
        );
        assert_eq!(lint, "", "max_k {max_k}");
    }
}

#[test]
fn a_large_array_has_no_more_modules_than_a_small_one() {
    let small = emit_core(config(1, 1)).unwrap();
    let large = emit_core(config(16, 16)).unwrap();
    assert!(
        large.modules.len() <= small.modules.len() + 1,
        "{} and {}",
        small.modules.len(),
        large.modules.len()
    );
}

#[test]
fn emission_is_reproducible() {
    assert_eq!(
        emit_core(config(2, 3)).unwrap(),
        emit_core(config(2, 3)).unwrap()
    );
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("precious.txt"), "mine").unwrap();
    let error = bundle::write(folder.path(), Top::Core(config(1, 1)), 1).unwrap_err();
    assert!(error.to_string().contains("is no bundle"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_earlier_bundle_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("bundle");
    bundle::write(&folder, Top::Core(config(1, 1)), 1).unwrap();
    let manifest = bundle::write(&folder, Top::Core(config(1, 2)), 1).unwrap();
    assert!(
        matches!(manifest.parameters, Parameters::Array { config, .. } if config.cols == 2),
        "{:?}",
        manifest.parameters
    );
    for file in &manifest.files {
        assert!(folder.join(file).is_file(), "{file} is missing");
    }
}
