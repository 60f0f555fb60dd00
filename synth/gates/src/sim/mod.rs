//! Simulation of a netlist, with its energy.
//!
//! A [`Design`] is what both simulators share: loads, slews, delays and energies of every pin of every instance, computed once. Slews
//! come from one pass from inputs to outputs, the slowest of each net, as a timing analyser propagates them.

pub mod timed;
pub mod zero_delay;

pub use timed::Timed;
pub use zero_delay::ZeroDelay;

use crate::energy::Conditions;
use crate::liberty::{
    Arc, ArcKind, Cell, Direction, Edge, FlipFlop, Kind, MAX_INPUTS, Power, Response,
};
use crate::logic::Logic;
use crate::netlist::{Instance, Netlist, ONE, OPEN};

/// Leakage is looked up in one of so many cycles, where it depends on the state.
pub(crate) const LEAKAGE_STRIDE: u64 = 16;

/// Most flip-flops behind one gate of the clock.
const FAN_OUT: u32 = 32;

/// Why a netlist can't be simulated.
#[derive(Debug, thiserror::Error)]
pub enum DesignError {
    /// A flip-flop's output that is no function of its state.
    #[error("cell `{cell}`: output `{pin}` is no function of its state alone")]
    Output {
        /// The cell.
        cell: String,
        /// The pin.
        pin: String,
    },
    /// A condition that names what it can't depend on.
    #[error("cell `{cell}`: a condition of pin `{pin}` is no function of inputs")]
    Condition {
        /// The cell.
        cell: String,
        /// The pin.
        pin: String,
    },
    /// A number that is not positive and finite.
    #[error("condition {what}: expected a positive number, found {value}")]
    Value {
        /// Which.
        what: &'static str,
        /// The number.
        value: f64,
    },
}

/// Energy of an edge, in pJ, in some states.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    /// Over a gate's inputs by number, or over a flip-flop's pins and state.
    pub when: Option<Logic>,
    /// Over a gate's inputs: bit s is state s.
    pub states: u64,
    pub rise: f64,
    pub fall: f64,
}

/// Charges for one pin that causes them: those with a condition first.
pub(crate) type Charges = Vec<Charge>;

/// One output of a combinational instance.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub net: u32,
    pub group: u32,
    /// Nets of the inputs in the order of the cell's pins.
    pub inputs: Vec<u32>,
    pub function: Logic,
    pub truth: u64,
    /// Charges by input that causes the change.
    pub causes: Vec<Charges>,
    /// Inputs that have charges, the one that arrives last first.
    pub latest: Vec<u8>,
    /// ps by input, its edge, the output's edge.
    pub delays: [[[u32; 2]; 2]; MAX_INPUTS],
}

/// A flip-flop.
#[derive(Clone, Debug)]
pub(crate) struct Flop {
    pub group: u32,
    pub logic: FlipFlop,
    /// Nets by pin; the pins' number is that of the state's variable.
    pub pins: Vec<u32>,
    pub outputs: Vec<FlopOutput>,
    /// Charges of the clock pin's edges.
    pub clock: Charges,
    /// By place in [`Design::clock_gates`].
    pub gate: Option<u32>,
    /// Reads a net that sets or resets it.
    pub asynchronous: bool,
}

/// A gate of the clock and the net behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockGate {
    pub enable: u32,
    /// pJ of a change of the gated net.
    pub switching: f64,
    /// pJ a cycle, whether it is open or not.
    pub own: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct FlopOutput {
    pub pin: u8,
    pub net: u32,
    pub function: Logic,
    pub charges: Charges,
    /// ps from the clock to each edge.
    pub delays: [u32; 2],
}

/// An input pin, not the clock's, that costs energy by itself.
#[derive(Clone, Debug)]
pub(crate) struct PinCharge {
    pub net: u32,
    pub group: u32,
    /// Nets by variable of the conditions.
    pub variables: Vec<u32>,
    pub charges: Charges,
}

/// Leakage of an instance that depends on its state.
#[derive(Clone, Debug)]
pub(crate) struct StateLeakage {
    pub group: u32,
    pub variables: Vec<u32>,
    /// pJ a cycle.
    pub states: Vec<(Logic, f64)>,
    pub other: f64,
}

/// A netlist with the energies and delays of all its pins.
#[derive(Clone, Debug)]
pub struct Design<'n> {
    pub(crate) netlist: &'n Netlist,
    pub(crate) conditions: Conditions,
    /// pJ of a change of each net.
    pub(crate) switching: Vec<f64>,
    /// Group of each net's driver; the one behind the last for input ports.
    pub(crate) net_group: Vec<u32>,
    pub(crate) gates: Vec<Gate>,
    pub(crate) flops: Vec<Flop>,
    pub(crate) clock_gates: Vec<ClockGate>,
    pub(crate) pin_charges: Vec<PinCharge>,
    /// pJ a cycle by group, of cells whose leakage is the same in all states.
    pub(crate) constant_leakage: Vec<f64>,
    pub(crate) state_leakage: Vec<StateLeakage>,
    slews: Vec<[f64; 2]>,
    arrivals: Vec<f64>,
    loads: Vec<f64>,
}

/// Index of an edge in pairs.
pub(crate) const fn at(edge: Edge) -> usize {
    match edge {
        Edge::Rise => 1,
        Edge::Fall => 0,
    }
}

impl<'n> Design<'n> {
    /// Computes loads, slews, delays and energies.
    ///
    /// # Errors
    /// [`DesignError`]: a condition has no meaning, or a cell has outputs or conditions that can't be simulated.
    pub fn new(netlist: &'n Netlist, conditions: Conditions) -> Result<Self, DesignError> {
        for (what, value, least) in [
            ("wire_ff_per_sink", conditions.wire_ff_per_sink, 0.0),
            ("input_slew_ns", conditions.input_slew_ns, 0.0),
            ("clock_slew_ns", conditions.clock_slew_ns, 0.0),
            ("output_load_ff", conditions.output_load_ff, 0.0),
            ("period_ns", conditions.period_ns, 0.0),
        ] {
            if !(value.is_finite() && value >= least) {
                return Err(DesignError::Value { what, value });
            }
        }
        let nets = netlist.nets.len();
        let outside = netlist.groups.len() as u32;
        let mut design = Self {
            netlist,
            conditions,
            switching: Vec::new(),
            net_group: vec![outside; nets],
            gates: Vec::new(),
            flops: Vec::new(),
            clock_gates: Vec::new(),
            pin_charges: Vec::new(),
            constant_leakage: vec![0.0; netlist.groups.len() + 1],
            state_leakage: Vec::new(),
            slews: vec![[conditions.input_slew_ns; 2]; nets],
            arrivals: vec![0.0; nets],
            loads: vec![0.0; nets],
        };
        design.load();
        for &flop in &netlist.flip_flops {
            design.flop(&netlist.instances[flop as usize])?;
        }
        for &gate in &netlist.order {
            design.gate(&netlist.instances[gate as usize])?;
        }
        design.gate_clocks();
        // Slews of a flip-flop's inputs are known now.
        for instance in &netlist.instances {
            design.input_pins(instance)?;
            design.leakage(instance)?;
        }
        Ok(design)
    }

    /// Its netlist.
    #[must_use]
    pub const fn netlist(&self) -> &Netlist {
        self.netlist
    }

    /// ns from the clock's edge, or from the inputs, to the last net that settles; setup times are not in it.
    #[must_use]
    pub fn critical_path_ns(&self) -> f64 {
        self.arrivals.iter().copied().fold(0.0, f64::max)
    }

    /// The load of a net in pF: pins, wire, and an output's.
    #[must_use]
    pub fn load_pf(&self, net: u32) -> f64 {
        self.loads.get(net as usize).copied().unwrap_or(0.0)
    }

    fn load(&mut self) {
        let netlist = self.netlist;
        let wire = self.conditions.wire_ff_per_sink * 1e-3;
        for instance in &netlist.instances {
            let cell = netlist.cell(instance);
            for (pin, &net) in cell.pins.iter().zip(&instance.pins) {
                if net == OPEN {
                    continue;
                }
                let gated = instance.gate.is_some() && Some(net) == netlist.clock;
                if pin.direction == Direction::Input && !gated {
                    self.loads[net as usize] += pin.capacitance + wire;
                } else if pin.direction == Direction::Output {
                    self.net_group[net as usize] = instance.group;
                }
            }
        }
        for port in &netlist.outputs {
            for &bit in &port.bits {
                self.loads[bit as usize] += self.conditions.output_load_ff * 1e-3;
            }
        }
        let half_v2 = netlist.voltage * netlist.voltage / 2.0;
        self.switching = self.loads.iter().map(|load| load * half_v2).collect();
    }

    fn slew(&self, net: u32, edge: Edge) -> f64 {
        if Some(net) == self.netlist.clock {
            return self.conditions.clock_slew_ns;
        }
        self.slews[net as usize][at(edge)]
    }

    fn charge(
        power: &Power,
        when: Option<Logic>,
        states: u64,
        slews: [f64; 2],
        load: f64,
    ) -> Charge {
        Charge {
            when,
            states,
            rise: power.at(Edge::Rise, slews[at(Edge::Rise)], load),
            fall: power.at(Edge::Fall, slews[at(Edge::Fall)], load),
        }
    }

    fn flop(&mut self, instance: &Instance) -> Result<(), DesignError> {
        let cell = self.netlist.cell(instance);
        let Kind::FlipFlop(logic) = &cell.kind else {
            return Ok(());
        };
        let state = cell.pins.len() as u8;
        let mut outputs = Vec::new();
        for (pin, place) in cell.pins.iter().zip(0u8..) {
            let net = instance.pins[usize::from(place)];
            if pin.direction != Direction::Output || net == OPEN {
                continue;
            }
            let function = pin
                .function
                .clone()
                .filter(|f| f.variables().iter().all(|&v| v >= state))
                .ok_or_else(|| DesignError::Output {
                    cell: cell.name.clone(),
                    pin: pin.name.clone(),
                })?;
            let load = self.loads[net as usize];
            let slew = self.conditions.clock_slew_ns;
            let mut delays = [1; 2];
            for edge in [Edge::Rise, Edge::Fall] {
                let arcs = pin
                    .arcs
                    .iter()
                    .filter(|arc| matches!(arc.kind, ArcKind::Clock(_)));
                let responses: Vec<&Response> =
                    arcs.filter_map(|arc| response(arc, edge)).collect();
                let transition = worst(responses.iter().map(|r| r.transition.at(slew, load)));
                let delay = mean(responses.iter().map(|r| r.delay.at(slew, load)));
                self.slews[net as usize][at(edge)] = transition.unwrap_or(slew).max(0.0);
                delays[at(edge)] = picoseconds(delay.unwrap_or(0.0));
                let arrival = &mut self.arrivals[net as usize];
                *arrival = arrival.max(delay.unwrap_or(0.0));
            }
            let charges = pin
                .power
                .iter()
                .filter(|power| power.related.is_none_or(|related| related == logic.clock))
                .map(|power| Self::charge(power, power.when.clone(), 0, [slew; 2], load))
                .collect();
            outputs.push(FlopOutput {
                pin: place,
                net,
                function,
                charges: conditional_first(charges),
                delays,
            });
        }
        let clock = &cell.pins[usize::from(logic.clock)];
        let slew = self.conditions.clock_slew_ns;
        let charges = clock.power.iter();
        let charges =
            charges.map(|power| Self::charge(power, power.when.clone(), 0, [slew; 2], 0.0));
        self.flops.push(Flop {
            group: instance.group,
            logic: (**logic).clone(),
            pins: instance.pins.clone(),
            outputs,
            clock: conditional_first(charges.collect()),
            gate: instance.gate,
            asynchronous: logic.clear.is_some() || logic.preset.is_some(),
        });
        Ok(())
    }

    fn gate(&mut self, instance: &Instance) -> Result<(), DesignError> {
        let cell = self.netlist.cell(instance);
        let pins: Vec<u8> = cell.inputs().collect();
        let inputs: Vec<u32> = pins
            .iter()
            .map(|&p| instance.pins[usize::from(p)])
            .collect();
        for (pin, place) in cell.pins.iter().zip(0u8..) {
            let net = instance.pins[usize::from(place)];
            let Some(function) = pin
                .function
                .as_ref()
                .filter(|_| pin.direction == Direction::Output && net != OPEN)
            else {
                continue;
            };
            let fault = || DesignError::Condition {
                cell: cell.name.clone(),
                pin: pin.name.clone(),
            };
            let function = over_inputs(cell, &pins, function).ok_or_else(fault)?;
            let numbers: Vec<u8> = (0..pins.len() as u8).collect();
            let truth = function.truth(&numbers).ok_or_else(fault)?;
            let load = self.loads[net as usize];
            let mut delays = [[[1; 2]; 2]; MAX_INPUTS];
            let mut slews: [Option<f64>; 2] = [None; 2];
            let mut arrival: f64 = 0.0;
            for (number, &input) in inputs.iter().enumerate() {
                for output_edge in [Edge::Rise, Edge::Fall] {
                    for input_edge in [Edge::Rise, Edge::Fall] {
                        let slew = self.slew(input, input_edge);
                        let mut responses = Vec::new();
                        for arc in pin.arcs.iter().filter(|arc| arc.related == pins[number]) {
                            let Some(response) = response(arc, output_edge) else {
                                continue;
                            };
                            let states = match &arc.when {
                                None => u64::MAX,
                                Some(when) => over_inputs(cell, &pins, when)
                                    .and_then(|when| when.truth(&numbers))
                                    .ok_or_else(fault)?,
                            };
                            if follows(truth, states, number, pins.len(), input_edge, output_edge) {
                                responses.push(response);
                            }
                        }
                        let delay = mean(responses.iter().map(|r| r.delay.at(slew, load)));
                        let transition =
                            worst(responses.iter().map(|r| r.transition.at(slew, load)));
                        if let Some(delay) = delay {
                            delays[number][at(input_edge)][at(output_edge)] = picoseconds(delay);
                            arrival = arrival.max(self.arrivals[input as usize] + delay.max(0.0));
                        }
                        let slew = &mut slews[at(output_edge)];
                        *slew = match (*slew, transition) {
                            (Some(a), Some(b)) => Some(a.max(b)),
                            (a, b) => a.or(b),
                        };
                    }
                }
            }
            for (slew, found) in self.slews[net as usize].iter_mut().zip(slews) {
                *slew = found.unwrap_or(self.conditions.input_slew_ns).max(0.0);
            }
            if net > ONE {
                self.arrivals[net as usize] = arrival;
            }
            let mut causes = Vec::new();
            for (number, &input) in inputs.iter().enumerate() {
                let mut charges = Vec::new();
                for power in &pin.power {
                    if power.related.is_some_and(|related| related != pins[number]) {
                        continue;
                    }
                    let when = match &power.when {
                        None => None,
                        Some(when) => Some(over_inputs(cell, &pins, when).ok_or_else(fault)?),
                    };
                    let states = match &when {
                        None => u64::MAX,
                        Some(when) => when.truth(&numbers).ok_or_else(fault)?,
                    };
                    // The output's edge follows the input's or is opposite to it; where both happen, the slower counts.
                    let slew_for = |output: Edge| {
                        let edges = [Edge::Rise, Edge::Fall];
                        let possible = edges.into_iter().filter(|&input_edge| {
                            follows(truth, states, number, pins.len(), input_edge, output)
                        });
                        worst(possible.map(|edge| self.slew(input, edge)))
                            .unwrap_or_else(|| self.slew(input, output))
                    };
                    let slews = [slew_for(Edge::Fall), slew_for(Edge::Rise)];
                    charges.push(Self::charge(power, when, states, slews, load));
                }
                causes.push(conditional_first(charges));
            }
            let mut latest: Vec<u8> = numbers
                .iter()
                .copied()
                .filter(|&n| !causes[usize::from(n)].is_empty())
                .collect();
            latest.sort_by(|&a, &b| {
                let arrival = |n: u8| self.arrivals[inputs[usize::from(n)] as usize];
                arrival(b).total_cmp(&arrival(a))
            });
            self.gates.push(Gate {
                net,
                group: instance.group,
                inputs: inputs.clone(),
                function,
                truth,
                causes,
                latest,
                delays,
            });
        }
        Ok(())
    }

    /// The library may have no cell for a gate. One is counted as a flip-flop's clock pin that is always clocked, because it
    /// holds its enable in a latch, for each [`FAN_OUT`] flip-flops behind it; what it drives is their pins and the wires to them.
    fn gate_clocks(&mut self) {
        let netlist = self.netlist;
        let wire = self.conditions.wire_ff_per_sink * 1e-3;
        let half_v2 = netlist.voltage * netlist.voltage / 2.0;
        let gates = netlist.clock_gates.iter();
        self.clock_gates = gates
            .map(|&enable| ClockGate {
                enable,
                ..ClockGate::default()
            })
            .collect();
        let mut members = vec![0u32; self.clock_gates.len()];
        for (flop, &at) in self.flops.iter().zip(&netlist.flip_flops) {
            let Some(gate) = flop.gate.map(|gate| gate as usize) else {
                continue;
            };
            let cell = netlist.cell(&netlist.instances[at as usize]);
            let pin = cell.pins[usize::from(flop.logic.clock)].capacitance + wire;
            self.clock_gates[gate].switching += pin * half_v2;
            if members[gate].is_multiple_of(FAN_OUT) {
                // Conditions without which a flip-flop's clock costs something: the mean of them.
                let edge = |charge: &Charge| charge.rise + charge.fall;
                let edges = mean(flop.clock.iter().map(edge)).unwrap_or(0.0);
                self.clock_gates[gate].own += edges + 2.0 * pin * half_v2;
            }
            members[gate] += 1;
        }
    }

    /// What input pins cost by themselves.
    fn input_pins(&mut self, instance: &Instance) -> Result<(), DesignError> {
        let cell = self.netlist.cell(instance);
        let clock = match &cell.kind {
            Kind::FlipFlop(ff) => Some(ff.clock),
            _ => None,
        };
        for (pin, place) in cell.pins.iter().zip(0u8..) {
            let net = instance.pins[usize::from(place)];
            if pin.direction != Direction::Input || pin.power.is_empty() || Some(place) == clock {
                continue;
            }
            let slews = [self.slew(net, Edge::Fall), self.slew(net, Edge::Rise)];
            let known = cell.pins.len() as u8;
            let mut charges = Vec::new();
            for power in &pin.power {
                let readable = |when: &Logic| when.variables().iter().all(|&v| v < known);
                if power.when.as_ref().is_some_and(|when| !readable(when)) {
                    return Err(DesignError::Condition {
                        cell: cell.name.clone(),
                        pin: pin.name.clone(),
                    });
                }
                charges.push(Self::charge(power, power.when.clone(), 0, slews, 0.0));
            }
            self.pin_charges.push(PinCharge {
                net,
                group: instance.group,
                variables: instance.pins.clone(),
                charges: conditional_first(charges),
            });
        }
        Ok(())
    }

    fn leakage(&mut self, instance: &Instance) -> Result<(), DesignError> {
        let cell = self.netlist.cell(instance);
        // nW x ns = 1e-6 pJ.
        let unit = self.conditions.period_ns * 1e-6;
        if cell.leakage.is_empty() {
            self.constant_leakage[instance.group as usize] += cell.other_leakage * unit;
            return Ok(());
        }
        let known = cell.pins.len() as u8;
        let readable = |when: &Logic| when.variables().iter().all(|&v| v < known);
        if !cell.leakage.iter().all(|entry| readable(&entry.when)) {
            return Err(DesignError::Condition {
                cell: cell.name.clone(),
                pin: "leakage_power".to_owned(),
            });
        }
        self.state_leakage.push(StateLeakage {
            group: instance.group,
            variables: instance.pins.clone(),
            states: cell
                .leakage
                .iter()
                .map(|entry| (entry.when.clone(), entry.power * unit))
                .collect(),
            other: cell.other_leakage * unit,
        });
        Ok(())
    }
}

fn response(arc: &Arc, edge: Edge) -> Option<&Response> {
    match edge {
        Edge::Rise => arc.rise.as_ref(),
        Edge::Fall => arc.fall.as_ref(),
    }
}

/// Whole ps, at least one, so that time goes on.
fn picoseconds(ns: f64) -> u32 {
    // The cast saturates.
    ((ns * 1e3).round().max(1.0)) as u32
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, number) = values.fold((0.0, 0u32), |(sum, n), v| (sum + v, n + 1));
    (number > 0).then(|| sum / f64::from(number))
}

fn worst(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(f64::max)
}

fn conditional_first(mut charges: Charges) -> Charges {
    charges.sort_by_key(|charge| charge.when.is_none());
    charges
}

/// A function of a cell's pins as one of its inputs by number: outputs that it names are replaced by their functions.
fn over_inputs(cell: &Cell, inputs: &[u8], function: &Logic) -> Option<Logic> {
    let mut function = function.clone();
    for variable in function.variables() {
        let pin = cell.pins.get(usize::from(variable))?;
        if pin.direction == Direction::Output {
            function = function.substituted(variable, pin.function.as_ref()?)?;
        }
    }
    function.renumbered(|variable| {
        inputs
            .iter()
            .position(|&input| input == variable)
            .and_then(|number| u8::try_from(number).ok())
    })
}

/// Whether in one of the states, taken before or after, the input's edge makes the output's.
fn follows(
    truth: u64,
    states: u64,
    input: usize,
    inputs: usize,
    input_edge: Edge,
    output_edge: Edge,
) -> bool {
    (0..1u64 << inputs).any(|state| {
        let low = state & !(1 << input);
        let high = low | 1 << input;
        let value = |s: u64| truth >> s & 1 == 1;
        let holds = (states >> low | states >> high) & 1 == 1;
        let (before, after) = match input_edge {
            Edge::Rise => (value(low), value(high)),
            Edge::Fall => (value(high), value(low)),
        };
        holds && before != after && after == (output_edge == Edge::Rise)
    })
}
