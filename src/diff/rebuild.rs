//! A part of a graph built anew, up to one value: from the values that the dump has, and with edits on the way.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
};

use crate::{
    DType, Error, Graph, Result, Shape, Tensor, ValueId,
    graph::Op,
    reference::{Evaluation, Real, Value},
};

/// How an edited value is computed instead.
pub(super) type Build = Rc<dyn Fn(&mut Rebuild<'_>) -> Result<ValueId>>;

/// One value that is computed in another way.
#[derive(Clone)]
pub(super) struct Edit {
    pub(super) value: ValueId,
    pub(super) build: Build,
}

impl Edit {
    pub(super) fn new(value: ValueId, build: impl Fn(&mut Rebuild<'_>) -> Result<ValueId> + 'static) -> Self {
        Edit { value, build: Rc::new(build) }
    }
}

/// What there is to start from.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Inputs and parameters of the graph, by name; more may be given.
    pub(super) given: BTreeMap<String, Tensor>,
    /// Values of the dump, in the graph's dtypes.
    pub(super) theirs: HashMap<ValueId, Tensor>,
}

/// The part of `source` that `target` needs, as a graph of its own. Values are asked for from the end, so what an edit makes
/// superfluous is not built.
pub(super) struct Rebuild<'a> {
    pub(super) g: Graph,
    source: &'a Graph,
    known: &'a Known,
    target: ValueId,
    edits: &'a [Edit],
    built: HashMap<ValueId, ValueId>,
    open: HashSet<ValueId>,
    /// Edits apply; not while a value is [replayed](Rebuild::replay).
    edited: bool,
}

/// A part that was built, with what it reads.
pub(super) struct Part {
    pub(super) graph: Graph,
    inputs: BTreeMap<String, Tensor>,
    result: ValueId,
    /// The values of the source graph that were computed.
    pub(super) computed: Vec<ValueId>,
    /// The values of the dump, and the inputs of the graph, that were read.
    pub(super) read: Vec<ValueId>,
}

impl Part {
    /// Builds what `target` needs. An error if an edit does not fit.
    pub(super) fn new(source: &Graph, known: &Known, target: ValueId, edits: &[Edit]) -> Result<Part> {
        let mut rebuild = Rebuild {
            g: Graph::new(),
            source,
            known,
            target,
            edits,
            built: HashMap::new(),
            open: HashSet::new(),
            edited: true,
        };
        let result = rebuild.value(target)?;
        let Rebuild { g: graph, built, .. } = rebuild;
        if (graph.shape(result), graph.dtype(result)) != (source.shape(target), source.dtype(target)) {
            return Err(Error::Graph(format!("{} became {}", source.describe(target), graph.describe(result))));
        }
        let mut computed: Vec<ValueId> = built.keys().copied().collect();
        computed.sort_unstable();
        let is_read = |v: &ValueId| *v != target && known.theirs.contains_key(v) || is_input(source, *v);
        let (read, computed) = computed.into_iter().partition(is_read);
        let mut inputs = BTreeMap::new();
        for (name, _) in graph.inputs().chain(graph.parameters()) {
            let tensor = match name.strip_prefix(THEIRS).and_then(|number| number.parse().ok()) {
                Some(number) => known.theirs.get(&ValueId(number)),
                None => known.given.get(name),
            };
            let tensor = tensor.ok_or_else(|| Error::Binding(format!("`{name}` is missing")))?;
            inputs.insert(name.to_string(), tensor.clone());
        }
        Ok(Part { graph, inputs, result, computed, read })
    }

    /// The value, in some arithmetic.
    pub(super) fn evaluate<R: Real>(&self) -> Result<Value<R>> {
        Ok(Evaluation::<R>::new(&self.graph, &self.inputs)?.value(self.result).clone())
    }

    /// Arithmetic on the longest way to the result, and the longest sum on it.
    pub(super) fn depth(&self) -> (usize, usize) {
        depths(&self.graph)[self.result.index()]
    }
}

/// What the inputs that stand for values of the dump are called.
const THEIRS: &str = "value ";

pub(super) fn is_input(g: &Graph, v: ValueId) -> bool {
    matches!(g.definition(v).op, Op::Input { .. })
}

/// For each value: the number of operations with rounding on the longest way to it, and the longest sum of products.
pub(super) fn depths(g: &Graph) -> Vec<(usize, usize)> {
    let mut all: Vec<(usize, usize)> = Vec::with_capacity(g.values().len());
    for node in g.nodes() {
        let most = |f: fn(&(usize, usize)) -> usize| node.inputs.iter().map(|v| f(&all[v.index()])).max().unwrap_or(0);
        let (depth, sum) = (most(|d| d.0), most(|d| d.1));
        let longest = |i: usize| g.shape(node.inputs[i]).iter().copied().max().unwrap_or(0);
        let moves = matches!(node.op, Op::Where | Op::Concat { .. } | Op::Gather { .. } | Op::Pad { .. });
        let here = if let Op::Matmul { .. } = node.op {
            (depth + 1, sum.max(g.shape(node.inputs[0]).last().copied().unwrap_or(0)))
        } else if let Op::Attention(_) = node.op {
            (depth + 3, sum.max(longest(0)).max(longest(1)))
        } else if moves || node.op.is_source() || node.op.is_view() {
            (depth, sum)
        } else {
            (depth + 1, sum)
        };
        all.extend(std::iter::repeat_n(here, node.outputs.len()));
    }
    all
}

impl<'a> Rebuild<'a> {
    /// The graph that is built anew.
    pub(super) fn source(&self) -> &'a Graph {
        self.source
    }

    /// A value of the source graph: from the dump if it is there, edited if there is an edit, else as it stands.
    pub(super) fn value(&mut self, v: ValueId) -> Result<ValueId> {
        if let Some(&done) = self.built.get(&v) {
            return Ok(done);
        }
        if self.edited
            && let Some(edit) = self.edits.iter().find(|edit| edit.value == v)
        {
            if !self.open.insert(v) {
                return self.plain(v);
            }
            let done = (edit.build)(self)?;
            self.open.remove(&v);
            self.built.insert(v, done);
            return Ok(done);
        }
        if v != self.target && self.known.theirs.contains_key(&v) {
            let (dtype, shape) = (self.source.dtype(v), self.source.shape(v).clone());
            let done = self.named(&format!("{THEIRS}{}", v.0), |g, name| g.input(name, dtype, shape))?;
            self.built.insert(v, done);
            return Ok(done);
        }
        self.plain(v)
    }

    /// A value as it stands in the source graph, though its operands may be edited.
    pub(super) fn plain(&mut self, v: ValueId) -> Result<ValueId> {
        let source = self.source;
        let node = source.definition(v);
        if let Op::Input { dtype, shape } | Op::Parameter { dtype, shape } = &node.op {
            let parameter = matches!(node.op, Op::Parameter { .. });
            let done = self.named(&source.label(v), |g, name| match parameter {
                true => g.parameter(name, *dtype, shape.clone()),
                false => g.input(name, *dtype, shape.clone()),
            })?;
            self.built.insert(v, done);
            return Ok(done);
        }
        let operands = node.inputs.iter().map(|&input| self.value(input)).collect::<Result<Vec<_>>>()?;
        let op = match node.inputs.first().zip(operands.first()) {
            Some((&old, &new)) => resized(&node.op, source.shape(old), self.g.shape(new))?,
            None => node.op.clone(),
        };
        let results = self.g.push(op, &operands)?;
        for (&old, &new) in node.outputs.iter().zip(&results) {
            if old == v || !self.built.contains_key(&old) {
                self.built.insert(old, new);
            }
        }
        Ok(self.built[&v])
    }

    /// A parameter by another name.
    pub(super) fn parameter(&mut self, name: &str, shape: &Shape) -> Result<ValueId> {
        self.named(name, |g, name| g.parameter(name, DType::F32, shape.clone()))
    }

    /// The value `v` as it would be with `to`, a value of the new graph, in the place of `from`; without edits.
    pub(super) fn replay(&mut self, v: ValueId, from: ValueId, to: ValueId) -> Result<ValueId> {
        let outer = std::mem::replace(&mut self.built, HashMap::from([(from, to)]));
        let edited = std::mem::replace(&mut self.edited, false);
        let done = self.value(v);
        (self.built, self.edited) = (outer, edited);
        done
    }

    /// The value `v` without edits.
    pub(super) fn unedited(&mut self, v: ValueId) -> Result<ValueId> {
        let outer = std::mem::take(&mut self.built);
        let edited = std::mem::replace(&mut self.edited, false);
        let done = self.value(v);
        (self.built, self.edited) = (outer, edited);
        done
    }

    fn named(&mut self, name: &str, add: impl FnOnce(&mut Graph, &str) -> Result<ValueId>) -> Result<ValueId> {
        match self.g.find(name) {
            Some(there) => Ok(there),
            None => add(&mut self.g, name),
        }
    }
}

/// An operation that bakes sizes in, for an operand of another shape: axes that it keeps take their new sizes.
fn resized(op: &Op, old: &Shape, new: &Shape) -> Result<Op> {
    if old == new {
        return Ok(op.clone());
    }
    if old.rank() != new.rank() {
        return Ok(op.clone());
    }
    if let Op::Reshape { shape } = op {
        let mut sizes = shape.to_vec();
        for (axis, (&from, &to)) in old.iter().zip(new.iter()).enumerate() {
            if from == to {
                continue;
            }
            // The axis of the result that is this one: as many elements before it, and of its size.
            let before = |shape: &[usize], axis: usize| shape[..axis].iter().product::<usize>();
            let same = |&at: &usize| shape[at] == from && before(shape, at) == before(old, axis);
            match (0..shape.rank()).find(same) {
                Some(at) => sizes[at] = to,
                None => return Err(Error::op("reshape", format!("{new} does not become {shape}"))),
            }
        }
        return Ok(Op::Reshape { shape: sizes.into() });
    }
    if let Op::Slice { starts, sizes, steps } = op {
        let whole = |axis: usize| starts[axis] == 0 && sizes[axis] == old[axis];
        let sizes = (0..sizes.len()).map(|axis| if whole(axis) { new[axis] } else { sizes[axis] }).collect();
        return Ok(Op::Slice { starts: starts.clone(), sizes, steps: steps.clone() });
    }
    // Sizes of the others follow from their operands, or are those that every operand must have.
    Ok(op.clone())
}
