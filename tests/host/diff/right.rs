//! What is right passes: exactly, in f16, and under the noise that a tolerance allows for.

use tilewise::{
    DType, Data, Tensor,
    diff::{Diff, Model, Verdict},
};

use crate::common::diff::{
    fixture::{MODEL, brief, dump, found, given, plan, run},
    theirs::{Tensors, f32s, random},
};

/// The same numbers in f16.
fn halved(tensor: &Tensor) -> Tensor {
    let data: Data = tensor.to_f64().into_iter().map(half::f16::from_f64).collect::<Vec<_>>().into();
    Tensor::new(tensor.shape(), data).expect("fits")
}

#[test]
fn a_right_dump_has_no_departure() {
    let report = run(MODEL, &given(), &dump(&plan(), true));
    assert!(
        report.points.iter().all(|point| matches!(point.verdict, Verdict::Agrees | Verdict::Padding)),
        "{}",
        brief(&report)
    );
    assert_eq!((report.points.len(), found(&report), report.dtype), (22, Vec::new(), DType::F32));
    assert!(report.unknown.is_empty());
    assert_eq!(report.missing, [""; 0]);
    // What is natural is far more than what is there, and far less than a mistake.
    for point in &report.points {
        let alone = point.alone.expect("compared");
        assert!(alone.relative() < 2e-7 && alone.allowed / alone.peak < 3e-5, "{point:?}");
    }
}

#[test]
fn halves_pass_by_their_dtype_and_noise_by_a_tolerance() {
    let right = dump(&plan(), false);
    let halves: Tensors = right.iter().map(|(name, tensor)| (name.clone(), halved(tensor))).collect();
    let report = run(MODEL, &given(), &halves);
    assert_eq!((found(&report), report.dtype), (Vec::new(), DType::F16));
    // The same numbers as f32 are too noisy for f32, and pass with a tolerance.
    let noisy: Tensors =
        halves.iter().map(|(name, tensor)| (name.clone(), f32s(tensor.shape(), &tensor.to_f64()))).collect();
    assert!(!found(&run(MODEL, &given(), &noisy)).is_empty());
    let (given, model) = (given(), Model::from_json(MODEL).expect("reads"));
    let (graph, padding) = model.graph(&given).expect("builds");
    let diff = Diff { padding: &padding, tolerance: Some(5e-3), ..Diff::new(&graph, &given, &noisy) };
    assert_eq!(found(&diff.run().expect("runs")), [""; 0]);
    // A mistake is still named among halves.
    let mut theirs = plan();
    theirs.own.scale = Some(1.0);
    let halves: Tensors = dump(&theirs, false).iter().map(|(name, tensor)| (name.clone(), halved(tensor))).collect();
    assert_eq!(found(&run(MODEL, &given, &halves)), ["self_attn: not scaled"]);
}

/// What no hypothesis explains is described.
#[test]
fn a_departure_without_a_name_is_described() {
    let mut theirs = dump(&plan(), false);
    let mut x = theirs["linear1"].to_f64();
    for (at, value) in x.iter_mut().enumerate() {
        if at / 20 % 5 >= 2 && at / 100 == 0 {
            *value += random("noise", &[x_len()], 1.0).to_f64()[at];
        }
    }
    theirs.insert("linear1".into(), f32s(&[2, 5, 20], &x));
    let report = run(MODEL, &given(), &theirs);
    assert_eq!(found(&report), ["linear1: ?", "dropout: ?"], "{}", brief(&report));
    let finding = report.first_departure().and_then(|point| point.finding.as_ref()).expect("investigated");
    assert_eq!(finding.places, ["only item 0 of 2", "only positions 2 to 4 of 5"]);
    assert_eq!((finding.wrong, finding.elements), (60, 200));
    assert!(finding.tested > 10 && finding.fits.is_empty(), "{finding:?}");
}

fn x_len() -> usize {
    2 * 5 * 20
}
