use super::case::Cases;
use crate::{DType, Result, Shape, Tensor, reference::compare::Check};

const FAMILY: &str = "scatter_add";

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    // Axes before, indices, axes behind, and the size.
    let shapes = all.choose::<(&[usize], &[usize], &[usize], usize)>(
        &[
            (&[], &[], &[], 1),
            (&[], &[1], &[4], 3),
            (&[], &[2, 9], &[16], 50),
            (&[], &[65], &[3], 7),
            (&[4], &[5], &[], 9),
            (&[3], &[2, 4], &[5], 7),
            (&[2, 3], &[3], &[8], 2),
            (&[], &[0], &[4], 5),
            (&[0], &[3], &[4], 5),
            (&[], &[33], &[4], 1),
        ],
        &[(&[], &[3, 129], &[67], 1000), (&[31], &[300], &[4], 257), (&[], &[5000], &[8], 3)],
    );
    for (before, indices, behind, size) in shapes {
        let (updates, indices) = (Shape::from([before, indices, behind].concat()), Shape::from(indices));
        let axis = before.len() as isize;
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            // Sums that every dtype holds exactly.
            let name = format!("{dtype} {updates} by {indices} to {size} on axis {axis}");
            all.add(FAMILY, name, Check::Exact, |draft| {
                let updates = draft.wholes("updates", dtype, &updates, [0, 1])?;
                let few = (size as i64 - 1).min(200);
                let indices = draft.wholes("indices", DType::I32, &indices, [-few - 1, few])?;
                Ok(vec![draft.graph.scatter_add(updates, indices, axis, size)?])
            })?;
        }
        all.add(FAMILY, format!("sums of {updates} by {indices} to {size}"), Check::measured(), |draft| {
            let updates = draft.reals("updates", DType::F32, &updates, [0.0, 1.0])?;
            let indices = draft.wholes("indices", DType::I32, &indices, [0, size as i64 - 1])?;
            Ok(vec![draft.graph.scatter_add(updates, indices, axis, size)?])
        })?;
    }
    all.add(FAMILY, "indices out of range", Check::Exact, |draft| {
        let updates = draft.wholes("updates", DType::F32, [2, 5, 3], [-100, 100])?;
        let indices = vec![i32::MIN, -1000, -7, -6, -1, 0, 5, 6, 1000, i32::MAX];
        let indices = draft.given("indices", Tensor::new([2, 5], indices)?)?;
        Ok(vec![draft.graph.scatter_add(updates, indices, 0, 6)?])
    })?;
    all.add(FAMILY, "views of updates and indices", Check::Exact, |draft| {
        let updates = draft.wholes("updates", DType::F32, [12, 5], [-100, 100])?;
        let updates = draft.graph.permute(updates, &[1, 0])?;
        let indices = draft.wholes("indices", DType::I32, [5, 3], [-4, 3])?;
        let indices = draft.graph.slice(indices, 1, 1, 2)?;
        let indices = draft.graph.reshape(indices, [5])?;
        Ok(vec![draft.graph.scatter_add(updates, indices, 0, 4)?])
    })?;
    Ok(all)
}
