//! Results in f32 that a launch of their own rounds: where narrow elements of an output share words.

use super::problem::{Arg, Instr, PointwiseProblem};
use crate::{
    DType, Layout, Result,
    kernel::{Candidate, Launch, Operand, Problem, Profile, access::elems::Elems, buffer_bytes},
};

/// Where a launch writes the elems of an output.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Store {
    output: usize,
    /// Of the output.
    dtype: DType,
    elements: usize,
    /// What is written: the output, or a workspace buffer of f32 in its place.
    pub(in crate::kernel) operand: Operand,
    /// How it is written.
    pub(in crate::kernel) elems: Elems,
}

impl Store {
    /// Single elements of a narrow output share words: they are written to another workspace buffer.
    pub(in crate::kernel) fn new(
        output: usize,
        dtype: DType,
        packed: bool,
        elements: usize,
        workspace: &mut Vec<u64>,
    ) -> Self {
        let direct =
            Store { output, dtype, elements, operand: Operand::Output(output), elems: Elems { dtype, packed } };
        if direct.elems.own_words() {
            return direct;
        }
        workspace.push(buffer_bytes(DType::F32, elements));
        let operand = Operand::Workspace(workspace.len() - 1);
        Store { operand, elems: Elems { dtype: DType::F32, packed }, ..direct }
    }

    /// The launches that round what was written to a workspace buffer, if it was.
    pub(in crate::kernel) fn finish(self, profile: &Profile) -> Result<Vec<Launch>> {
        if let Operand::Output(_) = self.operand {
            return Ok(Vec::new());
        }
        round(self.dtype, self.elements, self.operand, self.output, profile)
    }
}

/// The launches that round the f32 of a buffer to a narrow output of as many elements.
pub(in crate::kernel) fn round(
    dtype: DType,
    elements: usize,
    wide: Operand,
    output: usize,
    profile: &Profile,
) -> Result<Vec<Launch>> {
    let dense = Layout::contiguous([elements]);
    let cast = Instr::Cast(dtype, Arg::Operand(0));
    let problem = PointwiseProblem::new(dense.shape.clone(), dtype, vec![(DType::F32, dense)], vec![cast]);
    let variant = problem.candidates(profile).into_iter().find(Candidate::is_usable);
    let mut launches = problem.kernel(variant.map_or("", |candidate| candidate.variant), profile)?.launches;
    for launch in &mut launches {
        launch.label = format!("round to {dtype}");
        for binding in &mut launch.bindings {
            match binding.operand {
                Operand::Input(_) => binding.operand = wide,
                Operand::Output(_) => binding.operand = Operand::Output(output),
                Operand::Workspace(_) => {}
            }
        }
    }
    Ok(launches)
}
