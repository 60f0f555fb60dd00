//! Runs a [`StreamJob`] on anything that can be poked, peeked and evaluated.
//!
//! Twin of the C++ engine (`verilator/engine.inc`), decision by decision: both give the same cycle counts, data and
//! violations on models that agree.

use super::{
    InputStream, Outcome, OutputStream, RunStats, StallSource, StreamJob, StreamRule, StreamStats,
};
use crate::design::PortId;
use crate::simulator::{SimError, Simulator};

struct Input<'a> {
    stream: &'a InputStream,
    words: usize,
    beats: u64,
    stall: StallSource,
    offering: bool,
    accepted: bool,
    stats: StreamStats,
}

impl Input<'_> {
    fn drive<S: Simulator + ?Sized>(&mut self, model: &mut S, words: &[u64], valid: bool) {
        let mut rest = words;
        for (id, count) in self
            .stream
            .ports
            .data
            .iter()
            .zip(self.stream.ports.port_words())
        {
            let (value, tail) = rest.split_at(*count);
            model.poke(*id, value);
            rest = tail;
        }
        model.poke(self.stream.ports.valid, &[u64::from(valid)]);
        self.offering = valid;
    }

    fn beat(&self, index: u64) -> &[u64] {
        let at = index as usize * self.words;
        &self.stream.beats[at..at + self.words]
    }

    /// While nothing is offered the data ports carry the complement of a beat, so a design that looks at them is caught.
    fn drive_idle<S: Simulator + ?Sized>(&mut self, model: &mut S) {
        let idle = if self.beats == 0 {
            vec![0; self.words]
        } else {
            let shown = self.stats.transfers.min(self.beats - 1);
            self.beat(shown).iter().map(|word| !word).collect()
        };
        self.drive(model, &idle, false);
    }
}

struct Output<'a> {
    stream: &'a mut OutputStream,
    expected: u64,
    stall: StallSource,
    ready: bool,
    valid: bool,
    pending: bool,
    now: Vec<u64>,
    held: Vec<u64>,
    stats: StreamStats,
}

impl Output<'_> {
    fn drive<S: Simulator + ?Sized>(&mut self, model: &mut S, ready: bool) {
        self.ready = ready || self.stream.ports.ready.is_none();
        if let Some(port) = self.stream.ports.ready {
            model.poke(port, &[u64::from(ready)]);
        }
    }

    fn sample<S: Simulator + ?Sized>(&mut self, model: &S) {
        self.valid = bit(model, self.stream.ports.valid);
        if !self.valid {
            return;
        }
        let mut rest = self.now.as_mut_slice();
        for (id, count) in self
            .stream
            .ports
            .data
            .iter()
            .zip(self.stream.ports.port_words())
        {
            let (value, tail) = rest.split_at_mut(*count);
            model.peek(*id, value);
            rest = tail;
        }
    }
}

fn bit<S: Simulator + ?Sized>(model: &S, port: PortId) -> bool {
    let mut word = [0];
    model.peek(port, &mut word);
    word[0] & 1 == 1
}

/// Runs the job cycle by cycle through the simulator's ports.
///
/// # Errors
/// As [`Simulator::run`].
pub fn run<S: Simulator + ?Sized>(
    model: &mut S,
    job: &mut StreamJob,
) -> Result<RunStats, SimError> {
    job.validate(model.ports())?;
    for (port, value) in &job.constants {
        model.poke(*port, value);
    }
    let (outcome, stats) = cycles(model, job)?;
    job.conclude(outcome, stats)
}

fn cycles<S: Simulator + ?Sized>(
    model: &mut S,
    job: &mut StreamJob,
) -> Result<(Outcome, RunStats), SimError> {
    let limits = job.limits;
    let mut inputs: Vec<Input> = job
        .inputs
        .iter()
        .map(|stream| {
            let words = stream.ports.beat_words();
            Input {
                stream,
                words,
                beats: (stream.beats.len() / words.max(1)) as u64,
                stall: stream.stall.source(),
                offering: false,
                accepted: false,
                stats: StreamStats::default(),
            }
        })
        .collect();
    let mut outputs: Vec<Output> = job
        .outputs
        .iter_mut()
        .map(|stream| {
            let words = stream.ports.beat_words();
            stream.collected.clear();
            Output {
                expected: stream.expected as u64,
                stall: stream.stall.source(),
                ready: true,
                valid: false,
                pending: false,
                now: vec![0; words],
                held: vec![0; words],
                stats: StreamStats::default(),
                stream,
            }
        })
        .collect();
    let mut cycles = 0;
    let stats = |inputs: &[Input], outputs: &[Output], cycles| RunStats {
        cycles,
        inputs: inputs.iter().map(|input| input.stats).collect(),
        outputs: outputs.iter().map(|output| output.stats).collect(),
    };

    for input in &mut inputs {
        input.drive_idle(model);
    }
    for output in &mut outputs {
        output.drive(model, true);
    }
    if let Some(reset) = job.reset {
        model.poke(reset, &[u64::from(limits.reset_cycles != 0)]);
        for cycle in 0..limits.reset_cycles {
            model.poke(job.clock, &[0]);
            model.eval()?;
            // Before the first edge the registers may hold anything.
            let high = outputs
                .iter()
                .position(|output| bit(model, output.stream.ports.valid));
            if let (Some(stream), true) = (high, cycle > 0) {
                let outcome = Outcome::Broken {
                    rule: StreamRule::ValidInReset,
                    cycle,
                    stream,
                };
                return Ok((outcome, stats(&inputs, &outputs, 0)));
            }
            model.poke(job.clock, &[1]);
            model.eval()?;
        }
        model.poke(reset, &[0]);
    }

    let (mut quiet, mut drained) = (0, 0);
    for cycle in 0.. {
        let finished = inputs
            .iter()
            .all(|input| input.stats.transfers == input.beats)
            && outputs
                .iter()
                .all(|output| output.stats.transfers == output.expected);
        if finished {
            if drained == limits.drain_cycles {
                break;
            }
            drained += 1;
        } else {
            cycles = cycle;
            if quiet >= limits.quiet_cycles {
                return Ok((
                    Outcome::Deadlock { cycle },
                    stats(&inputs, &outputs, cycles),
                ));
            }
            if cycle >= limits.max_cycles {
                return Ok((
                    Outcome::OutOfCycles { cycle },
                    stats(&inputs, &outputs, cycles),
                ));
            }
            cycles = cycle + 1;
        }

        for input in &mut inputs {
            if input.offering {
                continue;
            }
            if input.stats.transfers < input.beats && !input.stall.draw() {
                let beat = input.beat(input.stats.transfers).to_vec();
                input.drive(model, &beat, true);
            } else if input.accepted {
                input.drive_idle(model);
            }
            input.accepted = false;
        }
        for output in &mut outputs {
            let ready = finished || !output.stall.draw();
            output.drive(model, ready);
        }
        model.poke(job.clock, &[0]);
        model.eval()?;

        for input in &mut inputs {
            input.accepted = input.offering
                && input
                    .stream
                    .ports
                    .ready
                    .is_none_or(|ready| bit(model, ready));
        }
        for stream in 0..outputs.len() {
            let output = &mut outputs[stream];
            output.sample(model);
            let rule = if output.pending && !output.valid {
                StreamRule::ValidDropped
            } else if output.pending && output.now != output.held {
                StreamRule::DataChanged
            } else if output.valid && output.stats.transfers == output.expected {
                StreamRule::Surplus
            } else {
                continue;
            };
            return Ok((
                Outcome::Broken {
                    rule,
                    cycle,
                    stream,
                },
                stats(&inputs, &outputs, cycles),
            ));
        }
        if job.check_combinational {
            for flipped in 0..outputs.len() {
                let Some(ready) = outputs[flipped].stream.ports.ready else {
                    continue;
                };
                model.poke(ready, &[u64::from(!outputs[flipped].ready)]);
                model.eval()?;
                let changed = outputs
                    .iter()
                    .position(|output| bit(model, output.stream.ports.valid) != output.valid);
                if let Some(stream) = changed {
                    let rule = StreamRule::ValidWaitsForReady;
                    return Ok((
                        Outcome::Broken {
                            rule,
                            cycle,
                            stream,
                        },
                        stats(&inputs, &outputs, cycles),
                    ));
                }
                model.poke(ready, &[u64::from(outputs[flipped].ready)]);
            }
            model.eval()?;
        }
        model.poke(job.clock, &[1]);
        model.eval()?;

        let mut progress = false;
        for input in &mut inputs {
            if input.accepted {
                input.stats.transfers += 1;
                input.offering = false;
                progress = true;
            } else if input.offering {
                input.stats.stalled += 1;
            } else if input.stats.transfers < input.beats {
                input.stats.idle += 1;
            }
        }
        for output in &mut outputs {
            output.pending = output.valid && !output.ready;
            if output.valid && output.ready {
                output.stream.collected.extend_from_slice(&output.now);
                output.stats.transfers += 1;
                progress = true;
            } else if output.valid {
                output.stats.stalled += 1;
                output.held.copy_from_slice(&output.now);
            } else if output.stats.transfers < output.expected {
                output.stats.idle += 1;
            }
        }
        quiet = if progress { 0 } else { quiet + 1 };
    }
    Ok((Outcome::Done, stats(&inputs, &outputs, cycles)))
}
