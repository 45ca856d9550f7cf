//! Losses, as graphs.

use crate::{
    DType, Error, Graph, Result, Tensor, ValueId,
    graph::{Binary, Reduce},
};

/// Options of [`cross_entropy`]; the default is PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Positions with this target count for nothing: padding.
    pub ignore: i32,
    /// ε: so much of the target's probability is spread evenly over all classes (Szegedy et al., 2016).
    pub smoothing: f32,
    /// What becomes of the positions' losses.
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        CrossEntropy { ignore: -100, smoothing: 0.0, reduction: Reduction::Mean }
    }
}

/// What becomes of the losses of all positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean over the positions that count.
    Mean,
    /// Their sum. Divide by the tokens of the whole batch where micro-batches have unlike numbers of them.
    Sum,
    /// They stay apart; 0 where the target is ignored.
    None,
}

/// The cross entropy of logits `[…, C]` and targets i32 `[…]`: `−log softmax(x)_t`, with label smoothing
/// `−(1 − ε)·log p_t − ε/C · Σ_c log p_c`, and its mean over the positions whose target is not ignored. A mean over none is NaN.
/// As `torch.nn.functional.cross_entropy`. The result is f32.
///
/// ```
/// # use tilewise::{DType, Graph, Tensor, reference, train::{CrossEntropy, cross_entropy}};
/// let mut g = Graph::new();
/// let logits = g.input("logits", DType::F32, [1, 3, 2])?;
/// let targets = g.input("targets", DType::I32, [1, 3])?;
/// let loss = cross_entropy(&mut g, logits, targets, CrossEntropy::default())?;
/// g.output("loss", loss)?;
/// let given = [
///     ("logits".to_string(), Tensor::new([1, 3, 2], vec![0.0f32, 0.0, 0.0, 0.0, 50.0, -50.0])?),
///     ("targets".to_string(), Tensor::new([1, 3], vec![0i32, 1, -100])?), // the last one is padding
/// ];
/// let loss = reference::evaluate(&g, &given.into())?["loss"].to_f64()[0];
/// assert!((loss - f64::ln(2.0)).abs() < 1e-6);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if the logits are no floats, or the targets not i32 of their shape without the last axis; or if the smoothing is
/// not from 0 to 1.
pub fn cross_entropy(g: &mut Graph, logits: ValueId, targets: ValueId, options: CrossEntropy) -> Result<ValueId> {
    let fault = |message: String| Err(Error::op("cross_entropy", message));
    let shape = g.shape(logits).clone();
    let rank = shape.rank();
    if rank == 0 || !g.dtype(logits).is_float() {
        return fault(format!("the logits are {}, expected floats […, classes]", g.describe(logits)));
    }
    if g.dtype(targets) != DType::I32 || g.shape(targets)[..] != shape[..rank - 1] {
        let (logits, targets) = (g.describe(logits), g.describe(targets));
        return fault(format!(
            "the targets are {targets}, expected i32 of the shape of {logits} without its last axis"
        ));
    }
    if !(0.0..=1.0).contains(&options.smoothing) {
        return fault(format!("the label smoothing is {}, expected 0 to 1", options.smoothing));
    }
    let logits = g.cast(logits, DType::F32)?;
    let log_p = g.log_softmax(logits, -1)?;
    let classes = shape[rank - 1];
    let numbers = g.constant(Tensor::new([classes], (0..classes as i32).collect::<Vec<_>>())?)?;
    let column = shape[..rank - 1].iter().copied().chain([1]).collect::<Vec<_>>();
    let column = g.reshape(targets, column)?;
    let is_target = g.binary(Binary::Equal, column, numbers)?;
    let zero = g.scalar(0.0, log_p)?;
    let picked = g.select(is_target, log_p, zero)?;
    let mut all = g.reduce(Reduce::Sum, picked, &[-1], false)?;
    if options.smoothing > 0.0 {
        let smoothing = f64::from(options.smoothing);
        let even = g.reduce(Reduce::Mean, log_p, &[-1], false)?;
        let weights = [g.scalar(1.0 - smoothing, all)?, g.scalar(smoothing, all)?];
        let parts = [g.mul(all, weights[0])?, g.mul(even, weights[1])?];
        all = g.add(parts[0], parts[1])?;
    }
    let all = g.neg(all)?;
    let ignored = g.constant(Tensor::new([], vec![options.ignore])?)?;
    let counts = g.binary(Binary::NotEqual, targets, ignored)?;
    let zero = g.scalar(0.0, all)?;
    let losses = g.select(counts, all, zero)?;
    let axes: Vec<isize> = (0..rank as isize - 1).collect();
    let sum = |g: &mut Graph, x: ValueId| g.reduce(Reduce::Sum, x, &axes, false);
    match options.reduction {
        Reduction::None => Ok(losses),
        Reduction::Sum => sum(g, losses),
        Reduction::Mean => {
            let counts = g.cast(counts, DType::F32)?;
            let (sum, count) = (sum(g, losses)?, sum(g, counts)?);
            g.div(sum, count)
        }
    }
}
