//! Graphs as text and for Graphviz.

use tilewise::{
    DType, Graph, Tensor,
    graph::{Align, AttentionArgs, Mask, Op, Reduce},
};

fn graph() -> tilewise::Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 8, 6])?;
    let w = g.parameter("w", DType::F32, [6])?;
    let normed = g.layer_norm(x, Some(w), None, 1e-5)?;
    let q = g.split_heads(normed, 2)?;
    let lengths = g.constant(Tensor::new([2], vec![8, 5])?)?;
    let mask =
        Mask::causal(Align::BottomRight) & Mask::window(4, None, Align::BottomRight) & Mask::key_lengths(lengths);
    let args = AttentionArgs { mask, scale: Some(0.5), softcap: Some(30.0), ..AttentionArgs::default() };
    let (out, lse) = g.attention_with_lse(q, q, q, args)?;
    g.name(out, "attended")?;
    let ends = Op::Slice { starts: vec![0, 0, 7], sizes: vec![2, 2, 2], steps: vec![1, 1, -7] };
    let ends = g.push(ends, &[lse])?[0];
    let best = g.push(Op::Argmax { axis: 2, keep: false, last: true }, &[ends])?[0];
    let least = g.reduce(Reduce::Min, x, &[0, 2], true)?;
    let framed = g.pad(least, &[(0, 0), (1, 2), (0, 0)], f64::NEG_INFINITY)?;
    g.constant(Tensor::zeros(DType::F16, [3, 3])?)?;
    let seed = g.constant(Tensor::new([4], vec![7u32, 0, 1, 0])?)?;
    g.dropout(framed, seed, 0.1)?;
    let state = g.input("state", DType::F32, [1, 8, 1])?;
    let next = g.add(state, least)?;
    g.update(state, next)?;
    g.output("out", out)?;
    g.output("best", best)?;
    g.output("framed", framed)?;
    Ok(g)
}

#[test]
fn one_aligned_line_a_node() {
    let text = graph().expect("fits").to_string();
    let expected = "\
x             f32 [2, 8, 6]                   = input
w             f32 [6]                         = parameter
%2, _, _      f32 [2, 8, 6]                   = layer_norm(x, w) epsilon=1e-5
%5            f32 [2, 8, 2, 3]                = reshape(%2)
%6            f32 [2, 2, 8, 3]                = permute(%5) order=[0, 2, 1, 3]
%7            i32 [2]                         = constant [8, 5]
attended, %9, _  f32 [2, 2, 8, 3], f32 [2, 2, 8] = attention(%6, %6, %6, %7) with key_lengths causal window=4..∞ bottom_right scale=0.5 softcap=30.0
%11           f32 [2, 2, 2]                   = slice(%9) starts=[0, 0, 7] steps=[1, 1, -7]
%12           i32 [2, 2]                      = argmax(%11) axis=2 last
%13           f32 [1, 8, 1]                   = reduce_min(x) axes=[0, 2] keep
%14           f32 [1, 11, 1]                  = pad(%13) before=[0, 1, 0] after=[0, 2, 0] value=-inf
%15           f16 [3, 3]                      = constant
%16           u32 [4]                         = constant [7, 0, 1, 0]
%17           f32 [1, 11, 1]                  = dropout(%14, %16) p=0.1 stream=0
state         f32 [1, 8, 1]                   = input
%19           f32 [1, 8, 1]                   = add(state, %13)
output out = attended
output best = %12
output framed = %14
update state = %19
";
    let squeeze =
        |text: &str| text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(squeeze(&text), squeeze(expected), "\n{text}");
    let equals: Vec<_> = text.lines().take(12).map(|line| line.find(" = ")).collect();
    assert!(equals.iter().all(|at| *at == equals[0]), "the equals signs are not aligned:\n{text}");
    assert_eq!(Graph::new().to_string(), "");
}

#[test]
fn graphviz_gets_a_node_and_an_edge_for_each_use() {
    let mut g = Graph::new();
    let x = g.input("x \"1\"", DType::F32, [2, 3]).expect("fits");
    let y = g.add(x, x).expect("fits");
    g.output("y\\z", y).expect("fits");
    assert_eq!(
        g.to_dot(),
        r#"digraph {
  node [fontname="sans-serif", fontsize=10];
  n0 [shape=ellipse, label="x \"1\"\ninput"];
  n1 [shape=box, label="add"];
  n0 -> n1 [label="f32 [2, 3]"];
  n0 -> n1 [label="f32 [2, 3]"];
  o0 [shape=ellipse, style=bold, label="y\\z"];
  n1 -> o0 [label="f32 [2, 3]"];
}
"#
    );
    let dot = graph().expect("fits").to_dot();
    assert!(dot.contains("[label=\"%9: f32 [2, 2, 8]\"]"), "{dot}");
    assert!(dot.contains(" -> n14 [style=dashed, constraint=false, label=\"next run\"];"), "{dot}");
    assert!(dot.contains("label=\"attended\\nattention with key_lengths causal"), "{dot}");
}
