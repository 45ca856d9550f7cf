//! The distribution that tokens are drawn from.

use tilewise::nn::generate::distribution;

use crate::common::generate::{LOGITS, by_definition};

#[test]
fn the_distribution_is_that_of_the_definition() {
    for temperature in [0.25, 1.0, 3.0] {
        for top_k in [None, Some(1), Some(4), Some(5), Some(99)] {
            for top_p in [None, Some(1e-9), Some(0.5), Some(0.9), Some(1.0)] {
                let found = distribution(&LOGITS, temperature, top_k, top_p);
                let expected = by_definition(
                    &LOGITS,
                    temperature.into(),
                    top_k.unwrap_or(8),
                    top_p.map_or(f64::INFINITY, f64::from),
                );
                let case = format!("temperature {temperature}, top_k {top_k:?}, top_p {top_p:?}");
                assert_eq!(found.len(), expected.iter().filter(|&&p| p > 0.0).count(), "{case}");
                for (id, p) in found {
                    assert!((p - expected[id as usize]).abs() < 1e-12, "{case}: id {id}: {p}");
                }
            }
        }
    }
    assert_eq!(distribution(&[], 1.0, None, None), []);
}
