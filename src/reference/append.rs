//! Writing into a cache. Twins: `src/kernel/append.rs`, `shaders/append/`, `tests/device/append.rs`.

use super::{Array, shapes::result_shapes};
use crate::{DType, Result, graph::Op};

/// The cache with the update's rows at places `positions[b] + t` along an axis, and how many rows were dropped, `[1]`.
/// See [`Op::Append`].
///
/// ```
/// use tilewise::reference::{Array, append};
/// let cache = Array::new([1, 3], vec![0, 0, 0])?;
/// let update = Array::new([1, 2], vec![5, 6])?;
/// let (cache, dropped) = append(&cache, &update, &Array::new([1], vec![2])?, 1, false)?;
/// assert_eq!((cache.data(), dropped.data()), (&[0, 0, 5][..], &[1][..]));
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if the axis is 0 or not there, if `update` differs from `cache` in another axis or
/// is longer, or if the positions are not `[B]`.
pub fn append<T: Copy>(
    cache: &Array<T>,
    update: &Array<T>,
    positions: &Array<i32>,
    axis: usize,
    circular: bool,
) -> Result<(Array<T>, Array<i32>)> {
    let op = Op::Append { axis, circular };
    let operands = [(DType::F32, cache.shape()), (DType::F32, update.shape()), (DType::I32, positions.shape())];
    let [shape, count] = result_shapes(&op, &operands)?;
    let (places, rows) = (shape[axis] as i64, update.shape()[axis]);
    let middle: usize = shape[1..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let mut data = cache.data().to_vec();
    let mut dropped = 0;
    for (item, &position) in positions.data().iter().enumerate() {
        for t in 0..rows {
            let wanted = i64::from(position) + t as i64;
            let place = if circular { wanted.rem_euclid(places) } else { wanted };
            if !(0..places).contains(&place) {
                dropped += 1;
                continue;
            }
            for outer in item * middle..(item + 1) * middle {
                let (to, from) = (outer * shape[axis] + place as usize, outer * rows + t);
                data[to * inner..][..inner].copy_from_slice(&update.data()[from * inner..][..inner]);
            }
        }
    }
    Ok((Array::new(shape, data)?, Array::new(count, vec![dropped])?))
}

/// Pages `[N, S, H, D]` with the update's rows `[B, H, T, D]` at places `positions[b] + t` of each item's pages, and
/// how many rows were dropped, `[1]`. See [`Op::AppendPaged`].
///
/// ```
/// use tilewise::reference::{Array, append_paged};
/// let pages = Array::new([2, 2, 1, 1], vec![0; 4])?;
/// let update = Array::new([1, 1, 3, 1], vec![5, 6, 7])?;
/// let (position, table) = (Array::new([1], vec![0])?, Array::new([1, 2], vec![1, 0])?);
/// let (pages, _) = append_paged(&pages, &update, &position, &table)?;
/// assert_eq!(pages.data(), [7, 0, 5, 6]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if the shapes are others than these, or if there is no page for the table to name.
pub fn append_paged<T: Copy>(
    pages: &Array<T>,
    update: &Array<T>,
    positions: &Array<i32>,
    table: &Array<i32>,
) -> Result<(Array<T>, Array<i32>)> {
    let operands = [
        (DType::F32, pages.shape()),
        (DType::F32, update.shape()),
        (DType::I32, positions.shape()),
        (DType::I32, table.shape()),
    ];
    let [shape, count] = result_shapes(&Op::AppendPaged, &operands)?;
    let (size, heads, width) = (shape[1], shape[2], shape[3]);
    let (rows, each) = (update.shape()[2], table.shape()[1]);
    let mut data = pages.data().to_vec();
    let mut dropped = 0;
    for (item, &position) in positions.data().iter().enumerate() {
        for t in 0..rows {
            let place = usize::try_from(i64::from(position) + t as i64).ok().filter(|&place| place < size * each);
            let page = place.and_then(|place| usize::try_from(table.data()[item * each + place / size]).ok());
            let (Some(place), Some(page)) = (place, page.filter(|&page| page < shape[0])) else {
                dropped += 1;
                continue;
            };
            for head in 0..heads {
                let to = (page * size + place % size) * heads + head;
                let from = (item * heads + head) * rows + t;
                data[to * width..][..width].copy_from_slice(&update.data()[from * width..][..width]);
            }
        }
    }
    Ok((Array::new(shape, data)?, Array::new(count, vec![dropped])?))
}
