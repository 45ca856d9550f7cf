//! The pointwise kernels against the reference.

mod accuracy;
mod chains;
mod exact;
mod layouts;

use tilewise::{
    DType, Layout, Shape, Tensor,
    graph::Op,
    kernel::{Arg, Dropping, Instr, PointwiseProblem},
    reference::{
        self, Real, Value,
        compare::{self, Bound, Comparison},
    },
};

use crate::common::view;

/// The chain by the reference, instruction by instruction.
fn evaluate<R: Real>(problem: &PointwiseProblem, operands: &[Value<R>]) -> Value<R> {
    let mut values: Vec<Value<R>> = Vec::new();
    for &instr in &problem.body {
        let arg = |arg: Arg| match arg {
            Arg::Operand(i) => operands[i].clone(),
            Arg::Instr(i) => values[i].clone(),
            Arg::Scalar(dtype, value) => Value::from(&view::tensor(dtype, Shape::default(), &[value])),
        };
        let (op, args) = match instr {
            Instr::Unary(function, x) => (Op::Unary { function }, vec![arg(x)]),
            Instr::Binary(function, a, b) => (Op::Binary { function }, vec![arg(a), arg(b)]),
            Instr::Where(condition, a, b) => (Op::Where, vec![arg(condition), arg(a), arg(b)]),
            Instr::Cast(dtype, x) => (Op::Cast { dtype }, vec![arg(x)]),
            Instr::Dropout(Dropping { p, stream }, x, seed) => (Op::Dropout { p, stream }, vec![arg(x), arg(seed)]),
        };
        let args: Vec<&Value<R>> = args.iter().collect();
        values.push(reference::apply(&op, &args).unwrap_or_else(|error| panic!("{instr:?}: {error}")).remove(0));
    }
    let result = values.pop().expect("a chain has instructions");
    let broadcast = Op::Broadcast { shape: problem.shape.clone() };
    reference::apply(&broadcast, &[&result]).expect("the chain has the problem's shape").remove(0)
}

/// How much looser than plain arithmetic the functions of the chain are on a device.
fn extra(problem: &PointwiseProblem) -> f64 {
    let one = |instr: &Instr| match *instr {
        Instr::Unary(function, _) => compare::extra(&Op::Unary { function }),
        Instr::Binary(function, ..) => compare::extra(&Op::Binary { function }),
        Instr::Where(..) | Instr::Cast(..) => 0.0,
        Instr::Dropout(Dropping { p, stream }, ..) => compare::extra(&Op::Dropout { p, stream }),
    };
    problem.body.iter().map(one).sum()
}

/// A chain on dense operands of its own shape.
fn dense(tensors: &[&Tensor], dtype: DType, body: Vec<Instr>) -> PointwiseProblem {
    let shape = tensors[0].shape();
    let operands = tensors.iter().map(|tensor| (tensor.dtype(), Layout::contiguous(shape))).collect();
    PointwiseProblem::new(shape, dtype, operands, body)
}

/// Runs every variant on dense operands and compares with the reference within a bound made from the f64 and the plain
/// f32 evaluation.
fn check_within(
    problem: &PointwiseProblem,
    tensors: &[&Tensor],
    bound: impl Fn(&Value<f64>, &Value<f32>) -> Bound,
) -> Comparison {
    let expected = evaluate::<f64>(problem, &tensors.iter().map(|&t| t.into()).collect::<Vec<_>>());
    let plain = evaluate::<f32>(problem, &tensors.iter().map(|&t| t.into()).collect::<Vec<_>>());
    let actual = view::run(problem, tensors, problem.dtype, &problem.shape);
    let bound = bound(&expected, &plain);
    compare::compare(&format!("{problem:?}"), &actual, &expected, &bound)
        .unwrap_or_else(|mismatch| panic!("{mismatch}\n{:?}", problem.body))
}

/// Bit for bit, after one rounding.
fn check_exact(problem: &PointwiseProblem, tensors: &[&Tensor]) {
    check_within(problem, tensors, |_, _| Bound::Exact);
}
