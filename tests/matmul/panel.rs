//! Matmul by panels of b, where several of them add to the same sums.

use super::{
    Case, FLOATS, integers,
    rows::{Draw, Lie},
    stored,
};
use tilewise::{DType, graph::Unary, reference::compare::Check};

/// Rows singly and in pairs, columns in whole words and not, a bias for all rows and for each, results of 16 bits, whose sums
/// lie in a buffer of their own until then.
#[test]
fn the_epilogue_comes_after_the_last_of_several_panels() {
    let mut draw = Draw::new(41);
    let cases: [([usize; 2], &[usize]); 6] = [
        ([10, 44], &[44]),
        ([131, 24], &[131, 1]),
        ([9, 21], &[2, 9, 21]),
        ([9, 44], &[9, 1]),
        ([10, 21], &[21]),
        ([131, 20], &[20]),
    ];
    for (turn, ([m, n], bias)) in cases.into_iter().enumerate() {
        let panel = ["panel", "panel_uniform"][turn % 2];
        let mut case = Case::exact(&mut draw, &[2, m, 200], &[200, n]);
        case.bias = Some(integers(&mut draw, bias, Lie::Dense));
        case.activation = (turn % 3 > 0).then_some(Unary::Relu);
        case.residual = (turn % 2 == 0).then(|| integers(&mut draw, &[2, m, n], Lie::Dense));
        case.scale = (turn % 3 == 0).then_some(0.5);
        for out in [DType::F32, FLOATS[1 + turn % 2]] {
            case.out = out;
            case.check_variants(Check::Exact, |variant| [panel, "plain"].contains(&variant));
        }
    }
    // No epilogue but the rounding; operands of 16 bits lie eight to a word.
    let mut operand = |shape: &[usize]| stored(integers(&mut draw, shape, Lie::Dense), DType::BF16);
    let mut case = Case::new(operand(&[10, 264]), operand(&[264, 40]));
    case.out = DType::F16;
    case.check_variants(Check::Exact, |variant| variant.starts_with("panel") || variant == "plain");
}
