use super::case::{Cases, Draft, ODD_WIDTHS};
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
            // Lines that share words, whole words along lines and across them; on the full level few long ones, and many.
            for (shape, axis) in all.choose(
                &[([5, 67], 1), ([5, 68], 1), ([9, 8], 0)],
                &[([2, 5003], 1), ([2, 5004], 1), ([1028, 8], 0), ([130, 128], 1), ([1, 300_008], 1)],
            ) {
                let shape = Shape::from(shape);
                all.add(FAMILY, format!("{name}{dtype} {shape} axis {axis}"), Check::measured(), |draft| {
                    let x = draft.reals("x", dtype, &shape, [-4.0, 4.0])?;
                    both(draft, x, axis, log)
                })?;
            }
            all.add(FAMILY, format!("{name}{dtype} with −inf in some places"), Check::measured(), |draft| {
                let x: Vec<f64> = (0..3 * 36)
                    .map(|i| if i / 36 == 1 || i % 5 == 2 { f64::NEG_INFINITY } else { f64::from(i % 7) })
                    .collect();
                let x = draft.numbers("x", dtype, [3, 36], &x)?;
                both(draft, x, 1, log)
            })?;
            all.add(FAMILY, format!("{name}in f32 of {dtype}"), Check::one_apart(dtype), |draft| {
                let x = draft.reals("x", dtype, [5, 36], [-4.0, 4.0])?;
                let x = draft.graph.cast(x, DType::F32)?;
                let y = both(draft, x, 1, log)?[0];
                Ok(vec![draft.graph.cast(y, dtype)?])
            })?;
        }
        all.add(FAMILY, format!("{name}of a turned view"), Check::measured(), |draft| {
            let x = draft.reals("x", DType::F32, [4, 35, 6], [-4.0, 4.0])?;
            let x = draft.graph.permute(x, &[2, 0, 1])?;
            both(draft, x, 2, log)
        })?;
    }
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        all.add(FAMILY, format!("of scaled scores in {dtype}"), Check::measured(), |draft| {
            let x = draft.reals("x", dtype, [6, 50], [-20.0, 20.0])?;
            let scale = draft.graph.scalar(0.15, x)?;
            let x = draft.graph.mul(x, scale)?;
            both(draft, x, 1, false)
        })?;
    }
    // Every weight is 1/n, a power of two.
    all.add(FAMILY, "equal scores", Check::Exact, |draft| {
        let x = draft.given("x", Tensor::new([3, 64], vec![-1e9f32; 3 * 64])?)?;
        both(draft, x, 1, false)
    })?;
    // 1/68 is nearer to the next larger number, and far from the middle, in both dtypes.
    for dtype in [DType::F16, DType::BF16] {
        all.add(FAMILY, format!("equal scores, rounded to the nearest {dtype}"), Check::Exact, |draft| {
            let x = draft.numbers("x", dtype, [3, 68], &[2.0; 3 * 68])?;
            both(draft, x, 1, false)
        })?;
    }
    for log in [false, true] {
        let name = if log { "log " } else { "" };
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for width in ODD_WIDTHS {
                for turned in [false, true] {
                    let way = if turned { ", turned" } else { "" };
                    let name = format!("{name}{dtype} lines of {width}{way}");
                    all.add_not_finite(FAMILY, name, Check::measured(), |draft| {
                        let x = draft.odd_rows("x", dtype, width, turned)?;
                        both(draft, x, usize::from(!turned), log)
                    })?;
                }
            }
        }
    }
    all.add_not_finite(FAMILY, "of scaled scores", Check::measured(), |draft| {
        let x = draft.odd_rows("x", DType::F32, 131, false)?;
        let scale = draft.graph.scalar(0.15, x)?;
        let x = draft.graph.mul(x, scale)?;
        both(draft, x, 1, false)
    })?;
    Ok(all)
}

fn both(draft: &mut Draft, x: ValueId, axis: usize, log: bool) -> Result<Vec<ValueId>> {
    draft.graph.push(if log { Op::LogSoftmax { axis } } else { Op::Softmax { axis } }, &[x])
}
