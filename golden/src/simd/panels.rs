//! Products of rows with a matrix that is arranged once for the kernel.
//!
//! A matrix multiplication arranges both operands anew for each call, which for tens of rows costs more than the products. Each sum has the order and the fused operations of the one in
//! [`gemm`](crate::gemm): over k, begun anew every [`SUM`] terms. So its bits are the same, on processors that fuse multiplication and addition; on others [`Panels::are_exact`] says no.

use pulp::{Arch, Simd, WithSimd};

/// Outputs of a panel.
const WIDTH: usize = 32;

/// Terms of a sum before the next is begun: those of `matrixmultiply`.
const SUM: usize = 256;

/// A matrix in panels of [`WIDTH`] outputs, zeros behind its last: of each panel the outputs' first weights, then their second ones, and so on.
#[derive(Clone, Debug)]
pub(crate) struct Panels {
    outputs: usize,
    k: usize,
    data: Vec<f32>,
}

impl Panels {
    /// Arranges dense rows of `k` weights.
    pub(crate) fn new(weights: &[f32], k: usize) -> Self {
        let outputs = weights.len().checked_div(k).unwrap_or(0);
        let mut data = vec![0.0; outputs.next_multiple_of(WIDTH) * k];
        for (output, row) in weights.chunks_exact(k.max(1)).enumerate() {
            let panel = &mut data[output / WIDTH * WIDTH * k..];
            for (weights, &weight) in panel.chunks_exact_mut(WIDTH).zip(row) {
                weights[output % WIDTH] = weight;
            }
        }
        Self { outputs, k, data }
    }

    /// Whether products have the bits of the matrix multiplication on this processor.
    pub(crate) fn are_exact() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            std::arch::is_x86_feature_detected!("fma")
                && std::arch::is_x86_feature_detected!("avx2")
        }
        // Elsewhere the multiplication's kernels are others, and nothing was compared.
        #[cfg(not(target_arch = "x86_64"))]
        {
            false
        }
    }

    /// x · Wᵀ for dense rows of `k` elements.
    pub(crate) fn multiply(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len().checked_div(self.k).unwrap_or(0);
        let mut y = vec![0.0; rows * self.outputs];
        if !y.is_empty() {
            let task = Product {
                panels: self,
                x,
                y: &mut y,
            };
            Arch::new().dispatch(task);
        }
        y
    }
}

struct Product<'a> {
    panels: &'a Panels,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { panels, x, y } = self;
        // As many sums as registers hold, with a panel's weights and an element of x.
        match S::F32_LANES {
            16 => rows::<S, 8, 2>(simd, panels, x, y),
            8 => rows::<S, 3, 4>(simd, panels, x, y),
            4 => rows::<S, 2, 8>(simd, panels, x, y),
            _ => rows::<S, 1, WIDTH>(simd, panels, x, y),
        }
    }
}

/// `R` rows at a time, then what is left in powers of two, with `V` vectors of a panel.
#[inline(always)]
fn rows<S: Simd, const R: usize, const V: usize>(
    simd: S,
    panels: &Panels,
    x: &[f32],
    y: &mut [f32],
) {
    let Panels { outputs, k, data } = panels;
    for (number, panel) in data.chunks_exact(WIDTH * k).enumerate() {
        let first = number * WIDTH;
        let columns = WIDTH.min(outputs - first);
        let mut next = 0;
        let count = x.len() / k;
        // No closure: it would not inherit the processor's features, and nothing would be a register.
        while next < count {
            let left = count - next;
            let x = &x[next * k..];
            let y = &mut y[next * outputs + first..];
            next += if left >= R {
                tile::<S, R, V>(simd, panel, x, y, *outputs, columns);
                R
            } else if left >= 4 {
                tile::<S, 4, V>(simd, panel, x, y, *outputs, columns);
                4
            } else if left >= 2 {
                tile::<S, 2, V>(simd, panel, x, y, *outputs, columns);
                2
            } else {
                tile::<S, 1, V>(simd, panel, x, y, *outputs, columns);
                1
            };
        }
    }
}

/// The first `R` rows of x with a panel: `columns` elements of each of y's rows, which are `stride` apart.
#[inline(always)]
fn tile<S: Simd, const R: usize, const V: usize>(
    simd: S,
    panel: &[f32],
    x: &[f32],
    y: &mut [f32],
    stride: usize,
    columns: usize,
) {
    let k = panel.len() / WIDTH;
    let inputs: [&[f32]; R] = std::array::from_fn(|r| &x[r * k..(r + 1) * k]);
    let mut totals = [[simd.splat_f32s(0.0); V]; R];
    for from in (0..k).step_by(SUM) {
        let to = k.min(from + SUM);
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        let weights = S::as_simd_f32s(&panel[from * WIDTH..to * WIDTH]).0;
        for (place, weights) in weights.chunks_exact(V).enumerate() {
            for r in 0..R {
                let x = simd.splat_f32s(inputs[r][from + place]);
                for v in 0..V {
                    sums[r][v] = simd.mul_add_f32s(x, weights[v], sums[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                totals[r][v] = if from == 0 {
                    sums[r][v]
                } else {
                    simd.add_f32s(totals[r][v], sums[r][v])
                };
            }
        }
    }
    let mut row = [0f32; WIDTH];
    for r in 0..R {
        for (row, total) in S::as_mut_simd_f32s(&mut row).0.iter_mut().zip(totals[r]) {
            *row = total;
        }
        y[r * stride..][..columns].copy_from_slice(&row[..columns]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::{View, multiply_transposed};

    #[test]
    fn bits_are_those_of_the_matrix_multiplication() {
        let mut state = 1u64;
        let mut draw = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        assert!(Panels::are_exact() || cfg!(not(target_arch = "x86_64")));
        for (rows, outputs, k) in [
            (1, 1, 1),
            (1, 32, 192),
            (7, 33, 48),
            (8, 64, 256),
            (17, 192, 512),
            (25, 192, 704),
            (64, 512, 192),
            (3, 4096, 257),
        ] {
            let x: Vec<f32> = (0..rows * k).map(|_| draw()).collect();
            let w: Vec<f32> = (0..outputs * k).map(|_| draw()).collect();
            let mut expected = vec![0.0; rows * outputs];
            multiply_transposed(
                View::dense(&x, k),
                View::dense(&w, k),
                &mut expected,
                outputs,
            );
            let found = Panels::new(&w, k).multiply(&x);
            let same = found
                .iter()
                .zip(&expected)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{rows} {outputs} {k}");
        }
    }

    #[test]
    fn nothing_of_nothing() {
        assert!(Panels::new(&[], 0).multiply(&[]).is_empty());
        assert!(Panels::new(&[1.0], 1).multiply(&[]).is_empty());
    }
}
