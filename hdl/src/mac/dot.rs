//! Lanes and 16-lane dot products.

use super::{FOUR_BIT_SUM, WIDE_SUM};
use crate::prelude::*;
use golden::format::BLOCK;

/// FP4 x FP4 lane: the product of two E2M1 elements in units of 2^-2.
#[derive(LogicBlock, Default)]
pub struct FourBitLane {
    /// `{sign, significand[3:0]}` of the weight element.
    pub weight: Signal<In, Bits<5>>,
    /// `{sign, significand[3:0]}` of the activation element.
    pub act: Signal<In, Bits<5>>,
    /// The product, two's complement; its magnitude is at most 12 * 12.
    pub product: Signal<Out, Bits<9>>,
    weight_magnitude: Signal<Local, Bits<16>>,
    act_magnitude: Signal<Local, Bits<16>>,
    full: Signal<Local, Bits<32>>,
    magnitude: Signal<Local, Bits<9>>,
    inverted: Signal<Local, Bits<9>>,
}

/// Multiplies two E2M1 elements exactly.
#[kernel]
impl Logic for FourBitLane {
    fn update(&mut self) {
        self.weight_magnitude.next = bit_cast::<16, 4>(self.weight.val().get_bits::<4>(0));
        self.act_magnitude.next = bit_cast::<16, 4>(self.act.val().get_bits::<4>(0));
        self.full.next = self.weight_magnitude.val() * self.act_magnitude.val();
        self.magnitude.next = bit_cast::<9, 32>(self.full.val());
        self.inverted.next = !self.magnitude.val();
        self.product.next = self.magnitude.val();
        if self.weight.val().get_bit(4) ^ self.act.val().get_bit(4) {
            self.product.next = self.inverted.val() + 1;
        }
    }
}

/// FP8 lane: the product of two elements in lane form, in units of 2^-18.
#[derive(LogicBlock, Default)]
pub struct WideLane {
    /// `{sign, significand[3:0], shift[3:0]}` of the weight element.
    pub weight: Signal<In, Bits<9>>,
    /// `{sign, significand[3:0], shift[3:0]}` of the activation element.
    pub act: Signal<In, Bits<9>>,
    /// The product, two's complement; its magnitude is at most 14 * 14 * 2^28.
    pub product: Signal<Out, Bits<37>>,
    weight_significand: Signal<Local, Bits<16>>,
    act_significand: Signal<Local, Bits<16>>,
    full: Signal<Local, Bits<32>>,
    shift: Signal<Local, Bits<5>>,
    magnitude: Signal<Local, Bits<37>>,
    inverted: Signal<Local, Bits<37>>,
}

/// Multiplies two E4M3 elements (or an E4M3 and an E2M1 element in lane form) exactly.
#[kernel]
impl Logic for WideLane {
    fn update(&mut self) {
        self.weight_significand.next = bit_cast::<16, 4>(self.weight.val().get_bits::<4>(4));
        self.act_significand.next = bit_cast::<16, 4>(self.act.val().get_bits::<4>(4));
        self.full.next = self.weight_significand.val() * self.act_significand.val();
        self.shift.next = bit_cast::<5, 4>(self.weight.val().get_bits::<4>(0))
            + bit_cast::<5, 4>(self.act.val().get_bits::<4>(0));
        self.magnitude.next = bit_cast::<37, 32>(self.full.val()) << self.shift.val();
        self.inverted.next = !self.magnitude.val();
        self.product.next = self.magnitude.val();
        if self.weight.val().get_bit(8) ^ self.act.val().get_bit(8) {
            self.product.next = self.inverted.val() + 1;
        }
    }
}

/// FP4 x FP4 dot product of sixteen lanes.
#[derive(LogicBlock, Default)]
pub struct FourBitDot {
    /// Weight elements, `{sign, significand}`.
    pub weight: [Signal<In, Bits<5>>; BLOCK],
    /// Activation elements, `{sign, significand}`.
    pub act: [Signal<In, Bits<5>>; BLOCK],
    /// The exact sum in units of 2^-2, two's complement.
    pub sum: Signal<Out, Bits<FOUR_BIT_SUM>>,
    lane: [FourBitLane; BLOCK],
    tree: AddTree16<9, FOUR_BIT_SUM>,
}

/// The exact sum of sixteen E2M1 products.
#[kernel]
impl Logic for FourBitDot {
    fn update(&mut self) {
        for i in 0..BLOCK {
            self.lane[i].weight.next = self.weight[i].val();
            self.lane[i].act.next = self.act[i].val();
            self.tree.a[i].next = self.lane[i].product.val();
        }
        self.sum.next = self.tree.sum.val();
    }
}

/// Dot product of sixteen lanes in which at least one block is FP8.
#[derive(LogicBlock, Default)]
pub struct WideDot {
    /// Weight elements in lane form.
    pub weight: [Signal<In, Bits<9>>; BLOCK],
    /// Activation elements in lane form.
    pub act: [Signal<In, Bits<9>>; BLOCK],
    /// The exact sum in units of 2^-18, two's complement.
    pub sum: Signal<Out, Bits<WIDE_SUM>>,
    lane: [WideLane; BLOCK],
    tree: AddTree16<37, WIDE_SUM>,
}

/// The exact sum of sixteen products, for FP8 x FP8, FP4 x FP8 and FP8 x FP4.
#[kernel]
impl Logic for WideDot {
    fn update(&mut self) {
        for i in 0..BLOCK {
            self.lane[i].weight.next = self.weight[i].val();
            self.lane[i].act.next = self.act[i].val();
            self.tree.a[i].next = self.lane[i].product.val();
        }
        self.sum.next = self.tree.sum.val();
    }
}
