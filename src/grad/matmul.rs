//! Products: `dA = dY·Bᵀ`, `dB = Aᵀ·dY`, each summed over the leading axes along which the operand was repeated.

use super::step::Step;
use crate::{Graph, Result, Shape, ValueId, graph::Op};

/// The gradients of a product, in the dtype of its operands.
pub(super) fn matmul(step: &mut Step<'_>, transpose_a: bool, transpose_b: bool) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    // A row or a column gets the axis that it lacks, and so does the result.
    let (a, b) = (matrix(step, 0, 0)?, matrix(step, 1, 1)?);
    let (a_shape, b_shape) = (step.g.shape(a).clone(), step.g.shape(b).clone());
    let m = a_shape[a_shape.rank() - if transpose_a { 1 } else { 2 }];
    let n = b_shape[b_shape.rank() - if transpose_b { 2 } else { 1 }];
    let missing = [0, 1].into_iter().filter(|&operand| step.shape(operand).rank() == 1).count();
    let y_shape = step.g.shape(dy).clone();
    let leading = &y_shape[..y_shape.rank() + missing - 2];
    let dy = step.g.reshape(dy, [leading, &[m, n]].concat())?;

    if step.wanted[0] {
        let da = match (transpose_a, transpose_b) {
            (false, tb) => product(step.g, [dy, b], [false, !tb])?,
            (true, tb) => product(step.g, [b, dy], [tb, true])?,
        };
        give(step, 0, da, &a_shape)?;
    }
    if step.wanted[1] {
        // A weight for all rows: one product over the rows of all batch items, in place of one for each and their sum.
        let shared = b_shape.rank() == 2 && !transpose_a;
        let (a, dy) = if shared { (all_rows(step.g, a)?, all_rows(step.g, dy)?) } else { (a, dy) };
        let db = match (transpose_b, transpose_a) {
            (false, ta) => product(step.g, [a, dy], [!ta, false])?,
            (true, ta) => product(step.g, [dy, a], [true, ta])?,
        };
        give(step, 1, db, &b_shape)?;
    }
    Ok(())
}

/// An operand with at least two axes; one that is missing comes in here.
fn matrix(step: &mut Step<'_>, operand: usize, missing: usize) -> Result<ValueId> {
    let (value, shape) = (step.inputs[operand], step.shape(operand));
    if shape.rank() > 1 {
        return Ok(value);
    }
    let mut sizes = vec![shape[0]];
    sizes.insert(missing, 1);
    step.g.reshape(value, sizes)
}

/// The gradient of an operand that had this shape in the product.
fn give(step: &mut Step<'_>, operand: usize, grad: ValueId, shape: &Shape) -> Result<()> {
    let whole = super::step::unbroadcast(step.g, grad, shape)?;
    let own = step.shape(operand);
    let grad = if own == *shape { whole } else { step.g.reshape(whole, own)? };
    step.give(operand, grad)
}

/// `[…, M, N]` as `[… · M, N]`.
fn all_rows(g: &mut Graph, value: ValueId) -> Result<ValueId> {
    let shape = g.shape(value).clone();
    let (columns, rows) = (shape[shape.rank() - 1], shape[..shape.rank() - 1].iter().product());
    if shape.rank() == 2 { Ok(value) } else { g.reshape(value, [rows, columns]) }
}

fn product(g: &mut Graph, operands: [ValueId; 2], [transpose_a, transpose_b]: [bool; 2]) -> Result<ValueId> {
    Ok(g.push(Op::Matmul { transpose_a, transpose_b }, &operands)?[0])
}
