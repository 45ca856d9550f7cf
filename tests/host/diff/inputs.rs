//! What does not fit is said, with what was found and what was probably meant.

use tilewise::{
    DType, Tensor,
    diff::{Diff, Model, Verdict},
};

use crate::common::diff::{
    fixture::{MODEL, dump, given, plan, run},
    theirs::{Tensors, f32s},
};

fn fails(given: &Tensors, dump: &Tensors, parts: &[&str]) {
    let model = Model::from_json(MODEL).expect("reads");
    let message = match model.graph(given) {
        Ok((graph, _)) => Diff::new(&graph, given, dump).run().expect_err("refused").to_string(),
        Err(error) => error.to_string(),
    };
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

fn without(tensors: &Tensors, name: &str, instead: &str) -> Tensors {
    let mut changed = tensors.clone();
    let tensor = changed.remove(name).expect("there");
    changed.insert(instead.into(), tensor);
    changed
}

#[test]
fn inputs_and_weights_that_are_missing_or_do_not_fit() {
    let (given, dump) = (given(), dump(&plan(), false));
    fails(
        &without(&given, "memory", "memroy"),
        &dump,
        &["input `memory` is not in the dump; near: `memroy`", "found: `linear1.bias`"],
    );
    fails(
        &without(&given, "norm1.weight", "norm_1.weight"),
        &dump,
        &[
            "1 of the graph's inputs and parameters",
            "`norm1.weight` (f32 [12]) is missing; near: ",
            "`norm_1.weight`",
            "found: ",
        ],
    );
    let mut odd = given.clone();
    odd.insert("linear1.weight".into(), f32s(&[12, 20], &[0.0; 240]));
    odd.insert("tgt_lengths".into(), f32s(&[2], &[5.0, 4.0]));
    fails(&odd, &dump, &["`key_lengths` is f32, expected i32"]);
    odd.insert("tgt_lengths".into(), given["tgt_lengths"].clone());
    fails(&odd, &dump, &["`linear1.weight` is f32 [12, 20], expected f32 [20, 12]"]);
}

#[test]
fn names_that_nobody_knows() {
    let (given, right) = (given(), dump(&plan(), false));
    let report = run(MODEL, &given, &without(&right, "norm2", "nrom2"));
    assert_eq!(report.unknown.len(), 1);
    assert_eq!((report.unknown[0].0.as_str(), report.unknown[0].1[0].as_str()), ("nrom2", "norm2"));
    assert_eq!(report.missing, ["norm2"]);
    assert!(report.first_departure().is_none());
    let strange: Tensors = right.iter().map(|(name, tensor)| (format!("mine/{name}/out"), tensor.clone())).collect();
    fails(
        &given,
        &strange,
        &["no name in the dump is a value of the graph", "the dump has: `mine/dropout/out`", "`self_attn`"],
    );
}

#[test]
fn shapes_and_dtypes_that_differ() {
    let (given, mut theirs) = (given(), dump(&plan(), false));
    theirs.insert("linear1".into(), f32s(&[2, 5, 16], &[0.0; 160]));
    let report = run(MODEL, &given, &theirs);
    let point = report.first_departure().expect("another shape");
    assert_eq!((point.name.as_str(), point.verdict), ("linear1", Verdict::Shape));
    assert_eq!(point.notes, ["the dump has [2, 5, 16], the graph has [2, 5, 20]"]);
    assert_eq!(report.departures().count(), 1, "the walk goes on behind it");
    theirs.insert("linear1".into(), Tensor::zeros(DType::I32, [2, 5, 20]).expect("fits"));
    fails(&given, &theirs, &["`linear1` is i32 [2, 5, 20] in the dump, the graph has f32 there"]);
}

#[test]
fn descriptions_that_say_too_much_or_too_little() {
    for (text, part) in [
        (r#"{"model": "decoder_layer", "heads": 2}"#, "the field `width` is missing"),
        (
            r#"{"model": "teapot", "width": 8, "heads": 2}"#,
            "`model` is \"teapot\", expected one of multihead_attention, encoder_layer, ",
        ),
        (
            r#"{"model": "encoder", "width": 8, "heads": 2, "nhead": 2}"#,
            "there is no field `nhead`, expected one of `model`, `width`, ",
        ),
    ] {
        let message = Model::from_json(text).expect_err("refused").to_string();
        assert!(message.starts_with("model: ") && message.contains(part), "{message}");
    }
    let model = r#"{"model": "transformer", "width": 8, "heads": 2, "memory_width": 4}"#;
    let message = Model::from_json(model).expect("reads").graph(&given()).expect_err("refused").to_string();
    assert!(message.contains("memory_width"), "{message}");
}

/// A mask that comes with the dump is taken as it is; what is odd about it is said.
#[test]
fn masks_that_look_inverted_or_hide_everything() {
    let (mut given, model) = (given(), MODEL.replace(", \"causal\": true", ""));
    let dump = dump(&plan(), false);
    // True is masked: `tril` gives this, which is the wrong polarity for nn.TransformerDecoderLayer.
    given.insert(
        "tgt_mask".into(),
        Tensor::new([5, 5], (0..25).map(|e| e % 5 <= e / 5).collect::<Vec<_>>()).expect("fits"),
    );
    let report = run(&model, &given, &dump);
    assert!(
        report.warnings[0].contains("`tgt_mask` of `self_attn` masks what a causal mask leaves"),
        "{:?}",
        report.warnings
    );
    // The row of the last query of each item is fully masked, and in item 1, which has 4 tokens, the one before too: of 3 heads each.
    assert!(
        report.warnings[1].contains("9 of the 30 rows of scores of `self_attn` are fully masked"),
        "{:?}",
        report.warnings
    );
    given.insert(
        "tgt_mask".into(),
        Tensor::new([5, 5], (0..25).map(|e| e % 5 > e / 5).collect::<Vec<_>>()).expect("fits"),
    );
    let report = run(&model, &given, &dump);
    assert!(report.warnings.is_empty() && report.first_departure().is_none(), "{:?}", report.warnings);
}
