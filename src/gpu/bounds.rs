//! What a device may be asked for.

use std::time::Duration;

use crate::kernel::{Profile, Rates};

/// Bounds on what tilewise asks of a device: see [`Builder::bounds`](super::Builder::bounds). What is `None` has a default that
/// goes by the kind of device.
///
/// ```
/// use std::time::Duration;
/// use tilewise::gpu::{Bounds, Gpu};
/// // A screen is drawn with this GPU: nothing may hold it for longer than 4 ms.
/// let frame = Some(Duration::from_millis(4));
/// let bounds = Bounds { longest_dispatch: frame, longest_submission: frame, ..Bounds::default() };
/// let gpu = Gpu::builder().bounds(bounds).build()?;
/// assert_eq!(gpu.options().longest_dispatch, frame);
/// # Ok::<(), tilewise::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// How long one dispatch may take; see [`lower::Options::longest_dispatch`](crate::lower::Options::longest_dispatch).
    pub longest_dispatch: Option<Duration>,
    /// How long one submission may take; see [`lower::Options::longest_submission`](crate::lower::Options::longest_submission).
    pub longest_submission: Option<Duration>,
    /// How fast the device is taken to be. `None`: what a slow one of its kind reaches. `tilewise::measure` finds out
    /// ([`Ceilings::rates`](crate::measure::Ceilings::rates)).
    pub rates: Option<Rates>,
    /// How long a call waits for a submission before it fails with [`Error::Timeout`](crate::Error::Timeout). `None`: a minute
    /// for a GPU, whose watchdog should have ended it long before, and an hour for a software adapter. In a browser nothing
    /// is timed: let the future race with a timer.
    pub wait: Option<Duration>,
    /// Bytes of device memory that all executables may have together, with parameters that were uploaded for them. Buffers of
    /// the caller, which [`Gpu::upload`](super::Gpu::upload) makes too, don't count. `None`: as many as the device gives.
    pub memory: Option<u64>,
    /// How many compiled pipelines are kept for later programs. Those that a living executable runs are always kept, and count.
    /// `None`: 512.
    pub pipelines: Option<usize>,
}

impl Bounds {
    pub(super) fn wait_of(&self, profile: &Profile) -> Duration {
        let default = if profile.watchdog().is_some() { Duration::from_secs(60) } else { Duration::from_secs(3600) };
        self.wait.unwrap_or(default)
    }

    pub(super) fn pipelines_kept(&self) -> usize {
        self.pipelines.unwrap_or(512)
    }
}
