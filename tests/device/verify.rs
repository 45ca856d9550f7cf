//! Every case of every family, with every variant of its kernels, on the adapter. `TILEWISE_VERIFY=full` takes the larger
//! set of cases, `TILEWISE_SEED` another seed.

use std::env;

use tilewise::{
    DType, Graph, Tensor,
    reference::compare::Check,
    verify::{
        self, Report, Verdict,
        cases::{self, Case, Level},
    },
};

use crate::{common::gpu, families::of_each_family};

fn level() -> Level {
    match env::var("TILEWISE_VERIFY").as_deref() {
        Err(_) | Ok("quick") => Level::Quick,
        Ok("full") => Level::Full,
        Ok(other) => panic!("TILEWISE_VERIFY is `{other}`, expected `quick` or `full`"),
    }
}

fn seed() -> u64 {
    env::var("TILEWISE_SEED").map_or(1, |seed| seed.parse().expect("TILEWISE_SEED is a whole number"))
}

/// Every case of a family, with every variant.
fn check(family: &str) {
    let seed = seed();
    let report = verify::sweep(gpu(), &[family], level(), seed, |outcome| {
        if outcome.is_fault() {
            eprintln!("{outcome}");
        }
    });
    let report = report.expect("the cases are valid");
    println!("seed {seed}\n{report}");
    assert!(report.is_right(), "{} runs are wrong or failed", report.faults().len());
}

of_each_family!(check);

#[test]
fn the_brief_form_runs_each_variant_once_on_its_largest_case() {
    let mut told = Vec::new();
    let report = verify::brief(gpu(), &["softmax", "gather"], 1, |outcome| {
        told.push((outcome.family, outcome.variant.clone().expect("forced"), outcome.case.clone()));
    });
    let report = report.expect("the cases are valid");
    assert!(report.is_right(), "{report}");
    for (family, variant, tally) in report.tallies() {
        assert_eq!(tally.right + tally.refused, 1, "{family} {variant}");
    }
    let case = &cases::of_family("softmax", Level::Quick, 1).expect("valid")[0];
    let variants = verify::variants(gpu(), case).expect("lowers");
    assert_eq!(told.iter().filter(|(family, ..)| *family == "softmax").count(), variants.len());
    // Random data, and no empty tensor.
    for (family, variant, name) in &told {
        let cases = cases::of_family(family, Level::Quick, 1).expect("valid");
        let case = cases.iter().find(|case| case.name == *name).expect("one of them");
        let measured = |case: &Case| matches!(case.check, Check::Measured { .. });
        assert!(measured(case) || !cases.iter().any(measured), "{family} {variant}: {name}");
        assert!(!case.not_finite, "{name}: some devices are not asked");
        assert!(case.graph.outputs().iter().all(|(_, value)| !case.graph.shape(*value).contains(&0)), "{name}");
    }
}

#[test]
fn a_wrong_result_is_noticed_and_said() {
    let mut case = cases::of_family("matmul", Level::Quick, 1)
        .expect("valid")
        .into_iter()
        .find(|case| case.name == "64x64 · 64x64")
        .expect("there is a square one");
    let variant = verify::variants(gpu(), &case).expect("lowers").remove(0).variant;
    assert!(matches!(verify::run(gpu(), &case, Some(variant)).verdict, Verdict::Right(_)));
    // Sums of random products are not what f64 gives, rounded once, in every element.
    case.check = Check::Exact;
    let outcome = verify::run(gpu(), &case, Some(variant));
    assert!(outcome.is_fault());
    let message = outcome.to_string();
    assert!(message.starts_with(&format!("matmul {variant}: {}: WRONG: y0: ", case.name)), "{message}");
    let outcome = verify::run(gpu(), &case, Some("fastest"));
    assert!(outcome.to_string().contains("there is no variant `fastest`; there are: "), "{outcome}");
}

/// The squares of 10²⁰ are no f32, so that a plain evaluation is off by all there is: the kernel's zeros are not called right.
#[test]
fn a_bound_as_large_as_the_values_is_no_pass() {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, [2, 8]).expect("fits");
    let y = graph.rms_norm(x, None, 0.0).expect("fits");
    graph.output("y0", y).expect("fits");
    let inputs = [("x".to_string(), Tensor::new([2, 8], vec![1e20f32; 16]).expect("fits"))].into();
    let case = Case {
        family: "norm",
        name: "squares overflow".into(),
        graph,
        inputs,
        check: Check::measured(),
        not_finite: false,
    };
    for variant in verify::variants(gpu(), &case).expect("lowers").iter().filter(|variant| variant.is_usable()) {
        let outcome = verify::run(gpu(), &case, Some(variant.variant));
        assert!(matches!(outcome.verdict, Verdict::ProvesNothing(_)) && outcome.is_fault(), "{outcome}");
        assert!(outcome.to_string().contains("PROVES NOTHING: y0: the comparison proves nothing"), "{outcome}");
        let mut report = Report::default();
        report.add(outcome);
        let (_, _, tally) = report.tallies().next().expect("one was added");
        assert_eq!((tally.right, tally.faults, tally.unproved), (0, 0, 1));
        assert!(!report.is_right() && report.faults().len() == 1, "{report}");
    }
}
