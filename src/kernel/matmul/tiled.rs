//! Tiles in workgroup memory, for GPUs.

use std::sync::Arc;

use super::{
    operands::Stage,
    problem::MatmulProblem,
    setup::{FULL, Setup},
};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel, Source,
        variant::{Needs, Variant},
    },
};

/// A tile shape of `tiled.wesl`; see there.
#[derive(Debug)]
pub(super) struct Tile {
    name: &'static str,
    reason: &'static str,
    bm: usize,
    bn: usize,
    kq: usize,
    tm: usize,
    tq: usize,
}

pub(super) const LARGE: Tile = Tile {
    name: "tiled_128x128",
    reason: "the most work per byte, where its tiles occupy the GPU",
    bm: 128,
    bn: 128,
    kq: 2,
    tm: 8,
    tq: 2,
};

pub(super) const MEDIUM: Tile = Tile {
    name: "tiled_64x64",
    reason: "where larger tiles would leave the GPU idle",
    bm: 64,
    bn: 64,
    kq: 4,
    tm: 4,
    tq: 1,
};

pub(super) const SMALL: Tile =
    Tile { name: "tiled_32x32", reason: "for small results", bm: 32, bn: 32, kq: 4, tm: 4, tq: 1 };

impl Tile {
    fn invocations(&self) -> usize {
        self.bm / self.tm * (self.bn / 4 / self.tq)
    }

    /// BK: terms of a tile.
    pub(super) fn bk(&self) -> usize {
        4 * self.kq
    }

    /// Tiles of all products.
    pub(super) fn count(&self, problem: &MatmulProblem) -> usize {
        problem.tiles(self.bm, self.bn)
    }

    /// Whether there are too few tiles to occupy a GPU.
    pub(super) fn idles(&self, problem: &MatmulProblem) -> bool {
        self.count(problem) < FULL
    }

    /// These needs, and what a workgroup takes: as the shader's `tile_a` and `tile_b`.
    pub(super) fn with_workgroup(&self, needs: Needs) -> Needs {
        let quads = self.bm * (self.kq + 1) + self.kq * self.bn;
        Needs { invocations: self.invocations() as u64, workgroup_bytes: 16 * quads as u64, ..needs }
    }

    pub(super) fn source(&self, problem: &MatmulProblem, stage: Stage) -> Result<Arc<Source>> {
        let Tile { bm, bn, kq, tm, tq, .. } = *self;
        problem
            .quad_slots("matmul::tiled", stage)
            .value("BM", bm)
            .value("BN", bn)
            .value("KQ", kq)
            .value("TM", tm)
            .value("TQ", tq)
            .value("LA", bm * kq / self.invocations())
            .value("LB", kq * bn / self.invocations())
            .region("A_BY_M", problem.a.row == 1)
            .region("B_BY_K", problem.b_dense_by_k())
            .region("TAIL", !problem.k.is_multiple_of(self.bk()))
            .trusted()
            .source()
    }
}

impl Variant<Setup<'_>> for Tile {
    fn name(&self) -> &'static str {
        self.name
    }

    /// On GPUs, the largest tiles that occupy it, then those nearest to it.
    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu if !self.idles(setup.problem) => 30,
            AdapterKind::Gpu => 40 + self.bn as u32,
            AdapterKind::Cpu => 100,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        self.reason.into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        Ok(self.with_workgroup(setup.needs(setup.problem.k / 4)?))
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let problem = setup.problem;
        setup.kernel(self.name, self.source(problem, problem.stage())?, self.count(problem), problem.k)
    }
}
