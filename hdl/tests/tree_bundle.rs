//! The bundles of tree search's hardware and of SPEED in the hands of other tools.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use hdl::bundle::{self, Top};
use hdl::ets::{PageTableConfig, SelectorConfig};
use hdl::speed::SpeedConfig;
use std::path::{Path, PathBuf};
use support::run;

/// Silent and successful.
fn quiet(folder: &Path, program: &str, arguments: &[&str]) {
    assert_eq!(
        run(folder, program, program, arguments),
        (true, String::new()),
        "{program} {arguments:?}"
    );
}

fn bundle_of(parent: &Path, top: Top) -> PathBuf {
    let folder = parent.join("bundle");
    let manifest = bundle::write(&folder, top, 1).unwrap();
    for file in &manifest.files {
        assert!(folder.join(file).is_file(), "{file} is missing");
    }
    folder
}

fn lint(folder: &Path, top: Top) {
    let sources = std::fs::read_to_string(folder.join("files.f")).unwrap();
    let sources: Vec<&str> = sources.lines().collect();
    let options = ["--lint-only", "-Wall", "--top-module", top.name()];
    quiet(folder, "verilator", &[&options, &sources[..]].concat());
    let script = format!(
        "read_verilog {}; hierarchy -check -top {}; proc; check -assert",
        sources.join(" "),
        top.name()
    );
    quiet(folder, "yosys", &["-q", "-p", &script]);
}

/// The testbench in Icarus Verilog, as the README says.
fn simulate(folder: &Path, top: Top) -> (bool, String) {
    let sources = std::fs::read_to_string(folder.join("files.f")).unwrap();
    let testbench = format!("tb/{}_tb.v", top.name());
    let mut arguments = vec!["-g2005", "-Wall", "-Wno-timescale", "-o", "sim", &testbench];
    arguments.extend(sources.lines());
    quiet(folder, "iverilog", &arguments);
    run(folder, "vvp", "iverilog", &["-N", "sim"])
}

/// Changes the last digit of a line of a vector.
fn spoil(path: &Path, line: usize) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let digit = lines[line].pop().unwrap().to_digit(16).unwrap();
    lines[line].push(char::from_digit(digit ^ 1, 16).unwrap());
    std::fs::write(path, lines.join("\n")).unwrap();
}

fn passes_every_front_end(top: Top) {
    let parent = tempfile::tempdir().unwrap();
    let folder = bundle_of(parent.path(), top);
    lint(&folder, top);
    let (passes, text) = simulate(&folder, top);
    assert!(passes, "{text}");
    let pass = format!("PASS {}: ", top.name());
    assert!(text.starts_with(&pass), "{text}");
}

#[test]
fn selectors() {
    for (leaves, nodes) in [(16, 16), (64, 1024)] {
        passes_every_front_end(Top::TreeSelector(SelectorConfig { leaves, nodes }));
    }
}

#[test]
fn the_largest_selector() {
    passes_every_front_end(Top::TreeSelector(SelectorConfig {
        leaves: 256,
        nodes: 4096,
    }));
}

#[test]
fn page_tables() {
    for (segments, pages, page_tokens) in [(2, 2, 1), (64, 40, 2), (256, 1024, 16), (4096, 65, 255)]
    {
        passes_every_front_end(Top::PageTable(PageTableConfig {
            segments,
            pages,
            page_tokens,
        }));
    }
}

#[test]
fn testbenches_notice_a_changed_word() {
    let selector = Top::TreeSelector(SelectorConfig::default());
    let pages = Top::PageTable(PageTableConfig::default());
    // A leaf's continuations, whether a read is the last, halves; segments in use, an item.
    for (top, name, line) in [
        (selector, "leaves", 3),
        (selector, "reads", 5),
        (selector, "jobs", 1),
        (pages, "commands", 40),
        (pages, "items", 7),
    ] {
        let parent = tempfile::tempdir().unwrap();
        let folder = bundle_of(parent.path(), top);
        spoil(&folder.join(format!("tb/{name}.hex")), line);
        let (passes, text) = simulate(&folder, top);
        assert!(!passes, "{name}: {text}");
        let fail = format!("FAIL {}: ", top.name());
        assert!(text.contains(&fail), "{name}: {text}");
    }
}

#[test]
fn speed_has_its_registers() {
    let top = Top::Speed(SpeedConfig::default());
    let parent = tempfile::tempdir().unwrap();
    let folder = bundle_of(parent.path(), top);
    lint(&folder, top);
    let header = std::fs::read_to_string(folder.join("fgmp_speed_registers.h")).unwrap();
    assert!(
        header.contains("#define FGMP_SPEED_ID 0x100u\n"),
        "{header}"
    );
    let program = "#include \"fgmp_registers.h\"\n#include \"fgmp_speed_registers.h\"\nint main(void) { return FGMP_SPEED_CONTROL_PLAY_SHIFT - 2; }\n";
    std::fs::write(folder.join("main.c"), program).unwrap();
    let warnings = [
        "-std=c99", "-Wall", "-Wextra", "-Werror", "main.c", "-o", "main",
    ];
    quiet(&folder, "cc", &warnings);
    let built = folder.join("main");
    quiet(&folder, built.to_str().unwrap(), &[]);
}
