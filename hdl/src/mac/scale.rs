//! Scale product and alignment to the accumulator's unit.

use super::{FOUR_BIT_SUM, MIXED_SUM, TERM, WIDE_SUM};
use crate::prelude::*;

/// Applies the block scales to a 16-lane sum and aligns it to units of 2^-20.
#[derive(LogicBlock, Default)]
pub struct ScaleAlign {
    /// FP4 x FP4 sum, units of 2^-2.
    pub four_bit_sum: Signal<In, Bits<FOUR_BIT_SUM>>,
    /// Mixed sum, units of 2^-10.
    pub mixed_sum: Signal<In, Bits<MIXED_SUM>>,
    /// FP8 x FP8 sum, units of 2^-18.
    pub wide_sum: Signal<In, Bits<WIDE_SUM>>,
    /// The operand of the scale multiplier is the FP4 x FP4 sum.
    pub four_bit: Signal<In, Bit>,
    /// The result is the FP8 x FP8 sum, which has no scale.
    pub wide: Signal<In, Bit>,
    /// Product of the scales' significands.
    pub significand: Signal<In, Bits<8>>,
    /// Left shift after the multiplication.
    pub shift: Signal<In, Bits<5>>,
    /// The pair's result in units of 2^-20, two's complement.
    pub term: Signal<Out, Bits<TERM>>,
    four_bit_extend: SignExtend<FOUR_BIT_SUM, MIXED_SUM>,
    wide_extend: SignExtend<WIDE_SUM, TERM>,
    multiplier: MulS<MIXED_SUM, 9, 36>,
    scaled_extend: SignExtend<36, TERM>,
}

/// FP4 x FP4: sum * scales << shift, 2^-2 * 2^-18 = 2^-20. Mixed: 2^-10 * 2^-9, shifted once more.
/// FP8 x FP8: 2^-18, shifted by two.
#[kernel]
impl Logic for ScaleAlign {
    fn update(&mut self) {
        self.four_bit_extend.a.next = self.four_bit_sum.val();
        self.multiplier.a.next = self.mixed_sum.val();
        if self.four_bit.val() {
            self.multiplier.a.next = self.four_bit_extend.y.val();
        }
        self.multiplier.b.next = bit_cast::<9, 8>(self.significand.val());
        self.scaled_extend.a.next = self.multiplier.p.val();
        self.wide_extend.a.next = self.wide_sum.val();
        self.term.next = self.scaled_extend.y.val() << self.shift.val();
        if self.wide.val() {
            self.term.next = self.wide_extend.y.val() << 2;
        }
    }
}
