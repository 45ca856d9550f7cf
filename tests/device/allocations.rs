//! What a run takes from the host's heap, once everything is warm: always the same, and next to nothing but what wgpu takes
//! itself. On a device of its own: wgpu's lists grow by what others do, too.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tilewise::{
    DType, Graph, Result, Tensor,
    gpu::{Executable, Gpu, wgpu},
    lower::Options,
};

use crate::{common::another_gpu, heap::allocations};

/// A chain of softmaxes, each a step of its own.
fn chain(gpu: &Gpu, steps: usize) -> Result<Executable> {
    let mut g = Graph::new();
    let mut x = g.input("x", DType::F32, [8, 32])?;
    for _ in 0..steps {
        x = g.softmax(x, -1)?;
    }
    g.output("y", x)?;
    let program = gpu.lower(&g, &Options::default())?;
    assert_eq!(program.steps.len(), steps);
    gpu.load(&program, [])
}

/// What recording takes in all: the same passes and dispatches by hand, through the same wgpu, would take as much.
fn encode(gpu: &Gpu, executable: &mut Executable) -> usize {
    let buffers = ["x", "y"].map(|name| executable.buffer(name).expect("made"));
    let given = [("x", buffers[0].slice(..)), ("y", buffers[1].slice(..))];
    let mut counts = (0..6).map(|_| {
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        allocations(|| executable.encode(&mut encoder, &given).expect("records")).0
    });
    let (_, _) = (counts.next(), counts.next());
    let rest: Vec<usize> = counts.collect();
    assert!(rest.iter().all(|&n| n == rest[0]), "recording takes now more, now less: {rest:?}");
    rest[0]
}

/// What wgpu's lists of the commands of a pass take, for four steps.
const LISTS: usize = 5;

/// What it takes to ask whether the device is there and how the recording went: a scope each, and for the first a buffer that is
/// mapped.
fn asked(gpu: &Gpu) -> usize {
    let device = gpu.device();
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let scope = || drop(device.push_error_scope(wgpu::ErrorFilter::Validation).pop());
    let counts = [(); 3].map(|()| {
        let answer = Arc::new(AtomicBool::new(false));
        let map = || {
            buffer.map_async(wgpu::MapMode::Read, .., move |mapped| answer.store(mapped.is_ok(), Ordering::Relaxed));
            buffer.unmap();
        };
        allocations(|| [scope(), map(), scope()]).0
    });
    counts[2]
}

/// In a process of its own: with `RUST_BACKTRACE` set, wgpu notes on the heap where it takes its locks.
#[test]
fn a_run_in_the_steady_state_takes_the_same_from_the_heap_each_time() {
    const CHILD: &str = "RUST_LIB_BACKTRACE";
    if std::env::var(CHILD).as_deref() != Ok("0") {
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "allocations::a_run_in_the_steady_state_takes_the_same_from_the_heap_each_time"])
            .args(["--nocapture"])
            .env(CHILD, "0")
            .output()
            .expect("starts");
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        println!("{out}");
        assert!(output.status.success() && out.contains("1 passed"), "{err}");
        return;
    }
    let gpu = another_gpu();
    let [few, many] = [4, 36].map(|steps| chain(&gpu, steps).expect("compiles"));
    let [mut few, mut many] = [few, many];
    // An empty pass: what wgpu takes for one.
    let empty: Vec<usize> = (0..4)
        .map(|_| {
            let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            allocations(|| drop(encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()))).0
        })
        .collect();
    let empty = empty[3];
    let asked = asked(&gpu);
    let (short, long) = (encode(&gpu, &mut few), encode(&gpu, &mut many));
    println!(
        "recording: {short} allocations for 4 steps, {long} for 36, {empty} for an empty pass, {asked} for questions"
    );
    // Buffers that were given before are found without the lists that a check makes. What is left is wgpu's own: the lists of a
    // pass, of which three grow by doubling.
    assert_eq!(short, empty + asked + LISTS);
    assert_eq!(long, short + 3);

    let x = Tensor::new([8, 32], vec![0.5f32; 256]).expect("fits");
    let runs: Vec<usize> = (0..12).map(|_| allocations(|| few.run(&[("x", &x)]).expect("runs")).0).collect();
    println!("runs: {runs:?} allocations");
    // wgpu frees and takes what it tracks when the device is done, so a run may take a few more or less; none grows.
    let steady = &runs[4..];
    let (least, most) = (steady.iter().min().expect("some"), steady.iter().max().expect("some"));
    assert!(most - least <= 16, "{runs:?}");
}
