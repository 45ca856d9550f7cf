//! What an [`AttentionProblem`] says about sizes, checked.

use super::problem::AttentionProblem;
pub(super) use crate::graph::AttentionSizes as Sizes;
use crate::{
    Error, Layout, Result,
    graph::{Align, AttentionOperand as A, Extent, FARTHEST, short_of},
    kernel::access::narrow::check_floats,
};

const OP: &str = "attention";

/// Positions count as at most this; windows too.
const FAR: i64 = FARTHEST as i64;

/// Which keys a query i < `rows` sees: from `max(0, i + lo)` to before `min(end, i + hi + 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) end: i32,
    pub(super) lo: i32,
    pub(super) hi: i32,
    /// Where query 0 stands among the keys.
    pub(super) offset: i32,
}

impl Sizes {
    /// Of a problem whose operands fit each other, as [`Attention`](crate::graph::Attention) says, and whose layouts kernels
    /// can take.
    pub(super) fn of(problem: &AttentionProblem) -> Result<Self> {
        let AttentionProblem { options, dtypes, q, k, v, operands, out, .. } = problem;
        let dtype = |i: usize| options.operands.get(i).and_then(|kind| kind.dtype()).unwrap_or(dtypes.bias);
        let mut given = vec![(dtypes.q, &q.shape), (dtypes.k, &k.shape), (dtypes.v, &v.shape)];
        given.extend(operands.iter().enumerate().map(|(i, layout)| (dtype(i), &layout.shape)));
        let sizes = options.fit(&given)?;
        check_floats(OP, [("out", dtypes.out)])?;
        if out.shape != sizes.out() {
            let expected = format!("{} to fit the other operands", sizes.out());
            return Err(Error::shape(OP, "out", &out.shape, expected));
        }
        for (name, layout) in [("q", q), ("k", k), ("v", v), ("out", out)] {
            in_reach(name, layout)?;
        }
        for (&kind, layout) in options.operands.iter().zip(operands) {
            in_reach(kind.name(), layout)?;
            if !is_strided(kind) && !layout.is_contiguous() {
                return Err(Error::op(OP, format!("`{}` is not dense", kind.name())));
            }
        }
        for (what, value) in [("queries", sizes.rows), ("keys", sizes.keys)] {
            if value as i64 >= FAR {
                return Err(Error::Limit {
                    what: format!("{OP}: {what} of a sequence"),
                    value: value as u64,
                    limit: FAR as u64 - 1,
                    hint: "split the sequence".into(),
                });
            }
        }
        if !is_dense_in_some_order(out) {
            return Err(Error::op(
                OP,
                format!(
                    "`out` {} of strides {:?} is no dense buffer with its axes in another order",
                    out.shape, out.strides
                ),
            ));
        }
        Ok(sizes)
    }

    /// Query heads that share a key head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// How the mask or bias is read at `[b, h, i, j]`.
    pub(super) fn broadcast(&self, layout: &Layout) -> Layout {
        let columns = short_of(self.keys, &layout.shape).unwrap_or(self.keys);
        layout.broadcast(&[self.batch, self.heads, self.rows, columns].into())
    }

    /// What is seen if no length and no offset comes from a buffer.
    pub(super) fn range(&self, problem: &AttentionProblem) -> Range {
        let options = &problem.options;
        let (rows, keys) = (self.rows as i64, self.keys as i64);
        let offset = match options.align {
            Align::TopLeft | Align::PerItem => 0,
            Align::BottomRight => keys - rows,
            Align::Offset(offset) => i64::from(offset).clamp(-FAR, FAR),
        };
        let (left, right) = window(problem);
        // Held in −Tq to Tk, which changes nothing for any i and j, and keeps sums in 32 bits.
        let held = |x: i64| x.clamp(-rows, keys) as i32;
        Range {
            end: self.key_limit as i32,
            lo: left.map_or(-rows as i32, |left| held(offset - left)),
            hi: right.map_or(keys as i32, |right| held(offset + right)),
            offset: offset as i32,
        }
    }

    /// Pairs of a query and a key that it sees, for one head of all batch items, as far as the host knows. Packed
    /// sequences count as equally long.
    pub(super) fn pairs(&self, problem: &AttentionProblem) -> u64 {
        let (rows, keys) = (self.rows as u64, self.keys as u64);
        if self.packed {
            // Paged, `keys` are those of one sequence.
            return rows * keys / if self.pages.is_some() { 1 } else { self.items.max(1) as u64 };
        }
        let range = self.range(problem);
        // Σ of i + from, held in 0 to end, over the rows.
        let sum = |from: i64| {
            let (n, end) = (i128::from(rows), i128::from(range.end));
            let start = (-i128::from(from)).clamp(0, n);
            let full = (end - i128::from(from)).clamp(start, n);
            let (first, count) = (start + i128::from(from), full - start);
            count * (2 * first + count - 1) / 2 + (n - full) * end
        };
        let seen = sum(i64::from(range.hi) + 1) - sum(i64::from(range.lo));
        (self.batch as u64).saturating_mul(u64::try_from(seen).unwrap_or(0))
    }
}

/// Keys before and after the query's own position that it sees; `None` is open.
pub(super) fn window(problem: &AttentionProblem) -> (Option<i64>, Option<i64>) {
    let held = |size: u32| i64::from(size).min(FAR - 1);
    let (left, right) = (problem.options.window.left.map(held), problem.options.window.right.map(held));
    (left, if problem.options.causal { Some(0) } else { right })
}

/// Whether the kernels read an operand through strides.
pub(super) fn is_strided(kind: A) -> bool {
    kind.extent() != Extent::Table
}

/// Whether every element can be reached by a 32-bit index.
fn in_reach(name: &str, layout: &Layout) -> Result<()> {
    if layout.shape.contains(&0) {
        return Ok(());
    }
    let steps = || layout.shape.iter().zip(&layout.strides).map(|(&n, &stride)| (n as i128 - 1) * stride as i128);
    let lowest = layout.offset as i128 + steps().filter(|&step| step < 0).sum::<i128>();
    let highest = layout.offset as i128 + steps().filter(|&step| step > 0).sum::<i128>();
    if lowest < 0 {
        return Err(Error::op(OP, format!("the layout of `{name}` begins before its buffer")));
    }
    if highest > i128::from(i32::MAX) {
        return Err(Error::Limit {
            what: format!("{OP}: the last index of `{name}`"),
            value: u64::try_from(highest).unwrap_or(u64::MAX),
            limit: i32::MAX as u64,
            hint: "split the tensor".into(),
        });
    }
    Ok(())
}

/// Whether the elements fill a buffer from its start, each place once.
fn is_dense_in_some_order(layout: &Layout) -> bool {
    if layout.shape.contains(&0) {
        return true;
    }
    let mut axes: Vec<(isize, usize)> =
        layout.shape.iter().zip(&layout.strides).filter(|&(&n, _)| n > 1).map(|(&n, &stride)| (stride, n)).collect();
    axes.sort_unstable();
    let mut next = 1isize;
    layout.offset == 0
        && axes.iter().all(|&(stride, n)| {
            let fits = stride == next;
            next *= n as isize;
            fits
        })
}
