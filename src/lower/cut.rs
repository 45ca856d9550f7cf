//! Work in parts that no watchdog ends: long dispatches are cut, and a run becomes several submissions.

use std::{ops::Range, time::Duration};

use super::{Note, Options, Program, Step};
use crate::kernel::{Launch, Profile, Rates};

const RULE: &str = "watchdog";

/// Parts of what the watchdog allows: an estimate may be wrong, and others use the device too.
const DISPATCH_PART: u32 = 4;
const SUBMISSION_PART: u32 = 2;

impl Options {
    /// Seconds that one dispatch may be taken to need on this device; infinite if nothing ends it.
    pub(super) fn dispatch_seconds(&self, profile: &Profile) -> f64 {
        seconds(self.longest_dispatch, profile, DISPATCH_PART)
    }

    /// Seconds that one submission may be taken to need on this device; infinite if nothing ends it.
    pub(crate) fn submission_seconds(&self, profile: &Profile) -> f64 {
        seconds(self.longest_submission, profile, SUBMISSION_PART)
    }
}

fn seconds(given: Option<Duration>, profile: &Profile, part: u32) -> f64 {
    let longest = given.or_else(|| profile.watchdog().map(|watchdog| watchdog / part));
    longest.map_or(f64::INFINITY, |longest| longest.as_secs_f64())
}

/// Cuts every dispatch that may take too long, and says so, or why not.
pub(super) fn cut(steps: &mut [Step], profile: &Profile, options: &Options, notes: &mut Vec<Note>) {
    let allowed = options.dispatch_seconds(profile);
    let rates = &profile.rates;
    let whole = |launch: &Launch| launch.seconds(rates) <= allowed;
    for step in steps.iter_mut().filter(|step| !step.kernel.launches.iter().all(whole)) {
        let value = step.covers.last().cloned().unwrap_or_default();
        let mut launches = Vec::new();
        for launch in &step.kernel.launches {
            if whole(launch) {
                launches.push(launch.clone());
                continue;
            }
            let needed = launch.seconds(rates);
            // At least one workgroup, however little is allowed.
            let pieces = launch.cut((launch.workgroups() as f64 * allowed / needed) as u64);
            let most = pieces.iter().map(|piece| piece.seconds(rates)).fold(0.0, f64::max);
            let why = format!(
                "`{}` would take about {}, of {} that one dispatch may take ({})",
                launch.label,
                time(needed),
                time(allowed),
                said(rates),
            );
            let (applied, reason) = match launch.uncut() {
                Some(reason) => (false, format!("{why}; it stays whole: {reason}")),
                None if most > allowed * 1.01 => {
                    (true, format!("{why}; of its {} pieces some still take about {}", pieces.len(), time(most)))
                }
                None => (true, format!("{why}; cut into {} dispatches", pieces.len())),
            };
            notes.push(Note { rule: RULE, value: value.clone(), applied, reason });
            launches.extend(pieces);
        }
        step.kernel.launches = launches;
    }
}

/// Dispatches by the submissions that they belong to, none of which takes too long unless a single dispatch does.
pub(super) fn submissions(steps: &[Step], profile: &Profile, options: &Options) -> Vec<Range<usize>> {
    let times = steps.iter().flat_map(|step| &step.kernel.launches).map(|launch| launch.seconds(&profile.rates));
    parts(times, options.submission_seconds(profile))
}

/// Ranges of things that come one after the other: as many in each as take no more than `most` together, but at least one.
pub(crate) fn parts(times: impl Iterator<Item = f64>, most: f64) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut spent = 0.0;
    for (at, time) in times.enumerate() {
        match parts.last_mut() {
            Some(part) if spent + time <= most => part.end = at + 1,
            _ => {
                parts.push(at..at + 1);
                spent = 0.0;
            }
        }
        spent += time;
    }
    parts
}

impl Program {
    /// Dispatches of all steps, by the submissions that they belong to: [`Program::submissions`], or one for all.
    pub(crate) fn in_submissions(&self) -> Vec<Range<usize>> {
        if self.submissions.is_empty() {
            std::iter::once(0..self.dispatches()).collect()
        } else {
            self.submissions.clone()
        }
    }

    /// Dispatches of all steps.
    pub fn dispatches(&self) -> usize {
        self.steps.iter().map(|step| step.kernel.launches.len()).sum()
    }
}

/// `at 500 GFLOP/s and 40 GB/s, assumed`.
fn said(rates: &Rates) -> String {
    let how = if rates.measured { "measured" } else { "assumed" };
    let number = |x: f64| format!("{x:.3}").trim_end_matches('0').trim_end_matches('.').to_string();
    format!("at {} GFLOP/s and {} GB/s, {how}", number(rates.flops / 1e9), number(rates.bytes / 1e9))
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.3} µs", s * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_full_and_none_is_empty() {
        let parts = |times: &[f64], most: f64| parts(times.iter().copied(), most);
        assert!(parts(&[], 1.0).is_empty());
        assert_eq!(parts(&[1.0, 1.0, 1.0, 1.0, 1.0], 2.0), [0..2, 2..4, 4..5]);
        assert_eq!(parts(&[5.0, 0.0, 1.0, 5.0], 2.0), [0..1, 1..3, 3..4]);
        let whole = parts(&[5.0, 1.0], f64::INFINITY);
        assert!(whole.len() == 1 && whole[0] == (0..2));
        assert_eq!(parts(&[5.0, 1.0], 0.0), [0..1, 1..2]);
    }

    #[test]
    fn gpus_have_bounds_software_has_none_and_the_caller_decides() {
        use crate::kernel::AdapterKind;
        let gpu = Profile::portable();
        let software = Profile { kind: AdapterKind::Cpu, ..gpu.clone() };
        let options = Options::default();
        assert_eq!((options.dispatch_seconds(&gpu), options.submission_seconds(&gpu)), (0.5, 1.0));
        assert_eq!(options.dispatch_seconds(&software), f64::INFINITY);
        let options = Options { longest_dispatch: Some(Duration::from_millis(250)), ..options };
        assert_eq!((options.dispatch_seconds(&gpu), options.dispatch_seconds(&software)), (0.25, 0.25));
    }
}
