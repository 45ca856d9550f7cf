//! Graphs in JSON: seeds, changed so that a good part of them still means something, through reading, verifying, printing and
//! lowering.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use serde_json::{Value, json};
use tilewise::{
    DType, Graph,
    graph::{Binary, Reduce, Unary},
    kernel::{AdapterKind, CooperativeMatrix, Profile},
    lower::{self, Options},
};

use super::{Outcome, Target, functions, json, seeds};

pub(super) const TARGET: Target = Target { name: "graph", make, check: |input| check(input, &profiles()) };

const DTYPES: [&str; 6] = ["f32", "f16", "bf16", "i32", "u32", "bool"];

const OPS: [&str; 32] = [
    "input",
    "parameter",
    "constant",
    "matmul",
    "attention",
    "layer_norm",
    "rms_norm",
    "softmax",
    "log_softmax",
    "cross_entropy",
    "dropout",
    "unary",
    "binary",
    "where",
    "cast",
    "reduce",
    "argmax",
    "reshape",
    "permute",
    "slice",
    "concat",
    "broadcast",
    "pad",
    "gather",
    "scatter_add",
    "dequantize",
    "rotary",
    "append",
    "append_paged",
    "attention_merge",
    "softmax ",
    "",
];

/// Keys and names that graphs have somewhere.
const WORDS: [&str; 52] = [
    "nodes",
    "outputs",
    "updates",
    "traces",
    "op",
    "inputs",
    "name",
    "value",
    "state",
    "next",
    "path",
    "dtype",
    "shape",
    "data",
    "axis",
    "axes",
    "keep",
    "last",
    "function",
    "order",
    "starts",
    "sizes",
    "steps",
    "before",
    "after",
    "epsilon",
    "weight",
    "bias",
    "transpose_a",
    "transpose_b",
    "circular",
    "interleaved",
    "ignore",
    "smoothing",
    "p",
    "stream",
    "scale",
    "softcap",
    "causal",
    "window",
    "left",
    "right",
    "align",
    "operands",
    "score_mods",
    "mask_mods",
    "bits",
    "group",
    "zero",
    "columns",
    "bottom_right",
    "per_item",
];

/// A value that nodes can read.
struct Known {
    label: String,
    node: usize,
    dtype: DType,
    shape: Vec<u64>,
}

/// A document that is being changed.
struct Draft<'a, 'b> {
    u: &'a mut Unstructured<'b>,
    document: Value,
    known: Vec<Known>,
    names: usize,
}

fn make(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let document = seeds::graph(u)?;
    let mut draft = Draft { u, document, known: Vec::new(), names: 0 };
    // What runs out of choices has made its last change.
    let _ = draft.change();
    let Draft { u, mut document, .. } = draft;
    // Then what graphs don't mean, so that those before find a graph.
    while u.ratio(1, 5u8)? {
        json::mutate(u, &mut document, &WORDS)?;
    }
    let mut bytes = json::text(&document).into_bytes();
    if u.ratio(1, 40u8)? {
        json::garble(u, &mut bytes)?;
    }
    Ok(bytes)
}

impl Draft<'_, '_> {
    fn change(&mut self) -> Result<()> {
        self.learn();
        loop {
            self.mutate()?;
            if self.u.ratio(2, 5u8)? {
                return Ok(());
            }
        }
    }

    /// Which values there are, if the document is a graph as it is.
    fn learn(&mut self) {
        let Ok(graph) = Graph::from_json(&json::text(&self.document)) else { return };
        let known = graph.values().iter().map(|value| {
            let node = value.node.index();
            let shape = value.shape.iter().map(|&size| size as u64).collect();
            (node, value.dtype, shape)
        });
        let labels = graph.nodes().iter().flat_map(|node| &node.outputs).map(|&output| graph.label(output));
        let all = known.zip(labels).map(|((node, dtype, shape), label)| Known { label, node, dtype, shape });
        self.known = all.filter(|known| !known.label.starts_with('%')).collect();
    }

    fn nodes(&mut self) -> &mut Vec<Value> {
        let nodes = &mut self.document["nodes"];
        if !nodes.is_array() {
            *nodes = json!([]);
        }
        nodes.as_array_mut().expect("it was made one")
    }

    fn node(&mut self) -> Result<&mut Value> {
        let count = self.nodes().len();
        let at = self.u.choose_index(count.max(1))?;
        if count == 0 {
            self.nodes().push(json!({}));
        }
        Ok(&mut self.nodes()[at])
    }

    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("fresh.{}", self.names)
    }

    fn any(&mut self) -> Result<Option<usize>> {
        if self.known.is_empty() { Ok(None) } else { self.u.choose_index(self.known.len()).map(Some) }
    }

    fn mutate(&mut self) -> Result<()> {
        if self.u.ratio(1, 1000u16)? {
            return self.chain();
        }
        match self.u.int_in_range(0..=28u8)? {
            0..=4 => self.size_everywhere(),
            5 | 6 => self.dtype(),
            7 | 8 => self.function(),
            9 => {
                let op = *self.u.choose(&OPS)?;
                self.node()?["op"] = op.into();
                Ok(())
            }
            10..=12 => self.rewire(),
            13 => self.duplicate(),
            14 => self.delete(),
            15..=21 => self.insert(),
            22 | 23 => self.attribute(),
            24 | 25 => self.attention(),
            26 => self.outputs(),
            27 => {
                let count = self.nodes().len();
                let (a, b) = (self.u.choose_index(count.max(1))?, self.u.choose_index(count.max(1))?);
                if count > 0 {
                    self.nodes().swap(a, b);
                }
                Ok(())
            }
            _ => self.splice(),
        }
    }

    /// One size becomes another wherever it stands: most of the graph goes on to fit.
    fn size_everywhere(&mut self) -> Result<()> {
        let Some(value) = self.any()? else { return Ok(()) };
        let shape = self.known[value].shape.clone();
        if shape.is_empty() {
            return Ok(());
        }
        let old = *self.u.choose(&shape)?;
        let new = json::size(self.u, old)?;
        let sizes = ["shape", "sizes", "columns"];
        for node in self.nodes() {
            let value = node.get_mut("value").and_then(|value| value.get_mut("shape")).map(Value::take);
            for key in sizes {
                match node.get_mut(key) {
                    Some(Value::Array(items)) => replace(items, old, &new),
                    Some(item) if item.as_u64() == Some(old) => *item = new.clone(),
                    _ => {}
                }
            }
            if let Some(Value::Array(mut items)) = value {
                replace(&mut items, old, &new);
                node["value"]["shape"] = Value::Array(items);
            }
        }
        self.refill()?;
        self.learn();
        Ok(())
    }

    /// Constants get as many elements as their shapes say.
    fn refill(&mut self) -> Result<()> {
        if self.u.ratio(1, 12u8)? {
            return Ok(());
        }
        for node in self.nodes() {
            let Some(value) = node.get_mut("value").filter(|value| value.is_object()) else { continue };
            let count = value["shape"].as_array().and_then(|shape| {
                shape.iter().map(Value::as_u64).try_fold(1u64, |product, size| product.checked_mul(size?))
            });
            let Some(count) = count.filter(|&count| count <= 4096) else { continue };
            let data = value["data"].as_array().cloned().unwrap_or_default();
            let filled = (0..count as usize).map(|i| data.get(i % data.len().max(1)).cloned().unwrap_or(json!(1)));
            value["data"] = filled.collect();
        }
        Ok(())
    }

    /// Another dtype, in one place or everywhere.
    fn dtype(&mut self) -> Result<()> {
        let (from, to) = (*self.u.choose(&DTYPES)?, *self.u.choose(&DTYPES)?);
        if self.u.ratio(1, 3u8)? {
            self.node()?["dtype"] = to.into();
        } else {
            for node in self.nodes() {
                let inner = node.get("value").is_some_and(|value| value.get("dtype").is_some());
                let dtype = if inner { &mut node["value"]["dtype"] } else { &mut node["dtype"] };
                if dtype == from {
                    *dtype = to.into();
                } else if dtype.is_null() {
                    node.as_object_mut().map(|node| node.remove("dtype"));
                }
            }
        }
        self.learn();
        Ok(())
    }

    /// Another function of the same kind.
    fn function(&mut self) -> Result<()> {
        let kinds = ["unary", "binary", "reduce"];
        let places: Vec<usize> = (0..self.nodes().len())
            .filter(|&i| kinds.iter().any(|kind| self.document["nodes"][i]["op"] == *kind))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let at = *self.u.choose(&places)?;
        let name = function(self.u, self.document["nodes"][at]["op"].as_str().unwrap_or_default())?;
        self.nodes()[at]["function"] = name.into();
        Ok(())
    }

    /// An operand becomes another value, mostly one of the same dtype and shape.
    fn rewire(&mut self) -> Result<()> {
        let count = self.nodes().len();
        let at = self.u.choose_index(count.max(1))?;
        let Some(inputs) = self.document["nodes"][at]["inputs"].as_array().cloned().filter(|inputs| !inputs.is_empty())
        else {
            return Ok(());
        };
        let i = self.u.choose_index(inputs.len())?;
        let old = self.known.iter().find(|known| inputs[i] == *known.label);
        let strict = !self.u.ratio(1, 5u8)?;
        let fits = |known: &&Known| {
            !strict || (known.node < at && old.is_none_or(|old| (old.dtype, &old.shape) == (known.dtype, &known.shape)))
        };
        let candidates: Vec<String> = self.known.iter().filter(fits).map(|known| known.label.clone()).collect();
        if !candidates.is_empty() {
            let new = self.u.choose(&candidates)?.clone();
            self.nodes()[at]["inputs"][i] = new.into();
        }
        Ok(())
    }

    /// A node a second time, under names of its own; something may read it.
    fn duplicate(&mut self) -> Result<()> {
        let count = self.nodes().len();
        let at = self.u.choose_index(count.max(1))?;
        let mut copy = self.document["nodes"][at].clone();
        let old = copy["outputs"][0].as_str().unwrap_or_default().to_string();
        let new = self.fresh();
        copy["outputs"] = json!([new]);
        if count > 0 {
            self.nodes().insert(at + 1, copy);
        }
        self.read_instead(at + 2, &old, &new)?;
        self.learn();
        Ok(())
    }

    /// The first reader of a value from a node on reads another, or an output gives it.
    fn read_instead(&mut self, from: usize, old: &str, new: &str) -> Result<()> {
        let as_output = self.u.ratio(1, 2u8)?;
        let readers = self.nodes().iter_mut().skip(from).filter_map(|node| node.get_mut("inputs"));
        let reader = readers.filter_map(Value::as_array_mut).flatten().find(|input| **input == *old);
        match reader {
            Some(input) if !as_output => *input = new.into(),
            _ => {
                let name = self.fresh();
                if let Some(outputs) = self.document["outputs"].as_array_mut() {
                    outputs.push(json!({"name": name, "value": new}));
                }
            }
        }
        Ok(())
    }

    /// A node goes; what read it reads its first operand.
    fn delete(&mut self) -> Result<()> {
        let count = self.nodes().len();
        let at = self.u.choose_index(count.max(1))?;
        if count == 0 {
            return Ok(());
        }
        let node = self.nodes().remove(at);
        let (old, instead) = (node["outputs"][0].clone(), node["inputs"][0].clone());
        if instead.is_string() {
            let inputs = self.nodes().iter_mut().filter_map(|node| node.get_mut("inputs")?.as_array_mut()).flatten();
            inputs.filter(|input| **input == old).for_each(|input| *input = instead.clone());
            for output in self.document["outputs"].as_array_mut().into_iter().flatten() {
                if output["value"] == old {
                    output["value"] = instead.clone();
                }
            }
        }
        self.learn();
        Ok(())
    }

    /// A new node after a value, that mostly fits it; something reads it, or it becomes an output.
    fn insert(&mut self) -> Result<()> {
        let Some(value) = self.any()? else { return Ok(()) };
        let Known { label, node, dtype, shape } = &self.known[value];
        let (label, node, dtype, shape) = (label.clone(), *node, *dtype, shape.clone());
        let mut new = Vec::new();
        let name = self.fresh();
        self.after(&label, dtype, &shape, &name, &mut new)?;
        let at = (node + 1).min(self.nodes().len());
        let count = new.len();
        self.nodes().splice(at..at, new);
        self.read_instead(at + count, &label, &name)?;
        self.learn();
        Ok(())
    }

    /// Many operations of one kind behind each other: what goes over them should neither recur nor begin again at each.
    fn chain(&mut self) -> Result<()> {
        let Some(value) = self.any()? else { return Ok(()) };
        let Known { label, node, shape, .. } = &self.known[value];
        let (mut last, at, shape) = (label.clone(), node + 1, shape.clone());
        let starts: Vec<u64> = shape.iter().map(|size| size.saturating_sub(1)).collect();
        let reversed = json!({"op": "slice", "starts": starts, "sizes": shape, "steps": vec![-1; shape.len()]});
        let order: Vec<usize> = (0..shape.len()).rev().collect();
        let links = [
            reversed,
            json!({"op": "permute", "order": order}),
            json!({"op": "reshape", "shape": shape}),
            json!({"op": "unary", "function": "neg"}),
            json!({"op": "binary", "function": "max"}),
            json!({"op": "cast", "dtype": "bf16"}),
        ];
        let link = self.u.choose(&links)?.clone();
        let length = *self.u.choose(&[30, 300, 3000])?;
        let mut new = Vec::with_capacity(length);
        for _ in 0..length {
            let name = self.fresh();
            let mut node = link.clone();
            node["inputs"] = if link["op"] == "binary" { json!([last, last]) } else { json!([last]) };
            node["outputs"] = json!([name]);
            new.push(node);
            last = name;
        }
        let at = at.min(self.nodes().len());
        self.nodes().splice(at..at, new);
        let old = self.known[value].label.clone();
        self.read_instead(at + length, &old, &last)?;
        self.learn();
        Ok(())
    }

    /// A value that is given, or part of the graph.
    fn source(&mut self, dtype: &str, shape: &[u64], new: &mut Vec<Value>) -> Result<String> {
        let name = self.fresh();
        let count: u64 = shape.iter().product();
        let node = match self.u.int_in_range(0..=2u8)? {
            0 if count <= 64 => {
                let element = |u: &mut Unstructured<'_>| -> Result<Value> {
                    Ok(match dtype {
                        "bool" => u.arbitrary::<bool>()?.into(),
                        "u32" => u.int_in_range(0..=9u32)?.into(),
                        "i32" => u.int_in_range(-3..=5i32)?.into(),
                        _ => match u.int_in_range(0..=19u8)? {
                            0 => "-inf".into(),
                            1 => "NaN".into(),
                            2 => "inf".into(),
                            n => (f64::from(n) / 4.0 - 2.5).into(),
                        },
                    })
                };
                // A few elements say what there is to say.
                let few: Vec<Value> = (0..4).map(|_| element(self.u)).collect::<Result<_>>()?;
                let data: Vec<&Value> = (0..count as usize).map(|i| &few[i % few.len()]).collect();
                json!({"op": "constant", "value": {"dtype": dtype, "shape": shape, "data": data}, "outputs": [name]})
            }
            1 => json!({"op": "parameter", "dtype": dtype, "shape": shape, "outputs": [name]}),
            _ => json!({"op": "input", "dtype": dtype, "shape": shape, "outputs": [name]}),
        };
        new.push(node);
        Ok(name)
    }

    /// A shape that broadcasts with this one.
    fn broadcasting(&mut self, shape: &[u64]) -> Result<Vec<u64>> {
        let skip = self.u.choose_index(shape.len() + 1)?;
        shape[skip..].iter().map(|&size| Ok(if self.u.ratio(1, 3u8)? { 1 } else { size })).collect()
    }

    /// An operation on a value, called `name`, and what it needs besides.
    fn after(&mut self, x: &str, dtype: DType, shape: &[u64], name: &str, new: &mut Vec<Value>) -> Result<()> {
        let (d, rank) = (dtype.name(), shape.len());
        let axis = self.u.choose_index(rank.max(1))?;
        let last = shape.last().copied().unwrap_or(1);
        let node = match self.u.int_in_range(0..=24u8)? {
            0 | 1 => json!({"op": "unary", "function": function(self.u, "unary")?, "inputs": [x]}),
            2..=4 => {
                let other = match self.u.int_in_range(0..=3u8)? {
                    0 => x.to_string(),
                    1 => self.source(d, &[], new)?,
                    _ => {
                        let shape = self.broadcasting(shape)?;
                        self.source(d, &shape, new)?
                    }
                };
                let inputs = if self.u.arbitrary()? { [x, other.as_str()] } else { [other.as_str(), x] };
                json!({"op": "binary", "function": function(self.u, "binary")?, "inputs": inputs})
            }
            5 => {
                let of_mask = self.broadcasting(shape)?;
                let (mask, other) = (self.source("bool", &of_mask, new)?, self.source(d, &[], new)?);
                let inputs = if self.u.arbitrary()? { [mask.as_str(), x, &other] } else { [mask.as_str(), &other, x] };
                json!({"op": "where", "inputs": inputs})
            }
            6 => json!({"op": *self.u.choose(&["softmax", "log_softmax"])?, "axis": axis, "inputs": [x]}),
            7 => {
                let axes = self.u.int_in_range(1..=rank.clamp(1, 2))?;
                let inner: Vec<u64> = shape[rank.saturating_sub(axes)..].to_vec();
                let (weight, bias) = (self.u.arbitrary::<bool>()?, self.u.arbitrary::<bool>()?);
                let rms = self.u.arbitrary::<bool>()?;
                let mut inputs = vec![x.to_string()];
                for _ in 0..usize::from(weight) + usize::from(bias && !rms) {
                    inputs.push(self.source(d, &inner, new)?);
                }
                let epsilon = *self.u.choose(&[1e-5, 0.0, 0.1])?;
                if rms {
                    json!({"op": "rms_norm", "axes": axes, "epsilon": epsilon, "weight": weight, "inputs": inputs})
                } else {
                    json!({"op": "layer_norm", "axes": axes, "epsilon": epsilon, "weight": weight, "bias": bias, "inputs": inputs})
                }
            }
            8 => {
                let axes: Vec<usize> = (0..rank).filter(|_| self.u.arbitrary().unwrap_or(false)).collect();
                let keep: bool = self.u.arbitrary()?;
                json!({"op": "reduce", "function": function(self.u, "reduce")?, "axes": axes, "keep": keep, "inputs": [x]})
            }
            9 => {
                json!({"op": "argmax", "axis": axis, "keep": self.u.arbitrary::<bool>()?, "last": self.u.arbitrary::<bool>()?, "inputs": [x]})
            }
            10 | 11 => {
                // As a product of two, or with axes joined.
                let count: u64 = shape.iter().try_fold(1u64, |a, &b| a.checked_mul(b)).unwrap_or(0);
                let divisor = *self.u.choose(&[1, 2, 3, 4, 6, last.max(1)])?;
                let shape = if count.is_multiple_of(divisor) { vec![divisor, count / divisor] } else { vec![count] };
                json!({"op": "reshape", "shape": shape, "inputs": [x]})
            }
            12 | 13 => {
                let mut order: Vec<usize> = (0..rank).collect();
                let (a, b) = (self.u.choose_index(rank.max(1))?, self.u.choose_index(rank.max(1))?);
                if rank > 0 {
                    order.swap(a, b);
                    order.rotate_left(axis);
                }
                json!({"op": "permute", "order": order, "inputs": [x]})
            }
            14 => {
                let (mut starts, mut sizes, mut steps) = (Vec::new(), Vec::new(), Vec::new());
                for &size in shape {
                    let start = self.u.int_in_range(0..=size.saturating_sub(1))?;
                    let step = *self.u.choose(&[1i64, 1, 2, -1, 3])?;
                    let room = if step > 0 { size.saturating_sub(1 + start) } else { start };
                    starts.push(start);
                    sizes.push(if size == 0 { 0 } else { 1 + room / step.unsigned_abs() });
                    steps.push(step);
                }
                json!({"op": "slice", "starts": starts, "sizes": sizes, "steps": steps, "inputs": [x]})
            }
            15 => {
                let mut of_other = shape.to_vec();
                if let Some(size) = of_other.get_mut(axis) {
                    *size = self.u.int_in_range(0..=3)?;
                }
                let other = self.source(d, &of_other, new)?;
                json!({"op": "concat", "axis": axis, "inputs": [x, other]})
            }
            16 => {
                let mut wide = shape.to_vec();
                if self.u.arbitrary()? {
                    wide.insert(0, self.u.int_in_range(0..=3)?);
                }
                json!({"op": "broadcast", "shape": wide, "inputs": [x]})
            }
            17 => {
                let mut frame = || (0..rank).map(|_| self.u.int_in_range(0..=2u64)).collect::<Result<Vec<_>>>();
                let (before, after) = (frame()?, frame()?);
                json!({"op": "pad", "before": before, "after": after, "value": json::edge(self.u)?, "inputs": [x]})
            }
            18 => json!({"op": "cast", "dtype": *self.u.choose(&DTYPES)?, "inputs": [x]}),
            19 => {
                let indices = vec![self.u.int_in_range(0..=3u64)?; self.u.int_in_range(0..=2usize)?];
                let indices = self.source("i32", &indices, new)?;
                json!({"op": "gather", "axis": axis, "inputs": [x, indices]})
            }
            20 => {
                let along = [shape.get(axis).copied().unwrap_or(1)];
                let (indices, size) = (self.source("i32", &along, new)?, self.u.int_in_range(0..=9u64)?);
                json!({"op": "scatter_add", "axis": axis, "size": size, "inputs": [x, indices]})
            }
            21 => {
                let rows = shape.split_last().map_or(&[][..], |(_, rows)| rows);
                let (weight, ignore) = (self.u.arbitrary::<bool>()?, *self.u.choose(&[None, Some(0), Some(-100)])?);
                let mut inputs = vec![x.to_string(), self.source("i32", rows, new)?];
                if weight {
                    inputs.push(self.source("f32", &[last], new)?);
                }
                let smoothing = *self.u.choose(&[0.0, 0.1, 1.0])?;
                json!({"op": "cross_entropy", "ignore": ignore, "smoothing": smoothing, "weight": weight, "inputs": inputs})
            }
            22 => {
                let words = *self.u.choose(&["i32", "u32"])?;
                let seed = self.source(words, &[4], new)?;
                let (p, stream) = (*self.u.choose(&[0.0, 0.1, 0.5, 1.0])?, *self.u.choose(&[0, 1, u32::MAX])?);
                json!({"op": "dropout", "p": p, "stream": stream, "inputs": [x, seed]})
            }
            _ => {
                let (turned, outer) = (self.u.arbitrary::<bool>()?, self.u.int_in_range(1..=9u64)?);
                let other = if turned { [outer, last] } else { [last, outer] };
                let other = self.source(d, &other, new)?;
                json!({"op": "matmul", "transpose_b": turned, "inputs": [x, other]})
            }
        };
        let mut node = node;
        node["outputs"] = json!([name]);
        new.push(node);
        Ok(())
    }

    /// A field of a node that is a number, a flag or a list of numbers.
    fn attribute(&mut self) -> Result<()> {
        let edge = json::edge(self.u)?;
        let (pick, kind) = (self.u.arbitrary::<u8>()?, self.u.int_in_range(0..=3u8)?);
        let node = self.node()?;
        let Some(fields) = node.as_object_mut() else { return Ok(()) };
        let open = ["op", "inputs", "outputs", "dtype", "function", "value"];
        let keys: Vec<String> = fields.keys().filter(|key| !open.contains(&key.as_str())).cloned().collect();
        let Some(key) = keys.get(pick as usize % keys.len().max(1)) else { return Ok(()) };
        let mut field = &mut fields[key];
        if let Value::Array(items) = field {
            let count = items.len().max(1);
            match items.get_mut(pick as usize / 7 % count) {
                Some(item) => field = item,
                None => return Ok(()),
            }
        }
        match (kind, &mut *field) {
            (_, Value::Bool(flag)) => *flag = !*flag,
            (0, Value::Number(n)) => *n = n.as_i64().map_or(0, |n| n.wrapping_add(1)).into(),
            (1, Value::Number(n)) => *n = n.as_i64().map_or(0, |n| n.wrapping_sub(1)).into(),
            _ => *field = edge,
        }
        Ok(())
    }

    /// An option or operand of attention.
    fn attention(&mut self) -> Result<()> {
        let places: Vec<usize> =
            (0..self.nodes().len()).filter(|&i| self.document["nodes"][i]["op"] == "attention").collect();
        if places.is_empty() {
            return self.insert();
        }
        let at = *self.u.choose(&places)?;
        let shape_of = |draft: &Self, i: usize| {
            let label = &draft.document["nodes"][at]["inputs"][i];
            draft.known.iter().find(|known| *label == *known.label).map(|known| known.shape.clone())
        };
        let (Some(q), Some(k)) = (shape_of(self, 0), shape_of(self, 1)) else { return Ok(()) };
        let (items, heads) = (q.first().copied().unwrap_or(1), q.iter().rev().nth(2).copied().unwrap_or(1));
        let (rows, keys) = (q.iter().rev().nth(1).copied().unwrap_or(1), k.iter().rev().nth(1).copied().unwrap_or(1));
        let align = match self.u.int_in_range(0..=3u8)? {
            0 => json!("top_left"),
            1 => json!("bottom_right"),
            2 => json!({"offset": self.u.int_in_range(-9..=9i32)?}),
            _ => json!("per_item"),
        };
        let side = match self.u.int_in_range(0..=3u8)? {
            0 => Value::Null,
            1 => json::edge(self.u)?,
            _ => self.u.int_in_range(0..=5u32)?.into(),
        };
        let node = &mut self.document["nodes"][at];
        match self.u.int_in_range(0..=11u8)? {
            0 => node["causal"] = self.u.arbitrary::<bool>()?.into(),
            1 => node["align"] = align,
            2 => node["window"] = json!({"left": side}),
            3 => node["window"] = json!({"left": 3, "right": side}),
            4 => node["scale"] = (*self.u.choose(&[0.0, 1.0, -0.5, 1e-3])?).into(),
            5 => node["softcap"] = (*self.u.choose(&[1.0, 30.0, 0.0, -1.0])?).into(),
            6 => {
                let (kind, key) = *self.u.choose(&[(false, "score_mods"), (true, "mask_mods")])?;
                let text = String::from_utf8_lossy(&functions::function(self.u, kind)?).into_owned();
                node[key] = json!([text]);
            }
            _ => {
                let scores = [items, heads, rows, keys];
                let skip = self.u.choose_index(4)?;
                let mut of_scores: Vec<u64> = scores[skip..].to_vec();
                for size in &mut of_scores {
                    *size = if self.u.ratio(1, 4u8)? { 1 } else { *size };
                }
                let (operand, dtype, shape) = match self.u.int_in_range(0..=9u8)? {
                    0 | 1 => ("mask", "bool", of_scores),
                    2 | 3 => ("bias", *self.u.choose(&["f32", "f16"])?, of_scores),
                    4 => ("key_lengths", "i32", vec![items]),
                    5 => ("query_lengths", "i32", vec![items]),
                    6 => ("offsets", "i32", vec![items]),
                    7 => ("slopes", "f32", vec![heads]),
                    8 => ("sinks", "f32", vec![heads]),
                    _ => ("query_offsets", "i32", vec![items + 1]),
                };
                let mut new = Vec::new();
                let name = self.source(dtype, &shape, &mut new)?;
                let node = &mut self.document["nodes"][at];
                for (list, entry) in [("operands", operand), ("inputs", &name)] {
                    match node.get_mut(list).and_then(Value::as_array_mut) {
                        Some(items) => items.push(entry.into()),
                        None => node[list] = json!([entry]),
                    }
                }
                self.nodes().splice(at..at, new);
                self.learn();
            }
        }
        Ok(())
    }

    /// Outputs, states and traces.
    fn outputs(&mut self) -> Result<()> {
        let (Some(a), Some(b)) = (self.any()?, self.any()?) else { return Ok(()) };
        let fits = |known: &&Known| (known.dtype, &known.shape) == (self.known[a].dtype, &self.known[a].shape);
        let same: Vec<String> = self.known.iter().filter(fits).map(|known| known.label.clone()).collect();
        let (value, other) = (self.known[a].label.clone(), self.known[b].label.clone());
        let next = self.u.choose(&same)?.clone();
        let name = self.fresh();
        let kind = self.u.int_in_range(0..=5u8)?;
        let (list, entry) = match kind {
            0 | 1 => ("outputs", json!({"name": name, "value": value})),
            2 => ("outputs", json!({"name": other, "value": value})),
            3 | 4 => ("updates", json!({"state": value, "next": next})),
            _ => ("traces", json!({"path": name, "value": value})),
        };
        match self.document.get_mut(list).and_then(Value::as_array_mut) {
            Some(entries) => entries.push(entry),
            None => self.document[list] = json!([entry]),
        }
        Ok(())
    }

    /// Another seed beside this one, one of whose values may be read there.
    fn splice(&mut self) -> Result<()> {
        let mut other = seeds::graph(self.u)?;
        let mark = self.fresh();
        let rename = |label: &mut Value| {
            if let Some(text) = label.as_str() {
                *label = format!("{mark}.{text}").into();
            }
        };
        for node in other["nodes"].as_array_mut().into_iter().flatten() {
            for key in ["inputs", "outputs"] {
                node.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(rename);
            }
        }
        for output in other["outputs"].as_array_mut().into_iter().flatten() {
            ["name", "value"].into_iter().for_each(|key| rename(&mut output[key]));
        }
        for list in ["nodes", "outputs"] {
            let more = other[list].as_array().cloned().unwrap_or_default();
            if let Some(entries) = self.document[list].as_array_mut() {
                entries.extend(more);
            }
        }
        self.learn();
        self.rewire()
    }
}

fn replace(items: &mut [Value], old: u64, new: &Value) {
    items.iter_mut().filter(|item| item.as_u64() == Some(old)).for_each(|item| *item = new.clone());
}

/// The name of a function of a kind of operation; rarely one of another kind.
fn function(u: &mut Unstructured<'_>, kind: &str) -> Result<&'static str> {
    Ok(match kind {
        "unary" => u.choose(&Unary::ALL)?.name(),
        "binary" => u.choose(&Binary::ALL)?.name(),
        "reduce" => u.choose(&Reduce::ALL)?.name(),
        _ => "relu",
    })
}

/// Devices to lower for: the least of all, a software adapter, a large GPU.
fn profiles() -> [Profile; 3] {
    let portable = Profile::portable();
    let mut software = Profile::portable();
    software.kind = AdapterKind::Cpu;
    software.driver = "llvmpipe Mesa 22.3.6".into();
    software.subgroup = Some((8, 8));
    software.shader_int64 = true;
    software.limits.workgroup_bytes = 32 << 10;
    let mut large = Profile::portable();
    large.subgroup = Some((32, 32));
    (large.shader_f16, large.shader_int64) = (true, true);
    large.limits.workgroup_bytes = 48 << 10;
    large.limits.workgroup_invocations = 1024;
    large.limits.workgroup_size_x = 1024;
    large.limits.binding_bytes = 2 << 30;
    large.limits.buffer_bytes = 8 << 30;
    large.cooperative_matrices = vec![CooperativeMatrix::square(16, [DType::F16, DType::F32])];
    [portable, software, large]
}

/// Reads, verifies, prints, writes, and lowers for every profile, fused and not.
fn check(input: &[u8], profiles: &[Profile]) -> std::result::Result<Outcome, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Outcome::Refused) };
    let graph = match Graph::from_json(text) {
        Ok(graph) => graph,
        Err(error) if error.to_string().is_empty() => return Err("it is refused without a word".into()),
        Err(_) => return Ok(Outcome::Refused),
    };
    graph.verify().map_err(|error| format!("what was read does not verify: {error}"))?;
    let written = graph.to_json().map_err(|error| format!("what was read can't be written: {error}"))?;
    let again = Graph::from_json(&written).map_err(|error| format!("what was written can't be read: {error}"))?;
    if again.to_json().ok().as_ref() != Some(&written) {
        return Err("reading what was written gives another graph".into());
    }
    let _ = (graph.to_string(), graph.to_dot(), graph.without_twins().len());
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    for profile in profiles {
        for options in [Options::default(), Options::unfused()] {
            match lower::lower(&graph, profile, &options) {
                Ok(program) => {
                    program.verify().map_err(|error| format!("the program does not verify: {error}"))?;
                    let _ = program.to_string();
                }
                Err(error) => *refusals.entry(error.to_string()).or_default() += 1,
            }
        }
    }
    if refusals.contains_key("") {
        return Err("it does not lower, without a word".into());
    }
    let tried = 2 * profiles.len();
    Ok(if refusals.values().sum::<usize>() == tried { Outcome::Read } else { Outcome::Whole })
}
