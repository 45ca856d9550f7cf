//! Moving elements without changing them. Twins: `src/kernel/copy.rs`, `shaders/{copy,concat,pad}*.wgsl`,
//! `tests/copy.rs`.

use super::{
    Array,
    shapes::result_shape,
    value::{steps, walk},
};
use crate::{DType, Result, Shape, graph::Op};

/// The same elements in the same order under another shape.
pub fn reshape<T: Copy>(x: &Array<T>, shape: &Shape) -> Result<Array<T>> {
    let shape = result_shape(&Op::Reshape { shape: shape.clone() }, &[(DType::F32, x.shape())])?;
    Array::new(shape, x.data().to_vec())
}

/// Axes in another order: axis `i` of the result is axis `order[i]` of `x`.
pub fn permute<T: Copy>(x: &Array<T>, order: &[usize]) -> Result<Array<T>> {
    let shape = result_shape(&Op::Permute { order: order.to_vec() }, &[(DType::F32, x.shape())])?;
    let step = steps(x.shape());
    let turned: Vec<isize> = order.iter().map(|&axis| step[axis]).collect();
    Ok(x.pick(&walk(0, &shape, &turned), shape))
}

/// From each axis `sizes[i]` elements, the first at `starts[i]` and each `strides[i]` after the one before.
pub fn slice<T: Copy>(x: &Array<T>, starts: &[usize], sizes: &[usize], strides: &[isize]) -> Result<Array<T>> {
    let op = Op::Slice { starts: starts.to_vec(), sizes: sizes.to_vec(), steps: strides.to_vec() };
    let shape = result_shape(&op, &[(DType::F32, x.shape())])?;
    let step = steps(x.shape());
    let first = starts.iter().zip(&step).map(|(&start, step)| start as isize * step).sum();
    let strided: Vec<isize> = strides.iter().zip(&step).map(|(stride, step)| stride * step).collect();
    Ok(x.pick(&walk(first, &shape, &strided), shape))
}

/// Operands end to end along an axis.
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
pub fn broadcast<T: Copy>(x: &Array<T>, shape: &Shape) -> Result<Array<T>> {
    Ok(x.stretched(&result_shape(&Op::Broadcast { shape: shape.clone() }, &[(DType::F32, x.shape())])?))
}

/// A frame of one value around `x`.
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
