//! Losses of classification.

use tilewise::{
    ValueId,
    graph::{Binary, Reduce, Unary},
};

use super::import::{Builder, Call, Result};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "SoftmaxCrossEntropyLoss" => |c| {
            let x = c.x(0)?;
            let log_p = c.g().log_softmax(x, 1)?;
            Ok(vec![negative_log_likelihood(c, log_p)?.into(), log_p.into()])
        },
        "NegativeLogLikelihoodLoss" => |c| {
            let log_p = c.x(0)?;
            Ok(vec![negative_log_likelihood(c, log_p)?.into()])
        },
        _ => return None,
    })
}

/// `−weight[t]·log_p[n, t, …]` for the class `t` of each place, and its sum or weighted mean; classes lie along axis 1.
fn negative_log_likelihood(c: &mut Call<'_>, log_p: ValueId) -> Result<ValueId> {
    let (target, weight) = (c.index(1)?, c.optional(2)?);
    let (shape, places) = (c.shape(log_p), c.shape(target));
    let [n, classes, ..] = shape[..] else { return c.fault(format!("{shape} has no classes")) };
    let inner: usize = shape[2..].iter().product();

    // One class of each place counts, unless it is the one to ignore.
    let (log_p, target) = (c.g().reshape(log_p, [n, classes, inner])?, c.g().reshape(target, [n, 1, inner])?);
    let class = c.iota(classes)?;
    let class = c.g().reshape(class, [classes, 1])?;
    let mut counts = c.g().binary(Binary::Equal, target, class)?;
    if let Some(ignored) = c.node.int("ignore_index") {
        let ignored = c.g().scalar(ignored as f64, target)?;
        let ignored = c.g().binary(Binary::Equal, target, ignored)?;
        let kept = c.g().unary(Unary::Not, ignored)?;
        counts = c.g().binary(Binary::And, counts, kept)?;
    }
    let g = c.g();
    let (zero, unit) = (g.scalar(0.0, log_p)?, g.scalar(1.0, log_p)?);
    let weight = match weight {
        Some(weight) => g.reshape(weight, [classes, 1])?,
        None => unit,
    };
    let weight = g.select(counts, weight, zero)?;
    let cost = g.neg(log_p)?;
    let cost = g.mul(cost, weight)?;
    match c.node.text("reduction") {
        Some("none") => {
            let cost = c.g().reduce(Reduce::Sum, cost, &[1], false)?;
            Ok(c.g().reshape(cost, places)?)
        }
        Some("sum") => Ok(c.g().reduce(Reduce::Sum, cost, &[], false)?),
        Some("mean") | None => {
            let g = c.g();
            let weight = g.broadcast(weight, [n, classes, inner])?;
            let (cost, weight) = (g.reduce(Reduce::Sum, cost, &[], false)?, g.reduce(Reduce::Sum, weight, &[], false)?);
            Ok(g.div(cost, weight)?)
        }
        Some(other) => c.fault(format!("the reduction `{other}`")),
    }
}
