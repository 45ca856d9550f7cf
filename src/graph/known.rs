//! What can be said of operands that are constants of the graph, before anything runs.

use super::{Attention, AttentionOperand as A, Extent, Graph, Op, ValueId, attention::FARTHEST};
use crate::{
    Data, Error, Result,
    tensor::{Shape, Tensor},
};

impl Graph {
    /// An error if a constant operand holds what the device could only clamp, drop, or turn into NaN.
    pub(super) fn check_known(&self, op: &Op, inputs: &[ValueId]) -> Result<()> {
        if let Op::Attention(attention) = op {
            return self.check_attention(attention, inputs);
        }
        if let Op::Append { axis, circular: false } = op {
            let (places, rows) = (self.shape(inputs[0])[*axis], self.shape(inputs[1])[*axis]);
            return self.check_places(op, inputs[2], rows, places);
        }
        if let Op::AppendPaged = op {
            let (pages, table) = (self.shape(inputs[0]), self.shape(inputs[3]));
            return self.check_places(op, inputs[2], self.shape(inputs[1])[2], pages[1].saturating_mul(table[1]));
        }
        // Others read no indices, or say what those out of range count as: a circular cache has a place for every position, and
        // gather and rotary take the nearest row.
        Ok(())
    }

    /// The constant that a value is under another shape, if it is one.
    fn known(&self, value: ValueId) -> Option<&Tensor> {
        let behind = self.behind.get(value.index()).filter(|behind| behind.whole)?;
        if let Op::Constant { value } = &self.definition(behind.base).op { Some(value) } else { None }
    }

    fn check_places(&self, op: &Op, positions: ValueId, rows: usize, places: usize) -> Result<()> {
        let Some(positions) = self.known(positions).and_then(Tensor::as_i32) else { return Ok(()) };
        let fits = |&position: &i32| usize::try_from(position).is_ok_and(|at| at + rows <= places);
        match positions.iter().position(|position| !fits(position)) {
            None => Ok(()),
            Some(item) => Err(Error::op(
                op.name(),
                format!(
                    "the cache overflows: {rows} rows at position {} of item {item}, the cache has {places} places",
                    positions[item]
                ),
            )),
        }
    }

    fn check_attention(&self, attention: &Attention, inputs: &[ValueId]) -> Result<()> {
        let given = |operand| attention.input_of(operand).map(|at| inputs[at]);
        let (q, k) = (self.shape(inputs[0]), self.shape(inputs[1]));
        let rows_of = |shape: &Shape| if shape.rank() == 3 { shape[0] } else { shape[2] };
        let keys = match given(A::BlockTable) {
            Some(table) => k[1].saturating_mul(self.shape(table)[1]),
            None => rows_of(k),
        };
        for (&kind, &input) in attention.operands.iter().zip(&inputs[3..]) {
            let Some(tensor) = self.known(input) else { continue };
            let Some(integers) = tensor.as_i32() else {
                check_numbers(kind, tensor)?;
                continue;
            };
            match kind.extent() {
                Extent::Items if kind == A::KeyLengths => check_range(kind, integers, 0, keys)?,
                Extent::Items if kind == A::QueryLengths => check_range(kind, integers, 0, rows_of(q))?,
                Extent::Items => check_range(kind, integers, (-FARTHEST).into(), FARTHEST)?,
                Extent::Starts if kind == A::QueryOffsets => check_starts(kind, integers, rows_of(q))?,
                Extent::Starts => check_starts(kind, integers, rows_of(k))?,
                // With lengths, entries behind them may be anything; without, all of it is read.
                Extent::Pages if given(A::KeyLengths).is_some() => {}
                Extent::Pages => check_range(kind, integers, 0, k[0].saturating_sub(1))?,
                // Inference refuses integers.
                Extent::Scores | Extent::Heads | Extent::Table => {}
            }
        }
        Ok(())
    }
}

fn fault(kind: A, what: impl std::fmt::Display) -> Result<()> {
    Err(Error::op("attention", format!("the constant `{}` {what}", kind.name())))
}

/// No NaN and no +∞; −∞ in a bias or a table masks keys.
fn check_numbers(kind: A, tensor: &Tensor) -> Result<()> {
    let bad = |x: f32| x.is_nan() || x == f32::INFINITY || (kind.extent() == Extent::Heads && x.is_infinite());
    let found = match tensor.data() {
        Data::F32(values) => values.iter().position(|&x| bad(x)).map(|at| (at, values[at])),
        Data::F16(values) => values.iter().position(|&x| bad(x.to_f32())).map(|at| (at, values[at].to_f32())),
        Data::BF16(values) => values.iter().position(|&x| bad(x.to_f32())).map(|at| (at, values[at].to_f32())),
        Data::I32(_) | Data::U32(_) | Data::Bool(_) => None,
    };
    match found {
        None => Ok(()),
        Some((at, x)) => fault(kind, format_args!("is {x} at element {at}: scores would be no numbers")),
    }
}

fn check_range(kind: A, values: &[i32], least: i64, most: impl TryInto<i64>) -> Result<()> {
    let most = most.try_into().unwrap_or(i64::MAX);
    match values.iter().position(|&x| !(least..=most).contains(&x.into())) {
        None => Ok(()),
        Some(at) => fault(kind, format_args!("is {} at element {at}, expected {least} to {most}", values[at])),
    }
}

fn check_starts(kind: A, starts: &[i32], rows: usize) -> Result<()> {
    check_range(kind, starts, 0, rows)?;
    match starts.windows(2).position(|pair| pair[0] > pair[1]) {
        None => Ok(()),
        Some(at) => {
            fault(kind, format_args!("decreases from {} to {} at element {}", starts[at], starts[at + 1], at + 1))
        }
    }
}
