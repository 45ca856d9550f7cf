//! An open device.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicUsize},
};

use super::{adapter, bounds::Bounds, ledger::Ledger, pipeline::Pipelines, scope::Health};
use crate::{
    Result,
    kernel::Profile,
    lower::{Choices, Options},
};

/// An open device with its compiled kernels. Clones share both.
///
/// ```
/// # #[cfg(feature = "native")] {
/// let gpu = tilewise::gpu::Gpu::new()?;
/// println!("{} ({:?})", gpu.profile().adapter, gpu.profile().kind);
/// # }
/// # Ok::<(), tilewise::Error>(())
/// ```
#[derive(Clone)]
pub struct Gpu {
    pub(super) inner: Arc<Inner>,
    choices: Arc<Choices>,
}

pub(super) struct Inner {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) info: wgpu::AdapterInfo,
    pub(super) limits: wgpu::Limits,
    pub(super) features: wgpu::Features,
    pub(super) profile: Profile,
    pub(super) health: Arc<Health>,
    pub(super) pipelines: Arc<Pipelines>,
    pub(super) bounds: Bounds,
    pub(super) ledger: Arc<Ledger>,
    /// Bytes written to the queue since it was last sent off for their sake.
    pub(super) queued: AtomicUsize,
}

/// What of a device is made use of.
pub(super) struct Offer {
    pub(super) features: wgpu::Features,
    pub(super) limits: wgpu::Limits,
    pub(super) profile: Profile,
}

impl Gpu {
    pub(super) fn wrap(
        device: wgpu::Device,
        queue: wgpu::Queue,
        offer: Offer,
        pipelines: Pipelines,
        bounds: Bounds,
    ) -> Self {
        let Offer { features, limits, mut profile } = offer;
        profile.rates = bounds.rates.unwrap_or(profile.rates);
        Gpu {
            inner: Arc::new(Inner {
                health: Arc::new(Health::of(&device)),
                profile,
                info: device.adapter_info(),
                device,
                queue,
                limits,
                features,
                pipelines: Arc::new(pipelines),
                ledger: Ledger::new(bounds.memory),
                bounds,
                queued: AtomicUsize::new(0),
            }),
            choices: Arc::default(),
        }
    }

    /// The same device, for which [`compile`](Gpu::compile) takes the variants that were measured to be the fastest.
    pub fn with_choices(self, choices: Choices) -> Self {
        Gpu { choices: Arc::new(choices), ..self }
    }

    /// The options that [`compile`](Gpu::compile) lowers graphs with: the default, [what was
    /// measured](Gpu::with_choices), and how long the device's [bounds](Gpu::bounds) let work take.
    pub fn options(&self) -> Options {
        let Bounds { longest_dispatch, longest_submission, .. } = self.inner.bounds;
        Options { choices: (*self.choices).clone(), longest_dispatch, longest_submission, ..Options::default() }
    }

    /// What the device may be asked for.
    pub fn bounds(&self) -> &Bounds {
        &self.inner.bounds
    }

    /// Bytes of device memory that all executables have together: parameters that were uploaded for them, constants,
    /// states, temporaries, and what [`run`](super::Executable::run) needs beside. [`Bounds::memory`] bounds it.
    pub fn memory(&self) -> u64 {
        self.inner.ledger.held()
    }

    /// The limits and features that kernels can count on.
    pub fn profile(&self) -> &Profile {
        &self.inner.profile
    }

    /// The adapter's name, driver and kind.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.inner.info
    }

    /// The driver's name and version.
    pub fn driver(&self) -> String {
        adapter::driver(&self.inner.info)
    }

    /// The device. Errors of the caller's own commands on it are returned by the next call of this crate, unless the
    /// caller uses error scopes or installs a handler.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// The number of pipelines that are there, compiled: [`Bounds::pipelines`] bounds those that nothing uses.
    pub fn pipelines(&self) -> usize {
        self.inner.pipelines.kept()
    }

    /// The number of pipelines that were compiled. A shape that changes only sizes compiles nothing.
    pub fn compiled_pipelines(&self) -> usize {
        self.inner.pipelines.compiled()
    }

    /// Writes the compiled pipelines into the folder of [`Builder::pipeline_cache`](super::Builder::pipeline_cache). False
    /// if there is none, or if the backend keeps no such cache.
    ///
    /// ```
    /// use tilewise::gpu::Gpu;
    /// assert!(!Gpu::new()?.save_pipelines()?); // no folder was given
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format), which names the file, if it can't be written; [errors of the
    /// device](crate::gpu#errors-of-the-device).
    #[cfg(feature = "native")]
    pub fn save_pipelines(&self) -> Result<bool> {
        self.inner.health.check()?;
        self.inner.pipelines.save()
    }

    /// Whether runs can be timed on the GPU.
    pub fn has_timestamps(&self) -> bool {
        self.inner.features.contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Asks whether the device is there still, as every call does when it begins.
    ///
    /// ```
    /// use tilewise::{Error, gpu::Gpu};
    /// # pollster::block_on(async {
    /// let gpu = Gpu::new_async().await?;
    /// gpu.check()?;
    /// gpu.device().destroy();
    /// assert!(matches!(gpu.check(), Err(Error::DeviceLost(_)))); // time for a new Gpu
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost) if it is not; [`Error::Validation`](crate::Error::Validation) for an
    /// earlier command of the caller, on a device of [`Gpu::new`], that no error scope caught.
    pub fn check(&self) -> Result<()> {
        self.inner.health.check()
    }

    /// For the device-lost callback of a device given to [`Gpu::from_wgpu`]: every later call fails with this reason. That the
    /// device is lost is noticed without it too, but not why.
    pub fn report_lost(&self, reason: impl Into<String>) {
        self.inner.health.set_lost(reason);
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu")
            .field("adapter", &self.inner.info.name)
            .field("backend", &self.inner.info.backend)
            .field("driver", &self.driver())
            .finish_non_exhaustive()
    }
}
