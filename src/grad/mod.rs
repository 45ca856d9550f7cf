//! Floor 2: gradients, from graph to graph.
//!
//! [`gradients`] adds to a graph the nodes that compute how a loss changes with some of its values (reverse mode). There is
//! one graph, one lowering and one plan for both: a training step is one program.
//!
//! Each operation's derivative stands beside its formula in [`Op`](crate::graph::Op). Comparisons, `argmax` and integers pass no
//! gradient. At kinks PyTorch's choice counts: 0 for `relu` and `abs` at 0, an even share for equal elements of a maximum.
//!
//! A gradient has the dtype and shape of its value. Sums over what was broadcast, and sums of the parts that come from
//! several users, are taken in f32, in a fixed order: the same run gives the same bits.
//!
//! ```
//! use tilewise::{DType, Graph, Tensor, grad::gradients, reference};
//! let mut g = Graph::new();
//! let x = g.input("x", DType::F32, [3])?;
//! let squares = g.mul(x, x)?;
//! let loss = g.reduce(tilewise::graph::Reduce::Sum, squares, &[], false)?;
//! let dx = gradients(&mut g, loss, &[x])?[0];
//! g.output("dx", dx)?;
//! let x = [("x".to_string(), Tensor::new([3], vec![1.0f32, -2.0, 3.0])?)];
//! assert_eq!(reference::evaluate(&g, &x.into())?["dx"].as_f32(), Some(&[2.0, -4.0, 6.0][..]));
//! # Ok::<(), tilewise::Error>(())
//! ```

mod append;
mod attention;
mod attention_merge;
mod attention_written_out;
mod cross_entropy;
mod dropout;
mod gather;
mod matmul;
mod norm;
mod pointwise;
mod reduce;
mod rotary;
mod rules;
mod shape;
mod softmax;
mod step;

use step::{OP, Step};

use crate::{Error, Graph, Result, Tensor, ValueId, graph::NodeId};

/// The gradient of a loss with respect to each of some values: `d loss / d value`, of the value's dtype and shape. The nodes
/// that compute it are added to the graph.
///
/// A value that the loss doesn't depend on gets a gradient of zeros; [`unreached`] names them.
///
/// ```
/// # use tilewise::{DType, Graph, Tensor, grad::gradients, reference};
/// // loss = (w·x − 1)²
/// let mut g = Graph::new();
/// let x = g.input("x", DType::F32, [1, 2])?;
/// let w = g.parameter("w", DType::F32, [1, 2])?;
/// let y = g.linear(x, w, None)?;
/// let one = g.scalar(1.0, y)?;
/// let error = g.sub(y, one)?;
/// let loss = g.mul(error, error)?;
/// let dw = gradients(&mut g, loss, &[w])?[0];
/// g.output("dw", dw)?;
/// let inputs = [("x", [1.0f32, 2.0]), ("w", [2.0, 1.0])];
/// let inputs = inputs.map(|(name, data)| (name.to_string(), Tensor::new([1, 2], data.to_vec()).unwrap()));
/// assert_eq!(reference::evaluate(&g, &inputs.into())?["dw"].as_f32(), Some(&[6.0, 12.0][..])); // 2·(4 − 1)·x
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`]
/// - if the loss is not a single float, or one of the values is no float or not of this graph;
/// - if the gradient would have to pass through an operation that has no derivative here, which it names: a quantised
///   weight, weights of classes, or attention over pages or functions.
pub fn gradients(g: &mut Graph, loss: ValueId, values: &[ValueId]) -> Result<Vec<ValueId>> {
    check(g, loss, values)?;
    let depends = depending(g, values);
    let mut parts: Vec<Vec<ValueId>> = vec![Vec::new(); g.values().len()];
    let one = g.scalar(1.0, loss)?;
    parts[loss.index()].push(g.broadcast(one, g.shape(loss).clone())?);
    let last = g.value(loss).node.index();
    for at in (0..=last).rev() {
        let node = &g.nodes()[at];
        if node.op.is_source() || !node.inputs.iter().any(|input| depends[input.index()]) {
            continue;
        }
        let outputs = node.outputs.clone();
        if outputs.iter().all(|output| parts[output.index()].is_empty()) {
            continue;
        }
        let mut grads = Vec::with_capacity(outputs.len());
        for output in outputs {
            grads.push(total(g, &mut parts[output.index()])?);
        }
        for (input, grad) in Step::new(g, NodeId(at as u32), grads, &depends).operands()? {
            parts[input.index()].push(grad);
        }
    }
    let mut found = Vec::with_capacity(values.len());
    for &value in values {
        found.push(match total(g, &mut parts[value.index()])? {
            Some(grad) => grad,
            None => {
                let zero = g.constant(Tensor::zeros(g.dtype(value), [])?)?;
                g.broadcast(zero, g.shape(value).clone())?
            }
        });
    }
    Ok(found)
}

/// Those of the values that the loss doesn't depend on: their gradient is zero whatever they are. For a parameter, that is
/// mostly a mistake.
///
/// ```
/// # use tilewise::{DType, Graph, grad::unreached};
/// let mut g = Graph::new();
/// let used = g.parameter("used", DType::F32, [1])?;
/// let forgotten = g.parameter("forgotten", DType::F32, [1])?;
/// let loss = g.mul(used, used)?;
/// assert_eq!(unreached(&g, loss, &[used, forgotten]), [forgotten]);
/// # Ok::<(), tilewise::Error>(())
/// ```
pub fn unreached(g: &Graph, loss: ValueId, values: &[ValueId]) -> Vec<ValueId> {
    let mut reached = vec![false; g.values().len()];
    reached[loss.index()] = true;
    for node in g.nodes().iter().rev() {
        if node.outputs.iter().any(|output| reached[output.index()] && g.dtype(*output).is_float()) {
            node.inputs.iter().for_each(|input| reached[input.index()] = true);
        }
    }
    values.iter().copied().filter(|value| !reached[value.index()]).collect()
}

fn check(g: &Graph, loss: ValueId, values: &[ValueId]) -> Result<()> {
    if let Some(stranger) = [&[loss], values].concat().into_iter().find(|value| value.index() >= g.values().len()) {
        return Err(Error::op(OP, format!("%{} is no value of this graph", stranger.index())));
    }
    if g.shape(loss).elements() != Some(1) || !g.dtype(loss).is_float() {
        let message = format!("the loss is {}, expected a single float: take a sum or a mean of it", g.describe(loss));
        return Err(Error::op(OP, message));
    }
    if let Some(&whole) = values.iter().find(|&&value| !g.dtype(value).is_float()) {
        return Err(Error::op(OP, format!("{} is no float, and has no gradient", g.describe(whole))));
    }
    Ok(())
}

/// Of each value, whether it is one of these or is computed from one.
fn depending(g: &Graph, values: &[ValueId]) -> Vec<bool> {
    let mut depends = vec![false; g.values().len()];
    values.iter().for_each(|value| depends[value.index()] = true);
    for node in g.nodes() {
        // What leads to these values alone is of no interest.
        if !node.op.is_source() && node.inputs.iter().any(|input| depends[input.index()]) {
            node.outputs.iter().for_each(|output| depends[output.index()] = true);
        }
    }
    depends
}

/// The sum of the parts, in the order in which they were found; it takes their place.
fn total(g: &mut Graph, parts: &mut Vec<ValueId>) -> Result<Option<ValueId>> {
    let Some(&first) = parts.first() else { return Ok(None) };
    if parts.len() > 1 {
        let dtype = g.dtype(first);
        let mut sum = step::wide(g, first)?;
        for &part in &parts[1..] {
            let part = step::wide(g, part)?;
            sum = g.add(sum, part)?;
        }
        *parts = vec![g.cast(sum, dtype)?];
    }
    Ok(Some(parts[0]))
}
