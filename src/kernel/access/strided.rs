//! Operands read through strides, as WGSL text: four consecutive elements of an output at a time, as raw bits.
//!
//! Every kernel here gives an invocation four consecutive elements of its dense output, so that narrow dtypes are written
//! in whole words. An operand is read in the best way that its layout allows; which way is a matter of structure, and
//! part of the source, while sizes, strides and offsets are parameters.

use std::fmt::Write as _;

use super::{
    super::{AdapterKind, Binding, Candidate, Launch, Profile, Specialization, Verdict, fold_grid},
    long,
};
use crate::{DType, Error, Layout, Result};

/// Elements that one invocation writes together.
pub(in crate::kernel) const LANES: usize = 4;

/// Run-time parameters: words of the array `p.words` in the uniform block.
#[derive(Debug, Default)]
pub(in crate::kernel) struct Words(Vec<u32>);

impl Words {
    /// Adds a word; the WGSL expression that reads it.
    pub(in crate::kernel) fn add(&mut self, word: u32) -> String {
        self.0.push(word);
        let at = self.0.len() - 1;
        format!("p.words[{}].{}", at / LANES, COMPONENTS[at % LANES])
    }

    /// The number of vectors that hold them; never 0, which no array in WGSL may have.
    pub(in crate::kernel) fn vectors(&self) -> usize {
        self.0.len().div_ceil(4).max(1)
    }

    /// The words as whole vectors.
    pub(in crate::kernel) fn padded(mut self) -> Vec<u32> {
        self.0.resize(4 * self.vectors(), 0);
        self.0
    }
}

/// An axis of an output, and the part of it that an operand covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Axis {
    /// Of the output.
    pub(in crate::kernel) size: usize,
    /// Of the operand, in its elements.
    pub(in crate::kernel) stride: isize,
    /// Where the operand begins on this axis of the output.
    pub(in crate::kernel) start: usize,
    /// How much of it the operand covers.
    pub(in crate::kernel) len: usize,
}

impl Axis {
    fn is_whole(self) -> bool {
        self.len == self.size
    }

    /// This axis and the next inner one as a single axis, if one stride covers both.
    fn merge(self, inner: Axis) -> Option<Axis> {
        let inner_size = inner.size as isize;
        (inner.is_whole() && (self.len == 1 || self.stride == inner.stride * inner_size)).then(|| Axis {
            size: self.size * inner.size,
            stride: inner.stride,
            start: self.start * inner.size,
            len: self.len * inner.size,
        })
    }
}

/// An operand of which some or all elements of an output are copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct View {
    /// Outermost first, merged, none of size 1.
    pub(in crate::kernel) axes: Vec<Axis>,
    /// The operand's element at the output's element 0; there need not be one, so it may be negative.
    pub(in crate::kernel) offset: isize,
}

/// The words in which whole blocks of four 32-bit elements are loaded and stored; narrower ones have few enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Word {
    Bits32,
    Bits64,
}

/// How four consecutive elements of the output are found in an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum How {
    /// They are a whole block of the buffer.
    Blocks,
    /// They are one element.
    Same,
    /// They lie in one row, a step apart.
    Steps,
    /// Each has its own row.
    Elements,
}

impl How {
    /// The type of the buffer's elements.
    pub(in crate::kernel) fn block(self, dtype: DType, word: Word) -> &'static str {
        if self == How::Blocks { block(dtype, word) } else { "u32" }
    }

    /// Loads from the buffer for the four elements.
    pub(in crate::kernel) fn loads(self) -> usize {
        match self {
            How::Blocks | How::Same => 1,
            How::Steps | How::Elements => LANES,
        }
    }
}

/// WGSL that reads an operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Reader {
    /// The type of the buffer's elements.
    pub(in crate::kernel) block: &'static str,
    /// `fn read(i: u32) -> vec4<u32> { … }`, the bits of the output's elements 4i … 4i + 3, perhaps with a helper after it.
    /// A part is read by `fn read(i: u32, y: vec4<u32>) -> vec4<u32>`, which keeps the elements of `y` outside of it.
    pub(in crate::kernel) definition: String,
    /// Loads from the buffer for the four elements.
    pub(in crate::kernel) loads: usize,
}

impl View {
    /// An operand that covers the output, whose shape its layout has.
    pub(in crate::kernel) fn whole(layout: &Layout) -> Self {
        View::part(&layout.shape, layout, &vec![0; layout.shape.rank()])
    }

    /// An operand that covers a box in the output, from `start` on.
    pub(in crate::kernel) fn part(output: &[usize], layout: &Layout, start: &[usize]) -> Self {
        if output.contains(&0) {
            return View { axes: Vec::new(), offset: 0 };
        }
        let mut axes: Vec<Axis> = Vec::with_capacity(output.len());
        let boxes = output.iter().zip(start).zip(layout.shape.iter().zip(&layout.strides));
        for ((&size, &start), (&len, &stride)) in boxes.filter(|((size, _), _)| **size != 1) {
            let axis = Axis { size, stride, start, len };
            let merged = axes.last().and_then(|outer| outer.merge(axis));
            if merged.is_some() {
                axes.pop();
            }
            axes.push(merged.unwrap_or(axis));
        }
        let first: isize = axes.iter().map(|axis| axis.start as isize * axis.stride).sum();
        View { offset: layout.offset as isize - first, axes }
    }

    /// Whether every element of the output is one of the operand.
    pub(in crate::kernel) fn is_whole(&self) -> bool {
        self.axes.iter().all(|axis| axis.is_whole())
    }

    /// The best way to read it.
    pub(in crate::kernel) fn how(&self) -> How {
        let in_blocks = |n: isize| n % LANES as isize == 0;
        let Some((last, outer)) = self.axes.split_last() else {
            return if in_blocks(self.offset) { How::Blocks } else { How::Same };
        };
        let rows = [last.size, last.start, last.len].into_iter().all(|n| in_blocks(n as isize));
        // A single whole axis may end within a block: buffers are padded.
        let single = outer.is_empty() && last.is_whole();
        if !rows && !single {
            return How::Elements;
        }
        match last.stride {
            0 => How::Same,
            1 if in_blocks(self.offset) && outer.iter().all(|axis| in_blocks(axis.stride)) => How::Blocks,
            _ if rows => How::Steps,
            _ => How::Elements,
        }
    }

    /// Where the elements are: those at block `i` of the output or, for [`How::Elements`], the one at element `e`.
    pub(in crate::kernel) fn scan(&self, how: How, words: &mut Words) -> Scan {
        let (mut axes, mut offset) = (self.axes.clone(), self.offset);
        if how != How::Elements
            && let Some(last) = axes.last_mut()
        {
            let (size, start, len) = (last.size.div_ceil(LANES), last.start / LANES, last.len.div_ceil(LANES));
            *last = Axis { size, start, len, stride: last.stride * LANES as isize };
        }
        if how == How::Blocks {
            offset /= LANES as isize;
            axes.iter_mut().for_each(|axis| axis.stride /= LANES as isize);
        }
        Scan::new(&axes, offset, if how == How::Elements { "e" } else { "i" }, words)
    }

    /// The function `read` on a buffer `x` of `dtype`.
    pub(in crate::kernel) fn reader(&self, read: &str, x: &str, dtype: DType, word: Word, words: &mut Words) -> Reader {
        let how = self.how();
        let Scan { lets, index, inside } = self.scan(how, words);
        let keep = |value: String| match &inside {
            Some(inside) => format!("if {inside} {{ {value} }} return y;"),
            None => value,
        };
        let fetch = |k: &str| fetch(x, k, dtype);
        let y = if inside.is_some() { ", y: vec4<u32>" } else { "" };
        let head = format!("fn {read}(i: u32{y}) -> vec4<u32>");
        let definition = match how {
            How::Blocks => {
                let value = keep(format!("let w = {x}[{index}]; return {};", unpack(dtype, word)));
                format!("{head} {{ {lets}{value} }}")
            }
            How::Same => {
                let value = keep(format!("let k = {index}; return vec4<u32>({});", fetch("k")));
                format!("{head} {{ {lets}{value} }}")
            }
            How::Steps => {
                let step = words.add(self.axes.last().map_or(0, |axis| axis.stride) as u32);
                let values = ["k", "k1", "k2", "k3"].map(fetch).join(", ");
                let value = keep(format!(
                    "let k = {index}; let k1 = k + {step}; let k2 = k1 + {step}; let k3 = k2 + {step}; \
                     return vec4<u32>({values});"
                ));
                format!("{head} {{ {lets}{value} }}")
            }
            How::Elements => {
                let value = keep(format!("let k = {index}; return {};", fetch("k")));
                let y = if inside.is_some() { ", y: u32" } else { "" };
                let call = |c: &str, e: &str| {
                    let y = if inside.is_some() { format!(", y.{c}") } else { String::new() };
                    format!("{read}_element({e}{y})")
                };
                format!("{head} {{ {} }}\nfn {read}_element(e: u32{y}) -> u32 {{ {lets}{value} }}", each_element(call))
            }
        };
        Reader { block: how.block(dtype, word), definition, loads: how.loads() }
    }
}

/// The result of a function of block `i` from a call for the component and the element of each.
pub(in crate::kernel) fn each_element(call: impl Fn(&str, &str) -> String) -> String {
    let elements = ["e", "min(e + 1u, p.last)", "min(e + 2u, p.last)", "min(e + 3u, p.last)"];
    let calls: Vec<String> = COMPONENTS.into_iter().zip(elements).map(|(c, e)| call(c, e)).collect();
    format!("let e = {LANES}u * i; return vec4<u32>({});", calls.join(", "))
}

/// The multiplier and shift with which the shaders' `quotient` divides by `d`.
fn reciprocal(d: u32) -> (u32, u32) {
    let shift = d.next_power_of_two().trailing_zeros();
    ((1u64 << (31 + shift)).div_ceil(u64::from(d.max(1))) as u32, shift)
}

/// Where an operand's element for one position in the output is, as WGSL.
pub(in crate::kernel) struct Scan {
    /// `let`s that the other two need.
    pub(in crate::kernel) lets: String,
    /// The index in the buffer.
    pub(in crate::kernel) index: String,
    /// Whether the position is in the operand's part of the output; `None` if all are.
    pub(in crate::kernel) inside: Option<String>,
}

impl Scan {
    /// For the position in a variable of this name.
    pub(in crate::kernel) fn new(axes: &[Axis], offset: isize, position: &str, words: &mut Words) -> Self {
        let used = |axis: &Axis| axis.stride != 0 || !axis.is_whole();
        let outermost = axes.iter().position(used).unwrap_or(axes.len());
        let (mut lets, mut rest) = (String::new(), position.to_string());
        let (mut index, mut inside) = (words.add(offset as u32), Vec::new());
        for (n, axis) in axes.iter().enumerate().skip(outermost).rev() {
            let mut c = rest.clone();
            if n > 0 {
                let (multiplier, shift) = reciprocal(axis.size as u32);
                let quotient = format!("quotient({rest}, {}, {})", words.add(multiplier), words.add(shift));
                let _ = write!(lets, "let q{n} = {quotient}; ");
                if used(axis) {
                    c = format!("c{n}");
                    let _ = write!(lets, "let {c} = {rest} - q{n} * {}; ", words.add(axis.size as u32));
                }
                rest = format!("q{n}");
            }
            match axis.stride {
                0 => {}
                1 => index = format!("{index} + {c}"),
                stride => index = format!("{index} + {c} * {}", words.add(stride as u32)),
            }
            if !axis.is_whole() {
                inside.push(format!("{c} - {} < {}", words.add(axis.start as u32), words.add(axis.len as u32)));
            }
        }
        Scan { lets, index, inside: (!inside.is_empty()).then(|| inside.join(" && ")) }
    }
}

pub(in crate::kernel) const COMPONENTS: [&str; LANES] = ["x", "y", "z", "w"];

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
        2 => format!("({x}[{k} >> 1u] >> (({k} & 1u) << 4u)) & 0xffffu"),
        _ => format!("{x}[{k}]"),
    }
}

/// Invocations of a workgroup of the shaders that write block by block.
const WORKGROUP: u64 = 256;

/// The verdict on the one variant, `plain`, of a shader that binds `buffers`; with what the problem itself has against it.
pub(in crate::kernel) fn candidates(profile: &Profile, buffers: usize, fault: Option<&Error>) -> Vec<Candidate> {
    let limit = profile.limits.storage_buffers as usize;
    let invocations = profile.limits.workgroup_invocations.min(profile.limits.workgroup_size_x);
    let refusal = if let Some(fault) = fault {
        Some(fault.to_string())
    } else if buffers > limit {
        Some(format!("{buffers} storage buffers (max_storage_buffers_per_shader_stage is {limit})"))
    } else if u64::from(invocations) < WORKGROUP {
        Some(format!("{WORKGROUP} invocations (the limit is {invocations})"))
    } else {
        None
    };
    vec![match refusal {
        Some(reason) => Candidate::refused("plain", reason),
        None => Candidate::usable("plain", "each invocation writes whole blocks of four elements"),
    }]
}

/// An error unless one of the candidates has this name and can run.
pub(in crate::kernel) fn check_variant(family: &'static str, candidates: &[Candidate], name: &str) -> Result<()> {
    match candidates.iter().find(|candidate| candidate.variant == name).map(|candidate| &candidate.verdict) {
        Some(Verdict::Usable(_)) => Ok(()),
        Some(Verdict::Refused(reason)) => Err(Error::NoVariant { family, reasons: vec![format!("{name}: {reason}")] }),
        None => Err(Error::op(family, format!("there is no variant `{name}`"))),
    }
}

/// Whether an output is so large that the invocations of a software adapter take several blocks.
pub(in crate::kernel) fn is_long(elements: usize, profile: &Profile) -> bool {
    profile.kind == AdapterKind::Cpu && elements as u64 >= LANES as u64 * MOST_BLOCKS as u64 * 8 * WORKGROUP
}

/// Blocks of an invocation, the most.
const MOST_BLOCKS: usize = 8;

/// Blocks that an invocation of the shaders that write block by block writes.
///
/// A software adapter takes as long to begin eight invocations as to load and store a block in each, and compiles for some
/// milliseconds a load.
fn unroll(elements: usize, loads: usize, profile: &Profile) -> usize {
    const LOADS: usize = 32;
    if is_long(elements, profile) {
        (LOADS / loads.max(1)).clamp(1, MOST_BLOCKS)
    } else {
        // Coalesced, and as many invocations as there can be; or too few to go round on a software adapter.
        1
    }
}

/// A launch of a shader that writes block by block, each from so many `loads`.
pub(in crate::kernel) fn launch(
    family: &str,
    label: &str,
    source: Specialization,
    bindings: Vec<Binding>,
    words: Words,
    (elements, loads): (usize, usize),
    profile: &Profile,
) -> Result<Launch> {
    let blocks = elements.div_ceil(LANES) as u64;
    let unroll = unroll(elements, loads, profile);
    let source = source.value("WORDS", words.vectors()).value("UNROLL", unroll).source()?;
    let mut params = vec![blocks as u32, elements.saturating_sub(1) as u32];
    // A vector, as the words, begins at 16 bytes.
    params.resize(4, 0);
    params.extend(words.padded());
    Ok(Launch {
        label: label.into(),
        source,
        bindings,
        params,
        grid: fold_grid(blocks.div_ceil(WORKGROUP * unroll as u64), profile, family)?,
        flops: 0,
        exponentials: 0,
        bytes: 0,
    })
}

/// How many elements of its buffer a layout reaches.
pub(in crate::kernel) fn touched(layout: &Layout) -> u64 {
    layout.shape.iter().zip(&layout.strides).filter(|(_, stride)| **stride != 0).map(|(&size, _)| size as u64).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shaders' `quotient`.
    fn quotient(n: u32, (m, s): (u32, u32)) -> u32 {
        ((u64::from(2 * n) * u64::from(m)) >> 32) as u32 >> s
    }

    #[test]
    fn division_by_multiplication_is_exact() {
        let largest = i32::MAX as u32;
        let mut divisors: Vec<u32> = (1..3000).collect();
        divisors.extend((2..31).flat_map(|k| [(1 << k) - 1, 1 << k, (1 << k) + 1]));
        divisors.extend([largest, largest - 1, 1_000_000_007, 641, 6_700_417]);
        for d in divisors {
            let by = reciprocal(d);
            let multiples = [1, 2, 3, 5, 1000, largest / d / 2, largest / d].map(|k| d.saturating_mul(k).min(largest));
            let near = multiples.into_iter().flat_map(|n| [n.saturating_sub(1), n, n.saturating_add(1).min(largest)]);
            for n in near.chain([0, 1, largest, largest - 1]) {
                assert_eq!(quotient(n, by), n / d, "{n} / {d}");
            }
        }
    }
}
