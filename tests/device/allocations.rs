//! What a run takes from the host's heap, once everything is warm: always the same, and next to nothing but what wgpu takes
//! itself. On a device of its own: wgpu's lists grow by what others do, too.

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

#[test]
fn a_run_in_the_steady_state_takes_the_same_from_the_heap_each_time() {
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
    let (short, long) = (encode(&gpu, &mut few), encode(&gpu, &mut many));
    println!("recording: {short} allocations for 4 steps, {long} for 36, {empty} for an empty pass");
    // wgpu keeps a list of commands, which grows by doubling: no allocation of a step.
    assert!(long - short <= 8, "{short} allocations for 4 steps, {long} for 36");
    // Buffers that were given before are found without the lists that a check makes.
    assert!(short <= empty + 7, "{short} allocations for 4 steps, {empty} for an empty pass");

    let x = Tensor::new([8, 32], vec![0.5f32; 256]).expect("fits");
    let runs: Vec<usize> = (0..12).map(|_| allocations(|| few.run(&[("x", &x)]).expect("runs")).0).collect();
    println!("runs: {runs:?} allocations");
    // wgpu frees and takes what it tracks when the device is done, so a run may take a few more or less; none grows.
    let steady = &runs[4..];
    let (least, most) = (steady.iter().min().expect("some"), steady.iter().max().expect("some"));
    assert!(most - least <= 16, "{runs:?}");
}
