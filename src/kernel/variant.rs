//! What the variants of all families have in common: one trait, one way to refuse, and one to choose.

use super::{Candidate, Kernel, Profile, Verdict};
use crate::{Error, Result};

/// A problem, checked, on a device.
pub(super) trait Setup {
    /// The kernel family.
    const FAMILY: &'static str;

    /// The device.
    fn profile(&self) -> &Profile;
}

/// One way to compute what a family computes: which shaders run, in which tile shape, and where that pays.
///
/// A variant is a file of the family's folder. The family's list of variants is the order of those of equal rank.
pub(super) trait Variant<S: Setup>: Sync {
    /// Unique in its family.
    fn name(&self) -> &'static str;

    /// Its place in the order for this problem on this device: less is better.
    fn rank(&self, setup: &S) -> u32;

    /// When it is the one to take.
    fn reason(&self, setup: &S) -> String;

    /// What it needs of the device; or what it can't do of the problem, or lacks on the device.
    fn needs(&self, setup: &S) -> Result<Needs, String>;

    /// Its dispatches, if what it needs is there.
    fn kernel(&self, setup: &S) -> Result<Kernel>;
}

/// What a variant needs of the device, at the most in one dispatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Invocations of a workgroup.
    pub(super) invocations: u64,
    /// Bytes of workgroup memory.
    pub(super) workgroup_bytes: u64,
    /// Bytes of its largest workspace buffer.
    pub(super) workspace: u64,
    /// Storage buffers.
    pub(super) buffers: u64,
    /// Rounds of all loops of an invocation together; see [`Profile::loop_rounds`].
    pub(super) rounds: u64,
}

impl Needs {
    /// What both need, one after the other.
    pub(super) fn and(self, other: Needs) -> Needs {
        Needs {
            invocations: self.invocations.max(other.invocations),
            workgroup_bytes: self.workgroup_bytes.max(other.workgroup_bytes),
            workspace: self.workspace.max(other.workspace),
            buffers: self.buffers.max(other.buffers),
            rounds: self.rounds.max(other.rounds),
        }
    }

    /// The first of them that the device doesn't have.
    pub(super) fn lacking(&self, profile: &Profile) -> Option<String> {
        let limits = &profile.limits;
        let invocations = u64::from(limits.workgroup_invocations.min(limits.workgroup_size_x));
        let rounds = profile.loop_rounds().unwrap_or(u64::MAX);
        let all = [
            (self.invocations, invocations, "invocations a workgroup"),
            (self.workgroup_bytes, limits.workgroup_bytes.into(), "bytes of workgroup memory"),
            (self.workspace, limits.binding_bytes.min(u32::MAX.into()), "bytes of workspace in one binding"),
            (self.buffers, limits.storage_buffers.into(), "storage buffers"),
        ];
        let lacking = all.into_iter().find(|(needed, limit, _)| needed > limit);
        match lacking {
            Some((needed, limit, what)) => Some(format!("needs {needed} {what}, the limit is {limit}")),
            None if self.rounds > rounds => Some(format!(
                "an invocation's loops would take {} rounds (a software adapter leaves them after {rounds})",
                self.rounds
            )),
            None => None,
        }
    }
}

/// What is said of a variant for a problem on a device.
fn verdict<S: Setup>(variant: &dyn Variant<S>, setup: &S) -> Verdict {
    judge(variant.needs(setup), setup.profile(), || variant.reason(setup))
}

fn judge(needs: Result<Needs, String>, profile: &Profile, reason: impl FnOnce() -> String) -> Verdict {
    match needs.map(|needs| needs.lacking(profile)) {
        Err(reason) | Ok(Some(reason)) => Verdict::Refused(reason),
        Ok(None) => Verdict::Usable(reason()),
    }
}

/// Every variant with a verdict, in order of preference.
pub(super) fn candidates<S: Setup>(variants: &[&dyn Variant<S>], setup: &S) -> Vec<Candidate> {
    let mut order = variants.to_vec();
    order.sort_by_key(|variant| variant.rank(setup));
    let candidate = |variant: &dyn Variant<S>| Candidate { variant: variant.name(), verdict: verdict(variant, setup) };
    order.into_iter().map(candidate).collect()
}

/// Every variant, refused for what the problem itself has against it.
pub(super) fn refused<S: Setup>(variants: &[&dyn Variant<S>], fault: &Error) -> Vec<Candidate> {
    variants.iter().map(|variant| Candidate::refused(variant.name(), fault.to_string())).collect()
}

/// The dispatches of the variant of this name.
pub(super) fn kernel<S: Setup>(variants: &[&dyn Variant<S>], name: &str, setup: &S) -> Result<Kernel> {
    let Some(&variant) = variants.iter().find(|variant| variant.name() == name) else {
        let known: Vec<&str> = variants.iter().map(|variant| variant.name()).collect();
        return Err(Error::op(S::FAMILY, format!("there is no variant `{name}`; there are {}", known.join(", "))));
    };
    usable(S::FAMILY, name, verdict(variant, setup))?;
    variant.kernel(setup)
}

/// A variant that was asked for, though it can't run.
pub(super) fn refusal(family: &'static str, variant: &str, reason: &str) -> Error {
    Error::NoVariant { family, reasons: vec![format!("{variant}: {reason}")], hint: String::new() }
}

fn usable(family: &'static str, name: &str, verdict: Verdict) -> Result<()> {
    match verdict {
        Verdict::Usable(_) => Ok(()),
        Verdict::Refused(reason) => Err(refusal(family, name, &reason)),
    }
}

/// The variant of a family that has no other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Only {
    /// The kernel family.
    pub(super) family: &'static str,
    /// What it does, in the place of a reason to take it.
    pub(super) reason: &'static str,
}

impl Only {
    /// Its name.
    pub(super) const NAME: &'static str = "plain";

    /// It, with a verdict.
    pub(super) fn candidates(self, needs: Result<Needs, String>, profile: &Profile) -> Vec<Candidate> {
        vec![Candidate { variant: Self::NAME, verdict: judge(needs, profile, || self.reason.into()) }]
    }

    /// An error unless it is the variant that is asked for, and can run.
    pub(super) fn check(self, variant: &str, needs: Result<Needs, String>, profile: &Profile) -> Result<()> {
        if variant != Self::NAME {
            let message = format!("there is no variant `{variant}`; there is `{}`", Self::NAME);
            return Err(Error::op(self.family, message));
        }
        usable(self.family, variant, judge(needs, profile, String::new))
    }
}
