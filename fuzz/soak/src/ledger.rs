//! The record of a run, a line a chunk, so that the next one goes on from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{Run, bodies, target};

/// What a worker reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// All cases of a chunk, by what became of them.
    Chunk { chunk: u64, outcomes: BTreeMap<String, u64> },
    /// A case that showed a fault.
    Fault { case: u64, fault: String },
    /// No cases could be run any more.
    Broken { error: String },
}

pub(crate) struct Ledger {
    run: Run,
    file: File,
    chunks: BTreeSet<u64>,
    outcomes: BTreeMap<String, u64>,
    faults: BTreeSet<u64>,
    broken: bool,
}

impl Ledger {
    /// Reads what is there of the same target, seed and share.
    pub(crate) fn open(run: &Run, size: u64) -> Result<Self> {
        let (i, n) = run.share;
        fs::create_dir_all(run.folder.join("faults")).with_context(|| run.folder.display().to_string())?;
        let path = run.folder.join(format!("{}-seed{}-{i}of{n}-by{size}.jsonl", run.target, run.seed));
        let before = fs::read_to_string(&path).unwrap_or_default();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        let (chunks, outcomes, faults) = Default::default();
        let mut ledger = Ledger { run: run.clone(), file, chunks, outcomes, faults, broken: false };
        // A line that was cut off counts for nothing.
        before.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(|entry| ledger.count(&entry));
        if !before.is_empty() && !before.ends_with('\n') {
            writeln!(ledger.file)?;
        }
        Ok(ledger)
    }

    fn count(&mut self, entry: &Entry) {
        match entry {
            Entry::Chunk { chunk, outcomes } => {
                if self.chunks.insert(*chunk) {
                    for (outcome, count) in outcomes {
                        *self.outcomes.entry(outcome.clone()).or_default() += count;
                    }
                }
            }
            Entry::Fault { case, .. } => {
                self.faults.insert(*case);
            }
            Entry::Broken { .. } => self.broken = true,
        }
    }

    /// Writes an entry; the input of a fault goes to a file of its own.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<()> {
        self.count(&entry);
        if let Entry::Fault { case, fault } = &entry {
            let stem: PathBuf =
                self.run.folder.join("faults").join(format!("{}-seed{}-{case}", self.run.target, self.run.seed));
            fs::write(stem.with_extension("input"), target(&self.run.target)?.case(self.run.seed, *case))?;
            fs::write(stem.with_extension("txt"), format!("{fault}\n\n{}\n", self.input(*case)?))?;
        }
        if !matches!(entry, Entry::Broken { .. }) {
            writeln!(self.file, "{}", serde_json::to_string(&entry)?)?;
        }
        Ok(())
    }

    fn input(&self, case: u64) -> Result<String> {
        Ok(bodies::readable(&target(&self.run.target)?.case(self.run.seed, case)))
    }

    /// Whether a chunk was done.
    pub(crate) fn has(&self, chunk: u64) -> bool {
        self.chunks.contains(&chunk)
    }

    /// Cases that went all the way.
    pub(crate) fn whole(&self) -> u64 {
        self.outcomes.get("Whole").copied().unwrap_or(0)
    }

    pub(crate) fn faults(&self) -> usize {
        self.faults.len()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.outcomes.values().sum();
        write!(f, "{total} cases, {} faults", self.faults.len())?;
        for (outcome, count) in &self.outcomes {
            write!(f, ", {count} {outcome}")?;
        }
        Ok(())
    }
}
