//! Small graphs with a NaN or an infinity in their inputs, and what is right, by everything that can run them. The cases of
//! `verify` have other sizes, dtypes and ways of hiding.

use std::{collections::BTreeMap, fs, path::Path};

use tilewise::{
    Graph, Tensor,
    kernel::FAMILIES,
    lower::Options,
    reference, safetensors,
    verify::cases::{self, Level},
};

use crate::common::{asks_of_what_is_not_finite, gpu};

/// The graphs of `tests/data/not_finite` by name, with their inputs and the values of their output.
fn graphs() -> Vec<(String, Graph, BTreeMap<String, Tensor>, Vec<f64>)> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/not_finite"));
    let names = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is read").file_name());
    let mut names: Vec<String> =
        names.filter_map(|name| name.to_string_lossy().strip_suffix(".expected.json").map(str::to_string)).collect();
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let text = |ending: &str| fs::read_to_string(folder.join(format!("{name}{ending}"))).expect("it is there");
            let graph = Graph::from_json(&text(".json")).expect("a graph");
            let inputs = safetensors::load(folder.join(format!("{name}.inputs.safetensors"))).expect("tensors");
            let expected: serde_json::Value = serde_json::from_str(&text(".expected.json")).expect("JSON");
            let values = expected["y"]["values"].as_array().expect("a list").iter();
            let values = values
                .map(|x| x.as_f64().unwrap_or_else(|| x.as_str().and_then(|x| x.parse().ok()).expect("a number")));
            let values = values.collect();
            (name, graph, inputs, values)
        })
        .collect()
}

fn compare(name: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let same = got == expected || (got.is_nan() && expected.is_nan());
        assert!(
            same || (got - expected).abs() <= 1e-5 + 1e-4 * expected.abs(),
            "{name}[{i}]: {got}, expected {expected}"
        );
    }
}

#[test]
fn the_reference_says_what_is_right() {
    for (name, graph, inputs, expected) in graphs() {
        let outputs = reference::evaluate(&graph, &inputs).expect("it runs");
        compare(&name, &outputs["y"].to_f64(), &expected);
    }
}

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
                let mut executable = gpu().load(&program, &[]).expect("it loads");
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

#[test]
fn every_family_that_can_meet_them_has_cases() {
    let of = |family: &str| {
        cases::of_family(family, Level::Quick, 1).expect("valid").into_iter().filter(|case| case.not_finite).count()
    };
    for family in ["argmax", "attention", "attention_merge", "matmul", "norm", "pointwise", "reduce", "softmax"] {
        assert!(FAMILIES.contains(&family) && of(family) > 0, "{family}");
    }
}
