//! The allocator: how often each leaf is continued.

use super::sort::ENTRY;
use super::weights::SHARE;
use super::{LeafSorter, NUMBER, ShareServer, WEIGHT, WeightPipe};
use crate::memory::LutRam;
use crate::prelude::*;

/// Bits of the sum of all weights: of 256 of them.
const SUM: usize = SHARE + NUMBER;
/// Of a product of width and weight, and of the sum shifted by a width's bits.
const PRODUCT: usize = WEIGHT + SHARE;
const SHIFTED: usize = WEIGHT + SUM;

/// What the allocator does.
mod state {
    pub const DONE: u64 = 0;
    pub const SORT: u64 = 1;
    pub const FIRST: u64 = 2;
    pub const WEIGH: u64 = 3;
    pub const BEGIN: u64 = 4;
    pub const SERVE: u64 = 5;
}

const DONE: u64 = state::DONE;
const SORT: u64 = state::SORT;
const FIRST: u64 = state::FIRST;
const WEIGH: u64 = state::WEIGH;
const BEGIN: u64 = state::BEGIN;
const SERVE: u64 = state::SERVE;

/// Shares a width among up to 2^A leaves.
#[derive(LogicBlock, PortAccess, Default)]
pub struct Allocator<const A: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Leaves will come; what is under way is dropped.
    pub start: Signal<In, Bit>,
    /// What is to be shared. This and the next stay as they are from `start` to `done`.
    pub width: Signal<In, Bits<WEIGHT>>,
    /// log₂e / T in 16 fractional bits.
    pub rate: Signal<In, Bits<32>>,
    /// A leaf is offered, and taken; leaves are numbered from 0 in the order in which they come.
    pub leaf_valid: Signal<In, Bit>,
    /// It has a score.
    pub leaf_scored: Signal<In, Bit>,
    /// Two's complement with 16 fractional bits.
    pub leaf_score: Signal<In, Bits<32>>,
    /// It may get something.
    pub leaf_kept: Signal<In, Bit>,
    /// It is the last.
    pub leaf_last: Signal<In, Bit>,
    /// The width is shared; until the next `start`.
    pub done: Signal<Out, Bit>,
    /// A leaf is served.
    pub served: Signal<Out, Bit>,
    /// Its number.
    pub served_leaf: Signal<Out, Bits<NUMBER>>,
    /// What it gets.
    pub served_count: Signal<Out, Bits<WEIGHT>>,
    /// What is left of the width.
    pub left: Signal<Out, Bits<WEIGHT>>,
    /// Which leaf is asked for.
    pub leaf: Signal<In, Bits<NUMBER>>,
    /// What it got.
    pub count: Signal<Out, Bits<WEIGHT>>,

    sorter: LeafSorter<A>,
    weights: WeightPipe,
    server: ShareServer<WEIGHT, SHARE, SUM, PRODUCT, SHIFTED>,
    shares: LutRam<SHARE, A>,
    counts: LutRam<WEIGHT, A>,
    state: Register<Bits<3>>,
    number: DataRegister<Bits<NUMBER>>,
    best: DataRegister<Bits<ENTRY>>,
    place: DataRegister<Bits<NUMBER>>,
    weighing: DataRegister<Bit>,
    /// A leaf in its order, to be weighed.
    found: DataRegister<Bits<ENTRY>>,
    is_found: DataRegister<Bit>,
    weighed: DataRegister<Bits<NUMBER>>,
    sum: DataRegister<Bits<SUM>>,
    scored: Signal<Local, Bit>,
    score: Signal<Local, Bits<32>>,
}

/// Shares a width among leaves by the softmax of their scores (`golden::ets::allocate` is its twin): sorts them, makes a weight of each score, and serves them by falling score.
#[kernel]
impl<const A: usize> Logic for Allocator<A> {
    fn update(&mut self) {
        registers!(self, clock, reset, state);
        data_registers!(
            self, clock, number, best, place, weighing, found, is_found, weighed, sum
        );

        // Leaves are sorted; those that get nothing as if they had no score.
        self.scored.next = self.leaf_scored.val() && self.leaf_kept.val();
        self.score.next = 0.into();
        if self.scored.val() {
            self.score.next = self.leaf_score.val() ^ 0x8000_0000_u64;
        }
        self.sorter.clock.next = self.clock.val();
        self.sorter.reset.next = self.reset.val();
        self.sorter.start.next = self.start.val();
        self.sorter.entry_valid.next = self.leaf_valid.val() && self.state.q.val() == SORT;
        self.sorter.entry_last.next = self.leaf_last.val();
        self.sorter.entry.next = bit_cast::<ENTRY, 1>(self.scored.val().into()) << 41
            | bit_cast::<ENTRY, 32>(self.score.val()) << 9
            | bit_cast::<ENTRY, 1>(self.leaf_kept.val().into()) << 8
            | bit_cast::<ENTRY, NUMBER>(self.number.q.val());
        self.sorter.place.next = self.place.q.val();
        if self.sorter.entry_valid.val() {
            self.number.d.next = self.number.q.val() + 1;
        }

        // Each gets its weight.
        self.weights.clock.next = self.clock.val();
        // What is under way is dropped.
        self.weights.reset.next = self.reset.val() || self.start.val();
        self.weights.best.next = self.best.q.val();
        self.weights.rate.next = self.rate.val();
        self.found.d.next = self.sorter.found.val();
        self.is_found.d.next =
            self.state.q.val() == WEIGH && self.weighing.q.val() && !self.start.val();
        self.weights.leaf_valid.next = self.is_found.q.val();
        self.weights.leaf.next = self.found.q.val();
        self.shares.clock.next = self.clock.val();
        self.shares.write.next = self.state.q.val() == WEIGH && self.weights.weight_valid.val();
        self.shares.write_address.next = bit_cast::<A, NUMBER>(self.weighed.q.val());
        self.shares.write_data.next = self.weights.weight.val();
        self.shares.read_address.next = bit_cast::<A, NUMBER>(self.place.q.val());

        // Each is served.
        self.server.clock.next = self.clock.val();
        self.server.reset.next = self.reset.val();
        self.server.start.next = self.state.q.val() == BEGIN;
        self.server.width.next = self.width.val();
        self.server.total.next = self.sum.q.val();
        self.server.leaf_valid.next = self.state.q.val() == SERVE;
        self.server.leaf_weight.next = self.shares.read_data.val();
        self.served.next = self.state.q.val() == SERVE && self.server.given.val();
        self.served_leaf.next = self.sorter.found.val().get_bits::<NUMBER>(0);
        self.served_count.next = self.server.share.val();
        self.left.next = self.server.left.val();
        self.counts.clock.next = self.clock.val();
        self.counts.write.next = self.served.val();
        self.counts.write_address.next = bit_cast::<A, NUMBER>(self.served_leaf.val());
        self.counts.write_data.next = self.server.share.val();
        self.counts.read_address.next = bit_cast::<A, NUMBER>(self.leaf.val());
        self.count.next = self.counts.read_data.val();

        self.done.next = self.state.q.val() == DONE;
        if self.state.q.val() == SORT && self.sorter.done.val() {
            self.state.d.next = FIRST.into();
            self.place.d.next = 0.into();
        }
        if self.state.q.val() == FIRST {
            self.state.d.next = WEIGH.into();
            self.best.d.next = self.sorter.found.val();
            self.weighing.d.next = true;
            self.weighed.d.next = 0.into();
            self.sum.d.next = 0.into();
        }
        if self.state.q.val() == WEIGH {
            self.place.d.next = self.place.q.val() + 1;
            if self.place.q.val() == self.sorter.last.val() {
                self.weighing.d.next = false;
            }
            if self.weights.weight_valid.val() {
                self.weighed.d.next = self.weighed.q.val() + 1;
                self.sum.d.next =
                    self.sum.q.val() + bit_cast::<SUM, SHARE>(self.weights.weight.val());
                if self.weighed.q.val() == self.sorter.last.val() {
                    self.state.d.next = BEGIN.into();
                }
            }
        }
        if self.state.q.val() == BEGIN {
            self.state.d.next = SERVE.into();
            self.place.d.next = 0.into();
        }
        if self.served.val() {
            self.place.d.next = self.place.q.val() + 1;
            if self.place.q.val() == self.sorter.last.val() {
                self.state.d.next = DONE.into();
            }
        }
        if self.start.val() {
            self.state.d.next = SORT.into();
            self.number.d.next = 0.into();
        }
    }
}
