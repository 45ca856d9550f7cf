use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tilewise::{
    Graph, Tensor,
    tune::{Checked, Event, Finding, Table, Tuner},
    workloads::{self, Size},
};

use crate::{
    args::{DeviceArgs, TuneArgs},
    input,
    output::{self, any_of, say},
};

/// Times the variants of a graph's kernels, or of the workloads', and writes the table.
pub(crate) fn run(args: &TuneArgs, device: &DeviceArgs) -> Result<bool> {
    let gpu = device.open_untuned()?;
    let mut table = match device.table(&gpu)? {
        Some(table) => table,
        None => bail!("`tune` writes the table that `--untuned` leaves aside: give one of the two"),
    };
    // Before minutes of measuring.
    table.check()?;
    let budget = Duration::try_from_secs_f64(args.budget).context("--budget")?;
    let begun = Instant::now();
    let progress = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("tuning {bar:30} {pos}/{len} {wide_msg}")
            .context("the progress bar's template")?,
    );
    let (mut findings, mut notes) = (Vec::new(), Vec::new());
    let mut done = Ok(());
    for (name, graph, given) in subjects(args)? {
        let tuner = Tuner::new(&gpu).budget(budget.saturating_sub(begun.elapsed())).again(args.again);
        let tuned = tuner.tune(&graph, &given, &mut table.choices, |event| match event {
            Event::Found(n) => progress.inc_length(n as u64),
            Event::Timing(problem) => progress.set_message(problem.to_string()),
            Event::Done(_) => progress.inc(1),
        });
        // What was found so far is worth keeping whatever comes next.
        let saved = table.save();
        let report = match tuned {
            Ok(report) => report,
            Err(error) => {
                done = Err(error).with_context(|| name.clone());
                break;
            }
        };
        notes.extend(report.skipped.into_iter().map(|(problem, why)| format!("{problem}: not measured, {why}")));
        if let (Checked::Not(why), true) = (&report.checked, report.findings.iter().any(|f| f.winner != f.default)) {
            notes.push(format!("{name}: the whole was not compared with the reference, {why}"));
        }
        findings.extend(report.findings);
        if let Err(error) = saved {
            done = Err(error.into());
            break;
        }
    }
    progress.finish_and_clear();
    print(&findings, &notes, &table, &format!("{} ({})", gpu.profile().adapter, gpu.driver()));
    done.map(|()| true)
}

/// A graph to tune: its name, and what is given for its inputs.
type Subject = (String, Graph, BTreeMap<String, Tensor>);

fn subjects(args: &TuneArgs) -> Result<Vec<Subject>> {
    if let Some(file) = &args.graph {
        let given = input::tensors(args.inputs.iter().map(PathBuf::as_path))?;
        return Ok(vec![(file.display().to_string(), input::graph(file)?, given)]);
    }
    let mut workloads = workloads::all(if args.quick { Size::Quick } else { Size::Full })?;
    workloads.retain(|w| args.kernel.is_empty() || args.kernel.iter().any(|text| w.name.contains(text.as_str())));
    if workloads.is_empty() {
        bail!("no workload's name contains {}", any_of(&args.kernel));
    }
    let mut subjects = Vec::with_capacity(workloads.len());
    for workload in workloads {
        let given = workload.values()?.into_iter().collect();
        subjects.push((workload.name, workload.graph, given));
    }
    Ok(subjects)
}

fn print(findings: &[Finding], notes: &[String], table: &Table, device: &str) {
    say!("{device}\n");
    if findings.is_empty() {
        say!("Nothing new to measure.");
    } else {
        let mut rows = output::table(&["problem", "default", "fastest", ">gain", "variants"]);
        for finding in findings {
            let trials = finding.trials.iter().map(|trial| {
                let mark =
                    trial.dropped.as_ref().map_or("", |why| if why.starts_with("wrong") { " WRONG" } else { " …" });
                format!("{} {}{mark}", trial.variant, output::duration(trial.seconds))
            });
            let gain =
                if finding.winner == finding.default { "—".into() } else { format!("{:.2} ×", finding.gain()) };
            rows.add_row([
                output::short(&finding.problem, 50),
                finding.default.into(),
                finding.winner.into(),
                gain,
                trials.collect::<Vec<_>>().join(", "),
            ]);
        }
        say!("{rows}");
        say!("… was far slower from its first runs on, and not timed further.");
    }
    notes.iter().for_each(|note| say!("{note}"));
    say!("{} entries in {}", table.choices.len(), table.path().display());
}
