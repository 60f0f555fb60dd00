//! What is in a bitstream: an HX8K's is read back to Verilog, which must do what the design does, cycle by cycle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fpga::flow::{Effort, implement, synthesize};
use fpga::{Board, ENGINE, ICEBOX_VLOG, board};
use hdl::board::BoardConfig;
use hdl::board::protocol::{Operation, encode};
use hdl::build::emit_board;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use synth::yosys::{Hierarchy, YOSYS};
use testbench::tool::Tool;

/// A level of the line for each cycle goes to the design and to what was read back; outputs that the design gives a value are compared.
const BENCH: &str = "`timescale 1ns/1ns
module bench;
  reg clk = 0;
  reg rx = 1;
  reg line [0:COUNT-1];
  wire tx, ok, busy, fault, tx_back, ok_back, busy_back, fault_back;
  integer cycle = 0, compared = 0, wrong = 0, changes = 0;
  reg last = 1;
  TOP source(.clk(clk), .rx(rx), .tx(tx), .led_ok(ok), .led_busy(busy), .led_fault(fault));
  chip back(.clk(clk), .rx(rx), .tx(tx_back), .led_ok(ok_back), .led_busy(busy_back), .led_fault(fault_back));
  task compare(input expected, input found);
    if (expected !== 1'bx) begin
      compared = compared + 1;
      if (expected !== found) wrong = wrong + 1;
    end
  endtask
  initial begin
    $readmemb(\"line.txt\", line);
    for (cycle = 0; cycle < COUNT; cycle = cycle + 1) begin
      rx = line[cycle];
      #5 clk = 1;
      #4 compare(tx, tx_back);
      compare(ok, ok_back);
      compare(busy, busy_back);
      compare(fault, fault_back);
      if (tx !== last) changes = changes + 1;
      last = tx;
      #1 clk = 0;
    end
    $display(\"compared %0d wrong %0d changes %0d\", compared, wrong, changes);
    $finish;
  end
endmodule
";

/// What a comparison found.
struct Compared {
    /// Bits that the design gave a value.
    compared: u64,
    /// Those that what was read back had otherwise.
    wrong: u64,
    /// Changes of the design's output line.
    changes: u64,
}

fn tool(name: &'static str) -> PathBuf {
    Tool {
        name,
        variable: "FGMP_NO_SUCH_VARIABLE",
        purpose: "simulate",
        install: "apt-get install -y iverilog",
    }
    .find()
    .expect("./setup installs it")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Yosys's simulation models of iCE40's primitives.
fn models() -> PathBuf {
    let yosys = YOSYS.find().expect("./setup installs it");
    let yosys = yosys.canonicalize().expect("it is there");
    let prefix = yosys
        .parent()
        .and_then(Path::parent)
        .expect("it is in a bin folder");
    prefix.join("share/yosys/ice40/cells_sim.v")
}

/// Builds an engine for the HX8K, reads the bitstream back, and gives both the same line. `spoil` may change what was read back.
fn compare(engine: &str, line: &[bool], spoil: impl Fn(String) -> String) -> Compared {
    // The readers know nothing of the loop, so the oscillator is the clock.
    let plain = Board {
        pll: None,
        ..*board("hx8k-breakout").expect("it is listed")
    };
    let netlist = synthesize(&plain, engine, Hierarchy::Flat).expect("it is mapped");
    let built = implement(&plain, netlist, Effort::default(), |_| ()).expect("it is placed");
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("chip.bin"), &built.bitstream).expect("a file");
    fs::write(path("pins.pcf"), pins(&built.constraints)).expect("a file");
    run(Command::new(tool("iceunpack"))
        .current_dir(folder.path())
        .args(["chip.bin", "chip.asc"]));
    let icebox = ICEBOX_VLOG.find().expect("./setup installs it");
    let back = run(Command::new(icebox)
        .current_dir(folder.path())
        .args(["-p", "pins.pcf", "-n", "chip", "chip.asc"]));
    fs::write(path("back.v"), spoil(back)).expect("a file");
    fs::write(path("top.v"), &built.top.verilog).expect("a file");
    fs::write(path("engine.v"), engine).expect("a file");
    let bits: String = line
        .iter()
        .map(|&level| if level { "1\n" } else { "0\n" })
        .collect();
    fs::write(path("line.txt"), bits).expect("a file");
    let bench = BENCH
        .replace("COUNT", &line.len().to_string())
        .replace("TOP", &built.top.name);
    fs::write(path("bench.v"), bench).expect("a file");
    run(Command::new(tool("iverilog"))
        .current_dir(folder.path())
        .args(["-g2005", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-s", "bench"])
        .args(["-o", "sim", "bench.v", "top.v", "engine.v", "back.v"])
        .arg(models()));
    let shown = run(Command::new(tool("vvp"))
        .current_dir(folder.path())
        .args(["-N", "sim"]));
    let numbers: Vec<u64> = shown
        .lines()
        .find(|line| line.starts_with("compared"))
        .expect("it ends")
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [compared, wrong, changes] = numbers[..] else {
        panic!("{shown}");
    };
    Compared {
        compared,
        wrong,
        changes,
    }
}

/// The pins alone: the reader knows neither options nor frequencies.
fn pins(constraints: &str) -> String {
    constraints
        .lines()
        .filter(|line| line.starts_with("set_io"))
        .map(|line| line.replace("-pullup yes ", "") + "\n")
        .collect()
}

const SMALL: &str = include_str!("engine.v");

#[test]
fn a_bitstream_read_back_does_what_its_design_does() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let line: Vec<bool> = (0..6000).map(|_| random.random()).collect();
    let found = compare(SMALL, &line, |back| back);
    assert_eq!(found.wrong, 0);
    assert!(found.compared > 20_000, "{}", found.compared);
    assert!(found.changes > 1000, "{}", found.changes);
    // One table's function is the opposite one, and the comparison must see it.
    let spoiled = compare(SMALL, &line, |back| {
        let (at, _) = back
            .match_indices("*/ (")
            .nth(5)
            .expect("there are tables with inputs");
        let mut changed = back.clone();
        changed.insert(at + 3, '!');
        changed
    });
    assert!(spoiled.wrong > 0, "{}", spoiled.wrong);
}

/// The line of frames sent one after the other, with silence behind each for its reply.
fn line_of(frames: &[Vec<u8>], clocks_per_bit: usize, silence: usize) -> Vec<bool> {
    let mut line = vec![true; 400];
    for frame in frames {
        for &byte in frame {
            let bits = (0..8).map(|bit| byte >> bit & 1 == 1);
            let levels = std::iter::once(false).chain(bits).chain([true]);
            line.extend(levels.flat_map(|level| std::iter::repeat_n(level, clocks_per_bit)));
        }
        line.extend(std::iter::repeat_n(true, silence));
    }
    line
}

#[test]
fn the_engine_read_back_does_what_the_engine_does() {
    if std::env::var_os("FGMP_FULL").is_none() {
        eprintln!("the whole engine is left out: FGMP_FULL=1 reads it back");
        return;
    }
    let mut config = BoardConfig::default();
    config.array.lanes = fpga::board("hx8k-breakout")
        .expect("it is listed")
        .engine
        .lanes;
    let engine = emit_board(config).expect("it is emitted").concatenated();
    assert!(engine.contains(ENGINE));
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut sequence = 0;
    let mut frame = |operation: Operation, body: &[u8]| {
        let mut content = vec![7, sequence, operation as u8];
        content.extend(body);
        sequence += 1;
        encode(&content)
    };
    let mut frames = vec![
        frame(Operation::Open, &[]),
        frame(Operation::ReadRegisters, &[0, 8]),
        frame(Operation::ReadRegisters, &[0, 8]),
    ];
    // Blocks of a row and of a column, and their product: FP8 in one, both kinds in the other.
    for (side, tags) in [(0x00, 0xFFu8), (0x80, 0x55)] {
        let mut body = vec![side, 0, 0, tags];
        for block in 0..8 {
            let bytes = if tags >> block & 1 == 1 { 16 } else { 9 };
            body.extend((0..bytes).map(|_| random.random_range(0..=0x7Du8)));
        }
        frames.push(frame(Operation::LoadBlocks, &body));
    }
    frames.push(frame(Operation::Multiply, &[0, 0, 0, 0, 8, 0, 1, 1, 0]));
    // A damaged frame.
    let mut damaged = frame(Operation::ReadRegisters, &[0, 1]);
    damaged[3] ^= 1;
    frames.push(damaged);
    let line = line_of(&frames, config.clocks_per_bit, 3000);
    let found = compare(&engine, &line, |back| back);
    assert_eq!(found.wrong, 0);
    assert!(found.compared > 80_000, "{}", found.compared);
    assert!(found.changes > 300, "{}", found.changes);
    eprintln!(
        "{} bits compared over {} cycles, the line changed {} times",
        found.compared,
        line.len(),
        found.changes
    );
}
