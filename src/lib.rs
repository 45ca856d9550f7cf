//! temporary
pub mod error;
pub mod graph;
pub mod kernel;
pub mod lower;
pub mod tensor;
pub use error::{Error, Result};
pub use tensor::{DType, Data, Layout, Shape, Tensor};
