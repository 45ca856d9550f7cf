//! Functions of elements: the chain rule, an element at a time.

use super::step::Step;
use crate::{
    Graph, Result, ValueId,
    graph::{Binary, Unary},
};

/// `dx = dy · f'(x)`.
pub(super) fn unary(step: &mut Step<'_>, function: Unary) -> Result<()> {
    let Some(dy) = step.grad()? else { return Ok(()) };
    let (x, y) = (step.input(0)?, step.output(0)?);
    if let Some(dx) = chained(step.g, function, [x, y, dy])? {
        step.give(0, dx)?;
    }
    Ok(())
}

/// `dy · f'(x)`, with the formula of [`Unary`]; none where f' is 0 wherever there is one.
fn chained(g: &mut Graph, function: Unary, [x, y, dy]: [ValueId; 3]) -> Result<Option<ValueId>> {
    let dx = match function {
        Unary::Neg => g.neg(dy)?,
        Unary::Abs => {
            let sign = g.unary(Unary::Sign, x)?;
            g.mul(dy, sign)?
        }
        Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round | Unary::Not => return Ok(None),
        Unary::Exp => g.mul(dy, y)?,
        Unary::Log => g.div(dy, x)?,
        Unary::Sqrt => {
            let half = times(g, dy, 0.5)?;
            g.div(half, y)?
        }
        Unary::Rsqrt => {
            let cube = power(g, y, 3)?;
            let slope = times(g, cube, -0.5)?;
            g.mul(dy, slope)?
        }
        Unary::Reciprocal => {
            let square = g.mul(y, y)?;
            let slope = g.neg(square)?;
            g.mul(dy, slope)?
        }
        Unary::Erf => {
            let bell = bell(g, x, -1.0, std::f64::consts::FRAC_2_SQRT_PI)?;
            g.mul(dy, bell)?
        }
        Unary::Tanh => {
            let slope = one_minus_square(g, y)?;
            g.mul(dy, slope)?
        }
        Unary::Sigmoid => {
            let slope = of_sigmoid(g, y)?;
            g.mul(dy, slope)?
        }
        Unary::Relu => {
            let zero = g.scalar(0.0, x)?;
            let above = g.binary(Binary::Greater, x, zero)?;
            g.select(above, dy, zero)?
        }
        Unary::Gelu => {
            let slope = gelu(g, x)?;
            g.mul(dy, slope)?
        }
        Unary::GeluTanh => {
            let slope = gelu_tanh(g, x)?;
            g.mul(dy, slope)?
        }
        Unary::Silu => {
            // σ + x·σ·(1 − σ) = σ + y·(1 − σ)
            let sigmoid = g.sigmoid(x)?;
            let rest = one_minus(g, sigmoid)?;
            let rest = g.mul(y, rest)?;
            let slope = g.add(sigmoid, rest)?;
            g.mul(dy, slope)?
        }
        Unary::Softplus => {
            let slope = g.sigmoid(x)?;
            g.mul(dy, slope)?
        }
        Unary::Sin => {
            let slope = g.unary(Unary::Cos, x)?;
            g.mul(dy, slope)?
        }
        Unary::Cos => {
            let sine = g.unary(Unary::Sin, x)?;
            let slope = g.neg(sine)?;
            g.mul(dy, slope)?
        }
    };
    Ok(Some(dx))
}

/// Φ(x) + x·φ(x), Φ and φ the normal distribution and its density.
fn gelu(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let scaled = times(g, x, std::f64::consts::FRAC_1_SQRT_2)?;
    let erf = g.erf(scaled)?;
    let half = times(g, erf, 0.5)?;
    let below = plus(g, half, 0.5)?;
    let density = bell(g, x, -0.5, 0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2)?;
    let moved = g.mul(x, density)?;
    g.add(below, moved)
}

/// With u = √(2/π)·(x + 0.044715·x³) and t = tanh u: (1 + t)/2 + x/2·(1 − t²)·√(2/π)·(1 + 3·0.044715·x²).
fn gelu_tanh(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    const CUBIC: f64 = 0.044715;
    let factor = (2.0 / std::f64::consts::PI).sqrt();
    // Past 20 all is constant, and the cube may overflow.
    let edge = g.scalar(20.0, x)?;
    let (size, sign) = (g.abs(x)?, g.unary(Unary::Sign, x)?);
    let far = g.binary(Binary::Greater, size, edge)?;
    let end = g.mul(sign, edge)?;
    let x = g.select(far, end, x)?;

    let square = g.mul(x, x)?;
    let bent = times(g, square, CUBIC)?;
    let bent = plus(g, bent, 1.0)?;
    let u = g.mul(x, bent)?;
    let u = times(g, u, factor)?;
    let t = g.tanh(u)?;
    let half = times(g, t, 0.5)?;
    let first = plus(g, half, 0.5)?;

    let steep = times(g, square, 3.0 * CUBIC)?;
    let steep = plus(g, steep, 1.0)?;
    let slope = one_minus_square(g, t)?;
    let second = g.mul(x, slope)?;
    let second = g.mul(second, steep)?;
    let second = times(g, second, 0.5 * factor)?;
    g.add(first, second)
}

/// The gradients of both operands, each summed over what was broadcast.
pub(super) fn binary(step: &mut Step<'_>, function: Binary) -> Result<()> {
    let Some(dy) = step.grad()? else { return Ok(()) };
    for operand in 0..2 {
        if !step.wanted[operand] {
            continue;
        }
        let [a, b] = [step.input(0)?, step.input(1)?];
        let g = &mut *step.g;
        let (own, other) = if operand == 0 { (a, b) } else { (b, a) };
        let grad = match function {
            Binary::Add => dy,
            Binary::Sub if operand == 0 => dy,
            Binary::Sub => g.neg(dy)?,
            Binary::Mul => g.mul(dy, other)?,
            Binary::Div if operand == 0 => g.div(dy, b)?,
            Binary::Div => {
                // −a/b² = −y/b
                let y = step.output(0)?;
                let g = &mut *step.g;
                let quotient = g.div(y, b)?;
                let slope = g.neg(quotient)?;
                g.mul(dy, slope)?
            }
            Binary::Max => chosen(g, Binary::Less, [own, other, dy])?,
            Binary::Min => chosen(g, Binary::Greater, [own, other, dy])?,
            Binary::Pow if operand == 0 => {
                // b·a^(b − 1), and 0 for b = 0 whatever a is.
                let zero = g.scalar(0.0, b)?;
                let lower = plus(g, b, -1.0)?;
                let power = g.pow(a, lower)?;
                let slope = g.mul(b, power)?;
                let constant = g.binary(Binary::Equal, b, zero)?;
                let slope = g.select(constant, zero, slope)?;
                g.mul(dy, slope)?
            }
            Binary::Pow => {
                // y·ln a, and 0 for a = 0 and b ≥ 0.
                let y = step.output(0)?;
                let g = &mut *step.g;
                let zero = g.scalar(0.0, a)?;
                let log = g.log(a)?;
                let slope = g.mul(y, log)?;
                let (empty, positive) = (g.binary(Binary::Equal, a, zero)?, g.binary(Binary::GreaterEqual, b, zero)?);
                let constant = g.binary(Binary::And, empty, positive)?;
                let slope = g.select(constant, zero, slope)?;
                g.mul(dy, slope)?
            }
            Binary::Equal
            | Binary::NotEqual
            | Binary::Less
            | Binary::LessEqual
            | Binary::Greater
            | Binary::GreaterEqual
            | Binary::And
            | Binary::Or
            | Binary::Xor => continue,
        };
        step.give(operand, grad)?;
    }
    Ok(())
}

/// The share of one of two operands of which the larger or the smaller was taken: nothing where it lost, half where they
/// are equal.
fn chosen(g: &mut Graph, loses: Binary, [own, other, dy]: [ValueId; 3]) -> Result<ValueId> {
    let zero = g.scalar(0.0, dy)?;
    let half = times(g, dy, 0.5)?;
    let (lost, equal) = (g.binary(loses, own, other)?, g.binary(Binary::Equal, own, other)?);
    let won = g.select(equal, half, dy)?;
    g.select(lost, zero, won)
}

/// `da = condition ? dy : 0`, `db = condition ? 0 : dy`.
pub(super) fn choose(step: &mut Step<'_>) -> Result<()> {
    let Some(dy) = step.grad()? else { return Ok(()) };
    let condition = step.inputs[0];
    let zero = step.g.scalar(0.0, dy)?;
    if step.wanted[1] {
        let grad = step.g.select(condition, dy, zero)?;
        step.give(1, grad)?;
    }
    if step.wanted[2] {
        let grad = step.g.select(condition, zero, dy)?;
        step.give(2, grad)?;
    }
    Ok(())
}

/// The same in the operand's dtype.
pub(super) fn cast(step: &mut Step<'_>) -> Result<()> {
    match step.grads[0] {
        Some(dy) => step.give(0, dy),
        None => Ok(()),
    }
}

/// `height · e^(factor · x²)`.
fn bell(g: &mut Graph, x: ValueId, factor: f64, height: f64) -> Result<ValueId> {
    let square = g.mul(x, x)?;
    let exponent = times(g, square, factor)?;
    let exp = g.exp(exponent)?;
    times(g, exp, height)
}

/// y·(1 − y)
fn of_sigmoid(g: &mut Graph, y: ValueId) -> Result<ValueId> {
    let rest = one_minus(g, y)?;
    g.mul(y, rest)
}

/// 1 − y²
fn one_minus_square(g: &mut Graph, y: ValueId) -> Result<ValueId> {
    let square = g.mul(y, y)?;
    one_minus(g, square)
}

fn one_minus(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let one = g.scalar(1.0, x)?;
    g.sub(one, x)
}

fn power(g: &mut Graph, x: ValueId, exponent: usize) -> Result<ValueId> {
    (1..exponent).try_fold(x, |product, _| g.mul(product, x))
}

pub(super) fn times(g: &mut Graph, x: ValueId, factor: f64) -> Result<ValueId> {
    let factor = g.scalar(factor, x)?;
    g.mul(x, factor)
}

fn plus(g: &mut Graph, x: ValueId, term: f64) -> Result<ValueId> {
    let term = g.scalar(term, x)?;
    g.add(x, term)
}
