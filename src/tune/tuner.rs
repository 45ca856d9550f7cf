use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use crate::{
    DType, Error, Graph, Result, Tensor,
    gpu::{Executable, Gpu},
    kernel::Candidate,
    lower::{Choices, Options, Program, Role, Start},
    reference::{
        Random, Value,
        compare::{Bound, Check, Comparison, Expected, compare},
    },
};

/// How long one sample takes at least, so that the clock's grain and a single hiccup don't matter.
const SAMPLE: Duration = Duration::from_millis(20);
/// Samples of each variant.
const ROUNDS: usize = 5;
/// A variant whose first runs all take this many times as long as the best one's is not timed further.
const HOPELESS: f64 = 4.0;
/// How many first runs.
const FIRST: usize = 3;
/// What a variant must gain on the one that would be taken anyway: less is noise.
const GAIN: f64 = 0.03;
/// How far two variants may lie apart, over the largest value of the result: they add up in another order.
const AGREE: f64 = 1e-3;
/// Operations up to which the graph as a whole is compared with the reference: a minute of it.
const REFERENCE_FLOPS: u64 = 4_000_000_000;

/// Times the variants of a graph's kernels; see [`tune`](super).
#[derive(Clone, Debug)]
pub struct Tuner<'a> {
    gpu: &'a Gpu,
    budget: Duration,
    again: bool,
}

/// How a [`Tuner`] comes along.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many kinds of problems have more than one variant, and no entry yet.
    Found(usize),
    /// The variants of this problem are timed now.
    Timing(&'a str),
    /// A problem is done.
    Done(&'a Finding),
}

/// What was found of one problem.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The entry in [`Choices`].
    pub key: String,
    /// The problem in one line.
    pub problem: String,
    /// The variant that the order of the candidates takes.
    pub default: &'static str,
    /// The fastest variant, or the default where none is faster by more than the noise.
    pub winner: &'static str,
    /// Every variant that was tried, in the order of the candidates.
    pub trials: Vec<Trial>,
}

/// What was measured of one variant.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The variant.
    pub variant: &'static str,
    /// From the text of the shader to the first result, in seconds.
    pub first_call: f64,
    /// Median seconds of a run.
    pub seconds: f64,
    /// Why the variant was given up, if it was.
    pub dropped: Option<String>,
}

/// What a [`Tuner`] did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The problems that were measured.
    pub findings: Vec<Finding>,
    /// Problems that were not, and why.
    pub skipped: Vec<(String, String)>,
    /// How the graph as a whole was compared with the reference.
    pub checked: Checked,
}

/// How the winners were compared with the reference, all together.
#[derive(Clone, Debug)]
pub enum Checked {
    /// Every output is within its bound; this one came closest to it.
    Right(Comparison),
    /// Not with the reference, for this reason; each winner was compared with the default variant all the same.
    Not(String),
}

impl<'a> Tuner<'a> {
    /// A tuner with a budget of a minute.
    pub fn new(gpu: &'a Gpu) -> Self {
        Tuner { gpu, budget: Duration::from_secs(60), again: false }
    }

    /// How long it may take: no variant is begun later. What has not been measured by then keeps its default.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Measures also what has an entry already.
    pub fn again(mut self, again: bool) -> Self {
        self.again = again;
        self
    }

    /// Measures the steps of a graph, those with the most work first, and enters the winners into `choices`.
    ///
    /// `given` are inputs, parameters and states by name. What isn't given is drawn at random, apart from whole numbers
    /// (lengths, ids), which decide how much there is to do: a step that reads such is skipped if they are not given.
    ///
    /// # Errors
    /// Those of lowering and running, and [`Error::Op`] if the tuned graph's outputs are not what the reference says: then
    /// `choices` is as it was.
    pub fn tune(
        &self,
        graph: &Graph,
        given: &BTreeMap<String, Tensor>,
        choices: &mut Choices,
        mut told: impl FnMut(Event<'_>),
    ) -> Result<Report> {
        self.gpu.check()?;
        let end = Instant::now() + self.budget;
        // Nothing in place: a step that takes over its input can't stand alone.
        let options = Options { share_memory: false, ..Options::default() };
        let program = self.gpu.lower(graph, &options)?;
        let mut jobs: Vec<(usize, u64)> = Vec::new();
        let mut seen = BTreeSet::new();
        for (i, step) in program.steps.iter().enumerate() {
            let known = !self.again && choices.get(&step.key).is_some();
            let several = step.candidates.iter().filter(|c| c.is_usable()).count() > 1;
            if several && !known && seen.insert(&step.key) {
                jobs.push((i, step.flops().max(step.bytes())));
            }
        }
        jobs.sort_by_key(|&(i, work)| (std::cmp::Reverse(work), i));
        told(Event::Found(jobs.len()));

        let mut report = Report { findings: Vec::new(), skipped: Vec::new(), checked: Checked::Not(String::new()) };
        let mut found = choices.clone();
        for (i, _) in jobs {
            let step = &program.steps[i];
            let problem = format!("{} {}", step.family, step.summary);
            if Instant::now() >= end {
                report.skipped.push((problem, format!("the budget of {:?} is used up", self.budget)));
                continue;
            }
            told(Event::Timing(&problem));
            match inputs(&program, i, given) {
                Err(why) => report.skipped.push((problem, why)),
                Ok(inputs) => {
                    let finding = self.measure(graph, &program, i, &inputs, end)?;
                    told(Event::Done(&finding));
                    found.insert(&finding.key, finding.winner);
                    report.findings.push(finding);
                }
            }
        }
        let changed = report.findings.iter().any(|finding| finding.winner != finding.default);
        report.checked = match changed {
            true => self.check(graph, given, &program, &found)?,
            false => Checked::Not("no variant was changed".into()),
        };
        *choices = found;
        Ok(report)
    }

    /// Times the variants of one step, in turns.
    fn measure(
        &self,
        graph: &Graph,
        program: &Program,
        index: usize,
        inputs: &[(String, Tensor)],
        end: Instant,
    ) -> Result<Finding> {
        let step = &program.steps[index];
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut subjects: Vec<Subject> = Vec::new();
        let mut expected: Option<Vec<Tensor>> = None;
        let usable = step.candidates.iter().filter(|candidate| candidate.is_usable());
        for &Candidate { variant, .. } in usable {
            if subjects.len() > 1 && Instant::now() >= end {
                break;
            }
            let mut options = Options { share_memory: false, ..Options::default() };
            options.choices.insert(&step.key, variant);
            let alone = self.gpu.lower(graph, &options)?.isolate(index)?;
            let begun = Instant::now();
            let mut executable = self.gpu.load(&alone, [])?;
            let outputs: Vec<Tensor> = executable.run(&inputs)?.into_values().collect();
            let first_call = begun.elapsed().as_secs_f64();
            // The default, which comes first, is what the others have to agree with.
            let dropped = expected.as_ref().and_then(|expected| disagreement(expected, &outputs));
            expected.get_or_insert(outputs);
            let mut subject = Subject { executable, iterations: 1, samples: Vec::new(), variant, first_call, dropped };
            subject.warm(&inputs)?;
            let best = subjects.iter().map(Subject::seconds).fold(f64::INFINITY, f64::min);
            if subject.seconds() > HOPELESS * best {
                subject.dropped.get_or_insert_with(|| "far slower from the first runs on".into());
            }
            subjects.push(subject);
        }
        for _ in 0..ROUNDS {
            for subject in subjects.iter_mut().filter(|subject| subject.dropped.is_none()) {
                subject.sample()?;
            }
        }
        let default = subjects[0].variant;
        let timed = subjects.iter().filter(|subject| subject.dropped.is_none());
        let fastest = timed.min_by(|a, b| a.seconds().total_cmp(&b.seconds())).unwrap_or(&subjects[0]);
        let gains = fastest.seconds() < subjects[0].seconds() * (1.0 - GAIN);
        let winner = if gains { fastest.variant } else { default };
        let trials = subjects.iter().map(Subject::trial).collect();
        let problem = format!("{} {}", step.family, step.summary);
        Ok(Finding { key: step.key.clone(), problem, default, winner, trials })
    }

    /// Compares the graph with the new choices with the reference, if that is soon done.
    fn check(
        &self,
        graph: &Graph,
        given: &BTreeMap<String, Tensor>,
        program: &Program,
        found: &Choices,
    ) -> Result<Checked> {
        let flops: u64 = program.steps.iter().map(crate::lower::Step::flops).sum();
        if flops > REFERENCE_FLOPS {
            return Ok(Checked::Not(format!("{:.1} GFLOP would take the reference minutes", flops as f64 / 1e9)));
        }
        if let Some(text) = graph.without_twins().first() {
            return Ok(Checked::Not(format!("the function `{text}` has no twin in Rust")));
        }
        let mut values = given.clone();
        for buffer in &program.buffers {
            if let Role::Input(name) | Role::Parameter(name) | Role::State { name, .. } = &buffer.role
                && !values.contains_key(name)
            {
                match draw(buffer, name) {
                    Ok(tensor) => values.insert(name.clone(), tensor),
                    Err(why) => return Ok(Checked::Not(why)),
                };
            }
        }
        let program = self.gpu.lower(graph, &Options { choices: found.clone(), ..Options::default() })?;
        let (mut inputs, mut parameters, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for buffer in &program.buffers {
            match &buffer.role {
                Role::Input(name) => inputs.push((name.as_str(), &values[name])),
                Role::Parameter(name) | Role::State { name, start: Start::Given } => {
                    parameters.push((name.as_str(), &values[name]));
                }
                Role::State { name, start: Start::Zero } => states.push((name.as_str(), &values[name])),
                Role::Constant(_) | Role::Output(_) | Role::Temporary(_) | Role::Next(_) => {}
            }
        }
        let mut executable = self.gpu.load(&program, &parameters[..])?;
        for (name, tensor) in states {
            executable.set_state(name, tensor)?;
        }
        let outputs: BTreeMap<String, Tensor> = executable.run(&inputs)?.into_iter().collect();
        let expected = Expected::of_graph(graph, &values, Check::measured())?;
        match expected.compare_named(&outputs) {
            Ok(comparisons) => {
                let worst = comparisons.into_iter().max_by(|a, b| a.ratio.total_cmp(&b.ratio));
                Ok(worst.map_or(Checked::Not("the graph has no output".into()), Checked::Right))
            }
            Err(mismatches) if mismatches.prove_nothing() => Ok(Checked::Not(mismatches.to_string())),
            Err(mismatches) => Err(Error::op(
                "tune",
                format!(
                    "with the fastest variants the graph is not what the reference says, so nothing is kept: {mismatches}"
                ),
            )),
        }
    }
}

/// A variant that is being timed.
struct Subject {
    variant: &'static str,
    executable: Executable,
    iterations: u32,
    first_call: f64,
    samples: Vec<f64>,
    dropped: Option<String>,
}

impl Subject {
    /// A few runs to see how long it takes at best, which is the first sample.
    fn warm(&mut self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        self.executable.set_inputs(inputs)?;
        let mut once = f64::INFINITY;
        for _ in 0..FIRST {
            once = once.min(self.executable.bench(1, 1)?.seconds());
        }
        self.iterations = (SAMPLE.as_secs_f64() / once.max(1e-6)).clamp(1.0, 1000.0) as u32;
        self.samples.push(once);
        Ok(())
    }

    fn sample(&mut self) -> Result<()> {
        // Several copies of the data: the next step finds its inputs in no cache either.
        self.samples.push(self.executable.bench(self.iterations, 4)?.seconds());
        Ok(())
    }

    fn seconds(&self) -> f64 {
        let mut samples = self.samples.clone();
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    }

    fn trial(&self) -> Trial {
        Trial {
            variant: self.variant,
            first_call: self.first_call,
            seconds: self.seconds(),
            dropped: self.dropped.clone(),
        }
    }
}

/// The inputs of a step alone, or why it can't be timed.
fn inputs(program: &Program, step: usize, given: &BTreeMap<String, Tensor>) -> Result<Vec<(String, Tensor)>, String> {
    let ids: BTreeSet<_> = program.steps[step].inputs.iter().copied().collect();
    ids.into_iter()
        .filter(|id| !matches!(program.buffers[id.0].role, Role::Constant(_)))
        .map(|id| {
            let buffer = &program.buffers[id.0];
            let tensor = match &buffer.role {
                Role::Input(name) | Role::Parameter(name) | Role::State { name, .. } => match given.get(name) {
                    Some(tensor) => tensor.clone().reshaped(buffer.shape.clone()).map_err(|error| error.to_string())?,
                    None => draw(buffer, name)?,
                },
                Role::Constant(_) | Role::Output(_) | Role::Temporary(_) | Role::Next(_) => draw(buffer, &buffer.name)?,
            };
            Ok((format!("b{}", id.0), tensor))
        })
        .collect()
}

/// A random tensor for a buffer. Whole numbers can't be drawn: they say how much there is to do.
fn draw(buffer: &crate::lower::Buffer, name: &str) -> Result<Tensor, String> {
    if buffer.dtype == DType::U32 {
        // Weights of few bits: any bits are some.
        let bits = Random::new(1).wholes(buffer.dtype, buffer.shape.clone(), 0, i64::from(u32::MAX));
        bits.map_err(|error| error.to_string())
    } else if buffer.dtype.is_float() || buffer.dtype == DType::Bool {
        Random::new(1).tensor(buffer.dtype, buffer.shape.clone(), -1.0, 1.0).map_err(|error| error.to_string())
    } else {
        Err(format!("it depends on the numbers in `{name}` ({} {}): give them", buffer.dtype, buffer.shape))
    }
}

/// How a variant's results differ from the default's, if they do by more than the order of additions.
fn disagreement(expected: &[Tensor], actual: &[Tensor]) -> Option<String> {
    expected.iter().zip(actual).find_map(|(expected, actual)| {
        let expected = Value::<f64>::from(expected);
        let peak = expected.to_f64().into_iter().filter(|x| x.is_finite()).fold(0.0, |peak: f64, x| peak.max(x.abs()));
        let rounding = if expected.dtype() == DType::BF16 { 8.0 * AGREE } else { AGREE };
        let bound = if expected.dtype().is_float() { Bound::absolute(rounding * peak) } else { Bound::Exact };
        compare("the default's result", actual, &expected, &bound).err().map(|mismatch| format!("wrong: {mismatch}"))
    })
}

impl Finding {
    /// How many times as fast the winner is as the default.
    pub fn gain(&self) -> f64 {
        let of = |variant| self.trials.iter().find(|trial| trial.variant == variant).map_or(f64::NAN, |t| t.seconds);
        of(self.default) / of(self.winner)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem, self.winner)?;
        if self.winner != self.default {
            write!(f, ", {:.2} times as fast as {}", self.gain(), self.default)?;
        }
        for trial in &self.trials {
            write!(f, "; {} {:.3} ms", trial.variant, trial.seconds * 1e3)?;
            if let Some(why) = &trial.dropped {
                write!(f, " ({why})")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        for (problem, why) in &self.skipped {
            writeln!(f, "{problem}: not measured, {why}")?;
        }
        match &self.checked {
            Checked::Right(comparison) => write!(f, "the whole graph is right: {comparison}"),
            Checked::Not(why) => write!(f, "the whole graph was not compared with the reference: {why}"),
        }
    }
}
