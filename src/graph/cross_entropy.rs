//! What a cross entropy takes and gives.

use super::{
    ValueId,
    operand::{Operand, float},
};
use crate::{
    Error, Result,
    tensor::{DType, Shape},
};

/// The options of [`Graph::cross_entropy`](super::Graph::cross_entropy).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CrossEntropyArgs {
    /// f32 `[C]`: a factor for each class.
    pub weight: Option<ValueId>,
    /// A target that counts for nothing; PyTorch's is −100 if nothing else is said.
    pub ignore: Option<i32>,
    /// ε, from 0 to 1: how much of the target's probability is shared out evenly among all classes.
    pub smoothing: f32,
}

/// The values that [`Op::CrossEntropy`](super::Op::CrossEntropy) computes, a number for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossEntropyResults {
    /// f32 `[…]`: the loss.
    pub loss: ValueId,
    /// f32 `[…]`: the log-sum-exp of the logits.
    pub lse: ValueId,
    /// f32 `[…]`: the weight of the target's class, 0 where the row is ignored. The weighted mean is the sum of the losses
    /// over the sum of these.
    pub weight: ValueId,
}

/// The dtypes and shapes of the results.
pub(super) fn infer(operands: &[Operand<'_>], smoothing: f32) -> Result<Vec<(DType, Shape)>> {
    const OP: &str = "cross_entropy";
    let ((_, logits), (target_type, targets)) = (float(OP, "logits", operands[0])?, operands[1]);
    let Some((&classes, rows)) = logits.split_last() else {
        return Err(Error::shape(OP, "logits", logits, "at least one axis, of the classes"));
    };
    if target_type != DType::I32 {
        return Err(Error::dtype(OP, "targets", target_type, "i32"));
    }
    let rows = Shape::from(rows);
    if *targets != rows {
        return Err(Error::shape(OP, "targets", targets, format!("{rows}, a class for each row of `logits` {logits}")));
    }
    if let Some(&(weight_type, weight)) = operands.get(2) {
        if weight_type != DType::F32 {
            return Err(Error::dtype(OP, "weight", weight_type, "f32"));
        }
        if *weight != Shape::from([classes]) {
            return Err(Error::shape(OP, "weight", weight, format!("[{classes}], a factor for each class")));
        }
    }
    if !(0.0..=1.0).contains(&smoothing) {
        return Err(Error::op(OP, format!("the smoothing is {smoothing}, expected a number from 0 to 1")));
    }
    Ok(vec![(DType::F32, rows); 3])
}
