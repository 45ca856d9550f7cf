//! Work that a watchdog would end is cut: what is too long, into what, and what is said.

use std::time::Duration;

use tilewise::{
    graph::Mask,
    kernel::{AdapterKind, Limits, Profile, Rates},
    lower::{Options, Program, lower},
    nn::Gpt,
};

use super::*;

/// Attention of 16,384 queries to as many keys: 550 GFLOP.
fn attention() -> Graph {
    let mut g = Graph::new();
    let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [1, 8, 16_384, 64]).expect("valid"));
    let y = g.attention(q, k, v, Mask::none()).expect("valid");
    g.output("y", y).expect("valid");
    g
}

fn seconds(program: &Program, rates: &Rates) -> Vec<f64> {
    program.steps.iter().flat_map(|step| &step.kernel.launches).map(|launch| launch.seconds(rates)).collect()
}

#[test]
fn attention_that_takes_seconds_is_cut_into_dispatches_and_submissions() {
    let gpu = Profile::portable();
    let program = lower(&attention(), &gpu, &Options::default()).expect("lowers");
    program.verify().expect("sound");
    let times = seconds(&program, &gpu.rates);
    assert!(times.len() > 10 && times.iter().all(|&time| time <= 0.505), "{times:?}");
    for part in &program.submissions {
        assert!(times[part.clone()].iter().sum::<f64>() <= 1.01, "{part:?}: {times:?}");
    }
    // The same work in all, in one piece.
    let never = Some(Duration::MAX);
    let options = Options { longest_dispatch: never, longest_submission: never, ..Options::default() };
    let whole = lower(&attention(), &gpu, &options).expect("lowers");
    let of = |program: &Program| (program.steps[0].flops(), program.steps[0].bytes());
    assert_eq!(of(&program), of(&whole));
    assert!(of(&whole).0 >= 549_000_000_000);
    assert!(program.dispatches() > whole.dispatches());
    // As without a watchdog.
    let limits = Limits { binding_bytes: 1 << 30, ..gpu.limits.clone() };
    let software = Profile { kind: AdapterKind::Cpu, subgroup: Some((8, 8)), limits, ..gpu.clone() };
    for program in [&whole, &lower(&attention(), &software, &Options::default()).expect("lowers")] {
        assert!(program.submissions.len() == 1 && program.submissions[0] == (0..program.dispatches()));
        assert!(program.notes.iter().all(|note| note.rule != "watchdog"));
    }

    let text = program.to_string();
    let head = text.lines().next().expect("a line");
    let count = format!("1 step, {} dispatches in {} submissions, ", program.dispatches(), program.submissions.len());
    assert!(head.starts_with(&count), "{head}");
    let note = program.notes.iter().find(|note| note.rule == "watchdog").expect("it is said");
    assert!(note.applied && note.reason.contains("at 100 GFLOP/s and 10 GB/s, assumed"), "{}", note.reason);
    assert!(note.reason.contains("of 500.0 ms that one dispatch may take"), "{}", note.reason);
    assert!(text.contains(&note.reason), "explain shows it");
}

#[test]
fn faster_devices_and_other_bounds_cut_less_and_more() {
    let with =
        |profile: &Profile, options: &Options| lower(&attention(), profile, options).expect("lowers").dispatches();
    let gpu = Profile::portable();
    let default = with(&gpu, &Options::default());
    let discrete = Profile { rates: Rates::DISCRETE, ..gpu.clone() };
    assert!(with(&discrete, &Options::default()) < default);
    let fast = Profile { rates: Rates { flops: 50e12, bytes: 2e12, measured: true }, ..gpu.clone() };
    let whole = with(&fast, &Options::default());
    assert!(whole < with(&discrete, &Options::default()));
    let frame = Options { longest_dispatch: Some(Duration::from_millis(100)), ..Options::default() };
    assert!(with(&gpu, &frame) > 4 * default);
    let never = Options { longest_dispatch: Some(Duration::MAX), ..Options::default() };
    assert_eq!(with(&gpu, &never), whole);
}

#[test]
fn what_can_not_be_cut_is_said() {
    // One workgroup gathers the lengths.
    let mut g = Graph::new();
    let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [2, 2, 8, 16]).expect("valid"));
    let lengths = g.input("lengths", DType::I32, [2]).expect("valid");
    let y = g.attention(q, k, v, Mask::key_lengths(lengths)).expect("valid");
    g.output("y", y).expect("valid");
    let least = Options { longest_dispatch: Some(Duration::from_nanos(1)), ..Options::default() };
    let program = lower(&g, &Profile::portable(), &least).expect("lowers");
    let refused: Vec<_> = program.notes.iter().filter(|note| note.rule == "watchdog" && !note.applied).collect();
    assert!(refused.iter().any(|note| note.reason.contains("it stays whole: ")), "{program}");
}

#[test]
fn a_whole_model_is_several_submissions() {
    let model = Gpt::gpt2(50_257, 1024, 1024, 24, 16);
    let mut g = Graph::new();
    let ids = g.input("ids", DType::I32, [8, 1024]).expect("valid");
    let logits = model.build(&mut g, ids).expect("valid");
    g.output("logits", logits).expect("valid");
    let roomy = |mut profile: Profile| {
        (profile.limits.binding_bytes, profile.limits.buffer_bytes) = (4 << 30, 4 << 30);
        profile
    };
    let gpu = roomy(Profile { rates: Rates::DISCRETE, ..Profile::portable() });
    let program = lower(&g, &gpu, &Options::default()).expect("lowers");
    assert!(program.submissions.len() > 5, "{} submissions", program.submissions.len());
    assert_eq!(program.submissions.last().map(|part| part.end), Some(program.dispatches()));
    let times = seconds(&program, &gpu.rates);
    assert!(program.submissions.iter().all(|part| times[part.clone()].iter().sum::<f64>() <= 1.01));
}
