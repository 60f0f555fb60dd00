//! Datapaths of one format, made of the parts of the four-mode processing element. Twins in [`golden::mac`].
//!
//! For designs that need only one format, and as a measure of what the others cost: [`Fp4Sum`] and [`Fp8Sum`] are 16-lane dot products of raw codes,
//! [`Nvfp4Pair`] a whole pair of FP4 blocks with both scales, and [`Fp8Pe`] the processing element without FP4. All are exact.

mod fp4;
mod fp8;
mod fp8_pe;

pub use fp4::{Fp4Product, Fp4Sum, Nvfp4Pair};
pub use fp8::Fp8Sum;
pub use fp8_pe::Fp8Pe;
