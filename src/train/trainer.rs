use std::collections::{BTreeMap, BTreeSet};

use super::{
    Loss, Settings, accumulated_step, masters, names,
    report::{Numbers, Refusal, Report, Verdict},
    seed::draws,
    training_step,
};
use crate::{
    Error, Graph, Result, Tensor,
    gpu::{Executable, Gpu, Outputs, Parameters, Records, Wait},
    graph::Op,
    reference::Evaluation,
};

/// A model that learns, on a device.
///
/// Parameters and what the optimizer keeps for them lie on the device from the first step to the last. A run of the same steps
/// gives the same bits, and so does one that was stopped and [resumed](Trainer::load).
///
/// Each call has an `_async` form, for browsers and for programs that have an executor.
#[derive(Debug)]
pub struct Trainer {
    gpu: Gpu,
    /// Takes a step; it has all states.
    program: Executable,
    /// Adds a micro-batch to the sums, where a step has several.
    adding: Option<Executable>,
    /// The loss without the step, to validate with and to find what is not finite.
    forward: Graph,
    loss: Loss,
    validation: Option<Executable>,
    settings: Settings,
    /// Parameters that no step changes.
    frozen: BTreeMap<String, Tensor>,
    steps: u64,
    /// Micro-batches of the next step that were given.
    given: usize,
    /// Runs of one turn are left out behind one that was refused.
    turn: u64,
    /// Runs that nobody waited for yet, in order: those of a step, and with a number those of a micro-batch.
    queued: Vec<(u64, Option<usize>)>,
    /// What they leave, a row for each.
    records: Option<Records>,
    /// What came of steps that were queued, and was not asked for yet.
    reports: Vec<Report>,
}

/// As many runs are queued at the most.
const QUEUED: usize = 64;

/// The outputs that are kept of a queued run.
const COLUMNS: [&str; 4] = [names::LOSS, names::WEIGHT, names::NORM, names::SCALED_BY];

/// What came of a micro-batch.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// Its number in its step; the first is 1.
    pub number: usize,
    /// Its loss, `value / weight`; NaN for a weight of 0.
    pub loss: f32,
    /// Its weight; 1 if the [loss](Loss) has none.
    pub weight: f32,
    /// The graph's own outputs.
    pub outputs: Outputs,
    /// The step that was taken with it, if it is the last one of its step.
    pub step: Option<Report>,
}

impl Trainer {
    /// Compiles the [training step](training_step) of a graph whose loss is `loss`. `start` has the parameters:
    /// [`initial`](super::initial) ones, or those of a model that continues to learn. One of f16 or bf16 that is
    /// trained may be given in f32 too: then its master begins so, and the model reads it rounded.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # pollster::block_on(async {
    /// let trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// assert_eq!(trainer.steps(), 0);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`training_step`] and [`Gpu::compile`].
    pub async fn new_async(
        gpu: &Gpu,
        graph: &Graph,
        loss: impl Into<Loss>,
        settings: Settings,
        start: &BTreeMap<String, Tensor>,
    ) -> Result<Self> {
        let loss = loss.into();
        let mut whole = graph.clone();
        let start = masters::with(graph, &settings, start)?;
        let start = start.as_ref();
        let (program, adding) = if settings.micro_batches > 1 {
            let step = accumulated_step(&mut whole, loss, &settings)?;
            let known: BTreeSet<&str> = step.parameters().map(|(name, _)| name).collect();
            let own = start.iter().filter(|(name, _)| known.contains(name.as_str()));
            let mut program = gpu
                .compile_async(&step, own.map(|(name, tensor)| (name.as_str(), tensor)).collect::<Parameters<'_>>())
                .await?;
            let adding = adding(gpu, &whole, &mut program, start).await?;
            (program, Some(adding))
        } else {
            training_step(&mut whole, loss, &settings)?;
            (gpu.compile_async(&whole, start).await?, None)
        };
        let trained: BTreeSet<String> = program.states().map(|(name, ..)| name.to_string()).collect();
        let frozen = graph.parameters().filter(|(name, _)| !trained.contains(*name));
        let frozen = frozen.filter_map(|(name, _)| Some((name.to_string(), start.get(name)?.clone()))).collect();
        let (gpu, forward) = (gpu.clone(), graph.clone());
        Ok(Trainer {
            gpu,
            program,
            adding,
            forward,
            loss,
            validation: None,
            settings,
            frozen,
            steps: 0,
            given: 0,
            turn: 0,
            queued: Vec::new(),
            records: None,
            reports: Vec::new(),
        })
    }

    /// [`Trainer::new_async`], blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// let trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// assert_eq!(trainer.steps(), 0);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::new_async`].
    #[cfg(feature = "native")]
    pub fn new(
        gpu: &Gpu,
        graph: &Graph,
        loss: impl Into<Loss>,
        settings: Settings,
        start: &BTreeMap<String, Tensor>,
    ) -> Result<Self> {
        pollster::block_on(Self::new_async(gpu, graph, loss, settings, start))
    }

    /// The device that it learns on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The number of steps that were taken, or skipped by a [dynamic scale](super::LossScale::Dynamic). Those that are
    /// queued count, until it shows that one was refused.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The number of micro-batches that were given for the next step.
    pub fn micro_batches(&self) -> usize {
        self.given
    }

    /// The program of a step, to [explain](Executable), to measure or to warm up; where a step has several
    /// micro-batches, that of a micro-batch.
    pub fn program(&mut self) -> &mut Executable {
        self.adding.as_mut().unwrap_or(&mut self.program)
    }

    /// Bytes of device memory that training has now, in all its programs ([`Executable::memory`]).
    pub fn memory(&self) -> u64 {
        let others = [&self.adding, &self.validation].into_iter().flatten();
        let programs: u64 = others.chain([&self.program]).map(Executable::memory).sum();
        programs + self.records.as_ref().map_or(0, Records::memory)
    }

    /// One step on these inputs: the loss before it, and the parameters moved on.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # pollster::block_on(async {
    /// # let mut trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// assert_eq!(trainer.step_async(&[]).await?.loss, 1.0);
    /// assert_eq!(trainer.step_async(&[]).await?.loss, 0.25); // w² at 1 − 0.25·2
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the loss, or the norm of the gradients, is not finite: it names the first value of the graph
    /// that isn't, and the parameters are what they were before the step; or if a step has several micro-batches, which
    /// [`accumulate`](Trainer::accumulate_async) takes. As [`Executable::run_async`].
    pub async fn step_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Report> {
        if self.adding.is_some() {
            let wanted = self.settings.micro_batches;
            let message =
                format!("a step has {wanted} micro-batches here: give each to `accumulate`, in place of `step`");
            return Err(Error::op("train", message));
        }
        self.take_step(inputs).await
    }

    /// Runs the program that takes a step.
    async fn take_step(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Report> {
        self.collect().await?;
        let step = self.steps + 1;
        let numbers = self.settings.numbers(step, self.turn)?;
        // The step of several micro-batches runs no model.
        let seed = if self.adding.is_none() { self.seed()? } else { None };
        let inputs = &with_seed(inputs, seed.as_ref());
        // Also of a run that is dropped while it is waited for.
        self.turn += 1;
        let mut outputs = self.program.run_async(&with(inputs, names::RATES, &numbers)).await?;
        self.given = 0;
        let [loss, weight, norm, scale] = COLUMNS.map(|name| number(&mut outputs, name));
        let numbers = Numbers::new(&self.settings, loss, weight, norm, scale);
        if let Verdict::Refused(why) = numbers.verdict(&self.settings) {
            return Err(self.refuse(inputs, &format!("step {step}"), &why, numbers.loss).await);
        }
        self.steps = step;
        Ok(numbers.report(&self.settings, step, outputs))
    }

    /// Adds a micro-batch's gradients to those of the step that it belongs to, and takes the step with the last of them: as
    /// [`Trainer::step`] on all of them joined, to rounding, with the memory of one. [`Settings::micro_batches`] says
    /// how many a step has.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [1])?;
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// let loss = g.mul(w, x)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![10.0f32])?)]);
    /// let settings = Settings { micro_batches: 2, ..Settings::new(Sgd::new(1.0)) };
    /// # pollster::block_on(async {
    /// let mut trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// let [one, three] = [1.0f32, 3.0].map(|x| Tensor::new([1], vec![x]).expect("fits"));
    /// assert!(trainer.accumulate_async(&[("x", &one)]).await?.step.is_none());
    /// let report = trainer.accumulate_async(&[("x", &three)]).await?.step.expect("that is two");
    /// assert_eq!((report.step, report.loss), (1, 20.0));
    /// assert_eq!(trainer.parameters_async().await?["w"].to_f64(), [8.0]); // 10 − (1 + 3)/2
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the sum of losses or the weight is not finite: it names the first value of the graph that
    /// isn't, nothing has changed, and another micro-batch may be given in its place; or if that holds for the
    /// [step](Trainer::step_async), whose micro-batches are then dropped. As [`Executable::run_async`].
    pub async fn accumulate_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<MicroBatch> {
        self.collect().await?;
        let (step, number) = (self.steps + 1, self.given + 1);
        let seed = self.seed()?;
        let Some(adding) = &mut self.adding else {
            let mut report = self.take_step(inputs).await?;
            let (loss, weight) = (report.loss, report.weight.unwrap_or(1.0));
            let outputs = std::mem::take(&mut report.outputs);
            return Ok(MicroBatch { number, loss, weight, outputs, step: Some(report) });
        };
        let inputs = &with_seed(inputs, seed.as_ref());
        let numbers = self.settings.numbers(step, self.turn)?;
        self.turn += 1;
        let mut outputs = adding.run_async(&with(inputs, names::RATES, &numbers)).await?;
        let [value, weight] =
            [names::LOSS, names::WEIGHT].map(|name| self::number(&mut outputs, name).unwrap_or(f64::NAN));
        if !(value as f32 + weight as f32).is_finite() {
            let place = format!("micro-batch {number} of step {step}");
            let loss = value / weight;
            return Err(self.refuse(inputs, &place, &Refusal::of_loss(loss), loss).await);
        }
        self.given = number;
        let step = if number >= self.settings.micro_batches { Some(self.take_step(&[]).await?) } else { None };
        Ok(MicroBatch { number, loss: (value / weight) as f32, weight: weight as f32, outputs, step })
    }

    /// [`Trainer::accumulate_async`], blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [1])?;
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// let loss = g.mul(w, x)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![10.0f32])?)]);
    /// let settings = Settings { micro_batches: 2, ..Settings::new(Sgd::new(1.0)) };
    /// let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// for x in [1.0f32, 3.0] {
    ///     trainer.accumulate(&[("x", &Tensor::new([1], vec![x])?)])?;
    /// }
    /// assert_eq!(trainer.parameters()?["w"].to_f64(), [8.0]); // 10 − (1 + 3)/2
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::accumulate_async`].
    #[cfg(feature = "native")]
    pub fn accumulate(&mut self, inputs: &[(&str, &Tensor)]) -> Result<MicroBatch> {
        pollster::block_on(self.accumulate_async(inputs))
    }

    /// [`Trainer::step_async`], blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// assert_eq!(trainer.step(&[])?.loss, 1.0);
    /// assert_eq!(trainer.step(&[])?.loss, 0.25); // w² at 1 − 0.25·2
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::step_async`].
    #[cfg(feature = "native")]
    pub fn step(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Report> {
        pollster::block_on(self.step_async(inputs))
    }

    /// Queues a step, or a micro-batch where a step has several, and does not wait for it: the device works while the
    /// next batch is made. The steps have the bits that [`step`](Trainer::step_async) gives; what came of them stays on
    /// the device until [`reports`](Trainer::reports_async) reads it. 64 runs are queued at the most; then a call waits
    /// for them. The graph's own outputs are not read.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # pollster::block_on(async {
    /// # let mut trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// for _ in 0..3 {
    ///     trainer.queue_async(&[]).await?;
    /// }
    /// let losses: Vec<f32> = trainer.reports_async().await?.iter().map(|report| report.loss).collect();
    /// assert_eq!(losses, [1.0, 0.25, 0.0625]);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Executable::run_async`]; as [`Trainer::reports_async`] where it waits.
    pub async fn queue_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        // A micro-batch may be followed by its step.
        if self.queued.len() + 2 > QUEUED {
            self.collect().await?;
        }
        let seed = self.seed()?;
        let records = match self.records.take() {
            Some(records) => records,
            None => self.gpu.records(QUEUED, COLUMNS.len()).await?,
        };
        let records = self.records.insert(records);
        let step = self.steps + 1;
        let numbers = self.settings.numbers(step, self.turn)?;
        let all = with(&with_seed(inputs, seed.as_ref()), names::RATES, &numbers);
        match &mut self.adding {
            Some(adding) => {
                adding.queue(&all, records, self.queued.len(), &columns(adding)).await?;
                self.given += 1;
                self.queued.push((step, Some(self.given)));
                if self.given < self.settings.micro_batches {
                    return Ok(());
                }
                let alone = [(names::RATES, &numbers)];
                self.program.queue(&alone, records, self.queued.len(), &columns(&self.program)).await?;
            }
            None => self.program.queue(&all, records, self.queued.len(), &columns(&self.program)).await?,
        }
        self.queued.push((step, None));
        (self.steps, self.given) = (step, 0);
        Ok(())
    }

    /// [`Trainer::queue_async`], blocking where that waits.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// trainer.queue(&[])?;
    /// trainer.queue(&[])?;
    /// assert_eq!(trainer.steps(), 2);
    /// assert_eq!(trainer.parameters()?["w"].to_f64(), [0.25]); // which waits for them
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::queue_async`].
    #[cfg(feature = "native")]
    pub fn queue(&mut self, inputs: &[(&str, &Tensor)]) -> Result<()> {
        pollster::block_on(self.queue_async(inputs))
    }

    /// What came of the steps that were [queued](Trainer::queue_async) since this was last asked, in order; waits for them.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [1])?;
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// let loss = g.mul(w, x)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # pollster::block_on(async {
    /// # let mut trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// let [good, bad] = [1.0, f32::INFINITY].map(|x| Tensor::new([1], vec![x]).expect("fits"));
    /// for x in [&good, &bad, &good] {
    ///     trainer.queue_async(&[("x", x)]).await?;
    /// }
    /// let error = trainer.reports_async().await.expect_err("a loss is not finite").to_string();
    /// assert!(error.starts_with("train: step 2, which was queued, has the loss inf; "));
    /// assert_eq!(trainer.reports_async().await?.len(), 1); // the step before it
    /// assert_eq!(trainer.parameters_async().await?["w"].to_f64(), [0.75]);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the loss, or the norm of the gradients, of a step or a micro-batch is not finite, as
    /// [`Trainer::step_async`] and [`Trainer::accumulate_async`] have it. Everything is as it was before it: what was
    /// queued behind it was left out, and [`steps`](Trainer::steps) says so. The steps before it come with the next
    /// call. [Errors of the device](crate::gpu#errors-of-the-device).
    pub async fn reports_async(&mut self) -> Result<Vec<Report>> {
        self.collect().await?;
        Ok(std::mem::take(&mut self.reports))
    }

    /// [`Trainer::reports_async`], blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// for step in 1..=300 {
    ///     trainer.queue(&[])?;
    ///     if step % 100 == 0 {
    ///         let reports = trainer.reports()?;
    ///         println!("step {step}: {}", reports.iter().map(|report| report.loss).sum::<f32>() / 100.0);
    ///         assert_eq!(reports.len(), 100);
    ///     }
    /// }
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::reports_async`].
    #[cfg(feature = "native")]
    pub fn reports(&mut self) -> Result<Vec<Report>> {
        pollster::block_on(self.reports_async())
    }

    /// Waits for the runs that are queued, and keeps what came of them.
    async fn collect(&mut self) -> Result<()> {
        let (Some(records), false) = (&self.records, self.queued.is_empty()) else { return Ok(()) };
        let rows = self.gpu.read_records(records, self.queued.len(), Wait::Wake).await?;
        let queued = std::mem::take(&mut self.queued);
        self.turn += 1;
        let of_steps = columns(&self.program);
        let of_micro_batches = self.adding.as_ref().map(columns).unwrap_or_default();
        for (at, (&(step, micro_batch), row)) in queued.iter().zip(rows).enumerate() {
            let columns = if micro_batch.is_some() { &of_micro_batches } else { &of_steps };
            let [loss, weight, norm, scale] = COLUMNS.map(|name| {
                let column = columns.iter().position(|column| *column == name);
                column.and_then(|column| row.get(column)).copied()
            });
            let refused = match micro_batch {
                Some(_) => {
                    let (value, weight) = (loss.unwrap_or(f32::NAN), weight.unwrap_or(f32::NAN));
                    (!(value + weight).is_finite()).then(|| Refusal::of_loss((value / weight).into()))
                }
                None => {
                    let [loss, weight, norm, scale] = [loss, weight, norm, scale].map(|number| number.map(f64::from));
                    let numbers = Numbers::new(&self.settings, loss, weight, norm, scale);
                    match numbers.verdict(&self.settings) {
                        Verdict::Refused(why) => Some(why),
                        Verdict::Taken | Verdict::Skipped => {
                            self.reports.push(numbers.report(&self.settings, step, Outputs::new()));
                            None
                        }
                    }
                }
            };
            if let Some(Refusal { what, help }) = refused {
                // The device left out what came after it.
                (self.steps, self.given) = (step - 1, micro_batch.map_or(0, |number| number - 1));
                let (place, call) = match micro_batch {
                    Some(number) => (format!("micro-batch {number} of step {step}"), "accumulate"),
                    None => (format!("step {step}"), if self.adding.is_some() { "accumulate" } else { "step" }),
                };
                let behind = queued.len() - at - 1;
                let message = format!(
                    "{place}, which was queued, has {what}; the parameters are as they were before it, and {behind} runs that were queued \
                     behind it were left out: give its batch to `{call}`, which names the first value that is not finite; {help}"
                );
                return Err(Error::op("train", message));
            }
        }
        Ok(())
    }

    /// The loss on these inputs, and the graph's own outputs, [without dropout](Graph::without_dropout); nothing is learnt.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # pollster::block_on(async {
    /// # let mut trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// trainer.step_async(&[]).await?;
    /// assert_eq!(trainer.validate_async(&[]).await?.0, 0.25);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::compile_async`] the first time, and [`Executable::run_async`].
    pub async fn validate_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<(f32, Outputs)> {
        let mut program = match self.validation.take() {
            Some(program) => program,
            None => {
                let mut graph = self.forward.without_dropout();
                let loss = self.loss.mean(&mut graph)?;
                graph.output(names::LOSS, loss)?;
                let gpu = self.gpu.clone();
                gpu.compile_async(&graph, self.shared_async().await?).await?
            }
        };
        // Nothing reads it there, but an input is given.
        let seed = self.seed()?;
        let outputs = program.run_async(&with_seed(inputs, seed.as_ref())).await;
        self.validation = Some(program);
        let mut outputs = outputs?;
        let loss = number(&mut outputs, names::LOSS).unwrap_or(f64::NAN);
        Ok((loss as f32, outputs))
    }

    /// [`Trainer::validate_async`], blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// trainer.step(&[])?;
    /// assert_eq!(trainer.validate(&[])?.0, 0.25);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::validate_async`].
    #[cfg(feature = "native")]
    pub fn validate(&mut self, inputs: &[(&str, &Tensor)]) -> Result<(f32, Outputs)> {
        pollster::block_on(self.validate_async(inputs))
    }

    /// The parameters as they lie on the device, for other programs: a [`Generator`](crate::nn::generate::Generator), or
    /// [`Gpu::compile`]. They share the memory, and see each step.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # pollster::block_on(async {
    /// # let mut trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// # let gpu = trainer.gpu().clone();
    /// g.output("square", loss)?;
    /// let mut program = gpu.compile_async(&g, trainer.shared_async().await?).await?;
    /// trainer.step_async(&[]).await?;
    /// assert_eq!(program.run_async(&[]).await?["square"].to_f64(), [0.25]);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Errors of the device](crate::gpu#errors-of-the-device).
    pub async fn shared_async(&mut self) -> Result<Parameters<'_>> {
        let mut parameters = Parameters::new();
        for (name, _) in self.forward.parameters() {
            parameters = match self.frozen.get(name) {
                Some(tensor) => parameters.tensor(name, tensor),
                None => parameters.buffer(name, self.program.buffer_async(name).await?),
            };
        }
        Ok(parameters)
    }

    /// [`Trainer::shared_async`], blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// g.output("square", loss)?;
    /// let mut program = trainer.gpu().clone().compile(&g, trainer.shared()?)?;
    /// trainer.step(&[])?;
    /// assert_eq!(program.run(&[])?["square"].to_f64(), [0.25]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::shared_async`].
    #[cfg(feature = "native")]
    pub fn shared(&mut self) -> Result<Parameters<'_>> {
        pollster::block_on(self.shared_async())
    }

    /// The parameters, read from the device, of the dtypes that the model reads; masters are in a
    /// [checkpoint](Trainer::checkpoint_async).
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # pollster::block_on(async {
    /// # let mut trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// trainer.step_async(&[]).await?;
    /// assert_eq!(trainer.parameters_async().await?["w"].to_f64(), [0.5]);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Errors of the device](crate::gpu#errors-of-the-device).
    pub async fn parameters_async(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut all = BTreeMap::new();
        for (name, _) in self.forward.parameters() {
            let tensor = match self.frozen.get(name) {
                Some(tensor) => tensor.clone(),
                None => self.program.state_async(name).await?,
            };
            all.insert(name.to_string(), tensor);
        }
        Ok(all)
    }

    /// [`Trainer::parameters_async`], blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// trainer.step(&[])?;
    /// assert_eq!(trainer.parameters()?["w"].to_f64(), [0.5]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::parameters_async`].
    #[cfg(feature = "native")]
    pub fn parameters(&self) -> Result<BTreeMap<String, Tensor>> {
        pollster::block_on(self.parameters_async())
    }

    /// All that a step needs of the steps before: parameters that learn, under their names, the masters of those of f16 and bf16
    /// (`master/name`), what the optimizer keeps for each (`exp_avg/name`, …), and the number of steps. In the middle
    /// of a step also what its micro-batches sum to, and how many were given; between steps a checkpoint fits any
    /// number of micro-batches.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # pollster::block_on(async {
    /// # let mut trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// let checkpoint = trainer.checkpoint_async().await?;
    /// assert_eq!(checkpoint.keys().collect::<Vec<_>>(), ["train/steps", "w"]);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::reports_async`] if steps are queued. [Errors of the device](crate::gpu#errors-of-the-device).
    pub async fn checkpoint_async(&mut self) -> Result<BTreeMap<String, Tensor>> {
        self.collect().await?;
        let mut all = BTreeMap::new();
        for (name, ..) in self.program.states().filter(|(name, ..)| names::is_kept(name, self.given)) {
            all.insert(name.to_string(), self.program.state_async(name).await?);
        }
        if self.given > 0 {
            all.insert(names::MICRO_BATCHES.to_string(), Tensor::new([1], vec![self.given as u32])?);
        }
        all.insert(names::STEPS.to_string(), Tensor::new([2], vec![self.steps as u32, (self.steps >> 32) as u32])?);
        Ok(all)
    }

    /// Goes on from a checkpoint: the next step has the bits that it would have had. Reports of steps that are queued
    /// are dropped.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # pollster::block_on(async {
    /// # let mut trainer = Trainer::new_async(&Gpu::new_async().await?, &g, loss, settings, &start).await?;
    /// let checkpoint = trainer.checkpoint_async().await?;
    /// trainer.step_async(&[]).await?;
    /// trainer.restore_async(&checkpoint).await?;
    /// assert_eq!(trainer.step_async(&[]).await?.loss, 1.0);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] if the checkpoint is of another model or optimizer: what is missing, unknown, or of another
    /// dtype or shape; or if it was made after as many micro-batches of a step as a step has here, or more. Nothing has
    /// changed then. [Errors of the device](crate::gpu#errors-of-the-device).
    pub async fn restore_async(&mut self, checkpoint: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut faults = Vec::new();
        let mut known = BTreeSet::from([names::STEPS, names::MICRO_BATCHES]);
        let given = match checkpoint.get(names::MICRO_BATCHES).map(Tensor::as_u32) {
            None => 0,
            Some(Some(&[given])) if (given as usize) < self.settings.micro_batches => given as usize,
            Some(Some(&[given])) => {
                let wanted = self.settings.micro_batches;
                faults.push(format!(
                    "it was made after {given} micro-batches of a step, and a step has {wanted} here: expected one from between \
                     steps, or fewer micro-batches than a step has"
                ));
                given as usize
            }
            Some(_) => {
                faults.push(format!("`{}` is not u32 [1]", names::MICRO_BATCHES));
                0
            }
        };
        for (name, dtype, shape) in self.program.states().filter(|(name, ..)| names::is_kept(name, given)) {
            known.insert(name);
            match checkpoint.get(name) {
                None => faults.push(format!("`{name}` is missing")),
                Some(tensor) if (tensor.dtype(), tensor.shape()) != (dtype, shape) => {
                    let given = format!("{} {}", tensor.dtype(), tensor.shape());
                    faults.push(format!("`{name}` is {given}, expected {dtype} {shape}"));
                }
                Some(_) => {}
            }
        }
        faults.extend(
            checkpoint
                .keys()
                .filter(|name| !known.contains(name.as_str()))
                .map(|name| format!("there is no parameter or state `{name}`")),
        );
        let steps = match checkpoint.get(names::STEPS).and_then(Tensor::as_u32) {
            Some(&[low, high]) => u64::from(low) | u64::from(high) << 32,
            _ => {
                faults.push(format!("`{}` is missing, or not u32 [2]: this is no checkpoint", names::STEPS));
                0
            }
        };
        if !faults.is_empty() {
            return Err(Error::Binding(format!("checkpoint: {}", faults.join("; "))));
        }
        // They are of the run that is left.
        self.queued.clear();
        self.reports.clear();
        for (name, dtype, shape) in self.program.states() {
            match checkpoint.get(name) {
                Some(tensor) => self.program.set_state_async(name, tensor).await?,
                // A sum, between steps, or the turn that was refused.
                None => self.program.set_state_async(name, &Tensor::zeros(dtype, shape.clone())?).await?,
            }
        }
        (self.steps, self.given) = (steps, given);
        self.turn += 1;
        Ok(())
    }

    /// Writes a [checkpoint](Trainer::checkpoint_async) as safetensors. A file of this name is replaced when all is written
    /// ([`files::write`](crate::files::write)).
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// # let file = std::env::temp_dir().join(format!("tilewise-train-save-{}", std::process::id()));
    /// trainer.save(&file)?;
    /// assert!(file.exists());
    /// # std::fs::remove_file(file).unwrap();
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Trainer::checkpoint_async`] and [`safetensors::save`](crate::safetensors::save).
    #[cfg(feature = "native")]
    pub fn save(&mut self, path: impl AsRef<std::path::Path>) -> Result<()> {
        crate::safetensors::save(path, &pollster::block_on(self.checkpoint_async())?)
    }

    /// [Goes on](Trainer::restore_async) from a checkpoint in a file.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, train::{Settings, Sgd, Trainer}};
    /// # let mut g = Graph::new();
    /// # let w = g.parameter("w", DType::F32, [1])?;
    /// # let loss = g.mul(w, w)?;
    /// # let start = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![1.0f32])?)]);
    /// # let settings = Settings::new(Sgd::new(0.25));
    /// # let mut trainer = Trainer::new(&Gpu::new()?, &g, loss, settings, &start)?;
    /// # let file = std::env::temp_dir().join(format!("tilewise-train-load-{}", std::process::id()));
    /// trainer.save(&file)?;
    /// trainer.step(&[])?;
    /// trainer.load(&file)?;
    /// assert_eq!(trainer.steps(), 0);
    /// # std::fs::remove_file(file).unwrap();
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`safetensors::load`](crate::safetensors::load) and [`Trainer::restore_async`].
    #[cfg(feature = "native")]
    pub fn load(&mut self, path: impl AsRef<std::path::Path>) -> Result<()> {
        pollster::block_on(self.restore_async(&crate::safetensors::load(path)?))
    }

    /// What a graph with dropouts draws from in the next run of the model.
    fn seed(&self) -> Result<Option<Tensor>> {
        let run = self.steps * self.settings.micro_batches as u64 + self.given as u64 + 1;
        draws(&self.forward).then(|| self.settings.draws(run)).transpose()
    }

    /// What to say of a step, or a micro-batch, that was refused.
    async fn refuse(&self, inputs: &[(&str, &Tensor)], place: &str, why: &Refusal, loss: f64) -> Error {
        let Refusal { what, help } = why;
        // A step of several micro-batches has no inputs; each of them had a finite loss.
        let culprit = match self.parameters_async().await {
            Ok(parameters) if !loss.is_finite() && (self.adding.is_none() || !inputs.is_empty()) => {
                let inputs = inputs.iter().map(|(name, tensor)| (name.to_string(), (*tensor).clone()));
                culprit(&self.forward, &parameters.into_iter().chain(inputs).collect())
            }
            Ok(_) | Err(_) => None,
        };
        let culprit = culprit.map(|name| format!("; the first value that is not finite is {name}")).unwrap_or_default();
        let advice = "the parameters are as they were before it";
        Error::op("train", format!("{place} has {what}{culprit}; {advice}; {help}"))
    }
}

/// The program that adds a micro-batch to the sums of `program`, which has the parameters that learn.
async fn adding(
    gpu: &Gpu,
    graph: &Graph,
    program: &mut Executable,
    start: &BTreeMap<String, Tensor>,
) -> Result<Executable> {
    let shared: Vec<String> = program.states().map(|(name, ..)| name.to_string()).collect();
    let wanted: BTreeSet<&str> =
        graph.parameters().chain(graph.states().map(|(name, state, _)| (name, state))).map(|(name, _)| name).collect();
    let mut parameters = Parameters::new();
    for name in shared.iter().filter(|name| wanted.contains(name.as_str())) {
        parameters = parameters.buffer(name, program.buffer_async(name).await?);
    }
    // What is given beside is of no parameter, which is said then.
    for (name, tensor) in start.iter().filter(|(name, _)| !shared.contains(name)) {
        parameters = parameters.tensor(name, tensor);
    }
    gpu.compile_async(graph, parameters).await
}

/// The inputs of a run, with one more.
fn with<'a>(inputs: &[(&'a str, &'a Tensor)], name: &'a str, tensor: &'a Tensor) -> Vec<(&'a str, &'a Tensor)> {
    inputs.iter().copied().chain([(name, tensor)]).collect()
}

/// The inputs of a run, with the seed if there is one.
fn with_seed<'a>(inputs: &[(&'a str, &'a Tensor)], seed: Option<&'a Tensor>) -> Vec<(&'a str, &'a Tensor)> {
    inputs.iter().copied().chain(seed.map(|seed| (names::SEED, seed))).collect()
}

/// The outputs of a program that are kept where nobody waits for it.
fn columns(program: &Executable) -> Vec<&'static str> {
    COLUMNS.into_iter().filter(|column| program.outputs().any(|(name, ..)| name == *column)).collect()
}

/// Takes an output of a single number.
fn number(outputs: &mut Outputs, name: &str) -> Option<f64> {
    outputs.remove(name).and_then(|tensor| tensor.to_f64().first().copied())
}

/// The first value of a graph that is not finite though its operands are, or is given so, by the reference in f32.
fn culprit(g: &Graph, given: &BTreeMap<String, Tensor>) -> Option<String> {
    let values = Evaluation::<f32>::new(g, given).ok()?;
    let finite: Vec<bool> = values.values().iter().map(|value| value.to_f64().iter().all(|x| x.is_finite())).collect();
    let node = g.nodes().iter().find(|node| {
        let here = node.outputs.iter().all(|output| finite[output.index()]);
        let before = node.inputs.iter().all(|input| finite[input.index()]);
        // A constant is meant so: a mask of −∞.
        !here && before && !matches!(node.op, Op::Constant { .. })
    })?;
    let value = *node.outputs.iter().find(|output| !finite[output.index()])?;
    Some(match g.traces_of(value).next() {
        Some(path) => format!("`{path}` ({} of {})", node.op.name(), g.describe(value)),
        None => format!("{} ({})", g.describe(value), node.op.name()),
    })
}
