//! Fast forms of the quantizers and decoders: same bits as the definitions, many elements at a time.
//!
//! The loops are straight-line code over arrays of 16, which the compiler turns into vector instructions. `multiversion`
//! compiles each entry point twice, for AVX2 and for what every machine of the architecture has, and picks one at run time; there are no
//! intrinsics, so other architectures get the vectors of their baseline. No operation is reordered or fused:
//! Rust keeps floating-point operations as they are written, so both versions give the same bits.
//!
//! The definitions are [`decide`](crate::quantizer::decide), [`candidates`](crate::quantizer::candidates),
//! [`clipped_scale_by_trial`](crate::quantizer::clipped_scale_by_trial) and [`Block`](crate::block::Block); the tests compare with them.

pub(crate) mod activations;
pub(crate) mod block;
pub(crate) mod clip;
pub(crate) mod decode;
pub(crate) mod few;
pub(crate) mod panels;
pub(crate) mod weights;
