//! `fgmp board`: bitstreams and boards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::str::contains;

fn fgmp() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("fgmp"))
}

fn refused(command: &mut Command, message: &str) {
    command.assert().code(2).stderr(contains(message));
}

/// A program that writes down how it was called.
fn program(folder: &Path, script: &str) -> PathBuf {
    let path = folder.join("program");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The beginning of a bitstream for the HX8K.
const HX8K: [u8; 14] = [
    0xFF, 0x00, 0x00, 0xFF, 0x7E, 0xAA, 0x99, 0x7E, 0x62, 0x03, 0x67, 0x72, 0x01, 0x10,
];

#[test]
fn boards_are_listed_with_clock_link_and_programmer() {
    fgmp()
        .args(["board", "list"])
        .assert()
        .success()
        .stdout(contains("| ulx3s-85f     |"))
        .stdout(contains("18 MHz from 27 MHz"))
        .stdout(contains("dfu-util"));
    let output = fgmp()
        .args(["board", "list", "--json", "-"])
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        json["boards"].as_array().unwrap().len(),
        fpga::boards().len()
    );
    assert_eq!(json["boards"][2]["configuration"]["family"], "ecp5");
}

#[test]
fn a_dry_run_says_what_would_be_written_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("design.bin");
    fs::write(&file, HX8K).unwrap();
    let called = folder.path().join("called");
    let iceprog = program(folder.path(), &format!("touch '{}'", called.display()));
    fgmp()
        .env("ICEPROG", &iceprog)
        .args(["board", "flash", "hx8k-breakout", "--dry-run"])
        .arg(&file)
        .assert()
        .success()
        .stdout(contains("14 bytes for iCE40 HX8K"))
        .stdout(contains("the configuration flash"))
        .stdout(contains("by reading back what was written"))
        .stdout(contains(format!(
            "{} {}",
            iceprog.display(),
            file.display()
        )))
        .stdout(contains("nothing was written"));
    assert!(!called.exists());
}

/// There is no board here, whether or not the system lists USB devices.
#[test]
fn without_a_board_it_is_said_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("design.bin");
    fs::write(&file, HX8K).unwrap();
    refused(
        fgmp().args(["board", "flash", "hx8k-breakout"]).arg(&file),
        "no hx8k-breakout is attached: no USB device 0403:6010 was found",
    );
}

#[test]
fn a_bitstream_of_another_board_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("design.bin");
    fs::write(&file, HX8K).unwrap();
    refused(
        fgmp().args(["board", "flash", "icebreaker"]).arg(&file),
        "it is for iCE40 HX8K, HX4K or LP8K, but icebreaker has iCE40 UP5K (it would fit hx8k-breakout)",
    );
    refused(
        fgmp()
            .args(["board", "flash", "icebreaker"])
            .arg(folder.path()),
        "holds no bitstream for icebreaker",
    );
}

#[test]
fn builds_that_cannot_be_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let build = |arguments: &[&str]| {
        let mut command = fgmp();
        command
            .current_dir(folder.path())
            .args(["board", "build"])
            .args(arguments);
        command
    };
    refused(&mut build(&["ulx3s"]), "no board is called `ulx3s`");
    refused(
        &mut build(&["icebreaker", "--baud", "4000000"]),
        "at most 3000000 baud",
    );
    refused(
        &mut build(&["hx8k-breakout", "--rows", "99"]),
        "an array has 1 to 64 rows",
    );
    let mine = folder.path().join("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("letter.txt"), "dear").unwrap();
    refused(
        &mut build(&["hx8k-breakout", "--rows", "1", "-o", "mine"]),
        "holds no earlier build",
    );
    assert!(mine.join("letter.txt").is_file());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Builds a board's engine and looks at what it wrote.
fn built(board: &str, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // In the project's folder, where `./setup` puts programs.
    let output = fgmp()
        .args(["board", "build", board, "--check", "--json", "-", "-o"])
        .arg(&out)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{board}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = fs::read_to_string(out.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let clock = report["clock_hz"].as_f64().unwrap() / 1e6;
    assert!(report["mhz"].as_f64().unwrap() >= clock, "{board}");
    for file in report["files"].as_array().unwrap() {
        assert!(out.join(file.as_str().unwrap()).is_file(), "{file}");
    }
    let bitstream = fs::read(out.join(report["bitstream"].as_str().unwrap())).unwrap();
    assert_eq!(report["check"]["bytes"], bitstream.len());
    assert_eq!(
        fpga::bitstream::device(&bitstream),
        Ok(fpga::board(board).unwrap().configuration)
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{board}");
    eprintln!("{board}: {:.2} MHz, {}", report["mhz"], report["cells"]);
}

#[test]
fn the_engine_is_built_for_two_small_boards() {
    built("icebreaker", &[]);
    // The largest array takes twice as long.
    built("hx8k-breakout", &["--rows", "1", "--cols", "1"]);
}

/// The others, with their programs; Gowin's are installed by `./setup --all`.
#[test]
fn the_engine_is_built_for_every_board() {
    if std::env::var_os("FGMP_FULL").is_none() {
        eprintln!("all boards but two small ones are left out: FGMP_FULL=1 builds them");
        return;
    }
    for board in fpga::boards() {
        if fpga::flow::tools(board).is_err() {
            assert_eq!(board.family, fpga::Family::Gowin);
            eprintln!("{} is left out: its programs are not installed", board.name);
            continue;
        }
        built(board.name, &[]);
    }
}
