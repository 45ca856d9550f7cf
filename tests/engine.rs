//! The engine, on hand-made programs: nothing here depends on a kernel of the crate.

mod common;

use std::sync::Arc;

use common::gpu;
use tilewise::{
    DType, Error, Shape, Tensor,
    kernel::{Binding, Kernel, Launch, Operand, Source},
};

const SCALE: &str = "
struct Params { n: u32, factor: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.n { y[id.x] = p.factor * x[id.x]; }
}";

/// `y = factor · x` for `n` elements.
fn scale(n: u32, factor: f32) -> Kernel {
    one_launch(SCALE, &[n, factor.to_bits()], n.div_ceil(64))
}

fn one_launch(wgsl: &str, params: &[u32], workgroups: u32) -> Kernel {
    let launch = Launch {
        label: "main".into(),
        source: Arc::new(Source::new("test", wgsl)),
        bindings: vec![Binding::read(Operand::Input(0)), Binding::write(Operand::Output(0))],
        params: params.to_vec(),
        grid: [workgroups, 1, 1],
        flops: 0,
        bytes: 0,
    };
    Kernel { launches: vec![launch], scratch: Vec::new() }
}

fn vector(values: impl IntoIterator<Item = f32>) -> Tensor {
    let values: Vec<f32> = values.into_iter().collect();
    Tensor::new([values.len()], values).expect("a vector")
}

#[test]
fn a_kernel_runs() {
    let x = vector((0..1000).map(|i| i as f32));
    let y = gpu().run_kernel(&scale(1000, 3.0), &[&x], &[(DType::F32, Shape::from([1000]))]).expect("runs");
    assert_eq!(y, [vector((0..1000).map(|i| 3.0 * i as f32))]);
}

fn guard_message(kernel: &Kernel, n: usize) -> String {
    let x = vector((0..n).map(|i| i as f32));
    match gpu().run_kernel(kernel, &[&x], &[(DType::F32, Shape::from([n]))]) {
        Err(Error::Guard(message)) => message,
        other => panic!("expected Error::Guard, got {other:?}"),
    }
}

#[test]
fn an_unwritten_element_is_found() {
    let message = guard_message(&scale(99, 3.0), 100);
    assert!(
        message.starts_with("`output 0` (written by step 0, kernel given: main): element 99 ([99]) was never"),
        "{message}"
    );
}

#[test]
fn a_write_behind_the_end_is_found() {
    let message = guard_message(&scale(101, 3.0), 100);
    assert!(message.contains("32-bit word 0 behind its end (400 bytes) was overwritten"), "{message}");
}

#[test]
fn a_read_of_unwritten_memory_is_found() {
    // max drops a NaN, so the first run looks right.
    let wgsl = "
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < p.n { y[id.x] = max(x[id.x], y[id.x]); }
}";
    let message = guard_message(&one_launch(wgsl, &[64], 1), 64);
    assert!(message.contains("in one run and 0x6f6f6f6f in the next"), "{message}");
}
