//! Floor 5: does this device, with these kernels, give the reference's results?
//!
//! [`sweep`] runs the [cases] of each kernel family on a device, with every variant of the
//! family, watched as by [`LoadOptions::guard`]: outputs start as NaN, memory behind the end of each buffer must stay
//! as it was, and a second run must give the same bits. The results are compared with the reference. A variant that
//! can't run on the device is reported with its reason.
//!
//! ```no_run
//! use tilewise::{gpu::Gpu, kernel::FAMILIES, verify::{self, cases::Level}};
//! let report = verify::sweep(&Gpu::new()?, &FAMILIES, Level::Quick, 1, |outcome| eprintln!("{outcome}"))?;
//! println!("{report}");
//! assert!(report.is_right());
//! # Ok::<(), tilewise::Error>(())
//! ```

pub mod cases;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use cases::{Case, Level};

use crate::{
    Error, Result, Tensor, ValueId,
    gpu::{Gpu, LoadOptions},
    kernel::{Candidate, Verdict as Usable},
    lower::{self, Options, Program},
    reference::compare::{Check, Comparison, Expected, Mismatches},
};

/// Reasons of refusal that a printed report gives for each variant.
const REASONS: usize = 4;

/// What one run of one case came to.
#[derive(Debug)]
pub struct Outcome {
    /// The kernel family.
    pub family: &'static str,
    /// The case's name.
    pub case: String,
    /// The variant that was forced; `None` if lowering chose, or if no kernel of the family was needed.
    pub variant: Option<String>,
    /// The finding.
    pub verdict: Verdict,
}

/// The finding of an [`Outcome`].
#[derive(Debug)]
pub enum Verdict {
    /// Every element is within its bound; this output came closest to it.
    Right(Comparison),
    /// Outputs are not what the reference says: each of them.
    Wrong(Mismatches),
    /// Every element is within its bound, but some output's bound is as large as its values. That is no pass.
    ProvesNothing(Mismatches),
    /// The case could not be lowered, run or evaluated, or a kernel broke a promise of the watched run.
    Failed(Error),
    /// The variant can't run this case on this device, or no variant can, and why.
    Refused(String),
}

impl From<Error> for Verdict {
    fn from(error: Error) -> Self {
        if let Error::NoVariant { .. } = error { Verdict::Refused(error.to_string()) } else { Verdict::Failed(error) }
    }
}

impl Outcome {
    /// Whether this is a fault: wrong, failed or not proved, but not refused.
    pub fn is_fault(&self) -> bool {
        matches!(self.verdict, Verdict::Wrong(_) | Verdict::ProvesNothing(_) | Verdict::Failed(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { family, case, variant, verdict } = self;
        write!(f, "{family} {}: {case}: ", variant.as_deref().unwrap_or("-"))?;
        match verdict {
            Verdict::Right(comparison) => write!(f, "right, {comparison}"),
            Verdict::Wrong(mismatches) => write!(f, "WRONG: {mismatches}"),
            Verdict::ProvesNothing(mismatches) => write!(f, "PROVES NOTHING: {mismatches}"),
            Verdict::Failed(error) => write!(f, "FAILED: {error}"),
            Verdict::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

/// The variants of the case's family, each with whether it can run the case on this device: all of its steps, if there
/// are several. Empty if lowering needs no kernel of the family.
///
/// # Errors
/// As [`lower`](lower::lower()).
pub fn variants(gpu: &Gpu, case: &Case) -> Result<Vec<Candidate>> {
    let program = lower::lower(&case.graph, gpu.profile(), &Options::default())?;
    let mut variants: Vec<Candidate> = Vec::new();
    for candidate in program.steps.iter().filter(|step| step.family == case.family).flat_map(|step| &step.candidates) {
        match variants.iter_mut().find(|known| known.variant == candidate.variant) {
            None => variants.push(candidate.clone()),
            Some(known) if known.is_usable() => known.verdict = candidate.verdict.clone(),
            Some(_) => {}
        }
    }
    Ok(variants)
}

/// Runs a case, with this variant of its family, or with what lowering chooses.
#[cfg(feature = "native")]
pub fn run(gpu: &Gpu, case: &Case, variant: Option<&str>) -> Outcome {
    pollster::block_on(run_async(gpu, case, variant))
}

/// [`run`] without blocking.
pub async fn run_async(gpu: &Gpu, case: &Case, variant: Option<&str>) -> Outcome {
    let verdict = match (variants(gpu, case), case.expected()) {
        (Err(error), _) | (_, Err(error)) => error.into(),
        (Ok(variants), Ok(expected)) => judge(gpu, case, &expected, &variants, variant).await,
    };
    Outcome { family: case.family, case: case.name.clone(), variant: variant.map(str::to_string), verdict }
}

/// Runs every case of these families with every variant, and tells of each run as it ends.
///
/// # Errors
/// [`Error::Op`] if there is no family of a name; [`Error::DeviceLost`] if the device is lost. What else goes wrong in a case
/// is an [`Outcome`].
#[cfg(feature = "native")]
pub fn sweep(gpu: &Gpu, families: &[&str], level: Level, seed: u64, told: impl FnMut(&Outcome)) -> Result<Report> {
    pollster::block_on(sweep_async(gpu, families, level, seed, told))
}

/// [`sweep`] without blocking.
///
/// # Errors
/// As [`sweep`].
pub async fn sweep_async(
    gpu: &Gpu,
    families: &[&str],
    level: Level,
    seed: u64,
    mut told: impl FnMut(&Outcome),
) -> Result<Report> {
    let mut report = Report::default();
    for &family in families {
        for case in cases::of_family(family, level, seed)? {
            let mut outcome = |variant: Option<&str>, verdict: Verdict| {
                let variant = variant.map(str::to_string);
                let outcome = Outcome { family: case.family, case: case.name.clone(), variant, verdict };
                told(&outcome);
                report.add(outcome);
            };
            let (variants, expected) = match (variants(gpu, &case), case.expected()) {
                (Ok(variants), Ok(expected)) => (variants, expected),
                (Err(error), _) | (_, Err(error)) => {
                    outcome(None, Verdict::from(error));
                    continue;
                }
            };
            for candidate in &variants {
                let variant = Some(candidate.variant);
                outcome(variant, still_there(judge(gpu, &case, &expected, &variants, variant).await)?);
            }
            if variants.is_empty() {
                outcome(None, still_there(judge(gpu, &case, &expected, &variants, None).await)?);
            }
        }
    }
    Ok(report)
}

/// A lost device says nothing of a case, and nothing can run on it any more.
fn still_there(verdict: Verdict) -> Result<Verdict> {
    match verdict {
        Verdict::Failed(error @ Error::DeviceLost(_)) => Err(error),
        Verdict::Right(_)
        | Verdict::Wrong(_)
        | Verdict::ProvesNothing(_)
        | Verdict::Failed(_)
        | Verdict::Refused(_) => Ok(verdict),
    }
}

/// Runs one telling case of each variant: of the small cases of finite numbers that it can run, the one with the largest results,
/// and random data where there are any. Tells of each run as it ends.
///
/// # Errors
/// As [`sweep`].
#[cfg(feature = "native")]
pub fn brief(gpu: &Gpu, families: &[&str], seed: u64, told: impl FnMut(&Outcome)) -> Result<Report> {
    pollster::block_on(brief_async(gpu, families, seed, told))
}

/// [`brief`] without blocking.
///
/// # Errors
/// As [`sweep`].
pub async fn brief_async(gpu: &Gpu, families: &[&str], seed: u64, mut told: impl FnMut(&Outcome)) -> Result<Report> {
    let mut report = Report::default();
    for &family in families {
        for Telling { variant, case, verdict } in telling(gpu, family, seed)? {
            let verdict = match verdict {
                Usable::Usable(_) => still_there(run_async(gpu, &case, Some(variant)).await.verdict)?,
                Usable::Refused(reason) => Verdict::Refused(reason),
            };
            let outcome = Outcome { family: case.family, case: case.name, variant: Some(variant.into()), verdict };
            told(&outcome);
            report.add(outcome);
        }
    }
    Ok(report)
}

/// A variant, the case that tells most of it, and whether it can run that.
struct Telling {
    variant: &'static str,
    case: Case,
    verdict: Usable,
}

/// Of each variant of a family, the case that tells most of it: one that it can run, if there is one.
fn telling(gpu: &Gpu, family: &str, seed: u64) -> Result<Vec<Telling>> {
    let mut found: Vec<((bool, bool, usize), Telling)> = Vec::new();
    // Some devices are not asked about what is not finite.
    for case in cases::of_family(family, Level::Quick, seed)?.into_iter().filter(|case| !case.not_finite) {
        let elements = |&(_, value): &(String, ValueId)| case.graph.shape(value).iter().product::<usize>();
        let size = case.graph.outputs().iter().map(elements).sum();
        let is_random = matches!(case.check, Check::Measured { .. });
        // What can't be lowered on this device, no variant can run.
        for Candidate { variant, verdict } in variants(gpu, &case).unwrap_or_default() {
            let worth = (matches!(verdict, Usable::Usable(_)), is_random, size);
            let telling = || Telling { variant, case: case.clone(), verdict };
            match found.iter_mut().find(|(_, known)| known.variant == variant) {
                None => found.push((worth, telling())),
                Some(known) if worth > known.0 => *known = (worth, telling()),
                Some(_) => {}
            }
        }
    }
    Ok(found.into_iter().map(|(_, telling)| telling).collect())
}

async fn judge(gpu: &Gpu, case: &Case, expected: &Expected, variants: &[Candidate], variant: Option<&str>) -> Verdict {
    if let Some(why) = gpu.profile().assumes_finite().filter(|_| case.not_finite) {
        return Verdict::Refused(format!("of what is not finite: {why}"));
    }
    let mut options = Options::default();
    if let Some(variant) = variant {
        match variants.iter().find(|candidate| candidate.variant == variant).map(|candidate| &candidate.verdict) {
            Some(Usable::Refused(reason)) => return Verdict::Refused(reason.clone()),
            Some(Usable::Usable(_)) => options = options.force(case.family, variant),
            None => {
                let known: Vec<&str> = variants.iter().map(|candidate| candidate.variant).collect();
                let message = format!("there is no variant `{variant}`; there are: {}", known.join(", "));
                return Verdict::Failed(Error::op(case.family, message));
            }
        }
    }
    let program = match lower::lower(&case.graph, gpu.profile(), &options) {
        Ok(program) => program,
        Err(error) => return error.into(),
    };
    match outputs(gpu, case, &program).await.map(|outputs| expected.compare_named(&outputs)) {
        Err(error) => Verdict::Failed(error),
        Ok(Err(mismatches)) if mismatches.prove_nothing() => Verdict::ProvesNothing(mismatches),
        Ok(Err(mismatches)) => Verdict::Wrong(mismatches),
        Ok(Ok(comparisons)) => {
            let nothing = Comparison { elements: 0, nan: 0, observed: 0.0, allowed: 0.0, ratio: 0.0 };
            Verdict::Right(comparisons.into_iter().fold(nothing, |a, b| if b.ratio >= a.ratio { b } else { a }))
        }
    }
}

async fn outputs(gpu: &Gpu, case: &Case, program: &Program) -> Result<BTreeMap<String, Tensor>> {
    let given = |names: BTreeSet<&str>| {
        let named = case.inputs.iter().filter(move |(name, _)| names.contains(name.as_str()));
        named.map(|(name, tensor)| (name.as_str(), tensor)).collect::<Vec<_>>()
    };
    let parameters = given(case.graph.parameters().map(|(name, _)| name).collect());
    let inputs = given(case.graph.inputs().map(|(name, _)| name).collect());
    let mut executable = gpu.load_with_async(program, &parameters[..], LoadOptions { guard: true }).await?;
    Ok(executable.run_async(&inputs).await?.into_iter().collect())
}

/// The outcomes of a [`sweep`], counted by family and variant.
#[derive(Debug, Default)]
pub struct Report {
    tallies: BTreeMap<(&'static str, String), Tally>,
    faults: Vec<Outcome>,
}

/// The outcomes of one variant.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Cases whose outputs were right.
    pub right: usize,
    /// Cases that were wrong or failed.
    pub faults: usize,
    /// Cases that prove nothing.
    pub unproved: usize,
    /// Cases that the variant can't run on this device.
    pub refused: usize,
    /// Why not, without repeats.
    pub reasons: BTreeSet<String>,
    /// The case that came closest to its bound.
    pub closest: Option<(String, Comparison)>,
}

impl Report {
    /// Counts an outcome.
    pub fn add(&mut self, outcome: Outcome) {
        let variant = outcome.variant.clone().unwrap_or_else(|| "-".into());
        let tally = self.tallies.entry((outcome.family, variant)).or_default();
        match &outcome.verdict {
            Verdict::Right(comparison) => {
                tally.right += 1;
                if tally.closest.as_ref().is_none_or(|(_, closest)| comparison.ratio > closest.ratio) {
                    tally.closest = Some((outcome.case, *comparison));
                }
            }
            Verdict::Refused(reason) => {
                tally.refused += 1;
                tally.reasons.insert(reason.clone());
            }
            Verdict::Wrong(_) | Verdict::Failed(_) => {
                tally.faults += 1;
                self.faults.push(outcome);
            }
            Verdict::ProvesNothing(_) => {
                tally.unproved += 1;
                self.faults.push(outcome);
            }
        }
    }

    /// The counts by family and variant; `-` stands for cases that needed no kernel of their family, or have none.
    pub fn tallies(&self) -> impl Iterator<Item = (&'static str, &str, &Tally)> {
        self.tallies.iter().map(|((family, variant), tally)| (*family, variant.as_str(), tally))
    }

    /// What was wrong, failed or proves nothing.
    pub fn faults(&self) -> &[Outcome] {
        &self.faults
    }

    /// Whether something ran, and nothing was wrong, failed or proves nothing.
    pub fn is_right(&self) -> bool {
        self.faults.is_empty() && self.tallies.values().any(|tally| tally.right > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:<20} {:>6} {:>6} {:>8} {:>8}  closest to its bound",
            "family", "variant", "right", "faults", "unproved", "refused"
        )?;
        for ((family, variant), tally) in &self.tallies {
            let Tally { right, faults, unproved, refused, reasons, closest } = tally;
            write!(f, "{family:<10} {variant:<20} {right:>6} {faults:>6} {unproved:>8} {refused:>8}")?;
            match closest {
                None => {}
                Some((_, Comparison { ratio: 0.0, .. })) => write!(f, "  equal")?,
                Some((case, Comparison { observed, allowed, ratio, .. })) => {
                    write!(f, "  {ratio:.3} = {observed:.2e} / {allowed:.2e}: {case}")?;
                }
            }
            writeln!(f)?;
            for reason in reasons.iter().take(REASONS) {
                writeln!(f, "{:<10}   refused: {reason}", "")?;
            }
            if reasons.len() > REASONS {
                writeln!(f, "{:<10}   … and for {} more reasons", "", reasons.len() - REASONS)?;
            }
        }
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        Ok(())
    }
}
