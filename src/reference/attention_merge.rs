//! Merges results of attention over parts of the keys. Twins: `src/kernel/attention/merge.rs`, `shaders/attention/merge.wesl`,
//! `tests/device/attention_merge.rs`.

use super::{Array, Real, shapes::result_shapes};
use crate::{DType, Result, graph::Op};

/// Attention over P parts of the keys, joined: `outs [P, …, Dv]`, `lses [P, …]` → `(out […, Dv], lse […])`. See
/// [`Op::AttentionMerge`].
///
/// ```
/// use tilewise::reference::{Array, attention_merge};
/// let outs = Array::new([2, 1], vec![2.0, 4.0])?;
/// let lses = Array::new([2], vec![0.0, 0.0])?;
/// let (out, lse) = attention_merge::<f64>(&outs, &lses)?;
/// assert_eq!((out.data(), lse.data()), (&[3.0][..], &[2f64.ln()][..]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if the shapes are others than these.
pub fn attention_merge<R: Real>(outs: &Array<R>, lses: &Array<R>) -> Result<(Array<R>, Array<R>)> {
    let operands = [(DType::F32, outs.shape()), (DType::F32, lses.shape())];
    let [out_shape, lse_shape] = result_shapes(&Op::AttentionMerge, &operands)?;
    let (parts, rows) = (outs.shape()[0], lse_shape.iter().product::<usize>());
    let width = outs.shape()[outs.shape().rank() - 1];
    let mut out = vec![R::ZERO; rows * width];
    let mut lse = vec![R::of(f32::MIN.into()); rows];
    for row in 0..rows {
        let seen: Vec<usize> = (0..parts)
            .map(|part| part * rows + row)
            .filter(|&at| ![f64::from(f32::MIN), f64::NEG_INFINITY].contains(&lses.data()[at].wide()))
            .collect();
        let Some(largest) = seen.iter().map(|&at| lses.data()[at]).reduce(R::larger) else {
            continue;
        };
        let mut sum = R::ZERO;
        for &at in &seen {
            sum += (lses.data()[at] - largest).exp();
        }
        lse[row] = (largest + sum.ln()).larger(R::of(f32::MIN.next_up().into()));
        for &at in &seen {
            let weight = (lses.data()[at] - largest).exp() / sum;
            for (to, &from) in out[row * width..][..width].iter_mut().zip(&outs.data()[at * width..][..width]) {
                *to += weight * from;
            }
        }
    }
    Ok((Array::new(out_shape, out)?, Array::new(lse_shape, lse)?))
}
