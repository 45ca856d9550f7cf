//! Every variant of softmax and log-softmax against the reference.

use proptest::prelude::*;
use tilewise::{
    DType, Data, Graph, Layout, Shape, Tensor,
    graph::Op,
    kernel::{Candidate, Problem, SoftmaxDTypes, SoftmaxProblem},
    reference::compare::{Check, Expected},
};

use crate::common::{
    gpu,
    rows::{Draw, Lie, View, after_copy, profiles, run_all},
};

/// Compares both functions of a view along an axis with the reference.
fn check(x: &View, axis: usize, scale: f32, check: Check) {
    check_to(DType::F32, x, axis, scale, check);
}

/// Likewise, with the result in a dtype.
fn check_to(y: DType, x: &View, axis: usize, scale: f32, check: Check) {
    for log in [false, true] {
        let dtypes = SoftmaxDTypes { x: x.buffer.dtype(), y };
        let problem = SoftmaxProblem { log, scale, dtypes, ..SoftmaxProblem::new(axis, x.layout.clone()) };
        let op = if log { Op::LogSoftmax { axis } } else { Op::Softmax { axis } };
        let scaled = x.read();
        let data = scaled.to_f64().iter().map(|&x| scale * x as f32).collect::<Vec<_>>();
        let scaled = Tensor::new(scaled.shape(), data).expect("as many");
        let mut g = Graph::new();
        let value = g.input("x", DType::F32, scaled.shape()).expect("an input");
        let result = g.push(op, &[value]).expect("one operand")[0];
        let result = g.cast(result, y).expect("a conversion");
        g.output("y", result).expect("an output");
        let inputs = [("x".to_string(), scaled)].into();
        let expected = Expected::of_graph(&g, &inputs, check).expect("the reference takes it");
        let output = (y, x.layout.shape.clone());
        run_all(gpu(), &problem, &[&x.buffer], &[output], |name, outputs| match expected.compare(outputs) {
            Ok(close) => eprintln!("{name}: {}", close[0]),
            Err(wrong) => panic!("{name}: {wrong}\n{problem:?}"),
        });
    }
}

fn floats(draw: &mut Draw, shape: &[usize], lie: Lie) -> View {
    View::new(shape, lie, |n| Data::F32((0..n).map(|_| 4.0 * draw.float()).collect()))
}

/// Runs on dense data and hands on the elements of each line of a matrix.
fn each_line(data: &[f32], width: usize, problem: &SoftmaxProblem, mut line: impl FnMut(&str, usize, &[f32])) {
    let shape = Shape::from([data.len() / width, width]);
    let x = Tensor::new(&shape, data.to_vec()).expect("whole lines");
    run_all(gpu(), problem, &[&x], &[(DType::F32, shape)], |name, outputs| {
        let y = outputs[0].as_f32().expect("f32");
        y.chunks(width).enumerate().for_each(|(i, y)| line(name, i, y));
    });
}

#[test]
fn equal_elements_give_equal_bits() {
    // A power of two of equal elements among hidden ones.
    let mut draw = Draw::new(1);
    for width in [4, 8, 33, 64, 67, 256, 1028] {
        let mut data = vec![f32::NEG_INFINITY; 9 * width];
        let mut seen = Vec::new();
        for (line, x) in data.chunks_mut(width).enumerate() {
            let count = 1usize << (line % 3);
            let value = draw.integer(1000) as f32;
            let places: Vec<usize> = (0..count).map(|i| (i * 7 + line) % width).collect();
            places.iter().for_each(|&place| x[place] = value);
            seen.push(x.iter().filter(|x| x.is_finite()).count());
        }
        let x = data.clone();
        let mut problem = SoftmaxProblem::new(1, Layout::contiguous([9, width]));
        each_line(&data, width, &problem, |name, line, y| {
            for (x, y) in x[line * width..].iter().zip(y) {
                let expected = if x.is_finite() { 1.0 / seen[line] as f32 } else { 0.0 };
                if seen[line].is_power_of_two() {
                    assert_eq!(y.to_bits(), expected.to_bits(), "{name} line {line}: {y}");
                }
            }
        });
        problem.log = true;
        each_line(&data, width, &problem, |name, line, y| {
            for (x, &y) in x[line * width..].iter().zip(y) {
                match (x.is_finite(), seen[line]) {
                    (false, _) => assert_eq!(y, f32::NEG_INFINITY, "{name} line {line}"),
                    (true, 1) => assert_eq!(y, 0.0, "{name} line {line}"),
                    _ => assert!((y + (seen[line] as f32).ln()).abs() < 1e-6, "{name} line {line}: {y}"),
                }
            }
        });
    }
}

#[test]
fn widths() {
    let mut draw = Draw::new(2);
    for width in [1, 2, 3, 4, 7, 8, 9, 19, 31, 32, 33, 63, 64, 67, 128, 260, 509, 768, 1031, 2056] {
        check(&floats(&mut draw, &[7, width], Lie::Dense), 1, 1.0, Check::measured());
    }
}

#[test]
fn wide_lines() {
    let mut draw = Draw::new(3);
    for width in [10_007, 50_260, 100_003] {
        check(&floats(&mut draw, &[3, width], Lie::Dense), 1, 1.0, Check::measured());
    }
}

#[test]
fn numbers_of_lines() {
    let mut draw = Draw::new(4);
    for lines in [1, 15, 16, 17, 63, 64, 65, 131, 257, 4099] {
        check(&floats(&mut draw, &[lines, 12], Lie::Dense), 1, 1.0, Check::measured());
    }
    // More workgroups than one dimension of a grid takes.
    check(&floats(&mut draw, &[1_100_003, 1], Lie::Dense), 1, 1.0, Check::measured());
}

#[test]
fn every_axis_of_operands_that_lie_in_any_way() {
    let mut draw = Draw::new(5);
    for shape in [vec![37], vec![16, 20], vec![5, 9, 12], vec![3, 4, 5, 8]] {
        for lie in Lie::ALL {
            for axis in 0..shape.len() {
                check(&floats(&mut draw, &shape, lie), axis, 1.0, Check::measured());
            }
        }
    }
    // A line that is the same for all.
    let mut x = floats(&mut draw, &[24], Lie::Dense);
    x.layout = x.layout.broadcast(&[5, 24].into());
    check(&x, 1, 1.0, Check::measured());
    check(&x, 0, 1.0, Check::measured());
}

#[test]
fn scales() {
    let mut draw = Draw::new(6);
    // Powers of two, so that the reference gets the same scores.
    for scale in [0.125, -2.0, 0.0] {
        for width in [40, 41] {
            check(&floats(&mut draw, &[9, width], Lie::Dense), 1, scale, Check::measured());
        }
    }
}

#[test]
fn hidden_elements() {
    let mut draw = Draw::new(7);
    for width in [1, 5, 24, 61, 200, 3000] {
        // Line by line: all hidden, none, only the first or the last seen, and half of them.
        let mut x = floats(&mut draw, &[15, width], Lie::Dense);
        let mut data = x.buffer.as_f32().expect("f32").to_vec();
        for (line, x) in data.chunks_mut(width).enumerate() {
            for (i, x) in x.iter_mut().enumerate() {
                let seen = match line % 5 {
                    0 => false,
                    1 => true,
                    2 => i == 0,
                    3 => i + 1 == width,
                    _ => draw.below(2) == 0,
                };
                if !seen {
                    *x = f32::NEG_INFINITY;
                }
            }
        }
        x.buffer = Tensor::new([15 * width], data.clone()).expect("as many");
        check(&x, 1, 1.0, Check::measured());
        // −inf is tested before the scale, which may turn it around.
        for (scale, log) in [(-1.0, false), (0.0, false), (-1.0, true)] {
            let problem = SoftmaxProblem { log, scale, ..SoftmaxProblem::new(1, Layout::contiguous([15, width])) };
            each_line(&data, width, &problem, |name, line, y| {
                for (x, &y) in data[line * width..].iter().zip(y) {
                    let hidden = if log { f32::NEG_INFINITY } else { 0.0 };
                    assert!(if x.is_finite() { y.is_finite() } else { y == hidden }, "{name}: {x} gives {y}");
                }
            });
        }
    }
}

#[test]
fn finite_numbers_are_numbers() {
    // However low they are, and however far apart.
    let lowest = f32::MIN;
    let lines =
        [[lowest; 4], [-1e9; 4], [f32::MAX, lowest, 0.0, f32::MAX], [lowest, f32::NEG_INFINITY, lowest, lowest]];
    let expected = [[0.25; 4], [0.25; 4], [0.5, 0.0, 0.0, 0.5], [1.0 / 3.0, 0.0, 1.0 / 3.0, 1.0 / 3.0]];
    let problem = SoftmaxProblem::new(1, Layout::contiguous([4, 4]));
    each_line(&lines.concat(), 4, &problem, |name, line, y| {
        let close = y.iter().zip(expected[line]).all(|(y, x)| (y - x).abs() <= 1e-7);
        assert!(close, "{name} line {line}: {y:?}");
    });
}

#[test]
fn a_shift_changes_nothing() {
    let mut draw = Draw::new(8);
    let data = draw.integers(12 * 96, 20);
    let shifted: Vec<f32> = data.iter().map(|x| x + 1024.0).collect();
    for log in [false, true] {
        let problem = SoftmaxProblem { log, ..SoftmaxProblem::new(1, Layout::contiguous([12, 96])) };
        let mut lines = Vec::new();
        each_line(&data, 96, &problem, |_, _, y| lines.push(y.to_vec()));
        let mut lines = lines.into_iter();
        each_line(&shifted, 96, &problem, |name, line, y| {
            assert_eq!(lines.next().as_deref(), Some(y), "{name} line {line}");
        });
    }
}

#[test]
fn empty() {
    let mut draw = Draw::new(9);
    for shape in [[0, 8], [8, 0]] {
        for axis in [0, 1] {
            check(&floats(&mut draw, &shape, Lie::Dense), axis, 1.0, Check::Exact);
        }
    }
}

/// From, and to.
const STORED: [[DType; 2]; 6] = [
    [DType::F16, DType::F16],
    [DType::BF16, DType::BF16],
    [DType::F16, DType::F32],
    [DType::F32, DType::F16],
    [DType::BF16, DType::F16],
    [DType::F32, DType::BF16],
];

#[test]
fn narrow_operands_along_every_axis() {
    let mut draw = Draw::new(11);
    for (n, [from, to]) in STORED.into_iter().enumerate() {
        // Vectors along lines, vectors across them, and words that lines share: each dtype meets each of the three.
        let shapes = [([9, 96], 1), ([40, 24], 0), ([7, 33], 1), ([3, 300], 1), ([300, 8], 0), ([33, 7], 0)];
        for (m, (shape, axis)) in shapes.into_iter().enumerate().skip(n % 2 * 3).take(3) {
            let lie = if n < 2 { Lie::Dense } else { Lie::ALL[(n + m) % 6] };
            let x = View::new(&shape, lie, |n| {
                let element = |draw: &mut Draw| if draw.below(7) == 0 { f32::NEG_INFINITY } else { 4.0 * draw.float() };
                Data::F32((0..n).map(|_| element(&mut draw)).collect())
            });
            let check = if to == DType::F32 { Check::measured() } else { Check::one_apart(to) };
            check_to(to, &x.stored(from), axis, 1.0, check);
        }
    }
}

#[test]
fn narrow_in_place_gives_the_same_bits() {
    let mut draw = Draw::new(12);
    for (shape, axis) in [([9, 96], 1), ([40, 24], 0)] {
        let elements = shape[0] * shape[1];
        let x = View::new(&shape, Lie::Dense, |n| Data::F32(draw.floats(n))).stored(DType::F16);
        let dtypes = SoftmaxDTypes { x: DType::F16, y: DType::BF16 };
        let apart = SoftmaxProblem { dtypes, ..SoftmaxProblem::new(axis, Layout::contiguous(shape)) };
        let shared = SoftmaxProblem { in_place: true, ..apart.clone() };
        for profile in profiles(gpu()) {
            for candidate in shared.candidates(&profile).into_iter().filter(Candidate::is_usable) {
                let run = |problem: &SoftmaxProblem| {
                    let kernel = problem.kernel(candidate.variant, &profile).expect("usable");
                    let kernel = if problem.in_place { after_copy(kernel, 0, elements / 2) } else { kernel };
                    gpu().run_kernel(&kernel, &[&x.buffer], &[(DType::BF16, shape.into())]).expect("it runs")
                };
                assert_eq!(run(&apart), run(&shared), "{}", candidate.variant);
            }
        }
    }
}

#[test]
fn in_place_gives_the_same_bits() {
    let mut draw = Draw::new(10);
    for (shape, axis) in [([9, 96], 1), ([9, 97], 1), ([3, 3000], 1), ([40, 24], 0)] {
        let elements = shape[0] * shape[1];
        let x = Tensor::new(shape, draw.floats(elements)).expect("as many");
        let apart = SoftmaxProblem::new(axis, Layout::contiguous(shape));
        let mut shared = apart.clone();
        assert!(shared.allows_in_place(0));
        shared.set_in_place(0);
        for profile in profiles(gpu()) {
            for candidate in apart.candidates(&profile).into_iter().filter(Candidate::is_usable) {
                let run = |problem: &SoftmaxProblem| {
                    let kernel = problem.kernel(candidate.variant, &profile).expect("usable");
                    let kernel = if problem.in_place { after_copy(kernel, 0, elements) } else { kernel };
                    gpu().run_kernel(&kernel, &[&x], &[(DType::F32, shape.into())]).expect("it runs")
                };
                assert_eq!(run(&apart), run(&shared), "{}", candidate.variant);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn drawn_at_random(
        seed: u64,
        shape in proptest::collection::vec(1usize..24, 1..5),
        axis in 0usize..4,
        lie in proptest::sample::select(Lie::ALL.to_vec()),
        spread in 0.1f32..40.0,
        hidden in 1usize..20,
    ) {
        let mut draw = Draw::new(seed);
        let x = View::new(&shape, lie, |n| {
            let element = |draw: &mut Draw| {
                if draw.below(hidden) == 1 { f32::NEG_INFINITY } else { spread * draw.float() }
            };
            Data::F32((0..n).map(|_| element(&mut draw)).collect())
        });
        check(&x, axis % shape.len(), 1.0, Check::measured());
    }
}
