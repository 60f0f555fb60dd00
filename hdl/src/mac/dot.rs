//! A lane: one element of a block pair.

use super::{INTEGER_PRODUCT, WIDE_PRODUCT, WIDE_SUM};
use crate::prelude::*;
use golden::format::BLOCK;
use std::array::from_fn;

/// Multiplies the significands of two elements in lane form and adds their shifts.
///
/// Serves every mode: an element is `significand * 2^shift`, in units of 2^-9 from an FP8 block and of 2^-1, with shift 0, from an FP4 block.
#[derive(LogicBlock, Default)]
pub struct Lane {
    /// `{sign, significand[3:0], shift[3:0]}` of the weight element.
    pub weight: Signal<In, Bits<9>>,
    /// `{sign, significand[3:0], shift[3:0]}` of the activation element.
    pub act: Signal<In, Bits<9>>,
    /// The significands' product without its sign, at most 15 * 15.
    pub product: Signal<Out, Bits<8>>,
    /// Its sign.
    pub negative: Signal<Out, Bit>,
    /// How far the product is to be shifted to the left, 0 to 28.
    pub shift: Signal<Out, Bits<5>>,
    weight_significand: Signal<Local, Bits<16>>,
    act_significand: Signal<Local, Bits<16>>,
    full: Signal<Local, Bits<32>>,
}

/// Product of two elements' significands, its sign, and the sum of their shifts.
#[kernel]
impl Logic for Lane {
    fn update(&mut self) {
        self.weight_significand.next = bit_cast::<16, 4>(self.weight.val().get_bits::<4>(4));
        self.act_significand.next = bit_cast::<16, 4>(self.act.val().get_bits::<4>(4));
        self.full.next = self.weight_significand.val() * self.act_significand.val();
        self.shift.next = bit_cast::<5, 4>(self.weight.val().get_bits::<4>(0))
            + bit_cast::<5, 4>(self.act.val().get_bits::<4>(0));
        self.product.next = bit_cast::<8, 32>(self.full.val());
        self.negative.next = self.weight.val().get_bit(8) ^ self.act.val().get_bit(8);
    }
}

/// Shifts a product to its place in the 16-lane sum and gives it its sign.
#[derive(LogicBlock, Default)]
pub struct AlignedProduct {
    /// A lane's product.
    pub product: Signal<In, Bits<8>>,
    /// Its sign.
    pub negative: Signal<In, Bit>,
    /// A lane's shift.
    pub shift: Signal<In, Bits<5>>,
    /// `product * 2^shift` with its sign in one's complement: a negative one lacks 1, which the adders' carries supply.
    pub aligned: Signal<Out, Bits<WIDE_PRODUCT>>,
    magnitude: Signal<Local, Bits<WIDE_PRODUCT>>,
}

/// A lane's product, shifted to its place in the 16-lane sum, inverted if it is negative.
#[kernel]
impl Logic for AlignedProduct {
    fn update(&mut self) {
        self.magnitude.next = bit_cast::<WIDE_PRODUCT, 8>(self.product.val()) << self.shift.val();
        self.aligned.next = self.magnitude.val();
        if self.negative.val() {
            self.aligned.next = !self.magnitude.val();
        }
    }
}

/// Multiplies two elements that are integers, and needs no shifter behind.
#[derive(LogicBlock, Default)]
pub struct IntegerLane {
    /// `{sign, magnitude[17:0]}` of the weight element.
    pub weight: Signal<In, Bits<19>>,
    /// `{sign, magnitude[17:0]}` of the activation element.
    pub act: Signal<In, Bits<19>>,
    /// The magnitudes' product.
    pub product: Signal<Out, Bits<INTEGER_PRODUCT>>,
    /// Its sign.
    pub negative: Signal<Out, Bit>,
    multiplier: MulU<18, 18, INTEGER_PRODUCT>,
}

/// Product of two elements' magnitudes, 18 x 18 bits, and its sign.
#[kernel]
impl Logic for IntegerLane {
    fn update(&mut self) {
        self.multiplier.a.next = self.weight.val().get_bits::<18>(0);
        self.multiplier.b.next = self.act.val().get_bits::<18>(0);
        self.product.next = self.multiplier.p.val();
        self.negative.next = self.weight.val().get_bit(18) ^ self.act.val().get_bit(18);
    }
}

/// Gives a product that is in its place its sign.
#[derive(LogicBlock, Default)]
pub struct SignedProduct {
    /// A lane's product.
    pub product: Signal<In, Bits<INTEGER_PRODUCT>>,
    /// Its sign.
    pub negative: Signal<In, Bit>,
    /// The product with its sign in one's complement, as [`AlignedProduct::aligned`].
    pub aligned: Signal<Out, Bits<WIDE_PRODUCT>>,
    magnitude: Signal<Local, Bits<WIDE_PRODUCT>>,
}

/// A product, inverted if it is negative.
#[kernel]
impl Logic for SignedProduct {
    fn update(&mut self) {
        self.magnitude.next = bit_cast::<WIDE_PRODUCT, INTEGER_PRODUCT>(self.product.val());
        self.aligned.next = self.magnitude.val();
        if self.negative.val() {
            self.aligned.next = !self.magnitude.val();
        }
    }
}

/// Exact sum of 16 aligned products, with a register in its middle or without.
#[derive(LogicBlock)]
pub struct AlignedSum {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// The register in the middle loads.
    pub enable: Signal<In, Bit>,
    /// Aligned products, in one's complement.
    pub product: [Signal<In, Bits<WIDE_PRODUCT>>; BLOCK],
    /// Their signs.
    pub negative: [Signal<In, Bit>; BLOCK],
    /// Their sum, two's complement.
    pub sum: Signal<Out, Bits<WIDE_SUM>>,
    eight: [AddCarry<WIDE_PRODUCT, 38>; 8],
    four: [AddCarry<38, 39>; 4],
    partial: [PipelineRegister<Bits<39>>; 4],
    carry: [PipelineRegister<Bit>; 4],
    two: [AddCarry<39, 40>; 2],
    one: AddCarry<40, WIDE_SUM>,
}

impl AlignedSum {
    /// With the register or without.
    #[must_use]
    pub fn new(pipelined: bool) -> Self {
        Self {
            clock: Default::default(),
            enable: Default::default(),
            product: Default::default(),
            negative: Default::default(),
            sum: Default::default(),
            eight: Default::default(),
            four: Default::default(),
            partial: from_fn(|_| PipelineRegister::new(pipelined)),
            carry: from_fn(|_| PipelineRegister::new(pipelined)),
            two: Default::default(),
            one: Default::default(),
        }
    }
}

impl Default for AlignedSum {
    fn default() -> Self {
        Self::new(true)
    }
}

/// Sum of 16 products in one's complement. Each of the 15 adders takes up the one that a negative product lacks; the last one is added by itself.
#[kernel]
impl Logic for AlignedSum {
    fn update(&mut self) {
        for i in 0..8 {
            self.eight[i].a.next = self.product[2 * i].val();
            self.eight[i].b.next = self.product[2 * i + 1].val();
            self.eight[i].carry.next = self.negative[i].val();
        }
        for i in 0..4 {
            pipeline_registers!(self, clock, enable, partial[i], carry[i]);
            self.four[i].a.next = self.eight[2 * i].sum.val();
            self.four[i].b.next = self.eight[2 * i + 1].sum.val();
            self.four[i].carry.next = self.negative[8 + i].val();
            self.partial[i].d.next = self.four[i].sum.val();
            self.carry[i].d.next = self.negative[12 + i].val();
        }
        for i in 0..2 {
            self.two[i].a.next = self.partial[2 * i].q.val();
            self.two[i].b.next = self.partial[2 * i + 1].q.val();
            self.two[i].carry.next = self.carry[i].q.val();
        }
        self.one.a.next = self.two[0].sum.val();
        self.one.b.next = self.two[1].sum.val();
        self.one.carry.next = self.carry[2].q.val();
        self.sum.next = self.one.sum.val() + bit_cast::<WIDE_SUM, 1>(self.carry[3].q.val().into());
    }
}
