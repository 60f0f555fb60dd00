//! Parameters of SPEED's top, validated.

use crate::config::{ArrayConfig, ConfigError};
use golden::speed::MOST_REPETITIONS;
use serde::{Deserialize, Serialize};

/// Bits of positions and of tokens that are built, both alike: what is asked for is served by the next one up.
pub const ENTRY_WIDTHS: [usize; 4] = [8, 12, 16, 20];
/// Most bits of a position or a token.
pub const MOST_BITS: usize = 20;
/// Most words of the program memory: they are addressed with 16 bits, and one address lies behind the last.
pub const MOST_PROGRAM_WORDS: usize = 1 << 15;

/// What the generator builds around the accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeedConfig {
    /// The accelerator.
    pub array: ArrayConfig,
    /// Repetitions of the group of layers: stages of the pipeline.
    pub repetitions: usize,
    /// Bits of a position, at least: sequences of up to 2^this positions.
    pub position_bits: usize,
    /// Bits of a token, at least: a vocabulary of up to 2^this.
    pub token_bits: usize,
    /// Words of the program memory. A power of two.
    pub program_words: usize,
}

impl Default for SpeedConfig {
    fn default() -> Self {
        Self {
            array: ArrayConfig::default(),
            repetitions: 3,
            position_bits: 12,
            token_bits: 12,
            program_words: 4096,
        }
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpeedConfigError {
    /// The accelerator's.
    #[error(transparent)]
    Array(#[from] ConfigError),
    /// The number of stages.
    #[error(
        "repetitions = {0}: a pipeline has 1 to {MOST_REPETITIONS} stages, because their numbers have three bits"
    )]
    Repetitions(usize),
    /// A width is out of range.
    #[error("{name} = {value}: positions and tokens have 1 to {MOST_BITS} bits")]
    Bits {
        /// Which one.
        name: &'static str,
        /// What was asked for.
        value: usize,
    },
    /// The program memory's size.
    #[error(
        "program_words = {0}: the program memory has a power of two of words from 2 to {MOST_PROGRAM_WORDS}, because an address of 16 bits must also tell the word behind its end"
    )]
    ProgramWords(usize),
}

impl SpeedConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first parameter that is out of range, and why it is.
    pub fn validate(self) -> Result<Self, SpeedConfigError> {
        self.array.validate()?;
        if !(1..=MOST_REPETITIONS).contains(&self.repetitions) {
            return Err(SpeedConfigError::Repetitions(self.repetitions));
        }
        for (name, value) in [
            ("position_bits", self.position_bits),
            ("token_bits", self.token_bits),
        ] {
            if !(1..=MOST_BITS).contains(&value) {
                return Err(SpeedConfigError::Bits { name, value });
            }
        }
        if !self.program_words.is_power_of_two()
            || !(2..=MOST_PROGRAM_WORDS).contains(&self.program_words)
        {
            return Err(SpeedConfigError::ProgramWords(self.program_words));
        }
        Ok(self)
    }

    /// Bits of positions and tokens as built: the narrowest of [`ENTRY_WIDTHS`] that holds both.
    #[must_use]
    pub fn entry_bits(&self) -> usize {
        let needed = self.position_bits.max(self.token_bits);
        ENTRY_WIDTHS
            .into_iter()
            .find(|&width| width >= needed)
            .unwrap_or(MOST_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_why() {
        let valid = SpeedConfig::default();
        assert!(valid.validate().is_ok());
        let refuse = |config: SpeedConfig| config.validate().unwrap_err().to_string();
        assert!(
            refuse(SpeedConfig {
                repetitions: 9,
                ..valid
            })
            .contains("1 to 8 stages")
        );
        assert!(
            refuse(SpeedConfig {
                repetitions: 0,
                ..valid
            })
            .starts_with("repetitions = 0")
        );
        assert!(
            refuse(SpeedConfig {
                token_bits: 21,
                ..valid
            })
            .starts_with("token_bits = 21")
        );
        assert!(
            refuse(SpeedConfig {
                position_bits: 0,
                ..valid
            })
            .starts_with("position_bits = 0")
        );
        assert!(
            refuse(SpeedConfig {
                program_words: 1 << 16,
                ..valid
            })
            .contains("behind its end")
        );
        assert!(
            refuse(SpeedConfig {
                program_words: 1000,
                ..valid
            })
            .contains("power of two")
        );
        let array = ArrayConfig {
            rows: 0,
            ..ArrayConfig::default()
        };
        assert!(refuse(SpeedConfig { array, ..valid }).starts_with("rows = 0"));
    }

    #[test]
    fn entries_are_never_narrower_than_needed() {
        for (position_bits, token_bits, built) in [
            (8, 3, 8),
            (9, 3, 12),
            (12, 12, 12),
            (1, 13, 16),
            (17, 1, 20),
        ] {
            let config = SpeedConfig {
                position_bits,
                token_bits,
                ..SpeedConfig::default()
            };
            assert_eq!(config.entry_bits(), built);
        }
    }
}
