//! Builder methods: each pushes one operation, or a few that together have a name.

use super::{
    AttentionArgs, AttentionResults, Binary, CrossEntropyArgs, CrossEntropyResults, Graph, Op, Reduce, Unary, ValueId,
    leading::Attended,
};
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
    ///
    /// ```
    /// # use tilewise::{DType, Graph};
    /// let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 3])?;
    /// assert_eq!(g.describe(x), "x: f32 [2, 3]");
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] if the name is empty, begins with `%` or is taken.
    pub fn input(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<ValueId> {
        self.source(name, Op::Input { dtype, shape: shape.into() })
    }

    /// A tensor that is given once, when the program is loaded: a weight.
    ///
    /// ```
    /// # use tilewise::{DType, Graph};
    /// let mut g = Graph::new();
    /// let w = g.parameter("w", DType::BF16, [4, 3])?;
    /// assert_eq!(g.parameters().collect::<Vec<_>>(), [("w", w)]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] if the name is empty, begins with `%` or is taken.
    pub fn parameter(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<ValueId> {
        self.source(name, Op::Parameter { dtype, shape: shape.into() })
    }

    /// A tensor that is part of the graph.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([3], vec![1.0f32, 2.0, 3.0])?)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(x).to_f64(), [1.0, 2.0, 3.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Limit`] if it has more than 2³¹ − 1 elements.
    pub fn constant(&mut self, value: Tensor) -> Result<ValueId> {
        self.push_one(Op::Constant { value }, &[])
    }

    /// A constant of rank 0 in the dtype of `like`, for arithmetic with it. Floats are rounded to that dtype; integers
    /// truncate and saturate; as a bool, all but 0 is true.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2], vec![1i32, 2])?)?;
    /// let two = g.scalar(2.5, x)?;
    /// let y = g.mul(x, two)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [2.0, 4.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// None: it returns a `Result` so that it reads like the rest.
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

    /// `a [… M K] · b [… K N] → [… M N]`; leading axes broadcast, and an operand of rank 1 is a row (`a`) or a column
    /// (`b`). See [`Op::Matmul`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let a = g.constant(Tensor::new([2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?)?;
    /// let b = g.constant(Tensor::new([2, 1], vec![5.0f32, 6.0])?)?;
    /// let y = g.matmul(a, b)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [17.0, 39.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if an operand is no float or has rank 0, or if dtypes differ, inner sizes (K) differ or leading
    /// axes don't broadcast.
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push_one(Op::Matmul { transpose_a: false, transpose_b: false }, &[a, b])
    }

    /// `a [… M K] · b [… N K]ᵀ → [… M N]`: [`Graph::matmul`] with the last two axes of `b` swapped.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let a = g.constant(Tensor::new([2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?)?;
    /// let b = g.constant(Tensor::new([1, 2], vec![5.0f32, 6.0])?)?;
    /// let y = g.matmul_transposed(a, b)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [17.0, 39.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::matmul`]; and `b` has at least two axes.
    pub fn matmul_transposed(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push_one(Op::Matmul { transpose_a: false, transpose_b: true }, &[a, b])
    }

    /// `x [… in] · weight [out in]ᵀ + bias [out] → [… out]`: PyTorch's `nn.Linear`.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([1, 2], vec![1.0f32, 2.0])?)?;
    /// let weight = g.constant(Tensor::new([2, 2], vec![1.0f32, 0.0, 3.0, 4.0])?)?;
    /// let bias = g.constant(Tensor::new([2], vec![10.0f32, 20.0])?)?;
    /// let y = g.linear(x, weight, Some(bias))?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [11.0, 31.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the shapes are others than these, if an operand is no float, or if dtypes differ.
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

    /// Scaled dot-product attention of `q [B, Hq, Tq, D]` over `k [B, Hkv, Tk, D]` and `v [B, Hkv, Tk, Dv]` under a
    /// [`Mask`](super::Mask) → `[B, Hq, Tq, Dv]`, in q's dtype. [`Attention`](super::Attention) has the formula.
    ///
    /// As in PyTorch's `scaled_dot_product_attention`, there may be any number of leading axes: `q […, Hq, Tq, D]` with as many axes
    /// before the heads as you like, which broadcast among q, k and v; `[H, T, D]`; or `[T, D]`. Results have the same leading
    /// axes, masks and biases broadcast to them from the right, and lengths and offsets, elsewhere `[B]`, have those before the heads.
    /// They are views of four axes; packed sequences and pages have their own forms.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, graph::{Align, Mask}, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let q = g.constant(Tensor::zeros(DType::F32, [1, 1, 2, 4])?)?;
    /// let k = g.constant(Tensor::zeros(DType::F32, [1, 1, 2, 4])?)?;
    /// let v = g.constant(Tensor::new([1, 1, 2, 1], vec![2.0f32, 4.0])?)?;
    /// let out = g.attention(q, k, v, Mask::causal(Align::TopLeft))?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(out).to_f64(), [2.0, 3.0]); // equal scores: the mean of what each query sees
    ///
    /// let frames = g.input("frames", DType::F32, [2, 5, 8, 16, 64])?; // [B, frames, H, T, D]
    /// let text = g.input("text", DType::F32, [2, 1, 8, 77, 64])?; // the same for all frames
    /// let out = g.attention(frames, text, text, Mask::none())?;
    /// assert_eq!(g.shape(out), &[2, 5, 8, 16, 64].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`]
    /// - if a dtype or shape is not one that [`Attention`](super::Attention) and
    ///   [`AttentionOperand`](super::AttentionOperand) list, or `Hq` is no multiple of `Hkv`;
    /// - if the mask contradicts itself: two alignments, or offsets, packed sequences, pages or a table given twice;
    /// - if the scale is not finite, or the softcap not finite and above 0;
    /// - if a function reads a table that is not given, or none reads one that is;
    /// - if an operand is a constant and holds what a run could only clamp or make NaN of: a length or page out of
    ///   range, offsets that decrease, NaN in a bias.
    pub fn attention(&mut self, q: ValueId, k: ValueId, v: ValueId, args: impl Into<AttentionArgs>) -> Result<ValueId> {
        self.attended(q, k, v, args)?.out(self)
    }

    fn attended(&mut self, q: ValueId, k: ValueId, v: ValueId, args: impl Into<AttentionArgs>) -> Result<Attended> {
        self.all_or_nothing(|g| {
            let (attention, operands) = args.into().resolve(g, k)?;
            let inputs: Vec<ValueId> = [q, k, v].into_iter().chain(operands).collect();
            g.push_attention(attention, &inputs)
        })
    }

    /// [`Graph::attention`] and the log-sum-exp of each row's scores, f32 `[B, Hq, Tq]`.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, graph::Mask, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let q = g.constant(Tensor::zeros(DType::F32, [1, 1, 1, 4])?)?;
    /// let k = g.constant(Tensor::zeros(DType::F32, [1, 1, 2, 4])?)?;
    /// let (_, lse) = g.attention_with_lse(q, k, k, Mask::none())?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(lse).to_f64(), [2f64.ln()]); // log(exp(0) + exp(0))
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::attention`].
    pub fn attention_with_lse(
        &mut self,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        args: impl Into<AttentionArgs>,
    ) -> Result<(ValueId, ValueId)> {
        let attended = self.attended(q, k, v, args)?;
        Ok((attended.out(self)?, attended.lse(self)?))
    }

    /// [`Graph::attention`] and whether its lengths, offsets and pages fit, i32 `[B]`: 0, or bits of
    /// [`AttentionFault`].
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, graph::{AttentionFault, Mask}, reference};
    /// # let mut g = Graph::new();
    /// let q = g.constant(Tensor::zeros(DType::F32, [2, 1, 4, 8])?)?;
    /// let lengths = g.input("lengths", DType::I32, [2])?;
    /// let (_, status) = g.attention_with_status(q, q, q, Mask::key_lengths(lengths))?;
    /// g.output("status", status)?;
    /// let inputs = [("lengths".to_string(), Tensor::new([2], vec![4i32, 5])?)];
    /// let status = reference::evaluate(&g, &inputs.into())?["status"].clone();
    /// let faults = AttentionFault::describe(status.as_i32().unwrap());
    /// assert_eq!(faults.unwrap(), "item 1: the key length is below 0 or over Tk");
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::attention`].
    ///
    /// [`AttentionFault`]: super::AttentionFault
    pub fn attention_with_status(
        &mut self,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        args: impl Into<AttentionArgs>,
    ) -> Result<(ValueId, ValueId)> {
        let attended = self.attended(q, k, v, args)?;
        Ok((attended.out(self)?, attended.status(self)?))
    }

    /// [`Graph::attention`] with all of its results. One that nobody uses is not computed.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, graph::Mask};
    /// # let mut g = Graph::new();
    /// let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F16, [2, 8, 5, 64]));
    /// let results = g.attention_results(q?, k?, v?, Mask::none())?;
    /// assert_eq!((g.dtype(results.out), g.shape(results.out)), (DType::F16, &[2, 8, 5, 64].into()));
    /// assert_eq!((g.dtype(results.lse), g.shape(results.lse)), (DType::F32, &[2, 8, 5].into()));
    /// assert_eq!((g.dtype(results.status), g.shape(results.status)), (DType::I32, &[2].into()));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::attention`].
    pub fn attention_results(
        &mut self,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        args: impl Into<AttentionArgs>,
    ) -> Result<AttentionResults> {
        self.attended(q, k, v, args)?.results(self)
    }

    /// Layer norm over the last axis: `(x − mean)/√(var + ε) · weight + bias`, with `weight` and `bias` `[n]`. See
    /// [`Op::LayerNorm`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([1, 2], vec![1.0f32, 3.0])?)?;
    /// let weight = g.constant(Tensor::new([2], vec![2.0f32, 3.0])?)?;
    /// let y = g.layer_norm(x, Some(weight), None, 0.0)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [-2.0, 3.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` is no float or has rank 0, if `weight` or `bias` has another dtype or doesn't broadcast to
    /// `[n]`, or if ε is negative or not finite.
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

    /// RMS norm over the last axis: `x/√(mean(x²) + ε) · weight`, with `weight [n]`. See [`Op::RmsNorm`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([1, 2], vec![2.0f32, -2.0])?)?;
    /// let y = g.rms_norm(x, None, 0.0)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, -1.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` is no float or has rank 0, if `weight` has another dtype or doesn't broadcast to `[n]`, or
    /// if ε is negative or not finite.
    pub fn rms_norm(&mut self, x: ValueId, weight: Option<ValueId>, epsilon: f32) -> Result<ValueId> {
        let inputs: Vec<ValueId> = [Some(x), weight].into_iter().flatten().collect();
        self.push_one(Op::RmsNorm { axes: 1, epsilon, weight: weight.is_some() }, &inputs)
    }

    /// `exp(x_i)/Σ_j exp(x_j)` along an axis (−1 is the last). See [`Op::Softmax`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([1, 3], vec![7.0f32, f32::NEG_INFINITY, 7.0])?)?;
    /// let y = g.softmax(x, -1)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [0.5, 0.0, 0.5]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` is no float or has no such axis.
    pub fn softmax(&mut self, x: ValueId, axis: isize) -> Result<ValueId> {
        let axis = self.shape(x).axis("softmax", axis)?;
        self.push_one(Op::Softmax { axis }, &[x])
    }

    /// `x_i − log Σ_j exp(x_j)` along an axis (−1 is the last). See [`Op::LogSoftmax`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([1, 2], vec![7.0f32, 7.0])?)?;
    /// let y = g.log_softmax(x, -1)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [-2f64.ln(); 2]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` is no float or has no such axis.
    pub fn log_softmax(&mut self, x: ValueId, axis: isize) -> Result<ValueId> {
        let axis = self.shape(x).axis("log_softmax", axis)?;
        self.push_one(Op::LogSoftmax { axis }, &[x])
    }

    /// How far the softmax of each row of logits `[… C]` is from the class that its target names, i32 `[…]`: −log of the target's
    /// probability, with class weights, label smoothing and a target to ignore, as PyTorch's `cross_entropy` has them. See
    /// [`Op::CrossEntropy`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, graph::{CrossEntropyArgs, Reduce}, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let logits = g.constant(Tensor::new([3, 2], vec![5.0f32, 5.0, 7.0, 7.0, 1.0, 2.0])?)?;
    /// let targets = g.constant(Tensor::new([3], vec![0i32, 1, -100])?)?;
    /// let rows = g.cross_entropy(logits, targets, CrossEntropyArgs { ignore: Some(-100), ..Default::default() })?;
    /// let (sum, count) = (g.reduce(Reduce::Sum, rows.loss, &[], false)?, g.reduce(Reduce::Sum, rows.weight, &[], false)?);
    /// let mean = g.div(sum, count)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(rows.loss).to_f64(), [2f64.ln(), 2f64.ln(), 0.0]);
    /// assert_eq!(values.value(rows.weight).to_f64(), [1.0, 1.0, 0.0]);
    /// assert_eq!(values.value(mean).to_f64(), [2f64.ln()]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `logits` is no float or has rank 0, if `targets` are not i32 or not one for each row, if `weight` is
    /// not f32 `[C]`, or if the smoothing is no number from 0 to 1.
    pub fn cross_entropy(
        &mut self,
        logits: ValueId,
        targets: ValueId,
        args: CrossEntropyArgs,
    ) -> Result<CrossEntropyResults> {
        let CrossEntropyArgs { weight, ignore, smoothing } = args;
        let inputs: Vec<ValueId> = [Some(logits), Some(targets), weight].into_iter().flatten().collect();
        let results = self.push(Op::CrossEntropy { ignore, smoothing, weight: weight.is_some() }, &inputs)?;
        Ok(CrossEntropyResults { loss: results[0], lse: results[1], weight: results[2] })
    }

    /// Each element dropped with probability `p`, the others divided by 1 − p, as PyTorch's `dropout` does when it trains.
    ///
    /// Which are dropped is a function of the seed, i32 or u32 `[4]`, of the node's stream (each call takes the next
    /// free one) and of an element's place: see [`Op::Dropout`]. Give another seed at each step, such as
    /// `[seed, 0, step, 0]`; [`train::seed`](crate::train::seed) is one that a trainer gives. [`Graph::without_dropout`] switches it off.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, reference};
    /// let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [8])?;
    /// let seed = g.input("seed", DType::U32, [4])?;
    /// let y = g.dropout(x, seed, 0.5)?;
    /// g.output("y", y)?;
    /// let run = |step: u32| {
    ///     let seed = Tensor::new([4], vec![7, 0, step, 0])?;
    ///     let x = Tensor::new([8], vec![1.0f32; 8])?;
    ///     Ok::<_, tilewise::Error>(reference::evaluate(&g, &[("x".to_string(), x), ("seed".to_string(), seed)].into())?["y"].to_f64())
    /// };
    /// assert!(run(1)?.iter().all(|y| [0.0, 2.0].contains(y)));
    /// assert_eq!(run(1)?, run(1)?);
    /// assert_ne!(run(1)?, run(2)?);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` is no float, if the seed is not i32 or u32 `[4]`, if p is no number from 0 to 1, or if no stream is left.
    pub fn dropout(&mut self, x: ValueId, seed: ValueId, p: f64) -> Result<ValueId> {
        let all_taken =
            || Error::op("dropout", "no stream is left after 2³² − 1: push `Op::Dropout` with one of your own");
        let stream = u32::try_from(self.free_stream).map_err(|_| all_taken())?;
        Ok(self.push(Op::Dropout { p, stream }, &[x, seed])?[0])
    }

    /// The graph with p = 0 in every dropout, as PyTorch's `eval()`: to validate and to generate. Values and inputs stay what they
    /// are; the seed is then read by nothing, and may be anything.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, reference};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [3])?;
    /// let seed = g.input("seed", DType::U32, [4])?;
    /// let y = g.dropout(x, seed, 0.9)?;
    /// g.output("y", y)?;
    /// let given = [("x", Tensor::new([3], vec![1.0f32, 2.0, 3.0])?), ("seed", Tensor::zeros(DType::U32, [4])?)];
    /// let given = given.map(|(name, tensor)| (name.to_string(), tensor)).into();
    /// assert_eq!(reference::evaluate(&g.without_dropout(), &given)?["y"].to_f64(), [1.0, 2.0, 3.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    pub fn without_dropout(&self) -> Graph {
        let mut graph = self.clone();
        for node in &mut graph.nodes {
            if let Op::Dropout { p, .. } = &mut node.op {
                *p = 0.0;
            }
        }
        graph
    }

    /// A function of each element. See [`Unary`]; many have a method of their own.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, graph::Unary, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2], vec![1.5f32, -1.5])?)?;
    /// let y = g.unary(Unary::Floor, x)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, -2.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the function doesn't take the dtype of `x`.
    pub fn unary(&mut self, function: Unary, x: ValueId) -> Result<ValueId> {
        self.push_one(Op::Unary { function }, &[x])
    }

    /// A function of two elements, with NumPy broadcasting. See [`Binary`]; the arithmetic ones have methods of their
    /// own.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, graph::Binary, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let a = g.constant(Tensor::new([3], vec![1i32, 2, 3])?)?;
    /// let b = g.scalar(2.0, a)?;
    /// let y = g.binary(Binary::Less, a, b)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, 0.0, 0.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if dtypes differ, shapes don't broadcast, or the function doesn't take the dtype.
    pub fn binary(&mut self, function: Binary, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push_one(Op::Binary { function }, &[a, b])
    }

    /// `condition ? a : b`, with NumPy broadcasting. What is not chosen leaves no trace, a NaN neither.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let condition = g.constant(Tensor::new([2], vec![true, false])?)?;
    /// let a = g.constant(Tensor::new([2], vec![1.0f32, f32::NAN])?)?;
    /// let b = g.scalar(0.0, a)?;
    /// let y = g.select(condition, a, b)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, 0.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `condition` is not bool, if `a` and `b` differ in dtype, or if shapes don't broadcast.
    pub fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.push_one(Op::Where, &[condition, a, b])
    }

    /// Conversion to another dtype; `x` itself if it has that already. See [`Op::Cast`].
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([3], vec![1.9f32, -1.9, 1e20])?)?;
    /// let y = g.cast(x, DType::I32)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, -1.0, f64::from(i32::MAX)]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] for a value of another graph alone.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId> {
        if self.dtype(x) == dtype { Ok(x) } else { self.push_one(Op::Cast { dtype }, &[x]) }
    }

    /// A reduction over axes (−1 is the last; an empty list is all of them). With `keep` they stay, of size 1. See
    /// [`Reduce`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, graph::Reduce, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?)?;
    /// let rows = g.reduce(Reduce::Sum, x, &[-1], false)?;
    /// let all = g.reduce(Reduce::Max, x, &[], false)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(rows).to_f64(), [3.0, 7.0]);
    /// assert_eq!(values.value(all).to_f64(), [4.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if an axis does not exist or is named twice, if `x` is bool, or for the mean of integers.
    pub fn reduce(&mut self, function: Reduce, x: ValueId, axes: &[isize], keep: bool) -> Result<ValueId> {
        let shape = self.shape(x);
        let mut axes = match axes {
            [] => (0..shape.rank()).collect(),
            axes => axes.iter().map(|&axis| shape.axis(function.name(), axis)).collect::<Result<Vec<_>>>()?,
        };
        axes.sort_unstable();
        self.push_one(Op::Reduce { function, axes, keep }, &[x])
    }

    /// The i32 index of the largest element along an axis (−1 is the last), of equal ones the first. See
    /// [`Op::Argmax`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2, 3], vec![1.0f32, 5.0, 5.0, 9.0, 0.0, 3.0])?)?;
    /// let y = g.argmax(x, -1, false)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, 0.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` is bool, or if there is no such axis or nothing along it.
    pub fn argmax(&mut self, x: ValueId, axis: isize, keep: bool) -> Result<ValueId> {
        let axis = self.shape(x).axis("argmax", axis)?;
        self.push_one(Op::Argmax { axis, keep, last: false }, &[x])
    }

    /// The same elements in the same order under another shape.
    ///
    /// ```
    /// # use tilewise::{DType, Graph};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 3, 4])?;
    /// let y = g.reshape(x, [6, 4])?;
    /// assert_eq!(g.shape(y), &[6, 4].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the new shape has another number of elements.
    pub fn reshape(&mut self, x: ValueId, shape: impl Into<Shape>) -> Result<ValueId> {
        self.push_one(Op::Reshape { shape: shape.into() }, &[x])
    }

    /// Axes in another order: axis `i` of the result is axis `order[i]` of `x`.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2, 3], vec![1i32, 2, 3, 4, 5, 6])?)?;
    /// let y = g.permute(x, &[1, 0])?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `order` is no permutation of the axes of `x`.
    pub fn permute(&mut self, x: ValueId, order: &[usize]) -> Result<ValueId> {
        self.push_one(Op::Permute { order: order.to_vec() }, &[x])
    }

    /// The elements from `start` up to, not including, `end` along one axis (−1 is the last).
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2, 3], vec![1i32, 2, 3, 4, 5, 6])?)?;
    /// let y = g.slice(x, -1, 1, 3)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [2.0, 3.0, 5.0, 6.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if there is no such axis, if `end` is past its size, or if `start` is past `end`.
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

    /// Operands end to end along an axis (−1 is the last).
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let a = g.constant(Tensor::new([2], vec![1i32, 2])?)?;
    /// let b = g.constant(Tensor::new([1], vec![3i32])?)?;
    /// let y = g.concat(&[a, b, a], 0)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, 2.0, 3.0, 1.0, 2.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if there are no operands, if there is no such axis, or if dtypes or other axes differ.
    pub fn concat(&mut self, operands: &[ValueId], axis: isize) -> Result<ValueId> {
        let Some(&first) = operands.first() else {
            return Err(Error::op("concat", "no operands were given, expected at least one"));
        };
        let axis = self.shape(first).axis("concat", axis)?;
        self.push_one(Op::Concat { axis }, operands)
    }

    /// `x` stretched to a shape by NumPy's rule: aligned from the right, axes of size 1 repeat.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2, 1], vec![1i32, 2])?)?;
    /// let y = g.broadcast(x, [2, 3])?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` does not broadcast to the shape.
    pub fn broadcast(&mut self, x: ValueId, shape: impl Into<Shape>) -> Result<ValueId> {
        self.push_one(Op::Broadcast { shape: shape.into() }, &[x])
    }

    /// A frame of one value around `x`: `(before, after)` elements for each axis.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2], vec![1.0f32, 2.0])?)?;
    /// let y = g.pad(x, &[(1, 2)], -3.0)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [-3.0, 1.0, 2.0, -3.0, -3.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the frame has not a pair for each axis of `x`, or if a size overflows.
    pub fn pad(&mut self, x: ValueId, frame: &[(usize, usize)], value: f64) -> Result<ValueId> {
        let (before, after) = frame.iter().copied().unzip();
        self.push_one(Op::Pad { before, after, value }, &[x])
    }

    /// Slices of `data` along an axis, picked by i32 indices: an embedding lookup on axis 0. See [`Op::Gather`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let table = g.constant(Tensor::new([3, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?)?;
    /// let ids = g.constant(Tensor::new([2], vec![2i32, -3])?)?;
    /// let y = g.gather(table, ids, 0)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [5.0, 6.0, 1.0, 2.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `data` has no such axis or nothing along it, or if `indices` are not i32.
    pub fn gather(&mut self, data: ValueId, indices: ValueId, axis: isize) -> Result<ValueId> {
        let axis = self.shape(data).axis("gather", axis)?;
        self.push_one(Op::Gather { axis }, &[data, indices])
    }

    /// Updates `[…, index…, …]` summed by i32 indices into an axis of this size: `y[…, n, …]` is the sum of the updates whose index
    /// is n. The axis is the result's. See [`Op::ScatterAdd`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let updates = g.constant(Tensor::new([3, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?)?;
    /// let ids = g.constant(Tensor::new([3], vec![1i32, 0, 1])?)?;
    /// let y = g.scatter_add(updates, ids, 0, 3)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [3.0, 4.0, 6.0, 8.0, 0.0, 0.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `updates` are no floats or don't have the indices' shape from the axis on, if `indices` are not i32, or
    /// if the size is 0 and there are indices.
    pub fn scatter_add(&mut self, updates: ValueId, indices: ValueId, axis: isize, size: usize) -> Result<ValueId> {
        let (rank, indexed) = (self.shape(updates).rank(), self.shape(indices).rank());
        let result: Shape = vec![1; (rank + 1).saturating_sub(indexed)].into();
        let axis = result.axis("scatter_add", axis)?;
        self.push_one(Op::ScatterAdd { axis, size }, &[updates, indices])
    }

    /// Rotary position embedding of `x [B, H, T, D]` by tables of cosines and sines `[P, R/2]` and i32 positions
    /// `[B, T]`. See [`Op::Rotary`].
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([1, 1, 1, 2], vec![3.0f32, 0.0])?)?;
    /// let cos = g.constant(Tensor::new([2, 1], vec![1.0f32, 0.0])?)?;
    /// let sin = g.constant(Tensor::new([2, 1], vec![0.0f32, 1.0])?)?;
    /// let positions = g.constant(Tensor::new([1, 1], vec![1i32])?)?;
    /// let y = g.rotary(x, [cos, sin], positions, false)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [0.0, 3.0]); // a quarter turn
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the shapes are others than these or R is over D, if `x` is no float, if the tables have another
    /// dtype, or if the positions are not i32.
    pub fn rotary(
        &mut self,
        x: ValueId,
        [cos, sin]: [ValueId; 2],
        positions: ValueId,
        interleaved: bool,
    ) -> Result<ValueId> {
        self.push_one(Op::Rotary { interleaved }, &[x, cos, sin, positions])
    }

    /// A cache with an update written at i32 positions `[B]` along an axis, and how many rows did not fit, i32 `[1]`.
    /// See [`Op::Append`].
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let cache = g.constant(Tensor::zeros(DType::F32, [1, 4])?)?;
    /// let update = g.constant(Tensor::new([1, 2], vec![5.0f32, 6.0])?)?;
    /// let position = g.constant(Tensor::new([1], vec![1i32])?)?;
    /// let (grown, dropped) = g.append(cache, update, position, 1, false)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(grown).to_f64(), [0.0, 5.0, 6.0, 0.0]);
    /// assert_eq!(values.value(dropped).to_f64(), [0.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the axis is 0 or not there, if `update` differs from `cache` in dtype or another axis or is
    /// longer, if the positions are not i32 `[B]`, or if they are a constant and the rows don't fit.
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

    /// Pages `[N, S, H, D]` with an update `[B, H, T, D]` written at i32 positions `[B]` of each item's pages, which a
    /// table `[B, P]` names, and how many rows did not fit, i32 `[1]`. See [`Op::AppendPaged`].
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let pages = g.constant(Tensor::zeros(DType::F32, [2, 2, 1, 1])?)?;
    /// let update = g.constant(Tensor::new([1, 1, 3, 1], vec![5.0f32, 6.0, 7.0])?)?;
    /// let position = g.constant(Tensor::new([1], vec![0i32])?)?;
    /// let table = g.constant(Tensor::new([1, 2], vec![1i32, 0])?)?;
    /// let (grown, _) = g.append_paged(pages, update, position, table)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(grown).to_f64(), [7.0, 0.0, 5.0, 6.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the shapes are others than these, if `update` has another dtype than `pages`, if positions or
    /// table are not i32, if there is no page for a table to name, or if the positions are a constant and the rows
    /// don't fit.
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

    /// Attention over all keys from its results over parts of them, each an output `[…, Dv]` and its log-sum-exp `[…]`
    /// as [`Graph::attention_with_lse`] gives them: the joined output and log-sum-exp. See [`Op::AttentionMerge`].
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
    ///
    /// # Errors
    /// [`Error::Op`] if there are no parts, if they differ in shape or dtype, if an output is no float, or if a
    /// log-sum-exp is not f32 with a number for each row.
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
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let outs = g.constant(Tensor::new([2, 1], vec![2.0f32, 4.0])?)?;
    /// let lses = g.constant(Tensor::new([2], vec![0.0f32, 0.0])?)?;
    /// let (out, lse) = g.attention_merge_stacked(outs, lses)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(out).to_f64(), [3.0]);
    /// assert_eq!(values.value(lse).to_f64(), [2f64.ln()]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `outs` is no float or has fewer than two axes, or if `lses` is not f32 with a number for each
    /// row.
    pub fn attention_merge_stacked(&mut self, outs: ValueId, lses: ValueId) -> Result<(ValueId, ValueId)> {
        let outputs = self.push(Op::AttentionMerge, &[outs, lses])?;
        Ok((outputs[0], outputs[1]))
    }

    /// `[B, T, H·D] → [B, H, T, D]`: a view.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([1, 2, 2], vec![1i32, 2, 3, 4])?)?;
    /// let y = g.split_heads(x, 2)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, 3.0, 2.0, 4.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` does not have three axes, or if its last is no multiple of `heads`.
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

    /// `[B, H, T, D] → [B, T, H·D]`: [`Graph::split_heads`] undone.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([1, 2, 2, 1], vec![1i32, 3, 2, 4])?)?;
    /// let y = g.merge_heads(x)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(y).to_f64(), [1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` does not have four axes.
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

/// Methods for functions of one element: what the function takes, and an operand with its result for the example.
macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident = $function:ident of $takes:literal, $x:tt => $y:tt;)*) => {
        /// Functions of elements, by name.
        impl Graph {$(
            $(#[$doc])*
            ///
            /// ```
            /// # use tilewise::{Graph, Tensor, reference::Evaluation};
            /// # let mut g = Graph::new();
            #[doc = concat!("let x = g.constant(Tensor::new([2], vec!", stringify!($x), ")?)?;")]
            #[doc = concat!("let y = g.", stringify!($name), "(x)?;")]
            /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
            #[doc = concat!("assert_eq!(values.value(y).to_tensor()?.as_f32(), Some(&", stringify!($y), "[..]));")]
            /// # Ok::<(), tilewise::Error>(())
            /// ```
            ///
            /// # Errors
            #[doc = concat!("[`Error::Op`] unless `x` is ", $takes, ".")]
            pub fn $name(&mut self, x: ValueId) -> Result<ValueId> {
                self.unary(Unary::$function, x)
            }
        )*}
    };
}

/// Methods for functions of two elements, with operands and their result for the example.
macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident = $function:ident, $a:tt, $b:tt => $y:tt;)*) => {
        /// Functions of two elements, by name; operands broadcast.
        impl Graph {$(
            $(#[$doc])*
            ///
            /// ```
            /// # use tilewise::{Graph, Tensor, reference::Evaluation};
            /// # let mut g = Graph::new();
            #[doc = concat!("let a = g.constant(Tensor::new([2], vec!", stringify!($a), ")?)?;")]
            #[doc = concat!("let b = g.constant(Tensor::new([2], vec!", stringify!($b), ")?)?;")]
            #[doc = concat!("let y = g.", stringify!($name), "(a, b)?;")]
            /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
            #[doc = concat!("assert_eq!(values.value(y).to_tensor()?.as_f32(), Some(&", stringify!($y), "[..]));")]
            /// # Ok::<(), tilewise::Error>(())
            /// ```
            ///
            /// # Errors
            /// [`Error::Op`] unless `a` and `b` are numbers of one dtype whose shapes broadcast.
            pub fn $name(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
                self.binary(Binary::$function, a, b)
            }
        )*}
    };
}

unary! {
    /// −x
    neg = Neg of "a number", [1.5f32, -2.0] => [-1.5, 2.0];
    /// |x|
    abs = Abs of "a number", [1.5f32, -2.0] => [1.5, 2.0];
    /// eˣ
    exp = Exp of "f32, f16 or bf16", [0.0f32, 1.0] => [1.0, 2.7182817];
    /// ln x
    log = Log of "f32, f16 or bf16", [1.0f32, 4.0] => [0.0, 1.3862944];
    /// √x
    sqrt = Sqrt of "f32, f16 or bf16", [4.0f32, 0.25] => [2.0, 0.5];
    /// 1/x
    reciprocal = Reciprocal of "f32, f16 or bf16", [4.0f32, -0.5] => [0.25, -2.0];
    /// The error function, 2/√π · ∫₀ˣ e^(−t²) dt
    erf = Erf of "f32, f16 or bf16", [0.0f32, 1.0] => [0.0, 0.8427008];
    /// tanh x
    tanh = Tanh of "f32, f16 or bf16", [0.0f32, 1.0] => [0.0, 0.7615942];
    /// 1/(1 + e^(−x))
    sigmoid = Sigmoid of "f32, f16 or bf16", [0.0f32, 1.0] => [0.5, 0.7310586];
    /// max(x, 0)
    relu = Relu of "a number", [-1.5f32, 2.0] => [0.0, 2.0];
    /// x·Φ(x), exactly; see [`Unary::Gelu`]
    gelu = Gelu of "f32, f16 or bf16", [-1.0f32, 1.0] => [-0.15865526, 0.8413448];
    /// x·Φ(x), approximated by tanh; see [`Unary::GeluTanh`]
    gelu_tanh = GeluTanh of "f32, f16 or bf16", [-1.0f32, 1.0] => [-0.15880801, 0.841192];
    /// x·sigmoid(x); see [`Unary::Silu`]
    silu = Silu of "f32, f16 or bf16", [-1.0f32, 1.0] => [-0.26894143, 0.7310586];
}

binary! {
    /// a + b
    add = Add, [1.0f32, 2.0], [0.5f32, 4.0] => [1.5, 6.0];
    /// a − b
    sub = Sub, [1.0f32, 2.0], [0.5f32, 4.0] => [0.5, -2.0];
    /// a · b
    mul = Mul, [1.0f32, 2.0], [0.5f32, 4.0] => [0.5, 8.0];
    /// a / b; integers truncate towards zero, and division by 0 gives 0
    div = Div, [1.0f32, 2.0], [0.5f32, 4.0] => [2.0, 0.5];
    /// The larger
    max = Max, [1.0f32, 2.0], [0.5f32, 4.0] => [1.0, 4.0];
    /// The smaller
    min = Min, [1.0f32, 2.0], [0.5f32, 4.0] => [0.5, 2.0];
    /// a to the power b; see [`Binary::Pow`]
    pow = Pow, [1.0f32, 2.0], [0.5f32, 4.0] => [1.0, 16.0];
}
