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
#[cfg(feature = "native")]
use super::pending::Pending;
use super::{
    pause::pause,
    scope::{Health, lock, scoped},
};
use crate::{
    Error, Result,
    kernel::{Access, Launch, Source},
};

/// Compiled kernels by their text, and layouts by their bindings.
pub(super) struct Pipelines {
    checked: bool,
    /// How many are kept, if not more are in use.
    most: usize,
    compiled: AtomicUsize,
    layouts: Mutex<HashMap<Vec<Access>, Layout>>,
    known: Mutex<Known>,
    #[cfg(feature = "native")]
    file: Option<PipelineFile>,
}

/// Pipelines, each with the turn in which it was asked for last. One that somebody else has is in use.
#[derive(Default)]
struct Known {
    turn: u64,
    pipelines: HashMap<Key, (Arc<Pipeline>, u64)>,
}

impl Known {
    fn find(&mut self, key: &Key) -> Option<Arc<Pipeline>> {
        let turn = self.turn;
        self.pipelines.get_mut(key).map(|(pipeline, used)| {
            *used = turn;
            Arc::clone(pipeline)
        })
    }

    /// Drops those that nobody uses and that were not asked for the longest, down to `most` in all.
    fn shrink(&mut self, most: usize) {
        let excess = self.pipelines.len().saturating_sub(most);
        if excess == 0 {
            return;
        }
        let idle = self.pipelines.iter().filter(|(_, (pipeline, _))| Arc::strong_count(pipeline) == 1);
        let mut idle: Vec<(u64, Key)> = idle.map(|(key, (_, used))| (*used, key.clone())).collect();
        idle.sort_by_key(|(used, _)| *used);
        for (_, key) in idle.iter().take(excess) {
            self.pipelines.remove(key);
        }
    }
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
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl Pipelines {
    pub(super) fn new(checked: bool, most: usize) -> Self {
        Pipelines {
            checked,
            most,
            compiled: AtomicUsize::new(0),
            layouts: Mutex::default(),
            known: Mutex::default(),
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

    /// How many are there.
    pub(super) fn kept(&self) -> usize {
        lock(&self.known).pipelines.len()
    }

    /// Drops all that nobody uses.
    pub(super) fn trim(&self) {
        lock(&self.known).shrink(0);
    }

    /// The pipeline of each launch; those that are new are compiled, on all cores where there are threads. The executor goes on
    /// with other tasks meanwhile.
    pub(super) async fn get<'a>(
        self: &Arc<Self>,
        device: &wgpu::Device,
        health: &Arc<Health>,
        launches: impl Iterator<Item = &'a Launch>,
    ) -> Result<Vec<Arc<Pipeline>>> {
        let keys: Vec<Key> = launches
            .map(|launch| Key {
                source: Arc::clone(&launch.source),
                bindings: launch.bindings.iter().map(|binding| binding.access).collect(),
            })
            .collect();
        let mut found: HashMap<&Key, Arc<Pipeline>> = HashMap::new();
        let mut seen = HashSet::new();
        let mut missing: Vec<&Key> = Vec::new();
        {
            let mut known = lock(&self.known);
            known.turn += 1;
            for key in keys.iter().filter(|key| seen.insert(*key)) {
                match known.find(key) {
                    Some(pipeline) => drop(found.insert(key, pipeline)),
                    None => missing.push(key),
                }
            }
        }
        let layouts: Vec<Layout> = scoped(device, health, "bind group layouts", || {
            missing.iter().map(|key| self.layout(device, &key.bindings)).collect()
        })
        .await?;
        let tasks = missing.iter().zip(layouts).map(|(key, layout)| (Arc::clone(&key.source), layout)).collect();
        let compiled = self.compile_all(device, health, tasks).await?;
        let mut known = lock(&self.known);
        for (key, pipeline) in missing.into_iter().zip(compiled) {
            // Another thread may have been faster.
            let turn = known.turn;
            let (pipeline, _) = known.pipelines.entry(key.clone()).or_insert_with(|| (Arc::new(pipeline), turn));
            found.insert(key, Arc::clone(pipeline));
        }
        let pipelines = keys.iter().map(|key| Arc::clone(&found[key])).collect();
        known.shrink(self.most);
        Ok(pipelines)
    }

    fn layout(&self, device: &wgpu::Device, bindings: &[Access]) -> Layout {
        lock(&self.layouts).entry(bindings.to_vec()).or_insert_with(|| create_layout(device, bindings)).clone()
    }

    /// Threads compile. They have let go of the device before their answer comes: they would otherwise unload the driver while
    /// the program ends, and crash it.
    #[cfg(feature = "native")]
    async fn compile_all(
        self: &Arc<Self>,
        device: &wgpu::Device,
        health: &Arc<Health>,
        tasks: Vec<(Arc<Source>, Layout)>,
    ) -> Result<Vec<Pipeline>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(tasks.len());
        let mut answers = Vec::with_capacity(threads);
        // Error scopes belong to a thread, so each one answers for its own share.
        for share in tasks.chunks(tasks.len().div_ceil(threads.max(1)).max(1)) {
            let (pending, callback) = Pending::new();
            let of_thread = (Arc::clone(self), device.clone(), Arc::clone(health), share.to_vec());
            let compile = move || {
                let (pipelines, device, health, share) = &of_thread;
                let result = pollster::block_on(pipelines.compile_in_turn(device, health, share));
                drop(of_thread);
                callback.answer(result);
            };
            if std::thread::Builder::new().name("tilewise compile".into()).spawn(compile).is_err() {
                return self.compile_in_turn(device, health, &tasks).await;
            }
            answers.push(pending);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            // It comes unless the thread panicked, and then the error may be of another share.
            let panicked = || Error::Validation {
                during: "the compilation of shaders".into(),
                message: "a thread of it panicked".into(),
            };
            results.push(answer.await.unwrap_or_else(|| Err(panicked())));
        }
        Ok(results.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    #[cfg(not(feature = "native"))]
    async fn compile_all(
        &self,
        device: &wgpu::Device,
        health: &Health,
        tasks: Vec<(Arc<Source>, Layout)>,
    ) -> Result<Vec<Pipeline>> {
        self.compile_in_turn(device, health, &tasks).await
    }

    /// Compiles one after the other, with a pause after each.
    async fn compile_in_turn(
        &self,
        device: &wgpu::Device,
        health: &Health,
        tasks: &[(Arc<Source>, Layout)],
    ) -> Result<Vec<Pipeline>> {
        let mut pipelines = Vec::with_capacity(tasks.len());
        for (source, layout) in tasks {
            pipelines.push(self.compile(device, health, source, layout).await?);
            self.compiled.fetch_add(1, Ordering::Relaxed);
            pause().await;
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

    /// Kernels that differ, without a use for them.
    fn sources(count: usize) -> Vec<Arc<Source>> {
        let text = |i| format!("@compute @workgroup_size(1) fn main() {{ var x = {i}; x += 1; }}");
        (0..count).map(|i| Arc::new(Source::new("one of many", text(i)))).collect()
    }

    fn launch(source: &Arc<Source>) -> Launch {
        let (label, source, bindings, params) = (String::new(), Arc::clone(source), Vec::new(), Vec::new());
        Launch { label, source, bindings, params, grid: [1, 1, 1], flops: 0, exponentials: 0, bytes: 0 }
    }

    #[test]
    fn without_threads_others_have_a_turn_after_each_pipeline() {
        let gpu = Gpu::new().expect("this test needs a GPU adapter");
        let inner = &*gpu.inner;
        let pipelines = Pipelines::new(false, 8);
        let layout = create_layout(&inner.device, &[]);
        let tasks: Vec<_> = sources(5).into_iter().map(|source| (source, layout.clone())).collect();
        let mut compiling = std::pin::pin!(pipelines.compile_in_turn(&inner.device, &inner.health, &tasks));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for done in 1..=5 {
            assert!(compiling.as_mut().poll(&mut context).is_pending());
            assert_eq!(pipelines.compiled(), done, "one a turn");
        }
        assert!(compiling.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn what_was_not_asked_for_the_longest_goes_first_and_what_is_used_stays() {
        let gpu = Gpu::new().expect("this test needs a GPU adapter");
        let inner = &*gpu.inner;
        let pipelines = Arc::new(Pipelines::new(false, 3));
        let launches: Vec<Launch> = sources(8).iter().map(launch).collect();
        let get = |range: std::ops::Range<usize>| {
            let found = pipelines.get(&inner.device, &inner.health, launches[range].iter());
            pollster::block_on(found).expect("compiles")
        };
        let used = get(0..1);
        for i in 1..6 {
            drop(get(i..i + 1));
        }
        assert_eq!((pipelines.kept(), pipelines.compiled()), (3, 6));
        // The one in use, and the last two.
        drop((get(0..1), get(4..6)));
        assert_eq!(pipelines.compiled(), 6);
        // Asked for again, so it outlives the fifth.
        drop(get(4..5));
        drop(get(6..7));
        drop(get(4..5));
        assert_eq!(pipelines.compiled(), 7);
        drop(get(5..6));
        assert_eq!((pipelines.kept(), pipelines.compiled()), (3, 8));
        // More in use than are kept: all stay, until they are let go of.
        let all = get(0..8);
        assert_eq!(pipelines.kept(), 8);
        drop(all);
        drop(get(7..8));
        assert_eq!(pipelines.kept(), 3);
        pipelines.trim();
        assert_eq!(pipelines.kept(), 1);
        drop(used);
        pipelines.trim();
        assert_eq!(pipelines.kept(), 0);
    }
}
