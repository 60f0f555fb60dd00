//! Rows of weights, scored and packed part by part: what `quantize_weights` does with whole tensors.

use super::Candidates;
use crate::format::{BLOCK, Ue4m3};
use crate::packed::{PackedError, PackedTensor, TensorScale};
use crate::simd::weights as kernels;

/// Rows that can't be quantized.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowsError {
    /// Data, sensitivities or choices that are not those of whole rows.
    #[error("rows of {k} elements: {found} {what} don't fit {elements} elements")]
    Length {
        /// Elements of a row.
        k: usize,
        /// Elements given.
        elements: usize,
        /// elements, sensitivities or choices.
        what: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A weight is NaN or infinite.
    #[error("a weight is not finite")]
    NonFinite,
    /// A sensitivity is NaN, infinite or negative.
    #[error("a sensitivity is negative or not finite")]
    Sensitivity,
    /// They can't be packed: there are none.
    #[error(transparent)]
    Packed(#[from] PackedError),
}

/// Checks that there are whole rows of finite elements, and returns the number of their blocks.
fn block_count(data: &[f32], k: usize) -> Result<usize, RowsError> {
    if k == 0 || !data.len().is_multiple_of(k) {
        return Err(RowsError::Length {
            k,
            elements: data.len(),
            what: "elements",
            found: data.len(),
        });
    }
    if !f32::from_bits(kernels::largest_bits(data)).is_finite() {
        return Err(RowsError::NonFinite);
    }
    Ok(data.len() / k * k.div_ceil(BLOCK))
}

/// [`candidates`](super::candidates) of every block of rows of `k` weights, each divided by S = `scale` first.
///
/// `sensitivity` is 1 for all if absent; `clip` searches the scales.
///
/// # Errors
/// Lengths don't match, or a number is none of those that weights and sensitivities can be.
pub fn score_rows(
    data: &[f32],
    k: usize,
    sensitivity: Option<&[f32]>,
    scale: TensorScale,
    clip: bool,
) -> Result<Vec<Candidates>, RowsError> {
    block_count(data, k)?;
    if let Some(sensitivity) = sensitivity {
        if sensitivity.len() != data.len() {
            return Err(RowsError::Length {
                k,
                elements: data.len(),
                what: "sensitivities",
                found: sensitivity.len(),
            });
        }
        if !kernels::are_sensitivities(sensitivity) {
            return Err(RowsError::Sensitivity);
        }
    }
    Ok(kernels::score(data, sensitivity, k, scale, clip))
}

/// Packs rows of `k` weights, each divided by S = `scale` first: every block in FP4 with the scale chosen for it, or in FP8 for `None`.
///
/// The result has shape [rows, `k`]. Streams of parts follow one another where a part has a multiple of 8 blocks, so that its tags fill whole bytes.
///
/// # Errors
/// Lengths don't match, there are no rows, or a weight is not finite.
pub fn pack_rows(
    data: &[f32],
    k: usize,
    scale: TensorScale,
    choices: &[Option<Ue4m3>],
) -> Result<PackedTensor, RowsError> {
    if block_count(data, k)? != choices.len() {
        return Err(RowsError::Length {
            k,
            elements: data.len(),
            what: "choices",
            found: choices.len(),
        });
    }
    let streams = kernels::pack(data, k, scale, choices);
    Ok(PackedTensor::from_builder(
        &[data.len() / k, k],
        scale,
        streams,
    )?)
}
