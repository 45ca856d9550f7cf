use super::{
    Binary, Op, Reduce,
    attention::places,
    attention_grad, cross_entropy, dropout,
    operand::{Operand, broadcast, float, in_rank, same_dtype},
};
use crate::{
    Error, Result,
    tensor::{DType, Shape, quantize::Packing},
};

/// The dtypes and shapes of an operation's results, from those of its operands.
///
/// ```
/// use tilewise::{DType, graph::{Op, infer}};
/// let op = Op::Matmul { transpose_a: false, transpose_b: true };
/// let results = infer(&op, &[(DType::F32, &[2, 3].into()), (DType::F32, &[4, 3].into())])?;
/// assert_eq!(results, [(DType::F32, [2, 4].into())]);
///
/// let error = infer(&op, &[(DType::F32, &[2, 3].into()), (DType::F32, &[4, 5].into())]).unwrap_err();
/// assert_eq!(error.to_string(), "matmul: `a` [2, 3] has inner size 3, `b` [4, 5] transposed has 5");
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`], with the operands and what was expected, if their number, dtypes or shapes don't fit, or if an option
/// does not; [`Error::Limit`] if a result has more than 2³¹ − 1 elements (or would have, if its empty axes had one).
pub fn infer(op: &Op, operands: &[Operand<'_>]) -> Result<Vec<(DType, Shape)>> {
    let name = op.name();
    op.check_count(operands.len())?;
    let one = |dtype: DType, shape: Shape| Ok(vec![(dtype, shape)]);
    let results = match op {
        Op::Input { dtype, shape } | Op::Parameter { dtype, shape } => one(*dtype, shape.clone()),
        Op::Constant { value } => one(value.dtype(), value.shape().clone()),
        Op::Matmul { transpose_a, transpose_b } => matmul(operands, *transpose_a, *transpose_b),
        Op::Attention(attention) => attention.results(operands),
        Op::AttentionGrad(attention) => attention_grad::results(attention, operands),
        Op::LayerNorm { axes, epsilon, weight, bias } => {
            let statistics = norm(name, operands, *axes, *epsilon, &[("weight", *weight), ("bias", *bias)])?;
            let (dtype, shape) = operands[0];
            Ok(vec![(dtype, shape.clone()), (DType::F32, statistics.clone()), (DType::F32, statistics)])
        }
        Op::RmsNorm { axes, epsilon, weight } => {
            let statistics = norm(name, operands, *axes, *epsilon, &[("weight", *weight)])?;
            let (dtype, shape) = operands[0];
            Ok(vec![(dtype, shape.clone()), (DType::F32, statistics)])
        }
        Op::Softmax { axis } | Op::LogSoftmax { axis } => {
            let (dtype, shape) = float(name, "x", operands[0])?;
            in_rank(name, *axis, shape)?;
            one(dtype, shape.clone())
        }
        Op::CrossEntropy { smoothing, .. } => cross_entropy::infer(operands, *smoothing),
        Op::Unary { function } => {
            let (dtype, shape) = operands[0];
            function.check(dtype)?;
            one(dtype, shape.clone())
        }
        Op::Binary { function } => binary(*function, operands[0], operands[1]),
        Op::Where => {
            let (condition, a, b) = (operands[0], operands[1], operands[2]);
            if condition.0 != DType::Bool {
                return Err(Error::dtype(name, "condition", condition.0, "bool"));
            }
            same_dtype(name, a, b)?;
            let shape = broadcast(name, a.1, b.1)?;
            one(a.0, broadcast(name, condition.1, &shape)?)
        }
        Op::Cast { dtype } => one(*dtype, operands[0].1.clone()),
        Op::Dropout { p, .. } => dropout::infer(operands, *p),
        Op::Reduce { function, axes, keep } => {
            let (dtype, shape) = operands[0];
            match function {
                Reduce::Mean => float(name, "x", operands[0]).map(|_| ())?,
                Reduce::Sum | Reduce::Max | Reduce::Min if dtype == DType::Bool => {
                    return Err(Error::dtype(name, "x", dtype, "a number (cast it first)"));
                }
                Reduce::Sum | Reduce::Max | Reduce::Min => {}
            }
            if axes.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(Error::op(name, format!("axes {axes:?} are not sorted or repeat")));
            }
            for &axis in axes {
                in_rank(name, axis, shape)?;
            }
            one(dtype, reduced(shape, axes, *keep))
        }
        Op::Argmax { axis, keep, .. } => {
            let (dtype, shape) = operands[0];
            if dtype == DType::Bool {
                return Err(Error::dtype(name, "x", dtype, "a number (cast it first)"));
            }
            in_rank(name, *axis, shape)?;
            if shape[*axis] == 0 {
                return Err(Error::op(name, format!("axis {axis} of {shape} is empty: there is no largest element")));
            }
            one(DType::I32, reduced(shape, &[*axis], *keep))
        }
        Op::Reshape { shape } => {
            let (dtype, from) = operands[0];
            if from.elements() != shape.checked_elements(name).map(Some)? {
                let count = |s: &Shape| s.elements().map_or("too many".into(), |n| n.to_string());
                return Err(Error::op(
                    name,
                    format!("{from} has {} elements, the new shape {shape} has {}", count(from), count(shape)),
                ));
            }
            one(dtype, shape.clone())
        }
        Op::Permute { order } => {
            let (dtype, shape) = operands[0];
            let mut sorted = order.clone();
            sorted.sort_unstable();
            if sorted != (0..shape.rank()).collect::<Vec<_>>() {
                return Err(Error::op(
                    name,
                    format!("{order:?} is no permutation of the {} axes of {shape}", shape.rank()),
                ));
            }
            one(dtype, order.iter().map(|&axis| shape[axis]).collect())
        }
        Op::Slice { starts, sizes, steps } => slice(operands[0], starts, sizes, steps),
        Op::Concat { axis } => concat(operands, *axis),
        Op::Broadcast { shape } => {
            let (dtype, from) = operands[0];
            if !from.broadcasts_to(shape) {
                return Err(Error::op(name, format!("{from} does not broadcast to {shape}")));
            }
            one(dtype, shape.clone())
        }
        Op::Pad { before, after, .. } => {
            let (dtype, shape) = operands[0];
            if before.len() != shape.rank() || after.len() != shape.rank() {
                return Err(Error::op(
                    name,
                    format!(
                        "{} and {} pad sizes were given for {shape} (rank {})",
                        before.len(),
                        after.len(),
                        shape.rank()
                    ),
                ));
            }
            let sizes: Option<Vec<usize>> = shape
                .iter()
                .zip(before.iter().zip(after))
                .map(|(&size, (&b, &a))| size.checked_add(b)?.checked_add(a))
                .collect();
            one(dtype, sizes.ok_or_else(|| Error::op(name, format!("the padded size of {shape} overflows")))?.into())
        }
        Op::Gather { axis } => {
            let ((dtype, data), (index_type, indices)) = (operands[0], operands[1]);
            in_rank(name, *axis, data)?;
            if index_type != DType::I32 {
                return Err(Error::dtype(name, "indices", index_type, "i32"));
            }
            if data[*axis] == 0 && indices.elements() != Some(0) {
                return Err(Error::op(
                    name,
                    format!("axis {axis} of `data` {data} is empty: there is nothing to pick"),
                ));
            }
            one(dtype, data[..*axis].iter().chain(indices.iter()).chain(&data[axis + 1..]).copied().collect())
        }
        Op::ScatterAdd { axis, size } => {
            let ((dtype, updates), (index_type, indices)) = (float(name, "updates", operands[0])?, operands[1]);
            if index_type != DType::I32 {
                return Err(Error::dtype(name, "indices", index_type, "i32"));
            }
            let end = axis.saturating_add(indices.rank());
            if updates.get(*axis..end) != Some(&indices[..]) {
                let expected = format!("the indices' {indices} from axis {axis} on");
                return Err(Error::shape(name, "updates", updates, expected));
            }
            let count = indices.checked_elements(name)?;
            if *size == 0 && count > 0 {
                return Err(Error::op(name, format!("the size is 0, there is no place for {count} indices")));
            }
            one(dtype, updates[..*axis].iter().chain([size]).chain(&updates[end..]).copied().collect())
        }
        Op::Dequantize(packing) => dequantize(operands, *packing),
        Op::Rotary { .. } => rotary(operands),
        Op::Append { axis, .. } => append(operands, *axis),
        Op::AppendPaged => append_paged(operands),
        Op::AttentionMerge => attention_merge(operands),
    }?;
    for (_, shape) in &results {
        shape.checked_elements(name)?;
    }
    Ok(results)
}

fn reduced(shape: &Shape, axes: &[usize], keep: bool) -> Shape {
    let sizes = shape.iter().enumerate();
    let is_reduced = |axis: usize| axes.binary_search(&axis).is_ok();
    sizes.filter_map(|(axis, &size)| if !is_reduced(axis) { Some(size) } else { keep.then_some(1) }).collect()
}

fn dequantize(operands: &[Operand<'_>], packing: Packing) -> Result<Vec<(DType, Shape)>> {
    const OP: &str = "dequantize";
    packing.check()?;
    let (words, scale) = (operands[0], float(OP, "scale", operands[1])?);
    let &[rows, _] = &words.1[..] else {
        return Err(Error::op(OP, format!("`words` is {}, expected [rows, {}]", words.1, packing.words())));
    };
    let mut expected = vec![("words", words.1, Shape::from([rows, packing.words()]))];
    expected.push(("scale", scale.1, Shape::from([rows, packing.groups()])));
    expected.extend(operands.get(2).map(|zero| ("zero", zero.1, Shape::from([packing.zero_words(rows)]))));
    for (name, &(dtype, _)) in [("words", &words)].into_iter().chain(operands.get(2).map(|zero| ("zero", zero))) {
        if dtype != DType::U32 {
            return Err(Error::dtype(OP, name, dtype, "u32"));
        }
    }
    match expected.iter().find(|(_, shape, expected)| *shape != expected) {
        None => Ok(vec![(DType::F32, [rows, packing.columns].into())]),
        Some((name, shape, expected)) => Err(Error::op(
            OP,
            format!("`{name}` is {shape}, {packing} of {} columns needs {expected}", packing.columns),
        )),
    }
}

fn matmul(operands: &[Operand<'_>], transpose_a: bool, transpose_b: bool) -> Result<Vec<(DType, Shape)>> {
    const OP: &str = "matmul";
    let (a, b) = (float(OP, "a", operands[0])?, float(OP, "b", operands[1])?);
    same_dtype(OP, a, b)?;
    for (operand, shape, transposed) in [("a", a.1, transpose_a), ("b", b.1, transpose_b)] {
        let least = if transposed { 2 } else { 1 };
        if shape.rank() < least {
            return Err(Error::shape(OP, operand, shape, format!("rank {least} or more")));
        }
    }
    let split = |shape: &Shape, transposed: bool| -> (Shape, usize, usize) {
        let n = shape.rank();
        let (rows, columns) = (shape[n - 2], shape[n - 1]);
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        (shape[..n - 2].into(), rows, columns)
    };
    let (batch_a, m, k) = if a.1.rank() == 1 { (Shape::default(), 1, a.1[0]) } else { split(a.1, transpose_a) };
    let (batch_b, k_b, n) = if b.1.rank() == 1 { (Shape::default(), b.1[0], 1) } else { split(b.1, transpose_b) };
    if k != k_b {
        let t = |transposed: bool| if transposed { " transposed" } else { "" };
        return Err(Error::op(
            OP,
            format!("`a` {}{} has inner size {k}, `b` {}{} has {k_b}", a.1, t(transpose_a), b.1, t(transpose_b)),
        ));
    }
    let batch = batch_a
        .broadcast(&batch_b)
        .ok_or_else(|| Error::op(OP, format!("the leading axes of `a` {} and `b` {} do not broadcast", a.1, b.1)))?;
    let row = (a.1.rank() > 1).then_some(m);
    let column = (b.1.rank() > 1).then_some(n);
    Ok(vec![(a.0, batch.iter().copied().chain(row).chain(column).collect())])
}

fn norm(op: &str, operands: &[Operand<'_>], axes: usize, epsilon: f32, optional: &[(&str, bool)]) -> Result<Shape> {
    let (dtype, shape) = float(op, "x", operands[0])?;
    if shape.rank() == 0 {
        return Err(Error::shape(op, "x", shape, "at least one axis, to normalise over"));
    }
    if axes == 0 || axes > shape.rank() {
        return Err(Error::op(
            op,
            format!("{axes} trailing axes were given for {shape}, expected 1 to {}", shape.rank()),
        ));
    }
    if !(epsilon >= 0.0 && epsilon.is_finite()) {
        return Err(Error::op(op, format!("epsilon is {epsilon}, expected a finite number ≥ 0")));
    }
    let (outer, inner) = shape.split_at(shape.rank() - axes);
    let inner = Shape::from(inner);
    let given = optional.iter().filter(|(_, given)| *given).map(|(name, _)| name);
    for (&operand, &(other, given)) in given.zip(&operands[1..]) {
        if other != dtype {
            return Err(Error::dtype(op, operand, other, dtype.name()));
        }
        if !given.broadcasts_to(&inner) {
            return Err(Error::shape(
                op,
                operand,
                given,
                format!("one that broadcasts to the normalised axes {inner}"),
            ));
        }
    }
    Ok(outer.into())
}

fn binary(function: Binary, a: Operand<'_>, b: Operand<'_>) -> Result<Vec<(DType, Shape)>> {
    let name = function.name();
    same_dtype(name, a, b)?;
    function.check(a.0)?;
    let dtype = if function.is_comparison() { DType::Bool } else { a.0 };
    Ok(vec![(dtype, broadcast(name, a.1, b.1)?)])
}

fn slice(
    (dtype, shape): Operand<'_>,
    starts: &[usize],
    sizes: &[usize],
    steps: &[isize],
) -> Result<Vec<(DType, Shape)>> {
    const OP: &str = "slice";
    let rank = shape.rank();
    if [starts.len(), sizes.len(), steps.len()] != [rank; 3] {
        return Err(Error::op(
            OP,
            format!(
                "{} starts, {} sizes and {} steps were given for {shape} (rank {rank})",
                starts.len(),
                sizes.len(),
                steps.len()
            ),
        ));
    }
    for axis in 0..rank {
        let (start, size, step, whole) = (starts[axis], sizes[axis], steps[axis], shape[axis]);
        if step == 0 {
            return Err(Error::op(OP, format!("the step of axis {axis} is 0")));
        }
        if size == 0 {
            continue;
        }
        let last = (size as i128 - 1) * step as i128 + start as i128;
        if start >= whole || last < 0 || last >= whole as i128 {
            return Err(Error::op(
                OP,
                format!(
                    "axis {axis}: {size} elements from {start} with step {step} leave its size of {whole} ({shape})"
                ),
            ));
        }
    }
    Ok(vec![(dtype, sizes.into())])
}

fn concat(operands: &[Operand<'_>], axis: usize) -> Result<Vec<(DType, Shape)>> {
    const OP: &str = "concat";
    let (dtype, first) = operands[0];
    in_rank(OP, axis, first)?;
    let mut sizes = first.to_vec();
    for (i, &(other, shape)) in operands.iter().enumerate().skip(1) {
        let fits = other == dtype
            && shape.rank() == first.rank()
            && (0..first.rank()).all(|a| a == axis || shape[a] == first[a]);
        if !fits {
            return Err(Error::op(
                OP,
                format!("operand {i} is {other} {shape}, operand 0 is {dtype} {first}: only axis {axis} may differ"),
            ));
        }
        sizes[axis] = sizes[axis].checked_add(shape[axis]).ok_or_else(|| Error::op(OP, "the joined size overflows"))?;
    }
    Ok(vec![(dtype, sizes.into())])
}

fn rotary(operands: &[Operand<'_>]) -> Result<Vec<(DType, Shape)>> {
    const OP: &str = "rotary";
    let (dtype, x) = float(OP, "x", operands[0])?;
    let ((cos_type, cos), (sin_type, sin), (index_type, positions)) = (operands[1], operands[2], operands[3]);
    let &[b, _, t, d] = &x[..] else { return Err(Error::shape(OP, "x", x, "[B, H, T, D]")) };
    for (name, given) in [("cos", cos_type), ("sin", sin_type)] {
        if given != dtype {
            return Err(Error::dtype(OP, name, given, dtype.name()));
        }
    }
    if cos.rank() != 2 || cos != sin || cos[1] > d / 2 || (cos[0] == 0 && x.elements() != Some(0)) {
        return Err(Error::op(
            OP,
            format!("`cos` is {cos} and `sin` is {sin}, expected the same [P, R/2] with P > 0 and R ≤ D = {d}"),
        ));
    }
    if index_type != DType::I32 {
        return Err(Error::dtype(OP, "positions", index_type, "i32"));
    }
    if positions != &Shape::from([b, t]) {
        return Err(Error::shape(OP, "positions", positions, format!("[B, T] = [{b}, {t}]")));
    }
    Ok(vec![(dtype, x.clone())])
}

fn append(operands: &[Operand<'_>], axis: usize) -> Result<Vec<(DType, Shape)>> {
    const OP: &str = "append";
    let ((dtype, cache), (update_type, update), (index_type, positions)) = (operands[0], operands[1], operands[2]);
    in_rank(OP, axis, cache)?;
    if axis == 0 {
        return Err(Error::op(OP, "axis 0 is the batch item, it can't grow"));
    }
    let fits = update_type == dtype
        && update.rank() == cache.rank()
        && (0..cache.rank()).all(|a| if a == axis { update[a] <= cache[a] } else { update[a] == cache[a] });
    if !fits {
        return Err(Error::op(
            OP,
            format!(
                "`update` is {update_type} {update}, `cache` is {dtype} {cache}: only axis {axis} may differ, and be smaller"
            ),
        ));
    }
    if index_type != DType::I32 {
        return Err(Error::dtype(OP, "positions", index_type, "i32"));
    }
    if positions != &Shape::from([cache[0]]) {
        return Err(Error::shape(OP, "positions", positions, format!("[B] = [{}]", cache[0])));
    }
    Ok(vec![(dtype, cache.clone()), (DType::I32, Shape::from([1]))])
}

fn append_paged(operands: &[Operand<'_>]) -> Result<Vec<(DType, Shape)>> {
    const OP: &str = "append_paged";
    let ((dtype, pages), (update_type, update)) = (operands[0], operands[1]);
    let &[count, _, heads, width] = &pages[..] else {
        return Err(Error::shape(OP, "pages", pages, "[N, S, H, D]: pages of S rows of each head"));
    };
    let items = update.first().copied().unwrap_or(0);
    if update_type != dtype || update.rank() != 4 || [update[1], update[3]] != [heads, width] {
        let form = format!("expected {dtype} [B, H, T, D] with H = {heads} and D = {width}");
        return Err(Error::op(OP, format!("`update` is {update_type} {update}, `pages` is {dtype} {pages}: {form}")));
    }
    for (name, (given, shape), rank) in [("positions", operands[2], 1), ("table", operands[3], 2)] {
        if given != DType::I32 {
            return Err(Error::dtype(OP, name, given, "i32"));
        }
        if shape.rank() != rank || shape[0] != items {
            let form = if rank == 1 { "[B]" } else { "[B, pages of an item]" };
            return Err(Error::shape(OP, name, shape, format!("{form} with B = {items}")));
        }
    }
    places(OP, pages[1], operands[3].1[1])?;
    if count == 0 && operands[3].1.elements() != Some(0) {
        return Err(Error::op(
            OP,
            format!("`pages` is {pages}: there is no page for `table` {} to name", operands[3].1),
        ));
    }
    Ok(vec![(dtype, pages.clone()), (DType::I32, Shape::from([1]))])
}

fn attention_merge(operands: &[Operand<'_>]) -> Result<Vec<(DType, Shape)>> {
    const OP: &str = "attention_merge";
    let ((dtype, outs), (lse_type, lses)) = (float(OP, "outs", operands[0])?, operands[1]);
    if lse_type != DType::F32 {
        return Err(Error::dtype(OP, "lses", lse_type, "f32"));
    }
    if outs.rank() < 2 {
        return Err(Error::shape(OP, "outs", outs, "[P, …, Dv]: the parts one after the other"));
    }
    let rows = Shape::from(&outs[..outs.rank() - 1]);
    if *lses != rows {
        return Err(Error::shape(OP, "lses", lses, format!("{rows}, a number for each row of `outs` {outs}")));
    }
    Ok(vec![(dtype, outs[1..].into()), (DType::F32, rows[1..].into())])
}
