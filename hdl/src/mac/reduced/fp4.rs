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
/// them a table of four inputs, and the sum of the shifts likewise.
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
    exponents: Signal<Local, Bits<4>>,
    shift: Signal<Local, Bits<3>>,
    significands: Signal<Local, Bits<4>>,
    significand: Signal<Local, Bits<4>>,
    magnitude: Signal<Local, Bits<PRODUCT>>,
}

/// Product of two E2M1 elements in one's complement: product of the significands, shifted by both exponents, inverted if negative.
#[kernel]
impl Logic for Fp4Product {
    fn update(&mut self) {
        self.exponents.next = (bit_cast::<4, 2>(self.weight.val().get_bits::<2>(1)) << 2)
            | bit_cast::<4, 2>(self.act.val().get_bits::<2>(1));
        // A subnormal's exponent 0 shifts like 1, so exponents 0 1 2 3 shift by 0 0 1 2.
        match self.exponents.val().index() {
            2 => self.shift.next = 1.into(),
            6 => self.shift.next = 1.into(),
            8 => self.shift.next = 1.into(),
            9 => self.shift.next = 1.into(),
            3 => self.shift.next = 2.into(),
            7 => self.shift.next = 2.into(),
            10 => self.shift.next = 2.into(),
            12 => self.shift.next = 2.into(),
            13 => self.shift.next = 2.into(),
            11 => self.shift.next = 3.into(),
            14 => self.shift.next = 3.into(),
            15 => self.shift.next = 4.into(),
            _ => self.shift.next = 0.into(),
        }
        self.significands.next = (bit_cast::<4, 1>(self.weight.val().get_bits::<1>(0)) << 2)
            | bit_cast::<4, 1>(self.act.val().get_bits::<1>(0));
        if self.weight.val().get_bits::<2>(1).any() {
            self.significands.next = self.significands.val() | 8;
        }
        if self.act.val().get_bits::<2>(1).any() {
            self.significands.next = self.significands.val() | 2;
        }
        match self.significands.val().index() {
            5 => self.significand.next = 1.into(),
            6 => self.significand.next = 2.into(),
            7 => self.significand.next = 3.into(),
            9 => self.significand.next = 2.into(),
            10 => self.significand.next = 4.into(),
            11 => self.significand.next = 6.into(),
            13 => self.significand.next = 3.into(),
            14 => self.significand.next = 6.into(),
            15 => self.significand.next = 9.into(),
            _ => self.significand.next = 0.into(),
        }
        self.magnitude.next = bit_cast::<PRODUCT, 4>(self.significand.val()) << self.shift.val();
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
    /// The register between products and adders loads.
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
    two: [AddCarry<11, 12>; 2],
    one: AddCarry<12, FOUR_BIT_SUM>,
}

impl Fp4Sum {
    /// With a register between products and adders, or without any.
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
            two: Default::default(),
            one: Default::default(),
        }
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
            self.four[i].a.next = self.eight[2 * i].sum.val();
            self.four[i].b.next = self.eight[2 * i + 1].sum.val();
            self.four[i].carry.next = self.negative[8 + i].q.val();
        }
        for i in 0..2 {
            self.two[i].a.next = self.four[2 * i].sum.val();
            self.two[i].b.next = self.four[2 * i + 1].sum.val();
            self.two[i].carry.next = self.negative[12 + i].q.val();
        }
        self.one.a.next = self.two[0].sum.val();
        self.one.b.next = self.two[1].sum.val();
        self.one.carry.next = self.negative[14].q.val();
        self.sum.next =
            self.one.sum.val() + bit_cast::<FOUR_BIT_SUM, 1>(self.negative[15].q.val().into());
    }
}

/// Exact product of a pair of FP4 blocks with both their scales.
///
/// Pipelined, the term belongs to the blocks of four loads of `enable` before ([`Nvfp4Pair::latency`]).
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
    weight_significand: [PipelineRegister<Bits<4>>; 2],
    act_significand: [PipelineRegister<Bits<4>>; 3],
    shift: [PipelineRegister<Bits<5>>; 4],
    sum: PipelineRegister<Bits<FOUR_BIT_SUM>>,
    first: ScaleProduct<FOUR_BIT_SUM, 15, SCALED>,
    scaled: PipelineRegister<Bits<SCALED>>,
    second: ScaleProduct<SCALED, 19, SCALED_TWICE>,
    scaled_twice: PipelineRegister<Bits<SCALED_TWICE>>,
    extend: SignExtend<SCALED_TWICE, TERM>,
}

impl Nvfp4Pair {
    /// With registers behind products, sum, first and second scale, or without any.
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
        if pipelined { 4 } else { 0 }
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
        for i in 0..2 {
            pipeline_registers!(self, clock, enable, weight_significand[i]);
        }
        for i in 0..3 {
            pipeline_registers!(self, clock, enable, act_significand[i]);
        }
        for i in 0..4 {
            pipeline_registers!(self, clock, enable, shift[i]);
        }
        pipeline_registers!(self, clock, enable, sum, scaled, scaled_twice);
        self.weight_significand[0].d.next = self.weight_decoder.significand.val();
        self.weight_significand[1].d.next = self.weight_significand[0].q.val();
        self.act_significand[0].d.next = self.act_decoder.significand.val();
        self.shift[0].d.next = bit_cast::<5, 4>(self.weight_decoder.shift.val())
            + bit_cast::<5, 4>(self.act_decoder.shift.val());
        for i in 1..3 {
            self.act_significand[i].d.next = self.act_significand[i - 1].q.val();
        }
        for i in 1..4 {
            self.shift[i].d.next = self.shift[i - 1].q.val();
        }
        self.sum.d.next = self.dot.sum.val();
        self.first.value.next = self.sum.q.val();
        self.first.significand.next = self.weight_significand[1].q.val();
        self.scaled.d.next = self.first.product.val();
        self.second.value.next = self.scaled.q.val();
        self.second.significand.next = self.act_significand[2].q.val();
        self.scaled_twice.d.next = self.second.product.val();
        self.extend.a.next = self.scaled_twice.q.val();
        self.term.next = self.extend.y.val() << self.shift[3].q.val();
    }
}
