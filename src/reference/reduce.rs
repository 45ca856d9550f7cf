//! Reductions over axes, and the place of the maximum. Twins: `src/kernel/reduce/`, `src/kernel/argmax.rs`,
//! `shaders/{reduce,argmax}/`, `tests/device/{reduce,argmax}.rs`.

use super::{
    Array, Real, Value,
    shapes::result_shape,
    value::{steps, walk},
};
use crate::{
    DType, Error, Result,
    graph::{Op, Reduce},
};

/// Sum, mean, maximum or minimum over `axes` (sorted), in row-major order; integers wrap, and a NaN makes NaN. See [`Reduce`].
///
/// ```
/// use tilewise::{graph::Reduce, reference::{Array, Value, reduce}};
/// let x = Value::<f64>::I32(Array::new([2, 2], vec![1, 2, 3, 4])?);
/// assert_eq!(reduce(Reduce::Sum, &x, &[0], false)?.to_f64(), [4.0, 6.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if an axis does not exist, if axes are not sorted or repeat, if `x` is bool, or for the mean of
/// integers.
pub fn reduce<R: Real>(function: Reduce, x: &Value<R>, axes: &[usize], keep: bool) -> Result<Value<R>> {
    let op = Op::Reduce { function, axes: axes.to_vec(), keep };
    let shape = result_shape(&op, &[(x.dtype(), x.shape())])?;
    let lines = Lines::new(x.shape(), axes);
    let n = lines.steps.len();
    macro_rules! integers {
        ($x:expr, $t:ident) => {
            Array::new(
                shape,
                match function {
                    Reduce::Sum | Reduce::Mean => lines.fold($x, 0, $t::wrapping_add),
                    Reduce::Max => lines.fold($x, $t::MIN, $t::max),
                    Reduce::Min => lines.fold($x, $t::MAX, $t::min),
                },
            )?
        };
    }
    Ok(match x {
        Value::I32(x) => Value::I32(integers!(x.data(), i32)),
        Value::U32(x) => Value::U32(integers!(x.data(), u32)),
        Value::Bool(_) => return Err(Error::dtype(function.name(), "x", DType::Bool, "a number")),
        Value::Float { dtype, array } => {
            let x = array.data();
            let data = match function {
                Reduce::Sum => lines.fold(x, R::ZERO, |a, b| a + b),
                Reduce::Mean => {
                    let sums = lines.fold(x, R::ZERO, |a, b| a + b);
                    sums.into_iter().map(|sum| sum / R::of(n.max(1) as f64)).collect()
                }
                Reduce::Max => lines.fold(x, R::of(f64::NEG_INFINITY), R::larger),
                Reduce::Min => lines.fold(x, R::of(f64::INFINITY), R::smaller),
            };
            Value::Float { dtype: *dtype, array: Array::new(shape, data)? }
        }
    })
}

/// The index of the largest element along `axis`: of equal ones the first, or the last. A NaN is larger than all else. See
/// [`Op::Argmax`].
///
/// ```
/// use tilewise::reference::{Array, argmax};
/// let x = Array::new([1, 3], vec![5, 9, 9])?;
/// assert_eq!(argmax(&x, 1, false, false)?.data(), [1]);
/// assert_eq!(argmax(&x, 1, false, true)?.data(), [2]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if there is no such axis, or nothing along it.
pub fn argmax<T: Copy + PartialOrd>(x: &Array<T>, axis: usize, keep: bool, last: bool) -> Result<Array<i32>> {
    let shape = result_shape(&Op::Argmax { axis, keep, last }, &[(DType::F32, x.shape())])?;
    let lines = Lines::new(x.shape(), &[axis]);
    let places = lines.starts.iter().map(|&start| {
        let line = |i: usize| x.data()[start + lines.steps[i]];
        let best = (0..lines.steps.len()).reduce(|best, i| {
            // What does not equal itself is NaN.
            let [new_is_nan, is_nan] = [i, best].map(|at| line(at).partial_cmp(&line(at)).is_none());
            let better = match (new_is_nan, is_nan) {
                (true, _) => last || !is_nan,
                (false, true) => false,
                (false, false) => line(i) > line(best) || (last && line(i) == line(best)),
            };
            if better { i } else { best }
        });
        best.unwrap_or_default() as i32
    });
    Array::new(shape, places.collect())
}

/// An array cut into lines along some of its axes: element `i` of line `l` is at `starts[l] + steps[i]`.
pub(super) struct Lines {
    pub(super) starts: Vec<usize>,
    pub(super) steps: Vec<usize>,
}

impl Lines {
    pub(super) fn new(shape: &[usize], along: &[usize]) -> Self {
        let step = steps(shape);
        let places = |chosen: bool| {
            let axes = (0..shape.len()).filter(|axis| along.contains(axis) == chosen);
            let (sizes, steps): (Vec<_>, Vec<_>) = axes.map(|axis| (shape[axis], step[axis])).unzip();
            walk(0, &sizes, &steps)
        };
        Lines { starts: places(false), steps: places(true) }
    }

    fn fold<T: Copy>(&self, x: &[T], first: T, f: impl Fn(T, T) -> T) -> Vec<T> {
        let line = |&start: &usize| self.steps.iter().fold(first, |sum, step| f(sum, x[start + step]));
        self.starts.iter().map(line).collect()
    }
}
