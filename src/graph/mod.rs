//! Floor 1: the graph — what is computed, not how.
//!
//! A [`Graph`] is a list of [`Node`]s. Each node applies one [`Op`] to values of earlier nodes and defines one or more new
//! values. Rules, which construction keeps and [`Graph::verify`] checks again after every pass:
//!
//! 1. A node's operands are values of earlier nodes: the order of the list is an order of execution.
//! 2. Every value has the dtype and shape that inference gives for its node.
//! 3. Inputs and parameters have a name; names of values are unique. A value without a name prints as `%N`.
//! 4. Outputs have unique names and are values of the graph; an output may be an input or a parameter.
//! 5. A node without users has no effect. The one thing that outlives a run is a *state*: an input that stays on the device
//!    and takes, after each run, the value that its update names (of the same dtype and shape). States are zero at
//!    first. All nodes read a state as it was before the run.
//!
//! ```
//! use tilewise::{DType, Graph};
//! let mut g = Graph::new();
//! let x = g.input("x", DType::F32, [2, 3])?;
//! let w = g.parameter("w", DType::F32, [4, 3])?;
//! let y = g.linear(x, w, None)?;
//! let y = g.gelu(y)?;
//! g.output("y", y)?;
//! assert_eq!(g.shape(y), &[2, 4].into());
//! # Ok::<(), tilewise::Error>(())
//! ```
//!
//! # Errors
//!
//! A graph is checked while it is built. [`Error::Op`] names the operation, what was given and what was expected;
//! [`Error::Graph`] is about names and the rules above. Every method that adds a node also gives [`Error::Op`] for a value of
//! another graph that this one doesn't have, and [`Error::Limit`] for a result of more than 2³¹ − 1 elements; the methods
//! themselves say the rest.
//!
//! ```
//! use tilewise::{DType, Graph};
//! let mut g = Graph::new();
//! let x = g.input("x", DType::F32, [2, 3])?;
//! let error = g.matmul(x, x).unwrap_err();
//! assert_eq!(error.to_string(), "matmul: `a` [2, 3] has inner size 3, `b` [2, 3] has 2");
//! # Ok::<(), tilewise::Error>(())
//! ```

mod attention;
mod attention_grad;
mod behind;
mod build;
mod cross_entropy;
mod dropout;
mod function;
mod id;
mod infer;
mod json;
mod known;
mod leading;
mod lexis;
mod mask;
mod op;
mod operand;
mod pointwise;
mod print;
mod quantize;
mod trace;
mod twin;
mod verify;
mod weights;
mod wgsl;
mod written_out;

use std::collections::{HashMap, HashSet};

pub(crate) use attention::Extent;
pub use attention::{Align, Attention, AttentionFault, AttentionOperand, AttentionResults, Window};
pub(crate) use attention::{AttentionSizes, FARTHEST, short_of};
pub(crate) use attention_grad::BiasGrad;
use behind::Behind;
pub use cross_entropy::{CrossEntropyArgs, CrossEntropyResults};
pub(crate) use dropout::SEED_WORDS;
pub use function::{Function, FunctionKind, MaskMod, MaskTwin, Pair, ScoreMod, ScoreTwin, Scored};
pub use id::{NodeId, ValueId};
pub use infer::infer;
pub use mask::{AttentionArgs, Mask};
pub use op::{Op, Reduce};
pub use pointwise::{Binary, Unary};
pub use quantize::{QuantizedParameter, QuantizedValue};
pub use weights::ScoreStage;
pub(crate) use written_out::{Reason, Term, Terms};

use crate::{
    Error, Result,
    tensor::{DType, Shape},
};

/// One operation with its operands and results.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Operands, in the order that the operation documents.
    pub inputs: Vec<ValueId>,
    /// Results, in the order that the operation documents.
    pub outputs: Vec<ValueId>,
}

/// A value: name, dtype, shape, and the node that defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
    /// The node that defines it.
    pub node: NodeId,
}

/// A list of operations on tensors; see the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    values: Vec<Value>,
    outputs: Vec<(String, ValueId)>,
    updates: Vec<(ValueId, ValueId)>,
    traces: Vec<(String, ValueId)>,
    // What the lists above say, to be found at once.
    names: HashMap<String, ValueId>,
    output_names: HashSet<String>,
    next: HashMap<ValueId, ValueId>,
    paths: HashMap<String, ValueId>,
    /// How often a path was left, by the path without `#2`.
    calls: HashMap<String, usize>,
    /// By value.
    behind: Vec<Behind>,
    /// The first stream of random numbers from which on none is taken.
    free_stream: u64,
}

/// Equal lists; what is found in them is then equal too.
impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        let Graph { nodes, values, outputs, updates, traces, .. } = self;
        (nodes, values, outputs, updates, traces)
            == (&other.nodes, &other.values, &other.outputs, &other.updates, &other.traces)
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Graph::default()
    }

    /// The nodes, in an order of execution.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The values, in the order of the nodes that define them.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The outputs, by name, in the order in which they were declared.
    pub fn outputs(&self) -> &[(String, ValueId)] {
        &self.outputs
    }

    /// The value of this name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// The record of a value. A value of another graph that has no counterpart here reads as an f32 scalar; the
    /// operation that takes it then fails, and says that it is no value of this graph.
    pub fn value(&self, value: ValueId) -> &Value {
        static STRANGER: Value = Value { name: None, dtype: DType::F32, shape: Shape::SCALAR, node: NodeId(0) };
        self.values.get(value.index()).unwrap_or(&STRANGER)
    }

    /// A node of this graph.
    ///
    /// # Panics
    /// If the graph has no such node.
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    /// The node that defines a value of this graph.
    ///
    /// # Panics
    /// If the graph has no nodes.
    pub fn definition(&self, value: ValueId) -> &Node {
        self.node(self.value(value).node)
    }

    /// The value that a chain of views looks at: the value itself, if it is no view.
    pub(crate) fn base(&self, value: ValueId) -> ValueId {
        self.behind.get(value.index()).map_or(value, |behind| behind.base)
    }

    /// The number that every element of a value is, if the graph says so.
    pub(crate) fn uniform(&self, value: ValueId) -> Option<f64> {
        self.behind.get(value.index())?.uniform
    }

    /// The shape of a value.
    pub fn shape(&self, value: ValueId) -> &Shape {
        &self.value(value).shape
    }

    /// The dtype of a value.
    pub fn dtype(&self, value: ValueId) -> DType {
        self.value(value).dtype
    }

    /// The name of a value, or `%N`.
    pub fn label(&self, value: ValueId) -> String {
        self.value(value).name.clone().unwrap_or_else(|| format!("%{}", value.0))
    }

    /// The inputs that are given for each run, in order, with their names.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, ValueId)> {
        self.sources(|op| matches!(op, Op::Input { .. })).filter(|(_, value)| self.update_of(*value).is_none())
    }

    /// The inputs and parameters that stay on the device and change there, in order: name, value, and the value after a run.
    pub fn states(&self) -> impl Iterator<Item = (&str, ValueId, ValueId)> {
        let given = self.sources(Op::is_given);
        given.filter_map(|(name, value)| Some((name, value, self.update_of(value)?)))
    }

    /// The value of a state after a run; `None` if this is no state.
    pub fn update_of(&self, value: ValueId) -> Option<ValueId> {
        self.next.get(&value).copied()
    }

    /// The parameters, in order, with their names: also those that are states.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, ValueId)> {
        self.sources(|op| matches!(op, Op::Parameter { .. }))
    }

    fn sources(&self, wanted: fn(&Op) -> bool) -> impl Iterator<Item = (&str, ValueId)> {
        self.nodes.iter().filter(move |node| wanted(&node.op)).map(|node| {
            let value = node.outputs[0];
            (self.value(value).name.as_deref().unwrap_or_default(), value)
        })
    }

    /// Appends a node and infers its results. Every other builder method ends here.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, graph::Op, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2], vec![3.0f32, 4.0])?)?;
    /// let results = g.push(Op::RmsNorm { axes: 1, epsilon: 0.0, weight: false }, &[x])?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(results[1]).to_f64(), [1.0 / 12.5f64.sqrt()]); // 1/√(mean(x²))
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if an operand is no value of this graph, if the operands don't fit the operation ([`infer`]), or
    /// if one is a constant and holds a length, offset, page or position out of range. [`Error::Limit`] if a result has
    /// more than 2³¹ − 1 elements.
    pub fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        if let Some(stranger) = inputs.iter().find(|v| v.index() >= self.values.len()) {
            return Err(Error::op(op.name(), format!("operand %{} is no value of this graph", stranger.0)));
        }
        let operands: Vec<(DType, &Shape)> = inputs.iter().map(|&v| (self.dtype(v), self.shape(v))).collect();
        let results = infer(&op, &operands)?;
        self.check_known(&op, inputs)?;
        if let Op::Dropout { stream, .. } = op {
            self.free_stream = self.free_stream.max(u64::from(stream) + 1);
        }
        let node = NodeId(self.nodes.len() as u32);
        let first = self.values.len() as u32;
        let outputs: Vec<ValueId> = (first..first + results.len() as u32).map(ValueId).collect();
        let under = inputs.first().map(|input| self.behind[input.index()]);
        self.behind.extend(outputs.iter().map(|&result| Behind::of(&op, result, under)));
        self.values.extend(results.into_iter().map(|(dtype, shape)| Value { name: None, dtype, shape, node }));
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.clone() });
        Ok(outputs)
    }

    /// What several nodes are built for: without them, if one of them is refused.
    fn all_or_nothing<T>(&mut self, build: impl FnOnce(&mut Graph) -> Result<T>) -> Result<T> {
        let (nodes, values) = (self.nodes.len(), self.values.len());
        let built = build(self);
        if built.is_err() {
            self.nodes.truncate(nodes);
            self.values.truncate(values);
        }
        built
    }

    /// Gives a value a name, in place of the one that it has. It is printed and found by it.
    ///
    /// ```
    /// # use tilewise::{DType, Graph};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.name(y, "activated")?;
    /// assert_eq!(g.find("activated"), Some(y));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] if the name is empty, begins with `%` or is another value's, or if the value is not of this
    /// graph.
    pub fn name(&mut self, value: ValueId, name: impl Into<String>) -> Result<()> {
        let name = name.into();
        if name.is_empty() || name.starts_with('%') {
            return Err(Error::Graph(format!("`{name}` can't be a name: names are not empty and don't start with %")));
        }
        if value.index() >= self.values.len() {
            return Err(Error::Graph(format!("`{name}`: %{} is no value of this graph", value.0)));
        }
        if let Some(&other) = self.names.get(&name)
            && other != value
        {
            return Err(Error::Graph(format!(
                "the name `{name}` is taken by another value ({})",
                self.describe(other)
            )));
        }
        if let Some(old) = self.values[value.index()].name.replace(name.clone()) {
            self.names.remove(&old);
        }
        self.names.insert(name, value);
        Ok(())
    }

    /// Declares an output: a value that a run gives back, by name.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::scalar(3.0))?;
    /// let y = g.neg(x)?;
    /// g.output("y", y)?;
    /// assert_eq!(reference::evaluate(&g, &Default::default())?["y"], Tensor::scalar(-3.0));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] if the name is empty or another output's, or if the value is not of this graph.
    pub fn output(&mut self, name: impl Into<String>, value: ValueId) -> Result<()> {
        let name = name.into();
        if name.is_empty() {
            return Err(Error::Graph("an output's name is empty".into()));
        }
        if self.output_names.contains(&name) {
            return Err(Error::Graph(format!("there are two outputs `{name}`")));
        }
        if value.index() >= self.values.len() {
            return Err(Error::Graph(format!("output `{name}`: %{} is no value of this graph", value.0)));
        }
        self.output_names.insert(name.clone());
        self.outputs.push((name, value));
        Ok(())
    }

    /// Makes an input or a parameter a state: it stays on the device, and after each run its value is `next`. At first an input is
    /// zero, and a parameter what is given when the program is loaded: so parameters are trained.
    ///
    /// ```
    /// use tilewise::{DType, Graph};
    /// let mut g = Graph::new();
    /// let cache = g.input("cache", DType::F32, [1, 8, 100, 64])?;
    /// let new = g.input("new", DType::F32, [1, 8, 1, 64])?;
    /// let position = g.input("position", DType::I32, [1])?;
    /// let (grown, dropped) = g.append(cache, new, position, 2, false)?;
    /// g.update(cache, grown)?;
    /// g.output("dropped", dropped)?;
    /// assert_eq!(g.inputs().count(), 2);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] if `state` is no input and no parameter or has an update already, if `next` differs from it in dtype or shape,
    /// or if one of them is no value of this graph.
    pub fn update(&mut self, state: ValueId, next: ValueId) -> Result<()> {
        let fail = |message: String| Err(Error::Graph(format!("update: {message}")));
        for value in [state, next] {
            if value.index() >= self.values.len() {
                return fail(format!("%{} is no value of this graph", value.0));
            }
        }
        if !self.definition(state).op.is_given() {
            return fail(format!("{} is no input and no parameter", self.describe(state)));
        }
        if self.update_of(state).is_some() {
            return fail(format!("{} has an update already", self.describe(state)));
        }
        if (self.dtype(state), self.shape(state)) != (self.dtype(next), self.shape(next)) {
            return fail(format!("{} can't become {}", self.describe(state), self.describe(next)));
        }
        self.next.insert(state, next);
        self.updates.push((state, next));
        Ok(())
    }

    /// The nodes that use each value, by the value's index; a node that uses one twice is listed twice.
    pub fn users(&self) -> Vec<Vec<NodeId>> {
        let mut users = vec![Vec::new(); self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for input in &node.inputs {
                users[input.index()].push(NodeId(i as u32));
            }
        }
        users
    }

    /// The same graph with other shapes for some of its inputs and parameters. Every other shape is inferred anew.
    ///
    /// Shapes that an operation fixes (reshape, slice, broadcast) stay as they are, and may not fit any more.
    ///
    /// ```
    /// # use tilewise::{DType, Graph};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [1, 8])?;
    /// let y = g.softmax(x, -1)?;
    /// let longer = g.with_shapes(&[("x", [1, 100].into())])?;
    /// assert_eq!(longer.shape(y), &[1, 100].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] if there is no input or parameter of a name, or if a state and its update come to differ;
    /// [`Error::Op`], which names the operation, if operands don't fit any more; [`Error::Limit`] if a value has more
    /// than 2³¹ − 1 elements.
    pub fn with_shapes(&self, shapes: &[(&str, Shape)]) -> Result<Graph> {
        for (name, _) in shapes {
            let known = self.find(name).is_some_and(|v| self.definition(v).op.is_source());
            if !known {
                return Err(Error::Graph(format!("there is no input or parameter `{name}`")));
            }
        }
        // The first of a name counts.
        let shapes: HashMap<&str, &Shape> = shapes.iter().rev().map(|(name, shape)| (*name, shape)).collect();
        let mut graph = Graph::new();
        for node in &self.nodes {
            let mut op = node.op.clone();
            if let Op::Input { shape, .. } | Op::Parameter { shape, .. } = &mut op
                && let Some(name) = &self.value(node.outputs[0]).name
                && let Some(&new) = shapes.get(name.as_str())
            {
                shape.clone_from(new);
            }
            let outputs = graph.push(op, &node.inputs)?;
            for (&new, &old) in outputs.iter().zip(&node.outputs) {
                if let Some(name) = &self.value(old).name {
                    graph.name(new, name.clone())?;
                }
            }
        }
        graph.outputs.clone_from(&self.outputs);
        graph.output_names.clone_from(&self.output_names);
        graph.traces.clone_from(&self.traces);
        graph.paths.clone_from(&self.paths);
        graph.calls.clone_from(&self.calls);
        for &(state, next) in &self.updates {
            graph.update(state, next)?;
        }
        Ok(graph)
    }

    /// `name: f32 [2, 3]`, for messages.
    pub fn describe(&self, value: ValueId) -> String {
        format!("{}: {} {}", self.label(value), self.dtype(value), self.shape(value))
    }
}
