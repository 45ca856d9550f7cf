//! A problem on a device, and what the kernels that walk over queries and keys share: regions, bindings and parameters.

use super::{
    problem::{AttentionDTypes, AttentionProblem},
    sizes::Sizes,
};
use crate::{
    Error, Layout, Result,
    graph::{AttentionOperand as A, Function, FunctionKind, Unary},
    kernel::{
        Binding, Launch, Operand, Parameters, Profile, Specialization, fold_grid, unary_wgsl,
        variant::{self, Needs},
    },
    tensor::DType,
};

/// The widest head of q, k or v that kernels take which hold a row of it in registers.
const MOST_HELD: usize = 256;

/// Words of a record that `sequences.wesl` writes.
pub(super) const RECORD: usize = 8;

/// An operand with an f32 for each query head: its region in the shaders, and the parameters that say where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct PerHead {
    pub(super) kind: A,
    region: &'static str,
    at: &'static str,
    step: &'static str,
}

const PER_HEAD: [PerHead; 2] = [
    PerHead { kind: A::Slopes, region: "SLOPES", at: "slopes_at", step: "slopes_step" },
    PerHead { kind: A::Sinks, region: "SINKS", at: "sinks_at", step: "sinks_step" },
];

/// A problem, checked, on a device.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) problem: &'a AttentionProblem,
    pub(super) profile: &'a Profile,
    pub(super) sizes: Sizes,
    /// What else lies in the buffer of the records.
    pub(super) beside: Option<Beside>,
}

/// Numbers that kernels read from the buffer of the records and of the numbers of heads: behind those, or where they are if there
/// are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    pub(super) input: Operand,
    pub(super) words: usize,
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
    pub(super) steps: [usize; 3],
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = "attention";

    fn profile(&self) -> &Profile {
        self.profile
    }
}

/// A variant that was asked for, though it can't run.
pub(super) fn refused(name: &str, reason: &str) -> Error {
    variant::refusal(<Setup<'_> as variant::Setup>::FAMILY, name, reason)
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
        Ok(Setup { problem, profile, sizes: Sizes::of(problem)?, beside: None })
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
        // An invocation of the launch before goes through the pages of its items, for the status.
        let pages = self.sizes.pages.filter(|_| self.problem.status).map_or(0, |pages| pages.each as u64 + 1);
        let rounds = self.sizes.items.div_ceil(64) as u64 * pages;
        Ok(Needs { buffers: (self.inputs(None).len() + outputs) as u64, rounds, ..Needs::default() })
    }

    /// Features of the widest head.
    pub(super) fn widest(&self) -> usize {
        self.sizes.d.max(self.sizes.dv)
    }

    /// An error if rows of the heads don't fit into the registers of a subgroup.
    pub(super) fn check_held(&self) -> Result<(), String> {
        let widest = self.widest();
        if widest > MOST_HELD {
            return Err(format!("a head of {widest} is wider than the {MOST_HELD} that it holds in registers"));
        }
        Ok(())
    }

    /// Invocations of a subgroup that holds a panel; or why none can.
    pub(super) fn lanes(&self) -> Result<usize, String> {
        let lanes = match self.profile.subgroup {
            Some((least, most)) if least == most => least as usize,
            Some((least, most)) => {
                return Err(format!("subgroups have from {least} to {most} invocations, not one size"));
            }
            None => return Err("the device has no subgroup operations".into()),
        };
        if !(4..=64).contains(&lanes) || !lanes.is_power_of_two() {
            return Err(format!("a subgroup has {lanes} invocations; the kernel is written for 4, 8, 16, 32 or 64"));
        }
        if self.sizes.d == 0 || self.sizes.dv == 0 {
            return Err("a head without columns leaves nothing to hold".into());
        }
        Ok(lanes)
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
            .on(self.profile.backend)
            .region("MASK", self.has(A::Mask))
            .region("BIAS", self.has(A::Bias))
            .region("SOFTCAP", self.problem.options.softcap.is_some())
            .region("SIDE", self.side().is_some())
            .region("ITEMS", self.has_items())
            .region("PACKED", self.sizes.packed)
            .region("PAGED", self.sizes.pages.is_some())
            .region("FUNCTIONS", self.problem.options.has_functions())
            .region("SCORE_TABLE", self.has(A::ScoreTable))
            .region("MASK_TABLE", self.has(A::MaskTable))
            .region("SCORE_MOD", !self.problem.options.score_mods.is_empty())
            .region("MASK_MOD", !self.problem.options.mask_mods.is_empty());
        let source = PER_HEAD.into_iter().fold(source, |source, per| source.region(per.region, self.has(per.kind)));
        let weight = "fn weight_of(x: f32) -> f32 { return select(exp(x), x, is_nan(x)); }";
        let weight = self.profile.clamps_exp().then(|| weight.to_string());
        let tanh = self.problem.options.softcap.map(|_| unary_wgsl(Unary::Tanh, "tanh_of"));
        let functions =
            [("score_mod", self.score_mod()), ("mask_mod", self.mask_mod()), ("weight_of", weight), ("tanh_of", tanh)];
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

    /// q, k, v and what `scores.wesl` reads, with the tiles of the mask.
    pub(super) fn inputs(&self, mask_tiles: Option<Operand>) -> Vec<Binding> {
        let mut inputs = vec![Operand::Input(0), Operand::Input(1), Operand::Input(2)];
        inputs.extend(self.input(A::Mask));
        inputs.extend(mask_tiles);
        inputs.extend(self.input(A::Bias));
        inputs.extend(self.side());
        inputs.extend([A::BlockTable, A::ScoreTable, A::MaskTable].into_iter().filter_map(|table| self.input(table)));
        inputs.into_iter().map(Binding::read).collect()
    }

    /// The operands with a number for each query head that are given, in the order in which they are gathered.
    pub(super) fn per_head(&self) -> impl Iterator<Item = PerHead> {
        PER_HEAD.into_iter().filter(|per| self.has(per.kind))
    }

    /// Whether the launch before gathers records and numbers of heads in one buffer.
    pub(super) fn gathers(&self) -> bool {
        let read_in_place = if self.beside.is_some() { 0 } else { 1 };
        self.has_items() || self.per_head().count() > read_in_place
    }

    /// Words that are gathered: records, then the numbers of heads, operand by operand.
    pub(super) fn gathered(&self) -> usize {
        self.records() * RECORD + self.per_head().count() * self.sizes.heads
    }

    /// That buffer; the numbers of one operand alone, or those beside, are read where they are.
    fn side(&self) -> Option<Operand> {
        let only = || self.per_head().find_map(|per| self.input(per.kind));
        let in_place = || self.beside.map(|beside| beside.input).or_else(only);
        if self.gathers() { Some(Operand::Workspace(0)) } else { in_place() }
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
        let source = source.region("MASK_TILES", mask_tiles.is_some()).source()?;
        Ok(Launch {
            label,
            params: source.words(&self.parameters(tiling, mask_tiles))?,
            source,
            bindings: inputs.into_iter().chain(outputs).collect(),
            grid: fold_grid(self.workgroups(tiling), self.profile, "attention")?,
            flops: self.flops(),
            exponentials: self.exponentials(),
            bytes: self.bytes() + more_bytes,
        })
    }

    /// A launch of few workgroups that looks for what another has left to do, with parameters and buffers of its own.
    pub(super) fn launch_after(
        &self,
        label: String,
        source: Specialization,
        tiling: Tiling,
        own: Parameters,
        buffers: Vec<Binding>,
        workgroups: u64,
    ) -> Result<Launch> {
        let source = source.source()?;
        Ok(Launch {
            label,
            params: source.words(&self.parameters(tiling, None).and(own))?,
            source,
            bindings: self.inputs(None).into_iter().chain(buffers).collect(),
            grid: fold_grid(workgroups, self.profile, "attention")?,
            flops: 0,
            exponentials: 0,
            bytes: 4 * self.workgroups(tiling),
        })
    }

    /// The parameters of `parameters.wesl`.
    fn parameters(&self, tiling: Tiling, mask_tiles: Option<MaskTiles>) -> Parameters {
        self.parameters_of(self.workgroups(tiling), tiling, mask_tiles)
    }

    /// The same, of another number of workgroups.
    pub(super) fn parameters_of(&self, workgroups: u64, tiling: Tiling, mask_tiles: Option<MaskTiles>) -> Parameters {
        let Setup { problem, sizes, .. } = self;
        let options = &problem.options;
        let scale = options.scale.unwrap_or_else(|| 1.0 / (sizes.d as f32).sqrt());
        let cap = options.softcap;
        let range = sizes.range(problem);
        let [lse_b, lse_h, lse_t] = self.lse_steps();
        // The step between pages comes apart, and items share them.
        let (keys, [k_page, v_page]) = match sizes.pages {
            None => ([&problem.k, &problem.v].map(|layout| self.strides(layout)), [0, 0]),
            Some(_) => {
                let steps = [&problem.k, &problem.v].map(|layout| self.strides(layout));
                (steps.map(|[_, t, h, d]| [0, h, t, d]), steps.map(|[page, ..]| page))
            }
        };
        let [k, v] = keys;
        let mut parameters = Parameters::new()
            .set("workgroups", workgroups as u32)
            .set("tiles", self.tiles(tiling) as u32)
            .set("tile_rows", tiling.rows)
            .set("splits", tiling.splits)
            .set("heads", sizes.heads)
            .set("group", sizes.group())
            .set("span", tiling.span)
            .set("rows", sizes.rows)
            .set("all_rows", self.all_rows())
            .set("records", self.records())
            .set("d", sizes.d)
            .set("dv", sizes.dv)
            .set("scale", cap.map_or(scale, |cap| scale / cap))
            .set("cap", cap.unwrap_or(0.0))
            .set("k_end", range.end)
            .set("lo", range.lo)
            .set("hi", range.hi)
            .set("offset", range.offset)
            .and(placed(["q_offset", "q_b", "q_h", "q_t", "q_d"], &problem.q, self.strides(&problem.q)))
            .and(placed(["k_offset", "k_b", "k_h", "k_t", "k_d"], &problem.k, k))
            .and(placed(["v_offset", "v_b", "v_h", "v_t", "v_d"], &problem.v, v))
            .and(placed(["out_offset", "out_b", "out_h", "out_t", "out_d"], &problem.out, self.strides(&problem.out)))
            .set("lse_b", lse_b)
            .set("lse_h", lse_h)
            .set("lse_t", lse_t);
        for (operand, names) in [
            (A::Mask, ["mask_offset", "mask_b", "mask_h", "mask_i", "mask_j"]),
            (A::Bias, ["bias_offset", "bias_b", "bias_h", "bias_i", "bias_j"]),
        ] {
            if let Some(layout) = problem.operand(operand).map(|layout| sizes.broadcast(layout)) {
                parameters = parameters.and(placed(names, &layout, self.strides(&layout)));
            }
        }
        for (n, per) in self.per_head().enumerate() {
            let Some(numbers) = problem.operand(per.kind) else { continue };
            let gathered = (self.records() * RECORD + n * sizes.heads, 1);
            let (at, step) = if self.gathers() { gathered } else { (numbers.offset, numbers.strides[0]) };
            parameters = parameters.set(per.at, at).set(per.step, step);
        }
        for (operand, last) in [(A::ScoreTable, "score_last"), (A::MaskTable, "mask_last")] {
            if let Some(elements) = problem.operand(operand).and_then(|layout| layout.shape.elements()) {
                parameters = parameters.set(last, elements.saturating_sub(1) as i32);
            }
        }
        if let Some(table) = self.table() {
            parameters = parameters.and(table.parameters()).set("page_rows", table.page_rows as u32);
        }
        parameters = parameters.set("k_page", k_page).set("v_page", v_page);
        match mask_tiles {
            None => parameters,
            Some(MaskTiles { steps: [b, h, i], .. }) => {
                parameters.set("tiles_b", b).set("tiles_h", h).set("tiles_i", i)
            }
        }
    }

    /// The block table, if k and v are paged.
    pub(super) fn table(&self) -> Option<Table> {
        let (pages, table) = (self.sizes.pages?, self.problem.operand(A::BlockTable)?);
        Some(Table {
            offset: table.offset,
            strides: [table.strides[0], table.strides[1]],
            page_rows: pages.rows.clamp(1, 1 << 30) as i32,
            last_page: pages.count.saturating_sub(1) as i32,
        })
    }

    /// Steps of the axes (B, H, T) of lse.
    pub(super) fn lse_steps(&self) -> [usize; 3] {
        let (heads, rows) = (self.sizes.heads, self.sizes.rows);
        if self.sizes.packed { [0, 1, heads] } else { [heads * rows, rows, 1] }
    }

    /// Steps of the axes (B, H, T, D); those of packed sequences are (H, T, D) in another order.
    pub(super) fn strides(&self, layout: &Layout) -> [isize; 4] {
        match layout.strides[..] {
            [b, h, t, d] => [b, h, t, d],
            [t, h, d] => [0, h, t, d],
            // Ranks are checked.
            _ => [0; 4],
        }
    }

    /// Multiplications and additions of q·k and of the weighted sum of v.
    pub(super) fn flops(&self) -> u64 {
        // Heads of nothing let sequences be as long as indices reach.
        self.exponentials().saturating_mul(2 * (self.sizes.d as u64 + self.sizes.dv as u64))
    }

    /// One for each score of a pair that may see each other.
    pub(super) fn exponentials(&self) -> u64 {
        self.sizes.pairs(self.problem).saturating_mul(self.sizes.heads as u64)
    }

    /// Every element of q, k, v, mask, bias and out once.
    fn bytes(&self) -> u64 {
        let problem = self.problem;
        let lse = if problem.lse { 4 * self.all_rows() as u64 } else { 0 };
        self.read_bytes() + distinct(&problem.out) * problem.dtypes.out.bytes() as u64 + lse
    }

    /// Every element of q, k, v, mask and bias once.
    pub(super) fn read_bytes(&self) -> u64 {
        let problem = self.problem;
        let of = |layout: &Layout, dtype: DType| distinct(layout) * dtype.bytes() as u64;
        let AttentionDTypes { q, k, v, bias, out: _ } = problem.dtypes;
        let bias = problem.operand(A::Bias).map_or(0, |layout| of(layout, bias));
        let mask = problem.operand(A::Mask).map_or(0, distinct);
        of(&problem.q, q) + of(&problem.k, k) + of(&problem.v, v) + bias + mask
    }
}

/// Where a tensor of the axes (B, H, T, D), or (B, Hq, Tq, Tk), begins, and its steps.
pub(super) fn placed([offset, names @ ..]: [&'static str; 5], layout: &Layout, strides: [isize; 4]) -> Parameters {
    let first = Parameters::new().set(offset, layout.offset);
    names.into_iter().zip(strides).fold(first, |parameters, (name, stride)| parameters.set(name, stride))
}

/// The block table, as shaders read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    offset: usize,
    /// Of (B, P).
    strides: [isize; 2],
    /// Rows of a page.
    pub(super) page_rows: i32,
    last_page: i32,
}

impl Table {
    /// Its parameters but `page_rows`.
    pub(super) fn parameters(self) -> Parameters {
        let [b, n] = self.strides;
        let placed = Parameters::new().set("table_offset", self.offset).set("table_b", b).set("table_n", n);
        placed.set("last_page", self.last_page)
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
