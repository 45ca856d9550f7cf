//! Attention by its plain formula. Twins: `src/kernel/attention`, `shaders/attention*.wgsl`, `tests/attention.rs`.

use super::{Array, Real, Value, result_shapes, value::stretch};
use crate::{
    DType, Result,
    graph::{Align, Attention, AttentionOperand, Op},
};

/// The largest offset of query 0 among the keys.
const FARTHEST: i64 = 1 << 30;

/// Scaled dot-product attention: `(out, lse)`. See [`Attention`] for the formula and the shapes.
///
/// `extra` are the operands after q, k and v, as `options.operands` lists them. For each query row: the scores of the keys
/// that it sees, their maximum, the sum of exponentials, then the weighted sum of values. Nothing online, nothing tiled.
pub fn attention<R: Real>(
    options: &Attention,
    q: &Array<R>,
    k: &Array<R>,
    v: &Array<R>,
    extra: &[&Value<R>],
) -> Result<(Array<R>, Array<R>)> {
    let mut operands = vec![(DType::F32, q.shape()), (DType::F32, k.shape()), (DType::F32, v.shape())];
    operands.extend(extra.iter().map(|value| (value.dtype(), value.shape())));
    let [out_shape, lse_shape] = result_shapes(&Op::Attention(options.clone()), &operands)?;
    let run = Run::new(options, q, k, v, extra);

    // What a row that sees nothing keeps.
    let mut out = vec![R::ZERO; out_shape.iter().product()];
    let mut lse = vec![R::of(f32::MIN.into()); lse_shape.iter().product()];

    for sequence in run.sequences() {
        for head in 0..run.q.heads {
            for i in 0..sequence.queries.length {
                let scores: Vec<(usize, R)> = (0..sequence.keys.length)
                    .filter_map(|j| run.score(&sequence, head, i, j).map(|score| (j, score)))
                    .collect();
                let Some(largest) = scores.iter().map(|s| s.1).reduce(|a, b| if b > a { b } else { a }) else {
                    continue;
                };
                let mut sum = R::ZERO;
                for &(_, score) in &scores {
                    sum += (score - largest).exp();
                }
                let row = run.q.row(sequence.item, head, sequence.queries.start + i);
                lse[row] = largest + sum.ln();
                let out = &mut out[row * run.v.width..][..run.v.width];
                for (j, score) in scores {
                    let weight = (score - largest).exp() / sum;
                    for (out, &value) in out.iter_mut().zip(run.value(&sequence, head, j)) {
                        *out += weight * value;
                    }
                }
            }
        }
    }
    Ok((Array::new(out_shape, out)?, Array::new(lse_shape, lse)?))
}

/// The operands of one attention, by what they are.
struct Run<'a, R> {
    options: &'a Attention,
    extra: &'a [&'a Value<R>],
    q: Rows<'a, R>,
    k: Rows<'a, R>,
    v: Rows<'a, R>,
    scale: R,
    mask: Option<PerScore<'a, bool>>,
    bias: Option<PerScore<'a, R>>,
    slopes: Option<&'a [R]>,
}

impl<'a, R: Real> Run<'a, R> {
    fn new(
        options: &'a Attention,
        q: &'a Array<R>,
        k: &'a Array<R>,
        v: &'a Array<R>,
        extra: &'a [&'a Value<R>],
    ) -> Self {
        let [q, k, v] = [q, k, v].map(|array| Rows::new(array, options));
        let find = |operand| options.input_of(operand).map(|input| extra[input - 3]);
        let scores = [q.items, q.heads, q.length, k.length];
        let mask = find(AttentionOperand::Mask).and_then(Value::bools).map(|mask| PerScore::new(mask, scores));
        let bias = find(AttentionOperand::Bias).and_then(Value::floats).map(|bias| PerScore::new(bias, scores));
        let slopes = find(AttentionOperand::Slopes).and_then(Value::floats).map(Array::data);
        let scale = match options.scale {
            Some(scale) => R::of(scale.into()),
            None => R::ONE / R::of(q.width as f64).sqrt(),
        };
        Run { options, extra, q, k, v, scale, mask, bias, slopes }
    }

    /// s[i,j], or nothing if query i does not see key j.
    fn score(&self, sequence: &Sequence, head: usize, i: usize, j: usize) -> Option<R> {
        let options = self.options;
        // Key j is `distance` positions after the query's own.
        let distance = j as i64 - (i as i64 + sequence.offset);
        let causal = !options.causal || distance <= 0;
        let left = options.window.left.is_none_or(|left| distance >= -i64::from(left));
        let right = options.window.right.is_none_or(|right| distance <= i64::from(right));
        let at = [sequence.item, head, i, j];
        let shown = self.mask.as_ref().is_none_or(|mask| mask.get(at) == Some(true));
        if !(causal && left && right && shown) {
            return None;
        }
        let query = self.q.get(sequence.item, head, sequence.queries.start + i);
        let key = self.k.get(sequence.item, self.key_head(head), sequence.keys.start + j);
        let mut score = R::ZERO;
        for (&q, &k) in query.iter().zip(key) {
            score += q * k;
        }
        score = self.scale * score;
        if let Some(cap) = options.softcap {
            let cap = R::of(cap.into());
            score = cap * (score / cap).tanh();
        }
        if let Some(bias) = &self.bias {
            score += bias.get(at).filter(|bias| bias.wide() != f64::NEG_INFINITY)?;
        }
        if let Some(slopes) = self.slopes {
            score += slopes[head] * R::of(distance as f64);
        }
        Some(score)
    }

    fn value(&self, sequence: &Sequence, head: usize, j: usize) -> &'a [R] {
        self.v.get(sequence.item, self.key_head(head), sequence.keys.start + j)
    }

    /// The key head that a query head reads.
    fn key_head(&self, head: usize) -> usize {
        head / (self.q.heads / self.k.heads)
    }

    fn i32s(&self, operand: AttentionOperand) -> Option<&'a [i32]> {
        self.options.input_of(operand).and_then(|input| self.extra[input - 3].i32s()).map(Array::data)
    }

    fn sequences(&self) -> Vec<Sequence> {
        use AttentionOperand as A;
        let (q_starts, k_starts) = (self.i32s(A::QueryOffsets), self.i32s(A::KeyOffsets));
        let items = q_starts.map_or(self.q.items, |starts| starts.len() - 1);
        (0..items)
            .map(|item| {
                let queries = span(q_starts, item, self.q.length, self.i32s(A::QueryLengths));
                let keys = span(k_starts, item, self.k.length, self.i32s(A::KeyLengths));
                let offset: i64 = match self.options.align {
                    Align::TopLeft => 0,
                    Align::BottomRight => keys.length as i64 - queries.length as i64,
                    Align::Offset(offset) => offset.into(),
                    Align::PerItem => self.i32s(A::Offsets).map_or(0, |offsets| offsets[item].into()),
                };
                Sequence { item, queries, keys, offset: offset.clamp(-FARTHEST, FARTHEST) }
            })
            .collect()
    }
}

/// One batch item, or one of the packed sequences: the queries and keys that belong together.
struct Sequence {
    item: usize,
    queries: Span,
    keys: Span,
    /// Where query 0 stands among the keys.
    offset: i64,
}

/// Positions from `start` on.
struct Span {
    start: usize,
    length: usize,
}

/// The positions of an item: its part of a packed buffer or all of it, cut to its length if lengths are given.
fn span(starts: Option<&[i32]>, item: usize, total: usize, lengths: Option<&[i32]>) -> Span {
    let within = |x: i32, least: usize, most: usize| usize::try_from(x).unwrap_or(0).clamp(least, most);
    let start = starts.map_or(0, |starts| within(starts[item], 0, total));
    let end = starts.map_or(total, |starts| within(starts[item + 1], start, total));
    let length = lengths.map_or(end - start, |lengths| within(lengths[item], 0, end - start));
    Span { start, length }
}

/// q, k or v: rows of `width` elements, `[items, heads, length]` of them, or packed `[length, heads]`.
struct Rows<'a, R> {
    data: &'a [R],
    packed: bool,
    items: usize,
    heads: usize,
    length: usize,
    width: usize,
}

impl<'a, R: Real> Rows<'a, R> {
    fn new(array: &'a Array<R>, options: &Attention) -> Self {
        let (s, data) = (array.shape(), array.data());
        if options.is_packed() {
            Rows { data, packed: true, items: 1, heads: s[1], length: s[0], width: s[2] }
        } else {
            Rows { data, packed: false, items: s[0], heads: s[1], length: s[2], width: s[3] }
        }
    }

    /// The number of a row. Packed, `position` counts from the start of the buffer and `item` plays no part.
    fn row(&self, item: usize, head: usize, position: usize) -> usize {
        if self.packed { position * self.heads + head } else { (item * self.heads + head) * self.length + position }
    }

    fn get(&self, item: usize, head: usize, position: usize) -> &'a [R] {
        &self.data[self.row(item, head, position) * self.width..][..self.width]
    }
}

/// A mask or bias for `[B, Hq, Tq, keys]`, where `keys` may be short of Tk: there is nothing for the keys past its end.
struct PerScore<'a, T> {
    data: &'a [T],
    places: Vec<usize>,
    shape: [usize; 4],
}

impl<'a, T: Copy> PerScore<'a, T> {
    fn new(array: &'a Array<T>, [b, h, tq, tk]: [usize; 4]) -> Self {
        // An axis of 1 stretches, any other is taken as it is.
        let keys = array.shape().last().copied().filter(|&keys| keys != 1).unwrap_or(tk);
        let shape = [b, h, tq, keys];
        PerScore { data: array.data(), places: stretch(array.shape(), &shape), shape }
    }

    fn get(&self, [b, h, i, j]: [usize; 4]) -> Option<T> {
        let [_, heads, queries, keys] = self.shape;
        (j < keys).then(|| self.data[self.places[((b * heads + h) * queries + i) * keys + j]])
    }
}
