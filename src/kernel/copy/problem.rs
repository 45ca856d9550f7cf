//! What is asked for: a copy, a concatenation, a padding; each an output put together from parts.

use half::{bf16, f16};

use super::assembly::{Assembly, Part};
use crate::{DType, Error, Layout, Result, kernel::Operands};

/// A strided view copied into a dense tensor of its shape, bit for bit.
///
/// ```text
/// out[i, j, …] = input[offset + i·strides[0] + j·strides[1] + …]
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyProblem {
    /// Of input and output.
    pub dtype: DType,
    /// The view.
    pub input: Layout,
}

/// Tensors end to end along an axis, bit for bit. Any number of inputs, in order; the one output is dense.
///
/// ```text
/// out[…, starts[n] + i, …] = inputs[n][…, i, …]        starts[n] = Σ of the sizes of the inputs before n
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcatProblem {
    /// Of every input and the output.
    pub dtype: DType,
    /// The axis along which the inputs follow each other. Other sizes are equal.
    pub axis: usize,
    /// The inputs.
    pub inputs: Vec<Layout>,
}

/// A tensor in a frame of one value.
///
/// ```text
/// out[i, j, …] = input[i − before[0], j − before[1], …] if that is inside, else value
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PadProblem {
    /// Of input and output.
    pub dtype: DType,
    /// The tensor inside.
    pub input: Layout,
    /// Elements before each axis.
    pub before: Vec<usize>,
    /// Elements after each axis.
    pub after: Vec<usize>,
    /// The value around it, converted to the dtype: rounded for floats; truncated and saturated for integers; true
    /// unless 0.
    pub value: f64,
}

impl CopyProblem {
    pub(super) fn assembly(&self) -> Assembly<'_> {
        let start = vec![0; self.input.shape.rank()];
        let part = Part { input: 0, layout: &self.input, start };
        Assembly { family: "copy", dtype: self.dtype, shape: self.input.shape.clone(), parts: vec![part], fill: 0 }
    }
}

impl ConcatProblem {
    pub(super) fn assembly(&self) -> Result<Assembly<'_>> {
        let axis = self.axis;
        let Some(first) = self.inputs.first() else {
            return Err(Error::op("concat", "there is no input"));
        };
        let mut shape = first.shape.to_vec();
        if axis >= shape.len() {
            return Err(Error::op("concat", format!("there is no axis {axis} in {}", first.shape)));
        }
        shape[axis] = 0;
        let mut parts = Vec::with_capacity(self.inputs.len());
        for (n, layout) in self.inputs.iter().enumerate() {
            let fits = |i: usize| i == axis || layout.shape[i] == shape[i];
            if layout.shape.rank() != shape.len() || !(0..shape.len()).all(fits) {
                return Err(Error::shape(
                    "concat",
                    &format!("x{n}"),
                    &layout.shape,
                    format_args!("{}, but for axis {axis}", first.shape),
                ));
            }
            let mut start = vec![0; shape.len()];
            start[axis] = shape[axis];
            shape[axis] += layout.shape[axis];
            parts.push(Part { input: n, layout, start });
        }
        Ok(Assembly { family: "concat", dtype: self.dtype, shape: shape.into(), parts, fill: 0 })
    }
}

impl PadProblem {
    pub(super) fn assembly(&self) -> Result<Assembly<'_>> {
        let rank = self.input.shape.rank();
        if [self.before.len(), self.after.len()] != [rank; 2] {
            return Err(Error::op(
                "pad",
                format!("{:?} before and {:?} after don't fit {}", self.before, self.after, self.input.shape),
            ));
        }
        let frame = self.before.iter().zip(&self.after);
        let shape =
            self.input.shape.iter().zip(frame).map(|(&size, (&before, &after))| before + size + after).collect();
        let part = Part { input: 0, layout: &self.input, start: self.before.clone() };
        let fill = bits(self.dtype, self.value);
        Ok(Assembly { family: "pad", dtype: self.dtype, shape, parts: vec![part], fill })
    }
}

/// The bits of an element of this value.
fn bits(dtype: DType, value: f64) -> u32 {
    match dtype {
        DType::F32 => (value as f32).to_bits(),
        DType::F16 => u32::from(f16::from_f64(value).to_bits()),
        DType::BF16 => u32::from(bf16::from_f64(value).to_bits()),
        DType::I32 => value as i32 as u32,
        DType::U32 => value as u32,
        DType::Bool => u32::from(value != 0.0),
    }
}

impl ConcatProblem {
    /// Of [`Op::Concat`](crate::graph::Op::Concat).
    pub(in crate::kernel) fn of(axis: usize, operands: &mut Operands) -> Result<Self> {
        let inputs = (0..operands.count()).map(|input| operands.layout(input)).collect();
        Ok(ConcatProblem { dtype: operands.dtype(0), axis, inputs })
    }
}

impl PadProblem {
    /// Of [`Op::Pad`](crate::graph::Op::Pad).
    pub(in crate::kernel) fn of(
        before: &[usize],
        after: &[usize],
        value: f64,
        operands: &mut Operands,
    ) -> Result<Self> {
        let (dtype, input) = (operands.dtype(0), operands.layout(0));
        Ok(PadProblem { dtype, input, before: before.into(), after: after.into(), value })
    }
}
