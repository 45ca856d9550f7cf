//! Operands read through strides, as WGSL text: four consecutive elements of an output at a time, as raw bits.
//!
//! Every kernel here gives an invocation four consecutive elements of its dense output, so that narrow dtypes are written
//! in whole words. An operand is read in the best way that its layout allows; which way is a matter of structure, and
//! part of the source, while sizes, strides and offsets are parameters.

use std::fmt::Write as _;

use super::{AdapterKind, Candidate, Profile, Verdict, fold_grid};
use crate::{DType, Error, Layout, Result};

/// Elements that one invocation writes together.
pub(super) const LANES: usize = 4;

/// Run-time parameters: words of the array `p.words` in the uniform block.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<u32>);

impl Words {
    /// Adds a word; the WGSL expression that reads it.
    pub(super) fn add(&mut self, word: u32) -> String {
        self.0.push(word);
        let at = self.0.len() - 1;
        format!("p.words[{}].{}", at / LANES, COMPONENTS[at % LANES])
    }

    /// The number of vectors that hold them; never 0, which no array in WGSL may have.
    pub(super) fn vectors(&self) -> usize {
        self.0.len().div_ceil(4).max(1)
    }

    /// The uniform block: blocks of four elements, the last element, two unused words, and the words.
    pub(super) fn params(self, elements: usize) -> Vec<u32> {
        let mut params = vec![elements.div_ceil(LANES) as u32, elements.saturating_sub(1) as u32, 0, 0];
        params.extend(self.padded());
        params
    }

    /// The words as whole vectors.
    pub(super) fn padded(mut self) -> Vec<u32> {
        self.0.resize(4 * self.vectors(), 0);
        self.0
    }
}

/// An axis of an output, and the part of it that an operand covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// Of the output.
    pub(super) size: usize,
    /// Of the operand, in its elements.
    pub(super) stride: isize,
    /// Where the operand begins on this axis of the output.
    pub(super) start: usize,
    /// How much of it the operand covers.
    pub(super) len: usize,
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
pub(super) struct View {
    /// Outermost first, merged, none of size 1.
    pub(super) axes: Vec<Axis>,
    /// The operand's element at the output's element 0; there need not be one, so it may be negative.
    pub(super) offset: isize,
}

/// How four consecutive elements of the output are found in an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
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
    pub(super) fn block(self, dtype: DType) -> &'static str {
        if self == How::Blocks { block(dtype) } else { "u32" }
    }
}

/// WGSL that reads an operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    /// The type of the buffer's elements.
    pub(super) block: &'static str,
    /// `fn read(i: u32) -> vec4<u32> { … }`, the bits of the output's elements 4i … 4i + 3, perhaps with a helper after it.
    /// A part is read by `fn read(i: u32, y: vec4<u32>) -> vec4<u32>`, which keeps the elements of `y` outside of it.
    pub(super) definition: String,
}

impl View {
    /// An operand that covers the output, whose shape its layout has.
    pub(super) fn whole(layout: &Layout) -> Self {
        View::part(&layout.shape, layout, &vec![0; layout.shape.rank()])
    }

    /// An operand that covers a box in the output, from `start` on.
    pub(super) fn part(output: &[usize], layout: &Layout, start: &[usize]) -> Self {
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
    pub(super) fn is_whole(&self) -> bool {
        self.axes.iter().all(|axis| axis.is_whole())
    }

    /// The best way to read it.
    pub(super) fn how(&self) -> How {
        let in_blocks = |n: isize| n % LANES as isize == 0;
        let Some((last, outer)) = self.axes.split_last() else {
            return if in_blocks(self.offset) { How::Blocks } else { How::Same };
        };
        let rows = [last.size, last.start, last.len].into_iter().all(|n| in_blocks(n as isize));
        // A single whole axis may end within a block: buffers are padded.
        if !rows && !(outer.is_empty() && last.is_whole()) {
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
    pub(super) fn scan(&self, how: How, words: &mut Words) -> Scan {
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
    pub(super) fn reader(&self, read: &str, x: &str, dtype: DType, words: &mut Words) -> Reader {
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
                let value = keep(format!("let w = {x}[{index}]; return {};", unpack(dtype)));
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
        Reader { block: how.block(dtype), definition }
    }
}

/// The result of a function of block `i` from a call for the component and the element of each.
pub(super) fn each_element(call: impl Fn(&str, &str) -> String) -> String {
    let elements = ["e", "min(e + 1u, p.last)", "min(e + 2u, p.last)", "min(e + 3u, p.last)"];
    let calls: Vec<String> = COMPONENTS.into_iter().zip(elements).map(|(c, e)| call(c, e)).collect();
    format!("let e = {LANES}u * i; return vec4<u32>({});", calls.join(", "))
}

/// Where an operand's element for one position in the output is, as WGSL.
pub(super) struct Scan {
    /// `let`s that the other two need.
    pub(super) lets: String,
    /// The index in the buffer.
    pub(super) index: String,
    /// Whether the position is in the operand's part of the output; `None` if all are.
    pub(super) inside: Option<String>,
}

impl Scan {
    /// For the position in a variable of this name.
    pub(super) fn new(axes: &[Axis], offset: isize, position: &str, words: &mut Words) -> Self {
        let used = |axis: &Axis| axis.stride != 0 || !axis.is_whole();
        let outermost = axes.iter().position(used).unwrap_or(axes.len());
        let (mut lets, mut rest) = (String::new(), position.to_string());
        let (mut index, mut inside) = (words.add(offset as u32), Vec::new());
        for (n, axis) in axes.iter().enumerate().skip(outermost).rev() {
            let mut c = rest.clone();
            if n > 0 {
                let size = words.add(axis.size as u32);
                c = format!("c{n}");
                if used(axis) {
                    let _ = write!(lets, "let {c} = {rest} % {size}; ");
                }
                if n > outermost {
                    let _ = write!(lets, "let q{n} = {rest} / {size}; ");
                    rest = format!("q{n}");
                }
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

pub(super) const COMPONENTS: [&str; LANES] = ["x", "y", "z", "w"];

/// The type of four elements of a buffer.
pub(super) fn block(dtype: DType) -> &'static str {
    match dtype.bytes() {
        1 => "u32",
        2 => "vec2<u32>",
        _ => "vec4<u32>",
    }
}

/// The bits of the four elements in the block `w`.
pub(super) fn unpack(dtype: DType) -> &'static str {
    match dtype.bytes() {
        1 => "vec4<u32>(w & 0xffu, (w >> 8u) & 0xffu, (w >> 16u) & 0xffu, w >> 24u)",
        2 => "vec4<u32>(w.x & 0xffffu, w.x >> 16u, w.y & 0xffffu, w.y >> 16u)",
        _ => "w",
    }
}

/// `fn pack(y: vec4<u32>) -> block { … }`: four elements given by their bits as a block of the output.
pub(super) fn pack(dtype: DType) -> String {
    let value = match dtype.bytes() {
        1 => "y.x | (y.y << 8u) | (y.z << 16u) | (y.w << 24u)",
        2 => "vec2<u32>(y.x | (y.y << 16u), y.z | (y.w << 16u))",
        _ => "y",
    };
    format!("fn pack(y: vec4<u32>) -> block {{ return {value}; }}")
}

/// The bits of element `k` of the buffer `x` of words.
pub(super) fn fetch(x: &str, k: &str, dtype: DType) -> String {
    match dtype.bytes() {
        1 => format!("({x}[{k} >> 2u] >> (({k} & 3u) << 3u)) & 0xffu"),
        2 => format!("({x}[{k} >> 1u] >> (({k} & 1u) << 4u)) & 0xffffu"),
        _ => format!("{x}[{k}]"),
    }
}

/// How the blocks of an output are dealt to invocations. Shared by the families that write four elements at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    /// Its name.
    pub(super) name: &'static str,
    /// Invocations of a workgroup.
    pub(super) workgroup: u32,
    /// Blocks of four elements an invocation writes, a workgroup's width apart.
    pub(super) blocks: u32,
}

impl Variant {
    const PLAIN: Variant = Variant { name: "plain", workgroup: 256, blocks: 1 };
    const LONG: Variant = Variant { name: "long", workgroup: 256, blocks: 4 };

    /// The workgroups that an output of `elements` takes.
    pub(super) fn grid(self, family: &str, elements: usize, profile: &Profile) -> Result<[u32; 3]> {
        let elements_of_workgroup = u64::from(self.workgroup * self.blocks) * LANES as u64;
        fold_grid((elements as u64).div_ceil(elements_of_workgroup), profile, family)
    }
}

/// The variants for a shader that binds `buffers`, in the order that suits the adapter.
pub(super) fn candidates(profile: &Profile, buffers: usize, refusal: Option<&str>) -> Vec<Candidate> {
    let (plain, long) = match profile.kind {
        AdapterKind::Gpu => ("one block an invocation keeps a GPU's memory busy", "fewer invocations"),
        AdapterKind::Cpu => ("one block an invocation", "software adapters spend less on starting invocations"),
    };
    let mut all = [(Variant::PLAIN, plain), (Variant::LONG, long)];
    if profile.kind == AdapterKind::Cpu {
        all.reverse();
    }
    let limit = profile.limits.storage_buffers as usize;
    let limits = (buffers > limit)
        .then(|| format!("{buffers} storage buffers (max_storage_buffers_per_shader_stage is {limit})"));
    all.into_iter()
        .map(|(variant, reason)| match refusal.map(str::to_string).or_else(|| limits.clone()) {
            Some(refusal) => Candidate::refused(variant.name, refusal),
            None => Candidate::usable(variant.name, reason),
        })
        .collect()
}

/// The variant of this name, if it can run.
pub(super) fn variant(family: &'static str, candidates: &[Candidate], name: &str) -> Result<Variant> {
    let known = [Variant::PLAIN, Variant::LONG].into_iter().find(|variant| variant.name == name);
    let verdict = candidates.iter().find(|candidate| candidate.variant == name).map(|candidate| &candidate.verdict);
    match (known, verdict) {
        (Some(variant), Some(Verdict::Usable(_))) => Ok(variant),
        (Some(_), Some(Verdict::Refused(reason))) => {
            Err(Error::NoVariant { family, reasons: vec![format!("{name}: {reason}")] })
        }
        _ => Err(Error::op(family, format!("there is no variant `{name}`"))),
    }
}

/// How many elements of its buffer a layout reaches.
pub(super) fn touched(layout: &Layout) -> u64 {
    layout.shape.iter().zip(&layout.strides).filter(|(_, stride)| **stride != 0).map(|(&size, _)| size as u64).product()
}
