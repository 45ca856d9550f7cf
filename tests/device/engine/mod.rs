//! The engine, on hand-made programs: nothing here depends on a kernel of the crate.

mod program;

mod callers_buffers;
mod choosing;
mod failures;
mod guarded;
mod lost;
mod memory;
mod names;
mod parts;
mod running;
mod times;
mod turns;

use program::{Builder, INCREMENT, SCALE, add, kernel, sample, sample_outputs, scale, vector};
use tilewise::{
    DType, Error, Result, Shape, Tensor,
    gpu::{Executable, Gpu, LoadOptions, Parameters, adapters, wgpu},
    kernel::{AdapterKind, Kernel, Operand},
    lower::{Program, Role},
};

use crate::common::gpu;

fn ramp(n: usize, step: f32) -> Tensor {
    vector((0..n).map(|i| i as f32 * step))
}

fn check_sample(executable: &mut Executable, n: usize, w: &Tensor) {
    let x = ramp(n, 0.25);
    let outputs = executable.run(&[("x", &x)]).expect("runs");
    let [y, z] = sample_outputs(&x, w);
    assert_eq!(outputs["y"], y);
    assert_eq!(outputs["z"], z);
    assert_eq!(outputs.len(), 2);
}

#[track_caller]
fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.expect_err("an error was expected").to_string()
}
