//! The workloads of `tilewise bench` for criterion: `cargo bench`, or `cargo bench -- attention` for some of them.
//! Run by `cargo test --benches`, each is done once, at its small size.

use std::{env, time::Duration};

use criterion::{Criterion, Throughput};
use tilewise::{Tensor, gpu::Gpu, lower, workloads};

fn main() {
    let measured = env::args().any(|argument| argument == "--bench");
    let gpu = match Gpu::new() {
        Ok(gpu) => gpu,
        Err(error) => panic!("{error}"),
    };
    let mut criterion =
        Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2)).configure_from_args();
    for workload in workloads::all(!measured).expect("the workloads are valid graphs") {
        let program = lower::lower(&workload.graph, gpu.profile(), &lower::Options::default()).expect("lowers");
        let inputs = workload.inputs().expect("inputs are drawn");
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let flops: u64 = program.steps.iter().map(lower::Step::flops).sum();
        let mut executable = gpu.load(&program, []).expect("loads");
        executable.set_inputs(&inputs).expect("fits");
        let (family, shape) = workload.name.split_once(' ').unwrap_or((workload.family, ""));
        let mut group = criterion.benchmark_group(family);
        group.throughput(Throughput::Elements(flops));
        group.bench_function(shape, |bencher| {
            bencher.iter_custom(|n| {
                // Submissions of at most 100 runs: drivers end those that take seconds.
                let mut wall = Duration::ZERO;
                let mut left = n;
                while left > 0 {
                    let runs = left.min(100);
                    wall += executable.bench(runs as u32, 4).expect("runs").wall;
                    left -= runs;
                }
                wall
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
