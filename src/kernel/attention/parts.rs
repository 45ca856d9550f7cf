//! Keys that are split into parts: what a workgroup leaves of each, and the launch that joins them.

use super::setup::{Setup, Tiling};
use crate::{
    DType, Result,
    kernel::{Binding, Kernel, Launch, Operand, Specialization, buffer_bytes, fold_grid},
};

/// Invocations of a workgroup of the merge, as in the shader.
const WG: u64 = 64;

/// Workgroups that a GPU needs to be busy.
const BUSY: u64 = 512;
/// A part of the keys has at least so many.
const LEAST_KEYS: usize = 64;
/// Most parts that are made to keep a GPU busy.
pub(super) const MOST: usize = 32;

/// Whether this tiling leaves most of a GPU idle, and the keys suffice to share out.
pub(super) fn pay(setup: &Setup<'_>, tiling: Tiling) -> bool {
    setup.workgroups(tiling) < BUSY / 4 && setup.sizes.keys >= 4 * LEAST_KEYS
}

/// The parts that keep a GPU busy with this tiling.
pub(super) fn wanted(setup: &Setup<'_>, whole: Tiling) -> usize {
    let wanted = BUSY.div_ceil(setup.workgroups(whole).max(1)) as usize;
    wanted.min(setup.sizes.keys / LEAST_KEYS).clamp(1, MOST)
}

/// Of every row and part: O, then m and l.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    splits: usize,
    pub(super) bytes: u64,
}

impl Parts {
    pub(super) fn new(setup: &Setup<'_>, tiling: Tiling) -> Self {
        let elements = tiling.splits * setup.all_rows() * (setup.sizes.dv + 2);
        Parts { splits: tiling.splits, bytes: buffer_bytes(DType::F32, elements) }
    }

    pub(super) fn refusal(self, setup: &Setup<'_>) -> Option<String> {
        let limit = setup.profile.limits.binding_bytes;
        (self.bytes > limit).then(|| format!("the parts take {} bytes, a binding has {limit}", self.bytes))
    }

    /// The scratch buffer that holds them.
    pub(super) fn place(self, kernel: &mut Kernel) -> Operand {
        kernel.scratch.push(self.bytes);
        Operand::Scratch(kernel.scratch.len() - 1)
    }

    /// The launch that joins them.
    pub(super) fn merge(self, setup: &Setup<'_>, kernel: &mut Kernel, parts: Operand) -> Result<()> {
        let sizes = &setup.sizes;
        let out = setup.out(kernel);
        let columns = out.elements_at_once(setup);
        let invocations = (setup.all_rows() * sizes.dv.div_ceil(columns).max(1)) as u64;
        let workgroups = invocations.div_ceil(WG);
        let mut params = vec![
            workgroups as u32,
            self.splits as u32,
            sizes.heads as u32,
            sizes.rows as u32,
            setup.all_rows() as u32,
            sizes.dv as u32,
            setup.problem.out.offset as u32,
        ];
        params.extend(setup.strides(&setup.problem.out));
        params.extend(setup.lse_steps());
        let merge = Specialization::new("attention::merge");
        kernel.launches.push(Launch {
            label: "split-kv: merge".into(),
            source: setup
                .writes_two(merge, out, "write")
                .value("COLUMNS", columns)
                .region("LSE", setup.problem.lse)
                .source()?,
            bindings: [Binding::read(parts)].into_iter().chain(setup.outputs(out)).collect(),
            params,
            grid: fold_grid(workgroups, setup.profile, "attention")?,
            flops: 0,
            exponentials: 0,
            bytes: self.bytes + setup.out_bytes(out),
        });
        setup.finish(kernel, out)
    }
}
