//! Graphs as text and as pictures.

use std::fmt::{self, Write};

use super::{Align, Attention, Graph, Node, Op, ValueId};
use crate::tensor::{Data, Tensor};

/// A constant with more elements is printed without them.
const SHORT: usize = 8;

/// Columns are padded to at most so many characters; what is longer stands there whole.
const WIDEST: usize = 160;

/// One node a line, `results  type  = operation(operands) options`; a result that nobody uses is `_`. Behind `#` stand the
/// paths that gave the value, if it was [traced](Graph::trace).
///
/// ```
/// # use tilewise::{DType, Graph};
/// let mut g = Graph::new();
/// let x = g.input("x", DType::F32, [2, 3])?;
/// let w = g.parameter("w", DType::F32, [4, 3])?;
/// let y = g.matmul_transposed(x, w)?;
/// let y = g.softmax(y, -1)?;
/// g.output("y", y)?;
/// assert_eq!(g.to_string(), "\
/// x   f32 [2, 3]  = input
/// w   f32 [4, 3]  = parameter
/// %2  f32 [2, 4]  = matmul(x, w) transpose_b
/// %3  f32 [2, 4]  = softmax(%2) axis=1
/// output y = %3
/// ");
/// # Ok::<(), tilewise::Error>(())
/// ```
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, paths) = (self.used(), self.traces_by_value());
        let rows: Vec<[String; 3]> = self.nodes.iter().map(|node| self.row(node, &used, &paths)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(WIDEST);
        let (results, types) = (width(0), width(1));
        for [result, dtype, operation] in &rows {
            writeln!(f, "{result:results$}  {dtype:types$}  = {operation}")?;
        }
        for (name, value) in &self.outputs {
            writeln!(f, "output {name} = {}", self.label(*value))?;
        }
        for (name, _, next) in self.states() {
            writeln!(f, "update {name} = {}", self.label(next))?;
        }
        Ok(())
    }
}

impl Graph {
    /// The graph in the language of Graphviz: `dot -Tsvg`. Boxes are nodes, edges say dtype and shape.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph {\n  node [fontname=\"sans-serif\", fontsize=10];\n");
        let (used, paths) = (self.used(), self.traces_by_value());
        for (at, node) in self.nodes.iter().enumerate() {
            let name = self.value(node.outputs[0]).name.clone().map(|name| name + "\n").unwrap_or_default();
            let paths: String = paths[node.outputs[0].index()].iter().map(|path| format!("\n# {path}")).collect();
            let label = name + &operation(&node.op, "") + &paths;
            let shape = if node.op.is_source() { "ellipse" } else { "box" };
            let _ = writeln!(dot, "  n{at} [shape={shape}, label={}];", quoted(&label));
            for &input in &node.inputs {
                let _ = writeln!(dot, "  n{} -> n{at} [label={}];", self.value(input).node.0, self.edge(input, &used));
            }
        }
        for (at, (name, value)) in self.outputs.iter().enumerate() {
            let _ = writeln!(dot, "  o{at} [shape=ellipse, style=bold, label={}];", quoted(name));
            let _ = writeln!(dot, "  n{} -> o{at} [label={}];", self.value(*value).node.0, self.edge(*value, &used));
        }
        for (_, state, next) in self.states() {
            let (from, to) = (self.value(next).node.0, self.value(state).node.0);
            let _ = writeln!(dot, "  n{from} -> n{to} [style=dashed, constraint=false, label=\"next run\"];");
        }
        dot + "}\n"
    }

    /// Whether each value is an operand, an output or has a name.
    fn used(&self) -> Vec<bool> {
        let mut used: Vec<bool> = self.values.iter().map(|value| value.name.is_some()).collect();
        let operands = self.nodes.iter().flat_map(|node| &node.inputs);
        let kept = self.outputs.iter().map(|(_, value)| value).chain(self.updates.iter().map(|(_, next)| next));
        for value in operands.chain(kept) {
            used[value.index()] = true;
        }
        used
    }

    fn row(&self, node: &Node, used: &[bool], paths: &[Vec<&str>]) -> [String; 3] {
        let operands = node.inputs.iter().map(|&v| self.label(v)).collect::<Vec<_>>().join(", ");
        let operands = if node.op.is_source() { String::new() } else { format!("({operands})") };
        let results = node.outputs.iter().enumerate().map(|(i, &v)| match i == 0 || used[v.index()] {
            true => self.label(v),
            false => "_".to_string(),
        });
        let shown = node.outputs.iter().enumerate().filter(|&(i, v)| i == 0 || used[v.index()]);
        let types = shown.map(|(_, &v)| format!("{} {}", self.dtype(v), self.shape(v)));
        let paths = node.outputs.iter().flat_map(|v| &paths[v.index()]).copied().collect::<Vec<_>>().join(", ");
        let paths = if paths.is_empty() { paths } else { format!("  # {paths}") };
        let operation = operation(&node.op, &operands) + &paths;
        [results.collect::<Vec<_>>().join(", "), types.collect::<Vec<_>>().join(", "), operation]
    }

    fn edge(&self, value: ValueId, used: &[bool]) -> String {
        let outputs = &self.definition(value).outputs;
        let several = outputs.iter().filter(|v| used[v.index()]).count() > 1;
        let which = if several { format!("{}: ", self.label(value)) } else { String::new() };
        quoted(&format!("{which}{} {}", self.dtype(value), self.shape(value)))
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// `matmul(x, w) transpose_b`; the operands come with their parentheses, or not at all.
fn operation(op: &Op, operands: &str) -> String {
    let prefix = if matches!(op, Op::Reduce { .. }) { "reduce_" } else { "" };
    options(op).into_iter().fold(format!("{prefix}{}{operands}", op.name()), |text, option| text + " " + &option)
}

/// What an operation says beside its operands and their types, without what is usual.
fn options(op: &Op) -> Vec<String> {
    let flag = |name: &str, on: bool| on.then(|| name.to_string());
    let list = match op {
        Op::Constant { value } => vec![elements(value)],
        Op::Matmul { transpose_a, transpose_b } => {
            vec![flag("transpose_a", *transpose_a), flag("transpose_b", *transpose_b)]
        }
        Op::Attention(attention) | Op::AttentionGrad(attention) => return attention_options(attention),
        Op::LayerNorm { axes, epsilon, .. } | Op::RmsNorm { axes, epsilon, .. } => {
            vec![(*axes != 1).then(|| format!("axes={axes}")), Some(format!("epsilon={epsilon:?}"))]
        }
        Op::Softmax { axis } | Op::LogSoftmax { axis } | Op::Concat { axis } | Op::Gather { axis } => {
            vec![Some(format!("axis={axis}"))]
        }
        Op::CrossEntropy { ignore, smoothing, .. } => {
            let smoothed = *smoothing != 0.0;
            vec![ignore.map(|ignore| format!("ignore={ignore}")), smoothed.then(|| format!("smoothing={smoothing:?}"))]
        }
        Op::Dropout { p, stream } => vec![Some(format!("p={p:?}")), Some(format!("stream={stream}"))],
        Op::ScatterAdd { axis, size } => vec![Some(format!("axis={axis}")), Some(format!("size={size}"))],
        Op::Reduce { axes, keep, .. } => vec![Some(format!("axes={axes:?}")), flag("keep", *keep)],
        Op::Argmax { axis, keep, last } => {
            vec![Some(format!("axis={axis}")), flag("keep", *keep), flag("last", *last)]
        }
        Op::Dequantize(packing) => vec![Some(packing.to_string())],
        Op::Rotary { interleaved } => vec![flag("interleaved", *interleaved)],
        Op::Append { axis, circular } => vec![Some(format!("axis={axis}")), flag("circular", *circular)],
        Op::Permute { order } => vec![Some(format!("order={order:?}"))],
        Op::Slice { starts, steps, .. } => {
            let stepped = steps.iter().any(|&step| step != 1);
            vec![Some(format!("starts={starts:?}")), stepped.then(|| format!("steps={steps:?}"))]
        }
        Op::Pad { before, after, value } => {
            vec![Some(format!("before={before:?}")), Some(format!("after={after:?}")), Some(format!("value={value:?}"))]
        }
        // Dtype and shape of the result stand before the operation.
        Op::Input { .. }
        | Op::Parameter { .. }
        | Op::Unary { .. }
        | Op::Binary { .. }
        | Op::Where
        | Op::Cast { .. }
        | Op::Reshape { .. }
        | Op::Broadcast { .. }
        | Op::AppendPaged
        | Op::AttentionMerge => vec![],
    };
    list.into_iter().flatten().collect()
}

fn attention_options(attention: &Attention) -> Vec<String> {
    let Attention { scale, softcap, causal, window, align, score_mods, mask_mods, operands } = attention;
    let align = match align {
        Align::TopLeft => None,
        Align::BottomRight => Some("bottom_right".to_string()),
        Align::Offset(offset) => Some(format!("offset={offset}")),
        Align::PerItem => None,
    };
    let side = |size: Option<u32>| size.map_or("∞".to_string(), |size| size.to_string());
    let options = [
        (!operands.is_empty()).then(|| {
            let names: Vec<&str> = operands.iter().map(|operand| operand.name()).collect();
            format!("with {}", names.join(", "))
        }),
        causal.then(|| "causal".to_string()),
        (*window != super::Window::default()).then(|| format!("window={}..{}", side(window.left), side(window.right))),
        align,
        scale.map(|scale| format!("scale={scale:?}")),
        softcap.map(|softcap| format!("softcap={softcap:?}")),
    ];
    let scores = score_mods.iter().map(|function| format!("score_mod={:?}", function.text()));
    let masks = mask_mods.iter().map(|function| format!("mask_mod={:?}", function.text()));
    options.into_iter().flatten().chain(scores).chain(masks).collect()
}

fn elements(value: &Tensor) -> Option<String> {
    if value.len() > SHORT {
        return None;
    }
    Some(match value.data() {
        Data::F32(v) => format!("{v:?}"),
        Data::F16(v) => format!("{v:?}"),
        Data::BF16(v) => format!("{v:?}"),
        Data::I32(v) => format!("{v:?}"),
        Data::U32(v) => format!("{v:?}"),
        Data::Bool(v) => format!("{v:?}"),
    })
}
