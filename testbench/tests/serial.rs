//! The serial line around a compiled model, by means of a board that echoes.
// A helper of a test may fail it.
#![allow(clippy::panic, clippy::expect_used)]

mod common;

use std::time::Instant;

use common::{design, full, verilator, verilator_for_short_runs};
use hdl::board::BoardConfig;
use hdl::board::protocol::{Deframer, FIRST_COLUMN, FLAG, Operation, Received, Status, encode};
use hdl::build::emit_board;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use testbench::design::Design;
use testbench::serial::{
    BitLength, Fault, FaultError, FaultKind, FaultRates, Faults, Limits, SerialModel, SerialPorts,
    Stop,
};
use testbench::verilator::Verilator;

const CLOCKS: usize = 16;

fn echo() -> Design {
    design("echo", include_str!("verilog/echo.v"))
}

fn model_at(ppm: i32) -> SerialModel {
    let echo = echo();
    let sim = verilator()
        .simulate(&echo)
        .unwrap_or_else(|error| panic!("{error}"));
    let ports = SerialPorts::of(&echo).expect("its ports are called as usual");
    let bit = BitLength::new(CLOCKS, ppm).expect("long enough");
    let mut model = SerialModel::new(sim, ports, bit).expect("it settles");
    assert!(model.reset(&mut Vec::new()).expect("it runs"));
    model
        .run(&[], &mut Vec::new(), &Limits::cycles(64))
        .expect("it runs");
    model
}

fn model() -> SerialModel {
    model_at(0)
}

fn until_quiet() -> Limits {
    Limits {
        quiet_cycles: Some(500),
        ..Limits::cycles(u64::MAX)
    }
}

fn heard(model: &mut SerialModel, input: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    let progress = model
        .run(input, &mut output, &until_quiet())
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(progress.stop, Stop::Quiet);
    assert_eq!(progress.bytes, output.len());
    output
}

fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// The echo of `input` with these faults on the way to the device, and on the way back.
fn with(input: &[u8], to_device: &[Fault], from_device: &[Fault]) -> (Vec<u8>, SerialModel) {
    let listed = |faults: &[Fault]| Faults::listed(faults.iter().copied());
    let mut model = model().with_faults(listed(to_device), listed(from_device));
    let output = heard(&mut model, input);
    (output, model)
}

fn at(at: u64, kind: FaultKind) -> [Fault; 1] {
    [Fault { at, kind }]
}

#[test]
fn bytes_come_back_at_every_bit_length_that_a_uart_bears() {
    let input = random(3000, 1);
    for ppm in [0, 20_000, -20_000, 33_333, -30_000] {
        let mut model = model_at(ppm);
        assert!(heard(&mut model, &input) == input, "{ppm} ppm");
        assert_eq!(model.from_device().framing_errors, 0, "{ppm} ppm");
        assert_eq!(
            (model.to_device().sent, model.from_device().sent),
            (3000, 3000)
        );
        assert_eq!(
            (model.to_device().arrived, model.from_device().arrived),
            (3000, 3000)
        );
        assert_eq!(model.to_device().faults() + model.from_device().faults(), 0);
    }
    // A bit that is longer by a tenth puts the stop bit elsewhere: the test above can fail.
    assert!(heard(&mut model_at(100_000), &input) != input);
}

#[test]
fn the_time_of_a_byte_is_that_of_its_bits() {
    let mut model = model();
    let mut output = Vec::new();
    let limits = Limits {
        bytes: Some(1),
        ..until_quiet()
    };
    let progress = model.run(&[0x5a], &mut output, &limits).expect("it runs");
    assert_eq!(
        (progress.stop, output.as_slice()),
        (Stop::Bytes, &[0x5a][..])
    );
    // Nine and a half bits there, as many back, and some registers.
    assert!((304..316).contains(&progress.cycles), "{}", progress.cycles);

    let limits = Limits {
        when_sent: true,
        ..until_quiet()
    };
    heard(&mut model, &[]);
    let progress = model
        .run(&[1, 2, 3], &mut output, &limits)
        .expect("it runs");
    assert_eq!(
        (progress.stop, progress.cycles),
        (Stop::Sent, 3 * 10 * CLOCKS as u64)
    );
    assert!(model.is_busy() && !model.is_sending());
    let progress = model.run(&[], &mut output, &limits).expect("it runs");
    assert_eq!((progress.stop, progress.cycles), (Stop::Sent, 0));
    let progress = model
        .run(&[], &mut output, &Limits::cycles(77))
        .expect("it runs");
    assert_eq!((progress.stop, progress.cycles), (Stop::Cycles, 77));
    heard(&mut model, &[]);
    assert!(!model.is_busy());
    // Half a million bits: a fraction of a cycle isn't lost.
    let mut model = model_at(20_000);
    let progress = model
        .run(&random(10_000, 3), &mut output, &limits)
        .expect("it runs");
    // 16.32 cycles are no whole number of the line's units either.
    let expected = 10_000 * 10 * CLOCKS as u64 * 102 / 100;
    assert!(progress.cycles.abs_diff(expected) <= 1, "{progress:?}");
}

#[test]
fn calls_may_be_cut_anywhere() {
    let input = random(200, 4);
    let whole = {
        let mut model = model();
        heard(&mut model, &input);
        model.cycles()
    };
    let mut model = model();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut output = Vec::new();
    let mut next = input.as_slice();
    loop {
        let now = if model.is_sending() { &[][..] } else { next };
        next = &next[now.len()..];
        let limits = Limits {
            max_cycles: rng.random_range(1..40),
            ..until_quiet()
        };
        if model.run(now, &mut output, &limits).expect("it runs").stop == Stop::Quiet {
            break;
        }
    }
    assert!(output == input);
    assert_eq!(model.cycles(), whole);
}

#[test]
fn leaving_out_the_falling_edge_changes_nothing() {
    let input = random(500, 6);
    let faults = || {
        let rates = FaultRates {
            framing: 0.05,
            glitch: 0.05,
            ..FaultRates::CLEAN
        };
        Faults::random(7, rates).expect("probabilities")
    };
    let [fast, slow] = [model(), model().both_edges()].map(|model| {
        let mut model = model.with_faults(faults(), faults());
        let output = heard(&mut model, &input);
        (output, model.cycles(), model.from_device())
    });
    assert!(fast == slow);
}

#[test]
fn data_bits_flip_in_both_directions() {
    let input = [0x00, 0xff, 0x55, 0x0f];
    for place in 0..8 {
        let fault = at(2, FaultKind::Flip(2 << place));
        let expected = [0x00, 0xff, 0x55 ^ 1 << place, 0x0f];
        let (output, model) = with(&input, &fault, &[]);
        assert_eq!(output, expected);
        assert_eq!(
            (model.to_device().flipped, model.to_device().faults()),
            (1, 1)
        );
        let (output, model) = with(&input, &[], &fault);
        assert_eq!(output, expected);
        assert_eq!(
            (model.from_device().flipped, model.from_device().faults()),
            (1, 1)
        );
    }
}

#[test]
fn a_stop_bit_that_is_low_is_a_framing_error() {
    let input = [0xff, 0x81, 0xff, 0x42];
    let fault = at(1, FaultKind::Flip(1 << 9));
    // The device leaves the byte out, and what comes right behind is its start bit lost.
    let (output, _) = with(&input[..2], &fault, &[]);
    assert_eq!(output, [0xff]);
    // The host hands it on.
    let (output, model) = with(&input[..2], &[], &fault);
    assert_eq!(output, [0xff, 0x81]);
    assert_eq!(model.from_device().framing_errors, 1);
    // In a row, the low stop bit runs into the next start bit, and 0xff has no other falling edge.
    let (output, _) = with(&input, &fault, &[]);
    assert_eq!(output, [0xff, 0x42]);
    let (output, _) = with(&input, &[], &fault);
    assert_eq!(output, [0xff, 0x81, 0x42]);
}

#[test]
fn without_its_start_bit_a_byte_is_read_from_its_first_low_bit_on() {
    // 0xf5 without start: 1, 0 (taken for the start), 1 0 1 1 1 1 (stop) then idle.
    let fault = at(0, FaultKind::Flip(1));
    let input = [0xf5];
    let expected = [0b1111_1101];
    assert_eq!(with(&input, &fault, &[]).0, expected);
    assert_eq!(with(&input, &[], &fault).0, expected);
    // 0xff without start isn't there at all.
    assert!(with(&[0xff], &fault, &[]).0.is_empty());
    assert!(with(&[0xff], &[], &fault).0.is_empty());
}

#[test]
fn bytes_are_dropped_doubled_and_added() {
    let input = [1, 2, 3, 4];
    for (kind, expected) in [
        (FaultKind::Drop, &[1, 2, 4][..]),
        (FaultKind::Duplicate, &[1, 2, 3, 3, 4]),
        (FaultKind::Spurious(99), &[1, 2, 99, 3, 4]),
    ] {
        let fault = at(2, kind);
        let (output, model) = with(&input, &fault, &[]);
        assert_eq!(output, expected);
        assert_eq!(model.to_device().faults(), 1);
        assert_eq!(model.to_device().arrived as usize, expected.len());
        let (output, model) = with(&input, &[], &fault);
        assert_eq!(output, expected);
        assert_eq!(model.from_device().faults(), 1);
        assert_eq!(model.from_device().arrived as usize, expected.len());
    }
}

#[test]
fn a_pulse_shorter_than_half_a_bit_is_no_start_bit() {
    let input = [0x12, 0x34];
    for (cycles, is_start) in [(3, false), (12, true)] {
        let fault = at(1, FaultKind::Glitch(cycles));
        for (output, model) in [with(&input, &fault, &[]), with(&input, &[], &fault)] {
            assert_eq!(output == input, !is_start, "{cycles}: {output:?}");
            assert_eq!(model.to_device().glitches + model.from_device().glitches, 1);
        }
    }
}

#[test]
fn a_break_is_one_damaged_byte_however_long() {
    for bits in [12, 40, 255] {
        let fault = at(1, FaultKind::Break(bits));
        // The device leaves it out; the host reads a zero, as an operating system gives it.
        assert_eq!(with(&[7, 8], &fault, &[]).0, [7, 8]);
        let (output, model) = with(&[7, 8], &[], &fault);
        assert_eq!(output, [7, 0, 8]);
        assert_eq!(
            (
                model.from_device().breaks,
                model.from_device().framing_errors
            ),
            (1, 1)
        );
    }
}

#[test]
fn random_faults_are_those_of_their_seed_and_counted() {
    let rates = FaultRates {
        flip: 0.02,
        framing: 0.01,
        drop: 0.02,
        duplicate: 0.02,
        spurious: 0.02,
        burst: 0.01,
        glitch: 0.02,
        line_break: 0.01,
    };
    let input = random(3000, 8);
    let run = |seed: u64, piece: usize| {
        let faults = |seed| Faults::random(seed, rates).expect("probabilities");
        let mut model = model().with_faults(faults(seed), faults(seed + 1));
        let mut output = Vec::new();
        let limits = Limits {
            when_sent: true,
            ..until_quiet()
        };
        for bytes in input.chunks(piece) {
            model.run(bytes, &mut output, &limits).expect("it runs");
        }
        output.extend(heard(&mut model, &[]));
        (output, model.to_device(), model.from_device())
    };
    let one = run(1, 3000);
    assert!(one == run(1, 70), "the same bytes in other pieces");
    assert!(one != run(2, 3000));
    let counts = one.1;
    assert_eq!(counts.sent, 3000);
    for (count, expected) in [
        (counts.flipped, 90),
        (counts.dropped, 60),
        (counts.duplicated, 60),
        (counts.spurious, 60 + 270),
        (counts.glitches, 60),
        (counts.breaks, 30),
    ] {
        assert!(count > expected / 2 && count < expected * 2, "{counts:?}");
    }
    assert_eq!(
        counts.arrived,
        counts.sent - counts.dropped + counts.duplicated + counts.spurious
    );
}

#[test]
fn a_cut_line_is_idle_and_a_reset_device_has_forgotten() {
    let mut model = model();
    let mut output = Vec::new();
    let input = random(100, 9);
    model
        .run(
            &input,
            &mut output,
            &Limits::cycles(10 * CLOCKS as u64 * 20 + 3),
        )
        .expect("it runs");
    assert_eq!(model.cut(), 79);
    output.extend(heard(&mut model, &[]));
    assert!(
        output[..20] == input[..20] && output.len() <= 21,
        "{}",
        output.len()
    );
    assert_eq!(heard(&mut model, &[0x33]), [0x33]);

    let limits = Limits {
        when_sent: true,
        ..until_quiet()
    };
    output.clear();
    model
        .run(&[1, 2, 3, 4], &mut output, &limits)
        .expect("it runs");
    assert!(model.reset(&mut output).expect("it runs"));
    output.extend(heard(&mut model, &[]));
    assert!(output.len() < 4, "{output:?}");
    assert_eq!(heard(&mut model, &[0x44]), [0x44]);

    let fresh = verilator().simulate(&echo()).expect("it is built");
    let before = model.cycles();
    model.replace(fresh).expect("it settles");
    assert_eq!(heard(&mut model, &[0x55]), [0x55]);
    assert!(model.cycles() > before);
}

#[test]
fn ports_rates_and_bit_lengths_that_do_not_fit_are_refused() {
    let design = echo();
    let mut ports = SerialPorts::of(&design).expect("its ports are called as usual");
    ports.tx = ports.rx;
    let sim = verilator().simulate(&design).expect("it is built");
    let bit = BitLength::new(4, 0).expect("long enough");
    let error = SerialModel::new(sim, ports, bit)
        .expect("it settles")
        .run(&[], &mut Vec::new(), &Limits::cycles(1))
        .expect_err("an input can't be heard");
    assert!(error.to_string().contains("`tx`"), "{error}");

    for (clocks, ppm) in [
        (3, 0),
        (4, -1),
        (1 << 21, 0),
        (16, -2_000_000),
        (16, i32::MIN),
    ] {
        assert!(matches!(
            BitLength::new(clocks, ppm),
            Err(FaultError::BitLength { .. })
        ));
    }
    for flip in [-0.1, 1.1, f64::NAN] {
        let rates = FaultRates {
            flip,
            ..FaultRates::CLEAN
        };
        assert!(matches!(
            Faults::random(1, rates),
            Err(FaultError::Rate { .. })
        ));
    }
}

/// A device that is a piece of wire; it has no clock that Verilator would wait for.
fn wire() -> SerialModel {
    let text = "module wired (\n    input wire clock,\n    input wire rx,\n    output wire tx\n);\n    \
                wire unused = &{1'b0, clock};\n    assign tx = rx;\nendmodule\n";
    let design = design("wired", text);
    let sim = verilator()
        .simulate(&design)
        .unwrap_or_else(|error| panic!("{error}"));
    let ports = SerialPorts::of(&design).expect("its ports are called as usual");
    let bit = BitLength::new(CLOCKS, 0).expect("long enough");
    SerialModel::new(sim, ports, bit).expect("it settles")
}

#[test]
fn what_the_device_sends_wrongly_is_heard_as_a_receiver_hears_it() {
    let listed = |fault: &[Fault]| Faults::listed(fault.iter().copied());
    // A short pulse of the device is no start bit, one of more than half a bit is.
    let mut model = wire().with_faults(listed(&at(1, FaultKind::Glitch(7))), Faults::none());
    assert!(!model.reset(&mut Vec::new()).expect("it runs"), "no reset");
    assert_eq!(heard(&mut model, &[0x10, 0x20, 0x30]), [0x10, 0x20, 0x30]);
    assert_eq!(model.false_starts(), 1);
    let mut model = wire().with_faults(listed(&at(1, FaultKind::Glitch(9))), Faults::none());
    assert_ne!(heard(&mut model, &[0x10, 0x20, 0x30]), [0x10, 0x20, 0x30]);
    // A break of the device is one byte of zeros without a stop bit.
    let mut model = wire().with_faults(listed(&at(1, FaultKind::Break(40))), Faults::none());
    assert_eq!(heard(&mut model, &[0x10, 0x20]), [0x10, 0, 0x20]);
    assert_eq!(model.from_device().framing_errors, 1);
}

/// A board's engine of one element, with the parameters that are quick to build.
fn board() -> (Design, BoardConfig) {
    let config = BoardConfig::default();
    let bundle = emit_board(config).unwrap_or_else(|error| panic!("{error}"));
    (Design::from(&bundle), config)
}

/// Commands that fill the memories with random FP8 blocks and multiply `times` times, and how many they are.
fn commands(times: usize) -> (Vec<u8>, usize) {
    let mut contents = vec![vec![1, 0, Operation::Open as u8]];
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for unit in [0, FIRST_COLUMN] {
        for first in (0..256u16).step_by(16) {
            let [low, high] = first.to_le_bytes();
            let mut content = vec![1, 0, Operation::LoadBlocks as u8, unit, low, high];
            for _ in 0..2 {
                content.push(0xff);
                // Codes below 0x40 are finite.
                content.extend((0..8 * 16).map(|_| rng.random_range(0..0x40u8)));
            }
            contents.push(content);
        }
    }
    for _ in 0..times {
        // 4 tiles of 64 blocks by as many.
        contents.push(vec![
            1,
            0,
            Operation::Multiply as u8,
            0,
            0,
            0,
            0,
            64,
            0,
            4,
            4,
            0,
        ]);
    }
    let count = contents.len();
    let bytes = contents
        .into_iter()
        .enumerate()
        .flat_map(|(number, mut content)| {
            content[1] = number as u8;
            encode(&content)
        });
    (bytes.collect(), count)
}

/// Sends commands one after the other, each after the reply to the one before. Returns replies and cycles.
fn converse(model: &mut SerialModel, bytes: &[u8]) -> (Vec<Vec<u8>>, u64) {
    let mut frames = Deframer::new(1024);
    let mut replies = Vec::new();
    let start = model.cycles();
    for command in bytes
        .split_inclusive(|byte| *byte == FLAG)
        .collect::<Vec<_>>()
        .chunks(2)
    {
        let mut output = Vec::new();
        let limits = Limits {
            quiet_cycles: Some(400),
            ..Limits::cycles(1_000_000)
        };
        let stop = model
            .run(&command.concat(), &mut output, &limits)
            .expect("it runs")
            .stop;
        assert_eq!(stop, Stop::Quiet);
        replies.extend(
            output
                .into_iter()
                .filter_map(|byte| match frames.push(byte) {
                    Some(Received::Frame(content)) => Some(content),
                    Some(Received::Damaged) => panic!("a clean line"),
                    None => None,
                }),
        );
    }
    (replies, model.cycles() - start)
}

fn board_model(design: &Design, config: BoardConfig, verilator: &Verilator) -> SerialModel {
    let sim = verilator
        .simulate(design)
        .unwrap_or_else(|error| panic!("{error}"));
    let ports = SerialPorts::of(design).expect("its ports are called as usual");
    assert!(ports.reset.is_some() && ports.busy.is_some());
    let bit = BitLength::new(config.clocks_per_bit, 0).expect("long enough");
    let mut model = SerialModel::new(sim, ports, bit).expect("it settles");
    model.reset(&mut Vec::new()).expect("it runs");
    model
}

#[test]
fn the_engine_of_a_board_answers_over_its_pins_with_and_without_falling_edges() {
    let (design, config) = board();
    let (bytes, count) = commands(2);
    let built = verilator_for_short_runs();
    let one = converse(&mut board_model(&design, config, &built), &bytes);
    let other = converse(
        &mut board_model(&design, config, &built).both_edges(),
        &bytes,
    );
    assert!(one == other);
    assert_eq!(one.0.len(), count);
    for (number, reply) in one.0.iter().enumerate() {
        assert_eq!(
            reply[..3],
            [1, number as u8, Status::Done as u8],
            "{number}"
        );
    }
}

/// How fast the line's loop is on a design that costs almost nothing itself, and on the engine of a board.
#[test]
fn cycles_per_second() {
    if !full("the speed of the serial line's loop and of a board's engine") {
        return;
    }
    let million = |cycles: u64, clock: Instant| cycles as f64 / clock.elapsed().as_secs_f64() / 1e6;
    let edges = |both| if both { "both edges" } else { "rising edges" };
    for both in [false, true] {
        for (what, input) in [("idle", vec![]), ("talking", random(100_000, 1))] {
            let mut model = if both { model().both_edges() } else { model() };
            let cycles = 16_000_000;
            let clock = Instant::now();
            model
                .run(&input, &mut Vec::new(), &Limits::cycles(cycles))
                .expect("it runs");
            let rate = million(cycles, clock);
            eprintln!(
                "echo, {what}, {}: {rate:.1} million cycles a second",
                edges(both)
            );
            assert!(rate > 1.0, "{rate}");
        }
    }
    let (design, config) = board();
    for both in [false, true] {
        let mut model = board_model(&design, config, verilator());
        if both {
            model = model.both_edges();
        }
        let (bytes, _) = commands(200);
        let clock = Instant::now();
        let (_, cycles) = converse(&mut model, &bytes);
        let talking = million(cycles, clock);
        let clock = Instant::now();
        let cycles = 1_000_000;
        model
            .run(&[], &mut Vec::new(), &Limits::cycles(cycles))
            .expect("it runs");
        let idle = million(cycles, clock);
        eprintln!(
            "board, {}: {talking:.2} million cycles a second in commands, {idle:.2} idle",
            edges(both)
        );
    }
}
