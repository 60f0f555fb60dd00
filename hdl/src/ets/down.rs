//! The pass from the first vertex to the last.

use super::{NUMBER, SIGN, VALUE};
use crate::memory::LutRam;
use crate::prelude::*;

/// Keeps what is worth it below what is kept, and counts what the set is worth. Depths have A bits.
#[derive(LogicBlock, PortAccess, Default)]
pub struct DownPass<const A: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// A new pass begins; no vertex in this cycle.
    pub start: Signal<In, Bit>,
    /// There is a vertex.
    pub enable: Signal<In, Bit>,
    /// Its depth.
    pub depth: Signal<In, Bits<NUMBER>>,
    /// It is a leaf.
    pub leaf: Signal<In, Bit>,
    /// A leaf's number.
    pub number: Signal<In, Bits<NUMBER>>,
    /// What it adds by itself.
    pub value: Signal<In, Bits<VALUE>>,
    /// It is worth keeping.
    pub keep: Signal<In, Bit>,
    /// A leaf's cluster has a leaf that is kept.
    pub covered: Signal<In, Bit>,
    /// What a cluster is worth.
    pub cover_worth: Signal<In, Bits<VALUE>>,
    /// The vertex is kept.
    pub selected: Signal<Out, Bit>,
    /// A kept vertex's value, or else what is added if it and what is above it is kept.
    pub rank: Signal<Out, Bits<VALUE>>,
    /// What the set is worth; if no leaf is kept, that of the leaf that costs least to add.
    pub worth: Signal<Out, Bits<VALUE>>,
    /// No leaf is kept.
    pub none: Signal<Out, Bit>,
    /// The leaf that costs least to add, of equal ones the first.
    pub alone: Signal<Out, Bits<NUMBER>>,

    kept_above: LutRam<1, A>,
    missing_above: LutRam<VALUE, A>,
    sum: DataRegister<Bits<VALUE>>,
    any: DataRegister<Bit>,
    seen: DataRegister<Bit>,
    most: DataRegister<Bits<VALUE>>,
    most_number: DataRegister<Bits<NUMBER>>,
    root: Signal<Local, Bit>,
    above: Signal<Local, Bits<A>>,
    kept: Signal<Local, Bit>,
    missing: Signal<Local, Bits<VALUE>>,
    behind: Signal<Local, Bits<VALUE>>,
    earned: Signal<Local, Bits<VALUE>>,
}

/// Takes vertices from the first to the last, one a cycle. A vertex is kept if it is worth it and the one above it is kept; the root always is.
///
/// For each depth two things are remembered of the last vertex there: whether it is kept, and what is added if all that isn't kept of its path is.
#[kernel]
impl<const A: usize> Logic for DownPass<A> {
    fn update(&mut self) {
        data_registers!(self, clock, sum, any, seen, most, most_number);
        self.kept_above.clock.next = self.clock.val();
        self.missing_above.clock.next = self.clock.val();
        self.root.next = self.depth.val() == 0;
        self.above.next = bit_cast::<A, NUMBER>(self.depth.val() - 1);
        self.kept_above.read_address.next = self.above.val();
        self.missing_above.read_address.next = self.above.val();
        self.kept.next =
            self.root.val() || (self.keep.val() && self.kept_above.read_data.val().any());
        self.missing.next = self.missing_above.read_data.val() + self.value.val();
        if self.kept.val() {
            self.missing.next = 0.into();
        }
        self.kept_above.write.next = self.enable.val();
        self.kept_above.write_address.next = bit_cast::<A, NUMBER>(self.depth.val());
        self.kept_above.write_data.next = self.kept.val().into();
        self.missing_above.write.next = self.enable.val();
        self.missing_above.write_address.next = bit_cast::<A, NUMBER>(self.depth.val());
        self.missing_above.write_data.next = self.missing.val();

        self.selected.next = self.kept.val();
        self.rank.next = self.missing.val();
        if self.kept.val() {
            self.rank.next = self.value.val();
        }

        // What the set is worth.
        self.earned.next = self.value.val();
        if self.leaf.val() && !self.covered.val() {
            self.earned.next = self.value.val() + self.cover_worth.val();
        }
        if self.enable.val() && self.kept.val() {
            self.sum.d.next = self.sum.q.val() + self.earned.val();
            self.any.d.next = self.any.q.val() || self.leaf.val();
        }

        // The leaf that costs least to add.
        self.behind.next = self.most.q.val() - self.missing.val();
        if self.enable.val()
            && self.leaf.val()
            && (!self.seen.q.val() || self.behind.val().get_bit(SIGN))
        {
            self.seen.d.next = true;
            self.most.d.next = self.missing.val();
            self.most_number.d.next = self.number.val();
        }
        if self.start.val() {
            self.sum.d.next = 0.into();
            self.any.d.next = false;
            self.seen.d.next = false;
        }
        self.none.next = !self.any.q.val();
        self.alone.next = self.most_number.q.val();
        self.worth.next = self.sum.q.val();
        if !self.any.q.val() {
            self.worth.next = self.sum.q.val() + self.most.q.val() + self.cover_worth.val();
        }
    }
}
