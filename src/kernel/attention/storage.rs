//! How q, k, v, bias and out are stored: the element types of the bindings, and the functions that read and write them.
//!
//! Narrow floats lie two to a word. Where the rows of an operand allow it, four elements are read or written at once.

use super::setup::{MaskTiles, Setup, Tiling};
use crate::{
    DType, Layout, Result,
    graph::AttentionOperand as A,
    kernel::{
        Binding, Kernel, Operand, Specialization,
        access::{
            elems::Elems,
            long::{eight, has_eights, of_eight},
            narrow::word,
        },
        buffer_bytes,
        pointwise::round,
    },
};

/// The float operands that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    Q,
    K,
    V,
    Bias,
}

impl Float {
    /// Its name in the shaders.
    fn name(self) -> &'static str {
        match self {
            Float::Q => "q",
            Float::K => "k",
            Float::V => "v",
            Float::Bias => "bias",
        }
    }
}

/// How a binding of q, k or v is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Element by element.
    Ones,
    /// By fours, where rows allow it: see [`Setup::reads_four`].
    Fours,
    /// As f16: see [`Setup::reads_halves`].
    Halves,
}

/// Where a variant writes f32 or whole words of narrow elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// Into the output, in its dtype.
    Direct,
    /// Into a workspace buffer of f32 in the order of the output, which a launch of its own rounds: a word of the output has
    /// elements of two rows.
    Rounded(Operand),
}

impl Out {
    fn operand(self) -> Operand {
        match self {
            Out::Direct => Operand::Output(0),
            Out::Rounded(workspace) => workspace,
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

/// vec4s of an array of a row, in few sizes, each of which is another text to compile.
pub(super) fn vec4s(columns: usize) -> usize {
    2 * columns.div_ceil(8).next_power_of_two().max(2)
}

/// `{name}_eight` and `{name}_four`, which read eight elements of a row at once, and `{name}_elem`.
pub(super) fn reads_eights(source: Specialization, name: &str, dtype: DType) -> Specialization {
    let (ty, [low, high]) = eight(dtype);
    let load = format!("let w = {name}[(row + d.x) >> 3u];");
    source
        .ty(&format!("{name}_elem"), ty)
        .function(
            &format!("{name}_four"),
            format!("fn {name}_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> {{ {load} return select({low}, {high}, ((row + d.x) & 4u) != 0u); }}"),
        )
        .function(
            &format!("{name}_eight"),
            format!("fn {name}_eight(row: u32, d: vec4<u32>, e: vec4<u32>, step: u32) -> Eight {{ {load} return Eight({low}, {high}); }}"),
        )
}

impl Setup<'_> {
    /// `{name}_at`, which reads one element, and `{name}_elem`.
    pub(super) fn reads_one(&self, source: Specialization, operand: Float) -> Specialization {
        let (name, dtype) = (operand.name(), self.dtype(operand));
        if !dtype.is_narrow() {
            return source;
        }
        let one = Elems { dtype, packed: false };
        let body = if operand == Float::Bias { one.read_infinities(name) } else { one.read(name) };
        source
            .ty(&format!("{name}_elem"), one.ty())
            .function(&format!("{name}_at"), format!("fn {name}_at(i: u32) -> f32 {{ {body} }}"))
    }

    /// `{name}_four`, which reads four elements of a row, and `{name}_elem`.
    pub(super) fn reads_four(&self, source: Specialization, operand: Float) -> Specialization {
        let name = operand.name();
        let elems = Elems { dtype: self.dtype(operand), packed: self.has_groups(operand, 4) };
        let body = match (elems.packed, elems.dtype.is_narrow()) {
            (true, _) => elems.four(name, ["(row + d.x)"; 4]),
            (false, true) => {
                format!("let at = row + d * step; {}", elems.four(name, ["at.x", "at.y", "at.z", "at.w"]))
            }
            (false, false) => return source,
        };
        let definition = format!("fn {name}_four(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> {{ {body} }}");
        source.ty(&format!("{name}_elem"), elems.ty()).function(&format!("{name}_four"), definition)
    }

    /// `wide_{name}`, which reads four elements of a row as `walk.wesl` does, of a binding that is read as these are.
    pub(super) fn reads_wide(&self, source: Specialization, operand: Float, lie: Lie) -> Specialization {
        let name = operand.name();
        let elems = Elems { dtype: self.dtype(operand), packed: lie != Lie::Ones && self.has_groups(operand, 4) };
        let (ty, body) = match (lie, elems.packed) {
            (Lie::Halves, true) => ("vec4<f16>", format!("return vec4<f32>({name}[(row + d.x) >> 2u]);")),
            // As it stands.
            (Lie::Halves, false) => return source,
            (Lie::Fours | Lie::Ones, true) => (elems.ty(), elems.four(name, ["(row + d.x)"; 4])),
            (Lie::Fours | Lie::Ones, false) => {
                let four = elems.four(name, ["at.x", "at.y", "at.z", "at.w"]);
                (elems.ty(), format!("let at = row + d * step; {four}"))
            }
        };
        let definition = format!("fn wide_{name}(row: u32, d: vec4<u32>, step: u32) -> vec4<f32> {{ {body} }}");
        source.ty(&format!("{name}_elem"), ty).function(&format!("wide_{name}"), definition)
    }

    /// A row by one invocation, `walk.wesl`, of q, k and v that lie so, and so many columns of O.
    pub(super) fn walks(&self, source: Specialization, lies: [Lie; 3], columns: usize) -> Specialization {
        // Of the 8 KiB of variables that WGSL promises, a row of q may have a quarter; it is read again where it is wider.
        const MOST_HELD: usize = 512;
        let is_held = self.sizes.d <= MOST_HELD;
        let source = source
            .value("WIDEST", vec4s(columns))
            .value("Q_WIDEST", if is_held { vec4s(self.sizes.d) } else { 1 })
            .region("Q_HELD", is_held)
            .region("WALK_TAIL", !self.sizes.d.is_multiple_of(4));
        [Float::Q, Float::K, Float::V]
            .into_iter()
            .zip(lies)
            .fold(source, |source, (operand, lie)| self.reads_wide(source, operand, lie))
    }

    /// The rounds of the loops of `walk.wesl` over the columns of four keys at a time, with the keys' own.
    pub(super) fn rounds_of_walk(&self, keys: usize) -> u64 {
        let columns = self.sizes.d.div_ceil(4) + self.sizes.dv.div_ceil(4);
        // Entering a loop takes one too; q, O and the search for a packed item come once.
        (keys.div_ceil(4) * (columns + 4) + 2 * (columns + 8) + 64) as u64
    }

    /// Whether an operand lies so that four or eight elements of a row are one element of a binding.
    pub(super) fn has_groups(&self, operand: Float, elements: usize) -> bool {
        let layout = match operand {
            Float::Q => &self.problem.q,
            Float::K => &self.problem.k,
            Float::V => &self.problem.v,
            // Read one by one.
            Float::Bias => return false,
        };
        self.lies_in_groups(layout, self.dtype(operand), elements)
    }

    /// Whether out does, as sums in f32.
    pub(super) fn out_has_groups(&self, elements: usize) -> bool {
        self.lies_in_groups(&self.problem.out, DType::F32, elements)
    }

    /// Whether a tensor lies so that four or eight elements of a row are one element of a binding.
    pub(super) fn lies_in_groups(&self, layout: &Layout, dtype: DType, elements: usize) -> bool {
        // A buffer without elements has room for 16 bytes.
        let fits =
            elements == 4 || has_eights(dtype, self.profile) && (dtype.is_narrow() || !layout.shape.contains(&0));
        fits && is_grouped(layout, elements)
    }

    /// `{name}_eight` and `{name}_four`, which read eight elements of a row at once, and `{name}_elem`; see
    /// [`Setup::has_groups`].
    pub(super) fn reads_eight(&self, source: Specialization, operand: Float) -> Specialization {
        reads_eights(source, operand.name(), self.dtype(operand))
    }

    /// `out_eight` and `write_eight`, which read and write eight sums at once; see [`Setup::out_has_groups`].
    pub(super) fn keeps_eight(&self, source: Specialization) -> Specialization {
        let (ty, [low, high]) = eight(DType::F32);
        let word = of_eight(["eight.low", "eight.high"]);
        // Whoever has eights alone calls no fours.
        source
            .ty("out_elem", ty)
            .function("out_four", "fn out_four(row: u32, d: u32, step: u32, width: u32) -> vec4<f32> { return vec4<f32>(); }")
            .function("write_four", "fn write_four(row: u32, d: u32, step: u32, width: u32, four: vec4<f32>) { }")
            .function(
                "out_eight",
                format!("fn out_eight(row: u32, d: u32, step: u32, width: u32) -> Eight {{ var eight = Eight(); if d < width {{ let w = out[(row + d) >> 3u]; eight = Eight({low}, {high}); }} return eight; }}"),
            )
            .function(
                "write_eight",
                format!("fn write_eight(row: u32, d: u32, step: u32, width: u32, eight: Eight) {{ if d < width {{ out[(row + d) >> 3u] = {word}; }} }}"),
            )
    }

    /// `{name}_four`, which reads four f16 as they are, and `{name}_elem`.
    pub(super) fn reads_halves(&self, source: Specialization, operand: Float) -> Specialization {
        let name = operand.name();
        let (ty, body) = if self.has_groups(operand, 4) {
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

    fn dtype(&self, operand: Float) -> DType {
        let dtypes = &self.problem.dtypes;
        match operand {
            Float::Q => dtypes.q,
            Float::K => dtypes.k,
            Float::V => dtypes.v,
            Float::Bias if self.has(A::Bias) => dtypes.bias,
            Float::Bias => DType::F32,
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

    /// A workspace buffer in place of out.
    fn rounded(&self, kernel: &mut Kernel) -> Out {
        kernel.workspace.push(buffer_bytes(DType::F32, self.elements()));
        Out::Rounded(Operand::Workspace(kernel.workspace.len() - 1))
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

    /// `write_two`: columns d and d + 1 of a row of out, which are a word.
    pub(super) fn writes_two(&self, source: Specialization, out: Out) -> Specialization {
        let dtype = self.problem.dtypes.out;
        if out != Out::Direct || !dtype.is_narrow() {
            return source;
        }
        let word = word(dtype, "two.x", "two.y");
        source.region("NARROW", true).ty("out_elem", "u32").function(
            "write_two",
            format!("fn write_two(row: u32, d: u32, step: u32, two: vec2<f32>) {{ out[(row + d) >> 1u] = {word}; }}"),
        )
    }

    /// `write_four`: columns d to d + 4 of a row of out, as far as there are.
    pub(super) fn writes_four(&self, source: Specialization, out: Out) -> Specialization {
        let dtype = if out == Out::Direct { self.problem.dtypes.out } else { DType::F32 };
        let elems = Elems { dtype, packed: is_grouped(&self.problem.out, 4) };
        let body = match (elems.packed, dtype.is_narrow()) {
            (true, _) => format!("if d < width {{ {} }}", elems.write_at("out", "(row + d) >> 2u", "four")),
            (false, true) => {
                let [low, high] = [word(dtype, "four.x", "four.y"), word(dtype, "four.z", "four.w")];
                format!(
                    "let at = (row + d) >> 1u; if d < width {{ out[at] = {low}; }} \
                     if d + 2u < width {{ out[at + 1u] = {high}; }}"
                )
            }
            (false, false) => return source,
        };
        source.region("NARROW", dtype.is_narrow()).ty("out_elem", elems.ty()).function(
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

    /// out, and lse if it is asked for.
    pub(super) fn outputs(&self, out: Out) -> Vec<Binding> {
        [out.operand()].into_iter().chain(self.lse()).map(Binding::write).collect()
    }

    /// Adds the launches of a kernel that goes through all keys of a tile of rows in one workgroup.
    pub(super) fn whole(
        &self,
        kernel: &mut Kernel,
        label: &str,
        source: Specialization,
        tiling: Tiling,
        mask_tiles: Option<MaskTiles>,
        out: Out,
    ) -> Result<()> {
        let source = source.region("LSE", self.problem.lse);
        kernel.launches.push(self.launch(label.into(), source, tiling, mask_tiles, self.outputs(out), 0)?);
        self.finish(kernel, out)
    }

    /// Adds the launch that rounds what was written in f32, if it was.
    pub(super) fn finish(&self, kernel: &mut Kernel, out: Out) -> Result<()> {
        let Out::Rounded(workspace) = out else { return Ok(()) };
        kernel.launches.extend(round(self.problem.dtypes.out, self.elements(), workspace, 0, self.profile)?);
        Ok(())
    }
}
