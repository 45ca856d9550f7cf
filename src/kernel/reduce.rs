//! Sum, mean, maximum and minimum over axes. Twins: `shaders/reduce*.wgsl`, `tests/reduce.rs`.

use super::{
    AdapterKind, Binding, Candidate, Kernel, Launch, Operand, Operands, Problem, Profile, Specialization,
    axes::Axis,
    long,
    rows::{Deal, Pack, Rows, SPLIT, most_rounds_in_blocks, rounds},
    strided::touched,
};
use crate::{DType, Error, Layout, Result, graph::Reduce};

/// A reduction of an f32, i32 or u32 tensor over any set of its axes; the mean is for f32 alone.
///
/// One input, one output: dense, of the same dtype, in the shape of the axes that are kept (with or without 1 for the
/// reduced ones; that is the same buffer). The order of additions is fixed and depends on variant and device; integers wrap.
/// Over no elements the result is that of [`Reduce`].
///
/// `x` may have any strides.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceProblem {
    /// What is computed.
    pub function: Reduce,
    /// The element type of input and output.
    pub dtype: DType,
    /// Where the input lies.
    pub x: Layout,
    /// The axes that are reduced, sorted, without repeats.
    pub axes: Vec<usize>,
}

impl ReduceProblem {
    /// `function` of `x` over `axes`.
    pub fn new(function: Reduce, dtype: DType, x: Layout, axes: impl Into<Vec<usize>>) -> Self {
        ReduceProblem { function, dtype, x, axes: axes.into() }
    }
}

/// Elements that are read at once where words of 64 bits pay.
const EIGHT: usize = 8;
/// Elements that a line has at least if what it has of whole words is read so, wherever it begins.
const LEAST_WITH_ENDS: usize = 64;

/// A [`ReduceProblem`] that holds together, with its axes merged.
struct Plan {
    rows: Rows,
    stage: Stage,
}

/// A reduction of a matrix of elems: all of it, or one of the two stages of the split variant.
#[derive(Clone)]
struct Stage {
    from: Operand,
    to: Operand,
    /// Axes of the results, and those that are reduced, outermost first. Strides in elems.
    kept: Vec<Axis<1>>,
    reduced: Vec<Axis<1>>,
    /// The first elem.
    offset: usize,
    pack: Option<Pack>,
    /// Elements that lie in an elem: of eight, two halves are joined as they are read.
    width: usize,
    /// Whether lines may begin and end within a word. Strides, sizes and offset are then those of elements.
    ends: bool,
    /// What an elem is, and what is left when it is reduced.
    elem: &'static str,
    stat: &'static str,
    results: usize,
    elems: usize,
    shares: usize,
    /// Whether its results are those of the problem.
    last: bool,
}

impl Stage {
    fn share(&self) -> usize {
        self.elems.div_ceil(self.shares)
    }

    /// Elements of a result.
    fn elements(&self) -> usize {
        if self.ends { self.elems } else { self.elems * self.width }
    }

    fn stat_bytes(&self) -> usize {
        if self.stat == "scalar" { 4 } else { 4 * Pack::ELEMENTS }
    }

    /// The rounds that the loops of the plain shader take.
    fn plain_rounds(&self) -> usize {
        let share = self.share();
        let inner = self.reduced.last().map_or(1, |axis| axis.size);
        if self.ends {
            return 4 + rounds_of_ends(self.width) + most_rounds_in_blocks(share / self.width);
        }
        // A run for each piece of the innermost axis, and the loop over them.
        let runs = if self.reduced.len() == 1 { 1 } else { share.div_ceil(inner.max(1)) + 1 };
        1 + runs * (1 + most_rounds_in_blocks(inner.min(share)))
    }
}

/// Rounds of the loops over the elements before and after the whole words of a line.
fn rounds_of_ends(width: usize) -> usize {
    2 * width
}

impl ReduceProblem {
    const FAMILY: &str = "reduce";

    fn plan(&self, profile: &Profile) -> Result<Plan> {
        let Layout { shape, strides, offset } = &self.x;
        let op = self.function.name();
        if !matches!(self.dtype, DType::F32 | DType::I32 | DType::U32) {
            return Err(Error::dtype(op, "x", self.dtype, "f32, i32 or u32 (cast it first)"));
        }
        if self.function == Reduce::Mean && self.dtype != DType::F32 {
            return Err(Error::dtype(op, "x", self.dtype, "f32 (cast it first)"));
        }
        if !self.axes.is_sorted_by(|a, b| a < b) || self.axes.iter().any(|&axis| axis >= shape.rank()) {
            let message = format!("the axes {:?} are not sorted axes of {shape}, each at most once", self.axes);
            return Err(Error::op(op, message));
        }
        shape.checked_elements(op)?;

        let (mut reduced, kept): (Vec<usize>, Vec<usize>) =
            (0..shape.rank()).partition(|axis| self.axes.contains(axis));
        // In whatever order the elements are taken: best as they lie in memory.
        reduced.sort_by_key(|&axis| std::cmp::Reverse(strides[axis].unsigned_abs()));
        let merged = |axes: &[usize]| {
            let sizes: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
            let strides: Vec<isize> = axes.iter().map(|&axis| strides[axis]).collect();
            Axis::merged(&sizes, [&strides])
        };
        let (mut kept, mut reduced) = (merged(&kept), merged(&reduced));

        // Vectors of so many along the last of these axes, if all others allow it.
        let packs = |width: usize, along: &[Axis<1>], others: &[Axis<1>]| {
            let multiple = |axis: &Axis<1>| axis.strides[0] % width as isize == 0;
            along.split_last().is_some_and(|(last, outer)| {
                last.strides == [1]
                    && last.size.is_multiple_of(width)
                    && offset.is_multiple_of(width)
                    && outer.iter().chain(others).all(multiple)
            })
        };
        let side_by_side = kept.last().is_some_and(|axis| axis.strides[0].abs() == 1)
            && reduced.last().is_some_and(|axis| axis.strides[0].abs() != 1);
        let pack = if packs(Pack::ELEMENTS, &reduced, &kept) {
            Some(Pack::Along)
        } else if packs(Pack::ELEMENTS, &kept, &reduced) {
            Some(Pack::Across)
        } else {
            None
        };
        // Where a load takes its time per word. A buffer without elements has room for 16 bytes.
        let pays = profile.kind == AdapterKind::Cpu && !profile.shares_loads();
        let has_eights = pays && long::has_eights(self.dtype, profile) && !shape.contains(&0);
        let widest = if has_eights { EIGHT } else { Pack::ELEMENTS };
        // A GPU reads neighbours together, one by one as well as in words.
        let ends = profile.kind == AdapterKind::Cpu
            && pack.is_none()
            && matches!(reduced[..], [Axis { size, strides: [1] }] if size >= LEAST_WITH_ENDS);
        let (pack, width) = match pack {
            Some(Pack::Along) if packs(widest, &reduced, &kept) => (pack, widest),
            Some(_) => (pack, Pack::ELEMENTS),
            None if ends => (Some(Pack::Along), widest),
            None if profile.kind == AdapterKind::Cpu && packs(2, &reduced, &kept) => (Some(Pack::Along), 2),
            None => (None, 1),
        };
        if let Some(pack) = pack.filter(|_| !ends) {
            let step = |axis: &mut Axis<1>| {
                if axis.strides[0] % width as isize == 0 {
                    axis.strides[0] /= width as isize;
                }
            };
            kept.iter_mut().chain(&mut reduced).for_each(step);
            let packed = if pack == Pack::Along { &mut reduced } else { &mut kept };
            if let Some(last) = packed.last_mut() {
                last.size /= width;
            }
        }
        let of = |axes: &[Axis<1>]| axes.iter().map(|axis| axis.size).product();
        let (results, elems): (usize, usize) = (of(&kept), of(&reduced));
        const VECTOR: &str = "vec4<scalar>";
        let elem = match pack {
            Some(Pack::Along) if width == 2 => "vec2<scalar>",
            Some(_) => VECTOR,
            None => "scalar",
        };
        let stage = Stage {
            from: Operand::Input(0),
            to: Operand::Output(0),
            kept,
            reduced,
            offset: if ends { *offset } else { offset / width },
            pack,
            width,
            ends,
            elem,
            stat: if pack == Some(Pack::Across) { VECTOR } else { "scalar" },
            results,
            elems,
            shares: 1,
            last: true,
        };
        let rows = Rows {
            family: Self::FAMILY,
            rows: results,
            // At least as many rounds as these take.
            elems: if ends { elems / width + rounds_of_ends(width) } else { elems },
            pack: width,
            registers: 1,
            accesses: 1,
            passes: 1,
            plain_rounds: stage.plain_rounds(),
            side_by_side,
        };
        Ok(Plan { rows, stage })
    }

    /// The two stages of the split variant, and how each is dealt; or why the device can't run them.
    fn split(plan: &Plan, profile: &Profile) -> Result<[(Stage, Deal); 2], String> {
        let Plan { rows, stage } = plan;
        let words = if stage.ends { stage.elems / stage.width } else { stage.elems };
        let shares = Rows::shares(stage.results, words, profile);
        let mut first = Stage { to: Operand::Scratch(0), shares, last: false, ..stage.clone() };
        if profile.kind == AdapterKind::Cpu {
            while rounds(first.plain_rounds(), profile).is_err() && first.shares < first.elems {
                first.shares *= 2;
            }
        }
        let second = Stage {
            from: Operand::Scratch(0),
            kept: vec![Axis { size: stage.results, strides: [first.shares as isize] }],
            reduced: vec![Axis { size: first.shares, strides: [1] }],
            offset: 0,
            pack: None,
            width: if stage.stat == "scalar" { 1 } else { Pack::ELEMENTS },
            ends: false,
            elem: stage.stat,
            elems: first.shares,
            ..stage.clone()
        };
        let dealt = |stage: Stage| -> Result<(Stage, Deal), String> {
            let units = stage.results * stage.shares;
            let rows = Rows { rows: units, elems: stage.share(), plain_rounds: stage.plain_rounds(), ..rows.clone() };
            let deal = match profile.kind {
                AdapterKind::Cpu => rows.plain(profile)?,
                AdapterKind::Gpu => rows.workgroup(profile)?,
            };
            // The last share may be short.
            let deal = if stage.shares > 1 { deal.without_chunks() } else { deal };
            Ok((stage, deal))
        };
        Ok([dealt(first)?, dealt(second)?])
    }

    fn launch(&self, stage: &Stage, deal: Deal, label: String, profile: &Profile) -> Result<Launch> {
        let shader = match deal {
            Deal::Plain { .. } => "reduce::plain",
            Deal::Workgroup { .. } => "reduce::workgroup",
            Deal::Subgroup { .. } => "reduce::subgroup",
        };
        let (join, of_lanes) = match self.function {
            Reduce::Sum | Reduce::Mean => ("a + b", "subgroupAdd"),
            Reduce::Max => ("max(a, b)", "subgroupMax"),
            Reduce::Min => ("min(a, b)", "subgroupMin"),
        };
        // All reduced axes but the innermost; one of size 1 if there is no other.
        let (inner, outer) = match stage.reduced.split_last() {
            Some((inner, outer)) => (*inner, outer),
            None => (Axis { size: 1, strides: [0] }, &[][..]),
        };
        // Of a line that begins within a word, nobody knows here how many words are whole.
        let deal = if stage.ends { deal.without_chunks() } else { deal };
        let mut shader = deal
            .slots(Specialization::new(shader))
            .value("KEPT_AXES", stage.kept.len() - 1)
            .value("OUTER_AXES", outer.len().saturating_sub(1))
            .value("FLAT", outer.is_empty())
            .value("WIDTH", stage.width)
            .region("ENDS", stage.ends)
            .ty("scalar", self.dtype.name())
            .ty("elem", stage.elem)
            .ty("stat", stage.stat)
            .function("join", format!("fn join(a: elem, b: elem) -> elem {{ return {join}; }}"))
            .function("join_stats", format!("fn join_stats(a: stat, b: stat) -> stat {{ return {join}; }}"));
        if stage.pack == Some(Pack::Along) {
            let pairs = if stage.width == 2 {
                "join_stats(v.x, v.y)"
            } else {
                "join_stats(join_stats(v.x, v.y), join_stats(v.z, v.w))"
            };
            shader = shader.function("fold", format!("fn fold(v: elem) -> stat {{ return {pairs}; }}"));
        }
        if stage.width == EIGHT {
            let (word, [low, high]) = long::eight(self.dtype);
            let read = format!("let w = x[i]; return join({low}, {high});");
            shader = shader.ty("word", word).function("load", format!("fn load(i: u32) -> elem {{ {read} }}"));
        }
        if matches!(deal, Deal::Subgroup { .. }) {
            shader = shader
                .function("join_lanes", format!("fn join_lanes(part: stat) -> stat {{ return {of_lanes}(part); }}"));
        }
        if self.function == Reduce::Mean && stage.last {
            shader = shader.function("finish", "fn finish(v: stat) -> stat { return v / p.divisor; }");
        }

        let elements: usize = self.axes.iter().map(|&axis| self.x.shape[axis]).product();
        let (kept, kept_others) = Axis::words(&stage.kept);
        let (outermost, outer_others) = Axis::words(outer);
        let mut params = vec![
            (stage.results * stage.shares) as u32,
            stage.shares as u32,
            stage.elems as u32,
            stage.share() as u32,
            deal.turns() as u32,
            self.identity(),
            (elements.max(1) as f32).to_bits(),
            stage.offset as u32,
            inner.size as u32,
            inner.strides[0] as u32,
        ];
        params.extend(kept.into_iter().chain([outermost.first().copied().unwrap_or(0)]));
        params.extend(kept_others.into_iter().chain(outer_others));

        let stats = stage.results * stage.shares;
        let elements = stage.results * stage.elements();
        let read = match stage.from {
            Operand::Input(_) => 4 * touched(&self.x),
            _ => 4 * elements as u64,
        };
        Ok(Launch {
            label,
            source: shader.source()?,
            bindings: [
                Some(Binding::read(stage.from)),
                stage.ends.then(|| Binding::read(stage.from)),
                Some(Binding::write(stage.to)),
            ]
            .into_iter()
            .flatten()
            .collect(),
            params,
            grid: deal.grid(Self::FAMILY, stats, profile)?,
            flops: elements as u64,
            exponentials: 0,
            bytes: read + (stats * stage.stat_bytes()) as u64,
        })
    }

    /// The bits of the result over nothing.
    fn identity(&self) -> u32 {
        match (self.function, self.dtype) {
            (Reduce::Sum | Reduce::Mean, _) => 0,
            (Reduce::Max, DType::I32) => i32::MIN as u32,
            (Reduce::Max, DType::U32) => u32::MIN,
            (Reduce::Max, _) => f32::NEG_INFINITY.to_bits(),
            (Reduce::Min, DType::I32) => i32::MAX as u32,
            (Reduce::Min, DType::U32) => u32::MAX,
            (Reduce::Min, _) => f32::INFINITY.to_bits(),
        }
    }
}

impl Problem for ReduceProblem {
    fn family(&self) -> &'static str {
        Self::FAMILY
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        let plan = match self.plan(profile) {
            Ok(plan) => plan,
            Err(error) => return Rows::refused(&error),
        };
        let split = Self::split(&plan, profile).map(|[(first, _), _]| first.shares);
        plan.rows.candidates(split, profile)
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        let plan = self.plan(profile)?;
        if variant != SPLIT {
            let deal = plan.rows.deal(variant, profile)?;
            let launch = self.launch(&plan.stage, deal, variant.into(), profile)?;
            return Ok(Kernel { launches: vec![launch], scratch: Vec::new() });
        }
        let refused = |reason| Error::NoVariant { family: Self::FAMILY, reasons: vec![format!("{SPLIT}: {reason}")] };
        let [(first, first_deal), (second, second_deal)] = Self::split(&plan, profile).map_err(refused)?;
        let scratch = (first.results * first.shares * first.stat_bytes()) as u64;
        Ok(Kernel {
            launches: vec![
                self.launch(&first, first_deal, format!("{SPLIT}: shares"), profile)?,
                self.launch(&second, second_deal, format!("{SPLIT}: join"), profile)?,
            ],
            scratch: vec![scratch],
        })
    }

    fn summary(&self) -> String {
        format!("{} {} {} axes={:?}", self.function.name(), self.dtype, self.x.shape, self.axes)
    }
}

impl ReduceProblem {
    /// Of [`Op::Reduce`](crate::graph::Op::Reduce).
    pub(super) fn of(function: Reduce, axes: &[usize], operands: &mut Operands) -> Result<Self> {
        operands.widen_narrow();
        Ok(ReduceProblem::new(function, operands.dtype(0), operands.layout(0), axes))
    }
}
