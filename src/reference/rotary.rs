//! Rotary position embedding. Twins: `src/kernel/rotary.rs`, `shaders/rotary/`, `tests/device/rotary.rs`.

use super::{Array, Real, shapes::result_shape};
use crate::{DType, Result, graph::Op};

/// `x [B, H, T, D]` with the first R features of each row turned pairwise by the angles of its position, whose cosines
/// and sines are in tables `[P, R/2]`. See [`Op::Rotary`].
///
/// ```
/// use tilewise::reference::{Array, rotary};
/// let x = Array::new([1, 1, 1, 2], vec![3.0, 0.0])?;
/// let [cos, sin] = [Array::new([2, 1], vec![1.0, 0.0])?, Array::new([2, 1], vec![0.0, 1.0])?];
/// let y = rotary::<f64>(&x, [&cos, &sin], &Array::new([1, 1], vec![1])?, false)?;
/// assert_eq!(y.data(), [0.0, 3.0]); // a quarter turn
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if the shapes are others than these, R is over D, or the positions are not `[B, T]`.
pub fn rotary<R: Real>(
    x: &Array<R>,
    [cos, sin]: [&Array<R>; 2],
    positions: &Array<i32>,
    interleaved: bool,
) -> Result<Array<R>> {
    let operands = [(DType::F32, x.shape()), (DType::F32, cos.shape()), (DType::F32, sin.shape())];
    let operands = [&operands[..], &[(DType::I32, positions.shape())]].concat();
    let shape = result_shape(&Op::Rotary { interleaved }, &operands)?;
    let (heads, tokens, width) = (x.shape()[1], x.shape()[2], x.shape()[3]);
    let (rows, pairs) = (cos.shape()[0], cos.shape()[1]);
    let mut y = x.data().to_vec();
    for (row, y) in y.chunks_mut(width.max(1)).enumerate() {
        let (item, token) = (row / (heads * tokens), row % tokens);
        let position = positions.data()[item * tokens + token];
        let angle = i64::from(position).clamp(0, rows as i64 - 1) as usize * pairs;
        for i in 0..pairs {
            let (first, second) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
            let (a, b) = (y[first], y[second]);
            let (cos, sin) = (cos.data()[angle + i], sin.data()[angle + i]);
            y[first] = a * cos - b * sin;
            y[second] = b * cos + a * sin;
        }
    }
    Array::new(shape, y)
}
