//! Attention over parts of the keys, merged: a family of its own, and the launch after a split of the keys.
//!
//! Twins: `shaders/attention/merge*.wesl`, `src/reference/attention_merge.rs`, `tests/device/attention_merge.rs`.

use crate::{
    Error, Result, Shape,
    kernel::{
        AdapterKind, Binding, Candidate, Kernel, Launch, Operand, Operands, Parameters, Problem, Profile,
        Specialization, fold_grid,
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

    fn kernel(&self, label: &str, source: Specialization, parameters: &Parameters, workgroups: u64) -> Result<Kernel> {
        let source = source.region("LSE", self.lse).source()?;
        let outputs = [Operand::Output(0)].into_iter().chain(self.lse.then_some(Operand::Output(1)));
        let inputs = [Operand::Input(0), Operand::Input(1)].map(Binding::read);
        let Setup { parts, rows, dv, .. } = *self;
        Ok(Kernel {
            launches: vec![Launch {
                label: label.into(),
                params: source.words(parameters)?,
                source,
                bindings: inputs.into_iter().chain(outputs.map(Binding::write)).collect(),
                grid: fold_grid(workgroups, self.profile, FAMILY)?,
                flops: (2 * parts * rows * dv) as u64,
                exponentials: (parts * rows) as u64,
                bytes: (4 * (parts + 1) * rows * (dv + 1)) as u64,
            }],
            workspace: Vec::new(),
        })
    }
}

/// Invocations of a workgroup, as in the shaders.
pub(super) const WG: u64 = 64;

/// What `merge.wesl` merges.
pub(super) struct Merge {
    pub(super) splits: usize,
    pub(super) heads: usize,
    /// Of a head of an item, and of all heads of all items.
    pub(super) rows: usize,
    pub(super) all_rows: usize,
    pub(super) dv: usize,
    /// First element, and steps of the axes (B, H, T, D).
    pub(super) out: (usize, [isize; 4]),
    /// Steps of the axes (B, H, T).
    pub(super) lse: [usize; 3],
}

impl Merge {
    pub(super) fn parameters(self, workgroups: u64) -> Parameters {
        let (out_offset, [out_b, out_h, out_t, out_d]) = self.out;
        let [lse_b, lse_h, lse_t] = self.lse;
        Parameters::new()
            .set("workgroups", workgroups as u32)
            .set("splits", self.splits)
            .set("heads", self.heads)
            .set("rows", self.rows)
            .set("all_rows", self.all_rows)
            .set("dv", self.dv)
            .set("out_offset", out_offset)
            .set("out_b", out_b)
            .set("out_h", out_h)
            .set("out_t", out_t)
            .set("out_d", out_d)
            .set("lse_b", lse_b)
            .set("lse_h", lse_h)
            .set("lse_t", lse_t)
    }
}

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
        let out = (0, [0, 0, dv as isize, 1]);
        let merge = Merge { splits: parts, heads: 1, rows, all_rows: rows, dv, out, lse: [0, 0, 1] };
        setup.kernel("plain", source, &merge.parameters(workgroups), workgroups)
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
        let parameters = Parameters::new().set("parts", parts).set("rows", rows).set("columns", columns);
        setup.kernel("vec", source, &parameters, workgroups)
    }
}
