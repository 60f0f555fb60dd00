//! FP4 alone.

use super::super::{FOUR_BIT_SUM, ScaleProduct, TERM};
use crate::decoder::MagnitudeDecoder;
use crate::prelude::*;
use golden::format::BLOCK;
use std::array::from_fn;

/// A product in units of 2^-2: its magnitude is at most 12 * 12.
const PRODUCT: usize = 9;
/// The sum times one scale's significand.
const SCALED: usize = FOUR_BIT_SUM + 4;
/// The sum times both.
const SCALED_TWICE: usize = SCALED + 4;

/// Product of two E2M1 elements.
///
/// An E2M1 magnitude in units of 2^-1 is a significand of two bits, shifted by up to 2. The product of the significands has four bits, each of
/// them a table of four inputs.
#[derive(LogicBlock, Default)]
pub struct Fp4Product {
    /// E2M1 code of the weight element.
    pub weight: Signal<In, Bits<4>>,
    /// E2M1 code of the activation element.
    pub act: Signal<In, Bits<4>>,
    /// The product in units of 2^-2, in one's complement: less by one than the product if that is negative.
    pub product: Signal<Out, Bits<PRODUCT>>,
    /// What is missing.
    pub negative: Signal<Out, Bit>,
    weight_shift: Signal<Local, Bits<3>>,
    act_shift: Signal<Local, Bits<3>>,
    shift: Signal<Local, Bits<3>>,
    multiplier: MulU<2, 2, 4>,
    magnitude: Signal<Local, Bits<PRODUCT>>,
}

/// Product of two E2M1 elements in one's complement: product of the significands, shifted by both exponents, inverted if negative.
#[kernel]
impl Logic for Fp4Product {
    fn update(&mut self) {
        // Exponents 0 1 2 3 shift by 0 0 1 2: a subnormal shifts like the least normal one.
        self.weight_shift.next = 0.into();
        self.multiplier.a.next = bit_cast::<2, 1>(self.weight.val().get_bits::<1>(0));
        if self.weight.val().get_bits::<2>(1).any() {
            self.weight_shift.next = bit_cast::<3, 2>(self.weight.val().get_bits::<2>(1)) - 1;
            self.multiplier.a.next = bit_cast::<2, 1>(self.weight.val().get_bits::<1>(0)) | 2;
        }
        self.act_shift.next = 0.into();
        self.multiplier.b.next = bit_cast::<2, 1>(self.act.val().get_bits::<1>(0));
        if self.act.val().get_bits::<2>(1).any() {
            self.act_shift.next = bit_cast::<3, 2>(self.act.val().get_bits::<2>(1)) - 1;
            self.multiplier.b.next = bit_cast::<2, 1>(self.act.val().get_bits::<1>(0)) | 2;
        }
        self.shift.next = self.weight_shift.val() + self.act_shift.val();
        self.magnitude.next = bit_cast::<PRODUCT, 4>(self.multiplier.p.val()) << self.shift.val();
        self.negative.next = self.weight.val().get_bit(3) ^ self.act.val().get_bit(3);
        self.product.next = self.magnitude.val();
        if self.weight.val().get_bit(3) ^ self.act.val().get_bit(3) {
            self.product.next = !self.magnitude.val();
        }
    }
}

/// Exact dot product of 16 pairs of E2M1 elements.
#[derive(LogicBlock, PortAccess)]
pub struct Fp4Sum {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// All registers load.
    pub enable: Signal<In, Bit>,
    /// E2M1 codes of the weight block.
    pub weight: [Signal<In, Bits<4>>; BLOCK],
    /// E2M1 codes of the activation block.
    pub act: [Signal<In, Bits<4>>; BLOCK],
    /// Their dot product in units of 2^-2, two's complement.
    pub sum: Signal<Out, Bits<FOUR_BIT_SUM>>,
    lane: [Fp4Product; BLOCK],
    product: [PipelineRegister<Bits<PRODUCT>>; BLOCK],
    negative: [PipelineRegister<Bit>; BLOCK],
    eight: [AddCarry<PRODUCT, 10>; 8],
    four: [AddCarry<10, 11>; 4],
    partial: [PipelineRegister<Bits<11>>; 4],
    carry: [PipelineRegister<Bit>; 4],
    two: [AddCarry<11, 12>; 2],
    one: AddCarry<12, FOUR_BIT_SUM>,
}

impl Fp4Sum {
    /// With registers behind the products and in the middle of the adders, or without any.
    #[must_use]
    pub fn new(pipelined: bool) -> Self {
        Self {
            clock: Default::default(),
            enable: Default::default(),
            weight: Default::default(),
            act: Default::default(),
            sum: Default::default(),
            lane: Default::default(),
            product: from_fn(|_| PipelineRegister::new(pipelined)),
            negative: from_fn(|_| PipelineRegister::new(pipelined)),
            eight: Default::default(),
            four: Default::default(),
            partial: from_fn(|_| PipelineRegister::new(pipelined)),
            carry: from_fn(|_| PipelineRegister::new(pipelined)),
            two: Default::default(),
            one: Default::default(),
        }
    }
}

impl Fp4Sum {
    /// Loads of `enable` from the blocks to their sum.
    #[must_use]
    pub const fn latency(pipelined: bool) -> usize {
        if pipelined { 2 } else { 0 }
    }
}

impl Default for Fp4Sum {
    fn default() -> Self {
        Self::new(true)
    }
}

/// Dot product of 16 pairs of E2M1 elements in units of 2^-2. The ones that a one's complement lacks are the carries of the adders.
#[kernel]
impl Logic for Fp4Sum {
    fn update(&mut self) {
        for i in 0..BLOCK {
            pipeline_registers!(self, clock, enable, product[i], negative[i]);
            self.lane[i].weight.next = self.weight[i].val();
            self.lane[i].act.next = self.act[i].val();
            self.product[i].d.next = self.lane[i].product.val();
            self.negative[i].d.next = self.lane[i].negative.val();
        }
        for i in 0..8 {
            self.eight[i].a.next = self.product[2 * i].q.val();
            self.eight[i].b.next = self.product[2 * i + 1].q.val();
            self.eight[i].carry.next = self.negative[i].q.val();
        }
        for i in 0..4 {
            pipeline_registers!(self, clock, enable, partial[i], carry[i]);
            self.four[i].a.next = self.eight[2 * i].sum.val();
            self.four[i].b.next = self.eight[2 * i + 1].sum.val();
            self.four[i].carry.next = self.negative[8 + i].q.val();
            self.partial[i].d.next = self.four[i].sum.val();
            self.carry[i].d.next = self.negative[12 + i].q.val();
        }
        for i in 0..2 {
            self.two[i].a.next = self.partial[2 * i].q.val();
            self.two[i].b.next = self.partial[2 * i + 1].q.val();
            self.two[i].carry.next = self.carry[i].q.val();
        }
        self.one.a.next = self.two[0].sum.val();
        self.one.b.next = self.two[1].sum.val();
        self.one.carry.next = self.carry[2].q.val();
        self.sum.next =
            self.one.sum.val() + bit_cast::<FOUR_BIT_SUM, 1>(self.carry[3].q.val().into());
    }
}

/// Exact product of a pair of FP4 blocks with both their scales.
///
/// Pipelined, the term belongs to the blocks of five loads of `enable` before ([`Nvfp4Pair::latency`]).
#[derive(LogicBlock, PortAccess)]
pub struct Nvfp4Pair {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// All registers load.
    pub enable: Signal<In, Bit>,
    /// UE4M3 scale of the weight block; bit 7 is ignored.
    pub weight_scale: Signal<In, Bits<8>>,
    /// E2M1 codes of the weight block.
    pub weight: [Signal<In, Bits<4>>; BLOCK],
    /// UE4M3 scale of the activation block; bit 7 is ignored.
    pub act_scale: Signal<In, Bits<8>>,
    /// E2M1 codes of the activation block.
    pub act: [Signal<In, Bits<4>>; BLOCK],
    /// The pair's result in units of 2^-20, two's complement.
    pub term: Signal<Out, Bits<TERM>>,
    dot: Fp4Sum,
    weight_decoder: MagnitudeDecoder,
    act_decoder: MagnitudeDecoder,
    weight_significand: [PipelineRegister<Bits<4>>; 3],
    act_significand: [PipelineRegister<Bits<4>>; 4],
    shift: [PipelineRegister<Bits<5>>; 5],
    sum: PipelineRegister<Bits<FOUR_BIT_SUM>>,
    first: ScaleProduct<FOUR_BIT_SUM, 15, SCALED>,
    scaled: PipelineRegister<Bits<SCALED>>,
    second: ScaleProduct<SCALED, 19, SCALED_TWICE>,
    scaled_twice: PipelineRegister<Bits<SCALED_TWICE>>,
    extend: SignExtend<SCALED_TWICE, TERM>,
}

impl Nvfp4Pair {
    /// With registers behind products, in the middle of the adders, behind the sum and each scale, or without any.
    #[must_use]
    pub fn new(pipelined: bool) -> Self {
        fn chain<T: Word, const N: usize>(pipelined: bool) -> [PipelineRegister<T>; N] {
            from_fn(|_| PipelineRegister::new(pipelined))
        }
        Self {
            clock: Default::default(),
            enable: Default::default(),
            weight_scale: Default::default(),
            weight: Default::default(),
            act_scale: Default::default(),
            act: Default::default(),
            term: Default::default(),
            dot: Fp4Sum::new(pipelined),
            weight_decoder: Default::default(),
            act_decoder: Default::default(),
            weight_significand: chain(pipelined),
            act_significand: chain(pipelined),
            shift: chain(pipelined),
            sum: PipelineRegister::new(pipelined),
            first: Default::default(),
            scaled: PipelineRegister::new(pipelined),
            second: Default::default(),
            scaled_twice: PipelineRegister::new(pipelined),
            extend: Default::default(),
        }
    }

    /// Loads of `enable` from the blocks to their term.
    #[must_use]
    pub const fn latency(pipelined: bool) -> usize {
        if pipelined { 5 } else { 0 }
    }
}

impl Default for Nvfp4Pair {
    fn default() -> Self {
        Self::new(true)
    }
}

/// Product of two NVFP4 blocks with both scales, exact in units of 2^-20: dot product, times each scale's significand, shifted by both exponents.
#[kernel]
impl Logic for Nvfp4Pair {
    fn update(&mut self) {
        self.dot.clock.next = self.clock.val();
        self.dot.enable.next = self.enable.val();
        for i in 0..BLOCK {
            self.dot.weight[i].next = self.weight[i].val();
            self.dot.act[i].next = self.act[i].val();
        }
        self.weight_decoder.code.next = self.weight_scale.val().get_bits::<7>(0);
        self.act_decoder.code.next = self.act_scale.val().get_bits::<7>(0);
        for i in 0..3 {
            pipeline_registers!(self, clock, enable, weight_significand[i]);
        }
        for i in 0..4 {
            pipeline_registers!(self, clock, enable, act_significand[i]);
        }
        for i in 0..5 {
            pipeline_registers!(self, clock, enable, shift[i]);
        }
        pipeline_registers!(self, clock, enable, sum, scaled, scaled_twice);
        self.weight_significand[0].d.next = self.weight_decoder.significand.val();
        self.act_significand[0].d.next = self.act_decoder.significand.val();
        self.shift[0].d.next = bit_cast::<5, 4>(self.weight_decoder.shift.val())
            + bit_cast::<5, 4>(self.act_decoder.shift.val());
        for i in 1..3 {
            self.weight_significand[i].d.next = self.weight_significand[i - 1].q.val();
        }
        for i in 1..4 {
            self.act_significand[i].d.next = self.act_significand[i - 1].q.val();
        }
        for i in 1..5 {
            self.shift[i].d.next = self.shift[i - 1].q.val();
        }
        self.sum.d.next = self.dot.sum.val();
        self.first.value.next = self.sum.q.val();
        self.first.significand.next = self.weight_significand[2].q.val();
        self.scaled.d.next = self.first.product.val();
        self.second.value.next = self.scaled.q.val();
        self.second.significand.next = self.act_significand[3].q.val();
        self.scaled_twice.d.next = self.second.product.val();
        self.extend.a.next = self.scaled_twice.q.val();
        self.term.next = self.extend.y.val() << self.shift[4].q.val();
    }
}
