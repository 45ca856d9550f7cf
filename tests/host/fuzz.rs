//! A bounded run of every fuzzer of `fuzz/`. `TILEWISE_FUZZ` takes another number of cases, `TILEWISE_SEED` another seed.

use std::time::{Duration, Instant};

use crate::fuzzers::{
    bodies::{self, Outcome, Target},
    number, shown,
};

/// What a case may take here, where all that is checked can be checked and other tests run beside.
const LIMIT: Duration = Duration::from_secs(20);

/// Tries cases, of which at least one in `part` has to go all the way: most of what is made should mean something.
fn bounded(name: &str, cases: u64, part: u64) {
    let target = Target::named(name).expect("there is such a target");
    let (seed, cases) = (number("TILEWISE_SEED", 1), number("TILEWISE_FUZZ", cases));
    let mut whole = 0;
    for case in 0..cases {
        let input = target.case(seed, case);
        let begun = Instant::now();
        match target.check(&input) {
            Ok(Outcome::Whole) => whole += 1,
            Ok(Outcome::Refused | Outcome::Read | Outcome::Undecided(_)) => {}
            Err(fault) => panic!("{}", shown(name, seed, case, &fault, &input)),
        }
        let took = begun.elapsed();
        assert!(took < LIMIT, "{}", shown(name, seed, case, &format!("it took {took:?}"), &input));
    }
    println!("{name}: {whole} of {cases} cases of seed {seed} went all the way");
    assert!(whole * part >= cases, "{whole} of {cases} cases of seed {seed} are too few to mean something");
}

#[test]
fn graphs() {
    bounded("graph", 1500, 4);
}

#[test]
fn safetensors_files() {
    bounded("safetensors", 1000, 5);
}

#[test]
fn indexes_of_shards() {
    bounded("index", 500, 8);
}

#[test]
fn functions_of_users() {
    bounded("function", 600, 10);
}

#[test]
fn configs_and_descriptions() {
    bounded("config", 1500, 4);
}

/// The same bytes are the same input everywhere: a case can be named by its number.
#[test]
fn a_case_is_its_number() {
    for target in bodies::TARGETS {
        let some: Vec<Vec<u8>> = (0..50).map(|case| target.case(7, case)).collect();
        assert_eq!(some, (0..50).map(|case| target.case(7, case)).collect::<Vec<_>>(), "{}", target.name);
        let distinct: std::collections::BTreeSet<&Vec<u8>> = some.iter().collect();
        assert!(distinct.len() > 15, "{}: {} of 50 cases differ", target.name, distinct.len());
    }
}

/// A fault, were there one, is seen: a panic is caught and placed, and what is wrong is said.
#[test]
fn faults_are_seen() {
    let fault = bodies::caught::<()>(|| panic!("planted")).expect_err("it panics");
    assert!(fault.contains("planted") && fault.contains("fuzz.rs"), "{fault}");
    let fault = bodies::caught::<()>(|| Err("said".into())).expect_err("it is an error");
    assert_eq!(fault, "said");
    assert_eq!(bodies::caught(|| Ok(3)), Ok(3));
}
