//! A transposed view through tiles in workgroup memory.

use super::transposed::{Setup, TILE, base};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel, Parameters, Specialization,
        access::{
            bits::fetch,
            strided::{Span, Words},
        },
        fold_grid,
        variant::{Needs, Variant},
    },
};

/// Rows of a tile that a workgroup reads together.
const ROWS: usize = 8;

pub(super) struct Tiled;

impl Variant<Setup<'_>> for Tiled {
    fn name(&self) -> &'static str {
        "tiled"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu if setup.fills_tiles() => 10,
            AdapterKind::Gpu | AdapterKind::Cpu => 30,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "reads and writes neighbours, through workgroup memory".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let view = setup.view.as_ref().map_err(Clone::clone)?;
        if !view.j.size.is_multiple_of(4 / view.dtype.bytes()) {
            return Err(format!("rows of {} {} are not whole words", view.j.size, view.dtype));
        }
        let workgroup_bytes = (TILE * (TILE + 1) * 4) as u64;
        Ok(Needs { invocations: (TILE * ROWS) as u64, workgroup_bytes, ..Needs::default() })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let view = setup.transposed()?;
        let (bytes, per_word) = (view.dtype.bytes(), 4 / view.dtype.bytes());
        let (tiles_t, tiles_j) = (view.t.size.div_ceil(TILE), view.j.size.div_ceil(TILE));
        let tiles = view.slices() * tiles_t * tiles_j;
        let mut words = Words::default();
        let read_axes: Vec<Span> = view.rest.iter().map(|&(axis, _)| axis).collect();
        let write = |&(axis, step): &(Span, usize)| Span { stride: (step / per_word) as isize, ..axis };
        let write_axes: Vec<Span> = view.rest.iter().map(write).collect();
        let column = |n: usize| match n {
            0 => "tile[k]".into(),
            n => format!("(tile[k + {}u] << {}u)", n * (TILE + 1), 8 * bytes * n),
        };
        let columns: Vec<String> = (0..per_word).map(column).collect();
        let source = Specialization::new("copy::tiled")
            .value("TILE", TILE)
            .value("ROWS", ROWS)
            .value("PER", per_word)
            .function("fetch", format!("fn fetch(k: u32) -> u32 {{ return {}; }}", fetch("x", "k", view.dtype)))
            .function("read_base", base("read_base", &read_axes, view.offset, &mut words))
            .function("write_base", base("write_base", &write_axes, 0, &mut words))
            .function("join", format!("fn join(k: u32) -> u32 {{ return {}; }}", columns.join(" | ")));
        let parameters = Parameters::new()
            .set("tiles", tiles)
            .set("tiles_t", tiles_t)
            .set("tiles_j", tiles_j)
            .set("size_t", view.t.size)
            .set("size_j", view.j.size)
            .set("step", view.j.stride)
            .set("row", view.row / per_word);
        let grid = fold_grid(tiles as u64, setup.profile, "copy")?;
        view.launch(self.name(), source, parameters, words, grid)
    }
}
