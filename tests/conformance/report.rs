use std::{collections::BTreeMap, process::ExitCode};

/// What became of a case.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Passed,
    /// Why.
    Failed(String),
    /// There is no such operator.
    Unknown(String),
    /// The operator is here, this dtype or option of it is not.
    LeftOut(String),
}

/// Which cases to run, as the arguments of `cargo test` say: words of which a case's name or operator must contain one.
#[derive(Debug, Default)]
struct Filter {
    words: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
}

impl Filter {
    fn from_args() -> Self {
        let mut filter = Filter::default();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--exact" => filter.exact = true,
                "--list" => filter.list = true,
                "--ignored" => filter.ignored = true,
                "--skip" => filter.skip.extend(args.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "--shuffle-seed" | "-Z" => drop(args.next()),
                flag if flag.starts_with('-') => {}
                _ => filter.words.push(arg),
            }
        }
        filter
    }

    fn takes(&self, name: &str, operator: &str) -> bool {
        let found = |word: &String| match self.exact {
            true => name == word || operator == word,
            false => name.contains(word.as_str()) || operator.contains(word.as_str()),
        };
        (self.words.is_empty() || self.words.iter().any(found)) && !self.skip.iter().any(found)
    }
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    left_out: usize,
}

/// Runs cases, counts what becomes of them and says so.
pub(crate) struct Report {
    filter: Filter,
    operators: BTreeMap<String, Counts>,
    failures: Vec<String>,
    unknown: BTreeMap<String, usize>,
    left_out: BTreeMap<String, usize>,
}

impl Report {
    /// A report on the cases that the command line asks for.
    pub(crate) fn from_args() -> Self {
        Report {
            filter: Filter::from_args(),
            operators: BTreeMap::new(),
            failures: Vec::new(),
            unknown: BTreeMap::new(),
            left_out: BTreeMap::new(),
        }
    }

    /// Runs a case, if it is asked for.
    pub(crate) fn case(&mut self, name: &str, operator: &str, run: impl FnOnce() -> Outcome) {
        if self.filter.ignored || !self.filter.takes(name, operator) {
            return;
        }
        if self.filter.list {
            println!("{name}: test");
            return;
        }
        let outcome = run();
        let counts = match &outcome {
            Outcome::Unknown(_) => None,
            _ => Some(self.operators.entry(operator.to_string()).or_default()),
        };
        match (outcome, counts) {
            (Outcome::Passed, Some(counts)) => counts.passed += 1,
            (Outcome::Failed(why), Some(counts)) => {
                counts.failed += 1;
                self.failures.push(format!("{name} ({operator}): {why}"));
            }
            (Outcome::LeftOut(what), Some(counts)) => {
                counts.left_out += 1;
                *self.left_out.entry(what).or_default() += 1;
            }
            (Outcome::Unknown(which), _) => *self.unknown.entry(which).or_default() += 1,
            (_, None) => {}
        }
    }

    /// Prints all counts and says whether the run is a success: cases ran, and none failed.
    pub(crate) fn finish(self, title: &str) -> ExitCode {
        if self.filter.list {
            return ExitCode::SUCCESS;
        }
        println!("{title}");
        let width = self.operators.keys().map(String::len).max().unwrap_or(0);
        for (operator, Counts { passed, failed, left_out }) in &self.operators {
            let failed = if *failed > 0 { format!(", {failed} FAILED") } else { String::new() };
            let left_out = if *left_out > 0 { format!(", {left_out} left out") } else { String::new() };
            println!("  {operator:<width$} {passed:>3} passed{failed}{left_out}");
        }
        let list = |counts: &BTreeMap<String, usize>| {
            let each: Vec<String> = counts.iter().map(|(what, n)| format!("  {n:>3}  {what}")).collect();
            each.join("\n")
        };
        if !self.left_out.is_empty() {
            println!("left out, cases for each reason:\n{}", list(&self.left_out));
        }
        if !self.unknown.is_empty() {
            println!("operators that are not here, and their cases:\n{}", list(&self.unknown));
        }
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
        let sum = |of: fn(&Counts) -> usize| self.operators.values().map(of).sum::<usize>();
        let (passed, failed) = (sum(|c| c.passed), sum(|c| c.failed));
        let not_supported = sum(|c| c.left_out) + self.unknown.values().sum::<usize>();
        let filtered = self.filter.ignored || !self.filter.words.is_empty();
        if passed + failed == 0 && !filtered {
            println!("no case ran");
        }
        println!("{passed} passed, {failed} failed, {not_supported} not supported");
        if failed > 0 || (passed == 0 && !filtered) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
