//! The reference against values worked out by hand, published tables and identities, so that kernels are held to
//! something that was itself checked.

mod attention;
mod cases;
mod copy;
mod cross_entropy;
mod dropout;
mod evaluation;
mod matmul;
mod norm;
mod not_finite;
mod pointwise;
mod reduce;
mod softmax;

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Shape, Tensor,
    graph::{Align, Attention, AttentionOperand, Binary, Op, Reduce, Unary, Window},
    reference::{self, Array, Evaluation, Random, Value, compare::Check},
    verify::cases::Level,
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn f32s(shape: impl Into<Shape>, data: &[f32]) -> Result<Tensor> {
    Ok(Tensor::new(shape, data.to_vec())?)
}

fn wide(tensor: &Tensor) -> Value<f64> {
    tensor.into()
}

fn array(shape: impl Into<Shape>, data: &[f64]) -> Result<Array<f64>> {
    Ok(Array::new(shape, data.to_vec())?)
}

fn random(random: &mut Random, shape: impl Into<Shape>) -> Result<Array<f64>> {
    let tensor = random.tensor(DType::F32, shape, -1.0, 1.0)?;
    Ok(Array::new(tensor.shape(), tensor.to_f64())?)
}

#[track_caller]
fn near(actual: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(actual.len(), expected.len());
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let close = (a - e).abs() <= relative * e.abs() || a == e;
        assert!(close, "[{i}]: got {a:?}, expected {e:?}");
    }
}
