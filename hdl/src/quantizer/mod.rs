//! Activation quantization unit. Twin of [`golden::quantizer`].
//!
//! One BF16 element a cycle in, blocks out in packed stream order (numerics §2 and §3). Elements are
//! rescaled and clamped, buffered while the block's amax is found, then replayed: both codes,
//! excess error, sensitivity-weighted score, threshold. Blocks follow each other without a gap:
//! while one is replayed the next is buffered.

mod packer;
mod round;
mod score;
mod unit;

pub use packer::BlockPacker;
pub use round::{AmaxScale, E2m1Round, E4m3Round};
pub use score::{ExcessError, ScaleDecoder, WeightedSquare};
pub use unit::{ActQuantizer, Rescaler};
