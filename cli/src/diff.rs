use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;
use tilewise::{
    Graph, Tensor,
    diff::{self, Apart, Diff, Explanation, Model, Padding, Point, Report, Verdict},
    fields,
    gpu::Parameters,
    nn::Weights,
    safetensors,
};

use crate::{
    args::{Device, DeviceArgs, DiffArgs},
    input,
    output::{self, note, say},
};

type Tensors = BTreeMap<String, Tensor>;

/// What a dump is compared with.
struct Subject {
    graph: Graph,
    padding: Vec<Padding>,
    /// If the graph comes from a description.
    model: Option<Model>,
}

/// Walks through a dump. False if a value departs.
pub(crate) fn run(args: &DiffArgs, device: &DeviceArgs) -> Result<bool> {
    let rules = args.rename.iter().map(|rule| split(rule)).collect::<Result<Vec<_>>>()?;
    let mut theirs = Tensors::new();
    for file in &args.dump {
        for (name, tensor) in diff::rename(safetensors::load(file)?, &rules)? {
            if theirs.insert(name.clone(), tensor).is_some() {
                bail!("`{name}` is in more than one of the dumps");
            }
        }
    }
    let weights = args.weights.as_ref().map(Weights::open).transpose()?;
    let stored = weights.as_ref().map_or(0, |weights| weights.names().count());
    let subject = read(&args.model, &theirs, stored).with_context(|| args.model.display().to_string())?;
    let Subject { graph, padding, model } = &subject;
    // A dump may hold the weights too.
    let mut given = theirs.clone();
    if let Some(weights) = &weights {
        given.extend(diff::rename(all_of(weights, graph)?, &rules)?);
    }

    let on_device = match args.device {
        Device::Cpu => None,
        Device::Gpu => Some(results(device, graph, &diff::check_given(graph, &given)?, &theirs)?),
    };
    let comparison =
        Diff { device: on_device.as_ref(), tolerance: args.tolerance, padding, ..Diff::new(graph, &given, &theirs) };
    let report = comparison.run()?;
    let better = match model {
        Some(model) if report.departures().count() > 1 => model.better(&given, &theirs, args.tolerance, &report)?,
        _ => Vec::new(),
    };
    if args.json {
        say!("{}", serde_json::to_string_pretty(&json!({"report": report, "better_descriptions": better}))?);
    } else {
        print(&report, &better, args);
    }
    Ok(report.first_departure().is_none())
}

fn split(rule: &str) -> Result<(String, String)> {
    match rule.split_once('=') {
        Some((from, to)) if !from.is_empty() => Ok((from.to_string(), to.to_string())),
        _ => bail!("--rename {rule}: expected THEIRS=OURS, as blocks=layers"),
    }
}

/// A graph as `tilewise run` reads it, or a description of a model, whose weights the dump or `stored` further tensors are.
fn read(path: &Path, dump: &Tensors, stored: usize) -> Result<Subject> {
    let text = input::text(path)?;
    let json: serde_json::Value = fields::parse_any(&text).map_err(|why| anyhow!(why))?;
    if json.get("nodes").is_some() {
        return Ok(Subject { graph: Graph::from_json(&text)?, padding: Vec::new(), model: None });
    }
    if json.get("model").is_none() {
        bail!("neither a graph (`nodes`) nor a description of a model (`model`)");
    }
    let model = Model::from_json(&text)?;
    model.check_layers(dump.len() + stored)?;
    let (graph, padding) = model.graph(dump)?;
    Ok(Subject { graph, padding, model: Some(model) })
}

/// All tensors of a `state_dict`; those of a type that is not read may only be missing if the graph does not need them.
fn all_of(weights: &Weights, graph: &Graph) -> Result<Tensors> {
    let mut all = Tensors::new();
    for name in weights.names() {
        match weights.tensor(name) {
            Ok(tensor) => drop(all.insert(name.to_string(), tensor)),
            Err(error) if graph.find(name).is_some() => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(all)
}

/// What the device gives for each value that the dump has.
fn results(device: &DeviceArgs, graph: &Graph, given: &Tensors, theirs: &Tensors) -> Result<Tensors> {
    let mut graph = graph.clone();
    let named: BTreeSet<String> = graph.outputs().iter().map(|(name, _)| name.clone()).collect();
    for name in theirs.keys() {
        let value = graph.traced(name).or_else(|| graph.find(name)).filter(|v| !graph.definition(*v).op.is_source());
        if let Some(value) = value.filter(|_| !named.contains(name)) {
            graph.output(name.clone(), value)?;
        }
    }
    let gpu = device.open()?;
    note!("on {} ({})", gpu.profile().adapter, gpu.driver());
    let all: BTreeSet<&str> = graph.parameters().map(|(name, _)| name).collect();
    let (parameters, inputs): (Vec<_>, Vec<_>) =
        given.iter().map(|(name, tensor)| (name.as_str(), tensor)).partition(|(name, _)| all.contains(name));
    Ok(gpu.compile(&graph, Parameters::from(&parameters[..]))?.run(&inputs)?)
}

fn print(report: &Report, better: &[(String, usize)], args: &DiffArgs) {
    let mut table = output::table(&["value", "shape", ">from the inputs", ">by itself", "verdict"]);
    for point in &report.points {
        let error = |apart: Option<Apart>| apart.map_or_else(String::new, |apart| percent(apart.relative()));
        table.add_row([
            point.name.clone(),
            point.shape.to_string(),
            error(point.overall),
            error(point.alone),
            verdict(point.verdict).to_string(),
        ]);
    }
    say!("{table}");
    say!(
        "Largest errors, relative to the peak of a value. Tolerance: {}.",
        match args.tolerance {
            Some(tolerance) => format!("{tolerance:e}"),
            None => format!("by {} and depth", report.dtype.name()),
        }
    );
    report.warnings.iter().for_each(|warning| say!("Beware: {warning}."));
    for (name, near) in &report.unknown {
        let near: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
        let near = if near.is_empty() { String::new() } else { format!(" (near: {})", near.join(", ")) };
        say!("Not compared: the model has no value `{name}`{near}.");
    }
    if !report.missing.is_empty() {
        say!("Not in the dump: {}.", report.missing.join(", "));
    }
    for point in report.points.iter().filter(|point| point.verdict == Verdict::Padding) {
        point.notes.iter().for_each(|note| say!("`{}` {note}.", point.name));
    }
    let departures: Vec<&Point> = report.departures().collect();
    match departures[..] {
        [] => say!("\nNo departure: all {} values agree.", report.points.len()),
        [_] => say!("\nOne value departs by itself."),
        _ => say!(
            "\n{} values depart by themselves; each was given their own values, so each is a mistake of its own.",
            departures.len()
        ),
    }
    for (number, point) in departures.iter().enumerate() {
        say!("");
        print_departure(number + 1, point, number == 0 || args.all);
    }
    match better {
        [(what, 0), ..] => say!("\nWith {what} in the description nothing departs."),
        [(what, left), ..] => {
            say!("\nWith {what} in the description {left} instead of {} values depart.", departures.len());
        }
        [] => {}
    }
}

/// All about a departure, or only its name.
fn print_departure(number: usize, point: &Point, whole: bool) {
    say!("{number}. {}", point.name);
    if whole {
        if let Some(alone) = point.alone {
            let (share, passes) = (percent(alone.relative()), percent(alone.allowed / alone.peak));
            say!("   off by {:.3e}, {share} of the peak; {passes} would pass", alone.error);
        }
        if let Some(first) = &point.first {
            say!("   first at {:?}: theirs {:.6}, ours {:.6}", first.index, first.theirs, first.ours);
        }
        if let Some(finding) = &point.finding {
            let places = if finding.places.is_empty() { "all over".to_string() } else { finding.places.join(", ") };
            say!("   {} of {} elements: {places}", finding.wrong, finding.elements);
        }
    }
    point.notes.iter().for_each(|note| say!("   {note}"));
    let Some(finding) = &point.finding else { return };
    let at = |e: &Explanation| if e.at == point.name { String::new() } else { format!(" (at {})", e.at) };
    match &finding.fits[..] {
        [] => {
            say!("   no hypothesis explains it: {} were tested", finding.tested);
            if let (Some(near), true) = (&finding.nearest, whole) {
                say!("   the nearest was \"{}\"{}, which leaves {:.3e}", near.name, at(near), near.error);
            }
        }
        [fit] => {
            say!("   → {}{}: {}", fit.name, at(fit), fit.hint);
            if whole {
                say!("     leaves an error of {:.1e}; of {} hypotheses no other does", fit.error, finding.tested);
            }
        }
        fits => {
            say!("   {} hypotheses fit equally well; the data can't tell them apart:", fits.len());
            fits.iter().for_each(|fit| say!("   → {}{}: {}", fit.name, at(fit), fit.hint));
        }
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Agrees => "ok",
        Verdict::Padding => "ok but for padding",
        Verdict::Inherits => "inherits",
        Verdict::Departs => "DEPARTS",
        Verdict::Shape => "SHAPE",
    }
}

/// A share as `12.3 %`, or small ones as `1.2e-7`.
fn percent(share: f64) -> String {
    match share {
        0.0 => "0".into(),
        share if share >= 1e-2 => format!("{:.1} %", share * 100.0),
        share => format!("{share:.1e}"),
    }
}
