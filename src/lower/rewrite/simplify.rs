//! Operations that do nothing, or that two in a row do as one.

use super::rebuild::Rebuild;
use crate::{
    DType, Data, Graph, Result, Tensor, ValueId,
    graph::{Binary, NodeId, Op, Unary},
};

/// What a node amounts to.
enum Simpler {
    /// A value that is there.
    Value(ValueId),
    /// One operation on a value that is there.
    Op(Op, ValueId),
    /// A tensor known now.
    Constant(Tensor),
}
use Simpler::{Constant, Value};

/// Replaces a node that does nothing by its operand, and a node after one of its kind by one that does both.
pub(super) fn simplify(rebuild: &mut Rebuild<'_>, id: NodeId) -> Result<bool> {
    let node = rebuild.old.node(id);
    let (Some(&operand), Some(&result)) = (node.inputs.first(), node.outputs.first()) else { return Ok(false) };
    let inputs = node.inputs.iter().map(|&v| rebuild.get(v)).collect::<Result<Vec<_>>>()?;
    let Some((simpler, reason)) = simpler(&rebuild.new, &node.op, &inputs) else { return Ok(false) };
    rebuild.note(
        "simplify",
        result,
        true,
        format!("{} of {}: {reason}", node.op.name(), rebuild.survey.quote(operand)),
    );
    match simpler {
        Value(value) => rebuild.replace(result, value)?,
        Simpler::Op(op, operand) => rebuild.rewrite(id, op, &[operand])?,
        Constant(value) => rebuild.rewrite(id, Op::Constant { value }, &[])?,
    }
    Ok(true)
}

/// The simpler form of an operation on values of the graph, and why it is the same.
fn simpler(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Option<(Simpler, &'static str)> {
    const SAME_SHAPE: &str = "it has that shape already";
    const INVERSE: &str = "the second undoes the first";
    let &x = inputs.first()?;
    let (shape, definition) = (graph.shape(x), graph.definition(x));
    let before = || definition.inputs[0];
    let then = |op: Op| Simpler::Op(op, before());
    match op {
        Op::Cast { dtype } => {
            if graph.dtype(x) == *dtype {
                return Some((Value(x), "it has that dtype already"));
            }
            match &definition.op {
                Op::Cast { dtype: DType::F32 } if graph.dtype(before()).is_narrow() => {
                    const EXACT: &str = "f32 holds every number of the narrow dtype";
                    let same = graph.dtype(before()) == *dtype;
                    Some((if same { Value(before()) } else { then(op.clone()) }, EXACT))
                }
                Op::Constant { value } if *dtype == DType::F32 => {
                    widened(value).map(|value| (Constant(value), "a constant is converted once, exactly"))
                }
                _ => None,
            }
        }
        Op::Reshape { shape: to } if to == shape => Some((Value(x), SAME_SHAPE)),
        Op::Reshape { .. } => match definition.op {
            Op::Reshape { .. } => Some((then(op.clone()), "the last of two reshapes decides")),
            _ => None,
        },
        Op::Broadcast { shape: to } if to == shape => Some((Value(x), SAME_SHAPE)),
        Op::Broadcast { .. } => match definition.op {
            Op::Broadcast { .. } => Some((then(op.clone()), "the last of two broadcasts decides")),
            _ => None,
        },
        Op::Permute { order } => {
            if order.iter().enumerate().all(|(i, &axis)| i == axis) {
                return Some((Value(x), "the axes stay where they are"));
            }
            let Op::Permute { order: first } = &definition.op else { return None };
            let both: Vec<usize> = order.iter().map(|&axis| first[axis]).collect();
            if both.iter().enumerate().all(|(i, &axis)| i == axis) {
                return Some((Value(before()), INVERSE));
            }
            Some((then(Op::Permute { order: both }), "two permutations are one"))
        }
        Op::Slice { starts, sizes, steps } => {
            let whole = sizes[..] == shape[..] && starts.iter().all(|&s| s == 0) && steps.iter().all(|&s| s == 1);
            whole.then_some((Value(x), "it takes every element"))
        }
        Op::Pad { before, after, .. } => {
            before.iter().chain(after).all(|&n| n == 0).then_some((Value(x), "the frame is empty"))
        }
        Op::Concat { .. } => (inputs.len() == 1).then_some((Value(x), "there is nothing to join it with")),
        Op::Dropout { p, .. } => (*p == 0.0).then_some((Value(x), "it drops nothing")),
        Op::Reduce { axes, .. } => axes.is_empty().then_some((Value(x), "no axis is reduced")),
        Op::Unary { function } => match (function, &definition.op) {
            (Unary::Not, Op::Constant { value }) => {
                inverted(value).map(|value| (Constant(value), "a constant is inverted once"))
            }
            (Unary::Neg, Op::Unary { function: Unary::Neg }) | (Unary::Not, Op::Unary { function: Unary::Not }) => {
                Some((Value(before()), INVERSE))
            }
            (Unary::Relu, Op::Unary { function: Unary::Relu }) | (Unary::Abs, Op::Unary { function: Unary::Abs }) => {
                Some((Value(x), "once is as good as twice"))
            }
            _ => None,
        },
        Op::Binary { function } => {
            let (a, b) = (x, inputs[1]);
            let stretches = |kept: ValueId, other: ValueId| !graph.shape(other).broadcasts_to(graph.shape(kept));
            match function {
                Binary::Mul | Binary::Div if graph.uniform(b) == Some(1.0) && !stretches(a, b) => {
                    Some((Value(a), "the other operand is 1"))
                }
                Binary::Mul if graph.uniform(a) == Some(1.0) && !stretches(b, a) => {
                    Some((Value(b), "the other operand is 1"))
                }
                Binary::Sub if graph.uniform(b) == Some(0.0) && !stretches(a, b) => {
                    Some((Value(a), "the other operand is 0"))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// A constant of a narrow float dtype in f32.
fn widened(value: &Tensor) -> Option<Tensor> {
    let data: Vec<f32> = match value.data() {
        Data::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
        Data::BF16(v) => v.iter().map(|x| x.to_f32()).collect(),
        _ => return None,
    };
    Tensor::new(value.shape().clone(), data).ok()
}

/// The opposite of a constant mask.
fn inverted(value: &Tensor) -> Option<Tensor> {
    let Data::Bool(mask) = value.data() else { return None };
    Tensor::new(value.shape().clone(), Data::Bool(mask.iter().map(|seen| !seen).collect())).ok()
}
