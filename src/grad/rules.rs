//! Which rule an operation has.

use super::{
    append, attention, attention_merge, cross_entropy, dropout, gather, matmul, norm, pointwise, reduce, rotary, shape,
    softmax, step::Step,
};
use crate::{Result, ValueId, graph::Op};

impl Step<'_> {
    /// The gradients of the operands for which one is asked: operand, gradient.
    pub(super) fn operands(mut self) -> Result<Vec<(ValueId, ValueId)>> {
        if !self.wanted.contains(&true) {
            return Ok(Vec::new());
        }
        match self.op.clone() {
            Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } => {}
            Op::Matmul { transpose_a, transpose_b } => matmul::matmul(&mut self, transpose_a, transpose_b)?,
            Op::Attention(op) => attention::attention(&mut self, &op)?,
            Op::AttentionGrad(_) => return Err(self.refused("gradients of its gradient are not built")),
            Op::LayerNorm { axes, weight, bias, epsilon: _ } => norm::layer_norm(&mut self, axes, weight, bias)?,
            Op::RmsNorm { axes, weight, epsilon: _ } => norm::rms_norm(&mut self, axes, weight)?,
            Op::Softmax { axis } => softmax::softmax(&mut self, axis)?,
            Op::LogSoftmax { axis } => softmax::log_softmax(&mut self, axis)?,
            Op::CrossEntropy { ignore, smoothing, weight } => {
                cross_entropy::cross_entropy(&mut self, ignore, smoothing, weight)?;
            }
            Op::Unary { function } => pointwise::unary(&mut self, function)?,
            Op::Binary { function } => pointwise::binary(&mut self, function)?,
            Op::Where => pointwise::choose(&mut self)?,
            Op::Cast { .. } => pointwise::cast(&mut self)?,
            Op::Dropout { p, stream } => dropout::dropout(&mut self, p, stream)?,
            Op::Reduce { function, axes, keep: _ } => reduce::reduce(&mut self, function, &axes)?,
            // An index doesn't change by degrees.
            Op::Argmax { .. } => {}
            Op::Reshape { .. } => shape::reshape(&mut self)?,
            Op::Permute { order } => shape::permute(&mut self, &order)?,
            Op::Slice { starts, sizes, steps } => shape::slice(&mut self, &starts, &sizes, &steps)?,
            Op::Concat { axis } => shape::concat(&mut self, axis)?,
            Op::Broadcast { .. } => shape::broadcast(&mut self)?,
            Op::Pad { before, .. } => shape::pad(&mut self, &before)?,
            Op::Gather { axis } => gather::gather(&mut self, axis)?,
            Op::ScatterAdd { axis, .. } => gather::scatter_add(&mut self, axis)?,
            Op::Dequantize(_) => return Err(self.refused("a quantised weight is not trained")),
            Op::Rotary { interleaved } => rotary::rotary(&mut self, interleaved)?,
            Op::Append { axis, circular } => append::append(&mut self, axis, circular)?,
            Op::AppendPaged => return Err(self.refused("pages are for generating")),
            Op::AttentionMerge => attention_merge::attention_merge(&mut self)?,
        }
        Ok(self.found())
    }
}
