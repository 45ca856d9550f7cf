//! What explains a departure: every hypothesis is run on their values and compared with their result.

use super::{
    Apart, Explanation, Finding,
    expand::Attended,
    hypotheses::{self, Hypothesis, Numbers, Said, Site, by_numbers, plainly},
    measure::{largest, places},
    rebuild::{Edit, Known, Part},
};
use crate::{
    Graph, ValueId,
    graph::{Binary, NodeId, Op},
};

/// One departure.
pub(super) struct Case<'a> {
    pub(super) g: &'a Graph,
    pub(super) users: &'a [Vec<NodeId>],
    pub(super) attentions: &'a [Attended],
    pub(super) known: &'a Known,
    pub(super) point: (&'a str, ValueId),
    /// The piece of the graph; `None` where the value is that of another name (a dropout).
    pub(super) part: Option<&'a Part>,
    pub(super) theirs: &'a [f64],
    pub(super) ours: &'a [f64],
    pub(super) apart: Apart,
    pub(super) wrong: &'a [bool],
    pub(super) batch_first: bool,
}

/// Elements that all pairs together may compute: seconds in the reference.
const PAIRS: usize = 100_000_000;

pub(super) fn investigate(case: &Case<'_>, real: &dyn Fn(usize) -> bool) -> Finding {
    let (_, v) = case.point;
    let shape = case.g.shape(v);
    let scores = case.attentions.iter().any(|a| [a.scores, a.masked, a.weights].contains(&v));
    let mut finding = Finding {
        places: places(shape, case.wrong, case.batch_first, scores),
        wrong: case.wrong.iter().filter(|wrong| **wrong).count(),
        elements: case.wrong.len(),
        ..Finding::default()
    };
    let operands = operands(case);
    let numbers = Numbers { shape, theirs: case.theirs, ours: case.ours, operands, allowed: case.apart.allowed };
    let said = |(name, hint, error): Said| Explanation { name, hint, at: case.point.0.to_string(), error };
    let mut tested: Vec<Explanation> = by_numbers(&numbers).into_iter().map(said).collect();
    finding.fits = best(&tested, case.apart);
    // NaN says that something divided 0 by 0, not what: hypotheses answer for the rest, if there is enough of it.
    let there = case.theirs.iter().filter(|x| !x.is_nan()).count();
    let counts = |i: usize| real(i) && !case.theirs[i].is_nan();
    if there < case.theirs.len().div_ceil(8) {
        return finding;
    }
    let before = largest(case.theirs, case.ours, counts);
    let apart = Apart { error: before, ..case.apart };
    if let (Some(part), true) = (case.part, finding.fits.is_empty()) {
        let site = Site::new((case.g, case.users, case.attentions), case.known, case.point, part);
        let all = hypotheses::all(&site);
        // The error that is left, and whether anything changed.
        let run = |edits: &[Edit]| {
            let part = Part::new(case.g, case.known, v, edits).ok()?;
            let numbers = part.evaluate::<f64>().ok()?.to_f64();
            let changed = largest(&numbers, case.ours, |_| true) > 1e-12 * case.apart.peak;
            changed.then(|| largest(case.theirs, &numbers, counts))
        };
        let explain = |h: &Hypothesis, error: f64| Explanation {
            name: h.name.clone(),
            hint: h.hint.clone(),
            at: h.at.clone(),
            error,
        };
        let mut usable = Vec::new();
        for h in &all {
            if let Some(error) = run(&h.edits) {
                tested.push(explain(h, error));
                usable.push(h);
            }
        }
        finding.fits = best(&tested, apart);
        if finding.fits.is_empty() {
            tested.extend(plainly(&numbers).into_iter().map(said));
            finding.fits = best(&tested, apart);
        }
        usable.retain(|h| h.pairs);
        let work: usize = part.graph.values().iter().filter_map(|value| value.shape.elements()).sum();
        let pairs = usable.len() * usable.len() / 2;
        if finding.fits.is_empty() && work.saturating_mul(pairs) <= PAIRS {
            let mut both = Vec::new();
            for (i, a) in usable.iter().enumerate() {
                for b in &usable[i + 1..] {
                    let apart = a.edits.iter().all(|x| b.edits.iter().all(|y| x.value != y.value));
                    let edits: Vec<Edit> = a.edits.iter().chain(&b.edits).cloned().collect();
                    if let Some(error) = apart.then(|| run(&edits)).flatten() {
                        both.push(Explanation {
                            name: format!("{} and {}", a.name, b.name),
                            hint: format!("two mistakes at once: {}; {}", a.hint, b.hint),
                            at: if a.at == b.at { a.at.clone() } else { format!("{} and {}", a.at, b.at) },
                            error,
                        });
                    }
                }
            }
            finding.fits = best(&both, apart);
            finding.tested += both.len();
        }
    }
    if case.part.is_none() && finding.fits.is_empty() {
        tested.extend(plainly(&numbers).into_iter().map(said));
        finding.fits = best(&tested, apart);
    }
    finding.tested += tested.len();
    if finding.fits.is_empty() {
        tested.retain(|e| e.error < before);
        finding.nearest = tested.into_iter().min_by(|a, b| a.error.total_cmp(&b.error));
    }
    finding
}

/// What leaves an error near rounding, and clearly less than there was; of those, only what is not much worse than
/// the best.
fn best(tested: &[Explanation], apart: Apart) -> Vec<Explanation> {
    let mut fits: Vec<Explanation> =
        tested.iter().filter(|e| e.error <= apart.allowed && e.error <= apart.error / 4.0).cloned().collect();
    fits.sort_by(|a, b| a.error.total_cmp(&b.error));
    let least = fits.first().map_or(0.0, |e| e.error);
    fits.retain(|e| e.error <= (4.0 * least).max(apart.allowed / 16.0));
    let mut seen: Vec<(String, String)> = Vec::new();
    fits.retain(|e| {
        let key = (e.name.clone(), e.at.clone());
        let new = !seen.contains(&key);
        seen.push(key);
        new
    });
    fits
}

/// If the value is a sum, its operands as computed here from their values.
fn operands(case: &Case<'_>) -> Option<[Vec<f64>; 2]> {
    let node = case.g.definition(case.point.1);
    case.part?;
    if !matches!(node.op, Op::Binary { function: Binary::Add }) {
        return None;
    }
    let numbers = |v: ValueId| {
        if case.g.shape(v) != case.g.shape(case.point.1) {
            return None;
        }
        match case.known.theirs.get(&v) {
            Some(tensor) => Some(tensor.to_f64()),
            None => Some(Part::new(case.g, case.known, v, &[]).ok()?.evaluate::<f64>().ok()?.to_f64()),
        }
    };
    Some([numbers(node.inputs[0])?, numbers(node.inputs[1])?])
}
