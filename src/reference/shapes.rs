use crate::{
    DType, Error, Result, Shape,
    graph::{Op, infer},
};

/// The shapes of an operation's results, whose number the caller knows.
pub(super) fn result_shapes<const N: usize>(op: &Op, operands: &[(DType, &Shape)]) -> Result<[Shape; N]> {
    let shapes: Vec<Shape> = infer(op, operands)?.into_iter().map(|(_, shape)| shape).collect();
    shapes.try_into().map_err(|shapes: Vec<Shape>| Error::op(op.name(), format!("{} results, not {N}", shapes.len())))
}

/// The shape of an operation's only result.
pub(super) fn result_shape(op: &Op, operands: &[(DType, &Shape)]) -> Result<Shape> {
    result_shapes(op, operands).map(|[shape]| shape)
}
