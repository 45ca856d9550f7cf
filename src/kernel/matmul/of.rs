//! A product of a graph, with what is fused into it, as a problem.

use super::{Epilogue, MatmulDTypes, MatmulProblem};
use crate::{DType, Layout, Result, graph::Unary, kernel::Operands, quantize::Packing};

/// A product of whatever operands, and its epilogue `activation(scale · product + bias) + residual`.
///
/// Inputs: a, b, \[bias\], \[residual\]. With a packing, b is in few bits: its words, scale and \[zero points\] stand in its
/// place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) transpose_a: bool,
    pub(crate) transpose_b: bool,
    pub(crate) packing: Option<Packing>,
    pub(crate) scale: Option<f32>,
    pub(crate) bias: bool,
    pub(crate) activation: Option<Unary>,
    pub(crate) residual: bool,
}

impl Product {
    /// Of a and b, without an epilogue.
    pub(crate) fn new(transpose_a: bool, transpose_b: bool) -> Self {
        let (packing, scale, activation) = (None, None, None);
        Product { transpose_a, transpose_b, packing, scale, bias: false, activation, residual: false }
    }
}

impl MatmulProblem {
    pub(crate) fn of(product: Product, operands: &mut Operands) -> Result<Self> {
        let Product { transpose_a, transpose_b, packing, scale, bias, activation, residual } = product;
        let a = operands.layout(0);
        let (b, stored_b, mut next) = match packing {
            None => (operands.layout(1), operands.dtype(1), 2),
            Some(packing) => {
                let whole = Layout::contiguous([operands.shape(1)[0], packing.columns]);
                (whole, DType::F32, 3 + usize::from(packing.zero))
            }
        };
        // The axes that the product of a vector lacks.
        let (rows, columns) = (a.shape.rank() > 1, b.shape.rank() > 1);
        let out = operands.out_shape().clone();
        let mut other = |given: bool| {
            let input = given.then_some(next)?;
            next += 1;
            let mut layout = operands.layout(input).broadcast(&out);
            if !columns {
                layout = with_axis(&layout, layout.shape.rank());
            }
            if !rows {
                layout = with_axis(&layout, layout.shape.rank() - 1);
            }
            Some((layout, operands.dtype(input)))
        };
        let (bias, residual) = (other(bias), other(residual));
        let stored = |operand: &Option<(Layout, DType)>| operand.as_ref().map_or(DType::F32, |&(_, dtype)| dtype);
        let dtypes = MatmulDTypes {
            a: operands.dtype(0),
            b: stored_b,
            bias: stored(&bias),
            residual: stored(&residual),
            out: operands.out_dtype(0),
        };
        let a = if rows { matrix(&a, transpose_a) } else { with_axis(&a, 0) };
        let b = if columns { matrix(&b, transpose_b) } else { with_axis(&b, 1) };
        let [bias, residual] = [bias, residual].map(|operand| operand.map(|(layout, _)| layout));
        let problem = MatmulProblem::new(&a, &b, Epilogue { scale, bias, activation, residual })?.stored_as(dtypes)?;
        match packing {
            None => Ok(problem),
            Some(packing) => problem.quantized(packing, operands.dtype(2)),
        }
    }
}

/// A matrix as the product reads it.
fn matrix(layout: &Layout, transposed: bool) -> Layout {
    let mut order: Vec<usize> = (0..layout.shape.rank()).collect();
    if transposed {
        order.swap(layout.shape.rank() - 2, layout.shape.rank() - 1);
    }
    layout.permute(&order)
}

/// A layout with a further axis of size 1.
fn with_axis(layout: &Layout, axis: usize) -> Layout {
    let Layout { shape, mut strides, offset } = layout.clone();
    let mut sizes = shape.to_vec();
    sizes.insert(axis, 1);
    strides.insert(axis, 0);
    Layout { shape: sizes.into(), strides, offset }
}
