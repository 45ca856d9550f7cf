//! What must hold for the memory of every program, and for programs of random graphs.

use proptest::prelude::*;
use tilewise::{
    DType, Error, Graph, Tensor,
    kernel::{Profile, buffer_bytes},
    lower::{Buffer, BufferId, Options, Program, Role, lower},
};

use super::{graph, input, lowered, program};
use crate::common::random::random_graph;

/// Checks a program against its graph: the same inputs, parameters and outputs, everything written before it is read, and
/// no two values in one place at one time.
pub(crate) fn check(graph: &Graph, program: &Program) {
    program.verify().unwrap_or_else(|e| panic!("{e}\n{program}"));
    let named = program.named();
    let states = graph.states().map(|(name, state, _)| (name, state));
    let sources = graph.inputs().chain(graph.parameters()).chain(states);
    let outputs = graph.outputs().iter().map(|(name, value)| (name.as_str(), *value));
    let mut names = 0;
    for (name, value) in sources.chain(outputs) {
        let buffer = &program.buffers[named[name].0];
        assert_eq!((buffer.dtype, &buffer.shape), (graph.dtype(value), graph.shape(value)), "{name}\n{program}");
        names += 1;
    }
    assert_eq!(named.len(), names, "{program}");

    let given = |buffer: &Buffer| !matches!(buffer.role, Role::Output(_) | Role::Temporary(_) | Role::Next(_));
    let mut written: Vec<bool> = program.buffers.iter().map(given).collect();
    // By buffer: the first and the last step that it is an operand of.
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; program.buffers.len()];
    for (i, step) in program.steps.iter().enumerate() {
        for id in &step.inputs {
            assert!(written[id.0], "step {i} reads `{}` before it is written\n{program}", program.buffers[id.0].name);
        }
        for id in &step.outputs {
            assert!(!written[id.0], "step {i} writes `{}` again\n{program}", program.buffers[id.0].name);
            written[id.0] = true;
        }
        for id in step.inputs.iter().chain(&step.outputs).chain(&step.workspace) {
            let life = lives[id.0].get_or_insert((i, i));
            life.1 = i;
        }
    }
    for (buffer, written) in program.buffers.iter().zip(&written) {
        assert!(*written || matches!(buffer.role, Role::Temporary(_)), "`{}` is never written\n{program}", buffer.name);
        assert!(buffer.bytes >= buffer_bytes(buffer.dtype, buffer.shape.iter().product()));
    }

    // A state is not read once it has become another.
    for (i, buffer) in program.buffers.iter().enumerate() {
        if let (Role::Next(state), Some((first, _))) = (&buffer.role, lives[i]) {
            assert!(
                lives[*state].is_none_or(|(_, last)| last <= first),
                "`{}` is read too late\n{program}",
                buffer.name
            );
        }
    }

    let allocation = |i: usize| match program.buffers[i].role {
        Role::Temporary(allocation) => Some(allocation),
        _ => None,
    };
    for a in 0..program.buffers.len() {
        for b in 0..a {
            let (Some(one), Some(other)) = (lives[a], lives[b]) else { continue };
            if allocation(a).is_none() || allocation(a) != allocation(b) || one.1 < other.0 || other.1 < one.0 {
                continue;
            }
            // They meet in one step, where one takes over the other.
            let (from, to) = if one.0 < other.0 { (a, b) } else { (b, a) };
            let at = lives[to].map_or(0, |life| life.0);
            let step = &program.steps[at];
            let taken = step.in_place.map(|input| step.inputs[input]) == Some(BufferId(from));
            assert!(
                taken && step.outputs[0] == BufferId(to) && lives[from].is_some_and(|life| life.1 == at),
                "`{}` and `{}` are alive together in one allocation\n{program}",
                program.buffers[a].name,
                program.buffers[b].name
            );
        }
    }
    assert!(program.peak_bytes() <= program.naive_bytes(), "{program}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs(numbers in proptest::collection::vec(any::<u32>(), 0..80)) {
        let graph = random_graph(&numbers).graph;
        let separate = Options { share_memory: false, ..Options::default() };
        for options in [Options::default(), separate, Options::unfused()] {
            let program = lowered(&graph, &options);
            // Sharing, fusion and the rest change no name and no shape of what is outside (`lowered` checks that).
            if !options.share_memory {
                prop_assert_eq!(program.peak_bytes(), program.naive_bytes());
                prop_assert!(program.steps.iter().all(|step| step.in_place.is_none()));
            }
        }
    }
}

#[test]
fn a_chain_of_kernels_needs_two_places() {
    let chain = |share: bool| {
        let g = graph(|g| {
            let mut x = input(g, "x", &[64, 64])?;
            for i in 0..6 {
                let w = input(g, &format!("w{i}"), &[64, 64])?;
                x = g.matmul(x, w)?;
            }
            Ok(x)
        });
        lowered(&g, &Options { share_memory: share, ..Options::default() })
    };
    let tensor = 64 * 64 * 4;
    assert_eq!(chain(false).peak_bytes(), 5 * tensor);
    assert_eq!(chain(true).peak_bytes(), 2 * tensor);
    assert_eq!(chain(true).naive_bytes(), 5 * tensor);
    assert_eq!(chain(true).unfused_bytes, 5 * tensor);
}

#[test]
fn pointwise_kernels_work_in_place() {
    // The norm keeps the two chains apart.
    let in_place = program(|g| {
        let (x, w) = (input(g, "x", &[16, 16])?, input(g, "w", &[16, 16])?);
        let y = g.matmul(x, w)?;
        let sums = g.reduce(tilewise::graph::Reduce::Sum, y, &[1], true)?;
        let y = g.mul(y, sums)?;
        let y = g.permute(y, &[1, 0])?;
        g.matmul(y, w)
    });
    let step = in_place.steps.iter().find(|step| step.family == "pointwise").expect("a mul");
    assert_eq!(step.in_place, Some(0), "{in_place}");
    assert!(in_place.to_string().contains("(in place of %2)"), "{in_place}");
}

#[test]
fn a_value_that_is_read_later_is_not_taken_over() {
    let kept = program(|g| {
        let (x, w) = (input(g, "x", &[16, 16])?, input(g, "w", &[16, 16])?);
        let y = g.matmul(x, w)?;
        let z = g.exp(y)?;
        let z = g.matmul(z, w)?;
        g.matmul(z, y)
    });
    assert!(kept.steps.iter().all(|step| step.in_place.is_none()), "{kept}");
}

#[test]
fn outputs_that_are_views_or_given_get_a_copy() {
    let mut g = Graph::new();
    let build = |g: &mut Graph| {
        let (x, w) = (input(g, "x", &[2, 3])?, input(g, "w", &[3, 4])?);
        let y = g.matmul(x, w)?;
        let turned = g.permute(y, &[1, 0])?;
        let reshaped = g.reshape(y, [8])?;
        let constant = g.constant(Tensor::new([2], vec![1.0f32, 2.0])?)?;
        g.output("given", x)?;
        g.output("reshaped", reshaped)?;
        g.output("turned", turned)?;
        g.output("again", y)?;
        g.output("constant", constant)
    };
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    let program = lowered(&g, &Options::default());
    // The product lies in the output `reshaped` itself.
    assert_eq!(super::families(&program), ["matmul", "copy", "copy", "copy", "copy"], "{program}");
    let reasons: Vec<String> =
        program.notes.iter().filter(|note| note.rule == "copy").map(|note| note.reason.clone()).collect();
    assert_eq!(
        reasons,
        [
            "into the output `given`: it is given, not computed",
            "into the output `turned`: it is another output too",
            "into the output `again`: it is another output too",
            "into the output `constant`: it is given, not computed",
        ]
    );
    assert!(program.allocations.is_empty());
}

#[test]
fn views_cost_nothing() {
    let views = program(|g| {
        let (x, w) = (input(g, "x", &[2, 6, 8])?, input(g, "w", &[5, 8])?);
        let x = g.slice(x, 1, 1, 5)?;
        let x = g.permute(x, &[1, 0, 2])?;
        let x = g.reshape(x, [4, 2, 8])?;
        let y = g.linear(x, w, None)?;
        g.reshape(y, [8, 5])
    });
    assert_eq!(super::families(&views), ["matmul"], "{views}");
    // Only what strides can't say is copied.
    let copied = program(|g| {
        let (x, w) = (input(g, "x", &[4, 6, 8])?, input(g, "w", &[5, 32])?);
        let x = g.permute(x, &[1, 0, 2])?;
        let x = g.reshape(x, [6, 32])?;
        let x = g.permute(x, &[1, 0])?;
        let x = g.reshape(x, [6, 32])?;
        g.linear(x, w, None)
    });
    assert_eq!(super::families(&copied), ["copy", "copy", "matmul"], "{copied}");
    let reason = &copied.notes.iter().find(|note| note.rule == "copy").expect("a copy").reason;
    assert_eq!(reason, "[6, 4, 8] of strides [8, 48, 1] can't be read as [6, 32]");
}

#[test]
fn a_tensor_over_the_limit_is_named() {
    let g = graph(|g| {
        let x = g.input("activations", DType::F32, [9_000, 4_096])?;
        g.relu(x)
    });
    let error = lower(&g, &Profile::portable(), &Options::default()).expect_err("over 128 MiB");
    assert!(matches!(error, Error::Limit { value: 147_456_000, limit: 134_217_728, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("`activations` f32 [9000, 4096]"), "{text}");
    assert!(text.contains("max_storage_buffer_binding_size"), "{text}");
}

#[test]
fn empty_tensors_are_lowered_too() {
    let empty = program(|g| {
        let (x, w) = (input(g, "x", &[0, 8])?, input(g, "w", &[5, 8])?);
        let y = g.linear(x, w, None)?;
        g.relu(y)
    });
    assert!(empty.steps.iter().all(|step| step.kernel.launches.iter().all(|launch| launch.grid.contains(&0))));
}
