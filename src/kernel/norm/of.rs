//! From a norm of a graph to a problem.

use super::{
    super::Operands,
    problem::{NormDTypes, NormKind, NormProblem},
};
use crate::{DType, Layout, Result};

/// A norm of whatever operands. Inputs: x, \[residual\], \[weight\], \[bias\]. Outputs: y, \[sum\], \[mean\], \[rstd\].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub(crate) kind: NormKind,
    pub(crate) axes: usize,
    pub(crate) epsilon: f32,
    pub(crate) residual: bool,
    pub(crate) weight: bool,
    pub(crate) bias: bool,
    pub(crate) sum: bool,
    pub(crate) mean: bool,
    pub(crate) rstd: bool,
}

impl Norm {
    /// Of x alone to y alone.
    pub(crate) fn new(kind: NormKind, axes: usize, epsilon: f32) -> Self {
        let [residual, weight, bias, sum, mean, rstd] = [false; 6];
        Norm { kind, axes, epsilon, residual, weight, bias, sum, mean, rstd }
    }
}

impl NormProblem {
    pub(crate) fn of(norm: Norm, operands: &mut Operands) -> Result<Self> {
        let Norm { kind, axes, epsilon, sum, mean, rstd, .. } = norm;
        let mut problem = NormProblem::new(kind, axes, epsilon, operands.layout(0));
        let (whole, row) = (operands.out_shape().clone(), problem.row_shape());
        let mut others = 1..operands.count();
        let given = [(norm.residual, &whole), (norm.weight, &row), (norm.bias, &row)];
        let [residual, weight, bias] = given.map(|(given, shape)| {
            let input = given.then(|| others.next()).flatten()?;
            Some((operands.layout(input).broadcast(shape), operands.dtype(input)))
        });
        let stored = |operand: &Option<(Layout, DType)>| operand.as_ref().map_or(DType::F32, |&(_, dtype)| dtype);
        problem.dtypes = NormDTypes {
            x: operands.dtype(0),
            residual: stored(&residual),
            weight: stored(&weight),
            bias: stored(&bias),
            sum: if sum { operands.out_dtype(1) } else { DType::F32 },
            y: operands.out_dtype(0),
        };
        let layout = |operand: Option<(Layout, DType)>| operand.map(|(layout, _)| layout);
        [problem.residual, problem.weight, problem.bias] = [residual, weight, bias].map(layout);
        Ok(NormProblem { sum, mean, rstd, ..problem })
    }
}
