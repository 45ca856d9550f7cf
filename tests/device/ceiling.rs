//! The kernels that measure what a device can do: that they do it, every variant, and what they count.

use tilewise::{
    DType, Shape, Tensor,
    kernel::{Arithmetic, CeilingProblem, Kernel, Problem},
};

use crate::common::gpu;

/// Every variant that can run, watched: with the kernel and its output.
fn run(problem: CeilingProblem) -> Vec<(&'static str, Kernel, Vec<f32>)> {
    let profile = gpu().profile();
    let candidates = problem.candidates(profile);
    let usable = candidates.iter().filter(|candidate| candidate.is_usable());
    usable
        .map(|candidate| {
            let kernel = problem.kernel(candidate.variant, profile).expect("usable");
            let (input, output) = problem.elements(&kernel);
            let input = input.map(|n| vector((0..n).map(|i| (i % 1021) as f32 - 510.0)));
            let outputs = [(DType::F32, Shape::from([output]))];
            let found =
                gpu().run_kernel(&kernel, &input.iter().collect::<Vec<_>>(), &outputs).expect(candidate.variant);
            (candidate.variant, kernel, found[0].as_f32().expect("f32").to_vec())
        })
        .collect()
}

fn vector(values: impl Iterator<Item = f32>) -> Tensor {
    let values: Vec<f32> = values.collect();
    Tensor::new([values.len()], values).expect("a vector")
}

#[test]
fn a_copy_has_every_word_once() {
    for bytes in [1, 1 << 20, 3 << 20].map(CeilingProblem::whole) {
        let found = run(CeilingProblem::Copy { bytes });
        assert_eq!(found.len(), if gpu().profile().shader_int64 { 5 } else { 4 });
        for (variant, kernel, y) in found {
            let n = bytes as usize / 4;
            assert_eq!((y.len(), kernel.launches[0].bytes), (n, 2 * bytes), "{variant}");
            assert!(y.iter().enumerate().all(|(i, y)| *y == (i % 1021) as f32 - 510.0), "{variant}, {bytes} bytes");
        }
    }
}

#[test]
fn a_read_sums_every_word_once() {
    for bytes in [1, 1 << 20, 3 << 20].map(CeilingProblem::whole) {
        let found = run(CeilingProblem::Read { bytes });
        assert_eq!(found.len(), if gpu().profile().shader_int64 { 4 } else { 3 });
        for (variant, kernel, sums) in found {
            let n = bytes as usize / 4;
            assert_eq!(kernel.launches[0].bytes, bytes);
            // Small integers: sums of f32 are exact in any order.
            let sum: f64 = sums.iter().copied().map(f64::from).sum();
            assert_eq!(sum, (0..n).map(|i| (i % 1021) as f64 - 510.0).sum::<f64>(), "{variant}, {bytes} bytes");
        }
    }
}

/// `x ← 0.75 x + 0.5` ends at 2, wherever it begins: each chain has been through all its steps.
#[test]
fn every_chain_is_multiplied_through() {
    for arithmetic in [Arithmetic::F32, Arithmetic::F16] {
        let found = run(CeilingProblem::Multiply(arithmetic));
        let can = arithmetic == Arithmetic::F32 || gpu().profile().shader_f16;
        assert_eq!(found.len(), if can { 3 } else { 0 });
        for (variant, kernel, sums) in found {
            let pair = if arithmetic == Arithmetic::F16 { 2 } else { 1 };
            let chains = variant.rsplit_once(" x").expect("chains").1.parse::<usize>().expect("a number") * pair;
            // The roundings of f16 end a little below.
            let near = |sum: f32| (sum - 2.0 * chains as f32).abs() < 0.01 * chains as f32;
            assert!(sums.iter().all(|&sum| near(sum)), "{variant}: {} for {chains} chains", sums[0]);
            // Two operations a step, and steps enough for the last digit.
            let flops = kernel.launches[0].flops as usize;
            assert_eq!(flops % (2 * chains * sums.len()), 0, "{variant}");
            assert!(flops / (2 * chains * sums.len()) >= 60, "{variant}");
        }
    }
}

/// `x ← exp(−x)` ends at 0.567 (which is its own, the omega constant), wherever it begins.
#[test]
fn every_chain_is_exponentiated_through() {
    let found = run(CeilingProblem::Exponential);
    assert_eq!(found.len(), 3);
    for (variant, kernel, sums) in found {
        let chains = variant.rsplit_once(" x").expect("chains").1.parse::<usize>().expect("a number");
        let near = |sum: f32| (sum - 0.567_143 * chains as f32).abs() < 1e-3 * chains as f32;
        assert!(sums.iter().all(|&sum| near(sum)), "{variant}: {} for {chains} chains", sums[0]);
        let all = kernel.launches[0].exponentials as usize;
        assert_eq!((all % (chains * sums.len()), kernel.launches[0].flops), (0, 0), "{variant}");
        assert!(all / (chains * sums.len()) >= 16, "{variant}");
    }
}

/// Each product of matrices adds 1 to each element of its sum.
#[test]
fn every_matrix_is_multiplied_through() {
    let profile = gpu().profile();
    let found = run(CeilingProblem::Multiply(Arithmetic::Cooperative));
    if profile.cooperative_matrices.is_empty() {
        println!("{} has no cooperative matrices: that they are refused is all that is tested here", profile.adapter);
        assert!(found.is_empty());
        return;
    }
    let size = profile.cooperative_matrices.iter().map(|matrix| matrix.m).max().expect("some") as usize;
    let lanes = profile.fixed_subgroup().expect("matrices need subgroups of one size") as usize;
    for (variant, kernel, sums) in found {
        let products = kernel.launches[0].flops as usize / (2 * size.pow(3)) / (sums.len() / lanes);
        assert!(
            products >= 16 && sums.iter().all(|&sum| sum == products as f32),
            "{variant}: {} for {products}",
            sums[0]
        );
    }
}

#[test]
fn a_dispatch_writes_its_word() {
    let found = run(CeilingProblem::Dispatch);
    assert_eq!(found.iter().map(|(.., y)| y[0].to_bits()).collect::<Vec<_>>(), [7]);
}
