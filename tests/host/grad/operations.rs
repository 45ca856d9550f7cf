use tilewise::{
    DType, Graph, Result, ValueId,
    graph::{Binary, CrossEntropyArgs, Op, Reduce, Unary},
};

use super::difference::{Operand, apart, between, check, fixed, whole};
use tilewise::Tensor;

fn one(op: Op) -> impl FnOnce(&mut Graph, &[ValueId]) -> Result<Vec<ValueId>> {
    move |g, x| g.push(op, x)
}

#[test]
fn functions_of_one_element() {
    for function in Unary::ALL {
        let x = match function {
            Unary::Not => continue,
            Unary::Log | Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal => between([7], 0.75, 3.0, 1),
            Unary::Floor | Unary::Ceil | Unary::Round => between([5], 0.1, 0.4, 2),
            _ => apart([9], 3.0, 3),
        };
        check(function.name(), &[x], one(Op::Unary { function }));
    }
}

#[test]
fn kinks_take_the_choice_of_pytorch() {
    let at_zero = |function: Unary| gradient_of(&[0.0], move |g, x| g.unary(function, x));
    assert_eq!(at_zero(Unary::Relu), [0.0]);
    assert_eq!(at_zero(Unary::Abs), [0.0]);
    // torch.maximum halves, torch.amax shares evenly.
    let larger = gradient_of(&[2.0, 3.0, 3.0], |g, x| {
        let two = g.constant(Tensor::new([3], vec![2.0f32, 5.0, 1.0])?)?;
        g.max(x, two)
    });
    assert_eq!(larger, [0.5, 0.0, 1.0]);
    let most = gradient_of(&[1.0, 4.0, 4.0, 4.0, 4.0], |g, x| g.reduce(Reduce::Max, x, &[], false));
    assert_eq!(most, [0.0, 0.25, 0.25, 0.25, 0.25]);
}

#[test]
fn far_arguments_have_finite_gradients() {
    for (function, expected) in [(Unary::GeluTanh, [0.0, 1.0]), (Unary::Gelu, [0.0, 1.0]), (Unary::Silu, [0.0, 1.0])] {
        let found = gradient_of(&[-1e15, 1e15], |g, x| g.unary(function, x));
        assert_eq!(found, expected, "{}", function.name());
    }
}

/// d Σ f(x) / dx.
fn gradient_of(x: &[f32], f: impl FnOnce(&mut Graph, ValueId) -> Result<ValueId>) -> Vec<f64> {
    let mut g = Graph::new();
    let tensor = Tensor::new([x.len()], x.to_vec()).expect("fits");
    let x = g.constant(tensor).expect("fits");
    let y = f(&mut g, x).expect("fits");
    let loss = g.reduce(Reduce::Sum, y, &[], false).expect("fits");
    let dx = tilewise::grad::gradients(&mut g, loss, &[x]).expect("differentiable")[0];
    tilewise::reference::Evaluation::<f64>::new(&g, &Default::default()).expect("evaluates").value(dx).to_f64()
}

#[test]
fn functions_of_two_elements() {
    for function in Binary::ALL {
        if function.is_comparison() || function.is_logical() {
            continue;
        }
        for shapes in [[vec![2, 3], vec![2, 3]], [vec![2, 3], vec![3]], [vec![2, 1, 2], vec![3, 1]], [vec![], vec![4]]]
        {
            let [a, b] = shapes.clone();
            let operands = match function {
                Binary::Pow | Binary::Div => [between(a, 0.5, 2.0, 5), between(b, 0.5, 2.0, 6)],
                // Kinks are where the two are equal.
                Binary::Max | Binary::Min => [apart(a, 3.0, 7), shifted(&apart(b, 3.0, 8))],
                _ => [apart(a, 3.0, 7), apart(b, 3.0, 8)],
            };
            check(&format!("{} {shapes:?}", function.name()), &operands, one(Op::Binary { function }));
        }
    }
}

/// The same between the steps of another one.
fn shifted(x: &Operand) -> Operand {
    let data = x.tensor.as_f32().expect("f32").iter().map(|x| x + 1.0 / 32.0).collect::<Vec<_>>();
    Operand { tensor: Tensor::new(x.tensor.shape().clone(), data).expect("fits"), varied: true }
}

#[test]
fn powers_of_zero_and_to_zero() {
    let base = gradient_of(&[0.0, 3.0, 0.0], |g, x| {
        let exponents = g.constant(Tensor::new([3], vec![0.0f32, 0.0, 2.0])?)?;
        g.pow(x, exponents)
    });
    assert_eq!(base, [0.0; 3]);
    let exponent = gradient_of(&[2.0, 0.0], |g, x| {
        let bases = g.constant(Tensor::new([2], vec![0.0f32, 0.0])?)?;
        g.pow(bases, x)
    });
    assert_eq!(exponent, [0.0; 2]);
}

#[test]
fn choice_and_casts() {
    let condition = fixed(Tensor::new([2, 1], tilewise::Data::Bool(vec![true, false])).expect("fits"));
    check("where", &[condition, apart([2, 3], 2.0, 1), apart([3], 2.0, 2)], one(Op::Where));
    check("where, of the condition alone", &[apart([4], 2.0, 3)], |g, x| {
        let zero = g.scalar(0.0, x[0])?;
        let positive = g.binary(Binary::Greater, x[0], zero)?;
        Ok(vec![g.cast(positive, DType::F32)?])
    });
}

#[test]
fn narrow_values_have_narrow_gradients() {
    for dtype in [DType::F16, DType::BF16] {
        let mut g = Graph::new();
        let x = g.input("x", dtype, [3]).expect("fits");
        let y = g.mul(x, x).expect("fits");
        let loss = g.reduce(Reduce::Sum, y, &[], false).expect("fits");
        let dx = tilewise::grad::gradients(&mut g, loss, &[x]).expect("differentiable")[0];
        assert_eq!(g.dtype(dx), dtype);
        let x = tilewise::reference::Random::new(1).tensor(dtype, [3], -2.0, 2.0).expect("fits");
        let expected: Vec<f64> = x.to_f64().iter().map(|x| 2.0 * x).collect();
        let inputs = [("x".to_string(), x)].into();
        let values = tilewise::reference::Evaluation::<f64>::new(&g, &inputs).expect("evaluates");
        assert_eq!(values.value(dx).to_f64(), expected);
    }
}

#[test]
fn products() {
    let cases: [(&[usize], &[usize], bool, bool); 14] = [
        (&[3, 4], &[4, 2], false, false),
        (&[4, 3], &[4, 2], true, false),
        (&[3, 4], &[2, 4], false, true),
        (&[4, 3], &[2, 4], true, true),
        (&[2, 3, 4], &[4, 2], false, false),
        (&[2, 3, 4], &[2, 4], false, true),
        (&[2, 4, 3], &[4, 2], true, false),
        (&[3, 4], &[2, 4, 2], false, false),
        (&[2, 1, 3, 4], &[3, 4, 2], false, false),
        (&[2, 1, 3, 4], &[3, 2, 4], false, true),
        (&[4], &[4, 2], false, false),
        (&[3, 4], &[4], false, false),
        (&[4], &[4], false, false),
        (&[4], &[2, 3, 4], false, true),
    ];
    for (a, b, transpose_a, transpose_b) in cases {
        let what = format!("matmul {a:?} {b:?} {transpose_a} {transpose_b}");
        let operands = [between(a.to_vec(), -1.0, 1.0, 1), between(b.to_vec(), -1.0, 1.0, 2)];
        check(&what, &operands, one(Op::Matmul { transpose_a, transpose_b }));
    }
}

#[test]
fn norms() {
    for axes in [1, 2] {
        let inner = if axes == 1 { vec![5] } else { vec![3, 5] };
        let x = || between([2, 3, 5], -2.0, 2.0, 1);
        let [w, b] = [2, 3].map(|seed| between(inner.clone(), -1.0, 1.0, seed));
        let op = Op::LayerNorm { axes, epsilon: 1e-3, weight: true, bias: true };
        check("layer norm with mean and rstd", &[x(), w, b], one(op));
        check("layer norm", &[x()], one(Op::LayerNorm { axes, epsilon: 1e-3, weight: false, bias: false }));
        let w = between(vec![5], -1.0, 1.0, 2);
        check("rms norm with rstd", &[x(), w], one(Op::RmsNorm { axes, epsilon: 1e-3, weight: true }));
        check("rms norm", &[x()], |g, x| Ok(vec![g.push(Op::RmsNorm { axes, epsilon: 1e-3, weight: false }, x)?[0]]));
    }
    check("mean alone", &[between([2, 4], -2.0, 2.0, 1)], |g, x| {
        Ok(vec![g.push(Op::LayerNorm { axes: 1, epsilon: 0.0, weight: false, bias: false }, x)?[1]])
    });
    check("rstd alone", &[between([2, 4], -2.0, 2.0, 1)], |g, x| {
        Ok(vec![g.push(Op::RmsNorm { axes: 1, epsilon: 0.0, weight: false }, x)?[1]])
    });
}

#[test]
fn softmaxes() {
    for axis in 0..3 {
        let x = || between([2, 3, 4], -3.0, 3.0, 1);
        check("softmax", &[x()], one(Op::Softmax { axis }));
        check("log softmax", &[x()], one(Op::LogSoftmax { axis }));
    }
}

#[test]
fn dropouts_for_a_fixed_seed() {
    let seed = || whole([4], &[7, 0, -1, 9]);
    for p in [0.0, 0.25, 0.9, 1.0] {
        check(&format!("dropout {p}"), &[between([3, 7], -3.0, 3.0, 1), seed()], one(Op::Dropout { p, stream: 5 }));
    }
    // Each draws by its own stream, and draws the same again backwards, through what stands between.
    check("two dropouts in a row", &[between([5, 5], 0.5, 2.0, 2), seed()], |g, x| {
        let y = g.dropout(x[0], x[1], 0.5)?;
        let y = g.exp(y)?;
        let y = g.permute(y, &[1, 0])?;
        Ok(vec![g.dropout(y, x[1], 0.25)?])
    });
}

#[test]
fn the_gradient_of_a_dropout_is_where_it_kept() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let mut g = Graph::new();
        let x = g.constant(Tensor::new([64], vec![1.0f32; 64]).expect("fits")).expect("fits");
        let x = g.cast(x, dtype).expect("fits");
        let seed = g.constant(Tensor::new([4], vec![1u32, 2, 3, 4]).expect("fits")).expect("fits");
        let y = g.dropout(x, seed, 0.75).expect("fits");
        let wide = g.cast(y, DType::F32).expect("fits");
        let loss = g.reduce(Reduce::Sum, wide, &[], false).expect("fits");
        let dx = tilewise::grad::gradients(&mut g, loss, &[x]).expect("differentiable")[0];
        let values = tilewise::reference::Evaluation::<f64>::new(&g, &Default::default()).expect("evaluates");
        assert_eq!(g.dtype(dx), dtype);
        assert_eq!(values.value(dx).to_f64(), values.value(y).to_f64());
        assert!([0.0, 4.0].iter().all(|number| values.value(dx).to_f64().contains(number)));
    }
}

#[test]
fn cross_entropies() {
    let targets = || whole([2, 3], &[0, 3, -1, 1, 4, 2]);
    for (ignore, smoothing) in [(None, 0.0), (Some(2), 0.0), (Some(1), 0.25), (None, 1.0)] {
        for weight in [false, true] {
            let op = || Op::CrossEntropy { ignore, smoothing, weight };
            let mut operands = vec![between([2, 3, 4], -3.0, 3.0, 1), targets()];
            operands.extend(weight.then(|| fixed(between([4], 0.25, 2.0, 2).tensor)));
            let what = format!("cross entropy {ignore:?} {smoothing} {weight}");
            check(&what, &operands, one(op()));
            check(&format!("{what}, loss alone"), &operands, |g, x| Ok(vec![g.push(op(), x)?[0]]));
            check(&format!("{what}, lse alone"), &operands, |g, x| Ok(vec![g.push(op(), x)?[1]]));
        }
    }
    check("cross entropy of one row", &[between([5], -3.0, 3.0, 1), whole([], &[3])], |g, x| {
        g.push(Op::CrossEntropy { ignore: None, smoothing: 0.1, weight: false }, x)
    });
}

/// What an ignored row holds is nobody's, and a row of −inf alone has no probabilities.
#[test]
fn ignored_and_empty_rows_of_a_cross_entropy_have_finite_gradients() {
    for smoothing in [0.0, 0.5] {
        let found = gradient_of(&[1.0, f32::NAN, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0, 0.0], |g, x| {
            let logits = g.reshape(x, [3, 2])?;
            let targets = g.constant(Tensor::new([3], vec![-100i32, 0, 1])?)?;
            let args = CrossEntropyArgs { ignore: Some(-100), smoothing, ..Default::default() };
            Ok(g.cross_entropy(logits, targets, args)?.loss)
        });
        let half = f64::from(smoothing) / 2.0;
        let label = [1.0 - half, half];
        assert_eq!(found, [0.0, 0.0, -label[0], -label[1], 0.5 - label[1], 0.5 - label[0]]);
    }
}

/// PyTorch #41508: a fully masked row turns every gradient of the batch to NaN there.
#[test]
fn a_fully_masked_line_has_gradient_zero() {
    let dx = gradient_of(&[1.0, 2.0, 3.0, 4.0], |g, x| {
        let hidden = g.scalar(f64::NEG_INFINITY, x)?;
        let seen = g.constant(Tensor::new([2, 2], tilewise::Data::Bool(vec![false, false, true, true]))?)?;
        let scores = g.reshape(x, [2, 2])?;
        let masked = g.select(seen, scores, hidden)?;
        let weights = g.softmax(masked, -1)?;
        let factors = g.constant(Tensor::new([2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?)?;
        g.mul(weights, factors)
    });
    assert_eq!(dx[..2], [0.0, 0.0]);
    assert!(dx[2] < 0.0 && (dx[2] + dx[3]).abs() < 1e-12, "{dx:?}");
}

#[test]
fn reductions() {
    for function in Reduce::ALL {
        for (axes, keep) in [(vec![0], false), (vec![1, 2], true), (vec![0, 1, 2], false), (vec![], false)] {
            let what = format!("{} {axes:?}", function.name());
            check(&what, &[apart([2, 3, 2], 3.0, 4)], one(Op::Reduce { function, axes, keep }));
        }
    }
}

#[test]
fn what_moves_elements() {
    let x = || between([2, 3, 4], -1.0, 1.0, 1);
    check("reshape", &[x()], one(Op::Reshape { shape: [4, 6].into() }));
    check("permute", &[x()], one(Op::Permute { order: vec![2, 0, 1] }));
    check("concat", &[x(), between([2, 1, 4], -1.0, 1.0, 2), x()], one(Op::Concat { axis: 1 }));
    check("broadcast", &[between([3, 1], -1.0, 1.0, 1)], one(Op::Broadcast { shape: [2, 3, 4].into() }));
    check("pad", &[x()], one(Op::Pad { before: vec![1, 0, 2], after: vec![0, 1, 0], value: 2.0 }));
    let slices: [(&[usize], &[usize], &[isize]); 6] = [
        (&[0, 1, 0], &[2, 2, 4], &[1, 1, 1]),
        (&[1, 2, 3], &[2, 3, 2], &[-1, -1, -3]),
        (&[0, 0, 1], &[1, 2, 2], &[1, 2, 2]),
        (&[0, 0, 2], &[2, 1, 1], &[1, 5, 9]),
        (&[0, 0, 0], &[2, 0, 4], &[1, 1, 1]),
        (&[1, 0, 3], &[1, 3, 4], &[-1, 1, -1]),
    ];
    for (starts, sizes, steps) in slices {
        let (starts, sizes, steps) = (starts.to_vec(), sizes.to_vec(), steps.to_vec());
        check(&format!("slice {starts:?} {sizes:?} {steps:?}"), &[x()], one(Op::Slice { starts, sizes, steps }));
    }
}

#[test]
fn rotary_and_caches() {
    for interleaved in [false, true] {
        let tables = [3, 4].map(|seed| fixed(between([6, 2], -1.0, 1.0, seed).tensor));
        let [cos, sin] = tables;
        let positions = whole([2, 3], &[0, 1, 2, 3, 5, 9]);
        let x = between([2, 2, 3, 6], -1.0, 1.0, 1);
        check("rotary", &[x, cos, sin, positions], one(Op::Rotary { interleaved }));
    }
    for (circular, positions) in [(false, [0, 3]), (false, [-1, 4]), (true, [4, 2]), (true, [-2, 9])] {
        for axis in [1, 2] {
            let (cache, update) = if axis == 1 { ([2, 5, 3], [2, 2, 3]) } else { ([2, 3, 5], [2, 3, 2]) };
            let operands = [between(cache, -1.0, 1.0, 1), between(update, -1.0, 1.0, 2), whole([2], &positions)];
            check(&format!("append {circular} {positions:?}"), &operands, |g, x| {
                Ok(vec![g.append(x[0], x[1], x[2], axis, circular)?.0])
            });
        }
    }
}

#[test]
fn parts_of_several_users_are_summed() {
    check("x·sin x + x²", &[between([5], -2.0, 2.0, 1)], |g, x| {
        let sine = g.unary(Unary::Sin, x[0])?;
        let product = g.mul(x[0], sine)?;
        let square = g.mul(x[0], x[0])?;
        Ok(vec![g.add(product, square)?, sine])
    });
}

#[test]
fn gradients_of_gradients() {
    check("d (Σ tanh³)/dx", &[between([4], -1.0, 1.0, 1)], |g, x| {
        let y = g.tanh(x[0])?;
        let square = g.mul(y, y)?;
        let cube = g.mul(square, y)?;
        let loss = g.reduce(Reduce::Sum, cube, &[], false)?;
        tilewise::grad::gradients(g, loss, &[x[0]])
    });
}

#[test]
fn rows_by_index() {
    let indices = || whole([2, 3], &[0, 3, -1, 9, 0, 2]);
    for axis in 0..3 {
        check("gather", &[between([4, 4, 4], -1.0, 1.0, 1), indices()], one(Op::Gather { axis }));
    }
    for axis in 0..2 {
        let shape = if axis == 0 { vec![2, 3, 2] } else { vec![2, 2, 3] };
        check("scatter add", &[between(shape, -1.0, 1.0, 1), indices()], one(Op::ScatterAdd { axis, size: 4 }));
    }
}
