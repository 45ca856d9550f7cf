//! Floor 1: the graph, an immutable-by-construction list of operations on tensors.
mod op;

pub use op::{Align, Attention, AttentionOperand, Binary, Op, Reduce, Unary, Window};
