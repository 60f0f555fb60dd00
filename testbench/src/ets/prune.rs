//! The pruning engine.

use golden::ets::{PruneJob, Pruned};
use hdl::ets::{VALUE, WEIGHT};

use super::pins::Pins;
use super::{EtsError, within};
use crate::design::PortId;
use crate::simulator::Simulator;

/// More cycles than any choice takes: 256 rounds of 511 vertices.
const PATIENCE: u64 = 1 << 20;

/// What the engine chose, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineRun {
    /// The choice.
    pub pruned: Pruned,
    /// Cycles from the first node to the choice.
    pub cycles: u64,
}

struct Ports {
    start: PortId,
    valid: PortId,
    ready: PortId,
    single: PortId,
    leaf: PortId,
    depth: PortId,
    number: PortId,
    cluster: PortId,
    weight: PortId,
    cost: PortId,
    last: PortId,
    gain: PortId,
    price: PortId,
    cover: PortId,
    last_cluster: PortId,
    rounds: PortId,
    done: PortId,
    proved: PortId,
    worth: PortId,
    halves: PortId,
    asked: PortId,
    kept: PortId,
}

/// Drives `hdl::ets::PruningEngine`.
pub struct PruneBench<S> {
    pins: Pins<S>,
    ports: Ports,
    /// Most leaves.
    leaves: usize,
}

impl<S: Simulator> PruneBench<S> {
    /// A bench for an engine of at most so many leaves.
    ///
    /// # Errors
    /// The design has other ports, or the simulation fails.
    pub fn new(simulator: S, leaves: usize) -> Result<Self, EtsError> {
        let pins = Pins::new(simulator)?;
        let ports = Ports {
            start: pins.input("start")?,
            valid: pins.input("node_valid")?,
            ready: pins.output("node_ready")?,
            single: pins.input("node_single")?,
            leaf: pins.input("node_leaf")?,
            depth: pins.input("node_depth")?,
            number: pins.input("node_number")?,
            cluster: pins.input("node_cluster")?,
            weight: pins.input("node_weight")?,
            cost: pins.input("node_cost")?,
            last: pins.input("node_last")?,
            gain: pins.input("gain")?,
            price: pins.input("price")?,
            cover: pins.input("cover_worth")?,
            last_cluster: pins.input("last_cluster")?,
            rounds: pins.input("rounds")?,
            done: pins.output("done")?,
            proved: pins.output("proved")?,
            worth: pins.output("worth")?,
            halves: pins.output("halves")?,
            asked: pins.input("leaf")?,
            kept: pins.output("kept")?,
        };
        Ok(Self {
            pins,
            ports,
            leaves,
        })
    }

    /// That an engine of so many leaves can take a job.
    ///
    /// # Errors
    /// It has too many leaves, or numbers that are too large.
    pub fn fits(job: &PruneJob, leaves: usize) -> Result<(), EtsError> {
        within("leaves", u64::from(job.leaves), leaves as u64)?;
        within("bits of a sum", u64::from(job.bits()), VALUE as u64 - 1)?;
        let most = (1 << WEIGHT) - 1;
        for step in &job.steps {
            within("a node's cost", u64::from(step.cost), most)?;
            if let Some(leaf) = step.leaf {
                within("a leaf's weight", u64::from(leaf.weight), most)?;
            }
        }
        Ok(())
    }

    /// Makes a choice in at most so many rounds.
    ///
    /// # Errors
    /// The job doesn't fit, or the simulation fails.
    pub fn run(&mut self, job: &PruneJob, rounds: u8) -> Result<EngineRun, EtsError> {
        self.run_with_gaps(job, rounds, |_| 0)
    }

    /// The same with idle cycles before each node, as many as `gap` says.
    ///
    /// # Errors
    /// As [`PruneBench::run`].
    pub fn run_with_gaps(
        &mut self,
        job: &PruneJob,
        rounds: u8,
        gap: impl FnMut(usize) -> u32,
    ) -> Result<EngineRun, EtsError> {
        let cycles = self
            .work(job, rounds, PATIENCE, gap)?
            .ok_or(EtsError::Endless(PATIENCE))?;
        let pins = &mut self.pins;
        let ports = &self.ports;
        let mut kept = Vec::with_capacity(job.leaves as usize);
        for leaf in 0..job.leaves {
            pins.set(ports.asked, u64::from(leaf));
            pins.settle()?;
            kept.push(pins.get(ports.kept) == 1);
        }
        let shift = 64 - VALUE;
        Ok(EngineRun {
            pruned: Pruned {
                kept,
                worth: (pins.get(ports.worth) << shift) as i64 >> shift,
                proved: pins.get(ports.proved) == 1,
                halves: pins.get(ports.halves) as u32,
            },
            cycles,
        })
    }

    /// Begins with a choice and leaves it after so many cycles, or when it is made.
    ///
    /// # Errors
    /// As [`PruneBench::run`].
    pub fn abandon(&mut self, job: &PruneJob, rounds: u8, cycles: u64) -> Result<(), EtsError> {
        self.work(job, rounds, cycles, |_| 0).map(|_| ())
    }

    /// The cycles that a choice takes, if it is made in at most so many.
    fn work(
        &mut self,
        job: &PruneJob,
        rounds: u8,
        most: u64,
        mut gap: impl FnMut(usize) -> u32,
    ) -> Result<Option<u64>, EtsError> {
        Self::fits(job, self.leaves)?;
        let Ports { start, valid, .. } = self.ports;
        let pins = &mut self.pins;
        let ports = &self.ports;
        pins.set(ports.gain, job.gain);
        pins.set(ports.price, job.price);
        pins.set(ports.cover, job.cover);
        pins.set(ports.last_cluster, u64::from(job.clusters) - 1);
        pins.set(ports.rounds, u64::from(rounds));
        pins.set(start, 1);
        pins.cycle()?;
        pins.set(start, 0);
        let begin = pins.cycles();
        for (place, step) in job.steps.iter().enumerate() {
            for _ in 0..gap(place) {
                pins.cycle()?;
            }
            pins.set(ports.single, u64::from(step.single));
            pins.set(ports.depth, u64::from(step.depth));
            pins.set(ports.cost, u64::from(step.cost));
            pins.set(ports.leaf, u64::from(step.leaf.is_some()));
            if let Some(leaf) = step.leaf {
                pins.set(ports.number, u64::from(leaf.number));
                pins.set(ports.cluster, u64::from(leaf.cluster));
                pins.set(ports.weight, u64::from(leaf.weight));
            }
            pins.set(ports.last, u64::from(place + 1 == job.steps.len()));
            pins.set(valid, 1);
            loop {
                if pins.cycles() - begin >= most {
                    pins.set(valid, 0);
                    return Ok(None);
                }
                pins.settle()?;
                let taken = pins.get(ports.ready) == 1;
                pins.cycle()?;
                if taken {
                    break;
                }
            }
            pins.set(valid, 0);
        }
        while pins.get(ports.done) == 0 {
            if pins.cycles() - begin >= most {
                return Ok(None);
            }
            pins.cycle()?;
        }
        Ok(Some(pins.cycles() - begin))
    }
}
