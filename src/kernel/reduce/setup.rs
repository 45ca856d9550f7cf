//! A reduction that holds together, with its axes merged.

use super::{
    super::{
        AdapterKind, Operand, Profile,
        access::{axes::Axis, long},
        rows::{Deal, Pack, Rows, most_rounds_in_blocks, rounds},
        variant::{self, Needs},
    },
    problem::ReduceProblem,
};
use crate::{DType, Error, Layout, Result, graph::Reduce};

/// Elements that are read at once where words of 64 bits pay.
pub(super) const EIGHT: usize = 8;
/// Elements that a line has at least if what it has of whole words is read so, wherever it begins.
const LEAST_WITH_ENDS: usize = 64;

/// A checked [`ReduceProblem`] on a device.
pub(super) struct Setup<'a> {
    pub(super) problem: &'a ReduceProblem,
    pub(super) profile: &'a Profile,
    pub(super) rows: Rows,
    pub(super) stage: Stage,
}

/// A reduction of a matrix of elems: all of it, or one of the two stages of the split variant.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) from: Operand,
    pub(super) to: Operand,
    /// Axes of the results, and those that are reduced, outermost first. Strides in elems.
    pub(super) kept: Vec<Axis<1>>,
    pub(super) reduced: Vec<Axis<1>>,
    /// The first elem.
    pub(super) offset: usize,
    pub(super) pack: Option<Pack>,
    /// Elements that lie in an elem: of eight, two halves are merged as they are read.
    pub(super) width: usize,
    /// Whether lines may begin and end within a word. Strides, sizes and offset are then those of elements.
    pub(super) ends: bool,
    /// What an elem is, and what is left when it is reduced.
    pub(super) elem: &'static str,
    pub(super) stat: &'static str,
    pub(super) results: usize,
    pub(super) elems: usize,
    pub(super) shares: usize,
    /// Whether its results are those of the problem.
    pub(super) last: bool,
}

pub(super) const SCALAR: &str = "scalar";
const PAIR: &str = "vec2<scalar>";
const VECTOR: &str = "vec4<scalar>";

impl Stage {
    /// Elems of a share.
    pub(super) fn share(&self) -> usize {
        self.elems.div_ceil(self.shares)
    }

    /// Results, times the shares of each.
    pub(super) fn stats(&self) -> usize {
        self.results * self.shares
    }

    /// Elements of all results.
    pub(super) fn elements(&self) -> usize {
        self.results * if self.ends { self.elems } else { self.elems * self.width }
    }

    /// Bytes of all that is written.
    pub(super) fn stat_bytes(&self) -> usize {
        self.stats() * if self.stat == SCALAR { 4 } else { 4 * Pack::ELEMENTS }
    }

    /// Its shares, as rows.
    fn rows(&self, of: &Rows) -> Rows {
        Rows { rows: self.stats(), elems: self.share(), plain_rounds: self.plain_rounds(), ..of.clone() }
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

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = ReduceProblem::FAMILY;

    fn profile(&self) -> &Profile {
        self.profile
    }
}

impl<'a> Setup<'a> {
    pub(super) fn new(problem: &'a ReduceProblem, profile: &'a Profile) -> Result<Self> {
        let ReduceProblem { function, dtype, x: Layout { shape, strides, offset }, axes } = problem;
        let op = function.name();
        if !matches!(dtype, DType::F32 | DType::I32 | DType::U32) {
            return Err(Error::dtype(op, "x", *dtype, "f32, i32 or u32 (cast it first)"));
        }
        if *function == Reduce::Mean && *dtype != DType::F32 {
            return Err(Error::dtype(op, "x", *dtype, "f32 (cast it first)"));
        }
        if !axes.is_sorted_by(|a, b| a < b) || axes.iter().any(|&axis| axis >= shape.rank()) {
            let message = format!("the axes {axes:?} are not sorted axes of {shape}, each at most once");
            return Err(Error::op(op, message));
        }
        shape.checked_elements(op)?;

        let (mut reduced, kept): (Vec<usize>, Vec<usize>) = (0..shape.rank()).partition(|axis| axes.contains(axis));
        // In whatever order the elements are taken: best as they lie in memory.
        reduced.sort_by_key(|&axis| std::cmp::Reverse(strides[axis].unsigned_abs()));
        let merged = |axes: &[usize]| {
            let sizes: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
            let strides: Vec<isize> = axes.iter().map(|&axis| strides[axis]).collect();
            Axis::merged(&sizes, [&strides])
        };
        let (mut kept, mut reduced) = (merged(&kept), merged(&reduced));

        let side_by_side = kept.last().is_some_and(|axis| axis.strides[0].abs() == 1)
            && reduced.last().is_some_and(|axis| axis.strides[0].abs() != 1);
        let cpu = profile.kind == AdapterKind::Cpu;
        // Where a load takes its time per word. A buffer without elements has room for 16 bytes.
        let pays = cpu && !profile.shares_loads();
        let has_eights = pays && long::has_eights(*dtype, profile) && !shape.contains(&0);
        let widest = if has_eights { EIGHT } else { Pack::ELEMENTS };
        let along = |width: usize| Pack::Along.fits(width, &kept, &reduced, *offset);
        let pack = Pack::of(&kept, &reduced, *offset);
        // A GPU reads neighbours together, one by one as well as in words.
        let ends =
            cpu && pack.is_none() && matches!(reduced[..], [Axis { size, strides: [1] }] if size >= LEAST_WITH_ENDS);
        let (pack, width) = match pack {
            Some(Pack::Along) if along(widest) => (pack, widest),
            Some(_) => (pack, Pack::ELEMENTS),
            None if ends => (Some(Pack::Along), widest),
            None if cpu && along(2) => (Some(Pack::Along), 2),
            None => (None, 1),
        };
        if let Some(pack) = pack.filter(|_| !ends) {
            pack.count(width, &mut kept, &mut reduced);
        }
        let of = |axes: &[Axis<1>]| axes.iter().map(|axis| axis.size).product();
        let (results, elems): (usize, usize) = (of(&kept), of(&reduced));
        let stage = Stage {
            from: Operand::Input(0),
            to: Operand::Output(0),
            kept,
            reduced,
            offset: if ends { *offset } else { offset / width },
            pack,
            width,
            ends,
            elem: match pack {
                Some(Pack::Along) if width == 2 => PAIR,
                Some(_) => VECTOR,
                None => SCALAR,
            },
            stat: if pack == Some(Pack::Across) { VECTOR } else { SCALAR },
            results,
            elems,
            shares: 1,
            last: true,
        };
        let rows = Rows {
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
        Ok(Setup { problem, profile, rows, stage })
    }

    /// The two stages of the split variant.
    pub(super) fn stages(&self) -> [Stage; 2] {
        let stage = &self.stage;
        let words = if stage.ends { stage.elems / stage.width } else { stage.elems };
        let shares = Rows { elems: words, ..self.rows.clone() }.shares(self.profile);
        let mut first = Stage { to: Operand::Workspace(0), shares, last: false, ..stage.clone() };
        if self.profile.kind == AdapterKind::Cpu {
            while rounds(first.plain_rounds()).lacking(self.profile).is_some() && first.shares < first.elems {
                first.shares *= 2;
            }
        }
        let second = Stage {
            from: Operand::Workspace(0),
            kept: vec![Axis { size: stage.results, strides: [first.shares as isize] }],
            reduced: vec![Axis { size: first.shares, strides: [1] }],
            offset: 0,
            pack: None,
            width: if stage.stat == SCALAR { 1 } else { Pack::ELEMENTS },
            ends: false,
            elem: stage.stat,
            elems: first.shares,
            ..stage.clone()
        };
        [first, second]
    }

    /// How a stage of the split variant is dealt, and what it needs.
    pub(super) fn dealt(&self, stage: &Stage) -> (Deal, Needs) {
        let rows = stage.rows(&self.rows);
        let deal = Deal::of_shares(&rows, self.profile);
        // The last share may be short.
        (if stage.shares > 1 { deal.without_chunks() } else { deal }, deal.needs(&rows))
    }
}
