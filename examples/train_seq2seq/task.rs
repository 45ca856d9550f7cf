//! The model and the task: frames of measured numbers in, words out. Source and target differ in length and in width.

use std::{collections::BTreeMap, error::Error};

use rand_pcg::{Pcg64, rand_core::Rng};
use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    gpu::{Executable, Gpu, Outputs},
    graph::{Align, Mask, Reduce},
    nn::{self, AttentionMasks, Decoder, DecoderLayer, Dropout, Embedding, Encoder, EncoderLayer, Linear},
    train::{Adam, CrossEntropy, Schedule, Settings, Shifted, Trainer, cross_entropy, initial, pad, seed, shift_right},
};

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mistake {
    /// Nothing.
    None,
    /// The decoder is given the target as it is: each position sees the word that it has to say.
    Unshifted,
    /// The decoder's self-attention sees the words to come, of which the next is the answer.
    NoCausalMask,
    /// The padding behind each target counts as a word to be said.
    LossOnPadding,
    /// Neither side knows where in a sequence a token stands.
    NoPositions,
    /// Dropout is on while it learns, as it should be, and stays on when it is validated and generates.
    DropoutLeftOn,
}

impl Mistake {
    /// How often an element is dropped if nothing else is said.
    pub(crate) fn dropout(self) -> f64 {
        if self == Mistake::DropoutLeftOn { 0.4 } else { 0.0 }
    }
}

pub(crate) const ITEMS: usize = 32;
/// T_a and T_b: the longest source and target; E_a and E_b: the widths of encoder and decoder.
pub(crate) const SOURCE_TOKENS: usize = 15;
pub(crate) const TARGET_TOKENS: usize = 6;
const SOURCE_WIDTH: usize = 24;
const TARGET_WIDTH: usize = 32;
/// Numbers of a measured frame.
const FRAME: usize = 6;
const LAYERS: usize = 2;
const HEADS: usize = 4;

const PADDING: u32 = 0;
const START: u32 = 1;
const END: u32 = 2;
const FIRST_WORD: u32 = 3;
const WORDS: usize = 8;
const VOCABULARY: usize = FIRST_WORD as usize + WORDS;
const IGNORED: i32 = -100;

/// Utterances: each word sounds for one to three frames, as its six numbers and noise. Nothing says where a word ends.
pub(crate) struct Utterances {
    random: Pcg64,
    sounds: Vec<[f32; FRAME]>,
}

/// A batch of them.
pub(crate) struct Batch {
    /// f32 `[B, T_a, 6]`
    pub(crate) frames: Tensor,
    /// i32 `[B]`
    pub(crate) lengths: Tensor,
    pub(crate) words: Vec<Vec<u32>>,
}

impl Utterances {
    pub(crate) fn new(seed: u64) -> Self {
        // How words sound doesn't depend on the seed.
        let mut random = Pcg64::new(1, 0);
        let sounds = (0..WORDS).map(|_| std::array::from_fn(|_| 2.0 * unit(&mut random) - 1.0)).collect();
        Utterances { random: Pcg64::new(seed.into(), 1), sounds }
    }

    pub(crate) fn batch(&mut self) -> Result<Batch> {
        let (mut frames, mut lengths, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for item in 0..ITEMS {
            let mut said: Vec<u32> = Vec::new();
            let count = 2 + self.below(TARGET_TOKENS - 2);
            while said.len() < count {
                let word = FIRST_WORD + self.below(WORDS) as u32;
                // Nobody could hear where one of two equal words ends.
                if said.last() != Some(&word) {
                    said.push(word);
                }
            }
            let mut length = 0;
            for &word in &said {
                let sound = self.sounds[(word - FIRST_WORD) as usize];
                for _ in 0..1 + self.below(3) {
                    frames.extend(sound.map(|x| x + 0.3 * (unit(&mut self.random) - 0.5)));
                    length += 1;
                }
            }
            frames.resize((item + 1) * SOURCE_TOKENS * FRAME, 0.0);
            lengths.push(length);
            words.push(said);
        }
        Ok(Batch {
            frames: Tensor::new([ITEMS, SOURCE_TOKENS, FRAME], frames)?,
            lengths: Tensor::new([ITEMS], lengths)?,
            words,
        })
    }

    fn below(&mut self, n: usize) -> usize {
        (unit(&mut self.random) * n as f32) as usize % n
    }
}

/// From 0 to 1.
fn unit(random: &mut Pcg64) -> f32 {
    (random.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// The whole model with its loss. Outputs: `said` i32 `[B, T_b]`, the likeliest word of each place, and `attention` f32 `[B, T_b, T_a]`, the
/// mean weights of the last block's encoder–decoder attention.
fn model(mistake: Mistake, p: f64) -> Result<(Graph, ValueId)> {
    let mut g = Graph::new();
    let dropout = if p > 0.0 { Some(Dropout { p, seed: seed(&mut g)? }) } else { None };
    let frames = g.input("frames", DType::F32, [ITEMS, SOURCE_TOKENS, FRAME])?;
    let lengths = g.input("lengths", DType::I32, [ITEMS])?;
    let seen = g.input("seen", DType::I32, [ITEMS, TARGET_TOKENS])?;
    let expected = g.input("expected", DType::I32, [ITEMS, TARGET_TOKENS])?;

    // The source: measured vectors need no embedding, a linear layer brings them to the encoder's width.
    let mut source = Linear::new(FRAME, SOURCE_WIDTH).build(&mut g, "frames_in", frames)?;
    let words = Embedding { entries: VOCABULARY, width: TARGET_WIDTH };
    let mut target = words.build(&mut g, "words", seen)?;
    if mistake != Mistake::NoPositions {
        let places = nn::sinusoidal_positions(&mut g, SOURCE_TOKENS, SOURCE_WIDTH)?;
        source = g.add(source, places)?;
        let places = nn::sinusoidal_positions(&mut g, TARGET_TOKENS, TARGET_WIDTH)?;
        target = g.add(target, places)?;
    }
    let layer = EncoderLayer { dropout, ..EncoderLayer::new(SOURCE_WIDTH, HEADS, 2 * SOURCE_WIDTH) };
    let encoder = Encoder { layer, layers: LAYERS, final_norm: true };
    let real = AttentionMasks::from(Mask::key_lengths(lengths));
    let memory = encoder.build(&mut g, "encoder", source, &real)?;

    let layer = DecoderLayer {
        memory_width: Some(SOURCE_WIDTH),
        dropout,
        ..DecoderLayer::new(TARGET_WIDTH, HEADS, 2 * TARGET_WIDTH)
    };
    let decoder = Decoder { layer, layers: LAYERS, final_norm: true };
    let own = match mistake {
        Mistake::NoCausalMask => AttentionMasks::default(),
        Mistake::None | Mistake::Unshifted | Mistake::LossOnPadding | Mistake::NoPositions | Mistake::DropoutLeftOn => {
            AttentionMasks::from(Mask::causal(Align::TopLeft))
        }
    };
    let x = decoder.build(&mut g, "decoder", target, memory, &own, &real)?;
    let logits = Linear::new(TARGET_WIDTH, VOCABULARY).build(&mut g, "words_out", x)?;
    let loss = cross_entropy(&mut g, logits, expected, CrossEntropy { ignore: IGNORED, ..CrossEntropy::default() })?;

    let said = g.argmax(logits, -1, false)?;
    g.output("said", said)?;
    let last = format!("decoder.layers.{}.multihead_attn", LAYERS - 1);
    if let (Some(q), Some(k)) = (g.traced(&format!("{last}.q_heads")), g.traced(&format!("{last}.k_heads"))) {
        let weights = g.attention_weights(q, k, Mask::key_lengths(lengths))?;
        let mean = g.reduce(Reduce::Mean, weights, &[1], false)?;
        g.output("attention", mean)?;
    }
    Ok((g, loss))
}

/// A model in training.
pub(crate) struct Task {
    pub(crate) trainer: Trainer,
    /// What is validated with dropout, which is wrong, and what it draws from.
    left_on: Option<(Executable, Settings)>,
    mistake: Mistake,
    shown: Utterances,
}

/// How well it does on utterances that it was never shown.
pub(crate) struct Validation {
    /// The loss.
    pub(crate) loss: f32,
    /// Of the places, the share whose word it says if it is shown the right words before.
    pub(crate) forced: f64,
    /// Of the utterances, the share that it generates without a fault.
    pub(crate) generated: f64,
    /// What was said, and what it generates.
    pub(crate) examples: Vec<[Vec<u32>; 2]>,
    /// Of the first: `[words][frames]`.
    pub(crate) attention: Vec<Vec<f64>>,
}

impl Task {
    /// A model whose layers drop elements with probability `dropout` while it learns.
    pub(crate) fn new(gpu: &Gpu, mistake: Mistake, dropout: f64, seed: u64) -> Result<Self> {
        let (graph, loss) = model(mistake, dropout)?;
        let settings = Settings {
            schedule: Schedule::InverseSquareRoot { warmup: 40 },
            clip: Some(1.0),
            seed,
            ..Settings::new(Adam::new(5e-3))
        };
        let start = initial(&graph, seed, |_, _| None)?;
        let mut trainer = Trainer::new(gpu, &graph, loss, settings.clone(), &start)?;
        let mut left_on = None;
        if mistake == Mistake::DropoutLeftOn && dropout > 0.0 {
            // The graph as it learns, where `Trainer::validate` takes `Graph::without_dropout`.
            let mut graph = graph;
            let loss = graph.reshape(loss, [])?;
            graph.output("loss", loss)?;
            left_on = Some((gpu.compile(&graph, trainer.shared()?)?, settings));
        }
        Ok(Task { trainer, left_on, mistake, shown: Utterances::new(seed + 1) })
    }

    /// What the decoder sees, and what it is to say.
    fn teach(&self, words: &[Vec<u32>]) -> Result<[Tensor; 2]> {
        let Shifted { input, expected } = shift_right(words, START, END);
        let seen = if self.mistake == Mistake::Unshifted { &expected } else { &input };
        let (seen, _) = pad(seen, PADDING as i32, TARGET_TOKENS)?;
        let padding = if self.mistake == Mistake::LossOnPadding { PADDING as i32 } else { IGNORED };
        let (expected, _) = pad(&expected, padding, TARGET_TOKENS)?;
        Ok([seen, expected])
    }

    /// One step; the loss before it.
    pub(crate) fn step(&mut self) -> Result<f32> {
        let batch = self.shown.batch()?;
        let [seen, expected] = self.teach(&batch.words)?;
        let inputs = [("frames", &batch.frames), ("lengths", &batch.lengths), ("seen", &seen), ("expected", &expected)];
        Ok(self.trainer.step(&inputs)?.loss)
    }

    /// As it should be: what is validated from now on has no dropout.
    #[allow(dead_code, reason = "the tests have no time for this mistake")]
    pub(crate) fn switch_dropout_off(&mut self) {
        self.left_on = None;
    }

    /// Says of new utterances what it is shown, and then, as in use, generates from the start token alone.
    pub(crate) fn validate(&mut self) -> std::result::Result<Validation, Box<dyn Error>> {
        let batch = Utterances::new(999).batch()?;
        let [seen, expected] = self.teach(&batch.words)?;
        let mut draw = self.trainer.steps();
        let mut run = |seen: &Tensor| -> Result<(f32, Outputs)> {
            let inputs =
                [("frames", &batch.frames), ("lengths", &batch.lengths), ("seen", seen), ("expected", &expected)];
            let Some((program, settings)) = &mut self.left_on else { return self.trainer.validate(&inputs) };
            draw += 1;
            let seed = settings.draws(draw)?;
            let mut outputs = program.run(&[&inputs[..], &[("train/seed", &seed)]].concat())?;
            let loss = outputs.remove("loss").map(|loss| loss.to_f64()[0]);
            Ok((loss.unwrap_or(f64::NAN) as f32, outputs))
        };
        let ids = |outputs: &BTreeMap<String, Tensor>| outputs["said"].as_i32().map(<[i32]>::to_vec).ok_or("no ids");
        let (loss, outputs) = run(&seen)?;
        let said = ids(&outputs.into_iter().collect())?;
        let wanted = expected.as_i32().ok_or("no ids")?;
        let places: Vec<bool> = wanted
            .iter()
            .zip(&said)
            .filter(|(wanted, _)| **wanted != IGNORED)
            .map(|(wanted, said)| wanted == said)
            .collect();
        let forced = places.iter().filter(|right| **right).count() as f64 / places.len() as f64;

        // Row t says the word behind the t + 1 words that were given; the rows after it are about nothing yet.
        let mut grown: Vec<Vec<u32>> = vec![vec![START]; ITEMS];
        let mut attention = Vec::new();
        for t in 0..TARGET_TOKENS {
            let (seen, _) = pad(&grown, PADDING as i32, TARGET_TOKENS + 1)?;
            let seen = seen.as_i32().ok_or("no ids")?.chunks(TARGET_TOKENS + 1).flat_map(|row| &row[..TARGET_TOKENS]);
            let seen = Tensor::new([ITEMS, TARGET_TOKENS], seen.copied().collect::<Vec<i32>>())?;
            let outputs: BTreeMap<String, Tensor> = run(&seen)?.1.into_iter().collect();
            let said = ids(&outputs)?;
            for (words, row) in grown.iter_mut().zip(said.chunks(TARGET_TOKENS)) {
                words.push(row[t] as u32);
            }
            attention = outputs["attention"].to_f64();
        }
        let until_end = |words: &[u32]| words[1..].iter().copied().take_while(|word| *word != END).collect::<Vec<_>>();
        let examples: Vec<[Vec<u32>; 2]> =
            batch.words.iter().zip(&grown).map(|(said, words)| [said.clone(), until_end(words)]).collect();
        let right = examples.iter().filter(|[said, generated]| said == generated).count();
        let frames = batch.lengths.as_i32().ok_or("no lengths")?[0] as usize;
        let rows = attention.chunks(SOURCE_TOKENS).take(batch.words[0].len() + 1).map(|row| row[..frames].to_vec());
        Ok(Validation { loss, forced, generated: right as f64 / ITEMS as f64, attention: rows.collect(), examples })
    }
}
