//! Dropout on the device: what is drawn, to the bit, in every layout and place of a chain, and backwards again.

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Layout, Result, Shape, Tensor, ValueId,
    grad::gradients,
    graph::{Op, Reduce},
    kernel::{Arg, Dropping, Instr, PointwiseProblem, Problem},
    lower::Options,
    reference::{self, Random, Value, compare::Bound, compare::compare},
};

use crate::common::{binomial::bounds, gpu, view};

/// What one compiled program gives for many seeds is what the reference draws: 65 blocks and a part, of each dtype.
#[test]
fn one_program_draws_what_the_reference_draws_for_every_seed() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let mut g = Graph::new();
        let x = g.input("x", dtype, [7, 37]).expect("works");
        let seed = g.input("seed", DType::U32, [4]).expect("works");
        let y = g.dropout(x, seed, 0.75).expect("works");
        let z = g.dropout(x, seed, 0.5).expect("works");
        g.output("y", y).expect("works");
        g.output("z", z).expect("works");
        let mut program = gpu().compile(&g, &BTreeMap::new()).expect("works");
        let mut random = Random::new(3);
        let x = random.wholes(dtype, [7, 37], -9, 9).expect("works");
        for run in 0..24 {
            // Words of few bits, and of all.
            let words = (0..4).map(|word| random.bits() as u32 >> if run % 3 == 0 { 29 - word } else { 0 }).collect();
            let seed = Tensor::new([4], Vec::<u32>::clone(&words)).expect("works");
            let given = BTreeMap::from([("x".to_string(), x.clone()), ("seed".to_string(), seed.clone())]);
            let expected = reference::evaluate(&g, &given).expect("works");
            let found = program.run(&[("x", &x), ("seed", &seed)]).expect("works");
            for name in ["y", "z"] {
                assert_eq!(found[name].to_f64(), expected[name].to_f64(), "{dtype} {name} of {words:x?}");
            }
        }
    }
}

/// The reference and the shader agree on blocks far from the first, where the counter has high halves.
#[test]
fn far_blocks_are_drawn_as_the_reference_draws_them() {
    const N: usize = 300_001;
    let mut g = Graph::new();
    let one = g.constant(Tensor::scalar(1.0)).expect("works");
    let x = g.broadcast(one, [N]).expect("works");
    let seed = g.input("seed", DType::I32, [4]).expect("works");
    let y = g.dropout(x, seed, 0.25).expect("works");
    let scaled = g.scalar(0.75, y).expect("works");
    let y = g.mul(y, scaled).expect("works");
    g.output("y", y).expect("works");
    let seed = Tensor::new([4], vec![-5, 6, i32::MIN, 1]).expect("works");
    let found = gpu().compile(&g, &BTreeMap::new()).expect("works").run(&[("seed", &seed)]).expect("works");
    let found: Vec<bool> = found["y"].to_f64().iter().map(|y| *y > 0.5).collect();
    let expected = reference::evaluate(&g, &[("seed".to_string(), seed)].into()).expect("works")["y"].to_f64();
    assert_eq!(found, expected.iter().map(|y| *y > 0.5).collect::<Vec<_>>());
    let kept = found.iter().filter(|kept| **kept).count();
    let (least, most) = bounds(N, 0.75, 1e-9);
    assert!((least..=most).contains(&kept), "{kept}, expected {least} to {most}");
}

/// In a chain, in a kernel of its own, and where it takes over the memory of x.
#[test]
fn fused_or_not_the_same_are_dropped() {
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<ValueId> {
        let (x, y) = (g.input("x", DType::F32, [33, 20])?, g.input("y", DType::F32, [20])?);
        let seed = g.input("seed", DType::U32, [4])?;
        let sum = g.add(x, y)?;
        let active = g.relu(sum)?;
        let dropped = g.dropout(active, seed, 0.5)?;
        let turned = g.permute(dropped, &[1, 0])?;
        let dropped = g.dropout(turned, seed, 0.75)?;
        let back = g.permute(dropped, &[1, 0])?;
        g.add(back, x)
    };
    let z = build(&mut g).expect("works");
    g.output("z", z).expect("works");
    let mut random = Random::new(5);
    let given = BTreeMap::from([
        ("x".to_string(), random.wholes(DType::F32, [33, 20], -9, 9).expect("works")),
        ("y".to_string(), random.wholes(DType::F32, [20], -9, 9).expect("works")),
        ("seed".to_string(), Tensor::new([4], vec![8u32, 9, 10, 11]).expect("works")),
    ]);
    let expected = reference::evaluate(&g, &given).expect("works")["z"].to_f64();
    let inputs: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    for options in [Options::default(), Options { fuse: false, ..Options::default() }] {
        let program = gpu().lower(&g, &options).expect("works");
        let mut program = gpu().load(&program, &BTreeMap::new()).expect("works");
        assert_eq!(program.run(&inputs).expect("works")["z"].to_f64(), expected, "{options:?}");
    }
}

/// Nothing is stored of what forward drew: backward draws it again.
#[test]
fn backward_draws_what_forward_drew() {
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<(ValueId, ValueId)> {
        let x = g.input("x", DType::F32, [9, 31])?;
        let seed = g.input("seed", DType::U32, [4])?;
        let w = g.input("w", DType::F32, [31])?;
        let y = g.dropout(x, seed, 0.5)?;
        let product = g.mul(y, w)?;
        let loss = g.reduce(Reduce::Sum, product, &[], false)?;
        Ok((y, gradients(g, loss, &[x])?[0]))
    };
    let (y, dx) = build(&mut g).expect("works");
    g.output("y", y).expect("works");
    g.output("dx", dx).expect("works");
    let mut program = gpu().compile(&g, &BTreeMap::new()).expect("works");
    let mut random = Random::new(9);
    let x = random.wholes(DType::F32, [9, 31], 1, 9).expect("works");
    let w = random.wholes(DType::F32, [31], 1, 9).expect("works");
    let mut before = Vec::new();
    for step in 1..=3 {
        let seed = Tensor::new([4], vec![7u32, 0, step, 0]).expect("works");
        let found = program.run(&[("x", &x), ("w", &w), ("seed", &seed)]).expect("works");
        let kept: Vec<f64> = found["y"].to_f64().iter().zip(x.to_f64()).map(|(y, x)| y / x).collect();
        let again: Vec<f64> =
            found["dx"].to_f64().iter().zip(w.to_f64().iter().cycle()).map(|(dx, w)| dx / w).collect();
        assert_eq!(kept, again);
        assert_ne!(kept, before);
        before = kept;
    }
}

/// A seed that lies with gaps, behind a start, backwards, or is one number, as a problem made by hand has it.
#[test]
fn a_seed_is_read_through_its_layout() {
    let x = Random::new(1).wholes(DType::F32, [3, 23], 1, 9).expect("works");
    let buffer = Random::new(2).wholes(DType::I32, [16], i64::from(i32::MIN), i64::from(i32::MAX)).expect("works");
    let words = buffer.as_i32().expect("i32");
    let shape: Shape = [3, 23].into();
    for (offset, stride) in [(0, 1), (4, 1), (3, 1), (1, 3), (12, -4), (5, 0)] {
        let layout = Layout { shape: [4].into(), strides: vec![stride], offset };
        let seed: Vec<i32> = (0..4).map(|i| words[(offset as isize + i * stride) as usize]).collect();
        let seed = Tensor::new([4], seed).expect("fits");
        let operands = vec![(DType::F32, Layout::contiguous(&shape)), (DType::I32, layout)];
        let dropping = Dropping { p: 0.5, stream: 77 };
        let body = vec![Instr::Dropout(dropping, Arg::Operand(0), Arg::Operand(1))];
        let problem = PointwiseProblem::new(&shape, DType::F32, operands, body);
        assert!(!problem.allows_in_place(1) && problem.allows_in_place(0));
        let op = Op::Dropout { p: 0.5, stream: 77 };
        let expected = reference::apply(&op, &[&Value::<f64>::from(&x), &(&seed).into()]).expect("works").remove(0);
        let found = view::run(&problem, &[&x, &buffer], DType::F32, &shape);
        compare("dropout", &found, &expected, &Bound::Exact)
            .unwrap_or_else(|wrong| panic!("{offset} {stride}: {wrong}"));
    }
}
