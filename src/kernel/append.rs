//! Writing into a cache.

use super::{
    Binding, Candidate, CopyProblem, Kernel, Launch, Operand, Operands, Parameters, Problem, Profile, Specialization,
    fold_grid,
    variant::{Needs, Only},
};
use crate::{DType, Error, Layout, Result, Shape};

/// Rows written into a cache; see [`Op::Append`](crate::graph::Op::Append) and
/// [`Op::AppendPaged`](crate::graph::Op::AppendPaged). Inputs: cache (dense), update, positions
/// (i32, dense), for pages the table (i32, dense). Outputs: the cache, i32 `[1]` rows dropped.
///
/// In place (`set_in_place(0)`) only the update moves; otherwise the cache is copied first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendProblem {
    /// Of cache and update. Rows of 16-bit elements must be whole words, and bool is not taken.
    pub dtype: DType,
    /// The cache's shape.
    pub cache: Shape,
    /// The update, in any layout whose axes before, and after, the growing one merge.
    pub update: Layout,
    /// The axis of the update that grows.
    pub axis: usize,
    /// The shape of the table, if the cache is pages `[N, S, H, D]` and the update `[B, H, T, D]`.
    pub table: Option<Shape>,
    /// Places are taken modulo the cache's size.
    pub circular: bool,
    /// The cache is written where it is.
    pub in_place: bool,
}

/// Sizes and strides in words.
struct Words {
    sizes: [usize; 4],
    strides: [isize; 4],
    offset: usize,
}

impl AppendProblem {
    /// Whether the kernel takes this layout of the update; a dense one it takes always.
    pub fn takes(dtype: DType, update: &Layout, axis: usize) -> bool {
        words(dtype, update, axis).is_ok()
    }

    fn needs(&self) -> Result<Needs, String> {
        self.check().map(|_| Needs { rounds: self.rounds(), ..Needs::default() })
    }

    fn check(&self) -> Result<Words, String> {
        let update = &self.update.shape;
        let fits = match &self.table {
            Some(table) => {
                self.cache.rank() == 4
                    && update.rank() == 4
                    && self.axis == 2
                    && [self.cache[2], self.cache[3]] == [update[1], update[3]]
                    && table.rank() == 2
                    && table[0] == update[0]
                    && (self.cache[0] > 0 || table.contains(&0))
            }
            None => {
                self.axis > 0
                    && self.axis < self.cache.rank()
                    && update.rank() == self.cache.rank()
                    && update[self.axis] <= self.cache[self.axis]
            }
        };
        if !fits {
            return Err(format!("an update {update} of a cache {} along axis {}", self.cache, self.axis));
        }
        words(self.dtype, &self.update, self.axis)
    }

    /// One invocation counts the dropped rows of all items in a loop, which a driver may end; see [`Profile::loop_rounds`].
    fn rounds(&self) -> u64 {
        let (items, rows) = (self.update.shape[0] as u64, self.update.shape[self.axis] as u64);
        match &self.table {
            Some(table) => items * ((rows / self.cache[1].max(1) as u64 + 2).min(table[1] as u64) + 2) + 1,
            None => items + 1,
        }
    }

    /// Places of an item, rows of a page, pages of an item, and pages.
    fn places(&self) -> [usize; 4] {
        match &self.table {
            Some(table) => {
                [self.cache[1].saturating_mul(table[1]).min(1 << 30), self.cache[1].max(1), table[1], self.cache[0]]
            }
            None => [self.cache[self.axis], 1, 0, 0],
        }
    }
}

/// The update as `[B, M, U, I]` words.
fn words(dtype: DType, update: &Layout, axis: usize) -> Result<Words, String> {
    let per_word = 4 / dtype.bytes();
    if per_word > 2 {
        return Err(format!("rows of {dtype} are not whole words"));
    }
    // One stride for neighbouring axes, or 1 for none.
    let merge = |axes: std::ops::Range<usize>| -> Result<(usize, isize), String> {
        let part = Layout {
            shape: update.shape[axes.clone()].into(),
            strides: update.strides[axes.clone()].to_vec(),
            offset: 0,
        };
        match &part.merged()[..] {
            [] => Ok((1, 1)),
            [one] => Ok(*one),
            _ if part.shape.contains(&0) => Ok((0, 1)),
            _ => Err(format!("axes {axes:?} of an update with strides {:?} are not one", update.strides)),
        }
    };
    let (middle, inner) = (merge(1..axis)?, merge(axis + 1..update.shape.rank())?);
    let mut sizes = [update.shape[0], middle.0, update.shape[axis], inner.0];
    let mut strides = [update.strides[0], middle.1, update.strides[axis], inner.1];
    let mut offset = update.offset;
    if per_word == 2 {
        let whole = sizes[3].is_multiple_of(2)
            && (inner.1 == 1 || sizes[3] == 0)
            && offset.is_multiple_of(2)
            && sizes.iter().zip(&strides).take(3).all(|(&size, stride)| size <= 1 || stride % 2 == 0);
        if !whole {
            return Err(format!(
                "rows of {dtype} that are not whole words: {} strides {:?}",
                update.shape, update.strides
            ));
        }
        sizes[3] /= 2;
        offset /= 2;
        for stride in &mut strides[..3] {
            *stride /= 2;
        }
    }
    Ok(Words { sizes, strides, offset })
}

const PLAIN: Only = Only { family: "append", reason: "one word of the update an invocation" };

impl Problem for AppendProblem {
    fn family(&self) -> &'static str {
        PLAIN.family
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        PLAIN.candidates(self.needs(), profile)
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        self.cache.checked_elements(PLAIN.family)?;
        PLAIN.check(variant, self.needs(), profile)?;
        let Words { sizes, strides, offset } = self.check().map_err(|reason| Error::op(PLAIN.family, reason))?;
        let [items, middle, rows, inner] = sizes;
        let [stride_b, stride_m, stride_t, stride_i] = strides;
        let [places, page_rows, pages, all_pages] = self.places();
        let total = items * middle * rows * inner;
        let workgroup = profile.plain_workgroup();
        let source = Specialization::new("append::plain")
            .value("WORKGROUP", workgroup)
            .value("CIRCULAR", self.circular)
            .region("PAGED", self.table.is_some())
            .source()?;
        let parameters = Parameters::new()
            .set("words", total)
            .set("items", items)
            .set("middle", middle)
            .set("places", places)
            .set("rows", rows)
            .set("inner", inner)
            .set("offset", offset)
            .set("stride_b", stride_b)
            .set("stride_m", stride_m)
            .set("stride_t", stride_t)
            .set("stride_i", stride_i)
            .set("page_rows", page_rows)
            .set("pages", pages)
            .set("all_pages", all_pages);
        let mut bindings = vec![Binding::read(Operand::Input(1)), Binding::read(Operand::Input(2))];
        bindings.extend(self.table.as_ref().map(|_| Binding::read(Operand::Input(3))));
        bindings.extend([Operand::Output(0), Operand::Output(1)].map(Binding::write));
        let write = Launch {
            label: Only::NAME.into(),
            params: source.words(&parameters)?,
            source,
            bindings,
            // The count of dropped rows is written even where there is nothing to move.
            grid: fold_grid((total as u64).div_ceil(workgroup.into()).max(1), profile, PLAIN.family)?,
            flops: 0,
            exponentials: 0,
            bytes: (8 * total + 4 * items + 4) as u64,
        };
        if self.in_place {
            return Ok(Kernel { launches: vec![write], workspace: Vec::new() });
        }
        let copy = CopyProblem { dtype: self.dtype, input: Layout::contiguous(self.cache.clone()) };
        let variant = copy.candidates(profile).into_iter().find(Candidate::is_usable).map_or("plain", |c| c.variant);
        let mut kernel = copy.kernel(variant, profile)?;
        for launch in &mut kernel.launches {
            launch.label = format!("copy: {}", launch.label);
        }
        kernel.launches.push(write);
        Ok(kernel)
    }

    fn summary(&self) -> String {
        let circular = if self.circular { " circular" } else { "" };
        let place = if self.in_place { " in place" } else { "" };
        if let Some(table) = &self.table {
            return format!("{} {} into pages {} by {table}{place}", self.dtype, self.update.shape, self.cache);
        }
        format!("{} {} into {} axis {}{circular}{place}", self.dtype, self.update.shape, self.cache, self.axis)
    }

    fn allows_in_place(&self, input: usize) -> bool {
        input == 0
    }

    fn set_in_place(&mut self, input: usize) {
        self.in_place = input == 0;
    }
}

impl AppendProblem {
    /// Of [`Op::Append`](crate::graph::Op::Append).
    pub(super) fn of(axis: usize, circular: bool, operands: &mut Operands) -> Result<Self> {
        Ok(Self::over(axis, None, circular, operands))
    }

    /// Of [`Op::AppendPaged`](crate::graph::Op::AppendPaged).
    pub(super) fn of_pages(operands: &mut Operands) -> Result<Self> {
        let table = operands.shape(3).clone();
        Ok(Self::over(2, Some(table), false, operands))
    }

    fn over(axis: usize, table: Option<Shape>, circular: bool, operands: &mut Operands) -> Self {
        let (dtype, cache, update) = (operands.dtype(0), operands.shape(0).clone(), operands.layout(1));
        if !Self::takes(dtype, &Layout::contiguous(update.shape.clone()), axis) {
            (0..2).for_each(|input| operands.widen(input));
        }
        AppendProblem { dtype, cache, update, axis, table, circular, in_place: false }
    }
}
