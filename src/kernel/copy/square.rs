//! A transposed view by squares of four times four elements in registers.

use super::transposed::{Setup, base};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel, Parameters, Specialization,
        access::{
            bits::{LANES, Word, block, pack, unpack},
            strided::{Span, Words},
        },
        fold_grid,
        variant::{Needs, Variant},
    },
};

const WORKGROUP: usize = 64;

pub(super) struct Square;

impl Variant<Setup<'_>> for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu => 20,
            AdapterKind::Cpu => 10,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "reads and writes whole blocks".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let view = setup.view.as_ref().map_err(Clone::clone)?;
        let in_blocks = |n: isize| n % LANES as isize == 0;
        let strides = view.rest.iter().map(|(axis, _)| axis.stride);
        let whole =
            strides.chain([view.offset, view.j.stride, view.j.size as isize, view.t.size as isize]).all(in_blocks);
        if !whole {
            return Err("sizes, strides and offset are not all multiples of 4".into());
        }
        Ok(Needs { invocations: WORKGROUP as u64, ..Needs::default() })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let view = setup.transposed()?;
        let lanes = LANES as isize;
        let (t, j) = (view.t.size / LANES, view.j.size / LANES);
        let squares = view.slices() * t * j;
        // Squares are numbered tile by tile. A software adapter's threads write long runs, of what stays in the cache once it
        // is read; neighbouring lanes of a GPU fill whole lines on both sides.
        let (tile_t, tile_j) = match setup.profile.kind {
            AdapterKind::Cpu => (1, divisor(j, 64)),
            AdapterKind::Gpu => (divisor(t, 8), divisor(j, 8)),
        };
        let square = |size: usize, stride: isize| Span { size, stride, start: 0, len: size };
        let within = |squares: usize, tile: usize, stride: isize| {
            [square(squares / tile, tile as isize * stride), square(tile, stride)]
        };
        let axes = |rest: fn(&(Span, usize)) -> isize, along_t: isize, along_j: isize| -> Vec<Span> {
            let rest = view.rest.iter().map(|axis| square(axis.0.size, rest(axis) / lanes));
            let ([far_t, near_t], [far_j, near_j]) = (within(t, tile_t, along_t), within(j, tile_j, along_j));
            rest.chain([far_j, far_t, near_j, near_t]).collect()
        };
        let read_axes = axes(|axis| axis.0.stride, 1, view.j.stride);
        let write_axes = axes(|axis| axis.1 as isize, view.row as isize, 1);
        let mut words = Words::default();
        let four = unpack(view.dtype, Word::Bits32);
        let source = Specialization::new("copy::square")
            .value("WORKGROUP", WORKGROUP)
            .ty("block", block(view.dtype, Word::Bits32))
            .function("pack", pack(view.dtype, Word::Bits32))
            .function("unpack", format!("fn unpack(w: block) -> vec4<u32> {{ return {four}; }}"))
            .function("read_base", base("read_base", &read_axes, view.offset / lanes, &mut words))
            .function("write_base", base("write_base", &write_axes, 0, &mut words));
        let parameters =
            Parameters::new().set("squares", squares).set("step", view.j.stride / lanes).set("row", view.row / LANES);
        let grid = fold_grid((squares as u64).div_ceil(WORKGROUP as u64), setup.profile, "copy")?;
        view.launch(self.name(), source, parameters, words, grid)
    }
}

/// The largest divisor of `n` that is at most `most`.
fn divisor(n: usize, most: usize) -> usize {
    (1..=most).rev().find(|&d| n.is_multiple_of(d)).unwrap_or(1)
}
