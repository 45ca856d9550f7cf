//! Every variant of the reductions against the reference.

use proptest::prelude::*;
use tilewise::{
    DType, Data, Layout, Shape, Tensor,
    graph::{Op, Reduce},
    kernel::{Problem, ReduceProblem},
    reference::compare::{Check, Expected},
};

use crate::common::{
    gpu,
    rows::{Draw, Lie, View, profiles, run_all},
};

/// Compares one reduction of a view with the reference.
fn check(function: Reduce, x: &View, axes: &[usize], check: Check) {
    let problem = ReduceProblem::new(function, x.buffer.dtype(), x.layout.clone(), axes);
    let op = Op::Reduce { function, axes: axes.to_vec(), keep: false };
    let expected = Expected::of_op(&op, &[&x.read()], check).expect("the reference takes it");
    let kept: Shape =
        (0..x.layout.shape.rank()).filter(|axis| !axes.contains(axis)).map(|i| x.layout.shape[i]).collect();
    run_all(gpu(), &problem, &[&x.buffer], &[(x.buffer.dtype(), kept)], |name, outputs| {
        match expected.compare(outputs) {
            Ok(close) => eprintln!("{name}: {}", close[0]),
            Err(wrong) => panic!("{name}: {wrong}\n{problem:?}"),
        }
    });
}

/// Sums may cancel to less than what they are made of: the bound is by the sum of magnitudes.
fn magnitude(function: Reduce, x: &View, axes: &[usize]) -> Check {
    let n: usize = axes.iter().map(|&axis| x.layout.shape[axis]).product();
    match function {
        // A random walk of n steps.
        Reduce::Sum => Check::Measured { magnitude: (n as f64).sqrt() },
        Reduce::Mean => Check::Measured { magnitude: 1.0 / (n.max(1) as f64).sqrt() },
        Reduce::Max | Reduce::Min => Check::Exact,
    }
}

fn check_all(x: &View, axes: &[usize]) {
    for function in Reduce::ALL {
        check(function, x, axes, magnitude(function, x, axes));
    }
}

fn floats(draw: &mut Draw, shape: &[usize], lie: Lie) -> View {
    View::new(shape, lie, |n| draw.floats(n).into())
}

/// Small integers in any dtype.
fn integers(draw: &mut Draw, dtype: DType, shape: &[usize], lie: Lie) -> View {
    View::new(shape, lie, |n| match dtype {
        DType::I32 => Data::I32((0..n).map(|_| draw.integer(1000)).collect()),
        DType::U32 => Data::U32((0..n).map(|_| draw.integer(1000).unsigned_abs()).collect()),
        _ => Data::F32(draw.integers(n, 8)),
    })
}

/// Every set of axes.
fn sets(rank: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..1usize << rank).map(move |set| (0..rank).filter(|axis| set >> axis & 1 == 1).collect())
}

#[test]
fn integers_give_equal_bits() {
    let mut draw = Draw::new(1);
    for dtype in [DType::F32, DType::I32, DType::U32] {
        for shape in [[5, 64], [17, 67], [3, 1027], [300, 12]] {
            let x = integers(&mut draw, dtype, &shape, Lie::Dense);
            for axes in sets(2) {
                for function in [Reduce::Sum, Reduce::Max, Reduce::Min] {
                    check(function, &x, &axes, Check::Exact);
                }
            }
        }
    }
}

#[test]
fn widths() {
    let mut draw = Draw::new(2);
    for width in [1, 2, 3, 4, 6, 7, 8, 9, 30, 31, 32, 33, 62, 63, 64, 67, 128, 260, 509, 768, 1031, 2056, 4100] {
        check(Reduce::Sum, &floats(&mut draw, &[7, width], Lie::Dense), &[1], Check::Measured { magnitude: 1.0 });
        check(Reduce::Max, &floats(&mut draw, &[7, width], Lie::Dense), &[1], Check::Exact);
    }
}

#[test]
fn lines_begin_and_end_within_words() {
    let mut draw = Draw::new(10);
    const LINES: usize = 5;
    for width in [64, 65, 70, 71, 72, 73, 79, 127, 130, 515] {
        for offset in 0..8 {
            // What lies between the lines would be noticed in any result.
            let pitch = width + 3;
            let layout = Layout { shape: [LINES, width].into(), strides: [pitch as isize, 1].into(), offset };
            let mut elements = vec![1e6; offset + LINES * pitch];
            for line in 0..LINES {
                let start = offset + line * pitch;
                elements[start..start + width].copy_from_slice(&draw.integers(width, 8));
            }
            let wholes = elements.iter().map(|&x| x as i32).collect();
            for data in [Data::F32(elements), Data::I32(wholes)] {
                let x = View { buffer: Tensor::new([data.len()], data).expect("fits"), layout: layout.clone() };
                for function in [Reduce::Sum, Reduce::Max] {
                    check(function, &x, &[1], Check::Exact);
                }
                // Single elements are bound beside the words for software adapters, so this tests what it says.
                let problem = ReduceProblem::new(Reduce::Sum, x.buffer.dtype(), x.layout, [1]);
                let bound = profiles(gpu()).into_iter().map(|profile| {
                    problem.kernel("plain", &profile).expect("runs anywhere").launches[0].bindings.len()
                });
                assert!(bound.eq([3, 2]));
            }
        }
    }
}

#[test]
fn a_million_elements() {
    let mut draw = Draw::new(3);
    // As many as a GPU's plain variant, which reads them one by one, has rounds for on a software adapter.
    let alike = View::new(&[500_003], Lie::Dense, |n| Data::F32((0..n).map(|_| 1.0 + draw.float() / 8.0).collect()));
    for function in [Reduce::Sum, Reduce::Mean] {
        // All of one sign, so that nothing cancels.
        check(function, &alike, &[0], Check::measured());
        let x = floats(&mut draw, &[2, 1 << 20], Lie::Dense);
        check(function, &x, &[1], magnitude(function, &x, &[1]));
    }
    check(Reduce::Min, &floats(&mut draw, &[1 << 20], Lie::Dense), &[0], Check::Exact);
}

#[test]
fn numbers_of_results() {
    let mut draw = Draw::new(4);
    for results in [1, 15, 16, 17, 63, 64, 65, 131, 257, 4099] {
        for (shape, axis) in [([results, 12], 1), ([12, results], 0)] {
            check_all(&floats(&mut draw, &shape, Lie::Dense), &[axis]);
        }
    }
    // More workgroups than one dimension of a grid takes.
    check(Reduce::Sum, &floats(&mut draw, &[1_100_003, 1], Lie::Dense), &[1], Check::Exact);
}

#[test]
fn every_set_of_axes_of_operands_that_lie_in_any_way() {
    let mut draw = Draw::new(5);
    for shape in [vec![], vec![37], vec![16, 20], vec![5, 9, 12], vec![3, 4, 5, 8]] {
        let lies = if shape.is_empty() { &[Lie::Dense, Lie::Offset][..] } else { &Lie::ALL };
        for &lie in lies {
            for axes in sets(shape.len()) {
                let x = floats(&mut draw, &shape, lie);
                check(Reduce::Mean, &x, &axes, Check::Measured { magnitude: 1.0 });
                check(Reduce::Max, &x, &axes, Check::Exact);
            }
        }
    }
    // One row for all.
    let mut x = floats(&mut draw, &[24], Lie::Dense);
    x.layout = x.layout.broadcast(&[5, 24].into());
    for axes in sets(2) {
        check_all(&x, &axes);
    }
}

#[test]
fn long_axes_apart() {
    // Reduced axes that no stride covers together, long enough for several shares, with runs that shares cut.
    let mut draw = Draw::new(6);
    let mut x = floats(&mut draw, &[37, 6, 211], Lie::Dense);
    check_all(&x, &[0, 2]);
    x.layout = x.layout.permute(&[1, 2, 0]);
    check_all(&x, &[1, 2]);
    check_all(&floats(&mut draw, &[9, 5, 7, 4, 11, 3], Lie::Dense), &[0, 2, 4]);
    check_all(&floats(&mut draw, &[90, 5, 2], Lie::Gaps), &[0, 2]);
    check_all(&floats(&mut draw, &[20_000, 3, 2], Lie::Dense), &[0, 2]);
}

#[test]
fn infinities() {
    let mut draw = Draw::new(7);
    for shape in [[6, 64], [6, 65], [2, 5000]] {
        let mut x = floats(&mut draw, &shape, Lie::Dense);
        let mut data = x.buffer.as_f32().expect("f32").to_vec();
        // A line of only −inf, one of only inf, and single ones.
        data[..shape[1]].fill(f32::NEG_INFINITY);
        data[shape[1]..2 * shape[1]].fill(f32::INFINITY);
        for line in data.chunks_mut(shape[1]).skip(2).step_by(2) {
            line[7] = f32::NEG_INFINITY;
            line[20] = f32::INFINITY;
        }
        x.buffer = Tensor::new([data.len()], data).expect("as many");
        for axis in [0, 1] {
            check(Reduce::Max, &x, &[axis], Check::Exact);
            check(Reduce::Min, &x, &[axis], Check::Exact);
        }
    }
}

#[test]
fn integers_wrap() {
    for (width, dtype) in [(5, DType::I32), (64, DType::I32), (64, DType::U32), (4097, DType::U32)] {
        let x = View::new(&[3, width], Lie::Dense, |n| match dtype {
            DType::I32 => Data::I32((0..n as i32).map(|i| i32::MAX - i).collect()),
            _ => Data::U32((0..n as u32).map(|i| u32::MAX - i).collect()),
        });
        for function in [Reduce::Sum, Reduce::Max, Reduce::Min] {
            check(function, &x, &[1], Check::Exact);
            check(function, &x, &[0], Check::Exact);
        }
    }
}

#[test]
fn over_nothing() {
    let mut draw = Draw::new(8);
    for dtype in [DType::F32, DType::I32, DType::U32] {
        for shape in [vec![3, 0], vec![0, 4], vec![0], vec![2, 0, 4]] {
            for axes in sets(shape.len()) {
                let x = integers(&mut draw, dtype, &shape, Lie::Dense);
                for function in Reduce::ALL.into_iter().filter(|f| *f != Reduce::Mean || dtype == DType::F32) {
                    check(function, &x, &axes, Check::Exact);
                }
            }
        }
    }
}

#[test]
fn few_long_lines_are_split() {
    let problem = |shape: [usize; 2]| ReduceProblem::new(Reduce::Sum, DType::F32, Layout::contiguous(shape), [1]);
    let first = |shape| problem(shape).candidates(gpu().profile())[0].variant;
    assert_eq!(first([2, 100_000]), "split");
    assert_ne!(first([1000, 100]), "split");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn drawn_at_random(
        seed: u64,
        shape in proptest::collection::vec(1usize..20, 1..6),
        set: u8,
        lie in proptest::sample::select(Lie::ALL.to_vec()),
        function in proptest::sample::select(Reduce::ALL.to_vec()),
        dtype in proptest::sample::select(vec![DType::F32, DType::I32, DType::U32]),
    ) {
        let mut draw = Draw::new(seed);
        let axes: Vec<usize> = (0..shape.len()).filter(|axis| set >> axis & 1 == 1).collect();
        let x = integers(&mut draw, dtype, &shape, lie);
        if function == Reduce::Mean {
            let x = floats(&mut draw, &shape, lie);
            check(function, &x, &axes, Check::Measured { magnitude: 1.0 });
        } else {
            check(function, &x, &axes, Check::Exact);
        }
    }
}
