//! Attention over parts of the keys, joined: against the reference, and against attention over all keys.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tilewise::{
    DType, Graph, Shape, Tensor, ValueId,
    graph::{Align, Mask, Op},
    kernel::{AttentionMergeProblem, Problem},
    reference::compare::{self, Check},
};

use crate::common::gpu;

const LOWEST: f32 = f32::MIN;

fn values(shape: &[usize], seed: usize) -> Vec<f32> {
    (0..shape.iter().product()).map(|i: usize| ((i * 53 + seed * 17) % 101) as f32 / 50.5 - 1.0).collect()
}

fn check(outs: &Tensor, lses: &Tensor, lse: bool, check: Check) -> Vec<Tensor> {
    let (shape, rows) = (outs.shape().clone(), lses.shape().clone());
    let problem = AttentionMergeProblem { outs: shape.clone(), lse };
    let mut outputs = vec![(DType::F32, Shape::from(&shape[1..])), (DType::F32, Shape::from(&rows[1..]))];
    outputs.truncate(1 + usize::from(lse));
    let expected = compare::Expected::of_op(&Op::AttentionMerge, &[outs, lses], check).expect("valid");
    let mut last = None;
    for candidate in problem.candidates(gpu().profile()).iter().filter(|candidate| candidate.is_usable()) {
        let kernel = problem.kernel(candidate.variant, gpu().profile()).expect("runs");
        let found = gpu().run_kernel(&kernel, &[outs, lses], &outputs).expect("runs");
        for ((name, expected, bound), actual) in expected.results().zip(&found) {
            compare::compare(name, actual, expected, bound)
                .unwrap_or_else(|e| panic!("{problem:?} {}: {e}", candidate.variant));
        }
        last = Some(found);
    }
    last.expect("a variant can run")
}

fn tensor(shape: &[usize], data: Vec<f32>) -> Tensor {
    Tensor::new(shape, data).expect("fits")
}

/// Parts that saw nothing leave the others as they are, to the bit.
#[test]
fn parts_without_keys_play_no_part() {
    for nothing in [LOWEST, f32::NEG_INFINITY] {
        let outs = tensor(&[3, 2, 2], vec![7.0, 7.0, 1.5, 2.5, 3.0, -4.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0]);
        let lses = tensor(&[3, 2], vec![nothing, 2.0, -1.0, nothing, nothing, nothing]);
        let found = check(&outs, &lses, true, Check::Exact);
        assert_eq!(found[0].as_f32(), Some(&[3.0, -4.0, 1.5, 2.5][..]));
        assert_eq!(found[1].as_f32(), Some(&[-1.0, 2.0][..]));
        // Nobody saw anything: exactly 0 and the lowest f32.
        let none = check(&tensor(&[2, 1, 3], vec![5.0; 6]), &tensor(&[2, 1], vec![nothing; 2]), true, Check::Exact);
        assert!(none[0].as_f32().expect("f32").iter().all(|x| x.to_bits() == 0));
        assert_eq!(none[1].as_f32(), Some(&[LOWEST][..]));
    }
    // Equal parts: the mean of powers of two.
    let found =
        check(&tensor(&[4, 1, 1], vec![2.0, 4.0, 8.0, 2.0]), &tensor(&[4, 1], vec![3.0; 4]), false, Check::Exact);
    assert_eq!(found[0].as_f32(), Some(&[4.0][..]));
}

#[test]
fn ugly_sizes() {
    for outs in
        [&[1, 5, 3][..], &[2, 1, 1], &[3, 2, 4, 17, 5], &[7, 65, 64], &[2, 0, 4], &[0, 3, 4], &[2, 3, 0], &[5, 130]]
    {
        let rows = &outs[..outs.len() - 1];
        let mut lses: Vec<f32> = values(rows, 3).iter().map(|x| 40.0 * x).collect();
        lses.iter_mut().step_by(5).for_each(|lse| *lse = LOWEST);
        check(&tensor(outs, values(outs, 1)), &tensor(rows, lses), true, Check::measured());
    }
}

/// Attention over ranges of keys, merged in a graph, is attention over all of them.
#[test]
fn split_ranges_of_keys_merge_to_the_whole() {
    let (b, h, hkv, tq, d) = (2, 4, 2, 5, 8);
    let ranges = [0..13, 13..14, 14..14, 14..40];
    for align in [None, Some(Align::TopLeft), Some(Align::Offset(20)), Some(Align::Offset(-2))] {
        let mut g = Graph::new();
        let build = |g: &mut Graph| -> tilewise::Result<[ValueId; 4]> {
            let q = g.input("q", DType::F32, [b, h, tq, d])?;
            let k = g.input("k", DType::F32, [b, hkv, 40, d])?;
            let v = g.input("v", DType::F32, [b, hkv, 40, d])?;
            let mask = |first: i32| match align {
                None => Mask::none(),
                Some(Align::Offset(offset)) => Mask::causal(Align::Offset(offset - first)),
                Some(_) => Mask::causal(Align::Offset(-first)),
            };
            let (out, lse) = g.attention_with_lse(q, k, v, mask(0))?;
            let mut parts = Vec::new();
            for range in &ranges {
                let (k, v) = (g.slice(k, 2, range.start, range.end)?, g.slice(v, 2, range.start, range.end)?);
                parts.push(g.attention_with_lse(q, k, v, mask(range.start as i32))?);
            }
            let (merged, merged_lse) = g.attention_merge(&parts)?;
            Ok([out, lse, merged, merged_lse])
        };
        let [out, lse, merged, merged_lse] = build(&mut g).expect("valid");
        for (name, value) in [("out", out), ("lse", lse), ("merged", merged), ("merged lse", merged_lse)] {
            g.output(name, value).expect("a new name");
        }
        let given: BTreeMap<String, Tensor> = g
            .inputs()
            .enumerate()
            .map(|(i, (name, value))| (name.to_string(), tensor(g.shape(value), values(g.shape(value), i))))
            .collect();
        let inputs: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let outputs = gpu().compile(&g, []).expect("compiles").run(&inputs).expect("runs");
        let expected = compare::Expected::of_graph(&g, &given, Check::measured()).expect("valid");
        for (name, expected, bound) in expected.results() {
            compare::compare(name, &outputs[name], expected, bound).unwrap_or_else(|e| panic!("{align:?}: {e}"));
        }
        for (whole, parts) in [("out", "merged"), ("lse", "merged lse")] {
            let pairs = outputs[whole].as_f32().expect("f32").iter().zip(outputs[parts].as_f32().expect("f32"));
            for (at, (a, b)) in pairs.enumerate() {
                assert!((a - b).abs() <= 4e-6 || a == b, "{align:?}: {whole}[{at}] is {a}, {parts} {b}");
            }
        }
    }
}

#[test]
fn narrow_parts_are_converted() {
    let mut g = Graph::new();
    let outs = g.input("outs", DType::F16, [2, 3, 4]).expect("new");
    let lses = g.input("lses", DType::F32, [2, 3]).expect("new");
    let (out, _) = g.attention_merge_stacked(outs, lses).expect("fits");
    assert_eq!(g.dtype(out), DType::F16);
    g.output("out", out).expect("new");
    let halves: Vec<half::f16> = values(&[24], 1).into_iter().map(half::f16::from_f32).collect();
    let given = BTreeMap::from([
        ("outs".to_string(), Tensor::new([2, 3, 4], halves).expect("fits")),
        ("lses".to_string(), tensor(&[2, 3], values(&[6], 2))),
    ]);
    let inputs: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let outputs = gpu().compile(&g, []).expect("compiles").run(&inputs).expect("runs");
    let expected = compare::Expected::of_graph(&g, &given, Check::measured()).expect("valid");
    expected.compare_named(&outputs.into_iter().collect()).unwrap_or_else(|e| panic!("{e}"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]
    #[test]
    fn drawn(parts in 1usize..6, rows in 1usize..40, width in 1usize..20, spread in 0.0f32..90.0, seed in 0usize..999) {
        let lses = values(&[parts, rows], seed).into_iter().map(|x| spread * x).collect();
        check(&tensor(&[parts, rows, width], values(&[parts, rows, width], seed + 1)), &tensor(&[parts, rows], lses), true, Check::measured());
    }
}
