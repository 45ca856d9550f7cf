//! Sum, mean, maximum and minimum over axes. Twins: `shaders/reduce/`, `src/reference/reduce.rs`, `tests/device/reduce.rs`.

mod launch;
mod problem;
mod setup;

use super::{Candidate, Kernel, Problem, Profile, rows};
use crate::Result;
use setup::Setup;

pub use problem::ReduceProblem;

impl Problem for ReduceProblem {
    fn family(&self) -> &'static str {
        Self::FAMILY
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        rows::candidates(Setup::new(self, profile))
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        rows::kernel(Setup::new(self, profile), variant)
    }

    fn summary(&self) -> String {
        format!("{} {} {} axes={:?}", self.function.name(), self.dtype, self.x.shape, self.axes)
    }
}
