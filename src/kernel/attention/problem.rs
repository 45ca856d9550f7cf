//! What attention is asked to compute.

use crate::{
    DType, Layout, Shape,
    graph::{Attention, AttentionOperand},
};

/// Attention with sizes and layouts.
///
/// Inputs: `q`, `k`, `v`, then the operands in the order of `options.operands`. Outputs: `out`, then `lse` (f32) and
/// `status` (i32 `[B]`) if they are asked for.
///
/// Every layout may have any strides (0, negative) on every axis, so that heads that a projection left at
/// `[B, T, H, D]`, or one buffer that holds q, k and v side by side, need no copy. Sizes, strides and offsets are run-time
/// parameters of the shaders. D and Dv are any; some variants take up to 256, and wider heads are shared out.
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
    pub(super) fn named(self) -> [(&'static str, DType); 5] {
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

    /// The layout of one of the operands after q, k and v, if it is given.
    pub(super) fn operand(&self, operand: AttentionOperand) -> Option<&Layout> {
        self.operands.get(self.options.input_of(operand)? - 3)
    }
}
