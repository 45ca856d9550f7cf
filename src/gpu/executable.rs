use std::{collections::BTreeMap, fmt, ops::Range};

use super::{
    Gpu,
    bindings::{Bound, BoundSet},
    names::NameCheck,
    pipeline::Pipeline,
    scope::scoped,
    transfer::Wait,
};
use crate::{DType, Result, Shape, Tensor, kernel::Access};

/// The outputs of a run, by name.
pub type Outputs = BTreeMap<String, Tensor>;

/// A program on a device: pipelines compiled, parameters uploaded, temporaries allocated. [`Gpu::load`] makes it.
///
/// [`run`](Executable::run) takes and returns host tensors; [`encode`](Executable::encode) records into the caller's
/// encoder, with the caller's buffers. After the first run neither allocates device memory.
pub struct Executable {
    pub(super) gpu: Gpu,
    pub(super) buffers: Vec<BufferInfo>,
    /// The buffers that are bound for each run, in the order of the program.
    pub(super) io: Vec<usize>,
    pub(super) steps: Vec<StepInfo>,
    pub(super) dispatches: Vec<Dispatch>,
    /// The parameters of all dispatches; it lives as long as the bind groups that name it.
    pub(super) params: wgpu::Buffer,
    pub(super) guard: bool,
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
    /// The same in all runs; its content is of no use after one.
    Temporary(Bound),
    /// The same in all runs, each of which takes up what the last one left.
    State(Bound),
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
    pub(super) pipeline: Pipeline,
    pub(super) params: Range<u64>,
    pub(super) bindings: Vec<(usize, Access)>,
    pub(super) grid: [u32; 3],
    /// The bind group, if none of the buffers is bound anew for each run.
    pub(super) group: Option<wgpu::BindGroup>,
}

/// Memory of the host that the device can copy from and to: a buffer for each input, mapped between runs, and one for
/// each output.
pub(super) struct Staging {
    inputs: Vec<wgpu::Buffer>,
    outputs: Vec<wgpu::Buffer>,
}

impl Executable {
    /// Runs the program on host tensors and returns its outputs.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// # pollster::block_on(async {
    /// let mut program = Gpu::new_async().await?.compile_async(&g, []).await?;
    /// let outputs = program.run_async(&[("x", &Tensor::new([2], vec![-1.0f32, 1.0])?)]).await?;
    /// assert_eq!(outputs["y"].as_f32(), Some(&[0.0, 1.0][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`](crate::Error::Binding) with everything that is wrong with the inputs: names missing, unknown
    /// or given twice, wrong shapes and dtypes; [`Error::Guard`](crate::Error::Guard) if the program was loaded with
    /// [`LoadOptions::guard`](super::LoadOptions::guard) and a kernel broke a promise; [errors of the
    /// device](crate::gpu#errors-of-the-device).
    pub async fn run_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        self.run_with(inputs, Wait::Wake).await
    }

    /// [`Executable::run_async`], waiting for the outputs.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// let error = program.run(&[("x", &Tensor::zeros(DType::F32, [3])?)]).unwrap_err();
    /// assert_eq!(error.to_string(), "`x` is f32 [3], expected f32 [2]; the program's inputs are: `x`");
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Executable::run_async`].
    #[cfg(feature = "native")]
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        pollster::block_on(self.run_with(inputs, Wait::Block))
    }

    /// [`Executable::run_async`], waiting in the given way.
    pub(crate) async fn run_with(&mut self, inputs: &[(&str, &Tensor)], wait: Wait) -> Result<Outputs> {
        self.gpu.inner.health.check()?;
        let inputs = self.check_inputs(inputs)?;
        if self.guard {
            return self.run_guarded(&inputs, wait).await;
        }
        #[cfg(feature = "native")]
        {
            self.copies_differ = true;
        }
        let set = self.bind_own().await?;
        // If this run fails or is dropped half-way, the next one makes new staging buffers.
        let staging = match self.staging.take() {
            Some(staging) => staging,
            None => self.create_staging().await?,
        };
        let gpu = &*self.gpu.inner;
        for (buffer, tensor) in staging.inputs.iter().zip(&inputs) {
            let mut view = gpu.mapped_mut(buffer)?;
            let bytes = tensor.as_bytes();
            view.slice(..bytes.len()).copy_from_slice(bytes);
        }
        let own = self.own_buffers();
        let submission = scoped(&gpu.device, &gpu.health, "a run", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for (staging, (info, bound)) in staging.inputs.iter().zip(own.inputs()) {
                staging.unmap();
                encoder.copy_buffer_to_buffer(staging, 0, &bound.buffer, 0, info.bytes);
            }
            self.record_pass(&mut encoder, &self.bound[set].groups);
            for (staging, (info, bound)) in staging.outputs.iter().zip(own.outputs()) {
                encoder.copy_buffer_to_buffer(&bound.buffer, 0, staging, 0, info.bytes);
            }
            gpu.queue.submit([encoder.finish()])
        })
        .await?;
        self.gpu.map(&staging.outputs, &staging.inputs, submission, wait).await?;
        let mut outputs = Outputs::new();
        for (buffer, (info, _)) in staging.outputs.iter().zip(own.outputs()) {
            let view = gpu.mapped(buffer)?;
            outputs.insert(info.name.clone(), Tensor::from_bytes(info.dtype, &info.shape, &view)?);
            drop(view);
            buffer.unmap();
        }
        self.staging = Some(staging);
        Ok(outputs)
    }

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
        let wanted = || self.io.iter().map(|&i| &self.buffers[i]).filter(|info| matches!(info.home, Home::Input));
        let mut check = NameCheck::new("input", "inputs", wanted().map(|info| info.name.as_str()));
        let mut found = BTreeMap::new();
        for (name, tensor) in given {
            if check.take(name)
                && let Some(info) = wanted().find(|info| info.name == *name)
            {
                check.tensor(name, tensor, info.dtype, &info.shape);
                found.insert(info.name.as_str(), *tensor);
            }
        }
        check.finish()?;
        Ok(wanted().filter_map(|info| found.get(info.name.as_str()).copied()).collect())
    }

    async fn create_staging(&self) -> Result<Staging> {
        let mut staging = Staging { inputs: Vec::new(), outputs: Vec::new() };
        for &i in &self.io {
            let info = &self.buffers[i];
            let (mode, list) = match info.home {
                Home::Input => (wgpu::MapMode::Write, &mut staging.inputs),
                _ => (wgpu::MapMode::Read, &mut staging.outputs),
            };
            list.push(self.gpu.inner.create_mapped(&info.name, info.bytes, mode).await?);
        }
        Ok(staging)
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
