//! Dtypes and shapes of results, and the text of each refusal.

use tilewise::{
    DType, Tensor,
    graph::{Binary, Op, Reduce, Unary},
};

use super::{bools, f32s, gives, i32s, inferred, refuses};

const MATMUL: Op = Op::Matmul { transpose_a: false, transpose_b: false };

fn reduce(function: Reduce, axes: &[usize], keep: bool) -> Op {
    Op::Reduce { function, axes: axes.to_vec(), keep }
}

#[test]
fn sources() {
    let shape = || [2, 0].into();
    gives(&Op::Input { dtype: DType::BF16, shape: shape() }, &[], &[(DType::BF16, shape())]);
    gives(&Op::Parameter { dtype: DType::U32, shape: shape() }, &[], &[(DType::U32, shape())]);
    gives(&Op::Constant { value: Tensor::scalar(1.0) }, &[], &[f32s([])]);
    let input = |shape: Vec<usize>| Op::Input { dtype: DType::F32, shape: shape.into() };
    refuses(&input(vec![1]), &[f32s([1])], "input: 1 operands were given, expected 0 ()");
    refuses(
        &input(vec![usize::MAX, 2]),
        &[],
        "input: [18446744073709551615, 2] has more elements than can be counted; the limit is 2147483647 (indices are 32-bit)",
    );
    refuses(
        &input(vec![1 << 16, 1 << 15]),
        &[],
        "input: elements of [65536, 32768] (indices are 32-bit): 2147483648 is over the limit of 2147483647; split the \
         tensor",
    );
    gives(&input(vec![i32::MAX as usize, 0]), &[], &[f32s([i32::MAX as usize, 0])]);
    // Whatever the other axes are.
    refuses(
        &input(vec![0, 1 << 31]),
        &[],
        "input: elements of [0, 2147483648] beside its empty axes (indices are 32-bit): 2147483648 is over the limit of \
         2147483647; split the tensor",
    );
    refuses(
        &input(vec![1 << 16, 0, 1 << 16]),
        &[],
        "input: elements of [65536, 0, 65536] beside its empty axes (indices are 32-bit): 4294967296 is over the limit of \
         2147483647; split the tensor",
    );
}

#[test]
fn matmul() {
    let transposed = |transpose_a, transpose_b| Op::Matmul { transpose_a, transpose_b };
    gives(&MATMUL, &[f32s([2, 3]), f32s([3, 4])], &[f32s([2, 4])]);
    gives(&transposed(true, true), &[f32s([3, 2]), f32s([4, 3])], &[f32s([2, 4])]);
    gives(&MATMUL, &[f32s([5, 1, 2, 3]), f32s([7, 3, 4])], &[f32s([5, 7, 2, 4])]);
    gives(&MATMUL, &[f32s([3]), f32s([3])], &[f32s([])]);
    gives(&MATMUL, &[f32s([3]), f32s([2, 3, 4])], &[f32s([2, 4])]);
    gives(&MATMUL, &[f32s([2, 4, 3]), f32s([3])], &[f32s([2, 4])]);
    gives(&MATMUL, &[f32s([2, 0]), f32s([0, 4])], &[f32s([2, 4])]);
    gives(&MATMUL, &[(DType::F16, [2, 3].into()), (DType::F16, [3, 4].into())], &[(DType::F16, [2, 4].into())]);

    refuses(&MATMUL, &[f32s([2, 3])], "matmul: 1 operands were given, expected 2 (a, b)");
    refuses(&MATMUL, &[i32s([2, 3]), i32s([3, 4])], "matmul: `a` is i32, expected f32, f16 or bf16");
    refuses(
        &MATMUL,
        &[f32s([2, 3]), (DType::F16, [3, 4].into())],
        "matmul: `a` is f32 [2, 3] and `b` is f16 [3, 4], expected the same dtype (cast one)",
    );
    refuses(&MATMUL, &[f32s([]), f32s([3])], "matmul: `a` has shape [], expected rank 1 or more");
    refuses(&transposed(false, true), &[f32s([3]), f32s([3])], "matmul: `b` has shape [3], expected rank 2 or more");
    refuses(&MATMUL, &[f32s([2, 3]), f32s([4, 5])], "matmul: `a` [2, 3] has inner size 3, `b` [4, 5] has 4");
    refuses(
        &transposed(true, true),
        &[f32s([2, 3]), f32s([4, 5])],
        "matmul: `a` [2, 3] transposed has inner size 2, `b` [4, 5] transposed has 5",
    );
    refuses(
        &MATMUL,
        &[f32s([2, 2, 3]), f32s([4, 3, 5])],
        "matmul: the leading axes of `a` [2, 2, 3] and `b` [4, 3, 5] do not broadcast",
    );
    refuses(
        &MATMUL,
        &[f32s([1 << 16, 1]), f32s([1, 1 << 16])],
        "matmul: elements of [65536, 65536] (indices are 32-bit): 4294967296 is over the limit of 2147483647; split the \
         tensor",
    );
}

#[test]
fn norms() {
    let layer = |axes, weight, bias| Op::LayerNorm { axes, epsilon: 1e-5, weight, bias };
    let rms = |axes, weight| Op::RmsNorm { axes, epsilon: 1e-5, weight };
    gives(&layer(1, false, false), &[f32s([2, 3])], &[f32s([2, 3]), f32s([2]), f32s([2])]);
    gives(&layer(2, true, true), &[f32s([5, 2, 3]), f32s([2, 3]), f32s([3])], &[f32s([5, 2, 3]), f32s([5]), f32s([5])]);
    // Statistics are f32 whatever x is.
    let half = |shape: &[usize]| (DType::F16, shape.into());
    gives(&rms(1, true), &[half(&[2, 3]), half(&[1])], &[half(&[2, 3]), f32s([2])]);

    refuses(&layer(1, true, true), &[f32s([3])], "layer_norm: 1 operands were given, expected 3 (x, weight, bias)");
    refuses(&layer(1, false, true), &[f32s([3])], "layer_norm: 1 operands were given, expected 2 (x, bias)");
    refuses(&rms(1, true), &[f32s([3])], "rms_norm: 1 operands were given, expected 2 (x, weight)");
    refuses(&rms(1, false), &[i32s([3])], "rms_norm: `x` is i32, expected f32, f16 or bf16");
    refuses(&layer(0, false, false), &[f32s([3])], "layer_norm: 0 trailing axes were given for [3], expected 1 to 1");
    refuses(&rms(3, false), &[f32s([2, 3])], "rms_norm: 3 trailing axes were given for [2, 3], expected 1 to 2");
    refuses(&rms(1, true), &[f32s([3]), half(&[3])], "rms_norm: `weight` is f16, expected f32");
    refuses(
        &layer(1, false, true),
        &[f32s([2, 3]), f32s([2, 3])],
        "layer_norm: `bias` has shape [2, 3], expected one that broadcasts to the normalised axes [3]",
    );
    for epsilon in [-1.0, f32::NAN, f32::INFINITY] {
        let op = Op::RmsNorm { axes: 1, epsilon, weight: false };
        refuses(&op, &[f32s([3])], &format!("rms_norm: epsilon is {epsilon}, expected a finite number ≥ 0"));
    }
}

#[test]
fn softmax() {
    for op in [Op::Softmax { axis: 1 }, Op::LogSoftmax { axis: 1 }] {
        gives(&op, &[f32s([2, 3])], &[f32s([2, 3])]);
        gives(&op, &[f32s([2, 0])], &[f32s([2, 0])]);
        let name = op.name();
        refuses(&op, &[f32s([2])], &format!("{name}: axis 1 is out of range for [2] (rank 1)"));
        refuses(&op, &[bools([2, 3])], &format!("{name}: `x` is bool, expected f32, f16 or bf16"));
        refuses(&op, &[], &format!("{name}: 0 operands were given, expected 1 (x)"));
    }
    refuses(
        &Op::Softmax { axis: usize::MAX },
        &[f32s([2])],
        "softmax: axis 18446744073709551615 is out of range for [2] (rank 1)",
    );
}

#[test]
fn cross_entropy() {
    let op = |smoothing, weight| Op::CrossEntropy { ignore: Some(-100), smoothing, weight };
    let plain = op(0.0, false);
    gives(&plain, &[f32s([2, 3, 7]), i32s([2, 3])], &[f32s([2, 3]), f32s([2, 3]), f32s([2, 3])]);
    gives(&plain, &[f32s([7]), i32s([])], &[f32s([]), f32s([]), f32s([])]);
    gives(&plain, &[(DType::BF16, [2, 0].into()), i32s([2])], &[f32s([2]), f32s([2]), f32s([2])]);
    gives(&op(1.0, true), &[(DType::F16, [2, 7].into()), i32s([2]), f32s([7])], &[f32s([2]), f32s([2]), f32s([2])]);
    refuses(&plain, &[f32s([2, 7])], "cross_entropy: 1 operands were given, expected 2 (logits, targets)");
    refuses(&plain, &[i32s([2, 7]), i32s([2])], "cross_entropy: `logits` is i32, expected f32, f16 or bf16");
    refuses(
        &plain,
        &[f32s([]), i32s([])],
        "cross_entropy: `logits` has shape [], expected at least one axis, of the classes",
    );
    refuses(&plain, &[f32s([2, 7]), f32s([2])], "cross_entropy: `targets` is f32, expected i32");
    refuses(
        &plain,
        &[f32s([2, 7]), i32s([7])],
        "cross_entropy: `targets` has shape [7], expected [2], a class for each row of `logits` [2, 7]",
    );
    let weighted = op(0.0, true);
    refuses(
        &weighted,
        &[f32s([2, 7]), i32s([2])],
        "cross_entropy: 2 operands were given, expected 3 (logits, targets, weight)",
    );
    refuses(&weighted, &[f32s([2, 7]), i32s([2]), i32s([7])], "cross_entropy: `weight` is i32, expected f32");
    refuses(
        &weighted,
        &[f32s([2, 7]), i32s([2]), f32s([2])],
        "cross_entropy: `weight` has shape [2], expected [7], a factor for each class",
    );
    for smoothing in [-0.1, 1.5, f32::NAN, f32::INFINITY] {
        let message = format!("cross_entropy: the smoothing is {smoothing}, expected a number from 0 to 1");
        refuses(&op(smoothing, false), &[f32s([2, 7]), i32s([2])], &message);
    }
}

#[test]
fn dropout() {
    let op = |p| Op::Dropout { p, stream: 3 };
    let u32s = || (DType::U32, [4].into());
    gives(&op(0.1), &[f32s([2, 3]), u32s()], &[f32s([2, 3])]);
    gives(&op(0.0), &[f32s([]), i32s([4])], &[f32s([])]);
    gives(&op(1.0), &[(DType::BF16, [0].into()), u32s()], &[(DType::BF16, [0].into())]);
    gives(&op(1.0), &[(DType::F16, [7].into()), u32s()], &[(DType::F16, [7].into())]);
    refuses(&op(0.1), &[f32s([2])], "dropout: 1 operands were given, expected 2 (x, seed)");
    refuses(&op(0.1), &[i32s([2]), u32s()], "dropout: `x` is i32, expected f32, f16 or bf16");
    refuses(&op(0.1), &[f32s([2]), f32s([4])], "dropout: `seed` is f32, expected i32 or u32");
    refuses(&op(0.1), &[f32s([2]), bools([4])], "dropout: `seed` is bool, expected i32 or u32");
    for shape in [vec![], vec![2], vec![1, 4]] {
        let given = tilewise::Shape::from(&shape[..]);
        let message = format!(
            "dropout: `seed` has shape {given}, expected [4]: two words of the key (a seed) and two of the counter (a step's number)"
        );
        refuses(&op(0.1), &[f32s([2]), (DType::U32, given)], &message);
    }
    for p in [-0.1, 1.5, f64::NAN, f64::INFINITY] {
        let message = format!("dropout: p is {p}, expected a probability from 0 to 1");
        refuses(&op(p), &[f32s([2]), u32s()], &message);
    }
}

#[test]
fn functions_of_elements() {
    for function in Unary::ALL {
        let op = Op::Unary { function };
        let name = function.name();
        for dtype in DType::ALL {
            let fits = match function {
                Unary::Not => dtype == DType::Bool,
                _ => dtype.is_float() || (dtype.is_integer() && function.takes_integers()),
            };
            let x = (dtype, [2, 3].into());
            assert_eq!(inferred(&op, std::slice::from_ref(&x)).ok(), fits.then(|| vec![x]), "{name} of {dtype}");
        }
    }
    refuses(&Op::Unary { function: Unary::Exp }, &[i32s([2])], "exp: `x` is i32, expected f32, f16 or bf16");
    refuses(&Op::Unary { function: Unary::Abs }, &[bools([2])], "abs: `x` is bool, expected a number");
    refuses(&Op::Unary { function: Unary::Not }, &[f32s([2])], "not: `x` is f32, expected bool");

    for function in Binary::ALL {
        let op = Op::Binary { function };
        for dtype in DType::ALL {
            let fits = match function {
                Binary::Equal | Binary::NotEqual => true,
                _ => function.is_logical() == (dtype == DType::Bool),
            };
            let result = if function.is_comparison() { DType::Bool } else { dtype };
            let operands = [(dtype, [2, 1].into()), (dtype, [3].into())];
            let expected = fits.then(|| vec![(result, [2, 3].into())]);
            assert_eq!(inferred(&op, &operands).ok(), expected, "{} of {dtype}", function.name());
        }
    }
    let add = Op::Binary { function: Binary::Add };
    gives(&add, &[f32s([]), f32s([2, 0])], &[f32s([2, 0])]);
    refuses(&add, &[bools([2]), bools([2])], "add: `a` is bool, expected a number");
    refuses(&Op::Binary { function: Binary::And }, &[f32s([2]), f32s([2])], "and: `a` is f32, expected bool");
    refuses(
        &add,
        &[f32s([2]), i32s([2])],
        "add: `a` is f32 [2] and `b` is i32 [2], expected the same dtype (cast one)",
    );
    refuses(
        &add,
        &[f32s([2, 3]), f32s([2])],
        "add: [2, 3] and [2] do not broadcast (sizes are equal or 1, from the right)",
    );

    gives(&Op::Where, &[bools([2, 1]), f32s([3]), f32s([])], &[f32s([2, 3])]);
    refuses(&Op::Where, &[f32s([2]), f32s([2]), f32s([2])], "where: `condition` is f32, expected bool");
    refuses(
        &Op::Where,
        &[bools([2]), f32s([2]), i32s([2])],
        "where: `a` is f32 [2] and `b` is i32 [2], expected the same dtype (cast one)",
    );
    refuses(
        &Op::Where,
        &[bools([4]), f32s([3]), f32s([3])],
        "where: [4] and [3] do not broadcast (sizes are equal or 1, from the right)",
    );
    refuses(&Op::Where, &[bools([4])], "where: 1 operands were given, expected 3 (condition, a, b)");

    for dtype in DType::ALL {
        gives(&Op::Cast { dtype }, &[i32s([2])], &[(dtype, [2].into())]);
    }
}

#[test]
fn reductions() {
    gives(&reduce(Reduce::Sum, &[0, 2], false), &[i32s([2, 3, 4])], &[i32s([3])]);
    gives(&reduce(Reduce::Max, &[0, 2], true), &[f32s([2, 3, 4])], &[f32s([1, 3, 1])]);
    gives(&reduce(Reduce::Min, &[], false), &[f32s([2, 3])], &[f32s([2, 3])]);
    gives(&reduce(Reduce::Mean, &[1], false), &[f32s([2, 0])], &[f32s([2])]);
    refuses(&reduce(Reduce::Mean, &[0], false), &[i32s([2])], "mean: `x` is i32, expected f32, f16 or bf16");
    refuses(&reduce(Reduce::Sum, &[0], false), &[bools([2])], "sum: `x` is bool, expected a number (cast it first)");
    refuses(&reduce(Reduce::Sum, &[1, 0], false), &[f32s([2, 3])], "sum: axes [1, 0] are not sorted or repeat");
    refuses(&reduce(Reduce::Sum, &[1, 1], false), &[f32s([2, 3])], "sum: axes [1, 1] are not sorted or repeat");
    refuses(&reduce(Reduce::Min, &[2], false), &[f32s([2, 3])], "min: axis 2 is out of range for [2, 3] (rank 2)");

    let argmax = |axis, keep| Op::Argmax { axis, keep, last: false };
    gives(&argmax(1, false), &[f32s([2, 3])], &[i32s([2])]);
    gives(&argmax(0, true), &[i32s([2, 3])], &[i32s([1, 3])]);
    gives(&argmax(0, false), &[f32s([2, 0])], &[i32s([0])]);
    refuses(&argmax(1, false), &[f32s([2, 0])], "argmax: axis 1 of [2, 0] is empty: there is no largest element");
    refuses(&argmax(0, false), &[bools([2])], "argmax: `x` is bool, expected a number (cast it first)");
    refuses(&argmax(1, false), &[f32s([2])], "argmax: axis 1 is out of range for [2] (rank 1)");
}

#[test]
fn layouts() {
    let reshape = |shape: &[usize]| Op::Reshape { shape: shape.into() };
    gives(&reshape(&[3, 2]), &[bools([2, 3])], &[bools([3, 2])]);
    gives(&reshape(&[]), &[f32s([1, 1])], &[f32s([])]);
    gives(&reshape(&[0, 5]), &[f32s([2, 0])], &[f32s([0, 5])]);
    refuses(&reshape(&[4]), &[f32s([2, 3])], "reshape: [2, 3] has 6 elements, the new shape [4] has 4");
    refuses(
        &reshape(&[usize::MAX, usize::MAX]),
        &[f32s([2])],
        "reshape: [18446744073709551615, 18446744073709551615] has more elements than can be counted; the limit is 2147483647 \
         (indices are 32-bit)",
    );

    let permute = |order: &[usize]| Op::Permute { order: order.to_vec() };
    gives(&permute(&[2, 0, 1]), &[f32s([2, 3, 4])], &[f32s([4, 2, 3])]);
    gives(&permute(&[]), &[f32s([])], &[f32s([])]);
    refuses(&permute(&[0, 0]), &[f32s([2, 3])], "permute: [0, 0] is no permutation of the 2 axes of [2, 3]");
    refuses(&permute(&[0]), &[f32s([2, 3])], "permute: [0] is no permutation of the 2 axes of [2, 3]");

    let slice = |starts: &[usize], sizes: &[usize], steps: &[isize]| Op::Slice {
        starts: starts.to_vec(),
        sizes: sizes.to_vec(),
        steps: steps.to_vec(),
    };
    gives(&slice(&[1, 4], &[1, 3], &[1, -2]), &[f32s([2, 5])], &[f32s([1, 3])]);
    gives(&slice(&[9, 0], &[0, 5], &[1, 1]), &[f32s([2, 5])], &[f32s([0, 5])]);
    refuses(
        &slice(&[0], &[1, 1], &[1, 1]),
        &[f32s([2, 5])],
        "slice: 1 starts, 2 sizes and 2 steps were given for [2, 5] (rank 2)",
    );
    refuses(&slice(&[0], &[1], &[0]), &[f32s([2])], "slice: the step of axis 0 is 0");
    for (start, size, step) in [(0, 3, 2), (5, 1, 1), (1, 3, -1), (0, usize::MAX, isize::MAX)] {
        refuses(
            &slice(&[start], &[size], &[step]),
            &[f32s([4])],
            &format!("slice: axis 0: {size} elements from {start} with step {step} leave its size of 4 ([4])"),
        );
    }

    let concat = Op::Concat { axis: 1 };
    gives(&concat, &[f32s([2, 3]), f32s([2, 0]), f32s([2, 1])], &[f32s([2, 4])]);
    refuses(&concat, &[], "concat: no operands were given, expected at least one");
    refuses(&concat, &[f32s([2])], "concat: axis 1 is out of range for [2] (rank 1)");
    for other in [f32s([3, 3]), i32s([2, 3])] {
        refuses(
            &concat,
            &[f32s([2, 3]), f32s([2, 1]), other.clone()],
            &format!("concat: operand 2 is {} {}, operand 0 is f32 [2, 3]: only axis 1 may differ", other.0, other.1),
        );
    }
    refuses(&concat, &[f32s([0, usize::MAX]), f32s([0, 1])], "concat: the joined size overflows");

    let broadcast = |shape: &[usize]| Op::Broadcast { shape: shape.into() };
    gives(&broadcast(&[4, 2, 3]), &[f32s([2, 1])], &[f32s([4, 2, 3])]);
    refuses(&broadcast(&[3]), &[f32s([2, 3])], "broadcast: [2, 3] does not broadcast to [3]");
    refuses(&broadcast(&[1]), &[f32s([3])], "broadcast: [3] does not broadcast to [1]");

    let pad =
        |before: &[usize], after: &[usize]| Op::Pad { before: before.to_vec(), after: after.to_vec(), value: 0.0 };
    gives(&pad(&[1, 0], &[0, 2]), &[bools([2, 3])], &[bools([3, 5])]);
    refuses(&pad(&[1], &[0, 2]), &[f32s([2, 3])], "pad: 1 and 2 pad sizes were given for [2, 3] (rank 2)");
    refuses(&pad(&[usize::MAX], &[1]), &[f32s([2])], "pad: the padded size of [2] overflows");
}

#[test]
fn lookups() {
    let gather = |axis| Op::Gather { axis };
    gives(&gather(1), &[f32s([2, 5, 3]), i32s([4, 7])], &[f32s([2, 4, 7, 3])]);
    gives(&gather(0), &[bools([2, 3]), i32s([])], &[bools([3])]);
    gives(&gather(0), &[f32s([0, 3]), i32s([0])], &[f32s([0, 3])]);
    refuses(&gather(0), &[f32s([2]), f32s([1])], "gather: `indices` is f32, expected i32");
    refuses(&gather(1), &[f32s([2]), i32s([1])], "gather: axis 1 is out of range for [2] (rank 1)");
    refuses(
        &gather(0),
        &[f32s([0, 3]), i32s([1])],
        "gather: axis 0 of `data` [0, 3] is empty: there is nothing to pick",
    );
    refuses(&gather(0), &[f32s([2])], "gather: 1 operands were given, expected 2 (data, indices)");

    let rotary = Op::Rotary { interleaved: false };
    let (x, table, positions) = (f32s([2, 3, 5, 8]), f32s([50, 4]), i32s([2, 5]));
    gives(&rotary, &[x.clone(), table.clone(), table.clone(), positions.clone()], std::slice::from_ref(&x));
    gives(&rotary, &[x.clone(), f32s([50, 1]), f32s([50, 1]), positions.clone()], std::slice::from_ref(&x));
    refuses(&rotary, std::slice::from_ref(&x), "rotary: 1 operands were given, expected 4 (x, cos, sin, positions)");
    refuses(
        &rotary,
        &[f32s([3, 5, 8]), table.clone(), table.clone(), positions.clone()],
        "rotary: `x` has shape [3, 5, 8], expected [B, H, T, D]",
    );
    refuses(
        &rotary,
        &[x.clone(), f32s([50, 5]), f32s([50, 5]), positions.clone()],
        "rotary: `cos` is [50, 5] and `sin` is [50, 5], expected the same [P, R/2] with P > 0 and R ≤ D = 8",
    );
    refuses(
        &rotary,
        &[x.clone(), table.clone(), i32s([50, 4]), positions.clone()],
        "rotary: `sin` is i32, expected f32",
    );
    refuses(
        &rotary,
        &[x.clone(), table.clone(), table.clone(), i32s([5])],
        "rotary: `positions` has shape [5], expected [B, T] = [2, 5]",
    );
    refuses(&rotary, &[x, table.clone(), table, f32s([2, 5])], "rotary: `positions` is f32, expected i32");

    let append = |axis| Op::Append { axis, circular: false };
    let (cache, update, at) = (f32s([2, 3, 9, 4]), f32s([2, 3, 2, 4]), i32s([2]));
    gives(&append(2), &[cache.clone(), update.clone(), at.clone()], &[cache.clone(), i32s([1])]);
    refuses(
        &append(1),
        &[cache.clone(), update.clone(), at.clone()],
        "append: `update` is f32 [2, 3, 2, 4], `cache` is f32 [2, 3, 9, 4]: only axis 1 may differ, and be smaller",
    );
    refuses(
        &append(0),
        &[cache.clone(), update.clone(), at.clone()],
        "append: axis 0 is the batch item, it can't grow",
    );
    refuses(
        &append(4),
        &[cache.clone(), update.clone(), at],
        "append: axis 4 is out of range for [2, 3, 9, 4] (rank 4)",
    );
    refuses(
        &append(2),
        &[cache.clone(), update.clone(), i32s([3])],
        "append: `positions` has shape [3], expected [B] = [2]",
    );
    refuses(&append(2), &[cache, update, f32s([2])], "append: `positions` is f32, expected i32");
}
