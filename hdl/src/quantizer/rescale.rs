//! The front: BF16 times the input scale, rounded and clamped.

use crate::prelude::*;

/// Register stages of a [`Rescaler`].
pub const RESCALER_STAGES: usize = 5;

/// What every rescaler needs of M's exponent.
#[derive(LogicBlock, Default)]
pub struct ScaleExponent {
    /// FP32 bits of M.
    pub scale: Signal<In, Bits<32>>,
    /// Two's complement; with the biased exponent of x added, the exponent of x * M in units of which 1 is 2^-11.
    pub offset: Signal<Out, Bits<10>>,
    /// M is zero.
    pub zero: Signal<Out, Bit>,
    exponent: Signal<Local, Bits<8>>,
}

/// Biased exponents of x and M add up to that of the product plus 127; exponent 1 stands for 2^-11.
/// A zero M gets an offset so low that every product counts as zero.
#[kernel]
impl Logic for ScaleExponent {
    fn update(&mut self) {
        self.exponent.next = self.scale.val().get_bits::<8>(23);
        self.zero.next = !self.exponent.val().any();
        self.offset.next = bit_cast::<10, 8>(self.exponent.val()) - 242;
        if self.zero.val() {
            self.offset.next = 0x200.into();
        }
    }
}

/// What rounding a product of two significands to eight bits does, in the two steps of numerics §3.
#[derive(LogicBlock, Default)]
pub struct ProductRound {
    /// Product of 24 by 8 bits, both with their leading one.
    pub product: Signal<In, Bits<32>>,
    /// It is 2 or more.
    pub wide: Signal<Out, Bit>,
    /// The seven bits behind its leading one.
    pub kept: Signal<Out, Bits<7>>,
    /// They are to be incremented.
    pub round_up: Signal<Out, Bit>,
    is_wide: Signal<Local, Bit>,
    kept_bits: Signal<Local, Bits<7>>,
    odd: Signal<Local, Bit>,
    half: Signal<Local, Bit>,
    middle_any: Signal<Local, Bit>,
    middle_all: Signal<Local, Bit>,
    lowest: Signal<Local, Bit>,
    guard: Signal<Local, Bit>,
    below_guard: Signal<Local, Bit>,
}

/// The product has 31 or 32 bits: 8 that are kept, 16 that the first rounding keeps too, and up to 8 below. Rounded first
/// to 24 bits, then to 8, it goes up if the 16 are above half; at half, if the 8 below are above theirs (else the first rounding
/// leaves the tie) or the kept significand is odd; one below half, if the first rounding makes it a tie and the kept significand is
/// odd.
#[kernel]
impl Logic for ProductRound {
    fn update(&mut self) {
        // Kept are 8 bits; then come `half`, 14 middle bits and `lowest`, which the first rounding keeps too, and `guard`.
        self.is_wide.next = self.product.val().get_bit(31);
        self.middle_any.next = self.product.val().get_bits::<14>(8).any();
        self.middle_all.next = self.product.val().get_bits::<14>(8).all();
        if self.is_wide.val() {
            self.kept_bits.next = self.product.val().get_bits::<7>(24);
            self.half.next = self.product.val().get_bit(23);
            self.lowest.next = self.product.val().get_bit(22);
            self.guard.next = self.product.val().get_bit(7);
        } else {
            self.kept_bits.next = self.product.val().get_bits::<7>(23);
            self.half.next = self.product.val().get_bit(22);
            self.lowest.next = self.product.val().get_bit(7);
            self.guard.next = self.product.val().get_bit(6);
        }
        self.below_guard.next = self.product.val().get_bits::<6>(0).any()
            || (self.is_wide.val() && self.product.val().get_bit(6));
        self.odd.next = self.kept_bits.val().get_bit(0);
        self.round_up.next =
            self.odd.val() && self.middle_all.val() && self.lowest.val() && self.guard.val();
        if self.half.val() {
            self.round_up.next = self.odd.val()
                || self.middle_any.val()
                || self.lowest.val()
                || (self.guard.val() && self.below_guard.val());
        }
        self.wide.next = self.is_wide.val();
        self.kept.next = self.kept_bits.val();
    }
}

/// The last step of a rescaler: the range of z.
#[derive(LogicBlock, Default)]
pub struct ElementClamp {
    /// Sign.
    pub sign: Signal<In, Bit>,
    /// Not a number; goes before all else.
    pub nan: Signal<In, Bit>,
    /// Two's complement; 1 stands for 2^-11.
    pub exponent: Signal<In, Bits<10>>,
    /// The bits behind the leading one.
    pub fraction: Signal<In, Bits<7>>,
    /// As [`Rescaler::z`].
    pub z: Signal<Out, Bits<13>>,
    beyond: Signal<Local, Bit>,
    above: Signal<Local, Bit>,
    magnitude: Signal<Local, Bits<12>>,
    sign_bits: Signal<Local, Bits<13>>,
}

/// Clamps to 448, flushes to zero, and marks NaN.
#[kernel]
impl Logic for ElementClamp {
    fn update(&mut self) {
        // 448 is 1.75 * 2^8: exponent 20, fraction 0x60.
        self.beyond.next = self.exponent.val().get_bit(3)
            || (self.exponent.val().get_bit(2)
                && (self.exponent.val().get_bits::<2>(0).any()
                    || (self.fraction.val().get_bits::<2>(5).all()
                        && self.fraction.val().get_bits::<5>(0).any())));
        self.above.next = self.exponent.val().get_bits::<4>(5).any()
            || (self.exponent.val().get_bit(4) && self.beyond.val());
        self.magnitude.next = (bit_cast::<12, 5>(self.exponent.val().get_bits::<5>(0)) << 7)
            | bit_cast::<12, 7>(self.fraction.val());
        if self.above.val() {
            self.magnitude.next = 0xA60.into();
        }
        if self.exponent.val().get_bit(9) || !self.exponent.val().any() {
            self.magnitude.next = 0.into();
        }
        self.sign_bits.next = bit_cast::<13, 1>(self.sign.val().into()) << 12;
        self.z.next = self.sign_bits.val() | bit_cast::<13, 12>(self.magnitude.val());
        if self.nan.val() {
            self.z.next = 1.into();
        }
    }
}

/// BF16 x to z = clamp(RNE_BF16(RNE_FP32(x * M)), -448, 448), [`RESCALER_STAGES`] cycles later.
///
/// `z = {sign, exponent[4:0], fraction[6:0]}` with the value (1 + fraction / 128) * 2^(exponent - 12).
/// Exponent 0 is zero, or NaN if the fraction is 1 (the sign is 0 then). Magnitudes below 2^-11 are flushed to zero of their
/// sign: they are at or below the smallest decision point of every code and every scale, so nothing can see the difference.
#[derive(LogicBlock, Default)]
pub struct Rescaler {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Each stage takes what is before it.
    pub enable: [Signal<In, Bit>; RESCALER_STAGES],
    /// BF16 element.
    pub x: Signal<In, Bits<16>>,
    /// FP32 bits of M, constant while elements are inside.
    pub scale: Signal<In, Bits<32>>,
    /// From [`ScaleExponent`].
    pub scale_offset: Signal<In, Bits<10>>,
    /// From [`ScaleExponent`].
    pub scale_zero: Signal<In, Bit>,
    /// Rescaled and clamped element.
    pub z: Signal<Out, Bits<13>>,

    significand: Signal<Local, Bits<24>>,
    element_exponent: Signal<Local, Bits<8>>,
    fraction: Signal<Local, Bits<7>>,
    sign: [PipelineRegister<Bit>; 4],
    nan: [PipelineRegister<Bit>; 4],
    exponent: [PipelineRegister<Bits<10>>; 4],

    // 0: one multiple of M's significand for each set bit of the fraction; the eighth is M itself.
    partial: [PipelineRegister<Bits<24>>; 7],
    // 1 to 3: their sum.
    pair: [PipelineRegister<Bits<26>>; 4],
    nibble: [PipelineRegister<Bits<28>>; 2],
    product: PipelineRegister<Bits<32>>,

    // 4: roundings.
    round: ProductRound,
    unrounded: Signal<Local, Bits<18>>,
    carries: Signal<Local, Bits<18>>,
    rounded: Signal<Local, Bits<18>>,
    clamp: ElementClamp,
    rounded_z: PipelineRegister<Bits<13>>,
}

/// Rescales one activation for quantization (numerics §3), exactly.
///
/// An infinite x has the largest exponent and is clamped, a subnormal or zero x has the smallest and is flushed.
#[kernel]
impl Logic for Rescaler {
    fn update(&mut self) {
        self.significand.next = bit_cast::<24, 23>(self.scale.val().get_bits::<23>(0)) | 0x80_0000;
        self.element_exponent.next = self.x.val().get_bits::<8>(7);
        self.fraction.next = self.x.val().get_bits::<7>(0);

        // 0.
        pipeline_registers!(self, clock, enable[0], sign[0], nan[0], exponent[0]);
        self.sign[0].d.next = self.x.val().get_bit(15) ^ self.scale.val().get_bit(31);
        self.nan[0].d.next = self.element_exponent.val().all()
            && (self.fraction.val().any() || self.scale_zero.val());
        self.exponent[0].d.next =
            bit_cast::<10, 8>(self.element_exponent.val()) + self.scale_offset.val();
        for i in 0..7 {
            pipeline_registers!(self, clock, enable[0], partial[i]);
            self.partial[i].d.next = 0.into();
            if self.fraction.val().get_bit(i) {
                self.partial[i].d.next = self.significand.val();
            }
        }
        for i in 0..3 {
            pipeline_registers!(
                self,
                clock,
                enable[i + 1],
                sign[i + 1],
                nan[i + 1],
                exponent[i + 1]
            );
            self.sign[i + 1].d.next = self.sign[i].q.val();
            self.nan[i + 1].d.next = self.nan[i].q.val();
            self.exponent[i + 1].d.next = self.exponent[i].q.val();
        }

        // 1: bits 0 and 1, 2 and 3, 4 and 5, 6 and the leading one.
        for i in 0..4 {
            pipeline_registers!(self, clock, enable[1], pair[i]);
        }
        for i in 0..3 {
            self.pair[i].d.next = bit_cast::<26, 24>(self.partial[2 * i].q.val())
                + (bit_cast::<26, 24>(self.partial[2 * i + 1].q.val()) << 1);
        }
        self.pair[3].d.next = bit_cast::<26, 24>(self.partial[6].q.val())
            + (bit_cast::<26, 24>(self.significand.val()) << 1);

        // 2.
        for i in 0..2 {
            pipeline_registers!(self, clock, enable[2], nibble[i]);
            self.nibble[i].d.next = bit_cast::<28, 26>(self.pair[2 * i].q.val())
                + (bit_cast::<28, 26>(self.pair[2 * i + 1].q.val()) << 2);
        }

        // 3.
        pipeline_registers!(self, clock, enable[3], product);
        self.product.d.next = bit_cast::<32, 28>(self.nibble[0].q.val())
            + (bit_cast::<32, 28>(self.nibble[1].q.val()) << 4);

        // 4.
        pipeline_registers!(self, clock, enable[4], rounded_z);
        self.round.product.next = self.product.q.val();
        // One adder: the lowest place carries `round_up` in.
        self.unrounded.next = (bit_cast::<18, 10>(self.exponent[3].q.val()) << 8)
            | (bit_cast::<18, 7>(self.round.kept.val()) << 1)
            | 1;
        self.carries.next = (bit_cast::<18, 1>(self.round.wide.val().into()) << 8)
            | bit_cast::<18, 1>(self.round.round_up.val().into());
        self.rounded.next = self.unrounded.val() + self.carries.val();
        self.clamp.sign.next = self.sign[3].q.val();
        self.clamp.nan.next = self.nan[3].q.val();
        self.clamp.exponent.next = self.rounded.val().get_bits::<10>(8);
        self.clamp.fraction.next = self.rounded.val().get_bits::<7>(1);
        self.rounded_z.d.next = self.clamp.z.val();
        self.z.next = self.rounded_z.q.val();
    }
}
