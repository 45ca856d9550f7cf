//! Operands read through strides, as WGSL text: four consecutive elements of an output at a time, as raw bits.
//!
//! Every kernel here gives an invocation four consecutive elements of its dense output, so that narrow dtypes are written
//! in whole words. An operand is read in the best way that its layout allows; which way is a matter of structure, and
//! part of the source, while sizes, strides and offsets are parameters.

use std::fmt::Write as _;

use super::bits::{COMPONENTS, LANES, Word, block, fetch, unpack};
use crate::{DType, Layout};

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
pub(in crate::kernel) struct Span {
    /// Of the output.
    pub(in crate::kernel) size: usize,
    /// Of the operand, in its elements.
    pub(in crate::kernel) stride: isize,
    /// Where the operand begins on this axis of the output.
    pub(in crate::kernel) start: usize,
    /// How much of it the operand covers.
    pub(in crate::kernel) len: usize,
}

impl Span {
    fn is_whole(self) -> bool {
        self.len == self.size
    }

    /// This axis and the next inner one as a single axis, if one stride covers both.
    fn merge(self, inner: Span) -> Option<Span> {
        let inner_size = inner.size as isize;
        (inner.is_whole() && (self.len == 1 || self.stride == inner.stride * inner_size)).then(|| Span {
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
    pub(in crate::kernel) axes: Vec<Span>,
    /// The operand's element at the output's element 0; there need not be one, so it may be negative.
    pub(in crate::kernel) offset: isize,
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
        let mut axes: Vec<Span> = Vec::with_capacity(output.len());
        let boxes = output.iter().zip(start).zip(layout.shape.iter().zip(&layout.strides));
        for ((&size, &start), (&len, &stride)) in boxes.filter(|((size, _), _)| **size != 1) {
            let axis = Span { size, stride, start, len };
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
            *last = Span { size, start, len, stride: last.stride * LANES as isize };
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
    pub(in crate::kernel) fn new(axes: &[Span], offset: isize, position: &str, words: &mut Words) -> Self {
        let used = |axis: &Span| axis.stride != 0 || !axis.is_whole();
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
