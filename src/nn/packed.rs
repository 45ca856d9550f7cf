use super::sequence::key_mask;
use crate::{DType, Error, Graph, Result, Tensor, ValueId};

/// Turns PyTorch's `PackedSequence` into sequences end to end, which attention can take.
///
/// `data [ΣT, …]` is ordered by time step; `batch_sizes` says how many sequences have each step. Sequences come out in
/// the order before sorting, which `sorted_indices` gives, or longest first without it. The second result is i32
/// `[B + 1]`: where each sequence begins, and the end, for [`Mask::packed`](crate::graph::Mask::packed).
///
/// ```
/// use tilewise::{Graph, Tensor, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// // A: 10 11 12, B: 20, C: 30 31.
/// let data = g.constant(Tensor::new([6], vec![10i32, 30, 20, 11, 31, 12])?)?;
/// let (tokens, offsets) = nn::from_packed_sequence(&mut g, data, &[3, 2, 1], Some(&[0, 2, 1]))?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(tokens).to_f64(), [10.0, 11.0, 12.0, 20.0, 30.0, 31.0]);
/// assert_eq!(values.value(offsets).to_f64(), [0.0, 3.0, 4.0, 6.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if the sizes don't add up to the rows of `data` or increase, or if the indices are no permutation of
/// the sequences.
pub fn from_packed_sequence(
    g: &mut Graph,
    data: ValueId,
    batch_sizes: &[usize],
    sorted_indices: Option<&[usize]>,
) -> Result<(ValueId, ValueId)> {
    let order = by_sequence(g, data, batch_sizes, sorted_indices)?;
    let rows: Vec<i32> = order.iter().flatten().map(|&row| row as i32).collect();
    let rows = g.constant(Tensor::new([rows.len()], rows)?)?;
    let tokens = g.gather(data, rows, 0)?;
    let mut offsets = vec![0i32];
    for sequence in &order {
        offsets.push(offsets[offsets.len() - 1] + sequence.len() as i32);
    }
    let offsets = g.constant(Tensor::new([offsets.len()], offsets)?)?;
    Ok((tokens, offsets))
}

/// [`from_packed_sequence`] undone: sequences end to end become the `data` of a `PackedSequence` with these sizes and
/// indices.
///
/// ```
/// # use tilewise::{Graph, Tensor, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// let tokens = g.constant(Tensor::new([6], vec![10i32, 11, 12, 20, 30, 31])?)?;
/// let data = nn::to_packed_sequence(&mut g, tokens, &[3, 2, 1], Some(&[0, 2, 1]))?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(data).to_f64(), [10.0, 30.0, 20.0, 11.0, 31.0, 12.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// As [`from_packed_sequence`].
pub fn to_packed_sequence(
    g: &mut Graph,
    tokens: ValueId,
    batch_sizes: &[usize],
    sorted_indices: Option<&[usize]>,
) -> Result<ValueId> {
    let order = by_sequence(g, tokens, batch_sizes, sorted_indices)?;
    let mut from = vec![0i32; order.iter().map(Vec::len).sum()];
    for (place, &row) in order.iter().flatten().enumerate() {
        from[row] = place as i32;
    }
    let from = g.constant(Tensor::new([from.len()], from)?)?;
    g.gather(tokens, from, 0)
}

/// For each sequence, in the original order, its rows in a packed sequence's data.
fn by_sequence(
    g: &Graph,
    data: ValueId,
    batch_sizes: &[usize],
    sorted_indices: Option<&[usize]>,
) -> Result<Vec<Vec<usize>>> {
    const OP: &str = "packed sequence";
    let shape = g.shape(data);
    let tokens = batch_sizes.iter().fold(0usize, |sum, &size| sum.saturating_add(size));
    if shape.first() != Some(&tokens) {
        return Err(Error::op(
            OP,
            format!("`data` is {shape}, but batch_sizes {batch_sizes:?} add up to {tokens} rows"),
        ));
    }
    if batch_sizes.windows(2).any(|pair| pair[0] < pair[1]) {
        return Err(Error::op(
            OP,
            format!("batch_sizes {batch_sizes:?} increase: sequences are sorted, longest first"),
        ));
    }
    let sequences = batch_sizes.first().copied().unwrap_or(0);
    let mut sorted: Vec<Vec<usize>> = vec![Vec::new(); sequences];
    let mut row = 0;
    for &size in batch_sizes {
        for sequence in &mut sorted[..size] {
            sequence.push(row);
            row += 1;
        }
    }
    let Some(indices) = sorted_indices else { return Ok(sorted) };
    let mut original: Vec<Option<Vec<usize>>> = vec![None; sequences];
    for (&index, rows) in indices.iter().zip(&sorted) {
        if let Some(slot) = original.get_mut(index) {
            *slot = Some(rows.clone());
        }
    }
    match (indices.len() == sequences, original.into_iter().collect::<Option<Vec<_>>>()) {
        (true, Some(original)) => Ok(original),
        _ => Err(Error::op(OP, format!("sorted_indices {indices:?} are no permutation of {sequences} sequences"))),
    }
}

/// i32 `[B + 1]` from i32 lengths `[B]`: where each sequence begins when they lie end to end, and the end.
///
/// ```
/// # use tilewise::{Graph, Tensor, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// let lengths = g.constant(Tensor::new([3], vec![3i32, 1, 2])?)?;
/// let offsets = nn::offsets(&mut g, lengths)?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(offsets).to_f64(), [0.0, 3.0, 4.0, 6.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if `lengths` is not i32 `[B]`.
pub fn offsets(g: &mut Graph, lengths: ValueId) -> Result<ValueId> {
    let items = per_item("offsets", g, lengths)?;
    // before[i, b] = b < i: row i adds up the lengths before sequence i.
    let column = g.constant(Tensor::new([items + 1, 1], (0..=items as i32).collect::<Vec<_>>())?)?;
    let row = g.constant(Tensor::new([items], (0..items as i32).collect::<Vec<_>>())?)?;
    let before = g.binary(crate::graph::Binary::Less, row, column)?;
    let zero = g.scalar(0.0, lengths)?;
    let kept = g.select(before, lengths, zero)?;
    g.reduce(crate::graph::Reduce::Sum, kept, &[1], false)
}

/// `x [B, T, …] → [total, …]`: the real tokens end to end, for `lengths` i32 `[B]`. `total` is the sum of the lengths,
/// which is known when the graph is built; rows past that sum repeat the last row of `x`.
///
/// ```
/// # use tilewise::{Graph, Tensor, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// let x = g.constant(Tensor::new([2, 2], vec![10i32, 11, 20, -1])?)?;
/// let lengths = g.constant(Tensor::new([2], vec![2i32, 1])?)?;
/// let packed = nn::pack(&mut g, x, lengths, 3)?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(packed).to_f64(), [10.0, 11.0, 20.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if `lengths` is not i32 `[B]`, if `x` is not `[B, T, …]`, or if it has no tokens and `total` is not 0.
pub fn pack(g: &mut Graph, x: ValueId, lengths: ValueId, total: usize) -> Result<ValueId> {
    let shape = g.shape(x).clone();
    let items = per_item("pack", g, lengths)?;
    if shape.rank() < 2 || shape[0] != items {
        return Err(Error::op("pack", format!("`x` is {shape} and there are {items} lengths, expected [B, T, …]")));
    }
    let begins = offsets(g, lengths)?;
    // The sequence of row r: how many sequences end at or before it.
    let r = g.constant(Tensor::new([total, 1], (0..total as i32).collect::<Vec<_>>())?)?;
    let ends = g.slice(begins, 0, 1, items + 1)?;
    let ended = g.binary(crate::graph::Binary::LessEqual, ends, r)?;
    let ended = g.cast(ended, DType::I32)?;
    let item = g.reduce(crate::graph::Reduce::Sum, ended, &[1], false)?;
    let r = g.reshape(r, [total])?;
    let begin = g.gather(begins, item, 0)?;
    let token = g.sub(r, begin)?;
    let width = g.scalar(shape[1] as f64, item)?;
    let row = g.mul(item, width)?;
    let row = g.add(row, token)?;
    let flat: Vec<usize> = [shape[0] * shape[1]].into_iter().chain(shape[2..].iter().copied()).collect();
    let flat = g.reshape(x, flat)?;
    g.gather(flat, row, 0)
}

/// `x [ΣT, …] → [B, tokens, …]`: sequences end to end become a padded batch, 0 where there is no token. `offsets` is
/// i32 `[B + 1]`.
///
/// ```
/// # use tilewise::{Graph, Tensor, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// let x = g.constant(Tensor::new([3], vec![10i32, 11, 20])?)?;
/// let offsets = g.constant(Tensor::new([3], vec![0i32, 2, 3])?)?;
/// let padded = nn::unpack(&mut g, x, offsets, 2)?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(padded).to_f64(), [10.0, 11.0, 20.0, 0.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if `offsets` is not i32 with at least one element, if `x` has rank 0, or if it has no rows for the
/// tokens.
pub fn unpack(g: &mut Graph, x: ValueId, offsets: ValueId, tokens: usize) -> Result<ValueId> {
    let shape = g.shape(x).clone();
    let items = per_item("unpack", g, offsets)?.checked_sub(1);
    let (Some(items), true) = (items, shape.rank() > 0) else {
        return Err(Error::op(
            "unpack",
            format!("`x` is {shape} and `offsets` {}, expected [ΣT, …] and [B + 1]", g.shape(offsets)),
        ));
    };
    let begins = g.slice(offsets, 0, 0, items)?;
    let ends = g.slice(offsets, 0, 1, items + 1)?;
    let lengths = g.sub(ends, begins)?;
    let begins = g.reshape(begins, [items, 1])?;
    let t = g.constant(Tensor::new([tokens], (0..tokens as i32).collect::<Vec<_>>())?)?;
    let rows = g.add(begins, t)?;
    // Rows of padding may point past the end: gather stays inside, and the mask clears them.
    let padded = g.gather(x, rows, 0)?;
    let real = key_mask(g, lengths, tokens)?;
    let column =
        g.reshape(real, [items, tokens].into_iter().chain(shape[1..].iter().map(|_| 1)).collect::<Vec<_>>())?;
    let zero = g.scalar(0.0, padded)?;
    g.select(column, padded, zero)
}

fn per_item(op: &str, g: &Graph, value: ValueId) -> Result<usize> {
    let shape = g.shape(value);
    if g.dtype(value) == DType::I32 && shape.rank() == 1 {
        return Ok(shape[0]);
    }
    Err(Error::op(op, format!("expected i32 of rank 1, one number per sequence; got {}", g.describe(value))))
}
