use super::*;

const LOWEST: f64 = f64::NEG_INFINITY;

#[test]
fn rows_sum_to_1_and_the_logarithm_agrees() -> Result {
    let x = random(&mut Random::new(4), [3, 5, 7])?.map(|x| 20.0 * x);
    for axis in 0..3 {
        let y = reference::softmax(&x, axis)?;
        let log = reference::log_softmax(&x, axis)?;
        near(log.map(f64::exp).data(), y.data(), 1e-13);
        let sums = reference::reduce(Reduce::Sum, &Value::Float { dtype: DType::F32, array: y }, &[axis], false)?;
        near(&sums.to_f64(), &vec![1.0; 105 / x.shape()[axis]], 1e-14);
    }
    Ok(())
}

#[test]
fn a_row_of_only_minus_infinity_gives_nothing() -> Result {
    let x = array([3, 2], &[LOWEST, LOWEST, LOWEST, 3.0, 1000.0, 1000.0])?;
    assert_eq!(reference::softmax(&x, 1)?.data(), [0.0, 0.0, 0.0, 1.0, 0.5, 0.5]);
    let log = reference::log_softmax(&x, 1)?;
    assert_eq!(log.data()[..4], [LOWEST, LOWEST, LOWEST, 0.0]);
    near(&log.data()[4..], &[-std::f64::consts::LN_2; 2], 1e-15);
    Ok(())
}
