//! Attention on cooperative matrices, where an adapter has them. There, every other case of this file runs on them as well, in
//! f16; here is what is theirs alone.

use tilewise::{
    DType, Tensor,
    graph::{Align, AttentionOperand as A},
    kernel::{AdapterKind, CooperativeMatrix, Problem, Profile, Source},
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

/// A GPU of which only the profile is there.
fn large_gpu(size: u32) -> Profile {
    let matrix = CooperativeMatrix::square(size, [DType::F16, DType::F32]);
    let mut profile = Profile {
        subgroup: Some((32, 32)),
        shader_f16: true,
        shader_int64: true,
        cooperative_matrices: vec![matrix],
        ..Profile::portable()
    };
    profile.limits.workgroup_bytes = 48 << 10;
    profile
}

#[test]
fn they_come_first_where_rows_fill_them() {
    let mut draw = Draw::new(96);
    let first = |case: &Case, profile: &Profile| {
        let candidates = case.problem().0.candidates(profile);
        candidates.into_iter().find(tilewise::kernel::Candidate::is_usable).expect("plain runs everywhere").variant
    };
    let gpu = large_gpu(16);
    let case = |sizes: Sizes, draw: &mut Draw| halves("", sizes, draw);
    assert_eq!(first(&case((2, 8, 8, 512, 512, 64, 64), &mut draw), &gpu), "coop_16x16");
    // One query of many keys: its row alone, or with those of its group.
    assert_eq!(first(&case((1, 8, 8, 1, 2048, 64, 64), &mut draw), &gpu), "split_kv");
    let grouped = case((1, 32, 2, 1, 2048, 64, 64), &mut draw);
    assert_eq!(first(&grouped, &gpu), "coop_16x16");
    let kernel = grouped.problem().0.kernel("coop_16x16", &gpu).expect("fits");
    assert_eq!(kernel.launches[0].label, "coop: 32 parts");
    assert_eq!(kernel.launches[0].grid, [2 * 32, 1, 1]);
    assert_eq!(first(&case((1, 16, 2, 1, 2048, 64, 64), &mut draw), &large_gpu(8)), "coop_8x8");
    // Precision is never given up without being asked, and software has no use for them unless it is told to.
    let wide = Case::new("", (2, 8, 8, 512, 512, 64, 64), &mut draw);
    assert_eq!(first(&wide, &gpu), "tiled");
    let prefill = wide.stored([DType::F16; 4]);
    let software = Profile { kind: AdapterKind::Cpu, ..gpu.clone() };
    assert_eq!(first(&prefill, &software), "panel");
    assert!(prefill.problem().0.kernel("coop_16x16", &software).is_ok());
}

/// With the assertions about the shape, which naga evaluates.
fn valid(source: &Source) {
    let module = naga::front::wgsl::parse_str(&source.wgsl)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source.wgsl)));
    let (flags, all) = (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    let valid = naga::valid::Validator::new(flags, all).validate(&module);
    valid.unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source.wgsl)));
}

#[test]
fn every_head_fits_the_devices_that_have_them() {
    let mut draw = Draw::new(97);
    for (size, lanes, kib) in [(16, 32, 48), (16, 64, 32), (8, 32, 32), (8, 8, 32), (8, 16, 64)] {
        let mut profile = large_gpu(size);
        profile.subgroup = Some((lanes, lanes));
        profile.limits.workgroup_bytes = kib << 10;
        for d in [1, 16, 64, 80, 96, 128, 160, 192, 256] {
            for tq in [1, 20, 200] {
                let case = halves("", (1, 1, 1, tq, 100, d, d), &mut draw);
                let built = case.problem().0.kernel(&format!("coop_{size}x{size}"), &profile);
                let kernel = built.unwrap_or_else(|e| panic!("{size}×{size}, {lanes} lanes, D={d}, {tq} rows: {e}"));
                valid(&kernel.launches[0].source);
            }
        }
    }
}

#[test]
fn refusals_say_why() {
    let mut draw = Draw::new(98);
    let gpu = large_gpu(16);
    let refusal = |case: &Case, profile: &Profile| {
        let refused = case.problem().0.kernel("coop_16x16", profile).expect_err("refused").to_string();
        refused.rsplit("coop_16x16: ").next().unwrap_or_default().to_string()
    };
    let wide = Case::new("", (1, 1, 1, 64, 64, 64, 64), &mut draw);
    assert_eq!(
        refusal(&wide.clone().stored([DType::F16, DType::F32, DType::F16, DType::F32]), &gpu),
        "takes q, k, v and out of f16, and these are f16, f32, f16 and f16; cast them in the graph where their precision is \
         enough"
    );
    let case = wide.stored([DType::F16; 4]);
    assert_eq!(refusal(&case, &large_gpu(8)), "the device has no 16×16×16 matrices of f16 with f32 sums");
    let varying = Profile { subgroup: Some((8, 32)), ..gpu.clone() };
    assert_eq!(refusal(&case, &varying), "takes subgroups of one size, which the device does not promise");
    let matrix = gpu.cooperative_matrices[0];
    let wrong = Profile { cooperative_matrix_faults: vec![(matrix, "3 for 4".into())], ..gpu.clone() };
    assert_eq!(refusal(&case, &wrong), "failed the test when the device was opened: 3 for 4");
    let mut small = gpu.clone();
    small.limits.workgroup_bytes = 8 << 10;
    assert_eq!(refusal(&case, &small), "needs 12424 bytes of workgroup memory, the limit is 8192");
    let none = halves("", (1, 1, 1, 64, 64, 64, 0), &mut draw);
    assert_eq!(refusal(&none, &gpu), "a head without columns leaves nothing to multiply");
    let long = halves("", (1, 1, 1, 64, 64, 64, 64), &mut draw);
    let software = Profile { kind: AdapterKind::Cpu, ..gpu };
    assert!(long.problem().0.kernel("coop_16x16", &software).is_ok());
}
