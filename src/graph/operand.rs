//! Operands of an operation, and what an operation may ask of one.

use crate::{
    Error, Result,
    tensor::{DType, Shape},
};

pub(super) type Operand<'a> = (DType, &'a Shape);

/// An error if there are not as many operands as names.
pub(super) fn check_count(op: &str, given: usize, names: &[&str]) -> Result<()> {
    if given == names.len() {
        return Ok(());
    }
    let (expected, names) = (names.len(), names.join(", "));
    Err(Error::op(op, format!("{given} operands were given, expected {expected} ({names})")))
}

pub(super) fn float<'a>(op: &str, operand: &str, (dtype, shape): Operand<'a>) -> Result<Operand<'a>> {
    if dtype.is_float() { Ok((dtype, shape)) } else { Err(Error::dtype(op, operand, dtype, "f32, f16 or bf16")) }
}

pub(super) fn same_dtype(op: &str, a: Operand<'_>, b: Operand<'_>) -> Result<()> {
    if a.0 == b.0 {
        return Ok(());
    }
    Err(Error::op(op, format!("`a` is {} {} and `b` is {} {}, expected the same dtype (cast one)", a.0, a.1, b.0, b.1)))
}

pub(super) fn broadcast(op: &str, a: &Shape, b: &Shape) -> Result<Shape> {
    a.broadcast(b)
        .ok_or_else(|| Error::op(op, format!("{a} and {b} do not broadcast (sizes are equal or 1, from the right)")))
}

pub(super) fn in_rank(op: &str, axis: usize, shape: &Shape) -> Result<()> {
    if axis < shape.rank() {
        return Ok(());
    }
    Err(Error::op(op, format!("axis {axis} is out of range for {shape} (rank {})", shape.rank())))
}
