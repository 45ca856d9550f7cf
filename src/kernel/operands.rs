//! What a problem is made of: each family has a function `of` beside its problem, which makes it from the operation's options
//! and these, and thereby says how its kernels read and write them.

use crate::{DType, Graph, Layout, Shape, ValueId};

/// What a problem reads and writes, numbered as its inputs and outputs are.
///
/// What the problem takes from here says how its kernels read: an input has to be dense, unless its
/// [layout](Operands::layout) is asked for; an output is written, whether it is used or not, unless it is
/// [optional](Operands::wants); and so on.
#[derive(Debug)]
pub(crate) struct Operands {
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    /// The layout of output 0 was asked for.
    any_order: bool,
}

#[derive(Debug)]
struct Input {
    dtype: DType,
    layout: Layout,
    /// Its layout was asked for.
    strided: bool,
    /// It is wanted in f32.
    widened: bool,
}

#[derive(Debug)]
struct Output {
    dtype: DType,
    layout: Layout,
    used: bool,
    /// It is not written: the problem leaves out what is not used.
    left_out: bool,
}

/// For problems.
impl Operands {
    /// How many inputs there are.
    pub(super) fn count(&self) -> usize {
        self.inputs.len()
    }

    /// The dtype of an input.
    pub(super) fn dtype(&self, input: usize) -> DType {
        self.inputs[input].dtype
    }

    /// The shape of an input: all there is to know of a dense one.
    pub(super) fn shape(&self, input: usize) -> &Shape {
        &self.inputs[input].layout.shape
    }

    /// Where an input lies, which the kernels read in any layout; variants may still refuse some.
    pub(super) fn layout(&mut self, input: usize) -> Layout {
        let input = &mut self.inputs[input];
        input.strided = true;
        input.layout.clone()
    }

    /// Asks for an input in f32: no kernel reads it in the dtype that it has.
    pub(super) fn widen(&mut self, input: usize) {
        self.inputs[input].widened = true;
    }

    /// Asks for every input that is f16 or bf16 in f32.
    pub(super) fn widen_narrow(&mut self) {
        self.inputs.iter_mut().filter(|input| input.dtype.is_narrow()).for_each(|input| input.widened = true);
    }

    /// The dtype of an output.
    pub(super) fn out_dtype(&self, output: usize) -> DType {
        self.outputs[output].dtype
    }

    /// The shape of output 0.
    pub(super) fn out_shape(&self) -> &Shape {
        &self.outputs[0].layout.shape
    }

    /// Where output 0 lies, which the kernels write in any order of the axes.
    pub(super) fn out_layout(&mut self) -> Layout {
        self.any_order = true;
        self.outputs[0].layout.clone()
    }

    /// Whether an output is used. If it isn't, it is left out, and those after it move up.
    pub(super) fn wants(&mut self, output: usize) -> bool {
        let output = &mut self.outputs[output];
        output.left_out = !output.used;
        output.used
    }
}

/// For lowering.
impl Operands {
    /// Values of a graph, dense and used.
    pub(crate) fn dense(graph: &Graph, inputs: &[ValueId], outputs: &[ValueId]) -> Self {
        let (dtype, layout) = (|v: ValueId| graph.dtype(v), |v: ValueId| Layout::contiguous(graph.shape(v)));
        let input = |&v: &ValueId| Input { dtype: dtype(v), layout: layout(v), strided: false, widened: false };
        let output = |&v: &ValueId| Output { dtype: dtype(v), layout: layout(v), used: true, left_out: false };
        Operands {
            inputs: inputs.iter().map(input).collect(),
            outputs: outputs.iter().map(output).collect(),
            any_order: false,
        }
    }

    /// Says whether an output is used.
    pub(crate) fn set_used(&mut self, output: usize, used: bool) {
        self.outputs[output].used = used;
    }

    /// Says where an input lies.
    pub(crate) fn set_layout(&mut self, input: usize, layout: Layout) {
        self.inputs[input].layout = layout;
    }

    /// Says where output 0 lies.
    pub(crate) fn set_out_layout(&mut self, layout: Layout) {
        self.outputs[0].layout = layout;
    }

    /// Whether the problem made of them reads this input in any layout.
    pub(crate) fn is_strided(&self, input: usize) -> bool {
        self.inputs[input].strided
    }

    /// The first input that is not dense, if one isn't.
    pub(crate) fn first_view(&self) -> Option<usize> {
        self.inputs.iter().position(|input| !input.layout.is_contiguous())
    }

    /// Whether the problem made of them wants this input in f32.
    pub(crate) fn is_widened(&self, input: usize) -> bool {
        self.inputs[input].widened
    }

    /// Whether the problem made of them writes output 0 in any order of the axes.
    pub(crate) fn takes_any_order(&self) -> bool {
        self.any_order
    }

    /// Whether the problem made of them leaves out this output.
    pub(crate) fn is_left_out(&self, output: usize) -> bool {
        self.outputs[output].left_out
    }

    /// Where output 0 lies.
    pub(crate) fn out(&self) -> &Layout {
        &self.outputs[0].layout
    }
}
