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

/// A case from its seed: any sizes, layouts, and any set of options.
fn drawn(seed: u64) -> Case {
    let mut draw = Draw::new(seed);
    let sizes = [0, 1, 2, 5, 16, 33, 64, 65, 70, 99];
    let (group, hkv) = ([1, 2, 3][draw.below(3)], 1 + draw.below(2));
    // Few head sizes, so that few kernels are compiled.
    let [(d, dv), (tq, tk)] = [
        [(1, 1), (3, 8), (8, 5), (64, 64), (65, 40)][draw.below(5)],
        (sizes[draw.below(sizes.len())], sizes[draw.below(sizes.len())]),
    ];
    let mut case = if draw.below(3) == 0 {
        packed(&mut draw, group * hkv, hkv, d, dv)
    } else {
        Case::new(format!("seed {seed}"), (1 + draw.below(3), group * hkv, hkv, tq, tk, d, dv), &mut draw)
    };
    let paged = case.q.shape().rank() == 4 && draw.below(4) == 0;
    case.name = format!("seed {seed}");
    let mut taken: Vec<Kind> = Vec::new();
    for kind in Kind::ALL {
        // Eight buffers a stage are q, k, v, records, out, lse and two more.
        let binds =
            |kind: &Kind| matches!(kind, Kind::Mask | Kind::ShortMask | Kind::Bias | Kind::ScoreMod | Kind::MaskMod);
        let room = !binds(&kind) || taken.iter().filter(|kind| binds(kind)).count() < 2 - usize::from(paged);
        let fits = room && taken.iter().all(|&other| other.goes_with(kind));
        if draw.below(3) == 0 && fits && (case.q.shape().rank() == 4 || kind.fits_packed()) {
            case = kind.apply(case, &mut draw);
            taken.push(kind);
        }
    }
    if paged {
        case = case.paged([1, 4, 16][draw.below(3)], draw.below(2) == 0, &mut draw);
    }
    case.lies = [0; 4].map(|_| Lie::ALL[draw.below(Lie::ALL.len())]);
    case.out = [Lie::Dense, Lie::HeadsInner, Lie::Columns][draw.below(3)];
    (case.lse, case.status) = (draw.below(2) == 0, draw.below(4) == 0);
    case
}

fn packed(draw: &mut Draw, hq: usize, hkv: usize, d: usize, dv: usize) -> Case {
    let count = draw.below(6);
    let mut starts = || {
        let mut all = vec![draw.below(2) as i32];
        for _ in 0..count {
            all.push(all[all.len() - 1] + draw.below(70) as i32);
        }
        let total = all[count] as usize + draw.below(3);
        (all, total)
    };
    let ((q, rows), (k, keys)) = (starts(), starts());
    let mut case = Case::packed("", (&q, &k), (rows, hq, hkv, keys, d, dv), draw);
    let mut lengths = |starts: &[i32]| {
        let drawn: Vec<i32> = (0..count).map(|_| draw.below(60) as i32).collect();
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn any_options_at_once(seed in any::<u32>()) {
        let case = drawn(seed.into());
        // A panel compiles for longest: it takes every third case.
        for variant in case.variants(gpu()).filter(|&variant| variant != "panel" || seed.is_multiple_of(3)) {
            case.check(variant, gpu(), Check::measured());
        }
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}
