//! The variants: shaders, tile shapes, and which of them suits a problem on a device.

use super::{
    A, B, MatmulProblem,
    coop::Coop,
    slots::{Along, Stage},
};
use crate::{
    DType, Error, Result,
    kernel::{AdapterKind, Candidate, Profile, long::has_eights},
};

/// How a product is computed: a shader and its tile shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// One element an invocation.
    Plain,
    /// Eight rows by four columns an invocation.
    Register,
    /// Tiles in workgroup memory.
    Tiled(&'static Tile),
    /// Matrices of this many rows and columns that subgroups multiply.
    Coop(u32),
    /// Tiles over parts of the sum, which a second dispatch adds up.
    SplitK,
    /// Up to eight rows: b is read once.
    Vec,
    /// As many rows, by single subgroups without workgroup memory.
    Subgroup,
    /// A panel of b in registers, and rows of a that go through it.
    Panel(&'static Panel),
}

/// A tile shape of `matmul_tiled.wgsl`; see there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tile {
    name: &'static str,
    /// BM and BN.
    pub(super) rows: u32,
    pub(super) columns: u32,
    /// KQ.
    pub(super) quads: u32,
    /// TM and TQ: what an invocation computes.
    pub(super) own_rows: u32,
    pub(super) own_quads: u32,
}

/// A panel shape of `matmul_panel.wgsl`; see there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panel {
    name: &'static str,
    pub(super) share: Share,
    /// BK where b is loaded in quads, for sums that are as long; half of it where its elements are loaded one by one, since it
    /// is the loads that take time to compile.
    depth: u32,
    /// Terms of a sum that the panel is worth compiling for.
    least: usize,
}

impl Panel {
    /// Whether it reads eight elements of this dtype as a word, which pays where every load goes lane by lane.
    pub(super) fn has_octs(&self, dtype: DType, profile: &Profile) -> bool {
        self.share == Share::Broadcast && !profile.shares_loads() && has_eights(dtype, profile)
    }

    /// Whether it reads eight elements of a as a word: also where all lanes read the same, since a driver that shares the
    /// load checks the bounds of each component, of four words of 64 bits in place of eight f32.
    pub(super) fn octs_of_a(&self, problem: &MatmulProblem, profile: &Profile) -> bool {
        let pays = self.share == Share::Uniform || !profile.shares_loads();
        pays && has_eights(problem.dtypes[A], profile) && problem.octs(A, problem.a, problem.k)
    }

    /// The axis along which it reads eight elements of b as a word, if it does.
    pub(super) fn octs_of_b(&self, problem: &MatmulProblem, profile: &Profile) -> Option<Along> {
        if problem.quantized.is_some() || !self.has_octs(problem.dtypes[B], profile) {
            None
        } else if problem.octs(B, problem.b, problem.n) {
            Some(Along::N)
        } else {
            problem.octs(B, problem.b.transposed(), problem.k).then_some(Along::K)
        }
    }

    /// Rows of b that it holds.
    pub(super) fn depth(&self, problem: &MatmulProblem, profile: &Profile) -> u32 {
        let octs = self.octs_of_b(problem, profile).is_some();
        let quads = problem.quads(B, problem.b, problem.n) || problem.quads(B, problem.b.transposed(), problem.k);
        let depth = if octs { DEEP.depth } else { self.depth };
        let depth = if problem.k <= BROADCAST.depth as usize { BROADCAST.depth } else { depth };
        if octs || quads { depth } else { depth / 2 }
    }

    /// Rows of a that go through it together. With subgroups of four (SwiftShader) two take twice as long as one after the other.
    pub(super) fn rows(problem: &MatmulProblem, profile: &Profile) -> u32 {
        let wide = profile.subgroup.is_some_and(|(least, _)| least >= 8);
        if wide && problem.m >= PAIRS { 2 } else { 1 }
    }
}

/// How an element of a gets to all lanes of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// One lane loads it and broadcasts it.
    Broadcast,
    /// Every lane loads it.
    Uniform,
}

const LARGE: Tile = Tile { name: "tiled_128x128", rows: 128, columns: 128, quads: 2, own_rows: 8, own_quads: 2 };
pub(super) const MEDIUM: Tile =
    Tile { name: "tiled_64x64", rows: 64, columns: 64, quads: 4, own_rows: 4, own_quads: 1 };
const SMALL: Tile = Tile { name: "tiled_32x32", rows: 32, columns: 32, quads: 4, own_rows: 4, own_quads: 1 };

/// As deep as compiles in about a second with LLVM 15.
const BROADCAST: Panel = Panel { name: "panel", share: Share::Broadcast, depth: 64, least: 1 };
/// Reads and writes of sums count half as much: 1.1 to 1.25 times as fast. Compiles three times as long.
const DEEP: Panel = Panel { name: "panel_deep", share: Share::Broadcast, depth: 128, least: 384 };
const UNIFORM: Panel = Panel { name: "panel_uniform", share: Share::Uniform, depth: 128, least: 1 };

/// Rows from which on two of them at once pay for the longer text.
const PAIRS: usize = 128;
/// Rows that [`Variant::Vec`] and [`Variant::Subgroup`] take.
const VEC_ROWS: usize = 8;
/// Rows whose sums take few registers.
const FEW_ROWS: usize = 4;
/// Columns so few that many lanes of a panel would have none: [`Variant::Register`] takes 0.2 to 1 of the time.
const FEW_COLUMNS: usize = 12;
/// Terms that give all lanes of [`Variant::Subgroup`] some, and from which on it does well with more rows than these.
const SHORT_ON_CPU: usize = 64;
const LONG_ON_CPU: usize = 2048;
/// Workgroups that occupy a large GPU; with fewer, smaller tiles or cut sums do better.
pub(super) const FULL: usize = 128;
/// Terms of a sum that is worth cutting, and of its shortest part.
const LONG: usize = 1024;
const PART: usize = 256;
/// Multiplications that are done before the panel is compiled.
const SMALL_ON_CPU: usize = 1 << 16;
/// Multiplications that are worth compiling the deep panel.
const LARGE_ON_CPU: usize = 1 << 27;
/// Workgroups that occupy the cores of a software adapter evenly.
const FULL_CPU: usize = 16;
/// Rows of a panel, which at the least pay for filling it.
const PANEL_ROWS: usize = 32;
/// Invocations of a workgroup where the shader has no other wish.
pub(super) const WG: u32 = 64;

impl Tile {
    pub(super) fn invocations(&self) -> u32 {
        self.rows / self.own_rows * (self.columns / 4 / self.own_quads)
    }

    /// As the shader's `tile_a` and `tile_b`.
    fn workgroup_bytes(&self) -> u32 {
        16 * (self.rows * (self.quads + 1) + self.quads * self.columns)
    }

    /// Terms of the sum in a tile.
    pub(super) fn depth(&self) -> usize {
        4 * self.quads as usize
    }

    /// Tiles of all products.
    pub(super) fn count(&self, problem: &MatmulProblem) -> usize {
        problem.products() * problem.m.div_ceil(self.rows as usize) * problem.n.div_ceil(self.columns as usize)
    }
}

impl Variant {
    const ALL: [Variant; 13] = [
        Variant::Vec,
        Variant::Subgroup,
        Variant::Coop(16),
        Variant::Coop(8),
        Variant::SplitK,
        Variant::Tiled(&LARGE),
        Variant::Tiled(&MEDIUM),
        Variant::Tiled(&SMALL),
        Variant::Panel(&BROADCAST),
        Variant::Panel(&UNIFORM),
        Variant::Panel(&DEEP),
        Variant::Register,
        Variant::Plain,
    ];

    pub(super) fn named(name: &str) -> Result<Self> {
        Variant::ALL.into_iter().find(|variant| variant.name() == name).ok_or_else(|| {
            let known = Variant::ALL.map(Variant::name).join(", ");
            Error::op("matmul", format!("there is no variant `{name}`; there are {known}"))
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
            Variant::Register => "register",
            Variant::Tiled(tile) => tile.name,
            Variant::Coop(16) => "coop_16x16",
            Variant::Coop(_) => "coop_8x8",
            Variant::SplitK => "split_k",
            Variant::Vec => "vec",
            Variant::Subgroup => "subgroup",
            Variant::Panel(panel) => panel.name,
        }
    }

    /// When this is the variant to take.
    fn reason(self) -> &'static str {
        match self {
            Variant::Plain => "runs everywhere; for the smallest products",
            Variant::Register => "needs no workgroup memory and no feature",
            Variant::Tiled(tile) if *tile == LARGE => "the most work per byte, where its tiles occupy the GPU",
            Variant::Tiled(tile) if *tile == MEDIUM => "where larger tiles would leave the GPU idle",
            Variant::Tiled(_) => "for small results",
            Variant::Coop(_) => {
                "f16 operands: the GPU's units for small matrices, several times faster than its others"
            }
            Variant::SplitK => "few tiles and a long sum: its parts are summed side by side",
            Variant::Vec => "few rows: bound by the reading of b, which it reads once",
            Variant::Subgroup => "few rows: reads b once, without workgroup memory, which is slow on software adapters",
            Variant::Panel(panel) if *panel == DEEP => {
                "large products on a software adapter: panel with fewer reads and writes of sums; compiles three times as long"
            }
            Variant::Panel(Panel { share: Share::Broadcast, .. }) => {
                "software adapter: no workgroup memory, and few loads, which are slow there"
            }
            Variant::Panel(_) => {
                "as panel without subgroups; faster than it where uniform loads are one load (Mesa 26)"
            }
        }
    }

    /// Why this variant can't compute the problem here.
    pub(super) fn refusal(self, problem: &MatmulProblem, profile: &Profile) -> Option<String> {
        if problem.k == 0 && self != Variant::Plain {
            return Some("K = 0: there is nothing to sum".into());
        }
        let limits = &profile.limits;
        let fits = |invocations: u32, bytes: u32| {
            if invocations > limits.workgroup_invocations.min(limits.workgroup_size_x) {
                Some(format!(
                    "needs {invocations} invocations a workgroup, the limit is {}",
                    limits.workgroup_invocations
                ))
            } else if bytes > limits.workgroup_bytes {
                Some(format!("needs {bytes} bytes of workgroup memory, the limit is {}", limits.workgroup_bytes))
            } else {
                None
            }
        };
        if let Some(most) = profile.loop_rounds() {
            let rounds = self.rounds(problem, profile);
            if rounds > most {
                return Some(format!("K = {}: takes {rounds} rounds of loops, the driver stops at {most}", problem.k));
            }
        }
        let scratch = self.scratch_bytes(problem);
        if scratch > limits.binding_bytes.min(u64::from(u32::MAX)) {
            return Some(format!(
                "needs {scratch} bytes of scratch in one binding, the limit is {}",
                limits.binding_bytes
            ));
        }
        match self {
            Variant::Plain | Variant::Register => fits(WG, 0),
            Variant::Coop(size) => Coop::of(size, problem, profile).err(),
            Variant::Tiled(tile) => fits(tile.invocations(), tile.workgroup_bytes()),
            Variant::SplitK => {
                if problem.k.div_ceil(problem.split()) < 2 {
                    Some(format!("K = {}: too short a sum to cut", problem.k))
                } else {
                    fits(MEDIUM.invocations(), MEDIUM.workgroup_bytes())
                }
            }
            // Its sums are in registers, and so is a line of b that broadcasts meet.
            Variant::Subgroup
                if profile.kind == AdapterKind::Gpu && (problem.m > FEW_ROWS || !problem.b_dense_by_k()) =>
            {
                Some(format!("takes up to {FEW_ROWS} rows and a b that is dense along k, but on software adapters"))
            }
            Variant::Vec | Variant::Subgroup if problem.m > VEC_ROWS => {
                Some(format!("M = {}: takes up to {VEC_ROWS} rows", problem.m))
            }
            Variant::Vec => {
                let (rows, slices) = problem.vec_shape();
                fits(VEC_QUADS * slices, 16 * rows * VEC_QUADS * slices)
            }
            Variant::Panel(_) if profile.kind == AdapterKind::Gpu => {
                Some("for software adapters: its panel would not fit a GPU's registers".into())
            }
            Variant::Panel(panel) if problem.k < panel.least => {
                Some(format!("K = {}: for sums of {} terms and more", problem.k, panel.least))
            }
            Variant::Panel(panel)
                if *panel == DEEP && BROADCAST.depth(problem, profile) == DEEP.depth(problem, profile) =>
            {
                Some("panel is as deep".into())
            }
            Variant::Panel(Panel { share: Share::Uniform, .. }) => fits(UNIFORM_LANES, 0),
            Variant::Subgroup => match profile.fixed_subgroup() {
                Some(4 | 8 | 16 | 32 | 64) => None,
                _ => Some("takes subgroups of one size, from 4 to 64, which the device does not promise".into()),
            },
            Variant::Panel(_) => match profile.subgroup {
                Some((4, 4) | (8, 8) | (16, 16)) => None,
                Some((least, most)) => {
                    Some(format!("takes subgroups of exactly 4, 8 or 16, and the device has {least} to {most}"))
                }
                None => Some("the device has no subgroup operations".into()),
            },
        }
    }

    /// Bytes of its scratch buffer.
    fn scratch_bytes(self, problem: &MatmulProblem) -> u64 {
        match (self, problem.stage()) {
            (Variant::SplitK, _) => problem.sums_bytes(problem.split()),
            (Variant::Plain, _) => 0,
            (_, Stage::Sums) => problem.sums_bytes(problem.k),
            (Variant::Panel(_), Stage::Result) if problem.out != DType::F32 => problem.quads_bytes(),
            (_, Stage::Result) => 0,
        }
    }

    /// Rounds of all loops of an invocation together, at the most; see [`Profile::loop_rounds`].
    fn rounds(self, problem: &MatmulProblem, profile: &Profile) -> u64 {
        let k = problem.k as u64;
        // Beside the loops over K: entering and leaving, sums over slices.
        const REST: u64 = 128;
        match self {
            Variant::Plain => per_word(problem.out) as u64 * k + REST,
            Variant::Register | Variant::Tiled(_) | Variant::Vec => k / 4 + REST,
            // Eight terms of each of four lanes or more.
            Variant::Subgroup => k / 32 + REST,
            Variant::SplitK => {
                let part = problem.split() as u64;
                part / 4 + k / part.max(1) + REST
            }
            Variant::Coop(size) => k / u64::from(size) + REST,
            Variant::Panel(panel) => {
                // The epilogue may have a loop of its own.
                (k.div_ceil(u64::from(panel.depth(problem, profile))) + 1) * (PANEL_ROWS as u64 + PANEL_REST) + REST
            }
        }
    }
}

/// Columns of a workgroup of [`Variant::Subgroup`] for so many rows, where its lanes share out sums: enough to pay for reading
/// the rows.
pub(super) fn subgroup_columns(rows: u32) -> u32 {
    if rows > FEW_ROWS as u32 { 32 } else { 16 }
}

/// Quads of columns of a workgroup of [`Variant::Vec`].
pub(super) const VEC_QUADS: u32 = 8;
/// Rounds of a panel beside those over its rows: entering its loops, and filling it.
const PANEL_REST: u64 = 8;
/// Lanes of a panel without subgroups.
pub(super) const UNIFORM_LANES: u32 = 8;

/// Every variant with a verdict, in order of preference.
pub(super) fn candidates(problem: &MatmulProblem, profile: &Profile) -> Vec<Candidate> {
    let mut order = Variant::ALL;
    // Less is better; the order of ALL, from large to small, breaks ties.
    order.sort_by_key(|&variant| match profile.kind {
        AdapterKind::Gpu => on_gpu(variant, problem),
        AdapterKind::Cpu => on_cpu(variant, problem, profile),
    });
    let verdict = |variant: Variant| match variant.refusal(problem, profile) {
        None => Candidate::usable(variant.name(), variant.reason()),
        Some(reason) => Candidate::refused(variant.name(), reason),
    };
    order.map(verdict).into()
}

/// The largest tiles that occupy the GPU, then those nearest to it; cut sums where no tiles do.
fn on_gpu(variant: Variant, problem: &MatmulProblem) -> usize {
    let idle = |tile: &Tile| tile.count(problem) < FULL;
    match variant {
        Variant::Vec => 0,
        Variant::Coop(_) => 1,
        Variant::SplitK if idle(&MEDIUM) && problem.k >= LONG => 2,
        Variant::Tiled(tile) if !idle(tile) => 3,
        Variant::Tiled(tile) => 4 + tile.columns as usize,
        Variant::SplitK => 1000,
        Variant::Register | Variant::Plain | Variant::Panel(_) | Variant::Subgroup => 1001,
    }
}

/// Subgroups for few rows, registers for few columns, panels for more, unless the product is too small to be worth their
/// compilation.
fn on_cpu(variant: Variant, problem: &MatmulProblem, profile: &Profile) -> usize {
    let multiplications = problem.elements() * problem.k;
    let (small, large) = (multiplications <= SMALL_ON_CPU, multiplications >= LARGE_ON_CPU);
    match variant {
        Variant::Register if small => 0,
        Variant::Subgroup if problem.suits_subgroups(profile) => 1,
        // The lanes of a panel are columns, and most would have none.
        Variant::Register if problem.n <= FEW_COLUMNS => 2,
        Variant::Panel(&UNIFORM) if profile.shares_loads() && problem.m > VEC_ROWS => 3,
        Variant::Panel(&DEEP) if large => 4,
        Variant::Panel(&BROADCAST) => 5,
        Variant::Panel(_) => 6,
        Variant::Subgroup => 7,
        Variant::Vec => 8,
        Variant::Register => 9,
        Variant::Tiled(_) => 10,
        Variant::Plain => 11,
        Variant::SplitK => 12,
        // For tests: see the quirk.
        Variant::Coop(_) => 13,
    }
}

/// Elements in a word of a result.
pub(super) fn per_word(dtype: DType) -> usize {
    DType::U32.bytes() / dtype.bytes()
}

impl MatmulProblem {
    /// Elements of the result.
    pub(super) fn elements(&self) -> usize {
        self.products() * self.m * self.n
    }

    /// Terms of a part of [`Variant::SplitK`]: whole tiles, in parts that occupy the GPU but are not short.
    pub(super) fn split(&self) -> usize {
        let parts = (2 * FULL / MEDIUM.count(self).max(1)).min(self.k / PART).max(2);
        self.k.div_ceil(parts).next_multiple_of(MEDIUM.depth())
    }

    /// Rows that [`Variant::Vec`] and [`Variant::Subgroup`] compute.
    pub(super) fn vec_rows(&self) -> u32 {
        self.m.clamp(1, VEC_ROWS).next_power_of_two() as u32
    }

    /// Rows and slices of [`Variant::Vec`]: 256 invocations, or 128 where the sums of eight rows fill the memory.
    pub(super) fn vec_shape(&self) -> (u32, u32) {
        let rows = self.vec_rows();
        (rows, if rows > FEW_ROWS as u32 { 16 } else { 32 })
    }

    /// Workgroups that share out the columns, so many each; none if there are no rows.
    pub(super) fn vec_strips(&self, columns: u32) -> usize {
        self.products() * self.m.min(1) * self.n.div_ceil(columns as usize)
    }

    /// Whether b is dense along k, as the weights of a linear layer are.
    pub(super) fn b_dense_by_k(&self) -> bool {
        self.b.row == 1
    }

    /// Whether single subgroups are faster than panels, which hold b until the last row has passed: see the head of
    /// `matmul_subgroup.wgsl`.
    fn suits_subgroups(&self, profile: &Profile) -> bool {
        let few = self.m == 1 || self.m <= FEW_ROWS && (self.b_dense_by_k() || profile.shares_loads());
        let long = self.m <= VEC_ROWS && self.b_dense_by_k() && self.k >= LONG_ON_CPU;
        self.k >= SHORT_ON_CPU && (few || long)
    }

    /// Rows that a workgroup of [`Variant::Panel`] takes, with so many strips of columns.
    pub(super) fn panel_rows(&self, panel: &Panel, strips: usize, profile: &Profile) -> usize {
        // As few as occupy the cores: each workgroup fills its panels anew.
        let parts = FULL_CPU.div_ceil(strips.max(1));
        // And no more than the driver's end of loops lets pass.
        let most = profile.loop_rounds().map_or(usize::MAX, |most| {
            let panels = self.k.div_ceil(panel.depth(self, profile) as usize).max(1) as u64;
            (most / (panels + 1)).saturating_sub(PANEL_REST + 1) as usize
        });
        self.m.div_ceil(parts).min(most).max(PANEL_ROWS)
    }
}
