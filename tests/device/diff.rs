//! `tilewise::diff` on the device: what a whole run gives is compared beside theirs.

use std::collections::BTreeMap;

use tilewise::{
    DType, Tensor,
    diff::{Diff, Model, Verdict},
    gpu::Parameters,
};

use crate::common::{
    diff::fixture::{MODEL, dump, found, given, plan},
    gpu,
};

/// The device's results stand in for the reference in the overall comparison.
#[test]
fn the_device_is_compared_overall() {
    let given = given();
    let (mut graph, padding) = Model::from_json(MODEL).expect("reads").graph(&given).expect("builds");
    let theirs = dump(&plan(), false);
    let names: Vec<String> = theirs.keys().filter(|name| graph.traced(name).is_some()).cloned().collect();
    let wanted = graph.clone();
    for name in &names {
        let value = graph.traced(name).expect("traced");
        graph.output(name.clone(), value).expect("new");
    }
    let (parameters, inputs): (Vec<_>, Vec<_>) = given
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .partition(|(name, _)| graph.parameters().any(|(parameter, _)| parameter == *name));
    let mut program = gpu().compile(&graph, Parameters::from(&parameters[..])).expect("compiles");
    let mut device: BTreeMap<String, Tensor> = program.run(&inputs).expect("runs");
    let run = |device: &BTreeMap<String, Tensor>| {
        let diff = Diff { padding: &padding, device: Some(device), ..Diff::new(&wanted, &given, &theirs) };
        diff.run().expect("runs")
    };
    assert_eq!(found(&run(&device)), [""; 0]);
    // A device that is wrong: theirs is right by itself, and off from what it gave.
    let zeros = Tensor::zeros(DType::F32, [2, 5, 12]).expect("fits");
    device.insert("norm1".into(), zeros);
    let report = run(&device);
    let norm = report.points.iter().find(|point| point.name == "norm1").expect("compared");
    assert_eq!(norm.verdict, Verdict::Inherits);
}
