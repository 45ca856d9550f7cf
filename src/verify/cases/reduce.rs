use super::case::{Cases, ODD_WIDTHS};
use crate::{
    DType, Result, Shape, Tensor,
    graph::{Op, Reduce},
    reference::compare::Check,
};

type Axes<'a> = (&'a [usize], &'a [isize]);

const QUICK: [Axes<'_>; 13] = [
    (&[1], &[0]),
    (&[7], &[0]),
    (&[5, 1], &[1]),
    (&[3, 64], &[1]),
    (&[67, 31], &[1]),
    (&[67, 31], &[0]),
    (&[5, 33], &[0, 1]),
    (&[2, 257], &[1]),
    (&[4, 5, 6], &[0, 2]),
    (&[4, 5, 6], &[1]),
    (&[0, 5], &[1]),
    (&[5, 0], &[1]),
    (&[1, 1031], &[1]),
];

const FULL: [Axes<'_>; 4] =
    [(&[130, 129], &[0]), (&[1, 20011], &[1]), (&[2, 3, 4, 5, 6], &[1, 3]), (&[1031, 67], &[1])];

pub(super) fn reduce_cases(mut all: Cases) -> Result<Cases> {
    const FAMILY: &str = "reduce";
    for (i, (shape, axes)) in all.choose(&QUICK, &FULL).into_iter().enumerate() {
        let shape = Shape::from(shape);
        for function in Reduce::ALL {
            let name = format!("{} {shape} over {axes:?}", function.name());
            let keep = i % 2 == 0;
            for dtype in [DType::F32, DType::I32, DType::U32] {
                if function == Reduce::Mean && dtype != DType::F32 {
                    continue;
                }
                let check = if function == Reduce::Mean { Check::measured() } else { Check::Exact };
                let low = if dtype == DType::U32 { 0 } else { -100 };
                all.add(FAMILY, format!("{dtype} {name} exact"), check, |draft| {
                    let x = draft.wholes("x", dtype, &shape, [low, 100])?;
                    Ok(vec![draft.graph.reduce(function, x, axes, keep)?])
                })?;
            }
            let n: usize = axes.iter().map(|&axis| shape[axis as usize]).product();
            let check = Check::Measured { magnitude: if function == Reduce::Sum { (n as f64).sqrt() } else { 0.5 } };
            all.add(FAMILY, name, check, |draft| {
                let x = draft.reals("x", DType::F32, &shape, [-1.0, 1.0])?;
                Ok(vec![draft.graph.reduce(function, x, axes, keep)?])
            })?;
        }
    }
    for dtype in [DType::F16, DType::BF16] {
        for function in Reduce::ALL {
            let magnitude = if function == Reduce::Sum { 8.0 } else { 0.0 };
            all.add(FAMILY, format!("{dtype} {}", function.name()), Check::Measured { magnitude }, |draft| {
                let x = draft.reals("x", dtype, [9, 67], [-1.0, 1.0])?;
                Ok(vec![draft.graph.reduce(function, x, &[1], false)?])
            })?;
        }
    }
    // Sums of integers wrap around.
    for dtype in [DType::I32, DType::U32] {
        all.add(FAMILY, format!("{dtype} sum that wraps"), Check::Exact, |draft| {
            let low = if dtype == DType::I32 { i64::from(i32::MIN) } else { 0 };
            let high = if dtype == DType::I32 { i64::from(i32::MAX) } else { i64::from(u32::MAX) };
            let x = draft.wholes("x", dtype, [3, 100], [low, high])?;
            Ok(vec![draft.graph.reduce(Reduce::Sum, x, &[1], false)?])
        })?;
    }
    all.add(FAMILY, "of a turned view", Check::Exact, |draft| {
        let x = draft.wholes("x", DType::F32, [5, 6, 7], [-100, 100])?;
        let x = draft.graph.permute(x, &[2, 0, 1])?;
        let sum = draft.graph.reduce(Reduce::Sum, x, &[0, 2], true)?;
        Ok(vec![sum, draft.graph.reduce(Reduce::Max, x, &[1], false)?])
    })?;
    // One large number and many small ones, which a plain sum loses.
    all.add(FAMILY, "sum of numbers of unlike size", Check::measured(), |draft| {
        let x = draft.reals("x", DType::F32, [4, 500], [0.0, 1.0])?;
        let large = draft.graph.scalar(1e6, x)?;
        let first = draft.graph.slice(x, 1, 0, 1)?;
        let first = draft.graph.mul(first, large)?;
        let rest = draft.graph.slice(x, 1, 1, 500)?;
        let x = draft.graph.concat(&[first, rest], 1)?;
        Ok(vec![draft.graph.reduce(Reduce::Sum, x, &[1], false)?])
    })?;
    for width in ODD_WIDTHS {
        for function in Reduce::ALL {
            for turned in [false, true] {
                let name = format!("{} of {width}{}", function.name(), if turned { ", turned" } else { "" });
                let check = Check::Measured { magnitude: (width as f64).sqrt() };
                all.add_not_finite(FAMILY, name, check, |draft| {
                    let x = draft.odd_rows("x", DType::F32, width, turned)?;
                    Ok(vec![draft.graph.reduce(function, x, &[isize::from(!turned)], false)?])
                })?;
            }
        }
    }
    for dtype in [DType::F16, DType::BF16] {
        for function in [Reduce::Max, Reduce::Min] {
            all.add_not_finite(FAMILY, format!("{dtype} {}", function.name()), Check::Exact, |draft| {
                let x = draft.odd_rows("x", dtype, 67, false)?;
                Ok(vec![draft.graph.reduce(function, x, &[1], false)?])
            })?;
        }
    }
    Ok(all)
}

pub(super) fn argmax_cases(mut all: Cases) -> Result<Cases> {
    const FAMILY: &str = "argmax";
    for (i, (shape, axes)) in all.choose(&QUICK, &FULL).into_iter().enumerate() {
        let (shape, axis) = (Shape::from(shape), axes[0] as usize);
        if shape[axis] == 0 {
            continue;
        }
        let keep = i % 2 == 0;
        for last in [false, true] {
            let which = if last { "last" } else { "first" };
            for dtype in [DType::F32, DType::I32, DType::U32] {
                // Few different numbers: many are the largest.
                for (high, kind) in [(2, " with ties"), (100_000, "")] {
                    all.add(
                        FAMILY,
                        format!("{dtype} {which} of {shape} on axis {axis}{kind}"),
                        Check::Exact,
                        |draft| {
                            let low = if dtype == DType::U32 { 0 } else { -high };
                            let x = draft.wholes("x", dtype, &shape, [low, high])?;
                            draft.graph.push(Op::Argmax { axis, keep, last }, &[x])
                        },
                    )?;
                }
            }
        }
    }
    for dtype in [DType::F16, DType::BF16] {
        all.add(FAMILY, format!("{dtype}"), Check::Exact, |draft| {
            let x = draft.reals("x", dtype, [9, 67], [-1.0, 1.0])?;
            Ok(vec![draft.graph.argmax(x, 1, false)?])
        })?;
    }
    all.add(FAMILY, "of negative numbers, and of a turned view", Check::Exact, |draft| {
        let x = draft.reals("x", DType::F32, [40, 6], [-2e9, -1e9])?;
        let turned = draft.graph.permute(x, &[1, 0])?;
        Ok(vec![draft.graph.argmax(x, 0, false)?, draft.graph.argmax(turned, 1, false)?])
    })?;
    for width in ODD_WIDTHS {
        for last in [false, true] {
            for turned in [false, true] {
                let which = if last { "last" } else { "first" };
                let name = format!("{which} of {width}{}", if turned { ", turned" } else { "" });
                all.add_not_finite(FAMILY, name, Check::Exact, |draft| {
                    let x = draft.odd_rows("x", DType::F32, width, turned)?;
                    let axis = usize::from(!turned);
                    draft.graph.push(Op::Argmax { axis, keep: false, last }, &[x])
                })?;
            }
        }
    }
    for last in [false, true] {
        // They are equal.
        all.add(
            FAMILY,
            format!("zeros of both signs, {}", if last { "last" } else { "first" }),
            Check::Exact,
            |draft| {
                let zeros: Vec<f32> = (0..5 * 67).map(|i| if (i + i / 67) % 3 == 0 { -0.0 } else { 0.0 }).collect();
                let x = draft.given("x", Tensor::new([5, 67], zeros)?)?;
                draft.graph.push(Op::Argmax { axis: 1, keep: false, last }, &[x])
            },
        )?;
    }
    for dtype in [DType::F16, DType::BF16] {
        all.add_not_finite(FAMILY, format!("{dtype}"), Check::Exact, |draft| {
            let x = draft.odd_rows("x", dtype, 67, false)?;
            Ok(vec![draft.graph.argmax(x, 1, false)?])
        })?;
    }
    Ok(all)
}
