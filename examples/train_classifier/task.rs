//! A BERT that learns which of three words a sequence has most often: the same model and data, padded and packed.

use std::{collections::BTreeMap, time::Instant};

use rand_pcg::{Pcg64, rand_core::Rng};
use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    gpu::Gpu,
    grad::gradients,
    nn::{Bert, Linear},
    train::{Adam, CrossEntropy, Settings, Trainer, cross_entropy, initial, pad},
};

/// How sequences of unlike length lie in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[B, T]`, filled up; a mask hides the padding from attention.
    Padded,
    /// `[ΣT]`, end to end; attention sees where each begins.
    Packed,
}

const ITEMS: usize = 16;
const LONGEST: usize = 32;
const CLASSES: usize = 3;
/// 0 fills up, 1 begins each sequence, the three words are 2 to 4, all others mean nothing.
const VOCABULARY: usize = 20;
/// Tokens of a packed batch: every batch has as many, so that nothing is compiled anew.
pub(crate) const TOKENS: usize = 224;

fn model() -> Bert {
    Bert { pooler: true, ..Bert::new(VOCABULARY, LONGEST, 32, 2, 4, 64) }
}

/// Sequences and their classes.
pub(crate) struct Batch {
    pub(crate) sequences: Vec<Vec<u32>>,
    classes: Tensor,
}

pub(crate) fn batch(random: &mut Pcg64) -> Result<Batch> {
    let mut below = |n: usize| (random.next_u32() as usize) % n;
    // Lengths from 4 on that add up to TOKENS, most of them short.
    let mut lengths = vec![4; ITEMS];
    let mut left = TOKENS - 4 * ITEMS;
    while left > 0 {
        let item = below(ITEMS) * below(ITEMS) / ITEMS;
        if lengths[item] < LONGEST {
            lengths[item] += 1;
            left -= 1;
        } else if lengths.iter().all(|length| *length == LONGEST) {
            break;
        } else if let Some(shorter) = lengths.iter_mut().find(|length| **length < LONGEST) {
            *shorter += 1;
            left -= 1;
        }
    }
    let mut classes = Vec::new();
    let sequences = lengths.into_iter().map(|length| {
        let class = below(CLASSES);
        let mut words: Vec<u32> = (1..length).map(|_| 5 + below(VOCABULARY - 5) as u32).collect();
        let mut places: Vec<usize> = (0..words.len()).collect();
        for last in (1..places.len()).rev() {
            places.swap(last, below(last + 1));
        }
        // The class's word twice, another one once.
        for (at, word) in places.into_iter().zip([class, class, (class + 1) % CLASSES]) {
            words[at] = 2 + word as u32;
        }
        classes.push(class as i32);
        [vec![1], words].concat()
    });
    let sequences = sequences.collect();
    Ok(Batch { sequences, classes: Tensor::new([ITEMS], classes)? })
}

/// The graph up to the loss.
fn graph(layout: Layout) -> Result<(Graph, ValueId)> {
    let mut g = Graph::new();
    let bert = model();
    let pooled = match layout {
        Layout::Padded => {
            let ids = g.input("ids", DType::I32, [ITEMS, LONGEST])?;
            let lengths = g.input("lengths", DType::I32, [ITEMS])?;
            bert.build(&mut g, "bert", ids, None, Some(lengths))?.pooled
        }
        Layout::Packed => {
            let ids = g.input("ids", DType::I32, [TOKENS])?;
            let offsets = g.input("offsets", DType::I32, [ITEMS + 1])?;
            bert.build_packed(&mut g, "bert", ids, None, offsets)?.pooled
        }
    };
    let pooled = pooled.ok_or_else(|| tilewise::Error::Graph("the model has no pooler".into()))?;
    let classes = g.input("classes", DType::I32, [ITEMS])?;
    let logits = Linear::new(32, CLASSES).build(&mut g, "head", pooled)?;
    let loss = cross_entropy(&mut g, logits, classes, CrossEntropy::default())?;
    let best = g.argmax(logits, -1, false)?;
    g.output("best", best)?;
    Ok((g, loss))
}

fn inputs(layout: Layout, batch: &Batch) -> Result<Vec<(&'static str, Tensor)>> {
    let (ids, lengths) = pad(&batch.sequences, 0, LONGEST)?;
    let classes = ("classes", batch.classes.clone());
    Ok(match layout {
        Layout::Padded => vec![("ids", ids), ("lengths", lengths), classes],
        Layout::Packed => {
            let ids: Vec<i32> = batch.sequences.iter().flatten().map(|&id| id as i32).collect();
            let mut offsets = vec![0];
            offsets.extend(batch.sequences.iter().scan(0, |at, sequence| {
                *at += sequence.len() as i32;
                Some(*at)
            }));
            vec![("ids", Tensor::new([TOKENS], ids)?), ("offsets", Tensor::new([ITEMS + 1], offsets)?), classes]
        }
    })
}

fn given<'a>(inputs: &'a [(&'static str, Tensor)]) -> Vec<(&'static str, &'a Tensor)> {
    inputs.iter().map(|(name, tensor)| (*name, tensor)).collect()
}

/// Every parameter's gradient on one batch.
pub(crate) fn grads(gpu: &Gpu, layout: Layout, batch: &Batch) -> Result<BTreeMap<String, Tensor>> {
    let (mut g, loss) = graph(layout)?;
    let start = initial(&g, 5, |_, _| None)?;
    let (names, values): (Vec<String>, Vec<ValueId>) =
        g.parameters().map(|(name, value)| (name.to_string(), value)).unzip();
    for (name, grad) in names.iter().zip(gradients(&mut g, loss, &values)?) {
        g.output(format!("grad of {name}"), grad)?;
    }
    let mut program = gpu.compile(&g, &start)?;
    let outputs = program.run(&given(&inputs(layout, batch)?))?;
    Ok(outputs.into_iter().filter(|(name, _)| name.starts_with("grad of ")).collect())
}

/// The largest difference of two sets of gradients, as a part of the largest gradient of each tensor.
pub(crate) fn difference(one: &BTreeMap<String, Tensor>, other: &BTreeMap<String, Tensor>) -> f64 {
    let largest = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(f64::abs).fold(0.0, f64::max);
    let of = |(name, a): (&String, &Tensor)| {
        let (a, b) = (a.to_f64(), other[name].to_f64());
        let apart = largest(&mut a.iter().zip(&b).map(|(a, b)| a - b));
        // A gradient that is 0 but for rounding, as that of a bias of keys, has no size of its own.
        apart / largest(&mut a.iter().copied()).max(1e-4)
    };
    one.iter().map(of).fold(0.0, f64::max)
}

/// What came of training in a layout.
pub(crate) struct Trained {
    pub(crate) losses: Vec<f32>,
    /// The share of new sequences whose class is right.
    pub(crate) right: f64,
    /// Seconds a step.
    pub(crate) seconds: f64,
    /// Bytes on the device.
    pub(crate) memory: u64,
}

pub(crate) fn train(gpu: &Gpu, layout: Layout, steps: usize) -> Result<Trained> {
    let (g, loss) = graph(layout)?;
    let mut trainer = Trainer::new(gpu, &g, loss, Settings::new(Adam::new(4e-3)), &initial(&g, 5, |_, _| None)?)?;
    let mut random = Pcg64::new(3, 0);
    let (mut losses, mut seconds) = (Vec::new(), Vec::new());
    for _ in 0..steps {
        let inputs = inputs(layout, &batch(&mut random)?)?;
        let started = Instant::now();
        losses.push(trainer.step(&given(&inputs))?.loss);
        seconds.push(started.elapsed().as_secs_f64());
    }
    let (mut right, mut all) = (0, 0);
    let mut random = Pcg64::new(999, 0);
    for _ in 0..4 {
        let batch = batch(&mut random)?;
        let (_, outputs) = trainer.validate(&given(&inputs(layout, &batch)?))?;
        let wanted = batch.classes.as_i32().unwrap_or_default();
        right += outputs["best"].as_i32().unwrap_or_default().iter().zip(wanted).filter(|(a, b)| a == b).count();
        all += wanted.len();
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Trained {
        right: right as f64 / all as f64,
        seconds: seconds[seconds.len() / 2],
        memory: trainer.program().memory(),
        losses,
    })
}
