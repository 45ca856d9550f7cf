use super::*;

fn unary(function: Unary, x: f64) -> f64 {
    reference::unary_float(function, x)
}

/// Abramowitz and Stegun, tables 7.1 and 7.3, with the digits of the NIST handbook.
#[test]
fn erf_has_the_digits_of_the_tables() {
    let table = [
        (0.0, 0.0),
        (0.1, 0.1124629160182849),
        (0.5, 0.5204998778130465),
        (1.0, 0.8427007929497149),
        (1.5, 0.9661051464753108),
        (2.0, 0.9953222650189527),
        (3.0, 0.9999779095030014),
        (6.0, 1.0),
    ];
    for (x, y) in table {
        near(&[unary(Unary::Erf, x), unary(Unary::Erf, -x)], &[y, -y], 1e-15);
    }
}

/// Φ(−5) = 2.866515718791939e-7, Φ(−10) = 7.619853024160527e-24.
#[test]
fn gelu_keeps_its_digits_in_the_tail() {
    let phi = [(1.0, 0.8413447460685429), (-5.0, 2.866515718791939e-7), (-10.0, 7.619853024160527e-24)];
    for (x, phi) in phi {
        near(&[unary(Unary::Gelu, x)], &[x * phi], 1e-14);
    }
    near(&[unary(Unary::GeluTanh, 1.0)], &[0.841191990608276], 1e-14);
    assert_eq!(unary(Unary::Gelu, 0.0), 0.0);
}

#[test]
fn functions_have_known_values() {
    let table = [
        (Unary::Exp, 1.0, std::f64::consts::E),
        (Unary::Log, 10.0, std::f64::consts::LN_10),
        (Unary::Rsqrt, 4.0, 0.5),
        (Unary::Tanh, 0.5, 0.46211715726000974),
        (Unary::Sigmoid, 2.0, 0.8807970779778824),
        (Unary::Sigmoid, -1000.0, 0.0),
        (Unary::Silu, 1.0, 0.7310585786300049),
        (Unary::Softplus, 0.0, std::f64::consts::LN_2),
        (Unary::Softplus, -20.0, 2.061153620314381e-9),
        (Unary::Softplus, 1000.0, 1000.0),
        (Unary::Round, 2.5, 2.0),
        (Unary::Round, -3.5, -4.0),
        (Unary::Floor, -1.5, -2.0),
        (Unary::Ceil, -1.5, -1.0),
        (Unary::Sign, -7.0, -1.0),
        (Unary::Sign, 0.0, 0.0),
        (Unary::Relu, -3.0, 0.0),
    ];
    for (function, x, y) in table {
        near(&[unary(function, x)], &[y], 1e-14);
    }
}

#[test]
fn integers_wrap_truncate_and_divide_by_zero() -> Result {
    let a = Tensor::new([6], vec![7i32, -7, 7, i32::MIN, i32::MAX, 5])?;
    let b = Tensor::new([6], vec![2i32, 2, -2, -1, 1, 0])?;
    let of = |function| -> Result<Vec<f64>> { Ok(reference::binary(function, &wide(&a), &wide(&b))?.to_f64()) };
    assert_eq!(of(Binary::Div)?, [3.0, -3.0, -3.0, -2147483648.0, 2147483647.0, 0.0]);
    assert_eq!(of(Binary::Add)?[4], -2147483648.0);
    assert_eq!(of(Binary::Pow)?, [49.0, 49.0, 0.0, 0.0, 2147483647.0, 1.0]);
    assert_eq!(of(Binary::Less)?, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    let u = Tensor::new([2], vec![0u32, 7])?;
    assert_eq!(reference::unary(Unary::Neg, &wide(&u))?.to_f64(), [0.0, 4294967289.0]);
    Ok(())
}

#[test]
fn whole_powers_of_negative_numbers_keep_their_sign() -> Result {
    let (a, b) = (f32s([3], &[-2.0, -2.0, -0.5])?, f32s([3], &[2.0, 3.0, -1.0])?);
    assert_eq!(reference::binary(Binary::Pow, &wide(&a), &wide(&b))?.to_f64(), [4.0, -8.0, -2.0]);
    Ok(())
}

#[test]
fn casts_truncate_saturate_and_round() -> Result {
    let x = f32s([7], &[-1.9, 1.9, 3e9, -3e9, 0.0, 65520.0, 2049.0])?;
    let of = |dtype| reference::cast(&wide(&x), dtype).to_f64();
    assert_eq!(of(DType::I32), [-1.0, 1.0, 2147483647.0, -2147483648.0, 0.0, 65520.0, 2049.0]);
    assert_eq!(of(DType::U32), [0.0, 1.0, 3e9, 0.0, 0.0, 65520.0, 2049.0]);
    assert_eq!(of(DType::Bool), [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    assert_eq!(of(DType::F16)[5..], [f64::INFINITY, 2048.0]);
    assert_eq!(of(DType::BF16)[6], 2048.0);
    let minus_one = Tensor::new([1], vec![-1i32])?;
    assert_eq!(reference::cast(&wide(&minus_one), DType::U32).to_f64(), [4294967295.0]);
    Ok(())
}

#[test]
fn where_broadcasts_all_three() -> Result {
    let condition = Array::new([2, 1], vec![true, false])?;
    let (a, b) = (wide(&f32s([3], &[1.0, 2.0, 3.0])?), wide(&Tensor::scalar(9.0)));
    let y = reference::choose(&condition, &a, &b)?;
    assert_eq!(y.shape(), &[2, 3].into());
    assert_eq!(y.to_f64(), [1.0, 2.0, 3.0, 9.0, 9.0, 9.0]);
    Ok(())
}
