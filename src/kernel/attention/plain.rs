//! One query row an invocation.

use super::setup::{Setup, Tiling};
use crate::{
    Result,
    kernel::{Kernel, Launch},
};

/// Query rows of a workgroup, as in the shader.
const TILING: Tiling = Tiling { rows: 64, span: 1, splits: 1 };

pub(super) fn kernel(setup: &Setup<'_>) -> Result<Kernel> {
    let mut kernel = setup.begin()?;
    let widest = setup.sizes.d.max(setup.sizes.dv);
    let source = setup
        .specialize("attention", include_str!("../../../shaders/attention.wgsl"))
        .value("D_MAX", widest.next_power_of_two().max(16))
        .region("LSE", setup.problem.lse)
        .source()?;
    kernel.launches.push(Launch {
        label: "plain".into(),
        source,
        bindings: setup.inputs().into_iter().chain(setup.outputs()).collect(),
        params: setup.params(TILING),
        grid: setup.grid(TILING)?,
        flops: setup.flops(),
        bytes: setup.bytes(),
    });
    Ok(kernel)
}
