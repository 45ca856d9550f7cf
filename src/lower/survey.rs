//! What passes ask of a graph: who reads a value, and what it is called in the graph that was given.

use crate::{Graph, ValueId, graph::NodeId};

/// Where a value of a rewritten graph comes from, in values of the given graph.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The value that it is, or that it helps to compute.
    pub(super) value: ValueId,
    /// The values that its node computes on the way, this one last; empty if there are no others.
    pub(super) covers: Vec<ValueId>,
}

impl Origin {
    pub(super) fn of(value: ValueId) -> Self {
        Origin { value, covers: Vec::new() }
    }

    /// Every value that its node computes.
    pub(super) fn covers(&self) -> &[ValueId] {
        if self.covers.is_empty() { std::slice::from_ref(&self.value) } else { &self.covers }
    }
}

/// Readers of a value that a reason names; there may be thousands, each of which asks.
const NAMED: usize = 8;

/// A graph with the readers and origins of its values.
pub(super) struct Survey<'a> {
    pub(super) graph: &'a Graph,
    given: &'a Graph,
    origins: &'a [Origin],
    /// By value; a node that reads a value twice is listed twice.
    readers: Vec<Vec<NodeId>>,
    /// By value: what takes it out of the graph, as a phrase after "it is".
    leaves_as: Vec<Option<String>>,
}

impl<'a> Survey<'a> {
    /// Nodes that are not `live` read nothing.
    pub(super) fn new(graph: &'a Graph, given: &'a Graph, origins: &'a [Origin], live: Option<&[bool]>) -> Self {
        let mut readers = graph.users();
        if let Some(live) = live {
            readers.iter_mut().for_each(|nodes| nodes.retain(|node| live[node.index()]));
        }
        let mut leaves_as = vec![None; graph.values().len()];
        for (name, value) in graph.outputs() {
            leaves_as[value.index()].get_or_insert_with(|| format!("the graph's output `{name}`"));
        }
        for (name, _, next) in graph.states() {
            leaves_as[next.index()].get_or_insert_with(|| format!("what the state `{name}` becomes"));
        }
        Survey { graph, given, origins, readers, leaves_as }
    }

    pub(super) fn origin(&self, value: ValueId) -> &'a Origin {
        &self.origins[value.index()]
    }

    /// The nodes that read a value.
    pub(super) fn readers(&self, value: ValueId) -> &[NodeId] {
        &self.readers[value.index()]
    }

    /// Whether a value is an output of the graph, or what a state becomes.
    pub(super) fn leaves(&self, value: ValueId) -> bool {
        self.leaves_as[value.index()].is_some()
    }

    /// Whether anyone wants a value.
    pub(super) fn is_used(&self, value: ValueId) -> bool {
        self.leaves(value) || !self.readers(value).is_empty()
    }

    /// The node that alone reads a value, once; otherwise who else does.
    pub(super) fn sole_reader(&self, value: ValueId) -> Result<NodeId, String> {
        if let Some(role) = &self.leaves_as[value.index()] {
            return Err(format!("{} is {role}", self.quote(value)));
        }
        match self.readers(value) {
            [] => Err(format!("{} is read by nothing", self.quote(value))),
            &[reader] => Ok(reader),
            readers => {
                let name = |&reader: &NodeId| {
                    let node = self.graph.node(reader);
                    format!("{} ({})", self.quote(node.outputs[0]), node.op.name())
                };
                let names: Vec<String> = readers.iter().take(NAMED).map(name).collect();
                let more = match readers.len() - names.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                Err(format!("{} has {} readers: {}{more}", self.quote(value), readers.len(), names.join(", ")))
            }
        }
    }

    /// The name of a value in the given graph.
    pub(super) fn label(&self, value: ValueId) -> String {
        self.given.label(self.origin(value).value)
    }

    /// The name in backticks.
    pub(super) fn quote(&self, value: ValueId) -> String {
        format!("`{}`", self.label(value))
    }

    /// The names of the values of the given graph that a value's node computes.
    pub(super) fn covers(&self, value: ValueId) -> impl Iterator<Item = String> {
        self.origin(value).covers().iter().map(|&v| self.given.label(v))
    }
}
