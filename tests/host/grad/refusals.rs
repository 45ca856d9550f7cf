use tilewise::{
    DType, Graph, Tensor, ValueId,
    grad::{gradients, unreached},
    graph::{AttentionArgs, CrossEntropyArgs, Mask, MaskMod, Reduce, ScoreMod},
    reference::Evaluation,
};

fn message(build: impl FnOnce(&mut Graph) -> (ValueId, ValueId)) -> String {
    let mut g = Graph::new();
    let (loss, value) = build(&mut g);
    gradients(&mut g, loss, &[value]).expect_err("refused").to_string()
}

fn sum(g: &mut Graph, x: ValueId) -> ValueId {
    g.reduce(Reduce::Sum, x, &[], false).expect("fits")
}

#[test]
fn the_loss_is_one_float() {
    let many = message(|g| {
        let x = g.input("x", DType::F32, [2]).expect("fits");
        (x, x)
    });
    assert_eq!(many, "gradients: the loss is x: f32 [2], expected a single float: take a sum or a mean of it");
    let whole = message(|g| {
        let x = g.input("x", DType::I32, [1]).expect("fits");
        (x, x)
    });
    assert_eq!(whole, "gradients: the loss is x: i32 [1], expected a single float: take a sum or a mean of it");
}

#[test]
fn integers_have_no_gradient() {
    let message = message(|g| {
        let x = g.input("x", DType::F32, []).expect("fits");
        let n = g.input("n", DType::I32, [3]).expect("fits");
        (x, n)
    });
    assert_eq!(message, "gradients: n: i32 [3] is no float, and has no gradient");
}

#[test]
fn what_has_no_derivative_is_named() {
    let function = message(|g| {
        let q = g.input("q", DType::F32, [1, 1, 4, 2]).expect("fits");
        let score = ScoreMod::new("0.5 * score", |s| 0.5 * s.score).expect("a function");
        let out = g.attention(q, q, q, AttentionArgs::from(Mask::none()).score_mod(score)).expect("fits");
        (sum(g, out), q)
    });
    assert_eq!(
        function,
        "gradients: no gradient passes through attention: it is over pages, or functions of the score, which have no derivative"
    );
    let wide = message(|g| {
        let q = g.input("q", DType::F32, [1, 1, 4, 300]).expect("fits");
        let mask = Mask::function(MaskMod::new("i > j", |s| s.i > s.j).expect("a function"));
        let out = g.attention(q, q, q, mask).expect("fits");
        (sum(g, out), q)
    });
    assert_eq!(
        wide,
        "gradients: no gradient passes through attention: its heads are too wide to be taken with functions of the mask"
    );
    let twice = message(|g| {
        let q = g.input("q", DType::F32, [1, 1, 4, 2]).expect("fits");
        let out = g.attention(q, q, q, Mask::none()).expect("fits");
        let loss = sum(g, out);
        let dq = gradients(g, loss, &[q]).expect("differentiable")[0];
        (sum(g, dq), q)
    });
    assert_eq!(twice, "gradients: no gradient passes through attention_grad: gradients of its gradient are not built");
    let weights = message(|g| {
        let logits = g.input("logits", DType::F32, [2, 4]).expect("fits");
        let targets = g.input("targets", DType::I32, [2]).expect("fits");
        let weight = g.input("weight", DType::F32, [4]).expect("fits");
        let args = CrossEntropyArgs { weight: Some(weight), ..Default::default() };
        let rows = g.cross_entropy(logits, targets, args).expect("fits");
        (sum(g, rows.loss), weight)
    });
    assert_eq!(weights, "gradients: no gradient passes through cross_entropy: weights of classes are not trained");
    let tables = message(|g| {
        let x = g.input("x", DType::F32, [1, 1, 2, 4]).expect("fits");
        let [cos, sin] = ["cos", "sin"].map(|name| g.input(name, DType::F32, [8, 2]).expect("fits"));
        let positions = g.input("positions", DType::I32, [1, 2]).expect("fits");
        let y = g.rotary(x, [cos, sin], positions, false).expect("fits");
        (sum(g, y), cos)
    });
    assert_eq!(tables, "gradients: no gradient passes through rotary: its tables of cosines and sines are not trained");
}

/// What leads nowhere is no obstacle: only a gradient that has to pass is refused.
#[test]
fn what_is_beside_the_way_is_not_refused() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [4, 1, 2]).expect("fits");
    let offsets = g.input("offsets", DType::I32, [3]).expect("fits");
    let out = g.attention(x, x, x, Mask::packed(offsets, offsets)).expect("fits");
    g.output("beside", out).expect("new");
    let scale = g.input("scale", DType::F32, []).expect("fits");
    let scaled = g.mul(out, scale).expect("fits");
    let loss = sum(&mut g, scaled);
    gradients(&mut g, loss, &[scale]).expect("attention is below the scale");
}

#[test]
fn a_parameter_that_is_not_used_gets_zeros_and_is_named() {
    let mut g = Graph::new();
    let used = g.parameter("used", DType::F32, [2]).expect("fits");
    let forgotten = g.parameter("forgotten", DType::F16, [3, 2]).expect("fits");
    let rounded = g.cast(forgotten, DType::I32).expect("fits");
    g.output("rounded", rounded).expect("new");
    let loss = sum(&mut g, used);
    assert_eq!(unreached(&g, loss, &[used, forgotten]), [forgotten]);
    let grads = gradients(&mut g, loss, &[forgotten, used]).expect("differentiable");
    let inputs = [
        ("used".to_string(), Tensor::zeros(DType::F32, [2]).expect("fits")),
        ("forgotten".to_string(), Tensor::zeros(DType::F16, [3, 2]).expect("fits")),
    ];
    let values = Evaluation::<f64>::new(&g, &inputs.into()).expect("evaluates");
    assert_eq!(values.value(grads[0]).to_f64(), [0.0; 6]);
    assert_eq!(g.dtype(grads[0]), DType::F16);
    assert_eq!(values.value(grads[1]).to_f64(), [1.0; 2]);
}

/// An index or a comparison passes none, and is no error.
#[test]
fn steps_pass_no_gradient() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [3]).expect("fits");
    let best = g.argmax(x, 0, false).expect("fits");
    let best = g.cast(best, DType::F32).expect("fits");
    let loss = sum(&mut g, best);
    let dx = gradients(&mut g, loss, &[x]).expect("zeros")[0];
    let inputs = [("x".to_string(), Tensor::new([3], vec![1.0f32, 3.0, 2.0]).expect("fits"))];
    let values = Evaluation::<f64>::new(&g, &inputs.into()).expect("evaluates");
    assert_eq!(values.value(dx).to_f64(), [0.0; 3]);
}
