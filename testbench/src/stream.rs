//! Ready/valid streams: what a bench sends and expects, and the rules that a design must keep.
//!
//! The five rules (`valid`, `ready`, `data`, `last`; synchronous active-high reset):
//!
//! 1. a transfer happens on a rising clock edge with `valid` and `ready` high;
//! 2. `valid` once high stays high, and data and `last` stay unchanged, until the transfer;
//! 3. `valid` never waits for `ready`: there is no combinational path from `ready` to `valid`;
//! 4. reset drives `valid` low;
//! 5. no transfer is lost, duplicated or reordered.
//!
//! Rules 2 to 4 are checked on every output while a [`StreamJob`] runs, each with its own [`StreamRule`]; of rule 5 the run
//! itself catches missing transfers (deadlock) and surplus ones, the comparison of the beats the rest.

pub mod engine;

use crate::design::{Direction, Port, PortError, PortId, PortLookup};
use crate::simulator::SimError;

/// The ports of one stream of a design.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPorts {
    /// The stream's name in messages, for example `weight`.
    pub name: String,
    /// One bit, from the sender.
    pub valid: PortId,
    /// One bit, from the receiver. Without one the receiver is always ready.
    pub ready: Option<PortId>,
    /// Everything that a beat carries, in the order of its words; `last`, where there is one, stands at the end.
    pub data: Vec<PortId>,
    /// Words of each entry of `data`.
    words: Vec<usize>,
}

/// Which side of a stream the design is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The bench sends, the design receives.
    IntoDesign,
    /// The design sends, the bench receives.
    OutOfDesign,
}

impl StreamPorts {
    /// The stream called `name` of a design: `<name>_valid`, `<name>_ready` (if there is one), the given data ports as
    /// `<name>_<data>`, and `<name>_last` (if there is one) as the last word of a beat.
    ///
    /// # Errors
    /// [`PortError`] when a port is missing or points the other way.
    pub fn find<L: PortLookup + ?Sized>(
        ports: &L,
        name: &str,
        side: Side,
        data: &[&str],
    ) -> Result<Self, PortError> {
        let (forward, backward) = match side {
            Side::IntoDesign => (Direction::Input, Direction::Output),
            Side::OutOfDesign => (Direction::Output, Direction::Input),
        };
        let valid = ports.port(&format!("{name}_valid"), forward, Some(1))?;
        let ready_name = format!("{name}_ready");
        let ready = match ports.find_port(&ready_name) {
            Some(_) => Some(ports.port(&ready_name, backward, Some(1))?),
            None => None,
        };
        let mut ids = data
            .iter()
            .map(|suffix| ports.port(&format!("{name}_{suffix}"), forward, None))
            .collect::<Result<Vec<_>, _>>()?;
        let last_name = format!("{name}_last");
        if ports.find_port(&last_name).is_some() && !data.contains(&"last") {
            ids.push(ports.port(&last_name, forward, Some(1))?);
        }
        let words = ids
            .iter()
            .map(|id| ports.port_list()[id.0].words())
            .collect();
        Ok(Self {
            name: name.to_owned(),
            valid,
            ready,
            data: ids,
            words,
        })
    }

    /// 64-bit words of one beat: those of every data port in order, each value least significant word first.
    pub fn beat_words(&self) -> usize {
        self.words.iter().sum()
    }

    /// Where the words of `data[index]` start within a beat.
    pub fn offset(&self, index: usize) -> usize {
        self.words[..index].iter().sum()
    }

    /// Words of each data port, in the order of a beat.
    pub fn port_words(&self) -> &[usize] {
        &self.words
    }
}

/// A pattern of cycles in which one side of a stream holds back, reproducible from its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stall {
    /// Chance of holding back in a cycle, in 256ths; 0 never does.
    pub chance: u8,
    /// Seed of the pattern.
    pub seed: u64,
}

impl Stall {
    /// Never holds back.
    pub const NEVER: Self = Self { chance: 0, seed: 0 };

    /// The numbers behind the pattern, from its start.
    pub fn source(self) -> StallSource {
        let mut z = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        StallSource {
            state: z.max(1),
            chance: u64::from(self.chance),
        }
    }
}

/// Draws a [`Stall`] pattern cycle by cycle (xorshift64*, seeded through splitmix64; the C++ engine draws the same).
#[derive(Debug, Clone)]
pub struct StallSource {
    state: u64,
    chance: u64,
}

impl StallSource {
    /// Whether to hold back in this cycle.
    pub fn draw(&mut self) -> bool {
        if self.chance == 0 {
            return false;
        }
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) < self.chance
    }
}

/// A stream that the bench sends.
#[derive(Debug, Clone)]
pub struct InputStream {
    /// The design's ports.
    pub ports: StreamPorts,
    /// The beats one after the other, [`StreamPorts::beat_words`] words each.
    pub beats: Vec<u64>,
    /// When the sender pauses between beats. A beat once offered is held until its transfer.
    pub stall: Stall,
}

/// A stream that the bench receives.
#[derive(Debug, Clone)]
pub struct OutputStream {
    /// The design's ports.
    pub ports: StreamPorts,
    /// How many beats must come.
    pub expected: usize,
    /// When the receiver isn't ready.
    pub stall: Stall,
    /// The beats that came, [`StreamPorts::beat_words`] words each; overwritten by a run.
    pub collected: Vec<u64>,
}

/// One run: constants, streams, limits.
#[derive(Debug, Clone)]
pub struct StreamJob {
    /// The clock; rising edges count.
    pub clock: PortId,
    /// Synchronous, active high.
    pub reset: Option<PortId>,
    /// Ports held at one value for the whole run.
    pub constants: Vec<(PortId, Vec<u64>)>,
    /// Streams into the design.
    pub inputs: Vec<InputStream>,
    /// Streams out of the design. The run ends when every input beat was taken and every expected beat came.
    pub outputs: Vec<OutputStream>,
    /// Bounds of the run.
    pub limits: Limits,
    /// Check rule 3 in every cycle by evaluating again with each `ready` inverted (two or more evaluations a cycle more).
    pub check_combinational: bool,
}

/// Bounds of a run, in clock cycles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The run fails after so many cycles.
    pub max_cycles: u64,
    /// The run is deadlocked after so many cycles without any transfer.
    pub quiet_cycles: u64,
    /// Length of the reset before the first cycle; 0 leaves the design as the last run left it.
    pub reset_cycles: u64,
    /// Cycles after the last expected beat in which a surplus one is caught.
    pub drain_cycles: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_cycles: u64::MAX,
            quiet_cycles: 10_000,
            reset_cycles: 3,
            drain_cycles: 32,
        }
    }
}

/// A rule of the streams that a design broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamRule {
    /// Rule 2.
    #[error("valid fell before the transfer (rule 2)")]
    ValidDropped,
    /// Rule 2.
    #[error("data or last changed before the transfer (rule 2)")]
    DataChanged,
    /// Rule 3.
    #[error("valid depends combinationally on a ready (rule 3)")]
    ValidWaitsForReady,
    /// Rule 4.
    #[error("valid was high in reset (rule 4)")]
    ValidInReset,
    /// Rule 5.
    #[error("a beat came beyond the expected ones (rule 5)")]
    Surplus,
}

/// What one stream did in a run. The three counts cover the cycles from the reset's end until the stream's last beat
/// (stalled and idle ones go on being counted only while a beat is outstanding).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct StreamStats {
    /// Beats transferred.
    pub transfers: u64,
    /// Cycles with valid high and ready low.
    pub stalled: u64,
    /// Cycles with valid low.
    pub idle: u64,
}

/// What a finished run did.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct RunStats {
    /// Clock cycles from the reset's end to the last transfer, both included.
    pub cycles: u64,
    /// One entry an input stream, in the job's order.
    pub inputs: Vec<StreamStats>,
    /// One entry an output stream, in the job's order.
    pub outputs: Vec<StreamStats>,
}

/// How a run ended, before the streams' names are put to it. The numbers are those of the C++ engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    OutOfCycles {
        cycle: u64,
    },
    Deadlock {
        cycle: u64,
    },
    Broken {
        rule: StreamRule,
        cycle: u64,
        stream: usize,
    },
}

impl StreamJob {
    /// A job with no streams yet, default [`Limits`], clock `clock` and reset `reset`.
    ///
    /// # Errors
    /// [`PortError`] when the design has no one-bit input `clock`.
    pub fn new<L: PortLookup + ?Sized>(ports: &L) -> Result<Self, PortError> {
        let reset = match ports.find_port("reset") {
            Some(_) => Some(ports.port("reset", Direction::Input, Some(1))?),
            None => None,
        };
        Ok(Self {
            clock: ports.port("clock", Direction::Input, Some(1))?,
            reset,
            constants: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            limits: Limits::default(),
            check_combinational: false,
        })
    }

    /// Checks the job against the ports of a simulator: every port exists, points the right way and is used once, and every
    /// value has its port's words. The engines rely on it.
    pub(crate) fn validate(&self, ports: &[Port]) -> Result<(), SimError> {
        let invalid = |reason: String| SimError::InvalidJob { reason };
        let mut used = vec![false; ports.len()];
        let mut claim = |id: PortId, direction: Direction, width: Option<usize>, role: &str| {
            let Some(port) = ports.get(id.0) else {
                return Err(invalid(format!(
                    "{role}: the design has no port number {}",
                    id.0
                )));
            };
            if port.direction != direction {
                return Err(invalid(format!(
                    "{role}: port `{}` is an {}",
                    port.name, port.direction
                )));
            }
            if width.is_some_and(|width| width != port.width) {
                return Err(invalid(format!(
                    "{role}: port `{}` is {} bits wide",
                    port.name, port.width
                )));
            }
            if std::mem::replace(&mut used[id.0], true) {
                return Err(invalid(format!(
                    "{role}: port `{}` is used twice",
                    port.name
                )));
            }
            Ok(port.words())
        };
        claim(self.clock, Direction::Input, Some(1), "clock")?;
        if let Some(reset) = self.reset {
            claim(reset, Direction::Input, Some(1), "reset")?;
        }
        for (id, value) in &self.constants {
            let words = claim(*id, Direction::Input, None, "constant")?;
            if words != value.len() {
                return Err(invalid(format!(
                    "constant `{}` needs {words} words, {} were given",
                    ports[id.0].name,
                    value.len()
                )));
            }
        }
        let mut claim_stream = |stream: &StreamPorts, side: Side| {
            let (forward, backward) = match side {
                Side::IntoDesign => (Direction::Input, Direction::Output),
                Side::OutOfDesign => (Direction::Output, Direction::Input),
            };
            claim(stream.valid, forward, Some(1), &stream.name)?;
            if let Some(ready) = stream.ready {
                claim(ready, backward, Some(1), &stream.name)?;
            }
            if stream.words.len() != stream.data.len() {
                return Err(invalid(format!(
                    "stream `{}`: one word count a data port",
                    stream.name
                )));
            }
            for (id, words) in stream.data.iter().zip(&stream.words) {
                if claim(*id, forward, None, &stream.name)? != *words {
                    return Err(invalid(format!(
                        "stream `{}` belongs to another design",
                        stream.name
                    )));
                }
            }
            Ok(())
        };
        for input in &self.inputs {
            claim_stream(&input.ports, Side::IntoDesign)?;
            let words = input.ports.beat_words();
            if words == 0 && !input.beats.is_empty() || words != 0 && input.beats.len() % words != 0
            {
                return Err(invalid(format!(
                    "stream `{}`: {} words are no whole number of beats of {words}",
                    input.ports.name,
                    input.beats.len()
                )));
            }
        }
        for output in &self.outputs {
            claim_stream(&output.ports, Side::OutOfDesign)?;
            if output
                .expected
                .checked_mul(output.ports.beat_words().max(1))
                .is_none()
            {
                return Err(invalid(format!(
                    "stream `{}`: too many beats",
                    output.ports.name
                )));
            }
        }
        Ok(())
    }

    /// Turns how a run ended into the caller's result, with the streams' names.
    pub(crate) fn conclude(&self, outcome: Outcome, stats: RunStats) -> Result<RunStats, SimError> {
        match outcome {
            Outcome::Done => Ok(stats),
            Outcome::OutOfCycles { cycle } => Err(SimError::OutOfCycles {
                cycle,
                progress: self.progress(&stats),
            }),
            Outcome::Deadlock { cycle } => Err(SimError::Deadlock {
                cycle,
                quiet: self.limits.quiet_cycles,
                progress: self.progress(&stats),
            }),
            Outcome::Broken {
                rule,
                cycle,
                stream,
            } => Err(SimError::Rule {
                rule,
                cycle,
                stream: self
                    .outputs
                    .get(stream)
                    .map_or_else(String::new, |output| output.ports.name.clone()),
            }),
        }
    }

    fn progress(&self, stats: &RunStats) -> String {
        let input = self.inputs.iter().zip(&stats.inputs).map(|(s, did)| {
            let beats = s.beats.len() / s.ports.beat_words().max(1);
            format!("{} took {} of {beats}", s.ports.name, did.transfers)
        });
        let output =
            self.outputs.iter().zip(&stats.outputs).map(|(s, did)| {
                format!("{} gave {} of {}", s.ports.name, did.transfers, s.expected)
            });
        input.chain(output).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Vec<Port> {
        vec![
            Port::input("clock", 1),
            Port::input("reset", 1),
            Port::input("x_valid", 1),
            Port::output("x_ready", 1),
            Port::input("x_data", 137),
            Port::input("x_last", 1),
            Port::output("y_valid", 1),
            Port::output("y_data", 16),
        ]
    }

    #[test]
    fn a_stream_is_found_by_its_name_with_last_at_the_end() {
        let ports = ports();
        let x = StreamPorts::find(ports.as_slice(), "x", Side::IntoDesign, &["data"])
            .expect("all ports are there");
        assert_eq!(x.data, [PortId(4), PortId(5)]);
        assert_eq!((x.beat_words(), x.offset(1)), (4, 3));
        let y = StreamPorts::find(ports.as_slice(), "y", Side::OutOfDesign, &["data"])
            .expect("all ports are there");
        assert_eq!((y.ready, y.beat_words()), (None, 1));
        assert!(StreamPorts::find(ports.as_slice(), "y", Side::IntoDesign, &["data"]).is_err());
    }

    #[test]
    fn a_job_that_does_not_fit_is_refused() {
        let ports = ports();
        let x = StreamPorts::find(ports.as_slice(), "x", Side::IntoDesign, &["data"])
            .expect("all ports are there");
        let mut job = StreamJob::new(ports.as_slice()).expect("there is a clock");
        job.inputs.push(InputStream {
            ports: x.clone(),
            beats: vec![0; 7],
            stall: Stall::NEVER,
        });
        assert!(
            job.validate(&ports).is_err(),
            "7 words are not whole beats of 4"
        );
        job.inputs[0].beats.push(0);
        job.validate(&ports).expect("8 words are two beats");
        job.constants.push((PortId(4), vec![0; 3]));
        assert!(
            job.validate(&ports).is_err(),
            "a data port is no constant too"
        );
        job.constants[0].0 = PortId(99);
        assert!(job.validate(&ports).is_err(), "there is no port 99");
        job.constants.clear();
        job.inputs[0].ports.words[0] = 2;
        assert!(job.validate(&ports).is_err(), "137 bits need three words");
    }

    #[test]
    fn stall_patterns_follow_the_chance() {
        let share = |chance| {
            let mut source = Stall { chance, seed: 7 }.source();
            (0..100_000).filter(|_| source.draw()).count() as f64 / 1e5
        };
        assert_eq!(share(0), 0.0);
        assert!((share(64) - 0.25).abs() < 0.01);
        assert!((share(255) - 255.0 / 256.0).abs() < 0.01);
    }
}
