//! Sums by index. Twins: `shaders/scatter_add/`, `src/reference/scatter_add.rs`, `tests/device/scatter_add.rs`.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Operands, Parameters, Problem, Profile, Source, Specialization,
    fold_grid,
    variant::{Needs, Only},
};
use crate::{Error, Result, Shape};

use std::sync::Arc;

/// Updates `[before…, index…, after…]` summed by index, see [`Op::ScatterAdd`](crate::graph::Op::ScatterAdd). Inputs: updates
/// (f32), indices (i32), both dense. One dense output, f32.
///
/// The indices are sorted, stably, and each place then sums its own in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScatterAddProblem {
    /// The shape of the updates.
    pub updates: Shape,
    /// The shape of the indices, which the updates have from `axis` on.
    pub indices: Shape,
    /// The axis of the result that the indices run over.
    pub axis: usize,
    /// Its size.
    pub size: usize,
}

/// `updates [B, T, C] → [B, N, C]`, in elements.
struct Sizes {
    outer: usize,
    count: usize,
    size: usize,
    columns: usize,
}

const PLAIN: Only =
    Only { family: "scatter_add", reason: "sorts the indices; an invocation sums the updates of a place" };

impl ScatterAddProblem {
    fn sizes(&self) -> Result<Sizes, String> {
        let end = self.axis + self.indices.rank();
        if self.updates.get(self.axis..end) != Some(&self.indices[..]) {
            return Err(format!(
                "updates {} don't have the indices {} from axis {} on",
                self.updates, self.indices, self.axis
            ));
        }
        let product = |sizes: &[usize]| sizes.iter().product::<usize>();
        let (outer, columns) = (product(&self.updates[..self.axis]), product(&self.updates[end..]));
        Ok(Sizes { outer, count: product(&self.indices), size: self.size, columns })
    }

    fn needs(&self) -> Result<Needs, String> {
        let sizes = self.sizes()?;
        Ok(Needs {
            workspace: sizes.workspace().into_iter().max().unwrap_or(0),
            buffers: 4,
            // All indices may name one place.
            rounds: sizes.count as u64 / 4 + 4,
            ..Needs::default()
        })
    }
}

impl Sizes {
    /// Bytes of the order, of the sorted indices, and of the starts.
    fn workspace(&self) -> [u64; 3] {
        [self.count, self.count, self.size + 1].map(|words| 4 * words.max(1) as u64)
    }
}

impl Problem for ScatterAddProblem {
    fn family(&self) -> &'static str {
        PLAIN.family
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        PLAIN.candidates(self.needs(), profile)
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        PLAIN.check(variant, self.needs(), profile)?;
        let sizes = self.sizes().map_err(|fault| Error::op(PLAIN.family, fault))?;
        let width = if sizes.columns.is_multiple_of(4) { 4 } else { 1 };
        let (elems, columns) = (sizes.outer * sizes.size * sizes.columns / width, sizes.columns / width);
        let workgroup = profile.plain_workgroup();
        let launch = |label: &str, source: Arc<Source>, bindings: Vec<Binding>, invocations: usize| -> Result<Launch> {
            let parameters = Parameters::new()
                .set("count", sizes.count)
                .set("size", sizes.size)
                .set("elems", elems)
                .set("columns", columns);
            Ok(Launch {
                label: label.into(),
                params: source.words(&parameters)?,
                source,
                bindings,
                grid: fold_grid((invocations as u64).div_ceil(workgroup.into()), profile, PLAIN.family)?,
                flops: 0,
                exponentials: 0,
                bytes: 0,
            })
        };
        let source = |name: &'static str| Specialization::new(name).value("WORKGROUP", workgroup);
        let [order, sorted, starts] = [0, 1, 2].map(Operand::Workspace);
        let bindings = vec![Binding::read(Operand::Input(1)), Binding::write(order), Binding::write(sorted)];
        let mut sort = launch("sort", source("scatter_add::order").source()?, bindings, sizes.count)?;
        sort.bytes = 12 * sizes.count as u64;
        let bindings = vec![Binding::read(sorted), Binding::write(starts)];
        let mut find = launch("starts", source("scatter_add::starts").source()?, bindings, sizes.size + 1)?;
        find.bytes = 4 * (sizes.count + sizes.size + 1) as u64;
        let elem = if width == 4 { "vec4<f32>" } else { "f32" };
        let bindings = vec![
            Binding::read(Operand::Input(0)),
            Binding::read(order),
            Binding::read(starts),
            Binding::write(Operand::Output(0)),
        ];
        let mut sum = launch(Only::NAME, source("scatter_add::sum").ty("elem", elem).source()?, bindings, elems)?;
        let updates = sizes.outer * sizes.count * sizes.columns;
        sum.flops = updates as u64;
        sum.bytes = 4 * (updates + width * elems + sizes.count + sizes.size + 1) as u64;
        Ok(Kernel { launches: vec![sort, find, sum], workspace: sizes.workspace().to_vec() })
    }

    fn summary(&self) -> String {
        format!("{} by {} to {} on axis {}", self.updates, self.indices, self.size, self.axis)
    }
}

impl ScatterAddProblem {
    /// Of [`Op::ScatterAdd`](crate::graph::Op::ScatterAdd).
    pub(super) fn of(axis: usize, size: usize, operands: &mut Operands) -> Result<Self> {
        operands.widen_narrow();
        Ok(ScatterAddProblem { updates: operands.shape(0).clone(), indices: operands.shape(1).clone(), axis, size })
    }
}
