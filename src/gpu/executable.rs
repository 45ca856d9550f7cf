//! A program on a device: what it consists of.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use super::{Gpu, ledger::Lease, names::NameCheck, pipeline::Pipeline};
use crate::{DType, Result, Shape, Tensor, kernel::Access, lower::Start};

/// The outputs of a run, by name.
pub type Outputs = BTreeMap<String, Tensor>;

/// A program on a device: pipelines compiled, parameters uploaded, temporaries allocated. [`Gpu::load`] makes it.
///
/// [`run`](Executable::run) takes and returns host tensors; [`encode`](Executable::encode) records into the caller's
/// encoder, with the caller's buffers. After the first run neither allocates device memory.
pub struct Executable {
    pub(super) gpu: Gpu,
    pub(super) buffers: Vec<BufferInfo>,
    /// The buffers that are bound for each run, in the order of the program, which is ascending.
    pub(super) io: Vec<usize>,
    pub(super) steps: Vec<StepInfo>,
    pub(super) dispatches: Vec<Dispatch>,
    /// The dispatches that each submission of a run has.
    pub(super) submissions: Vec<Range<usize>>,
    /// The parameters of all dispatches; it lives as long as the bind groups that name it.
    pub(super) params: wgpu::Buffer,
    pub(super) guard: bool,
    /// The memory that temporaries share: a name for messages, and bytes.
    pub(super) slots: Vec<(String, u64)>,
    /// It, by slot, unless it was given back.
    pub(super) temporaries: Option<Vec<wgpu::Buffer>>,
    pub(super) leases: Leases,
    pub(super) bound: Vec<BoundSet>,
    pub(super) own: Option<Vec<Bound>>,
    /// Copies of the own inputs and outputs, for benchmarks.
    #[cfg(feature = "native")]
    pub(super) copies: Vec<BoundSet>,
    /// Timed runs so far, which the own set and the copies took in turns.
    #[cfg(feature = "native")]
    pub(super) turn: usize,
    /// Whether the copies have other inputs.
    #[cfg(feature = "native")]
    pub(super) copies_differ: bool,
    pub(super) staging: Option<Staging>,
}

/// What the engine keeps of a [`crate::lower::Buffer`].
pub(super) struct BufferInfo {
    /// The name that is bound, or the value's name.
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Shape,
    pub(super) bytes: u64,
    pub(super) home: Home,
}

/// Where a buffer is.
pub(super) enum Home {
    /// Bound for each run, to be read.
    Input,
    /// Bound for each run, to be written.
    Output,
    /// The same in all runs, and kept from one to the next.
    Constant(Bound),
    /// In a slot of the executable's own memory; its content is of no use after a run.
    Temporary {
        /// Of [`Executable::slots`].
        slot: usize,
        /// Bytes that are bound.
        size: u64,
    },
    /// The same in all runs, each of which takes up what the last one left.
    State { bound: Bound, start: Start },
    /// In the memory of a state: what it becomes.
    Next(Bound),
}

/// What the engine keeps of a [`crate::lower::Step`].
pub(super) struct StepInfo {
    pub(super) label: String,
    pub(super) flops: u64,
    pub(super) bytes: u64,
    pub(super) dispatches: Range<usize>,
}

/// A launch with its pipeline.
pub(super) struct Dispatch {
    pub(super) label: String,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) params: Range<u64>,
    /// Parameters for a workgroup behind the last, with which the kernel does nothing.
    pub(super) behind: Option<Range<u64>>,
    /// Whether it goes on with the work of the one before, as a further piece of it.
    pub(super) goes_on: bool,
    /// Seconds that it is taken to need.
    pub(super) seconds: f64,
    pub(super) bindings: Vec<(usize, Access)>,
    pub(super) grid: [u32; 3],
    /// The bind group, if none of the buffers is bound anew for each run.
    pub(super) group: Option<wgpu::BindGroup>,
}

/// The device memory that the executable has, by what it is for.
pub(super) struct Leases {
    /// Parameters that were uploaded for it, constants, and states.
    pub(super) fixed: Lease,
    pub(super) temporaries: Option<Lease>,
    /// Inputs and outputs of its own.
    pub(super) own: Option<Lease>,
    /// Copies of them.
    pub(super) copies: Vec<Lease>,
}

/// A range of a buffer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) buffer: wgpu::Buffer,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Bound {
    pub(super) fn whole(buffer: wgpu::Buffer) -> Self {
        Bound { offset: 0, size: buffer.size(), buffer }
    }

    pub(super) fn resource(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: self.offset,
            size: wgpu::BufferSize::new(self.size),
        })
    }
}

/// Inputs and outputs, in the order of [`Executable::io`], with the bind groups of the dispatches that touch them.
pub(super) struct BoundSet {
    pub(super) key: Vec<Bound>,
    pub(super) groups: Vec<Option<wgpu::BindGroup>>,
}

/// Memory of the host that the device can copy from and to: a buffer for each input, mapped between runs, and one for
/// each output.
pub(super) struct Staging {
    pub(super) inputs: Vec<wgpu::Buffer>,
    pub(super) outputs: Vec<wgpu::Buffer>,
    pub(super) lease: Lease,
}

impl Executable {
    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Name, dtype and shape of each input.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, DType, &Shape)> {
        self.named(|home| matches!(home, Home::Input))
    }

    /// Name, dtype and shape of each output.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, DType, &Shape)> {
        self.named(|home| matches!(home, Home::Output))
    }

    pub(super) fn named(&self, want: fn(&Home) -> bool) -> impl Iterator<Item = (&str, DType, &Shape)> {
        let wanted = self.buffers.iter().filter(move |info| want(&info.home));
        wanted.map(|info| (info.name.as_str(), info.dtype, &info.shape))
    }

    /// Bytes of device memory that it has now: parameters that were uploaded for it, constants, states, temporaries, and what
    /// [`run`](Executable::run) needs beside. [`trim`](Executable::trim) gives back what it can do without until the next run.
    pub fn memory(&self) -> u64 {
        let Leases { fixed, temporaries, own, copies } = &self.leases;
        let staging = self.staging.as_ref().map(|staging| &staging.lease);
        let some = [temporaries.as_ref(), own.as_ref(), staging].into_iter().flatten();
        some.chain(copies).chain([fixed]).map(Lease::bytes).sum()
    }

    /// Floating-point operations that one run needs, by the formulas of its kernels.
    pub fn flops(&self) -> u64 {
        self.steps.iter().map(|step| step.flops).sum()
    }

    /// Bytes that the kernels of one run must read and write at the least.
    pub fn bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.bytes).sum()
    }

    /// The inputs in the program's order, if they are what it wants.
    pub(super) fn check_inputs<'a>(&self, given: &[(&str, &'a Tensor)]) -> Result<Vec<&'a Tensor>> {
        let buffers = self.io.iter().map(|&i| &self.buffers[i]);
        let wanted: Vec<&BufferInfo> = buffers.filter(|info| matches!(info.home, Home::Input)).collect();
        let mut check = NameCheck::new("input", "inputs", wanted.iter().map(|info| info.name.as_str()));
        let mut found = vec![None; wanted.len()];
        for (name, tensor) in given {
            if let Some(at) = check.take(name) {
                check.tensor(name, tensor, wanted[at].dtype, &wanted[at].shape);
                found[at] = Some(*tensor);
            }
        }
        check.finish()?;
        Ok(found.into_iter().flatten().collect())
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executable")
            .field("inputs", &self.inputs().collect::<Vec<_>>())
            .field("outputs", &self.outputs().collect::<Vec<_>>())
            .field("steps", &self.steps.len())
            .field("dispatches", &self.dispatches.len())
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}
