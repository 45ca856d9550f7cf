//! Every variant of layer norm and RMS norm against the reference.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tilewise::{
    DType, Data, Graph, Layout, Shape, Tensor,
    graph::Op,
    kernel::{Candidate, NormDTypes, NormKind, NormProblem, Operand, Problem},
    reference::compare::{Check, Expected, compare},
};

use crate::common::{
    gpu,
    rows::{Draw, Lie, View, after_copy, profiles, run_all},
};

const KINDS: [NormKind; 2] = [NormKind::Layer, NormKind::Rms];

/// A problem and its operands.
#[derive(Clone, Debug)]
struct Case {
    problem: NormProblem,
    x: View,
    residual: Option<View>,
    weight: Option<View>,
    bias: Option<View>,
}

impl Case {
    fn new(kind: NormKind, axes: usize, epsilon: f32, x: View) -> Self {
        let problem = NormProblem::new(kind, axes, epsilon, x.layout.clone());
        Case { problem, x, residual: None, weight: None, bias: None }
    }

    fn residual(mut self, residual: View) -> Self {
        self.problem.residual = Some(residual.layout.clone());
        self.residual = Some(residual);
        self
    }

    fn weight(mut self, weight: View) -> Self {
        self.problem.weight = Some(weight.layout.clone());
        self.weight = Some(weight);
        self
    }

    fn bias(mut self, bias: View) -> Self {
        self.problem.bias = Some(bias.layout.clone());
        self.bias = Some(bias);
        self
    }

    /// Every output that there is.
    fn all_outputs(mut self) -> Self {
        self.problem.sum = true;
        self.problem.mean = self.problem.kind == NormKind::Layer;
        self.problem.rstd = true;
        self
    }

    /// Operands and results in these dtypes.
    fn stored(mut self, dtypes: NormDTypes) -> Self {
        self.x = self.x.stored(dtypes.x);
        self.residual = self.residual.map(|view| view.stored(dtypes.residual));
        self.weight = self.weight.map(|view| view.stored(dtypes.weight));
        self.bias = self.bias.map(|view| view.stored(dtypes.bias));
        self.problem.dtypes = dtypes;
        self
    }

    fn inputs(&self) -> Vec<&Tensor> {
        let options = [&self.residual, &self.weight, &self.bias].into_iter().flatten();
        [&self.x].into_iter().chain(options).map(|view| &view.buffer).collect()
    }

    fn outputs(&self) -> Vec<(DType, Shape)> {
        let NormProblem { ref x, axes, sum, mean, rstd, dtypes, .. } = self.problem;
        let leading: Shape = x.shape[..x.shape.rank() - axes].into();
        let all = [
            (true, dtypes.y, x.shape.clone()),
            (sum, dtypes.sum, x.shape.clone()),
            (mean, DType::F32, leading.clone()),
            (rstd, DType::F32, leading),
        ];
        all.into_iter().filter(|(wanted, ..)| *wanted).map(|(_, dtype, shape)| (dtype, shape)).collect()
    }

    /// The same as a graph.
    fn expected(&self, check: Check) -> Expected {
        let NormProblem { kind, axes, epsilon, sum, mean, rstd, dtypes, .. } = self.problem;
        let mut g = Graph::new();
        let mut inputs = BTreeMap::new();
        let mut input = |g: &mut Graph, name: &str, view: &View| {
            let tensor = view.read();
            let value = g.input(name, tensor.dtype(), tensor.shape()).expect("an input");
            inputs.insert(name.to_string(), tensor);
            g.cast(value, DType::F32).expect("a conversion")
        };
        let x = input(&mut g, "x", &self.x);
        let residual = self.residual.as_ref().map(|view| input(&mut g, "residual", view));
        let weight = self.weight.as_ref().map(|view| input(&mut g, "weight", view));
        let bias = self.bias.as_ref().map(|view| input(&mut g, "bias", view));
        let s = match residual {
            Some(residual) => g.add(x, residual).expect("equal shapes"),
            None => g.reshape(x, &self.problem.x.shape).expect("its own shape"),
        };
        let rounded = g.cast(s, dtypes.sum).expect("a conversion");
        let operands: Vec<_> = [Some(s), weight].into_iter().flatten().collect();
        let (y, averages, inverses) = match kind {
            NormKind::Layer => {
                let operands: Vec<_> = operands.into_iter().chain(bias).collect();
                let op = Op::LayerNorm { axes, epsilon, weight: weight.is_some(), bias: bias.is_some() };
                let results = g.push(op, &operands).expect("a layer norm");
                (results[0], Some(results[1]), results[2])
            }
            NormKind::Rms => {
                let op = Op::RmsNorm { axes, epsilon, weight: weight.is_some() };
                let results = g.push(op, &operands).expect("an RMS norm");
                (bias.map_or(results[0], |bias| g.add(results[0], bias).expect("it broadcasts")), None, results[1])
            }
        };
        let y = g.cast(y, dtypes.y).expect("a conversion");
        g.output("y", y).expect("an output");
        if sum {
            g.output("sum", rounded).expect("an output");
        }
        if let Some(averages) = averages.filter(|_| mean) {
            g.output("mean", averages).expect("an output");
        }
        if rstd {
            g.output("rstd", inverses).expect("an output");
        }
        Expected::of_graph(&g, &inputs, check).expect("the reference takes it")
    }

    fn check(&self, check: Check) {
        let expected = self.expected(check);
        // A mean may cancel to less than what it is the mean of.
        let s = self.x.read().to_f64().into_iter().chain(self.residual.iter().flat_map(|view| view.read().to_f64()));
        let magnitude = s.map(f64::abs).fold(0.0, f64::max);
        let of_mean = self.expected(if check == Check::measured() { Check::Measured { magnitude } } else { check });
        run_all(gpu(), &self.problem, &self.inputs(), &self.outputs(), |name, outputs| {
            assert_eq!(outputs.len(), expected.results().count());
            for ((by_itself, of_mean), output) in expected.results().zip(of_mean.results()).zip(outputs) {
                let (result, value, bound) = if by_itself.0 == "mean" { of_mean } else { by_itself };
                match compare(&format!("{name}: {result}"), output, value, bound) {
                    Ok(close) => eprintln!("{name}: {result}: {close}"),
                    Err(wrong) => panic!("{wrong}\n{:?}", self.problem),
                }
            }
        });
    }
}

fn floats(draw: &mut Draw, shape: &[usize], lie: Lie) -> View {
    View::new(shape, lie, |n| draw.floats(n).into())
}

fn integers(draw: &mut Draw, shape: &[usize], lie: Lie) -> View {
    View::new(shape, lie, |n| draw.integers(n, 8).into())
}

/// Rows of ±1 around integers: the mean is the integer, and the variance is 1.
fn balanced(draw: &mut Draw, rows: usize, width: usize) -> View {
    View::new(&[rows, width], Lie::Dense, |_| {
        let row = |draw: &mut Draw| {
            let center = draw.integer(100) as f32;
            (0..width).map(move |i| if (i + i / 3) % 2 == i / 3 % 2 { center + 1.0 } else { center - 1.0 })
        };
        Data::F32((0..rows).flat_map(|_| row(draw).collect::<Vec<_>>()).collect())
    })
}

#[test]
fn integers_give_equal_bits() {
    let mut draw = Draw::new(1);
    for (rows, width) in [(1, 2), (3, 8), (5, 62), (9, 64), (17, 256), (4, 1026)] {
        let x = balanced(&mut draw, rows, width);
        let weight = integers(&mut draw, &[width], Lie::Dense);
        let bias = integers(&mut draw, &[width], Lie::Dense);
        Case::new(NormKind::Layer, 1, 0.0, x).weight(weight).bias(bias).all_outputs().check(Check::Exact);

        // All of one magnitude, a power of two.
        let signs = View::new(&[rows, width], Lie::Dense, |n| {
            Data::F32((0..n).map(|_| if draw.below(2) == 0 { 4.0 } else { -4.0 }).collect())
        });
        let weight = integers(&mut draw, &[width], Lie::Dense);
        let mut case = Case::new(NormKind::Rms, 1, 0.0, signs).weight(weight);
        case.problem.rstd = true;
        case.check(Check::Exact);
    }
}

#[test]
fn widths() {
    let mut draw = Draw::new(2);
    // Around a block, the lanes of a subgroup, of a row in a workgroup, what they keep in registers, and primes.
    for width in [1, 2, 3, 4, 7, 8, 9, 19, 31, 32, 33, 64, 67, 127, 260, 509, 768, 1031, 2056] {
        for kind in KINDS {
            let x = floats(&mut draw, &[7, width], Lie::Dense);
            let weight = floats(&mut draw, &[width], Lie::Dense);
            Case::new(kind, 1, 1e-5, x).weight(weight).check(Check::measured());
        }
    }
}

#[test]
fn wide_rows() {
    let mut draw = Draw::new(3);
    for width in [10_007, 12_288, 90_001] {
        for kind in KINDS {
            let x = floats(&mut draw, &[3, width], Lie::Dense);
            let residual = floats(&mut draw, &[3, width], Lie::Dense);
            Case::new(kind, 1, 1e-5, x).residual(residual).all_outputs().check(Check::measured());
        }
    }
}

#[test]
fn numbers_of_rows() {
    let mut draw = Draw::new(4);
    for rows in [1, 2, 15, 16, 17, 35, 63, 64, 65, 131, 257, 4099] {
        let x = floats(&mut draw, &[rows, 12], Lie::Dense);
        Case::new(NormKind::Layer, 1, 1e-5, x).all_outputs().check(Check::measured());
    }
    // More workgroups than one dimension of a grid takes.
    let x = floats(&mut draw, &[1_100_003, 1], Lie::Dense);
    Case::new(NormKind::Rms, 1, 1e-5, x).check(Check::measured());
}

#[test]
fn every_option_alone_and_with_the_others() {
    let mut draw = Draw::new(5);
    for options in 0..128usize {
        // In whole vectors and not, each more than a subgroup's lanes take at once; narrow, so that it compiles soon.
        let width = [36, 13][options.count_ones() as usize % 2];
        let on = |bit: usize| options >> bit & 1 == 1;
        let kind = if on(0) { NormKind::Layer } else { NormKind::Rms };
        if kind == NormKind::Rms && on(5) {
            continue;
        }
        let mut case = Case::new(kind, 1, 1e-5, floats(&mut draw, &[5, width], Lie::Dense));
        if on(1) {
            case = case.residual(floats(&mut draw, &[5, width], Lie::Dense));
        }
        if on(2) {
            case = case.weight(floats(&mut draw, &[width], Lie::Dense));
        }
        if on(3) {
            case = case.bias(floats(&mut draw, &[width], Lie::Dense));
        }
        (case.problem.sum, case.problem.mean, case.problem.rstd) = (on(4), on(5), on(6));
        case.check(Check::measured());
    }
}

#[test]
fn operands_may_lie_in_any_way() {
    let mut draw = Draw::new(6);
    for axes in [1, 2, 3] {
        let shape = [3, 2, 3, 8];
        let row = &shape[4 - axes..];
        for x in Lie::ALL {
            for residual in [Lie::Dense, Lie::Turned, Lie::Rows] {
                Case::new(NormKind::Layer, axes, 1e-5, floats(&mut draw, &shape, x))
                    .residual(floats(&mut draw, &shape, residual))
                    .weight(floats(&mut draw, row, x))
                    .bias(floats(&mut draw, row, residual))
                    .all_outputs()
                    .check(Check::measured());
            }
        }
    }
    // The heads of [B, T, H, D], and one weight and bias for all elements.
    let mut heads = floats(&mut draw, &[2, 9, 3, 16], Lie::Dense);
    heads.layout = heads.layout.permute(&[0, 2, 1, 3]);
    let mut one = floats(&mut draw, &[1], Lie::Dense);
    one.layout = one.layout.broadcast(&[16].into());
    Case::new(NormKind::Rms, 1, 1e-6, heads).weight(one.clone()).bias(one).check(Check::measured());
    // A residual for all rows.
    let mut residual = floats(&mut draw, &[64], Lie::Dense);
    residual.layout = residual.layout.broadcast(&[10, 64].into());
    let x = floats(&mut draw, &[10, 64], Lie::Dense);
    Case::new(NormKind::Layer, 1, 1e-5, x).residual(residual).all_outputs().check(Check::measured());
}

#[test]
fn a_large_mean_costs_no_digits() {
    let mut draw = Draw::new(7);
    for width in [64, 768, 1021, 12_289] {
        for center in [4096.0, -1e6] {
            // Uniform with σ = 1.
            let x = View::new(&[5, width], Lie::Dense, |n| {
                Data::F32((0..n).map(|_| center + draw.float() * 3f32.sqrt()).collect())
            });
            let case = Case::new(NormKind::Layer, 1, 1e-5, x);
            case.check(Check::measured());
            // A plain evaluation does badly here; this is what can be had.
            case.check(Check::Within { relative: 2e-6, absolute: 2e-6 });
        }
    }
}

#[test]
fn one_element_far_out_costs_no_digits() {
    let mut draw = Draw::new(8);
    for at in [0, 1, 500] {
        let mut data = draw.floats(3 * 768);
        for row in 0..3 {
            data[row * 768 + at] = 1e4;
        }
        let x = View { buffer: Tensor::new([3 * 768], data).expect("3 rows"), layout: Layout::contiguous([3, 768]) };
        for kind in KINDS {
            Case::new(kind, 1, 1e-5, x.clone()).check(Check::measured());
        }
    }
}

#[test]
fn equal_elements_give_bias() {
    let mut draw = Draw::new(9);
    let bias = integers(&mut draw, &[96], Lie::Dense);
    let x = View::new(&[4, 96], Lie::Dense, |n| vec![7.0f32; n].into());
    let case = Case::new(NormKind::Layer, 1, 1e-5, x).bias(bias);
    run_all(gpu(), &case.problem, &case.inputs(), &case.outputs(), |name, outputs| {
        let expected = case.bias.as_ref().expect("given").read();
        let expected = expected.as_f32().expect("f32");
        let y = outputs[0].as_f32().expect("f32");
        assert!(y.chunks(96).all(|row| row == expected), "{name}: {y:?}");
    });
}

#[test]
fn empty() {
    let mut draw = Draw::new(10);
    for (shape, axes) in [(vec![0, 8], 1), (vec![3, 0], 1), (vec![3, 0, 4], 2), (vec![2, 0, 4], 1)] {
        for kind in KINDS {
            let x = floats(&mut draw, &shape, Lie::Dense);
            Case::new(kind, axes, 0.25, x.clone()).check(Check::Exact);
            Case::new(kind, axes, 0.25, x).all_outputs().check(Check::Exact);
        }
    }
}

const F32: DType = DType::F32;
const F16: DType = DType::F16;
const BF16: DType = DType::BF16;

/// Of x, residual, weight, bias, sum and y.
const STORED: [[DType; 6]; 7] = [
    [F16; 6],
    [BF16; 6],
    [F16, F16, F32, F32, F32, F16],
    [F32, BF16, F16, F32, F16, BF16],
    [BF16, F32, BF16, F16, F32, F32],
    [F32, F32, F32, F32, F32, F16],
    [F16, BF16, F32, BF16, BF16, F32],
];

fn dtypes([x, residual, weight, bias, sum, y]: [DType; 6]) -> NormDTypes {
    NormDTypes { x, residual, weight, bias, sum, y }
}

#[test]
fn narrow_operands_are_exact_in_any_mixture() {
    let mut draw = Draw::new(21);
    for (n, stored) in STORED.into_iter().enumerate() {
        // Words of one row, and words that rows share.
        for width in [64, 62].into_iter().take(if n < 2 { 2 } else { 1 }) {
            let x = balanced(&mut draw, 5, width);
            let weight = integers(&mut draw, &[width], if n % 2 == 0 { Lie::Dense } else { Lie::Rows });
            let bias = integers(&mut draw, &[width], Lie::Dense);
            let zeros = View::new(&[5, width], Lie::Dense, |n| vec![0.0f32; n].into());
            Case::new(NormKind::Layer, 1, 0.0, x)
                .residual(zeros)
                .weight(weight)
                .bias(bias)
                .all_outputs()
                .stored(dtypes(stored))
                .check(Check::Exact);
        }
    }
}

#[test]
fn narrow_operands_may_lie_in_any_way() {
    let mut draw = Draw::new(22);
    for (n, stored) in STORED.into_iter().enumerate() {
        let shapes = [(5, 36), (2, 259), (3, 264), (130, 64), (3, 13), (2, 6)];
        for (m, (rows, width)) in shapes.into_iter().enumerate().skip(n % 3).step_by(3) {
            let lie = |i: usize| Lie::ALL[(n + m + i) % 6];
            let mut case = Case::new(KINDS[(n + m) % 2], 1, 1e-5, floats(&mut draw, &[rows, width], lie(0)));
            if m != 4 {
                case = case.residual(floats(&mut draw, &[rows, width], lie(1)));
            }
            case = case.weight(floats(&mut draw, &[width], lie(2))).bias(floats(&mut draw, &[width], lie(3)));
            let dtypes = dtypes(stored);
            (case.problem.sum, case.problem.rstd) = (m % 4 != 1, n % 2 == 0);
            let roughest = if [dtypes.sum, dtypes.y].contains(&BF16) { BF16 } else { F16 };
            case.stored(dtypes).check(Check::one_apart(roughest));
        }
    }
}

/// Differences of such numbers from the mean share their last digits, and a sum of many rounds them to the same side.
#[test]
fn sums_of_many_numbers_of_few_digits_lose_none() {
    let mut draw = Draw::new(24);
    for stored in [F32, BF16] {
        let case = Case::new(NormKind::Layer, 1, 1e-5, integers(&mut draw, &[1, 300_008], Lie::Dense));
        let mut case = case.stored(NormDTypes { x: stored, ..NormDTypes::default() });
        case.problem.mean = true;
        case.check(Check::Measured { magnitude: 1.0 });
    }
}

#[test]
fn narrow_results_go_in_place_of_operands_as_wide() {
    let of = |width: usize, x: DType, y: DType| {
        let mut problem = NormProblem::new(NormKind::Layer, 1, 1e-5, Layout::contiguous([9, width]));
        (problem.dtypes.x, problem.dtypes.sum, problem.dtypes.y) = (x, x, y);
        problem
    };
    for (width, x, y, fits) in [
        (96, F16, F16, true),
        (96, BF16, F16, true),
        (96, F32, F16, false),
        (96, F16, F32, false),
        (95, F16, F16, false),
        (95, F32, F32, true),
    ] {
        assert_eq!(of(width, x, y).allows_in_place(0), fits, "{width} {x} {y}");
    }
    let mut draw = Draw::new(23);
    for (x, y) in [(F16, F16), (BF16, F16)] {
        let case = Case::new(NormKind::Layer, 1, 1e-5, floats(&mut draw, &[9, 96], Lie::Dense));
        let case = case.stored(of(96, x, y).dtypes);
        let mut shared = case.problem.clone();
        shared.set_in_place(0);
        for profile in profiles(gpu()) {
            for candidate in shared.candidates(&profile).into_iter().filter(Candidate::is_usable) {
                let run = |problem: &NormProblem, copies: bool| {
                    let kernel = problem.kernel(candidate.variant, &profile).expect("usable");
                    assert!(kernel.launches.iter().all(|launch| {
                        launch.bindings.iter().all(|binding| !copies || binding.operand != Operand::Input(0))
                    }));
                    let kernel = if copies { after_copy(kernel, 0, 9 * 96 / 2) } else { kernel };
                    gpu().run_kernel(&kernel, &case.inputs(), &case.outputs()).expect("it runs")
                };
                assert_eq!(run(&case.problem, false), run(&shared, true), "{} {x} {y}", candidate.variant);
            }
        }
    }
}

#[test]
fn in_place_gives_the_same_bits() {
    let mut draw = Draw::new(11);
    for width in [96, 97, 3000] {
        let x = floats(&mut draw, &[9, width], Lie::Dense);
        let case = Case::new(NormKind::Layer, 1, 1e-5, x).residual(floats(&mut draw, &[9, width], Lie::Dense));
        let case = case.weight(floats(&mut draw, &[width], Lie::Dense)).all_outputs();
        for input in [0, 1] {
            let mut shared = case.problem.clone();
            assert!(shared.allows_in_place(input));
            shared.set_in_place(input);
            for profile in profiles(gpu()) {
                for candidate in case.problem.candidates(&profile).into_iter().filter(Candidate::is_usable) {
                    let run = |problem: &NormProblem, copies: bool| {
                        let kernel = problem.kernel(candidate.variant, &profile).expect("usable");
                        let kernel = if copies { after_copy(kernel, input, 9 * width) } else { kernel };
                        gpu().run_kernel(&kernel, &case.inputs(), &case.outputs()).expect("it runs")
                    };
                    assert_eq!(run(&case.problem, false), run(&shared, true), "{} input {input}", candidate.variant);
                }
            }
        }
    }
}

fn lie() -> impl Strategy<Value = Lie> {
    proptest::sample::select(Lie::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn drawn_at_random(
        seed: u64,
        shape in proptest::collection::vec(1usize..24, 1..5),
        axes in 1usize..5,
        layer: bool,
        lies in (lie(), proptest::option::of(lie()), proptest::option::of(lie()), proptest::option::of(lie())),
        outputs: (bool, bool, bool),
        center in -50f32..50.0,
    ) {
        let mut draw = Draw::new(seed);
        let axes = axes.min(shape.len());
        let row = shape[shape.len() - axes..].to_vec();
        let mut view = |shape: &[usize], lie: Lie| {
            View::new(shape, lie, |n| Data::F32((0..n).map(|_| center + draw.float()).collect()))
        };
        let kind = if layer { NormKind::Layer } else { NormKind::Rms };
        let mut case = Case::new(kind, axes, 1e-5, view(&shape, lies.0));
        if let Some(lie) = lies.1 {
            case = case.residual(view(&shape, lie));
        }
        if let Some(lie) = lies.2 {
            case = case.weight(view(&row, lie));
        }
        if let Some(lie) = lies.3 {
            case = case.bias(view(&row, lie));
        }
        (case.problem.sum, case.problem.mean, case.problem.rstd) = (outputs.0, outputs.1 && layer, outputs.2);
        case.check(Check::measured());
    }
}
