//! The pruning engine: which leaves are kept.

use super::{
    ClusterTable, DownPass, NUMBER, PruneLoader, SHAPE, SHAPE_DEPTH, SHAPE_LEAF, SHAPE_NUMBER,
    SIGN, UpPass, VALUE, WEIGHT,
};
use crate::memory::{ADDRESS, LutRam, Ram};
use crate::prelude::*;

/// What the engine does.
mod state {
    pub const LOAD: u64 = 0;
    pub const CLEAR: u64 = 1;
    pub const UP: u64 = 2;
    pub const DOWN: u64 = 3;
    pub const SETTLE: u64 = 4;
    pub const COUNT: u64 = 5;
    pub const DECIDE: u64 = 6;
    pub const DONE: u64 = 7;
}

const LOAD: u64 = state::LOAD;
const CLEAR: u64 = state::CLEAR;
const UP: u64 = state::UP;
const DOWN: u64 = state::DOWN;
const SETTLE: u64 = state::SETTLE;
const COUNT: u64 = state::COUNT;
const DECIDE: u64 = state::DECIDE;
const DONE: u64 = state::DONE;

/// Chooses among up to 2^A leaves; H is A − 1.
#[derive(LogicBlock, PortAccess)]
pub struct PruningEngine<const A: usize, const H: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A new tree begins; what is under way is dropped.
    pub start: Signal<In, Bit>,
    /// A node is offered: all nodes on the leaves' paths, depth first.
    pub node_valid: Signal<In, Bit>,
    /// It is taken.
    pub node_ready: Signal<Out, Bit>,
    /// It has exactly one child, the next node.
    pub node_single: Signal<In, Bit>,
    /// It is a leaf.
    pub node_leaf: Signal<In, Bit>,
    /// How many nodes above it have more than one child.
    pub node_depth: Signal<In, Bits<NUMBER>>,
    /// A leaf's number.
    pub node_number: Signal<In, Bits<NUMBER>>,
    /// A leaf's cluster.
    pub node_cluster: Signal<In, Bits<NUMBER>>,
    /// A leaf's weight.
    pub node_weight: Signal<In, Bits<WEIGHT>>,
    /// What the node costs.
    pub node_cost: Signal<In, Bits<WEIGHT>>,
    /// It is the last.
    pub node_last: Signal<In, Bit>,
    /// What one of the weight is worth. This and the next four stay as they are from `start` to `done`.
    pub gain: Signal<In, Bits<VALUE>>,
    /// What one of the cost takes.
    pub price: Signal<In, Bits<VALUE>>,
    /// What a cluster is worth.
    pub cover_worth: Signal<In, Bits<VALUE>>,
    /// The last cluster: 0 if there is none. Not above the last leaf.
    pub last_cluster: Signal<In, Bits<NUMBER>>,
    /// Rounds at most; 0 is as 1.
    pub rounds: Signal<In, Bits<8>>,
    /// The choice is made; until the next `start`.
    pub done: Signal<Out, Bit>,
    /// No set is worth more.
    pub proved: Signal<Out, Bit>,
    /// What the kept leaves are worth, two's complement.
    pub worth: Signal<Out, Bits<VALUE>>,
    /// Halves of rounds that were made.
    pub halves: Signal<Out, Bits<9>>,
    /// Which leaf is asked for.
    pub leaf: Signal<In, Bits<NUMBER>>,
    /// It is kept.
    pub kept: Signal<Out, Bit>,

    loader: PruneLoader,
    up: UpPass<H>,
    down: DownPass<A>,
    clusters: ClusterTable<A>,
    values: Ram<VALUE>,
    shapes: Ram<SHAPE>,
    /// Whether each vertex is worth keeping.
    keeps: Ram<1>,
    /// The leaves that the last pass kept, and the best.
    first_set: LutRam<1, A>,
    second_set: LutRam<1, A>,
    state: Register<Bits<3>>,
    /// Vertices but one.
    last: DataRegister<Bits<ADDRESS>>,
    count: DataRegister<Bits<ADDRESS>>,
    /// The vertex that is read.
    at: DataRegister<Bits<ADDRESS>>,
    reading: DataRegister<Bit>,
    /// What was read a cycle ago.
    there: DataRegister<Bits<ADDRESS>>,
    is_there: DataRegister<Bit>,
    /// The vertex of two cycles ago.
    place: DataRegister<Bits<ADDRESS>>,
    is_placed: DataRegister<Bit>,
    value: DataRegister<Bits<VALUE>>,
    shape: DataRegister<Bits<SHAPE>>,
    above: DataRegister<Bits<NUMBER>>,
    keep: DataRegister<Bit>,
    /// That of three cycles ago, in a pass up.
    raised: DataRegister<Bits<ADDRESS>>,
    is_raised: DataRegister<Bit>,
    /// It is the last of a pass.
    up_ends: DataRegister<Bit>,
    down_ends: DataRegister<Bit>,
    walking: DataRegister<Bit>,
    walk_at: DataRegister<Bits<NUMBER>>,
    /// This is a round's first half.
    priced: DataRegister<Bit>,
    /// It is a round of odd number.
    late: DataRegister<Bit>,
    round: DataRegister<Bits<8>>,
    half: DataRegister<Bits<9>>,
    step: DataRegister<Bits<VALUE>>,
    top: DataRegister<Bits<VALUE>>,
    half_bound: DataRegister<Bits<VALUE>>,
    bounded: DataRegister<Bit>,
    bound: DataRegister<Bits<VALUE>>,
    found: DataRegister<Bit>,
    best: DataRegister<Bits<VALUE>>,
    /// The best set is the second.
    second: DataRegister<Bit>,
    /// The best set is one leaf.
    best_none: DataRegister<Bit>,
    best_alone: DataRegister<Bits<NUMBER>>,
    reached: DataRegister<Bit>,
    is_leaf: Signal<Local, Bit>,
    number: Signal<Local, Bits<NUMBER>>,
    cluster: Signal<Local, Bits<NUMBER>>,
    depth: Signal<Local, Bits<NUMBER>>,
    going_up: Signal<Local, Bit>,
    going_down: Signal<Local, Bit>,
    tighter: Signal<Local, Bits<VALUE>>,
    better: Signal<Local, Bits<VALUE>>,
    distance: Signal<Local, Bits<VALUE>>,
    closes: Signal<Local, Bit>,
    begin_up: Signal<Local, Bit>,
    begin_down: Signal<Local, Bit>,
    last_clear: Constant<Bits<NUMBER>>,
}

impl<const A: usize, const H: usize> Default for PruningEngine<A, H> {
    fn default() -> Self {
        const {
            assert!(
                A >= 2 && A <= NUMBER && H + 1 == A,
                "4 to 256 leaves, half as many pairs of depths"
            )
        };
        Self {
            clock: Default::default(),
            reset: Default::default(),
            start: Default::default(),
            node_valid: Default::default(),
            node_ready: Default::default(),
            node_single: Default::default(),
            node_leaf: Default::default(),
            node_depth: Default::default(),
            node_number: Default::default(),
            node_cluster: Default::default(),
            node_weight: Default::default(),
            node_cost: Default::default(),
            node_last: Default::default(),
            gain: Default::default(),
            price: Default::default(),
            cover_worth: Default::default(),
            last_cluster: Default::default(),
            rounds: Default::default(),
            done: Default::default(),
            proved: Default::default(),
            worth: Default::default(),
            halves: Default::default(),
            leaf: Default::default(),
            kept: Default::default(),
            loader: Default::default(),
            up: Default::default(),
            down: Default::default(),
            clusters: Default::default(),
            values: Ram::new(2 << A),
            shapes: Ram::new(2 << A),
            keeps: Ram::new(2 << A),
            first_set: Default::default(),
            second_set: Default::default(),
            state: Register::new(DONE.into()),
            last: Default::default(),
            count: Default::default(),
            at: Default::default(),
            reading: Default::default(),
            there: Default::default(),
            is_there: Default::default(),
            place: Default::default(),
            is_placed: Default::default(),
            value: Default::default(),
            shape: Default::default(),
            above: Default::default(),
            keep: Default::default(),
            raised: Default::default(),
            is_raised: Default::default(),
            up_ends: Default::default(),
            down_ends: Default::default(),
            walking: Default::default(),
            walk_at: Default::default(),
            priced: Default::default(),
            late: Default::default(),
            round: Default::default(),
            half: Default::default(),
            step: Default::default(),
            top: Default::default(),
            half_bound: Default::default(),
            bounded: Default::default(),
            bound: Default::default(),
            found: Default::default(),
            best: Default::default(),
            second: Default::default(),
            best_none: Default::default(),
            best_alone: Default::default(),
            reached: Default::default(),
            is_leaf: Default::default(),
            number: Default::default(),
            cluster: Default::default(),
            depth: Default::default(),
            going_up: Default::default(),
            going_down: Default::default(),
            tighter: Default::default(),
            better: Default::default(),
            distance: Default::default(),
            closes: Default::default(),
            begin_up: Default::default(),
            begin_down: Default::default(),
            last_clear: Constant::new(((1_u64 << A) - 1).into()),
        }
    }
}

/// Chooses the leaves to keep, by rounds of passes over the tree (`golden::ets::prune` is its twin).
///
/// A round has two halves: leaves earn their clusters' multipliers, which also gives a bound; then only the owner of each cluster earns what the cluster is worth. Each half is a pass up, from the last vertex to the first,
/// and a pass down, one vertex a cycle, and some cycles for what is under way and to compare. While the second half's pass goes up, a walk over the clusters moves the multipliers by what the first half kept.
/// The best set is kept, the other memory takes the next one. It ends after so many rounds, or when the best set reaches the bound.
#[kernel]
impl<const A: usize, const H: usize> Logic for PruningEngine<A, H> {
    fn update(&mut self) {
        registers!(self, clock, reset, state);
        data_registers!(
            self, clock, last, count, at, reading, there, is_there, place, is_placed, value, shape,
            above, keep, raised, is_raised, up_ends, down_ends, walking, walk_at, priced, late,
            round, half, step, top, half_bound, bounded, bound, found, best, second, best_none,
            best_alone, reached
        );

        // Nodes become vertices.
        self.loader.clock.next = self.clock.val();
        self.loader.reset.next = self.reset.val();
        self.loader.start.next = self.start.val();
        self.loader.node_valid.next = self.node_valid.val() && self.state.q.val() == LOAD;
        self.node_ready.next = self.loader.node_ready.val() && self.state.q.val() == LOAD;
        self.loader.node_single.next = self.node_single.val();
        self.loader.node_leaf.next = self.node_leaf.val();
        self.loader.node_depth.next = self.node_depth.val();
        self.loader.node_number.next = self.node_number.val();
        self.loader.node_cluster.next = self.node_cluster.val();
        self.loader.node_weight.next = self.node_weight.val();
        self.loader.node_cost.next = self.node_cost.val();
        self.loader.node_last.next = self.node_last.val();
        self.loader.gain.next = self.gain.val();
        self.loader.price.next = self.price.val();
        self.values.clock.next = self.clock.val();
        self.values.write.next = self.loader.write.val();
        self.values.write_address.next = self.count.q.val();
        self.values.write_data.next = self.loader.write_value.val();
        self.shapes.clock.next = self.clock.val();
        self.shapes.write.next = self.loader.write.val();
        self.shapes.write_address.next = self.count.q.val();
        self.shapes.write_data.next = self.loader.write_shape.val();
        if self.loader.write.val() {
            self.last.d.next = self.count.q.val();
            self.count.d.next = self.count.q.val() + 1;
        }

        // Vertices are read one a cycle, are there a cycle later, and in registers another one later.
        self.values.read.next = self.reading.q.val();
        self.values.read_address.next = self.at.q.val();
        self.shapes.read.next = self.reading.q.val();
        self.shapes.read_address.next = self.at.q.val();
        self.keeps.clock.next = self.clock.val();
        self.keeps.read.next = self.reading.q.val();
        self.keeps.read_address.next = self.at.q.val();
        self.there.d.next = self.at.q.val();
        self.is_there.d.next = self.reading.q.val();
        self.place.d.next = self.there.q.val();
        self.is_placed.d.next = self.is_there.q.val();
        self.value.d.next = self.values.read_data.val();
        self.shape.d.next = self.shapes.read_data.val();
        self.above.d.next = self.shapes.read_data.val().get_bits::<NUMBER>(SHAPE_DEPTH) - 1;
        self.keep.d.next = self.keeps.read_data.val().any();
        self.going_up.next = self.state.q.val() == UP && self.is_placed.q.val();
        self.going_down.next = self.state.q.val() == DOWN && self.is_placed.q.val();
        self.up_ends.d.next = self.going_up.val() && self.place.q.val() == 0;
        self.down_ends.d.next = self.going_down.val() && self.place.q.val() == self.last.q.val();
        if self.state.q.val() == UP {
            self.at.d.next = self.at.q.val() - 1;
            if self.at.q.val() == 0 {
                self.reading.d.next = false;
            }
        }
        if self.state.q.val() == DOWN {
            self.at.d.next = self.at.q.val() + 1;
            if self.at.q.val() == self.last.q.val() {
                self.reading.d.next = false;
            }
        }
        self.is_leaf.next = self.shape.q.val().get_bit(SHAPE_LEAF);
        self.depth.next = self.shape.q.val().get_bits::<NUMBER>(SHAPE_DEPTH);
        self.number.next = self.shape.q.val().get_bits::<NUMBER>(SHAPE_NUMBER);
        self.cluster.next = self.shape.q.val().get_bits::<NUMBER>(0);

        // Up.
        self.up.clock.next = self.clock.val();
        self.up.clear.next = self.state.q.val() == CLEAR;
        self.up.clear_pair.next = self.walk_at.q.val();
        self.up.enable.next = self.going_up.val();
        self.up.depth.next = self.depth.val();
        self.up.leaf.next = self.is_leaf.val();
        self.up.value.next = self.value.q.val();
        self.up.bonus.next = self.clusters.bonus.val();
        self.raised.d.next = self.place.q.val();
        self.is_raised.d.next = self.going_up.val();
        self.keeps.write.next = self.is_raised.q.val();
        self.keeps.write_address.next = self.raised.q.val();
        self.keeps.write_data.next = self.up.keep.val().into();
        if self.is_raised.q.val() {
            self.top.d.next = self.up.total.val();
        }

        // Down.
        self.down.clock.next = self.clock.val();
        self.down.start.next = self.state.q.val() == UP;
        self.down.enable.next = self.going_down.val();
        self.down.depth.next = self.depth.val();
        self.down.above.next = self.above.q.val();
        self.down.leaf.next = self.is_leaf.val();
        self.down.number.next = self.number.val();
        self.down.cluster.next = self.cluster.val();
        self.down.value.next = self.value.q.val();
        self.down.keep.next = self.keep.q.val();
        self.down.covered.next = self.clusters.covered.val();
        self.down.cover_worth.next = self.cover_worth.val();
        self.first_set.clock.next = self.clock.val();
        self.first_set.write.next = self.down.note.val() && self.second.q.val();
        self.first_set.write_address.next = bit_cast::<A, NUMBER>(self.down.note_number.val());
        self.first_set.write_data.next = self.down.selected.val().into();
        self.second_set.clock.next = self.clock.val();
        self.second_set.write.next = self.down.note.val() && !self.second.q.val();
        self.second_set.write_address.next = bit_cast::<A, NUMBER>(self.down.note_number.val());
        self.second_set.write_data.next = self.down.selected.val().into();

        // Clusters.
        self.clusters.clock.next = self.clock.val();
        self.clusters.cover_worth.next = self.cover_worth.val();
        self.clusters.step.next = self.step.q.val();
        self.clusters.cluster.next = self.cluster.val();
        self.clusters.number.next = self.number.val();
        self.clusters.priced.next = self.priced.q.val();
        self.clusters.note.next = self.down.note.val();
        self.clusters.note_number.next = self.down.note_number.val();
        self.clusters.note_cluster.next = self.down.note_cluster.val();
        self.clusters.selected.next = self.down.selected.val();
        self.clusters.rank.next = self.down.rank.val();
        self.clusters.late.next = self.late.q.val();
        self.clusters.walk.next = self.walking.q.val();
        self.clusters.walk_cluster.next = self.walk_at.q.val();
        self.clusters.walk_initial.next = self.state.q.val() == CLEAR;
        self.clusters.walk_move.next =
            self.state.q.val() == UP && self.walking.q.val() && !self.priced.q.val();
        self.clusters.walk_counts.next = (self.state.q.val() == CLEAR
            && self.walk_at.q.val() <= self.last_cluster.val())
            || self.clusters.walk_move.val();
        if self.walking.q.val() {
            self.walk_at.d.next = self.walk_at.q.val() + 1;
            if self.state.q.val() == UP && self.walk_at.q.val() == self.last_cluster.val() {
                self.walking.d.next = false;
            }
        }

        // The steps.
        self.begin_up.next = false;
        self.begin_down.next = false;
        self.clusters.walk_start.next = false;
        if self.loader.write.val() && self.loader.write_last.val() {
            self.state.d.next = CLEAR.into();
            self.walking.d.next = true;
            self.walk_at.d.next = 0.into();
            self.clusters.walk_start.next = true;
            self.step.d.next = self.cover_worth.val() >> 1;
        }
        if self.state.q.val() == CLEAR && self.walk_at.q.val() == self.last_clear.val() {
            self.begin_up.next = true;
            self.priced.d.next = true;
            self.late.d.next = false;
            self.round.d.next = 1.into();
            self.half.d.next = 0.into();
            self.bounded.d.next = false;
            self.found.d.next = false;
            self.second.d.next = false;
        }
        if self.up_ends.q.val() {
            self.begin_down.next = true;
        }
        if self.down_ends.q.val() {
            self.state.d.next = SETTLE.into();
        }
        if self.state.q.val() == SETTLE {
            self.state.d.next = COUNT.into();
        }

        // The best set and the bound.
        self.half_bound.d.next = self.top.q.val() + self.clusters.slack.val();
        self.tighter.next = self.half_bound.q.val() - self.bound.q.val();
        self.better.next = self.best.q.val() - self.down.worth.val();
        if self.state.q.val() == COUNT {
            self.state.d.next = DECIDE.into();
            self.half.d.next = self.half.q.val() + 1;
            if self.priced.q.val() && (!self.bounded.q.val() || self.tighter.val().get_bit(SIGN)) {
                self.bounded.d.next = true;
                self.bound.d.next = self.half_bound.q.val();
            }
            if !self.found.q.val() || self.better.val().get_bit(SIGN) {
                self.found.d.next = true;
                self.best.d.next = self.down.worth.val();
                self.best_none.d.next = self.down.none.val();
                self.best_alone.d.next = self.down.alone.val();
                self.second.d.next = !self.second.q.val();
            }
        }
        self.distance.next = self.best.q.val() - self.bound.q.val();
        self.closes.next = !self.distance.val().get_bit(SIGN);
        if self.state.q.val() == DECIDE {
            self.reached.d.next = self.closes.val();
            self.priced.d.next = !self.priced.q.val();
            if !self.priced.q.val() {
                self.round.d.next = self.round.q.val() + 1;
                self.late.d.next = !self.late.q.val();
                self.step.d.next = self.step.q.val() - (self.step.q.val() >> 2);
            }
            if self.closes.val()
                || (!self.priced.q.val() && self.round.q.val() >= self.rounds.val())
            {
                self.state.d.next = DONE.into();
            } else {
                self.begin_up.next = true;
                self.clusters.walk_start.next = self.priced.q.val();
            }
        }
        if self.begin_up.val() {
            self.state.d.next = UP.into();
            self.at.d.next = self.last.q.val();
            self.reading.d.next = true;
            self.walking.d.next = true;
            self.walk_at.d.next = 0.into();
        }
        if self.begin_down.val() {
            self.state.d.next = DOWN.into();
            self.at.d.next = 0.into();
            self.reading.d.next = true;
            self.walking.d.next = false;
        }
        if self.start.val() {
            self.up_ends.d.next = false;
            self.down_ends.d.next = false;
            self.state.d.next = LOAD.into();
            self.count.d.next = 0.into();
            self.walking.d.next = false;
            self.reading.d.next = false;
        }

        // What was chosen.
        self.done.next = self.state.q.val() == DONE;
        self.proved.next = self.reached.q.val();
        self.worth.next = self.best.q.val();
        self.halves.next = self.half.q.val();
        self.first_set.read_address.next = bit_cast::<A, NUMBER>(self.leaf.val());
        self.second_set.read_address.next = bit_cast::<A, NUMBER>(self.leaf.val());
        self.kept.next = self.first_set.read_data.val().any();
        if self.second.q.val() {
            self.kept.next = self.second_set.read_data.val().any();
        }
        if self.best_none.q.val() {
            self.kept.next = self.leaf.val() == self.best_alone.q.val();
        }
    }
}
