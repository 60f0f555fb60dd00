//! The array's bench on a hand-written array, right and broken.
// A helper of a test may fail it.
#![allow(clippy::panic, clippy::expect_used)]

mod common;

use common::{changed, design, verilator_for_short_runs};
use golden::block::Block;
use golden::format::{BLOCK, E2m1, E4m3, Ue4m3};
use golden::packed::{PackedTensor, TensorScale};
use golden::requantize::OutputScale;
use rand::{Rng, SeedableRng};
use testbench::array::{ArrayBench, Drive, Waves};
use testbench::report::Report;
use testbench::simulator::SimError;
use testbench::stimulus::{BlockKind, Tile, block};
use testbench::verilator::VerilatorSim;

const ARRAY: &str = include_str!("verilog/array.v");

fn bench(text: &str) -> ArrayBench<VerilatorSim> {
    let simulator = verilator_for_short_runs()
        .simulate(&design("array", text))
        .unwrap_or_else(|error| panic!("{error}"));
    ArrayBench::new(simulator).unwrap_or_else(|error| panic!("{error}"))
}

fn run(bench: &mut ArrayBench<VerilatorSim>, pairs: u64, seed: u64) -> Report {
    bench
        .random(pairs, 64, seed, |_| {})
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_right_array_agrees_in_every_mode_with_any_scale_and_stall() {
    let mut bench = bench(ARRAY);
    for (seed, scale) in [1.0, 0.25, -3.1e-5, 0.0, 7.7e12].into_iter().enumerate() {
        let seed = seed as u64;
        let drive = if seed.is_multiple_of(2) {
            Drive::FULL_SPEED
        } else {
            Drive::stalling(seed)
        };
        bench = bench
            .drive(drive)
            .output_scale(OutputScale::new(scale).expect("within the range"));
        let report = run(&mut bench, 5_000, seed);
        assert!(report.passed(), "M = {scale}: {report}");
        assert_eq!(report.pairs_by_mode.total(), 20_000);
        assert_eq!(report.pairs_by_mode.fp4_fp8, 5_000);
        assert!(
            report.coverage.holes().is_empty(),
            "{:?}",
            report.coverage.holes()
        );
        // Without stalls a step a cycle, but for short tiles.
        assert!(report.cycles >= 5_000);
    }
}

#[test]
fn a_report_has_the_field_names_that_machines_read() {
    let report = run(&mut bench(ARRAY), 100, 1);
    let json = serde_json::to_value(&report).expect("plain data");
    for field in [
        "simulator",
        "vectors",
        "mismatches",
        "cycles",
        "cycles_per_second",
        "pairs_per_second",
        "pairs_by_mode",
        "coverage",
        "first_mismatch",
    ] {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_eq!(json["pairs_by_mode"]["fp8_fp4"], 100);
    assert!(
        json["simulator"]
            .as_str()
            .expect("text")
            .starts_with("Verilator")
    );
}

/// Rows of random blocks as a packed tensor.
fn tensor(rows: usize, k: usize, seed: u64) -> PackedTensor {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let blocks: Vec<Block> = (0..rows * k.div_ceil(BLOCK))
        .map(|_| {
            let fp8 = rng.random();
            block(&mut rng, BlockKind::Codes, fp8)
        })
        .collect();
    PackedTensor::from_blocks(&[rows, k], TensorScale::ONE, blocks)
        .expect("the blocks fit the shape")
}

#[test]
fn a_layer_is_tiled_with_zero_blocks_at_its_edges() {
    let (weights, activations) = (tensor(5, 96, 1), tensor(3, 96, 2));
    let report = bench(ARRAY)
        .layer(&weights, &activations, |_| {})
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(report.passed(), "{report}");
    // 3 × 2 tiles of 4 results; 5 × 3 × 6 pairs without the padding.
    assert_eq!(report.vectors, 24);
    assert_eq!(report.pairs_by_mode.total(), 90);
    let error = bench(ARRAY)
        .layer(&weights, &tensor(3, 32, 2), |_| {})
        .expect_err("K differs");
    assert!(matches!(error, SimError::InvalidJob { .. }), "{error}");
}

/// The broken array's report, with the waveform of the smallest case.
fn caught(text: &str, drive: Drive) -> (Report, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let waves = Waves {
        verilator: verilator_for_short_runs(),
        design: design("array", text),
        file: folder.path().join("first.vcd"),
    };
    let report = run(&mut bench(text).drive(drive).waves(waves), 2_000, 5);
    assert!(report.mismatches > 0 && !report.passed());
    let first = report
        .first_mismatch
        .as_ref()
        .expect("there is a first mismatch");
    let file = first.waveform.as_ref().expect("a waveform was written");
    let wave = std::fs::read(file).expect("the waveform is there");
    assert!(wave.len() > 500);
    (report, wave)
}

#[test]
fn one_wrong_code_is_found_and_shrunk_to_one_pair_with_one_element_a_side() {
    // The E2M1 code of 6 decodes as 5.5 (in halves: 11).
    let (report, _) = caught(
        &changed(
            ARRAY,
            "default: magnitude = 64'd12;",
            "default: magnitude = 64'd11;",
        ),
        Drive::FULL_SPEED,
    );
    let first = report.first_mismatch.expect("there is a first mismatch");
    assert_eq!(first.smallest_case, 1);
    let text = &first.description;
    // One element is left on each side, the guilty one is 6.
    let elements: Vec<Vec<f32>> = text
        .lines()
        .filter_map(|line| line.split_once('[')?.1.strip_suffix(']'))
        .map(|list| {
            list.split(' ')
                .map(|value| value.parse().expect("a number"))
                .filter(|v| *v != 0.0)
                .collect()
        })
        .collect();
    assert_eq!(
        elements.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 1],
        "{text}"
    );
    assert!(
        elements.concat().iter().any(|value| value.abs() == 6.0),
        "{text}"
    );
    assert!(
        text.contains("expected acc ") && text.contains("× 2^-20"),
        "{text}"
    );
    assert_ne!(first.expected, first.actual);
}

#[test]
fn a_wrong_rounding_is_found_by_the_bf16_result_alone() {
    // Ties away from zero.
    let (report, _) = caught(
        &changed(
            ARRAY,
            "(rest == unit >> 1 && (magnitude & unit) != 64'd0)",
            "rest == unit >> 1",
        ),
        Drive::FULL_SPEED,
    );
    let first = report.first_mismatch.expect("there is a first mismatch");
    let part = |text: &str, name: &str| {
        let at = text.find(name).expect("the field is there");
        text[at..]
            .split(' ')
            .nth(1)
            .expect("it has a value")
            .to_owned()
    };
    assert_eq!(part(&first.expected, "acc"), part(&first.actual, "acc"));
    assert_ne!(part(&first.expected, "bf16"), part(&first.actual, "bf16"));
}

#[test]
fn a_sum_that_survives_its_tile_needs_two_tiles_and_is_said_to() {
    // The accumulator of row 1, column 1 isn't cleared after a tile.
    let (report, _) = caught(
        &changed(
            ARRAY,
            "+: 56] <= last ? 56'd0",
            "+: 56] <= (last && i != 3) ? 56'd0",
        ),
        Drive::FULL_SPEED,
    );
    let text = report
        .first_mismatch
        .expect("there is a first mismatch")
        .description;
    assert!(text.contains("row 1, column 1"), "{text}");
    assert!(text.contains("agrees when run alone"), "{text}");
}

#[test]
fn an_error_that_needs_several_steps_is_shrunk_to_as_few() {
    // A sum below -2^40 units loses a bit.
    let (report, _) = caught(
        &changed(
            ARRAY,
            "next_nan = nan[i] | pair_nan[i];",
            "next_nan = nan[i] | pair_nan[i];\n                if ($signed(sum[56*i +: 56]) < -56'sd1099511627776) next[0] = ~next[0];",
        ),
        Drive::FULL_SPEED,
    );
    let first = report.first_mismatch.expect("there is a first mismatch");
    assert_eq!(first.smallest_case, 2, "{}", first.description);
}

#[test]
fn a_lost_nan_is_found() {
    let text = changed(
        ARRAY,
        "has_nan = block[136];",
        "has_nan = block[136] & (i != 9);",
    );
    let report = run(&mut bench(&text), 20_000, 8);
    let first = report.first_mismatch.expect("there is a first mismatch");
    assert!(
        first.expected.contains("nan 1") && first.actual.contains("nan 0"),
        "{}",
        first.description
    );
    assert_eq!(first.smallest_case, 1);
}

#[test]
fn an_array_that_breaks_a_stream_rule_is_an_error_with_cycle_and_stream() {
    let text = changed(
        ARRAY,
        "assign out_valid = draining;",
        "assign out_valid = draining & out_ready;",
    );
    let error = bench(&text)
        .drive(Drive::stalling(1))
        .random(100, 8, 1, |_| {})
        .expect_err("valid waits for ready");
    assert!(
        error.to_string().starts_with("stream `out`, cycle "),
        "{error}"
    );
}

#[test]
fn a_tile_beyond_the_accumulator_is_refused() {
    let zero = Block::Fp4 {
        scale: Ue4m3::ZERO,
        elements: [E2m1::ZERO; BLOCK],
    };
    let tile = |steps: usize| Tile {
        weight: vec![zero; 2 * steps],
        act: vec![
            Block::Fp8 {
                elements: [E4m3::ZERO; BLOCK]
            };
            2 * steps
        ],
        steps,
        live_rows: 2,
        live_cols: 2,
    };
    let mut bench = bench(ARRAY);
    // 56 bits serve K up to 4096.
    bench
        .tiles([tile(256)], |_| {})
        .unwrap_or_else(|error| panic!("{error}"));
    let error = bench
        .tiles([tile(257)], |_| {})
        .expect_err("57 bits are needed");
    assert!(error.to_string().contains("57 bits"), "{error}");
}

#[test]
fn a_design_without_the_arrays_ports_is_refused_by_the_missing_port() {
    let text = include_str!("verilog/summer.v");
    let simulator = verilator_for_short_runs()
        .simulate(&design("summer", text))
        .unwrap_or_else(|error| panic!("{error}"));
    let error = ArrayBench::new(simulator).err().expect("it is no array");
    assert!(error.to_string().contains("`out_acc`"), "{error}");
}
