//! Names that were probably meant.

use std::collections::BTreeSet;

/// The `most` names that are nearest to `name`, nearest first; none if nothing is near.
pub(super) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let mut scored: Vec<(usize, &str)> = names
        .into_iter()
        .map(|other| (distance(name, other), other))
        .filter(|(far, other)| *far <= name.len().max(other.len()).div_ceil(2))
        .collect();
    scored.sort_unstable();
    scored.dedup();
    scored.into_iter().take(most).map(|(_, other)| other).collect()
}

/// `; near: a, b`, or nothing.
pub(super) fn hint<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let near = nearest(name, names, 3);
    if near.is_empty() { String::new() } else { format!("; near: {}", quoted(near)) }
}

/// `` `a`, `b`, … and 7 more ``
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MOST: usize = 40;
    let names: Vec<&str> = names.into_iter().collect();
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > MOST { format!(" and {} more", names.len() - MOST) } else { String::new() };
    if shown.is_empty() { "nothing".into() } else { shown.join(", ") + &more }
}

/// Insertions, deletions and substitutions of characters (Levenshtein), but a component of the path that only one of the
/// two has counts once: `model.layers.0.norm1` is near `layers.0.norm1`.
fn distance(a: &str, b: &str) -> usize {
    let parts = |text: &str| text.split('.').map(String::from).collect::<BTreeSet<String>>();
    let (x, y) = (parts(a), parts(b));
    let (only_x, only_y): (Vec<_>, Vec<_>) = (x.difference(&y).collect(), y.difference(&x).collect());
    if only_x.is_empty() || only_y.is_empty() {
        return only_x.len() + only_y.len();
    }
    letters(a, b)
}

fn letters(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["layers.0.norm1", "layers.0.norm2", "layers.1.self_attn", "memory"];
        assert_eq!(nearest("layers.0.nrom1", names, 2), ["layers.0.norm1", "layers.0.norm2"]);
        assert_eq!(nearest("model.layers.0.norm1", names, 1), ["layers.0.norm1"]);
        assert_eq!(nearest("memroy", names, 3), ["memory"]);
        assert!(nearest("tgt", names, 3).is_empty());
        assert_eq!((letters("kitten", "sitting"), letters("", "abc"), letters("abc", "abc")), (3, 3, 0));
    }
}
