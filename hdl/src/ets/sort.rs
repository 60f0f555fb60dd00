//! Leaves in the order in which they are served.

use super::NUMBER;
use crate::memory::LutRam;
use crate::prelude::*;

/// Bits of a leaf's entry: its key, whether it may be kept, its number.
pub const ENTRY: usize = KEY + 1 + NUMBER;
/// Bits of a key: whether there is a score, and the score with its sign inverted.
pub const KEY: usize = 33;
/// Where they are.
pub(super) const ENTRY_KEPT: usize = NUMBER;
pub(super) const ENTRY_SCORE: usize = NUMBER + 1;
pub(super) const ENTRY_SCORED: usize = NUMBER + KEY;
/// Bits of a number of leaves and of sums of them.
const COUNT: usize = 10;

/// What the sorter does.
mod state {
    pub const TAKE: u64 = 0;
    pub const LEFT: u64 = 1;
    pub const RIGHT: u64 = 2;
    pub const MERGE: u64 = 3;
    pub const DONE: u64 = 4;
}

const TAKE: u64 = state::TAKE;
const LEFT: u64 = state::LEFT;
const RIGHT: u64 = state::RIGHT;
const MERGE: u64 = state::MERGE;
const DONE: u64 = state::DONE;

/// Sorts up to 2^A leaves.
#[derive(LogicBlock, PortAccess)]
pub struct LeafSorter<const A: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Forget all leaves.
    pub start: Signal<In, Bit>,
    /// A leaf is offered, and taken.
    pub entry_valid: Signal<In, Bit>,
    /// It.
    pub entry: Signal<In, Bits<ENTRY>>,
    /// It is the last.
    pub entry_last: Signal<In, Bit>,
    /// They are sorted.
    pub done: Signal<Out, Bit>,
    /// The last place.
    pub last: Signal<Out, Bits<NUMBER>>,
    /// A place to look at.
    pub place: Signal<In, Bits<NUMBER>>,
    /// The leaf there.
    pub found: Signal<Out, Bits<ENTRY>>,

    first: LutRam<ENTRY, A>,
    second: LutRam<ENTRY, A>,
    state: Register<Bits<3>>,
    /// Sorted runs lie in the second memory.
    second_holds: DataRegister<Bit>,
    leaves: DataRegister<Bits<COUNT>>,
    run: DataRegister<Bits<COUNT>>,
    base: DataRegister<Bits<COUNT>>,
    /// Behind the last of each run.
    left_end: DataRegister<Bits<COUNT>>,
    right_end: DataRegister<Bits<COUNT>>,
    left_at: DataRegister<Bits<COUNT>>,
    right_at: DataRegister<Bits<COUNT>>,
    out_at: DataRegister<Bits<COUNT>>,
    left_head: DataRegister<Bits<ENTRY>>,
    right_head: DataRegister<Bits<ENTRY>>,
    read_at: Signal<Local, Bits<COUNT>>,
    read: Signal<Local, Bits<ENTRY>>,
    left_stop: Signal<Local, Bits<COUNT>>,
    right_stop: Signal<Local, Bits<COUNT>>,
    left_has: Signal<Local, Bit>,
    right_has: Signal<Local, Bit>,
    take_left: Signal<Local, Bit>,
    behind: Signal<Local, Bits<COUNT>>,
}

impl<const A: usize> Default for LeafSorter<A> {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            entry_valid: Default::default(),
            entry: Default::default(),
            entry_last: Default::default(),
            done: Default::default(),
            last: Default::default(),
            place: Default::default(),
            found: Default::default(),
            first: Default::default(),
            second: Default::default(),
            state: Default::default(),
            second_holds: Default::default(),
            leaves: Default::default(),
            run: Default::default(),
            base: Default::default(),
            left_end: Default::default(),
            right_end: Default::default(),
            left_at: Default::default(),
            right_at: Default::default(),
            out_at: Default::default(),
            left_head: Default::default(),
            right_head: Default::default(),
            read_at: Default::default(),
            read: Default::default(),
            left_stop: Default::default(),
            right_stop: Default::default(),
            left_has: Default::default(),
            right_has: Default::default(),
            take_left: Default::default(),
            behind: Default::default(),
        }
    }
}

/// Merges runs of 1, 2, 4, … leaves from one memory to the other until there is one run: by falling key, of equal ones the first first. A leaf a cycle, and two cycles for each pair of runs.
#[kernel]
impl<const A: usize> Logic for LeafSorter<A> {
    fn update(&mut self) {
        registers!(self, clock, reset, state);
        data_registers!(
            self,
            clock,
            second_holds,
            leaves,
            run,
            base,
            left_end,
            right_end,
            left_at,
            right_at,
            out_at,
            left_head,
            right_head
        );
        self.left_stop.next = self.base.q.val() + self.run.q.val();
        self.right_stop.next = self.base.q.val() + (self.run.q.val() << 1);
        self.left_has.next = self.left_at.q.val() < self.left_end.q.val();
        self.right_has.next = self.right_at.q.val() < self.right_end.q.val();
        self.take_left.next = self.left_has.val()
            && (!self.right_has.val()
                || self.left_head.q.val().get_bits::<KEY>(ENTRY_SCORE)
                    >= self.right_head.q.val().get_bits::<KEY>(ENTRY_SCORE));

        // One read: a head, the one behind the head that goes, or what is asked for.
        self.behind.next = self.right_at.q.val() + 1;
        if self.take_left.val() {
            self.behind.next = self.left_at.q.val() + 1;
        }
        self.read_at.next = bit_cast::<COUNT, NUMBER>(self.place.val());
        if self.state.q.val() == LEFT {
            self.read_at.next = self.base.q.val();
        }
        if self.state.q.val() == RIGHT {
            self.read_at.next = self.left_end.q.val();
        }
        if self.state.q.val() == MERGE {
            self.read_at.next = self.behind.val();
        }
        self.first.clock.next = self.clock.val();
        self.second.clock.next = self.clock.val();
        self.first.read_address.next = bit_cast::<A, COUNT>(self.read_at.val());
        self.second.read_address.next = bit_cast::<A, COUNT>(self.read_at.val());
        self.read.next = self.first.read_data.val();
        if self.second_holds.q.val() {
            self.read.next = self.second.read_data.val();
        }
        self.found.next = self.read.val();
        self.done.next = self.state.q.val() == DONE;
        self.last.next = bit_cast::<NUMBER, COUNT>(self.leaves.q.val() - 1);

        // Leaves come into the first memory.
        self.first.write.next = self.state.q.val() == TAKE && self.entry_valid.val();
        self.first.write_address.next = bit_cast::<A, COUNT>(self.leaves.q.val());
        self.first.write_data.next = self.entry.val();
        self.second.write.next = self.state.q.val() == MERGE && !self.second_holds.q.val();
        self.second.write_address.next = bit_cast::<A, COUNT>(self.out_at.q.val());
        self.second.write_data.next = self.right_head.q.val();
        if self.take_left.val() {
            self.second.write_data.next = self.left_head.q.val();
        }
        if self.state.q.val() == MERGE {
            self.first.write.next = self.second_holds.q.val();
            self.first.write_address.next = bit_cast::<A, COUNT>(self.out_at.q.val());
            self.first.write_data.next = self.second.write_data.val();
        }
        if self.state.q.val() == TAKE && self.entry_valid.val() {
            self.leaves.d.next = self.leaves.q.val() + 1;
            if self.entry_last.val() {
                self.state.d.next = LEFT.into();
                if self.leaves.q.val() == 0 {
                    self.state.d.next = DONE.into();
                }
            }
        }

        // Two runs are merged.
        if self.state.q.val() == LEFT {
            self.left_end.d.next = self.left_stop.val();
            if self.left_stop.val() > self.leaves.q.val() {
                self.left_end.d.next = self.leaves.q.val();
            }
            self.right_end.d.next = self.right_stop.val();
            if self.right_stop.val() > self.leaves.q.val() {
                self.right_end.d.next = self.leaves.q.val();
            }
            self.left_head.d.next = self.read.val();
            self.left_at.d.next = self.base.q.val();
            self.out_at.d.next = self.base.q.val();
            self.state.d.next = RIGHT.into();
        }
        if self.state.q.val() == RIGHT {
            self.right_head.d.next = self.read.val();
            self.right_at.d.next = self.left_end.q.val();
            self.state.d.next = MERGE.into();
        }
        if self.state.q.val() == MERGE {
            self.out_at.d.next = self.out_at.q.val() + 1;
            if self.take_left.val() {
                self.left_head.d.next = self.read.val();
                self.left_at.d.next = self.behind.val();
            } else {
                self.right_head.d.next = self.read.val();
                self.right_at.d.next = self.behind.val();
            }
            if self.out_at.q.val() + 1 == self.right_end.q.val() {
                self.state.d.next = LEFT.into();
                self.base.d.next = self.right_end.q.val();
                if self.right_end.q.val() == self.leaves.q.val() {
                    self.base.d.next = 0.into();
                    self.run.d.next = self.run.q.val() << 1;
                    self.second_holds.d.next = !self.second_holds.q.val();
                    if (self.run.q.val() << 1) >= self.leaves.q.val() {
                        self.state.d.next = DONE.into();
                    }
                }
            }
        }
        if self.start.val() {
            self.state.d.next = TAKE.into();
            self.leaves.d.next = 0.into();
            self.run.d.next = 1.into();
            self.base.d.next = 0.into();
            self.second_holds.d.next = false;
        }
    }
}
