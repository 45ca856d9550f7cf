//! Tiles in which a sum is no number: kernels that weigh hidden pairs by 0 note them, as 0 · NaN is none, and a launch after each
//! takes their rows once more, which reads nothing but what they see.

use super::{
    plain,
    setup::{Output, Pass, Setup},
};
use crate::{
    DType, Result,
    kernel::{Binding, Kernel, Launch, Operand, Parameters, Specialization, buffer_bytes, variant::Needs},
};

/// Rounds of loops that a workgroup may take for the tiles that it mends, if all of them are odd. A single tile may take more.
const ROUNDS: u64 = 1 << 15;
/// Most tiles that a workgroup looks at, so that all are looked at soon.
const MOST_TILES: u64 = 64;

/// What a variant needs for its notes and for the rows of a tile.
pub(super) fn needs(setup: &Setup<'_>) -> Result<Needs, String> {
    let rows = plain::needs(setup)?;
    let notes = setup.needs(1)?;
    Ok(Needs { rounds: rows.rounds + MOST_TILES, ..notes })
}

/// The launches of a variant, each with the one after it; and that of a bias that has an element for each pair.
pub(super) fn kernel(
    setup: &Setup<'_>,
    passes: impl Iterator<Item = (Pass, &'static str)>,
    source: impl Fn(Pass, &[Output]) -> Specialization,
) -> Result<Kernel> {
    let mut kernel = setup.begin()?;
    for (pass, label) in passes {
        for outputs in setup.launches_of(pass, 1) {
            kernel.workspace.push(buffer_bytes(DType::U32, setup.workgroups(pass) as usize));
            let odd_tiles = Operand::Workspace(kernel.workspace.len() - 1);
            let notes = Some(Binding::write(odd_tiles));
            kernel.launches.push(setup.launch(label, source(pass, &outputs), pass, &outputs, notes)?);
            kernel.launches.push(mend(setup, pass, &outputs, odd_tiles)?);
        }
    }
    plain::elements(setup, &mut kernel)?;
    Ok(kernel)
}

fn mend(setup: &Setup<'_>, pass: Pass, outputs: &[Output], odd_tiles: Operand) -> Result<Launch> {
    let tiles = setup.workgroups(pass);
    let each = (ROUNDS / plain::rounds(setup, pass).max(1) as u64).clamp(1, MOST_TILES);
    let (kernel, rows) = match pass {
        Pass::Rows(rows) => ("attention_grad::mend_rows", rows),
        Pass::Keys(rows) | Pass::Elements(rows) => ("attention_grad::mend_keys", rows),
    };
    let own = Parameters::new()
        .set("units", tiles as u32)
        .set("units_each", each as u32)
        .set("units_of_tile", 1u32)
        .set("column_parts", 1u32);
    let source = plain::reads(setup, setup.specialize(kernel, outputs)).value("ROWS", rows).region("MENDS", true);
    let after = Binding::read(odd_tiles);
    setup.launch_after(source, pass, outputs, own, after, tiles.div_ceil(each))
}
