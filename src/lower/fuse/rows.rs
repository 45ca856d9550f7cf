//! Norms and softmax, with what stands directly before and after them.

use super::{Fusion, Unit};
use crate::{
    ValueId,
    graph::{Binary, NodeId, Op},
    kernel::{Norm, NormKind, NormProblem, Softmax, SoftmaxProblem, problem_of},
    lower::pattern::scaled,
};

impl Fusion<'_, '_> {
    /// A norm, with the addition that gives its operand.
    pub(super) fn norm(&mut self, id: NodeId, norm: Norm) {
        const RULE: &str = "fuse into norm";
        let graph = self.survey.graph;
        let node = graph.node(id);
        let y = node.outputs[0];
        self.taken[id.index()] = true;
        let mut x = node.inputs[0];
        let converted = x;
        self.read_narrow(RULE, &mut x, y);
        let (mean, rstd) = match norm.kind {
            NormKind::Layer => (Some(node.outputs[1]), node.outputs[2]),
            NormKind::Rms => (None, node.outputs[1]),
        };
        let mean = mean.filter(|&mean| self.survey.is_used(mean));
        let rstd = Some(rstd).filter(|&rstd| self.survey.is_used(rstd));
        let (mut inputs, mut outputs, mut computes, mut at) = (vec![x], vec![y], vec![y], id);
        let mut sum = false;
        let addition = self.addition(x, &node.inputs[1..]);
        if let Some((add, operands)) = addition {
            self.taken[add.index()] = true;
            inputs = operands.to_vec();
            computes.insert(0, x);
            // Where it is converted first, the norm may not be the only one who wants that.
            sum = self.survey.sole_reader(x).is_err() || self.survey.sole_reader(converted).is_err();
            let others = if sum {
                // The sum must be there for its first other reader.
                at = add;
                outputs.push(x);
                format!("the sum {} is a second result", self.survey.quote(x))
            } else {
                format!("the sum {} is never in memory", self.survey.quote(x))
            };
            self.note(RULE, y, true, format!("adds its operands itself; {others}"));
        }
        inputs.extend(&node.inputs[1..]);
        let from = usize::from(addition.is_none());
        inputs[from..].iter_mut().for_each(|input| self.read_narrow(RULE, input, y));
        let written = self.write_narrow(RULE, y);
        if written != y {
            outputs[0] = written;
            computes.push(written);
        }
        outputs.extend(mean.into_iter().chain(rstd));
        let (mean, rstd) = (mean.is_some(), rstd.is_some());
        let norm = Norm { residual: addition.is_some(), sum, mean, rstd, ..norm };
        let problem = problem_of(move |operands| NormProblem::of(norm, operands));
        self.units.push(Unit { problem, inputs, outputs, computes, at });
    }

    /// The node that adds two tensors of full size to `x`, and the two, if it is free and the `others` that the unit
    /// reads are computed before it.
    fn addition(&self, x: ValueId, others: &[ValueId]) -> Option<(NodeId, [ValueId; 2])> {
        let graph = self.survey.graph;
        let add = graph.value(x).node;
        let node = graph.node(add);
        let (Op::Binary { function: Binary::Add }, &[a, b]) = (&node.op, &node.inputs[..]) else { return None };
        let before = |value: ValueId| {
            let value = graph.base(value);
            graph.definition(value).op.is_source() || graph.value(value).node < add
        };
        let fits = self.fuse
            && !self.taken[add.index()]
            && graph.dtype(x).is_float()
            && others.iter().all(|&other| before(other));
        match (graph.shape(a) == graph.shape(x), graph.shape(b) == graph.shape(x)) {
            (true, _) if fits => Some((add, [a, b])),
            (_, true) if fits => Some((add, [b, a])),
            _ => None,
        }
    }

    /// A softmax, with the factor on its operand.
    pub(super) fn softmax(&mut self, id: NodeId, mut softmax: Softmax) {
        const RULE: &str = "fuse into softmax";
        let graph = self.survey.graph;
        let (mut x, y) = (graph.node(id).inputs[0], graph.node(id).outputs[0]);
        let mut computes = vec![y];
        self.taken[id.index()] = true;
        let before = graph.value(x).node;
        // A factor below 0 would turn −inf, which the softmax leaves out, into +inf.
        if let Some((inner, factor)) = scaled(graph, graph.node(before)).filter(|&(_, factor)| factor > 0.0)
            && self.fuse
            && !self.taken[before.index()]
        {
            match self.survey.sole_reader(x) {
                Ok(_) => {
                    self.taken[before.index()] = true;
                    self.note(RULE, y, true, format!("multiplies by {} itself", factor as f32));
                    computes.insert(0, x);
                    (x, softmax.scale) = (inner, factor as f32);
                }
                Err(reason) => self.note(RULE, y, false, reason),
            }
        }
        self.read_narrow(RULE, &mut x, y);
        let written = self.write_narrow(RULE, y);
        if written != y {
            computes.push(written);
        }
        let problem = problem_of(move |operands| SoftmaxProblem::of(softmax, operands));
        self.units.push(Unit { problem, inputs: vec![x], outputs: vec![written], computes, at: id });
    }
}
