//! Which variant of matmul is taken, and why others are not.

mod coop;

use std::collections::BTreeSet;

use tilewise::{
    Layout,
    kernel::{AdapterKind, Candidate, Epilogue, MatmulProblem, Problem, Profile},
};

use crate::common::matmul::variants;

fn order(a: &[usize], b: &[usize], profile: &Profile) -> Vec<&'static str> {
    let problem = MatmulProblem::new(&Layout::contiguous(a), &Layout::contiguous(b), Epilogue::default());
    let candidates = problem.expect("the shapes fit").candidates(profile);
    let names: BTreeSet<_> = candidates.iter().map(|candidate| candidate.variant).collect();
    assert_eq!(names, variants().into_iter().collect(), "each variant has a verdict");
    assert_eq!(candidates.len(), names.len(), "and only one");
    candidates.iter().filter(|candidate| candidate.is_usable()).map(|candidate| candidate.variant).collect()
}

#[test]
fn preference() {
    let gpu = Profile::portable();
    let first = |a: &[usize], b: &[usize], profile: &Profile| order(a, b, profile)[0];
    assert_eq!(first(&[4096, 4096], &[4096, 4096], &gpu), "tiled_128x128");
    assert_eq!(first(&[1024, 256], &[256, 1024], &gpu), "tiled_64x64");
    assert_eq!(first(&[128, 64], &[64, 128], &gpu), "tiled_32x32");
    assert_eq!(first(&[64, 4096], &[4096, 64], &gpu), "split_k");
    assert_eq!(first(&[1, 4096], &[4096, 4096], &gpu), "vec");
    // 16 rows of one product, not 16 products of a row.
    assert_eq!(first(&[16, 1, 64], &[64, 64], &gpu), "tiled_32x32");
    assert_eq!(first(&[4, 0], &[0, 4], &gpu), "plain");

    let lavapipe = Profile { kind: AdapterKind::Cpu, subgroup: Some((8, 8)), ..Profile::portable() };
    assert_eq!(first(&[512, 512], &[512, 512], &lavapipe), "panel_deep");
    assert_eq!(first(&[256, 512], &[512, 512], &lavapipe), "panel");
    let long = Profile { shader_int64: true, ..lavapipe.clone() };
    assert_eq!(first(&[512, 512], &[512, 512], &long), "panel");
    assert_eq!(first(&[512, 516], &[516, 516], &long), "panel_deep");
    let sharing = Profile { driver: "llvmpipe Mesa 26.2.6 (LLVM 22.1.8)".into(), ..long };
    assert_eq!(first(&[512, 512], &[512, 512], &sharing), "panel_uniform");
    assert_eq!(first(&[8, 512], &[512, 512], &sharing), "panel");
    assert_eq!(first(&[4, 512], &[512, 512], &sharing), "subgroup");
    assert_eq!(first(&[4, 512], &[512, 512], &lavapipe), "panel");
    assert_eq!(first(&[1, 512], &[512, 512], &lavapipe), "subgroup");
    // Weights as a linear layer has them.
    let linear = |m: usize, k: usize, n: usize| {
        let weights = Layout::contiguous([n, k]).permute(&[1, 0]);
        let problem = MatmulProblem::new(&Layout::contiguous([m, k]), &weights, Epilogue::default()).expect("they fit");
        let candidates = problem.candidates(&lavapipe);
        candidates.into_iter().find(Candidate::is_usable).expect("there is one").variant
    };
    assert_eq!([linear(1, 512, 512), linear(4, 512, 512), linear(5, 512, 512)], ["subgroup", "subgroup", "panel"]);
    assert_eq!([linear(8, 2047, 512), linear(8, 2048, 512), linear(9, 2048, 512)], ["panel", "subgroup", "panel"]);
    assert_eq!([linear(1, 63, 2048), linear(1, 64, 2048), linear(1, 64, 512)], ["panel", "subgroup", "register"]);
    assert_eq!(first(&[9, 100], &[100, 16], &lavapipe), "register");
    // Few columns would leave most lanes of a panel idle.
    assert_eq!([linear(512, 512, 13), linear(512, 512, 12), linear(4, 4096, 12)], ["panel", "register", "subgroup"]);
    let bare = Profile { subgroup: None, ..lavapipe };
    assert_eq!(first(&[512, 512], &[512, 512], &bare), "panel_uniform");

    let mut tiny = Profile::portable();
    tiny.limits.workgroup_invocations = 64;
    tiny.limits.workgroup_bytes = 1024;
    assert_eq!(order(&[512, 512], &[512, 512], &tiny), ["register", "plain"]);
}

#[test]
fn refusals_say_why() {
    let problem = |m: usize, k: usize| {
        MatmulProblem::new(&Layout::contiguous([m, k]), &Layout::contiguous([k, 8]), Epilogue::default()).expect("fits")
    };
    let gpu = Profile::portable();
    let message =
        |problem: &MatmulProblem, variant: &str| problem.kernel(variant, &gpu).expect_err("refused").to_string();
    assert_eq!(message(&problem(9, 8), "vec"), "matmul: no variant can run here: vec: M = 9: takes up to 8 rows");
    assert_eq!(
        message(&problem(9, 16), "split_k"),
        "matmul: no variant can run here: split_k: K = 16: too short a sum to cut"
    );
    assert!(
        message(&problem(9, 8), "quick")
            .starts_with("matmul: there is no variant `quick`; there are vec, subgroup, coop_16x16, ")
    );
}
