//! Ways to open a device, or to take over one that is open.

#[cfg(feature = "native")]
use super::cache::PipelineFile;
use super::{
    Bounds, Gpu,
    adapter::{self, Choice, Search},
    device::Offer,
    pipeline::Pipelines,
    self_test::tested,
};
use crate::{Error, Result};

/// What is wanted from a device, in one place: [`build`](Builder::build) opens one, and [`adopt`](Builder::adopt) takes one
/// that is open.
///
/// | | to open one | of one that is open |
/// |---|---|---|
/// | `adapter`, `adapter_index`, `backends`, `power` | choose the adapter | say nothing |
/// | `memory_hints`, `memory_percent` | say how memory is taken | say nothing |
/// | `features`, `limits` | are asked for | have to be there |
/// | `portable`, `checked_shaders`, `pipeline_cache` | apply | apply |
#[derive(Clone, Debug, Default)]
pub struct Builder {
    search: Search,
    checked_shaders: bool,
    portable: bool,
    features: wgpu::Features,
    bounds: Bounds,
    limits: Option<wgpu::Limits>,
    memory_hints: wgpu::MemoryHints,
    #[cfg(feature = "native")]
    pipelines: Option<std::path::PathBuf>,
}

/// Features that kernels or timing make use of where they are offered.
const OPTIONAL_FEATURES: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);

impl Builder {
    /// Takes the first adapter whose name contains this text, in any case.
    pub fn adapter(mut self, name: impl Into<String>) -> Self {
        self.search.choice = Choice::Name(name.into());
        self
    }

    /// Takes the adapter of this index in [`adapters`](super::adapters).
    pub fn adapter_index(mut self, index: usize) -> Self {
        self.search.choice = Choice::Index(index);
        self
    }

    /// Looks only at these backends, whatever the environment variable `WGPU_BACKEND` says.
    pub fn backends(mut self, backends: wgpu::Backends) -> Self {
        self.search.backends = Some(backends);
        self
    }

    /// Whether a GPU that takes little power comes before one that is fast; otherwise the environment variable
    /// `WGPU_POWER_PREF` (`low`, `high` or `none`) says so.
    pub fn power(mut self, power: wgpu::PowerPreference) -> Self {
        self.search.power = Some(power);
        self
    }

    /// How wgpu takes memory from the driver: in large blocks, or as little as possible.
    pub fn memory_hints(mut self, hints: wgpu::MemoryHints) -> Self {
        self.memory_hints = hints;
        self
    }

    /// Refuses buffers, with [`Error::OutOfMemory`], once so many percent of what the driver grants this process are taken.
    /// Only Vulkan, with `VK_EXT_memory_budget`, and DX12 say how much that is.
    pub fn memory_percent(mut self, percent: u8) -> Self {
        self.search.memory_percent = Some(percent);
        self
    }

    /// Keeps the run-time checks of indices and loops in all shaders, also in those of this crate whose heads prove that
    /// they need none. The results have the same bits.
    pub fn checked_shaders(mut self, checked: bool) -> Self {
        self.checked_shaders = checked;
        self
    }

    /// Makes use of the default limits of WebGPU and of no optional feature, apart from [`Builder::limits`] and
    /// [`Builder::features`], so that a program runs here as on the weakest device.
    pub fn portable(mut self, portable: bool) -> Self {
        self.portable = portable;
        self
    }

    /// Further features that the caller's own use of the device needs. It is an error if one is lacking.
    pub fn features(mut self, features: wgpu::Features) -> Self {
        self.features = features;
        self
    }

    /// How long the device may be kept busy at a time, how long a call may wait for it, and how much memory and how many
    /// pipelines executables may have.
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Limits that the caller's own use of the device needs. It is an error if one is not reached.
    pub fn limits(mut self, limits: wgpu::Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Keeps compiled pipelines in a file of this folder, one for each device and driver: those that
    /// [`Gpu::save_pipelines`] wrote need not be compiled again. Only Vulkan can do so; most desktop drivers have caches of
    /// their own and gain nothing.
    #[cfg(feature = "native")]
    pub fn pipeline_cache(mut self, folder: impl Into<std::path::PathBuf>) -> Self {
        self.pipelines = Some(folder.into());
        self
    }

    /// Opens the device.
    ///
    /// ```
    /// # pollster::block_on(async {
    /// use tilewise::gpu::Gpu;
    /// let gpu = Gpu::builder().portable(true).build_async().await?;
    /// assert_eq!(gpu.profile().limits.storage_buffers, 8); // WebGPU's default
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoAdapter`], with what there is and what to do, if no adapter fits the request, if it lacks a feature of
    /// [`Builder::features`] or a limit of [`Builder::limits`], or if it opens no device; [`Error::DeviceLost`] if the device
    /// is lost at once.
    pub async fn build_async(self) -> Result<Gpu> {
        let adapter = self.search.choose().await?;
        let name = adapter.get_info().name;
        self.require(&format!("adapter `{name}`"), adapter.features(), &adapter.limits())?;
        let optional = if self.portable { wgpu::Features::empty() } else { OPTIONAL_FEATURES & adapter.features() };
        #[cfg(feature = "native")]
        let optional = match self.pipelines {
            Some(_) => optional | (wgpu::Features::PIPELINE_CACHE & adapter.features()),
            None => optional,
        };
        let limits = if self.portable { self.portable_limits() } else { adapter.limits() };
        let experimental = if optional.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            // SAFETY: an experimental feature may have undefined behaviour that wgpu doesn't catch. Of the one that is asked
            // for, only `matmul/coop.wesl` and `attention/coop.wesl` make use, in shapes that the adapter lists, with every index proved in its head;
            // and only after the device got products right whose results are known (`self_test.rs`).
            unsafe { wgpu::ExperimentalFeatures::enabled() }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        };
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("tilewise"),
                required_features: optional | self.features,
                required_limits: limits,
                experimental_features: experimental,
                memory_hints: self.memory_hints.clone(),
                ..Default::default()
            })
            .await
            .map_err(|error| Error::NoAdapter {
                message: format!("adapter `{name}` opened no device: {error}"),
                hint: "Choose another adapter, or see whether another program holds the device.".into(),
            })?;
        let gpu = self.test_and_wrap(&adapter, device, queue).await;
        gpu.inner.health.watch(&gpu.inner.device);
        gpu.inner.health.check()?;
        Ok(gpu)
    }

    /// An error unless what the caller needs is there.
    fn require(&self, what: &str, features: wgpu::Features, limits: &wgpu::Limits) -> Result<()> {
        let missing = self.features - features;
        let mut lacking: Vec<String> = missing.iter_names().map(|(name, _)| name.to_string()).collect();
        if let Some(wanted) = &self.limits {
            wanted.check_limits_with_fail_fn(limits, false, |name, wanted, has| {
                lacking.push(format!("{name} of {wanted} (it has {has})"));
            });
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let message = format!("{what} lacks {}, asked for by the program", lacking.join(" and "));
        Err(Error::NoAdapter { message, hint: "Choose another, or do without.".into() })
    }

    fn portable_limits(&self) -> wgpu::Limits {
        let wanted = self.limits.clone().unwrap_or_default();
        wanted.or_better_values_from(&wgpu::Limits::default())
    }

    /// What kernels may use of a device that is open.
    fn offer(&self, device: &wgpu::Device, cooperative: &[wgpu::CooperativeMatrixProperties]) -> Offer {
        let (mut features, mut limits) = (device.features(), device.limits());
        if self.portable {
            features &= self.features;
            limits = limits.or_worse_values_from(&self.portable_limits());
        }
        let profile = adapter::profile(&device.adapter_info(), &limits, features, cooperative);
        Offer { features, limits, profile }
    }

    fn wrap(self, device: wgpu::Device, queue: wgpu::Queue, offer: Offer) -> Gpu {
        let pipelines = Pipelines::new(self.checked_shaders, self.bounds.pipelines_kept());
        #[cfg(feature = "native")]
        let pipelines = match &self.pipelines {
            Some(folder) => pipelines.kept_in(PipelineFile::open(&device, folder)),
            None => pipelines,
        };
        Gpu::wrap(device, queue, offer, pipelines, self.bounds)
    }

    /// [`Builder::wrap`], after a test of what no specification covers.
    async fn test_and_wrap(self, adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Gpu {
        let offer = self.offer(&device, &adapter.cooperative_matrix_properties());
        let profile = tested(&device, &queue, offer.profile, self.checked_shaders).await;
        self.wrap(device, queue, Offer { profile, ..offer })
    }

    /// Uses a device that the caller owns, as [`Gpu::from_wgpu`] does, with these options.
    ///
    /// ```
    /// use tilewise::gpu::Gpu;
    /// # pollster::block_on(async {
    /// # let (device, queue) = { let gpu = Gpu::new_async().await?; (gpu.device().clone(), gpu.queue().clone()) };
    /// let gpu = Gpu::builder().portable(true).checked_shaders(true).adopt(device, queue)?;
    /// assert_eq!(gpu.profile().limits.storage_buffers, 8); // WebGPU's default, whatever the device has
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if the device lacks a feature of [`Builder::features`] or a limit of [`Builder::limits`];
    /// [`Error::DeviceLost`] if it is lost.
    pub fn adopt(self, device: wgpu::Device, queue: wgpu::Queue) -> Result<Gpu> {
        self.require("the device", device.features(), &device.limits())?;
        let offer = self.offer(&device, &[]);
        let gpu = self.wrap(device, queue, offer).noticing_loss();
        gpu.inner.health.check()?;
        Ok(gpu)
    }

    /// [`Builder::adopt`] with the adapter that the device is of, as [`Gpu::from_wgpu_adapter_async`].
    ///
    /// ```
    /// use tilewise::gpu::{Gpu, wgpu};
    /// # pollster::block_on(async {
    /// let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    /// let adapter = instance.request_adapter(&Default::default()).await.expect("there is one");
    /// let (device, queue) = adapter.request_device(&Default::default()).await.expect("it opens");
    /// let gpu = Gpu::builder().checked_shaders(true).adopt_of_async(&adapter, device, queue).await?;
    /// assert_eq!(gpu.info().name, adapter.get_info().name);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Builder::adopt`].
    pub async fn adopt_of_async(
        self,
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
    ) -> Result<Gpu> {
        self.require("the device", device.features(), &device.limits())?;
        let gpu = self.test_and_wrap(adapter, device, queue).await.noticing_loss();
        gpu.inner.health.check()?;
        Ok(gpu)
    }

    /// [`Builder::adopt_of_async`], waiting for the test.
    ///
    /// ```
    /// use tilewise::gpu::{Gpu, wgpu};
    /// let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    /// let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("there is one");
    /// let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).expect("it opens");
    /// let error = Gpu::builder().features(wgpu::Features::SHADER_F16).adopt_of(&adapter, device, queue).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "the device lacks SHADER_F16, asked for by the program\nChoose another, or do without."
    /// );
    /// ```
    ///
    /// # Errors
    /// As [`Builder::adopt`].
    #[cfg(feature = "native")]
    pub fn adopt_of(self, adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Gpu> {
        pollster::block_on(self.adopt_of_async(adapter, device, queue))
    }

    /// [`Builder::build_async`], waiting for the device.
    ///
    /// ```
    /// use tilewise::gpu::Gpu;
    /// let error = Gpu::builder().adapter("no such adapter").build().unwrap_err();
    /// assert!(error.to_string().starts_with("an adapter named `no such adapter` was asked for"));
    /// ```
    ///
    /// # Errors
    /// As [`Builder::build_async`].
    #[cfg(feature = "native")]
    pub fn build(self) -> Result<Gpu> {
        pollster::block_on(self.build_async())
    }
}

impl Gpu {
    /// Opens the default adapter: the one that the environment variable `WGPU_ADAPTER_NAME` names (a part of its name,
    /// in any case), or else a real GPU before a software one.
    ///
    /// ```
    /// use tilewise::gpu::{Gpu, adapters};
    /// let gpu = Gpu::new()?;
    /// assert!(adapters().iter().any(|adapter| adapter.name == gpu.info().name));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Builder::build_async`].
    #[cfg(feature = "native")]
    pub fn new() -> Result<Self> {
        Builder::default().build()
    }

    /// [`Gpu::new`] without blocking.
    ///
    /// ```
    /// # pollster::block_on(async {
    /// use tilewise::gpu::{Gpu, adapters_async};
    /// let gpu = Gpu::new_async().await?;
    /// assert!(adapters_async().await.iter().any(|adapter| adapter.name == gpu.info().name));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Builder::build_async`].
    pub async fn new_async() -> Result<Self> {
        Builder::default().build_async().await
    }

    /// What is wanted from a device, to be opened or to be taken over.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Uses a device that the caller owns; [`Builder::adopt`] does with options.
    ///
    /// Kernels then use what the device was opened with: `SHADER_F16`, `SHADER_INT64` and `SUBGROUP` if its features have them, its
    /// limits, and `TIMESTAMP_QUERY` (with `TIMESTAMP_QUERY_INSIDE_PASSES`) for times.
    ///
    /// The device's callbacks stay as they are. Errors of tilewise's own commands are caught by error scopes and do not
    /// reach the caller's handler. That the device is lost is noticed by the next call; why, only if the caller's device-lost
    /// callback calls [`Gpu::report_lost`] (in a browser, where a device can have several callbacks, tilewise has one of its
    /// own).
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let builder = Builder::default();
        let offer = builder.offer(&device, &[]);
        builder.wrap(device, queue, offer).noticing_loss()
    }

    /// [`Gpu::from_wgpu`] with the adapter that the device is of. If the device was opened with
    /// `EXPERIMENTAL_COOPERATIVE_MATRIX`, kernels use those cooperative matrices that the adapter lists and that pass a
    /// test here, which takes some milliseconds; a device alone can't say which it has.
    pub async fn from_wgpu_adapter_async(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Builder::default().test_and_wrap(adapter, device, queue).await.noticing_loss()
    }

    /// [`Gpu::from_wgpu_adapter_async`], waiting for the test.
    #[cfg(feature = "native")]
    pub fn from_wgpu_adapter(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        pollster::block_on(Gpu::from_wgpu_adapter_async(adapter, device, queue))
    }

    /// In a browser callbacks of a device's loss add up.
    fn noticing_loss(self) -> Self {
        if cfg!(target_arch = "wasm32") {
            self.inner.health.watch_loss(&self.inner.device);
        }
        self
    }
}
