//! Graphs to JSON and back; what is wrong with a file is said by node.

use half::{bf16, f16};
use proptest::prelude::*;
use tilewise::{
    DType, Graph, Tensor,
    graph::{Align, AttentionArgs, Binary, CrossEntropyArgs, Mask, Op, Reduce, Unary},
};

/// A graph with every operation and every option that is not the default.
fn everything() -> tilewise::Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 3, 4])?;
    let w = g.parameter("layer.weight", DType::F32, [4, 4])?;
    let y = g.linear(x, w, None)?;
    let turned = g.push(Op::Matmul { transpose_a: true, transpose_b: false }, &[w, w])?[0];
    g.name(turned, "a \"quoted\" name")?;
    let row = g.parameter("row", DType::F32, [4])?;
    let normed = g.layer_norm(y, Some(row), Some(row), 1e-5)?;
    let normed = g.push(Op::RmsNorm { axes: 2, epsilon: 0.1, weight: false }, &[normed])?;
    g.name(normed[1], "rstd")?;
    let q = g.split_heads(normed[0], 2)?;
    let seen = g.constant(Tensor::new([1, 3], vec![true, false, true])?)?;
    let bias = g.constant(Tensor::new([3], vec![0.1f32, f32::NEG_INFINITY, -0.0])?)?;
    let lengths = g.constant(Tensor::new([2], vec![3, 1])?)?;
    let mask = Mask::causal(Align::BottomRight)
        & Mask::window(2, None, Align::BottomRight)
        & Mask::boolean(seen)
        & Mask::bias(bias)
        & Mask::key_lengths(lengths);
    let args = AttentionArgs { mask, scale: Some(0.3), softcap: Some(30.0), ..AttentionArgs::default() };
    let out = g.attention(q, q, q, args)?;
    let shifted = g.attention(q, q, q, Mask::causal(Align::Offset(-1)))?;
    let sum = g.add(out, shifted)?;
    let merged = g.merge_heads(sum)?;
    let p = g.softmax(merged, -1)?;
    let p = g.log_softmax(p, 1)?;
    let classes = g.constant(Tensor::new([2, 3], vec![0, 3, -1, 2, 9, 1])?)?;
    let smoothed = CrossEntropyArgs { weight: Some(row), ignore: Some(9), smoothing: 0.1 };
    g.cross_entropy(p, classes, smoothed)?;
    g.cross_entropy(p, classes, CrossEntropyArgs::default())?;
    let seed = g.constant(Tensor::new([4], vec![7u32, 0, u32::MAX, 0])?)?;
    g.dropout(p, seed, 0.1)?;
    g.push(Op::Dropout { p: 1.0, stream: u32::MAX }, &[p, seed])?;
    for function in Unary::ALL {
        let operand = if function == Unary::Not { seen } else { p };
        g.unary(function, operand)?;
    }
    for function in Binary::ALL {
        let operand = if function.is_logical() { seen } else { p };
        g.binary(function, operand, operand)?;
    }
    for function in Reduce::ALL {
        g.reduce(function, p, &[0, -1], function == Reduce::Max)?;
    }
    let halves = g.cast(p, DType::F16)?;
    let best = g.push(Op::Argmax { axis: 2, keep: true, last: true }, &[halves])?[0];
    let picked = g.gather(w, best, 0)?;
    let flat = g.reshape(picked, [6, 4])?;
    let back = Op::Slice { starts: vec![5, 0], sizes: vec![3, 4], steps: vec![-2, 1] };
    let sliced = g.push(back, &[flat])?[0];
    let joined = g.concat(&[sliced, flat], 0)?;
    let wide = g.broadcast(joined, [2, 9, 4])?;
    let wide = g.permute(wide, &[1, 0, 2])?;
    let padded = g.pad(wide, &[(0, 1), (2, 0), (0, 0)], f64::NEG_INFINITY)?;
    let always = g.constant(Tensor::new([1], vec![true])?)?;
    let chosen = g.select(always, padded, padded)?;
    let positions = g.constant(Tensor::zeros(DType::I32, [2, 3])?)?;
    let table = g.parameter("angles", DType::F32, [9, 1])?;
    g.rotary(q, [table, table], positions, true)?;
    let cache = g.input("cache", DType::F32, [2, 2, 9, 2])?;
    let (grown, _) = g.append(cache, q, lengths, 2, true)?;
    g.update(cache, grown)?;
    for constant in [
        Tensor::new([2], vec![f16::from_f32(0.1), f16::NEG_INFINITY]),
        Tensor::new([2], vec![bf16::from_f32(0.1), bf16::INFINITY]),
        Tensor::new([2], vec![i32::MIN, i32::MAX]),
        Tensor::new([], vec![u32::MAX]),
        Tensor::zeros(DType::Bool, [0, 2]),
    ] {
        g.constant(constant?)?;
    }
    g.output("chosen", chosen)?;
    g.output("x again", x)?;
    g.output("rstd", normed[1])?;
    Ok(g)
}

#[test]
fn every_operation_comes_back() {
    let g = everything().expect("fits");
    let text = g.to_json().expect("writes");
    let back = Graph::from_json(&text).expect("reads");
    back.verify().expect("valid");
    assert_eq!(back, g);
    // The same through serde, in a larger document and in one line.
    let through_serde: Vec<Graph> =
        serde_json::from_str(&serde_json::to_string(&[&g]).expect("writes")).expect("reads");
    assert_eq!(through_serde, [g]);
}

#[test]
fn one_node_a_line() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 3]).expect("fits");
    let y = g.layer_norm(x, None, None, 0.5).expect("fits");
    g.output("y", y).expect("fits");
    assert_eq!(
        g.to_json().expect("writes"),
        r#"{
  "nodes": [
    {"op":"input","dtype":"f32","shape":[2,3],"outputs":["x"]},
    {"op":"layer_norm","axes":1,"epsilon":0.5,"weight":false,"bias":false,"inputs":["x"],"outputs":["%1","%2","%3"]}
  ],
  "outputs": [
    {"name":"y","value":"%1"}
  ]
}
"#
    );
    assert_eq!(Graph::from_json(&Graph::new().to_json().expect("writes")).expect("reads"), Graph::new());
}

const INPUT: &str = r#"{"op": "input", "dtype": "f32", "shape": [2, 3], "outputs": ["x"]}"#;

fn error(nodes: &str, outputs: &str) -> String {
    let text = format!(r#"{{"nodes": [{nodes}], "outputs": [{outputs}]}}"#);
    Graph::from_json(&text).expect_err(&text).to_string()
}

#[test]
fn a_fault_is_named_with_its_node() {
    let after_input = |node: &str| error(&format!("{INPUT}, {node}"), "");
    for (node, expected) in [
        (
            r#"{"op": "matmull", "inputs": ["x"]}"#,
            "graph: node 1, matmull: there is no operation `matmull`; there are input, parameter, constant, matmul, ",
        ),
        (
            r#"{"op": "relu", "inputs": ["x"]}"#,
            "graph: node 1, relu: `relu` is a function, not an operation: write {\"op\": \"unary\", \"function\": \"relu\", …}",
        ),
        (
            r#"{"op": "max", "inputs": ["x", "x"]}"#,
            "`max` is a function, not an operation: write {\"op\": \"binary\", \"function\": \"max\", …} or \
             {\"op\": \"reduce\", \"function\": \"max\", …}",
        ),
        (r#"{"inputs": ["x"]}"#, "graph: node 1: the field `op` is missing"),
        (
            r#"{"op": "softmax", "inputs": ["x"], "outputs": ["p"]}"#,
            "graph: node 1, softmax, `p`: the field `axis` is missing",
        ),
        (
            r#"{"op": "softmax", "axis": -1, "inputs": ["x"]}"#,
            "node 1, softmax: `axis` is -1, expected an integer from 0 up (axes are counted from 0, not from the end)",
        ),
        (
            r#"{"op": "softmax", "axis": 2, "inputs": ["x"]}"#,
            "node 1, softmax: softmax: axis 2 is out of range for [2, 3] (rank 2)",
        ),
        (
            r#"{"op": "softmax", "axis": 1, "axes": 1, "inputs": ["x"]}"#,
            "node 1, softmax: there is no field `axes`; the fields are axis, op, inputs, outputs",
        ),
        (
            r#"{"op": "where", "axis": 1, "inputs": ["x"]}"#,
            "there is no field `axis`; the fields are op, inputs, outputs",
        ),
        (
            r#"{"op": "attention", "window": {"lift": 1}, "inputs": ["x"]}"#,
            "node 1, attention: `window`: there is no field `lift`, expected `left` or `right`",
        ),
        (
            r#"{"op": "unary", "function": "gelou", "inputs": ["x"]}"#,
            "node 1, unary: `function` is \"gelou\", expected one of neg, abs, sign, ",
        ),
        (r#"{"op": "where", "inputs": "x"}"#, "`inputs` is \"x\", expected a list of names: [\"x\", …]"),
        (r#"{"op": "where", "inputs": [0]}"#, "`inputs` is [0], expected a list of names: [\"x\", …]"),
        (r#"{"op": "softmax", "axis": 1, "inputs": ["z"]}"#, "node 1, softmax: no value `z` is defined before it"),
        (r#"{"op": "softmax", "axis": 1, "inputs": ["%1"]}"#, "node 1, softmax: no value `%1` is defined before it"),
        (r#"{"op": "softmax", "axis": 1, "inputs": ["%-1"]}"#, "no value `%-1` is defined before it"),
        (
            r#"{"op": "matmul", "inputs": ["x", "x"]}"#,
            "node 1, matmul: matmul: `a` [2, 3] has inner size 3, `b` [2, 3] has 2",
        ),
        (r#"{"op": "matmul", "inputs": ["x"]}"#, "matmul: 1 operands were given, expected 2 (a, b)"),
        (
            r#"{"op": "softmax", "axis": 1, "inputs": ["x"], "outputs": ["x"]}"#,
            "the name `x` is taken by another value (x: f32 [2, 3])",
        ),
        (r#"{"op": "softmax", "axis": 1, "inputs": ["x"], "outputs": ["%7"]}"#, "the result `%7` is value %1"),
        (
            r#"{"op": "softmax", "axis": 1, "inputs": ["x"], "outputs": ["p", "q"]}"#,
            "`outputs` has 2 names, the operation has 1 results",
        ),
        (
            r#"{"op": "parameter", "dtype": "f32", "shape": [1]}"#,
            "node 1, parameter: an input or parameter needs its name in `outputs`",
        ),
        (r#"{"op": "parameter", "dtype": "f32", "shape": [1], "outputs": ["%1"]}"#, "needs its name in `outputs`"),
        (
            r#"{"op": "input", "dtype": "f64", "shape": [1], "outputs": ["y"]}"#,
            "node 1, input, `y`: `dtype` is \"f64\", expected one of f32, f16, bf16, i32, u32, bool",
        ),
        (
            r#"{"op": "input", "dtype": "f32", "shape": [70000, 70000], "outputs": ["y"]}"#,
            "is over the limit of 2147483647",
        ),
        (
            r#"{"op": "input", "dtype": "f32", "shape": [-1], "outputs": ["y"]}"#,
            "node 1, input, `y`: `shape` is [-1]: -1 stands where an integer from 0 up is expected",
        ),
        (
            r#"{"op": "constant", "value": {"dtype": "f32", "shape": [2], "data": [1]}}"#,
            "1 elements were given for shape [2]",
        ),
        (r#"{"op": "constant", "value": {"dtype": "f32", "shape": [1], "data": [null]}}"#, "an element is a number"),
    ] {
        let message = after_input(node);
        assert!(message.starts_with("graph: node 1") && message.contains(expected), "{message}\n  lacks: {expected}");
    }
}

#[test]
fn a_fault_outside_the_nodes_is_named_too() {
    for (text, expected) in [
        ("", "graph: the text is empty, expected JSON"),
        ("{\"nodes\": [],\n \"outputs\": [}", "graph: the text is no JSON: expected value at line 2 column 14"),
        (r#"{"nodes": []}"#, "graph: the field `outputs` is missing at line 1 column 13"),
        (
            r#"{"nodes": [], "outputs": [], "name": "g"}"#,
            "graph: there is no field `name`, expected one of `nodes`, `outputs`, `updates`",
        ),
        (r#"{"nodes": [3], "outputs": []}"#, "graph: 3 stands where an object is expected at line 1 column 12"),
        (r#"{"nodes": [], "outputs": [{"name": "y"}]}"#, "graph: the field `value` is missing at line 1 column 39"),
    ] {
        let message = Graph::from_json(text).expect_err(text).to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    let update = |state: &str, next: &str| {
        let updates = format!(r#"{{"state": "{state}", "next": "{next}"}}"#);
        let text = format!(r#"{{"nodes": [{INPUT}], "outputs": [], "updates": [{updates}]}}"#);
        Graph::from_json(&text).err().map(|e| e.to_string())
    };
    assert_eq!(update("x", "x"), None);
    assert_eq!(update("x", "z").as_deref(), Some("graph: update of `x`: there is no value `z`"));
    assert_eq!(update("z", "x").as_deref(), Some("graph: update of `z`: there is no value `z`"));
    assert_eq!(error(INPUT, r#"{"name": "y", "value": "z"}"#), "graph: output `y`: there is no value `z`");
    assert_eq!(
        error(INPUT, r#"{"name": "y", "value": "x"}, {"name": "y", "value": "x"}"#),
        "graph: there are two outputs `y`"
    );
}

#[test]
fn constants_that_json_has_no_numbers_for_survive() {
    let mut g = Graph::new();
    let odd = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE, 1e-45, f32::MAX];
    let x = g.constant(Tensor::new([7], odd).expect("fits")).expect("fits");
    g.output("x", x).expect("fits");
    let text = g.to_json().expect("writes");
    assert!(text.contains(r#"["NaN","inf","-inf",-0.0,"#), "{text}");
    let back = Graph::from_json(&text).expect("reads");
    let [Op::Constant { value: before }, Op::Constant { value: after }] = [&g, &back].map(|g| &g.nodes()[0].op) else {
        panic!("{back}");
    };
    assert_eq!(before.as_bytes(), after.as_bytes());
}

proptest! {
    /// Any f32 but the payload of a NaN comes back bit for bit, and so does what is built from drawn pieces.
    #[test]
    fn drawn_graphs_come_back(
        bits in prop::collection::vec(any::<u32>(), 1..40),
        steps in prop::collection::vec((0usize..8, any::<prop::sample::Index>(), 1u32..1000), 0..30),
    ) {
        let floats: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|x| !x.is_nan()).collect();
        let mut g = Graph::new();
        let n = floats.len();
        let mut values = vec![g.input("x", DType::F32, [n]).expect("fits")];
        values.push(g.constant(Tensor::new([n], floats).expect("fits")).expect("fits"));
        for (i, (kind, operand, number)) in steps.into_iter().enumerate() {
            let x = values[operand.index(values.len())];
            let value = match kind {
                0 => g.unary(Unary::ALL[number as usize % 21], x),
                1 => g.binary(Binary::ALL[number as usize % 7], x, values[i % values.len()]),
                2 => g.reshape(x, [1, n]).and_then(|x| g.reshape(x, [n])),
                3 => g.pad(x, &[(1, 0)], f64::from(f32::from_bits(number * 4_000_037))).and_then(|x| g.slice(x, 0, 1, n + 1)),
                4 => g.rms_norm(x, None, 1.0 / number as f32),
                5 => g.scalar(1.0 / f64::from(number), x).and_then(|c| g.mul(x, c)),
                6 => g.cast(x, DType::ALL[number as usize % 5]).and_then(|y| g.cast(y, DType::F32)),
                _ => g.softmax(x, -1),
            }
            .expect("fits");
            if number % 3 == 0 && g.value(value).name.is_none() {
                g.name(value, format!("value {i}")).expect("fits");
            }
            values.push(value);
        }
        g.output("y", values[values.len() - 1]).expect("fits");
        // As text, because NaN equals nothing.
        let text = g.to_json().expect("writes");
        let back = Graph::from_json(&text).expect("reads");
        prop_assert_eq!(back.to_json().expect("writes"), text);
    }
}

#[test]
fn traces_come_back_and_stand_once() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 3]).expect("fits");
    let y = g.relu(x).expect("fits");
    for path in ["block.act", "block", "block.act", ""] {
        assert_eq!(g.trace(path, y).expect("a value"), y);
    }
    assert_eq!(g.traces().map(|(path, _)| path).collect::<Vec<_>>(), ["block.act", "block", "block.act#2"]);
    assert!(g.to_string().contains("= relu(x)  # block.act, block, block.act#2\n"), "{g}");
    assert!(g.to_dot().contains("relu\\n# block.act\\n# block"), "{}", g.to_dot());
    let text = g.to_json().expect("writes");
    assert_eq!(Graph::from_json(&text).expect("reads"), g);
    assert_eq!(g.with_shapes(&[("x", [5, 3].into())]).expect("fits").traced("block"), Some(y));
    g.verify().expect("valid");
    for (from, to, part) in [
        ("\"path\":\"block\"", "\"path\":\"block.act\"", "trace `block.act`: paths are not empty and stand once"),
        ("\"block\",\"value\":\"%1\"", "\"block\",\"value\":\"%9\"", "trace `block`: there is no value `%9`"),
    ] {
        let message = Graph::from_json(&text.replace(from, to)).expect_err("refused").to_string();
        assert!(message.contains(part), "{message}");
    }
}
