//! Decoding with a cache: one compiled program for all steps gives what a run over the whole sequence gives.

use std::collections::BTreeMap;

use approx::assert_abs_diff_eq;
use tilewise::{
    DType, Graph, Result, Shape, Tensor, ValueId,
    gpu::{Gpu, Parameters},
    graph::{Align, AttentionFault, Mask},
    nn::Cache,
    reference::Evaluation,
};

use crate::common::gpu;

const ITEMS: usize = 2;
const HEADS: usize = 3;
const HEAD: usize = 8;
const WIDTH: usize = HEADS * HEAD;
/// Tokens of the whole sequence.
const TOKENS: usize = 11;

fn values(shape: &Shape, seed: usize) -> Tensor {
    let n = shape.elements().expect("small");
    Tensor::new(shape, (0..n).map(|i| ((i * 89 + seed * 31) % 199) as f32 / 99.5 - 1.0).collect::<Vec<_>>())
        .expect("fits")
}

/// q, k and v of `x [B, T, E]`, `[B, H, T, D]` each; q and k turned by their positions `[B, T]`.
fn project(g: &mut Graph, x: ValueId, positions: ValueId) -> Result<[ValueId; 3]> {
    let weight = g.parameter("in.weight", DType::F32, [3 * WIDTH, WIDTH])?;
    let cos = g.parameter("cos", DType::F32, [TOKENS, HEAD / 2])?;
    let sin = g.parameter("sin", DType::F32, [TOKENS, HEAD / 2])?;
    let all = g.linear(x, weight, None)?;
    let part = |g: &mut Graph, i: usize| {
        let part = g.slice(all, -1, i * WIDTH, (i + 1) * WIDTH)?;
        g.split_heads(part, HEADS)
    };
    let (q, k, v) = (part(g, 0)?, part(g, 1)?, part(g, 2)?);
    let q = g.rotary(q, [cos, sin], positions, false)?;
    Ok([q, g.rotary(k, [cos, sin], positions, false)?, v])
}

/// All tokens at once, causal, each seeing at most `window` keys.
fn whole(window: Option<u32>) -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [ITEMS, TOKENS, WIDTH])?;
    let positions = g.input("positions", DType::I32, [ITEMS, TOKENS])?;
    let [q, k, v] = project(&mut g, x, positions)?;
    let mut mask = Mask::causal(Align::TopLeft);
    if let Some(keys) = window {
        mask = mask & Mask::window(keys - 1, None, Align::TopLeft);
    }
    let y = g.attention(q, k, v, mask)?;
    let y = g.merge_heads(y)?;
    g.output("y", y)?;
    Ok(g)
}

/// One token per item at its own position, keys and values in caches of `places`.
fn step(places: usize, circular: bool) -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [ITEMS, 1, WIDTH])?;
    let position = g.input("position", DType::I32, [ITEMS])?;
    let column = g.reshape(position, [ITEMS, 1])?;
    let [q, k, v] = project(&mut g, x, column)?;
    let cached = |g: &mut Graph, name: &str, update: ValueId| -> Result<ValueId> {
        let cache = g.input(name, DType::F32, [ITEMS, HEADS, places, HEAD])?;
        let (next, dropped) = g.append(cache, update, position, 2, circular)?;
        g.update(cache, next)?;
        g.output(format!("{name} dropped"), dropped)?;
        Ok(next)
    };
    let (keys, rows) = (cached(&mut g, "keys", k)?, cached(&mut g, "values", v)?);
    let one = g.scalar(1.0, position)?;
    let most = g.scalar(places as f64, position)?;
    let length = g.add(position, one)?;
    let length = g.min(length, most)?;
    let y = g.attention(q, keys, rows, Mask::key_lengths(length))?;
    let y = g.merge_heads(y)?;
    g.output("y", y)?;
    Ok(g)
}

fn check(places: usize, circular: bool) {
    let graph = whole(circular.then_some(places as u32)).expect("valid");
    let mut given: BTreeMap<String, Tensor> = BTreeMap::new();
    for (i, (name, value)) in graph.inputs().chain(graph.parameters()).enumerate() {
        given.insert(name.to_string(), values(graph.shape(value), i));
    }
    let positions: Vec<i32> = (0..ITEMS).flat_map(|_| 0..TOKENS as i32).collect();
    given.insert("positions".into(), Tensor::new([ITEMS, TOKENS], positions).expect("fits"));
    let expected = Evaluation::<f64>::new(&graph, &given).expect("runs").into_outputs(&graph);
    let expected = expected["y"].to_f64();

    let decode = step(places, circular).expect("valid");
    let weights = decode.parameters().map(|(name, _)| (name, &given[name]));
    // A device of its own, so that no other test compiles on it meanwhile.
    let own_gpu = Gpu::builder().adapter(&gpu().profile().adapter).build().expect("the adapter is there");
    let mut program = own_gpu.compile(&decode, weights.collect::<Parameters<'_>>()).expect("compiles");
    let pipelines = own_gpu.compiled_pipelines();
    let x = given["x"].as_f32().expect("f32");
    // The second item starts three steps later: until then it writes its first token again.
    const LATE: usize = 3;
    for at in 0..TOKENS {
        let own = [at, at.saturating_sub(LATE)];
        let tokens: Vec<f32> =
            own.iter().enumerate().flat_map(|(b, &t)| x[(b * TOKENS + t) * WIDTH..][..WIDTH].to_vec()).collect();
        let tokens = Tensor::new([ITEMS, 1, WIDTH], tokens).expect("fits");
        let position = Tensor::new([ITEMS], own.map(|t| t as i32).to_vec()).expect("fits");
        let outputs = program.run(&[("x", &tokens), ("position", &position)]).expect("runs");
        let found = outputs["y"].as_f32().expect("f32");
        for (b, &t) in own.iter().enumerate() {
            for c in 0..WIDTH {
                let (found, expected) = (f64::from(found[b * WIDTH + c]), expected[(b * TOKENS + t) * WIDTH + c]);
                assert!((found - expected).abs() <= 1e-5, "step {at}, item {b}, feature {c}: {found} and {expected}");
            }
        }
        let full = if circular { 0 } else { own.iter().filter(|&&t| t >= places).count() as i32 };
        assert_eq!(outputs["keys dropped"].as_i32(), Some(&[full][..]));
    }
    assert_eq!(own_gpu.compiled_pipelines(), pipelines, "a step compiled something");

    // From the start again, and the same.
    program.reset().expect("the device is there");
    let first = Tensor::new([ITEMS, 1, WIDTH], [&x[..WIDTH], &x[TOKENS * WIDTH..][..WIDTH]].concat()).expect("fits");
    let zero = Tensor::new([ITEMS], vec![0i32; ITEMS]).expect("fits");
    let outputs = program.run(&[("x", &first), ("position", &zero)]).expect("runs");
    assert_abs_diff_eq!(f64::from(outputs["y"].as_f32().expect("f32")[0]), expected[0], epsilon = 1e-5);
    assert!(
        program.state("keys").expect("a state").as_f32().expect("f32")[HEAD..].iter().take(HEAD).all(|&x| x == 0.0)
    );
}

#[test]
fn a_linear_cache_decodes_what_a_whole_run_computes() {
    check(TOKENS, false);
}

#[test]
fn a_circular_cache_is_a_sliding_window() {
    check(4, true);
}

/// A program that is given another's cache goes on where that stopped.
#[test]
fn programs_share_states() {
    let decode = step(TOKENS, false).expect("valid");
    let given: Vec<(String, Tensor)> =
        decode.parameters().enumerate().map(|(i, (n, v))| (n.to_string(), values(decode.shape(v), i))).collect();
    let weights = || given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect::<Parameters<'_>>();
    let mut alone = gpu().compile(&decode, weights()).expect("compiles");
    let mut first = gpu().compile(&decode, weights()).expect("compiles");
    let cache = ["keys", "values"].map(|name| (name, first.buffer(name).expect("a state")));
    let shared = cache.iter().fold(weights(), |all, (name, buffer)| all.buffer(name, buffer.clone()));
    let mut second = gpu().compile(&decode, shared).expect("compiles");
    for at in 0..4 {
        let x = values(&[ITEMS, 1, WIDTH].into(), at);
        let position = Tensor::new([ITEMS], vec![at as i32; ITEMS]).expect("fits");
        let inputs = [("x", &x), ("position", &position)];
        let expected = alone.run(&inputs).expect("runs");
        let program = if at % 2 == 0 { &mut first } else { &mut second };
        assert_eq!(program.run(&inputs).expect("runs"), expected, "at {at}");
    }
    assert_eq!(first.state("keys").expect("a state"), alone.state("keys").expect("a state"));

    let message = |parameters: Parameters<'_>| gpu().compile(&decode, parameters).expect_err("refused").to_string();
    let zeros = Tensor::zeros(DType::F32, [ITEMS, HEADS, TOKENS, HEAD]).expect("fits");
    assert!(message(weights().tensor("keys", &zeros)).contains("`keys` is a state: give it a buffer"));
    let short = gpu().upload(&Tensor::zeros(DType::F32, [ITEMS]).expect("fits")).expect("uploads");
    assert!(message(weights().buffer("values", short)).contains("the buffer of `values` has 16 bytes"));
}

/// Pages of 4 places for all items together, which a table names: the caller hands out pages as items grow.
fn paged_step(pages: usize, each: usize) -> Result<Graph> {
    const SIZE: usize = 4;
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [ITEMS, 1, WIDTH])?;
    let position = g.input("position", DType::I32, [ITEMS])?;
    let table = g.input("table", DType::I32, [ITEMS, each])?;
    let column = g.reshape(position, [ITEMS, 1])?;
    let [q, k, v] = project(&mut g, x, column)?;
    let cached = |g: &mut Graph, name: &str, update: ValueId| -> Result<ValueId> {
        let cache = g.input(name, DType::F32, [pages, SIZE, HEADS, HEAD])?;
        let (next, dropped) = g.append_paged(cache, update, position, table)?;
        g.update(cache, next)?;
        g.output(format!("{name} dropped"), dropped)?;
        Ok(next)
    };
    let (keys, rows) = (cached(&mut g, "keys", k)?, cached(&mut g, "values", v)?);
    let one = g.scalar(1.0, position)?;
    let length = g.add(position, one)?;
    let (y, status) = g.attention_with_status(q, keys, rows, Mask::pages(table) & Mask::key_lengths(length))?;
    let y = g.merge_heads(y)?;
    g.output("y", y)?;
    g.output("status", status)?;
    Ok(g)
}

#[test]
fn pages_decode_what_a_whole_run_computes() {
    let graph = whole(None).expect("valid");
    let mut given: BTreeMap<String, Tensor> = BTreeMap::new();
    for (i, (name, value)) in graph.inputs().chain(graph.parameters()).enumerate() {
        given.insert(name.to_string(), values(graph.shape(value), i));
    }
    let positions: Vec<i32> = (0..ITEMS).flat_map(|_| 0..TOKENS as i32).collect();
    given.insert("positions".into(), Tensor::new([ITEMS, TOKENS], positions).expect("fits"));
    let expected = Evaluation::<f64>::new(&graph, &given).expect("runs").into_outputs(&graph);
    let expected = expected["y"].to_f64();

    let decode = paged_step(7, 3).expect("valid");
    let program = tilewise::lower::lower(&decode, gpu().profile(), &Default::default()).expect("lowers");
    let in_place = program.steps.iter().filter(|step| step.family == "append" && step.in_place.is_some()).count();
    assert_eq!(in_place, 2, "pages are written where they are:\n{program}");
    let weights = decode.parameters().map(|(name, _)| (name, &given[name]));
    let mut program = gpu().compile(&decode, weights.collect::<Parameters<'_>>()).expect("compiles");
    let x = given["x"].as_f32().expect("f32");
    // Pages are handed out as they come, to whoever needs one; the second item starts late.
    const LATE: usize = 3;
    let mut free = [4, 1, 6, 0, 3, 5].into_iter();
    let mut table = [-1i32; 6];
    for at in 0..TOKENS {
        let own = [at, at.saturating_sub(LATE)];
        for (b, &t) in own.iter().enumerate() {
            let entry = &mut table[b * 3 + t / 4];
            if *entry < 0 {
                *entry = free.next().expect("enough pages");
            }
        }
        let tokens: Vec<f32> =
            own.iter().enumerate().flat_map(|(b, &t)| x[(b * TOKENS + t) * WIDTH..][..WIDTH].to_vec()).collect();
        let tokens = Tensor::new([ITEMS, 1, WIDTH], tokens).expect("fits");
        let position = Tensor::new([ITEMS], own.map(|t| t as i32).to_vec()).expect("fits");
        let pages = Tensor::new([ITEMS, 3], table.to_vec()).expect("fits");
        let inputs = [("x", &tokens), ("position", &position), ("table", &pages)];
        let outputs = program.run(&inputs).expect("runs");
        assert_eq!(outputs["status"].as_i32(), Some(&[0, 0][..]), "step {at}");
        assert_eq!(outputs["keys dropped"].as_i32(), Some(&[0][..]), "step {at}");
        let found = outputs["y"].as_f32().expect("f32");
        for (b, &t) in own.iter().enumerate() {
            for c in 0..WIDTH {
                let (found, expected) = (f64::from(found[b * WIDTH + c]), expected[(b * TOKENS + t) * WIDTH + c]);
                assert!((found - expected).abs() <= 1e-5, "step {at}, item {b}, feature {c}: {found} and {expected}");
            }
        }
    }
    // Past the last page, and on a page that was not handed out: dropped, and the status says why.
    let token = values(&[ITEMS, 1, WIDTH].into(), 5);
    let position = Tensor::new([ITEMS], vec![12, 8]).expect("fits");
    let pages = Tensor::new([ITEMS, 3], table.to_vec()).expect("fits");
    let outputs = program.run(&[("x", &token), ("position", &position), ("table", &pages)]).expect("runs");
    assert_eq!(outputs["keys dropped"].as_i32(), Some(&[2][..]));
    let status = outputs["status"].as_i32().expect("i32");
    assert_eq!(
        AttentionFault::describe(status).expect("faults"),
        "item 0: the key length is below 0 or over Tk\nitem 1: the block table names a page that is not there"
    );
}

/// A full linear cache says that it dropped a row, and keeps what it has.
#[test]
fn an_overflow_is_reported_and_harmless() {
    let decode = step(2, false).expect("valid");
    let given: Vec<(String, Tensor)> =
        decode.parameters().enumerate().map(|(i, (n, v))| (n.to_string(), values(decode.shape(v), i))).collect();
    let weights = given.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let mut program = gpu().compile(&decode, weights.collect::<Parameters<'_>>()).expect("compiles");
    let x = values(&[ITEMS, 1, WIDTH].into(), 5);
    for at in 0..4 {
        let before = program.state("keys").expect("a state");
        let position = Tensor::new([ITEMS], vec![at, 0]).expect("fits");
        let outputs = program.run(&[("x", &x), ("position", &position)]).expect("runs");
        assert_eq!(outputs["keys dropped"].as_i32(), Some(&[i32::from(at >= 2)][..]), "at {at}");
        if at >= 2 {
            let after = program.state("keys").expect("a state");
            let item = HEADS * 2 * HEAD;
            assert_eq!(after.as_f32().expect("f32")[..item], before.as_f32().expect("f32")[..item]);
        }
    }
}

/// A full cache of `nn` says which tokens it has no place for, whether the positions come from the host or lie in a buffer that
/// only the device knows; what has a place is right all the same.
#[test]
fn a_full_cache_is_a_status_beside_the_result() {
    const WIDTH: usize = 8;
    let step = |places: usize| -> Result<Graph> {
        let mut g = Graph::new();
        let [starts, lengths] = ["starts", "lengths"].map(|name| g.input(name, DType::I32, [3]));
        let cache = Cache::new(&mut g, starts?, 2, places, None, false)?;
        let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [3, 1, 2, WIDTH]));
        let y = cache.attend(&mut g, "it", [q?, k?, v?])?;
        g.output("y", y)?;
        let dropped = cache.dropped(&mut g, Some(lengths?))?;
        g.output("dropped", dropped)?;
        Ok(g)
    };
    let compile = |places| gpu().compile(&step(places).expect("valid"), []).expect("compiles");
    let (mut small, mut large, mut recorded) = (compile(4), compile(20), compile(4));
    let mut g = Graph::new();
    let starts = g.input("starts", DType::I32, [3]).expect("valid");
    let host = Cache::new(&mut g, starts, 2, 4, None, false).expect("valid");
    let steps: [([i32; 3], [usize; 3], [i32; 3]); 4] = [
        ([0, 0, 0], [2, 2, 0], [0, 0, 0]),
        ([2, 2, 0], [2, 1, 2], [0, 0, 0]),
        // The second item has a place left, which its first token takes; the first has none.
        ([4, 3, 2], [1, 2, 2], [1, 1, 0]),
        ([5, 3, 4], [2, 1, 0], [2, 0, 0]),
    ];
    for (at, (starts, lengths, dropped)) in steps.into_iter().enumerate() {
        let [q, k, v] = [0, 1, 2].map(|part| values(&[3, 1, 2, WIDTH].into(), 3 * at + part));
        let starts_of = Tensor::new([3], starts.to_vec()).expect("fits");
        let lengths_of = Tensor::new([3], lengths.map(|n| n as i32).to_vec()).expect("fits");
        let inputs = [("starts", &starts_of), ("lengths", &lengths_of), ("q", &q), ("k", &k), ("v", &v)];
        let outputs = small.run(&inputs).expect("runs");
        assert_eq!(outputs["dropped"].as_i32(), Some(&dropped[..]), "step {at}");
        assert_eq!(host.check(&starts, &lengths).is_err(), dropped != [0; 3], "step {at}");

        // The same by buffers that the host does not look into.
        let uploaded = inputs.map(|(name, tensor)| (name, gpu().upload(tensor).expect("uploads")));
        let results = ["y", "dropped"].map(|name| (name, recorded.buffer(name).expect("made")));
        let all = uploaded.iter().chain(&results).map(|(name, buffer)| (*name, buffer.slice(..)));
        let mut encoder = gpu().device().create_command_encoder(&Default::default());
        recorded.encode(&mut encoder, &all.collect::<Vec<_>>()).expect("records");
        gpu().queue().submit([encoder.finish()]);
        let found = gpu().download(results[1].1.slice(..), DType::I32, [3]).expect("reads");
        assert_eq!(found, outputs["dropped"], "step {at}");
        let found = gpu().download(results[0].1.slice(..), DType::F32, [3, 1, 2, WIDTH]).expect("reads");
        assert_eq!(found, outputs["y"], "step {at}");

        let expected = large.run(&inputs).expect("runs");
        let [found, expected] = [&outputs["y"], &expected["y"]].map(|y| y.as_f32().expect("f32"));
        for item in 0..3 {
            // Of the tokens that are real those come first that have a place, since none lies before the start.
            for t in 0..lengths[item] - dropped[item] as usize {
                let row = (item * 2 + t) * WIDTH;
                for (a, b) in found[row..row + WIDTH].iter().zip(&expected[row..row + WIDTH]) {
                    assert_abs_diff_eq!(a, b, epsilon = 1e-6);
                }
            }
        }
    }
    let message = host.check(&[4, 3, 2], &[1, 2, 2]).expect_err("full").to_string();
    assert!(
        message.starts_with("cache: item 0: 1 token of 1 from position 4 on has no place, the cache has 4: make "),
        "{message}"
    );
}
