//! Dense copies, concatenation and padding.

mod assembly;
mod plain;
mod problem;
mod square;
mod tiled;
mod transposed;

use super::{
    Candidate, Kernel, Problem, Profile, blocks,
    variant::{self, Only, Variant},
};
use crate::Result;
use assembly::Assembly;
pub use problem::{ConcatProblem, CopyProblem, PadProblem};
use transposed::Setup;

/// Every variant of a copy.
static VARIANTS: &[&dyn for<'a> Variant<Setup<'a>>] = &[&plain::Plain, &square::Square, &tiled::Tiled];
const CONCAT: Only = blocks::only("concat");
const PAD: Only = blocks::only("pad");

impl Problem for CopyProblem {
    fn family(&self) -> &'static str {
        "copy"
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        variant::candidates(VARIANTS, &Setup::new(self, profile))
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        self.input.shape.checked_elements("copy")?;
        variant::kernel(VARIANTS, variant, &Setup::new(self, profile))
    }

    fn summary(&self) -> String {
        format!("{} {} strides {:?}", self.dtype, self.input.shape, self.input.strides)
    }
}

impl Problem for ConcatProblem {
    fn family(&self) -> &'static str {
        CONCAT.family
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        candidates(CONCAT, self.assembly(), profile)
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        kernel(CONCAT, &self.assembly()?, variant, profile)
    }

    fn summary(&self) -> String {
        let shapes: Vec<String> = self.inputs.iter().map(|layout| layout.shape.to_string()).collect();
        format!("{} {} along axis {}", self.dtype, shapes.join(" "), self.axis)
    }
}

impl Problem for PadProblem {
    fn family(&self) -> &'static str {
        PAD.family
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        candidates(PAD, self.assembly(), profile)
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        kernel(PAD, &self.assembly()?, variant, profile)
    }

    fn summary(&self) -> String {
        let PadProblem { dtype, input, before, after, value } = self;
        format!("{dtype} {} before {before:?} after {after:?} with {value}", input.shape)
    }
}

fn candidates(only: Only, assembly: Result<Assembly<'_>>, profile: &Profile) -> Vec<Candidate> {
    let needs = assembly.map_err(|fault| fault.to_string()).and_then(|assembly| assembly.needs());
    only.candidates(needs, profile)
}

fn kernel(only: Only, assembly: &Assembly<'_>, variant: &str, profile: &Profile) -> Result<Kernel> {
    assembly.shape.checked_elements(only.family)?;
    only.check(variant, assembly.needs(), profile)?;
    assembly.kernel(profile)
}
