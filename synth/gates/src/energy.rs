//! What is charged to what.
//!
//! | term | when | how much |
//! |---|---|---|
//! | switching | a net changes | C V² / 2, C the input pins that read it and the wire |
//! | internal | an output changes | the library's `internal_power` table of that output, of the pin that caused it and of the states of the others, at the slew of that pin and the load of the output |
//! | internal | an input that has a table of its own changes | that table, whether an output follows or not |
//! | clock | the clock changes, twice a cycle | the flip-flops' tables of the clock pin, and C V² / 2 of the clock net |
//! | leakage | all the time | the cell's leakage in its state times the clock period |
//!
//! Nothing is charged twice: Liberty's tables hold what is dissipated within a cell, without the load. A flip-flop whose output changes pays for the clock's edge
//! and for the output, as the library's makers intend and timing analysers do.

use serde::Serialize;

/// What the library and the netlist don't say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Conditions {
    /// Capacitance of the wire to each pin that reads a net, in fF: the wire model.
    pub wire_ff_per_sink: f64,
    /// Transition of the module's inputs in ns.
    pub input_slew_ns: f64,
    /// Transition of the clock at the flip-flops in ns.
    pub clock_slew_ns: f64,
    /// What each output of the module drives, in fF.
    pub output_load_ff: f64,
    /// Clock period in ns, which only leakage depends on.
    pub period_ns: f64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            wire_ff_per_sink: 2.0,
            input_slew_ns: 0.1,
            clock_slew_ns: 0.1,
            output_load_ff: 10.0,
            period_ns: 10.0,
        }
    }
}

/// Energy by kind, in pJ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Energy {
    /// Within cells.
    pub internal: f64,
    /// Of the nets' capacitance.
    pub switching: f64,
    /// Of the clock: net and pins.
    pub clock: f64,
    /// Of cells at rest.
    pub leakage: f64,
}

impl Energy {
    /// All kinds.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.internal + self.switching + self.clock + self.leakage
    }

    /// Each kind times a factor.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        Self {
            internal: self.internal * factor,
            switching: self.switching * factor,
            clock: self.clock * factor,
            leakage: self.leakage * factor,
        }
    }
}

impl std::ops::AddAssign for Energy {
    fn add_assign(&mut self, other: Self) {
        self.internal += other.internal;
        self.switching += other.switching;
        self.clock += other.clock;
        self.leakage += other.leakage;
    }
}

/// What a simulation counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// Energy by group of the netlist; what input ports drive comes last.
    pub groups: Vec<Energy>,
    /// Changes of each net.
    pub toggles: Vec<u64>,
    /// Cycles times streams.
    pub cycles: u64,
}

impl Tally {
    pub(crate) fn new(groups: usize, nets: usize) -> Self {
        Self {
            groups: vec![Energy::default(); groups + 1],
            toggles: vec![0; nets],
            cycles: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.groups.fill(Energy::default());
        self.toggles.fill(0);
        self.cycles = 0;
    }

    /// pJ of all groups.
    #[must_use]
    pub fn energy(&self) -> Energy {
        let mut sum = Energy::default();
        for group in &self.groups {
            sum += *group;
        }
        sum
    }

    /// pJ a cycle.
    #[must_use]
    pub fn per_cycle(&self) -> Energy {
        self.energy().times(1.0 / self.cycles.max(1) as f64)
    }

    /// Changes of all nets but the clock, a cycle.
    #[must_use]
    pub fn toggles_per_cycle(&self) -> f64 {
        self.toggles.iter().sum::<u64>() as f64 / self.cycles.max(1) as f64
    }

    /// Adds another simulation of the same netlist.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.groups.iter_mut().zip(&other.groups) {
            *mine += *theirs;
        }
        for (mine, theirs) in self.toggles.iter_mut().zip(&other.toggles) {
            *mine += theirs;
        }
        self.cycles += other.cycles;
    }
}
