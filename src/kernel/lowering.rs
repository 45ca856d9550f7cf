//! From operations of a graph to problems: the one place that says which kernel an operation leads to.
//!
//! A family has a function `of` beside its problem, which makes the problem from the operation's options and its
//! [`Operands`], and thereby says how its kernels read and write them.

use super::{
    AppendProblem, Arg, ArgmaxProblem, AttentionMergeProblem, AttentionProblem, ConcatProblem, DequantizeProblem,
    GatherProblem, Instr, Norm, NormKind, PadProblem, Problem, Product, ReduceProblem, RotaryProblem, Softmax,
};
use crate::{DType, Graph, Layout, Result, Shape, ValueId, graph::Op};

/// What becomes of an operation.
pub(crate) enum Lowering<'a> {
    /// Nothing runs: its value is given.
    Source,
    /// Nothing runs: its operand is read in another layout.
    View(ViewOf<'a>),
    /// An instruction of a pointwise chain, whose arguments are the operation's operands.
    Pointwise(Instr),
    /// A product, which takes functions after it as its epilogue.
    Matmul(Product),
    /// A norm, which takes an addition before it.
    Norm(Norm),
    /// A softmax, which takes a factor before it.
    Softmax(Softmax),
    /// A kernel that takes nothing else in.
    Kernel(ProblemOf<'a>),
}

/// The layout of a view over its operand's; `None` where strides can't say it.
pub(crate) type ViewOf<'a> = Box<dyn Fn(&Layout) -> Option<Layout> + 'a>;

/// Makes a problem from what it reads and writes.
pub(crate) type ProblemOf<'a> = Box<dyn Fn(&mut Operands) -> Result<Box<dyn Problem>> + 'a>;

impl<'a> Lowering<'a> {
    pub(crate) fn of(op: &'a Op) -> Self {
        match op {
            Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } => Lowering::Source,
            Op::Reshape { shape } => view(move |x| x.reshape(shape)),
            Op::Permute { order } => view(move |x| Some(x.permute(order))),
            Op::Slice { starts, sizes, steps } => view(move |x| Some(x.slice(starts, steps, &Shape::from(&sizes[..])))),
            Op::Broadcast { shape } => view(move |x| Some(x.broadcast(shape))),
            Op::Unary { function } => Lowering::Pointwise(Instr::Unary(*function, Arg::Operand(0))),
            Op::Binary { function } => Lowering::Pointwise(Instr::Binary(*function, Arg::Operand(0), Arg::Operand(1))),
            Op::Where => Lowering::Pointwise(Instr::Where(Arg::Operand(0), Arg::Operand(1), Arg::Operand(2))),
            Op::Cast { dtype } => Lowering::Pointwise(Instr::Cast(*dtype, Arg::Operand(0))),
            &Op::Matmul { transpose_a, transpose_b } => Lowering::Matmul(Product::new(transpose_a, transpose_b)),
            &Op::LayerNorm { axes, epsilon, weight, bias } => {
                Lowering::Norm(Norm { weight, bias, ..Norm::new(NormKind::Layer, axes, epsilon) })
            }
            &Op::RmsNorm { axes, epsilon, weight } => {
                Lowering::Norm(Norm { weight, ..Norm::new(NormKind::Rms, axes, epsilon) })
            }
            &Op::Softmax { axis } => Lowering::Softmax(Softmax { log: false, axis, scale: 1.0 }),
            &Op::LogSoftmax { axis } => Lowering::Softmax(Softmax { log: true, axis, scale: 1.0 }),
            Op::Attention(options) => kernel(move |x| AttentionProblem::of(options, x)),
            Op::AttentionMerge => kernel(AttentionMergeProblem::of),
            Op::Reduce { function, axes, .. } => kernel(move |x| ReduceProblem::of(*function, axes, x)),
            &Op::Argmax { axis, last, .. } => kernel(move |x| ArgmaxProblem::of(axis, last, x)),
            &Op::Concat { axis } => kernel(move |x| ConcatProblem::of(axis, x)),
            Op::Pad { before, after, value } => kernel(move |x| PadProblem::of(before, after, *value, x)),
            &Op::Gather { axis } => kernel(move |x| GatherProblem::of(axis, x)),
            &Op::Dequantize(packing) => kernel(move |x| DequantizeProblem::of(packing, x)),
            &Op::Rotary { interleaved } => kernel(move |x| RotaryProblem::of(interleaved, x)),
            &Op::Append { axis, circular } => kernel(move |x| AppendProblem::of(axis, circular, x)),
            Op::AppendPaged => kernel(AppendProblem::of_pages),
        }
    }
}

fn view<'a>(of: impl Fn(&Layout) -> Option<Layout> + 'a) -> Lowering<'a> {
    Lowering::View(Box::new(of))
}

fn kernel<'a, P: Problem + 'static>(of: impl Fn(&mut Operands) -> Result<P> + 'a) -> Lowering<'a> {
    Lowering::Kernel(problem_of(of))
}

/// A family's `of`, whatever the family is.
pub(crate) fn problem_of<'a, P: Problem + 'static>(of: impl Fn(&mut Operands) -> Result<P> + 'a) -> ProblemOf<'a> {
    Box::new(move |operands| Ok(Box::new(of(operands)?)))
}

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
