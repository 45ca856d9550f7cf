//! Steps of optimizers: the operands are R, T, then all X, all G and the states.

use tilewise::ValueId;

use super::{
    import::{Builder, Call, Result, Slot},
    pointwise::{scaled, shifted},
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "Adagrad" => |c| each(c, adagrad),
        "Adam" => |c| each(c, adam),
        "Momentum" => |c| each(c, momentum),
        _ => return None,
    })
}

/// What one tensor's step is given.
#[derive(Clone, Copy)]
struct Step {
    rate: ValueId,
    /// How many updates came before.
    count: i64,
    x: ValueId,
    gradient: ValueId,
}

/// The new tensor, then its new states.
type Update<const STATES: usize> = fn(&mut Call<'_>, Step, [ValueId; STATES]) -> Result<Vec<ValueId>>;

fn each<const STATES: usize>(c: &mut Call<'_>, update: Update<STATES>) -> Result<Vec<Slot>> {
    let (rate, count) = (c.x(0)?, c.read(1)?.unwrap_or_default()[0]);
    let n = (c.node.inputs.len() - 2) / (2 + STATES);
    let mut results = vec![Vec::new(); 1 + STATES];
    for i in 0..n {
        let (x, gradient) = (c.x(2 + i)?, c.x(2 + n + i)?);
        // The gradient of the norm of x is part of the loss.
        let decay = c.float("norm_coefficient")?;
        let decay = scaled(c, x, decay)?;
        let gradient = c.g().add(decay, gradient)?;
        let mut states = [x; STATES];
        for (s, state) in states.iter_mut().enumerate() {
            *state = c.x(2 + (2 + s) * n + i)?;
        }
        let new = update(c, Step { rate, count, x, gradient }, states)?;
        results.iter_mut().zip(new).for_each(|(list, value)| list.push(value.into()));
    }
    Ok(results.concat())
}

fn adagrad(c: &mut Call<'_>, step: Step, [squares]: [ValueId; 1]) -> Result<Vec<ValueId>> {
    let rate = scaled(c, step.rate, 1.0 / (1.0 + step.count as f64 * c.float("decay_factor")?))?;
    let square = c.g().mul(step.gradient, step.gradient)?;
    let squares = c.g().add(squares, square)?;
    let root = c.g().sqrt(squares)?;
    let root = shifted(c, root, c.float("epsilon")?)?;
    let change = c.g().mul(rate, step.gradient)?;
    let change = c.g().div(change, root)?;
    Ok(vec![c.g().sub(step.x, change)?, squares])
}

fn adam(c: &mut Call<'_>, step: Step, [first, second]: [ValueId; 2]) -> Result<Vec<ValueId>> {
    let (alpha, beta) = (c.float("alpha")?, c.float("beta")?);
    let square = c.g().mul(step.gradient, step.gradient)?;
    let first = mixed(c, first, alpha, step.gradient)?;
    let second = mixed(c, second, beta, square)?;
    let unbias = match step.count {
        0 => 1.0,
        count => (1.0 - beta.powf(count as f64)).sqrt() / (1.0 - alpha.powf(count as f64)),
    };
    let rate = scaled(c, step.rate, unbias)?;
    let root = c.g().sqrt(second)?;
    let root = shifted(c, root, c.float("epsilon")?)?;
    let change = c.g().mul(rate, first)?;
    let change = c.g().div(change, root)?;
    let x = c.g().sub(step.x, change)?;
    let x = scaled(c, x, 1.0 - c.float("norm_coefficient_post")?)?;
    Ok(vec![x, first, second])
}

/// `old · keep + new · (1 − keep)`
fn mixed(c: &mut Call<'_>, old: ValueId, keep: f64, new: ValueId) -> Result<ValueId> {
    let (old, new) = (scaled(c, old, keep)?, scaled(c, new, 1.0 - keep)?);
    Ok(c.g().add(old, new)?)
}

fn momentum(c: &mut Call<'_>, step: Step, [velocity]: [ValueId; 1]) -> Result<Vec<ValueId>> {
    let (alpha, beta) = (c.float("alpha")?, c.float("beta")?);
    let push = scaled(c, step.gradient, if step.count > 0 { beta } else { 1.0 })?;
    let kept = scaled(c, velocity, alpha)?;
    let velocity = c.g().add(kept, push)?;
    let direction = match c.node.text("mode") {
        Some("nesterov") => {
            let ahead = scaled(c, velocity, alpha)?;
            c.g().add(step.gradient, ahead)?
        }
        _ => velocity,
    };
    let change = c.g().mul(step.rate, direction)?;
    Ok(vec![c.g().sub(step.x, change)?, velocity])
}
