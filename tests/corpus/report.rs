use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

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

/// Which cases to run, as the arguments of `cargo test` say: corpora by their names, and words of which a case's name or operator
/// must contain one.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    corpora: Vec<String>,
    words: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
    threads: Option<usize>,
}

impl Filter {
    pub(crate) fn from_args(corpora: &[&str]) -> Self {
        let mut filter = Filter::default();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--exact" => filter.exact = true,
                "--list" => filter.list = true,
                "--ignored" => filter.ignored = true,
                "--skip" => filter.skip.extend(args.next()),
                "--test-threads" => filter.threads = args.next().and_then(|n| n.parse().ok()),
                "--format" | "--color" | "--logfile" | "--shuffle-seed" | "-Z" => drop(args.next()),
                flag if flag.starts_with('-') => {}
                name if corpora.contains(&name) => filter.corpora.push(arg),
                _ => filter.words.push(arg),
            }
        }
        filter
    }

    /// Whether a corpus is asked for: all are if none is named.
    pub(crate) fn chooses(&self, corpus: &str) -> bool {
        self.corpora.is_empty() || self.corpora.iter().any(|name| name == corpus)
    }

    fn takes(&self, name: &str, operator: &str) -> bool {
        let found = |word: &String| match self.exact {
            true => name == word || operator == word,
            false => name.contains(word.as_str()) || operator.contains(word.as_str()),
        };
        !self.ignored && (self.words.is_empty() || self.words.iter().any(found)) && !self.skip.iter().any(found)
    }

    /// Whether it may be that no case is taken.
    fn narrows(&self) -> bool {
        self.ignored || !self.words.is_empty()
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
    }
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    left_out: usize,
}

/// What became of the cases of a corpus that were asked for.
#[derive(Default)]
pub(crate) struct Report {
    operators: BTreeMap<String, Counts>,
    failures: Vec<String>,
    unknown: BTreeMap<String, usize>,
    left_out: BTreeMap<String, usize>,
}

impl Report {
    /// Runs the cases that are asked for, on all cores; `named` gives the name and the operator of one.
    pub(crate) fn of<C: Sync>(
        filter: &Filter,
        cases: &[C],
        named: impl Fn(&C) -> (String, String),
        run: impl Fn(&C) -> Outcome + Sync,
    ) -> Self {
        let named: Vec<(String, String)> = cases.iter().map(named).collect();
        let asked: Vec<(&C, &(String, String))> =
            cases.iter().zip(&named).filter(|(_, (name, operator))| filter.takes(name, operator)).collect();
        let mut report = Report::default();
        if filter.list {
            asked.iter().for_each(|(_, (name, _))| println!("{name}: test"));
            return report;
        }
        let next = AtomicUsize::new(0);
        let work = || -> Vec<(usize, Outcome)> {
            let turns = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
            turns.map_while(|at| asked.get(at).map(|(case, _)| (at, run(case)))).collect()
        };
        let mut outcomes: Vec<(usize, Outcome)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..filter.threads()).map(|_| scope.spawn(work)).collect();
            let all = workers.into_iter().map(|worker| worker.join());
            all.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        outcomes.sort_by_key(|&(at, _)| at);
        for (at, outcome) in outcomes {
            let (name, operator) = asked[at].1;
            report.count(name, operator, outcome);
        }
        report
    }

    fn count(&mut self, name: &str, operator: &str, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.counts(operator).passed += 1,
            Outcome::Failed(why) => {
                self.counts(operator).failed += 1;
                self.failures.push(format!("{name} ({operator}): {why}"));
            }
            Outcome::LeftOut(what) => {
                self.counts(operator).left_out += 1;
                *self.left_out.entry(what).or_default() += 1;
            }
            Outcome::Unknown(which) => *self.unknown.entry(which).or_default() += 1,
        }
    }

    fn counts(&mut self, operator: &str) -> &mut Counts {
        self.operators.entry(operator.to_string()).or_default()
    }

    /// Prints all counts and says whether the run is a success: cases ran, and none failed.
    pub(crate) fn finish(self, filter: &Filter, corpus: &str, title: &str) -> bool {
        if filter.list {
            return true;
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
        let skipped = sum(|c| c.left_out) + self.unknown.values().sum::<usize>();
        let ran = passed + failed > 0 || filter.narrows();
        if !ran {
            println!("no case ran");
        }
        println!("{corpus}: {passed} passed, {failed} failed, {skipped} skipped");
        failed == 0 && ran
    }
}
