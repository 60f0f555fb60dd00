//! The width shared among leaves by the softmax of their scores (REBASE, ICLR 2025), in integers.
//!
//! 1. A score becomes an integer of 16 fractional bits, the nearest (ties to even); ±∞ and what is too large become the largest or smallest of 32 bits. NaN becomes nothing.
//! 2. Of the largest score m, each leaf has the exponent z = (m − s) · r, where r is log₂e / T with 16 fractional bits; z has 32.
//! 3. A leaf's weight is e = 2^(30 − z), interpolated between the 257 values of [`table`]: with n the integer part of z, k the next 8 bits and f the 8 bits behind them,
//!    e = ⌊(t\[k\] · (256 − f) + t\[k + 1\] · f + 128) / 2⁸⌋ / 2ⁿ, rounded down; bits of z below these 16 don't count. The best leaf has exactly 2³⁰.
//! 4. Leaves are served by falling score, of equal ones the first first. With w the width that is left and S the sum of the weights that are left, a leaf gets
//!    ⌈w · e / S⌉; then w and S are lowered by what it got and by its weight.
//!
//! As e ≤ S, nobody gets more than is left, and the last leaf with a weight gets all of it: the total is the width, always. Leaves without a score get nothing, unless none has a
//! score; then all weights are equal.

use std::sync::LazyLock;

use serde::Serialize;

/// Fractional bits of a score and of log₂e / T.
const FRACTION: u32 = 16;

/// Fractional bits of a weight.
pub const WEIGHT_BITS: u32 = 30;

/// Scores in 16 fractional bits, in the order of the leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scores(Vec<Option<i32>>);

impl Scores {
    /// Scores of a reward model; NaN is none.
    pub fn new(scores: &[f32]) -> Self {
        // The conversion of floats to integers saturates.
        let fixed = |&score: &f32| {
            let scaled = f64::from(score) * f64::from(1u32 << FRACTION);
            (!score.is_nan()).then_some(scaled.round_ties_even() as i32)
        };
        Self(scores.iter().map(fixed).collect())
    }

    /// Scores that are integers of 16 fractional bits already.
    pub const fn from_fixed(scores: Vec<Option<i32>>) -> Self {
        Self(scores)
    }

    /// The integers.
    pub fn fixed(&self) -> &[Option<i32>] {
        &self.0
    }

    /// Leaves by falling score, those without one last; of equal ones the first first.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        order.sort_by_key(|&leaf| std::cmp::Reverse(self.0[leaf]));
        order
    }

    /// The weights 2^30 · e^((s − max) / T).
    pub fn weights(&self, temperature: Temperature) -> Vec<u32> {
        let Some(largest) = self.0.iter().flatten().max() else {
            return vec![1 << WEIGHT_BITS; self.0.len()];
        };
        self.0
            .iter()
            .map(|score| score.map_or(0, |score| weight(largest.abs_diff(score), temperature)))
            .collect()
    }
}

/// A softmax's temperature T.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Temperature {
    /// log₂e / T in 16 fractional bits.
    rate: u32,
}

/// A temperature that has no rate.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error("temperature {0}: it must be from 2^-15 to 2^15")]
pub struct TemperatureError(pub f64);

impl Temperature {
    /// Of the published runs: 0.2.
    pub const PUBLISHED: Self = Self { rate: 472_742 };

    /// T, from 2⁻¹⁵ to 2¹⁵. Its rate is the nearest integer.
    ///
    /// # Errors
    /// It is outside these bounds.
    pub fn new(temperature: f64) -> Result<Self, TemperatureError> {
        let bound = f64::from(1u32 << 15);
        if !(1.0 / bound..=bound).contains(&temperature) {
            return Err(TemperatureError(temperature));
        }
        let rate = std::f64::consts::LOG2_E / temperature * f64::from(1u32 << FRACTION);
        Ok(Self {
            rate: rate.round() as u32,
        })
    }

    /// log₂e / T in 16 fractional bits: what hardware multiplies by.
    pub const fn rate(self) -> u32 {
        self.rate
    }
}

/// t\[k\] = 2^(30 − k/256) for k of 0 to 256.
///
/// Made of square roots of 2 in 62 fractional bits, so that no library's exponential decides a bit: 2^(−1/2), 2^(−1/4), … by integer square roots rounded down, their products
/// rounded down, and the result rounded to the nearest.
pub fn table() -> &'static [u32; 257] {
    static TABLE: LazyLock<[u32; 257]> = LazyLock::new(|| {
        const ONE: u128 = 1 << 62;
        let mut roots = [0u128; 8];
        let mut power = ONE / 2;
        for root in &mut roots {
            power = (power << 62).isqrt();
            *root = power;
        }
        std::array::from_fn(|k| {
            let product = if k == 256 {
                ONE / 2
            } else {
                (0..8)
                    .filter(|bit| k >> (7 - bit) & 1 == 1)
                    .fold(ONE, |product, bit| (product * roots[bit]) >> 62)
            };
            ((product + (1 << 31)) >> 32) as u32
        })
    });
    &TABLE
}

/// The weight of a leaf whose score is `behind` the best, in 16 fractional bits.
fn weight(behind: u32, temperature: Temperature) -> u32 {
    let exponent = u64::from(behind) * u64::from(temperature.rate);
    let whole = exponent >> 32;
    if whole > u64::from(WEIGHT_BITS) {
        return 0;
    }
    let table = table();
    let [high, low, _, _] = (exponent as u32).to_be_bytes();
    let (index, rest) = (usize::from(high), u64::from(low));
    let above = u64::from(table[index]) * (256 - rest);
    let below = u64::from(table[index + 1]) * rest;
    (((above + below + 128) >> 8) >> whole) as u32
}

/// How a width is shared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Allocation {
    /// Leaves in the order in which they were served.
    pub order: Vec<usize>,
    /// Continuations of each leaf, by leaf.
    pub counts: Vec<u32>,
}

impl Allocation {
    /// Continuations in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }
}

/// Shares `width` among leaves; those not `kept` get nothing. Without a mask all are kept.
///
/// The total is the width, unless no leaf is kept: then it is 0. A mask that is too short keeps nothing behind its end.
pub fn allocate(
    scores: &Scores,
    kept: Option<&[bool]>,
    temperature: Temperature,
    width: u32,
) -> Allocation {
    // The best score among the kept ones has weight 2³⁰, so that pruning its better never starves it.
    let masked = Scores(
        (0..scores.0.len())
            .map(|leaf| scores.0[leaf].filter(|_| is_kept(kept, leaf)))
            .collect(),
    );
    let mut weights = masked.weights(temperature);
    for (leaf, weight) in weights.iter_mut().enumerate() {
        if !is_kept(kept, leaf) {
            *weight = 0;
        }
    }
    let order = masked.order();
    let counts = serve(&weights, &order, width);
    Allocation { order, counts }
}

fn is_kept(kept: Option<&[bool]>, leaf: usize) -> bool {
    kept.is_none_or(|kept| kept.get(leaf).copied().unwrap_or(false))
}

/// Serves leaves one after the other: ⌈w · e / S⌉ each.
fn serve(weights: &[u32], order: &[usize], width: u32) -> Vec<u32> {
    let mut counts = vec![0; weights.len()];
    let mut left = width;
    let mut sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    for &leaf in order {
        if left == 0 || sum == 0 {
            break;
        }
        // Below 2⁶² and, as no weight is above the sum, the quotient is at most what is left.
        let count = (u64::from(left) * u64::from(weights[leaf])).div_ceil(sum) as u32;
        counts[leaf] = count;
        left -= count;
        sum -= u64::from(weights[leaf]);
    }
    counts
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn table_is_powers_of_two() {
        for (k, &entry) in table().iter().enumerate() {
            let exact = (30.0 - k as f64 / 256.0).exp2();
            assert!((f64::from(entry) - exact).abs() <= 0.5 + 1e-6, "{k}");
        }
        assert_eq!((table()[0], table()[256]), (1 << 30, 1 << 29));
    }

    #[test]
    fn published_temperature() {
        assert_eq!(Temperature::new(0.2).unwrap(), Temperature::PUBLISHED);
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9] {
            assert!(Temperature::new(wrong).is_err());
        }
        assert!(Temperature::new(1.0 / 32768.0).is_ok());
    }

    #[test]
    fn weights_are_the_softmax_s() {
        let temperature = Temperature::new(0.2).unwrap();
        for step in 0..=4000u32 {
            let behind = step * 16;
            let exact = (1u64 << 30) as f64 * (-f64::from(behind) / f64::from(1 << 16) / 0.2).exp();
            let found = f64::from(weight(behind, temperature));
            // The table's interpolation errs by 2⁻²⁰, the rate by 2⁻¹⁷ of up to 7 powers of 2, and 16 bits are dropped.
            assert!(
                (found - exact).abs() <= exact * 5e-5 + 1.0,
                "{behind}: {found} {exact}"
            );
        }
        assert_eq!(weight(0, temperature), 1 << 30);
        assert_eq!(weight(u32::MAX, temperature), 0);
        // Never rises, at the seams of the table and of powers of 2 in particular.
        let one = Temperature { rate: 1 << 16 };
        let mut last = u32::MAX;
        for behind in 0..40 << 16 {
            let next = weight(behind, one);
            assert!(next <= last);
            last = next;
        }
    }

    #[test]
    fn scores_in_integers() {
        let scores = Scores::new(&[
            0.5,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -1e30,
            1.0 / 131072.0,
        ]);
        assert_eq!(
            scores.fixed(),
            [
                Some(1 << 15),
                None,
                Some(i32::MAX),
                Some(i32::MIN),
                Some(i32::MIN),
                Some(0)
            ]
        );
        assert_eq!(scores.order(), [2, 0, 5, 3, 4, 1]);
    }

    #[test]
    fn corner_cases() {
        let temperature = Temperature::PUBLISHED;
        let share =
            |scores: &[f32], width| allocate(&Scores::new(scores), None, temperature, width).counts;
        assert_eq!(share(&[], 5), [0u32; 0]);
        assert_eq!(share(&[0.3], 5), [5]);
        assert_eq!(share(&[f32::NAN], 5), [5]);
        assert_eq!(share(&[f32::NAN, f32::NAN], 5), [3, 2]);
        assert_eq!(share(&[f32::NAN, 0.1], 5), [0, 5]);
        assert_eq!(share(&[0.1, 0.9, 0.9], 1), [0, 1, 0]);
        assert_eq!(share(&[0.5; 7], 7), [1; 7]);
        assert_eq!(share(&[0.5; 3], 7), [3, 2, 2]);
        assert_eq!(share(&[0.5; 3], 0), [0; 3]);
        assert_eq!(
            share(&[f32::INFINITY, 0.1, f32::NEG_INFINITY], 9),
            [9, 0, 0]
        );
        let kept = |kept: &[bool]| {
            allocate(
                &Scores::new(&[0.9, 0.1, f32::NAN]),
                Some(kept),
                temperature,
                4,
            )
            .counts
        };
        assert_eq!(kept(&[false, true, true]), [0, 4, 0]);
        assert_eq!(kept(&[false, false, true]), [0, 0, 4]);
        assert_eq!(kept(&[false; 3]), [0; 3]);
        assert_eq!(kept(&[]), [0; 3]);
    }
}
