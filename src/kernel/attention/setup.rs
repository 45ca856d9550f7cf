//! A problem on a device, and what the kernels that walk over queries and keys share: regions, bindings and parameters.

use super::{
    problem::{AttentionDTypes, AttentionProblem},
    sizes::Sizes,
};
use crate::{
    Error, Layout, Result,
    graph::{AttentionOperand as A, Function, FunctionKind},
    kernel::{
        Binding, Launch, Operand, Profile, Specialization, fold_grid,
        variant::{self, Needs},
    },
    tensor::DType,
};

/// The widest head of q, k or v that the kernels take.
const MAX_HEAD: usize = 256;

/// Words of a record that `sequences.wesl` writes.
pub(super) const RECORD: usize = 8;

/// A problem, checked, on a device.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) problem: &'a AttentionProblem,
    pub(super) profile: &'a Profile,
    pub(super) sizes: Sizes,
}

/// How a kernel walks over the query rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    /// Rows of a workgroup.
    pub(super) rows: usize,
    /// Query heads that share a tile: 1, or all that share a key head.
    pub(super) span: usize,
    /// Ranges of keys that a tile of rows is split into.
    pub(super) splits: usize,
    /// Workgroups that share the columns of v and out.
    pub(super) column_parts: usize,
}

impl Tiling {
    /// Tiles of so many rows, each of one workgroup.
    pub(super) const fn of(rows: usize, span: usize) -> Self {
        Tiling { rows, span, splits: 1, column_parts: 1 }
    }
}

/// The tiles of a mask, as a launch before has found them.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaskTiles {
    pub(super) operand: Operand,
    /// Steps of (B, Hq, row tiles).
    pub(super) steps: [u32; 3],
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = "attention";

    fn profile(&self) -> &Profile {
        self.profile
    }
}

/// A variant that was asked for, though it can't run.
pub(super) fn refused(variant: &str, reason: &str) -> Error {
    Error::NoVariant { family: "attention", reasons: vec![format!("{variant}: {reason}")] }
}

/// The places of variants in the order; those of one rank are in the order of the list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rank {
    /// Made for this kind of adapter.
    MadeForIt,
    /// Made for problems like this one.
    Suited,
    /// Takes problems of every kind on every adapter.
    General,
    /// Made for another kind of adapter.
    MadeForOthers,
}

impl<'a> Setup<'a> {
    pub(super) fn new(problem: &'a AttentionProblem, profile: &'a Profile) -> Result<Self> {
        Ok(Setup { problem, profile, sizes: Sizes::of(problem)? })
    }

    pub(super) fn has(&self, operand: A) -> bool {
        self.problem.operand(operand).is_some()
    }

    /// Whether records come from `sequences.wesl`.
    pub(super) fn has_items(&self) -> bool {
        [A::KeyLengths, A::QueryLengths, A::Offsets, A::QueryOffsets].into_iter().any(|operand| self.has(operand))
    }

    /// What every variant needs that writes so many outputs beside what it reads.
    pub(super) fn needs(&self, outputs: usize) -> Result<Needs, String> {
        let widest = self.sizes.d.max(self.sizes.dv);
        if widest > MAX_HEAD {
            return Err(format!("a head of {widest} is wider than {MAX_HEAD}"));
        }
        // An invocation of the launch before goes through the pages of its items, for the status.
        let pages = self.sizes.pages.filter(|_| self.problem.status).map_or(0, |pages| pages.each as u64 + 1);
        let rounds = self.sizes.items.div_ceil(64) as u64 * pages;
        Ok(Needs { buffers: (self.inputs(None).len() + outputs) as u64, rounds, ..Needs::default() })
    }

    /// The same, of a variant that writes out, and lse if it is asked for.
    pub(super) fn needs_of_outputs(&self) -> Result<Needs, String> {
        self.needs(1 + usize::from(self.problem.lse))
    }

    /// Records of items or sequences.
    pub(super) fn records(&self) -> usize {
        if self.sizes.packed { self.sizes.items + 2 } else { self.sizes.items }
    }

    /// The number of an input of the problem.
    pub(super) fn input(&self, operand: A) -> Option<Operand> {
        self.problem.options.input_of(operand).map(Operand::Input)
    }

    /// The number of lse.
    pub(super) fn lse(&self) -> Option<Operand> {
        self.problem.lse.then_some(Operand::Output(1))
    }

    /// The regions of `scores.wesl` and of the bindings that go with it.
    pub(super) fn specialize(&self, kernel: &'static str) -> Specialization {
        let source = Specialization::new(kernel)
            .region("MASK", self.has(A::Mask))
            .region("BIAS", self.has(A::Bias))
            .region("SOFTCAP", self.problem.options.softcap.is_some())
            .region("SLOPES", self.has(A::Slopes))
            .region("SIDE", self.has_items() || self.has(A::Slopes))
            .region("ITEMS", self.has_items())
            .region("PACKED", self.sizes.packed)
            .region("PAGED", self.sizes.pages.is_some())
            .region("FUNCTIONS", self.problem.options.has_functions())
            .region("SCORE_TABLE", self.has(A::ScoreTable))
            .region("MASK_TABLE", self.has(A::MaskTable))
            .region("SCORE_MOD", !self.problem.options.score_mods.is_empty())
            .region("MASK_MOD", !self.problem.options.mask_mods.is_empty());
        let functions = [("score_mod", self.score_mod()), ("mask_mod", self.mask_mod())];
        functions.into_iter().fold(source, |source, (slot, definition)| match definition {
            Some(definition) => source.function(slot, definition),
            None => source,
        })
    }

    /// The score functions one after the other, as one.
    fn score_mod(&self) -> Option<String> {
        let score = |inner: String, at: usize| format!("score_mod_{at}({inner}, {ARGUMENTS})");
        joined(&self.problem.options.score_mods, "score_mod", "score_table", |count| {
            (0..count).fold("score".to_string(), score)
        })
    }

    /// All mask functions, as one.
    fn mask_mod(&self) -> Option<String> {
        joined(&self.problem.options.mask_mods, "mask_mod", "mask_table", |count| {
            (0..count).map(|at| format!("mask_mod_{at}({ARGUMENTS})")).collect::<Vec<_>>().join(" && ")
        })
    }

    /// The block table as shaders read it: first entry, steps, rows of a page, the last page.
    pub(super) fn table(&self) -> [u32; 5] {
        let (Some(pages), Some(table)) = (&self.sizes.pages, self.problem.operand(A::BlockTable)) else {
            return [0; 5];
        };
        let rows = pages.rows.clamp(1, 1 << 30);
        [
            table.offset as u32,
            table.strides[0] as u32,
            table.strides[1] as u32,
            rows as u32,
            pages.count.saturating_sub(1) as u32,
        ]
    }

    /// q, k, v and what `scores.wesl` reads, with the tiles of the mask.
    fn inputs(&self, mask_tiles: Option<Operand>) -> Vec<Binding> {
        let mut inputs = vec![Operand::Input(0), Operand::Input(1), Operand::Input(2)];
        inputs.extend(self.input(A::Mask));
        inputs.extend(mask_tiles);
        inputs.extend(self.input(A::Bias));
        inputs.extend(self.side());
        inputs.extend([A::BlockTable, A::ScoreTable, A::MaskTable].into_iter().filter_map(|table| self.input(table)));
        inputs.into_iter().map(Binding::read).collect()
    }

    /// The buffer of records and slopes; slopes alone are read where they are.
    fn side(&self) -> Option<Operand> {
        if self.has_items() { Some(Operand::Scratch(0)) } else { self.input(A::Slopes) }
    }

    /// Tiles of rows of one head (or of `span` heads), of one batch item or of all packed sequences.
    fn tiles(&self, tiling: Tiling) -> u64 {
        let rows = (self.sizes.rows * tiling.span) as u64;
        if self.sizes.packed {
            // A sequence has at most one tile that is not full, and the tiles of record b begin at q_start / rows + b.
            rows / tiling.rows as u64 + self.records() as u64
        } else {
            rows.div_ceil(tiling.rows as u64)
        }
    }

    pub(super) fn workgroups(&self, tiling: Tiling) -> u64 {
        if self.sizes.rows == 0 {
            return 0;
        }
        self.tiles(tiling)
            * (self.sizes.batch * self.sizes.heads / tiling.span * tiling.splits * tiling.column_parts) as u64
    }

    /// Query heads that share a key head share tiles where the rows of one do not fill a tile.
    pub(super) fn span(&self, rows: usize) -> usize {
        if self.sizes.rows < rows { self.sizes.group().max(1) } else { 1 }
    }

    /// Query rows of all heads of all items.
    pub(super) fn all_rows(&self) -> usize {
        self.sizes.batch * self.sizes.heads * self.sizes.rows
    }

    /// The launch of a kernel that walks over queries and keys, and writes more bytes than [those](Setup::bytes) of its
    /// operands.
    pub(super) fn launch(
        &self,
        label: String,
        source: Specialization,
        tiling: Tiling,
        mask_tiles: Option<MaskTiles>,
        outputs: Vec<Binding>,
        more_bytes: u64,
    ) -> Result<Launch> {
        let inputs = self.inputs(mask_tiles.map(|tiles| tiles.operand));
        Ok(Launch {
            label,
            source: source.region("MASK_TILES", mask_tiles.is_some()).source()?,
            bindings: inputs.into_iter().chain(outputs).collect(),
            params: self.params(tiling, mask_tiles),
            grid: fold_grid(self.workgroups(tiling), self.profile, "attention")?,
            flops: self.flops(),
            exponentials: self.exponentials(),
            bytes: self.bytes() + more_bytes,
        })
    }

    /// The parameters of `parameters.wesl`.
    fn params(&self, tiling: Tiling, mask_tiles: Option<MaskTiles>) -> Vec<u32> {
        let options = &self.problem.options;
        let sizes = &self.sizes;
        let scale = options.scale.unwrap_or_else(|| 1.0 / (sizes.d as f32).sqrt());
        let range = sizes.range(self.problem);
        let mut params = vec![
            self.workgroups(tiling) as u32,
            self.tiles(tiling) as u32,
            tiling.rows as u32,
            tiling.splits as u32,
            sizes.heads as u32,
            sizes.group() as u32,
            tiling.span as u32,
            sizes.rows as u32,
            self.all_rows() as u32,
            self.records() as u32,
            sizes.d as u32,
            sizes.dv as u32,
            options.softcap.map_or(scale, |cap| scale / cap).to_bits(),
            options.softcap.unwrap_or(0.0).to_bits(),
            range.end as u32,
            range.lo as u32,
            range.hi as u32,
            range.offset as u32,
        ];
        let keys = |layout: &Layout| match (&self.sizes.pages, &layout.strides[..]) {
            // The step between pages comes with the table.
            (Some(_), &[_, t, h, d]) => [0, h, t, d].map(|stride| stride as u32),
            _ => self.strides(layout),
        };
        let AttentionProblem { q, k, v, out, .. } = self.problem;
        for (layout, strides) in [(q, self.strides(q)), (k, keys(k)), (v, keys(v)), (out, self.strides(out))] {
            params.push(layout.offset as u32);
            params.extend(strides);
        }
        params.extend(self.lse_steps());
        for operand in [A::Mask, A::Bias] {
            let layout = self.problem.operand(operand).map(|layout| sizes.broadcast(layout));
            params.push(layout.as_ref().map_or(0, |layout| layout.offset as u32));
            params.extend(layout.map_or([0; 4], |layout| self.strides(&layout)));
        }
        params.extend(match self.problem.operand(A::Slopes) {
            Some(_) if self.has_items() => [(self.records() * RECORD) as u32, 1],
            Some(slopes) => [slopes.offset as u32, slopes.strides[0] as u32],
            None => [0, 0],
        });
        for table in [A::ScoreTable, A::MaskTable] {
            let elements = self.problem.operand(table).and_then(|layout| layout.shape.elements()).unwrap_or(0);
            params.push(elements.saturating_sub(1) as u32);
        }
        params.extend(self.table());
        let page = |layout: &Layout| if self.sizes.pages.is_some() { layout.strides[0] as u32 } else { 0 };
        params.extend([&self.problem.k, &self.problem.v].map(page));
        params.extend(mask_tiles.map_or([0; 3], |tiles| tiles.steps));
        params
    }

    /// Steps of the axes (B, H, T) of lse.
    pub(super) fn lse_steps(&self) -> [u32; 3] {
        let (heads, rows) = (self.sizes.heads as u32, self.sizes.rows as u32);
        if self.sizes.packed { [0, 1, heads] } else { [heads * rows, rows, 1] }
    }

    /// Steps of the axes (B, H, T, D); a negative one wraps.
    pub(super) fn strides(&self, layout: &Layout) -> [u32; 4] {
        match layout.strides[..] {
            [b, h, t, d] => [b, h, t, d].map(|stride| stride as u32),
            [t, h, d] => [0, h, t, d].map(|stride| stride as u32),
            _ => [0; 4],
        }
    }

    /// Multiplications and additions of q·k and of the weighted sum of v.
    pub(super) fn flops(&self) -> u64 {
        self.exponentials() * 2 * (self.sizes.d + self.sizes.dv) as u64
    }

    /// One for each score of a pair that may see each other.
    fn exponentials(&self) -> u64 {
        self.sizes.pairs(self.problem) * self.sizes.heads as u64
    }

    /// Every element of q, k, v, mask, bias and out once.
    fn bytes(&self) -> u64 {
        let problem = self.problem;
        let of = |layout: &Layout, dtype: DType| distinct(layout) * dtype.bytes() as u64;
        let AttentionDTypes { q, k, v, bias, out } = problem.dtypes;
        let bias = problem.operand(A::Bias).map_or(0, |layout| of(layout, bias));
        let mask = problem.operand(A::Mask).map_or(0, distinct);
        let lse = if problem.lse { 4 * self.all_rows() as u64 } else { 0 };
        of(&problem.q, q) + of(&problem.k, k) + of(&problem.v, v) + of(&problem.out, out) + bias + mask + lse
    }
}

/// What every function of the user's is given, by the names of its parameters.
const ARGUMENTS: &str = "b, h, h_kv, i, j, position, q_len, k_len";

/// Functions of the user's and one that calls them, on one line; `body` is the call, of so many.
fn joined<T: FunctionKind + ?Sized>(
    functions: &[Function<T>],
    name: &str,
    table: &str,
    body: impl Fn(usize) -> String,
) -> Option<String> {
    if functions.is_empty() {
        return None;
    }
    let parts = functions.iter().enumerate().map(|(at, function)| function.definition(&format!("{name}_{at}"), table));
    let whole = Function::<T>::declared(name, &format!("return {};", body(functions.len())));
    Some(parts.chain([whole]).collect::<Vec<_>>().join(" "))
}

/// Elements of a layout that lie at different places.
pub(super) fn distinct(layout: &Layout) -> u64 {
    layout
        .shape
        .iter()
        .zip(&layout.strides)
        .map(|(&n, &stride)| if stride == 0 { n.min(1) } else { n } as u64)
        .product()
}
