//! Long answers to two questions. The examples in them are compiled and run with the tests.

/// A Transformer decoder, step by step, and how to know that it is right.
#[doc = include_str!("../docs/decoder.md")]
pub mod decoder {}

/// Each mask as a picture.
#[doc = include_str!("../docs/masks.md")]
pub mod masks {}

/// Padding, masks and packing.
#[doc = include_str!("../docs/padding.md")]
pub mod padding {}
