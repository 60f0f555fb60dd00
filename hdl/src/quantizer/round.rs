//! Roundings to E4M3, to the UE4M3 block scale and to E2M1.
//!
//! Elements come as a [`super::Rescaler`] gives them: exponent 1 stands for 2^-11.

use crate::prelude::*;

/// Rounds a magnitude to E4M3 (without the sign bit).
#[derive(LogicBlock, Default)]
pub struct E4m3Round {
    /// `{exponent[4:0], fraction[6:0]}`, at most 448; zero if the exponent is.
    pub magnitude: Signal<In, Bits<12>>,
    /// E4M3 code 0..=0x7E.
    pub code: Signal<Out, Bits<7>>,
    exponent: Signal<Local, Bits<5>>,
    fraction: Signal<Local, Bits<7>>,
    kept: Signal<Local, Bits<7>>,
    guard: Signal<Local, Bit>,
    sticky: Signal<Local, Bit>,
    round_up: Signal<Local, Bits<7>>,
}

/// RNE to E4M3 (numerics §1). From 2^-6 on three bits of the fraction are kept, below one fewer
/// for each power of two, down to the tie 2^-10 of the smallest code.
#[kernel]
impl Logic for E4m3Round {
    fn update(&mut self) {
        self.exponent.next = self.magnitude.val().get_bits::<5>(7);
        self.fraction.next = self.magnitude.val().get_bits::<7>(0);
        match self.exponent.val().index() {
            0 => {
                self.kept.next = 0.into();
                self.guard.next = false;
                self.sticky.next = false;
            }
            1 => {
                self.kept.next = 0.into();
                self.guard.next = false;
                self.sticky.next = false;
            }
            2 => {
                self.kept.next = 0.into();
                self.guard.next = true;
                self.sticky.next = self.fraction.val().any();
            }
            3 => {
                self.kept.next = 1.into();
                self.guard.next = self.fraction.val().get_bit(6);
                self.sticky.next = self.fraction.val().get_bits::<6>(0).any();
            }
            4 => {
                self.kept.next = bit_cast::<7, 1>(self.fraction.val().get_bits::<1>(6)) | 2;
                self.guard.next = self.fraction.val().get_bit(5);
                self.sticky.next = self.fraction.val().get_bits::<5>(0).any();
            }
            5 => {
                self.kept.next = bit_cast::<7, 2>(self.fraction.val().get_bits::<2>(5)) | 4;
                self.guard.next = self.fraction.val().get_bit(4);
                self.sticky.next = self.fraction.val().get_bits::<4>(0).any();
            }
            _ => {
                self.kept.next = (bit_cast::<7, 5>(self.exponent.val() - 5) << 3)
                    | bit_cast::<7, 3>(self.fraction.val().get_bits::<3>(4));
                self.guard.next = self.fraction.val().get_bit(3);
                self.sticky.next = self.fraction.val().get_bits::<3>(0).any();
            }
        }
        self.round_up.next = bit_cast::<7, 1>(
            (self.guard.val() && (self.sticky.val() || self.kept.val().get_bit(0))).into(),
        );
        self.code.next = self.kept.val() + self.round_up.val();
    }
}

/// The block scale: RNE_UE4M3(amax / 6).
#[derive(LogicBlock, Default)]
pub struct AmaxScale {
    /// `{exponent[4:0], fraction[6:0]}` of the block's largest magnitude, at most 448.
    pub amax: Signal<In, Bits<12>>,
    /// UE4M3 code of the scale, at most that of 72.
    pub code: Signal<Out, Bits<7>>,
    exponent: Signal<Local, Bits<5>>,
    fraction: Signal<Local, Bits<7>>,
    base: Signal<Local, Bits<7>>,
    steps: Signal<Local, Bits<7>>,
}

/// amax / 6 rounded once to UE4M3 (numerics §3 step 1), without dividing.
///
/// Between two powers of two amax passes the ties of at most eight codes, each six times the middle of two
/// codes. A tie belongs to the even one. With f the fraction, amax is (128 + f) * 2^(exponent - 19).
#[kernel]
impl Logic for AmaxScale {
    fn update(&mut self) {
        self.exponent.next = self.amax.val().get_bits::<5>(7);
        self.fraction.next = self.amax.val().get_bits::<7>(0);
        self.base.next = 0.into();
        self.steps.next = 0.into();
        match self.exponent.val().index() {
            0 => self.base.next = 0.into(),
            1 => self.base.next = 0.into(),
            2 => self.base.next = 0.into(),
            3 => self.base.next = 0.into(),
            // amax / 6 in steps of 2^-9: (128 + f) / 384.
            4 => {
                if self.fraction.val() > 64 {
                    self.steps.next = 1.into();
                }
            }
            // (128 + f) / 192.
            5 => self.base.next = 1.into(),
            // (128 + f) / 96.
            6 => {
                self.base.next = 1.into();
                if self.fraction.val() >= 16 {
                    self.steps.next = 1.into();
                }
                if self.fraction.val() > 112 {
                    self.steps.next = 2.into();
                }
            }
            // (128 + f) / 48.
            7 => {
                self.base.next = 3.into();
                if self.fraction.val() >= 40 {
                    self.steps.next = 1.into();
                }
                if self.fraction.val() > 88 {
                    self.steps.next = 2.into();
                }
            }
            // (128 + f) / 24.
            8 => {
                self.base.next = 5.into();
                if self.fraction.val() >= 4 {
                    self.steps.next = 1.into();
                }
                if self.fraction.val() > 28 {
                    self.steps.next = 2.into();
                }
                if self.fraction.val() >= 52 {
                    self.steps.next = 3.into();
                }
                if self.fraction.val() > 76 {
                    self.steps.next = 4.into();
                }
                if self.fraction.val() >= 100 {
                    self.steps.next = 5.into();
                }
                if self.fraction.val() > 124 {
                    self.steps.next = 6.into();
                }
            }
            // (128 + f) / 12 in steps of the significand, from 192 on / 24 in twice as large ones.
            _ => {
                self.base.next = (bit_cast::<7, 5>(self.exponent.val() - 8) << 3) | 3;
                if self.fraction.val() >= 10 {
                    self.steps.next = 1.into();
                }
                if self.fraction.val() > 22 {
                    self.steps.next = 2.into();
                }
                if self.fraction.val() >= 34 {
                    self.steps.next = 3.into();
                }
                if self.fraction.val() > 46 {
                    self.steps.next = 4.into();
                }
                if self.fraction.val() >= 58 {
                    self.steps.next = 5.into();
                }
                if self.fraction.val() > 76 {
                    self.steps.next = 6.into();
                }
                if self.fraction.val() >= 100 {
                    self.steps.next = 7.into();
                }
                if self.fraction.val() > 124 {
                    self.steps.next = 8.into();
                }
            }
        }
        self.code.next = self.base.val() + self.steps.val();
    }
}

/// A UE4M3 scale decoded, with the multiples of its significand that elements are compared with.
#[derive(LogicBlock, Default)]
pub struct ScaleMultiples {
    /// UE4M3 code.
    pub code: Signal<In, Bits<7>>,
    /// Significand s, 0 to 15: the scale is s * 2^(exponent - 10).
    pub significand: Signal<Out, Bits<4>>,
    /// Exponent, 1 to 15.
    pub exponent: Signal<Out, Bits<4>>,
    /// 3 s.
    pub triple: Signal<Out, Bits<6>>,
    /// 5 s.
    pub quintuple: Signal<Out, Bits<7>>,
    /// 7 s.
    pub septuple: Signal<Out, Bits<7>>,
    field: Signal<Local, Bits<4>>,
    s: Signal<Local, Bits<4>>,
    wide: Signal<Local, Bits<7>>,
}

/// Decodes a block scale: exponent field 0 is subnormal and counts as 1.
#[kernel]
impl Logic for ScaleMultiples {
    fn update(&mut self) {
        self.field.next = self.code.val().get_bits::<4>(3);
        self.s.next = bit_cast::<4, 3>(self.code.val().get_bits::<3>(0));
        self.exponent.next = 1.into();
        if self.field.val().any() {
            self.s.next = bit_cast::<4, 3>(self.code.val().get_bits::<3>(0)) | 8;
            self.exponent.next = self.field.val();
        }
        self.significand.next = self.s.val();
        self.wide.next = bit_cast::<7, 4>(self.s.val());
        self.triple.next = ((self.wide.val() << 1) + self.wide.val()).get_bits::<6>(0);
        self.quintuple.next = (self.wide.val() << 2) + self.wide.val();
        self.septuple.next = (self.wide.val() << 3) - self.wide.val();
    }
}

/// Four times |z| in units of the scale's last place: what is compared with multiples of its significand.
#[derive(LogicBlock, Default)]
pub struct E2m1Align {
    /// `{exponent[4:0], fraction[6:0]}`, at most the block's amax.
    pub magnitude: Signal<In, Bits<12>>,
    /// The scale's exponent, 1 to 13.
    pub scale_exponent: Signal<In, Bits<4>>,
    /// 4 |z| * 2^(10 - scale exponent) rounded down, at most 370; 0 if the scale is above 64 |z|.
    pub quarters: Signal<Out, Bits<9>>,
    /// Something was lost by that.
    pub sticky: Signal<Out, Bit>,
    shift: Signal<Local, Bits<5>>,
    doubled: Signal<Local, Bits<9>>,
    by_one: Signal<Local, Bits<9>>,
    by_three: Signal<Local, Bits<9>>,
    lost_one: Signal<Local, Bit>,
    lost_three: Signal<Local, Bit>,
    lost_seven: Signal<Local, Bit>,
}

/// (128 + fraction) * 2^(exponent - scale exponent - 7), with what falls below as sticky bit. An element is at most 6.4 times
/// a normal scale and 9 times a subnormal one, so the shift never goes to the left by more than one.
#[kernel]
impl Logic for E2m1Align {
    fn update(&mut self) {
        self.shift.next =
            bit_cast::<5, 4>(self.scale_exponent.val()) + 8 - self.magnitude.val().get_bits::<5>(7);
        self.doubled.next = (bit_cast::<9, 7>(self.magnitude.val().get_bits::<7>(0)) << 1) | 0x100;
        self.by_one.next = self.doubled.val();
        self.lost_one.next = false;
        if self.shift.val().get_bit(0) {
            self.by_one.next = self.doubled.val() >> 1;
        }
        self.by_three.next = self.by_one.val();
        self.lost_three.next = self.lost_one.val();
        if self.shift.val().get_bit(1) {
            self.by_three.next = self.by_one.val() >> 2;
            self.lost_three.next = self.lost_one.val() || self.by_one.val().get_bits::<2>(0).any();
        }
        self.quarters.next = self.by_three.val();
        self.lost_seven.next = self.lost_three.val();
        if self.shift.val().get_bit(2) {
            self.quarters.next = self.by_three.val() >> 4;
            self.lost_seven.next =
                self.lost_three.val() || self.by_three.val().get_bits::<4>(0).any();
        }
        self.sticky.next = self.lost_seven.val();
        if self.shift.val().get_bit(3) {
            // 8 leaves the leading one, more leave nothing.
            self.quarters.next = 0.into();
            self.sticky.next = self.magnitude.val().get_bits::<7>(0).any();
            if !self.shift.val().get_bits::<3>(0).any() {
                self.quarters.next = 1.into();
            }
        }
        if self.shift.val().get_bit(4) {
            self.quarters.next = 0.into();
        }
    }
}

/// Rounds z / scale to E2M1 without dividing.
#[derive(LogicBlock, Default)]
pub struct E2m1Select {
    /// From [`E2m1Align`].
    pub quarters: Signal<In, Bits<9>>,
    /// From [`E2m1Align`].
    pub sticky: Signal<In, Bit>,
    /// The scale's significand s.
    pub significand: Signal<In, Bits<4>>,
    /// 3 s.
    pub triple: Signal<In, Bits<6>>,
    /// 5 s.
    pub quintuple: Signal<In, Bits<7>>,
    /// 7 s.
    pub septuple: Signal<In, Bits<7>>,
    /// E2M1 code without its sign; 0 if the scale is zero.
    pub code: Signal<Out, Bits<3>>,
    high: Signal<Local, Bit>,
    middle: Signal<Local, Bit>,
    low: Signal<Local, Bit>,
    middle_point: Signal<Local, Bits<9>>,
    low_point: Signal<Local, Bits<9>>,
    low_code: Signal<Local, Bits<3>>,
    middle_code: Signal<Local, Bits<3>>,
    high_code: Signal<Local, Bits<3>>,
}

/// The exact quotient rounded once (numerics §1): three comparisons with multiples of the scale, which
/// find one bit of the code each. A tie goes to the even code: the points below odd codes (1, 5, 10 and 20 quarters of the
/// scale) must be exceeded, those below even codes (3, 7 and 14) reached.
#[kernel]
impl Logic for E2m1Select {
    fn update(&mut self) {
        self.high.next = self.quarters.val() >= bit_cast::<9, 7>(self.septuple.val());
        self.middle_point.next = bit_cast::<9, 6>(self.triple.val());
        if self.high.val() {
            self.middle_point.next = bit_cast::<9, 7>(self.septuple.val()) << 1;
        }
        self.middle.next = self.quarters.val() >= self.middle_point.val();
        if self.high.val() {
            self.low_point.next = bit_cast::<9, 7>(self.quintuple.val()) << 1;
            if self.middle.val() {
                self.low_point.next = bit_cast::<9, 7>(self.quintuple.val()) << 2;
            }
        } else {
            self.low_point.next = bit_cast::<9, 4>(self.significand.val());
            if self.middle.val() {
                self.low_point.next = bit_cast::<9, 7>(self.quintuple.val());
            }
        }
        self.low.next = ((bit_cast::<10, 9>(self.quarters.val()) << 1)
            | bit_cast::<10, 1>(self.sticky.val().into()))
            > (bit_cast::<10, 9>(self.low_point.val()) << 1);
        self.low_code.next = bit_cast::<3, 1>(self.low.val().into());
        self.middle_code.next = bit_cast::<3, 1>(self.middle.val().into()) << 1;
        self.high_code.next = bit_cast::<3, 1>(self.high.val().into()) << 2;
        self.code.next = self.low_code.val() | self.middle_code.val() | self.high_code.val();
        if !self.significand.val().any() {
            self.code.next = 0.into();
        }
    }
}
