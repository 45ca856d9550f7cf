//! What must be right to the bit: arithmetic on small integers, integers and booleans at their edges, casts, comparisons.

use tilewise::{
    DType, Tensor,
    graph::{Binary, Unary},
    kernel::{Arg, Instr},
};

use super::{check_exact, dense};
use crate::common::view::{Rng, small, tensor};

const X: Arg = Arg::Operand(0);
const Y: Arg = Arg::Operand(1);

/// Every pair of these, as two tensors.
fn pairs(dtype: DType, values: &[f64]) -> (Tensor, Tensor) {
    let n = values.len();
    let a: Vec<f64> = (0..n * n).map(|i| values[i / n]).collect();
    let b: Vec<f64> = (0..n * n).map(|i| values[i % n]).collect();
    (tensor(dtype, [n * n], &a), tensor(dtype, [n * n], &b))
}

/// Where integers of a dtype behave in a way of their own.
fn edges(dtype: DType) -> Vec<f64> {
    let (min, max) = (f64::from(i32::MIN), f64::from(i32::MAX));
    match dtype {
        DType::I32 => {
            vec![0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 7.0, -7.0, 31.0, 46341.0, -65536.0, max, max - 1.0, min, min + 1.0]
        }
        DType::U32 => vec![0.0, 1.0, 2.0, 3.0, 7.0, 31.0, 65535.0, 65536.0, max, max + 1.0, f64::from(u32::MAX)],
        DType::Bool => vec![0.0, 1.0],
        _ => vec![0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 5.0, 7.0, -8.0],
    }
}

#[test]
fn binary_functions_of_integers_and_booleans_at_their_edges() {
    for dtype in [DType::I32, DType::U32, DType::Bool] {
        let (a, b) = pairs(dtype, &edges(dtype));
        for function in Binary::ALL {
            let fits =
                matches!(function, Binary::Equal | Binary::NotEqual) || function.is_logical() == (dtype == DType::Bool);
            if fits {
                let result = if function.is_comparison() { DType::Bool } else { dtype };
                check_exact(&dense(&[&a, &b], result, vec![Instr::Binary(function, X, Y)]), &[&a, &b]);
            }
        }
    }
}

#[test]
fn binary_functions_of_small_whole_floats() {
    let exact = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Min];
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let (a, b) = pairs(dtype, &edges(dtype));
        for function in Binary::ALL {
            if exact.contains(&function) {
                check_exact(&dense(&[&a, &b], dtype, vec![Instr::Binary(function, X, Y)]), &[&a, &b]);
            } else if function.is_comparison() {
                check_exact(&dense(&[&a, &b], DType::Bool, vec![Instr::Binary(function, X, Y)]), &[&a, &b]);
            }
        }
    }
}

#[test]
fn unary_functions_that_are_exact() {
    let floats =
        [-3.5, -2.5, -2.0, -1.5, -1.0, -0.5, -0.25, -0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 3.5, 4.5, 1023.5];
    let large = [8388607.5, -8388607.5, 8388609.0, 3e9, -1e30, f64::from(f32::MAX), 0.49999997, -0.49999997];
    for dtype in DType::ALL {
        let values = match dtype {
            DType::F32 => [&floats[..], &large].concat(),
            DType::F16 | DType::BF16 => floats.to_vec(),
            _ => edges(dtype),
        };
        let x = tensor(dtype, [values.len()], &values);
        let functions = match dtype {
            DType::Bool => vec![Unary::Not],
            DType::I32 | DType::U32 => vec![Unary::Neg, Unary::Abs, Unary::Sign, Unary::Relu],
            _ => vec![Unary::Neg, Unary::Abs, Unary::Sign, Unary::Relu, Unary::Floor, Unary::Ceil, Unary::Round],
        };
        for function in functions {
            check_exact(&dense(&[&x], dtype, vec![Instr::Unary(function, X)]), &[&x]);
        }
    }
}

#[test]
fn casts_between_all_dtypes() {
    let two = |n: i32| 2f64.powi(n);
    let floats = vec![
        0.0,
        -0.0,
        0.3,
        -0.3,
        0.5,
        -0.7,
        0.999_999_9,
        1.0,
        -1.0,
        1.5,
        2.5,
        -2.5,
        255.9,
        -255.9,
        2047.0,
        2049.0,
        2051.0,
        65504.0,
        65519.0,
        65520.0,
        -65520.0,
        1e5,
        16_777_215.0,
        2_147_483_520.0,
        2_147_483_648.0,
        -2_147_483_648.0,
        -2_147_483_904.0,
        4_294_967_040.0,
        4_294_967_296.0,
        1e10,
        -1e10,
        1e30,
        -1e30,
        3.3e38,
        f64::from(f32::MAX),
        // Around the smallest f16: 2⁻²⁴, ties to even at 2⁻²⁵ and 3·2⁻²⁵, and the first normal number.
        two(-24),
        two(-25),
        two(-25) * 1.0001,
        3.0 * two(-25),
        5.0 * two(-25),
        two(-14),
        two(-14) * (1.0 - two(-12)),
        two(-20) * 1.3,
        // Ties of f16 and bf16, on either side of even.
        1.0 + two(-11),
        1.0 + 3.0 * two(-11),
        1.0 + two(-11) + two(-20),
        1.0 + two(-8),
        1.0 + 3.0 * two(-8),
        1.0 + two(-8) + two(-16),
    ];
    let mut rng = Rng(7);
    let whole = |values: &[f64], rng: &mut Rng, low: f64| -> Vec<f64> {
        let drawn = (0..200).map(|_| (low + rng.unit() * (f64::from(u32::MAX) - f64::from(i32::MAX))).trunc());
        // Next to ties of bf16 that f32 can't tell from them.
        let near = [
            two(24) + two(16),
            two(24) + two(16) + 1.0,
            two(24) + two(16) - 1.0,
            two(30) + two(22) + 1.0,
            two(30) + two(22),
        ];
        values.iter().copied().chain(drawn).chain(near).collect()
    };
    for input in DType::ALL {
        let values = match input {
            DType::I32 => whole(&edges(input), &mut rng, f64::from(i32::MIN)),
            DType::U32 => whole(&edges(input), &mut rng, f64::from(i32::MAX)),
            DType::Bool => edges(input),
            _ => floats.clone(),
        };
        let x = tensor(input, [values.len()], &values);
        for output in DType::ALL {
            check_exact(&dense(&[&x], output, vec![Instr::Cast(output, X)]), &[&x]);
            // On the way, where it has to be rounded too.
            for end in [DType::F32, DType::I32] {
                let body = vec![Instr::Cast(output, X), Instr::Cast(end, Arg::Instr(0))];
                check_exact(&dense(&[&x], end, body), &[&x]);
            }
        }
    }
}

#[test]
fn choices_in_all_dtypes() {
    let mut rng = Rng(1);
    let shape = [37].into();
    let condition = small(&mut rng, DType::Bool, &shape);
    for dtype in DType::ALL {
        let (a, b) = (small(&mut rng, dtype, &shape), small(&mut rng, dtype, &shape));
        let body = vec![Instr::Where(X, Arg::Operand(1), Arg::Operand(2))];
        check_exact(&dense(&[&condition, &a, &b], dtype, body), &[&condition, &a, &b]);
        let scalar = vec![Instr::Where(X, Arg::Scalar(dtype, 1.0), Arg::Operand(1))];
        check_exact(&dense(&[&condition, &a], dtype, scalar), &[&condition, &a]);
    }
}

#[test]
fn powers_that_have_a_formula() {
    let values = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -5.0, 9.0, 16.0, -128.0];
    let x = tensor(DType::F32, [values.len()], &values);
    for power in [0.0, 1.0, 2.0, 3.0] {
        let body = vec![Instr::Binary(Binary::Pow, X, Arg::Scalar(DType::F32, power))];
        check_exact(&dense(&[&x], DType::F32, body), &[&x]);
    }
}

#[test]
fn scalars_of_all_dtypes_with_infinity() {
    let mut rng = Rng(3);
    for dtype in DType::ALL {
        let x = small(&mut rng, dtype, &[9].into());
        for scalar in [0.0, 1.0, 5.0] {
            let body = vec![Instr::Binary(Binary::Equal, X, Arg::Scalar(dtype, scalar))];
            check_exact(&dense(&[&x], DType::Bool, body), &[&x]);
        }
    }
    let mask = small(&mut rng, DType::Bool, &[9].into());
    let x = small(&mut rng, DType::F32, &[9].into());
    let body = vec![Instr::Where(X, Y, Arg::Scalar(DType::F32, f64::NEG_INFINITY))];
    check_exact(&dense(&[&mask, &x], DType::F32, body), &[&mask, &x]);
}
