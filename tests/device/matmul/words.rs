//! Matmul where it depends on how elements lie in words: eight, four or one at a time, and where sums end within one.

use tilewise::{
    DType, Data, Layout, Tensor,
    graph::Unary,
    kernel::{AdapterKind, Epilogue, MatmulDTypes, MatmulProblem, Problem, Profile},
    reference::compare::Check,
};

use super::{Case, floats, integers, stored};
use crate::common::{
    gpu,
    matmul::variants,
    rows::{Draw, Lie},
};

/// Words of eight elements are another way to read the same, pairs of rows another order of the rows: sums are taken in the same order.
#[test]
fn words_of_eight_and_pairs_of_rows_change_no_bits() {
    let mut draw = Draw::new(26);
    let software = Profile { kind: AdapterKind::Cpu, ..gpu().profile().clone() };
    let eights = Profile { driver: String::new(), ..software.clone() };
    let fours = Profile { driver: "llvmpipe Mesa 26.0.0".into(), ..software };
    // Narrow elements lie eight to a word with or without words of 64 bits.
    let without = Profile { shader_int64: false, ..eights.clone() };
    let alone = Profile { subgroup: None, ..eights.clone() };
    let has_pairs = eights.subgroup.is_some_and(|(least, _)| least >= 8);
    for (turn, [m, n, k]) in [[9, 72, 136], [131, 8, 72], [10, 120, 48]].into_iter().enumerate() {
        for (place, dtype) in [DType::F32, DType::F16, DType::BF16].into_iter().enumerate() {
            let transposed = (turn + place) % 2 == 1;
            let b = if transposed { [n, k] } else { [k, n] };
            let lie = if turn == 0 { Lie::Fours } else { Lie::Dense };
            let a = stored(floats(&mut draw, &[m, k], lie), dtype);
            let mut case = Case::new(a, stored(floats(&mut draw, &b, Lie::Dense), dtype));
            if transposed {
                case.b.layout = Layout::contiguous([n, k]).permute(&[1, 0]);
            }
            // Where there is but one panel: drivers differ in where several have their epilogue.
            case.bias = (k <= 64).then(|| floats(&mut draw, &[n], Lie::Dense));
            let problem = case.problem();
            let (wide, whole) = (dtype != DType::F32 || eights.shader_int64, lie == Lie::Dense);
            for (variant, other, differs) in [
                ("panel", &fours, wide),
                ("panel_uniform", &without, whole && dtype == DType::F32 && eights.shader_int64),
                ("panel_uniform", &alone, m > 128 && has_pairs),
            ] {
                if variant == "panel" && eights.subgroup.is_none_or(|(least, most)| least != most) {
                    eprintln!("no panel without subgroups of one size");
                    continue;
                }
                let mut texts = Vec::new();
                let results = [&eights, other].map(|profile| {
                    let kernel = problem.kernel(variant, profile).expect("usable");
                    texts.push(kernel.launches[0].source.wgsl.clone());
                    let outputs = [(DType::F32, problem.output_shape().clone())];
                    gpu().run_kernel(&kernel, &case.inputs(), &outputs).expect("runs").remove(0)
                });
                assert_eq!(texts[0] != texts[1], differs, "{variant}: {}", problem.summary());
                assert_eq!(results[0].as_bytes(), results[1].as_bytes(), "{variant}: {}", problem.summary());
            }
        }
    }
}

/// What `subgroup` does in other texts than the other variants: b along either axis or neither, words of any length, ends of
/// sums, columns that fill no workgroup, one row to eight.
#[test]
fn few_rows_by_subgroups() {
    let mut draw = Draw::new(17);
    let few = |variant: &str| ["plain", "subgroup"].contains(&variant);
    let sizes =
        [[1, 40, 136], [2, 33, 64], [3, 16, 37], [4, 36, 36], [5, 100, 40], [7, 30, 130], [8, 64, 128], [8, 7, 5]];
    for (turn, [m, n, k]) in sizes.into_iter().enumerate() {
        for lie in [Lie::Turned, Lie::Dense, Lie::Gaps, Lie::Backwards] {
            let mut case = Case::new(integers(&mut draw, &[2, m, k], Lie::Dense), integers(&mut draw, &[k, n], lie));
            case.residual = Some(integers(&mut draw, &[m, n], Lie::Dense));
            case.check_variants(Check::Exact, few);
        }
        // 16 bits, of which rows of odd length share words of the result.
        let dtype = [DType::F16, DType::BF16][turn % 2];
        let mut operand = |shape: &[usize], lie: Lie| stored(integers(&mut draw, shape, lie), dtype);
        let mut case = Case::new(operand(&[m, k], Lie::Dense), operand(&[2, k, n], Lie::Turned));
        (case.bias, case.activation) = (Some(operand(&[n], Lie::Dense)), Some(Unary::Relu));
        case.check_variants(Check::Exact, few);
        case.out = dtype;
        case.check_variants(Check::Exact, few);
    }
}

/// Where a sum ends within a word, the last elements stand for those past the end: an infinite one must not meet their zeros.
#[test]
fn the_last_terms_may_be_infinite() {
    // By elements, in words of four, in words of eight.
    for k in [37, 36, 40] {
        // What cooperative matrices take, and what all else does.
        [DType::F16, DType::F32].into_iter().for_each(|dtype| infinite_last_terms(k, dtype));
    }
}

fn infinite_last_terms(k: usize, dtype: DType) {
    const M: usize = 3;
    const N: usize = 40;
    let rows = |rows: usize, infinite: usize| -> Vec<f32> {
        (0..rows * k).map(|at| if at == infinite * k + k - 1 { f32::INFINITY } else { 1.0 }).collect()
    };
    let tensor = |shape: [usize; 2], values: Vec<f32>| {
        let data = match dtype {
            DType::F16 => Data::F16(values.into_iter().map(half::f16::from_f32).collect()),
            _ => Data::F32(values),
        };
        Tensor::new(shape, data).expect("fits")
    };
    let a = tensor([M, k], rows(M, 1));
    let columns = rows(N, 2);
    let across: Vec<f32> = (0..k * N).map(|at| columns[at % N * k + at / N]).collect();
    for (b, layout) in [
        (tensor([k, N], across), Layout::contiguous([k, N])),
        (tensor([N, k], columns), Layout::contiguous([N, k]).permute(&[1, 0])),
    ] {
        let dtypes = MatmulDTypes { a: dtype, b: dtype, ..MatmulDTypes::all(DType::F32) };
        let problem = MatmulProblem::new(&Layout::contiguous([M, k]), &layout, Epilogue::default())
            .and_then(|problem| problem.stored_as(dtypes))
            .expect("they fit");
        for variant in variants() {
            let Ok(kernel) = problem.kernel(variant, gpu().profile()) else { continue };
            let outputs = [(DType::F32, problem.output_shape().clone())];
            let out = gpu().run_kernel(&kernel, &[&a, &b], &outputs).expect("it runs");
            for (at, &x) in out[0].as_f32().expect("f32").iter().enumerate() {
                let right = if at / N == 1 || at % N == 2 { f32::INFINITY } else { k as f32 };
                assert_eq!(x, right, "{variant} of {dtype}, K={k}, at {:?}", [at / N, at % N]);
            }
        }
    }
}
