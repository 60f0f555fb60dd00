//! The complete accelerator: a host that drives its registers, senders and receivers for its streams.
//!
//! The host is a model of a driver: it writes job registers over AXI4-Lite and starts jobs, as many as the queue takes. Beats wait on the
//! streams in the order of the jobs; every stream may stall at random. Outputs are held to the rules of the streams.

pub mod model;

use std::collections::VecDeque;

use golden::format::{BLOCK, Ue4m3};
use golden::mac::Accumulator;
use golden::packed::PackedTensor;
use golden::quantizer::ActivationQuantizer;
use golden::requantize::OutputScale;
use half::bf16;
use hdl::accelerator::registers::{
    COUNTERS, FIRST_COUNTER, JobError, REGISTERS, address, mask, place,
};
pub use hdl::accelerator::results::Sink;
use hdl::config::ArrayConfig;

use crate::design::{Direction, PortError, PortId, PortLookup};
use crate::simulator::{SimError, Simulator};
use crate::stream::{Stall, StallSource, StreamRule};

const CONTROL_START: u32 = mask(place::CONTROL, "START");
const CONTROL_CLEAR_COUNTERS: u32 = mask(place::CONTROL, "CLEAR_COUNTERS");
const CONTROL_CLEAR_STATUS: u32 = mask(place::CONTROL, "CLEAR_STATUS");
const STATUS_BUSY: u32 = mask(place::STATUS, "BUSY");
const STATUS_FULL: u32 = mask(place::STATUS, "FULL");
const STATUS_CHECKING: u32 = mask(place::STATUS, "CHECKING");

/// Where a job's activations come from.
#[derive(Debug, Clone)]
pub enum Source<'a> {
    /// Packed streams.
    Packed(&'a PackedTensor),
    /// BF16 elements, row-major without padding, through the quantizer.
    Elements {
        /// The elements.
        x: &'a [bf16],
        /// How they are quantized.
        quantizer: &'a ActivationQuantizer,
    },
    /// The results of the last job whose results were kept, through the quantizer.
    Results(&'a ActivationQuantizer),
    /// Those of the job before.
    Reuse,
}

/// One job.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// Tokens M.
    pub tokens: usize,
    /// Elements of a row, K.
    pub k: usize,
    /// Activations.
    pub source: Source<'a>,
    /// Weights, [N, K]; none for a job that only loads activations.
    pub weights: Option<&'a PackedTensor>,
    /// M of the results.
    pub output_scale: OutputScale,
    /// Where results go.
    pub sink: Sink,
    /// Send the quantized activations to the packed output streams.
    pub send_packed: bool,
    /// Where the tensors begin in their first beats: words, scale bytes, tag bits.
    pub align: (usize, usize, usize),
}

impl Job<'_> {
    fn blocks(&self) -> usize {
        self.k.div_ceil(BLOCK)
    }

    fn features(&self) -> usize {
        self.weights.map_or(0, PackedTensor::rows)
    }

    /// Results that leave on the output stream.
    pub fn streamed_results(&self) -> usize {
        if self.sink == Sink::Memory {
            0
        } else {
            self.tokens * self.features()
        }
    }
}

/// A word that left on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Its bits.
    pub data: u64,
    /// Bytes that count.
    pub keep: u8,
    /// The stream said `last`.
    pub last: bool,
}

/// The hardware's counters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CounterValues(Vec<u32>);

impl CounterValues {
    /// The counter at a place of the register map; 0 where there is none.
    pub fn get(&self, place: usize) -> u64 {
        place
            .checked_sub(FIRST_COUNTER)
            .and_then(|index| self.0.get(index))
            .map_or(0, |&count| count.into())
    }

    /// All with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REGISTERS
            .iter()
            .skip(FIRST_COUNTER)
            .zip(&self.0)
            .map(|(register, &count)| (register.name, count.into()))
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum AcceleratorError {
    /// The simulation itself.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// A port is missing or different.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The hardware refused a job.
    #[error("the job was refused with code {code}: {}", JobError::from_code(*.code).map_or("a code without a meaning", JobError::meaning))]
    Refused {
        /// What `ERROR` read.
        code: u32,
    },
    /// A register access was answered with an error.
    #[error("AXI4-Lite answered SLVERR at address {address:#04x}")]
    Bus {
        /// Byte address.
        address: u32,
    },
    /// Nothing happened for too long.
    #[error("no transfer for {quiet} cycles while {what}, in cycle {cycle}")]
    Stuck {
        /// What was waited for.
        what: &'static str,
        /// The limit.
        quiet: u64,
        /// The cycle.
        cycle: u64,
    },
}

/// One stream into the design.
struct Sender {
    valid: PortId,
    ready: PortId,
    data: PortId,
    words: usize,
    queue: VecDeque<Vec<u64>>,
    stall: StallSource,
    offering: bool,
    transfers: u64,
}

/// One stream out of the design.
struct Receiver {
    name: &'static str,
    valid: PortId,
    ready: PortId,
    data: PortId,
    keep: Option<PortId>,
    last: PortId,
    stall: StallSource,
    ready_now: bool,
    held: Option<Word>,
    collected: Vec<Word>,
}

struct Host {
    awvalid: PortId,
    awready: PortId,
    awaddr: PortId,
    wvalid: PortId,
    wready: PortId,
    wdata: PortId,
    wstrb: PortId,
    bvalid: PortId,
    bready: PortId,
    bresp: PortId,
    arvalid: PortId,
    arready: PortId,
    araddr: PortId,
    rvalid: PortId,
    rready: PortId,
    rdata: PortId,
    rresp: PortId,
}

/// Drives an accelerator.
pub struct AcceleratorBench<S> {
    simulator: S,
    config: ArrayConfig,
    clock: PortId,
    reset: PortId,
    irq: PortId,
    host: Host,
    /// By port: payload, scale, tag.
    weights: Vec<[Sender; 3]>,
    acts: [Sender; 3],
    elements: Sender,
    /// Elements of a beat.
    element_lanes: usize,
    out: Receiver,
    packed: [Receiver; 3],
    /// Further streams of a top around the accelerator.
    more_inputs: Vec<Sender>,
    more_outputs: Vec<Receiver>,
    stalls: Stalls,
    cycle: u64,
    last_transfer: u64,
    sensitivity_bank: bool,
    /// Cycles without a transfer after which a run counts as stuck.
    quiet_cycles: u64,
}

/// Chance of stalling, in 256ths, on every stream, with a seed for the patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stalls {
    /// Of the senders.
    pub inputs: u8,
    /// Of the receivers.
    pub outputs: u8,
    /// Seed.
    pub seed: u64,
}

impl<S: Simulator> AcceleratorBench<S> {
    /// Finds the ports and resets the design.
    ///
    /// # Errors
    /// A port is missing or different, or the simulation fails.
    pub fn new(
        simulator: S,
        config: ArrayConfig,
        stalls: Stalls,
    ) -> Result<Self, AcceleratorError> {
        let mut seed = stalls.seed;
        let mut stall = |chance: u8| {
            seed = seed.wrapping_add(1);
            Stall { chance, seed }.source()
        };
        let ports = simulator.ports();
        let input = |name: &str| ports.port(name, Direction::Input, None);
        let output = |name: &str| ports.port(name, Direction::Output, None);
        let sender = |name: &str, suffix: &str, stall: StallSource| -> Result<Sender, PortError> {
            let data = input(&format!("{name}_tdata{suffix}"))?;
            Ok(Sender {
                valid: input(&format!("{name}_tvalid{suffix}"))?,
                ready: output(&format!("{name}_tready{suffix}"))?,
                data,
                words: ports[data.0].words(),
                queue: VecDeque::new(),
                stall,
                offering: false,
                transfers: 0,
            })
        };
        let receiver =
            |name: &'static str, keep: bool, stall: StallSource| -> Result<Receiver, PortError> {
                Ok(Receiver {
                    name,
                    valid: output(&format!("{name}_tvalid"))?,
                    ready: input(&format!("{name}_tready"))?,
                    data: output(&format!("{name}_tdata"))?,
                    keep: keep.then(|| output(&format!("{name}_tkeep"))).transpose()?,
                    last: output(&format!("{name}_tlast"))?,
                    stall,
                    ready_now: false,
                    held: None,
                    collected: Vec::new(),
                })
            };
        let streams = ["payload", "scale", "tag"];
        let mut weights = Vec::new();
        for port in 0..config.weight_ports {
            let suffix = format!("_{port}");
            let [payload, scale, tag] = streams.map(|stream| format!("s_axis_weight_{stream}"));
            weights.push([
                sender(&payload, &suffix, stall(stalls.inputs))?,
                sender(&scale, &suffix, stall(stalls.inputs))?,
                sender(&tag, &suffix, stall(stalls.inputs))?,
            ]);
        }
        let acts = [
            sender("s_axis_act_payload", "", stall(stalls.inputs))?,
            sender("s_axis_act_scale", "", stall(stalls.inputs))?,
            sender("s_axis_act_tag", "", stall(stalls.inputs))?,
        ];
        let elements = sender("s_axis_x", "", stall(stalls.inputs))?;
        let out = receiver("m_axis_out", true, stall(stalls.outputs))?;
        let packed = [
            receiver("m_axis_payload", false, stall(stalls.outputs))?,
            receiver("m_axis_scale", false, stall(stalls.outputs))?,
            receiver("m_axis_tag", false, stall(stalls.outputs))?,
        ];
        let host = Host {
            awvalid: input("s_axil_awvalid")?,
            awready: output("s_axil_awready")?,
            awaddr: input("s_axil_awaddr")?,
            wvalid: input("s_axil_wvalid")?,
            wready: output("s_axil_wready")?,
            wdata: input("s_axil_wdata")?,
            wstrb: input("s_axil_wstrb")?,
            bvalid: output("s_axil_bvalid")?,
            bready: input("s_axil_bready")?,
            bresp: output("s_axil_bresp")?,
            arvalid: input("s_axil_arvalid")?,
            arready: output("s_axil_arready")?,
            araddr: input("s_axil_araddr")?,
            rvalid: output("s_axil_rvalid")?,
            rready: input("s_axil_rready")?,
            rdata: output("s_axil_rdata")?,
            rresp: output("s_axil_rresp")?,
        };
        let element_lanes = 4 * elements.words;
        let mut bench = Self {
            clock: input("clock")?,
            reset: input("reset")?,
            irq: output("irq")?,
            simulator,
            config,
            host,
            weights,
            acts,
            elements,
            element_lanes,
            out,
            packed,
            more_inputs: Vec::new(),
            more_outputs: Vec::new(),
            stalls: Stalls {
                seed: stalls.seed.wrapping_add(100),
                ..stalls
            },
            cycle: 0,
            last_transfer: 0,
            sensitivity_bank: false,
            quiet_cycles: 20_000,
        };
        bench.reset()?;
        Ok(bench)
    }

    /// The simulator's name.
    pub fn simulator(&self) -> &str {
        self.simulator.name()
    }

    /// Clock cycles since the last reset.
    pub const fn cycles(&self) -> u64 {
        self.cycle
    }

    /// Whether the interrupt is raised.
    pub fn interrupt(&self) -> bool {
        self.bit(self.irq)
    }

    /// Resets the design for two cycles; beats that wait on the streams, and what was collected, are dropped.
    ///
    /// # Errors
    /// The simulation fails, or an output is valid after the first edge in reset.
    pub fn reset(&mut self) -> Result<(), AcceleratorError> {
        self.drop_beats();
        for receiver in self.receivers() {
            receiver.collected.clear();
            receiver.held = None;
        }
        for port in [
            self.host.awvalid,
            self.host.wvalid,
            self.host.arvalid,
            self.host.bready,
            self.host.rready,
        ] {
            self.simulator.poke(port, &[0]);
        }
        self.simulator.poke(self.reset, &[1]);
        for cycle in 0..3 {
            self.simulator.poke(self.clock, &[0]);
            self.simulator.eval()?;
            let valid = [&self.out, &self.packed[0], &self.packed[1], &self.packed[2]]
                .into_iter()
                .chain(&self.more_outputs)
                .find(|receiver| self.bit(receiver.valid))
                .map(|receiver| receiver.name);
            if let (Some(stream), true) = (valid, cycle > 0) {
                return Err(SimError::Rule {
                    stream: stream.to_owned(),
                    cycle,
                    rule: StreamRule::ValidInReset,
                }
                .into());
            }
            self.simulator.poke(self.clock, &[1]);
            self.simulator.eval()?;
        }
        self.simulator.poke(self.reset, &[0]);
        self.cycle = 0;
        self.last_transfer = 0;
        Ok(())
    }

    /// Drops the beats that wait on the input streams, as a host does after an abort.
    pub fn drop_beats(&mut self) {
        for sender in self
            .weights
            .iter_mut()
            .flatten()
            .chain(&mut self.acts)
            .chain([&mut self.elements])
            .chain(&mut self.more_inputs)
        {
            sender.queue.clear();
            sender.offering = false;
            self.simulator.poke(sender.valid, &[0]);
        }
    }

    fn receivers(&mut self) -> impl Iterator<Item = &mut Receiver> {
        [&mut self.out]
            .into_iter()
            .chain(&mut self.packed)
            .chain(&mut self.more_outputs)
    }

    fn bit(&self, port: PortId) -> bool {
        let mut word = [0];
        self.simulator.peek(port, &mut word);
        word[0] & 1 == 1
    }

    fn word(&self, port: PortId) -> u64 {
        let mut word = [0];
        self.simulator.peek(port, &mut word);
        word[0]
    }

    /// One clock cycle: streams are served, registers are whatever the caller poked.
    ///
    /// # Errors
    /// The simulation fails or an output breaks a rule of the streams.
    pub fn tick(&mut self) -> Result<(), AcceleratorError> {
        let model = &mut self.simulator;
        for sender in self
            .weights
            .iter_mut()
            .flatten()
            .chain(&mut self.acts)
            .chain([&mut self.elements])
            .chain(&mut self.more_inputs)
        {
            if sender.offering {
                continue;
            }
            if let Some(beat) = sender.queue.front()
                && !sender.stall.draw()
            {
                model.poke(sender.data, beat);
                model.poke(sender.valid, &[1]);
                sender.offering = true;
            }
        }
        for receiver in [&mut self.out]
            .into_iter()
            .chain(&mut self.packed)
            .chain(&mut self.more_outputs)
        {
            receiver.ready_now = !receiver.stall.draw();
            model.poke(receiver.ready, &[u64::from(receiver.ready_now)]);
        }
        model.poke(self.clock, &[0]);
        model.eval()?;

        let read = |model: &S, port: PortId| {
            let mut word = [0];
            model.peek(port, &mut word);
            word[0]
        };
        let mut moved = false;
        let mut accepted = Vec::new();
        for (index, sender) in self
            .weights
            .iter()
            .flatten()
            .chain(&self.acts)
            .chain([&self.elements])
            .chain(&self.more_inputs)
            .enumerate()
        {
            if sender.offering && read(model, sender.ready) & 1 == 1 {
                accepted.push(index);
            }
        }
        for receiver in [&mut self.out]
            .into_iter()
            .chain(&mut self.packed)
            .chain(&mut self.more_outputs)
        {
            let valid = read(model, receiver.valid) & 1 == 1;
            let now = valid.then(|| Word {
                data: read(model, receiver.data),
                keep: receiver.keep.map_or(0xFF, |keep| read(model, keep) as u8),
                last: read(model, receiver.last) & 1 == 1,
            });
            let rule = match (receiver.held, now) {
                (Some(_), None) => Some(StreamRule::ValidDropped),
                (Some(held), Some(now)) if held != now => Some(StreamRule::DataChanged),
                _ => None,
            };
            if let Some(rule) = rule {
                return Err(SimError::Rule {
                    stream: receiver.name.to_owned(),
                    cycle: self.cycle,
                    rule,
                }
                .into());
            }
            receiver.held = now;
            if let Some(word) = now
                && receiver.ready_now
            {
                receiver.collected.push(word);
                receiver.held = None;
                moved = true;
            }
        }
        model.poke(self.clock, &[1]);
        model.eval()?;

        let mut accepted = accepted.into_iter().peekable();
        for (index, sender) in self
            .weights
            .iter_mut()
            .flatten()
            .chain(&mut self.acts)
            .chain([&mut self.elements])
            .chain(&mut self.more_inputs)
            .enumerate()
        {
            if accepted.peek() == Some(&index) {
                accepted.next();
                moved = true;
                sender.queue.pop_front();
                sender.offering = false;
                sender.transfers += 1;
                model.poke(sender.valid, &[0]);
                // A design that looks at data without valid is caught.
                let words = vec![0xDEAD_BEEF_F00D_F00D; sender.words];
                model.poke(sender.data, &words);
            }
        }
        if moved {
            self.last_transfer = self.cycle;
        }
        self.cycle += 1;
        Ok(())
    }

    /// Adds a further stream into the design, of words of up to 64 bits; gives its number.
    ///
    /// # Errors
    /// A port is missing or different.
    pub fn add_input(&mut self, name: &str) -> Result<usize, AcceleratorError> {
        let ports = self.simulator.ports();
        let data = ports.port(&format!("{name}_tdata"), Direction::Input, None)?;
        let number = self.more_inputs.len();
        self.more_inputs.push(Sender {
            valid: ports.port(&format!("{name}_tvalid"), Direction::Input, None)?,
            ready: ports.port(&format!("{name}_tready"), Direction::Output, None)?,
            data,
            words: ports[data.0].words(),
            queue: VecDeque::new(),
            stall: Stall {
                chance: self.stalls.inputs,
                seed: self.stalls.seed.wrapping_add(number as u64),
            }
            .source(),
            offering: false,
            transfers: 0,
        });
        Ok(number)
    }

    /// Adds a further stream out of the design, of words of up to 64 bits; gives its number. Until then it is not taken.
    ///
    /// # Errors
    /// A port is missing or different.
    pub fn add_output(&mut self, name: &'static str) -> Result<usize, AcceleratorError> {
        let ports = self.simulator.ports();
        let number = self.more_outputs.len();
        self.more_outputs.push(Receiver {
            name,
            valid: ports.port(&format!("{name}_tvalid"), Direction::Output, None)?,
            ready: ports.port(&format!("{name}_tready"), Direction::Input, None)?,
            data: ports.port(&format!("{name}_tdata"), Direction::Output, None)?,
            keep: None,
            last: ports.port(&format!("{name}_tlast"), Direction::Output, None)?,
            stall: Stall {
                chance: self.stalls.outputs,
                seed: self.stalls.seed.wrapping_add(50 + number as u64),
            }
            .source(),
            ready_now: false,
            held: None,
            collected: Vec::new(),
        });
        Ok(number)
    }

    /// Puts a beat on a further stream.
    pub fn push(&mut self, input: usize, word: u64) {
        if let Some(sender) = self.more_inputs.get_mut(input) {
            sender.queue.push_back(vec![word]);
        }
    }

    /// What left on a further stream.
    pub fn collected(&self, output: usize) -> &[Word] {
        self.more_outputs
            .get(output)
            .map_or(&[], |receiver| receiver.collected.as_slice())
    }

    /// Takes what left on a further stream.
    pub fn take_collected(&mut self, output: usize) -> Vec<Word> {
        self.more_outputs
            .get_mut(output)
            .map(|receiver| std::mem::take(&mut receiver.collected))
            .unwrap_or_default()
    }

    /// Words that wait on the result stream's receiver.
    pub(crate) fn results(&self) -> usize {
        self.out.collected.len()
    }

    /// Beats that wait on the input streams.
    pub(crate) fn waiting_beats(&self) -> usize {
        self.weights
            .iter()
            .flatten()
            .chain(&self.acts)
            .chain([&self.elements])
            .chain(&self.more_inputs)
            .map(|sender| sender.queue.len())
            .sum()
    }

    /// Gives the run [`AcceleratorError::Stuck`]'s time anew: the caller has done something.
    pub(crate) const fn restart_clock(&mut self) {
        self.last_transfer = self.cycle;
    }

    pub(crate) fn tick_while(&mut self, what: &'static str) -> Result<(), AcceleratorError> {
        if self.cycle - self.last_transfer > self.quiet_cycles {
            return Err(AcceleratorError::Stuck {
                what,
                quiet: self.quiet_cycles,
                cycle: self.cycle,
            });
        }
        self.tick()
    }

    /// Writes a register: address and data together.
    ///
    /// # Errors
    /// The bus answers with an error, or not at all; the simulation fails.
    pub fn write(&mut self, place: usize, value: u32) -> Result<(), AcceleratorError> {
        self.write_bytes(address(place), value, 0xF)
    }

    /// As [`Self::write`], to any address and with byte strobes.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_bytes(
        &mut self,
        address: u32,
        value: u32,
        strobe: u8,
    ) -> Result<(), AcceleratorError> {
        let (awvalid, wvalid) = (self.host.awvalid, self.host.wvalid);
        self.simulator.poke(self.host.awaddr, &[address.into()]);
        self.simulator.poke(self.host.wdata, &[value.into()]);
        self.simulator.poke(self.host.wstrb, &[strobe.into()]);
        self.simulator.poke(awvalid, &[1]);
        self.simulator.poke(wvalid, &[1]);
        self.simulator.poke(self.host.bready, &[1]);
        self.last_transfer = self.cycle;
        let (mut address_open, mut data_open) = (true, true);
        while address_open || data_open {
            self.sample()?;
            let (aw, w) = (self.bit(self.host.awready), self.bit(self.host.wready));
            self.tick_while("a register is written")?;
            if aw && address_open {
                address_open = false;
                self.simulator.poke(awvalid, &[0]);
            }
            if w && data_open {
                data_open = false;
                self.simulator.poke(wvalid, &[0]);
            }
        }
        loop {
            self.sample()?;
            let (valid, response) = (self.bit(self.host.bvalid), self.word(self.host.bresp));
            self.tick_while("a register's write is answered")?;
            if valid {
                self.simulator.poke(self.host.bready, &[0]);
                return if response == 0 {
                    Ok(())
                } else {
                    Err(AcceleratorError::Bus { address })
                };
            }
        }
    }

    /// Reads a register.
    ///
    /// # Errors
    /// The bus answers with an error, or not at all; the simulation fails.
    pub fn read(&mut self, place: usize) -> Result<u32, AcceleratorError> {
        self.read_address(address(place))
    }

    /// As [`Self::read`], from any address.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_address(&mut self, address: u32) -> Result<u32, AcceleratorError> {
        self.simulator.poke(self.host.araddr, &[address.into()]);
        self.simulator.poke(self.host.arvalid, &[1]);
        self.simulator.poke(self.host.rready, &[1]);
        self.last_transfer = self
            .last_transfer
            .max(self.cycle.saturating_sub(self.quiet_cycles / 2));
        loop {
            self.sample()?;
            let taken = self.bit(self.host.arready);
            self.tick_while("a register is read")?;
            if taken {
                self.simulator.poke(self.host.arvalid, &[0]);
                break;
            }
        }
        loop {
            self.sample()?;
            let valid = self.bit(self.host.rvalid);
            let (data, response) = (self.word(self.host.rdata), self.word(self.host.rresp));
            self.tick_while("a register's read is answered")?;
            if valid {
                self.simulator.poke(self.host.rready, &[0]);
                return if response == 0 {
                    Ok(data as u32)
                } else {
                    Err(AcceleratorError::Bus { address })
                };
            }
        }
    }

    /// Lets what the host poked reach the host's outputs; these depend on nothing that the streams do in the same cycle.
    fn sample(&mut self) -> Result<(), AcceleratorError> {
        self.simulator.poke(self.clock, &[0]);
        self.simulator.eval()?;
        Ok(())
    }

    /// Writes channel sensitivities into the bank that is not in use.
    fn write_sensitivities(&mut self, codes: &[Ue4m3]) -> Result<(), AcceleratorError> {
        self.sensitivity_bank = !self.sensitivity_bank;
        let base = u32::from(self.sensitivity_bank) << 15;
        self.write(place::SENSITIVITY_ADDRESS, base)?;
        let mut padded: Vec<u8> = codes.iter().map(|code| code.to_bits()).collect();
        padded.resize(codes.len().next_multiple_of(BLOCK), 0);
        for group in padded.as_chunks::<4>().0 {
            self.write(place::SENSITIVITY_DATA, u32::from_le_bytes(*group))?;
        }
        Ok(())
    }

    /// Waits until a further job can be queued.
    ///
    /// # Errors
    /// Nothing moves for too long, or the simulation fails.
    pub fn wait_for_room(&mut self) -> Result<(), AcceleratorError> {
        while self.read(place::STATUS)? & STATUS_FULL != 0 {
            self.tick_while("the queue is full")?;
        }
        Ok(())
    }

    /// Waits until every job is done.
    ///
    /// # Errors
    /// Nothing moves for too long, or the simulation fails.
    pub fn wait_until_idle(&mut self) -> Result<(), AcceleratorError> {
        while self.read(place::STATUS)? & STATUS_BUSY != 0 {
            for _ in 0..16 {
                self.tick_while("jobs are under way")?;
            }
        }
        // What the outputs still hold.
        let mut quiet = 0;
        while quiet < 64 {
            let before = self.last_transfer;
            self.tick()?;
            quiet = if self.last_transfer == before {
                quiet + 1
            } else {
                0
            };
        }
        Ok(())
    }

    /// Puts a job's beats on the streams, writes its registers and starts it. The queue must have room.
    ///
    /// # Errors
    /// The job is refused (its beats are taken back then), or the simulation fails.
    pub fn submit(&mut self, job: &Job<'_>) -> Result<(), AcceleratorError> {
        let mut flags = (job.sink as u32) << 2 | u32::from(job.send_packed) << 4;
        let quantizer = match &job.source {
            Source::Packed(_) => None,
            Source::Elements { quantizer, .. } => {
                flags |= 1;
                Some(*quantizer)
            }
            Source::Results(quantizer) => {
                flags |= 2;
                Some(*quantizer)
            }
            Source::Reuse => {
                flags |= 3;
                None
            }
        };
        if let Some(quantizer) = quantizer {
            self.write_sensitivities(&quantizer.sensitivity().codes)?;
            flags |= u32::from(self.sensitivity_bank) << 5;
            let threshold = quantizer.policy().threshold();
            self.write(place::INPUT_SCALE, quantizer.input_scale().get().to_bits())?;
            self.write(place::THRESHOLD_LOW, threshold as u32)?;
            self.write(place::THRESHOLD_HIGH, (threshold >> 32) as u32)?;
        }
        let (words, bytes, bits) = job.align;
        let align = (words | bytes << 8 | bits << 16) as u32;
        for (place, value) in [
            (place::TOKENS, job.tokens as u32),
            (place::FEATURES, job.features() as u32),
            (place::BLOCKS, job.blocks() as u32),
            (place::FLAGS, flags),
            (place::OUTPUT_SCALE, job.output_scale.get().to_bits()),
            (place::WEIGHT_ALIGN, align),
            (place::ACT_ALIGN, align),
        ] {
            self.write(place, value)?;
        }
        self.start()?;
        self.queue_beats(job);
        Ok(())
    }

    /// Starts the job that the registers describe.
    ///
    /// # Errors
    /// The job is refused, or the simulation fails.
    pub fn start(&mut self) -> Result<(), AcceleratorError> {
        self.write(place::CONTROL, CONTROL_CLEAR_STATUS)?;
        self.write(place::CONTROL, CONTROL_START)?;
        while self.read(place::STATUS)? & STATUS_CHECKING != 0 {
            self.tick()?;
        }
        match self.read(place::ERROR)? {
            0 => Ok(()),
            code => Err(AcceleratorError::Refused { code }),
        }
    }

    /// Puts a job's beats on the streams: for a job that something else than this driver starts.
    pub fn queue_beats(&mut self, job: &Job<'_>) {
        if let Some(weights) = job.weights {
            let ports = self.weights.len();
            for (port, senders) in self.weights.iter_mut().enumerate() {
                let rows = (port..weights.rows()).step_by(ports);
                queue_tensor(senders, weights, rows, job.align);
            }
        }
        match &job.source {
            Source::Packed(acts) => {
                queue_tensor(&mut self.acts, acts, 0..acts.rows(), job.align);
            }
            Source::Elements { x, .. } => {
                for row in x.chunks(job.k) {
                    let mut padded: Vec<u16> = row.iter().map(|x| x.to_bits()).collect();
                    padded.resize(job.blocks() * BLOCK, 0);
                    for beat in padded.chunks(self.element_lanes) {
                        let words = beat
                            .chunks(4)
                            .map(|four| {
                                four.iter()
                                    .rev()
                                    .fold(0, |word, &x| word << 16 | u64::from(x))
                            })
                            .collect();
                        self.elements.queue.push_back(words);
                    }
                }
            }
            Source::Results(_) | Source::Reuse => {}
        }
    }

    /// Runs jobs one behind the other, as fast as the queue takes them, until all are done.
    ///
    /// # Errors
    /// A job is refused, something gets stuck, or the simulation fails.
    pub fn run(&mut self, jobs: &[Job<'_>]) -> Result<(), AcceleratorError> {
        for job in jobs {
            self.wait_for_room()?;
            self.submit(job)?;
        }
        self.wait_until_idle()
    }

    /// Sets the counters to 0.
    ///
    /// # Errors
    /// The simulation fails.
    pub fn clear_counters(&mut self) -> Result<(), AcceleratorError> {
        self.write(place::CONTROL, CONTROL_CLEAR_COUNTERS)
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// The simulation fails.
    pub fn counters(&mut self) -> Result<CounterValues, AcceleratorError> {
        (0..COUNTERS)
            .map(|index| self.read(FIRST_COUNTER + index))
            .collect::<Result<_, _>>()
            .map(CounterValues)
    }

    /// Takes the words that left on the result stream.
    pub fn take_results(&mut self) -> Vec<Word> {
        std::mem::take(&mut self.out.collected)
    }

    /// Takes the words that left on the packed streams: payload, scales, tags.
    pub fn take_packed(&mut self) -> [Vec<Word>; 3] {
        self.packed
            .each_mut()
            .map(|receiver| std::mem::take(&mut receiver.collected))
    }

    /// The results of a job from the words of the stream, token by token; what is missing stays `None`.
    pub fn arrange(&self, job: &Job<'_>, words: &[Word]) -> Vec<Option<u64>> {
        let (tokens, features) = (job.tokens, job.features());
        let mut values = words.iter().flat_map(|word| match job.sink {
            Sink::Raw => vec![word.data],
            _ => (0..4)
                .filter(|i| word.keep >> (2 * i) & 3 == 3)
                .map(|i| word.data >> (16 * i) & 0xFFFF)
                .collect(),
        });
        let mut arranged = vec![None; tokens * features];
        for (token, feature) in result_order(&self.config, tokens, features) {
            arranged[token * features + feature] = values.next();
        }
        arranged
    }
}

/// The order in which results leave: tile by tile of features, in it tile by tile of tokens, in it token by token.
pub fn result_order(
    config: &ArrayConfig,
    tokens: usize,
    features: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let (rows, cols) = (config.rows, config.cols);
    (0..features).step_by(rows).flat_map(move |n| {
        (0..tokens).step_by(cols).flat_map(move |m| {
            (m..tokens.min(m + cols))
                .flat_map(move |token| (n..features.min(n + rows)).map(move |f| (token, f)))
        })
    })
}

/// Puts some rows of a tensor on the three streams, behind so many words, bytes and bits of something else.
fn queue_tensor(
    senders: &mut [Sender; 3],
    tensor: &PackedTensor,
    rows: impl Iterator<Item = usize>,
    (words, bytes, bits): (usize, usize, usize),
) {
    const ELSE: u64 = 0xA5A5_A5A5_A5A5_A5A5;
    let blocks: Vec<_> = tensor.packed_blocks().collect();
    let mut payload = vec![ELSE; words];
    let mut scales = vec![ELSE as u8; bytes];
    let mut tags: Vec<bool> = (0..bits).map(|bit| bit % 2 == 0).collect();
    let mut any = false;
    for row in rows {
        for block in &blocks[row * tensor.row_blocks()..(row + 1) * tensor.row_blocks()] {
            any = true;
            payload.push(block.payload as u64);
            if block.tag {
                payload.push((block.payload >> 64) as u64);
            } else {
                scales.push(block.scale);
            }
            tags.push(block.tag);
        }
    }
    if !any {
        return;
    }
    let [to_payload, to_scale, to_tag] = senders;
    for pair in payload.chunks(2) {
        to_payload
            .queue
            .push_back(vec![pair[0], pair.get(1).copied().unwrap_or(ELSE)]);
    }
    if scales.len() > bytes {
        for eight in scales.chunks(8) {
            let word = eight
                .iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte));
            to_scale.queue.push_back(vec![word]);
        }
    }
    for bits in tags.chunks(64) {
        let word = bits
            .iter()
            .rev()
            .fold(0, |word, &bit| word << 1 | u64::from(bit));
        to_tag.queue.push_back(vec![word]);
    }
}

/// What the result stream must carry for an accumulator.
pub fn raw_bits(accumulator: &Accumulator) -> u64 {
    if accumulator.is_nan() {
        1 << 63
    } else {
        // Accumulators of the hardware have at most 64 bits.
        accumulator.value() as i64 as u64
    }
}

/// The words that the packed streams must carry for a tensor: payload, scales, tags.
pub fn packed_words(tensor: &PackedTensor) -> [Vec<u64>; 3] {
    let bytes_to_words = |bytes: &[u8]| -> Vec<u64> {
        bytes
            .chunks(8)
            .map(|eight| {
                eight
                    .iter()
                    .rev()
                    .fold(0, |word, &byte| word << 8 | u64::from(byte))
            })
            .collect()
    };
    [
        tensor.payload().to_vec(),
        bytes_to_words(tensor.scales()),
        bytes_to_words(tensor.tags()),
    ]
}
