//! Attention over parts of the keys, joined. Twins: `shaders/attention_merge.wgsl`, `src/reference/attention_merge.rs`,
//! `tests/attention_merge.rs`.

use super::{Binding, Candidate, Kernel, Launch, Operand, Problem, Profile, Specialization, fold_grid};
use crate::{Error, Result, Shape};

/// Results of attention over parts of the keys as the result over all; see
/// [`Op::AttentionMerge`](crate::graph::Op::AttentionMerge). Inputs: outs, lses. Outputs: out, and lse if it is asked for. All
/// f32 and dense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionMergeProblem {
    /// The shape of outs, `[P, …, Dv]`; lses are `[P, …]`.
    pub outs: Shape,
    /// Whether output 1 is the log-sum-exp.
    pub lse: bool,
}

const WORKGROUP: u64 = 64;

impl AttentionMergeProblem {
    /// Parts, rows of each, and Dv.
    fn sizes(&self) -> Result<[usize; 3]> {
        self.outs.checked_elements("attention_merge")?;
        match &self.outs[..] {
            [parts, rows @ .., width] => Ok([*parts, rows.iter().product(), *width]),
            _ => Err(Error::shape("attention_merge", "outs", &self.outs, "[P, …, Dv]")),
        }
    }

    /// An invocation goes through the parts twice, which a driver may end; see [`Profile::loop_rounds`].
    fn refusal(&self, profile: &Profile) -> Option<String> {
        let parts = match self.sizes() {
            Ok([parts, ..]) => parts as u64,
            Err(error) => return Some(error.to_string()),
        };
        let most = profile.loop_rounds()?;
        (2 * parts + 2 > most).then(|| format!("{parts} parts, the driver ends loops after {most} rounds"))
    }
}

impl Problem for AttentionMergeProblem {
    fn family(&self) -> &'static str {
        "attention_merge"
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        vec![match self.refusal(profile) {
            None => Candidate::usable("plain", "an element of out an invocation; the kernel is bound by memory"),
            Some(reason) => Candidate::refused("plain", reason),
        }]
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        if variant != "plain" {
            return Err(Error::op("attention_merge", format!("there is no variant `{variant}`; there is `plain`")));
        }
        if let Some(reason) = self.refusal(profile) {
            return Err(Error::NoVariant { family: "attention_merge", reasons: vec![reason] });
        }
        let [parts, rows, width] = self.sizes()?;
        // A row without elements still has an lse.
        let workgroups = ((rows * width.max(1)) as u64).div_ceil(WORKGROUP);
        let source = Specialization::new("attention_merge", include_str!("../../shaders/attention_merge.wgsl"))
            .region("LSES", true)
            .region("LSE", self.lse)
            .source()?;
        // All rows are those of one head of one item.
        let params = [workgroups as usize, parts, 1, rows, rows, width, 0, 0, 0, width, 1, 0, 0, 1];
        let outputs = [Operand::Output(0)].into_iter().chain(self.lse.then_some(Operand::Output(1)));
        let inputs = [Operand::Input(0), Operand::Input(1)].map(Binding::read);
        Ok(Kernel {
            launches: vec![Launch {
                label: "plain".into(),
                source,
                bindings: inputs.into_iter().chain(outputs.map(Binding::write)).collect(),
                params: params.map(|n| n as u32).to_vec(),
                grid: fold_grid(workgroups, profile, "attention_merge")?,
                flops: (2 * parts * rows * width) as u64,
                bytes: (4 * (parts + 1) * rows * (width + 1)) as u64,
            }],
            scratch: Vec::new(),
        })
    }

    fn summary(&self) -> String {
        format!("{}{}", self.outs, if self.lse { " +lse" } else { "" })
    }
}
