//! Matmul on cooperative matrices, on GPUs of which only the profile is there.

use tilewise::{
    DType, Layout,
    kernel::{AdapterKind, CooperativeMatrix, Epilogue, MatmulDTypes, MatmulProblem, Problem, Profile},
};

#[test]
fn cooperative_matrices_need_f16_and_subgroups_of_one_size() {
    let problem = |dtype: DType| {
        let (a, b) = (Layout::contiguous([512, 64]), Layout::contiguous([64, 512]));
        MatmulProblem::new(&a, &b, Epilogue::default())
            .and_then(|p| p.stored_as(MatmulDTypes::all(dtype)))
            .expect("fits")
    };
    let matrix = CooperativeMatrix::square(16, [DType::F16, DType::F32]);
    let mut gpu = Profile { subgroup: Some((32, 32)), cooperative_matrices: vec![matrix], ..Profile::portable() };
    gpu.limits.workgroup_bytes = 48 << 10;
    let first = |problem: &MatmulProblem, profile: &Profile| {
        let candidates = problem.candidates(profile);
        candidates.iter().find(|candidate| candidate.is_usable()).map_or("none", |candidate| candidate.variant)
    };
    let refusal = |dtype: DType, profile: &Profile| {
        let refused = problem(dtype).kernel("coop_16x16", profile).expect_err("refused").to_string();
        refused.rsplit("coop_16x16: ").next().unwrap_or_default().to_string()
    };
    assert_eq!(first(&problem(DType::F16), &gpu), "coop_16x16");
    // Precision is never given up without being asked.
    for dtype in [DType::F32, DType::BF16] {
        assert_ne!(first(&problem(dtype), &gpu), "coop_16x16");
        let cast = "cast them in the graph where their precision is enough";
        assert_eq!(refusal(dtype, &gpu), format!("takes f16 operands, and these are {dtype} and {dtype}; {cast}"));
    }
    let varying = Profile { subgroup: Some((8, 32)), ..gpu.clone() };
    assert_eq!(refusal(DType::F16, &varying), "takes subgroups of one size, which the device does not promise");
    let none = Profile { cooperative_matrices: Vec::new(), ..gpu.clone() };
    assert_eq!(refusal(DType::F16, &none), "the device has no 16×16×16 matrices of f16 with f32 sums");
    let wrong = Profile { cooperative_matrix_faults: vec![(matrix, "3 for 4".into())], ..none };
    assert_eq!(refusal(DType::F16, &wrong), "failed the test when the device was opened: 3 for 4");
    let mut small = gpu.clone();
    small.limits.workgroup_bytes = 8 << 10;
    assert_eq!(refusal(DType::F16, &small), "needs 14848 bytes of workgroup memory, the limit is 8192");
    // A software adapter has no use for them, unless it is told to.
    let software = Profile { kind: AdapterKind::Cpu, ..gpu };
    assert_eq!(first(&problem(DType::F16), &software), "panel_uniform");
    assert!(problem(DType::F16).kernel("coop_16x16", &software).is_ok());
}
