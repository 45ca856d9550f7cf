//! Small graphs with a NaN or an infinity in their inputs, and what is right, by every variant. The cases of `verify` have other
//! sizes, dtypes and ways of hiding.

use std::collections::BTreeMap;

use tilewise::{Tensor, lower::Options};

use crate::common::{
    asks_of_what_is_not_finite, gpu,
    not_finite::{compare, graphs},
};

#[test]
fn every_variant_says_what_is_right() {
    if !asks_of_what_is_not_finite("every_variant_says_what_is_right") {
        return;
    }
    let mut variants = BTreeMap::<&str, usize>::new();
    for (name, graph, inputs, expected) in graphs() {
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let chosen = gpu().lower(&graph, &Options::default()).expect("it lowers");
        for step in &chosen.steps {
            for candidate in step.candidates.iter().filter(|candidate| candidate.is_usable()) {
                let options = Options::default().force(step.family, candidate.variant);
                let program = gpu().lower(&graph, &options).expect("it is usable");
                let mut executable = gpu().load(&program, []).expect("it loads");
                let outputs = executable.run(&inputs).expect("it runs");
                let got = outputs.into_iter().find(|(name, _)| name == "y").expect("there is one").1;
                compare(&format!("{name}, {} {}", step.family, candidate.variant), &got.to_f64(), &expected);
                *variants.entry(step.family).or_default() += 1;
            }
        }
    }
    println!("{variants:?}");
    // Three graphs of attention, and at least plain, tiled and split_kv take each.
    assert!(variants["attention"] >= 9 && variants["softmax"] >= 4 && variants["argmax"] >= 2, "{variants:?}");
}
