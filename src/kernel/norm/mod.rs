//! Layer norm and RMS norm, with the residual addition before them. Twins: `shaders/norm/`, `src/reference/norm.rs`,
//! `tests/device/norm.rs`.

mod launch;
mod of;
mod problem;
mod setup;

use super::{Candidate, Kernel, Problem, Profile, access::narrow::narrow_ones, rows};
use crate::Result;
use setup::{Merged, Setup};

pub(crate) use of::Norm;
pub use problem::{NormDTypes, NormKind, NormProblem};

impl Problem for NormProblem {
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
        let first = self.x.shape.rank().saturating_sub(self.axes);
        let (rows, width) = self.x.shape.split_at(first);
        let (rows, width): (usize, usize) = (rows.iter().product(), width.iter().product());
        let kind = if self.kind == NormKind::Layer { "layer" } else { "rms" };
        let options = [
            ("+residual", self.residual.is_some()),
            ("+weight", self.weight.is_some()),
            ("+bias", self.bias.is_some()),
            ("→sum", self.sum),
            ("→mean", self.mean),
            ("→rstd", self.rstd),
        ];
        let options = options.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_string());
        let there = [true, self.residual.is_some(), self.weight.is_some(), self.bias.is_some(), self.sum, true];
        let stored = self.dtypes.named().into_iter().zip(there).filter(|(_, there)| *there);
        let narrow = narrow_ones(stored.map(|(operand, _)| operand));
        let words: String = options.chain(narrow).map(|word| format!(" {word}")).collect();
        format!("{kind} rows={rows} width={width}{words}")
    }

    fn allows_in_place(&self, input: usize) -> bool {
        Merged::new(self).is_ok_and(|merged| merged.fits_in_place(self, input))
    }

    fn set_in_place(&mut self, input: usize) {
        self.in_place = Some(input);
    }
}
