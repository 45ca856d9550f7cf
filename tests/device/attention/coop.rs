//! Attention on cooperative matrices, where an adapter has them. There, every other case of this file runs on them as well, in
//! f16; here is what is theirs alone.

use tilewise::{
    DType, Tensor,
    graph::{Align, AttentionOperand as A},
    reference::compare::Check,
};

use crate::common::{
    attention::{COOPERATIVE, Case, Draw, Kind, Sizes, has_matrices, tensor},
    gpu,
};

fn halves(name: &str, sizes: Sizes, draw: &mut Draw) -> Case {
    Case::new(name, sizes, draw).stored([DType::F16; 4])
}

fn bits(results: &[Tensor]) -> Vec<u8> {
    results.iter().flat_map(|result| result.as_bytes().iter().copied()).collect()
}

/// Runs the variants that the device has matrices for.
fn check(case: &Case) {
    for variant in COOPERATIVE.into_iter().filter(|variant| case.takes(variant, gpu().profile())) {
        case.check(variant, gpu(), Check::measured());
    }
}

/// Without an adapter that has them, what is refused is all that these tests see. `REQUIRE_COOPERATIVE=1` makes that a failure.
#[test]
fn an_adapter_with_cooperative_matrices_is_there_if_it_has_to_be() {
    let profile = gpu().profile();
    let found = COOPERATIVE.into_iter().any(|variant| has_matrices(variant, profile));
    let required = std::env::var_os("REQUIRE_COOPERATIVE").is_some();
    assert!(found || !required, "REQUIRE_COOPERATIVE is set, but {} has none for f16", profile.adapter);
    if !found {
        eprintln!("{} has no cooperative matrices: attention on them is only compiled here", profile.adapter);
    }
}

/// The maximum that weights stand on follows late; scores that rise slowly, fast, and fall.
#[test]
fn scores_that_rise_and_fall() {
    let mut draw = Draw::new(91);
    let keys = 200;
    type Rise = fn(usize) -> f32;
    let rises: [(&str, Rise); 6] = [
        ("slowly", |j| 0.02 * j as f32),
        ("by the limit with each tile", |j| (j / 32) as f32 * 4.0),
        ("fast", |j| 0.3 * j as f32),
        ("and fall", |j| 8.0 - 0.08 * j as f32),
        ("far below 0", |j| 0.3 * j as f32 - 1e3),
        ("far above 0", |j| 0.3 * j as f32 + 1e3),
    ];
    for (name, rise) in rises {
        for (tq, d) in [(67, 16), (5, 64), (35, 136)] {
            let bias = tensor([keys], (0..keys).map(rise).collect::<Vec<_>>());
            let case = halves(name, (1, 2, 1, tq, keys, d, d), &mut draw).with(A::Bias, bias);
            check(&case);
        }
    }
}

/// The smallest weights together are as much as the largest: none of them is lost in f16.
#[test]
fn many_small_weights_count() {
    let mut draw = Draw::new(92);
    for tq in [3, 20] {
        let keys = 65_536;
        // Less than half of the least f16, and all together 0.2 %.
        let mut bias = vec![-17.4; keys];
        bias[77] = 0.0;
        let mut case = halves(&format!("small weights, Tq={tq}"), (1, 1, 1, tq, keys, 8, 8), &mut draw)
            .with(A::Bias, tensor([keys], bias));
        case.q = tensor(case.q.shape(), vec![half::f16::ZERO; case.q.len()]);
        // All but one have the same value, so that no rounding cancels.
        let value = |j: usize| half::f16::from_f32(if j / 8 == 77 { -1.0 } else { 1.0 });
        case.v = tensor(case.v.shape(), (0..8 * keys).map(value).collect::<Vec<_>>());
        check(&case);
    }
}

/// Shapes for narrow and wide heads, few and many rows, in one part and in several, and sizes that fill none of them.
#[test]
fn every_shape() {
    let mut draw = Draw::new(93);
    let heads = [(1, 1), (16, 16), (24, 40), (64, 64), (80, 33), (128, 128), (129, 64), (64, 160)];
    for (n, (d, dv)) in heads.into_iter().enumerate() {
        for (m, (hq, hkv, tq, tk)) in
            [(4, 2, 1, 67), (8, 1, 1, 300), (2, 1, 16, 65), (2, 2, 33, 31), (2, 1, 70, 130), (1, 1, 65, 260)]
                .into_iter()
                .enumerate()
        {
            let mut case =
                halves(&format!("{hq}/{hkv} heads {tq}x{tk} D={d} Dv={dv}"), (2, hq, hkv, tq, tk, d, dv), &mut draw);
            if (n + m) % 2 == 0 {
                case = case.causal(Align::BottomRight);
            }
            check(&case);
        }
    }
}

/// The tiles of a mask, as tall and wide as the variant's own.
#[test]
fn hidden_tiles_are_skipped() {
    let mut draw = Draw::new(94);
    let (b, h, t) = (2, 8, 520);
    let diagonal = tensor([t, t], (0..t * t).map(|at| at / t / 40 == at % t / 40).collect::<Vec<_>>());
    for (name, mask) in [
        ("diagonal", diagonal),
        ("few", draw.bools([b, 1, t, t], 1)),
        ("keys", draw.bools([b, 1, 1, t], 20)),
        ("nothing hidden", tensor([1, 1], vec![true])),
        ("everything hidden", tensor([t, t], vec![false; t * t])),
    ] {
        let case = halves(name, (b, h, 1, t, t, 16, 16), &mut draw).with(A::Mask, mask);
        for variant in COOPERATIVE.into_iter().filter(|variant| case.takes(variant, gpu().profile())) {
            let kernel = case.kernel(variant, gpu()).expect("fits");
            assert!(kernel.launches.iter().any(|launch| launch.label == "tiles of the mask"), "{variant}: {name}");
        }
        check(&case);
        check(&Kind::KeyLengths.apply(case, &mut draw).causal(Align::BottomRight));
    }
}

/// Workgroup memory between barriers is formally not covered in such modules (see the shader's head): were it read stale, some
/// of many runs would differ.
#[test]
fn the_same_bits_each_time() {
    let mut draw = Draw::new(95);
    for sizes in [(2, 4, 2, 70, 131, 64, 64), (1, 8, 2, 2, 300, 64, 64), (1, 2, 2, 35, 70, 160, 160)] {
        let case = halves("again", sizes, &mut draw);
        for variant in COOPERATIVE.into_iter().filter(|variant| case.takes(variant, gpu().profile())) {
            let first = case.run(variant, gpu()).expect("runs");
            for i in 1..40 {
                let again = case.run(variant, gpu()).expect("runs");
                assert!(bits(&first) == bits(&again), "{variant} {sizes:?}: run {i} differs");
            }
        }
    }
}
