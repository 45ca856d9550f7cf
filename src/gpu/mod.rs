//! Floor 4: runs programs on wgpu. Everything that names wgpu is here.
//!
//! [`Gpu`] is an open device with its compiled kernels. [`Gpu::load`] makes a [`Program`](crate::lower::Program) into an
//! [`Executable`], which runs on host tensors or records itself into the caller's encoder.
//!
//! Functions whose names end in `_async` work everywhere; those without it block, and need the feature `native`. For a
//! browser, build without that feature (`default-features = false`).
//!
//! In a program that runs wgpu already, tilewise takes its device and records into its encoder:
//!
//! ```
//! # #[cfg(feature = "native")] fn main() -> tilewise::Result<()> {
//! # let (device, queue) = { let gpu = tilewise::gpu::Gpu::new()?; (gpu.device().clone(), gpu.queue().clone()) };
//! use tilewise::{DType, Graph, Tensor, gpu::{Gpu, wgpu}, kernel::buffer_bytes};
//!
//! let mut graph = Graph::new();
//! let x = graph.input("x", DType::F32, [2, 3])?;
//! let y = graph.relu(x)?;
//! graph.output("y", y)?;
//!
//! let gpu = Gpu::from_wgpu(device.clone(), queue.clone());
//! let mut program = gpu.compile(&graph, [])?;
//!
//! let buffer = || device.create_buffer(&wgpu::BufferDescriptor {
//!     label: None,
//!     size: buffer_bytes(DType::F32, 2 * 3),
//!     usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
//!     mapped_at_creation: false,
//! });
//! let (before, after) = (buffer(), buffer());
//! let values = Tensor::new([2, 3], vec![-1.0f32, 2.0, -3.0, 4.0, -5.0, 6.0])?;
//! queue.write_buffer(&before, 0, values.as_bytes());
//!
//! let mut encoder = device.create_command_encoder(&Default::default());
//! // … the caller's own commands …
//! program.encode(&mut encoder, &[("x", before.slice(..)), ("y", after.slice(..))])?;
//! // … and more of them …
//! queue.submit([encoder.finish()]);
//!
//! let y = gpu.download(after.slice(..), DType::F32, [2, 3])?;
//! assert_eq!(y.as_f32(), Some(&[0.0, 2.0, 0.0, 4.0, 0.0, 6.0][..]));
//! # Ok(()) }
//! # #[cfg(not(feature = "native"))] fn main() {}
//! ```
//!
//! # Work that takes long
//!
//! The driver of a GPU ends what runs for seconds, with the loss of the device, and a screen that the GPU draws stands still
//! meanwhile. So dispatches that may take long are cut into pieces when a graph is lowered, with the same bits, and a run becomes
//! several submissions: by default half a second and a second at the most, as the kernels' formulas and the device's
//! [rates](crate::kernel::Rates) have it. Nothing ends what a software adapter does, and nothing is cut there. [`Bounds`] has
//! other figures and rates, and the printed program shows what was cut. Into the caller's encoder
//! [`encode`](Executable::encode) records everything; [`encode_steps`](Executable::encode_steps) and
//! [`encode_dispatches`](Executable::encode_dispatches) record a part, for as many frames as it takes.
//!
//! A call that waits fails with [`Error::Timeout`](crate::Error::Timeout) if a submission doesn't end ([`Bounds::wait`]).
//!
//! # Errors of the device
//!
//! Every call that reaches the device can fail in four ways:
//!
//! - [`Error::OutOfMemory`](crate::Error::OutOfMemory): it has no memory left for a buffer;
//! - [`Error::DeviceLost`](crate::Error::DeviceLost): it is gone, by whatever cause, a lack of memory that the driver did not
//!   survive too. Every later call fails alike, on this [`Gpu`], its clones and all that was made on it; make a new one;
//! - [`Error::Timeout`](crate::Error::Timeout): it did not finish in time;
//! - [`Error::Validation`](crate::Error::Validation): it rejected a command. That is a fault of tilewise or of the driver, or
//!   one of the caller's own earlier commands on a device of [`Gpu::new`], if no error scope caught it.
//!
//! What is wrong with a caller's buffer is an [`Error::Binding`](crate::Error::Binding) that names it. Errors of tilewise's
//! commands reach neither the caller's error scopes nor the caller's handler.

mod adapter;
mod bindings;
mod bounds;
#[cfg(feature = "native")]
mod cache;
mod compile;
mod device;
mod executable;
mod given;
mod guard;
mod ledger;
mod load;
mod names;
mod open;
mod parts;
mod pause;
mod pending;
mod pipeline;
mod poison;
mod queue;
mod run;
mod scope;
mod self_test;
mod state;
#[cfg(feature = "native")]
mod timing;
mod transfer;
mod trim;
mod warm_up;

#[cfg(feature = "native")]
pub use adapter::adapters;
pub use adapter::{Adapter, adapters_async};
pub use bounds::Bounds;
pub use device::Gpu;
pub use executable::{Executable, Outputs};
pub(crate) use ledger::Lease;
pub use load::{LoadOptions, Parameters};
pub use open::Builder;
pub use parts::StepRange;
pub(crate) use queue::Records;
#[cfg(feature = "native")]
pub use timing::{RunProfile, StepTime, Timing};
pub(crate) use transfer::Wait;
pub use wgpu;
