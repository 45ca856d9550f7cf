//! Fused attention, forward: one pass over the keys with an online softmax, no score ever in memory; and the merge of results
//! over parts of the keys.
//!
//! The formula, the masks and the result of a fully masked row are documented at [`graph::Attention`](crate::graph::Attention).

mod block_mask;
mod coop;
mod grad;
mod mend;
mod merge;
mod of;
mod panel;
mod partials;
mod plain;
mod problem;
mod sequences;
mod setup;
mod sizes;
mod split_kv;
mod storage;
mod tiled;

use super::{
    Candidate, Kernel, Problem, Profile,
    access::narrow::narrow_ones,
    variant::{self, Variant},
};
use crate::{Result, graph::AttentionOperand};
use panel::Depth;
use setup::Setup;

pub use grad::AttentionGradProblem;
pub use merge::AttentionMergeProblem;
pub use problem::{AttentionDTypes, AttentionProblem};

/// Every variant. Those of one rank are in this order.
static VARIANTS: &[&dyn for<'a> Variant<Setup<'a>>] = &[
    &tiled::Tiled,
    &block_mask::Masked,
    &split_kv::SplitKv,
    &plain::Plain,
    &Depth::Usual,
    &Depth::Deep,
    &coop::OF_16,
    &coop::OF_8,
];

impl Problem for AttentionProblem {
    fn family(&self) -> &'static str {
        "attention"
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
        let options = &self.options;
        let mut words = vec![format!("q{} k{} v{}", self.q.shape, self.k.shape, self.v.shape)];
        let there = |name| name != "bias" || self.operand(AttentionOperand::Bias).is_some();
        words.extend(narrow_ones(self.dtypes.named().into_iter().filter(|&(name, _)| there(name))));
        if options.causal {
            words.push("+causal".into());
        }
        if options.window.left.is_some() || options.window.right.is_some() {
            let side = |size: Option<u32>| size.map_or("∞".into(), |size| size.to_string());
            words.push(format!("+window({}, {})", side(options.window.left), side(options.window.right)));
        }
        if options.softcap.is_some() {
            words.push("+softcap".into());
        }
        words.extend(options.operands.iter().map(|operand| format!("+{}", operand.name())));
        let functions = [("score_mod", options.score_mods.len()), ("mask_mod", options.mask_mods.len())];
        words.extend(functions.into_iter().flat_map(|(name, count)| (0..count).map(move |_| format!("+{name}"))));
        words.extend(self.lse.then(|| "+lse".into()));
        words.extend(self.status.then(|| "+status".into()));
        words.join(" ")
    }
}
