//! Weights of few bits.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Operands, Parameters, Problem, Profile, Specialization,
    access::elems::Elems,
    buffer_bytes, fold_grid,
    variant::{Needs, Only},
};
use crate::{DType, Result, quantize::Packing};

/// A packed weight as f32 `[rows, columns]`; see [`Op::Dequantize`](crate::graph::Op::Dequantize). Inputs: words, scale,
/// \[zero\], all dense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DequantizeProblem {
    /// How the weight lies.
    pub packing: Packing,
    /// Its rows.
    pub rows: usize,
    /// The dtype of the scales.
    pub scales: DType,
}

const WORKGROUP: u64 = 64;

const PLAIN: Only = Only { family: "dequantize", reason: "a word an invocation; the kernel is bound by memory" };

impl Problem for DequantizeProblem {
    fn family(&self) -> &'static str {
        PLAIN.family
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        PLAIN.candidates(Ok(Needs::default()), profile)
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        PLAIN.check(variant, Ok(Needs::default()), profile)?;
        let Packing { bits, group, zero, columns } = self.packing;
        let scale = Elems { dtype: self.scales, packed: false };
        let source = Specialization::new("dequantize::plain")
            .value("BITS", bits.count())
            .value("GROUP", group.unwrap_or(0))
            .value("WORKGROUP", WORKGROUP)
            .region("ZEROS", zero)
            .ty("scale_word", scale.ty())
            .function("load_scale", format!("fn load_scale(i: u32) -> f32 {{ return {}; }}", scale.one("scale", "i")));
        let words = self.rows * self.packing.words();
        let inputs = 2 + usize::from(zero);
        let mut bindings: Vec<Binding> = (0..inputs).map(|i| Binding::read(Operand::Input(i))).collect();
        bindings.push(Binding::write(Operand::Output(0)));
        let source = source.source()?;
        let parameters =
            Parameters::new().set("rows", self.rows).set("columns", columns).set("words", self.packing.words());
        let launch = Launch {
            label: Only::NAME.into(),
            params: source.words(&parameters)?,
            source,
            bindings,
            grid: fold_grid((words as u64).div_ceil(WORKGROUP), profile, PLAIN.family)?,
            flops: 2 * (self.rows * columns) as u64,
            exponentials: 0,
            bytes: self.packing.bytes(self.rows, self.scales) + buffer_bytes(DType::F32, self.rows * columns),
        };
        Ok(Kernel { launches: vec![launch], workspace: Vec::new() })
    }

    fn summary(&self) -> String {
        format!("[{}, {}] {}", self.rows, self.packing.columns, self.packing)
    }
}

impl DequantizeProblem {
    /// Of [`Op::Dequantize`](crate::graph::Op::Dequantize).
    pub(super) fn of(packing: Packing, operands: &mut Operands) -> Result<Self> {
        Ok(DequantizeProblem { packing, rows: operands.shape(0)[0], scales: operands.dtype(1) })
    }
}
