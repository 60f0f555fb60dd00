//! How the bytes of a tensor stand for FP32 numbers: ggml's blocks and the plain float types.
//!
//! Every decoder gives what ggml's own `dequantize_row_*` gives, bit for bit.

use std::fmt;

use golden::format::{BLOCK, E2m1, E4m3};
use half::f16;
use safetensors::Dtype;

/// Elements of a super-block of ggml's `_K` types.
const SUPER: usize = 256;

/// Type of the stored elements. ggml's are decoded with their scales.
///
/// A row is a whole number of blocks; [`Encoding::block`] says how many elements and bytes one has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// ggml: 32 × 8-bit integer, one FP16 scale.
    Q8_0,
    /// ggml: 32 × 4-bit integer less 8, one FP16 scale.
    Q4_0,
    /// ggml: 32 × 4-bit integer, FP16 scale and minimum.
    Q4_1,
    /// ggml: 32 × 5-bit integer less 16, one FP16 scale.
    Q5_0,
    /// ggml: 32 × 5-bit integer, FP16 scale and minimum.
    Q5_1,
    /// ggml: 8 blocks of 32 × 4-bit integer, each with 6-bit scale and minimum in units of two FP16 numbers.
    Q4K,
    /// ggml: as Q4_K with 5-bit integers.
    Q5K,
    /// ggml: 16 blocks of 16 × 6-bit integer less 32, each with an 8-bit scale in units of one FP16 number.
    Q6K,
    /// ggml: 32 × E2M1, one E8M0 scale.
    Mxfp4,
    /// ggml: 4 blocks of 16 × E2M1, each with a UE4M3 scale.
    Nvfp4,
    /// Hugging Face: 16 × E2M1, the element of the lower index in the low nibble; scales in a tensor of their own.
    E2m1,
    /// Hugging Face: E4M3; scales in a tensor of their own.
    E4m3,
    /// A safetensors type that is not decoded to FP32.
    Verbatim(Dtype),
}

/// Extent of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockSize {
    /// Elements.
    pub elements: usize,
    /// Bytes.
    pub bytes: usize,
}

/// ggml's types by their number in GGUF files.
const GGML_TYPES: [(u32, Encoding); 13] = [
    (0, Encoding::F32),
    (1, Encoding::F16),
    (2, Encoding::Q4_0),
    (3, Encoding::Q4_1),
    (6, Encoding::Q5_0),
    (7, Encoding::Q5_1),
    (8, Encoding::Q8_0),
    (12, Encoding::Q4K),
    (13, Encoding::Q5K),
    (14, Encoding::Q6K),
    (30, Encoding::Bf16),
    (39, Encoding::Mxfp4),
    (40, Encoding::Nvfp4),
];

/// Names of ggml's types that are not decoded, for messages.
const OTHER_GGML_TYPES: [(u32, &str); 19] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
];

impl Encoding {
    /// The type with this number in a GGUF file.
    ///
    /// # Errors
    /// A message that names the type and those that are read.
    pub fn of_ggml(number: u32) -> Result<Self, String> {
        if let Some((_, encoding)) = GGML_TYPES.iter().find(|(n, _)| *n == number) {
            return Ok(*encoding);
        }
        let name = OTHER_GGML_TYPES
            .iter()
            .find(|(n, _)| *n == number)
            .map_or_else(
                || format!("number {number}"),
                |(_, name)| (*name).to_owned(),
            );
        let read: Vec<String> = GGML_TYPES
            .iter()
            .map(|(_, encoding)| encoding.to_string())
            .collect();
        Err(format!(
            "type {name} is not read; those that are: {}",
            read.join(", ")
        ))
    }

    /// Extent of a block: one element for plain types.
    pub fn block(self) -> BlockSize {
        let (elements, bytes) = match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q4K => (SUPER, 144),
            Self::Q5K => (SUPER, 176),
            Self::Q6K => (SUPER, 210),
            Self::Mxfp4 => (32, 17),
            Self::Nvfp4 => (64, 36),
            Self::E2m1 => (BLOCK, BLOCK / 2),
            Self::E4m3 => (1, 1),
            // Sub-byte types: two elements of 4 bits or four of 6 bits.
            Self::Verbatim(dtype) => match dtype.bitsize() {
                4 => (2, 1),
                6 => (4, 3),
                bits => (1, bits / 8),
            },
        };
        BlockSize { elements, bytes }
    }

    /// Bytes of `elements` elements; `None` if they are no whole number of blocks or too many to count.
    pub fn bytes_of(self, elements: u64) -> Option<u64> {
        let block = self.block();
        let count = elements / block.elements as u64;
        (count * block.elements as u64 == elements)
            .then(|| count.checked_mul(block.bytes as u64))
            .flatten()
    }

    /// Whether elements are decoded to FP32.
    pub const fn is_float(self) -> bool {
        !matches!(self, Self::Verbatim(_))
    }

    /// Whether elements are integers or booleans, which nothing here changes.
    pub const fn is_integer(self) -> bool {
        matches!(
            self,
            Self::Verbatim(
                Dtype::BOOL
                    | Dtype::U8
                    | Dtype::I8
                    | Dtype::U16
                    | Dtype::I16
                    | Dtype::U32
                    | Dtype::I32
                    | Dtype::U64
                    | Dtype::I64
            )
        )
    }

    /// The safetensors type in which elements can be handed on as they are stored.
    pub const fn plain(self) -> Option<Dtype> {
        match self {
            Self::F32 => Some(Dtype::F32),
            Self::F16 => Some(Dtype::F16),
            Self::Bf16 => Some(Dtype::BF16),
            Self::Verbatim(dtype) => Some(dtype),
            _ => None,
        }
    }

    /// Appends the decoded elements of whole blocks, without scales that other tensors hold; what is no whole block at the end is passed over.
    ///
    /// False, and nothing is appended, if this type is not decoded to FP32.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f32>) -> bool {
        match self {
            Self::F32 => plain(bytes, out, f32::from_le_bytes),
            Self::F16 => plain(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => plain(bytes, out, |b| {
                f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)
            }),
            Self::Q8_0 => blocks::<34, 32>(bytes, out, q8_0),
            Self::Q4_0 => blocks::<18, 32>(bytes, out, q4_0),
            Self::Q4_1 => blocks::<20, 32>(bytes, out, q4_1),
            Self::Q5_0 => blocks::<22, 32>(bytes, out, q5_0),
            Self::Q5_1 => blocks::<24, 32>(bytes, out, q5_1),
            Self::Q4K => blocks::<144, SUPER>(bytes, out, q4_k),
            Self::Q5K => blocks::<176, SUPER>(bytes, out, q5_k),
            Self::Q6K => blocks::<210, SUPER>(bytes, out, q6_k),
            Self::Mxfp4 => blocks::<17, 32>(bytes, out, mxfp4),
            Self::Nvfp4 => blocks::<36, 64>(bytes, out, nvfp4),
            Self::E2m1 => blocks::<{ BLOCK / 2 }, BLOCK>(bytes, out, e2m1),
            Self::E4m3 => plain(bytes, out, |[code]| E4m3::from_bits(code).to_f32()),
            Self::Verbatim(_) => return false,
        }
        true
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Mxfp4 => "MXFP4",
            Self::Nvfp4 => "NVFP4",
            Self::E2m1 => "E2M1",
            Self::E4m3 => "F8_E4M3",
            Self::Verbatim(dtype) => return write!(f, "{dtype:?}"),
        };
        f.write_str(name)
    }
}

fn plain<const B: usize>(bytes: &[u8], out: &mut Vec<f32>, element: impl Fn([u8; B]) -> f32) {
    out.extend(bytes.as_chunks::<B>().0.iter().map(|&b| element(b)));
}

fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut Vec<f32>,
    decode: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let mut values = [0.0; N];
    for block in bytes.as_chunks::<B>().0 {
        decode(block, &mut values);
        out.extend_from_slice(&values);
    }
}

/// Values of the two codes of each byte.
const E2M1_PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [
            E2m1::from_low_nibble(byte as u8).to_f32(),
            E2m1::from_low_nibble(byte as u8 >> 4).to_f32(),
        ];
        byte += 1;
    }
    pairs
};

fn e2m1(block: &[u8; BLOCK / 2], y: &mut [f32; BLOCK]) {
    for (pair, &byte) in y.as_chunks_mut::<2>().0.iter_mut().zip(block) {
        *pair = E2M1_PAIRS[usize::from(byte)];
    }
}

fn half_at<const B: usize>(block: &[u8; B], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q8_0(block: &[u8; 34], y: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (y, &q) in y.iter_mut().zip(&block[2..]) {
        *y = f32::from(q as i8) * d;
    }
}

/// Low nibbles are the first half of a block, high nibbles the second.
fn nibbles(bytes: &[u8], y: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let half = bytes.len();
    let (low, high) = y.split_at_mut(half);
    for (j, ((low, high), &byte)) in low.iter_mut().zip(high).zip(bytes).enumerate() {
        *low = value(j, byte & 0x0f);
        *high = value(j + half, byte >> 4);
    }
}

fn q4_0(block: &[u8; 18], y: &mut [f32; 32]) {
    let d = half_at(block, 0);
    nibbles(&block[2..], y, |_, q| (f32::from(q) - 8.0) * d);
}

fn q4_1(block: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..], y, |_, q| f32::from(q) * d + m);
}

/// The fifth bit of element `j` as 16 or 0.
fn fifth_bit(bits: [u8; 4], j: usize) -> u8 {
    ((u32::from_le_bytes(bits) >> j & 1) as u8) << 4
}

fn q5_0(block: &[u8; 22], y: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let high = [block[2], block[3], block[4], block[5]];
    nibbles(&block[6..], y, |j, q| {
        (f32::from(q | fifth_bit(high, j)) - 16.0) * d
    });
}

fn q5_1(block: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let high = [block[4], block[5], block[6], block[7]];
    nibbles(&block[8..], y, |j, q| {
        f32::from(q | fifth_bit(high, j)) * d + m
    });
}

/// 6-bit scale and minimum of block `j` of 8, from the 12 bytes that hold them.
///
/// The first four blocks have theirs in the low six bits of bytes 0–3 and 4–7; the last four have the low four bits in
/// bytes 8–11 and the upper two above those of the first four.
fn scale_and_minimum(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = if j < 4 {
        (packed[j] & 0x3f, packed[j + 4] & 0x3f)
    } else {
        (
            packed[j + 4] & 0x0f | packed[j - 4] >> 6 << 4,
            packed[j + 4] >> 4 | packed[j] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

fn q4_k(block: &[u8; 144], y: &mut [f32; SUPER]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, quants) = block[4..].split_at(12);
    for (pair, (y, bytes)) in y.chunks_mut(64).zip(quants.chunks(32)).enumerate() {
        let [low, high] = [0, 1].map(|part| {
            let (scale, minimum) = scale_and_minimum(packed, 2 * pair + part);
            (d * scale, dmin * minimum)
        });
        nibbles(bytes, y, |j, q| {
            let (scale, minimum) = if j < 32 { low } else { high };
            scale * f32::from(q) - minimum
        });
    }
}

fn q5_k(block: &[u8; 176], y: &mut [f32; SUPER]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let (packed, rest) = block[4..].split_at(12);
    let (high_bits, quants) = rest.split_at(32);
    for (pair, (y, bytes)) in y.chunks_mut(64).zip(quants.chunks(32)).enumerate() {
        let [low, high] = [0, 1].map(|part| {
            let (scale, minimum) = scale_and_minimum(packed, 2 * pair + part);
            (d * scale, dmin * minimum)
        });
        nibbles(bytes, y, |j, q| {
            let (part, (scale, minimum)) = if j < 32 { (0, low) } else { (1, high) };
            let bit = high_bits[j % 32] >> (2 * pair + part) & 1;
            scale * f32::from(q | bit << 4) - minimum
        });
    }
}

fn q6_k(block: &[u8; 210], y: &mut [f32; SUPER]) {
    let d = half_at(block, 208);
    let (low, rest) = block.split_at(SUPER / 2);
    let (high, rest) = rest.split_at(SUPER / 4);
    // Two halves of 128: element 32·part + l takes the nibble `part / 2` of byte 32·(part % 2) + l and two bits of byte l.
    for (half, y) in y.chunks_mut(128).enumerate() {
        let (low, high) = (&low[64 * half..], &high[32 * half..]);
        let scales = &rest[8 * half..];
        for (i, y) in y.iter_mut().enumerate() {
            let (part, l) = (i / 32, i % 32);
            let nibble = low[32 * (part % 2) + l] >> (4 * (part / 2)) & 0x0f;
            let upper = high[l] >> (2 * part) & 3;
            let q = f32::from(nibble | upper << 4) - 32.0;
            *y = d * f32::from(scales[i / 16] as i8) * q;
        }
    }
}

/// Twice the value of an E2M1 code. ggml's table: code 8 is +0.
const DOUBLED_E2M1: [f32; 16] = [
    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0,
];

/// Half of 2^(code − 127), subnormal for the two smallest codes; ggml reads the NaN code 255 as 2^128 too.
fn half_e8m0(code: u8) -> f32 {
    f32::from_bits(match code {
        0 => 0x0020_0000,
        1 => 0x0040_0000,
        _ => u32::from(code - 1) << 23,
    })
}

fn mxfp4(block: &[u8; 17], y: &mut [f32; 32]) {
    let d = half_e8m0(block[0]);
    nibbles(&block[1..], y, |_, q| DOUBLED_E2M1[usize::from(q)] * d);
}

/// Half the value of a UE4M3 code; ggml reads the NaN code as 0 and passes the sign bit over.
fn half_ue4m3(code: u8) -> f32 {
    if code == 0x7f {
        return 0.0;
    }
    let (exponent, mantissa) = (code >> 3 & 0x0f, code & 7);
    let significand = f32::from(if exponent == 0 {
        mantissa
    } else {
        mantissa | 8
    });
    // 2^(max(exponent, 1) − 10), and one less for the half.
    significand * f32::from_bits((u32::from(exponent.max(1)) + 127 - 11) << 23)
}

fn nvfp4(block: &[u8; 36], y: &mut [f32; 64]) {
    let (scales, quants) = block.split_at(4);
    for ((y, bytes), &scale) in y.chunks_mut(16).zip(quants.chunks(8)).zip(scales) {
        let d = half_ue4m3(scale);
        nibbles(bytes, y, |_, q| DOUBLED_E2M1[usize::from(q)] * d);
    }
}

/// Scales and payload of ggml's NVFP4 blocks as streams of FP4 blocks hold them (numerics §2).
///
/// ggml reads a NaN scale as 0 and so does this.
pub(crate) fn split_nvfp4(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut scales, mut payload) = (Vec::new(), Vec::new());
    for block in bytes.as_chunks::<36>().0 {
        let (codes, quants) = block.split_at(4);
        scales.extend(
            codes
                .iter()
                .map(|&code| if code == 0x7f { 0 } else { code }),
        );
        for bytes in quants.as_chunks::<8>().0 {
            // From elements j and j + 8 in byte j to 2i and 2i + 1 in byte i.
            payload.extend(
                bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|[a, b]| a & 0x0f | b << 4),
            );
            payload.extend(
                bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|[a, b]| a >> 4 | b & 0xf0),
            );
        }
    }
    (scales, payload)
}
