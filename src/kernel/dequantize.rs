//! Weights of few bits. Twins: `shaders/dequantize.wgsl`, `src/reference/dequantize.rs`, `tests/quantize.rs`.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Operands, Problem, Profile, Specialization, buffer_bytes, fold_grid,
    matmul::half_loads,
};
use crate::{DType, Error, Result, quantize::Packing};

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

impl Problem for DequantizeProblem {
    fn family(&self) -> &'static str {
        "dequantize"
    }

    fn candidates(&self, _: &Profile) -> Vec<Candidate> {
        vec![Candidate::usable("plain", "a word an invocation; the kernel is bound by memory")]
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        if variant != "plain" {
            return Err(Error::op("dequantize", format!("there is no variant `{variant}`; there is `plain`")));
        }
        let Packing { bits, group, zero, columns } = self.packing;
        let mut source = Specialization::new("dequantize::plain")
            .value("BITS", bits.count())
            .value("GROUP", group.unwrap_or(0))
            .value("WORKGROUP", WORKGROUP)
            .region("ZEROS", zero);
        if self.scales != DType::F32 {
            source = half_loads(source, "scale", self.scales);
        }
        let words = self.rows * self.packing.words();
        let inputs = 2 + usize::from(zero);
        let mut bindings: Vec<Binding> = (0..inputs).map(|i| Binding::read(Operand::Input(i))).collect();
        bindings.push(Binding::write(Operand::Output(0)));
        let launch = Launch {
            label: "plain".into(),
            source: source.source()?,
            bindings,
            params: [self.rows, columns, self.packing.words()].map(|n| n as u32).into(),
            grid: fold_grid((words as u64).div_ceil(WORKGROUP), profile, "dequantize")?,
            flops: 2 * (self.rows * columns) as u64,
            exponentials: 0,
            bytes: self.packing.bytes(self.rows, self.scales) + buffer_bytes(DType::F32, self.rows * columns),
        };
        Ok(Kernel { launches: vec![launch], scratch: Vec::new() })
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
