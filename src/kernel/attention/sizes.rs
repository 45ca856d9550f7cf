//! What an [`AttentionProblem`] says about sizes, checked.

use super::problem::AttentionProblem;
use crate::{
    Error, Layout, Result, Shape,
    graph::{Align, AttentionOperand},
    kernel::access::narrow::check_floats,
};

const OP: &str = "attention";

/// Positions count as at most this; windows too.
const FAR: i64 = 1 << 30;

/// The sizes of a problem whose layouts fit each other.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub(super) packed: bool,
    /// B, or the number of packed sequences.
    pub(super) items: usize,
    /// The first axis of q: B, or 1 if packed.
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Tq; packed ΣTq.
    pub(super) rows: usize,
    /// Tk; packed ΣTk.
    pub(super) keys: usize,
    pub(super) d: usize,
    pub(super) dv: usize,
    /// How k and v are paged, if they are.
    pub(super) pages: Option<Pages>,
    /// Keys from here on are hidden by a mask or bias that is shorter than Tk.
    pub(super) key_limit: usize,
}

/// Pages of k and v.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    pub(super) count: usize,
    /// Rows of a page.
    pub(super) rows: usize,
    /// Pages of an item.
    pub(super) each: usize,
}

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
    pub(super) fn of(problem: &AttentionProblem) -> Result<Self> {
        use AttentionOperand as A;
        let options = &problem.options;
        let packed = options.is_packed();
        let paged = options.is_paged();
        let form = if packed { (3, "rank 3: [ΣT, H, D]") } else { (4, "rank 4: [B, H, T, D]") };
        let k_form = if paged { (4, "rank 4: [pages, page size, H, D]") } else { form };
        let layouts = [
            ("q", &problem.q, form),
            ("k", &problem.k, k_form),
            ("v", &problem.v, k_form),
            ("out", &problem.out, form),
        ];
        for (name, layout, (rank, expected)) in layouts {
            if layout.shape.rank() != rank {
                return Err(Error::shape(OP, name, &layout.shape, expected));
            }
            in_reach(name, layout)?;
        }
        check_floats(OP, problem.dtypes.named())?;
        let [batch, heads, rows, d] = axes(&problem.q.shape);
        let items = match problem.operand(A::QueryOffsets) {
            Some(offsets) => offsets
                .shape
                .first()
                .copied()
                .unwrap_or(0)
                .checked_sub(1)
                .ok_or_else(|| Error::shape(OP, A::QueryOffsets.name(), &offsets.shape, "[sequences + 1]"))?,
            None => batch,
        };
        let (kv_heads, keys, dv, pages) = match problem.operand(A::BlockTable) {
            Some(table) => {
                let [count, page, kv_heads, dv] = axes(&problem.v.shape);
                let &[b, each] = &table.shape[..] else {
                    return Err(Error::shape(OP, A::BlockTable.name(), &table.shape, "[B, pages of an item]"));
                };
                if b != items || (count == 0 && each * b * page > 0) {
                    let expected = format!("[{items}, pages of an item], with pages to name in {}", problem.v.shape);
                    return Err(Error::shape(OP, A::BlockTable.name(), &table.shape, expected));
                }
                (kv_heads, page.saturating_mul(each), dv, Some(Pages { count, rows: page, each }))
            }
            None => {
                let [_, kv_heads, keys, dv] = axes(&problem.v.shape);
                (kv_heads, keys, dv, None)
            }
        };
        let of_keys = |width: usize| match &pages {
            Some(pages) => Shape::from([pages.count, pages.rows, kv_heads, width]),
            None if packed => Shape::from([keys, kv_heads, width]),
            None => Shape::from([batch, kv_heads, keys, width]),
        };
        let out = if packed { Shape::from([rows, heads, dv]) } else { Shape::from([batch, heads, rows, dv]) };
        let fit = [
            ("k", &problem.k.shape, of_keys(d)),
            ("v", &problem.v.shape, of_keys(dv)),
            ("out", &problem.out.shape, out),
        ];
        for (name, shape, expected) in fit {
            if *shape != expected {
                return Err(Error::shape(OP, name, shape, format!("{expected} to fit the other operands")));
            }
        }
        if heads != 0 && (kv_heads == 0 || heads % kv_heads != 0) {
            return Err(Error::op(OP, format!("{heads} query heads are no multiple of {kv_heads} key heads")));
        }
        if d == 0 && options.scale.is_none() {
            return Err(Error::op(OP, "a head size of 0 has no 1/√D; give a scale"));
        }
        for (what, value) in [("queries", rows), ("keys", keys)] {
            if value as i64 >= FAR {
                return Err(Error::Limit {
                    what: format!("{OP}: {what} of a sequence"),
                    value: value as u64,
                    limit: FAR as u64 - 1,
                    hint: "split the sequence".into(),
                });
            }
        }
        if !is_dense_in_some_order(&problem.out) {
            return Err(Error::op(
                OP,
                format!("`out` {:?} is no dense buffer with its axes in another order", problem.out),
            ));
        }
        if problem.operands.len() != options.operands.len() {
            let (given, named) = (problem.operands.len(), options.operands.len());
            return Err(Error::op(OP, format!("{given} operands after q, k and v for {named} named ones")));
        }
        if packed == problem.operand(A::KeyOffsets).is_none() && !(packed && paged) {
            return Err(Error::op(OP, "packed sequences need both `query_offsets` and `key_offsets`"));
        }
        if (options.align == Align::PerItem) != problem.operand(A::Offsets).is_some() {
            return Err(Error::op(OP, "alignment per item and the operand `offsets` need each other"));
        }
        let mut key_limit = keys;
        for (&kind, layout) in options.operands.iter().zip(&problem.operands) {
            in_reach(kind.name(), layout)?;
            let expected = match kind {
                A::Mask | A::Bias => {
                    if packed {
                        return Err(Error::op(OP, format!("`{}` is not taken with packed sequences", kind.name())));
                    }
                    let columns = short_columns(&layout.shape, keys);
                    key_limit = key_limit.min(columns.unwrap_or(keys));
                    let target = Shape::from([batch, heads, rows, columns.unwrap_or(keys)]);
                    if !layout.shape.broadcasts_to(&target) {
                        let expected = format!("one that broadcasts to [B, Hq, Tq, Tk] = {target}");
                        return Err(Error::shape(OP, kind.name(), &layout.shape, expected));
                    }
                    continue;
                }
                A::KeyLengths | A::QueryLengths | A::Offsets => items,
                A::QueryOffsets | A::KeyOffsets => items + 1,
                A::Slopes => heads,
                A::BlockTable => continue,
                A::ScoreTable | A::MaskTable => {
                    if !layout.is_contiguous() || layout.shape.contains(&0) {
                        return Err(Error::op(OP, format!("`{}` is empty or not dense", kind.name())));
                    }
                    continue;
                }
            };
            if layout.shape != Shape::from([expected]) {
                return Err(Error::shape(OP, kind.name(), &layout.shape, format!("[{expected}]")));
            }
        }
        Ok(Sizes { packed, items, batch, heads, kv_heads, rows, keys, d, dv, pages, key_limit })
    }

    /// Query heads that share a key head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// How the mask or bias is read at `[b, h, i, j]`.
    pub(super) fn broadcast(&self, layout: &Layout) -> Layout {
        let columns = short_columns(&layout.shape, self.keys).unwrap_or(self.keys);
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
        self.batch as u64 * u64::try_from(seen).unwrap_or(0)
    }
}

/// Keys before and after the query's own position that it sees; `None` is open.
pub(super) fn window(problem: &AttentionProblem) -> (Option<i64>, Option<i64>) {
    let held = |size: u32| i64::from(size).min(FAR - 1);
    let (left, right) = (problem.options.window.left.map(held), problem.options.window.right.map(held));
    (left, if problem.options.causal { Some(0) } else { right })
}

/// `[B, H, T, D]` of a shape of q, k, v or out.
fn axes(shape: &Shape) -> [usize; 4] {
    match shape[..] {
        [b, h, t, d] => [b, h, t, d],
        [t, h, d] => [1, h, t, d],
        _ => [0; 4],
    }
}

/// The last axis of a mask or bias, where it hides the keys past its end.
fn short_columns(shape: &Shape, keys: usize) -> Option<usize> {
    shape.last().copied().filter(|&columns| columns < keys && columns != 1)
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
