//! The variants of matmul.

use tilewise::{
    Layout,
    kernel::{Epilogue, MatmulProblem, Problem, Profile},
};

/// The names of all, as the crate has them.
pub(crate) fn variants() -> Vec<&'static str> {
    let element = Layout::contiguous([1, 1]);
    let problem = MatmulProblem::new(&element, &element, Epilogue::default()).expect("they fit");
    problem.candidates(&Profile::portable()).iter().map(|candidate| candidate.variant).collect()
}
