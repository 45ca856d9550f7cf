//! Layer norm and RMS norm. Twins: `src/kernel/norm/`, `shaders/norm/`, `tests/device/norm.rs`.

use super::{Array, Real, shapes::result_shapes};
use crate::{DType, Result, Shape, graph::Op};

/// `(y, mean, rstd)` over the last `axes` axes: `y = (x − mean)·rstd · weight + bias`, `mean = Σx/n`,
/// `rstd = 1/√(Σ(x − mean)²/n + ε)`. See [`Op::LayerNorm`].
///
/// ```
/// use tilewise::reference::{Array, layer_norm};
/// let x = Array::new([1, 2], vec![1.0, 3.0])?;
/// let (y, mean, rstd) = layer_norm::<f64>(&x, None, None, 1, 0.0)?;
/// assert_eq!((y.data(), mean.data(), rstd.data()), (&[-1.0, 1.0][..], &[2.0][..], &[1.0][..]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if `axes` is 0 or over the rank of `x`, if `weight` or `bias` doesn't broadcast to
/// those axes, or if ε is negative or not finite.
pub fn layer_norm<R: Real>(
    x: &Array<R>,
    weight: Option<&Array<R>>,
    bias: Option<&Array<R>>,
    axes: usize,
    epsilon: f32,
) -> Result<(Array<R>, Array<R>, Array<R>)> {
    let op = Op::LayerNorm { axes, epsilon, weight: weight.is_some(), bias: bias.is_some() };
    let operands: Vec<_> = [Some(x), weight, bias].into_iter().flatten().map(|a| (DType::F32, a.shape())).collect();
    let [shape, statistics, _] = result_shapes(&op, &operands)?;
    let row: Shape = shape[shape.rank() - axes..].into();
    let (weight, bias) = (weight.map(|w| w.stretched(&row)), bias.map(|b| b.stretched(&row)));

    let n: usize = row.iter().product();
    let rows: usize = statistics.iter().product();
    let (mut y, mut means, mut rstds) = (Vec::with_capacity(rows * n), Vec::new(), Vec::new());
    for x in (0..rows).map(|r| &x.data()[r * n..][..n]) {
        let mean = average(x.iter().copied());
        let rstd = R::ONE / (average(x.iter().map(|&x| (x - mean) * (x - mean))) + R::of(epsilon.into())).sqrt();
        y.extend(x.iter().enumerate().map(|(i, &x)| {
            let scaled = (x - mean) * rstd;
            let scaled = weight.as_ref().map_or(scaled, |w| scaled * w.data()[i]);
            bias.as_ref().map_or(scaled, |b| scaled + b.data()[i])
        }));
        means.push(mean);
        rstds.push(rstd);
    }
    Ok((Array::new(shape, y)?, Array::new(statistics.clone(), means)?, Array::new(statistics, rstds)?))
}

/// `(y, rstd)` over the last `axes` axes: `y = x·rstd · weight`, `rstd = 1/√(Σx²/n + ε)`. See [`Op::RmsNorm`].
///
/// ```
/// use tilewise::reference::{Array, rms_norm};
/// let x = Array::new([1, 2], vec![2.0, -2.0])?;
/// let (y, rstd) = rms_norm::<f64>(&x, None, 1, 0.0)?;
/// assert_eq!((y.data(), rstd.data()), (&[1.0, -1.0][..], &[0.5][..]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if `axes` is 0 or over the rank of `x`, if `weight` doesn't broadcast to those axes,
/// or if ε is negative or not finite.
pub fn rms_norm<R: Real>(
    x: &Array<R>,
    weight: Option<&Array<R>>,
    axes: usize,
    epsilon: f32,
) -> Result<(Array<R>, Array<R>)> {
    let op = Op::RmsNorm { axes, epsilon, weight: weight.is_some() };
    let operands: Vec<_> = [Some(x), weight].into_iter().flatten().map(|a| (DType::F32, a.shape())).collect();
    let [shape, statistics] = result_shapes(&op, &operands)?;
    let row: Shape = shape[shape.rank() - axes..].into();
    let weight = weight.map(|w| w.stretched(&row));

    let n: usize = row.iter().product();
    let rows: usize = statistics.iter().product();
    let (mut y, mut rstds) = (Vec::with_capacity(rows * n), Vec::new());
    for x in (0..rows).map(|r| &x.data()[r * n..][..n]) {
        let rstd = R::ONE / (average(x.iter().map(|&x| x * x)) + R::of(epsilon.into())).sqrt();
        y.extend(x.iter().enumerate().map(|(i, &x)| weight.as_ref().map_or(x * rstd, |w| x * rstd * w.data()[i])));
        rstds.push(rstd);
    }
    Ok((Array::new(shape, y)?, Array::new(statistics, rstds)?))
}

/// Σx/n, and 0 over nothing.
fn average<R: Real>(x: impl ExactSizeIterator<Item = R>) -> R {
    let n = x.len().max(1);
    let mut sum = R::ZERO;
    for x in x {
        sum += x;
    }
    sum / R::of(n as f64)
}
