//! Parameters of the generated hardware, validated.

use crate::mac::{MAX_STAGES, MIN_STAGES};
use serde::{Deserialize, Serialize};

/// Accumulator widths that are built: a requested `max_k` is served by the next one up.
pub const ACC_WIDTHS: [usize; 4] = [52, 56, 60, 64];

/// Most rows, and most columns. Operands are broadcast along a row and a column; beyond this
/// the fan-out of one register is no longer something a tool can buffer sensibly.
pub const MAX_SIDE: usize = 64;
/// Largest reduction dimension that the widest accumulator holds without overflow.
pub const MAX_K: usize = 1 << 20;

/// Most blocks of a weight row's half: the sensitivities of as many channels, twice, are addressed with 16 bits.
pub const MAX_WEIGHT_BLOCKS: usize = 1 << 12;
/// Most blocks of a column's half: both halves are addressed with 16 bits.
pub const MAX_ACT_BLOCKS: usize = 1 << 14;
/// Most elements of the result memory: they are addressed with 16 bits.
pub const MAX_RESULT_ELEMENTS: usize = 1 << 16;
/// What multiplies two elements in a PE, and a result by its scale in the requantizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Multiplier {
    /// Significands of 4 bits, and a shifter behind their product: least logic where there are no multiplier blocks to spare.
    #[default]
    Lut,
    /// Elements as integers of 18 bits and a sign, one multiplication of 18 x 18 bits and no shifter: for multiplier blocks.
    Dsp,
}

/// What the generator builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArrayConfig {
    /// Rows: weight rows (output features) computed side by side.
    pub rows: usize,
    /// Columns: activation rows (tokens) computed side by side.
    pub cols: usize,
    /// Elements of a block multiplied in one cycle; a block has 16.
    pub lanes: usize,
    /// Largest reduction dimension K for which the accumulator cannot overflow.
    pub max_k: usize,
    /// Stages of a PE, from its operands to its accumulator: more of them for a faster clock.
    pub pipeline: usize,
    /// Elements that the activation quantization unit takes a cycle: 1, or a whole block of 16.
    pub quantizer_lanes: usize,
    /// Accelerator: weight ports, at most one a row, each a packed tensor's three streams at one block a cycle. Divides `rows`.
    pub weight_ports: usize,
    /// Accelerator: blocks of one weight row that the memory holds, twice. A power of two; K up to 16 times that.
    pub weight_blocks: usize,
    /// Accelerator: blocks of activations that the memory of one column holds, twice. A power of two.
    pub act_blocks: usize,
    /// Accelerator: elements of the memory in which results wait for their quantization. A power of two.
    pub result_elements: usize,
    /// What multiplies two elements.
    pub multiplier: Multiplier,
}

impl Default for ArrayConfig {
    fn default() -> Self {
        Self {
            rows: 4,
            cols: 4,
            lanes: golden::format::BLOCK,
            max_k: 4096,
            pipeline: 7,
            quantizer_lanes: 1,
            weight_ports: 1,
            weight_blocks: 64,
            act_blocks: 256,
            result_elements: 4096,
            multiplier: Multiplier::default(),
        }
    }
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A side of the array is out of range.
    #[error(
        "{name} = {value}: an array has 1 to {MAX_SIDE} {name}, because operands are broadcast along a {line}"
    )]
    Side {
        /// `rows` or `cols`.
        name: &'static str,
        /// What was asked for.
        value: usize,
        /// `row` or `column`.
        line: &'static str,
    },
    /// Lanes other than a whole block.
    #[error("lanes = {0}: a block of 16 elements is multiplied in one cycle, so lanes is 16")]
    Lanes(usize),
    /// K is no positive multiple of a block.
    #[error(
        "max_k = {0}: the reduction dimension is padded to whole blocks, so max_k is a multiple of 16 from 16 to {MAX_K}"
    )]
    MaxK(usize),
    /// Fewer or more stages than a PE can be cut into.
    #[error(
        "pipeline = {0}: a PE has {MIN_STAGES} to {MAX_STAGES} stages: operands, sum and accumulator at least, and no more places for a register"
    )]
    Pipeline(usize),
    /// The quantization unit is built for an element or a block a cycle.
    #[error(
        "quantizer_lanes = {0}: the quantization unit takes one element a cycle or a whole block, so quantizer_lanes is 1 or 16"
    )]
    QuantizerLanes(usize),
    /// Weight ports that don't share the rows evenly.
    #[error(
        "weight_ports = {ports}: each port fills the same number of rows, so weight_ports divides rows = {rows}"
    )]
    WeightPorts {
        /// What was asked for.
        ports: usize,
        /// Rows of the array.
        rows: usize,
    },
    /// A memory's size is out of range.
    #[error(
        "{name} = {value}: memories have a power of two of words and are addressed with 16 bits, so {name} is a power of two from {least} to {most}"
    )]
    Memory {
        /// Which one.
        name: &'static str,
        /// What was asked for.
        value: usize,
        /// Least.
        least: usize,
        /// Most.
        most: usize,
    },
}

impl ArrayConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first parameter that is out of range, and why it is.
    pub fn validate(self) -> Result<Self, ConfigError> {
        for (name, value, line) in [("rows", self.rows, "column"), ("cols", self.cols, "row")] {
            if value == 0 || value > MAX_SIDE {
                return Err(ConfigError::Side { name, value, line });
            }
        }
        if self.lanes != golden::format::BLOCK {
            return Err(ConfigError::Lanes(self.lanes));
        }
        if self.max_k == 0
            || !self.max_k.is_multiple_of(golden::format::BLOCK)
            || self.max_k > MAX_K
        {
            return Err(ConfigError::MaxK(self.max_k));
        }
        if !(MIN_STAGES..=MAX_STAGES).contains(&self.pipeline) {
            return Err(ConfigError::Pipeline(self.pipeline));
        }
        if self.quantizer_lanes != 1 && self.quantizer_lanes != golden::format::BLOCK {
            return Err(ConfigError::QuantizerLanes(self.quantizer_lanes));
        }
        if self.weight_ports == 0 || !self.rows.is_multiple_of(self.weight_ports) {
            return Err(ConfigError::WeightPorts {
                ports: self.weight_ports,
                rows: self.rows,
            });
        }
        for (name, value, least, most) in [
            ("weight_blocks", self.weight_blocks, 2, MAX_WEIGHT_BLOCKS),
            ("act_blocks", self.act_blocks, 2, MAX_ACT_BLOCKS),
            (
                "result_elements",
                self.result_elements,
                16,
                MAX_RESULT_ELEMENTS,
            ),
        ] {
            if !value.is_power_of_two() || value < least || value > most {
                return Err(ConfigError::Memory {
                    name,
                    value,
                    least,
                    most,
                });
            }
        }
        Ok(self)
    }

    /// Width of the accumulator: the narrowest built one that cannot overflow for `max_k`
    /// (numerics §4).
    #[must_use]
    pub fn acc_bits(self) -> usize {
        let needed = golden::mac::acc_bits(self.max_k) as usize;
        ACC_WIDTHS
            .into_iter()
            .find(|&width| width >= needed)
            .unwrap_or(64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_56_bits_wide() {
        let config = ArrayConfig::default().validate().unwrap();
        assert_eq!(config.acc_bits(), 56);
    }

    #[test]
    fn accumulator_never_is_narrower_than_needed() {
        for blocks in 1..=(MAX_K / 16) {
            let config = ArrayConfig {
                max_k: blocks * 16,
                ..Default::default()
            };
            let needed = 48 + (usize::BITS - (blocks - 1).leading_zeros()) as usize;
            assert!(config.acc_bits() >= needed, "max_k {}", config.max_k);
        }
    }

    #[test]
    fn refusals_say_why() {
        let refuse = |config: ArrayConfig| config.validate().unwrap_err().to_string();
        assert!(
            refuse(ArrayConfig {
                rows: 0,
                ..Default::default()
            })
            .starts_with("rows = 0:")
        );
        assert!(
            refuse(ArrayConfig {
                cols: 65,
                ..Default::default()
            })
            .contains("1 to 64 cols")
        );
        assert!(
            refuse(ArrayConfig {
                lanes: 8,
                ..Default::default()
            })
            .contains("lanes is 16")
        );
        assert!(
            refuse(ArrayConfig {
                max_k: 24,
                ..Default::default()
            })
            .contains("multiple of 16")
        );
        assert!(
            refuse(ArrayConfig {
                weight_ports: 3,
                ..Default::default()
            })
            .contains("divides rows = 4")
        );
        assert!(
            refuse(ArrayConfig {
                act_blocks: 100,
                ..Default::default()
            })
            .contains("a power of two from 2 to 16384")
        );
        assert!(
            refuse(ArrayConfig {
                pipeline: 10,
                ..Default::default()
            })
            .contains("3 to 9 stages")
        );
        assert!(
            refuse(ArrayConfig {
                quantizer_lanes: 4,
                ..Default::default()
            })
            .contains("quantizer_lanes is 1 or 16")
        );
    }
}
