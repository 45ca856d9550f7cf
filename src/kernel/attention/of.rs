//! Attention of a graph as a problem.

use super::{
    problem::{AttentionDTypes, AttentionProblem},
    sizes::is_strided,
};
use crate::{
    DType, Layout, Result,
    graph::{Attention, AttentionOperand as A},
    kernel::Operands,
};

impl AttentionProblem {
    /// Of [`Op::Attention`](crate::graph::Op::Attention).
    pub(in crate::kernel) fn of(options: &Attention, operands: &mut Operands) -> Result<Self> {
        let problem = AttentionProblem::among(options, operands);
        let dtypes = AttentionDTypes { out: operands.out_dtype(0), ..problem.dtypes };
        let (lse, status) = (operands.wants(1), operands.wants(2));
        Ok(AttentionProblem { dtypes, out: operands.out_layout(), lse, status, ..problem })
    }

    /// That of the first operands, whatever is computed of them; out is as wide as q.
    pub(super) fn among(options: &Attention, operands: &mut Operands) -> Self {
        let others = options.operands.iter().zip(3..).map(|(&kind, input)| match is_strided(kind) {
            true => operands.layout(input),
            false => Layout::contiguous(operands.shape(input)),
        });
        let others = others.collect();
        let [q, k, v] = [0, 1, 2].map(|input| operands.layout(input));
        let dtypes = AttentionDTypes {
            q: operands.dtype(0),
            k: operands.dtype(1),
            v: operands.dtype(2),
            bias: options.input_of(A::Bias).map_or(DType::F32, |input| operands.dtype(input)),
            out: operands.dtype(0),
        };
        AttentionProblem { dtypes, ..AttentionProblem::new(options.clone(), q, k, v, others) }
    }
}
