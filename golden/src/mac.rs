//! Exact dot product of block pairs and its accumulation (numerics §4).

use serde::{Deserialize, Serialize};

use num_traits::PrimInt;

use crate::block::Block;
use crate::format::{BLOCK, E2m1, E4m3};

/// Base-2 logarithm of the accumulator's unit.
pub const ACC_UNIT_EXPONENT: i32 = -20;

/// Bits that hold the exact result of one block pair in accumulator units, its sign included.
pub const PAIR_BITS: u32 = 48;

/// The four kinds of block pair, weight × activation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// FP4 weights, FP4 activations.
    Fp4Fp4,
    /// FP4 weights, FP8 activations.
    Fp4Fp8,
    /// FP8 weights, FP4 activations.
    Fp8Fp4,
    /// FP8 weights, FP8 activations.
    Fp8Fp8,
}

impl Mode {
    /// All modes, ordered by the two tags as a number, the weight's tag first.
    pub const ALL: [Self; 4] = [Self::Fp4Fp4, Self::Fp4Fp8, Self::Fp8Fp4, Self::Fp8Fp8];

    /// The mode of a pair.
    pub const fn of(w: &Block, a: &Block) -> Self {
        Self::of_tags(w.is_fp8(), a.is_fp8())
    }

    /// The mode of two tags (true = FP8).
    pub const fn of_tags(w: bool, a: bool) -> Self {
        Self::ALL[(w as usize) << 1 | a as usize]
    }

    /// The tags of weight and activation (true = FP8).
    pub const fn tags(self) -> [bool; 2] {
        let number = self as usize;
        [number >> 1 == 1, number & 1 == 1]
    }

    /// Signed bits of the 16-lane sum before the scales: 13, 27 or 41.
    pub const fn sum_bits(self) -> u32 {
        match self {
            Self::Fp4Fp4 => 13,
            Self::Fp4Fp8 | Self::Fp8Fp4 => 27,
            Self::Fp8Fp8 => 41,
        }
    }

    /// Base-2 logarithm of the unit of the scaled result of a pair.
    pub const fn unit_exponent(self) -> i32 {
        match self {
            Self::Fp4Fp4 => -20,
            Self::Fp4Fp8 | Self::Fp8Fp4 => -19,
            Self::Fp8Fp8 => -18,
        }
    }

    /// Name for tables: weight format × activation format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp4Fp4 => "FP4×FP4",
            Self::Fp4Fp8 => "FP4×FP8",
            Self::Fp8Fp4 => "FP8×FP4",
            Self::Fp8Fp8 => "FP8×FP8",
        }
    }
}

/// Exact dot product of one block pair in units of 2⁻²⁰, below 2⁴⁷ in magnitude; `None` if an element is NaN.
pub fn pair(w: &Block, a: &Block) -> Option<i64> {
    let to_acc_units = |result: i64| result << (Mode::of(w, a).unit_exponent() - ACC_UNIT_EXPONENT);
    let result = match (w, a) {
        (
            Block::Fp4 {
                scale: sw,
                elements: qw,
            },
            Block::Fp4 {
                scale: sa,
                elements: qa,
            },
        ) => sum_fp4_fp4(qw, qa) * i64::from(sw.units()) * i64::from(sa.units()),
        (Block::Fp4 { scale, elements: q }, Block::Fp8 { elements: e })
        | (Block::Fp8 { elements: e }, Block::Fp4 { scale, elements: q }) => {
            sum_fp4_fp8(q, e)? * i64::from(scale.units())
        }
        (Block::Fp8 { elements: ew }, Block::Fp8 { elements: ea }) => sum_fp8_fp8(ew, ea)?,
    };
    Some(to_acc_units(result))
}

/// Σ q·q in units of 2⁻², 13 signed bits.
pub fn sum_fp4_fp4(w: &[E2m1; BLOCK], a: &[E2m1; BLOCK]) -> i64 {
    dot(
        w.iter().map(|w| w.half_units()),
        a.iter().map(|a| a.half_units()),
    )
    .into()
}

/// Σ q·e in units of 2⁻¹⁰, 27 signed bits; `None` if an element is NaN.
pub fn sum_fp4_fp8(q: &[E2m1; BLOCK], e: &[E4m3; BLOCK]) -> Option<i64> {
    let e = units(e)?;
    Some(dot(q.iter().map(|q| q.half_units()), e).into())
}

/// Σ e·e in units of 2⁻¹⁸, 41 signed bits; `None` if an element is NaN.
pub fn sum_fp8_fp8(w: &[E4m3; BLOCK], a: &[E4m3; BLOCK]) -> Option<i64> {
    let wide = |e: &[E4m3; BLOCK]| units(e).map(|e| e.map(i64::from));
    Some(dot(wide(w)?, wide(a)?))
}

/// The elements in units of 2⁻⁹; `None` if one is NaN.
fn units(elements: &[E4m3; BLOCK]) -> Option<[i32; BLOCK]> {
    let mut units = [0; BLOCK];
    for (unit, element) in units.iter_mut().zip(elements) {
        *unit = element.units()?;
    }
    Some(units)
}

/// Σ a·b in the integer type that holds the mode's sum: 32 bits do for all but FP8 × FP8.
fn dot<T: PrimInt>(a: impl IntoIterator<Item = T>, b: impl IntoIterator<Item = T>) -> T {
    a.into_iter()
        .zip(b)
        .fold(T::zero(), |sum, (a, b)| sum + a * b)
}

/// Accumulator bits that cannot overflow for any reduction of up to `max_k` elements: 48 + ⌈log2(max_k / 16)⌉.
pub const fn acc_bits(max_k: usize) -> u32 {
    let blocks = max_k.div_ceil(BLOCK);
    if blocks <= 1 {
        return PAIR_BITS;
    }
    PAIR_BITS + usize::BITS - (blocks - 1).leading_zeros()
}

/// The exact accumulator of one output: an integer in units of 2⁻²⁰ and a sticky NaN flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accumulator {
    value: i128,
    nan: bool,
}

impl Accumulator {
    /// Zero, no NaN.
    pub const fn new() -> Self {
        Self {
            value: 0,
            nan: false,
        }
    }

    /// A sum in units of 2⁻²⁰ that was computed elsewhere, and whether a NaN was seen there.
    pub const fn from_parts(value: i128, nan: bool) -> Self {
        Self { value, nan }
    }

    /// This sum, no NaN.
    pub(crate) const fn of_value(value: i128) -> Self {
        Self { value, nan: false }
    }

    /// Adds the dot product of a pair. A pair with a NaN sets the flag and adds nothing.
    pub fn add(&mut self, w: &Block, a: &Block) {
        match pair(w, a) {
            // 2⁸⁰ pairs would be needed to overflow.
            Some(result) => self.value += i128::from(result),
            None => self.nan = true,
        }
    }

    /// The sum in units of 2⁻²⁰ of the pairs without NaN.
    pub const fn value(&self) -> i128 {
        self.value
    }

    /// Whether a NaN was seen.
    pub const fn is_nan(&self) -> bool {
        self.nan
    }
}
