//! What rewriting and fusing look for in a graph.

use crate::{
    Graph, ValueId,
    graph::{Binary, Node, Op, Unary},
};

/// A float value times (or divided by) the same finite number everywhere: the value and the factor.
pub(super) fn scaled(graph: &Graph, node: &Node) -> Option<(ValueId, f64)> {
    let &[a, b] = &node.inputs[..] else { return None };
    let (x, factor) = match node.op {
        Op::Binary { function: Binary::Mul } => match (graph.uniform(a), graph.uniform(b)) {
            (_, Some(factor)) => (a, factor),
            (Some(factor), None) => (b, factor),
            (None, None) => return None,
        },
        Op::Binary { function: Binary::Div } => (a, 1.0 / graph.uniform(b)?),
        _ => return None,
    };
    // A constant of more axes or larger ones would stretch the value.
    let same = graph.shape(x) == graph.shape(node.outputs[0]);
    // Kernels take the factor as f32, where it must still be a number, and not 0 if it wasn't.
    let fits = (factor as f32).is_finite() && (factor as f32 != 0.0 || factor == 0.0);
    (graph.dtype(x).is_float() && same && fits).then_some((x, factor))
}

/// Whether the last two axes are swapped, and nothing else.
pub(super) fn swaps_last_two(order: &[usize]) -> bool {
    let n = order.len();
    n >= 2 && order[n - 2] == n - 1 && order[n - 1] == n - 2 && order[..n - 2].iter().enumerate().all(|(i, &o)| i == o)
}

/// The function and operand of a unary node.
pub(super) fn unary_of(graph: &Graph, value: ValueId) -> Option<(Unary, ValueId)> {
    let node = graph.definition(value);
    match node.op {
        Op::Unary { function } => Some((function, node.inputs[0])),
        _ => None,
    }
}
