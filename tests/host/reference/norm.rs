use super::*;

#[test]
fn layer_norm_by_hand() -> Result {
    // mean 2, variance 2/3
    let x = array([1, 3], &[1.0, 2.0, 3.0])?;
    let (w, b) = (array([3], &[1.0, 1.0, 2.0])?, array([1], &[10.0])?);
    let (y, mean, rstd) = reference::layer_norm(&x, Some(&w), Some(&b), 1, 0.0)?;
    let s = 1.5f64.sqrt();
    near(y.data(), &[10.0 - s, 10.0, 10.0 + 2.0 * s], 1e-15);
    assert_eq!((mean.shape(), mean.data()), (&[1].into(), &[2.0][..]));
    near(rstd.data(), &[s], 1e-15);
    let (y, rstd) = reference::rms_norm(&array([2], &[3.0, 4.0])?, Some(&array([2], &[1.0, 2.0])?), 1, 0.0)?;
    near(y.data(), &[3.0 / 12.5f64.sqrt(), 8.0 / 12.5f64.sqrt()], 1e-15);
    assert_eq!(rstd.shape(), &Shape::default());
    Ok(())
}

#[test]
fn the_result_has_mean_0_and_variance_1() -> Result {
    let x = random(&mut Random::new(2), [5, 3, 7])?;
    for axes in 1..=3 {
        let (y, _, _) = reference::layer_norm(&x, None, None, axes, 0.0)?;
        let n: usize = x.shape()[3 - axes..].iter().product();
        for row in y.data().chunks(n) {
            let mean = row.iter().sum::<f64>() / n as f64;
            let variance = row.iter().map(|y| y * y).sum::<f64>() / n as f64;
            assert!(mean.abs() < 1e-14 && (variance - 1.0).abs() < 1e-13, "{mean} {variance}");
        }
    }
    Ok(())
}

/// A shift of the input changes nothing, a factor nothing but with ε.
#[test]
fn shift_and_scale_are_taken_off() -> Result {
    let x = random(&mut Random::new(3), [4, 9])?;
    let (y, mean, _) = reference::layer_norm(&x, None, None, 1, 0.0)?;
    let (z, moved, _) = reference::layer_norm(&x.map(|x| 8.0 * x + 64.0), None, None, 1, 0.0)?;
    near(z.data(), y.data(), 1e-11);
    near(moved.data(), mean.map(|m| 8.0 * m + 64.0).data(), 1e-14);
    Ok(())
}
