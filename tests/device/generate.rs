//! Generation: cached, batched and in chunks on the device, against whole runs of the f64 reference, one sequence at a time.

use std::{collections::BTreeMap, ops::ControlFlow};

use approx::assert_abs_diff_eq;
use tilewise::{
    DType, Error, Graph, Tensor, ValueId,
    gpu::Gpu,
    nn::{
        Activation, Biases, EncoderLayer, Gpt, GptNames, Norm, Positions, Rope, RopeScaling, Seq2Seq, Transformer,
        Windowed,
        generate::{self, Autoregressive, Capacity, End, Generator, Request, Sequence, Step, Strategy, Token},
    },
    reference::Evaluation,
};

use crate::common::{
    asks_of_what_is_not_finite,
    generate::{LOGITS, by_definition},
    gpu,
};

type Given = BTreeMap<String, Tensor>;

/// SplitMix64 (Steele, Lea and Flood, 2014) of name and place, as weights are: matrices by the root of their width, norms around 1.
fn weights(model: &impl Autoregressive) -> Given {
    let value = |seed: u64, i: u64| {
        let mut z = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let tensor = |(name, (_, shape)): (String, (DType, tilewise::Shape))| {
        let n = shape.elements().expect("small") as u64;
        let seed =
            name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let (middle, scale) = match shape.rank() {
            2 => (0.0, 1.0),
            _ if name.ends_with("bias") => (0.0, 0.1),
            _ => (1.0, 0.2),
        };
        let data: Vec<f32> = (0..n).map(|i| middle + scale * value(seed, i)).collect();
        (name, Tensor::new(shape, data).expect("fits"))
    };
    generate::parameters(model).expect("valid").into_iter().map(tensor).collect()
}

fn i32s(shape: &[usize], ids: &[u32]) -> Tensor {
    Tensor::new(shape, ids.iter().map(|&id| id as i32).collect::<Vec<_>>()).expect("fits")
}

/// A model with the plain run that its generator must agree with.
trait Whole: Autoregressive + Clone {
    /// Logits of every token of one sequence, `[T][V]`, in f64.
    fn whole(&self, weights: &Given, source: &[u32], ids: &[u32]) -> Vec<Vec<f64>>;
}

fn evaluate(g: &Graph, given: &Given, vocabulary: usize) -> Vec<Vec<f64>> {
    let outputs = Evaluation::<f64>::new(g, given).expect("runs").into_outputs(g);
    outputs["logits"].to_f64().chunks(vocabulary).map(<[f64]>::to_vec).collect()
}

impl Whole for Gpt {
    fn whole(&self, weights: &Given, _: &[u32], ids: &[u32]) -> Vec<Vec<f64>> {
        let mut g = Graph::new();
        let x = g.input("ids", DType::I32, [1, ids.len()]).expect("fits");
        let logits = self.build(&mut g, x).expect("fits");
        g.output("logits", logits).expect("fits");
        let mut given = weights.clone();
        given.insert("ids".into(), i32s(&[1, ids.len()], ids));
        evaluate(&g, &given, self.vocabulary)
    }
}

impl Whole for Seq2Seq {
    fn whole(&self, weights: &Given, source: &[u32], ids: &[u32]) -> Vec<Vec<f64>> {
        let mut g = Graph::new();
        let x = g.input("source", DType::I32, [1, source.len()]).expect("fits");
        let lengths = g.input("lengths", DType::I32, [1]).expect("fits");
        let y = g.input("target", DType::I32, [1, ids.len()]).expect("fits");
        let logits = self.build(&mut g, x, lengths, y).expect("fits");
        g.output("logits", logits).expect("fits");
        let mut given = weights.clone();
        given.insert("source".into(), i32s(&[1, source.len()], source));
        given.insert("lengths".into(), i32s(&[1], &[source.len() as u32]));
        given.insert("target".into(), i32s(&[1, ids.len()], ids));
        evaluate(&g, &given, self.target_vocabulary)
    }
}

fn argmax(logits: &[f64]) -> u32 {
    let order = |a: &(usize, &f64), b: &(usize, &f64)| a.1.total_cmp(b.1).then(b.0.cmp(&a.0));
    logits.iter().enumerate().max_by(order).expect("not empty").0 as u32
}

/// Greedy, uncached, in f64: the whole sequence again for each token.
fn greedy(model: &impl Whole, weights: &Given, source: &[u32], prompt: &[u32], count: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        let logits = model.whole(weights, source, &ids);
        ids.push(argmax(logits.last().expect("a token")));
    }
    ids[prompt.len()..].to_vec()
}

fn small() -> Gpt {
    Gpt::gpt2(29, 40, 16, 2, 4)
}

fn variants() -> Vec<(&'static str, Gpt, bool)> {
    let llama = Gpt { key_heads: 2, ..Gpt::llama(29, 40, 16, 2, 4, 24) };
    let scaling = RopeScaling::Yarn { factor: 4.0, original: 10, fast: 2.0, slow: 0.5, attention: 1.2, whole: false };
    let yarn = Rope { part: 0.5, scaling, ..Rope::new(100.0) };
    let growing = Rope { scaling: RopeScaling::Dynamic { factor: 2.0, original: 40 }, ..Rope::new(100.0) };
    vec![
        ("GPT-2", small(), false),
        ("Llama, grouped heads", llama.clone(), false),
        ("a window over a linear cache", Gpt { window: Some(5), ..llama.clone() }, false),
        ("a window over a circular cache", Gpt { window: Some(5), ..llama.clone() }, true),
        ("GPT-2 with a circular cache", Gpt { window: Some(3), ..small() }, true),
        (
            "a mixture",
            Gpt {
                position: Positions::Rotary(Rope::new(500.0)),
                norm: Norm::Rms,
                activation: Activation::SwiGlu,
                biases: Biases::Queries,
                tied: false,
                key_heads: 1,
                head_width: 6,
                ..small()
            },
            false,
        ),
        (
            "windows by layer, with positions of their own",
            Gpt {
                window: Some(5),
                windowed: Windowed::Listed(vec![true, false]),
                local: Some(Rope::new(50.0)),
                ..llama.clone()
            },
            false,
        ),
        (
            "half of the features turn, by YaRN",
            Gpt { position: Positions::Rotary(yarn), head_width: 8, ..llama.clone() },
            false,
        ),
        (
            "a base that grows later",
            Gpt { positions: 80, position: Positions::Rotary(growing), ..llama.clone() },
            false,
        ),
        ("learned positions by Llama's names", Gpt { position: Positions::Learned, tied: true, ..llama }, false),
    ]
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![7], vec![3, 1, 4, 1, 5], (0..19).map(|i| i * 11 % 29).collect()]
}

fn capacity() -> Capacity {
    Capacity { chunks: vec![8, 4], ..Capacity::items(4) }
}

#[test]
fn cached_and_batched_is_uncached_and_alone() {
    for (name, model, circular) in variants() {
        let weights = weights(&model);
        let capacity = Capacity { circular, ..capacity() };
        let mut generator = Generator::new(gpu(), model.clone(), &weights, capacity).expect(name);
        let generated = generator.generate(&Request::new(prompts(), 12)).expect(name);
        for (sequence, prompt) in generated.sequences.iter().zip(prompts()) {
            assert_eq!(sequence.ids, greedy(&model, &weights, &[], &prompt, 12), "{name}, after {prompt:?}");
            assert_eq!(sequence.end, End::MaxTokens);
        }
        assert_eq!((generated.steps, generated.step_tokens), (11, 33), "{name}");
        assert!(generated.tokens_per_second().expect("a clock") > 0.0);
        // Once more, over a cache that is full of the last run.
        let again = generator.generate(&Request::new(prompts()[1..2].to_vec(), 12)).expect(name);
        assert_eq!(again.sequences[0], generated.sequences[1], "{name}");
    }
}

/// Logits of any division into steps are those of the whole run.
#[test]
fn cached_logits_are_those_of_a_whole_run() {
    const ITEMS: usize = 2;
    for (name, model, circular) in variants() {
        let weights = weights(&model);
        let sequences: Vec<Vec<u32>> =
            (0..ITEMS as u32).map(|b| (0..20).map(|t| (t * t + 5 * b + 3) % 29).collect()).collect();
        let expected: Vec<_> = sequences.iter().map(|ids| model.whole(&weights, &[], ids)).collect();
        let places = if circular { model.window.expect("one") + 5 } else { 20 };
        let build = |tokens: usize| {
            let mut g = Graph::new();
            let ids = g.input("ids", DType::I32, [ITEMS, tokens])?;
            let starts = g.input("starts", DType::I32, [ITEMS])?;
            let window = Autoregressive::window(&model);
            let cache = tilewise::nn::Cache::new(&mut g, starts, tokens, places, window, circular)?;
            let x = model.step(&mut g, &Step { ids, cache, memory: None })?;
            let x = g.reshape(x, [ITEMS * tokens, model.width])?;
            let logits = model.logits(&mut g, x)?;
            g.output("logits", logits)?;
            Ok::<_, Error>(g)
        };
        let one = build(1).expect(name);
        let mut program = gpu().compile(&one, &weights).expect(name);
        let states: Vec<(String, _)> =
            one.states().map(|(state, ..)| (state.to_string(), program.buffer(state).expect(name))).collect();
        let mut programs = BTreeMap::from([(1, program)]);
        let six = build(6).expect(name);
        let parameters: tilewise::gpu::Parameters<'_> = (&weights).into();
        let shared = states.iter().fold(parameters, |all, (name, buffer)| all.buffer(name, buffer.clone()));
        programs.insert(6, gpu().compile(&six, shared).expect(name));
        let (mut starts, mut error) = ([0usize; ITEMS], 0.0f64);
        // Real tokens of each item in each step; the rest of a step is garbage.
        for (tokens, real) in
            [(6, [6, 2]), (1, [1, 1]), (6, [0, 6]), (6, [4, 5]), (1, [1, 0]), (6, [6, 3]), (1, [1, 1])]
        {
            let mut ids = vec![28; ITEMS * tokens];
            for b in 0..ITEMS {
                ids[b * tokens..][..real[b]].copy_from_slice(&sequences[b][starts[b]..][..real[b]]);
            }
            let (ids, at) = (i32s(&[ITEMS, tokens], &ids), i32s(&[ITEMS], &starts.map(|t| t as u32)));
            let program = programs.get_mut(&tokens).expect("made");
            let out = program.run(&[("ids", &ids), ("starts", &at)]).expect(name);
            let rows: Vec<&[f32]> = out["logits"].as_f32().expect("f32").chunks(29).collect();
            for b in 0..ITEMS {
                for t in 0..real[b] {
                    for (found, expected) in rows[b * tokens + t].iter().zip(&expected[b][starts[b] + t]) {
                        assert!(found.is_finite());
                        error = error.max((f64::from(*found) - expected).abs());
                    }
                }
                starts[b] += real[b];
            }
        }
        let peak = expected.iter().flatten().flatten().fold(0.0, |m: f64, x| m.max(x.abs()));
        eprintln!("{name}: error {error:.3e} of {:.3e} allowed", 1e-5 * peak);
        assert!(error <= 1e-5 * peak, "{name}: {error:.3e} of {:.3e} allowed", 1e-5 * peak);
    }
}

fn translator() -> Seq2Seq {
    let layer = EncoderLayer { norm_first: true, ..EncoderLayer::new(16, 4, 24) };
    Seq2Seq {
        transformer: Transformer::new(layer, 2, 2),
        source_vocabulary: 23,
        target_vocabulary: 29,
        source_positions: 14,
        target_positions: 30,
    }
}

#[test]
fn an_encoder_decoder_remembers_its_source() {
    let model = translator();
    let weights = weights(&model);
    let sources: Vec<Vec<u32>> = vec![vec![5, 6, 7], (0..14).map(|i| i * 9 % 23).collect(), vec![2]];
    let prompts: Vec<Vec<u32>> = vec![vec![1], vec![1, 8, 20], vec![1]];
    let request = Request { sources: sources.clone(), ..Request::new(prompts.clone(), 10) };
    let mut generator = Generator::new(gpu(), model, &weights, capacity()).expect("valid");
    let generated = generator.generate(&request).expect("runs");
    for (i, sequence) in generated.sequences.iter().enumerate() {
        assert_eq!(sequence.ids, greedy(&model, &weights, &sources[i], &prompts[i], 10), "item {i}");
    }
    // The same item alone, after the memory of three: a shorter source over longer ones.
    let alone = Request { sources: vec![vec![2]], ..Request::new(vec![vec![1]], 10) };
    assert_eq!(generator.generate(&alone).expect("runs").sequences[0], generated.sequences[2]);
    let beam = Request { strategy: Strategy::Beam { beams: 1, length_penalty: 0.0 }, ..request };
    let beam = generator.generate(&beam).expect("runs");
    for (a, b) in beam.sequences.iter().zip(&generated.sequences) {
        assert_eq!(a.ids, b.ids, "one beam is greedy");
    }
}

/// A table of logits by the last id: what a model of one's own looks like, and known probabilities.
#[derive(Clone)]
struct Bigram {
    vocabulary: usize,
}

impl Autoregressive for Bigram {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn positions(&self) -> usize {
        64
    }

    fn step(&self, g: &mut Graph, step: &Step) -> tilewise::Result<ValueId> {
        let table = g.parameter("table", DType::F32, [self.vocabulary, self.vocabulary])?;
        g.gather(table, step.ids, 0)
    }

    fn logits(&self, _: &mut Graph, x: ValueId) -> tilewise::Result<ValueId> {
        Ok(x)
    }
}

#[test]
fn drawn_ids_have_the_distribution_and_hang_on_the_seed_alone() {
    const ITEMS: usize = 64;
    let model = Bigram { vocabulary: 8 };
    let table = Given::from([("table".to_string(), Tensor::new([8, 8], LOGITS.repeat(8)).expect("fits"))]);
    let mut generator = Generator::new(gpu(), model, &table, Capacity::items(ITEMS)).expect("valid");
    let mut draw = |strategy, prompts: usize| {
        let request = Request { strategy, ..Request::new(vec![vec![0]; prompts], 60) };
        generator.generate(&request).expect("runs").sequences.into_iter().map(|s| s.ids).collect::<Vec<_>>()
    };
    let sample = |seed| Strategy::Sample { temperature: 0.8, top_k: Some(6), top_p: Some(0.95), seed };
    let all = draw(sample(11), ITEMS);
    let expected = by_definition(&LOGITS, f64::from(0.8f32), 6, f64::from(0.95f32));
    let n = (ITEMS * 60) as f64;
    let mut chi = 0.0;
    for (id, p) in expected.iter().enumerate() {
        let count = all.iter().flatten().filter(|&&drawn| drawn as usize == id).count() as f64;
        if *p == 0.0 {
            assert_eq!(count, 0.0, "id {id} can't be drawn");
        } else {
            chi += (count - n * p).powi(2) / (n * p);
        }
    }
    let freedom = expected.iter().filter(|&&p| p > 0.0).count() - 1;
    // The 99.9th percentiles of chi-square.
    let limit = [10.83, 13.82, 16.27, 18.47, 20.52, 22.46][freedom - 1];
    eprintln!("chi-square {chi:.2} of {limit} allowed, {freedom} degrees of freedom");
    assert!(chi < limit, "{chi:.2}");
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "each prompt has a stream of its own");
    assert_eq!(draw(sample(11), ITEMS), all);
    assert_eq!(draw(sample(11), 3), all[..3], "the others don't matter");
    assert_ne!(draw(sample(12), ITEMS), all);
    let one = draw(Strategy::Sample { temperature: 5.0, top_k: Some(1), top_p: None, seed: 3 }, 1);
    assert!(one[0].iter().all(|&id| id == 1));
}

#[test]
fn stop_ids_end_a_sequence_and_leave_the_others() {
    let weights = weights(&small());
    let mut generator = Generator::new(gpu(), small(), &weights, capacity()).expect("valid");
    let free = generator.generate(&Request::new(prompts(), 12)).expect("runs");
    let stop = free.sequences[1].ids[4];
    let until = |ids: &[u32]| ids.iter().position(|&id| id == stop).unwrap_or(ids.len());
    let mut told = Vec::new();
    let request = Request { stop: vec![stop], ..Request::new(prompts(), 12) };
    let generated = generator
        .generate_streaming(&request, |token| {
            told.push(token);
            ControlFlow::Continue(())
        })
        .expect("runs");
    assert!(generated.sequences.iter().any(|s| s.end == End::MaxTokens), "or the test shows nothing: {free:?}");
    for (item, (found, free)) in generated.sequences.iter().zip(&free.sequences).enumerate() {
        let end = until(&free.ids);
        assert_eq!(found.ids, free.ids[..end]);
        assert_eq!(found.end, if end < 12 { End::Stop(stop) } else { End::MaxTokens });
        let own: Vec<Token> = told.iter().copied().filter(|token| token.item == item).collect();
        let expected = found.ids.iter().enumerate().map(|(index, &id)| Token { item, index, id });
        assert_eq!(own, expected.collect::<Vec<_>>());
    }
    assert!(told.windows(2).all(|pair| (pair[0].index, pair[0].item) < (pair[1].index, pair[1].item)));
    // Breaking off after five ids.
    let mut left = 5;
    let cut = generator.generate_streaming(&Request::new(prompts(), 12), |_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let cut = cut.expect("runs");
    assert_eq!(cut.sequences.iter().map(|s| s.ids.len()).sum::<usize>(), 5);
    for (cut, free) in cut.sequences.iter().zip(&free.sequences) {
        assert_eq!((&cut.ids[..], cut.end), (&free.ids[..cut.ids.len()], End::Cancelled));
    }
}

#[test]
fn a_repetition_penalty_makes_what_was_said_less_likely() {
    let (model, prompt) = (small(), vec![3, 1, 4]);
    let weights = weights(&model);
    let mut expected = prompt.clone();
    for _ in 0..8 {
        let mut logits = model.whole(&weights, &[], &expected).pop().expect("a token");
        for id in 0..29 {
            if expected.contains(&id) {
                let x = &mut logits[id as usize];
                *x = if *x > 0.0 { *x / 1.7 } else { *x * 1.7 };
            }
        }
        expected.push(argmax(&logits));
    }
    let mut generator = Generator::new(gpu(), model, &weights, capacity()).expect("valid");
    let request = Request { repetition_penalty: 1.7, ..Request::new(vec![prompt.clone()], 8) };
    let found = generator.generate(&request).expect("runs").sequences.remove(0).ids;
    assert_eq!(found, expected[3..]);
    let free = generator.generate(&Request::new(vec![prompt], 8)).expect("runs").sequences.remove(0).ids;
    assert_ne!(found, free, "or the test shows nothing");
}

const WORDS: u32 = 4;

/// `log p` of each next word.
fn log_probabilities(model: &Gpt, weights: &Given, ids: &[u32]) -> Vec<f64> {
    let logits = model.whole(weights, &[], ids).pop().expect("a token");
    let norm = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
    logits.iter().map(|x| x - norm).collect()
}

/// Every sequence up to `most` ids, with what it scores: the best.
fn exhaustive(model: &Gpt, weights: &Given, prompt: &[u32], most: usize, stop: u32, alpha: f64) -> (Vec<u32>, f64) {
    let mut best = (Vec::new(), f64::NEG_INFINITY, f64::NEG_INFINITY);
    let mut open = vec![(Vec::<u32>::new(), 0.0)];
    while let Some((ids, so_far)) = open.pop() {
        let next = log_probabilities(model, weights, &[prompt, &ids].concat());
        for id in 0..WORDS {
            let p = so_far + next[id as usize];
            let length = ids.len() + 1;
            let mut longer = ids.clone();
            if id != stop {
                longer.push(id);
            }
            if id != stop && length < most {
                open.push((longer, p));
            } else if p / (length as f64).powf(alpha) > best.1 {
                best = (longer, p / (length as f64).powf(alpha), p);
            }
        }
    }
    (best.0, best.2)
}

#[test]
fn as_many_beams_as_there_are_sequences_find_the_best() {
    let model = Gpt { vocabulary: WORDS as usize, ..small() };
    let weights = weights(&model);
    let mut generator = Generator::new(gpu(), model.clone(), &weights, Capacity::items(54)).expect("valid");
    let prompts = vec![vec![1, 2], vec![0, 3, 3, 1, 2, 2]];
    let mut lengths = Vec::new();
    for alpha in [-1.0f32, 0.0, 0.6, 3.0] {
        let strategy = Strategy::Beam { beams: 27, length_penalty: alpha };
        let request = Request { strategy, stop: vec![3], ..Request::new(prompts.clone(), 4) };
        let generated = generator.generate(&request).expect("runs");
        for (sequence, prompt) in generated.sequences.iter().zip(&prompts) {
            let (ids, p) = exhaustive(&model, &weights, prompt, 4, 3, alpha.into());
            assert_eq!(sequence.ids, ids, "α = {alpha}, after {prompt:?}");
            assert_abs_diff_eq!(sequence.log_probability.expect("known"), p, epsilon = 1e-4);
            lengths.push(ids.len());
        }
    }
    assert!(lengths.iter().min() < lengths.iter().max(), "or α does nothing: {lengths:?}");
}

/// Few beams over many steps: caches follow their beams.
#[test]
fn few_beams_go_where_a_plain_search_goes() {
    let model = Gpt { window: Some(6), ..small() };
    let weights = weights(&model);
    let prompt = [3, 1, 4];
    let mut live: Vec<(Vec<u32>, f64)> = vec![(Vec::new(), 0.0)];
    for _ in 0..8 {
        let mut all: Vec<(Vec<u32>, f64)> = Vec::new();
        for (ids, p) in &live {
            let next = log_probabilities(&model, &weights, &[&prompt[..], ids].concat());
            all.extend(next.iter().enumerate().map(|(id, q)| ([&ids[..], &[id as u32]].concat(), p + q)));
        }
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(3);
        live = all;
    }
    for circular in [false, true] {
        let capacity = Capacity { circular, ..capacity() };
        let mut generator = Generator::new(gpu(), model.clone(), &weights, capacity).expect("valid");
        let strategy = Strategy::Beam { beams: 3, length_penalty: 1.0 };
        let request = Request { strategy, ..Request::new(vec![prompt.to_vec()], 8) };
        let mut told = Vec::new();
        let generated = generator
            .generate_streaming(&request, |token| {
                told.push(token.id);
                ControlFlow::Continue(())
            })
            .expect("runs");
        let Sequence { ids, end, log_probability } = &generated.sequences[0];
        assert_eq!((ids, *end), (&live[0].0, End::MaxTokens), "circular: {circular}");
        assert_abs_diff_eq!(log_probability.expect("known"), live[0].1, epsilon = 1e-4);
        assert_eq!(&told, ids);
    }
    assert_ne!(live[0].0, greedy(&model, &weights, &[], &prompt, 8), "or beams show nothing");
}

#[test]
fn no_length_and_no_step_compiles_anything() {
    // A device of its own, so that no other test compiles on it meanwhile.
    let gpu = Gpu::builder().adapter(&gpu().profile().adapter).build().expect("the adapter is there");
    let mut generator = Generator::new(&gpu, small(), &weights(&small()), capacity()).expect("valid");
    let first = Request::new(prompts(), 2);
    generator.prepare(&first).expect("compiles");
    let pipelines = gpu.compiled_pipelines();
    for length in [1, 2, 4, 5, 8, 13, 30] {
        generator.generate(&Request::new(vec![vec![5; length]], 9)).expect("runs");
    }
    assert_eq!(gpu.compiled_pipelines(), pipelines);
}

#[test]
fn what_cannot_be_generated_is_named() {
    let model = small();
    let weights_of = weights(&model);
    let limited = Capacity { places: Some(20), ..capacity() };
    let mut generator = Generator::new(gpu(), model.clone(), &weights_of, limited).expect("valid");
    let mut message = |change: &dyn Fn(&mut Request)| {
        let mut request = Request::new(vec![vec![1], vec![2, 3]], 5);
        change(&mut request);
        generator.generate(&request).expect_err("refused").to_string()
    };
    let sample = |temperature, top_k, top_p| Strategy::Sample { temperature, top_k, top_p, seed: 0 };
    let beam = |beams, length_penalty| Strategy::Beam { beams, length_penalty };
    type Case<'a> = (&'a dyn Fn(&mut Request), &'a str);
    let cases: [Case<'_>; 18] = [
        (&|r| r.prompts.clear(), "no prompts were given, expected at least one"),
        (&|r| r.prompts[1].clear(), "prompt 1 is empty, expected at least one id"),
        (&|r| r.prompts[1][1] = 29, "prompt 1: id 29 at place 1 is not in the vocabulary of 29"),
        (&|r| r.prompts = vec![vec![1]; 5], "5 prompts with 1 beams each don't fit the 4 items"),
        (&|r| r.max_tokens = 0, "max_tokens is 0"),
        (
            &|r| r.max_tokens = 20,
            "prompt 1 has 2 ids and 20 more are asked for, the model and its cache have room for 20",
        ),
        (&|r| r.max_tokens = usize::MAX, "prompt 0 has 1 ids and 18446744073709551615 more are asked for"),
        (&|r| r.stop = vec![4, 40], "stop id 40 is not in the vocabulary of 29"),
        (&|r| r.sources = vec![vec![1]], "sources were given to a model that reads none"),
        (&|r| r.repetition_penalty = 0.0, "repetition_penalty is 0"),
        (&|r| r.strategy = sample(0.0, None, None), "temperature is 0"),
        (&|r| r.strategy = sample(f32::NAN, None, None), "temperature is NaN"),
        (&|r| r.strategy = sample(1.0, Some(0), None), "top_k is 0"),
        (&|r| r.strategy = sample(1.0, None, Some(1.5)), "top_p is 1.5"),
        (&|r| r.strategy = sample(1.0, None, Some(0.0)), "top_p is 0"),
        (&|r| r.strategy = beam(0, 0.0), "0 beams were asked for"),
        (&|r| r.strategy = beam(3, 0.0), "2 prompts with 3 beams each don't fit the 4 items"),
        (&|r| r.strategy = beam(2, f32::INFINITY), "length_penalty is inf"),
    ];
    for (change, expected) in cases {
        let message = message(change);
        assert!(message.contains(expected), "`{expected}` is not in: {message}");
    }
    // As much as there is room for.
    let full = generator.generate(&Request::new(vec![vec![1; 15]], 6)).expect("fits");
    assert_eq!(full.sequences[0].ids, greedy(&model, &weights_of, &[], &[1; 15], 6));

    let mut translate = Generator::new(gpu(), translator(), &weights(&translator()), capacity()).expect("valid");
    let mut message = |sources: Vec<Vec<u32>>| {
        translate.generate(&Request { sources, ..Request::new(vec![vec![1]], 5) }).expect_err("refused").to_string()
    };
    assert!(message(vec![]).contains("0 sources were given for 1 prompts"));
    assert!(message(vec![vec![]]).contains("source 0 is empty"));
    assert!(message(vec![vec![23]]).contains("source 0: id 23 at place 0 is not in the vocabulary of 23"));
    assert!(message(vec![vec![1; 15]]).contains("source 0 has 15 ids, the model has 14 positions"));

    let build =
        |model: Gpt, capacity| Generator::new(gpu(), model, &weights_of, capacity).expect_err("refused").to_string();
    assert!(build(small(), Capacity::items(0)).contains("room for 0 items"));
    assert!(build(small(), Capacity { chunks: vec![4, 0], ..capacity() }).contains("chunks are [4, 0]"));
    assert!(build(small(), Capacity { circular: true, ..capacity() }).contains("needs a model with a window"));
    assert!(build(small(), Capacity { places: Some(0), ..capacity() }).contains("holds nothing"));
    assert!(build(Gpt { layers: 3, ..small() }, capacity()).contains("parameter `h.2.ln_1.weight` is missing"));
    assert!(
        build(Gpt { key_heads: 3, ..small() }, capacity()).contains("4 heads of 4 features can't share 3 key heads")
    );
    assert!(build(Gpt { window: Some(0), ..small() }, capacity()).contains("window"));
    assert!(build(Gpt { names: GptNames::Llama, ..small() }, capacity()).contains("there is no parameter `h.0"));
}

/// A position whose embedding is NaN: padding meets it in the first chunk, and reaches no token; the item that comes there ends the run.
#[test]
fn logits_that_are_not_finite_end_the_run_with_step_and_item() {
    if !asks_of_what_is_not_finite("logits_that_are_not_finite_end_the_run_with_step_and_item") {
        return;
    }
    let model = small();
    let sound = weights(&model);
    let mut broken = sound.clone();
    let positions = broken["wpe.weight"].clone();
    let mut rows = positions.as_f32().expect("f32").to_vec();
    rows[5 * 16 + 3] = f32::NAN;
    broken.insert("wpe.weight".into(), Tensor::new(positions.shape(), rows).expect("fits"));

    let capacity = Capacity { chunks: vec![8], ..Capacity::items(4) };
    let mut generator = Generator::new(gpu(), model.clone(), &broken, capacity.clone()).expect("loads");
    let mut whole = Generator::new(gpu(), model, &sound, capacity).expect("loads");
    let strategies = [
        Strategy::Greedy,
        Strategy::Sample { temperature: 0.8, top_k: Some(5), top_p: None, seed: 1 },
        Strategy::Beam { beams: 2, length_penalty: 1.0 },
    ];
    for strategy in strategies {
        for repetition_penalty in [1.0, 1.2] {
            let request = |tokens: usize| Request {
                strategy,
                repetition_penalty,
                ..Request::new(vec![vec![3], vec![1, 4, 1]], tokens)
            };
            // Three steps after a prompt of three, position 5 is looked at.
            let error = generator.generate(&request(9)).expect_err("there is nothing to go on with").to_string();
            for part in ["step 3", "item 1", "NaN", "not finite"] {
                assert!(
                    error.contains(part),
                    "{strategy:?}, penalty {repetition_penalty}: `{part}` is not in: {error}"
                );
            }
            let before = generator.generate(&request(3)).expect("nobody comes to position 5");
            let expected = whole.generate(&request(3)).expect("it runs");
            let ids =
                |generated: generate::Generated| generated.sequences.into_iter().map(|s| s.ids).collect::<Vec<_>>();
            assert_eq!(ids(before), ids(expected), "{strategy:?}");
        }
    }
}
