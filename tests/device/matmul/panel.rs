//! Matmul by panels of b, where several of them add to the same sums.

use tilewise::{
    DType,
    graph::Unary,
    kernel::{AdapterKind, Problem, Profile},
    reference::compare::Check,
};

use super::{Case, FLOATS, integers, stored};
use crate::common::{
    gpu,
    rows::{Draw, Lie},
};

impl Case {
    /// Runs a variant as drivers get it whose branches run masked, or as those that jump.
    fn check_panel(&self, variant: &str, masked: bool) {
        let driver = if masked { "" } else { "llvmpipe Mesa 26.0.0" };
        let profile = Profile { driver: driver.into(), kind: AdapterKind::Cpu, ..gpu().profile().clone() };
        if variant != "panel_uniform" && profile.subgroup.is_none_or(|(least, most)| least != most) {
            eprintln!("no {variant} without subgroups of one size");
            return;
        }
        let problem = self.problem();
        let kernel = problem.kernel(variant, &profile).expect("usable");
        let outputs = [(self.out, problem.output_shape().clone())];
        let results = gpu().run_kernel(&kernel, &self.inputs(), &outputs).expect("runs");
        if let Err(wrong) = self.expected(Check::Exact).compare(&results) {
            panic!("{} {variant}, masked: {masked}: {wrong}", problem.summary());
        }
    }
}

/// Rows singly and in pairs, columns in whole words and not, a bias for all rows, for each, and for each product, results of 16
/// bits, whose sums lie in a buffer of their own until then.
#[test]
fn the_epilogue_comes_after_the_last_of_several_panels() {
    let mut draw = Draw::new(41);
    let cases: [([usize; 2], &[usize]); 6] = [
        ([10, 44], &[44]),
        ([131, 24], &[131, 1]),
        ([9, 21], &[2, 9, 21]),
        ([9, 44], &[9, 1]),
        ([10, 21], &[2, 1, 21]),
        ([131, 20], &[2, 1, 20]),
    ];
    for (turn, ([m, n], bias)) in cases.into_iter().enumerate() {
        let variant = ["panel", "panel_uniform"][turn % 2];
        let mut case = Case::exact(&mut draw, &[2, m, 200], &[200, n]);
        case.bias = Some(integers(&mut draw, bias, Lie::Dense));
        case.activation = (turn % 3 > 0).then_some(Unary::Relu);
        case.residual = (turn % 2 == 0).then(|| integers(&mut draw, &[2, m, n], Lie::Dense));
        case.scale = (turn % 3 == 0).then_some(0.5);
        for (out, masked) in [(DType::F32, turn % 4 < 2), (FLOATS[1 + turn % 2], turn % 4 >= 2)] {
            case.out = out;
            case.check_panel(variant, masked);
        }
    }
    // No epilogue but the rounding; operands of 16 bits lie eight to a word.
    let mut operand = |shape: &[usize]| stored(integers(&mut draw, shape, Lie::Dense), DType::BF16);
    let mut case = Case::new(operand(&[10, 264]), operand(&[264, 40]));
    case.out = DType::F16;
    for variant in ["panel", "panel_uniform"] {
        [true, false].into_iter().for_each(|masked| case.check_panel(variant, masked));
    }
}
