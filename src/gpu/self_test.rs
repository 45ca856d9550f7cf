//! Asks a device for products whose results are known, before kernels trust it with what no specification covers.

use half::f16;

use super::{Bounds, Gpu, device::Offer, pipeline::Pipelines};
use crate::{
    DType, Layout, Result, Shape, Tensor,
    kernel::{CooperativeMatrix, Epilogue, MatmulDTypes, MatmulProblem, Problem, Profile},
};

/// Rows, columns and terms: two slabs and a part of one, a tile and a part of one at the most.
const SIZE: [usize; 3] = [67, 37, 75];

/// Takes those cooperative matrices out of the profile that compute something wrong or not the same twice, and notes why.
/// What was compiled for the test is dropped.
pub(super) async fn tested(device: &wgpu::Device, queue: &wgpu::Queue, mut profile: Profile, checked: bool) -> Profile {
    if profile.cooperative_matrices.is_empty() {
        return profile;
    }
    let offer = Offer { features: device.features(), limits: device.limits(), profile: profile.clone() };
    let bounds = Bounds::default();
    let pipelines = Pipelines::new(checked, bounds.pipelines_kept());
    let gpu = &Gpu::wrap(device.clone(), queue.clone(), offer, pipelines, bounds);
    for &matrix in &gpu.profile().cooperative_matrices {
        let size = matrix.m;
        if matrix != CooperativeMatrix::square(size, [DType::F16, DType::F32]) {
            continue; // No kernel uses it.
        }
        let found = product(gpu, &format!("coop_{size}x{size}")).await;
        if let Some(fault) = found.unwrap_or_else(|error| Some(error.to_string())) {
            profile.cooperative_matrices.retain(|other| *other != matrix);
            profile.cooperative_matrix_faults.push((matrix, fault));
        }
    }
    profile
}

/// What is wrong with a product by this variant.
async fn product(gpu: &Gpu, variant: &str) -> Result<Option<String>> {
    let [m, n, k] = SIZE;
    // Odd numbers up to 9: every sum is exact.
    let number = |i: usize, j: usize| 2 * ((5 * i + 3 * j) as i32 % 10) - 9;
    let matrix = |rows: usize, columns: usize| {
        let numbers = (0..rows * columns).map(|at| f16::from_f32(number(at / columns, at % columns) as f32));
        Tensor::new([rows, columns], numbers.collect::<Vec<_>>())
    };
    let (a, b) = (matrix(m, k)?, matrix(k, n)?);
    let dtypes = MatmulDTypes { out: DType::F32, ..MatmulDTypes::all(DType::F16) };
    let layout = |tensor: &Tensor| Layout::contiguous(tensor.shape());
    let problem = MatmulProblem::new(&layout(&a), &layout(&b), Epilogue::default())?.stored_as(dtypes)?;
    let kernel = match problem.kernel(variant, gpu.profile()) {
        Ok(kernel) => kernel,
        // Another reason, which the variant gives whenever it is refused.
        Err(_) => return Ok(None),
    };
    let results = gpu.run_kernel_async(&kernel, &[&a, &b], &[(DType::F32, Shape::from([m, n]))]).await?;
    let results = results.first().and_then(Tensor::as_f32).unwrap_or_default();
    let expected = |at: usize| (0..k).map(|l| number(at / n, l) * number(l, at % n)).sum::<i32>() as f32;
    let wrong = (0..m * n).find(|&at| results.get(at) != Some(&expected(at)));
    Ok(wrong.map(|at| {
        let (i, j, got) = (at / n, at % n, results.get(at).copied().unwrap_or(f32::NAN));
        format!("a product of {m}×{k} by {k}×{n} gave {got} for {} at [{i}, {j}]", expected(at))
    }))
}
