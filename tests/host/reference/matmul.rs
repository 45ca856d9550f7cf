use super::*;

#[test]
fn two_by_two_in_all_four_orders() -> Result {
    let (a, b) = (array([2, 2], &[1.0, 2.0, 3.0, 4.0])?, array([2, 2], &[5.0, 6.0, 7.0, 8.0])?);
    let product = |ta, tb| -> Result<Vec<f64>> { Ok(reference::matmul(&a, &b, ta, tb)?.into_data()) };
    assert_eq!(product(false, false)?, [19.0, 22.0, 43.0, 50.0]);
    assert_eq!(product(false, true)?, [17.0, 23.0, 39.0, 53.0]);
    assert_eq!(product(true, false)?, [26.0, 30.0, 38.0, 44.0]);
    assert_eq!(product(true, true)?, [23.0, 31.0, 34.0, 46.0]);
    Ok(())
}

/// Against i64 arithmetic, element by element, with batches that broadcast and transposed operands.
#[test]
fn integers_come_out_exactly() -> Result {
    let mut draw = Random::new(1);
    for _ in 0..50 {
        let [m, k, n] = [(); 3].map(|()| draw.size(0, 9));
        let (ta, tb) = (draw.one_in(2), draw.one_in(2));
        let a_shape = if ta { [3, 1, k, m] } else { [3, 1, m, k] };
        let b_shape = if tb { [2, n, k] } else { [2, k, n] };
        let a = draw.wholes(DType::F32, a_shape, -9, 9)?;
        let b = draw.wholes(DType::F32, b_shape, -9, 9)?;
        let op = Op::Matmul { transpose_a: ta, transpose_b: tb };
        let c = reference::apply::<f64>(&op, &[&wide(&a), &wide(&b)])?.remove(0);
        assert_eq!(c.shape(), &[3, 2, m, n].into());
        let (a, b, c) = (a.to_f64(), b.to_f64(), c.to_f64());
        for (item, i, j) in (0..6).flat_map(|item| (0..m * n).map(move |c| (item, c / n, c % n))) {
            let sum: i64 = (0..k)
                .map(|l| {
                    let a_at = if ta { l * m + i } else { i * k + l };
                    let b_at = if tb { j * k + l } else { l * n + j };
                    a[item / 2 * m * k + a_at] as i64 * b[item % 2 * k * n + b_at] as i64
                })
                .sum();
            assert_eq!(c[(item * m + i) * n + j], sum as f64);
        }
    }
    Ok(())
}

#[test]
fn vectors_are_rows_and_columns() -> Result {
    let (v, m) = (array([2], &[1.0, 10.0])?, array([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?);
    let dot = reference::matmul(&v, &v, false, false)?;
    assert_eq!((dot.shape(), dot.data()), (&Shape::default(), &[101.0][..]));
    let row = reference::matmul(&v, &m, false, false)?;
    assert_eq!((row.shape(), row.data()), (&[3].into(), &[41.0, 52.0, 63.0][..]));
    let column = reference::matmul(&m, &v, true, false)?;
    assert_eq!((column.shape(), column.data()), (&[3].into(), &[41.0, 52.0, 63.0][..]));
    assert_eq!(
        reference::matmul(&v, &v, true, false).map_err(|e| e.to_string()).err().as_deref(),
        Some("matmul: `a` has shape [2], expected rank 2 or more")
    );
    Ok(())
}
