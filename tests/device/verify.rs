//! Every case of every family, with every variant of its kernels, on the adapter. `TILEWISE_VERIFY=full` takes the larger
//! set of cases, `TILEWISE_SEED` another seed.

use std::env;

use tilewise::{
    reference::compare::Check,
    verify::{
        self, Verdict,
        cases::{self, Level},
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
