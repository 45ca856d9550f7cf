//! Attention in plain operations, step by step: the one place that writes it out.
//!
//! In a row, [`Graph::scaled_scores`], [`Graph::capped_scores`], [`Graph::masked_scores`] with the [`Terms`], a softmax and
//! [`Graph::weighted_values`] compute what [`Attention`] does, without functions of scores. Packed sequences are those of one item,
//! `[1, H, ΣT, D]`, whose rows see the keys of their own sequence.

use super::{
    Align, Attention, AttentionOperand as A, Binary, Graph, Reduce, ValueId,
    attention::{FARTHEST, short_of},
};
use crate::{DType, Error, Result, Shape, Tensor};

/// What comes to the scores after the softcap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    /// Of the scores' dtype: what is added, in this order.
    pub(crate) added: Vec<Term>,
    /// bool: a key is seen where all of these say so.
    pub(crate) seen: Vec<Term>,
}

/// A value that broadcasts to the scores, `[B, Hq, Tq, Tk]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term {
    pub(crate) value: ValueId,
    pub(crate) reason: Reason,
}

/// Why there is a term.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// [`Attention::causal`].
    Causal,
    /// [`Attention::window`].
    Window,
    /// This operand.
    Operand(ValueId),
}

/// Packed rows of queries, in a column, and of keys, in a row.
#[derive(Clone, Copy)]
struct Packed {
    rows: [Rows; 2],
    starts: ValueId,
}

/// What is known of each packed row, i32 and bool.
#[derive(Clone, Copy)]
struct Rows {
    /// Its sequence; −1 if it is of none.
    sequence: ValueId,
    /// Where it stands in its sequence.
    place: ValueId,
    /// Rows of its sequence.
    length: ValueId,
    /// Whether it is of a sequence.
    real: ValueId,
}

impl Terms {
    /// The values of terms.
    pub(crate) fn values(terms: &[Term]) -> Vec<ValueId> {
        terms.iter().map(|term| term.value).collect()
    }
}

impl Graph {
    /// Pages `[N, S, H, D]` by a table `[B, P]` as `[B, H, P·S, D]`.
    pub(super) fn unpaged(&mut self, pages: ValueId, table: ValueId) -> Result<ValueId> {
        let [_, rows, heads, width] = axes(self.shape(pages));
        let (items, each) = (self.shape(table)[0], self.shape(table)[1]);
        // An entry out of range takes the nearest page; to `gather`, a negative one counts from the end.
        let zero = self.integer(0)?;
        let table = self.max(table, zero)?;
        let picked = self.gather(pages, table, 0)?;
        let rows = self.reshape(picked, [items, each * rows, heads, width])?;
        self.permute(rows, &[0, 2, 1, 3])
    }

    /// `q·kᵀ`, each query head with its key head, and that times the scale.
    pub(crate) fn scaled_scores(&mut self, q: ValueId, k: ValueId, op: &Attention) -> Result<[ValueId; 2]> {
        let [b, hq, tq, d] = axes(self.shape(q));
        let [_, hkv, tk, _] = axes(self.shape(k));
        let product = if hq == hkv {
            self.matmul_transposed(q, k)?
        } else {
            let q = self.reshape(q, [b, hkv, hq / hkv, tq, d])?;
            let k = self.reshape(k, [b, hkv, 1, tk, d])?;
            let product = self.matmul_transposed(q, k)?;
            self.reshape(product, [b, hq, tq, tk])?
        };
        let scale = self.scalar(op.scale_for(d), product)?;
        Ok([product, self.mul(product, scale)?])
    }

    /// The scores after the softcap, if there is one.
    pub(crate) fn capped_scores(&mut self, scores: ValueId, op: &Attention) -> Result<ValueId> {
        let Some(cap) = op.softcap else { return Ok(scores) };
        let c = self.scalar(cap.into(), scores)?;
        let ratio = self.div(scores, c)?;
        let bent = self.tanh(ratio)?;
        self.mul(c, bent)
    }

    /// The scores with what is added, and that with −inf where a key is not seen.
    pub(crate) fn masked_scores(
        &mut self,
        scores: ValueId,
        added: &[ValueId],
        seen: &[ValueId],
    ) -> Result<[ValueId; 2]> {
        let biased = added.iter().try_fold(scores, |sum, &term| self.add(sum, term))?;
        let Some((&first, others)) = seen.split_first() else { return Ok([biased; 2]) };
        let seen = others.iter().try_fold(first, |all, &part| self.binary(Binary::And, all, part))?;
        let hidden = self.scalar(f64::NEG_INFINITY, biased)?;
        Ok([biased, self.select(seen, biased, hidden)?])
    }

    /// The softmax of the scores; with sinks, of those and the sink, less its weight.
    pub(crate) fn weights_of(&mut self, masked: ValueId, operands: &[(A, ValueId)]) -> Result<ValueId> {
        let Some(&(_, sinks)) = operands.iter().find(|(kind, _)| *kind == A::Sinks) else {
            return self.softmax(masked, -1);
        };
        let [b, hq, tq, tk] = axes(self.shape(masked));
        let sinks = self.cast(sinks, self.dtype(masked))?;
        let sinks = self.reshape(sinks, [hq, 1, 1])?;
        let sinks = self.broadcast(sinks, [b, hq, tq, 1])?;
        let all = self.concat(&[masked, sinks], -1)?;
        let weights = self.softmax(all, -1)?;
        self.slice(weights, 3, 0, tk)
    }

    /// `weights·v`, each query head with its key head.
    pub(crate) fn weighted_values(&mut self, weights: ValueId, v: ValueId) -> Result<ValueId> {
        let [b, hq, tq, tk] = axes(self.shape(weights));
        let [_, hkv, _, dv] = axes(self.shape(v));
        if hq == hkv {
            return self.matmul(weights, v);
        }
        let weights = self.reshape(weights, [b, hkv, hq / hkv, tq, tk])?;
        let v = self.reshape(v, [b, hkv, 1, tk, dv])?;
        let product = self.matmul(weights, v)?;
        self.reshape(product, [b, hq, tq, dv])
    }

    /// The terms of attention over q `[B, Hq, Tq, D]` and k `[B, Hkv, Tk, D]`. A kind of operand may be there several times:
    /// then each has a term of its own.
    ///
    /// # Errors
    /// If there is an operand of packed sequences or of functions.
    pub(crate) fn score_terms(
        &mut self,
        [q, k]: [ValueId; 2],
        op: &Attention,
        operands: &[(A, ValueId)],
    ) -> Result<Terms> {
        let (dtype, [tq, tk]) = (self.dtype(q), [q, k].map(|v| self.shape(v)[2]));
        let mut terms = Terms::default();
        let mut distance = None;
        let packed = self.packed_rows([tq, tk], operands)?;
        if let Some(Packed { rows: [own, keys], starts }) = packed {
            let same = self.binary(Binary::Equal, own.sequence, keys.sequence)?;
            let value = self.binary(Binary::And, same, own.real)?;
            terms.seen.push(Term { value, reason: Reason::Operand(starts) });
        }
        if op.causal {
            let distance = self.distance(&mut distance, [tq, tk], op, operands)?;
            let value = self.compared(distance, Binary::LessEqual, 0)?;
            terms.seen.push(Term { value, reason: Reason::Causal });
        }
        let left = op.window.left.map(|left| (Binary::GreaterEqual, -i64::from(left)));
        let right = op.window.right.map(|right| (Binary::LessEqual, i64::from(right)));
        let mut inside = None;
        for (side, edge) in left.into_iter().chain(right) {
            let distance = self.distance(&mut distance, [tq, tk], op, operands)?;
            let value = self.compared(distance, side, edge)?;
            inside = Some(match inside {
                Some(other) => self.binary(Binary::And, other, value)?,
                None => value,
            });
        }
        terms.seen.extend(inside.map(|value| Term { value, reason: Reason::Window }));
        for &(kind, operand) in operands {
            let reason = Reason::Operand(operand);
            match kind {
                A::Mask => {
                    let value = self.extended(operand, tk, 0.0)?;
                    terms.seen.push(Term { value, reason });
                }
                A::KeyLengths | A::QueryLengths if let Some(packed) = packed => {
                    let rows = packed.rows[usize::from(kind == A::KeyLengths)];
                    let lengths = self.gather(operand, rows.sequence, 0)?;
                    let value = self.binary(Binary::Less, rows.place, lengths)?;
                    terms.seen.push(Term { value, reason });
                }
                A::KeyLengths | A::QueryLengths => {
                    let lengths = self.per_item(operand)?;
                    let at = if kind == A::KeyLengths { self.positions([tk])? } else { self.positions([tq, 1])? };
                    let value = self.binary(Binary::Less, at, lengths)?;
                    terms.seen.push(Term { value, reason });
                }
                A::Bias => {
                    let bias = self.extended(operand, tk, f64::NEG_INFINITY)?;
                    let value = self.cast(bias, dtype)?;
                    terms.added.push(Term { value, reason });
                }
                A::Slopes => {
                    let distance = self.distance(&mut distance, [tq, tk], op, operands)?;
                    let distance = self.cast(distance, dtype)?;
                    let heads = self.shape(operand)[0];
                    let slopes = self.reshape(operand, [heads, 1, 1])?;
                    let slopes = self.cast(slopes, dtype)?;
                    let value = self.mul(slopes, distance)?;
                    terms.added.push(Term { value, reason });
                }
                // In the distance, in the weights, in k, and before this loop.
                A::Offsets | A::Sinks | A::BlockTable | A::QueryOffsets | A::KeyOffsets => {}
                A::ScoreTable | A::MaskTable => {
                    return Err(Error::op("attention", format!("`{}` can't be written out", kind.name())));
                }
            }
        }
        Ok(terms)
    }

    /// `j − (i + offset)`, i32, of rank 2 or `[B, 1, Tq, Tk]`.
    pub(crate) fn distances(
        &mut self,
        [q, k]: [ValueId; 2],
        op: &Attention,
        operands: &[(A, ValueId)],
    ) -> Result<ValueId> {
        let lengths = [q, k].map(|v| self.shape(v)[2]);
        self.distance(&mut None, lengths, op, operands)
    }

    /// i32 `[…, Tq, Tk]`: `j − (i + offset)`, made once.
    fn distance(
        &mut self,
        made: &mut Option<ValueId>,
        [tq, tk]: [usize; 2],
        op: &Attention,
        operands: &[(A, ValueId)],
    ) -> Result<ValueId> {
        if let Some(distance) = *made {
            return Ok(distance);
        }
        let (i, j, offset) = match self.packed_rows([tq, tk], operands)? {
            Some(packed) => {
                let [own, keys] = packed.rows;
                (own.place, keys.place, self.packed_offset(packed, op, operands)?)
            }
            None => (self.positions([tq, 1])?, self.positions([tk])?, self.offset([tq, tk], op, operands)?),
        };
        let own = self.add(i, offset)?;
        let distance = self.sub(j, own)?;
        *made = Some(distance);
        Ok(distance)
    }

    /// i32: where query 0 stands among the keys, of rank 0 or `[B, 1, 1, 1]`.
    fn offset(&mut self, [tq, tk]: [usize; 2], op: &Attention, operands: &[(A, ValueId)]) -> Result<ValueId> {
        let given = |kind| operands.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value);
        let far = i64::from(FARTHEST);
        match op.align {
            Align::TopLeft => self.integer(0),
            Align::BottomRight => {
                let mut length = |kind, whole: usize| match given(kind) {
                    Some(lengths) => self.held(lengths, [0, whole as i64]),
                    None => self.integer(whole as i64),
                };
                let (keys, queries) = (length(A::KeyLengths, tk)?, length(A::QueryLengths, tq)?);
                self.sub(keys, queries)
            }
            Align::Offset(offset) => self.integer(i64::from(offset).clamp(-far, far)),
            Align::PerItem => match given(A::Offsets) {
                Some(offsets) => self.held(offsets, [-far, far]),
                None => self.integer(0),
            },
        }
    }

    /// Where the rows of packed queries and keys are; `None` if they are not packed.
    fn packed_rows(&mut self, [tq, tk]: [usize; 2], operands: &[(A, ValueId)]) -> Result<Option<Packed>> {
        let given = |kind| operands.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value);
        let (Some(own), Some(keys)) = (given(A::QueryOffsets), given(A::KeyOffsets)) else { return Ok(None) };
        let rows = [self.rows_of(own, &[tq, 1], tq)?, self.rows_of(keys, &[tk], tk)?];
        Ok(Some(Packed { rows, starts: own }))
    }

    /// Of each of `count` packed rows, in a shape: its sequence, and its place in it.
    fn rows_of(&mut self, starts: ValueId, shape: &[usize], count: usize) -> Result<Rows> {
        let sequences = self.shape(starts)[0] - 1;
        let (zero, end) = (self.integer(0)?, self.integer(count as i64)?);
        let starts = self.max(starts, zero)?;
        let starts = self.min(starts, end)?;
        let row = self.positions([count, 1])?;
        // As many sequences have ended before a row as there are ends up to it.
        let ends = self.slice(starts, 0, 1, sequences + 1)?;
        let ended = self.binary(Binary::LessEqual, ends, row)?;
        let ended = self.cast(ended, DType::I32)?;
        let sequence = self.reduce(Reduce::Sum, ended, &[-1], false)?;
        let first = self.gather(starts, sequence, 0)?;
        let row = self.reshape(row, [count])?;
        let place = self.sub(row, first)?;
        let all = self.integer(sequences as i64)?;
        let before_end = self.binary(Binary::Less, sequence, all)?;
        let behind_start = self.binary(Binary::GreaterEqual, place, zero)?;
        let real = self.binary(Binary::And, before_end, behind_start)?;
        let one = self.integer(1)?;
        let next = self.add(sequence, one)?;
        let next = self.gather(starts, next, 0)?;
        let length = self.sub(next, first)?;
        // Rows before the first sequence and behind the last are of none.
        let none = self.integer(-1)?;
        let sequence_or_none = self.select(real, sequence, none)?;
        let mut shaped = |value: ValueId| self.reshape(value, shape);
        Ok(Rows {
            sequence: shaped(sequence_or_none)?,
            place: shaped(place)?,
            length: shaped(length)?,
            real: shaped(real)?,
        })
    }

    /// i32 `[Tq, 1]`: where query 0 of a row's sequence stands among the sequence's keys.
    fn packed_offset(&mut self, packed: Packed, op: &Attention, operands: &[(A, ValueId)]) -> Result<ValueId> {
        let given = |kind| operands.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value);
        let [own, _] = packed.rows;
        let far = i64::from(FARTHEST);
        match op.align {
            Align::TopLeft => self.integer(0),
            Align::BottomRight => {
                let keys = given(A::KeyOffsets).map_or_else(|| self.integer(0), Ok)?;
                let one = self.integer(1)?;
                let next = self.add(own.sequence, one)?;
                let (first, next) = (self.gather(keys, own.sequence, 0)?, self.gather(keys, next, 0)?);
                let all = self.sub(next, first)?;
                let mut length = |kind, whole: ValueId| match given(kind) {
                    Some(lengths) => {
                        let lengths = self.gather(lengths, own.sequence, 0)?;
                        let zero = self.integer(0)?;
                        let lengths = self.max(lengths, zero)?;
                        self.min(lengths, whole)
                    }
                    None => Ok(whole),
                };
                let (keys, queries) = (length(A::KeyLengths, all)?, length(A::QueryLengths, own.length)?);
                self.sub(keys, queries)
            }
            Align::Offset(offset) => self.integer(i64::from(offset).clamp(-far, far)),
            Align::PerItem => match given(A::Offsets) {
                Some(offsets) => {
                    let (least, most) = (self.integer(-far)?, self.integer(far)?);
                    let offsets = self.gather(offsets, own.sequence, 0)?;
                    let offsets = self.max(offsets, least)?;
                    self.min(offsets, most)
                }
                None => self.integer(0),
            },
        }
    }

    /// i32 `[B]` as `[B, 1, 1, 1]`, held between two numbers.
    fn held(&mut self, values: ValueId, [least, most]: [i64; 2]) -> Result<ValueId> {
        let values = self.per_item(values)?;
        let (least, most) = (self.integer(least)?, self.integer(most)?);
        let values = self.max(values, least)?;
        self.min(values, most)
    }

    /// Where a distance is on this side of an edge.
    fn compared(&mut self, distance: ValueId, side: Binary, edge: i64) -> Result<ValueId> {
        let edge = self.integer(edge)?;
        self.binary(side, distance, edge)
    }

    /// A mask or bias whose last axis is shorter than the keys, with `hidden` past its end.
    fn extended(&mut self, value: ValueId, keys: usize, hidden: f64) -> Result<ValueId> {
        let shape = self.shape(value);
        let Some(columns) = short_of(keys, shape) else { return Ok(value) };
        let mut frame = vec![(0, 0); shape.rank()];
        frame[shape.rank() - 1].1 = keys - columns;
        self.pad(value, &frame, hidden)
    }

    /// i32: 0, 1, 2, … in a shape.
    fn positions<const N: usize>(&mut self, shape: [usize; N]) -> Result<ValueId> {
        let count = shape.iter().product::<usize>() as i32;
        self.constant(Tensor::new(shape, (0..count).collect::<Vec<_>>())?)
    }

    fn per_item(&mut self, value: ValueId) -> Result<ValueId> {
        let items = self.shape(value)[0];
        self.reshape(value, [items, 1, 1, 1])
    }

    fn integer(&mut self, value: i64) -> Result<ValueId> {
        let value = value.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        self.constant(Tensor::new(Shape::default(), vec![value])?)
    }
}

fn axes(shape: &Shape) -> [usize; 4] {
    [shape[0], shape[1], shape[2], shape[3]]
}
