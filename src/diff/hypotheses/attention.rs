//! Scale, mask, softmax and the sources of queries, keys and values.

use super::site::{Found, Site};
use crate::{
    Error, Result, Tensor, ValueId,
    diff::{
        expand::Attended,
        rebuild::{Edit, Rebuild},
        visible::Kind,
    },
    graph::Op,
};

pub(super) fn add(site: &Site<'_>, a: &Attended, found: &mut Found) {
    if site.has(a.scores) {
        scales(site, a, found);
    }
    if site.has(a.masked) {
        masks(a, found);
        if site.has(a.weights) {
            late_mask(a, found);
        }
    }
    if site.has(a.weights) {
        softmaxes(a, found);
    }
    sources(site, a, found);
}

fn scales(site: &Site<'_>, a: &Attended, found: &mut Found) {
    let [_, heads, _, size] = [0, 1, 2, 3].map(|axis| site.g.shape(a.q)[axis] as f64);
    let (product, ours) = (a.product, a.scale);
    let mut scaled = |name: &str, hint: &str, scale: f64| {
        if (scale - ours).abs() <= 1e-9 * ours {
            return;
        }
        let edit = Edit::new(a.scores, move |r| {
            let product = r.value(product)?;
            let factor = r.g.scalar(scale, product)?;
            r.g.mul(product, factor)
        });
        found.add(name, hint, vec![edit]);
    };
    scaled("not scaled", "divide q·k by √D (D: the size of one head) before the softmax", 1.0);
    scaled("scaled by √E", "the scale is 1/√D of one head, not 1/√E of the whole width", 1.0 / (heads * size).sqrt());
    scaled(
        "scaled twice",
        "1/√D is applied twice (or as 1/D): scaled_dot_product_attention scales by itself",
        ours * ours,
    );
    scaled("multiplied by √D", "divide by √D instead of multiplying", size.sqrt());
}

/// The mask as some other table, or applied in some other way to the scores.
fn masks(a: &Attended, found: &mut Found) {
    let (visible, biased) = (&a.visible, a.biased);
    let ours = visible.table();
    let with = |table: Vec<bool>, apply: Apply| {
        let sizes = visible.sizes;
        vec![Edit::new(a.masked, move |r| {
            let s = r.value(biased)?;
            let table = Tensor::new(sizes, table.clone())?;
            apply.to(r, s, table)
        })]
    };
    let mut other = |name: String, hint: String, table: Vec<bool>| {
        if table != ours {
            found.add(name, hint, with(table, Apply::Hide(f64::NEG_INFINITY)));
        }
    };
    let all = vec![true; ours.len()];
    let inverted = |table: &[bool]| table.iter().map(|seen| !seen).collect::<Vec<_>>();
    let polarity = "true means masked in nn.MultiheadAttention, but not masked in scaled_dot_product_attention";
    let single = visible.parts.len() == 1;
    if !visible.parts.is_empty() {
        other("mask missing".into(), "no mask arrives at the scores".into(), all.clone());
        other("mask inverted".into(), polarity.into(), inverted(&ours));
    }
    for (i, part) in visible.parts.iter().enumerate() {
        let name = &part.name;
        if !single {
            other(
                format!("{name} missing"),
                format!("{name} does not arrive at the scores"),
                visible.with(i, |_| all.clone()),
            );
            other(format!("{name} inverted"), polarity.into(), visible.with(i, |part| inverted(&part.table)));
        }
        if part.kind != Kind::Padding {
            let turned = visible.with(i, |part| visible.transposed(&part.table));
            other(format!("{name} transposed"), "queries are rows, keys are columns".into(), turned);
        }
        if let Kind::Causal(offsets) = &part.kind {
            let shifted = |by: i64| visible.with(i, |_| visible.causal(|item| offsets[item] + by));
            other(
                "causal mask one key too short".into(),
                "a query must see its own position: j ≤ i, not j < i (triu with diagonal=1, tril with diagonal=0)"
                    .into(),
                shifted(-1),
            );
            other(
                "causal mask one key too long".into(),
                "a query sees the next token: j ≤ i, not j ≤ i + 1".into(),
                shifted(1),
            );
            let [_, _, tq, tk] = visible.sizes;
            for (to, corner) in [(0, "top left"), (tk as i64 - tq as i64, "bottom right")] {
                other(
                    format!("causal mask aligned {corner}"),
                    "with Tq ≠ Tk it matters where query 0 stands among the keys".into(),
                    visible.with(i, |_| visible.causal(|_| to)),
                );
            }
        }
        if part.kind == Kind::Padding {
            let [b, h, tq, tk] = visible.sizes;
            let item = |item: usize| (0..h * tq * tk).map(move |e| item * h * tq * tk + e);
            let last = visible.with(i, |part| (0..b).rev().flat_map(item).map(|e| part.table[e]).collect());
            if b > 1 {
                other(format!("{name} of another item"), "items and their lengths are in another order".into(), last);
            }
        }
    }
    if !visible.parts.iter().any(|part| matches!(part.kind, Kind::Causal(_))) {
        let causal = visible.causal(|_| 0);
        let both = causal.iter().zip(&ours).map(|(a, b)| *a && *b).collect();
        other("causal mask where there is none".into(), "only the decoder's self-attention is causal".into(), both);
    }
    if ours.iter().all(|seen| *seen) {
        return;
    }
    found.add(
        "masked scores set to 0",
        "a masked score is −inf before the softmax; 0 is a score like any other",
        with(ours.clone(), Apply::Hide(0.0)),
    );
    found.add(
        "boolean mask added to the scores",
        "a boolean mask is no number: masked_fill(masked, -inf), or add 0 and -inf",
        with(ours.clone(), Apply::Add(false)),
    );
    found.add(
        "inverted boolean mask added to the scores",
        "a boolean mask is no number: masked_fill(masked, -inf), or add 0 and -inf",
        with(ours.clone(), Apply::Add(true)),
    );
    // With a very negative number in place of −inf, only fully masked rows differ.
    found.add(
        "a finite number instead of −inf",
        "−1e9 is a score like any other: a fully masked row attends to all keys (and in f16 −1e9 is −inf)",
        with(ours.clone(), Apply::Hide(-1e9)),
    );
    found.add("−10 instead of −inf", "e⁻¹⁰ is no 0: use −inf", with(ours.clone(), Apply::Hide(-10.0)));
    found.add(
        "a finite number added instead of −inf",
        "−1e4 (f16) leaves the order of the scores in fully masked rows: use −inf",
        with(ours.clone(), Apply::AddHidden(-1e4)),
    );
    found.add("−10 added instead of −inf", "e⁻¹⁰ is no 0: use −inf", with(ours.clone(), Apply::AddHidden(-10.0)));
}

/// How a mask acts on scores.
#[derive(Clone, Copy)]
enum Apply {
    /// Hidden scores become this.
    Hide(f64),
    /// 1 is added where a key is not masked (or masked, if inverted).
    Add(bool),
    /// This is added to masked scores.
    AddHidden(f64),
}

impl Apply {
    fn to(self, r: &mut Rebuild<'_>, s: ValueId, table: Tensor) -> Result<ValueId> {
        let seen = r.g.constant(table)?;
        let (zero, one) = (r.g.scalar(0.0, s)?, r.g.scalar(1.0, s)?);
        match self {
            Apply::Hide(number) => {
                let number = r.g.scalar(number, s)?;
                r.g.select(seen, s, number)
            }
            Apply::Add(inverted) => {
                let (yes, no) = if inverted { (zero, one) } else { (one, zero) };
                let number = r.g.select(seen, yes, no)?;
                r.g.add(s, number)
            }
            Apply::AddHidden(number) => {
                let number = r.g.scalar(number, s)?;
                let number = r.g.select(seen, zero, number)?;
                r.g.add(s, number)
            }
        }
    }
}

fn late_mask(a: &Attended, found: &mut Found) {
    let table = a.visible.table();
    if table.iter().all(|seen| *seen) {
        return;
    }
    let (biased, weights, sizes) = (a.biased, a.weights, a.visible.sizes);
    let edits = vec![
        Edit::new(a.masked, move |r| r.value(biased)),
        Edit::new(weights, move |r| {
            let w = r.plain(weights)?;
            let seen = r.g.constant(Tensor::new(sizes, table.clone())?)?;
            let zero = r.g.scalar(0.0, w)?;
            r.g.select(seen, w, zero)
        }),
    ];
    found.add(
        "mask after softmax",
        "mask the scores, not the weights: rows must sum to 1 over what may be seen",
        edits,
    );
}

fn softmaxes(a: &Attended, found: &mut Found) {
    let masked = a.masked;
    for (axis, what) in [(2, "queries"), (1, "heads"), (0, "items")] {
        let edit = Edit::new(a.weights, move |r| {
            let s = r.value(masked)?;
            r.g.softmax(s, axis)
        });
        found.add(format!("softmax over the {what}"), "softmax over the keys: the last axis, dim=-1", vec![edit]);
    }
    // −inf times a value is no number, so masked entries are 0 here.
    let (biased, table, sizes) = (a.biased, a.visible.table(), a.visible.sizes);
    let edit = Edit::new(a.weights, move |r| {
        let s = r.value(biased)?;
        Apply::Hide(0.0).to(r, s, Tensor::new(sizes, table.clone())?)
    });
    found.add("softmax missing", "scores are no weights before the softmax", vec![edit]);
}

/// What a query, key or value is projected from: the input of its matmul.
fn projected_from(site: &Site<'_>, of: ValueId) -> Option<ValueId> {
    let mut at = of;
    loop {
        if at != of && !site.has(at) {
            return None;
        }
        let node = site.g.definition(at);
        let by_weight = |is: bool| is && site.is_weight(node.inputs[1]);
        if by_weight(matches!(node.op, Op::Matmul { .. })) {
            return Some(node.inputs[0]);
        }
        let moves = matches!(node.op, Op::Reshape { .. } | Op::Permute { .. } | Op::Slice { .. });
        if !moves && !by_weight(matches!(node.op, Op::Binary { .. })) {
            return None;
        }
        at = node.inputs[0];
    }
}

/// What swapped operands have in common.
const ORDER: &str = "the scores are q·kᵀ, the sum is over v; in_proj_weight is W_q, W_k, W_v from top to bottom";

fn sources(site: &Site<'_>, a: &Attended, found: &mut Found) {
    let swapped =
        |x: ValueId, y: ValueId| vec![Edit::new(x, move |r| r.unedited(y)), Edit::new(y, move |r| r.unedited(x))];
    let reads = |v: ValueId| site.has(v) || site.read.contains(&v);
    let same = |x: ValueId, y: ValueId| reads(x) && reads(y) && site.g.shape(x) == site.g.shape(y);
    if same(a.k, a.v) && site.has(a.product) && site.has(a.context) {
        found.add("keys and values swapped", ORDER, swapped(a.k, a.v));
    }
    if same(a.q, a.k) && site.has(a.product) {
        found.add("queries and keys swapped", ORDER, swapped(a.q, a.k));
    }
    if same(a.q, a.v) && site.has(a.product) && site.has(a.context) {
        found.add("queries and values swapped", ORDER, swapped(a.q, a.v));
    }

    let parts = [("queries", a.q), ("keys", a.k), ("values", a.v)];
    let from = parts.map(|(_, v)| if site.has(v) { projected_from(site, v) } else { None });
    // The weights of one projection on the source of another.
    for (x, y) in [(0, 1), (1, 2), (0, 2)] {
        // From one source, that is the same as swapping what comes of it.
        if let (Some(sx), Some(sy)) = (from[x], from[y])
            && sx != sy
        {
            let (vx, vy) = (parts[x].1, parts[y].1);
            let crossed = |to: ValueId, of: ValueId, own: ValueId, other: ValueId| {
                Edit::new(to, move |r| {
                    let own = r.value(own)?;
                    r.replay(of, other, own)
                })
            };
            found.add(
                format!("weights of {} and {} swapped", parts[x].0, parts[y].0),
                ORDER,
                vec![crossed(vx, vy, sx, sy), crossed(vy, vx, sy, sx)],
            );
        }
    }
    // Another source for one of them, or for keys and values together.
    let [Some(q_from), Some(k_from), Some(v_from)] = from else { return };
    let mut others: Vec<ValueId> = vec![q_from, k_from, v_from];
    others.extend(site.others().into_iter().filter(|&v| site.g.shape(v).rank() == site.g.shape(k_from).rank()));
    others.sort_unstable();
    others.dedup();
    for other in others {
        let called = site.call(other);
        for (what, group) in [
            ("keys and values", vec![(a.k, k_from), (a.v, v_from)]),
            ("keys", vec![(a.k, k_from)]),
            ("values", vec![(a.v, v_from)]),
            ("queries", vec![(a.q, q_from)]),
        ] {
            if group.iter().any(|(_, from)| *from == other)
                || site.depends(other, site.target) && !site.read.contains(&other)
            {
                continue;
            }
            let mut edits: Vec<Edit> = group
                .iter()
                .map(|&(v, from)| {
                    Edit::new(v, move |r| {
                        let other = r.value(other)?;
                        r.replay(v, from, other)
                    })
                })
                .collect();
            edits.push(without_misfit(a));
            found.alone(
                format!("{what} from `{called}`"),
                format!("{what} come from `{}` here", site.call(group[0].1)),
                edits,
            );
        }
    }
}

/// Masks that no longer fit the scores are left out.
fn without_misfit(a: &Attended) -> Edit {
    let (biased, masked, sizes) = (a.biased, a.masked, a.visible.sizes);
    Edit::new(masked, move |r| {
        let s = r.value(biased)?;
        if r.g.shape(s)[..] == sizes {
            return r.plain(masked);
        }
        if r.g.shape(s).rank() != sizes.len() {
            return Err(Error::op("hypothesis", "scores have another rank"));
        }
        Ok(s)
    })
}
