use super::case::Cases;
use crate::{DType, Result, Shape, Tensor, reference::compare::Check};

const FAMILY: &str = "gather";

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    let shapes = all.choose::<(&[usize], &[usize], isize)>(
        &[
            (&[5], &[], 0),
            (&[1, 1], &[1], 0),
            (&[50, 16], &[2, 9], 0),
            (&[7, 3], &[65], 0),
            (&[4, 9], &[5], 1),
            (&[3, 7, 5], &[2, 4], 1),
            (&[3, 7, 5], &[], -1),
            (&[4, 0], &[3], 0),
            (&[0, 4], &[0], 0),
            (&[2, 3, 4, 5], &[2, 2], 2),
        ],
        &[
            (&[1000, 67], &[3, 129], 0),
            (&[31, 257], &[300], 1),
            // Several blocks for an invocation, whole and element by element.
            (&[100, 64], &[2, 551], 0),
            (&[50, 33], &[2203], 0),
        ],
    );
    for (data, indices, axis) in shapes {
        let (data, indices) = (Shape::from(data), Shape::from(indices));
        let size = data[data.axis(FAMILY, axis)?] as i64;
        for dtype in DType::ALL {
            all.add(FAMILY, format!("{dtype} {data} by {indices} on axis {axis}"), Check::Exact, |draft| {
                let data = draft.wholes("data", dtype, &data, [0, 200])?;
                let indices = draft.wholes("indices", DType::I32, &indices, [-size, (size - 1).max(-size)])?;
                Ok(vec![draft.graph.gather(data, indices, axis)?])
            })?;
        }
    }
    all.add(FAMILY, "indices out of range", Check::Exact, |draft| {
        let data = draft.wholes("data", DType::F32, [6, 5], [-100, 100])?;
        let indices = vec![i32::MIN, -1000, -7, -6, -1, 0, 5, 6, 1000, i32::MAX];
        let indices = draft.given("indices", Tensor::new([2, 5], indices)?)?;
        Ok(vec![draft.graph.gather(data, indices, 0)?])
    })?;
    all.add(FAMILY, "views of data and indices", Check::Exact, |draft| {
        let data = draft.wholes("data", DType::F32, [5, 12], [-100, 100])?;
        let data = draft.graph.permute(data, &[1, 0])?;
        let indices = draft.wholes("indices", DType::I32, [8, 3], [-12, 11])?;
        let indices = draft.graph.slice(indices, 1, 1, 3)?;
        Ok(vec![draft.graph.gather(data, indices, 0)?])
    })?;
    all.add(FAMILY, "token and position embeddings", Check::Exact, |draft| {
        let table = draft.wholes("table", DType::F32, [40, 24], [-50, 50])?;
        let positions = draft.wholes("positions", DType::F32, [10, 24], [-50, 50])?;
        let tokens = draft.wholes("tokens", DType::I32, [2, 7], [0, 39])?;
        let token = draft.graph.gather(table, tokens, 0)?;
        let position = draft.graph.slice(positions, 0, 0, 7)?;
        Ok(vec![draft.graph.add(token, position)?])
    })?;
    Ok(all)
}
