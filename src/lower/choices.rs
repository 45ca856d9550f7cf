use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::Problem;

/// Which variant is the fastest for which problem, as was measured on a device; see [`tune`](crate::tune).
///
/// Problems of about one size share an entry: every size above 8 counts as the next power of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Choices {
    variants: BTreeMap<String, String>,
}

impl Choices {
    /// What stands for a problem and those near it.
    pub fn key(problem: &dyn Problem) -> String {
        format!("{} {}", problem.family(), bucketed(&problem.tuning()))
    }

    /// The variant for the problems of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.variants.get(key).map(String::as_str)
    }

    /// Sets the variant for the problems of a key.
    pub fn insert(&mut self, key: impl Into<String>, variant: impl Into<String>) {
        self.variants.insert(key.into(), variant.into());
    }

    /// Forgets what was measured for the problems of a key.
    pub fn remove(&mut self, key: &str) {
        self.variants.remove(key);
    }

    /// Keys and variants, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variants.iter().map(|(key, variant)| (key.as_str(), variant.as_str()))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.variants.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.variants.is_empty()
    }
}

/// The text with each number above 8 as the next power of two; names such as `f32` stay as they are.
fn bucketed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[start..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| start + n);
        let (before, number) = (&rest[..start], &rest[start..digits]);
        out += before;
        match number.parse::<u64>() {
            // A dtype's name.
            Ok(_) if before.ends_with(|c: char| c.is_ascii_lowercase()) => out += number,
            Ok(n) if n > 8 => out += &n.checked_next_power_of_two().unwrap_or(n).to_string(),
            _ => out += number,
        }
        rest = &rest[digits..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::bucketed;

    #[test]
    fn sizes_above_eight_fall_into_powers_of_two() {
        assert_eq!(bucketed("M=1 N=1000 K=64 +bias"), "M=1 N=1024 K=64 +bias");
        assert_eq!(bucketed("M=9 N=8 K=65"), "M=16 N=8 K=128");
        assert_eq!(bucketed("sum f32 [300, 7] axes=[1]"), "sum f32 [512, 7] axes=[1]");
        assert_eq!(bucketed("bf16"), "bf16");
        assert_eq!(bucketed("99999999999999999999"), "99999999999999999999");
        assert_eq!(bucketed(""), "");
    }
}
