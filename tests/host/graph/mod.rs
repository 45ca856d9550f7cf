//! The graph: what each operation infers, what each error says, names, JSON and printers.

mod attention;
mod builder;
mod functions;
mod infer;
mod json;
mod leading;
mod print;

use tilewise::{DType, Shape, graph::Op};

/// An operand of an operation.
type Operand = (DType, Shape);

fn f32s<const N: usize>(shape: [usize; N]) -> Operand {
    (DType::F32, shape.into())
}

fn i32s<const N: usize>(shape: [usize; N]) -> Operand {
    (DType::I32, shape.into())
}

fn bools<const N: usize>(shape: [usize; N]) -> Operand {
    (DType::Bool, shape.into())
}

fn inferred(op: &Op, operands: &[Operand]) -> tilewise::Result<Vec<Operand>> {
    tilewise::graph::infer(op, &operands.iter().map(|(dtype, shape)| (*dtype, shape)).collect::<Vec<_>>())
}

#[track_caller]
fn gives(op: &Op, operands: &[Operand], results: &[Operand]) {
    assert_eq!(inferred(op, operands).expect("fits"), results, "{op:?} of {operands:?}");
}

#[track_caller]
fn refuses(op: &Op, operands: &[Operand], text: &str) {
    let message = inferred(op, operands).expect_err(text).to_string();
    assert_eq!(message, text, "{op:?} of {operands:?}");
}
