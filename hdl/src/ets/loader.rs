//! Nodes in depth-first order become vertices: chains merged, weights and costs multiplied by their factors.

use super::{NUMBER, SHAPE, VALUE, WEIGHT};
use crate::prelude::*;

/// Bits of a product of a weight or a cost and its factor.
const PRODUCT: usize = WEIGHT + VALUE;

/// Takes nodes and writes vertices.
#[derive(LogicBlock, PortAccess, Default)]
pub struct PruneLoader {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A new tree begins.
    pub start: Signal<In, Bit>,
    /// A node is offered.
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
    /// What one of the weight is worth.
    pub gain: Signal<In, Bits<VALUE>>,
    /// What one of the cost takes.
    pub price: Signal<In, Bits<VALUE>>,
    /// A vertex is written this cycle.
    pub write: Signal<Out, Bit>,
    /// What it adds by itself.
    pub write_value: Signal<Out, Bits<VALUE>>,
    /// What it is.
    pub write_shape: Signal<Out, Bits<SHAPE>>,
    /// It is the last.
    pub write_last: Signal<Out, Bit>,

    multiplier: MulU<WEIGHT, VALUE, PRODUCT>,
    /// The leaf's weight comes next, behind its cost.
    weighing: Register<Bit>,
    /// There are factors, and a cycle later a product.
    factors: Register<Bit>,
    busy: Register<Bit>,
    /// Of each of the two: it is added, it ends a vertex, it ends the tree, the vertex.
    adds: [DataRegister<Bit>; 2],
    ends: [DataRegister<Bit>; 2],
    last: [DataRegister<Bit>; 2],
    shape: [DataRegister<Bits<SHAPE>>; 2],
    weight: DataRegister<Bits<WEIGHT>>,
    amount: DataRegister<Bits<WEIGHT>>,
    factor: DataRegister<Bits<VALUE>>,
    product: DataRegister<Bits<VALUE>>,
    chain: DataRegister<Bits<VALUE>>,
    take: Signal<Local, Bit>,
    sum: Signal<Local, Bits<VALUE>>,
    was_last: DataRegister<Bit>,
}

/// Makes vertices of nodes in depth-first order. A vertex's value is what its leaf's weight is worth, less the price of all nodes of its chain, less one for each of them.
///
/// One node a cycle, and one cycle more for each leaf: cost and weight go through the same multiplier, one behind the other.
#[kernel]
impl Logic for PruneLoader {
    fn update(&mut self) {
        registers!(self, clock, reset, weighing, factors, busy);
        data_registers!(
            self, clock, was_last, weight, amount, factor, product, chain
        );
        for i in 0..2 {
            data_registers!(self, clock, adds[i], ends[i], last[i], shape[i]);
        }
        self.node_ready.next = !self.weighing.q.val();
        self.take.next = self.node_valid.val() && !self.weighing.q.val();
        self.amount.d.next = self.node_cost.val();
        self.factor.d.next = self.price.val();
        if self.weighing.q.val() {
            self.amount.d.next = self.weight.q.val();
            self.factor.d.next = self.gain.val();
        }
        self.factors.d.next = self.take.val() || self.weighing.q.val();
        self.weighing.d.next = false;
        self.adds[0].d.next = self.weighing.q.val();
        if self.take.val() {
            self.weighing.d.next = self.node_leaf.val();
            self.weight.d.next = self.node_weight.val();
            self.shape[0].d.next = bit_cast::<SHAPE, 1>(self.node_leaf.val().into()) << 24
                | bit_cast::<SHAPE, NUMBER>(self.node_depth.val()) << 16
                | bit_cast::<SHAPE, NUMBER>(self.node_number.val()) << 8
                | bit_cast::<SHAPE, NUMBER>(self.node_cluster.val());
            self.ends[0].d.next = !self.node_single.val() && !self.node_leaf.val();
            self.was_last.d.next = self.node_last.val();
            self.last[0].d.next = self.node_last.val() && !self.node_leaf.val();
        }
        if self.weighing.q.val() {
            self.ends[0].d.next = true;
            self.last[0].d.next = self.was_last.q.val();
        }

        // Factors are multiplied a cycle later.
        self.multiplier.a.next = self.amount.q.val();
        self.multiplier.b.next = self.factor.q.val();
        self.product.d.next = bit_cast::<VALUE, PRODUCT>(self.multiplier.p.val());
        self.busy.d.next = self.factors.q.val();
        self.adds[1].d.next = self.adds[0].q.val();
        self.ends[1].d.next = self.ends[0].q.val();
        self.last[1].d.next = self.last[0].q.val();
        self.shape[1].d.next = self.shape[0].q.val();

        // The product is added another cycle later.
        self.sum.next = self.chain.q.val() - self.product.q.val() - 1;
        if self.adds[1].q.val() {
            self.sum.next = self.chain.q.val() + self.product.q.val();
        }
        if self.busy.q.val() {
            self.chain.d.next = self.sum.val();
            if self.ends[1].q.val() {
                self.chain.d.next = 0.into();
            }
        }
        self.write.next = self.busy.q.val() && self.ends[1].q.val();
        self.write_value.next = self.sum.val();
        self.write_shape.next = self.shape[1].q.val();
        self.write_last.next = self.last[1].q.val();
        if self.start.val() {
            self.chain.d.next = 0.into();
            self.weighing.d.next = false;
            self.factors.d.next = false;
            self.busy.d.next = false;
        }
    }
}
