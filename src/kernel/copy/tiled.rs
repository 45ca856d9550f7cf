//! The copy of a transposed view through workgroup memory.

use super::CopyProblem;
use crate::{
    DType, Result,
    kernel::{
        Binding, Kernel, Launch, Operand, Profile, Specialization, fold_grid,
        strided::{self, Axis, Scan, View, Words},
    },
};

const TILE: usize = 32;
const ROWS: usize = 8;

/// A transposed view cut into tiles.
pub(super) struct Tiles {
    dtype: DType,
    /// Where element 0 is.
    offset: isize,
    /// The axis along which the view is dense.
    t: Axis,
    /// The last axis of the output.
    j: Axis,
    /// Elements of the output from one of `t` to the next.
    row: usize,
    /// The other axes, and the steps of each in the output.
    rest: Vec<(Axis, usize)>,
}

impl Tiles {
    /// An error says why there are no tiles.
    pub(super) fn new(problem: &CopyProblem, profile: &Profile) -> Result<Self, String> {
        let limits = &profile.limits;
        let (bytes, invocations) = ((TILE * (TILE + 1) * 4) as u32, (TILE * ROWS) as u32);
        if limits.workgroup_bytes < bytes {
            return Err(format!("{bytes} bytes of workgroup memory (the limit is {})", limits.workgroup_bytes));
        }
        if limits.workgroup_invocations.min(limits.workgroup_size_x) < invocations {
            return Err(format!("{invocations} invocations (the limit is {})", limits.workgroup_invocations));
        }
        let View { axes, offset } = View::whole(&problem.input);
        let Some((&j, outer)) = axes.split_last() else { return Err("a single element".into()) };
        let Some(dense) = outer.iter().position(|axis| axis.stride == 1) else {
            return Err("the view is not transposed: no axis but the last is dense".into());
        };
        let per_word = 4 / problem.dtype.bytes();
        if !j.size.is_multiple_of(per_word) {
            return Err(format!("rows of {} {} are not whole words", j.size, problem.dtype));
        }
        let mut row = j.size;
        let mut steps = vec![0; outer.len()];
        for (axis, step) in outer.iter().zip(&mut steps).rev() {
            *step = row;
            row *= axis.size;
        }
        let rest = outer.iter().copied().zip(steps.iter().copied()).enumerate();
        let rest = rest.filter(|(n, _)| *n != dense).map(|(_, axis)| axis).collect();
        Ok(Tiles { dtype: problem.dtype, offset, t: outer[dense], j, row: steps[dense], rest })
    }

    /// Whether both axes fill a good part of a tile.
    pub(super) fn pays(&self) -> bool {
        self.t.size.min(self.j.size) >= TILE / 2
    }

    pub(super) fn kernel(&self, profile: &Profile) -> Result<Kernel> {
        let (bytes, per_word) = (self.dtype.bytes(), 4 / self.dtype.bytes());
        let slices: usize = self.rest.iter().map(|(axis, _)| axis.size).product();
        let (tiles_t, tiles_j) = (self.t.size.div_ceil(TILE), self.j.size.div_ceil(TILE));
        let tiles = slices * tiles_t * tiles_j;
        let mut words = Words::default();
        let mut base = |name: &str, offset: isize, stride: fn(Axis, isize) -> isize, per: usize| {
            let axis = |&(axis, step): &(Axis, usize)| Axis { stride: stride(axis, (step / per) as isize), ..axis };
            let axes: Vec<Axis> = self.rest.iter().map(axis).collect();
            let Scan { lets, index, .. } = Scan::new(&axes, offset, "i", &mut words);
            format!("fn {name}(i: u32) -> u32 {{ {lets}return {index}; }}")
        };
        let read_base = base("read_base", self.offset, |axis, _| axis.stride, 1);
        let write_base = base("write_base", 0, |_, step| step, per_word);
        let column = |n: usize| match n {
            0 => "tile[k]".into(),
            n => format!("(tile[k + {}u] << {}u)", n * (TILE + 1), 8 * bytes * n),
        };
        let columns: Vec<String> = (0..per_word).map(column).collect();
        let source = Specialization::new("copy_tiled", include_str!("../../../shaders/copy_tiled.wgsl"))
            .value("TILE", TILE)
            .value("ROWS", ROWS)
            .value("PER", per_word)
            .value("WORDS", words.vectors())
            .function(
                "fetch",
                format!("fn fetch(k: u32) -> u32 {{ return {}; }}", strided::fetch("x", "k", self.dtype)),
            )
            .function("read_base", read_base)
            .function("write_base", write_base)
            .function("join", format!("fn join(k: u32) -> u32 {{ return {}; }}", columns.join(" | ")))
            .source()?;
        let mut params = vec![tiles as u32, tiles_t as u32, tiles_j as u32, 0];
        params.extend([self.t.size, self.j.size, self.j.stride as usize, self.row / per_word].map(|n| n as u32));
        params.extend(words.padded());
        Ok(Kernel {
            launches: vec![Launch {
                label: "tiled".into(),
                source,
                bindings: vec![Binding::read(Operand::Input(0)), Binding::write(Operand::Output(0))],
                params,
                grid: fold_grid(tiles as u64, profile, "copy")?,
                flops: 0,
                bytes: (2 * slices * self.t.size * self.j.size * bytes) as u64,
            }],
            scratch: Vec::new(),
        })
    }
}
