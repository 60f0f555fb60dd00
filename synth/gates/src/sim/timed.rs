//! One stream with the library's delays: nets may change several times a cycle, and each change costs. The upper end of the bracket.
//!
//! Delays are inertial: a change that is taken back before it has passed its gate never happens, so a pulse shorter than the gate's delay
//! vanishes. The time between clock edges is as long as it takes to settle.

use super::zero_delay::{charged, held};
use super::{Design, Flop, LEAKAGE_STRIDE, at};
use crate::energy::Tally;
use crate::liberty::Edge;
use crate::netlist::{ONE, OPEN};

/// Enough for every pin of a cell and a flip-flop's state.
const VARIABLES: usize = 64;
/// No change is on its way.
const IDLE: u64 = u64::MAX;

/// A change on its way through a gate or a flip-flop.
#[derive(Clone, Copy, Debug)]
struct Pending {
    time: u64,
    value: bool,
    /// The input that causes it.
    cause: u8,
}

/// Who reads a net.
#[derive(Clone, Copy, Debug)]
struct Reader {
    gate: u32,
    input: u8,
}

/// Lists by net, one behind the other.
#[derive(Clone, Debug, Default)]
struct ByNet<T> {
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T: Copy> ByNet<T> {
    fn new(nets: usize, all: impl Iterator<Item = (u32, T)>) -> Self {
        let mut lists: Vec<Vec<T>> = vec![Vec::new(); nets];
        for (net, item) in all {
            lists[net as usize].push(item);
        }
        let mut starts = vec![0];
        let mut items = Vec::new();
        for list in lists {
            items.extend(list);
            starts.push(items.len() as u32);
        }
        Self { starts, items }
    }

    fn range(&self, net: u32) -> std::ops::Range<usize> {
        let net = net as usize;
        self.starts[net] as usize..self.starts[net + 1] as usize
    }
}

/// Events by ps, in a ring that is longer than the longest delay.
#[derive(Clone, Debug)]
struct Wheel {
    slots: Vec<Vec<u32>>,
    waiting: usize,
    now: u64,
}

impl Wheel {
    fn new(longest: u32) -> Self {
        let slots = (longest as usize + 2).next_power_of_two();
        Self {
            slots: vec![Vec::new(); slots],
            waiting: 0,
            now: 0,
        }
    }

    fn push(&mut self, time: u64, source: u32) {
        let slot = time as usize & (self.slots.len() - 1);
        self.slots[slot].push(source);
        self.waiting += 1;
    }

    /// Moves to the next time at which something was pushed, and takes that.
    fn next(&mut self, into: &mut Vec<u32>) -> bool {
        if self.waiting == 0 {
            return false;
        }
        let mask = self.slots.len() - 1;
        while self.slots[self.now as usize & mask].is_empty() {
            self.now += 1;
        }
        into.clear();
        into.append(&mut self.slots[self.now as usize & mask]);
        self.waiting -= into.len();
        true
    }
}

/// An event-driven simulation. All flip-flops start at 0.
#[derive(Debug)]
pub struct Timed<'d> {
    design: &'d Design<'d>,
    inputs: Vec<u32>,
    readers: ByNet<Reader>,
    pins: ByNet<u32>,
    asynchronous: ByNet<u32>,
    /// Gates first, then the outputs of flip-flops.
    pending: Vec<Pending>,
    flop_outputs: Vec<(u32, u32)>,
    first_output: Vec<u32>,
    values: Vec<bool>,
    gate_states: Vec<u8>,
    states: Vec<bool>,
    /// Which clock gates are open in this cycle.
    open: Vec<bool>,
    wheel: Wheel,
    tally: Tally,
    last_event: u64,
    settled_after: u64,
}

impl<'d> Timed<'d> {
    /// Starts with all inputs and flip-flops at 0 and all nets settled.
    #[must_use]
    pub fn new(design: &'d Design<'d>) -> Self {
        let netlist = design.netlist;
        let nets = netlist.nets.len();
        let readers = (0u32..).zip(&design.gates).flat_map(|(gate, it)| {
            (0u8..)
                .zip(&it.inputs)
                .map(move |(input, &net)| (net, Reader { gate, input }))
        });
        let pins = (0u32..)
            .zip(&design.pin_charges)
            .map(|(i, pin)| (pin.net, i));
        let asynchronous = (0u32..)
            .zip(&design.flops)
            .filter(|(_, flop)| flop.asynchronous)
            .flat_map(|(i, flop)| {
                let functions = flop.logic.clear.iter().chain(&flop.logic.preset);
                let pins = functions.flat_map(|f| f.variables());
                pins.filter_map(move |pin| flop.pins.get(usize::from(pin)).map(|&net| (net, i)))
            })
            .filter(|(net, _)| *net != OPEN);
        let delays = design.gates.iter().flat_map(|gate| gate.delays);
        let clocked = design.flops.iter().flat_map(|flop| &flop.outputs);
        let longest = delays
            .flatten()
            .flatten()
            .chain(clocked.flat_map(|output| output.delays))
            .max()
            .unwrap_or(1);
        let mut flop_outputs = Vec::new();
        let mut first_output = Vec::new();
        for (i, flop) in (0u32..).zip(&design.flops) {
            first_output.push(flop_outputs.len() as u32);
            flop_outputs.extend((0u32..).zip(&flop.outputs).map(|(o, _)| (i, o)));
        }
        let idle = Pending {
            time: IDLE,
            value: false,
            cause: 0,
        };
        let mut simulation = Self {
            inputs: netlist.input_bits(),
            readers: ByNet::new(nets, readers),
            pins: ByNet::new(nets, pins),
            asynchronous: ByNet::new(nets, asynchronous),
            pending: vec![idle; design.gates.len() + flop_outputs.len()],
            flop_outputs,
            first_output,
            values: vec![false; nets],
            gate_states: vec![0; design.gates.len()],
            states: vec![false; design.flops.len()],
            open: vec![false; design.clock_gates.len()],
            wheel: Wheel::new(longest),
            tally: Tally::new(netlist.groups.len(), nets),
            last_event: 0,
            settled_after: 0,
            design,
        };
        simulation.start();
        simulation
    }

    fn start(&mut self) {
        let design = self.design;
        self.values[ONE as usize] = true;
        let mut words = [0u64; VARIABLES];
        for flop in &design.flops {
            let pins = flop.pins.len();
            words[pins] = 0;
            words[pins + 1] = u64::MAX;
            for output in &flop.outputs {
                self.values[output.net as usize] = output.function.eval(&words) & 1 == 1;
            }
        }
        for (gate, state) in design.gates.iter().zip(&mut self.gate_states) {
            for (input, &net) in gate.inputs.iter().enumerate() {
                *state |= u8::from(self.values[net as usize]) << input;
            }
            self.values[gate.net as usize] = gate.truth >> *state & 1 == 1;
        }
        // Held at 1 from the beginning.
        for flop in 0..design.flops.len() {
            if design.flops[flop].asynchronous {
                self.hold(flop, 0);
            }
        }
        self.run();
        self.tally.clear();
        self.settled_after = 0;
    }

    /// One clock cycle of one stream: as [`ZeroDelay::cycle`](super::ZeroDelay::cycle), with bit `stream` of each word.
    pub fn cycle(&mut self, inputs: &[u64], stream: u32) {
        let design = self.design;
        let start = self.wheel.now;
        for (open, gate) in self.open.iter_mut().zip(&design.clock_gates) {
            *open = self.values[gate.enable as usize];
        }
        let mut words = [0u64; VARIABLES];
        for (index, flop) in design.flops.iter().enumerate() {
            if flop.gate.is_some_and(|gate| !self.open[gate as usize]) {
                continue;
            }
            self.gather(&mut words, flop, index);
            words[usize::from(flop.logic.clock)] = u64::MAX;
            self.tally.groups[flop.group as usize].clock += charged(&flop.clock, &words, 1, 0);
            let next = held(flop, &words, flop.logic.next.eval(&words)) & 1 == 1;
            if next != self.states[index] {
                self.states[index] = next;
                self.launch(index, start, flop.logic.clock);
            }
        }
        for (index, word) in inputs.iter().enumerate().take(self.inputs.len()) {
            let value = word >> stream & 1 == 1;
            let net = self.inputs[index];
            if self.values[net as usize] != value {
                self.change(net, value, start);
            }
        }
        self.run();
        self.settled_after = self
            .settled_after
            .max(self.last_event.saturating_sub(start));
        self.wheel.now += 1;
        self.rest();
        self.tally.cycles += 1;
    }

    /// The value of a net.
    #[must_use]
    pub fn value(&self, net: u32) -> bool {
        self.values.get(net as usize).copied().unwrap_or(false)
    }

    /// An output port, its lowest 128 bits.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<u128> {
        let port = self.design.netlist.output(name)?;
        let bits = port.bits.iter().take(128).enumerate();
        Some(bits.fold(0, |sum, (bit, &net)| {
            sum | u128::from(self.value(net)) << bit
        }))
    }

    /// What was counted since the start or the last [`Timed::clear`].
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// ns that the slowest cycle since the start took to settle.
    #[must_use]
    pub fn settled_after_ns(&self) -> f64 {
        self.settled_after as f64 * 1e-3
    }

    /// Counts from zero; states stay.
    pub fn clear(&mut self) {
        self.tally.clear();
    }

    fn gather(&self, words: &mut [u64; VARIABLES], flop: &Flop, index: usize) {
        for (word, &net) in words.iter_mut().zip(&flop.pins) {
            *word = if net == OPEN {
                0
            } else {
                word_of(self.values[net as usize])
            };
        }
        let pins = flop.pins.len();
        words[pins] = word_of(self.states[index]);
        words[pins + 1] = !words[pins];
    }

    /// Sends a flip-flop's new state to its outputs.
    fn launch(&mut self, index: usize, time: u64, cause: u8) {
        let design = self.design;
        let flop = &design.flops[index];
        let mut words = [0u64; VARIABLES];
        let pins = flop.pins.len();
        words[pins] = word_of(self.states[index]);
        words[pins + 1] = !words[pins];
        for (number, output) in flop.outputs.iter().enumerate() {
            let value = output.function.eval(&words) & 1 == 1;
            let source = design.gates.len() + self.first_output[index] as usize + number;
            let delay = output.delays[at(Edge::to(value))];
            self.schedule(source, output.net, value, time, delay, cause);
        }
    }

    fn schedule(&mut self, source: usize, net: u32, value: bool, time: u64, delay: u32, cause: u8) {
        let pending = &mut self.pending[source];
        if pending.time != IDLE {
            if pending.value != value {
                // Taken back before it was through.
                pending.time = IDLE;
            }
            return;
        }
        if self.values[net as usize] != value {
            let time = time + u64::from(delay);
            *pending = Pending { time, value, cause };
            self.wheel.push(time, source as u32);
        }
    }

    /// Set and reset pins take effect at once.
    fn hold(&mut self, index: usize, time: u64) {
        let flop = &self.design.flops[index];
        let mut words = [0u64; VARIABLES];
        self.gather(&mut words, flop, index);
        let state = held(flop, &words, word_of(self.states[index])) & 1 == 1;
        if state != self.states[index] {
            self.states[index] = state;
            self.launch(index, time, flop.logic.clock);
        }
    }

    fn run(&mut self) {
        let design = self.design;
        let gates = design.gates.len();
        let mut sources = Vec::new();
        while self.wheel.next(&mut sources) {
            let now = self.wheel.now;
            for &source in &sources {
                let source = source as usize;
                let Pending { time, value, cause } = self.pending[source];
                if time != now {
                    continue;
                }
                self.pending[source].time = IDLE;
                let (net, group, energy) = if source < gates {
                    let gate = &design.gates[source];
                    let state = self.gate_states[source];
                    let charges = &gate.causes[usize::from(cause)];
                    let mut energy = 0.0;
                    let mut conditional = false;
                    for charge in charges {
                        if charge.when.is_some() {
                            if charge.states >> state & 1 == 0 {
                                continue;
                            }
                            conditional = true;
                        } else if conditional {
                            break;
                        }
                        energy += if value { charge.rise } else { charge.fall };
                    }
                    (gate.net, gate.group, energy)
                } else {
                    let (index, number) = self.flop_outputs[source - gates];
                    let flop = &design.flops[index as usize];
                    let output = &flop.outputs[number as usize];
                    let mut words = [0u64; VARIABLES];
                    self.gather(&mut words, flop, index as usize);
                    words[usize::from(flop.logic.clock)] = u64::MAX;
                    words[usize::from(output.pin)] = word_of(value);
                    let (rise, fall) = (u64::from(value), u64::from(!value));
                    let energy = charged(&output.charges, &words, rise, fall);
                    (output.net, flop.group, energy)
                };
                self.tally.groups[group as usize].internal += energy;
                self.last_event = now;
                self.change(net, value, now);
            }
        }
    }

    /// Gives a net a value and tells its readers.
    fn change(&mut self, net: u32, value: bool, now: u64) {
        let design = self.design;
        self.values[net as usize] = value;
        self.tally.toggles[net as usize] += 1;
        let group = design.net_group[net as usize] as usize;
        self.tally.groups[group].switching += design.switching[net as usize];
        for at_pin in self.pins.range(net) {
            let pin = &design.pin_charges[self.pins.items[at_pin] as usize];
            let mut words = [0u64; VARIABLES];
            if pin
                .charges
                .first()
                .is_some_and(|charge| charge.when.is_some())
            {
                for (word, &net) in words.iter_mut().zip(&pin.variables) {
                    *word = if net == OPEN {
                        0
                    } else {
                        word_of(self.values[net as usize])
                    };
                }
            }
            let (rise, fall) = (u64::from(value), u64::from(!value));
            self.tally.groups[pin.group as usize].internal +=
                charged(&pin.charges, &words, rise, fall);
        }
        for at_reader in self.readers.range(net) {
            let Reader { gate, input } = self.readers.items[at_reader];
            let it = &design.gates[gate as usize];
            let state = &mut self.gate_states[gate as usize];
            *state = *state & !(1 << input) | u8::from(value) << input;
            let output = it.truth >> *state & 1 == 1;
            let delay = it.delays[usize::from(input)][at(Edge::to(value))][at(Edge::to(output))];
            self.schedule(gate as usize, it.net, output, now, delay, input);
        }
        for at_flop in self.asynchronous.range(net) {
            self.hold(self.asynchronous.items[at_flop] as usize, now);
        }
    }

    /// What is charged once all has settled: the clock's falling edge, its net, leakage.
    fn rest(&mut self) {
        let design = self.design;
        let mut words = [0u64; VARIABLES];
        for (index, flop) in design.flops.iter().enumerate() {
            if flop.gate.is_some_and(|gate| !self.open[gate as usize]) {
                continue;
            }
            self.gather(&mut words, flop, index);
            words[usize::from(flop.logic.clock)] = 0;
            self.tally.groups[flop.group as usize].clock += charged(&flop.clock, &words, 0, 1);
        }
        let outside = &mut self.tally.groups[design.netlist.groups.len()].clock;
        for (&open, gate) in self.open.iter().zip(&design.clock_gates) {
            *outside += gate.own + if open { 2.0 * gate.switching } else { 0.0 };
        }
        if let Some(clock) = design.netlist.clock {
            self.tally.groups[design.netlist.groups.len()].clock +=
                2.0 * design.switching[clock as usize];
        }
        for (group, leakage) in self.tally.groups.iter_mut().zip(&design.constant_leakage) {
            group.leakage += leakage;
        }
        if self.tally.cycles.is_multiple_of(LEAKAGE_STRIDE) {
            for cell in &design.state_leakage {
                for (word, &net) in words.iter_mut().zip(&cell.variables) {
                    *word = if net == OPEN {
                        0
                    } else {
                        word_of(self.values[net as usize])
                    };
                }
                let states = cell.states.iter();
                let leakage = states
                    .filter(|(when, _)| when.eval(&words) & 1 == 1)
                    .map(|(_, leakage)| *leakage)
                    .next()
                    .unwrap_or(cell.other);
                self.tally.groups[cell.group as usize].leakage += leakage * LEAKAGE_STRIDE as f64;
            }
        }
    }
}

const fn word_of(value: bool) -> u64 {
    if value { u64::MAX } else { 0 }
}
