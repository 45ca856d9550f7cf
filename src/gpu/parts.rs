//! A program in parts: submissions that no watchdog ends, and ranges that an app records over several frames.

use std::{ops::Range, time::Duration};

use super::Executable;
use crate::{Error, Result, lower::parts};

/// A step of a loaded program: which of its dispatches it is, and how long they are taken to need.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRange<'a> {
    /// Family, variant and problem.
    pub label: &'a str,
    /// Its dispatches, counted through the program.
    pub dispatches: Range<usize>,
    /// What they are taken to need by their formulas and the device's [rates](crate::kernel::Rates).
    pub estimate: Duration,
}

impl Executable {
    /// The steps in order, with the dispatches of each.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = StepRange<'_>> {
        self.steps.iter().map(|step| {
            let seconds: f64 = self.dispatches[step.dispatches.clone()].iter().map(|dispatch| dispatch.seconds).sum();
            let estimate = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            StepRange { label: &step.label, dispatches: step.dispatches.clone(), estimate }
        })
    }

    /// How many dispatches a run has.
    pub fn dispatches(&self) -> usize {
        self.dispatches.len()
    }

    /// Ranges of dispatches, in order, for [`encode_dispatches`](Executable::encode_dispatches): each is taken to need no more
    /// than `longest`, unless a single dispatch does. Lower with [`Options::longest_dispatch`](crate::lower::Options) of that
    /// time, or open the device with it ([`Bounds::longest_dispatch`](super::Bounds)), and none does.
    pub fn parts(&self, longest: Duration) -> Vec<Range<usize>> {
        parts(self.dispatches.iter().map(|dispatch| dispatch.seconds), longest.as_secs_f64())
    }

    /// Records some of the steps into the caller's encoder, otherwise as [`encode`](Executable::encode): a program that takes
    /// long can be spread over the frames of an app, or stopped in between.
    ///
    /// A run is all steps once, in order, with the same buffers; only then are outputs and states what they should be. Temporaries
    /// are handed on from one part to the next, so nothing else may run this executable in between.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 4])?;
    /// let y = g.softmax(x, -1)?;
    /// let y = g.softmax(y, 0)?;
    /// g.output("y", y)?;
    /// let gpu = Gpu::new()?;
    /// let mut program = gpu.compile(&g, [])?;
    /// let x = gpu.upload(&Tensor::zeros(DType::F32, [2, 4])?)?;
    /// let y = program.buffer("y")?;
    /// let steps = program.steps().len();
    /// for step in 0..steps {
    ///     let mut encoder = gpu.device().create_command_encoder(&Default::default());
    ///     program.encode_steps(&mut encoder, &[("x", x.slice(..)), ("y", y.slice(..))], step..step + 1)?;
    ///     gpu.queue().submit([encoder.finish()]); // and draw a frame
    /// }
    /// assert_eq!(gpu.download(y.slice(..), DType::F32, [2, 4])?.as_f32(), Some(&[0.5; 8][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`encode`](Executable::encode), and [`Error::Binding`] if the program has no such steps.
    pub fn encode_steps(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &[(&str, wgpu::BufferSlice<'_>)],
        steps: Range<usize>,
    ) -> Result<()> {
        check_range("steps", &steps, self.steps.len())?;
        let ranges = self.steps[steps].iter().map(|step| &step.dispatches);
        let dispatches = ranges
            .fold(None, |all: Option<Range<usize>>, range| Some(all.map_or(range.start, |all| all.start)..range.end));
        self.encode_dispatches(encoder, buffers, dispatches.unwrap_or(0..0))
    }

    /// [`encode_steps`](Executable::encode_steps) by dispatches, of which a long step has several, each with a part of the work.
    ///
    /// ```
    /// use std::time::Duration;
    /// # use tilewise::{DType, Graph, Tensor, gpu::{Bounds, Gpu}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [1024, 256])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// // 20 µs of a frame are left for this.
    /// let left = Duration::from_micros(20);
    /// let gpu = Gpu::builder().bounds(Bounds { longest_dispatch: Some(left), ..Bounds::default() }).build()?;
    /// let mut program = gpu.compile(&g, [])?;
    /// let x = gpu.upload(&Tensor::new([1024, 256], vec![-1.0f32; 1024 * 256])?)?;
    /// let y = program.buffer("y")?;
    /// let frames = program.parts(left);
    /// assert!(frames.len() > 4);
    /// for part in frames {
    ///     let mut encoder = gpu.device().create_command_encoder(&Default::default());
    ///     program.encode_dispatches(&mut encoder, &[("x", x.slice(..)), ("y", y.slice(..))], part)?;
    ///     gpu.queue().submit([encoder.finish()]);
    /// }
    /// assert_eq!(gpu.download(y.slice(..), DType::F32, [3])?.as_f32(), Some(&[0.0; 3][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`encode`](Executable::encode), and [`Error::Binding`] if the program has no such dispatches.
    pub fn encode_dispatches(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &[(&str, wgpu::BufferSlice<'_>)],
        dispatches: Range<usize>,
    ) -> Result<()> {
        check_range("dispatches", &dispatches, self.dispatches.len())?;
        let set = self.bind_given(buffers)?;
        self.record_into(encoder, set, dispatches)
    }

    /// Submits a run: one submission after the other, the first with `before` in front of it, the last with `after` behind it.
    pub(super) fn submit(
        &self,
        groups: &[Option<wgpu::BindGroup>],
        before: impl FnOnce(&mut wgpu::CommandEncoder),
        after: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Vec<wgpu::SubmissionIndex> {
        let gpu = &*self.gpu.inner;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        before(&mut encoder);
        let mut submissions = Vec::with_capacity(self.submissions.len().max(1));
        for (i, range) in self.submissions.iter().enumerate() {
            if i > 0 {
                let full = std::mem::replace(&mut encoder, gpu.device.create_command_encoder(&Default::default()));
                submissions.push(gpu.queue.submit([full.finish()]));
            }
            self.record_pass(&mut encoder, groups, range.clone());
        }
        after(&mut encoder);
        submissions.push(gpu.queue.submit([encoder.finish()]));
        submissions
    }
}

fn check_range(what: &str, range: &Range<usize>, count: usize) -> Result<()> {
    if range.start <= range.end && range.end <= count {
        return Ok(());
    }
    let Range { start, end } = range;
    Err(Error::Binding(format!("{what} {start}..{end} were asked for, the program has 0..{count}")))
}
