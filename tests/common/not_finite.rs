//! Small graphs with a NaN or an infinity in their inputs, and what is right.

use std::{collections::BTreeMap, fs, path::Path};

use tilewise::{Graph, Tensor, safetensors};

/// A graph's name, the graph, its inputs, and the values of its output.
pub(crate) type Given = (String, Graph, BTreeMap<String, Tensor>, Vec<f64>);

/// The graphs of `tests/data/not_finite` by name, with their inputs and the values of their output.
pub(crate) fn graphs() -> Vec<Given> {
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

pub(crate) fn compare(name: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let same = got == expected || (got.is_nan() && expected.is_nan());
        assert!(
            same || (got - expected).abs() <= 1e-5 + 1e-4 * expected.abs(),
            "{name}[{i}]: {got}, expected {expected}"
        );
    }
}
