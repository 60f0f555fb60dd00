//! Activation quantization unit. Twin of [`golden::quantizer`].
//!
//! BF16 elements in, decided blocks out (numerics §2 and §3), in two builds with one output interface: [`SerialQuantizer`]
//! takes an element a cycle, [`ParallelQuantizer`] a block a cycle. Elements are rescaled and clamped, by a multiplier
//! ([`Rescaler`]) or, in the parallel build, by a table that its lanes share ([`ProductTable`], [`TableRescaler`]). The rest
//! is made of the same parts: the block's amax gives its scale ([`AmaxScale`]); then each element goes through a [`QuantizerLane`]:
//! both codes, excess error, sensitivity-weighted square. [`ActQuantizer`] is the serial build with a [`BlockPacker`] behind it.

mod lane;
mod packer;
mod parallel;
mod rescale;
mod round;
mod score;
mod serial;
mod table;
mod unit;

pub use lane::{LANE_STAGES, LaneScale, QuantizerLane};
pub use packer::BlockPacker;
pub use parallel::{LargerMagnitude, ParallelQuantizer};
pub use rescale::{ElementClamp, ProductRound, RESCALER_STAGES, Rescaler, ScaleExponent};
pub use round::{AmaxScale, E2m1Points, E2m1Select, E4m3Round};
pub use score::{ErrorSquare, ExcessError, ExcessOperands, ScaleMultiples};
pub use serial::SerialQuantizer;
pub use table::{ProductTable, TABLE_CYCLES, TABLE_RESCALER_STAGES, TableRescaler};
pub use unit::ActQuantizer;

use crate::build::PREFIX;
use crate::emit::{Bundle, EmitError, EmitOptions, emit};
use crate::prelude::*;

/// Emits one build of the unit alone, as top module: the parallel one if it takes a whole block a cycle
/// ([`crate::config::ArrayConfig::quantizer_lanes`]), else the serial one.
///
/// # Errors
/// A module can't be translated.
pub fn emit_alone(lanes: usize) -> Result<Bundle, EmitError> {
    let options = |name: &str| EmitOptions {
        top: format!("{PREFIX}{name}"),
        prefix: PREFIX.to_owned(),
        keep_hierarchy: vec!["rescaler".to_owned(), "quantizer_lane".to_owned()],
    };
    if lanes == golden::format::BLOCK {
        let mut unit = ParallelQuantizer::default();
        unit.connect_all();
        emit(&unit, &options("parallel_quantizer"))
    } else {
        let mut unit = SerialQuantizer::default();
        unit.connect_all();
        emit(&unit, &options("serial_quantizer"))
    }
}
