//! Lookups by indices.

use tilewise::{
    DType, Shape, Tensor, ValueId,
    graph::{Binary, Reduce},
};

use super::{
    import::{Builder, Call, Known, Result, Slot},
    pointwise::one,
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "Gather" => gather,
        "GatherElements" => gather_elements,
        "GatherND" => gather_nd,
        "OneHot" => one_hot,
        "ReverseSequence" => reverse_sequence,
        "TensorScatter" => tensor_scatter,
        _ => return None,
    })
}

fn gather(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let axis = c.node.int("axis").unwrap_or(0);
    if let Slot::Known(data) = c.slot(0)? {
        let (data, indices) = (data.clone(), c.read(1)?.unwrap_or_default());
        let Slot::Known(Known { shape, .. }) = c.slot(1)?.clone() else { return c.fault("indices are not known") };
        let values: Option<Vec<i64>> = indices.iter().map(|&i| data.values.get(i as usize).copied()).collect();
        let Some(values) = values else { return c.fault(format!("{indices:?} of {:?}", data.values)) };
        return Ok(vec![Slot::Known(Known { shape, values })]);
    }
    let (data, indices) = (c.x(0)?, c.index(1)?);
    one(c.g().gather(data, indices, axis as isize)?)
}

/// Elements of `data` by their place in row-major order.
fn elements(c: &mut Call<'_>, data: ValueId, places: ValueId) -> Result<ValueId> {
    let flat = c.shape(data).elements().unwrap_or(0);
    let data = c.g().reshape(data, [flat])?;
    Ok(c.g().gather(data, places, 0)?)
}

/// `y[i, j, …] = data[…, indices[i, j, …], …]`: every element has an index of its own.
fn gather_elements(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (data, indices) = (c.x(0)?, c.index(1)?);
    let (shape, wanted) = (c.shape(data), c.shape(indices));
    let axis = c.axis(c.node.int("axis").unwrap_or(0), shape.rank())?;
    // Where an element would lie if its index along the axis were 0.
    let strides = shape.strides();
    let own = wanted.strides();
    let base = (0..wanted.elements().unwrap_or(0)).map(|at| {
        let along = |d: usize| (at / own[d] as usize % wanted[d].max(1)) as i64 * strides[d] as i64;
        (0..wanted.rank()).filter(|&d| d != axis).map(along).sum::<i64>()
    });
    let base = base.collect();
    let base = c.known(&Known { shape: wanted, values: base })?;
    let indices = c.wrapped(indices, shape[axis])?;
    let stride = c.g().scalar(strides[axis] as f64, indices)?;
    let step = c.g().mul(indices, stride)?;
    let places = c.g().add(base, step)?;
    one(elements(c, data, places)?)
}

/// `y[b…, i…] = data[b…, indices[b…, i…, 0], indices[b…, i…, 1], …]`
fn gather_nd(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (data, indices) = (c.x(0)?, c.index(1)?);
    let (shape, wanted) = (c.shape(data), c.shape(indices));
    let batch = c.node.int("batch_dims").unwrap_or(0) as usize;
    let (outer, depth) = (&wanted[..wanted.rank() - 1], wanted[wanted.rank() - 1]);
    let (indexed, rest) = (&shape[batch..batch + depth], &shape[batch + depth..]);
    // Rows of `rest`: each index counts rows by its stride, each batch item begins behind those before it.
    let strides = Shape::from(indexed).strides();
    let limits = c.known(&Known { shape: [depth].into(), values: indexed.iter().map(|&n| n as i64).collect() })?;
    let strides = c.known(&Known { shape: [depth].into(), values: strides.iter().map(|&n| n as i64).collect() })?;
    let g = c.g();
    let zero = g.scalar(0.0, indices)?;
    let (negative, shifted) = (g.binary(Binary::Less, indices, zero)?, g.add(indices, limits)?);
    let indices = g.select(negative, shifted, indices)?;
    let steps = g.mul(indices, strides)?;
    let rows = g.reduce(Reduce::Sum, steps, &[-1], false)?;
    let items: usize = shape[..batch].iter().product();
    let rows_per_item: usize = indexed.iter().product();
    let starts = (0..items).map(|item| (item * rows_per_item) as i64).collect();
    let starts =
        c.known(&Known { shape: [&shape[..batch], &vec![1; outer.len() - batch]].concat().into(), values: starts })?;
    let rows = c.g().add(rows, starts)?;
    let width: usize = rest.iter().product();
    let table = c.g().reshape(data, [items * rows_per_item, width])?;
    let y = c.g().gather(table, rows, 0)?;
    one(c.g().reshape(y, [outer, rest].concat())?)
}

fn one_hot(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let depth = c.read_numbers(1)?.first().copied().unwrap_or(0.0) as usize;
    let integers = matches!(c.slot(0)?, Slot::Given(source) if source.is_integer());
    let (indices, values) = (if integers { c.index(0)? } else { c.x(0)? }, c.x(2)?);
    let indices = c.g().cast(indices, DType::I32)?;
    let shape = c.shape(indices);
    let axis = c.axis(c.node.int("axis").unwrap_or(-1), shape.rank() + 1)?;
    let indices = c.wrapped(indices, depth)?;
    let indices = c.g().reshape(indices, [&shape[..axis], &[1], &shape[axis..]].concat())?;
    let places = c.iota(depth)?;
    let places = c.g().reshape(places, [&[depth][..], &vec![1; shape.rank() - axis]].concat())?;
    let hit = c.g().binary(Binary::Equal, indices, places)?;
    let (off, on) = (c.g().slice(values, 0, 0, 1)?, c.g().slice(values, 0, 1, 2)?);
    one(c.g().select(hit, on, off)?)
}

/// The first `sequence_lens[b]` steps of each batch item backwards, the others as they are.
fn reverse_sequence(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (x, lengths) = (c.x(0)?, c.index(1)?);
    let shape = c.shape(x);
    let [time, batch] = ["time_axis", "batch_axis"].map(|name| c.node.int(name).unwrap_or(0));
    let order = [[batch as usize, time as usize].to_vec(), (2..shape.rank()).collect()].concat();
    let (b, t) = (shape[batch as usize], shape[time as usize]);
    let width: usize = shape[2..].iter().product();
    let turned = c.g().permute(x, &order)?;
    let steps = c.iota(t)?;
    let starts =
        c.known(&Known { shape: [b, 1].into(), values: (0..b * t).step_by(t.max(1)).map(|x| x as i64).collect() })?;
    let g = c.g();
    let lengths = g.reshape(lengths, [b, 1])?;
    let inside = g.binary(Binary::Less, steps, lengths)?;
    let mirrored = g.sub(lengths, steps)?;
    let unit = g.scalar(1.0, mirrored)?;
    let mirrored = g.sub(mirrored, unit)?;
    let steps = g.select(inside, mirrored, steps)?;
    let rows = g.add(steps, starts)?;
    let table = g.reshape(turned, [b * t, width])?;
    let y = g.gather(table, rows, 0)?;
    let y = g.reshape(y, order.iter().map(|&axis| shape[axis]).collect::<Shape>())?;
    // Two axes that change places do so again.
    one(g.permute(y, &order)?)
}

/// Writes `update` into a cache from `write_indices[b]` on; circular: past the end it goes on at the start.
fn tensor_scatter(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (cache, update) = (c.x(0)?, c.x(1)?);
    let items = c.shape(cache)[0];
    let positions = if c.has(2) { c.index(2)? } else { c.g().constant(Tensor::zeros(DType::I32, [items])?)? };
    let (axis, circular) = (c.node.int("axis").unwrap_or(-2), c.node.text("mode") == Some("circular"));
    one(c.g().append(cache, update, positions, axis as isize, circular)?.0)
}
