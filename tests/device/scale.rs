//! Attention over long sequences: memory grows with T, not with T², and tiles that a mask rules out cost nothing.

use std::time::Duration;

use tilewise::{
    DType, Graph, Tensor,
    graph::{Align, Mask},
    kernel::Profile,
    lower::{self, Options},
};

use crate::common::gpu;

fn attention(tokens: usize, heads: usize, width: usize, mask: Mask) -> Graph {
    let mut g = Graph::new();
    let mut operand = |name: &str| g.input(name, DType::F32, [1, heads, tokens, width]).expect("fits");
    let (q, k, v) = (operand("q"), operand("k"), operand("v"));
    let y = g.attention(q, k, v, mask).expect("fits");
    g.output("y", y).expect("a new name");
    g
}

/// Bytes of everything on the device: operands, result, and what is there only during the run.
fn device_bytes(tokens: usize) -> (u64, u64) {
    let mut profile = Profile::portable();
    (profile.limits.binding_bytes, profile.limits.buffer_bytes) = (1 << 31, 1 << 31);
    let graph = attention(tokens, 8, 64, Mask::causal(Align::TopLeft));
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

/// The shortest of some GPU times, interleaved, of attention under each mask.
fn times(tokens: usize, masks: &[Mask], variant: &str) -> Vec<Duration> {
    let options = Options::default().force("attention", variant);
    let data: Vec<f32> = (0..tokens * 16).map(|i| ((i * 37) % 101) as f32 / 101.0 - 0.5).collect();
    let x = Tensor::new([1, 1, tokens, 16], data).expect("fits");
    let mut programs: Vec<_> = masks
        .iter()
        .map(|mask| {
            let graph = attention(tokens, 1, 16, mask.clone());
            let program = lower::lower(&graph, gpu().profile(), &options).expect("lowers");
            let mut program = gpu().load(&program, []).expect("loads");
            program.set_inputs(&[("q", &x), ("k", &x), ("v", &x)]).expect("fits");
            program
        })
        .collect();
    let mut best = vec![Duration::MAX; masks.len()];
    for _ in 0..4 {
        for (best, program) in best.iter_mut().zip(&mut programs) {
            let timing = program.bench(1, 1).expect("runs");
            *best = timing.gpu.unwrap_or(timing.wall).min(*best);
        }
    }
    best
}

#[test]
fn what_a_mask_rules_out_is_not_visited() {
    const TOKENS: usize = 1536;
    let masks = [Mask::none(), Mask::causal(Align::TopLeft), Mask::window(64, 0, Align::TopLeft)];
    for variant in ["plain", "tiled"] {
        let times = times(TOKENS, &masks, variant);
        let part = |i: usize| times[i].as_secs_f64() / times[0].as_secs_f64();
        println!(
            "{variant}: T = {TOKENS}: full {:?}, causal {:.2} of it, window of 64 {:.3} of it",
            times[0],
            part(1),
            part(2)
        );
        // Half of the pairs and 4 % of them, with room for tiles that are partly hidden and for what doesn't depend on pairs.
        assert!(part(1) < 0.8, "{variant}: causal takes {:.2} of the full time", part(1));
        assert!(part(2) < 0.3, "{variant}: a window of 64 takes {:.2} of the full time", part(2));
    }
}
