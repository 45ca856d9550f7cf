//! What is no cross entropy, and which variant takes one.

use tilewise::{
    DType, Layout,
    kernel::{CrossEntropyProblem, Problem, Profile},
};

#[test]
fn what_cannot_be_is_refused() {
    let message = |change: &dyn Fn(&mut CrossEntropyProblem)| {
        let mut problem = CrossEntropyProblem::new(Layout::contiguous([4, 8]));
        change(&mut problem);
        assert!(problem.candidates(&Profile::portable()).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel("plain", &Profile::portable()).expect_err("must be refused").to_string()
    };
    assert_eq!(
        message(&|p| p.x = Layout::contiguous([])),
        "cross_entropy: `logits` has shape [], expected at least one axis, of the classes"
    );
    assert_eq!(message(&|p| p.dtype = DType::I32), "cross_entropy: `logits` is i32, expected f32, f16 or bf16");
    assert_eq!(
        message(&|p| p.smoothing = f32::NAN),
        "cross_entropy: the smoothing is NaN, expected a number from 0 to 1"
    );
    let problem = CrossEntropyProblem::new(Layout::contiguous([4, 8]));
    assert_eq!(
        problem.kernel("tiled", &Profile::portable()).expect_err("unknown").to_string(),
        "cross_entropy: there is no variant `tiled`; there are plain, workgroup, subgroup, split"
    );
}

#[test]
fn few_long_rows_are_shared_out() {
    let first = |shape: [usize; 2]| {
        CrossEntropyProblem::new(Layout::contiguous(shape)).candidates(&Profile::portable())[0].variant
    };
    assert_eq!(first([8, 50_257]), "split");
    assert_eq!(first([2048, 1024]), "workgroup");
    let problem = CrossEntropyProblem {
        dtype: DType::BF16,
        ignore: Some(-100),
        smoothing: 0.1,
        weight: true,
        ..CrossEntropyProblem::new(Layout::contiguous([8, 50_257]))
    };
    assert_eq!(problem.summary(), "bf16 [8, 50257] ignore=-100 smoothing=0.1 +weight");
    let kernel = problem.kernel("split", &Profile::portable()).expect("it takes all");
    let labels: Vec<&str> = kernel.launches.iter().map(|launch| launch.label.as_str()).collect();
    assert_eq!(labels, ["split: shares", "split: merge"]);
}
