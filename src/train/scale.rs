use super::names;
use crate::{DType, Error, Graph, Result, Tensor, ValueId, graph::Binary};

/// By what a loss is multiplied before its gradients are computed, in f16 mostly: numbers under 6·10⁻⁸ are 0 there, and
/// those over 65504 infinite. The gradients are divided by it in f32, before they are summed, clipped and followed, so
/// that it changes nothing else (Micikevicius et al., 2018).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossScale {
    /// The same in every step. A step whose gradients are not finite is an error.
    Constant(f64),
    /// As `torch.amp.GradScaler` has it: a step whose gradients are not finite is skipped, which changes no parameter and nothing
    /// that the optimizer keeps, and the scale is multiplied by `backoff`; after `interval` steps in a row that were
    /// taken it is multiplied by `growth`, unless that is infinite. All of it happens on the device. A skipped step
    /// counts for the schedule, and not for the optimizer: Adam's t is the number of steps that were taken.
    ///
    /// A step that would be skipped at a scale of 2⁻²⁰ or less is an error: its gradients don't overflow, they are not finite.
    Dynamic {
        /// The first scale.
        initial: f64,
        /// What it is multiplied by after good steps, over 1.
        growth: f64,
        /// What it is multiplied by after a skipped step, between 0 and 1.
        backoff: f64,
        /// How many steps in a row are to be taken before it grows, from 1 on.
        interval: u32,
    },
}

impl LossScale {
    /// `GradScaler`'s defaults: 65536, doubled after 2000 good steps, halved after a skipped one.
    pub const DYNAMIC: LossScale = LossScale::Dynamic { initial: 65536.0, growth: 2.0, backoff: 0.5, interval: 2000 };

    /// 2⁻²⁰: where a step is skipped at this scale or less, it is not the scale.
    pub(super) const LEAST: f64 = 1.0 / 1_048_576.0;

    pub(super) fn check(self) -> Result<()> {
        let within = |name: &str, value: f64, fits: bool, expected: &str| match fits {
            true => Ok(()),
            false => Err(Error::op("train", format!("the loss scale's {name} is {value}, expected {expected}"))),
        };
        let positive = |value: f64| (value as f32).is_finite() && value as f32 > 0.0;
        match self {
            LossScale::Constant(value) => {
                within("value", value, positive(value), "a number over 0, in the range of f32")
            }
            LossScale::Dynamic { initial, growth, backoff, interval } => {
                let fits = positive(initial) && initial > Self::LEAST;
                within("initial value", initial, fits, "a number over 2⁻²⁰, in the range of f32")?;
                within("growth", growth, positive(growth) && growth > 1.0, "a factor over 1")?;
                within("backoff", backoff, positive(backoff) && backoff < 1.0, "a factor between 0 and 1")?;
                let most = i32::MAX as u32;
                within("interval", interval.into(), (1..=most).contains(&interval), "1 to 2³¹ − 1 steps")
            }
        }
    }
}

/// A scale in a graph.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// f32 without axes.
    pub(super) factor: ValueId,
    pub(super) dynamic: Option<Dynamic>,
}

/// The states of a scale that changes, and the number of steps that were taken.
#[derive(Clone, Copy)]
pub(super) struct Dynamic {
    state: ValueId,
    good: ValueId,
    pub(super) taken: ValueId,
    growth: f64,
    backoff: f64,
    interval: u32,
}

/// The scale, in the graph that changes it.
pub(super) fn owned(g: &mut Graph, scale: LossScale) -> Result<Scale> {
    match scale {
        LossScale::Constant(value) => constant(g, value),
        LossScale::Dynamic { initial, growth, backoff, interval } => {
            let state = g.input(names::SCALE, DType::F32, [])?;
            let good = g.input(names::GOOD_STEPS, DType::I32, [])?;
            let taken = g.input(names::TAKEN, DType::I32, [])?;
            let dynamic = Some(Dynamic { state, good, taken, growth, backoff, interval });
            Ok(Scale { factor: begun(g, state, initial)?, dynamic })
        }
    }
}

/// The scale, in a graph that is given it.
pub(super) fn given(g: &mut Graph, scale: LossScale) -> Result<Scale> {
    match scale {
        LossScale::Constant(value) => constant(g, value),
        LossScale::Dynamic { initial, .. } => {
            let state = g.parameter(names::SCALE, DType::F32, [])?;
            Ok(Scale { factor: begun(g, state, initial)?, dynamic: None })
        }
    }
}

fn constant(g: &mut Graph, value: f64) -> Result<Scale> {
    Ok(Scale { factor: g.constant(Tensor::new([], vec![value as f32])?)?, dynamic: None })
}

/// A state is zero at first, which no scale is.
fn begun(g: &mut Graph, state: ValueId, initial: f64) -> Result<ValueId> {
    let (zero, initial) = (g.scalar(0.0, state)?, g.scalar(initial, state)?);
    let unset = g.binary(Binary::Equal, state, zero)?;
    g.select(unset, initial, state)
}

impl Scale {
    /// Takes it off gradients.
    pub(super) fn taken_off(self, g: &mut Graph, grads: Vec<ValueId>) -> Result<Vec<ValueId>> {
        let one = g.scalar(1.0, self.factor)?;
        let inverse = g.div(one, self.factor)?;
        grads.into_iter().map(|grad| g.mul(grad, inverse)).collect()
    }
}

impl Dynamic {
    /// Whether the step counts though its gradients are not finite: they may be at a smaller scale.
    pub(super) fn may_skip(self, g: &mut Graph, factor: ValueId) -> Result<ValueId> {
        let least = g.scalar(LossScale::LEAST, factor)?;
        g.binary(Binary::Greater, factor, least)
    }

    /// What the states become after a step that `counts`, and was `taken` or skipped.
    pub(super) fn update(self, g: &mut Graph, factor: ValueId, counts: ValueId, taken: ValueId) -> Result<()> {
        let (zero, one) = (g.scalar(0.0, self.good)?, g.scalar(1.0, self.good)?);
        let interval = g.scalar(self.interval.into(), self.good)?;
        let good = g.add(self.good, one)?;
        let full = g.binary(Binary::Equal, good, interval)?;

        let growth = g.scalar(self.growth, factor)?;
        let grown = g.mul(factor, growth)?;
        let most = g.scalar(f32::MAX.into(), factor)?;
        let fits = g.binary(Binary::LessEqual, grown, most)?;
        let grows = g.binary(Binary::And, full, fits)?;
        let kept = g.select(grows, grown, factor)?;
        let backoff = g.scalar(self.backoff, factor)?;
        let less = g.mul(factor, backoff)?;
        let next = g.select(taken, kept, less)?;
        let next = g.select(counts, next, self.state)?;
        g.update(self.state, next)?;

        let again = g.select(full, zero, good)?;
        let next = g.select(taken, again, zero)?;
        let next = g.select(counts, next, self.good)?;
        g.update(self.good, next)?;

        let more = g.add(self.taken, one)?;
        let next = g.select(taken, more, self.taken)?;
        g.update(self.taken, next)
    }
}
