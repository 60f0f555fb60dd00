//! From Verilog to bitstreams, with a small engine in place of the real one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fpga::flow::{self, Effort, FlowError, Step, check, implement, synthesize};
use fpga::{bitstream, board, boards};
use synth::yosys::Hierarchy;

/// An engine that uses what the real one does, tables, carries, registers and a memory, and little of it.
pub const ENGINE: &str = include_str!("engine.v");

#[test]
fn every_board_gets_a_bitstream_for_its_device_that_survives_being_read_back() {
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    let mut families = Vec::new();
    for board in boards() {
        if let Err(missing) = flow::tools(board) {
            // ./setup installs what two of the three families need, and the third's with --all.
            assert_eq!(board.family, fpga::Family::Gowin, "{missing}");
            eprintln!("{} is left out: {missing}", board.name);
            continue;
        }
        let netlist = synthesize(board, ENGINE, Hierarchy::Flat).expect(board.name);
        // Every board is mapped; one of each family goes on to a bitstream.
        if families.contains(&board.family) && !full {
            eprintln!("{} is only mapped: FGMP_FULL=1 places it", board.name);
            continue;
        }
        families.push(board.family);
        let mut steps = Vec::new();
        let built = implement(board, netlist, Effort::default(), |step| steps.push(step))
            .unwrap_or_else(|error| panic!("{}: {error}", board.name));
        assert_eq!(
            bitstream::device(&built.bitstream),
            Ok(board.configuration),
            "{}",
            board.name
        );
        let needed = f64::from(board.system_hz()) / 1e6;
        assert!(built.routed.mhz >= needed, "{}", board.name);
        assert_eq!(built.attempts.len(), 1, "{}", board.name);
        assert_eq!(steps.last(), Some(&Step::Packing));
        assert!(
            built.routed.used.values().any(|&it| it > 50),
            "{}: {:?}",
            board.name,
            built.routed.used
        );
        let found = check(board, &built.bitstream, &built.placed)
            .unwrap_or_else(|error| panic!("{}: {error}", board.name));
        assert_eq!(found.bytes, built.bitstream.len());
        eprintln!(
            "{}: {:.1} MHz, {:?}",
            board.name, built.routed.mhz, built.routed.used
        );
    }
}

#[test]
fn a_bitstream_that_changes_is_told() {
    let board = board("icebreaker").expect("it is listed");
    let netlist = synthesize(board, ENGINE, Hierarchy::Late).expect("it is mapped");
    let built = implement(board, netlist, Effort::default(), |_| ()).expect("it is placed");
    let mut damaged = built.bitstream.clone();
    // Behind the wake-up command the packer writes zeros, which the unpacker doesn't look at.
    damaged.push(0x55);
    assert!(matches!(
        check(board, &damaged, &built.placed),
        Err(FlowError::Changed(_))
    ));
    // A bit of the configuration: its checksum no longer holds.
    let mut damaged = built.bitstream.clone();
    damaged[2000] ^= 1;
    assert!(check(board, &damaged, &built.placed).is_err());
}

#[test]
fn a_design_that_is_too_slow_or_too_large_is_refused_with_the_figures() {
    let board = board("icebreaker").expect("it is listed");
    // 24 additions of 32 bits, one behind the other.
    let slow = "module fgmp_board(input wire clock, input wire reset, input wire rx, output reg tx, output wire ok, output wire busy, output wire fault);\n\
        reg [31:0] a, b; integer i; reg [31:0] s;\n\
        always @* begin s = a; for (i = 0; i < 24; i = i + 1) s = (s ^ {s[0], s[31:1]}) + b; end\n\
        always @(posedge clock) begin a <= {a[30:0], rx}; b <= b + {31'd0, rx}; tx <= ^s | reset; end\n\
        assign ok = a[0]; assign busy = a[1]; assign fault = a[2];\nendmodule\n";
    let netlist = synthesize(board, slow, Hierarchy::Flat).expect("it is mapped");
    let effort = Effort {
        first_seed: 3,
        seeds: 2,
    };
    let error = implement(board, netlist, effort, |_| ()).expect_err("12 MHz is not met");
    match &error {
        FlowError::TooSlow {
            needed, attempts, ..
        } => {
            assert_eq!(*needed, 12.0);
            assert_eq!(
                attempts.iter().map(|it| it.seed).collect::<Vec<_>>(),
                [3, 4]
            );
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("seed 3: "), "{error}");

    let large = ENGINE
        .replace("[23:0] count", "[5999:0] count")
        .replace("reset ? 0 : count + 24'd1", "{count[5998:0], rx & ~reset}")
        .replace("count[23]", "count[5999]");
    let netlist = synthesize(board, &large, Hierarchy::Flat).expect("it is mapped");
    let error = implement(board, netlist, effort, |_| ()).expect_err("6,000 registers");
    assert!(
        error.to_string().contains("does not fit iCE40UP5K-SG48"),
        "{error}"
    );
}
