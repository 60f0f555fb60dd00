//! From logits to a token.

use serde::{Deserialize, Serialize};

/// How the classifier's token is chosen.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// The largest logit, of equals the lowest token.
    #[default]
    Greedy,
    /// One at random by the softmax of logits / temperature.
    ///
    /// The largest of logit / temperature + noise, Gumbel noise that depends on the seed, the sequence, the position that is predicted and the token alone. So every repetition
    /// draws with the same noise: its class only changes if its logits do, and speculative decoding draws what decoding token by token draws.
    Sampled {
        /// Above 0; logits are divided by it.
        temperature: f32,
        /// Of the noise.
        seed: u64,
    },
}

impl Choice {
    /// The token for `position` of a sequence. NaN is never chosen while there is another; of no logits, token 0.
    pub fn token(&self, logits: &[f32], sequence: usize, position: usize) -> u32 {
        let mut best = (0u32, f32::NEG_INFINITY);
        let mut offer = |token: u32, value: f32| {
            if value > best.1 {
                best = (token, value);
            }
        };
        match *self {
            Self::Greedy => (0u32..)
                .zip(logits)
                .for_each(|(token, &logit)| offer(token, logit)),
            Self::Sampled { temperature, seed } => {
                let stream = mix(mix(seed, sequence as u64), position as u64);
                for (token, &logit) in (0u32..).zip(logits) {
                    offer(token, logit / temperature + gumbel(stream, token));
                }
            }
        }
        best.0
    }
}

/// A step of SplitMix64 with a number added to its state.
pub(crate) fn mix(state: u64, number: u64) -> u64 {
    let mut state = state
        .wrapping_add(number)
        .wrapping_add(0x9E37_79B9_7F4A_7C15);
    state = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ state >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ state >> 31
}

/// −ln(−ln u) of a u in (0, 1).
fn gumbel(stream: u64, token: u32) -> f32 {
    // The upper 52 bits and a half: never 0, never 1.
    let uniform = ((mix(stream, u64::from(token)) >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    (-(-uniform.ln()).ln()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equals_the_lowest() {
        assert_eq!(Choice::Greedy.token(&[1.0, 3.0, 3.0, 2.0], 0, 0), 1);
        assert_eq!(Choice::Greedy.token(&[f32::NAN, 3.0, f32::NAN], 0, 0), 1);
        assert_eq!(Choice::Greedy.token(&[], 0, 0), 0);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let temperature = 0.7;
        let weights: Vec<f64> = logits
            .iter()
            .map(|l| f64::from(l / temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let draws = 100_000;
        let mut counts = [0u32; 4];
        let choice = Choice::Sampled {
            temperature,
            seed: 7,
        };
        for position in 0..draws {
            counts[choice.token(&logits, 3, position) as usize] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let share = weight / total;
            let deviation = (share * (1.0 - share) / draws as f64).sqrt();
            let found = f64::from(*count) / draws as f64;
            assert!(
                (found - share).abs() < 5.0 * deviation,
                "{found} for {share}"
            );
        }
    }

    #[test]
    fn noise_is_its_position_s_and_sequence_s_own() {
        let choice = Choice::Sampled {
            temperature: 1.0,
            seed: 1,
        };
        let logits = [0.0; 64];
        let drawn = |sequence| -> Vec<u32> {
            (0..50)
                .map(|p| choice.token(&logits, sequence, p))
                .collect()
        };
        assert_eq!(drawn(0), drawn(0));
        assert_ne!(drawn(0), drawn(1));
    }
}
