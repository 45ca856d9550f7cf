//! Tensors read through layouts, beside what the reference makes of them; and runs of kernels that take such views.

use std::{
    collections::HashSet,
    sync::{Mutex, OnceLock},
};

use half::{bf16, f16};
use tilewise::{
    DType, Data, Layout, Shape, Tensor,
    graph::Op,
    kernel::{Candidate, Problem, Profile, Source},
    reference::{self, Value},
};

use super::gpu;

/// A small generator (splitmix64): the same numbers in each run.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Evenly from 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of these.
    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A tensor of a dtype from f64, by Rust's own conversions.
pub(crate) fn tensor(dtype: DType, shape: impl Into<Shape>, values: &[f64]) -> Tensor {
    let values = values.iter().copied();
    let data: Data = match dtype {
        DType::F32 => values.map(|x| x as f32).collect::<Vec<_>>().into(),
        DType::F16 => values.map(f16::from_f64).collect::<Vec<_>>().into(),
        DType::BF16 => values.map(bf16::from_f64).collect::<Vec<_>>().into(),
        DType::I32 => values.map(|x| x as i32).collect::<Vec<_>>().into(),
        DType::U32 => values.map(|x| x as u32).collect::<Vec<_>>().into(),
        DType::Bool => values.map(|x| x != 0.0).collect::<Vec<_>>().into(),
    };
    Tensor::new(shape, data).expect("as many values as the shape has")
}

/// Small integers (and false and true), which every dtype holds and sums keep exact.
pub(crate) fn small(rng: &mut Rng, dtype: DType, shape: &Shape) -> Tensor {
    let n = shape.elements().expect("small shapes");
    let values: Vec<f64> = (0..n)
        .map(|_| match dtype {
            DType::Bool => rng.below(2) as f64,
            DType::U32 => rng.below(8) as f64,
            _ => rng.below(15) as f64 - 7.0,
        })
        .collect();
    tensor(dtype, shape.clone(), &values)
}

/// Any bits, NaN and subnormals too: what copies have to keep.
pub(crate) fn bits(rng: &mut Rng, dtype: DType, shape: &Shape) -> Tensor {
    let n = shape.elements().expect("small shapes") * dtype.bytes();
    let bytes: Vec<u8> = match dtype {
        DType::Bool => (0..n).map(|_| rng.below(2) as u8).collect(),
        // Never the pattern that the guard takes for an element that was not written.
        _ => (0..n).map(|_| (rng.next() >> 8) as u8 & 0xfe).collect(),
    };
    Tensor::from_bytes(dtype, shape, &bytes).expect("as many bytes as the shape has")
}

/// A buffer, a view of it, and the reference's idea of the view.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) base: Tensor,
    pub(crate) layout: Layout,
    pub(crate) value: Value<f64>,
}

impl View {
    pub(crate) fn of(base: Tensor) -> Self {
        View { layout: Layout::contiguous(base.shape()), value: Value::from(&base), base }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.layout.shape
    }

    fn apply(&self, op: &Op, layout: Layout) -> Self {
        let value = reference::apply(op, &[&self.value]).expect("the view fits").remove(0);
        View { base: self.base.clone(), layout, value }
    }

    pub(crate) fn permute(&self, order: &[usize]) -> Self {
        self.apply(&Op::Permute { order: order.to_vec() }, self.layout.permute(order))
    }

    pub(crate) fn slice(&self, starts: &[usize], sizes: &[usize], steps: &[isize]) -> Self {
        let op = Op::Slice { starts: starts.to_vec(), sizes: sizes.to_vec(), steps: steps.to_vec() };
        self.apply(&op, self.layout.slice(starts, steps, &sizes.into()))
    }

    pub(crate) fn broadcast(&self, shape: &Shape) -> Self {
        self.apply(&Op::Broadcast { shape: shape.clone() }, self.layout.broadcast(shape))
    }

    /// A view of this shape through drawn strides: permuted axes, steps forwards and backwards, an offset, and (if
    /// allowed) broadcast axes. `fill` makes the buffer.
    pub(crate) fn drawn(
        rng: &mut Rng,
        shape: &Shape,
        stretch: bool,
        fill: impl Fn(&mut Rng, &Shape) -> Tensor,
    ) -> Self {
        let rank = shape.rank();
        let narrow: Vec<usize> =
            shape.iter().map(|&size| if stretch && rng.below(3) == 0 { 1 } else { size }).collect();
        let dropped = if stretch { rng.below(rank + 1).min(narrow.iter().take_while(|&&n| n == 1).count()) } else { 0 };
        let sizes = &narrow[dropped..];
        if sizes.contains(&0) {
            return View::of(fill(rng, &sizes.into())).broadcast(shape);
        }
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        if rng.below(2) == 0 {
            (1..order.len()).for_each(|i| order.swap(i, rng.below(i + 1)));
        }
        let inverse: Vec<usize> = (0..order.len()).map(|i| order.iter().position(|&o| o == i).expect("all")).collect();
        let stepped = rng.below(2) == 0;
        let (mut base, mut starts, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        for &axis in &order {
            let (before, step) = if stepped { (rng.below(3), rng.of(&[1, 1, 2, -1, -2])) } else { (0, 1isize) };
            let span = (sizes[axis] - 1) * step.unsigned_abs();
            starts.push(if step < 0 { before + span } else { before });
            steps.push(step);
            base.push(before + span + 1 + if stepped { rng.below(3) } else { 0 });
        }
        let turned: Vec<usize> = order.iter().map(|&axis| sizes[axis]).collect();
        let base = fill(rng, &base.into());
        View::of(base).slice(&starts, &turned, &steps).permute(&inverse).broadcast(shape)
    }
}

/// The output of a problem, of which every variant that can run here gives the same bits.
pub(crate) fn run(problem: &dyn Problem, inputs: &[&Tensor], dtype: DType, shape: &Shape) -> Tensor {
    run_as(gpu().profile(), problem, inputs, dtype, shape)
}

/// [`run`] of what would be launched on a device of this profile.
pub(crate) fn run_as(
    profile: &Profile,
    problem: &dyn Problem,
    inputs: &[&Tensor],
    dtype: DType,
    shape: &Shape,
) -> Tensor {
    let usable = problem.candidates(profile).into_iter().filter(Candidate::is_usable);
    let mut results = usable.map(|candidate| {
        let label = format!("{} {} {}", problem.family(), problem.summary(), candidate.variant);
        (run_variant(problem, candidate.variant, profile, inputs, dtype, shape, &label), label)
    });
    let (first, first_label) = results.next().expect("a variant can run");
    for (result, label) in results {
        assert_eq!(result.as_bytes(), first.as_bytes(), "{label} differs from {first_label}");
    }
    first
}

/// [`run`] where a grid may have only this many workgroups in a dimension, so that it is folded as large ones are.
pub(crate) fn run_folded(limit: u32, problem: &dyn Problem, inputs: &[&Tensor], dtype: DType, shape: &Shape) -> Tensor {
    let mut profile = gpu().profile().clone();
    profile.limits.workgroups_per_dimension = limit;
    run_as(&profile, problem, inputs, dtype, shape)
}

fn run_variant(
    problem: &dyn Problem,
    variant: &str,
    profile: &Profile,
    inputs: &[&Tensor],
    dtype: DType,
    shape: &Shape,
    label: &str,
) -> Tensor {
    let kernel = problem.kernel(variant, profile).unwrap_or_else(|error| panic!("{label}: {error}"));
    for launch in &kernel.launches {
        translates(&launch.source);
        assert!(launch.params.len().is_multiple_of(4), "{label}");
    }
    let results = gpu().run_kernel(&kernel, inputs, &[(dtype, shape.clone())]);
    let Ok(mut results) = results.map_err(|error| panic!("{label}: {error}\n{}", kernel.launches[0].source.wgsl));
    results.remove(0)
}

/// naga accepts the module and translates it to every backend's language. With `DUMP_SHADERS` set to a folder, each
/// module is written there, for other compilers to look at.
pub(crate) fn translates(source: &Source) {
    static SEEN: OnceLock<Mutex<HashSet<String>>> = OnceLock::new();
    let mut seen = SEEN.get_or_init(Mutex::default).lock().expect("no test panics here");
    if !seen.insert(source.wgsl.clone()) {
        return;
    }
    if let Ok(folder) = std::env::var("DUMP_SHADERS") {
        let name = format!("{folder}/{}-{}.wgsl", source.name, seen.len());
        std::fs::write(&name, &source.wgsl).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    drop(seen);
    let fail = |stage: &str, error: String| -> ! { panic!("{stage}: {error}\n{}", source.wgsl) };
    let module =
        naga::front::wgsl::parse_str(&source.wgsl).unwrap_or_else(|e| fail("naga", e.emit_to_string(&source.wgsl)));
    // Offered wherever WebGPU is.
    let mut capabilities = naga::valid::Capabilities::default() | naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    // Chosen only where the device has f16 in shaders and cooperative matrices, for which Metal has a newer language, HLSL none.
    let cooperative = source.wgsl.contains("\nenable wgpu_cooperative_matrix;");
    if cooperative {
        capabilities |= naga::valid::Capabilities::SHADER_FLOAT16 | naga::valid::Capabilities::COOPERATIVE_MATRIX;
    }
    // Chosen only where the device has it.
    if source.wgsl.contains("u64") {
        capabilities |= naga::valid::Capabilities::SHADER_INT64;
    }
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
    if source.wgsl.contains("subgroup") {
        validator = naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            capabilities | naga::valid::Capabilities::SUBGROUP,
        );
        validator
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all());
    }
    let info = validator.validate(&module).unwrap_or_else(|e| fail("naga", e.emit_to_string(&source.wgsl)));
    naga::back::spv::write_vec(&module, &info, &naga::back::spv::Options::default(), None)
        .unwrap_or_else(|e| fail("SPIR-V", e.to_string()));
    let mut msl = naga::back::msl::Options { fake_missing_bindings: true, ..Default::default() };
    if cooperative {
        msl.lang_version = (3, 1);
    }
    naga::back::msl::write_string(&module, &info, &msl, &naga::back::msl::PipelineOptions::default())
        .unwrap_or_else(|e| fail("MSL", e.to_string()));
    if cooperative {
        return;
    }
    let mut hlsl = String::new();
    let options = naga::back::hlsl::Options { fake_missing_bindings: true, ..Default::default() };
    naga::back::hlsl::Writer::new(&mut hlsl, &options, &naga::back::hlsl::PipelineOptions::default())
        .write(&module, &info, None)
        .unwrap_or_else(|e| fail("HLSL", e.to_string()));
}
