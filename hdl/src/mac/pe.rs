//! The processing element.

use super::scale::{FOUR_BIT_SCALED, SCALED};
use super::{
    AlignedProduct, AlignedSum, BOUNDARIES, Boundary, FOUR_BIT_SUM, INTEGER_PRODUCT, IntegerLane,
    Lane, MAX_STAGES, MIXED_SUM, ScaleFirst, ScaleSecond, SignedProduct, TERM, TermAlign,
    WIDE_PRODUCT, WIDE_SUM, boundaries,
};
use crate::config::Multiplier;
use crate::prelude::*;
use golden::format::BLOCK;
use std::array::from_fn;

/// Bits of an aligned product above those of an FP4 x FP4 pair.
const MIDDLE: usize = MIXED_SUM - FOUR_BIT_SUM;
/// Bits of an aligned product above those of a mixed pair.
const HIGH: usize = WIDE_PRODUCT - MIXED_SUM;
/// Bits of a mixed sum above those that an FP4 x FP4 sum takes once it is multiplied by a significand.
const MIXED_ABOVE: usize = MIXED_SUM - FOUR_BIT_SCALED;
/// Where they begin; shifts count in `u64`.
const MIXED_ABOVE_AT: u64 = FOUR_BIT_SCALED as u64;
/// Where the middle ones begin; shifts count in `u64`.
const MIDDLE_AT: u64 = FOUR_BIT_SUM as u64;
/// Where the high ones begin.
const HIGH_AT: u64 = MIXED_SUM as u64;

/// Processing element: one block pair a cycle, exact accumulator of `ACC` bits, result register.
///
/// All PEs of an array step together; the array's controller drives the enables.
#[derive(LogicBlock)]
pub struct Pe<const ACC: usize> {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Each boundary takes what is before it; see [`super::Boundary`].
    pub enable: [Signal<In, Bit>; BOUNDARIES],
    /// No pair has reached the accumulator since reset: registers that a pair's mode would leave alone load too, so that none
    /// stays undefined.
    pub fresh: Signal<In, Bit>,
    /// Add the term to the accumulator.
    pub accumulate: Signal<In, Bit>,
    /// This term is the first of its output, the accumulator starts from zero.
    pub first: Signal<In, Bit>,
    /// This term is the last of its output, the result register takes the sum.
    pub capture: Signal<In, Bit>,
    /// The weight block is FP8.
    pub weight_fp8: Signal<In, Bit>,
    /// The weight block has a NaN.
    pub weight_nan: Signal<In, Bit>,
    /// The weight block's scale, `{significand, shift}`.
    pub weight_scale: Signal<In, Bits<8>>,
    /// The weight block's lanes; none with [`Multiplier::Dsp`].
    pub weight: Vec<Signal<In, Bits<9>>>,
    /// The weight block's lanes as integers; none with [`Multiplier::Lut`].
    pub weight_integer: Vec<Signal<In, Bits<19>>>,
    /// The activation block is FP8.
    pub act_fp8: Signal<In, Bit>,
    /// The activation block has a NaN.
    pub act_nan: Signal<In, Bit>,
    /// The activation block's scale, `{significand, shift}`.
    pub act_scale: Signal<In, Bits<8>>,
    /// The activation block's lanes, likewise.
    pub act: Vec<Signal<In, Bits<9>>>,
    /// The activation block's lanes as integers, likewise.
    pub act_integer: Vec<Signal<In, Bits<19>>>,
    /// The captured accumulator, two's complement in units of 2^-20.
    pub result: Signal<Out, Bits<ACC>>,
    /// The captured sticky NaN.
    pub result_nan: Signal<Out, Bit>,

    // What goes with a pair: its mode, its scales, whether it has a NaN.
    operand_weight_fp8: PipelineRegister<Bit>,
    operand_act_fp8: PipelineRegister<Bit>,
    operand_weight_scale: PipelineRegister<Bits<8>>,
    operand_act_scale: PipelineRegister<Bits<8>>,
    four_bit: [PipelineRegister<Bit>; 5],
    wide: [PipelineRegister<Bit>; 3],
    first_significand: [PipelineRegister<Bits<4>>; 4],
    second_significand: [PipelineRegister<Bits<4>>; 5],
    shift: [PipelineRegister<Bits<5>>; 6],
    nan: [PipelineRegister<Bit>; BOUNDARIES],
    pair_four_bit: Signal<Local, Bit>,
    pair_wide: Signal<Local, Bit>,
    weight_shift: Signal<Local, Bits<5>>,
    act_shift: Signal<Local, Bits<5>>,

    // From the operands to the sum.
    operand_weight: Vec<PipelineRegister<Bits<9>>>,
    operand_act: Vec<PipelineRegister<Bits<9>>>,
    lane: Vec<Lane>,
    product: Vec<PipelineRegister<Bits<8>>>,
    product_shift: Vec<PipelineRegister<Bits<5>>>,
    align: Vec<AlignedProduct>,
    operand_weight_integer: Vec<PipelineRegister<Bits<19>>>,
    operand_act_integer: Vec<PipelineRegister<Bits<19>>>,
    integer_lane: Vec<IntegerLane>,
    integer_product: Vec<PipelineRegister<Bits<INTEGER_PRODUCT>>>,
    sign: Vec<SignedProduct>,
    product_negative: [PipelineRegister<Bit>; BLOCK],
    aligned: [Signal<Local, Bits<WIDE_PRODUCT>>; BLOCK],
    take_middle: Signal<Local, Bit>,
    take_high: Signal<Local, Bit>,
    aligned_low: [PipelineRegister<Bits<FOUR_BIT_SUM>>; BLOCK],
    aligned_middle: [PipelineRegister<Bits<MIDDLE>>; BLOCK],
    aligned_high: [PipelineRegister<Bits<HIGH>>; BLOCK],
    aligned_negative: [PipelineRegister<Bit>; BLOCK],
    tree: AlignedSum,

    // From the sum to the term.
    four_bit_extend: SignExtend<FOUR_BIT_SUM, FOUR_BIT_SCALED>,
    take_sum: Signal<Local, Bit>,
    take_mixed: Signal<Local, Bit>,
    sum_low: PipelineRegister<Bits<FOUR_BIT_SCALED>>,
    sum_high: PipelineRegister<Bits<MIXED_ABOVE>>,
    wide_sum: [PipelineRegister<Bits<WIDE_SUM>>; 3],
    scale_first: ScaleFirst,
    scaled: PipelineRegister<Bits<SCALED>>,
    scale_second: ScaleSecond,
    scaled_twice: PipelineRegister<Bits<SCALED>>,
    term_align: TermAlign,
    term: PipelineRegister<Bits<TERM>>,

    // Accumulator and result.
    term_extend: SignExtend<TERM, ACC>,
    base: Signal<Local, Bits<ACC>>,
    total: Signal<Local, Bits<ACC>>,
    total_nan: Signal<Local, Bit>,
    accumulator: DataRegister<Bits<ACC>>,
    accumulator_nan: DataRegister<Bit>,
    result_register: DataRegister<Bits<ACC>>,
    result_nan_register: DataRegister<Bit>,

    /// Lanes with a shifter behind the multiplier, and lanes of integers: all of them one or the other.
    _shifting: usize,
    _integer: usize,
}

impl<const ACC: usize> Pe<ACC> {
    /// A PE of so many stages, accumulator included; see [`boundaries`].
    #[must_use]
    pub fn new(stages: usize, multiplier: Multiplier) -> Self {
        let (shifting, integer) = match multiplier {
            Multiplier::Lut => (BLOCK, 0),
            Multiplier::Dsp => (0, BLOCK),
        };
        fn several<T: Default>(number: usize) -> Vec<T> {
            (0..number).map(|_| T::default()).collect()
        }
        fn registers<T: Word>(number: usize, present: bool) -> Vec<PipelineRegister<T>> {
            (0..number)
                .map(|_| PipelineRegister::new(present))
                .collect()
        }
        let present = boundaries(stages);
        let at = |boundary: Boundary| present[boundary as usize];
        // Registers of consecutive boundaries, the first that of the operands or of the products.
        fn chain<T: Word, const N: usize>(
            present: &[bool; BOUNDARIES],
            first: Boundary,
        ) -> [PipelineRegister<T>; N] {
            from_fn(|i| PipelineRegister::new(present[first as usize + i]))
        }
        fn lanes<T: Word, const N: usize>(present: bool) -> [PipelineRegister<T>; N] {
            from_fn(|_| PipelineRegister::new(present))
        }
        Self {
            clock: Default::default(),
            enable: Default::default(),
            fresh: Default::default(),
            accumulate: Default::default(),
            first: Default::default(),
            capture: Default::default(),
            weight_fp8: Default::default(),
            weight_nan: Default::default(),
            weight_scale: Default::default(),
            weight: several(shifting),
            weight_integer: several(integer),
            act_fp8: Default::default(),
            act_nan: Default::default(),
            act_scale: Default::default(),
            act: several(shifting),
            act_integer: several(integer),
            result: Default::default(),
            result_nan: Default::default(),
            operand_weight_fp8: PipelineRegister::new(at(Boundary::Operands)),
            operand_act_fp8: PipelineRegister::new(at(Boundary::Operands)),
            operand_weight_scale: PipelineRegister::new(at(Boundary::Operands)),
            operand_act_scale: PipelineRegister::new(at(Boundary::Operands)),
            four_bit: chain(&present, Boundary::Product),
            wide: chain(&present, Boundary::Product),
            first_significand: chain(&present, Boundary::Product),
            second_significand: chain(&present, Boundary::Product),
            shift: chain(&present, Boundary::Product),
            nan: chain(&present, Boundary::Operands),
            pair_four_bit: Default::default(),
            pair_wide: Default::default(),
            weight_shift: Default::default(),
            act_shift: Default::default(),
            operand_weight: registers(shifting, at(Boundary::Operands)),
            operand_act: registers(shifting, at(Boundary::Operands)),
            lane: several(shifting),
            product: registers(shifting, at(Boundary::Product)),
            product_shift: registers(shifting, at(Boundary::Product)),
            align: several(shifting),
            operand_weight_integer: registers(integer, at(Boundary::Operands)),
            operand_act_integer: registers(integer, at(Boundary::Operands)),
            integer_lane: several(integer),
            integer_product: registers(integer, at(Boundary::Product)),
            sign: several(integer),
            product_negative: lanes(at(Boundary::Product)),
            aligned: Default::default(),
            take_middle: Default::default(),
            take_high: Default::default(),
            aligned_low: lanes(at(Boundary::Aligned)),
            aligned_middle: lanes(at(Boundary::Aligned)),
            aligned_high: lanes(at(Boundary::Aligned)),
            aligned_negative: lanes(at(Boundary::Aligned)),
            tree: AlignedSum::new(at(Boundary::Partial)),
            four_bit_extend: Default::default(),
            take_sum: Default::default(),
            take_mixed: Default::default(),
            sum_low: PipelineRegister::new(at(Boundary::Sum)),
            sum_high: PipelineRegister::new(at(Boundary::Sum)),
            wide_sum: chain(&present, Boundary::Sum),
            scale_first: Default::default(),
            scaled: PipelineRegister::new(at(Boundary::Scaled)),
            scale_second: Default::default(),
            scaled_twice: PipelineRegister::new(at(Boundary::Scaled2)),
            term_align: Default::default(),
            term: PipelineRegister::new(at(Boundary::Term)),
            term_extend: Default::default(),
            base: Default::default(),
            total: Default::default(),
            total_nan: Default::default(),
            accumulator: Default::default(),
            accumulator_nan: Default::default(),
            result_register: Default::default(),
            result_nan_register: Default::default(),
            _shifting: shifting,
            _integer: integer,
        }
    }
}

impl<const ACC: usize> Default for Pe<ACC> {
    fn default() -> Self {
        Self::new(MAX_STAGES, Multiplier::default())
    }
}

/// Multiplies one weight block by one activation block a cycle in any of the four modes and
/// accumulates exactly in units of 2^-20.
///
/// Operands, 16 products, shifted products, 16-lane sum, the product with each scale, the shifted term, the accumulator; a
/// configuration says between which of these registers stand. Registers before a datapath load only in the modes that use it.
#[kernel]
impl<const ACC: usize> Logic for Pe<ACC> {
    fn update(&mut self) {
        // The pair's mode, scales and NaN.
        pipeline_registers!(
            self,
            clock,
            enable[0],
            operand_weight_fp8,
            operand_act_fp8,
            operand_weight_scale,
            operand_act_scale,
            nan[0]
        );
        self.operand_weight_fp8.d.next = self.weight_fp8.val();
        self.operand_act_fp8.d.next = self.act_fp8.val();
        self.operand_weight_scale.d.next = self.weight_scale.val();
        self.operand_act_scale.d.next = self.act_scale.val();
        self.nan[0].d.next = self.weight_nan.val() || self.act_nan.val();
        self.pair_four_bit.next = !self.operand_weight_fp8.q.val() && !self.operand_act_fp8.q.val();
        self.pair_wide.next = self.operand_weight_fp8.q.val() && self.operand_act_fp8.q.val();
        self.weight_shift.next =
            bit_cast::<5, 4>(self.operand_weight_scale.q.val().get_bits::<4>(0));
        self.act_shift.next = bit_cast::<5, 4>(self.operand_act_scale.q.val().get_bits::<4>(0));

        self.four_bit[0].d.next = self.pair_four_bit.val();
        self.wide[0].d.next = self.pair_wide.val();
        // The first multiplier takes any sum, the second only that of an FP4 x FP4 pair: so the scale of a pair's only FP4 block goes
        // first, and the second is that of an FP8 block, 1. The product of a pair without scales is zero.
        self.first_significand[0].d.next = self.operand_weight_scale.q.val().get_bits::<4>(4);
        self.second_significand[0].d.next = self.operand_act_scale.q.val().get_bits::<4>(4);
        if self.operand_weight_fp8.q.val() {
            self.first_significand[0].d.next = self.operand_act_scale.q.val().get_bits::<4>(4);
            self.second_significand[0].d.next = self.operand_weight_scale.q.val().get_bits::<4>(4);
        }
        if self.pair_wide.val() {
            self.first_significand[0].d.next = 0.into();
        }
        self.shift[0].d.next = self.weight_shift.val() + self.act_shift.val();
        for i in 0..6 {
            pipeline_registers!(self, clock, enable[i + 1], shift[i]);
        }
        for i in 0..5 {
            pipeline_registers!(
                self,
                clock,
                enable[i + 1],
                four_bit[i],
                second_significand[i]
            );
            self.shift[i + 1].d.next = self.shift[i].q.val();
        }
        for i in 0..4 {
            pipeline_registers!(self, clock, enable[i + 1], first_significand[i]);
            self.four_bit[i + 1].d.next = self.four_bit[i].q.val();
            self.second_significand[i + 1].d.next = self.second_significand[i].q.val();
        }
        for i in 0..3 {
            pipeline_registers!(self, clock, enable[i + 1], wide[i]);
            self.first_significand[i + 1].d.next = self.first_significand[i].q.val();
        }
        for i in 0..2 {
            self.wide[i + 1].d.next = self.wide[i].q.val();
        }
        for i in 0..7 {
            pipeline_registers!(self, clock, enable[i + 1], nan[i + 1]);
            self.nan[i + 1].d.next = self.nan[i].q.val();
        }

        // Lanes. Bits above a pair's sum hold their value.
        self.take_middle.next =
            self.enable[2].val() && (self.fresh.val() || !self.four_bit[0].q.val());
        self.take_high.next = self.enable[2].val() && (self.fresh.val() || self.wide[0].q.val());
        for i in 0..self._shifting {
            pipeline_registers!(self, clock, enable[0], operand_weight[i], operand_act[i]);
            pipeline_registers!(self, clock, enable[1], product[i], product_shift[i]);
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
            self.aligned[i].next = self.align[i].aligned.val();
        }
        for i in 0..self._integer {
            pipeline_registers!(
                self,
                clock,
                enable[0],
                operand_weight_integer[i],
                operand_act_integer[i]
            );
            pipeline_registers!(self, clock, enable[1], integer_product[i]);
            self.operand_weight_integer[i].d.next = self.weight_integer[i].val();
            self.operand_act_integer[i].d.next = self.act_integer[i].val();
            self.integer_lane[i].weight.next = self.operand_weight_integer[i].q.val();
            self.integer_lane[i].act.next = self.operand_act_integer[i].q.val();
            self.integer_product[i].d.next = self.integer_lane[i].product.val();
            self.product_negative[i].d.next = self.integer_lane[i].negative.val();
            self.sign[i].product.next = self.integer_product[i].q.val();
            self.sign[i].negative.next = self.product_negative[i].q.val();
            self.aligned[i].next = self.sign[i].aligned.val();
        }
        for i in 0..BLOCK {
            pipeline_registers!(self, clock, enable[1], product_negative[i]);
            pipeline_registers!(self, clock, enable[2], aligned_low[i], aligned_negative[i]);
            pipeline_registers!(self, clock, take_middle, aligned_middle[i]);
            pipeline_registers!(self, clock, take_high, aligned_high[i]);
            self.aligned_low[i].d.next = self.aligned[i].val().get_bits::<FOUR_BIT_SUM>(0);
            self.aligned_middle[i].d.next = self.aligned[i].val().get_bits::<MIDDLE>(FOUR_BIT_SUM);
            self.aligned_high[i].d.next = self.aligned[i].val().get_bits::<HIGH>(MIXED_SUM);
        }
        self.tree.clock.next = self.clock.val();
        self.tree.enable.next = self.enable[3].val();
        for i in 0..BLOCK {
            self.aligned_negative[i].d.next = self.product_negative[i].q.val();
            self.tree.product[i].next =
                bit_cast::<WIDE_PRODUCT, FOUR_BIT_SUM>(self.aligned_low[i].q.val())
                    | (bit_cast::<WIDE_PRODUCT, MIDDLE>(self.aligned_middle[i].q.val())
                        << MIDDLE_AT)
                    | (bit_cast::<WIDE_PRODUCT, HIGH>(self.aligned_high[i].q.val()) << HIGH_AT);
            self.tree.negative[i].next = self.aligned_negative[i].q.val();
        }

        // Scales.
        self.take_sum.next = self.enable[4].val() && (self.fresh.val() || !self.wide[2].q.val());
        self.take_mixed.next =
            self.take_sum.val() && (self.fresh.val() || !self.four_bit[2].q.val());
        pipeline_registers!(self, clock, take_sum, sum_low);
        pipeline_registers!(self, clock, take_mixed, sum_high);
        pipeline_registers!(self, clock, enable[4], wide_sum[0]);
        pipeline_registers!(self, clock, enable[5], wide_sum[1], scaled);
        pipeline_registers!(self, clock, enable[6], wide_sum[2], scaled_twice);
        pipeline_registers!(self, clock, enable[7], term);
        self.four_bit_extend.a.next = self.tree.sum.val().get_bits::<FOUR_BIT_SUM>(0);
        // Of an FP4 x FP4 sum the low bits of its product with a significand are used, which depend on no bit above.
        self.sum_low.d.next = self.tree.sum.val().get_bits::<FOUR_BIT_SCALED>(0);
        if self.four_bit[2].q.val() {
            self.sum_low.d.next = self.four_bit_extend.y.val();
        }
        self.sum_high.d.next = self.tree.sum.val().get_bits::<MIXED_ABOVE>(FOUR_BIT_SCALED);
        // Either the scaled sum or the wide one is zero, so that the term is their union.
        self.wide_sum[0].d.next = 0.into();
        if self.wide[2].q.val() {
            self.wide_sum[0].d.next = self.tree.sum.val();
        }
        self.wide_sum[1].d.next = self.wide_sum[0].q.val();
        self.wide_sum[2].d.next = self.wide_sum[1].q.val();
        self.scale_first.sum.next = bit_cast::<MIXED_SUM, FOUR_BIT_SCALED>(self.sum_low.q.val())
            | (bit_cast::<MIXED_SUM, MIXED_ABOVE>(self.sum_high.q.val()) << MIXED_ABOVE_AT);
        self.scale_first.significand.next = self.first_significand[3].q.val();
        self.scaled.d.next = self.scale_first.scaled.val();
        self.scale_second.scaled.next = self.scaled.q.val();
        self.scale_second.four_bit.next = self.four_bit[4].q.val();
        self.scale_second.significand.next = self.second_significand[4].q.val();
        self.scaled_twice.d.next = self.scale_second.product.val();
        self.term_align.scaled.next = self.scaled_twice.q.val();
        self.term_align.shift.next = self.shift[5].q.val();
        self.term_align.wide_sum.next = self.wide_sum[2].q.val();
        self.term.d.next = self.term_align.term.val();

        // Accumulator.
        data_registers!(
            self,
            clock,
            accumulator,
            accumulator_nan,
            result_register,
            result_nan_register
        );
        self.term_extend.a.next = self.term.q.val();
        self.base.next = self.accumulator.q.val();
        self.total_nan.next = self.accumulator_nan.q.val() || self.nan[7].q.val();
        if self.first.val() {
            self.base.next = 0.into();
            self.total_nan.next = self.nan[7].q.val();
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
