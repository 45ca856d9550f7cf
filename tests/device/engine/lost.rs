//! Whatever is asked of a lost device, however it was lost, the answer is the same: [`Error::DeviceLost`].

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use tilewise::{
    Graph, ValueId,
    lower::{Choices, Start},
    measure::{Ceilings, Effort, HostCost, Probe, Protocol, Timed},
    nn::{
        Embedding, Weights,
        generate::{Autoregressive, Capacity, Generator, Request, Step},
    },
    safetensors,
    tune::Tuner,
    verify::{self, cases::Level},
};

use super::*;

/// Its logits are a row of a table for the last token.
struct Bigrams;

impl Autoregressive for Bigrams {
    fn vocabulary(&self) -> usize {
        3
    }
    fn positions(&self) -> usize {
        8
    }
    fn step(&self, g: &mut Graph, step: &Step) -> Result<ValueId> {
        Embedding { entries: 3, width: 3 }.build(g, "table", step.ids)
    }
    fn logits(&self, _: &mut Graph, x: ValueId) -> Result<ValueId> {
        Ok(x)
    }
}

/// `y = w·x`, and a state that counts runs.
fn graph() -> Result<Graph> {
    let mut g = Graph::new();
    let (x, w) = (g.input("x", DType::F32, [4, 8])?, g.parameter("w", DType::F32, [8, 8])?);
    let y = g.matmul(x, w)?;
    g.output("y", y)?;
    let count = g.input("count", DType::I32, [1])?;
    let one = g.scalar(1.0, count)?;
    let next = g.add(count, one)?;
    g.update(count, next)?;
    Ok(g)
}

/// Everything that keeps a device, on one that works.
struct Live {
    gpu: Gpu,
    graph: Graph,
    program: Program,
    executable: Executable,
    buffers: [wgpu::Buffer; 2],
    above: Option<Above>,
}

/// What stands on the floors above the engine.
struct Above {
    weights: Weights,
    /// What they are read from.
    _folder: tempfile::TempDir,
    timed: Timed,
    generator: Generator<Bigrams>,
}

fn x() -> Tensor {
    Tensor::zeros(DType::F32, [4, 8]).expect("small")
}

fn w() -> Tensor {
    Tensor::new([8, 8], (0..64).map(|i| i as f32).collect::<Vec<_>>()).expect("fits")
}

fn one() -> Tensor {
    Tensor::new([1], vec![1i32]).expect("fits")
}

impl Live {
    /// The engine alone.
    fn on(gpu: Gpu) -> Self {
        let graph = graph().expect("valid");
        let program = gpu.lower(&graph, &gpu.options()).expect("lowers");
        let mut executable = gpu.load(&program, [("w", &w())]).expect("loads");
        let buffers = ["x", "y"].map(|name| executable.buffer(name).expect("made"));
        Live { gpu, graph, program, executable, buffers, above: None }
    }

    fn with_all(gpu: Gpu) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("w.safetensors");
        safetensors::save(&file, &[("w".to_string(), w())].into()).expect("writes");
        let table = Tensor::new([3, 3], vec![0.0f32, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]).expect("fits");
        let given = [("x".into(), ramp(10, 1.0)), ("w".into(), ramp(10, 1.0))];
        let above = Above {
            weights: Weights::open(&file).expect("reads"),
            _folder: folder,
            timed: Timed::new(&gpu, &sample(10), &given, &PROTOCOL).expect("runs"),
            generator: Generator::new(&gpu, Bigrams, [("table.weight", &table)], capacity()).expect("compiles"),
        };
        Live { above: Some(above), ..Live::on(gpu) }
    }

    fn above(&mut self) -> &mut Above {
        self.above.as_mut().expect("made with all")
    }

    fn encode(&mut self) -> Result<()> {
        self.encode_part(Executable::encode)
    }

    fn encode_part(
        &mut self,
        record: impl FnOnce(&mut Executable, &mut wgpu::CommandEncoder, &[(&str, wgpu::BufferSlice<'_>)]) -> Result<()>,
    ) -> Result<()> {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let [x, y] = &self.buffers;
        record(&mut self.executable, &mut encoder, &[("x", x.slice(..)), ("y", y.slice(..))])
    }
}

fn capacity() -> Capacity {
    Capacity { chunks: vec![2], ..Capacity::items(1) }
}

const PROTOCOL: Protocol = Protocol { sample: Duration::ZERO, past_cache: 0 };

type Call = fn(&mut Live) -> Result<()>;

/// Every function that reaches the device, under the name that its source has.
const CALLS: [(&str, Call); 42] = [
    ("Gpu::check", |live| live.gpu.check()),
    ("Gpu::compile", |live| live.gpu.compile(&live.graph, [("w", &w())]).map(drop)),
    ("Gpu::compile_async", |live| wait(live.gpu.compile_async(&live.graph, [("w", &w())]))),
    ("Gpu::load", |live| live.gpu.load(&live.program, [("w", &w())]).map(drop)),
    ("Gpu::load_async", |live| wait(live.gpu.load_async(&live.program, [("w", &w())]))),
    ("Gpu::load_with", |live| live.gpu.load_with(&live.program, [("w", &w())], LoadOptions { guard: true }).map(drop)),
    ("Gpu::load_with_async", |live| {
        wait(live.gpu.load_with_async(&live.program, [("w", &w())], LoadOptions { guard: true }))
    }),
    ("Gpu::upload", |live| live.gpu.upload(&w()).map(drop)),
    ("Gpu::upload_async", |live| wait(live.gpu.upload_async(&w()))),
    ("Gpu::download", |live| live.gpu.download(live.buffers[1].slice(..), DType::F32, [4, 8]).map(drop)),
    ("Gpu::download_async", |live| wait(live.gpu.download_async(live.buffers[1].slice(..), DType::F32, [4, 8]))),
    ("Gpu::run_kernel", |live| {
        live.gpu.run_kernel(&scale(4, 1.0), &[&ramp(4, 1.0)], &[(DType::F32, Shape::from([4]))]).map(drop)
    }),
    ("Gpu::run_kernel_async", |live| {
        wait(live.gpu.run_kernel_async(&scale(4, 1.0), &[&ramp(4, 1.0)], &[(DType::F32, Shape::from([4]))]))
    }),
    ("Gpu::save_pipelines", |live| live.gpu.save_pipelines().map(drop)),
    ("Executable::run", |live| live.executable.run(&[("x", &x())]).map(drop)),
    ("Executable::run_async", |live| wait(live.executable.run_async(&[("x", &x())]))),
    ("Executable::encode", Live::encode),
    ("Executable::encode_steps", |live| {
        live.encode_part(|program, encoder, given| program.encode_steps(encoder, given, 0..1))
    }),
    ("Executable::encode_dispatches", |live| {
        live.encode_part(|program, encoder, given| program.encode_dispatches(encoder, given, 0..1))
    }),
    ("Executable::warm_up", |live| live.executable.warm_up(|_, _| ())),
    ("Executable::warm_up_async", |live| wait(live.executable.warm_up_async(|_, _| ()))),
    ("Executable::buffer", |live| live.executable.buffer("y").map(drop)),
    ("Executable::buffer_async", |live| wait(live.executable.buffer_async("count"))),
    ("Executable::state", |live| live.executable.state("count").map(drop)),
    ("Executable::state_async", |live| wait(live.executable.state_async("count"))),
    ("Executable::set_state", |live| live.executable.set_state("count", &one())),
    ("Executable::set_state_async", |live| wait(live.executable.set_state_async("count", &one()))),
    ("Executable::reset", |live| live.executable.reset()),
    ("Executable::reset_async", |live| wait(live.executable.reset_async())),
    ("Executable::set_inputs", |live| live.executable.set_inputs(&[("x", &x())])),
    ("Executable::profile", |live| live.executable.profile().map(drop)),
    ("Executable::bench", |live| live.executable.bench(2, 2).map(drop)),
    ("Weights::upload", |live| {
        let (gpu, graph) = (live.gpu.clone(), live.graph.clone());
        live.above().weights.upload(&gpu, &graph).map(drop)
    }),
    ("Generator::generate", |live| live.above().generator.generate(&Request::new(vec![vec![0]], 2)).map(drop)),
    ("Generator::prepare", |live| live.above().generator.prepare(&Request::new(vec![vec![0]], 2))),
    ("Generator::new", |live| {
        let table = Tensor::zeros(DType::F32, [3, 3])?;
        Generator::new(&live.gpu, Bigrams, [("table.weight", &table)], capacity()).map(drop)
    }),
    ("Timed::new", |live| {
        let given = [("x".into(), ramp(10, 1.0)), ("w".into(), ramp(10, 1.0))];
        Timed::new(&live.gpu, &sample(10), &given, &PROTOCOL).map(drop)
    }),
    ("Timed::sample", |live| live.above().timed.sample()),
    ("HostCost::measure", |live| {
        HostCost::measure(&live.gpu, "it", &live.graph, &mut live.executable, Duration::ZERO).map(drop)
    }),
    ("Breakdown::measure", |live| {
        tilewise::measure::Breakdown::measure(&mut live.executable, &live.program, None::<&Ceilings>, 1).map(drop)
    }),
    ("Tuner::tune", |live| {
        let tuner = Tuner::new(&live.gpu).budget(Duration::from_millis(1)).again(true);
        tuner.tune(&live.graph, &BTreeMap::new(), &mut Choices::default(), |_| ()).map(drop)
    }),
    ("verify::sweep", |live| verify::sweep(&live.gpu, &["append"], Level::Quick, 1, |_| ()).map(drop)),
];

fn wait<T>(future: impl Future<Output = Result<T>>) -> Result<()> {
    pollster::block_on(future).map(drop)
}

/// Each call fails so, and again when it is repeated.
fn all_are_lost(live: &mut Live, how: &str, why: &str) {
    for _ in 0..2 {
        for (name, call) in CALLS {
            match call(live) {
                Err(Error::DeviceLost(reason)) => assert!(reason.contains(why), "{how}: {name}: {reason}"),
                other => panic!("{how}: {name}: expected Error::DeviceLost, got {other:?}"),
            }
        }
    }
}

fn own() -> Gpu {
    Gpu::new().expect("an adapter")
}

/// The device of another program, whose handler is not ours to call.
fn callers() -> Gpu {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).expect("a device");
    device.on_uncaptured_error(std::sync::Arc::new(|error| panic!("the caller's handler got {error}")));
    Gpu::from_wgpu(device, queue)
}

fn poll(gpu: &Gpu) {
    let _ = gpu.device().poll(wgpu::PollType::Poll);
}

#[test]
fn a_destroyed_device_is_lost_for_every_call() {
    let mut live = Live::with_all(own());
    for (name, call) in CALLS {
        call(&mut live).unwrap_or_else(|error| panic!("{name} works before: {error}"));
    }
    live.gpu.device().destroy();
    all_are_lost(&mut live, "destroyed", "`wgpu::Device::destroy`");
    // The device's callback comes later, when it is polled, and knows more.
    poll(&live.gpu);
    all_are_lost(&mut live, "destroyed and polled", "its owner destroyed it");
    // Another device is not affected.
    Live::on(own()).encode().expect("records");
}

/// The loss shows in whatever call comes first, while work is still on its way or when all is done.
#[test]
fn the_first_call_notices_the_loss() {
    for (name, call) in CALLS.into_iter().filter(|(name, _)| name.contains("Gpu::") || name.contains("Executable::")) {
        for busy in [false, true] {
            let gpu = if busy { own() } else { callers() };
            let mut live = Live::on(gpu);
            if busy {
                let mut encoder = live.gpu.device().create_command_encoder(&Default::default());
                let [x, y] = &live.buffers;
                let given = [("x", x.slice(..)), ("y", y.slice(..))];
                live.executable.encode(&mut encoder, &given).expect("records");
                live.gpu.queue().submit([encoder.finish()]);
            } else {
                poll(&live.gpu);
            }
            live.gpu.device().destroy();
            match call(&mut live) {
                Err(Error::DeviceLost(_)) => {}
                other => panic!("{name}, busy {busy}: expected Error::DeviceLost, got {other:?}"),
            }
        }
    }
}

#[test]
fn the_loss_of_the_callers_device_is_noticed_and_explained() {
    let mut live = Live::with_all(callers());
    live.gpu.device().destroy();
    all_are_lost(&mut live, "the caller's", "wgpu takes no more commands on it");
    // A guess gives way to what the owner says; of two reports the first stays.
    live.gpu.report_lost("unplugged");
    live.gpu.report_lost("stolen");
    all_are_lost(&mut live, "reported", "unplugged");
    let gpu = Gpu::from_wgpu(live.gpu.device().clone(), live.gpu.queue().clone());
    assert!(message(gpu.upload(&w())).contains("wgpu takes no more commands on it"), "it was lost before");
    let adopted = Gpu::builder().adopt(live.gpu.device().clone(), live.gpu.queue().clone());
    assert!(matches!(adopted, Err(Error::DeviceLost(_))), "{adopted:?}");
}

#[test]
fn a_report_is_a_loss() {
    let mut live = Live::with_all(callers());
    live.gpu.report_lost("unplugged");
    all_are_lost(&mut live, "reported", "unplugged");
}

/// A driver that has no memory for what wgpu writes through gives the device up, and says so. In a process of its own, whose
/// address space ends.
#[cfg(target_os = "linux")]
#[test]
fn a_device_that_is_lost_for_want_of_memory_says_so() {
    const CHILD: &str = "TILEWISE_TEST_WITHOUT_MEMORY";
    const BYTES: u64 = 64 << 20;
    if std::env::var_os(CHILD).is_none() {
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "engine::lost::a_device_that_is_lost_for_want_of_memory_says_so", "--nocapture"])
            .env(CHILD, "1")
            // What is freed goes back to the system, and what is large is asked for anew.
            .env("MALLOC_MMAP_THRESHOLD_", "65536")
            .env("MALLOC_TRIM_THRESHOLD_", "65536")
            .output()
            .expect("starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("every call said so"), "{text}");
        return;
    }
    let mut live = Live::with_all(own());
    let mut b = Builder::new();
    let big = b.buffer("big", DType::F32, [BYTES as usize / 4], Role::State { name: "big".into(), start: Start::Zero });
    let next = b.buffer("next", DType::F32, [BYTES as usize / 4], Role::Next(big.0));
    b.step(kernel(INCREMENT, 0, &[1], 1), &[], next);
    let stateful = live.gpu.load(&b.0, []).expect("loads");
    let value = Tensor::zeros(DType::F32, [BYTES as usize / 4]).expect("fits");
    live.gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");

    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let taken = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse().ok());
    let most: u64 = taken.map(|kib: u64| kib * 1024 + (2 << 20)).expect("a size");
    let pid = std::process::id().to_string();
    let set = std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--as={most}")]).status();
    assert!(set.expect("util-linux has it").success());

    // A buffer that is refused is not the end.
    match live.gpu.upload(&value) {
        Err(Error::OutOfMemory { during, .. }) => assert_eq!(during, format!("a buffer of {BYTES} bytes for `tensor`")),
        other => panic!("expected Error::OutOfMemory, got {other:?}"),
    }
    live.executable.run(&[("x", &x())]).expect("the device is there");
    // To write into one that is there, wgpu needs another, and its driver gives up if there is no room for that at all.
    let mut held = Vec::new();
    let mut lost = None;
    for bytes in [4 << 20, 256 << 10, 16 << 10, 1 << 10] {
        let small = Tensor::zeros(DType::F32, [bytes / 4]).expect("fits");
        while lost.is_none() {
            match live.gpu.upload(&small) {
                Ok(buffer) => held.push(buffer),
                Err(Error::OutOfMemory { .. }) => break,
                Err(error) => lost = Some(error),
            }
        }
    }
    let lost = lost.map_or_else(|| stateful.set_state("big", &value), Err);
    let expected = "it ran out of memory during ";
    match lost {
        Err(Error::DeviceLost(reason)) => assert!(reason.starts_with(expected), "{reason}"),
        other => panic!("expected Error::DeviceLost, got {other:?}"),
    }
    all_are_lost(&mut live, "no memory", expected);
    eprintln!("every call said so");
}

/// The functions that can fail of the types that keep a device, by their sources.
fn fallible(file: &Path, found: &mut Vec<String>) {
    let source = syn::parse_file(&fs::read_to_string(file).expect("reads")).expect("parses");
    for item in source.items {
        let syn::Item::Impl(syn::ItemImpl { self_ty, items, trait_: None, .. }) = item else { continue };
        let syn::Type::Path(syn::TypePath { path, .. }) = *self_ty else { continue };
        let owner = path.segments.last().expect("a name").ident.to_string();
        for item in items {
            let syn::ImplItem::Fn(function) = item else { continue };
            let syn::ReturnType::Type(_, output) = &function.sig.output else { continue };
            let syn::Type::Path(syn::TypePath { path, .. }) = &**output else { continue };
            let fails = path.segments.last().is_some_and(|segment| segment.ident == "Result");
            if fails && matches!(function.vis, syn::Visibility::Public(_)) {
                found.push(format!("{owner}::{}", function.sig.ident));
            }
        }
    }
}

#[test]
fn no_call_is_missing_here() {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu")).expect("is there") {
        let path = entry.expect("is there").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            fallible(&path, &mut found);
        }
    }
    // `lower` asks the device for nothing, and a builder has none yet.
    found.retain(|name| {
        name != "Gpu::lower" && !name.starts_with("Builder::") && name != "Gpu::new" && name != "Gpu::new_async"
    });
    found.sort();
    let mut known: Vec<&str> = CALLS
        .iter()
        .map(|(name, _)| *name)
        .filter(|n| n.starts_with("Gpu::") || n.starts_with("Executable::"))
        .collect();
    known.sort_unstable();
    assert_eq!(found, known, "each function that reaches the device belongs into CALLS");
}

#[test]
fn ceilings_end_with_the_loss_too() {
    let gpu = own();
    gpu.device().destroy();
    assert!(matches!(Probe::new(&gpu, Effort::Quick).map(drop), Err(Error::DeviceLost(_))));
}
