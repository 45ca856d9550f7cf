//! Builder methods, names, outputs, other shapes.

use tilewise::{
    DType, Graph, Shape, Tensor, ValueId,
    graph::{Align, Mask, Op, Reduce},
};

fn graph() -> (Graph, ValueId) {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 3, 8]).expect("fits");
    (g, x)
}

fn error<T>(result: tilewise::Result<T>) -> String {
    result.err().expect("refused").to_string()
}

#[test]
fn names_are_unique_and_found() {
    let (mut g, x) = graph();
    let y = g.relu(x).expect("fits");
    assert_eq!(g.label(y), "%1");
    g.name(y, "y").expect("free");
    g.name(y, "y").expect("its own");
    g.name(y, "z").expect("free");
    assert_eq!((g.find("z"), g.find("y"), g.label(y)), (Some(y), None, "z".to_string()));
    assert_eq!(error(g.name(y, "x")), "graph: the name `x` is taken by another value (x: f32 [2, 3, 8])");
    for name in ["", "%1"] {
        let why = format!("graph: `{name}` can't be a name: names are not empty and don't start with %");
        assert_eq!(error(g.name(y, name)), why);
        assert_eq!(error(g.input(name, DType::F32, [1])), why);
    }
    assert_eq!(error(g.parameter("x", DType::F32, [1])), "graph: the name `x` is taken");
    g.verify().expect("valid");
    assert_eq!(g.values().len(), 2, "a refused input leaves nothing behind");
}

#[test]
fn outputs_have_names_of_their_own() {
    let (mut g, x) = graph();
    g.output("x", x).expect("an input may be an output");
    g.output("again", x).expect("twice");
    assert_eq!(error(g.output("x", x)), "graph: there are two outputs `x`");
    assert_eq!(error(g.output("", x)), "graph: an output's name is empty");
    let names: Vec<&str> = g.outputs().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x", "again"]);
    g.verify().expect("valid");
}

#[test]
fn values_of_another_graph_are_refused() {
    let (mut other, x) = graph();
    let far = (0..5).try_fold(x, |x, _| other.relu(x)).expect("fits");
    let (mut g, _) = graph();
    assert_eq!(error(g.push(Op::Where, &[far])), "where: operand %5 is no value of this graph");
    assert_eq!(error(g.output("y", far)), "graph: output `y`: %5 is no value of this graph");
}

#[test]
fn states_are_inputs_with_an_update() {
    let (mut g, x) = graph();
    let state = g.input("state", DType::F32, [2, 3, 8]).expect("fits");
    let next = g.add(state, x).expect("fits");
    let half = g.cast(next, DType::F16).expect("fits");
    assert_eq!(error(g.update(next, state)), "graph: update: %2: f32 [2, 3, 8] is no input and no parameter");
    assert_eq!(error(g.update(state, half)), "graph: update: state: f32 [2, 3, 8] can't become %3: f16 [2, 3, 8]");
    g.update(state, next).expect("fits");
    assert_eq!(error(g.update(state, next)), "graph: update: state: f32 [2, 3, 8] has an update already");
    assert_eq!(g.inputs().collect::<Vec<_>>(), [("x", x)]);
    assert_eq!(g.states().collect::<Vec<_>>(), [("state", state, next)]);
    assert_eq!((g.update_of(state), g.update_of(x)), (Some(next), None));
    g.verify().expect("valid");
    let longer = g.with_shapes(&[("x", [1, 5, 8].into()), ("state", [1, 5, 8].into())]).expect("fits");
    assert_eq!(longer.states().count(), 1);
    assert_eq!(
        error(g.with_shapes(&[("state", [1, 1, 8].into())])),
        "graph: update: state: f32 [1, 1, 8] can't become %2: f32 [2, 3, 8]"
    );
}

#[test]
fn inputs_and_parameters_are_listed_in_order() {
    let (mut g, x) = graph();
    let w = g.parameter("w", DType::F32, [4, 8]).expect("fits");
    let ids = g.input("ids", DType::I32, [1]).expect("fits");
    assert_eq!(g.inputs().collect::<Vec<_>>(), [("x", x), ("ids", ids)]);
    assert_eq!(g.parameters().collect::<Vec<_>>(), [("w", w)]);
    let y = g.linear(x, w, None).expect("fits");
    assert_eq!(g.users()[x.index()].len(), 1);
    assert_eq!(g.node(g.users()[w.index()][0]).outputs, [y]);
    assert_eq!(g.describe(y), "%3: f32 [2, 3, 4]");
}

#[test]
fn linear_names_what_does_not_fit() {
    let (mut g, x) = graph();
    let w = g.parameter("w", DType::F32, [4, 8]).expect("fits");
    let b = g.parameter("b", DType::F32, [4]).expect("fits");
    let y = g.linear(x, w, Some(b)).expect("fits");
    assert_eq!(g.shape(y), &[2, 3, 4].into());
    let wrong = g.parameter("wrong", DType::F32, [8, 4]).expect("fits");
    assert_eq!(
        error(g.linear(x, wrong, None)),
        "linear: `x` is [2, 3, 8], `weight` is [8, 4], expected [out, in] with in = the last size of x"
    );
    assert_eq!(error(g.linear(x, w, Some(w))), "linear: `bias` is [4, 8], expected [4]");
    assert_eq!(
        error(g.linear(x, b, None)),
        "linear: `x` is [2, 3, 8], `weight` is [4], expected [out, in] with in = the last size of x"
    );
}

#[test]
fn axes_count_from_the_end() {
    let (mut g, x) = graph();
    let p = g.softmax(x, -1).expect("fits");
    assert_eq!(g.definition(p).op, Op::Softmax { axis: 2 });
    let sum = g.reduce(Reduce::Sum, x, &[-1, 0], false).expect("fits");
    assert_eq!(g.definition(sum).op, Op::Reduce { function: Reduce::Sum, axes: vec![0, 2], keep: false });
    let all = g.reduce(Reduce::Sum, x, &[], false).expect("fits");
    assert_eq!(g.shape(all), &Shape::default());
    let part = g.slice(x, -2, 1, 3).expect("fits");
    assert_eq!(g.shape(part), &[2, 2, 8].into());
    for message in [
        error(g.softmax(x, 3)),
        error(g.log_softmax(x, -4)),
        error(g.reduce(Reduce::Max, x, &[3], false)),
        error(g.argmax(x, 3, false)),
        error(g.slice(x, 3, 0, 1)),
        error(g.concat(&[x], -4)),
        error(g.gather(x, x, 3)),
    ] {
        assert!(message.ends_with("is out of range for [2, 3, 8] (rank 3)"), "{message}");
    }
    assert_eq!(error(g.reduce(Reduce::Max, x, &[0, -3], false)), "max: axes [0, 0] are not sorted or repeat");
    assert_eq!(error(g.slice(x, 1, 2, 4)), "slice: 2..4 leaves axis 1 of [2, 3, 8]");
    assert_eq!(error(g.slice(x, 1, 2, 1)), "slice: 2..1 leaves axis 1 of [2, 3, 8]");
    assert_eq!(error(g.concat(&[], 0)), "concat: no operands were given, expected at least one");
}

#[test]
fn heads_are_split_and_merged() {
    let (mut g, x) = graph();
    let heads = g.split_heads(x, 4).expect("fits");
    assert_eq!(g.shape(heads), &[2, 4, 3, 2].into());
    let merged = g.merge_heads(heads).expect("fits");
    assert_eq!(g.shape(merged), g.shape(x));
    for n in [0, 3] {
        assert_eq!(
            error(g.split_heads(x, n)),
            format!("split_heads: `x` is [2, 3, 8], expected [B, T, E] with E a multiple of {n} heads")
        );
    }
    assert_eq!(error(g.merge_heads(x)), "merge_heads: `x` is [2, 3, 8], expected [B, H, T, D]");
}

#[test]
fn scalars_take_the_dtype_of_what_they_meet() {
    let mut g = Graph::new();
    for (i, dtype) in DType::ALL.into_iter().enumerate() {
        let x = g.input(&format!("x{i}"), dtype, [2]).expect("fits");
        let one = g.scalar(1.0, x).expect("fits");
        assert_eq!((g.dtype(one), g.shape(one).rank()), (dtype, 0));
        let same = g.cast(x, dtype).expect("fits");
        assert_eq!(same, x, "a cast to the dtype that it is adds no node");
    }
}

#[test]
fn another_shape_is_inferred_through() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 3, 8]).expect("fits");
    let w = g.parameter("w", DType::F32, [4, 8]).expect("fits");
    let y = g.linear(x, w, None).expect("fits");
    g.name(y, "y").expect("free");
    let p = g.softmax(y, -1).expect("fits");
    g.output("p", p).expect("free");
    let longer = g.with_shapes(&[("x", [1, 70, 8].into())]).expect("fits");
    longer.verify().expect("valid");
    assert_eq!(longer.shape(longer.outputs()[0].1), &[1, 70, 4].into());
    assert_eq!(longer.find("y"), Some(y));
    assert_eq!(g.with_shapes(&[]).expect("fits"), g);

    assert_eq!(
        error(g.with_shapes(&[("x", [2, 9].into())])),
        "matmul: `a` [2, 9] has inner size 9, `b` [4, 8] transposed has 8"
    );
    for name in ["y", "nothing"] {
        let why = format!("graph: there is no input or parameter `{name}`");
        assert_eq!(error(g.with_shapes(&[(name, [1].into())])), why);
    }
    // What an operation bakes in doesn't follow.
    let flat = g.reshape(y, [24]).expect("fits");
    g.output("flat", flat).expect("free");
    assert_eq!(
        error(g.with_shapes(&[("x", [1, 70, 8].into())])),
        "reshape: [1, 70, 4] has 280 elements, the new shape [24] has 24"
    );
}

#[test]
fn a_refused_node_leaves_the_graph_as_it_was() {
    let (mut g, x) = graph();
    let before = g.clone();
    assert!(g.matmul(x, x).is_err());
    // The views around it are taken back too.
    assert!(g.attention(x, x, x, Mask::causal(Align::TopLeft) & Mask::bias(x) & Mask::bias(x)).is_err());
    assert!(g.attention_weights(x, x, Mask::bias(x)).is_err());
    assert!(g.reshape(x, [5]).is_err());
    assert_eq!(g, before);
}

#[test]
fn constants_keep_their_value() {
    let mut g = Graph::new();
    let tensor = Tensor::new([2], vec![1, 2]).expect("fits");
    let c = g.constant(tensor.clone()).expect("fits");
    assert_eq!(g.definition(c).op, Op::Constant { value: tensor });
    assert_eq!((g.dtype(c), g.value(c).name.clone()), (DType::I32, None));
}

/// Values of another graph are an error, never a panic.
#[test]
fn a_value_of_another_graph_is_refused() {
    let mut other = Graph::new();
    for i in 0..20 {
        other.input(&format!("x{i}"), DType::F32, [2, 3, 4, 5]).expect("a new name");
    }
    let stranger = other.find("x19").expect("it is there");
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 3, 4, 5]).expect("a new name");
    type Build = fn(&mut Graph, ValueId, ValueId) -> tilewise::Result<ValueId>;
    let builders: [Build; 14] = [
        |g, x, s| g.matmul(x, s),
        |g, x, s| g.linear(s, x, None),
        |g, x, s| g.attention(x, s, x, Mask::none()),
        |g, x, s| g.attention(x, x, x, Mask::bias(s)),
        |g, x, s| g.attention_weights(x, s, Mask::none()),
        |g, x, s| g.layer_norm(x, Some(s), None, 1e-5),
        |g, _, s| g.softmax(s, -1),
        |g, _, s| g.cast(s, DType::F16),
        |g, _, s| g.reduce(Reduce::Sum, s, &[], false),
        |g, _, s| g.argmax(s, 0, false),
        |g, x, s| g.concat(&[x, s], 0),
        |g, x, s| g.gather(s, x, 0),
        |g, _, s| g.split_heads(s, 2),
        |g, _, s| g.slice(s, 0, 0, 1),
    ];
    for (i, build) in builders.iter().enumerate() {
        assert!(build(&mut g, x, stranger).is_err(), "builder {i}");
    }
    assert!(g.output("y", stranger).is_err());
    assert!(g.update(x, stranger).is_err());
    assert!(g.name(stranger, "name").is_err());
    g.verify().expect("nothing was added that does not fit");
}
