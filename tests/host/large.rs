//! Graphs of many nodes, outputs, states and views: work grows with them, not with their square, and no walk recurses.
//!
//! The bound on time is generous: what these graphs took by quadratic walks was minutes each. Threads of tests have stacks of
//! 2 MiB, which 20,000 calls in calls overflow.

use std::time::{Duration, Instant};

use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    graph::{Binary, Op, Unary},
    kernel::Profile,
    lower::{Options, Program, lower},
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
