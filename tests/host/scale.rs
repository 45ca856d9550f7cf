//! The memory of attention grows with the length of sequences, not with its square.

use tilewise::{
    graph::{Align, Mask},
    kernel::Profile,
    lower::{self, Options},
};

use crate::common::attention::graph;

/// Bytes of everything on the device: operands, result, and what is there only during the run.
fn device_bytes(tokens: usize) -> (u64, u64) {
    let mut profile = Profile::portable();
    (profile.limits.binding_bytes, profile.limits.buffer_bytes) = (1 << 31, 1 << 31);
    let graph = graph(tokens, 8, 64, Mask::causal(Align::TopLeft));
    let program = lower::lower(&graph, &profile, &Options::default()).expect("lowers");
    let held: u64 = program.buffers.iter().map(|buffer| buffer.bytes).sum();
    (held, program.peak_bytes())
}

#[test]
fn memory_is_linear_in_the_length() {
    println!("{:>7} {:>14} {:>14} {:>22}", "T", "device bytes", "of them extra", "scores, if stored");
    let mut last = None;
    for tokens in [1024, 2048, 4096, 8192, 16384] {
        let (held, extra) = device_bytes(tokens);
        let scores = 8 * (tokens as u64).pow(2) * 4;
        println!("{tokens:>7} {held:>14} {extra:>14} {scores:>22}");
        let operands = 4 * 8 * 64 * 4 * tokens as u64;
        assert!(held <= operands + operands / 4, "T = {tokens}: {held} bytes for operands of {operands}");
        if let Some(last) = last {
            assert!(held <= 2 * last + 4096, "T = {tokens}: {held} bytes, half as long {last}");
        }
        last = Some(held);
    }
}
