//! The workloads of `tilewise bench` for criterion: `cargo bench`, or `cargo bench -- attention` for some of them.
//! Run by `cargo test --benches`, each is done once, at its small size.

use std::{env, time::Duration};

use criterion::{Criterion, Throughput};
use tilewise::{
    Tensor,
    gpu::Gpu,
    lower,
    measure::{Effort, Probe, Protocol},
    workloads::{self, Size},
};

fn main() {
    let measured = env::args().any(|argument| argument == "--bench");
    let (size, effort) = if measured { (Size::Full, Effort::Full) } else { (Size::Quick, Effort::Quick) };
    let gpu = match Gpu::new() {
        Ok(gpu) => gpu,
        Err(error) => panic!("{error}"),
    };
    // As many copies of the data as lie past the caches.
    let probe = Probe::new(&gpu, effort).expect("the ceilings can be measured");
    let protocol = Protocol::new(&probe.ceilings(), effort);
    drop(probe);
    let mut criterion =
        Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2)).configure_from_args();
    for workload in workloads::all(size).expect("the workloads are valid graphs") {
        let program = lower::lower(&workload.graph, gpu.profile(), &lower::Options::default()).expect("lowers");
        let (inputs, parameters) = (workload.inputs().expect("drawn"), workload.parameters().expect("drawn"));
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let parameters: Vec<(&str, &Tensor)> =
            parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let flops: u64 = program.steps.iter().map(lower::Step::flops).sum();
        let (family, shape) = workload.name.split_once(' ').unwrap_or((workload.family, ""));
        let mut group = criterion.benchmark_group(family);
        group.throughput(Throughput::Elements(flops));
        group.bench_function(shape, |bencher| {
            // Loaded only if the workload is chosen on the command line.
            let mut executable = gpu.load(&program, &parameters[..]).expect("loads");
            executable.set_inputs(&inputs).expect("fits");
            let (rotations, _) = protocol.rotations(executable.set_bytes());
            bencher.iter_custom(|n| {
                // Submissions of at most 100 runs: drivers end those that take seconds.
                let mut wall = Duration::ZERO;
                let mut left = n;
                while left > 0 {
                    let runs = left.min(100);
                    wall += executable.bench(runs as u32, rotations).expect("runs").wall;
                    left -= runs;
                }
                wall
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
