//! Weights of few bits. Twins: `src/kernel/dequantize.rs`, `shaders/dequantize/`, `tests/device/dequantize.rs`.

use super::{Array, Real, shapes::result_shape};
use crate::{DType, Result, graph::Op, quantize::Packing};

/// The weight `[rows, columns]` of quantised numbers: `w[n, k] = scale[n, k / group] · (q[n, k] − zero[n, k / group])`.
/// See [`Packing`].
///
/// ```
/// use tilewise::{quantize::Quantization, reference::{Array, dequantize}};
/// let words = Array::new([1, 1], vec![u32::from_le_bytes([128, 130, 124, 0])])?;
/// let w = dequantize::<f64>(Quantization::int8().packing(3), &words, &Array::new([1, 1], vec![0.5])?, None)?;
/// assert_eq!(w.data(), [0.0, 1.0, -2.0]); // without zero points 128 stands for 0
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`](crate::Error::Op) if the shapes are not those of the packing, if zero points are missing or too many,
/// and as [`Packing::check`].
pub fn dequantize<R: Real>(
    packing: Packing,
    words: &Array<u32>,
    scale: &Array<R>,
    zero: Option<&Array<u32>>,
) -> Result<Array<R>> {
    let mut operands = vec![(DType::U32, words.shape()), (DType::F32, scale.shape())];
    operands.extend(zero.map(|zero| (DType::U32, zero.shape())));
    let shape = result_shape(&Op::Dequantize(packing), &operands)?;
    let (rows, columns, groups) = (shape[0], shape[1], scale.shape()[1]);
    let bits = packing.bits.count() as usize;
    // Number `i` of words that hold them from the lowest bit on.
    let number = |words: &[u32], i: usize| {
        let word = words[i * bits / 32] >> (i * bits % 32);
        i64::from(word) & ((1 << bits) - 1)
    };
    let mut weight = Vec::with_capacity(rows * columns);
    for n in 0..rows {
        let row = &words.data()[n * words.shape()[1]..][..words.shape()[1]];
        for k in 0..columns {
            let group = n * groups + packing.group.map_or(0, |size| k / size);
            let middle = 1 << (bits - 1);
            let zero = zero.map_or(middle, |zero| number(zero.data(), group));
            weight.push(scale.data()[group] * R::of((number(row, k) - zero) as f64));
        }
    }
    Array::new(shape, weight)
}
