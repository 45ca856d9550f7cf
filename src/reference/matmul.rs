//! Matrix product. Twins: `src/kernel/matmul/`, `shaders/matmul/`, `tests/device/matmul/`.

use super::{Array, Real, shapes::result_shape, value::stretch};
use crate::{DType, Result, Shape, graph::Op};

/// `c[…, i, j] = Σ_k a[…, i, k] · b[…, k, j]`, k ascending; leading axes broadcast. See [`Op::Matmul`].
///
/// ```
/// use tilewise::reference::{Array, matmul};
/// let a = Array::new([2, 2], vec![1.0, 2.0, 3.0, 4.0])?;
/// let b = Array::new([1, 2], vec![5.0, 6.0])?;
/// assert_eq!(matmul::<f64>(&a, &b, false, true)?.data(), [17.0, 39.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if a rank is too low, if inner sizes differ, or if leading axes don't broadcast.
pub fn matmul<R: Real>(a: &Array<R>, b: &Array<R>, transpose_a: bool, transpose_b: bool) -> Result<Array<R>> {
    let op = Op::Matmul { transpose_a, transpose_b };
    let shape = result_shape(&op, &[(DType::F32, a.shape()), (DType::F32, b.shape())])?;
    // A vector is a row on the left and a column on the right.
    let (a_shape, b_shape) = (matrix(a.shape(), [1, a.data().len()]), matrix(b.shape(), [b.data().len(), 1]));
    let (a_data, [m, k]) = rows(a.data(), &a_shape, transpose_a);
    let (b_data, [_, n]) = rows(b.data(), &b_shape, transpose_b);
    let (a_batch, b_batch) = (&a_shape[..a_shape.rank() - 2], &b_shape[..b_shape.rank() - 2]);
    let batch = Shape::from(a_batch).broadcast(&b_batch.into()).unwrap_or_default();

    let mut c = Vec::with_capacity(batch.iter().product::<usize>() * m * n);
    for (a_item, b_item) in stretch(a_batch, &batch).into_iter().zip(stretch(b_batch, &batch)) {
        let a_item = &a_data[a_item * m * k..][..m * k];
        let b_item = &b_data[b_item * k * n..][..k * n];
        for i in 0..m {
            let mut row = vec![R::ZERO; n];
            for (l, &a) in a_item[i * k..][..k].iter().enumerate() {
                for (c, &b) in row.iter_mut().zip(&b_item[l * n..][..n]) {
                    *c += a * b;
                }
            }
            c.extend(row);
        }
    }
    Array::new(shape, c)
}

fn matrix(shape: &Shape, vector: [usize; 2]) -> Shape {
    if shape.rank() == 1 { vector.into() } else { shape.clone() }
}

/// The matrices of a stack, row by row, and their size; swaps rows and columns if asked to.
fn rows<R: Real>(data: &[R], shape: &[usize], transposed: bool) -> (Vec<R>, [usize; 2]) {
    let (m, n) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    if !transposed {
        return (data.to_vec(), [m, n]);
    }
    let mut turned = Vec::with_capacity(data.len());
    for item in data.chunks_exact((m * n).max(1)) {
        for j in 0..n {
            turned.extend((0..m).map(|i| item[i * n + j]));
        }
    }
    (turned, [n, m])
}
