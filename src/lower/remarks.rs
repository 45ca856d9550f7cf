//! What is allowed and yet may not be meant: said beside what the rules did.

use super::Note;
use crate::{
    Graph, ValueId,
    graph::{AttentionOperand, AttentionSizes, Extent, Op},
};

const RULE: &str = "read a mask as it is";

/// Masks and biases of a graph that may be meant otherwise.
pub(super) fn remarks(graph: &Graph) -> Vec<Note> {
    let mut notes = Vec::new();
    for node in graph.nodes() {
        let Op::Attention(attention) = &node.op else { continue };
        let operands: Vec<_> = node.inputs.iter().map(|&v| (graph.dtype(v), graph.shape(v))).collect();
        let Ok(sizes) = attention.fit(&operands) else { continue };
        for (&kind, &value) in attention.operands.iter().zip(&node.inputs[3..]) {
            if kind.extent() != Extent::Scores {
                continue;
            }
            let found = [short(graph, kind, value, &sizes), of_items(graph, kind, value, &sizes)];
            notes.extend(found.into_iter().flatten().map(|reason| Note {
                rule: RULE,
                value: graph.label(node.outputs[0]),
                applied: true,
                reason,
            }));
        }
    }
    notes
}

/// One that ends before the keys do.
fn short(graph: &Graph, kind: AttentionOperand, value: ValueId, sizes: &AttentionSizes) -> Option<String> {
    let (shape, keys) = (graph.shape(value), sizes.keys);
    let columns = crate::graph::short_of(keys, shape)?;
    let hidden = if keys - columns == 1 { format!("key {columns}") } else { format!("keys {columns} to {}", keys - 1) };
    Some(format!(
        "the {} `{}` {shape} has {columns} columns for {keys} keys: {hidden}, the newest, no query sees",
        kind.name(),
        graph.label(value)
    ))
}

/// One of two axes that has a row for each item, and by chance for each query.
fn of_items(graph: &Graph, kind: AttentionOperand, value: ValueId, sizes: &AttentionSizes) -> Option<String> {
    let shape = graph.shape(value);
    let &[rows, columns] = &shape[..] else { return None };
    let alike = rows > 1 && rows == sizes.rows && rows == sizes.batch && columns > 1;
    alike.then(|| {
        format!(
            "the {} `{}` {shape} has a row for each query, the same for all items; there are as many items: if its rows are \
             theirs, it is `Mask::key_padding`, or [{rows}, 1, 1, {columns}]",
            kind.name(),
            graph.label(value)
        )
    })
}
