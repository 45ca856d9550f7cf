use crate::{Error, Result};

/// How the learning rate changes from step to step: a factor of the [optimizer](super::Optimizer)'s rate.
///
/// ```
/// use tilewise::train::Schedule;
/// let schedule = Schedule::InverseSquareRoot { warmup: 4 };
/// assert_eq!([1, 4, 16].map(|step| schedule.factor(step)), [0.25, 1.0, 0.5]);
/// let schedule = Schedule::Cosine { warmup: 0, steps: 10, floor: 0.1 };
/// assert_eq!([0, 10, 99].map(|step| schedule.factor(step)), [1.0, 0.1, 0.1]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Schedule {
    /// 1.
    #[default]
    Constant,
    /// `min(t / warmup, √(warmup / t))`: linear for the first steps, then as Vaswani et al. (2017), who have the factor 1 at step
    /// `warmup`.
    InverseSquareRoot {
        /// Steps until it is 1.
        warmup: u64,
    },
    /// `t / warmup`, then `floor + (1 − floor)·(1 + cos(π·(t − warmup)/(steps − warmup)))/2`, then `floor`. Loshchilov and Hutter,
    /// 2017, without restarts.
    Cosine {
        /// Steps until it is 1.
        warmup: u64,
        /// Steps until it is `floor`.
        steps: u64,
        /// The factor in the end.
        floor: f64,
    },
}

impl Schedule {
    /// The factor of step `t`; the first step is 1.
    pub fn factor(&self, t: u64) -> f64 {
        let linear = |warmup: u64| t as f64 / warmup.max(1) as f64;
        match *self {
            Schedule::Constant => 1.0,
            Schedule::InverseSquareRoot { warmup } if t < warmup => linear(warmup),
            Schedule::InverseSquareRoot { warmup } => (warmup.max(1) as f64 / t.max(1) as f64).sqrt(),
            Schedule::Cosine { warmup, .. } if t < warmup => linear(warmup),
            Schedule::Cosine { warmup, steps, floor } => {
                let part = (t - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
                floor + (1.0 - floor) * (1.0 + (std::f64::consts::PI * part.min(1.0)).cos()) / 2.0
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let fault = |message: String| Err(Error::op("train", format!("the schedule {message}")));
        match *self {
            Schedule::Constant | Schedule::InverseSquareRoot { .. } => Ok(()),
            Schedule::Cosine { warmup, steps, .. } if steps < warmup => {
                fault(format!("ends at step {steps}, before its {warmup} steps of warm-up do"))
            }
            Schedule::Cosine { floor, .. } if !(0.0..=1.0).contains(&floor) => {
                fault(format!("has the floor {floor}, expected a factor from 0 to 1"))
            }
            Schedule::Cosine { .. } => Ok(()),
        }
    }
}
