use std::time::Instant;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tilewise::{
    gpu::Gpu,
    kernel::FAMILIES,
    verify::{
        self, Outcome, Report, Verdict,
        cases::{self, Level},
    },
};

use crate::{
    args::{DeviceArgs, VerifyArgs},
    output::{self, any_of, note, say},
};

/// Faults that are printed one by one; more are only counted.
const SHOWN: usize = 20;

/// Runs every kernel and variant over its cases. False if anything was wrong.
pub(crate) fn run(args: &VerifyArgs, device: &DeviceArgs) -> Result<bool> {
    let families: Vec<&'static str> = if args.kernel.is_empty() {
        FAMILIES.to_vec()
    } else {
        let find = |name: &String| FAMILIES.into_iter().find(|family| family == name);
        let found: Option<Vec<_>> = args.kernel.iter().map(find).collect();
        match found {
            Some(families) => families,
            None => bail!("no kernel family is called {}; there are {}", any_of(&args.kernel), FAMILIES.join(", ")),
        }
    };
    let level = if args.quick { Level::Quick } else { Level::Full };
    let gpu = device.open()?;
    let mut total = 0;
    for &family in &families {
        total += if args.brief { 1 } else { cases::of_family(family, level, args.seed)?.len() as u64 };
    }
    let unit = if args.brief { "families" } else { "cases" };
    let progress = ProgressBar::new(total).with_style(
        ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {unit}, {{elapsed}} {{msg}}"))
            .context("the progress bar")?,
    );
    let started = Instant::now();
    let (mut last, mut family) = (String::new(), "");
    let mut faults = 0;
    let told = |outcome: &Outcome| {
        if outcome.is_fault() {
            faults += 1;
            if faults <= SHOWN {
                progress.suspend(|| note!("{outcome}"));
            }
        }
        let done = if args.brief { outcome.family.to_string() } else { format!("{} {}", outcome.family, outcome.case) };
        if done != last {
            progress.inc(1);
            progress.set_message(outcome.family);
            last = done;
        }
        // Without a terminal there is no bar.
        if progress.is_hidden() && family != outcome.family {
            family = outcome.family;
            note!(
                "{family} ({} of {total} {unit}, {})",
                progress.position(),
                output::duration(started.elapsed().as_secs_f64())
            );
        }
    };
    let report = if args.brief {
        verify::brief(&gpu, &families, args.seed, told)?
    } else {
        verify::sweep(&gpu, &families, level, args.seed, told)?
    };
    progress.finish_and_clear();
    if args.json {
        say!("{}", serde_json::to_string_pretty(&as_json(&report, &gpu, args.seed))?);
    } else {
        print(&report, &gpu, args.seed, started.elapsed().as_secs_f64());
    }
    Ok(report.is_right())
}

fn print(report: &Report, gpu: &Gpu, seed: u64, seconds: f64) {
    say!("{} ({}), seed {seed}\n", gpu.profile().adapter, gpu.driver());
    let mut table = output::table(&[
        "kernel",
        "variant",
        ">cases",
        ">faults",
        ">unproved",
        ">can't run",
        "verdict",
        ">observed / allowed",
        "closest case",
    ]);
    for (family, variant, tally) in report.tallies() {
        let (ratio, case) = match &tally.closest {
            Some((case, closest)) if closest.ratio > 0.0 => {
                (format!("{:.1e} / {:.1e}", closest.observed, closest.allowed), output::short(case, 40))
            }
            Some(_) => ("equal bits".into(), String::new()),
            None => {
                ("—".into(), tally.reasons.iter().next().map(|reason| output::short(reason, 40)).unwrap_or_default())
            }
        };
        let verdict = match tally {
            tally if tally.faults > 0 => "WRONG",
            tally if tally.unproved > 0 => "proves nothing",
            tally if tally.right > 0 => "right",
            _ => "not run",
        };
        table.add_row([
            family.into(),
            variant.into(),
            tally.right.to_string(),
            tally.faults.to_string(),
            tally.unproved.to_string(),
            tally.refused.to_string(),
            verdict.into(),
            ratio,
            case,
        ]);
    }
    say!("{table}");
    let (mut right, mut faults, mut unproved, mut refused) = (0, 0, 0, 0);
    for (_, _, tally) in report.tallies() {
        right += tally.right;
        faults += tally.faults;
        unproved += tally.unproved;
        refused += tally.refused;
    }
    let verdict = if report.is_right() { "every kernel is right" } else { "NOT every kernel is right" };
    let unproved = if unproved > 0 { format!("{unproved} that prove nothing, ") } else { String::new() };
    say!(
        "{right} runs within their bounds, {faults} faults, {unproved}{refused} that a variant can't do here; {} — {verdict}",
        output::duration(seconds)
    );
}

fn as_json(report: &Report, gpu: &Gpu, seed: u64) -> serde_json::Value {
    let variants: Vec<_> = report
        .tallies()
        .map(|(family, variant, tally)| {
            json!({
                "family": family,
                "variant": variant,
                "right": tally.right,
                "faults": tally.faults,
                "unproved": tally.unproved,
                "refused": tally.refused,
                "reasons": tally.reasons,
                "closest": tally.closest.as_ref().map(|(case, c)| json!({
                    "case": case, "observed": c.observed, "allowed": c.allowed, "ratio": c.ratio,
                })),
            })
        })
        .collect();
    let faults: Vec<_> = report
        .faults()
        .iter()
        .map(|outcome| {
            let message = match &outcome.verdict {
                Verdict::Wrong(mismatches) | Verdict::ProvesNothing(mismatches) => mismatches.to_string(),
                Verdict::Failed(error) => error.to_string(),
                Verdict::Right(_) | Verdict::Refused(_) => String::new(),
            };
            let proves_nothing = matches!(outcome.verdict, Verdict::ProvesNothing(_));
            json!({
                "family": outcome.family,
                "case": outcome.case,
                "variant": outcome.variant,
                "proves_nothing": proves_nothing,
                "message": message,
            })
        })
        .collect();
    json!({
        "adapter": gpu.profile().adapter,
        "driver": gpu.driver(),
        "seed": seed,
        "right": report.is_right(),
        "variants": variants,
        "faults": faults,
    })
}
