//! Attention over any leading axes, as views of `[B, H, T, D]`.

use super::{Attention, AttentionOperand, AttentionResults, Extent, Graph, Op, ValueId};
use crate::{Error, Result, Shape};

const OP: &str = "attention";

/// q, k, v and the further operands as [`Op::Attention`] takes them, and the axes that its results have before that.
pub(super) struct Led {
    pub(super) inputs: Vec<ValueId>,
    /// The axes before T that out has, and those before the heads, which the status has. `None` if they are `[B, H]` and `[B]`.
    leading: Option<[Shape; 2]>,
}

impl Led {
    /// A result `[B, H, …]` with the axes that q, k and v had.
    pub(super) fn back(&self, g: &mut Graph, result: ValueId) -> Result<ValueId> {
        self.shaped(g, result, 2, 0)
    }

    /// A result `[B, …]` likewise.
    fn back_of_items(&self, g: &mut Graph, result: ValueId) -> Result<ValueId> {
        self.shaped(g, result, 1, 1)
    }

    fn shaped(&self, g: &mut Graph, result: ValueId, axes: usize, which: usize) -> Result<ValueId> {
        let Some(leading) = &self.leading else { return Ok(result) };
        let shape: Shape = [&leading[which][..], &g.shape(result)[axes..]].concat().into();
        g.reshape(result, shape)
    }
}

/// An attention, whose results get the axes that q, k and v had as they are asked for.
pub(super) struct Attended {
    led: Led,
    outputs: Vec<ValueId>,
}

impl Attended {
    pub(super) fn out(&self, g: &mut Graph) -> Result<ValueId> {
        self.led.back(g, self.outputs[0])
    }

    pub(super) fn lse(&self, g: &mut Graph) -> Result<ValueId> {
        self.led.back(g, self.outputs[1])
    }

    pub(super) fn status(&self, g: &mut Graph) -> Result<ValueId> {
        self.led.back_of_items(g, self.outputs[2])
    }

    pub(super) fn results(&self, g: &mut Graph) -> Result<AttentionResults> {
        Ok(AttentionResults { out: self.out(g)?, lse: self.lse(g)?, status: self.status(g)? })
    }
}

impl Graph {
    /// Appends attention over q, k and v of any leading axes.
    pub(super) fn push_attention(&mut self, op: Attention, inputs: &[ValueId]) -> Result<Attended> {
        let led = self.led(&op, inputs)?;
        let outputs = self.push(Op::Attention(op), &led.inputs)?;
        Ok(Attended { led, outputs })
    }

    /// q `[…, Hq, Tq, D]`, k `[…, Hkv, Tk, D]` and v `[…, Hkv, Tk, Dv]`, whose axes before the heads broadcast, as views of
    /// four axes; the other operands accordingly. What has its four axes already, is packed or paged stays as it is.
    pub(super) fn led(&mut self, op: &Attention, inputs: &[ValueId]) -> Result<Led> {
        let as_it_is = Led { inputs: inputs.to_vec(), leading: None };
        let (Some(&[q, k, v]), false) = (inputs.first_chunk(), op.is_packed() || op.is_paged()) else {
            return Ok(as_it_is);
        };
        let shapes = [q, k, v].map(|value| self.shape(value).clone());
        if shapes.iter().any(|shape| shape.rank() < 2)
            || shapes.iter().all(|shape| shape.rank() == 4 && shape[0] == shapes[0][0])
        {
            return Ok(as_it_is);
        }
        let items = self.batch_of(&shapes)?;
        let count = items.checked_elements(OP)?;
        let mut inputs = Vec::with_capacity(as_it_is.inputs.len());
        for (value, shape) in [q, k, v].into_iter().zip(&shapes) {
            let one = [heads_of(shape), shape[shape.rank() - 2], shape[shape.rank() - 1]];
            let own = self.reshaped(value, [&batch(shape)[..], &one].concat().into())?;
            let whole = self.stretched(own, [&items[..], &one].concat().into())?;
            inputs.push(self.reshaped(whole, [&[count][..], &one].concat().into())?);
        }
        for (&kind, &value) in op.operands.iter().zip(&as_it_is.inputs[3..]) {
            inputs.push(self.led_operand(kind, value, &items, count)?);
        }
        let has_heads = shapes.iter().any(|shape| shape.rank() > 2);
        let heads = has_heads.then(|| heads_of(&shapes[0]));
        let leading = items.iter().copied().chain(heads).collect();
        Ok(Led { inputs, leading: Some([leading, items]) })
    }

    /// The axes before the heads, broadcast.
    fn batch_of(&self, shapes: &[Shape; 3]) -> Result<Shape> {
        let [q, k, v] = shapes;
        let both = batch(q).broadcast(&batch(k)).and_then(|both| both.broadcast(&batch(v)));
        both.ok_or_else(|| {
            let what = if shapes.iter().all(|shape| shape.rank() == 4) {
                "the batch sizes differ"
            } else {
                "the axes before the heads do not broadcast"
            };
            Error::op(OP, format!("`q` is {q}, `k` is {k}, `v` is {v}: {what}"))
        })
    }

    /// An operand after v for `count` items that were `items`.
    fn led_operand(&mut self, kind: AttentionOperand, value: ValueId, items: &Shape, count: usize) -> Result<ValueId> {
        let shape = self.shape(value).clone();
        let misfit = |expected: String| Err(Error::shape(OP, kind.name(), &shape, expected));
        match kind.extent() {
            Extent::Scores => {
                // Heads, queries and keys broadcast as ever.
                let Some(at) = shape.rank().checked_sub(3) else { return Ok(value) };
                let (own, scores) = (Shape::from(&shape[..at]), &shape[at..]);
                if !own.broadcasts_to(items) {
                    return misfit(format!("one whose axes before the heads broadcast to {items}"));
                }
                if own.elements() == Some(1) || items.elements() == Some(0) && own.elements() != Some(0) {
                    return self.reshaped(value, [&[1][..], scores].concat().into());
                }
                let whole = self.stretched(value, [&items[..], scores].concat().into())?;
                self.reshaped(whole, [&[count][..], scores].concat().into())
            }
            Extent::Items => {
                let is_one = items.rank() == 0 && shape[..] == [1];
                if !(is_one || shape.broadcasts_to(items)) {
                    return misfit(format!("one that broadcasts to the axes before the heads, {items}"));
                }
                let whole = if shape.rank() > items.rank() { value } else { self.stretched(value, items.clone())? };
                self.reshaped(whole, [count].into())
            }
            Extent::Heads | Extent::Starts | Extent::Pages | Extent::Table => Ok(value),
        }
    }

    fn stretched(&mut self, value: ValueId, shape: Shape) -> Result<ValueId> {
        if self.shape(value) == &shape { Ok(value) } else { self.broadcast(value, shape) }
    }

    fn reshaped(&mut self, value: ValueId, shape: Shape) -> Result<ValueId> {
        if self.shape(value) == &shape { Ok(value) } else { self.reshape(value, shape) }
    }
}

/// The axes before the heads.
fn batch(shape: &Shape) -> Shape {
    shape[..shape.rank().saturating_sub(3)].into()
}

/// The axis before the last two; 1 if there is none.
fn heads_of(shape: &Shape) -> usize {
    shape.rank().checked_sub(3).map_or(1, |at| shape[at])
}
