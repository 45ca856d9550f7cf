//! The gradient of attention by its plain formula. Twins: `src/kernel/attention_grad/`, `shaders/attention_grad/`,
//! `tests/device/attention_grad.rs`.

use super::{Array, Real, Value, attention::Run};
use crate::{
    DType, Result, Shape,
    graph::{Attention, AttentionOperand as A, Op, infer},
};

/// The gradients of q, k and v, then of the bias and of the slopes if there are; [`Op::AttentionGrad`] has the formula and the
/// shapes.
///
/// `extra` are the operands after q, k and v, as `options.operands` lists them. Pair by pair, in f64 or f32 as it stands.
///
/// ```
/// use tilewise::{graph::Attention, reference::{Array, attention_grad}};
/// // One query that sees two keys alike: each has half of its weight.
/// let [q, k] = [Array::new([1, 1, 1, 1], vec![0.0])?, Array::new([1, 1, 2, 1], vec![3.0, 4.0])?];
/// let v = Array::new([1, 1, 2, 1], vec![2.0, 4.0])?;
/// let (dout, statistics) = (Array::new([1, 1, 1, 1], vec![1.0])?, Array::new([2, 1, 1, 1], vec![2f64.ln(), 3.0])?);
/// let grads = attention_grad::<f64>(&Attention::default(), [&q, &k, &v], &[], &dout, &statistics)?;
/// let near = |x: &Array<f64>, expected: &[f64]| x.data().iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-12);
/// assert!(near(&grads[0], &[0.5]) && near(&grads[1], &[0.0, 0.0]) && near(&grads[2], &[0.5, 0.5]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if options, shapes or the dtypes of `extra` don't fit, or if a function of the
/// options has no twin.
pub fn attention_grad<R: Real>(
    options: &Attention,
    [q, k, v]: [&Array<R>; 3],
    extra: &[&Value<R>],
    dout: &Array<R>,
    statistics: &Array<R>,
) -> Result<Vec<Array<R>>> {
    let mut operands: Vec<(DType, &Shape)> = [q, k, v].map(|x| (DType::F32, x.shape())).into();
    operands.extend(extra.iter().map(|value| (value.dtype(), value.shape())));
    operands.extend([dout, statistics].map(|x| (DType::F32, x.shape())));
    let results = infer(&Op::AttentionGrad(options.clone()), &operands)?;
    let run = Run::new(options, q, k, v, extra)?;
    let (lse, delta) = statistics.data().split_at(statistics.data().len() / 2);
    let mut sums: Vec<Vec<R>> = results.iter().map(|(_, shape)| vec![R::ZERO; shape.iter().product()]).collect();
    let bias = options.input_of(A::Bias).map(|_| 3);
    let slopes = options.input_of(A::Slopes).map(|_| results.len() - 1);

    for sequence in run.sequences() {
        for head in 0..run.q.heads {
            for i in 0..sequence.queries.length {
                let row = run.q.row(sequence.item, head, sequence.queries.start + i);
                let query = run.q.get(sequence.item, head, sequence.queries.start + i);
                let dout = &dout.data()[row * run.v.width..][..run.v.width];
                for j in 0..sequence.keys.length {
                    let Some(score) = run.score(&sequence, head, i, j) else { continue };
                    let key_head = run.key_head(head);
                    let place = sequence.keys.start + j;
                    let (key, value) =
                        (run.k.get(sequence.item, key_head, place), run.v.get(sequence.item, key_head, place));
                    let weight = (score - lse[row]).exp();
                    let mut along = R::ZERO;
                    dout.iter().zip(value).for_each(|(&dout, &value)| along += dout * value);
                    let ds = weight * (along - delta[row]);
                    let dt = ds * run.slope(&sequence, head, [i, j]);
                    let (key_row, value_row) =
                        (run.k.row(sequence.item, key_head, place), run.v.row(sequence.item, key_head, place));
                    add(&mut sums[0], row, dt, key);
                    add(&mut sums[1], key_row, dt, query);
                    add(&mut sums[2], value_row, weight, dout);
                    if let Some(bias) = bias {
                        let shape = &results[bias].1;
                        let at = [sequence.item, head, i, j];
                        let place = shape.iter().zip(at).fold(0, |place, (&size, at)| place * size + at.min(size - 1));
                        sums[bias][place] += ds;
                    }
                    if let Some(slopes) = slopes {
                        let distance = j as i64 - (i as i64 + sequence.offset);
                        sums[slopes][row] += ds * R::of(distance as f64);
                    }
                }
            }
        }
    }
    sums.into_iter().zip(results).map(|(sum, (_, shape))| Array::new(shape, sum)).collect()
}

/// Adds `factor · x` to row `row` of as wide rows.
fn add<R: Real>(sums: &mut [R], row: usize, factor: R, x: &[R]) {
    for (sum, &x) in sums[row * x.len()..].iter_mut().zip(x) {
        *sum += factor * x;
    }
}
