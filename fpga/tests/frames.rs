//! The generated engine behind a line on which everything goes wrong: at its pins, in Verilator, driven by the driver, against the golden model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::time::Duration;

use fpga::link::{
    Activations, Board, BoardError, FaultRates, Faulty, LinkOptions, Options, Product, Resettable,
    Transport, TransportError, Weights,
};
use golden::matmul;
use golden::packed::{PackedTensor, TensorScale};
use golden::strategies::{block, finite_block};
use hdl::board::BoardConfig;
use hdl::build::emit_board;
use hdl::config::ArrayConfig;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use testbench::design::Design;
use testbench::serial::{
    BitLength, FaultRates as WireRates, Faults, Limits, SerialModel, SerialPorts,
};
use testbench::verilator::Verilator;

/// Cycles a second of the simulated clock.
const CLOCK: u32 = 12_000_000;

/// A line in this process: simulated time passes while somebody reads, until nothing moves any more.
struct Pins {
    model: SerialModel,
    rate: u32,
    to_send: Vec<u8>,
    heard: VecDeque<u8>,
}

impl Pins {
    fn new(config: BoardConfig, rates: WireRates, seed: u64) -> Self {
        let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
        let design = Design::from(&emit_board(config).unwrap());
        let verilator = Verilator::find().unwrap();
        let verilator = if full {
            verilator
        } else {
            verilator.for_short_runs()
        };
        let ports = SerialPorts::of(&design).unwrap();
        let bit = BitLength::new(config.clocks_per_bit, 0).unwrap();
        let faults = |seed| Faults::random(seed, rates).unwrap();
        let mut model = SerialModel::new(verilator.simulate(&design).unwrap(), ports, bit)
            .unwrap()
            .with_faults(faults(seed), faults(seed + 1));
        assert!(model.reset(&mut Vec::new()).unwrap());
        Self {
            model,
            rate: CLOCK / config.clocks_per_bit as u32,
            to_send: Vec::new(),
            heard: VecDeque::new(),
        }
    }
}

impl Transport for Pins {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        self.to_send.extend_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], patience: Duration) -> Result<usize, TransportError> {
        // When line and engine are quiet nothing more will come: no need to wait as one would for a real board.
        let limits = Limits {
            quiet_cycles: Some(600),
            ..Limits::cycles((patience.as_secs_f64() * f64::from(CLOCK)) as u64 + 1)
        };
        let sent = std::mem::take(&mut self.to_send);
        let mut heard = Vec::new();
        if self.heard.is_empty() || !sent.is_empty() {
            self.model.run(&sent, &mut heard, &limits).unwrap();
        }
        self.heard.extend(heard);
        let count = buffer.len().min(self.heard.len());
        for (place, byte) in buffer.iter_mut().zip(self.heard.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }

    fn reopen(&mut self) -> Result<(), TransportError> {
        self.to_send.clear();
        self.heard.clear();
        self.model.cut();
        Ok(())
    }

    fn rate(&self) -> u32 {
        self.rate
    }

    fn name(&self) -> String {
        "pins".into()
    }
}

impl Resettable for Pins {
    fn reset_board(&mut self) {
        self.model.reset(&mut Vec::new()).unwrap();
    }
}

fn tensor(
    rows: usize,
    blocks: usize,
    element: impl Strategy<Value = golden::block::Block>,
) -> impl Strategy<Value = PackedTensor> {
    prop::collection::vec(element, rows * blocks).prop_map(move |all| {
        PackedTensor::from_blocks(&[rows, blocks * 16], TensorScale::ONE, all).unwrap()
    })
}

/// Small operands, so that frames are short and many.
fn operands() -> impl Strategy<Value = (PackedTensor, PackedTensor)> {
    (1usize..7, 1usize..6, 1usize..8).prop_flat_map(|(rows, tokens, blocks)| {
        (
            tensor(rows, blocks, finite_block()),
            tensor(tokens, blocks, block()),
        )
    })
}

/// Products until so many frames have gone over the line, in both directions together.
fn endure(config: BoardConfig, frames: u64, seed: u64) {
    let chance = |one_in: f64| 1.0 / one_in;
    let wire = WireRates {
        flip: chance(3000.0),
        framing: chance(9000.0),
        drop: chance(9000.0),
        duplicate: chance(9000.0),
        spurious: chance(9000.0),
        burst: chance(30000.0),
        glitch: chance(9000.0),
        line_break: chance(30000.0),
    };
    let hands = FaultRates {
        reset: 0.0005,
        pull: 0.0005,
        ..FaultRates::default()
    };
    let line = Faulty::new(Pins::new(config, wire, seed), hands, seed);
    let options = Options {
        link: LinkOptions {
            slack: Duration::from_millis(300),
            tries: 60,
            ahead: Duration::from_millis(4),
        },
        recoveries: 500,
        pause: Duration::ZERO,
        ..Options::default()
    };
    let mut board = Board::connect(line, options).unwrap();
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &[seed as u8; 32]),
    );
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut products, mut results, mut given_up) = (0u64, 0u64, 0u64);
    let total = |board: &Board<Faulty<Pins>>| {
        let line = board.statistics();
        line.frames_sent + line.commands + line.complaints
    };
    while total(&board) < frames {
        let (weights, acts) = operands().new_tree(&mut runner).unwrap().current();
        let golden = matmul(&weights, &acts).unwrap();
        for _ in 0..random.random_range(1..4) {
            let found = match board.products(
                &[Weights::Once(&weights)],
                Activations::Packed(&acts),
                None,
            ) {
                Ok(found) => found,
                // A line on which nothing gets through is an error, never a result.
                Err(BoardError::GivenUp { .. }) => {
                    given_up += 1;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let [Product::Accumulators(found)] = found.as_slice() else {
                panic!("accumulators were asked for: {found:?}");
            };
            assert_eq!(found.len(), golden.accumulators.len());
            for (found, golden) in found.iter().zip(&golden.accumulators) {
                assert_eq!(found.is_nan(), golden.is_nan());
                assert!(found.is_nan() || found.value() == golden.value());
            }
            products += 1;
            results += found.len() as u64;
        }
    }
    let (line, done) = (board.statistics(), board.transport().done());
    println!(
        "{} frames to the board and {} back, {products} products, {results} results, all golden's; {} repeated, {} damaged replies, {} complaints, {} timeouts, {} resets, {} pulled cables, {} new beginnings, {given_up} products given up",
        line.frames_sent,
        line.commands + line.complaints,
        line.repeated,
        line.damaged,
        line.complaints,
        line.timeouts,
        done.resets,
        done.pulls,
        board.recoveries()
    );
    assert!(given_up * 100 <= products, "{given_up} given up");
    assert!(line.repeated > 0 && line.complaints > 0 && line.damaged > 0);
}

/// A million frames with `FGMP_FULL`, else a sample.
#[test]
fn no_wrong_answer_at_the_pins() {
    let full = std::env::var("FGMP_FULL").is_ok_and(|value| value == "1");
    let config = BoardConfig {
        array: ArrayConfig {
            rows: 1,
            cols: 1,
            lanes: 8,
            pipeline: 5,
            weight_blocks: 16,
            act_blocks: 32,
            max_k: 256,
            ..ArrayConfig::default()
        },
        ..BoardConfig::default()
    };
    endure(config, if full { 1_000_000 } else { 4_000 }, 5);
}
