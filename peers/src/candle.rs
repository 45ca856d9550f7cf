//! candle, on the processor.

use candle_core::{D, Device, Tensor};
use candle_nn::ops;

use crate::{
    case::{Attention, Case, EPSILON, Encoder, Op, Operand, SCALAR},
    cores,
    peer::{Operands, Peer, Result, Runner, version},
};

type Computed = candle_core::Result<Tensor>;
type Compute = Box<dyn Fn() -> Computed>;

pub struct Candle;

struct Run(Compute);

impl Peer for Candle {
    fn name(&self) -> String {
        format!("candle {} CPU", version("candle-core"))
    }

    fn device(&self) -> String {
        format!("{} threads", cores())
    }

    fn load(&self, case: &Case, operands: Operands) -> Result<Option<Box<dyn Runner>>> {
        Ok(Some(Box::new(Run(compute(&case.op, operands)?))))
    }
}

fn tensor(operand: Operand) -> Result<Tensor> {
    Ok(Tensor::from_vec(operand.values, operand.shape, &Device::Cpu)?)
}

/// 0 where a key may be seen, −∞ elsewhere: what is added to scores.
fn hiding(seen: impl Iterator<Item = bool>, shape: &[usize]) -> Result<Tensor> {
    let values: Vec<f32> = seen.map(|seen| if seen { 0.0 } else { f32::NEG_INFINITY }).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn compute(op: &Op, mut operands: Operands) -> Result<Compute> {
    let mut take = |name: &str| tensor(operands.take(name)?);
    Ok(match *op {
        Op::Matmul { .. } => {
            let (a, b) = (take("a")?, take("b")?);
            Box::new(move || a.matmul(&b))
        }
        Op::Linear { gelu, .. } => {
            let x = take("x")?;
            let layer = candle_nn::Linear::new(take("weight")?, Some(take("bias")?));
            Box::new(move || {
                let y = candle_nn::Module::forward(&layer, &x)?;
                if gelu { y.gelu_erf() } else { Ok(y) }
            })
        }
        Op::Attention(ref a) => return attention(a, operands),
        Op::LayerNorm { .. } => {
            let (x, weight, bias) = (take("x")?, take("weight")?, take("bias")?);
            Box::new(move || ops::layer_norm(&x, &weight, &bias, EPSILON))
        }
        Op::RmsNorm { .. } => {
            let (x, weight) = (take("x")?, take("weight")?);
            Box::new(move || ops::rms_norm(&x, &weight, EPSILON))
        }
        Op::Softmax { .. } => {
            let x = take("x")?;
            Box::new(move || ops::softmax_last_dim(&x))
        }
        Op::Sum { .. } => {
            let x = take("x")?;
            Box::new(move || x.sum(D::Minus1))
        }
        Op::AddScalar { .. } => {
            let x = take("x")?;
            Box::new(move || x.affine(1.0, f64::from(SCALAR)))
        }
        Op::Gelu { .. } => {
            let x = take("x")?;
            Box::new(move || x.gelu_erf())
        }
        Op::BiasResidual { .. } => {
            let (x, bias, residual) = (take("x")?, take("bias")?, take("residual")?);
            Box::new(move || x.broadcast_add(&bias)?.add(&residual))
        }
        Op::Encoder(ref e) => return encoder(e, operands),
    })
}

/// softmax(scale · q · kᵀ + hidden) · v
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, softcap: Option<f32>, hidden: &[Tensor]) -> Computed {
    let mut scores = (q.matmul(&k.t()?)? * f64::from(scale))?;
    if let Some(softcap) = softcap.map(f64::from) {
        scores = ((scores / softcap)?.tanh()? * softcap)?;
    }
    for hidden in hidden {
        scores = scores.broadcast_add(hidden)?;
    }
    ops::softmax_last_dim(&scores)?.matmul(v)
}

fn attention(a: &Attention, mut operands: Operands) -> Result<Compute> {
    let [q, k, v] = ["q", "k", "v"].map(|name| operands.take(name));
    let (q, k, v) = (tensor(q?)?, tensor(k?)?, tensor(v?)?);
    let mut hidden = Vec::new();
    if a.bias {
        hidden.push(tensor(operands.take("bias")?)?);
    }
    if a.mask {
        let seen = operands.take("mask")?.values.into_iter().map(|x| x != 0.0);
        hidden.push(hiding(seen, &[a.batch, 1, a.rows, a.keys])?);
    }
    if a.padded {
        hidden.push(hiding(operands.present(a.keys)?.into_iter(), &[a.batch, 1, 1, a.keys])?);
    }
    if a.causal {
        hidden.push(hiding((0..a.rows * a.keys).map(|at| at % a.keys <= at / a.keys), &[a.rows, a.keys])?);
    }
    let (scale, softcap, groups) = (a.scale(), a.softcap, a.heads / a.key_heads());
    let shape = (a.batch, a.key_heads(), groups * a.rows, a.width);
    let [b, h, t] = [a.batch, a.heads, a.rows];
    Ok(if groups == 1 {
        Box::new(move || attend(&q, &k, &v, scale, softcap, &hidden))
    } else if t == 1 {
        // The heads of a group are rows of one product.
        Box::new(move || attend(&q.reshape(shape)?, &k, &v, scale, softcap, &hidden)?.reshape((b, h, t, ())))
    } else {
        let repeated = move |x: &Tensor| -> Computed {
            let (b, heads, keys, width) = x.dims4()?;
            let x = x.unsqueeze(2)?.expand((b, heads, groups, keys, width))?;
            x.reshape((b, heads * groups, keys, width))
        };
        Box::new(move || attend(&q, &repeated(&k)?, &repeated(&v)?, scale, softcap, &hidden))
    })
}

/// The parameters of a layer.
struct Layer {
    qkv: candle_nn::Linear,
    out: candle_nn::Linear,
    norm1: [Tensor; 2],
    up: candle_nn::Linear,
    down: candle_nn::Linear,
    norm2: [Tensor; 2],
}

fn encoder(e: &Encoder, mut operands: Operands) -> Result<Compute> {
    let x = tensor(operands.take("x")?)?;
    let hidden = [hiding(operands.present(e.tokens)?.into_iter(), &[e.batch, 1, 1, e.tokens])?];
    let mut take = |i: usize, name: &str| tensor(operands.take(&format!("layers.{i}.{name}"))?);
    let mut layers = Vec::new();
    for i in 0..e.layers {
        let mut linear = |name: &str| -> Result<candle_nn::Linear> {
            let separator = if name.ends_with("in_proj") { "_" } else { "." };
            let mut part = |part: &str| take(i, &format!("{name}{separator}{part}"));
            Ok(candle_nn::Linear::new(part("weight")?, Some(part("bias")?)))
        };
        let (qkv, out) = (linear("self_attn.in_proj")?, linear("self_attn.out_proj")?);
        let (up, down) = (linear("linear1")?, linear("linear2")?);
        let mut norm = |name: &str| -> Result<[Tensor; 2]> {
            Ok([take(i, &format!("{name}.weight"))?, take(i, &format!("{name}.bias"))?])
        };
        layers.push(Layer { qkv, out, norm1: norm("norm1")?, up, down, norm2: norm("norm2")? });
    }
    let (b, t, heads, width) = (e.batch, e.tokens, e.heads, e.width / e.heads);
    let scale = 1.0 / (width as f32).sqrt();
    let forward = |layer: &candle_nn::Linear, x: &Tensor| candle_nn::Module::forward(layer, x);
    Ok(Box::new(move || {
        let mut x = x.clone();
        for layer in &layers {
            let qkv = forward(&layer.qkv, &x)?.reshape((b, t, 3, heads, width))?;
            let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
            let y = attend(&part(0)?, &part(1)?, &part(2)?, scale, None, &hidden)?;
            let y = y.transpose(1, 2)?.reshape((b, t, heads * width))?;
            let y = (x + forward(&layer.out, &y)?)?;
            let y = ops::layer_norm(&y, &layer.norm1[0], &layer.norm1[1], EPSILON)?;
            let inner = forward(&layer.up, &y)?.gelu_erf()?;
            let sum = (y + forward(&layer.down, &inner)?)?;
            x = ops::layer_norm(&sum, &layer.norm2[0], &layer.norm2[1], EPSILON)?;
        }
        Ok(x)
    }))
}

impl Runner for Run {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            std::hint::black_box((self.0)()?);
        }
        Ok(())
    }

    fn output(&mut self) -> Result<Vec<f32>> {
        Ok((self.0)()?.flatten_all()?.to_vec1()?)
    }
}
