use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Range,
};

use super::{
    Gpu,
    bindings::{Bound, BoundSet},
    device::Inner,
    guard,
    pipeline::Pipeline,
    scope::scoped,
    transfer::Wait,
};
use crate::{
    DType, Error, Result, Shape, Tensor,
    kernel::{Access, Launch},
    lower::{Program, Role},
};

/// The outputs of a run, by name.
pub type Outputs = BTreeMap<String, Tensor>;

/// A program on a device: pipelines compiled, parameters uploaded, temporaries allocated. Made by [`Gpu::load`].
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
    staging: Option<Staging>,
}

/// Options of [`Gpu::load_with`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Watches every [`run`](Executable::run) for kernels that break their promises, at several times the cost.
    ///
    /// Outputs and temporaries, each in memory of its own, are filled with NaN, and so are the bytes behind the end of
    /// every buffer. A run is done twice, the second time with large finite numbers in place of NaN. It fails
    /// with [`Error::Guard`] if an element of an output was never written, if memory behind a buffer's end was written,
    /// or if the two runs differ in a bit: then a kernel read memory that nothing wrote, or its threads race.
    ///
    /// A kernel must not ask for the length of a buffer (`arrayLength`): it is larger here.
    pub guard: bool,
}

/// Parameters of a program, by name, as tensors or as buffers of the caller.
///
/// Arrays, slices and maps of named tensors turn into it:
///
/// ```
/// use tilewise::{Tensor, gpu::Parameters};
/// let weight = Tensor::scalar(2.0);
/// let parameters: Parameters = [("weight", &weight)].into();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Parameters<'a> {
    given: Vec<(&'a str, Parameter<'a>)>,
}

#[derive(Clone, Debug)]
enum Parameter<'a> {
    Tensor(&'a Tensor),
    Buffer(wgpu::Buffer),
}

impl<'a> Parameters<'a> {
    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter that is uploaded.
    pub fn tensor(mut self, name: &'a str, tensor: &'a Tensor) -> Self {
        self.given.push((name, Parameter::Tensor(tensor)));
        self
    }

    /// Adds a parameter that lies in the caller's buffer, row-major from its start. The buffer needs the usage
    /// `STORAGE` and a size of whole 16-byte blocks; several programs may share it.
    pub fn buffer(mut self, name: &'a str, buffer: wgpu::Buffer) -> Self {
        self.given.push((name, Parameter::Buffer(buffer)));
        self
    }
}

impl<'a> FromIterator<(&'a str, &'a Tensor)> for Parameters<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a Tensor)>>(parameters: I) -> Self {
        Parameters { given: parameters.into_iter().map(|(name, tensor)| (name, Parameter::Tensor(tensor))).collect() }
    }
}

impl<'a, const N: usize> From<[(&'a str, &'a Tensor); N]> for Parameters<'a> {
    fn from(parameters: [(&'a str, &'a Tensor); N]) -> Self {
        parameters.into_iter().collect()
    }
}

impl<'a, const N: usize> From<&'a [(&'a str, &'a Tensor); N]> for Parameters<'a> {
    fn from(parameters: &'a [(&'a str, &'a Tensor); N]) -> Self {
        parameters.iter().copied().collect()
    }
}

impl<'a> From<&'a [(&'a str, &'a Tensor)]> for Parameters<'a> {
    fn from(parameters: &'a [(&'a str, &'a Tensor)]) -> Self {
        parameters.iter().copied().collect()
    }
}

impl<'a> From<&'a BTreeMap<String, Tensor>> for Parameters<'a> {
    fn from(parameters: &'a BTreeMap<String, Tensor>) -> Self {
        parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }
}

impl<'a> From<&'a HashMap<String, Tensor>> for Parameters<'a> {
    fn from(parameters: &'a HashMap<String, Tensor>) -> Self {
        parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }
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
    pub(super) step: usize,
    pub(super) pipeline: Pipeline,
    pub(super) params: Range<u64>,
    pub(super) bindings: Vec<(usize, Access)>,
    pub(super) grid: [u32; 3],
    /// The bind group, if none of the buffers is bound anew for each run.
    pub(super) group: Option<wgpu::BindGroup>,
}

/// Memory of the host that the device can copy from and to: a buffer for each input, mapped between runs, and one for
/// each output.
struct Staging {
    inputs: Vec<wgpu::Buffer>,
    outputs: Vec<wgpu::Buffer>,
}

impl Gpu {
    /// Compiles a program's kernels, uploads its parameters and constants and allocates its temporaries.
    pub async fn load_async(&self, program: &Program, parameters: impl Into<Parameters<'_>>) -> Result<Executable> {
        self.load_with_async(program, parameters, LoadOptions::default()).await
    }

    /// [`Gpu::load_async`] with options.
    pub async fn load_with_async(
        &self,
        program: &Program,
        parameters: impl Into<Parameters<'_>>,
        options: LoadOptions,
    ) -> Result<Executable> {
        let gpu = &*self.inner;
        gpu.health.check()?;
        program.verify()?;
        gpu.check_program(program)?;
        let buffers = gpu.place(program, parameters.into(), options.guard).await?;
        let pipelines = gpu.pipelines.get(gpu, program.steps.iter().flat_map(|step| &step.kernel.launches)).await?;

        let mut words: Vec<u32> = Vec::new();
        let mut steps = Vec::with_capacity(program.steps.len());
        let mut dispatches = Vec::with_capacity(pipelines.len());
        let mut pipelines = pipelines.into_iter();
        for (index, step) in program.steps.iter().enumerate() {
            let first = dispatches.len();
            for (launch, pipeline) in step.kernel.launches.iter().zip(&mut pipelines) {
                dispatches.push(Dispatch {
                    label: launch.label.clone(),
                    step: index,
                    pipeline,
                    params: gpu.push_params(&mut words, launch),
                    bindings: launch.bindings.iter().map(|b| (step.buffer(b.operand).0, b.access)).collect(),
                    grid: launch.grid,
                    group: None,
                });
            }
            steps.push(StepInfo {
                label: format!("{} {}: {}", step.family, step.variant, step.summary),
                flops: step.flops(),
                bytes: step.bytes(),
                dispatches: first..dispatches.len(),
            });
        }
        let params = gpu
            .create(&wgpu::BufferDescriptor {
                label: Some("parameters"),
                size: (words.len() as u64 * 4).max(16),
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
            .await?;
        gpu.write(&params, bytemuck::cast_slice(&words), "parameters").await?;

        let io = (0..buffers.len()).filter(|&i| matches!(buffers[i].home, Home::Input | Home::Output)).collect();
        let mut executable = Executable {
            gpu: self.clone(),
            buffers,
            io,
            steps,
            dispatches,
            params,
            guard: options.guard,
            bound: Vec::new(),
            own: None,
            staging: None,
        };
        executable.bind_fixed().await?;
        Ok(executable)
    }

    /// [`Gpu::load_async`], blocking.
    #[cfg(feature = "native")]
    pub fn load<'a>(&self, program: &Program, parameters: impl Into<Parameters<'a>>) -> Result<Executable> {
        pollster::block_on(self.load_async(program, parameters.into()))
    }

    /// [`Gpu::load_with_async`], blocking.
    #[cfg(feature = "native")]
    pub fn load_with<'a>(
        &self,
        program: &Program,
        parameters: impl Into<Parameters<'a>>,
        options: LoadOptions,
    ) -> Result<Executable> {
        pollster::block_on(self.load_with_async(program, parameters.into(), options))
    }
}

impl Inner {
    /// An error if the program needs more than this device has.
    fn check_program(&self, program: &Program) -> Result<()> {
        for step in &program.steps {
            for launch in &step.kernel.launches {
                let what = |what: &str| format!("{} {}: {}: {what}", step.family, step.variant, launch.label);
                let limit = |given: u64, limit: u64, name: &str| {
                    if given <= limit {
                        return Ok(());
                    }
                    let hint = "lower the graph for this device's profile".to_string();
                    Err(Error::Limit { what: what(name), value: given, limit, hint })
                };
                let limits = &self.limits;
                limit(
                    launch.bindings.len() as u64,
                    limits.max_storage_buffers_per_shader_stage.into(),
                    "storage buffers (max_storage_buffers_per_shader_stage)",
                )?;
                for size in launch.grid {
                    limit(
                        size.into(),
                        limits.max_compute_workgroups_per_dimension.into(),
                        "workgroups (max_compute_workgroups_per_dimension)",
                    )?;
                }
                limit(
                    launch.params.len() as u64 * 4,
                    limits.max_uniform_buffer_binding_size,
                    "bytes of parameters (max_uniform_buffer_binding_size)",
                )?;
            }
        }
        program.buffers.iter().try_for_each(|buffer| self.check_size(&buffer.name, buffer.bytes))
    }

    /// Appends the parameters of a launch at an offset that may be bound, in whole 16-byte blocks.
    fn push_params(&self, words: &mut Vec<u32>, launch: &Launch) -> Range<u64> {
        let align = self.limits.min_uniform_buffer_offset_alignment as usize / 4;
        words.resize(words.len().next_multiple_of(align.max(4)), 0);
        let start = words.len();
        words.extend(&launch.params);
        words.resize(start + launch.params.len().next_multiple_of(4).max(4), 0);
        start as u64 * 4..words.len() as u64 * 4
    }

    /// Finds a place for each buffer, and fills parameters and constants.
    async fn place(&self, program: &Program, parameters: Parameters<'_>, guard: bool) -> Result<Vec<BufferInfo>> {
        let mut given = by_name(program, parameters)?;
        let temporaries = self.place_temporaries(program, guard).await?;
        let mut buffers = Vec::with_capacity(program.buffers.len());
        for (i, buffer) in program.buffers.iter().enumerate() {
            let (name, bytes) = (&buffer.name, buffer.bytes);
            let (name, home) = match &buffer.role {
                Role::Input(name) => (name, Home::Input),
                Role::Output(name) => (name, Home::Output),
                Role::Parameter(name) => match given.remove(name.as_str()) {
                    Some(Parameter::Buffer(buffer)) => (name, Home::Constant(Bound { buffer, offset: 0, size: bytes })),
                    Some(Parameter::Tensor(tensor)) => {
                        (name, Home::Constant(self.constant(name, bytes, tensor, guard).await?))
                    }
                    None => return Err(Error::Binding(format!("parameter `{name}` is missing"))),
                },
                Role::Constant(tensor) => (name, Home::Constant(self.constant(name, bytes, tensor, guard).await?)),
                Role::Temporary(_) => {
                    let Some(bound) = temporaries.get(&i) else {
                        return Err(Error::op("program", format!("temporary `{name}` has no memory")));
                    };
                    (name, Home::Temporary(bound.clone()))
                }
            };
            buffers.push(BufferInfo {
                name: name.clone(),
                dtype: buffer.dtype,
                shape: buffer.shape.clone(),
                bytes,
                home,
            });
        }
        Ok(buffers)
    }

    /// Memory for each temporary: the planned allocations; with the guard on, its own, unless it takes over an input's.
    async fn place_temporaries(&self, program: &Program, guard: bool) -> Result<HashMap<usize, Bound>> {
        let mut memory: Vec<Bound> = Vec::new();
        if !guard {
            for (i, &bytes) in program.allocations.iter().enumerate() {
                memory.push(Bound::whole(self.create_buffer(&format!("temporary {i}"), bytes.max(16)).await?));
            }
        }
        // The temporary whose memory another one takes over, in place.
        let mut origins: HashMap<usize, usize> = HashMap::new();
        for step in &program.steps {
            if let Some(input) = step.in_place.and_then(|input| step.inputs.get(input))
                && let Some(output) = step.outputs.first()
            {
                let origin = origins.get(&input.0).copied().unwrap_or(input.0);
                origins.insert(output.0, origin);
            }
        }
        let mut temporaries = HashMap::new();
        for (i, buffer) in program.buffers.iter().enumerate() {
            let Role::Temporary(allocation) = buffer.role else { continue };
            let bound = if guard {
                let origin = origins.get(&i).copied().unwrap_or(i);
                match temporaries.get(&origin) {
                    Some(bound) => Bound::clone(bound),
                    None => {
                        let bound = Bound::whole(self.create_buffer(&buffer.name, buffer.bytes + guard::MARGIN).await?);
                        temporaries.insert(origin, bound.clone());
                        bound
                    }
                }
            } else {
                Bound { size: buffer.bytes, ..memory[allocation].clone() }
            };
            temporaries.insert(i, bound);
        }
        Ok(temporaries)
    }

    async fn constant(&self, name: &str, bytes: u64, tensor: &Tensor, guard: bool) -> Result<Bound> {
        let buffer = self.create_buffer(name, bytes + if guard { guard::MARGIN } else { 0 }).await?;
        if guard {
            self.write(&buffer, &guard::surrounded(tensor.as_bytes(), buffer.size(), guard::POISON), name).await?;
        } else {
            self.write(&buffer, tensor.as_bytes(), name).await?;
        }
        Ok(Bound::whole(buffer))
    }
}

/// The given parameters by name, if they are the program's.
fn by_name<'a>(program: &Program, parameters: Parameters<'a>) -> Result<BTreeMap<&'a str, Parameter<'a>>> {
    let wanted = program.buffers.iter().filter_map(|buffer| match &buffer.role {
        Role::Parameter(name) => Some((name.as_str(), buffer)),
        _ => None,
    });
    let mut check = NameCheck::new("parameter", wanted.clone().map(|(name, _)| name));
    let wanted: BTreeMap<_, _> = wanted.collect();
    for (name, value) in &parameters.given {
        if check.take(name) {
            let buffer = wanted[name];
            match value {
                Parameter::Tensor(tensor) => check.tensor(name, tensor, buffer.dtype, &buffer.shape),
                Parameter::Buffer(given) => {
                    check.buffer(name, given.slice(..), buffer.bytes, 1);
                }
            }
        }
    }
    check.finish()?;
    Ok(parameters.given.into_iter().collect())
}

/// Gathers everything that is wrong with a list of named things, so that one error can say it all.
pub(super) struct NameCheck<'a> {
    kind: &'static str,
    missing: Vec<&'a str>,
    wanted: Vec<&'a str>,
    problems: Vec<String>,
}

impl<'a> NameCheck<'a> {
    pub(super) fn new(kind: &'static str, wanted: impl Iterator<Item = &'a str>) -> Self {
        let wanted: Vec<&str> = wanted.collect();
        NameCheck { kind, missing: wanted.clone(), wanted, problems: Vec::new() }
    }

    /// Whether the name is wanted and given for the first time.
    pub(super) fn take(&mut self, name: &str) -> bool {
        if let Some(at) = self.missing.iter().position(|missing| *missing == name) {
            self.missing.remove(at);
            return true;
        }
        self.problems.push(if self.wanted.contains(&name) {
            format!("`{name}` is given twice")
        } else {
            format!("there is no {} `{name}`", self.kind)
        });
        false
    }

    pub(super) fn tensor(&mut self, name: &str, tensor: &Tensor, dtype: DType, shape: &Shape) {
        if tensor.dtype() != dtype || tensor.shape() != shape {
            let (given, is) = (tensor.dtype(), tensor.shape());
            self.problems.push(format!("`{name}` is {given} {is}, expected {dtype} {shape}"));
        }
    }

    pub(super) fn buffer(&mut self, name: &str, given: wgpu::BufferSlice<'_>, bytes: u64, alignment: u64) {
        if !given.buffer().usage().contains(wgpu::BufferUsages::STORAGE) {
            self.problems.push(format!("the buffer of `{name}` lacks the usage STORAGE"));
        }
        if given.size() < bytes {
            self.problems.push(format!(
                "the buffer of `{name}` has {} bytes from offset {}, expected at least {bytes} (whole 16-byte blocks)",
                given.size(),
                given.offset()
            ));
        }
        if given.offset() % alignment != 0 {
            self.problems.push(format!(
                "the buffer of `{name}` starts at offset {}, expected a multiple of {alignment}",
                given.offset()
            ));
        }
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.problems.extend(self.missing.iter().map(|name| format!("{} `{name}` is missing", self.kind)));
        if self.problems.is_empty() {
            return Ok(());
        }
        let list = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Err(Error::Binding(format!(
            "{}; the program's {}s are: {}",
            self.problems.join("; "),
            self.kind,
            if self.wanted.is_empty() { "none".into() } else { list(&self.wanted) }
        )))
    }
}

impl Executable {
    /// Runs the program on host tensors and returns its outputs.
    ///
    /// # Errors
    /// [`Error::Binding`] says everything that is wrong with the inputs: names missing, unknown or given twice, wrong
    /// shapes and dtypes. Errors of the device are returned as such.
    pub async fn run_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        self.run_with(inputs, Wait::Wake).await
    }

    /// [`Executable::run_async`], waiting for the outputs.
    #[cfg(feature = "native")]
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        pollster::block_on(self.run_with(inputs, Wait::Block))
    }

    async fn run_with(&mut self, inputs: &[(&str, &Tensor)], wait: Wait) -> Result<Outputs> {
        self.gpu.inner.health.check()?;
        let inputs = self.check_inputs(inputs)?;
        if self.guard {
            return self.run_guarded(&inputs, wait).await;
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
            self.record_pass(&mut encoder, set);
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

    /// The inputs in the program's order, if they are what it wants.
    pub(super) fn check_inputs<'a>(&self, given: &[(&str, &'a Tensor)]) -> Result<Vec<&'a Tensor>> {
        let wanted = || self.io.iter().map(|&i| &self.buffers[i]).filter(|info| matches!(info.home, Home::Input));
        let mut check = NameCheck::new("input", wanted().map(|info| info.name.as_str()));
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
        let names = |want: fn(&Home) -> bool| -> Vec<&str> {
            self.buffers.iter().filter(|info| want(&info.home)).map(|info| info.name.as_str()).collect()
        };
        f.debug_struct("Executable")
            .field("inputs", &names(|home| matches!(home, Home::Input)))
            .field("outputs", &names(|home| matches!(home, Home::Output)))
            .field("steps", &self.steps.len())
            .field("dispatches", &self.dispatches.len())
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}
