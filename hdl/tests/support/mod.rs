//! Tools for tests of emitted Verilog: linters, and rust-hdl's simulation against Icarus on the same stimuli.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these helpers fail the test that calls them"
)]

use hdl::emit::{Bundle, Direction};
use hdl::prelude::*;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Runs a tool in a folder and gives its output, both streams together. A missing tool fails the test.
pub fn run(folder: &Path, tool: &str, package: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| {
            panic!("{tool} can't be run ({error}): this test needs it; install it with `apt-get install {package}`")
        });
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    (output.status.success(), text)
}

/// Asserts that Verilator's `-Wall`, yosys' checks and Icarus' `-Wall` have nothing to say.
pub fn assert_lint_clean(bundle: &Bundle) {
    let folder = tempfile::tempdir().unwrap();
    let files = bundle.write_rtl(folder.path()).unwrap();
    let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let top = bundle.top.as_str();

    let mut arguments = vec!["--lint-only", "-Wall", "--top-module", top];
    arguments.extend(&files);
    let (ok, text) = run(folder.path(), "verilator", "verilator", &arguments);
    assert!(
        ok && text.is_empty(),
        "verilator:\n{text}\n{}",
        bundle.concatenated()
    );

    let script = format!(
        "read_verilog {}; hierarchy -check -top {top}; proc; check -assert; select -assert-none t:$dlatch t:$_DLATCH_*_",
        files.join(" ")
    );
    let (ok, text) = run(folder.path(), "yosys", "yosys", &["-q", "-p", &script]);
    assert!(
        ok && text.trim().is_empty(),
        "yosys:\n{text}\n{}",
        bundle.concatenated()
    );

    let mut arguments = vec!["-Wall", "-g2005", "-o", "lint.vvp", "-s", top];
    arguments.extend(&files);
    let (ok, text) = run(folder.path(), "iverilog", "iverilog", &arguments);
    assert!(
        ok && text.is_empty(),
        "iverilog:\n{text}\n{}",
        bundle.concatenated()
    );
}

/// A 64-bit generator (SplitMix64), so that stimuli are the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }
}

fn hex(words: &[u64], width: usize) -> String {
    let mut digits = String::new();
    for digit in (0..width.div_ceil(4)).rev() {
        let word = words.get(digit / 16).copied().unwrap_or(0);
        write!(digits, "{:x}", word >> (digit % 16 * 4) & 15).unwrap();
    }
    digits
}

/// One module under test with what rust-hdl's simulation gave.
pub struct Case {
    pub bundle: Bundle,
    /// A line a step: inputs and expected outputs, as one hexadecimal number, first port lowest.
    lines: Vec<String>,
    /// Steps whose outputs are not compared.
    skipped: usize,
}

impl Case {
    /// Compares outputs from this step on: before it, registers without reset hold what hardware leaves undefined.
    pub fn after(self, steps: usize) -> Self {
        Self {
            skipped: steps,
            ..self
        }
    }
}

/// Simulates a block in rust-hdl. `stimuli` are the values of all inputs but the clock, one `Vec` of words a port; outputs are
/// recorded with the clock low, after which it rises and falls.
pub fn simulate_case<B: Block + PortAccess>(
    mut block: B,
    bundle: Bundle,
    stimuli: impl Iterator<Item = Vec<Vec<u64>>>,
) -> Case {
    block.connect_all();
    let ports = bundle.top_module().ports.clone();
    let clock = ports.iter().position(|port| port.name == "clock");
    let mut lines = Vec::new();
    for stimulus in stimuli {
        let mut stimulus = stimulus.into_iter();
        for (number, port) in ports.iter().enumerate() {
            if port.direction == Direction::Input && Some(number) != clock {
                block.poke(number, &stimulus.next().expect("a stimulus for each input"));
            }
        }
        assert!(simulate(&mut block, 1000), "{} does not settle", bundle.top);
        let mut bits = String::new();
        for (number, port) in ports.iter().enumerate() {
            let mut words = vec![0; port.width.div_ceil(64)];
            block.peek(number, &mut words);
            for bit in 0..port.width {
                bits.push(if words[bit / 64] >> (bit % 64) & 1 == 1 {
                    '1'
                } else {
                    '0'
                });
            }
        }
        let bits: Vec<u8> = bits.bytes().map(|b| b - b'0').collect();
        let words: Vec<u64> = bits
            .chunks(64)
            .map(|chunk| {
                chunk
                    .iter()
                    .rev()
                    .fold(0, |word, &bit| word << 1 | u64::from(bit))
            })
            .collect();
        lines.push(hex(&words, bits.len()));
        if let Some(clock) = clock {
            for level in [1, 0] {
                block.poke(clock, &[level]);
                assert!(simulate(&mut block, 1000), "{} does not settle", bundle.top);
            }
        }
    }
    Case {
        bundle,
        lines,
        skipped: 0,
    }
}

/// Writes `design.v`, `bench.v` and the vectors; returns what the bench says when all outputs agree.
fn write_bench(folder: &Path, cases: &[Case]) -> String {
    let mut bench = String::from(
        "`timescale 1ns/1ns\nmodule bench;\n  integer failures = 0;\n  integer checks = 0;\n",
    );
    let mut design = String::new();
    let mut checks = 0;
    for (number, case) in cases.iter().enumerate() {
        design.push_str(&case.bundle.concatenated());
        design.push('\n');
        std::fs::write(
            folder.join(format!("case{number}.hex")),
            case.lines.join("\n") + "\n",
        )
        .unwrap();
        bench.push_str(&case_bench(number, case));
        let ports = &case.bundle.top_module().ports;
        let outputs = ports
            .iter()
            .filter(|port| port.direction == Direction::Output)
            .count();
        checks += (case.lines.len() - case.skipped) * outputs;
    }
    let steps = cases.iter().map(|case| case.lines.len()).max().unwrap_or(0);
    write!(
        bench,
        "  initial begin\n    #{};\n    $display(\"%0d checks, %0d failures\", checks, failures);\n    $finish;\n  end\nendmodule\n",
        steps * 4 + 4
    )
    .unwrap();
    std::fs::write(folder.join("design.v"), &design).unwrap();
    std::fs::write(folder.join("bench.v"), &bench).unwrap();
    format!("{checks} checks, 0 failures")
}

fn assert_says(text: &str, expected: &str) {
    let first: Vec<&str> = text.lines().take(20).collect();
    assert!(
        text.lines().any(|line| line.trim() == expected),
        "expected {expected}:\n{}",
        first.join("\n")
    );
}

/// Runs all cases in one Icarus simulation and asserts that every output is as rust-hdl computed it.
pub fn assert_icarus_agrees(cases: &[Case]) {
    let folder = tempfile::tempdir().unwrap();
    let expected = write_bench(folder.path(), cases);
    let arguments = [
        "-g2005",
        "-o",
        "bench.vvp",
        "-s",
        "bench",
        "bench.v",
        "design.v",
    ];
    let (ok, text) = run(folder.path(), "iverilog", "iverilog", &arguments);
    assert!(ok, "iverilog:\n{text}");
    let (_, text) = run(folder.path(), "vvp", "iverilog", &["-n", "bench.vvp"]);
    assert_says(&text, &expected);
}

/// As [`assert_icarus_agrees`], with Verilator.
pub fn assert_verilator_agrees(cases: &[Case]) {
    let folder = tempfile::tempdir().unwrap();
    let expected = write_bench(folder.path(), cases);
    // The bench (not the design, which is linted elsewhere) has delays and slices that `-Wall` would talk about.
    let arguments = [
        "--binary",
        "-O1",
        "-Wno-lint",
        "-Wno-style",
        "--top-module",
        "bench",
        "-o",
        "bench",
        "bench.v",
        "design.v",
    ];
    let (ok, text) = run(folder.path(), "verilator", "verilator", &arguments);
    assert!(ok, "verilator:\n{text}");
    let program = folder.path().join("obj_dir/bench");
    let (_, text) = run(folder.path(), program.to_str().unwrap(), "verilator", &[]);
    assert_says(&text, &expected);
}

fn case_bench(number: usize, case: &Case) -> String {
    let module = case.bundle.top_module();
    let total: usize = module.ports.iter().map(|port| port.width).sum();
    let steps = case.lines.len();
    let mut text = format!(
        "  reg [{}:0] memory{number} [0:{}];\n  reg [{}:0] line{number};\n  integer step{number};\n",
        total - 1,
        steps - 1,
        total - 1
    );
    let mut connections = Vec::new();
    let mut checks = Vec::new();
    let mut low = 0;
    let mut clocked = false;
    for port in &module.ports {
        let wire = format!("w{number}_{}", port.name);
        let slice = format!("line{number}[{}:{low}]", low + port.width - 1);
        match port.direction {
            Direction::Input if port.name == "clock" => {
                clocked = true;
                writeln!(text, "  reg {wire} = 0;").unwrap();
            }
            Direction::Input => {
                writeln!(text, "  wire [{}:0] {wire} = {slice};", port.width - 1).unwrap()
            }
            Direction::Output => {
                writeln!(text, "  wire [{}:0] {wire};", port.width - 1).unwrap();
                checks.push(format!(
                    "      if (step{number} >= {}) checks = checks + 1;\n      if (step{number} >= {} && {wire} !== {slice}) begin\n        failures = failures + 1;\n        if (failures < 20) $display(\"{}.{}: step %0d line %h: expected %h, found %h\", step{number}, line{number}, {slice}, {wire});\n      end\n",
                    case.skipped, case.skipped, module.name, port.name
                ));
            }
        }
        connections.push(format!(".{}({wire})", port.name));
        low += port.width;
    }
    writeln!(
        text,
        "  {} dut{number} ({});",
        module.name,
        connections.join(", ")
    )
    .unwrap();
    let edge = if clocked {
        format!("      w{number}_clock = 1; #1; w{number}_clock = 0; #1;\n")
    } else {
        String::new()
    };
    write!(
        text,
        "  initial begin\n    $readmemh(\"case{number}.hex\", memory{number});\n    for (step{number} = 0; step{number} < {steps}; step{number} = step{number} + 1) begin\n      line{number} = memory{number}[step{number}];\n      #2;\n{}{edge}    end\n  end\n",
        checks.concat()
    )
    .unwrap();
    text
}
