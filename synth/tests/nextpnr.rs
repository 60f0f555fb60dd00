//! A small design placed and routed for ECP5, and the table's rows of the smallest part.
// A helper of a test may fail it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;

use synth::device::{DEVICES, Device, ECP5_85};
use synth::harness::{Harness, TOP};
use synth::nextpnr::{ICETIME, NEXTPNR_ECP5, RouteError, TABLE_CONDITIONS, find, place_and_route};
use synth::store::Store;
use synth::table::{Measure, Options, Status, implement, measure, parts};
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
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("results.jsonl")).unwrap();
    let options = Options {
        device: ECP5_85,
        target_mhz: 100,
        seeds: &[],
        store: Some(&store),
    };
    let rows = measure(&wanted, &options, |name, multipliers| {
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
    assert!(logic.routed.is_empty());
    let verdict = &row.bars[0];
    assert_eq!(verdict.bar.measure, Measure::Lut4);
    assert_eq!(verdict.value, Some(logic.lut4 as f64));
    assert_eq!(verdict.status, Some(Status::Green), "{verdict:?}");
    assert_eq!(row.peers.len(), 2);

    // What the store has is not measured again.
    assert_eq!(store.entries().len(), 2);
    let mut changed = store.entries()[0].clone();
    let part = changed.subject["part"].as_str().unwrap();
    assert_eq!(part, "fp4_sum");
    changed.result["cells"]["LUT4"] = 17.into();
    store
        .put(changed.key, "mapped", changed.subject, &changed.result)
        .unwrap();
    let store = Store::open(store.path()).unwrap();
    let options = Options {
        store: Some(&store),
        ..options
    };
    let rows = measure(&wanted, &options, |_, _| ()).unwrap();
    assert!(rows[0].builds.iter().any(|build| build.tables == 17));
}

#[test]
fn an_adder_is_placed_on_every_device() {
    let module = hdl::emit::Module {
        name: "adder".to_owned(),
        source: DESIGN.to_owned(),
        ports: [("clock", 1), ("a", 8), ("b", 8), ("sum", 8)]
            .map(|(name, width)| hdl::emit::Port {
                name: name.to_owned(),
                width,
                direction: if name == "sum" {
                    hdl::emit::Direction::Output
                } else {
                    hdl::emit::Direction::Input
                },
            })
            .to_vec(),
        instances: Vec::new(),
        parameters: Vec::new(),
        doc: String::new(),
    };
    let text = DESIGN.to_owned() + &Harness::of(&module).text;
    for device in &DEVICES {
        if let Err(missing) = find(device) {
            // Gowin's is installed by `./setup --all` only.
            assert_eq!(device.target, Target::Gowin, "{missing}");
            eprintln!("skipped: {device}: {missing}");
            continue;
        }
        let options = Options {
            device,
            target_mhz: 12,
            seeds: &[1, 2],
            store: None,
        };
        let subject = serde_json::json!({});
        let build = implement(&text, TOP, Multipliers::Logic, &options, subject, |_| ()).unwrap();
        let clock = build.clock().unwrap();
        assert!(
            clock.min > 12.0 && clock.max < 2_000.0,
            "{device}: {clock:?}"
        );
        assert_eq!(build.routed[1].seed, 2);
        let routed = &build.routed[0];
        assert!(routed.used[device.table_cell] < routed.available[device.table_cell]);
        let second_opinion = device.target == Target::Ice40 && ICETIME.find().is_ok();
        assert_eq!(routed.icetime_mhz.is_some(), second_opinion);
    }
}

#[test]
fn a_design_that_does_not_fit_is_told_by_how_much() {
    let text = "module large (input wire clock, input wire serial, output wire parity);
                  reg [5999:0] bits;
                  always @(posedge clock) bits <= {bits[5998:0], serial};
                  assign parity = bits[5999];
                endmodule\n";
    let options = Options {
        device: Device::named("ice40:up5k").unwrap(),
        target_mhz: 12,
        seeds: &[1],
        store: None,
    };
    let subject = serde_json::json!({});
    let error =
        implement(text, "large", Multipliers::Logic, &options, subject, |_| ()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("does not fit ice40:up5k"), "{message}");
    assert!(message.contains("of 5280"), "{message}");
}
