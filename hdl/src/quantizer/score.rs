//! The impact score of a block, exact in integers (numerics §3).

use crate::prelude::*;

/// A block's scale decoded, with the multiples that an FP4 element can have of it.
#[derive(LogicBlock, Default)]
pub struct ScaleMultiples {
    /// UE4M3 code: the scale is s * 2^(e - 9), s below 16, e from 0 to 12.
    pub code: Signal<In, Bits<7>>,
    /// e.
    pub exponent: Signal<Out, Bits<4>>,
    /// The scale is subnormal or zero, s is below 8.
    pub subnormal: Signal<Out, Bit>,
    /// 2 s, for the E2M1 codes 1, 2 and 4.
    pub twofold: Signal<Out, Bits<5>>,
    /// 3 s modulo 2^5, for the E2M1 codes 3 and 5.
    pub threefold: Signal<Out, Bits<5>>,
    /// For the E2M1 code 6: as `twofold`, twice that if the scale is subnormal.
    pub top_twofold: Signal<Out, Bits<5>>,
    /// For the E2M1 code 7: as `threefold`, twice that if the scale is subnormal.
    pub top_threefold: Signal<Out, Bits<5>>,
    field: Signal<Local, Bits<4>>,
    significand: Signal<Local, Bits<5>>,
    twofold_s: Signal<Local, Bits<5>>,
    threefold_s: Signal<Local, Bits<5>>,
}

/// E2M1 values are 2 or 3 times a power of two, but for zero.
#[kernel]
impl Logic for ScaleMultiples {
    fn update(&mut self) {
        self.field.next = self.code.val().get_bits::<4>(3);
        self.significand.next = bit_cast::<5, 3>(self.code.val().get_bits::<3>(0)) | 8;
        self.exponent.next = self.field.val() - 1;
        if !self.field.val().any() {
            self.significand.next = bit_cast::<5, 3>(self.code.val().get_bits::<3>(0));
            self.exponent.next = 0.into();
        }
        self.subnormal.next = !self.field.val().any();
        self.twofold_s.next = self.significand.val() << 1;
        self.threefold_s.next = self.significand.val() + self.twofold_s.val();
        self.twofold.next = self.twofold_s.val();
        self.threefold.next = self.threefold_s.val();
        self.top_twofold.next = self.twofold_s.val();
        self.top_threefold.next = self.threefold_s.val();
        if !self.field.val().any() {
            self.top_twofold.next = self.twofold_s.val() << 1;
            self.top_threefold.next = self.threefold_s.val() << 1;
        }
    }
}

/// What an element changes by when it goes from FP8 to FP4, before the subtraction.
#[derive(LogicBlock, Default)]
pub struct ExcessOperands {
    /// E2M1 code without its sign.
    pub q4: Signal<In, Bits<3>>,
    /// E4M3 code without its sign.
    pub q8: Signal<In, Bits<7>>,
    /// From [`ScaleMultiples`], as are the next five.
    pub scale_exponent: Signal<In, Bits<4>>,
    /// The scale is subnormal.
    pub subnormal: Signal<In, Bit>,
    /// For the codes 1, 2 and 4.
    pub twofold: Signal<In, Bits<5>>,
    /// For the codes 3 and 5.
    pub threefold: Signal<In, Bits<5>>,
    /// For the code 6.
    pub top_twofold: Signal<In, Bits<5>>,
    /// For the code 7.
    pub top_threefold: Signal<In, Bits<5>>,
    /// scale * q4, modulo 2^5.
    pub four_bit: Signal<Out, Bits<5>>,
    /// q8, modulo 2^5.
    pub eight_bit: Signal<Out, Bits<5>>,
    /// Both are in units of 2^(exponent - 11).
    pub exponent: Signal<Out, Bits<4>>,
    field: Signal<Local, Bits<4>>,
    q8_exponent: Signal<Local, Bits<4>>,
    q8_significand: Signal<Local, Bits<5>>,
    base: Signal<Local, Bits<4>>,
    step: Signal<Local, Bits<2>>,
    unit: Signal<Local, Bits<4>>,
    shift: Signal<Local, Bits<2>>,
}

/// The two codes stand for nearly the same number, so their difference has few bits (numerics §3 step 4).
///
/// The larger q4, the coarser both formats. In units of a quarter of the scale's last place, times 1, 2, 4 or 8 for q4 up to 0.5, 1.5, 3 and 6,
/// scale * q4 is 2 or 3 times the significand and q8 a whole number; they differ by less than 16. A subnormal scale has the coarseness of
/// the least normal one, so its last step is 4. If q4 is zero the difference is q8, whose significand has four bits.
#[kernel]
impl Logic for ExcessOperands {
    fn update(&mut self) {
        self.field.next = self.q8.val().get_bits::<4>(3);
        self.q8_exponent.next = self.field.val();
        self.q8_significand.next = bit_cast::<5, 3>(self.q8.val().get_bits::<3>(0)) | 8;
        if !self.field.val().any() {
            self.q8_exponent.next = 1.into();
            self.q8_significand.next = bit_cast::<5, 3>(self.q8.val().get_bits::<3>(0));
        }
        self.base.next = self.scale_exponent.val();
        self.step.next = self.q4.val().get_bits::<2>(1);
        self.four_bit.next = self.twofold.val();
        if self.q4.val().get_bits::<2>(1).any() && self.q4.val().get_bit(0) {
            self.four_bit.next = self.threefold.val();
        }
        if self.q4.val().get_bits::<2>(1).all() {
            self.four_bit.next = self.top_twofold.val();
            if self.q4.val().get_bit(0) {
                self.four_bit.next = self.top_threefold.val();
            }
            if self.subnormal.val() {
                self.step.next = 2.into();
            }
        }
        if !self.q4.val().any() {
            self.four_bit.next = 0.into();
            self.base.next = self.q8_exponent.val();
            self.step.next = 1.into();
        }
        self.unit.next = self.base.val() + bit_cast::<4, 2>(self.step.val());
        self.exponent.next = self.unit.val();
        // 0 to 2; 0 if q4 is zero.
        self.shift.next =
            self.q8_exponent.val().get_bits::<2>(0) + 1 - self.unit.val().get_bits::<2>(0);
        self.eight_bit.next = self.q8_significand.val() << self.shift.val();
    }
}

/// |d| from the operands of [`ExcessOperands`].
#[derive(LogicBlock, Default)]
pub struct ExcessError {
    /// scale * q4, modulo 2^5.
    pub four_bit: Signal<In, Bits<5>>,
    /// q8, modulo 2^5.
    pub eight_bit: Signal<In, Bits<5>>,
    /// The magnitude of the difference.
    pub error: Signal<Out, Bits<4>>,
    difference: Signal<Local, Bits<5>>,
    low: Signal<Local, Bits<4>>,
}

/// Both codes have the sign of z, so the magnitudes are subtracted. The difference is within -15..=15: its low five bits tell it all.
#[kernel]
impl Logic for ExcessError {
    fn update(&mut self) {
        self.difference.next = self.four_bit.val() - self.eight_bit.val();
        self.low.next = self.difference.val().get_bits::<4>(0);
        match self.difference.val().index() {
            17 => self.error.next = 15.into(),
            18 => self.error.next = 14.into(),
            19 => self.error.next = 13.into(),
            20 => self.error.next = 12.into(),
            21 => self.error.next = 11.into(),
            22 => self.error.next = 10.into(),
            23 => self.error.next = 9.into(),
            24 => self.error.next = 8.into(),
            25 => self.error.next = 7.into(),
            26 => self.error.next = 6.into(),
            27 => self.error.next = 5.into(),
            28 => self.error.next = 4.into(),
            29 => self.error.next = 3.into(),
            30 => self.error.next = 2.into(),
            31 => self.error.next = 1.into(),
            _ => self.error.next = self.low.val(),
        }
    }
}

/// d^2 of a 4-bit |d|.
#[derive(LogicBlock, Default)]
pub struct ErrorSquare {
    /// |d|.
    pub error: Signal<In, Bits<4>>,
    /// Its square.
    pub square: Signal<Out, Bits<8>>,
}

/// A table: each bit of the square depends on four bits.
#[kernel]
impl Logic for ErrorSquare {
    fn update(&mut self) {
        match self.error.val().index() {
            0 => self.square.next = 0.into(),
            1 => self.square.next = 1.into(),
            2 => self.square.next = 4.into(),
            3 => self.square.next = 9.into(),
            4 => self.square.next = 16.into(),
            5 => self.square.next = 25.into(),
            6 => self.square.next = 36.into(),
            7 => self.square.next = 49.into(),
            8 => self.square.next = 64.into(),
            9 => self.square.next = 81.into(),
            10 => self.square.next = 100.into(),
            11 => self.square.next = 121.into(),
            12 => self.square.next = 144.into(),
            13 => self.square.next = 169.into(),
            14 => self.square.next = 196.into(),
            _ => self.square.next = 225.into(),
        }
    }
}
