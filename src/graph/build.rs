//! Builder methods: each pushes one operation, or a few that together have a name.

use super::{AttentionArgs, AttentionResults, Binary, Graph, Op, Reduce, Unary, ValueId};
use crate::{
    Error, Result,
    tensor::{DType, Shape, Tensor},
};

impl Graph {
    fn push_one(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.push(op, inputs)?[0])
    }

    fn source(&mut self, name: &str, op: Op) -> Result<ValueId> {
        if self.find(name).is_some() {
            return Err(Error::Graph(format!("the name `{name}` is taken")));
        }
        if name.is_empty() || name.starts_with('%') {
            return Err(Error::Graph(format!("`{name}` can't be a name: names are not empty and don't start with %")));
        }
        let value = self.push_one(op, &[])?;
        self.name(value, name)?;
        Ok(value)
    }

    /// A tensor that is given for each run.
    pub fn input(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<ValueId> {
        self.source(name, Op::Input { dtype, shape: shape.into() })
    }

    /// A tensor that is given once, when the program is loaded.
    pub fn parameter(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<ValueId> {
        self.source(name, Op::Parameter { dtype, shape: shape.into() })
    }

    /// A tensor that is part of the graph.
    pub fn constant(&mut self, value: Tensor) -> Result<ValueId> {
        self.push_one(Op::Constant { value }, &[])
    }

    /// A number of rank 0 in the dtype of `like`, for arithmetic with it.
    pub fn scalar(&mut self, value: f64, like: ValueId) -> Result<ValueId> {
        let dtype = self.dtype(like);
        let data = match dtype {
            DType::F32 => vec![value as f32].into(),
            DType::F16 => vec![half::f16::from_f64(value)].into(),
            DType::BF16 => vec![half::bf16::from_f64(value)].into(),
            DType::I32 => vec![value as i32].into(),
            DType::U32 => vec![value as u32].into(),
            DType::Bool => crate::tensor::Data::Bool(vec![value != 0.0]),
        };
        self.constant(Tensor::new(Shape::default(), data)?)
    }

    /// `a · b`; leading axes broadcast. See [`Op::Matmul`].
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push_one(Op::Matmul { transpose_a: false, transpose_b: false }, &[a, b])
    }

    /// `a · bᵀ`: the last two axes of `b` are swapped.
    pub fn matmul_transposed(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push_one(Op::Matmul { transpose_a: false, transpose_b: true }, &[a, b])
    }

    /// `x [… in] · weightᵀ [out in] + bias [out]`: PyTorch's `nn.Linear`.
    pub fn linear(&mut self, x: ValueId, weight: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
        let (in_features, shape) = (self.shape(x).last().copied(), self.shape(weight).clone());
        if shape.rank() != 2 || Some(shape[1]) != in_features {
            return Err(Error::op(
                "linear",
                format!(
                    "`x` is {}, `weight` is {shape}, expected [out, in] with in = the last size of x",
                    self.shape(x)
                ),
            ));
        }
        let product = self.matmul_transposed(x, weight)?;
        match bias {
            Some(bias) if self.shape(bias) != &Shape::from([shape[0]]) => {
                Err(Error::op("linear", format!("`bias` is {}, expected [{}]", self.shape(bias), shape[0])))
            }
            Some(bias) => self.add(product, bias),
            None => Ok(product),
        }
    }

    /// Scaled dot-product attention under a [`Mask`](super::Mask); see [`Attention`](super::Attention). The result has q's
    /// dtype.
    pub fn attention(&mut self, q: ValueId, k: ValueId, v: ValueId, args: impl Into<AttentionArgs>) -> Result<ValueId> {
        Ok(self.attention_with_lse(q, k, v, args)?.0)
    }

    /// [`Graph::attention`] and the log-sum-exp of each row's scores, f32 `[B, Hq, Tq]`.
    pub fn attention_with_lse(
        &mut self,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        args: impl Into<AttentionArgs>,
    ) -> Result<(ValueId, ValueId)> {
        let AttentionResults { out, lse, .. } = self.attention_results(q, k, v, args)?;
        Ok((out, lse))
    }

    /// [`Graph::attention`] and whether its lengths, offsets and pages fit, i32 `[B]`: 0, or bits of [`AttentionFault`].
    ///
    /// ```
    /// use tilewise::{DType, Graph, graph::Mask};
    /// let mut g = Graph::new();
    /// let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [2, 1, 4, 8]));
    /// let lengths = g.input("lengths", DType::I32, [2])?;
    /// let (out, status) = g.attention_with_status(q?, k?, v?, Mask::key_lengths(lengths))?;
    /// g.output("out", out)?;
    /// g.output("status", status)?; // for AttentionFault::describe
    /// # assert_eq!(g.shape(status), &[2].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// [`AttentionFault`]: super::AttentionFault
    pub fn attention_with_status(
        &mut self,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        args: impl Into<AttentionArgs>,
    ) -> Result<(ValueId, ValueId)> {
        let AttentionResults { out, status, .. } = self.attention_results(q, k, v, args)?;
        Ok((out, status))
    }

    /// [`Graph::attention`] with all of its results; what nobody uses is not computed.
    pub fn attention_results(
        &mut self,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        args: impl Into<AttentionArgs>,
    ) -> Result<AttentionResults> {
        let (attention, operands) = args.into().resolve(self)?;
        let inputs: Vec<ValueId> = [q, k, v].into_iter().chain(operands).collect();
        let outputs = self.push(Op::Attention(attention), &inputs)?;
        Ok(AttentionResults { out: outputs[0], lse: outputs[1], status: outputs[2] })
    }

    /// Layer norm over the last axis; see [`Op::LayerNorm`].
    pub fn layer_norm(
        &mut self,
        x: ValueId,
        weight: Option<ValueId>,
        bias: Option<ValueId>,
        epsilon: f32,
    ) -> Result<ValueId> {
        let op = Op::LayerNorm { axes: 1, epsilon, weight: weight.is_some(), bias: bias.is_some() };
        let inputs: Vec<ValueId> = [Some(x), weight, bias].into_iter().flatten().collect();
        self.push_one(op, &inputs)
    }

    /// RMS norm over the last axis; see [`Op::RmsNorm`].
    pub fn rms_norm(&mut self, x: ValueId, weight: Option<ValueId>, epsilon: f32) -> Result<ValueId> {
        let inputs: Vec<ValueId> = [Some(x), weight].into_iter().flatten().collect();
        self.push_one(Op::RmsNorm { axes: 1, epsilon, weight: weight.is_some() }, &inputs)
    }

    /// `softmax(x)` along an axis (−1 is the last).
    pub fn softmax(&mut self, x: ValueId, axis: isize) -> Result<ValueId> {
        let axis = self.shape(x).axis("softmax", axis)?;
        self.push_one(Op::Softmax { axis }, &[x])
    }

    /// `log softmax(x)` along an axis (−1 is the last).
    pub fn log_softmax(&mut self, x: ValueId, axis: isize) -> Result<ValueId> {
        let axis = self.shape(x).axis("log_softmax", axis)?;
        self.push_one(Op::LogSoftmax { axis }, &[x])
    }

    /// A function of each element.
    pub fn unary(&mut self, function: Unary, x: ValueId) -> Result<ValueId> {
        self.push_one(Op::Unary { function }, &[x])
    }

    /// A function of two elements, with broadcasting.
    pub fn binary(&mut self, function: Binary, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push_one(Op::Binary { function }, &[a, b])
    }

    /// `condition ? a : b`, with broadcasting.
    pub fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push_one(Op::Where, &[condition, a, b])
    }

    /// Conversion to another dtype; nothing if it is that already.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId> {
        if self.dtype(x) == dtype { Ok(x) } else { self.push_one(Op::Cast { dtype }, &[x]) }
    }

    /// A reduction over axes (−1 is the last; an empty list is all of them).
    pub fn reduce(&mut self, function: Reduce, x: ValueId, axes: &[isize], keep: bool) -> Result<ValueId> {
        let shape = self.shape(x);
        let mut axes = match axes {
            [] => (0..shape.rank()).collect(),
            axes => axes.iter().map(|&axis| shape.axis(function.name(), axis)).collect::<Result<Vec<_>>>()?,
        };
        axes.sort_unstable();
        self.push_one(Op::Reduce { function, axes, keep }, &[x])
    }

    /// The index of the first largest element along an axis.
    pub fn argmax(&mut self, x: ValueId, axis: isize, keep: bool) -> Result<ValueId> {
        let axis = self.shape(x).axis("argmax", axis)?;
        self.push_one(Op::Argmax { axis, keep, last: false }, &[x])
    }

    /// The same elements in the same order under another shape.
    pub fn reshape(&mut self, x: ValueId, shape: impl Into<Shape>) -> Result<ValueId> {
        self.push_one(Op::Reshape { shape: shape.into() }, &[x])
    }

    /// Axes in another order.
    pub fn permute(&mut self, x: ValueId, order: &[usize]) -> Result<ValueId> {
        self.push_one(Op::Permute { order: order.to_vec() }, &[x])
    }

    /// The elements from `start` up to `end` of one axis.
    pub fn slice(&mut self, x: ValueId, axis: isize, start: usize, end: usize) -> Result<ValueId> {
        let shape = self.shape(x).clone();
        let axis = shape.axis("slice", axis)?;
        if start > end || end > shape[axis] {
            return Err(Error::op("slice", format!("{start}..{end} leaves axis {axis} of {shape}")));
        }
        let (mut starts, mut sizes) = (vec![0; shape.rank()], shape.to_vec());
        (starts[axis], sizes[axis]) = (start, end - start);
        self.push_one(Op::Slice { starts, sizes, steps: vec![1; shape.rank()] }, &[x])
    }

    /// Operands end to end along an axis.
    pub fn concat(&mut self, operands: &[ValueId], axis: isize) -> Result<ValueId> {
        let Some(&first) = operands.first() else {
            return Err(Error::op("concat", "no operands were given, expected at least one"));
        };
        let axis = self.shape(first).axis("concat", axis)?;
        self.push_one(Op::Concat { axis }, operands)
    }

    /// The operand stretched to a shape by NumPy's rule.
    pub fn broadcast(&mut self, x: ValueId, shape: impl Into<Shape>) -> Result<ValueId> {
        self.push_one(Op::Broadcast { shape: shape.into() }, &[x])
    }

    /// A frame of one value around the operand: `(before, after)` for each axis.
    pub fn pad(&mut self, x: ValueId, frame: &[(usize, usize)], value: f64) -> Result<ValueId> {
        let (before, after) = frame.iter().copied().unzip();
        self.push_one(Op::Pad { before, after, value }, &[x])
    }

    /// Slices of `data` along an axis, picked by i32 indices: an embedding lookup on axis 0. See [`Op::Gather`].
    pub fn gather(&mut self, data: ValueId, indices: ValueId, axis: isize) -> Result<ValueId> {
        let axis = self.shape(data).axis("gather", axis)?;
        self.push_one(Op::Gather { axis }, &[data, indices])
    }

    /// Rotary position embedding of `x [B, H, T, D]` by tables `[P, R/2]` and i32 positions `[B, T]`. See [`Op::Rotary`].
    pub fn rotary(
        &mut self,
        x: ValueId,
        [cos, sin]: [ValueId; 2],
        positions: ValueId,
        interleaved: bool,
    ) -> Result<ValueId> {
        self.push_one(Op::Rotary { interleaved }, &[x, cos, sin, positions])
    }

    /// A cache with an update written at i32 positions `[B]` along an axis, and how many rows did not fit. See
    /// [`Op::Append`].
    pub fn append(
        &mut self,
        cache: ValueId,
        update: ValueId,
        positions: ValueId,
        axis: isize,
        circular: bool,
    ) -> Result<(ValueId, ValueId)> {
        let axis = self.shape(cache).axis("append", axis)?;
        let outputs = self.push(Op::Append { axis, circular }, &[cache, update, positions])?;
        Ok((outputs[0], outputs[1]))
    }

    /// Pages `[N, S, H, D]` with an update `[B, H, T, D]` written at i32 positions `[B]` of each item's pages, which a table `[B, P]`
    /// names, and how many rows did not fit. See [`Op::AppendPaged`].
    pub fn append_paged(
        &mut self,
        pages: ValueId,
        update: ValueId,
        positions: ValueId,
        table: ValueId,
    ) -> Result<(ValueId, ValueId)> {
        let outputs = self.push(Op::AppendPaged, &[pages, update, positions, table])?;
        Ok((outputs[0], outputs[1]))
    }

    /// Attention over all keys from results over parts of them, each an output and its log-sum-exp as
    /// [`Graph::attention_with_lse`] gives them: the joined output and log-sum-exp. See [`Op::AttentionMerge`].
    ///
    /// ```
    /// use tilewise::{DType, Graph, graph::Mask};
    /// let mut g = Graph::new();
    /// let q = g.input("q", DType::F32, [1, 8, 4, 64])?;
    /// let mut parts = Vec::new();
    /// for (name, keys) in [("prefix", 100), ("own", 7)] {
    ///     let [k, v] = ["k", "v"].map(|kv| g.input(&format!("{name}.{kv}"), DType::F32, [1, 8, keys, 64]));
    ///     parts.push(g.attention_with_lse(q, k?, v?, Mask::none())?);
    /// }
    /// let (out, _) = g.attention_merge(&parts)?;
    /// assert_eq!(g.shape(out), &[1, 8, 4, 64].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    pub fn attention_merge(&mut self, parts: &[(ValueId, ValueId)]) -> Result<(ValueId, ValueId)> {
        let mut stack = |values: Vec<ValueId>| -> Result<ValueId> {
            let mut stacked = Vec::with_capacity(values.len());
            for value in values {
                let shape: Shape = [&[1], &self.shape(value)[..]].concat().into();
                stacked.push(self.reshape(value, shape)?);
            }
            self.concat(&stacked, 0)
        };
        if parts.is_empty() {
            return Err(Error::op("attention_merge", "no parts were given, expected at least one"));
        }
        let (outs, lses) = parts.iter().copied().unzip();
        let (outs, lses) = (stack(outs)?, stack(lses)?);
        self.attention_merge_stacked(outs, lses)
    }

    /// [`Graph::attention_merge`] of parts that are stacked already: `[P, …, Dv]` and f32 `[P, …]`.
    pub fn attention_merge_stacked(&mut self, outs: ValueId, lses: ValueId) -> Result<(ValueId, ValueId)> {
        let outputs = self.push(Op::AttentionMerge, &[outs, lses])?;
        Ok((outputs[0], outputs[1]))
    }

    /// `[B, T, H·D] → [B, H, T, D]`: a view.
    pub fn split_heads(&mut self, x: ValueId, heads: usize) -> Result<ValueId> {
        let shape = self.shape(x).clone();
        match shape[..] {
            [b, t, e] if heads > 0 && e % heads == 0 => {
                let split = self.reshape(x, [b, t, heads, e / heads])?;
                self.permute(split, &[0, 2, 1, 3])
            }
            _ => Err(Error::op(
                "split_heads",
                format!("`x` is {shape}, expected [B, T, E] with E a multiple of {heads} heads"),
            )),
        }
    }

    /// `[B, H, T, D] → [B, T, H·D]`.
    pub fn merge_heads(&mut self, x: ValueId) -> Result<ValueId> {
        let shape = self.shape(x).clone();
        match shape[..] {
            [b, h, t, d] => {
                let turned = self.permute(x, &[0, 2, 1, 3])?;
                self.reshape(turned, [b, t, h * d])
            }
            _ => Err(Error::op("merge_heads", format!("`x` is {shape}, expected [B, H, T, D]"))),
        }
    }
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident => $function:expr;)*) => {
        /// Functions of elements, by name.
        impl Graph {$(
            $(#[$doc])*
            pub fn $name(&mut self, x: ValueId) -> Result<ValueId> {
                self.unary($function, x)
            }
        )*}
    };
}

macro_rules! named_binary {
    ($($(#[$doc:meta])* $name:ident => $function:expr;)*) => {
        /// Functions of two elements, by name; operands broadcast.
        impl Graph {$(
            $(#[$doc])*
            pub fn $name(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
                self.binary($function, a, b)
            }
        )*}
    };
}

named! {
    /// −x
    neg => Unary::Neg;
    /// |x|
    abs => Unary::Abs;
    /// eˣ
    exp => Unary::Exp;
    /// ln x
    log => Unary::Log;
    /// √x
    sqrt => Unary::Sqrt;
    /// 1/x
    reciprocal => Unary::Reciprocal;
    /// The error function
    erf => Unary::Erf;
    /// tanh x
    tanh => Unary::Tanh;
    /// 1/(1 + e^(−x))
    sigmoid => Unary::Sigmoid;
    /// max(x, 0)
    relu => Unary::Relu;
    /// x·Φ(x), the exact form
    gelu => Unary::Gelu;
    /// gelu, the tanh form
    gelu_tanh => Unary::GeluTanh;
    /// x·sigmoid(x)
    silu => Unary::Silu;
}

named_binary! {
    /// a + b
    add => Binary::Add;
    /// a − b
    sub => Binary::Sub;
    /// a · b
    mul => Binary::Mul;
    /// a / b
    div => Binary::Div;
    /// The larger
    max => Binary::Max;
    /// The smaller
    min => Binary::Min;
    /// a to the power b
    pow => Binary::Pow;
}
