//! Which key each query may see, as a table, part by part: what hypotheses about masks change.

use std::collections::HashSet;

use crate::{
    Graph, Result, Shape, Tensor, ValueId,
    graph::{Attention, AttentionOperand as A, Binary, Extent, Op, Reason, Term, Terms},
};

use super::rebuild::{Known, Part as Built};

/// Every part of a mask over scores `[B, Hq, Tq, Tk]`.
#[derive(Clone, Debug)]
pub(super) struct Visible {
    pub(super) sizes: [usize; 4],
    pub(super) parts: Vec<Part>,
}

/// One reason to mask keys.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// What it is, for messages.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// `[B, Hq, Tq, Tk]`: true = not masked.
    pub(super) table: Vec<bool>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `j ≤ i + offset`, an offset per item.
    Causal(Vec<i64>),
    /// The same keys for all queries and heads.
    Padding,
    Other,
}

impl Visible {
    /// The mask of an attention, and what is added to its scores (finite biases, ALiBi), if anything is.
    pub(super) fn of(g: &Graph, known: &Known, op: &Attention, inputs: &[ValueId]) -> Result<(Self, Option<Tensor>)> {
        let (q, k) = (g.shape(inputs[0]), g.shape(inputs[1]));
        let sizes = [q[0], q[1], q[2], k[2]];
        let mut operands = Vec::new();
        for (&kind, &value) in op.operands.iter().zip(&inputs[3..]) {
            // Of what is said of each score, its parts.
            let values = match kind.extent() {
                Extent::Scores if kind == A::Mask => leaves(g, value, Binary::And),
                Extent::Scores => leaves(g, value, Binary::Add),
                Extent::Heads | Extent::Items | Extent::Starts | Extent::Pages | Extent::Table => vec![value],
            };
            operands.extend(values.into_iter().map(|value| (kind, value)));
        }
        // In messages, masks come after lengths.
        operands.sort_by_key(|(kind, _)| *kind == A::Mask);
        let mut written = g.clone();
        let Terms { added, seen } = written.score_terms([inputs[0], inputs[1]], op, &operands)?;
        // An element of a term at `[b, h, i, j]`.
        let evaluate = |term: &Term| -> Result<_> {
            let value = Built::new(&written, known, term.value, &[])?.evaluate::<f64>()?;
            let (shape, numbers) = (value.shape().clone(), value.to_f64());
            Ok(move |at| numbers[place(&shape, at)])
        };
        let mut visible = Visible { sizes, parts: Vec::new() };
        for term in &seen {
            let at = evaluate(term)?;
            let name = match term.reason {
                Reason::Causal => "causal".into(),
                Reason::Window => "window".into(),
                Reason::Operand(value) => label(g, value),
            };
            visible.add(&name, |i| at(i) != 0.0);
        }
        let mut sum = vec![0.0f64; sizes.iter().product()];
        for term in &added {
            let at = evaluate(term)?;
            if let Reason::Operand(value) = term.reason
                && indices(&sizes).any(|i| at(i) == f64::NEG_INFINITY)
            {
                visible.add(&label(g, value), |i| at(i) != f64::NEG_INFINITY);
            }
            for (sum, i) in sum.iter_mut().zip(indices(&sizes)) {
                *sum += if at(i).is_finite() { at(i) } else { 0.0 };
            }
        }
        let finite: Vec<f32> = sum.into_iter().map(|x| x as f32).collect();
        let bias = finite.iter().any(|x| *x != 0.0).then(|| Tensor::new(sizes, finite)).transpose()?;
        Ok((visible, bias))
    }

    fn add(&mut self, name: &str, seen: impl Fn([usize; 4]) -> bool) {
        let table: Vec<bool> = indices(&self.sizes).map(seen).collect();
        let kind = self.kind(&table);
        let name = if name != "causal" && matches!(kind, Kind::Causal(_)) {
            format!("causal (`{name}`)")
        } else if ["causal", "window"].contains(&name) {
            name.to_string()
        } else {
            format!("`{name}`")
        };
        self.parts.push(Part { name, kind, table });
    }

    /// What a table looks like, wherever it comes from.
    fn kind(&self, table: &[bool]) -> Kind {
        let [b, h, tq, tk] = self.sizes;
        if b * h * tq * tk == 0 {
            return Kind::Other;
        }
        let at = |[b, h, i, j]: [usize; 4]| table[((b * self.sizes[1] + h) * tq + i) * tk + j];
        // Keys that the last query sees say where the diagonal is, unless it sees all: then the first query does.
        let offset = |item: usize| {
            let seen = |i: usize| (0..tk).filter(|&j| at([item, 0, i, j])).count() as i64;
            if seen(tq - 1) < tk as i64 { seen(tq - 1) - tq as i64 } else { seen(0) - 1 }
        };
        let offsets: Vec<i64> = (0..b).map(offset).collect();
        let hides = table.iter().any(|seen| !seen);
        let shows = table.iter().any(|seen| *seen);
        let causal = |[item, _, i, j]: [usize; 4]| j as i64 <= i as i64 + offsets[item];
        if hides && shows && tq > 1 && indices(&self.sizes).all(|i| at(i) == causal(i)) {
            return Kind::Causal(offsets);
        }
        if indices(&self.sizes).all(|[b, h, i, j]| at([b, h, i, j]) == at([b, 0, 0, j])) {
            return Kind::Padding;
        }
        Kind::Other
    }

    /// The keys that no part masks.
    pub(super) fn table(&self) -> Vec<bool> {
        let mut all = vec![true; self.sizes.iter().product()];
        for part in &self.parts {
            all.iter_mut().zip(&part.table).for_each(|(seen, part)| *seen &= part);
        }
        all
    }

    /// Probable mistakes: parts that look inverted, fully masked rows.
    pub(super) fn oddities(&self, path: &str) -> Vec<String> {
        let mut odd = Vec::new();
        for part in self.parts.iter().filter(|part| part.kind == Kind::Other) {
            let inverse: Vec<bool> = part.table.iter().map(|seen| !seen).collect();
            if matches!(self.kind(&inverse), Kind::Causal(_)) {
                odd.push(format!(
                    "{} of `{path}` masks what a causal mask leaves, so queries attend only to later keys: in \
                     nn.MultiheadAttention and the layers around it true means masked",
                    part.name
                ));
            }
        }
        let [_, _, _, tk] = self.sizes;
        let blind = self.table().chunks(tk.max(1)).filter(|row| !row.contains(&true)).count();
        if blind > 0 {
            let rows = self.sizes[..3].iter().product::<usize>();
            odd.push(format!(
                "{blind} of the {rows} rows of scores of `{path}` are fully masked: here such a row gives 0, in PyTorch 0 or NaN"
            ));
        }
        odd
    }

    /// The same with one part changed.
    pub(super) fn with(&self, part: usize, change: impl FnOnce(&Part) -> Vec<bool>) -> Vec<bool> {
        let mut changed = self.clone();
        changed.parts[part].table = change(&self.parts[part]);
        changed.table()
    }

    /// Causal with these offsets per item.
    pub(super) fn causal(&self, offset: impl Fn(usize) -> i64) -> Vec<bool> {
        indices(&self.sizes).map(|[b, _, i, j]| j as i64 <= i as i64 + offset(b)).collect()
    }

    /// `[Tk, Tq]` read as `[Tq, Tk]`, where both are as long.
    pub(super) fn transposed(&self, table: &[bool]) -> Vec<bool> {
        let [_, h, tq, tk] = self.sizes;
        indices(&self.sizes)
            .map(|[b, x, i, j]| table[((b * h + x) * tq + j.min(tq - 1)) * tk + i.min(tk - 1)])
            .collect()
    }
}

/// Every index of `[B, H, Tq, Tk]`, in row-major order.
fn indices(&[b, h, tq, tk]: &[usize; 4]) -> impl Iterator<Item = [usize; 4]> + use<> {
    let n = b * h * tq * tk;
    (0..n).map(move |at| [at / (h * tq * tk), at / (tq * tk) % h, at / tk % tq, at % tk])
}

/// Where broadcasting from the right finds an element.
fn place(shape: &Shape, at: [usize; 4]) -> usize {
    let at = &at[at.len() - shape.rank()..];
    shape.iter().zip(at).fold(0, |place, (&size, &i)| place * size + if size == 1 { 0 } else { i })
}

/// What `function` joins; the value as a whole, if that is more than anyone writes.
fn leaves(g: &Graph, v: ValueId, function: Binary) -> Vec<ValueId> {
    const MOST: usize = 64;
    let (mut found, mut open) = (Vec::new(), vec![v]);
    while let Some(at) = open.pop() {
        let node = g.definition(at);
        if node.op == (Op::Binary { function }) {
            open.extend(node.inputs.iter().rev());
        } else {
            found.push(at);
        }
        if found.len() + open.len() > MOST {
            return vec![v];
        }
    }
    found
}

/// The input that a mask comes from.
fn label(g: &Graph, v: ValueId) -> String {
    let (mut seen, mut open) = (HashSet::new(), vec![v]);
    while let Some(at) = open.pop() {
        let node = g.definition(at);
        if matches!(node.op, Op::Input { .. }) {
            return g.label(at);
        }
        if seen.insert(at) {
            open.extend(node.inputs.iter().rev());
        }
    }
    "a constant mask".into()
}
