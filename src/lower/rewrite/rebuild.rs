//! A graph that is written anew by a rule.

use crate::{
    Error, Graph, Result, ValueId,
    graph::{NodeId, Op},
    lower::{
        Note,
        survey::{Origin, Survey},
    },
};

/// A graph between passes, and what its values were in the graph that was given.
pub(crate) struct Work {
    pub(crate) graph: Graph,
    /// By value.
    pub(crate) origins: Vec<Origin>,
    pub(crate) notes: Vec<Note>,
}

/// Which nodes an output or a state needs, by node. Inputs and parameters stay in any case: the program takes what the graph takes.
pub(super) fn live(graph: &Graph) -> Vec<bool> {
    let mut live: Vec<bool> = graph.nodes().iter().map(|node| node.op.is_given()).collect();
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
    pub(super) fn new(work: &'a Work, given: &'a Graph, live: &[bool]) -> Self {
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

    pub(super) fn finish(mut self) -> Result<(Graph, Vec<Origin>, Vec<Note>)> {
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
