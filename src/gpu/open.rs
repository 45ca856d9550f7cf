//! Ways to open a device, or to take over one that is open.

#[cfg(feature = "native")]
use super::cache::PipelineFile;
use super::{
    Bounds, Gpu,
    adapter::{self, Choice},
    pipeline::Pipelines,
    self_test::tested,
};
use crate::{Error, Result, kernel::Profile};

/// Chooses an adapter and opens a device; see [`Gpu::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    choice: Choice,
    checked_shaders: bool,
    portable: bool,
    features: wgpu::Features,
    bounds: Bounds,
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
        self.choice = Choice::Name(name.into());
        self
    }

    /// Takes the adapter of this index in [`adapters`](super::adapters).
    pub fn adapter_index(mut self, index: usize) -> Self {
        self.choice = Choice::Index(index);
        self
    }

    /// Keeps the run-time checks of indices and loops in all shaders, also in those of this crate whose heads prove that
    /// they need none. The results have the same bits.
    pub fn checked_shaders(mut self, checked: bool) -> Self {
        self.checked_shaders = checked;
        self
    }

    /// Opens the device with the default limits of WebGPU and no optional feature, apart from those of
    /// [`Builder::features`], so that a program runs here as on the weakest device.
    pub fn portable(mut self, portable: bool) -> Self {
        self.portable = portable;
        self
    }

    /// Further features that the caller's own use of the device needs. [`Builder::build`] fails if the adapter lacks
    /// one.
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
    /// [`Error::NoAdapter`], with what there is and how to get more, if no adapter fits the request, if it lacks a
    /// feature of [`Builder::features`], or if it opens no device.
    pub async fn build_async(self) -> Result<Gpu> {
        let adapter = adapter::choose(&self.choice).await?;
        let optional = if self.portable { wgpu::Features::empty() } else { OPTIONAL_FEATURES & adapter.features() };
        #[cfg(feature = "native")]
        let optional = match self.pipelines {
            Some(_) => optional | (wgpu::Features::PIPELINE_CACHE & adapter.features()),
            None => optional,
        };
        let limits = if self.portable { wgpu::Limits::default() } else { adapter.limits() };
        let name = adapter.get_info().name;
        let missing = self.features - adapter.features();
        if !missing.is_empty() {
            return Err(Error::NoAdapter {
                message: format!("adapter `{name}` lacks {missing:?}, which was asked for"),
                hint: "Choose another adapter, or do without.".into(),
            });
        }
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
                ..Default::default()
            })
            .await
            .map_err(|error| Error::NoAdapter {
                message: format!("adapter `{name}` opened no device: {error}"),
                hint: "Choose another adapter, or see whether another program holds the device.".into(),
            })?;
        let pipelines = Pipelines::new(self.checked_shaders, self.bounds.pipelines_kept());
        #[cfg(feature = "native")]
        let pipelines = match &self.pipelines {
            Some(folder) => pipelines.kept_in(PipelineFile::open(&device, folder)),
            None => pipelines,
        };
        let profile = profile_on(&device, &adapter.cooperative_matrix_properties());
        let profile = tested(&device, &queue, profile, self.checked_shaders).await;
        let gpu = Gpu::wrap(device, queue, profile, pipelines, self.bounds);
        gpu.inner.health.watch(&gpu.inner.device);
        Ok(gpu)
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

    /// Chooses an adapter and what to ask of it.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Uses a device that the caller owns.
    ///
    /// Kernels then use what the device was opened with: `SHADER_F16`, `SHADER_INT64` and `SUBGROUP` if its features have them, its
    /// limits, and `TIMESTAMP_QUERY` (with `TIMESTAMP_QUERY_INSIDE_PASSES`) for times.
    ///
    /// The device's callbacks stay as they are. Errors of tilewise's own commands are caught by error scopes and do not
    /// reach the caller's handler. If the caller's device-lost callback calls [`Gpu::report_lost`], the reason appears
    /// in [`Error::DeviceLost`]; without it the loss is noticed at the next failure.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let profile = profile_on(&device, &[]);
        wrap_callers(device, queue, profile)
    }

    /// [`Gpu::from_wgpu`] with the adapter that the device is of. If the device was opened with
    /// `EXPERIMENTAL_COOPERATIVE_MATRIX`, kernels use those cooperative matrices that the adapter lists and that pass a
    /// test here, which takes some milliseconds; a device alone can't say which it has.
    pub async fn from_wgpu_adapter_async(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let profile = profile_on(&device, &adapter.cooperative_matrix_properties());
        let profile = tested(&device, &queue, profile, false).await;
        wrap_callers(device, queue, profile)
    }

    /// [`Gpu::from_wgpu_adapter_async`], waiting for the test.
    #[cfg(feature = "native")]
    pub fn from_wgpu_adapter(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        pollster::block_on(Gpu::from_wgpu_adapter_async(adapter, device, queue))
    }
}

fn wrap_callers(device: wgpu::Device, queue: wgpu::Queue, profile: Profile) -> Gpu {
    let bounds = Bounds::default();
    Gpu::wrap(device, queue, profile, Pipelines::new(false, bounds.pipelines_kept()), bounds)
}

fn profile_on(device: &wgpu::Device, cooperative: &[wgpu::CooperativeMatrixProperties]) -> Profile {
    adapter::profile(&device.adapter_info(), &device.limits(), device.features(), cooperative)
}
