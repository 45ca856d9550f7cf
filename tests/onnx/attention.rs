//! Attention with every option of ONNX, and FlexAttention.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use tilewise::{
    DType, Tensor, ValueId,
    graph::{Align, AttentionArgs, Binary, Mask},
};

use crate::{
    case::Node,
    import::{Builder, Call, Known, Result, Slot},
    pointwise::{one, scaled},
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "Attention" => attention,
        "FlexAttention" => flex_attention,
        _ => return None,
    })
}

/// What an Attention node asks for, with q, k and v as `[B, H, T, D]` and the past in front of k and v.
struct Request {
    q: ValueId,
    k: ValueId,
    v: ValueId,
    scale: Option<f32>,
    softcap: Option<f32>,
    /// Boolean or additive.
    mask: Option<ValueId>,
    key_lengths: Option<ValueId>,
    causal: bool,
    left: Option<u32>,
    right: Option<u32>,
    offset: Offset,
}

/// Where query 0 stands among the keys.
#[derive(Clone, Copy)]
enum Offset {
    Fixed(i32),
    /// i32 `[B]`.
    PerItem(ValueId),
}

fn attention(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let request = request(c)?;
    let flat = {
        let q = c.x(0)?;
        c.shape(q).rank() == 3
    };
    let mut y = fused(c, &request)?;
    if flat {
        y = c.g().merge_heads(y)?;
    }
    let mut results = vec![y.into(), request.k.into(), request.v.into()];
    if c.wants(3) {
        let stage = c.node.int("qk_matmul_output_mode").unwrap_or(0);
        let scores = scores(c, &request, stage)?;
        let dtype = c.dtype(request.q);
        results.push(c.g().cast(scores, dtype)?.into());
    }
    Ok(results)
}

fn request(c: &mut Call<'_>) -> Result<Request> {
    let (q, k, v) = (heads(c, 0, "q_num_heads")?, heads(c, 1, "kv_num_heads")?, heads(c, 2, "kv_num_heads")?);
    let mask = c.optional(3)?;
    let (mut all_k, mut all_v, mut past) = (k, v, 0);
    if c.has(4) {
        let (past_k, past_v) = (c.x(4)?, c.x(5)?);
        past = c.shape(past_k)[2];
        all_k = c.g().concat(&[past_k, k], 2)?;
        all_v = c.g().concat(&[past_v, v], 2)?;
    }
    let key_lengths = if c.has(6) { Some(c.index(6)?) } else { None };
    let offset = match key_lengths {
        Some(lengths) => {
            let queries = c.shape(q)[2];
            let queries = c.g().scalar(queries as f64, lengths)?;
            Offset::PerItem(c.g().sub(lengths, queries)?)
        }
        None => Offset::Fixed(past as i32),
    };
    // Float, float16, double, bfloat16: sums and exponentials are f32 or wider in any case.
    if let Some(precision) = c.node.int("softmax_precision")
        && ![1, 10, 11, 16].contains(&precision)
    {
        return c.left_out(format!("softmax_precision {precision}"));
    }
    let size = |name: &str| c.node.int(name).and_then(|size| u32::try_from(size).ok());
    Ok(Request {
        q,
        k: all_k,
        v: all_v,
        scale: c.node.float("scale").map(|scale| scale as f32),
        softcap: c.node.float("softcap").filter(|&cap| cap > 0.0).map(|cap| cap as f32),
        mask,
        key_lengths,
        causal: c.node.flag("is_causal"),
        left: size("left_window_size"),
        right: size("right_window_size"),
        offset,
    })
}

fn heads(c: &mut Call<'_>, operand: usize, attribute: &str) -> Result<ValueId> {
    let x = c.x(operand)?;
    match (c.shape(x).rank(), c.node.int(attribute)) {
        (3, Some(n)) => Ok(c.g().split_heads(x, n as usize)?),
        (4, _) => Ok(x),
        (rank, n) => c.fault(format!("operand {operand} has rank {rank}, and {attribute} is {n:?}")),
    }
}

/// The graph's own operation.
fn fused(c: &mut Call<'_>, request: &Request) -> Result<ValueId> {
    let align = match request.offset {
        Offset::Fixed(offset) => Align::Offset(offset),
        Offset::PerItem(_) => Align::PerItem,
    };
    let mut mask = Mask::none();
    if let Some(value) = request.mask {
        mask = mask & if c.dtype(value) == DType::Bool { Mask::boolean(value) } else { Mask::bias(value) };
    }
    if let Some(lengths) = request.key_lengths {
        mask = mask & Mask::key_lengths(lengths);
    }
    let window = request.left.is_some() || request.right.is_some();
    if request.causal {
        mask = mask & Mask::causal(align);
    }
    if window {
        mask = mask & Mask::window(request.left, request.right, align);
    }
    if let Offset::PerItem(offsets) = request.offset
        && (request.causal || window)
    {
        mask = mask & Mask::offsets(offsets);
    }
    let args = AttentionArgs { mask, scale: request.scale, softcap: request.softcap, slopes: None };
    Ok(c.g().attention(request.q, request.k, request.v, args)?)
}

/// The scores that attention never stores, written out: scaled products (0), after softcap (1), after masks (2), or
/// their softmax (3). f32 `[B, Hq, Tq, Tk]`.
fn scores(c: &mut Call<'_>, request: &Request, stage: i64) -> Result<ValueId> {
    let width = c.shape(request.q)[3];
    let scale = request.scale.map_or(1.0 / (width as f64).sqrt(), f64::from);
    let mut s = products(c, request.q, request.k, scale)?;
    if stage >= 1
        && let Some(cap) = request.softcap
    {
        s = scaled(c, s, 1.0 / f64::from(cap))?;
        s = c.g().tanh(s)?;
        s = scaled(c, s, f64::from(cap))?;
    }
    if stage >= 2 {
        s = masked(c, request, s)?;
    }
    if stage >= 3 {
        s = c.g().softmax(s, -1)?;
    }
    Ok(s)
}

/// `scale · q · kᵀ` in f32, where several query heads may share a key head.
fn products(c: &mut Call<'_>, q: ValueId, k: ValueId, scale: f64) -> Result<ValueId> {
    let (queries, keys) = (c.shape(q), c.shape(k));
    let (b, hq, tq, d) = (queries[0], queries[1], queries[2], queries[3]);
    let (hkv, tk) = (keys[1], keys[2]);
    let g = c.g();
    let (q, k) = (g.cast(q, DType::F32)?, g.cast(k, DType::F32)?);
    let q = g.reshape(q, [b, hkv, hq / hkv, tq, d])?;
    let k = g.reshape(k, [b, hkv, 1, tk, d])?;
    let s = g.matmul_transposed(q, k)?;
    let s = g.reshape(s, [b, hq, tq, tk])?;
    scaled(c, s, scale)
}

/// Adds the bias, and hides what each rule hides.
fn masked(c: &mut Call<'_>, request: &Request, mut s: ValueId) -> Result<ValueId> {
    let shape = c.shape(s);
    let (tq, tk) = (shape[2], shape[3]);
    let lowest = c.g().scalar(f64::NEG_INFINITY, s)?;
    let mut rules = Vec::new();
    if let Some(mask) = request.mask {
        // A mask that ends before the keys do hides the rest.
        let (given, boolean) = (c.shape(mask), c.dtype(mask) == DType::Bool);
        let missing = if given[given.rank() - 1] == 1 { 0 } else { tk - given[given.rank() - 1] };
        let frame = [vec![(0, 0); given.rank() - 1], vec![(0, missing)]].concat();
        let mask = c.g().pad(mask, &frame, if boolean { 0.0 } else { f64::NEG_INFINITY })?;
        if boolean {
            rules.push(mask);
        } else {
            let bias = c.g().cast(mask, DType::F32)?;
            s = c.g().add(s, bias)?;
        }
    }
    let (rows, j) = (c.iota(tq)?, c.iota(tk)?);
    let i = c.g().reshape(rows, [tq, 1])?;
    let offset = match request.offset {
        Offset::Fixed(offset) => c.g().scalar(f64::from(offset), i)?,
        Offset::PerItem(offsets) => per_item(c, offsets)?,
    };
    let here = c.g().add(i, offset)?;
    let mut limit = |c: &mut Call<'_>, function: Binary, distance: i64| -> Result<()> {
        let distance = c.g().scalar(distance as f64, here)?;
        let end = c.g().add(here, distance)?;
        rules.push(c.g().binary(function, j, end)?);
        Ok(())
    };
    if request.causal {
        limit(c, Binary::LessEqual, 0)?;
    }
    if let Some(left) = request.left {
        limit(c, Binary::GreaterEqual, -i64::from(left))?;
    }
    if let Some(right) = request.right {
        limit(c, Binary::LessEqual, right.into())?;
    }
    if let Some(lengths) = request.key_lengths {
        let lengths = per_item(c, lengths)?;
        rules.push(c.g().binary(Binary::Less, j, lengths)?);
    }
    for rule in rules {
        s = c.g().select(rule, s, lowest)?;
    }
    Ok(s)
}

/// `[B]` as `[B, 1, 1, 1]`.
fn per_item(c: &mut Call<'_>, x: ValueId) -> Result<ValueId> {
    let n = c.shape(x)[0];
    Ok(c.g().reshape(x, [n, 1, 1, 1])?)
}

/// A graph that is an attribute of a node.
#[derive(Deserialize)]
struct Subgraph {
    graph_inputs: Vec<String>,
    graph_outputs: Vec<String>,
    initializers: HashMap<String, Initializer>,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Initializer {
    dtype: String,
    shape: Vec<usize>,
    values: Vec<Value>,
}

/// Attention whose scores and probabilities pass through graphs of their own. Without them it is plain attention.
fn flex_attention(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (q, k, v) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let scale = c.node.float("scale");
    if c.node.attribute("score_mod").is_none() && c.node.attribute("prob_mod").is_none() {
        let args = AttentionArgs { scale: scale.map(|scale| scale as f32), ..AttentionArgs::default() };
        return one(c.g().attention(q, k, v, args)?);
    }
    let (shape, keys, dtype) = (c.shape(q), c.shape(k), c.dtype(q));
    let scale = scale.unwrap_or(1.0 / (shape[3] as f64).sqrt());
    let s = products(c, q, k, scale)?;
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

fn modified(c: &mut Call<'_>, attribute: &str, x: ValueId) -> Result<ValueId> {
    let Some(graph) = c.node.attribute(attribute) else { return Ok(x) };
    let graph = match Subgraph::deserialize(graph) {
        Ok(graph) if graph.graph_inputs.len() == 1 && graph.graph_outputs.len() == 1 => graph,
        Ok(_) => return c.fault(format!("{attribute} has not one input and one output")),
        Err(e) => return c.fault(format!("{attribute}: {e}")),
    };
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
    let Initializer { dtype, shape, values } = initializer;
    let numbers = values.iter().map(|x| x.as_f64().or_else(|| x.as_str()?.parse().ok()));
    let Some(numbers) = numbers.collect::<Option<Vec<f64>>>() else { return c.fault("an initializer is no number") };
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
