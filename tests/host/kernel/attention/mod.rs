//! Which variant of attention is taken, and why others are not.

mod coop;
mod sources;

use tilewise::kernel::{AdapterKind, Problem, Profile};

use crate::common::attention::{Case, Draw, Kind, VARIANTS};

#[test]
fn candidates_fit_the_device_and_the_problem() {
    let mut draw = Draw::new(24);
    let mut profile = Profile::portable();
    let first = |case: &Case, profile: &Profile| {
        let candidates = case.problem().0.candidates(profile);
        assert_eq!(candidates.len(), VARIANTS.len());
        for candidate in &candidates {
            let built = case.problem().0.kernel(candidate.variant, profile);
            assert_eq!(built.is_ok(), candidate.is_usable(), "{candidate:?}");
        }
        candidates.into_iter().find(tilewise::kernel::Candidate::is_usable).expect("plain runs everywhere").variant
    };
    let prefill = Case::new("prefill", (2, 8, 8, 512, 512, 64, 64), &mut draw);
    let decode = Case::new("decode", (1, 8, 8, 1, 2048, 64, 64), &mut draw);
    assert_eq!(first(&prefill, &profile), "tiled");
    assert_eq!(first(&decode, &profile), "split_kv");
    profile.limits.workgroup_bytes = 4 << 10;
    assert_eq!(first(&prefill, &profile), "plain");
    // Without memory for tiles, a software adapter takes rows only as far as its loops go.
    profile.kind = AdapterKind::Cpu;
    let tiny = Case::new("tiny", (64, 4, 4, 8, 8, 16, 16), &mut draw);
    for (subgroup, [a, b, c]) in [
        (Some((8, 8)), ["panel"; 3]),
        (Some((4, 32)), ["tiled", "split_kv", "plain"]),
        (None, ["tiled", "split_kv", "plain"]),
    ] {
        let software = Profile { subgroup, kind: AdapterKind::Cpu, ..Profile::portable() };
        assert_eq!([&prefill, &decode, &tiny].map(|case| first(case, &software)), [a, b, c], "{subgroup:?}");
    }
    let short = Case::new("short", (2, 8, 8, 40, 400, 64, 64), &mut draw);
    assert_eq!(first(&short, &profile), "plain");
    let long = Case::new("long", (1, 1, 1, 2, 8000, 64, 64), &mut draw);
    let refused = long.problem().0.kernel("plain", &profile).expect_err("its loops would be cut short").to_string();
    assert!(
        refused.contains("loops would take 72144 rounds (a software adapter leaves them after 65535)"),
        "{refused}"
    );

    let error = prefill.problem().0.kernel("fast", &profile).expect_err("no such variant").to_string();
    let known = "tiled, block_mask, split_kv, plain, panel, panel_deep, coop_16x16, coop_8x8";
    assert_eq!(error, format!("attention: there is no variant `fast`; there are {known}"));
}

/// Heads of image models (512) and of latent attention (576/512), and wider ones: whatever holds a row in registers is refused, what
/// shares columns out is not.
#[test]
fn wide_heads_are_shared_out() {
    let mut draw = Draw::new(25);
    for (d, dv, plain) in
        [(257, 4, true), (512, 512, true), (576, 512, true), (3000, 4, true), (4, 1024, true), (4, 1025, false)]
    {
        let problem = Case::new("wide", (1, 2, 1, 70, 40, d, dv), &mut draw).problem().0;
        for kind in [AdapterKind::Gpu, AdapterKind::Cpu] {
            let profile = Profile { kind, subgroup: Some((8, 8)), ..Profile::portable() };
            let candidates = problem.candidates(&profile);
            let usable: Vec<&str> = candidates.iter().filter(|c| c.is_usable()).map(|c| c.variant).collect();
            assert!(usable.contains(&"tiled") && usable.contains(&"split_kv"), "{d}/{dv}: {usable:?}");
            assert!(!usable.contains(&"panel"), "{d}/{dv}: {usable:?}");
            if kind == AdapterKind::Gpu {
                assert_eq!(usable.contains(&"plain"), plain, "{d}/{dv}: {usable:?}");
            }
        }
    }
    let problem = Case::new("wide", (1, 1, 1, 2, 2, 4, 1100), &mut draw).problem().0;
    let message = |variant| problem.kernel(variant, &Profile::portable()).expect_err("refused").to_string();
    assert_eq!(
        message("plain"),
        "attention: no variant can run here: plain: a head of 1100 is wider than the 1024 that an invocation holds"
    );
    assert_eq!(
        message("panel"),
        "attention: no variant can run here: panel: a head of 1100 is wider than the 256 that it holds in registers"
    );
}

/// Eight buffers a stage is what WebGPU promises; more is refused in words.
#[test]
fn too_many_buffers_are_refused() {
    let mut draw = Draw::new(67);
    let mut case = Case::new("many", (2, 4, 2, 19, 45, 5, 6), &mut draw);
    for kind in [Kind::Mask, Kind::Bias, Kind::KeyLengths, Kind::ScoreMod] {
        case = kind.apply(case, &mut draw);
    }
    let mut profile = Profile::portable();
    profile.kind = AdapterKind::Gpu;
    let problem = case.problem().0;
    let verdicts = problem.candidates(&profile);
    let refused = verdicts.iter().find(|candidate| candidate.variant == "plain").expect("is there");
    assert!(!refused.is_usable());
    let message = problem.kernel("plain", &profile).expect_err("too many").to_string();
    assert!(message.ends_with("plain: needs 9 storage buffers, the limit is 8"), "{message}");
    // Split, the launch that reads the operands writes no lse.
    assert!(verdicts.iter().any(|candidate| candidate.variant == "split_kv" && candidate.is_usable()));
    profile.limits.storage_buffers = 9;
    assert!(problem.kernel("plain", &profile).is_ok());
}
