//! The emitted core in Verilator against golden: the proof that hardware and model agree.
// A helper of a test may fail it.
#![allow(clippy::panic, clippy::expect_used)]

mod common;

use std::sync::OnceLock;

use common::{changed, full, is_full, verilator, verilator_for_short_runs};
use golden::format::BLOCK;
use golden::packed::{PackedTensor, TensorScale};
use golden::requantize::OutputScale;
use hdl::build::{emit_core, simulated_core};
use hdl::config::{ArrayConfig, Multiplier};
use hdl::emit::{EmitOptions, emit};
use hdl::quantizer::{ActQuantizer, TABLE_CYCLES, emit_alone};
use hdl::sim::Model;
use proptest::collection::vec;
use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use testbench::array::{ArrayBench, Drive, Waves};
use testbench::design::Design;
use testbench::quantizer::{QuantizerBench, RandomBatches};
use testbench::rust_sim::RustSim;
use testbench::simulator::Simulator;
use testbench::stimulus::{BlockKind, RandomTiles, Tile, block};
use testbench::verilator::VerilatorSim;

fn config(rows: usize, cols: usize) -> ArrayConfig {
    ArrayConfig {
        rows,
        cols,
        ..ArrayConfig::default()
    }
}

fn design(config: ArrayConfig) -> Design {
    Design::from(&emit_core(config).unwrap_or_else(|error| panic!("{error}")))
}

/// The default core, emitted once.
fn default_core() -> &'static Design {
    static CORE: OnceLock<Design> = OnceLock::new();
    CORE.get_or_init(|| design(ArrayConfig::default()))
}

/// A core of one row and two columns, which is quick to build.
fn small_core() -> &'static Design {
    static CORE: OnceLock<Design> = OnceLock::new();
    CORE.get_or_init(|| design(config(1, 2)))
}

/// The default core runs long, and so does every design in the full sweep; the others are built for short runs.
fn start(design: &Design) -> VerilatorSim {
    let runs_long = std::ptr::eq(design, default_core()) || is_full();
    let verilator = if runs_long {
        verilator().clone()
    } else {
        verilator_for_short_runs()
    };
    verilator
        .simulate(design)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn array(design: &Design) -> ArrayBench<VerilatorSim> {
    ArrayBench::new(start(design)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_default_array_agrees_in_every_mode_at_full_speed_and_under_stalls() {
    let mut bench = array(default_core());
    assert_eq!(
        (
            bench.ports().rows,
            bench.ports().cols,
            bench.ports().acc_bits
        ),
        (4, 4, 56)
    );
    for (seed, scale, drive) in [
        (1, 1.0, Drive::FULL_SPEED),
        (2, -3.3e-7, Drive::stalling(2)),
        (3, 0.0, Drive::stalling(3)),
        (4, 1.7e9, Drive::FULL_SPEED),
    ] {
        bench = bench
            .drive(drive)
            .output_scale(OutputScale::new(scale).expect("within the range"));
        let report = bench
            .random(20_000, 64, seed, |_| {})
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(report.passed(), "{report}");
        assert_eq!(report.pairs_by_mode.total(), 80_000);
        assert!(
            report.coverage.holes().is_empty(),
            "{:?}",
            report.coverage.holes()
        );
    }
}

/// The bar: 10⁶ block pairs in each mode, at 10⁵ pairs a second or more.
#[test]
fn a_million_pairs_in_each_mode_at_a_hundred_thousand_a_second() {
    if !full("a million block pairs in each mode through the default core") {
        return;
    }
    let report = array(default_core())
        .random(1_000_000, 64, 77, |_| {})
        .unwrap_or_else(|error| panic!("{error}"));
    eprint!("{report}");
    assert!(report.passed(), "{report}");
    for count in [
        report.pairs_by_mode.fp4_fp4,
        report.pairs_by_mode.fp4_fp8,
        report.pairs_by_mode.fp8_fp4,
        report.pairs_by_mode.fp8_fp8,
    ] {
        assert_eq!(count, 1_000_000);
    }
    assert!(report.pairs_per_second >= 1e5, "{report}");
}

#[test]
fn other_shapes_agree_too() {
    for (rows, cols, multiplier) in [
        (1, 1, Multiplier::Lut),
        (3, 2, Multiplier::Lut),
        (1, 2, Multiplier::Dsp),
    ] {
        let config = ArrayConfig {
            multiplier,
            ..config(rows, cols)
        };
        let report = array(&design(config))
            .drive(Drive::stalling(5))
            .random(3_000, 40, 6, |_| {})
            .unwrap_or_else(|error| panic!("{rows}×{cols}: {error}"));
        assert!(report.passed(), "{rows}×{cols}: {report}");
    }
}

/// Random blocks of both formats as a packed tensor.
fn tensor(rows: usize, k: usize, seed: u64) -> PackedTensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let blocks: Vec<_> = (0..rows * k / 16)
        .map(|_| {
            let fp8 = rng.random_range(0..10) < 3;
            block(&mut rng, BlockKind::Codes, fp8)
        })
        .collect();
    PackedTensor::from_blocks(&[rows, k], TensorScale::ONE, blocks)
        .expect("the blocks fit the shape")
}

#[test]
fn a_layer_agrees_with_the_longest_reduction_the_accumulator_is_for() {
    let report = array(default_core())
        .layer(&tensor(7, 4096, 1), &tensor(5, 4096, 2), |_| {})
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(report.passed(), "{report}");
    assert_eq!(report.pairs_by_mode.total(), 7 * 5 * 256);
}

fn quantizer(design: &Design) -> QuantizerBench<VerilatorSim> {
    QuantizerBench::new(start(design)).unwrap_or_else(|error| panic!("{error}"))
}

/// The quantization unit without the array beside it, which makes it quick.
#[test]
fn the_quantization_unit_agrees_bit_for_bit_under_any_stalls() {
    let mut unit = ActQuantizer::default();
    assert!(unit.power_up());
    let options = EmitOptions {
        top: "act_quantizer".into(),
        keep_hierarchy: vec![],
        ..EmitOptions::default()
    };
    let bundle = emit(&unit, &options).unwrap_or_else(|error| panic!("{error}"));
    let blocks = if full("200 000 blocks through the quantization unit") {
        200_000
    } else {
        6_000
    };
    for (seed, stalls) in [
        [0; 4],
        [90, 0, 0, 0],
        [0, 220, 30, 30],
        [0, 0, 220, 220],
        [60, 60, 60, 60],
    ]
    .into_iter()
    .enumerate()
    {
        let report = quantizer(&Design::from(&bundle))
            .stalls(stalls)
            .random(blocks, seed as u64, |_| {})
            .unwrap_or_else(|error| panic!("{stalls:?}: {error}"));
        eprint!("{stalls:?}: {report}");
        assert!(report.passed(), "{stalls:?}: {report}");
        assert!(report.coverage.score_equals_threshold > 0);
        assert!(report.coverage.nan_blocks > 0 && report.coverage.padded_rows > 0);
    }
}

/// Each build of the unit alone, with its blocks as they are.
#[test]
fn both_builds_of_the_quantization_unit_agree_bit_for_bit_under_any_stalls() {
    let full = full("a million blocks through each build of the quantization unit");
    for lanes in [1, BLOCK] {
        let bundle = emit_alone(lanes).unwrap_or_else(|error| panic!("{error}"));
        let blocks = match (full, lanes) {
            (true, _) => 250_000,
            (false, 1) => 5_000,
            (false, _) => 20_000,
        };
        for (seed, stalls) in [[0; 4], [90, 0, 0, 0], [0, 240, 0, 0], [100, 100, 0, 0]]
            .into_iter()
            .enumerate()
        {
            let report = quantizer(&Design::from(&bundle))
                .stalls(stalls)
                .random(blocks, 40 + seed as u64, |_| {})
                .unwrap_or_else(|error| panic!("{lanes} lanes, {stalls:?}: {error}"));
            eprint!("{lanes} lanes, {stalls:?}: {report}");
            assert!(report.passed(), "{lanes} lanes, {stalls:?}: {report}");
            let coverage = report.coverage;
            assert!(coverage.score_equals_threshold > 0 && coverage.zero_scale > 0);
            assert!(coverage.nan_blocks > 0 && coverage.padded_rows > 0);
            if stalls == [0; 4] {
                // Whole blocks follow each other without a gap; between batches the unit runs empty, and the parallel build fills its tables
                // for the batch's M.
                let batches = RandomBatches::new(blocks, 40 + seed as u64).count() as u64;
                let (beats, fills) = if lanes == 1 {
                    (16, 0)
                } else {
                    (1, batches * TABLE_CYCLES as u64)
                };
                assert!(
                    report.cycles < report.vectors * beats * 5 / 4 + fills,
                    "{batches} batches: {report}"
                );
            }
        }
    }
}

#[test]
fn the_quantization_unit_of_a_core_is_found_beside_its_array() {
    let report = quantizer(small_core())
        .stalls([30, 30, 30, 30])
        .random(500, 9, |_| {})
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(report.passed(), "{report}");
}

#[test]
fn rust_hdl_and_verilator_agree_on_every_bit_and_every_cycle() {
    let design = small_core();
    let model = simulated_core(config(1, 2)).unwrap_or_else(|error| panic!("{error}"));
    let slow = RustSim::new(model, design.ports.clone()).unwrap_or_else(|error| panic!("{error}"));
    let mut slow = ArrayBench::new(slow).unwrap_or_else(|error| panic!("{error}"));
    let mut fast = array(design);
    for drive in [Drive::FULL_SPEED, Drive::stalling(4)] {
        let tiles: Vec<_> = RandomTiles::new(1, 2, 30, 9, 3).collect();
        slow = slow.drive(drive);
        fast = fast.drive(drive);
        let one = slow
            .tiles(tiles.clone(), |_| {})
            .unwrap_or_else(|error| panic!("{error}"));
        let other = fast
            .tiles(tiles, |_| {})
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(one.passed(), "{one}");
        assert!(other.passed(), "{other}");
        assert_eq!(one.cycles, other.cycles);
    }
}

/// The small core with one place of one file's text changed.
fn mutated(file: &str, from: &str, to: &str) -> Design {
    let mut design = small_core().clone();
    let source = design
        .sources
        .iter_mut()
        .find(|source| source.name == file)
        .unwrap_or_else(|| panic!("no {file}"));
    source.text = changed(&source.text, from, to);
    design
}

#[test]
fn a_bug_put_into_the_quantization_unit_is_caught_and_shrunk() {
    let bundle = emit_alone(1).unwrap_or_else(|error| panic!("{error}"));
    let mut design = Design::from(&bundle);
    let square = design
        .sources
        .iter_mut()
        .find(|source| source.name == "fgmp_error_square.v")
        .unwrap_or_else(|| panic!("no table of squares"));
    // Errors of 8 units weigh nothing: decisions tell, codes don't.
    square.text = changed(
        &square.text,
        "4'd8: square = 8'd64;",
        "4'd8: square = 8'd0;",
    );
    let report = quantizer(&design)
        .random(6_000, 3, |_| {})
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(report.mismatches > 0);
    let first = report.first_mismatch.expect("there is a first mismatch");
    assert_eq!(first.smallest_case, 1, "{}", first.description);
    assert_ne!(first.expected, first.actual, "{}", first.description);
}

#[test]
fn a_bug_put_into_an_emitted_module_is_caught_and_shrunk() {
    // The E2M1 code of 6 decodes as 5.5.
    let design = mutated(
        "fgmp_element_decoder.v",
        "default: significand = 4'd12;",
        "default: significand = 4'd11;",
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let waves = Waves {
        verilator: verilator_for_short_runs(),
        design: design.clone(),
        file: folder.path().join("bug.fst"),
    };
    let report = array(&design)
        .waves(waves)
        .random(2_000, 32, 1, |_| {})
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(report.mismatches > 0);
    let first = report.first_mismatch.expect("there is a first mismatch");
    assert_eq!(first.smallest_case, 1, "{}", first.description);
    let file = first.waveform.expect("a waveform was written");
    assert!(std::fs::metadata(file).expect("it is there").len() > 500);
}

#[test]
fn the_simulator_names_itself_with_its_version() {
    let name = start(default_core()).name().to_owned();
    assert!(
        name.starts_with("Verilator ") && name.len() > "Verilator ".len(),
        "{name}"
    );
}

proptest! {
    #![proptest_config(golden::strategies::config(24))]

    /// Whatever two rows and columns of blocks proptest comes up with, NaN included, and however the streams hold back.
    #[test]
    fn any_blocks_agree(
        pairs in vec((golden::strategies::block_pair(), golden::strategies::block_pair()), 1..12),
        scale in golden::strategies::multiplier(),
        seed in any::<u64>(),
    ) {
        let tile = Tile {
            weight: pairs.iter().flat_map(|(one, _)| [one.0]).collect(),
            act: pairs.iter().flat_map(|(one, other)| [one.1, other.1]).collect(),
            steps: pairs.len(),
            live_rows: 1,
            live_cols: 2,
        };
        let report = array(small_core())
            .drive(Drive::stalling(seed))
            .output_scale(OutputScale::new(scale).expect("within the range"))
            .tiles([tile], |_| {})
            .unwrap_or_else(|error| panic!("{error}"));
        prop_assert!(report.passed(), "{}", report);
    }
}
