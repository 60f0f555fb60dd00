//! Blocks of 16 elements and their packed form (numerics §2).

use crate::format::{BLOCK, E2m1, E4m3, Ue4m3};

/// 16 consecutive elements along the reduction dimension, without the tensor's scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// NVFP4: element i is worth `scale · elements[i]`.
    Fp4 {
        /// The scale that the 16 elements share.
        scale: Ue4m3,
        /// The elements.
        elements: [E2m1; BLOCK],
    },
    /// FP8: element i is worth `elements[i]`; its scale is implicitly 1.
    Fp8 {
        /// The elements.
        elements: [E4m3; BLOCK],
    },
}

/// A block as it travels through streams and memories.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PackedBlock {
    /// True for FP8, false for FP4.
    pub tag: bool,
    /// UE4M3 code of an FP4 block's scale; 0 for FP8.
    pub scale: u8,
    /// FP4: 16 nibbles in the low 64 bits, element 0 lowest. FP8: 16 bytes, element 0 lowest.
    pub payload: u128,
}

/// A packed block that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    /// An FP4 block whose scale isn't a UE4M3 code.
    #[error("scale code {0:#04x} of an FP4 block is above 0x7e")]
    Scale(u8),
    /// An FP8 block with a scale, which it doesn't have.
    #[error("an FP8 block carries no scale, but {0:#04x} was given")]
    UnexpectedScale(u8),
    /// An FP4 block with more than 64 bits of payload.
    #[error("payload {0:#034x} of an FP4 block is wider than 64 bits")]
    WidePayload(u128),
}

impl Block {
    /// The FP4 block that is all zeros.
    pub const ZERO: Self = Self::Fp4 {
        scale: Ue4m3::ZERO,
        elements: [E2m1::ZERO; BLOCK],
    };

    /// The block's packed form.
    pub fn pack(&self) -> PackedBlock {
        match self {
            Self::Fp4 { scale, elements } => PackedBlock {
                tag: false,
                scale: scale.to_bits(),
                payload: elements
                    .iter()
                    .rev()
                    .fold(0, |word, e| word << 4 | u128::from(e.to_bits())),
            },
            Self::Fp8 { elements } => PackedBlock {
                tag: true,
                scale: 0,
                payload: u128::from_le_bytes(elements.map(E4m3::to_bits)),
            },
        }
    }

    /// The block of a packed form.
    ///
    /// # Errors
    /// A scale code above 0x7E, a scale with an FP8 block, an FP4 payload above 64 bits.
    pub fn unpack(packed: &PackedBlock) -> Result<Self, BlockError> {
        if packed.tag {
            if packed.scale != 0 {
                return Err(BlockError::UnexpectedScale(packed.scale));
            }
            return Ok(Self::Fp8 {
                elements: packed.payload.to_le_bytes().map(E4m3::from_bits),
            });
        }
        let scale = Ue4m3::from_bits(packed.scale).ok_or(BlockError::Scale(packed.scale))?;
        if packed.payload >> 64 != 0 {
            return Err(BlockError::WidePayload(packed.payload));
        }
        let elements =
            std::array::from_fn(|i| E2m1::from_low_nibble((packed.payload >> (4 * i)) as u8));
        Ok(Self::Fp4 { scale, elements })
    }

    /// Whether the tag is FP8.
    pub const fn is_fp8(&self) -> bool {
        matches!(self, Self::Fp8 { .. })
    }

    /// Whether an element is NaN, which only FP8 blocks can hold.
    pub fn has_nan(&self) -> bool {
        match self {
            Self::Fp4 { .. } => false,
            Self::Fp8 { elements } => elements.iter().any(|e| e.is_nan()),
        }
    }

    /// The values without the tensor's scale; exact in FP32.
    pub fn values(&self) -> [f32; BLOCK] {
        match self {
            Self::Fp4 { scale, elements } => elements.map(|e| scale.to_f32() * e.to_f32()),
            Self::Fp8 { elements } => elements.map(E4m3::to_f32),
        }
    }

    /// Bits of this block in memory, its tag included: 73 or 129.
    pub const fn bits(&self) -> u32 {
        match self {
            Self::Fp4 { .. } => FP4_BITS,
            Self::Fp8 { .. } => FP8_BITS,
        }
    }
}

/// Tag, scale and 16 E2M1 elements.
const FP4_BITS: u32 = 1 + 8 + 64;
/// Tag and 16 E4M3 elements.
const FP8_BITS: u32 = 1 + 128;

/// Bits of an element in memory if this share of the blocks is FP8: 8p + 4.5(1 − p) + 1/16 (numerics §2).
pub fn bits_per_element(fp8_share: f64) -> f64 {
    let bits = f64::from(FP8_BITS) * fp8_share + f64::from(FP4_BITS) * (1.0 - fp8_share);
    bits / BLOCK as f64
}
