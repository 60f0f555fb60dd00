//! Number formats (numerics §1): one table, and the element types that derive from it.

use serde::{Deserialize, Serialize};

/// Elements of a block: 16 consecutive elements along the reduction dimension.
pub const BLOCK: usize = 16;

/// What the codes that are not finite numbers mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Special {
    /// Every code is a finite number.
    None,
    /// All-ones exponent and mantissa is NaN; there is no infinity.
    NanOnly,
    /// The all-ones code is not used; there is neither NaN nor infinity.
    Unused,
    /// Infinities and NaNs as in IEEE 754.
    Ieee,
}

/// One row of the format table.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Format {
    /// Name as documents and manifests write it.
    pub name: &'static str,
    /// 1 if the most significant bit is a sign, 0 if the format is unsigned.
    pub sign_bits: u32,
    /// Width of the exponent field in bits.
    pub exponent_bits: u32,
    /// Width of the mantissa field in bits, without the hidden one.
    pub mantissa_bits: u32,
    /// Exponent bias.
    pub bias: i32,
    /// Largest finite value.
    pub max: f64,
    /// Codes that are not finite numbers.
    pub special: Special,
    /// What the format holds.
    pub purpose: &'static str,
}

/// FP4: s ee m.
pub const E2M1: Format = Format {
    name: "E2M1",
    sign_bits: 1,
    exponent_bits: 2,
    mantissa_bits: 1,
    bias: 1,
    max: 6.0,
    special: Special::None,
    purpose: "element of an FP4 block",
};

/// FP8 "FN": s eeee mmm.
pub const E4M3: Format = Format {
    name: "E4M3",
    sign_bits: 1,
    exponent_bits: 4,
    mantissa_bits: 3,
    bias: 7,
    max: 448.0,
    special: Special::NanOnly,
    purpose: "element of an FP8 block",
};

/// E4M3 without its sign: 0 eeee mmm, code at most 0x7E.
pub const UE4M3: Format = Format {
    name: "UE4M3",
    sign_bits: 0,
    exponent_bits: 4,
    mantissa_bits: 3,
    bias: 7,
    max: 448.0,
    special: Special::Unused,
    purpose: "block scale, channel sensitivity",
};

/// The upper half of FP32.
pub const BF16: Format = Format {
    name: "BF16",
    sign_bits: 1,
    exponent_bits: 8,
    mantissa_bits: 7,
    bias: 127,
    max: 3.389_531_389_251_535_5e38,
    special: Special::Ieee,
    purpose: "activations in and out",
};

/// IEEE 754 binary32.
pub const FP32: Format = Format {
    name: "FP32",
    sign_bits: 1,
    exponent_bits: 8,
    mantissa_bits: 23,
    bias: 127,
    max: f32::MAX as f64,
    special: Special::Ieee,
    purpose: "tensor scales",
};

/// The format table: types, hardware decoders, documents and tests derive from it.
pub const FORMATS: [Format; 5] = [E2M1, E4M3, UE4M3, BF16, FP32];

impl Format {
    /// Width of a code in bits.
    pub const fn bits(&self) -> u32 {
        self.sign_bits + self.exponent_bits + self.mantissa_bits
    }

    /// Base-2 logarithm of the subnormal step, the unit in which all finite values are integers.
    pub const fn unit_exponent(&self) -> i32 {
        1 - self.bias - self.mantissa_bits as i32
    }

    /// Magnitude of a finite code (its sign bit is ignored) in units of the subnormal step.
    ///
    /// Exact for the formats of at most 8 bits.
    pub const fn magnitude_units(&self, code: u32) -> u32 {
        let mantissa = code & ((1 << self.mantissa_bits) - 1);
        let exponent = (code >> self.mantissa_bits) & ((1 << self.exponent_bits) - 1);
        if exponent == 0 {
            mantissa
        } else {
            (mantissa | 1 << self.mantissa_bits) << (exponent - 1)
        }
    }

    /// Magnitude code of the largest finite value.
    pub const fn max_code(&self) -> u32 {
        let all_ones = (1 << (self.exponent_bits + self.mantissa_bits)) - 1;
        match self.special {
            Special::None => all_ones,
            Special::NanOnly | Special::Unused => all_ones - 1,
            Special::Ieee => all_ones - (1 << self.mantissa_bits),
        }
    }

    /// Code of the value nearest to |`x`|, ties to the even code, saturating; NaN saturates too.
    ///
    /// For the formats of at most 16 bits. Magnitudes that are FP64 subnormals give 0.
    pub fn nearest_magnitude(&self, x: f64) -> u32 {
        let bits = x.to_bits() & (u64::MAX >> 1);
        let exponent = (bits >> 52) as i32 - 1023;
        // The exponent field of the result before rounding; a carry out of the mantissa moves on
        // into it, which is the right next code, because codes are ordered as their values.
        let field = exponent + self.bias;
        if field > 1 << self.exponent_bits {
            return self.max_code();
        }
        let significand = (bits & ((1 << 52) - 1)) | 1 << 52;
        let below_normal = if field < 1 { 1 - field } else { 0 };
        let shift = 52 - self.mantissa_bits as i32 + below_normal;
        if shift > 53 {
            // Less than half a subnormal step.
            return 0;
        }
        let half_less_one = (1u64 << (shift - 1)) - 1;
        let odd = significand >> shift & 1;
        let rounded = (significand + half_less_one + odd) >> shift;
        let code = if field < 1 {
            rounded as u32
        } else {
            ((field - 1) as u32 * (1 << self.mantissa_bits)) + rounded as u32
        };
        code.min(self.max_code())
    }
}

/// 2 to the power of `exponent`, for exponents of normal FP64 numbers.
pub(crate) const fn exp2(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Decision points of E2M1 on the magnitude, in quarters: the i-th lies between codes i and i + 1.
///
/// A tie goes to the even one of the two.
pub const E2M1_DECISION_QUARTERS: [u32; 7] = decision_quarters();

const fn decision_quarters() -> [u32; 7] {
    let mut points = [0; 7];
    let mut code = 0;
    while code < 7 {
        // The mean of two values in halves is their sum in quarters.
        points[code as usize] = E2M1.magnitude_units(code) + E2M1.magnitude_units(code + 1);
        code += 1;
    }
    points
}

/// An FP4 element: a 4-bit E2M1 code.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct E2m1(u8);

impl E2m1 {
    /// Positive zero.
    pub const ZERO: Self = Self(0);

    /// The element with this code; `None` above 0xF.
    pub const fn from_bits(code: u8) -> Option<Self> {
        if code < 16 { Some(Self(code)) } else { None }
    }

    /// The element whose code is the low nibble.
    pub const fn from_low_nibble(byte: u8) -> Self {
        Self(byte & 0xF)
    }

    /// The 4-bit code.
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// All 16 elements in code order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..16).map(Self)
    }

    /// Signed value in units of 2⁻¹: 0, ±1, ±2, ±3, ±4, ±6, ±8, ±12.
    pub const fn half_units(self) -> i32 {
        let magnitude = E2M1.magnitude_units(self.0 as u32) as i32;
        if self.0 & 8 == 0 {
            magnitude
        } else {
            -magnitude
        }
    }

    /// Value, with the sign of zero.
    pub const fn to_f32(self) -> f32 {
        let magnitude = E2M1.magnitude_units(self.0 as u32) as f32 * 0.5;
        if self.0 & 8 == 0 {
            magnitude
        } else {
            -magnitude
        }
    }

    /// Value, with the sign of zero.
    pub const fn to_f64(self) -> f64 {
        self.to_f32() as f64
    }

    /// Nearest element, ties to the even code, saturating, sign kept; `None` for NaN, which E2M1 lacks.
    pub fn quantize(x: f32) -> Option<Self> {
        if x.is_nan() {
            return None;
        }
        Some(Self(
            E2M1.nearest_magnitude(x.into()) as u8 | sign_bit(x) << 3,
        ))
    }

    /// `x / scale` as an exact quotient rounded once (numerics §1).
    ///
    /// Compares |x| with scale × decision point, which FP64 holds exactly. A scale of zero gives
    /// code 0. NaN gives code 0 as well: a block that contains one never becomes FP4.
    pub fn quantize_scaled(x: f32, scale: Ue4m3) -> Self {
        if scale.units() == 0 || x.is_nan() {
            return Self::ZERO;
        }
        let magnitude = f64::from(x.abs());
        let quarter = f64::from(scale.to_f32()) * 0.25;
        let mut code = 0;
        for (below, &point) in E2M1_DECISION_QUARTERS.iter().enumerate() {
            let decision = quarter * f64::from(point);
            // Between an even code and the odd one above it a tie stays, else it moves up.
            let up = if below % 2 == 0 {
                magnitude > decision
            } else {
                magnitude >= decision
            };
            code += u8::from(up);
        }
        Self(code | sign_bit(x) << 3)
    }
}

impl TryFrom<u8> for E2m1 {
    type Error = CodeError;
    fn try_from(code: u8) -> Result<Self, CodeError> {
        Self::from_bits(code).ok_or(CodeError {
            format: E2M1.name,
            code,
        })
    }
}

impl From<E2m1> for u8 {
    fn from(element: E2m1) -> u8 {
        element.0
    }
}

/// A code that the format doesn't have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{code:#04x} is no {format} code")]
pub struct CodeError {
    /// Name of the format.
    pub format: &'static str,
    /// The code that was offered.
    pub code: u8,
}

fn sign_bit(x: f32) -> u8 {
    x.is_sign_negative().into()
}

/// An FP8 element: an 8-bit E4M3 code, NaNs included.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct E4m3(u8);

impl E4m3 {
    /// Positive zero.
    pub const ZERO: Self = Self(0);
    /// The NaN that quantizing gives.
    pub const NAN: Self = Self(0x7F);

    /// The element with this code.
    pub const fn from_bits(code: u8) -> Self {
        Self(code)
    }

    /// The 8-bit code.
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// All 256 elements in code order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=255).map(Self)
    }

    /// Whether the code is one of the two NaNs.
    pub const fn is_nan(self) -> bool {
        self.0 & 0x7F > E4M3.max_code() as u8
    }

    /// Signed value in units of 2⁻⁹, at most 229,376 in magnitude; `None` for NaN.
    pub const fn units(self) -> Option<i32> {
        if self.is_nan() {
            return None;
        }
        let magnitude = E4M3.magnitude_units(self.0 as u32) as i32;
        Some(if self.0 & 0x80 == 0 {
            magnitude
        } else {
            -magnitude
        })
    }

    /// Value, with the sign of zero; NaN for the NaN codes.
    pub const fn to_f32(self) -> f32 {
        if self.is_nan() {
            return f32::NAN;
        }
        let magnitude = E4M3.magnitude_units(self.0 as u32) as f32 / 512.0;
        if self.0 & 0x80 == 0 {
            magnitude
        } else {
            -magnitude
        }
    }

    /// Value, with the sign of zero; NaN for the NaN codes.
    pub const fn to_f64(self) -> f64 {
        self.to_f32() as f64
    }

    /// Nearest element, ties to the even code, saturating at ±448, sign kept; any NaN gives 0x7F.
    pub fn quantize(x: f32) -> Self {
        if x.is_nan() {
            return Self::NAN;
        }
        Self(E4M3.nearest_magnitude(x.into()) as u8 | sign_bit(x) << 7)
    }
}

/// A block scale or a channel sensitivity: an E4M3 code without sign and NaN, 0x00 … 0x7E.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct Ue4m3(u8);

impl Ue4m3 {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// 1.0, code 0x38.
    pub const ONE: Self = Self(0x38);
    /// 448, code 0x7E.
    pub const MAX: Self = Self(UE4M3.max_code() as u8);

    /// The scale with this code; `None` above 0x7E.
    pub const fn from_bits(code: u8) -> Option<Self> {
        if code <= Self::MAX.0 {
            Some(Self(code))
        } else {
            None
        }
    }

    /// The code, at most 0x7E.
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// All 127 scales in code order, which is the order of their values.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::MAX.0).map(Self)
    }

    /// Value in units of 2⁻⁹, at most 229,376.
    pub const fn units(self) -> u32 {
        UE4M3.magnitude_units(self.0 as u32)
    }

    /// Value.
    pub const fn to_f32(self) -> f32 {
        self.units() as f32 / 512.0
    }

    /// Value.
    pub const fn to_f64(self) -> f64 {
        self.to_f32() as f64
    }

    /// Nearest scale to |`x`|, ties to the even code, saturating; NaN gives 0.
    pub fn quantize(x: f32) -> Self {
        if x.is_nan() {
            return Self::ZERO;
        }
        Self(UE4M3.nearest_magnitude(x.into()) as u8)
    }

    /// Scale of a block whose largest magnitude is `amax`: the exact quotient `amax / 6` rounded once.
    ///
    /// The sign of `amax` is ignored; NaN gives 0.
    pub fn of_amax(amax: f32) -> Self {
        if amax.is_nan() {
            return Self::ZERO;
        }
        // FP64 division can't move the quotient onto a decision point m: if amax ≠ 6m then
        // |amax − 6m| ≥ 2⁻²⁵·amax, as both have at most 24 significant bits, far above FP64's error.
        Self(UE4M3.nearest_magnitude(f64::from(amax) / E2M1.max) as u8)
    }
}

impl TryFrom<u8> for Ue4m3 {
    type Error = CodeError;
    fn try_from(code: u8) -> Result<Self, CodeError> {
        Self::from_bits(code).ok_or(CodeError {
            format: UE4M3.name,
            code,
        })
    }
}

impl From<Ue4m3> for u8 {
    fn from(scale: Ue4m3) -> u8 {
        scale.0
    }
}
