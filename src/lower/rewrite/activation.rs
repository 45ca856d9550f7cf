//! Activations that are written out in simpler functions, as graphs from other programs have them.

use super::rebuild::Rebuild;
use crate::{
    DType, Graph, Result, ValueId,
    graph::{Binary, Node, NodeId, Op, Unary},
    lower::pattern::{scaled, unary_of},
};

const RULE: &str = "recognise activation";

/// Factors in a row that are looked at: more than a formula here has.
const DEPTH: usize = 8;

/// Whether an activation may begin at a node.
pub(super) fn starts(node: &Node) -> bool {
    matches!(node.op, Op::Unary { function: Unary::Sigmoid | Unary::Erf | Unary::Tanh })
}

/// Replaces `x·sigmoid(x)` by silu, and `x·½·(1 + erf(x/√2))` and `x·½·(1 + tanh(√(2/π)·(x + 0.044715·x³)))` by gelu.
pub(super) fn recognise(rebuild: &mut Rebuild<'_>, id: NodeId) -> Result<bool> {
    let graph = rebuild.old;
    let Some((function, x)) = silu(graph, graph.node(id)).or_else(|| gelu(graph, graph.node(id))) else {
        return Ok(false);
    };
    let operand = rebuild.get(x)?;
    let result = graph.node(id).outputs[0];
    rebuild.rewrite(id, Op::Unary { function }, &[operand])?;
    let reason = format!("it is {} of {}, written out", function.name(), rebuild.survey.quote(x));
    rebuild.note(RULE, result, true, reason);
    Ok(true)
}

fn silu(graph: &Graph, node: &Node) -> Option<(Unary, ValueId)> {
    let (&Op::Binary { function: Binary::Mul }, &[a, b]) = (&node.op, &node.inputs[..]) else { return None };
    let gates = |x: ValueId, gate: ValueId| unary_of(graph, gate) == Some((Unary::Sigmoid, x));
    let x = if gates(a, b) {
        a
    } else if gates(b, a) {
        b
    } else {
        return None;
    };
    Some((Unary::Silu, x))
}

fn gelu(graph: &Graph, node: &Node) -> Option<(Unary, ValueId)> {
    let Op::Binary { function: Binary::Mul | Binary::Div } = node.op else { return None };
    let result = node.outputs[0];
    let gate = Factors::of(graph, result, None)?.values.into_iter().find(|&value| one_plus(graph, value).is_some())?;
    let inner = one_plus(graph, gate)?;
    let (function, x) = match unary_of(graph, inner)? {
        (Unary::Erf, t) => (Unary::Gelu, halved(graph, t)?),
        (Unary::Tanh, t) => (Unary::GeluTanh, cubic(graph, t)?),
        _ => return None,
    };
    let same_shape = graph.shape(x) == graph.shape(result);
    let Factors { constant, mut values } = Factors::of(graph, result, Some(x))?;
    let mut expected = [x, gate];
    values.sort_unstable();
    expected.sort_unstable();
    (same_shape && close(graph, x, constant, 0.5) && values == expected).then_some((function, x))
}

/// x of `x/√2`.
fn halved(graph: &Graph, mut t: ValueId) -> Option<ValueId> {
    let mut factor = 1.0;
    for _ in 0..DEPTH {
        if close(graph, t, factor, std::f64::consts::FRAC_1_SQRT_2) {
            return Some(t);
        }
        let (inner, f) = scaled(graph, graph.definition(t))?;
        (t, factor) = (inner, factor * f);
    }
    None
}

/// x of `√(2/π)·(x + 0.044715·x³)` or `√(2/π)·x·(1 + 0.044715·x²)`.
fn cubic(graph: &Graph, t: ValueId) -> Option<ValueId> {
    const CUBIC: f64 = 0.044715;
    let Factors { constant, values } = Factors::of(graph, t, None)?;
    let (x, term, power) = match values[..] {
        [sum] => {
            let (a, b) = sum_of(graph, sum)?;
            let cube = |x: ValueId, term: ValueId| {
                Factors::of(graph, term, Some(x)).is_some_and(|f| f.values.len() == 3).then_some((x, term, 3))
            };
            cube(a, b).or_else(|| cube(b, a))?
        }
        [a, b] => match (one_plus(graph, a), one_plus(graph, b)) {
            (Some(square), _) => (b, square, 2),
            (_, Some(square)) => (a, square, 2),
            _ => return None,
        },
        _ => return None,
    };
    let polynomial = Factors::of(graph, term, Some(x))?;
    let fits = polynomial.values == vec![x; power]
        && close(graph, x, polynomial.constant, CUBIC)
        && close(graph, x, constant, (2.0 / std::f64::consts::PI).sqrt());
    fits.then_some(x)
}

/// Whether a factor is the number that the formula has, as far as the value's dtype can say it.
fn close(graph: &Graph, value: ValueId, factor: f64, expected: f64) -> bool {
    let tolerance = match graph.dtype(value) {
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        DType::F32 | DType::I32 | DType::U32 | DType::Bool => 1e-6,
    };
    (factor / expected - 1.0).abs() <= tolerance
}

fn sum_of(graph: &Graph, value: ValueId) -> Option<(ValueId, ValueId)> {
    let node = graph.definition(value);
    match (&node.op, &node.inputs[..]) {
        (Op::Binary { function: Binary::Add }, &[a, b]) => Some((a, b)),
        _ => None,
    }
}

/// y of `1 + y`.
fn one_plus(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let (a, b) = sum_of(graph, value)?;
    if graph.uniform(a) == Some(1.0) { Some(b) } else { (graph.uniform(b) == Some(1.0)).then_some(a) }
}

/// A product taken apart: constants, and the values that are no products themselves.
struct Factors {
    constant: f64,
    values: Vec<ValueId>,
}

impl Factors {
    /// The factors of a value, `whole` not taken apart; none if there are more than a formula here has.
    fn of(graph: &Graph, value: ValueId, whole: Option<ValueId>) -> Option<Self> {
        let mut factors = Factors { constant: 1.0, values: Vec::new() };
        factors.add(graph, value, whole, DEPTH).then_some(factors)
    }

    fn add(&mut self, graph: &Graph, value: ValueId, whole: Option<ValueId>, depth: usize) -> bool {
        let node = graph.definition(value);
        if whole != Some(value) && depth > 0 {
            if let Some((inner, factor)) = scaled(graph, node) {
                self.constant *= factor;
                return self.add(graph, inner, whole, depth - 1);
            }
            match (&node.op, &node.inputs[..]) {
                (Op::Binary { function: Binary::Mul }, &[a, b]) => {
                    return self.add(graph, a, whole, depth - 1) && self.add(graph, b, whole, depth - 1);
                }
                (Op::Binary { function: Binary::Pow }, &[x, power]) => match graph.uniform(power) {
                    Some(n) if n == 2.0 || n == 3.0 => {
                        return (0..n as usize).all(|_| self.add(graph, x, whole, depth - 1));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        self.values.push(value);
        self.values.len() <= 3
    }
}
