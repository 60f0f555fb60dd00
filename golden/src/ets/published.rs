//! The width shared as the published code shares it, in float32.
//!
//! The scores' order, exp(score / T), their sum and ⌈w · e / S⌉ are those of the published search; what its tensor library leaves open is decided: the quotient score / T is
//! rounded from float64 to float32, the exponential is computed in float64 and rounded, sums run in the order of service, and w · e / S is a product and then a quotient, each rounded to float32.
//! Its total may be the width or, by rounding, one more.

use super::Allocation;

/// Which of equal scores is served first, and what an empty sum gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// Weights of the cost model: of equal scores the first, and nothing once the sum is used up.
    Weights,
    /// Continuations of the kept leaves: of equal scores the last, and nothing once the sum is used up.
    Continuations,
    /// REBASE: of equal scores the last; a sum that is used up is an error where it is divided by.
    Rebase,
}

/// Scores that the published code fails on.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
pub enum PublishedError {
    /// NaN or infinite, or its exponential is.
    #[error("leaf {leaf}: exp({score} / T) is not a positive number of float32")]
    NotFinite {
        /// Which leaf.
        leaf: usize,
        /// Its score.
        score: f32,
    },
    /// Of `Pass::Rebase`.
    #[error("leaf {0} is served of a sum that rounding has used up")]
    Sum(usize),
    /// Zero, negative or not a number.
    #[error("temperature {0}: it must be above 0 and finite")]
    Temperature(f64),
}

/// Shares `width` among the leaves that are `kept` (all, without a mask), as the published code does.
///
/// A count that rounding makes negative is given as 0: nothing is forked from either.
///
/// # Errors
/// An exponential is not a finite number, or REBASE divides by a sum that is used up.
pub fn allocate(
    scores: &[f32],
    kept: Option<&[bool]>,
    temperature: f64,
    width: u32,
    pass: Pass,
) -> Result<Allocation, PublishedError> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(PublishedError::Temperature(temperature));
    }
    let is_kept = |leaf: usize| kept.is_none_or(|kept| kept.get(leaf).copied().unwrap_or(false));
    let mut exponentials = vec![0f32; scores.len()];
    for (leaf, &score) in scores.iter().enumerate() {
        if is_kept(leaf) {
            let exponent = (f64::from(score) / temperature) as f32;
            let exponential = f64::from(exponent).exp() as f32;
            if !score.is_finite() || !exponential.is_finite() {
                return Err(PublishedError::NotFinite { leaf, score });
            }
            exponentials[leaf] = exponential;
        }
    }
    // Pruned leaves have the score −∞ and are served last, or first from behind.
    let key = |leaf: usize| {
        if is_kept(leaf) {
            scores[leaf]
        } else {
            f32::NEG_INFINITY
        }
    };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    match pass {
        Pass::Weights => order.sort_by(|&a, &b| compare(key(b), key(a))),
        Pass::Continuations | Pass::Rebase => {
            order.sort_by(|&a, &b| compare(key(a), key(b)));
            order.reverse();
        }
    }
    let mut sum: f32 = order.iter().map(|&leaf| exponentials[leaf]).sum();
    let mut left = i64::from(width);
    let mut counts = vec![0u32; scores.len()];
    for &leaf in &order {
        if sum > 0.0 || pass == Pass::Rebase {
            let count = (left as f32 * exponentials[leaf] / sum).ceil();
            if !count.is_finite() {
                return Err(PublishedError::Sum(leaf));
            }
            left -= count as i64;
            sum -= exponentials[leaf];
            counts[leaf] = count.max(0.0) as u32;
        }
    }
    Ok(Allocation { order, counts })
}

/// Of numbers without NaN; zeros of both signs are equal, as they are to the published code.
fn compare(a: f32, b: f32) -> std::cmp::Ordering {
    a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn ties_are_served_in_opposite_orders() {
        let scores = [0.5f32, 0.9, 0.5, 0.9];
        let order = |pass| allocate(&scores, None, 0.2, 8, pass).unwrap().order;
        assert_eq!(order(Pass::Weights), [1, 3, 0, 2]);
        assert_eq!(order(Pass::Continuations), [3, 1, 2, 0]);
        assert_eq!(order(Pass::Rebase), [3, 1, 2, 0]);
    }

    #[test]
    fn total_is_the_width_or_one_more() {
        let (mut exact, mut more) = (0, 0);
        for count in 1..200usize {
            for width in [1, 7, 16, 64, 256] {
                let scores: Vec<f32> = (0..count)
                    .map(|leaf| ((leaf * 7919 + width as usize) % 97) as f32 / 97.0)
                    .collect();
                for scores in [scores, vec![0.3; count]] {
                    let total = allocate(&scores, None, 0.2, width, Pass::Weights)
                        .unwrap()
                        .total();
                    if total == u64::from(width) {
                        exact += 1;
                    } else {
                        assert_eq!(total, u64::from(width) + 1);
                        more += 1;
                    }
                }
            }
        }
        // Both happen: that is why the rule in integers exists.
        assert!(exact > 0 && more > 0, "{exact} {more}");
    }

    #[test]
    fn refuses_what_the_code_fails_on() {
        for score in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 30.0] {
            let found = allocate(&[0.1, score], None, 0.2, 4, Pass::Weights);
            assert!(matches!(
                found,
                Err(PublishedError::NotFinite { leaf: 1, .. })
            ));
        }
        // Pruned, it doesn't matter.
        let found = allocate(&[0.1, f32::NAN], Some(&[true]), 0.2, 4, Pass::Weights).unwrap();
        assert_eq!(found.counts, [4, 0]);
        assert!(allocate(&[0.1], None, 0.0, 4, Pass::Weights).is_err());
        assert_eq!(
            allocate(&[], None, 0.2, 4, Pass::Weights).unwrap().total(),
            0
        );
    }
}
