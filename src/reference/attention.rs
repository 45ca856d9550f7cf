//! Attention by its plain formula. Twins: `src/kernel/attention*`, `shaders/attention*.wgsl`, `tests/attention.rs`.

use super::{Array, Real, Value, result_shapes, value::stretch};
use crate::{
    DType, Result,
    graph::{Align, Attention, AttentionOperand, Op},
};

/// The largest offset of query 0 among the keys.
const FARTHEST: i64 = 1 << 30;

/// Scaled dot-product attention: `(out, lse)`. See [`Attention`] for the formula and the shapes.
///
/// `extra` are the operands after q, k and v, as `options.operands` lists them. For each query row: all scores that are
/// seen, their maximum, the sum of exponentials, then the weighted sum of values.
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

    let extra = Extra { options, values: extra };
    let (q_rows, k_rows, v_rows) = (Rows::new(q, options), Rows::new(k, options), Rows::new(v, options));
    let scores = [q_rows.items, q_rows.heads, q_rows.length, k_rows.length];
    let mask = extra.bools(AttentionOperand::Mask).map(|mask| PerScore::new(mask, scores));
    let bias = extra.floats(AttentionOperand::Bias).map(|bias| PerScore::new(bias, scores));
    let slopes = extra.floats(AttentionOperand::Slopes);
    let scale = options.scale.map_or_else(|| R::ONE / R::of(q_rows.width as f64).sqrt(), |scale| R::of(scale.into()));
    let group = q_rows.heads / k_rows.heads.max(1);

    // What a row that sees nothing keeps.
    let mut out = vec![R::ZERO; out_shape.iter().product()];
    let mut lse = vec![R::of(f32::MIN.into()); lse_shape.iter().product()];

    for sequence in extra.sequences(&q_rows, &k_rows) {
        for head in 0..q_rows.heads {
            for i in 0..sequence.queries.length {
                let row = q_rows.row(sequence.item, head, sequence.queries.start + i);
                let query = q_rows.get(row);
                let keys = (0..sequence.keys.length).map(|j| (j, sequence.keys.start + j));
                let mut seen: Vec<(R, &[R])> = Vec::new();
                for (j, place) in keys {
                    let at = [sequence.item, head, i, j];
                    let shown = mask.as_ref().is_none_or(|mask| mask.get(at) == Some(true));
                    if !shown || !sequence.sees(options, i, j) {
                        continue;
                    }
                    let key = k_rows.get(k_rows.row(sequence.item, head / group, place));
                    let mut score = scale * dot(query, key);
                    if let Some(cap) = options.softcap {
                        let cap = R::of(cap.into());
                        score = cap * (score / cap).tanh();
                    }
                    if let Some(bias) = &bias {
                        match bias.get(at) {
                            Some(bias) if bias.wide() != f64::NEG_INFINITY => score += bias,
                            _ => continue,
                        }
                    }
                    if let Some(slopes) = slopes {
                        let distance = j as i64 - (i as i64 + sequence.offset);
                        score += slopes.data()[head] * R::of(distance as f64);
                    }
                    seen.push((score, v_rows.get(v_rows.row(sequence.item, head / group, place))));
                }
                let Some(largest) = seen.iter().map(|s| s.0).reduce(|a, b| if b > a { b } else { a }) else {
                    continue;
                };
                let mut sum = R::ZERO;
                for (score, _) in &mut seen {
                    *score = (*score - largest).exp();
                    sum += *score;
                }
                lse[row] = largest + sum.ln();
                let out = &mut out[row * v_rows.width..][..v_rows.width];
                for (weight, value) in seen {
                    let weight = weight / sum;
                    for (out, &value) in out.iter_mut().zip(value) {
                        *out += weight * value;
                    }
                }
            }
        }
    }
    Ok((Array::new(out_shape, out)?, Array::new(lse_shape, lse)?))
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    let mut sum = R::ZERO;
    for (&a, &b) in a.iter().zip(b) {
        sum += a * b;
    }
    sum
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

    fn get(&self, row: usize) -> &'a [R] {
        &self.data[row * self.width..][..self.width]
    }
}

/// Positions from `start` on.
struct Span {
    start: usize,
    length: usize,
}

/// One batch item, or one of the packed sequences: the queries and keys that belong together.
struct Sequence {
    item: usize,
    queries: Span,
    keys: Span,
    /// Where query 0 stands among the keys.
    offset: i64,
}

impl Sequence {
    /// What can be said of query i and key j by their positions alone.
    fn sees(&self, options: &Attention, i: usize, j: usize) -> bool {
        let (own, j) = (i as i64 + self.offset, j as i64);
        let causal = !options.causal || j <= own;
        let left = options.window.left.is_none_or(|left| j >= own - i64::from(left));
        let right = options.window.right.is_none_or(|right| j <= own + i64::from(right));
        causal && left && right
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

/// The operands after q, k and v.
struct Extra<'a, R> {
    options: &'a Attention,
    values: &'a [&'a Value<R>],
}

impl<'a, R: Real> Extra<'a, R> {
    fn find(&self, operand: AttentionOperand) -> Option<&'a Value<R>> {
        self.options.input_of(operand).map(|input| self.values[input - 3])
    }

    fn floats(&self, operand: AttentionOperand) -> Option<&'a Array<R>> {
        self.find(operand).and_then(Value::floats)
    }

    fn bools(&self, operand: AttentionOperand) -> Option<&'a Array<bool>> {
        self.find(operand).and_then(Value::bools)
    }

    fn i32s(&self, operand: AttentionOperand) -> Option<&'a [i32]> {
        self.find(operand).and_then(Value::i32s).map(Array::data)
    }

    fn sequences(&self, q: &Rows<'_, R>, k: &Rows<'_, R>) -> Vec<Sequence> {
        use AttentionOperand as A;
        let (q_starts, k_starts) = (self.i32s(A::QueryOffsets), self.i32s(A::KeyOffsets));
        let items = q_starts.map_or(q.items, |starts| starts.len() - 1);
        (0..items)
            .map(|item| {
                let queries = span(q_starts, item, q.length, self.i32s(A::QueryLengths));
                let keys = span(k_starts, item, k.length, self.i32s(A::KeyLengths));
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

/// The positions of an item: its part of a packed buffer or all of it, cut to its length if lengths are given.
fn span(starts: Option<&[i32]>, item: usize, total: usize, lengths: Option<&[i32]>) -> Span {
    let within = |x: i32, least: usize, most: usize| usize::try_from(x).unwrap_or(0).clamp(least, most);
    let start = starts.map_or(0, |starts| within(starts[item], 0, total));
    let end = starts.map_or(total, |starts| within(starts[item + 1], start, total));
    let length = lengths.map_or(end - start, |lengths| within(lengths[item], 0, end - start));
    Span { start, length }
}
