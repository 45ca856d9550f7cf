//! Floor 4: runs programs on wgpu. Everything that names wgpu is here.
//!
//! [`Gpu`] is an open device with its compiled kernels. [`Gpu::load`] makes a [`Program`](crate::lower::Program) into an
//! [`Executable`], which runs on host tensors or records itself into the caller's encoder.
//!
//! Functions whose names end in `_async` work everywhere; those without it block, and need the feature `native`.

mod adapter;
mod bindings;
mod compile;
mod device;
mod executable;
mod guard;
mod load;
mod names;
mod pipeline;
mod scope;
#[cfg(feature = "native")]
mod timing;
mod transfer;

#[cfg(feature = "native")]
pub use adapter::adapters;
pub use adapter::{Adapter, adapters_async};
pub use device::{Builder, Gpu};
pub use executable::{Executable, Outputs};
pub use load::{LoadOptions, Parameters};
#[cfg(feature = "native")]
pub use timing::{RunProfile, StepTime, Timing};
pub use wgpu;
