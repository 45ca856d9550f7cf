//! Training on the device: what the examples say, and what a run that goes wrong or is stopped leaves.

#[path = "../../examples/train_classifier/task.rs"]
mod classifier;
#[path = "../../examples/train_seq2seq/task.rs"]
mod task;

use std::collections::BTreeMap;

use task::{Mistake, Task};
use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    graph::{Binary, Reduce, Unary},
    lower::{Buffer, Program, Role},
    nn::{
        Dropout, EncoderLayer, Linear, Seq2Seq, Transformer,
        generate::{Capacity, Generator, Request},
    },
    reference::{Evaluation, Random},
    train::{
        Adam, CrossEntropy, Loss, LossScale, Optimizer, Report, Settings, Sgd, Trainer, cross_entropy, initial, seed,
        summed_cross_entropy, training_step,
    },
};

use crate::{
    common::{another_gpu, gpu},
    heap::allocations,
};

fn train(mistake: Mistake, steps: usize) -> (f32, task::Validation) {
    let mut task = Task::new(gpu(), mistake, mistake.dropout(), 7).expect("works");
    let last = (0..steps).map(|_| task.step().expect("works")).last().expect("works");
    (last, task.validate().expect("works"))
}

#[test]
fn two_modalities_of_unlike_length_and_width_are_learnt() {
    let (loss, found) = train(Mistake::None, 170);
    assert!(loss < 0.5 && found.loss < 0.5, "{loss} {}", found.loss);
    assert!(found.forced > 0.85, "{}", found.forced);
    assert!(found.generated > 0.5, "{}", found.generated);
    assert!(found.examples.iter().filter(|[said, generated]| said == generated).count() > 16);
    // Each word but the end is heard where it was said: attention moves on.
    let peak = |row: &Vec<f64>| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(frame, _)| frame);
    assert!(peak(&found.attention[0]) < peak(&found.attention[found.attention.len() - 1]), "{:?}", found.attention);
}

#[test]
fn without_a_causal_mask_the_loss_falls_and_generation_is_nonsense() {
    let (loss, found) = train(Mistake::NoCausalMask, 110);
    assert!(loss < 0.1 && found.forced > 0.95, "{loss} {}", found.forced);
    assert!(found.generated < 0.1, "{}", found.generated);
}

fn steps(trainer: &mut Trainer, numbers: std::ops::Range<u64>) {
    for t in numbers {
        step(trainer, t).expect("works");
    }
}

/// A small model, with its loss.
fn line() -> Result<(Graph, ValueId)> {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [4, 6])?;
    let wanted = g.input("wanted", DType::I32, [4])?;
    let hidden = Linear::new(6, 8).build(&mut g, "in", x)?;
    let hidden = g.tanh(hidden)?;
    let logits = Linear::new(8, 3).build(&mut g, "out", hidden)?;
    let loss = cross_entropy(&mut g, logits, wanted, CrossEntropy::default())?;
    Ok((g, loss))
}

fn batch(seed: u64) -> [(&'static str, Tensor); 2] {
    let mut random = Random::new(seed);
    let x = random.tensor(DType::F32, [4, 6], -1.0, 1.0).expect("works");
    let wanted = random.wholes(DType::I32, [4], 0, 2).expect("works");
    [("x", x), ("wanted", wanted)]
}

fn step(trainer: &mut Trainer, seed: u64) -> Result<f32> {
    let batch = batch(seed);
    trainer.step(&[(batch[0].0, &batch[0].1), (batch[1].0, &batch[1].1)]).map(|report| report.loss)
}

fn trainer(settings: Settings) -> Trainer {
    let (g, loss) = line().expect("works");
    let start = initial(&g, 3, |_, _| None).expect("works");
    Trainer::new(gpu(), &g, loss, settings, &start).expect("works")
}

/// Every optimizer with every option, against the reference's run of the same formulas, and plain arithmetic in the reference.
#[test]
fn optimizers_do_on_the_device_what_they_do_in_the_reference() {
    let sgd = Sgd::new(0.1);
    let momentum = Sgd { momentum: 0.9, dampening: 0.3, weight_decay: 0.01, ..sgd };
    let nesterov = Sgd { momentum: 0.9, nesterov: true, ..sgd };
    let adam = Adam { weight_decay: 0.1, epsilon: 1e-4, ..Adam::new(0.01) };
    let all: [Optimizer; 5] = [sgd.into(), momentum.into(), nesterov.into(), adam.into(), Adam::w(0.02).into()];
    for (optimizer, clip) in all.into_iter().flat_map(|o| [(o, None), (o, Some(0.05))]) {
        let settings = Settings { clip, ..Settings::new(optimizer) };
        let (g, loss) = line().expect("works");
        let mut given = initial(&g, 3, |_, _| None).expect("works");
        let mut trainer = Trainer::new(gpu(), &g, loss, settings.clone(), &given).expect("works");
        let mut whole = g.clone();
        training_step(&mut whole, loss, &settings).expect("works");
        for t in 1..=4 {
            step(&mut trainer, t).expect("works");
            given.insert("train/rates".into(), settings.rates(t).expect("works"));
            given.extend(batch(t).map(|(name, tensor)| (name.to_string(), tensor)));
            let states = Evaluation::<f64>::new(&whole, &given).expect("works").states(&whole).expect("works");
            given.extend(states);
        }
        for (name, found) in trainer.parameters().expect("works") {
            for (found, expected) in found.to_f64().iter().zip(given[&name].to_f64()) {
                assert!((found - expected).abs() < 2e-5, "{optimizer:?} {clip:?} {name}: {found}, expected {expected}");
            }
        }
    }
}

#[test]
fn a_run_that_is_stopped_and_resumed_gives_the_same_bits() {
    let settings = Settings { clip: Some(1.0), ..Settings::new(Adam::w(0.01)) };
    let mut whole = trainer(settings.clone());
    steps(&mut whole, 0..6);
    let mut first = trainer(settings.clone());
    steps(&mut first, 0..3);
    let folder = tempfile::tempdir().expect("works");
    let file = folder.path().join("checkpoint.safetensors");
    first.save(&file).expect("works");

    let mut second = trainer(settings);
    second.load(&file).expect("works");
    assert_eq!(second.steps(), 3);
    steps(&mut second, 3..6);
    assert_eq!(second.parameters().expect("works"), whole.parameters().expect("works"));

    // That of another optimizer, and another file, are refused, and nothing has changed.
    let mut other = trainer(Settings::new(Sgd::new(0.1)));
    let before = other.parameters().expect("works");
    let why = other.load(&file).expect_err("is refused").to_string();
    assert!(why.starts_with("checkpoint: there is no parameter or state `exp_avg/in.bias`; "), "{why}");
    tilewise::safetensors::save(&file, &other.parameters().expect("works")).expect("works");
    let why = other.load(&file).expect_err("is refused").to_string();
    assert!(why.ends_with("`train/steps` is missing, or not u32 [2]: this is no checkpoint"), "{why}");
    assert_eq!(other.parameters().expect("works"), before);
}

/// The same with dropout between its layers.
fn dropping() -> Result<(Graph, ValueId)> {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [4, 6])?;
    let wanted = g.input("wanted", DType::I32, [4])?;
    let dropout = Dropout { p: 0.5, seed: seed(&mut g)? };
    let x = dropout.build(&mut g, "dropout1", x)?;
    let hidden = Linear::new(6, 8).build(&mut g, "in", x)?;
    let hidden = g.tanh(hidden)?;
    let hidden = dropout.build(&mut g, "dropout2", hidden)?;
    let logits = Linear::new(8, 3).build(&mut g, "out", hidden)?;
    g.output("logits", logits)?;
    let loss = cross_entropy(&mut g, logits, wanted, CrossEntropy::default())?;
    Ok((g, loss))
}

/// Each step draws anew, by its number: a run that was resumed draws what it would have drawn, and the reference draws the same.
#[test]
fn dropouts_draw_by_seed_and_step_and_not_in_validation() {
    let (g, loss) = dropping().expect("works");
    let start = initial(&g, 3, |_, _| None).expect("works");
    let trainer = |seed: u64| {
        let settings = Settings { seed, ..Settings::new(Sgd::new(0.1)) };
        Trainer::new(gpu(), &g, loss, settings, &start).expect("works")
    };
    let mut whole = trainer(11);
    let losses: Vec<f32> = (0..6).map(|_| step(&mut whole, 1).expect("works")).collect();
    let mut first = trainer(11);
    assert_eq!((0..3).map(|_| step(&mut first, 1).expect("works")).collect::<Vec<_>>(), losses[..3]);
    let checkpoint = pollster::block_on(first.checkpoint_async()).expect("works");
    pollster::block_on(first.restore_async(&checkpoint)).expect("works");
    assert_eq!((3..6).map(|_| step(&mut first, 1).expect("works")).collect::<Vec<_>>(), losses[3..]);
    assert_eq!(first.parameters().expect("works"), whole.parameters().expect("works"));
    assert_ne!(step(&mut trainer(12), 1).expect("works"), losses[0]);

    // The step's loss is that of the graph with the step's seed, a validation's that of the graph without dropout.
    let [x, wanted] = batch(1);
    let mut given: BTreeMap<String, Tensor> = start.clone();
    given.extend([x.clone(), wanted.clone()].map(|(name, tensor)| (name.to_string(), tensor)));
    let settings = Settings { seed: 11, ..Settings::new(Sgd::new(0.1)) };
    given.insert("train/seed".into(), settings.draws(1).expect("works"));
    let of = |g: &Graph, value: ValueId| Evaluation::<f64>::new(g, &given).expect("works").value(value).to_f64();
    let near = |found: &[f64], expected: &[f64]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
    let (logits, inputs) = (g.outputs()[0].1, [(x.0, &x.1), (wanted.0, &wanted.1)]);
    let report = trainer(11).step(&inputs).expect("works");
    assert!(near(&[report.loss.into()], &of(&g, loss)));
    assert!(near(&report.outputs["logits"].to_f64(), &of(&g, logits)));
    let (found, outputs) = trainer(11).validate(&inputs).expect("works");
    let without = g.without_dropout();
    assert!(near(&[found.into()], &of(&without, loss)));
    assert!(near(&outputs["logits"].to_f64(), &of(&without, logits)));
    assert!(!near(&of(&without, logits), &of(&g, logits)));
}

#[test]
fn a_loss_that_is_not_finite_changes_nothing_and_is_explained() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [4]).expect("works");
    let w = g.parameter("w", DType::F32, [4]).expect("works");
    let product = g.mul(x, w).expect("works");
    let root = g.unary(Unary::Sqrt, product).expect("works");
    g.name(root, "root").expect("works");
    let loss = g.reduce(Reduce::Sum, root, &[], false).expect("works");
    let start = BTreeMap::from([("w".to_string(), Tensor::new([4], vec![1.0f32, 2.0, 3.0, 4.0]).expect("works"))]);
    for clip in [None, Some(1.0)] {
        let settings = Settings { clip, ..Settings::new(Adam::new(0.1)) };
        let mut trainer = Trainer::new(gpu(), &g, loss, settings, &start).expect("works");
        let good = Tensor::new([4], vec![1.0f32; 4]).expect("works");
        trainer.step(&[("x", &good)]).expect("works");
        let before = pollster::block_on(trainer.checkpoint_async()).expect("works");
        let bad = Tensor::new([4], vec![1.0f32, -1.0, 1.0, 1.0]).expect("works");
        let why = trainer.step(&[("x", &bad)]).expect_err("is refused").to_string();
        assert_eq!(
            why,
            "train: step 2 has the loss NaN; the first value that is not finite is root: f32 [4] (sqrt); the parameters are as they \
             were before it; a lower learning rate, a warm-up or clipping may help"
        );
        assert_eq!(pollster::block_on(trainer.checkpoint_async()).expect("works"), before);
        trainer.step(&[("x", &good)]).expect("works");
        assert_eq!(trainer.steps(), 2);
    }
}

#[test]
fn what_is_frozen_stays_and_what_is_trained_is_shared() {
    let settings = Settings { frozen: vec!["in.weight".into()], ..Settings::new(Sgd::new(0.5)) };
    let mut trainer = trainer(settings);
    let before = trainer.parameters().expect("works");
    let (mut g, loss) = line().expect("works");
    g.output("loss", loss).expect("works");
    let mut other = gpu().clone().compile(&g, trainer.shared().expect("works")).expect("works");
    step(&mut trainer, 1).expect("works");
    let after = trainer.parameters().expect("works");
    assert_eq!(before["in.weight"], after["in.weight"]);
    assert_ne!(before["in.bias"], after["in.bias"]);
    // Another program over the same buffers sees the step.
    let batch = batch(2);
    let seen = other.run(&[("x", &batch[0].1), ("wanted", &batch[1].1)]).expect("works")["loss"].to_f64()[0] as f32;
    assert_eq!(seen, trainer.validate(&[("x", &batch[0].1), ("wanted", &batch[1].1)]).expect("works").0);
}

/// The buffers that are trained generate, without a copy, while they go on learning.
#[test]
fn a_generator_takes_the_trained_buffers() {
    let model = Seq2Seq {
        transformer: Transformer::new(EncoderLayer::new(16, 4, 32), 1, 1),
        source_vocabulary: 12,
        target_vocabulary: 12,
        source_positions: 8,
        target_positions: 8,
    };
    let mut g = Graph::new();
    let source = g.input("source", DType::I32, [2, 3]).expect("works");
    let lengths = g.input("lengths", DType::I32, [2]).expect("works");
    let seen = g.input("seen", DType::I32, [2, 3]).expect("works");
    let expected = g.input("expected", DType::I32, [2, 3]).expect("works");
    let logits = model.build(&mut g, source, lengths, seen).expect("works");
    let loss = cross_entropy(&mut g, logits, expected, CrossEntropy::default()).expect("works");
    let start = initial(&g, 1, |_, _| None).expect("works");
    let mut trainer = Trainer::new(gpu(), &g, loss, Settings::new(Adam::new(0.02)), &start).expect("works");
    let mut generator =
        Generator::new(gpu(), model, trainer.shared().expect("works"), Capacity::items(2)).expect("works");
    let ids = |rows: [[i32; 3]; 2]| Tensor::new([2, 3], rows.concat()).expect("works");
    let (source, seen, expected) =
        (ids([[3, 4, 5], [6, 7, 8]]), ids([[1, 9, 10], [1, 11, 9]]), ids([[9, 10, 2], [11, 9, 2]]));
    let lengths = Tensor::new([2], vec![3, 3]).expect("works");
    for _ in 0..60 {
        trainer
            .step(&[("source", &source), ("lengths", &lengths), ("seen", &seen), ("expected", &expected)])
            .expect("works");
    }
    let request = Request { sources: vec![vec![3, 4, 5], vec![6, 7, 8]], ..Request::new(vec![vec![1], vec![1]], 3) };
    let generated = generator.generate(&request).expect("works");
    assert_eq!(generated.sequences[0].ids, [9, 10, 2]);
    assert_eq!(generated.sequences[1].ids, [11, 9, 2]);
}

/// The bytes that a program is planned to take: what lasts, temporaries, and inputs and outputs here and on the way.
fn planned(program: &Program) -> u64 {
    let of = |buffer: &Buffer| match buffer.role {
        Role::State { .. } | Role::Parameter(_) | Role::Constant(_) => buffer.bytes,
        Role::Input(_) | Role::Output(_) => 2 * buffer.bytes,
        Role::Temporary(_) | Role::Next(_) => 0,
    };
    program.peak_bytes() + program.buffers.iter().map(of).sum::<u64>()
}

/// A thousand steps, of which half are waited for, take the memory of the device that was planned, from the second on the same, and as
/// much from the host's heap each. In a process of its own, as `allocations` is.
#[test]
fn memory_does_not_grow_from_step_to_step() {
    const CHILD: &str = "RUST_LIB_BACKTRACE";
    if std::env::var(CHILD).as_deref() != Ok("0") {
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "train::memory_does_not_grow_from_step_to_step", "--nocapture"])
            .env(CHILD, "0")
            .output()
            .expect("starts");
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        println!("{out}");
        assert!(output.status.success() && out.contains("1 passed"), "{err}");
        return;
    }
    let gpu = another_gpu();
    let settings = Settings { clip: Some(1.0), ..Settings::new(Adam::new(1e-3)) };
    let (g, loss) = line().expect("works");
    let mut whole = g.clone();
    training_step(&mut whole, loss, &settings).expect("works");
    let plan = planned(&gpu.lower(&whole, &gpu.options()).expect("works"));
    let start = initial(&g, 3, |_, _| None).expect("works");
    let mut trainer = Trainer::new(&gpu, &g, loss, settings, &start).expect("works");
    let (batch, at_driver) = (batch(1), || gpu.device().generate_allocator_report().map(|r| r.total_reserved_bytes));
    let batch = refs(&batch);

    let mut waited = Vec::new();
    let mut reserved = None;
    for step in 1..=500 {
        waited.push(allocations(|| trainer.step(&batch).expect("works")).0);
        assert_eq!((gpu.memory(), trainer.memory()), (plan, plan), "in step {step}");
        if step == 2 {
            reserved = at_driver();
        }
    }
    // Eight batches of as many steps as are queued at the most, and reports between.
    let mut queued = Vec::new();
    for round in 0..8 {
        for _ in 0..62 {
            queued.push(allocations(|| trainer.queue(&batch).expect("works")).0);
            // Four numbers of each of 64 runs.
            assert_eq!((gpu.memory(), trainer.memory()), (plan + 1024, plan + 1024), "in round {round}");
        }
        assert_eq!(trainer.reports().expect("works").len(), 62);
    }
    (0..4).for_each(|_| drop(trainer.step(&batch).expect("works")));
    assert_eq!((trainer.steps(), gpu.memory()), (1000, plan + 1024));
    println!("{plan} bytes as planned; the driver's {reserved:?}, {:?} in the end", at_driver());
    println!(
        "allocations: waited {:?} … {:?}, queued {:?} … {:?}",
        &waited[..9],
        &waited[490..],
        &queued[..9],
        &queued[486..]
    );
    assert_eq!(at_driver(), reserved);
    // wgpu frees and takes what it tracks when the device is done, so a step may take a few more or less; none grows.
    let middle = |counts: &[usize]| {
        let mut counts = counts.to_vec();
        counts.sort_unstable();
        counts[counts.len() / 2]
    };
    for counts in [&waited, &queued] {
        let (early, late) = (middle(&counts[1..61]), middle(&counts[counts.len() - 60..]));
        assert!(early.abs_diff(late) <= 8, "{early} allocations in a step, {late} in one of the last");
    }
}

#[test]
fn a_row_that_sees_nothing_gives_no_gradient_and_harms_no_other() {
    let mut g = Graph::new();
    let q = g.parameter("q", DType::F32, [1, 1, 2, 4]).expect("works");
    let k = g.input("k", DType::F32, [1, 1, 3, 4]).expect("works");
    let mask =
        g.constant(Tensor::new([2, 3], vec![false, false, false, true, true, false]).expect("works")).expect("works");
    let y = g.attention(q, k, k, tilewise::graph::Mask::boolean(mask)).expect("works");
    let square = g.binary(Binary::Mul, y, y).expect("works");
    let loss = g.reduce(Reduce::Sum, square, &[], false).expect("works");
    let start =
        BTreeMap::from([("q".to_string(), Random::new(1).tensor(DType::F32, [1, 1, 2, 4], -1.0, 1.0).expect("works"))]);
    let mut trainer = Trainer::new(gpu(), &g, loss, Settings::new(Sgd::new(0.1)), &start).expect("works");
    trainer.step(&[("k", &Random::new(2).tensor(DType::F32, [1, 1, 3, 4], -1.0, 1.0).expect("works"))]).expect("works");
    let (before, after) = (start["q"].to_f64(), trainer.parameters().expect("works")["q"].to_f64());
    assert_eq!(before[..4], after[..4]);
    assert_ne!(before[4..], after[4..]);
}

/// The answer to whether packing changes what is learnt: by rounding alone.
#[test]
fn padded_and_packed_sequences_have_the_same_gradients() {
    let batch = classifier::batch(&mut rand_pcg::Pcg64::new(1, 0)).expect("works");
    let [padded, packed] = [classifier::Layout::Padded, classifier::Layout::Packed]
        .map(|layout| classifier::grads(gpu(), layout, &batch).expect("works"));
    let apart = classifier::difference(&padded, &packed);
    assert!(padded.len() > 30 && apart < 1e-4, "{} gradients, {apart}", padded.len());
    // They are not all 0.
    assert!(padded.iter().filter(|(_, grad)| grad.to_f64().iter().any(|x| x.abs() > 1e-3)).count() > 20);
}

#[test]
fn a_classifier_learns_from_packed_sequences() {
    let trained = classifier::train(gpu(), classifier::Layout::Packed, 60).expect("works");
    assert!(trained.losses[0] > 0.9 && trained.losses[59] < 0.6, "{:?}", trained.losses);
    assert!(trained.right > 0.6 && trained.seconds > 0.0 && trained.memory > 0, "{}", trained.right);
}

/// [`line`] over so many items, with its loss as a sum and a count.
fn summed(items: usize) -> (Graph, Loss) {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [items, 6]).expect("works");
    let wanted = g.input("wanted", DType::I32, [items]).expect("works");
    let hidden = Linear::new(6, 8).build(&mut g, "in", x).expect("works");
    let hidden = g.tanh(hidden).expect("works");
    let logits = Linear::new(8, 3).build(&mut g, "out", hidden).expect("works");
    let loss = summed_cross_entropy(&mut g, logits, wanted, CrossEntropy::default()).expect("works");
    (g, loss)
}

/// Twelve items, of which micro-batches of four have 4, 1 and 2 that count.
fn joined(seed: u64) -> [(&'static str, Tensor); 2] {
    let mut random = Random::new(seed);
    let x = random.tensor(DType::F32, [12, 6], -1.0, 1.0).expect("works");
    let wanted = vec![0, 1, 2, 1, -100, 2, -100, -100, 0, -100, -100, 1];
    [("x", x), ("wanted", Tensor::new([12], wanted).expect("works"))]
}

fn parts(seed: u64) -> [[(&'static str, Tensor); 2]; 3] {
    let [(_, x), (_, wanted)] = joined(seed);
    let (x, wanted) = (x.as_f32().expect("f32").to_vec(), wanted.as_i32().expect("i32").to_vec());
    [0, 1, 2].map(|i| {
        let x = Tensor::new([4, 6], x[24 * i..24 * (i + 1)].to_vec()).expect("works");
        let wanted = Tensor::new([4], wanted[4 * i..4 * (i + 1)].to_vec()).expect("works");
        [("x", x), ("wanted", wanted)]
    })
}

fn refs<'a>(batch: &'a [(&'static str, Tensor)]) -> Vec<(&'a str, &'a Tensor)> {
    batch.iter().map(|(name, tensor)| (*name, tensor)).collect()
}

fn over(items: usize, settings: Settings) -> Trainer {
    let (g, loss) = summed(items);
    let start = initial(&g, 3, |_, _| None).expect("works");
    Trainer::new(gpu(), &g, loss, settings, &start).expect("works")
}

#[track_caller]
fn near(found: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>, bound: f64) {
    assert!(found.keys().eq(expected.keys()));
    for (name, found) in found {
        for (found, expected) in found.to_f64().iter().zip(expected[name].to_f64()) {
            assert!((found - expected).abs() < bound, "{name}: {found}, expected {expected}");
        }
    }
}

/// Micro-batches of 4, 1 and 2 targets learn what the joined batch of 7 does, and not the mean of their means.
#[test]
fn micro_batches_learn_what_the_joined_batch_does() {
    for (settings, bound) in [
        (Settings { clip: Some(0.1), ..Settings::new(Adam { epsilon: 1e-4, ..Adam::w(0.01) }) }, 2e-6),
        (Settings::new(Sgd { momentum: 0.9, ..Sgd::new(0.3) }), 1e-6),
    ] {
        let mut whole = over(12, settings.clone());
        let accumulated = Settings { micro_batches: 3, ..settings };
        let mut trainers = [over(4, accumulated.clone()), over(4, accumulated)];
        for seed in 0..4 {
            let expected = whole.step(&refs(&joined(seed))).expect("works");
            for trainer in &mut trainers {
                let given = parts(seed).map(|part| trainer.accumulate(&refs(&part)).expect("works"));
                assert_eq!(given.each_ref().map(|micro| (micro.number, micro.weight)), [(1, 4.0), (2, 1.0), (3, 2.0)]);
                let [None, None, Some(report)] = given.map(|micro| micro.step) else { panic!("a step after three") };
                assert_eq!((report.step, report.weight, trainer.micro_batches()), (seed + 1, Some(7.0), 0));
                assert!((report.loss - expected.loss).abs() < 1e-6, "{} {}", report.loss, expected.loss);
                let apart = report.norm.zip(expected.norm).map_or(0.0, |(found, expected)| (found - expected).abs());
                assert!(apart < 1e-6 && report.norm.is_some() == expected.norm.is_some(), "{apart}");
            }
        }
        let [first, second] = trainers.map(|trainer| trainer.parameters().expect("works"));
        assert_eq!(first, second, "the same bits twice");
        near(&first, &whole.parameters().expect("works"), bound);
    }
}

#[test]
fn a_run_that_is_stopped_between_micro_batches_gives_the_same_bits() {
    let settings = Settings { micro_batches: 3, clip: Some(1.0), ..Settings::new(Adam::w(0.01)) };
    let all: Vec<_> = (0..2).flat_map(parts).collect();
    let run = |trainer: &mut Trainer, batches: &[[(&'static str, Tensor); 2]]| {
        batches.iter().for_each(|batch| drop(trainer.accumulate(&refs(batch)).expect("works")));
    };
    let mut whole = over(4, settings.clone());
    run(&mut whole, &all);
    let mut first = over(4, settings.clone());
    run(&mut first, &all[..5]);
    let checkpoint = pollster::block_on(first.checkpoint_async()).expect("works");
    assert_eq!(checkpoint["train/micro_batches"].as_u32(), Some(&[2][..]));
    let mut second = over(4, settings.clone());
    run(&mut second, &all[..1]);
    pollster::block_on(second.restore_async(&checkpoint)).expect("works");
    assert_eq!((second.steps(), second.micro_batches()), (1, 2));
    run(&mut second, &all[5..]);
    assert_eq!(second.parameters().expect("works"), whole.parameters().expect("works"));

    // Between steps it fits any number of them; in the middle of one it is refused where a step has no more.
    let between = pollster::block_on(second.checkpoint_async()).expect("works");
    assert!(
        between.keys().all(|name| !name.starts_with("grad_sum/") && !name.ends_with("_sum")),
        "{:?}",
        between.keys()
    );
    let mut one = over(4, Settings { micro_batches: 1, ..settings });
    pollster::block_on(one.restore_async(&between)).expect("works");
    let why = pollster::block_on(one.restore_async(&checkpoint)).expect_err("is refused").to_string();
    assert!(
        why.starts_with("checkpoint: it was made after 2 micro-batches of a step, and a step has 1 here: "),
        "{why}"
    );
    // The sums of a step that was begun are dropped.
    run(&mut second, &all[..2]);
    pollster::block_on(second.restore_async(&between)).expect("works");
    let again = pollster::block_on(second.checkpoint_async()).expect("works");
    assert_eq!(again, between);
    run(&mut second, &all[..3]);
    run(&mut whole, &all[..3]);
    assert_eq!(second.parameters().expect("works"), whole.parameters().expect("works"));
}

#[test]
fn a_micro_batch_that_is_not_finite_adds_nothing() {
    let settings = Settings { micro_batches: 3, ..Settings::new(Sgd::new(0.1)) };
    let [mut trainer, mut other] = [over(4, settings.clone()), over(4, settings)];
    let [first, second, third] = parts(1);
    let bad = [("x", Tensor::new([4, 6], vec![f32::NAN; 24]).expect("works")), second[1].clone()];
    for batch in [&first, &second, &third] {
        let why = trainer.accumulate(&refs(&bad)).expect_err("is refused").to_string();
        let number = trainer.micro_batches() + 1;
        assert!(
            why.starts_with(&format!("train: micro-batch {number} of step 1 has the loss NaN; the first")),
            "{why}"
        );
        trainer.accumulate(&refs(batch)).expect("works");
        other.accumulate(&refs(batch)).expect("works");
    }
    assert_eq!((trainer.steps(), trainer.parameters().expect("works")), (1, other.parameters().expect("works")));

    // One without a target counts for nothing; three of them are no step.
    let none = [first[0].clone(), ("wanted", Tensor::new([4], vec![-100; 4]).expect("works"))];
    let before = trainer.parameters().expect("works");
    assert!(trainer.accumulate(&refs(&none)).expect("works").loss.is_nan());
    trainer.accumulate(&refs(&none)).expect("works");
    let why = trainer.accumulate(&refs(&none)).expect_err("is refused").to_string();
    assert!(why.starts_with("train: step 2 has the loss NaN: its weights sum to 0; "), "{why}");
    assert_eq!((trainer.micro_batches(), trainer.parameters().expect("works")), (0, before));
    let why = trainer.step(&refs(&first)).expect_err("is refused").to_string();
    assert_eq!(why, "train: a step has 3 micro-batches here: give each to `accumulate`, in place of `step`");
}

/// `loss = Σ w·x` over five weights of 1, whose gradient is x.
fn plane(dtype: DType, settings: Settings) -> Trainer {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [5]).expect("works");
    let w = g.parameter("w", dtype, [5]).expect("works");
    let w = g.cast(w, DType::F32).expect("works");
    let product = g.mul(w, x).expect("works");
    let loss = g.reduce(Reduce::Sum, product, &[], false).expect("works");
    let start = BTreeMap::from([("w".to_string(), Tensor::new([5], vec![1.0f32; 5]).expect("works"))]);
    Trainer::new(gpu(), &g, loss, settings, &start).expect("works")
}

fn all(x: f32) -> Tensor {
    Tensor::new([5], vec![x; 5]).expect("works")
}

fn checkpoint(trainer: &mut Trainer) -> BTreeMap<String, Tensor> {
    pollster::block_on(trainer.checkpoint_async()).expect("works")
}

/// Eight steps of an eighth of the distance to the next narrow number: each alone is lost when it is rounded.
#[test]
fn narrow_parameters_follow_masters() {
    for (dtype, digits, micro_batches) in [(DType::F16, 11, 1), (DType::BF16, 8, 1), (DType::F16, 11, 2)] {
        let next = 1.0 - 0.5f64.powi(digits);
        let settings = Settings { micro_batches, ..Settings::new(Sgd::new((1.0 - next) / 8.0)) };
        let mut trainer = plane(dtype, settings.clone());
        let mut resumed = plane(dtype, settings);
        for step in 1..=8 {
            for _ in 0..micro_batches {
                trainer.accumulate(&[("x", &all(1.0))]).expect("works");
            }
            let found = &trainer.parameters().expect("works")["w"];
            assert_eq!((found.dtype(), found.to_f64()), (dtype, vec![if step > 4 { next } else { 1.0 }; 5]), "{step}");
            let found = checkpoint(&mut trainer);
            let exactly = 1.0 - (1.0 - next) / 8.0 * f64::from(step);
            assert_eq!((found["master/w"].dtype(), found["master/w"].to_f64()), (DType::F32, vec![exactly; 5]));
            pollster::block_on(resumed.restore_async(&found)).expect("works");
            assert_eq!(checkpoint(&mut resumed), found);
        }
    }
    // A model that is given in its own dtype begins there; another dtype is refused.
    let mut g = Graph::new();
    let w = g.parameter("w", DType::BF16, [5]).expect("works");
    let loss = g.reduce(Reduce::Sum, w, &[], false).expect("works");
    let narrow = Tensor::new([5], vec![half::bf16::from_f32(1.5); 5]).expect("works");
    let new = |w: Tensor| {
        Trainer::new(gpu(), &g, loss, Settings::new(Sgd::new(0.5)), &BTreeMap::from([("w".to_string(), w)]))
    };
    let mut trainer = new(narrow).expect("works");
    trainer.step(&[]).expect("works");
    assert_eq!(trainer.parameters().expect("works")["w"].to_f64(), [1.0; 5]);
    let why = new(Tensor::new([5], vec![1i32; 5]).expect("works")).expect_err("is refused").to_string();
    assert!(why.contains("`w` is i32 [5], expected bf16 [5]"), "{why}");
}

/// What `torch.amp.GradScaler` makes of gradients of this size in f16: the scale of each step, and whether it is skipped.
fn by_hand(sizes: &[f32], [mut scale, growth, backoff]: [f32; 3], interval: u32) -> Vec<(Option<f32>, bool)> {
    let mut good = 0;
    let step = |size: &f32| {
        let (tried, skipped) = (scale, !half::f16::from_f32(size * scale).is_finite());
        good = if skipped { 0 } else { good + 1 };
        if skipped {
            scale *= backoff;
        } else if good == interval {
            (scale, good) = (scale * growth, 0);
        }
        (Some(tried), skipped)
    };
    sizes.iter().map(step).collect()
}

#[test]
fn a_dynamic_scale_is_gradscalers_and_is_found_on_the_device() {
    let scale = Some(LossScale::Dynamic { initial: 131_072.0, growth: 2.0, backoff: 0.25, interval: 3 });
    let adam = Adam { epsilon: 1e-3, ..Adam::w(0.01) };
    let sizes: Vec<f32> = (0..40).map(|i| if i % 11 == 7 { 64.0 } else { 0.5 + (i % 5) as f32 / 4.0 }).collect();
    let expected = by_hand(&sizes, [131_072.0, 2.0, 0.25], 3);
    let skipped = expected.iter().filter(|(_, skipped)| *skipped).count();
    assert!((4..20).contains(&skipped), "{skipped}");
    let told = |reports: &[Report]| reports.iter().map(|report| (report.scale, report.skipped)).collect::<Vec<_>>();

    let mut queued = plane(DType::F16, Settings { scale, ..Settings::new(adam) });
    for &size in &sizes {
        queued.queue(&[("x", &all(size))]).expect("works");
    }
    let reports = queued.reports().expect("works");
    assert_eq!(told(&reports), expected);
    assert!(reports.iter().all(|report| report.norm.is_some_and(|norm| norm.is_finite() != report.skipped)));

    // The same, step by step; one that is skipped changes the scale alone. And plain steps, where it is not skipped.
    let mut waited = plane(DType::F16, Settings { scale, ..Settings::new(adam) });
    let mut plain = plane(DType::F16, Settings::new(adam));
    for (&size, expected) in sizes.iter().zip(&expected) {
        let before = checkpoint(&mut waited);
        let report = waited.step(&[("x", &all(size))]).expect("works");
        assert_eq!((report.scale, report.skipped), *expected);
        if report.skipped {
            let scale = ["train/scale", "train/good_steps", "train/steps"];
            let changed: Vec<String> = before
                .into_iter()
                .zip(checkpoint(&mut waited))
                .filter_map(|(before, after)| {
                    (before != after && !scale.contains(&after.0.as_str())).then_some(after.0)
                })
                .collect();
            assert!(changed.is_empty(), "{changed:?}");
        } else {
            plain.step(&[("x", &all(size))]).expect("works");
        }
    }
    let [queued, waited, plain] = [queued, waited, plain].map(|mut trainer| checkpoint(&mut trainer));
    assert_eq!(queued, waited);
    assert_eq!(queued["train/taken"].as_i32(), Some(&[40 - skipped as i32][..]));
    for name in ["master/w", "exp_avg/w", "exp_avg_sq/w"] {
        for (found, expected) in queued[name].to_f64().iter().zip(plain[name].to_f64()) {
            assert!((found - expected).abs() <= 4e-6 * expected.abs(), "{name}: {found}, expected {expected}");
        }
    }
}

#[test]
fn a_constant_scale_saves_what_f16_loses_and_says_what_overflows() {
    let of = |scale: Option<LossScale>, x: f32| {
        let mut trainer = plane(DType::F16, Settings { scale, ..Settings::new(Sgd::new(1.0)) });
        let report = trainer.step(&[("x", &all(x))]).map_err(|error| error.to_string());
        report.map(|report| (report.scale, checkpoint(&mut trainer)["master/w"].to_f64()[0]))
    };
    // 2⁻²⁶ is 0 in f16, and 2⁻¹² is not.
    let small = 0.5f32.powi(26);
    assert_eq!(of(None, small), Ok((None, 1.0)));
    let scaled = of(Some(LossScale::Constant(16384.0)), 4.0 * small);
    assert_eq!(scaled, Ok((Some(16384.0), 1.0 - 0.5f64.powi(24))));
    assert_eq!(
        of(Some(LossScale::Constant(65536.0)), 1.0),
        Err("train: step 1 has the loss 5, but the norm of the gradients inf at the loss scale 65536; the parameters are as they were \
             before it; a smaller scale may help, or one that follows them (`LossScale::DYNAMIC`)"
            .into())
    );
}

/// Gradients that are not finite whatever the scale is: a dynamic one doesn't skip for ever.
#[test]
fn a_scale_that_does_not_help_is_said() {
    let mut g = Graph::new();
    let w = g.parameter("w", DType::F32, [2]).expect("works");
    let root = g.sqrt(w).expect("works");
    let loss = g.reduce(Reduce::Sum, root, &[], false).expect("works");
    let start = BTreeMap::from([("w".to_string(), Tensor::new([2], vec![0.0f32, 1.0]).expect("works"))]);
    let scale = Some(LossScale::Dynamic { initial: 0.5f64.powi(18), growth: 2.0, backoff: 0.5, interval: 100 });
    let settings = Settings { scale, ..Settings::new(Sgd::new(0.1)) };
    let mut trainer = Trainer::new(gpu(), &g, loss, settings, &start).expect("works");
    assert!(trainer.step(&[]).expect("works").skipped && trainer.step(&[]).expect("works").skipped);
    let before = checkpoint(&mut trainer);
    for _ in 0..2 {
        let why = trainer.step(&[]).expect_err("is refused").to_string();
        assert!(
            why.starts_with(
                "train: step 3 has the loss 1, but the norm of the gradients inf at the loss scale 0.00000095367431640625;"
            ),
            "{why}"
        );
    }
    assert_eq!(checkpoint(&mut trainer), before);
}

/// Micro-batches, masters and a scale together, stopped in the middle of a step.
#[test]
fn micro_batches_of_scaled_losses_skip_together() {
    let scale = Some(LossScale::Dynamic { initial: 32_768.0, growth: 2.0, backoff: 0.5, interval: 2 });
    let settings = Settings { scale, micro_batches: 2, clip: Some(100.0), ..Settings::new(Adam::new(0.01)) };
    let sizes = [1.0f32, 1.5, 0.5, 4.0, 0.25, 0.5, 0.25, 0.5, 0.125, 0.25];
    let mut whole = plane(DType::F16, settings.clone());
    let mut reports = Vec::new();
    for x in sizes {
        reports.extend(whole.accumulate(&[("x", &all(x))]).expect("works").step);
    }
    // A step is as large as the largest of its micro-batches.
    let largest: Vec<f32> = sizes.chunks(2).map(|pair| pair[0].max(pair[1])).collect();
    let found: Vec<_> = reports.iter().map(|report| (report.scale, report.skipped)).collect();
    assert_eq!(found, by_hand(&largest, [32_768.0, 2.0, 0.5], 2));

    let mut first = plane(DType::F16, settings.clone());
    for x in &sizes[..5] {
        first.queue(&[("x", &all(*x))]).expect("works");
    }
    let middle = checkpoint(&mut first);
    let mut second = plane(DType::F16, settings);
    pollster::block_on(second.restore_async(&middle)).expect("works");
    for x in &sizes[5..] {
        second.queue(&[("x", &all(*x))]).expect("works");
    }
    assert_eq!(second.reports().expect("works").len(), 3);
    assert_eq!(checkpoint(&mut second), checkpoint(&mut whole));
}

#[test]
fn steps_that_nobody_waits_for_have_the_same_bits() {
    let settings = Settings { clip: Some(1.0), ..Settings::new(Adam::w(0.01)) };
    let (mut waited, mut queued) = (trainer(settings.clone()), trainer(settings));
    let mut losses = Vec::new();
    for seed in 0..150 {
        let batch = batch(seed % 7);
        queued.queue(&refs(&batch)).expect("works");
        let report = waited.step(&refs(&batch)).expect("works");
        losses.push((report.step, report.loss, report.norm, report.rate));
    }
    let reports = queued.reports().expect("works");
    let found: Vec<_> = reports.iter().map(|report| (report.step, report.loss, report.norm, report.rate)).collect();
    assert_eq!(found, losses);
    assert!(queued.reports().expect("works").is_empty());
    assert_eq!((queued.steps(), checkpoint(&mut queued)), (150, checkpoint(&mut waited)));
    // A step that is waited for comes after those that are queued, whose reports stay.
    for trainer in [&mut waited, &mut queued] {
        trainer.queue(&refs(&batch(1))).expect("works");
        assert_eq!(trainer.step(&refs(&batch(2))).expect("works").step, 152);
        assert_eq!(trainer.reports().expect("works").len(), 1);
    }
    assert_eq!(checkpoint(&mut queued), checkpoint(&mut waited));

    let settings = Settings { micro_batches: 3, ..Settings::new(Sgd::new(0.1)) };
    let (mut waited, mut queued) = (over(4, settings.clone()), over(4, settings));
    for part in (0..9).flat_map(parts) {
        waited.accumulate(&refs(&part)).expect("works");
        queued.queue(&refs(&part)).expect("works");
    }
    assert_eq!(queued.reports().expect("works").iter().map(|report| report.weight).collect::<Vec<_>>(), [Some(7.0); 9]);
    assert_eq!(checkpoint(&mut queued), checkpoint(&mut waited));
}

#[test]
fn a_queued_step_that_is_refused_is_named_and_nothing_behind_it_is_taken() {
    let nan = || ("x", Tensor::new([4, 6], vec![f32::NAN; 24]).expect("works"));
    let settings = Settings::new(Sgd { momentum: 0.9, ..Sgd::new(0.1) });
    let (mut good, mut stopped) = (trainer(settings.clone()), trainer(settings));
    for seed in 0..4 {
        good.step(&refs(&batch(seed))).expect("works");
        stopped.queue(&refs(&batch(seed))).expect("works");
    }
    let bad = [nan(), batch(0)[1].clone()];
    stopped.queue(&refs(&bad)).expect("works");
    (5..8).for_each(|seed| stopped.queue(&refs(&batch(seed))).expect("works"));
    assert_eq!(stopped.steps(), 8);
    let why = stopped.reports().expect_err("is refused").to_string();
    assert!(
        why.starts_with(
            "train: step 5, which was queued, has the loss NaN; the parameters are as they were before it, and 3 runs that were queued \
             behind it were left out: give its batch to `step`, which names the first value that is not finite; "
        ),
        "{why}"
    );
    assert_eq!((stopped.steps(), stopped.reports().expect("works").len()), (4, 4));
    assert_eq!(checkpoint(&mut stopped), checkpoint(&mut good));
    let why = stopped.step(&refs(&bad)).expect_err("is refused").to_string();
    assert!(why.starts_with("train: step 5 has the loss NaN; the first value that is not finite is"), "{why}");
    // It goes on, waited for or not.
    good.step(&refs(&batch(9))).expect("works");
    stopped.queue(&refs(&batch(9))).expect("works");
    assert_eq!(checkpoint(&mut stopped), checkpoint(&mut good));

    // A micro-batch, in the middle of a step.
    let settings = Settings { micro_batches: 3, ..Settings::new(Sgd::new(0.1)) };
    let (mut good, mut stopped) = (over(4, settings.clone()), over(4, settings));
    let all: Vec<_> = (0..2).flat_map(parts).collect();
    all[..4].iter().for_each(|part| drop(good.accumulate(&refs(part)).expect("works")));
    all[..4].iter().for_each(|part| stopped.queue(&refs(part)).expect("works"));
    for part in [[nan(), all[0][1].clone()], all[1].clone(), all[2].clone(), all[3].clone()] {
        stopped.queue(&refs(&part)).expect("works");
    }
    let why = stopped.reports().expect_err("is refused").to_string();
    assert!(why.starts_with("train: micro-batch 2 of step 2, which was queued, has the loss NaN; "), "{why}");
    assert_eq!((stopped.steps(), stopped.micro_batches()), (1, 1));
    assert_eq!(checkpoint(&mut stopped), checkpoint(&mut good));
    for part in &all[4..] {
        good.accumulate(&refs(part)).expect("works");
        stopped.queue(&refs(part)).expect("works");
    }
    assert_eq!((stopped.reports().expect("works").len(), checkpoint(&mut stopped)), (2, checkpoint(&mut good)));
}
