//! The dispatches of each variant.

use std::sync::Arc;

use super::{
    Axis, MatmulProblem, View,
    coop::Coop,
    slots::Stage,
    variant::{self, MEDIUM, Panel, Share, Variant},
};
use crate::{
    DType, Error, Result,
    kernel::{Binding, Kernel, Launch, Operand, Profile, Source, buffer_bytes, fold_grid},
};

impl Variant {
    /// The dispatches, or why there can be none.
    pub(super) fn kernel(self, problem: &MatmulProblem, profile: &Profile) -> Result<Kernel> {
        let refused =
            |reason: String| Error::NoVariant { family: "matmul", reasons: vec![format!("{}: {reason}", self.name())] };
        if let Some(reason) = self.refusal(problem, profile) {
            return Err(refused(reason));
        }
        let plan = Plan { problem, profile, name: self.name(), stage: problem.stage() };
        match self {
            Variant::Plain => {
                let source = problem.flat_product("matmul::plain").source()?;
                let invocations = problem.elements().div_ceil(variant::per_word(problem.out));
                // Its invocations own whole words of the result whatever its rows are.
                Plan { stage: Stage::Result, ..plan }.kernel(source, invocations.div_ceil(WG), problem.k)
            }
            Variant::Register => {
                const ROWS: usize = 8;
                let source = problem
                    .squares("matmul::register")
                    .value("TM", ROWS)
                    .region("TAIL", !problem.k.is_multiple_of(4))
                    .source()?;
                let tiles = problem.products() * problem.m.div_ceil(ROWS) * problem.n.div_ceil(4);
                plan.kernel(source, tiles.div_ceil(WG), problem.k)
            }
            Variant::Tiled(tile) => plan.kernel(problem.tiled(tile, plan.stage)?, tile.count(problem), problem.k),
            Variant::Coop(size) => {
                let coop = Coop::of(size, problem, profile).map_err(refused)?;
                plan.kernel(coop.source(problem, plan.stage)?, coop.count(problem), problem.k)
            }
            Variant::SplitK => {
                let part = problem.split();
                let parts = problem.k.div_ceil(part);
                plan.summed(problem.tiled(&MEDIUM, Stage::Sums)?, parts * MEDIUM.count(problem), part, part)
            }
            Variant::Vec => {
                let (rows, slices) = problem.vec_shape();
                let strips = problem.vec_strips(4 * variant::VEC_QUADS);
                let source = problem
                    .squares("matmul::vec")
                    .value("TM", rows)
                    .value("QUADS", variant::VEC_QUADS)
                    .value("SLICES", slices)
                    .region("BY_K", problem.b_dense_by_k())
                    .region("TAIL", !problem.k.is_multiple_of(4))
                    .trusted()
                    .source()?;
                plan.kernel(source, strips, problem.k)
            }
            Variant::Subgroup => plan.subgroup(),
            Variant::Panel(panel) => plan.panel(panel),
        }
    }
}

/// Invocations of a workgroup where the shader has no other wish.
const WG: usize = variant::WG as usize;

/// A variant for a problem on a device, and what its first dispatch writes.
#[derive(Clone, Copy)]
struct Plan<'a> {
    problem: &'a MatmulProblem,
    profile: &'a Profile,
    name: &'static str,
    stage: Stage,
}

impl Plan<'_> {
    /// A dispatch that writes the result, or one that writes the sums and one that makes the result of them.
    fn kernel(self, source: Arc<Source>, workgroups: usize, part: usize) -> Result<Kernel> {
        match self.stage {
            Stage::Sums => self.summed(source, workgroups, part, self.problem.k),
            Stage::Result => {
                let bindings = [self.problem.factor_bindings(), self.problem.result_bindings()].concat();
                let launch = self.launch(self.name.into(), source, bindings, part, workgroups)?;
                Ok(Kernel { launches: vec![launch], scratch: Vec::new() })
            }
        }
    }

    /// Sums of `terms` terms each in scratch memory, and their sum.
    fn summed(self, source: Arc<Source>, workgroups: usize, part: usize, terms: usize) -> Result<Kernel> {
        let Plan { problem, name, .. } = self;
        let bytes = problem.sums_bytes(terms);
        let sums = Operand::Scratch(0);
        let bindings = [problem.factor_bindings(), vec![Binding::write(sums)]].concat();
        let mut product = self.launch(format!("{name}: product"), source, bindings, part, workgroups)?;
        // The scale comes with the rest of the epilogue.
        product.params = MatmulProblem { scale: 1.0, ..problem.clone() }.params(part);
        let source = problem.flat("matmul::reduce").source()?;
        let invocations = problem.elements().div_ceil(variant::per_word(problem.out));
        let bindings = [vec![Binding::read(sums)], problem.result_bindings()].concat();
        let sum = self.launch(format!("{name}: sum"), source, bindings, terms, invocations.div_ceil(WG))?;
        let sum = Launch { flops: 0, bytes, ..sum };
        Ok(Kernel { launches: vec![product, sum], scratch: vec![bytes] })
    }

    fn subgroup(self) -> Result<Kernel> {
        let Plan { problem, profile, .. } = self;
        let Some(lanes) = profile.fixed_subgroup() else {
            return Err(Error::op("matmul", "subgroups have no one size"));
        };
        let rows = problem.vec_rows();
        let columns = variant::subgroup_columns(rows);
        let width = if problem.b_dense_by_k() { columns } else { 8 * lanes };
        let source = problem
            .subgroup(profile)
            .value("LANES", lanes)
            .value("HALVINGS", lanes.ilog2())
            .value("TM", rows)
            .value("COLUMNS", columns)
            .value("QUADS", columns / 4)
            .value("ROUNDS", (columns / 4).div_ceil(lanes))
            .value("WIDTH", width)
            .region("BY_K", problem.b_dense_by_k())
            .region("TAIL", !problem.k.is_multiple_of(8 * lanes as usize))
            .trusted();
        let strips = problem.vec_strips(width);
        self.kernel(source.source()?, strips, problem.k)
    }

    fn panel(self, shape: &Panel) -> Result<Kernel> {
        let Plan { problem, profile, stage, .. } = self;
        let lanes = match (shape.share, profile.subgroup) {
            (Share::Broadcast, Some((size, _))) => size,
            _ => variant::UNIFORM_LANES,
        };
        let eights = shape.depth(problem, profile) / 8;
        // Sums that several panels add to are kept in f32.
        let sums = stage == Stage::Result && problem.out != DType::F32;
        let several = problem.k > 8 * eights as usize;
        // What no branch keeps from running in each panel.
        let epilogue = stage == Stage::Result && problem.has_epilogue();
        let apart = profile.masks_branches() && several && (sums || epilogue);
        let mut panel = problem.panel(shape, profile);
        if shape.share == Share::Uniform {
            let fused =
                "fn sum(acc: vec4<f32>, x: f32, y: vec4<f32>) -> vec4<f32> { return fma(vec4<f32>(x), y, acc); }";
            panel = panel.function("sum", fused);
        }
        let panel = panel
            .value("LANES", lanes)
            .value("OWN", (eights / lanes).max(1))
            .value("SLICES", eights.min(lanes))
            .value("ROWS", Panel::rows(problem, profile))
            .region("BROADCAST", shape.share == Share::Broadcast)
            .region("UNIFORM", shape.share == Share::Uniform)
            .region("EPILOGUE", epilogue)
            .region("BIAS_ROWS", epilogue && problem.bias.is_some_and(|bias| bias.row != 0))
            .region("SUMS", sums)
            .region("AGAIN", several)
            .region("APART", apart)
            .region("TAIL", !problem.k.is_multiple_of(8 * eights as usize))
            .trusted();
        let strips = problem.products() * problem.n.div_ceil((8 * lanes) as usize);
        let rows = problem.panel_rows(shape, strips, profile);
        let mut kernel = self.kernel(panel.source()?, strips * problem.m.div_ceil(rows), rows)?;
        if sums {
            kernel.launches[0].bindings.push(Binding::write(Operand::Scratch(0)));
            kernel.scratch.push(problem.quads_bytes());
        }
        Ok(kernel)
    }

    fn launch(
        self,
        label: String,
        source: Arc<Source>,
        bindings: Vec<Binding>,
        part: usize,
        workgroups: usize,
    ) -> Result<Launch> {
        let Plan { problem, profile, .. } = self;
        Ok(Launch {
            label,
            source,
            bindings,
            params: problem.params(part),
            grid: fold_grid(workgroups as u64, profile, "matmul")?,
            flops: 2 * problem.elements() as u64 * problem.k as u64,
            exponentials: 0,
            bytes: problem.bytes(),
        })
    }
}

impl MatmulProblem {
    /// Bytes of the sums of `terms` terms each, in f32.
    pub(super) fn sums_bytes(&self, terms: usize) -> u64 {
        buffer_bytes(DType::F32, self.k.div_ceil(terms) * self.elements())
    }

    /// Bytes of the result in f32, each row in whole quads.
    pub(super) fn quads_bytes(&self) -> u64 {
        buffer_bytes(DType::F32, self.products() * self.m * self.n.next_multiple_of(4))
    }

    /// What the product is of: a, b, and the scales and zero points of b's groups.
    fn factor_bindings(&self) -> Vec<Binding> {
        let grouped = self.quantized.filter(|b| b.packing.group.is_some());
        let extra = grouped.map_or(0, |b| 1 + usize::from(b.packing.zero));
        let inputs = self.factors.into_iter().chain(2..2 + extra);
        inputs.map(|i| Binding::read(Operand::Input(i))).collect()
    }

    /// What the result is made of: the scales of b's columns, bias, residual; and the result.
    fn result_bindings(&self) -> Vec<Binding> {
        let packed = self.quantized.map_or(0, |b| 1 + usize::from(b.packing.zero));
        let by_column = self.quantized.filter(|b| b.packing.group.is_none()).map(|_| 2);
        let options = usize::from(self.bias.is_some()) + usize::from(self.residual.is_some());
        let inputs = by_column.into_iter().chain((2 + packed..).take(options));
        let mut bindings: Vec<Binding> = inputs.map(|i| Binding::read(Operand::Input(i))).collect();
        bindings.push(Binding::write(Operand::Output(0)));
        bindings
    }

    /// The words of the shaders' `Params`.
    fn params(&self, part: usize) -> Vec<u32> {
        let sizes = [self.m, self.n, self.k, self.products(), part];
        // Indices are sums modulo 2³², so that negative strides need no sign.
        let word = |stride: isize| stride as u32;
        let mut params: Vec<u32> = sizes.map(|size| size as u32).into();
        params.push(self.scale.to_bits());
        let absent = View { offset: 0, row: 0, column: 0 };
        for view in [self.a, self.b, self.bias.unwrap_or(absent), self.residual.unwrap_or(absent)] {
            params.extend([view.offset as u32, word(view.row), word(view.column)]);
        }
        for &Axis { size, strides } in self.batch.iter().rev() {
            params.push(size as u32);
            params.extend(strides.map(word));
        }
        params
    }
}
