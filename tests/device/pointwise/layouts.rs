//! Operands of all ranks and strides, odd sizes, narrow dtypes, folded grids.

use proptest::prelude::*;
use tilewise::{
    DType, Shape,
    graph::{Binary, Unary},
    kernel::{AdapterKind, Arg, Instr, PointwiseProblem, Problem, Profile},
    reference::{
        Value,
        compare::{self, Bound},
    },
};

use super::{check_exact, dense, evaluate};
use crate::common::{
    gpu,
    view::{self, Rng, View, small},
};

/// Adds up what an operand of each dtype is worth: exact for small integers.
fn sum(operands: &[View], shape: &Shape, dtype: DType) -> PointwiseProblem {
    let mut body = vec![];
    for (n, operand) in operands.iter().enumerate() {
        let was = body.len();
        body.push(Instr::Cast(DType::F32, Arg::Operand(n)));
        if operand.base.dtype() == DType::Bool {
            body.push(Instr::Unary(Unary::Neg, Arg::Instr(was)));
        }
        let this = Arg::Instr(body.len() - 1);
        if n > 0 {
            body.push(Instr::Binary(Binary::Add, this, Arg::Instr(was - 1)));
        }
    }
    let last = body.len() - 1;
    let last = match dtype {
        DType::U32 => {
            body.push(Instr::Unary(Unary::Abs, Arg::Instr(last)));
            last + 1
        }
        _ => last,
    };
    body.push(Instr::Cast(dtype, Arg::Instr(last)));
    let layouts = operands.iter().map(|view| (view.base.dtype(), view.layout.clone())).collect();
    PointwiseProblem::new(shape, dtype, layouts, body)
}

fn check_views(problem: &PointwiseProblem, operands: &[View]) {
    let values: Vec<Value<f64>> = operands.iter().map(|view| view.value.clone()).collect();
    let expected = evaluate(problem, &values);
    let bases: Vec<_> = operands.iter().map(|view| &view.base).collect();
    let actual = view::run(problem, &bases, problem.dtype, &problem.shape);
    compare::compare("out", &actual, &expected, &Bound::Exact)
        .unwrap_or_else(|mismatch| panic!("{mismatch}\n{problem:?}"));
}

#[test]
fn odd_sizes_of_all_dtypes() {
    let mut rng = Rng(11);
    for dtype in DType::ALL {
        for n in [0, 1, 2, 3, 4, 5, 7, 8, 13, 127, 1021, 1024, 1025, 4099] {
            let x = small(&mut rng, dtype, &[n].into());
            for output in [dtype, DType::F32, DType::Bool, DType::F16] {
                check_exact(&dense(&[&x], output, vec![Instr::Cast(output, Arg::Operand(0))]), &[&x]);
            }
        }
    }
}

#[test]
fn empty_and_single_outputs_of_any_rank() {
    let mut rng = Rng(12);
    for shape in [vec![], vec![1, 1, 1], vec![0], vec![3, 0, 2], vec![0, 0]] {
        let shape = Shape::from(shape);
        let operands = [DType::F32, DType::F16, DType::Bool].map(|dtype| View::of(small(&mut rng, dtype, &shape)));
        check_views(&sum(&operands, &shape, DType::I32), &operands);
    }
}

#[test]
fn broadcasts_as_networks_have_them() {
    let mut rng = Rng(13);
    // A bias, a column, a scalar, a mask of keys, a mask of heads, a middle axis; each with whole blocks and without.
    for (shape, operand) in [
        (vec![6, 12], vec![12]),
        (vec![6, 13], vec![13]),
        (vec![6, 12], vec![6, 1]),
        (vec![6, 13], vec![6, 1]),
        (vec![6, 13], vec![]),
        (vec![2, 3, 5, 8], vec![2, 1, 1, 8]),
        (vec![2, 3, 5, 7], vec![2, 1, 1, 7]),
        (vec![2, 3, 5, 8], vec![1, 3, 1, 1]),
        (vec![2, 3, 5, 8], vec![5, 1]),
        (vec![2, 3, 5, 7], vec![3, 1, 7]),
    ] {
        let shape = Shape::from(shape);
        for dtype in DType::ALL {
            let whole = View::of(small(&mut rng, DType::F32, &shape));
            let part = View::of(small(&mut rng, dtype, &operand.clone().into())).broadcast(&shape);
            let operands = [whole, part];
            check_views(&sum(&operands, &shape, DType::F32), &operands);
        }
    }
}

#[test]
fn views_of_one_operand() {
    let mut rng = Rng(14);
    let shape = Shape::from([5, 8, 12]);
    for dtype in DType::ALL {
        let base = View::of(small(&mut rng, dtype, &shape));
        let views = [
            base.permute(&[2, 1, 0]),
            base.permute(&[1, 0, 2]),
            base.slice(&[0, 0, 11], &[5, 8, 12], &[1, 1, -1]),
            base.slice(&[4, 7, 0], &[5, 8, 12], &[-1, -1, 1]),
            base.slice(&[1, 2, 4], &[3, 4, 8], &[1, 1, 1]),
            base.slice(&[1, 2, 3], &[3, 4, 8], &[1, 1, 1]),
            base.slice(&[0, 0, 1], &[5, 8, 5], &[1, 1, 2]),
            base.slice(&[2, 0, 0], &[1, 8, 12], &[1, 1, 1]),
            base.slice(&[2, 3, 5], &[1, 1, 1], &[1, 1, 1]),
        ];
        for view in views {
            let shape = view.shape().clone();
            let operands = [view];
            check_views(&sum(&operands, &shape, dtype), &operands);
        }
    }
}

#[test]
fn invocations_that_take_several_blocks() {
    let mut rng = Rng(17);
    for n in [65_536, 3 * 65_536 + 5, 9 * 65_536 - 1] {
        let shape = Shape::from([n]);
        let x = small(&mut rng, DType::Bool, &shape);
        let mut profile = gpu().profile().clone();
        profile.kind = AdapterKind::Cpu;
        let problem = dense(&[&x], DType::F16, vec![Instr::Cast(DType::F16, Arg::Operand(0))]);
        assert!(problem.kernel("plain", &profile).expect("it fits").launches[0].grid[0] < 128);
        let expected = evaluate::<f64>(&problem, &[Value::from(&x)]);
        let actual = view::run_as(&profile, &problem, &[&x], DType::F16, &shape);
        compare::compare("out", &actual, &expected, &Bound::Exact).expect("a cast of bool is exact");
    }
}

#[test]
fn folded_grids() {
    let mut rng = Rng(16);
    let shape = Shape::from([100_003]);
    let x = small(&mut rng, DType::F32, &shape);
    let problem = dense(&[&x], DType::Bool, vec![Instr::Cast(DType::Bool, Arg::Operand(0))]);
    let whole = view::run(&problem, &[&x], DType::Bool, &shape);
    // One block an invocation: 98 workgroups.
    let profile = Profile { kind: AdapterKind::Gpu, ..gpu().profile().clone() };
    let folded = |limit: u32| {
        let mut folded = profile.clone();
        folded.limits.workgroups_per_dimension = limit;
        folded
    };
    for limit in [10, 33, 97] {
        let profile = folded(limit);
        assert!(problem.kernel("plain", &profile).expect("it fits").launches[0].grid[1] > 1);
        assert_eq!(view::run_as(&profile, &problem, &[&x], DType::Bool, &shape), whole);
    }
    let error = problem.kernel("plain", &folded(9)).expect_err("98 workgroups don't fit").to_string();
    assert!(error.starts_with("pointwise: workgroups"), "{error}");
}

#[test]
fn another_shape_compiles_nothing() {
    let mut rng = Rng(15);
    let mut run = |rows: usize, columns: usize| {
        let shape = Shape::from([rows, columns]);
        let operands = [
            View::of(small(&mut rng, DType::F32, &shape)),
            View::of(small(&mut rng, DType::F32, &[columns].into())).broadcast(&shape),
        ];
        let problem = sum(&operands, &shape, DType::F32);
        let kernel = problem.kernel("plain", gpu().profile()).expect("it can run");
        kernel.launches[0].source.clone()
    };
    let first = run(3, 8);
    assert_eq!(first, run(50, 12));
    assert_eq!(first, run(7, 1024));
    // Nor do two that are so large that an invocation of a software adapter takes several blocks.
    assert_eq!(run(300, 256), run(70, 1024));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Shapes of rank 0 to 6, one to seven operands through drawn views, every dtype in and out.
    #[test]
    fn drawn_views(seed in any::<u64>()) {
        let mut rng = Rng(seed);
        let rank = rng.below(7);
        let sizes: Vec<usize> = (0..rank).map(|_| rng.of(&[1, 2, 3, 4, 5, 8])).collect();
        let shape = Shape::from(sizes);
        let operands: Vec<View> = (0..1 + rng.below(7))
            .map(|_| {
                let dtype = rng.of(&DType::ALL);
                View::drawn(&mut rng, &shape, true, |rng, shape| small(rng, dtype, shape))
            })
            .collect();
        let dtype = rng.of(&DType::ALL);
        check_views(&sum(&operands, &shape, dtype), &operands);
    }
}
