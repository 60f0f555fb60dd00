//! The engine of a board: an array with memories behind a serial link.
//!
//! A board's device is smaller than the complete accelerator, and its host far away, behind a UART. So the engine has no job queue and no dense streams:
//! frames write blocks into memories beside the rows and columns of an array and ask for products of what lies there. [`protocol`] says what a frame holds.

pub mod engine;
pub mod executor;
pub mod frame;
pub mod link;
pub mod protocol;
pub mod reply;
pub mod steps;
pub mod uart;
pub mod unpack;

pub use engine::BoardEngine;

use golden::format::BLOCK;
use serde::{Deserialize, Serialize};

use crate::config::{ArrayConfig, ConfigError, MAX_ACT_BLOCKS, MAX_WEIGHT_BLOCKS};

/// Fewest clock cycles of a bit on the line: the receiver looks at a bit's middle, which it knows to a cycle.
pub const MIN_CLOCKS_PER_BIT: usize = 4;
/// Most clock cycles of a bit.
pub const MAX_CLOCKS_PER_BIT: usize = 4096;

/// What the engine of a board is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoardConfig {
    /// The array and its memories. `lanes` is 16, or 8 for an array of half the size that takes a block in two steps. `weight_blocks` are those of a row and `act_blocks` those of a column, each one memory, not two halves. `weight_ports`, `result_elements` and
    /// `quantizer_lanes` have no meaning here.
    pub array: ArrayConfig,
    /// Clock cycles of a bit on the serial line.
    pub clocks_per_bit: usize,
    /// Results can be given as BF16; without it only as accumulators, which the host requantizes.
    pub requantizer: bool,
    /// Activations can be sent as BF16; without it only as blocks, which the host quantizes.
    pub quantizer: bool,
}

impl Default for BoardConfig {
    fn default() -> Self {
        Self {
            array: ArrayConfig {
                rows: 1,
                cols: 1,
                weight_blocks: 256,
                act_blocks: 256,
                ..ArrayConfig::default()
            },
            clocks_per_bit: MIN_CLOCKS_PER_BIT,
            requantizer: false,
            quantizer: false,
        }
    }
}

/// Why a board's configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoardConfigError {
    /// The array's.
    #[error(transparent)]
    Array(#[from] ConfigError),
    /// A bit is too short or too long.
    #[error(
        "clocks_per_bit = {0}: a bit on the serial line takes {MIN_CLOCKS_PER_BIT} to {MAX_CLOCKS_PER_BIT} cycles of the clock; choose another rate or clock"
    )]
    ClocksPerBit(usize),
    /// Neither all lanes nor half of them.
    #[error(
        "lanes = {0}: a block of 16 elements is multiplied in one step or in two, so lanes is 16 or 8"
    )]
    Lanes(usize),
    /// A block in two steps is not for the quantizer.
    #[error(
        "quantizer with lanes = 8: the quantizer writes whole blocks into the columns' memories, and an array of eight lanes reads halves"
    )]
    HalfQuantizer,
    /// More rows or columns than a frame can name, or one tile's results are larger than a reply.
    #[error(
        "{rows} x {cols} results of {bytes} bytes are more than a reply holds, {} bytes",
        protocol::MAX_REPLY_BODY
    )]
    Tile {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Bytes of a result.
        bytes: usize,
    },
}

impl BoardConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first parameter that is out of range, and why it is.
    pub fn validate(self) -> Result<Self, BoardConfigError> {
        let lanes = self.array.lanes;
        if lanes != BLOCK && 2 * lanes != BLOCK {
            return Err(BoardConfigError::Lanes(lanes));
        }
        if lanes != BLOCK && self.quantizer {
            return Err(BoardConfigError::HalfQuantizer);
        }
        ArrayConfig {
            lanes: BLOCK,
            ..self.array
        }
        .validate()?;
        if !(MIN_CLOCKS_PER_BIT..=MAX_CLOCKS_PER_BIT).contains(&self.clocks_per_bit) {
            return Err(BoardConfigError::ClocksPerBit(self.clocks_per_bit));
        }
        let (rows, cols) = (self.array.rows, self.array.cols);
        let bytes = protocol::ACCUMULATOR_BYTES;
        if rows * cols * bytes > protocol::MAX_REPLY_BODY {
            return Err(BoardConfigError::Tile { rows, cols, bytes });
        }
        Ok(self)
    }

    /// Channels whose sensitivities the quantizer's memory holds: those of the longest row of weights.
    #[must_use]
    pub const fn channels(&self) -> usize {
        self.array.weight_blocks * BLOCK
    }
}

const _: () = assert!(
    MAX_WEIGHT_BLOCKS <= 1 << 16 && MAX_ACT_BLOCKS <= 1 << 16,
    "addresses in frames have 16 bits"
);
