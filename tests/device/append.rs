//! Writing into caches against the reference: equal bits.

use proptest::prelude::*;
use tilewise::{
    DType, Layout, Shape, Tensor,
    graph::Op,
    kernel::{AppendProblem, Problem},
    reference::compare,
};

use crate::common::gpu;

fn tensor(dtype: DType, shape: &Shape, seed: usize) -> Tensor {
    let n = shape.elements().expect("small");
    let bytes: Vec<u8> = (0..n * dtype.bytes()).map(|i| ((i * 37 + seed * 101) % 120) as u8).collect();
    Tensor::from_bytes(dtype, shape, &bytes).expect("fits")
}

fn check(dtype: DType, cache: &[usize], rows: usize, axis: usize, positions: &[i32], circular: bool) {
    let cache = Shape::from(cache);
    let mut update = cache.to_vec();
    update[axis] = rows;
    let update = Shape::from(update);
    let positions = Tensor::new([cache[0]], positions.to_vec()).expect("fits");
    let (old, new) = (tensor(dtype, &cache, 1), tensor(dtype, &update, 2));
    let problem = AppendProblem {
        dtype,
        cache: cache.clone(),
        update: Layout::contiguous(update),
        axis,
        table: None,
        circular,
        in_place: false,
    };
    let kernel = problem.kernel("plain", gpu().profile()).expect("runs");
    let outputs = gpu()
        .run_kernel(&kernel, &[&old, &new, &positions], &[(dtype, cache), (DType::I32, Shape::from([1]))])
        .expect("runs");
    let op = Op::Append { axis, circular };
    compare::op(&op, &[&old, &new, &positions], &[&outputs[0], &outputs[1]])
        .unwrap_or_else(|error| panic!("{problem:?}: {error}"));
}

#[test]
fn every_dtype_and_axis() {
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32] {
        for axis in [1, 2] {
            check(dtype, &[2, 5, 6, 4], 3, axis, &[0, 2], false);
        }
        check(dtype, &[1, 70, 2], 1, 1, &[69], false);
    }
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    for positions in [[3, -1], [5, 6], [-9, 4], [i32::MAX, i32::MIN]] {
        check(DType::F32, &[2, 5, 4], 3, 1, &positions, false);
        check(DType::F32, &[2, 5, 4], 3, 1, &positions, true);
    }
    check(DType::F32, &[2, 5, 4], 0, 1, &[0, 9], false);
    check(DType::F32, &[0, 5, 4], 2, 1, &[], false);
}

#[test]
fn a_strided_update_is_read_where_it_lies() {
    // [B, T, H, D] of a projection into a cache [B, H, places, D].
    let problem = AppendProblem {
        dtype: DType::F32,
        cache: [2, 3, 7, 4].into(),
        update: Layout::contiguous([2, 5, 3, 4]).permute(&[0, 2, 1, 3]),
        axis: 2,
        table: None,
        circular: false,
        in_place: false,
    };
    let old = tensor(DType::F32, &problem.cache, 1);
    let stored = tensor(DType::F32, &[2, 5, 3, 4].into(), 2);
    let positions = Tensor::new([2], vec![1i32, 2]).expect("fits");
    let kernel = problem.kernel("plain", gpu().profile()).expect("runs");
    let outputs = [(DType::F32, problem.cache.clone()), (DType::I32, Shape::from([1]))];
    let found = gpu().run_kernel(&kernel, &[&old, &stored, &positions], &outputs).expect("runs");
    let data = stored.as_f32().expect("f32");
    let turned: Vec<f32> = (0..120).map(|e| data[((e / 60 * 5 + e / 4 % 5) * 3 + e / 20 % 3) * 4 + e % 4]).collect();
    let turned = Tensor::new([2, 3, 5, 4], turned).expect("fits");
    let op = Op::Append { axis: 2, circular: false };
    compare::op(&op, &[&old, &turned, &positions], &[&found[0], &found[1]]).expect("equal");
}

#[test]
fn what_the_kernel_does_not_take_is_refused() {
    let odd = AppendProblem {
        dtype: DType::F16,
        cache: [1, 4, 3].into(),
        update: Layout::contiguous([1, 1, 3]),
        axis: 1,
        table: None,
        circular: false,
        in_place: false,
    };
    let message = odd.kernel("plain", gpu().profile()).expect_err("refused").to_string();
    assert!(message.contains("not whole words"), "{message}");
    assert!(!odd.candidates(gpu().profile())[0].is_usable());
}

/// Pages of S rows, an update, positions and a table: the reference's bits, in place or not.
fn check_paged(dtype: DType, pages: [usize; 4], rows: usize, positions: &[i32], table: &[i32]) -> Tensor {
    let [_, _, heads, width] = pages;
    let items = positions.len();
    let update = Shape::from([items, heads, rows, width]);
    let table_shape = Shape::from([items, table.len() / items.max(1)]);
    let problem = AppendProblem {
        dtype,
        cache: pages.into(),
        update: Layout::contiguous([items, rows, heads, width]).permute(&[0, 2, 1, 3]),
        axis: 2,
        table: Some(table_shape.clone()),
        circular: false,
        in_place: false,
    };
    let (old, stored) = (tensor(dtype, &problem.cache, 1), tensor(dtype, &[items, rows, heads, width].into(), 2));
    let positions = Tensor::new([items], positions.to_vec()).expect("fits");
    let table = Tensor::new(table_shape, table.to_vec()).expect("fits");
    let kernel = problem.kernel("plain", gpu().profile()).expect("runs");
    let outputs = [(dtype, problem.cache.clone()), (DType::I32, Shape::from([1]))];
    let found = gpu().run_kernel(&kernel, &[&old, &stored, &positions, &table], &outputs).expect("runs");
    // The update as [B, H, T, D], for the reference.
    let (size, bytes) = (width * dtype.bytes(), stored.as_bytes());
    let row = |e: usize| (e / heads / rows * rows + e % rows) * heads + e / rows % heads;
    let turned: Vec<u8> = (0..items * heads * rows).flat_map(|e| bytes[row(e) * size..][..size].to_vec()).collect();
    let turned = Tensor::from_bytes(dtype, &update, &turned).expect("fits");
    compare::op(&Op::AppendPaged, &[&old, &turned, &positions, &table], &[&found[0], &found[1]])
        .unwrap_or_else(|error| panic!("{problem:?}: {error}"));
    found[1].clone()
}

#[test]
fn rows_find_their_pages() {
    let dropped = |tensor: &Tensor| tensor.as_i32().expect("i32")[0];
    for dtype in [DType::F32, DType::BF16, DType::I32] {
        // Over page borders, into pages that lie anywhere; the second item begins in the middle of a page.
        assert_eq!(dropped(&check_paged(dtype, [7, 4, 3, 2], 6, &[0, 3], &[5, 0, 2, 6, 1, 3])), 0);
    }
    // No page 9 or −1; places before the first and past the last.
    assert_eq!(dropped(&check_paged(DType::F32, [7, 4, 2, 5], 6, &[2, 1], &[5, 9, 2, -1, 1, 3])), 4 + 3);
    assert_eq!(dropped(&check_paged(DType::F32, [7, 4, 2, 5], 6, &[-2, 10], &[5, 0, 2, 6, 1, 3])), 2 + 4);
    assert_eq!(dropped(&check_paged(DType::F32, [7, 4, 2, 5], 2, &[i32::MIN, i32::MAX], &[5, 0, 2, 6, 1, 3])), 4);
    assert_eq!(dropped(&check_paged(DType::F32, [3, 1, 1, 1], 1, &[0, 0], &[2, 0])), 0);
    assert_eq!(dropped(&check_paged(DType::F32, [3, 2, 1, 1], 0, &[0, 0], &[2, 0])), 0);
    assert_eq!(dropped(&check_paged(DType::F32, [3, 2, 1, 1], 4, &[], &[])), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn drawn(
        b in 1usize..4, middle in 1usize..3, places in 1usize..9, inner in 1usize..5, part in 0usize..9,
        positions in prop::collection::vec(-12i32..12, 4), circular: bool,
    ) {
        check(DType::F32, &[b, middle, places, inner], part.min(places), 2, &positions[..b], circular);
    }
}
