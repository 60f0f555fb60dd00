//! Scale products and alignment to the accumulator's unit.

use super::{FOUR_BIT_SUM, MIXED_SUM, TERM, WIDE_SUM};
use crate::prelude::*;

/// Width of a sum times one scale's significand.
pub(super) const SCALED: usize = 31;
/// Of that, what the FP4 x FP4 sum takes.
pub(super) const FOUR_BIT_SCALED: usize = FOUR_BIT_SUM + 4;
/// Place of the first bit above; shifts count in `u64`.
const ABOVE: u64 = FOUR_BIT_SCALED as u64;

/// Multiplies by a scale's significand in adders: the product of every two bits of it is 0, 1, 2 or 3 times the value, and 3 times it is
/// found once. Tools that know multipliers only as sums of their partial products need half as much again.
///
/// `T = W + 2`, `P = W + 4`.
#[derive(LogicBlock)]
pub struct ScaleProduct<const W: usize, const T: usize, const P: usize> {
    /// Two's complement value.
    pub value: Signal<In, Bits<W>>,
    /// The significand, unsigned.
    pub significand: Signal<In, Bits<4>>,
    /// The product; exact, since it is at most 15 times the value.
    pub product: Signal<Out, Bits<P>>,
    extend: SignExtend<W, T>,
    extend_low: SignExtend<T, P>,
    triple: Signal<Local, Bits<T>>,
    low: Signal<Local, Bits<T>>,
    high: Signal<Local, Bits<T>>,
}

impl<const W: usize, const T: usize, const P: usize> Default for ScaleProduct<W, T, P> {
    fn default() -> Self {
        const {
            assert!(
                T == W + 2 && P == W + 4,
                "three times a value has two bits more, fifteen times it four"
            )
        };
        Self {
            value: Default::default(),
            significand: Default::default(),
            product: Default::default(),
            extend: Default::default(),
            extend_low: Default::default(),
            triple: Default::default(),
            low: Default::default(),
            high: Default::default(),
        }
    }
}

/// A two's complement value times a significand of 4 bits: of each two bits 0, 1, 2 or 3 times the value, added up.
#[kernel]
impl<const W: usize, const T: usize, const P: usize> Logic for ScaleProduct<W, T, P> {
    fn update(&mut self) {
        self.extend.a.next = self.value.val();
        self.triple.next = self.extend.y.val() + (self.extend.y.val() << 1);
        self.low.next = 0.into();
        match self.significand.val().get_bits::<2>(0).index() {
            1 => self.low.next = self.extend.y.val(),
            2 => self.low.next = self.extend.y.val() << 1,
            3 => self.low.next = self.triple.val(),
            _ => self.low.next = 0.into(),
        }
        self.high.next = 0.into();
        match self.significand.val().get_bits::<2>(2).index() {
            1 => self.high.next = self.extend.y.val(),
            2 => self.high.next = self.extend.y.val() << 1,
            3 => self.high.next = self.triple.val(),
            _ => self.high.next = 0.into(),
        }
        self.extend_low.a.next = self.low.val();
        self.product.next = self.extend_low.y.val() + (bit_cast::<P, T>(self.high.val()) << 2);
    }
}

/// Multiplies the sum of a pair by the first scale's significand.
#[derive(LogicBlock, Default)]
pub struct ScaleFirst {
    /// FP4 x FP4 (units of 2^-2) or mixed (units of 2^-10) sum.
    pub sum: Signal<In, Bits<MIXED_SUM>>,
    /// Significand of the scale of the pair's FP4 block; of the weight block, if both are FP4.
    pub significand: Signal<In, Bits<4>>,
    /// The product.
    pub scaled: Signal<Out, Bits<SCALED>>,
    multiplier: ScaleProduct<MIXED_SUM, 29, SCALED>,
}

/// The sum of a pair with an FP4 block, times the significand of that block's scale.
#[kernel]
impl Logic for ScaleFirst {
    fn update(&mut self) {
        self.multiplier.value.next = self.sum.val();
        self.multiplier.significand.next = self.significand.val();
        self.scaled.next = self.multiplier.product.val();
    }
}

/// Multiplies by the second scale's significand where there is one.
#[derive(LogicBlock, Default)]
pub struct ScaleSecond {
    /// The first product.
    pub scaled: Signal<In, Bits<SCALED>>,
    /// Both blocks are FP4.
    pub four_bit: Signal<In, Bit>,
    /// The activation block's significand if both are FP4, else 1.
    pub significand: Signal<In, Bits<4>>,
    /// The second product.
    pub product: Signal<Out, Bits<SCALED>>,
    multiplier: ScaleProduct<FOUR_BIT_SCALED, 19, 21>,
    extend: SignExtend<21, SCALED>,
    low: Signal<Local, Bits<SCALED>>,
    high: Signal<Local, Bits<SCALED>>,
}

/// The product of an FP4 x FP4 pair with the activation block's scale. Of a mixed pair the low bits are multiplied by 1 and
/// the high bits go past the multiplier.
#[kernel]
impl Logic for ScaleSecond {
    fn update(&mut self) {
        self.multiplier.value.next = self.scaled.val().get_bits::<FOUR_BIT_SCALED>(0);
        self.multiplier.significand.next = self.significand.val();
        self.extend.a.next = self.multiplier.product.val();
        self.low.next =
            bit_cast::<SCALED, FOUR_BIT_SCALED>(self.extend.y.val().get_bits::<FOUR_BIT_SCALED>(0));
        self.high.next = self.scaled.val() >> ABOVE;
        if self.four_bit.val() {
            self.high.next = self.extend.y.val() >> ABOVE;
        }
        self.product.next = self.low.val() | (self.high.val() << ABOVE);
    }
}

/// Aligns a pair's result to the accumulator's unit.
#[derive(LogicBlock, Default)]
pub struct TermAlign {
    /// Scaled sum of a pair with an FP4 block; 0 for FP8 x FP8.
    pub scaled: Signal<In, Bits<SCALED>>,
    /// Its shift to the left.
    pub shift: Signal<In, Bits<5>>,
    /// FP8 x FP8 sum, units of 2^-18; 0 for the other pairs.
    pub wide_sum: Signal<In, Bits<WIDE_SUM>>,
    /// The pair's result in units of 2^-20, two's complement.
    pub term: Signal<Out, Bits<TERM>>,
    scaled_extend: SignExtend<SCALED, TERM>,
    wide_extend: SignExtend<WIDE_SUM, TERM>,
}

/// FP4 x FP4: sum * scales << shift, 2^-2 * 2^-18 = 2^-20. Mixed: 2^-10 * 2^-9, shifted once more.
/// FP8 x FP8: 2^-18, shifted by two. One of the two operands is zero.
#[kernel]
impl Logic for TermAlign {
    fn update(&mut self) {
        self.scaled_extend.a.next = self.scaled.val();
        self.wide_extend.a.next = self.wide_sum.val();
        self.term.next =
            (self.scaled_extend.y.val() << self.shift.val()) | (self.wide_extend.y.val() << 2);
    }
}
