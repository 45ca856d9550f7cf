use super::case::{Cases, Draft, ODD_WIDTHS};
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
            // Rows that share words, whole words, few long rows, and many.
            for shape in all.choose(&[[5, 67], [5, 66], [3, 68]], &[[2, 4100], [3, 4099], [130, 256], [1, 300_008]]) {
                let shape = Shape::from(shape);
                let name = format!("{kind} {dtype} {shape}");
                all.add(FAMILY, name, Check::Measured { magnitude: 1.0 }, |draft| {
                    let x = draft.reals("x", dtype, &shape, [-2.0, 2.0])?;
                    norm(draft, x, 1, rms, true, !rms)
                })?;
                let name = format!("{kind} {dtype} {shape} after a residual, the sum kept");
                all.add(FAMILY, name, Check::Measured { magnitude: 1.0 }, |draft| {
                    let x = draft.reals("x", dtype, &shape, [-2.0, 2.0])?;
                    let residual = draft.reals("residual", dtype, &shape, [-2.0, 2.0])?;
                    let sum = draft.graph.add(x, residual)?;
                    let mut outputs = norm(draft, sum, 1, rms, true, !rms)?;
                    outputs.truncate(1);
                    outputs.push(sum);
                    Ok(outputs)
                })?;
            }
            // As where the graph computes norms in f32 between operations in f16.
            all.add(FAMILY, format!("{kind} in f32 of {dtype}"), Check::one_apart(dtype), |draft| {
                let x = draft.reals("x", dtype, [6, 40], [-2.0, 2.0])?;
                let residual = draft.reals("residual", DType::F16, [6, 40], [-2.0, 2.0])?;
                let w = draft.weight("w", DType::BF16, [40])?;
                let wide = [x, residual, w].map(|value| draft.graph.cast(value, DType::F32));
                let [x, residual, w] = wide;
                let sum = draft.graph.add(x?, residual?)?;
                let outputs = draft.graph.push(op(1, rms, true, false), &[sum, w?])?;
                Ok(vec![draft.graph.cast(outputs[0], dtype)?])
            })?;
            // ±1, times what is nearer to the next larger number, and far from the middle, in both dtypes.
            all.add(FAMILY, format!("{kind}, rounded to the nearest {dtype}"), Check::Exact, |draft| {
                let signs: Vec<f64> = (0..3 * 36).map(|i| f64::from(1 - i % 2 * 2)).collect();
                let x = draft.numbers("x", dtype, [3, 36], &signs)?;
                let w = draft.numbers("w", DType::F32, [36], &[1.0 + 0.75 / 128.0 + 0.75 / 1024.0; 36])?;
                let x = draft.graph.cast(x, DType::F32)?;
                let outputs = draft.graph.push(op(1, rms, true, false), &[x, w])?;
                Ok(vec![draft.graph.cast(outputs[0], dtype)?])
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
    for rms in [false, true] {
        for dtype in [DType::F32, DType::F16] {
            for width in ODD_WIDTHS {
                let name = format!("{} {dtype} rows of {width}", kind(rms));
                all.add_not_finite(FAMILY, name, Check::Measured { magnitude: 1.0 }, |draft| {
                    let x = draft.odd_rows("x", dtype, width, false)?;
                    norm(draft, x, 1, rms, true, !rms)
                })?;
            }
        }
        all.add_not_finite(
            FAMILY,
            format!("{} after a residual", kind(rms)),
            Check::Measured { magnitude: 1.0 },
            |draft| {
                let x = draft.odd_rows("x", DType::F32, 68, false)?;
                let residual = draft.reals("residual", DType::F32, [1, 68], [-2.0, 2.0])?;
                let sum = draft.graph.add(x, residual)?;
                let mut outputs = norm(draft, sum, 1, rms, true, !rms)?;
                outputs.push(sum);
                Ok(outputs)
            },
        )?;
    }
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
