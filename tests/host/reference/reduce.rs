use super::*;

#[test]
fn over_any_axes() -> Result {
    let x = Tensor::new([2, 3, 2], (0..12).map(|i| i as f32).collect::<Vec<_>>())?;
    let of = |function, axes: &[usize], keep| -> Result<(Shape, Vec<f64>)> {
        let y = reference::reduce(function, &wide(&x), axes, keep)?;
        Ok((y.shape().clone(), y.to_f64()))
    };
    assert_eq!(of(Reduce::Sum, &[0, 2], false)?, ([3].into(), vec![14.0, 22.0, 30.0]));
    assert_eq!(of(Reduce::Mean, &[1], true)?, ([2, 1, 2].into(), vec![2.0, 3.0, 8.0, 9.0]));
    assert_eq!(of(Reduce::Max, &[0, 1, 2], false)?, (Shape::default(), vec![11.0]));
    assert_eq!(of(Reduce::Min, &[], false)?.1, wide(&x).to_f64());
    Ok(())
}

#[test]
fn over_nothing() -> Result {
    let expected = [
        (Reduce::Sum, DType::F32, 0.0),
        (Reduce::Mean, DType::F32, 0.0),
        (Reduce::Max, DType::F32, f64::NEG_INFINITY),
        (Reduce::Min, DType::F32, f64::INFINITY),
        (Reduce::Max, DType::I32, i32::MIN.into()),
        (Reduce::Min, DType::I32, i32::MAX.into()),
        (Reduce::Max, DType::U32, 0.0),
        (Reduce::Min, DType::U32, u32::MAX.into()),
    ];
    for (function, dtype, value) in expected {
        let x = Tensor::zeros(dtype, [2, 0])?;
        assert_eq!(reference::reduce(function, &wide(&x), &[1], false)?.to_f64(), [value; 2]);
    }
    Ok(())
}

#[test]
fn argmax_takes_the_first_or_the_last_of_equals() -> Result {
    let x = array([2, 4], &[1.0, 3.0, 3.0, 2.0, -1.0, -2.0, -1.0, -5.0])?;
    assert_eq!(reference::argmax(&x, 1, false, false)?.data(), [1, 0]);
    assert_eq!(reference::argmax(&x, 1, false, true)?.data(), [2, 2]);
    let columns = reference::argmax(&x, 0, true, false)?;
    assert_eq!((columns.shape(), columns.data()), (&[1, 4].into(), &[0, 0, 0, 0][..]));
    Ok(())
}
