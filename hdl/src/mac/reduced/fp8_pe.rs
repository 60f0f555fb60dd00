//! The processing element without FP4.

use super::super::{
    AlignedProduct, AlignedSum, BOUNDARIES, Boundary, Lane, MAX_STAGES, WIDE_PRODUCT, WIDE_SUM,
    boundaries,
};
use crate::prelude::*;
use golden::format::BLOCK;
use std::array::from_fn;

/// Processing element for FP8 blocks alone: one block pair a cycle, exact accumulator of `ACC` bits, result register.
///
/// Its places for registers are those of the four-mode [`Pe`](crate::mac::Pe), and so is its control; the stages that a scale needs there pass the
/// sum on.
#[derive(LogicBlock, PortAccess)]
pub struct Fp8Pe<const ACC: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Each boundary takes what is before it; see [`Boundary`].
    pub enable: [Signal<In, Bit>; BOUNDARIES],
    /// Add the term to the accumulator.
    pub accumulate: Signal<In, Bit>,
    /// This term is the first of its output, the accumulator starts from zero.
    pub first: Signal<In, Bit>,
    /// This term is the last of its output, the result register takes the sum.
    pub capture: Signal<In, Bit>,
    /// The weight block has a NaN.
    pub weight_nan: Signal<In, Bit>,
    /// The weight block's lanes.
    pub weight: [Signal<In, Bits<9>>; BLOCK],
    /// The activation block has a NaN.
    pub act_nan: Signal<In, Bit>,
    /// The activation block's lanes.
    pub act: [Signal<In, Bits<9>>; BLOCK],
    /// The captured accumulator, two's complement in units of 2^-20.
    pub result: Signal<Out, Bits<ACC>>,
    /// The captured sticky NaN.
    pub result_nan: Signal<Out, Bit>,
    nan: [PipelineRegister<Bit>; BOUNDARIES],
    operand_weight: [PipelineRegister<Bits<9>>; BLOCK],
    operand_act: [PipelineRegister<Bits<9>>; BLOCK],
    lane: [Lane; BLOCK],
    product: [PipelineRegister<Bits<8>>; BLOCK],
    product_negative: [PipelineRegister<Bit>; BLOCK],
    product_shift: [PipelineRegister<Bits<5>>; BLOCK],
    align: [AlignedProduct; BLOCK],
    aligned: [PipelineRegister<Bits<WIDE_PRODUCT>>; BLOCK],
    aligned_negative: [PipelineRegister<Bit>; BLOCK],
    tree: AlignedSum,
    /// From the sum to the accumulator.
    term: [PipelineRegister<Bits<WIDE_SUM>>; 4],
    term_extend: SignExtend<WIDE_SUM, ACC>,
    base: Signal<Local, Bits<ACC>>,
    total: Signal<Local, Bits<ACC>>,
    total_nan: Signal<Local, Bit>,
    accumulator: DataRegister<Bits<ACC>>,
    accumulator_nan: DataRegister<Bit>,
    result_register: DataRegister<Bits<ACC>>,
    result_nan_register: DataRegister<Bit>,
}

impl<const ACC: usize> Fp8Pe<ACC> {
    /// A PE of so many stages, accumulator included; see [`boundaries`].
    #[must_use]
    pub fn new(stages: usize) -> Self {
        let present = boundaries(stages);
        let at = |boundary: Boundary| present[boundary as usize];
        fn lanes<T: Word, const N: usize>(present: bool) -> [PipelineRegister<T>; N] {
            from_fn(|_| PipelineRegister::new(present))
        }
        Self {
            clock: Default::default(),
            enable: Default::default(),
            accumulate: Default::default(),
            first: Default::default(),
            capture: Default::default(),
            weight_nan: Default::default(),
            weight: Default::default(),
            act_nan: Default::default(),
            act: Default::default(),
            result: Default::default(),
            result_nan: Default::default(),
            nan: from_fn(|i| PipelineRegister::new(present[i])),
            operand_weight: lanes(at(Boundary::Operands)),
            operand_act: lanes(at(Boundary::Operands)),
            lane: Default::default(),
            product: lanes(at(Boundary::Product)),
            product_negative: lanes(at(Boundary::Product)),
            product_shift: lanes(at(Boundary::Product)),
            align: Default::default(),
            aligned: lanes(at(Boundary::Aligned)),
            aligned_negative: lanes(at(Boundary::Aligned)),
            tree: AlignedSum::new(at(Boundary::Partial)),
            term: from_fn(|i| PipelineRegister::new(present[Boundary::Sum as usize + i])),
            term_extend: Default::default(),
            base: Default::default(),
            total: Default::default(),
            total_nan: Default::default(),
            accumulator: Default::default(),
            accumulator_nan: Default::default(),
            result_register: Default::default(),
            result_nan_register: Default::default(),
        }
    }
}

impl<const ACC: usize> Default for Fp8Pe<ACC> {
    fn default() -> Self {
        Self::new(MAX_STAGES)
    }
}

/// Multiplies one FP8 weight block by one FP8 activation block a cycle and accumulates exactly in units of 2^-20.
#[kernel]
impl<const ACC: usize> Logic for Fp8Pe<ACC> {
    fn update(&mut self) {
        for i in 0..BOUNDARIES {
            pipeline_registers!(self, clock, enable[i], nan[i]);
        }
        self.nan[0].d.next = self.weight_nan.val() || self.act_nan.val();
        for i in 1..BOUNDARIES {
            self.nan[i].d.next = self.nan[i - 1].q.val();
        }
        self.tree.clock.next = self.clock.val();
        self.tree.enable.next = self.enable[3].val();
        for i in 0..BLOCK {
            pipeline_registers!(self, clock, enable[0], operand_weight[i], operand_act[i]);
            pipeline_registers!(
                self,
                clock,
                enable[1],
                product[i],
                product_negative[i],
                product_shift[i]
            );
            pipeline_registers!(self, clock, enable[2], aligned[i], aligned_negative[i]);
            self.operand_weight[i].d.next = self.weight[i].val();
            self.operand_act[i].d.next = self.act[i].val();
            self.lane[i].weight.next = self.operand_weight[i].q.val();
            self.lane[i].act.next = self.operand_act[i].q.val();
            self.product[i].d.next = self.lane[i].product.val();
            self.product_negative[i].d.next = self.lane[i].negative.val();
            self.product_shift[i].d.next = self.lane[i].shift.val();
            self.align[i].product.next = self.product[i].q.val();
            self.align[i].negative.next = self.product_negative[i].q.val();
            self.align[i].shift.next = self.product_shift[i].q.val();
            self.aligned[i].d.next = self.align[i].aligned.val();
            self.aligned_negative[i].d.next = self.product_negative[i].q.val();
            self.tree.product[i].next = self.aligned[i].q.val();
            self.tree.negative[i].next = self.aligned_negative[i].q.val();
        }
        for i in 0..4 {
            pipeline_registers!(self, clock, enable[i + 4], term[i]);
        }
        self.term[0].d.next = self.tree.sum.val();
        for i in 1..4 {
            self.term[i].d.next = self.term[i - 1].q.val();
        }

        data_registers!(
            self,
            clock,
            accumulator,
            accumulator_nan,
            result_register,
            result_nan_register
        );
        self.term_extend.a.next = self.term[3].q.val();
        self.base.next = self.accumulator.q.val();
        self.total_nan.next = self.accumulator_nan.q.val() || self.nan[7].q.val();
        if self.first.val() {
            self.base.next = 0.into();
            self.total_nan.next = self.nan[7].q.val();
        }
        // 2^-18 to 2^-20.
        self.total.next = self.base.val() + (self.term_extend.y.val() << 2);
        if self.accumulate.val() {
            self.accumulator.d.next = self.total.val();
            self.accumulator_nan.d.next = self.total_nan.val();
            if self.capture.val() {
                self.result_register.d.next = self.total.val();
                self.result_nan_register.d.next = self.total_nan.val();
            }
        }
        self.result.next = self.result_register.q.val();
        self.result_nan.next = self.result_nan_register.q.val();
    }
}
