//! Weights, and the ways to quantise them.

use tilewise::{DType, Tensor, quantize::Quantization};

/// Both numbers of bits, a scale a row or a group, with and without zero points, scales of each dtype.
pub(crate) fn kinds() -> Vec<Quantization> {
    vec![
        Quantization::int8(),
        Quantization::int8().scales(DType::BF16),
        Quantization::int8().group(32).asymmetric().scales(DType::F16),
        Quantization::int4(128),
        Quantization::int4(64).asymmetric(),
        Quantization::int4(16).asymmetric().scales(DType::BF16),
        Quantization { group: None, ..Quantization::int4(32).scales(DType::F16) },
    ]
}

pub(crate) fn weight(rows: usize, columns: usize, number: impl FnMut(usize) -> f32) -> Tensor {
    Tensor::new([rows, columns], (0..rows * columns).map(number).collect::<Vec<_>>()).expect("as many")
}
