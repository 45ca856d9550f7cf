//! The variants: shaders, tile shapes, and which of them suits a problem on a device.

use std::sync::Arc;

use super::{A, Axis, B, BIAS, MatmulProblem, RESIDUAL, View};
use crate::{
    DType, Error, Result,
    kernel::{
        AdapterKind, Binding, Candidate, Kernel, Launch, Operand, Profile, Source, Specialization, buffer_bytes,
        fold_grid, unary_wgsl,
    },
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
    /// Tiles over parts of the sum, which a second dispatch adds up.
    SplitK,
    /// Up to eight rows: b is read once.
    Vec,
    /// A panel of b in registers and rows of a broadcast through it; how the elements of a get to all lanes.
    Panel(Share),
}

/// A tile shape of `matmul_tiled.wgsl`; see there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tile {
    name: &'static str,
    /// BM and BN.
    rows: u32,
    columns: u32,
    /// KQ.
    quads: u32,
    /// TM and TQ: what an invocation computes.
    own_rows: u32,
    own_quads: u32,
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
const MEDIUM: Tile = Tile { name: "tiled_64x64", rows: 64, columns: 64, quads: 4, own_rows: 4, own_quads: 1 };
const SMALL: Tile = Tile { name: "tiled_32x32", rows: 32, columns: 32, quads: 4, own_rows: 4, own_quads: 1 };

/// Rows that [`Variant::Vec`] takes.
const VEC_ROWS: usize = 8;
/// Workgroups that occupy a large GPU; with fewer, smaller tiles or cut sums do better.
const FULL: usize = 128;
/// Terms of a sum that is worth cutting, and of its shortest part.
const LONG: usize = 1024;
const PART: usize = 256;
/// Multiplications that are done before the panel is compiled.
const SMALL_ON_CPU: usize = 1 << 16;
/// Workgroups that occupy the cores of a software adapter evenly.
const FULL_CPU: usize = 16;
/// Rows of a panel, which at the least pay for filling it.
const PANEL_ROWS: usize = 32;
/// Invocations of a workgroup where the shader has no other wish.
const WG: u32 = 64;

impl Tile {
    fn invocations(&self) -> u32 {
        self.rows / self.own_rows * (self.columns / 4 / self.own_quads)
    }

    /// As the shader's `tile_a` and `tile_b`.
    fn workgroup_bytes(&self) -> u32 {
        16 * (self.rows * (self.quads + 1) + self.quads * self.columns)
    }

    /// Terms of the sum in a tile.
    fn depth(&self) -> usize {
        4 * self.quads as usize
    }

    /// Tiles of all products.
    fn count(&self, problem: &MatmulProblem) -> usize {
        problem.products() * problem.m.div_ceil(self.rows as usize) * problem.n.div_ceil(self.columns as usize)
    }
}

impl Variant {
    const ALL: [Variant; 9] = [
        Variant::Vec,
        Variant::SplitK,
        Variant::Tiled(&LARGE),
        Variant::Tiled(&MEDIUM),
        Variant::Tiled(&SMALL),
        Variant::Panel(Share::Broadcast),
        Variant::Panel(Share::Uniform),
        Variant::Register,
        Variant::Plain,
    ];

    pub(super) fn named(name: &str) -> Result<Self> {
        Variant::ALL.into_iter().find(|variant| variant.name() == name).ok_or_else(|| {
            let known = Variant::ALL.map(Variant::name).join(", ");
            Error::op("matmul", format!("there is no variant `{name}`; there are {known}"))
        })
    }

    fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
            Variant::Register => "register",
            Variant::Tiled(tile) => tile.name,
            Variant::SplitK => "split_k",
            Variant::Vec => "vec",
            Variant::Panel(Share::Broadcast) => "panel",
            Variant::Panel(Share::Uniform) => "panel_uniform",
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
            Variant::SplitK => "few tiles and a long sum: its parts are summed side by side",
            Variant::Vec => "few rows: bound by the reading of b, which it reads once",
            Variant::Panel(Share::Broadcast) => {
                "software adapter: no workgroup memory, and few loads, which are slow there"
            }
            Variant::Panel(Share::Uniform) => {
                "as panel without subgroups; faster than it where uniform loads are one load (Mesa 26)"
            }
        }
    }

    /// Why this variant can't compute the problem here.
    fn refusal(self, problem: &MatmulProblem, profile: &Profile) -> Option<String> {
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
            let rounds = self.rounds(problem);
            if rounds > most {
                return Some(format!("K = {}: takes {rounds} rounds of loops, the driver stops at {most}", problem.k));
            }
        }
        match self {
            Variant::Plain | Variant::Register => fits(WG, 0),
            Variant::Tiled(tile) => fits(tile.invocations(), tile.workgroup_bytes()),
            Variant::SplitK => {
                let parts = problem.k.div_ceil(problem.split());
                let bytes = buffer_bytes(DType::F32, parts * problem.elements());
                if parts < 2 {
                    Some(format!("K = {}: too short a sum to cut", problem.k))
                } else if bytes > limits.binding_bytes.min(u64::from(u32::MAX)) {
                    Some(format!(
                        "needs {bytes} bytes of scratch in one binding, the limit is {}",
                        limits.binding_bytes
                    ))
                } else {
                    fits(MEDIUM.invocations(), MEDIUM.workgroup_bytes())
                }
            }
            Variant::Vec if problem.m > VEC_ROWS => Some(format!("M = {}: takes up to {VEC_ROWS} rows", problem.m)),
            Variant::Vec => {
                let (rows, slices) = problem.vec_shape();
                fits(VEC_QUADS * slices, 16 * rows * VEC_QUADS * slices)
            }
            Variant::Panel(_) if profile.kind == AdapterKind::Gpu => {
                Some("for software adapters: its panel would not fit a GPU's registers".into())
            }
            Variant::Panel(Share::Uniform) => fits(UNIFORM_LANES, 0),
            Variant::Panel(Share::Broadcast) => match profile.subgroup {
                Some((4, 4) | (8, 8) | (16, 16)) => None,
                Some((least, most)) => {
                    Some(format!("takes subgroups of exactly 4, 8 or 16, and the device has {least} to {most}"))
                }
                None => Some("the device has no subgroup operations".into()),
            },
        }
    }

    /// Rounds of all loops of an invocation together, at the most; see [`Profile::loop_rounds`].
    fn rounds(self, problem: &MatmulProblem) -> u64 {
        let k = problem.k as u64;
        // Beside the loops over K: entering and leaving, sums over slices.
        const REST: u64 = 128;
        match self {
            Variant::Plain => k + REST,
            Variant::Register | Variant::Tiled(_) | Variant::Vec => k / 4 + REST,
            Variant::SplitK => {
                let part = problem.split() as u64;
                part / 4 + k / part.max(1) + REST
            }
            Variant::Panel(_) => k.div_ceil(u64::from(problem.panel_depth())) * (PANEL_ROWS as u64 + PANEL_REST) + REST,
        }
    }

    /// The dispatches, or why there can be none.
    pub(super) fn kernel(self, problem: &MatmulProblem, profile: &Profile) -> Result<Kernel> {
        if let Some(reason) = self.refusal(problem, profile) {
            return Err(Error::NoVariant { family: "matmul", reasons: vec![format!("{}: {reason}", self.name())] });
        }
        let elements = problem.elements();
        match self {
            Variant::Plain => {
                let source = problem.result("matmul", include_str!("../../../shaders/matmul.wgsl"), true).source()?;
                problem.one_launch(self.name(), source, elements.div_ceil(WG as usize), problem.k, profile)
            }
            Variant::Register => {
                const ROWS: usize = 8;
                let source = problem
                    .squares("matmul_register", include_str!("../../../shaders/matmul_register.wgsl"))
                    .value("TM", ROWS)
                    .source()?;
                let tiles = problem.products() * problem.m.div_ceil(ROWS) * problem.n.div_ceil(4);
                problem.one_launch(self.name(), source, tiles.div_ceil(WG as usize), problem.k, profile)
            }
            Variant::Tiled(tile) => {
                let source = problem.tiled(tile, true)?;
                problem.one_launch(self.name(), source, tile.count(problem), problem.k, profile)
            }
            Variant::SplitK => problem.split_k(profile),
            Variant::Vec => {
                let (rows, slices) = problem.vec_shape();
                let source = problem
                    .squares("matmul_vec", include_str!("../../../shaders/matmul_vec.wgsl"))
                    .value("TM", rows)
                    .value("QUADS", VEC_QUADS)
                    .value("SLICES", slices)
                    .region("BY_K", problem.b.row == 1)
                    .trusted()
                    .source()?;
                // One for the rows, if there are any.
                let bands = problem.m.min(1);
                let strips = problem.n.div_ceil(4 * VEC_QUADS as usize);
                problem.one_launch(self.name(), source, problem.products() * bands * strips, problem.k, profile)
            }
            Variant::Panel(share) => {
                let lanes = match (share, profile.subgroup) {
                    (Share::Broadcast, Some((size, _))) => size,
                    _ => UNIFORM_LANES,
                };
                let depth = problem.panel_depth();
                let mut panel = problem
                    .squares("matmul_panel", include_str!("../../../shaders/matmul_panel.wgsl"))
                    .value("LANES", lanes)
                    .value("KQ", (depth / 4 / lanes).max(1))
                    .value("TQ", PANEL_QUADS)
                    .region("BROADCAST", share == Share::Broadcast)
                    .region("UNIFORM", share == Share::Uniform);
                if problem.n.is_multiple_of(4) {
                    panel = panel.function(
                        "read_out4",
                        "fn read_out4(i: u32, columns: u32) -> vec4<f32> { return out[i / 4u]; }",
                    );
                }
                let strips = problem.products() * problem.n.div_ceil((4 * PANEL_QUADS * lanes) as usize);
                // As few rows a workgroup as occupy the cores: each workgroup fills its panels anew.
                let parts = FULL_CPU.div_ceil(strips.max(1));
                // And no more than the driver's end of loops lets pass.
                let most = profile.loop_rounds().map_or(usize::MAX, |most| {
                    let panels = problem.k.div_ceil(depth as usize).max(1) as u64;
                    (most / panels).saturating_sub(PANEL_REST + 1) as usize
                });
                let rows = problem.m.div_ceil(parts).min(most).max(PANEL_ROWS);
                problem.one_launch(self.name(), panel.source()?, strips * problem.m.div_ceil(rows), rows, profile)
            }
        }
    }
}

/// Quads of columns of a workgroup of [`Variant::Vec`].
const VEC_QUADS: u32 = 8;
/// Rows of b in a panel, and quads of columns a lane: as much as compiles in about a second with LLVM 15. Half of it where
/// elements are loaded one by one, since it is the loads that take time to compile.
const PANEL_DEPTH: u32 = 64;
const PANEL_QUADS: u32 = 2;
/// Rounds of a panel beside those over its rows: entering its loops, and filling it.
const PANEL_REST: u64 = 8;
/// Lanes of a panel without subgroups.
const UNIFORM_LANES: u32 = 8;

/// Every variant with a verdict, in order of preference.
pub(super) fn candidates(problem: &MatmulProblem, profile: &Profile) -> Vec<Candidate> {
    let mut order = Variant::ALL;
    // Less is better; the order of ALL, from large to small, breaks ties.
    order.sort_by_key(|&variant| match profile.kind {
        AdapterKind::Gpu => on_gpu(variant, problem),
        AdapterKind::Cpu => on_cpu(variant, problem),
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
        Variant::SplitK if idle(&MEDIUM) && problem.k >= LONG => 1,
        Variant::Tiled(tile) if !idle(tile) => 2,
        Variant::Tiled(tile) => 3 + tile.columns as usize,
        Variant::SplitK => 1000,
        Variant::Register | Variant::Plain | Variant::Panel(_) => 1001,
    }
}

/// Panels, for a single row too, unless the product is too small to be worth their compilation.
fn on_cpu(variant: Variant, problem: &MatmulProblem) -> usize {
    let small = problem.elements() * problem.k <= SMALL_ON_CPU;
    match variant {
        Variant::Register if small => 0,
        Variant::Panel(_) => 1,
        Variant::Vec => 2,
        Variant::Register => 3,
        Variant::Tiled(_) => 4,
        Variant::Plain => 5,
        Variant::SplitK => 6,
    }
}

impl MatmulProblem {
    /// Rows of b in a panel: half where its elements are loaded one by one.
    fn panel_depth(&self) -> u32 {
        let words = self.quads(B, self.b, self.n) || self.quads(B, self.b.transposed(), self.k);
        if words { PANEL_DEPTH } else { PANEL_DEPTH / 2 }
    }

    /// Elements of the result.
    fn elements(&self) -> usize {
        self.products() * self.m * self.n
    }

    /// Terms of a part of [`Variant::SplitK`]: whole tiles, in parts that occupy the GPU but are not short.
    fn split(&self) -> usize {
        let parts = (2 * FULL / MEDIUM.count(self).max(1)).min(self.k / PART).max(2);
        self.k.div_ceil(parts).next_multiple_of(MEDIUM.depth())
    }

    /// Rows and slices of [`Variant::Vec`]: 256 invocations, or 128 where the sums of eight rows fill the memory.
    fn vec_shape(&self) -> (u32, u32) {
        let rows = self.m.clamp(1, VEC_ROWS).next_power_of_two() as u32;
        (rows, if rows > 4 { 16 } else { 32 })
    }

    /// Whether each four of a matrix's `columns` columns lie in one 16-byte word.
    fn quads(&self, operand: usize, view: View, columns: usize) -> bool {
        let whole = |stride: isize| stride % 4 == 0;
        view.column == 1
            && columns.is_multiple_of(4)
            && view.offset.is_multiple_of(4)
            && whole(view.row)
            && self.batch.iter().all(|axis| whole(axis.strides[operand]))
    }

    /// The slots of parameters and result, which every shader of the family has. Without an epilogue the sums are written.
    fn result(&self, name: &'static str, template: &'static str, epilogue: bool) -> Specialization {
        let mut slots = Specialization::new(name, template).value("BATCH_AXES", self.batch.len());
        for (operand, region, x, view) in
            [(BIAS, "BIAS", "bias", self.bias), (RESIDUAL, "RESIDUAL", "residual", self.residual)]
        {
            if let Some(view) = view.filter(|_| epilogue) {
                slots = slots.region(region, true);
                if self.quads(operand, view, self.n) {
                    slots = words_of_four(slots, x);
                }
            }
        }
        match self.activation {
            Some(function) if epilogue => slots.function("activation", unary_wgsl(function, "activation")),
            _ => slots,
        }
    }

    /// [`Self::result`], and the slots of operands and result that are read and written by quads.
    fn quad_slots(&self, name: &'static str, template: &'static str, epilogue: bool) -> Specialization {
        let mut slots = self.result(name, template, epilogue);
        if self.quads(A, self.a, self.k) {
            slots = words_of_four(slots, "a");
        }
        if self.quads(B, self.b, self.n) {
            slots = words_of_four(slots, "b");
        }
        if self.n.is_multiple_of(4) {
            let write = "fn write_out4(i: u32, columns: u32, x: vec4<f32>) { if columns > 0u { out[i / 4u] = x; } }";
            slots = slots.ty("out_word", "vec4<f32>").function("write_out4", write);
        }
        slots
    }

    /// [`Self::quad_slots`] for shaders that read b by squares: its quads may also lie along k.
    fn squares(&self, name: &'static str, template: &'static str) -> Specialization {
        let slots = self.quad_slots(name, template, true);
        if !self.quads(B, self.b.transposed(), self.k) {
            return slots;
        }
        words_of_four(slots, "b").function(
            "load_b4x4",
            "fn load_b4x4(i: u32, k: vec4<u32>, n: vec4<u32>) -> mat4x4<f32> { return transpose(mat4x4<f32>(\
             load_b4(i + n.x + k), load_b4(i + n.y + k), load_b4(i + n.z + k), load_b4(i + n.w + k))); }",
        )
    }

    fn tiled(&self, tile: &Tile, epilogue: bool) -> Result<Arc<Source>> {
        let invocations = tile.invocations();
        self.quad_slots("matmul_tiled", include_str!("../../../shaders/matmul_tiled.wgsl"), epilogue)
            .value("BM", tile.rows)
            .value("BN", tile.columns)
            .value("KQ", tile.quads)
            .value("TM", tile.own_rows)
            .value("TQ", tile.own_quads)
            .value("LA", tile.rows * tile.quads / invocations)
            .value("LB", tile.quads * tile.columns / invocations)
            .region("A_BY_M", self.a.row == 1)
            .region("B_BY_K", self.b.row == 1)
            .trusted()
            .source()
    }

    fn split_k(&self, profile: &Profile) -> Result<Kernel> {
        let part = self.split();
        let parts = self.k.div_ceil(part);
        let partial_bytes = buffer_bytes(DType::F32, parts * self.elements());
        let [a, b, rest @ ..] = &self.bindings()[..] else { unreachable!("a product has two operands") };
        let partials = Operand::Scratch(0);
        let grid = |workgroups: usize| fold_grid(workgroups as u64, profile, "matmul");
        let product = Launch {
            label: "split_k: product".into(),
            source: self.tiled(&MEDIUM, false)?,
            bindings: vec![*a, *b, Binding::write(partials)],
            // The epilogue comes with the sum of the parts.
            params: MatmulProblem { scale: 1.0, ..self.clone() }.params(part),
            grid: grid(parts * MEDIUM.count(self))?,
            flops: self.flops(),
            bytes: self.bytes,
        };
        let sum = Launch {
            label: "split_k: sum".into(),
            source: self.result("matmul_reduce", include_str!("../../../shaders/matmul_reduce.wgsl"), true).source()?,
            bindings: [&[Binding::read(partials)], rest].concat(),
            params: self.params(part),
            grid: grid(self.elements().div_ceil(WG as usize))?,
            flops: 0,
            bytes: partial_bytes,
        };
        Ok(Kernel { launches: vec![product, sum], scratch: vec![partial_bytes] })
    }

    fn one_launch(
        &self,
        label: &str,
        source: Arc<Source>,
        workgroups: usize,
        part: usize,
        profile: &Profile,
    ) -> Result<Kernel> {
        let launch = Launch {
            label: label.into(),
            source,
            bindings: self.bindings(),
            params: self.params(part),
            grid: fold_grid(workgroups as u64, profile, "matmul")?,
            flops: self.flops(),
            bytes: self.bytes,
        };
        Ok(Kernel { launches: vec![launch], scratch: Vec::new() })
    }

    fn flops(&self) -> u64 {
        2 * self.elements() as u64 * self.k as u64
    }

    /// Inputs in order, then the output.
    fn bindings(&self) -> Vec<Binding> {
        let options = usize::from(self.bias.is_some()) + usize::from(self.residual.is_some());
        let inputs = self.factors.into_iter().chain(2..2 + options);
        let mut bindings: Vec<Binding> = inputs.map(|i| Binding::read(Operand::Input(i))).collect();
        bindings.push(Binding::write(Operand::Output(0)));
        bindings
    }

    /// The words of the shaders' `Params`.
    fn params(&self, part: usize) -> Vec<u32> {
        let sizes = [self.m, self.n, self.k, self.products(), part];
        // Indices are sums modulo 2³², so that negative strides need no sign.
        let word = |stride: isize| stride as u32;
        let mut params: Vec<u32> = sizes.map(|size| size as u32).into();
        params.push(self.scale.to_bits());
        let absent = View { offset: 0, row: 0, column: 0 };
        for view in [self.a, self.b, self.bias.unwrap_or(absent), self.residual.unwrap_or(absent)] {
            params.extend([view.offset as u32, word(view.row), word(view.column)]);
        }
        for &Axis { size, strides } in self.batch.iter().rev() {
            params.push(size as u32);
            params.extend(strides.map(word));
        }
        params
    }
}

/// Sets the slots of an operand whose quads are words.
fn words_of_four(slots: Specialization, x: &str) -> Specialization {
    slots
        .ty(&format!("{x}_word"), "vec4<f32>")
        .function(&format!("load_{x}"), format!("fn load_{x}(i: u32) -> f32 {{ return {x}[i / 4u][i % 4u]; }}"))
        .function(&format!("load_{x}4"), format!("fn load_{x}4(i: vec4<u32>) -> vec4<f32> {{ return {x}[i.x / 4u]; }}"))
}
