//! A lane: one element of a block pair.

use super::WIDE_PRODUCT;
use crate::prelude::*;

/// Multiplies the significands of two elements in lane form and adds their shifts.
///
/// Serves every mode: an element is `significand * 2^shift`, in units of 2^-9 from an FP8 block and of 2^-1, with shift 0, from an FP4 block.
#[derive(LogicBlock, Default)]
pub struct Lane {
    /// `{sign, significand[3:0], shift[3:0]}` of the weight element.
    pub weight: Signal<In, Bits<9>>,
    /// `{sign, significand[3:0], shift[3:0]}` of the activation element.
    pub act: Signal<In, Bits<9>>,
    /// The significands' product, two's complement; its magnitude is at most 15 * 15.
    pub product: Signal<Out, Bits<9>>,
    /// How far the product is to be shifted to the left, 0 to 28.
    pub shift: Signal<Out, Bits<5>>,
    weight_significand: Signal<Local, Bits<16>>,
    act_significand: Signal<Local, Bits<16>>,
    full: Signal<Local, Bits<32>>,
    magnitude: Signal<Local, Bits<9>>,
    inverted: Signal<Local, Bits<9>>,
}

/// Product of two elements' significands with its sign, and the sum of their shifts.
#[kernel]
impl Logic for Lane {
    fn update(&mut self) {
        self.weight_significand.next = bit_cast::<16, 4>(self.weight.val().get_bits::<4>(4));
        self.act_significand.next = bit_cast::<16, 4>(self.act.val().get_bits::<4>(4));
        self.full.next = self.weight_significand.val() * self.act_significand.val();
        self.shift.next = bit_cast::<5, 4>(self.weight.val().get_bits::<4>(0))
            + bit_cast::<5, 4>(self.act.val().get_bits::<4>(0));
        self.magnitude.next = bit_cast::<9, 32>(self.full.val());
        self.inverted.next = !self.magnitude.val();
        self.product.next = self.magnitude.val();
        if self.weight.val().get_bit(8) ^ self.act.val().get_bit(8) {
            self.product.next = self.inverted.val() + 1;
        }
    }
}

/// Shifts a product to its place in the 16-lane sum.
#[derive(LogicBlock, Default)]
pub struct AlignedProduct {
    /// A lane's product.
    pub product: Signal<In, Bits<9>>,
    /// A lane's shift.
    pub shift: Signal<In, Bits<5>>,
    /// `product * 2^shift`.
    pub aligned: Signal<Out, Bits<WIDE_PRODUCT>>,
    extend: SignExtend<9, WIDE_PRODUCT>,
}

/// A lane's product, shifted to its place in the 16-lane sum.
#[kernel]
impl Logic for AlignedProduct {
    fn update(&mut self) {
        self.extend.a.next = self.product.val();
        self.aligned.next = self.extend.y.val() << self.shift.val();
    }
}
