//! Floor 0: element types, shapes, strided layouts and tensors on the host.

mod dtype;
mod host;
pub(crate) mod json;
mod layout;
pub mod quantize;
pub mod safetensors;
mod shape;

pub use dtype::DType;
pub use host::{Data, Tensor};
pub use layout::Layout;
pub use shape::Shape;
