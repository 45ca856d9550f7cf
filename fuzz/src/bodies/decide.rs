//! Whether a device's result can be compared with the reference's at all. Mutated graphs do what no model does: they round what
//! is near a half, divide by what cancelled, overflow f32 where f64 doesn't. There two right evaluations may differ by
//! anything. Such graphs are counted, not compared.

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Tensor, ValueId,
    graph::{Binary, Op, Reduce, Unary},
    reference::{
        Evaluation, Value,
        compare::{Bound, extra},
    },
};

/// What a device's outputs are to be compared with: name, value and bound, or why they can't be.
pub type Outputs = Vec<(String, Value<f64>, Result<Bound, &'static str>)>;

/// Pairs of elements that are looked at.
const PAIRS: usize = 1 << 20;

/// What is known of a value of the graph.
#[derive(Clone, Copy)]
struct Known {
    /// What an evaluation may be off by.
    off: f64,
    /// The largest magnitude on the way to it.
    magnitude: f64,
    /// Every evaluation gives these bits.
    exact: bool,
    /// Why it can't be compared, if it can't.
    unsure: Option<&'static str>,
}

/// Evaluates a graph, and says of each output whether it can be compared.
///
/// # Errors
/// As [`Evaluation::new`].
pub fn outputs(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> tilewise::Result<Outputs> {
    let wide = Evaluation::<f64>::new(graph, inputs)?;
    let plain = Evaluation::<f32>::new(graph, inputs)?;
    // Fusion moves roundings around: all that happens anywhere may happen here.
    let looser: f64 = graph.nodes().iter().map(|node| extra(&node.op)).sum();
    let mut known: Vec<Known> = Vec::with_capacity(graph.values().len());
    for node in graph.nodes() {
        let operands: Vec<Known> = node.inputs.iter().map(|input| known[input.index()]).collect();
        let values: Vec<&Value<f64>> = node.inputs.iter().map(|&input| wide.value(input)).collect();
        let inherited = operands.iter().find_map(|operand| operand.unsure);
        let unsure = inherited.or_else(|| at_an_edge(&node.op, &operands, &values));
        for &output in &node.outputs {
            let exact = exact(&node.op, &operands, &values) && same(wide.value(output), plain.value(output));
            known.push(judge(output, &wide, &plain, looser, &operands, exact, unsure));
        }
    }
    let one = |(name, value): &(String, ValueId)| {
        let (expected, known) = (wide.value(*value), known[value.index()]);
        let bound = Bound::measured(expected, plain.value(*value), looser, known.magnitude);
        let result = match known.unsure {
            Some(why) => Err(why),
            // As the comparer has it, but for the magnitude on the way.
            None if largest(expected) < 4.0 * known.off && !known.exact => Err("its bound is as large as its values"),
            None => Ok(bound),
        };
        (name.clone(), expected.clone(), result)
    };
    Ok(graph.outputs().iter().map(one).collect())
}

fn judge(
    value: ValueId,
    wide: &Evaluation<f64>,
    plain: &Evaluation<f32>,
    looser: f64,
    operands: &[Known],
    exact: bool,
    unsure: Option<&'static str>,
) -> Known {
    let (expected, plain) = (wide.value(value), plain.value(value));
    let magnitude = operands.iter().map(|operand| operand.magnitude).fold(largest(expected), f64::max);
    let off = match Bound::measured(expected, plain, looser, magnitude) {
        Bound::Measured { absolute, .. } => absolute,
        Bound::Exact | Bound::Within { .. } => 0.0,
    };
    let unsure = unsure.or_else(|| {
        let most = match expected.dtype() {
            DType::F16 => 60000.0,
            DType::F32 | DType::BF16 => 1e30,
            DType::I32 | DType::U32 | DType::Bool => return None,
        };
        let pairs = || expected.to_f64().into_iter().zip(plain.to_f64());
        if pairs().any(|(a, b)| a.is_nan() != b.is_nan() || a.is_infinite() != b.is_infinite()) {
            return Some("f32 overflows on the way");
        }
        if pairs().any(|(a, _)| a.is_finite() && a.abs() > most && a != f64::from(f32::MIN)) {
            return Some("it is near what overflows");
        }
        // What is subnormal may be flushed to 0.
        let tiny = |x: f64| x != 0.0 && x.abs() < 1e-30;
        pairs().any(|(a, _)| tiny(a)).then_some("it is near what underflows")
    });
    Known { off: if exact { 0.0 } else { off }, magnitude, exact, unsure }
}

/// The largest finite magnitude.
fn largest(value: &Value<f64>) -> f64 {
    let finite = value.to_f64().into_iter().filter(|x| x.is_finite() && *x != f64::from(f32::MIN));
    finite.fold(0.0, |most, x| x.abs().max(most))
}

fn same(wide: &Value<f64>, plain: &Value<f32>) -> bool {
    wide.to_f64().iter().zip(plain.to_f64()).all(|(&a, b)| a == b || (a.is_nan() && b.is_nan()))
}

/// Whether every evaluation gives the same bits, as far as the operation goes.
fn exact(op: &Op, operands: &[Known], values: &[&Value<f64>]) -> bool {
    let whole = || {
        let each = |value: &&Value<f64>| value.to_f64().iter().all(|x| x.fract() == 0.0 && x.abs() < 256.0);
        values.iter().all(each)
    };
    let of_operands = operands.iter().all(|operand| operand.exact);
    match op {
        Op::Input { .. } | Op::Parameter { .. } | Op::Constant { .. } => true,
        // Integers add up in any order.
        Op::Matmul { .. } | Op::Reduce { function: Reduce::Sum, .. } => of_operands && whole(),
        Op::Reduce { function: Reduce::Mean, .. } | Op::Attention(_) | Op::AttentionMerge => false,
        // One operation with the next is rounded once.
        Op::Binary { function: Binary::Add | Binary::Sub | Binary::Mul } => of_operands && whole(),
        Op::Dequantize(_) => false,
        other => of_operands && extra(other) == 0.0,
    }
}

/// Whether an operand is so near to where the operation jumps, or grows without bound, that evaluations part there.
fn at_an_edge(op: &Op, operands: &[Known], values: &[&Value<f64>]) -> Option<&'static str> {
    let any = |i: usize, near: &dyn Fn(f64) -> f64| {
        values[i].to_f64().iter().any(|&x| x.is_finite() && near(x) <= operands[i].off)
    };
    let inexact = |i: usize| values[i].dtype().is_float() && !operands[i].exact;
    let to_whole = |x: f64| (x - x.round()).abs();
    match op {
        Op::Unary { function } => match function {
            Unary::Floor | Unary::Ceil => inexact(0) && any(0, &to_whole),
            Unary::Round => inexact(0) && any(0, &|x| (x.abs().fract() - 0.5).abs()),
            Unary::Sign => inexact(0) && any(0, &f64::abs),
            Unary::Reciprocal | Unary::Rsqrt | Unary::Log | Unary::Sqrt => {
                any(0, &|x| x.abs() / 16.0)
                    || any(0, &|x| x)
                    || any(0, &|x| if x == 0.0 { 0.0 } else { x.abs() * 1e30 })
            }
            // WGSL asks for no accuracy of large arguments.
            Unary::Sin | Unary::Cos => values[0].to_f64().iter().any(|x| x.abs() > 3.0),
            _ => false,
        }
        .then_some("it is at an edge of a function"),
        Op::Binary { function } => {
            let apart = |x: f64, y: f64| x != y && (x - y).abs() <= operands[0].off + operands[1].off;
            let near = || {
                if !inexact(0) && !inexact(1) {
                    return false;
                }
                let (a, b) = (values[0].to_f64(), values[1].to_f64());
                // Whatever is broadcast to whatever; of many pairs some are near.
                a.len() * b.len() > PAIRS || a.iter().any(|&x| b.iter().any(|&y| x == y || apart(x, y)))
            };
            match function {
                _ if function.is_comparison() => near(),
                Binary::Div => any(1, &|x| x.abs() / 16.0),
                // exp2(y·log2 x), and undefined for negative x.
                Binary::Pow => {
                    let wild = |x: &f64| !(1e-3..1e3).contains(x);
                    values[0].to_f64().iter().any(wild)
                        || values[1].to_f64().iter().any(|y| y.is_nan() || y.abs() >= 8.0)
                }
                _ => false,
            }
            .then_some("it is at an edge of a function")
        }
        Op::Cast { dtype } if !dtype.is_float() && values[0].dtype().is_float() => {
            (inexact(0) && any(0, &to_whole)).then_some("it is at an edge of a conversion")
        }
        Op::Argmax { .. } => inexact(0).then_some("which is the largest depends on rounding"),
        _ => None,
    }
}
