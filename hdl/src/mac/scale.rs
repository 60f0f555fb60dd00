//! Scale products and alignment to the accumulator's unit.

use super::{FOUR_BIT_SUM, MIXED_SUM, TERM, WIDE_SUM};
use crate::prelude::*;

/// Width of a sum times one scale's significand.
pub(super) const SCALED: usize = 31;
/// Of that, what the FP4 x FP4 sum takes.
const FOUR_BIT_SCALED: usize = FOUR_BIT_SUM + 4;
/// Place of the first bit above; shifts count in `u64`.
const ABOVE: u64 = FOUR_BIT_SCALED as u64;

/// Multiplies the sum of a pair by the first scale's significand.
#[derive(LogicBlock, Default)]
pub struct ScaleFirst {
    /// FP4 x FP4 (units of 2^-2) or mixed (units of 2^-10) sum.
    pub sum: Signal<In, Bits<MIXED_SUM>>,
    /// Significand of the scale of the pair's FP4 block; of the weight block, if both are FP4.
    pub significand: Signal<In, Bits<4>>,
    /// The product.
    pub scaled: Signal<Out, Bits<SCALED>>,
    multiplier: MulS<MIXED_SUM, 5, 32>,
}

/// The sum of a pair with an FP4 block, times the significand of that block's scale.
#[kernel]
impl Logic for ScaleFirst {
    fn update(&mut self) {
        self.multiplier.a.next = self.sum.val();
        self.multiplier.b.next = bit_cast::<5, 4>(self.significand.val());
        // |sum| < 2^26 and the significand is at most 15.
        self.scaled.next = self.multiplier.p.val().get_bits::<SCALED>(0);
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
    multiplier: MulS<FOUR_BIT_SCALED, 5, 22>,
    extend: SignExtend<22, SCALED>,
    low: Signal<Local, Bits<SCALED>>,
    high: Signal<Local, Bits<SCALED>>,
}

/// The product of an FP4 x FP4 pair with the activation block's scale. Of a mixed pair the low bits are multiplied by 1 and
/// the high bits go past the multiplier.
#[kernel]
impl Logic for ScaleSecond {
    fn update(&mut self) {
        self.multiplier.a.next = self.scaled.val().get_bits::<FOUR_BIT_SCALED>(0);
        self.multiplier.b.next = bit_cast::<5, 4>(self.significand.val());
        self.extend.a.next = self.multiplier.p.val();
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
