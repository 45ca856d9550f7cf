//! Losses, as graphs.

use crate::{
    DType, Error, Graph, Result, ValueId,
    grad::{gradients, unreached},
    graph::{CrossEntropyArgs, Reduce},
};

/// What is learnt from: a loss, or a sum of losses and what it is the sum over. A value alone is a loss of weight 1.
///
/// A step over the micro-batches 1 … M has the loss `Σ valueᵢ / Σ weightᵢ`, and follows `Σ ∇valueᵢ / Σ weightᵢ`. With
/// the sum over a micro-batch's tokens as the value and their number as the weight, that is the mean over all tokens,
/// whichever micro-batch they are in: the loss and the gradient of the joined batch. Without weights it is the mean of
/// the micro-batches' losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// A single float.
    pub value: ValueId,
    /// A single number, of any dtype but bool, that no trained parameter changes.
    pub weight: Option<ValueId>,
}

impl From<ValueId> for Loss {
    fn from(value: ValueId) -> Self {
        Loss { value, weight: None }
    }
}

impl Loss {
    /// Value and weight in f32, without axes; no weight is `None` here too.
    pub(super) fn scalars(self, g: &mut Graph) -> Result<(ValueId, Option<ValueId>)> {
        let mut scalar = |value: ValueId| {
            let value = g.reshape(value, [])?;
            g.cast(value, DType::F32)
        };
        Ok((scalar(self.value)?, self.weight.map(scalar).transpose()?))
    }

    /// `value / weight`, in f32, without axes.
    pub(super) fn mean(self, g: &mut Graph) -> Result<ValueId> {
        match self.scalars(g)? {
            (value, Some(weight)) => g.div(value, weight),
            (value, None) => Ok(value),
        }
    }

    /// An error unless it is one, and can be learnt from by these parameters.
    pub(super) fn check(self, g: &Graph, trained: &[ValueId]) -> Result<()> {
        let fault = |message: String| Err(Error::op("train", message));
        let single = |value: ValueId| g.shape(value).elements() == Some(1);
        if let Some(stranger) =
            [Some(self.value), self.weight].into_iter().flatten().find(|v| v.index() >= g.values().len())
        {
            return fault(format!("%{} is no value of this graph", stranger.index()));
        }
        if !single(self.value) || !g.dtype(self.value).is_float() {
            let given = g.describe(self.value);
            return fault(format!("the loss is {given}, expected a single float: take a sum or a mean of it"));
        }
        if unreached(g, self.value, trained).len() == trained.len() {
            return fault(format!("the loss {} depends on no parameter that is trained", g.describe(self.value)));
        }
        let Some(weight) = self.weight else { return Ok(()) };
        if !single(weight) || g.dtype(weight) == DType::Bool {
            let given = g.describe(weight);
            return fault(format!("the weight of the loss is {given}, expected a single number: take the sum of it"));
        }
        if depends(g, weight, trained) {
            let given = g.describe(weight);
            return fault(format!(
                "the weight of the loss, {given}, depends on a parameter that is trained, which the gradient of `Σ values / Σ weights` \
                 leaves out: expected a number of the batch, such as its tokens"
            ));
        }
        Ok(())
    }
}

/// Whether a number changes with one of some values. Its gradient tells more than what leads to it: the weights that a cross
/// entropy gives are computed beside its losses, and depend on no logit.
fn depends(g: &Graph, number: ValueId, values: &[ValueId]) -> bool {
    if !g.dtype(number).is_float() || unreached(g, number, values).len() == values.len() {
        return false;
    }
    let mut g = g.clone();
    match gradients(&mut g, number, values) {
        Ok(grads) => grads.into_iter().any(|grad| g.uniform(grad) != Some(0.0)),
        Err(_) => true,
    }
}

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
    /// Their sum. Where micro-batches have unlike numbers of tokens, see [`summed_cross_entropy`].
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

/// The [`cross_entropy`] of a micro-batch as a [`Loss`]: the sum of the losses, and the sum of the weights of the
/// positions that count, which is their number unless classes have weights. A [step](super::Settings::micro_batches)
/// over several divides the one by the other when it has them all: the mean over all positions, however many each
/// micro-batch has.
///
/// ```
/// # use tilewise::{DType, Graph, Tensor, reference, train::{CrossEntropy, summed_cross_entropy}};
/// let mut g = Graph::new();
/// let logits = g.input("logits", DType::F32, [1, 3, 2])?;
/// let targets = g.input("targets", DType::I32, [1, 3])?;
/// let loss = summed_cross_entropy(&mut g, logits, targets, CrossEntropy::default())?;
/// g.output("sum", loss.value)?;
/// g.output("tokens", loss.weight.expect("there is one"))?;
/// let given = [
///     ("logits".to_string(), Tensor::zeros(DType::F32, [1, 3, 2])?),
///     ("targets".to_string(), Tensor::new([1, 3], vec![0i32, 1, -100])?), // the last one is padding
/// ];
/// let outputs = reference::evaluate(&g, &given.into())?;
/// assert!((outputs["sum"].to_f64()[0] - 2.0 * f64::ln(2.0)).abs() < 1e-6);
/// assert_eq!(outputs["tokens"].to_f64(), [2.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// As [`Graph::cross_entropy`]; [`Error::Op`] if the reduction is no [`Mean`](Reduction::Mean), which is what becomes of it.
pub fn summed_cross_entropy(g: &mut Graph, logits: ValueId, targets: ValueId, options: CrossEntropy) -> Result<Loss> {
    let CrossEntropy { ignore, smoothing, weight, reduction } = options;
    let given = match reduction {
        Reduction::Mean => None,
        Reduction::Sum => Some("Sum"),
        Reduction::None => Some("None"),
    };
    if let Some(given) = given {
        return Err(Error::op(
            "cross_entropy",
            format!(
                "the reduction is {given}, expected Mean: sum and weight are what a step makes the mean over micro-batches of; \
                 `cross_entropy` has the others"
            ),
        ));
    }
    let rows = g.cross_entropy(logits, targets, CrossEntropyArgs { weight, ignore: Some(ignore), smoothing })?;
    let value = g.reduce(Reduce::Sum, rows.loss, &[], false)?;
    let weight = g.reduce(Reduce::Sum, rows.weight, &[], false)?;
    Ok(Loss { value, weight: Some(weight) })
}
