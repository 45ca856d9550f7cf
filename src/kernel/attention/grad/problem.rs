//! What the gradient of attention is asked to compute.

use crate::{
    DType, Layout, Result,
    graph::{Attention, AttentionOperand as A},
    kernel::{Operands, attention::AttentionProblem},
};

/// The gradient of attention with sizes and layouts, see [`Op::AttentionGrad`](crate::graph::Op::AttentionGrad).
///
/// Inputs: those of the attention, then dout and the statistics (f32, dense). Outputs: those of dq, dk, dv, dbias and dslopes that
/// are wanted, f32 and dense.
#[derive(Clone, Debug)]
pub struct AttentionGradProblem {
    /// The attention. Its results play no part.
    pub attention: AttentionProblem,
    /// f32, of the shape of out, in any layout.
    pub dout: Layout,
    /// Which of dq, dk, dv, dbias and dslopes are asked for; the last two if there are a bias and slopes.
    pub wanted: [bool; 5],
}

impl AttentionGradProblem {
    pub(super) const FAMILY: &str = "attention_grad";

    /// All gradients of an attention, from a dense dout.
    pub fn new(attention: AttentionProblem) -> Self {
        let [bias, slopes] = [A::Bias, A::Slopes].map(|operand| attention.options.input_of(operand).is_some());
        let dout = Layout::contiguous(attention.out_shape().clone());
        AttentionGradProblem { attention, dout, wanted: [true, true, true, bias, slopes] }
    }

    /// Of [`Op::AttentionGrad`](crate::graph::Op::AttentionGrad).
    pub(in crate::kernel) fn of(options: &Attention, operands: &mut Operands) -> Result<Self> {
        let attention = AttentionProblem::among(options, operands);
        let mut problem = AttentionGradProblem::new(attention);
        problem.dout = operands.layout(3 + options.operands.len());
        // Outputs are numbered without those that there aren't.
        for (output, wanted) in problem.wanted.iter_mut().filter(|there| **there).enumerate() {
            *wanted = operands.wants(output);
        }
        Ok(problem)
    }

    /// The dtype of dout, the statistics and all results.
    pub(super) const DTYPE: DType = DType::F32;
}
