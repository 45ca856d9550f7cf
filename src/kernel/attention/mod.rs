//! Fused attention, forward: one pass over the keys with an online softmax, no score ever in memory.
//!
//! The formula, the masks and what a row that sees nothing gives stand at [`graph::Attention`](crate::graph::Attention).

mod block_mask;
mod coop;
mod of;
mod panel;
mod parts;
mod plain;
mod setup;
mod sizes;
mod storage;
mod tiled;

use panel::Depth;
use setup::Setup;

use super::{AdapterKind, Candidate, Kernel, Problem, Profile, narrow::narrow_ones};
use crate::{
    DType, Error, Layout, Result, Shape,
    graph::{Attention, AttentionOperand},
};

/// The widest head of q, k or v that the kernels take.
const MAX_HEAD: usize = 256;

/// Attention with sizes and layouts.
///
/// Inputs: `q`, `k`, `v`, then the operands in the order of `options.operands`. Outputs: `out`, then `lse` (f32) and
/// `status` (i32 `[B]`) if they are asked for.
///
/// Every layout may have any strides (0, negative) on every axis, so that heads that a projection left at
/// `[B, T, H, D]`, or one buffer that holds q, k and v side by side, need no copy. Sizes, strides and offsets are run-time
/// parameters of the shaders; D and Dv are at most 256.
///
/// A length, offset, `cu_seqlens` entry or page that does not fit the tensors is clamped to the nearest that does, and
/// nothing outside the tensors is read; `status` says that it happened.
#[derive(Clone, Debug)]
pub struct AttentionProblem {
    /// Masks, modifiers and the meaning of the operands after q, k and v.
    pub options: Attention,
    /// How q, k, v, bias and out are stored. Lengths and offsets are i32, slopes are f32.
    pub dtypes: AttentionDTypes,
    /// `[B, Hq, Tq, D]`; packed `[ΣTq, Hq, D]`.
    pub q: Layout,
    /// `[B, Hkv, Tk, D]`; packed `[ΣTk, Hkv, D]`; paged `[pages, page size, Hkv, D]`.
    pub k: Layout,
    /// `[B, Hkv, Tk, Dv]`; packed `[ΣTk, Hkv, Dv]`; paged `[pages, page size, Hkv, Dv]`.
    pub v: Layout,
    /// One for each of `options.operands`: mask and bias with the shape that broadcasts (rank 1 to 4), the block table
    /// `[B, P]`, dense tables of functions, the others rank 1.
    pub operands: Vec<Layout>,
    /// `[B, Hq, Tq, Dv]`, packed `[ΣTq, Hq, Dv]`: how the elements of output 0 lie in its dense buffer. Another order of
    /// the axes, such as that of `[B, Tq, Hq, Dv]`, lets the heads be merged without a copy.
    pub out: Layout,
    /// Whether output 1 is `lse`, f32, dense: `[B, Hq, Tq]`, packed `[ΣTq, Hq]`.
    pub lse: bool,
    /// Whether the last output is the status, i32, an element for each item or sequence: 0 if every length and offset fits,
    /// otherwise a bit for each kind of fault (see [`AttentionFault`](crate::graph::AttentionFault)).
    pub status: bool,
}

/// The dtypes of the float operands of attention and of its result: f32, f16 or bf16 each. Scores, their statistics and
/// sums are f32 whatever they are; out is rounded once.
///
/// If q, k, v and out are f16, devices with cooperative matrices of f16 multiply v by weights that are rounded to f16, so that
/// out may be off by 2⁻¹¹·max|v| more, as much as its own rounding; lse is as for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionDTypes {
    /// Of q.
    pub q: DType,
    /// Of k.
    pub k: DType,
    /// Of v.
    pub v: DType,
    /// Of the additive bias, if there is one.
    pub bias: DType,
    /// Of out.
    pub out: DType,
}

impl Default for AttentionDTypes {
    /// f32 for all.
    fn default() -> Self {
        AttentionDTypes::all(DType::F32)
    }
}

impl AttentionDTypes {
    /// The same for all.
    pub fn all(dtype: DType) -> Self {
        AttentionDTypes { q: dtype, k: dtype, v: dtype, bias: dtype, out: dtype }
    }

    /// With names.
    fn named(self) -> [(&'static str, DType); 5] {
        [("q", self.q), ("k", self.k), ("v", self.v), ("bias", self.bias), ("out", self.out)]
    }
}

impl AttentionProblem {
    /// Attention over f32 operands with these layouts: a dense `out` in the order of its axes, no `lse`, no status.
    pub fn new(options: Attention, q: Layout, k: Layout, v: Layout, operands: Vec<Layout>) -> Self {
        let mut shape = q.shape.to_vec();
        if let (Some(last), Some(&dv)) = (shape.last_mut(), v.shape.last()) {
            *last = dv;
        }
        let out = Layout::contiguous(shape);
        let dtypes = AttentionDTypes::default();
        AttentionProblem { options, dtypes, q, k, v, operands, out, lse: false, status: false }
    }

    /// The shape of `out`.
    pub fn out_shape(&self) -> &Shape {
        &self.out.shape
    }

    /// The shape of `lse`.
    pub fn lse_shape(&self) -> Shape {
        self.q.shape[..self.q.shape.rank().saturating_sub(1)].into()
    }

    /// The shape of `status`.
    pub fn status_shape(&self) -> Shape {
        let sequences = self.operand(AttentionOperand::QueryOffsets).map(|layout| layout.shape.first());
        let items = match sequences {
            Some(entries) => entries.map_or(0, |&entries| entries.saturating_sub(1)),
            None => self.q.shape.first().copied().unwrap_or(0),
        };
        Shape::from([items])
    }

    fn operand(&self, operand: AttentionOperand) -> Option<&Layout> {
        self.operands.get(self.options.input_of(operand)? - 3)
    }
}

/// One way to run attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Plain,
    Tiled,
    SplitKv,
    Panel(Depth),
    BlockMask,
    /// On cooperative matrices of this many rows and columns.
    Coop(u32),
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
            Variant::Tiled => "tiled",
            Variant::SplitKv => "split_kv",
            Variant::Panel(Depth::Usual) => "panel",
            Variant::Panel(Depth::Deep) => "panel_deep",
            Variant::BlockMask => "block_mask",
            Variant::Coop(16) => "coop_16x16",
            Variant::Coop(_) => "coop_8x8",
        }
    }

    /// Every variant with what speaks for it here, best first.
    fn order(setup: &Setup<'_>) -> Vec<(Variant, &'static str)> {
        let plain = (Variant::Plain, "no workgroup memory, no features: runs everywhere");
        let tiled = (Variant::Tiled, "tiles of queries, keys and values in workgroup memory");
        let split = (Variant::SplitKv, "few query rows: the keys are split over workgroups");
        let panel = (Variant::Panel(Depth::Usual), "keys and values in the registers of a subgroup, for a CPU");
        let block = (Variant::BlockMask, "as tiled, without the tiles that the mask hides");
        let deep = (
            Variant::Panel(Depth::Deep),
            "panel with more keys, up to a fifth faster; compiles up to three times as long, for `tune` to find",
        );
        let coops = [16, 8].map(|size| (Variant::Coop(size), "f16 on the GPU's units for small matrices"));
        let others = match setup.profile.kind {
            // Measured on llvmpipe; the panel wins at any size.
            AdapterKind::Cpu if setup.sizes.keys <= 32 => [panel, deep, plain, tiled, block, split],
            AdapterKind::Cpu if tiled::is_flat(setup) => [panel, deep, split, tiled, block, plain],
            AdapterKind::Cpu if tiled::prefers_block_mask(setup) => [panel, deep, block, tiled, split, plain],
            AdapterKind::Cpu => [panel, deep, tiled, block, split, plain],
            AdapterKind::Gpu if tiled::prefers_split(setup) => [split, tiled, block, plain, panel, deep],
            AdapterKind::Gpu if tiled::prefers_block_mask(setup) => [block, tiled, split, plain, panel, deep],
            AdapterKind::Gpu => [tiled, block, split, plain, panel, deep],
        };
        // A CPU has no such units, and fewer rows than those of a matrix leave them idle.
        let coops_first = setup.profile.kind == AdapterKind::Gpu && coop::fills(setup);
        if coops_first { [&coops[..], &others].concat() } else { [&others[..], &coops].concat() }
    }

    /// Why the variant can't run here, if it can't.
    fn refusal(self, setup: &Setup<'_>) -> Option<String> {
        let widest = setup.sizes.d.max(setup.sizes.dv);
        if widest > MAX_HEAD {
            return Some(format!("a head of {widest} is wider than {MAX_HEAD}"));
        }
        // Split, lse is written by the launch that joins the parts.
        let lse = setup.problem.lse && self != Variant::SplitKv;
        let outputs = 1 + usize::from(lse) + usize::from(self == Variant::BlockMask);
        if let Some(refusal) = setup.refusal(outputs) {
            return Some(refusal);
        }
        match self {
            Variant::Plain => plain::refusal(setup),
            Variant::Tiled => tiled::refusal(setup),
            Variant::SplitKv => tiled::split_refusal(setup),
            Variant::Panel(depth) => panel::refusal(setup, depth),
            Variant::BlockMask => tiled::block_mask_refusal(setup),
            Variant::Coop(size) => coop::refusal(setup, size),
        }
    }

    fn kernel(self, setup: &Setup<'_>) -> Result<Kernel> {
        match self {
            Variant::Plain => plain::kernel(setup),
            Variant::Tiled => tiled::kernel(setup),
            Variant::SplitKv => tiled::split_kernel(setup),
            Variant::Panel(depth) => panel::kernel(setup, depth),
            Variant::BlockMask => tiled::block_mask_kernel(setup),
            Variant::Coop(size) => coop::kernel(setup, size),
        }
    }
}

impl Problem for AttentionProblem {
    fn family(&self) -> &'static str {
        "attention"
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        match Setup::new(self, profile) {
            Ok(setup) => Variant::order(&setup)
                .into_iter()
                .map(|(variant, reason)| match variant.refusal(&setup) {
                    Some(refusal) => Candidate::refused(variant.name(), refusal),
                    None => Candidate::usable(variant.name(), reason),
                })
                .collect(),
            Err(error) => vec![Candidate::refused(Variant::Plain.name(), error.to_string())],
        }
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        let setup = Setup::new(self, profile)?;
        let Some((variant, _)) = Variant::order(&setup).into_iter().find(|(v, _)| v.name() == variant) else {
            return Err(Error::op("attention", format!("there is no variant `{variant}`")));
        };
        if let Some(reason) = variant.refusal(&setup) {
            let reasons = vec![format!("{}: {reason}", variant.name())];
            return Err(Error::NoVariant { family: "attention", reasons });
        }
        variant.kernel(&setup)
    }

    fn summary(&self) -> String {
        let options = &self.options;
        let mut words = vec![format!("q{} k{} v{}", self.q.shape, self.k.shape, self.v.shape)];
        let there = |name| name != "bias" || self.operand(AttentionOperand::Bias).is_some();
        words.extend(narrow_ones(self.dtypes.named().into_iter().filter(|&(name, _)| there(name))));
        if options.causal {
            words.push("+causal".into());
        }
        if options.window.left.is_some() || options.window.right.is_some() {
            let side = |size: Option<u32>| size.map_or("∞".into(), |size| size.to_string());
            words.push(format!("+window({}, {})", side(options.window.left), side(options.window.right)));
        }
        if options.softcap.is_some() {
            words.push("+softcap".into());
        }
        words.extend(options.operands.iter().map(|operand| format!("+{}", operand.name())));
        let functions = [("score_mod", options.score_mods.len()), ("mask_mod", options.mask_mods.len())];
        words.extend(functions.into_iter().flat_map(|(name, count)| (0..count).map(move |_| format!("+{name}"))));
        words.extend(self.lse.then(|| "+lse".into()));
        words.extend(self.status.then(|| "+status".into()));
        words.join(" ")
    }
}
