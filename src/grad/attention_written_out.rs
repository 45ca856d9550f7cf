//! Attention whose heads are too wide for the fused kernel, by its weights P. With `Δ_i = Σ_c dout_ic·out_ic − dlse_i`:
//!
//! ```text
//! dv = Pᵀ·dout        dS = P∘(dout·vᵀ − Δ)        dq = scale·dT·k        dk = scale·dTᵀ·q        dT = dS∘(1 − (softcap(s)/c)²)
//! dbias = dS summed over what it was broadcast over        dslope[h] = Σ dS·(j − (i + offset))        dsink[h] = −Σ_i p_sink·Δ_i
//! ```
//!
//! A row that sees nothing has P = 0: it gets and gives nothing. Packed sequences have the weights of one item, most of which are 0.

use super::{
    pointwise::times,
    step::{Step, wide},
};
use crate::{
    Graph, Result, Shape, ValueId,
    graph::{Attention, AttentionOperand as A, Reduce, Terms},
};

/// Scores and weights are stored, in f32.
pub(super) fn attention(step: &mut Step<'_>, op: &Attention) -> Result<()> {
    if op.has_functions() {
        return Err(step.refused("its heads are too wide to be taken with functions of the mask"));
    }
    let (dout, dlse) = (step.grad()?, step.grad_of(1)?);
    if dout.is_none() && dlse.is_none() {
        return Ok(());
    }
    let [q, k, v] = [step.input(0)?, step.input(1)?, step.input(2)?];
    let pack = Pack(op.is_packed());
    let [q, k, v] = [pack.one_item(step.g, q)?, pack.one_item(step.g, k)?, pack.one_item(step.g, v)?];
    let dout = dout.map(|dout| pack.one_item(step.g, dout)).transpose()?;
    let dlse = dlse.map(|dlse| pack.one_item(step.g, dlse)).transpose()?;
    let operands: Vec<(A, ValueId)> = op.operands.iter().copied().zip(step.inputs[3..].iter().copied()).collect();
    let g = &mut *step.g;
    let [_, scaled] = g.scaled_scores(q, k, op)?;
    let capped = g.capped_scores(scaled, op)?;
    let Terms { added, seen } = g.score_terms([q, k], op, &operands)?;
    let [_, masked] = g.masked_scores(capped, &Terms::values(&added), &Terms::values(&seen))?;
    let weights = g.weights_of(masked, &operands)?;
    let heads = Heads::of(g, q, k);

    // Δ, as a column.
    let mut delta = None;
    if let Some(dlse) = dlse {
        let down = g.neg(dlse)?;
        delta = Some(g.reshape(down, heads.column())?);
    }
    if let Some(dout) = dout {
        let out = wide(g, step.outputs[0])?;
        let out = pack.one_item(g, out)?;
        let along = g.mul(dout, out)?;
        let along = g.reduce(Reduce::Sum, along, &[-1], true)?;
        delta = Some(match delta {
            Some(other) => g.add(along, other)?,
            None => along,
        });
    }
    let Some(delta) = delta else { return Ok(()) };

    if let (Some(dout), true) = (dout, step.wanted[2]) {
        let dv = heads.by_key(step.g, weights, dout)?;
        let dv = pack.end_to_end(step.g, dv)?;
        step.give(2, dv)?;
    }
    let g = &mut *step.g;
    let inner = match dout {
        Some(dout) => {
            let along = heads.scores(g, dout, v)?;
            g.sub(along, delta)?
        }
        None => g.neg(delta)?,
    };
    let ds = g.mul(weights, inner)?;
    for (at, &(kind, _)) in operands.iter().enumerate() {
        let operand = at + 3;
        if !step.wanted[operand] {
            continue;
        }
        match kind {
            A::Bias => {
                // A bias that is shorter than Tk masks the keys past its end.
                let columns = step.shape(operand).last().copied().unwrap_or(1);
                let part = if columns > 1 && columns < heads.keys { step.g.slice(ds, -1, 0, columns)? } else { ds };
                step.give(operand, part)?;
            }
            A::Slopes => {
                let distance = step.g.distances([q, k], op, &operands)?;
                let distance = wide(step.g, distance)?;
                let along = step.g.mul(ds, distance)?;
                let sum = step.g.reduce(Reduce::Sum, along, &[0, 2, 3], false)?;
                step.give(operand, sum)?;
            }
            A::Sinks => {
                // The sink's weight in each row.
                let (sinks, lse) = (step.input(operand)?, step.outputs[1]);
                let g = &mut *step.g;
                let sinks = g.reshape(sinks, [heads.heads, 1, 1])?;
                let lse = pack.one_item(g, lse)?;
                let lse = g.reshape(lse, heads.column())?;
                let apart = g.sub(sinks, lse)?;
                let taken = g.exp(apart)?;
                let share = g.mul(taken, delta)?;
                let share = g.neg(share)?;
                let sum = g.reduce(Reduce::Sum, share, &[0, 2, 3], false)?;
                step.give(operand, sum)?;
            }
            A::Mask
            | A::KeyLengths
            | A::QueryLengths
            | A::Offsets
            | A::QueryOffsets
            | A::KeyOffsets
            | A::BlockTable
            | A::ScoreTable
            | A::MaskTable => {}
        }
    }
    if !(step.wanted[0] || step.wanted[1]) {
        return Ok(());
    }
    let g = &mut *step.g;
    let bent = match op.softcap {
        Some(cap) => {
            let ratio = times(g, capped, 1.0 / f64::from(cap))?;
            let square = g.mul(ratio, ratio)?;
            let one = g.scalar(1.0, square)?;
            let slope = g.sub(one, square)?;
            g.mul(ds, slope)?
        }
        None => ds,
    };
    let dt = times(g, bent, op.scale_for(heads.width))?;
    if step.wanted[0] {
        let dq = step.g.weighted_values(dt, k)?;
        let dq = pack.end_to_end(step.g, dq)?;
        step.give(0, dq)?;
    }
    if step.wanted[1] {
        let dk = heads.by_key(step.g, dt, q)?;
        let dk = pack.end_to_end(step.g, dk)?;
        step.give(1, dk)?;
    }
    Ok(())
}

/// Whether sequences are packed, `[ΣT, H, …]`: written out, they are those of one item, `[1, H, ΣT, …]`.
#[derive(Clone, Copy)]
struct Pack(bool);

impl Pack {
    fn one_item(self, g: &mut Graph, value: ValueId) -> Result<ValueId> {
        if !self.0 {
            return Ok(value);
        }
        let value = self.swapped(g, value)?;
        let shape = g.shape(value).to_vec();
        g.reshape(value, [&[1], &shape[..]].concat())
    }

    fn end_to_end(self, g: &mut Graph, value: ValueId) -> Result<ValueId> {
        if !self.0 {
            return Ok(value);
        }
        let shape = g.shape(value)[1..].to_vec();
        let value = g.reshape(value, shape)?;
        self.swapped(g, value)
    }

    /// With the first two axes swapped.
    fn swapped(self, g: &mut Graph, value: ValueId) -> Result<ValueId> {
        let mut order: Vec<usize> = (0..g.shape(value).rank()).collect();
        order.swap(0, 1);
        g.permute(value, &order)
    }
}

/// Query heads in groups, each with a head of keys.
struct Heads {
    items: usize,
    heads: usize,
    key_heads: usize,
    rows: usize,
    keys: usize,
    width: usize,
}

impl Heads {
    fn of(g: &Graph, q: ValueId, k: ValueId) -> Self {
        let (q, k) = (g.shape(q), g.shape(k));
        Heads { items: q[0], heads: q[1], key_heads: k[1], rows: q[2], keys: k[2], width: q[3] }
    }

    fn column(&self) -> Shape {
        [self.items, self.heads, self.rows, 1].into()
    }

    /// `a·bᵀ`, of a row of a query head and a row of its key head: `[B, Hq, Tq, Tk]`.
    fn scores(&self, g: &mut Graph, a: ValueId, b: ValueId) -> Result<ValueId> {
        if self.heads == self.key_heads {
            return g.matmul_transposed(a, b);
        }
        let a = self.grouped(g, a)?;
        let shape = g.shape(b).clone();
        let b = g.reshape(b, [shape[0], shape[1], 1, shape[2], shape[3]])?;
        let product = g.matmul_transposed(a, b)?;
        g.reshape(product, [self.items, self.heads, self.rows, self.keys])
    }

    /// `wᵀ·a`, summed over the query heads of each key head: `[B, Hkv, Tk, …]`.
    fn by_key(&self, g: &mut Graph, w: ValueId, a: ValueId) -> Result<ValueId> {
        let swapped = g.permute(w, &[0, 1, 3, 2])?;
        let product = g.matmul(swapped, a)?;
        if self.heads == self.key_heads {
            return Ok(product);
        }
        let groups = self.grouped(g, product)?;
        g.reduce(Reduce::Sum, groups, &[2], false)
    }

    /// `[B, Hq, …]` as `[B, Hkv, Hq/Hkv, …]`.
    fn grouped(&self, g: &mut Graph, value: ValueId) -> Result<ValueId> {
        let shape = g.shape(value).to_vec();
        let groups = [self.items, self.key_heads, self.heads / self.key_heads.max(1)];
        g.reshape(value, [&groups[..], &shape[2..]].concat())
    }
}
