//! A serial line (8N1) at the pins of a compiled model, with faults on the wire in both directions.
//!
//! A [`SerialModel`] sends bytes bit by bit into a model's `rx`, samples its `tx`, and counts cycles. The line's own bit can be a
//! little longer or shorter than the device's ([`BitLength`]). [`Faults`] say what happens to which byte: they act on the levels
//! of the wire, so the receiver at its end sees what a real one would.

use std::collections::VecDeque;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::design::{Direction, PortError, PortId, PortLookup};
use crate::ffi::{Frame, SerialCall, SerialLine, SerialStop};
use crate::simulator::{SimError, Simulator as _};
use crate::verilator::VerilatorSim;

/// Levels of a byte on the wire: start bit, eight data bits (least significant first), stop bit.
const FRAME_BITS: u8 = 10;

/// The most frames that one call of the C++ side receives.
const FRAMES_A_CALL: usize = 1024;

/// The pins of a model that its serial line needs; each is one bit wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SerialPorts {
    /// The one clock, all of whose logic works at its rising edge.
    pub clock: PortId,
    /// Serial data into the device; idle high.
    pub rx: PortId,
    /// Serial data from the device; idle high.
    pub tx: PortId,
    /// A reset, where the design has one.
    pub reset: Option<ResetPort>,
    /// High while the device works although its line is quiet, where the design tells.
    pub busy: Option<PortId>,
}

/// A reset pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetPort {
    /// The pin.
    pub port: PortId,
    /// Whether the device is in reset while the pin is low.
    pub active_low: bool,
}

impl SerialPorts {
    /// The ports called `clock`, `rx` and `tx`, and, where they are there, `reset` (active high) and `busy`.
    ///
    /// # Errors
    /// [`PortError`] when one is missing, points the other way or is wider than one bit.
    pub fn of(design: &(impl PortLookup + ?Sized)) -> Result<Self, PortError> {
        let optional = |name: &str, direction| {
            design
                .find_port(name)
                .map(|_| design.port(name, direction, Some(1)))
                .transpose()
        };
        Ok(Self {
            clock: design.port("clock", Direction::Input, Some(1))?,
            rx: design.port("rx", Direction::Input, Some(1))?,
            tx: design.port("tx", Direction::Output, Some(1))?,
            reset: optional("reset", Direction::Input)?.map(|port| ResetPort {
                port,
                active_low: false,
            }),
            busy: optional("busy", Direction::Output)?,
        })
    }
}

/// How long a bit lasts on the line, in clock cycles of the device. It need not be a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitLength(u64);

impl BitLength {
    /// `clocks` cycles, lengthened by `ppm` millionths (negative: shortened).
    ///
    /// # Errors
    /// [`FaultError::BitLength`] when it is below 4 or above 2²⁰ cycles.
    pub fn new(clocks: usize, ppm: i32) -> Result<Self, FaultError> {
        let refused = FaultError::BitLength { clocks, ppm };
        if clocks > 1 << 20 {
            return Err(refused);
        }
        let factor = i128::from(ppm) + 1_000_000;
        let units = ((clocks as i128) << 32) * factor / 1_000_000;
        if (4 << 32..=1 << 52).contains(&units) {
            Ok(Self(units as u64))
        } else {
            Err(refused)
        }
    }

    /// In cycles.
    pub fn cycles(self) -> f64 {
        self.0 as f64 / f64::from(1 << 16) / f64::from(1 << 16)
    }
}

/// Why a line or its faults can't be.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum FaultError {
    /// A bit is too short or too long.
    #[error("a bit of {clocks} clocks, changed by {ppm} ppm, isn't between 4 and 2^20 clocks")]
    BitLength {
        /// The nominal length.
        clocks: usize,
        /// The change in millionths.
        ppm: i32,
    },
    /// A rate isn't a probability.
    #[error("the rate of {fault} is {rate}; it must be between 0 and 1")]
    Rate {
        /// Which fault.
        fault: &'static str,
        /// The rate given.
        rate: f64,
    },
}

/// Something that goes wrong on the wire at one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// These bits of the byte's ten on the wire are inverted: bit 0 of the mask is the start bit, 1 to 8 are the data bits,
    /// 9 is the stop bit.
    Flip(u16),
    /// The byte doesn't appear on the wire.
    Drop,
    /// The byte comes twice.
    Duplicate,
    /// Another byte comes before it.
    Spurious(u8),
    /// The line is low for so many cycles before it, then idle for one bit.
    Glitch(u16),
    /// The line is low for so many bits before it, then idle for one bit.
    Break(u8),
}

/// A fault and the byte that it befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The byte's place in the stream of its direction, from 0, as its sender sends them.
    pub at: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// How often each fault happens: probabilities by byte.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FaultRates {
    /// One to three data bits are inverted.
    pub flip: f64,
    /// The start or the stop bit is inverted.
    pub framing: f64,
    /// The byte is lost.
    pub drop: f64,
    /// The byte comes twice.
    pub duplicate: f64,
    /// A random byte comes before it.
    pub spurious: f64,
    /// 2 to 16 random bytes come before it.
    pub burst: f64,
    /// A low pulse of up to half a bit comes before it.
    pub glitch: f64,
    /// The line is low for 11 to 30 bits before it.
    pub line_break: f64,
}

impl FaultRates {
    /// No faults.
    pub const CLEAN: Self = Self {
        flip: 0.0,
        framing: 0.0,
        drop: 0.0,
        duplicate: 0.0,
        spurious: 0.0,
        burst: 0.0,
        glitch: 0.0,
        line_break: 0.0,
    };

    fn check(&self) -> Result<(), FaultError> {
        for (fault, rate) in [
            ("bit flips", self.flip),
            ("framing flips", self.framing),
            ("drops", self.drop),
            ("duplicates", self.duplicate),
            ("spurious bytes", self.spurious),
            ("bursts", self.burst),
            ("glitches", self.glitch),
            ("breaks", self.line_break),
        ] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(FaultError::Rate { fault, rate });
            }
        }
        Ok(())
    }
}

/// The faults of one direction of a line.
#[derive(Debug, Clone)]
pub struct Faults(Source);

#[derive(Debug, Clone)]
enum Source {
    Listed(VecDeque<Fault>),
    Random {
        rates: FaultRates,
        generator: Box<ChaCha8Rng>,
    },
}

impl Faults {
    /// A clean line.
    pub fn none() -> Self {
        Self(Source::Listed(VecDeque::new()))
    }

    /// These faults, in any order; several at one byte happen in the order given.
    pub fn listed(faults: impl IntoIterator<Item = Fault>) -> Self {
        let mut faults: Vec<Fault> = faults.into_iter().collect();
        faults.sort_by_key(|fault| fault.at);
        Self(Source::Listed(faults.into()))
    }

    /// Faults drawn from `seed`. The n-th byte always meets the same ones.
    ///
    /// # Errors
    /// [`FaultError::Rate`] when a rate isn't a probability.
    pub fn random(seed: u64, rates: FaultRates) -> Result<Self, FaultError> {
        rates.check()?;
        if rates == FaultRates::CLEAN {
            return Ok(Self::none());
        }
        let generator = Box::new(ChaCha8Rng::seed_from_u64(seed));
        Ok(Self(Source::Random { rates, generator }))
    }

    /// What happens to byte `index`. To be asked for every byte once, in order. `bit` is the length of a bit.
    fn at(&mut self, index: u64, bit: BitLength) -> Vec<FaultKind> {
        let mut found = Vec::new();
        match &mut self.0 {
            Source::Listed(faults) => {
                while let Some(fault) = faults.front().filter(|fault| fault.at <= index) {
                    if fault.at == index {
                        found.push(fault.kind);
                    }
                    faults.pop_front();
                }
            }
            Source::Random { rates, generator } => {
                let mut happens = |rate: f64| rate > 0.0 && generator.random_bool(rate);
                let [
                    flip,
                    framing,
                    drop,
                    duplicate,
                    spurious,
                    burst,
                    glitch,
                    line_break,
                ] = [
                    rates.flip,
                    rates.framing,
                    rates.drop,
                    rates.duplicate,
                    rates.spurious,
                    rates.burst,
                    rates.glitch,
                    rates.line_break,
                ]
                .map(&mut happens);
                if spurious {
                    found.push(FaultKind::Spurious(generator.random()));
                }
                if burst {
                    for _ in 0..generator.random_range(2..=16) {
                        found.push(FaultKind::Spurious(generator.random()));
                    }
                }
                if glitch {
                    let half = ((bit.0 >> 33) as u16).max(1);
                    found.push(FaultKind::Glitch(generator.random_range(1..=half)));
                }
                if line_break {
                    found.push(FaultKind::Break(generator.random_range(11..=30)));
                }
                if flip {
                    let mut mask = 0;
                    for _ in 0..generator.random_range(1..=3) {
                        mask |= 2 << generator.random_range(0..8);
                    }
                    found.push(FaultKind::Flip(mask));
                }
                if framing {
                    let mask = if generator.random() { 1 } else { 1 << 9 };
                    found.push(FaultKind::Flip(mask));
                }
                if drop {
                    found.push(FaultKind::Drop);
                } else if duplicate {
                    found.push(FaultKind::Duplicate);
                }
            }
        }
        found
    }
}

/// What happened on one direction of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineCounts {
    /// Bytes that the sender sent.
    pub sent: u64,
    /// Bytes that arrived at the device's pin or, in the other direction, at the host. The device may refuse some.
    pub arrived: u64,
    /// Bytes with inverted bits.
    pub flipped: u64,
    /// Bytes lost.
    pub dropped: u64,
    /// Bytes that came twice.
    pub duplicated: u64,
    /// Bytes that nobody sent.
    pub spurious: u64,
    /// Short low pulses.
    pub glitches: u64,
    /// Breaks.
    pub breaks: u64,
    /// Bytes that the host received with a low stop bit; it hands them on, as operating systems do. Not known for the other
    /// direction.
    pub framing_errors: u64,
}

impl LineCounts {
    /// Bytes and pulses that weren't as sent.
    pub fn faults(&self) -> u64 {
        self.flipped + self.dropped + self.duplicated + self.spurious + self.glitches + self.breaks
    }
}

/// A piece of the wire's signal: up to 32 levels of the same duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Symbol {
    /// First level in bit 0.
    levels: u32,
    count: u8,
    /// Cycles that each level lasts; 0 for the length of a bit.
    unit: u16,
}

impl Symbol {
    const fn frame(levels: u16) -> Self {
        Self {
            levels: levels as u32,
            count: FRAME_BITS,
            unit: 0,
        }
    }

    /// As the C++ side takes it.
    const fn packed(self) -> u64 {
        self.levels as u64 | (self.count as u64) << 32 | (self.unit as u64) << 40
    }
}

fn frame_of(byte: u8) -> u16 {
    u16::from(byte) << 1 | 1 << 9
}

/// One direction's faults at work.
struct Wire {
    faults: Faults,
    bit: BitLength,
    counts: LineCounts,
}

impl Wire {
    fn new(bit: BitLength) -> Self {
        Self {
            faults: Faults::none(),
            bit,
            counts: LineCounts::default(),
        }
    }

    /// Appends what the wire carries for the next ten levels that the sender sends.
    fn carry(&mut self, mut levels: u16, out: &mut Vec<Symbol>) {
        let faults = self.faults.at(self.counts.sent, self.bit);
        self.counts.sent += 1;
        let clean = levels;
        let mut copies = 1;
        for fault in faults {
            match fault {
                FaultKind::Flip(mask) => levels ^= mask & 0x3ff,
                FaultKind::Drop => copies = 0,
                FaultKind::Duplicate => copies = 2,
                FaultKind::Spurious(byte) => {
                    self.counts.spurious += 1;
                    out.push(Symbol::frame(frame_of(byte)));
                }
                FaultKind::Glitch(cycles) => {
                    self.counts.glitches += 1;
                    for (levels, unit) in [(0, cycles.max(1)), (1, 0)] {
                        out.push(Symbol {
                            levels,
                            count: 1,
                            unit,
                        });
                    }
                }
                FaultKind::Break(bits) => {
                    self.counts.breaks += 1;
                    let mut left = bits;
                    while left > 0 {
                        // Shorter than a frame, so that only bytes have a frame's length.
                        let count = left.min(8);
                        out.push(Symbol {
                            levels: 0,
                            count,
                            unit: 0,
                        });
                        left -= count;
                    }
                    out.push(Symbol {
                        levels: 1,
                        count: 1,
                        unit: 0,
                    });
                }
            }
        }
        match copies {
            0 => self.counts.dropped += 1,
            2 => self.counts.duplicated += 1,
            _ => {}
        }
        if levels != clean && copies > 0 {
            self.counts.flipped += 1;
        }
        for _ in 0..copies {
            out.push(Symbol::frame(levels));
        }
    }
}

/// The host's receiver behind the faulty wire. Times are cycles in units of 2⁻³².
#[derive(Debug, Default)]
struct Receiver {
    now: u128,
    state: Receiving,
}

#[derive(Debug, Default, Clone, Copy)]
enum Receiving {
    #[default]
    Idle,
    Bits {
        sample_at: u128,
        count: u8,
        levels: u16,
    },
    /// After a low stop bit, until the line is high again.
    Broken,
}

impl Receiver {
    /// The wire has this level for the next `duration`.
    fn hold(&mut self, level: bool, duration: u128, bit: u128, received: &mut Vec<u16>) {
        let end = self.now + duration;
        loop {
            match self.state {
                Receiving::Idle if !level => {
                    self.state = Receiving::Bits {
                        sample_at: self.now + bit / 2,
                        count: 0,
                        levels: 0,
                    };
                }
                Receiving::Broken if level => self.state = Receiving::Idle,
                Receiving::Bits {
                    sample_at,
                    count,
                    mut levels,
                } if sample_at < end => {
                    levels |= u16::from(level) << count;
                    self.state = if count == 0 && level {
                        Receiving::Idle
                    } else if count + 1 < FRAME_BITS {
                        Receiving::Bits {
                            sample_at: sample_at + bit,
                            count: count + 1,
                            levels,
                        }
                    } else {
                        received.push(levels);
                        if level {
                            Receiving::Idle
                        } else {
                            Receiving::Broken
                        }
                    };
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn hear(&mut self, symbol: Symbol, bit: u128, received: &mut Vec<u16>) {
        let duration = match symbol.unit {
            0 => bit,
            cycles => u128::from(cycles) << 32,
        };
        for place in 0..symbol.count {
            self.hold(symbol.levels >> place & 1 == 1, duration, bit, received);
        }
    }

    fn idle_until(&mut self, cycle: u64, bit: u128, received: &mut Vec<u16>) {
        let end = u128::from(cycle) << 32;
        if end > self.now {
            self.hold(true, end - self.now, bit, received);
        }
    }
}

/// When [`SerialModel::run`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// After so many clock cycles.
    pub max_cycles: u64,
    /// When the line and the device have been quiet for so many cycles.
    pub quiet_cycles: Option<u64>,
    /// When so many bytes have arrived in this call.
    pub bytes: Option<usize>,
    /// When everything has been sent.
    pub when_sent: bool,
}

impl Limits {
    /// Exactly so many cycles.
    pub const fn cycles(max_cycles: u64) -> Self {
        Self {
            max_cycles,
            quiet_cycles: None,
            bytes: None,
            when_sent: false,
        }
    }
}

/// Why [`SerialModel::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The cycles are used up.
    Cycles,
    /// The bytes asked for are there.
    Bytes,
    /// The line and the device have been quiet for long enough.
    Quiet,
    /// Everything has been sent.
    Sent,
}

/// What a call of [`SerialModel::run`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Clock cycles simulated.
    pub cycles: u64,
    /// Bytes that arrived.
    pub bytes: usize,
    /// Why it returned.
    pub stop: Stop,
}

/// A compiled model with a serial line at its pins.
pub struct SerialModel {
    sim: VerilatorSim,
    ports: SerialPorts,
    bit: BitLength,
    both_edges: bool,
    line: SerialLine,
    to_device: Wire,
    from_device: Wire,
    receiver: Receiver,
    /// Symbols on their way to the device, as the C++ side takes them.
    queue: VecDeque<u64>,
}

impl SerialModel {
    /// A line that is idle, around a fresh model. Where the design works at rising edges only, the falling ones aren't
    /// simulated; see [`SerialModel::both_edges`].
    ///
    /// # Errors
    /// [`SimError::Fatal`] when the design doesn't settle; the ports are checked in [`SerialModel::run`].
    pub fn new(
        mut sim: VerilatorSim,
        ports: SerialPorts,
        bit: BitLength,
    ) -> Result<Self, SimError> {
        sim.poke(ports.clock, &[0]);
        sim.poke(ports.rx, &[1]);
        if let Some(reset) = ports.reset {
            sim.poke(reset.port, &[u64::from(reset.active_low)]);
        }
        sim.eval()?;
        Ok(Self {
            sim,
            ports,
            bit,
            both_edges: false,
            line: SerialLine::default(),
            to_device: Wire::new(bit),
            from_device: Wire::new(bit),
            receiver: Receiver::default(),
            queue: VecDeque::new(),
        })
    }

    /// Simulates the falling edges of the clock as well. Needed for a design that uses its clock as data; such a thing as a
    /// second clock, a latch of its own event or the word `negedge` is seen and needs no call of this.
    #[must_use]
    pub const fn both_edges(mut self) -> Self {
        self.both_edges = true;
        self
    }

    /// Faults of the two directions: from the host to the device, and back. They count bytes from the next one on as `at = `
    /// the number sent so far, so they are best given before the first.
    #[must_use]
    pub fn with_faults(mut self, to_device: Faults, from_device: Faults) -> Self {
        self.to_device.faults = to_device;
        self.from_device.faults = from_device;
        self
    }

    /// Queues `input` for the device and runs clock cycles until one of the limits is reached; appends to `output` what the
    /// host receives.
    ///
    /// # Errors
    /// [`SimError::InvalidJob`] when a port isn't one bit wide or points the other way; [`SimError::Fatal`].
    pub fn run(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<Progress, SimError> {
        let mut symbols = Vec::new();
        for byte in input {
            self.to_device.carry(frame_of(*byte), &mut symbols);
        }
        for symbol in symbols {
            self.to_device.counts.arrived += u64::from(symbol.count == FRAME_BITS);
            self.queue.push_back(symbol.packed());
        }

        let (start, before) = (self.line.cycle(), output.len());
        let progress = |cycle: u64, output: &Vec<u8>, stop| Progress {
            cycles: cycle - start,
            bytes: output.len() - before,
            stop,
        };
        if limits.when_sent && self.queue.is_empty() && !self.line.is_sending() {
            return Ok(progress(start, output, Stop::Sent));
        }
        let mut frames = Vec::new();
        loop {
            let wanted = limits
                .bytes
                .map(|bytes| bytes.saturating_sub(output.len() - before));
            if wanted == Some(0) {
                return Ok(progress(self.line.cycle(), output, Stop::Bytes));
            }
            let call = SerialCall {
                clock: self.ports.clock,
                rx: self.ports.rx,
                tx: self.ports.tx,
                busy: self.ports.busy,
                both_edges: self.both_edges,
                stop_when_sent: limits.when_sent,
                bit: self.bit.0,
                symbols: self.queue.make_contiguous(),
                frames: wanted.map_or(FRAMES_A_CALL, |bytes| bytes.min(FRAMES_A_CALL)),
                max_cycles: limits.max_cycles - (self.line.cycle() - start),
                quiet_cycles: limits.quiet_cycles.map_or(0, |cycles| cycles.max(1)),
            };
            let (stop, used) = self.sim.serial_run(&mut self.line, &call, &mut frames)?;
            self.queue.drain(..used);
            self.receive(&frames, output);
            frames.clear();
            let stop = match stop {
                SerialStop::Frames => continue,
                SerialStop::Cycles => Stop::Cycles,
                SerialStop::Quiet => Stop::Quiet,
                SerialStop::Sent => Stop::Sent,
            };
            return Ok(progress(self.line.cycle(), output, stop));
        }
    }

    /// Leads what the device sent over the faulty wire to the host's receiver.
    fn receive(&mut self, frames: &[Frame], output: &mut Vec<u8>) {
        let bit = u128::from(self.bit.0);
        let mut symbols = Vec::new();
        let mut received = Vec::new();
        for frame in frames {
            self.receiver.idle_until(frame.start, bit, &mut received);
            symbols.clear();
            self.from_device.carry(frame.levels as u16, &mut symbols);
            for symbol in &symbols {
                self.receiver.hear(*symbol, bit, &mut received);
            }
        }
        self.receiver
            .idle_until(self.line.known_until(), bit, &mut received);
        for levels in received {
            self.from_device.counts.arrived += 1;
            self.from_device.counts.framing_errors += u64::from(levels >> 9 & 1 == 0);
            output.push((levels >> 1) as u8);
        }
    }

    /// Presses (or lets go) the reset, from the next cycle on; says whether the design has one.
    pub fn hold_reset(&mut self, pressed: bool) -> bool {
        let Some(reset) = self.ports.reset else {
            return false;
        };
        self.sim
            .poke(reset.port, &[u64::from(pressed != reset.active_low)]);
        true
    }

    /// Presses the reset for 16 cycles; says whether the design has one. What arrives meanwhile is appended to `output`.
    ///
    /// # Errors
    /// As [`SerialModel::run`].
    pub fn reset(&mut self, output: &mut Vec<u8>) -> Result<bool, SimError> {
        if !self.hold_reset(true) {
            return Ok(false);
        }
        self.run(&[], output, &Limits::cycles(16))?;
        self.hold_reset(false);
        Ok(true)
    }

    /// Puts a fresh model (as after power-up) behind the same line, whose counters go on. Bytes on their way are lost.
    ///
    /// # Errors
    /// As [`SerialModel::new`].
    pub fn replace(&mut self, sim: VerilatorSim) -> Result<(), SimError> {
        let fresh = Self::new(sim, self.ports, self.bit)?;
        self.cut();
        self.sim = fresh.sim;
        Ok(())
    }

    /// Forgets what is on its way to the device, as when the cable is pulled: the line is idle from now on. Returns how many
    /// bytes had not begun.
    pub fn cut(&mut self) -> u64 {
        let lost = self
            .queue
            .iter()
            .filter(|symbol| **symbol >> 32 & 0xff == u64::from(FRAME_BITS))
            .count() as u64;
        self.to_device.counts.arrived -= lost;
        self.queue.clear();
        self.line.cut();
        lost
    }

    /// Clock cycles simulated since the line was made.
    pub fn cycles(&self) -> u64 {
        self.line.cycle()
    }

    /// Whether the device says that it works; always false for a design without such a port.
    pub fn is_busy(&self) -> bool {
        let mut word = [0];
        if let Some(busy) = self.ports.busy {
            self.sim.peek(busy, &mut word);
        }
        word[0] & 1 == 1
    }

    /// Whether bytes are on their way to the device.
    pub fn is_sending(&self) -> bool {
        !self.queue.is_empty() || self.line.is_sending()
    }

    /// What happened on the way to the device.
    pub fn to_device(&self) -> LineCounts {
        self.to_device.counts
    }

    /// What happened on the way from the device.
    pub fn from_device(&self) -> LineCounts {
        self.from_device.counts
    }

    /// Low pulses of the device's output that were too short for a start bit.
    pub fn false_starts(&self) -> u64 {
        self.line.false_starts()
    }
}
