//! What is no reduction.

use tilewise::{
    DType, Layout,
    graph::Reduce,
    kernel::{Problem, Profile, ReduceProblem},
};

#[test]
fn what_cannot_be_is_refused() {
    let message = |function, dtype, axes: &[usize]| {
        let problem = ReduceProblem::new(function, dtype, Layout::contiguous([4, 8]), axes);
        assert!(problem.candidates(&Profile::portable()).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel("plain", &Profile::portable()).expect_err("must be refused").to_string()
    };
    let wrong = "max: the axes [2] are not sorted axes of [4, 8], each at most once";
    assert_eq!(message(Reduce::Max, DType::F32, &[2]), wrong);
    assert_eq!(message(Reduce::Max, DType::F32, &[1, 0]), wrong.replace("[2]", "[1, 0]"));
    assert_eq!(message(Reduce::Max, DType::F32, &[0, 0]), wrong.replace("[2]", "[0, 0]"));
    assert_eq!(message(Reduce::Mean, DType::I32, &[0]), "mean: `x` is i32, expected f32 (cast it first)");
    assert_eq!(message(Reduce::Sum, DType::F16, &[0]), "sum: `x` is f16, expected f32, i32 or u32 (cast it first)");
    let problem = ReduceProblem::new(Reduce::Sum, DType::F32, Layout::contiguous([4, 8]), [0]);
    assert_eq!(
        problem.kernel("tiled", &Profile::portable()).expect_err("unknown").to_string(),
        "reduce: there is no variant `tiled`; there are plain, workgroup, subgroup, split"
    );
}
