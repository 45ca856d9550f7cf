//! Rotary position embedding. Twins: `shaders/rotary.wgsl`, `src/reference/rotary.rs`, `tests/rotary.rs`.

use super::{
    AdapterKind, Binding, Candidate, Kernel, Launch, Operand, Operands, Problem, Profile, Specialization, fold_grid,
};
use crate::{Error, Layout, Result, Shape};

/// f32 rows whose features turn pairwise by the angles of their positions; see [`Op::Rotary`](crate::graph::Op::Rotary).
/// Inputs: x, cos, sin, positions (i32). One dense output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotaryProblem {
    /// `[B, H, T, D]`, in any layout.
    pub x: Layout,
    /// `[P, R/2]`: the shape of cos and sin, which are dense. Positions `[B, T]` are dense too.
    pub table: Shape,
    /// Pairs are neighbours, not halves.
    pub interleaved: bool,
}

impl RotaryProblem {
    fn workgroup(profile: &Profile) -> u32 {
        match profile.kind {
            AdapterKind::Gpu => 256.min(profile.limits.workgroup_invocations),
            AdapterKind::Cpu => 64,
        }
    }
}

impl Problem for RotaryProblem {
    fn family(&self) -> &'static str {
        "rotary"
    }

    fn candidates(&self, _: &Profile) -> Vec<Candidate> {
        vec![Candidate::usable("plain", "one feature an invocation; the kernel is bound by memory")]
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        if variant != "plain" {
            return Err(Error::op("rotary", format!("there is no variant `{variant}`; there is `plain`")));
        }
        let elements = self.x.shape.checked_elements("rotary")?;
        let (&[b, h, t, d], &[rows, pairs]) = (&self.x.shape[..], &self.table[..]) else {
            return Err(Error::op("rotary", format!("`x` is {}, the tables are {}", self.x.shape, self.table)));
        };
        if 2 * pairs > d || (rows == 0 && elements > 0) {
            return Err(Error::op("rotary", format!("tables {} do not fit rows of {d} features", self.table)));
        }
        let workgroup = Self::workgroup(profile);
        let source = Specialization::new("rotary::plain")
            .value("WORKGROUP", workgroup)
            .value("INTERLEAVED", self.interleaved)
            .source()?;
        let mut params: Vec<u32> = [elements, h, t, d, pairs, rows, self.x.offset].map(|n| n as u32).to_vec();
        params.extend(self.x.strides.iter().map(|&stride| stride as u32));
        Ok(Kernel {
            launches: vec![Launch {
                label: "plain".into(),
                source,
                bindings: vec![
                    Binding::read(Operand::Input(0)),
                    Binding::read(Operand::Input(1)),
                    Binding::read(Operand::Input(2)),
                    Binding::read(Operand::Input(3)),
                    Binding::write(Operand::Output(0)),
                ],
                params,
                grid: fold_grid((elements as u64).div_ceil(workgroup.into()), profile, "rotary")?,
                flops: (3 * b * h * t * 2 * pairs) as u64,
                exponentials: 0,
                bytes: (8 * elements + 8 * rows.min(b * t) * pairs + 4 * b * t) as u64,
            }],
            scratch: Vec::new(),
        })
    }

    fn summary(&self) -> String {
        let kind = if self.interleaved { "interleaved" } else { "halves" };
        format!("{} R={} {kind}", self.x.shape, self.table.last().map_or(0, |pairs| 2 * pairs))
    }
}

impl RotaryProblem {
    /// Of [`Op::Rotary`](crate::graph::Op::Rotary).
    pub(super) fn of(interleaved: bool, operands: &mut Operands) -> Result<Self> {
        operands.widen_narrow();
        Ok(RotaryProblem { x: operands.layout(0), table: operands.shape(1).clone(), interleaved })
    }
}
