use super::{Cases, Draft};
use crate::{DType, Result, Shape, Tensor, ValueId, graph::Op, reference::compare::Check};

const FAMILY: &str = "softmax";

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    let shapes = all.choose::<(&[usize], usize)>(
        &[
            (&[1], 0),
            (&[7], 0),
            (&[0, 5], 1),
            (&[5, 0], 1),
            (&[5, 1], 1),
            (&[3, 64], 1),
            (&[67, 31], 1),
            (&[2, 257], 1),
            (&[5, 33], 0),
            (&[2, 9, 17], 1),
            (&[3, 1025], 1),
        ],
        &[
            (&[130, 129], 1),
            (&[2, 5003], 1),
            (&[1031, 7], 0),
            (&[2, 3, 4, 5, 6], 2),
            (&[1, 20000], 1),
            (&[1, 300_007], 1),
        ],
    );
    for (shape, axis) in shapes {
        let shape = Shape::from(shape);
        for log in [false, true] {
            let name = if log { "log " } else { "" };
            all.add(FAMILY, format!("{name}{shape} axis {axis}"), Check::measured(), |draft| {
                let x = draft.reals("x", DType::F32, &shape, [-8.0, 8.0])?;
                both(draft, x, axis, log)
            })?;
        }
    }
    for log in [false, true] {
        let name = if log { "log " } else { "" };
        all.add(
            FAMILY,
            format!("{name}with −inf in some places, in one row everywhere"),
            Check::measured(),
            |draft| {
                let mut x: Vec<f32> =
                    draft.random.tensor(DType::F32, [9 * 37], -4.0, 4.0)?.as_f32().unwrap_or_default().into();
                for (i, x) in x.iter_mut().enumerate() {
                    if (3 * 37..4 * 37).contains(&i) || draft.random.one_in(3) {
                        *x = f32::NEG_INFINITY;
                    }
                }
                let x = draft.given("x", Tensor::new([9, 37], x)?)?;
                both(draft, x, 1, log)
            },
        )?;
        // Without the maximum taken off, exp would overflow or give only zeros.
        for shift in [-1e4, 1e4] {
            all.add(FAMILY, format!("{name}shifted by {shift}"), Check::measured(), |draft| {
                let x = draft.reals("x", DType::F32, [5, 65], [shift - 4.0, shift + 4.0])?;
                both(draft, x, 1, log)
            })?;
        }
        for dtype in [DType::F16, DType::BF16] {
            all.add(FAMILY, format!("{name}{dtype}"), Check::measured(), |draft| {
                let x = draft.reals("x", dtype, [5, 67], [-4.0, 4.0])?;
                both(draft, x, 1, log)
            })?;
        }
        all.add(FAMILY, format!("{name}of a turned view"), Check::measured(), |draft| {
            let x = draft.reals("x", DType::F32, [4, 35, 6], [-4.0, 4.0])?;
            let x = draft.graph.permute(x, &[2, 0, 1])?;
            both(draft, x, 2, log)
        })?;
    }
    all.add(FAMILY, "of scaled scores", Check::measured(), |draft| {
        let x = draft.reals("x", DType::F32, [6, 50], [-20.0, 20.0])?;
        let scale = draft.graph.scalar(0.125, x)?;
        let x = draft.graph.mul(x, scale)?;
        both(draft, x, 1, false)
    })?;
    // Every weight is 1/n, a power of two.
    all.add(FAMILY, "equal scores", Check::Exact, |draft| {
        let x = draft.given("x", Tensor::new([3, 64], vec![-1e9f32; 3 * 64])?)?;
        both(draft, x, 1, false)
    })?;
    Ok(all)
}

fn both(draft: &mut Draft, x: ValueId, axis: usize, log: bool) -> Result<Vec<ValueId>> {
    draft.graph.push(if log { Op::LogSoftmax { axis } } else { Op::Softmax { axis } }, &[x])
}
