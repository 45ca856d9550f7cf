//! What the numbers themselves say: dropout, factors, axes in another order.

use crate::diff::measure::{distance, largest, peak};

/// Their value and ours, and what is left where theirs is the sum of a value and something else.
pub(crate) struct Numbers<'a> {
    pub(crate) shape: &'a [usize],
    pub(crate) theirs: &'a [f64],
    pub(crate) ours: &'a [f64],
    /// If the value is a sum: its operands, as computed here.
    pub(crate) operands: Option<[Vec<f64>; 2]>,
    pub(crate) allowed: f64,
}

/// A name, a hint and the error that is left.
pub(crate) type Said = (String, String, f64);

/// Whether their numbers are ours after a dropout.
pub(crate) fn by_numbers(n: &Numbers<'_>) -> Vec<Said> {
    let mut said = Vec::new();
    said.extend(dropout(n.theirs, n.ours, n.allowed));
    if let Some([x, y]) = &n.operands {
        for (kept, dropped) in [(x, y), (y, x)] {
            let rest: Vec<f64> = n.theirs.iter().zip(kept).map(|(a, b)| a - b).collect();
            said.extend(dropout(&rest, dropped, n.allowed));
        }
    }
    said
}

/// What is left to say if nothing else explains them.
pub(crate) fn plainly(n: &Numbers<'_>) -> Vec<Said> {
    factor(n).into_iter().chain(axes(n)).collect()
}

/// Each element is 0 or ours times one factor > 1.
fn dropout(theirs: &[f64], ours: &[f64], allowed: f64) -> Option<Said> {
    // Elements that are clearly not 0.
    let clear: Vec<(f64, f64)> = theirs
        .iter()
        .copied()
        .zip(ours.iter().copied())
        .filter(|(_, x)| x.abs() > 1e3 * allowed.min(peak(ours) * 1e-4))
        .collect();
    let kept: Vec<f64> = clear.iter().filter(|(y, _)| y.abs() > allowed).map(|(y, x)| y / x).collect();
    let dropped = clear.len() - kept.len();
    if kept.len() < 4 || dropped == 0 {
        return None;
    }
    let mut sorted = kept.clone();
    sorted.sort_by(f64::total_cmp);
    let factor = sorted[sorted.len() / 2];
    if factor <= 1.0 {
        return None;
    }
    let error = theirs
        .iter()
        .zip(ours)
        .map(|(&y, &x)| distance(y, x * factor).min(if y.abs() <= allowed { 0.0 } else { f64::INFINITY }))
        .fold(0.0, f64::max);
    let (share, of) = (dropped as f64 / clear.len() as f64, 1.0 - 1.0 / factor);
    // A share that chance gives: within four standard deviations of p.
    let spread = 4.0 * (of * (1.0 - of) / clear.len() as f64).sqrt();
    let likely = (share - of).abs() <= spread.max(0.02);
    (error <= factor * allowed && likely).then(|| {
        let name = "dropout still on".to_string();
        let hint = format!(
            "{:.0} % of the elements are 0 and the others {factor:.3} times ours (p ≈ {of:.2}): call model.eval()",
            share * 100.0
        );
        (name, hint, error)
    })
}

/// Theirs is ours times a number.
fn factor(n: &Numbers<'_>) -> Option<Said> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let c = dot(n.theirs, n.ours) / dot(n.ours, n.ours);
    if !c.is_finite() || c == 0.0 || n.ours.len() < 2 {
        return None;
    }
    let scaled: Vec<f64> = n.ours.iter().map(|x| x * c).collect();
    let error = largest(n.theirs, &scaled, |_| true);
    let close = error <= n.allowed * c.abs().max(1.0) && (c - 1.0).abs() * peak(n.ours) > 4.0 * error;
    let width = n.shape.last().copied().unwrap_or(1) as f64;
    let root = [(width.sqrt(), "√E"), (1.0 / width.sqrt(), "1/√E")].into_iter().find(|(r, _)| (r - c).abs() < 1e-3 * r);
    let named = root.map_or_else(String::new, |(_, name)| format!(" ({name}, E = {width})"));
    close.then(|| (format!("ours times {c:.4}{named}"), "a constant factor is missing or too many".into(), error))
}

/// Theirs with two axes swapped.
fn axes(n: &Numbers<'_>) -> Option<Said> {
    let rank = n.shape.len();
    if n.theirs.len() != n.ours.len() {
        return None;
    }
    (0..rank).flat_map(|a| (a + 1..rank).map(move |b| (a, b))).find_map(|(a, b)| {
        let turned = swapped(n.theirs, n.shape, a, b)?;
        let error = largest(&turned, n.ours, |_| true);
        let hint =
            "the numbers are right, but in another order: check batch_first, and what was transposed before the dump";
        (error <= n.allowed).then(|| (format!("axes {a} and {b} swapped"), hint.to_string(), error))
    })
}

/// `[…, n, …, n, …]` with axes `a` and `b` of one size swapped.
fn swapped(x: &[f64], shape: &[usize], a: usize, b: usize) -> Option<Vec<f64>> {
    if shape[a] != shape[b] || shape[a] < 2 {
        return None;
    }
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let (sa, sb) = (stride(a), stride(b));
    Some(
        (0..x.len())
            .map(|at| {
                let (i, j) = (at / sa % shape[a], at / sb % shape[b]);
                x[at - i * sa - j * sb + j * sa + i * sb]
            })
            .collect(),
    )
}

/// Whether a tensor of `theirs` holds `ours` with two axes swapped, where the sizes say so.
pub(crate) fn transposed_shape(theirs: &[usize], ours: &[usize]) -> Option<(usize, usize)> {
    let rank = ours.len();
    if theirs.len() != rank || theirs == ours {
        return None;
    }
    (0..rank).flat_map(|a| (a + 1..rank).map(move |b| (a, b))).find(|&(a, b)| {
        let mut turned = ours.to_vec();
        turned.swap(a, b);
        turned == theirs
    })
}
