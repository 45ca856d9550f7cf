//! Training without a device: the formulas of optimizers, where parameters begin, what the model is shown, and what is refused.

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    graph::Reduce,
    nn::{EncoderLayer, Seq2Seq, Transformer},
    reference::Evaluation,
    train::{
        Adam, CrossEntropy, Init, Loss, LossScale, Optimizer, Reduction, Schedule, Settings, Sgd, accumulated_step,
        batches_by_length, cross_entropy, initial, pad, seed, shift_right, summed_cross_entropy, training_step,
    },
};

/// `loss = Σ c·w²/2`, whose gradient is `c·w`.
fn bowl(settings: &Settings) -> (Graph, ValueId) {
    let mut g = Graph::new();
    let c = g.input("c", DType::F32, [2]).expect("works");
    let w = g.parameter("w", DType::F32, [2]).expect("works");
    let half = g.scalar(0.5, w).expect("works");
    let square = g.mul(w, w).expect("works");
    let square = g.mul(square, half).expect("works");
    let product = g.mul(square, c).expect("works");
    let loss = g.reduce(Reduce::Sum, product, &[], false).expect("works");
    training_step(&mut g, loss, settings).expect("works");
    (g, loss)
}

const CURVES: [[f64; 2]; 4] = [[1.0, -2.0], [0.5, 3.0], [2.0, 0.0], [-1.0, 1.0]];
const START: [f64; 2] = [0.75, -1.5];

/// Some steps of a graph in the reference.
fn run(settings: &Settings) -> Vec<f64> {
    let (g, _) = bowl(settings);
    let mut given =
        BTreeMap::from([("w".to_string(), Tensor::new([2], START.map(|w| w as f32).to_vec()).expect("works"))]);
    for (t, c) in (1..).zip(CURVES) {
        given.insert("c".into(), Tensor::new([2], c.map(|c| c as f32).to_vec()).expect("works"));
        given.insert("train/rates".into(), settings.rates(t).expect("works"));
        given.extend(Evaluation::<f64>::new(&g, &given).expect("works").states(&g).expect("works"));
    }
    given["w"].to_f64()
}

/// The same steps of one weight, by a formula that takes the step's number, the weight, its gradient, and two numbers that it keeps.
fn by_hand(mut update: impl FnMut(i32, f64, f64, &mut [f64; 2]) -> f64) -> Vec<f64> {
    let mut weights = START;
    for (i, w) in weights.iter_mut().enumerate() {
        let mut kept = [0.0; 2];
        for (t, c) in (1..).zip(CURVES) {
            *w = update(t, *w, c[i] * *w, &mut kept);
        }
    }
    weights.to_vec()
}

#[track_caller]
fn same(found: &[f64], expected: &[f64]) {
    let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(near && found.len() == expected.len(), "{found:?}, expected {expected:?}");
}

#[test]
fn sgd_is_pytorchs() {
    same(&run(&Settings::new(Sgd::new(0.1))), &by_hand(|_, w, g, _| w - 0.1 * g));
    let sgd = Sgd { momentum: 0.9, dampening: 0.3, weight_decay: 0.05, ..Sgd::new(0.1) };
    let expected = by_hand(|t, w, g, kept| {
        let g = g + 0.05 * w;
        kept[0] = if t == 1 { g } else { 0.9 * kept[0] + 0.7 * g };
        w - 0.1 * kept[0]
    });
    same(&run(&Settings::new(sgd)), &expected);
    let sgd = Sgd { momentum: 0.9, nesterov: true, ..Sgd::new(0.1) };
    let expected = by_hand(|t, w, g, kept| {
        kept[0] = if t == 1 { g } else { 0.9 * kept[0] + g };
        w - 0.1 * (g + 0.9 * kept[0])
    });
    same(&run(&Settings::new(sgd)), &expected);
}

#[test]
fn adam_is_pytorchs() {
    let step = |t: i32, w: f64, g: f64, kept: &mut [f64; 2]| {
        kept[0] += 0.1 * (g - kept[0]);
        kept[1] = 0.99 * kept[1] + 0.01 * g * g;
        let root = kept[1].sqrt() / (1.0 - 0.99f64.powi(t)).sqrt() + 1e-3;
        w - 0.02 / (1.0 - 0.9f64.powi(t)) * kept[0] / root
    };
    let adam = Adam { betas: [0.9, 0.99], epsilon: 1e-3, ..Adam::new(0.02) };
    same(&run(&Settings::new(adam)), &by_hand(step));
    let decayed = Adam { weight_decay: 0.3, ..adam };
    same(&run(&Settings::new(decayed)), &by_hand(|t, w, g, kept| step(t, w, g + 0.3 * w, kept)));
    let decoupled = Adam { decoupled: true, ..decayed };
    same(&run(&Settings::new(decoupled)), &by_hand(|t, w, g, kept| step(t, w * (1.0 - 0.02 * 0.3), g, kept)));
}

/// Where the device counts the steps, what depends on their number is the same, and so is a scaled loss.
#[test]
fn a_scaled_loss_changes_nothing_that_is_finite() {
    let adam = Adam { betas: [0.9, 0.999], weight_decay: 0.3, epsilon: 1e-3, ..Adam::w(0.02) };
    let sgd = Sgd { momentum: 0.9, dampening: 0.3, weight_decay: 0.05, ..Sgd::new(0.1) };
    let none = Adam { betas: [0.0, 0.0], ..Adam::new(0.02) };
    for optimizer in [Optimizer::from(adam), sgd.into(), none.into()] {
        let plain = Settings { clip: Some(0.7), ..Settings::new(optimizer) };
        let expected = run(&plain);
        for scale in [LossScale::DYNAMIC, LossScale::Constant(1024.0), LossScale::Constant(0.3)] {
            same(&run(&Settings { scale: Some(scale), ..plain.clone() }), &expected);
        }
    }
}

#[test]
fn gradients_are_clipped_by_their_global_norm() {
    let settings = Settings { clip: Some(0.5), ..Settings::new(Sgd::new(0.1)) };
    let mut weights = START;
    for c in CURVES {
        let grads = [c[0] * weights[0], c[1] * weights[1]];
        let norm = (grads[0] * grads[0] + grads[1] * grads[1]).sqrt();
        let factor = (0.5 / (norm + 1e-6)).min(1.0);
        weights = [weights[0] - 0.1 * factor * grads[0], weights[1] - 0.1 * factor * grads[1]];
    }
    same(&run(&settings), &weights);
}

#[test]
fn schedules_begin_peak_and_end_where_they_say() {
    let same =
        |schedule: Schedule, steps: [u64; 4], expected: [f64; 4]| same(&steps.map(|t| schedule.factor(t)), &expected);
    same(Schedule::Constant, [1, 2, 1000, u64::MAX], [1.0; 4]);
    same(Schedule::InverseSquareRoot { warmup: 10 }, [1, 5, 10, 40], [0.1, 0.5, 1.0, 0.5]);
    same(Schedule::InverseSquareRoot { warmup: 0 }, [1, 4, 9, 16], [1.0, 0.5, 1.0 / 3.0, 0.25]);
    same(Schedule::Cosine { warmup: 2, steps: 10, floor: 0.2 }, [1, 2, 6, 10], [0.5, 1.0, 0.6, 0.2]);
}

fn seq2seq() -> Result<Graph> {
    let model = Seq2Seq {
        transformer: Transformer::new(EncoderLayer::new(32, 4, 64), 1, 1),
        source_vocabulary: 500,
        target_vocabulary: 60,
        source_positions: 8,
        target_positions: 8,
    };
    let mut g = Graph::new();
    let source = g.input("source", DType::I32, [2, 3])?;
    let lengths = g.input("lengths", DType::I32, [2])?;
    let target = g.input("target", DType::I32, [2, 3])?;
    let logits = model.build(&mut g, source, lengths, target)?;
    g.output("logits", logits)?;
    Ok(g)
}

/// Mean and standard deviation.
fn moments(tensor: &Tensor) -> [f64; 2] {
    let numbers = tensor.to_f64();
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    [mean, (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / numbers.len() as f64).sqrt()]
}

#[test]
fn parameters_begin_as_pytorchs_modules() {
    let g = seq2seq().expect("works");
    let start = initial(&g, 5, |_, _| None).expect("works");
    assert_eq!(start.len(), g.parameters().count());
    let spread = |name: &str, bound: f64| {
        let most = start[name].to_f64().iter().map(|x| x.abs()).fold(0.0, f64::max);
        let [mean, deviation] = moments(&start[name]);
        assert!(most <= bound && most > 0.9 * bound, "{name}: {most}, expected nearly {bound}");
        assert!(
            mean.abs() < 0.1 * bound && (deviation - bound / 3f64.sqrt()).abs() < 0.1 * bound,
            "{name}: {mean} {deviation}"
        );
    };
    spread("transformer.encoder.layers.0.linear1.weight", 1.0 / 32f64.sqrt());
    spread("transformer.encoder.layers.0.linear2.weight", 1.0 / 64f64.sqrt());
    spread("transformer.encoder.layers.0.linear1.bias", 1.0 / 32f64.sqrt());
    spread("transformer.decoder.layers.0.multihead_attn.in_proj_weight", (6.0 / (32.0 + 96.0f64)).sqrt());
    spread("transformer.encoder.layers.0.self_attn.out_proj.weight", 1.0 / 32f64.sqrt());
    spread("generator.weight", 1.0 / 32f64.sqrt());
    let [mean, deviation] = moments(&start["src_tok_emb.embedding.weight"]);
    assert!(mean.abs() < 0.02 && (deviation - 1.0).abs() < 0.02, "{mean} {deviation}");
    let all = |name: &str, value: f64| assert!(start[name].to_f64().iter().all(|x| *x == value), "{name}");
    all("transformer.encoder.layers.0.norm1.weight", 1.0);
    all("transformer.encoder.layers.0.norm1.bias", 0.0);
    all("transformer.encoder.layers.0.self_attn.in_proj_bias", 0.0);
    all("transformer.encoder.layers.0.self_attn.out_proj.bias", 0.0);

    assert_eq!(start, initial(&g, 5, |_, _| None).expect("works"));
    assert_ne!(start["generator.weight"], initial(&g, 6, |_, _| None).expect("works")["generator.weight"]);
    let ruled = initial(&g, 5, |name, _| (name == "generator.weight").then_some(Init::XavierUniform)).expect("works");
    assert!(ruled.iter().all(|(name, tensor)| (*tensor == start[name]) == (name != "generator.weight")));
}

#[test]
fn a_parameter_that_nothing_is_known_of_needs_a_rule() {
    let mut g = Graph::new();
    let scale = g.parameter("scale", DType::F32, [3]).expect("works");
    g.output("y", scale).expect("works");
    let error = initial(&g, 0, |_, _| None).expect_err("is refused").to_string();
    assert_eq!(error, "train: nothing says how `scale` [3] begins: give `initial` a rule for it, or load its values");
    let error = initial(&g, 0, |_, _| Some(Init::XavierNormal)).expect_err("is refused").to_string();
    assert_eq!(error, "train: `scale` [3] has no fan in and fan out, expected at least two axes");
    assert_eq!(initial(&g, 0, |_, _| Some(Init::Constant(2.0))).expect("works")["scale"].to_f64(), [2.0; 3]);
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let of = |settings: Settings| {
        let mut g = Graph::new();
        let w = g.parameter("w", DType::F32, [2]).expect("works");
        let other = g.parameter("other", DType::F32, [2]).expect("works");
        let sum = g.reduce(Reduce::Sum, w, &[], false).expect("works");
        g.output("other", other).expect("works");
        training_step(&mut g, sum, &settings).expect_err("is refused").to_string()
    };
    let sgd = || Settings::new(Sgd::new(0.1));
    assert_eq!(
        of(Settings::new(Sgd::new(f64::NAN))),
        "train: the optimizer's rate is NaN, expected a number from 0 on"
    );
    assert_eq!(
        of(Settings::new(Adam { betas: [0.9, 1.0], ..Adam::new(0.1) })),
        "train: the optimizer's β₂ is 1, expected 0 ≤ β₂ < 1"
    );
    assert_eq!(
        of(Settings::new(Sgd { nesterov: true, ..Sgd::new(0.1) })),
        "train: Nesterov's momentum needs a momentum, and no dampening"
    );
    assert_eq!(
        of(Settings { clip: Some(0.0), ..sgd() }),
        "train: gradients can't be clipped at 0, expected a number over 0"
    );
    assert_eq!(of(Settings { frozen: vec!["v".into()], ..sgd() }), "train: `v` is to be frozen, and is no parameter");
    let frozen = Settings { frozen: vec!["w".into()], ..sgd() };
    assert!(of(frozen).ends_with("depends on no parameter that is trained"));
    let schedule = Schedule::Cosine { warmup: 5, steps: 4, floor: 0.0 };
    assert_eq!(
        of(Settings { schedule, ..sgd() }),
        "train: the schedule ends at step 4, before its 5 steps of warm-up do"
    );
    assert_eq!(
        of(Settings { micro_batches: 0, ..sgd() }),
        "train: a step over 0 micro-batches learns nothing, expected 1 or more"
    );
    assert_eq!(
        of(Settings { micro_batches: 4, ..sgd() }),
        "train: a step over 4 micro-batches is two graphs, expected 1: use `accumulated_step`"
    );
    let mut g = Graph::new();
    let w = g.parameter("w", DType::F32, [2]).expect("works");
    assert!(training_step(&mut g, w, &sgd()).expect_err("is refused").to_string().contains("expected a single float"));
    assert_eq!(Settings::new(Adam::new(0.1)).optimizer, Optimizer::Adam(Adam::new(0.1)));
}

#[test]
fn a_scale_out_of_range_is_refused() {
    let of = |scale: LossScale| {
        let mut g = Graph::new();
        let w = g.parameter("w", DType::F32, [1]).expect("works");
        let settings = Settings { scale: Some(scale), ..Settings::new(Sgd::new(0.1)) };
        training_step(&mut g, w, &settings).expect_err("is refused").to_string()
    };
    let dynamic = |initial, growth, backoff, interval| of(LossScale::Dynamic { initial, growth, backoff, interval });
    let [zero, huge] = [0.0, 1e39].map(|value| of(LossScale::Constant(value)));
    assert_eq!(zero, "train: the loss scale's value is 0, expected a number over 0, in the range of f32");
    assert!(huge.contains("'s value is 1000000000000000000000000000000000000000, expected"), "{huge}");
    assert_eq!(
        dynamic(1e-7, 2.0, 0.5, 1),
        "train: the loss scale's initial value is 0.0000001, expected a number over 2⁻²⁰, in the range of f32"
    );
    assert_eq!(dynamic(1.0, 1.0, 0.5, 1), "train: the loss scale's growth is 1, expected a factor over 1");
    assert_eq!(dynamic(1.0, 2.0, 1.0, 1), "train: the loss scale's backoff is 1, expected a factor between 0 and 1");
    assert_eq!(dynamic(1.0, 2.0, 0.5, 0), "train: the loss scale's interval is 0, expected 1 to 2³¹ − 1 steps");
}

/// The weights of a cross entropy are computed beside its losses, and are numbers of the batch all the same.
#[test]
fn a_weight_is_a_number_of_the_batch() {
    let mut g = Graph::new();
    let w = g.parameter("w", DType::F32, [3, 2]).expect("works");
    let targets = g.input("targets", DType::I32, [3]).expect("works");
    let loss = summed_cross_entropy(&mut g, w, targets, CrossEntropy::default()).expect("works");
    let settings = Settings { micro_batches: 2, ..Settings::new(Sgd::new(0.1)) };
    accumulated_step(&mut g.clone(), loss, &settings).expect("works");
    let count = g.reduce(Reduce::Sum, targets, &[], false).expect("works");
    training_step(&mut g.clone(), Loss { weight: Some(count), ..loss }, &Settings::new(Sgd::new(0.1))).expect("works");

    let why = |g: &Graph, weight: ValueId| {
        let loss = Loss { weight: Some(weight), ..loss };
        accumulated_step(&mut g.clone(), loss, &settings).expect_err("is refused").to_string()
    };
    assert_eq!(
        why(&g, targets),
        "train: the weight of the loss is targets: i32 [3], expected a single number: take the sum of it"
    );
    let norm = g.reduce(Reduce::Sum, w, &[], false).expect("works");
    g.name(norm, "norm").expect("works");
    let why = why(&g, norm);
    assert!(why.starts_with("train: the weight of the loss, norm: f32 [], depends on a parameter that is"), "{why}");
    let options = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
    let why = summed_cross_entropy(&mut g, w, targets, options).expect_err("is refused").to_string();
    assert!(why.starts_with("cross_entropy: the reduction is Sum, expected Mean: "), "{why}");
}

#[test]
fn a_seed_is_one_input_that_says_seed_and_step() {
    let mut g = Graph::new();
    let first = seed(&mut g).expect("works");
    assert_eq!(seed(&mut g).expect("works"), first);
    assert_eq!(g.describe(first), "train/seed: u32 [4]");
    let settings = Settings { seed: 1 << 33 | 5, ..Settings::new(Sgd::new(0.1)) };
    assert_eq!(settings.draws(1 << 32 | 3).expect("works").as_u32(), Some(&[5, 2, 3, 1][..]));
    let mut g = Graph::new();
    g.input("train/seed", DType::F32, [4]).expect("works");
    assert_eq!(seed(&mut g).expect_err("is refused").to_string(), "graph: the name `train/seed` is taken");
}

#[test]
fn cross_entropy_has_every_reduction() {
    let losses = |reduction: Reduction, smoothing: f32| {
        let mut g = Graph::new();
        let logits =
            g.constant(Tensor::new([3, 2], vec![0.0f32, 1.0, 2.0, 0.0, 5.0, -5.0]).expect("works")).expect("works");
        let targets = g.constant(Tensor::new([3], vec![1, 0, 7]).expect("works")).expect("works");
        let loss = cross_entropy(
            &mut g,
            logits,
            targets,
            CrossEntropy { ignore: 7, smoothing, reduction, ..Default::default() },
        )
        .expect("works");
        Evaluation::<f64>::new(&g, &BTreeMap::new()).expect("works").value(loss).to_f64()
    };
    let log = |apart: f64| (1.0 + (-apart).exp()).ln(); // −log p of the class that is ahead by so much
    let [first, second] = [log(1.0), log(2.0)];
    same(&losses(Reduction::None, 0.0), &[first, second, 0.0]);
    same(&losses(Reduction::Sum, 0.0), &[first + second]);
    same(&losses(Reduction::Mean, 0.0), &[(first + second) / 2.0]);
    let smooth = |apart: f64| 0.8 * log(apart) + 0.2 * (log(apart) + log(-apart)) / 2.0;
    same(&losses(Reduction::None, 0.2), &[smooth(1.0), smooth(2.0), 0.0]);
}

#[test]
fn batches_hold_like_lengths_once_each() {
    let lengths: Vec<usize> = (0..50).map(|i| i * 7 % 13).collect();
    let batches = batches_by_length(&lengths, 8, 3);
    assert_eq!(batches, batches_by_length(&lengths, 8, 3));
    assert_ne!(batches, batches_by_length(&lengths, 8, 4));
    let mut all: Vec<usize> = batches.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 48);
    let spread = |batch: &Vec<usize>| {
        let of = batch.iter().map(|&item| lengths[item]);
        of.clone().max().expect("works") - of.min().expect("works")
    };
    assert!(batches.iter().all(|batch| spread(batch) <= 3));
}

#[test]
fn targets_are_shifted_and_padded() {
    let shifted = shift_right(&[vec![4, 5], vec![]], 1, 2);
    assert_eq!((shifted.input, shifted.expected), (vec![vec![1, 4, 5], vec![1]], vec![vec![4, 5, 2], vec![2]]));
    let error = pad(&[vec![1], vec![1, 2, 3]], 0, 2).expect_err("is refused").to_string();
    assert_eq!(error, "pad: sequence 1 has 3 tokens, expected 2 at the most");
    assert_eq!(
        pad(&[vec![u32::MAX]], 0, 1).expect_err("is refused").to_string(),
        "pad: sequence 0 has the id 4294967295"
    );
}
