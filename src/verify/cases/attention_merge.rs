use super::case::Cases;
use crate::{DType, Result, Tensor, graph::Mask, reference::compare::Check};

const FAMILY: &str = "attention_merge";

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    let sizes = all.choose::<&[usize]>(
        &[&[1, 3, 4], &[2, 1, 1], &[3, 2, 4, 17, 5], &[7, 65, 64], &[2, 0, 4], &[0, 3, 4], &[2, 3, 0], &[5, 130]],
        &[&[32, 8, 64, 128], &[2, 4, 8, 131, 96]],
    );
    for outs in sizes {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            all.add(FAMILY, format!("{dtype} {outs:?}"), Check::measured(), |draft| {
                let rows = &outs[..outs.len() - 1];
                let outs = draft.reals("outs", dtype, outs, [-1.0, 1.0])?;
                let lses = draft.reals("lses", DType::F32, rows, [-30.0, 30.0])?;
                let (out, lse) = draft.graph.attention_merge_stacked(outs, lses)?;
                Ok(vec![out, lse])
            })?;
        }
    }
    all.add(FAMILY, "parts that saw nothing", Check::Exact, |draft| {
        let outs = draft.wholes("outs", DType::F32, [3, 3, 4], [-9, 9])?;
        let (none, infinite) = (f32::MIN, f32::NEG_INFINITY);
        let lses = vec![none, 2.0, none, -1.0, infinite, infinite, infinite, none, none];
        let lses = draft.given("lses", Tensor::new([3, 3], lses)?)?;
        let (out, lse) = draft.graph.attention_merge_stacked(outs, lses)?;
        Ok(vec![out, lse])
    })?;
    // Whether a part saw keys is not whether its scores are high.
    for width in [3, 4] {
        all.add_not_finite(FAMILY, format!("rows of {width}"), Check::Measured { magnitude: 1.0 }, |draft| {
            let (nan, inf, none) = (f64::NAN, f64::INFINITY, f64::from(f32::MIN));
            let outs: Vec<f64> = (0..3 * 8 * width).map(|_| draft.random.real(-1.0, 1.0)).collect();
            // Rows: of finite parts, the NaN of a part, that of a part that saw nothing, in out, in lse, and infinities.
            let mut outs = outs;
            for (part, row, number) in [(1, 1, nan), (2, 2, nan), (0, 6, inf), (1, 7, nan)] {
                outs[(part * 8 + row) * width] = number;
            }
            #[rustfmt::skip]
            let lses = [
                1.0, 2.0, 0.5, nan, inf, none, 1.0, 0.0,
                0.3, 1.0, none, 1.0, 1.0, none, none, -inf,
                -1.0, none, none, 2.0, none, none, 0.0, 1.0,
            ];
            let outs = draft.numbers("outs", DType::F32, [3, 8, width], &outs)?;
            let lses = draft.numbers("lses", DType::F32, [3, 8], &lses)?;
            let (out, lse) = draft.graph.attention_merge_stacked(outs, lses)?;
            Ok(vec![out, lse])
        })?;
    }
    all.add(
        FAMILY,
        "scores of the lowest f32 in one part, nothing in the other",
        Check::Measured { magnitude: 1.0 },
        |draft| {
            let q = draft.wholes("q", DType::F32, [1, 2, 5, 8], [0, 0])?;
            let mut parts = Vec::new();
            for (name, seen) in [("first", false), ("second", true)] {
                let k = draft.reals(&format!("{name} k"), DType::F32, [1, 2, 33, 8], [-1.0, 1.0])?;
                let v = draft.reals(&format!("{name} v"), DType::F32, [1, 2, 33, 8], [-1.0, 1.0])?;
                let bias = if seen { f32::MIN } else { f32::NEG_INFINITY };
                let bias = draft.given(&format!("{name} bias"), Tensor::new([33], vec![bias; 33])?)?;
                parts.push(draft.graph.attention_with_lse(q, k, v, Mask::bias(bias))?);
            }
            let (out, lse) = draft.graph.attention_merge(&parts)?;
            Ok(vec![out, lse])
        },
    )?;
    all.add(FAMILY, "two ranges of keys", Check::measured(), |draft| {
        let q = draft.reals("q", DType::F32, [2, 4, 3, 16], [-1.0, 1.0])?;
        let mut parts = Vec::new();
        for (name, keys) in [("first", 33), ("second", 5)] {
            let k = draft.reals(&format!("{name} k"), DType::F32, [2, 2, keys, 16], [-1.0, 1.0])?;
            let v = draft.reals(&format!("{name} v"), DType::F32, [2, 2, keys, 16], [-1.0, 1.0])?;
            parts.push(draft.graph.attention_with_lse(q, k, v, Mask::none())?);
        }
        let (out, lse) = draft.graph.attention_merge(&parts)?;
        Ok(vec![out, lse])
    })?;
    Ok(all)
}
