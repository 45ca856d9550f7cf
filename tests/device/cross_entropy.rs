//! Every variant of the cross entropy against the reference, and its gradient as one program.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tilewise::{
    DType, Data, Graph, Shape, Tensor,
    grad::gradients,
    graph::{CrossEntropyArgs, Op, Reduce},
    kernel::CrossEntropyProblem,
    reference::{
        Random,
        compare::{Check, Expected},
    },
};

use crate::common::{
    gpu,
    rows::{Draw, Lie, View, run_all},
};

/// What is asked of the logits.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    ignore: Option<i32>,
    smoothing: f32,
    weight: bool,
}

const OPTIONS: [Options; 4] = [
    Options { ignore: None, smoothing: 0.0, weight: false },
    Options { ignore: Some(1), smoothing: 0.0, weight: true },
    Options { ignore: Some(-100), smoothing: 0.1, weight: false },
    Options { ignore: Some(0), smoothing: 0.3, weight: true },
];

/// Targets of which some are no class.
fn targets(draw: &mut Draw, rows: &[usize], classes: usize) -> Tensor {
    let count = rows.iter().product();
    let target = |draw: &mut Draw| match draw.below(8) {
        0 => -100,
        1 => classes as i32,
        2 | 3 => draw.below(classes.clamp(1, 2)) as i32,
        _ => draw.below(classes.max(1)) as i32,
    };
    Tensor::new(rows, (0..count).map(|_| target(draw)).collect::<Vec<i32>>()).expect("as many")
}

/// Compares every variant with the reference.
fn check(draw: &mut Draw, x: &View, options: Options) {
    let Options { ignore, smoothing, weight } = options;
    let (classes, rows) = x.layout.shape.split_last().expect("classes");
    let targets = targets(draw, rows, *classes);
    let factors = (0..*classes).map(|_| 1.25 + draw.float()).collect::<Vec<f32>>();
    let factors = Tensor::new([*classes], factors).expect("as many");
    let logits = x.read();
    let mut operands = vec![&logits, &targets];
    operands.extend(weight.then_some(&factors));
    let op = Op::CrossEntropy { ignore, smoothing, weight };
    let expected = Expected::of_op(&op, &operands, Check::measured()).expect("the reference takes it");
    let problem = CrossEntropyProblem {
        dtype: x.buffer.dtype(),
        ignore,
        smoothing,
        weight,
        ..CrossEntropyProblem::new(x.layout.clone())
    };
    operands[0] = &x.buffer;
    let output = (DType::F32, Shape::from(rows));
    run_all(gpu(), &problem, &operands, &[output.clone(), output.clone(), output], |name, outputs| {
        match expected.compare(outputs) {
            Ok(close) => eprintln!("{name}: {}", close[0]),
            Err(wrong) => panic!("{name}: {wrong}\n{problem:?}"),
        }
    });
}

fn floats(draw: &mut Draw, shape: &[usize], lie: Lie) -> View {
    View::new(shape, lie, |n| Data::F32((0..n).map(|_| 4.0 * draw.float()).collect()))
}

#[test]
fn widths() {
    let mut draw = Draw::new(1);
    for (i, width) in [1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 64, 67, 260, 509, 1031, 2056].into_iter().enumerate() {
        let x = floats(&mut draw, &[7, width], Lie::Dense);
        check(&mut draw, &x, OPTIONS[i % 4]);
        check(&mut draw, &x, OPTIONS[3]);
    }
}

#[test]
fn wide_rows() {
    let mut draw = Draw::new(2);
    for (i, width) in [10_007, 50_257, 50_260].into_iter().enumerate() {
        let x = floats(&mut draw, &[3, width], Lie::Dense);
        check(&mut draw, &x, OPTIONS[i]);
        check(&mut draw, &x, OPTIONS[3]);
    }
}

#[test]
fn numbers_of_rows() {
    let mut draw = Draw::new(3);
    for (i, rows) in [1, 15, 16, 17, 63, 64, 65, 257, 4099].into_iter().enumerate() {
        let x = floats(&mut draw, &[rows, 12], Lie::Dense);
        check(&mut draw, &x, OPTIONS[i % 4]);
    }
}

#[test]
fn logits_that_lie_in_any_way() {
    let mut draw = Draw::new(4);
    for (i, shape) in [vec![37], vec![16, 20], vec![5, 9, 12], vec![3, 4, 5, 8]].into_iter().enumerate() {
        for lie in Lie::ALL {
            let x = floats(&mut draw, &shape, lie);
            check(&mut draw, &x, OPTIONS[i]);
        }
    }
    // One row for all.
    let mut x = floats(&mut draw, &[24], Lie::Dense);
    x.layout = x.layout.broadcast(&[5, 24].into());
    check(&mut draw, &x, OPTIONS[3]);
}

#[test]
fn narrow_logits() {
    let mut draw = Draw::new(5);
    for dtype in [DType::F16, DType::BF16] {
        for (i, (shape, lie)) in
            [([9, 96], Lie::Dense), ([7, 33], Lie::Dense), ([3, 1028], Lie::Rows), ([5, 40], Lie::Turned)]
                .into_iter()
                .enumerate()
        {
            let x = floats(&mut draw, &shape, lie).stored(dtype);
            check(&mut draw, &x, OPTIONS[i]);
            check(&mut draw, &x, OPTIONS[3]);
        }
    }
}

#[test]
fn empty() {
    let mut draw = Draw::new(6);
    for shape in [[0, 8], [8, 0]] {
        for options in OPTIONS {
            let x = floats(&mut draw, &shape, Lie::Dense);
            check(&mut draw, &x, options);
        }
    }
}

/// A mean loss and its gradient with respect to the logits, in one program, against the reference.
fn trains(dtype: DType, shape: &[usize], options: Options, with_lse: bool) {
    let Options { ignore, smoothing, weight } = options;
    let (&classes, rows) = shape.split_last().expect("classes");
    let mut draw = Draw::new(shape.len() as u64);
    let mut random = Random::new(7);
    let mut g = Graph::new();
    let logits = g.input("logits", dtype, shape).expect("fits");
    let ids = g.input("targets", DType::I32, rows).expect("fits");
    let factors = weight.then(|| g.input("weight", DType::F32, [classes]).expect("fits"));
    let found = g.cross_entropy(logits, ids, CrossEntropyArgs { weight: factors, ignore, smoothing }).expect("fits");
    let sum = |g: &mut Graph, x| g.reduce(Reduce::Sum, x, &[], false).expect("fits");
    let (loss, count) = (sum(&mut g, found.loss), sum(&mut g, found.weight));
    let mut mean = g.div(loss, count).expect("fits");
    if with_lse {
        // The z-loss.
        let square = g.mul(found.lse, found.lse).expect("fits");
        let square = sum(&mut g, square);
        mean = g.add(mean, square).expect("fits");
    }
    let dx = gradients(&mut g, mean, &[logits]).expect("differentiable")[0];
    assert_eq!(g.dtype(dx), dtype);
    g.output("mean", mean).expect("new");
    g.output("dx", dx).expect("new");
    let mut given = BTreeMap::new();
    given.insert("logits".to_string(), random.tensor(dtype, shape, -4.0, 4.0).expect("fits"));
    given.insert("targets".to_string(), targets(&mut draw, rows, classes));
    if weight {
        given.insert("weight".to_string(), random.tensor(DType::F32, [classes], 0.5, 1.5).expect("fits"));
    }
    let check = if dtype == DType::F32 { Check::measured() } else { Check::one_apart(dtype) };
    let right = Expected::of_graph(&g, &given, check).expect("evaluates");
    let inputs: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut program = gpu().compile(&g, []).expect("compiles");
    let outputs: BTreeMap<String, Tensor> = program.run(&inputs).expect("runs").into_iter().collect();
    right.compare_named(&outputs).unwrap_or_else(|wrong| panic!("{dtype} {shape:?} {options:?}: {wrong}"));
    assert!(outputs["dx"].to_f64().iter().any(|x| x.abs() > 1e-6), "the gradient is 0");
}

#[test]
fn a_loss_and_its_gradient_are_one_program() {
    for options in OPTIONS {
        trains(DType::F32, &[3, 5, 37], options, false);
        trains(DType::F32, &[11, 64], options, true);
    }
    trains(DType::F16, &[11, 64], OPTIONS[0], false);
    trains(DType::BF16, &[11, 33], OPTIONS[2], false);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn drawn_at_random(
        seed: u64,
        shape in proptest::collection::vec(1usize..24, 1..5),
        lie in proptest::sample::select(Lie::ALL.to_vec()),
        spread in 0.1f32..40.0,
        smoothing in 0.0f32..1.0,
        smooth: bool,
        weight: bool,
    ) {
        let mut draw = Draw::new(seed);
        let x = View::new(&shape, lie, |n| Data::F32((0..n).map(|_| spread * draw.float()).collect()));
        let options = Options { ignore: Some(2), smoothing: if smooth { smoothing } else { 0.0 }, weight };
        check(&mut draw, &x, options);
    }
}
