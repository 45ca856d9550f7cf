//! Cross entropy of logits and classes. Twins: `src/kernel/cross_entropy.rs`, `shaders/cross_entropy/`,
//! `tests/device/cross_entropy.rs`.

use super::{Array, Real, shapes::result_shapes};
use crate::{DType, Result, graph::Op};

/// Loss, log-sum-exp and weight of each row of logits `[… C]`, with `lse = m + ln Σ exp(x − m)`, m the maximum, and w_t the
/// weight of the target's class, or 1:
///
/// ```text
/// loss = (1 − ε)·w_t·(lse − x_t) + ε/C·Σ_c w_c·(lse − x_c)
/// ```
///
/// Loss and weight of a row are 0 if its target is `ignore` or no class. How far a logit of −inf is from the lse is +inf,
/// also in a row that has no other.
///
/// ```
/// use tilewise::reference::{Array, cross_entropy};
/// let logits = Array::new([2, 2], vec![7.0, 7.0, 1.0, 2.0])?;
/// let targets = Array::new([2], vec![1, 2])?;
/// let (loss, lse, weight) = cross_entropy::<f64>(&logits, &targets, None, None, 0.0)?;
/// assert_eq!(loss.data(), [2f64.ln(), 0.0]);
/// assert_eq!(lse.data()[0], 7.0 + 2f64.ln());
/// assert_eq!(weight.data(), [1.0, 0.0]); // there is no class 2
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if the shapes don't fit, or if the smoothing is no number from 0 to 1.
pub fn cross_entropy<R: Real>(
    logits: &Array<R>,
    targets: &Array<i32>,
    weight: Option<&Array<R>>,
    ignore: Option<i32>,
    smoothing: f32,
) -> Result<(Array<R>, Array<R>, Array<R>)> {
    let mut operands = vec![(DType::F32, logits.shape()), (DType::I32, targets.shape())];
    operands.extend(weight.map(|weight| (DType::F32, weight.shape())));
    let op = Op::CrossEntropy { ignore, smoothing, weight: weight.is_some() };
    let [shape, _, _] = result_shapes(&op, &operands)?;
    let classes = logits.shape().last().copied().unwrap_or(0);
    let lowest = R::of(f64::NEG_INFINITY);
    let weight_of = |class: usize| weight.map_or(R::ONE, |weight| weight.data()[class]);
    let smoothing = f64::from(smoothing);
    let (mut losses, mut lses, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for (row, &target) in targets.data().iter().enumerate() {
        let x = &logits.data()[row * classes..][..classes];
        let most = x.iter().copied().fold(lowest, R::larger);
        let mut sum = R::ZERO;
        x.iter().for_each(|&x| sum += (x - most).exp());
        let nothing = most == lowest;
        lses.push(if nothing { lowest } else { most + sum.ln() });
        // How far a class is from certain: lse − x_c.
        let far = |class: usize| if nothing { R::of(f64::INFINITY) } else { (most - x[class]) + sum.ln() };
        let counted = usize::try_from(target).ok().filter(|&class| class < classes && ignore != Some(target));
        let Some(class) = counted else {
            losses.push(R::ZERO);
            weights.push(R::ZERO);
            continue;
        };
        let mut loss = R::of(1.0 - smoothing) * (weight_of(class) * far(class));
        if smoothing > 0.0 {
            let mut all = R::ZERO;
            (0..classes).for_each(|class| all += weight_of(class) * far(class));
            loss += R::of(smoothing / classes as f64) * all;
        }
        losses.push(loss);
        weights.push(weight_of(class));
    }
    let array = |data| Array::new(shape.clone(), data);
    Ok((array(losses)?, array(lses)?, array(weights)?))
}
