//! Whole graphs on the device: fused, unfused and in separate memory, against the reference.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tilewise::{
    DType, Data, Graph, Result, Tensor, ValueId,
    gpu::{Gpu, LoadOptions},
    graph::{Align, AttentionArgs, Binary, Mask, Reduce},
    lower::{Options, Program},
    nn,
    reference::{
        Evaluation,
        compare::{Check, Expected},
    },
};

use crate::common::{gpu, random::random_graph};

/// Numbers in (−1, 1), the same for the same seed.
fn noise(n: usize, seed: usize) -> Vec<f32> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A tensor for each input and parameter that has none yet.
fn fill(graph: &Graph, mut tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    for (i, (name, value)) in graph.inputs().chain(graph.parameters()).enumerate() {
        let (shape, dtype) = (graph.shape(value), graph.dtype(value));
        let numbers = noise(shape.iter().product(), i);
        let data: Data = match dtype {
            DType::F16 => numbers.into_iter().map(half::f16::from_f32).collect::<Vec<_>>().into(),
            DType::BF16 => numbers.into_iter().map(half::bf16::from_f32).collect::<Vec<_>>().into(),
            DType::Bool => Data::Bool(numbers.into_iter().map(|x| x > -0.5).collect()),
            DType::I32 => numbers.into_iter().map(|x| (x * 4.0 + 4.0) as i32).collect::<Vec<_>>().into(),
            _ => numbers.into(),
        };
        tensors.entry(name.into()).or_insert_with(|| Tensor::new(shape, data).expect("it has that many elements"));
    }
    tensors
}

/// Runs a program with the guard on: poisoned memory, canaries, twice.
fn run(graph: &Graph, program: &Program, tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let parameters: Vec<(&str, &Tensor)> = graph.parameters().map(|(name, _)| (name, &tensors[name])).collect();
    let inputs: Vec<(&str, &Tensor)> = graph.inputs().map(|(name, _)| (name, &tensors[name])).collect();
    let mut executable = gpu().load_with(program, &parameters[..], LoadOptions { guard: true })?;
    executable.run(&inputs)
}

/// Runs a graph in every way and compares each with the reference.
fn check(graph: &Graph, tensors: &BTreeMap<String, Tensor>) -> Result<Program, String> {
    let expected = Expected::of_graph(graph, tensors, Check::measured()).map_err(|e| e.to_string())?;
    let gpu = gpu();
    let mut fused = None;
    for (name, options) in [
        ("fused", Options::default()),
        ("separate memory", Options { share_memory: false, ..Options::default() }),
        ("unfused", Options::unfused()),
    ] {
        let program = gpu.lower(graph, &options).map_err(|e| e.to_string())?;
        let outputs = run(graph, &program, tensors).map_err(|e| format!("{name}: {e}\n{program}"))?;
        expected.compare_named(&outputs).map_err(|e| format!("{name}: {e}\n{program}"))?;
        // Without the guard, where temporaries really share memory: the same bits.
        if fused.is_none() {
            let shared =
                shared_run(graph, &program, tensors).map_err(|e| format!("{name}, not guarded: {e}\n{program}"))?;
            if shared != outputs {
                return Err(format!("sharing memory changes the result\n{program}"));
            }
        }
        fused.get_or_insert(program);
    }
    fused.ok_or_else(|| "nothing ran".into())
}

fn shared_run(
    graph: &Graph,
    program: &Program,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    let parameters: Vec<(&str, &Tensor)> = graph.parameters().map(|(name, _)| (name, &tensors[name])).collect();
    let inputs: Vec<(&str, &Tensor)> = graph.inputs().map(|(name, _)| (name, &tensors[name])).collect();
    gpu().load(program, &parameters[..])?.run(&inputs)
}

/// [`check`] of the graph that `build` makes, its result as the output `y`.
#[track_caller]
fn checked(build: impl FnOnce(&mut Graph) -> Result<ValueId>) -> Program {
    let mut graph = Graph::new();
    let y = build(&mut graph).and_then(|y| graph.output("y", y));
    y.unwrap_or_else(|e| panic!("{e}"));
    let tensors = fill(&graph, BTreeMap::new());
    check(&graph, &tensors).unwrap_or_else(|e| panic!("{e}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs(numbers in proptest::collection::vec(any::<u32>(), 10..70)) {
        let random = random_graph(&numbers);
        if let Err(message) = check(&random.graph, &random.tensors) {
            return Err(TestCaseError::fail(message));
        }
    }
}

fn families(program: &Program) -> Vec<&'static str> {
    program.steps.iter().map(|step| step.family).collect()
}

/// `q·kᵀ` of [2, 3] heads, 5 queries, 7 keys.
struct Heads {
    q: ValueId,
    k: ValueId,
    v: ValueId,
}

fn heads(g: &mut Graph) -> Result<Heads> {
    let mut input = |name: &str, t: usize, d: usize| g.input(name, DType::F32, [2, 3, t, d]);
    Ok(Heads { q: input("q", 5, 8)?, k: input("k", 7, 8)?, v: input("v", 7, 6)? })
}

/// Each way to write attention, and every option of the recogniser.
#[test]
fn attention_written_out() {
    type Scores = fn(&mut Graph, ValueId) -> Result<ValueId>;
    let ways: [(&str, Scores); 9] = [
        ("nothing", |_, s| Ok(s)),
        ("scale", |g, s| {
            let c = g.scalar(0.3, s)?;
            g.mul(s, c)
        }),
        ("softcap", |g, s| {
            let (c, d) = (g.scalar(3.0, s)?, g.scalar(0.5, s)?);
            let s = g.div(s, d)?;
            let s = g.tanh(s)?;
            g.mul(s, c)
        }),
        ("mask", |g, s| {
            let (mask, hidden) = (g.input("mask", DType::Bool, [2, 1, 5, 7])?, g.scalar(f64::NEG_INFINITY, s)?);
            g.select(mask, s, hidden)
        }),
        ("opposite mask", |g, s| {
            let (mask, hidden) = (g.input("mask", DType::Bool, [5, 1])?, g.scalar(f64::NEG_INFINITY, s)?);
            g.select(mask, hidden, s)
        }),
        ("two masks and a bias", |g, s| {
            let hidden = g.scalar(f64::NEG_INFINITY, s)?;
            let (a, b) = (g.input("a", DType::Bool, [5, 7])?, g.input("b", DType::Bool, [2, 1, 1, 7])?);
            let bias = g.input("bias", DType::F32, [3, 1, 7])?;
            let s = g.select(a, s, hidden)?;
            let s = g.add(bias, s)?;
            g.select(b, s, hidden)
        }),
        ("biases", |g, s| {
            let (a, b) = (g.input("a", DType::F32, [3, 1, 7])?, g.input("b", DType::F32, [5, 7])?);
            let s = g.add(s, a)?;
            g.binary(Binary::Sub, s, b)
        }),
        ("a constant triangle", |g, s| {
            let seen = (0..35).map(|i| i % 7 <= i / 7 + 2).collect();
            let (mask, hidden) = (g.constant(Tensor::new([5, 7], Data::Bool(seen))?)?, g.scalar(f64::NEG_INFINITY, s)?);
            g.select(mask, s, hidden)
        }),
        ("a bias that hides whole rows", |g, s| {
            let bias = (0..35)
                .map(|i| if i / 7 == 3 || i % 7 > 4 { f32::NEG_INFINITY } else { i as f32 * 0.1 })
                .collect::<Vec<_>>();
            let bias = g.constant(Tensor::new([5, 7], bias)?)?;
            g.add(s, bias)
        }),
    ];
    for (way, scores) in ways {
        let program = checked(|g| {
            let Heads { q, k, v } = heads(g)?;
            let product = g.matmul_transposed(q, k)?;
            let scores = scores(g, product)?;
            let weights = g.softmax(scores, -1)?;
            let out = g.matmul(weights, v)?;
            g.merge_heads(out)
        });
        assert_eq!(families(&program).last(), Some(&"attention"), "{way}\n{program}");
    }
}

#[test]
fn a_finite_fill_keeps_its_meaning() {
    let program = checked(|g| {
        let Heads { q, k, v } = heads(g)?;
        let product = g.matmul_transposed(q, k)?;
        // Query 2 sees nothing: its weights are equal.
        let seen = (0..5).map(|i| i != 2).collect();
        let (mask, hidden) = (g.constant(Tensor::new([5, 1], Data::Bool(seen))?)?, g.scalar(-1e9, product)?);
        let scores = g.select(mask, product, hidden)?;
        let weights = g.softmax(scores, -1)?;
        g.matmul(weights, v)
    });
    assert!(!families(&program).contains(&"attention"), "{program}");
}

#[test]
fn grouped_and_folded_heads() {
    let grouped = checked(|g| {
        let q = g.input("q", DType::F32, [2, 6, 5, 8])?;
        let repeated = |g: &mut Graph, name: &str| {
            let x = g.input(name, DType::F32, [2, 2, 7, 8])?;
            let x = g.reshape(x, [2, 2, 1, 7, 8])?;
            let x = g.broadcast(x, [2, 2, 3, 7, 8])?;
            g.reshape(x, [2, 6, 7, 8])
        };
        let (k, v) = (repeated(g, "k")?, repeated(g, "v")?);
        let scores = g.matmul_transposed(q, k)?;
        let weights = g.softmax(scores, -1)?;
        g.matmul(weights, v)
    });
    assert_eq!(families(&grouped), ["attention"], "{grouped}");
    let folded = checked(|g| {
        let (q, k, v) = (
            g.input("q", DType::F32, [6, 5, 8])?,
            g.input("k", DType::F32, [6, 8, 7])?,
            g.input("v", DType::F32, [6, 7, 4])?,
        );
        let scores = g.matmul(q, k)?;
        let scores = g.reshape(scores, [2, 3, 5, 7])?;
        let (mask, hidden) = (g.input("mask", DType::Bool, [2, 1, 1, 7])?, g.scalar(f64::NEG_INFINITY, scores)?);
        let scores = g.select(mask, scores, hidden)?;
        let weights = g.softmax(scores, -1)?;
        let weights = g.reshape(weights, [6, 5, 7])?;
        g.matmul(weights, v)
    });
    assert_eq!(families(&folded), ["attention"], "{folded}");
}

#[test]
fn half_precision() {
    for dtype in [DType::F16, DType::BF16] {
        checked(|g| {
            let (x, w) = (g.input("x", dtype, [2, 6, 16])?, g.parameter("w", dtype, [16, 16])?);
            let bias = g.parameter("b", dtype, [16])?;
            let y = g.linear(x, w, Some(bias))?;
            let y = g.silu(y)?;
            let h = g.split_heads(y, 2)?;
            let y = g.attention(h, h, h, Mask::causal(Align::TopLeft))?;
            let y = g.merge_heads(y)?;
            let y = g.add(x, y)?;
            let y = g.rms_norm(y, Some(bias), 1e-3)?;
            let p = g.softmax(y, -1)?;
            g.reduce(Reduce::Mean, p, &[1], true)
        });
    }
}

#[test]
fn results_that_are_left_unread_and_statistics() {
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let Heads { q, k, v } = heads(g)?;
        let (out, lse) = g.attention_with_lse(q, k, v, AttentionArgs::default())?;
        g.output("lse", lse)?;
        let (x, r) = (g.input("x", DType::F32, [4, 9])?, g.input("r", DType::F32, [4, 9])?);
        let sum = g.add(x, r)?;
        let norm = tilewise::graph::Op::LayerNorm { axes: 1, epsilon: 1e-3, weight: false, bias: false };
        let results = g.push(norm, &[sum])?;
        g.output("mean", results[1])?;
        g.output("rstd", results[2])?;
        g.output("normed", results[0])?;
        g.output("sum", sum)?;
        g.output("out", out)
    };
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    let program = check(&g, &fill(&g, BTreeMap::new())).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(families(&program), ["attention", "norm"], "{program}");
}

#[test]
fn outputs_that_are_inputs_views_and_constants() {
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let x = g.input("x", DType::F32, [3, 4])?;
        let mask = g.input("mask", DType::Bool, [5, 3])?;
        let turned = g.permute(mask, &[1, 0])?;
        let (tail, constant) = (g.slice(x, 0, 1, 3)?, g.constant(Tensor::new([2], vec![3i32, -4])?)?);
        g.output("same", x)?;
        g.output("tail", tail)?;
        g.output("turned", turned)?;
        g.output("constant", constant)
    };
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    check(&g, &fill(&g, BTreeMap::new())).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn constants_alone() {
    checked(|g| {
        let a = g.constant(Tensor::new([2, 2], vec![0.5f32; 4])?)?;
        let two = g.scalar(2.0, a)?;
        g.pow(a, two)
    });
}

#[test]
fn encoder_and_decoder_layers() {
    for (norm_first, batch_first) in [(false, true), (true, true), (false, false)] {
        let program = checked(|g| {
            let shape = |t: usize, e: usize| if batch_first { [2, t, e] } else { [t, 2, e] };
            let (source, target) =
                (g.input("source", DType::F32, shape(9, 24))?, g.input("target", DType::F32, shape(6, 16))?);
            let mut encoder = nn::EncoderLayer::new(24, 3, 32);
            let mut decoder = nn::DecoderLayer::new(16, 2, 32);
            (encoder.norm_first, encoder.batch_first) = (norm_first, batch_first);
            (decoder.norm_first, decoder.batch_first, decoder.memory_width) = (norm_first, batch_first, Some(24));
            let open = nn::AttentionMasks::default();
            let memory = encoder.build(g, "encoder", source, &open)?;
            decoder.build(g, "decoder", target, memory, &Mask::causal(Align::TopLeft).into(), &open)
        });
        assert_eq!(families(&program).iter().filter(|&&family| family == "attention").count(), 3, "{program}");
    }
}

/// Three runs of a step of decoding with caches on the device, one guarded, against the reference's.
#[test]
fn caches_that_stay_on_the_device() {
    let mut graph = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let position = g.input("position", DType::I32, [2])?;
        let x = g.input("x", DType::F32, [2, 1, 16])?;
        let heads = g.split_heads(x, 2)?;
        let cache = g.input("cache", DType::F32, [2, 2, 8, 8])?;
        let (grown, dropped) = g.append(cache, heads, position, 2, false)?;
        g.update(cache, grown)?;
        let steps = g.input("steps", DType::F32, [3])?;
        let one = g.scalar(1.0, steps)?;
        let next = g.add(steps, one)?;
        g.update(steps, next)?;
        let y = g.attention(heads, grown, grown, Mask::causal(Align::BottomRight))?;
        let y = g.merge_heads(y)?;
        g.output("y", y)?;
        g.output("dropped", dropped)?;
        g.output("steps_before", steps)
    };
    build(&mut graph).unwrap_or_else(|e| panic!("{e}"));
    let gpu = gpu();
    for options in [Options::default(), Options::unfused()] {
        let program = gpu.lower(&graph, &options).unwrap_or_else(|e| panic!("{e}"));
        let mut plain = gpu.load(&program, []).unwrap_or_else(|e| panic!("{e}"));
        let mut guarded = gpu.load_with(&program, [], LoadOptions { guard: true }).unwrap_or_else(|e| panic!("{e}"));
        let mut states = BTreeMap::new();
        for t in 0..3 {
            let x = Tensor::new([2, 1, 16], noise(32, t)).expect("32 elements");
            let position = Tensor::new([2], vec![t as i32, t as i32 + 2]).expect("2 elements");
            let mut tensors = states;
            tensors.insert("x".to_string(), x);
            tensors.insert("position".to_string(), position);
            let expected = Expected::of_graph(&graph, &tensors, Check::measured()).unwrap_or_else(|e| panic!("{e}"));
            let inputs = [("x", &tensors["x"]), ("position", &tensors["position"])];
            for executable in [&mut plain, &mut guarded] {
                let outputs = executable.run(&inputs).unwrap_or_else(|e| panic!("run {t}: {e}\n{program}"));
                expected.compare_named(&outputs).unwrap_or_else(|e| panic!("run {t}: {e}\n{program}"));
            }
            let after = Evaluation::<f64>::new(&graph, &tensors).and_then(|evaluation| evaluation.states(&graph));
            states = after.unwrap_or_else(|e| panic!("{e}"));
            for (name, state) in &states {
                assert_eq!(&plain.state(name).unwrap_or_else(|e| panic!("{e}")), state, "run {t}: {name}");
            }
        }
        plain.reset().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(plain.state("steps").unwrap_or_else(|e| panic!("{e}")).as_f32(), Some(&[0.0; 3][..]));
        let two = Tensor::new([3], vec![2.0f32; 3]).expect("3 elements");
        plain.set_state("steps", &two).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(plain.state("steps").unwrap_or_else(|e| panic!("{e}")), two);
        let unknown = plain.state("cash").expect_err("there is no such state").to_string();
        assert_eq!(unknown, "there is no state `cash`; the program's states are: `cache`, `steps`");
    }
}

/// It would overwrite the state.
#[test]
fn an_output_may_not_have_the_buffer_of_a_state() {
    let mut graph = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let [x, sum] = ["x", "sum"].map(|name| g.input(name, DType::F32, [4]));
        let (x, sum) = (x?, sum?);
        let next = g.add(sum, x)?;
        g.update(sum, next)?;
        let y = g.softmax(sum, 0)?;
        g.output("y", y)
    };
    build(&mut graph).unwrap_or_else(|e| panic!("{e}"));
    let gpu = gpu();
    let mut program = gpu.compile(&graph, []).unwrap_or_else(|e| panic!("{e}"));
    let [x, sum] = ["x", "sum"].map(|name| program.buffer(name).unwrap_or_else(|e| panic!("{e}")));
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let fault = program.encode(&mut encoder, &[("x", x.slice(..)), ("y", sum.slice(..))]).expect_err("y has it");
    assert!(fault.to_string().starts_with("output `y` has the same buffer as `sum`"), "{fault}");
}

/// Other shapes are another program over the same pipelines.
#[test]
fn another_shape_compiles_nothing() {
    let gpu = Gpu::new().unwrap_or_else(|e| panic!("{e}"));
    let mut graph = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let (x, w) = (g.input("x", DType::F32, [40, 64])?, g.parameter("w", DType::F32, [64, 64])?);
        let y = g.linear(x, w, None)?;
        let y = g.silu(y)?;
        let y = g.add(x, y)?;
        let y = g.rms_norm(y, None, 1e-5)?;
        let y = g.softmax(y, -1)?;
        g.output("y", y)
    };
    build(&mut graph).unwrap_or_else(|e| panic!("{e}"));
    let run = |graph: &Graph| {
        let tensors = fill(graph, BTreeMap::new());
        let expected = Expected::of_graph(graph, &tensors, Check::measured()).unwrap_or_else(|e| panic!("{e}"));
        let mut program = gpu.compile(graph, [("w", &tensors["w"])]).unwrap_or_else(|e| panic!("{e}"));
        let outputs = program.run(&[("x", &tensors["x"])]).unwrap_or_else(|e| panic!("{e}"));
        expected.compare_named(&outputs).unwrap_or_else(|e| panic!("{e}"));
        gpu.compiled_pipelines()
    };
    let first = run(&graph);
    let other = graph.with_shapes(&[("x", [44, 64].into())]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(run(&other), first);
}
