//! Graphs of many nodes, outputs, states and views: work grows with them, not with their square, and no walk recurses.
//!
//! The bound on time is generous: what these graphs took by quadratic walks was minutes each. Threads of tests have stacks of
//! 2 MiB, which 20,000 calls in calls overflow.

use std::time::{Duration, Instant};

use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    graph::{Attention, AttentionOperand, Binary, Op, Reduce, Unary},
    kernel::Profile,
    lower::{Options, Program, lower},
    quantize::{Bits, Packing},
    reference,
};

/// For each stage. In a debug build on a busy machine they take a tenth.
const BOUND: Duration = Duration::from_secs(60);

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    let taken = begun.elapsed();
    println!("{what}: {taken:.1?}");
    assert!(taken < BOUND, "{what} took {taken:?}: is something walked again for each of its elements?");
    result
}

/// Everything that is done to a graph on the host.
fn all_of(what: &str, build: impl FnOnce(&mut Graph) -> Result<()>) -> (Graph, Program) {
    let mut g = Graph::new();
    timed(&format!("{what}: build"), || build(&mut g)).unwrap_or_else(|e| panic!("{what}: {e}"));
    timed(&format!("{what}: verify"), || g.verify()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let text = timed(&format!("{what}: write JSON"), || g.to_json()).expect("writes");
    let back = timed(&format!("{what}: read JSON"), || Graph::from_json(&text)).expect("reads");
    assert!(back == g, "{what}: it comes back");
    timed(&format!("{what}: print"), || (g.to_string(), g.to_dot()));
    timed(&format!("{what}: other shapes"), || g.with_shapes(&[])).expect("the same");
    let program = timed(&format!("{what}: lower"), || lower(&g, &Profile::portable(), &Options::default()));
    let program = program.unwrap_or_else(|e| panic!("{what}: {e}"));
    timed(&format!("{what}: check the program"), || program.verify()).expect("valid");
    timed(&format!("{what}: print the program"), || program.to_string());
    (g, program)
}

fn chain(g: &mut Graph, mut x: ValueId, functions: usize) -> Result<ValueId> {
    for i in 0..functions {
        x = g.unary(if i % 2 == 0 { Unary::Tanh } else { Unary::Exp }, x)?;
    }
    Ok(x)
}

#[test]
fn a_hundred_thousand_nodes_in_a_chain() {
    let (_, program) = all_of("100,000 nodes", |g| {
        let x = g.input("x", DType::F32, [4])?;
        let y = chain(g, x, 100_000)?;
        g.output("y", y)
    });
    // Kernels of a length that compilers take.
    assert_eq!(program.steps.len(), 100_000usize.div_ceil(256));
}

#[test]
fn thirty_thousand_outputs_of_one_input() {
    let (g, program) = all_of("30,000 outputs", |g| {
        let x = g.input("x", DType::F32, [4])?;
        for i in 0..30_000 {
            let y = g.unary(Unary::Tanh, x)?;
            g.name(y, format!("value {i}"))?;
            g.trace("block", y)?;
            g.output(format!("y{i}"), y)?;
        }
        Ok(())
    });
    assert_eq!(program.steps.len(), 30_000);
    assert_eq!(g.traced("block#30000"), g.find("value 29999"));
    let inputs = [("x".to_string(), Tensor::zeros(DType::F32, [4]).expect("fits"))].into();
    let outputs = timed("30,000 outputs: evaluate", || reference::evaluate(&g, &inputs)).expect("runs");
    assert_eq!(outputs.len(), 30_000);
}

/// All of them are alive until the last has been computed, and a value has as many readers.
#[test]
fn thirty_thousand_temporaries_at_once() {
    let (_, program) = all_of("30,000 temporaries", |g| {
        let x = g.input("x", DType::F32, [1, 4])?;
        let (mut up, mut parts) = (x, Vec::new());
        for _ in 0..15_000 {
            let y = g.softmax(x, -1)?;
            up = g.softmax(up, -1)?;
            parts.extend([y, up]);
        }
        let y = g.concat(&parts, 0)?;
        g.output("y", y)
    });
    assert_eq!(program.steps.len(), 30_001);
    assert_eq!(program.allocations.len(), 30_000, "nothing can be shared");
}

/// Each takes the memory of the one before, which two allocations would do for without that.
#[test]
fn thirty_thousand_steps_in_a_row() {
    let (_, program) = all_of("30,000 steps", |g| {
        let mut x = g.input("x", DType::F32, [1, 4])?;
        for i in 0..30_000 {
            x = if i % 2 == 0 { g.softmax(x, -1)? } else { g.push(Op::Softmax { axis: 0 }, &[x])?[0] };
        }
        g.output("y", x)
    });
    assert!(program.allocations.len() <= 2, "{}", program.allocations.len());
}

#[test]
fn ten_thousand_states() {
    let (g, program) = all_of("10,000 states", |g| {
        for i in 0..10_000 {
            let state = g.input(&format!("s{i}"), DType::F32, [4])?;
            let next = g.unary(Unary::Tanh, state)?;
            g.update(state, next)?;
        }
        Ok(())
    });
    assert_eq!((g.states().count(), g.inputs().count(), program.steps.len()), (10_000, 0, 10_000));
}

/// `x[::-1][::-1]…`: a chain of views that nothing joins, with a reader at every thousandth.
#[test]
fn twenty_thousand_views_in_a_row() {
    let (g, program) = all_of("20,000 views", |g| {
        let x = g.input("x", DType::F32, [3])?;
        let one = g.constant(Tensor::new([3], vec![1.0f32; 3])?)?;
        let (mut x, mut one) = (x, one);
        for i in 0..20_000 {
            let reversed = Op::Slice { starts: vec![2], sizes: vec![3], steps: vec![-1] };
            x = g.push(reversed.clone(), &[x])?[0];
            one = g.push(reversed, &[one])?[0];
            if i % 1000 == 999 {
                // The ones are known to be ones, however far away.
                let y = g.binary(Binary::Mul, x, one)?;
                let y = g.unary(Unary::Tanh, y)?;
                g.output(format!("y{i}"), y)?;
            }
        }
        g.output("x again", x)
    });
    assert_eq!(program.steps.len(), 21, "{} steps", program.steps.len());
    let x = Tensor::new([3], vec![1.0f32, 2.0, 3.0]).expect("fits");
    let outputs = reference::evaluate(&g, &[("x".to_string(), x.clone())].into()).expect("runs");
    assert_eq!(outputs["x again"], x);
}

/// A module that is called again and again, and a description that asks for more than there is.
#[test]
fn thirty_thousand_parameters_are_compared_with_weights() {
    let (g, _) = all_of("30,000 parameters", |g| {
        let mut x = g.input("x", DType::F32, [4])?;
        for i in 0..30_000 {
            let p = g.parameter(&format!("p{i}"), DType::F32, [4])?;
            if i % 1000 == 0 {
                x = g.add(x, p)?;
            }
        }
        g.output("y", x)
    });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.safetensors");
    let tensor = Tensor::zeros(DType::F32, [4]).expect("fits");
    let stored = g.parameters().map(|(name, _)| (name.to_string(), tensor.clone())).collect();
    tilewise::safetensors::save(&file, &stored).expect("writes");
    let weights = timed("30,000 parameters: open", || tilewise::nn::Weights::open(&file)).expect("opens");
    timed("30,000 parameters: check", || weights.check(&g)).expect("fits");
}

/// The largest axes that there are, alone, beside empty ones and beside each other, for every operation: each is lowered or
/// refused, and no sum or product of sizes overflows on the way (debug builds check them all).
#[test]
fn the_largest_sizes_are_lowered_or_refused() {
    const MOST: usize = i32::MAX as usize;
    let shapes: [&[usize]; 14] = [
        &[MOST],
        &[0],
        &[0, MOST],
        &[MOST, 0],
        &[1, MOST],
        &[MOST, 1],
        &[46_340, 46_340],
        &[0, 46_340, 46_340],
        &[1 << 30, 0, 1],
        &[MOST, 0, 0, 1],
        &[0, 1, MOST, 1],
        &[1, 1, MOST, 1],
        &[1, 1, 1 << 29, 2],
        &[2, 1 << 14, 1 << 14, 2],
    ];
    // A device without limits, so that nothing is refused for them.
    let mut profile = Profile::portable();
    (profile.limits.binding_bytes, profile.limits.buffer_bytes) = (1 << 40, 1 << 40);
    let profiles = [profile, Profile::portable()];
    let (mut lowered, mut refused) = (0, 0);
    let mut attempt = |what: String, build: &dyn Fn(&mut Graph) -> Result<Vec<ValueId>>| {
        let mut g = Graph::new();
        let Ok(values) = build(&mut g) else {
            refused += 1;
            return;
        };
        for (i, value) in values.into_iter().enumerate() {
            g.output(format!("y{i}"), value).expect("a new name");
        }
        g.verify().unwrap_or_else(|e| panic!("{what}: {e}"));
        for profile in &profiles {
            for options in [Options::default(), Options::unfused()] {
                match lower(&g, profile, &options) {
                    Ok(program) => {
                        program.verify().unwrap_or_else(|e| panic!("{what}: {e}"));
                        assert!(!program.to_string().is_empty());
                        lowered += 1;
                    }
                    Err(error) => {
                        assert!(!error.to_string().is_empty(), "{what}");
                        refused += 1;
                    }
                }
            }
        }
    };
    for shape in shapes {
        for dtype in [DType::F32, DType::BF16, DType::Bool, DType::I32] {
            let mut of = |name: &str, then: &dyn Fn(&mut Graph, ValueId) -> Result<Vec<ValueId>>| {
                attempt(format!("{name} of {dtype} {shape:?}"), &|g| {
                    let x = g.input("x", dtype, shape)?;
                    then(g, x)
                });
            };
            let rank = shape.len();
            of("neg", &|g, x| g.push(Op::Unary { function: Unary::Neg }, &[x]));
            of("equal", &|g, x| g.push(Op::Binary { function: Binary::Equal }, &[x, x]));
            of("cast", &|g, x| g.push(Op::Cast { dtype: DType::F16 }, &[x]));
            of("reversed", &|g, x| {
                let starts = shape.iter().map(|size| size.saturating_sub(1)).collect();
                g.push(Op::Slice { starts, sizes: shape.to_vec(), steps: vec![-1; rank] }, &[x])
            });
            of("odd steps", &|g, x| {
                let op = Op::Slice { starts: vec![0; rank], sizes: vec![1; rank], steps: vec![isize::MIN; rank] };
                g.push(op, &[x])
            });
            of("no element, from far away", &|g, x| {
                let op =
                    Op::Slice { starts: vec![usize::MAX; rank], sizes: vec![0; rank], steps: vec![isize::MAX; rank] };
                g.push(op, &[x])
            });
            of("turned", &|g, x| g.push(Op::Permute { order: (0..rank).rev().collect() }, &[x]));
            of("flat", &|g, x| g.push(Op::Reshape { shape: [shape.iter().product::<usize>()].into() }, &[x]));
            of("padded", &|g, x| g.push(Op::Pad { before: vec![1; rank], after: vec![MOST; rank], value: 0.0 }, &[x]));
            of("a little padded", &|g, x| {
                g.push(Op::Pad { before: vec![1; rank], after: vec![0; rank], value: 0.0 }, &[x])
            });
            of("stretched", &|g, x| g.push(Op::Broadcast { shape: [&[2], shape].concat().into() }, &[x]));
            of("joined", &|g, x| g.push(Op::Concat { axis: rank - 1 }, &[x, x, x]));
            of("product", &|g, x| g.push(Op::Matmul { transpose_a: false, transpose_b: true }, &[x, x]));
            of("square", &|g, x| g.push(Op::Matmul { transpose_a: true, transpose_b: false }, &[x, x]));
            of("layer norm", &|g, x| {
                g.push(Op::LayerNorm { axes: rank, epsilon: 0.1, weight: false, bias: false }, &[x])
            });
            of("rms norm", &|g, x| g.push(Op::RmsNorm { axes: 1, epsilon: 0.1, weight: false }, &[x]));
            of("attention", &|g, x| g.push(Op::Attention(Default::default()), &[x, x, x]));
            of("rotary", &|g, x| {
                let cos = g.input("cos", dtype, [MOST / 2, 1])?;
                let positions = g.input("positions", DType::I32, [shape[0], *shape.get(2).unwrap_or(&1)])?;
                g.push(Op::Rotary { interleaved: false }, &[x, cos, cos, positions])
            });
            of("appended", &|g, x| {
                let positions = g.input("positions", DType::I32, [shape[0]])?;
                g.push(Op::Append { axis: rank - 1, circular: false }, &[x, x, positions])
            });
            of("merged", &|g, x| {
                let lses = g.input("lses", DType::F32, &shape[..rank - 1])?;
                g.push(Op::AttentionMerge, &[x, lses])
            });
            for axis in 0..rank {
                of("softmax", &|g, x| g.push(Op::Softmax { axis }, &[x]));
                of("argmax", &|g, x| g.push(Op::Argmax { axis, keep: false, last: true }, &[x]));
                for function in [Reduce::Sum, Reduce::Max] {
                    of("reduce", &|g, x| g.push(Op::Reduce { function, axes: vec![axis], keep: true }, &[x]));
                    of("reduce all", &|g, x| {
                        g.push(Op::Reduce { function, axes: (0..rank).collect(), keep: false }, &[x])
                    });
                }
                of("gather", &|g, x| {
                    let indices = g.input("indices", DType::I32, [MOST])?;
                    g.push(Op::Gather { axis }, &[x, indices])
                });
            }
        }
    }
    // Pages: few elements, many places.
    attempt("pages".into(), &|g| {
        let q = g.input("q", DType::F32, [1, 1, 1, 1])?;
        let pages = g.input("pages", DType::F32, [1, 1 << 16, 1, 1])?;
        let table = g.input("table", DType::I32, [1, 1 << 16])?;
        let options = Attention { operands: vec![AttentionOperand::BlockTable], ..Attention::default() };
        g.push(Op::Attention(options), &[q, pages, pages, table])
    });
    for (group, columns) in [(None, usize::MAX), (Some(1 << 62), 64), (Some(1 << 30), 1 << 30), (Some(16), MOST)] {
        attempt(format!("{columns} columns in groups of {group:?}"), &|g| {
            let packing = Packing { bits: Bits::Eight, group, zero: false, columns };
            let words = g.input("words", DType::U32, [1, columns.min(1 << 30) / 4])?;
            let scale = g.input("scale", DType::F32, [1, group.map_or(1, |group| columns.div_ceil(group))])?;
            g.push(Op::Dequantize(packing), &[words, scale])
        });
    }
    println!("{lowered} lowered, {refused} refused");
    assert!(lowered > 500 && refused > 500, "{lowered} lowered, {refused} refused");
}
