//! A step backwards: over one node.

use crate::{
    DType, Error, Graph, Result, Shape, ValueId,
    graph::{NodeId, Op, Reduce},
};

/// The function in messages.
pub(super) const OP: &str = "gradients";

/// A node, and the gradients of its results.
pub(super) struct Step<'g> {
    pub(super) g: &'g mut Graph,
    pub(super) op: Op,
    /// The node's operands.
    pub(super) inputs: Vec<ValueId>,
    /// The node's results.
    pub(super) outputs: Vec<ValueId>,
    /// The gradient of each result; none where nothing that leads to the loss reads it.
    pub(super) grads: Vec<Option<ValueId>>,
    /// Of each operand, whether its gradient is asked for.
    pub(super) wanted: Vec<bool>,
    /// The gradients of operands that were found.
    found: Vec<(ValueId, ValueId)>,
}

impl<'g> Step<'g> {
    pub(super) fn new(g: &'g mut Graph, node: NodeId, grads: Vec<Option<ValueId>>, depends: &[bool]) -> Self {
        let node = g.node(node).clone();
        let wanted = node.inputs.iter().map(|&input| depends[input.index()] && g.dtype(input).is_float()).collect();
        Step { g, op: node.op, inputs: node.inputs, outputs: node.outputs, grads, wanted, found: Vec::new() }
    }

    /// The gradient of the only result, or of the first of several, in f32.
    ///
    /// `None` if only another result has one.
    pub(super) fn grad(&mut self) -> Result<Option<ValueId>> {
        self.grad_of(0)
    }

    /// The gradient of a result, in f32.
    pub(super) fn grad_of(&mut self, result: usize) -> Result<Option<ValueId>> {
        self.grads[result].map(|grad| wide(self.g, grad)).transpose()
    }

    /// An operand in f32.
    pub(super) fn input(&mut self, operand: usize) -> Result<ValueId> {
        wide(self.g, self.inputs[operand])
    }

    /// A result in f32.
    pub(super) fn output(&mut self, result: usize) -> Result<ValueId> {
        wide(self.g, self.outputs[result])
    }

    /// An operand's shape.
    pub(super) fn shape(&self, operand: usize) -> Shape {
        self.g.shape(self.inputs[operand]).clone()
    }

    /// Gives an operand its gradient, which is summed over what was broadcast and rounded to the operand's dtype.
    pub(super) fn give(&mut self, operand: usize, grad: ValueId) -> Result<()> {
        let input = self.inputs[operand];
        let (dtype, shape) = (self.g.dtype(input), self.g.shape(input).clone());
        let summed = unbroadcast(self.g, grad, &shape)?;
        let grad = self.g.cast(summed, dtype)?;
        self.found.push((input, grad));
        Ok(())
    }

    /// An error for a gradient that can't pass.
    pub(super) fn refused(&self, why: &str) -> Error {
        Error::op(OP, format!("no gradient passes through {}: {why}", self.op.name()))
    }

    /// What was given.
    pub(super) fn found(self) -> Vec<(ValueId, ValueId)> {
        self.found
    }
}

/// A float in f32.
pub(super) fn wide(g: &mut Graph, value: ValueId) -> Result<ValueId> {
    g.cast(value, DType::F32)
}

/// The sum over the axes along which a value of this shape was repeated.
pub(super) fn unbroadcast(g: &mut Graph, grad: ValueId, shape: &Shape) -> Result<ValueId> {
    let from = g.shape(grad).clone();
    if from == *shape {
        return Ok(grad);
    }
    let leading = from.rank() - shape.rank();
    let repeated = (0..from.rank()).filter(|&axis| axis < leading || (shape[axis - leading] == 1 && from[axis] != 1));
    let axes: Vec<isize> = repeated.map(|axis| axis as isize).collect();
    let sum = if axes.is_empty() { grad } else { g.reduce(Reduce::Sum, grad, &axes, true)? };
    g.reshape(sum, shape.clone())
}

/// A reduced value with the axes that it lacks, of size 1.
pub(super) fn keep_axes(g: &mut Graph, reduced: ValueId, shape: &Shape, axes: &[usize]) -> Result<ValueId> {
    let kept: Shape = (0..shape.rank()).map(|axis| if axes.contains(&axis) { 1 } else { shape[axis] }).collect();
    if *g.shape(reduced) == kept { Ok(reduced) } else { g.reshape(reduced, kept) }
}
