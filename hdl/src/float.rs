//! FP32 multiplication and the two roundings, shared by the requantizer and the quantizer's front.

use crate::prelude::*;

/// Left-aligns a 64-bit magnitude and counts its leading zeros.
#[derive(LogicBlock, Default)]
pub struct Normalizer {
    /// The magnitude.
    pub x: Signal<In, Bits<64>>,
    /// `x` shifted left until bit 63 is set; 0 stays 0.
    pub y: Signal<Out, Bits<64>>,
    /// The shift: leading zeros of `x`, 63 for 0.
    pub leading_zeros: Signal<Out, Bits<6>>,
    half32: Signal<Local, Bits<64>>,
    half16: Signal<Local, Bits<64>>,
    half8: Signal<Local, Bits<64>>,
    half4: Signal<Local, Bits<64>>,
    half2: Signal<Local, Bits<64>>,
    zeros32: Signal<Local, Bits<6>>,
    zeros16: Signal<Local, Bits<6>>,
    zeros8: Signal<Local, Bits<6>>,
    zeros4: Signal<Local, Bits<6>>,
    zeros2: Signal<Local, Bits<6>>,
    zeros1: Signal<Local, Bits<6>>,
}

/// Normalizes a 64-bit magnitude in six steps of halving width.
#[kernel]
impl Logic for Normalizer {
    fn update(&mut self) {
        self.half32.next = self.x.val();
        self.zeros32.next = 0.into();
        if !self.x.val().get_bits::<32>(32).any() {
            self.half32.next = self.x.val() << 32;
            self.zeros32.next = 32.into();
        }
        self.half16.next = self.half32.val();
        self.zeros16.next = 0.into();
        if !self.half32.val().get_bits::<16>(48).any() {
            self.half16.next = self.half32.val() << 16;
            self.zeros16.next = 16.into();
        }
        self.half8.next = self.half16.val();
        self.zeros8.next = 0.into();
        if !self.half16.val().get_bits::<8>(56).any() {
            self.half8.next = self.half16.val() << 8;
            self.zeros8.next = 8.into();
        }
        self.half4.next = self.half8.val();
        self.zeros4.next = 0.into();
        if !self.half8.val().get_bits::<4>(60).any() {
            self.half4.next = self.half8.val() << 4;
            self.zeros4.next = 4.into();
        }
        self.half2.next = self.half4.val();
        self.zeros2.next = 0.into();
        if !self.half4.val().get_bits::<2>(62).any() {
            self.half2.next = self.half4.val() << 2;
            self.zeros2.next = 2.into();
        }
        self.y.next = self.half2.val();
        self.zeros1.next = 0.into();
        if !self.half2.val().get_bit(63) {
            self.y.next = self.half2.val() << 1;
            self.zeros1.next = 1.into();
        }
        self.leading_zeros.next = self.zeros32.val()
            | self.zeros16.val()
            | self.zeros8.val()
            | self.zeros4.val()
            | self.zeros2.val()
            | self.zeros1.val();
    }
}

/// Multiplies a normalized significand by an FP32 constant: RNE to FP32, then RNE to BF16.
///
/// Two pipeline registers; both hold while `advance` is low.
#[derive(LogicBlock, Default)]
pub struct FloatScale {
    /// Clock.
    pub clock: Signal<In, Clock>,
    /// Step the pipeline.
    pub advance: Signal<In, Bit>,
    /// Sign of x.
    pub sign: Signal<In, Bit>,
    /// x is zero.
    pub zero: Signal<In, Bit>,
    /// x is infinite.
    pub infinite: Signal<In, Bit>,
    /// x is NaN.
    pub nan: Signal<In, Bit>,
    /// Biased FP32 exponent of x.
    pub exponent: Signal<In, Bits<10>>,
    /// 24-bit significand of x, bit 23 set.
    pub significand: Signal<In, Bits<24>>,
    /// The constant M, an FP32 bit pattern with magnitude in \[2^-60, 2^60\] or zero.
    pub scale: Signal<In, Bits<32>>,
    /// The product as BF16; magnitudes below 2^-126 become zero of the same sign.
    pub y: Signal<Out, Bits<16>>,

    scale_exponent: Signal<Local, Bits<8>>,
    scale_significand: Signal<Local, Bits<24>>,
    scale_zero: Signal<Local, Bit>,
    multiplier: MulU<24, 24, 48>,
    exponent_sum: Signal<Local, Bits<10>>,

    product: DataRegister<Bits<48>>,
    product_exponent: DataRegister<Bits<10>>,
    product_sign: DataRegister<Bit>,
    product_zero: DataRegister<Bit>,
    product_infinite: DataRegister<Bit>,
    product_nan: DataRegister<Bit>,

    kept: Signal<Local, Bits<24>>,
    kept_exponent: Signal<Local, Bits<10>>,
    round_up: Signal<Local, Bit>,
    rounded: Signal<Local, Bits<25>>,
    single: Signal<Local, Bits<24>>,
    single_exponent: Signal<Local, Bits<10>>,
    half_up: Signal<Local, Bit>,
    half_rounded: Signal<Local, Bits<9>>,
    half_exponent: Signal<Local, Bits<10>>,
    fraction: Signal<Local, Bits<7>>,
    magnitude: Signal<Local, Bits<16>>,
    sign_bits: Signal<Local, Bits<16>>,
    packed: DataRegister<Bits<16>>,
}

/// y = RNE_BF16(RNE_FP32(x * M)) for x given as sign, exponent and 24-bit significand
/// (numerics §3 and §5). NaN gives 0x7FC0, infinity times zero too.
#[kernel]
impl Logic for FloatScale {
    fn update(&mut self) {
        data_registers!(
            self,
            clock,
            product,
            product_exponent,
            product_sign,
            product_zero,
            product_infinite,
            product_nan,
            packed
        );
        self.scale_exponent.next = self.scale.val().get_bits::<8>(23);
        self.scale_zero.next = !self.scale_exponent.val().any();
        self.scale_significand.next =
            bit_cast::<24, 23>(self.scale.val().get_bits::<23>(0)) | 0x80_0000;
        self.multiplier.a.next = self.significand.val();
        self.multiplier.b.next = self.scale_significand.val();
        self.exponent_sum.next =
            self.exponent.val() + bit_cast::<10, 8>(self.scale_exponent.val()) - 127;
        if self.advance.val() {
            self.product.d.next = self.multiplier.p.val();
            self.product_exponent.d.next = self.exponent_sum.val();
            self.product_sign.d.next = self.sign.val() ^ self.scale.val().get_bit(31);
            self.product_zero.d.next = self.zero.val() || self.scale_zero.val();
            self.product_infinite.d.next = self.infinite.val();
            self.product_nan.d.next =
                self.nan.val() || (self.infinite.val() && self.scale_zero.val());
        }

        // Round to nearest even at 24 bits.
        if self.product.q.val().get_bit(47) {
            self.kept.next = self.product.q.val().get_bits::<24>(24);
            self.kept_exponent.next = self.product_exponent.q.val() + 1;
            self.round_up.next = self.product.q.val().get_bit(23)
                && (self.product.q.val().get_bit(24)
                    || self.product.q.val().get_bits::<23>(0).any());
        } else {
            self.kept.next = self.product.q.val().get_bits::<24>(23);
            self.kept_exponent.next = self.product_exponent.q.val();
            self.round_up.next = self.product.q.val().get_bit(22)
                && (self.product.q.val().get_bit(23)
                    || self.product.q.val().get_bits::<22>(0).any());
        }
        self.rounded.next = bit_cast::<25, 24>(self.kept.val());
        if self.round_up.val() {
            self.rounded.next = bit_cast::<25, 24>(self.kept.val()) + 1;
        }
        self.single.next = self.rounded.val().get_bits::<24>(0);
        self.single_exponent.next = self.kept_exponent.val();
        if self.rounded.val().get_bit(24) {
            self.single.next = 0x80_0000.into();
            self.single_exponent.next = self.kept_exponent.val() + 1;
        }

        // And at 8 bits.
        self.half_up.next = self.single.val().get_bit(15)
            && (self.single.val().get_bit(16) || self.single.val().get_bits::<15>(0).any());
        self.half_rounded.next = bit_cast::<9, 8>(self.single.val().get_bits::<8>(16));
        if self.half_up.val() {
            self.half_rounded.next = bit_cast::<9, 8>(self.single.val().get_bits::<8>(16)) + 1;
        }
        self.fraction.next = self.half_rounded.val().get_bits::<7>(0);
        self.half_exponent.next = self.single_exponent.val();
        if self.half_rounded.val().get_bit(8) {
            self.fraction.next = 0.into();
            self.half_exponent.next = self.single_exponent.val() + 1;
        }

        self.sign_bits.next = bit_cast::<16, 1>(self.product_sign.q.val().into()) << 15;
        self.magnitude.next = (bit_cast::<16, 8>(self.half_exponent.val().get_bits::<8>(0)) << 7)
            | bit_cast::<16, 7>(self.fraction.val());
        if self.half_exponent.val().get_bits::<2>(8).index() == 1
            || self.half_exponent.val().get_bits::<9>(0).index() == 255
            || self.product_infinite.q.val()
        {
            self.magnitude.next = 0x7F80.into();
        }
        if !self.product_infinite.q.val()
            && (self.product_zero.q.val()
                || self.half_exponent.val().get_bit(9)
                || !self.half_exponent.val().any())
        {
            self.magnitude.next = 0.into();
        }
        if self.advance.val() {
            self.packed.d.next = self.sign_bits.val() | self.magnitude.val();
            if self.product_nan.q.val() {
                self.packed.d.next = 0x7FC0.into();
            }
        }
        self.y.next = self.packed.q.val();
    }
}
