//! Narrow floats in memory, as WGSL text: two elements to a word, the first in its lower half.
//!
//! An invocation that writes them owns whole words. Where words are shared, f32 goes to a scratch buffer, and a launch of its
//! own rounds it.

use super::super::{
    Arg, Candidate, Instr, Launch, Operand, PointwiseProblem, Problem, Profile, Specialization, buffer_bytes,
};
use crate::{DType, Error, Layout, Result};

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
        _ => format!("bitcast<f32>({word} << 16u)"),
    }
}

/// The element at index `i`, as f32.
pub(in crate::kernel) fn element(buffer: &str, dtype: DType, i: &str) -> String {
    if dtype.is_narrow() { low(dtype, &half(buffer, i)) } else { format!("{buffer}[{i}]") }
}

/// A word with the element at index `i` in its lower half.
fn half(buffer: &str, i: &str) -> String {
    format!("({buffer}[{i} >> 1u] >> (16u * ({i} & 1u)))")
}

/// The four elements of the two words of `two`, as f32.
pub(in crate::kernel) fn four(dtype: DType, two: &str) -> String {
    match dtype {
        DType::F16 => format!("vec4<f32>(unpack2x16float({two}.x), unpack2x16float({two}.y))"),
        _ => {
            let [x, y] = ["x", "y"].map(|word| format!("{two}.{word} << 16u, {two}.{word} & 0xffff0000u"));
            format!("bitcast<vec4<f32>>(vec4<u32>({x}, {y}))")
        }
    }
}

/// The bits of a number, rounded. The functions are those of the shaders' block `narrow`.
pub(in crate::kernel) fn bits(dtype: DType, number: &str) -> String {
    let function = if dtype == DType::F16 { "f16_bits" } else { "bf16_bits" };
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

/// How the elems of a buffer lie: elements, or vectors of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Elems {
    pub(in crate::kernel) dtype: DType,
    pub(in crate::kernel) packed: bool,
}

impl Elems {
    /// Whether whoever writes one owns its words.
    pub(in crate::kernel) fn own_words(self) -> bool {
        self.packed || !self.dtype.is_narrow()
    }

    /// Sets the type slot of a buffer: what it is an array of.
    pub(in crate::kernel) fn slots(self, shader: Specialization, slot: &str) -> Specialization {
        match (self.dtype.is_narrow(), self.packed) {
            (false, _) => shader,
            (true, false) => shader.ty(slot, "u32"),
            (true, true) => shader.ty(slot, "vec2<u32>"),
        }
    }

    /// The body of a function that returns elem `i` of `buffer`.
    pub(in crate::kernel) fn read(self, buffer: &str) -> String {
        match (self.dtype.is_narrow(), self.packed) {
            (false, _) => format!("return {buffer}[i];"),
            (true, false) => format!("return {};", element(buffer, self.dtype, "i")),
            (true, true) => format!("let two = {buffer}[i]; return {};", four(self.dtype, "two")),
        }
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

    /// The body of a function that writes `v` as elem `i` of `buffer`. Single narrow elements have no words of their own:
    /// see [`Store`].
    pub(in crate::kernel) fn write(self, buffer: &str) -> String {
        if self.dtype.is_narrow() {
            format!("{buffer}[i] = {};", words(self.dtype, "v"))
        } else {
            format!("{buffer}[i] = v;")
        }
    }
}

/// Where a launch writes the elems of an output.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernel) struct Store {
    output: usize,
    /// Of the output.
    dtype: DType,
    elements: usize,
    /// What is written: the output, or a scratch buffer of f32 in its place.
    pub(in crate::kernel) operand: Operand,
    /// How it is written.
    pub(in crate::kernel) elems: Elems,
}

impl Store {
    /// Single elements of a narrow output share words: they are written to another scratch buffer.
    pub(in crate::kernel) fn new(
        output: usize,
        dtype: DType,
        packed: bool,
        elements: usize,
        scratch: &mut Vec<u64>,
    ) -> Self {
        let direct =
            Store { output, dtype, elements, operand: Operand::Output(output), elems: Elems { dtype, packed } };
        if direct.elems.own_words() {
            return direct;
        }
        scratch.push(buffer_bytes(DType::F32, elements));
        let operand = Operand::Scratch(scratch.len() - 1);
        Store { operand, elems: Elems { dtype: DType::F32, packed }, ..direct }
    }

    /// The launches that round what was written to a scratch buffer, if it was.
    pub(in crate::kernel) fn finish(self, profile: &Profile) -> Result<Vec<Launch>> {
        match self.operand {
            Operand::Output(_) => Ok(Vec::new()),
            wide => round(self.dtype, self.elements, wide, self.output, profile),
        }
    }
}

/// The launches that round the f32 of a buffer to a narrow output of as many elements.
pub(in crate::kernel) fn round(
    dtype: DType,
    elements: usize,
    wide: Operand,
    output: usize,
    profile: &Profile,
) -> Result<Vec<Launch>> {
    let dense = Layout::contiguous([elements]);
    let cast = Instr::Cast(dtype, Arg::Operand(0));
    let problem = PointwiseProblem::new(dense.shape.clone(), dtype, vec![(DType::F32, dense)], vec![cast]);
    let variant = problem.candidates(profile).into_iter().find(Candidate::is_usable);
    let mut launches = problem.kernel(variant.map_or("", |candidate| candidate.variant), profile)?.launches;
    for launch in &mut launches {
        launch.label = format!("round to {dtype}");
        for binding in &mut launch.bindings {
            match binding.operand {
                Operand::Input(_) => binding.operand = wide,
                Operand::Output(_) => binding.operand = Operand::Output(output),
                Operand::Scratch(_) => {}
            }
        }
    }
    Ok(launches)
}
