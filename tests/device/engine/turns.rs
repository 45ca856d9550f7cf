//! What is awaited leaves an executor of one thread to its other tasks. Turns are counted, not timed.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tilewise::Graph;

use super::*;
use crate::{common::another_gpu, heap::allocations};

/// Whether a task was woken since it was polled last.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// How an executor of one thread fared.
struct Turns<T> {
    value: T,
    /// How often the future was polled.
    polls: usize,
    /// How often another task, which always has something to do, had its turn before it was ready.
    others: usize,
    /// What the longest poll of the future took from this thread's heap: what it did there, in a number that is always the same.
    longest: usize,
}

fn turns<T>(future: impl Future<Output = T>) -> Turns<T> {
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let (mut polls, mut others, mut longest) = (0, 0, 0);
    loop {
        if woken.0.swap(false, Ordering::Acquire) {
            polls += 1;
            let (taken, polled) = allocations(|| future.as_mut().poll(&mut context));
            longest = longest.max(taken);
            if let Poll::Ready(value) = polled {
                return Turns { value, polls, others, longest };
            }
        }
        others += 1;
        std::thread::yield_now();
    }
}

#[test]
fn an_upload_of_128_mib_lets_others_have_a_turn_every_4_mib() {
    let gpu = another_gpu();
    let tensor = Tensor::zeros(DType::U32, [(128 << 20) / 4]).expect("fits");
    let uploaded = turns(gpu.upload_async(&tensor));
    let buffer = uploaded.value.expect("uploads");
    assert_eq!((uploaded.polls, uploaded.others), (33, 32));
    // So does the way back, whose wait is another thread's.
    let back = turns(gpu.download_async(buffer.slice(..), DType::U32, [(128 << 20) / 4]));
    assert_eq!(back.value.expect("downloads"), tensor);
    assert!(back.polls >= 33 && back.others >= 32, "{} polls, {} turns", back.polls, back.others);
}

#[test]
fn a_run_on_large_tensors_lets_others_have_a_turn_as_well() {
    let n = (32 << 20) / 4;
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [n]).expect("valid");
    let w = g.parameter("w", DType::F32, [n]).expect("valid");
    let y = g.add(x, w).expect("valid");
    g.output("y", y).expect("valid");
    let gpu = another_gpu();
    let (x, w) = (Tensor::new([n], vec![1.0f32; n]).expect("fits"), Tensor::new([n], vec![2.0f32; n]).expect("fits"));
    let loaded = turns(gpu.compile_async(&g, [("w", &w)]));
    assert!(loaded.others >= 8, "{} turns", loaded.others);
    let mut program = loaded.value.expect("compiles");
    let inputs = [("x", &x)];
    let ran = turns(program.run_async(&inputs));
    assert_eq!(ran.value.expect("runs")["y"].as_f32().map(|y| y[n - 1]), Some(3.0));
    assert!(ran.polls >= 8 && ran.others >= 8, "{} polls, {} turns", ran.polls, ran.others);
}

#[test]
fn compiling_is_no_work_of_the_executors_thread() {
    let gpu = another_gpu();
    let mut g = Graph::new();
    let build = |g: &mut Graph| {
        let x = g.input("x", DType::F32, [16, 64])?;
        let (w, bias) = (g.parameter("w", DType::F32, [64, 64])?, g.parameter("bias", DType::F32, [64])?);
        let y = g.linear(x, w, Some(bias))?;
        let y = g.softmax(y, -1)?;
        let y = g.layer_norm(y, None, None, 1e-5)?;
        let y = g.reduce(tilewise::graph::Reduce::Sum, y, &[0], false)?;
        g.output("y", y)
    };
    build(&mut g).expect("valid");
    let program = gpu.lower(&g, &gpu.options()).expect("lowers");
    let source = program.steps[0].kernel.launches[0].source.wgsl.clone();
    // What reading one of the shaders takes, and no more: naga's part, without the driver's.
    let (one, module) = allocations(|| {
        gpu.device().create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        })
    });
    drop(module);
    let (w, bias) =
        (Tensor::zeros(DType::F32, [64, 64]).expect("fits"), Tensor::zeros(DType::F32, [64]).expect("fits"));
    let loaded = turns(gpu.load_async(&program, [("w", &w), ("bias", &bias)]));
    loaded.value.expect("compiles");
    let compiled = gpu.compiled_pipelines();
    assert!(compiled >= 4, "{compiled} pipelines");
    assert!(loaded.others >= compiled, "{} turns", loaded.others);
    assert!(loaded.longest < one, "{} allocations in a poll, {one} to read a shader", loaded.longest);
}
