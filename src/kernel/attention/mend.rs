//! The launch after a panel, for tiles in which a sum was no number.

use super::{
    setup::{Setup, Tiling},
    storage::{Float, Lie, Out},
};
use crate::{
    DType, Result,
    kernel::{Binding, Kernel, Launch, Operand, Parameters, Specialization, buffer_bytes},
};

/// Rows of a unit, as in the shader. The rows of a tile are a multiple of it.
const ROWS: usize = 16;
/// Rounds of loops that a workgroup may take for its units, if all of them are odd. A single unit may take more.
const ROUNDS: u64 = 1 << 15;
/// Most units of a workgroup, so that all are looked at soon.
const MOST_UNITS: u64 = 64;

/// Adds the words in which a panel says of each tile, and column part of one, whether a sum was no number.
pub(super) fn odd_tiles(setup: &Setup<'_>, tiling: Tiling, kernel: &mut Kernel) -> Operand {
    kernel.workspace.push(buffer_bytes(DType::U32, setup.workgroups(tiling) as usize));
    Operand::Workspace(kernel.workspace.len() - 1)
}

/// The keys that an invocation can go over.
pub(super) fn most_keys(setup: &Setup<'_>) -> usize {
    let Some(most) = setup.profile.loop_rounds() else { return usize::MAX };
    let once = rounds(setup, 0);
    // Keys go by fours.
    4 * (most.saturating_sub(once) / (rounds(setup, 4) - once)) as usize
}

/// The rounds of loops for a unit with so many keys.
pub(super) fn rounds(setup: &Setup<'_>, keys: usize) -> u64 {
    // Each column part is looked at, in rounds of a loop within a loop.
    setup.rounds_of_walk(keys) + (MOST_UNITS + 2) * (2 + setup.sizes.dv.div_ceil(16) as u64)
}

/// Units in all, of a workgroup, and of a tile.
fn units(setup: &Setup<'_>, tiling: Tiling) -> [u64; 3] {
    // Few query rows don't fill a tile. Where no tile is odd, looking at a unit is all that it costs, and not little on llvmpipe.
    let of_tile = tiling.rows.min(setup.sizes.rows * tiling.span).div_ceil(ROWS) as u64;
    let all = setup.workgroups(Tiling { column_parts: 1, ..tiling }) * of_tile;
    let walked = setup.rounds_of_walk(setup.sizes.keys.div_ceil(tiling.splits));
    [all, (ROUNDS / walked.max(1)).clamp(1, MOST_UNITS), of_tile]
}

/// The launch, after that of a panel with this tiling, and to the same outputs or partial results.
fn launch(
    setup: &Setup<'_>,
    tiling: Tiling,
    odd_tiles: Operand,
    write: impl FnOnce(Specialization) -> Specialization,
    outputs: Vec<Binding>,
) -> Result<Launch> {
    let source =
        setup.walks(setup.specialize("attention::mend").region("MENDS", true), [Lie::Fours; 3], setup.sizes.dv);
    let source = write(setup.reads_one(source, Float::Bias));
    let buffers = outputs.into_iter().chain([Binding::read(odd_tiles)]).collect();
    let [all, each, of_tile] = units(setup, tiling);
    let own = Parameters::new()
        .set("units", all as u32)
        .set("units_each", each as u32)
        .set("units_of_tile", of_tile as u32)
        .set("column_parts", tiling.column_parts);
    setup.launch_after("odd rows".into(), source, tiling, own, buffers, all.div_ceil(each))
}

/// The launch for rows that are written to out.
pub(super) fn whole(setup: &Setup<'_>, tiling: Tiling, odd_tiles: Operand, out: Out) -> Result<Launch> {
    let write = |source| setup.writes_four(source, out).region("LSE", setup.problem.lse);
    launch(setup, tiling, odd_tiles, write, setup.outputs(out))
}

/// The launch for rows whose keys are split.
pub(super) fn split(setup: &Setup<'_>, tiling: Tiling, odd_tiles: Operand, partials: Operand) -> Result<Launch> {
    launch(setup, tiling, odd_tiles, |source| source.region("SPLIT", true), vec![Binding::write(partials)])
}
