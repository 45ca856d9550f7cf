//! Narrow floats in memory, as WGSL text: two elements to a word, the first in its lower half.
//!
//! An invocation that writes them owns whole words. Where words are shared, f32 goes to a workspace buffer, and a launch of its
//! own rounds it (`pointwise::Store`).

use crate::{DType, Error, Result};

/// Refuses what is no float.
pub(in crate::kernel) fn check_floats(
    family: &str,
    operands: impl IntoIterator<Item = (&'static str, DType)>,
) -> Result<()> {
    match operands.into_iter().find(|(_, dtype)| !dtype.is_float()) {
        Some((name, dtype)) => Err(Error::dtype(family, name, dtype, "f32, f16 or bf16")),
        None => Ok(()),
    }
}

/// Those of the operands that are narrow, as a summary names them.
pub(in crate::kernel) fn narrow_ones(
    operands: impl IntoIterator<Item = (&'static str, DType)>,
) -> impl Iterator<Item = String> {
    operands.into_iter().filter(|(_, dtype)| dtype.is_narrow()).map(|(name, dtype)| format!("{name}:{dtype}"))
}

/// The element in the lower half of a word, as f32.
pub(in crate::kernel) fn low(dtype: DType, word: &str) -> String {
    match dtype {
        DType::F16 => format!("unpack2x16float({word}).x"),
        DType::BF16 => format!("bitcast<f32>({word} << 16u)"),
        DType::F32 | DType::I32 | DType::U32 | DType::Bool => unreachable!("{dtype} is not half a word"),
    }
}

/// The element at index `i`, as f32.
pub(in crate::kernel) fn element(buffer: &str, dtype: DType, i: &str) -> String {
    if dtype.is_narrow() { low(dtype, &half(buffer, i)) } else { format!("{buffer}[{i}]") }
}

/// A word with the element at index `i` in its lower half.
pub(super) fn half(buffer: &str, i: &str) -> String {
    format!("({buffer}[{i} >> 1u] >> (16u * ({i} & 1u)))")
}

/// The four elements of the two words of `two`, as f32.
pub(in crate::kernel) fn four(dtype: DType, two: &str) -> String {
    match dtype {
        DType::F16 => format!("vec4<f32>(unpack2x16float({two}.x), unpack2x16float({two}.y))"),
        DType::BF16 => {
            let [x, y] = ["x", "y"].map(|word| format!("{two}.{word} << 16u, {two}.{word} & 0xffff0000u"));
            format!("bitcast<vec4<f32>>(vec4<u32>({x}, {y}))")
        }
        DType::F32 | DType::I32 | DType::U32 | DType::Bool => unreachable!("{dtype} is not half a word"),
    }
}

/// The bits of a number, rounded. The functions are those of the shaders' block `narrow`.
pub(in crate::kernel) fn bits(dtype: DType, number: &str) -> String {
    let function = match dtype {
        DType::F16 => "f16_bits",
        DType::BF16 => "bf16_bits",
        DType::F32 | DType::I32 | DType::U32 | DType::Bool => unreachable!("{dtype} is not half a word"),
    };
    format!("{function}({number})")
}

/// The bits of two numbers as a word.
pub(in crate::kernel) fn word(dtype: DType, low: &str, high: &str) -> String {
    format!("{} | ({} << 16u)", bits(dtype, low), bits(dtype, high))
}

/// The two words of the vector `four`.
pub(in crate::kernel) fn words(dtype: DType, four: &str) -> String {
    let [low, high] = [["x", "y"], ["z", "w"]]
        .map(|pair| pair.map(|c| format!("{four}.{c}")))
        .map(|[first, second]| word(dtype, &first, &second));
    format!("vec2<u32>({low}, {high})")
}
