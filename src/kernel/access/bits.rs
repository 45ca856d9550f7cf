//! Elements of any dtype as raw bits, one in a u32, and by blocks of four: as WGSL text.

use super::{long, narrow::half};
use crate::DType;

/// Elements of a block.
pub(in crate::kernel) const LANES: usize = 4;

/// Those of a vector of them.
pub(in crate::kernel) const COMPONENTS: [&str; LANES] = ["x", "y", "z", "w"];

/// The words in which whole blocks of four 32-bit elements are loaded and stored; narrower ones have few enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Word {
    Bits32,
    Bits64,
}

/// The type of four elements of a buffer.
pub(in crate::kernel) fn block(dtype: DType, word: Word) -> &'static str {
    match (dtype.bytes(), word) {
        (1, _) => "u32",
        (2, _) => "vec2<u32>",
        (_, Word::Bits32) => "vec4<u32>",
        (_, Word::Bits64) => "vec2<u64>",
    }
}

/// The bits of the four elements in the block `w`.
pub(in crate::kernel) fn unpack(dtype: DType, word: Word) -> String {
    match (dtype.bytes(), word) {
        (1, _) => "vec4<u32>(w & 0xffu, (w >> 8u) & 0xffu, (w >> 16u) & 0xffu, w >> 24u)".into(),
        (2, _) => "vec4<u32>(w.x & 0xffffu, w.x >> 16u, w.y & 0xffffu, w.y >> 16u)".into(),
        (_, Word::Bits32) => "w".into(),
        (_, Word::Bits64) => long::apart("w"),
    }
}

/// `fn pack(y: vec4<u32>) -> block { … }`: four elements given by their bits as a block of the output.
pub(in crate::kernel) fn pack(dtype: DType, word: Word) -> String {
    let value = match (dtype.bytes(), word) {
        (1, _) => "y.x | (y.y << 8u) | (y.z << 16u) | (y.w << 24u)".into(),
        (2, _) => "vec2<u32>(y.x | (y.y << 16u), y.z | (y.w << 16u))".into(),
        (_, Word::Bits32) => "y".into(),
        (_, Word::Bits64) => format!("vec2<u64>({})", long::joined("y")),
    };
    format!("fn pack(y: vec4<u32>) -> block {{ return {value}; }}")
}

/// The bits of element `k` of the buffer `x` of words.
pub(in crate::kernel) fn fetch(x: &str, k: &str, dtype: DType) -> String {
    match dtype.bytes() {
        1 => format!("({x}[{k} >> 2u] >> (({k} & 3u) << 3u)) & 0xffu"),
        2 => format!("{} & 0xffffu", half(x, k)),
        _ => format!("{x}[{k}]"),
    }
}
