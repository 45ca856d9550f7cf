//! How features are split into heads and put together again.

use super::site::{Found, Site};
use crate::{
    Tensor, ValueId,
    diff::{expand::Attended, rebuild::Edit},
    graph::Op,
};

/// `[B, T, E]` behind the heads `[B, H, T, D]`, if they are split the usual way.
fn split_from(site: &Site<'_>, heads: ValueId) -> Option<ValueId> {
    let permute = site.g.definition(heads);
    let turned = matches!(&permute.op, Op::Permute { order } if order[..] == [0, 2, 1, 3]);
    let reshape = if turned { site.g.definition(permute.inputs[0]) } else { return None };
    let here = site.has(heads) && site.has(permute.inputs[0]);
    (here && matches!(reshape.op, Op::Reshape { .. })).then(|| reshape.inputs[0])
}

/// `[B, T, E]` that the heads of the context are merged to.
fn merged_to(site: &Site<'_>, context: ValueId) -> Option<ValueId> {
    let next = |v: ValueId| site.users[v.index()].first().map(|&user| site.g.node(user).outputs[0]);
    let turned = next(context)?;
    let merged = next(turned)?;
    let is = |v: ValueId, f: fn(&Op) -> bool| site.has(v) && f(&site.g.definition(v).op);
    let usual = is(turned, |op| matches!(op, Op::Permute { order } if order[..] == [0, 2, 1, 3]))
        && is(merged, |op| matches!(op, Op::Reshape { .. }));
    usual.then_some(merged)
}

#[derive(Clone, Copy)]
enum Split {
    /// `[B, T, E]` read as `[B, H, T, D]`.
    Direct,
    /// Feature `d·H + h` belongs to head h.
    Interleaved,
}

fn split(v: ValueId, from: ValueId, how: Split) -> Edit {
    Edit::new(v, move |r| {
        let x = r.value(from)?;
        let shape = r.source().shape(v).clone();
        let [b, h, t, d] = [shape[0], shape[1], shape[2], shape[3]];
        match how {
            Split::Direct => r.g.reshape(x, [b, h, t, d]),
            Split::Interleaved => {
                let x = r.g.reshape(x, [b, t, d, h])?;
                r.g.permute(x, &[0, 3, 1, 2])
            }
        }
    })
}

fn merge(v: ValueId, context: ValueId, how: Split) -> Edit {
    Edit::new(v, move |r| {
        let mut x = r.value(context)?;
        let shape = r.source().shape(v).clone();
        if let Split::Interleaved = how {
            x = r.g.permute(x, &[0, 2, 3, 1])?;
        }
        r.g.reshape(x, shape)
    })
}

pub(super) fn add(site: &Site<'_>, a: &Attended, found: &mut Found) {
    let merged = merged_to(site, a.context);
    let back = "swap the axes back to [B, T, H, D] before the reshape to [B, T, E]";
    if let Some(merged) = merged {
        found.add("heads not transposed back", back, vec![merge(merged, a.context, Split::Direct)]);
        let hint = "feature h·D + d of the merged row is feature d of head h";
        found.add("heads interleaved at the merge", hint, vec![merge(merged, a.context, Split::Interleaved)]);
    }
    let sources = [a.q, a.k, a.v].map(|v| split_from(site, v).map(|from| (v, from)));
    let splits: Vec<(ValueId, ValueId)> = sources.into_iter().flatten().collect();
    if splits.is_empty() {
        return;
    }
    let all = |how: Split| splits.iter().map(|&(v, from)| split(v, from, how)).collect::<Vec<_>>();
    let first = "reshape to [B, T, H, D] first, then swap T and H: a reshape to [B, H, T, D] mixes tokens and heads";
    found.add("heads split without a transpose", first, all(Split::Direct));
    let order = "head h has the features h·D to (h + 1)·D: reshape to [B, T, H, D], not [B, T, D, H]";
    found.add("heads interleaved at the split", order, all(Split::Interleaved));
    let Some(merged) = merged else { return };
    for (name, hint, how) in [
        ("heads split and merged without a transpose", first, Split::Direct),
        ("heads interleaved at the split and the merge", order, Split::Interleaved),
    ] {
        let mut edits = all(how);
        edits.push(merge(merged, a.context, how));
        found.add(name, hint, edits);
    }
    if splits.len() == 3 {
        other_numbers(site, a, &splits, merged, found);
    }
}

/// Another number of heads.
fn other_numbers(site: &Site<'_>, a: &Attended, splits: &[(ValueId, ValueId)], merged: ValueId, found: &mut Found) {
    let [b, heads, tq, tk] = a.visible.sizes;
    let width = heads * site.g.shape(a.q)[3];
    let table = a.visible.table();
    // One head's table serves all if all are alike.
    let alike =
        (0..b * heads * tq * tk).all(|e| table[e] == table[e / (heads * tq * tk) * heads * tq * tk + e % (tq * tk)]);
    if !alike || site.g.shape(a.k)[1] != heads {
        return;
    }
    let one: Vec<bool> = (0..b).flat_map(|item| table[item * heads * tq * tk..][..tq * tk].to_vec()).collect();
    for count in [1, heads / 2, heads * 2] {
        if count == 0 || count == heads || !width.is_multiple_of(count) {
            continue;
        }
        let mut edits: Vec<Edit> = splits
            .iter()
            .map(|&(v, from)| {
                Edit::new(v, move |r| {
                    let x = r.value(from)?;
                    r.g.split_heads(x, count)
                })
            })
            .collect();
        let (product, biased, one) = (a.product, a.biased, one.clone());
        edits.push(Edit::new(a.scores, move |r| {
            let product = r.value(product)?;
            let factor = r.g.scalar(1.0 / ((width / count) as f64).sqrt(), product)?;
            r.g.mul(product, factor)
        }));
        edits.push(Edit::new(a.masked, move |r| {
            let s = r.value(biased)?;
            let seen = r.g.constant(Tensor::new([b, 1, tq, tk], one.clone())?)?;
            let hidden = r.g.scalar(f64::NEG_INFINITY, s)?;
            r.g.select(seen, s, hidden)
        }));
        let context = a.context;
        edits.push(Edit::new(merged, move |r| {
            let x = r.value(context)?;
            r.g.merge_heads(x)
        }));
        let s = if count == 1 { "" } else { "s" };
        found.alone(format!("{count} head{s}"), format!("there are {heads} heads here"), edits);
    }
}
