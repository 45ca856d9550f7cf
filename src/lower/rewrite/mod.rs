//! Graph → graph rules. Each is a function that looks at one node of the old graph and either writes something in its
//! place or leaves it; the new graph is verified after every pass.

mod activation;
mod attention;
mod causal;
mod simplify;
mod widen;

use super::{
    Note, Options,
    survey::{Origin, Survey},
};
use crate::{
    Data, Error, Graph, Result, Tensor, ValueId,
    graph::{Binary, Node, NodeId, Op, Unary},
    kernel::Profile,
};

/// A graph between passes, and what its values were in the graph that was given.
pub(super) struct Work {
    pub(super) graph: Graph,
    /// By value.
    pub(super) origins: Vec<Origin>,
    pub(super) notes: Vec<Note>,
}

/// Runs every pass that the options ask for and the graph gives work to.
pub(super) fn rewrite(given: &Graph, profile: &Profile, options: &Options) -> Result<Work> {
    let origins = (0..given.values().len() as u32).map(|v| Origin::of(ValueId(v))).collect();
    let mut work = Work { graph: given.clone(), origins, notes: Vec::new() };
    let has = |work: &Work, wanted: fn(&Node) -> bool| work.graph.nodes().iter().any(wanted);

    work.pass(given, &mut simplify::simplify)?;
    if options.recognise {
        if has(&work, activation::starts) {
            work.pass(given, &mut activation::recognise)?;
        }
        if has(&work, |node| matches!(node.op, Op::Softmax { .. })) {
            work.pass(given, &mut |rebuild, id| attention::recognise(rebuild, id, profile))?;
            // The opposite of a constant mask is a constant again.
            work.pass(given, &mut simplify::simplify)?;
        }
        if has(&work, |node| matches!(node.op, Op::Attention(_))) {
            work.pass(given, &mut causal::recognise)?;
        }
    }
    if work.graph.values().iter().any(|value| value.dtype.bytes() < 4) {
        let mut widened = widen::Widened::default();
        work.pass(given, &mut |rebuild, id| widened.widen(rebuild, id))?;
    }
    // Joins the views that the rules put end to end, and drops what they left without users.
    work.pass(given, &mut simplify::simplify)?;
    if live(&work.graph).contains(&false) {
        work.pass(given, &mut |_, _| Ok(false))?;
    }
    Ok(work)
}

/// What a rule does with a node: `true` if it wrote something in its place.
type Rule<'r> = dyn FnMut(&mut Rebuild<'_>, NodeId) -> Result<bool> + 'r;

impl Work {
    fn pass(&mut self, given: &Graph, rule: &mut Rule<'_>) -> Result<()> {
        let live = live(&self.graph);
        let mut rebuild = Rebuild::new(self, given, &live);
        for (i, _) in live.iter().enumerate().filter(|(_, live)| **live) {
            let id = NodeId(i as u32);
            if !rule(&mut rebuild, id)? {
                rebuild.keep(id)?;
            }
        }
        let (graph, origins, notes) = rebuild.finish()?;
        graph.verify()?;
        (self.graph, self.origins) = (graph, origins);
        self.notes.extend(notes);
        Ok(())
    }
}

/// Which nodes an output or a state needs, by node. Inputs and parameters stay in any case: the program takes what the graph takes.
fn live(graph: &Graph) -> Vec<bool> {
    let mut live: Vec<bool> =
        graph.nodes().iter().map(|node| matches!(node.op, Op::Input { .. } | Op::Parameter { .. })).collect();
    let outputs = graph.outputs().iter().map(|(_, value)| *value);
    for value in outputs.chain(graph.states().map(|(_, _, next)| next)) {
        live[graph.value(value).node.index()] = true;
    }
    for (i, node) in graph.nodes().iter().enumerate().rev() {
        if live[i] {
            node.inputs.iter().for_each(|&input| live[graph.value(input).node.index()] = true);
        }
    }
    live
}

/// A graph that is being written anew, node by node in the order of the old one.
pub(super) struct Rebuild<'a> {
    /// The old graph.
    pub(super) old: &'a Graph,
    /// Who reads its values, and what they are called.
    pub(super) survey: Survey<'a>,
    /// The new graph as far as it is written.
    pub(super) new: Graph,
    map: Vec<Option<ValueId>>,
    origins: Vec<Origin>,
    notes: Vec<Note>,
}

impl<'a> Rebuild<'a> {
    fn new(work: &'a Work, given: &'a Graph, live: &[bool]) -> Self {
        let old = &work.graph;
        Rebuild {
            old,
            survey: Survey::new(old, given, &work.origins, Some(live)),
            new: Graph::new(),
            map: vec![None; old.values().len()],
            origins: Vec::with_capacity(work.origins.len()),
            notes: Vec::new(),
        }
    }

    fn finish(mut self) -> Result<(Graph, Vec<Origin>, Vec<Note>)> {
        for (name, value) in self.old.outputs() {
            self.new.output(name.clone(), self.get(*value)?)?;
        }
        for (_, state, next) in self.old.states() {
            self.new.update(self.get(state)?, self.get(next)?)?;
        }
        Ok((self.new, self.origins, self.notes))
    }

    /// What an old value is in the new graph.
    pub(super) fn get(&self, old: ValueId) -> Result<ValueId> {
        self.map[old.index()]
            .ok_or_else(|| Error::Graph(format!("a rewrite dropped {}, which is used", self.survey.label(old))))
    }

    /// Writes the node as it was.
    pub(super) fn keep(&mut self, id: NodeId) -> Result<()> {
        let node = self.old.node(id);
        let inputs = node.inputs.iter().map(|&v| self.get(v)).collect::<Result<Vec<_>>>()?;
        self.rewrite(id, node.op.clone(), &inputs)
    }

    /// Writes another operation, with as many results, in the place of a node.
    pub(super) fn rewrite(&mut self, id: NodeId, op: Op, inputs: &[ValueId]) -> Result<()> {
        let outputs = self.new.push(op, inputs)?;
        for (&new, &old) in outputs.iter().zip(&self.old.node(id).outputs) {
            self.origins.push(self.survey.origin(old).clone());
            self.replace(old, new)?;
        }
        Ok(())
    }

    /// Writes a further node on the way to an old value.
    pub(super) fn push(&mut self, op: Op, inputs: &[ValueId], towards: ValueId) -> Result<Vec<ValueId>> {
        let outputs = self.new.push(op, inputs)?;
        let origin = Origin::of(self.survey.origin(towards).value);
        self.origins.extend(outputs.iter().map(|_| origin.clone()));
        Ok(outputs)
    }

    /// [`Rebuild::push`] of an operation with one result.
    pub(super) fn push_one(&mut self, op: Op, inputs: &[ValueId], towards: ValueId) -> Result<ValueId> {
        Ok(self.push(op, inputs, towards)?[0])
    }

    /// Says that a new value is what an old one was, perhaps in another dtype.
    pub(super) fn inherit(&mut self, new: ValueId, old: ValueId) {
        self.origins[new.index()] = self.survey.origin(old).clone();
    }

    /// Says that the node of a new value also computes these old values, in order.
    pub(super) fn cover(&mut self, new: ValueId, old: impl IntoIterator<Item = ValueId>) {
        let covers: Vec<ValueId> = old.into_iter().flat_map(|v| self.survey.origin(v).covers()).copied().collect();
        self.origins[new.index()].covers = covers;
    }

    /// Lets every later use of an old value read this new one.
    pub(super) fn replace(&mut self, old: ValueId, new: ValueId) -> Result<()> {
        self.map[old.index()] = Some(new);
        match &self.old.value(old).name {
            Some(name) if self.new.value(new).name.is_none() && self.new.find(name).is_none() => {
                self.new.name(new, name.clone())
            }
            _ => Ok(()),
        }
    }

    /// Notes what a rule did at an old value, or what kept it from it.
    pub(super) fn note(&mut self, rule: &'static str, old: ValueId, applied: bool, reason: impl Into<String>) {
        self.notes.push(Note { rule, value: self.survey.label(old), applied, reason: reason.into() });
    }
}

/// The number that every element of a value is, if the graph says so.
pub(super) fn uniform(graph: &Graph, value: ValueId) -> Option<f64> {
    let node = graph.definition(value);
    match &node.op {
        Op::Constant { value } => uniform_element(value),
        op if op.is_view() => uniform(graph, node.inputs[0]),
        _ => None,
    }
}

fn uniform_element(tensor: &Tensor) -> Option<f64> {
    fn same<T: Copy + PartialEq>(elements: &[T]) -> Option<T> {
        let (&first, rest) = elements.split_first()?;
        rest.iter().all(|x| *x == first).then_some(first)
    }
    match tensor.data() {
        Data::F32(v) => same(v).map(f64::from),
        Data::F16(v) => same(v).map(f64::from),
        Data::BF16(v) => same(v).map(f64::from),
        Data::I32(v) => same(v).map(f64::from),
        Data::U32(v) => same(v).map(f64::from),
        Data::Bool(v) => same(v).map(|x| f64::from(u8::from(x))),
    }
}

/// A float value times (or divided by) the same finite number everywhere: the value and the factor.
pub(super) fn scaled(graph: &Graph, node: &Node) -> Option<(ValueId, f64)> {
    let &[a, b] = &node.inputs[..] else { return None };
    let (x, factor) = match node.op {
        Op::Binary { function: Binary::Mul } => match (uniform(graph, a), uniform(graph, b)) {
            (_, Some(factor)) => (a, factor),
            (Some(factor), None) => (b, factor),
            (None, None) => return None,
        },
        Op::Binary { function: Binary::Div } => (a, 1.0 / uniform(graph, b)?),
        _ => return None,
    };
    // A constant of more axes or larger ones would stretch the value.
    let same = graph.shape(x) == graph.shape(node.outputs[0]);
    // Kernels take the factor as f32, where it must still be a number, and not 0 if it wasn't.
    let fits = (factor as f32).is_finite() && (factor as f32 != 0.0 || factor == 0.0);
    (graph.dtype(x).is_float() && same && fits).then_some((x, factor))
}

/// Whether the last two axes are swapped, and nothing else.
pub(super) fn swaps_last_two(order: &[usize]) -> bool {
    let n = order.len();
    n >= 2 && order[n - 2] == n - 1 && order[n - 1] == n - 2 && order[..n - 2].iter().enumerate().all(|(i, &o)| i == o)
}

/// The function and operand of a unary node.
pub(super) fn unary_of(graph: &Graph, value: ValueId) -> Option<(Unary, ValueId)> {
    let node = graph.definition(value);
    match node.op {
        Op::Unary { function } => Some((function, node.inputs[0])),
        _ => None,
    }
}
