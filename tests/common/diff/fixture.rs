//! A decoder layer with masks on both attentions, whose sizes all differ.

use tilewise::{
    Tensor,
    diff::{Diff, Model, Report, Verdict},
};

use super::theirs::{Attention, Linear, Norm, Plan, Residual, Rows, Tensors, decoder_layer, random, relu, weights};

pub(crate) const MODEL: &str = r#"{"model": "decoder_layer", "width": 12, "heads": 3, "hidden": 20, "causal": true}"#;
const LENGTHS: [usize; 2] = [5, 4];
const MEMORY_LENGTHS: [usize; 2] = [7, 4];

pub(crate) fn i32s(values: &[usize]) -> Tensor {
    Tensor::new([values.len()], values.iter().map(|&x| x as i32).collect::<Vec<_>>()).expect("fits")
}

/// A decoder layer done right.
pub(crate) fn plan() -> Plan {
    Plan {
        own: Attention::new(3, |b, i, j| j <= i && j < LENGTHS[b]),
        cross: Attention::new(3, |b, _, j| j < MEMORY_LENGTHS[b]),
        norms: [Norm::new(); 3],
        linear1: Linear::default(),
        linear2: Linear::default(),
        activation: relu,
        norm_first: false,
        residuals: [Residual::Right; 3],
        memory_is_target: false,
        dropout: 0.0,
        norm2: "norm2.",
    }
}

/// Inputs of the layer, and its weights.
pub(crate) fn given() -> Tensors {
    let mut all = weights("", 12, 20, true);
    all.insert("tgt".into(), random("tgt", &[2, 5, 12], 1.5));
    all.insert("memory".into(), random("memory", &[2, 7, 12], 1.5));
    all.insert("tgt_lengths".into(), i32s(&LENGTHS));
    all.insert("memory_lengths".into(), i32s(&MEMORY_LENGTHS));
    all
}

/// What a plan gives, module by module.
pub(crate) fn dump(plan: &Plan, inner: bool) -> Tensors {
    let given = given();
    let (mut dump, y) = decoder_layer(plan, &given, "", &Rows::of(&given["tgt"]), &Rows::of(&given["memory"]), inner);
    dump.insert("output".into(), y.tensor());
    dump
}

pub(crate) fn run(model: &str, given: &Tensors, dump: &Tensors) -> Report {
    let (graph, padding) = Model::from_json(model).expect("reads").graph(given).expect("builds");
    Diff { padding: &padding, ..Diff::new(&graph, given, dump) }.run().expect("runs")
}

/// Every departure with what was found: `self_attn: not scaled @ self_attn`; several that fit are joined by ` | `.
pub(crate) fn found(report: &Report) -> Vec<String> {
    let one = |point: &tilewise::diff::Point| {
        let fits = point.finding.as_ref().map_or(&[][..], |finding| &finding.fits);
        let fits: Vec<&str> = fits.iter().map(|fit| fit.name.as_str()).collect();
        format!("{}: {}", point.name, if fits.is_empty() { "?".into() } else { fits.join(" | ") })
    };
    report.departures().map(one).collect()
}

pub(crate) fn verdict(report: &Report, name: &str) -> Verdict {
    report.points.iter().find(|point| point.name == name).expect("compared").verdict
}

/// A report for a failed test.
pub(crate) fn brief(report: &Report) -> String {
    let mut text = String::new();
    for point in &report.points {
        text += &format!(
            "\n{} {:?} {:?}",
            point.name,
            point.verdict,
            point.alone.map(|alone| (alone.error, alone.allowed))
        );
        point.notes.iter().for_each(|note| text += &format!("\n    {note}"));
        let Some(finding) = &point.finding else { continue };
        text += &format!("\n    {} tested, {:?}", finding.tested, finding.places);
        for (kind, found) in
            finding.fits.iter().map(|fit| ("fits", fit)).chain(finding.nearest.as_ref().map(|near| ("near", near)))
        {
            text += &format!("\n    {kind} {} @ {} {:.2e}", found.name, found.at, found.error);
        }
    }
    text
}
