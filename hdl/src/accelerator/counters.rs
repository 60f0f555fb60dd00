//! Counters.

use super::registers::COUNTERS;
use crate::prelude::*;

/// Counters of 32 bits that wrap, in the order of the register map.
#[derive(LogicBlock)]
pub struct Counters {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// All become 0.
    pub clear: Signal<In, Bit>,
    /// What each counts in this cycle.
    pub amount: Vec<Signal<In, Bits<16>>>,
    /// What each has counted.
    pub count: Vec<Signal<Out, Bits<32>>>,
    counts: Vec<Register<Bits<32>>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            clear: Default::default(),
            amount: (0..COUNTERS).map(|_| Default::default()).collect(),
            count: (0..COUNTERS).map(|_| Default::default()).collect(),
            counts: (0..COUNTERS).map(|_| Default::default()).collect(),
        }
    }
}

/// Adds up what happens, for the host and for models of energy: one counter of 32 bits for each event, in the order of the register map.
///
/// They wrap, and become 0 by `reset` or `clear`.
#[kernel]
impl Logic for Counters {
    fn update(&mut self) {
        for i in 0..COUNTERS {
            registers!(self, clock, reset, counts[i]);
            self.counts[i].d.next =
                self.counts[i].q.val() + bit_cast::<32, 16>(self.amount[i].val());
            if self.clear.val() {
                self.counts[i].d.next = 0.into();
            }
            self.count[i].next = self.counts[i].q.val();
        }
    }
}

/// How many block pairs of each mode a step has: rows and columns that count, and how many of them hold FP8 blocks.
#[derive(LogicBlock)]
pub struct PairCounter {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Synchronous reset, active high.
    pub reset: Signal<In, Bit>,
    /// A step happens.
    pub step: Signal<In, Bit>,
    /// Rows that count.
    pub rows: Signal<In, Bits<7>>,
    /// Columns that count.
    pub cols: Signal<In, Bits<7>>,
    /// The row's block is FP8; low where the row does not count.
    pub weight_fp8: Vec<Signal<In, Bit>>,
    /// The column's block is FP8; low where the column does not count.
    pub act_fp8: Vec<Signal<In, Bit>>,
    /// A cycle later: pairs FP4 x FP4, FP4 x FP8, FP8 x FP4, FP8 x FP8, weight first.
    pub pairs: [Signal<Out, Bits<16>>; 4],

    weights: Signal<Local, Bits<7>>,
    acts: Signal<Local, Bits<7>>,
    stepped: Register<Bit>,
    weights_fp8: DataRegister<Bits<7>>,
    weights_fp4: DataRegister<Bits<7>>,
    acts_fp8: DataRegister<Bits<7>>,
    acts_fp4: DataRegister<Bits<7>>,
    products: [MulU<7, 7, 14>; 4],
    _rows: usize,
    _cols: usize,
}

impl PairCounter {
    /// For an array of so many rows and columns.
    #[must_use]
    pub fn new(rows: usize, cols: usize) -> Self {
        Self {
            clock: Default::default(),
            reset: Default::default(),
            step: Default::default(),
            rows: Default::default(),
            cols: Default::default(),
            weight_fp8: (0..rows).map(|_| Default::default()).collect(),
            act_fp8: (0..cols).map(|_| Default::default()).collect(),
            pairs: Default::default(),
            weights: Default::default(),
            acts: Default::default(),
            stepped: Default::default(),
            weights_fp8: Default::default(),
            weights_fp4: Default::default(),
            acts_fp8: Default::default(),
            acts_fp4: Default::default(),
            products: Default::default(),
            _rows: rows,
            _cols: cols,
        }
    }
}

/// Counts a step's block pairs by mode, a cycle later: FP4 x FP4, FP4 x FP8, FP8 x FP4, FP8 x FP8, weight first.
///
/// There is a `weight_fp8` for each row and an `act_fp8` for each column, 1 to 64 of each; at most 64 x 64 pairs a step. Rows and columns beyond
/// the matrix's edge don't count.
#[kernel]
impl Logic for PairCounter {
    fn update(&mut self) {
        registers!(self, clock, reset, stepped);
        data_registers!(self, clock, weights_fp8, weights_fp4, acts_fp8, acts_fp4);
        self.weights.next = 0.into();
        for r in 0..self._rows {
            self.weights.next =
                self.weights.val() + bit_cast::<7, 1>(self.weight_fp8[r].val().into());
        }
        self.acts.next = 0.into();
        for c in 0..self._cols {
            self.acts.next = self.acts.val() + bit_cast::<7, 1>(self.act_fp8[c].val().into());
        }
        self.stepped.d.next = self.step.val();
        if self.step.val() {
            self.weights_fp8.d.next = self.weights.val();
            self.weights_fp4.d.next = self.rows.val() - self.weights.val();
            self.acts_fp8.d.next = self.acts.val();
            self.acts_fp4.d.next = self.cols.val() - self.acts.val();
        }
        for i in 0..4 {
            self.products[i].a.next = self.weights_fp4.q.val();
            self.products[i].b.next = self.acts_fp4.q.val();
        }
        self.products[1].b.next = self.acts_fp8.q.val();
        self.products[2].a.next = self.weights_fp8.q.val();
        self.products[3].a.next = self.weights_fp8.q.val();
        self.products[3].b.next = self.acts_fp8.q.val();
        for i in 0..4 {
            self.pairs[i].next = 0.into();
            if self.stepped.q.val() {
                self.pairs[i].next = bit_cast::<16, 14>(self.products[i].p.val());
            }
        }
    }
}
