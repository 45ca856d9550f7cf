//! Attention over other axes than `[B, H, T, D]`: shapes, the other operands, JSON, and what is refused. Values against PyTorch's:
//! `tests/host/published.rs`.

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Result, Shape, Tensor, ValueId,
    graph::{Align, AttentionArgs, AttentionOperand, Mask, ScoreStage},
    reference,
};

fn f32s(g: &mut Graph, name: &str, shape: &[usize]) -> ValueId {
    g.input(name, DType::F32, shape).expect("fits")
}

fn numbers(shape: &Shape, seed: usize) -> Tensor {
    let n = shape.elements().expect("small");
    let data: Vec<f32> = (0..n).map(|i| ((i * 37 + seed * 11) % 89) as f32 / 44.5 - 1.0).collect();
    Tensor::new(shape.clone(), data).expect("fits")
}

/// Every result of two graphs is the same, for the same inputs in other shapes.
fn same(a: &Graph, b: &Graph, others: &[(&str, Vec<i32>)]) {
    let given = |g: &Graph| -> BTreeMap<String, Tensor> {
        let one = |(seed, (name, value)): (usize, (&str, ValueId))| {
            let shape = g.shape(value);
            let tensor = match others.iter().find(|(other, _)| *other == name) {
                Some((_, data)) => Tensor::new(shape.clone(), data.clone()).expect("fits"),
                None => numbers(shape, seed),
            };
            (name.to_string(), tensor)
        };
        g.inputs().enumerate().map(one).collect()
    };
    let [a, b] = [a, b].map(|g| reference::evaluate(g, &given(g)).expect("runs"));
    assert_eq!(a.len(), b.len());
    for (name, tensor) in &a {
        assert_eq!(tensor.data(), b[name].data(), "{name}");
    }
}

/// The results over q, k, v and lengths of these leading axes, with everything else that broadcasts.
fn results(leading: &[usize], heads: Option<usize>) -> Graph {
    let mut g = Graph::new();
    let shape = |t: usize, d: usize| [leading, heads.as_slice(), &[t, d]].concat();
    let [q, k, v] = [("q", 5, 4), ("k", 7, 4), ("v", 7, 3)].map(|(name, t, d)| f32s(&mut g, name, &shape(t, d)));
    let lengths = g.input("lengths", DType::I32, leading).expect("fits");
    let offsets = g.input("offsets", DType::I32, leading).expect("fits");
    let slopes = f32s(&mut g, "slopes", &[heads.unwrap_or(1)]);
    let bias = f32s(&mut g, "bias", &[leading, &[1, 5, 7]].concat());
    let mask = Mask::causal(Align::PerItem) & Mask::offsets(offsets) & Mask::key_lengths(lengths) & Mask::bias(bias);
    let results =
        g.attention_results(q, k, v, AttentionArgs { mask, slopes: Some(slopes), ..AttentionArgs::default() });
    let results = results.expect("fits");
    let rows = [leading, heads.as_slice()].concat();
    assert_eq!(g.shape(results.out), &[&rows[..], &[5, 3]].concat().into());
    assert_eq!(g.shape(results.lse), &[&rows[..], &[5]].concat().into());
    assert_eq!(g.shape(results.status), &leading.into());
    g.output("out", results.out).expect("fits");
    g.output("lse", results.lse).expect("fits");
    g.output("status", results.status).expect("fits");
    g
}

#[test]
fn any_leading_axes_are_those_of_the_results() {
    let others = |n: usize| {
        let lengths = (0..n).map(|i| [7, 3, 9, 1][i % 4]).collect();
        [("lengths", lengths), ("offsets", (0..n).map(|i| [0, 4, -2][i % 3]).collect())]
    };
    // 12 items in one axis, and in two and three.
    let flat = results(&[12], Some(2));
    same(&flat, &results(&[3, 4], Some(2)), &others(12));
    same(&flat, &results(&[2, 3, 2], Some(2)), &others(12));
    // One item, without an axis for it; and without heads.
    same(&results(&[1], Some(2)), &results(&[], Some(2)), &others(1));
    same(&results(&[1], Some(1)), &results(&[], None), &others(1));
    // No item at all.
    same(&results(&[0], Some(2)), &results(&[3, 0], Some(2)), &others(0));
}

#[test]
fn axes_before_the_heads_broadcast() {
    let shape_of = |q: &[usize], k: &[usize], v: &[usize]| {
        let mut g = Graph::new();
        let [q, k, v] = [("q", q), ("k", k), ("v", v)].map(|(name, shape)| f32s(&mut g, name, shape));
        let (out, lse) = g.attention_with_lse(q, k, v, Mask::none())?;
        Ok::<_, tilewise::Error>((g.shape(out).to_vec(), g.shape(lse).to_vec()))
    };
    let gives = |q: &[usize], k: &[usize], v: &[usize], out: &[usize]| {
        let expected = (out.to_vec(), out[..out.len() - 1].to_vec());
        assert_eq!(shape_of(q, k, v).expect("fits"), expected, "{q:?} {k:?} {v:?}");
    };
    gives(&[2, 1, 4, 5, 8], &[3, 4, 7, 8], &[2, 3, 4, 7, 6], &[2, 3, 4, 5, 6]);
    gives(&[4, 5, 8], &[3, 2, 7, 8], &[3, 2, 7, 6], &[3, 4, 5, 6]);
    gives(&[2, 4, 5, 8], &[1, 2, 7, 8], &[1, 2, 7, 6], &[2, 4, 5, 6]);
    gives(&[5, 8], &[7, 8], &[7, 6], &[5, 6]);
    gives(&[5, 8], &[1, 7, 8], &[7, 6], &[1, 5, 6]);
    let refused = |q: &[usize], k: &[usize], v: &[usize]| shape_of(q, k, v).expect_err("refused").to_string();
    assert_eq!(
        refused(&[2, 3, 4, 5, 8], &[2, 2, 4, 7, 8], &[2, 2, 4, 7, 6]),
        "attention: `q` is [2, 3, 4, 5, 8], `k` is [2, 2, 4, 7, 8], `v` is [2, 2, 4, 7, 6]: the axes before the heads do not broadcast"
    );
    assert!(refused(&[2, 4, 5, 8], &[3, 4, 7, 8], &[3, 4, 7, 6]).ends_with("the batch sizes differ"));
    assert!(refused(&[3, 5, 8], &[2, 7, 8], &[2, 7, 6]).contains("3 query heads are no multiple of 2 key heads"));
    assert!(refused(&[8], &[7, 8], &[7, 6]).contains("`q` has shape [8], expected rank 4"));
}

#[test]
fn other_operands_follow() {
    let attended = |name: &str, dtype: DType, shape: &[usize], args: fn(ValueId) -> AttentionArgs| -> Result<()> {
        let mut g = Graph::new();
        let [q, k, v] =
            [("q", 5, 8), ("k", 7, 8), ("v", 7, 6)].map(|(name, t, d)| f32s(&mut g, name, &[2, 3, 4, t, d]));
        let operand = g.input(name, dtype, shape)?;
        g.attention(q, k, v, args(operand))?;
        Ok(())
    };
    let mask: fn(ValueId) -> AttentionArgs = |m| Mask::boolean(m).into();
    for shape in [
        &[7][..],
        &[5, 7],
        &[4, 1, 7],
        &[3, 1, 1, 7],
        &[2, 1, 4, 5, 7],
        &[2, 3, 1, 1, 7],
        &[1, 1, 1, 5, 7],
        &[2, 3, 4, 5, 6],
    ] {
        attended("m", DType::Bool, shape, mask).unwrap_or_else(|e| panic!("{shape:?}: {e}"));
    }
    let misfit = |shape: &[usize]| attended("m", DType::Bool, shape, mask).expect_err("refused").to_string();
    assert_eq!(
        misfit(&[2, 1, 1, 7]),
        "attention: `mask` has shape [2, 1, 1, 7], expected one whose axes before the heads broadcast to [2, 3]"
    );
    assert!(misfit(&[1, 2, 3, 4, 5, 7]).contains("expected one whose axes before the heads"));
    assert!(misfit(&[4, 7]).contains("expected one that broadcasts to [B, Hq, Tq, Tk]"));
    let lengths: fn(ValueId) -> AttentionArgs = |m| Mask::key_lengths(m).into();
    for shape in [&[2, 3][..], &[3], &[2, 1], &[1], &[]] {
        attended("n", DType::I32, shape, lengths).unwrap_or_else(|e| panic!("{shape:?}: {e}"));
    }
    let error = attended("n", DType::I32, &[2], lengths).expect_err("refused").to_string();
    assert_eq!(
        error,
        "attention: `key_lengths` has shape [2], expected one that broadcasts to the axes before the heads, [2, 3]"
    );
    let padding: fn(ValueId) -> AttentionArgs = |m| Mask::key_padding(m).into();
    attended("p", DType::Bool, &[2, 3, 7], padding).expect("fits");
    assert!(attended("p", DType::Bool, &[6, 7], padding).is_err());
}

#[test]
fn scores_have_the_same_axes() {
    let mut g = Graph::new();
    let (q, k) = (f32s(&mut g, "q", &[2, 3, 4, 5, 8]), f32s(&mut g, "k", &[2, 3, 2, 7, 8]));
    for stage in [ScoreStage::Scaled, ScoreStage::Capped, ScoreStage::Masked, ScoreStage::Weights] {
        let scores = g.attention_scores(q, k, Mask::causal(Align::BottomRight), stage).expect("fits");
        assert_eq!(g.shape(scores), &[2, 3, 4, 5, 7].into(), "{stage:?}");
    }
    let [q, k] = ["flat q", "flat k"].map(|name| f32s(&mut g, name, &[5, 8]));
    let weights = g.attention_weights(q, k, Mask::none()).expect("fits");
    assert_eq!(g.shape(weights), &[5, 5].into());
}

/// A file may have attention over any axes; its values keep their numbers, and what is read is written with the views.
#[test]
fn json_takes_them_too() {
    let text = r#"{"nodes": [
        {"op": "input", "dtype": "f32", "shape": [2, 3, 4, 5, 8], "outputs": ["q"]},
        {"op": "input", "dtype": "bool", "shape": [2, 1, 1, 5, 5], "outputs": ["m"]},
        {"op": "attention", "causal": true, "operands": ["mask"], "inputs": ["q", "q", "q", "m"], "outputs": ["y", "lse"]},
        {"op": "unary", "function": "neg", "inputs": ["%2"]},
        {"op": "unary", "function": "exp", "inputs": ["%3"], "outputs": ["e"]},
        {"op": "unary", "function": "abs", "inputs": ["%5"], "outputs": ["%6"]}
      ], "outputs": [{"name": "out", "value": "y"}, {"name": "lse", "value": "%3"}, {"name": "neg", "value": "%5"}, {"name": "abs", "value": "%7"}]}"#;
    let error = Graph::from_json(text).expect_err("%6 is the result of exp").to_string();
    assert!(error.contains("the result `%6` is value %7"), "{error}");
    let read = Graph::from_json(&text.replace(r#", "outputs": ["%6"]"#, "")).expect("fits");
    let shape = |name: &str| {
        let (_, value) = read.outputs().iter().find(|(other, _)| other == name).expect("there is one");
        read.shape(*value).to_vec()
    };
    assert_eq!([shape("out"), shape("neg"), shape("abs")], [[2, 3, 4, 5, 8]; 3].map(|s| s.to_vec()));
    assert_eq!(shape("lse"), [2, 3, 4, 5]);
    let again = Graph::from_json(&read.to_json().expect("JSON")).expect("fits");
    assert_eq!(again, read);
    let mut built = Graph::new();
    let q = f32s(&mut built, "q", &[2, 3, 4, 5, 8]);
    let m = built.input("m", DType::Bool, [2, 1, 1, 5, 5]).expect("fits");
    let (out, _) = built.attention_with_lse(q, q, q, Mask::causal(Align::TopLeft) & Mask::boolean(m)).expect("fits");
    assert_eq!(built.shape(out).to_vec(), shape("out"));
    assert!(
        built.nodes().iter().all(
            |node| !matches!(&node.op, tilewise::graph::Op::Attention(a) if a.operands != [AttentionOperand::Mask])
        )
    );
}
