//! The tuner: what it measures, what it keeps, and what it leaves alone.

use std::{collections::BTreeMap, fs, time::Duration};

use tilewise::{
    DType, Graph, Result, Tensor,
    graph::Mask,
    lower::{Choices, Options},
    tune::{Checked, Event, Table, Tuner},
};

use crate::common::gpu;

/// A product, attention with key lengths, and a norm.
fn graph() -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 40, 48])?;
    let w = g.parameter("w", DType::F32, [48, 48])?;
    let lengths = g.input("lengths", DType::I32, [2])?;
    let y = g.matmul(x, w)?;
    let heads = g.split_heads(y, 3)?;
    let seen = g.attention(heads, heads, heads, Mask::key_lengths(lengths))?;
    let merged = g.merge_heads(seen)?;
    let y = g.layer_norm(merged, None, None, 1e-5)?;
    g.output("y", y)?;
    Ok(g)
}

fn lengths() -> BTreeMap<String, Tensor> {
    [("lengths".to_string(), Tensor::new([2], vec![40i32, 17]).expect("fits"))].into()
}

#[test]
fn every_kind_of_step_is_measured_and_the_winners_are_taken() {
    let gpu = gpu();
    let graph = graph().expect("valid");
    let mut choices = Choices::default();
    let (mut found, mut done) = (0, Vec::new());
    let report = Tuner::new(gpu)
        .tune(&graph, &lengths(), &mut choices, |event| match event {
            Event::Found(n) => found = n,
            Event::Timing(_) => {}
            Event::Done(finding) => done.push(finding.key.clone()),
        })
        .expect("tunes");
    let families: Vec<&str> = report.findings.iter().filter_map(|f| f.key.split(' ').next()).collect();
    for family in ["matmul", "attention", "norm"] {
        assert!(families.contains(&family), "{families:?}");
    }
    assert!(report.skipped.is_empty(), "{report}");
    assert_eq!(
        (found, done.len(), choices.len()),
        (report.findings.len(), report.findings.len(), report.findings.len())
    );
    for finding in &report.findings {
        assert!(finding.trials.len() > 1, "{finding}");
        assert!(finding.trials.iter().all(|trial| trial.seconds > 0.0 && trial.first_call > 0.0), "{finding}");
        assert!(
            finding.trials.iter().all(|t| t.dropped.as_ref().is_none_or(|why| !why.starts_with("wrong"))),
            "{finding}"
        );
        let timed = finding.trials.iter().filter(|trial| trial.dropped.is_none());
        let best = timed.map(|trial| trial.seconds).fold(f64::INFINITY, f64::min);
        let winner = finding.trials.iter().find(|trial| trial.variant == finding.winner).expect("was tried");
        assert!(winner.seconds <= best / 0.96, "{finding}");
    }
    if report.findings.iter().any(|finding| finding.winner != finding.default) {
        assert!(matches!(report.checked, Checked::Right(_)), "{report}");
    }
    // A second time there is nothing left to do.
    let again = Tuner::new(gpu).tune(&graph, &lengths(), &mut choices, |_| {}).expect("tunes");
    assert!(again.findings.is_empty() && again.skipped.is_empty());
    let program = gpu.clone().with_choices(choices.clone()).lower(&graph, &Options { choices, ..Options::default() });
    for step in program.expect("lowers").steps {
        if let Some(finding) = report.findings.iter().find(|finding| finding.key == step.key) {
            assert_eq!(step.variant, finding.winner);
            assert!(step.reason.starts_with("measured to be the fastest here"), "{}", step.reason);
        }
    }
}

#[test]
fn a_device_with_choices_compiles_with_them_and_a_forced_variant_goes_first() {
    let graph = graph().expect("valid");
    let options = Options { share_memory: false, ..Options::default() };
    let program = gpu().lower(&graph, &options).expect("lowers");
    let step = program.steps.iter().find(|step| step.family == "matmul").expect("there is one");
    let other = step.candidates.iter().filter(|c| c.is_usable()).map(|c| c.variant).find(|v| *v != step.variant);
    let other = other.expect("several variants");
    let mut choices = Choices::default();
    choices.insert(&step.key, other);
    let tuned = gpu().clone().with_choices(choices.clone());
    let taken = |options: &Options| {
        let program = tuned.lower(&graph, options).expect("lowers");
        program.steps.iter().find(|step| step.family == "matmul").expect("there is one").variant
    };
    assert_eq!(taken(&tuned.options()), other);
    assert_eq!(taken(&tuned.options().force("matmul", step.variant)), step.variant);
    // What can't run, or is unknown, is as if it were not there.
    let mut stale = Choices::default();
    stale.insert(&step.key, "of an older version");
    let program = gpu().lower(&graph, &Options { choices: stale, ..Options::default() }).expect("lowers");
    assert_eq!(program.steps.iter().find(|s| s.family == "matmul").expect("there is one").variant, step.variant);
}

#[test]
fn numbers_that_decide_the_work_must_be_given() {
    let mut choices = Choices::default();
    let report =
        Tuner::new(gpu()).tune(&graph().expect("valid"), &BTreeMap::new(), &mut choices, |_| {}).expect("tunes");
    let (problem, why) = &report.skipped[0];
    assert!(problem.starts_with("attention") && why.contains("`lengths`"), "{problem}: {why}");
    assert!(choices.iter().all(|(key, _)| !key.starts_with("attention")));
}

#[test]
fn without_time_nothing_is_measured() {
    let mut choices = Choices::default();
    let report = Tuner::new(gpu())
        .budget(Duration::ZERO)
        .tune(&graph().expect("valid"), &lengths(), &mut choices, |_| {})
        .expect("tunes");
    assert!(report.findings.is_empty() && choices.is_empty());
    assert!(report.skipped.iter().all(|(_, why)| why.contains("budget")) && !report.skipped.is_empty(), "{report}");
}

#[test]
fn a_table_outlives_the_program_and_a_bad_file_only_warns() {
    let folder = std::env::temp_dir().join(format!("tilewise-tune-{}", std::process::id()));
    let path = folder.join("deep/table.json");
    let mut table = Table::open(&path, gpu());
    assert!(table.choices.is_empty() && table.warning().is_none(), "a file that isn't there is no fault");
    table.choices.insert("matmul M=1 N=1 K=1", "plain");
    table.save().expect("writes");
    let read = Table::open(&path, gpu());
    assert_eq!((read.choices.get("matmul M=1 N=1 K=1"), read.warning()), (Some("plain"), None));

    let text = fs::read_to_string(&path).expect("is there");
    for (broken, says) in [
        (text[..text.len() / 2].to_string(), "no tuning table"),
        (String::new(), "no tuning table"),
        (text.replace(&gpu().profile().adapter, "Another GPU"), "its adapter is `Another GPU`"),
        (text.replace(env!("CARGO_PKG_VERSION"), "0.0.1"), "its version is `0.0.1`"),
    ] {
        fs::write(&path, broken).expect("writes");
        let table = Table::open(&path, gpu());
        assert!(table.choices.is_empty());
        assert!(table.warning().is_some_and(|warning| warning.contains(says)), "{:?}", table.warning());
    }
    // The next save replaces what was ignored.
    table.save().expect("writes");
    assert_eq!(Table::open(&path, gpu()).choices.len(), 1);
    // But not what is no table at all: a graph, whose name was given by mistake.
    fs::write(&path, graph().expect("valid").to_json().expect("writes")).expect("writes");
    let graph = fs::read(&path).expect("is there");
    let error = table.save().expect_err("no table").to_string();
    assert!(error.contains("is no tuning table and is not replaced"), "{error}");
    assert_eq!(fs::read(&path).expect("is there"), graph);
    fs::remove_dir_all(folder).expect("is ours");

    let mut nowhere = Table::open("/dev/null/table.json", gpu());
    assert!(nowhere.warning().is_some());
    let error = nowhere.save().expect_err("can't be written");
    assert!(error.to_string().contains("/dev/null"), "{error}");
}

/// Whoever saves last keeps what the other one has measured.
#[test]
fn two_tuners_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("table.json");
    let mut first = Table::open(&path, gpu());
    first.choices.insert("matmul M=1", "plain");
    first.choices.insert("matmul M=2", "plain");
    first.save().expect("writes");
    let (mut a, mut b) = (Table::open(&path, gpu()), Table::open(&path, gpu()));
    a.choices.insert("matmul M=3", "tiled");
    a.choices.insert("matmul M=1", "tiled");
    b.choices.insert("matmul M=4", "vec");
    b.choices.remove("matmul M=2");
    a.save().expect("writes");
    b.save().expect("writes");
    let expected = [("matmul M=1", "tiled"), ("matmul M=3", "tiled"), ("matmul M=4", "vec")];
    assert_eq!(Table::open(&path, gpu()).choices.iter().collect::<Vec<_>>(), expected);
    assert_eq!(b.choices.iter().collect::<Vec<_>>(), expected, "and knows it then");
    // Many at once.
    std::thread::scope(|scope| {
        for i in 10..18 {
            let mut table = Table::open(&path, gpu());
            scope.spawn(move || {
                for j in 0..5 {
                    table.choices.insert(format!("matmul M={i} N={j}"), "plain");
                    table.save().expect("writes");
                }
            });
        }
    });
    assert_eq!(Table::open(&path, gpu()).choices.len(), 3 + 40);
    let left: Vec<_> =
        fs::read_dir(folder.path()).expect("is there").map(|f| f.expect("is there").file_name()).collect();
    assert_eq!(left, ["table.json"], "no lock and no part stays");
}

#[test]
fn the_default_path_names_the_device() {
    let path = Table::default_path(gpu()).expect("there is a home folder, or TILEWISE_TUNED");
    assert!(path.is_absolute() || std::env::var_os("TILEWISE_TUNED").is_some(), "{}", path.display());
    assert_eq!(path.extension().and_then(|e| e.to_str()), Some("json"));
}
