//! What needs no adapter: the graph, lowering, the reference, layers, comparing, and the shaders in the compilers of other platforms.

#[path = "../common/mod.rs"]
mod common;

mod diff;
mod fingerprints;
mod graph;
mod kernel;
mod lower;
mod nn;
mod reference;
mod shaders;
