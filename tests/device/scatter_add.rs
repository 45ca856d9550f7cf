//! Sums by index against the reference. The cases of `src/verify/cases/scatter_add.rs` have exact and random data.

use proptest::prelude::*;
use tilewise::{
    DType, Graph, Tensor,
    kernel::{Problem, Profile, ScatterAddProblem},
    reference::{self, Random, compare::Check},
};

use crate::common::gpu;

/// On the device, twice.
fn run(updates: &Tensor, indices: &Tensor, axis: isize, size: usize) -> [Tensor; 2] {
    let mut g = Graph::new();
    let (u, i) = (
        g.input("updates", updates.dtype(), updates.shape().clone()).expect("fits"),
        g.input("indices", DType::I32, indices.shape().clone()).expect("fits"),
    );
    let y = g.scatter_add(u, i, axis, size).expect("fits");
    g.output("y", y).expect("new");
    let mut program = gpu().compile(&g, []).expect("compiles");
    let inputs = [("updates", updates), ("indices", indices)];
    [(); 2].map(|()| program.run(&inputs).expect("runs").remove("y").expect("an output"))
}

#[test]
fn the_same_bits_in_every_run_and_the_sums_of_the_reference_in_its_order() {
    let mut random = Random::new(5);
    for (count, size, columns) in [(700, 3, 8), (700, 3, 5), (129, 1, 4), (1, 9, 4), (1025, 2000, 1)] {
        let updates = random.tensor(DType::F32, [count, columns], -1.0, 1.0).expect("fits");
        let indices = random.wholes(DType::I32, [count], -(size as i64), size as i64 - 1).expect("fits");
        let [first, second] = run(&updates, &indices, 0, size);
        assert_eq!(first.as_bytes(), second.as_bytes());
        // One f32 addition after the other, as the plain evaluation does it.
        let operands = [&reference::Value::from(&updates), &reference::Value::from(&indices)];
        let op = tilewise::graph::Op::ScatterAdd { axis: 0, size };
        let plain = reference::apply::<f32>(&op, &operands).expect("fits")[0].to_tensor().expect("fits");
        assert_eq!(first.as_bytes(), plain.as_bytes(), "{count} to {size}, {columns} columns");
    }
}

#[test]
fn refusals() {
    let problem = |updates: &[usize], indices: &[usize], axis| ScatterAddProblem {
        updates: updates.into(),
        indices: indices.into(),
        axis,
        size: 4,
    };
    let message = |problem: &ScatterAddProblem, profile: &Profile| {
        assert!(problem.candidates(profile).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel("plain", profile).expect_err("refused").to_string()
    };
    assert_eq!(
        message(&problem(&[3, 4], &[4], 0), &Profile::portable()),
        "scatter_add: no variant can run here: plain: updates [3, 4] don't have the indices [4] from axis 0 on"
    );
    let mut graph = Graph::new();
    let updates = graph.input("updates", DType::F32, [2, 3]).expect("fits");
    let indices = graph.input("indices", DType::I32, [3]).expect("fits");
    let error = graph.scatter_add(updates, indices, 0, 4).expect_err("refused").to_string();
    assert_eq!(error, "scatter_add: `updates` has shape [2, 3], expected the indices' [3] from axis 0 on");
    let error = graph.scatter_add(updates, indices, 1, 0).expect_err("refused").to_string();
    assert_eq!(error, "scatter_add: the size is 0, there is no place for 3 indices");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn drawn_sums(seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let sizes = |random: &mut Random, most| (0..random.size(0, most)).map(|_| random.size(1, 5)).collect::<Vec<_>>();
        let (before, index, behind) = (sizes(&mut random, 2), sizes(&mut random, 2), sizes(&mut random, 2));
        let size = random.size(1, 6);
        let updates = random.tensor(DType::F32, [&before[..], &index, &behind].concat(), -1.0, 1.0).expect("fits");
        let indices = random.wholes(DType::I32, index, -9, 9).expect("fits");
        let mut g = Graph::new();
        let (u, i) = (g.constant(updates.clone()).expect("fits"), g.constant(indices.clone()).expect("fits"));
        let y = g.scatter_add(u, i, before.len() as isize, size).expect("fits");
        g.output("y", y).expect("new");
        let expected = reference::compare::Expected::of_graph(&g, &Default::default(), Check::measured()).expect("evaluates");
        let [got, _] = run(&updates, &indices, before.len() as isize, size);
        expected.compare(&[got]).map_err(|mismatch| TestCaseError::fail(mismatch.to_string()))?;
    }
}
