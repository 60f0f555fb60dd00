//! SPEED's top in Verilator: the player on random jobs, its faults, and speculative decoding of a model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::PathBuf;

use common::{full, verilator_for_short_runs};
use golden::block::Block;
use golden::matmul::matmul_integer;
use golden::model::{Calibration, CalibrationWindows, ConfigHints, Model, QuantizedModel};
use golden::packed::{PackedTensor, TensorScale};
use golden::quantizer::{ActivationQuantizer, ChannelSensitivity, Policy, WeightOptions};
use golden::requantize::OutputScale;
use golden::speed::{Choice, Counters, Limits, ModelDecoder, Pipeline, sequential};
use golden::tensors::read_tokens;
use golden::{Scheme, Share};
use half::bf16;
use hdl::accelerator::registers as accelerator;
use hdl::accelerator::registers::JobError;
use hdl::build::emit_speed;
use hdl::config::ArrayConfig;
use hdl::speed::SpeedConfig;
use hdl::speed::program::{Activations, OPERATION, PLACE, Program, WRITE};
use hdl::speed::registers::{COUNT, ID, REGISTERS, VERSION, address, bits, place};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use testbench::accelerator::{AcceleratorBench, AcceleratorError, Job, Sink, Source, Stalls};
use testbench::design::Design;
use testbench::speed::{PassRecord, SpeedBench, SpeedError, decode, play, program};
use testbench::stimulus::{BlockKind, block};
use testbench::verilator::VerilatorSim;

fn small() -> SpeedConfig {
    SpeedConfig {
        array: ArrayConfig {
            rows: 2,
            cols: 2,
            weight_blocks: 8,
            act_blocks: 64,
            result_elements: 256,
            ..ArrayConfig::default()
        },
        repetitions: 2,
        position_bits: 8,
        token_bits: 8,
        program_words: 512,
    }
}

fn simulator(config: SpeedConfig) -> VerilatorSim {
    let design = Design::from(&emit_speed(config).unwrap());
    verilator_for_short_runs().simulate(&design).unwrap()
}

/// Numbers of the further streams.
const ROWS: usize = 0;
const COMMITS: usize = 1;
const CLASSES: usize = 0;

/// The top, driven by hand.
struct Top(AcceleratorBench<VerilatorSim>);

impl Top {
    fn new(stalls: Stalls) -> Self {
        let config = small();
        let mut bench = AcceleratorBench::new(simulator(config), config.array, stalls).unwrap();
        assert_eq!(bench.add_output("m_axis_row").unwrap(), ROWS);
        assert_eq!(bench.add_output("m_axis_commit").unwrap(), COMMITS);
        assert_eq!(bench.add_input("s_axis_class").unwrap(), CLASSES);
        Self(bench)
    }

    fn read(&mut self, place: usize) -> u32 {
        self.0.read_address(address(place)).unwrap()
    }

    fn write(&mut self, place: usize, value: u32) {
        self.0.write_bytes(address(place), value, 0xF).unwrap();
    }

    fn status(&mut self, field: &str) -> bool {
        let status = self.read(place::STATUS);
        bits(place::STATUS, field, status) == 1
    }

    fn load(&mut self, words: &[u32]) {
        self.write(place::PROGRAM_ADDRESS, 0);
        for &word in words {
            self.write(place::PROGRAM_DATA, word);
        }
    }

    fn command(&mut self, bit: u32) {
        self.write(place::CONTROL, 1 << bit);
    }

    fn play(&mut self, rows: usize) {
        self.write(place::ROWS, rows as u32);
        self.command(2);
        assert!(!self.status("REFUSED"));
    }

    /// Waits until the player is idle.
    fn settle(&mut self) {
        for _ in 0..20_000 {
            if !self.status("PLAYING") {
                return;
            }
        }
        panic!(
            "the player does not stop: STATUS {:#x}",
            self.read(place::STATUS)
        );
    }
}

fn tensor(rng: &mut ChaCha8Rng, rows: usize, blocks: usize) -> PackedTensor {
    let blocks_of = (0..rows * blocks)
        .map(|_| {
            let (kind, fp8) = (BlockKind::draw(rng), rng.random_bool(0.4));
            block(rng, kind, fp8)
        })
        .collect::<Vec<Block>>();
    PackedTensor::from_blocks(
        &[rows, blocks * 16],
        TensorScale::new(1.0).unwrap(),
        blocks_of,
    )
    .unwrap()
}

/// An input with its matrices.
struct InputOf {
    quantizer: ActivationQuantizer,
    matrices: Vec<(PackedTensor, OutputScale)>,
}

fn random_inputs(rng: &mut ChaCha8Rng, count: usize) -> Vec<InputOf> {
    (0..count)
        .map(|_| {
            let blocks = rng.random_range(1..6);
            let sensitivity: Vec<f32> = (0..16 * blocks)
                .map(|_| rng.random_range(0.0..1.0))
                .collect();
            let scale = TensorScale::new(rng.random_range(0.01..0.1)).unwrap();
            let policy = Policy::Threshold(1 << rng.random_range(20..45));
            InputOf {
                quantizer: ActivationQuantizer::new(
                    scale,
                    ChannelSensitivity::of(&sensitivity),
                    policy,
                )
                .unwrap(),
                matrices: (0..rng.random_range(1..4))
                    .map(|_| {
                        let features = rng.random_range(1..12);
                        let scale = OutputScale::new(rng.random_range(0.001..0.1)).unwrap();
                        (tensor(rng, features, blocks), scale)
                    })
                    .collect(),
            }
        })
        .collect()
}

fn program_of(inputs: &[InputOf]) -> Program {
    let mut program = Program::new();
    for input in inputs {
        let codes: Vec<u8> = input
            .quantizer
            .sensitivity()
            .codes
            .iter()
            .map(|code| code.to_bits())
            .collect();
        for (index, (weights, scale)) in input.matrices.iter().enumerate() {
            let activations = if index == 0 {
                Activations::Elements {
                    input_scale: input.quantizer.input_scale().get().to_bits(),
                    threshold: input.quantizer.policy().threshold(),
                    sensitivities: &codes,
                }
            } else {
                Activations::Reuse
            };
            program.job(
                weights.rows() as u32,
                weights.row_blocks() as u32,
                scale.get().to_bits(),
                activations,
            );
        }
    }
    program
}

/// Plays a pass of so many rows on random elements, and compares every result.
fn compare_pass(top: &mut Top, rng: &mut ChaCha8Rng, inputs: &[InputOf], rows: usize) {
    let xs: Vec<Vec<bf16>> = inputs
        .iter()
        .map(|input| {
            (0..rows * input.quantizer.channels())
                .map(|_| bf16::from_f32(rng.random_range(-20.0..20.0f32)))
                .collect()
        })
        .collect();
    let mut jobs = Vec::new();
    let mut expected = Vec::new();
    for (input, x) in inputs.iter().zip(&xs) {
        let k = input.quantizer.channels();
        let blocks = x.chunks(k).flat_map(|row| input.quantizer.blocks(row));
        let acts = PackedTensor::from_blocks(&[rows, k], input.quantizer.scale(), blocks).unwrap();
        for (index, (weights, scale)) in input.matrices.iter().enumerate() {
            jobs.push(Job {
                tokens: rows,
                k,
                source: if index == 0 {
                    Source::Elements {
                        x,
                        quantizer: &input.quantizer,
                    }
                } else {
                    Source::Reuse
                },
                weights: Some(weights),
                output_scale: *scale,
                sink: Sink::Stream,
                send_packed: false,
                align: (0, 0, 0),
            });
            expected.push(matmul_integer(weights, &acts).requantized(*scale));
        }
    }
    for job in &jobs {
        top.0.queue_beats(job);
    }
    top.play(rows);
    top.settle();
    // The pass ends when its jobs do.
    let status = top.0.read(accelerator::place::STATUS).unwrap();
    assert_eq!(
        status & accelerator::mask(accelerator::place::STATUS, "BUSY"),
        0
    );
    top.0.wait_until_idle().unwrap();
    assert!(!top.status("FAULT"), "ERROR {:#x}", top.read(place::ERROR));
    let words = top.0.take_results();
    let mut rest = words.as_slice();
    for (job, expected) in jobs.iter().zip(&expected) {
        let (mine, others) = rest.split_at(job.streamed_results().div_ceil(4));
        rest = others;
        let values: Vec<Option<u64>> = top.0.arrange(job, mine);
        let expected: Vec<Option<u64>> =
            expected.iter().map(|y| Some(y.to_bits().into())).collect();
        assert_eq!(values, expected);
    }
    assert!(rest.is_empty());
}

#[test]
fn a_program_is_replayed_for_any_number_of_rows() {
    for stalls in [
        Stalls::default(),
        Stalls {
            inputs: 60,
            outputs: 60,
            seed: 5,
        },
    ] {
        let mut top = Top::new(stalls);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..3 {
            let inputs = random_inputs(&mut rng, 5);
            let program = program_of(&inputs);
            top.load(&program.words());
            for rows in [1, 2, 3, 5] {
                compare_pass(&mut top, &mut rng, &inputs, rows);
            }
        }
        // Inputs of one matrix each, whose sensitivities take turns fastest.
        let mut inputs = random_inputs(&mut rng, 8);
        inputs
            .iter_mut()
            .for_each(|input| input.matrices.truncate(1));
        top.load(&program_of(&inputs).words());
        compare_pass(&mut top, &mut rng, &inputs, 2);
    }
}

#[test]
fn registers_answer_as_their_table_says() {
    let mut top = Top::new(Stalls::default());
    assert_eq!(u64::from(top.read(place::ID)), ID);
    assert_eq!(u64::from(top.read(place::VERSION)), VERSION);
    assert_eq!(top.read(place::SHAPE), 2 | 8 << 8 | 8 << 16);
    assert_eq!(top.read(place::PROGRAM_WORDS), 512);
    // Below, the accelerator's own.
    assert_eq!(
        u64::from(top.0.read(accelerator::place::ID).unwrap()),
        accelerator::ID
    );
    let slverr = |result: Result<(), AcceleratorError>| {
        assert!(matches!(result, Err(AcceleratorError::Bus { .. })));
    };
    for (place, register) in REGISTERS.iter().enumerate() {
        let writable = register.access == accelerator::Access::ReadWrite;
        if register.access == accelerator::Access::ReadOnly {
            slverr(top.0.write_bytes(address(place), 5, 0xF));
        }
        if writable {
            top.write(place, 0x9234_5678);
            assert_eq!(top.read(place), 0x9234_5678, "{}", register.name);
            slverr(top.0.write_bytes(address(place), 5, 0x7));
            assert_eq!(top.read(place), 0x9234_5678, "{}", register.name);
        } else {
            top.read(place);
        }
    }
    slverr(top.0.read_address(address(COUNT)).map(drop));
    slverr(top.0.write_bytes(address(COUNT), 0, 0xF));
    slverr(top.0.read_address(0xFC).map(drop));
    top.write(place::PROGRAM_ADDRESS, 7);
    top.write(place::PROGRAM_DATA, 1);
    assert_eq!(top.read(place::PROGRAM_ADDRESS), 8);
}

#[test]
fn while_the_player_plays_the_window_is_shut() {
    let mut top = Top::new(Stalls::default());
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let inputs = random_inputs(&mut rng, 2);
    top.load(&program_of(&inputs).words());
    // Without data the pass waits.
    top.play(2);
    assert!(top.status("PLAYING"));
    for _ in 0..50 {
        assert!(matches!(
            top.0.read(accelerator::place::STATUS),
            Err(AcceleratorError::Bus { .. })
        ));
        assert!(matches!(
            top.0.write(accelerator::place::TOKENS, 9),
            Err(AcceleratorError::Bus { .. })
        ));
    }
    // Nor does anything else begin.
    top.command(2);
    assert!(top.status("REFUSED"));
    top.command(0);
    assert!(top.status("REFUSED") && !top.status("ACTIVE"));
    // An abort opens it; what the accelerator still has is the host's to drop.
    top.command(1);
    top.settle();
    assert!(!top.status("FAULT"));
    assert_ne!(top.0.read(accelerator::place::STATUS).unwrap() & 1, 0);
    top.0
        .write(
            accelerator::place::CONTROL,
            accelerator::mask(accelerator::place::CONTROL, "ABORT"),
        )
        .unwrap();
    assert_eq!(top.0.read(accelerator::place::STATUS).unwrap() & 1, 0);
    compare_pass(&mut top, &mut rng, &inputs, 3);
}

#[test]
fn faults_end_a_pass_and_say_why() {
    let mut top = Top::new(Stalls::default());
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let inputs = random_inputs(&mut rng, 1);
    let good = program_of(&inputs);
    let fault = |top: &mut Top, words: &[u32]| {
        top.load(words);
        top.play(1);
        top.settle();
        assert!(top.status("FAULT"));
        top.read(place::ERROR)
    };
    // A job that the accelerator refuses.
    let mut refused = Program::new();
    refused.job(4, 0, 1.0_f32.to_bits(), Activations::Reuse);
    let error = fault(&mut top, &refused.words());
    assert_eq!(bits(place::ERROR, "JOB", error), JobError::Blocks as u32);
    // The host clears it before the next pass.
    let error = fault(&mut top, &good.words());
    assert_eq!(bits(place::ERROR, "JOB", error), JobError::Blocks as u32);
    top.0
        .write(
            accelerator::place::CONTROL,
            accelerator::mask(accelerator::place::CONTROL, "CLEAR_STATUS"),
        )
        .unwrap();
    compare_pass(&mut top, &mut rng, &inputs, 1);
    // A register that can't be written.
    let write = |place: usize, count: u32| WRITE << OPERATION | (place as u32) << PLACE | count;
    let error = fault(&mut top, &[write(accelerator::place::STATUS, 1), 1, 0]);
    assert_eq!(error, 1 << 8);
    // An operation that there is not, a write of nothing, no end.
    for words in [
        vec![7 << OPERATION],
        vec![write(accelerator::place::BLOCKS, 0), 0],
        [write(accelerator::place::BLOCKS, 1), 5].repeat(256),
        vec![write(accelerator::place::BLOCKS, 600)],
    ] {
        assert_eq!(fault(&mut top, &words), 1 << 9, "{}", words.len());
    }
    // In a sequence the fault drops it.
    top.load(&[7 << OPERATION]);
    top.write(place::POSITION, 3);
    top.write(place::LAST_POSITION, 9);
    top.command(0);
    assert!(!top.status("REFUSED"));
    top.settle();
    assert!(top.status("FAULT") && !top.status("ACTIVE") && !top.status("DONE"));
    top.load(&good.words());
    compare_pass(&mut top, &mut rng, &inputs, 2);
    assert_eq!(top.read(place::ERROR), 0);
}

/// Takes a pass's rows; none if the sequence is done instead.
fn rows_of_pass(top: &mut Top) -> Vec<(usize, usize, u32)> {
    for _ in 0..2000 {
        if top.0.collected(ROWS).last().is_some_and(|word| word.last) {
            break;
        }
        if top.status("DONE") {
            break;
        }
    }
    let words = top.0.take_collected(ROWS);
    words
        .iter()
        .map(|word| {
            let position = (word.data >> 32 & 0xFF_FFFF) as usize;
            ((word.data >> 56) as usize, position, word.data as u32)
        })
        .collect()
}

#[test]
fn sequences_go_through_registers_and_streams() {
    let mut top = Top::new(Stalls {
        inputs: 80,
        outputs: 80,
        seed: 7,
    });
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    // Passes without jobs.
    top.load(&Program::new().words());
    let (mut flips, mut ended) = (0, 0);
    for number in 0..30 {
        top.command(3);
        let (vocabulary, position) = (rng.random_range(2..5), rng.random_range(0..200));
        let positions = position + rng.random_range(2..9);
        let end = rng
            .random_bool(0.5)
            .then(|| rng.random_range(0..vocabulary));
        top.write(place::POSITION, position as u32);
        top.write(place::TOKEN, 1);
        top.write(place::LAST_POSITION, positions as u32 - 1);
        top.write(place::END_TOKEN, end.map_or(0, |end| end | 1 << 31));
        top.command(0);
        assert!(!top.status("REFUSED"));
        let limits = Limits {
            repetitions: 2,
            end,
            positions,
        };
        let mut golden = Pipeline::new(limits, position, 1).unwrap();
        let mut expected = Counters {
            flips: vec![0; 2],
            ..Counters::default()
        };
        let (mut committed, mut tails) = (Vec::new(), [position; 2]);
        // Every third sequence is dropped on its way.
        let dropped = (number % 3 == 0).then(|| rng.random_range(1..5));
        while !golden.is_done() && dropped != Some(expected.passes) {
            let rows = rows_of_pass(&mut top);
            let in_flight: Vec<_> = golden
                .stages()
                .enumerate()
                .filter_map(|(stage, entry)| entry.map(|e| (stage, e.position, e.token)))
                .collect();
            assert_eq!(rows, in_flight);
            let mut classes = [0; 2];
            for &(stage, position, _) in &rows {
                classes[stage] = rng.random_range(0..vocabulary);
                tails[stage] = position + 1;
                top.0.push(CLASSES, classes[stage].into());
            }
            let resolution = golden.resolve(&classes);
            golden.launch();
            expected.passes += 1;
            expected.rows += rows.len() as u64;
            expected.bubbles += 2 - rows.len() as u64;
            expected.flushed += resolution.flushed as u64;
            committed.extend(resolution.committed);
            if let (Some(flip), Some(kept)) = (resolution.flip, resolution.kept) {
                expected.flips[flip] += 1;
                tails.iter_mut().for_each(|tail| *tail = kept.min(*tail));
            }
            // Until the next pass has begun, or the sequence is done.
            while u64::from(top.read(place::PASSES)) == expected.passes && !top.status("DONE") {}
            let last = top.read(place::LAST_PASS);
            let field = |name: &str| bits(place::LAST_PASS, name, last);
            assert_eq!(field("FLIP") == 1, resolution.flip.is_some());
            assert_eq!(field("STAGE") as usize, resolution.flip.unwrap_or(0));
            assert_eq!(field("FLUSHED") as usize, resolution.flushed);
            assert_eq!(field("COMMITTED") == 1, resolution.committed.is_some());
            for (repetition, &tail) in tails.iter().enumerate() {
                assert_eq!(top.read(place::TAIL_0 + repetition) as usize, tail);
            }
        }
        if golden.is_done() {
            assert!(top.status("DONE") && !top.status("ACTIVE"));
            for (place, count) in [
                (place::PASSES, expected.passes),
                (place::ROWS_RUN, expected.rows),
                (place::BUBBLES, expected.bubbles),
                (place::FLUSHED, expected.flushed),
                (place::COMMITTED, committed.len() as u64),
                (place::FLIPS_1, expected.flips[1]),
                (place::FLIPS_2, 0),
            ] {
                assert_eq!(
                    u64::from(top.read(place)),
                    count,
                    "{}",
                    REGISTERS[place].name
                );
            }
            ended += 1;
            flips += expected.flips[1];
        } else {
            top.command(1);
            while top.status("ACTIVE") || top.status("PLAYING") {}
            assert!(!top.status("DONE"));
            top.0.take_collected(ROWS);
        }
        for _ in 0..50 {
            top.0.tick().unwrap();
        }
        let tokens = top.0.take_collected(COMMITS);
        assert_eq!(tokens.len(), committed.len());
        for (index, (word, (position, token))) in tokens.iter().zip(&committed).enumerate() {
            assert_eq!(word.data, (*position as u64) << 32 | u64::from(*token));
            assert_eq!(word.last, golden.is_done() && index + 1 == committed.len());
        }
    }
    assert!(ended > 10 && flips > 10);
}

fn models(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../models")
        .join(name)
}

fn quantized(alike: bool) -> QuantizedModel {
    let hints = ConfigHints {
        repetitions: Some(3),
        ..ConfigHints::default()
    };
    let model = Model::open(&models("shared-4x3.safetensors"), hints).unwrap();
    let tokens = read_tokens(&models("calibration.u16")).unwrap();
    let windows = CalibrationWindows::new(128, 1);
    let calibration = if alike {
        Calibration::run_alike(&model, &tokens, windows, None, &|_, _| ())
    } else {
        Calibration::run(&model, &tokens, windows, None, &|_, _| ())
    };
    let options = WeightOptions::new(Scheme::Fgmp {
        fp8_share: Share::FGMP,
    });
    QuantizedModel::new(&model, options, None, &calibration.unwrap()).unwrap()
}

/// Decodes so many tokens on the hardware, speculatively and one by one.
fn decode_both_ways(model: &QuantizedModel, quantizer_lanes: usize, count: usize, alone: usize) {
    let config = SpeedConfig {
        array: ArrayConfig {
            rows: 8,
            cols: 4,
            weight_ports: 4,
            quantizer_lanes,
            ..ArrayConfig::default()
        },
        ..SpeedConfig::default()
    };
    let text = read_tokens(&models("test.u16")).unwrap();
    let prompt: Vec<u32> = text[..12].to_vec();
    let golden = {
        let mut decoder = ModelDecoder::new(model, Choice::Greedy);
        let start = decoder.add(&prompt, count).unwrap();
        sequential(&mut decoder, &[start], None, 1).unwrap()
    };
    // Stalls would blur what is measured.
    let stalls = if count > 8 {
        Stalls::default()
    } else {
        Stalls {
            inputs: 3,
            outputs: 3,
            seed: 2,
        }
    };
    let mut bench = SpeedBench::new(simulator(config), config, model, stalls).unwrap();
    println!("{} words of program", program(model).unwrap().words().len());
    let report = |name: &str, passes: &[PassRecord], cycles: u64, bytes: u64, tokens: usize| {
        let by_rows: Vec<String> = (1..=3)
            .map(|rows| {
                let of = passes.iter().filter(|pass| pass.rows == rows);
                let (number, sum) = of.fold((0, 0), |(n, sum), pass| (n + 1, sum + pass.cycles));
                format!(
                    "{number} of {rows} rows, {} cycles each",
                    sum / number.max(1)
                )
            })
            .collect();
        println!(
            "{quantizer_lanes} lanes, {name}: {tokens} tokens, {} passes ({}), {} cycles and {} weight bytes a token",
            passes.len(),
            by_rows.join("; "),
            cycles / tokens as u64,
            bytes / tokens as u64
        );
    };
    let run = decode(&mut bench, &prompt, count, None, Choice::Greedy, |_| ()).unwrap();
    report(
        "speculative",
        &run.passes,
        run.cycles,
        run.effort.bytes[0],
        count,
    );
    println!(
        "flips by stage {:?}, {} flushed",
        run.counters.flips, run.counters.flushed
    );
    assert_eq!(run.output, golden.tokens[0]);
    assert_eq!(run.mismatches, 0);
    assert!(run.results > 0);
    assert_eq!(run.counters.committed, count as u64);
    assert_eq!(run.counters.passes, run.passes.len() as u64);
    assert_eq!(
        run.counters.passes_by_rows.iter().sum::<u64>(),
        run.counters.passes
    );
    // One fetch of the weights a pass, whatever its rows.
    let once = run.passes[0].weight_bytes;
    assert!(run.passes.iter().all(|pass| pass.weight_bytes == once));
    assert!(run.passes.iter().any(|pass| pass.rows == 3));
    assert_eq!(once * run.counters.passes, run.effort.bytes[0]);
    assert!(run.passes.len() < 3 * count);

    let played = play(
        &mut bench,
        Choice::Greedy,
        |_| (),
        |decoder| {
            let start = decoder.add(&prompt, alone)?;
            let run = sequential(decoder, &[start], None, 1).unwrap();
            Ok(run.tokens)
        },
    )
    .unwrap();
    report(
        "token by token",
        &played.passes,
        played.cycles,
        played.effort.bytes[0],
        alone,
    );
    assert_eq!(played.output[0], golden.tokens[0][..alone]);
    assert_eq!(played.mismatches, 0);
    assert_eq!(played.passes.len(), 3 * alone);
    assert_eq!(played.effort.bytes[0], once * played.passes.len() as u64);
}

#[test]
fn a_model_decodes_on_the_hardware_as_on_the_golden_model() {
    let model = quantized(true);
    if full("32 tokens speculatively and one by one, with both quantizers, without stalls") {
        for quantizer_lanes in [1, 16] {
            decode_both_ways(&model, quantizer_lanes, 32, 32);
        }
    } else {
        decode_both_ways(&model, 1, 3, 1);
    }
}

#[test]
fn a_model_that_is_not_quantized_alike_is_refused() {
    let model = quantized(false);
    assert!(matches!(program(&model), Err(SpeedError::NotAlike { .. })));
}
