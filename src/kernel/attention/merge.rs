//! Attention over parts of the keys, merged: a family of its own, and the launch after a split of the keys.
//!
//! Twins: `shaders/attention/merge*.wesl`, `src/reference/attention_merge.rs`, `tests/device/attention_merge.rs`.

use crate::{
    Error, Result, Shape,
    kernel::{
        AdapterKind, Binding, Candidate, Kernel, Launch, Operand, Operands, Problem, Profile, Specialization,
        fold_grid,
        variant::{self, Needs, Variant},
    },
};

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

impl AttentionMergeProblem {
    /// Of [`Op::AttentionMerge`](crate::graph::Op::AttentionMerge).
    pub(in crate::kernel) fn of(operands: &mut Operands) -> Result<Self> {
        operands.widen_narrow();
        Ok(AttentionMergeProblem { outs: operands.shape(0).clone(), lse: operands.wants(1) })
    }
}

const FAMILY: &str = "attention_merge";

/// Every variant; one rank.
static VARIANTS: &[&dyn for<'a> Variant<Setup<'a>>] = &[&Vec4, &Plain];

impl Problem for AttentionMergeProblem {
    fn family(&self) -> &'static str {
        FAMILY
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
        format!("{}{}", self.outs, if self.lse { " +lse" } else { "" })
    }
}

/// A merge, checked, on a device.
#[derive(Debug)]
struct Setup<'a> {
    profile: &'a Profile,
    lse: bool,
    /// Parts, rows of each, and Dv.
    parts: usize,
    rows: usize,
    dv: usize,
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = FAMILY;

    fn profile(&self) -> &Profile {
        self.profile
    }
}

impl<'a> Setup<'a> {
    fn new(problem: &AttentionMergeProblem, profile: &'a Profile) -> Result<Self> {
        let AttentionMergeProblem { outs, lse } = problem;
        outs.checked_elements(FAMILY)?;
        let [parts, rows @ .., dv] = &outs[..] else {
            return Err(Error::shape(FAMILY, "outs", outs, "[P, …, Dv]"));
        };
        Ok(Setup { profile, lse: *lse, parts: *parts, rows: rows.iter().product(), dv: *dv })
    }

    /// An invocation goes through the parts twice.
    fn needs(&self) -> Needs {
        let (buffers, rounds) = (3 + u64::from(self.lse), 2 * self.parts as u64 + 2);
        Needs { invocations: WG, buffers, rounds, ..Needs::default() }
    }

    fn kernel(&self, label: &str, source: Specialization, params: Vec<usize>, workgroups: u64) -> Result<Kernel> {
        let outputs = [Operand::Output(0)].into_iter().chain(self.lse.then_some(Operand::Output(1)));
        let inputs = [Operand::Input(0), Operand::Input(1)].map(Binding::read);
        let Setup { parts, rows, dv, .. } = *self;
        Ok(Kernel {
            launches: vec![Launch {
                label: label.into(),
                source: source.region("LSE", self.lse).source()?,
                bindings: inputs.into_iter().chain(outputs.map(Binding::write)).collect(),
                params: params.into_iter().map(|n| n as u32).collect(),
                grid: fold_grid(workgroups, self.profile, FAMILY)?,
                flops: (2 * parts * rows * dv) as u64,
                exponentials: (parts * rows) as u64,
                bytes: (4 * (parts + 1) * rows * (dv + 1)) as u64,
            }],
            scratch: Vec::new(),
        })
    }
}

/// Invocations of a workgroup, as in the shaders.
pub(super) const WG: u64 = 64;

/// An element of out an invocation.
#[derive(Debug)]
struct Plain;

impl Variant<Setup<'_>> for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn rank(&self, _: &Setup<'_>) -> u32 {
        0
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "an element of out an invocation".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        Ok(setup.needs())
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let Setup { parts, rows, dv, .. } = *setup;
        let source = Specialization::new("attention::merge").region("LSES", true);
        // A row without elements still has an lse.
        let workgroups = ((rows * dv.max(1)) as u64).div_ceil(WG);
        // All rows are those of one head of one item.
        let params = vec![workgroups as usize, parts, 1, rows, rows, dv, 0, 0, 0, dv, 1, 0, 0, 1];
        setup.kernel("plain", source, params, workgroups)
    }
}

/// Vectors of a row an invocation.
#[derive(Debug)]
struct Vec4;

impl Variant<Setup<'_>> for Vec4 {
    fn name(&self) -> &'static str {
        "vec"
    }

    fn rank(&self, _: &Setup<'_>) -> u32 {
        0
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "whole vectors; the kernel is bound by memory".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        if setup.dv == 0 || !setup.dv.is_multiple_of(4) {
            return Err(format!("rows of {}, which are no whole vectors of 4", setup.dv));
        }
        if setup.parts == 0 {
            return Err("there is no part".into());
        }
        Ok(setup.needs())
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let Setup { parts, rows, dv, .. } = *setup;
        let columns = dv / 4;
        // On a software adapter the statistics of the parts cost as much to load as vectors, and more vectors share them.
        let vectors = match setup.profile.kind {
            AdapterKind::Cpu => [8, 4, 3, 2].into_iter().find(|&vectors| columns.is_multiple_of(vectors)).unwrap_or(1),
            AdapterKind::Gpu => 1,
        };
        let source = Specialization::new("attention::merge_vec").value("VECTORS", vectors).trusted();
        let workgroups = ((rows * columns / vectors) as u64).div_ceil(WG);
        setup.kernel("vec", source, vec![parts, rows, columns, 0], workgroups)
    }
}
