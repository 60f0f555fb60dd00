//! Arithmetic of any width. Operands and results are `Bits`; where a sign matters it is two's complement.

use super::Primitive;
use crate::prelude::*;
use num_bigint::BigUint;
use std::array::from_fn;

/// `value` sign-extended from `from` to `to` bits; all below 128 bits.
fn sign_extended(value: u128, from: usize, to: usize) -> u128 {
    let shift = 128 - from;
    (((value << shift) as i128) >> shift) as u128 & low_mask(to)
}

fn low_mask(bits: usize) -> u128 {
    if bits >= 128 {
        u128::MAX
    } else {
        (1 << bits) - 1
    }
}

/// The low `N` bits of a value.
fn wrap<const N: usize>(value: u128) -> Bits<N> {
    if N <= 64 {
        Bits::from((value & low_mask(N)) as u64)
    } else {
        Bits::from(BigUint::from(value & low_mask(N)))
    }
}

/// Unsigned product `p = a · b`, exact. `P = A + B`, at most 128 bits.
#[derive(LogicBlock, PortAccess)]
pub struct MulU<const A: usize, const B: usize, const P: usize> {
    /// First factor.
    pub a: Signal<In, Bits<A>>,
    /// Second factor.
    pub b: Signal<In, Bits<B>>,
    /// Product.
    pub p: Signal<Out, Bits<P>>,
}

impl<const A: usize, const B: usize, const P: usize> Default for MulU<A, B, P> {
    fn default() -> Self {
        const {
            assert!(
                P == A + B && P <= 128,
                "a product is as wide as its factors together, at most 128 bits"
            )
        };
        Self {
            a: Signal::default(),
            b: Signal::default(),
            p: Signal::default(),
        }
    }
}

impl<const A: usize, const B: usize, const P: usize> Logic for MulU<A, B, P> {
    fn update(&mut self) {
        self.p.next = wrap(self.a.val().to_u128() * self.b.val().to_u128());
    }

    fn connect(&mut self) {
        self.p.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::MulU.verilog()
    }
}

/// Two's complement product `p = a · b`, exact. `P = A + B`, at most 128 bits.
#[derive(LogicBlock, PortAccess)]
pub struct MulS<const A: usize, const B: usize, const P: usize> {
    /// First factor.
    pub a: Signal<In, Bits<A>>,
    /// Second factor.
    pub b: Signal<In, Bits<B>>,
    /// Product.
    pub p: Signal<Out, Bits<P>>,
}

impl<const A: usize, const B: usize, const P: usize> Default for MulS<A, B, P> {
    fn default() -> Self {
        const {
            assert!(
                P == A + B && P <= 128,
                "a product is as wide as its factors together, at most 128 bits"
            )
        };
        Self {
            a: Signal::default(),
            b: Signal::default(),
            p: Signal::default(),
        }
    }
}

impl<const A: usize, const B: usize, const P: usize> Logic for MulS<A, B, P> {
    fn update(&mut self) {
        let a = sign_extended(self.a.val().to_u128(), A, 128);
        let b = sign_extended(self.b.val().to_u128(), B, 128);
        self.p.next = wrap(a.wrapping_mul(b));
    }

    fn connect(&mut self) {
        self.p.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::MulS.verilog()
    }
}

/// Two's complement extension of `A` to `Y` bits. `A ≤ Y ≤ 128`.
#[derive(LogicBlock, PortAccess)]
pub struct SignExtend<const A: usize, const Y: usize> {
    /// Narrow value.
    pub a: Signal<In, Bits<A>>,
    /// The same value, wider.
    pub y: Signal<Out, Bits<Y>>,
}

impl<const A: usize, const Y: usize> Default for SignExtend<A, Y> {
    fn default() -> Self {
        const {
            assert!(
                0 < A && A <= Y && Y <= 128,
                "an extension widens, to at most 128 bits"
            )
        };
        Self {
            a: Signal::default(),
            y: Signal::default(),
        }
    }
}

impl<const A: usize, const Y: usize> Logic for SignExtend<A, Y> {
    fn update(&mut self) {
        self.y.next = wrap(sign_extended(self.a.val().to_u128(), A, Y));
    }

    fn connect(&mut self) {
        self.y.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::SignExtend.verilog()
    }
}

/// Exact two's complement sum of `N` values, as a balanced tree. N is a power of two, `S = W + log2 N`, at most 128 bits.
#[derive(LogicBlock, PortAccess)]
pub struct AddTree<const N: usize, const W: usize, const S: usize> {
    /// Summands.
    pub a: [Signal<In, Bits<W>>; N],
    /// Sum.
    pub sum: Signal<Out, Bits<S>>,
}

impl<const N: usize, const W: usize, const S: usize> Default for AddTree<N, W, S> {
    fn default() -> Self {
        const {
            assert!(
                0 < W && N.is_power_of_two() && S == W + N.ilog2() as usize && S <= 128,
                "the sum of N values has log2 N bits more, at most 128 bits"
            )
        };
        Self {
            a: from_fn(|_| Signal::default()),
            sum: Signal::default(),
        }
    }
}

impl<const N: usize, const W: usize, const S: usize> Logic for AddTree<N, W, S> {
    fn update(&mut self) {
        let sum = self.a.iter().fold(0_u128, |sum, a| {
            sum.wrapping_add(sign_extended(a.val().to_u128(), W, 128))
        });
        self.sum.next = wrap(sum);
    }

    fn connect(&mut self) {
        self.sum.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::AddTree.verilog()
    }
}

/// Exact two's complement sum of two values and a carry: `sum = a + b + carry`. `S = W + 1`, at most 128 bits.
///
/// A tree of N - 1 of them has a carry for each operand but one, so that many operands can be given in one's complement and cost no adder for
/// their sign.
#[derive(LogicBlock, PortAccess)]
pub struct AddCarry<const W: usize, const S: usize> {
    /// First summand.
    pub a: Signal<In, Bits<W>>,
    /// Second summand.
    pub b: Signal<In, Bits<W>>,
    /// One more.
    pub carry: Signal<In, Bit>,
    /// Sum.
    pub sum: Signal<Out, Bits<S>>,
}

impl<const W: usize, const S: usize> Default for AddCarry<W, S> {
    fn default() -> Self {
        const {
            assert!(
                0 < W && S == W + 1 && S <= 128,
                "the sum of two values has one bit more, at most 128 bits"
            )
        };
        Self {
            a: Signal::default(),
            b: Signal::default(),
            carry: Signal::default(),
            sum: Signal::default(),
        }
    }
}

impl<const W: usize, const S: usize> Logic for AddCarry<W, S> {
    fn update(&mut self) {
        let (a, b) = (self.a.val().to_u128(), self.b.val().to_u128());
        let sum = sign_extended(a, W, 128).wrapping_add(sign_extended(b, W, 128));
        self.sum.next = wrap(sum.wrapping_add(u128::from(self.carry.val())));
    }

    fn connect(&mut self) {
        self.sum.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::AddCarry.verilog()
    }
}

/// Logical shift to the left by a signal: `y = a << amount`, zero where `amount ≥ W`. `W ≤ 128`, `S ≤ 32`.
#[derive(LogicBlock, PortAccess)]
pub struct ShiftLeft<const W: usize, const S: usize> {
    /// Value to shift.
    pub a: Signal<In, Bits<W>>,
    /// By how many bits.
    pub amount: Signal<In, Bits<S>>,
    /// Shifted value; what leaves at the top is lost.
    pub y: Signal<Out, Bits<W>>,
}

impl<const W: usize, const S: usize> Default for ShiftLeft<W, S> {
    fn default() -> Self {
        const {
            assert!(
                W <= 128 && S <= 32,
                "at most 128 bits, shifted by at most 32 bits' worth"
            )
        };
        Self {
            a: Signal::default(),
            amount: Signal::default(),
            y: Signal::default(),
        }
    }
}

impl<const W: usize, const S: usize> Logic for ShiftLeft<W, S> {
    fn update(&mut self) {
        let amount = self.amount.val().to_u32();
        self.y.next = wrap(self.a.val().to_u128().checked_shl(amount).unwrap_or(0));
    }

    fn connect(&mut self) {
        self.y.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::ShiftLeft.verilog()
    }
}

/// Two's complement negation: `y = −a`, wrapping (the most negative value is its own negation). `W ≤ 128`.
#[derive(LogicBlock, PortAccess)]
pub struct Negate<const W: usize> {
    /// Value to negate.
    pub a: Signal<In, Bits<W>>,
    /// Its negation.
    pub y: Signal<Out, Bits<W>>,
}

impl<const W: usize> Default for Negate<W> {
    fn default() -> Self {
        const { assert!(W <= 128, "at most 128 bits") };
        Self {
            a: Signal::default(),
            y: Signal::default(),
        }
    }
}

impl<const W: usize> Logic for Negate<W> {
    fn update(&mut self) {
        self.y.next = wrap(self.a.val().to_u128().wrapping_neg());
    }

    fn connect(&mut self) {
        self.y.connect();
    }

    fn hdl(&self) -> Verilog {
        Primitive::Negate.verilog()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(block: &mut impl Block) {
        assert!(simulate(block, 10));
    }

    #[test]
    fn products_of_all_8_bit_factors_are_exact() {
        let mut unsigned = MulU::<8, 8, 16>::default();
        let mut signed = MulS::<8, 8, 16>::default();
        for a in 0..=255_u8 {
            for b in 0..=255_u8 {
                unsigned.a.next = u64::from(a).into();
                unsigned.b.next = u64::from(b).into();
                settle(&mut unsigned);
                assert_eq!(unsigned.p.val().to_u64(), u64::from(a) * u64::from(b));
                signed.a.next = u64::from(a).into();
                signed.b.next = u64::from(b).into();
                settle(&mut signed);
                assert_eq!(
                    signed.p.val().to_u16(),
                    (i16::from(a as i8) * i16::from(b as i8)) as u16
                );
            }
        }
    }

    #[test]
    fn wide_products_keep_their_sign() {
        let mut product = MulS::<41, 16, 57>::default();
        product.a.next = ((-1_000_000_007_i64) as u64 & ((1 << 41) - 1)).into();
        product.b.next = 30_000_u64.into();
        settle(&mut product);
        assert_eq!(
            product.p.val().to_u64(),
            (-30_000_000_210_000_i64) as u64 & ((1 << 57) - 1)
        );
    }

    #[test]
    fn extension_and_negation_cover_every_8_bit_value() {
        let mut extension = SignExtend::<8, 100>::default();
        let mut negation = Negate::<8>::default();
        for a in 0..=255_u8 {
            extension.a.next = u64::from(a).into();
            settle(&mut extension);
            assert_eq!(
                extension.y.val().to_u128(),
                i128::from(a as i8) as u128 & ((1 << 100) - 1)
            );
            negation.a.next = u64::from(a).into();
            settle(&mut negation);
            assert_eq!(negation.y.val().to_u8(), a.wrapping_neg());
        }
    }

    #[test]
    fn the_adder_tree_reaches_both_extremes() {
        let mut tree = AddTree::<16, 8, 12>::default();
        for (summand, expected) in [(127_i8, 127 * 16), (-128, -128 * 16), (-1, -16)] {
            for a in &mut tree.a {
                a.next = u64::from(summand as u8).into();
            }
            settle(&mut tree);
            assert_eq!(tree.sum.val().to_u16(), expected as u16 & 0xFFF);
        }
    }

    #[test]
    fn a_sum_with_carry_is_exact_for_every_pair_of_6_bit_values() {
        let mut adder = AddCarry::<6, 7>::default();
        for a in -32_i8..32 {
            for b in -32_i8..32 {
                for carry in [false, true] {
                    adder.a.next = u64::from(a as u8 & 0x3F).into();
                    adder.b.next = u64::from(b as u8 & 0x3F).into();
                    adder.carry.next = carry;
                    settle(&mut adder);
                    let expected = (a + b + i8::from(carry)) as u8 & 0x7F;
                    assert_eq!(adder.sum.val().to_u8(), expected, "{a} + {b} + {carry}");
                }
            }
        }
    }

    #[test]
    fn a_shift_beyond_the_width_gives_zero() {
        let mut shift = ShiftLeft::<40, 8>::default();
        shift.a.next = 0x80_0000_0001_u64.into();
        for (amount, expected) in [
            (0_u64, 0x80_0000_0001_u64),
            (1, 2),
            (39, 1 << 39),
            (40, 0),
            (255, 0),
        ] {
            shift.amount.next = amount.into();
            settle(&mut shift);
            assert_eq!(shift.y.val(), expected);
        }
    }
}
