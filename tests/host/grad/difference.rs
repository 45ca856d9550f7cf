//! Derivatives by differences, in f64.

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Result, Shape, Tensor, ValueId,
    grad::gradients,
    graph::Reduce,
    reference::{Evaluation, Random},
};

/// A gradient is right if it is this near to the differences, in units of the largest of its tensor and 1.
const NEAR: f64 = 2e-6;

/// An operand, and whether the gradient with respect to it is checked.
pub(crate) struct Operand {
    pub(crate) tensor: Tensor,
    pub(crate) varied: bool,
}

/// f32 numbers between −`size` and `size` whose distance from one another and from 0 is at least 1/16, in steps of 2⁻⁷: there
/// are no kinks near, and a small step is exact.
pub(crate) fn apart(shape: impl Into<Shape>, size: f64, seed: u64) -> Operand {
    let shape = shape.into();
    let count = shape.elements().expect("small");
    let mut random = Random::new(seed);
    let mut steps: Vec<i64> =
        (0..count as i64).map(|i| 2 * i - count as i64).map(|i| if i >= 0 { i + 1 } else { i }).collect();
    for i in (1..count).rev() {
        steps.swap(i, random.size(0, i));
    }
    let scale = ((size * 128.0 / count.max(1) as f64).floor()).max(8.0) / 128.0;
    let data: Vec<f32> = steps.iter().map(|&step| (step as f64 * scale) as f32).collect();
    Operand { tensor: Tensor::new(shape, data).expect("fits"), varied: true }
}

/// f32 numbers between two others, in steps of 2⁻⁷.
pub(crate) fn between(shape: impl Into<Shape>, low: f64, high: f64, seed: u64) -> Operand {
    let shape = shape.into();
    let mut random = Random::new(seed);
    let data: Vec<f32> = (0..shape.elements().expect("small"))
        .map(|_| ((random.real(low, high) * 128.0).round() / 128.0) as f32)
        .collect();
    Operand { tensor: Tensor::new(shape, data).expect("fits"), varied: true }
}

/// An operand that has no gradient, or whose gradient is not asked for.
pub(crate) fn fixed(tensor: Tensor) -> Operand {
    Operand { tensor, varied: false }
}

/// Integers.
pub(crate) fn whole(shape: impl Into<Shape>, data: &[i32]) -> Operand {
    fixed(Tensor::new(shape, data.to_vec()).expect("fits"))
}

/// Checks the gradients of `Σ weight · result` over all float results, with weights of a formula, with respect to each varied
/// operand.
///
/// # Panics
/// If a gradient is wrong.
pub(crate) fn check(
    what: &str,
    operands: &[Operand],
    build: impl FnOnce(&mut Graph, &[ValueId]) -> Result<Vec<ValueId>>,
) {
    let mut g = Graph::new();
    let mut inputs = BTreeMap::new();
    let mut values = Vec::new();
    for (at, operand) in operands.iter().enumerate() {
        let name = format!("x{at}");
        values.push(g.input(&name, operand.tensor.dtype(), operand.tensor.shape().clone()).expect("fits"));
        inputs.insert(name, operand.tensor.clone());
    }
    let results = build(&mut g, &values).unwrap_or_else(|e| panic!("{what}: {e}"));
    let loss = weighted_sum(&mut g, &results).unwrap_or_else(|e| panic!("{what}: {e}"));
    check_loss(what, g, loss, &inputs, operands.iter().map(|operand| operand.varied));
}

/// Checks the gradients of a loss with respect to the inputs `x0`, `x1`, … that are varied.
pub(crate) fn check_loss(
    what: &str,
    mut g: Graph,
    loss: ValueId,
    inputs: &BTreeMap<String, Tensor>,
    varied: impl IntoIterator<Item = bool>,
) {
    let plain = g.clone();
    let names: Vec<String> =
        varied.into_iter().enumerate().filter(|(_, varied)| *varied).map(|(at, _)| format!("x{at}")).collect();
    let values: Vec<ValueId> = names.iter().map(|name| g.find(name).expect("there")).collect();
    let grads = gradients(&mut g, loss, &values).unwrap_or_else(|e| panic!("{what}: {e}"));
    g.verify().unwrap_or_else(|e| panic!("{what}: {e}"));
    let evaluation = Evaluation::<f64>::new(&g, inputs).unwrap_or_else(|e| panic!("{what}: {e}"));
    for ((name, value), grad) in names.iter().zip(&values).zip(grads) {
        assert_eq!(
            (g.dtype(grad), g.shape(grad)),
            (g.dtype(*value), g.shape(*value)),
            "{what}: the gradient of {name}"
        );
        let got = evaluation.value(grad).to_f64();
        let expected = differences(&plain, loss, inputs, name);
        let unit = expected.iter().fold(1.0f64, |most, x| most.max(x.abs()));
        for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!(
                (got - expected).abs() <= NEAR * unit,
                "{what}: d loss / d {name}[{at}] is {got}, by differences {expected}"
            );
        }
    }
}

/// d loss / d input, an element at a time: differences over 2⁻⁷ and 2⁻⁸, of which Richardson's extrapolation takes the error of
/// second order away.
fn differences(g: &Graph, loss: ValueId, inputs: &BTreeMap<String, Tensor>, name: &str) -> Vec<f64> {
    let base = inputs[name].as_f32().expect("f32").to_vec();
    let shape = inputs[name].shape().clone();
    let mut inputs = inputs.clone();
    let mut at = |element: usize, by: f64| -> f64 {
        let mut moved = base.clone();
        moved[element] = (f64::from(base[element]) + by) as f32;
        assert_eq!(f64::from(moved[element]), f64::from(base[element]) + by, "the step is exact");
        inputs.insert(name.to_string(), Tensor::new(shape.clone(), moved).expect("fits"));
        Evaluation::<f64>::new(g, &inputs).expect("evaluates").value(loss).to_f64()[0]
    };
    let mut slope = |element: usize, h: f64| (at(element, h) - at(element, -h)) / (2.0 * h);
    (0..base.len())
        .map(|element| {
            let (wide, near) = (slope(element, 1.0 / 128.0), slope(element, 1.0 / 256.0));
            (4.0 * near - wide) / 3.0
        })
        .collect()
}

/// `Σ weight · result` over the float results, with other weights for each.
fn weighted_sum(g: &mut Graph, results: &[ValueId]) -> Result<ValueId> {
    let mut sum = g.constant(Tensor::scalar(0.0))?;
    for (at, &result) in results.iter().enumerate() {
        let weights = Random::new(100 + at as u64).tensor(DType::F32, g.shape(result).clone(), -1.0, 1.0)?;
        let weights = g.constant(weights)?;
        let result = g.cast(result, DType::F32)?;
        let product = g.mul(result, weights)?;
        let part = g.reduce(Reduce::Sum, product, &[], false)?;
        sum = g.add(sum, part)?;
    }
    Ok(sum)
}
