//! Copies of transposed views: where such a view lies, and what its variants have in common.

use super::problem::CopyProblem;
use crate::{
    DType, Error, Result,
    kernel::{
        Binding, Kernel, Launch, Operand, Parameters, Profile, Specialization,
        access::strided::{Scan, Span, View, Words},
        variant,
    },
};

/// A copy on a device.
pub(super) struct Setup<'a> {
    pub(super) problem: &'a CopyProblem,
    /// The view, or why it isn't transposed.
    pub(super) view: Result<Transposed, String>,
    pub(super) profile: &'a Profile,
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = "copy";

    fn profile(&self) -> &Profile {
        self.profile
    }
}

impl<'a> Setup<'a> {
    pub(super) fn new(problem: &'a CopyProblem, profile: &'a Profile) -> Self {
        Setup { problem, view: Transposed::new(problem), profile }
    }

    /// The view, if it is transposed.
    pub(super) fn transposed(&self) -> Result<&Transposed> {
        self.view.as_ref().map_err(|reason| Error::op("copy", reason))
    }

    /// Whether both axes of a transposed view fill a good part of a tile.
    pub(super) fn fills_tiles(&self) -> bool {
        self.view.as_ref().is_ok_and(|view| view.t.size.min(view.j.size) >= TILE / 2)
    }
}

/// Rows and columns of a tile in workgroup memory.
pub(super) const TILE: usize = 32;

/// A view that is dense along another axis than the last.
pub(super) struct Transposed {
    pub(super) dtype: DType,
    /// Where element 0 is.
    pub(super) offset: isize,
    /// The axis along which the view is dense.
    pub(super) t: Span,
    /// The last axis of the output.
    pub(super) j: Span,
    /// Elements of the output from one of `t` to the next.
    pub(super) row: usize,
    /// The other axes, and the step of each in the output.
    pub(super) rest: Vec<(Span, usize)>,
}

impl Transposed {
    /// An error says why the view is none.
    fn new(problem: &CopyProblem) -> Result<Self, String> {
        const PLAIN: &str = "the view is not transposed: no axis but the last is dense";
        problem.input.shape.checked_elements("copy").map_err(|error| error.to_string())?;
        let View { axes, offset } = View::whole(&problem.input);
        let (&j, outer) = axes.split_last().ok_or(PLAIN)?;
        let dense = outer.iter().position(|axis| axis.stride == 1).ok_or(PLAIN)?;
        let mut step = j.size;
        let mut rest: Vec<(Span, usize)> = Vec::with_capacity(outer.len());
        for &axis in outer.iter().rev() {
            rest.push((axis, step));
            step *= axis.size;
        }
        rest.reverse();
        let (t, row) = rest.remove(dense);
        Ok(Transposed { dtype: problem.dtype, offset, t, j, row, rest })
    }

    /// Elements of the axes that are not transposed.
    pub(super) fn slices(&self) -> usize {
        self.rest.iter().map(|(axis, _)| axis.size).product()
    }

    /// A dispatch of a shader that lacks its words, whose other parameters these are.
    pub(super) fn launch(
        &self,
        label: &str,
        source: Specialization,
        parameters: Parameters,
        words: Words,
        grid: [u32; 3],
    ) -> Result<Kernel> {
        let source = source.value("WORDS", words.vectors()).source()?;
        let elements = self.slices() * self.t.size * self.j.size;
        let launch = Launch {
            label: label.into(),
            params: source.words(&parameters.set_words("words", words.padded()))?,
            source,
            bindings: vec![Binding::read(Operand::Input(0)), Binding::write(Operand::Output(0))],
            grid,
            flops: 0,
            exponentials: 0,
            bytes: (2 * elements * self.dtype.bytes()) as u64,
        };
        Ok(Kernel { launches: vec![launch], workspace: Vec::new() })
    }
}

/// The function that finds the place of number `i` among these axes.
pub(super) fn base(name: &str, axes: &[Span], offset: isize, words: &mut Words) -> String {
    let Scan { lets, index, .. } = Scan::new(axes, offset, "i", words);
    format!("fn {name}(i: u32) -> u32 {{ {lets}return {index}; }}")
}
