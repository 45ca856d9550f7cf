//! Attention on cooperative matrices, on GPUs of which only the profile is there.

use tilewise::{
    DType,
    kernel::{AdapterKind, CooperativeMatrix, Problem, Profile, Source},
};

use crate::common::attention::{Case, Draw, Sizes};

fn halves(sizes: Sizes, draw: &mut Draw) -> Case {
    Case::new("", sizes, draw).stored([DType::F16; 4])
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
    let case = |sizes: Sizes, draw: &mut Draw| halves(sizes, draw);
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
                let case = halves((1, 1, 1, tq, 100, d, d), &mut draw);
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
    assert_eq!(refusal(&case, &small), "needs 12428 bytes of workgroup memory, the limit is 8192");
    let none = halves((1, 1, 1, 64, 64, 64, 0), &mut draw);
    assert_eq!(refusal(&none, &gpu), "a head without columns leaves nothing to multiply");
    let long = halves((1, 1, 1, 64, 64, 64, 64), &mut draw);
    let software = Profile { kind: AdapterKind::Cpu, ..gpu };
    assert!(long.problem().0.kernel("coop_16x16", &software).is_ok());
}
