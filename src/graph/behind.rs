//! What stands behind a value when views are looked through: known when a node is added, so that no chain of them has to be
//! walked again, however long it is.

use super::{Op, ValueId};
use crate::{Data, Tensor};

/// Of a value: what its views look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind {
    /// The value that a chain of views looks at; the value itself, if it is no view.
    pub(super) base: ValueId,
    /// Whether the chain only reshapes and stretches: every element is there, in its order.
    pub(super) whole: bool,
    /// The number that every element is, if the graph says so.
    pub(super) uniform: Option<f64>,
}

impl Behind {
    /// Of a result of an operation; `under` is what stands behind its first operand.
    pub(super) fn of(op: &Op, result: ValueId, under: Option<Behind>) -> Self {
        match (op, under) {
            (Op::Reshape { .. } | Op::Broadcast { .. }, Some(under)) => under,
            (op, Some(under)) if op.is_view() => Behind { whole: false, ..under },
            (Op::Constant { value }, _) => Behind { base: result, whole: true, uniform: uniform_element(value) },
            _ => Behind { base: result, whole: true, uniform: None },
        }
    }
}

fn uniform_element(tensor: &Tensor) -> Option<f64> {
    fn same<T: Copy + PartialEq>(elements: &[T]) -> Option<T> {
        let (&first, rest) = elements.split_first()?;
        rest.iter().all(|x| *x == first).then_some(first)
    }
    match tensor.data() {
        Data::F32(v) => same(v).map(f64::from),
        Data::F16(v) => same(v).map(f64::from),
        Data::BF16(v) => same(v).map(f64::from),
        Data::I32(v) => same(v).map(f64::from),
        Data::U32(v) => same(v).map(f64::from),
        Data::Bool(v) => same(v).map(|x| f64::from(u8::from(x))),
    }
}
