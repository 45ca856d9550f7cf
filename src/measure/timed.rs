use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Ceilings, Effort, Statistics};
use crate::{
    Result, Tensor,
    gpu::{Executable, Gpu, Timing},
    lower::Program,
};

/// How a program is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// How long one sample should take, so that the clock's grain and the cost of a submission don't matter.
    pub sample: Duration,
    /// Inputs and outputs rotate over this many bytes in total, so that none is still in a cache when it comes round.
    pub past_cache: u64,
}

/// The least bytes that are past all caches: a processor's last one may be shared with other machines, which leave it more or
/// less of hundreds of MiB, and no drop of bandwidth tells.
const SHARED_CACHE: u64 = 256 << 20;
/// Copies of inputs and outputs at the most. Where even these fit into the caches, the data is in the caches in any real
/// program too, and is compared with what caches give.
const MOST_ROTATIONS: u64 = 128;
/// Runs of one sample at the most.
const MOST_RUNS: f64 = 10_000.0;
/// A part of the wall time by which the device's clock may be ahead of the host's.
const CLOCKS_DIFFER: f64 = 1.01;

impl Protocol {
    /// Twice what the caches were found to hold, but no less than 256 MiB, and samples of 50 ms.
    pub fn new(ceilings: &Ceilings, effort: Effort) -> Self {
        match effort {
            Effort::Quick => Protocol { sample: Duration::ZERO, past_cache: 0 },
            Effort::Full => {
                Protocol { sample: Duration::from_millis(50), past_cache: SHARED_CACHE.max(2 * ceilings.cache_bytes) }
            }
        }
    }

    /// How many sets of inputs and outputs of this size to take turns on, and whether all of them lie past the caches.
    pub fn rotations(&self, set_bytes: u64) -> (usize, bool) {
        let set = set_bytes.max(1);
        let rotations = self.past_cache.div_ceil(set).clamp(1, MOST_ROTATIONS);
        (rotations as usize, self.past_cache > 0 && rotations * set >= self.past_cache)
    }
}

/// A program that is being timed.
#[derive(Debug)]
pub struct Timed {
    executable: Executable,
    runs: u32,
    rotations: usize,
    past_cache: bool,
    first_call: Duration,
    gpu: Vec<f64>,
    wall: Vec<f64>,
    /// Why the device's clock is not believed.
    distrust: Option<String>,
}

/// What came of timing a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Seconds of a run by the device's clock; `None` if there is none, or if it is not to be trusted.
    pub gpu: Option<Statistics>,
    /// Seconds of a run by the host's clock, submission and waiting included.
    pub wall: Statistics,
    /// Runs in one submission: one sample.
    pub runs: u32,
    /// Sets of inputs and outputs that the runs take turns on.
    pub rotations: usize,
    /// Bytes of all these sets.
    pub rotated_bytes: u64,
    /// Whether these sets are too large for the caches.
    pub past_cache: bool,
    /// Why the device's clock was not trusted, if it wasn't.
    pub distrust: Option<String>,
}

impl Times {
    /// Seconds of a run: by the device's clock if it is there and to be trusted.
    pub fn seconds(&self) -> &Statistics {
        self.gpu.as_ref().unwrap_or(&self.wall)
    }
}

impl Timed {
    /// Loads the program with its inputs and parameters, runs it to warm up, and finds how many runs fill a sample.
    ///
    /// # Errors
    /// As [`Gpu::load`], [`Executable::set_inputs`] and [`Executable::bench`].
    pub fn new(gpu: &Gpu, program: &Program, values: &[(String, Tensor)], protocol: &Protocol) -> Result<Self> {
        let is_parameter = |name: &str| program.buffers.iter().any(|buffer| buffer.role.given() == Some(name));
        let named = values.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let (parameters, inputs): (Vec<_>, Vec<_>) = named.partition(|(name, _)| is_parameter(name));
        let start = Instant::now();
        let mut executable = gpu.load(program, &parameters[..])?;
        executable.set_inputs(&inputs)?;
        let loading = start.elapsed();
        let mut timed = Timed::of(executable, protocol)?;
        timed.first_call += loading;
        Ok(timed)
    }

    /// Times a program that is loaded and has its inputs.
    ///
    /// # Errors
    /// As [`Executable::bench`].
    pub fn of(mut executable: Executable, protocol: &Protocol) -> Result<Self> {
        let (rotations, past_cache) = protocol.rotations(executable.set_bytes());
        // The first run pays for what the driver puts off, and then some runs show how many make a sample.
        let start = Instant::now();
        executable.bench(1, 1)?;
        let first_call = start.elapsed();
        let mut runs = 1;
        loop {
            let wall = executable.bench(runs, rotations)?.wall;
            if wall * 4 >= protocol.sample || f64::from(runs) >= MOST_RUNS {
                let fill = f64::from(runs) * protocol.sample.as_secs_f64() / wall.as_secs_f64().max(1e-9);
                runs = fill.clamp(1.0, MOST_RUNS).round() as u32;
                break;
            }
            runs *= 4;
        }
        let (gpu, wall) = (Vec::new(), Vec::new());
        Ok(Timed { executable, runs, rotations, past_cache, first_call, gpu, wall, distrust: None })
    }

    /// Adds one sample.
    ///
    /// # Errors
    /// As [`Executable::bench`].
    pub fn sample(&mut self) -> Result<()> {
        let timing = self.executable.bench(self.runs, self.rotations)?;
        let runs = f64::from(self.runs);
        if let Some(reason) = distrust(&timing) {
            self.distrust.get_or_insert(reason);
        }
        self.wall.push(timing.wall.as_secs_f64() / runs);
        self.gpu.extend(timing.gpu.map(|time| time.as_secs_f64() / runs));
        Ok(())
    }

    /// The program that is timed, to look at in other ways.
    pub fn executable(&mut self) -> &mut Executable {
        &mut self.executable
    }

    /// Loading and the first run, which compile the shaders.
    pub fn first_call(&self) -> Duration {
        self.first_call
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.wall.len()
    }

    /// What the samples come to. A program that was not sampled never came to an end.
    pub fn times(&self) -> Times {
        Times {
            gpu: Statistics::of(&self.gpu).filter(|_| self.distrust.is_none()),
            wall: Statistics::of(&self.wall).unwrap_or(Statistics::NEVER),
            runs: self.runs,
            rotations: self.rotations,
            rotated_bytes: self.rotations as u64 * self.executable.set_bytes(),
            past_cache: self.past_cache,
            distrust: self.distrust.clone(),
        }
    }
}

/// Why a time by the device's clock can't be right.
fn distrust(timing: &Timing) -> Option<String> {
    let (gpu, wall) = (timing.gpu?, timing.wall);
    if gpu.is_zero() {
        return Some(format!("the device's clock stood still for {wall:?}"));
    }
    (gpu.as_secs_f64() > wall.as_secs_f64() * CLOCKS_DIFFER)
        .then(|| format!("the device's clock counted {gpu:?} within {wall:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_or_runs_ahead_is_not_trusted() {
        let timing = |gpu: Option<u64>, wall: u64| Timing {
            iterations: 1,
            gpu: gpu.map(Duration::from_micros),
            wall: Duration::from_micros(wall),
        };
        assert_eq!(distrust(&timing(None, 10)), None);
        assert_eq!(distrust(&timing(Some(9), 10)), None);
        assert!(distrust(&timing(Some(0), 10)).is_some_and(|reason| reason.contains("stood still")));
        assert!(distrust(&timing(Some(11), 10)).is_some_and(|reason| reason.contains("11µs within 10µs")));
    }
}
