//! Mistakes, each made in `theirs.rs` alone: found at the right value, and named.

use std::rc::Rc;

use tilewise::{Tensor, diff::Verdict};

use crate::common::diff::{
    fixture::{MODEL, brief, dump, found, given, i32s, plan, run, verdict},
    theirs::{
        self, Attention, Heads, Hide, Linear, Norm, Plan, Residual, Rows, Tensors, f32s, gelu, gelu_tanh, random,
        weights,
    },
};

/// Plants, and checks every departure.
fn planted(change: impl FnOnce(&mut Plan), expected: &[&str]) {
    let mut theirs = plan();
    change(&mut theirs);
    let report = run(MODEL, &given(), &dump(&theirs, false));
    assert_eq!(found(&report), expected, "{}", brief(&report));
}

#[test]
fn scales() {
    planted(|p| p.own.scale = Some(1.0), &["self_attn: not scaled"]);
    planted(|p| p.own.scale = Some(1.0 / 12f64.sqrt()), &["self_attn: scaled by √E"]);
    planted(|p| p.cross.scale = Some(0.25), &["multihead_attn: scaled twice"]);
    planted(|p| p.cross.scale = Some(2.0), &["multihead_attn: multiplied by √D"]);
}

#[test]
fn masks_that_are_another() {
    planted(|p| p.own.seen = Rc::new(|b, i, j| !(j <= i && j < [5, 4][b])), &["self_attn: mask inverted"]);
    planted(|p| p.own.seen = Rc::new(|_, _, _| true), &["self_attn: mask missing"]);
    planted(|p| p.own.seen = Rc::new(|b, _, j| j < [5, 4][b]), &["self_attn: causal missing"]);
    planted(|p| p.own.seen = Rc::new(|b, i, j| j > i && j < [5, 4][b]), &["self_attn: causal inverted"]);
    planted(|p| p.own.seen = Rc::new(|b, i, j| j >= i && j < [5, 4][b]), &["self_attn: causal transposed"]);
    planted(|p| p.cross.seen = Rc::new(|_, _, _| true), &["multihead_attn: mask missing"]);
    planted(|p| p.cross.seen = Rc::new(|b, _, j| j >= [7, 4][b]), &["multihead_attn: mask inverted"]);
    planted(|p| p.cross.seen = Rc::new(|b, _, j| j < [4, 7][b]), &["multihead_attn: `memory_lengths` of another item"]);
    planted(
        |p| p.cross.seen = Rc::new(|b, i, j| j <= i && j < [7, 4][b]),
        &["multihead_attn: causal mask where there is none"],
    );
}

/// The only padded target position is the last of item 1, so what it masks shows nowhere else under a causal mask: a
/// missing padding mask is found where it is not causal.
#[test]
fn a_missing_padding_mask() {
    let model = MODEL.replace("true", "false");
    let mut theirs = plan();
    theirs.own.seen = Rc::new(|_, _, _| true);
    assert_eq!(found(&run(&model, &given(), &dump(&theirs, false))), ["self_attn: mask missing"]);
    // Under a causal mask only the padded position itself differs, and that is no departure.
    let mut theirs = plan();
    theirs.own.seen = Rc::new(|_, i, j| j <= i);
    let report = run(MODEL, &given(), &dump(&theirs, false));
    assert!(found(&report).is_empty());
    assert_eq!(verdict(&report, "self_attn"), Verdict::Padding);
    assert!(report.points[0].notes[0].contains("`tgt_lengths` masks"), "{}", brief(&report));
}

#[test]
fn causal_masks_that_are_off_by_one() {
    planted(
        |p| p.own.seen = Rc::new(|b, i, j| j <= i + 1 && j < [5, 4][b]),
        &["self_attn: causal mask one key too long"],
    );
    // The first row is fully masked: NaN in PyTorch, which the report says; the other rows show which mistake it is.
    let mut theirs = plan();
    theirs.own.seen = Rc::new(|b, i, j| j < i && j < [5, 4][b]);
    let report = run(MODEL, &given(), &dump(&theirs, false));
    assert_eq!(found(&report), ["self_attn: causal mask one key too short"], "{}", brief(&report));
    assert!(report.points[0].notes[0].contains("24 of their 120 elements are NaN"), "{}", brief(&report));
}

#[test]
fn masks_in_the_wrong_place() {
    planted(|p| p.own.hide = Hide::AfterSoftmax, &["self_attn: mask after softmax"]);
    planted(|p| p.cross.hide = Hide::Number(0.0), &["multihead_attn: masked scores set to 0"]);
    planted(|p| p.cross.hide = Hide::AddBoolean, &["multihead_attn: boolean mask added to the scores"]);
    planted(|p| p.cross.hide = Hide::Number(-10.0), &["multihead_attn: −10 instead of −inf"]);
}

/// Only a fully masked row shows that −1e9 is a score.
#[test]
fn a_finite_number_instead_of_infinity() {
    let mut given = given();
    given.insert("memory_lengths".into(), i32s(&[4, 0]));
    let mut theirs = plan();
    theirs.cross = Attention { hide: Hide::Number(-1e9), ..Attention::new(3, |b, _, j| j < [4, 0][b]) };
    let (tgt, memory) = (Rows::of(&given["tgt"]), Rows::of(&given["memory"]));
    let (dump, _) = theirs::decoder_layer(&theirs, &given, "", &tgt, &memory, false);
    let report = run(MODEL, &given, &dump);
    let found = found(&report);
    assert_eq!(found[0], "multihead_attn: a finite number instead of −inf", "{}", brief(&report));
    let finding = report.first_departure().and_then(|point| point.finding.as_ref()).expect("investigated");
    assert!(finding.places.contains(&"only item 1 of 2".to_string()), "{finding:?}");
}

#[test]
fn softmax_over_the_wrong_axis() {
    planted(|p| p.cross.softmax = 2, &["multihead_attn: softmax over the queries"]);
    planted(|p| p.cross.softmax = 1, &["multihead_attn: softmax over the heads"]);
}

#[test]
fn heads() {
    planted(|p| p.own.merge = Heads::Direct, &["self_attn: heads not transposed back"]);
    planted(|p| p.own.split = Heads::Direct, &["self_attn: heads split without a transpose"]);
    planted(|p| p.own.split = Heads::Interleaved, &["self_attn: heads interleaved at the split"]);
    planted(|p| p.own.merge = Heads::Interleaved, &["self_attn: heads interleaved at the merge"]);
    planted(
        |p| (p.cross.split, p.cross.merge) = (Heads::Interleaved, Heads::Interleaved),
        &["multihead_attn: heads interleaved at the split and the merge"],
    );
    planted(|p| p.own.heads = 6, &["self_attn: 6 heads"]);
    planted(|p| p.cross.heads = 1, &["multihead_attn: 1 head"]);
}

#[test]
fn queries_keys_and_values() {
    planted(
        |p| (p.memory_is_target, p.cross.seen) = (true, Rc::new(|_, _, _| true)),
        &["multihead_attn: keys and values from `norm1`"],
    );
    planted(|p| p.cross.swap_keys_and_values = true, &["multihead_attn: keys and values swapped"]);
    planted(|p| p.own.order = [1, 0, 2], &["self_attn: queries and keys swapped"]);
    planted(|p| p.cross.order = [0, 2, 1], &["multihead_attn: keys and values swapped"]);
}

#[test]
fn norms() {
    planted(|p| p.norms[0].epsilon = 1e-3, &["norm1: ε = 1e-3"]);
    planted(|p| p.norms[1].unbiased = true, &["norm2: unbiased variance"]);
    planted(
        |p| p.norms[2] = Norm { unbiased: true, outside: true, epsilon: 1e-6, keep_mean: false },
        &["norm3: unbiased variance, ε = 1e-6 outside the root"],
    );
    planted(|p| p.norms[2].keep_mean = true, &["norm3: RMS norm instead of layer norm"]);
    planted(|p| p.norm2 = "norm3.", &["norm2: weights of `norm3`"]);
}

#[test]
fn residuals() {
    planted(|p| p.residuals[0] = Residual::Missing, &["norm1: residual missing"]);
    planted(|p| p.residuals[1] = Residual::Target, &["norm2: residual from the wrong place | reads `tgt`"]);
}

#[test]
fn linear_layers_and_activations() {
    planted(|p| p.own.out = Linear { untransposed: true, no_bias: false }, &["self_attn: weight not transposed"]);
    planted(|p| p.linear2.no_bias = true, &["linear2: bias missing"]);
    planted(|p| p.linear1.untransposed = true, &["linear1: weight reshaped instead of transposed"]);
    planted(|p| p.activation = gelu, &["dropout: gelu (erf) instead of relu"]);
    planted(|p| p.activation = |x| x, &["dropout: activation missing"]);
    let model = MODEL.replace("\"causal\"", "\"activation\": \"gelu\", \"causal\"");
    let mut theirs = plan();
    theirs.activation = gelu_tanh;
    assert_eq!(found(&run(&model, &given(), &dump(&theirs, false))), ["dropout: gelu (tanh) instead of gelu (erf)"]);
}

#[test]
fn dropout_that_is_still_on() {
    planted(|p| p.dropout = 0.3, &["dropout1: dropout still on"]);
}

/// A pre-norm layer where post-norm is described, and the other way round.
#[test]
fn norms_on_the_wrong_side() {
    let mut theirs = plan();
    theirs.norm_first = true;
    let report = run(MODEL, &given(), &dump(&theirs, false));
    assert_eq!(found(&report)[0], "self_attn: norm before instead of after", "{}", brief(&report));
    let model = MODEL.replace("\"causal\"", "\"norm_first\": true, \"causal\"");
    let report = run(&model, &given(), &dump(&plan(), false));
    assert_eq!(found(&report)[1], "self_attn: norm after instead of before", "{}", brief(&report));
    // The description with the other order leaves nothing over.
    let other = tilewise::diff::Model::from_json(&model).expect("reads");
    let better = other.better(&given(), &dump(&plan(), false), None, &report).expect("runs");
    assert_eq!(better[0], ("\"norm_first\": false".to_string(), 0));
}

/// One mistake does not hide the next: each is found at its own value.
#[test]
fn several_mistakes_are_each_found() {
    planted(
        |p| {
            p.own.scale = Some(1.0);
            p.cross.merge = Heads::Direct;
            p.activation = gelu;
            p.norms[2].unbiased = true;
        },
        &[
            "self_attn: not scaled",
            "multihead_attn: heads not transposed back",
            "dropout: gelu (erf) instead of relu",
            "norm3: unbiased variance",
        ],
    );
}

#[test]
fn two_mistakes_in_one_place() {
    planted(
        |p| (p.own.scale, p.own.merge) = (Some(1.0), Heads::Direct),
        &["self_attn: not scaled and heads not transposed back"],
    );
}

/// With values from within the attention the first wrong one is found inside.
#[test]
fn inner_values_narrow_it_down() {
    let mut theirs = plan();
    theirs.own.hide = Hide::AfterSoftmax;
    theirs.cross.scale = Some(1.0);
    let report = run(MODEL, &given(), &dump(&theirs, true));
    assert_eq!(found(&report), ["self_attn.weights: mask after softmax", "multihead_attn.scores: not scaled"]);
    assert_eq!(verdict(&report, "multihead_attn.q"), Verdict::Inherits);
    // Split wrongly: q, k and v are right, the scores are not.
    let mut theirs = plan();
    theirs.own.split = Heads::Direct;
    let report = run(MODEL, &given(), &dump(&theirs, true));
    assert_eq!(found(&report)[0], "self_attn.scores: heads split without a transpose", "{}", brief(&report));
}

/// A dump that is `[T, B, E]`: the axes are said, and the numbers are compared all the same.
#[test]
fn a_dump_with_time_first() {
    let turned = |tensor: &Tensor| {
        let rows = Rows::of(tensor);
        let mut x = vec![0.0; rows.x.len()];
        for (at, value) in rows.x.iter().enumerate() {
            let (b, t, e) = (at / rows.e / rows.t, at / rows.e % rows.t, at % rows.e);
            x[(t * rows.b + b) * rows.e + e] = *value;
        }
        f32s(&[rows.t, rows.b, rows.e], &x)
    };
    let mut theirs = plan();
    theirs.own.scale = Some(1.0);
    let dump: Tensors = dump(&theirs, false).iter().map(|(name, tensor)| (name.clone(), turned(tensor))).collect();
    let report = run(MODEL, &given(), &dump);
    assert_eq!(found(&report), ["self_attn: not scaled"]);
    assert!(
        report.points[0].notes[0].contains("[5, 2, 12], which was read with axes 0 and 1 swapped"),
        "{}",
        brief(&report)
    );
}

/// Causal with Tq ≠ Tk has two alignments; and with as many items as tokens nothing but the numbers tells B from T.
#[test]
fn alignment_and_batch_first() {
    let model = r#"{"model": "multihead_attention", "width": 12, "heads": 3, "causal": true}"#;
    let mut given: Tensors = weights("", 12, 20, false)
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("self_attn.")?.to_string(), tensor)))
        .collect();
    given.insert("query".into(), random("query", &[2, 3, 12], 1.5));
    given.insert("key".into(), random("key", &[2, 5, 12], 1.5));
    let attend = |attention: &Attention, given: &Tensors, key: &str| {
        let (query, key) = (Rows::of(&given["query"]), Rows::of(&given[key]));
        let y = attention.run(given, "", &query, &key, &key, &mut Tensors::new());
        Tensors::from([("output".to_string(), y.tensor())])
    };
    let dump = attend(&Attention::new(3, |_, i, j| j <= i + 2), &given, "key");
    assert_eq!(found(&run(model, &given, &dump)), ["output: causal mask aligned bottom right"]);
    let dump = attend(&Attention::new(3, |_, i, j| j <= i), &given, "key");
    assert_eq!(found(&run(model, &given, &dump)), [""; 0]);

    let model = model.replace(", \"causal\": true", "");
    given.remove("key");
    given.insert("query".into(), random("query", &[4, 4, 12], 1.5));
    let rows = Rows::of(&given["query"]);
    let swap = |x: &[f64]| (0..x.len()).map(|at| x[(at / 12 % 4 * 4 + at / 48) * 12 + at % 12]).collect::<Vec<f64>>();
    let turned = Rows { x: swap(&rows.x), ..rows };
    let y = Attention::new(3, |_, _, _| true).run(&given, "", &turned, &turned, &turned, &mut Tensors::new());
    let dump = Tensors::from([("output".to_string(), f32s(&[4, 4, 12], &swap(&y.x)))]);
    assert_eq!(found(&run(&model, &given, &dump)), ["output: batch and time confused"]);
    let dump = Tensors::from([("output".to_string(), y.tensor())]);
    assert!(found(&run(&model, &given, &dump))[0].contains('?'), "turned before and not after is two mistakes");
}

/// The second layer of a stack runs with the weights of the first.
#[test]
fn layers_that_share_weights() {
    let model = r#"{"model": "decoder", "width": 12, "heads": 3, "hidden": 20, "layers": 2, "causal": true}"#;
    let mut given = given();
    given.extend(weights("layers.0.", 12, 20, true));
    given.extend(weights("layers.1.", 12, 20, true));
    let memory = Rows::of(&given["memory"]);
    let (mut dump, x) = theirs::decoder_layer(&plan(), &given, "layers.0.", &Rows::of(&given["tgt"]), &memory, false);
    let (second, y) = theirs::decoder_layer(&plan(), &given, "layers.0.", &x, &memory, false);
    dump.insert("layers.0".into(), x.tensor());
    let second: Tensors = second.into_iter().map(|(n, t)| (n.replacen("layers.0", "layers.1", 1), t)).collect();
    // Module by module, or the whole layer at once.
    let mut fine = dump.clone();
    fine.extend(second);
    let report = run(model, &given, &fine);
    assert_eq!(found(&report)[0], "layers.1.self_attn: weights of `layers.0.self_attn`", "{}", brief(&report));
    assert_eq!(found(&report).len(), 7, "{:?}", found(&report));
    dump.insert("layers.1".into(), y.tensor());
    assert_eq!(found(&run(model, &given, &dump)), ["layers.1: weights of `layers.0`"]);
}
