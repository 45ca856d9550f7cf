//! The fuzzers of tilewise as `cargo fuzz` runs them: see `README.md` beside this crate, and `bodies` for what they do.

pub mod bodies;
mod common;

pub use libfuzzer_sys;

/// A target by its name, with libFuzzer's bytes for choices. A fault panics with the input that shows it.
pub fn run(name: &str, choices: &[u8]) {
    let target = bodies::Target::named(name).expect("the target is there");
    let input = target.input(choices);
    if let Err(fault) = target.check(&input) {
        panic!("{name}: {fault}\n{}", bodies::readable(&input));
    }
}

/// The whole of a file in `fuzz_targets`.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(|choices: &[u8]| $crate::run($name, choices));
    };
}
