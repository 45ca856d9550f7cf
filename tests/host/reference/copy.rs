//! The examples in the documentation of ONNX's operators, and some of our own.

use super::*;

#[test]
fn gather() -> Result {
    let data = array([3, 2], &[1.0, 1.2, 2.3, 3.4, 4.5, 5.7])?;
    let y = reference::gather(&data, &Array::new([2, 2], vec![0, 1, 1, 2])?, 0)?;
    assert_eq!(y.shape(), &[2, 2, 2].into());
    assert_eq!(y.data(), [1.0, 1.2, 2.3, 3.4, 2.3, 3.4, 4.5, 5.7]);
    let data = array([3, 3], &[1.0, 1.2, 1.9, 2.3, 3.4, 3.9, 4.5, 5.7, 5.9])?;
    let y = reference::gather(&data, &Array::new([1, 2], vec![0, 2])?, 1)?;
    assert_eq!(y.shape(), &[3, 1, 2].into());
    assert_eq!(y.data(), [1.0, 1.9, 2.3, 3.9, 4.5, 5.9]);
    // Ours: from the end, and clamped.
    let y = reference::gather(&data, &Array::new([4], vec![-1, -9, 9, i32::MIN])?, 0)?;
    assert_eq!(y.data(), [&data.data()[6..], &data.data()[..3], &data.data()[6..], &data.data()[..3]].concat());
    Ok(())
}

#[test]
fn pad() -> Result {
    let data = array([3, 2], &[1.0, 1.2, 2.3, 3.4, 4.5, 5.7])?;
    let y = reference::pad(&data, &[0, 2], &[0, 0], 0.0)?;
    assert_eq!(y.shape(), &[3, 4].into());
    assert_eq!(y.data(), [0.0, 0.0, 1.0, 1.2, 0.0, 0.0, 2.3, 3.4, 0.0, 0.0, 4.5, 5.7]);
    let y = reference::pad(&array([1, 1], &[7.0])?, &[1, 0], &[0, 2], -1.0)?;
    assert_eq!((y.shape(), y.data()), (&[2, 3].into(), &[-1.0, -1.0, -1.0, 7.0, -1.0, -1.0][..]));
    Ok(())
}

#[test]
fn slice() -> Result {
    let data = array([2, 4], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])?;
    assert_eq!(reference::slice(&data, &[1, 0], &[1, 2], &[1, 2])?.data(), [5.0, 7.0]);
    assert_eq!(reference::slice(&data, &[0, 1], &[1, 3], &[1, 1])?.data(), [2.0, 3.0, 4.0]);
    let backwards = reference::slice(&data, &[1, 3], &[2, 2], &[-1, -3])?;
    assert_eq!(backwards.data(), [8.0, 5.0, 4.0, 1.0]);
    Ok(())
}

#[test]
fn concat_permute_and_broadcast() -> Result {
    let (a, b) = (array([2, 2], &[1.0, 2.0, 3.0, 4.0])?, array([2, 1], &[5.0, 6.0])?);
    assert_eq!(reference::concat(&[&a, &b], 1)?.data(), [1.0, 2.0, 5.0, 3.0, 4.0, 6.0]);
    assert_eq!(reference::concat(&[&a, &a], 0)?.data(), [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(reference::broadcast(&b, &[2, 2, 3].into())?.data()[..6], [5.0, 5.0, 5.0, 6.0, 6.0, 6.0]);
    let x = array([2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    let turned = reference::permute(&x, &[2, 0, 1])?;
    assert_eq!((turned.shape(), turned.data()), (&[3, 2, 1].into(), &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0][..]));
    assert_eq!(reference::reshape(&x, &[6].into())?.data(), x.data());
    Ok(())
}

#[test]
fn append_by_hand() -> Result {
    let cache = array([2, 3], &[0.0; 6])?;
    let update = array([2, 2], &[1.0, 2.0, 3.0, 4.0])?;
    let at = |a, b| Array::new([2], vec![a, b]);
    let (grown, dropped) = reference::append(&cache, &update, &at(1, 2)?, 1, false)?;
    assert_eq!((grown.data(), dropped.data()), (&[0.0, 1.0, 2.0, 0.0, 0.0, 3.0][..], &[1][..]));
    let (grown, dropped) = reference::append(&cache, &update, &at(-1, 2)?, 1, true)?;
    assert_eq!((grown.data(), dropped.data()), (&[2.0, 0.0, 1.0, 4.0, 0.0, 3.0][..], &[0][..]));
    assert!(reference::append(&cache, &update, &at(0, 0)?, 0, false).is_err());
    assert!(reference::append(&cache, &update, &at(0, 0)?, 2, false).is_err());
    Ok(())
}

#[test]
fn rotary_by_hand() -> Result {
    let x = array([1, 1, 2, 5], &[1.0, 2.0, 3.0, 4.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0])?;
    // Row 0: no turn. Row 1: a quarter turn of the first pair, none of the second.
    let (cos, sin) = (array([2, 2], &[1.0, 1.0, 0.0, 1.0])?, array([2, 2], &[0.0, 0.0, 1.0, 0.0])?);
    let turned = |interleaved, positions: [i32; 2]| -> Result<Vec<f64>> {
        let positions = Array::new([1, 2], positions.to_vec())?;
        Ok(reference::rotary(&x, [&cos, &sin], &positions, interleaved)?.into_data())
    };
    assert_eq!(turned(false, [0, 1])?, [1.0, 2.0, 3.0, 4.0, 9.0, -3.0, 2.0, 1.0, 4.0, 9.0]);
    assert_eq!(turned(true, [-5, 7])?, [1.0, 2.0, 3.0, 4.0, 9.0, -2.0, 1.0, 3.0, 4.0, 9.0]);
    assert!(reference::rotary(&x, [&cos, &x], &Array::new([1, 2], vec![0, 0])?, false).is_err());
    Ok(())
}

/// Where there is nothing to take, or one element, starts and steps may be anything.
#[test]
fn steps_that_are_not_taken_do_not_count() {
    let x = Array::new([3, 4], (0..12).collect()).expect("fits");
    let none = reference::slice(&x, &[usize::MAX, 0], &[0, 4], &[isize::MAX, 1]).expect("nothing");
    assert_eq!((none.shape(), none.data()), (&[0, 4].into(), &[][..]));
    let one = reference::slice(&x, &[2, 3], &[1, 1], &[isize::MIN, isize::MAX]).expect("one");
    assert_eq!(one.data(), [11]);
}
