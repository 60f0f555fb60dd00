//! Products of a few rows with a matrix that is read once for all of them.
//!
//! Decoding multiplies one to a handful of rows. A matrix multiplication arranges the larger operand anew for each call, which then costs more than the product itself. In one thread: a product is over before a second thread would have woken.

use pulp::{Arch, Simd, WithSimd};

/// Most rows that go through the matrix together, and rows of the matrix at a time: their sums fit the registers, and there are enough of them that none waits for the one before.
const ROWS: usize = 3;
/// See [`ROWS`].
const OUTPUTS: usize = 4;

/// c\[i\]\[j\] = Σ a\[i\]\[k\] b\[j\]\[k\] for dense rows of `k` elements, exact if every partial sum fits FP64: the order of the sums is open.
///
/// Elements beyond whole rows are left out.
pub(crate) fn multiply(a: &[f64], b: &[f32], k: usize, c: &mut [f64]) {
    let rows = a.len().checked_div(k).unwrap_or(0);
    let outputs = b.len().checked_div(k).unwrap_or(0);
    if rows == 0 || outputs == 0 || c.len() < rows * outputs {
        return;
    }
    let mut transposed = vec![0.0; rows * outputs];
    Arch::new().dispatch(Columns {
        a,
        b,
        k,
        rows,
        c: &mut transposed,
    });
    for (j, column) in transposed.chunks_exact(rows).enumerate() {
        for (i, sum) in column.iter().enumerate() {
            c[i * outputs + j] = *sum;
        }
    }
}

/// The columns of c one after the other, that is c transposed.
struct Columns<'a> {
    a: &'a [f64],
    b: &'a [f32],
    k: usize,
    rows: usize,
    c: &'a mut [f64],
}

impl WithSimd for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, k, rows, c } = self;
        // Rows of the matrix are widened once for all rows of a, and stay in the first cache meanwhile.
        let mut wide = vec![0.0; OUTPUTS * k];
        for (weights, columns) in b.chunks(OUTPUTS * k).zip(c.chunks_mut(OUTPUTS * rows)) {
            for (wide, weight) in wide.iter_mut().zip(weights) {
                *wide = f64::from(*weight);
            }
            let whole = weights.len() == OUTPUTS * k;
            for first in (0..rows).step_by(ROWS) {
                let a = &a[first * k..];
                let count = (rows - first).min(ROWS);
                let mut put = |output: usize, row: usize, sum: f64| {
                    columns[output * rows + first + row] = sum;
                };
                match (whole, count) {
                    (true, 1) => tile::<S, 1, OUTPUTS>(simd, a, &wide, k, &mut put),
                    (true, 2) => tile::<S, 2, OUTPUTS>(simd, a, &wide, k, &mut put),
                    (true, _) => tile::<S, ROWS, OUTPUTS>(simd, a, &wide, k, &mut put),
                    (false, _) => {
                        for (output, wide) in wide[..weights.len()].chunks_exact(k).enumerate() {
                            for row in 0..count {
                                let mut put = |_, _, sum| put(output, row, sum);
                                tile::<S, 1, 1>(simd, &a[row * k..], wide, k, &mut put);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Dot products of the first `R` rows of a with the first `J` of b. Whether products are fused with sums shows in no bit, since both are exact.
#[inline(always)]
fn tile<S: Simd, const R: usize, const J: usize>(
    simd: S,
    a: &[f64],
    b: &[f64],
    k: usize,
    put: &mut impl FnMut(usize, usize, f64),
) {
    let rows: [&[f64]; R] = std::array::from_fn(|r| &a[r * k..(r + 1) * k]);
    let outputs: [&[f64]; J] = std::array::from_fn(|j| &b[j * k..(j + 1) * k]);
    let vectors = k / S::F64_LANES;
    let x = rows.map(|row| &S::as_simd_f64s(row).0[..vectors]);
    let w = outputs.map(|row| &S::as_simd_f64s(row).0[..vectors]);
    let mut sums = [[simd.splat_f64s(0.0); R]; J];
    for i in 0..vectors {
        let x: [S::f64s; R] = std::array::from_fn(|r| x[r][i]);
        for j in 0..J {
            let w = w[j][i];
            for r in 0..R {
                sums[j][r] = simd.mul_add_e_f64s(w, x[r], sums[j][r]);
            }
        }
    }
    let done = vectors * S::F64_LANES;
    for (j, sums) in sums.iter().enumerate() {
        for (r, sum) in sums.iter().enumerate() {
            let rest = rows[r][done..].iter().zip(&outputs[j][done..]);
            let rest: f64 = rest.map(|(x, w)| x * w).sum();
            put(j, r, simd.reduce_sum_f64s(*sum) + rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_definition() {
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 40) as i32 % 449 - 224
        };
        for (rows, outputs, k) in [
            (1, 1, 8),
            (3, 7, 16),
            (4, 2, 256),
            (5, 33, 64),
            (9, 600, 256),
        ] {
            let a: Vec<f64> = (0..rows * k).map(|_| f64::from(draw()) / 512.0).collect();
            let b: Vec<f32> = (0..outputs * k).map(|_| draw() as f32 / 512.0).collect();
            let mut c = vec![f64::NAN; rows * outputs];
            multiply(&a, &b, k, &mut c);
            for (i, row) in a.chunks_exact(k).enumerate() {
                for (j, weights) in b.chunks_exact(k).enumerate() {
                    let terms = row.iter().zip(weights).map(|(x, w)| x * f64::from(*w));
                    assert_eq!(
                        c[i * outputs + j],
                        terms.sum::<f64>(),
                        "{rows} {outputs} {k}"
                    );
                }
            }
        }
    }

    #[test]
    fn nan_reaches_its_own_results_alone() {
        let mut a = vec![1.0; 32];
        a[17] = f64::NAN;
        let b = vec![1.0f32; 48];
        let mut c = vec![0.0; 6];
        multiply(&a, &b, 16, &mut c);
        assert_eq!(c[..3], [16.0; 3]);
        assert!(c[3..].iter().all(|c| c.is_nan()));
    }
}
