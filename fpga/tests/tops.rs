//! The tops of all boards, with a small engine in place of the real one, and their clocks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use fpga::{MODELS, Pll, PllError, Top, board, boards};
use testbench::tool::{Tool, VERILATOR};

/// What comes in goes out a cycle later, and the lights show it: the ports of the engine, and nothing that could be optimised away.
const ECHO: &str = "module fgmp_board(\n  input wire clock,\n  input wire reset,\n  input wire rx,\n  output reg tx,\n  \
                    output reg ok,\n  output reg busy,\n  output reg fault\n);\n  always @(posedge clock) begin\n    \
                    tx <= rx | reset;\n    ok <= ~rx & ~reset;\n    busy <= rx & ~reset;\n    fault <= reset;\n  end\nendmodule\n";

fn run(command: &mut Command) -> Output {
    command.output().expect("it can be run")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Files of a top with the small engine and the primitives' models.
fn write(top: &Top, folder: &Path) {
    fs::write(folder.join(format!("{}.v", top.name)), &top.verilog).expect("a file");
    fs::write(folder.join("fgmp_board.v"), ECHO).expect("a file");
    for (name, model) in MODELS {
        fs::write(folder.join(name), model).expect("a file");
    }
}

#[test]
fn every_top_is_silent_under_verilators_lint() {
    let verilator = VERILATOR.find().expect("it is installed");
    for board in boards() {
        let top = board.top();
        let folder = tempfile::tempdir().expect("a folder");
        write(&top, folder.path());
        let output = run(Command::new(&verilator)
            .current_dir(folder.path())
            .args(["--lint-only", "-Wall", "-y", ".", "--top-module", &top.name])
            .arg(format!("{}.v", top.name)));
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(text(&output), "", "{}", top.name);
    }
}

#[test]
fn every_port_of_a_top_has_a_pin() {
    for board in boards() {
        let top = board.top();
        let constraints = top.constraints(board).expect("all roles exist");
        for (port, role) in &top.ports {
            let site = board.pin(*role).expect("it exists").site;
            assert!(
                constraints
                    .lines()
                    .any(|line| line.contains(port.as_str()) && line.contains(site)),
                "{}: {port} on {site}\n{constraints}",
                board.name
            );
            assert!(
                top.verilog.contains(&format!(" {port}, //"))
                    || top.verilog.contains(&format!(" {port} //")),
                "{port}"
            );
        }
    }
}

/// Counts cycles until the engine's reset ends, then presses the button, if there is one.
const BENCH: &str = "`timescale 1ns/1ns\nmodule bench;\n  reg clk = 0;\n  reg pressed = 0;\n  integer cycles = 0;\n  always #5 clk = ~clk;\n  \
                     always @(posedge clk) cycles <= cycles + 1;\n  TOP top(.clk(clk), .rx(1'b1)BUTTON);\n  initial begin\n    \
                     #1 if (top.reset !== 1'b1) $display(\"no reset at first\");\n    \
                     @(negedge top.reset) $display(\"reset ends %0d\", cycles);\n    #1000 pressed = 1;\n    #200 $display(\"pressed %b\", top.reset);\n    \
                     pressed = 0;\n    #200 $display(\"still %b\", top.reset);\n    #2700 $display(\"ended %b\", top.reset);\n    $finish;\n  end\nendmodule\n";

#[test]
fn the_engine_is_in_reset_until_the_clock_is_steady_and_while_the_button_is_pressed() {
    let iverilog = Tool {
        name: "iverilog",
        variable: "IVERILOG",
        purpose: "simulate",
        install: "apt-get install -y iverilog",
    }
    .find()
    .expect("it is installed");
    for board in boards() {
        let top = board.top();
        let folder = tempfile::tempdir().expect("a folder");
        write(&top, folder.path());
        let button = board.pin(fpga::Pin::Button(0));
        let connection = match button.map(|pin| pin.active) {
            None => "",
            Some(fpga::Active::High) => ", .button(pressed)",
            Some(fpga::Active::Low) => ", .button(~pressed)",
        };
        let bench = BENCH
            .replace("TOP", &top.name)
            .replace("BUTTON", connection);
        fs::write(folder.path().join("bench.v"), bench).expect("a file");
        let built = run(Command::new(&iverilog)
            .current_dir(folder.path())
            .args(["-g2005", "-s", "bench", "-y", ".", "-o", "sim", "bench.v"]));
        assert!(built.status.success(), "{}", text(&built));
        let shown = text(&run(Command::new("vvp")
            .current_dir(folder.path())
            .args(["-N", "sim"])));
        // 256 cycles, two for the lock to come over and one for the reset itself; the loops' models take 20 to lock.
        let locks = if board.pll.is_some() { 20 } else { 0 };
        let ends: u32 = shown
            .lines()
            .find_map(|line| line.strip_prefix("reset ends "))
            .and_then(|number| number.trim().parse().ok())
            .expect("it ends");
        assert!(
            (256 + locks..262 + locks).contains(&ends),
            "{}: {shown}",
            board.name
        );
        let expected = if button.is_some() {
            "pressed 1\nstill 1\nended 0"
        } else {
            "pressed 0\nstill 0\nended 0"
        };
        assert!(shown.contains(expected), "{}: {shown}", board.name);
        assert!(!shown.contains("no reset"), "{}: {shown}", board.name);
    }
}

#[test]
fn lights_and_held_pins_have_their_boards_levels() {
    let icebreaker = board("icebreaker").expect("it is listed").top().verilog;
    assert!(icebreaker.contains("assign led_ok = ~ok;"), "{icebreaker}");
    assert!(icebreaker.contains("locked & button"), "{icebreaker}");
    let ulx3s = board("ulx3s-85f").expect("it is listed").top().verilog;
    assert!(ulx3s.contains("assign led_ok = ok;"), "{ulx3s}");
    assert!(ulx3s.contains("assign hold_0 = 1'b1;"), "{ulx3s}");
    assert!(ulx3s.contains("locked & ~button"), "{ulx3s}");
}

#[test]
fn loops_keep_their_devices_rules_and_give_the_clocks_that_boards_state() {
    let mut kinds = std::collections::HashSet::new();
    for board in boards() {
        if let Some(pll) = board.pll {
            pll.check()
                .unwrap_or_else(|error| panic!("{}: {error}", board.name));
            kinds.insert(std::mem::discriminant(&pll));
        }
    }
    assert_eq!(kinds.len(), 3, "each primitive is used");
    for (name, hz) in [
        ("icebreaker", 12_000_000),
        ("hx8k-breakout", 24_000_000),
        ("ulx3s-85f", 24_000_000),
        ("orangecrab", 24_000_000),
        ("colorlight-i9", 25_000_000),
        ("tang-nano-9k", 18_000_000),
        ("tang-nano-20k", 18_000_000),
    ] {
        let board = board(name).expect("it is listed");
        assert_eq!(board.system_hz(), hz, "{name}");
    }
}

#[test]
fn settings_that_a_loop_cannot_have_are_refused() {
    let ice40 = |divf, divq, filter_range| Pll::Ice40 {
        input_hz: 12_000_000,
        divr: 0,
        divf,
        divq,
        filter_range,
    };
    assert_eq!(ice40(63, 5, 1).check(), Ok(()));
    assert!(matches!(
        ice40(30, 5, 1).check(),
        Err(PllError::Range { .. })
    ));
    assert!(matches!(
        ice40(63, 5, 2).check(),
        Err(PllError::Divider { .. })
    ));
    let ecp5 = |clki_div, clkop_div| Pll::Ecp5 {
        input_hz: 25_000_000,
        clki_div,
        clkfb_div: 1,
        clkop_div,
        clkos_div: None,
    };
    assert_eq!(ecp5(1, 24).check(), Ok(()));
    assert!(ecp5(1, 40).check().is_err(), "the oscillator at 1000 MHz");
    assert!(ecp5(10, 24).check().is_err(), "the detector at 2.5 MHz");
    assert!(ecp5(0, 24).check().is_err());
    assert_eq!(ecp5(3, 60).check(), Err(PllError::Fraction));
    let gowin = |odiv_sel| Pll::Gowin {
        input_hz: 27_000_000,
        idiv_sel: 2,
        fbdiv_sel: 1,
        odiv_sel,
        device: "GW1NR-9C",
        vco_mhz: (400, 1200),
    };
    assert_eq!(gowin(32).check(), Ok(()));
    assert!(gowin(16).check().is_err(), "the oscillator at 288 MHz");
    assert!(gowin(33).check().is_err());
}

/// The first number behind a word.
fn number(text: &str, word: &str) -> Option<u32> {
    let rest = &text[text.find(word)? + word.len()..];
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Second opinions on the settings: the families' own programs, where they are installed.
#[test]
fn the_families_own_programs_find_the_same_settings() {
    let tool = |name: &'static str| {
        Tool {
            name,
            variable: "FGMP_NO_SUCH_VARIABLE",
            purpose: "compare",
            install: "",
        }
        .find()
        .map_err(|_| eprintln!("{name} is not installed: its settings are not compared"))
        .ok()
    };
    let megahertz = |hz: u32| (f64::from(hz) / 1e6).to_string();
    for board in boards() {
        let folder = tempfile::tempdir().expect("a folder");
        let command = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir(folder.path());
            command
        };
        let [input, output] = [board.clock_hz, board.system_hz()].map(megahertz);
        match board.pll {
            Some(Pll::Ice40 {
                divr,
                divf,
                divq,
                filter_range,
                ..
            }) => {
                let Some(icepll) = tool("icepll") else {
                    continue;
                };
                let shown = text(&run(command(&icepll).args(["-i", &input, "-o", &output])));
                for (word, value) in [
                    ("DIVR:", divr),
                    ("DIVF:", divf),
                    ("DIVQ:", divq),
                    ("FILTER_RANGE:", filter_range),
                ] {
                    assert_eq!(number(&shown, word), Some(u32::from(value)), "{shown}");
                }
            }
            Some(Pll::Ecp5 {
                clki_div,
                clkfb_div,
                clkop_div,
                clkos_div,
                ..
            }) => {
                let Some(ecppll) = tool("ecppll").or_else(|| tool("yowasp-ecppll")) else {
                    continue;
                };
                let mut command = command(&ecppll);
                command.args(["-i", &input, "-f", "pll.v"]);
                // With two outputs, the first one is the feedback, at the input's frequency.
                match clkos_div {
                    Some(_) => command.args(["--clkout0", &input, "--clkout1", &output]),
                    None => command.args(["--clkout0", &output]),
                };
                let shown = run(&mut command);
                assert!(shown.status.success(), "{}", text(&shown));
                let made = fs::read_to_string(folder.path().join("pll.v")).expect("it is written");
                let ours = board.top().verilog;
                for (word, value) in [
                    (".CLKI_DIV(", Some(clki_div)),
                    (".CLKFB_DIV(", Some(clkfb_div)),
                    (".CLKOP_DIV(", Some(clkop_div)),
                    (".CLKOS_DIV(", clkos_div),
                ] {
                    let value = value.map(u32::from);
                    assert_eq!(number(&made, word), value, "{word} {made}");
                    assert_eq!(number(&ours, word), value, "{word} {ours}");
                }
                for word in [".CLKOP_CPHASE(", ".CLKOS_CPHASE("] {
                    assert_eq!(number(&made, word), number(&ours, word), "{word} {made}");
                }
            }
            Some(Pll::Gowin {
                idiv_sel,
                fbdiv_sel,
                odiv_sel,
                ..
            }) => {
                let Some(gowin_pll) = tool("gowin_pll") else {
                    continue;
                };
                let shown = text(&run(
                    command(&gowin_pll).args(["-d", board.part, "-i", &input, "-o", &output])
                ));
                for (word, value) in [
                    (".IDIV_SEL(", idiv_sel),
                    (".FBDIV_SEL(", fbdiv_sel),
                    (".ODIV_SEL(", odiv_sel),
                ] {
                    assert_eq!(number(&shown, word), Some(u32::from(value)), "{shown}");
                }
            }
            None => (),
        }
    }
}
