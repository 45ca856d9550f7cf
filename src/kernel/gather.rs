//! Embedding lookup.

use super::{
    Binding, Candidate, Kernel, Operand, Operands, Problem, Profile, Specialization,
    access::{
        bits::{LANES, Word, fetch, unpack},
        strided::{How, Scan, View, Words, each_element, touched},
    },
    blocks::{self, Blocks},
    variant::{Needs, Only},
};
use crate::{DType, Error, Layout, Result, Shape};

/// Slices of `data` along an axis, picked by indices, bit for bit. Inputs: data, indices (i32). One dense output.
///
/// ```text
/// data [before…, N, after…], indices [index…] → out [before…, index…, after…]
/// out[b, i, a] = data[b, pick(indices[i]), a]        pick(k) = clamp(k < 0 ? k + N : k, 0, N − 1)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatherProblem {
    /// Of data and output.
    pub dtype: DType,
    /// Where the data lies.
    pub data: Layout,
    /// The axis of `data` that the indices run over. It has at least one element, unless there are no indices.
    pub axis: usize,
    /// Where the indices lie.
    pub indices: Layout,
}

impl GatherProblem {
    fn check(&self) -> Result<Walk> {
        let (axis, data) = (self.axis, &self.data.shape);
        if axis >= data.rank() {
            return Err(Error::op("gather", format!("there is no axis {axis} in {data}")));
        }
        let (outer, inner) = (&data[..axis], &data[axis + 1..]);
        let shape: Shape = [outer, &self.indices.shape, inner].concat().into();
        let elements = shape.checked_elements("gather")?;
        if data[axis] == 0 && elements > 0 {
            return Err(Error::op("gather", format!("axis {axis} of {data} is empty, there is nothing to pick")));
        }
        let (none, picked) = (vec![0; self.indices.shape.rank()], self.data.strides[axis]);
        let strides = [&self.data.strides[..axis], &none, &self.data.strides[axis + 1..]].concat();
        let data = View::whole(&Layout { shape: shape.clone(), strides, offset: self.data.offset });
        let strides = [&vec![0; outer.len()][..], &self.indices.strides, &vec![0; inner.len()]].concat();
        let indices = View::whole(&Layout { shape, strides, offset: self.indices.offset });
        Ok(Walk { elements, data, picked, indices })
    }

    fn needs(&self) -> Result<Needs, String> {
        self.check().map(|_| blocks::needs(3)).map_err(|fault| fault.to_string())
    }
}

/// Data and indices, both as they lie along the output.
struct Walk {
    elements: usize,
    data: View,
    /// The stride of the picked axis.
    picked: isize,
    indices: View,
}

impl Walk {
    /// `fn elements(i: u32) -> vec4<u32>`, and how the data are read.
    fn elements(&self, dtype: DType, size: usize, words: &mut Words) -> (String, How) {
        let lanes = LANES as isize;
        // One slice for all four elements, and a whole block of it.
        let blocks = self.data.how() == How::Blocks && self.indices.how() == How::Same && self.picked % lanes == 0;
        let (data_how, how) = if blocks { (How::Blocks, How::Same) } else { (How::Elements, How::Elements) };
        let size = words.add(size as u32);
        let step = words.add(if blocks { self.picked / lanes } else { self.picked } as u32);
        let Scan { lets, index, .. } = self.indices.scan(how, words);
        let row = format!("{lets}return pick(indices[{index}], {size}) * {step};");
        let Scan { lets, index, .. } = self.data.scan(data_how, words);
        let text = if blocks {
            format!(
                "fn elements(i: u32) -> vec4<u32> {{ {lets}let w = data[{index} + slice(i)]; return {}; }}\n\
                 fn slice(i: u32) -> u32 {{ {row} }}",
                unpack(dtype, Word::Bits32)
            )
        } else {
            format!(
                "fn elements(i: u32) -> vec4<u32> {{ {} }}\n\
                 fn element(e: u32) -> u32 {{ {lets}let k = {index} + slice(e); return {}; }}\n\
                 fn slice(e: u32) -> u32 {{ {row} }}",
                each_element(|_, e| format!("element({e})")),
                fetch("data", "k", dtype)
            )
        };
        (text, data_how)
    }
}

const PLAIN: Only = blocks::only("gather");

impl Problem for GatherProblem {
    fn family(&self) -> &'static str {
        PLAIN.family
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        PLAIN.candidates(self.needs(), profile)
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        let walk = self.check()?;
        PLAIN.check(variant, self.needs(), profile)?;
        let mut words = Words::default();
        let (elements, data_how) = walk.elements(self.dtype, self.data.shape[self.axis], &mut words);
        let source = Specialization::new("gather::plain")
            .ty("data_block", data_how.block(self.dtype, Word::Bits32))
            .function("elements", elements);
        let indices = touched(&self.indices) * DType::I32.bytes() as u64;
        let launch = Blocks {
            family: PLAIN.family,
            label: variant,
            source,
            bindings: vec![
                Binding::read(Operand::Input(0)),
                Binding::read(Operand::Input(1)),
                Binding::write(Operand::Output(0)),
            ],
            words,
            dtype: self.dtype,
            elements: walk.elements,
            word: Word::Bits32,
            loads: 2 * data_how.loads(),
            flops: 0,
            bytes: indices + (2 * walk.elements * self.dtype.bytes()) as u64,
        };
        Ok(Kernel { launches: vec![launch.launch(profile)?], workspace: Vec::new() })
    }

    fn summary(&self) -> String {
        format!("{} {} axis {} by {}", self.dtype, self.data.shape, self.axis, self.indices.shape)
    }
}

impl GatherProblem {
    /// Of [`Op::Gather`](crate::graph::Op::Gather).
    pub(super) fn of(axis: usize, operands: &mut Operands) -> Result<Self> {
        let (data, indices) = (operands.layout(0), operands.layout(1));
        Ok(GatherProblem { dtype: operands.dtype(0), data, axis, indices })
    }
}
