//! Correct padding: lengths become masks, and padded rows never reach a result.

use crate::{
    DType, Error, Graph, Result, Tensor, ValueId,
    graph::{Binary, Reduce},
};

/// A way to make one vector of the tokens of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The mean of the real tokens; 0 for a sequence without any.
    Mean,
    /// The maximum of the real tokens; 0 for a sequence without any.
    Max,
    /// The first token (BERT's `[CLS]`).
    First,
}

/// bool `[B, T]`: true where `t < lengths[b]`, for `lengths` i32 `[B]`.
///
/// ```
/// # use tilewise::{Graph, Tensor, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// let lengths = g.constant(Tensor::new([2], vec![3i32, 1])?)?;
/// let real = nn::key_mask(&mut g, lengths, 3)?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(real).to_f64(), [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if `lengths` is not i32 `[B]`.
pub fn key_mask(g: &mut Graph, lengths: ValueId, tokens: usize) -> Result<ValueId> {
    let shape = g.shape(lengths).clone();
    if g.dtype(lengths) != DType::I32 || shape.rank() != 1 {
        return Err(Error::op("key_mask", format!("`lengths` is {} {shape}, expected i32 [B]", g.dtype(lengths))));
    }
    let positions = g.constant(Tensor::new([tokens], (0..tokens as i32).collect::<Vec<_>>())?)?;
    let column = g.reshape(lengths, [shape[0], 1])?;
    g.binary(Binary::Less, positions, column)
}

/// `x [B, T, E]` with 0 in the rows where `real`, bool `[B, T]`, is false, whatever was there.
///
/// ```
/// # use tilewise::{Graph, Tensor, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// let x = g.constant(Tensor::new([1, 2, 1], vec![7.0f32, f32::NAN])?)?;
/// let real = g.constant(Tensor::new([1, 2], vec![true, false])?)?;
/// let x = nn::mask_rows(&mut g, x, real)?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(x).to_f64(), [7.0, 0.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if `real` is not bool, or if the shapes are others than these.
pub fn mask_rows(g: &mut Graph, x: ValueId, real: ValueId) -> Result<ValueId> {
    let shape = g.shape(real).clone();
    let real = g.reshape(real, shape.iter().copied().chain([1]).collect::<Vec<_>>())?;
    let zero = g.scalar(0.0, x)?;
    g.select(real, x, zero)
}

/// `x [B, T, E] → [B, E]`, f32: one vector a sequence, of the tokens where `real`, bool `[B, T]`, is true.
///
/// ```
/// # use tilewise::{Graph, Tensor, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// let x = g.constant(Tensor::new([1, 3, 1], vec![2.0f32, 4.0, 100.0])?)?;
/// let real = g.constant(Tensor::new([1, 3], vec![true, true, false])?)?;
/// let mean = nn::pool(&mut g, x, real, nn::Pooling::Mean)?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(mean).to_f64(), [3.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if `real` is not bool, if the shapes are others than these, if there is no token at all
/// ([`Pooling::First`]), or if `x` is not f32 ([`Pooling::Mean`]).
pub fn pool(g: &mut Graph, x: ValueId, real: ValueId, pooling: Pooling) -> Result<ValueId> {
    let (shape, mask) = (g.shape(x).clone(), g.shape(real).clone());
    if g.dtype(real) != DType::Bool || shape.rank() != 3 || shape[..2] != mask[..] {
        return Err(Error::op(
            "pool",
            format!("`x` is {shape} and `real` is {} {mask}, expected [B, T, E] and bool [B, T]", g.dtype(real)),
        ));
    }
    match pooling {
        Pooling::First => {
            let first = g.slice(x, 1, 0, 1)?;
            g.reshape(first, [shape[0], shape[2]])
        }
        Pooling::Mean => {
            let kept = mask_rows(g, x, real)?;
            let sum = g.reduce(Reduce::Sum, kept, &[1], false)?;
            let ones = g.cast(real, DType::F32)?;
            let count = g.reduce(Reduce::Sum, ones, &[1], true)?;
            let one = g.scalar(1.0, count)?;
            let count = g.max(count, one)?;
            g.div(sum, count)
        }
        Pooling::Max => {
            let column = g.reshape(real, [shape[0], shape[1], 1])?;
            let lowest = g.scalar(f64::from(f32::MIN), x)?;
            let kept = g.select(column, x, lowest)?;
            let most = g.reduce(Reduce::Max, kept, &[1], false)?;
            let ones = g.cast(real, DType::F32)?;
            let any = g.reduce(Reduce::Max, ones, &[1], true)?;
            let any = g.cast(any, DType::Bool)?;
            let zero = g.scalar(0.0, most)?;
            g.select(any, most, zero)
        }
    }
}
