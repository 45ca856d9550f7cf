use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Statistics;
use crate::{
    Graph, Result,
    gpu::{Executable, Gpu},
};

/// What the host does: making a program of a graph, and recording the commands of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostCost {
    /// What of.
    pub name: String,
    /// Nodes of the graph.
    pub nodes: usize,
    /// Steps of the program.
    pub steps: usize,
    /// Dispatches of the program.
    pub dispatches: usize,
    /// Seconds of lowering: from the graph to the program. Its shaders are known already.
    pub lower: Statistics,
    /// Seconds of [`Executable::encode`]: checking the caller's buffers and recording all steps.
    pub record: Statistics,
    /// Seconds in which wgpu makes commands for the driver of what was recorded.
    pub finish: Statistics,
}

impl HostCost {
    /// Does each of these things for as long as `time`, and nothing on the device.
    ///
    /// # Errors
    /// As [`Gpu::lower`], [`Executable::buffer`] and [`Executable::encode`].
    pub fn measure(gpu: &Gpu, name: &str, graph: &Graph, executable: &mut Executable, time: Duration) -> Result<Self> {
        let program = gpu.lower(graph, &gpu.options())?;
        let lower = repeat(time, || {
            let start = Instant::now();
            gpu.lower(graph, &gpu.options())?;
            Ok([start.elapsed(), Duration::ZERO])
        })?;
        let names: Vec<String> =
            executable.inputs().chain(executable.outputs()).map(|(name, ..)| name.to_string()).collect();
        let buffers = names.iter().map(|name| executable.buffer(name)).collect::<Result<Vec<_>>>()?;
        let given: Vec<_> =
            names.iter().zip(&buffers).map(|(name, buffer)| (name.as_str(), buffer.slice(..))).collect();
        let recorded = repeat(time, || {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            let start = Instant::now();
            executable.encode(&mut encoder, &given)?;
            let record = start.elapsed();
            let commands = encoder.finish();
            let finish = start.elapsed() - record;
            drop(commands);
            Ok([record, finish])
        })?;
        Ok(HostCost {
            name: name.into(),
            nodes: graph.nodes().len(),
            steps: program.steps.len(),
            dispatches: program.steps.iter().map(|step| step.kernel.launches.len()).sum(),
            lower: of(&lower, 0),
            record: of(&recorded, 0),
            finish: of(&recorded, 1),
        })
    }

    /// Median seconds of recording one step, up to what the driver is given.
    pub fn seconds_a_step(&self) -> f64 {
        (self.record.median + self.finish.median) / self.steps.max(1) as f64
    }
}

/// Samples for as long as `time`, at least three; one more before them is not counted.
fn repeat(time: Duration, mut sample: impl FnMut() -> Result<[Duration; 2]>) -> Result<Vec<[f64; 2]>> {
    sample()?;
    let begun = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < 3 || begun.elapsed() < time {
        samples.push(sample()?.map(|time| time.as_secs_f64()));
    }
    Ok(samples)
}

fn of(samples: &[[f64; 2]], part: usize) -> Statistics {
    let samples: Vec<f64> = samples.iter().map(|sample| sample[part]).collect();
    Statistics::of(&samples).unwrap_or(Statistics::NEVER)
}
