use serde::Serialize;

use super::{Bound, Ceilings, Statistics};
use crate::{
    Graph, Result,
    gpu::{Executable, Gpu},
    lower::{Options, Program, Step},
};

/// Where the time of a program goes, step by step: medians of several runs, each timed as a whole and in its steps.
///
/// Steps are timed by the device's clock. Where it has none (`TIMESTAMP_QUERY`), only the run as a whole is.
#[derive(Clone, Debug, Serialize)]
pub struct Breakdown {
    /// The steps in order.
    pub steps: Vec<StepTimes>,
    /// Seconds from the begin of the first step to the end of the last, by the device's clock.
    pub gpu: Option<Statistics>,
    /// Seconds between steps, all together: barriers, and waiting for the next command.
    pub gaps: Option<Statistics>,
    /// Seconds from submission to completion, by the host's clock.
    pub wall: Statistics,
    /// What fusion saves, for a program whose graph is known.
    pub fusion: Option<Saved>,
}

/// The time of one step.
#[derive(Clone, Debug, Serialize)]
pub struct StepTimes {
    /// Family, variant and problem.
    pub label: String,
    /// Dispatches.
    pub dispatches: usize,
    /// Floating-point operations that the step's formula needs.
    pub flops: u64,
    /// Bytes that must be read and written at the least.
    pub bytes: u64,
    /// Median seconds from the begin of the first step to that of this one.
    pub start: Option<f64>,
    /// Seconds of the step.
    pub seconds: Option<Statistics>,
    /// The least time that the device's ceilings allow, with the data in the caches, as it is between steps.
    pub bound: Option<Bound>,
}

/// A program with and without fusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// Dispatches with fusion, and with one kernel an operation.
    pub dispatches: [usize; 2],
    /// Bytes moved at the least, with fusion and without.
    pub bytes: [u64; 2],
    /// Bytes of all intermediate values, with fusion and without.
    pub intermediates: [u64; 2],
}

impl Breakdown {
    /// Runs a program that has its inputs `runs` times (at least once), after two to warm up.
    ///
    /// # Errors
    /// As [`Executable::profile`].
    pub fn measure(
        executable: &mut Executable,
        program: &Program,
        ceilings: Option<&Ceilings>,
        runs: usize,
    ) -> Result<Self> {
        for _ in 0..2 {
            executable.profile()?;
        }
        let profiles = (0..runs.max(1)).map(|_| executable.profile()).collect::<Result<Vec<_>>>()?;
        // Of a time that each run has, or none.
        let over_runs = |of: &dyn Fn(&crate::gpu::RunProfile) -> Option<f64>| {
            Statistics::of(&profiles.iter().map(of).collect::<Option<Vec<f64>>>()?)
        };
        let steps = program.steps.iter().enumerate().map(|(i, step)| StepTimes {
            label: format!("{} {}: {}", step.family, step.variant, step.summary),
            dispatches: step.kernel.launches.len(),
            flops: step.flops(),
            bytes: step.bytes(),
            start: over_runs(&|run| run.steps[i].start.map(|time| time.as_secs_f64())).map(|start| start.median),
            seconds: over_runs(&|run| run.steps[i].gpu.map(|time| time.as_secs_f64())),
            bound: ceilings.and_then(|ceilings| ceilings.bound_of_step(program, step, false)),
        });
        let busy = |run: &crate::gpu::RunProfile| {
            run.steps.iter().map(|step| step.gpu.map(|time| time.as_secs_f64())).sum::<Option<f64>>()
        };
        let wall: Vec<f64> = profiles.iter().map(|run| run.wall.as_secs_f64()).collect();
        Ok(Breakdown {
            steps: steps.collect(),
            gpu: over_runs(&|run| run.gpu.map(|time| time.as_secs_f64())),
            gaps: over_runs(&|run| Some((run.gpu?.as_secs_f64() - busy(run)?).max(0.0))),
            wall: Statistics::of(&wall).unwrap_or(Statistics::NEVER),
            fusion: None,
        })
    }

    /// Seconds of all steps together, by their medians.
    pub fn busy(&self) -> Option<f64> {
        self.steps.iter().map(|step| step.seconds.map(|seconds| seconds.median)).sum()
    }
}

impl Saved {
    /// The cost of a graph on this device with each operation a kernel of its own, beside that of the program that it
    /// became.
    ///
    /// # Errors
    /// As [`Gpu::lower`].
    pub fn of(gpu: &Gpu, graph: &Graph, program: &Program) -> Result<Self> {
        let unfused = gpu.lower(graph, &Options::unfused())?;
        let dispatches = |p: &Program| p.steps.iter().map(|step| step.kernel.launches.len()).sum();
        let bytes = |p: &Program| p.steps.iter().map(Step::bytes).sum();
        Ok(Saved {
            dispatches: [dispatches(program), dispatches(&unfused)],
            bytes: [bytes(program), bytes(&unfused)],
            intermediates: [program.naive_bytes(), program.unfused_bytes],
        })
    }
}
