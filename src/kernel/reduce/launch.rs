//! The dispatches of a reduction.

use super::{
    super::{
        Binding, Kernel, Launch, Operand, Parameters, Specialization,
        access::{axes::Axis, long, strided::touched},
        rows::{Deal, MERGE, Pack, RowSetup, Rows, SHARES},
        variant::Needs,
    },
    problem::ReduceProblem,
    setup::{EIGHT, SCALAR, Setup, Stage},
};
use crate::{DType, Result, graph::Reduce};

impl RowSetup for Setup<'_> {
    fn rows(&self) -> &Rows {
        &self.rows
    }

    fn whole(&self, deal: Deal) -> Result<Kernel> {
        Ok(Kernel { launches: vec![self.launch(&self.stage, deal, deal.name())?], workspace: Vec::new() })
    }

    fn shares(&self) -> (usize, Needs) {
        let [first, second] = self.stages();
        let needs = self.dealt(&first).1.and(self.dealt(&second).1);
        (first.shares, Needs { workspace: first.stat_bytes() as u64, ..needs })
    }

    fn split(&self) -> Result<Kernel> {
        let [first, second] = self.stages();
        Ok(Kernel {
            launches: vec![
                self.launch(&first, self.dealt(&first).0, SHARES)?,
                self.launch(&second, self.dealt(&second).0, MERGE)?,
            ],
            workspace: vec![first.stat_bytes() as u64],
        })
    }
}

/// Whether a stat is NaN, as WGSL: by its bits.
fn is_nan(stat: &str) -> String {
    format!("((bitcast<stat_bits>({stat}) & stat_bits(0x7fffffffu)) > stat_bits(0x7f800000u))")
}

/// The body of `merge_lanes` for a maximum or minimum of floats: of their ranks as u32, since drivers may drop a NaN. That of a NaN is
/// the highest, or the lowest.
fn of_ranks(function: Reduce, of_lanes: &str) -> String {
    let odd = if function == Reduce::Max { "0xffffffffu" } else { "0u" };
    format!(
        "let bits = bitcast<stat_bits>(partial); let high = stat_bits(0x80000000u); \
         let rank = select(bits | high, ~bits, bits >= high); \
         let best = {of_lanes}(select(rank, stat_bits({odd}), {})); \
         return bitcast<stat>(select(~best, best ^ high, best >= high));",
        is_nan("partial")
    )
}

impl Setup<'_> {
    fn launch(&self, stage: &Stage, deal: Deal, label: &str) -> Result<Launch> {
        let ReduceProblem { function, dtype, x, axes } = self.problem;
        let shader = match deal {
            Deal::Plain(_) => "reduce::plain",
            Deal::Workgroup(_) => "reduce::workgroup",
            Deal::Subgroup(_) => "reduce::subgroup",
        };
        let (merge, of_lanes) = match function {
            Reduce::Sum | Reduce::Mean => ("a + b", "subgroupAdd"),
            Reduce::Max => ("max(a, b)", "subgroupMax"),
            Reduce::Min => ("min(a, b)", "subgroupMin"),
        };
        // Sums are NaN by themselves.
        let nans = *dtype == DType::F32 && matches!(function, Reduce::Max | Reduce::Min);
        let merge_stats =
            if nans { format!("select({merge}, a + b, {} | {})", is_nan("a"), is_nan("b")) } else { merge.into() };
        // All reduced axes but the innermost; one of size 1 if there is no other.
        let (inner, outer) = match stage.reduced.split_last() {
            Some((inner, outer)) => (*inner, outer),
            None => (Axis { size: 1, strides: [0] }, &[][..]),
        };
        // Of a line that begins within a word, nobody knows here how many words are whole.
        let deal = if stage.ends { deal.without_chunks() } else { deal };
        let divides = *function == Reduce::Mean && stage.last;
        let mut shader = deal
            .slots(Specialization::new(shader).on(self.profile.backend))
            .value("KEPT_AXES", stage.kept.len() - 1)
            .value("OUTER_AXES", outer.len().saturating_sub(1))
            .value("FLAT", outer.is_empty())
            .value("WIDTH", stage.width)
            .region("ENDS", stage.ends)
            .region("MEAN", divides)
            .region("NANS", nans)
            .ty("scalar", dtype.name())
            .ty("elem", stage.elem)
            .ty("stat", stage.stat)
            .function("merge", format!("fn merge(a: elem, b: elem) -> elem {{ return {merge}; }}"))
            .function("merge_stats", format!("fn merge_stats(a: stat, b: stat) -> stat {{ return {merge_stats}; }}"));
        if stage.stat != SCALAR {
            shader = shader.ty("stat_bits", "vec4<u32>");
        }
        if stage.pack == Some(Pack::Along) {
            let pairs = if stage.width == 2 {
                "merge_stats(v.x, v.y)"
            } else {
                "merge_stats(merge_stats(v.x, v.y), merge_stats(v.z, v.w))"
            };
            shader = shader.function("fold", format!("fn fold(v: elem) -> stat {{ return {pairs}; }}"));
            let total = if stage.width == 2 { "v.x + v.y" } else { "(v.x + v.y) + (v.z + v.w)" };
            shader = shader.function("total", format!("fn total(v: elem) -> stat {{ return {total}; }}"));
        }
        // Sizes are of no use but for a NaN.
        let sizes = |of: &str| if nans { format!("abs({of})") } else { of.to_string() };
        let load = if stage.width == EIGHT {
            let (word, [low, high]) = long::eight(*dtype);
            shader = shader.ty("word", word);
            let sizes = format!("{} + {}", sizes("low"), sizes("high"));
            format!("let w = x[i]; let low = {low}; let high = {high}; return Loaded(merge(low, high), {sizes});")
        } else {
            format!("let v = x[i]; return Loaded(v, {});", sizes("v"))
        };
        shader = shader.function("load", format!("fn load(i: u32) -> Loaded {{ {load} }}"));
        if matches!(deal, Deal::Subgroup(_)) {
            let body = if nans { of_ranks(*function, of_lanes) } else { format!("return {of_lanes}(partial);") };
            shader = shader.function("merge_lanes", format!("fn merge_lanes(partial: stat) -> stat {{ {body} }}"));
        }
        if divides {
            shader = shader.function("finish", "fn finish(v: stat) -> stat { return v / p.divisor; }");
        }

        let divisor: usize = axes.iter().map(|&axis| x.shape[axis]).product();
        let outer = if outer.is_empty() { &[Axis { size: 1, strides: [0] }] } else { outer };
        let parameters = Parameters::new()
            .set("stats", stage.stats())
            .set("shares", stage.shares)
            .set("elems", stage.elems)
            .set("elems_of_share", stage.share())
            .and(deal.parameters())
            .set("identity", self.problem.identity())
            .set("divisor", divisor.max(1) as f32)
            .set("x", stage.offset)
            .set("inner", inner.size)
            .set("x_inner", inner.strides[0])
            .and(Axis::parameters(&stage.kept, ["x"], "kept", "r"))
            .and(Axis::parameters(outer, ["x"], "outer", "c"));
        let source = shader.source()?;
        let read = match stage.from {
            Operand::Input(_) => 4 * touched(x),
            Operand::Output(_) | Operand::Workspace(_) => 4 * stage.elements() as u64,
        };
        let ends = stage.ends.then(|| Binding::read(stage.from));
        let bindings = [Some(Binding::read(stage.from)), ends, Some(Binding::write(stage.to))];
        Ok(Launch {
            label: label.into(),
            params: source.words(&parameters)?,
            source,
            bindings: bindings.into_iter().flatten().collect(),
            grid: deal.grid(ReduceProblem::FAMILY, stage.stats(), self.profile)?,
            flops: stage.elements() as u64,
            exponentials: 0,
            bytes: read + stage.stat_bytes() as u64,
        })
    }
}
