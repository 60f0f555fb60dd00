//! One block: scale, codes and values.

use std::ops::Add;

use crate::format::{BLOCK, E2M1, E2M1_DECISION_QUARTERS, E4M3, UE4M3};

/// Decision points of E2M1 on the magnitude.
pub(super) const DECISIONS: [f32; 7] = {
    let mut points = [0.0; 7];
    let mut below = 0;
    while below < 7 {
        points[below] = E2M1_DECISION_QUARTERS[below] as f32 * 0.25;
        below += 1;
    }
    points
};

/// Distance from the i-th E2M1 magnitude to the next.
pub(super) const STEPS: [f32; 7] = {
    let mut steps = [0.0; 7];
    let mut below = 0;
    while below < 7 {
        steps[below] = (E2M1.magnitude_units(below as u32 + 1) - E2M1.magnitude_units(below as u32))
            as f32
            * 0.5;
        below += 1;
    }
    steps
};

const SIGN: u32 = 1 << 31;

/// Smallest normal E4M3 number, 2⁻⁶.
const E4M3_MIN_NORMAL: f32 = 1.0 / 64.0;
/// FP32's unit at 2¹⁴ is E4M3's subnormal step, 2⁻⁹.
const E4M3_SUBNORMAL_SHIFTER: f32 = 16384.0;
/// What E4M3's magnitude codes lie below the upper 12 bits of the same FP32 number: the difference of the biases, above 3 mantissa bits.
const E4M3_CODE_OFFSET: u32 = (127 - E4M3.bias as u32) << 3;

/// Bits of the largest magnitude; those of an infinity or NaN are above all others.
#[inline(always)]
pub(crate) fn amax_bits(z: &[f32; BLOCK]) -> u32 {
    // Bits of non-negative numbers are ordered as the numbers.
    let mut lanes = [0u32; 8];
    for half in z.as_chunks::<8>().0 {
        for (lane, z) in lanes.iter_mut().zip(half) {
            *lane = (*lane).max(z.to_bits() & !SIGN);
        }
    }
    lanes.iter().fold(0, |amax, &lane| amax.max(lane))
}

/// Code of `Ue4m3::of_amax` for a finite, non-negative number.
///
/// FP64 division can't move the quotient onto or over a decision point (see there). Normal codes are the upper bits of the rounded quotient; for
/// the subnormal ones FP64's unit at 2⁴³ is their step 2⁻⁹, so that adding 2⁴³ rounds, ties to even, and leaves the code in the lowest bits.
#[inline(always)]
pub(super) fn scale_code(amax: f32) -> u8 {
    const SHIFTER: f64 = (1u64 << 43) as f64;
    const DROPPED: u32 = 52 - UE4M3.mantissa_bits;
    const OFFSET: u64 = (1023 - UE4M3.bias as u64) << UE4M3.mantissa_bits;
    let quotient = f64::from(amax) / E2M1.max;
    let bits = quotient.to_bits();
    let normal = (bits + ((1 << (DROPPED - 1)) - 1) + (bits >> DROPPED & 1)) >> DROPPED;
    let subnormal = (quotient + SHIFTER).to_bits() - SHIFTER.to_bits();
    let code = if quotient < E4M3_MIN_NORMAL as f64 {
        subnormal
    } else {
        normal.wrapping_sub(OFFSET)
    };
    code.min(UE4M3.max_code() as u64) as u8
}

/// Values of the scale codes, 0 behind the last.
static SCALE_VALUES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code <= UE4M3.max_code() {
        values[code as usize] = UE4M3.magnitude_units(code) as f32 / 512.0;
        code += 1;
    }
    values
};

/// Value of a scale's code.
#[inline(always)]
pub(crate) fn scale_value(code: u8) -> f32 {
    SCALE_VALUES[usize::from(code)]
}

/// The decision points times scale: exact, as a scale has 4 significant bits, a point 3, and the product is far from FP32's limits. A
/// comparison with them is exact too, so that each decision is that of the exact quotient.
type Decisions = [f32; 7];

#[inline(always)]
fn decisions(scale: f32) -> Decisions {
    let mut decisions = DECISIONS;
    for decision in &mut decisions {
        *decision *= scale;
    }
    decisions
}

/// Sum of the steps that a magnitude takes from 0. Between an even code and the odd one above it a tie stays, else it moves up.
///
/// Written without a loop, so that the compiler vectorises the loop around it.
#[inline(always)]
fn climb<T: Add<Output = T>>(magnitude: f32, d: &Decisions, step: impl Fn(bool, usize) -> T) -> T {
    let low = (step(magnitude > d[0], 0) + step(magnitude >= d[1], 1))
        + (step(magnitude > d[2], 2) + step(magnitude >= d[3], 3));
    let high = (step(magnitude > d[4], 4) + step(magnitude >= d[5], 5)) + step(magnitude > d[6], 6);
    low + high
}

/// Payload of an FP4 block: the 16 codes of `E2m1::quantize_scaled`, element 0 in the lowest nibble. NaN is taken for a number.
#[inline(always)]
pub(crate) fn fp4_word(z: &[f32; BLOCK], scale: f32) -> u64 {
    let d = decisions(scale);
    let mut nibbles = [0u32; BLOCK];
    for ((nibble, z), shift) in nibbles.iter_mut().zip(z).zip(SHIFTS) {
        let magnitude = climb(z.abs(), &d, |up, _| u32::from(up));
        *nibble = (magnitude | z.to_bits() >> 28 & 8) << shift;
    }
    let or = |nibbles: &[u32]| nibbles.iter().fold(0, |word, nibble| word | nibble);
    let (low, high) = nibbles.split_at(BLOCK / 2);
    // Every magnitude is above the decision points of scale 0, but all codes are 0 (numerics §3).
    if scale == 0.0 {
        0
    } else {
        u64::from(or(high)) << 32 | u64::from(or(low))
    }
}

/// As [`fp4_word`], but ties go to the lower magnitude, and what rounds to zero becomes +0.
#[inline(always)]
pub(crate) fn fp4_word_ties_down(z: &[f32; BLOCK], scale: f32) -> u64 {
    let [d0, d1, d2, d3, d4, d5, d6] = decisions(scale);
    let mut nibbles = [0u32; BLOCK];
    for ((nibble, z), shift) in nibbles.iter_mut().zip(z).zip(SHIFTS) {
        let magnitude = z.abs();
        let above = |decision: f32| u32::from(magnitude > decision);
        let code = ((above(d0) + above(d1)) + (above(d2) + above(d3)))
            + ((above(d4) + above(d5)) + above(d6));
        let sign = if code == 0 { 0 } else { z.to_bits() >> 28 & 8 };
        *nibble = (code | sign) << shift;
    }
    let or = |nibbles: &[u32]| nibbles.iter().fold(0, |word, nibble| word | nibble);
    let (low, high) = nibbles.split_at(BLOCK / 2);
    u64::from(or(high)) << 32 | u64::from(or(low))
}

/// Where the nibbles of half a block stand.
const SHIFTS: [u32; BLOCK] = {
    let mut shifts = [0; BLOCK];
    let mut element = 0;
    while element < BLOCK {
        shifts[element] = (4 * element % 32) as u32;
        element += 1;
    }
    shifts
};

/// Magnitudes of the FP4 form, scale included; exact (4 × 2 significant bits).
#[inline(always)]
pub(super) fn fp4_magnitudes(z: &[f32; BLOCK], scale: f32) -> [f32; BLOCK] {
    let d = decisions(scale);
    let mut values = [0f32; BLOCK];
    for (value, z) in values.iter_mut().zip(z) {
        let units = climb(z.abs(), &d, |up, below| if up { STEPS[below] } else { 0.0 });
        *value = units * scale;
    }
    values
}

/// The magnitude's bits in FP32 of the nearest E4M3 normal number, which 20 bits of the mantissa are dropped for; too large above 448.
#[inline(always)]
fn e4m3_normal_bits(magnitude: f32) -> u32 {
    let bits = magnitude.to_bits();
    (bits + 0x7_FFFF + (bits >> 20 & 1)) & 0xFFF0_0000
}

/// Magnitudes of the FP8 form. NaN is taken for a number.
#[inline(always)]
pub(super) fn fp8_magnitudes(z: &[f32; BLOCK]) -> [f32; BLOCK] {
    const MAX: f32 = E4M3.max as f32;
    let mut values = [0f32; BLOCK];
    for (value, z) in values.iter_mut().zip(z) {
        let magnitude = z.abs();
        let rounded = f32::from_bits(e4m3_normal_bits(magnitude));
        let normal = if rounded < MAX { rounded } else { MAX };
        let subnormal = (magnitude + E4M3_SUBNORMAL_SHIFTER) - E4M3_SUBNORMAL_SHIFTER;
        *value = if magnitude < E4M3_MIN_NORMAL {
            subnormal
        } else {
            normal
        };
    }
    values
}

/// Payload of an FP8 block: the 16 codes of `E4m3::quantize`, element 0 in the lowest byte. NaN is taken for a number.
#[inline(always)]
pub(super) fn fp8_words(z: &[f32; BLOCK]) -> [u64; 2] {
    let mut codes = [0u8; BLOCK];
    for (code, z) in codes.iter_mut().zip(z) {
        let magnitude = z.abs();
        let normal = (e4m3_normal_bits(magnitude) >> 20).wrapping_sub(E4M3_CODE_OFFSET);
        let subnormal = (magnitude + E4M3_SUBNORMAL_SHIFTER)
            .to_bits()
            .wrapping_sub(E4M3_SUBNORMAL_SHIFTER.to_bits());
        let rounded = if magnitude < E4M3_MIN_NORMAL {
            subnormal
        } else {
            normal.min(E4M3.max_code())
        };
        *code = (rounded | z.to_bits() >> 24 & 0x80) as u8;
    }
    let all = u128::from_le_bytes(codes);
    [all as u64, (all >> 64) as u64]
}

/// Splits rows of `k` elements into blocks, zero-padded at the end of each row, and calls `f` for each.
///
/// Zero is `T`'s default; `rest` elements that fill no row are a row of their own.
#[inline(always)]
pub(crate) fn for_each_block<T: Copy + Default>(
    data: &[T],
    k: usize,
    mut f: impl FnMut(&[T; BLOCK]),
) {
    for row in data.chunks(k.max(1)) {
        for chunk in row.chunks(BLOCK) {
            let mut padded = [T::default(); BLOCK];
            let block = chunk.try_into().unwrap_or_else(|_| {
                for (padded, &given) in padded.iter_mut().zip(chunk) {
                    *padded = given;
                }
                &padded
            });
            f(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use multiversion::multiversion;

    use super::*;
    use crate::format::{E2m1, E4m3, Ue4m3};

    /// As the kernels are compiled for this machine.
    #[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
    fn fp4_here(z: &[f32; BLOCK], scale: f32) -> (u64, [f32; BLOCK]) {
        (fp4_word(z, scale), fp4_magnitudes(z, scale))
    }

    #[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
    fn fp8_here(z: &[f32; BLOCK]) -> ([u64; 2], [f32; BLOCK]) {
        (fp8_words(z), fp8_magnitudes(z))
    }

    /// What a block's kernels make of 16 numbers must be what the formats' definitions make of each, however they are compiled.
    fn check_fp4(z: &[f32; BLOCK], scale: Ue4m3) {
        let fp4 = z.map(|z| E2m1::quantize_scaled(z, scale));
        let word = fp4
            .iter()
            .rev()
            .fold(0, |word, e| word << 4 | u64::from(e.to_bits()));
        let values = fp4.map(|e| (scale.to_f32() * e.to_f32()).abs());
        let scale = scale.to_f32();
        let everywhere = (fp4_word(z, scale), fp4_magnitudes(z, scale));
        assert_eq!(everywhere, (word, values), "{z:?} with scale {scale}");
        assert_eq!(everywhere, fp4_here(z, scale), "{z:?} with scale {scale}");
    }

    fn check_fp8(z: &[f32; BLOCK]) {
        let fp8 = z.map(E4m3::quantize);
        let words = u128::from_le_bytes(fp8.map(E4m3::to_bits));
        let values = fp8.map(|e| e.to_f32().abs());
        let everywhere = (fp8_words(z), fp8_magnitudes(z));
        let expected = ([words as u64, (words >> 64) as u64], values);
        assert_eq!(everywhere, expected, "{z:?}");
        assert_eq!(everywhere, fp8_here(z), "{z:?}");
    }

    fn check_amax(amax: f32) {
        let code = Ue4m3::of_amax(amax).to_bits();
        assert_eq!(scale_code(amax), code, "{amax:e}");
        assert_eq!(scale_value(code), Ue4m3::of_amax(amax).to_f32());
    }

    /// The number and its neighbours in FP32, with both signs.
    fn around(x: f32) -> impl Iterator<Item = f32> {
        let bits = x.to_bits();
        [bits.saturating_sub(1), bits, bits + 1]
            .into_iter()
            .flat_map(|bits| [f32::from_bits(bits), -f32::from_bits(bits)])
    }

    fn in_blocks(numbers: impl IntoIterator<Item = f32>, mut f: impl FnMut(&[f32; BLOCK])) {
        let mut numbers = numbers.into_iter().peekable();
        while numbers.peek().is_some() {
            f(&std::array::from_fn(|_| numbers.next().unwrap_or_default()));
        }
    }

    #[test]
    fn codes_are_those_of_the_formats_at_every_decision_point() {
        let corners = [
            0.0,
            f32::from_bits(1),
            f32::MIN_POSITIVE,
            E4M3_MIN_NORMAL,
            464.0,
            480.0,
            f32::MAX,
            f32::INFINITY,
        ];
        let halfway =
            |code: u8| (E4m3::from_bits(code).to_f32() + E4m3::from_bits(code + 1).to_f32()) / 2.0;
        let e4m3: Vec<f32> = (0..E4M3.max_code() as u8)
            .flat_map(|code| [halfway(code), E4m3::from_bits(code).to_f32()])
            .chain(corners)
            .flat_map(around)
            .filter(|x| !x.is_nan())
            .collect();
        for scale in Ue4m3::all() {
            let points = DECISIONS.map(|point| point * scale.to_f32());
            let numbers = points.into_iter().chain(corners).flat_map(around);
            in_blocks(numbers.filter(|x| !x.is_nan()), |z| check_fp4(z, scale));
            in_blocks(e4m3.iter().copied(), |z| check_fp4(z, scale));
        }
        in_blocks(e4m3.iter().copied(), check_fp8);
    }

    #[test]
    fn scales_are_those_of_the_format_at_every_decision_point() {
        for code in 0..Ue4m3::MAX.to_bits() {
            let [low, high] = [code, code + 1].map(|code| E4m3::from_bits(code).to_f32());
            for quotient in [low, (low + high) / 2.0, high] {
                around(6.0 * quotient)
                    .filter(|amax| *amax >= 0.0)
                    .for_each(check_amax);
            }
        }
        // All BF16 magnitudes, and what lies between them.
        for bits in 0..0x7F80u32 {
            for low in [0, 1, 0x7FFF, 0x8000, 0xFFFF] {
                check_amax(f32::from_bits(bits << 16 | low));
            }
        }
        check_amax(f32::INFINITY);
    }

    #[test]
    fn the_largest_magnitude_is_found_anywhere() {
        for position in 0..BLOCK {
            let mut z = [-1.0; BLOCK];
            z[position] = -1.5;
            assert_eq!(amax_bits(&z), 1.5f32.to_bits());
            z[position] = f32::NAN;
            assert!(amax_bits(&z) > f32::INFINITY.to_bits());
        }
    }

    /// All numbers but NaN, by a few scales: about five minutes on one core.
    #[test]
    fn codes_of_all_numbers() {
        use rayon::prelude::*;
        if std::env::var_os("FGMP_FULL").is_none() {
            return;
        }
        let scales = [0x01, 0x07, 0x08, 0x34, 0x3D, 0x7E].map(Ue4m3::from_bits);
        (0..1u32 << 28).into_par_iter().for_each(|block| {
            let z: [f32; BLOCK] = std::array::from_fn(|i| f32::from_bits(block << 4 | i as u32));
            if z.iter().any(|z| z.is_nan()) {
                return;
            }
            check_fp8(&z);
            for scale in scales.into_iter().flatten() {
                check_fp4(&z, scale);
            }
            if z[0].is_sign_positive() {
                z.into_iter().for_each(check_amax);
            }
        });
    }
}
