use crate::{DType, Error, Graph, Result, ValueId, graph::Binary};

/// How a parameter follows its gradient. Each is PyTorch's, in PyTorch's order of operations, in f32; θ is the parameter, g its
/// gradient, η the learning rate and λ the weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// `torch.optim.SGD`.
    Sgd(Sgd),
    /// `torch.optim.Adam`, or `AdamW` where the decay is decoupled.
    Adam(Adam),
}

/// `g ← g + λ·θ; b ← μ·b + (1 − τ)·g, in the first step b ← g; θ ← θ − η·b`, with Nesterov's momentum `θ ← θ − η·(g + μ·b)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// η
    pub rate: f64,
    /// μ; with 0 there is no buffer b.
    pub momentum: f64,
    /// τ
    pub dampening: f64,
    /// Looks ahead by one step (Sutskever et al., 2013).
    pub nesterov: bool,
    /// λ
    pub weight_decay: f64,
}

/// `m ← m + (1 − β₁)·(g − m); v ← β₂·v + (1 − β₂)·g²; θ ← θ − η/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε)` in step t (Kingma and Ba, 2015).
///
/// The decay is part of the gradient, `g ← g + λ·θ`, or decoupled: `θ ← θ·(1 − η·λ)` before the step (AdamW; Loshchilov and Hutter,
/// 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// η
    pub rate: f64,
    /// β₁ and β₂
    pub betas: [f64; 2],
    /// ε
    pub epsilon: f64,
    /// λ
    pub weight_decay: f64,
    /// AdamW.
    pub decoupled: bool,
}

impl Sgd {
    /// Without momentum and decay.
    pub fn new(rate: f64) -> Self {
        Sgd { rate, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
    }
}

impl Adam {
    /// PyTorch's defaults, without decay.
    pub fn new(rate: f64) -> Self {
        Adam { rate, betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.0, decoupled: false }
    }

    /// AdamW with PyTorch's defaults, λ = 0.01.
    pub fn w(rate: f64) -> Self {
        Adam { weight_decay: 0.01, decoupled: true, ..Adam::new(rate) }
    }
}

impl From<Sgd> for Optimizer {
    fn from(sgd: Sgd) -> Self {
        Optimizer::Sgd(sgd)
    }
}

impl From<Adam> for Optimizer {
    fn from(adam: Adam) -> Self {
        Optimizer::Adam(adam)
    }
}

/// The numbers that differ from step to step; the host computes them in f64.
pub(super) const RATES: usize = 3;

impl Optimizer {
    /// η
    pub fn rate(&self) -> f64 {
        match self {
            Optimizer::Sgd(sgd) => sgd.rate,
            Optimizer::Adam(adam) => adam.rate,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let from_0_on = |name: &str, value: f64| match value.is_finite() && value >= 0.0 {
            true => Ok(()),
            false => Err(Error::op("train", format!("the optimizer's {name} is {value}, expected a number from 0 on"))),
        };
        let below_1 = |name: &str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(Error::op("train", format!("the optimizer's {name} is {value}, expected 0 ≤ {name} < 1"))),
        };
        match self {
            Optimizer::Sgd(o) => {
                from_0_on("rate", o.rate)?;
                from_0_on("weight decay", o.weight_decay)?;
                from_0_on("momentum", o.momentum)?;
                below_1("dampening", o.dampening)?;
                if o.nesterov && (o.momentum == 0.0 || o.dampening != 0.0) {
                    return Err(Error::op("train", "Nesterov's momentum needs a momentum, and no dampening"));
                }
            }
            Optimizer::Adam(o) => {
                from_0_on("rate", o.rate)?;
                from_0_on("weight decay", o.weight_decay)?;
                from_0_on("ε", o.epsilon)?;
                below_1("β₁", o.betas[0])?;
                below_1("β₂", o.betas[1])?;
            }
        }
        Ok(())
    }

    /// The numbers of step `t`, from 1 on, at this factor of the rate.
    pub(super) fn rates(&self, t: u64, factor: f64) -> [f64; RATES] {
        let rate = self.rate() * factor;
        match self {
            Optimizer::Sgd(o) => [-rate, if t == 1 { 1.0 } else { 1.0 - o.dampening }, 0.0],
            Optimizer::Adam(o) => {
                let correction = o.betas.map(|beta| 1.0 - beta.powf(t as f64));
                [-rate / correction[0], correction[1].sqrt(), 1.0 - rate * o.weight_decay]
            }
        }
    }

    /// [`Optimizer::rates`] without what depends on the number of steps, which [`Optimizer::rates_after`] adds.
    pub(super) fn rates_of_any_step(&self, factor: f64) -> [f64; RATES] {
        let rate = self.rate() * factor;
        match self {
            Optimizer::Sgd(o) => [-rate, 1.0 - o.dampening, 0.0],
            Optimizer::Adam(o) => [-rate, 1.0, 1.0 - rate * o.weight_decay],
        }
    }

    /// The numbers of a step after so many that were `taken`, i32, of those of any step.
    pub(super) fn rates_after(
        &self,
        g: &mut Graph,
        rates: [ValueId; RATES],
        taken: ValueId,
    ) -> Result<[ValueId; RATES]> {
        match self {
            Optimizer::Sgd(_) => {
                let (none, one) = (g.scalar(0.0, taken)?, g.scalar(1.0, rates[1])?);
                let first = g.binary(Binary::Equal, taken, none)?;
                Ok([rates[0], g.select(first, one, rates[1])?, rates[2]])
            }
            Optimizer::Adam(o) => {
                let one = g.scalar(1.0, taken)?;
                let t = g.add(taken, one)?;
                let t = g.cast(t, DType::F32)?;
                let [first, second] = o.betas.map(|beta| {
                    // 1 − βᵗ = 2h/(1 + h) for h = tanh(−t·ln β/2): no digit is lost where βᵗ is nearly 1.
                    let half = g.scalar((-beta.ln() / 2.0).min(100.0), t)?;
                    let half = g.mul(t, half)?;
                    let h = g.tanh(half)?;
                    let one = g.scalar(1.0, h)?;
                    let (twice, over) = (g.add(h, h)?, g.add(one, h)?);
                    g.div(twice, over)
                });
                let (first, second) = (first?, second?);
                Ok([g.div(rates[0], first)?, g.sqrt(second)?, rates[2]])
            }
        }
    }

    /// What a parameter in f32 becomes, and the states that the optimizer keeps for it; `rates` are scalars.
    pub(super) fn update(&self, f: &mut Formula<'_>, name: &str, value: ValueId, grad: ValueId) -> Result<ValueId> {
        let rates = f.rates;
        match self {
            Optimizer::Sgd(o) => {
                let grad = f.axpy(o.weight_decay, value, grad)?;
                let mut step = grad;
                if o.momentum > 0.0 {
                    let before = f.state("momentum_buffer", name, value)?;
                    let kept = f.times(o.momentum, before)?;
                    let new = f.g.mul(grad, rates[1])?;
                    let buffer = f.g.add(kept, new)?;
                    let buffer = f.becomes(before, buffer)?;
                    step = if o.nesterov { f.axpy(o.momentum, buffer, grad)? } else { buffer };
                }
                let moved = f.g.mul(step, rates[0])?;
                f.g.add(value, moved)
            }
            Optimizer::Adam(o) => {
                let (value, grad) = match o.decoupled {
                    true if o.weight_decay > 0.0 => (f.g.mul(value, rates[2])?, grad),
                    true => (value, grad),
                    false => (value, f.axpy(o.weight_decay, value, grad)?),
                };
                let m = f.state("exp_avg", name, value)?;
                let apart = f.g.sub(grad, m)?;
                let next = f.axpy(1.0 - o.betas[0], apart, m)?;
                let first = f.becomes(m, next)?;
                let v = f.state("exp_avg_sq", name, value)?;
                let kept = f.times(o.betas[1], v)?;
                let new = f.times(1.0 - o.betas[1], grad)?;
                let new = f.g.mul(new, grad)?;
                let next = f.g.add(kept, new)?;
                let second = f.becomes(v, next)?;
                let root = f.g.sqrt(second)?;
                let root = f.g.div(root, rates[1])?;
                let epsilon = f.g.scalar(o.epsilon, root)?;
                let root = f.g.add(root, epsilon)?;
                let moved = f.g.mul(first, rates[0])?;
                let moved = f.g.div(moved, root)?;
                f.g.add(value, moved)
            }
        }
    }
}

/// Where an optimizer's formulas are written.
pub(super) struct Formula<'a> {
    pub(super) g: &'a mut Graph,
    pub(super) rates: [ValueId; RATES],
    /// Where this is false, everything stays as it was.
    pub(super) goes_on: ValueId,
}

impl Formula<'_> {
    /// A state in f32, zero at first, of the shape of a parameter: `kind/name`.
    fn state(&mut self, kind: &str, name: &str, like: ValueId) -> Result<ValueId> {
        let shape = self.g.shape(like).clone();
        self.g.input(&format!("{kind}/{name}"), DType::F32, shape)
    }

    /// Makes a state become a value, unless the step is left out; what it becomes.
    pub(super) fn becomes(&mut self, state: ValueId, next: ValueId) -> Result<ValueId> {
        let next = self.g.select(self.goes_on, next, state)?;
        self.g.update(state, next)?;
        Ok(next)
    }

    fn times(&mut self, factor: f64, x: ValueId) -> Result<ValueId> {
        let factor = self.g.scalar(factor, x)?;
        self.g.mul(x, factor)
    }

    /// `y + a·x`
    fn axpy(&mut self, a: f64, x: ValueId, y: ValueId) -> Result<ValueId> {
        if a == 0.0 {
            return Ok(y);
        }
        let x = self.times(a, x)?;
        self.g.add(y, x)
    }
}
