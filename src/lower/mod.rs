//! Floor 3: from a graph to a [`Program`]. Pure functions; nothing here names wgpu.

mod program;

pub use program::{Buffer, BufferId, Note, Program, Role, Step};
