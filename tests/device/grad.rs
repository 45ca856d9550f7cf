//! Gradients on the device: forward and backward as one program, against the same graph in the reference.

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    grad::gradients,
    graph::{Align, Mask, Reduce},
    reference::{
        Random,
        compare::{Check, Expected},
    },
};

use crate::common::gpu;

/// A decoder's block in small, from token numbers to a mean cross entropy: every kind of operation that has a gradient of its own.
fn loss(g: &mut Graph) -> Result<(ValueId, Vec<ValueId>)> {
    let (items, tokens, width, words) = (2, 5, 8, 11);
    let ids = g.input("ids", DType::I32, [items, tokens])?;
    let expected = g.input("expected", DType::F32, [items, tokens, words])?;
    let mut parameters = Vec::new();
    let mut parameter = |g: &mut Graph, name: &str, shape: &[usize]| -> Result<ValueId> {
        let value = g.parameter(name, DType::F32, shape)?;
        parameters.push(value);
        Ok(value)
    };
    let table = parameter(g, "table", &[words, width])?;
    let (norm, shift) = (parameter(g, "norm", &[width])?, parameter(g, "shift", &[width])?);
    let (joined, joined_bias) =
        (parameter(g, "joined", &[3 * width, width])?, parameter(g, "joined.bias", &[3 * width])?);
    let (up, up_bias) = (parameter(g, "up", &[16, width])?, parameter(g, "up.bias", &[16])?);
    let down = parameter(g, "down", &[width, 16])?;

    let x = g.gather(table, ids, 0)?;
    let y = g.layer_norm(x, Some(norm), Some(shift), 1e-5)?;
    let y = g.linear(y, joined, Some(joined_bias))?;
    let mut heads = Vec::new();
    for part in 0..3 {
        let part = g.slice(y, -1, part * width, (part + 1) * width)?;
        heads.push(g.split_heads(part, 2)?);
    }
    let y = g.attention(heads[0], heads[1], heads[2], Mask::causal(Align::TopLeft))?;
    let y = g.merge_heads(y)?;
    let x = g.add(x, y)?;
    let y = g.linear(x, up, Some(up_bias))?;
    let y = g.gelu(y)?;
    let y = g.linear(y, down, None)?;
    let x = g.add(x, y)?;
    let x = g.rms_norm(x, None, 1e-5)?;
    // The table is the head too: its gradient comes by two ways.
    let logits = g.linear(x, table, None)?;
    let logs = g.log_softmax(logits, -1)?;
    let picked = g.mul(logs, expected)?;
    let sum = g.reduce(Reduce::Sum, picked, &[-1], false)?;
    let mean = g.reduce(Reduce::Mean, sum, &[], false)?;
    Ok((g.neg(mean)?, parameters))
}

#[test]
fn a_block_and_its_gradients_are_one_program() {
    let mut g = Graph::new();
    let (loss, parameters) = loss(&mut g).expect("valid");
    let grads = gradients(&mut g, loss, &parameters).expect("differentiable");
    g.output("loss", loss).expect("new");
    let mut random = Random::new(3);
    let mut given = BTreeMap::new();
    for (&parameter, grad) in parameters.iter().zip(grads) {
        let name = g.label(parameter);
        g.output(format!("d {name}"), grad).expect("new");
        given.insert(name, random.tensor(DType::F32, g.shape(parameter).clone(), -0.7, 0.7).expect("fits"));
    }
    let ids: Vec<i32> = (0..10).map(|i| i * 7 % 11).collect();
    let expected = (0..110).map(|i| f32::from(u8::from(i % 11 == (i / 11) * 3 % 11))).collect::<Vec<_>>();
    given.insert("ids".into(), Tensor::new([2, 5], ids).expect("fits"));
    given.insert("expected".into(), Tensor::new([2, 5, 11], expected).expect("fits"));

    let right = Expected::of_graph(&g, &given, Check::measured()).expect("evaluates");
    let weights: Vec<(&str, &Tensor)> = g.parameters().map(|(name, _)| (name, &given[name])).collect();
    let inputs: Vec<(&str, &Tensor)> = g.inputs().map(|(name, _)| (name, &given[name])).collect();
    let mut program = gpu().compile(&g, &weights[..]).expect("compiles");
    let outputs: BTreeMap<String, Tensor> = program.run(&inputs).expect("runs").into_iter().collect();
    right.compare_named(&outputs).unwrap_or_else(|mismatches| panic!("{mismatches}"));
    // No gradient is nothing: each parameter has a part in the loss.
    for (name, tensor) in &outputs {
        assert!(tensor.to_f64().iter().any(|x| x.abs() > 1e-6), "{name} is 0");
    }
    let again: BTreeMap<String, Tensor> = program.run(&inputs).expect("runs").into_iter().collect();
    assert_eq!(again, outputs, "the same bits in every run");
}
