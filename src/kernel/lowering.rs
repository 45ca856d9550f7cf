//! From operations of a graph to problems: the one place that says which kernel an operation leads to.

use super::{
    AppendProblem, Arg, ArgmaxProblem, AttentionGradProblem, AttentionMergeProblem, AttentionProblem, ConcatProblem,
    CrossEntropyProblem, DequantizeProblem, Dropping, GatherProblem, Instr, Norm, NormKind, Operands, PadProblem,
    Problem, Product, ReduceProblem, RotaryProblem, ScatterAddProblem, Softmax,
};
use crate::{Layout, Result, Shape, graph::Op};

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
            &Op::Dropout { p, stream } => {
                Lowering::Pointwise(Instr::Dropout(Dropping { p, stream }, Arg::Operand(0), Arg::Operand(1)))
            }
            &Op::Matmul { transpose_a, transpose_b } => Lowering::Matmul(Product::new(transpose_a, transpose_b)),
            &Op::LayerNorm { axes, epsilon, weight, bias } => {
                Lowering::Norm(Norm { weight, bias, ..Norm::new(NormKind::Layer, axes, epsilon) })
            }
            &Op::RmsNorm { axes, epsilon, weight } => {
                Lowering::Norm(Norm { weight, ..Norm::new(NormKind::Rms, axes, epsilon) })
            }
            &Op::Softmax { axis } => Lowering::Softmax(Softmax { log: false, axis, scale: 1.0 }),
            &Op::LogSoftmax { axis } => Lowering::Softmax(Softmax { log: true, axis, scale: 1.0 }),
            &Op::CrossEntropy { ignore, smoothing, weight } => {
                kernel(move |x| CrossEntropyProblem::of(ignore, smoothing, weight, x))
            }
            Op::Attention(options) => kernel(move |x| AttentionProblem::of(options, x)),
            Op::AttentionGrad(options) => kernel(move |x| AttentionGradProblem::of(options, x)),
            Op::AttentionMerge => kernel(AttentionMergeProblem::of),
            Op::Reduce { function, axes, .. } => kernel(move |x| ReduceProblem::of(*function, axes, x)),
            &Op::Argmax { axis, last, .. } => kernel(move |x| ArgmaxProblem::of(axis, last, x)),
            &Op::Concat { axis } => kernel(move |x| ConcatProblem::of(axis, x)),
            Op::Pad { before, after, value } => kernel(move |x| PadProblem::of(before, after, *value, x)),
            &Op::Gather { axis } => kernel(move |x| GatherProblem::of(axis, x)),
            &Op::ScatterAdd { axis, size } => kernel(move |x| ScatterAddProblem::of(axis, size, x)),
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
