//! Whole layers: what their programs consist of, and what memory they take.

use tilewise::{
    DType, Data, Graph, Result, Tensor, ValueId,
    graph::{Align, Mask, Reduce},
    kernel::Profile,
    lower::{Options, Program, lower},
    nn,
};

use super::{families, input, lowered, program};

const B: usize = 2;
const HEADS: usize = 4;
/// Target and source differ in length and width.
const T_A: usize = 80;
const T_B: usize = 48;
const E_A: usize = 96;
const E_B: usize = 64;
const HIDDEN: usize = 256;

fn linear(g: &mut Graph, name: &str, x: ValueId, out: usize) -> Result<ValueId> {
    let width = g.shape(x)[2];
    let w = g.parameter(&format!("{name}.weight"), DType::F32, [out, width])?;
    let b = g.parameter(&format!("{name}.bias"), DType::F32, [out])?;
    g.linear(x, w, Some(b))
}

fn norm(g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
    let w = g.parameter(&format!("{name}.weight"), DType::F32, [E_B])?;
    let b = g.parameter(&format!("{name}.bias"), DType::F32, [E_B])?;
    g.layer_norm(x, Some(w), Some(b), 1e-5)
}

/// Attention of `x` over `memory`, every operation written out; `hidden` is where `mask` hides the key.
fn attention(g: &mut Graph, name: &str, x: ValueId, memory: ValueId, hidden: ValueId) -> Result<ValueId> {
    let project = |g: &mut Graph, part: &str, from: ValueId| {
        let y = linear(g, &format!("{name}.{part}"), from, E_B)?;
        g.split_heads(y, HEADS)
    };
    let (q, k, v) = (project(g, "q", x)?, project(g, "k", memory)?, project(g, "v", memory)?);
    let kt = g.permute(k, &[0, 1, 3, 2])?;
    let scores = g.matmul(q, kt)?;
    let root = g.scalar(((E_B / HEADS) as f64).sqrt(), scores)?;
    let scores = g.div(scores, root)?;
    let fill = g.scalar(f64::NEG_INFINITY, scores)?;
    let scores = g.select(hidden, fill, scores)?;
    let weights = g.softmax(scores, -1)?;
    let out = g.matmul(weights, v)?;
    let out = g.merge_heads(out)?;
    linear(g, &format!("{name}.out"), out, E_B)
}

/// A decoder layer with the norms behind the residuals; gelu is written out too.
fn decoder(g: &mut Graph) -> Result<ValueId> {
    let (x, source) = (input(g, "x", &[B, T_B, E_B])?, input(g, "source", &[B, T_A, E_A])?);
    let future: Vec<bool> = (0..T_B).flat_map(|i| (0..T_B).map(move |j| j > i)).collect();
    let future = g.constant(Tensor::new([T_B, T_B], Data::Bool(future))?)?;
    let padding = g.input("padding", DType::Bool, [B, 1, 1, T_A])?;

    let y = attention(g, "self", x, x, future)?;
    let y = g.add(x, y)?;
    let x = norm(g, "norm1", y)?;
    let y = attention(g, "cross", x, source, padding)?;
    let y = g.add(x, y)?;
    let x = norm(g, "norm2", y)?;

    let y = linear(g, "up", x, HIDDEN)?;
    let (root, one, half) = (g.scalar(2f64.sqrt(), y)?, g.scalar(1.0, y)?, g.scalar(0.5, y)?);
    let e = g.div(y, root)?;
    let e = g.erf(e)?;
    let e = g.add(e, one)?;
    let e = g.mul(e, half)?;
    let y = g.mul(y, e)?;
    let y = linear(g, "down", y, E_B)?;
    let y = g.add(x, y)?;
    norm(g, "norm3", y)
}

#[test]
fn a_decoder_layer_written_out_is_fused() {
    let program = program(decoder);
    let attention = ["matmul", "matmul", "matmul", "attention", "matmul", "norm"];
    // `not padding` is the one thing that has to be computed besides: it is the mask in PyTorch's sense.
    let mut expected = [&attention[..], &attention, &["matmul", "matmul", "norm"]].concat();
    expected.insert(9, "pointwise");
    assert_eq!(families(&program), expected, "{program}");
    let summaries: Vec<&str> = program.steps.iter().map(|step| step.summary.as_str()).collect();
    assert_eq!(summaries[3], "q[2, 4, 48, 16] k[2, 4, 48, 16] v[2, 4, 48, 16] +causal");
    assert_eq!(summaries[10], "q[2, 4, 48, 16] k[2, 4, 80, 16] v[2, 4, 80, 16] +mask");
    assert_eq!(summaries[4], "M=96 N=64 K=64 +bias +residual");
    assert_eq!(summaries[13], "M=96 N=256 K=64 +bias +gelu");
    let rules: Vec<&str> = program.notes.iter().filter(|note| note.applied).map(|note| note.rule).collect();
    for rule in
        ["recognise attention", "recognise causal mask", "recognise activation", "fuse into matmul", "merge heads"]
    {
        assert!(rules.contains(&rule), "{rule}\n{program}");
    }
    assert!(!rules.contains(&"copy"), "heads are split and merged without a copy\n{program}");
    // Scores, weights and what else was never written; the rest shares memory.
    assert!(program.peak_bytes() * 8 < program.unfused_bytes, "{program}");
    assert!(program.peak_bytes() * 2 < program.naive_bytes(), "{program}");
}

#[test]
fn the_unfused_program_has_a_kernel_for_each_operation() {
    let mut g = Graph::new();
    let y = decoder(&mut g).and_then(|y| g.output("y", y));
    y.unwrap_or_else(|e| panic!("{e}"));
    let unfused = lowered(&g, &Options { share_memory: false, ..Options::unfused() });
    let kernels = g.nodes().iter().filter(|node| !node.op.is_source() && !node.op.is_view()).count();
    let copies = unfused.steps.iter().filter(|step| step.family == "copy").count();
    assert_eq!(unfused.steps.len(), kernels + copies, "{unfused}");
    // Merging the heads copies here: a product writes its result in one order only.
    assert_eq!(copies, 2, "{unfused}");
    let copied = (B * T_B * E_B * 4 * copies) as u64;
    assert_eq!(unfused.naive_bytes(), unfused.unfused_bytes + copied);
}

fn layer(norm_first: bool, batch_first: bool) -> Program {
    program(|g| {
        let x = input(g, "x", if batch_first { &[B, T_B, E_B] } else { &[T_B, B, E_B] })?;
        let memory = input(g, "memory", if batch_first { &[B, T_A, E_A] } else { &[T_A, B, E_A] })?;
        let mut layer = nn::DecoderLayer::new(E_B, HEADS, HIDDEN);
        (layer.norm_first, layer.batch_first, layer.memory_width) = (norm_first, batch_first, Some(E_A));
        let masks = nn::AttentionMasks::from(Mask::causal(Align::TopLeft));
        layer.build(g, "layer", x, memory, &masks, &nn::AttentionMasks::default())
    })
}

#[test]
fn layers_of_the_library_need_no_copies() {
    for norm_first in [false, true] {
        let program = layer(norm_first, true);
        let count = |family: &str| program.steps.iter().filter(|step| step.family == family).count();
        assert_eq!((count("attention"), count("norm"), count("copy"), count("pointwise")), (2, 3, 0, 0), "{program}");
    }
    // With the batch in the second place a residual meets a product whose axes are turned: the norm adds it as it lies.
    let turned = layer(false, false);
    let summed = turned.notes.iter().filter(|note| note.rule == "fuse into norm" && note.applied).count();
    assert_eq!(summed, 2, "{turned}");
}

#[test]
fn grouped_heads_repeated_by_hand_are_not_copied() {
    let grouped = program(|g| {
        let x = input(g, "x", &[B, T_B, E_B])?;
        let q = linear(g, "q", x, E_B)?;
        let q = g.split_heads(q, HEADS)?;
        let mut keys = |name: &str| {
            let y = linear(g, name, x, E_B / 2)?;
            let y = g.split_heads(y, HEADS / 2)?;
            let d = E_B / HEADS;
            let y = g.reshape(y, [B, HEADS / 2, 1, T_B, d])?;
            let y = g.broadcast(y, [B, HEADS / 2, 2, T_B, d])?;
            g.reshape(y, [B, HEADS, T_B, d])
        };
        let (k, v) = (keys("k")?, keys("v")?);
        let scores = g.matmul_transposed(q, k)?;
        let weights = g.softmax(scores, -1)?;
        let out = g.matmul(weights, v)?;
        g.merge_heads(out)
    });
    assert_eq!(families(&grouped), ["matmul", "matmul", "matmul", "attention"], "{grouped}");
    assert_eq!(grouped.steps[3].summary, "q[2, 4, 48, 16] k[2, 2, 48, 16] v[2, 2, 48, 16]");
}

/// As models for language have it: embeddings and positions summed, then normalised, the sum kept for the residual.
#[test]
fn embeddings_and_positions_are_added_by_the_norm() {
    let embedded = program(|g| {
        let ids = g.input("ids", DType::I32, [B, T_B])?;
        let table = g.parameter("table", DType::F32, [1000, E_B])?;
        let positions = g.parameter("positions", DType::F32, [T_B, E_B])?;
        let tokens = g.gather(table, ids, 0)?;
        let x = g.add(tokens, positions)?;
        let y = norm(g, "norm", x)?;
        let y = linear(g, "up", y, E_B)?;
        let y = g.add(x, y)?;
        g.reduce(Reduce::Mean, y, &[1], false)
    });
    assert_eq!(families(&embedded), ["gather", "norm", "matmul", "reduce"], "{embedded}");
    assert_eq!(embedded.steps[1].outputs.len(), 2);
}

/// A graph of this size is lowered in well under a frame: what a new shape costs, since no kernel is compiled for it.
#[test]
fn lowering_again_for_another_shape_takes_microseconds() {
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let x = g.input("x", DType::F32, [T_B, E_B])?;
        let mut y = x;
        for i in 0..8 {
            let w = g.parameter(&format!("w{i}"), DType::F32, [E_B, E_B])?;
            let b = g.parameter(&format!("b{i}"), DType::F32, [E_B])?;
            let z = g.linear(y, w, Some(b))?;
            let z = g.gelu(z)?;
            y = g.add(y, z)?;
        }
        g.output("y", y)
    };
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    let program = lowered(&g, &Options::default());
    assert_eq!(program.steps.len(), 8);
    let started = std::time::Instant::now();
    let rounds = 100;
    for i in 0..rounds {
        let other = g.with_shapes(&[("x", [T_B + i, E_B].into())]).unwrap_or_else(|e| panic!("{e}"));
        let program = lower(&other, &Profile::portable(), &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(program.steps.len(), 8);
    }
    let each = started.elapsed() / rounds as u32;
    println!("{} nodes: {each:?} from new shapes to a program", g.nodes().len());
    assert!(each.as_millis() < 50, "{each:?}");
}
