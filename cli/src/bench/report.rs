use std::{collections::BTreeMap, fs, path::Path, time::SystemTime};

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tilewise::{
    fields,
    gpu::Gpu,
    kernel::AdapterKind,
    lower::{Program, Step},
    measure::{Bound, Ceilings, HostCost, Times},
};

use crate::{args::BenchArgs, input};

/// What [`Report`] looks like; a change that older programs can't read counts it up.
const SCHEMA: u32 = 1;

/// A run of the benchmark: where, what the adapter can do, and the figures.
#[derive(Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    /// The version of the crate.
    pub(crate) tilewise: String,
    pub(crate) commit: Option<String>,
    /// UTC, `2026-01-31T23:59:59Z`.
    pub(crate) date: String,
    pub(crate) adapter: String,
    pub(crate) backend: String,
    pub(crate) driver: String,
    pub(crate) kind: AdapterKind,
    /// The host's processor and how many of its cores there are.
    pub(crate) host: String,
    /// Processes that were running before the run, on average over a minute, where the system says so.
    pub(crate) load: Option<f64>,
    /// Whether the program was built with optimisation.
    pub(crate) optimised: bool,
    /// Entries of the tuning table that chose variants.
    pub(crate) tuned: usize,
    /// Whether the sizes were the small ones, whose figures mean little and are not judged.
    pub(crate) quick: bool,
    pub(crate) ceilings: Ceilings,
    /// What the host does for some of the workloads.
    pub(crate) costs: Vec<HostCost>,
    pub(crate) figures: Vec<Figure>,
    /// Workloads that are too large for the adapter, and why.
    pub(crate) skipped: Vec<(String, String)>,
}

/// What was measured of one workload and variant.
#[derive(Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) family: String,
    /// The variant of its one step, or how many steps there are.
    pub(crate) variant: String,
    /// Seconds from the graph to the first result, shaders compiled on the way.
    pub(crate) first_call: f64,
    pub(crate) times: Times,
    /// Floating-point operations of a run, by the kernels' own formulas.
    pub(crate) flops: u64,
    /// Bytes that a run must move at the least.
    pub(crate) bytes: u64,
    pub(crate) dispatches: usize,
    /// The least time that the ceilings allow.
    pub(crate) bound: Option<Bound>,
    /// Why the time can't be true.
    pub(crate) fault: Option<String>,
}

impl Report {
    /// Of a run that begins now, in these surroundings; what it measures is added.
    pub(crate) fn begin(gpu: &Gpu, args: &BenchArgs, ceilings: Ceilings) -> Self {
        let commit = args.commit.clone().or_else(|| std::env::var("TILEWISE_COMMIT").ok());
        Report {
            schema: SCHEMA,
            tilewise: env!("CARGO_PKG_VERSION").into(),
            commit: commit.filter(|commit| !commit.is_empty()),
            date: date(SystemTime::now()),
            adapter: gpu.profile().adapter.clone(),
            backend: gpu.info().backend.to_string(),
            driver: gpu.driver(),
            kind: gpu.profile().kind,
            host: host(),
            load: None,
            optimised: !cfg!(debug_assertions),
            tuned: gpu.options().choices.len(),
            quick: args.quick,
            ceilings,
            costs: Vec::new(),
            figures: Vec::new(),
            skipped: Vec::new(),
        }
    }

    pub(crate) fn read(file: &Path) -> Result<Self> {
        let no_run = |why: String| anyhow!("{}: no saved run of `tilewise bench`: {why}", file.display());
        let value: serde_json::Value = fields::parse_any(&input::text(file)?).map_err(no_run)?;
        match value.get("schema").and_then(serde_json::Value::as_u64) {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(schema) => bail!("{}: schema {schema}, this program reads {SCHEMA}", file.display()),
            None => bail!("{}: no saved run of `tilewise bench`", file.display()),
        }
        fields::parse_any(&value.to_string()).map_err(no_run)
    }

    /// What one line says of where it was measured.
    pub(crate) fn place(&self) -> String {
        let short = |commit: &str| commit.chars().take(12).collect::<String>();
        let commit = self.commit.as_deref().map_or(String::new(), |commit| format!(" {}", short(commit)));
        format!("{} ({}, {}), tilewise {}{commit}, {}", self.adapter, self.driver, self.host, self.tilewise, self.date)
    }

    /// Whether a name stands for one figure.
    pub(crate) fn has_variants(&self) -> bool {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.figures.iter().for_each(|f| *counts.entry(&f.name).or_default() += 1);
        counts.values().any(|&count| count > 1)
    }
}

impl Figure {
    pub(crate) fn new(name: String, family: &str, program: &Program, first_call: f64, times: Times) -> Self {
        let sum = |f: fn(&Step) -> u64| program.steps.iter().map(f).sum::<u64>();
        let variant = match &program.steps[..] {
            [step] => step.variant.to_string(),
            steps => format!("{} steps", steps.len()),
        };
        Figure {
            name,
            family: family.into(),
            variant,
            first_call,
            times,
            flops: sum(Step::flops),
            bytes: sum(Step::bytes),
            dispatches: program.steps.iter().map(|step| step.kernel.launches.len()).sum(),
            bound: None,
            fault: None,
        }
    }

    /// Holds the time to what the adapter can do at the most.
    pub(crate) fn judge(&mut self, program: &Program, ceilings: &Ceilings) {
        // What the caches hold may have turned out to be more since the inputs were laid out.
        self.times.past_cache &= self.times.rotated_bytes >= 2 * ceilings.cache_bytes;
        self.bound = ceilings.bound(program, self.times.past_cache);
        self.fault = self.bound.and_then(|bound| bound.fault(self.times.seconds()));
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.times.seconds().median
    }

    /// Billions of operations a second.
    pub(crate) fn gflops(&self) -> f64 {
        self.flops as f64 / self.seconds() / 1e9
    }

    /// Billions of bytes a second.
    pub(crate) fn gbytes(&self) -> f64 {
        self.bytes as f64 / self.seconds() / 1e9
    }
}

/// The processor, as the system names it.
fn host() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_string()));
    format!("{}, {cores} cores", name.unwrap_or_else(|| std::env::consts::ARCH.into()))
}

/// The load of the last minute, on systems that have `/proc`.
pub(super) fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// UTC, by Howard Hinnant's `civil_from_days`.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months count from March.
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(at(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
