//! What needs no adapter: the graph, lowering, the reference, layers, comparing, and the shaders in the compilers of other platforms.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/fuzz.rs"]
mod fuzzers;

mod diff;
mod docs;
mod fingerprints;
mod floors;
mod fuzz;
mod generate;
mod grad;
mod graph;
mod kernel;
mod large;
mod lower;
mod messages;
mod models;
mod nn;
mod published;
mod quantize;
mod reference;
mod scale;
mod shaders;
mod train;
