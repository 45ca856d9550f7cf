//! Rotary position embedding.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Operands, Parameters, Problem, Profile, Specialization, fold_grid,
    variant::{Needs, Only},
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

const PLAIN: Only = Only { family: "rotary", reason: "one feature an invocation; the kernel is bound by memory" };

impl Problem for RotaryProblem {
    fn family(&self) -> &'static str {
        PLAIN.family
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        PLAIN.candidates(Ok(Needs::default()), profile)
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        PLAIN.check(variant, Ok(Needs::default()), profile)?;
        let elements = self.x.shape.checked_elements(PLAIN.family)?;
        let (&[b, h, t, d], &[rows, pairs], &[stride_b, stride_h, stride_t, stride_d]) =
            (&self.x.shape[..], &self.table[..], &self.x.strides[..])
        else {
            return Err(Error::op(PLAIN.family, format!("`x` is {}, the tables are {}", self.x.shape, self.table)));
        };
        if 2 * pairs > d || (rows == 0 && elements > 0) {
            return Err(Error::op(PLAIN.family, format!("tables {} do not fit rows of {d} features", self.table)));
        }
        let workgroup = profile.plain_workgroup();
        let source = Specialization::new("rotary::plain")
            .value("WORKGROUP", workgroup)
            .value("INTERLEAVED", self.interleaved)
            .source()?;
        let parameters = Parameters::new()
            .set("elements", elements)
            .set("heads", h)
            .set("tokens", t)
            .set("width", d)
            .set("pairs", pairs)
            .set("rows", rows)
            .set("offset", self.x.offset)
            .set("stride_b", stride_b)
            .set("stride_h", stride_h)
            .set("stride_t", stride_t)
            .set("stride_d", stride_d);
        Ok(Kernel {
            launches: vec![Launch {
                label: Only::NAME.into(),
                params: source.words(&parameters)?,
                source,
                bindings: vec![
                    Binding::read(Operand::Input(0)),
                    Binding::read(Operand::Input(1)),
                    Binding::read(Operand::Input(2)),
                    Binding::read(Operand::Input(3)),
                    Binding::write(Operand::Output(0)),
                ],
                grid: fold_grid((elements as u64).div_ceil(workgroup.into()), profile, PLAIN.family)?,
                flops: (3 * b * h * t * 2 * pairs) as u64,
                exponentials: 0,
                bytes: (8 * elements + 8 * rows.min(b * t) * pairs + 4 * b * t) as u64,
            }],
            workspace: Vec::new(),
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
