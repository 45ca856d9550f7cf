use serde::{Deserialize, Serialize};

use super::{Attention, Binary, Unary, operand::check_count};
use crate::{
    Error, Result,
    tensor::{DType, Shape, Tensor, quantize::Packing},
};

/// What a node computes: `operands → results`. An operand in brackets may be left out; `…` stands for any leading axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Op {
    /// `→ shape`: a tensor that is given for each run.
    Input {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Shape,
    },
    /// `→ shape`: a tensor that is given once, when the program is loaded.
    Parameter {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Shape,
    },
    /// `→ shape of value`: a tensor that is part of the graph.
    Constant {
        /// The value.
        value: Tensor,
    },

    /// `a [… M K], b [… K N] → [… M N]`: `y[i, j] = Σ_k a[i, k] · b[k, j]`, summed in f32; leading axes broadcast. A
    /// transposed operand is given with its last two axes swapped. An operand of rank 1 is a row (a) or a column (b),
    /// as in NumPy, and the result lacks that axis. Both are floats of one dtype, which the result has too.
    ///
    /// Gradient: `dA = dY·Bᵀ`, `dB = Aᵀ·dY`, summed over broadcast axes.
    Matmul {
        /// `a` is `[… K M]`.
        #[serde(default)]
        transpose_a: bool,
        /// `b` is `[… N K]`.
        #[serde(default)]
        transpose_b: bool,
    },
    /// Scaled dot-product attention; see [`Attention`], also for its gradient.
    Attention(Attention),
    /// The gradient of [`Attention`], fused: no score and no weight is stored.
    ///
    /// `q, k, v, […], dout, statistics → dq, dk, dv, [dbias], [dslopes]`, all f32, with the operands of the attention first. dout f32 has
    /// the shape of `out`; statistics f32 `[2, …]` are the `lse` and Δ of each row, `Δ_i = Σ_c dout_ic·out_ic − dlse_i`. With
    /// `P_ij = seen · exp(s_ij − lse_i)`:
    ///
    /// ```text
    /// dv = Pᵀ·dout        dS = P∘(dout·vᵀ − Δ)        dT = scale·dS∘(1 − (softcap(s)/c)²)        dq = dT·k        dk = dTᵀ·q
    /// ```
    ///
    /// dbias is dS summed over axes along which the bias is repeated: over the keys if it is one number for all of them
    /// (`[B, Hq, Tq, 1]`), else over the queries if it is one for all of those (`[B, Hq, 1, columns]`), else over the items and heads
    /// that share it (`[B or 1, Hq or 1, Tq, columns]`). dslopes, of the shape of `lse`, is `Σ_j dS_ij·(j − (i + offset))`.
    ///
    /// Not over pages, nor with score functions. Its own gradient is refused. FlashAttention-2 (Dao, 2023).
    AttentionGrad(Attention),
    /// `x [… n], [weight n], [bias n] → y [… n], mean f32 […], rstd f32 […]`: `y = (x − mean)·rstd · weight + bias`
    /// with `mean = Σx/n`, `rstd = 1/√(Σ(x − mean)²/n + ε)`, where n stands for the last `axes` axes. `weight` and
    /// `bias` broadcast to those axes and have the dtype of x. Ba, Kiros and Hinton, 2016.
    ///
    /// Squares are summed in f32, as PyTorch does: where Σ(x − mean)² is over 3.4·10³⁸, `rstd` is 0 and y is the bias. Scale x
    /// first if it is that large.
    ///
    /// Gradient, with `x̂ = (x − mean)·rstd` and `dx̂ = dy·weight`: `dx = rstd·(dx̂ − Σdx̂/n − x̂·Σ(dx̂·x̂)/n) + dmean/n −
    /// drstd·rstd²·x̂/n`, `dweight = Σ dy·x̂`, `dbias = Σ dy`.
    LayerNorm {
        /// How many trailing axes are normalised together.
        axes: usize,
        /// ε, inside the root.
        epsilon: f32,
        /// `weight` is given.
        weight: bool,
        /// `bias` is given.
        bias: bool,
    },
    /// `x [… n], [weight n] → y [… n], rstd f32 […]`: `y = x·rstd · weight` with `rstd = 1/√(Σx²/n + ε)`, where n
    /// stands for the last `axes` axes. `weight` broadcasts to those axes and has the dtype of x. Zhang and Sennrich,
    /// 2019.
    ///
    /// Squares are summed in f32, as PyTorch does: where Σx² is over 3.4·10³⁸ (1,000 elements of 10¹⁸), `rstd` is 0 and y is 0.
    /// The f64 reference gives what the formula says, and a comparison with it then
    /// [proves nothing](crate::reference::compare::Bound::is_blunt). Scale x first if it is that large.
    ///
    /// Gradient, with `x̂ = x·rstd` and `dx̂ = dy·weight`: `dx = rstd·(dx̂ − x̂·Σ(dx̂·x̂)/n) − drstd·rstd²·x̂/n`,
    /// `dweight = Σ dy·x̂`.
    RmsNorm {
        /// How many trailing axes are normalised together.
        axes: usize,
        /// ε, inside the root.
        epsilon: f32,
        /// `weight` is given.
        weight: bool,
    },
    /// `x → y` of the same shape: `y_i = exp(x_i − m)/Σ_j exp(x_j − m)` along an axis, m the maximum. Where all of a
    /// line is −inf, y is 0. A NaN or +inf makes all of its line NaN. Gradient: `dx = y·(dy − Σ y·dy)`.
    Softmax {
        /// The axis.
        axis: usize,
    },
    /// `x → y` of the same shape: `y_i = x_i − m − log Σ_j exp(x_j − m)` along an axis, m the maximum. Where all of a
    /// line is −inf, y is −inf. A NaN or +inf makes all of its line NaN. Gradient: `dx = dy − e^y·Σ dy`.
    LogSoftmax {
        /// The axis.
        axis: usize,
    },
    /// `logits [… C], targets i32 […], [weight f32 C] → loss f32 […], lse f32 […], weight f32 […]`: how far each row's softmax is
    /// from the class that its target names, as PyTorch's `cross_entropy` with `reduction="none"`:
    ///
    /// ```text
    /// lse = m + log Σ_c exp(x_c − m), m the maximum        w_t = weight[t], or 1
    /// loss = (1 − ε)·w_t·(lse − x_t) + ε/C·Σ_c w_c·(lse − x_c)
    /// ```
    ///
    /// The third result is w_t, by whose sum PyTorch's weighted mean divides. All is summed in f32, and no probability is
    /// stored. ε smooths labels (Szegedy et al., 2016).
    ///
    /// A row whose target is `ignore`, or is no class (the device can't raise an error), is ignored: its loss and its weight
    /// are 0, and its lse is what it is. A logit of −inf has probability 0: where the target's is −inf, or any with ε > 0,
    /// the loss is +inf. The lse of a row of −inf alone is −inf. A NaN or +inf among the logits makes lse and loss NaN.
    ///
    /// Gradient, with `p_c = exp(x_c − lse)`, and without what `dloss` brings for rows that are ignored: `dx_c = dloss·(((1 −
    /// ε)·w_t + ε/C·Σw)·p_c − (1 − ε)·w_t·[c = t] − ε/C·w_c) + dlse·p_c`. None passes through the weights.
    CrossEntropy {
        /// A target that is ignored.
        #[serde(default)]
        ignore: Option<i32>,
        /// ε, from 0 to 1.
        #[serde(default)]
        smoothing: f32,
        /// `weight` is given.
        weight: bool,
    },

    /// `x → f(x)` of the same shape: one function of each element. Gradient: `dx = dy·f'(x)`; 0 at kinks.
    Unary {
        /// The function.
        function: Unary,
    },
    /// `a, b → f(a, b)`: one function of two elements, of the shape that NumPy's broadcasting gives. Gradient: `da = dy·∂f/∂a`,
    /// `db = dy·∂f/∂b`, summed over broadcast axes; equal operands of a maximum or minimum have half each.
    Binary {
        /// The function.
        function: Binary,
    },
    /// `condition bool, a, b → condition ? a : b`, of the shape that NumPy's broadcasting gives. Gradient: `da = condition ?
    /// dy : 0`, `db = condition ? 0 : dy`.
    Where,
    /// `x → y` of the same shape in another dtype. Floats are rounded to nearest, ties to even; float to integer
    /// truncates towards zero and saturates; between i32 and u32 the bits stay; all but 0 is true, and true is 1.
    ///
    /// A NaN stays NaN in f32, f16 and bf16, an infinity stays what it is, and a number that is over the largest of the dtype by
    /// half a step or more becomes infinite. To i32 and u32 a NaN is 0, +inf the highest number and −inf the lowest. To bool NaN
    /// and infinities are true. Wherever a kernel stores a narrow dtype, it rounds so too.
    Cast {
        /// The dtype of the result.
        dtype: DType,
    },

    /// `x, seed i32|u32 [4] → y` of the shape and dtype of x, a float: each element is dropped with probability p, and the others are
    /// made larger so that the mean stays (Srivastava et al., 2014), as PyTorch's `dropout` does when it trains:
    ///
    /// ```text
    /// y_i = x_i · keep_i / (1 − p)        keep_i = 1 if word_i ≥ threshold, else 0        threshold = round(p · 2³²)
    /// ```
    ///
    /// Which are kept follows from the operands alone, and the gradient draws the same again; nothing is stored. The words
    /// are those of Philox 4×32-10 (Salmon et al., 2011): `word_i`, of element i in row-major order, is word `i mod 4` of the
    /// block with the counter `(i div 4, stream, seed[2], seed[3])` and the key `(seed[0], seed[1])`, lowest words first, the bits
    /// of an i32 taken as they are. Of p the nearest multiple of 2⁻³² counts, halves rounded up.
    ///
    /// With p = 1 all are dropped. A product with 0 it is all the same: where a NaN or an infinity is dropped, y is NaN.
    ///
    /// Gradient: `dx_i = dy_i · keep_i / (1 − p)`, the same operation on dy.
    Dropout {
        /// The probability of being dropped, from 0 to 1.
        p: f64,
        /// Nodes of one graph that are to draw differently from one seed have different streams; [`Graph::dropout`](super::Graph::dropout)
        /// takes the next free one.
        #[serde(default)]
        stream: u32,
    },

    /// `x → y` without the reduced axes (or with size 1): sum, mean, maximum or minimum over axes. Gradient: dy (sum), dy/n (mean),
    /// or dy shared evenly by the elements that equal the result.
    Reduce {
        /// Which.
        function: Reduce,
        /// The axes, sorted, without repeats.
        axes: Vec<usize>,
        /// The reduced axes stay with size 1.
        keep: bool,
    },
    /// `x → i32` without the axis (or with size 1): the index of the largest element along it. A NaN is larger than all else, and
    /// as large as another; −0 is as large as 0. It passes no gradient.
    Argmax {
        /// The axis.
        axis: usize,
        /// The axis stays with size 1.
        keep: bool,
        /// Of equal elements the last one, not the first.
        #[serde(default)]
        last: bool,
    },

    /// `x → shape`: the same elements in the same row-major order.
    Reshape {
        /// The shape.
        shape: Shape,
    },
    /// `x → y`: axis `i` of y is axis `order[i]` of x.
    Permute {
        /// A permutation of the axes.
        order: Vec<usize>,
    },
    /// `x → sizes`: `y[i, …] = x[starts[0] + i·steps[0], …]`; a negative step walks backwards.
    Slice {
        /// First indices.
        starts: Vec<usize>,
        /// Numbers of elements.
        sizes: Vec<usize>,
        /// Steps, not 0.
        steps: Vec<isize>,
    },
    /// `x₀, x₁, … → y`: the operands end to end along an axis; all else of their shapes is the same.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// `x → shape`: x stretched by NumPy's rule, aligned from the right; axes of size 1 repeat.
    Broadcast {
        /// The shape.
        shape: Shape,
    },
    /// `x → y`: a frame of one value around x; axis `i` of y has `before[i] + size + after[i]` elements.
    Pad {
        /// Elements before those of each axis.
        before: Vec<usize>,
        /// Elements after those of each axis.
        after: Vec<usize>,
        /// The value, converted to the operand's dtype.
        #[serde(with = "crate::tensor::json::number")]
        value: f64,
    },
    /// `data […, n, …], indices i32 […] → data[…, indices, …]`: slices of `data` along an axis, picked by index; the
    /// axes of `indices` take the place of the axis. A negative index counts from the end. An index out of range picks
    /// the nearest valid one: the device can't raise an error. Gradient: [`Op::ScatterAdd`].
    Gather {
        /// The axis of `data`.
        axis: usize,
    },
    /// `updates […, index…, …], indices i32 [index…] → […, size, …]`: `y[…, n, …] = Σ updates[…, i, …]` over the i whose index is n;
    /// the axes of `indices` stand in the updates where the result has one axis. Summed in f32, in the order of i. A negative
    /// index counts from the end, and one out of range picks the nearest valid one, as in [`Op::Gather`], whose gradient this
    /// is. Gradient: [`Op::Gather`].
    ScatterAdd {
        /// The axis of the result.
        axis: usize,
        /// Its size.
        size: usize,
    },

    /// `words u32 [rows, …], scale [rows, groups], [zero u32] → f32 [rows, columns]`: a quantised weight, packed as
    /// [`Packing`] says: `w[n, k] = scale[n, k / group] · (q[n, k] − zero[n, k / group])`.
    Dequantize(Packing),
    /// `x [B, H, T, D], cos [P, R/2], sin [P, R/2], positions i32 [B, T] → [B, H, T, D]`: rotary position embedding.
    /// The first R features of a row at position p turn pairwise by the angle whose cosine and sine are row p of the
    /// tables: `(a, b) → (a·cos − b·sin, b·cos + a·sin)`. The others stay. A position out of range takes the nearest
    /// row. Su et al., 2021. Gradient: dy turned by the opposite angles.
    Rotary {
        /// Pairs are neighbours (2i, 2i + 1), as in the paper; otherwise halves (i, i + R/2), as in GPT-NeoX.
        #[serde(default)]
        interleaved: bool,
    },
    /// `cache, update, positions i32 [B] → cache, dropped i32 [1]`: row `t` of item `b` of the update goes to place
    /// `positions[b] + t` of the cache along an axis; axis 0 is the item. In a circular cache the place is taken modulo
    /// the size. Otherwise a row past the end, or before the start, is dropped and counted.
    ///
    /// Gradient: the update has the rows of dy at its places, the cache all others.
    Append {
        /// The axis that grows; not 0.
        axis: usize,
        /// Places are taken modulo the cache's size.
        #[serde(default)]
        circular: bool,
    },
    /// `pages [N, S, H, D], update [B, H, T, D], positions i32 [B], table i32 [B, P] → pages, dropped i32 [1]`: row `t`
    /// of item `b` of the update goes to place `n = positions[b] + t` of that item's pages, which is row `n mod S` of
    /// page `table[b, n / S]`. Attention reads them through
    /// [`AttentionOperand::BlockTable`](super::AttentionOperand::BlockTable) (PagedAttention; Kwon et al., 2023). A row
    /// before the first place, past the last one, or of an entry that names no page is dropped and counted. If two rows
    /// go to one place, either may stay.
    AppendPaged,
    /// `outs [P, …, Dv], lses f32 [P, …] → out […, Dv], lse f32 […]`: attention over P parts of the keys, from its
    /// results over each of them: `out = Σ_p exp(lse_p − lse)·out_p`, `lse = log Σ_p exp(lse_p)`. A part whose lse is
    /// the lowest f32 (or −inf, as others write it) saw nothing and counts for nothing, whatever stands in its out; a row
    /// of which no part saw anything gives 0 and the lowest f32. That of a row that saw a key is higher, see
    /// [`Attention`]. Flash-Decoding (Dao et al., 2023).
    ///
    /// Gradient, with `w_p = exp(lse_p − lse)`: `dout_p = w_p·dout`, `dlse_p = w_p·(Σ_c dout_c·(out_pc − out_c) + dlse)`.
    AttentionMerge,
}

/// The function of a reduction. Over no elements, sum and mean give 0, the maximum −inf or the lowest integer, the
/// minimum +inf or the highest integer. Sums of integers wrap. Of elements of which one is NaN, all give NaN, as NumPy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// Σ x
    Sum,
    /// Σ x / n (floats alone)
    Mean,
    /// The largest
    Max,
    /// The smallest
    Min,
}

impl Reduce {
    /// Every reduction, in declaration order.
    pub const ALL: [Reduce; 4] = [Reduce::Sum, Reduce::Mean, Reduce::Max, Reduce::Min];

    /// The name in graphs and messages.
    pub fn name(self) -> &'static str {
        match self {
            Reduce::Sum => "sum",
            Reduce::Mean => "mean",
            Reduce::Max => "max",
            Reduce::Min => "min",
        }
    }
}

impl Op {
    /// The name in graphs and messages.
    pub fn name(&self) -> &'static str {
        self.row().name
    }

    /// Whether the node has no operands.
    pub fn is_source(&self) -> bool {
        self.row().class == Class::Source
    }

    /// Whether its value comes from outside the graph: an input or a parameter.
    pub fn is_given(&self) -> bool {
        matches!(self, Op::Input { .. } | Op::Parameter { .. })
    }

    /// Whether the result can be a view: another layout of the operand's buffer.
    pub fn is_view(&self) -> bool {
        self.row().class == Class::View
    }

    /// An error if the number of operands is not the operation's.
    pub(super) fn check_count(&self, given: usize) -> Result<()> {
        let Row { name, operands, .. } = self.row();
        match operands {
            Operands::These(names) => check_count(name, given, &names.into_iter().flatten().collect::<Vec<_>>()),
            Operands::OneOrMore if given > 0 => Ok(()),
            Operands::OneOrMore => Err(Error::op(name, "no operands were given, expected at least one")),
            Operands::Listed => Ok(()),
        }
    }

    /// The table of operations.
    fn row(&self) -> Row {
        use Class::{Computed, Source, View};
        match self {
            Op::Input { .. } => row("input", Source, []),
            Op::Parameter { .. } => row("parameter", Source, []),
            Op::Constant { .. } => row("constant", Source, []),
            Op::Matmul { .. } => row("matmul", Computed, ["a", "b"].map(Some)),
            Op::Attention(_) => Row { operands: Operands::Listed, ..row("attention", Computed, []) },
            Op::AttentionGrad(_) => Row { operands: Operands::Listed, ..row("attention_grad", Computed, []) },
            Op::LayerNorm { weight, bias, .. } => {
                row("layer_norm", Computed, [Some("x"), weight.then_some("weight"), bias.then_some("bias")])
            }
            Op::RmsNorm { weight, .. } => row("rms_norm", Computed, [Some("x"), weight.then_some("weight")]),
            Op::Softmax { .. } => row("softmax", Computed, [Some("x")]),
            Op::LogSoftmax { .. } => row("log_softmax", Computed, [Some("x")]),
            Op::CrossEntropy { weight, .. } => {
                row("cross_entropy", Computed, [Some("logits"), Some("targets"), weight.then_some("weight")])
            }
            Op::Unary { function } => row(function.name(), Computed, [Some("x")]),
            Op::Binary { function } => row(function.name(), Computed, ["a", "b"].map(Some)),
            Op::Where => row("where", Computed, ["condition", "a", "b"].map(Some)),
            Op::Cast { .. } => row("cast", Computed, [Some("x")]),
            Op::Dropout { .. } => row("dropout", Computed, ["x", "seed"].map(Some)),
            Op::Reduce { function, .. } => row(function.name(), Computed, [Some("x")]),
            Op::Argmax { .. } => row("argmax", Computed, [Some("x")]),
            Op::Reshape { .. } => row("reshape", View, [Some("x")]),
            Op::Permute { .. } => row("permute", View, [Some("x")]),
            Op::Slice { .. } => row("slice", View, [Some("x")]),
            Op::Concat { .. } => Row { operands: Operands::OneOrMore, ..row("concat", Computed, []) },
            Op::Broadcast { .. } => row("broadcast", View, [Some("x")]),
            Op::Pad { .. } => row("pad", Computed, [Some("x")]),
            Op::Gather { .. } => row("gather", Computed, ["data", "indices"].map(Some)),
            Op::ScatterAdd { .. } => row("scatter_add", Computed, ["updates", "indices"].map(Some)),
            Op::Dequantize(packing) => {
                row("dequantize", Computed, [Some("words"), Some("scale"), packing.zero.then_some("zero")])
            }
            Op::Rotary { .. } => row("rotary", Computed, ["x", "cos", "sin", "positions"].map(Some)),
            Op::Append { .. } => row("append", Computed, ["cache", "update", "positions"].map(Some)),
            Op::AppendPaged => row("append_paged", Computed, ["pages", "update", "positions", "table"].map(Some)),
            Op::AttentionMerge => row("attention_merge", Computed, ["outs", "lses"].map(Some)),
        }
    }
}

/// What is known of an operation, whatever it computes.
struct Row {
    name: &'static str,
    class: Class,
    operands: Operands,
}

/// How many operands an operation has.
enum Operands {
    /// Those that have a name.
    These([Option<&'static str>; 4]),
    OneOrMore,
    /// Those that its own options list, which it checks itself.
    Listed,
}

/// Where the value of an operation comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It is given.
    Source,
    /// It is its operand's, in another layout.
    View,
    /// It is computed.
    Computed,
}

fn row<const N: usize>(name: &'static str, class: Class, given: [Option<&'static str>; N]) -> Row {
    let mut names = [None; 4];
    names[..N].copy_from_slice(&given);
    Row { name, class, operands: Operands::These(names) }
}
