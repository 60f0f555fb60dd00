//! 64 streams at a time, without delays: a net changes at most once a cycle, so there are no glitches. The lower end of the bracket.

use super::{Charge, Design, LEAKAGE_STRIDE};
use crate::energy::Tally;
use crate::liberty::MAX_INPUTS;
use crate::netlist::{ONE, OPEN};

/// Streams that run side by side.
pub const STREAMS: u64 = 64;
/// Enough for every pin of a cell and a flip-flop's state.
const VARIABLES: usize = 64;
/// Settling rounds for flip-flops that set or reset one another.
const ROUNDS: usize = 8;

/// A zero-delay simulation. All flip-flops start at 0.
#[derive(Debug)]
pub struct ZeroDelay<'d> {
    design: &'d Design<'d>,
    inputs: Vec<u32>,
    values: Vec<u64>,
    before: Vec<u64>,
    states: Vec<u64>,
    /// Which clock gates are open in this cycle, a bit for each stream.
    open: Vec<u64>,
    tally: Tally,
}

impl<'d> ZeroDelay<'d> {
    /// Starts with all inputs and flip-flops at 0.
    #[must_use]
    pub fn new(design: &'d Design<'d>) -> Self {
        let nets = design.netlist.nets.len();
        let mut values = vec![0; nets];
        values[ONE as usize] = u64::MAX;
        let mut simulation = Self {
            design,
            inputs: design.netlist.input_bits(),
            before: values.clone(),
            values,
            states: vec![0; design.flops.len()],
            open: vec![0; design.clock_gates.len()],
            tally: Tally::new(design.netlist.groups.len(), nets),
        };
        simulation.settle();
        simulation.before.clone_from(&simulation.values);
        simulation
    }

    /// One clock cycle: flip-flops take what they see, then inputs become `inputs`, a word for each of
    /// [`Netlist::input_bits`](crate::netlist::Netlist::input_bits) with a bit for each stream, and everything settles. Inputs
    /// that the slice lacks keep their values.
    pub fn cycle(&mut self, inputs: &[u64]) {
        let design = self.design;
        self.before.clone_from(&self.values);
        for (open, gate) in self.open.iter_mut().zip(&design.clock_gates) {
            *open = self.values[gate.enable as usize];
        }
        let mut words = [0u64; VARIABLES];
        for (flop, state) in design.flops.iter().zip(&mut self.states) {
            let clocked = flop.gate.map_or(u64::MAX, |gate| self.open[gate as usize]);
            gather(&mut words, &flop.pins, &self.values);
            let pins = flop.pins.len();
            words[pins] = *state;
            words[pins + 1] = !*state;
            words[usize::from(flop.logic.clock)] = u64::MAX;
            let energy = charged(&flop.clock, &words, clocked, 0);
            self.tally.groups[flop.group as usize].clock += energy;
            let next = flop.logic.next.eval(&words) & clocked | *state & !clocked;
            *state = held(flop, &words, next);
        }
        for (&net, &word) in self.inputs.iter().zip(inputs) {
            self.values[net as usize] = word;
        }
        self.settle();
        self.charge();
        self.tally.cycles += STREAMS;
    }

    /// The value of a net, a bit for each stream.
    #[must_use]
    pub fn value(&self, net: u32) -> u64 {
        self.values.get(net as usize).copied().unwrap_or(0)
    }

    /// An output port in one stream, its lowest 128 bits.
    #[must_use]
    pub fn output(&self, name: &str, stream: u32) -> Option<u128> {
        let port = self.design.netlist.output(name)?;
        let bits = port.bits.iter().take(128).enumerate();
        Some(bits.fold(0, |sum, (bit, &net)| {
            sum | u128::from(self.value(net) >> stream & 1) << bit
        }))
    }

    /// What was counted since the start or the last [`ZeroDelay::clear`].
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts from zero; states stay.
    pub fn clear(&mut self) {
        self.tally.clear();
    }

    fn settle(&mut self) {
        let design = self.design;
        let mut words = [0u64; VARIABLES];
        for _ in 0..ROUNDS {
            for (flop, &state) in design.flops.iter().zip(&self.states) {
                let pins = flop.pins.len();
                words[pins] = state;
                words[pins + 1] = !state;
                for output in &flop.outputs {
                    self.values[output.net as usize] = output.function.eval(&words);
                }
            }
            for gate in &design.gates {
                let mut words = [0u64; MAX_INPUTS];
                for (word, &net) in words.iter_mut().zip(&gate.inputs) {
                    *word = self.values[net as usize];
                }
                self.values[gate.net as usize] = gate.function.eval(&words);
            }
            let mut moved = false;
            for (flop, state) in design.flops.iter().zip(&mut self.states) {
                if flop.asynchronous {
                    gather(&mut words, &flop.pins, &self.values);
                    let now = held(flop, &words, *state);
                    moved |= now != *state;
                    *state = now;
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn charge(&mut self) {
        let design = self.design;
        let groups = &mut self.tally.groups;
        let nets = self.values.iter().zip(&self.before).enumerate();
        for (net, (now, before)) in nets {
            let changes = u64::from((now ^ before).count_ones());
            if changes > 0 {
                self.tally.toggles[net] += changes;
                groups[design.net_group[net] as usize].switching +=
                    changes as f64 * design.switching[net];
            }
        }
        for gate in &design.gates {
            let (now, before) = (
                self.values[gate.net as usize],
                self.before[gate.net as usize],
            );
            let changed = now ^ before;
            if changed == 0 || gate.latest.is_empty() {
                continue;
            }
            let mut words = [0u64; MAX_INPUTS];
            let mut moved = [0u64; MAX_INPUTS];
            for ((word, moved), &net) in words.iter_mut().zip(&mut moved).zip(&gate.inputs) {
                *word = self.values[net as usize];
                *moved = *word ^ self.before[net as usize];
            }
            // The input that arrives last and could have caused the change is its cause; if none could alone, the last that moved.
            let mut left = changed;
            let mut energy = 0.0;
            for alone in [true, false] {
                for &input in &gate.latest {
                    let mut mine = left & moved[usize::from(input)];
                    if mine != 0 && alone {
                        let mut without = words;
                        without[usize::from(input)] = !without[usize::from(input)];
                        mine &= now ^ gate.function.eval(&without);
                    }
                    if mine != 0 {
                        left &= !mine;
                        let charges = &gate.causes[usize::from(input)];
                        energy += charged(charges, &words, mine & now, mine & !now);
                    }
                }
                if left == 0 {
                    break;
                }
            }
            groups[gate.group as usize].internal += energy;
        }
        let mut words = [0u64; VARIABLES];
        for flop in &design.flops {
            let mut gathered = false;
            for output in &flop.outputs {
                let now = self.values[output.net as usize];
                let changed = now ^ self.before[output.net as usize];
                if changed != 0 && !output.charges.is_empty() {
                    if !gathered {
                        // The other pins as they were when the clock came.
                        gather(&mut words, &flop.pins, &self.before);
                        words[usize::from(flop.logic.clock)] = u64::MAX;
                        gathered = true;
                    }
                    words[usize::from(output.pin)] = now;
                    let energy = charged(&output.charges, &words, changed & now, changed & !now);
                    groups[flop.group as usize].internal += energy;
                }
            }
        }
        for pin in &design.pin_charges {
            let now = self.values[pin.net as usize];
            let changed = now ^ self.before[pin.net as usize];
            if changed != 0 {
                gather(&mut words, &pin.variables, &self.values);
                let energy = charged(&pin.charges, &words, changed & now, changed & !now);
                groups[pin.group as usize].internal += energy;
            }
        }
        // The clock falls when all has settled.
        for (flop, &state) in design.flops.iter().zip(&self.states) {
            gather(&mut words, &flop.pins, &self.values);
            let pins = flop.pins.len();
            words[pins] = state;
            words[pins + 1] = !state;
            words[usize::from(flop.logic.clock)] = 0;
            let clocked = flop.gate.map_or(u64::MAX, |gate| self.open[gate as usize]);
            groups[flop.group as usize].clock += charged(&flop.clock, &words, 0, clocked);
        }
        let outside = &mut groups[design.netlist.groups.len()].clock;
        for (open, gate) in self.open.iter().zip(&design.clock_gates) {
            *outside +=
                2.0 * f64::from(open.count_ones()) * gate.switching + STREAMS as f64 * gate.own;
        }
        if let Some(clock) = design.netlist.clock {
            let energy = 2.0 * STREAMS as f64 * design.switching[clock as usize];
            groups[design.netlist.groups.len()].clock += energy;
        }
        for (group, leakage) in groups.iter_mut().zip(&design.constant_leakage) {
            group.leakage += leakage * STREAMS as f64;
        }
        if (self.tally.cycles / STREAMS).is_multiple_of(LEAKAGE_STRIDE) {
            for cell in &design.state_leakage {
                gather(&mut words, &cell.variables, &self.values);
                let mut left = u64::MAX;
                let mut energy = 0.0;
                for (when, leakage) in &cell.states {
                    let mine = when.eval(&words) & left;
                    left &= !mine;
                    energy += f64::from(mine.count_ones()) * leakage;
                }
                energy += f64::from(left.count_ones()) * cell.other;
                groups[cell.group as usize].leakage += energy * LEAKAGE_STRIDE as f64;
            }
        }
    }
}

fn gather(words: &mut [u64; VARIABLES], nets: &[u32], values: &[u64]) {
    for (word, &net) in words.iter_mut().zip(nets) {
        *word = if net == OPEN { 0 } else { values[net as usize] };
    }
}

/// The state that set and reset pins leave of what it would become.
pub(super) fn held(flop: &super::Flop, words: &[u64], state: u64) -> u64 {
    let clear = flop.logic.clear.as_ref().map_or(0, |f| f.eval(words));
    let preset = flop.logic.preset.as_ref().map_or(0, |f| f.eval(words));
    let both = if flop.logic.both { clear & preset } else { 0 };
    (state & !clear) | (preset & !clear) | both
}

/// pJ of rising and falling edges in these streams: every charge whose condition holds; those without one where none does.
pub(super) fn charged(charges: &[Charge], words: &[u64], rise: u64, fall: u64) -> f64 {
    let mut energy = 0.0;
    let mut taken = 0;
    for charge in charges {
        let mine = match &charge.when {
            Some(when) => when.eval(words),
            None => !taken,
        };
        if charge.when.is_some() {
            taken |= mine;
        }
        energy += f64::from((mine & rise).count_ones()) * charge.rise
            + f64::from((mine & fall).count_ones()) * charge.fall;
    }
    energy
}
