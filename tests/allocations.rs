//! What a run takes from the host's heap, once everything is warm: always the same, and next to nothing but what wgpu takes
//! itself. One test, alone in its process: the counter counts for all threads.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use common::gpu;
use tilewise::{
    DType, Graph, Result, Tensor,
    gpu::{Executable, wgpu},
    lower::Options,
};

/// Counts what is asked for.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` is from `alloc` above, so from the system's allocator, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The allocations of a call.
fn count<T>(call: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let value = call();
    (ALLOCATIONS.load(Ordering::Relaxed) - before, value)
}

/// A chain of softmaxes, each a step of its own.
fn chain(steps: usize) -> Result<Executable> {
    let mut g = Graph::new();
    let mut x = g.input("x", DType::F32, [8, 32])?;
    for _ in 0..steps {
        x = g.softmax(x, -1)?;
    }
    g.output("y", x)?;
    let program = gpu().lower(&g, &Options::default())?;
    assert_eq!(program.steps.len(), steps);
    gpu().load(&program, [])
}

/// What recording takes in all: the same passes and dispatches by hand, through the same wgpu, would take as much.
fn encode(executable: &mut Executable) -> usize {
    let buffers = ["x", "y"].map(|name| executable.buffer(name).expect("made"));
    let given = [("x", buffers[0].slice(..)), ("y", buffers[1].slice(..))];
    let mut counts = (0..6).map(|_| {
        let mut encoder = gpu().device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        count(|| executable.encode(&mut encoder, &given).expect("records")).0
    });
    let (_, _) = (counts.next(), counts.next());
    let rest: Vec<usize> = counts.collect();
    assert!(rest.iter().all(|&n| n == rest[0]), "recording takes now more, now less: {rest:?}");
    rest[0]
}

#[test]
fn a_run_in_the_steady_state_takes_the_same_from_the_heap_each_time() {
    let [few, many] = [4, 36].map(|steps| chain(steps).expect("compiles"));
    let [mut few, mut many] = [few, many];
    // An empty pass: what wgpu takes for one.
    let empty: Vec<usize> = (0..4)
        .map(|_| {
            let mut encoder = gpu().device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            count(|| drop(encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()))).0
        })
        .collect();
    let empty = empty[3];
    let (short, long) = (encode(&mut few), encode(&mut many));
    println!("recording: {short} allocations for 4 steps, {long} for 36, {empty} for an empty pass");
    // wgpu keeps a list of commands, which grows by doubling: no allocation of a step.
    assert!(long - short <= 8, "{short} allocations for 4 steps, {long} for 36");
    // The check of buffers that were given before would take four more.
    assert!(short <= empty + 7, "{short} allocations for 4 steps, {empty} for an empty pass");

    let x = Tensor::new([8, 32], vec![0.5f32; 256]).expect("fits");
    let runs: Vec<usize> = (0..12).map(|_| count(|| few.run(&[("x", &x)]).expect("runs")).0).collect();
    println!("runs: {runs:?} allocations");
    // wgpu frees and takes what it tracks when the device is done, so a run may take a few more or less; none grows.
    let steady = &runs[4..];
    let (least, most) = (steady.iter().min().expect("some"), steady.iter().max().expect("some"));
    assert!(most - least <= 16, "{runs:?}");
}
