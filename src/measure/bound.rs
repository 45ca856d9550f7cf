use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Ceilings, Statistics};
use crate::{
    kernel::{Arithmetic, Launch, Operand},
    lower::{Program, Role, Step},
};

/// What a time is limited by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Multiplications and additions.
    Multiply(Arithmetic),
    /// Exponentials.
    Exponential,
    /// The bandwidth past the caches.
    Memory,
    /// The bandwidth of the caches.
    Cache,
    /// The cost of a dispatch, whatever it does.
    Dispatch,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Multiply(Arithmetic::F32) => "f32",
            Limit::Multiply(Arithmetic::F16) => "f16",
            Limit::Multiply(Arithmetic::Cooperative) => "matrix",
            Limit::Exponential => "exp",
            Limit::Memory => "memory",
            Limit::Cache => "cache",
            Limit::Dispatch => "dispatch",
        })
    }
}

/// The least time that a device can take, as far as its ceilings say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// The time.
    pub seconds: f64,
    /// What most of it is for.
    pub limit: Limit,
}

/// What a time may be below its bound: ceilings are measured too.
const TOLERANCE: f64 = 0.05;

impl Bound {
    /// The part of a time that the limit accounts for, from 0 to 1: the fraction of the ceiling that was reached.
    pub fn fraction(&self, seconds: f64) -> f64 {
        self.seconds / seconds
    }

    /// Why a time can't be right: it is shorter than possible, by more than 5 % and its spread.
    pub fn fault(&self, time: &Statistics) -> Option<String> {
        let fraction = self.fraction(time.median);
        (fraction > 1.0 + TOLERANCE + time.spread()).then(|| {
            format!("{:.0} % of what {} allows: what was timed is not what was counted", 100.0 * fraction, self.limit)
        })
    }
}

impl Ceilings {
    /// How fast a program can be: the sum over its dispatches, each of which is limited by arithmetic, by exponentials, by
    /// bytes, or by being a dispatch, whatever takes longest; where exponentials are made of arithmetic, by both together.
    /// `past_cache` says whether inputs and outputs come from past the caches; temporaries and parameters may always be in
    /// them.
    ///
    /// `None` if a dispatch computes with what no ceiling was measured of, or if there is nothing to do.
    pub fn bound(&self, program: &Program, past_cache: bool) -> Option<Bound> {
        self.of_steps(program, &program.steps, past_cache)
    }

    /// [`Ceilings::bound`] of one step.
    pub fn bound_of_step(&self, program: &Program, step: &Step, past_cache: bool) -> Option<Bound> {
        self.of_steps(program, std::slice::from_ref(step), past_cache)
    }

    fn of_steps(&self, program: &Program, steps: &[Step], past_cache: bool) -> Option<Bound> {
        let mut parts: Vec<(Limit, f64)> = Vec::new();
        for step in steps {
            for launch in step.kernel.launches.iter().filter(|launch| !launch.grid.contains(&0)) {
                let (limit, seconds) = self.of_launch(program, step, launch, past_cache)?;
                match parts.iter_mut().find(|(other, _)| *other == limit) {
                    Some((_, sum)) => *sum += seconds,
                    None => parts.push((limit, seconds)),
                }
            }
        }
        let &(limit, _) = parts.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(Bound { seconds: parts.iter().map(|(_, seconds)| seconds).sum(), limit })
    }

    fn of_launch(&self, program: &Program, step: &Step, launch: &Launch, past_cache: bool) -> Option<(Limit, f64)> {
        // What is neither an input nor an output is not rotated. At most as much of the bytes can be of such buffers as they
        // are large.
        let mut kept = 0;
        for (i, binding) in launch.bindings.iter().enumerate() {
            // A buffer that is bound twice is there once.
            if launch.bindings[..i].iter().any(|other| other.operand == binding.operand) {
                continue;
            }
            let buffer = &program.buffers[step.buffer(binding.operand).0];
            let rotated = matches!(buffer.role, Role::Input(_) | Role::Output(_));
            if !rotated || matches!(binding.operand, Operand::Workspace(_)) {
                kept += buffer.bytes;
            }
        }
        let far = if past_cache { launch.bytes.saturating_sub(kept) } else { 0 };
        let arithmetic = Arithmetic::of(&launch.source.wgsl);
        let mut limits = vec![
            (Limit::Memory, far as f64 / self.memory),
            (Limit::Cache, launch.bytes as f64 / self.cache),
            (Limit::Dispatch, self.dispatch),
        ];
        let multiply = match launch.flops {
            0 => 0.0,
            flops => flops as f64 / self.rate(arithmetic)?,
        };
        // Records may be older than this ceiling.
        let exponential = self.exponentials.map_or(0.0, |e| launch.exponentials as f64 / e.rate);
        let (one, other) = ((Limit::Multiply(arithmetic), multiply), (Limit::Exponential, exponential));
        if self.exponentials.is_some_and(|e| e.multiplied) {
            let most = if multiply >= exponential { one.0 } else { other.0 };
            limits.push((most, multiply + exponential));
        } else {
            limits.extend([one, other]);
        }
        limits.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Operations a second of a kernel that may use this arithmetic. One that may use f16 may use f32 as well.
    fn rate(&self, arithmetic: Arithmetic) -> Option<f64> {
        let rates = self.multiply.range(..=arithmetic).map(|(_, &rate)| rate);
        self.multiply.contains_key(&arithmetic).then(|| rates.fold(0.0, f64::max))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        DType, Shape,
        kernel::{CeilingProblem, Problem, Profile},
        measure::Exponentials,
    };

    fn ceilings() -> Ceilings {
        Ceilings {
            memory: 1e9,
            cache: 4e9,
            cache_bytes: 1 << 20,
            cache_measured: true,
            bandwidth: Vec::new(),
            multiply: BTreeMap::from([(Arithmetic::F32, 1e10)]),
            exponentials: Some(Exponentials { rate: 1e8, multiplied: false }),
            dispatch: 1e-6,
            submit: 1e-5,
        }
    }

    fn program(problem: CeilingProblem, flops: u64) -> Program {
        let profile = Profile::portable();
        let variant = problem.candidates(&profile)[0].variant;
        let mut kernel = problem.kernel(variant, &profile).expect("runs");
        kernel.launches[0].flops = flops;
        let (input, output) = problem.elements(&kernel);
        let vector = |n: usize| (DType::F32, Shape::from([n]));
        Program::of_kernel(&kernel, &input.map(vector).into_iter().collect::<Vec<_>>(), &[vector(output)])
            .expect("fits")
    }

    #[test]
    fn the_longest_of_the_limits_is_the_bound() {
        let copy = CeilingProblem::Copy { bytes: CeilingProblem::whole(1 << 20) };
        let bound = |program: &Program, past_cache| ceilings().bound(program, past_cache).expect("known");
        let program_of = |flops| program(copy, flops);
        let seconds = 2.0 * f64::from(1 << 20) / 1e9;
        assert_eq!(bound(&program_of(0), true), Bound { seconds, limit: Limit::Memory });
        assert_eq!(bound(&program_of(0), false), Bound { seconds: seconds / 4.0, limit: Limit::Cache });
        let multiply = Limit::Multiply(Arithmetic::F32);
        assert_eq!(bound(&program_of(1 << 30), true), Bound { seconds: f64::from(1 << 30) / 1e10, limit: multiply });
        let dispatch = program(CeilingProblem::Dispatch, 0);
        assert_eq!(bound(&dispatch, true), Bound { seconds: 1e-6, limit: Limit::Dispatch });
    }

    #[test]
    fn exponentials_have_units_of_their_own_or_take_those_of_the_rest() {
        let mut program = program(CeilingProblem::Dispatch, 1 << 30);
        let multiply = f64::from(1 << 30) / 1e10;
        let mut bound = |exponentials: u64, multiplied| {
            program.steps[0].kernel.launches[0].exponentials = exponentials;
            let exponentials = Some(Exponentials { rate: 1e8, multiplied });
            Ceilings { exponentials, ..ceilings() }.bound(&program, true).expect("known")
        };
        let arithmetic = Limit::Multiply(Arithmetic::F32);
        assert_eq!(bound(5_000_000, false), Bound { seconds: multiply, limit: arithmetic });
        assert_eq!(bound(5_000_000, true), Bound { seconds: multiply + 0.05, limit: arithmetic });
        assert_eq!(bound(20_000_000, false), Bound { seconds: 0.2, limit: Limit::Exponential });
        assert_eq!(bound(20_000_000, true), Bound { seconds: multiply + 0.2, limit: Limit::Exponential });
    }

    #[test]
    fn temporaries_may_be_in_the_caches() {
        let copy = CeilingProblem::Copy { bytes: CeilingProblem::whole(1 << 20) };
        let mut program = program(copy, 0);
        let bytes = program.buffers[1].bytes;
        program.buffers[1].role = Role::Temporary(0);
        program.allocations.push(bytes);
        let bound = ceilings().bound(&program, true).expect("known");
        assert_eq!(bound, Bound { seconds: f64::from(1 << 20) / 1e9, limit: Limit::Memory });
    }

    #[test]
    fn what_was_not_measured_has_no_bound_and_what_is_too_fast_is_a_fault() {
        let mut unknown = ceilings();
        unknown.multiply.clear();
        assert_eq!(unknown.bound(&program(CeilingProblem::Dispatch, 1), true), None);
        let bound = Bound { seconds: 1.0, limit: Limit::Memory };
        let time = |median: f64| Statistics { median, low: median, high: median, best: median, samples: 3 };
        assert_eq!(bound.fault(&time(1.0)), None);
        assert_eq!(bound.fault(&time(0.97)), None);
        assert!(bound.fault(&time(0.9)).is_some_and(|fault| fault.contains("111 % of what memory allows")));
    }
}
