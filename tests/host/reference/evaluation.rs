use approx::assert_abs_diff_eq;

use super::*;

fn graph() -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 3])?;
    let w = g.parameter("w", DType::F16, [3])?;
    let w = g.cast(w, DType::F32)?;
    let y = g.mul(x, w)?;
    g.name(y, "product")?;
    let z = g.reduce(Reduce::Sum, y, &[-1], false)?;
    g.output("z", z)?;
    Ok(g)
}

fn inputs() -> Result<BTreeMap<String, Tensor>> {
    let half = [0.5f32, 2.0, -1.0].map(half::f16::from_f32).to_vec();
    let x = f32s([2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    Ok(BTreeMap::from([("x".into(), x), ("w".into(), Tensor::new([3], half)?)]))
}

#[test]
fn gives_outputs_and_everything_on_the_way() -> Result {
    let (g, inputs) = (graph()?, inputs()?);
    assert_eq!(reference::evaluate(&g, &inputs)?["z"], f32s([2], &[1.5, 6.0])?);
    let all = Evaluation::<f64>::new(&g, &inputs)?;
    let product = g.find("product").ok_or("it was named")?;
    assert_eq!(all.value(product).to_f64(), [0.5, 4.0, -3.0, 2.0, 10.0, -6.0]);
    assert_eq!(all.values().len(), g.values().len());
    Ok(())
}

#[test]
fn one_error_lists_all_that_is_wrong_with_the_inputs() -> Result {
    let mut inputs = inputs()?;
    inputs.insert("w".into(), f32s([4], &[0.0; 4])?);
    inputs.insert("typo".into(), Tensor::scalar(0.0));
    inputs.remove("x");
    let message = reference::evaluate(&graph()?, &inputs).err().ok_or("it must fail")?.to_string();
    assert_eq!(
        message,
        "inputs: `w` is f32 [4], expected f16 [3]; `x` (f32 [2, 3]) is missing; the graph has no input or parameter `typo`"
    );
    Ok(())
}

/// The reference rounds only where the graph says so; the plain evaluation rounds every stored value.
#[test]
fn values_on_the_way_are_rounded_only_in_the_plain_evaluation() -> Result {
    let mut g = Graph::new();
    let x = g.input("x", DType::F16, [1])?;
    let third = g.scalar(3.0, x)?;
    let y = g.div(x, third)?;
    let z = g.mul(y, third)?;
    let rounded = g.cast(z, DType::BF16)?;
    g.output("z", z)?;
    g.output("rounded", rounded)?;
    let x = Tensor::new([1], vec![half::f16::from_f64(1.0009765625)])?;
    let inputs = BTreeMap::from([("x".to_string(), x)]);
    let wide = Evaluation::<f64>::new(&g, &inputs)?;
    let plain = Evaluation::<f32>::new(&g, &inputs)?;
    assert_abs_diff_eq!(wide.value(z).to_f64()[0], 1.0009765625, epsilon = 1e-15);
    assert_eq!(plain.value(y).to_f64(), [f64::from(half::f16::from_f64(1.0009765625 / 3.0))]);
    assert_eq!(wide.value(rounded).to_f64(), [1.0]);
    Ok(())
}

#[test]
fn operands_that_do_not_fit_are_an_error() -> Result {
    let (a, b) = (array([2, 3], &[0.0; 6])?, array([2, 3], &[0.0; 6])?);
    assert!(reference::matmul(&a, &b, false, false).is_err());
    assert!(reference::softmax(&a, 2).is_err());
    assert!(reference::layer_norm(&a, Some(&b), None, 1, 1e-5).is_err());
    assert!(reference::permute(&a, &[0, 0]).is_err());
    assert!(reference::slice(&a, &[0, 0], &[3, 3], &[1, 1]).is_err());
    assert!(reference::gather(&a, &Array::new([1], vec![0])?, 2).is_err());
    assert!(Array::new([2], vec![0.0]).is_err());
    let input = Op::Input { dtype: DType::F32, shape: [1].into() };
    assert!(reference::apply::<f64>(&input, &[]).is_err());
    Ok(())
}
