//! The fuzzers of `fuzz/`, for bounded runs among the tests, and what those say.

#[path = "../../fuzz/src/bodies/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "each binary uses a part, and the fuzzers' own crates the rest")]
pub(crate) mod bodies;

use bodies::readable;

/// A whole number from an environment variable.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`, expected a whole number"))
    })
}

/// A fault, its input, and how to see it again.
pub(crate) fn shown(name: &str, seed: u64, case: u64, fault: &str, input: &[u8]) -> String {
    format!(
        "{name}, case {case} of seed {seed}: {fault}\n{}\nIts input again, for `soak check {name} FILE` (fuzz/README.md): \
         soak show {name} {case} --seed {seed}",
        readable(input)
    )
}
