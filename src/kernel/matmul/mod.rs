//! Batched matrix product with broadcast batch axes, any strides, and an epilogue.
//!
//! `out = activation(scale · (a · b) + bias) + residual`, with `a [batch… M K]`, `b [batch… K N]`, `out [batch… M N]`.

mod coop;
mod of;
mod operands;
mod panel;
mod plain;
mod problem;
mod register;
mod setup;
mod split_k;
mod subgroup;
mod tiled;
mod vec;

use super::{
    Candidate, Kernel, Problem, Profile,
    access::matrix::Matrix,
    variant::{self, Variant},
};
use crate::{DType, Result};
use problem::{A, B};
use setup::Setup;

pub(crate) use of::Product;
pub use problem::{Epilogue, MatmulDTypes, MatmulProblem};

/// Every variant, each a file. Those of one rank are in this order, from large to small; ranks are ten apart, so that
/// another finds its place.
static VARIANTS: &[&dyn for<'a> Variant<Setup<'a>>] = &[
    &vec::FewRows,
    &subgroup::Subgroup,
    &coop::OF_16,
    &coop::OF_8,
    &split_k::SplitK,
    &tiled::LARGE,
    &tiled::MEDIUM,
    &tiled::SMALL,
    &panel::BROADCAST,
    &panel::UNIFORM,
    &panel::DEEP,
    &register::Register,
    &plain::Plain,
];

impl Problem for MatmulProblem {
    fn family(&self) -> &'static str {
        "matmul"
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        variant::candidates(VARIANTS, &Setup { problem: self, profile })
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        variant::kernel(VARIANTS, variant, &Setup { problem: self, profile })
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        if !self.batch.is_empty() {
            text += &format!("batch={} ", self.products());
        }
        text += &format!("M={} N={} K={}", self.m, self.n, self.k);
        if self.scale != 1.0 {
            text += &format!(" scale={}", self.scale);
        }
        if self.bias.is_some() {
            text += " +bias";
        }
        if let Some(activation) = self.activation {
            text += &format!(" +{}", activation.name());
        }
        if self.residual.is_some() {
            text += " +residual";
        }
        let dtypes = [self.dtypes[A], self.dtypes[B], self.out];
        if dtypes.iter().any(|&dtype| dtype != DType::F32) || self.quantized.is_some() {
            let [a, b, out] = dtypes;
            let b = self.quantized.map_or(b.to_string(), |b| b.packing.to_string());
            text += &format!(" {a}·{b}→{out}");
        }
        text
    }

    fn tuning(&self) -> String {
        let order = |view: Matrix| match (view.row, view.column) {
            (_, 1) => "rows",
            (1, _) => "columns",
            _ => "strided",
        };
        format!("{} {}·{}", self.summary(), order(self.a), order(self.b))
    }
}
