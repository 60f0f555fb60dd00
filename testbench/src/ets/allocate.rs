//! The allocator.

use golden::ets::{Allocation, Scores, Temperature};

use super::pins::Pins;
use super::{EtsError, within};
use crate::design::PortId;
use crate::simulator::Simulator;

/// More cycles than any allocation takes.
const PATIENCE: u64 = 1 << 16;

struct Ports {
    start: PortId,
    width: PortId,
    rate: PortId,
    valid: PortId,
    scored: PortId,
    score: PortId,
    kept: PortId,
    last: PortId,
    done: PortId,
    served: PortId,
    served_leaf: PortId,
    served_count: PortId,
    left: PortId,
    asked: PortId,
    count: PortId,
}

/// Drives `hdl::ets::Allocator`.
pub struct AllocatorBench<S> {
    pins: Pins<S>,
    ports: Ports,
    leaves: usize,
}

/// What the allocator gave, what it left, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocatorRun {
    /// The order in which leaves were served, and what each got.
    pub allocation: Allocation,
    /// What is left of the width.
    pub left: u32,
    /// Cycles from the first leaf to the last one served.
    pub cycles: u64,
}

impl<S: Simulator> AllocatorBench<S> {
    /// A bench for an allocator of at most so many leaves.
    ///
    /// # Errors
    /// The design has other ports, or the simulation fails.
    pub fn new(simulator: S, leaves: usize) -> Result<Self, EtsError> {
        let pins = Pins::new(simulator)?;
        let ports = Ports {
            start: pins.input("start")?,
            width: pins.input("width")?,
            rate: pins.input("rate")?,
            valid: pins.input("leaf_valid")?,
            scored: pins.input("leaf_scored")?,
            score: pins.input("leaf_score")?,
            kept: pins.input("leaf_kept")?,
            last: pins.input("leaf_last")?,
            done: pins.output("done")?,
            served: pins.output("served")?,
            served_leaf: pins.output("served_leaf")?,
            served_count: pins.output("served_count")?,
            left: pins.output("left")?,
            asked: pins.input("leaf")?,
            count: pins.output("count")?,
        };
        Ok(Self {
            pins,
            ports,
            leaves,
        })
    }

    /// Begins to share a width and leaves it after so many cycles behind the last leaf, or when it is shared.
    ///
    /// # Errors
    /// As [`AllocatorBench::run`].
    pub fn abandon(
        &mut self,
        scores: &Scores,
        temperature: Temperature,
        width: u32,
        cycles: u64,
    ) -> Result<(), EtsError> {
        self.offer(scores, None, temperature, width)?;
        for _ in 0..cycles {
            self.pins.cycle()?;
        }
        Ok(())
    }

    /// Starts and offers all leaves; the cycle of the start.
    fn offer(
        &mut self,
        scores: &Scores,
        kept: Option<&[bool]>,
        temperature: Temperature,
        width: u32,
    ) -> Result<u64, EtsError> {
        let leaves = scores.fixed();
        within("leaves", leaves.len() as u64, self.leaves as u64)?;
        within("the width", u64::from(width), u64::from(u16::MAX))?;
        let pins = &mut self.pins;
        let ports = &self.ports;
        pins.set(ports.width, u64::from(width));
        pins.set(ports.rate, u64::from(temperature.rate()));
        pins.set(ports.start, 1);
        pins.cycle()?;
        pins.set(ports.start, 0);
        let begin = pins.cycles();
        pins.set(ports.valid, 1);
        for (leaf, score) in leaves.iter().enumerate() {
            let is_kept = kept.is_none_or(|kept| kept.get(leaf).copied().unwrap_or(false));
            pins.set(ports.scored, u64::from(score.is_some()));
            // What stands there without a score doesn't count.
            pins.set(ports.score, u64::from(score.unwrap_or(0x5A5A) as u32));
            pins.set(ports.kept, u64::from(is_kept));
            pins.set(ports.last, u64::from(leaf + 1 == leaves.len()));
            pins.cycle()?;
        }
        pins.set(ports.valid, 0);
        Ok(begin)
    }

    /// Shares a width; without a mask all leaves are kept, and one that is too short keeps nothing behind its end.
    ///
    /// # Errors
    /// There is no leaf or there are too many, the width has more than 16 bits, or the simulation fails.
    pub fn run(
        &mut self,
        scores: &Scores,
        kept: Option<&[bool]>,
        temperature: Temperature,
        width: u32,
    ) -> Result<AllocatorRun, EtsError> {
        let begin = self.offer(scores, kept, temperature, width)?;
        let leaves = scores.fixed();
        let pins = &mut self.pins;
        let ports = &self.ports;
        let mut order = Vec::new();
        let mut counts = vec![0; leaves.len()];
        while pins.get(ports.done) == 0 {
            if pins.get(ports.served) == 1 {
                let leaf = pins.get(ports.served_leaf) as usize;
                order.push(leaf);
                if let Some(count) = counts.get_mut(leaf) {
                    *count = pins.get(ports.served_count) as u32;
                }
            }
            pins.cycle()?;
            if pins.cycles() - begin > PATIENCE {
                return Err(EtsError::Endless(PATIENCE));
            }
        }
        let cycles = pins.cycles() - begin;
        for (leaf, count) in counts.iter_mut().enumerate() {
            pins.set(ports.asked, leaf as u64);
            pins.settle()?;
            // What it tells afterwards is what it gave.
            if pins.get(ports.count) != u64::from(*count) {
                *count = u32::MAX;
            }
        }
        Ok(AllocatorRun {
            allocation: Allocation { order, counts },
            left: pins.get(ports.left) as u32,
            cycles,
        })
    }
}
