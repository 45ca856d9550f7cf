//! Fused masked attention, layer norm and matmul as WGSL compute kernels on [wgpu], orchestrated by a host graph and
//! checked, op by op, against a CPU reference.
//!
//! # Should I use this?
//!
//! Yes, for attention or a whole Transformer on any GPU (Vulkan, Metal, DX12, WebGPU), without CUDA and without a
//! framework; inside a program that has its own `wgpu::Device`; or to find out whether a kernel, a mask or a driver is
//! right. No, for training (there are [gradients](grad), but no optimizers and no fused backward kernels yet), for a model
//! zoo, or for the last percent of an NVIDIA GPU.
//!
//! # How it goes
//!
//! 1. Build a [`Graph`]: operations on tensors, with shapes checked as they are added. [`nn`] has whole layers.
//! 2. [`Gpu::compile`](gpu::Gpu::compile) lowers it ([`lower`] shows the result, and why) and loads it on the device.
//! 3. [`Executable::run`](gpu::Executable::run) it on host tensors, or [`encode`](gpu::Executable::encode) it into your own
//!    encoder.
//! 4. Compare with [`mod@reference`]: the plain formulas in f64.
//!
//! ```
//! use tilewise::{DType, Graph, Tensor, gpu::Gpu};
//! let mut g = Graph::new();
//! let x = g.input("x", DType::F32, [2, 3])?;
//! let y = g.softmax(x, -1)?;
//! g.output("y", y)?;
//! let x = Tensor::new([2, 3], vec![1.0f32, 1.0, 1.0, 0.0, f32::NEG_INFINITY, 0.0])?;
//! let outputs = Gpu::new()?.compile(&g, [])?.run(&[("x", &x)])?;
//! assert_eq!(outputs["y"].shape(), &[2, 3].into());
//! # Ok::<(), tilewise::Error>(())
//! ```
//!
//! The long answers are in [`guides`].
//!
//! # What is promised
//!
//! Semantic versioning covers what programs are written with:
//!
//! - [`Graph`] and [`graph`], tensors ([`Tensor`], [`quantize`], [`safetensors`]), [`nn`], [`gpu`], [`tune`], [`diff`] and
//!   [`files`]. A new
//!   major version of wgpu, which [`gpu`] hands on, is a breaking change here too.
//! - [`mod@reference`] with its [comparer](reference::compare), and [`verify`] with its [cases](verify::cases): any kernel can be
//!   held to them, yours too. There will be more cases; bounds may become tighter.
//! - Of [`lower`], [`lower()`](lower::lower()), [`Options`](lower::Options), [`Choices`](lower::Choices) and a
//!   [`Program`](lower::Program) as a whole; of [`kernel`], [`Profile`](kernel::Profile), [`buffer_bytes`](kernel::buffer_bytes)
//!   and what a kernel of your own is made of ([`Kernel`](kernel::Kernel), for [`Gpu::run_kernel`](gpu::Gpu::run_kernel)).
//!
//! All else in [`lower`] and [`kernel`] (steps, problems, variants, the WGSL), [`measure`] and `workloads` is public for the program
//! `tilewise`, the benchmarks and the tests, and for readers. It may change in any release.
//!
//! [wgpu]: https://docs.rs/wgpu

#![cfg_attr(docsrs, feature(doc_cfg))]
// A new operation, function or dtype is to be thought of everywhere: no arm takes what is not written down.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod diff;
mod error;
// For the program.
#[doc(hidden)]
pub mod fields;
#[cfg(feature = "native")]
pub mod files;
pub mod gpu;
pub mod grad;
pub mod graph;
pub mod guides;
pub mod kernel;
pub mod lower;
#[cfg(feature = "native")]
pub mod measure;
pub mod nn;
pub mod reference;
mod tensor;
pub mod train;
#[cfg(feature = "native")]
pub mod tune;
pub mod verify;
// For the program, the benchmarks and the comparison with other libraries.
#[doc(hidden)]
pub mod workloads;

pub use error::{Error, Result};
pub use graph::{Graph, ValueId};
pub use tensor::{DType, Data, Layout, Shape, Tensor, quantize, safetensors};

/// The examples of the README are compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
