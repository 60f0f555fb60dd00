//! The impact score of a block, exact in integers (numerics §3).

use crate::prelude::*;

/// What an element changes by when it goes from FP8 to FP4, before the subtraction.
#[derive(LogicBlock, Default)]
pub struct ExcessOperands {
    /// E2M1 code without its sign.
    pub q4: Signal<In, Bits<3>>,
    /// E4M3 code without its sign.
    pub q8: Signal<In, Bits<7>>,
    /// The scale's significand s.
    pub significand: Signal<In, Bits<4>>,
    /// 3 s.
    pub triple: Signal<In, Bits<6>>,
    /// The scale's exponent, 1 to 13.
    pub scale_exponent: Signal<In, Bits<4>>,
    /// scale * q4, modulo 2^8.
    pub four_bit: Signal<Out, Bits<8>>,
    /// q8, modulo 2^8.
    pub eight_bit: Signal<Out, Bits<8>>,
    /// Both are in units of 2^(scale exponent - 12 - 4 depth), 0 to 3. The first is zero where this is not.
    pub depth: Signal<Out, Bits<2>>,
    odd: Signal<Local, Bits<8>>,
    field: Signal<Local, Bits<4>>,
    exponent: Signal<Local, Bits<5>>,
    q8_significand: Signal<Local, Bits<4>>,
    shift: Signal<Local, Bits<5>>,
    by_three: Signal<Local, Bits<8>>,
}

/// The two codes stand for nearly the same number, so their difference has few bits (numerics §3 step 4).
///
/// If q4 is not zero, q8 is at least a quarter of the scale (less the rounding), so it is a multiple of a quarter of the scale's last place,
/// and the difference is below 128 of them. If q4 is zero the difference is q8, four bits anywhere below.
#[kernel]
impl Logic for ExcessOperands {
    fn update(&mut self) {
        // E2M1 in units of 2^-1: 0 1 2 3 4 6 8 12, that is 1 or 3 shifted; the scale is 4 s quarters.
        self.odd.next = bit_cast::<8, 4>(self.significand.val());
        if self.q4.val().get_bit(0) && self.q4.val().get_bits::<2>(1).any() {
            self.odd.next = bit_cast::<8, 6>(self.triple.val());
        }
        match self.q4.val().index() {
            0 => self.four_bit.next = 0.into(),
            1 => self.four_bit.next = self.odd.val() << 1,
            2 => self.four_bit.next = self.odd.val() << 2,
            3 => self.four_bit.next = self.odd.val() << 1,
            4 => self.four_bit.next = self.odd.val() << 3,
            5 => self.four_bit.next = self.odd.val() << 2,
            6 => self.four_bit.next = self.odd.val() << 4,
            _ => self.four_bit.next = self.odd.val() << 3,
        }
        self.field.next = self.q8.val().get_bits::<4>(3);
        self.exponent.next = bit_cast::<5, 4>(self.field.val());
        self.q8_significand.next = bit_cast::<4, 3>(self.q8.val().get_bits::<3>(0)) | 8;
        if !self.field.val().any() {
            self.exponent.next = 1.into();
            self.q8_significand.next = bit_cast::<4, 3>(self.q8.val().get_bits::<3>(0));
        }
        // From -10 to 5.
        self.shift.next = self.exponent.val() + 2 - bit_cast::<5, 4>(self.scale_exponent.val());
        self.by_three.next =
            bit_cast::<8, 4>(self.q8_significand.val()) << self.shift.val().get_bits::<2>(0);
        self.eight_bit.next = self.by_three.val();
        self.depth.next = 0.into();
        if self.shift.val().get_bit(4) {
            // The shift is its low two bits less four times the depth.
            self.depth.next = Bits::<2>::from(0) - self.shift.val().get_bits::<2>(2);
        } else if self.shift.val().get_bit(2) {
            self.eight_bit.next = self.by_three.val() << 4;
        }
    }
}

/// |d| from the operands of [`ExcessOperands`].
#[derive(LogicBlock, Default)]
pub struct ExcessError {
    /// scale * q4, modulo 2^8.
    pub four_bit: Signal<In, Bits<8>>,
    /// q8, modulo 2^8.
    pub eight_bit: Signal<In, Bits<8>>,
    /// The magnitude of the difference, at most 120.
    pub error: Signal<Out, Bits<7>>,
    above: Signal<Local, Bits<8>>,
    below: Signal<Local, Bits<8>>,
}

/// Both codes have the sign of z, so the magnitudes are subtracted. The difference is within -128..128: its low eight bits tell it all.
#[kernel]
impl Logic for ExcessError {
    fn update(&mut self) {
        self.above.next = self.four_bit.val() - self.eight_bit.val();
        self.below.next = self.eight_bit.val() - self.four_bit.val();
        self.error.next = self.above.val().get_bits::<7>(0);
        if self.above.val().get_bit(7) {
            self.error.next = self.below.val().get_bits::<7>(0);
        }
    }
}

/// d^2 of a 7-bit |d|.
#[derive(LogicBlock, Default)]
pub struct ErrorSquare {
    /// |d|.
    pub error: Signal<In, Bits<7>>,
    /// Its square.
    pub square: Signal<Out, Bits<14>>,
    high: Signal<Local, Bits<3>>,
    low: Signal<Local, Bits<4>>,
    high_square: Signal<Local, Bits<14>>,
    low_square: Signal<Local, Bits<14>>,
    once: Signal<Local, Bits<7>>,
    twice: Signal<Local, Bits<7>>,
    four_times: Signal<Local, Bits<7>>,
    mixed: Signal<Local, Bits<14>>,
}

/// (16 h + l)^2 = 256 h^2 + l^2 + 32 h l: two tables side by side and one sum.
#[kernel]
impl Logic for ErrorSquare {
    fn update(&mut self) {
        self.high.next = self.error.val().get_bits::<3>(4);
        self.low.next = self.error.val().get_bits::<4>(0);
        match self.high.val().index() {
            0 => self.high_square.next = 0.into(),
            1 => self.high_square.next = 0x100.into(),
            2 => self.high_square.next = 0x400.into(),
            3 => self.high_square.next = 0x900.into(),
            4 => self.high_square.next = 0x1000.into(),
            5 => self.high_square.next = 0x1900.into(),
            6 => self.high_square.next = 0x2400.into(),
            _ => self.high_square.next = 0x3100.into(),
        }
        match self.low.val().index() {
            0 => self.low_square.next = 0.into(),
            1 => self.low_square.next = 1.into(),
            2 => self.low_square.next = 4.into(),
            3 => self.low_square.next = 9.into(),
            4 => self.low_square.next = 16.into(),
            5 => self.low_square.next = 25.into(),
            6 => self.low_square.next = 36.into(),
            7 => self.low_square.next = 49.into(),
            8 => self.low_square.next = 64.into(),
            9 => self.low_square.next = 81.into(),
            10 => self.low_square.next = 100.into(),
            11 => self.low_square.next = 121.into(),
            12 => self.low_square.next = 144.into(),
            13 => self.low_square.next = 169.into(),
            14 => self.low_square.next = 196.into(),
            _ => self.low_square.next = 225.into(),
        }
        // Too small a product for a multiplier block.
        self.once.next = 0.into();
        if self.high.val().get_bit(0) {
            self.once.next = bit_cast::<7, 4>(self.low.val());
        }
        self.twice.next = 0.into();
        if self.high.val().get_bit(1) {
            self.twice.next = bit_cast::<7, 4>(self.low.val()) << 1;
        }
        self.four_times.next = 0.into();
        if self.high.val().get_bit(2) {
            self.four_times.next = bit_cast::<7, 4>(self.low.val()) << 2;
        }
        self.mixed.next =
            bit_cast::<14, 7>(self.once.val() + self.twice.val() + self.four_times.val()) << 5;
        self.square.next = (self.high_square.val() | self.low_square.val()) + self.mixed.val();
    }
}
