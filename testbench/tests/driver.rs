//! The Verilator driver and the stream engine on a small hand-written design and on broken copies of it.
// A helper of a test may fail it.
#![allow(clippy::panic, clippy::expect_used)]

mod common;

use common::{changed, design, verilator, verilator_for_short_runs};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use testbench::design::{Design, Port, PortId, PortLookup, SourceFile};
use testbench::simulator::{SimError, Simulator};
use testbench::stream::{
    InputStream, OutputStream, RunStats, Side, Stall, StreamJob, StreamPorts, StreamRule, engine,
};
use testbench::verilator::{VerilatorSim, Waveform};

const SUMMER: &str = include_str!("verilog/summer.v");

fn summer(text: &str) -> Design {
    design("summer", text)
}

/// A copy of the design with one place changed.
fn broken(from: &str, to: &str) -> Design {
    summer(&changed(SUMMER, from, to))
}

struct Packets {
    job: StreamJob,
    sums: Vec<u64>,
    lengths: Vec<u64>,
}

const BIAS: u64 = 0x5a;

fn packets(design: &Design, count: usize, stalls: [u8; 3], seed: u64) -> Packets {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let find = |name, side, data| {
        StreamPorts::find(design, name, side, data).expect("the stream is there")
    };
    let (mut beats, mut sums, mut lengths) = (vec![], vec![], vec![]);
    for _ in 0..count {
        let items = rng.random_range(1..6u64);
        let (mut total, mut echo) = (0u64, [0u64; 3]);
        for index in 0..items {
            let item = u64::from(rng.random::<u16>());
            let wide = [rng.random(), rng.random(), rng.random::<u64>() & 0x1ff];
            total += item + BIAS;
            for (sum, word) in echo.iter_mut().zip(wide) {
                *sum ^= word;
            }
            beats.push(item);
            beats.extend(wide);
            beats.push(u64::from(index + 1 == items));
        }
        sums.push(total);
        sums.extend(echo);
        sums.push(1);
        lengths.push(items);
    }
    let mut job = StreamJob::new(design).expect("there is a clock");
    let bias = design.find_port("bias").expect("bias is there");
    job.constants.push((bias, vec![BIAS]));
    job.inputs.push(InputStream {
        ports: find("x", Side::IntoDesign, &["item", "wide"]),
        beats,
        stall: Stall {
            chance: stalls[0],
            seed,
        },
    });
    for (index, (name, data)) in [("sum", &["total", "echo"][..]), ("length", &["items"])]
        .into_iter()
        .enumerate()
    {
        job.outputs.push(OutputStream {
            ports: find(name, Side::OutOfDesign, data),
            expected: count,
            stall: Stall {
                chance: stalls[index + 1],
                seed: seed + 1 + index as u64,
            },
            collected: vec![],
        });
    }
    job.limits.quiet_cycles = 2_000;
    Packets { job, sums, lengths }
}

/// Ports through the driver one by one, the engine in Rust.
struct PortByPort(VerilatorSim);

impl Simulator for PortByPort {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn ports(&self) -> &[Port] {
        self.0.ports()
    }
    fn poke(&mut self, port: PortId, words: &[u64]) {
        self.0.poke(port, words);
    }
    fn peek(&self, port: PortId, words: &mut [u64]) {
        self.0.peek(port, words);
    }
    fn eval(&mut self) -> Result<(), SimError> {
        self.0.eval()
    }
    fn run(&mut self, job: &mut StreamJob) -> Result<RunStats, SimError> {
        engine::run(self, job)
    }
}

fn start(design: &Design) -> VerilatorSim {
    verilator_for_short_runs()
        .simulate(design)
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn packets_arrive_whole_under_any_back_pressure_and_both_engines_agree_on_every_cycle() {
    let design = summer(SUMMER);
    let mut fast = start(&design);
    let mut slow = PortByPort(start(&design));
    for (seed, stalls) in [
        [0, 0, 0],
        [128, 0, 0],
        [0, 200, 0],
        [0, 0, 230],
        [90, 120, 150],
        [250, 3, 250],
    ]
    .into_iter()
    .enumerate()
    {
        for check in [false, true] {
            let Packets {
                mut job,
                sums,
                lengths,
            } = packets(&design, 300, stalls, seed as u64);
            job.check_combinational = check;
            let mut same = job.clone();
            let stats = fast
                .run(&mut job)
                .unwrap_or_else(|error| panic!("{stalls:?}: {error}"));
            assert_eq!(job.outputs[0].collected, sums, "{stalls:?}");
            assert_eq!(job.outputs[1].collected, lengths, "{stalls:?}");
            let again = slow
                .run(&mut same)
                .unwrap_or_else(|error| panic!("{stalls:?}: {error}"));
            assert_eq!(stats, again, "{stalls:?}");
            assert_eq!(same.outputs[0].collected, sums);
            assert_eq!(same.outputs[1].collected, lengths);
            let beats = job.inputs[0].beats.len() as u64 / 5;
            assert_eq!(stats.inputs[0].transfers, beats);
            if stalls == [0, 0, 0] {
                // One item a cycle, and the last sum one cycle later.
                assert_eq!(stats.cycles, beats + 1);
                assert_eq!(stats.outputs[0].stalled, 0);
            } else {
                assert!(stats.cycles > beats + 1);
            }
        }
    }
}

/// Both engines must stop a broken design with the same error.
fn caught(design: &Design, stalls: [u8; 3]) -> SimError {
    let Packets { mut job, .. } = packets(design, 200, stalls, 9);
    job.check_combinational = true;
    let mut same = job.clone();
    let error = start(design)
        .run(&mut job)
        .expect_err("the design is broken");
    let again = PortByPort(start(design))
        .run(&mut same)
        .expect_err("the design is broken");
    assert_eq!(error.to_string(), again.to_string());
    assert_eq!(job.outputs[0].collected, same.outputs[0].collected);
    error
}

fn broken_rule(error: &SimError) -> Option<(&str, StreamRule)> {
    match error {
        SimError::Rule { stream, rule, .. } => Some((stream.as_str(), *rule)),
        _ => None,
    }
}

#[test]
fn valid_that_falls_before_the_transfer_is_caught() {
    let design = broken(
        "if (sum_ready) sum_full",
        "if (sum_ready | sum_out[0]) sum_full",
    );
    let error = caught(&design, [0, 200, 0]);
    assert_eq!(
        broken_rule(&error),
        Some(("sum", StreamRule::ValidDropped)),
        "{error}"
    );
}

#[test]
fn data_that_changes_before_the_transfer_is_caught() {
    let design = broken(
        "assign sum_echo = echo_out;",
        "assign sum_echo = echo_out ^ {x_valid, 136'd0};",
    );
    let error = caught(&design, [128, 128, 0]);
    assert_eq!(
        broken_rule(&error),
        Some(("sum", StreamRule::DataChanged)),
        "{error}"
    );
}

#[test]
fn valid_that_waits_for_ready_is_caught() {
    let design = broken(
        "assign length_valid = length_full;",
        "assign length_valid = length_full & length_ready;",
    );
    let error = caught(&design, [0, 0, 128]);
    assert_eq!(
        broken_rule(&error),
        Some(("length", StreamRule::ValidWaitsForReady)),
        "{error}"
    );
}

#[test]
fn valid_in_reset_is_caught() {
    let design = broken(
        "            sum_full <= 1'b0;\n            length_full <= 1'b0;\n",
        "            sum_full <= 1'b0;\n            length_full <= 1'b1;\n",
    );
    let error = caught(&design, [0, 0, 0]);
    assert_eq!(
        broken_rule(&error),
        Some(("length", StreamRule::ValidInReset)),
        "{error}"
    );
}

#[test]
fn a_duplicated_transfer_is_caught() {
    // The sum stays valid for one more cycle after the packet's end.
    let design = broken(
        "if (sum_ready) sum_full <= 1'b0;",
        "if (sum_ready & ~items_out[0]) sum_full <= 1'b0;",
    );
    let error = caught(&design, [0, 100, 0]);
    assert_eq!(
        broken_rule(&error),
        Some(("sum", StreamRule::Surplus)),
        "{error}"
    );
}

#[test]
fn a_lost_transfer_ends_as_a_deadlock_that_tells_the_progress() {
    let design = broken(
        "                length_full <= 1'b1;",
        "                length_full <= ~items[1];",
    );
    let error = caught(&design, [0, 0, 0]);
    assert!(matches!(error, SimError::Deadlock { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("sum gave 200 of 200, length gave"),
        "{error}"
    );
}

#[test]
fn a_run_beyond_its_cycles_is_stopped() {
    let design = summer(SUMMER);
    let Packets { mut job, .. } = packets(&design, 200, [0, 0, 0], 1);
    job.limits.max_cycles = 50;
    let error = start(&design)
        .run(&mut job)
        .expect_err("50 cycles are too few");
    assert!(
        matches!(error, SimError::OutOfCycles { cycle: 50, .. }),
        "{error}"
    );
    assert!(!job.outputs[0].collected.is_empty(), "what came is kept");
}

#[test]
fn a_model_starts_clean_after_a_run_that_failed() {
    let design = summer(SUMMER);
    let mut model = start(&design);
    let Packets { mut job, .. } = packets(&design, 200, [0, 250, 250], 1);
    job.limits.max_cycles = 77;
    model.run(&mut job).expect_err("77 cycles are too few");
    let Packets { mut job, sums, .. } = packets(&design, 20, [0, 0, 0], 2);
    model
        .run(&mut job)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(job.outputs[0].collected, sums);
}

#[test]
fn a_second_build_comes_from_the_cache_and_another_text_does_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tool = verilator().clone().with_cache(folder.path());
    let text = "module tiny (input wire a, output wire y);\n    assign y = ~a;\nendmodule\n";
    let design = |text: &str| Design {
        top: "tiny".into(),
        sources: vec![SourceFile {
            name: "tiny.v".into(),
            text: text.into(),
        }],
        ports: vec![Port::input("a", 1), Port::output("y", 1)],
    };
    // Two builds of the same model at once: one builds, the other waits for it.
    let both = std::thread::scope(|scope| {
        let one = || tool.compile(&design(text), Waveform::None);
        let threads = [scope.spawn(one), scope.spawn(one)];
        threads.map(|thread| {
            thread
                .join()
                .expect("no panic")
                .unwrap_or_else(|error| panic!("{error}"))
        })
    });
    assert_eq!(both[0].object, both[1].object);
    assert_eq!(both.iter().filter(|model| model.from_cache).count(), 1);
    let mut sim = both[0].start(1).unwrap_or_else(|error| panic!("{error}"));
    let mut y = [0];
    sim.poke(PortId(0), &[0]);
    sim.eval().expect("it settles");
    sim.peek(PortId(1), &mut y);
    assert_eq!(y, [1]);

    let other = tool
        .compile(&design(&text.replace('~', "")), Waveform::None)
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(!other.from_cache);
    let mut sim = other.start(1).unwrap_or_else(|error| panic!("{error}"));
    sim.poke(PortId(0), &[0]);
    sim.eval().expect("it settles");
    sim.peek(PortId(1), &mut y);
    assert_eq!(y, [0], "the other text gives the other model");
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("the cache can be read")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("plain text")
        })
        .filter(|name| name.starts_with("building-") || name.ends_with(".lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_text_that_verilator_refuses_gives_its_message_with_file_and_line() {
    let mut design = summer(&SUMMER.replace(
        "wire take = x_valid & x_ready;",
        "wire take = x_valid & nothing_here;",
    ));
    let error = verilator()
        .simulate(&design)
        .err()
        .expect("the name is unknown");
    let text = error.to_string();
    assert!(text.contains("summer.v:30:"), "{text}");
    assert!(text.contains("nothing_here"), "{text}");

    design = summer(SUMMER);
    design.ports[5].name = "x_items".into();
    let error = verilator().simulate(&design).err().expect("no such port");
    assert!(error.to_string().contains("x_items"), "{error}");
}

#[test]
fn lint_passes_the_good_text_and_names_what_is_wrong_in_the_bad() {
    verilator()
        .lint(&summer(SUMMER))
        .unwrap_or_else(|error| panic!("{error}"));
    let error = verilator()
        .lint(&broken("total + {24'd0, x_item}", "total + x_item"))
        .expect_err("16 bits are added to 40");
    assert!(error.to_string().contains("WIDTH"), "{error}");
}

#[test]
fn a_design_that_stops_itself_is_an_error_and_not_the_end_of_the_process() {
    let design = broken(
        "            if (x_last) begin",
        "            if (items == 64'd3) $finish;\n            if (x_last) begin",
    );
    let Packets { mut job, .. } = packets(&design, 200, [0, 0, 0], 3);
    let error = start(&design).run(&mut job).expect_err("it stops itself");
    assert!(error.to_string().contains("$finish"), "{error}");
}

#[test]
fn a_waveform_is_written_in_the_format_of_its_name_also_when_the_run_fails() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let design = summer(SUMMER);
    let vcd = folder.path().join("run.vcd");
    let Packets { mut job, .. } = packets(&design, 5, [0, 0, 0], 4);
    verilator_for_short_runs()
        .run_traced(&design, &mut job, &vcd)
        .unwrap_or_else(|error| panic!("{error}"));
    let text = std::fs::read_to_string(&vcd).expect("the waveform is there");
    assert!(
        text.contains("$enddefinitions") && text.contains("sum_total"),
        "no VCD"
    );
    assert!(text.lines().filter(|line| line.starts_with('#')).count() > 10);

    let fst = folder.path().join("run.fst");
    job.limits.max_cycles = 3;
    verilator_for_short_runs()
        .run_traced(&design, &mut job, &fst)
        .expect_err("3 cycles are too few");
    assert!(
        std::fs::metadata(&fst)
            .expect("the waveform is there")
            .len()
            > 100
    );

    let nowhere = folder.path().join("no/folder/run.fst");
    let error = verilator_for_short_runs()
        .run_traced(&design, &mut job, &nowhere)
        .expect_err("no such folder");
    assert!(error.to_string().contains("run.fst"), "{error}");
}
