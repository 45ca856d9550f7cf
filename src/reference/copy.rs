//! Moving elements without changing them. Twins: `src/kernel/copy/`, `shaders/copy/`,
//! `tests/device/copy.rs`.

use super::{
    Array,
    shapes::result_shape,
    value::{steps, walk},
};
use crate::{DType, Result, Shape, graph::Op};

/// The same elements in the same order under another shape.
///
/// ```
/// use tilewise::reference::{Array, reshape};
/// let y = reshape(&Array::new([4], vec![1, 2, 3, 4])?, &[2, 2].into())?;
/// assert_eq!(y, Array::new([2, 2], vec![1, 2, 3, 4])?);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if the new shape has another number of elements.
pub fn reshape<T: Copy>(x: &Array<T>, shape: &Shape) -> Result<Array<T>> {
    let shape = result_shape(&Op::Reshape { shape: shape.clone() }, &[(DType::F32, x.shape())])?;
    Array::new(shape, x.data().to_vec())
}

/// Axes in another order: axis `i` of the result is axis `order[i]` of `x`.
///
/// ```
/// use tilewise::reference::{Array, permute};
/// let y = permute(&Array::new([2, 3], vec![1, 2, 3, 4, 5, 6])?, &[1, 0])?;
/// assert_eq!(y.data(), [1, 4, 2, 5, 3, 6]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if `order` is no permutation of the axes of `x`.
pub fn permute<T: Copy>(x: &Array<T>, order: &[usize]) -> Result<Array<T>> {
    let shape = result_shape(&Op::Permute { order: order.to_vec() }, &[(DType::F32, x.shape())])?;
    let step = steps(x.shape());
    let turned: Vec<isize> = order.iter().map(|&axis| step[axis]).collect();
    Ok(x.pick(&walk(0, &shape, &turned), shape))
}

/// From each axis `sizes[i]` elements, the first at `starts[i]` and each `strides[i]` after the one before.
///
/// ```
/// use tilewise::reference::{Array, slice};
/// let y = slice(&Array::new([5], vec![0, 1, 2, 3, 4])?, &[4], &[3], &[-2])?;
/// assert_eq!(y.data(), [4, 2, 0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if there is not a number for each axis, if a stride is 0, or if an element lies
/// outside.
pub fn slice<T: Copy>(x: &Array<T>, starts: &[usize], sizes: &[usize], strides: &[isize]) -> Result<Array<T>> {
    let op = Op::Slice { starts: starts.to_vec(), sizes: sizes.to_vec(), steps: strides.to_vec() };
    let shape = result_shape(&op, &[(DType::F32, x.shape())])?;
    if shape.contains(&0) {
        return Array::new(shape, Vec::new());
    }
    let step = steps(x.shape());
    let first = starts.iter().zip(&step).map(|(&start, step)| start as isize * step).sum();
    // From a single element there is no next one, however far it would be.
    let strided = strides.iter().zip(&step).zip(shape.iter());
    let strided: Vec<isize> = strided.map(|((stride, step), &size)| if size > 1 { stride * step } else { 0 }).collect();
    Ok(x.pick(&walk(first, &shape, &strided), shape))
}

/// Operands end to end along an axis.
///
/// ```
/// use tilewise::reference::{Array, concat};
/// let y = concat(&[&Array::new([1, 2], vec![1, 2])?, &Array::new([1, 1], vec![3])?], 1)?;
/// assert_eq!(y, Array::new([1, 3], vec![1, 2, 3])?);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if there are no operands, if there is no such axis, or if other axes differ.
pub fn concat<T: Copy>(operands: &[&Array<T>], axis: usize) -> Result<Array<T>> {
    let shapes: Vec<_> = operands.iter().map(|x| (DType::F32, x.shape())).collect();
    let shape = result_shape(&Op::Concat { axis }, &shapes)?;
    let mut data = Vec::with_capacity(shape.iter().product());
    for outer in 0..shape[..axis].iter().product() {
        for x in operands {
            let block: usize = x.shape()[axis..].iter().product();
            data.extend_from_slice(&x.data()[outer * block..][..block]);
        }
    }
    Array::new(shape, data)
}

/// `x` stretched to a shape by NumPy's rule.
///
/// ```
/// use tilewise::reference::{Array, broadcast};
/// let y = broadcast(&Array::new([2, 1], vec![1, 2])?, &[2, 3].into())?;
/// assert_eq!(y.data(), [1, 1, 1, 2, 2, 2]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if `x` does not broadcast to the shape.
pub fn broadcast<T: Copy>(x: &Array<T>, shape: &Shape) -> Result<Array<T>> {
    Ok(x.stretched(&result_shape(&Op::Broadcast { shape: shape.clone() }, &[(DType::F32, x.shape())])?))
}

/// A frame of one value around `x`: `before[i]` and `after[i]` elements for axis `i`.
///
/// ```
/// use tilewise::reference::{Array, pad};
/// let y = pad(&Array::new([2], vec![1, 2])?, &[1], &[2], 0)?;
/// assert_eq!(y.data(), [0, 1, 2, 0, 0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if there is not a number for each axis, or if a size overflows.
pub fn pad<T: Copy>(x: &Array<T>, before: &[usize], after: &[usize], value: T) -> Result<Array<T>> {
    let op = Op::Pad { before: before.to_vec(), after: after.to_vec(), value: 0.0 };
    let shape = result_shape(&op, &[(DType::F32, x.shape())])?;
    let step = steps(&shape);
    let first = before.iter().zip(&step).map(|(&before, step)| before as isize * step).sum();
    let mut data = vec![value; shape.iter().product()];
    for (place, &x) in walk(first, x.shape(), &step).into_iter().zip(x.data()) {
        data[place] = x;
    }
    Array::new(shape, data)
}
