//! Every variant of argmax against the reference.

use proptest::prelude::*;
use tilewise::{
    DType, Data, Layout, Shape, Tensor,
    graph::Op,
    kernel::ArgmaxProblem,
    reference::compare::{Check, Expected},
};

use crate::common::{
    gpu,
    rows::{Draw, Lie, View, run_all},
};

/// Compares the first and the last of the largest with the reference.
fn check(x: &View, axis: usize) {
    for last in [false, true] {
        let problem = ArgmaxProblem { last, ..ArgmaxProblem::new(x.buffer.dtype(), x.layout.clone(), axis) };
        let op = Op::Argmax { axis, keep: false, last };
        let expected = Expected::of_op(&op, &[&x.read()], Check::Exact).expect("the reference takes it");
        let kept: Shape = (0..x.layout.shape.rank()).filter(|&i| i != axis).map(|i| x.layout.shape[i]).collect();
        run_all(gpu(), &problem, &[&x.buffer], &[(DType::I32, kept)], |name, outputs| {
            if let Err(wrong) = expected.compare(outputs) {
                panic!("{name}: {wrong}\n{problem:?}");
            }
        });
    }
}

/// Few different values, so that the largest is there several times.
fn ties(draw: &mut Draw, dtype: DType, shape: &[usize], lie: Lie, most: i32) -> View {
    View::new(shape, lie, |n| match dtype {
        DType::I32 => Data::I32((0..n).map(|_| draw.integer(most)).collect()),
        DType::U32 => Data::U32((0..n).map(|_| draw.integer(most).unsigned_abs()).collect()),
        _ => Data::F32(draw.integers(n, most)),
    })
}

fn floats(draw: &mut Draw, shape: &[usize], lie: Lie) -> View {
    View::new(shape, lie, |n| draw.floats(n).into())
}

#[test]
fn widths() {
    let mut draw = Draw::new(1);
    for width in [1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 63, 64, 67, 128, 260, 509, 768, 1031, 2056] {
        check(&floats(&mut draw, &[9, width], Lie::Dense), 1);
        check(&ties(&mut draw, DType::F32, &[9, width], Lie::Dense, 3), 1);
    }
}

#[test]
fn long_lines() {
    let mut draw = Draw::new(2);
    for width in [10_007, 50_260, 400_000] {
        check(&ties(&mut draw, DType::F32, &[2, width], Lie::Dense, 500), 1);
        check(&floats(&mut draw, &[2, width], Lie::Dense), 1);
    }
    check(&ties(&mut draw, DType::F32, &[20_000, 8], Lie::Dense, 500), 0);
}

#[test]
fn the_largest_at_every_place() {
    for width in [33, 96] {
        let line = |place: usize| (0..width).map(move |i| if i == place { 1.0 } else { 0.0 });
        let data: Vec<f32> = (0..width).flat_map(line).collect();
        let x = View {
            buffer: Tensor::new([width * width], data).expect("square"),
            layout: Layout::contiguous([width; 2]),
        };
        check(&x, 1);
        check(&x, 0);
    }
}

#[test]
fn all_equal() {
    for value in [0.0, -3.5, f32::NEG_INFINITY, f32::MIN] {
        for shape in [[5, 64], [5, 67], [2, 3000]] {
            let x = View::new(&shape, Lie::Dense, |n| vec![value; n].into());
            check(&x, 1);
            check(&x, 0);
        }
    }
}

#[test]
fn infinities_and_signed_zeros() {
    let mut draw = Draw::new(3);
    let values = [f32::NEG_INFINITY, f32::INFINITY, 0.0, -0.0, 1.0, -1.0];
    for width in [6, 64, 65, 4000] {
        let mut line = || (0..width).map(|_| values[draw.below(5)]).collect::<Vec<f32>>();
        let mut data: Vec<f32> = (0..5).flat_map(|_| line()).collect();
        // Zeros alone: +0 and −0 are equal.
        data[..width].iter_mut().enumerate().for_each(|(i, x)| *x = if i % 3 == 0 { -0.0 } else { 0.0 });
        let x =
            View { buffer: Tensor::new([5 * width], data).expect("5 lines"), layout: Layout::contiguous([5, width]) };
        check(&x, 1);
    }
}

#[test]
fn every_axis_of_operands_that_lie_in_any_way() {
    let mut draw = Draw::new(4);
    for dtype in [DType::F32, DType::I32, DType::U32] {
        for shape in [vec![37], vec![16, 20], vec![5, 9, 12], vec![3, 4, 5, 8]] {
            for lie in Lie::ALL {
                for axis in 0..shape.len() {
                    check(&ties(&mut draw, dtype, &shape, lie, 4), axis);
                }
            }
        }
    }
    // One line for all.
    let mut x = floats(&mut draw, &[24], Lie::Dense);
    x.layout = x.layout.broadcast(&[5, 24].into());
    check(&x, 0);
    check(&x, 1);
}

#[test]
fn integers_at_their_ends() {
    let signed = [i32::MIN, i32::MAX, -1, 0, i32::MAX];
    let unsigned = [0, u32::MAX, i32::MAX as u32 + 1, 5, u32::MAX];
    for width in [5, 40, 2050] {
        let of = |n: usize| (0..n).map(|i| i * 7 % 5);
        check(&View::new(&[3, width], Lie::Dense, |n| Data::I32(of(n).map(|i| signed[i]).collect())), 1);
        check(&View::new(&[3, width], Lie::Dense, |n| Data::U32(of(n).map(|i| unsigned[i]).collect())), 1);
        check(&View::new(&[3, width], Lie::Dense, |n| Data::I32(vec![i32::MIN; n])), 1);
    }
}

#[test]
fn numbers_of_results() {
    let mut draw = Draw::new(5);
    for results in [0, 1, 15, 16, 17, 63, 64, 65, 131, 257, 4099] {
        check(&ties(&mut draw, DType::F32, &[results, 12], Lie::Dense, 3), 1);
        check(&ties(&mut draw, DType::F32, &[12, results], Lie::Dense, 3), 0);
    }
    // More workgroups than one dimension of a grid takes.
    check(&floats(&mut draw, &[1_100_003, 1], Lie::Dense), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn drawn_at_random(
        seed: u64,
        shape in proptest::collection::vec(1usize..24, 1..5),
        axis in 0usize..4,
        lie in proptest::sample::select(Lie::ALL.to_vec()),
        most in 1i32..30,
        dtype in proptest::sample::select(vec![DType::F32, DType::I32, DType::U32]),
    ) {
        let mut draw = Draw::new(seed);
        check(&ties(&mut draw, dtype, &shape, lie, most), axis % shape.len());
    }
}
