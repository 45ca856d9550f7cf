use tilewise::{kernel::FAMILIES, verify::cases};

use super::*;

/// A plain f32 evaluation passes every case, within bounds that prove something; so cases that claim to be exact are, in f32
/// too.
#[test]
fn a_plain_evaluation_passes() -> Result {
    for case in cases::all(Level::Quick, 1)? {
        case.graph.verify()?;
        let plain = Evaluation::<f32>::new(&case.graph, &case.inputs)?.into_outputs(&case.graph);
        let plain = plain.into_iter().map(|(name, value)| Ok((name, value.to_tensor()?)));
        let plain = plain.collect::<tilewise::Result<BTreeMap<_, _>>>()?;
        let expected = case.expected()?;
        expected.compare_named(&plain).map_err(|mismatch| format!("{case}: {mismatch}"))?;
        for (name, value, bound) in expected.results() {
            assert!(!bound.is_blunt(value), "{case}: the bound of {name} proves nothing: {bound:?}");
        }
    }
    Ok(())
}

/// One element that is off by a little more than a hundredth of the largest must be noticed in every case.
#[test]
fn a_small_mistake_does_not_pass() -> Result {
    for case in cases::all(Level::Quick, 1)? {
        let expected = case.expected()?;
        let right = reference::evaluate(&case.graph, &case.inputs)?;
        for (name, value, _) in expected.results() {
            let mut numbers = value.to_f64();
            let peak = numbers.iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.5, f64::max);
            let Some(last) = numbers.last_mut() else { continue };
            *last = match value.dtype() {
                DType::Bool => 1.0 - *last,
                DType::I32 | DType::U32 => {
                    if *last > 0.0 {
                        *last - 1.0
                    } else {
                        *last + 1.0
                    }
                }
                _ if !last.is_finite() => 0.0,
                _ => *last + 0.02 * peak,
            };
            let wrong = Value::Float { dtype: DType::F32, array: Array::new(value.shape(), numbers)? };
            let mut outputs = right.clone();
            outputs.insert(name.into(), reference::cast::<f64>(&wrong, value.dtype()).to_tensor()?);
            assert!(expected.compare_named(&outputs).is_err(), "{case}: {name}");
        }
    }
    Ok(())
}

#[test]
fn names_are_unique_and_a_seed_decides_everything() -> Result {
    for family in FAMILIES {
        for level in [Level::Quick, Level::Full] {
            let cases = cases::of_family(family, level, 1)?;
            let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{family}");
            assert!(cases.iter().all(|case| case.family == family));
        }
        // As text, since a NaN equals no other.
        let inputs = |seed| -> Result<Vec<String>> {
            let cases = cases::of_family(family, Level::Quick, seed)?;
            Ok(cases.into_iter().map(|case| format!("{:?}", case.inputs)).collect())
        };
        assert!(inputs(1)? == inputs(1)?);
        assert!(inputs(1)? != inputs(2)?);
    }
    assert!(cases::of_family("attentoin", Level::Quick, 1).is_err());
    Ok(())
}

/// The plain evaluation is near the reference, and not equal to it: they are two computations.
#[test]
fn the_two_arithmetics_are_near() -> Result {
    let a = Random::new(8).tensor(DType::F32, [40, 300], -1.0, 1.0)?;
    let op = Op::Matmul { transpose_a: false, transpose_b: true };
    let wide = reference::apply::<f64>(&op, &[&(&a).into(), &(&a).into()])?.remove(0);
    let plain = reference::apply::<f32>(&op, &[&(&a).into(), &(&a).into()])?.remove(0);
    let errors = wide.to_f64().into_iter().zip(plain.to_f64()).map(|(a, b)| (a - b).abs());
    let worst = errors.fold(0.0, f64::max);
    assert!(worst > 1e-7 && worst < 1e-4, "{worst}");
    let rounded = wide.to_tensor()?;
    reference::compare::Expected::of_op(&op, &[&a, &a], Check::measured())?.compare(&[rounded])?;
    Ok(())
}
