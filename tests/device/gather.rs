//! Embedding lookup against the reference: every bit of every dtype arrives.

use proptest::prelude::*;
use tilewise::{
    DType, Layout, Shape, Tensor,
    graph::Op,
    kernel::{GatherProblem, Problem, Profile},
    reference,
};

use crate::common::view::{Rng, View, bits, run, run_folded};

fn numbered(_: &mut Rng, shape: &Shape) -> Tensor {
    let n = shape.elements().expect("small");
    Tensor::new(shape, (0..n as u32).collect::<Vec<_>>()).expect("the sizes agree")
}

/// Indices of which some count from the end and some are out of range.
fn indices(rng: &mut Rng, shape: &Shape, size: usize) -> Tensor {
    let size = size as i32;
    let n = shape.elements().expect("small");
    let edges = [-1, -size, size - 1, size, -size - 1, i32::MAX, i32::MIN, 0];
    let index =
        |rng: &mut Rng| if rng.below(3) == 0 { rng.of(&edges) } else { rng.below(2 * size as usize) as i32 - size };
    Tensor::new(shape, (0..n).map(|_| index(rng)).collect::<Vec<_>>()).expect("the sizes agree")
}

fn check(rng: &mut Rng, data: &View, axis: usize, picks: &View, dtype: DType) {
    let base = bits(rng, dtype, data.base.shape());
    let numbers = reference::apply(&Op::Gather { axis }, &[&data.value, &picks.value]).expect("they fit").remove(0);
    let elements: Vec<&[u8]> = base.as_bytes().chunks_exact(dtype.bytes()).collect();
    let picked: Vec<u8> =
        numbers.u32s().expect("numbers").data().iter().flat_map(|&n| elements[n as usize].to_vec()).collect();
    let problem = GatherProblem { dtype, data: data.layout.clone(), axis, indices: picks.layout.clone() };
    let actual = run(&problem, &[&base, &picks.base], dtype, numbers.shape());
    assert_eq!(actual.as_bytes(), picked, "{problem:?}");
}

#[test]
fn rows_of_a_table_in_every_dtype() {
    let mut rng = Rng(1);
    for dtype in DType::ALL {
        for (vocabulary, width) in [(1, 4), (7, 8), (13, 12), (13, 5), (5, 1), (300, 64)] {
            let table = View::of(numbered(&mut rng, &[vocabulary, width].into()));
            for shape in [vec![], vec![0], vec![1], vec![3], vec![2, 5]] {
                let picks = View::of(indices(&mut rng, &shape.into(), vocabulary));
                check(&mut rng, &table, 0, &picks, dtype);
            }
        }
    }
}

#[test]
fn every_axis() {
    let mut rng = Rng(2);
    let data = View::of(numbered(&mut rng, &[3, 4, 5, 8].into()));
    for dtype in [DType::F32, DType::F16, DType::Bool] {
        for axis in 0..4 {
            for shape in [vec![], vec![4], vec![2, 3]] {
                let picks = View::of(indices(&mut rng, &shape.into(), data.shape()[axis]));
                check(&mut rng, &data, axis, &picks, dtype);
            }
        }
    }
}

#[test]
fn folded_grids() {
    let mut rng = Rng(4);
    let table = View::of(numbered(&mut rng, &[50, 64].into()));
    let data = bits(&mut rng, DType::F16, table.shape());
    let picks = indices(&mut rng, &[1001].into(), 50);
    let (layout, indices) = (table.layout.clone(), Layout::contiguous([1001]));
    let problem = GatherProblem { dtype: DType::F16, data: layout, axis: 0, indices };
    let shape = Shape::from([1001, 64]);
    let whole = run(&problem, &[&data, &picks], DType::F16, &shape);
    let folded = run_folded(9, &problem, &[&data, &picks], DType::F16, &shape);
    assert_eq!(folded.as_bytes(), whole.as_bytes());
}

#[test]
fn nothing_to_pick_and_nothing_picked() {
    let mut rng = Rng(3);
    let empty = View::of(numbered(&mut rng, &[0, 4].into()));
    let none = View::of(Tensor::new([0], Vec::<i32>::new()).expect("the sizes agree"));
    check(&mut rng, &empty, 0, &none, DType::F32);
    let message = |problem: &GatherProblem| {
        assert!(problem.candidates(&Profile::portable()).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel("plain", &Profile::portable()).expect_err("it must be refused").to_string()
    };
    let (data, indices) = (Layout::contiguous([0, 4]), Layout::contiguous([2]));
    let mut problem = GatherProblem { dtype: DType::F32, data, axis: 0, indices };
    assert_eq!(message(&problem), "gather: axis 0 of [0, 4] is empty, there is nothing to pick");
    problem.axis = 2;
    assert_eq!(message(&problem), "gather: there is no axis 2 in [0, 4]");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn drawn_lookups(seed in any::<u64>()) {
        let mut rng = Rng(seed);
        let sizes: Vec<usize> = (0..1 + rng.below(4)).map(|_| rng.of(&[1, 2, 3, 4, 8])).collect();
        let axis = rng.below(sizes.len());
        let size = sizes[axis];
        let data = View::drawn(&mut rng, &sizes.into(), true, numbered);
        let shape: Vec<usize> = (0..rng.below(3)).map(|_| rng.of(&[1, 2, 3, 4])).collect();
        let picks = View::drawn(&mut rng, &shape.into(), true, |rng, shape| indices(rng, shape, size));
        let dtype = rng.of(&DType::ALL);
        check(&mut rng, &data, axis, &picks, dtype);
    }
}
