//! Each function of floats over dense sweeps, against the bounds that the documentation states.

use half::f16;
use tilewise::{
    DType, Tensor,
    graph::{Binary, Unary},
    kernel::{Arg, Instr},
    reference,
};

use super::{check_within, dense, extra};
use crate::common::view;
use tilewise::reference::compare::Bound;

/// What `unary_wgsl` promises: the largest |error| for `y`, the function at `x`.
fn allowed(function: Unary, x: f64, y: f64) -> f64 {
    let ulp = y.abs() * 2f64.powi(-23);
    let bound = match function {
        Unary::Exp => (3.0 + 2.0 * x.abs()) * ulp,
        Unary::Log if (0.5..=2.0).contains(&x) => 2f64.powi(-21),
        Unary::Log => 3.0 * ulp,
        Unary::Sqrt => 5.0 * ulp,
        Unary::Rsqrt => 2.0 * ulp,
        Unary::Reciprocal => 2.5 * ulp,
        Unary::Erf if x.abs() < 0.92 => 4.0 * ulp,
        Unary::Erf => 3e-7,
        Unary::Tanh if x.abs() < 0.62 => 4.0 * ulp,
        Unary::Tanh => 6e-7,
        Unary::Sigmoid | Unary::Silu | Unary::Softplus => (12.0 + 2.0 * x.abs()) * ulp,
        Unary::Gelu => (20.0 + 2.0 * x * x) * ulp,
        Unary::GeluTanh => {
            let u = std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x);
            (20.0 + 8.0 * u.abs()) * ulp
        }
        Unary::Sin | Unary::Cos => 3e-7,
        _ => 0.0,
    };
    // What is below the smallest normal number may be flushed to 0; in silu and gelu it is then multiplied by x.
    bound + if matches!(function, Unary::Silu | Unary::Gelu | Unary::GeluTanh) { 1.2e-36 } else { 1.2e-38 }
}

/// The function in f64.
fn exact(function: Unary, x: f64) -> f64 {
    match function {
        // Not 1 + tanh, of which little is left in the lower tail even in f64.
        Unary::GeluTanh => x / (1.0 + (-2.0 * std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x)).exp()),
        _ => reference::unary_float(function, x),
    }
}

/// Where the function is defined and its result is finite.
fn domain(function: Unary) -> (f64, f64) {
    let max = f64::from(f32::MAX);
    match function {
        Unary::Exp => (-100.0, 88.0),
        Unary::Log | Unary::Rsqrt => (f64::from(f32::MIN_POSITIVE), max),
        Unary::Sqrt => (0.0, max),
        Unary::Sin | Unary::Cos => (-1e5, 1e5),
        _ => (-max, max),
    }
}

/// Dense near 0, then ever wider, to the ends of the domain; and the numbers at which formulas change.
fn sweep(function: Unary) -> Vec<f32> {
    let (low, high) = domain(function);
    let mut all = vec![0.0, -0.0, low as f32, high as f32];
    for edge in [
        0.44, 0.5, 0.625, 0.6747, 0.9277, 0.92773, 1.0, 1.31, 2.0, 3.9, 8.8, 9.0, 12.0, 13.0, 15.0, 18.4, 20.0, 87.3,
        103.0,
    ] {
        for nudge in [-1e-6, 0.0, 1e-6] {
            all.extend([(edge + nudge) as f32, -(edge + nudge) as f32]);
        }
    }
    all.extend((0..=20_000).flat_map(|i| [i as f32 / 1000.0, -(i as f32) / 1000.0]));
    all.extend(
        (0..=20_000).map(|i| (low.max(-100.0) + i as f64 / 20_000.0 * (high.min(100.0) - low.max(-100.0))) as f32),
    );
    let mut magnitude = 1.2e-38f32;
    while magnitude < 3e38 {
        all.extend([magnitude, -magnitude]);
        magnitude *= 1.013;
    }
    all.retain(|&x| (low..=high).contains(&f64::from(x)));
    if function == Unary::Reciprocal {
        all.retain(|&x| x.abs() > 3e-39 && x.abs() < 8e37);
    }
    all
}

#[test]
fn unary_functions_keep_their_bounds() {
    println!("{:<12}{:>12}{:>14}{:>12}   at", "", "max |error|", "max error/ulp", "of allowed");
    let mut broken = Vec::new();
    for function in Unary::ALL.into_iter().filter(|&f| f != Unary::Not) {
        let x = sweep(function);
        let input = Tensor::new([x.len()], x.clone()).expect("the sizes agree");
        let problem = dense(&[&input], DType::F32, vec![Instr::Unary(function, Arg::Operand(0))]);
        let output = view::run(&problem, &[&input], DType::F32, input.shape());
        let (mut absolute, mut ulps, mut worst, mut at) = (0f64, 0f64, 0f64, 0f32);
        for (&x, &got) in x.iter().zip(output.as_f32().expect("f32")) {
            let exact = exact(function, f64::from(x));
            let error = (f64::from(got) - exact).abs();
            let ratio = error / allowed(function, f64::from(x), exact);
            assert!(ratio.is_finite(), "{}({x:e}) is {got:e}, expected {exact:e}", function.name());
            absolute = absolute.max(error);
            if exact.abs() > 1e-37 {
                ulps = ulps.max(error / 2f64.powi(exact.abs().log2().floor() as i32 - 23));
            }
            if ratio > worst {
                (worst, at) = (ratio, x);
            }
        }
        println!("{:<12}{absolute:>12.2e}{ulps:>14.2}{worst:>12.3}   {at:e}", function.name());
        if worst > 1.0 {
            broken.push(format!("{} at {at:e}: {worst:.3} times what is allowed", function.name()));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn unary_functions_of_halves() {
    for dtype in [DType::F16, DType::BF16] {
        for function in Unary::ALL.into_iter().filter(|&f| f != Unary::Not) {
            let (low, high) = domain(function);
            let (low, high) = (low.max(-8.0), high.min(8.0));
            let mut values: Vec<f64> = (0..4001).map(|i| low + f64::from(i) * (high - low) / 4000.0).collect();
            if function == Unary::Reciprocal {
                values.retain(|x| x.abs() > 0.01);
            }
            if matches!(function, Unary::Log | Unary::Rsqrt) {
                values.retain(|&x| x > f16::MIN_POSITIVE.to_f64());
            }
            let x = view::tensor(dtype, [values.len()], &values);
            let problem = dense(&[&x], dtype, vec![Instr::Unary(function, Arg::Operand(0))]);
            let looser = extra(&problem);
            check_within(&problem, &[&x], |expected, plain| Bound::measured(expected, plain, looser, 0.0));
        }
    }
}

/// Every pair of these magnitudes, with both signs.
fn pairs() -> (Vec<f32>, Vec<f32>) {
    let magnitudes =
        [0.0, 1e-30, 1e-7, 0.1, 0.3333, 0.5, 0.9999, 1.0, 1.0001, 1.7, 2.0, 3.0, 7.5, 10.0, 31.0, 1000.5, 1e6, 1e30];
    let values: Vec<f32> = magnitudes.into_iter().flat_map(|m: f32| [m, -m]).collect();
    values.iter().flat_map(|&a| values.iter().map(move |&b| (a, b))).unzip()
}

#[test]
fn binary_functions_of_floats_keep_their_bounds() {
    let (x, y) = (Arg::Operand(0), Arg::Operand(1));
    for function in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min, Binary::Pow] {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs();
        let (a, b): (Vec<f32>, Vec<f32>) = a
            .into_iter()
            .zip(b)
            .filter(|&(a, b)| match function {
                Binary::Div => b != 0.0 && (a / b).is_finite(),
                Binary::Pow => a.powf(b).is_finite() && (a != 0.0 || b >= 0.0),
                _ => (a * b).is_finite(),
            })
            .unzip();
        let (left, right) = (Tensor::new([a.len()], a.clone()), Tensor::new([b.len()], b.clone()));
        let (left, right) = (left.expect("sizes agree"), right.expect("sizes agree"));
        let problem = dense(&[&left, &right], DType::F32, vec![Instr::Binary(function, x, y)]);
        let output = view::run(&problem, &[&left, &right], DType::F32, left.shape());
        let mut worst = 0f64;
        for ((&a, &b), &got) in a.iter().zip(&b).zip(output.as_f32().expect("f32")) {
            let (wide_a, wide_b) = (f64::from(a), f64::from(b));
            let (exact, ulps) = match function {
                Binary::Add => (wide_a + wide_b, 0.5),
                Binary::Sub => (wide_a - wide_b, 0.5),
                Binary::Mul => (wide_a * wide_b, 0.5),
                Binary::Div => (wide_a / wide_b, 2.5),
                Binary::Max => (wide_a.max(wide_b), 0.0),
                Binary::Min => (wide_a.min(wide_b), 0.0),
                _ => {
                    let exponent = if wide_a == 0.0 { 0.0 } else { wide_b * wide_a.abs().log2() };
                    (wide_a.powf(wide_b), 16.0 + 4.0 * exponent.abs())
                }
            };
            let allowed = ulps * exact.abs() * 2f64.powi(-23) + f64::from(f32::MIN_POSITIVE);
            let ratio = (f64::from(got) - exact).abs() / allowed;
            assert!(ratio <= 1.0, "{}({a:e}, {b:e}) is {got:e}, expected {exact:e}", function.name());
            worst = worst.max(ratio);
        }
        println!("{:<12}{worst:>8.3} of what is allowed", function.name());
    }
}
