//! Cross entropy of logits and classes. Twins: `shaders/cross_entropy/`, `src/reference/cross_entropy.rs`,
//! `tests/device/cross_entropy.rs`.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Operands, Parameters, Problem, Profile, Specialization,
    access::{axes::Axis, elems::Elems, narrow::check_floats, strided::touched},
    rows::{
        self, Deal, MERGE, PACKED_LARGEST, PACKED_TOTAL, Pack, RowSetup, Rows, SHARES, most_rounds_in_blocks, rounds,
        rounds_in_blocks,
    },
    variant::{self, Needs},
};
use crate::{DType, Error, Layout, Result};

/// Loss, log-sum-exp and weight of each row of f32, f16 or bf16 logits, see [`Op::CrossEntropy`](crate::graph::Op::CrossEntropy).
///
/// Inputs: logits `[… C]`, which may have any strides, targets (i32), and class weights (f32) if there are, both dense.
/// Outputs: loss, lse and weight, f32 and dense. A row is gone through once, with maximum and sum in one pass; all is
/// computed in f32.
///
/// Fastest are rows whose elements lie side by side, aligned to four.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropyProblem {
    /// The dtype of the logits.
    pub dtype: DType,
    /// Where the logits lie; classes are the last axis.
    pub x: Layout,
    /// A target that is ignored, as those are that are no class.
    pub ignore: Option<i32>,
    /// ε, from 0 to 1.
    pub smoothing: f32,
    /// Class weights are given.
    pub weight: bool,
}

impl CrossEntropyProblem {
    /// That of f32 logits; set the fields for more.
    pub fn new(x: Layout) -> Self {
        CrossEntropyProblem { dtype: DType::F32, x, ignore: None, smoothing: 0.0, weight: false }
    }
}

/// A checked [`CrossEntropyProblem`] on a device.
struct Setup<'a> {
    problem: &'a CrossEntropyProblem,
    profile: &'a Profile,
    rows: Rows,
    packed: bool,
    classes: usize,
    /// Axes of rows; strides in elems.
    kept: Vec<Axis<1>>,
    /// A row, in elems.
    axis: Axis<1>,
    /// The first elem.
    offset: usize,
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = CrossEntropyProblem::FAMILY;

    fn profile(&self) -> &Profile {
        self.profile
    }
}

impl CrossEntropyProblem {
    const FAMILY: &str = "cross_entropy";

    fn on<'a>(&'a self, profile: &'a Profile) -> Result<Setup<'a>> {
        let Layout { shape, strides, offset } = &self.x;
        let (Some((&classes, sizes)), Some((&stride, others))) = (shape.split_last(), strides.split_last()) else {
            return Err(Error::shape(Self::FAMILY, "logits", shape, "at least one axis, of the classes"));
        };
        check_floats(Self::FAMILY, [("logits", self.dtype)])?;
        if !(0.0..=1.0).contains(&self.smoothing) {
            let message = format!("the smoothing is {}, expected a number from 0 to 1", self.smoothing);
            return Err(Error::op(Self::FAMILY, message));
        }
        shape.checked_elements(Self::FAMILY)?;

        let mut kept = Axis::merged(sizes, [others]);
        let mut along = [Axis { size: classes, strides: [stride] }];
        // The results of rows are single numbers.
        let packed = Pack::of(&kept, &along, *offset) == Some(Pack::Along);
        if packed {
            Pack::Along.count(Pack::ELEMENTS, &mut kept, &mut along);
        }
        let [axis] = along;
        let width = if packed { Pack::ELEMENTS } else { 1 };
        let rows = Rows {
            rows: kept.iter().map(|axis| axis.size).product(),
            elems: axis.size,
            pack: width,
            // The element, and its share.
            registers: 2,
            accesses: 1,
            passes: 1,
            plain_rounds: rounds_in_blocks(axis.size),
            side_by_side: stride.abs() != 1 && kept.last().is_some_and(|axis: &Axis<1>| axis.strides[0].abs() == 1),
        };
        Ok(Setup { problem: self, profile, rows, packed, classes, kept, axis, offset: offset / width })
    }

    fn smooths(&self) -> bool {
        self.smoothing > 0.0
    }
}

/// What a dispatch makes of the rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The results.
    Whole,
    /// The sums of so many shares of each row.
    Shares(usize),
    /// The results, from those.
    Merge(usize),
}

impl RowSetup for Setup<'_> {
    fn rows(&self) -> &Rows {
        &self.rows
    }

    fn whole(&self, deal: Deal) -> Result<Kernel> {
        Ok(Kernel { launches: vec![self.launch(Stage::Whole, deal)?], workspace: Vec::new() })
    }

    fn shares(&self) -> (usize, Needs) {
        let (shares, rows) = self.dealt_shares();
        let workspace = self.workspace(shares);
        // The second dispatch goes through all shares.
        let needs = Deal::of_shares(&rows, self.profile).needs(&rows).and(rounds(shares + 1));
        (shares, Needs { workspace, ..needs })
    }

    fn split(&self) -> Result<Kernel> {
        let (shares, rows) = self.dealt_shares();
        // The last share may be short.
        let deal = Deal::of_shares(&rows, self.profile).without_chunks();
        Ok(Kernel {
            launches: vec![self.launch(Stage::Shares(shares), deal)?, self.launch(Stage::Merge(shares), Deal::ANY)?],
            workspace: vec![self.workspace(shares)],
        })
    }
}

impl Setup<'_> {
    /// Into how many shares the split variant deals a row, and they as rows.
    fn dealt_shares(&self) -> (usize, Rows) {
        let rows = &self.rows;
        let least = self.profile.loop_rounds().map_or(1, |most| rows.elems.div_ceil(3 * most as usize));
        let shares = rows.shares(self.profile).max(least);
        let share = rows.elems.div_ceil(shares);
        let plain_rounds = most_rounds_in_blocks(share);
        (shares, Rows { rows: rows.rows * shares, elems: share, plain_rounds, ..rows.clone() })
    }

    /// Bytes of the sums of all shares: four words each.
    fn workspace(&self, shares: usize) -> u64 {
        16 * (self.rows.rows * shares).max(1) as u64
    }

    fn launch(&self, stage: Stage, deal: Deal) -> Result<Launch> {
        let Setup { problem, profile, rows, classes, kept, axis, .. } = self;
        let (label, shares, stats) = match stage {
            Stage::Whole => (deal.name(), 1, rows.rows),
            Stage::Shares(shares) => (SHARES, shares, rows.rows * shares),
            Stage::Merge(shares) => (MERGE, shares, rows.rows),
        };
        let shader = match (stage, deal) {
            (Stage::Merge(_), _) => "cross_entropy::merge",
            (Stage::Whole | Stage::Shares(_), Deal::Plain(_)) => "cross_entropy::plain",
            (Stage::Whole | Stage::Shares(_), Deal::Workgroup(_)) => "cross_entropy::workgroup",
            (Stage::Whole | Stage::Shares(_), Deal::Subgroup(_)) => "cross_entropy::subgroup",
        };
        let whole = !matches!(stage, Stage::Shares(_));
        // A share has no loss, but for what smoothing adds up.
        let weight = problem.weight && (whole || problem.smooths());
        let mut shader = deal
            .slots(Specialization::new(shader).on(profile.backend))
            .value("ROW_AXES", kept.len() - 1)
            .region("WEIGHT", weight)
            .region("SMOOTHING", problem.smooths())
            .region("WHOLE", whole)
            .region("SHARES", !whole);
        let elems = Elems { dtype: problem.dtype, packed: self.packed };
        shader = elems
            .slots(shader, "x_word")
            .function("read_x", format!("fn read_x(i: u32) -> elem {{ {} }}", elems.read_infinities("x")));
        if self.packed {
            shader = shader
                .ty("elem", "vec4<f32>")
                .ty("bits", "vec4<u32>")
                .function("logit", PACKED_LOGIT)
                .function("total", PACKED_TOTAL)
                .function("largest", PACKED_LARGEST);
            if weight {
                shader = shader.function("weight_of", PACKED_WEIGHT);
            }
        }

        let mut bindings: Vec<Binding> = [Operand::Input(0), Operand::Input(1)].map(Binding::read).into();
        bindings.extend(weight.then(|| Binding::read(Operand::Input(2))));
        if whole {
            bindings.extend([0, 1, 2].map(|output| Binding::write(Operand::Output(output))));
        }
        let sums = Operand::Workspace(0);
        match stage {
            Stage::Whole => {}
            Stage::Shares(_) => bindings.push(Binding::write(sums)),
            Stage::Merge(_) => bindings.push(Binding::read(sums)),
        }

        let spread = f64::from(problem.smoothing) / (*classes).max(1) as f64;
        let parameters = Parameters::new()
            .set("stats", stats)
            .set("shares", shares)
            .set("elems", rows.elems)
            .set("elems_of_share", rows.elems.div_ceil(shares))
            .and(deal.parameters())
            .set("classes", *classes)
            // −1 is no class anyway.
            .set("ignored", problem.ignore.unwrap_or(-1))
            .set("sharp", (1.0 - f64::from(problem.smoothing)) as f32)
            .set("spread", spread as f32)
            .set("x", self.offset)
            .set("x_axis", axis.strides[0])
            .and(Axis::parameters(kept, ["x"], "row", "r"));
        let source = shader.source()?;
        let elements = problem.x.shape.iter().product::<usize>() as u64;
        let (goes, passed_on) = match stage {
            Stage::Whole => (true, 0),
            Stage::Shares(shares) => (true, shares),
            Stage::Merge(shares) => (false, shares),
        };
        let read = touched(&problem.x) * problem.dtype.bytes() as u64 + if weight { 4 * *classes as u64 } else { 0 };
        // Targets and three results; sums of shares.
        let of_rows = (rows.rows * (if whole { 16 } else { 0 } + 16 * passed_on)) as u64;
        Ok(Launch {
            label: label.into(),
            params: source.words(&parameters)?,
            source,
            bindings,
            grid: deal.grid(CrossEntropyProblem::FAMILY, stats, profile)?,
            // Maximum, difference and sum; distance, weight and two sums.
            flops: if goes { elements * if problem.smooths() { 7 } else { 3 } } else { 0 },
            exponentials: if goes { elements } else { 0 },
            bytes: if goes { read + of_rows } else { of_rows },
        })
    }
}

/// The slots `logit` and `weight_of` for packed elems.
const PACKED_LOGIT: &str =
    "fn logit(start: u32, c: u32) -> f32 { return read_x(start + (c >> 2u) * p.x_axis)[c & 3u]; }";
const PACKED_WEIGHT: &str = "fn weight_of(c: u32) -> f32 { return weights[c >> 2u][c & 3u]; }";

impl Problem for CrossEntropyProblem {
    fn family(&self) -> &'static str {
        Self::FAMILY
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        rows::candidates(self.on(profile))
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        rows::kernel(self.on(profile), variant)
    }

    fn summary(&self) -> String {
        let CrossEntropyProblem { dtype, x, ignore, smoothing, weight } = self;
        let ignore = ignore.map(|ignore| format!(" ignore={ignore}")).unwrap_or_default();
        let smoothing = if self.smooths() { format!(" smoothing={smoothing}") } else { String::new() };
        let weight = if *weight { " +weight" } else { "" };
        format!("{dtype} {}{ignore}{smoothing}{weight}", x.shape)
    }
}

impl CrossEntropyProblem {
    /// Of [`Op::CrossEntropy`](crate::graph::Op::CrossEntropy).
    pub(super) fn of(ignore: Option<i32>, smoothing: f32, weight: bool, operands: &mut Operands) -> Result<Self> {
        Ok(CrossEntropyProblem { dtype: operands.dtype(0), x: operands.layout(0), ignore, smoothing, weight })
    }
}
