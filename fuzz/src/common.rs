//! What the tests share with the fuzzers.

#[path = "../../tests/common/random.rs"]
pub(crate) mod random;
