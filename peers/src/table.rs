//! Results, in files and as a table.

use std::{collections::BTreeMap, fs};

use serde::{Deserialize, Serialize};
use tilewise::measure::Statistics;

use crate::peer::Result;

/// What one program measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub rows: Vec<Row>,
}

/// One case of one library.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub case: String,
    /// Name and version.
    pub peer: String,
    pub device: String,
    /// Seconds of the first run: compiling and tuning.
    pub first_call: Option<f64>,
    /// Of a run in a series, waited for at the end.
    pub seconds: Statistics,
}

/// Prints one table from the files of several programs.
pub fn join(files: &[String]) -> Result<()> {
    let read = |file: &String| -> Result<Run> {
        let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        Ok(serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?)
    };
    print(&files.iter().map(read).collect::<Result<Vec<_>>>()?);
    Ok(())
}

/// In Markdown: a line for each case, a column for each library, with how many times as long it takes as tilewise.
pub fn print(runs: &[Run]) {
    let rows = || runs.iter().flat_map(|run| &run.rows);
    let mut cases: Vec<&str> = Vec::new();
    let mut peers: Vec<(&str, &str)> = Vec::new();
    let mut found: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for row in rows() {
        if !cases.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
        if !peers.iter().any(|(name, _)| *name == row.peer) {
            peers.push((&row.peer, &row.device));
        }
        found.insert((&row.case, &row.peer), row.seconds.median);
    }
    let ours = peers.iter().map(|(name, _)| *name).find(|name| name.starts_with("tilewise"));
    println!("| ms (times tilewise's) | {} |", peers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "));
    println!("| --- |{}", " ---: |".repeat(peers.len()));
    for case in cases {
        let base = ours.and_then(|ours| found.get(&(case, ours)).copied());
        let cell = |(name, _): &(&str, &str)| match (found.get(&(case, *name)), base) {
            (None, _) => "—".to_string(),
            (Some(seconds), Some(base)) if ours != Some(*name) => {
                format!("{:.3} ({:.2})", seconds * 1e3, seconds / base)
            }
            (Some(seconds), _) => format!("{:.3}", seconds * 1e3),
        };
        println!("| {case} | {} |", peers.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
    println!();
    for (name, device) in peers {
        println!("- {name}: {device}");
    }
}
