//! Copies, concatenation and padding against the reference: every bit of every dtype arrives.

use proptest::prelude::*;
use tilewise::{
    DType, Layout, Shape, Tensor,
    graph::Op,
    kernel::{AdapterKind, ConcatProblem, CopyProblem, PadProblem, Problem, Profile},
    reference::{self, Value},
};

use crate::common::{
    gpu,
    view::{Rng, View, bits, run, run_as, run_folded, tensor},
};

/// A buffer whose elements are `first`, `first + 1`, …: what the reference moves tells where each element comes from.
fn numbered(first: usize) -> impl Fn(&mut Rng, &Shape) -> Tensor {
    move |_, shape| {
        let n = shape.elements().expect("small");
        Tensor::new(shape, (0..n).map(|i| (first + i) as u32).collect::<Vec<_>>()).expect("the sizes agree")
    }
}

/// Elements of the tensors laid end to end, picked by number; `fill` where the number is that of no element.
fn picked(dtype: DType, from: &[&Tensor], value: &Value<f64>, fill: &[u8]) -> Tensor {
    let bytes: Vec<u8> = from.iter().flat_map(|tensor| tensor.as_bytes().to_vec()).collect();
    let numbers = value.u32s().expect("numbers").data();
    let element = |&number: &u32| bytes.chunks_exact(dtype.bytes()).nth(number as usize).unwrap_or(fill).to_vec();
    let all: Vec<u8> = numbers.iter().flat_map(element).collect();
    Tensor::from_bytes(dtype, value.shape(), &all).expect("the sizes agree")
}

fn same(actual: &Tensor, expected: &Tensor, problem: &dyn Problem) {
    assert_eq!(actual.shape(), expected.shape(), "{problem:?}");
    let pairs = actual.as_bytes().iter().zip(expected.as_bytes());
    if let Some((i, (a, b))) = pairs.enumerate().find(|(_, (a, b))| a != b) {
        let element = i / expected.dtype().bytes();
        panic!("element {element} has {a:#04x} where {b:#04x} is expected (byte {i})\n{problem:?}");
    }
}

fn check_copy(rng: &mut Rng, view: &View, dtype: DType) {
    let base = bits(rng, dtype, view.base.shape());
    let problem = CopyProblem { dtype, input: view.layout.clone() };
    let actual = run(&problem, &[&base], dtype, view.shape());
    same(&actual, &picked(dtype, &[&base], &view.value, &[]), &problem);
}

#[test]
fn copies_of_views() {
    let mut rng = Rng(1);
    let shape = Shape::from([3, 4, 8]);
    let base = View::of(numbered(0)(&mut rng, &shape));
    let views = [
        base.clone(),
        base.permute(&[2, 0, 1]),
        base.permute(&[0, 2, 1]),
        base.slice(&[2, 3, 7], &[3, 4, 8], &[-1, -1, -1]),
        base.slice(&[1, 0, 4], &[2, 4, 4], &[1, 1, 1]),
        base.slice(&[0, 1, 1], &[3, 2, 7], &[1, 2, 1]),
        base.slice(&[0, 0, 0], &[3, 4, 1], &[1, 1, 1]).broadcast(&[3, 4, 5].into()),
        base.slice(&[1, 1, 1], &[1, 1, 1], &[1, 1, 1]).broadcast(&[2, 3, 4].into()),
        base.slice(&[0, 0, 0], &[0, 4, 8], &[1, 1, 1]),
        base.slice(&[2, 3, 5], &[1, 1, 1], &[1, 1, 1]),
    ];
    for dtype in DType::ALL {
        for view in &views {
            check_copy(&mut rng, view, dtype);
        }
    }
}

#[test]
fn transposes_around_the_tile() {
    let mut rng = Rng(2);
    for (rows, columns) in [(1, 40), (31, 32), (32, 33), (33, 64), (67, 36), (64, 68), (8, 100)] {
        let base = View::of(numbered(0)(&mut rng, &[2, rows, 3, columns].into()));
        for order in [[0, 3, 2, 1], [0, 2, 3, 1], [2, 3, 0, 1], [3, 0, 2, 1]] {
            for dtype in [DType::F32, DType::BF16, DType::Bool] {
                check_copy(&mut rng, &base.permute(&order), dtype);
            }
        }
        // An offset, and a step in the axis that becomes the last.
        let part = base.slice(&[1, rows - 1, 0, 1], &[1, rows, 3, columns - 1], &[1, -1, 1, 1]);
        check_copy(&mut rng, &part.permute(&[0, 2, 3, 1]), DType::F32);
    }
}

/// Squares are numbered by tiles, several of them along each axis; on a GPU by others than on a processor.
#[test]
fn squares_lie_in_several_tiles() {
    let mut rng = Rng(5);
    for kind in [AdapterKind::Cpu, AdapterKind::Gpu] {
        let profile = Profile { kind, ..gpu().profile().clone() };
        // The last axis of the output has 64 · 3, 67 and 8 · 5 squares.
        for [rest, j, t] in [[1, 768, 16], [2, 268, 72], [2, 160, 100]] {
            let base = View::of(numbered(0)(&mut rng, &[rest, j, t].into()));
            let view = base.permute(&[0, 2, 1]);
            let data = bits(&mut rng, DType::F32, base.shape());
            let problem = CopyProblem { dtype: DType::F32, input: view.layout.clone() };
            problem.kernel("square", &profile).expect("whole squares");
            let actual = run_as(&profile, &problem, &[&data], DType::F32, view.shape());
            same(&actual, &picked(DType::F32, &[&data], &view.value, &[]), &problem);
        }
    }
}

#[test]
fn folded_grids() {
    let mut rng = Rng(7);
    let base = View::of(numbered(0)(&mut rng, &[5, 148, 132].into()));
    let view = base.permute(&[0, 2, 1]);
    let data = bits(&mut rng, DType::F32, base.shape());
    let problem = CopyProblem { dtype: DType::F32, input: view.layout.clone() };
    let expected = picked(DType::F32, &[&data], &view.value, &[]);
    same(&run_folded(12, &problem, &[&data], DType::F32, view.shape()), &expected, &problem);
}

/// Drawn views of these shapes, each with a buffer of its own, numbered through.
fn views(rng: &mut Rng, shapes: &[Shape], plain: bool) -> Vec<View> {
    let mut first = 0;
    shapes
        .iter()
        .map(|shape| {
            let fill = numbered(first);
            let view = if plain { View::of(fill(rng, shape)) } else { View::drawn(rng, shape, true, fill) };
            first += view.base.len();
            view
        })
        .collect()
}

fn check_concat(rng: &mut Rng, views: &[View], axis: usize, dtype: DType) {
    let bases: Vec<Tensor> = views.iter().map(|view| bits(rng, dtype, view.base.shape())).collect();
    let bases: Vec<&Tensor> = bases.iter().collect();
    let values: Vec<&Value<f64>> = views.iter().map(|view| &view.value).collect();
    let value = reference::apply(&Op::Concat { axis }, &values).expect("they fit").remove(0);
    let problem = ConcatProblem { dtype, axis, inputs: views.iter().map(|view| view.layout.clone()).collect() };
    let actual = run(&problem, &bases, dtype, value.shape());
    same(&actual, &picked(dtype, &bases, &value, &[]), &problem);
}

#[test]
fn concatenations_of_one_to_seven_inputs_on_every_axis_in_every_dtype() {
    let mut rng = Rng(3);
    let sizes = [1, 3, 4, 0, 2, 5, 8];
    for dtype in DType::ALL {
        for count in [1, 2, 3, 7] {
            for axis in 0..3 {
                let shape = |n: usize| {
                    let mut shape = [2, 3, 5];
                    shape[axis] = sizes[(n + count) % 7];
                    Shape::from(shape)
                };
                let shapes: Vec<Shape> = (0..count).map(shape).collect();
                let views = views(&mut rng, &shapes, true);
                check_concat(&mut rng, &views, axis, dtype);
            }
        }
    }
}

#[test]
fn concatenations_in_whole_blocks() {
    let mut rng = Rng(4);
    for dtype in [DType::F32, DType::F16, DType::Bool] {
        // A cache of keys that grows, halves of rotated heads, rows.
        for (a, b, axis) in
            [([2, 3, 7, 8], [2, 3, 1, 8], 2), ([2, 3, 5, 4], [2, 3, 5, 12], 3), ([1, 4, 4, 4], [3, 4, 4, 4], 0)]
        {
            let views = views(&mut rng, &[a.into(), b.into()], true);
            check_concat(&mut rng, &views, axis, dtype);
        }
    }
}

#[test]
fn more_inputs_than_bindings() {
    let mut rng = Rng(5);
    for dtype in [DType::F32, DType::BF16, DType::Bool] {
        let shapes: Vec<Shape> = (0..16).map(|n| [3, 1 + n % 3].into()).collect();
        let views = views(&mut rng, &shapes, true);
        check_concat(&mut rng, &views, 1, dtype);
    }
    let inputs = vec![Layout::contiguous([3, 1]); 16];
    let problem = ConcatProblem { dtype: DType::F32, axis: 1, inputs };
    assert_eq!(problem.kernel("plain", &Profile::portable()).expect("it can run").launches.len(), 3);
}

fn check_pad(rng: &mut Rng, view: &View, before: &[usize], after: &[usize], value: f64, dtype: DType) {
    let base = bits(rng, dtype, view.base.shape());
    let (before, after) = (before.to_vec(), after.to_vec());
    let none = f64::from(u32::MAX);
    let op = Op::Pad { before: before.clone(), after: after.clone(), value: none };
    let numbers = reference::apply(&op, &[&view.value]).expect("it fits").remove(0);
    let fill = tensor(dtype, [1], &[value]);
    let problem = PadProblem { dtype, input: view.layout.clone(), before, after, value };
    let actual = run(&problem, &[&base], dtype, numbers.shape());
    same(&actual, &picked(dtype, &[&base], &numbers, fill.as_bytes()), &problem);
}

#[test]
fn frames_of_every_dtype() {
    let mut rng = Rng(6);
    for dtype in DType::ALL {
        for value in [0.0, 1.5, -2.0, f64::NEG_INFINITY] {
            let base = View::of(numbered(0)(&mut rng, &[3, 5].into()));
            check_pad(&mut rng, &base, &[0, 0], &[0, 0], value, dtype);
            check_pad(&mut rng, &base, &[1, 2], &[0, 3], value, dtype);
            check_pad(&mut rng, &base.permute(&[1, 0]), &[0, 0], &[3, 0], value, dtype);
            check_pad(&mut rng, &base, &[0, 0], &[0, 1], value, dtype);
            let blocks = View::of(numbered(0)(&mut rng, &[3, 4, 8].into()));
            check_pad(&mut rng, &blocks, &[0, 0, 4], &[1, 0, 8], value, dtype);
            check_pad(&mut rng, &blocks, &[1, 2, 0], &[0, 1, 0], value, dtype);
        }
        let empty = View::of(numbered(0)(&mut rng, &[0, 2].into()));
        check_pad(&mut rng, &empty, &[3, 1], &[2, 0], 1.0, dtype);
        let scalar = View::of(numbered(0)(&mut rng, &Shape::default()));
        check_pad(&mut rng, &scalar, &[], &[], 1.0, dtype);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn drawn_copies(seed in any::<u64>()) {
        let mut rng = Rng(seed);
        let sizes: Vec<usize> = (0..rng.below(7)).map(|_| rng.of(&[1, 2, 3, 4, 5, 8])).collect();
        let view = View::drawn(&mut rng, &sizes.into(), true, numbered(0));
        let dtype = rng.of(&DType::ALL);
        check_copy(&mut rng, &view, dtype);
    }

    #[test]
    fn drawn_concatenations(seed in any::<u64>()) {
        let mut rng = Rng(seed);
        let sizes: Vec<usize> = (0..1 + rng.below(4)).map(|_| rng.of(&[1, 2, 3, 4, 8])).collect();
        let axis = rng.below(sizes.len());
        let shapes: Vec<Shape> = (0..1 + rng.below(8))
            .map(|_| {
                let mut sizes = sizes.clone();
                sizes[axis] = rng.of(&[0, 1, 3, 4, 8, 12]);
                sizes.into()
            })
            .collect();
        let views = views(&mut rng, &shapes, false);
        let dtype = rng.of(&DType::ALL);
        check_concat(&mut rng, &views, axis, dtype);
    }

    #[test]
    fn drawn_frames(seed in any::<u64>()) {
        let mut rng = Rng(seed);
        let sizes: Vec<usize> = (0..1 + rng.below(4)).map(|_| rng.of(&[1, 2, 3, 4, 8])).collect();
        let view = View::drawn(&mut rng, &sizes.clone().into(), true, numbered(0));
        let mut frame = |_| rng.of(&[0, 0, 1, 4, 5]);
        let before: Vec<usize> = sizes.iter().map(&mut frame).collect();
        let after: Vec<usize> = sizes.iter().map(&mut frame).collect();
        let dtype = rng.of(&DType::ALL);
        check_pad(&mut rng, &view, &before, &after, 3.0, dtype);
    }
}
