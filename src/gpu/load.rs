//! From a program to an executable.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use super::{
    Executable, Gpu,
    device::Inner,
    executable::{Bound, BufferInfo, Dispatch, Home, Leases, StepInfo},
    given::Purpose,
    ledger::Lease,
    names::NameCheck,
    poison,
};
use crate::{
    DType, Error, Result, Shape, Tensor,
    kernel::{Launch, buffer_bytes},
    lower::{Buffer, Program, Role, Start},
};

/// Options of [`Gpu::load_with`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Watches every [`run`](Executable::run) for kernels that break their promises, at several times the cost.
    ///
    /// Outputs and temporaries, each in memory of its own, are filled with NaN, and so are the bytes behind the end of
    /// every buffer. A run is done twice, the second time with large finite numbers in place of NaN. It fails with
    /// [`Error::Guard`] if an element of an output was never written, if memory behind a buffer's end was written, or
    /// if the two runs differ in a bit: then a kernel read memory that nothing wrote, or its threads race.
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
    /// `STORAGE` and a size of whole 16-byte blocks, and is not mapped, now or during a run; several programs may share it.
    ///
    /// A state ([`Graph::update`](crate::Graph::update)) may be given in this way too. It then begins with what the
    /// buffer holds, and a program that is given [the same buffer](Executable::buffer) goes on where another stopped.
    /// To be read back and set, the buffer needs the usages `COPY_SRC` and `COPY_DST`. With the guard on, a state can't
    /// be given.
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

impl Gpu {
    /// Compiles a program's kernels, uploads its parameters and constants and allocates its temporaries.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let w = g.parameter("w", DType::F32, [2])?;
    /// let y = g.mul(x, w)?;
    /// g.output("y", y)?;
    /// # pollster::block_on(async {
    /// let gpu = Gpu::new_async().await?;
    /// let program = gpu.lower(&g, &gpu.options())?;
    /// let (x, w) = (Tensor::new([2], vec![1.0f32, 2.0])?, Tensor::new([2], vec![3.0f32, 5.0])?);
    /// let mut executable = gpu.load_async(&program, [("w", &w)]).await?;
    /// assert_eq!(executable.run_async(&[("x", &x)]).await?["y"].as_f32(), Some(&[3.0, 10.0][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`Error::Binding`] with everything that is wrong with the parameters: names missing, unknown or given twice,
    ///   wrong shapes and dtypes, buffers that are too small, without the usage `STORAGE`, mapped, destroyed or of another
    ///   device;
    /// - [`Error::Limit`] if the program, lowered for another device, needs more than this one has;
    /// - [`Error::Op`] if the program breaks a rule ([`Program::verify`]);
    /// - [`Error::Shader`] if the driver does not compile a kernel;
    /// - [errors of the device](crate::gpu#errors-of-the-device).
    pub async fn load_async(&self, program: &Program, parameters: impl Into<Parameters<'_>>) -> Result<Executable> {
        self.load_with_async(program, parameters, LoadOptions::default()).await
    }

    /// [`Gpu::load_async`] with options.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::{Gpu, LoadOptions}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// # pollster::block_on(async {
    /// let gpu = Gpu::new_async().await?;
    /// let program = gpu.lower(&g, &gpu.options())?;
    /// let mut watched = gpu.load_with_async(&program, [], LoadOptions { guard: true }).await?;
    /// let outputs = watched.run_async(&[("x", &Tensor::new([2], vec![-1.0f32, 1.0])?)]).await?;
    /// assert_eq!(outputs["y"].as_f32(), Some(&[0.0, 1.0][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::load_async`]; [`Error::Binding`] too for a state in a buffer of the caller with the guard on.
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
        let Placed { buffers, slots, leases } = gpu.place(program, parameters.into(), options.guard).await?;
        let launches = program.steps.iter().flat_map(|step| &step.kernel.launches);
        let pipelines = gpu.pipelines.get(&gpu.device, &gpu.health, launches).await?;

        let mut words: Vec<u32> = Vec::new();
        let mut steps = Vec::with_capacity(program.steps.len());
        let mut dispatches = Vec::with_capacity(pipelines.len());
        let mut pipelines = pipelines.into_iter();
        for step in &program.steps {
            let first = dispatches.len();
            let mut before: Option<&Launch> = None;
            for (launch, pipeline) in step.kernel.launches.iter().zip(&mut pipelines) {
                let goes_on = before.is_some_and(|before| before.source == launch.source);
                let behind = if goes_on { None } else { launch.behind_the_last() };
                before = Some(launch);
                dispatches.push(Dispatch {
                    label: launch.label.clone(),
                    pipeline,
                    params: gpu.push_params(&mut words, launch),
                    behind: behind.map(|behind| gpu.push_params(&mut words, &behind)),
                    goes_on,
                    seconds: launch.seconds(&gpu.profile.rates),
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
            submissions: program.in_submissions(),
            params,
            guard: options.guard,
            slots,
            temporaries: None,
            leases,
            bound: Vec::new(),
            own: None,
            #[cfg(feature = "native")]
            copies: Vec::new(),
            #[cfg(feature = "native")]
            turn: 0,
            #[cfg(feature = "native")]
            copies_differ: false,
            staging: None,
        };
        executable.make_resident().await?;
        Ok(executable)
    }

    /// [`Gpu::load_async`], blocking.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let w = g.parameter("w", DType::F32, [2])?;
    /// let y = g.mul(x, w)?;
    /// g.output("y", y)?;
    /// let gpu = Gpu::new()?;
    /// let error = gpu.load(&gpu.lower(&g, &gpu.options())?, []).unwrap_err();
    /// assert_eq!(error.to_string(), "parameter `w` is missing; the program's parameters are: `w`");
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::load_async`].
    #[cfg(feature = "native")]
    pub fn load<'a>(&self, program: &Program, parameters: impl Into<Parameters<'a>>) -> Result<Executable> {
        pollster::block_on(self.load_async(program, parameters.into()))
    }

    /// [`Gpu::load_with_async`], blocking.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::{Gpu, LoadOptions}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let gpu = Gpu::new()?;
    /// let mut watched = gpu.load_with(&gpu.lower(&g, &gpu.options())?, [], LoadOptions { guard: true })?;
    /// let outputs = watched.run(&[("x", &Tensor::new([2], vec![-1.0f32, 1.0])?)])?;
    /// assert_eq!(outputs["y"].as_f32(), Some(&[0.0, 1.0][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::load_with_async`].
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

impl Gpu {
    /// What several programs shall share: tensors are uploaded, buffers are kept. An error unless just these parameters are given.
    /// The lease has the bytes that were uploaded.
    pub(crate) async fn share(
        &self,
        wanted: &BTreeMap<String, (DType, Shape)>,
        parameters: Parameters<'_>,
    ) -> Result<(BTreeMap<String, wgpu::Buffer>, Lease)> {
        let mut check = NameCheck::new("parameter", "parameters", wanted.keys().map(String::as_str));
        for (name, value) in &parameters.given {
            if check.take(name).is_some() {
                let (dtype, shape) = &wanted[*name];
                match value {
                    Parameter::Tensor(tensor) => check.tensor(name, tensor, *dtype, shape),
                    Parameter::Buffer(given) => {
                        let bytes = buffer_bytes(*dtype, shape.checked_elements(name)?);
                        check.buffer(&self.inner, name, given.slice(..), &Purpose::storage(bytes, 1));
                    }
                }
            }
        }
        check.finish()?;
        let uploaded = parameters.given.iter().filter_map(|(_, value)| match value {
            Parameter::Tensor(tensor) => Some(buffer_bytes(tensor.dtype(), tensor.len())),
            Parameter::Buffer(_) => None,
        });
        let lease = self.inner.ledger.take("parameters that programs share", uploaded.sum())?;
        let mut buffers = BTreeMap::new();
        for (name, value) in parameters.given {
            let buffer = match value {
                Parameter::Tensor(tensor) => self.upload_async(tensor).await?,
                Parameter::Buffer(buffer) => buffer,
            };
            buffers.insert(name.to_string(), buffer);
        }
        Ok((buffers, lease))
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
    async fn place(&self, program: &Program, parameters: Parameters<'_>, guard: bool) -> Result<Placed> {
        let mut given = by_name(self, program, parameters, guard)?;
        let margin = poison::margin(guard);
        let mut slots: Vec<(String, u64)> = Vec::new();
        // By the number that `slots_of` gives.
        let mut known: HashMap<usize, usize> = HashMap::new();
        let mut fixed = 0;
        for (buffer, slot) in program.buffers.iter().zip(slots_of(program, guard)) {
            let is_given = |name: &str| matches!(given.get(name), Some(Parameter::Buffer(_)));
            match &buffer.role {
                Role::Parameter(name) | Role::State { name, .. } if is_given(name) => {}
                Role::Parameter(_) | Role::State { .. } | Role::Constant(_) => fixed += buffer.bytes + margin,
                Role::Temporary(allocation) => {
                    let bytes = if guard { buffer.bytes } else { program.allocations[*allocation] };
                    known.entry(slot).or_insert_with(|| {
                        slots.push((buffer.name.clone(), bytes + margin));
                        slots.len() - 1
                    });
                }
                Role::Input(_) | Role::Output(_) | Role::Next(_) => {}
            }
        }
        let shared: u64 = slots.iter().map(|(_, bytes)| bytes).sum();
        let what = "a program's parameters, constants, states and temporaries";
        let mut lease = self.ledger.take(what, fixed + shared)?;
        let temporaries = Some(lease.split(shared));
        let leases = Leases { fixed: lease, temporaries, own: None, copies: Vec::new() };
        let mut buffers = Vec::with_capacity(program.buffers.len());
        for (buffer, slot) in program.buffers.iter().zip(slots_of(program, guard)) {
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
                Role::State { name, start } => {
                    let bound = match (given.remove(name.as_str()), start) {
                        (Some(Parameter::Buffer(buffer)), _) => Bound { buffer, offset: 0, size: bytes },
                        (Some(Parameter::Tensor(tensor)), _) => self.constant(name, bytes, tensor, guard).await?,
                        (None, Start::Zero) => Bound::whole(self.create_buffer(name, bytes + margin).await?),
                        (None, Start::Given) => return Err(Error::Binding(format!("parameter `{name}` is missing"))),
                    };
                    (name, Home::State { bound, start: *start })
                }
                Role::Next(state) => match buffers.get(*state) {
                    Some(BufferInfo { home: Home::State { bound, .. }, .. }) => (name, Home::Next(bound.clone())),
                    _ => {
                        return Err(Error::op(
                            "program",
                            format!("buffer `{name}` comes before the state that it is the next value of"),
                        ));
                    }
                },
                Role::Temporary(_) => (name, Home::Temporary { slot: known[&slot], size: bytes + margin }),
            };
            buffers.push(BufferInfo {
                name: name.clone(),
                dtype: buffer.dtype,
                shape: buffer.shape.clone(),
                bytes,
                home,
            });
        }
        Ok(Placed { buffers, slots, leases })
    }

    async fn constant(&self, name: &str, bytes: u64, tensor: &Tensor, guard: bool) -> Result<Bound> {
        let buffer = self.create_buffer(name, bytes + poison::margin(guard)).await?;
        if guard {
            self.write(&buffer, &poison::surrounded(tensor.as_bytes(), buffer.size(), poison::POISON), name).await?;
        } else {
            self.write(&buffer, tensor.as_bytes(), name).await?;
        }
        Ok(Bound::whole(buffer))
    }
}

/// Where buffers are, and what they take.
struct Placed {
    buffers: Vec<BufferInfo>,
    slots: Vec<(String, u64)>,
    leases: Leases,
}

/// A number for the memory of each temporary: its allocation; with the guard on, one of its own, unless it takes over an
/// input's.
fn slots_of(program: &Program, guard: bool) -> Vec<usize> {
    let slot = |(i, buffer): (usize, &Buffer)| match buffer.role {
        Role::Temporary(allocation) if !guard => allocation,
        Role::Temporary(_)
        | Role::Input(_)
        | Role::Parameter(_)
        | Role::Constant(_)
        | Role::Output(_)
        | Role::State { .. }
        | Role::Next(_) => i,
    };
    let mut slots: Vec<usize> = program.buffers.iter().enumerate().map(slot).collect();
    for step in program.steps.iter().filter(|_| guard) {
        if let Some(input) = step.in_place {
            slots[step.outputs[0].0] = slots[step.inputs[input].0];
        }
    }
    slots
}

/// The given parameters by name, if they are the program's.
fn by_name<'a>(
    gpu: &Inner,
    program: &Program,
    parameters: Parameters<'a>,
    guard: bool,
) -> Result<BTreeMap<&'a str, Parameter<'a>>> {
    fn state(role: &Role) -> Option<&str> {
        if let Role::State { name, start: Start::Zero } = role { Some(name) } else { None }
    }
    let wanted = program.buffers.iter().filter_map(|buffer| Some((buffer.role.given()?, buffer)));
    let states = program.buffers.iter().filter_map(|buffer| Some((state(&buffer.role)?, buffer)));
    let mut check = NameCheck::new("parameter", "parameters", wanted.clone().map(|(name, _)| name));
    check.allow(states.clone().map(|(name, _)| name));
    let wanted: BTreeMap<_, _> = wanted.chain(states).collect();
    for (name, value) in &parameters.given {
        if check.take(name).is_some() {
            let buffer = wanted[name];
            match value {
                Parameter::Tensor(_) if matches!(buffer.role, Role::State { start: Start::Zero, .. }) => {
                    check.problem(format!(
                        "`{name}` is a state: give it a buffer, or set it (set_state) when it is loaded"
                    ));
                }
                Parameter::Buffer(_) if guard && matches!(buffer.role, Role::State { .. }) => {
                    check.problem(format!("with the guard on, the state `{name}` needs memory of its own"));
                }
                Parameter::Tensor(tensor) => check.tensor(name, tensor, buffer.dtype, &buffer.shape),
                Parameter::Buffer(given) => {
                    check.buffer(gpu, name, given.slice(..), &Purpose::storage(buffer.bytes, 1));
                }
            }
        }
    }
    check.finish()?;
    Ok(parameters.given.into_iter().collect())
}
