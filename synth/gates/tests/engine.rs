//! Sums that can be done by hand, in a library of round figures, and input that has no meaning.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use gates::energy::Conditions;
use gates::liberty::{Edge, Kind, LibertyError, Library};
use gates::netlist::{Netlist, NetlistError};
use gates::sim::{Design, DesignError, Timed, ZeroDelay};

const TINY: &str = include_str!("tiny.lib");

fn tiny() -> Library {
    Library::parse(Path::new("tiny.lib"), TINY).unwrap_or_else(|error| panic!("{error}"))
}

/// No wires, no load of outputs, slews of 10 ps as in the tables' first point.
const BARE: Conditions = Conditions {
    wire_ff_per_sink: 0.0,
    input_slew_ns: 0.01,
    clock_slew_ns: 0.01,
    output_load_ff: 0.0,
    period_ns: 1.0,
};

/// An instance: its name, its cell, its pins with their nets.
type Instance<'a> = (&'a str, &'a str, &'a [(&'a str, u32)]);

/// A module of yosys's JSON: ports with direction and nets, cells with pins and nets.
fn module(ports: &[(&str, &str, &[u32])], cells: &[Instance<'_>]) -> String {
    let ports: serde_json::Map<_, _> = ports
        .iter()
        .map(|(name, direction, bits)| {
            let port = serde_json::json!({"direction": direction, "bits": bits});
            ((*name).to_owned(), port)
        })
        .collect();
    let cells: serde_json::Map<_, _> = cells
        .iter()
        .map(|(name, kind, pins)| {
            let pins: serde_json::Map<_, _> = pins
                .iter()
                .map(|(pin, net)| ((*pin).to_owned(), serde_json::json!([net])))
                .collect();
            let cell = serde_json::json!({"type": kind, "connections": pins});
            ((*name).to_owned(), cell)
        })
        .collect();
    serde_json::json!({"modules": {"top": {"ports": ports, "cells": cells, "netnames": {}}}})
        .to_string()
}

fn netlist(json: &str) -> Netlist {
    Netlist::parse(json, "top", &tiny()).unwrap_or_else(|error| panic!("{error}"))
}

fn near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < 1e-9 * expected.abs().max(1.0),
        "expected {expected}, found {found}"
    );
}

#[test]
fn figures_come_in_one_set_of_units() {
    let library = tiny();
    assert_eq!(
        (library.name.as_str(), library.corner.as_str()),
        ("tiny", "typical")
    );
    near(library.voltage, 2.0);
    let nand = library.cell("NAND").expect("it is there");
    near(nand.pins[0].capacitance, 0.005);
    // The mean of rise and fall.
    near(nand.pins[1].capacitance, 0.006);
    near(nand.other_leakage, 0.2);
    let inverter = library.cell("INV").expect("it is there");
    assert_eq!(inverter.kind, Kind::Combinational);
    let output = &inverter.pins[1];
    let rise = output.arcs[0].rise.as_ref().expect("it has tables");
    // Between the points, and beyond them along the last segment: 20 ps + 10 ps by slew, 20 ps by load.
    near(rise.delay.at(0.06, 0.005), 0.035);
    near(rise.delay.at(0.21, 0.020), 0.08);
    // The template of energies has the load first; 1 V² fF = 1 fJ.
    near(output.power[0].at(Edge::Rise, 0.11, 0.0), 2e-3);
    near(output.power[0].at(Edge::Fall, 0.01, 0.010), 30e-3);
}

#[test]
fn one_inverter_by_hand() {
    let json = module(
        &[("a", "input", &[2]), ("y", "output", &[3])],
        &[("u", "INV", &[("A", 2), ("Y", 3)])],
    );
    let netlist = netlist(&json);
    let conditions = Conditions {
        wire_ff_per_sink: 1.0,
        output_load_ff: 10.0,
        ..BARE
    };
    let design = Design::new(&netlist, conditions).unwrap();
    near(design.load_pf(2), 0.005);
    // 20 ps, and 20 ps for 10 fF.
    near(design.critical_path_ns(), 0.04);
    let mut zero = ZeroDelay::new(&design);
    let mut timed = Timed::new(&design);
    // Stream 0 rises and falls; the others stay.
    for input in [1, 0] {
        zero.cycle(&[input]);
        timed.cycle(&[input], 0);
    }
    for tally in [zero.tally(), timed.tally()] {
        let energy = tally.energy();
        // Output falls and rises at 10 fF and a slew of 10 ps: 30 fJ and 3 fJ.
        near(energy.internal, 33e-3);
        // Input 4 + 1 fF, output 10 fF, twice each, at 2 V: C V² / 2 is 2 fJ a fF.
        near(energy.switching, 2.0 * (10e-3 + 20e-3));
        near(energy.clock, 0.0);
        assert_eq!((tally.toggles[2], tally.toggles[3]), (2, 2));
    }
    // 100 pW, 1 ns, two cycles, and 64 streams: 1e-7 pJ a cycle.
    near(timed.tally().energy().leakage * 1e7, 2.0);
    near(zero.tally().energy().leakage * 1e7, 128.0);
    near(timed.settled_after_ns(), 0.04);
}

#[test]
fn one_nand_by_hand() {
    let json = module(
        &[
            ("a", "input", &[2]),
            ("b", "input", &[3]),
            ("y", "output", &[4]),
        ],
        &[("u", "NAND", &[("A", 2), ("B", 3), ("Y", 4)])],
    );
    let netlist = netlist(&json);
    let design = Design::new(&netlist, BARE).unwrap();
    // b a: what rises, what the output does, and fJ within the cell.
    let steps = [
        (0b01, 0.5), // a rises while b is low: its own 0.5; the output stays high
        (0b11, 7.0), // b rises while a is high, the output falls: 7
        (0b10, 2.0), // a falls while b is high, the output rises by a: 2, and a's own table says only !b
        (0b00, 0.0), // b falls
        (0b01, 0.5),
        (0b00, 0.25),
    ];
    let mut zero = ZeroDelay::new(&design);
    let mut timed = Timed::new(&design);
    let mut sum = 0.0;
    for (inputs, energy) in steps {
        let words = [inputs & 1, inputs >> 1];
        zero.cycle(&words);
        timed.cycle(&words, 0);
        sum += energy * 1e-3;
        near(zero.tally().energy().internal, sum);
        near(timed.tally().energy().internal, sum);
    }
    assert_eq!(zero.tally().toggles[4], 2);
    // Both rise at once: without delays the later of the two is taken for the cause, and that is b, whose arrival is as early but which comes
    // after; with delays the first change goes nowhere, the second makes the edge.
    zero.clear();
    timed.clear();
    zero.cycle(&[1, 1]);
    timed.cycle(&[1, 1], 0);
    near(zero.tally().energy().internal, 3e-3);
    near(timed.tally().energy().internal, 7e-3 + 0.5e-3);
}

#[test]
fn leakage_goes_by_state() {
    let json = module(
        &[
            ("a", "input", &[2]),
            ("b", "input", &[3]),
            ("y", "output", &[4]),
        ],
        &[("u", "NAND", &[("A", 2), ("B", 3), ("Y", 4)])],
    );
    let netlist = netlist(&json);
    let design = Design::new(&netlist, BARE).unwrap();
    for (inputs, picowatt) in [([0, 0], 50.0), ([1, 0], 200.0), ([1, 1], 300.0)] {
        let mut timed = Timed::new(&design);
        for _ in 0..16 {
            timed.cycle(&inputs, 0);
        }
        near(timed.tally().per_cycle().leakage * 1e9, picowatt);
    }
}

#[test]
fn a_pulse_shorter_than_the_gate_is_no_pulse() {
    // y = !(a & !a): a rises, and for the inverter's 28 ps both inputs are high. Through A the NAND needs 20 ps, through B 100 ps.
    for (first, second, toggles) in [("A", "B", 2), ("B", "A", 0)] {
        let json = module(
            &[("a", "input", &[2]), ("y", "output", &[4])],
            &[
                ("n", "INV", &[("A", 2), ("Y", 3)]),
                ("u", "NAND", &[(first, 2), (second, 3), ("Y", 4)]),
            ],
        );
        let netlist = netlist(&json);
        let design = Design::new(&netlist, BARE).unwrap();
        let mut timed = Timed::new(&design);
        timed.cycle(&[1], 0);
        // Nets are numbered as they occur, ports first: y is 3.
        assert_eq!(timed.tally().toggles[3], toggles, "a on {first}");
        let mut zero = ZeroDelay::new(&design);
        zero.cycle(&[1]);
        assert_eq!(zero.tally().toggles[3], 0);
        assert_eq!((timed.value(4), timed.value(3)), (false, true));
    }
}

/// A counter of one bit with reset, q and its inverse.
fn divider() -> String {
    module(
        &[
            ("clock", "input", &[2]),
            ("run", "input", &[3]),
            ("q", "output", &[4]),
        ],
        &[
            ("f", "DFF", &[("CK", 2), ("D", 5), ("RN", 3), ("Q", 4)]),
            ("n", "INV", &[("A", 4), ("Y", 5)]),
        ],
    )
}

#[test]
fn a_flip_flop_pays_for_the_clock_and_for_its_output() {
    let netlist = netlist(&divider());
    assert_eq!(netlist.clock, Some(2));
    let design = Design::new(&netlist, BARE).unwrap();
    let mut zero = ZeroDelay::new(&design);
    let mut timed = Timed::new(&design);
    for run in [0, 0, u64::MAX, u64::MAX, u64::MAX, 0] {
        zero.cycle(&[run]);
        timed.cycle(&[run], 7);
        assert_eq!(zero.output("q", 7), timed.output("q"));
    }
    // Two edges while it ran, and the reset at the end: 0, 1, 0, then 1 would follow, but the reset holds 0.
    let changes = timed.tally().toggles[4];
    assert_eq!(zero.tally().toggles[4], 64 * changes);
    let energy = timed.tally().energy();
    // Clock: 1 + 2 fJ a cycle within, and its pin of 2 fF twice, 4 fJ each.
    near(energy.clock, 6.0 * (3e-3 + 8e-3));
    near(zero.tally().energy().clock, 64.0 * 6.0 * 11e-3);
    near(zero.tally().energy().internal, 64.0 * energy.internal);
}

#[test]
fn a_gated_flip_flop_is_clocked_only_when_it_loads() {
    let json = module(
        &[
            ("clock", "input", &[2]),
            ("d", "input", &[3]),
            ("load", "input", &[4]),
            ("one", "input", &[7]),
            ("q", "output", &[5]),
        ],
        &[
            ("g", "fgmp_clock_gate", &[("C", 2), ("E", 4), ("G", 6)]),
            ("f", "DFF", &[("CK", 6), ("D", 3), ("RN", 7), ("Q", 5)]),
        ],
    );
    let netlist = netlist(&json);
    let design = Design::new(&netlist, BARE).unwrap();
    let mut zero = ZeroDelay::new(&design);
    let mut timed = Timed::new(&design);
    let mut clock = Vec::new();
    let mut states = Vec::new();
    for [d, load] in [[1, 1], [0, 0], [0, 0], [0, 1], [0, 0]] {
        let before = timed.tally().energy().clock;
        let inputs = [d * u64::MAX, load * u64::MAX, u64::MAX];
        zero.cycle(&inputs);
        timed.cycle(&inputs, 0);
        clock.push(timed.tally().energy().clock - before);
        states.push(timed.output("q").unwrap());
        assert_eq!(zero.output("q", 9), timed.output("q"));
    }
    assert_eq!(states, [0, 1, 1, 1, 0]);
    // The gate itself: a flip-flop's 3 fJ and its pin; behind an open one the same again.
    for (found, open) in clock.iter().zip([false, true, false, false, true]) {
        near(*found, if open { 22e-3 } else { 11e-3 });
    }
}

#[test]
fn texts_without_meaning_are_errors_that_name_file_and_cell() {
    let parse = |text: &str| Library::parse(Path::new("bad.lib"), text);
    let broken = |from: &str, to: &str| {
        assert!(TINY.contains(from), "{from}");
        let error = parse(&TINY.replacen(from, to, 1)).expect_err(to);
        error.to_string()
    };
    for (text, part) in [
        (broken("!(A*B)", "!(A*C)"), "cell `NAND`: pin `Y`"),
        (
            broken("\"2, 4\", \"3, 5\"", "\"2, 4, 5\", \"3, 5, 6\""),
            "expected 2 x 2 values, found 6",
        ),
        (
            broken("index_1 (\"1, 11\")", "index_1 (\"11, 1\")"),
            "don't rise",
        ),
        (
            broken("related_pin : \"A\"", "related_pin : \"Z\""),
            "related_pin `Z`",
        ),
        (broken("nom_voltage : 2.0;", ""), "nom_voltage"),
        (
            broken("nom_voltage : 2.0;", "nom_voltage : -2.0;"),
            "positive voltage",
        ),
        (
            broken("capacitive_load_unit (1, ff);", ""),
            "capacitive_load_unit",
        ),
        (broken("\"10ps\"", "\"10parsec\""), "time_unit"),
        (broken("capacitance : 4;", "capacitance : -4;"), "negative"),
    ] {
        assert!(
            text.starts_with("bad.lib") && text.contains(part),
            "{part}: {text}"
        );
    }
    for text in [
        String::new(),
        "library".to_owned(),
        "library (x) {}".to_owned(),
        "module top (); endmodule".to_owned(),
        "{".repeat(100_000),
        "library (x) { cell (y) { pin (A) { function : \"".to_owned() + &"(".repeat(100_000),
        TINY[..TINY.len() / 2].to_owned(),
        TINY.replace('}', ""),
    ] {
        let error = parse(&text).expect_err("it is no library");
        assert!(
            matches!(
                error,
                LibertyError::Syntax { .. } | LibertyError::Library { .. }
            ),
            "{error}"
        );
    }
    let error = Library::open(Path::new("/no/such.lib")).expect_err("there is none");
    assert!(error.to_string().contains("/no/such.lib"), "{error}");
}

#[test]
fn every_cut_and_every_flipped_byte_gives_a_library_or_an_error() {
    // Texts that end anywhere, and texts with one byte changed: none may panic.
    let bytes = TINY.as_bytes();
    for at in (0..bytes.len()).step_by(97) {
        let _ = Library::parse(Path::new("cut.lib"), &TINY[..at]);
        let mut changed = bytes.to_vec();
        changed[at] = b"{}();:\"0A"[at % 9];
        let changed = String::from_utf8_lossy(&changed);
        if let Ok(library) = Library::parse(Path::new("changed.lib"), &changed) {
            assert!(!library.cells.is_empty());
        }
    }
}

#[test]
fn netlists_without_meaning_are_errors() {
    let library = tiny();
    let parse = |json: &str| Netlist::parse(json, "top", &library).expect_err("it is no netlist");
    assert!(matches!(parse("{"), NetlistError::Json(_)));
    assert!(matches!(
        parse("{\"modules\": {}}"),
        NetlistError::Module(_)
    ));
    let ports: &[(&str, &str, &[u32])] = &[("a", "input", &[2]), ("y", "output", &[3])];
    for (cells, part) in [
        (&[("u", "NOR", &[("A", 2), ("Y", 3)][..])][..], "NOR"),
        (&[("u", "INV", &[("A", 2), ("Z", 3)])], "no pin `Z`"),
        (&[("u", "INV", &[("Y", 3)])], "input `A` is open"),
        (&[("u", "INV", &[("A", 9), ("Y", 3)])], "nothing drives it"),
        (&[("u", "INV", &[("A", 3), ("Y", 3)])], "loop"),
        (
            &[
                ("u", "INV", &[("A", 2), ("Y", 3)]),
                ("v", "INV", &[("A", 2), ("Y", 3)]),
            ],
            "two drivers",
        ),
        (&[("u", "INV", &[("A", 2), ("Y", 4)])], "nothing drives it"),
        (
            &[
                ("u", "INV", &[("A", 2), ("Y", 4)]),
                ("f", "DFF", &[("CK", 4), ("D", 2), ("RN", 2), ("Q", 3)]),
            ],
            "gated and divided clocks",
        ),
    ] {
        let text = parse(&module(ports, cells)).to_string();
        assert!(text.contains(part), "{part}: {text}");
    }
    let netlist = netlist(&divider());
    let conditions = Conditions {
        wire_ff_per_sink: f64::NAN,
        ..BARE
    };
    let error = Design::new(&netlist, conditions).expect_err("it is no number");
    assert!(matches!(error, DesignError::Value { .. }), "{error}");
}
