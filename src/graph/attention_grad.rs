//! What the gradient of attention takes and gives.

use super::{
    Attention, AttentionOperand as A,
    attention::{AttentionSizes, short_of},
    operand::{Operand, check_count},
};
use crate::{
    Error, Result,
    tensor::{DType, Shape},
};

const OP: &str = "attention_grad";

/// Over what the gradient of a bias is summed, by the axes along which the bias is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BiasGrad {
    /// One number for all keys: over these. `[B, Hq, Tq, 1]`.
    Rows,
    /// One for all queries: over these. `[B, Hq, 1, columns]`.
    Keys {
        /// Keys that the bias reaches.
        columns: usize,
    },
    /// Over the items and heads that share the bias: `[B or 1, Hq or 1, Tq, columns]`.
    Elements {
        /// B or 1.
        items: usize,
        /// Hq or 1.
        heads: usize,
        /// Keys that the bias reaches.
        columns: usize,
    },
}

impl BiasGrad {
    pub(crate) fn of(sizes: &AttentionSizes, bias: &Shape) -> Self {
        let axis = |from_last: usize| bias.rank().checked_sub(from_last).map_or(1, |axis| bias[axis]);
        let columns = short_of(sizes.keys, bias).unwrap_or(sizes.keys);
        match [axis(4), axis(3), axis(2), axis(1)] {
            [_, _, _, 1] if sizes.keys != 1 => BiasGrad::Rows,
            [_, _, 1, _] => BiasGrad::Keys { columns },
            [items, heads, _, _] => BiasGrad::Elements { items, heads, columns },
        }
    }

    pub(crate) fn shape(self, sizes: &AttentionSizes) -> Shape {
        let &AttentionSizes { batch, heads, rows, .. } = sizes;
        match self {
            BiasGrad::Rows => [batch, heads, rows, 1],
            BiasGrad::Keys { columns } => [batch, heads, 1, columns],
            BiasGrad::Elements { items, heads, columns } => [items, heads, rows, columns],
        }
        .into()
    }
}

/// Dtypes and shapes of the results.
pub(super) fn results(attention: &Attention, operands: &[Operand<'_>]) -> Result<Vec<(DType, Shape)>> {
    let sizes = fit(attention, operands)?;
    let mut shapes: Vec<Shape> = operands[..3].iter().map(|operand| operand.1.clone()).collect();
    if let Some(bias) = attention.input_of(A::Bias) {
        shapes.push(BiasGrad::of(&sizes, operands[bias].1).shape(&sizes));
    }
    if attention.input_of(A::Slopes).is_some() {
        shapes.push(sizes.lse());
    }
    Ok(shapes.into_iter().map(|shape| (DType::F32, shape)).collect())
}

/// The sizes of the attention, if its operands and the two after them fit.
fn fit(attention: &Attention, operands: &[Operand<'_>]) -> Result<AttentionSizes> {
    let names = attention.operands.iter().map(|operand| operand.name());
    let names: Vec<&str> = ["q", "k", "v"].into_iter().chain(names).chain(["dout", "statistics"]).collect();
    check_count(OP, operands.len(), &names)?;
    if attention.is_paged() {
        return Err(Error::op(OP, "keys in pages are for generating, and have no gradient"));
    }
    if !attention.score_mods.is_empty() {
        return Err(Error::op(OP, "a score function has no derivative"));
    }
    let (forward, own) = operands.split_at(operands.len() - 2);
    let sizes = attention.fit(forward)?;
    let expected = [("dout", sizes.out()), ("statistics", [&[2], &sizes.lse()[..]].concat().into())];
    for (&(dtype, shape), (name, expected)) in own.iter().zip(expected) {
        if dtype != DType::F32 {
            return Err(Error::dtype(OP, name, dtype, "f32"));
        }
        if *shape != expected {
            return Err(Error::shape(OP, name, shape, format!("{expected} to fit the other operands")));
        }
    }
    Ok(sizes)
}
