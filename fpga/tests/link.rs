//! Products over lines on which everything goes wrong, against the golden model.
// A helper of a test may fail it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use fpga::link::{
    Activations, Board, BoardError, FaultRates, Faulty, LinkError, LinkOptions, Options, Product,
    Transport, TransportError, TwinTransport, Weights,
};
use golden::block::Block;
use golden::matmul;
use golden::packed::{PackedTensor, TensorScale};
use golden::quantizer::{ActivationQuantizer, ChannelSensitivity, Policy};
use golden::requantize::OutputScale;
use golden::strategies::{block, config, finite_block, threshold, z_block};
use half::bf16;
use hdl::board::BoardConfig;
use hdl::board::protocol::encode;
use hdl::config::ArrayConfig;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const RATE: u32 = 1_000_000;

/// No time passes on the twin's line, so nothing is gained by waiting.
fn patient() -> Options {
    Options {
        link: LinkOptions {
            slack: Duration::ZERO,
            tries: 60,
            ..LinkOptions::default()
        },
        recoveries: 500,
        pause: Duration::ZERO,
        ..Options::default()
    }
}

fn boards() -> impl Strategy<Value = BoardConfig> {
    (
        1usize..=5,
        1usize..=5,
        1u32..7,
        1u32..7,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(rows, cols, w, a, requantizer, quantizer, halves)| BoardConfig {
                array: ArrayConfig {
                    lanes: if halves && !quantizer { 8 } else { 16 },
                    rows,
                    cols,
                    weight_blocks: 1 << w,
                    act_blocks: 1 << a,
                    // 52 bits: sums of up to 16 blocks.
                    max_k: 256,
                    ..ArrayConfig::default()
                },
                requantizer,
                quantizer,
                ..BoardConfig::default()
            },
        )
}

fn faults() -> impl Strategy<Value = FaultRates> {
    let chance =
        |most: f64| prop_oneof![1 => Just(0.0), 2 => (0.0..1.0f64).prop_map(move |x| x * x * most)];
    (
        chance(0.004),
        chance(0.004),
        chance(0.004),
        chance(0.002),
        chance(0.2),
        chance(0.006),
        chance(0.006),
    )
        .prop_map(
            |(flip, lose, repeat, burst, stall, reset, pull)| FaultRates {
                flip,
                lose,
                repeat,
                burst,
                stall,
                reset,
                pull,
            },
        )
}

fn tensor(
    rows: usize,
    blocks: usize,
    element: impl Strategy<Value = Block>,
) -> impl Strategy<Value = PackedTensor> {
    prop::collection::vec(element, rows * blocks).prop_map(move |all| {
        PackedTensor::from_blocks(&[rows, blocks * 16], TensorScale::ONE, all).unwrap()
    })
}

/// Weights of one K, activations that meet them.
fn operands() -> impl Strategy<Value = (Vec<PackedTensor>, PackedTensor)> {
    (
        prop::collection::vec(1usize..24, 1..4),
        1usize..12,
        1usize..24,
    )
        .prop_flat_map(|(features, tokens, blocks)| {
            let weights: Vec<_> = features
                .into_iter()
                .map(|rows| tensor(rows, blocks, finite_block()))
                .collect();
            (weights, tensor(tokens, blocks, block()))
        })
}

type Line = Faulty<TwinTransport>;

fn connect(config: BoardConfig, rates: FaultRates, seed: u64) -> Board<Line> {
    let line = Faulty::new(TwinTransport::new(config, RATE).unwrap(), rates, seed);
    Board::connect(line, patient()).unwrap()
}

/// All results of golden's, raw values of NaN sums aside.
fn check(
    products: &[Product],
    weights: &[PackedTensor],
    acts: &PackedTensor,
    scale: Option<OutputScale>,
) {
    assert_eq!(products.len(), weights.len());
    for (product, weights) in products.iter().zip(weights) {
        let golden = matmul(weights, acts).unwrap();
        match (product, scale) {
            (Product::Accumulators(found), None) => {
                assert_eq!(found.len(), golden.accumulators.len());
                for (found, golden) in found.iter().zip(&golden.accumulators) {
                    assert_eq!(found.is_nan(), golden.is_nan());
                    assert!(found.is_nan() || found.value() == golden.value());
                }
            }
            (Product::Bf16(found), Some(scale)) => {
                let bits = |all: &[bf16]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(found), bits(&golden.requantized(scale)));
            }
            other => panic!("another form was asked for: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(config(96))]

    /// Whatever the board, the shapes and the line: the golden model's results.
    #[test]
    fn products_are_goldens_whatever_the_line_does(
        board in boards(),
        rates in faults(),
        (weights, acts) in operands(),
        keep in any::<bool>(),
        scale in prop::option::of(Just(OutputScale::new(0.37).unwrap())),
        seed in any::<u64>(),
    ) {
        let mut board = connect(board, rates, seed);
        let keys = if keep { board.keep(&weights) } else { Vec::new() };
        let operands: Vec<Weights<'_>> = if keep {
            keys.into_iter().map(Weights::Kept).collect()
        } else {
            weights.iter().map(Weights::Once).collect()
        };
        let scales = scale.map(|scale| vec![scale; weights.len()]);
        // Twice: the second time kept weights are there.
        for _ in 0..2 {
            let products = board
                .products(&operands, Activations::Packed(&acts), scales.as_deref())
                .unwrap();
            check(&products, &weights, &acts, scale);
        }
        let pairs = weights.iter().map(|it| it.rows()).sum::<usize>() * acts.block_count();
        prop_assert_eq!(board.pairs().total(), 2 * pairs as u64);
    }

    /// Elements quantized by the board, or here where it has no quantizer.
    #[test]
    fn elements_are_quantized_as_golden_does(
        board in boards(),
        rates in faults(),
        z in prop::collection::vec(z_block(), 12),
        (tokens, channels) in (1usize..4, 1usize..60),
        policy in prop_oneof![Just(Policy::Fp8), Just(Policy::Fp4), threshold().prop_map(Policy::Threshold)],
        weights in prop::collection::vec(finite_block(), 5 * 4),
        seed in any::<u64>(),
    ) {
        let x: Vec<bf16> = z.iter().flatten().copied().cycle().take(tokens * channels).collect();
        let scale = TensorScale::new(0.75).unwrap();
        let quantizer = ActivationQuantizer::new(scale, ChannelSensitivity::uniform(channels), policy).unwrap();
        let blocks = channels.div_ceil(16);
        let weights = PackedTensor::from_blocks(
            &[5, blocks * 16],
            TensorScale::ONE,
            weights.into_iter().take(5 * blocks),
        )
        .unwrap();
        let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
        let packed = quantizer.pack(&wide).unwrap();
        let padded = PackedTensor::from_blocks(
            &[tokens, blocks * 16],
            scale,
            packed.blocks(),
        )
        .unwrap();
        let mut board = connect(board, rates, seed);
        let products = board
            .products(&[Weights::Once(&weights)], Activations::Elements { x: &x, quantizer: &quantizer }, None)
            .unwrap();
        check(&products, &[weights], &padded, None);
    }
}

/// Random products over a bad line until so many commands have been executed.
fn endure(commands: u64, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &[seed as u8; 32]),
    );
    let mut executed = 0;
    let mut totals = [0; 7];
    let (mut frames, mut recoveries, mut products, mut given_up) = (0, 0, 0u64, 0u64);
    while executed < commands {
        let config = boards().new_tree(&mut runner).unwrap().current();
        let rates = faults().new_tree(&mut runner).unwrap().current();
        let mut board = connect(config, rates, random.random());
        for _ in 0..4 {
            let (weights, acts) = operands().new_tree(&mut runner).unwrap().current();
            let keys = board.keep(&weights);
            let operands: Vec<_> = keys.into_iter().map(Weights::Kept).collect();
            for _ in 0..8 {
                let scale = random
                    .random_bool(0.5)
                    .then(|| OutputScale::new(-1.5).unwrap());
                let scales = scale.map(|scale| vec![scale; weights.len()]);
                match random.random_range(0..8) {
                    0 => board.transport_mut().reset_board(),
                    1 => board.transport_mut().pull_cable(),
                    _ => {}
                }
                let found = match board.products(
                    &operands,
                    Activations::Packed(&acts),
                    scales.as_deref(),
                ) {
                    Ok(found) => found,
                    // A line on which nothing gets through is an error, never a result.
                    Err(BoardError::GivenUp { .. }) => {
                        given_up += 1;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                check(&found, &weights, &acts, scale);
                products += found.len() as u64;
            }
        }
        executed += board.statistics().commands;
        frames += board.statistics().frames_sent;
        recoveries += board.recoveries();
        let done = board.transport().done();
        let all = [
            done.flips,
            done.losses,
            done.repeats,
            done.bursts,
            done.stalls,
            done.resets,
            done.pulls,
        ];
        for (total, done) in totals.iter_mut().zip(all) {
            *total += done;
        }
    }
    println!(
        "{executed} commands in {frames} frames, {products} products, all golden's; {totals:?} flips, losses, repeats, bursts, stalls, resets, pulled cables; {recoveries} new beginnings, {given_up} products given up"
    );
    assert!(
        given_up * 100 <= products,
        "{given_up} of {products} given up"
    );
    assert!(
        totals.iter().all(|&count| count > 0),
        "every kind of fault happened: {totals:?}"
    );
}

/// A million with `FGMP_FULL`, else a sample.
#[test]
fn no_wrong_result_is_accepted() {
    let full = std::env::var_os("FGMP_FULL").is_some();
    let commands = if full { 1_000_000 } else { 20_000 };
    if !full {
        println!("{commands} commands; a million with FGMP_FULL=1");
    }
    endure(commands, 7);
}

fn small() -> BoardConfig {
    BoardConfig {
        array: ArrayConfig {
            rows: 2,
            cols: 1,
            weight_blocks: 64,
            act_blocks: 16,
            ..ArrayConfig::default()
        },
        ..BoardConfig::default()
    }
}

fn ones(rows: usize, blocks: usize) -> PackedTensor {
    let block = Block::Fp8 {
        elements: [golden::format::E4m3::quantize(1.0); 16],
    };
    PackedTensor::from_blocks(
        &[rows, blocks * 16],
        TensorScale::ONE,
        vec![block; rows * blocks],
    )
    .unwrap()
}

#[test]
fn kept_weights_are_sent_once_and_again_after_a_reset() {
    let mut board = connect(small(), FaultRates::default(), 1);
    let (weights, acts) = (ones(10, 8), ones(1, 8));
    let keys = board.keep([&weights]);
    let run = |board: &mut Board<Line>| {
        let before = board.statistics().bytes_sent;
        let y = board
            .gemm(Weights::Kept(keys[0]), Activations::Packed(&acts))
            .unwrap();
        assert!(y.iter().all(|sum| sum.value() == (8 * 16) << 20));
        board.statistics().bytes_sent - before
    };
    let (first, second) = (run(&mut board), run(&mut board));
    // Ten rows of eight blocks, 16 bytes each; one such row of activations.
    assert!(first > 11 * 8 * 16, "{first} bytes");
    assert!(second < 8 * 16 + 100, "{second} bytes");
    board.transport_mut().reset_board();
    assert!(run(&mut board) > 11 * 8 * 16);
    assert!(run(&mut board) < 8 * 16 + 100);
    board.transport_mut().pull_cable();
    assert!(run(&mut board) > 11 * 8 * 16);
    assert_eq!(board.recoveries(), 2);
    assert_eq!(board.statistics().repeated, 0);
}

#[test]
fn a_clean_line_repeats_nothing_and_counters_agree() {
    let mut board = connect(small(), FaultRates::default(), 2);
    let (weights, acts) = (ones(50, 16), ones(3, 16));
    board
        .gemm(Weights::Once(&weights), Activations::Packed(&acts))
        .unwrap();
    let statistics = *board.statistics();
    assert_eq!(statistics.repeated, 0);
    let counters = board.counters().unwrap();
    // Those and `Open`; the one that reads them is counted when it is done.
    assert_eq!(u64::from(counters.frames), statistics.commands + 1);
    assert_eq!((counters.damaged, counters.refused), (0, 0));
    // 25 row groups, three tiles of one token, 16 steps each.
    assert_eq!(counters.steps, 25 * 3 * 16);
}

/// A line that says always the same.
struct Parrot(Vec<u8>);

impl Transport for Parrot {
    fn write_all(&mut self, _bytes: &[u8]) -> Result<(), TransportError> {
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], _patience: Duration) -> Result<usize, TransportError> {
        let count = self.0.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        Ok(count)
    }

    fn reopen(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    fn rate(&self) -> u32 {
        RATE
    }

    fn name(&self) -> String {
        "parrot".into()
    }
}

#[test]
fn what_does_not_answer_is_told_apart() {
    let message = |says: &[u8]| {
        let error = Board::connect(Parrot(says.to_vec()), patient())
            .err()
            .unwrap();
        assert!(
            matches!(error, BoardError::Link(LinkError::NoAnswer { .. })),
            "{error}"
        );
        error.to_string()
    };
    assert!(message(&[]).contains("not a byte came back"));
    assert!(message(b"login: ").contains("no intact frame"));
    assert!(message(&encode(&[1, 2, 0, 3, 9])).contains("intact frames"));
}

#[test]
fn foreign_boards_are_refused() {
    /// A board whose first registers are others.
    struct Other(TwinTransport, usize, u8);
    impl Transport for Other {
        fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
            self.0.write_all(bytes)
        }
        fn read(&mut self, buffer: &mut [u8], p: Duration) -> Result<usize, TransportError> {
            let count = self.0.read(buffer, p)?;
            let mut deframer = hdl::board::protocol::Deframer::new(508);
            for &byte in &buffer[..count] {
                if let Some(hdl::board::protocol::Received::Frame(mut content)) =
                    deframer.push(byte)
                    && content.len() > 4
                {
                    content[4 + self.1] ^= self.2;
                    let line = encode(&content);
                    buffer[..line.len()].copy_from_slice(&line);
                    return Ok(line.len());
                }
            }
            Ok(count)
        }
        fn reopen(&mut self) -> Result<(), TransportError> {
            self.0.reopen()
        }
        fn rate(&self) -> u32 {
            RATE
        }
        fn name(&self) -> String {
            "other".into()
        }
    }
    let connect = |place, bits| {
        let twin = TwinTransport::new(small(), RATE).unwrap();
        Board::connect(Other(twin, place, bits), patient()).err()
    };
    assert!(matches!(
        connect(0, 1),
        Some(BoardError::Foreign(0x464D_4743))
    ));
    assert!(matches!(
        connect(6, 2),
        Some(BoardError::Version { found: 3, known: 1 })
    ));
    assert!(matches!(connect(8, 2), Some(BoardError::Implausible(_))));
    assert!(connect(4, 1).is_none(), "additions are no obstacle");
}

#[test]
fn mistakes_are_named_before_anything_is_sent() {
    let mut board = connect(small(), FaultRates::default(), 3);
    let (weights, acts) = (ones(4, 3), ones(1, 2));
    let wrong = board.gemm(Weights::Once(&weights), Activations::Packed(&acts));
    assert!(matches!(
        wrong,
        Err(BoardError::Shape {
            weights: 3,
            activations: 2
        })
    ));
    let keys = board.keep([&weights]);
    board.keep([]);
    let gone = board.gemm(Weights::Kept(keys[0]), Activations::Packed(&acts));
    assert!(matches!(gone, Err(BoardError::UnknownKey)));
    let scales = board.products(
        &[Weights::Once(&acts)],
        Activations::Packed(&acts),
        Some(&[]),
    );
    assert!(matches!(scales, Err(BoardError::Scales { .. })));
}

#[test]
fn a_dead_line_is_given_up() {
    struct Dead(TwinTransport, bool);
    impl Transport for Dead {
        fn write_all(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
            if self.1 {
                Ok(())
            } else {
                self.0.write_all(bytes)
            }
        }
        fn read(&mut self, buffer: &mut [u8], p: Duration) -> Result<usize, TransportError> {
            if self.1 {
                Ok(0)
            } else {
                self.0.read(buffer, p)
            }
        }
        fn reopen(&mut self) -> Result<(), TransportError> {
            Ok(())
        }
        fn rate(&self) -> u32 {
            RATE
        }
        fn name(&self) -> String {
            "dead".into()
        }
    }
    let options = Options {
        recoveries: 3,
        ..patient()
    };
    let line = Dead(TwinTransport::new(small(), RATE).unwrap(), false);
    let mut board = Board::connect(line, options).unwrap();
    board.transport_mut().1 = true;
    let error = board
        .gemm(Weights::Once(&ones(2, 2)), Activations::Packed(&ones(1, 2)))
        .unwrap_err();
    assert!(
        matches!(error, BoardError::GivenUp { attempts: 3, .. }),
        "{error}"
    );
}

#[test]
fn a_reset_board_is_noticed_by_bare_operations() {
    let mut board = connect(small(), FaultRates::default(), 4);
    let packed: Vec<_> = ones(1, 2).packed_blocks().collect();
    board.load_blocks(0, 0, &packed).unwrap();
    board.load_blocks(0x80, 0, &packed).unwrap();
    let product = board.multiply(0, 0, 2, [1, 1], false).unwrap();
    assert_eq!(product[..8], (32i64 << 20).to_le_bytes());
    board.transport_mut().reset_board();
    let error = board.multiply(0, 0, 2, [1, 1], false).unwrap_err();
    assert!(matches!(error, BoardError::Link(LinkError::BoardReset)));
    let refused = {
        let mut board = connect(small(), FaultRates::default(), 4);
        board
            .load_sensitivities(0, &[golden::format::Ue4m3::ONE])
            .unwrap_err()
    };
    assert!(matches!(
        refused,
        BoardError::Link(LinkError::Rejected { .. })
    ));
}
