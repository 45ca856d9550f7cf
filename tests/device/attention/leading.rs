//! Attention over any leading axes on the device: views, copies where strides can't say it, against the reference.

use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    gpu::Parameters,
    graph::{Align, Mask},
    lower::Options,
    reference::compare::{Check, Expected},
};

use crate::common::{attention::Draw, gpu};

fn drawn(draw: &mut Draw, shape: &[usize]) -> Tensor {
    draw.floats(shape, 1.0)
}

/// Attention of these shapes under a mask of that shape, as the device computes it.
fn check(q: &[usize], k: &[usize], v: &[usize], mask: Option<&[usize]>, draw: &mut Draw) -> Result<()> {
    let mut g = Graph::new();
    let mut given = std::collections::BTreeMap::new();
    let mut input = |g: &mut Graph, name: &str, tensor: Tensor| -> Result<ValueId> {
        let value = g.input(name, tensor.dtype(), tensor.shape().clone())?;
        given.insert(name.to_string(), tensor);
        Ok(value)
    };
    let mut values = Vec::new();
    for (name, shape) in [("q", q), ("k", k), ("v", v)] {
        values.push(input(&mut g, name, drawn(draw, shape))?);
    }
    let mut seen = Mask::causal(Align::BottomRight);
    if let Some(shape) = mask {
        let n: usize = shape.iter().product();
        let bools: Vec<bool> = (0..n).map(|_| draw.below(4) > 0).collect();
        let mask = input(&mut g, "mask", Tensor::new(shape, bools)?)?;
        assert_eq!(g.dtype(mask), DType::Bool);
        seen = seen & Mask::boolean(mask);
    }
    let (out, lse) = g.attention_with_lse(values[0], values[1], values[2], seen)?;
    g.output("out", out)?;
    g.output("lse", lse)?;
    let expected = Expected::of_graph(&g, &given, Check::measured())?;
    let program = gpu().lower(&g, &Options::default())?;
    let inputs: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let outputs = gpu().load(&program, Parameters::new())?.run(&inputs)?;
    if let Err(message) = expected.compare_named(&outputs) {
        panic!("{q:?} {k:?} {v:?} {mask:?}: {message}\n{program}");
    }
    Ok(())
}

#[test]
fn any_leading_axes() -> Result<()> {
    let mut draw = Draw::new(31);
    check(&[5, 8], &[7, 8], &[7, 6], Some(&[5, 7]), &mut draw)?;
    check(&[4, 5, 8], &[2, 7, 8], &[2, 7, 6], Some(&[4, 1, 7]), &mut draw)?;
    check(&[2, 3, 4, 5, 8], &[2, 3, 2, 7, 8], &[2, 3, 2, 7, 6], Some(&[2, 3, 1, 5, 7]), &mut draw)?;
    check(&[2, 1, 3, 2, 5, 8], &[2, 2, 3, 2, 7, 8], &[2, 2, 3, 2, 7, 6], None, &mut draw)
}

/// Where the axes before the heads broadcast, k and v are read where they lie if one stride says it, and copied if not.
#[test]
fn axes_that_broadcast() -> Result<()> {
    let mut draw = Draw::new(32);
    check(&[4, 2, 5, 8], &[1, 2, 7, 8], &[1, 2, 7, 6], Some(&[4, 1, 1, 7]), &mut draw)?;
    check(&[2, 3, 2, 5, 8], &[2, 1, 2, 7, 8], &[3, 2, 7, 6], Some(&[2, 1, 2, 5, 7]), &mut draw)?;
    check(&[2, 3, 2, 5, 8], &[2, 7, 8], &[2, 7, 6], Some(&[3, 1, 1, 1]), &mut draw)
}
