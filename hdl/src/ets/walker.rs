//! The tree's nodes, and the way through those on the paths of some leaves.

use super::{NUMBER, WEIGHT};
use crate::memory::{ADDRESS, LutRam, Ram};
use crate::prelude::*;

/// Bits of a node's number: at most 4096 nodes.
pub const NODE: usize = 12;
/// A node's links: its first child on the paths, whether it has one, whether it has more, whether it is on a path.
const LINKS: usize = NODE + 3;
const LINKS_HAS: usize = NODE;
const LINKS_MANY: usize = NODE + 1;
const LINKS_MARKED: usize = NODE + 2;
/// A node's parent or sibling, and whether it has one.
const LINK: usize = NODE + 1;
/// A node that waits, and its depth.
const WAITING: usize = NODE + NUMBER;

/// What the walker does.
mod state {
    pub const IDLE: u64 = 0;
    pub const LEAF: u64 = 1;
    pub const LOOK: u64 = 2;
    pub const MARK: u64 = 3;
    pub const GO: u64 = 4;
    pub const VISIT: u64 = 5;
}

const IDLE: u64 = state::IDLE;
const LEAF: u64 = state::LEAF;
const LOOK: u64 = state::LOOK;
const MARK: u64 = state::MARK;
const GO: u64 = state::GO;
const VISIT: u64 = state::VISIT;

/// Walks up from leaves, and then through all nodes it met.
#[derive(LogicBlock, PortAccess)]
pub struct TreeWalker {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// Write a node; not during a walk.
    pub write: Signal<In, Bit>,
    /// Which.
    pub write_node: Signal<In, Bits<NODE>>,
    /// It has no parent.
    pub write_root: Signal<In, Bit>,
    /// Its parent.
    pub write_parent: Signal<In, Bits<NODE>>,
    /// What it costs.
    pub write_cost: Signal<In, Bits<WEIGHT>>,
    /// A walk begins; ignored during one.
    pub start: Signal<In, Bit>,
    /// A leaf is offered: the last of the list first.
    pub leaf_valid: Signal<In, Bit>,
    /// It is taken.
    pub leaf_ready: Signal<Out, Bit>,
    /// Its node.
    pub leaf_node: Signal<In, Bits<NODE>>,
    /// Its number.
    pub leaf_number: Signal<In, Bits<NUMBER>>,
    /// There is no more.
    pub leaf_last: Signal<In, Bit>,
    /// A node is visited.
    pub visit_valid: Signal<Out, Bit>,
    /// The visit is over.
    pub visit_ready: Signal<In, Bit>,
    /// The node.
    pub visit_node: Signal<Out, Bits<NODE>>,
    /// How many nodes above it have more than one child on the paths.
    pub visit_depth: Signal<Out, Bits<NUMBER>>,
    /// It has exactly one child, which is visited next.
    pub visit_single: Signal<Out, Bit>,
    /// It is a leaf.
    pub visit_leaf: Signal<Out, Bit>,
    /// The leaf's number.
    pub visit_number: Signal<Out, Bits<NUMBER>>,
    /// What the node costs.
    pub visit_cost: Signal<Out, Bits<WEIGHT>>,
    /// It is the last.
    pub visit_last: Signal<Out, Bit>,
    /// There is a walk.
    pub busy: Signal<Out, Bit>,

    parents: Ram<LINK>,
    costs: Ram<WEIGHT>,
    links: Ram<LINKS>,
    siblings: Ram<LINK>,
    numbers: Ram<NUMBER>,
    stack: LutRam<WAITING, NUMBER>,
    state: Register<Bits<3>>,
    node: DataRegister<Bits<NODE>>,
    child: DataRegister<Bits<NODE>>,
    has_child: DataRegister<Bit>,
    number: DataRegister<Bits<NUMBER>>,
    last_leaf: DataRegister<Bit>,
    root: DataRegister<Bits<NODE>>,
    depth: DataRegister<Bits<NUMBER>>,
    waiting: DataRegister<Bits<NUMBER>>,
    is_root: Signal<Local, Bit>,
    has: Signal<Local, Bit>,
    many: Signal<Local, Bit>,
    marked: Signal<Local, Bit>,
    has_sibling: Signal<Local, Bit>,
    deeper: Signal<Local, Bits<NUMBER>>,
    word: Signal<Local, Bits<LINKS>>,
    set: Signal<Local, Bit>,
}

impl TreeWalker {
    /// With room for so many nodes: a power of two, at most 4096.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        let nodes = nodes.min(1 << NODE);
        Self {
            clock: Default::default(),
            reset: Default::default(),
            write: Default::default(),
            write_node: Default::default(),
            write_root: Default::default(),
            write_parent: Default::default(),
            write_cost: Default::default(),
            start: Default::default(),
            leaf_valid: Default::default(),
            leaf_ready: Default::default(),
            leaf_node: Default::default(),
            leaf_number: Default::default(),
            leaf_last: Default::default(),
            visit_valid: Default::default(),
            visit_ready: Default::default(),
            visit_node: Default::default(),
            visit_depth: Default::default(),
            visit_single: Default::default(),
            visit_leaf: Default::default(),
            visit_number: Default::default(),
            visit_cost: Default::default(),
            visit_last: Default::default(),
            busy: Default::default(),
            parents: Ram::new(nodes),
            costs: Ram::new(nodes),
            links: Ram::new(nodes),
            siblings: Ram::new(nodes),
            numbers: Ram::new(nodes),
            stack: Default::default(),
            state: Default::default(),
            node: Default::default(),
            child: Default::default(),
            has_child: Default::default(),
            number: Default::default(),
            last_leaf: Default::default(),
            root: Default::default(),
            depth: Default::default(),
            waiting: Default::default(),
            is_root: Default::default(),
            has: Default::default(),
            many: Default::default(),
            marked: Default::default(),
            has_sibling: Default::default(),
            deeper: Default::default(),
            word: Default::default(),
            set: Default::default(),
        }
    }
}

/// Walks up from each leaf until it meets a node that is on a path already, and links each node as its parent's first child; then visits all of them, depth first, and unlinks them (`golden::ets::depth_first` is its twin).
///
/// Two cycles for each node on the way up, and two for each visit. Of a node that has children its sibling waits on a stack, which is never deeper than there are nodes with more than one child above.
#[kernel]
impl Logic for TreeWalker {
    fn update(&mut self) {
        registers!(self, clock, reset, state);
        data_registers!(
            self, clock, node, child, has_child, number, last_leaf, root, depth, waiting
        );
        self.parents.clock.next = self.clock.val();
        self.costs.clock.next = self.clock.val();
        self.links.clock.next = self.clock.val();
        self.siblings.clock.next = self.clock.val();
        self.numbers.clock.next = self.clock.val();
        self.stack.clock.next = self.clock.val();

        // Everything of a node is read at once.
        self.parents.read.next = self.state.q.val() == LOOK || self.state.q.val() == GO;
        self.parents.read_address.next = bit_cast::<ADDRESS, NODE>(self.node.q.val());
        self.costs.read.next = self.state.q.val() == GO;
        self.costs.read_address.next = bit_cast::<ADDRESS, NODE>(self.node.q.val());
        self.links.read.next = self.state.q.val() == LOOK || self.state.q.val() == GO;
        self.links.read_address.next = bit_cast::<ADDRESS, NODE>(self.node.q.val());
        self.siblings.read.next = self.state.q.val() == GO;
        self.siblings.read_address.next = bit_cast::<ADDRESS, NODE>(self.node.q.val());
        self.numbers.read.next = self.state.q.val() == GO;
        self.numbers.read_address.next = bit_cast::<ADDRESS, NODE>(self.node.q.val());
        self.is_root.next = self.parents.read_data.val().get_bit(NODE);
        self.has.next = self.links.read_data.val().get_bit(LINKS_HAS);
        self.many.next = self.links.read_data.val().get_bit(LINKS_MANY);
        self.marked.next = self.links.read_data.val().get_bit(LINKS_MARKED);
        self.has_sibling.next = self.siblings.read_data.val().get_bit(NODE) && !self.is_root.val();

        // Nodes are written.
        self.parents.write.next = self.write.val();
        self.parents.write_address.next = bit_cast::<ADDRESS, NODE>(self.write_node.val());
        self.parents.write_data.next = bit_cast::<LINK, 1>(self.write_root.val().into()) << 12
            | bit_cast::<LINK, NODE>(self.write_parent.val());
        self.costs.write.next = self.write.val();
        self.costs.write_address.next = bit_cast::<ADDRESS, NODE>(self.write_node.val());
        self.costs.write_data.next = self.write_cost.val();

        // On the way up, a node becomes its parent's first child, and what was that becomes its sibling.
        self.set.next =
            self.state.q.val() == MARK && (self.has_child.q.val() || !self.marked.val());
        self.word.next = bit_cast::<LINKS, 1>(true.into()) << 14
            | bit_cast::<LINKS, 1>((self.has_child.q.val() && self.has.val()).into()) << 13
            | bit_cast::<LINKS, 1>(self.has_child.q.val().into()) << 12
            | bit_cast::<LINKS, NODE>(self.child.q.val());
        self.links.write.next = self.write.val()
            || self.set.val()
            || (self.state.q.val() == VISIT && self.visit_ready.val());
        self.links.write_address.next = bit_cast::<ADDRESS, NODE>(self.node.q.val());
        self.links.write_data.next = 0.into();
        if self.set.val() {
            self.links.write_data.next = self.word.val();
        }
        if self.write.val() {
            self.links.write_address.next = bit_cast::<ADDRESS, NODE>(self.write_node.val());
            self.links.write_data.next = 0.into();
        }
        self.siblings.write.next = self.state.q.val() == MARK && self.has_child.q.val();
        self.siblings.write_address.next = bit_cast::<ADDRESS, NODE>(self.child.q.val());
        self.siblings.write_data.next = bit_cast::<LINK, 1>(self.has.val().into()) << 12
            | bit_cast::<LINK, NODE>(self.links.read_data.val().get_bits::<NODE>(0));
        self.numbers.write.next = self.state.q.val() == MARK && !self.has_child.q.val();
        self.numbers.write_address.next = bit_cast::<ADDRESS, NODE>(self.node.q.val());
        self.numbers.write_data.next = self.number.q.val();

        // The steps.
        self.busy.next = self.state.q.val() != IDLE;
        self.leaf_ready.next = self.state.q.val() == LEAF;
        if self.state.q.val() == IDLE && self.start.val() {
            self.state.d.next = LEAF.into();
            self.depth.d.next = 0.into();
            self.waiting.d.next = 0.into();
        }
        if self.state.q.val() == LEAF && self.leaf_valid.val() {
            self.state.d.next = LOOK.into();
            self.node.d.next = self.leaf_node.val();
            self.number.d.next = self.leaf_number.val();
            self.last_leaf.d.next = self.leaf_last.val();
            self.has_child.d.next = false;
        }
        if self.state.q.val() == LOOK {
            self.state.d.next = MARK.into();
        }
        if self.state.q.val() == MARK {
            self.child.d.next = self.node.q.val();
            self.has_child.d.next = true;
            self.node.d.next = self.parents.read_data.val().get_bits::<NODE>(0);
            self.state.d.next = LOOK.into();
            if self.is_root.val() {
                self.root.d.next = self.node.q.val();
            }
            if self.marked.val() || self.is_root.val() {
                self.state.d.next = LEAF.into();
                if self.last_leaf.q.val() {
                    self.state.d.next = GO.into();
                    self.node.d.next = self.root.q.val();
                    if self.is_root.val() {
                        self.node.d.next = self.node.q.val();
                    }
                }
            }
        }
        if self.state.q.val() == GO {
            self.state.d.next = VISIT.into();
        }

        // A visit, and where it goes on: below, beside, or at what waits.
        self.visit_valid.next = self.state.q.val() == VISIT;
        self.visit_node.next = self.node.q.val();
        self.visit_depth.next = self.depth.q.val();
        self.visit_single.next = self.has.val() && !self.many.val();
        self.visit_leaf.next = !self.has.val();
        self.visit_number.next = self.numbers.read_data.val();
        self.visit_cost.next = self.costs.read_data.val();
        self.visit_last.next =
            !self.has.val() && !self.has_sibling.val() && !self.waiting.q.val().any();
        self.stack.write.next = self.state.q.val() == VISIT
            && self.visit_ready.val()
            && self.has.val()
            && self.has_sibling.val();
        self.stack.write_address.next = self.waiting.q.val();
        self.stack.write_data.next = bit_cast::<WAITING, NUMBER>(self.depth.q.val()) << 12
            | bit_cast::<WAITING, NODE>(self.siblings.read_data.val().get_bits::<NODE>(0));
        self.stack.read_address.next = self.waiting.q.val() - 1;
        self.deeper.next = self.depth.q.val();
        if self.many.val() {
            self.deeper.next = self.depth.q.val() + 1;
        }
        if self.state.q.val() == VISIT && self.visit_ready.val() {
            self.state.d.next = GO.into();
            if self.has.val() {
                self.node.d.next = self.links.read_data.val().get_bits::<NODE>(0);
                self.depth.d.next = self.deeper.val();
                if self.has_sibling.val() {
                    self.waiting.d.next = self.waiting.q.val() + 1;
                }
            } else if self.has_sibling.val() {
                self.node.d.next = self.siblings.read_data.val().get_bits::<NODE>(0);
            } else {
                self.node.d.next = self.stack.read_data.val().get_bits::<NODE>(0);
                self.depth.d.next = self.stack.read_data.val().get_bits::<NUMBER>(NODE);
                self.waiting.d.next = self.waiting.q.val() - 1;
            }
            if self.visit_last.val() {
                self.state.d.next = IDLE.into();
            }
        }
    }
}
