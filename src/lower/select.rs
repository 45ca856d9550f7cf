//! Which variant of a kernel a step takes.

use super::{Choices, Options};
use crate::{
    Error, Result,
    kernel::{Candidate, FAMILIES, Problem, Profile, Verdict},
};

/// The variant for one problem, and the verdicts on all.
pub(super) struct Choice {
    pub(super) key: String,
    pub(super) variant: &'static str,
    pub(super) reason: String,
    pub(super) candidates: Vec<Candidate>,
}

/// An error if a forced family does not exist.
pub(super) fn check(options: &Options) -> Result<()> {
    match options.force.keys().find(|family| !FAMILIES.contains(&family.as_str())) {
        None => Ok(()),
        Some(family) => Err(Error::op(
            "lower",
            format!(
                "a variant of `{family}` is forced, but no kernel family has that name; there are {}",
                FAMILIES.join(", ")
            ),
        )),
    }
}

/// The forced variant, or the one that was measured to be the fastest, or the first that can run.
pub(super) fn select(problem: &dyn Problem, profile: &Profile, options: &Options) -> Result<Choice> {
    let family = problem.family();
    let candidates = problem.candidates(profile);
    let forced = options.force.get(family);
    let key = Choices::key(problem);
    let measured = options.choices.get(&key).filter(|_| forced.is_none());
    let measured = measured.and_then(|name| candidates.iter().find(|c| c.variant == name && c.is_usable()));
    if let Some(Candidate { variant, verdict: Verdict::Usable(reason) }) = measured {
        let (variant, reason) = (*variant, format!("measured to be the fastest here; {reason}"));
        return Ok(Choice { key, variant, reason, candidates });
    }
    let found = candidates.iter().find_map(|candidate| match (&candidate.verdict, forced) {
        (_, Some(forced)) if candidate.variant != forced => None,
        (Verdict::Usable(reason), None) => Some(Ok((candidate.variant, reason.clone()))),
        (Verdict::Usable(reason), Some(_)) => Some(Ok((candidate.variant, format!("forced; {reason}")))),
        (Verdict::Refused(_), None) => None,
        (Verdict::Refused(reason), Some(_)) => Some(Err(format!("can't run {}: {reason}", problem.summary()))),
    });
    match (found, forced) {
        (Some(Ok((variant, reason))), _) => Ok(Choice { key, variant, reason, candidates }),
        (Some(Err(reason)), Some(forced)) => {
            let usable: Vec<&str> = candidates.iter().filter(|c| c.is_usable()).map(|c| c.variant).collect();
            let usable = if usable.is_empty() { "none".into() } else { usable.join(", ") };
            Err(Error::op(family, format!("the variant `{forced}` is forced, but {reason}; those that can: {usable}")))
        }
        (None, Some(forced)) => {
            let names: Vec<&str> = candidates.iter().map(|candidate| candidate.variant).collect();
            Err(Error::op(family, format!("there is no variant `{forced}`; there are {}", names.join(", "))))
        }
        _ => Err(Error::NoVariant {
            family,
            reasons: Candidate::refusals(&candidates),
            hint: "another adapter may (`tilewise info` lists them); the reference computes anything (`reference::evaluate`, \
                   `tilewise run --device cpu`)"
                .into(),
        }),
    }
}
