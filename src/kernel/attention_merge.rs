//! Merges results of attention over parts of the keys. Twins: `shaders/attention/merge.wesl`, `src/reference/attention_merge.rs`,
//! `tests/device/attention_merge.rs`.

use super::{
    AdapterKind, Binding, Candidate, Kernel, Launch, Operand, Operands, Problem, Profile, Specialization, Verdict,
    fold_grid,
};
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

/// Vectors of a row of so many that an invocation takes. On a software adapter the statistics of the parts cost as much to load as
/// vectors, and more vectors share them.
fn vectors(columns: usize, profile: &Profile) -> usize {
    match profile.kind {
        AdapterKind::Cpu => [8, 4, 3, 2].into_iter().find(|&vectors| columns.is_multiple_of(vectors)).unwrap_or(1),
        AdapterKind::Gpu => 1,
    }
}

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

impl AttentionMergeProblem {
    /// Why rows can't be taken in vectors.
    fn refuses_vectors(&self) -> Option<String> {
        let [parts, _, width] = self.sizes().ok()?;
        if width == 0 || !width.is_multiple_of(4) {
            return Some(format!("rows of {width}, which are no whole vectors of 4"));
        }
        (parts == 0).then(|| "there is no part".into())
    }
}

impl Problem for AttentionMergeProblem {
    fn family(&self) -> &'static str {
        "attention_merge"
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        let candidate = |variant: &'static str, reason: &'static str, refusal: Option<String>| match refusal {
            None => Candidate::usable(variant, reason),
            Some(refusal) => Candidate::refused(variant, refusal),
        };
        let fault = self.refusal(profile);
        vec![
            candidate(
                "vec",
                "whole vectors; the kernel is bound by memory",
                fault.clone().or_else(|| self.refuses_vectors()),
            ),
            candidate("plain", "an element of out an invocation", fault),
        ]
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        let candidates = self.candidates(profile);
        let Some(candidate) = candidates.iter().find(|candidate| candidate.variant == variant) else {
            let text = format!("there is no variant `{variant}`; there are `vec` and `plain`");
            return Err(Error::op("attention_merge", text));
        };
        if let Verdict::Refused(reason) = &candidate.verdict {
            let reasons = vec![format!("{variant}: {reason}")];
            return Err(Error::NoVariant { family: "attention_merge", reasons });
        }
        let [parts, rows, width] = self.sizes()?;
        let (source, params, workgroups) = if variant == "vec" {
            let columns = width / 4;
            let vectors = vectors(columns, profile);
            let source =
                Specialization::new("attention::merge_vec").value("VECTORS", vectors).region("LSE", self.lse).trusted();
            let workgroups = ((rows * columns / vectors) as u64).div_ceil(WORKGROUP);
            (source, vec![parts, rows, columns, 0], workgroups)
        } else {
            let source = Specialization::new("attention::merge").region("LSES", true).region("LSE", self.lse);
            // A row without elements still has an lse.
            let workgroups = ((rows * width.max(1)) as u64).div_ceil(WORKGROUP);
            // All rows are those of one head of one item.
            (source, vec![workgroups as usize, parts, 1, rows, rows, width, 0, 0, 0, width, 1, 0, 0, 1], workgroups)
        };
        let outputs = [Operand::Output(0)].into_iter().chain(self.lse.then_some(Operand::Output(1)));
        let inputs = [Operand::Input(0), Operand::Input(1)].map(Binding::read);
        Ok(Kernel {
            launches: vec![Launch {
                label: variant.into(),
                source: source.source()?,
                bindings: inputs.into_iter().chain(outputs.map(Binding::write)).collect(),
                params: params.into_iter().map(|n| n as u32).collect(),
                grid: fold_grid(workgroups, profile, "attention_merge")?,
                flops: (2 * parts * rows * width) as u64,
                exponentials: (parts * rows) as u64,
                bytes: (4 * (parts + 1) * rows * (width + 1)) as u64,
            }],
            scratch: Vec::new(),
        })
    }

    fn summary(&self) -> String {
        format!("{}{}", self.outs, if self.lse { " +lse" } else { "" })
    }
}

impl AttentionMergeProblem {
    /// Of [`Op::AttentionMerge`](crate::graph::Op::AttentionMerge).
    pub(super) fn of(operands: &mut Operands) -> Result<Self> {
        operands.widen_narrow();
        Ok(AttentionMergeProblem { outs: operands.shape(0).clone(), lse: operands.wants(1) })
    }
}
