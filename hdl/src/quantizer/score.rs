//! The impact score of a block, exact in integers (numerics §3).

use crate::prelude::*;

/// UE4M3 code to an integer in units of 2^-9.
#[derive(LogicBlock, Default)]
pub struct ScaleDecoder {
    /// UE4M3 code, or the magnitude of an E4M3 code.
    pub code: Signal<In, Bits<7>>,
    /// The value in units of 2^-9.
    pub units: Signal<Out, Bits<18>>,
    exponent: Signal<Local, Bits<4>>,
    significand: Signal<Local, Bits<18>>,
    shift: Signal<Local, Bits<4>>,
}

/// Decodes an E4M3 magnitude to fixed point: significand << (exponent - 1).
#[kernel]
impl Logic for ScaleDecoder {
    fn update(&mut self) {
        self.exponent.next = self.code.val().get_bits::<4>(3);
        self.significand.next = bit_cast::<18, 3>(self.code.val().get_bits::<3>(0));
        self.shift.next = 0.into();
        if self.exponent.val().any() {
            self.significand.next = bit_cast::<18, 3>(self.code.val().get_bits::<3>(0)) | 8;
            self.shift.next = self.exponent.val() - 1;
        }
        self.units.next = self.significand.val() << self.shift.val();
    }
}

/// |d| = |scale * q4 - q8|: what the element changes by when it goes from FP8 to FP4.
#[derive(LogicBlock, Default)]
pub struct ExcessError {
    /// Magnitude bits of the E2M1 code.
    pub q4: Signal<In, Bits<3>>,
    /// Magnitude bits of the E4M3 code.
    pub q8: Signal<In, Bits<7>>,
    /// The scale in units of 2^-9.
    pub scale: Signal<In, Bits<18>>,
    /// |d| in units of 2^-10, below 2^17.
    pub error: Signal<Out, Bits<17>>,
    multiplier: MulU<18, 4, 22>,
    eight: ScaleDecoder,
    four_bit: Signal<Local, Bits<22>>,
    eight_bit: Signal<Local, Bits<22>>,
    above: Signal<Local, Bits<22>>,
    below: Signal<Local, Bits<22>>,
}

/// Both codes have the sign of z, so the magnitudes are subtracted (numerics §3 step 4).
#[kernel]
impl Logic for ExcessError {
    fn update(&mut self) {
        // E2M1 magnitude in units of 2^-1: 0 1 2 3 4 6 8 12.
        match self.q4.val().index() {
            0 => self.multiplier.b.next = 0.into(),
            1 => self.multiplier.b.next = 1.into(),
            2 => self.multiplier.b.next = 2.into(),
            3 => self.multiplier.b.next = 3.into(),
            4 => self.multiplier.b.next = 4.into(),
            5 => self.multiplier.b.next = 6.into(),
            6 => self.multiplier.b.next = 8.into(),
            _ => self.multiplier.b.next = 12.into(),
        }
        self.multiplier.a.next = self.scale.val();
        self.eight.code.next = self.q8.val();
        self.four_bit.next = self.multiplier.p.val();
        self.eight_bit.next = bit_cast::<22, 18>(self.eight.units.val()) << 1;
        self.above.next = self.four_bit.val() - self.eight_bit.val();
        self.below.next = self.eight_bit.val() - self.four_bit.val();
        self.error.next = self.below.val().get_bits::<17>(0);
        if self.four_bit.val() > self.eight_bit.val() {
            self.error.next = self.above.val().get_bits::<17>(0);
        }
    }
}

/// F * d^2, the element's part of the score.
#[derive(LogicBlock, Default)]
pub struct WeightedSquare {
    /// d^2 in units of 2^-20.
    pub square: Signal<In, Bits<34>>,
    /// UE4M3 code of the channel's sensitivity.
    pub sensitivity: Signal<In, Bits<7>>,
    /// The product in units of 2^-29, below 2^52.
    pub term: Signal<Out, Bits<52>>,
    decoder: ScaleDecoder,
    multiplier: MulU<34, 18, 52>,
}

/// Squared change weighted by sensitivity (numerics §3 step 5), exact.
#[kernel]
impl Logic for WeightedSquare {
    fn update(&mut self) {
        self.decoder.code.next = self.sensitivity.val();
        self.multiplier.a.next = self.square.val();
        self.multiplier.b.next = self.decoder.units.val();
        self.term.next = self.multiplier.p.val();
    }
}
