use super::{LossScale, Optimizer, Schedule, optimizer::RATES};
use crate::{Error, Graph, Result, Tensor, graph::SEED_WORDS};

/// How a model is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How parameters follow their gradients.
    pub optimizer: Optimizer,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// Gradients are scaled so that the root of the sum of all their squares is at most this, as `clip_grad_norm_` does.
    pub clip: Option<f64>,
    /// Parameters that stay as they are, by name.
    pub frozen: Vec<String>,
    /// How many micro-batches a step is taken over, from 1 on: their gradients are summed in f32, in the order in which they are
    /// given, and the step follows `Σ gradients / Σ weights` (see [`Loss`](super::Loss)).
    pub micro_batches: usize,
    /// What the loss is multiplied by on its way back, where gradients are f16.
    pub scale: Option<LossScale>,
    /// Which random numbers a [`seed`](super::seed()) draws: those of a run follow from this and the run's number.
    pub seed: u64,
}

impl Settings {
    /// What a run of step `step`, counted from 1, gets as `train/rates`: f32 `[4]`, numbers of the optimizer, and one
    /// that tells the run from others: after a run that was refused, those with the same one do nothing.
    ///
    /// ```
    /// # use tilewise::train::{Settings, Sgd};
    /// assert_eq!(Settings::new(Sgd::new(0.5)).rates(1)?.to_f64()[0], -0.5);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// None: it returns a `Result` because [`Tensor::new`] does.
    pub fn rates(&self, step: u64) -> Result<Tensor> {
        self.numbers(step, step)
    }

    /// [`Settings::rates`] of a run in this turn.
    pub(super) fn numbers(&self, step: u64, turn: u64) -> Result<Tensor> {
        let factor = self.schedule.factor(step);
        let rates = match self.scale {
            // How many steps were skipped is known on the device alone.
            Some(LossScale::Dynamic { .. }) => self.optimizer.rates_of_any_step(factor),
            Some(LossScale::Constant(_)) | None => self.optimizer.rates(step, factor),
        };
        // f32 tells 2²⁴ numbers apart; 0 is none.
        let turn = (turn % ((1 << 24) - 1) + 1) as f32;
        let numbers = rates.into_iter().map(|rate| rate as f32).chain([turn]);
        Tensor::new([RATES + 1], numbers.collect::<Vec<f32>>())
    }

    /// What a run of the model gets as `train/seed`, if the graph has a [`seed`](super::seed()): u32 `[4]`, the low and the high word of the
    /// seed, and of the run's number. Runs are counted from 1: a step has one, or as many as micro-batches.
    ///
    /// ```
    /// # use tilewise::train::{Settings, Sgd};
    /// let settings = Settings { seed: 7, ..Settings::new(Sgd::new(0.5)) };
    /// assert_eq!(settings.draws(3)?.as_u32(), Some(&[7, 0, 3, 0][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// None: it returns a `Result` because [`Tensor::new`] does.
    pub fn draws(&self, run: u64) -> Result<Tensor> {
        let words = [self.seed, run].map(|number| [number as u32, (number >> 32) as u32]);
        Tensor::new([SEED_WORDS], words.concat())
    }

    /// All parameters, at a constant rate, without clipping, a batch a step, with the seed 0.
    pub fn new(optimizer: impl Into<Optimizer>) -> Self {
        Settings {
            optimizer: optimizer.into(),
            schedule: Schedule::Constant,
            clip: None,
            frozen: Vec::new(),
            micro_batches: 1,
            scale: None,
            seed: 0,
        }
    }

    /// An error unless all of it makes sense for the parameters of a graph.
    pub(super) fn check(&self, g: &Graph) -> Result<()> {
        let fault = |message: String| Err(Error::op("train", message));
        self.optimizer.check()?;
        self.schedule.check()?;
        if let Some(clip) = self.clip.filter(|clip| clip.is_nan() || *clip <= 0.0) {
            return fault(format!("gradients can't be clipped at {clip}, expected a number over 0"));
        }
        if let Some(name) = self.frozen.iter().find(|name| g.parameters().all(|(known, _)| known != name.as_str())) {
            return fault(format!("`{name}` is to be frozen, and is no parameter"));
        }
        if self.micro_batches == 0 {
            return fault("a step over 0 micro-batches learns nothing, expected 1 or more".into());
        }
        self.scale.map_or(Ok(()), LossScale::check)
    }
}
