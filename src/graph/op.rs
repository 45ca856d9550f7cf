use serde::{Deserialize, Serialize};

use super::Attention;
use crate::tensor::{DType, Shape, Tensor, quantize::Packing};

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
    Matmul {
        /// `a` is `[… K M]`.
        #[serde(default)]
        transpose_a: bool,
        /// `b` is `[… N K]`.
        #[serde(default)]
        transpose_b: bool,
    },
    /// Scaled dot-product attention; see [`Attention`].
    Attention(Attention),
    /// `x [… n], [weight n], [bias n] → y [… n], mean f32 […], rstd f32 […]`: `y = (x − mean)·rstd · weight + bias`
    /// with `mean = Σx/n`, `rstd = 1/√(Σ(x − mean)²/n + ε)`, where n stands for the last `axes` axes. `weight` and
    /// `bias` broadcast to those axes and have the dtype of x. Ba, Kiros and Hinton, 2016.
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
    RmsNorm {
        /// How many trailing axes are normalised together.
        axes: usize,
        /// ε, inside the root.
        epsilon: f32,
        /// `weight` is given.
        weight: bool,
    },
    /// `x → y` of the same shape: `y_i = exp(x_i − m)/Σ_j exp(x_j − m)` along an axis, m the maximum. Where all of a
    /// line is −inf, y is 0.
    Softmax {
        /// The axis.
        axis: usize,
    },
    /// `x → y` of the same shape: `y_i = x_i − m − log Σ_j exp(x_j − m)` along an axis, m the maximum. Where all of a
    /// line is −inf, y is −inf.
    LogSoftmax {
        /// The axis.
        axis: usize,
    },

    /// `x → f(x)` of the same shape: one function of each element.
    Unary {
        /// The function.
        function: Unary,
    },
    /// `a, b → f(a, b)`: one function of two elements, of the shape that NumPy's broadcasting gives.
    Binary {
        /// The function.
        function: Binary,
    },
    /// `condition bool, a, b → condition ? a : b`, of the shape that NumPy's broadcasting gives.
    Where,
    /// `x → y` of the same shape in another dtype. Floats are rounded to nearest, ties to even; float to integer
    /// truncates towards zero and saturates; between i32 and u32 the bits stay; all but 0 is true, and true is 1.
    Cast {
        /// The dtype of the result.
        dtype: DType,
    },

    /// `x → y` without the reduced axes (or with size 1): sum, mean, maximum or minimum over axes.
    Reduce {
        /// Which.
        function: Reduce,
        /// The axes, sorted, without repeats.
        axes: Vec<usize>,
        /// The reduced axes stay with size 1.
        keep: bool,
    },
    /// `x → i32` without the axis (or with size 1): the index of the largest element along it.
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
    /// the nearest valid one: the device can't raise an error.
    Gather {
        /// The axis of `data`.
        axis: usize,
    },

    /// `words u32 [rows, …], scale [rows, groups], [zero u32] → f32 [rows, columns]`: a quantised weight, packed as
    /// [`Packing`] says: `w[n, k] = scale[n, k / group] · (q[n, k] − zero[n, k / group])`.
    Dequantize(Packing),
    /// `x [B, H, T, D], cos [P, R/2], sin [P, R/2], positions i32 [B, T] → [B, H, T, D]`: rotary position embedding.
    /// The first R features of a row at position p turn pairwise by the angle whose cosine and sine are row p of the
    /// tables: `(a, b) → (a·cos − b·sin, b·cos + a·sin)`. The others stay. A position out of range takes the nearest
    /// row. Su et al., 2021.
    Rotary {
        /// Pairs are neighbours (2i, 2i + 1), as in the paper; otherwise halves (i, i + R/2), as in GPT-NeoX.
        #[serde(default)]
        interleaved: bool,
    },
    /// `cache, update, positions i32 [B] → cache, dropped i32 [1]`: row `t` of item `b` of the update goes to place
    /// `positions[b] + t` of the cache along an axis; axis 0 is the item. In a circular cache the place is taken modulo
    /// the size. Otherwise a row past the end, or before the start, is dropped and counted.
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
    /// the lowest f32 (or −inf) saw nothing and counts for nothing; a row of which no part saw anything gives 0 and the
    /// lowest f32. Flash-Decoding (Dao et al., 2023).
    AttentionMerge,
}

/// A function of one element. Functions take floats, and give the same dtype; in parentheses stands what else they
/// take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unary {
    /// −x (integers too)
    Neg,
    /// |x| (integers too)
    Abs,
    /// −1, 0 or 1 (integers too)
    Sign,
    /// eˣ
    Exp,
    /// ln x
    Log,
    /// √x
    Sqrt,
    /// 1/√x
    Rsqrt,
    /// 1/x
    Reciprocal,
    /// 2/√π · ∫₀ˣ e^(−t²) dt
    Erf,
    /// tanh x
    Tanh,
    /// 1/(1 + e^(−x))
    Sigmoid,
    /// max(x, 0) (integers too)
    Relu,
    /// x·Φ(x) = x/2·(1 + erf(x/√2)); Hendrycks and Gimpel, 2016
    Gelu,
    /// x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))); the tanh form of the same paper
    GeluTanh,
    /// x·sigmoid(x); Elfwing, Uchibe and Doya, 2017
    Silu,
    /// ln(1 + eˣ)
    Softplus,
    /// sin x
    Sin,
    /// cos x
    Cos,
    /// ⌊x⌋
    Floor,
    /// ⌈x⌉
    Ceil,
    /// The nearest integer, halves to even
    Round,
    /// ¬x (bool alone)
    Not,
}

/// A function of two elements of one dtype. Arithmetic takes floats and integers, and gives the same dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b; integers truncate towards zero, and division by 0 gives 0
    Div,
    /// The larger; see [`Reduce::Max`] for a whole axis
    Max,
    /// The smaller
    Min,
    /// a to the power b; for a < 0 and integral b the sign is that of real arithmetic, for other b the result is NaN
    Pow,
    /// a = b: bool, of any dtype
    Equal,
    /// a ≠ b: bool, of any dtype
    NotEqual,
    /// a < b: bool
    Less,
    /// a ≤ b: bool
    LessEqual,
    /// a > b: bool
    Greater,
    /// a ≥ b: bool
    GreaterEqual,
    /// a ∧ b (bool alone)
    And,
    /// a ∨ b (bool alone)
    Or,
    /// a ⊕ b (bool alone)
    Xor,
}

/// The function of a reduction. Over no elements, sum and mean give 0, the maximum −inf or the lowest integer, the
/// minimum +inf or the highest integer. Sums of integers wrap.
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

impl Unary {
    /// Every function, in declaration order.
    pub const ALL: [Unary; 22] = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Rsqrt,
        Unary::Reciprocal,
        Unary::Erf,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Relu,
        Unary::Gelu,
        Unary::GeluTanh,
        Unary::Silu,
        Unary::Softplus,
        Unary::Sin,
        Unary::Cos,
        Unary::Floor,
        Unary::Ceil,
        Unary::Round,
        Unary::Not,
    ];

    /// The name in graphs and messages.
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Sign => "sign",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
            Unary::Reciprocal => "reciprocal",
            Unary::Erf => "erf",
            Unary::Tanh => "tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::Relu => "relu",
            Unary::Gelu => "gelu",
            Unary::GeluTanh => "gelu_tanh",
            Unary::Silu => "silu",
            Unary::Softplus => "softplus",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::Floor => "floor",
            Unary::Ceil => "ceil",
            Unary::Round => "round",
            Unary::Not => "not",
        }
    }

    /// Whether it takes integers too.
    pub fn takes_integers(self) -> bool {
        matches!(self, Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu)
    }
}

impl Binary {
    /// Every function, in declaration order.
    pub const ALL: [Binary; 16] = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Max,
        Binary::Min,
        Binary::Pow,
        Binary::Equal,
        Binary::NotEqual,
        Binary::Less,
        Binary::LessEqual,
        Binary::Greater,
        Binary::GreaterEqual,
        Binary::And,
        Binary::Or,
        Binary::Xor,
    ];

    /// The name in graphs and messages.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Max => "max",
            Binary::Min => "min",
            Binary::Pow => "pow",
            Binary::Equal => "equal",
            Binary::NotEqual => "not_equal",
            Binary::Less => "less",
            Binary::LessEqual => "less_equal",
            Binary::Greater => "greater",
            Binary::GreaterEqual => "greater_equal",
            Binary::And => "and",
            Binary::Or => "or",
            Binary::Xor => "xor",
        }
    }

    /// Whether the result is bool whatever the operands are.
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            Binary::Equal
                | Binary::NotEqual
                | Binary::Less
                | Binary::LessEqual
                | Binary::Greater
                | Binary::GreaterEqual
        )
    }

    /// Whether the operands must be bool.
    pub fn is_logical(self) -> bool {
        matches!(self, Binary::And | Binary::Or | Binary::Xor)
    }
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
        match self {
            Op::Input { .. } => "input",
            Op::Parameter { .. } => "parameter",
            Op::Constant { .. } => "constant",
            Op::Matmul { .. } => "matmul",
            Op::Attention(_) => "attention",
            Op::LayerNorm { .. } => "layer_norm",
            Op::RmsNorm { .. } => "rms_norm",
            Op::Softmax { .. } => "softmax",
            Op::LogSoftmax { .. } => "log_softmax",
            Op::Unary { function } => function.name(),
            Op::Binary { function } => function.name(),
            Op::Where => "where",
            Op::Cast { .. } => "cast",
            Op::Reduce { function, .. } => function.name(),
            Op::Argmax { .. } => "argmax",
            Op::Reshape { .. } => "reshape",
            Op::Permute { .. } => "permute",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Broadcast { .. } => "broadcast",
            Op::Pad { .. } => "pad",
            Op::Gather { .. } => "gather",
            Op::Dequantize(_) => "dequantize",
            Op::Rotary { .. } => "rotary",
            Op::Append { .. } => "append",
            Op::AppendPaged => "append_paged",
            Op::AttentionMerge => "attention_merge",
        }
    }

    /// Whether the node has no operands.
    pub fn is_source(&self) -> bool {
        matches!(self, Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. })
    }

    /// Whether the result can be a view: another layout of the operand's buffer.
    pub fn is_view(&self) -> bool {
        matches!(self, Op::Reshape { .. } | Op::Permute { .. } | Op::Slice { .. } | Op::Broadcast { .. })
    }
}
