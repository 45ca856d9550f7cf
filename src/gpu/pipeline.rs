use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

#[cfg(feature = "native")]
use super::cache::PipelineFile;
use super::scope::{Health, lock, scoped};
use crate::{
    Error, Result,
    kernel::{Access, Launch, Source},
};

/// Compiled kernels by their text, and layouts by their bindings.
pub(super) struct Pipelines {
    checked: bool,
    compiled: AtomicUsize,
    layouts: Mutex<HashMap<Vec<Access>, Layout>>,
    pipelines: Mutex<HashMap<Key, Pipeline>>,
    #[cfg(feature = "native")]
    file: Option<PipelineFile>,
}

/// The same text with the same bindings is the same pipeline.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    source: Arc<Source>,
    bindings: Vec<Access>,
}

#[derive(Clone)]
struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// A compiled kernel and the layout of its bind group.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl Pipelines {
    pub(super) fn new(checked: bool) -> Self {
        Pipelines {
            checked,
            compiled: AtomicUsize::new(0),
            layouts: Mutex::default(),
            pipelines: Mutex::default(),
            #[cfg(feature = "native")]
            file: None,
        }
    }

    /// With a file, if there is one, that keeps what the driver makes of the shaders.
    #[cfg(feature = "native")]
    pub(super) fn kept_in(self, file: Option<PipelineFile>) -> Self {
        Pipelines { file, ..self }
    }

    /// Writes the file; false if there is none.
    #[cfg(feature = "native")]
    pub(super) fn save(&self) -> Result<bool> {
        self.file.as_ref().map_or(Ok(false), |file| file.save().map(|()| true))
    }

    fn cache(&self) -> Option<&wgpu::PipelineCache> {
        #[cfg(feature = "native")]
        return self.file.as_ref().map(|file| &file.cache);
        #[cfg(not(feature = "native"))]
        None
    }

    pub(super) fn compiled(&self) -> usize {
        self.compiled.load(Ordering::Relaxed)
    }

    /// The pipeline of each launch; those that are new are compiled, on all cores where there are threads.
    pub(super) async fn get<'a>(
        &self,
        device: &wgpu::Device,
        health: &Health,
        launches: impl Iterator<Item = &'a Launch>,
    ) -> Result<Vec<Pipeline>> {
        let keys: Vec<Key> = launches
            .map(|launch| Key {
                source: Arc::clone(&launch.source),
                bindings: launch.bindings.iter().map(|binding| binding.access).collect(),
            })
            .collect();
        let missing: Vec<&Key> = {
            let known = lock(&self.pipelines);
            let mut seen = HashSet::new();
            keys.iter().filter(|key| !known.contains_key(*key) && seen.insert(*key)).collect()
        };
        let layouts: Vec<Layout> = scoped(device, health, "bind group layouts", || {
            missing.iter().map(|key| self.layout(device, &key.bindings)).collect()
        })
        .await?;
        for (key, pipeline) in missing.iter().zip(self.compile_all(device, health, &missing, &layouts).await?) {
            self.compiled.fetch_add(1, Ordering::Relaxed);
            lock(&self.pipelines).insert((*key).clone(), pipeline);
        }
        let known = lock(&self.pipelines);
        Ok(keys.iter().map(|key| known[key].clone()).collect())
    }

    fn layout(&self, device: &wgpu::Device, bindings: &[Access]) -> Layout {
        lock(&self.layouts).entry(bindings.to_vec()).or_insert_with(|| create_layout(device, bindings)).clone()
    }

    #[cfg(feature = "native")]
    async fn compile_all(
        &self,
        device: &wgpu::Device,
        health: &Health,
        keys: &[&Key],
        layouts: &[Layout],
    ) -> Result<Vec<Pipeline>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(keys.len());
        if threads <= 1 {
            return self.compile_in_turn(device, health, keys, layouts).await;
        }
        // Error scopes belong to a thread, so each one answers for its own share.
        let share = keys.len().div_ceil(threads);
        let results: Vec<Result<Vec<Pipeline>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = keys
                .chunks(share)
                .zip(layouts.chunks(share))
                .map(|(keys, layouts)| {
                    scope.spawn(move || pollster::block_on(self.compile_in_turn(device, health, keys, layouts)))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        Ok(results.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    #[cfg(not(feature = "native"))]
    async fn compile_all(
        &self,
        device: &wgpu::Device,
        health: &Health,
        keys: &[&Key],
        layouts: &[Layout],
    ) -> Result<Vec<Pipeline>> {
        self.compile_in_turn(device, health, keys, layouts).await
    }

    async fn compile_in_turn(
        &self,
        device: &wgpu::Device,
        health: &Health,
        keys: &[&Key],
        layouts: &[Layout],
    ) -> Result<Vec<Pipeline>> {
        let mut pipelines = Vec::with_capacity(keys.len());
        for (key, layout) in keys.iter().zip(layouts) {
            pipelines.push(self.compile(device, health, &key.source, layout).await?);
        }
        Ok(pipelines)
    }

    async fn compile(
        &self,
        device: &wgpu::Device,
        health: &Health,
        source: &Source,
        layout: &Layout,
    ) -> Result<Pipeline> {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(source.name),
            source: wgpu::ShaderSource::Wgsl(Cow::Borrowed(&source.wgsl)),
        };
        let commands = || {
            let module = if source.trusted && !self.checked {
                let checks = wgpu::ShaderRuntimeChecks {
                    bounds_checks: false,
                    force_loop_bounding: false,
                    ..wgpu::ShaderRuntimeChecks::checked()
                };
                // SAFETY: a trusted source is one of this crate's kernels, whose head proves that every index lies in its
                // buffer or array, given the sizes that its problem puts into the parameters, and whose loops all count
                // up to such a size. The engine binds buffers of at least the sizes that the program declares. Division
                // stays checked.
                unsafe { device.create_shader_module_trusted(descriptor, checks) }
            } else {
                device.create_shader_module(descriptor)
            };
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(source.name),
                layout: Some(&layout.pipeline),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Kernels write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.cache(),
            })
        };
        match scoped(device, health, "a shader", commands).await {
            Ok(pipeline) => Ok(Pipeline { pipeline, layout: layout.group.clone() }),
            Err(Error::Validation { message, .. }) => {
                Err(Error::Shader { kernel: source.name.into(), message: source.located(&message) })
            }
            Err(error) => Err(error),
        }
    }
}

fn create_layout(device: &wgpu::Device, bindings: &[Access]) -> Layout {
    let entry = |binding: usize, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
    entries.extend(
        bindings
            .iter()
            .enumerate()
            .map(|(i, access)| entry(i + 1, wgpu::BufferBindingType::Storage { read_only: *access == Access::Read })),
    );
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    Layout { group, pipeline }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;
    use crate::{
        DType, Shape, Tensor,
        gpu::Gpu,
        kernel::{Binding, Kernel, Operand},
    };

    /// Row sums of a 32×32 matrix through workgroup memory: an index and a loop that checks would guard.
    const ROW_SUMS: &str = "
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<workgroup> tile: array<f32, 1024>;
@compute @workgroup_size(32)
fn main(@builtin(local_invocation_index) row: u32) {
    for (var i = 0u; i < p.n; i += 1u) { tile[i * p.n + row] = x[row * p.n + i]; }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < p.n; i += 1u) { sum += tile[i * p.n + row] * f32(i % p.n); }
    y[row] = sum;
}";

    #[test]
    fn checked_and_trusted_shaders_give_the_same_bits() {
        let x: Vec<f32> = (0..1024).map(|i| (i as f32).sin()).collect();
        let x = Tensor::new([32, 32], x).expect("fits");
        let run = |trusted: bool, checked: bool| {
            let gpu = Gpu::builder().checked_shaders(checked).build().expect("this test needs a GPU adapter");
            let mut source = Source::new("row_sums", ROW_SUMS);
            source.trusted = trusted;
            let launch = Launch {
                label: "main".into(),
                source: Arc::new(source),
                bindings: vec![Binding::read(Operand::Input(0)), Binding::write(Operand::Output(0))],
                params: vec![32],
                grid: [1, 1, 1],
                flops: 0,
                exponentials: 0,
                bytes: 0,
            };
            let kernel = Kernel { launches: vec![launch], workspace: Vec::new() };
            gpu.run_kernel(&kernel, &[&x], &[(DType::F32, Shape::from([32]))]).expect("runs")
        };
        let expected = run(false, false);
        assert_eq!(run(true, false), expected);
        assert_eq!(run(true, true), expected);
    }
}
