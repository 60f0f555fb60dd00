//! A small design placed and routed for ECP5, and the table's rows of the smallest part.
// A helper of a test may fail it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;

use synth::harness::{Harness, TOP};
use synth::nextpnr::{NEXTPNR_ECP5, RouteError, TABLE_CONDITIONS, place_and_route};
use synth::table::{Measure, Status, measure, parts};
use synth::yosys::{Hierarchy, Multipliers, Target, cells, netlist};

/// Two registers of 8 bits with an adder between them.
const DESIGN: &str = "
module adder (input wire clock, input wire [7:0] a, input wire [7:0] b, output reg [7:0] sum);
    reg [7:0] held;
    always @(posedge clock) begin held <= a; sum <= held + b; end
endmodule
";

#[test]
fn an_adder_is_placed_and_has_a_clock() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("netlist.json");
    let report = netlist(DESIGN, "adder", Target::Ecp5, Hierarchy::Flat, &file).unwrap();
    assert_eq!(report.count(&["TRELLIS_FF"]), 16);
    let routed = place_and_route(&file, &TABLE_CONDITIONS).unwrap();
    assert_eq!(routed.used["TRELLIS_FF"], 16);
    assert!(routed.mhz > 100.0 && routed.mhz < 2_000.0, "{routed:?}");
    let path = routed.critical_path.unwrap();
    assert!(path.routing_ns < path.delay_ns);
    assert!((1_000.0 / path.delay_ns / routed.mhz - 1.0).abs() < 0.1);
    assert!(routed.tool.contains("nextpnr"), "{}", routed.tool);
}

#[test]
fn what_nextpnr_refuses_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("netlist.json");
    std::fs::write(&file, "{}").unwrap();
    let error = place_and_route(&file, &TABLE_CONDITIONS).unwrap_err();
    assert!(matches!(error, RouteError::Nextpnr(_)), "{error}");
    let missing = NEXTPNR_ECP5.find_as(Some("no-such-nextpnr")).unwrap_err();
    assert!(missing.to_string().contains("pip install"), "{missing}");
}

#[test]
fn the_harness_costs_what_it_says() {
    // A module of 57 gates; all else is the harness. Bare wires would make registers that yosys merges.
    let gates = "module gates (input wire [56:0] a, output wire [56:0] y);
                   assign y = a & {a[55:0], a[56]};
                 endmodule\n";
    let module = hdl::emit::Module {
        name: "gates".to_owned(),
        source: gates.to_owned(),
        ports: [
            ("a", hdl::emit::Direction::Input),
            ("y", hdl::emit::Direction::Output),
        ]
        .map(|(name, direction)| hdl::emit::Port {
            name: name.to_owned(),
            width: 57,
            direction,
        })
        .to_vec(),
        instances: Vec::new(),
        parameters: Vec::new(),
        doc: String::new(),
    };
    let harness = Harness::of(&module);
    let text = gates.to_owned() + &harness.text;
    let report = cells(&text, TOP, Target::Ecp5, Hierarchy::Flat).unwrap();
    assert_eq!(report.count(&["LUT4"]), harness.lut4() + 57);
    assert_eq!(report.count(&["TRELLIS_FF"]), harness.registers());
}

#[test]
fn the_table_has_both_builds_bars_and_peers() {
    let mut wanted = parts(5);
    wanted.retain(|part| part.name == "fp4_sum");
    let told = Mutex::new(Vec::new());
    let rows = measure(&wanted, None, |name, multipliers| {
        told.lock().unwrap().push((name.to_owned(), multipliers));
    })
    .unwrap();
    assert_eq!(told.into_inner().unwrap().len(), 2);
    let [row] = rows.as_slice() else {
        panic!("one part, {} rows", rows.len())
    };
    let multipliers: Vec<Multipliers> = row.builds.iter().map(|build| build.multipliers).collect();
    assert_eq!(multipliers, [Multipliers::Logic, Multipliers::Blocks]);
    let logic = &row.builds[0];
    assert_eq!(logic.lut4, logic.tables + 2 * logic.carry_cells);
    assert_eq!(logic.multiplier_blocks, 0);
    assert!(logic.routed.is_none());
    let verdict = &row.bars[0];
    assert_eq!(verdict.bar.measure, Measure::Lut4);
    assert_eq!(verdict.value, Some(logic.lut4 as f64));
    assert_eq!(verdict.status, Some(Status::Green), "{verdict:?}");
    assert_eq!(row.peers.len(), 2);
}
