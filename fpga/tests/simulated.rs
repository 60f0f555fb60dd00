//! The simulated board as a serial program sees it, with a design that echoes.
// A helper of a test may fail it.
#![allow(clippy::panic, clippy::expect_used)]

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use fpga::simulated::{
    Event, EventKind, FaultPlan, Setup, SimulatedBoard, SimulatedBoardError, Statistics,
};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serialport::{SerialPort, TTYPort};
use testbench::design::{Design, Port, SourceFile};
use testbench::serial::FaultRates;

const CLOCKS: usize = 16;

/// The board of the serial line's own tests: it sends back what it hears.
fn echo() -> Design {
    Design {
        top: "echo".into(),
        sources: vec![SourceFile {
            name: "echo.v".into(),
            text: include_str!("../../testbench/tests/verilog/echo.v").into(),
        }],
        ports: vec![
            Port::input("clock", 1),
            Port::input("reset", 1),
            Port::input("rx", 1),
            Port::output("tx", 1),
            Port::output("busy", 1),
        ],
    }
}

fn start(faults: FaultPlan) -> SimulatedBoard {
    SimulatedBoard::start(&echo(), CLOCKS, faults).unwrap_or_else(|error| panic!("{error}"))
}

fn open(board: &SimulatedBoard) -> TTYPort {
    // macOS refuses any baud rate but 0 for a pseudo-terminal.
    let baud = if cfg!(target_os = "macos") {
        0
    } else {
        115_200
    };
    serialport::new(board.path().to_str().expect("plain text"), baud)
        .timeout(Duration::from_secs(5))
        .open_native()
        .unwrap_or_else(|error| panic!("{error}"))
}

fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn until_idle(board: &SimulatedBoard) -> Statistics {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let statistics = board.statistics();
        if statistics.idle {
            return statistics;
        }
        assert!(Instant::now() < end, "{statistics:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends `bytes` and returns what comes back until the board is idle and nothing more comes.
fn echoed(board: &SimulatedBoard, port: &mut TTYPort, bytes: &[u8]) -> (Vec<u8>, Statistics) {
    let mut writer = port.try_clone_native().expect("it has two ends");
    let before = board.statistics().to_device.sent;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(bytes).expect("the board reads");
        });
        let mut back = Vec::new();
        let mut buffer = [0; 4096];
        port.set_timeout(Duration::from_millis(50))
            .expect("a timeout");
        loop {
            let statistics = board.statistics();
            let is_over =
                statistics.idle && statistics.to_device.sent - before == bytes.len() as u64;
            match port.read(&mut buffer) {
                Ok(count) => back.extend(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::TimedOut && is_over => {
                    return (back, statistics);
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
}

#[test]
fn a_hundred_thousand_bytes_come_back() {
    let board = start(FaultPlan::default());
    let mut port = open(&board);
    let bytes = random(100_000, 1);
    let clock = Instant::now();
    let (back, statistics) = echoed(&board, &mut port, &bytes);
    eprintln!(
        "{:.1} million cycles a second through the pseudo-terminal",
        statistics.cycles as f64 / clock.elapsed().as_secs_f64() / 1e6
    );
    assert!(back == bytes);
    assert_eq!(
        (statistics.to_device.sent, statistics.from_device.arrived),
        (100_000, 100_000)
    );
    assert_eq!(
        statistics.to_device.faults() + statistics.from_device.faults(),
        0
    );
    assert!(statistics.cycles >= 100_000 * 10 * CLOCKS as u64);

    // With nothing to do simulated time stands still.
    let cycles = until_idle(&board).cycles;
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(board.statistics().cycles, cycles);
    // All values of a byte, none of which a terminal may treat in its own way.
    let all: Vec<u8> = (0..=255).collect();
    assert!(echoed(&board, &mut port, &all).0 == all);
    drop(port);
    // Another program after the first.
    assert!(echoed(&board, &mut open(&board), &all).0 == all);
    let end = board.stop().expect("it ran until now");
    assert_eq!(end.to_device.sent, 100_512);
}

#[test]
fn a_program_that_changes_no_settings_gets_all_bytes_as_they_are() {
    let board = start(FaultPlan::default());
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(board.path())
        .expect("the port is there");
    let all: Vec<u8> = (0..=255).collect();
    file.write_all(&all).expect("the board reads");
    // With lines and echo a read would wait for ever: it waits in a thread of its own.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut back = vec![0; 256];
        let result = file.read_exact(&mut back).map(|()| back);
        let _ = tell.send(result);
    });
    let back = told
        .recv_timeout(Duration::from_secs(10))
        .expect("it comes");
    assert_eq!(back.expect("it comes"), all);
}

#[test]
fn lost_doubled_and_added_bytes_are_those_that_are_counted() {
    let rates = FaultRates {
        drop: 0.01,
        duplicate: 0.02,
        spurious: 0.005,
        burst: 0.002,
        ..FaultRates::CLEAN
    };
    let plan = FaultPlan {
        seed: 3,
        to_device: rates,
        from_device: rates,
        events: vec![],
    };
    let run = || {
        let board = start(plan.clone());
        let mut port = open(&board);
        let (back, statistics) = echoed(&board, &mut port, &random(20_000, 2));
        (back, statistics.to_device, statistics.from_device)
    };
    let (back, to, from) = run();
    assert!(
        to.dropped > 100 && to.duplicated > 200 && to.spurious > 100,
        "{to:?}"
    );
    assert_eq!(
        to.arrived,
        20_000 - to.dropped + to.duplicated + to.spurious
    );
    assert_eq!(from.sent, to.arrived, "the device sends back what arrives");
    assert_eq!(
        from.arrived,
        from.sent - from.dropped + from.duplicated + from.spurious
    );
    assert_eq!(back.len() as u64, from.arrived);
    assert!(run() == (back, to, from), "the same seed and bytes");
}

#[test]
fn flipped_bytes_are_those_that_are_counted() {
    let rates = FaultRates {
        flip: 0.01,
        ..FaultRates::CLEAN
    };
    for (to_device, from_device) in [(rates, FaultRates::CLEAN), (FaultRates::CLEAN, rates)] {
        let board = start(FaultPlan {
            seed: 4,
            to_device,
            from_device,
            events: vec![],
        });
        let bytes = random(20_000, 5);
        let (back, statistics) = echoed(&board, &mut open(&board), &bytes);
        assert_eq!(back.len(), bytes.len());
        let different = back.iter().zip(&bytes).filter(|(a, b)| a != b).count() as u64;
        assert!(different > 100, "{different}");
        assert_eq!(
            different,
            statistics.to_device.flipped + statistics.from_device.flipped
        );
    }
}

#[test]
fn a_line_with_every_fault_still_carries_what_comes_after() {
    let rates = FaultRates {
        flip: 0.01,
        framing: 0.01,
        drop: 0.01,
        duplicate: 0.01,
        spurious: 0.01,
        burst: 0.005,
        glitch: 0.01,
        line_break: 0.005,
    };
    let board = start(FaultPlan {
        seed: 5,
        to_device: rates,
        from_device: rates,
        events: vec![],
    });
    let mut port = open(&board);
    let bytes = random(20_000, 6);
    let (back, statistics) = echoed(&board, &mut port, &bytes);
    assert!(statistics.to_device.faults() > 1000 && statistics.from_device.faults() > 1000);
    assert!(statistics.from_device.framing_errors > 50, "{statistics:?}");
    // Most of it is there: pieces of 8 bytes of what was sent, found in what came.
    let came: std::collections::HashSet<&[u8]> = back.windows(8).collect();
    let there = bytes.chunks(8).filter(|piece| came.contains(piece)).count();
    assert!(there > 800, "{there} of 2500");
}

#[test]
fn a_pulled_cable_is_an_error_and_the_path_leads_to_the_board_again() {
    let board = start(FaultPlan::default());
    let mut port = open(&board);
    assert_eq!(echoed(&board, &mut port, &[1, 2, 3]).0, [1, 2, 3]);
    board.pull_cable().expect("it runs");
    assert!(!board.statistics().plugged_in);
    let clock = Instant::now();
    port.set_timeout(Duration::from_secs(5)).expect("a timeout");
    let read = port.read(&mut [0; 8]);
    assert!(
        !matches!(&read, Ok(count) if *count > 0)
            && !matches!(&read, Err(error) if error.kind() == ErrorKind::TimedOut),
        "{read:?}"
    );
    port.write(&[4]).expect_err("nobody listens");
    assert!(clock.elapsed() < Duration::from_secs(4));
    assert!(!board.path().exists());
    board.pull_cable().expect("once more does nothing");

    board.plug_in().expect("there is a pseudo-terminal");
    board.plug_in().expect("once more does nothing");
    let mut port = open(&board);
    assert_eq!(echoed(&board, &mut port, &[5, 6]).0, [5, 6]);
    let statistics = board.stop().expect("it ran until now");
    assert_eq!((statistics.pulls, statistics.to_device.sent), (1, 5));
}

#[test]
fn events_happen_at_their_byte() {
    let board = start(FaultPlan {
        events: vec![
            Event {
                after_bytes: 300,
                kind: EventKind::Pull(Duration::from_millis(50)),
            },
            Event {
                after_bytes: 100,
                kind: EventKind::Reset,
            },
            Event {
                after_bytes: 200,
                kind: EventKind::PowerCycle,
            },
        ],
        ..FaultPlan::default()
    });
    let mut port = open(&board);
    let bytes = random(300, 7);
    assert_eq!(echoed(&board, &mut port, &bytes[..99]).0, bytes[..99]);
    assert_eq!(board.statistics().resets, 0);
    // The reset comes before the last byte has been sent back; so does the loss of power.
    assert_eq!(
        echoed(&board, &mut port, &bytes[99..150]).0,
        bytes[100..150]
    );
    assert_eq!(board.statistics().resets, 1);
    assert_eq!(echoed(&board, &mut port, &bytes[150..299]).0.len(), 148);
    assert_eq!(board.statistics().power_cycles, 1);
    port.write_all(&bytes[299..]).expect("the board reads");
    let end = Instant::now() + Duration::from_secs(5);
    while board.statistics().pulls == 0 || !board.statistics().plugged_in {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    // The device had its power and went on with the last byte while nobody listened, or just before.
    let (back, _) = echoed(&board, &mut open(&board), &[9, 8]);
    assert!(back.ends_with(&[9, 8]) && back.len() <= 3, "{back:?}");
}

#[test]
fn a_press_of_the_reset_empties_the_board() {
    let board = start(FaultPlan::default());
    let mut port = open(&board);
    let bytes = random(500, 8);
    assert_eq!(echoed(&board, &mut port, &bytes).0, bytes);
    board.press_reset().expect("it runs");
    board.power_cycle().expect("it runs");
    let statistics = board.statistics();
    assert_eq!((statistics.resets, statistics.power_cycles), (1, 1));
    assert_eq!(echoed(&board, &mut port, &bytes).0, bytes);
}

#[test]
fn what_nobody_reads_waits_and_nothing_is_lost() {
    let board = start(FaultPlan::default());
    let mut port = open(&board);
    let bytes = random(150_000, 9);
    let mut writer = port.try_clone_native().expect("it has two ends");
    let back = std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&bytes).expect("the board reads"));
        std::thread::sleep(Duration::from_secs(1));
        let mut back = vec![0; bytes.len()];
        port.read_exact(&mut back).expect("it all comes");
        back
    });
    assert!(back == bytes);
}

#[test]
fn a_design_that_stops_itself_ends_the_board_with_its_message() {
    let mut design = echo();
    let text = &design.sources[0].text;
    let marker = "        if (reset) begin";
    assert_eq!(text.matches(marker).count(), 1);
    design.sources[0].text = text.replace(
        marker,
        &format!("        if (take_bit == 4'd9) $finish;\n{marker}"),
    );
    let board = SimulatedBoard::start(&design, CLOCKS, FaultPlan::default())
        .unwrap_or_else(|error| panic!("{error}"));
    let mut port = open(&board);
    port.write_all(&[1]).expect("the board reads");
    port.read(&mut [0; 4]).expect_err("the board is gone");
    assert!(matches!(
        board.press_reset(),
        Err(SimulatedBoardError::Stopped)
    ));
    let error = board.stop().expect_err("it stopped itself");
    assert!(error.to_string().contains("$finish"), "{error}");
}

#[test]
fn what_can_not_be_simulated_is_refused() {
    let refused = |design: &Design, clocks, faults| {
        SimulatedBoard::start(design, clocks, faults)
            .expect_err("it can't be simulated")
            .to_string()
    };
    let mut design = echo();
    design.ports[3].name = "txd".into();
    assert!(refused(&design, CLOCKS, FaultPlan::default()).contains("`tx`"));
    assert!(refused(&echo(), 3, FaultPlan::default()).contains("3 clocks"));
    let rates = FaultRates {
        drop: 2.0,
        ..FaultRates::CLEAN
    };
    let faults = FaultPlan {
        to_device: rates,
        ..FaultPlan::default()
    };
    assert!(refused(&echo(), CLOCKS, faults).contains("drops"));
    let setup = Setup::of(&echo(), CLOCKS, FaultPlan::default()).expect("it can be");
    assert!(setup.quiet_cycles >= 640);
}
