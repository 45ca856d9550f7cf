//! What a device can't do is not measured.

use tilewise::kernel::{Arithmetic, CeilingProblem, Problem, Profile};

#[test]
fn what_a_device_cannot_do_is_refused_with_the_reason() {
    let portable = Profile::portable();
    let reason = |problem: CeilingProblem| {
        assert!(problem.candidates(&portable).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel(problem.candidates(&portable)[0].variant, &portable).expect_err("refused").to_string()
    };
    assert!(reason(CeilingProblem::Multiply(Arithmetic::F16)).contains("SHADER_F16"));
    let copy = CeilingProblem::Copy { bytes: CeilingProblem::whole(1 << 20) };
    let error = copy.kernel("u64 x8 in line", &portable).expect_err("no u64").to_string();
    assert!(error.contains("SHADER_INT64"), "{error}");
    assert!(reason(CeilingProblem::Multiply(Arithmetic::Cooperative)).contains("no cooperative matrices"));
    assert!(reason(CeilingProblem::Copy { bytes: CeilingProblem::whole(1 << 30) }).contains("binding_bytes"));
    assert!(reason(CeilingProblem::Read { bytes: 100 }).contains("a multiple of"));
    let error = CeilingProblem::Dispatch.kernel("teapot", &portable).expect_err("unknown");
    assert!(error.to_string().contains("teapot"));
}
