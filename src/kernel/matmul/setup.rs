//! A product on a device: what its variants need in common, and the dispatches that they have in common.

use std::sync::Arc;

use super::{
    operands::{Stage, per_word},
    problem::MatmulProblem,
};
use crate::{
    DType, Result,
    kernel::{
        Binding, Kernel, Launch, Operand, Parameters, Profile, Source, buffer_bytes, fold_grid,
        variant::{self, Needs},
    },
};

/// A product on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup<'a> {
    pub(super) problem: &'a MatmulProblem,
    pub(super) profile: &'a Profile,
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = "matmul";

    fn profile(&self) -> &Profile {
        self.profile
    }
}

/// Workgroups that occupy a large GPU; with fewer, smaller tiles or cut sums do better.
pub(super) const FULL: usize = 128;
/// Invocations of a workgroup where the shader has no other wish.
pub(super) const WG: usize = 64;
/// Rounds of loops beside those over K, at the most: entering and leaving, sums over slices.
const REST: u64 = 128;

/// Rounds of all loops of an invocation, of which so many are over K.
pub(super) fn rounds(of_k: usize) -> u64 {
    of_k as u64 + REST
}

impl Setup<'_> {
    /// What every variant needs that writes the result by quads of columns: something to sum, in so many rounds of loops over
    /// K; and memory for the sums where no quad has words of its own.
    pub(super) fn needs(&self, of_k: usize) -> Result<Needs, String> {
        let k = self.problem.k;
        if k == 0 {
            return Err("K = 0: there is nothing to sum".into());
        }
        let workspace = match self.problem.stage() {
            Stage::Sums => self.sums_bytes(k),
            Stage::Result => 0,
        };
        Ok(Needs { workspace, rounds: rounds(of_k), ..Needs::default() })
    }

    /// Bytes of the sums of `terms` terms each, in f32.
    pub(super) fn sums_bytes(&self, terms: usize) -> u64 {
        buffer_bytes(DType::F32, self.problem.k.div_ceil(terms).saturating_mul(self.problem.elements()))
    }

    /// A dispatch that writes the result by quads, or one that writes the sums and one that makes the result of them. A
    /// workgroup takes `part` of the axis that is cut: see the shaders' `part`.
    pub(super) fn kernel(
        &self,
        name: &'static str,
        source: Arc<Source>,
        workgroups: usize,
        part: usize,
    ) -> Result<Kernel> {
        match self.problem.stage() {
            Stage::Sums => self.summed(name, source, workgroups, part, self.problem.k),
            Stage::Result => self.result(name, source, workgroups, part),
        }
    }

    /// A dispatch that writes the result.
    pub(super) fn result(
        &self,
        name: &'static str,
        source: Arc<Source>,
        workgroups: usize,
        part: usize,
    ) -> Result<Kernel> {
        let bindings = [self.problem.factor_bindings(), self.problem.result_bindings()].concat();
        let parameters = self.problem.parameters(part, self.problem.scale);
        let launch = self.launch(name.into(), source, bindings, &parameters, workgroups)?;
        Ok(Kernel { launches: vec![launch], workspace: Vec::new() })
    }

    /// A dispatch that writes sums of `terms` terms each to memory, and one that adds them up.
    pub(super) fn summed(
        &self,
        name: &'static str,
        source: Arc<Source>,
        workgroups: usize,
        part: usize,
        terms: usize,
    ) -> Result<Kernel> {
        let (problem, bytes, sums) = (self.problem, self.sums_bytes(terms), Operand::Workspace(0));
        let bindings = [problem.factor_bindings(), vec![Binding::write(sums)]].concat();
        // The scale comes with the rest of the epilogue.
        let parameters = problem.parameters(part, 1.0);
        let product = self.launch(format!("{name}: product"), source, bindings, &parameters, workgroups)?;
        let source = problem.flat("matmul::reduce").source()?;
        let bindings = [vec![Binding::read(sums)], problem.result_bindings()].concat();
        let workgroups = problem.elements().div_ceil(per_word(problem.out)).div_ceil(WG);
        let parameters = problem.parameters(terms, problem.scale);
        let sum = self.launch(format!("{name}: sum"), source, bindings, &parameters, workgroups)?;
        let sum = Launch { flops: 0, bytes, ..sum };
        Ok(Kernel { launches: vec![product, sum], workspace: vec![bytes] })
    }

    fn launch(
        &self,
        label: String,
        source: Arc<Source>,
        bindings: Vec<Binding>,
        parameters: &Parameters,
        workgroups: usize,
    ) -> Result<Launch> {
        Ok(Launch {
            label,
            params: source.words(parameters)?,
            source,
            bindings,
            grid: fold_grid(workgroups as u64, self.profile, "matmul")?,
            flops: 2 * self.problem.multiplications(),
            exponentials: 0,
            bytes: self.problem.bytes(),
        })
    }
}
