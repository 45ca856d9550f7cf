//! Matmul on cooperative matrices, where an adapter has them.

use tilewise::{DType, Layout, graph::Unary, kernel::Problem, reference::compare::Check};

use super::{Case, FLOATS, cooperative, floats, integers, stored};
use crate::common::{
    gpu,
    rows::{Draw, Lie, View},
};

/// f16 operands of small integers for the variants on cooperative matrices.
fn halves(draw: &mut Draw, a: (&[usize], Lie), b: (&[usize], Lie)) -> Case {
    let mut operand = |(shape, lie): (&[usize], Lie)| stored(integers(draw, shape, lie), DType::F16);
    Case::new(operand(a), operand(b))
}

impl Case {
    /// Runs those variants on cooperative matrices that the device has, and plain.
    fn check_cooperative(&self, check: Check) {
        self.check_variants(check, |variant| variant.starts_with("coop") || variant == "plain");
    }
}

/// Few adapters have cooperative matrices, so that without them their tests only see that the variants are refused.
/// `REQUIRE_COOPERATIVE=1` makes that a failure.
#[test]
fn an_adapter_with_cooperative_matrices_is_there_if_it_has_to_be() {
    let profile = gpu().profile();
    assert_eq!(profile.cooperative_matrix_faults, [], "they failed their test");
    let found = ["coop_16x16", "coop_8x8"].into_iter().any(|variant| cooperative(variant, profile).is_some());
    let required = std::env::var_os("REQUIRE_COOPERATIVE").is_some();
    assert!(
        found || !required,
        "REQUIRE_COOPERATIVE is set, but {} has no matrices of f16 with f32 sums",
        profile.adapter
    );
    if !found {
        eprintln!("{} has no cooperative matrices: kernels on them are only compiled here", profile.adapter);
    }
}

#[test]
fn cooperative_matrices_of_any_size_and_lie() {
    let mut draw = Draw::new(17);
    let dense = Lie::Dense;
    for [m, n, k] in
        [[1, 1, 1], [8, 8, 8], [16, 16, 16], [9, 7, 15], [33, 31, 17], [64, 65, 64], [67, 130, 40], [3, 70, 300]]
    {
        halves(&mut draw, (&[m, k], dense), (&[k, n], dense)).check_cooperative(Check::Exact);
    }
    // Large enough for the largest tiles.
    halves(&mut draw, (&[765, 21], dense), (&[21, 706], dense)).check_cooperative(Check::Exact);
    for [m, n, k] in [[36, 40, 44], [35, 39, 43]] {
        for (i, a) in Lie::ALL.into_iter().enumerate() {
            let b = Lie::ALL[(i + 2) % 6];
            halves(&mut draw, (&[2, m, k], a), (&[3, 1, k, n], b)).check_cooperative(Check::Exact);
        }
        for transposed in 1..4 {
            let mut case = halves(&mut draw, (&[m, k], dense), (&[k, n], dense));
            let turn = |view: &mut View, [rows, columns]: [usize; 2]| {
                view.layout = Layout::contiguous([columns, rows]).permute(&[1, 0]);
            };
            if transposed & 1 == 1 {
                turn(&mut case.a, [m, k]);
            }
            if transposed & 2 == 2 {
                turn(&mut case.b, [k, n]);
            }
            case.check_cooperative(Check::Exact);
        }
    }
}

#[test]
fn cooperative_matrices_with_every_epilogue() {
    let mut draw = Draw::new(18);
    for (i, [m, n, k]) in [[36, 40, 44], [35, 38, 43], [33, 39, 41]].into_iter().enumerate() {
        for out in FLOATS {
            let mut case = halves(&mut draw, (&[2, m, k], Lie::Dense), (&[k, n], Lie::Dense));
            (case.scale, case.activation, case.out) = (Some(0.5), Some(Unary::Relu), out);
            case.bias = Some(stored(integers(&mut draw, &[n], Lie::Dense), FLOATS[i]));
            case.residual = Some(stored(integers(&mut draw, &[2, m, n], Lie::Dense), FLOATS[(i + 1) % 3]));
            case.check_cooperative(Check::Exact);
        }
    }
    let mut case = Case::new(
        stored(floats(&mut draw, &[70, 260], Lie::Dense), DType::F16),
        stored(floats(&mut draw, &[260, 50], Lie::Dense), DType::F16),
    );
    (case.activation, case.out) = (Some(Unary::Gelu), DType::F16);
    case.check_cooperative(Check::measured());
}

/// Workgroup memory between barriers is formally not covered in such modules (see the shader's head): were it read stale, some
/// of many runs would differ.
#[test]
fn cooperative_matrices_give_the_same_bits_each_time() {
    let mut draw = Draw::new(19);
    let operand = |draw: &mut Draw, shape: &[usize]| stored(floats(draw, shape, Lie::Dense), DType::F16);
    let case = Case::new(operand(&mut draw, &[131, 200]), operand(&mut draw, &[200, 67]));
    let problem = case.problem();
    let outputs = [(DType::F32, problem.output_shape().clone())];
    for variant in ["coop_16x16", "coop_8x8"] {
        let Ok(kernel) = problem.kernel(variant, gpu().profile()) else {
            assert_eq!(cooperative(variant, gpu().profile()), None, "{variant}");
            continue;
        };
        // Each of these is two runs, whose bits are compared as well.
        let run = || gpu().run_kernel(&kernel, &case.inputs(), &outputs).expect("it runs");
        let first = run();
        for i in 1..100 {
            assert_eq!(run()[0].as_bytes(), first[0].as_bytes(), "{variant}, run {}", 2 * i);
        }
    }
}
