//! Dense copies, concatenation and padding. Twins: `shaders/copy*.wgsl`, `src/reference/copy.rs`, `tests/copy.rs`.

mod transposed;

use half::{bf16, f16};
use transposed::Transposed;

use super::{
    AdapterKind, Binding, Candidate, Kernel, Launch, Operand, Operands, Problem, Profile, Specialization,
    strided::{self, View, Word, Words},
};
use crate::{DType, Error, Layout, Result, Shape};

/// A strided view copied into a dense tensor of its shape, bit for bit.
///
/// ```text
/// out[i, j, …] = input[offset + i·strides[0] + j·strides[1] + …]
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyProblem {
    /// Of input and output.
    pub dtype: DType,
    /// The view.
    pub input: Layout,
}

/// Tensors end to end along an axis, bit for bit. Any number of inputs, in order; the one output is dense.
///
/// ```text
/// out[…, starts[n] + i, …] = inputs[n][…, i, …]        starts[n] = Σ of the sizes of the inputs before n
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcatProblem {
    /// Of every input and the output.
    pub dtype: DType,
    /// The axis along which the inputs follow each other. Other sizes are equal.
    pub axis: usize,
    /// The inputs.
    pub inputs: Vec<Layout>,
}

/// A tensor in a frame of one value.
///
/// ```text
/// out[i, j, …] = input[i − before[0], j − before[1], …] if that is inside, else value
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PadProblem {
    /// Of input and output.
    pub dtype: DType,
    /// The tensor inside.
    pub input: Layout,
    /// Elements before each axis.
    pub before: Vec<usize>,
    /// Elements after each axis.
    pub after: Vec<usize>,
    /// The value around it, converted to the dtype: rounded for floats; truncated and saturated for integers; true
    /// unless 0.
    pub value: f64,
}

impl CopyProblem {
    fn assembly(&self) -> Assembly<'_> {
        let start = vec![0; self.input.shape.rank()];
        let part = Part { input: 0, layout: &self.input, start };
        Assembly { family: "copy", dtype: self.dtype, shape: self.input.shape.clone(), parts: vec![part], fill: 0 }
    }
}

impl Problem for CopyProblem {
    fn family(&self) -> &'static str {
        "copy"
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        let plain = self.assembly().candidates(profile);
        let view = Transposed::new(self);
        let judge = |variant, reason: &str, refusal: fn(&Transposed, &Profile) -> Option<String>| match view
            .as_ref()
            .map(|view| refusal(view, profile))
        {
            Ok(None) => Candidate::usable(variant, reason),
            Ok(Some(refusal)) => Candidate::refused(variant, refusal),
            Err(refusal) => Candidate::refused(variant, refusal),
        };
        let tiled = judge("tiled", "reads and writes neighbours, through workgroup memory", Transposed::refuses_tiles);
        let square = judge("square", "reads and writes whole blocks", Transposed::refuses_squares);
        match profile.kind {
            AdapterKind::Cpu => [vec![square], plain, vec![tiled]].concat(),
            AdapterKind::Gpu if view.is_ok_and(|view| view.fills_tiles()) => [vec![tiled, square], plain].concat(),
            AdapterKind::Gpu => [plain, vec![square, tiled]].concat(),
        }
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        let refused =
            |reason: String| Error::NoVariant { family: "copy", reasons: vec![format!("{variant}: {reason}")] };
        match variant {
            "tiled" | "square" => {
                let view = Transposed::new(self).map_err(refused)?;
                let (refusal, kernel) = match variant {
                    "tiled" => (view.refuses_tiles(profile), view.tiled(profile)),
                    _ => (view.refuses_squares(profile), view.squares(profile)),
                };
                refusal.map_or(kernel, |reason| Err(refused(reason)))
            }
            _ => self.assembly().kernel(variant, profile),
        }
    }

    fn summary(&self) -> String {
        format!("{} {} strides {:?}", self.dtype, self.input.shape, self.input.strides)
    }
}

impl ConcatProblem {
    fn assembly(&self) -> Result<Assembly<'_>> {
        let axis = self.axis;
        let Some(first) = self.inputs.first() else {
            return Err(Error::op("concat", "there is no input"));
        };
        let mut shape = first.shape.to_vec();
        if axis >= shape.len() {
            return Err(Error::op("concat", format!("there is no axis {axis} in {}", first.shape)));
        }
        shape[axis] = 0;
        let mut parts = Vec::with_capacity(self.inputs.len());
        for (n, layout) in self.inputs.iter().enumerate() {
            let fits = |i: usize| i == axis || layout.shape[i] == shape[i];
            if layout.shape.rank() != shape.len() || !(0..shape.len()).all(fits) {
                return Err(Error::shape(
                    "concat",
                    &format!("x{n}"),
                    &layout.shape,
                    format_args!("{}, but for axis {axis}", first.shape),
                ));
            }
            let mut start = vec![0; shape.len()];
            start[axis] = shape[axis];
            shape[axis] += layout.shape[axis];
            parts.push(Part { input: n, layout, start });
        }
        Ok(Assembly { family: "concat", dtype: self.dtype, shape: shape.into(), parts, fill: 0 })
    }
}

impl Problem for ConcatProblem {
    fn family(&self) -> &'static str {
        "concat"
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        match self.assembly() {
            Ok(assembly) => assembly.candidates(profile),
            Err(error) => strided::candidates(profile, 0, Some(&error)),
        }
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        self.assembly()?.kernel(variant, profile)
    }

    fn summary(&self) -> String {
        let shapes: Vec<String> = self.inputs.iter().map(|layout| layout.shape.to_string()).collect();
        format!("{} {} along axis {}", self.dtype, shapes.join(" "), self.axis)
    }
}

impl PadProblem {
    fn assembly(&self) -> Result<Assembly<'_>> {
        let rank = self.input.shape.rank();
        if [self.before.len(), self.after.len()] != [rank; 2] {
            return Err(Error::op(
                "pad",
                format!("{:?} before and {:?} after don't fit {}", self.before, self.after, self.input.shape),
            ));
        }
        let frame = self.before.iter().zip(&self.after);
        let shape =
            self.input.shape.iter().zip(frame).map(|(&size, (&before, &after))| before + size + after).collect();
        let part = Part { input: 0, layout: &self.input, start: self.before.clone() };
        let fill = bits(self.dtype, self.value);
        Ok(Assembly { family: "pad", dtype: self.dtype, shape, parts: vec![part], fill })
    }
}

impl Problem for PadProblem {
    fn family(&self) -> &'static str {
        "pad"
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        match self.assembly() {
            Ok(assembly) => assembly.candidates(profile),
            Err(error) => strided::candidates(profile, 0, Some(&error)),
        }
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        self.assembly()?.kernel(variant, profile)
    }

    fn summary(&self) -> String {
        let PadProblem { dtype, input, before, after, value } = self;
        format!("{dtype} {} before {before:?} after {after:?} with {value}", input.shape)
    }
}

/// The bits of an element of this value.
fn bits(dtype: DType, value: f64) -> u32 {
    match dtype {
        DType::F32 => (value as f32).to_bits(),
        DType::F16 => u32::from(f16::from_f64(value).to_bits()),
        DType::BF16 => u32::from(bf16::from_f64(value).to_bits()),
        DType::I32 => value as i32 as u32,
        DType::U32 => value as u32,
        DType::Bool => u32::from(value != 0.0),
    }
}

/// An input in its box of the output.
struct Part<'a> {
    input: usize,
    layout: &'a Layout,
    start: Vec<usize>,
}

/// An output put together from parts; copy, concat and pad are assemblies.
struct Assembly<'a> {
    family: &'static str,
    dtype: DType,
    shape: Shape,
    /// They don't overlap.
    parts: Vec<Part<'a>>,
    /// The bits of elements in no part.
    fill: u32,
}

impl Assembly<'_> {
    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        strided::candidates(profile, 2, self.shape.checked_elements(self.family).err().as_ref())
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        let elements = self.shape.checked_elements(self.family)?;
        strided::check_variant(self.family, &self.candidates(profile), variant)?;
        // The shader has seven inputs; more come in further dispatches, which keep what the ones before wrote.
        let inputs = (profile.limits.storage_buffers as usize - 1).min(7);
        let parts: Vec<&Part<'_>> = self.parts.iter().filter(|part| !part.layout.shape.contains(&0)).collect();
        let mut groups: Vec<&[&Part<'_>]> = parts.chunks(inputs).collect();
        if groups.is_empty() {
            groups.push(&[]);
        }
        let launch = |(n, group): (usize, &&[&Part<'_>])| self.launch(n, group, elements, profile);
        let launches = groups.iter().enumerate().map(launch).collect::<Result<_>>()?;
        Ok(Kernel { launches, scratch: Vec::new() })
    }

    /// Writes the parts of one group; the first launch fills what is in no part.
    fn launch(&self, group: usize, parts: &[&Part<'_>], elements: usize, profile: &Profile) -> Result<Launch> {
        let mut words = Words::default();
        let before = if group == 0 {
            format!("return vec4<u32>({});", words.add(self.fill))
        } else {
            format!("let w = out[i]; return {};", strided::unpack(self.dtype, Word::Bits32))
        };
        let mut source = Specialization::new("copy::plain")
            .ty("block", strided::block(self.dtype, Word::Bits32))
            .function("pack", strided::pack(self.dtype, Word::Bits32))
            .function("before", format!("fn before(i: u32) -> vec4<u32> {{ {before} }}"));
        let (mut value, mut reads) = ("before(i)".to_string(), String::new());
        let (mut bindings, mut moved, mut loads) = (Vec::with_capacity(parts.len() + 1), 0, 0);
        for (n, part) in parts.iter().enumerate() {
            let view = View::part(&self.shape, part.layout, &part.start);
            let reader = view.reader(&format!("read{n}"), &format!("x{n}"), self.dtype, Word::Bits32, &mut words);
            loads += reader.loads;
            value = if view.is_whole() { format!("read{n}(i)") } else { format!("read{n}(i, {value})") };
            source = source.region(&format!("X{n}"), true).ty(&format!("block{n}"), reader.block);
            reads = reads + "\n" + &reader.definition;
            bindings.push(Binding::read(Operand::Input(part.input)));
            moved += part.layout.shape.iter().product::<usize>();
        }
        bindings.push(Binding::write(Operand::Output(0)));
        if group == 0 {
            let later: usize = self.parts.iter().map(|part| part.layout.shape.iter().product::<usize>()).sum();
            moved += (elements - later) / 2;
        }
        let elements_of = format!("fn elements(i: u32) -> vec4<u32> {{ return {value}; }}{reads}");
        let source = source.function("elements", elements_of);
        let label = if group == 0 { "plain" } else { "plain: further parts" };
        let launch = strided::launch(self.family, label, source, bindings, words, (elements, loads), profile)?;
        Ok(Launch { bytes: (2 * moved * self.dtype.bytes()) as u64, ..launch })
    }
}

impl ConcatProblem {
    /// Of [`Op::Concat`](crate::graph::Op::Concat).
    pub(in crate::kernel) fn of(axis: usize, operands: &mut Operands) -> Result<Self> {
        let inputs = (0..operands.count()).map(|input| operands.layout(input)).collect();
        Ok(ConcatProblem { dtype: operands.dtype(0), axis, inputs })
    }
}

impl PadProblem {
    /// Of [`Op::Pad`](crate::graph::Op::Pad).
    pub(in crate::kernel) fn of(
        before: &[usize],
        after: &[usize],
        value: f64,
        operands: &mut Operands,
    ) -> Result<Self> {
        let (dtype, input) = (operands.dtype(0), operands.layout(0));
        Ok(PadProblem { dtype, input, before: before.into(), after: after.into(), value })
    }
}
