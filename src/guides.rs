//! Long answers to the questions that come first. The examples in them are compiled and run with the tests.

/// A Transformer decoder, step by step, and how to know that it is right.
#[doc = include_str!("../docs/decoder.md")]
pub mod decoder {}

/// Find where an implementation of your own first departs.
#[doc = include_str!("../docs/diff.md")]
pub mod diff {}

/// Each mask as a picture.
#[doc = include_str!("../docs/masks.md")]
pub mod masks {}

/// Padding, masks and packing.
#[doc = include_str!("../docs/padding.md")]
pub mod padding {}

/// Training: a loss that falls proves nothing.
#[doc = include_str!("../docs/training.md")]
pub mod training {}
