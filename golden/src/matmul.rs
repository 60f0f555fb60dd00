//! Exact product of two packed tensors (numerics §4–5).

use half::bf16;
use rayon::prelude::*;

use crate::block::Block;
use crate::format::{BLOCK, exp2};
use crate::gemm;
use crate::mac::{ACC_UNIT_EXPONENT, Accumulator};
use crate::packed::PackedTensor;
use crate::requantize::{OutputScale, ScaleError, requantize};
use crate::simd::decode::largest_magnitude;

/// Two tensors that can't be multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MatmulError {
    /// The reduction dimensions differ.
    #[error("weights reduce over K = {weights}, activations over K = {activations}")]
    ReductionMismatch {
        /// K of the weights.
        weights: usize,
        /// K of the activations.
        activations: usize,
    },
    /// The result has more elements than memory can address.
    #[error("a result of {rows} × {columns} elements is too large")]
    TooLarge {
        /// Rows of the activations.
        rows: usize,
        /// Rows of the weights.
        columns: usize,
    },
}

/// The exact result: one accumulator for each pair of an activation row and a weight row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Product {
    /// Rows of the activations.
    pub rows: usize,
    /// Rows of the weights.
    pub columns: usize,
    /// Row-major, columns fastest.
    pub accumulators: Vec<Accumulator>,
}

impl Product {
    /// The BF16 results for M = `scale` (numerics §5).
    pub fn requantized(&self, scale: OutputScale) -> Vec<bf16> {
        self.accumulators
            .iter()
            .map(|acc| requantize(acc.value(), acc.is_nan(), scale))
            .collect()
    }
}

/// M = RNE_FP32(S_w · S_a).
///
/// # Errors
/// The product is outside the range of multipliers.
pub fn output_scale(w: &PackedTensor, a: &PackedTensor) -> Result<OutputScale, ScaleError> {
    OutputScale::new(w.scale().get() * a.scale().get())
}

/// Y = A · Wᵀ exactly: `w` is [columns, K], `a` is [rows, K] (outer dimensions are flattened).
///
/// # Errors
/// K differs, or the result is too large.
pub fn matmul(w: &PackedTensor, a: &PackedTensor) -> Result<Product, MatmulError> {
    if w.k() != a.k() {
        return Err(MatmulError::ReductionMismatch {
            weights: w.k(),
            activations: a.k(),
        });
    }
    let (rows, columns) = (a.rows(), w.rows());
    let elements = rows
        .checked_mul(columns)
        .filter(|&elements| elements <= isize::MAX as usize / size_of::<Accumulator>())
        .ok_or(MatmulError::TooLarge { rows, columns })?;

    let (w_values, a_values) = (w.unscaled_values_f64(), a.unscaled_values_f64());
    let k = w.row_blocks() * BLOCK;
    if !f64_is_exact(&w_values, &a_values, k) {
        return Ok(matmul_integer(w, a));
    }
    let mut sums = vec![0f64; elements];
    gemm::multiply_transposed_parallel(&a_values, &w_values, k, &mut sums);
    if sums.iter().any(|sum| sum.is_nan()) {
        // What the accumulator holds beside a NaN is not in the FP64 sum.
        return Ok(matmul_integer(w, a));
    }
    let unit = exp2(-ACC_UNIT_EXPONENT);
    let accumulators = sums
        .into_iter()
        // At most 2⁵³ in magnitude.
        .map(|sum| Accumulator::of_value(((sum * unit) as i64).into()))
        .collect();
    Ok(Product {
        rows,
        columns,
        accumulators,
    })
}

/// As [`matmul`] for tensors of equal K, block pair by block pair in integers: the definition.
pub fn matmul_integer(w: &PackedTensor, a: &PackedTensor) -> Product {
    let w_blocks: Vec<Block> = w.blocks().collect();
    let a_blocks: Vec<Block> = a.blocks().collect();
    let accumulators = a_blocks
        .par_chunks(a.row_blocks())
        .flat_map_iter(|a_row| {
            w_blocks.chunks(w.row_blocks()).map(move |w_row| {
                let mut acc = Accumulator::new();
                for (w, a) in w_row.iter().zip(a_row) {
                    acc.add(w, a);
                }
                acc
            })
        })
        .collect();
    Product {
        rows: a.rows(),
        columns: w.rows(),
        accumulators,
    }
}

/// Whether every partial sum of every row pair fits the 53 bits of FP64 in units of 2⁻²⁰ (numerics §4).
///
/// NaN elements are left out: they make the sums NaN, which is what the flag says.
pub(crate) fn f64_is_exact(w: &[f64], a: &[f64], k: usize) -> bool {
    // The product of two magnitudes and k is far from rounding at this bound's precision.
    k as f64 * largest_magnitude(w) * largest_magnitude(a) <= exp2(53 + ACC_UNIT_EXPONENT)
}
