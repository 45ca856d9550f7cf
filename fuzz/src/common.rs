//! What the tests share with the fuzzers.
#![allow(dead_code, reason = "the tests use the rest")]

#[path = "../../tests/common/random.rs"]
pub(crate) mod random;
