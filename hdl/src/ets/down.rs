//! The pass from the first vertex to the last.

use super::{NUMBER, SIGN, VALUE};
use crate::memory::LutRam;
use crate::prelude::*;

/// Keeps what is worth it below what is kept, and counts what the set is worth. Depths have A bits.
#[derive(LogicBlock, PortAccess, Default)]
pub struct DownPass<const A: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// A new pass begins; no vertex in this cycle or the next one.
    pub start: Signal<In, Bit>,
    /// There is a vertex.
    pub enable: Signal<In, Bit>,
    /// Its depth.
    pub depth: Signal<In, Bits<NUMBER>>,
    /// The depth above it; anything for the root.
    pub above: Signal<In, Bits<NUMBER>>,
    /// It is a leaf.
    pub leaf: Signal<In, Bit>,
    /// A leaf's number.
    pub number: Signal<In, Bits<NUMBER>>,
    /// A leaf's cluster.
    pub cluster: Signal<In, Bits<NUMBER>>,
    /// What it adds by itself.
    pub value: Signal<In, Bits<VALUE>>,
    /// It is worth keeping.
    pub keep: Signal<In, Bit>,
    /// What a cluster is worth.
    pub cover_worth: Signal<In, Bits<VALUE>>,
    /// A leaf is noted: the vertex of the cycle before.
    pub note: Signal<Out, Bit>,
    /// Its number.
    pub note_number: Signal<Out, Bits<NUMBER>>,
    /// Its cluster.
    pub note_cluster: Signal<Out, Bits<NUMBER>>,
    /// It is kept.
    pub selected: Signal<Out, Bit>,
    /// If it is kept its value, or else what is added if it and what is above it is kept.
    pub rank: Signal<Out, Bits<VALUE>>,
    /// Its cluster has had a leaf that is kept.
    pub covered: Signal<In, Bit>,
    /// What the set is worth, a cycle later; if no leaf is kept, that of the leaf that costs least to add.
    pub worth: Signal<Out, Bits<VALUE>>,
    /// No leaf is kept.
    pub none: Signal<Out, Bit>,
    /// The leaf that costs least to add, of equal ones the first.
    pub alone: Signal<Out, Bits<NUMBER>>,

    kept_above: LutRam<1, A>,
    missing_above: LutRam<VALUE, A>,
    there: DataRegister<Bit>,
    is_leaf: DataRegister<Bit>,
    is_kept: DataRegister<Bit>,
    leaf_number: DataRegister<Bits<NUMBER>>,
    leaf_cluster: DataRegister<Bits<NUMBER>>,
    /// What the vertex adds, and the same with what its cluster is worth.
    own: DataRegister<Bits<VALUE>>,
    covering: DataRegister<Bits<VALUE>>,
    /// What is added if it and all above it is kept.
    lacking: DataRegister<Bits<VALUE>>,
    sum: DataRegister<Bits<VALUE>>,
    any: DataRegister<Bit>,
    seen: DataRegister<Bit>,
    most: DataRegister<Bits<VALUE>>,
    most_number: DataRegister<Bits<NUMBER>>,
    alone_worth: DataRegister<Bits<VALUE>>,
    root: Signal<Local, Bit>,
    kept: Signal<Local, Bit>,
    missing: Signal<Local, Bits<VALUE>>,
    behind: Signal<Local, Bits<VALUE>>,
    earned: Signal<Local, Bits<VALUE>>,
}

/// Takes vertices from the first to the last, one a cycle. A vertex is kept if it is worth it and the one above it is kept; the root always is.
///
/// For each depth two things are remembered of the last vertex there: whether it is kept, and what is added if all that isn't kept of its path is. What is counted is counted a cycle later.
#[kernel]
impl<const A: usize> Logic for DownPass<A> {
    fn update(&mut self) {
        data_registers!(
            self,
            clock,
            there,
            is_leaf,
            is_kept,
            leaf_number,
            leaf_cluster,
            own,
            covering,
            lacking,
            sum,
            any,
            seen,
            most,
            most_number,
            alone_worth
        );
        self.kept_above.clock.next = self.clock.val();
        self.missing_above.clock.next = self.clock.val();
        self.root.next = self.depth.val() == 0;
        self.kept_above.read_address.next = bit_cast::<A, NUMBER>(self.above.val());
        self.missing_above.read_address.next = bit_cast::<A, NUMBER>(self.above.val());
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

        // A cycle later.
        self.there.d.next = self.enable.val();
        self.is_leaf.d.next = self.leaf.val();
        self.is_kept.d.next = self.kept.val();
        self.leaf_number.d.next = self.number.val();
        self.leaf_cluster.d.next = self.cluster.val();
        self.own.d.next = self.value.val();
        self.covering.d.next = self.value.val() + self.cover_worth.val();
        self.lacking.d.next = self.missing.val();
        self.note.next = self.there.q.val() && self.is_leaf.q.val();
        self.note_number.next = self.leaf_number.q.val();
        self.note_cluster.next = self.leaf_cluster.q.val();
        self.selected.next = self.is_kept.q.val();
        self.rank.next = self.lacking.q.val();
        if self.is_kept.q.val() {
            self.rank.next = self.own.q.val();
        }

        // What the set is worth.
        self.earned.next = self.own.q.val();
        if self.is_leaf.q.val() && !self.covered.val() {
            self.earned.next = self.covering.q.val();
        }
        if self.there.q.val() && self.is_kept.q.val() {
            self.sum.d.next = self.sum.q.val() + self.earned.val();
            self.any.d.next = self.any.q.val() || self.is_leaf.q.val();
        }

        // The leaf that costs least to add.
        self.behind.next = self.most.q.val() - self.lacking.q.val();
        if self.note.val() && (!self.seen.q.val() || self.behind.val().get_bit(SIGN)) {
            self.seen.d.next = true;
            self.most.d.next = self.lacking.q.val();
            self.most_number.d.next = self.leaf_number.q.val();
        }
        if self.start.val() {
            self.sum.d.next = 0.into();
            self.any.d.next = false;
            self.seen.d.next = false;
        }
        self.none.next = !self.any.q.val();
        self.alone.next = self.most_number.q.val();
        self.alone_worth.d.next = self.most.q.val() + self.cover_worth.val();
        self.worth.next = self.sum.q.val();
        if !self.any.q.val() {
            self.worth.next = self.sum.q.val() + self.alone_worth.q.val();
        }
    }
}
