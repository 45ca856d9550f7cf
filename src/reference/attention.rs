//! Attention by its plain formula. Twins: `src/kernel/attention/`, `shaders/attention/`, `tests/device/attention/`.

use super::{Array, Real, Value, shapes::result_shapes, value::stretch};
use crate::{
    DType, Result,
    graph::{Align, Attention, AttentionFault, AttentionOperand, Function, MaskTwin, Op, Pair, ScoreTwin, Scored},
};

/// The largest offset of query 0 among the keys.
const FARTHEST: i64 = 1 << 30;

/// Scaled dot-product attention: `(out, lse, status)`. [`Attention`] has the formula and the shapes.
///
/// `extra` are the operands after q, k and v, as `options.operands` lists them. For each query row: the scores of the
/// keys that it sees, their maximum, the sum of exponentials, then the weighted sum of values. Nothing is online,
/// nothing tiled.
///
/// ```
/// use tilewise::{graph::Attention, reference::{Array, attention}};
/// let [q, k] = [Array::new([1, 1, 1, 1], vec![0.0])?, Array::new([1, 1, 2, 1], vec![3.0, 4.0])?];
/// let v = Array::new([1, 1, 2, 1], vec![2.0, 4.0])?;
/// let (out, lse, _) = attention::<f64>(&Attention::default(), &q, &k, &v, &[])?;
/// assert_eq!((out.data(), lse.data()), (&[3.0][..], &[2f64.ln()][..]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if options, shapes or the dtypes of `extra` don't fit, or if a function of the
/// options has no twin.
pub fn attention<R: Real>(
    options: &Attention,
    q: &Array<R>,
    k: &Array<R>,
    v: &Array<R>,
    extra: &[&Value<R>],
) -> Result<(Array<R>, Array<R>, Array<i32>)> {
    let mut operands = vec![(DType::F32, q.shape()), (DType::F32, k.shape()), (DType::F32, v.shape())];
    operands.extend(extra.iter().map(|value| (value.dtype(), value.shape())));
    let [out_shape, lse_shape, status_shape] = result_shapes(&Op::Attention(options.clone()), &operands)?;
    let run = Run::new(options, q, k, v, extra)?;

    // What a fully masked row gives.
    let mut out = vec![R::ZERO; out_shape.iter().product()];
    let mut lse = vec![R::of(f32::MIN.into()); lse_shape.iter().product()];
    if let Some(sinks) = run.sinks {
        for (row, lse) in lse.iter_mut().enumerate() {
            *lse = sinks[run.q.head_of(row)];
        }
    }

    for sequence in run.sequences() {
        for head in 0..run.q.heads {
            for i in 0..sequence.queries.length {
                let scores: Vec<(usize, R)> = (0..sequence.keys.length)
                    .filter_map(|j| run.score(&sequence, head, i, j).map(|score| (j, score)))
                    .collect();
                // Whether it sees a key is whether there is a score, whatever that is.
                if scores.is_empty() {
                    continue;
                }
                let sink = run.sinks.map(|sinks| sinks[head]);
                let largest = scores.iter().map(|s| s.1).chain(sink).fold(R::of(f64::NEG_INFINITY), R::larger);
                let mut sum = R::ZERO;
                for score in scores.iter().map(|s| s.1).chain(sink) {
                    sum += (score - largest).exp();
                }
                let row = run.q.row(sequence.item, head, sequence.queries.start + i);
                lse[row] = (largest + sum.ln()).larger(R::of(f32::MIN.next_up().into()));
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
    let status = (0..status_shape.iter().product()).map(|item| run.status(item)).collect();
    Ok((Array::new(out_shape, out)?, Array::new(lse_shape, lse)?, Array::new(status_shape, status)?))
}

/// The operands of one attention, by what they are.
pub(super) struct Run<'a, R> {
    options: &'a Attention,
    extra: &'a [&'a Value<R>],
    pub(super) q: Rows<'a, R>,
    pub(super) k: Rows<'a, R>,
    pub(super) v: Rows<'a, R>,
    scale: R,
    mask: Option<PerScore<'a, bool>>,
    bias: Option<PerScore<'a, R>>,
    slopes: Option<&'a [R]>,
    sinks: Option<&'a [R]>,
    score_mods: Vec<&'a ScoreTwin>,
    mask_mods: Vec<&'a MaskTwin>,
    score_table: Vec<f64>,
    mask_table: Vec<f64>,
}

impl<'a, R: Real> Run<'a, R> {
    pub(super) fn new(
        options: &'a Attention,
        q: &'a Array<R>,
        k: &'a Array<R>,
        v: &'a Array<R>,
        extra: &'a [&'a Value<R>],
    ) -> Result<Self> {
        let find = |operand| options.input_of(operand).map(|input| extra[input - 3]);
        let table = find(AttentionOperand::BlockTable).and_then(Value::i32s);
        let q = Rows::new(q, options, None);
        let [k, v] = [k, v].map(|array| Rows::new(array, options, table));
        let scores = [q.items, q.heads, q.length, k.length];
        let mask = find(AttentionOperand::Mask).and_then(Value::bools).map(|mask| PerScore::new(mask, scores));
        let bias = find(AttentionOperand::Bias).and_then(Value::floats).map(|bias| PerScore::new(bias, scores));
        let [slopes, sinks] = [AttentionOperand::Slopes, AttentionOperand::Sinks]
            .map(|per_head| find(per_head).and_then(Value::floats).map(Array::data));
        let scale = match options.scale {
            Some(scale) => R::of(scale.into()),
            None => R::ONE / R::of(q.width as f64).sqrt(),
        };
        let floats = |operand| find(operand).map(Value::to_f64).unwrap_or_default();
        let score_mods = options.score_mods.iter().map(Function::expect_twin).collect::<Result<_>>()?;
        let mask_mods = options.mask_mods.iter().map(Function::expect_twin).collect::<Result<_>>()?;
        let (score_table, mask_table) = (floats(AttentionOperand::ScoreTable), floats(AttentionOperand::MaskTable));
        let run = Run {
            options,
            extra,
            q,
            k,
            v,
            scale,
            mask,
            bias,
            slopes,
            sinks,
            score_mods,
            mask_mods,
            score_table,
            mask_table,
        };
        Ok(run)
    }

    /// s[i,j], or nothing if query i does not see key j.
    pub(super) fn score(&self, sequence: &Sequence, head: usize, i: usize, j: usize) -> Option<R> {
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
        let mut pair = self.pair(sequence, head, [i, j]);
        pair.table = &self.mask_table;
        if !self.mask_mods.iter().all(|function| function(&pair)) {
            return None;
        }
        let mut score = self.scaled(sequence, head, [i, j]);
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
        pair.table = &self.score_table;
        for function in &self.score_mods {
            score = R::of(function(&Scored { score: score.wide(), pair }));
        }
        // −∞ hides the key if a function says so. That of q·k is a score, which weighs nothing.
        (self.score_mods.is_empty() || score.wide() != f64::NEG_INFINITY).then_some(score)
    }

    /// scale · q_i·k_j
    fn scaled(&self, sequence: &Sequence, head: usize, [i, j]: [usize; 2]) -> R {
        let query = self.q.get(sequence.item, head, sequence.queries.start + i);
        let key = self.k.get(sequence.item, self.key_head(head), sequence.keys.start + j);
        let mut product = R::ZERO;
        for (&q, &k) in query.iter().zip(key) {
            product += q * k;
        }
        self.scale * product
    }

    /// The derivative of the score by q_i·k_j.
    pub(super) fn slope(&self, sequence: &Sequence, head: usize, at: [usize; 2]) -> R {
        let Some(cap) = self.options.softcap else { return self.scale };
        let bent = (self.scaled(sequence, head, at) / R::of(cap.into())).tanh();
        self.scale * (R::ONE - bent * bent)
    }

    /// What functions are told of query i and key j.
    fn pair(&self, sequence: &Sequence, head: usize, [i, j]: [usize; 2]) -> Pair<'_> {
        let shortest = [self.mask.as_ref().map(PerScore::keys), self.bias.as_ref().map(PerScore::keys)];
        let k_len = shortest.into_iter().flatten().fold(sequence.keys.length, usize::min);
        Pair {
            b: sequence.item as i32,
            h: head as i32,
            h_kv: self.key_head(head) as i32,
            i: i as i32,
            j: j as i32,
            position: (i as i64 + sequence.offset) as i32,
            q_len: sequence.queries.length as i32,
            k_len: k_len as i32,
            table: &[],
        }
    }

    /// Which lengths and offsets of an item do not fit.
    fn status(&self, item: usize) -> i32 {
        use {AttentionFault as Fault, AttentionOperand as A};
        let mut status = 0;
        let mut report = |fault: Fault, good: bool| status |= if good { 0 } else { fault as i32 };
        // The length of the item's part of a packed buffer, or of all of it.
        let mut part = |operand: A, fault: Fault, total: usize| -> usize {
            let Some(starts) = self.i32s(operand) else { return total };
            let (first, level, wanted) = (item == 0, level(starts, item, total), starts[item + 1]);
            let end = level.max(usize::try_from(wanted).unwrap_or(0).min(total));
            report(fault, end as i64 == i64::from(wanted));
            report(fault, !first || level as i64 == i64::from(starts[0]));
            end - level
        };
        let rows = part(A::QueryOffsets, Fault::QueryOffsets, self.q.length);
        let keys = part(A::KeyOffsets, Fault::KeyOffsets, self.k.length);
        let within = |x: i32, most: usize| (0..=most as i64).contains(&i64::from(x));
        let of = |operand: A| self.i32s(operand).map(|all| all[item]);
        report(Fault::QueryLength, of(A::QueryLengths).is_none_or(|length| within(length, rows)));
        report(Fault::KeyLength, of(A::KeyLengths).is_none_or(|length| within(length, keys)));
        report(Fault::Offset, of(A::Offsets).is_none_or(|offset| i64::from(offset).abs() <= FARTHEST));
        if let Some(pages) = &self.k.pages {
            let length = of(A::KeyLengths).map_or(keys, |length| usize::try_from(length).unwrap_or(0).min(keys));
            let named = &pages.table[item * pages.each..][..length.div_ceil(pages.rows.max(1))];
            report(Fault::BlockTable, named.iter().all(|&page| (0..pages.count as i64).contains(&i64::from(page))));
        }
        status
    }

    fn value(&self, sequence: &Sequence, head: usize, j: usize) -> &'a [R] {
        self.v.get(sequence.item, self.key_head(head), sequence.keys.start + j)
    }

    /// The key head that a query head reads.
    pub(super) fn key_head(&self, head: usize) -> usize {
        head / (self.q.heads / self.k.heads)
    }

    fn i32s(&self, operand: AttentionOperand) -> Option<&'a [i32]> {
        self.options.input_of(operand).and_then(|input| self.extra[input - 3].i32s()).map(Array::data)
    }

    pub(super) fn sequences(&self) -> Vec<Sequence> {
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
pub(super) struct Sequence {
    pub(super) item: usize,
    pub(super) queries: Span,
    pub(super) keys: Span,
    /// Where query 0 stands among the keys.
    pub(super) offset: i64,
}

/// Positions from `start` on.
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) length: usize,
}

/// Where a sequence starts: the highest entry up to its own.
fn level(starts: &[i32], item: usize, total: usize) -> usize {
    starts[..=item].iter().map(|&start| usize::try_from(start).unwrap_or(0).min(total)).max().unwrap_or(0)
}

/// The positions of an item: its part of a packed buffer or all of it, cut to its length if lengths are given.
fn span(starts: Option<&[i32]>, item: usize, total: usize, lengths: Option<&[i32]>) -> Span {
    let within = |x: i32, least: usize, most: usize| usize::try_from(x).unwrap_or(0).clamp(least, most);
    let start = starts.map_or(0, |starts| level(starts, item, total));
    let end = starts.map_or(total, |starts| within(starts[item + 1], start, total));
    let length = lengths.map_or(end - start, |lengths| within(lengths[item], 0, end - start));
    Span { start, length }
}

/// q, k or v: rows of `width` elements, `[items, heads, length]` of them, or packed `[length, heads]`, or in pages.
pub(super) struct Rows<'a, R> {
    data: &'a [R],
    packed: bool,
    pages: Option<Pages<'a>>,
    items: usize,
    pub(super) heads: usize,
    length: usize,
    pub(super) width: usize,
}

/// Pages `[count, rows, heads]`, of which an item has `each`, by a table.
struct Pages<'a> {
    table: &'a [i32],
    count: usize,
    rows: usize,
    each: usize,
}

impl<'a, R: Real> Rows<'a, R> {
    fn new(array: &'a Array<R>, options: &Attention, table: Option<&'a Array<i32>>) -> Self {
        let (s, data) = (array.shape(), array.data());
        if let Some(table) = table {
            let pages = Pages { table: table.data(), count: s[0], rows: s[1], each: table.shape()[1] };
            let (items, length) = (table.shape()[0], s[1] * pages.each);
            Rows { data, packed: false, pages: Some(pages), items, heads: s[2], length, width: s[3] }
        } else if options.is_packed() {
            Rows { data, packed: true, pages: None, items: 1, heads: s[1], length: s[0], width: s[2] }
        } else {
            Rows { data, packed: false, pages: None, items: s[0], heads: s[1], length: s[2], width: s[3] }
        }
    }

    /// The number of a row. Packed, `position` counts from the start of the buffer and `item` plays no part.
    pub(super) fn row(&self, item: usize, head: usize, position: usize) -> usize {
        if let Some(pages) = &self.pages {
            let page = usize::try_from(pages.table[item * pages.each + position / pages.rows]).unwrap_or(0);
            (page.min(pages.count - 1) * pages.rows + position % pages.rows) * self.heads + head
        } else if self.packed {
            position * self.heads + head
        } else {
            (item * self.heads + head) * self.length + position
        }
    }

    /// The head of a row, given its number.
    fn head_of(&self, row: usize) -> usize {
        if self.packed { row % self.heads } else { row / self.length % self.heads }
    }

    pub(super) fn get(&self, item: usize, head: usize, position: usize) -> &'a [R] {
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

    fn keys(&self) -> usize {
        self.shape[3]
    }

    fn get(&self, [b, h, i, j]: [usize; 4]) -> Option<T> {
        let [_, heads, queries, keys] = self.shape;
        (j < keys).then(|| self.data[self.places[((b * heads + h) * queries + i) * keys + j]])
    }
}
