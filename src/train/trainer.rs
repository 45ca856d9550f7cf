use std::collections::{BTreeMap, BTreeSet};

use super::{
    Settings,
    step::{LOSS, NORM, RATES_NAME, training_step},
};
use crate::{
    Error, Graph, Result, Tensor, ValueId,
    gpu::{Executable, Gpu, Outputs, Parameters},
    graph::Op,
    reference::Evaluation,
};

/// The name under which a checkpoint says how many steps were taken: the low and the high word.
const STEPS: &str = "train/steps";

/// A model that learns, on a device.
///
/// Parameters and what the optimizer keeps for them lie on the device from the first step to the last. A run of the same steps
/// gives the same bits, and so does one that was stopped and [resumed](Trainer::load).
///
/// Each call has an `_async` form, for browsers and for programs that have an executor.
#[derive(Debug)]
pub struct Trainer {
    gpu: Gpu,
    program: Executable,
    /// The loss without the step, to validate with and to find what is not finite.
    forward: Graph,
    loss: ValueId,
    validation: Option<Executable>,
    settings: Settings,
    /// Parameters that no step changes.
    frozen: BTreeMap<String, Tensor>,
    steps: u64,
}

/// What came of a step.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its number; the first is 1.
    pub step: u64,
    /// The loss, before the step.
    pub loss: f32,
    /// The root of the sum of the squares of all gradients before they were clipped, if they are.
    pub norm: Option<f32>,
    /// The learning rate.
    pub rate: f64,
    /// The graph's own outputs.
    pub outputs: Outputs,
}

impl Trainer {
    /// Compiles the [training step](training_step) of a graph whose loss is `loss`. `start` has the parameters:
    /// [`initial`](super::initial) ones, or those of a model that continues to learn.
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
        loss: ValueId,
        settings: Settings,
        start: &BTreeMap<String, Tensor>,
    ) -> Result<Self> {
        let mut whole = graph.clone();
        training_step(&mut whole, loss, &settings)?;
        let program = gpu.compile_async(&whole, start).await?;
        let trained: BTreeSet<String> = program.states().map(|(name, ..)| name.to_string()).collect();
        let frozen = graph.parameters().filter(|(name, _)| !trained.contains(*name));
        let frozen = frozen.filter_map(|(name, _)| Some((name.to_string(), start.get(name)?.clone()))).collect();
        let (gpu, forward) = (gpu.clone(), graph.clone());
        Ok(Trainer { gpu, program, forward, loss, validation: None, settings, frozen, steps: 0 })
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
        loss: ValueId,
        settings: Settings,
        start: &BTreeMap<String, Tensor>,
    ) -> Result<Self> {
        pollster::block_on(Self::new_async(gpu, graph, loss, settings, start))
    }

    /// The device that it learns on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The number of steps that were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The program of a step, to [explain](Executable), to measure or to warm up.
    pub fn program(&mut self) -> &mut Executable {
        &mut self.program
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
    /// [`Error::Op`] if the loss, or the norm of the gradients, is not finite: it names the first value of the graph that isn't, and the
    /// parameters are what they were before the step. As [`Executable::run_async`].
    pub async fn step_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Report> {
        let step = self.steps + 1;
        let rates = self.settings.rates(step)?;
        let all: Vec<(&str, &Tensor)> = inputs.iter().copied().chain([(RATES_NAME, &rates)]).collect();
        let mut outputs = self.program.run_async(&all).await?;
        let mut number = |name: &str| outputs.remove(name).and_then(|tensor| tensor.to_f64().first().copied());
        let (loss, norm) = (number(LOSS).unwrap_or(f64::NAN), number(NORM));
        if !loss.is_finite() || norm.is_some_and(|norm| !norm.is_finite()) {
            return Err(self.not_finite(inputs, step, loss, norm).await);
        }
        self.steps = step;
        let rate = self.settings.optimizer.rate() * self.settings.schedule.factor(step);
        Ok(Report { step, loss: loss as f32, norm: norm.map(|norm| norm as f32), rate, outputs })
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

    /// The loss on these inputs, and the graph's own outputs; nothing is learnt.
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
                let mut graph = self.forward.clone();
                let loss = graph.reshape(self.loss, [])?;
                graph.output(LOSS, loss)?;
                let gpu = self.gpu.clone();
                gpu.compile_async(&graph, self.shared_async().await?).await?
            }
        };
        let outputs = program.run_async(inputs).await;
        self.validation = Some(program);
        let mut outputs = outputs?;
        let loss = outputs.remove(LOSS).and_then(|loss| loss.to_f64().first().copied()).unwrap_or(f64::NAN);
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

    /// The parameters, read from the device.
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

    /// All that a step needs of the steps before: parameters that learn, under their names, what the optimizer keeps for each
    /// (`exp_avg/name`, …), and the number of steps.
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
    /// [Errors of the device](crate::gpu#errors-of-the-device).
    pub async fn checkpoint_async(&self) -> Result<BTreeMap<String, Tensor>> {
        let names: Vec<String> = self.program.states().map(|(name, ..)| name.to_string()).collect();
        let mut all = BTreeMap::new();
        for name in names {
            let state = self.program.state_async(&name).await?;
            all.insert(name, state);
        }
        all.insert(STEPS.to_string(), Tensor::new([2], vec![self.steps as u32, (self.steps >> 32) as u32])?);
        Ok(all)
    }

    /// Goes on from a checkpoint: the next step has the bits that it would have had.
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
    /// [`Error::Binding`] if the checkpoint is of another model or optimizer: what is missing, unknown, or of another dtype or shape;
    /// nothing has changed then. [Errors of the device](crate::gpu#errors-of-the-device).
    pub async fn restore_async(&mut self, checkpoint: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut faults = Vec::new();
        let mut known = BTreeSet::from([STEPS]);
        for (name, dtype, shape) in self.program.states() {
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
        let steps = match checkpoint.get(STEPS).and_then(Tensor::as_u32) {
            Some(&[low, high]) => u64::from(low) | u64::from(high) << 32,
            _ => {
                faults.push(format!("`{STEPS}` is missing, or not u32 [2]: this is no checkpoint"));
                0
            }
        };
        if !faults.is_empty() {
            return Err(Error::Binding(format!("checkpoint: {}", faults.join("; "))));
        }
        for (name, tensor) in checkpoint.iter().filter(|(name, _)| *name != STEPS) {
            self.program.set_state_async(name, tensor).await?;
        }
        self.steps = steps;
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
    pub fn save(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
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

    /// What to say of a step whose loss, or norm of gradients, is not finite.
    async fn not_finite(&self, inputs: &[(&str, &Tensor)], step: u64, loss: f64, norm: Option<f64>) -> Error {
        let what = match norm {
            Some(norm) if loss.is_finite() => format!("the loss {loss}, but the norm of the gradients {norm}"),
            Some(_) | None => format!("the loss {loss}"),
        };
        let advice = "the parameters are as they were before it; a lower learning rate, a warm-up or clipping may help";
        let culprit = match self.parameters_async().await {
            Ok(parameters) if !loss.is_finite() => {
                let inputs = inputs.iter().map(|(name, tensor)| (name.to_string(), (*tensor).clone()));
                culprit(&self.forward, &parameters.into_iter().chain(inputs).collect())
            }
            Ok(_) | Err(_) => None,
        };
        let culprit = culprit.map(|name| format!("; the first value that is not finite is {name}")).unwrap_or_default();
        Error::op("train", format!("step {step} has {what}{culprit}; {advice}"))
    }
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
