use anyhow::{Result, bail};
use serde::Serialize;
use tilewise::{
    kernel::AdapterKind,
    measure::{Statistics, Verdict},
};

use super::report::{Figure, Report};
use crate::output::{self, say};

/// One workload in two runs.
#[derive(Serialize)]
pub(super) struct Change {
    name: String,
    variants: [String; 2],
    /// Median seconds before and after, by the same clock.
    seconds: [f64; 2],
    /// Before over after: above 1 is faster now.
    speedup: f64,
    verdict: Verdict,
}

/// The workloads that both runs have, in the order of the second.
pub(super) fn changes(before: &Report, after: &Report, across_adapters: bool) -> Result<Vec<Change>> {
    if !across_adapters {
        let place = |r: &Report| match r.kind {
            // A software adapter has the name of its driver, whatever processor it runs on.
            AdapterKind::Cpu => format!("{} ({}) on {}", r.adapter, r.backend, r.host),
            AdapterKind::Gpu => format!("{} ({})", r.adapter, r.backend),
        };
        let (before, after) = (place(before), place(after));
        if before != after {
            bail!("the saved run is of {before}, this one of {after}; `--across-adapters` compares them all the same");
        }
    }
    let by_variant = before.has_variants() || after.has_variants();
    let same = |a: &Figure, b: &Figure| a.name == b.name && (!by_variant || a.variant == b.variant);
    let mut changes = Vec::new();
    for now in &after.figures {
        let Some(old) = before.figures.iter().find(|old| same(old, now)) else { continue };
        let [x, y] = by_one_clock(old, now);
        changes.push(Change {
            name: now.name.clone(),
            variants: [old.variant.clone(), now.variant.clone()],
            seconds: [x.median, y.median],
            speedup: x.median / y.median,
            verdict: y.against(x),
        });
    }
    if changes.is_empty() {
        bail!("the two runs have no workload in common");
    }
    Ok(changes)
}

/// The device's times if both have them.
fn by_one_clock<'a>(a: &'a Figure, b: &'a Figure) -> [&'a Statistics; 2] {
    match (&a.times.gpu, &b.times.gpu) {
        (Some(x), Some(y)) => [x, y],
        _ => [&a.times.wall, &b.times.wall],
    }
}

pub(super) fn print(before: &Report, changes: &[Change]) {
    say!("\nagainst {}", before.place());
    let mut table = output::table(&["workload", "variant", ">before", ">now", ">speed-up", "verdict"]);
    for change in changes {
        let [old, new] = &change.variants;
        table.add_row([
            change.name.clone(),
            if old == new { new.clone() } else { format!("{old} → {new}") },
            output::duration(change.seconds[0]),
            output::duration(change.seconds[1]),
            format!("{:.2}", change.speedup),
            match change.verdict {
                Verdict::Faster => "faster".into(),
                Verdict::Slower => "slower".into(),
                Verdict::Same => "within the noise".to_string(),
            },
        ]);
    }
    say!("{table}");
    let count = |verdict| changes.iter().filter(|change| change.verdict == verdict).count();
    let mean = changes.iter().map(|change| change.speedup.ln()).sum::<f64>() / changes.len() as f64;
    say!(
        "{} faster, {} slower, {} within the noise; geometric mean of the speed-ups {:.2}.",
        count(Verdict::Faster),
        count(Verdict::Slower),
        count(Verdict::Same),
        mean.exp()
    );
}
