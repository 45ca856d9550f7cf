//! burn on wgpu, with autotune and fusion.

use burn::tensor::{Bool, Device, Tensor, TensorData, activation, module, ops::AttentionModuleOptions};

use crate::{
    case::{Attention, Case, EPSILON, Encoder, Op, Operand, SCALAR},
    peer::{Operands, Peer, Result, Runner, transposed, version},
};

pub struct BurnWgpu {
    device: Device,
    adapter: String,
    driver: String,
}

impl BurnWgpu {
    /// On the adapter that burn takes by itself.
    pub fn open() -> Result<Self> {
        let (device, setup) = Device::wgpu_options().init_with_setup()?;
        let info = setup.adapter.get_info();
        let driver = format!("{} {}", info.driver, info.driver_info).trim().to_string();
        Ok(BurnWgpu { device, adapter: info.name, driver })
    }
}

struct Run<const D: usize> {
    device: Device,
    bytes: usize,
    compute: Box<dyn Fn() -> Tensor<D>>,
}

impl Peer for BurnWgpu {
    fn name(&self) -> String {
        format!("burn {} wgpu", version("burn"))
    }

    fn device(&self) -> String {
        format!("{} ({})", self.adapter, self.driver)
    }

    fn adapter(&self) -> Option<String> {
        Some(self.adapter.clone())
    }

    fn load(&self, case: &Case, operands: Operands) -> Result<Option<Box<dyn Runner>>> {
        Loader { device: self.device.clone(), bytes: case.op.output_bytes(), operands }.load(&case.op).map(Some)
    }
}

struct Loader {
    device: Device,
    bytes: usize,
    operands: Operands,
}

impl Loader {
    fn tensor<const D: usize>(&self, operand: Operand) -> Tensor<D> {
        Tensor::from_data(TensorData::new(operand.values, operand.shape), &self.device)
    }

    fn take<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>> {
        let operand = self.operands.take(name)?;
        Ok(self.tensor(operand))
    }

    /// burn multiplies by `[inputs, outputs]`.
    fn take_transposed(&mut self, name: &str) -> Result<Tensor<2>> {
        let operand = transposed(self.operands.take(name)?);
        Ok(self.tensor(operand))
    }

    /// burn's masks say what is hidden.
    fn hidden(&self, seen: impl Iterator<Item = bool>, shape: [usize; 4]) -> Tensor<4, Bool> {
        Tensor::from_data(TensorData::new(seen.map(|seen| !seen).collect::<Vec<_>>(), shape), &self.device)
    }

    fn run<const D: usize>(self, compute: impl Fn() -> Tensor<D> + 'static) -> Result<Box<dyn Runner>> {
        Ok(Box::new(Run { device: self.device, bytes: self.bytes, compute: Box::new(compute) }))
    }

    fn load(mut self, op: &Op) -> Result<Box<dyn Runner>> {
        match *op {
            Op::Matmul { .. } => {
                let (a, b) = (self.take::<3>("a")?, self.take::<3>("b")?);
                self.run(move || a.clone().matmul(b.clone()))
            }
            Op::Linear { gelu, .. } => {
                let (x, weight) = (self.take::<2>("x")?, self.take_transposed("weight")?);
                let bias = self.take::<1>("bias")?;
                self.run(move || {
                    let y = module::linear(x.clone(), weight.clone(), Some(bias.clone()));
                    if gelu { activation::gelu(y) } else { y }
                })
            }
            Op::Attention(ref attention) => self.attention(attention),
            Op::LayerNorm { .. } => {
                let (x, gamma, beta) = (self.take::<2>("x")?, self.take("weight")?, self.take("bias")?);
                self.run(move || module::layer_norm(x.clone(), gamma.clone(), Some(beta.clone()), EPSILON.into()))
            }
            Op::RmsNorm { .. } => {
                let (x, gamma) = (self.take::<2>("x")?, self.take::<1>("weight")?);
                // As burn's own module has it.
                self.run(move || {
                    let rms = (x.clone().square().mean_dim(1) + EPSILON).sqrt();
                    (x.clone() / rms) * gamma.clone().unsqueeze()
                })
            }
            Op::Softmax { .. } => {
                let x = self.take::<2>("x")?;
                self.run(move || activation::softmax(x.clone(), 1))
            }
            Op::Sum { .. } => {
                let x = self.take::<2>("x")?;
                self.run(move || x.clone().sum_dim(1))
            }
            Op::AddScalar { .. } => {
                let x = self.take::<2>("x")?;
                self.run(move || x.clone() + SCALAR)
            }
            Op::Gelu { .. } => {
                let x = self.take::<2>("x")?;
                self.run(move || activation::gelu(x.clone()))
            }
            Op::BiasResidual { .. } => {
                let (x, bias) = (self.take::<2>("x")?, self.take::<1>("bias")?);
                let residual = self.take::<2>("residual")?;
                self.run(move || x.clone() + bias.clone().unsqueeze() + residual.clone())
            }
            Op::Encoder(ref encoder) => self.encoder(encoder),
        }
    }

    fn attention(mut self, a: &Attention) -> Result<Box<dyn Runner>> {
        let [batch, heads, rows, keys, width] = [a.batch, a.heads, a.rows, a.keys, a.width];
        let (q, k, v) = (self.take::<4>("q")?, self.take::<4>("k")?, self.take::<4>("v")?);
        let whole = [batch, heads, rows, keys];
        let bias = match a.bias {
            true => Some(self.take::<3>("bias")?.unsqueeze::<4>().expand(whole)),
            false => None,
        };
        let mut mask = None;
        if a.mask {
            let seen = self.operands.take("mask")?.values.into_iter().map(|x| x != 0.0);
            mask = Some(self.hidden(seen, [batch, 1, rows, keys]).expand(whole));
        }
        if a.padded {
            let seen = self.operands.present(keys)?;
            let padding = self.hidden(seen.into_iter(), [batch, 1, 1, keys]).expand(whole);
            mask = Some(mask.map_or(padding.clone(), |mask| mask.bool_or(padding)));
        }
        let options = AttentionModuleOptions {
            scale: a.scale.map(f64::from),
            softcap: a.softcap.map(f64::from),
            is_causal: a.causal,
        };
        let groups = heads / a.key_heads();
        self.run(move || {
            // burn has no grouped heads.
            let grouped = |x: &Tensor<4>| match groups {
                1 => x.clone(),
                _ => x.clone().unsqueeze_dim::<5>(2).repeat_dim(2, groups).reshape([batch, heads, keys, width]),
            };
            module::attention(q.clone(), grouped(&k), grouped(&v), mask.clone(), bias.clone(), options)
        })
    }

    /// By hand, as `burn::nn::transformer` goes about it, but with `module::attention`: its own layer keeps the scores.
    fn encoder(mut self, e: &Encoder) -> Result<Box<dyn Runner>> {
        let [batch, tokens, heads, width] = [e.batch, e.tokens, e.heads, e.width / e.heads];
        let x = self.take::<3>("x")?;
        let seen = self.operands.present(tokens)?;
        let hidden = self.hidden(seen.into_iter(), [batch, 1, 1, tokens]).expand([batch, heads, tokens, tokens]);
        let layers = (0..e.layers).map(|i| self.layer(&format!("layers.{i}"))).collect::<Result<Vec<_>>>()?;
        self.run(move || {
            let linear = |x: &Tensor<3>, (weight, bias): &(Tensor<2>, Tensor<1>)| {
                module::linear(x.clone(), weight.clone(), Some(bias.clone()))
            };
            let norm = |x: Tensor<3>, (gamma, beta): &(Tensor<1>, Tensor<1>)| {
                module::layer_norm(x, gamma.clone(), Some(beta.clone()), EPSILON.into())
            };
            let options = AttentionModuleOptions { scale: None, softcap: None, is_causal: false };
            layers.iter().fold(x.clone(), |x, layer| {
                let [q, k, v] =
                    [0, 1, 2].map(|i| linear(&x, &layer.qkv[i]).reshape([batch, tokens, heads, width]).swap_dims(1, 2));
                let seen = module::attention(q, k, v, Some(hidden.clone()), None, options);
                let seen = seen.swap_dims(1, 2).reshape([batch, tokens, heads * width]);
                let x = norm(x + linear(&seen, &layer.out), &layer.norm1);
                let inner = activation::gelu(linear(&x, &layer.up));
                let sum = x + linear(&inner, &layer.down);
                norm(sum, &layer.norm2)
            })
        })
    }

    fn layer(&mut self, name: &str) -> Result<Layer> {
        let weight = transposed(self.operands.take(&format!("{name}.self_attn.in_proj_weight"))?);
        let bias = self.operands.take(&format!("{name}.self_attn.in_proj_bias"))?;
        let (weight, bias): (Tensor<2>, Tensor<1>) = (self.tensor(weight), self.tensor(bias));
        let [width, _] = weight.dims();
        // Matrices of their own, each contiguous.
        let part = |i: usize| {
            let from = i * width;
            let weight = weight.clone().narrow(1, from, width).into_data();
            let bias = bias.clone().narrow(0, from, width).into_data();
            (Tensor::from_data(weight, &self.device), Tensor::from_data(bias, &self.device))
        };
        let qkv = [0, 1, 2].map(part);
        let mut linear = |part: &str| -> Result<(Tensor<2>, Tensor<1>)> {
            Ok((self.take_transposed(&format!("{name}.{part}.weight"))?, self.take(&format!("{name}.{part}.bias"))?))
        };
        let (out, up, down) = (linear("self_attn.out_proj")?, linear("linear1")?, linear("linear2")?);
        let mut norm = |part: &str| -> Result<(Tensor<1>, Tensor<1>)> {
            Ok((self.take(&format!("{name}.{part}.weight"))?, self.take(&format!("{name}.{part}.bias"))?))
        };
        Ok(Layer { qkv, out, norm1: norm("norm1")?, up, down, norm2: norm("norm2")? })
    }
}

struct Layer {
    qkv: [(Tensor<2>, Tensor<1>); 3],
    out: (Tensor<2>, Tensor<1>),
    norm1: (Tensor<1>, Tensor<1>),
    up: (Tensor<2>, Tensor<1>),
    down: (Tensor<2>, Tensor<1>),
    norm2: (Tensor<1>, Tensor<1>),
}

/// Results that are kept until all are computed: burn's fusion leaves out what nobody holds. It also makes one kernel of
/// several runs, which reads the operands once for all, so each run is closed by a flush, which waits for nothing.
const KEPT_BYTES: usize = 512 << 20;

impl<const D: usize> Runner for Run<D> {
    fn run(&mut self, times: usize) -> Result<()> {
        let most = (KEPT_BYTES / self.bytes.max(1)).max(1);
        let mut left = times;
        while left > 0 {
            let count = left.min(most);
            let mut kept = Vec::with_capacity(count);
            for _ in 0..count {
                kept.push((self.compute)());
                self.device.flush().map_err(|error| format!("{error:?}"))?;
            }
            self.device.sync().map_err(|error| format!("{error:?}"))?;
            drop(kept);
            left -= count;
        }
        Ok(())
    }

    fn output(&mut self) -> Result<Vec<f32>> {
        let data = (self.compute)().try_into_data().map_err(|error| format!("{error:?}"))?;
        data.try_to_vec::<f32>().map_err(|error| format!("{error:?}").into())
    }
}
