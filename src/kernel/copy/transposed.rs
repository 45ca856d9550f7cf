//! Copies of transposed views, by tiles in workgroup memory or by squares in registers.

use super::CopyProblem;
use crate::{
    DType, Result,
    kernel::{
        AdapterKind, Binding, Kernel, Launch, Operand, Profile, Specialization, fold_grid,
        strided::{self, Axis, LANES, Scan, View, Word, Words},
    },
};

const TILE: usize = 32;
const ROWS: usize = 8;
const WORKGROUP: usize = 64;

/// A view that is dense along another axis than the last.
pub(super) struct Transposed {
    dtype: DType,
    /// Where element 0 is.
    offset: isize,
    /// The axis along which the view is dense.
    t: Axis,
    /// The last axis of the output.
    j: Axis,
    /// Elements of the output from one of `t` to the next.
    row: usize,
    /// The other axes, and the step of each in the output.
    rest: Vec<(Axis, usize)>,
}

impl Transposed {
    /// An error says why the view is none.
    pub(super) fn new(problem: &CopyProblem) -> Result<Self, String> {
        const PLAIN: &str = "the view is not transposed: no axis but the last is dense";
        problem.input.shape.checked_elements("copy").map_err(|error| error.to_string())?;
        let View { axes, offset } = View::whole(&problem.input);
        let (&j, outer) = axes.split_last().ok_or(PLAIN)?;
        let dense = outer.iter().position(|axis| axis.stride == 1).ok_or(PLAIN)?;
        let mut step = j.size;
        let mut rest: Vec<(Axis, usize)> = Vec::with_capacity(outer.len());
        for &axis in outer.iter().rev() {
            rest.push((axis, step));
            step *= axis.size;
        }
        rest.reverse();
        let (t, row) = rest.remove(dense);
        Ok(Transposed { dtype: problem.dtype, offset, t, j, row, rest })
    }

    /// Whether both axes fill a good part of a tile.
    pub(super) fn fills_tiles(&self) -> bool {
        self.t.size.min(self.j.size) >= TILE / 2
    }

    /// Why the device can't take tiles.
    pub(super) fn refuses_tiles(&self, profile: &Profile) -> Option<String> {
        let limits = &profile.limits;
        let (bytes, invocations) = ((TILE * (TILE + 1) * 4) as u32, (TILE * ROWS) as u32);
        if limits.workgroup_bytes < bytes {
            return Some(format!("{bytes} bytes of workgroup memory (the limit is {})", limits.workgroup_bytes));
        }
        if limits.workgroup_invocations.min(limits.workgroup_size_x) < invocations {
            return Some(format!("{invocations} invocations (the limit is {})", limits.workgroup_invocations));
        }
        let whole_words = self.j.size.is_multiple_of(4 / self.dtype.bytes());
        (!whole_words).then(|| format!("rows of {} {} are not whole words", self.j.size, self.dtype))
    }

    /// Why the view has no squares.
    pub(super) fn refuses_squares(&self, _: &Profile) -> Option<String> {
        let in_blocks = |n: isize| n % LANES as isize == 0;
        let strides = self.rest.iter().map(|(axis, _)| axis.stride);
        let whole =
            strides.chain([self.offset, self.j.stride, self.j.size as isize, self.t.size as isize]).all(in_blocks);
        (!whole).then(|| "sizes, strides and offset are not all multiples of 4".into())
    }

    /// Through workgroup memory.
    pub(super) fn tiled(&self, profile: &Profile) -> Result<Kernel> {
        let (bytes, per_word) = (self.dtype.bytes(), 4 / self.dtype.bytes());
        let (tiles_t, tiles_j) = (self.t.size.div_ceil(TILE), self.j.size.div_ceil(TILE));
        let tiles = self.slices() * tiles_t * tiles_j;
        let mut words = Words::default();
        let read_axes: Vec<Axis> = self.rest.iter().map(|&(axis, _)| axis).collect();
        let write = |&(axis, step): &(Axis, usize)| Axis { stride: (step / per_word) as isize, ..axis };
        let write_axes: Vec<Axis> = self.rest.iter().map(write).collect();
        let column = |n: usize| match n {
            0 => "tile[k]".into(),
            n => format!("(tile[k + {}u] << {}u)", n * (TILE + 1), 8 * bytes * n),
        };
        let columns: Vec<String> = (0..per_word).map(column).collect();
        let source = Specialization::new("copy::tiled")
            .value("TILE", TILE)
            .value("ROWS", ROWS)
            .value("PER", per_word)
            .function(
                "fetch",
                format!("fn fetch(k: u32) -> u32 {{ return {}; }}", strided::fetch("x", "k", self.dtype)),
            )
            .function("read_base", base("read_base", &read_axes, self.offset, &mut words))
            .function("write_base", base("write_base", &write_axes, 0, &mut words))
            .function("join", format!("fn join(k: u32) -> u32 {{ return {}; }}", columns.join(" | ")));
        let head = [tiles, tiles_t, tiles_j, 0, self.t.size, self.j.size, self.j.stride as usize, self.row / per_word];
        self.launch("tiled", source, &head, words, fold_grid(tiles as u64, profile, "copy")?)
    }

    /// Through registers.
    pub(super) fn squares(&self, profile: &Profile) -> Result<Kernel> {
        let lanes = LANES as isize;
        let (t, j) = (self.t.size / LANES, self.j.size / LANES);
        let squares = self.slices() * t * j;
        // Squares are numbered tile by tile. A software adapter's threads write long runs, of what stays in the cache once it
        // is read; neighbouring lanes of a GPU fill whole lines on both sides.
        let (tile_t, tile_j) = match profile.kind {
            AdapterKind::Cpu => (1, divisor(j, 64)),
            AdapterKind::Gpu => (divisor(t, 8), divisor(j, 8)),
        };
        let square = |size: usize, stride: isize| Axis { size, stride, start: 0, len: size };
        let within = |squares: usize, tile: usize, stride: isize| {
            [square(squares / tile, tile as isize * stride), square(tile, stride)]
        };
        let axes = |rest: fn(&(Axis, usize)) -> isize, along_t: isize, along_j: isize| -> Vec<Axis> {
            let rest = self.rest.iter().map(|axis| square(axis.0.size, rest(axis) / lanes));
            let ([far_t, near_t], [far_j, near_j]) = (within(t, tile_t, along_t), within(j, tile_j, along_j));
            rest.chain([far_j, far_t, near_j, near_t]).collect()
        };
        let read_axes = axes(|axis| axis.0.stride, 1, self.j.stride);
        let write_axes = axes(|axis| axis.1 as isize, self.row as isize, 1);
        let mut words = Words::default();
        let source = Specialization::new("copy::square")
            .value("WORKGROUP", WORKGROUP)
            .ty("block", strided::block(self.dtype, Word::Bits32))
            .function("pack", strided::pack(self.dtype, Word::Bits32))
            .function(
                "unpack",
                format!("fn unpack(w: block) -> vec4<u32> {{ return {}; }}", strided::unpack(self.dtype, Word::Bits32)),
            )
            .function("read_base", base("read_base", &read_axes, self.offset / lanes, &mut words))
            .function("write_base", base("write_base", &write_axes, 0, &mut words));
        let head = [squares, (self.j.stride / lanes) as usize, self.row / LANES, 0];
        let grid = fold_grid((squares as u64).div_ceil(WORKGROUP as u64), profile, "copy")?;
        self.launch("square", source, &head, words, grid)
    }

    /// Elements of the axes that are not transposed.
    fn slices(&self) -> usize {
        self.rest.iter().map(|(axis, _)| axis.size).product()
    }

    fn launch(
        &self,
        label: &str,
        source: Specialization,
        head: &[usize],
        words: Words,
        grid: [u32; 3],
    ) -> Result<Kernel> {
        let source = source.value("WORDS", words.vectors()).source()?;
        let mut params: Vec<u32> = head.iter().map(|&n| n as u32).collect();
        params.extend(words.padded());
        let elements = self.slices() * self.t.size * self.j.size;
        Ok(Kernel {
            launches: vec![Launch {
                label: label.into(),
                source,
                bindings: vec![Binding::read(Operand::Input(0)), Binding::write(Operand::Output(0))],
                params,
                grid,
                flops: 0,
                exponentials: 0,
                bytes: (2 * elements * self.dtype.bytes()) as u64,
            }],
            scratch: Vec::new(),
        })
    }
}

/// The largest divisor of `n` that is at most `most`.
fn divisor(n: usize, most: usize) -> usize {
    (1..=most).rev().find(|&d| n.is_multiple_of(d)).unwrap_or(1)
}

/// The function that finds the place of number `i` among these axes.
fn base(name: &str, axes: &[Axis], offset: isize, words: &mut Words) -> String {
    let Scan { lets, index, .. } = Scan::new(axes, offset, "i", words);
    format!("fn {name}(i: u32) -> u32 {{ {lets}return {index}; }}")
}
