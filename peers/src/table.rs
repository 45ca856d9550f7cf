//! Results, in a file and as tables.

use std::{fmt::Write, fs};

use serde::{Deserialize, Serialize};
use tilewise::measure::Statistics;

use crate::{case::Case, peer::Result};

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

/// A library.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column {
    /// Name and version.
    pub peer: String,
    pub device: String,
}

/// One case of one library that can do it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub case: String,
    pub peer: String,
    /// Seconds from the operands to the first result, with whatever caches there were: compiling and tuning.
    pub first_call: Option<f64>,
    /// The same in a process of its own with empty caches, where that was measured.
    pub uncached_first_call: Option<f64>,
    /// Of a run in a series, waited for at the end; `None` if it is not to be counted.
    pub seconds: Option<Statistics>,
    /// Why.
    pub fault: Option<String>,
}

impl Row {
    pub fn new(case: &Case, peer: &str) -> Self {
        let (case, peer) = (case.name.clone(), peer.to_string());
        Row { case, peer, first_call: None, uncached_first_call: None, seconds: None, fault: None }
    }

    pub fn fail(&mut self, why: String) {
        eprintln!("{}: {}: {why}", self.case, self.peer);
        self.fault = Some(why);
    }
}

impl Run {
    pub fn read(file: &str) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        Ok(serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?)
    }

    fn row(&self, case: &str, column: &Column) -> Option<&Row> {
        self.rows.iter().find(|row| row.case == case && row.peer == column.peer)
    }

    fn median(&self, case: &str, column: &Column) -> Option<f64> {
        Some(self.row(case, column)?.seconds?.median)
    }

    fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = self.rows.iter().map(|row| row.case.as_str()).collect();
        cases.dedup();
        cases
    }

    fn ours(&self) -> Option<&Column> {
        self.columns.iter().find(|column| column.peer.starts_with("tilewise"))
    }

    /// How many times as long as ours.
    fn ratio(&self, case: &str, column: &Column) -> Option<f64> {
        Some(self.median(case, column)? / self.median(case, self.ours()?)?)
    }

    /// The geometric mean of the ratios of all cases that both can do, and how many these are.
    fn mean(&self, column: &Column) -> Option<(f64, usize)> {
        let ratios: Vec<f64> = self.cases().iter().filter_map(|case| self.ratio(case, column)).collect();
        let logarithms: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
        (!ratios.is_empty()).then(|| ((logarithms / ratios.len() as f64).exp(), ratios.len()))
    }
}

/// In Markdown: times with ratios, first calls, what went wrong, and what each library runs on.
pub fn markdown(run: &Run) -> String {
    let mut text = String::new();
    let is_ours = |column: &Column| run.ours().is_some_and(|ours| ours.peer == column.peer);
    table(&mut text, run, "ms (times tilewise's)", &run.columns, |case, column| match run.row(case, column) {
        None => "—".into(),
        Some(Row { seconds: None, .. }) => "not counted".into(),
        Some(Row { seconds: Some(seconds), .. }) => match run.ratio(case, column) {
            Some(ratio) if !is_ours(column) => format!("{:.3} ({ratio:.2})", seconds.median * 1e3),
            _ => format!("{:.3}", seconds.median * 1e3),
        },
    });
    let means: Vec<String> = run
        .columns
        .iter()
        .map(|column| match run.mean(column) {
            Some((mean, count)) if !is_ours(column) => format!("**({mean:.2})** of {count}"),
            _ => String::new(),
        })
        .collect();
    if means.iter().any(|mean| !mean.is_empty()) {
        line(&mut text, "**geometric mean**", &means);
    }

    // A processor's libraries compile nothing.
    let compiling: Vec<Column> =
        run.columns.iter().filter(|c| is_ours(c) || c.peer.starts_with("burn")).cloned().collect();
    if !compiling.is_empty() {
        text += "\nSeconds of the first call, from the operands to a result.";
        if run.ours().is_some() {
            text += " tilewise: in a new process, with nothing compiled or cached before.";
        }
        if compiling.iter().any(|column| !is_ours(column)) {
            text += " burn: tuning included, unless an earlier run left its choice in burn's cache.";
        }
        text += "\n\n";
        table(&mut text, run, "s", &compiling, |case, column| {
            let row = run.row(case, column);
            let seconds = row.and_then(|row| row.uncached_first_call.or(row.first_call.filter(|_| !is_ours(column))));
            seconds.map_or("—".into(), |seconds| format!("{seconds:.2}"))
        });
    }

    let faults: Vec<&Row> = run.rows.iter().filter(|row| row.fault.is_some()).collect();
    if !faults.is_empty() {
        text += "\nNot counted:\n\n";
        for Row { case, peer, fault, .. } in faults {
            let _ = writeln!(text, "- {case}, {peer}: {}", fault.as_deref().unwrap_or_default());
        }
    }
    text += "\n";
    for Column { peer, device } in &run.columns {
        let _ = writeln!(text, "- {peer}: {device}");
    }
    text
}

fn table(text: &mut String, run: &Run, corner: &str, columns: &[Column], cell: impl Fn(&str, &Column) -> String) {
    line(text, corner, &columns.iter().map(|column| column.peer.clone()).collect::<Vec<_>>());
    line(text, "---", &vec!["---:".to_string(); columns.len()]);
    for case in run.cases() {
        line(text, case, &columns.iter().map(|column| cell(case, column)).collect::<Vec<_>>());
    }
}

fn line(text: &mut String, head: &str, cells: &[String]) {
    let _ = writeln!(text, "| {head} | {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, peer: &str, milliseconds: Option<f64>) -> Row {
        let of = |ms: f64| Statistics::of(&[ms / 1e3]).expect("a sample");
        Row {
            case: case.into(),
            peer: peer.into(),
            first_call: Some(0.5),
            uncached_first_call: peer.starts_with("tilewise").then_some(1.25),
            seconds: milliseconds.map(of),
            fault: milliseconds.is_none().then(|| "wrong: element 0 is 1 instead of 2".into()),
        }
    }

    #[test]
    fn the_table_has_ratios_a_mean_faults_and_first_calls() {
        let column = |peer: &str| Column { peer: peer.into(), device: "a machine".into() };
        let run = Run {
            columns: vec![column("tilewise 1"), column("burn 2"), column("faer 3")],
            rows: vec![
                row("a", "tilewise 1", Some(2.0)),
                row("a", "burn 2", Some(8.0)),
                row("a", "faer 3", Some(1.0)),
                row("b", "tilewise 1", Some(2.0)),
                row("b", "burn 2", Some(18.0)),
                row("c", "tilewise 1", Some(2.0)),
                row("c", "burn 2", None),
            ],
        };
        let text = markdown(&run);
        for expected in [
            "| ms (times tilewise's) | tilewise 1 | burn 2 | faer 3 |\n| --- | ---: | ---: | ---: |\n",
            "| a | 2.000 | 8.000 (4.00) | 1.000 (0.50) |\n",
            "| b | 2.000 | 18.000 (9.00) | — |\n",
            "| c | 2.000 | not counted | — |\n",
            "| **geometric mean** |  | **(6.00)** of 2 | **(0.50)** of 1 |\n",
            "| a | 1.25 | 0.50 |\n",
            "- c, burn 2: wrong: element 0 is 1 instead of 2\n",
            "- faer 3: a machine\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
