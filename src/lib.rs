//! Fused masked attention, layer norm and matmul as WGSL compute kernels on [wgpu](https://docs.rs/wgpu), orchestrated by
//! a host graph and checked, op by op, against a CPU reference.

mod error;
pub mod gpu;
pub mod graph;
pub mod guides;
pub mod kernel;
pub mod lower;
pub mod nn;
pub mod reference;
mod tensor;
pub mod workloads;

pub use error::{Error, Result};
pub use graph::{Graph, ValueId};
pub use tensor::{DType, Data, Layout, Shape, Tensor, safetensors};
