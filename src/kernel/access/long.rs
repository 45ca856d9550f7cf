//! Words of 64 bits (`SHADER_INT64`), as WGSL text: lavapipe loads one in the time of 32 bits, and what takes time to compile is
//! the number of loads. Two elements of 32 bits are a word, the first in its lower half. Eight narrow ones are a vector of four
//! words of 32 bits.

use super::{super::Profile, narrow::four};
use crate::DType;

/// Whether eight elements can be an element of a buffer.
pub(in crate::kernel) fn has_eights(dtype: DType, profile: &Profile) -> bool {
    dtype.is_narrow() || profile.shader_int64
}

/// The two words of the vector `two` as four u32.
pub(in crate::kernel) fn apart(two: &str) -> String {
    let halves = ["x", "y"].map(|c| format!("u32({two}.{c}), u32({two}.{c} >> 32u)"));
    format!("vec4<u32>({})", halves.join(", "))
}

/// Four u32 as two words: the inside of a vector's parentheses.
pub(in crate::kernel) fn joined(four: &str) -> String {
    let words = [["x", "y"], ["z", "w"]].map(|[low, high]| format!("u64({four}.{low}) | (u64({four}.{high}) << 32u)"));
    words.join(", ")
}

/// What eight elements side by side are an element of in a buffer, and the lower and the higher four of one, `w`: narrow ones
/// as f32.
pub(in crate::kernel) fn eight(dtype: DType) -> (&'static str, [String; 2]) {
    let halves = ["w.xy", "w.zw"];
    if dtype.is_narrow() {
        ("vec4<u32>", halves.map(|half| four(dtype, half)))
    } else {
        ("vec4<u64>", halves.map(|half| format!("bitcast<vec4<{}>>({})", dtype.name(), apart(half))))
    }
}

/// Two vectors of four f32 as an element of eight.
pub(in crate::kernel) fn of_eight([low, high]: [&str; 2]) -> String {
    let words = [low, high].map(|half| joined(&format!("bitcast<vec4<u32>>({half})")));
    format!("vec4<u64>({})", words.join(", "))
}
