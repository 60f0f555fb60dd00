//! The complete accelerator in Verilator against the golden model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::verilator_for_short_runs;
use golden::block::Block;
use golden::format::{E2m1, E4m3};
use golden::matmul::matmul_integer;
use golden::packed::{PackedTensor, TensorScale};
use golden::quantizer::{ActivationQuantizer, ChannelSensitivity, Policy};
use golden::requantize::{OutputScale, requantize};
use half::bf16;
use hdl::accelerator::registers::{ID, JobError, VERSION, mask, place};
use hdl::build::emit_accelerator;
use hdl::config::{ArrayConfig, Multiplier};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use testbench::accelerator::model::Effort;
use testbench::accelerator::{
    AcceleratorBench, AcceleratorError, Job, Sink, Source, Stalls, packed_words, raw_bits,
};
use testbench::design::Design;
use testbench::stimulus::{BlockKind, block, with_nan};
use testbench::verilator::VerilatorSim;

/// Any of these in STATUS: a job is somewhere.
const WORK_LEFT: u32 =
    mask(place::STATUS, "BUSY") | mask(place::STATUS, "FULL") | mask(place::STATUS, "CHECKING");

fn config(rows: usize, cols: usize, weight_ports: usize) -> ArrayConfig {
    ArrayConfig {
        rows,
        cols,
        weight_ports,
        weight_blocks: 16,
        act_blocks: 64,
        result_elements: 1024,
        ..ArrayConfig::default()
    }
}

fn bench(config: ArrayConfig, stalls: Stalls) -> AcceleratorBench<VerilatorSim> {
    let design = Design::from(&emit_accelerator(config).unwrap());
    let simulator = verilator_for_short_runs().simulate(&design).unwrap();
    AcceleratorBench::new(simulator, config, stalls).unwrap()
}

fn tensor(rng: &mut ChaCha8Rng, rows: usize, k: usize, fp8_share: f64, nan: f64) -> PackedTensor {
    let row_blocks = k.div_ceil(16);
    let blocks: Vec<Block> = (0..rows * row_blocks)
        .map(|index| {
            let kind = BlockKind::draw(rng);
            let fp8 = rng.random_bool(fp8_share);
            let mut block = block(rng, kind, fp8);
            if rng.random_bool(nan) {
                block = with_nan(rng, &block);
            }
            if index % row_blocks + 1 == row_blocks {
                // What lies behind the row's end is zero.
                let padding = (k - 1) % 16 + 1;
                match &mut block {
                    Block::Fp4 { elements, .. } => {
                        elements[padding..].fill(E2m1::from_low_nibble(0))
                    }
                    Block::Fp8 { elements } => elements[padding..].fill(E4m3::from_bits(0)),
                }
            }
            block
        })
        .collect();
    PackedTensor::from_blocks(&[rows, k], TensorScale::new(1.0).unwrap(), blocks).unwrap()
}

fn random_quantizer(rng: &mut ChaCha8Rng, k: usize) -> ActivationQuantizer {
    let sensitivity: Vec<f32> = (0..k).map(|_| rng.random_range(0.0..1.0)).collect();
    let policy = match rng.random_range(0..4) {
        // As hardware understands "always FP8": a block of score 0 stays FP4.
        0 => Policy::Threshold(0),
        1 => Policy::Fp4,
        _ => Policy::Threshold(1 << rng.random_range(20..45)),
    };
    let scale = TensorScale::new(rng.random_range(0.001..0.1)).unwrap();
    ActivationQuantizer::new(scale, ChannelSensitivity::of(&sensitivity), policy).unwrap()
}

fn random_elements(rng: &mut ChaCha8Rng, count: usize) -> Vec<bf16> {
    (0..count)
        .map(|_| {
            if rng.random_bool(0.02) {
                bf16::from_bits(rng.random())
            } else {
                bf16::from_f32(rng.random_range(-30.0..30.0f32))
            }
        })
        .collect()
}

fn quantized(quantizer: &ActivationQuantizer, x: &[bf16]) -> PackedTensor {
    let k = quantizer.channels();
    let blocks = x.chunks(k).flat_map(|row| quantizer.blocks(row));
    PackedTensor::from_blocks(&[x.len() / k, k], quantizer.scale(), blocks).unwrap()
}

/// What the result stream must carry, token by token.
fn expected(job: &Job<'_>, acts: &PackedTensor) -> Vec<Option<u64>> {
    let product = matmul_integer(job.weights.unwrap(), acts);
    match job.sink {
        Sink::Raw => product
            .accumulators
            .iter()
            .map(|acc| Some(raw_bits(acc)))
            .collect(),
        _ => product
            .requantized(job.output_scale)
            .iter()
            .map(|y| Some(u64::from(y.to_bits())))
            .collect(),
    }
}

/// Random jobs of every source and sink, queued as fast as the queue takes them; results compared one by one.
fn random_jobs(config: ArrayConfig, stalls: Stalls, count: usize, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bench = bench(config, stalls);
    assert_eq!(bench.read(place::ID).unwrap(), ID as u32);
    assert_eq!(bench.read(place::VERSION).unwrap(), VERSION as u32);

    let mut acts: Option<PackedTensor> = None;
    // Results in memory: tokens, features, values.
    let mut kept: Option<(usize, usize, Vec<bf16>)> = None;
    let (mut steps, mut results, mut jobs_done) = (0, 0, 0);
    for _ in 0..count {
        // A group of jobs runs back to back, then its words are compared.
        let mut owned = Vec::new();
        let (mut next_acts, mut next_kept) = (acts.clone(), kept.clone());
        for _ in 0..rng.random_range(1..5) {
            let packed;
            let mut quantizer = None;
            let mut x = Vec::new();
            let (tokens, k);
            let source = match (rng.random_range(0..4), &next_acts, &next_kept) {
                (0, Some(acts), _) => {
                    (tokens, k) = (acts.rows(), acts.k());
                    packed = acts.clone();
                    3
                }
                (1, _, Some((t, features, values)))
                    if *features <= 256 && t * features.div_ceil(16) <= 64 =>
                {
                    (tokens, k) = (*t, *features);
                    let q = random_quantizer(&mut rng, k);
                    packed = quantized(&q, values);
                    quantizer = Some(q);
                    2
                }
                (2, _, _) => {
                    k = rng.random_range(1..120);
                    tokens = rng.random_range(1..9);
                    let q = random_quantizer(&mut rng, k);
                    x = random_elements(&mut rng, tokens * k);
                    packed = quantized(&q, &x);
                    quantizer = Some(q);
                    1
                }
                _ => {
                    k = rng.random_range(1..120);
                    tokens = rng.random_range(1..9);
                    packed = tensor(&mut rng, tokens, k, 0.3, 0.01);
                    0
                }
            };
            let share = [0.0, 0.3, 0.5, 1.0][rng.random_range(0..4)];
            let features = if rng.random_bool(0.1) {
                0
            } else {
                rng.random_range(1..40)
            };
            let weights = (features > 0).then(|| tensor(&mut rng, features, k, share, 0.005));
            let fits = tokens.next_multiple_of(config.cols) * features.next_multiple_of(16)
                <= config.result_elements;
            let sink = match rng.random_range(0..4) {
                0 => Sink::Raw,
                1 if fits => Sink::Memory,
                _ => Sink::Stream,
            };
            let output_scale = OutputScale::new(rng.random_range(-0.01..0.01)).unwrap();
            let align = (
                rng.random_range(0..2),
                rng.random_range(0..8),
                rng.random_range(0..64),
            );
            let send_packed = (source == 1 || source == 2) && rng.random_bool(0.5);
            next_acts = Some(packed.clone());
            if let (Sink::Memory, Some(weights)) = (sink, &weights) {
                let values = matmul_integer(weights, &packed).requantized(output_scale);
                next_kept = Some((tokens, features, values));
            }
            owned.push((
                packed,
                quantizer,
                x,
                weights,
                source,
                tokens,
                k,
                sink,
                output_scale,
                align,
                send_packed,
            ));
        }
        let jobs: Vec<Job<'_>> = owned
            .iter()
            .map(
                |(
                    packed,
                    quantizer,
                    x,
                    weights,
                    source,
                    tokens,
                    k,
                    sink,
                    output_scale,
                    align,
                    send_packed,
                )| Job {
                    tokens: *tokens,
                    k: *k,
                    source: match source {
                        0 => Source::Packed(packed),
                        1 => Source::Elements {
                            x,
                            quantizer: quantizer.as_ref().unwrap(),
                        },
                        2 => Source::Results(quantizer.as_ref().unwrap()),
                        _ => Source::Reuse,
                    },
                    weights: weights.as_ref(),
                    output_scale: *output_scale,
                    sink: *sink,
                    send_packed: *send_packed,
                    align: *align,
                },
            )
            .collect();
        bench
            .run(&jobs)
            .unwrap_or_else(|error| panic!("{error}\n{jobs:#?}"));

        let words = bench.take_results();
        let mut rest = words.as_slice();
        let packed_out = bench.take_packed();
        let mut packed_at = [0; 3];
        for (job, (packed, ..)) in jobs.iter().zip(&owned) {
            let streamed = job.streamed_results();
            let count = if job.sink == Sink::Raw {
                streamed
            } else {
                streamed.div_ceil(4)
            };
            let (mine, others) = rest.split_at(count);
            rest = others;
            for (i, word) in mine.iter().enumerate() {
                assert_eq!(word.last, i + 1 == count);
            }
            if streamed > 0 {
                assert_eq!(bench.arrange(job, mine), expected(job, packed), "{job:?}");
                results += streamed;
            }
            if let Some(weights) = job.weights {
                steps += weights.rows().div_ceil(config.rows)
                    * job.tokens.div_ceil(config.cols)
                    * packed.row_blocks();
            }
            if job.send_packed {
                for (stream, expected) in packed_words(packed).into_iter().enumerate() {
                    let at = packed_at[stream];
                    let mine = &packed_out[stream][at..at + expected.len()];
                    assert_eq!(
                        mine.iter().map(|word| word.data).collect::<Vec<_>>(),
                        expected,
                        "stream {stream}"
                    );
                    packed_at[stream] += expected.len();
                }
            }
        }
        assert!(rest.is_empty(), "{} words too many", rest.len());
        for stream in 0..3 {
            assert_eq!(packed_at[stream], packed_out[stream].len());
        }
        jobs_done += jobs.len();
        (acts, kept) = (next_acts, next_kept);
    }
    assert!(results > 0);
    assert_eq!(bench.read(place::JOBS_DONE).unwrap(), jobs_done as u32);
    let counters = bench.counters().unwrap();
    assert_eq!(counters.get(place::STEPS), steps as u64);
    assert_eq!(
        bench.read(place::STATUS).unwrap() & mask(place::STATUS, "LAST_MISMATCH"),
        0,
        "the streams of the array disagreed"
    );
}

#[test]
fn random_jobs_give_the_golden_results() {
    random_jobs(config(2, 3, 1), Stalls::default(), 40, 1);
    let parallel = ArrayConfig {
        quantizer_lanes: 16,
        pipeline: 5,
        ..config(2, 3, 2)
    };
    random_jobs(
        parallel,
        Stalls {
            inputs: 60,
            outputs: 90,
            seed: 7,
        },
        40,
        2,
    );
}

#[test]
fn bad_jobs_are_refused_and_leave_nothing_behind() {
    let config = config(2, 2, 1);
    let mut bench = bench(config, Stalls::default());
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let good = [
        (place::TOKENS, 3),
        (place::FEATURES, 5),
        (place::BLOCKS, 2),
        (place::FLAGS, 0),
        (place::OUTPUT_SCALE, 1.0f32.to_bits()),
        (place::INPUT_SCALE, 1.0f32.to_bits()),
    ];
    let cases = [
        (place::TOKENS, 0, JobError::Tokens),
        (place::TOKENS, 65536, JobError::Tokens),
        (place::FEATURES, 65536, JobError::Features),
        (place::BLOCKS, 0, JobError::Blocks),
        (place::BLOCKS, 17, JobError::Blocks),
        (
            place::OUTPUT_SCALE,
            f32::NAN.to_bits(),
            JobError::OutputScale,
        ),
        (
            place::OUTPUT_SCALE,
            2f32.powi(61).to_bits(),
            JobError::OutputScale,
        ),
        (
            place::OUTPUT_SCALE,
            2f32.powi(60).to_bits() + 1,
            JobError::OutputScale,
        ),
        (
            place::OUTPUT_SCALE,
            2f32.powi(-60).to_bits() - 1,
            JobError::OutputScale,
        ),
        (place::OUTPUT_SCALE, 1, JobError::OutputScale),
        (place::FLAGS, 3 << 2, JobError::Flags),
        (place::FLAGS, 1 << 4, JobError::Flags),
        (place::FLAGS, 1 << 6, JobError::Flags),
        (place::FLAGS, 3, JobError::Reuse),
        (place::FLAGS, 2, JobError::Chain),
        (place::TOKENS, 65, JobError::ActCapacity),
        (place::TOKENS, 65535, JobError::ActCapacity),
    ];
    for (place, value, error) in cases {
        for (place, value) in good {
            bench.write(place, value).unwrap();
        }
        bench.write(place, value).unwrap();
        let Err(AcceleratorError::Refused { code }) = bench.start() else {
            panic!("{error:?} was accepted");
        };
        assert_eq!(JobError::from_code(code), Some(error));
        assert_eq!(bench.read(place::STATUS).unwrap() & WORK_LEFT, 0);
    }
    bench.write(place::FLAGS, 1).unwrap();
    bench.write(place::TOKENS, 2).unwrap();
    bench
        .write(place::INPUT_SCALE, f32::INFINITY.to_bits())
        .unwrap();
    assert!(
        matches!(bench.start(), Err(AcceleratorError::Refused { code }) if code == JobError::InputScale as u32)
    );
    for (place, value) in good {
        bench.write(place, value).unwrap();
    }
    bench.write(place::FEATURES, 600).unwrap();
    bench.write(place::FLAGS, 2 << 2).unwrap();
    assert!(
        matches!(bench.start(), Err(AcceleratorError::Refused { code }) if code == JobError::ResultCapacity as u32)
    );

    // Addresses without a register, registers that are only read, byte strobes.
    assert!(matches!(
        bench.read_address(0xFC),
        Err(AcceleratorError::Bus { address: 0xFC })
    ));
    assert!(matches!(
        bench.write(place::ID, 1),
        Err(AcceleratorError::Bus { .. })
    ));
    bench.write(place::TOKENS, 0x1234_5678).unwrap();
    bench
        .write_bytes(4 * place::TOKENS as u32, 0xAABB_CCDD, 0b0110)
        .unwrap();
    assert_eq!(bench.read(place::TOKENS).unwrap(), 0x12BB_CC78);

    // And then a good job.
    let acts = tensor(&mut rng, 3, 32, 0.5, 0.0);
    let weights = tensor(&mut rng, 5, 32, 0.5, 0.0);
    let job = Job {
        tokens: 3,
        k: 32,
        source: Source::Packed(&acts),
        weights: Some(&weights),
        output_scale: OutputScale::new(1.0).unwrap(),
        sink: Sink::Stream,
        send_packed: false,
        align: (0, 0, 0),
    };
    const DONE: u32 = mask(place::IRQ_STATUS, "DONE");
    bench
        .write(place::IRQ_ENABLE, mask(place::IRQ_ENABLE, "DONE"))
        .unwrap();
    bench
        .write(place::IRQ_STATUS, DONE | mask(place::IRQ_STATUS, "ERROR"))
        .unwrap();
    assert!(!bench.interrupt());
    bench.run(std::slice::from_ref(&job)).unwrap();
    assert!(bench.interrupt());
    bench.write(place::IRQ_STATUS, DONE).unwrap();
    bench.tick().unwrap();
    assert!(!bench.interrupt());
    let words = bench.take_results();
    assert_eq!(bench.arrange(&job, &words), expected(&job, &acts));
}

/// Reset, or abort, in the middle of a job at many different times; the next job must not notice.
fn interrupted(abort: bool) {
    let config = config(2, 2, 2);
    let mut bench = bench(
        config,
        Stalls {
            inputs: 40,
            outputs: 40,
            seed: 11,
        },
    );
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for after in (0..400).step_by(7) {
        let k = 50;
        let q = random_quantizer(&mut rng, k);
        let x = random_elements(&mut rng, 5 * k);
        let acts = quantized(&q, &x);
        let weights = tensor(&mut rng, 9, k, 0.4, 0.0);
        let job = Job {
            tokens: 5,
            k,
            source: Source::Elements {
                x: &x,
                quantizer: &q,
            },
            weights: Some(&weights),
            output_scale: OutputScale::new(0.5).unwrap(),
            sink: Sink::Stream,
            send_packed: true,
            align: (1, 3, 17),
        };
        bench.submit(&job).unwrap();
        for _ in 0..after {
            bench.tick().unwrap();
        }
        if abort {
            bench.drop_beats();
            bench
                .write(place::CONTROL, mask(place::CONTROL, "ABORT"))
                .unwrap();
            bench.drop_beats();
            // Words that had reached the output's memory still leave.
            bench.wait_until_idle().unwrap();
            bench.take_results();
            bench.take_packed();
        } else {
            bench.reset().unwrap();
        }
        assert_eq!(bench.read(place::STATUS).unwrap() & WORK_LEFT, 0);
        bench.run(std::slice::from_ref(&job)).unwrap();
        let words = bench.take_results();
        assert_eq!(
            bench.arrange(&job, &words),
            expected(&job, &acts),
            "interrupted after {after} cycles"
        );
        let packed: Vec<Vec<u64>> = bench
            .take_packed()
            .into_iter()
            .map(|words| words.iter().map(|word| word.data).collect())
            .collect();
        assert_eq!(packed, packed_words(&acts));
    }
}

#[test]
fn a_reset_at_any_time_leaves_nothing_behind() {
    interrupted(false);
}

#[test]
fn an_abort_at_any_time_leaves_nothing_behind() {
    interrupted(true);
}

/// Share of the array's cycles between first and last step that were steps, for one product of so many tokens whose activations are there.
fn utilisation(stalls: Stalls, tokens: usize, k: usize, features: usize) -> f64 {
    let config = ArrayConfig {
        weight_ports: 4,
        ..ArrayConfig::default()
    };
    let mut bench = bench(config, stalls);
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    let acts = tensor(&mut rng, tokens, k, 0.3, 0.0);
    let weights = tensor(&mut rng, features, k, 0.3, 0.0);
    let load = Job {
        tokens,
        k,
        source: Source::Packed(&acts),
        weights: None,
        output_scale: OutputScale::new(0.01).unwrap(),
        sink: Sink::Stream,
        send_packed: false,
        align: (0, 0, 0),
    };
    bench.run(std::slice::from_ref(&load)).unwrap();
    bench.clear_counters().unwrap();
    let job = Job {
        source: Source::Reuse,
        weights: Some(&weights),
        ..load
    };
    bench.run(std::slice::from_ref(&job)).unwrap();
    let words = bench.take_results();
    assert_eq!(bench.arrange(&job, &words), expected(&job, &acts));
    let mut effort = Effort::default();
    effort.add(&bench.counters().unwrap());
    assert_eq!(
        effort.pairs.iter().sum::<u64>(),
        (tokens * features * k / 16) as u64
    );
    effort.sustained(config.rows * config.cols)
}

#[test]
fn the_array_is_busy_whatever_the_mix_and_the_stalls() {
    // As few tokens as the array has rows: every weight block is used for one step only.
    for (tokens, k, features) in [(4, 256, 256), (4, 704, 64), (16, 256, 64)] {
        let free = utilisation(Stalls::default(), tokens, k, features);
        let stalled = utilisation(
            Stalls {
                inputs: 26,
                outputs: 26,
                seed: 3,
            },
            tokens,
            k,
            features,
        );
        println!("{tokens} tokens, K {k}, N {features}: {free:.4}, stalled {stalled:.4}");
        assert!(free > 0.99, "{tokens} tokens, K {k}: {free}");
        assert!(stalled >= 0.95, "{tokens} tokens, K {k}: {stalled}");
    }
}

#[test]
fn a_longer_reduction_is_split_exactly() {
    let config = config(2, 2, 1);
    let mut bench = bench(config, Stalls::default());
    let mut rng = ChaCha8Rng::seed_from_u64(31);
    let (tokens, features, k) = (3, 5, 40 * 16);
    let acts = tensor(&mut rng, tokens, k, 0.4, 0.0);
    let weights = tensor(&mut rng, features, k, 0.4, 0.0);
    let part = |tensor: &PackedTensor, first: usize, count: usize| {
        let blocks: Vec<Block> = tensor.blocks().collect();
        let chosen = blocks
            .chunks(tensor.row_blocks())
            .flat_map(|row| row[first..first + count].to_vec())
            .collect::<Vec<_>>();
        PackedTensor::from_blocks(&[tensor.rows(), count * 16], tensor.scale(), chosen).unwrap()
    };
    let scale = OutputScale::new(0.003).unwrap();
    let mut sums = vec![0_i128; tokens * features];
    for first in (0..40).step_by(config.weight_blocks) {
        let count = config.weight_blocks.min(40 - first);
        let (acts, weights) = (part(&acts, first, count), part(&weights, first, count));
        let job = Job {
            tokens,
            k: count * 16,
            source: Source::Packed(&acts),
            weights: Some(&weights),
            output_scale: scale,
            sink: Sink::Raw,
            send_packed: false,
            align: (0, 0, 0),
        };
        bench.run(std::slice::from_ref(&job)).unwrap();
        let words = bench.take_results();
        for (sum, value) in sums.iter_mut().zip(bench.arrange(&job, &words)) {
            *sum += i128::from(value.unwrap() as i64);
        }
    }
    let results: Vec<bf16> = sums
        .iter()
        .map(|&sum| requantize(sum, false, scale))
        .collect();
    assert_eq!(results, matmul_integer(&weights, &acts).requantized(scale));
}

#[test]
fn random_configurations_give_the_golden_results() {
    let largest = if common::full("random configurations of four rows or columns") {
        4
    } else {
        3
    };
    let mut rng = ChaCha8Rng::seed_from_u64(41);
    for number in 0..20 {
        let rows = rng.random_range(1..=largest);
        let config = ArrayConfig {
            rows,
            cols: rng.random_range(1..=largest),
            weight_ports: if rng.random_bool(0.5) { rows } else { 1 },
            weight_blocks: 8 << rng.random_range(0..3),
            act_blocks: 64 << rng.random_range(0..2),
            result_elements: 1024,
            max_k: 16 << rng.random_range(3..16),
            pipeline: rng.random_range(3..10),
            quantizer_lanes: if rng.random_bool(0.3) { 16 } else { 1 },
            multiplier: if rng.random_bool(0.5) {
                Multiplier::Lut
            } else {
                Multiplier::Dsp
            },
            ..ArrayConfig::default()
        };
        let stalls = Stalls {
            inputs: rng.random_range(0..100),
            outputs: rng.random_range(0..100),
            seed: number,
        };
        random_jobs(config, stalls, 10, 100 + number);
    }
}
