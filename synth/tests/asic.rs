//! Mapping to Debian's osu018: proof, timing and power beside OpenSTA's, toggles beside Icarus'.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use gates::energy::Conditions;
use gates::liberty::{Direction, Library};
use gates::netlist::OPEN;
use gates::sim::{Design, Timed, ZeroDelay};
use synth::asic::{
    AsicError, Goal, Mapped, OSU018_VERILOG, Options, default_library, map, power, prove, time,
};
use synth::yosys::Hierarchy;

/// A multiply-accumulator in two modules, with reset and enable.
const DESIGN: &str = "
module product (input wire [5:0] a, input wire [5:0] b, output wire [11:0] y);
    assign y = a * b;
endmodule
module mac (input wire clock, input wire reset, input wire enable, input wire [5:0] a, input wire [5:0] b, output reg [15:0] sum);
    wire [11:0] y;
    reg [11:0] held;
    product multiplier (.a(a), .b(b), .y(y));
    always @(posedge clock) begin
        if (enable) held <= y;
        if (reset) sum <= 16'd0; else sum <= sum + {4'd0, held};
    end
endmodule
";

fn osu018() -> (PathBuf, Library) {
    // Not skipped: a test that silently doesn't run proves nothing.
    let path = default_library().unwrap_or_else(|error| panic!("{error}"));
    let library = Library::open(&path).unwrap_or_else(|error| panic!("{error}"));
    (path, library)
}

fn mapped(options: Options) -> Mapped {
    let (path, library) = osu018();
    map(DESIGN, "mac", &path, &library, options).unwrap_or_else(|error| panic!("{error}"))
}

/// Random words for all inputs; reset in the first cycles.
fn stimulus(mapped: &Mapped, cycles: usize) -> Vec<Vec<u64>> {
    let bits = mapped.netlist.input_bits().len();
    let (reset, _) = mapped.netlist.input("reset").expect("it has one");
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..cycles)
        .map(|cycle| {
            let mut words: Vec<u64> = (0..bits).map(|_| random()).collect();
            words[reset] = if cycle < 4 { u64::MAX } else { 0 };
            words
        })
        .collect()
}

#[test]
fn what_is_mapped_is_proved_and_computes_the_same_with_delays() {
    for options in [
        Options::default(),
        Options {
            goal: Goal::Speed,
            ..Options::default()
        },
        Options {
            hierarchy: Hierarchy::Kept,
            ..Options::default()
        },
        Options {
            clock_gating: true,
            ..Options::default()
        },
    ] {
        let mapped = mapped(options);
        let report = &mapped.report;
        let flip_flops = report.cells.get("DFFPOSX1").copied();
        assert_eq!(flip_flops, Some(28), "{options:?}");
        assert_eq!(
            mapped.netlist.clock_gates.len(),
            usize::from(options.clock_gating)
        );
        let groups: f64 = report.area_by_group.values().sum();
        assert!((groups - report.area).abs() < 1e-6 * report.area);
        assert!(
            report.abc_ns.is_some_and(|ns| ns > 0.5),
            "{:?}",
            report.abc_ns
        );
        if options.hierarchy == Hierarchy::Kept {
            let modules: Vec<&String> = report.area_by_group.keys().collect();
            assert!(
                report.area_by_group.contains_key("multiplier"),
                "{modules:?}"
            );
        }
        let proof = prove(DESIGN, &mapped).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        assert_eq!(proof.registers, 28, "{options:?}");

        let design = Design::new(&mapped.netlist, Conditions::default()).unwrap();
        let mut zero = ZeroDelay::new(&design);
        let mut timed = Timed::new(&design);
        let (mut held, mut sum) = (0u64, 0u64);
        for (cycle, words) in stimulus(&mapped, 200).iter().enumerate() {
            zero.cycle(words);
            timed.cycle(words, 3);
            assert_eq!(zero.output("sum", 3), timed.output("sum"), "cycle {cycle}");
            if cycle >= 8 {
                assert_eq!(zero.output("sum", 3), Some(sum.into()), "cycle {cycle}");
            }
            // What the next edge makes of it.
            let value = |port: &str| {
                let (at, width) = mapped.netlist.input(port).expect("it has one");
                (0..width).fold(0, |v, bit| v | (words[at + bit] >> 3 & 1) << bit)
            };
            sum = if value("reset") == 1 {
                0
            } else {
                (sum + held) & 0xFFFF
            };
            if value("enable") == 1 {
                held = value("a") * value("b");
            }
        }
        let (zero, timed) = (zero.tally(), timed.tally());
        assert!(timed.toggles_per_cycle() > 1.05 * zero.toggles_per_cycle());
    }
}

#[test]
fn a_netlist_that_computes_something_else_is_not_proved() {
    let mapped = mapped(Options::default());
    let other = DESIGN.replace("sum + {4'd0, held}", "sum - {4'd0, held}");
    let error = prove(&other, &mapped).expect_err("they differ");
    assert!(error.to_string().contains("NOT EQUIVALENT"), "{error}");
}

#[test]
fn a_text_that_cant_be_mapped_is_an_error() {
    let (path, library) = osu018();
    let refused = |text: &str, top: &str| {
        map(text, top, &path, &library, Options::default()).expect_err("it can't be mapped")
    };
    let error = refused("module mac (input wire a); nothing n (); endmodule", "mac");
    assert!(error.to_string().contains("nothing"), "{error}");
    let error = refused(DESIGN, "mac; shell");
    assert!(matches!(error, AsicError::Name(_)), "{error}");
    // A latch is mapped to no cell.
    let latch =
        "module mac (input wire g, input wire d, output reg q); always @* if (g) q = d; endmodule";
    let error = refused(latch, "mac");
    assert!(
        matches!(error, AsicError::Failed { .. } | AsicError::Netlist { .. }),
        "{error}"
    );
}

#[test]
fn timing_and_power_stand_beside_those_of_opensta() {
    let mapped = mapped(Options::default());
    let timing = time(&mapped, 10.0).unwrap_or_else(|error| panic!("{error}"));
    // OpenSTA's clock is ideal and its inputs are steep.
    let conditions = Conditions {
        wire_ff_per_sink: 0.0,
        input_slew_ns: 0.0,
        clock_slew_ns: 0.0,
        output_load_ff: 0.0,
        period_ns: 10.0,
    };
    let design = Design::new(&mapped.netlist, conditions).unwrap();
    let path = design.critical_path_ns();
    // Theirs has the setup time in it.
    let setup = timing.shortest_ns - path;
    assert!((-0.05..0.5).contains(&setup), "{path} ns, {timing:?}");

    let mut simulation = ZeroDelay::new(&design);
    for (cycle, words) in stimulus(&mapped, 300).iter().enumerate() {
        if cycle == 20 {
            simulation.clear();
        }
        simulation.cycle(words);
    }
    let tally = simulation.tally();
    let theirs = power(&mapped, tally, 10.0).unwrap_or_else(|error| panic!("{error}"));
    let milliwatt = |pj: f64| pj / tally.cycles as f64 / 10.0;
    // Registers are groups of their own, each with the logic before it; so flip-flops are taken one by one.
    let per_cycle = |net: u32| tally.toggles[net as usize] as f64 / tally.cycles as f64;
    let mut switching = 0.0;
    for &at in &mapped.netlist.flip_flops {
        let instance = &mapped.netlist.instances[at as usize];
        let q = instance.pins[mapped.netlist.cell(instance).pin("Q").expect("it has one")];
        let half_v2 = mapped.netlist.voltage.powi(2) / 2.0;
        switching += per_cycle(q) * design.load_pf(q) * half_v2 / 10.0;
    }
    let close = |ours: f64, theirs: f64, within: f64| {
        assert!(
            (ours / theirs - 1.0).abs() < within,
            "{ours} mW, OpenSTA {theirs} mW"
        );
    };
    close(switching, theirs.sequential_switching, 0.01);
    let flip_flops = tally.energy().clock;
    let cells = &tally.groups[..mapped.netlist.groups.len()];
    let leakage = cells.iter().map(|e| e.leakage).sum::<f64>();
    close(milliwatt(leakage), theirs.leakage, 0.02);
    // Their figure for flip-flops has the clock's edges and those of D and Q; the clock's alone must be less.
    assert!(milliwatt(flip_flops) > 0.0);
    let clock = milliwatt(cells.iter().map(|e| e.clock).sum());
    assert!(clock < theirs.sequential_internal, "{clock} mW {theirs:?}");
    assert!(
        clock > 0.3 * theirs.sequential_internal,
        "{clock} mW {theirs:?}"
    );
}

/// Changes of each cell's outputs by `instance/pin` in a waveform of scope `dut`.
fn changes(vcd: &str) -> HashMap<String, u64> {
    let mut scopes: Vec<&str> = Vec::new();
    let mut names: HashMap<&str, Vec<String>> = HashMap::new();
    let mut values: HashMap<&str, char> = HashMap::new();
    let mut counts = HashMap::new();
    for line in vcd.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["$scope", _, name, ..] => scopes.push(name),
            ["$upscope", ..] => drop(scopes.pop()),
            ["$var", _, "1", id, pin, ..] if scopes.len() == 3 => {
                let name = format!("{}/{pin}", scopes[2]);
                counts.insert(name.clone(), 0);
                names.entry(id).or_default().push(name);
            }
            [change] if change.len() > 1 && change.starts_with(['0', '1', 'x', 'z']) => {
                let (value, id) = change.split_at(1);
                let value = value.chars().next().unwrap_or('x');
                if let Some((&id, names)) = names.get_key_value(id) {
                    let before = values.insert(id, value);
                    if before.is_some_and(|before| before != value) {
                        assert!(value == '0' || value == '1', "{names:?} becomes {value}");
                        for name in names {
                            *counts.entry(name.clone()).or_insert(0) += 1;
                        }
                    }
                }
            }
            _ => (),
        }
    }
    counts
}

#[test]
fn every_toggle_without_delays_is_one_in_icarus() {
    const WARM: usize = 8;
    const CYCLES: usize = 400;
    let mapped = mapped(Options::default());
    let folder = tempfile::tempdir().unwrap();
    let words = stimulus(&mapped, CYCLES);
    let design = Design::new(&mapped.netlist, Conditions::default()).unwrap();
    let mut simulation = ZeroDelay::new(&design);
    let mut hex = String::new();
    let bits = mapped.netlist.input_bits().len();
    for (cycle, words) in words.iter().enumerate() {
        if cycle == WARM {
            simulation.clear();
        }
        // One stream in all 64 places: toggles come out 64 times as many.
        let word: Vec<u64> = words.iter().map(|w| (w & 1) * u64::MAX).collect();
        simulation.cycle(&word);
        let value = words
            .iter()
            .enumerate()
            .fold(0u64, |v, (bit, w)| v | (w & 1) << bit);
        writeln!(hex, "{value:x}").unwrap();
    }
    let port = |name: &str| {
        let (at, width) = mapped.netlist.input(name).expect("it has one");
        format!("{}:{at}", at + width - 1)
    };
    let bench = format!(
        "module tb;
  reg clock = 0; reg [{top}:0] in = 0; reg [{top}:0] words [0:{last}]; integer i;
  mac dut (.clock(clock), .reset(in[{reset}]), .enable(in[{enable}]), .a(in[{a}]), .b(in[{b}]));
  initial begin
    $readmemh(\"words.hex\", words);
    $dumpfile(\"wave.vcd\");
    for (i = 0; i < {CYCLES}; i = i + 1) begin
      #5;
      if (i == {WARM}) $dumpvars(0, tb);
      #5 clock = 1; in <= words[i];
      #5 clock = 0;
    end
    #5 $finish;
  end
endmodule
",
        top = bits - 1,
        last = CYCLES - 1,
        reset = port("reset"),
        enable = port("enable"),
        a = port("a"),
        b = port("b"),
    );
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("words.hex", &hex);
    write("tb.v", &bench);
    write("net.v", &mapped.verilog);
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .current_dir(folder.path())
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(
        "iverilog",
        &["-g2012", "-o", "sim", "tb.v", "net.v", OSU018_VERILOG],
    );
    run("vvp", &["sim"]);
    let theirs = changes(&std::fs::read_to_string(folder.path().join("wave.vcd")).unwrap());
    let toggles = &simulation.tally().toggles;
    let (mut compared, mut total) = (0, 0);
    for instance in &mapped.netlist.instances {
        let cell = mapped.netlist.cell(instance);
        for (pin, &net) in cell.pins.iter().zip(&instance.pins) {
            if pin.direction == Direction::Output && net != OPEN {
                let name = format!("{}/{}", instance.name, pin.name);
                assert_eq!(
                    theirs.get(&name),
                    Some(&(toggles[net as usize] / 64)),
                    "{name}"
                );
                compared += 1;
                total += toggles[net as usize] / 64;
            }
        }
    }
    assert!(
        compared > 100 && total > 10_000,
        "{compared} pins, {total} toggles"
    );
}
