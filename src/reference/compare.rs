//! The comparer: is a kernel's result close enough to the reference?
//!
//! Each element must satisfy `|actual − expected| ≤ allowed`; ±∞, NaN, dtype and shape must match exactly. Integers and
//! booleans must be equal under any bound. A [`Bound`] says what is allowed; by default it is measured
//! ([`Bound::measured`]): twice the error of a plain f32 evaluation, and one rounding of the largest result.
//!
//! Where a plain evaluation fails altogether (squares overflow, sums lose all digits), a measured bound is as large as what
//! it bounds, and anything passes. Such a bound proves nothing ([`Bound::is_blunt`]): then the results must equal the
//! reference to one rounding, or the comparison is no pass but [`MismatchKind::ProvesNothing`].

use std::{collections::BTreeMap, fmt};

use super::{Evaluation, Value, apply, real::round_to};
use crate::{
    DType, Graph, Result, Shape, Tensor,
    graph::{Binary, Op, Reduce, Unary},
};

/// The distance that an element may have from the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Not at all: the reference, rounded once to the dtype, bit for bit (but −0 is 0).
    Exact,
    /// `absolute + relative·|expected|`, as NumPy's `allclose` has it.
    Within {
        /// Of the expected value.
        relative: f64,
        /// In the unit of the value.
        absolute: f64,
    },
    /// As measured on a plain evaluation: see [`Bound::measured`].
    Measured {
        /// What is allowed, for all elements.
        absolute: f64,
        /// The part of it that doesn't come from the plain evaluation's error: one rounding of the largest result.
        rounding: f64,
        /// The largest magnitude of what is bounded; where sums cancel, that of their terms.
        scale: f64,
    },
}

/// The part of the largest magnitude above which a bound proves nothing about the values.
const BLUNT: f64 = 0.25;

impl Bound {
    /// The same error for all elements.
    pub fn absolute(absolute: f64) -> Self {
        Bound::Within { relative: 0.0, absolute }
    }

    /// `atol + rtol·|expected|`: the criterion of NumPy, PyTorch and ONNX.
    pub fn relative(rtol: f64, atol: f64) -> Self {
        Bound::Within { relative: rtol, absolute: atol }
    }

    /// The natural bound for this value: `2·E + (u + extra·u₃₂)·peak`.
    ///
    /// E is the largest error of a plain evaluation, `peak` the largest magnitude (of `expected`, or `magnitude` if
    /// that is larger: where sums cancel, that of their terms), u half the spacing of the dtype at 1 and u₃₂ that of
    /// f32, 2⁻²⁴. `extra` stands for functions that WGSL leaves less accurate than a plain evaluation; see [`extra`].
    /// The bound is never below the smallest normal number of the dtype: devices may flush subnormals to 0.
    pub fn measured(expected: &Value<f64>, plain: &Value<f32>, extra: f64, magnitude: f64) -> Self {
        let (unit, smallest) = match expected.dtype() {
            DType::F32 => (U32, f64::from(f32::MIN_POSITIVE)),
            DType::F16 => (2f64.powi(-11), 2f64.powi(-14)),
            DType::BF16 => (2f64.powi(-8), f64::from(f32::MIN_POSITIVE)),
            DType::I32 | DType::U32 | DType::Bool => return Bound::Exact,
        };
        let expected = expected.to_f64();
        let errors = plain.to_f64().into_iter().zip(&expected).map(|(plain, x)| (plain - x).abs());
        let error = errors.filter(|e| e.is_finite()).fold(0.0, f64::max);
        let scale = peak(&expected).max(magnitude);
        let rounding = (unit + extra * U32) * scale;
        Bound::Measured { absolute: (2.0 * error + rounding).max(smallest), rounding: rounding.max(smallest), scale }
    }

    /// Whether the bound is as large as what it bounds, more than a quarter of the largest magnitude: a result of zeros
    /// could pass. Zero can be bounded by anything that the caller states, but not by what was measured.
    ///
    /// ```
    /// use tilewise::{Tensor, reference::compare::Bound};
    /// let expected = (&Tensor::new([2], vec![1.0f32, -2.0])?).into();
    /// assert!(!Bound::absolute(0.1).is_blunt(&expected));
    /// assert!(Bound::absolute(1.0).is_blunt(&expected));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    pub fn is_blunt(&self, expected: &Value<f64>) -> bool {
        match *self {
            Bound::Exact => false,
            Bound::Within { .. } => {
                let largest = peak(&expected.to_f64());
                expected.dtype().is_float() && largest > 0.0 && self.allowed(largest) > BLUNT * largest
            }
            Bound::Measured { absolute, rounding, scale } => absolute > rounding.max(BLUNT * scale),
        }
    }

    fn allowed(&self, expected: f64) -> f64 {
        match self {
            Bound::Exact => 0.0,
            Bound::Within { relative, absolute } => absolute + relative * expected.abs(),
            Bound::Measured { absolute, .. } => *absolute,
        }
    }
}

/// The largest finite magnitude. The lse of a fully masked row, or of one of scores as low, is no measure of the others.
fn peak(x: &[f64]) -> f64 {
    let lowest = f64::from(f32::MIN.next_up());
    x.iter().filter(|x| x.is_finite() && **x > lowest).fold(0.0, |most, x| x.abs().max(most))
}

/// The largest magnitude of what a result is the sum of, from those of the operands: the result itself may cancel to less.
/// 0 where nothing cancels.
fn terms(op: &Op, result: usize, operands: &[f64]) -> f64 {
    let largest = || operands.iter().copied().fold(0.0, f64::max);
    match op {
        Op::Matmul { .. } => operands.iter().product(),
        Op::LayerNorm { .. } if result == 1 => operands[0],
        Op::LayerNorm { .. } | Op::RmsNorm { .. } => 0.0,
        Op::Reduce { .. } | Op::ScatterAdd { .. } => operands[0],
        Op::Binary { function } => match function {
            Binary::Add | Binary::Sub | Binary::Max | Binary::Min => largest(),
            Binary::Mul => operands.iter().product(),
            Binary::Div | Binary::Pow => 0.0,
            Binary::Equal | Binary::NotEqual => 0.0,
            Binary::Less | Binary::LessEqual | Binary::Greater | Binary::GreaterEqual => 0.0,
            Binary::And | Binary::Or | Binary::Xor => 0.0,
        },
        Op::Unary { function } => match function {
            Unary::Neg | Unary::Abs | Unary::Relu => operands[0],
            Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal | Unary::Exp | Unary::Log | Unary::Softplus => 0.0,
            Unary::Sin | Unary::Cos | Unary::Tanh | Unary::Erf | Unary::Sigmoid => 0.0,
            Unary::Silu | Unary::Gelu | Unary::GeluTanh => 0.0,
            Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round | Unary::Not => 0.0,
        },
        Op::Reshape { .. } | Op::Permute { .. } | Op::Slice { .. } | Op::Broadcast { .. } => operands[0],
        Op::Pad { .. } | Op::Gather { .. } | Op::Cast { .. } | Op::Rotary { .. } => operands[0],
        Op::Dropout { .. } => 0.0,
        Op::Concat { .. } | Op::Where | Op::Append { .. } | Op::AppendPaged => largest(),
        Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } | Op::Argmax { .. } | Op::Dequantize(_) => 0.0,
        Op::Softmax { .. } | Op::LogSoftmax { .. } => 0.0,
        // The largest logit and the logarithm may cancel; the parts of a loss have one sign.
        Op::CrossEntropy { .. } if result == 1 => operands[0],
        Op::CrossEntropy { .. } => 0.0,
        // Of the values: they are averaged.
        Op::Attention(_) if result == 0 => operands[2],
        Op::AttentionMerge if result == 0 => operands[0],
        // dv is a sum of dout by weights; of what the others cancel, a plain evaluation tells.
        Op::AttentionGrad(attention) if result == 2 => operands[3 + attention.operands.len()],
        Op::Attention(_) | Op::AttentionGrad(_) | Op::AttentionMerge => 0.0,
    }
}

/// Half the spacing of f32 at 1.
const U32: f64 = 1.0 / (1u64 << 24) as f64;

/// How much looser than one rounding an operation may be on a device, in units of 2⁻²⁴ of the largest result.
///
/// From the accuracy that WGSL asks for ("Concrete Numeric Accuracy"; 1 ULP is up to two such units), for arguments of
/// magnitude up to 8:
///
/// | operation | units | because |
/// |---|---|---|
/// | matmul, sum, mean | 4 | another order of additions; a plain one may happen to be exact |
/// | div, reciprocal, rsqrt | 5 | 2.5 ULP (2 for `inverseSqrt`) |
/// | sqrt | 9 | as 1/`inverseSqrt`: 2 + 2.5 ULP |
/// | exp, softplus | 38 | 3 + 2·\|x\| ULP |
/// | log | 16 | 2⁻²¹ near 1, 3 ULP elsewhere |
/// | pow | 128 | as exp2(y·log2 x) |
/// | sin, cos | 8192 | 2⁻¹¹ |
/// | tanh | 168 | 10⁻⁵ |
/// | gelu_tanh | 84 | half of tanh's, times x |
/// | sigmoid, silu | 16 | exp and a division, where they weigh most |
/// | erf, gelu | 16 | kernels approximate it, with an exp |
/// | softmax | 16 | exp at its largest result, the sum, a division |
/// | log_softmax | 24 | and a log |
/// | cross_entropy | 32 | as log_softmax, with sums over the classes |
/// | attention | 24 + 168·c + 96·f | as softmax, between two sums; c·tanh(…) if there is a softcap of c; f score functions, whose twins don't round |
/// | (of f16) | 0 | weights rounded to f16 are off by u of themselves: the one rounding, if `magnitude` is at least max \|v\| |
/// | attention_grad | 64 + 336·c | as attention, with a product of two sums and the slope of the softcap |
/// | attention_merge | 24 | as softmax, between two sums |
/// | layer_norm, rms_norm | 12 | sums, `inverseSqrt`, products |
/// | dropout | 2 | the factor 1/(1 − p), and a product |
/// | rotary | 2 | two products and a sum, fused or not |
/// | all else | 0 | exact or correctly rounded |
pub fn extra(op: &Op) -> f64 {
    match op {
        Op::Dropout { .. } | Op::Rotary { .. } => 2.0,
        Op::Matmul { .. } => 4.0,
        Op::LayerNorm { .. } | Op::RmsNorm { .. } => 12.0,
        Op::Softmax { .. } => 16.0,
        Op::LogSoftmax { .. } => 24.0,
        Op::CrossEntropy { .. } => 32.0,
        Op::Attention(attention) => {
            let functions = 96.0 * attention.score_mods.len() as f64;
            24.0 + 168.0 * attention.softcap.map_or(0.0, f64::from) + functions
        }
        Op::AttentionGrad(attention) => 64.0 + 336.0 * attention.softcap.map_or(0.0, f64::from),
        Op::AttentionMerge => 24.0,
        Op::Unary { function } => match function {
            Unary::Rsqrt | Unary::Reciprocal => 5.0,
            Unary::Sqrt => 9.0,
            Unary::Exp | Unary::Softplus => 38.0,
            Unary::Log | Unary::Sigmoid | Unary::Silu | Unary::Erf | Unary::Gelu => 16.0,
            Unary::Sin | Unary::Cos => 8192.0,
            Unary::Tanh => 168.0,
            Unary::GeluTanh => 84.0,
            Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu => 0.0,
            Unary::Floor | Unary::Ceil | Unary::Round | Unary::Not => 0.0,
        },
        Op::Binary { function } => match function {
            Binary::Div => 5.0,
            Binary::Pow => 128.0,
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Max | Binary::Min => 0.0,
            Binary::Equal | Binary::NotEqual => 0.0,
            Binary::Less | Binary::LessEqual | Binary::Greater | Binary::GreaterEqual => 0.0,
            Binary::And | Binary::Or | Binary::Xor => 0.0,
        },
        Op::Reduce { function, .. } => match function {
            Reduce::Sum | Reduce::Mean => 4.0,
            Reduce::Max | Reduce::Min => 0.0,
        },
        Op::ScatterAdd { .. } => 4.0,
        Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } => 0.0,
        Op::Reshape { .. } | Op::Permute { .. } | Op::Slice { .. } | Op::Broadcast { .. } => 0.0,
        Op::Concat { .. } | Op::Pad { .. } | Op::Gather { .. } | Op::Append { .. } | Op::AppendPaged => 0.0,
        Op::Where | Op::Cast { .. } | Op::Argmax { .. } | Op::Dequantize(_) => 0.0,
    }
}

/// A criterion for results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    /// Equal bits.
    Exact,
    /// [`Bound::relative`].
    Within {
        /// Of the expected value.
        relative: f64,
        /// In the unit of the value.
        absolute: f64,
    },
    /// [`Bound::measured`], with [`extra`] summed over the operations.
    Measured {
        /// The size of sums on the way whose results may cancel to less, beside those that the graph itself adds up at its
        /// end: 0 if there are no others.
        magnitude: f64,
    },
}

/// The reference's results and what is allowed around each of them.
#[derive(Clone, Debug)]
pub struct Expected {
    results: Vec<(String, Value<f64>, Bound)>,
}

impl Expected {
    /// The outputs of a graph, in the order of their declaration.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::compare::{Check, Expected}};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::scalar(2.0))?;
    /// let y = g.exp(x)?;
    /// g.output("y", y)?;
    /// let expected = Expected::of_graph(&g, &Default::default(), Check::measured())?;
    /// assert!(expected.compare(&[Tensor::scalar(7.389056)]).is_ok());
    /// assert!(expected.compare(&[Tensor::scalar(7.3892)]).is_err());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`evaluate`](super::evaluate).
    pub fn of_graph(graph: &Graph, inputs: &BTreeMap<String, Tensor>, check: Check) -> Result<Self> {
        let reference = Evaluation::<f64>::new(graph, inputs)?;
        let plain = match check {
            Check::Measured { .. } => Some(Evaluation::<f32>::new(graph, inputs)?),
            Check::Exact | Check::Within { .. } => None,
        };
        let extra = graph.nodes().iter().map(|node| extra(&node.op)).sum();
        let sizes = if plain.is_some() { sizes(graph, &reference) } else { Vec::new() };
        let results = graph.outputs().iter().map(|(name, value)| {
            let expected = reference.value(*value).clone();
            let check = check.of_terms(sizes.get(value.index()).copied().unwrap_or(0.0));
            let bound = check.bound(&expected, plain.as_ref().map(|plain| plain.value(*value)), extra);
            (name.clone(), expected, bound)
        });
        Ok(Expected { results: results.collect() })
    }

    /// The results of one operation, in order.
    ///
    /// ```
    /// use tilewise::{Tensor, graph::{Op, Reduce}, reference::compare::{Check, Expected}};
    /// let op = Op::Reduce { function: Reduce::Sum, axes: vec![0], keep: false };
    /// let expected = Expected::of_op(&op, &[&Tensor::new([3], vec![1i32, 2, 3])?], Check::Exact)?;
    /// assert!(expected.compare(&[Tensor::new([], vec![6i32])?]).is_ok());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`apply`].
    pub fn of_op(op: &Op, operands: &[&Tensor], check: Check) -> Result<Self> {
        let wide: Vec<Value<f64>> = operands.iter().map(|&tensor| tensor.into()).collect();
        let narrow: Vec<Value<f32>> = operands.iter().map(|&tensor| tensor.into()).collect();
        let reference = apply(op, &wide.iter().collect::<Vec<_>>())?;
        let plain = apply(op, &narrow.iter().collect::<Vec<_>>())?;
        let sizes: Vec<f64> = wide.iter().map(size).collect();
        let results = reference.into_iter().zip(&plain).enumerate().map(|(i, (expected, plain))| {
            let bound = check.of_terms(terms(op, i, &sizes)).bound(&expected, Some(plain), extra(op));
            (format!("{} result {i}", op.name()), expected, bound)
        });
        Ok(Expected { results: results.collect() })
    }

    /// Names, values and bounds, in order.
    pub fn results(&self) -> impl Iterator<Item = (&str, &Value<f64>, &Bound)> {
        self.results.iter().map(|(name, value, bound)| (name.as_str(), value, bound))
    }

    /// Compares tensors in the order of the results, and says how close each of them came.
    ///
    /// ```
    /// use tilewise::{Tensor, graph::{Op, Unary}, reference::compare::{Check, Expected}};
    /// let expected = Expected::of_op(&Op::Unary { function: Unary::Neg }, &[&Tensor::scalar(3.0)], Check::Exact)?;
    /// assert_eq!(expected.compare(&[Tensor::scalar(-3.0)]).unwrap()[0].ratio, 0.0);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Mismatches`] with each tensor that is not what the reference says, or if there are more or fewer tensors than
    /// results.
    pub fn compare(&self, actual: &[Tensor]) -> Result<Vec<Comparison>, Mismatches> {
        if actual.len() != self.results.len() {
            let kind = MismatchKind::Count { actual: actual.len(), expected: self.results.len() };
            return Err(Mismatches(vec![Mismatch { name: "outputs".into(), kind }]));
        }
        let pairs = self.results.iter().zip(actual);
        all(pairs.map(|((name, expected, bound), actual)| compare(name, actual, expected, bound)))
    }

    /// Compares outputs by name. Others may be there too.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::{self, compare::{Check, Expected}}};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::scalar(3.0))?;
    /// g.output("y", x)?;
    /// let expected = Expected::of_graph(&g, &Default::default(), Check::Exact)?;
    /// let outputs = reference::evaluate(&g, &Default::default())?;
    /// assert_eq!(expected.compare_named(&outputs).unwrap().len(), 1);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Mismatches`] with each output that is not what the reference says, or missing.
    pub fn compare_named(&self, actual: &BTreeMap<String, Tensor>) -> Result<Vec<Comparison>, Mismatches> {
        all(self.each_named(actual).map(|(_, result)| result))
    }

    /// What [`Expected::compare_named`] says of each output by itself, in order.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::{self, compare::{Check, Expected}}};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::scalar(3.0))?;
    /// let y = g.neg(x)?;
    /// g.output("x", x)?;
    /// g.output("y", y)?;
    /// let expected = Expected::of_graph(&g, &Default::default(), Check::Exact)?;
    /// let wrong = [("x", 3.0), ("y", 3.0)].map(|(name, x)| (name.to_string(), Tensor::scalar(x))).into();
    /// let right: Vec<bool> = expected.each_named(&wrong).map(|(_, result)| result.is_ok()).collect();
    /// assert_eq!(right, [true, false]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    pub fn each_named<'a>(
        &'a self,
        actual: &'a BTreeMap<String, Tensor>,
    ) -> impl Iterator<Item = (&'a str, Result<Comparison, Mismatch>)> {
        self.results.iter().map(|(name, expected, bound)| {
            let result = match actual.get(name) {
                Some(actual) => compare(name, actual, expected, bound),
                None => Err(Mismatch { name: name.clone(), kind: MismatchKind::Missing }),
            };
            (name.as_str(), result)
        })
    }
}

/// All of them, or all that are wrong.
fn all(results: impl Iterator<Item = Result<Comparison, Mismatch>>) -> Result<Vec<Comparison>, Mismatches> {
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(comparison) => right.push(comparison),
            Err(mismatch) => wrong.push(mismatch),
        }
    }
    if wrong.is_empty() { Ok(right) } else { Err(Mismatches(wrong)) }
}

/// The largest magnitude of each value of a graph, or of the terms that it is the sum of.
fn sizes(graph: &Graph, reference: &Evaluation<f64>) -> Vec<f64> {
    let mut sizes: Vec<f64> = Vec::with_capacity(graph.values().len());
    for node in graph.nodes() {
        let operands: Vec<f64> = node.inputs.iter().map(|input| sizes[input.index()]).collect();
        for (result, &value) in node.outputs.iter().enumerate() {
            sizes.push(size(reference.value(value)).max(terms(&node.op, result, &operands)));
        }
    }
    sizes
}

/// The largest magnitude of floats.
fn size(value: &Value<f64>) -> f64 {
    value.floats().map_or(0.0, |array| peak(array.data()))
}

impl Check {
    /// The criterion of most tests: measured, for results that don't cancel.
    pub fn measured() -> Self {
        Check::Measured { magnitude: 0.0 }
    }

    /// For results that the graph itself rounds to `dtype` at the end: where they are near the middle between two of its
    /// numbers, a device may take the other one.
    pub fn one_apart(dtype: DType) -> Self {
        let relative = match dtype {
            DType::BF16 => 2f64.powi(-7),
            DType::F16 => 2f64.powi(-10),
            DType::F32 => 2f64.powi(-23),
            DType::I32 | DType::U32 | DType::Bool => return Check::Exact,
        };
        Check::Within { relative, absolute: 1e-5 }
    }

    /// The same for results whose terms are of this size.
    fn of_terms(self, terms: f64) -> Self {
        match self {
            Check::Exact | Check::Within { .. } => self,
            Check::Measured { magnitude } => Check::Measured { magnitude: magnitude.max(terms) },
        }
    }

    fn bound(self, expected: &Value<f64>, plain: Option<&Value<f32>>, extra: f64) -> Bound {
        match (self, plain) {
            (Check::Measured { magnitude }, Some(plain)) => Bound::measured(expected, plain, extra, magnitude),
            (Check::Within { relative, absolute }, _) => Bound::Within { relative, absolute },
            (Check::Exact | Check::Measured { .. }, _) => Bound::Exact,
        }
    }
}

/// Compares the results of one operation with the reference, by [`Check::measured`].
///
/// ```
/// use tilewise::{Tensor, graph::{Op, Unary}, reference::compare};
/// let (x, mine) = (Tensor::new([2], vec![0.0f32, 1.0])?, Tensor::new([2], vec![1.0f32, 2.72])?);
/// let wrong = compare::op(&Op::Unary { function: Unary::Exp }, &[&x], &[&mine]).unwrap_err();
/// assert!(wrong.to_string().starts_with("exp result 0: 1 of 2 elements are wrong; the worst at [1]: got 2.72"));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Mismatches`] as [`Expected::compare`], or an [`Error`](crate::Error) as [`apply`].
pub fn op(op: &Op, operands: &[&Tensor], actual: &[&Tensor]) -> Result<Vec<Comparison>, Box<dyn std::error::Error>> {
    let actual: Vec<Tensor> = actual.iter().map(|&tensor| tensor.clone()).collect();
    Ok(Expected::of_op(op, operands, Check::measured())?.compare(&actual)?)
}

/// Compares a tensor with the reference's value; `name` is for the message.
///
/// ```
/// use tilewise::{Tensor, reference::compare::{Bound, compare}};
/// let (mine, expected) = (Tensor::scalar(1.0001), Tensor::scalar(1.0));
/// assert!(compare("y", &mine, &(&expected).into(), &Bound::relative(1e-3, 0.0)).is_ok());
/// let wrong = compare("y", &mine, &(&expected).into(), &Bound::Exact).unwrap_err();
/// assert!(wrong.to_string().starts_with("y: 1 of 1 elements are wrong"));
/// ```
///
/// # Errors
/// A [`Mismatch`] if dtype or shape differ, if an element is out of its bound, or NaN where the other isn't, or if a
/// [blunt](Bound::is_blunt) bound was measured and an element is off by more than one rounding.
pub fn compare(name: &str, actual: &Tensor, expected: &Value<f64>, bound: &Bound) -> Result<Comparison, Mismatch> {
    let mismatch = |kind| Err(Mismatch { name: name.into(), kind });
    if actual.dtype() != expected.dtype() {
        return mismatch(MismatchKind::DType { actual: actual.dtype(), expected: expected.dtype() });
    }
    if actual.shape() != expected.shape() {
        return mismatch(MismatchKind::Shape { actual: actual.shape().clone(), expected: expected.shape().clone() });
    }
    let dtype = expected.dtype();
    let mut comparison = Comparison { elements: actual.len(), nan: 0, observed: 0.0, allowed: 0.0, ratio: 0.0 };
    let (mut wrong, mut first, mut worst, mut closest) = (0, None, None, None);
    for (place, (got, exact)) in actual.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
        if got.is_nan() && exact.is_nan() {
            comparison.nan += 1;
            continue;
        }
        let rounded = round_to(exact, dtype);
        // Nothing but itself is near an infinity or NaN.
        let (error, allowed) = if rounded.is_infinite() || !dtype.is_float() || *bound == Bound::Exact {
            (if got == rounded { 0.0 } else { (got - rounded).abs() }, 0.0)
        } else {
            ((got - exact).abs(), bound.allowed(exact))
        };
        let ratio = if error == 0.0 { 0.0 } else { error / allowed };
        let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
        let element =
            || Element { index: unravel(place, actual.shape()), actual: got, expected: exact, error, allowed };
        // False for NaN.
        let close = error <= allowed;
        if !close {
            wrong += 1;
            first.get_or_insert_with(element);
            if worst.is_none() || ratio > comparison.ratio {
                worst = Some(element());
            }
        }
        if ratio > comparison.ratio || closest.is_none() {
            (comparison.ratio, comparison.observed, comparison.allowed) = (ratio, error, allowed);
            closest = Some(place);
        }
    }
    if let (Some(first), Some(worst)) = (first, worst) {
        let (first, worst) = (Box::new(first), Box::new(worst));
        return mismatch(MismatchKind::Values { wrong, elements: actual.len(), first, worst });
    }
    if let (&Bound::Measured { rounding, scale, .. }, Some(place)) = (bound, closest)
        && bound.is_blunt(expected)
        && comparison.observed > rounding
    {
        let worst = Box::new(Element {
            index: unravel(place, actual.shape()),
            actual: actual.to_f64()[place],
            expected: expected.to_f64()[place],
            error: comparison.observed,
            allowed: comparison.allowed,
        });
        return mismatch(MismatchKind::ProvesNothing { scale, worst });
    }
    Ok(comparison)
}

fn unravel(place: usize, shape: &Shape) -> Vec<usize> {
    let mut index = vec![0; shape.rank()];
    let mut rest = place;
    for (i, &size) in index.iter_mut().zip(shape.iter()).rev() {
        (*i, rest) = (rest % size, rest / size);
    }
    index
}

/// The distance of a tensor that passed from its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Elements compared.
    pub elements: usize,
    /// Those that are NaN, as the reference's are.
    pub nan: usize,
    /// The error of the element that came closest to its bound.
    pub observed: f64,
    /// The error that this element is allowed.
    pub allowed: f64,
    /// The largest observed / allowed, 0 if all is equal.
    pub ratio: f64,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { elements, nan, observed, allowed, ratio } = self;
        write!(f, "{elements} elements, worst error {observed:.3e} of {allowed:.3e} allowed ({ratio:.3})")?;
        if *nan > 0 { write!(f, "; {nan} are NaN, and the reference is NaN there too") } else { Ok(()) }
    }
}

/// A tensor that differs from the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// The output.
    pub name: String,
    /// The difference.
    pub kind: MismatchKind,
}

/// The difference of a [`Mismatch`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MismatchKind {
    /// The number of outputs.
    Count {
        /// Given.
        actual: usize,
        /// By the reference.
        expected: usize,
    },
    /// There is no output of the name.
    Missing,
    /// The dtype.
    DType {
        /// Given.
        actual: DType,
        /// By the reference.
        expected: DType,
    },
    /// The shape.
    Shape {
        /// Given.
        actual: Shape,
        /// By the reference.
        expected: Shape,
    },
    /// Elements.
    Values {
        /// The number of elements out of bounds.
        wrong: usize,
        /// The number of all elements.
        elements: usize,
        /// The first of them.
        first: Box<Element>,
        /// The one that is farthest out of its bound.
        worst: Box<Element>,
    },
    /// Every element is within its bound, but the bound is as large as what it bounds: a plain f32 evaluation is off by as
    /// much.
    ProvesNothing {
        /// The largest magnitude of what is bounded.
        scale: f64,
        /// The element that is farthest off.
        worst: Box<Element>,
    },
}

/// Every tensor that differs from the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatches(Vec<Mismatch>);

impl Mismatches {
    /// One for each tensor, in the order of the results; there is at least one.
    pub fn all(&self) -> &[Mismatch] {
        &self.0
    }

    /// Whether no tensor is wrong, but the bounds are too large to prove that they are right.
    pub fn prove_nothing(&self) -> bool {
        self.0.iter().all(Mismatch::proves_nothing)
    }
}

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mismatch) in self.0.iter().enumerate() {
            write!(f, "{}{mismatch}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatches {}

impl Mismatch {
    /// Whether the tensor is not wrong, but its bound is too large to prove that it is right.
    pub fn proves_nothing(&self) -> bool {
        matches!(self.kind, MismatchKind::ProvesNothing { .. })
    }
}

/// An element that is out of its bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// Its index along each axis.
    pub index: Vec<usize>,
    /// The value that was given.
    pub actual: f64,
    /// The value of the reference.
    pub expected: f64,
    /// The distance.
    pub error: f64,
    /// The distance that is allowed.
    pub allowed: f64,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Element { index, actual, expected, error, allowed } = self;
        write!(f, "{index:?}: got {actual:?}, expected {expected:?} (error {error:.3e}, allowed {allowed:.3e})")
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.kind {
            MismatchKind::Count { actual, expected } => write!(f, "{actual} were given, expected {expected}"),
            MismatchKind::Missing => write!(f, "there is no such output"),
            MismatchKind::DType { actual, expected } => write!(f, "dtype {actual}, expected {expected}"),
            MismatchKind::Shape { actual, expected } => write!(f, "shape {actual}, expected {expected}"),
            MismatchKind::Values { wrong, elements, first, worst } => {
                write!(f, "{wrong} of {elements} elements are wrong; the worst at {worst}")?;
                if first == worst { Ok(()) } else { write!(f, "; the first at {first}") }
            }
            MismatchKind::ProvesNothing { scale, worst } => write!(
                f,
                "the comparison proves nothing: the bound is as large as the values, which reach {scale:.3e}, because a plain \
                 f32 evaluation is off by as much; the farthest at {worst}"
            ),
        }
    }
}

impl std::error::Error for Mismatch {}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound::Within { relative: 1e-6, absolute: 1e-7 };

    fn tensor(data: [f32; 6]) -> Tensor {
        Tensor::new([2, 3], data.to_vec()).expect("6 elements")
    }

    fn fails(actual: &Tensor, expected: &Tensor, bound: Bound, parts: &[&str]) {
        let message = compare("y", actual, &expected.into(), &bound).expect_err("must fail").to_string();
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }

    #[test]
    fn equal_tensors_pass() {
        let x = tensor([0.0, -1.5, f32::INFINITY, f32::NEG_INFINITY, f32::MIN, 1e-40]);
        for bound in [Bound::Exact, BOUND] {
            let comparison = compare("y", &x, &(&x).into(), &bound).expect("equal");
            assert_eq!((comparison.elements, comparison.ratio), (6, 0.0));
        }
    }

    #[test]
    fn nan_fails_on_either_side() {
        let x = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let nan = tensor([1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0]);
        let infinite = tensor([1.0, 2.0, 3.0, 4.0, f32::INFINITY, 6.0]);
        for bound in [Bound::Exact, BOUND, Bound::absolute(f64::INFINITY)] {
            fails(&nan, &x, bound, &["y: 1 of 6", "[1, 1]", "got NaN, expected 5.0"]);
            fails(&x, &nan, bound, &["1 of 6", "[1, 1]", "got 5.0, expected NaN"]);
            fails(&nan, &infinite, bound, &["1 of 6", "[1, 1]", "got NaN, expected inf"]);
            fails(&infinite, &nan, bound, &["1 of 6", "[1, 1]", "got inf, expected NaN"]);
        }
    }

    #[test]
    fn nan_where_the_reference_is_nan_agrees_and_is_counted() {
        let expected = tensor([f32::NAN, 2.0, 3.0, f32::NAN, 5.0, 6.0]);
        let negative = tensor([-f32::NAN, 2.0, 3.0, f32::NAN, 5.0, 6.0]);
        for bound in [Bound::Exact, BOUND, Bound::absolute(f64::INFINITY)] {
            for actual in [&expected, &negative] {
                let comparison = compare("y", actual, &(&expected).into(), &bound).expect("NaN in the same places");
                assert_eq!((comparison.nan, comparison.ratio), (2, 0.0));
                let said = comparison.to_string();
                assert!(said.ends_with("; 2 are NaN, and the reference is NaN there too"), "{said}");
            }
            // The rest is compared all the same, and NaN in another place is wrong twice.
            let wrong = tensor([f32::NAN, 2.0, 3.5, f32::NAN, 5.0, 6.0]);
            if bound != Bound::absolute(f64::INFINITY) {
                fails(&wrong, &expected, bound, &["1 of 6", "worst at [0, 2]: got 3.5, expected 3.0"]);
            }
            let moved = tensor([1.0, f32::NAN, 3.0, f32::NAN, 5.0, 6.0]);
            fails(&moved, &expected, bound, &["2 of 6", "[0, 0]: got 1.0, expected NaN"]);
        }
        let every = tensor([f32::NAN; 6]);
        assert_eq!(compare("y", &every, &(&every).into(), &BOUND).expect("all NaN").nan, 6);
        let measured = Bound::measured(&(&every).into(), &(&every).into(), 0.0, 0.0);
        assert!(!measured.is_blunt(&(&every).into()), "nothing was allowed");
    }

    /// The squares of 10²⁰ are no f32: a plain evaluation gives 0, and so its error is the value itself.
    #[test]
    fn a_bound_as_large_as_what_it_bounds_proves_nothing() {
        let op = Op::RmsNorm { axes: 1, epsilon: 0.0, weight: false };
        let x = tensor([1e20; 6]);
        let expected = Expected::of_op(&op, &[&x], Check::measured()).expect("fits");
        let rstd = Tensor::new([2], vec![1e-20f32; 2]).expect("2 elements");
        for ours in [0.0, 0.5, 2.0] {
            let mismatches = expected.compare(&[tensor([ours; 6]), rstd.clone()]).expect_err("proves nothing");
            assert!(mismatches.prove_nothing() && mismatches.all().len() == 1, "{mismatches}");
            let said = mismatches.to_string();
            for part in [
                "rms_norm result 0: the comparison proves nothing",
                "as the values, which reach 1.000e0",
                "at [0, 0]: got",
            ] {
                assert!(said.contains(part), "`{part}` is not in: {said}");
            }
        }
        // What is out of even this bound is wrong, and what the reference says is right.
        let mismatches = expected.compare(&[tensor([4.0; 6]), rstd.clone()]).expect_err("wrong");
        assert!(!mismatches.prove_nothing() && mismatches.to_string().contains("6 of 6 elements are wrong"));
        let comparisons = expected.compare(&[tensor([1.0; 6]), rstd]).expect("right, to one rounding");
        assert_eq!(comparisons[0].ratio, 0.0);
    }

    #[test]
    fn a_bound_is_blunt_above_a_quarter_of_the_largest_magnitude() {
        let x = Value::<f64>::from(&tensor([1.0, -8.0, 0.0, f32::INFINITY, f32::NAN, 0.5]));
        for (bound, blunt) in [
            (Bound::Exact, false),
            (Bound::absolute(2.0), false),
            (Bound::absolute(2.01), true),
            (Bound::relative(0.2, 0.1), false),
            (Bound::relative(0.2, 1.0), true),
            (Bound::Measured { absolute: 2.0, rounding: 1.0, scale: 8.0 }, false),
            (Bound::Measured { absolute: 2.01, rounding: 1.0, scale: 8.0 }, true),
            // A sum that cancelled is small beside its terms.
            (Bound::Measured { absolute: 2.01, rounding: 1.0, scale: 64.0 }, false),
            // Nothing but one rounding: as near as it gets.
            (Bound::Measured { absolute: 4.0, rounding: 4.0, scale: 8.0 }, false),
        ] {
            assert_eq!(bound.is_blunt(&x), blunt, "{bound:?}");
        }
        // Around zero a caller may allow what they like; an evaluation that is off by 3 says nothing.
        let zero = tensor([0.0; 6]);
        assert!(!Bound::absolute(1e-5).is_blunt(&(&zero).into()));
        let bound = Bound::measured(&(&zero).into(), &(&tensor([3.0; 6])).into(), 0.0, 0.0);
        assert!(bound.is_blunt(&(&zero).into()));
        assert!(compare("y", &zero, &(&zero).into(), &bound).is_ok());
        assert!(compare("y", &tensor([5.0; 6]), &(&zero).into(), &bound).expect_err("says nothing").proves_nothing());
        // Integers are compared exactly, whatever is allowed.
        let whole = Tensor::new([1], vec![1i32]).expect("one");
        assert!(!Bound::absolute(1e9).is_blunt(&(&whole).into()));
    }

    /// What cancels is measured by its terms: not all that is nearly 0 is unproved.
    #[test]
    fn sums_that_cancel_are_bounded_by_their_terms() {
        let build = |shift: f32| -> Result<(Graph, BTreeMap<String, Tensor>)> {
            let mut g = Graph::new();
            let x = g.input("x", DType::F32, [2, 3])?;
            let normed = g.layer_norm(x, None, None, 1e-5)?;
            let scaled = g.exp(normed)?;
            let other = g.add(scaled, normed)?;
            let back = g.sub(other, normed)?;
            let nothing = g.sub(back, scaled)?;
            let sum = g.reduce(Reduce::Sum, nothing, &[0, 1], false)?;
            g.output("sum", sum)?;
            Ok((g, [("x".to_string(), tensor([0.3, 1.1, -0.7, 0.2, 0.9, shift]))].into()))
        };
        let (graph, inputs) = build(0.4).expect("fits");
        let expected = Expected::of_graph(&graph, &inputs, Check::measured()).expect("fits");
        let (_, value, bound) = expected.results().next().expect("one output");
        assert!(value.to_f64()[0].abs() < 1e-14 && bound.allowed(0.0) > 1e-9, "it cancels: {value:?}, {bound:?}");
        let near = Tensor::scalar((0.9 * bound.allowed(0.0)) as f32);
        expected.compare(&[near]).expect("small beside what was added");
        assert!(!expected.compare(&[Tensor::scalar(1e-3)]).expect_err("wrong").prove_nothing());
    }

    #[test]
    fn every_wrong_output_is_named() {
        let x = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let results = ["a", "b", "c", "d"].map(|name| (name.to_string(), (&x).into(), BOUND));
        let expected = Expected { results: results.into() };
        let wrong = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 7.0]);
        let said = expected.compare(&[wrong.clone(), x.clone(), wrong.clone(), x.clone()]).expect_err("two are wrong");
        let names = |mismatches: &Mismatches| mismatches.all().iter().map(|m| m.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&said), ["a", "c"]);
        let lines: Vec<String> = said.to_string().lines().map(String::from).collect();
        assert!(lines.len() == 2 && lines[0].starts_with("a: 1 of 6") && lines[1].starts_with("c: 1 of 6"), "{said}");
        let named = BTreeMap::from([("a", x.clone()), ("b", wrong), ("d", x)].map(|(n, x)| (n.to_string(), x)));
        let said = expected.compare_named(&named).expect_err("one is wrong, one is missing");
        assert_eq!(names(&said), ["b", "c"]);
        assert!(said.to_string().ends_with("c: there is no such output"), "{said}");
    }

    #[test]
    fn infinities_must_match_exactly() {
        let finite = tensor([1.0, 2.0, 3.0, 4.0, 5.0, f32::MAX]);
        let infinite = tensor([1.0, 2.0, 3.0, 4.0, 5.0, f32::INFINITY]);
        let negative = tensor([1.0, 2.0, 3.0, 4.0, 5.0, f32::NEG_INFINITY]);
        for bound in [Bound::Exact, BOUND, Bound::absolute(1e39)] {
            fails(&infinite, &finite, bound, &["[1, 2]", "got inf, expected 3.4"]);
            fails(&finite, &infinite, bound, &["[1, 2]", "expected inf"]);
            fails(&negative, &infinite, bound, &["[1, 2]", "got -inf, expected inf"]);
        }
    }

    #[test]
    fn what_rounds_to_infinity_is_infinite() {
        let expected = Value::<f64>::from_f64(DType::F16, [1].into(), &[65504.0]);
        let Value::Float { array, .. } = expected else { panic!("floats") };
        let expected = Value::Float { dtype: DType::F16, array: array.map(|_| 70000.0) };
        let infinite = Tensor::new([1], vec![half::f16::INFINITY]).expect("one");
        let largest = Tensor::new([1], vec![half::f16::MAX]).expect("one");
        compare("y", &infinite, &expected, &BOUND).expect("70000 is no f16");
        compare("y", &largest, &expected, &Bound::absolute(1e9)).expect_err("it must be infinite");
    }

    #[test]
    fn one_wrong_element_fails_where_it_is() {
        let x = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let last = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.00002]);
        fails(&last, &x, BOUND, &["1 of 6", "[1, 2]", "got 6.0000", "expected 6.0", "allowed 6.1"]);
        let bit = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0f32.next_up()]);
        fails(&bit, &x, Bound::Exact, &["1 of 6", "[1, 2]"]);
        compare("y", &bit, &(&x).into(), &BOUND).expect("one rounding");
    }

    #[test]
    fn a_swapped_operand_fails_with_first_and_worst() {
        let a = tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = tensor([1.0, 20.0, 3.0, 4.0, 5.0, 7.0]);
        let sub = Op::Binary { function: Binary::Sub };
        let swapped = tensor([0.0, 18.0, 0.0, 0.0, 0.0, 1.0]);
        let expected = Expected::of_op(&sub, &[&a, &b], Check::measured()).expect("fits");
        let message = expected.compare(&[swapped]).expect_err("must fail").to_string();
        for part in ["2 of 6", "worst at [0, 1]: got 18.0, expected -18.0"] {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        let product = Op::Matmul { transpose_a: false, transpose_b: true };
        let expected = Expected::of_op(&product, &[&a, &b], Check::Exact).expect("fits");
        let swapped = Expected::of_op(&product, &[&b, &a], Check::Exact).expect("fits");
        let swapped = swapped.results[0].1.to_tensor().expect("fits");
        let message = expected.compare(&[swapped]).expect_err("must fail").to_string();
        assert!(message.contains("worst at [0, 1]: got 122.0, expected 35.0"), "{message}");
    }

    #[test]
    fn wrong_shape_dtype_and_count_fail() {
        let x = tensor([1.0; 6]);
        let turned = x.clone().reshaped([3, 2]).expect("6 elements");
        fails(&turned, &x, Bound::absolute(1e9), &["shape [3, 2], expected [2, 3]"]);
        let integers = Tensor::new([2, 3], vec![1i32; 6]).expect("6 elements");
        fails(&integers, &x, Bound::absolute(1e9), &["dtype i32, expected f32"]);
        let expected = Expected { results: vec![("y".into(), (&x).into(), BOUND)] };
        assert!(expected.compare(&[]).expect_err("none").to_string().contains("0 were given, expected 1"));
        assert!(expected.compare_named(&BTreeMap::from([("z".into(), x)])).is_err());
    }

    #[test]
    fn integers_and_booleans_must_be_equal() {
        let a = Tensor::new([2], vec![1i32, i32::MAX]).expect("2 elements");
        let b = Tensor::new([2], vec![1i32, i32::MAX - 1]).expect("2 elements");
        fails(&a, &b, Bound::absolute(1e9), &["[1]", "got 2147483647.0, expected 2147483646.0"]);
        let a = Tensor::new([2], vec![true, false]).expect("2 elements");
        let b = Tensor::new([2], vec![false, false]).expect("2 elements");
        fails(&a, &b, Bound::absolute(1e9), &["[0]", "got 1.0, expected 0.0"]);
    }

    #[test]
    fn the_measured_bound_is_two_plain_errors_and_one_rounding() {
        let expected = Value::<f64>::from(&tensor([1.0, -8.0, 0.0, 0.0, 0.0, 0.0]));
        let plain = Value::<f32>::from(&tensor([1.25, -8.0, 0.0, 0.0, 0.0, 0.0]));
        let u = 2f64.powi(-24);
        let bound = |rounding: f64, scale: f64| Bound::Measured { absolute: 0.5 + rounding, rounding, scale };
        assert_eq!(Bound::measured(&expected, &plain, 3.0, 0.0), bound(4.0 * 8.0 * u, 8.0));
        assert_eq!(Bound::measured(&expected, &plain, 0.0, 64.0), bound(64.0 * u, 64.0));
        let zero = tensor([0.0; 6]);
        let least = f64::from(f32::MIN_POSITIVE);
        let bound = Bound::Measured { absolute: least, rounding: least, scale: 0.0 };
        assert_eq!(Bound::measured(&(&zero).into(), &(&zero).into(), 0.0, 0.0), bound);
    }

    #[test]
    fn an_empty_tensor_passes() {
        let none = Tensor::zeros(DType::F32, [0, 3]).expect("empty");
        assert_eq!(compare("y", &none, &(&none).into(), &Bound::Exact).expect("equal").elements, 0);
    }
}
