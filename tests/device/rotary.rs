//! Rotary position embedding against the reference.

use proptest::prelude::*;
use tilewise::{
    Layout, Shape, Tensor,
    graph::Op,
    kernel::{Problem, RotaryProblem},
    reference::compare,
};

use crate::common::gpu;

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 71 + seed * 13) % 251) as f32 / 125.5 - 1.0).collect()
}

/// x lies as `[B, T, H, D]` where `turned`, as a projection gives it.
fn check([b, h, t, d]: [usize; 4], rows: usize, pairs: usize, interleaved: bool, turned: bool) {
    let shape = Shape::from([b, h, t, d]);
    let stored = Tensor::new(if turned { [b, t, h, d] } else { [b, h, t, d] }, values(b * h * t * d, 1)).expect("fits");
    let layout = Layout::contiguous(stored.shape());
    let layout = if turned { layout.permute(&[0, 2, 1, 3]) } else { layout };
    let table = Shape::from([rows, pairs]);
    let cos = Tensor::new(table.clone(), values(rows * pairs, 2)).expect("fits");
    let sin = Tensor::new(table.clone(), values(rows * pairs, 3)).expect("fits");
    // Some out of range: they take the nearest row.
    let positions: Vec<i32> = (0..b * t).map(|i| (i * 7 % (rows + 3)) as i32 - 1).collect();
    let positions = Tensor::new([b, t], positions).expect("fits");
    let problem = RotaryProblem { x: layout, table, interleaved };
    for candidate in problem.candidates(gpu().profile()) {
        let kernel = problem.kernel(candidate.variant, gpu().profile()).expect(candidate.variant);
        let outputs = gpu()
            .run_kernel(&kernel, &[&stored, &cos, &sin, &positions], &[(stored.dtype(), shape.clone())])
            .expect(candidate.variant);
        let data = stored.as_f32().expect("f32");
        let dense: Vec<f32> = (0..b * h * t * d)
            .map(|e| {
                let (i, k, j, l) = (e / (h * t * d), e / (t * d) % h, e / d % t, e % d);
                if turned { data[((i * t + j) * h + k) * d + l] } else { data[e] }
            })
            .collect();
        let dense = Tensor::new(shape.clone(), dense).expect("fits");
        compare::op(&Op::Rotary { interleaved }, &[&dense, &cos, &sin, &positions], &[&outputs[0]])
            .unwrap_or_else(|error| panic!("{problem:?}: {error}"));
    }
}

#[test]
fn a_quarter_turn_is_exact() {
    let problem =
        |interleaved| RotaryProblem { x: Layout::contiguous([1, 1, 1, 5]), table: [1, 2].into(), interleaved };
    let x = Tensor::new([1, 1, 1, 5], vec![1.0f32, 2.0, 3.0, 4.0, 5.0]).expect("fits");
    let cos = Tensor::new([1, 2], vec![0.0f32; 2]).expect("fits");
    let sin = Tensor::new([1, 2], vec![1.0f32; 2]).expect("fits");
    let position = Tensor::new([1, 1], vec![0i32]).expect("fits");
    for (interleaved, expected) in [(false, [-3.0, -4.0, 1.0, 2.0, 5.0]), (true, [-2.0, 1.0, -4.0, 3.0, 5.0])] {
        let kernel = problem(interleaved).kernel("plain", gpu().profile()).expect("runs");
        let y =
            gpu().run_kernel(&kernel, &[&x, &cos, &sin, &position], &[(x.dtype(), x.shape().clone())]).expect("runs");
        assert_eq!(y[0].as_f32(), Some(&expected[..]));
    }
}

#[test]
fn ugly_sizes_and_layouts() {
    for sizes in [[1, 1, 1, 2], [2, 3, 5, 7], [0, 1, 1, 2], [1, 2, 0, 4], [2, 4, 33, 64], [1, 3, 17, 65]] {
        for interleaved in [false, true] {
            for turned in [false, true] {
                for pairs in [0, 1, sizes[3] / 2] {
                    check(sizes, 9, pairs, interleaved, turned);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn drawn(b in 1usize..3, h in 1usize..4, t in 1usize..9, d in 2usize..20, rows in 1usize..12, part in 0usize..11, interleaved: bool, turned: bool) {
        check([b, h, t, d], rows, (d / 2).min(part), interleaved, turned);
    }
}
