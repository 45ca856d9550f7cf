//! This project.

use std::{collections::BTreeMap, time::Duration};

use tilewise::{
    DType, Data, Graph, Tensor, ValueId,
    gpu::{Executable, Gpu},
    graph::{Align, AttentionArgs, Mask, Reduce},
    lower::Choices,
    nn, reference,
    tune::Tuner,
};

use crate::{
    case::{Case, EPSILON, Op, Operand, SCALAR},
    peer::{Operands, Peer, Result, Runner, version},
};

pub struct Ours {
    gpu: Gpu,
    /// Whether the variants of each case are timed before, as burn does.
    tuned: bool,
}

impl Ours {
    /// On the adapter of this name, or on the best.
    pub fn open(adapter: Option<&str>, tuned: bool) -> Result<Self> {
        let gpu = adapter.map_or_else(Gpu::new, |adapter| Gpu::builder().adapter(adapter).build())?;
        Ok(Ours { gpu, tuned })
    }
}

/// Time for tuning a case.
const BUDGET: Duration = Duration::from_secs(20);

struct Run {
    executable: Executable,
    inputs: Vec<(String, Tensor)>,
}

impl Peer for Ours {
    fn name(&self) -> String {
        format!("{}tilewise {}", if self.tuned { "tuned " } else { "" }, version("tilewise"))
    }

    fn device(&self) -> String {
        format!("{} ({})", self.gpu.profile().adapter, self.gpu.driver())
    }

    fn load(&self, case: &Case, operands: Operands) -> Result<Option<Box<dyn Runner>>> {
        let graph = graph(&case.op)?;
        let values = operands.rest().map(|operand| tensor(&graph, operand)).collect::<Result<Vec<_>>>()?;
        let mut gpu = self.gpu.clone();
        if self.tuned {
            let mut choices = Choices::default();
            let given: BTreeMap<String, Tensor> = values.iter().cloned().collect();
            Tuner::new(&gpu).budget(BUDGET).tune(&graph, &given, &mut choices, |_| {})?;
            gpu = gpu.with_choices(choices);
        }
        let is_input = |name: &str| graph.inputs().any(|(input, _)| input == name);
        let (inputs, parameters): (Vec<_>, Vec<_>) = values.into_iter().partition(|(name, _)| is_input(name));
        let parameters: Vec<(&str, &Tensor)> =
            parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut executable = gpu.compile(&graph, &parameters[..])?;
        executable.set_inputs(&named(&inputs))?;
        Ok(Some(Box::new(Run { executable, inputs })))
    }
}

fn named(values: &[(String, Tensor)]) -> Vec<(&str, &Tensor)> {
    values.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
}

/// An operand as the graph has it: masks are bool, lengths i32.
fn tensor(graph: &Graph, Operand { name, values, .. }: Operand) -> Result<(String, Tensor)> {
    let value = graph.find(&name).ok_or_else(|| format!("the graph has no {name}"))?;
    let data = match graph.dtype(value) {
        DType::Bool => Data::Bool(values.iter().map(|&x| x != 0.0).collect()),
        DType::I32 => Data::I32(values.iter().map(|&x| x as i32).collect()),
        _ => Data::F32(values),
    };
    let shape = graph.shape(value).clone();
    Ok((name, Tensor::new(shape, data)?))
}

/// What is right, in f64.
pub fn reference(case: &Case, operands: &[Operand]) -> Result<Vec<f32>> {
    let graph = graph(&case.op)?;
    let values = operands.iter().map(|operand| tensor(&graph, operand.clone())).collect::<Result<BTreeMap<_, _>>>()?;
    values_of(&reference::evaluate(&graph, &values)?)
}

fn values_of(outputs: &BTreeMap<String, Tensor>) -> Result<Vec<f32>> {
    Ok(outputs["y"].as_f32().ok_or("the output is not f32")?.to_vec())
}

fn graph(op: &Op) -> Result<Graph> {
    let mut g = Graph::new();
    let y = build(&mut g, op)?;
    g.output("y", y)?;
    Ok(g)
}

fn build(g: &mut Graph, op: &Op) -> tilewise::Result<ValueId> {
    fn input(g: &mut Graph, name: &str, shape: &[usize]) -> tilewise::Result<ValueId> {
        g.input(name, DType::F32, shape)
    }
    match op {
        &Op::Matmul { batch, m, n, k } => {
            let (a, b) = (input(g, "a", &[batch, m, k])?, input(g, "b", &[batch, k, n])?);
            g.matmul(a, b)
        }
        &Op::Linear { rows, inputs, outputs, gelu } => {
            let x = input(g, "x", &[rows, inputs])?;
            let weight = g.parameter("weight", DType::F32, [outputs, inputs])?;
            let bias = g.parameter("bias", DType::F32, [outputs])?;
            let y = g.linear(x, weight, Some(bias))?;
            if gelu { g.gelu(y) } else { Ok(y) }
        }
        Op::Attention(a) => {
            let q = input(g, "q", &[a.batch, a.heads, a.rows, a.width])?;
            let keys = [a.batch, a.key_heads(), a.keys, a.width];
            let (k, v) = (input(g, "k", &keys)?, input(g, "v", &keys)?);
            let mut mask = if a.causal { Mask::causal(Align::TopLeft) } else { Mask::none() };
            if a.bias {
                mask = mask & Mask::bias(input(g, "bias", &[a.heads, a.rows, a.keys])?);
            }
            if a.mask {
                mask = mask & Mask::boolean(g.input("mask", DType::Bool, [a.batch, 1, a.rows, a.keys])?);
            }
            if a.padded {
                mask = mask & Mask::key_lengths(g.input("lengths", DType::I32, [a.batch])?);
            }
            g.attention(q, k, v, AttentionArgs { softcap: a.softcap, scale: a.scale, ..mask.into() })
        }
        &Op::LayerNorm { rows, width } => {
            let x = input(g, "x", &[rows, width])?;
            let (weight, bias) = (input(g, "weight", &[width])?, input(g, "bias", &[width])?);
            g.layer_norm(x, Some(weight), Some(bias), EPSILON)
        }
        &Op::RmsNorm { rows, width } => {
            let (x, weight) = (input(g, "x", &[rows, width])?, input(g, "weight", &[width])?);
            g.rms_norm(x, Some(weight), EPSILON)
        }
        &Op::Softmax { rows, width } => {
            let x = input(g, "x", &[rows, width])?;
            g.softmax(x, -1)
        }
        &Op::Sum { rows, width } => {
            let x = input(g, "x", &[rows, width])?;
            g.reduce(Reduce::Sum, x, &[-1], false)
        }
        &Op::AddScalar { rows, width } => {
            let x = input(g, "x", &[rows, width])?;
            let scalar = g.scalar(f64::from(SCALAR), x)?;
            g.add(x, scalar)
        }
        &Op::Gelu { rows, width } => {
            let x = input(g, "x", &[rows, width])?;
            g.gelu(x)
        }
        &Op::BiasResidual { rows, width } => {
            let (x, bias) = (input(g, "x", &[rows, width])?, input(g, "bias", &[width])?);
            let residual = input(g, "residual", &[rows, width])?;
            let sum = g.add(x, bias)?;
            g.add(sum, residual)
        }
        Op::Encoder(e) => {
            let x = input(g, "x", &[e.batch, e.tokens, e.width])?;
            let lengths = g.input("lengths", DType::I32, [e.batch])?;
            let layer = nn::EncoderLayer {
                activation: nn::Activation::Gelu,
                epsilon: EPSILON,
                ..nn::EncoderLayer::new(e.width, e.heads, 4 * e.width)
            };
            let encoder = nn::Encoder { layer, layers: e.layers, final_norm: false };
            encoder.build(g, "", x, &Mask::key_lengths(lengths).into())
        }
    }
}

impl Runner for Run {
    fn run(&mut self, times: usize) -> Result<()> {
        self.executable.bench(times as u32, 1)?;
        Ok(())
    }

    fn output(&mut self) -> Result<Vec<f32>> {
        values_of(&self.executable.run(&named(&self.inputs))?)
    }
}
