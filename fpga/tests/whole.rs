//! A board as a whole: its own top with its clock's loop and its engine, in Verilator behind a pseudo-terminal, multiplies for the driver.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use fpga::link::{Activations, Board, LinkOptions, Options, Product, SerialTransport, Weights};
use fpga::simulated::{FaultPlan, Setup, SimulatedBoard};
use golden::matmul;
use golden::packed::{PackedTensor, TensorScale};
use golden::strategies::finite_block;
use hdl::build::emit_board;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn tensor(runner: &mut TestRunner, rows: usize, blocks: usize) -> PackedTensor {
    let all = prop::collection::vec(finite_block(), rows * blocks)
        .new_tree(runner)
        .unwrap()
        .current();
    PackedTensor::from_blocks(&[rows, blocks * 16], TensorScale::ONE, all).unwrap()
}

fn multiplies(name: &str) {
    let board = fpga::board(name).unwrap();
    let baud = board.uart.baud;
    let mut config = board.engine(baud).unwrap();
    // A small array compiles sooner; all around it is the board's.
    (config.array.rows, config.array.cols) = (1, 1);
    let design = board.design(&emit_board(config).unwrap());
    let setup =
        Setup::of_board(board, &design, config.clocks_per_bit, FaultPlan::default()).unwrap();
    let simulated = SimulatedBoard::start_with(&design, setup).unwrap();
    let port = SerialTransport::open(&simulated.path().to_string_lossy(), baud).unwrap();
    let options = Options {
        link: LinkOptions {
            slack: Duration::from_secs(10),
            ..LinkOptions::default()
        },
        ..Options::default()
    };
    let mut driver = Board::connect(port, options).unwrap();
    let mut runner = TestRunner::deterministic();
    let (weights, acts) = (tensor(&mut runner, 5, 9), tensor(&mut runner, 3, 9));
    let golden = matmul(&weights, &acts).unwrap();
    let check = |found: &[Product]| {
        let [Product::Accumulators(found)] = found else {
            panic!("accumulators were asked for");
        };
        let values =
            |all: &[golden::mac::Accumulator]| all.iter().map(|it| it.value()).collect::<Vec<_>>();
        assert_eq!(values(found), values(&golden.accumulators));
    };
    let product = |driver: &mut Board<SerialTransport>| {
        driver
            .products(&[Weights::Once(&weights)], Activations::Packed(&acts), None)
            .unwrap()
    };
    check(&product(&mut driver));
    // On a clean line nothing is repeated, from the first byte on.
    assert_eq!(driver.statistics().repeated, 0);
    assert_eq!(driver.counters().unwrap().damaged, 0);
    // The button, and the cable: the driver begins anew, and the results are the same.
    simulated.press_reset().unwrap();
    check(&product(&mut driver));
    assert!(driver.recoveries() > 0);
}

#[test]
fn a_whole_board_multiplies() {
    multiplies("hx8k-breakout");
    if std::env::var("FGMP_FULL").is_ok_and(|value| value == "1") {
        for board in fpga::boards() {
            multiplies(board.name);
        }
    } else {
        eprintln!("all boards but the HX8K are left out: FGMP_FULL=1 runs them");
    }
}
