//! Floor 2: what each operation means, on the CPU, by its plain formula.
//!
//! The graph is evaluated as it was built, node by node, without fusion. [`evaluate`] gives the right outputs;
//! [`Evaluation`] also keeps every value in between, in the arithmetic of your choice:
//!
//! - `Evaluation::<f64>` is the reference. Floats are f64 from the inputs to the outputs, whatever their dtype; only
//!   casts and constants round. Integers and booleans are exact.
//! - `Evaluation::<f32>` is a plain f32 evaluation: rounded after every operation, and to f16 or bf16 where a value of
//!   that dtype is stored. Its distance from the reference is the natural error; see [`compare`].
//!
//! One file a kernel family, and the function of each operation is public, so that any kernel can be checked:
//!
//! ```
//! use tilewise::{Tensor, graph::Op, reference::{self, Value, compare}};
//! let a = Tensor::new([1, 2], vec![1.0f32, 2.0])?;
//! let b = Tensor::new([2, 1], vec![0.5f32, 0.25])?;
//! let op = Op::Matmul { transpose_a: false, transpose_b: false };
//! let results = reference::apply::<f64>(&op, &[&Value::from(&a), &Value::from(&b)])?;
//! assert_eq!(results[0].to_f64(), [1.0]);
//!
//! let mine = Tensor::new([1, 1], vec![1.0f32])?;
//! compare::op(&op, &[&a, &b], &[&mine])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod append;
mod attention;
mod attention_grad;
mod attention_merge;
pub mod compare;
mod copy;
mod cross_entropy;
mod dequantize;
mod dropout;
mod gather;
mod matmul;
mod memory;
mod norm;
mod pointwise;
mod random;
mod real;
mod reduce;
mod rotary;
mod scatter_add;
mod shapes;
mod softmax;
mod value;

use std::collections::BTreeMap;

pub use append::{append, append_paged};
pub use attention::attention;
pub use attention_grad::attention_grad;
pub use attention_merge::attention_merge;
pub use copy::{broadcast, concat, pad, permute, reshape, slice};
pub use cross_entropy::cross_entropy;
pub use dequantize::dequantize;
pub use dropout::{dropout, philox};
pub use gather::gather;
pub use matmul::matmul;
pub use norm::{layer_norm, rms_norm};
pub use pointwise::{binary, cast, choose, unary, unary_float};
pub use random::Random;
pub use real::Real;
pub use reduce::{argmax, reduce};
pub use rotary::rotary;
pub use scatter_add::scatter_add;
pub use softmax::{log_softmax, softmax};
pub use value::{Array, Value};

use crate::{
    DType, Error, Graph, Result, Shape, Tensor, ValueId,
    graph::{Op, infer},
};

/// The outputs of a graph by name, each rounded once to its dtype. `inputs` are the graph's inputs and parameters;
/// states may be given too, and are zero otherwise.
///
/// ```
/// use std::collections::BTreeMap;
/// use tilewise::{DType, Graph, Tensor, reference};
/// let mut g = Graph::new();
/// let x = g.input("x", DType::F32, [3])?;
/// let y = g.softmax(x, -1)?;
/// g.output("y", y)?;
/// let inputs = BTreeMap::from([("x".to_string(), Tensor::new([3], vec![5.0f32; 3])?)]);
/// let outputs = reference::evaluate(&g, &inputs)?;
/// assert_eq!(outputs["y"].as_f32(), Some(&[1.0 / 3.0; 3][..]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Binding`] with every input that is missing, unknown or of another dtype or shape; [`Error::Op`] if a
/// function of scores or masks has no twin in Rust; [`Error::Limit`] if the values take more memory than there is.
pub fn evaluate(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let evaluation = Evaluation::<f64>::new(graph, inputs)?;
    graph.outputs().iter().map(|(name, value)| Ok((name.clone(), evaluation.value(*value).to_tensor()?))).collect()
}

/// The outputs of a graph by name in f64, not rounded: what to compare with.
///
/// ```
/// # use tilewise::{Graph, Tensor, reference};
/// # let mut g = Graph::new();
/// let x = g.constant(Tensor::new([3], vec![5.0f32; 3])?)?;
/// let y = g.softmax(x, -1)?;
/// g.output("y", y)?;
/// assert_eq!(reference::evaluate_f64(&g, &Default::default())?["y"].to_f64(), [1.0 / 3.0; 3]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_f64(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Value<f64>>> {
    Ok(Evaluation::<f64>::new(graph, inputs)?.into_outputs(graph))
}

/// Every value of a graph, in one arithmetic.
#[derive(Clone, Debug)]
pub struct Evaluation<R> {
    values: Vec<Value<R>>,
}

impl<R: Real> Evaluation<R> {
    /// Evaluates every node. `inputs` are the graph's inputs and parameters; states may be given too, and are zero
    /// otherwise.
    ///
    /// ```
    /// # use tilewise::{Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let x = g.constant(Tensor::new([2], vec![0.1f32, 0.2])?)?;
    /// let y = g.mul(x, x)?;
    /// let exact = Evaluation::<f64>::new(&g, &Default::default())?;
    /// let plain = Evaluation::<f32>::new(&g, &Default::default())?;
    /// let error = exact.value(y).to_f64()[0] - plain.value(y).to_f64()[0];
    /// assert!(error.abs() < 1e-9 && error != 0.0); // f32 rounds the product
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn new(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Result<Self> {
        check_inputs(graph, inputs)?;
        memory::check::<R>(graph)?;
        let mut values: Vec<Value<R>> = Vec::with_capacity(graph.values().len());
        for node in graph.nodes() {
            let results = if let Op::Input { .. } | Op::Parameter { .. } = node.op {
                let value = node.outputs[0];
                let name = graph.label(value);
                match inputs.get(&name) {
                    Some(tensor) => vec![Value::from(tensor)],
                    None if graph.update_of(value).is_some() && matches!(node.op, Op::Input { .. }) => {
                        vec![Value::from(&Tensor::zeros(graph.dtype(value), graph.shape(value))?)]
                    }
                    None => return Err(Error::Binding(format!("`{name}` is missing"))),
                }
            } else {
                let operands: Vec<&Value<R>> = node.inputs.iter().map(|input| &values[input.index()]).collect();
                apply(&node.op, &operands)?
            };
            values.extend(results);
        }
        Ok(Evaluation { values })
    }

    /// A value of the graph that was evaluated.
    ///
    /// # Panics
    /// If that graph has no such value.
    pub fn value(&self, value: ValueId) -> &Value<R> {
        &self.values[value.index()]
    }

    /// All values, in the graph's order.
    pub fn values(&self) -> &[Value<R>] {
        &self.values
    }

    /// The states of `graph`, the one that was evaluated, after the run, by name and rounded to their dtypes: inputs of
    /// the next.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let count = g.input("count", DType::I32, [1])?;
    /// let one = g.scalar(1.0, count)?;
    /// let next = g.add(count, one)?;
    /// g.update(count, next)?;
    /// let first = Evaluation::<f64>::new(&g, &Default::default())?.states(&g)?;
    /// let second = Evaluation::<f64>::new(&g, &first)?.states(&g)?;
    /// assert_eq!(second["count"].as_i32(), Some(&[2][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// None: it returns a `Result` because [`Value::to_tensor`] does.
    ///
    /// # Panics
    /// If `graph` is another graph that has more values.
    pub fn states(&self, graph: &Graph) -> Result<BTreeMap<String, Tensor>> {
        graph.states().map(|(name, _, next)| Ok((name.to_string(), self.value(next).to_tensor()?))).collect()
    }

    /// The outputs of `graph`, the one that was evaluated, by name.
    ///
    /// # Panics
    /// If `graph` is another graph that has more values.
    pub fn into_outputs(self, graph: &Graph) -> BTreeMap<String, Value<R>> {
        graph.outputs().iter().map(|(name, value)| (name.clone(), self.value(*value).clone())).collect()
    }
}

/// The results of one operation for these operands.
///
/// ```
/// use tilewise::{Tensor, graph::Op, reference::{Value, apply}};
/// let x = Value::<f64>::from(&Tensor::new([2], vec![1.0f32, 3.0])?);
/// let op = Op::LayerNorm { axes: 1, epsilon: 0.0, weight: false, bias: false };
/// let [y, mean, rstd] = &apply(&op, &[&x])?[..] else { panic!("three results") };
/// assert_eq!((y.to_f64(), mean.to_f64(), rstd.to_f64()), (vec![-1.0, 1.0], vec![2.0], vec![1.0]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if the operands don't fit ([`infer`]), for [`Op::Input`] and [`Op::Parameter`], which compute nothing,
/// or if a function of scores or masks has no twin in Rust.
pub fn apply<R: Real>(op: &Op, operands: &[&Value<R>]) -> Result<Vec<Value<R>>> {
    let shapes: Vec<(DType, &Shape)> = operands.iter().map(|value| (value.dtype(), value.shape())).collect();
    let results = infer(op, &shapes)?;
    let floats = |i: usize| {
        let wrong = || Error::dtype(op.name(), &format!("operand {i}"), operands[i].dtype(), "f32, f16 or bf16");
        operands[i].floats().ok_or_else(wrong)
    };
    // Float results, in the order of the node's outputs, take the dtypes that inference gives.
    let stored = |arrays: Vec<Array<R>>| -> Result<Vec<Value<R>>> {
        let typed = arrays.into_iter().zip(&results);
        Ok(typed.map(|(array, &(dtype, _))| Value::Float { dtype, array: array.map(|x| x.stored(dtype)) }).collect())
    };
    // The same function of an array, whatever its elements are.
    macro_rules! moved {
        ($x:expr, $array:ident => $f:expr) => {
            vec![match $x {
                Value::Float { dtype, array: $array } => Value::Float { dtype: *dtype, array: $f },
                Value::I32($array) => Value::I32($f),
                Value::U32($array) => Value::U32($f),
                Value::Bool($array) => Value::Bool($f),
            }]
        };
    }
    Ok(match op {
        Op::Input { .. } | Op::Parameter { .. } => {
            return Err(Error::op(op.name(), "its value is given by name, not computed"));
        }
        Op::Constant { value } => vec![Value::from(value)],
        Op::Matmul { transpose_a, transpose_b } => {
            stored(vec![matmul(floats(0)?, floats(1)?, *transpose_a, *transpose_b)?])?
        }
        Op::Attention(options) => {
            let (out, lse, status) = attention(options, floats(0)?, floats(1)?, floats(2)?, &operands[3..])?;
            let mut values = stored(vec![out, lse])?;
            values.push(Value::I32(status));
            values
        }
        Op::AttentionGrad(options) => {
            let (rest, [dout, statistics]) =
                (operands.len().saturating_sub(2), [2, 1].map(|back| operands.len() - back));
            let x = [floats(0)?, floats(1)?, floats(2)?];
            stored(attention_grad(options, x, &operands[3..rest], floats(dout)?, floats(statistics)?)?)?
        }
        Op::AttentionMerge => {
            let (out, lse) = attention_merge(floats(0)?, floats(1)?)?;
            stored(vec![out, lse])?
        }
        Op::LayerNorm { axes, epsilon, weight, bias } => {
            let weight_array = weight.then(|| floats(1)).transpose()?;
            let bias_array = bias.then(|| floats(1 + usize::from(*weight))).transpose()?;
            let (y, mean, rstd) = layer_norm(floats(0)?, weight_array, bias_array, *axes, *epsilon)?;
            stored(vec![y, mean, rstd])?
        }
        Op::RmsNorm { axes, epsilon, weight } => {
            let weight = weight.then(|| floats(1)).transpose()?;
            let (y, rstd) = rms_norm(floats(0)?, weight, *axes, *epsilon)?;
            stored(vec![y, rstd])?
        }
        Op::Softmax { axis } => stored(vec![softmax(floats(0)?, *axis)?])?,
        Op::LogSoftmax { axis } => stored(vec![log_softmax(floats(0)?, *axis)?])?,
        Op::CrossEntropy { ignore, smoothing, weight } => {
            let wrong = || Error::dtype("cross_entropy", "targets", operands[1].dtype(), "i32");
            let targets = operands[1].i32s().ok_or_else(wrong)?;
            let weight = weight.then(|| floats(2)).transpose()?;
            let (loss, lse, weights) = cross_entropy(floats(0)?, targets, weight, *ignore, *smoothing)?;
            stored(vec![loss, lse, weights])?
        }
        Op::Unary { function } => vec![unary(*function, operands[0])?.stored()],
        Op::Binary { function } => vec![binary(*function, operands[0], operands[1])?.stored()],
        Op::Where => {
            let wrong = || Error::dtype("where", "condition", operands[0].dtype(), "bool");
            vec![choose(operands[0].bools().ok_or_else(wrong)?, operands[1], operands[2])?]
        }
        Op::Cast { dtype } => vec![cast(operands[0], *dtype)],
        Op::Dropout { p, stream } => stored(vec![dropout(floats(0)?, operands[1], *p, *stream)?])?,
        Op::Reduce { function, axes, keep } => vec![reduce(*function, operands[0], axes, *keep)?.stored()],
        Op::Argmax { axis, keep, last } => vec![Value::I32(match operands[0] {
            Value::Float { array, .. } => argmax(array, *axis, *keep, *last)?,
            Value::I32(array) => argmax(array, *axis, *keep, *last)?,
            Value::U32(array) => argmax(array, *axis, *keep, *last)?,
            Value::Bool(array) => argmax(array, *axis, *keep, *last)?,
        })],
        Op::Reshape { shape } => moved!(operands[0], x => reshape(x, shape)?),
        Op::Permute { order } => moved!(operands[0], x => permute(x, order)?),
        Op::Slice { starts, sizes, steps } => moved!(operands[0], x => slice(x, starts, sizes, steps)?),
        Op::Broadcast { shape } => moved!(operands[0], x => broadcast(x, shape)?),
        Op::Pad { before, after, value } => {
            let frame = Value::<R>::from_f64(operands[0].dtype(), Shape::default(), &[*value]);
            vec![match (operands[0], &frame) {
                (Value::Float { dtype, array }, Value::Float { array: frame, .. }) => {
                    Value::Float { dtype: *dtype, array: pad(array, before, after, frame.data()[0])? }
                }
                (Value::I32(array), Value::I32(frame)) => Value::I32(pad(array, before, after, frame.data()[0])?),
                (Value::U32(array), Value::U32(frame)) => Value::U32(pad(array, before, after, frame.data()[0])?),
                (Value::Bool(array), Value::Bool(frame)) => Value::Bool(pad(array, before, after, frame.data()[0])?),
                (x, _) => return Err(Error::dtype("pad", "x", x.dtype(), frame.dtype().name())),
            }]
        }
        Op::Concat { axis } => {
            macro_rules! joined {
                ($get:expr) => {
                    concat(&operands.iter().filter_map($get).collect::<Vec<_>>(), *axis)?
                };
            }
            vec![match operands[0] {
                Value::Float { dtype, .. } => Value::Float { dtype: *dtype, array: joined!(|x| x.floats()) },
                Value::I32(_) => Value::I32(joined!(|x| x.i32s())),
                Value::U32(_) => Value::U32(joined!(|x| x.u32s())),
                Value::Bool(_) => Value::Bool(joined!(|x| x.bools())),
            }]
        }
        Op::Gather { axis } => {
            let wrong = || Error::dtype("gather", "indices", operands[1].dtype(), "i32");
            let indices = operands[1].i32s().ok_or_else(wrong)?;
            moved!(operands[0], x => gather(x, indices, *axis)?)
        }
        Op::ScatterAdd { axis, size } => {
            let wrong = || Error::dtype("scatter_add", "indices", operands[1].dtype(), "i32");
            let indices = operands[1].i32s().ok_or_else(wrong)?;
            stored(vec![scatter_add(floats(0)?, indices, *axis, *size)?])?
        }
        Op::Dequantize(packing) => {
            let words = |i: usize| {
                let wrong = || Error::dtype("dequantize", &format!("operand {i}"), operands[i].dtype(), "u32");
                operands[i].u32s().ok_or_else(wrong)
            };
            let zero = packing.zero.then(|| words(2)).transpose()?;
            stored(vec![dequantize(*packing, words(0)?, floats(1)?, zero)?])?
        }
        Op::Rotary { interleaved } => {
            let wrong = || Error::dtype("rotary", "positions", operands[3].dtype(), "i32");
            let positions = operands[3].i32s().ok_or_else(wrong)?;
            stored(vec![rotary(floats(0)?, [floats(1)?, floats(2)?], positions, *interleaved)?])?
        }
        Op::Append { .. } | Op::AppendPaged => {
            let wrong = || Error::dtype(op.name(), "update", operands[1].dtype(), operands[0].dtype().name());
            let positions = operands[2].i32s().ok_or_else(wrong)?;
            macro_rules! grown {
                ($cache:expr, $update:expr, $array:ident => $value:expr) => {{
                    let ($array, dropped) = match (op, operands.get(3).and_then(|table| table.i32s())) {
                        (Op::Append { axis, circular }, _) => append($cache, $update, positions, *axis, *circular)?,
                        (_, Some(table)) => append_paged($cache, $update, positions, table)?,
                        _ => return Err(wrong()),
                    };
                    ($value, dropped)
                }};
            }
            let (cache, dropped) = match (operands[0], operands[1]) {
                (Value::Float { dtype, array: a }, Value::Float { array: b, .. }) => {
                    grown!(a, b, array => Value::Float { dtype: *dtype, array })
                }
                (Value::I32(a), Value::I32(b)) => grown!(a, b, array => Value::I32(array)),
                (Value::U32(a), Value::U32(b)) => grown!(a, b, array => Value::U32(array)),
                (Value::Bool(a), Value::Bool(b)) => grown!(a, b, array => Value::Bool(array)),
                _ => return Err(wrong()),
            };
            vec![cache, Value::I32(dropped)]
        }
    })
}

/// One error for all that is missing, unknown or of the wrong dtype or shape.
fn check_inputs(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Result<()> {
    let states = graph.states().map(|(name, state, _)| (name, state));
    let expected: BTreeMap<&str, ValueId> = graph.inputs().chain(graph.parameters()).chain(states).collect();
    let mut faults = Vec::new();
    for (&name, &value) in &expected {
        let (dtype, shape) = (graph.dtype(value), graph.shape(value));
        match inputs.get(name) {
            None if graph.update_of(value).is_some() && matches!(graph.definition(value).op, Op::Input { .. }) => {}
            None => faults.push(format!("`{name}` ({dtype} {shape}) is missing")),
            Some(given) if given.dtype() != dtype || given.shape() != shape => {
                faults.push(format!("`{name}` is {} {}, expected {dtype} {shape}", given.dtype(), given.shape()));
            }
            Some(_) => {}
        }
    }
    for name in inputs.keys().filter(|name| !expected.contains_key(name.as_str())) {
        faults.push(format!("the graph has no input or parameter `{name}`"));
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::Binding(format!("inputs: {}", faults.join("; ")))) }
}
