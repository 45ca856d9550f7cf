//! Memory that is bounded and given back, and drivers that are made ready.

use tilewise::{Graph, gpu::Bounds};

use super::*;

/// y = softmax(relu(x) w), and the sum of all x so far.
fn graph() -> Graph {
    let mut g = Graph::new();
    let build = |g: &mut Graph| {
        let x = g.input("x", DType::F32, [32, 64])?;
        let w = g.parameter("w", DType::F32, [64, 16])?;
        let positive = g.relu(x)?;
        let y = g.matmul(positive, w)?;
        let y = g.softmax(y, -1)?;
        g.output("y", y)?;
        let sum = g.input("sum", DType::F32, [32, 64])?;
        let next = g.add(sum, x)?;
        g.update(sum, next)
    };
    build(&mut g).expect("valid");
    g
}

const X: u64 = 32 * 64 * 4;
const W: u64 = 64 * 16 * 4;
const Y: u64 = 32 * 16 * 4;

fn weight() -> Tensor {
    Tensor::new([64, 16], (0..1024).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>()).expect("fits")
}

fn input(scale: f32) -> Tensor {
    Tensor::new([32, 64], (0..2048).map(|i| scale * ((i % 5) as f32 - 2.0)).collect::<Vec<_>>()).expect("fits")
}

fn with(bounds: Bounds) -> Gpu {
    Gpu::builder().bounds(bounds).build().expect("an adapter")
}

#[test]
fn memory_is_counted_given_back_and_taken_again() {
    let gpu = with(Bounds::default());
    assert_eq!(gpu.memory(), 0);
    let mut program = gpu.compile(&graph(), [("w", &weight())]).expect("compiles");
    let temporaries = gpu.lower(&graph(), &gpu.options()).expect("lowers").peak_bytes();
    assert!(temporaries > 0);
    // The parameter, the state, the temporaries.
    assert_eq!((gpu.memory(), program.memory()), (W + X + temporaries, W + X + temporaries));
    let first = program.run(&[("x", &input(1.0))]).expect("runs");
    assert_eq!(program.memory(), W + X + temporaries + 2 * (X + Y), "inputs and outputs, here and on the way");
    program.bench(3, 3).expect("runs");
    assert_eq!(program.memory(), W + X + temporaries + 4 * (X + Y), "two copies more");

    assert_eq!(program.trim(), temporaries + 4 * (X + Y));
    assert_eq!((program.trim(), program.memory()), (0, W + X));
    assert_eq!(program.run(&[("x", &input(1.0))]).expect("runs"), first);
    // The state stayed: 1 + 3 + 1 runs.
    assert_eq!(program.state("sum").expect("reads"), input(5.0));
    // Into the caller's encoder, too.
    program.trim();
    let x = gpu.upload(&input(1.0)).expect("uploads");
    let y = gpu.upload(&Tensor::zeros(DType::F32, [32, 16]).expect("fits")).expect("uploads");
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    program.encode(&mut encoder, &[("x", x.slice(..)), ("y", y.slice(..))]).expect("records");
    gpu.queue().submit([encoder.finish()]);
    assert_eq!(gpu.download(y.slice(..), DType::F32, [32, 16]).expect("downloads"), first["y"]);
    assert_eq!(gpu.memory(), W + X + temporaries, "no inputs and outputs of its own");
    drop(program);
    assert_eq!(gpu.memory(), 0);
}

#[test]
fn a_watched_program_is_trimmed_alike() {
    let gpu = with(Bounds::default());
    let program = gpu.lower(&graph(), &gpu.options()).expect("lowers");
    let mut watched = gpu.load_with(&program, [("w", &weight())], LoadOptions { guard: true }).expect("loads");
    let first = watched.run(&[("x", &input(1.0))]).expect("runs");
    assert!(watched.trim() > 0);
    assert_eq!(watched.run(&[("x", &input(1.0))]).expect("runs"), first);
}

#[test]
fn beyond_the_bound_is_an_error_that_says_what_is_needed() {
    let (gpu, w) = (gpu(), weight());
    let temporaries = gpu.lower(&graph(), &gpu.options()).expect("lowers").peak_bytes();
    let one = W + X + temporaries;
    let gpu = with(Bounds { memory: Some(2 * one + 2 * (X + Y)), ..Bounds::default() });
    let mut first = gpu.compile(&graph(), [("w", &w)]).expect("there is room");
    first.run(&[("x", &input(1.0))]).expect("there is room");
    let mut second = gpu.compile(&graph(), [("w", &w)]).expect("there is room");
    match second.run(&[("x", &input(1.0))]) {
        Err(Error::Limit { what, value, limit, hint }) => {
            assert_eq!((value, limit), (2 * one + 3 * (X + Y), 2 * one + 2 * (X + Y)));
            let held = 2 * one + 2 * (X + Y);
            let (io, held) = (X + Y, held.to_string());
            assert!(what.contains(&format!("{io} for a program's inputs and outputs beside the {held}")), "{what}");
            assert!(hint.contains("Executable::trim") && hint.contains("Bounds::memory"), "{hint}");
        }
        other => panic!("expected Error::Limit, got {other:?}"),
    }
    let text = message(gpu.compile(&graph(), [("w", &w)]));
    assert!(text.contains(&format!("{one} for a program's parameters, constants, states and temporaries")), "{text}");
    first.trim();
    second.run(&[("x", &input(1.0))]).expect("there is room again");
    drop(second);
    first.run(&[("x", &input(1.0))]).expect("it takes again what it needs");
    assert_eq!(first.state("sum").expect("reads"), input(2.0));
}

#[test]
fn pipelines_that_nothing_uses_make_way() {
    let gpu = with(Bounds { pipelines: Some(3), ..Bounds::default() });
    let chain = |kinds: &[fn(&mut Graph, tilewise::ValueId) -> Result<tilewise::ValueId>]| {
        let mut g = Graph::new();
        let mut x = g.input("x", DType::F32, [2, 3]).expect("valid");
        for kind in kinds {
            x = kind(&mut g, x).expect("valid");
        }
        g.output("y", x).expect("valid");
        g
    };
    let softmax = chain(&[|g, x| g.softmax(x, -1)]);
    let mut living = gpu.compile(&softmax, []).expect("compiles");
    let of_living = gpu.pipelines();
    for graph in
        [chain(&[|g, x| g.relu(x)]), chain(&[|g, x| g.tanh(x)]), chain(&[|g, x| g.exp(x)]), chain(&[|g, x| g.sqrt(x)])]
    {
        gpu.compile(&graph, []).expect("compiles");
        assert!(gpu.pipelines() <= 3, "{} pipelines", gpu.pipelines());
    }
    let compiled = gpu.compiled_pipelines();
    assert_eq!(compiled, of_living + 4);
    gpu.compile(&softmax, []).expect("compiles");
    gpu.compile(&chain(&[|g, x| g.sqrt(x)]), []).expect("compiles");
    assert_eq!(gpu.compiled_pipelines(), compiled, "the last ones are there");
    gpu.compile(&chain(&[|g, x| g.relu(x)]), []).expect("compiles");
    assert_eq!(gpu.compiled_pipelines(), compiled + 1, "the first one went");
    assert_eq!((gpu.trim(), gpu.pipelines()), (3 - of_living, of_living));
    let x = Tensor::zeros(DType::F32, [2, 3]).expect("fits");
    living.run(&[("x", &x)]).expect("runs");
}

#[test]
fn warming_up_tells_how_far_it_is_and_changes_nothing() {
    let gpu = with(Bounds::default());
    let mut program = gpu.compile(&graph(), [("w", &weight())]).expect("compiles");
    program.set_state("sum", &input(3.0)).expect("written");
    let memory = program.memory();
    let steps = program.steps().len();
    let mut told = Vec::new();
    program.warm_up(|done, all| told.push((done, all))).expect("runs");
    assert_eq!(told, (1..=steps).map(|done| (done, steps)).collect::<Vec<_>>());
    assert_eq!(program.memory(), memory);
    assert_eq!(program.state("sum").expect("reads"), input(3.0));
    let outputs = program.run(&[("x", &input(1.0))]).expect("runs");
    assert_eq!(program.state("sum").expect("reads"), input(4.0));
    let y = program.buffer("y").expect("there");
    pollster::block_on(program.warm_up_async(|_, _| {})).expect("runs");
    assert_eq!(
        gpu.download(y.slice(..), DType::F32, [32, 16]).expect("downloads"),
        outputs["y"],
        "outputs stay as well"
    );
}

#[test]
fn a_kernel_that_can_only_run_whole_is_warmed_up_by_running_unless_a_state_would_change() {
    // No kernel of these asks where to begin.
    let w = ramp(10, 1.0);
    let mut program = gpu().load(&sample(10), [("w", &w)]).expect("loads");
    let mut told = 0;
    program.warm_up(|_, _| told += 1).expect("runs");
    assert_eq!(told, program.steps().len());
    check_sample(&mut program, 10, &w);
}
