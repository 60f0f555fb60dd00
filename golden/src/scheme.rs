//! Which blocks are held how.

use serde::{Deserialize, Serialize};

/// A share from 0 to 1.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(f64);

/// A number that is no share.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error("a share lies between 0 and 1, {0} doesn't")]
pub struct ShareError(pub f64);

impl Share {
    /// 0.30, the operating point of FGMP.
    pub const FGMP: Self = Self(0.3);

    /// Checks the range.
    ///
    /// # Errors
    /// NaN, below 0 or above 1.
    pub fn new(share: f64) -> Result<Self, ShareError> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(ShareError(share))
        }
    }

    /// The share.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// T = score\[⌊p·n⌋\] of the n scores sorted downwards, so that at most the share p is above it (numerics §3).
    ///
    /// −∞ for p = 1, or without scores: everything is above it. Reorders `scores`.
    pub fn threshold(self, scores: &mut [f64]) -> f64 {
        // p·n is not negative, and the cast is the floor.
        let index = (self.0 * scores.len() as f64) as usize;
        if index >= scores.len() {
            return f64::NEG_INFINITY;
        }
        *scores
            .select_nth_unstable_by(index, |a, b| b.total_cmp(a))
            .1
    }

    /// As [`Share::threshold`] of scores with weights: those above it have at most the share p of all weight.
    ///
    /// With equal weights it is the same threshold. Reorders `scored`, which holds each score with its weight.
    pub fn weighted_threshold(self, scored: &mut [(f64, u64)]) -> f64 {
        let all: u64 = scored.iter().map(|&(_, weight)| weight).sum();
        let bound = self.0 * all as f64;
        scored.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut above = 0;
        for &(score, weight) in &*scored {
            above += weight;
            if above as f64 > bound {
                return score;
            }
        }
        f64::NEG_INFINITY
    }
}

impl TryFrom<f64> for Share {
    type Error = ShareError;
    fn try_from(share: f64) -> Result<Self, ShareError> {
        Self::new(share)
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> f64 {
        share.0
    }
}

/// How the linear layers of a model are computed.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// BF16 weights, FP32 arithmetic: the reference.
    Bf16,
    /// Every block FP8.
    Fp8,
    /// Every block FP4.
    Nvfp4,
    /// FP4, but FP8 for the share of blocks with the largest impact scores.
    Fgmp {
        /// Target share of FP8 blocks, of the weights and of the activations.
        fp8_share: Share,
    },
}

impl Scheme {
    /// Name as the command line writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Nvfp4 => "nvfp4",
            Self::Fgmp { .. } => "fgmp",
        }
    }
}

/// How the FP8 blocks of a model are chosen, among the weights and among the activations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// One threshold on the impact score for all weights, one for all activations: FGMP.
    #[default]
    Global,
    /// As [`Selection::Global`], but an activation block counts once for each row of weights that it meets: the share is of block
    /// pairs, which is what energy is spent on, not of stored blocks. Weight blocks all meet as many activations and count alike.
    Pairs,
    /// A threshold for each matrix and for each input of linear layers, so that each has the same share.
    PerLayer,
    /// At random by this seed: what any policy must beat. Activations draw positions once, not anew for each token.
    Random(u64),
}

impl Selection {
    /// Name as the command line writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Pairs => "pairs",
            Self::PerLayer => "per-layer",
            Self::Random(_) => "random",
        }
    }

    /// A number in [0, 1) for block `block` of tensor or site `owner`; SplitMix64 of the three.
    pub fn random_score(seed: u64, owner: usize, block: usize) -> f64 {
        let mut state = seed;
        for number in [owner as u64, block as u64] {
            state = state
                .wrapping_add(number)
                .wrapping_add(0x9E37_79B9_7F4A_7C15);
            state = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            state = (state ^ state >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            state ^= state >> 31;
        }
        // The upper 53 bits, which FP64 holds exactly.
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_the_share_is_above_the_threshold() {
        let scores = [5.0, 1.0, 3.0, 3.0, 2.0, 4.0, 0.0, 3.0, 9.0, 8.0];
        for (share, threshold) in [
            (0.0, 9.0),
            (0.1, 8.0),
            (0.29, 5.0),
            (0.3, 4.0),
            (0.4, 3.0),
            (0.6, 3.0),
            (0.9, 0.0),
        ] {
            let found = Share(share).threshold(&mut scores.to_vec());
            assert_eq!(found, threshold, "share {share}");
            assert!(scores.iter().filter(|&&score| score > found).count() as f64 <= share * 10.0);
        }
        assert_eq!(
            Share(1.0).threshold(&mut scores.to_vec()),
            f64::NEG_INFINITY
        );
        assert_eq!(Share(0.3).threshold(&mut []), f64::NEG_INFINITY);
    }

    #[test]
    fn weights_count_for_the_share() {
        let mut scored = [(1.0, 1), (5.0, 3), (3.0, 2), (4.0, 4)];
        for (share, threshold) in [
            (0.0, 5.0),
            (0.29, 5.0),
            // The block of weight 3 alone is three tenths.
            (0.3, 4.0),
            (0.7, 3.0),
            (0.9, 1.0),
            (1.0, f64::NEG_INFINITY),
        ] {
            assert_eq!(
                Share(share).weighted_threshold(&mut scored),
                threshold,
                "share {share}"
            );
        }
        assert_eq!(Share(0.3).weighted_threshold(&mut []), f64::NEG_INFINITY);
    }

    #[test]
    fn equal_weights_are_none() {
        let scores = [5.0, 1.0, 3.0, 3.0, 2.0, 4.0, 0.0, 3.0, 9.0, 8.0];
        for tenth in 0..=10 {
            let share = Share(f64::from(tenth) / 10.0);
            let mut scored = scores.map(|score| (score, 7));
            assert_eq!(
                share.weighted_threshold(&mut scored),
                share.threshold(&mut scores.to_vec())
            );
        }
    }

    #[test]
    fn shares_lie_between_0_and_1() {
        for bad in [-0.1, 1.1, f64::NAN] {
            assert!(Share::new(bad).is_err());
        }
        assert_eq!(Share::new(0.3), Ok(Share::FGMP));
    }
}
