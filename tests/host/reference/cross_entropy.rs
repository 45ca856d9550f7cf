use super::*;

const LOWEST: f64 = f64::NEG_INFINITY;

fn whole(data: &[i32]) -> Result<Array<i32>> {
    Ok(Array::new([data.len()], data.to_vec())?)
}

#[test]
fn it_is_the_logarithm_of_the_targets_softmax() -> Result {
    let x = random(&mut Random::new(4), [6, 7])?.map(|x| 20.0 * x);
    let logs = reference::log_softmax(&x, 1)?;
    let targets = [3, 0, 6, 2, 2, 5];
    let (loss, lse, weight) = reference::cross_entropy(&x, &whole(&targets)?, None, None, 0.0)?;
    let picked: Vec<f64> = (0..6).map(|row| -logs.data()[row * 7 + targets[row] as usize]).collect();
    near(loss.data(), &picked, 1e-13);
    let sums: Vec<f64> = x.data().chunks(7).map(|row| row.iter().map(|x| x.exp()).sum::<f64>().ln()).collect();
    near(lse.data(), &sums, 1e-13);
    assert_eq!(weight.data(), [1.0; 6]);
    Ok(())
}

/// `torch.nn.functional.cross_entropy(x, target, weight, label_smoothing=0.25, ignore_index=…, reduction="none")` by its formula:
/// labels of 0.75 + 0.25/2 and 0.25/2, each times the class's weight.
#[test]
fn smoothing_weights_and_what_is_ignored() -> Result {
    let x = array([4, 2], &[1.0, 3.0, 2.0, 2.0, 5.0, 1.0, 0.0, 9.0])?;
    let factors = array([2], &[0.5, 2.0])?;
    let (loss, _, weight) = reference::cross_entropy(&x, &whole(&[1, 0, 2, -7])?, Some(&factors), Some(-7), 0.25)?;
    let lse = (1f64.exp() + 3f64.exp()).ln();
    let expected = [
        0.75 * 2.0 * (lse - 3.0) + 0.125 * (0.5 * (lse - 1.0) + 2.0 * (lse - 3.0)),
        (0.75 * 0.5 + 0.125 * 2.5) * 2f64.ln(),
        0.0,
        0.0,
    ];
    near(loss.data(), &expected, 1e-14);
    assert_eq!(weight.data(), [2.0, 0.5, 0.0, 0.0]);
    Ok(())
}

#[test]
fn what_is_not_finite() -> Result {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let x = array([7, 2], &[LOWEST, 3.0, LOWEST, 3.0, LOWEST, LOWEST, LOWEST, LOWEST, nan, 1.0, inf, 1.0, nan, 1.0])?;
    let targets = whole(&[1, 0, 0, -1, 1, 1, -1])?;
    let run = |smoothing| reference::cross_entropy(&x, &targets, None, None, smoothing);
    let (loss, lse, weight) = run(0.0)?;
    assert_eq!(loss.data()[..4], [0.0, inf, inf, 0.0]);
    assert_eq!(lse.data()[..4], [3.0, 3.0, LOWEST, LOWEST]);
    assert_eq!(weight.data(), [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    // NaN in the logits of a row that is ignored is in its lse alone.
    assert!(loss.data()[4].is_nan() && loss.data()[5].is_nan() && loss.data()[6] == 0.0);
    assert!(lse.data()[4..].iter().all(|lse| lse.is_nan()));
    let (loss, ..) = run(0.1)?;
    assert_eq!(loss.data()[..4], [inf, inf, inf, 0.0]);
    Ok(())
}
