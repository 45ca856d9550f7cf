use super::{Cases, Draft};
use crate::{DType, Result, Shape, Tensor, ValueId, graph::Op, reference::compare::Check};

const FAMILY: &str = "norm";
const EPSILON: f32 = 1e-5;

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    let shapes = all.choose::<(&[usize], usize)>(
        &[
            (&[3, 1], 1),
            (&[1, 7], 1),
            (&[0, 8], 1),
            (&[5, 64], 1),
            (&[67, 31], 1),
            (&[3, 257], 1),
            (&[2, 3, 48], 1),
            (&[4, 5, 6], 2),
            (&[7, 9], 2),
            (&[2, 1031], 1),
        ],
        &[(&[130, 129], 1), (&[3, 4099], 1), (&[2, 20000], 1), (&[1, 300_007], 1), (&[17, 768], 1), (&[2, 3, 4, 5], 3)],
    );
    for (shape, axes) in shapes {
        let shape = Shape::from(shape);
        for rms in [false, true] {
            for (weight, bias) in [(false, false), (true, !rms)] {
                let name = format!("{} {shape} over {axes}{}", kind(rms), if weight { ", weighted" } else { "" });
                all.add(FAMILY, name, Check::Measured { magnitude: 1.0 }, |draft| {
                    let x = draft.reals("x", DType::F32, &shape, [-2.0, 2.0])?;
                    norm(draft, x, axes, rms, weight, bias)
                })?;
            }
        }
    }
    for rms in [false, true] {
        let kind = kind(rms);
        for dtype in [DType::F16, DType::BF16] {
            all.add(FAMILY, format!("{kind} {dtype}"), Check::Measured { magnitude: 1.0 }, |draft| {
                let x = draft.reals("x", dtype, [5, 66], [-2.0, 2.0])?;
                norm(draft, x, 1, rms, true, !rms)
            })?;
        }
        all.add(
            FAMILY,
            format!("{kind} after a residual, the sum kept"),
            Check::Measured { magnitude: 1.0 },
            |draft| {
                let x = draft.reals("x", DType::F32, [2, 9, 40], [-2.0, 2.0])?;
                let residual = draft.reals("residual", DType::F32, [2, 9, 40], [-2.0, 2.0])?;
                let sum = draft.graph.add(x, residual)?;
                let mut outputs = norm(draft, sum, 1, rms, true, !rms)?;
                outputs.truncate(1);
                outputs.push(sum);
                Ok(outputs)
            },
        )?;
        all.add(FAMILY, format!("{kind} of a turned view"), Check::Measured { magnitude: 1.0 }, |draft| {
            let x = draft.reals("x", DType::F32, [34, 5, 3], [-2.0, 2.0])?;
            let x = draft.graph.permute(x, &[2, 1, 0])?;
            norm(draft, x, 1, rms, true, !rms)
        })?;
        all.add(
            FAMILY,
            format!("{kind} with one weight and bias for all"),
            Check::Measured { magnitude: 1.0 },
            |draft| {
                let x = draft.reals("x", DType::F32, [6, 3, 10], [-2.0, 2.0])?;
                let (w, b) = (draft.weight("w", DType::F32, [3, 1])?, draft.weight("b", DType::F32, [1])?);
                let op = |weight, bias| op(2, rms, weight, bias);
                if rms {
                    draft.graph.push(op(true, false), &[x, w])
                } else {
                    draft.graph.push(op(true, true), &[x, w, b])
                }
            },
        )?;
    }
    // E[x²] − E[x]² would lose every digit here. Errors are those of the mean, through rstd.
    all.add(FAMILY, "layer_norm around 1000", Check::Measured { magnitude: 2000.0 }, |draft| {
        let x = draft.reals("x", DType::F32, [5, 130], [999.0, 1001.0])?;
        Ok(vec![draft.graph.layer_norm(x, None, None, EPSILON)?])
    })?;
    all.add(
        FAMILY,
        "layer_norm of equal numbers",
        Check::Measured { magnitude: 3.0 / f64::from(EPSILON).sqrt() },
        |draft| {
            let x = draft.given("x", Tensor::new([4, 65], vec![3.0f32; 4 * 65])?)?;
            Ok(vec![draft.graph.layer_norm(x, None, None, EPSILON)?])
        },
    )?;
    Ok(all)
}

fn kind(rms: bool) -> &'static str {
    if rms { "rms_norm" } else { "layer_norm" }
}

fn op(axes: usize, rms: bool, weight: bool, bias: bool) -> Op {
    if rms {
        Op::RmsNorm { axes, epsilon: EPSILON, weight }
    } else {
        Op::LayerNorm { axes, epsilon: EPSILON, weight, bias }
    }
}

/// y, and the statistics.
fn norm(draft: &mut Draft, x: ValueId, axes: usize, rms: bool, weight: bool, bias: bool) -> Result<Vec<ValueId>> {
    let (dtype, shape) = (draft.graph.dtype(x), draft.graph.shape(x).clone());
    let row = Shape::from(&shape[shape.rank() - axes..]);
    let mut operands = vec![x];
    if weight {
        operands.push(draft.weight("weight", dtype, &row)?);
    }
    if bias {
        operands.push(draft.weight("bias", dtype, &row)?);
    }
    draft.graph.push(op(axes, rms, weight, bias), &operands)
}
