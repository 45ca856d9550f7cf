//! The comparer: is a kernel's result close enough to the reference?
//!
//! Each element must satisfy `|actual − expected| ≤ allowed`, written so that NaN fails; ±∞, dtype and shape must match exactly.
//! Integers and booleans must be equal under any bound. A [`Bound`] says what is allowed; by default it is
//! measured ([`Bound::measured`]): twice the error of a plain f32 evaluation, and one rounding of the largest result.

use std::{collections::BTreeMap, fmt};

use super::{Array, Evaluation, Value, apply, real::round_to};
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
}

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
        // The lse of a fully masked row, or of one of scores as low, is no measure of the others.
        let lowest = f64::from(f32::MIN.next_up());
        let sizes = expected.iter().filter(|x| x.is_finite() && **x > lowest).map(|x| x.abs());
        let peak = sizes.fold(magnitude, f64::max);
        Bound::absolute((2.0 * error + (unit + extra * U32) * peak).max(smallest))
    }

    fn allowed(&self, expected: f64) -> f64 {
        match self {
            Bound::Exact => 0.0,
            Bound::Within { relative, absolute } => absolute + relative * expected.abs(),
        }
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
/// | attention | 24 + 168·c + 96·f | as softmax, between two sums; c·tanh(…) if there is a softcap of c; f score functions, whose twins don't round |
/// | (of f16) | 0 | weights rounded to f16 are off by u of themselves: the one rounding, if `magnitude` is at least max \|v\| |
/// | attention_merge | 24 | as softmax, between two sums |
/// | layer_norm, rms_norm | 12 | sums, `inverseSqrt`, products |
/// | rotary | 2 | two products and a sum, fused or not |
/// | all else | 0 | exact or correctly rounded |
pub fn extra(op: &Op) -> f64 {
    match op {
        Op::Rotary { .. } => 2.0,
        Op::Matmul { .. } => 4.0,
        Op::LayerNorm { .. } | Op::RmsNorm { .. } => 12.0,
        Op::Softmax { .. } => 16.0,
        Op::LogSoftmax { .. } => 24.0,
        Op::Attention(attention) => {
            let functions = 96.0 * attention.score_mods.len() as f64;
            24.0 + 168.0 * attention.softcap.map_or(0.0, f64::from) + functions
        }
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
        /// The size of sums on the way whose results may cancel to less; 0 if results don't cancel.
        magnitude: f64,
    },
}

/// The reference's results and what is allowed around each of them.
#[derive(Clone, Debug)]
pub struct Expected {
    results: Vec<(String, Value<f64>, Bound)>,
    /// Whether a NaN of the reference asks for a NaN.
    nan: bool,
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
        let results = graph.outputs().iter().map(|(name, value)| {
            let expected = reference.value(*value).clone();
            let bound = check.bound(&expected, plain.as_ref().map(|plain| plain.value(*value)), extra);
            (name.clone(), expected, bound)
        });
        Ok(Expected { results: results.collect(), nan: false })
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
        let results = reference.into_iter().zip(&plain).enumerate().map(|(i, (expected, plain))| {
            let bound = check.bound(&expected, Some(plain), extra(op));
            (format!("{} result {i}", op.name()), expected, bound)
        });
        Ok(Expected { results: results.collect(), nan: false })
    }

    /// Names, values and bounds, in order.
    pub fn results(&self) -> impl Iterator<Item = (&str, &Value<f64>, &Bound)> {
        self.results.iter().map(|(name, value, bound)| (name.as_str(), value, bound))
    }

    /// The same, but that a NaN is right where the reference has one, and there alone: for results of what is not finite.
    /// Otherwise nothing is near a NaN.
    ///
    /// ```
    /// use tilewise::{Tensor, graph::{Op, Unary}, reference::compare::{Check, Expected}};
    /// let x = Tensor::scalar(f32::NAN);
    /// let expected = Expected::of_op(&Op::Unary { function: Unary::Relu }, &[&x], Check::Exact)?;
    /// assert!(expected.compare(std::slice::from_ref(&x)).is_err());
    /// assert!(expected.clone().with_nan().compare(&[x]).is_ok());
    /// assert!(expected.with_nan().compare(&[Tensor::scalar(0.0)]).is_err());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    #[must_use]
    pub fn with_nan(self) -> Self {
        Expected { nan: true, ..self }
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
    /// A [`Mismatch`] for the first tensor that is not what the reference says, or if there are more or fewer tensors
    /// than results.
    pub fn compare(&self, actual: &[Tensor]) -> Result<Vec<Comparison>, Mismatch> {
        if actual.len() != self.results.len() {
            let kind = MismatchKind::Count { actual: actual.len(), expected: self.results.len() };
            return Err(Mismatch { name: "outputs".into(), kind });
        }
        let pairs = self.results.iter().zip(actual);
        pairs
            .map(|((name, expected, bound), actual)| match without_nans(actual, expected).filter(|_| self.nan) {
                Some((actual, expected)) => compare(name, &actual, &expected, bound),
                None => compare(name, actual, expected, bound),
            })
            .collect()
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
    /// A [`Mismatch`] as [`Expected::compare`]; an output that is missing counts as one too few.
    pub fn compare_named(&self, actual: &BTreeMap<String, Tensor>) -> Result<Vec<Comparison>, Mismatch> {
        let found = self.results.iter().filter_map(|(name, ..)| actual.get(name).cloned()).collect::<Vec<_>>();
        self.compare(&found)
    }
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
/// A [`Mismatch`] as [`Expected::compare`], or an [`Error`](crate::Error) as [`apply`].
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
/// A [`Mismatch`] if dtype or shape differ, or if an element is out of its bound, as NaN always is.
pub fn compare(name: &str, actual: &Tensor, expected: &Value<f64>, bound: &Bound) -> Result<Comparison, Mismatch> {
    let mismatch = |kind| Err(Mismatch { name: name.into(), kind });
    if actual.dtype() != expected.dtype() {
        return mismatch(MismatchKind::DType { actual: actual.dtype(), expected: expected.dtype() });
    }
    if actual.shape() != expected.shape() {
        return mismatch(MismatchKind::Shape { actual: actual.shape().clone(), expected: expected.shape().clone() });
    }
    let dtype = expected.dtype();
    let mut comparison = Comparison { elements: actual.len(), observed: 0.0, allowed: 0.0, ratio: 0.0 };
    let (mut wrong, mut first, mut worst) = (0, None, None);
    for (place, (got, exact)) in actual.to_f64().into_iter().zip(expected.to_f64()).enumerate() {
        let rounded = round_to(exact, dtype);
        // Nothing but itself is near an infinity, and nothing is near NaN.
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
        if ratio > comparison.ratio || place == 0 {
            (comparison.ratio, comparison.observed, comparison.allowed) = (ratio, error, allowed);
        }
    }
    match (first, worst) {
        (Some(first), Some(worst)) => {
            let (first, worst) = (Box::new(first), Box::new(worst));
            mismatch(MismatchKind::Values { wrong, elements: actual.len(), first, worst })
        }
        _ => Ok(comparison),
    }
}

/// Both with 0 where both are NaN. None if they differ in dtype or shape, or are no floats.
fn without_nans(actual: &Tensor, expected: &Value<f64>) -> Option<(Tensor, Value<f64>)> {
    let (dtype, shape) = (actual.dtype(), actual.shape());
    if !dtype.is_float() || expected.dtype() != dtype || expected.shape() != shape {
        return None;
    }
    let pairs = actual.to_f64().into_iter().zip(expected.to_f64());
    let (got, wanted): (Vec<f64>, Vec<f64>) =
        pairs.map(|(got, wanted)| if got.is_nan() && wanted.is_nan() { (0.0, 0.0) } else { (got, wanted) }).unzip();
    let wanted = Value::Float { dtype, array: Array::new(shape, wanted).ok()? };
    Some((Value::<f64>::from_f64(dtype, shape.clone(), &got).to_tensor().ok()?, wanted))
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
    /// The error of the element that came closest to its bound.
    pub observed: f64,
    /// The error that this element is allowed.
    pub allowed: f64,
    /// The largest observed / allowed, 0 if all is equal.
    pub ratio: f64,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { elements, observed, allowed, ratio } = self;
        write!(f, "{elements} elements, worst error {observed:.3e} of {allowed:.3e} allowed ({ratio:.3})")
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
            MismatchKind::DType { actual, expected } => write!(f, "dtype {actual}, expected {expected}"),
            MismatchKind::Shape { actual, expected } => write!(f, "shape {actual}, expected {expected}"),
            MismatchKind::Values { wrong, elements, first, worst } => {
                write!(f, "{wrong} of {elements} elements are wrong; the worst at {worst}")?;
                if first == worst { Ok(()) } else { write!(f, "; the first at {first}") }
            }
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
        for bound in [Bound::Exact, BOUND, Bound::absolute(f64::INFINITY)] {
            fails(&nan, &x, bound, &["y: 1 of 6", "[1, 1]", "got NaN, expected 5.0"]);
            fails(&x, &nan, bound, &["1 of 6", "[1, 1]", "got 5.0, expected NaN"]);
            fails(&nan, &nan, bound, &["[1, 1]", "got NaN, expected NaN"]);
        }
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
        let expected = Expected { results: vec![("y".into(), (&x).into(), BOUND)], nan: false };
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
        assert_eq!(Bound::measured(&expected, &plain, 3.0, 0.0), Bound::absolute(0.5 + 4.0 * 8.0 * u));
        assert_eq!(Bound::measured(&expected, &plain, 0.0, 64.0), Bound::absolute(0.5 + 64.0 * u));
        let zero = tensor([0.0; 6]);
        let least = Bound::absolute(f64::from(f32::MIN_POSITIVE));
        assert_eq!(Bound::measured(&(&zero).into(), &(&zero).into(), 0.0, 0.0), least);
    }

    #[test]
    fn an_empty_tensor_passes() {
        let none = Tensor::zeros(DType::F32, [0, 3]).expect("empty");
        assert_eq!(compare("y", &none, &(&none).into(), &Bound::Exact).expect("equal").elements, 0);
    }
}
