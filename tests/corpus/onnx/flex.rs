//! Score functions of FlexAttention as expressions over one score: then the fused kernel runs them.

use std::{collections::HashMap, sync::Arc};

use tilewise::graph::{AttentionArgs, Mask, MaskMod, ScoreMod};

use super::{attention::Subgraph, import::Result};

/// What a value of the subgraph is at one query and one key.
#[derive(Clone, Debug)]
enum Expr {
    Score,
    Query,
    Key,
    Number(f64),
    Tanh(Arc<Expr>),
    Arithmetic(char, Arc<Expr>, Arc<Expr>),
    /// 1 or 0.
    Compare(&'static str, Arc<Expr>, Arc<Expr>),
    Where(Arc<Expr>, Arc<Expr>, Arc<Expr>),
}

/// A value of the subgraph: an expression, or what it takes to get there.
#[derive(Clone, Debug)]
enum Slot {
    Expr(Expr),
    /// The shape of the scores, one of its axes, and the numbers along one.
    Shape,
    Size(usize),
    Along(usize),
    Integers(Vec<i64>),
}

impl Expr {
    fn at(&self, score: f64, i: f64, j: f64) -> f64 {
        let of = |e: &Expr| e.at(score, i, j);
        match self {
            Expr::Score => score,
            Expr::Query => i,
            Expr::Key => j,
            Expr::Number(x) => *x,
            Expr::Tanh(x) => of(x).tanh(),
            Expr::Arithmetic('+', a, b) => of(a) + of(b),
            Expr::Arithmetic('-', a, b) => of(a) - of(b),
            Expr::Arithmetic('*', a, b) => of(a) * of(b),
            Expr::Arithmetic(_, a, b) => of(a) / of(b),
            Expr::Compare(">=", a, b) => f64::from(of(a) >= of(b)),
            Expr::Compare("<=", a, b) => f64::from(of(a) <= of(b)),
            Expr::Compare(">", a, b) => f64::from(of(a) > of(b)),
            Expr::Compare("<", a, b) => f64::from(of(a) < of(b)),
            Expr::Compare(_, a, b) => f64::from(of(a) == of(b)),
            Expr::Where(c, a, b) => of(if of(c) == 0.0 { b } else { a }),
        }
    }

    fn wgsl(&self) -> String {
        match self {
            Expr::Score => "score".into(),
            Expr::Query => "f32(i)".into(),
            Expr::Key => "f32(j)".into(),
            Expr::Number(x) => format!("{:?}", *x as f32),
            Expr::Tanh(x) => format!("tanh({})", x.wgsl()),
            Expr::Arithmetic(sign, a, b) => format!("({} {sign} {})", a.wgsl(), b.wgsl()),
            Expr::Compare(sign, a, b) => format!("({} {sign} {})", a.wgsl(), b.wgsl()),
            Expr::Where(c, a, b) => format!("select({}, {}, {})", b.wgsl(), a.wgsl(), c.wgsl()),
        }
    }

    fn reads_score(&self) -> bool {
        match self {
            Expr::Score => true,
            Expr::Query | Expr::Key | Expr::Number(_) => false,
            Expr::Tanh(x) => x.reads_score(),
            Expr::Arithmetic(_, a, b) | Expr::Compare(_, a, b) => a.reads_score() || b.reads_score(),
            Expr::Where(c, a, b) => [c, a, b].iter().any(|e| e.reads_score()),
        }
    }
}

/// Attention with the subgraph as its function, if it is a function of a score and its place.
pub(crate) fn modified(args: AttentionArgs, graph: &Subgraph) -> Result<Option<AttentionArgs>> {
    let Some(whole) = expression(graph) else { return Ok(None) };
    // Where a condition sends a score to −∞, it is a mask.
    let (condition, score) = match whole {
        Expr::Where(condition, kept, hidden)
            if matches!(*hidden, Expr::Number(f64::NEG_INFINITY)) && !condition.reads_score() =>
        {
            (Some(condition), (*kept).clone())
        }
        whole => (None, whole),
    };
    let mut args = args;
    if let Some(condition) = condition {
        let twin = condition.clone();
        let function = MaskMod::new(&condition.wgsl(), move |s| twin.at(0.0, s.i.into(), s.j.into()) != 0.0)?;
        args.mask = args.mask & Mask::function(function);
    }
    if !matches!(score, Expr::Score) {
        let text = score.wgsl();
        args = args.score_mod(ScoreMod::new(&text, move |s| score.at(s.score, s.i.into(), s.j.into()))?);
    }
    Ok(Some(args))
}

fn expression(graph: &Subgraph) -> Option<Expr> {
    let mut slots: HashMap<&str, Slot> = HashMap::from([(graph.graph_inputs[0].as_str(), Slot::Expr(Expr::Score))]);
    for (name, initializer) in &graph.initializers {
        let numbers = initializer.numbers()?;
        let slot = match (initializer.dtype.as_str(), &numbers[..]) {
            ("int64" | "int32", _) => Slot::Integers(numbers.iter().map(|&x| x as i64).collect()),
            ("float32", &[x]) => Slot::Expr(Expr::Number(x)),
            _ => return None,
        };
        slots.insert(name, slot);
    }
    for node in &graph.nodes {
        let slot = |at: usize| slots.get(node.inputs.get(at)?.as_deref()?).cloned();
        let expr = |at: usize| match slot(at)? {
            Slot::Expr(expr) => Some(Arc::new(expr)),
            Slot::Integers(x) if x.len() == 1 => Some(Arc::new(Expr::Number(x[0] as f64))),
            _ => None,
        };
        let two = |make: fn(Arc<Expr>, Arc<Expr>) -> Expr| Some(Slot::Expr(make(expr(0)?, expr(1)?)));
        let result = match node.op.as_str() {
            "Shape" => matches!(slot(0)?, Slot::Expr(Expr::Score)).then_some(Slot::Shape),
            "Gather" => match (slot(0)?, slot(1)?) {
                (Slot::Shape, Slot::Integers(axis)) => Some(Slot::Size(*axis.first()? as usize)),
                _ => None,
            },
            "Range" => match (slot(0)?, slot(1)?, slot(2)?) {
                (Slot::Integers(zero), Slot::Size(axis), Slot::Integers(one)) if zero == [0] && one == [1] => {
                    Some(Slot::Along(axis))
                }
                _ => None,
            },
            // Along the axis that it counts, when the shape is aligned with that of the scores.
            "Reshape" => match (slot(0)?, slot(1)?) {
                (Slot::Along(axis), Slot::Integers(shape)) => {
                    let at = shape.iter().position(|&size| size == -1)? + 4 - shape.len();
                    match (axis, at) {
                        (2, 2) => Some(Slot::Expr(Expr::Query)),
                        (3, 3) => Some(Slot::Expr(Expr::Key)),
                        _ => None,
                    }
                }
                _ => None,
            },
            "Cast" | "Identity" => slot(0),
            "Tanh" => Some(Slot::Expr(Expr::Tanh(expr(0)?))),
            "Add" => two(|a, b| Expr::Arithmetic('+', a, b)),
            "Sub" => two(|a, b| Expr::Arithmetic('-', a, b)),
            "Mul" => two(|a, b| Expr::Arithmetic('*', a, b)),
            "Div" => two(|a, b| Expr::Arithmetic('/', a, b)),
            "GreaterOrEqual" => two(|a, b| Expr::Compare(">=", a, b)),
            "LessOrEqual" => two(|a, b| Expr::Compare("<=", a, b)),
            "Greater" => two(|a, b| Expr::Compare(">", a, b)),
            "Less" => two(|a, b| Expr::Compare("<", a, b)),
            "Equal" => two(|a, b| Expr::Compare("==", a, b)),
            "Where" => Some(Slot::Expr(Expr::Where(expr(0)?, expr(1)?, expr(2)?))),
            _ => None,
        }?;
        slots.insert(node.outputs.first()?.as_deref()?, result);
    }
    match slots.remove(graph.graph_outputs[0].as_str())? {
        Slot::Expr(expr) => Some(expr),
        _ => None,
    }
}
