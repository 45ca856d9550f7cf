use std::collections::BTreeMap;

use half::{bf16, f16};

use super::uses::{Use, uses};
use crate::{DType, Data, Error, Graph, Result, Shape, Tensor, reference::Random};

/// What a parameter is before it has learnt, by the names of `torch.nn.init`. Of a weight `[out, in]`, the fan in is `in` and the fan
/// out `out`; further axes count to both, as a convolution's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// The same number.
    Constant(f64),
    /// From `−bound` to `bound`.
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// With mean 0.
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// From `−√(6/(fan in + fan out))` to that (Glorot and Bengio, 2010).
    XavierUniform,
    /// With standard deviation `√(2/(fan in + fan out))`.
    XavierNormal,
    /// From `−√(3·gain²/fan in)` to that (He et al., 2015), for `gain² = 2/(1 + slope²)`. That of
    /// `torch.nn.Linear` has the slope √5: ±1/√(fan in).
    KaimingUniform {
        /// Of the leaky relu that follows.
        slope: f64,
    },
}

impl Init {
    /// That of `torch.nn.Linear`'s weight.
    pub const LINEAR: Init = Init::KaimingUniform { slope: 2.23606797749979 };

    fn draw(self, name: &str, dtype: DType, shape: &Shape, random: &mut Random) -> Result<Tensor> {
        let fans = || match shape[..] {
            [out, inner, ref rest @ ..] => {
                let rest = rest.iter().product::<usize>() as f64;
                Ok((inner as f64 * rest, out as f64 * rest))
            }
            _ => Err(Error::op(
                "train",
                format!("`{name}` {shape} has no fan in and fan out, expected at least two axes"),
            )),
        };
        let uniform = |bound: f64, random: &mut Random| -> Vec<f32> {
            (0..shape.iter().product()).map(|_| random.real(-bound, bound) as f32).collect()
        };
        let normal = |std: f64, random: &mut Random| -> Vec<f32> {
            (0..shape.iter().product()).map(|_| (std * gauss(random)) as f32).collect()
        };
        let n = shape.checked_elements("train")?;
        let numbers = match self {
            Init::Constant(value) => vec![value as f32; n],
            Init::Uniform { bound } => uniform(bound, random),
            Init::Normal { std } => normal(std, random),
            Init::XavierUniform => {
                let (fan_in, fan_out) = fans()?;
                uniform((6.0 / (fan_in + fan_out)).sqrt(), random)
            }
            Init::XavierNormal => {
                let (fan_in, fan_out) = fans()?;
                normal((2.0 / (fan_in + fan_out)).sqrt(), random)
            }
            Init::KaimingUniform { slope } => {
                let (fan_in, _) = fans()?;
                uniform((6.0 / ((1.0 + slope * slope) * fan_in)).sqrt(), random)
            }
        };
        let data: Data = match dtype {
            DType::F32 => numbers.into(),
            DType::F16 => numbers.into_iter().map(f16::from_f32).collect::<Vec<_>>().into(),
            DType::BF16 => numbers.into_iter().map(bf16::from_f32).collect::<Vec<_>>().into(),
            DType::I32 | DType::U32 | DType::Bool => {
                return Err(Error::op("train", format!("`{name}` is {dtype}, expected a float: load its values")));
            }
        };
        Tensor::new(shape, data)
    }
}

/// A number of mean 0 and variance 1, by Box and Muller (1958).
fn gauss(random: &mut Random) -> f64 {
    // Not 0, whose logarithm is none.
    let radius = (-2.0 * (1.0 - random.real(0.0, 1.0)).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.real(0.0, 1.0)).cos()
}

/// A start for every parameter of a graph, from a seed, as PyTorch's modules begin:
///
/// | parameter | begins |
/// |---|---|
/// | weight of a linear layer, `[out, in]` | [`Init::LINEAR`]; its bias from ±1/√in |
/// | table of an embedding, of words or positions | normal, σ = 1 |
/// | weight and bias of a norm | 1 and 0 |
/// | `in_proj_weight`, `q_proj_weight`, … of an attention | [`Init::XavierUniform`]; `in_proj_bias` and `out_proj.bias` 0 |
///
/// `rule` comes first: where it gives an [`Init`], that is taken. Each parameter has numbers of its own, which depend on the seed and
/// its name: one more or less changes no other.
///
/// ```
/// # use tilewise::{DType, Graph, nn::Linear, train::{Init, initial}};
/// let mut g = Graph::new();
/// let x = g.input("x", DType::F32, [1, 100])?;
/// Linear::new(100, 3).build(&mut g, "head", x)?;
/// let start = initial(&g, 7, |name, _| (name == "head.bias").then_some(Init::Constant(0.5)))?;
/// assert!(start["head.weight"].to_f64().iter().all(|w| w.abs() <= 0.1));
/// assert_eq!(start["head.bias"].to_f64(), [0.5; 3]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if neither the rule nor the table knows a parameter.
pub fn initial(g: &Graph, seed: u64, rule: impl Fn(&str, &Shape) -> Option<Init>) -> Result<BTreeMap<String, Tensor>> {
    let uses = uses(g);
    let mut start = BTreeMap::new();
    for (name, value) in g.parameters() {
        let shape = g.shape(value);
        let init = match rule(name, shape) {
            Some(init) => init,
            None => usual(g, name, shape, &uses)?,
        };
        // FNV-1a of the name.
        let of_name = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let tensor = init.draw(name, g.dtype(value), shape, &mut Random::new(seed ^ of_name))?;
        start.insert(name.to_string(), tensor);
    }
    Ok(start)
}

/// What PyTorch's modules do.
fn usual(g: &Graph, name: &str, shape: &Shape, uses: &BTreeMap<String, Use>) -> Result<Init> {
    let last = name.rsplit('.').next().unwrap_or(name);
    match last {
        "in_proj_weight" | "q_proj_weight" | "k_proj_weight" | "v_proj_weight" => return Ok(Init::XavierUniform),
        "in_proj_bias" => return Ok(Init::Constant(0.0)),
        "bias_k" | "bias_v" => return Ok(Init::XavierNormal),
        _ if name.ends_with("out_proj.bias") => return Ok(Init::Constant(0.0)),
        _ => {}
    }
    match uses.get(name) {
        Some(Use::Table) => Ok(Init::Normal { std: 1.0 }),
        Some(Use::NormWeight) => Ok(Init::Constant(1.0)),
        Some(Use::NormBias) => Ok(Init::Constant(0.0)),
        Some(Use::Linear) => Ok(Init::LINEAR),
        Some(Use::Other) | None => {
            let weight = name.strip_suffix("bias").and_then(|prefix| g.find(&format!("{prefix}weight")));
            match weight.map(|weight| g.shape(weight)) {
                Some(weight) if weight.rank() >= 2 && shape.rank() == 1 => {
                    let fan_in = weight[1..].iter().product::<usize>().max(1);
                    Ok(Init::Uniform { bound: 1.0 / (fan_in as f64).sqrt() })
                }
                _ => Err(Error::op(
                    "train",
                    format!(
                        "nothing says how `{name}` {shape} begins: give `initial` a rule for it, or load its values"
                    ),
                )),
            }
        }
    }
}
