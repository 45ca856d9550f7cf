//! What is no norm, and how many launches one takes.

use tilewise::{
    DType::{self, BF16, F16, F32},
    Layout,
    kernel::{NormDTypes, NormKind, NormProblem, Problem, Profile},
};

/// Only rows that share words cost another pass, for the outputs that are narrow.
#[test]
fn a_launch_of_its_own_rounds_where_rows_share_words() {
    let launches = |width: usize, [x, residual, weight, bias, sum, y]: [DType; 6], has_sum: bool| {
        let mut problem = NormProblem::new(NormKind::Rms, 1, 1e-5, Layout::contiguous([4, width]));
        problem.dtypes = NormDTypes { x, residual, weight, bias, sum, y };
        problem.sum = has_sum;
        problem.residual = has_sum.then(|| Layout::contiguous([4, width]));
        let kernel = problem.kernel("plain", &Profile::portable()).expect("it takes all");
        let labels: Vec<String> = kernel.launches.iter().map(|launch| launch.label.clone()).collect();
        (labels.join(", "), kernel.workspace)
    };
    assert_eq!(launches(64, [F16; 6], true), ("plain".into(), vec![]));
    assert_eq!(launches(63, [F16, F16, F16, F16, F32, F32], true), ("plain".into(), vec![]));
    assert_eq!(launches(63, [F16; 6], false), ("plain, round to f16".into(), vec![1008]));
    assert_eq!(
        launches(63, [F16, F16, F16, F16, BF16, F16], true),
        ("plain, round to f16, round to bf16".into(), vec![1008; 2])
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let x = Layout::contiguous([4, 8]);
    let message = |change: &dyn Fn(&mut NormProblem)| {
        let mut problem = NormProblem::new(NormKind::Rms, 1, 1e-5, x.clone());
        change(&mut problem);
        assert!(problem.candidates(&Profile::portable()).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel("plain", &Profile::portable()).expect_err("must be refused").to_string()
    };
    assert_eq!(message(&|p| p.axes = 3), "norm: 3 trailing axes of x [4, 8] can't be normalised; 1 to 2 can");
    assert_eq!(message(&|p| p.axes = 0), "norm: 0 trailing axes of x [4, 8] can't be normalised; 1 to 2 can");
    assert_eq!(message(&|p| p.epsilon = -1.0), "norm: epsilon is -1, expected 0 or a finite number above");
    assert_eq!(message(&|p| p.mean = true), "norm: an RMS norm has no mean to write");
    assert_eq!(
        message(&|p| p.weight = Some(Layout::contiguous([4]))),
        "norm: `weight` has shape [4], expected [8]: broadcast it first"
    );
    assert_eq!(
        message(&|p| p.residual = Some(Layout::contiguous([8]))),
        "norm: `residual` has shape [8], expected [4, 8]: broadcast it first"
    );
    assert_eq!(
        message(&|p| p.in_place = Some(1)),
        "norm: y can't share the buffer of input 1: it has to be x or residual, dense, and stored in the width of y"
    );
    assert_eq!(message(&|p| p.dtypes.y = DType::I32), "norm: `y` is i32, expected f32, f16 or bf16");

    let problem = NormProblem::new(NormKind::Rms, 1, 1e-5, x);
    let message = |variant: &str, profile: &Profile| problem.kernel(variant, profile).expect_err("refused").to_string();
    assert_eq!(
        message("tiled", &Profile::portable()),
        "norm: there is no variant `tiled`; there are plain, workgroup, subgroup, split"
    );
    assert_eq!(
        message("subgroup", &Profile::portable()),
        "norm: no variant can run here: subgroup: the device has no subgroup operations"
    );
    let varies = Profile { subgroup: Some((8, 32)), ..Profile::portable() };
    assert_eq!(
        message("subgroup", &varies),
        "norm: no variant can run here: subgroup: the subgroup size varies from 8 to 32 here"
    );
}

#[test]
fn a_new_size_is_not_a_new_pipeline() {
    let source = |rows: usize, width: usize| {
        let problem = NormProblem::new(NormKind::Layer, 1, 1e-5, Layout::contiguous([rows, width]));
        let kernel = problem.kernel("plain", &Profile::portable()).expect("plain takes all");
        kernel.launches[0].source.clone()
    };
    assert_eq!(source(3, 64), source(4096, 768));
    assert_eq!(source(3, 65), source(4096, 767));
}
