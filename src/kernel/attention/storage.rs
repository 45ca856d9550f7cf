//! How q, k, v, bias and out are stored: the element types of the bindings, and the functions that read and write them.
//!
//! Narrow floats lie two to a word. Where the rows of an operand allow it, four elements are read or written at once.

use super::{AttentionOperand as A, setup::Setup};
use crate::{
    DType, Layout, Result,
    kernel::{
        Kernel, Operand, Specialization, buffer_bytes,
        long::{eight, has_eights, of_eight},
        narrow::{Elems, element, four, round, word, words},
    },
};

/// Where a variant writes f32 or whole words of narrow elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// Into the output, in its dtype.
    Direct,
    /// Into a scratch buffer of f32 in the order of the output, which a launch of its own rounds: a word of the output has
    /// elements of two rows.
    Rounded(Operand),
}

impl Out {
    pub(super) fn operand(self) -> Operand {
        match self {
            Out::Direct => Operand::Output(0),
            Out::Rounded(scratch) => scratch,
        }
    }

    /// Elements that an invocation has to write together.
    pub(super) fn elements_at_once(self, setup: &Setup<'_>) -> usize {
        if self == Out::Direct && setup.problem.dtypes.out.is_narrow() { 2 } else { 1 }
    }
}

/// Whether whole groups of `elements` of a row lie side by side, and each group where a whole one would.
fn is_grouped(layout: &Layout, elements: usize) -> bool {
    let Some((&width, outer)) = layout.shape.split_last() else { return false };
    let (step, steps) = (layout.strides[outer.len()], &layout.strides[..outer.len()]);
    width.is_multiple_of(elements)
        && layout.offset.is_multiple_of(elements)
        && (step == 1 || width == 0)
        && outer.iter().zip(steps).all(|(&size, &step)| size <= 1 || step % elements as isize == 0)
}

impl Setup<'_> {
    /// `{name}_at`, which reads one element, and `{name}_elem`.
    pub(super) fn reads_one(&self, source: Specialization, name: &str) -> Specialization {
        let dtype = self.dtype(name);
        if !dtype.is_narrow() {
            return source;
        }
        let one = Elems { dtype, packed: false };
        let body = if name == "bias" { one.read_infinities(name) } else { one.read(name) };
        source
            .ty(&format!("{name}_elem"), "u32")
            .function(&format!("{name}_at"), format!("fn {name}_at(i: u32) -> f32 {{ {body} }}"))
    }

    /// `{name}_four`, which reads four elements of a row, and `{name}_elem`.
    pub(super) fn reads_four(&self, source: Specialization, name: &str, layout: &Layout) -> Specialization {
        let dtype = self.dtype(name);
        let (ty, body) = match (is_grouped(layout, 4), dtype.is_narrow()) {
            (true, false) => ("vec4<f32>", format!("return {name}[(row + d.x) >> 2u];")),
            (true, true) => {
                let body = format!("let two = {name}[(row + d.x) >> 2u]; return {};", four(dtype, "two"));
                ("vec2<u32>", body)
            }
            (false, true) => {
                let all = ["at.x", "at.y", "at.z", "at.w"].map(|at| element(name, dtype, at)).join(", ");
                ("u32", format!("let at = row + d * step; return vec4<f32>({all});"))
            }
            (false, false) => return source,
        };
        let definition = format!("fn {name}_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> {{ {body} }}");
        source.ty(&format!("{name}_elem"), ty).function(&format!("{name}_four"), definition)
    }

    /// Whether q, k, v, or `out` as sums in f32, lies so that four or eight elements of a row are one element of a binding.
    pub(super) fn has_groups(&self, name: &str, elements: usize) -> bool {
        let layout = match name {
            "q" => &self.problem.q,
            "k" => &self.problem.k,
            "v" => &self.problem.v,
            _ => &self.problem.out,
        };
        // A buffer without elements has room for 16 bytes.
        let dtype = if name == "out" { DType::F32 } else { self.dtype(name) };
        let fits =
            elements == 4 || has_eights(dtype, self.profile) && (dtype.is_narrow() || !layout.shape.contains(&0));
        fits && is_grouped(layout, elements)
    }

    /// `{name}_pair` and `{name}_four`, which read eight elements of a row at once, and `{name}_elem`; see
    /// [`Setup::has_groups`].
    pub(super) fn reads_eight(&self, source: Specialization, name: &str) -> Specialization {
        let dtype = self.dtype(name);
        let (ty, [low, high]) = eight(dtype);
        let load = format!("let w = {name}[(row + d.x) >> 3u];");
        source
            .ty(&format!("{name}_elem"), ty)
            .function(
                &format!("{name}_four"),
                format!("fn {name}_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> {{ {load} return select({low}, {high}, ((row + d.x) & 4u) != 0u); }}"),
            )
            .function(
                &format!("{name}_pair"),
                format!("fn {name}_pair(row: u32, d: vec4<u32>, e: vec4<u32>, step: u32) -> Pair {{ {load} return Pair({low}, {high}); }}"),
            )
    }

    /// `out_pair` and `write_pair`, which read and write eight sums at once; see [`Setup::has_groups`].
    pub(super) fn keeps_eight(&self, source: Specialization) -> Specialization {
        let (ty, [low, high]) = eight(DType::F32);
        let word = of_eight(["pair.a", "pair.b"]);
        // Whoever has eights alone calls no fours.
        source
            .ty("out_elem", ty)
            .function("out_four", "fn out_four(row: u32, d: u32, step: u32, width: u32) -> vec4<f32> { return vec4<f32>(); }")
            .function("write_four", "fn write_four(row: u32, d: u32, step: u32, width: u32, four: vec4<f32>) { }")
            .function(
                "out_pair",
                format!("fn out_pair(row: u32, d: u32, step: u32, width: u32) -> Pair {{ var pair = Pair(); if d < width {{ let w = out[(row + d) >> 3u]; pair = Pair({low}, {high}); }} return pair; }}"),
            )
            .function(
                "write_pair",
                format!("fn write_pair(row: u32, d: u32, step: u32, width: u32, pair: Pair) {{ if d < width {{ out[(row + d) >> 3u] = {word}; }} }}"),
            )
    }

    /// `{name}_four`, which reads four f16 as they are, and `{name}_elem`.
    pub(super) fn reads_halves(&self, source: Specialization, name: &str, layout: &Layout) -> Specialization {
        let (ty, body) = if is_grouped(layout, 4) {
            ("vec4<f16>", format!("return {name}[(row + d.x) >> 2u];"))
        } else {
            let all = ["x", "y", "z", "w"].map(|at| format!("{name}[at.{at}]")).join(", ");
            ("f16", format!("let at = row + d * step; return vec4<f16>({all});"))
        };
        source.ty(&format!("{name}_elem"), ty).function(
            &format!("{name}_four"),
            format!("fn {name}_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f16> {{ {body} }}"),
        )
    }

    fn dtype(&self, name: &str) -> DType {
        let dtypes = &self.problem.dtypes;
        match name {
            "q" => dtypes.q,
            "k" => dtypes.k,
            "v" => dtypes.v,
            _ if self.has(A::Bias) => dtypes.bias,
            _ => DType::F32,
        }
    }

    /// Where out is written: an invocation that writes narrow elements must own whole words.
    pub(super) fn out(&self, kernel: &mut Kernel) -> Out {
        let problem = self.problem;
        if !problem.dtypes.out.is_narrow() || is_grouped(&problem.out, 2) {
            return Out::Direct;
        }
        self.rounded(kernel)
    }

    /// Where out is written if sums lie in it for a while, and so f32.
    pub(super) fn wide_out(&self, kernel: &mut Kernel) -> Out {
        if self.problem.dtypes.out.is_narrow() { self.rounded(kernel) } else { Out::Direct }
    }

    /// A scratch buffer in place of out.
    fn rounded(&self, kernel: &mut Kernel) -> Out {
        kernel.scratch.push(buffer_bytes(DType::F32, self.elements()));
        Out::Rounded(Operand::Scratch(kernel.scratch.len() - 1))
    }

    /// Bytes that the launch before the rounding writes to out.
    pub(super) fn out_bytes(&self, out: Out) -> u64 {
        let dtype = if out == Out::Direct { self.problem.dtypes.out } else { DType::F32 };
        (self.elements() * dtype.bytes()) as u64
    }

    /// Elements of out.
    fn elements(&self) -> usize {
        self.problem.out.shape.iter().product()
    }

    /// `write_two`, or as it is called, with `two` in its parameters: columns d and d + 1 of a row of out.
    pub(super) fn writes_two(&self, source: Specialization, out: Out, slot: &str) -> Specialization {
        let dtype = self.problem.dtypes.out;
        if out != Out::Direct || !dtype.is_narrow() {
            return source;
        }
        let word = word(dtype, "two.x", "two.y");
        source.region("NARROW", true).ty("out_elem", "u32").function(
            slot,
            format!("fn {slot}(row: u32, d: u32, step: u32, two: vec2<f32>) {{ out[(row + d) >> 1u] = {word}; }}"),
        )
    }

    /// `write_four`: columns d to d + 4 of a row of out, as far as there are.
    pub(super) fn writes_four(&self, source: Specialization, out: Out) -> Specialization {
        let narrow = out == Out::Direct && self.problem.dtypes.out.is_narrow();
        let dtype = self.problem.dtypes.out;
        let [low, high] = [word(dtype, "four.x", "four.y"), word(dtype, "four.z", "four.w")];
        let (ty, body) = match (is_grouped(&self.problem.out, 4), narrow) {
            (true, false) => ("vec4<f32>", "if d < width { out[(row + d) >> 2u] = four; }".into()),
            (true, true) => {
                ("vec2<u32>", format!("if d < width {{ out[(row + d) >> 2u] = {}; }}", words(dtype, "four")))
            }
            (false, true) => {
                let at = "let at = (row + d) >> 1u;";
                let body =
                    format!("{at} if d < width {{ out[at] = {low}; }} if d + 2u < width {{ out[at + 1u] = {high}; }}");
                ("u32", body)
            }
            (false, false) => return source,
        };
        source.region("NARROW", narrow).ty("out_elem", ty).function(
            "write_four",
            format!("fn write_four(row: u32, d: u32, step: u32, width: u32, four: vec4<f32>) {{ {body} }}"),
        )
    }

    /// `out_four`, which reads back what [`Setup::wide_out`] let be written.
    pub(super) fn reads_out(&self, source: Specialization) -> Specialization {
        if !is_grouped(&self.problem.out, 4) {
            return source;
        }
        source.function(
            "out_four",
            "fn out_four(row: u32, d: u32, step: u32, width: u32) -> vec4<f32> { var four = vec4<f32>(); if d < width { four = out[(row + d) >> 2u]; } return four; }",
        )
    }

    /// The launch that rounds what was written in f32, if it was.
    pub(super) fn finish(&self, kernel: &mut Kernel, out: Out) -> Result<()> {
        let Out::Rounded(scratch) = out else { return Ok(()) };
        kernel.launches.extend(round(self.problem.dtypes.out, self.elements(), scratch, 0, self.profile)?);
        Ok(())
    }
}
