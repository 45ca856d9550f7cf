//! Attention with every option of ONNX, and FlexAttention.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use tilewise::{
    DType, Tensor, ValueId,
    graph::{Align, AttentionArgs, Mask, ScoreStage},
};

use super::{
    case::Node,
    flex,
    import::{Builder, Call, Known, Result, Slot},
    pointwise::one,
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "Attention" => attention,
        "FlexAttention" => flex_attention,
        _ => return None,
    })
}

fn attention(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (q, k, v) = (heads(c, 0, "q_num_heads")?, heads(c, 1, "kv_num_heads")?, heads(c, 2, "kv_num_heads")?);
    let flat = c.rank(0)? == 3;
    // The past stands in front.
    let (all_k, all_v, past) = if c.has(4) {
        let (past_k, past_v) = (c.x(4)?, c.x(5)?);
        let past = c.shape(past_k)[2];
        (c.g().concat(&[past_k, k], 2)?, c.g().concat(&[past_v, v], 2)?, past)
    } else {
        (k, v, 0)
    };
    let mask = mask(c, q, past)?;
    // Float, float16, double, bfloat16: sums and exponentials are f32 or wider in any case.
    if let Some(precision) = c.node.int("softmax_precision")
        && ![1, 10, 11, 16].contains(&precision)
    {
        return c.left_out(format!("softmax_precision {precision}"));
    }
    let args = AttentionArgs {
        mask,
        scale: c.node.float("scale").map(|scale| scale as f32),
        softcap: c.node.float("softcap").filter(|&cap| cap > 0.0).map(|cap| cap as f32),
        ..AttentionArgs::default()
    };
    let mut y = c.g().attention(q, all_k, all_v, &args)?;
    if flat {
        y = c.g().merge_heads(y)?;
    }
    let mut results = vec![y.into(), all_k.into(), all_v.into()];
    if c.wants(3) {
        let stage = match c.node.int("qk_matmul_output_mode").unwrap_or(0) {
            0 => ScoreStage::Scaled,
            1 => ScoreStage::Capped,
            2 => ScoreStage::Masked,
            _ => ScoreStage::Weights,
        };
        let dtype = c.dtype(q);
        let g = c.g();
        let (q, k) = (g.cast(q, DType::F32)?, g.cast(all_k, DType::F32)?);
        let scores = g.attention_scores(q, k, &args, stage)?;
        results.push(g.cast(scores, dtype)?.into());
    }
    Ok(results)
}

fn heads(c: &mut Call<'_>, operand: usize, attribute: &str) -> Result<ValueId> {
    let x = c.x(operand)?;
    match (c.shape(x).rank(), c.node.int(attribute)) {
        (3, Some(n)) => Ok(c.g().split_heads(x, n as usize)?),
        (4, _) => Ok(x),
        (rank, n) => c.fault(format!("operand {operand} has rank {rank}, and {attribute} is {n:?}")),
    }
}

/// Query 0 stands behind the past; with key lengths, so that the last query stands at the last key of its item.
fn mask(c: &mut Call<'_>, q: ValueId, past: usize) -> Result<Mask> {
    let (mut mask, mut align) = (Mask::none(), Align::Offset(past as i32));
    if let Some(value) = c.optional(3)? {
        mask = mask & if c.dtype(value) == DType::Bool { Mask::boolean(value) } else { Mask::bias(value) };
    }
    if c.has(6) {
        let (lengths, queries) = (c.index(6)?, c.shape(q)[2]);
        let queries = c.g().scalar(queries as f64, lengths)?;
        let offsets = c.g().sub(lengths, queries)?;
        mask = mask & Mask::key_lengths(lengths) & Mask::offsets(offsets);
        align = Align::PerItem;
    }
    if c.node.flag("is_causal") {
        mask = mask & Mask::causal(align);
    }
    // −1 is open.
    let size = |name: &str| c.node.int(name).and_then(|size| u32::try_from(size).ok());
    let (left, right) = (size("left_window_size"), size("right_window_size"));
    if left.is_some() || right.is_some() {
        mask = mask & Mask::window(left, right, align);
    }
    Ok(mask)
}

/// A graph that is an attribute of a node.
#[derive(Deserialize)]
pub(crate) struct Subgraph {
    pub(crate) graph_inputs: Vec<String>,
    pub(crate) graph_outputs: Vec<String>,
    pub(crate) initializers: HashMap<String, Initializer>,
    pub(crate) nodes: Vec<Node>,
}

#[derive(Deserialize)]
pub(crate) struct Initializer {
    pub(crate) dtype: String,
    shape: Vec<usize>,
    values: Vec<Value>,
}

impl Initializer {
    pub(crate) fn numbers(&self) -> Option<Vec<f64>> {
        self.values.iter().map(|x| x.as_f64().or_else(|| x.as_str()?.parse().ok())).collect()
    }
}

/// Attention whose scores and probabilities pass through graphs of their own. Without them it is plain attention; a graph that
/// is a function of each score and its place is a score function of attention; others are computed on all scores at once.
fn flex_attention(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (q, k, v) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let args = AttentionArgs { scale: c.node.float("scale").map(|scale| scale as f32), ..AttentionArgs::default() };
    if c.node.attribute("score_mod").is_none() && c.node.attribute("prob_mod").is_none() {
        return one(c.g().attention(q, k, v, args)?);
    }
    if c.node.attribute("prob_mod").is_none() {
        let graph = subgraph(c, "score_mod")?;
        let fused = graph.map(|graph| flex::modified(args.clone(), &graph)).transpose()?.flatten();
        if let Some(args) = fused {
            return one(c.g().attention(q, k, v, args)?);
        }
    }
    let (shape, keys, dtype) = (c.shape(q), c.shape(k), c.dtype(q));
    let g = c.g();
    let (q, k) = (g.cast(q, DType::F32)?, g.cast(k, DType::F32)?);
    let s = g.attention_scores(q, k, args, ScoreStage::Scaled)?;
    let s = modified(c, "score_mod", s)?;
    let p = c.g().softmax(s, -1)?;
    let p = modified(c, "prob_mod", p)?;
    let group = shape[1] / keys[1];
    let (b, tq, tk, dv) = (shape[0], shape[2], keys[2], c.shape(v)[3]);
    let g = c.g();
    let v = g.cast(v, DType::F32)?;
    let (p, v) = (g.reshape(p, [b, keys[1], group, tq, tk])?, g.reshape(v, [b, keys[1], 1, tk, dv])?);
    let y = g.matmul(p, v)?;
    let y = g.reshape(y, [b, shape[1], tq, dv])?;
    one(g.cast(y, dtype)?)
}

fn subgraph(c: &mut Call<'_>, attribute: &str) -> Result<Option<Subgraph>> {
    let Some(graph) = c.node.attribute(attribute) else { return Ok(None) };
    match Subgraph::deserialize(graph) {
        Ok(graph) if graph.graph_inputs.len() == 1 && graph.graph_outputs.len() == 1 => Ok(Some(graph)),
        Ok(_) => c.fault(format!("{attribute} has not one input and one output")),
        Err(e) => c.fault(format!("{attribute}: {e}")),
    }
}

fn modified(c: &mut Call<'_>, attribute: &str, x: ValueId) -> Result<ValueId> {
    let Some(graph) = subgraph(c, attribute)? else { return Ok(x) };
    let mut slots = HashMap::from([(graph.graph_inputs[0].clone(), Slot::Value(x))]);
    for (name, initializer) in graph.initializers {
        let slot = initial(c, &initializer)?;
        slots.insert(name, slot);
    }
    match c.import().subgraph(&graph.nodes, slots, &graph.graph_outputs)?[..] {
        [Slot::Value(y)] => Ok(y),
        _ => c.fault(format!("{attribute} computes no tensor")),
    }
}

/// Integers are known while the graph is built; floats are constants.
fn initial(c: &mut Call<'_>, initializer: &Initializer) -> Result<Slot> {
    let Initializer { dtype, shape, .. } = initializer;
    let Some(numbers) = initializer.numbers() else { return c.fault("an initializer is no number") };
    match dtype.as_str() {
        "int64" | "int32" => {
            let values = numbers.into_iter().map(|x| x as i64).collect();
            Ok(Slot::Known(Known { shape: shape.clone().into(), values }))
        }
        "float32" => {
            let values: Vec<f32> = numbers.into_iter().map(|x| x as f32).collect();
            Ok(c.g().constant(Tensor::new(shape.clone(), values)?)?.into())
        }
        other => c.left_out(format!("data of {other}")),
    }
}
