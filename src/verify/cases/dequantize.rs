use super::case::{Cases, Draft};
use crate::{
    DType, Result,
    graph::QuantizedValue,
    quantize::{Bits, Quantization},
    reference::compare::Check,
};

const FAMILY: &str = "dequantize";

/// Ways to quantise: both numbers of bits, a scale a row or a group, with and without zero points.
pub(super) const KINDS: [Quantization; 6] = [
    Quantization { bits: Bits::Eight, group: None, zero: false, scales: DType::F32 },
    Quantization { bits: Bits::Eight, group: Some(64), zero: true, scales: DType::F16 },
    Quantization { bits: Bits::Four, group: Some(32), zero: false, scales: DType::F32 },
    Quantization { bits: Bits::Four, group: Some(128), zero: true, scales: DType::BF16 },
    Quantization { bits: Bits::Four, group: Some(16), zero: true, scales: DType::F32 },
    Quantization { bits: Bits::Four, group: None, zero: false, scales: DType::F16 },
];

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    let sizes = all.choose(&[[1, 1], [3, 64], [5, 67], [2, 130], [0, 32], [3, 0]], &[[257, 129], [65, 1031]]);
    for quantization in KINDS {
        for [rows, columns] in sizes.clone() {
            let packing = quantization.packing(columns);
            let name = format!("[{rows}, {columns}] {packing}, scales {}", quantization.scales);
            all.add(FAMILY, name, Check::Exact, |draft| {
                let weight = packed(draft, [rows, columns], quantization, true)?;
                Ok(vec![draft.graph.dequantize(weight)?])
            })?;
        }
    }
    Ok(all)
}

/// A weight of random bits. Scales are small whole numbers, so that every product is exact, or random.
pub(super) fn packed(
    draft: &mut Draft,
    [rows, columns]: [usize; 2],
    quantization: Quantization,
    exact: bool,
) -> Result<QuantizedValue> {
    let packing = quantization.packing(columns);
    let mut bits = |name: &str, shape: &[usize]| draft.wholes(name, DType::U32, shape, [0, i64::from(u32::MAX)]);
    let words = bits("words", &[rows, packing.words()])?;
    let zero = if packing.zero { Some(bits("zero", &[packing.zero_words(rows)])?) } else { None };
    let shape = [rows, packing.groups()];
    let scale = if exact {
        draft.wholes("scale", quantization.scales, shape, [1, 3])?
    } else {
        draft.reals("scale", quantization.scales, shape, [0.001, 0.01])?
    };
    Ok(QuantizedValue { packing, words, scale, zero })
}
