//! What a model is shown, and what it is expected to say.

use crate::{Error, Result, Tensor, reference::Random};

/// Targets for teacher forcing: row t of `input` is what the model has seen when it is expected to say row t of `expected`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shifted {
    /// The start token, then the target without its end.
    pub input: Vec<Vec<u32>>,
    /// The target, then the end token.
    pub expected: Vec<Vec<u32>>,
}

/// Teacher forcing: the decoder is given the target one place to the right, behind a start token, and is expected to say the target
/// and then the end token. A target that is not shifted lets each position see the word that it has to say: the loss falls to
/// nothing, and generation, which has no such word, is nonsense.
///
/// ```
/// # use tilewise::train::shift_right;
/// let (start, end) = (1, 2);
/// let shifted = shift_right(&[vec![7, 8, 9]], start, end);
/// assert_eq!(shifted.input, [[1, 7, 8, 9]]);
/// assert_eq!(shifted.expected, [[7, 8, 9, 2]]);
/// ```
pub fn shift_right(targets: &[Vec<u32>], start: u32, end: u32) -> Shifted {
    let around = |before: Option<u32>, target: &[u32], after: Option<u32>| {
        before.into_iter().chain(target.iter().copied()).chain(after).collect()
    };
    Shifted {
        input: targets.iter().map(|target| around(Some(start), target, None)).collect(),
        expected: targets.iter().map(|target| around(None, target, Some(end))).collect(),
    }
}

/// Sequences as i32 `[B, tokens]`, filled up with `padding` at the end, and their lengths as i32 `[B]`. Expected tokens are filled up
/// with what [`CrossEntropy::ignore`](super::CrossEntropy::ignore) names.
///
/// ```
/// # use tilewise::train::pad;
/// let (ids, lengths) = pad(&[vec![5, 6], vec![7]], -100, 3)?;
/// assert_eq!(ids.as_i32(), Some(&[5, 6, -100, 7, -100, -100][..]));
/// assert_eq!(lengths.as_i32(), Some(&[2, 1][..]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if a sequence is longer, or an id is over 2³¹ − 1.
pub fn pad(sequences: &[Vec<u32>], padding: i32, tokens: usize) -> Result<(Tensor, Tensor)> {
    let mut ids = Vec::with_capacity(sequences.len() * tokens);
    let mut lengths = Vec::with_capacity(sequences.len());
    for (item, sequence) in sequences.iter().enumerate() {
        if sequence.len() > tokens {
            let length = sequence.len();
            return Err(Error::op(
                "pad",
                format!("sequence {item} has {length} tokens, expected {tokens} at the most"),
            ));
        }
        for &id in sequence {
            ids.push(i32::try_from(id).map_err(|_| Error::op("pad", format!("sequence {item} has the id {id}")))?);
        }
        ids.resize((item + 1) * tokens, padding);
        lengths.push(sequence.len() as i32);
    }
    Ok((Tensor::new([sequences.len(), tokens], ids)?, Tensor::new([sequences.len()], lengths)?))
}

/// Batches of sequences of much the same length, so that little is padded: the numbers of `batch` sequences each. The sequences are
/// shuffled, sorted by length, cut into batches, and the batches shuffled; those of one seed are the same. The last sequences, if
/// they fill no batch, are left out: every batch has the same shape, and compiles nothing.
///
/// ```
/// # use tilewise::train::batches_by_length;
/// let batches = batches_by_length(&[5, 1, 5, 1, 9], 2, 0);
/// assert_eq!(batches.len(), 2);
/// assert!(batches.iter().all(|batch| batch.len() == 2 && !batch.contains(&4)));
/// ```
pub fn batches_by_length(lengths: &[usize], batch: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    shuffle(&mut order, &mut random);
    order.sort_by_key(|&item| lengths[item]);
    let mut batches: Vec<Vec<usize>> = order.chunks_exact(batch.max(1)).map(<[usize]>::to_vec).collect();
    shuffle(&mut batches, &mut random);
    batches
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.size(0, last));
    }
}
