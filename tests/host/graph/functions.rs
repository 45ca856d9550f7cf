//! Functions of the user's in graphs: what is refused, what JSON keeps, how a twin is attached.

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Tensor, ValueId,
    graph::{Align, Attention, AttentionArgs, Mask, MaskMod, Op, ScoreMod, ScoreStage},
    reference,
};

fn qkv(g: &mut Graph) -> [ValueId; 3] {
    ["q", "k", "v"].map(|name| g.input(name, DType::F32, [2, 2, 3, 4]).expect("a new name"))
}

fn half() -> ScoreMod {
    ScoreMod::new("score * 0.5", |s| s.score * 0.5).expect("compiles")
}

fn near() -> MaskMod {
    MaskMod::new("abs(i - j) < 2", |s| (s.i - s.j).abs() < 2).expect("compiles")
}

fn given(g: &Graph) -> BTreeMap<String, Tensor> {
    let numbers = |n: usize, seed: usize| (0..n).map(|i| ((i * 7 + seed) % 11) as f32 / 5.0 - 1.0).collect::<Vec<_>>();
    g.inputs()
        .enumerate()
        .map(|(seed, (name, value))| {
            let shape = g.shape(value);
            (name.to_string(), Tensor::new(shape, numbers(shape.elements().expect("small"), seed)).expect("fits"))
        })
        .collect()
}

#[test]
fn a_function_is_its_text() {
    let half = half();
    assert_eq!(half, ScoreMod::wgsl("score * 0.5").expect("compiles"));
    assert_ne!(half, ScoreMod::wgsl("score * 0.25").expect("compiles"));
    assert_eq!(format!("{half:?}"), "\"score * 0.5\"");
    assert_eq!(format!("{:?}", MaskMod::wgsl("i == j").expect("compiles")), "\"i == j\" without a twin");
    assert!(half.clone().twin().is_some());
    let error = MaskMod::wgsl("score > 0.0").expect_err("masks know no score").to_string();
    assert_eq!(
        error,
        "mask function: no definition in scope for identifier: `score`\n  score > 0.0\n  ^^^^^ unknown identifier"
    );
    assert!(MaskMod::wgsl("i - j").expect_err("no bool").to_string().contains("the result is no bool"));
}

#[test]
fn json_keeps_the_text_and_takes_the_twin_again() {
    let mut g = Graph::new();
    let [q, k, v] = qkv(&mut g);
    let args = AttentionArgs::from(Mask::function(near()) & Mask::causal(Align::TopLeft)).score_mod(half());
    let out = g.attention(q, k, v, args).expect("fits");
    g.output("out", out).expect("a new name");
    assert!(g.without_twins().is_empty());
    let text = g.to_json().expect("writes");
    assert!(text.contains(r#""score_mods":["score * 0.5"],"mask_mods":["abs(i - j) < 2"]"#), "{text}");
    assert!(g.to_string().contains(r#"causal score_mod="score * 0.5" mask_mod="abs(i - j) < 2""#), "{g}");

    let mut read = Graph::from_json(&text).expect("reads");
    assert_eq!(read, g);
    assert_eq!(read.without_twins(), ["score * 0.5", "abs(i - j) < 2"]);
    let error = reference::evaluate(&read, &given(&g)).expect_err("no twin").to_string();
    assert!(error.contains("the score function `score * 0.5` has no twin in Rust"), "{error}");
    assert_eq!(read.attach(&half()).expect("is there"), 1);
    assert_eq!(read.attach(&near()).expect("is there"), 1);
    assert_eq!(
        reference::evaluate(&read, &given(&g)).expect("runs"),
        reference::evaluate(&g, &given(&g)).expect("runs")
    );
    let other = MaskMod::new("i == j", |s| s.i == s.j).expect("compiles");
    assert_eq!(
        read.attach(&other).expect_err("not there").to_string(),
        "graph: no attention has the mask function `i == j`"
    );
    let bare = ScoreMod::wgsl("score * 0.5").expect("compiles");
    assert!(read.attach(&bare).expect_err("no twin").to_string().contains("has no twin in Rust"));

    let broken = text.replace("score * 0.5", "scor * 0.5");
    let error = Graph::from_json(&broken).expect_err("does not compile").to_string();
    assert!(
        error.contains("attention, `%3`: `score_mods`: score function: no definition in scope for identifier: `scor`"),
        "{error}"
    );
}

#[test]
fn tables_and_functions_need_each_other() {
    let mut g = Graph::new();
    let [q, k, v] = qkv(&mut g);
    let table = g.input("table", DType::F32, [5]).expect("a new name");
    let bias = || ScoreMod::wgsl("score + table[j]").expect("compiles");
    let mut error = |args: AttentionArgs| g.attention(q, k, v, args).expect_err("refused").to_string();
    let with = |mask: Mask| AttentionArgs::from(mask);
    assert_eq!(
        error(with(Mask::none()).score_mod(bias())),
        "attention: a score function reads `table`, but there is no `score_table`"
    );
    assert_eq!(
        error(with(Mask::table(table)).score_mod(half())),
        "attention: there is a `mask_table`, but no mask function reads `table`"
    );
    assert_eq!(
        error(with(Mask::function(near())).score_table(table)),
        "attention: there is a `score_table`, but no score function reads `table`"
    );
    let two = Mask::table(table) & Mask::table(q);
    assert!(error(with(two)).contains("a mask has two tables; join them end to end"));
    let whole = g.input("whole", DType::I32, [5]).expect("a new name");
    let args = with(Mask::none()).score_mod(bias()).score_table(whole);
    assert_eq!(
        g.attention(q, k, v, args).expect_err("i32").to_string(),
        "attention: `score_table` is i32, expected f32"
    );
}

/// Weights come from attention itself; scores after a function are refused in words.
#[test]
fn weights_know_functions() {
    let mut g = Graph::new();
    let [q, k, _] = qkv(&mut g);
    let args = AttentionArgs::from(Mask::function(near())).score_mod(half());
    let weights = g.attention_weights(q, k, &args).expect("fits");
    g.output("weights", weights).expect("a new name");
    let plain = AttentionArgs { scale: Some(0.25), ..AttentionArgs::default() };
    let seen: Vec<bool> = (0..9).map(|e| (e / 3i32 - e % 3).abs() < 2).collect();
    let seen = g.constant(Tensor::new([3, 3], seen).expect("fits")).expect("fits");
    let expected = AttentionArgs { mask: Mask::boolean(seen), ..plain };
    let expected = g.attention_weights(q, k, expected).expect("fits");
    g.output("expected", expected).expect("a new name");
    let inputs = given(&g);
    let outputs = reference::evaluate(&g, &inputs).expect("runs");
    let (found, expected) = (&outputs["weights"], &outputs["expected"]);
    for (a, b) in found.as_f32().expect("f32").iter().zip(expected.as_f32().expect("f32")) {
        assert!((a - b).abs() < 1e-6, "{a} and {b}");
    }
    let error = g.attention_scores(q, k, &args, ScoreStage::Masked).expect_err("never stored").to_string();
    assert!(error.contains("look at ScoreStage::Weights"), "{error}");
    g.attention_scores(q, k, &args, ScoreStage::Capped).expect("before the functions");
}

/// What is known while the graph is built is checked then.
#[test]
fn constants_that_do_not_fit_are_refused() {
    let mut g = Graph::new();
    let [q, k, v] = qkv(&mut g);
    let constant = |g: &mut Graph, tensor: tilewise::Result<Tensor>| g.constant(tensor.expect("fits")).expect("fits");
    let i32s = |g: &mut Graph, values: &[i32]| constant(g, Tensor::new([values.len()], values.to_vec()));
    let refused = |g: &mut Graph, mask: Mask, message: &str| {
        let error = g.attention(q, k, v, mask).expect_err(message).to_string();
        assert_eq!(error, format!("attention: the constant {message}"));
    };
    let nan = constant(&mut g, Tensor::new([3], vec![0.0f32, f32::NAN, 1.0]));
    refused(&mut g, Mask::bias(nan), "`bias` is NaN at element 1: scores would be no numbers");
    let high = constant(&mut g, Tensor::new([3, 1], vec![0.0f32, f32::NEG_INFINITY, f32::INFINITY]));
    let high = g.broadcast(high, [3, 3]).expect("fits");
    refused(&mut g, Mask::bias(high), "`bias` is inf at element 2: scores would be no numbers");
    let lengths = i32s(&mut g, &[3, 4]);
    refused(&mut g, Mask::key_lengths(lengths), "`key_lengths` is 4 at element 1, expected 0 to 3");
    let lengths = i32s(&mut g, &[-1, 3]);
    refused(&mut g, Mask::query_lengths(lengths), "`query_lengths` is -1 at element 0, expected 0 to 3");
    let far = i32s(&mut g, &[0, i32::MIN]);
    refused(&mut g, Mask::offsets(far), "`offsets` is -2147483648 at element 1, expected -1073741824 to 1073741824");
    let flat = ["a", "b", "c"].map(|name| g.input(name, DType::F32, [9, 2, 4]).expect("a new name"));
    let (up, down) = (i32s(&mut g, &[0, 4, 9]), i32s(&mut g, &[0, 5, 4]));
    let error = g.attention(flat[0], flat[1], flat[2], Mask::packed(up, down)).expect_err("decreases").to_string();
    assert_eq!(error, "attention: the constant `key_offsets` decreases from 5 to 4 at element 2");
    let fine = i32s(&mut g, &[3, 0]);
    g.attention(q, k, v, Mask::key_lengths(fine)).expect("fits");

    let at = i32s(&mut g, &[0, 2]);
    let new = g.input("new", DType::F32, [2, 2, 2, 4]).expect("a new name");
    let error = g.append(k, new, at, 2, false).expect_err("overflows").to_string();
    assert_eq!(error, "append: the cache overflows: 2 rows at position 2 of item 1, the cache has 3 places");
    g.append(k, new, at, 2, true).expect("a circular cache has no end");
    let (pages, table) =
        (g.input("pages", DType::F32, [5, 2, 2, 4]).expect("new"), g.input("table", DType::I32, [2, 2]).expect("new"));
    let late = i32s(&mut g, &[2, 3]);
    let error = g.append_paged(pages, new, late, table).expect_err("overflows").to_string();
    assert_eq!(error, "append_paged: the cache overflows: 2 rows at position 3 of item 1, the cache has 4 places");
    let table = constant(&mut g, Tensor::new([2, 2], vec![0, 1, 2, 5]));
    let error = g.attention(q, pages, pages, Mask::pages(table)).expect_err("no page 5").to_string();
    assert_eq!(error, "attention: the constant `block_table` is 5 at element 3, expected 0 to 4");
}

#[test]
fn a_window_is_never_negative() {
    let op = r#"{"op": "attention", "window": {"left": -1}, "inputs": ["q", "q", "q"]}"#;
    let text = format!(
        r#"{{"nodes": [{{"op": "input", "dtype": "f32", "shape": [1, 1, 2, 2], "outputs": ["q"]}}, {op}], "outputs": []}}"#
    );
    let error = Graph::from_json(&text).expect_err("negative").to_string();
    assert!(
        error.contains(
            "node 1, attention: `window` is {\"left\":-1}: -1 stands where an integer from 0 to 4294967295 is"
        ),
        "{error}"
    );
}

#[test]
fn merged_parts_have_the_shape_of_one() {
    let merge = |outs: super::Operand, lses: super::Operand| super::inferred(&Op::AttentionMerge, &[outs, lses]);
    let fits = merge(super::f32s([3, 2, 4, 5, 8]), super::f32s([3, 2, 4, 5])).expect("fits");
    assert_eq!(fits, [super::f32s([2, 4, 5, 8]), super::f32s([2, 4, 5])]);
    for (outs, lses, message) in [
        (
            super::f32s([3, 4]),
            super::f32s([2]),
            "`lses` has shape [2], expected [3], a number for each row of `outs` [3, 4]",
        ),
        (super::f32s([3]), super::f32s([]), "`outs` has shape [3], expected [P, …, Dv]: the parts one after the other"),
        (super::f32s([3, 4]), super::i32s([3]), "`lses` is i32, expected f32"),
    ] {
        assert_eq!(merge(outs, lses).expect_err(message).to_string(), format!("attention_merge: {message}"));
    }
    let mut g = Graph::new();
    assert!(g.attention_merge(&[]).expect_err("none").to_string().contains("no parts were given"));
}

#[test]
fn paged_shapes() {
    let paged = Mask::none();
    assert!(!paged.is_packed());
    let mut g = Graph::new();
    let q = g.input("q", DType::F32, [2, 4, 3, 8]).expect("new");
    let (k, v) =
        (g.input("k", DType::F32, [7, 16, 2, 8]).expect("new"), g.input("v", DType::F32, [7, 16, 2, 6]).expect("new"));
    let table = g.input("table", DType::I32, [2, 5]).expect("new");
    let results = g.attention_results(q, k, v, Mask::pages(table)).expect("fits");
    assert_eq!(g.shape(results.out), &[2, 4, 3, 6].into());
    assert_eq!(g.shape(results.status), &[2].into());
    // Masks are as wide as all pages of an item.
    let wide = g.input("wide", DType::Bool, [3, 80]).expect("new");
    g.attention(q, k, v, Mask::pages(table) & Mask::boolean(wide)).expect("fits");
    let packed = g.input("packed", DType::F32, [9, 4, 8]).expect("new");
    let starts = g.input("starts", DType::I32, [3]).expect("new");
    let results = g.attention_results(packed, k, v, Mask::pages(table) & Mask::packed_queries(starts)).expect("fits");
    assert_eq!(g.shape(results.out), &[9, 4, 6].into());
    let mut error = |k, v, mask| g.attention(q, k, v, mask).expect_err("refused").to_string();
    assert_eq!(
        error(k, v, Mask::pages(starts)),
        "attention: `block_table` has shape [3], expected [B, pages of an item] with B = 2"
    );
    assert!(error(k, q, Mask::pages(table)).contains("k and v must have as many pages"));
    assert!(error(k, v, Mask::pages(table) & Mask::packed(starts, starts)).contains("not both"));
    assert!(!Attention::default().is_paged());
}

#[test]
fn functions_of_one_attention_are_counted() {
    let mut g = Graph::new();
    let [q, k, v] = qkv(&mut g);
    let mut attend = |functions: usize| {
        let half = || ScoreMod::wgsl("score * 0.5").expect("compiles");
        let args = (0..functions).fold(AttentionArgs::from(Mask::none()), |args, _| args.score_mod(half()));
        g.attention(q, k, v, args)
    };
    attend(16).expect("fits");
    let error = attend(17).expect_err("too many").to_string();
    assert_eq!(error, "attention: 17 functions of scores and masks, at most 16 are taken");
}
