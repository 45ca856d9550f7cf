//! Every variant of attention against the reference: first on data whose results are exact, then within bounds.

mod block_mask;
mod coop;
mod faults;
mod functions;
mod leading;
mod metamorphic;
mod paged;
mod random;
mod storage;

use tilewise::{
    DType,
    graph::{Align, AttentionOperand as A},
    kernel::{AdapterKind, Problem, Profile, Verdict},
    reference::compare::Check,
};

use crate::common::{
    attention::{Case, Draw, Kind, Lie, Sizes, hiding, i32s, tensor},
    gpu,
};

/// Query heads share key heads; the tiles of every variant are crossed, by queries or by keys.
const MANY_KEYS: Sizes = (2, 4, 2, 9, 71, 5, 6);
const MANY_QUERIES: Sizes = (2, 4, 2, 67, 35, 5, 6);

#[test]
fn each_option_alone_is_exact() {
    let mut draw = Draw::new(11);
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_exact()) {
        for sizes in [MANY_KEYS, MANY_QUERIES] {
            let case = Case::routed(format!("{kind:?} {sizes:?}"), sizes, &mut draw);
            kind.apply(case, &mut draw).check_all(gpu(), Check::Exact);
        }
    }
}

#[test]
fn options_in_pairs_are_exact() {
    let mut draw = Draw::new(12);
    for (i, a) in Kind::ALL.into_iter().enumerate() {
        for (n, b) in Kind::ALL.into_iter().skip(i + 1).enumerate() {
            if !(a.is_exact() && b.is_exact() && a.goes_with(b)) {
                continue;
            }
            let sizes = if (i + n) % 2 == 0 { MANY_KEYS } else { MANY_QUERIES };
            let case = Case::routed(format!("{a:?} and {b:?} {sizes:?}"), sizes, &mut draw);
            let case = a.apply(case, &mut draw);
            let case = b.apply(case, &mut draw);
            // A panel takes longest to compile, and meets each option with a third of the others.
            for variant in case.variants(gpu()).filter(|&variant| variant != "panel" || (i + n) % 3 == 0) {
                case.check(variant, gpu(), Check::Exact);
            }
            case.check_halves(gpu(), Check::Exact);
        }
    }
}

#[test]
fn each_option_is_within_bounds() {
    let mut draw = Draw::new(13);
    for kind in Kind::ALL {
        for sizes in [MANY_KEYS, MANY_QUERIES] {
            let case = Case::new(format!("{kind:?} {sizes:?}"), sizes, &mut draw);
            kind.apply(case, &mut draw).check_all(gpu(), Check::measured());
        }
    }
}

#[test]
fn equal_scores_give_the_mean() {
    let mut draw = Draw::new(14);
    for tk in [1, 2, 4, 32, 64, 128] {
        let mut case = Case::routed(format!("equal scores, {tk} keys"), (1, 2, 1, 3, tk, 3, 5), &mut draw);
        case.q = case.q.clone().reshaped([1, 2, 3, 3]).expect("the same");
        case.q = tensor([1, 2, 3, 3], vec![0.0; 18]);
        case.lse = false;
        case.check_all(gpu(), Check::Exact);
    }
}

#[test]
fn ugly_sizes() {
    let mut draw = Draw::new(15);
    let lengths = [0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 67, 97, 131];
    let heads = [(1, 1, 1), (1, 3, 3), (2, 6, 2), (3, 1, 1), (1, 4, 1)];
    for (n, &tq) in lengths.iter().enumerate() {
        for (m, &tk) in lengths.iter().enumerate() {
            // Each length of queries with a third of the lengths of keys, and the empty ones with all.
            if (n + m) % 3 != 0 && tq != 0 && tk != 0 {
                continue;
            }
            let (b, hq, hkv) = heads[(n + 2 * m) % heads.len()];
            let case = Case::new(format!("Tq={tq} Tk={tk} {hq}/{hkv} heads"), (b, hq, hkv, tq, tk, 8, 8), &mut draw);
            case.check_all(gpu(), Check::measured());
        }
    }
}

#[test]
fn head_sizes() {
    let mut draw = Draw::new(16);
    let pairs = [
        (1, 1),
        (3, 1),
        (1, 64),
        (8, 3),
        (16, 33),
        (64, 64),
        (65, 65),
        (80, 96),
        (128, 128),
        (127, 160),
        (256, 5),
        (256, 256),
        (8, 0),
        (8, 257),
        (512, 512),
        (576, 512),
        (1000, 3),
    ];
    for (d, dv) in pairs {
        let case = Case::new(format!("D={d} Dv={dv}"), (1, 2, 1, 67, 45, d, dv), &mut draw);
        case.causal(Align::BottomRight).check_all(gpu(), Check::measured());
    }
    // Without columns every score is 0.
    let mut case = Case::new("D=0", (1, 1, 1, 5, 70, 0, 4), &mut draw);
    case.options.scale = Some(1.0);
    case.check_all(gpu(), Check::measured());
}

#[test]
fn layouts() {
    let mut draw = Draw::new(17);
    for (n, lie) in Lie::ALL.into_iter().enumerate() {
        let other = Lie::ALL[(n + 1) % Lie::ALL.len()];
        let third = Lie::ALL[(n + 2) % Lie::ALL.len()];
        let mut case = Case::routed(format!("{lie:?} {other:?} {third:?}"), MANY_QUERIES, &mut draw)
            .with(A::Mask, draw.bools([2, 4, 67, 35], 60))
            .with(A::Bias, draw.integers([2, 1, 67, 35], 9));
        case.lies = [lie, other, third, lie];
        case.out = if n % 2 == 0 { Lie::HeadsInner } else { Lie::Columns };
        case.check_all(gpu(), Check::Exact);

        let (q, k) = ([0, 5, 5, 70, 71], [0, 40, 43, 43, 90]);
        let mut packed = Case::packed(format!("packed {lie:?}"), (&q, &k), (71, 4, 2, 90, 8, 6), &mut draw);
        packed.lies = [lie, other, third, Lie::Dense];
        packed.out = case.out;
        packed.causal(Align::BottomRight).check_all(gpu(), Check::measured());
    }
}

#[test]
fn masks_and_biases_broadcast_from_the_right() {
    let mut draw = Draw::new(18);
    let (b, h, tq, tk) = (2, 4, 9, 71);
    let shapes: [&[usize]; 12] = [
        &[tk],
        &[1],
        &[tq, tk],
        &[tq, 1],
        &[1, tk],
        &[h, 1, tk],
        &[h, tq, 1],
        &[b, 1, 1, tk],
        &[1, h, tq, tk],
        &[b, h, tq, tk],
        // Hides the keys from 40 on.
        &[tq, 40],
        &[b, 1, 1, 0],
    ];
    for (n, shape) in shapes.into_iter().enumerate() {
        let other = shapes[(n + 5) % shapes.len()];
        let routed = |name: &str, draw: &mut Draw| Case::routed(format!("{name} {shape:?}"), MANY_KEYS, draw);
        let case = routed("mask", &mut draw).with(A::Mask, draw.bools(shape, 70));
        case.check_all(gpu(), Check::Exact);
        let case = routed("bias", &mut draw).with(A::Bias, hiding(&draw.integers(shape, 9), 30, &mut draw));
        case.check_all(gpu(), Check::Exact);
        let case = routed("mask and bias", &mut draw)
            .with(A::Bias, hiding(&draw.integers(other, 9), 20, &mut draw))
            .with(A::Mask, draw.bools(shape, 80));
        case.check_all(gpu(), Check::Exact);
    }
}

#[test]
fn rows_that_see_nothing_are_exactly_zero() {
    let mut draw = Draw::new(19);
    let sizes = (2, 2, 1, 35, 67, 4, 6);
    let nothing = |name: &str, draw: &mut Draw| Case::new(name, sizes, draw);
    let cases = [
        nothing("mask all false", &mut draw).with(A::Mask, tensor([1, 1], vec![false])),
        nothing("bias all −∞", &mut draw).with(A::Bias, tensor([1, 67], vec![f32::NEG_INFINITY; 67])),
        nothing("no keys", &mut draw).with(A::KeyLengths, i32s(&[0, 0])),
        nothing("no queries", &mut draw).with(A::QueryLengths, i32s(&[0, 0])),
        nothing("before the keys", &mut draw).causal(Align::Offset(-35)),
        nothing("behind the keys", &mut draw).window(Some(3), None).causal(Align::Offset(80)),
        nothing("far before", &mut draw).causal(Align::Offset(i32::MIN)),
        nothing("far behind", &mut draw).window(Some(0), Some(0)).causal(Align::Offset(i32::MAX)),
        Case::new("no key at all", (2, 2, 1, 35, 0, 4, 6), &mut draw),
    ];
    for case in cases {
        for variant in case.variants(gpu()) {
            let results = case.run(variant, gpu()).unwrap_or_else(|error| panic!("{variant}: {}: {error}", case.name));
            let bits = |i: usize| results[i].as_f32().expect("f32").iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(0).iter().all(|&x| x == 0), "{variant}: {}: out must be +0", case.name);
            assert!(bits(1).iter().all(|&x| x == f32::MIN.to_bits()), "{variant}: {}: lse", case.name);
        }
        case.check_all(gpu(), Check::Exact);
    }
}

#[test]
fn finite_bias_however_low_is_a_number() {
    let mut draw = Draw::new(20);
    for low in [-1e9, -1e30, f32::MIN] {
        // All keys equally low: a mean, not a masked row.
        let mut case = Case::routed(format!("bias {low:e}"), (1, 1, 1, 3, 64, 2, 4), &mut draw)
            .with(A::Bias, tensor([1], vec![low]));
        case.q = tensor([1, 1, 3, 2], vec![0.0; 6]);
        case.check_all(gpu(), Check::Exact);
        // Among others, a low key has no weight; with −∞ beside it, it has all.
        let mut bias = vec![f32::NEG_INFINITY; 64];
        bias[40] = low;
        let case = Case::new(format!("bias {low:e} beside −∞"), (1, 1, 1, 3, 64, 2, 4), &mut draw)
            .with(A::Bias, tensor([64], bias.clone()));
        let expected: Vec<f32> = case.v.as_f32().expect("f32")[160..164].repeat(3);
        for variant in case.variants(gpu()) {
            let results = case.run(variant, gpu()).expect("runs");
            assert_eq!(results[0].as_f32(), Some(&expected[..]), "{variant}: {low:e}");
        }
        bias[41] = 0.0;
        let case = case.with_last(tensor([64], bias));
        case.check_all(gpu(), Check::measured());
    }
}

#[test]
fn packed_sequences() {
    let mut draw = Draw::new(21);
    // Empty sequences of queries, of keys and of both; rows before the first sequence and after the last.
    let layouts: [(&[i32], &[i32], usize, usize); 5] = [
        (&[0, 7], &[0, 12], 7, 12),
        (&[0, 1, 66, 66, 130, 131], &[0, 33, 33, 34, 100, 171], 131, 171),
        (&[0, 0, 0, 5, 5], &[0, 4, 4, 4, 9], 5, 9),
        (&[3, 10, 70], &[2, 2, 40], 77, 45),
        (&[0], &[0], 6, 3),
    ];
    for (q, k, rows, keys) in layouts {
        for align in [Align::TopLeft, Align::BottomRight, Align::Offset(-2)] {
            let name = format!("packed {q:?} {k:?} {align:?}");
            let case = Case::packed(name, (q, k), (rows, 4, 2, keys, 8, 6), &mut draw);
            case.causal(align).window(Some(20), None).check_all(gpu(), Check::measured());
        }
        let name = format!("packed {q:?} {k:?} with all options");
        let mut case = Case::packed(name, (q, k), (rows, 4, 2, keys, 8, 6), &mut draw);
        let lengths = |draw: &mut Draw| i32s(&(1..q.len()).map(|_| draw.below(40) as i32).collect::<Vec<_>>());
        case = case.with(A::KeyLengths, faults::fitting(&lengths(&mut draw), k));
        case = case.with(A::QueryLengths, faults::fitting(&lengths(&mut draw), q));
        case = case.with(A::Offsets, i32s(&(1..q.len()).map(|_| draw.below(9) as i32 - 4).collect::<Vec<_>>()));
        case = case.with(A::Slopes, draw.floats([4], 0.5));
        case.options.softcap = Some(3.0);
        case.status = true;
        case.causal(Align::PerItem).check_all(gpu(), Check::measured());
    }
}

/// With a limit of 7 workgroups in a dimension, every grid has to be folded.
#[test]
fn grids_fold() {
    let mut draw = Draw::new(22);
    let case = Case::routed("folded", (2, 4, 2, 131, 35, 3, 6), &mut draw);
    let mut profile: Profile = gpu().profile().clone();
    profile.limits.workgroups_per_dimension = 7;
    for variant in case.variants(gpu()) {
        let mut folded = profile.clone();
        if variant == "split_kv" {
            // Its merge has more workgroups.
            folded.limits.workgroups_per_dimension = 50;
        }
        let kernel = case.problem().0.kernel(variant, &folded).expect("fits");
        // There are few workgroups that look for odd rows.
        let folds = |launch: &tilewise::kernel::Launch| launch.grid[1] > 1 || launch.label == "odd rows";
        assert!(kernel.launches.iter().all(folds), "{variant}");
        case.check_kernel(&kernel, gpu(), Check::Exact).unwrap_or_else(|message| panic!("{variant}: {message}"));
    }
}

/// The leanest device and the richest take other tiles; both must be right.
#[test]
fn tiles_for_little_and_much_workgroup_memory() {
    let mut draw = Draw::new(23);
    for (d, dv) in [(8, 8), (64, 64), (40, 100), (128, 200), (512, 576)] {
        let case = Case::new(format!("D={d} Dv={dv}"), (1, 2, 1, 131, 75, d, dv), &mut draw).causal(Align::TopLeft);
        for bytes in [16 << 10, gpu().profile().limits.workgroup_bytes] {
            let mut profile = gpu().profile().clone();
            profile.limits.workgroup_bytes = bytes;
            let kernel = case.problem().0.kernel("tiled", &profile).expect("fits");
            let checked = case.check_kernel(&kernel, gpu(), Check::measured());
            checked.unwrap_or_else(|message| panic!("{bytes} bytes, {}: {message}", case.name));
        }
    }
}

#[test]
fn a_deep_panel_takes_large_problems() {
    let mut draw = Draw::new(29);
    let mut case = Case::new("deep", (1, 8, 4, 300, 330, 24, 32), &mut draw).with(A::KeyLengths, i32s(&[317]));
    case.lse = true;
    if gpu().profile().kind == AdapterKind::Cpu && gpu().profile().fixed_subgroup().is_some() {
        case.check("panel_deep", gpu(), Check::measured());
    }
    let reason = |case: &Case, profile: &Profile| {
        let candidates = case.problem().0.candidates(profile);
        let deep = candidates.into_iter().find(|candidate| candidate.variant == "panel_deep").expect("listed");
        match deep.verdict {
            Verdict::Usable(_) => panic!("{} is usable", case.name),
            Verdict::Refused(reason) => reason,
        }
    };
    let software = Profile { kind: AdapterKind::Cpu, subgroup: Some((8, 8)), ..Profile::portable() };
    let small = Case::new("small", (1, 2, 1, 30, 33, 64, 64), &mut draw);
    assert!(reason(&small, &software).contains("not worth its compiling"));
    let software = Profile { shader_int64: true, ..software };
    let usual = Case::new("usual", (1, 4, 4, 512, 512, 64, 64), &mut draw);
    assert_eq!(reason(&usual, &software), "panel holds as many keys");
    assert!(reason(&case, &Profile::portable()).contains("subgroup"));
}

/// Elements are loaded one by one, by four and by eight, side by side in a lane or not; sums are vectors or not.
#[test]
fn panels_for_other_adapters() {
    let own = gpu().profile().clone();
    if own.kind != AdapterKind::Cpu || own.fixed_subgroup().is_none() {
        return;
    }
    let older = Profile { driver: String::new(), ..own.clone() };
    let narrow = Profile { shader_int64: false, ..older.clone() };
    let newer = Profile { driver: "llvmpipe Mesa 26.2.6 (LLVM 22.1.8)".into(), ..own.clone() };
    let mut draw = Draw::new(31);
    let case = |(d, dv), dtype, draw: &mut Draw| {
        let name = format!("D={d} Dv={dv} {dtype}");
        Case::new(name, (1, 2, 1, 21, 75, d, dv), draw).causal(Align::BottomRight).stored([dtype; 4])
    };
    for (widths, dtype) in
        [((64, 64), DType::F32), ((80, 96), DType::F32), ((30, 45), DType::F32), ((72, 88), DType::F16)]
    {
        let case = case(widths, dtype, &mut draw);
        let words = older.shader_int64 && dtype == DType::F32 && widths.0 % 8 == 0;
        for (profile, words) in [(&older, words), (&narrow, false), (&newer, false)] {
            let kernel = case.problem().0.kernel("panel", profile).expect("fits");
            assert_eq!(kernel.launches[0].source.wgsl.contains("= vec4<u64>;"), words, "{} for {profile:?}", case.name);
            let checked = case.check_kernel(&kernel, gpu(), Check::measured());
            checked.unwrap_or_else(|message| panic!("{}: {message}", case.name));
        }
    }
}

/// Whatever one variant leaves to another because of the driver's end of loops, memory or features, one takes it.
#[test]
fn every_length_has_a_variant() {
    let mut profiles = vec![gpu().profile().clone(), Profile::portable()];
    for subgroup in [None, Some((4, 4)), Some((8, 8)), Some((8, 32))] {
        profiles.push(Profile { kind: AdapterKind::Cpu, subgroup, ..Profile::portable() });
    }
    for profile in profiles {
        for d in [1, 7, 16, 64, 80, 128, 193, 256] {
            for (tq, tk) in [(1, 1), (1, 65_536), (2, 65_536), (65_536, 1), (65_536, 300), (300, 65_536)] {
                let layout = |t: usize| tilewise::Layout::contiguous([1, 2, t, d]);
                let options = tilewise::graph::Attention::default();
                let (q, k) = (layout(tq), layout(tk));
                let problem = tilewise::kernel::AttentionProblem::new(options, q, k.clone(), k, Vec::new());
                let candidates = problem.candidates(&profile);
                let usable = candidates.iter().find(|candidate| candidate.is_usable());
                let usable = usable.unwrap_or_else(|| panic!("{tq} queries, {tk} keys, D={d}: {candidates:#?}"));
                problem.kernel(usable.variant, &profile).expect("as its candidate says");
            }
        }
    }
}

/// What is chosen by default, for one query of many keys, many queries of one key, and each of a tile's rows.
#[test]
fn long_sequences_by_default() {
    let mut draw = Draw::new(27);
    for (tq, tk) in [(1, 65_536), (65_536, 1), (65_536, 3), (9, 65_533)] {
        let case = Case::new(format!("Tq={tq} Tk={tk}"), (1, 1, 1, tq, tk, 4, 3), &mut draw);
        let candidates = case.problem().0.candidates(gpu().profile());
        let chosen = candidates.iter().find(|candidate| candidate.is_usable()).expect("one takes it");
        case.check(chosen.variant, gpu(), Check::measured());
    }
}

#[test]
fn layouts_that_do_not_fit_are_errors() {
    let mut draw = Draw::new(25);
    let problem = || Case::new("", (2, 4, 2, 5, 6, 8, 4), &mut Draw::new(1)).problem().0;
    let message = |problem: &tilewise::kernel::AttentionProblem| {
        assert!(problem.candidates(gpu().profile()).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel("plain", gpu().profile()).expect_err("must be refused").to_string()
    };
    let mut heads = problem();
    heads.k = Case::new("", (2, 3, 3, 5, 6, 8, 4), &mut draw).problem().0.k;
    assert_eq!(
        message(&heads),
        "attention: `q` is [2, 4, 5, 8], `k` is [2, 3, 6, 8], `v` is [2, 2, 6, 4]: k and v must have the same heads and length"
    );
    let mut gaps = problem();
    gaps.out.strides[1] += 1;
    assert!(message(&gaps).contains("no dense buffer"));
    let mut per_item = problem();
    per_item.options.align = Align::PerItem;
    assert_eq!(message(&per_item), "attention: alignment per item and the operand `offsets` need each other");
    let mut outside = problem();
    outside.q.strides[2] = -8;
    assert_eq!(message(&outside), "attention: the layout of `q` begins before its buffer");
}

/// Work that the formula needs: the host knows causal order and window.
#[test]
fn flops_count_pairs_that_are_seen() {
    let mut draw = Draw::new(26);
    let flops = |case: &Case| {
        case.kernel("plain", gpu()).expect("fits").launches.iter().map(|launch| launch.flops).sum::<u64>()
    };
    let brute = |(b, h, _, tq, tk, d, dv): Sizes, lo: i64, hi: i64| {
        let pairs =
            (0..tq as i64).map(|i| (0..tk as i64).filter(|j| (i + lo..=i + hi).contains(j)).count()).sum::<usize>();
        (b * h * pairs * 2 * (d + dv)) as u64
    };
    for sizes in [MANY_KEYS, MANY_QUERIES, (1, 2, 1, 0, 4, 3, 3), (1, 2, 1, 4, 0, 3, 3)] {
        let (_, _, _, tq, tk, ..) = sizes;
        let case = |draw: &mut Draw| Case::new("flops", sizes, draw);
        assert_eq!(flops(&case(&mut draw)), brute(sizes, -1000, 1000));
        assert_eq!(flops(&case(&mut draw).causal(Align::TopLeft)), brute(sizes, -1000, 0));
        let bottom = tk as i64 - tq as i64;
        assert_eq!(flops(&case(&mut draw).causal(Align::BottomRight)), brute(sizes, -1000, bottom));
        let window = case(&mut draw).window(Some(3), Some(2));
        assert_eq!(flops(&window), brute(sizes, -3, 2));
        let mut behind = case(&mut draw).window(Some(1), Some(0));
        behind.options.align = Align::Offset(-40);
        assert_eq!(flops(&behind), brute(sizes, -41, -40));
    }
}
