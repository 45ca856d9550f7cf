//! Floor 5: how fast programs run, and how far that is from the limits of the device.
//!
//! [`Probe`] measures the limits of the adapter, with special kernels, and gives [`Ceilings`]. [`Timed`] times a
//! program: warmed up, many runs a sample, on data that rotates past the caches. [`Ceilings::bound`] gives the shortest possible
//! time of the program, and what limits it. [`Breakdown`] shows where the time of a program goes, [`HostCost`] the host's part
//! of a run.
//!
//! ```
//! use tilewise::{gpu::Gpu, lower, measure::{Effort, Probe, Protocol, Timed}, workloads};
//! let gpu = Gpu::new()?;
//! let mut probe = Probe::new(&gpu, Effort::Quick)?;
//! let workload = &workloads::all(workloads::Size::Quick)?[0];
//! let program = lower::lower(&workload.graph, gpu.profile(), &Default::default())?;
//! let protocol = Protocol::new(&probe.ceilings(), Effort::Quick);
//! let mut timed = Timed::new(&gpu, &program, &workload.values()?, &protocol)?;
//! for _ in 0..3 {
//!     // In turns, so that a disturbance affects all alike.
//!     probe.sample()?;
//!     timed.sample()?;
//! }
//! let times = timed.times();
//! if let Some(bound) = probe.ceilings().bound(&program, times.past_cache) {
//!     println!("{:.0} % of what {} allows", 100.0 * bound.seconds / times.seconds().median, bound.limit);
//! }
//! # Ok::<(), tilewise::Error>(())
//! ```

mod bound;
mod breakdown;
mod ceilings;
mod host;
mod probe;
mod statistics;
mod timed;

pub use bound::{Bound, Limit};
pub use breakdown::{Breakdown, Saved, StepTimes};
pub use ceilings::{Bandwidth, Ceilings, Exponentials, Moving};
pub use host::HostCost;
pub use probe::Probe;
pub use statistics::{Statistics, Verdict};
pub use timed::{Protocol, Timed, Times};

/// How thorough to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// One run a sample and small data: shows that all runs. The figures mean little.
    Quick,
    /// Samples that are long enough for the clock, and data past the caches.
    Full,
}
