//! Keys that are split: the partial results that workgroups leave, and the launch that merges them.

use super::{
    merge::{Merge, WG},
    sequences,
    setup::{Setup, Tiling},
};
use crate::{
    DType, Result,
    kernel::{Binding, Kernel, Launch, Operand, Specialization, buffer_bytes, fold_grid},
};

/// Workgroups that a GPU needs to be busy.
const BUSY: u64 = 512;
/// A workgroup has at least so many keys.
const LEAST_KEYS: usize = 64;
/// Most splits that are made to keep a GPU busy.
pub(super) const MOST: usize = 32;

/// Most splits that are made because loops may not have more rounds.
pub(super) const MOST_NEEDED: usize = 256;

/// Whether this tiling leaves most of a GPU idle, and the keys suffice to share out.
pub(super) fn pay(setup: &Setup<'_>, tiling: Tiling) -> bool {
    setup.workgroups(tiling) < BUSY / 4 && setup.sizes.keys >= 4 * LEAST_KEYS
}

/// The splits that keep a GPU busy with this tiling.
pub(super) fn wanted(setup: &Setup<'_>, whole: Tiling) -> usize {
    let wanted = BUSY.div_ceil(setup.workgroups(whole).max(1)) as usize;
    wanted.min(setup.sizes.keys / LEAST_KEYS).clamp(1, MOST)
}

/// Bytes of the partial results: of every split and row O, then m and l. None if keys are not split.
pub(super) fn bytes(setup: &Setup<'_>, tiling: Tiling) -> u64 {
    let elements = tiling.splits * setup.all_rows() * (setup.sizes.dv + 2);
    if tiling.splits > 1 { buffer_bytes(DType::F32, elements) } else { 0 }
}

/// Adds the launch that merges them.
pub(super) fn merge(setup: &Setup<'_>, kernel: &mut Kernel, partials: Operand, tiling: Tiling) -> Result<()> {
    let sizes = &setup.sizes;
    let out = setup.out(kernel);
    let columns = out.elements_at_once(setup);
    let invocations = (setup.all_rows() * sizes.dv.div_ceil(columns).max(1)) as u64;
    let workgroups = invocations.div_ceil(WG);
    let rows = Merge {
        splits: tiling.splits,
        heads: sizes.heads,
        rows: sizes.rows,
        all_rows: setup.all_rows(),
        dv: sizes.dv,
        out: (setup.problem.out.offset, setup.strides(&setup.problem.out)),
        lse: setup.lse_steps(),
    };
    let source = setup.writes_two(Specialization::new("attention::merge"), out).value("COLUMNS", columns);
    let source = source.region("LSE", setup.problem.lse).source()?;
    kernel.launches.push(Launch {
        label: "split-kv: merge".into(),
        params: source.words(&rows.parameters(workgroups))?,
        source,
        bindings: [Binding::read(partials)].into_iter().chain(setup.outputs(out)).collect(),
        grid: fold_grid(workgroups, setup.profile, "attention")?,
        flops: 0,
        exponentials: 0,
        bytes: bytes(setup, tiling) + setup.out_bytes(out),
    });
    setup.finish(kernel, out)
}

/// Adds the launch of keys that are split over workgroups; the partial results.
pub(super) fn split(
    setup: &Setup<'_>,
    kernel: &mut Kernel,
    label: &str,
    source: Specialization,
    tiling: Tiling,
    beside: Option<Binding>,
) -> Result<Operand> {
    let bytes = bytes(setup, tiling);
    kernel.workspace.push(bytes);
    let to = Operand::Workspace(kernel.workspace.len() - 1);
    let label = format!("{label}: {} parts", tiling.splits);
    let source = source.region("SPLIT", true);
    let outputs = [Binding::write(to)].into_iter().chain(beside).collect();
    kernel.launches.push(setup.launch(label, source, tiling, None, outputs, bytes)?);
    Ok(to)
}

/// Keys that are split over workgroups, and the merge.
pub(super) fn whole(setup: &Setup<'_>, label: &str, source: Specialization, tiling: Tiling) -> Result<Kernel> {
    let mut kernel = sequences::begin(setup)?;
    let to = split(setup, &mut kernel, label, source, tiling, None)?;
    merge(setup, &mut kernel, to, tiling)?;
    Ok(kernel)
}
