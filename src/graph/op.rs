use serde::{Deserialize, Serialize};

use super::Attention;
use crate::tensor::{DType, Shape, Tensor, quantize::Packing};

/// What a node computes. Operands are listed as `name [shape]`; `[…]` stands for any leading axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Op {
    /// A tensor that is given for each run.
    Input {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Shape,
    },
    /// A tensor that is given once, when the program is loaded.
    Parameter {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Shape,
    },
    /// A tensor that is part of the graph.
    Constant {
        /// The value.
        value: Tensor,
    },

    /// `a [… M K] · b [… K N] → [… M N]`; leading axes broadcast. A transposed operand is given with its last two axes
    /// swapped. A operand of rank 1 is a row (a) or a column (b), as in NumPy, and its axis is dropped from the result.
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
    /// `x, [weight], [bias] → y, mean, rstd`: `y = (x − mean)/√(var + ε) · weight + bias` over the last `axes` axes.
    /// `weight` and `bias` broadcast to those axes; `mean` and `rstd = 1/√(var + ε)` have the leading axes, f32.
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
    /// `x, [weight] → y, rstd`: `y = x/√(mean(x²) + ε) · weight` over the last `axes` axes.
    RmsNorm {
        /// How many trailing axes are normalised together.
        axes: usize,
        /// ε, inside the root.
        epsilon: f32,
        /// `weight` is given.
        weight: bool,
    },
    /// `softmax(x)` along an axis. A line of only −inf gives 0 everywhere.
    Softmax {
        /// The axis.
        axis: usize,
    },
    /// `log softmax(x)` along an axis. A line of only −inf gives −inf everywhere.
    LogSoftmax {
        /// The axis.
        axis: usize,
    },

    /// One function of each element.
    Unary {
        /// The function.
        function: Unary,
    },
    /// One function of two elements, with NumPy broadcasting.
    Binary {
        /// The function.
        function: Binary,
    },
    /// `condition, a, b → condition ? a : b`, with NumPy broadcasting.
    Where,
    /// Conversion to another dtype. Float to integer truncates towards zero and saturates; anything but 0 is true.
    Cast {
        /// The dtype of the result.
        dtype: DType,
    },

    /// Sum, mean, maximum or minimum over axes.
    Reduce {
        /// Which.
        function: Reduce,
        /// The axes, sorted, without repeats.
        axes: Vec<usize>,
        /// The reduced axes stay with size 1.
        keep: bool,
    },
    /// The index (i32) of the largest element along an axis.
    Argmax {
        /// The axis.
        axis: usize,
        /// The axis stays with size 1.
        keep: bool,
        /// Of equal elements the last one, not the first.
        #[serde(default)]
        last: bool,
    },

    /// The same elements in the same order under another shape.
    Reshape {
        /// The shape.
        shape: Shape,
    },
    /// Axes in another order: axis `i` of the result is axis `order[i]` of the operand.
    Permute {
        /// A permutation of the axes.
        order: Vec<usize>,
    },
    /// From each axis `sizes[i]` elements, the first at `starts[i]` and each `steps[i]` after the one before (negative:
    /// backwards).
    Slice {
        /// First indices.
        starts: Vec<usize>,
        /// Numbers of elements.
        sizes: Vec<usize>,
        /// Steps, not 0.
        steps: Vec<isize>,
    },
    /// Operands end to end along an axis.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// The operand stretched to a shape by NumPy's rule.
    Broadcast {
        /// The shape.
        shape: Shape,
    },
    /// A frame of one value around the operand.
    Pad {
        /// Elements before each axis.
        before: Vec<usize>,
        /// Elements after each axis.
        after: Vec<usize>,
        /// The value, converted to the operand's dtype.
        #[serde(with = "crate::tensor::json::number")]
        value: f64,
    },
    /// `data, indices → data[…, indices, …]`: slices of `data` along an axis, picked by i32 indices; the axis is replaced
    /// by the axes of `indices`. Negative indices count from the end. An index out of range picks the nearest valid one:
    /// the device can't raise an error.
    Gather {
        /// The axis of `data`.
        axis: usize,
    },

    /// `words u32 [rows, …], scale [rows, groups], [zero u32] → f32 [rows, columns]`: a weight that lies in few bits, as the
    /// [`Packing`] describes: `w[n, k] = scale[n, k / group] · (q[n, k] − zero[n, k / group])`.
    Dequantize(Packing),
    /// Rotary position embedding: `x [B, H, T, D], cos [P, R/2], sin [P, R/2], positions i32 [B, T] → [B, H, T, D]`. The first
    /// R features of a row at position p turn pairwise by the angle whose cosine and sine are row p of the tables:
    /// `(a, b) → (a·cos − b·sin, b·cos + a·sin)`; the others stay. A position out of range takes the nearest row.
    /// Su et al., 2021.
    Rotary {
        /// Pairs are neighbours (2i, 2i + 1), as in the paper; otherwise halves (i, i + R/2), as in GPT-NeoX.
        #[serde(default)]
        interleaved: bool,
    },
    /// `cache, update, positions i32 [B] → cache, dropped i32 [1]`: row `t` of the update of item `b` takes the place
    /// `positions[b] + t` of the cache along an axis; axis 0 is the item. A row past the end, or before the start, is dropped
    /// and counted, or in a circular cache takes its place modulo the size.
    Append {
        /// The axis that grows; not 0.
        axis: usize,
        /// Places are taken modulo the cache's size.
        #[serde(default)]
        circular: bool,
    },
    /// `pages [N, S, H, D], update [B, H, T, D], positions i32 [B], table i32 [B, P] → pages, dropped i32 [1]`: row `t` of the update
    /// of item `b` takes place `n = positions[b] + t` of that item's pages: row `n mod S` of page `table[b, n / S]`. What
    /// attention reads through [`AttentionOperand::BlockTable`](super::AttentionOperand::BlockTable). A row before the first
    /// place, past the last one or of an entry that names no page is dropped and counted. No two rows may go to one place: which
    /// of them stays is not said.
    AppendPaged,
    /// `outs [P, …, Dv], lses f32 [P, …] → out […, Dv], lse f32 […]`: attention over P parts of the keys, from what attention over
    /// each of them gives: `out = Σ_p exp(lse_p − lse)·out_p`, `lse = log Σ_p exp(lse_p)`. A part whose lse is the lowest f32
    /// (or −inf) saw nothing and plays no part; a row of which no part saw anything gives 0 and the lowest f32.
    AttentionMerge,
}

/// A function of one element. Float results for float operands; the last group keeps or needs other types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unary {
    /// −x (float or integer)
    Neg,
    /// |x| (float or integer)
    Abs,
    /// −1, 0 or 1 (float or integer)
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
    /// max(x, 0) (float or integer)
    Relu,
    /// x·Φ(x) = x/2·(1 + erf(x/√2)); Hendrycks and Gimpel, 2016
    Gelu,
    /// x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))); the tanh form of the same paper
    GeluTanh,
    /// x·sigmoid(x)
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
    /// ¬x (bool)
    Not,
}

/// A function of two elements.
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
    /// The larger
    Max,
    /// The smaller
    Min,
    /// a to the power b; for a < 0 and integral b the sign is that of real arithmetic, for other b the result is NaN
    Pow,
    /// a = b, bool
    Equal,
    /// a ≠ b, bool
    NotEqual,
    /// a < b, bool
    Less,
    /// a ≤ b, bool
    LessEqual,
    /// a > b, bool
    Greater,
    /// a ≥ b, bool
    GreaterEqual,
    /// a ∧ b (bool)
    And,
    /// a ∨ b (bool)
    Or,
    /// a ⊕ b (bool)
    Xor,
}

/// What a reduction computes. Over no elements: 0 (sum), NaN is not promised and mean gives 0, −inf or the lowest
/// integer (max), +inf or the highest integer (min).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduce {
    /// Σ x
    Sum,
    /// Σ x / n (float)
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

    /// Whether it also takes integers.
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
