//! FP32 multiplication and the two roundings, shared by the requantizer and the quantizer's front.

use crate::config::Multiplier;
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

/// The exact product of two significands in adders.
///
/// The first is written with the digits -1, 0, 1 and 2 to base 4, which takes one addition: then a bit of a multiple of the second is a function of four bits.
#[derive(LogicBlock, PortAccess, Default)]
pub struct SignificandProduct {
    /// First significand.
    pub a: Signal<In, Bits<24>>,
    /// Second significand.
    pub b: Signal<In, Bits<24>>,
    /// Their product.
    pub p: Signal<Out, Bits<48>>,
    digits: Signal<Local, Bits<25>>,
    multiple: [Signal<Local, Bits<26>>; 12],
    multiple_extend: [SignExtend<26, 29>; 12],
    pair: [Signal<Local, Bits<29>>; 6],
    pair_extend: [SignExtend<29, 33>; 6],
    quad: [Signal<Local, Bits<33>>; 3],
    quad_extend: [SignExtend<33, 48>; 3],
    rest: Signal<Local, Bits<48>>,
}

/// Product of two significands of 24 bits, the first with the digits -1, 0, 1 and 2 to base 4.
///
/// A digit -1 gives the complement; the ones that make it a negation, and the product with the 13th digit, are added last.
#[kernel]
impl Logic for SignificandProduct {
    fn update(&mut self) {
        // Each digit plus one.
        self.digits.next = bit_cast::<25, 24>(self.a.val()) + 0x55_5555;
        self.rest.next = 0.into();
        if self.digits.val().get_bit(24) {
            self.rest.next = bit_cast::<48, 24>(self.b.val()) << 24;
        }
        for i in 0..12 {
            match self.digits.val().get_bits::<2>(2 * i).index() {
                0 => self.multiple[i].next = !bit_cast::<26, 24>(self.b.val()),
                1 => self.multiple[i].next = 0.into(),
                2 => self.multiple[i].next = bit_cast::<26, 24>(self.b.val()),
                _ => self.multiple[i].next = bit_cast::<26, 24>(self.b.val()) << 1,
            }
            if !self.digits.val().get_bits::<2>(2 * i).any() {
                self.rest.next = self.rest.val() | (1 << (2 * i));
            }
            self.multiple_extend[i].a.next = self.multiple[i].val();
        }
        for i in 0..6 {
            self.pair[i].next = self.multiple_extend[2 * i].y.val()
                + (self.multiple_extend[2 * i + 1].y.val() << 2);
            self.pair_extend[i].a.next = self.pair[i].val();
        }
        for i in 0..3 {
            self.quad[i].next =
                self.pair_extend[2 * i].y.val() + (self.pair_extend[2 * i + 1].y.val() << 4);
            self.quad_extend[i].a.next = self.quad[i].val();
        }
        self.p.next = (self.quad_extend[0].y.val() + (self.quad_extend[1].y.val() << 8))
            + ((self.quad_extend[2].y.val() << 16) + self.rest.val());
    }
}

/// Multiplies a normalized significand by an FP32 constant: RNE to FP32, then RNE to BF16.
///
/// Two pipeline registers; both hold while `advance` is low.
#[derive(LogicBlock)]
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
    // One of the two, as the configuration says.
    adders: Vec<SignificandProduct>,
    multiplier: Vec<MulU<24, 24, 48>>,
    exponent_sum: Signal<Local, Bits<10>>,

    product: DataRegister<Bits<48>>,
    product_exponent: DataRegister<Bits<10>>,
    product_sign: DataRegister<Bit>,
    product_zero: DataRegister<Bit>,
    product_infinite: DataRegister<Bit>,
    product_nan: DataRegister<Bit>,

    kept: Signal<Local, Bits<24>>,
    below: Signal<Local, Bits<24>>,
    single_up: Signal<Local, Bit>,
    half_up: Signal<Local, Bit>,
    half: AddCarry<17, 18>,
    half_exponent: Signal<Local, Bits<10>>,
    top: Signal<Local, Bits<10>>,
    magnitude: Signal<Local, Bits<16>>,
    sign_bits: Signal<Local, Bits<16>>,
    packed: DataRegister<Bits<16>>,
    _adders: usize,
    _blocks: usize,
}

impl FloatScale {
    /// With a product in adders or in multiplier blocks.
    #[must_use]
    pub fn new(multiplier: Multiplier) -> Self {
        let (adders, blocks) = match multiplier {
            Multiplier::Lut => (1, 0),
            Multiplier::Dsp => (0, 1),
        };
        Self {
            clock: Default::default(),
            advance: Default::default(),
            sign: Default::default(),
            zero: Default::default(),
            infinite: Default::default(),
            nan: Default::default(),
            exponent: Default::default(),
            significand: Default::default(),
            scale: Default::default(),
            y: Default::default(),
            scale_exponent: Default::default(),
            scale_significand: Default::default(),
            scale_zero: Default::default(),
            adders: (0..adders).map(|_| Default::default()).collect(),
            multiplier: (0..blocks).map(|_| Default::default()).collect(),
            exponent_sum: Default::default(),
            product: Default::default(),
            product_exponent: Default::default(),
            product_sign: Default::default(),
            product_zero: Default::default(),
            product_infinite: Default::default(),
            product_nan: Default::default(),
            kept: Default::default(),
            below: Default::default(),
            single_up: Default::default(),
            half_up: Default::default(),
            half: Default::default(),
            half_exponent: Default::default(),
            top: Default::default(),
            magnitude: Default::default(),
            sign_bits: Default::default(),
            packed: Default::default(),
            _adders: adders,
            _blocks: blocks,
        }
    }
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
        for i in 0..self._adders {
            self.adders[i].a.next = self.significand.val();
            self.adders[i].b.next = self.scale_significand.val();
        }
        for i in 0..self._blocks {
            self.multiplier[i].a.next = self.significand.val();
            self.multiplier[i].b.next = self.scale_significand.val();
        }
        self.exponent_sum.next =
            self.exponent.val() + bit_cast::<10, 8>(self.scale_exponent.val()) - 127;
        if self.advance.val() {
            for i in 0..self._adders {
                self.product.d.next = self.adders[i].p.val();
            }
            for i in 0..self._blocks {
                self.product.d.next = self.multiplier[i].p.val();
            }
            self.product_exponent.d.next = self.exponent_sum.val();
            self.product_sign.d.next = self.sign.val() ^ self.scale.val().get_bit(31);
            self.product_zero.d.next = self.zero.val() || self.scale_zero.val();
            self.product_infinite.d.next = self.infinite.val();
            self.product_nan.d.next =
                self.nan.val() || (self.infinite.val() && self.scale_zero.val());
        }

        // Round to nearest even at 24 bits, then at 8. The first rounding is not carried out: it matters to the second only where the sixteen
        // bits between are a tie, or become one, or overflow.
        self.kept.next = self.product.q.val().get_bits::<24>(23);
        self.below.next = bit_cast::<24, 23>(self.product.q.val().get_bits::<23>(0)) << 1;
        self.top.next = 0.into();
        if self.product.q.val().get_bit(47) {
            self.kept.next = self.product.q.val().get_bits::<24>(24);
            self.below.next = self.product.q.val().get_bits::<24>(0);
            self.top.next = 1.into();
        }
        self.single_up.next = self.below.val().get_bit(23)
            && (self.kept.val().get_bit(0) || self.below.val().get_bits::<23>(0).any());
        self.half_up.next = self.kept.val().get_bit(16)
            && self.single_up.val()
            && self.kept.val().get_bits::<15>(0).all();
        if self.kept.val().get_bit(15) {
            self.half_up.next = self.kept.val().get_bit(16)
                || self.single_up.val()
                || self.kept.val().get_bits::<15>(0).any();
        }
        // A significand that overflows leaves a fraction of 0 and a higher exponent.
        self.half.a.next = (bit_cast::<17, 10>(self.product_exponent.q.val()) << 7)
            | bit_cast::<17, 7>(self.kept.val().get_bits::<7>(16));
        self.half.b.next = bit_cast::<17, 10>(self.top.val()) << 7;
        self.half.carry.next = self.half_up.val();
        self.half_exponent.next = self.half.sum.val().get_bits::<10>(7);

        self.sign_bits.next = bit_cast::<16, 1>(self.product_sign.q.val().into()) << 15;
        self.magnitude.next = (bit_cast::<16, 8>(self.half_exponent.val().get_bits::<8>(0)) << 7)
            | bit_cast::<16, 7>(self.half.sum.val().get_bits::<7>(0));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform enough, and the same every time.
    fn next(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 24
    }

    #[test]
    fn a_product_in_adders_is_exact() {
        let mut module = SignificandProduct::default();
        let mut state = 1;
        let edges = [
            0_u64, 1, 2, 3, 0x55_5555, 0xAA_AAAA, 0xAA_AAAB, 0x80_0000, 0xFF_FFFF,
        ];
        let pairs = edges
            .iter()
            .flat_map(|a| edges.iter().map(move |b| (*a, *b)))
            .chain((0..3000).map(|_| (next(&mut state) & 0xFF_FFFF, next(&mut state) & 0xFF_FFFF)));
        for (a, b) in pairs {
            module.a.next = a.into();
            module.b.next = b.into();
            assert!(simulate(&mut module, 10));
            assert_eq!(module.p.val().to_u64(), a * b, "{a:#x} * {b:#x}");
        }
    }

    #[test]
    fn the_two_roundings_in_one_are_the_two() {
        let mut module = FloatScale::new(Multiplier::Dsp);
        module.advance.next = true;
        let mut state = 2;
        for round in 0..4000_u64 {
            // The bits between the two roundings: around a tie, and around an overflow; then the first rounding's own.
            let between = [0x7FFF, 0x8000, 0xFFFF, 0x7FFE, 0x8001, 0][round as usize % 6];
            let top = [next(&mut state) & 0xFF, 0xFF, 0xFE][round as usize / 6 % 3] | 0x80;
            let m = next(&mut state) & 0x7F_FFFF | 0x80_0000;
            let wanted = ((top << 16 | between) << 24 | next(&mut state) & 0xFF_FFFF)
                >> (next(&mut state) & 1);
            let x = wanted.div_ceil(m);
            if !(0x80_0000..1 << 24).contains(&x) {
                continue;
            }
            let scale = (127 << 23 | m & 0x7F_FFFF) as u32;
            let single = f32::from_bits((127 << 23 | x & 0x7F_FFFF) as u32) * f32::from_bits(scale);
            let expected = (single.to_bits() + 0x7FFF + (single.to_bits() >> 16 & 1)) >> 16;
            module.significand.next = x.into();
            module.exponent.next = 127.into();
            module.scale.next = u64::from(scale).into();
            for clk in [false, true, false, true] {
                module.clock.next = Clock { clk };
                assert!(simulate(&mut module, 10));
            }
            assert_eq!(module.y.val().to_u32(), expected, "{x:#x} * {m:#x}");
        }
    }
}
