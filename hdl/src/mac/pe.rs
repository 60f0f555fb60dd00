//! The processing element.

use super::{FOUR_BIT_SUM, FourBitDot, MIXED_SUM, ScaleAlign, TERM, WIDE_SUM, WideDot};
use crate::prelude::*;
use golden::format::BLOCK;

/// Processing element: one block pair a cycle, exact accumulator of `ACC` bits, result register.
///
/// All PEs of an array step together; the array's controller drives the stage enables.
#[derive(LogicBlock, Default)]
pub struct Pe<const ACC: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Stage 1: take the operands.
    pub load: Signal<In, Bit>,
    /// Stage 2: take the 16-lane sum.
    pub sum: Signal<In, Bit>,
    /// Stage 3: take the scaled and aligned term.
    pub scale: Signal<In, Bit>,
    /// Stage 4: add the term to the accumulator.
    pub accumulate: Signal<In, Bit>,
    /// Stage 4: this term is the first of its output, the accumulator starts from zero.
    pub first: Signal<In, Bit>,
    /// Stage 4: this term is the last of its output, the result register takes the sum.
    pub capture: Signal<In, Bit>,
    /// The weight block is FP8.
    pub weight_fp8: Signal<In, Bit>,
    /// The weight block has a NaN.
    pub weight_nan: Signal<In, Bit>,
    /// The weight block's scale, `{significand, shift}`.
    pub weight_scale: Signal<In, Bits<8>>,
    /// The weight block's lanes.
    pub weight: [Signal<In, Bits<9>>; BLOCK],
    /// The activation block is FP8.
    pub act_fp8: Signal<In, Bit>,
    /// The activation block has a NaN.
    pub act_nan: Signal<In, Bit>,
    /// The activation block's scale, `{significand, shift}`.
    pub act_scale: Signal<In, Bits<8>>,
    /// The activation block's lanes.
    pub act: [Signal<In, Bits<9>>; BLOCK],
    /// The captured accumulator, two's complement in units of 2^-20.
    pub result: Signal<Out, Bits<ACC>>,
    /// The captured sticky NaN.
    pub result_nan: Signal<Out, Bit>,

    // Stage 1: operands. Each set loads only for the modes that use it.
    four_bit_weight: [DataRegister<Bits<5>>; BLOCK],
    four_bit_act: [DataRegister<Bits<5>>; BLOCK],
    wide_weight: [DataRegister<Bits<9>>; BLOCK],
    wide_act: [DataRegister<Bits<9>>; BLOCK],
    operand_weight_fp8: DataRegister<Bit>,
    operand_act_fp8: DataRegister<Bit>,
    operand_weight_scale: DataRegister<Bits<8>>,
    operand_act_scale: DataRegister<Bits<8>>,
    operand_nan: DataRegister<Bit>,
    four_bit_dot: FourBitDot,
    wide_dot: WideDot,
    load_four_bit: Signal<Local, Bit>,
    load_wide: Signal<Local, Bit>,

    // Stage 2: sums and scale product.
    four_bit_sum: DataRegister<Bits<FOUR_BIT_SUM>>,
    mixed_sum: DataRegister<Bits<MIXED_SUM>>,
    wide_sum: DataRegister<Bits<WIDE_SUM>>,
    sum_four_bit: DataRegister<Bit>,
    sum_wide: DataRegister<Bit>,
    significand: DataRegister<Bits<8>>,
    shift: DataRegister<Bits<5>>,
    sum_nan: DataRegister<Bit>,
    weight_significand: Signal<Local, Bits<16>>,
    act_significand: Signal<Local, Bits<16>>,
    significand_product: Signal<Local, Bits<32>>,
    weight_shift: Signal<Local, Bits<5>>,
    act_shift: Signal<Local, Bits<5>>,

    // Stage 3: the term.
    align: ScaleAlign,
    term: DataRegister<Bits<TERM>>,
    term_nan: DataRegister<Bit>,

    // Stage 4: accumulator and result.
    term_extend: SignExtend<TERM, ACC>,
    base: Signal<Local, Bits<ACC>>,
    total: Signal<Local, Bits<ACC>>,
    total_nan: Signal<Local, Bit>,
    accumulator: DataRegister<Bits<ACC>>,
    accumulator_nan: DataRegister<Bit>,
    result_register: DataRegister<Bits<ACC>>,
    result_nan_register: DataRegister<Bit>,
}

/// Multiplies one weight block by one activation block a cycle in any of the four modes and
/// accumulates exactly in units of 2^-20.
///
/// Pipeline: 1 operands, 2 sixteen-lane sum, 3 scaled and aligned term, 4 accumulator.
/// The registers before a datapath load only in the modes that use it.
#[kernel]
impl<const ACC: usize> Logic for Pe<ACC> {
    fn update(&mut self) {
        data_registers!(
            self,
            clock,
            operand_weight_fp8,
            operand_act_fp8,
            operand_weight_scale,
            operand_act_scale,
            operand_nan,
            four_bit_sum,
            mixed_sum,
            wide_sum,
            sum_four_bit,
            sum_wide,
            significand,
            shift,
            sum_nan,
            term,
            term_nan,
            accumulator,
            accumulator_nan,
            result_register,
            result_nan_register
        );

        // Stage 1.
        self.load_four_bit.next = self.load.val() && !self.weight_fp8.val() && !self.act_fp8.val();
        self.load_wide.next = self.load.val() && (self.weight_fp8.val() || self.act_fp8.val());
        for i in 0..BLOCK {
            data_registers!(
                self,
                clock,
                four_bit_weight[i],
                four_bit_act[i],
                wide_weight[i],
                wide_act[i]
            );
            if self.load_four_bit.val() {
                self.four_bit_weight[i].d.next = self.weight[i].val().get_bits::<5>(4);
                self.four_bit_act[i].d.next = self.act[i].val().get_bits::<5>(4);
            }
            if self.load_wide.val() {
                self.wide_weight[i].d.next = self.weight[i].val();
                self.wide_act[i].d.next = self.act[i].val();
            }
            self.four_bit_dot.weight[i].next = self.four_bit_weight[i].q.val();
            self.four_bit_dot.act[i].next = self.four_bit_act[i].q.val();
            self.wide_dot.weight[i].next = self.wide_weight[i].q.val();
            self.wide_dot.act[i].next = self.wide_act[i].q.val();
        }
        if self.load.val() {
            self.operand_weight_fp8.d.next = self.weight_fp8.val();
            self.operand_act_fp8.d.next = self.act_fp8.val();
            self.operand_nan.d.next = self.weight_nan.val() || self.act_nan.val();
            if !self.weight_fp8.val() {
                self.operand_weight_scale.d.next = self.weight_scale.val();
            }
            if !self.act_fp8.val() {
                self.operand_act_scale.d.next = self.act_scale.val();
            }
        }

        // Stage 2. An FP8 block's scale is 1: its significand and shift drop out.
        self.weight_significand.next =
            bit_cast::<16, 4>(self.operand_weight_scale.q.val().get_bits::<4>(4));
        self.act_significand.next =
            bit_cast::<16, 4>(self.operand_act_scale.q.val().get_bits::<4>(4));
        self.weight_shift.next =
            bit_cast::<5, 4>(self.operand_weight_scale.q.val().get_bits::<4>(0));
        self.act_shift.next = bit_cast::<5, 4>(self.operand_act_scale.q.val().get_bits::<4>(0));
        if self.operand_weight_fp8.q.val() {
            self.weight_significand.next = 1.into();
            self.weight_shift.next = 1.into();
        }
        if self.operand_act_fp8.q.val() {
            self.act_significand.next = 1.into();
            self.act_shift.next = 1.into();
        }
        self.significand_product.next = self.weight_significand.val() * self.act_significand.val();
        if self.sum.val() {
            self.sum_nan.d.next = self.operand_nan.q.val();
            self.sum_wide.d.next = self.operand_weight_fp8.q.val() && self.operand_act_fp8.q.val();
            if self.operand_weight_fp8.q.val() && self.operand_act_fp8.q.val() {
                self.wide_sum.d.next = self.wide_dot.sum.val();
            } else {
                self.significand.d.next = bit_cast::<8, 32>(self.significand_product.val());
                self.shift.d.next = self.weight_shift.val() + self.act_shift.val();
                self.sum_four_bit.d.next =
                    !self.operand_weight_fp8.q.val() && !self.operand_act_fp8.q.val();
                if self.operand_weight_fp8.q.val() || self.operand_act_fp8.q.val() {
                    self.mixed_sum.d.next = self.wide_dot.sum.val().get_bits::<MIXED_SUM>(8);
                } else {
                    self.four_bit_sum.d.next = self.four_bit_dot.sum.val();
                }
            }
        }

        // Stage 3.
        self.align.four_bit_sum.next = self.four_bit_sum.q.val();
        self.align.mixed_sum.next = self.mixed_sum.q.val();
        self.align.wide_sum.next = self.wide_sum.q.val();
        self.align.four_bit.next = self.sum_four_bit.q.val();
        self.align.wide.next = self.sum_wide.q.val();
        self.align.significand.next = self.significand.q.val();
        self.align.shift.next = self.shift.q.val();
        if self.scale.val() {
            self.term.d.next = self.align.term.val();
            self.term_nan.d.next = self.sum_nan.q.val();
        }

        // Stage 4.
        self.term_extend.a.next = self.term.q.val();
        self.base.next = self.accumulator.q.val();
        self.total_nan.next = self.accumulator_nan.q.val() || self.term_nan.q.val();
        if self.first.val() {
            self.base.next = 0.into();
            self.total_nan.next = self.term_nan.q.val();
        }
        self.total.next = self.base.val() + self.term_extend.y.val();
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
