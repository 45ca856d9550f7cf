use super::case::{Cases, Draft};
use crate::{DType, Result, Tensor, ValueId, reference::compare::Check};

const FAMILY: &str = "rotary";

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    // B, H, T, D, R.
    let sizes = all.choose(
        &[
            [1, 1, 1, 2, 2],
            [2, 3, 5, 8, 8],
            [2, 3, 17, 10, 4],
            [1, 2, 7, 5, 4],
            [1, 4, 33, 64, 64],
            [3, 1, 2, 6, 0],
            [0, 2, 3, 4, 4],
            [1, 2, 0, 4, 4],
        ],
        &[[2, 8, 129, 64, 32], [1, 1, 1031, 16, 16]],
    );
    for [b, h, t, d, r] in sizes {
        for interleaved in [false, true] {
            let pairs = if interleaved { "neighbours" } else { "halves" };
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                all.add(FAMILY, format!("{dtype} [{b}, {h}, {t}, {d}], {r} by {pairs}"), Check::measured(), |draft| {
                    let x = draft.reals("x", dtype, [b, h, t, d], [-2.0, 2.0])?;
                    turned(draft, x, 50, r, interleaved)
                })?;
            }
        }
    }
    for interleaved in [false, true] {
        let pairs = if interleaved { "neighbours" } else { "halves" };
        all.add(FAMILY, format!("heads of a projection, {pairs}"), Check::measured(), |draft| {
            let x = draft.reals("x", DType::F32, [2, 9, 24], [-2.0, 2.0])?;
            let x = draft.graph.split_heads(x, 3)?;
            turned(draft, x, 20, 8, interleaved)
        })?;
    }
    // A quarter turn moves numbers without changing them.
    all.add(FAMILY, "quarter turns, positions out of range", Check::Exact, |draft| {
        let x = draft.wholes("x", DType::F32, [1, 2, 6, 4], [-50, 50])?;
        let cos = draft.given("cos", Tensor::new([3, 2], vec![1.0f32, 1.0, 0.0, 0.0, -1.0, -1.0])?)?;
        let sin = draft.given("sin", Tensor::new([3, 2], vec![0.0f32, 0.0, 1.0, 1.0, 0.0, 0.0])?)?;
        let positions = draft.given("positions", Tensor::new([1, 6], vec![0, 1, 2, 3, -1, i32::MIN])?)?;
        Ok(vec![draft.graph.rotary(x, [cos, sin], positions, false)?])
    })?;
    Ok(all)
}

/// Tables of `rows` positions, and positions drawn among them.
fn turned(draft: &mut Draft, x: ValueId, rows: usize, features: usize, interleaved: bool) -> Result<Vec<ValueId>> {
    let (dtype, shape) = (draft.graph.dtype(x), draft.graph.shape(x).clone());
    let angle = |i: usize| (i / (features / 2).max(1)) as f64 * 100f64.powf(-((i % (features / 2).max(1)) as f64));
    let table = |f: fn(f64) -> f64| -> Result<Tensor> {
        let numbers: Vec<f32> = (0..rows * (features / 2)).map(|i| f(angle(i)) as f32).collect();
        let numbers = Tensor::new([rows, features / 2], numbers)?;
        crate::reference::cast::<f64>(&(&numbers).into(), dtype).to_tensor()
    };
    let cos = draft.given("cos", table(f64::cos)?)?;
    let sin = draft.given("sin", table(f64::sin)?)?;
    let positions = draft.wholes("positions", DType::I32, [shape[0], shape[2]], [0, rows as i64 - 1])?;
    Ok(vec![draft.graph.rotary(x, [cos, sin], positions, interleaved)?])
}
