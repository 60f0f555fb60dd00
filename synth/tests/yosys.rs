//! Cell counts of a small design on every target, and what happens when it can't be synthesized.
// A helper of a test may fail it.
#![allow(clippy::panic, clippy::expect_used)]

use synth::yosys::{
    Hierarchy, Mapping, Multipliers, SynthError, SynthReport, Target, YOSYS, cells, cells_with,
};

/// Four multiply-accumulators of 8 bits: 4 × 20 register bits.
const DESIGN: &str = "
module mac (input wire clock, input wire [7:0] a, input wire [7:0] b, output reg [19:0] sum);
    always @(posedge clock) sum <= sum + {4'd0, a * b};
endmodule
module four (input wire clock, input wire [31:0] a, input wire [31:0] b, output wire [79:0] sum);
    mac mac_0 (.clock(clock), .a(a[7:0]), .b(b[7:0]), .sum(sum[19:0]));
    mac mac_1 (.clock(clock), .a(a[15:8]), .b(b[15:8]), .sum(sum[39:20]));
    mac mac_2 (.clock(clock), .a(a[23:16]), .b(b[23:16]), .sum(sum[59:40]));
    mac mac_3 (.clock(clock), .a(a[31:24]), .b(b[31:24]), .sum(sum[79:60]));
endmodule
";

fn synthesized(target: Target, hierarchy: Hierarchy) -> SynthReport {
    cells(DESIGN, "four", target, hierarchy).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_target_has_all_registers_however_the_modules_are_kept() {
    let registers = |target| match target {
        Target::Generic => &["$_DFF", "$_SDFF"][..],
        Target::Ice40 => &["SB_DFF"],
        Target::Ecp5 => &["TRELLIS_FF"],
        Target::Gowin => &["DFF"],
    };
    for target in Target::ALL {
        for hierarchy in [Hierarchy::Flat, Hierarchy::Kept, Hierarchy::Late] {
            let report = synthesized(target, hierarchy);
            // A multiplier block may take the accumulator's register with it.
            let blocks = report.count(&["SB_MAC16"]);
            let found = report.count(registers(target));
            assert!(
                found == 80 || blocks == 4 && found < 80,
                "{target:?} {hierarchy:?}: {report:?}"
            );
            assert!(report.total() > found);
            let modules = match hierarchy {
                Hierarchy::Flat | Hierarchy::Late => 1,
                Hierarchy::Kept => 2,
            };
            assert_eq!(report.modules.len(), modules, "{target:?} {hierarchy:?}");
            assert!(report.tool.contains("Yosys"), "{}", report.tool);
        }
    }
}

#[test]
fn multiplications_become_blocks_or_logic() {
    for (multipliers, expected) in [(Multipliers::Blocks, 4), (Multipliers::Logic, 0)] {
        let mapping = Mapping {
            multipliers,
            ..Mapping::default()
        };
        let report =
            cells(DESIGN, "four", Target::Ecp5, mapping).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(report.count(&["MULT18X18D"]), expected, "{report:?}");
    }
}

#[test]
fn a_design_that_yosys_refuses_gives_its_message_with_the_line() {
    let error = cells(
        "module four (input wire a);\n    wire b = nothing(a);\nendmodule\n",
        "four",
        Target::Generic,
        Hierarchy::Flat,
    )
    .expect_err("there is no such function");
    assert!(matches!(error, SynthError::Yosys { .. }));
    let text = error.to_string();
    assert!(
        text.contains("design.v:2") && text.contains("nothing"),
        "{text}"
    );

    let error = cells(DESIGN, "five", Target::Generic, Hierarchy::Flat)
        .expect_err("there is no such module");
    assert!(error.to_string().contains("five"), "{error}");
}

#[test]
fn a_name_that_would_be_a_command_is_refused() {
    let error =
        cells(DESIGN, "four; shell", Target::Generic, Hierarchy::Flat).expect_err("it is no name");
    assert!(matches!(error, SynthError::Name(_)), "{error}");
}

#[test]
fn a_missing_yosys_says_how_to_install_it() {
    let error = YOSYS
        .find_as(Some("no-such-yosys"))
        .expect_err("it must not exist");
    assert!(
        error.to_string().contains("apt-get install -y yosys"),
        "{error}"
    );
    let nowhere = std::path::Path::new("/no/such/yosys");
    let error = cells_with(nowhere, DESIGN, "four", Target::Generic, Hierarchy::Flat)
        .expect_err("it can't run");
    assert!(matches!(error, SynthError::File { .. }), "{error}");
}
