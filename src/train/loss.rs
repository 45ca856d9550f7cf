//! Losses, as graphs.

use crate::{
    Graph, Result, ValueId,
    graph::{CrossEntropyArgs, Reduce},
};

/// Options of [`cross_entropy`]; the default is PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Positions with this target count for nothing: padding.
    pub ignore: i32,
    /// ε: so much of the target's probability is spread evenly over all classes (Szegedy et al., 2016).
    pub smoothing: f32,
    /// f32 `[C]`: a factor for each class, by which a mean divides too.
    pub weight: Option<ValueId>,
    /// What becomes of the positions' losses.
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        CrossEntropy { ignore: -100, smoothing: 0.0, weight: None, reduction: Reduction::Mean }
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
/// As `torch.nn.functional.cross_entropy`; see [`Op::CrossEntropy`](crate::graph::Op::CrossEntropy). The result is f32.
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
/// As [`Graph::cross_entropy`].
pub fn cross_entropy(g: &mut Graph, logits: ValueId, targets: ValueId, options: CrossEntropy) -> Result<ValueId> {
    let CrossEntropy { ignore, smoothing, weight, reduction } = options;
    let rows = g.cross_entropy(logits, targets, CrossEntropyArgs { weight, ignore: Some(ignore), smoothing })?;
    let mut sum = |rows: ValueId| g.reduce(Reduce::Sum, rows, &[], false);
    match reduction {
        Reduction::None => Ok(rows.loss),
        Reduction::Sum => sum(rows.loss),
        Reduction::Mean => {
            let (loss, weight) = (sum(rows.loss)?, sum(rows.weight)?);
            g.div(loss, weight)
        }
    }
}
