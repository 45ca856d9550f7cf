//! What is no softmax, and how many launches one takes.

use tilewise::{
    DType, Layout,
    kernel::{Problem, Profile, SoftmaxDTypes, SoftmaxProblem},
};

#[test]
fn a_launch_of_its_own_rounds_where_lines_share_words() {
    let launches = |shape: [usize; 2], [x, y]: [DType; 2]| {
        let dtypes = SoftmaxDTypes { x, y };
        let problem = SoftmaxProblem { dtypes, ..SoftmaxProblem::new(1, Layout::contiguous(shape)) };
        let kernel = problem.kernel("plain", &Profile::portable()).expect("it takes all");
        assert_eq!(problem.allows_in_place(0), kernel.workspace.is_empty() && x.bytes() == y.bytes());
        kernel.launches.iter().map(|launch| launch.label.clone()).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(launches([4, 64], [DType::F16; 2]), "plain");
    assert_eq!(launches([4, 63], [DType::F16, DType::F32]), "plain");
    assert_eq!(launches([4, 63], [DType::F16, DType::BF16]), "plain, round to bf16");
}

#[test]
fn what_cannot_be_is_refused() {
    let message = |change: &dyn Fn(&mut SoftmaxProblem)| {
        let mut problem = SoftmaxProblem::new(1, Layout::contiguous([4, 8]).permute(&[1, 0]));
        change(&mut problem);
        assert!(problem.candidates(&Profile::portable()).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel("plain", &Profile::portable()).expect_err("must be refused").to_string()
    };
    assert_eq!(message(&|p| p.axis = 2), "softmax: axis 2 is out of range for [8, 4] (rank 2)");
    assert_eq!(message(&|p| p.scale = f32::NAN), "softmax: the scale is NaN, expected a finite number");
    assert_eq!(message(&|p| p.dtypes.x = DType::I32), "softmax: `x` is i32, expected f32, f16 or bf16");
    assert_eq!(
        message(&|p| p.in_place = true),
        "softmax: y can't share the buffer of x, which is not dense, or stored in another width than y"
    );
}
