//! What the fuzzers try, and what counts as a fault: one body a target, for `cargo fuzz`, for the long runs of `soak`, and for
//! the bounded runs among the tests (`tests/host/fuzz.rs`, `tests/device/fuzz.rs`), which include this folder.
//!
//! A target makes an input of arbitrary bytes (choices: which seed, which mutations) and checks it. The same bytes give the
//! same input everywhere, and an input that was saved can be checked again by itself.

mod configs;
pub mod decide;
pub mod device;
mod functions;
mod graph;
mod json;
mod seeds;
mod tensors;

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use arbitrary::Unstructured;
use tilewise::reference::Random;

/// What became of an input that showed no fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An error said what is wrong with it.
    Refused,
    /// It was read, but later something was refused.
    Read,
    /// It went all the way.
    Whole,
    /// It went all the way, but could not be compared, for this reason.
    Undecided(&'static str),
}

/// What is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name on command lines, and of the `cargo fuzz` target.
    pub name: &'static str,
    /// Makes an input of choices.
    make: fn(&mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>>,
    /// Feeds it to tilewise; an error is a fault, as a panic is.
    check: fn(&[u8]) -> Result<Outcome, String>,
}

/// Every target that needs no device.
pub const TARGETS: [Target; 5] = [graph::TARGET, tensors::FILES, tensors::INDEXES, functions::TARGET, configs::TARGET];

/// Bytes of choices for a case: enough for a seed and half a dozen mutations.
const CHOICES: usize = 512;

impl Target {
    /// The target of a name.
    pub fn named(name: &str) -> Option<Target> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// The input that bytes stand for.
    pub fn input(&self, choices: &[u8]) -> Vec<u8> {
        // What runs out of choices has made its last one.
        (self.make)(&mut Unstructured::new(choices)).unwrap_or_default()
    }

    /// The input of one case of a seed.
    pub fn case(&self, seed: u64, case: u64) -> Vec<u8> {
        self.input(&choices(seed, case))
    }

    /// Checks an input. A panic becomes a fault too.
    ///
    /// # Errors
    /// The fault.
    pub fn check(&self, input: &[u8]) -> Result<Outcome, String> {
        caught(|| (self.check)(input))
    }
}

/// The choices of one case of a seed.
pub fn choices(seed: u64, case: u64) -> Vec<u8> {
    let mut random = Random::new(Random::new(seed).bits() ^ Random::new(!case).bits());
    (0..CHOICES / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static CATCHING: RefCell<bool> = const { RefCell::new(false) };
}

/// Makes a panic an error that says where it was.
pub fn caught<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.with(|catching| *catching.borrow()) {
                PANIC.with(|last| *last.borrow_mut() = Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
    CATCHING.with(|catching| *catching.borrow_mut() = true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    CATCHING.with(|catching| *catching.borrow_mut() = false);
    result.unwrap_or_else(|_| {
        let said = PANIC.with(|last| last.borrow_mut().take());
        Err(said.unwrap_or_else(|| "a panic that says nothing".into()))
    })
}

/// An input for people: text where it is some.
pub fn readable(input: &[u8]) -> String {
    match std::str::from_utf8(input) {
        Ok(text) => text.to_string(),
        Err(_) => input.escape_ascii().to_string(),
    }
}
