//! Attention over long sequences: tiles that a mask rules out cost nothing.

use std::time::Duration;

use tilewise::{
    Tensor,
    graph::{Align, Mask},
    lower::{self, Options},
};

use crate::common::{attention::graph, gpu};

/// The shortest of some GPU times, interleaved, of attention under each mask.
fn times(tokens: usize, masks: &[Mask], variant: &str) -> Vec<Duration> {
    let options = Options::default().force("attention", variant);
    let data: Vec<f32> = (0..tokens * 16).map(|i| ((i * 37) % 101) as f32 / 101.0 - 0.5).collect();
    let x = Tensor::new([1, 1, tokens, 16], data).expect("fits");
    let mut programs: Vec<_> = masks
        .iter()
        .map(|mask| {
            let graph = graph(tokens, 1, 16, mask.clone());
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
