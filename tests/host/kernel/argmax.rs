//! What is no argmax.

use tilewise::{
    DType, Layout,
    kernel::{ArgmaxProblem, Problem, Profile},
};

#[test]
fn what_cannot_be_is_refused() {
    let message = |dtype, shape: [usize; 2], axis| {
        let problem = ArgmaxProblem::new(dtype, Layout::contiguous(shape), axis);
        assert!(problem.candidates(&Profile::portable()).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel("plain", &Profile::portable()).expect_err("must be refused").to_string()
    };
    assert_eq!(message(DType::F32, [4, 8], 2), "argmax: axis 2 is out of range for [4, 8] (rank 2)");
    assert_eq!(message(DType::F32, [4, 0], 1), "argmax: axis 1 of [4, 0] is empty: there is no largest element");
    assert_eq!(message(DType::Bool, [4, 8], 1), "argmax: `x` is bool, expected f32, i32 or u32 (cast it first)");
    let problem = ArgmaxProblem::new(DType::F32, Layout::contiguous([4, 8]), 1);
    assert_eq!(
        problem.kernel("tiled", &Profile::portable()).expect_err("unknown").to_string(),
        "argmax: there is no variant `tiled`; there are plain, workgroup, subgroup, split"
    );
}
