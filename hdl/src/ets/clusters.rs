//! What is known of each cluster: its multiplier, how many of its leaves are kept, its owner.

use super::{NUMBER, SIGN, VALUE};
use crate::memory::LutRam;
use crate::prelude::*;

/// A cluster's leaves in a pass: none seen, none kept, one kept, more kept.
const UNSEEN: u64 = 0;
const NONE_KEPT: u64 = 1;
const ONE_KEPT: u64 = 2;
const MORE_KEPT: u64 = 3;

/// Table of up to 2^A clusters.
#[derive(LogicBlock, PortAccess, Default)]
pub struct ClusterTable<const A: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// What a cluster is worth.
    pub cover_worth: Signal<In, Bits<VALUE>>,
    /// By how much multipliers move.
    pub step: Signal<In, Bits<VALUE>>,
    /// A new walk over the clusters begins: the slack becomes 0 if multipliers move.
    pub walk_start: Signal<In, Bit>,
    /// Visit a cluster: forget its leaves.
    pub walk: Signal<In, Bit>,
    /// Which.
    pub walk_cluster: Signal<In, Bits<NUMBER>>,
    /// Its multiplier becomes half of what a cluster is worth.
    pub walk_initial: Signal<In, Bit>,
    /// Its multiplier moves.
    pub walk_move: Signal<In, Bit>,
    /// The cluster counts for the slack.
    pub walk_counts: Signal<In, Bit>,
    /// What is earned in any case: cover less multiplier, summed over the clusters.
    pub slack: Signal<Out, Bits<VALUE>>,
    /// A leaf's cluster.
    pub cluster: Signal<In, Bits<NUMBER>>,
    /// The leaf's number.
    pub number: Signal<In, Bits<NUMBER>>,
    /// Leaves earn multipliers; else owners earn all.
    pub priced: Signal<In, Bit>,
    /// What the leaf earns.
    pub bonus: Signal<Out, Bits<VALUE>>,
    /// Take note of a leaf; not during a walk.
    pub note: Signal<In, Bit>,
    /// Its number.
    pub note_number: Signal<In, Bits<NUMBER>>,
    /// Its cluster.
    pub note_cluster: Signal<In, Bits<NUMBER>>,
    /// It is kept.
    pub selected: Signal<In, Bit>,
    /// Its rank among those that are kept as it is.
    pub rank: Signal<In, Bits<VALUE>>,
    /// Of equal ranks the last leaf owns the cluster, not the first.
    pub late: Signal<In, Bit>,
    /// A leaf of that cluster is kept.
    pub covered: Signal<Out, Bit>,

    multipliers: LutRam<VALUE, A>,
    tallies: LutRam<2, A>,
    ranks: LutRam<VALUE, A>,
    owners: LutRam<NUMBER, A>,
    /// A multiplier that was moved, to be written.
    moved: DataRegister<Bits<VALUE>>,
    moved_at: DataRegister<Bits<A>>,
    moves: DataRegister<Bit>,
    counts: DataRegister<Bit>,
    sum: DataRegister<Bits<VALUE>>,
    noted: Signal<Local, Bits<A>>,
    tally: Signal<Local, Bits<2>>,
    new_tally: Signal<Local, Bits<2>>,
    multiplier: Signal<Local, Bits<VALUE>>,
    room: Signal<Local, Bits<VALUE>>,
    rest: Signal<Local, Bits<VALUE>>,
    behind: Signal<Local, Bits<VALUE>>,
    better: Signal<Local, Bit>,
}

/// Multiplier, tally and owner of each cluster. A walk forgets tallies, and moves multipliers by what the tallies say; a pass reads multipliers or owners, the next one notes leaves.
#[kernel]
impl<const A: usize> Logic for ClusterTable<A> {
    fn update(&mut self) {
        data_registers!(self, clock, moved, moved_at, moves, counts, sum);
        self.multipliers.clock.next = self.clock.val();
        self.tallies.clock.next = self.clock.val();
        self.ranks.clock.next = self.clock.val();
        self.owners.clock.next = self.clock.val();

        // A walk that moves multipliers meets passes that don't read them, and no notes.
        self.noted.next = bit_cast::<A, NUMBER>(self.note_cluster.val());
        if self.walk.val() {
            self.noted.next = bit_cast::<A, NUMBER>(self.walk_cluster.val());
        }
        self.ranks.read_address.next = self.noted.val();
        self.ranks.write_address.next = self.noted.val();
        self.owners.write_address.next = self.noted.val();
        self.owners.read_address.next = bit_cast::<A, NUMBER>(self.cluster.val());
        self.multipliers.read_address.next = bit_cast::<A, NUMBER>(self.cluster.val());
        self.tallies.read_address.next = self.noted.val();
        self.tallies.write_address.next = self.noted.val();
        if self.walk_move.val() {
            self.multipliers.read_address.next = bit_cast::<A, NUMBER>(self.walk_cluster.val());
        }
        self.tally.next = self.tallies.read_data.val();
        self.multiplier.next = self.multipliers.read_data.val();

        // Multipliers move within 0 and what a cluster is worth, and are written a cycle later.
        self.room.next = self.cover_worth.val() - self.step.val() - self.multiplier.val();
        self.rest.next = self.multiplier.val() - self.step.val();
        self.moved.d.next = self.multiplier.val();
        if self.tally.val() == MORE_KEPT {
            self.moved.d.next = self.rest.val();
            if self.rest.val().get_bit(SIGN) {
                self.moved.d.next = 0.into();
            }
        }
        if self.tally.val() == UNSEEN || self.tally.val() == NONE_KEPT {
            self.moved.d.next = self.multiplier.val() + self.step.val();
            if self.room.val().get_bit(SIGN) {
                self.moved.d.next = self.cover_worth.val();
            }
        }
        if self.walk_initial.val() {
            self.moved.d.next = self.cover_worth.val() >> 1;
        }
        self.moved_at.d.next = bit_cast::<A, NUMBER>(self.walk_cluster.val());
        self.moves.d.next = self.walk.val() && (self.walk_initial.val() || self.walk_move.val());
        self.counts.d.next = self.walk.val() && self.walk_counts.val();
        self.multipliers.write.next = self.moves.q.val();
        self.multipliers.write_address.next = self.moved_at.q.val();
        self.multipliers.write_data.next = self.moved.q.val();
        if self.counts.q.val() {
            self.sum.d.next = self.sum.q.val() + self.cover_worth.val() - self.moved.q.val();
        }
        if self.walk_start.val() {
            self.sum.d.next = 0.into();
        }
        self.slack.next = self.sum.q.val();

        // What a leaf earns.
        self.bonus.next = 0.into();
        if self.owners.read_data.val() == self.number.val() {
            self.bonus.next = self.cover_worth.val();
        }
        if self.priced.val() {
            self.bonus.next = self.multiplier.val();
        }

        // Leaves are noted: kept ones before others, then by rank.
        self.covered.next = self.tally.val() == ONE_KEPT || self.tally.val() == MORE_KEPT;
        self.behind.next = self.ranks.read_data.val() - self.rank.val();
        self.better.next =
            self.behind.val().get_bit(SIGN) || (self.late.val() && !self.behind.val().any());
        if self.covered.val() != self.selected.val() {
            self.better.next = self.selected.val();
        }
        if self.tally.val() == UNSEEN {
            self.better.next = true;
        }
        self.new_tally.next = self.tally.val();
        if self.selected.val() {
            self.new_tally.next = ONE_KEPT.into();
            if self.covered.val() {
                self.new_tally.next = MORE_KEPT.into();
            }
        } else if self.tally.val() == UNSEEN {
            self.new_tally.next = NONE_KEPT.into();
        }
        self.tallies.write.next = self.note.val() || self.walk.val();
        self.tallies.write_data.next = self.new_tally.val();
        if self.walk.val() {
            self.tallies.write_data.next = UNSEEN.into();
        }
        self.ranks.write.next = self.note.val() && self.better.val();
        self.ranks.write_data.next = self.rank.val();
        self.owners.write.next = self.note.val() && self.better.val();
        self.owners.write_data.next = self.note_number.val();
    }
}
