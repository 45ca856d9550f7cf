//! Work in parts: dispatches and submissions that are cut have the same bits, and what waits gives up.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use tilewise::{
    Graph,
    gpu::{Bounds, StepRange},
    kernel::Rates,
    lower::Options,
    reference::compare::Check,
    verify::{
        self,
        cases::{self, Case, Level},
    },
};

use super::*;
use crate::{common::another_gpu, families::of_each_family};

/// Bounds that cut everything as far as it goes, but not what is left out of them.
fn tiny() -> Options {
    let least = Some(Duration::from_nanos(1));
    Options { longest_dispatch: least, longest_submission: least, ..Options::default() }
}

fn named<'a>(case: &'a Case, names: &[&str]) -> Vec<(&'a str, &'a Tensor)> {
    let is_named = |(name, _): &(&String, &Tensor)| names.contains(&name.as_str());
    case.inputs.iter().filter(is_named).map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

/// Names, shapes and bytes: a NaN equals itself.
fn outputs(case: &Case, program: &Program) -> BTreeMap<String, (Shape, Vec<u8>)> {
    let parameters = named(case, &case.graph.parameters().map(|(name, _)| name).collect::<Vec<_>>());
    let inputs = named(case, &case.graph.inputs().map(|(name, _)| name).collect::<Vec<_>>());
    let mut executable = gpu().load_with(program, &parameters[..], LoadOptions { guard: true }).expect("loads");
    let mut outputs = executable.run(&inputs).unwrap_or_else(|error| panic!("{}: {error}\n{program}", case.name));
    for (name, ..) in case.graph.states() {
        outputs.insert(format!("state {name}"), executable.state(name).expect("reads"));
    }
    outputs.into_iter().map(|(name, tensor)| (name, (tensor.shape().clone(), tensor.as_bytes().to_vec()))).collect()
}

const LARGER: &str = "several workgroups";

/// A case with several workgroups, for variants whose quick cases have one.
fn larger(family: &str) -> Option<Case> {
    let mut g = Graph::new();
    // Squares of four by four have to fit.
    let shape = match family {
        "copy" => [128, 96],
        // What the deep panel asks for.
        "matmul" => [520, 511],
        _ => [64, 131],
    };
    let x = g.input("x", DType::F32, shape).expect("valid");
    let mut inputs = BTreeMap::from([("x".to_string(), ramp_of(shape))]);
    let (family, y) = match family {
        "copy" => ("copy", g.permute(x, &[1, 0])),
        "matmul" => ("matmul", g.matmul_transposed(x, x)),
        "concat" => ("concat", g.concat(&[x, x], 1)),
        "pad" => ("pad", g.pad(x, &[(1, 2), (3, 0)], 7.0)),
        "gather" => {
            let rows = Tensor::new([90], (0..90).map(|i| i * 37 % 64).collect::<Vec<i32>>()).expect("fits");
            let indices = g.input("rows", DType::I32, [90]).expect("valid");
            inputs.insert("rows".into(), rows);
            ("gather", g.gather(x, indices, 0))
        }
        _ => return None,
    };
    g.output("y", y.expect("valid")).expect("valid");
    Some(Case { family, name: LARGER.into(), graph: g, inputs, check: Check::measured(), not_finite: false })
}

fn ramp_of(shape: [usize; 2]) -> Tensor {
    let values = (0..shape[0] * shape[1]).map(|i| i as f32 * 0.37).map(f32::sin);
    Tensor::new(shape, values.collect::<Vec<_>>()).expect("fits")
}

/// Cases of a family, with each variant: the same bits in pieces of one workgroup, one dispatch a submission, as in one piece. The
/// cases of a variant that have the most workgroups are taken, up to three.
fn same_bits_in_pieces(family: &str) {
    // With the pieces, and whether there are more of them than dispatches.
    let mut by_variant: BTreeMap<&str, Vec<(usize, bool, Case)>> = BTreeMap::new();
    for case in cases::of_family(family, Level::Quick, 1).expect("a family").into_iter().chain(larger(family)) {
        for candidate in verify::variants(gpu(), &case).expect("lowers").iter().filter(|c| c.is_usable()) {
            let options = tiny().force(family, candidate.variant);
            let Ok(program) = gpu().lower(&case.graph, &options) else { continue };
            let whole = gpu().lower(&case.graph, &Options::default().force(family, candidate.variant)).expect("lowers");
            let pieces = program.dispatches();
            let taken = by_variant.entry(candidate.variant).or_default();
            if case.name == LARGER && taken.iter().any(|(_, is_cut, _)| *is_cut) {
                continue;
            }
            taken.push((pieces, pieces > whole.dispatches(), case.clone()));
            taken.sort_by_key(|&(pieces, is_cut, _)| std::cmp::Reverse((is_cut, pieces)));
            taken.truncate(3);
        }
    }
    assert!(!by_variant.is_empty(), "{family} has no case here");
    let mut whole_only = Vec::new();
    for (variant, cases) in by_variant {
        let mut cut = 0;
        for (.., case) in cases {
            let whole = gpu().lower(&case.graph, &Options::default().force(family, variant)).expect("lowers");
            let parts = gpu().lower(&case.graph, &tiny().force(family, variant)).expect("lowers");
            assert_eq!(parts.submissions.len(), parts.dispatches());
            cut += usize::from(parts.dispatches() > whole.dispatches());
            assert_eq!(outputs(&case, &parts), outputs(&case, &whole), "{family} {variant}: {}", case.name);
        }
        if cut == 0 {
            whole_only.push(variant);
        }
    }
    assert!(whole_only.is_empty(), "no case of {family} was cut with {}", whole_only.join(", "));
}

of_each_family!(same_bits_in_pieces);

/// x → softmax → softmax, and a count of the runs.
fn counting_graph() -> Graph {
    let mut g = Graph::new();
    let build = |g: &mut Graph| {
        let x = g.input("x", DType::F32, [64, 96])?;
        let y = g.softmax(x, -1)?;
        let z = g.softmax(y, 0)?;
        g.output("z", z)?;
        let count = g.input("count", DType::I32, [1])?;
        let one = g.scalar(1.0, count)?;
        let next = g.add(count, one)?;
        g.update(count, next)
    };
    build(&mut g).expect("valid");
    g
}

fn input() -> Tensor {
    ramp_of([64, 96])
}

/// A device on which everything is cut.
fn cutting() -> Gpu {
    let least = Some(Duration::from_nanos(1));
    let bounds = Bounds { longest_dispatch: least, longest_submission: least, ..Bounds::default() };
    Gpu::builder().bounds(bounds).build().expect("an adapter")
}

#[test]
fn a_run_in_many_submissions_is_timed_as_one() {
    let expected = gpu().compile(&counting_graph(), []).expect("compiles").run(&[("x", &input())]).expect("runs");
    let gpu = cutting();
    let mut program = gpu.compile(&counting_graph(), []).expect("compiles");
    let dispatches = program.dispatches();
    assert!(dispatches > 2 * program.steps().len(), "{dispatches} dispatches");
    assert_eq!(program.run(&[("x", &input())]).expect("runs"), expected);
    let profile = program.profile().expect("runs");
    assert_eq!(profile.steps.len(), program.steps().len());
    if gpu.has_timestamps() {
        let times: Vec<_> =
            profile.steps.iter().map(|step| (step.start.expect("timed"), step.gpu.expect("timed"))).collect();
        for (one, next) in times.iter().zip(&times[1..]) {
            assert!(one.0 + one.1 <= next.0, "{times:?}");
        }
        assert!(profile.gpu.expect("timed") <= profile.wall);
    }
    let timing = program.bench(5, 2).expect("runs");
    assert_eq!(timing.iterations, 5);
    assert!(timing.seconds() > 0.0);
    // Every run moved the state on.
    assert_eq!(program.state("count").expect("reads").as_i32(), Some(&[7][..]));
    assert_eq!(program.run(&[("x", &input())]).expect("runs"), expected);
}

/// Records a program in ranges, each in an encoder of its own.
fn record(
    executable: &mut Executable,
    ranges: impl IntoIterator<Item = Range<usize>>,
    mut encode: impl FnMut(
        &mut Executable,
        &mut wgpu::CommandEncoder,
        &[(&str, wgpu::BufferSlice<'_>)],
        Range<usize>,
    ) -> Result<()>,
) -> Tensor {
    let gpu = executable.gpu().clone();
    let x = gpu.upload(&input()).expect("uploads");
    let z = gpu.upload(&Tensor::zeros(DType::F32, [64, 96]).expect("fits")).expect("uploads");
    let given = [("x", x.slice(..)), ("z", z.slice(..))];
    for range in ranges {
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(executable, &mut encoder, &given, range).expect("records");
        gpu.queue().submit([encoder.finish()]);
    }
    gpu.download(z.slice(..), DType::F32, [64, 96]).expect("downloads")
}

#[test]
fn an_app_spreads_a_program_over_frames() {
    let expected =
        gpu().compile(&counting_graph(), []).expect("compiles").run(&[("x", &input())]).expect("runs")["z"].clone();
    let mut program = cutting().compile(&counting_graph(), []).expect("compiles");
    let steps: Vec<Range<usize>> = program.steps().map(|StepRange { dispatches, .. }| dispatches).collect();
    assert_eq!((steps[0].start, steps.last().expect("some").end), (0, program.dispatches()));
    assert!(steps.windows(2).all(|pair| pair[0].end == pair[1].start), "{steps:?}");
    let by_step = (0..steps.len()).map(|step| step..step + 1);
    assert_eq!(record(&mut program, by_step, Executable::encode_steps), expected);
    let parts = program.parts(Duration::from_nanos(1));
    assert_eq!(parts.len(), program.dispatches());
    assert_eq!(record(&mut program, parts, Executable::encode_dispatches), expected);
    let some = program.steps().next().expect("a step").estimate / 3;
    let parts = program.parts(some);
    assert!(parts.len() > 3 && parts.len() < program.dispatches(), "{parts:?}");
    assert_eq!(record(&mut program, parts, Executable::encode_dispatches), expected);
    assert_eq!(program.state("count").expect("reads").as_i32(), Some(&[3][..]));

    let mut encoder = program.gpu().device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let text = message(program.encode_steps(&mut encoder, &[], 1..9));
    assert_eq!(text, format!("steps 1..9 were asked for, the program has 0..{}", steps.len()));
}

#[test]
fn a_wait_that_takes_too_long_is_an_error_and_the_device_goes_on() {
    let patient = another_gpu();
    let mut graph = Graph::new();
    let size = 768;
    let build = |g: &mut Graph| {
        let x = g.input("x", DType::F32, [size, size])?;
        let y = (0..6).try_fold(x, |y, _| g.matmul(y, x))?;
        g.output("y", y)
    };
    build(&mut graph).expect("valid");
    let x = Tensor::zeros(DType::F32, [size, size]).expect("fits");
    let waiting = |wait: Duration| {
        Gpu::builder().bounds(Bounds { wait: Some(wait), ..Bounds::default() }).build().expect("an adapter")
    };
    patient.compile(&graph, []).expect("compiles").run(&[("x", &x)]).expect("runs in time");

    let gpu = waiting(Duration::from_micros(1));
    let mut program = gpu.compile(&graph, []).expect("compiles");
    let mut watched = gpu
        .load_with(&gpu.lower(&graph, &gpu.options()).expect("lowers"), [], LoadOptions { guard: true })
        .expect("loads");
    let buffer = program.buffer("y").expect("made");
    let timed_out = |what: &str, result: Result<()>| match result {
        Err(Error::Timeout { waited, .. }) => assert_eq!(waited, Duration::from_micros(1)),
        other => panic!("{what}: expected Error::Timeout, got {other:?}"),
    };
    // Each has work of its own to wait for.
    program.set_inputs(&[("x", &x)]).expect("written");
    timed_out("bench", program.bench(20, 1).map(drop));
    timed_out("run", program.run(&[("x", &x)]).map(drop));
    timed_out("run_async", pollster::block_on(program.run_async(&[("x", &x)])).map(drop));
    timed_out("watched run", watched.run(&[("x", &x)]).map(drop));
    timed_out("profile", program.profile().map(drop));
    let text = message(program.run(&[("x", &x)]));
    assert!(text.contains("within 1µs") && text.contains("Bounds::wait"), "{text}");
    // Nothing was lost but patience.
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device goes on");
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let given = gpu.upload(&x).expect("uploads");
    program.encode(&mut encoder, &[("x", given.slice(..)), ("y", buffer.slice(..))]).expect("records");
    gpu.queue().submit([encoder.finish()]);
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device goes on");
}

#[test]
fn rates_decide_what_is_cut() {
    let slow = Rates { flops: 1e6, bytes: 1e6, measured: true };
    let bounds = Bounds { rates: Some(slow), longest_dispatch: Some(Duration::from_millis(10)), ..Bounds::default() };
    let gpu = Gpu::builder().bounds(bounds).build().expect("an adapter");
    assert_eq!(gpu.profile().rates, slow);
    let program = gpu.lower(&counting_graph(), &gpu.options()).expect("lowers");
    let text = program.to_string();
    assert!(text.contains("watchdog, ") && text.contains("at 0.001 GFLOP/s and 0.001 GB/s, measured"), "{text}");
    assert!(text.contains("10.0 ms that one dispatch may take") && text.contains("; cut into "), "{text}");
    let default = another_gpu();
    let program = default.lower(&counting_graph(), &default.options()).expect("lowers");
    assert!(!program.to_string().contains("watchdog"));
}
