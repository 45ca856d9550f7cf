//! Where the time of a program goes. The clock of the host is used, so this needs the feature `native`.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    Executable, Gpu,
    device::Inner,
    executable::{Bound, BoundSet},
    scope::scoped,
    transfer::Wait,
};
use crate::{Result, Tensor, lower::parts};

/// The times of one run's steps; see [`Executable::profile`].
#[derive(Clone, Debug)]
pub struct RunProfile {
    /// The steps in order.
    pub steps: Vec<StepTime>,
    /// From the start of the first step to the end of the last, by the device's clock; `None` if it has none. It
    /// exceeds the sum of the steps by the gaps between them.
    pub gpu: Option<Duration>,
    /// From submission to completion, by the host's clock.
    pub wall: Duration,
}

/// The time of one step.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// Family, variant and problem.
    pub label: String,
    /// Floating-point operations that the step's formula needs.
    pub flops: u64,
    /// Bytes that must be read and written at the least.
    pub bytes: u64,
    /// Its start, counted from that of the first step, by the device's clock; `None` if it has none.
    pub start: Option<Duration>,
    /// Its time by the device's clock; `None` if it has none.
    pub gpu: Option<Duration>,
}

/// The time of many runs one after the other; see [`Executable::bench`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The number of runs.
    pub iterations: u32,
    /// All runs together, by the device's clock; `None` if it has none.
    pub gpu: Option<Duration>,
    /// All runs together, from submission to completion, by the host's clock.
    pub wall: Duration,
}

impl Timing {
    /// Seconds of one run, by the device's clock if it has one, else by the host's.
    pub fn seconds(&self) -> f64 {
        self.gpu.unwrap_or(self.wall).as_secs_f64() / f64::from(self.iterations.max(1))
    }
}

impl Executable {
    /// Fills the executable's own inputs, as [`run`](Executable::run) does, for [`profile`](Executable::profile) and
    /// [`bench`](Executable::bench).
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// program.set_inputs(&[("x", &Tensor::new([2], vec![-1.0f32, 1.0])?)])?;
    /// assert_eq!(program.bench(10, 1)?.iterations, 10);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`](crate::Error::Binding) as [`run`](Executable::run); [errors of the
    /// device](crate::gpu#errors-of-the-device).
    pub fn set_inputs(&mut self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        self.gpu.inner.health.check()?;
        let inputs = self.check_inputs(inputs)?;
        self.copies_differ = true;
        pollster::block_on(async {
            self.bind_own().await?;
            for (tensor, (info, bound)) in inputs.iter().zip(self.own_buffers().inputs()) {
                self.gpu.inner.write(&bound.buffer, tensor.as_bytes(), &info.name).await?;
            }
            Ok(())
        })
    }

    /// Runs the program once on the inputs of the last [`run`](Executable::run) or
    /// [`set_inputs`](Executable::set_inputs) and times each step.
    ///
    /// With `TIMESTAMP_QUERY_INSIDE_PASSES` the steps share one pass as in any run; with `TIMESTAMP_QUERY` alone each
    /// has a pass of its own, which costs a little; without either, only the run as a whole is timed.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 3])?;
    /// let y = g.softmax(x, -1)?;
    /// g.output("y", y)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// program.set_inputs(&[("x", &Tensor::zeros(DType::F32, [2, 3])?)])?;
    /// assert!(program.profile()?.steps[0].label.starts_with("softmax "));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Errors of the device](crate::gpu#errors-of-the-device).
    pub fn profile(&mut self) -> Result<RunProfile> {
        self.gpu.inner.health.check()?;
        pollster::block_on(self.profile_async()).map_err(|error| self.blame(error))
    }

    async fn profile_async(&mut self) -> Result<RunProfile> {
        let set = self.bind_own().await?;
        let gpu = &*self.gpu.inner;
        let inside = gpu.features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
        // A timestamp before and one after each step.
        let count = 2 * self.steps.len();
        let clock = Clock::new(gpu, count).await?;
        let groups = &self.bound[set].groups;
        let started = Instant::now();
        let submissions = scoped(&gpu.device, &gpu.health, "a timed run", || {
            let mut submissions = Vec::with_capacity(self.submissions.len());
            for (at, range) in self.submissions.iter().enumerate() {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                match &clock {
                    None => self.record_pass(&mut encoder, groups, range.clone()),
                    Some(clock) if inside => {
                        let mut pass = encoder.begin_compute_pass(&Default::default());
                        for Part { step, dispatches, begins, ends } in self.steps_in(range) {
                            if begins {
                                clock.stamp(&mut pass, 2 * step);
                            }
                            self.record(&mut pass, groups, dispatches);
                            if ends {
                                clock.stamp(&mut pass, 2 * step + 1);
                            }
                        }
                    }
                    Some(clock) => {
                        for Part { step, dispatches, begins, ends } in self.steps_in(range) {
                            let timestamp_writes = clock.around(2 * step, begins, ends);
                            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                                timestamp_writes,
                                ..Default::default()
                            });
                            self.record(&mut pass, groups, dispatches);
                        }
                    }
                }
                if let Some(clock) = clock.as_ref().filter(|_| at + 1 == self.submissions.len()) {
                    clock.resolve(&mut encoder);
                }
                submissions.push(gpu.queue.submit([encoder.finish()]));
            }
            submissions
        })
        .await?;
        gpu.poll_all(&submissions, "a timed run")?;
        let wall = started.elapsed();
        let times = match &clock {
            Some(clock) => Some(clock.read(&self.gpu).await?),
            None => None,
        };
        gpu.health.check()?;
        let between = |from, to| times.as_ref().and_then(|times| times.between(from, to));
        let steps = self
            .steps
            .iter()
            .enumerate()
            .map(|(i, step)| StepTime {
                label: step.label.clone(),
                flops: step.flops,
                bytes: step.bytes,
                start: between(0, 2 * i),
                gpu: between(2 * i, 2 * i + 1),
            })
            .collect();
        Ok(RunProfile { steps, gpu: between(0, count.saturating_sub(1)), wall })
    }

    /// The steps that have dispatches in a range, each with those.
    fn steps_in(&self, range: &Range<usize>) -> impl Iterator<Item = Part> {
        self.steps.iter().enumerate().filter_map(move |(step, info)| {
            let Range { start, end } = info.dispatches;
            let dispatches = start.max(range.start)..end.min(range.end);
            let part = Part { step, begins: start == dispatches.start, ends: end == dispatches.end, dispatches };
            // A step without dispatches belongs to the range that it stands in.
            let within =
                start == end && (range.contains(&start) || (start == range.end && end == self.dispatches.len()));
            (within || part.dispatches.start < part.dispatches.end).then_some(part)
        })
    }

    /// Runs the program `iterations` times and times them together: in one submission, if they can't take longer than one may
    /// ([`Bounds::longest_submission`](super::Bounds::longest_submission)).
    ///
    /// The runs take turns on `rotations` copies of the inputs and outputs (at least one), so that small tensors can
    /// fill more than the device's caches. A call goes on with the copy after the last one's. The copies have the
    /// inputs of the last [`run`](Executable::run) or [`set_inputs`](Executable::set_inputs). Parameters and
    /// temporaries are not copied.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 3])?;
    /// let y = g.softmax(x, -1)?;
    /// g.output("y", y)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// program.set_inputs(&[("x", &Tensor::zeros(DType::F32, [2, 3])?)])?;
    /// assert!(program.bench(100, 2)?.seconds() > 0.0);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Errors of the device](crate::gpu#errors-of-the-device).
    pub fn bench(&mut self, iterations: u32, rotations: usize) -> Result<Timing> {
        self.gpu.inner.health.check()?;
        pollster::block_on(self.bench_async(iterations, rotations)).map_err(|error| self.blame(error))
    }

    async fn bench_async(&mut self, iterations: u32, rotations: usize) -> Result<Timing> {
        let set = self.bind_own().await?;
        self.copy_own(rotations.max(1) - 1).await?;
        let gpu = &*self.gpu.inner;
        let clock = Clock::new(gpu, 2).await?;
        let sets: Vec<_> = std::iter::once(&self.bound[set]).chain(&self.copies).take(rotations.max(1)).collect();
        let started = Instant::now();
        let longest = self.gpu.options().submission_seconds(&gpu.profile);
        let runs = turns(self.turn, sets.len(), iterations);
        let all = runs.flat_map(|turn| self.submissions.iter().map(move |range| (turn, range)));
        let seconds = |range: &Range<usize>| self.dispatches[range.clone()].iter().map(|d| d.seconds).sum::<f64>();
        let each: Vec<f64> = self.submissions.iter().map(seconds).collect();
        let parts = parts(each.iter().copied().cycle().take(each.len() * iterations as usize), longest);
        let submissions = scoped(&gpu.device, &gpu.health, "timed runs", || {
            let mut all = all;
            let mut submissions = Vec::with_capacity(parts.len());
            for part in &parts {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                let is_last = part.end == each.len() * iterations as usize;
                let around = clock.as_ref().and_then(|clock| clock.around(0, part.start == 0, is_last));
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    timestamp_writes: around,
                    ..Default::default()
                });
                for (turn, range) in all.by_ref().take(part.len()) {
                    self.record(&mut pass, &sets[turn].groups, range.clone());
                }
                drop(pass);
                if let Some(clock) = clock.as_ref().filter(|_| is_last) {
                    clock.resolve(&mut encoder);
                }
                submissions.push(gpu.queue.submit([encoder.finish()]));
            }
            submissions
        })
        .await?;
        gpu.poll_all(&submissions, "timed runs")?;
        let wall = started.elapsed();
        let gpu_time = match &clock {
            Some(clock) => clock.read(&self.gpu).await?.between(0, 1),
            None => None,
        };
        gpu.health.check()?;
        self.turn = self.turn.wrapping_add(iterations as usize);
        Ok(Timing { iterations, gpu: gpu_time, wall })
    }

    /// Bytes of one set of inputs and outputs: what each rotation of [`bench`](Executable::bench) adds.
    pub fn set_bytes(&self) -> u64 {
        self.io.iter().map(|&i| self.buffers[i].bytes).sum()
    }

    /// Makes further copies of the executable's own inputs and outputs where they are lacking or have other inputs, and
    /// waits, so that nothing of it is timed.
    async fn copy_own(&mut self, count: usize) -> Result<()> {
        let same = !self.copies_differ || self.copies.is_empty();
        if self.copies.len() >= count && same {
            return Ok(());
        }
        let gpu = self.gpu.clone();
        let gpu = &*gpu.inner;
        while self.copies.len() < count {
            let mut key = Vec::with_capacity(self.io.len());
            self.leases.copies.push(gpu.ledger.take("a copy of a program's inputs and outputs", self.set_bytes())?);
            for (info, _) in self.own_buffers().all() {
                key.push(Bound::whole(gpu.create_buffer(&info.name, info.bytes).await?));
            }
            let groups = scoped(&gpu.device, &gpu.health, "bind groups", || self.groups(&key)).await?;
            self.copies.push(BoundSet { key, groups });
        }
        let submission = scoped(&gpu.device, &gpu.health, "a copy", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for copy in &self.copies {
                for ((info, from), to) in self.own_buffers().all().zip(&copy.key) {
                    encoder.copy_buffer_to_buffer(&from.buffer, 0, &to.buffer, 0, info.bytes);
                }
            }
            gpu.queue.submit([encoder.finish()])
        })
        .await?;
        gpu.poll_all(&[submission], "a copy of inputs")?;
        self.copies_differ = false;
        Ok(())
    }
}

/// Dispatches of a step in one submission.
struct Part {
    step: usize,
    dispatches: Range<usize>,
    /// Whether the step's first dispatch is among them.
    begins: bool,
    /// Whether the last is.
    ends: bool,
}

/// Timestamps of the device.
struct Clock {
    sets: Vec<wgpu::QuerySet>,
    resolved: wgpu::Buffer,
    count: usize,
}

const SET_SIZE: usize = wgpu::QUERY_SET_MAX_QUERIES as usize;

impl Clock {
    /// Room for `count` timestamps; `None` if the device has no clock.
    async fn new(gpu: &Inner, count: usize) -> Result<Option<Self>> {
        if !gpu.features.contains(wgpu::Features::TIMESTAMP_QUERY) || count == 0 {
            return Ok(None);
        }
        let sets = scoped(&gpu.device, &gpu.health, "timestamps", || {
            (0..count)
                .step_by(SET_SIZE)
                .map(|first| {
                    gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                        label: None,
                        ty: wgpu::QueryType::Timestamp,
                        count: (count - first).min(SET_SIZE) as u32,
                    })
                })
                .collect()
        })
        .await?;
        let resolved = gpu
            .create(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: count as u64 * 8,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            })
            .await?;
        Ok(Some(Clock { sets, resolved, count }))
    }

    fn stamp(&self, pass: &mut wgpu::ComputePass<'_>, at: usize) {
        pass.write_timestamp(&self.sets[at / SET_SIZE], (at % SET_SIZE) as u32);
    }

    /// Timestamp `at` at the start of a pass, and `at + 1` at its end, as far as they are wanted; `at` is even.
    fn around(&self, at: usize, begins: bool, ends: bool) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let index = (at % SET_SIZE) as u32;
        (begins || ends).then(|| wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[at / SET_SIZE],
            beginning_of_pass_write_index: begins.then_some(index),
            end_of_pass_write_index: ends.then_some(index + 1),
        })
    }

    fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        for (i, set) in self.sets.iter().enumerate() {
            encoder.resolve_query_set(set, 0..set.count(), &self.resolved, (i * SET_SIZE * 8) as u64);
        }
    }

    /// All timestamps, once the device is done.
    async fn read(&self, gpu: &Gpu) -> Result<Ticks> {
        let content = gpu.read(&[(&self.resolved, 0, self.count as u64 * 8)], Wait::Block).await?;
        let words = content.first().map(Vec::as_slice).unwrap_or_default().chunks_exact(8);
        let ticks = words.map(bytemuck::pod_read_unaligned).collect();
        Ok(Ticks { ticks, nanoseconds: gpu.inner.queue.get_timestamp_period().into() })
    }
}

/// Timestamps that were read back.
struct Ticks {
    ticks: Vec<u64>,
    nanoseconds: f64,
}

impl Ticks {
    /// The time between two timestamps; nothing if the device's clock went back.
    fn between(&self, from: usize, to: usize) -> Option<Duration> {
        let ticks = self.ticks.get(to)?.checked_sub(*self.ticks.get(from)?)?;
        Some(Duration::from_secs_f64(ticks as f64 * self.nanoseconds * 1e-9))
    }
}

/// The sets that so many runs take, of `sets` that take turns, from turn `first` on.
fn turns(first: usize, sets: usize, runs: u32) -> impl Iterator<Item = usize> {
    (0..sets).cycle().skip(first % sets.max(1)).take(runs as usize)
}

#[cfg(test)]
mod tests {
    use super::turns;

    #[test]
    fn each_set_has_its_turn_before_one_comes_again() {
        let (mut first, mut taken) = (0, Vec::new());
        for runs in [2, 1, 4, 3] {
            taken.extend(turns(first, 5, runs));
            first += runs as usize;
        }
        assert_eq!(taken, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
        assert_eq!(turns(7, 1, 3).collect::<Vec<_>>(), [0, 0, 0]);
        assert_eq!(turns(0, 0, 3).count(), 0);
    }
}
