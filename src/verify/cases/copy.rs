use super::case::{Cases, Draft};
use crate::{DType, Result, Shape, ValueId, graph::Op, reference::compare::Check};

type View = fn(&mut Draft, ValueId) -> Result<ValueId>;

/// Views that are outputs: they have to be copied to where an output lies.
pub(super) fn copy_cases(mut all: Cases) -> Result<Cases> {
    const FAMILY: &str = "copy";
    let views: Vec<(&str, &[usize], View)> = all.choose::<(&str, &[usize], View)>(
        &[
            ("itself", &[5, 7], |_, x| Ok(x)),
            ("turned", &[7, 5], |d, x| d.graph.permute(x, &[1, 0])),
            ("turned by tiles", &[67, 33], |d, x| d.graph.permute(x, &[1, 0])),
            ("turned by whole words", &[24, 36], |d, x| d.graph.permute(x, &[1, 0])),
            ("split heads", &[2, 9, 12], |d, x| d.graph.split_heads(x, 3)),
            ("merged heads", &[2, 3, 9, 4], |d, x| d.graph.merge_heads(x)),
            ("axes 3 0 2 1", &[3, 4, 5, 6], |d, x| d.graph.permute(x, &[3, 0, 2, 1])),
            ("a middle part", &[6, 11], |d, x| d.graph.slice(x, 1, 3, 8)),
            ("backwards", &[13], |d, x| {
                let op = Op::Slice { starts: vec![12], sizes: vec![7], steps: vec![-2] };
                Ok(d.graph.push(op, &[x])?[0])
            }),
            ("strided both ways", &[9, 10], |d, x| {
                let op = Op::Slice { starts: vec![8, 1], sizes: vec![4, 3], steps: vec![-2, 3] };
                Ok(d.graph.push(op, &[x])?[0])
            }),
            ("a row stretched", &[1, 7], |d, x| d.graph.broadcast(x, [5, 7])),
            ("a column stretched", &[5, 1], |d, x| d.graph.broadcast(x, [2, 5, 7])),
            ("a scalar stretched", &[], |d, x| d.graph.broadcast(x, [3, 3])),
            ("turned, then flat", &[4, 6], |d, x| {
                let x = d.graph.permute(x, &[1, 0])?;
                d.graph.reshape(x, [24])
            }),
            ("nothing", &[3, 0], |d, x| d.graph.permute(x, &[1, 0])),
            ("nothing left", &[3, 5], |d, x| d.graph.slice(x, 0, 2, 2)),
            ("five axes", &[2, 3, 2, 3, 2], |d, x| d.graph.permute(x, &[4, 2, 0, 3, 1])),
        ],
        &[
            ("turned, large", &[257, 1031], |d, x| d.graph.permute(x, &[1, 0])),
            ("turned by whole words, large", &[3, 64, 136], |d, x| d.graph.permute(x, &[0, 2, 1])),
            ("a middle part, large", &[301, 307], |d, x| d.graph.slice(x, 1, 3, 300)),
            ("six axes", &[2, 3, 2, 3, 2, 3], |d, x| d.graph.permute(x, &[5, 3, 1, 4, 2, 0])),
        ],
    );
    for (name, shape, view) in views {
        for dtype in DType::ALL {
            all.add(FAMILY, format!("{dtype} {name}"), Check::Exact, |draft| {
                let x = draft.wholes("x", dtype, shape, [0, 250])?;
                Ok(vec![view(draft, x)?])
            })?;
        }
    }
    Ok(all)
}

pub(super) fn concat_cases(mut all: Cases) -> Result<Cases> {
    const FAMILY: &str = "concat";
    let lists = all.choose::<(&[usize], isize, &[usize])>(
        &[
            (&[5], 0, &[3]),
            (&[5], 0, &[3, 1, 7]),
            (&[2, 5], 0, &[1, 4]),
            (&[2, 5], 1, &[3, 4]),
            (&[2, 5], -1, &[0, 4, 0, 1]),
            (&[3, 2, 5], 1, &[7, 1, 2]),
            (&[3, 0], 0, &[2, 2]),
            (&[2, 3], 1, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ],
        &[(&[65, 3, 33], 1, &[31, 33]), (&[7, 129], 0, &[64, 65, 1]), (&[2, 3], 0, &[12_001, 500, 10_003])],
    );
    for (shape, axis, sizes) in lists {
        let shape = Shape::from(shape);
        for dtype in DType::ALL {
            all.add(FAMILY, format!("{dtype} {sizes:?} along axis {axis} of {shape}"), Check::Exact, |draft| {
                let place = shape.axis(FAMILY, axis)?;
                let mut operands = Vec::new();
                for (i, &size) in sizes.iter().enumerate() {
                    let mut shape = shape.to_vec();
                    shape[place] = size;
                    operands.push(draft.wholes(&format!("x{i}"), dtype, shape, [0, 250])?);
                }
                Ok(vec![draft.graph.concat(&operands, axis)?])
            })?;
        }
    }
    all.add(FAMILY, "an operand twice, and a turned one", Check::Exact, |draft| {
        let x = draft.wholes("x", DType::F32, [4, 6], [0, 250])?;
        let y = draft.wholes("y", DType::F32, [6, 4], [0, 250])?;
        let y = draft.graph.permute(y, &[1, 0])?;
        Ok(vec![draft.graph.concat(&[x, y, x], 0)?])
    })?;
    Ok(all)
}

pub(super) fn pad_cases(mut all: Cases) -> Result<Cases> {
    const FAMILY: &str = "pad";
    let frames = all.choose::<(&[usize], &[(usize, usize)])>(
        &[
            (&[5], &[(0, 0)]),
            (&[5], &[(2, 3)]),
            (&[3, 5], &[(0, 1), (2, 0)]),
            (&[3, 5], &[(1, 1), (1, 1)]),
            (&[0, 5], &[(1, 1), (0, 0)]),
            (&[2, 3, 4], &[(0, 1), (2, 0), (1, 3)]),
            (&[], &[]),
        ],
        &[(&[33, 65], &[(31, 1), (0, 63)])],
    );
    for (shape, frame) in frames {
        let shape = Shape::from(shape);
        for dtype in DType::ALL {
            all.add(FAMILY, format!("{dtype} {shape} by {frame:?}"), Check::Exact, |draft| {
                let x = draft.wholes("x", dtype, &shape, [0, 250])?;
                Ok(vec![draft.graph.pad(x, frame, 3.0)?])
            })?;
        }
    }
    for (dtype, value) in [
        (DType::F32, f64::NEG_INFINITY),
        (DType::F32, 0.1),
        (DType::F16, 0.1),
        (DType::BF16, 0.1),
        (DType::I32, -2.9),
        (DType::U32, -1.0),
        (DType::Bool, 0.0),
    ] {
        all.add(FAMILY, format!("{dtype} around with {value}"), Check::Exact, |draft| {
            let x = draft.wholes("x", dtype, [3, 2], [0, 250])?;
            let x = draft.graph.permute(x, &[1, 0])?;
            Ok(vec![draft.graph.pad(x, &[(1, 0), (0, 2)], value)?])
        })?;
    }
    Ok(all)
}
