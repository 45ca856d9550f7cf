//! What is not finite, by the reference.

use tilewise::{kernel::FAMILIES, verify::cases};

use super::*;
use crate::common::not_finite::{compare, graphs};

#[test]
fn graphs_say_what_is_right() {
    for (name, graph, inputs, expected) in graphs() {
        let outputs = reference::evaluate(&graph, &inputs).expect("it runs");
        compare(&name, &outputs["y"].to_f64(), &expected);
    }
}

#[test]
fn every_family_that_can_meet_them_has_cases() {
    let of = |family: &str| {
        cases::of_family(family, Level::Quick, 1).expect("valid").into_iter().filter(|case| case.not_finite).count()
    };
    let families =
        ["argmax", "attention", "attention_merge", "cross_entropy", "matmul", "norm", "pointwise", "reduce", "softmax"];
    for family in families {
        assert!(FAMILIES.contains(&family) && of(family) > 0, "{family}");
    }
}

/// Every way to be hidden, and to be seen.
#[test]
fn attention_keeps_what_is_seen_from_nobody_else() -> Result {
    let (nan, inf, lowest) = (f64::NAN, f64::INFINITY, f64::from(f32::MIN));
    let q = array([1, 1, 2, 1], &[1.0, 1.0])?;
    let run = |k: [f64; 2], v: [f64; 2], mask: [bool; 4]| -> Result<(Vec<f64>, Vec<f64>)> {
        let (k, v) = (array([1, 1, 2, 1], &k)?, array([1, 1, 2, 1], &v)?);
        let options = Attention { operands: vec![AttentionOperand::Mask], ..Attention::default() };
        let mask = Value::Bool(Array::new([2, 2], mask.to_vec())?);
        let (out, lse, _) = reference::attention::<f64>(&options, &q, &k, &v, &[&mask])?;
        Ok((out.into_data(), lse.into_data()))
    };
    let first_alone = [true, false, true, true];
    let (out, lse) = run([0.0, nan], [3.0, 4.0], first_alone)?;
    assert_eq!((out[0], lse[0]), (3.0, 0.0));
    assert!(out[1].is_nan() && lse[1].is_nan());
    let (out, lse) = run([0.0, 0.0], [3.0, nan], first_alone)?;
    assert_eq!((out[0], lse[0], lse[1]), (3.0, 0.0, 2f64.ln()));
    assert!(out[1].is_nan());
    let (out, lse) = run([0.0, inf], [3.0, 4.0], first_alone)?;
    assert_eq!((out[0], lse[0]), (3.0, 0.0));
    assert!(out[1].is_nan() && lse[1].is_nan());
    // A score of −∞ weighs nothing beside others, and is all that a row has without them; a row without scores has none.
    let (out, lse) = run([-inf, 0.0], [3.0, 4.0], first_alone)?;
    assert!(out[0].is_nan() && lse[0].is_nan());
    assert_eq!((out[1], lse[1]), (4.0, 0.0));
    let (out, lse) = run([nan, nan], [nan, nan], [false; 4])?;
    assert_eq!((out, lse), (vec![0.0; 2], vec![lowest; 2]));
    // The lowest score is no row that sees nothing.
    let (out, lse) = run([lowest, lowest], [3.0, 4.0], [true; 4])?;
    assert_eq!((out, lse), (vec![3.5; 2], vec![f64::from(f32::MIN.next_up()); 2]));
    Ok(())
}

#[test]
fn parts_that_saw_the_lowest_scores_count() -> Result {
    let outs = array([3, 1], &[9.0, 2.0, 4.0])?;
    let merged = |lses: [f64; 3]| -> Result<(f64, f64)> {
        let (out, lse) = reference::attention_merge::<f64>(&outs, &array([3], &lses)?)?;
        Ok((out.data()[0], lse.data()[0]))
    };
    let (nothing, above) = (f64::from(f32::MIN), f64::from(f32::MIN.next_up()));
    assert_eq!(merged([nothing, above, above])?, (3.0, above));
    assert_eq!(merged([f64::NEG_INFINITY, nothing, 1.0])?, (4.0, 1.0));
    assert_eq!(merged([nothing; 3])?, (0.0, nothing));
    let (out, lse) = merged([nothing, f64::NAN, 1.0])?;
    assert!(out.is_nan() && lse.is_nan());
    Ok(())
}

#[test]
fn an_argmax_is_a_place_and_a_nan_is_the_largest() -> Result {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let place = |x: [f64; 4], last: bool| -> Result<i32> {
        Ok(reference::argmax(&array([1, 4], &x)?, 1, false, last)?.data()[0])
    };
    for (x, first, last) in [
        ([nan, 1.0, nan, 2.0], 0, 2),
        ([1.0, inf, -nan, inf], 2, 2),
        ([nan; 4], 0, 3),
        ([-inf; 4], 0, 3),
        ([-0.0, 0.0, -1.0, 0.0], 0, 3),
    ] {
        assert_eq!((place(x, false)?, place(x, true)?), (first, last), "{x:?}");
    }
    Ok(())
}

#[test]
fn reductions_softmax_and_functions_keep_a_nan() -> Result {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let value =
        |x: &[f64]| -> Result<Value<f64>> { Ok(Value::Float { dtype: DType::F32, array: array([1, x.len()], x)? }) };
    for function in Reduce::ALL {
        for x in [[nan, 1.0, 2.0], [1.0, nan, 2.0], [1.0, 2.0, nan]] {
            assert!(reference::reduce(function, &value(&x)?, &[1], false)?.to_f64()[0].is_nan(), "{function:?} {x:?}");
        }
    }
    assert_eq!(reference::reduce(Reduce::Max, &value(&[-inf, inf])?, &[1], false)?.to_f64(), [inf]);
    for x in [[nan, 1.0, -inf], [inf, 1.0, -inf], [-inf, -inf, nan]] {
        let x = array([1, 3], &x)?;
        assert!(reference::softmax(&x, 1)?.data().iter().all(|y| y.is_nan()));
        assert!(reference::log_softmax(&x, 1)?.data().iter().all(|y| y.is_nan()));
    }
    for function in Unary::ALL.into_iter().filter(|function| *function != Unary::Not) {
        assert!(reference::unary_float(function, nan).is_nan(), "{function:?}");
    }
    for function in [Binary::Max, Binary::Min] {
        for (a, b) in [(nan, 1.0), (1.0, nan)] {
            assert!(reference::binary(function, &value(&[a])?, &value(&[b])?)?.to_f64()[0].is_nan(), "{function:?}");
        }
    }
    // As `Op::Cast` says.
    for (to, expected) in [
        (DType::I32, [0.0, f64::from(i32::MAX), f64::from(i32::MIN)]),
        (DType::U32, [0.0, f64::from(u32::MAX), 0.0]),
        (DType::Bool, [1.0; 3]),
    ] {
        assert_eq!(reference::cast(&value(&[nan, inf, -inf])?, to).to_f64(), expected, "{to}");
    }
    for to in [DType::F16, DType::BF16] {
        let y = reference::cast(&value(&[nan, inf, -inf, 3.4e38])?, to).to_f64();
        assert!(y[0].is_nan() && y[1..3] == [inf, -inf], "{to}: {y:?}");
    }
    Ok(())
}
