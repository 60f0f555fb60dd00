//! Proptest strategies for blocks, shared by the tests of every crate (feature `strategies`).
//!
//! They lean on what goes wrong: ties, extremes, zeros of both signs, NaN.

use half::bf16;
use proptest::array::uniform16;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::block::Block;
use crate::format::{BLOCK, E2M1_DECISION_QUARTERS, E2m1, E4m3, Ue4m3};

/// Settings for tests in `tests/`: so many cases, and failing seeds written to `<test>.regressions` beside the source, to be committed.
pub fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

/// Any E2M1 code, extremes and zeros more often.
pub fn e2m1() -> impl Strategy<Value = E2m1> {
    prop_oneof![4 => 0u8..16, 1 => prop::sample::select(vec![0x0, 0x8, 0x7, 0xF])]
        .prop_map(E2m1::from_low_nibble)
}

/// Any E4M3 code but NaN, extremes, zeros and subnormals more often.
pub fn finite_e4m3() -> impl Strategy<Value = E4m3> {
    let any = (0u8..=0x7E, any::<bool>())
        .prop_map(|(magnitude, negative)| magnitude | u8::from(negative) << 7);
    prop_oneof![4 => any, 1 => prop::sample::select(vec![0x00, 0x80, 0x01, 0x81, 0x07, 0x08, 0x7E, 0xFE])]
        .prop_map(E4m3::from_bits)
}

/// Any E4M3 code, both NaNs among them.
pub fn e4m3() -> impl Strategy<Value = E4m3> {
    prop_oneof![15 => finite_e4m3(), 1 => prop::sample::select(vec![0x7F, 0xFF]).prop_map(E4m3::from_bits)]
}

/// Any UE4M3 code, extremes more often.
pub fn ue4m3() -> impl Strategy<Value = Ue4m3> {
    prop_oneof![4 => 0u8..=0x7E, 1 => prop::sample::select(vec![0x00, 0x01, 0x07, 0x08, 0x38, 0x7E])]
        .prop_map(|code| Ue4m3::from_bits(code).unwrap_or(Ue4m3::MAX))
}

/// Any FP4 block; some hold only extremes, so that sums reach their bound.
pub fn fp4_block() -> impl Strategy<Value = Block> {
    let extreme = prop::sample::select(vec![0x7, 0xF]).prop_map(E2m1::from_low_nibble);
    prop_oneof![
        6 => (ue4m3(), uniform16(e2m1())),
        1 => (Just(Ue4m3::MAX), uniform16(extreme)),
        1 => (ue4m3(), Just([E2m1::from_low_nibble(0x7); BLOCK])),
    ]
    .prop_map(|(scale, elements)| Block::Fp4 { scale, elements })
}

/// Any FP8 block without NaN; some hold only extremes.
pub fn finite_fp8_block() -> impl Strategy<Value = Block> {
    let extreme = prop::sample::select(vec![0x7E, 0xFE]).prop_map(E4m3::from_bits);
    prop_oneof![6 => uniform16(finite_e4m3()), 1 => uniform16(extreme), 1 => Just([E4m3::from_bits(0x7E); BLOCK])]
        .prop_map(|elements| Block::Fp8 { elements })
}

/// An FP8 block with at least one NaN.
pub fn nan_block() -> impl Strategy<Value = Block> {
    (uniform16(e4m3()), 0..BLOCK, any::<bool>()).prop_map(|(mut elements, position, negative)| {
        elements[position] = E4m3::from_bits(if negative { 0xFF } else { 0x7F });
        Block::Fp8 { elements }
    })
}

/// Any block without NaN.
pub fn finite_block() -> impl Strategy<Value = Block> {
    prop_oneof![fp4_block(), finite_fp8_block()]
}

/// Any block, one in sixteen with NaN.
pub fn block() -> impl Strategy<Value = Block> {
    prop_oneof![15 => finite_block(), 1 => nan_block()]
}

/// A weight block and an activation block: all four modes alike, NaN now and then.
pub fn block_pair() -> impl Strategy<Value = (Block, Block)> {
    (block(), block())
}

/// A BF16 of any bits.
pub fn any_bf16() -> impl Strategy<Value = bf16> {
    any::<u16>().prop_map(bf16::from_bits)
}

/// A finite BF16 of magnitude at most 448, in the range where codes differ more often.
pub fn z_element() -> impl Strategy<Value = bf16> {
    let signed =
        |magnitude: u16, negative: bool| bf16::from_bits(magnitude | u16::from(negative) << 15);
    // 2⁻¹² … 448 and 0 … 448.
    let useful =
        (0x3980u16..=0x43E0, any::<bool>()).prop_map(move |(m, negative)| signed(m, negative));
    let all = (0u16..=0x43E0, any::<bool>()).prop_map(move |(m, negative)| signed(m, negative));
    let corners = prop::sample::select(vec![
        0.0,
        -0.0,
        448.0,
        -448.0,
        1.0 / 1024.0,
        1.0 / 512.0,
        1.0 / 64.0,
        1.0,
    ])
    .prop_map(bf16::from_f32);
    prop_oneof![6 => useful, 2 => all, 1 => corners]
}

/// 16 values of similar magnitude, as activations are.
fn similar() -> impl Strategy<Value = [bf16; BLOCK]> {
    (-10i32..=8, uniform16((-256i32..=256, 0i32..6))).prop_map(|(exponent, parts)| {
        parts.map(|(mantissa, below)| {
            let z = mantissa as f32 / 256.0 * ((exponent - below) as f32).exp2();
            bf16::from_f32(z.clamp(-448.0, 448.0))
        })
    })
}

/// 16 values on the decision points of E2M1 for the scale that the block will get, or of E4M3.
fn tie_aligned() -> impl Strategy<Value = [bf16; BLOCK]> {
    // An amax of 6·s with s up to 72 gives scale s; 448/6 itself isn't reachable.
    let scale = (1u8..=0x69).prop_map(|code| Ue4m3::from_bits(code).unwrap_or(Ue4m3::ONE).to_f32());
    let element = (
        0usize..E2M1_DECISION_QUARTERS.len(),
        any::<bool>(),
        0u8..4,
        -1i32..=1,
    );
    (scale, uniform16(element), 0..BLOCK).prop_map(|(scale, parts, position)| {
        let mut z = parts.map(|(point, negative, kind, neighbour)| {
            let magnitude = if kind == 0 {
                // Half-way between two E4M3 values.
                let code = (scale.to_bits() >> 16) as u8 % 0x7D;
                (E4m3::from_bits(code).to_f32() + E4m3::from_bits(code + 1).to_f32()) / 2.0
            } else {
                scale * E2M1_DECISION_QUARTERS[point] as f32 / 4.0
            };
            let tie = bf16::from_f32(if negative { -magnitude } else { magnitude });
            // The tie itself most often, else the next number on either side.
            let bits = if kind == 1 {
                tie.to_bits().saturating_add_signed(neighbour as i16)
            } else {
                tie.to_bits()
            };
            let z = bf16::from_bits(bits);
            if z.to_f32().abs() <= 448.0 {
                z
            } else {
                bf16::ZERO
            }
        });
        z[position] = bf16::from_f32((6.0 * scale).min(448.0));
        z
    })
}

/// 16 finite values as the quantizer gets them after rescaling: |z| ≤ 448.
pub fn finite_z_block() -> impl Strategy<Value = [bf16; BLOCK]> {
    let constant = z_element().prop_map(|z| [z; BLOCK]);
    let single = (z_element(), 0..BLOCK).prop_map(|(z, position)| {
        let mut block = [bf16::ZERO; BLOCK];
        block[position] = z;
        block
    });
    prop_oneof![3 => uniform16(z_element()), 4 => similar(), 4 => tie_aligned(), 1 => constant, 1 => single]
}

/// As [`finite_z_block`], one in sixteen with a NaN.
pub fn z_block() -> impl Strategy<Value = [bf16; BLOCK]> {
    let with_nan = (finite_z_block(), 0..BLOCK).prop_map(|(mut z, position)| {
        z[position] = bf16::NAN;
        z
    });
    prop_oneof![15 => finite_z_block(), 1 => with_nan]
}

/// 16 channel sensitivities: all 1, or of any codes.
pub fn sensitivity() -> impl Strategy<Value = [Ue4m3; BLOCK]> {
    prop_oneof![Just([Ue4m3::ONE; BLOCK]), uniform16(ue4m3())]
}

/// A threshold of any magnitude.
pub fn threshold() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0),
        1 => Just(u64::MAX),
        8 => (0u32..64, any::<u64>()).prop_map(|(shift, bits)| bits >> shift),
    ]
}

/// A multiplier in the range that numerics §5 allows, powers of two and zero among them.
pub fn multiplier() -> impl Strategy<Value = f32> {
    // Biased exponents of 2⁻⁶⁰ … 2⁵⁹, all mantissas.
    let any =
        (67u32..=186, 0u32..1 << 23, any::<bool>()).prop_map(|(exponent, mantissa, negative)| {
            f32::from_bits(u32::from(negative) << 31 | exponent << 23 | mantissa)
        });
    let power = (-60i32..=60).prop_map(|exponent| (exponent as f32).exp2());
    prop_oneof![6 => any, 2 => power, 1 => prop::sample::select(vec![0.0, -0.0, 1.0, -1.0])]
}
