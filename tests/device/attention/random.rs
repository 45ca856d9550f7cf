//! The whole space of options, drawn at random. A failure prints the case; `PROPTEST_CASES` asks for more.

use proptest::prelude::*;

use tilewise::{
    graph::{Align, AttentionOperand as A},
    reference::compare::Check,
};

use super::faults::fitting;
use crate::common::{
    attention::{Case, Draw, Kind, Lie, i32s},
    gpu,
};

/// A case: any set of options and any layouts by `seed`, any sizes and numbers by `turn`. The turns of a seed have kernels in
/// common, which take far longer to compile than to run.
fn drawn(seed: u64, turn: u64) -> Case {
    let (mut draw, mut data) = (Draw::new(seed), Draw::new(seed << 8 | turn));
    let sizes = [0, 1, 2, 5, 16, 33, 64, 65, 70, 99];
    let (group, hkv) = ([1, 2, 3][data.below(3)], 1 + data.below(2));
    // Few head sizes, so that few kernels are compiled.
    let (d, dv) = [(1, 1), (3, 8), (8, 5), (64, 64), (65, 40)][draw.below(5)];
    let mut case = if draw.below(3) == 0 {
        packed(&mut draw, &mut data, group * hkv, hkv, d, dv)
    } else {
        let (tq, tk) = (sizes[data.below(sizes.len())], sizes[data.below(sizes.len())]);
        Case::new("", (1 + data.below(3), group * hkv, hkv, tq, tk, d, dv), &mut data)
    };
    let paged = case.q.shape().rank() == 4 && draw.below(4) == 0;
    case.name = format!("seed {seed}, turn {turn}");
    let mut taken: Vec<Kind> = Vec::new();
    for kind in Kind::ALL {
        // Eight buffers a stage are q, k, v, records, out, lse and two more.
        let binds =
            |kind: &Kind| matches!(kind, Kind::Mask | Kind::ShortMask | Kind::Bias | Kind::ScoreMod | Kind::MaskMod);
        let room = !binds(&kind) || taken.iter().filter(|kind| binds(kind)).count() < 2 - usize::from(paged);
        let fits = room && taken.iter().all(|&other| other.goes_with(kind));
        if draw.below(3) == 0 && fits && (case.q.shape().rank() == 4 || kind.fits_packed()) {
            case = kind.apply(case, &mut data);
            taken.push(kind);
        }
    }
    if paged {
        case = case.paged([1, 4, 16][data.below(3)], data.below(2) == 0, &mut data);
    }
    case.lies = [0; 4].map(|_| Lie::ALL[draw.below(Lie::ALL.len())]);
    case.out = [Lie::Dense, Lie::HeadsInner, Lie::Columns][draw.below(3)];
    (case.lse, case.status) = (draw.below(2) == 0, draw.below(4) == 0);
    case
}

fn packed(draw: &mut Draw, data: &mut Draw, hq: usize, hkv: usize, d: usize, dv: usize) -> Case {
    let count = data.below(6);
    let mut starts = || {
        let mut all = vec![data.below(2) as i32];
        for _ in 0..count {
            all.push(all[all.len() - 1] + data.below(70) as i32);
        }
        let total = all[count] as usize + data.below(3);
        (all, total)
    };
    let ((q, rows), (k, keys)) = (starts(), starts());
    let mut case = Case::packed("", (&q, &k), (rows, hq, hkv, keys, d, dv), data);
    let mut lengths = |starts: &[i32]| {
        let drawn: Vec<i32> = (0..count).map(|_| data.below(60) as i32).collect();
        fitting(&i32s(&drawn), starts)
    };
    let (key_lengths, query_lengths) = (lengths(&k), lengths(&q));
    if draw.below(2) == 0 {
        case = case.with(A::KeyLengths, key_lengths);
    }
    if draw.below(2) == 0 {
        case = case.with(A::QueryLengths, query_lengths);
    }
    if draw.below(3) == 0 {
        case = case.causal(Align::BottomRight);
    }
    case
}

/// Cases of a seed.
const TURNS: u64 = 3;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn any_options_at_once(seed in any::<u32>()) {
        for turn in 0..TURNS {
            let case = drawn(seed.into(), turn);
            // A panel compiles for longest: it takes every third set of options.
            for variant in case.variants(gpu()).filter(|&variant| variant != "panel" || seed.is_multiple_of(3)) {
                case.check(variant, gpu(), Check::measured());
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}
