//! What came of a step, by the numbers that it left.

use super::{LossScale, Settings};
use crate::gpu::Outputs;

/// What came of a step.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its number; the first is 1.
    pub step: u64,
    /// The loss, before the step: over all its micro-batches `Σ value / Σ weight`.
    pub loss: f32,
    /// `Σ weight`, if the [loss](super::Loss) has one: the tokens of the step.
    pub weight: Option<f32>,
    /// The root of the sum of the squares of all gradients before they were clipped, if they are clipped or the loss is
    /// scaled. Not finite if the step was skipped.
    pub norm: Option<f32>,
    /// The loss scale that the step was tried with, if the loss is scaled.
    pub scale: Option<f32>,
    /// Whether the step was skipped, as a [dynamic scale](super::LossScale::Dynamic) does where gradients overflow: it
    /// changed the scale and nothing else.
    pub skipped: bool,
    /// The learning rate.
    pub rate: f64,
    /// The graph's own outputs; empty where a step has several micro-batches, each of which has its own.
    pub outputs: Outputs,
}

/// The numbers that a step leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) loss: f64,
    weight: Option<f64>,
    norm: Option<f64>,
    scale: Option<f64>,
}

/// What became of a step.
pub(super) enum Verdict {
    Taken,
    Skipped,
    Refused(Refusal),
}

/// Why a step changes nothing, and what may help.
pub(super) struct Refusal {
    pub(super) what: String,
    pub(super) help: String,
}

impl Refusal {
    pub(super) fn of_loss(loss: f64) -> Self {
        let help = "a lower learning rate, a warm-up or clipping may help".into();
        Refusal { what: format!("the loss {loss}"), help }
    }
}

impl Numbers {
    /// Of the outputs of a step.
    pub(super) fn new(
        settings: &Settings,
        loss: Option<f64>,
        weight: Option<f64>,
        norm: Option<f64>,
        scale: Option<f64>,
    ) -> Self {
        let scale = match settings.scale {
            Some(LossScale::Constant(scale)) => Some(scale),
            Some(LossScale::Dynamic { .. }) | None => scale,
        };
        Numbers { loss: loss.unwrap_or(f64::NAN), weight, norm, scale }
    }

    /// What the device did, by the same rules.
    pub(super) fn verdict(&self, settings: &Settings) -> Verdict {
        let Numbers { loss, weight, norm, scale } = *self;
        if weight == Some(0.0) {
            let what = format!("the loss {loss}: its weights sum to 0");
            let help = "give a batch of which some position counts".into();
            return Verdict::Refused(Refusal { what, help });
        }
        if !loss.is_finite() {
            return Verdict::Refused(Refusal::of_loss(loss));
        }
        let Some(norm) = norm.filter(|norm| !norm.is_finite()) else { return Verdict::Taken };
        let what = format!("the loss {loss}, but the norm of the gradients {norm}");
        let scaled = |scale: f64| format!("{what} at the loss scale {scale}");
        match (settings.scale, scale) {
            (Some(LossScale::Dynamic { .. }), Some(scale)) if scale > LossScale::LEAST => Verdict::Skipped,
            (Some(LossScale::Dynamic { .. }), scale) => {
                let help =
                    "that is the least one, so they don't overflow: look for an operation whose gradient is not finite"
                        .into();
                Verdict::Refused(Refusal { what: scaled(scale.unwrap_or(f64::NAN)), help })
            }
            (Some(LossScale::Constant(scale)), _) => {
                let help = "a smaller scale may help, or one that follows them (`LossScale::DYNAMIC`)".into();
                Verdict::Refused(Refusal { what: scaled(scale), help })
            }
            (None, _) => Verdict::Refused(Refusal { what, ..Refusal::of_loss(loss) }),
        }
    }

    /// The report of a step that was taken or skipped.
    pub(super) fn report(&self, settings: &Settings, step: u64, outputs: Outputs) -> Report {
        let [weight, norm, scale] = [self.weight, self.norm, self.scale].map(|number| number.map(|x| x as f32));
        let rate = settings.optimizer.rate() * settings.schedule.factor(step);
        let skipped = matches!(self.verdict(settings), Verdict::Skipped);
        Report { step, loss: self.loss as f32, weight, norm, scale, skipped, rate, outputs }
    }
}
