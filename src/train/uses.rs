use std::collections::BTreeMap;

use crate::{
    Graph, ValueId,
    graph::{Binary, Op},
};

/// What a graph does with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// Rows are picked from it, or it is added as it is: words or positions. It may be the output layer's weight too.
    Table,
    NormWeight,
    NormBias,
    /// `[out, in]`, the second operand of a product that is given transposed.
    Linear,
    Other,
}

/// The use of each parameter, the first in the order above; views and casts of one are followed.
pub(super) fn uses(g: &Graph) -> BTreeMap<String, Use> {
    let mut origin: Vec<Option<usize>> = vec![None; g.values().len()];
    let parameters: Vec<(&str, ValueId)> = g.parameters().collect();
    for (i, (_, value)) in parameters.iter().enumerate() {
        origin[value.index()] = Some(i);
    }
    let mut found = vec![Use::Other; parameters.len()];
    for node in g.nodes() {
        let of = |operand: usize| node.inputs.get(operand).and_then(|input| origin[input.index()]);
        let mut note = |operand: usize, what: Use| {
            if let Some(i) = of(operand) {
                found[i] = found[i].min(what);
            }
        };
        if let Op::Gather { .. } = node.op {
            note(0, Use::Table);
        } else if let Op::LayerNorm { weight, bias, .. } = node.op {
            if weight {
                note(1, Use::NormWeight);
            }
            if bias {
                note(1 + usize::from(weight), Use::NormBias);
            }
        } else if let Op::RmsNorm { weight: true, .. } = node.op {
            note(1, Use::NormWeight);
        } else if let Op::Matmul { transpose_b: true, .. } = node.op {
            note(1, Use::Linear);
        } else if let Op::Binary { function: Binary::Add } = node.op {
            for operand in [0, 1].into_iter().filter(|&at| g.shape(node.inputs[at]).rank() >= 2) {
                note(operand, Use::Table);
            }
        } else if node.op.is_view() || matches!(node.op, Op::Cast { .. }) {
            origin[node.outputs[0].index()] = of(0);
        }
    }
    parameters.into_iter().map(|(name, _)| name.to_string()).zip(found).collect()
}
