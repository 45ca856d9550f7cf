//! The part of a graph that departs, and what is collected there.

use std::collections::HashSet;

use crate::{
    Graph, Result, Tensor, ValueId,
    diff::{
        expand::{Attended, named},
        rebuild::{Edit, Known, Part, Rebuild},
    },
    graph::{Node, NodeId, Op},
};

/// One thing that may have been done differently.
#[derive(Clone)]
pub(crate) struct Hypothesis {
    /// A few words, always the same for the same mistake.
    pub(crate) name: String,
    /// What to look at, or how to put it right.
    pub(crate) hint: String,
    /// The value or module that it is about.
    pub(crate) at: String,
    pub(crate) edits: Vec<Edit>,
    /// Whether it may be one of two mistakes: not if it is so general that two of its kind explain anything.
    pub(crate) pairs: bool,
}

/// The part of a graph that departs, and all there is to explain it with.
pub(crate) struct Site<'a> {
    pub(crate) g: &'a Graph,
    pub(crate) users: &'a [Vec<NodeId>],
    pub(crate) attentions: &'a [Attended],
    pub(crate) known: &'a Known,
    pub(crate) target: ValueId,
    pub(crate) name: &'a str,
    computed: HashSet<ValueId>,
    pub(super) read: Vec<ValueId>,
}

impl<'a> Site<'a> {
    pub(crate) fn new(
        (g, users, attentions): (&'a Graph, &'a [Vec<NodeId>], &'a [Attended]),
        known: &'a Known,
        (name, target): (&'a str, ValueId),
        part: &Part,
    ) -> Self {
        let computed = part.computed.iter().copied().collect();
        Site { g, users, attentions, known, target, name, computed, read: part.read.clone() }
    }

    /// Whether this part computes the value.
    pub(super) fn has(&self, v: ValueId) -> bool {
        self.computed.contains(&v)
    }

    /// Values that this part computes with an operation, in an order of execution, with their nodes.
    pub(super) fn nodes(&self) -> Vec<(ValueId, &'a Node)> {
        let mut all: Vec<ValueId> = self.computed.iter().copied().collect();
        all.sort_unstable();
        all.into_iter().map(|v| (v, self.g.definition(v))).filter(|(v, node)| node.outputs[0] == *v).collect()
    }

    /// The names of what this part reads.
    pub(super) fn parameters(&self) -> Vec<(ValueId, String)> {
        let nodes = self.nodes().into_iter();
        nodes.filter(|(_, node)| matches!(node.op, Op::Parameter { .. })).map(|(v, _)| (v, self.g.label(v))).collect()
    }

    /// What a value is called: by itself, or by what comes of it.
    pub(super) fn call(&self, v: ValueId) -> String {
        let mut at = v;
        loop {
            if let Some(name) = named(self.g, at) {
                return name.to_string();
            }
            match self.users[at.index()].first() {
                Some(&user) if at != self.target => at = self.g.node(user).outputs[0],
                _ => return self.name.to_string(),
            }
        }
    }

    /// Whether a value is made of parameters and constants alone.
    pub(super) fn is_weight(&self, v: ValueId) -> bool {
        let (mut seen, mut open) = (HashSet::new(), vec![v]);
        while let Some(at) = open.pop() {
            let node = self.g.definition(at);
            if matches!(node.op, Op::Input { .. }) {
                return false;
            }
            if seen.insert(at) {
                open.extend(&node.inputs);
            }
        }
        true
    }

    /// Whether `v` is computed from `of`: one pass, as ways through residuals are too many to follow.
    pub(super) fn depends(&self, v: ValueId, of: ValueId) -> bool {
        let mut reached = vec![false; v.index().max(of.index()) + 1];
        reached[of.index()] = true;
        for node in &self.g.nodes()[self.g.value(of).node.index()..] {
            if node.inputs.iter().any(|input| reached.get(input.index()) == Some(&true)) {
                reached.iter_mut().skip(node.outputs[0].index()).take(node.outputs.len()).for_each(|r| *r = true);
            }
        }
        reached[v.index()]
    }

    /// Float inputs of the graph, and values of the dump: what something may have been read from by mistake.
    pub(super) fn others(&self) -> Vec<ValueId> {
        let inputs = self.g.inputs().map(|(_, v)| v);
        let mut all: Vec<ValueId> = inputs.chain(self.known.theirs.keys().copied()).collect();
        all.retain(|&v| v != self.target && self.g.dtype(v).is_float());
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What the hypotheses of one site are collected in.
#[derive(Default)]
pub(super) struct Found {
    pub(super) at: String,
    pub(super) all: Vec<Hypothesis>,
}

impl Found {
    pub(super) fn add(&mut self, name: impl Into<String>, hint: impl Into<String>, edits: Vec<Edit>) {
        let (name, hint, at) = (name.into(), hint.into(), self.at.clone());
        self.all.push(Hypothesis { name, hint, at, edits, pairs: true });
    }

    /// One that is never one of a pair.
    pub(super) fn alone(&mut self, name: impl Into<String>, hint: impl Into<String>, edits: Vec<Edit>) {
        self.add(name, hint, edits);
        if let Some(last) = self.all.last_mut() {
            last.pairs = false;
        }
    }
}

/// A constant in the graph that is built.
pub(super) fn constant(tensor: Tensor) -> impl Fn(&mut Rebuild<'_>) -> Result<ValueId> + 'static {
    move |r| r.g.constant(tensor.clone())
}
