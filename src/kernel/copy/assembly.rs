//! An output put together from parts, block by block: `shaders/copy/plain.wesl`.

use crate::{
    DType, Layout, Result, Shape,
    kernel::{
        Binding, Kernel, Launch, Operand, Profile, Specialization,
        access::{
            bits::{Word, unpack},
            strided::{View, Words},
        },
        blocks::{self, Blocks},
        variant::Needs,
    },
};

/// An input in its box of the output.
pub(super) struct Part<'a> {
    pub(super) input: usize,
    pub(super) layout: &'a Layout,
    pub(super) start: Vec<usize>,
}

/// An output put together from parts; copy, concat and pad are assemblies.
pub(super) struct Assembly<'a> {
    pub(super) family: &'static str,
    pub(super) dtype: DType,
    pub(super) shape: Shape,
    /// They don't overlap.
    pub(super) parts: Vec<Part<'a>>,
    /// The bits of elements in no part.
    pub(super) fill: u32,
}

impl Assembly<'_> {
    pub(super) fn needs(&self) -> Result<Needs, String> {
        self.shape.checked_elements(self.family).map_err(|fault| fault.to_string())?;
        Ok(blocks::needs(2))
    }

    /// A dispatch for each group of parts: the shader has seven inputs. The first fills what is in no part; further ones keep
    /// what the ones before wrote.
    pub(super) fn kernel(&self, profile: &Profile) -> Result<Kernel> {
        let elements = self.shape.checked_elements(self.family)?;
        let inputs = (profile.limits.storage_buffers as usize - 1).min(7);
        let parts: Vec<&Part<'_>> = self.parts.iter().filter(|part| !part.layout.shape.contains(&0)).collect();
        let mut groups: Vec<&[&Part<'_>]> = parts.chunks(inputs).collect();
        if groups.is_empty() {
            groups.push(&[]);
        }
        let launch = |(n, group): (usize, &&[&Part<'_>])| self.launch(n, group, elements, profile);
        let launches = groups.iter().enumerate().map(launch).collect::<Result<_>>()?;
        Ok(Kernel { launches, workspace: Vec::new() })
    }

    fn launch(&self, group: usize, parts: &[&Part<'_>], elements: usize, profile: &Profile) -> Result<Launch> {
        let mut words = Words::default();
        let before = if group == 0 {
            format!("return vec4<u32>({});", words.add(self.fill))
        } else {
            format!("let w = out[i]; return {};", unpack(self.dtype, Word::Bits32))
        };
        let mut source = Specialization::new("copy::plain")
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
        let blocks = Blocks {
            family: self.family,
            label: if group == 0 { "plain" } else { "plain: further parts" },
            source: source
                .function("elements", format!("fn elements(i: u32) -> vec4<u32> {{ return {value}; }}{reads}")),
            bindings,
            words,
            dtype: self.dtype,
            elements,
            word: Word::Bits32,
            loads,
            flops: 0,
            bytes: (2 * moved * self.dtype.bytes()) as u64,
        };
        blocks.launch(profile)
    }
}
