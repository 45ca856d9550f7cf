//! How far two values are apart, what is natural, and where they differ.

use std::collections::BTreeSet;

use crate::{DType, Shape};

/// |a − b|; nothing is near NaN but NaN, or near an infinity but itself.
pub(super) fn distance(a: f64, b: f64) -> f64 {
    let apart = (a - b).abs();
    if a == b || (a.is_nan() && b.is_nan()) {
        0.0
    } else if apart.is_nan() {
        f64::INFINITY
    } else {
        apart
    }
}

/// The largest distance of elements that count.
pub(super) fn largest(theirs: &[f64], ours: &[f64], counts: impl Fn(usize) -> bool) -> f64 {
    let pairs = theirs.iter().zip(ours).enumerate().filter(|(i, _)| counts(*i));
    pairs.map(|(_, (&a, &b))| distance(a, b)).fold(0.0, f64::max)
}

/// The largest magnitude among finite elements.
pub(super) fn peak(x: &[f64]) -> f64 {
    x.iter().filter(|x| x.is_finite()).fold(0.0, |most, x| x.abs().max(most))
}

/// Half the spacing of a dtype at 1.
pub(super) fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-24),
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        DType::I32 | DType::U32 | DType::Bool => 0.0,
    }
}

/// What is natural, relative to the peak: `√depth · (16·u + 4·√K · u₃₂)`, for `depth` operations behind one another whose
/// longest sum of products has K terms. Sums are f32 whatever is stored.
pub(super) fn natural(unit_of_theirs: f64, (depth, sum): (usize, usize)) -> f64 {
    let sums = 4.0 * (sum as f64).sqrt() * unit(DType::F32);
    (depth.max(1) as f64).sqrt() * (16.0 * unit_of_theirs + sums)
}

/// The index of an element in its tensor.
pub(super) fn index_of(mut place: usize, shape: &Shape) -> Vec<usize> {
    let mut index = vec![0; shape.rank()];
    for axis in (0..shape.rank()).rev() {
        (index[axis], place) = (place % shape[axis], place / shape[axis]);
    }
    index
}

/// What the axes of a value are called.
fn axes(shape: &Shape, batch_first: bool, scores: bool) -> Vec<&'static str> {
    match (shape.rank(), batch_first, scores) {
        (4, _, true) => vec!["item", "head", "query", "key"],
        (4, ..) => vec!["item", "head", "position", "feature"],
        (3, true, _) => vec!["item", "position", "feature"],
        (3, false, _) => vec!["position", "item", "feature"],
        (2, ..) => vec!["position", "feature"],
        (1, ..) => vec!["feature"],
        (rank, ..) => vec!["index"; rank],
    }
}

/// Which items, heads, positions and features hold the wrong elements; nothing about an axis that is wrong all over.
pub(super) fn places(shape: &Shape, wrong: &[bool], batch_first: bool, scores: bool) -> Vec<String> {
    let mut touched = vec![BTreeSet::new(); shape.rank()];
    for (place, _) in wrong.iter().enumerate().filter(|(_, wrong)| **wrong) {
        for (set, index) in touched.iter_mut().zip(index_of(place, shape)) {
            set.insert(index);
        }
    }
    let axes = axes(shape, batch_first, scores);
    let part = |axis: usize| touched[axis].len() < shape[axis];
    (0..shape.rank()).filter(|&axis| part(axis)).map(|axis| some(axes[axis], &touched[axis], shape[axis])).collect()
}

/// `only positions 5 to 8`, `only item 1`, `only heads 0, 2`.
fn some(axis: &str, indices: &BTreeSet<usize>, size: usize) -> String {
    let plural = if axis == "query" { "queries".to_string() } else { format!("{axis}s") };
    match (indices.first(), indices.last()) {
        (Some(first), Some(last)) if first == last => format!("only {axis} {first} of {size}"),
        (Some(first), Some(last)) if last - first + 1 == indices.len() => {
            format!("only {plural} {first} to {last} of {size}")
        }
        _ => {
            let shown: Vec<String> = indices.iter().take(8).map(usize::to_string).collect();
            let more = if indices.len() > 8 { ", …" } else { "" };
            format!("only {plural} {}{more} ({} of {size})", shown.join(", "), indices.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_near_nan_or_an_infinity() {
        assert_eq!(distance(f64::NAN, f64::NAN), 0.0);
        assert_eq!(distance(f64::NEG_INFINITY, f64::NEG_INFINITY), 0.0);
        for (a, b) in [(f64::NAN, 1.0), (1.0, f64::NAN), (f64::INFINITY, 1.0), (f64::INFINITY, f64::NEG_INFINITY)] {
            assert_eq!(distance(a, b), f64::INFINITY);
        }
        assert_eq!(distance(1.0, 3.0), 2.0);
    }

    #[test]
    fn places_name_what_is_wrong_and_nothing_else() {
        let shape = Shape::from([2, 4, 3]);
        let wrong = |f: fn(Vec<usize>) -> bool| (0..24).map(|p| f(index_of(p, &shape))).collect::<Vec<_>>();
        assert_eq!(places(&shape, &wrong(|at| at[1] >= 2), true, false), ["only positions 2 to 3 of 4"]);
        assert_eq!(
            places(&shape, &wrong(|at| at[0] == 1 && at[1] % 2 == 0), true, false),
            ["only item 1 of 2", "only positions 0, 2 (2 of 4)"]
        );
        assert!(places(&shape, &wrong(|_| true), true, false).is_empty());
        assert_eq!(places(&shape, &wrong(|at| at[0] == 3 % 2), false, false), ["only position 1 of 2"]);
    }
}
