//! Softmax and its logarithm. Twins: `src/kernel/softmax.rs`, `shaders/softmax*.wgsl`, `tests/softmax.rs`.

use super::{Array, Real, reduce::Lines, shapes::result_shape};
use crate::{DType, Result, graph::Op};

/// `exp(x_j − m)/Σ exp(x − m)` along `axis`, m the maximum. A line of only −inf gives 0 everywhere.
pub fn softmax<R: Real>(x: &Array<R>, axis: usize) -> Result<Array<R>> {
    result_shape(&Op::Softmax { axis }, &[(DType::F32, x.shape())])?;
    each_line(x, axis, R::ZERO, |x, m, sum| (x - m).exp() / sum)
}

/// `(x_j − m) − ln Σ exp(x − m)` along `axis`, m the maximum. A line of only −inf gives −inf everywhere.
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
        let largest = line().map(|at| x.data()[at]).fold(lowest, |a, b| if b > a { b } else { a });
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
