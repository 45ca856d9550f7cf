//! The graph with every attention written out, so that scores and weights can be compared, and edited one by one.

use std::collections::HashMap;

use super::{rebuild::Known, visible::Visible};
use crate::{
    Graph, Result, Tensor, ValueId,
    graph::{Attention, AttentionOperand, Node, Op},
};

/// One attention in steps. All values are of the new graph.
#[derive(Clone, Debug)]
pub(super) struct Attended {
    /// The path of the module.
    pub(super) path: String,
    /// `[B, H, T, D]` each.
    pub(super) q: ValueId,
    pub(super) k: ValueId,
    pub(super) v: ValueId,
    /// q·kᵀ
    pub(super) product: ValueId,
    /// … times `scale`
    pub(super) scores: ValueId,
    /// … after softcap and biases
    pub(super) biased: ValueId,
    /// … with −inf where a key is masked
    pub(super) masked: ValueId,
    pub(super) weights: ValueId,
    pub(super) context: ValueId,
    pub(super) scale: f64,
    pub(super) visible: Visible,
}

pub(super) struct Expanded {
    pub(super) graph: Graph,
    pub(super) attentions: Vec<Attended>,
}

/// Writes attentions out; packed and paged ones, those with functions of the user's, and those of which more than the output is
/// used, stay as they are.
pub(super) fn expand(old: &Graph, known: &Known) -> Result<Expanded> {
    let mut g = Graph::new();
    let mut values: Vec<ValueId> = Vec::with_capacity(old.values().len());
    let mut attentions = Vec::new();
    let mut is_free: Vec<bool> = old.users().iter().map(Vec::is_empty).collect();
    let kept = old.outputs().iter().map(|(_, value)| *value).chain(old.traces().map(|(_, value)| value));
    kept.for_each(|value| is_free[value.index()] = false);
    let is_free = |v: &ValueId| is_free[v.index()] && old.value(*v).name.is_none();
    for node in old.nodes() {
        let inputs: Vec<ValueId> = node.inputs.iter().map(|v| values[v.index()]).collect();
        let results = if let Op::Attention(op) = &node.op
            && !(op.is_packed() || op.is_paged() || op.has_functions())
            && node.outputs.iter().skip(1).all(is_free)
        {
            let (visible, bias) = Visible::of(old, known, op, &node.inputs)?;
            let path = path(old, node, attentions.len());
            let operands: Vec<_> = op.operands.iter().copied().zip(inputs[3..].iter().copied()).collect();
            let attended = write_out(&mut g, [inputs[0], inputs[1], inputs[2]], op, &operands, visible, bias, path)?;
            // Nobody reads the others: log-sum-exp and status.
            let results = vec![attended.context; node.outputs.len()];
            attentions.push(attended);
            results
        } else {
            g.push(node.op.clone(), &inputs)?
        };
        for (&new, &old_value) in results.iter().zip(&node.outputs) {
            if let Some(name) = &old.value(old_value).name {
                g.name(new, name.clone())?;
            }
        }
        values.extend(results);
    }
    for (path, value) in old.traces() {
        g.trace(path, values[value.index()])?;
    }
    for a in &attentions {
        for (part, value) in [("scores", a.scores), ("masked_scores", a.masked), ("weights", a.weights)] {
            g.trace(&format!("{}.{part}", a.path), value)?;
        }
    }
    for (name, value) in old.outputs() {
        g.output(name.clone(), values[value.index()])?;
    }
    Ok(Expanded { graph: g, attentions })
}

/// What a value is called: by a trace, or by its own name.
pub(super) fn named(g: &Graph, v: ValueId) -> Option<&str> {
    g.traces_of(v).next().or(g.value(v).name.as_deref())
}

fn path(g: &Graph, node: &Node, number: usize) -> String {
    match named(g, node.outputs[0]) {
        Some(name) => name.strip_suffix(".context").unwrap_or(name).to_string(),
        None => format!("attention {number}"),
    }
}

fn write_out(
    g: &mut Graph,
    [q, k, v]: [ValueId; 3],
    op: &Attention,
    operands: &[(AttentionOperand, ValueId)],
    visible: Visible,
    bias: Option<Tensor>,
    path: String,
) -> Result<Attended> {
    let [product, scores] = g.scaled_scores(q, k, op)?;
    let capped = g.capped_scores(scores, op)?;
    let bias = bias.map(|bias| g.constant(bias)).transpose()?;
    let seen = g.constant(Tensor::new(visible.sizes, visible.table())?)?;
    let [biased, masked] = g.masked_scores(capped, bias.as_slice(), &[seen])?;
    let weights = g.weights_of(masked, operands)?;
    let context = g.weighted_values(weights, v)?;
    let scale = op.scale_for(g.shape(q)[3]);
    Ok(Attended { path, q, k, v, product, scores, biased, masked, weights, context, scale, visible })
}

/// The names by which values are compared: traces, outputs and names, each with its value, in an order of execution.
pub(super) fn points(g: &Graph) -> Vec<(String, ValueId)> {
    let mut all: Vec<(String, ValueId)> = g.traces().map(|(path, v)| (path.to_string(), v)).collect();
    let mut seen: HashMap<String, ValueId> = all.iter().cloned().collect();
    let names = g.values().iter().filter_map(|value| value.name.as_ref());
    let named = names.filter_map(|name| Some((name.clone(), g.find(name)?)));
    let computed = named.filter(|(_, v)| !g.definition(*v).op.is_source());
    for (name, v) in computed.chain(g.outputs().iter().cloned()) {
        if seen.insert(name.clone(), v).is_none() {
            all.push((name, v));
        }
    }
    all.sort_by_key(|(_, v)| *v);
    all
}
