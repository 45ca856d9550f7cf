use super::case::Cases;
use crate::{DType, Result, Shape, Tensor, reference::compare::Check};

const FAMILY: &str = "append";

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    let sizes = all.choose::<(&[usize], usize, isize)>(
        &[
            (&[1, 4], 1, 1),
            (&[2, 5, 6, 4], 3, 2),
            (&[2, 5, 6, 4], 5, 1),
            (&[3, 2, 17, 8], 1, 2),
            (&[2, 3, 7, 5], 2, -2),
            (&[2, 6, 3], 0, 1),
            (&[0, 6, 3], 2, 1),
            (&[2, 4, 6], 3, -1),
        ],
        &[(&[2, 8, 131, 64], 65, 2), (&[1, 1031, 2, 16], 1, 1)],
    );
    for (cache, rows, axis) in sizes {
        let cache = Shape::from(cache);
        let place = cache.axis(FAMILY, axis)?;
        for dtype in DType::ALL {
            for circular in [false, true] {
                let name =
                    format!("{dtype} {rows} into {cache} along {axis}{}", if circular { ", circular" } else { "" });
                all.add(FAMILY, name, Check::Exact, |draft| {
                    let mut update = cache.to_vec();
                    update[place] = rows;
                    let size = cache[place] as i64;
                    let cache = draft.wholes("cache", dtype, &cache, [0, 250])?;
                    let update = draft.wholes("update", dtype, update, [0, 250])?;
                    let items = draft.graph.shape(cache)[0];
                    let positions = draft.wholes("positions", DType::I32, [items], [-2, size + 1])?;
                    let (grown, dropped) = draft.graph.append(cache, update, positions, axis, circular)?;
                    Ok(vec![grown, dropped])
                })?;
            }
        }
    }
    all.add(FAMILY, "positions far out of range", Check::Exact, |draft| {
        let cache = draft.wholes("cache", DType::F32, [4, 5, 2], [0, 250])?;
        let update = draft.wholes("update", DType::F32, [4, 3, 2], [0, 250])?;
        let positions = draft.given("positions", Tensor::new([4], vec![i32::MIN, -2, 3, i32::MAX])?)?;
        let (grown, dropped) = draft.graph.append(cache, update, positions, 1, false)?;
        let (around, none) = draft.graph.append(cache, update, positions, 1, true)?;
        Ok(vec![grown, dropped, around, none])
    })?;
    // [N, S, H, D], B, T, P.
    let paged = all.choose(
        &[([7, 4, 3, 2], 2, 6, 3), ([5, 1, 1, 4], 1, 3, 3), ([9, 16, 2, 8], 3, 1, 2), ([4, 3, 2, 2], 1, 0, 2)],
        &[([70, 16, 8, 64], 4, 65, 9)],
    );
    for (pages, items, rows, each) in paged {
        for dtype in DType::ALL {
            let name = format!("{dtype} {items}x{rows} into {each} pages of {pages:?}");
            all.add(FAMILY, name, Check::Exact, |draft| {
                let [count, size, heads, width] = pages;
                let cache = draft.wholes("pages", dtype, pages, [0, 250])?;
                let update = draft.wholes("update", dtype, [items, heads, rows, width], [0, 250])?;
                let positions = draft.wholes("positions", DType::I32, [items], [-1, (size * each) as i64])?;
                // Each page at most once; the last ones name nothing.
                let entry = |e: usize| if e < count { (count - 1 - e) as i32 } else { -(e as i32) };
                let entries: Vec<i32> = (0..items * each).map(entry).collect();
                let table = draft.given("table", Tensor::new([items, each], entries)?)?;
                let (grown, dropped) = draft.graph.append_paged(cache, update, positions, table)?;
                Ok(vec![grown, dropped])
            })?;
        }
    }
    all.add(FAMILY, "keys of a projection", Check::Exact, |draft| {
        let cache = draft.wholes("cache", DType::F32, [2, 3, 9, 4], [0, 250])?;
        let keys = draft.wholes("keys", DType::F32, [2, 2, 12], [0, 250])?;
        let keys = draft.graph.split_heads(keys, 3)?;
        let positions = draft.given("positions", Tensor::new([2], vec![0, 6])?)?;
        Ok(vec![draft.graph.append(cache, keys, positions, 2, false)?.0])
    })?;
    Ok(all)
}
