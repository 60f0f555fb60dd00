//! A whole selection: allocator, walker and pruning engine with the table of leaves.

use super::{Allocator, NODE, NUMBER, PruningEngine, TreeWalker, VALUE, WEIGHT};
use crate::memory::LutRam;
use crate::prelude::*;

/// Bits of a leaf's entry: its node, its cluster, whether it has a score, and the score.
const LEAF: usize = NODE + NUMBER + 33;
const LEAF_CLUSTER: usize = NODE;
const LEAF_SCORED: usize = NODE + NUMBER;
const LEAF_SCORE: usize = NODE + NUMBER + 1;

/// What the selector does.
mod state {
    pub const DONE: u64 = 0;
    pub const OFFER: u64 = 1;
    pub const MARK: u64 = 2;
    pub const PRUNE: u64 = 3;
    pub const CHOOSE: u64 = 4;
    pub const READ: u64 = 5;
}

const DONE: u64 = state::DONE;
const OFFER: u64 = state::OFFER;
const MARK: u64 = state::MARK;
const PRUNE: u64 = state::PRUNE;
const CHOOSE: u64 = state::CHOOSE;
const READ: u64 = state::READ;

/// Selects among up to 2^A leaves; H is A − 1.
#[derive(LogicBlock, PortAccess)]
pub struct TreeSelector<const A: usize, const H: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Write a node of the tree; not during a selection.
    pub node_write: Signal<In, Bit>,
    /// Which.
    pub node: Signal<In, Bits<NODE>>,
    /// It has no parent.
    pub node_root: Signal<In, Bit>,
    /// Its parent.
    pub node_parent: Signal<In, Bits<NODE>>,
    /// What it costs.
    pub node_cost: Signal<In, Bits<WEIGHT>>,
    /// Write a leaf; not during a selection.
    pub leaf_write: Signal<In, Bit>,
    /// Which leaf is written, or asked for.
    pub leaf: Signal<In, Bits<NUMBER>>,
    /// Its node.
    pub leaf_node: Signal<In, Bits<NODE>>,
    /// Its cluster.
    pub leaf_cluster: Signal<In, Bits<NUMBER>>,
    /// It has a score.
    pub leaf_scored: Signal<In, Bit>,
    /// The score, two's complement with 16 fractional bits.
    pub leaf_score: Signal<In, Bits<32>>,
    /// Select; ignored during a selection. What follows stays as it is until `done`.
    pub start: Signal<In, Bit>,
    /// The last leaf's number.
    pub last_leaf: Signal<In, Bits<NUMBER>>,
    /// The last cluster's.
    pub last_cluster: Signal<In, Bits<NUMBER>>,
    /// The width that is left.
    pub width: Signal<In, Bits<WEIGHT>>,
    /// log₂e / T in 16 fractional bits.
    pub rate: Signal<In, Bits<32>>,
    /// What one of the weight is worth.
    pub gain: Signal<In, Bits<VALUE>>,
    /// What one of the cost takes.
    pub price: Signal<In, Bits<VALUE>>,
    /// What a cluster is worth.
    pub cover_worth: Signal<In, Bits<VALUE>>,
    /// Rounds of the pruning engine at most.
    pub rounds: Signal<In, Bits<8>>,
    /// The selection is made, and what is kept has been read.
    pub done: Signal<Out, Bit>,
    /// Continuations are known; the kept nodes are being read.
    pub selected: Signal<Out, Bit>,
    /// No set of leaves is worth more than the kept ones.
    pub proved: Signal<Out, Bit>,
    /// What they are worth, two's complement.
    pub worth: Signal<Out, Bits<VALUE>>,
    /// Halves of rounds that were made.
    pub halves: Signal<Out, Bits<9>>,
    /// The leaf that is asked for is kept.
    pub leaf_kept: Signal<Out, Bit>,
    /// How often it is continued; or, until `selected`, its weight.
    pub leaf_count: Signal<Out, Bits<WEIGHT>>,
    /// A kept node is to be read, depth first.
    pub read_valid: Signal<Out, Bit>,
    /// It has been.
    pub read_ready: Signal<In, Bit>,
    /// The node.
    pub read_node: Signal<Out, Bits<NODE>>,
    /// How many kept nodes above it have more than one kept child.
    pub read_depth: Signal<Out, Bits<NUMBER>>,
    /// It has exactly one kept child, which is read next.
    pub read_single: Signal<Out, Bit>,
    /// It is a leaf.
    pub read_leaf: Signal<Out, Bit>,
    /// The leaf's number.
    pub read_number: Signal<Out, Bits<NUMBER>>,
    /// It is the last.
    pub read_last: Signal<Out, Bit>,

    leaves: LutRam<LEAF, A>,
    allocator: Allocator<A>,
    walker: TreeWalker,
    engine: PruningEngine<A, H>,
    state: Register<Bits<3>>,
    /// The leaves are those that are kept.
    second: DataRegister<Bit>,
    at: DataRegister<Bits<NUMBER>>,
    /// The smallest leaf that is kept: the last to be marked.
    smallest: DataRegister<Bits<NUMBER>>,
    found: DataRegister<Bit>,
    entry: Signal<Local, Bits<LEAF>>,
    asked: Signal<Local, Bits<NUMBER>>,
    kept: Signal<Local, Bit>,
    begins: Signal<Local, Bit>,
}

impl<const A: usize, const H: usize> TreeSelector<A, H> {
    /// With room for so many nodes: a power of two, at most 4096.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            node_write: Default::default(),
            node: Default::default(),
            node_root: Default::default(),
            node_parent: Default::default(),
            node_cost: Default::default(),
            leaf_write: Default::default(),
            leaf: Default::default(),
            leaf_node: Default::default(),
            leaf_cluster: Default::default(),
            leaf_scored: Default::default(),
            leaf_score: Default::default(),
            start: Default::default(),
            last_leaf: Default::default(),
            last_cluster: Default::default(),
            width: Default::default(),
            rate: Default::default(),
            gain: Default::default(),
            price: Default::default(),
            cover_worth: Default::default(),
            rounds: Default::default(),
            done: Default::default(),
            selected: Default::default(),
            proved: Default::default(),
            worth: Default::default(),
            halves: Default::default(),
            leaf_kept: Default::default(),
            leaf_count: Default::default(),
            read_valid: Default::default(),
            read_ready: Default::default(),
            read_node: Default::default(),
            read_depth: Default::default(),
            read_single: Default::default(),
            read_leaf: Default::default(),
            read_number: Default::default(),
            read_last: Default::default(),
            leaves: Default::default(),
            allocator: Default::default(),
            walker: TreeWalker::new(nodes),
            engine: Default::default(),
            state: Default::default(),
            second: Default::default(),
            at: Default::default(),
            smallest: Default::default(),
            found: Default::default(),
            entry: Default::default(),
            asked: Default::default(),
            kept: Default::default(),
            begins: Default::default(),
        }
    }
}

/// Makes a selection (`golden::ets::select` with `golden::ets::prune` is its twin): shares the width among all leaves, prunes by these weights, shares the width among the leaves that are kept, and walks through their nodes for reading.
///
/// Leaves are offered to the allocator, and then, while it works, to the walker, the last one first. The walker's visits are the pruning engine's nodes; those of the second walk go out.
#[kernel]
impl<const A: usize, const H: usize> Logic for TreeSelector<A, H> {
    fn update(&mut self) {
        registers!(self, clock, reset, state);
        data_registers!(self, clock, second, at, smallest, found);

        // The table of leaves.
        self.leaves.clock.next = self.clock.val();
        self.leaves.write.next = self.leaf_write.val();
        self.leaves.write_address.next = bit_cast::<A, NUMBER>(self.leaf.val());
        self.leaves.write_data.next = bit_cast::<LEAF, 32>(self.leaf_score.val()) << 21
            | bit_cast::<LEAF, 1>(self.leaf_scored.val().into()) << 20
            | bit_cast::<LEAF, NUMBER>(self.leaf_cluster.val()) << 12
            | bit_cast::<LEAF, NODE>(self.leaf_node.val());
        self.asked.next = self.at.q.val();
        if self.state.q.val() == PRUNE {
            self.asked.next = self.walker.visit_number.val();
        }
        if self.state.q.val() == DONE || self.state.q.val() == READ {
            self.asked.next = self.leaf.val();
        }
        self.leaves.read_address.next = bit_cast::<A, NUMBER>(self.asked.val());
        self.entry.next = self.leaves.read_data.val();
        self.engine.leaf.next = self.asked.val();
        self.allocator.leaf.next = self.asked.val();
        self.kept.next = self.engine.kept.val() || !self.second.q.val();
        self.leaf_kept.next = self.engine.kept.val();
        self.leaf_count.next = self.allocator.count.val();

        // The allocator.
        self.allocator.clock.next = self.clock.val();
        self.allocator.reset.next = self.reset.val();
        self.allocator.width.next = self.width.val();
        self.allocator.rate.next = self.rate.val();
        self.allocator.leaf_valid.next = self.state.q.val() == OFFER;
        self.allocator.leaf_scored.next = self.entry.val().get_bit(LEAF_SCORED);
        self.allocator.leaf_score.next = self.entry.val().get_bits::<32>(LEAF_SCORE);
        self.allocator.leaf_kept.next = self.kept.val();
        self.allocator.leaf_last.next = self.at.q.val() == self.last_leaf.val();

        // The walker.
        self.walker.clock.next = self.clock.val();
        self.walker.reset.next = self.reset.val();
        self.walker.write.next = self.node_write.val();
        self.walker.write_node.next = self.node.val();
        self.walker.write_root.next = self.node_root.val();
        self.walker.write_parent.next = self.node_parent.val();
        self.walker.write_cost.next = self.node_cost.val();
        self.walker.leaf_valid.next = self.state.q.val() == MARK && self.kept.val();
        self.walker.leaf_node.next = self.entry.val().get_bits::<NODE>(0);
        self.walker.leaf_number.next = self.at.q.val();
        self.walker.leaf_last.next = self.at.q.val() == self.smallest.q.val();

        // The pruning engine.
        self.engine.clock.next = self.clock.val();
        self.engine.reset.next = self.reset.val();
        self.engine.node_valid.next = self.state.q.val() == PRUNE
            && self.walker.visit_valid.val()
            && self.allocator.done.val();
        self.engine.node_single.next = self.walker.visit_single.val();
        self.engine.node_leaf.next = self.walker.visit_leaf.val();
        self.engine.node_depth.next = self.walker.visit_depth.val();
        self.engine.node_number.next = self.walker.visit_number.val();
        self.engine.node_cluster.next = self.entry.val().get_bits::<NUMBER>(LEAF_CLUSTER);
        self.engine.node_weight.next = self.allocator.count.val();
        self.engine.node_cost.next = self.walker.visit_cost.val();
        self.engine.node_last.next = self.walker.visit_last.val();
        self.engine.gain.next = self.gain.val();
        self.engine.price.next = self.price.val();
        self.engine.cover_worth.next = self.cover_worth.val();
        self.engine.last_cluster.next = self.last_cluster.val();
        self.engine.rounds.next = self.rounds.val();
        self.proved.next = self.engine.proved.val();
        self.worth.next = self.engine.worth.val();
        self.halves.next = self.engine.halves.val();

        // What is read.
        self.read_valid.next = self.state.q.val() == READ && self.walker.visit_valid.val();
        self.read_node.next = self.walker.visit_node.val();
        self.read_depth.next = self.walker.visit_depth.val();
        self.read_single.next = self.walker.visit_single.val();
        self.read_leaf.next = self.walker.visit_leaf.val();
        self.read_number.next = self.walker.visit_number.val();
        self.read_last.next = self.walker.visit_last.val();
        self.walker.visit_ready.next = false;
        if self.state.q.val() == PRUNE {
            self.walker.visit_ready.next =
                self.engine.node_ready.val() && self.allocator.done.val();
        }
        if self.state.q.val() == READ {
            self.walker.visit_ready.next = self.read_ready.val();
        }

        // The steps.
        self.done.next = self.state.q.val() == DONE;
        self.selected.next = self.state.q.val() == DONE || self.state.q.val() == READ;
        self.begins.next = false;
        self.allocator.start.next = false;
        self.walker.start.next = false;
        self.engine.start.next = false;
        if self.state.q.val() == DONE && self.start.val() {
            self.state.d.next = OFFER.into();
            self.second.d.next = false;
            self.engine.start.next = true;
            self.begins.next = true;
        }
        if self.state.q.val() == OFFER {
            self.at.d.next = self.at.q.val() + 1;
            if self.kept.val() && !self.found.q.val() {
                self.found.d.next = true;
                self.smallest.d.next = self.at.q.val();
            }
            if self.at.q.val() == self.last_leaf.val() {
                self.state.d.next = MARK.into();
                self.at.d.next = self.last_leaf.val();
            }
        }
        if self.state.q.val() == MARK && (!self.kept.val() || self.walker.leaf_ready.val()) {
            self.at.d.next = self.at.q.val() - 1;
            if self.at.q.val() == self.smallest.q.val() {
                self.state.d.next = PRUNE.into();
                if self.second.q.val() {
                    self.state.d.next = CHOOSE.into();
                }
            }
        }
        if self.state.q.val() == PRUNE && self.engine.done.val() {
            self.state.d.next = OFFER.into();
            self.second.d.next = true;
            self.begins.next = true;
        }
        if self.state.q.val() == CHOOSE && self.allocator.done.val() {
            self.state.d.next = READ.into();
        }
        if self.begins.val() {
            self.at.d.next = 0.into();
            self.found.d.next = false;
            self.allocator.start.next = true;
            self.walker.start.next = true;
        }
        if self.state.q.val() == READ
            && self.read_valid.val()
            && self.read_ready.val()
            && self.walker.visit_last.val()
        {
            self.state.d.next = DONE.into();
        }
    }
}
