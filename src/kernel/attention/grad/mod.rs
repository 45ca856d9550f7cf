//! The gradient of attention, fused: scores and weights are computed again from q, k and the log-sum-exp of each row, and never
//! stored. One launch goes through rows of q, another through rows of k and v. Twins: `shaders/attention_grad/`,
//! `src/reference/attention_grad.rs`, `tests/device/attention_grad.rs`.
//!
//! The formula is documented at [`Op::AttentionGrad`](crate::graph::Op::AttentionGrad).

mod odd;
mod panel;
mod plain;
mod problem;
mod setup;
mod tiled;

use crate::{
    Result,
    kernel::{
        Candidate, Kernel, Problem, Profile,
        variant::{self, Variant},
    },
};
use setup::Setup;

pub use problem::AttentionGradProblem;

/// Every variant. Those of one rank are in this order.
static VARIANTS: &[&dyn for<'a> Variant<Setup<'a>>] = &[&tiled::Tiled, &plain::Plain, &panel::Panel];

impl Problem for AttentionGradProblem {
    fn family(&self) -> &'static str {
        Self::FAMILY
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        match Setup::new(self, profile) {
            Ok(setup) => variant::candidates(VARIANTS, &setup),
            Err(fault) => variant::refused(VARIANTS, &fault),
        }
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        variant::kernel(VARIANTS, variant, &Setup::new(self, profile)?)
    }

    fn summary(&self) -> String {
        let names = ["dq", "dk", "dv", "dbias", "dslopes"];
        let wanted = names.into_iter().zip(self.wanted).filter(|(_, wanted)| *wanted).map(|(name, _)| name);
        format!("{} → {}", self.attention.summary(), wanted.collect::<Vec<_>>().join(" "))
    }
}
