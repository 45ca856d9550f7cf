//! `tilewise::diff`: planted mistakes are found where they are, and named; what is right passes; what does not fit is said.
//!
//! "Theirs" is an implementation of its own (`theirs.rs`), in f64, that can be told to make mistakes.

mod inputs;
mod planted;
mod positions;
mod right;
