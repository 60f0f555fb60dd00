//! The search for a block's best scale (numerics §3), with candidates beside each other in the lanes.

use multiversion::multiversion;

use super::block::{DECISIONS, STEPS, amax_bits, scale_code};
use crate::format::{BLOCK, UE4M3, Ue4m3, exp2};

/// Neighbouring scale codes that are tried together.
const LANES: usize = 8;

/// The candidates, codes 0x01 … 0x7E, with room for a window that begins at the last.
struct Candidates {
    /// Their values; 0 for the codes that are no candidates.
    scales: [f32; CODES],
    /// Decision points times scale; exact (3 × 4 significant bits).
    decisions: [[f32; CODES]; 7],
}

const CODES: usize = 128 + LANES;

static CANDIDATES: Candidates = {
    let mut candidates = Candidates {
        scales: [0.0; CODES],
        decisions: [[0.0; CODES]; 7],
    };
    let mut code = 1;
    while code <= UE4M3.max_code() as usize {
        let scale = UE4M3.magnitude_units(code as u32) as f32 / 512.0;
        candidates.scales[code] = scale;
        let mut below = 0;
        while below < 7 {
            candidates.decisions[below][code] = scale * DECISIONS[below];
            below += 1;
        }
        code += 1;
    }
    candidates
};

/// The numbers of eight neighbouring codes.
#[inline(always)]
fn window(numbers: &[f32; CODES], first: usize) -> [f32; LANES] {
    let mut window = [0.0; LANES];
    if let Some(numbers) = numbers.get(first..first + LANES) {
        window.copy_from_slice(numbers);
    }
    window
}

/// A block and the best candidate so far.
struct Search<'a> {
    magnitudes: [f32; BLOCK],
    sensitivity: &'a [f64; BLOCK],
    error: f64,
    code: usize,
}

impl Search<'_> {
    /// Tries the eight candidates from code `first` on.
    ///
    /// A term is not negative and rounding is monotone, so that a partial sum is never above the whole: where all
    /// partial sums are above the best error nothing is better.
    #[inline(always)]
    fn try_window(&mut self, first: usize) {
        let scales = window(&CANDIDATES.scales, first);
        let [d0, d1, d2, d3, d4, d5, d6] = &CANDIDATES.decisions;
        let (d0, d1, d2) = (window(d0, first), window(d1, first), window(d2, first));
        let (d3, d4, d5) = (window(d3, first), window(d4, first), window(d5, first));
        let d6 = window(d6, first);
        let mut errors = [0f64; LANES];
        let quarters = self.magnitudes.as_chunks::<4>().0;
        for (magnitudes, sensitivity) in quarters.iter().zip(self.sensitivity.as_chunks::<4>().0) {
            for (&magnitude, &f) in magnitudes.iter().zip(sensitivity) {
                let mut quantized = [0f32; LANES];
                // One loop over the lanes with all in it, which the compiler vectorises.
                for lane in 0..LANES {
                    let step = |up: bool, below: usize| if up { STEPS[below] } else { 0.0 };
                    let low = (step(magnitude > d0[lane], 0) + step(magnitude >= d1[lane], 1))
                        + (step(magnitude > d2[lane], 2) + step(magnitude >= d3[lane], 3));
                    let high = (step(magnitude > d4[lane], 4) + step(magnitude >= d5[lane], 5))
                        + step(magnitude > d6[lane], 6);
                    let units = low + high;
                    // Exact: 2 × 4 significant bits.
                    quantized[lane] = units * scales[lane];
                }
                for (error, quantized) in errors.iter_mut().zip(quantized) {
                    let difference = f64::from(quantized) - f64::from(magnitude);
                    *error += f * (difference * difference);
                }
            }
            if errors.iter().all(|&error| error > self.error) {
                return;
            }
        }
        for (lane, (&error, &scale)) in errors.iter().zip(&scales).enumerate() {
            let code = first + lane;
            // An infinite error never wins.
            let better = error < self.error
                || (error == self.error && code < self.code && error < f64::INFINITY);
            if scale > 0.0 && better {
                (self.error, self.code) = (error, code);
            }
        }
    }
}

/// `clipped_scale` of one block; `None` if an element is infinite, or a sensitivity is negative, NaN or so large that sums overflow.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma"))]
pub(crate) fn clipped_scale(z: &[f32; BLOCK], sensitivity: &[f64; BLOCK]) -> Option<Ue4m3> {
    /// With squares of FP32 numbers below 2²⁵⁶, far from FP64's limits.
    const LARGEST_SENSITIVITY: f64 = exp2(500);
    let mut numbers = *z;
    for z in &mut numbers {
        *z = if z.is_nan() { 0.0 } else { *z };
    }
    let amax = f32::from_bits(amax_bits(&numbers));
    let usual = sensitivity
        .iter()
        .all(|f| (0.0..=LARGEST_SENSITIVITY).contains(f));
    (usual && amax.is_finite()).then(|| search(&numbers, sensitivity, scale_code(amax)))
}

/// The code of `clipped_scale`, for finite elements and sensitivities that are finite and not negative.
///
/// `start` is any code; the nearer the best one, the sooner the search ends. Candidates need not be looked at
///
/// * above one with which every element rounds to 0: all larger scales have the same error, and the smallest wins;
/// * from one on with which the elements that round to 0 have an error above the best already: they round to 0 with all larger scales, too;
/// * up to one with which the largest element saturates, and has an error above the best already: for smaller scales it is no smaller.
#[inline(always)]
pub(super) fn search(z: &[f32; BLOCK], sensitivity: &[f64; BLOCK], start: u8) -> Ue4m3 {
    /// The order of a sum of 16 terms changes it by less than 2⁻⁴⁸ of it.
    const SLACK: f64 = 1.0 - 1.0 / (1u64 << 40) as f64;
    /// The best code lies more often above the start than below.
    const BEFORE_START: usize = 2;

    let mut magnitudes = *z;
    for magnitude in &mut magnitudes {
        *magnitude = magnitude.abs();
    }
    let largest = magnitudes
        .iter()
        .fold(0f32, |a, &b| if b > a { b } else { a });
    if largest == 0.0 {
        // No error with any candidate.
        return Ue4m3::from_bits(1).unwrap_or(Ue4m3::ONE);
    }
    let mut largest_f = 0f64;
    let mut errors_of_zero = [0f64; BLOCK];
    for ((error, &magnitude), &f) in errors_of_zero.iter_mut().zip(&magnitudes).zip(sensitivity) {
        let wide = f64::from(magnitude);
        *error = f * (wide * wide);
        largest_f = if magnitude == largest { f } else { largest_f };
    }
    let mut search = Search {
        magnitudes,
        sensitivity,
        error: f64::INFINITY,
        code: Ue4m3::ONE.to_bits().into(),
    };
    let start = usize::from(start).saturating_sub(BEFORE_START).max(1);
    let mut first = start;
    while first <= UE4M3.max_code() as usize {
        // What lies at or below the first decision point rounds to 0.
        let zero_up_to = CANDIDATES.decisions[0][first];
        let mut lanes = [0f64; 4];
        for (errors, magnitudes) in errors_of_zero
            .as_chunks::<4>()
            .0
            .iter()
            .zip(magnitudes.as_chunks::<4>().0)
        {
            for ((lane, &error), &magnitude) in lanes.iter_mut().zip(errors).zip(magnitudes) {
                *lane += if magnitude <= zero_up_to { error } else { 0.0 };
            }
        }
        let error_of_zeros = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
        if error_of_zeros * SLACK > search.error {
            break;
        }
        search.try_window(first);
        if largest <= zero_up_to {
            break;
        }
        first += LANES;
    }
    let mut end = start;
    while end > 1 {
        // E2M1's largest magnitude times the largest scale of those left.
        let saturated = f64::from(6.0 * CANDIDATES.scales[end - 1]);
        let difference = saturated - f64::from(largest);
        if difference <= 0.0 && largest_f * (difference * difference) > search.error {
            break;
        }
        end = end.saturating_sub(LANES).max(1);
        search.try_window(end);
    }
    Ue4m3::from_bits(search.code as u8).unwrap_or(Ue4m3::ONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantizer::{UNIFORM, clipped_scale_by_trial};
    use crate::strategies;
    use proptest::prelude::*;

    fn check(z: &[f32; BLOCK], sensitivity: &[f64; BLOCK]) -> Result<(), TestCaseError> {
        let expected = clipped_scale_by_trial(z, sensitivity);
        prop_assert_eq!(
            clipped_scale(z, sensitivity),
            Some(expected),
            "{:?} {:?}",
            z,
            sensitivity
        );
        let amax = z.iter().fold(0f32, |amax, z| amax.max(z.abs()));
        // Any start will do.
        for start in [Ue4m3::of_amax(amax).to_bits(), 0, 1, 0x40, 0x7E] {
            prop_assert_eq!(
                search(z, sensitivity, start),
                expected,
                "{:?} {:?} from {:#x}",
                z,
                sensitivity,
                start
            );
        }
        Ok(())
    }

    /// FP32 blocks of a common magnitude, some elements far below it.
    fn block() -> impl Strategy<Value = [f32; BLOCK]> {
        let element = (-1f32..=1.0, prop_oneof![4 => Just(0), 1 => 0i32..40]);
        (prop::array::uniform16(element), -30i32..=9).prop_map(|(elements, exponent)| {
            elements.map(|(mantissa, below)| mantissa * ((exponent - below) as f32).exp2())
        })
    }

    /// F over many orders of magnitude, zeros among them.
    fn sensitivity() -> impl Strategy<Value = [f64; BLOCK]> {
        let f = prop_oneof![
            4 => (0f32..=1.0, -40i32..40).prop_map(|(m, e)| m * (e as f32).exp2()),
            1 => prop::sample::select(vec![0.0, f32::MIN_POSITIVE, 1.0, f32::MAX]),
        ];
        prop_oneof![Just(UNIFORM), prop::array::uniform16(f.prop_map(f64::from))]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_search_finds_what_trying_all_finds(z in block(), f in sensitivity()) {
            check(&z, &f)?;
        }

        /// Ties between candidates are common where elements lie on the grid.
        #[test]
        fn the_search_breaks_ties_as_trying_all_does(z in strategies::finite_z_block(), f in sensitivity()) {
            check(&z.map(|z| z.to_f32()), &f)?;
        }
    }

    #[test]
    fn blocks_without_error_get_the_smallest_scale_that_has_none() {
        let mut z = [0.0; BLOCK];
        assert_eq!(search(&z, &UNIFORM, 0).to_bits(), 1);
        z[3] = -6.0;
        assert_eq!(
            search(&z, &UNIFORM, 0x38),
            clipped_scale_by_trial(&z, &UNIFORM)
        );
        // No element counts: no error with any candidate.
        assert_eq!(search(&z, &[0.0; BLOCK], 0x38).to_bits(), 1);
    }

    #[test]
    fn what_is_not_usual_is_left_to_trying_all() {
        let z = [1.0; BLOCK];
        for f in [-1.0, f64::NAN, f64::INFINITY, f64::MAX] {
            let mut sensitivity = UNIFORM;
            sensitivity[7] = f;
            assert_eq!(clipped_scale(&z, &sensitivity), None);
        }
        let mut z = [0.25; BLOCK];
        z[2] = f32::INFINITY;
        assert_eq!(clipped_scale(&z, &UNIFORM), None);
        z[2] = f32::NAN;
        let mut zero = z;
        zero[2] = 0.0;
        assert_eq!(clipped_scale(&z, &UNIFORM), clipped_scale(&zero, &UNIFORM));
        assert_eq!(
            clipped_scale(&z, &UNIFORM),
            Some(clipped_scale_by_trial(&z, &UNIFORM))
        );
    }
}
