//! Roundings to E4M3, to the UE4M3 block scale and to E2M1.

use crate::prelude::*;

/// Rounds a normalized magnitude to E4M3 (without the sign bit).
#[derive(LogicBlock, Default)]
pub struct E4m3Round {
    /// The magnitude is zero.
    pub zero: Signal<In, Bit>,
    /// Biased exponent: the value is significand * 2^(exponent - 138).
    pub exponent: Signal<In, Bits<8>>,
    /// Significand with bit 11 set; bit 0 also holds every lower bit (sticky).
    pub significand: Signal<In, Bits<12>>,
    /// E4M3 code 0..=0x7E.
    pub code: Signal<Out, Bits<7>>,
    underflow: Signal<Local, Bits<8>>,
    steps: Signal<Local, Bits<3>>,
    wide: Signal<Local, Bits<17>>,
    aligned: Signal<Local, Bits<17>>,
    base: Signal<Local, Bits<8>>,
    kept: Signal<Local, Bits<8>>,
    sum: Signal<Local, Bits<8>>,
    rounded: Signal<Local, Bits<8>>,
    round_up: Signal<Local, Bit>,
}

/// RNE to E4M3, saturating at 448 (numerics §1). Below 2^-6 the significand is shifted
/// to the subnormal step 2^-9 first, so the value is rounded once.
#[kernel]
impl Logic for E4m3Round {
    fn update(&mut self) {
        // 2^-6 has the biased exponent 121.
        self.underflow.next = Bits::<8>::from(121) - self.exponent.val();
        self.steps.next = 0.into();
        self.base.next = 0.into();
        if self.exponent.val() < 121 {
            self.steps.next = self.underflow.val().get_bits::<3>(0);
            if self.exponent.val() < 116 {
                self.steps.next = 6.into();
            }
        } else {
            self.base.next = (self.exponent.val() - 121) << 3;
        }
        self.wide.next = bit_cast::<17, 12>(self.significand.val()) << 5;
        self.aligned.next = self.wide.val() >> self.steps.val();
        self.kept.next = bit_cast::<8, 4>(self.aligned.val().get_bits::<4>(13));
        self.round_up.next = self.aligned.val().get_bit(12)
            && (self.aligned.val().get_bit(13) || self.aligned.val().get_bits::<12>(0).any());
        self.sum.next = self.base.val() + self.kept.val();
        self.rounded.next = self.sum.val();
        if self.round_up.val() {
            self.rounded.next = self.sum.val() + 1;
        }
        self.code.next = self.rounded.val().get_bits::<7>(0);
        if self.exponent.val() > 135 || self.rounded.val() > 0x7E {
            self.code.next = 0x7E.into();
        }
        if self.zero.val() || self.exponent.val() < 116 {
            self.code.next = 0.into();
        }
    }
}

/// The block scale: RNE_UE4M3(amax / 6).
#[derive(LogicBlock)]
pub struct AmaxScale {
    /// Magnitude bits of the largest BF16 element, at most 448.
    pub amax: Signal<In, Bits<15>>,
    /// UE4M3 code of the scale.
    pub code: Signal<Out, Bits<7>>,
    exponent: Signal<Local, Bits<8>>,
    numerator: Signal<Local, Bits<16>>,
    third: Constant<Bits<16>>,
    product: Signal<Local, Bits<32>>,
    quotient: Signal<Local, Bits<16>>,
    back: Signal<Local, Bits<16>>,
    inexact: Signal<Local, Bits<12>>,
    round: E4m3Round,
}

impl Default for AmaxScale {
    fn default() -> Self {
        Self {
            amax: Default::default(),
            code: Default::default(),
            exponent: Default::default(),
            numerator: Default::default(),
            // n * 43691 >> 17 is n / 3 rounded down for every 16-bit n.
            third: Constant::new(43691.into()),
            product: Default::default(),
            quotient: Default::default(),
            back: Default::default(),
            inexact: Default::default(),
            round: Default::default(),
        }
    }
}

/// amax / 6 rounded once to UE4M3 (numerics §3 step 1): the significand is divided by three
/// exactly, with the remainder as sticky bit, and rounded.
#[kernel]
impl Logic for AmaxScale {
    fn update(&mut self) {
        self.exponent.next = self.amax.val().get_bits::<8>(7);
        self.numerator.next = (bit_cast::<16, 7>(self.amax.val().get_bits::<7>(0)) | 0x80) << 5;
        self.product.next = self.numerator.val() * self.third.val();
        self.quotient.next = bit_cast::<16, 15>(self.product.val().get_bits::<15>(17));
        self.back.next = (self.quotient.val() << 1) + self.quotient.val();
        self.inexact.next = 0.into();
        if self.back.val() != self.numerator.val() {
            self.inexact.next = 1.into();
        }
        // The quotient is 1365..=2720; the value is quotient * 2^(exponent - 140).
        if self.quotient.val().get_bit(11) {
            self.round.significand.next =
                self.quotient.val().get_bits::<12>(0) | self.inexact.val();
            self.round.exponent.next = self.exponent.val() - 2;
        } else {
            self.round.significand.next =
                (self.quotient.val().get_bits::<12>(0) << 1) | self.inexact.val();
            self.round.exponent.next = self.exponent.val() - 3;
        }
        self.round.zero.next = self.exponent.val() < 4;
        self.code.next = self.round.code.val();
    }
}

/// Rounds z / scale to E2M1 without dividing.
#[derive(LogicBlock, Default)]
pub struct E2m1Round {
    /// BF16 element with |z| at most 448.
    pub z: Signal<In, Bits<16>>,
    /// The scale in units of 2^-9.
    pub scale: Signal<In, Bits<18>>,
    /// E2M1 code.
    pub code: Signal<Out, Bits<4>>,
    exponent: Signal<Local, Bits<8>>,
    shift: Signal<Local, Bits<8>>,
    significand: Signal<Local, Bits<28>>,
    aligned: Signal<Local, Bits<28>>,
    fixed: Signal<Local, Bits<24>>,
    sticky: Signal<Local, Bit>,
    s1: Signal<Local, Bits<24>>,
    s3: Signal<Local, Bits<24>>,
    s5: Signal<Local, Bits<24>>,
    s7: Signal<Local, Bits<24>>,
    s10: Signal<Local, Bits<24>>,
    s14: Signal<Local, Bits<24>>,
    s20: Signal<Local, Bits<24>>,
    magnitude: Signal<Local, Bits<3>>,
    sign: Signal<Local, Bits<4>>,
}

/// The exact quotient rounded once (numerics §1): |z| is compared with scale * decision point,
/// both in units of 2^-11; a tie goes to the even code, a zero scale gives code 0.
#[kernel]
impl Logic for E2m1Round {
    fn update(&mut self) {
        self.exponent.next = self.z.val().get_bits::<8>(7);
        self.shift.next = self.exponent.val() - 115;
        self.significand.next = bit_cast::<28, 7>(self.z.val().get_bits::<7>(0)) | 0x80;
        self.aligned.next = self.significand.val() << self.shift.val().get_bits::<5>(0);
        self.fixed.next = bit_cast::<24, 20>(self.aligned.val().get_bits::<20>(8));
        self.sticky.next = self.aligned.val().get_bits::<8>(0).any();
        if self.exponent.val() < 115 {
            // Below 2^-12: under every decision point but those of a zero scale.
            self.fixed.next = 0.into();
            self.sticky.next = self.exponent.val().any();
        }
        self.s1.next = bit_cast::<24, 18>(self.scale.val());
        self.s3.next = (self.s1.val() << 1) + self.s1.val();
        self.s5.next = (self.s1.val() << 2) + self.s1.val();
        self.s7.next = (self.s1.val() << 3) - self.s1.val();
        self.s10.next = self.s5.val() << 1;
        self.s14.next = self.s7.val() << 1;
        self.s20.next = self.s5.val() << 2;
        self.magnitude.next = 0.into();
        if self.fixed.val() > self.s1.val()
            || (self.fixed.val() == self.s1.val() && self.sticky.val())
        {
            self.magnitude.next = 1.into();
        }
        if self.fixed.val() >= self.s3.val() {
            self.magnitude.next = 2.into();
        }
        if self.fixed.val() > self.s5.val()
            || (self.fixed.val() == self.s5.val() && self.sticky.val())
        {
            self.magnitude.next = 3.into();
        }
        if self.fixed.val() >= self.s7.val() {
            self.magnitude.next = 4.into();
        }
        if self.fixed.val() > self.s10.val()
            || (self.fixed.val() == self.s10.val() && self.sticky.val())
        {
            self.magnitude.next = 5.into();
        }
        if self.fixed.val() >= self.s14.val() {
            self.magnitude.next = 6.into();
        }
        if self.fixed.val() > self.s20.val()
            || (self.fixed.val() == self.s20.val() && self.sticky.val())
        {
            self.magnitude.next = 7.into();
        }
        self.sign.next = 0.into();
        if self.z.val().get_bit(15) {
            self.sign.next = 8.into();
        }
        self.code.next = bit_cast::<4, 3>(self.magnitude.val()) | self.sign.val();
        if !self.scale.val().any() {
            self.code.next = 0.into();
        }
    }
}
