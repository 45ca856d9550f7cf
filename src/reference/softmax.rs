//! Softmax and its logarithm. Twins: `src/kernel/softmax.rs`, `shaders/softmax/`, `tests/device/softmax.rs`.

use super::{Array, Real, reduce::Lines, shapes::result_shape};
use crate::{DType, Result, graph::Op};

/// `exp(x_j − m)/Σ exp(x − m)` along `axis`, m the maximum. Where all of a line is −inf, it is 0. A NaN or +inf makes all of its
/// line NaN.
///
/// ```
/// use tilewise::reference::{Array, softmax};
/// let x = Array::new([1, 3], vec![7.0, f64::NEG_INFINITY, 7.0])?;
/// assert_eq!(softmax(&x, 1)?.data(), [0.5, 0.0, 0.5]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if there is no such axis.
pub fn softmax<R: Real>(x: &Array<R>, axis: usize) -> Result<Array<R>> {
    result_shape(&Op::Softmax { axis }, &[(DType::F32, x.shape())])?;
    each_line(x, axis, R::ZERO, |x, m, sum| (x - m).exp() / sum)
}

/// `(x_j − m) − ln Σ exp(x − m)` along `axis`, m the maximum. Where all of a line is −inf, it is −inf. A NaN or +inf makes all of
/// its line NaN.
///
/// ```
/// use tilewise::reference::{Array, log_softmax};
/// let x = Array::new([1, 2], vec![7.0, 7.0])?;
/// assert_eq!(log_softmax(&x, 1)?.data(), [-2f64.ln(); 2]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if there is no such axis.
pub fn log_softmax<R: Real>(x: &Array<R>, axis: usize) -> Result<Array<R>> {
    result_shape(&Op::LogSoftmax { axis }, &[(DType::F32, x.shape())])?;
    each_line(x, axis, R::of(f64::NEG_INFINITY), |x, m, sum| (x - m) - sum.ln())
}

fn each_line<R: Real>(x: &Array<R>, axis: usize, of_nothing: R, f: impl Fn(R, R, R) -> R) -> Result<Array<R>> {
    let lowest = R::of(f64::NEG_INFINITY);
    let lines = Lines::new(x.shape(), &[axis]);
    let mut y = x.data().to_vec();
    for start in lines.starts {
        let line = || lines.steps.iter().map(|step| start + step);
        let largest = line().map(|at| x.data()[at]).fold(lowest, R::larger);
        let mut sum = R::ZERO;
        for at in line() {
            sum += (x.data()[at] - largest).exp();
        }
        for at in line() {
            y[at] = if largest == lowest { of_nothing } else { f(x.data()[at], largest, sum) };
        }
    }
    Array::new(x.shape().clone(), y)
}
