//! Sums by index. Twins: `src/kernel/scatter_add.rs`, `shaders/scatter_add/`, `tests/device/scatter_add.rs`.

use super::{Array, Real, shapes::result_shape};
use crate::{DType, Result, graph::Op};

/// `y[…, n, …] = Σ updates[…, i, …]` over the i whose index is n, along an axis of this size. A negative index counts from the
/// end; one out of range picks the nearest valid.
///
/// ```
/// use tilewise::reference::{Array, scatter_add};
/// let updates = Array::new([4], vec![1.0, 2.0, 4.0, 8.0])?;
/// let y = scatter_add::<f64>(&updates, &Array::new([4], vec![2, 0, 2, -1])?, 0, 3)?;
/// assert_eq!(y.data(), [2.0, 0.0, 13.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if the updates don't have the shape of the indices from the axis on, or if the size is 0 and
/// there are indices.
pub fn scatter_add<R: Real>(updates: &Array<R>, indices: &Array<i32>, axis: usize, size: usize) -> Result<Array<R>> {
    let operands = [(DType::F32, updates.shape()), (DType::I32, indices.shape())];
    let shape = result_shape(&Op::ScatterAdd { axis, size }, &operands)?;
    let outer: usize = updates.shape()[..axis].iter().product();
    let inner: usize = updates.shape()[axis + indices.shape().rank()..].iter().product();
    let mut sums = vec![R::ZERO; shape.iter().product()];
    for b in 0..outer {
        for (i, &index) in indices.data().iter().enumerate() {
            let from_end = if index < 0 { size as i64 } else { 0 };
            let n = (i64::from(index) + from_end).clamp(0, size as i64 - 1) as usize;
            for a in 0..inner {
                sums[(b * size + n) * inner + a] += updates.data()[(b * indices.data().len() + i) * inner + a];
            }
        }
    }
    Array::new(shape, sums)
}
