//! The gradient of attention, every variant against the reference: each option alone, any together, layouts, dtypes, and what is
//! asked for of the results.

use proptest::prelude::*;

use tilewise::{
    DType, Layout, Tensor,
    gpu::Gpu,
    graph::{AttentionOperand as A, Op},
    kernel::{AttentionGradProblem, Problem},
    reference::compare::{Check, Expected, compare},
};

use crate::common::{
    attention::{Case, Draw, Kind, Lie, i32s, tensor},
    gpu,
};

const VARIANTS: [&str; 3] = ["plain", "tiled", "panel"];

/// A case of attention, and the gradient of its results.
struct Backward {
    case: Case,
    dout: Tensor,
    lie: Lie,
    statistics: Tensor,
}

impl Backward {
    /// With drawn gradients of out and lse.
    fn of(case: Case, draw: &mut Draw) -> Self {
        let expected = case.expected(Check::measured());
        let mut results = expected.results().map(|(_, value, _)| (value.shape().clone(), value.to_f64()));
        let ((shape, out), (rows, lse)) = (results.next().expect("out"), results.next().expect("lse"));
        let dout = draw.floats(shape.clone(), 1.0);
        let width = shape[shape.rank() - 1];
        let numbers = dout.to_f64();
        let dlse = draw.floats(rows.clone(), 1.0).to_f64();
        let delta = dlse.into_iter().enumerate().map(|(row, dlse)| {
            let of_row = row * width..(row + 1) * width;
            numbers[of_row.clone()].iter().zip(&out[of_row]).map(|(dout, out)| dout * out).sum::<f64>() - dlse
        });
        let statistics: Vec<f32> = lse.iter().copied().chain(delta).map(|x| x as f32).collect();
        let statistics = tensor([&[2], &rows[..]].concat(), statistics);
        Backward { case, dout, lie: Lie::Dense, statistics }
    }

    fn problem(&self) -> (AttentionGradProblem, Vec<Tensor>) {
        let (attention, mut buffers) = self.case.problem();
        let (dout, layout) = self.lie.store(&self.dout);
        buffers.extend([dout, self.statistics.clone()]);
        let mut problem = AttentionGradProblem::new(attention);
        problem.dout = layout;
        (problem, buffers)
    }

    fn expected(&self, check: Check) -> Expected {
        let Case { q, k, v, extra, options, .. } = &self.case;
        let operands: Vec<&Tensor> = [q, k, v].into_iter().chain(extra).chain([&self.dout, &self.statistics]).collect();
        Expected::of_op(&Op::AttentionGrad(options.clone()), &operands, check).expect("a valid case")
    }

    fn check_all(&self, gpu: &Gpu) {
        let there: Vec<bool> = self.problem().0.wanted.to_vec();
        for variant in VARIANTS {
            self.check(variant, gpu, &there);
        }
    }

    /// Runs a variant if the device can, and compares those results that are wanted.
    fn check(&self, variant: &str, gpu: &Gpu, wanted: &[bool]) {
        let (mut problem, buffers) = self.problem();
        let there = problem.wanted;
        problem.wanted.copy_from_slice(wanted);
        let candidates = problem.candidates(gpu.profile());
        let candidate = candidates.iter().find(|candidate| candidate.variant == variant).expect("it is listed");
        if !candidate.is_usable() {
            assert!(self.may_refuse(variant, gpu), "{variant}: {}: {candidate:?}", self.case.name);
            return;
        }
        let kernel = problem.kernel(variant, gpu.profile()).expect("usable");
        let expected = self.expected(Check::measured());
        // The reference gives all that there are.
        let results: Vec<_> = expected.results().zip(there.iter().zip(wanted).filter(|(there, _)| **there)).collect();
        let results: Vec<_> =
            results.into_iter().filter(|(_, (_, wanted))| **wanted).map(|(result, _)| result).collect();
        let outputs: Vec<_> = results.iter().map(|(_, value, _)| (DType::F32, value.shape().clone())).collect();
        let actual = gpu.run_kernel(&kernel, &buffers.iter().collect::<Vec<_>>(), &outputs).expect("runs");
        let mut worst = 0f64;
        for ((name, expected, bound), actual) in results.into_iter().zip(&actual) {
            match compare(name, actual, expected, bound) {
                Ok(comparison) => worst = worst.max(comparison.ratio),
                Err(message) => panic!("{variant}: {}\n{problem:#?}\n{message}", self.case.name),
            }
        }
        eprintln!("{variant:>6} {worst:.3} of the bound: {}", self.case.name);
    }

    /// Whether this device, or any, may refuse it: a panel needs columns, few enough to compile, and subgroups of one size.
    fn may_refuse(&self, variant: &str, gpu: &Gpu) -> bool {
        let width = |tensor: &Tensor| tensor.shape().last().copied().unwrap_or(0);
        let (q, v) = (width(&self.case.q), width(&self.case.v));
        let columns = q.min(v) > 0 && q.div_ceil(4) + v.div_ceil(4) <= 64;
        let fixed = gpu.profile().subgroup.is_some_and(|(least, most)| least == most);
        variant == "panel" && !(columns && fixed)
    }
}

#[test]
fn every_option_alone() {
    let gpu = gpu();
    for kind in Kind::ALL.into_iter().filter(|&kind| kind != Kind::ScoreMod) {
        let mut draw = Draw::new(kind as u64);
        let case = Case::new(format!("{kind:?}"), (2, 4, 2, 21, 38, 16, 16), &mut draw);
        let case = kind.apply(case, &mut draw);
        Backward::of(case, &mut draw).check_all(gpu);
    }
}

#[test]
fn biases_that_are_repeated_along_any_axes() {
    let gpu = gpu();
    for ones in 0..16 {
        let mut draw = Draw::new(100 + ones);
        let shape = [2, 4, 21, 38].into_iter().enumerate();
        let shape: Vec<usize> = shape.map(|(axis, size)| if ones >> axis & 1 == 1 { 1 } else { size }).collect();
        let bias = draw.floats(shape.clone(), 1.0);
        let case = Case::new(format!("bias {shape:?}"), (2, 4, 2, 21, 38, 16, 16), &mut draw).with(A::Bias, bias);
        Backward::of(case, &mut draw).check_all(gpu);
    }
    for shape in [vec![38], vec![30], vec![21, 30], vec![1, 1], vec![4, 1, 30]] {
        let mut draw = Draw::new(200);
        let bias = draw.floats(shape.clone(), 1.0);
        let case = Case::new(format!("bias {shape:?}"), (2, 4, 2, 21, 38, 16, 16), &mut draw).with(A::Bias, bias);
        Backward::of(case, &mut draw).check_all(gpu);
    }
}

#[test]
fn heads_of_any_width() {
    let gpu = gpu();
    for (d, dv) in [(1, 1), (2, 7), (5, 36), (33, 64), (64, 64), (68, 24), (255, 3), (256, 256)] {
        let mut draw = Draw::new(300 + d as u64);
        let case = Case::new(format!("d {d} dv {dv}"), (1, 2, 1, 13, 19, d, dv), &mut draw);
        Backward::of(case, &mut draw).check_all(gpu);
    }
}

#[test]
fn narrow_operands() {
    let gpu = gpu();
    for (dtype, other) in [(DType::F16, DType::F16), (DType::BF16, DType::F32), (DType::F32, DType::BF16)] {
        for width in [16, 13] {
            let mut draw = Draw::new(400);
            let case = Case::new(format!("{dtype} {other} {width}"), (2, 4, 2, 21, 38, width, width), &mut draw);
            let bias = draw.floats([4, 21, 38], 1.0);
            let case = case.with(A::Bias, bias).stored([dtype, other, dtype, other]);
            Backward::of(case, &mut draw).check_all(gpu);
        }
    }
}

#[test]
fn operands_may_lie_in_any_way() {
    let gpu = gpu();
    for lie in Lie::ALL {
        let mut draw = Draw::new(500);
        let mut case = Case::new(format!("{lie:?}"), (2, 4, 2, 21, 38, 16, 16), &mut draw);
        case = Kind::Mask.apply(case, &mut draw);
        case.lies = [lie; 4];
        Backward { lie, ..Backward::of(case, &mut draw) }.check_all(gpu);
    }
}

#[test]
fn any_of_the_results() {
    let gpu = gpu();
    let mut draw = Draw::new(600);
    let bias = draw.floats([4, 21, 38], 1.0);
    let case = Case::new("some results", (2, 4, 2, 21, 38, 16, 16), &mut draw).with(A::Bias, bias);
    let backward = Backward::of(Kind::Slopes.apply(case, &mut draw), &mut draw);
    for bits in 1..32 {
        let wanted: Vec<bool> = (0..5).map(|result| bits >> result & 1 == 1).collect();
        for variant in VARIANTS {
            backward.check(variant, gpu, &wanted);
        }
    }
}

/// Sequences end to end, some of them empty, rows before the first and after the last, and a panel with keys of several.
#[test]
fn packed_sequences() {
    let gpu = gpu();
    let starts: [(&[i32], &[i32]); 5] = [
        (&[0, 5, 5, 21], &[0, 9, 12, 38]),
        (&[2, 3, 19], &[1, 36, 37]),
        (&[0, 0, 0, 21], &[0, 3, 38, 38]),
        (&[0, 7, 14, 20, 21], &[0, 1, 2, 3, 4]),
        (&[21], &[38]),
    ];
    for (q, k) in starts {
        for causal in [false, true] {
            let mut draw = Draw::new(700);
            let mut case = Case::packed(format!("{q:?} {k:?} {causal}"), (q, k), (21, 4, 2, 38, 16, 16), &mut draw);
            if causal {
                case = Kind::BottomRight.apply(case, &mut draw);
                case = Kind::Slopes.apply(case, &mut draw);
            }
            Backward::of(case, &mut draw).check_all(gpu);
        }
    }
}

/// A row that sees nothing gets and gives exactly 0.
#[test]
fn rows_that_see_nothing() {
    let gpu = gpu();
    let mut draw = Draw::new(800);
    let case = Case::new("lengths of 0", (3, 2, 2, 21, 38, 16, 16), &mut draw);
    let case = case.with(A::KeyLengths, i32s(&[0, 38, 7])).with(A::QueryLengths, i32s(&[21, 0, 4]));
    let backward = Backward::of(case, &mut draw);
    backward.check_all(gpu);
    let (problem, buffers) = backward.problem();
    for variant in VARIANTS {
        let Ok(kernel) = problem.kernel(variant, gpu.profile()) else { continue };
        let outputs = [[3, 2, 21, 16], [3, 2, 38, 16], [3, 2, 38, 16]].map(|shape| (DType::F32, shape.into()));
        let grads = gpu.run_kernel(&kernel, &buffers.iter().collect::<Vec<_>>(), &outputs).expect("runs");
        for grad in &grads {
            let numbers = grad.as_f32().expect("f32");
            let of_item = numbers.len() / 3;
            assert!(numbers[..2 * of_item].iter().all(|&x| x == 0.0), "{variant}: items 0 and 1 see nothing");
            assert!(numbers[2 * of_item..].iter().any(|&x| x != 0.0), "{variant}: item 2 sees something");
        }
    }
}

fn drawn(seed: u64, turn: u64) -> Backward {
    let (mut draw, mut data) = (Draw::new(seed), Draw::new(seed << 8 | turn));
    let sizes = [0, 1, 2, 5, 16, 33, 64, 65, 70];
    let (group, hkv) = ([1, 2, 3][data.below(3)], 1 + data.below(2));
    let (d, dv) = [(3, 8), (20, 40)][draw.below(2)];
    let (tq, tk) = (sizes[data.below(sizes.len())], sizes[data.below(sizes.len())]);
    let mut case =
        Case::new(format!("seed {seed}, turn {turn}"), (1 + data.below(3), group * hkv, hkv, tq, tk, d, dv), &mut data);
    let mut taken: Vec<Kind> = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|&kind| kind != Kind::ScoreMod) {
        if draw.below(3) == 0 && taken.iter().all(|&other| other.goes_with(kind)) {
            case = kind.apply(case, &mut data);
            taken.push(kind);
        }
    }
    case.lies = [0; 4].map(|_| Lie::ALL[draw.below(Lie::ALL.len())]);
    let lie = Lie::ALL[draw.below(Lie::ALL.len())];
    Backward { lie, ..Backward::of(case, &mut data) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, ..ProptestConfig::default() })]

    #[test]
    fn options_drawn_at_random(seed in 0u64..1 << 40) {
        let gpu = gpu();
        for turn in 0..4 {
            drawn(seed, turn).check_all(gpu);
        }
    }
}

/// The same bits each time: sums are taken in a fixed order.
#[test]
fn the_same_bits_twice() {
    let gpu = gpu();
    let mut draw = Draw::new(900);
    let backward = Backward::of(Case::new("twice", (2, 4, 2, 130, 140, 32, 32), &mut draw), &mut draw);
    let (problem, buffers) = backward.problem();
    let outputs = [[2, 4, 130, 32], [2, 2, 140, 32], [2, 2, 140, 32]].map(|shape| (DType::F32, shape.into()));
    for variant in VARIANTS {
        let Ok(kernel) = problem.kernel(variant, gpu.profile()) else { continue };
        let run = || gpu.run_kernel(&kernel, &buffers.iter().collect::<Vec<_>>(), &outputs).expect("runs");
        assert_eq!(run(), run(), "{variant}");
    }
}

#[test]
fn problems_that_do_not_fit_are_refused() {
    let gpu = gpu();
    let mut draw = Draw::new(1000);
    let case = Case::new("a score function", (1, 2, 1, 3, 5, 8, 8), &mut draw);
    let (problem, _) = Backward::of(case, &mut draw).problem();
    let mut narrow = problem.clone();
    narrow.dout = Layout::contiguous([1, 2, 3, 4]);
    let reason =
        |problem: &AttentionGradProblem| problem.kernel("plain", gpu.profile()).expect_err("refused").to_string();
    assert_eq!(reason(&narrow), "attention_grad: `dout` has shape [1, 2, 3, 4], expected [1, 2, 3, 8], that of out");
    let mut wide = problem;
    let shape = |heads: usize, rows: usize| Layout::contiguous([1, heads, rows, 600]);
    (wide.attention.q, wide.attention.k, wide.attention.v) = (shape(2, 3), shape(1, 5), shape(1, 5));
    (wide.attention.out, wide.dout) = (shape(2, 3), shape(2, 3));
    let refused = reason(&wide);
    assert!(refused.contains("rows of a head of 600 take more than the 8192 bytes of an invocation"), "{refused}");
}
