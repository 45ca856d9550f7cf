use tilewise::measure::{Ceilings, Exponentials, HostCost, Moving};

use super::report::{Figure, Report};
use crate::output::{self, say};

/// A table to be: heads as [`output::table`] takes them, and rows.
struct Sheet {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Sheet {
    fn print(&self, markdown: bool) {
        if !markdown {
            let mut table = output::table(&self.heads);
            self.rows.iter().for_each(|row| {
                table.add_row(row);
            });
            say!("{table}");
            return;
        }
        let line = |cells: &mut dyn Iterator<Item = String>| say!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        line(&mut self.heads.iter().map(|head| head.trim_start_matches('>').to_string()));
        line(&mut self.heads.iter().map(|head| if head.starts_with('>') { "---:" } else { "---" }.to_string()));
        self.rows.iter().for_each(|row| line(&mut row.iter().cloned()));
        say!("");
    }
}

pub(super) fn print(report: &Report, markdown: bool) {
    say!("{}\n", report.place());
    ceilings(&report.ceilings).print(markdown);
    figures(report).print(markdown);
    if !report.costs.is_empty() {
        costs(report).print(markdown);
    }
    let samples = |f: &Figure| f.times.seconds().samples;
    say!(
        "Medians of {} to {} samples; ± is half the distance of the quartiles. GFLOP/s and GB/s count what the formula needs, \
         masks known to the host taken into account. \"of limit\": the part of the time that the ceiling accounts for.",
        report.figures.iter().map(samples).min().unwrap_or(0),
        report.figures.iter().map(samples).max().unwrap_or(0)
    );
    for note in notes(report) {
        say!("note: {note}");
    }
    for figure in &report.figures {
        if let Some(fault) = &figure.fault {
            say!("FAULT: {} · {}: {fault}", figure.name, figure.variant);
        }
    }
}

fn ceilings(c: &Ceilings) -> Sheet {
    let mut rows = vec![vec!["memory, past the caches".into(), rate(c.memory, "GB/s"), sizes(c, false)]];
    rows.push(vec!["memory, within the caches".into(), rate(c.cache, "GB/s"), sizes(c, true)]);
    for (arithmetic, &value) in &c.multiply {
        let what = format!("multiply and add, {}", tilewise::measure::Limit::Multiply(*arithmetic));
        rows.push(vec![what, rate(value, "GFLOP/s"), "on registers".into()]);
    }
    if let Some(Exponentials { rate: value, .. }) = c.exponentials {
        rows.push(vec!["exponentials, f32".into(), rate(value, "G/s"), "on registers".into()]);
    }
    rows.push(vec!["a dispatch".into(), output::duration(c.dispatch), "among many, doing nothing".into()]);
    rows.push(vec!["a submission".into(), output::duration(c.submit), "of one dispatch, and waiting for it".into()]);
    Sheet { heads: vec!["ceiling", ">measured", "how"], rows }
}

fn rate(value: f64, unit: &str) -> String {
    format!("{:.1} {unit}", value / 1e9)
}

fn sizes(c: &Ceilings, cached: bool) -> String {
    if !cached {
        let largest = c.bandwidth.iter().map(|b| b.bytes).max().unwrap_or_default();
        return format!("{} copied or read", output::bytes(largest));
    }
    let best = c.bandwidth.iter().max_by(|a, b| a.rate.total_cmp(&b.rate));
    let best = best.map_or(String::new(), |b| {
        let moving = match b.moving {
            Moving::Copy => "copied",
            Moving::Read => "read",
        };
        format!("{} {moving}; ", output::bytes(b.bytes))
    });
    let edge = output::bytes(c.cache_bytes);
    if c.cache_measured {
        format!("{best}the caches hold {edge}")
    } else {
        format!("{best}no drop was seen, so {edge} are assumed to be cached")
    }
}

fn figures(report: &Report) -> Sheet {
    let heads = vec![
        "workload",
        "variant",
        ">GPU",
        ">wall",
        ">±",
        ">GFLOP/s",
        ">GB/s",
        "limit",
        ">of limit",
        ">rotated",
        ">first call",
    ];
    let row = |f: &Figure| {
        let (limit, percent) = match (&f.bound, &f.fault) {
            _ if report.quick => ("—".into(), "—".into()),
            (Some(bound), Some(_)) => (bound.limit.to_string(), "FAULT".into()),
            (Some(bound), None) => (bound.limit.to_string(), format!("{:.0} %", 100.0 * bound.fraction(f.seconds()))),
            (None, _) => ("unknown".into(), "—".into()),
        };
        vec![
            f.name.clone(),
            f.variant.clone(),
            f.times.gpu.map_or("—".into(), |times| output::duration(times.median)),
            output::duration(f.times.wall.median),
            format!("{:.0} %", f.times.seconds().spread() * 100.0),
            figure(f.gflops()),
            figure(f.gbytes()),
            limit,
            percent,
            format!("{} x{}", output::bytes(f.times.rotated_bytes), f.times.rotations),
            output::duration(f.first_call),
        ]
    };
    Sheet { heads, rows: report.figures.iter().map(row).collect() }
}

/// What the host does for whole graphs.
fn costs(report: &Report) -> Sheet {
    let heads = vec!["host", ">lower a graph", ">a node", ">record a run", ">a step", ">steps", ">dispatches"];
    let row = |cost: &HostCost| {
        vec![
            cost.name.clone(),
            output::duration(cost.lower.median),
            output::duration(cost.lower.median / cost.nodes.max(1) as f64),
            output::duration(cost.record.median + cost.finish.median),
            output::duration(cost.seconds_a_step()),
            cost.steps.to_string(),
            cost.dispatches.to_string(),
        ]
    };
    Sheet { heads, rows: report.costs.iter().map(row).collect() }
}

/// Three digits.
fn figure(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// What a reader of the figures has to know.
fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if report.quick {
        notes.push("small sizes and single runs: nothing is judged".into());
    }
    if report.tuned > 0 {
        notes
            .push(format!("variants were chosen by a tuning table of {} entries, where it knows better", report.tuned));
    }
    if !report.optimised {
        notes.push("the program was built without optimisation: wall times say little".into());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    if let Some(load) = report.load.filter(|load| *load > 0.25 * cores) {
        notes.push(format!("the machine was busy: {load:.1} processes were running before this one"));
    }
    notes.extend(report.skipped.iter().map(|(name, reason)| format!("{name} was not timed: {reason}")));
    let mut distrusted = report.figures.iter().filter_map(|f| Some((f, f.times.distrust.as_ref()?)));
    if let Some((figure, reason)) = distrusted.next() {
        notes.push(format!(
            "the device's clock was not believed for {} of {} workloads ({}: {reason}); wall time stands for it",
            1 + distrusted.count(),
            report.figures.len(),
            figure.name
        ));
    }
    notes
}
