use std::{collections::BTreeMap, time::Duration};

use super::{Bandwidth, Ceilings, Effort, Exponentials, Moving, Protocol, Timed};
use crate::{
    DType, Result, Shape, Tensor,
    gpu::Gpu,
    kernel::{AdapterKind, Arithmetic, CeilingProblem, Operand, Problem},
    lower::Program,
};

/// Measures the ceilings of a device, one sample of each at a time, so that they share their circumstances with what is
/// measured beside them. The best sample counts.
#[derive(Debug)]
pub struct Probe {
    entries: Vec<Entry>,
    once: Timed,
    kind: AdapterKind,
}

#[derive(Debug)]
struct Entry {
    problem: CeilingProblem,
    /// Operations or bytes of a run; 1 of a dispatch.
    amount: f64,
    timed: Timed,
}

/// Bytes of x and y together, or of x alone.
const SIZES_ON_CPU: [u64; 5] = [1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20];
const SIZES_ON_GPU: [u64; 5] = [4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30];

/// The bandwidth of a size that still lies in the caches is above that of memory by this factor.
const DROP: f64 = 1.25;

/// What caches hold at the most if no drop is seen: a large desktop processor's, and a large GPU's.
const ASSUMED_CACHE: u64 = 64 << 20;

impl Probe {
    /// Finds the fastest variants for each limit and takes a first sample of them.
    ///
    /// # Errors
    /// Those of lowering, loading and running a program: see [`Gpu::compile`] and
    /// [`Executable::bench`](crate::gpu::Executable::bench).
    pub fn new(gpu: &Gpu, effort: Effort) -> Result<Self> {
        let profile = gpu.profile();
        let sizes: &[u64] = match (effort, profile.kind) {
            (Effort::Quick, _) => &[1 << 20, 16 << 20],
            (Effort::Full, AdapterKind::Cpu) => &SIZES_ON_CPU,
            (Effort::Full, AdapterKind::Gpu) => &SIZES_ON_GPU,
        };
        let whole = |bytes: u64| CeilingProblem::whole(bytes.min(profile.limits.binding_bytes));
        let mut problems = vec![CeilingProblem::Dispatch];
        problems.extend([Arithmetic::F32, Arithmetic::F16, Arithmetic::Cooperative].map(CeilingProblem::Multiply));
        problems.push(CeilingProblem::Exponential);
        problems.extend(sizes.iter().map(|bytes| CeilingProblem::Copy { bytes: whole(bytes / 2) }));
        problems.extend(sizes.iter().map(|bytes| CeilingProblem::Read { bytes: whole(*bytes) }));
        let mut entries = Vec::new();
        for problem in problems {
            entries.extend(Entry::fastest(gpu, problem, effort)?);
        }
        let (once, _) =
            load(gpu, CeilingProblem::Dispatch, "one word", &Protocol { sample: Duration::ZERO, past_cache: 0 })?;
        let mut probe = Probe { entries, once, kind: profile.kind };
        probe.sample()?;
        Ok(probe)
    }

    /// Adds one sample of everything.
    ///
    /// # Errors
    /// As [`Executable::bench`](crate::gpu::Executable::bench).
    pub fn sample(&mut self) -> Result<()> {
        self.once.sample()?;
        self.entries.iter_mut().try_for_each(|entry| entry.timed.sample())
    }

    /// The limits, by the best samples so far.
    pub fn ceilings(&self) -> Ceilings {
        let mut bandwidth = Vec::new();
        let mut multiply = BTreeMap::new();
        let (mut exponential, mut dispatch) = (0.0f64, 0.0);
        for Entry { problem, amount, timed } in &self.entries {
            let rate = amount / timed.times().seconds().best;
            match *problem {
                CeilingProblem::Copy { bytes } => {
                    bandwidth.push(Bandwidth { moving: Moving::Copy, bytes: 2 * bytes, rate });
                }
                CeilingProblem::Read { bytes } => bandwidth.push(Bandwidth { moving: Moving::Read, bytes, rate }),
                CeilingProblem::Multiply(arithmetic) => {
                    let best: &mut f64 = multiply.entry(arithmetic).or_default();
                    *best = best.max(rate);
                }
                CeilingProblem::Exponential => exponential = exponential.max(rate),
                CeilingProblem::Dispatch => dispatch = 1.0 / rate,
            }
        }
        let largest = bandwidth.iter().map(|b| b.bytes).max().unwrap_or_default();
        let best = |some: &dyn Fn(&Bandwidth) -> bool| {
            bandwidth.iter().filter(|b| some(b)).map(|b| b.rate).fold(0.0, f64::max)
        };
        // Where a binding can't hold the largest size, the largest copy and the largest read differ.
        let memory = best(&|b| 2 * b.bytes >= largest);
        let is_cached = |b: &&Bandwidth| {
            let far = bandwidth.iter().rfind(|other| other.moving == b.moving).map_or(0.0, |other| other.rate);
            b.rate > DROP * far
        };
        let cached = bandwidth.iter().filter(is_cached).map(|b| b.bytes).max();
        Ceilings {
            memory,
            cache: best(&|_| true),
            cache_bytes: cached.unwrap_or(ASSUMED_CACHE),
            cache_measured: cached.is_some(),
            bandwidth,
            multiply,
            exponentials: (exponential > 0.0)
                .then_some(Exponentials { rate: exponential, multiplied: self.kind == AdapterKind::Cpu }),
            dispatch,
            submit: self.once.times().wall.best,
        }
    }
}

impl Entry {
    /// All variants that can run, or the fastest where each has large buffers.
    fn fastest(gpu: &Gpu, problem: CeilingProblem, effort: Effort) -> Result<Vec<Self>> {
        let (sample, samples) = match effort {
            Effort::Quick => (Duration::ZERO, 1),
            Effort::Full => (Duration::from_millis(20), 3),
        };
        let moves = matches!(problem, CeilingProblem::Copy { .. } | CeilingProblem::Read { .. });
        // Dispatches on one output wait for each other; on several they need not.
        let past_cache = if problem == CeilingProblem::Dispatch { 64 } else { 0 };
        let mut all: Vec<Entry> = Vec::new();
        for candidate in problem.candidates(gpu.profile()).iter().filter(|candidate| candidate.is_usable()) {
            let (mut timed, amount) = load(gpu, problem, candidate.variant, &Protocol { sample, past_cache })?;
            (0..samples).try_for_each(|_| timed.sample())?;
            let seconds = |timed: &Timed| timed.times().seconds().best;
            if moves && all.first().is_some_and(|entry| seconds(&entry.timed) <= seconds(&timed)) {
                continue;
            }
            if moves {
                all.clear();
            }
            all.push(Entry { problem, amount, timed });
        }
        Ok(all)
    }
}

/// A variant on the device, and its operations or bytes.
fn load(gpu: &Gpu, problem: CeilingProblem, variant: &str, protocol: &Protocol) -> Result<(Timed, f64)> {
    let kernel = problem.kernel(variant, gpu.profile())?;
    let (input, output) = problem.elements(&kernel);
    let vector = |n: usize| (DType::F32, Shape::from([n]));
    let program = Program::of_kernel(&kernel, &input.map(vector).into_iter().collect::<Vec<_>>(), &[vector(output)])?;
    // Values that differ: some devices compress zeros on the way to memory.
    let values =
        |n: usize| (0..n as u32).map(|i| f32::from_bits(0x3f80_0000 | (i.wrapping_mul(0x9e37_79b9) >> 9)) - 1.5);
    let tensor = input.map(|n| Tensor::new([n], values(n).collect::<Vec<f32>>())).transpose()?;
    let inputs: Vec<(String, Tensor)> =
        tensor.into_iter().map(|tensor| (Operand::Input(0).to_string(), tensor)).collect();
    let timed = Timed::new(gpu, &program, &inputs, protocol)?;
    let amount = match problem {
        CeilingProblem::Copy { .. } | CeilingProblem::Read { .. } => kernel.launches[0].bytes,
        CeilingProblem::Multiply(_) => kernel.launches[0].flops,
        CeilingProblem::Exponential => kernel.launches[0].exponentials,
        CeilingProblem::Dispatch => 1,
    };
    Ok((timed, amount as f64))
}
