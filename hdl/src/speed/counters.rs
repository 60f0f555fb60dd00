//! Counters of what passes do.

use super::pipeline::ENTRIES;
use crate::prelude::*;

/// Counters of 32 bits that wrap.
#[derive(LogicBlock)]
pub struct EventCounters {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// All become 0.
    pub clear: Signal<In, Bit>,
    /// What each counts in this cycle.
    pub amount: Vec<Signal<In, Bits<ENTRIES>>>,
    /// What each has counted.
    pub count: Vec<Signal<Out, Bits<32>>>,
    counts: Vec<Register<Bits<32>>>,
    _counters: usize,
}

impl EventCounters {
    /// So many counters.
    #[must_use]
    pub fn new(counters: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            clear: Default::default(),
            amount: (0..counters).map(|_| Default::default()).collect(),
            count: (0..counters).map(|_| Default::default()).collect(),
            counts: (0..counters).map(|_| Default::default()).collect(),
            _counters: counters,
        }
    }
}

/// Adds up what passes do, at most 15 of each a cycle: a counter of 32 bits for each event. They wrap, and become 0 by `reset` or `clear`.
#[kernel]
impl Logic for EventCounters {
    fn update(&mut self) {
        for i in 0..self._counters {
            registers!(self, clock, reset, counts[i]);
            self.counts[i].d.next =
                self.counts[i].q.val() + bit_cast::<32, ENTRIES>(self.amount[i].val());
            if self.clear.val() {
                self.counts[i].d.next = 0.into();
            }
            self.count[i].next = self.counts[i].q.val();
        }
    }
}
