//! What needs an adapter, real or software: every kernel against the reference, the engine, whole graphs and models.
//!
//! All tests share one device, and so its compiled pipelines ([`common::gpu`]): compiling is most of what they take their time for.

#[path = "../common/mod.rs"]
mod common;
mod families;
#[path = "../common/fuzz.rs"]
mod fuzzers;
mod heap;

// The families of kernels.
mod append;
mod argmax;
mod attention;
mod attention_grad;
mod attention_merge;
mod ceiling;
mod copy;
mod cross_entropy;
mod dequantize;
mod dropout;
mod gather;
mod matmul;
mod norm;
mod pointwise;
mod reduce;
mod rotary;
mod scatter_add;
mod softmax;

// All families together.
mod mutations;
mod not_finite;
mod trusted;
mod verify;

// What runs them.
mod allocations;
mod diff;
mod engine;
mod measure;
mod memory;
mod train;
mod tune;

// Graphs and models.
mod decode;
mod fuzz;
mod generate;
mod grad;
mod graphs;
mod guides;
mod masks;
mod models;
mod scale;
