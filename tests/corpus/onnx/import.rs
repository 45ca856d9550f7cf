//! From nodes of ONNX to operations of the graph.

use std::collections::{BTreeMap, HashMap};

use tilewise::{DType, Error, Graph, Shape, Tensor, ValueId, graph::Op};

use super::case::{Case, Node};
use crate::Source;

/// Why there is no graph for a case.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A dtype or option that the operator doesn't take here.
    LeftOut { operator: String, what: String },
    /// A graph that could not be built, or a case that makes no sense.
    Fault(String),
}

pub(crate) type Result<T, E = Refusal> = std::result::Result<T, E>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Fault(error.to_string())
    }
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// A tensor of the case. Where it is data it becomes an input of the graph; where it says shapes or axes it is read.
    Given(Source),
    /// Computed by the graph.
    Value(ValueId),
    /// Known while the graph is built: computed from shapes.
    Known(Known),
}

/// Integers that depend on shapes alone.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) shape: Shape,
    pub(crate) values: Vec<i64>,
}

impl From<ValueId> for Slot {
    fn from(value: ValueId) -> Self {
        Slot::Value(value)
    }
}

/// Makes the operations of one node.
pub(crate) type Builder = fn(&mut Call<'_>) -> Result<Vec<Slot>>;

/// The builder for an operator, if there is one.
pub(crate) fn find(operator: &str) -> Option<Builder> {
    [
        super::pointwise::find,
        super::matmul::find,
        super::norm::find,
        super::reduce::find,
        super::layout::find,
        super::gather::find,
        super::attention::find,
        super::rotary::find,
        super::recurrence::find,
        super::loss::find,
        super::optimizer::find,
    ]
    .into_iter()
    .find_map(|find| find(operator))
}

/// A graph in the making.
pub(crate) struct Import {
    pub(crate) graph: Graph,
    /// What the graph's inputs are bound to.
    pub(crate) inputs: BTreeMap<String, Tensor>,
    slots: HashMap<String, Slot>,
    /// Tensors of the case that are inputs of the graph already.
    bound: HashMap<String, ValueId>,
    opset: i64,
}

/// One node and its place in the graph.
pub(crate) struct Call<'a> {
    import: &'a mut Import,
    pub(crate) node: &'a Node,
}

impl Import {
    pub(crate) fn new(case: &Case) -> Self {
        let slots = case.inputs.iter().map(|(name, source)| (name.clone(), Slot::Given(source.clone()))).collect();
        Import { graph: Graph::new(), inputs: BTreeMap::new(), slots, bound: HashMap::new(), opset: case.opset }
    }

    /// Builds nodes in order.
    pub(crate) fn nodes(&mut self, nodes: &[Node]) -> Result<()> {
        for node in nodes {
            let build = find(&node.op).ok_or_else(|| Refusal::Fault(format!("there is no {}", node.op)))?;
            let results = build(&mut Call { import: self, node })?;
            for (name, slot) in node.outputs.iter().zip(results) {
                if let Some(name) = name {
                    self.slots.insert(name.clone(), slot);
                }
            }
        }
        Ok(())
    }

    /// Declares the outputs that the case expects.
    pub(crate) fn outputs(&mut self, case: &Case) -> Result<()> {
        for name in case.expected.keys() {
            match self.slots.get(name) {
                Some(&Slot::Value(value)) => self.graph.output(name, value)?,
                _ => return Err(Refusal::Fault(format!("no node computes the output `{name}`"))),
            }
        }
        Ok(())
    }

    /// A graph inside a node, with names of its own: `operands` are what its inputs stand for.
    pub(crate) fn subgraph(
        &mut self,
        nodes: &[Node],
        slots: HashMap<String, Slot>,
        results: &[String],
    ) -> Result<Vec<Slot>> {
        let outer = std::mem::replace(&mut self.slots, slots);
        let built = self.nodes(nodes);
        let inner = std::mem::replace(&mut self.slots, outer);
        built?;
        let missing = |name: &String| Refusal::Fault(format!("no node computes the output `{name}`"));
        results.iter().map(|name| inner.get(name).cloned().ok_or_else(|| missing(name))).collect()
    }
}

impl<'a> Call<'a> {
    pub(crate) fn g(&mut self) -> &mut Graph {
        &mut self.import.graph
    }

    pub(crate) fn import(&mut self) -> &mut Import {
        self.import
    }

    pub(crate) fn opset(&self) -> i64 {
        self.import.opset
    }

    pub(crate) fn fault<T>(&self, why: impl std::fmt::Display) -> Result<T> {
        Err(Refusal::Fault(format!("{}: {why}", self.node.op)))
    }

    pub(crate) fn left_out<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(Refusal::LeftOut { operator: self.node.op.clone(), what: what.into() })
    }

    /// Whether operand `i` is there.
    pub(crate) fn has(&self, i: usize) -> bool {
        self.name(i).is_some()
    }

    /// Whether result `i` is wanted.
    pub(crate) fn wants(&self, i: usize) -> bool {
        matches!(self.node.outputs.get(i), Some(Some(_)))
    }

    fn name(&self, i: usize) -> Option<&'a str> {
        self.node.inputs.get(i)?.as_deref()
    }

    /// What operand `i` stands for.
    pub(crate) fn slot(&self, i: usize) -> Result<&Slot> {
        match self.name(i).and_then(|name| self.import.slots.get(name)) {
            Some(slot) => Ok(slot),
            None => self.fault(format!("operand {i} is missing")),
        }
    }

    /// The rank of operand `i`, which is data.
    pub(crate) fn rank(&mut self, i: usize) -> Result<usize> {
        let x = self.x(i)?;
        Ok(self.shape(x).rank())
    }

    /// Operand `i` as data.
    pub(crate) fn x(&mut self, i: usize) -> Result<ValueId> {
        let tensor = match self.slot(i)? {
            Slot::Given(source) => match source.tensor() {
                Some(tensor) => tensor,
                None => return self.left_out(format!("data of {}", source.dtype_name())),
            },
            _ => return self.index(i),
        };
        self.bind(i, tensor)
    }

    /// Operand `i` as indices, lengths or positions: i32.
    pub(crate) fn index(&mut self, i: usize) -> Result<ValueId> {
        match self.slot(i)?.clone() {
            Slot::Value(value) => Ok(value),
            Slot::Given(source) => match source.index() {
                Some(tensor) => self.bind(i, tensor),
                None => self.fault(format!("operand {i} is {}, expected indices", source.dtype_name())),
            },
            Slot::Known(known) => self.known(&known),
        }
    }

    /// A constant of integers that are known.
    pub(crate) fn known(&mut self, known: &Known) -> Result<ValueId> {
        let narrow: std::result::Result<Vec<i32>, _> = known.values.iter().map(|&x| i32::try_from(x)).collect();
        match narrow {
            Ok(values) => Ok(self.g().constant(Tensor::new(&known.shape, values)?)?),
            Err(_) => self.fault("an index does not fit i32"),
        }
    }

    fn bind(&mut self, i: usize, tensor: Tensor) -> Result<ValueId> {
        let Some(name) = self.name(i) else { return self.fault(format!("operand {i} is missing")) };
        if let Some(value) = self.import.bound.get(name) {
            return Ok(*value);
        }
        let value = self.import.graph.input(name, tensor.dtype(), tensor.shape())?;
        self.import.inputs.insert(name.to_string(), tensor);
        self.import.bound.insert(name.to_string(), value);
        Ok(value)
    }

    /// Operand `i` as data, if it is there.
    pub(crate) fn optional(&mut self, i: usize) -> Result<Option<ValueId>> {
        if self.has(i) { self.x(i).map(Some) } else { Ok(None) }
    }

    /// All operands as data.
    pub(crate) fn all(&mut self) -> Result<Vec<ValueId>> {
        (0..self.node.inputs.len()).map(|i| self.x(i)).collect()
    }

    /// The integers of operand `i`, which say shapes, axes or sizes; `None` if it is not there.
    pub(crate) fn read(&self, i: usize) -> Result<Option<Vec<i64>>> {
        if !self.has(i) {
            return Ok(None);
        }
        match self.slot(i)? {
            Slot::Known(known) => Ok(Some(known.values.clone())),
            Slot::Given(source) => match source.integers() {
                Some(values) => Ok(Some(values)),
                None => self.fault(format!("operand {i} is {}, expected integers", source.dtype_name())),
            },
            Slot::Value(_) => self.fault(format!("operand {i} is computed, but shapes depend on it")),
        }
    }

    /// The numbers of operand `i`, of any dtype, where shapes depend on them.
    pub(crate) fn read_numbers(&self, i: usize) -> Result<Vec<f64>> {
        if let Slot::Given(source) = self.slot(i)?
            && let Some(tensor) = source.tensor()
        {
            return Ok(tensor.to_f64());
        }
        Ok(self.read(i)?.unwrap_or_default().into_iter().map(|x| x as f64).collect())
    }

    /// Integers from an operand, or in older opsets from an attribute.
    pub(crate) fn read_or_attribute(&self, i: usize, name: &str) -> Result<Option<Vec<i64>>> {
        Ok(self.read(i)?.or_else(|| self.node.ints(name)))
    }

    pub(crate) fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.g().push(op, inputs)?[0])
    }

    pub(crate) fn shape(&self, value: ValueId) -> Shape {
        self.import.graph.shape(value).clone()
    }

    pub(crate) fn dtype(&self, value: ValueId) -> DType {
        self.import.graph.dtype(value)
    }

    /// An axis that may count from the end, for a tensor of this rank (one more for places between axes).
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        if (0..rank as i64).contains(&at) { Ok(at as usize) } else { self.fault(format!("axis {axis} of rank {rank}")) }
    }

    /// An attribute that has a default in ONNX's schema.
    pub(crate) fn float(&self, name: &str) -> Result<f64> {
        self.node.float(name).map_or_else(|| self.fault(format!("there is no attribute `{name}`")), Ok)
    }

    /// `0, 1, 2, …` as i32 `[n]`.
    pub(crate) fn iota(&mut self, n: usize) -> Result<ValueId> {
        Ok(self.g().constant(Tensor::new([n], (0..n as i32).collect::<Vec<i32>>())?)?)
    }

    /// Indices that may count from the end, as indices from the start.
    pub(crate) fn wrapped(&mut self, index: ValueId, size: usize) -> Result<ValueId> {
        let g = self.g();
        let (zero, size) = (g.scalar(0.0, index)?, g.scalar(size as f64, index)?);
        let (negative, shifted) = (g.binary(tilewise::graph::Binary::Less, index, zero)?, g.add(index, size)?);
        Ok(g.select(negative, shifted, index)?)
    }
}
