//! This project.

use tilewise::{
    DType, Graph, Tensor,
    gpu::{Executable, Gpu},
    graph::{Align, Mask},
};

use crate::{
    case::{Case, Op},
    peer::{Peer, Result, Runner, version},
};

pub struct Ours(pub Gpu);

struct Run {
    executable: Executable,
    inputs: Vec<(&'static str, Tensor)>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Peer for Ours {
    fn name(&self) -> String {
        format!("tilewise {}", version("tilewise"))
    }

    fn device(&self) -> String {
        format!("{} ({})", self.0.profile().adapter, self.0.driver())
    }

    fn load(&self, case: &Case, operands: &[Vec<f32>]) -> Result<Option<Box<dyn Runner>>> {
        let mut g = Graph::new();
        let mut values = Vec::new();
        let mut inputs = Vec::new();
        for ((name, shape), operand) in NAMES.into_iter().zip(case.op.shapes()).zip(operands) {
            values.push(g.input(name, DType::F32, shape.clone())?);
            inputs.push((name, Tensor::new(shape, operand.clone())?));
        }
        let y = match case.op {
            Op::Matmul { .. } => g.matmul(values[0], values[1])?,
            Op::Attention { causal, .. } => {
                let mask = if causal { Mask::causal(Align::TopLeft) } else { Mask::none() };
                g.attention(values[0], values[1], values[2], mask)?
            }
            Op::LayerNorm { .. } => g.layer_norm(values[0], Some(values[1]), Some(values[2]), 1e-5)?,
            Op::Softmax { .. } => g.softmax(values[0], -1)?,
        };
        g.output("y", y)?;
        let mut executable = self.0.compile(&g, [])?;
        let named: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        executable.set_inputs(&named)?;
        Ok(Some(Box::new(Run { executable, inputs })))
    }
}

impl Runner for Run {
    fn run(&mut self, times: usize) -> Result<()> {
        self.executable.bench(times as u32, 1)?;
        Ok(())
    }

    fn output(&mut self) -> Result<Vec<f32>> {
        let named: Vec<(&str, &Tensor)> = self.inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let outputs = self.executable.run(&named)?;
        Ok(outputs["y"].as_f32().ok_or("the output is not f32")?.to_vec())
    }
}
