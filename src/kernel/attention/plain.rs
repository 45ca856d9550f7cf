//! One query row an invocation.

use super::setup::{Setup, Tiling};
use crate::{
    Result,
    kernel::{Kernel, Launch},
};

/// Query rows of a workgroup, as in the shader.
const TILING: Tiling = Tiling::of(64, 1);

pub(super) fn kernel(setup: &Setup<'_>) -> Result<Kernel> {
    let mut kernel = setup.begin()?;
    let widest = setup.sizes.d.max(setup.sizes.dv);
    let out = setup.out(&mut kernel);
    let source = setup
        .specialize("attention::plain")
        .value("D_MAX", widest.next_power_of_two().max(16))
        .region("LSE", setup.problem.lse);
    let source = ["q", "k", "v", "bias"].into_iter().fold(source, |source, name| setup.reads_one(source, name));
    let source = setup.writes_two(source, out, "write_two").source()?;
    kernel.launches.push(Launch {
        label: "plain".into(),
        source,
        bindings: setup.inputs().into_iter().chain(setup.outputs(out)).collect(),
        params: setup.params(TILING),
        grid: setup.grid(TILING)?,
        flops: setup.flops(),
        exponentials: setup.exponentials(),
        bytes: setup.bytes(),
    });
    setup.finish(&mut kernel, out)?;
    Ok(kernel)
}

/// Why the loops of a row don't end in time, if they don't; see [`Profile::loop_rounds`](crate::kernel::Profile::loop_rounds).
pub(super) fn refusal(setup: &Setup<'_>) -> Option<String> {
    let (keys, d, dv) = (setup.sizes.keys as u64, setup.sizes.d as u64, setup.sizes.dv as u64);
    // A key takes a round, and enters two loops; q, O and the search for a packed item come once.
    let rounds = keys * (d + dv + 3) + 2 * (d + dv) + 64;
    let most = setup.profile.loop_rounds()?;
    (rounds > most).then(|| format!("{keys} keys take {rounds} rounds of loops, the driver stops at {most}"))
}
