//! The walk: every value that both sides have, in an order of execution.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    Apart, Diff, Element, Padding, Point, Report, Verdict,
    dump::{check_given, converted},
    expand::{Expanded, expand, points},
    hypotheses::transposed_shape,
    investigate::{Case, investigate},
    measure::{distance, index_of, largest, natural, peak, unit},
    names::{nearest, quoted},
    rebuild::{Known, Part, depths},
};
use crate::{
    DType, Error, Graph, Result, Shape, Tensor, ValueId,
    reference::{Evaluation, Value, permute},
};

/// One value of the dump.
struct Step {
    name: String,
    value: ValueId,
    /// Their numbers in the graph's dtype and order of axes; `None` if the shape does not fit.
    theirs: Option<Tensor>,
    /// The step before, if it is the same value under another name.
    same_as: Option<usize>,
    notes: Vec<String>,
}

/// Our side of a comparison.
struct Ours {
    numbers: Vec<f64>,
    allowed: f64,
}

impl Diff<'_> {
    /// Walks through all values that both sides have.
    ///
    /// # Errors
    /// [`Error::Binding`] if inputs or parameters are missing or don't fit, if no name of the dump is known, or if a value
    /// has another kind of dtype; as [`evaluate`](crate::reference::evaluate()), and as running the graph on the device, if
    /// one is given.
    pub fn run(&self) -> Result<Report> {
        run(self)
    }
}

fn run(diff: &Diff<'_>) -> Result<Report> {
    let mut known = Known { given: check_given(diff.graph, diff.given)?, theirs: HashMap::new() };
    let expanded = expand(diff.graph, &known)?;
    let g = &expanded.graph;
    let all = points(g);
    let (steps, unknown) = steps(diff, g, &all)?;
    // Parameters of other modules are there to be tried.
    known.theirs = steps.iter().filter_map(|step| Some((step.value, step.theirs.clone()?))).collect();
    let compared: HashSet<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let dtype = diff
        .theirs
        .iter()
        .filter(|(name, tensor)| tensor.dtype().is_float() && compared.contains(name.as_str()))
        .map(|(_, tensor)| tensor.dtype())
        .fold(DType::F32, |a, b| if unit(b) > unit(a) { b } else { a });

    let given = &known.given;
    let (wide, plain) = (Evaluation::<f64>::new(g, given)?, Evaluation::<f32>::new(g, given)?);
    let depths = depths(g);
    let users = g.users();
    let bound = |numbers: &[f64], plain: &Value<f32>, depth: (usize, usize)| {
        let peak = peak(numbers);
        let plain = plain.to_f64();
        let measured = largest(&plain, numbers, |i| plain[i].is_finite() && numbers[i].is_finite());
        match diff.tolerance {
            Some(tolerance) => tolerance * peak,
            None => (natural(unit(dtype), depth) * peak).max(4.0 * measured).max(f64::from(f32::MIN_POSITIVE)),
        }
    };
    let mut report = Report { points: Vec::new(), unknown, missing: Vec::new(), warnings: Vec::new(), dtype };
    for step in &steps {
        let (v, shape) = (step.value, g.shape(step.value).clone());
        let mut point = Point {
            name: step.name.clone(),
            shape: shape.clone(),
            verdict: Verdict::Shape,
            overall: None,
            alone: None,
            first: None,
            notes: step.notes.clone(),
            finding: None,
        };
        let Some(tensor) = &step.theirs else {
            report.points.push(point);
            continue;
        };
        let theirs = tensor.to_f64();
        let overall = {
            let reference = wide.value(v).to_f64();
            let allowed = bound(&reference, plain.value(v), depths[v.index()]);
            let device = diff.device.and_then(|device| device.get(&step.name));
            Ours { numbers: device.map_or(reference, Tensor::to_f64), allowed }
        };
        let part = match step.same_as {
            None => Some(Part::new(g, &known, v, &[])?),
            Some(_) => None,
        };
        let alone = match (&part, step.same_as.and_then(|at| steps[at].theirs.as_ref())) {
            (Some(part), _) => {
                let numbers = part.evaluate::<f64>()?.to_f64();
                let allowed = bound(&numbers, &part.evaluate::<f32>()?, part.depth());
                Ours { numbers, allowed }
            }
            (None, before) => {
                let numbers = before.map_or_else(Vec::new, Tensor::to_f64);
                let allowed = diff.tolerance.unwrap_or_else(|| natural(unit(dtype), (1, 0))) * peak(&numbers);
                Ours { numbers, allowed }
            }
        };
        let padding = diff.padding.iter().find(|padding| applies(padding, &step.name, &shape));
        // Don't blame this step for NaNs that were already in its inputs.
        let came_in = part.as_ref().is_some_and(|part| part.read.iter().any(|v| has_nan(known.theirs.get(v))));
        let real = |i: usize| {
            padding.is_none_or(|padding| !is_padding(padding, &shape, i)) && !(came_in && theirs[i].is_nan())
        };
        let apart = |ours: &Ours| Apart {
            error: largest(&theirs, &ours.numbers, real),
            peak: peak(&ours.numbers),
            allowed: ours.allowed,
        };
        let (from_inputs, by_itself) = (apart(&overall), apart(&alone));
        let whole = |ours: &Ours| largest(&theirs, &ours.numbers, |_| true) <= ours.allowed;
        point.verdict = match (by_itself.is_close(), from_inputs.is_close()) {
            (false, _) => Verdict::Departs,
            (true, false) => Verdict::Inherits,
            (true, true) if whole(&alone) && whole(&overall) => Verdict::Agrees,
            (true, true) => Verdict::Padding,
        };
        let ours = if by_itself.is_close() { &overall } else { &alone };
        let wrong: Vec<bool> = theirs.iter().zip(&ours.numbers).map(|(&a, &b)| distance(a, b) > ours.allowed).collect();
        let first = (0..wrong.len()).find(|&i| wrong[i] && real(i)).or_else(|| wrong.iter().position(|wrong| *wrong));
        point.first = first.map(|i| Element { index: index_of(i, &shape), theirs: theirs[i], ours: ours.numbers[i] });
        if let (Verdict::Padding, Some(padding)) = (point.verdict, padding) {
            point.notes.push(format!(
                "differs only in positions that `{}` masks: values there don't matter, as long as they stay masked",
                padding.name
            ));
        }
        let nan = theirs.iter().filter(|x| x.is_nan()).count();
        if nan > 0 && point.verdict == Verdict::Departs {
            point.notes.push(format!(
                "{nan} of their {} elements are NaN: a softmax over a fully masked row is 0/0 (here such a row gives 0)",
                theirs.len()
            ));
        }
        if point.verdict == Verdict::Departs && diff.hypotheses {
            let case = Case {
                g,
                users: &users,
                attentions: &expanded.attentions,
                known: &known,
                point: (&step.name, v),
                part: part.as_ref(),
                theirs: &theirs,
                ours: &alone.numbers,
                apart: by_itself,
                wrong: &wrong,
                batch_first: padding.is_none_or(|padding| padding.batch_first),
            };
            point.finding = Some(investigate(&case, &real));
        }
        (point.overall, point.alone) = (Some(from_inputs), Some(by_itself));
        report.points.push(point);
    }
    report.warnings = expanded.attentions.iter().flat_map(|a| a.visible.oddities(&a.path)).collect();
    let there: BTreeSet<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    report.missing = missing(&expanded, &all, &there);
    Ok(report)
}

/// Names that are not in the dump, of values that the dump has under no other name.
fn missing(expanded: &Expanded, all: &[(String, ValueId)], there: &BTreeSet<&str>) -> Vec<String> {
    let covered: BTreeSet<ValueId> =
        all.iter().filter(|(name, _)| there.contains(name.as_str())).map(|(_, v)| *v).collect();
    let inner = |name: &str| {
        expanded.attentions.iter().any(|a| name.strip_prefix(&a.path).is_some_and(|rest| rest.starts_with('.')))
    };
    let open = all.iter().filter(|(name, v)| !covered.contains(v) && !inner(name));
    open.map(|(name, _)| name.clone()).collect()
}

type Unknown = Vec<(String, Vec<String>)>;

/// The values of the dump that the graph knows, in an order of execution, and the names that it doesn't.
fn steps(diff: &Diff<'_>, g: &Graph, all: &[(String, ValueId)]) -> Result<(Vec<Step>, Unknown)> {
    let names: BTreeMap<&str, ValueId> = all.iter().map(|(name, v)| (name.as_str(), *v)).collect();
    let own = |name: &str| g.find(name).is_some_and(|v| g.definition(v).op.is_source());
    let strangers = diff.theirs.keys().filter(|name| !names.contains_key(name.as_str()) && !own(name));
    let unknown: Unknown = strangers
        .map(|name| (name.clone(), nearest(name, names.keys().copied(), 3).into_iter().map(String::from).collect()))
        .collect();
    let mut steps: Vec<Step> = Vec::new();
    let mut before: HashMap<ValueId, usize> = HashMap::new();
    for (name, v) in all {
        let Some(tensor) = diff.theirs.get(name) else { continue };
        let mut step = Step { name: name.clone(), value: *v, theirs: None, same_as: None, notes: Vec::new() };
        let Some(tensor) = converted(tensor, g.dtype(*v)) else {
            return Err(Error::Binding(format!(
                "`{name}` is {} {} in the dump, the graph has {} there",
                tensor.dtype(),
                tensor.shape(),
                g.dtype(*v)
            )));
        };
        let (theirs, ours) = (tensor.shape().clone(), g.shape(*v).clone());
        if theirs == ours {
            step.theirs = Some(tensor);
        } else if let Some((a, b)) = transposed_shape(&theirs, &ours) {
            step.theirs = Some(turned(&tensor, a, b)?);
            step.notes.push(format!(
                "the dump has {theirs}, which was read with axes {a} and {b} swapped: is batch_first what you think?"
            ));
        } else {
            step.notes.push(format!("the dump has {theirs}, the graph has {ours}"));
        }
        if step.theirs.is_some() {
            step.same_as = before.insert(*v, steps.len());
        }
        steps.push(step);
    }
    if steps.is_empty() {
        return Err(Error::Binding(format!(
            "no name in the dump is a value of the graph\nthe dump has: {}\nthe graph has: {}",
            quoted(diff.theirs.keys().map(String::as_str)),
            quoted(names.keys().copied())
        )));
    }
    Ok((steps, unknown))
}

fn has_nan(tensor: Option<&Tensor>) -> bool {
    tensor.is_some_and(|tensor| tensor.dtype().is_float() && tensor.to_f64().iter().any(|x| x.is_nan()))
}

fn turned(tensor: &Tensor, a: usize, b: usize) -> Result<Tensor> {
    let mut order: Vec<usize> = (0..tensor.shape().rank()).collect();
    order.swap(a, b);
    let value = Value::<f64>::from(tensor);
    match value.floats() {
        Some(array) => Value::Float { dtype: tensor.dtype(), array: permute(array, &order)? }.to_tensor(),
        None => Err(Error::Binding("only floats are compared with swapped axes".into())),
    }
}

/// Whether the rows of a value are those that a padding speaks of.
fn applies(padding: &Padding, name: &str, shape: &Shape) -> bool {
    let [items, positions] = padding.sizes;
    let under = padding.prefix.is_empty()
        || name == padding.prefix
        || name.strip_prefix(&padding.prefix).is_some_and(|rest| rest.starts_with('.'));
    under
        && match shape[..] {
            [a, b, _] if padding.batch_first => [a, b] == [items, positions],
            [a, b, _] => [b, a] == [items, positions],
            [a, _, b, _] => [a, b] == [items, positions],
            _ => false,
        }
}

fn is_padding(padding: &Padding, shape: &Shape, place: usize) -> bool {
    let index = index_of(place, shape);
    let (item, position) = match (index.len(), padding.batch_first) {
        (4, _) => (index[0], index[2]),
        (_, true) => (index[0], index[1]),
        (_, false) => (index[1], index[0]),
    };
    padding.rows[item * padding.sizes[1] + position]
}
