//! The one place that calls the matrix multiplication crates.
//!
//! FP64 products are exact (numerics §4), so that any order of the sums will do, and the faster crate does them: `gemm`.
//! In FP32 the order shows. There `matrixmultiply` sums each element of the result in an order that doesn't depend on the number of rows,
//! so that a token's results are the same in a window as by itself.

use rayon::prelude::*;

/// A row-major matrix view: `rows` × `columns` elements, rows `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a, T> View<'a, T> {
    /// A view of dense rows. Rows that `data` doesn't wholly hold are cut off.
    pub(crate) fn dense(data: &'a [T], columns: usize) -> Self {
        Self::strided(
            data,
            data.len().checked_div(columns).unwrap_or(0),
            columns,
            columns,
        )
    }

    /// A view of rows `stride` apart, the first at the start of `data`. Rows that `data` doesn't wholly hold are cut off.
    pub(crate) fn strided(data: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        let held = if data.len() < columns || stride < columns || columns == 0 {
            0
        } else {
            (data.len() - columns) / stride.max(1) + 1
        };
        Self {
            data,
            rows: rows.min(held),
            columns,
            stride,
        }
    }
}

impl<T> View<'_, T> {
    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }
}

/// Element types with a GEMM kernel.
pub(crate) trait Scalar: Copy + Default + Send + Sync {
    /// c = a · b; `rs…` and `cs…` are the distances of rows and of columns, c's columns lie side by side.
    ///
    /// # Safety
    /// As the crates' functions: pointers and strides describe memory inside allocations, C is not aliased.
    #[allow(unsafe_code, clippy::too_many_arguments)]
    unsafe fn gemm(
        m: usize,
        k: usize,
        n: usize,
        a: *const Self,
        rsa: isize,
        csa: isize,
        b: *const Self,
        rsb: isize,
        csb: isize,
        c: *mut Self,
        rsc: isize,
    );
}

impl Scalar for f32 {
    #[allow(unsafe_code)]
    unsafe fn gemm(
        m: usize,
        k: usize,
        n: usize,
        a: *const Self,
        rsa: isize,
        csa: isize,
        b: *const Self,
        rsb: isize,
        csb: isize,
        c: *mut Self,
        rsc: isize,
    ) {
        // SAFETY: the caller's promise. With beta = 0, C is written without being read.
        unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, rsa, csa, b, rsb, csb, 0.0, c, rsc, 1) }
    }
}

impl Scalar for f64 {
    #[allow(unsafe_code)]
    unsafe fn gemm(
        m: usize,
        k: usize,
        n: usize,
        a: *const Self,
        rsa: isize,
        csa: isize,
        b: *const Self,
        rsb: isize,
        csb: isize,
        c: *mut Self,
        rsc: isize,
    ) {
        let (read_c, conjugate) = (false, false);
        let alone = gemm::Parallelism::None;
        // SAFETY: the caller's promise. C is written without being read.
        unsafe {
            gemm::gemm(
                m, n, k, c, 1, rsc, read_c, a, csa, rsa, b, csb, rsb, 0.0, 1.0, conjugate,
                conjugate, conjugate, alone,
            );
        }
    }
}

/// c = a · bᵀ: c\[i\]\[j\] = Σ a\[i\]\[k\] b\[j\]\[k\], c's rows `stride` apart.
///
/// Shapes that don't fit leave `c` as it is; callers have checked theirs.
pub(crate) fn multiply_transposed<T: Scalar>(a: View<T>, b: View<T>, c: &mut [T], stride: usize) {
    multiply(a, b.rows, b.columns, b, 1, b.stride, c, stride);
}

/// c = a · b: c\[i\]\[j\] = Σ a\[i\]\[k\] b\[k\]\[j\], c's rows `stride` apart.
///
/// Shapes that don't fit leave `c` as it is; callers have checked theirs.
pub(crate) fn multiply_plain<T: Scalar>(a: View<T>, b: View<T>, c: &mut [T], stride: usize) {
    multiply(a, b.columns, b.rows, b, b.stride, 1, c, stride);
}

#[allow(unsafe_code, clippy::too_many_arguments)]
fn multiply<T: Scalar>(
    a: View<T>,
    n: usize,
    k: usize,
    b: View<T>,
    row_stride_b: usize,
    column_stride_b: usize,
    c: &mut [T],
    stride: usize,
) {
    let m = a.rows;
    let fits = a.columns == k && m > 0 && n > 0 && stride >= n && c.len() >= (m - 1) * stride + n;
    debug_assert!(
        fits,
        "GEMM shapes: {m}×{} by {k}×{n} into {}",
        a.columns,
        c.len()
    );
    if !fits {
        return;
    }
    // SAFETY: a view's rows all lie inside its slice (`View::strided` cuts off those that don't), m and k
    // are those of the views and n fits c, which was checked above; c is borrowed mutably, hence no alias.
    unsafe {
        T::gemm(
            m,
            k,
            n,
            a.data.as_ptr(),
            a.stride as isize,
            1,
            b.data.as_ptr(),
            row_stride_b as isize,
            column_stride_b as isize,
            c.as_mut_ptr(),
            stride as isize,
        );
    }
}

/// As [`multiply_transposed`] into dense rows, with the rows of `a` dealt out to threads.
///
/// A part for each thread, as each part copies `b` into the kernel's order anew.
pub(crate) fn multiply_transposed_parallel<T: Scalar>(a: &[T], b: &[T], k: usize, c: &mut [T]) {
    const ROWS: usize = 64;
    let b = View::dense(b, k);
    let n = b.rows;
    if n == 0 || k == 0 {
        return;
    }
    let rows = (a.len() / k).div_ceil(rayon::current_num_threads());
    let part = rows.next_multiple_of(ROWS);
    a.par_chunks(part * k)
        .zip(c.par_chunks_mut(part * n))
        .for_each(|(a, c)| {
            multiply_transposed(View::dense(a, k), b, c, n);
        });
}
