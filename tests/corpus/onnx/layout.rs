//! Operators that move elements without computing.

use tilewise::{Shape, Tensor, ValueId, graph::Op};

use super::{
    import::{Builder, Call, Known, Result, Slot},
    pointwise::{one, sizes},
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "Shape" => |c| {
            let x = c.x(0)?;
            let values: Vec<i64> = c.shape(x).iter().map(|&size| size as i64).collect();
            Ok(vec![Slot::Known(Known { shape: [values.len()].into(), values })])
        },
        "Transpose" => transpose,
        "Reshape" => reshape,
        "Flatten" => flatten,
        "Squeeze" => squeeze,
        "Unsqueeze" => unsqueeze,
        "Concat" => |c| {
            let (operands, axis) = (c.all()?, c.node.int("axis").unwrap_or(0));
            one(c.g().concat(&operands, axis as isize)?)
        },
        "Split" => split,
        "Slice" => slice,
        "Expand" => expand,
        "Tile" => tile,
        "Pad" => pad,
        "Trilu" => triangle,
        _ => return None,
    })
}

fn transpose(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let rank = c.shape(x).rank();
    let order: Vec<usize> = match c.node.ints("perm") {
        Some(order) => order.into_iter().map(|axis| c.axis(axis, rank)).collect::<Result<_>>()?,
        None => (0..rank).rev().collect(),
    };
    one(c.g().permute(x, &order)?)
}

fn reshape(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let Some(wanted) = c.read_or_attribute(1, "shape")? else { return c.fault("there is no shape") };
    if let Slot::Known(Known { shape, values }) = c.slot(0)?.clone() {
        return Ok(vec![Slot::Known(Known { shape: resolve(c, &shape, &wanted)?, values })]);
    }
    let x = c.x(0)?;
    let shape = resolve(c, &c.shape(x), &wanted)?;
    one(c.g().reshape(x, shape)?)
}

/// A shape in which 0 stands for the old size (unless `allowzero`) and −1 for what is left.
fn resolve(c: &Call<'_>, old: &Shape, wanted: &[i64]) -> Result<Shape> {
    let keep = !c.node.flag("allowzero");
    let given = wanted.iter().enumerate().map(|(axis, &size)| match size {
        0 if keep => old.get(axis).map_or(0, |&size| size as i64),
        size => size,
    });
    let mut given: Vec<i64> = given.collect();
    if let Some(open) = given.iter().position(|&size| size == -1) {
        let others: i64 = given.iter().filter(|&&size| size != -1).product();
        let all = old.elements().unwrap_or(0) as i64;
        given[open] = if others == 0 { 0 } else { all / others };
    }
    sizes(c, &given)
}

fn flatten(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let shape = c.shape(x);
    // One more place than axes: everything may stand before it.
    let axis = match c.node.int("axis").unwrap_or(1) {
        axis if axis < 0 => c.axis(axis, shape.rank())?,
        axis => (axis as usize).min(shape.rank()),
    };
    let (outer, inner) = shape.split_at(axis);
    one(c.g().reshape(x, [outer.iter().product(), inner.iter().product()])?)
}

fn squeeze(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let shape = c.shape(x);
    let dropped: Vec<usize> = match c.read_or_attribute(1, "axes")? {
        Some(axes) => axes.into_iter().map(|axis| c.axis(axis, shape.rank())).collect::<Result<_>>()?,
        None => (0..shape.rank()).filter(|&axis| shape[axis] == 1).collect(),
    };
    if dropped.iter().any(|&axis| shape[axis] != 1) {
        return c.fault(format!("axes {dropped:?} of {shape} are not all of size 1"));
    }
    let kept: Shape = (0..shape.rank()).filter(|axis| !dropped.contains(axis)).map(|axis| shape[axis]).collect();
    one(c.g().reshape(x, kept)?)
}

fn unsqueeze(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let shape = c.shape(x);
    let Some(axes) = c.read_or_attribute(1, "axes")? else { return c.fault("there are no axes") };
    let rank = shape.rank() + axes.len();
    let new: Vec<usize> = axes.into_iter().map(|axis| c.axis(axis, rank)).collect::<Result<_>>()?;
    let mut old = shape.iter().copied();
    let wide: Vec<usize> =
        (0..rank).map(|axis| if new.contains(&axis) { 1 } else { old.next().unwrap_or(1) }).collect();
    one(c.g().reshape(x, wide)?)
}

fn split(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let shape = c.shape(x);
    let axis = c.axis(c.node.int("axis").unwrap_or(0), shape.rank())?;
    let parts: Vec<usize> = match c.read_or_attribute(1, "split")? {
        Some(parts) => sizes(c, &parts)?.to_vec(),
        None => {
            // Equal parts, the last one smaller where they don't divide.
            let n = c.node.int("num_outputs").map_or(c.node.outputs.len(), |n| n as usize).max(1);
            let size = shape[axis].div_ceil(n);
            (0..n).map(|i| size.min(shape[axis].saturating_sub(i * size))).collect()
        }
    };
    let mut start = 0;
    let mut results = Vec::new();
    for part in parts {
        results.push(c.g().slice(x, axis as isize, start, start + part)?.into());
        start += part;
    }
    Ok(results)
}

fn slice(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let shape = c.shape(x);
    let (Some(starts), Some(ends)) = (c.read_or_attribute(1, "starts")?, c.read_or_attribute(2, "ends")?) else {
        return c.fault("starts or ends are missing");
    };
    let axes = c.read_or_attribute(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = c.read(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    let (mut first, mut count, mut stride) = (vec![0; shape.rank()], shape.to_vec(), vec![1; shape.rank()]);
    for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
        let axis = c.axis(axis, shape.rank())?;
        let size = shape[axis] as i64;
        // Where a walk may begin and where it may end, by its direction.
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let place = |at: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(low, high);
        let (start, end) = (place(start), place(end));
        let span = if step > 0 { end - start } else { start - end };
        count[axis] = (span.max(0) as usize).div_ceil(step.unsigned_abs() as usize);
        first[axis] = start.max(0) as usize;
        stride[axis] = step as isize;
    }
    one(c.push(Op::Slice { starts: first, sizes: count, steps: stride }, &[x])?)
}

fn expand(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let wanted = sizes(c, &c.read(1)?.unwrap_or_default())?;
    match c.shape(x).broadcast(&wanted) {
        Some(shape) => one(c.g().broadcast(x, shape)?),
        None => c.fault(format!("{} and {wanted} do not broadcast", c.shape(x))),
    }
}

/// Each axis repeated: an axis of size 1 before it is stretched, and both become one.
fn tile(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let shape = c.shape(x);
    let repeats = sizes(c, &c.read(1)?.unwrap_or_default())?;
    let pairs = |outer: &dyn Fn(usize) -> usize| -> Vec<usize> {
        (0..shape.rank()).flat_map(|axis| [outer(axis), shape[axis]]).collect()
    };
    let (apart, stretched) = (pairs(&|_| 1), pairs(&|axis| repeats[axis]));
    let joined: Shape = shape.iter().zip(repeats.iter()).map(|(&size, &n)| size * n).collect();
    let y = c.g().reshape(x, apart)?;
    let y = c.g().broadcast(y, stretched)?;
    one(c.g().reshape(y, joined)?)
}

fn pad(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let mut x = c.x(0)?;
    let shape = c.shape(x);
    let rank = shape.rank();
    let Some(pads) = c.read_or_attribute(1, "pads")? else { return c.fault("there are no pads") };
    let axes: Vec<usize> = match c.read(3)? {
        Some(axes) => axes.into_iter().map(|axis| c.axis(axis, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    let (before, after) = pads.split_at(axes.len());
    let mode = c.node.text("mode").unwrap_or("constant");
    let mut frame = vec![(0, 0); rank];
    for ((&axis, &before), &after) in axes.iter().zip(before).zip(after) {
        if before < 0 || after < 0 {
            return c.left_out("a negative pad");
        }
        frame[axis] = (before as usize, after as usize);
        if mode != "constant" {
            x = framed_by_itself(c, x, axis, (before, after), mode)?;
        }
    }
    if mode != "constant" {
        return one(x);
    }
    let value = if c.has(2) { c.read_numbers(2)?.first().copied() } else { c.node.float("value") };
    one(c.g().pad(x, &frame, value.unwrap_or(0.0))?)
}

/// A frame of the tensor's own elements: a lookup along the axis.
fn framed_by_itself(c: &mut Call<'_>, x: ValueId, axis: usize, frame: (i64, i64), mode: &str) -> Result<ValueId> {
    let n = c.shape(x)[axis] as i64;
    if frame == (0, 0) {
        return Ok(x);
    }
    let source = |at: i64| match mode {
        "edge" => at.clamp(0, n - 1),
        "wrap" => at.rem_euclid(n),
        // There and back again, without repeating the ends.
        _ => {
            let period = (2 * (n - 1)).max(1);
            let at = at.rem_euclid(period);
            if at < n { at } else { period - at }
        }
    };
    if !["edge", "wrap", "reflect"].contains(&mode) {
        return c.fault(format!("the mode `{mode}`"));
    }
    let values: Vec<i64> = (-frame.0..n + frame.1).map(source).collect();
    let indices = c.known(&Known { shape: [values.len()].into(), values })?;
    Ok(c.g().gather(x, indices, axis as isize)?)
}

/// The upper or lower triangle of each matrix, zeros elsewhere.
fn triangle(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let shape = c.shape(x);
    let [.., rows, columns] = shape[..] else { return c.fault(format!("{shape} is no matrix")) };
    let k = c.read(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let upper = c.node.int("upper") != Some(0);
    let kept = |at: usize| {
        let above = (at % columns) as i64 - (at / columns) as i64 - k;
        if upper { above >= 0 } else { above <= 0 }
    };
    let mask: Vec<bool> = (0..rows * columns).map(kept).collect();
    let mask = c.g().constant(Tensor::new([rows, columns], mask)?)?;
    let zero = c.g().scalar(0.0, x)?;
    one(c.g().select(mask, x, zero)?)
}
