//! Slices picked by index. Twins: `src/kernel/gather.rs`, `shaders/gather/`, `tests/device/gather.rs`.

use super::{Array, shapes::result_shape};
use crate::{DType, Result, graph::Op};

/// `data[…, indices, …]` along an axis. A negative index counts from the end; one out of range picks the nearest valid.
///
/// ```
/// use tilewise::reference::{Array, gather};
/// let y = gather(&Array::new([3], vec![10, 20, 30])?, &Array::new([3], vec![1, -1, 99])?, 0)?;
/// assert_eq!(y.data(), [20, 30, 30]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if there is no such axis, or nothing along it.
pub fn gather<T: Copy>(data: &Array<T>, indices: &Array<i32>, axis: usize) -> Result<Array<T>> {
    let operands = [(DType::F32, data.shape()), (DType::I32, indices.shape())];
    let shape = result_shape(&Op::Gather { axis }, &operands)?;
    let size = data.shape()[axis];
    let inner: usize = data.shape()[axis + 1..].iter().product();
    let mut picked = Vec::with_capacity(shape.iter().product());
    for outer in 0..data.shape()[..axis].iter().product() {
        for &index in indices.data() {
            let from_end = if index < 0 { size as i64 } else { 0 };
            let index = (i64::from(index) + from_end).clamp(0, size as i64 - 1) as usize;
            picked.extend_from_slice(&data.data()[(outer * size + index) * inner..][..inner]);
        }
    }
    Array::new(shape, picked)
}
