//! How the elements of a float operand lie in a buffer, and how they are read and written, as WGSL text: one or four at once,
//! always as f32. (Eight at once are [`long::eight`](super::long::eight).)

use super::{
    super::Specialization,
    narrow::{element, four, half, low, words},
};
use crate::DType;

/// How the elements of an operand lie in the elements of its binding: each by itself (narrow ones two to a word), or by fours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Elems {
    pub(in crate::kernel) dtype: DType,
    pub(in crate::kernel) packed: bool,
}

impl Elems {
    /// The type of an element of the binding.
    pub(in crate::kernel) fn ty(self) -> &'static str {
        match (self.dtype.is_narrow(), self.packed) {
            (false, false) => "f32",
            (false, true) => "vec4<f32>",
            (true, false) => "u32",
            (true, true) => "vec2<u32>",
        }
    }

    /// Whether whoever writes one element of the binding's owns its words.
    pub(in crate::kernel) fn own_words(self) -> bool {
        self.packed || !self.dtype.is_narrow()
    }

    /// Sets the type slot of a buffer, whose default is that of f32.
    pub(in crate::kernel) fn slots(self, shader: Specialization, slot: &str) -> Specialization {
        if self.dtype.is_narrow() { shader.ty(slot, self.ty()) } else { shader }
    }

    /// Element `i`.
    pub(in crate::kernel) fn one(self, buffer: &str, i: &str) -> String {
        match (self.packed, self.dtype.is_narrow()) {
            (false, _) => element(buffer, self.dtype, i),
            (true, false) => format!("{buffer}[{i} >> 2u][{i} & 3u]"),
            (true, true) => low(self.dtype, &format!("({buffer}[{i} >> 2u][({i} >> 1u) & 1u] >> (16u * ({i} & 1u)))")),
        }
    }

    /// The body of a function that returns the four elements at these indices. Of packed ones they are those of one element of
    /// the binding, of which the first index says enough.
    pub(in crate::kernel) fn four(self, buffer: &str, [i, j, k, l]: [&str; 4]) -> String {
        if self.packed {
            self.read_at(buffer, &format!("{i} >> 2u"))
        } else {
            format!("return vec4<f32>({});", [i, j, k, l].map(|i| self.one(buffer, i)).join(", "))
        }
    }

    /// The body of a function that returns an element of the binding's, or the half of one: four elements if they are packed.
    pub(in crate::kernel) fn read_at(self, buffer: &str, at: &str) -> String {
        match (self.dtype.is_narrow(), self.packed) {
            (false, _) => format!("return {buffer}[{at}];"),
            (true, false) => format!("return {};", element(buffer, self.dtype, at)),
            (true, true) => format!("let two = {buffer}[{at}]; return {};", four(self.dtype, "two")),
        }
    }

    /// [`Elems::read_at`] `i`.
    pub(in crate::kernel) fn read(self, buffer: &str) -> String {
        self.read_at(buffer, "i")
    }

    /// Likewise, where −∞ has to stay what it is: by its bits, as a driver need not keep infinities in arithmetic. (That of
    /// bf16 is never but moved.)
    pub(in crate::kernel) fn read_infinities(self, buffer: &str) -> String {
        let (words, halves, value, [float, bits]) = match (self.dtype, self.packed) {
            (DType::F16, false) => (half(buffer, "i"), "(words & 0xffffu)", low(DType::F16, "words"), ["f32", "u32"]),
            (DType::F16, true) => (
                format!("{buffer}[i]"),
                "vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u)",
                four(DType::F16, "words"),
                ["vec4<f32>", "vec4<u32>"],
            ),
            _ => return self.read(buffer),
        };
        format!(
            "let words = {words}; let hidden = {halves} == {bits}(0xfc00u); \
             return bitcast<{float}>(select(bitcast<{bits}>({value}), {bits}(0xff800000u), hidden));"
        )
    }

    /// A statement that writes `v` as an element of the binding's: four elements if they are packed. Single narrow ones have no
    /// words of their own, see [`Elems::own_words`].
    pub(in crate::kernel) fn write_at(self, buffer: &str, at: &str, v: &str) -> String {
        if self.dtype.is_narrow() {
            format!("{buffer}[{at}] = {};", words(self.dtype, v))
        } else {
            format!("{buffer}[{at}] = {v};")
        }
    }

    /// [`Elems::write_at`] `i`, of `v`.
    pub(in crate::kernel) fn write(self, buffer: &str) -> String {
        self.write_at(buffer, "i", "v")
    }
}
