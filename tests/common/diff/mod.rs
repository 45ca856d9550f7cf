//! A decoder layer and an implementation of its own beside it, for the tests of `tilewise::diff`.

pub(crate) mod fixture;
pub(crate) mod theirs;
