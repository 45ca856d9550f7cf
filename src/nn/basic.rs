use super::{join, parameter};
use crate::{Error, Graph, Result, Tensor, ValueId};

/// `y = x·Wᵀ + b`, as `torch.nn.Linear`: `weight [out, in]`, `bias [out]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Features of x.
    pub inputs: usize,
    /// Features of y.
    pub outputs: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Linear {
    /// With a bias.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Linear { inputs, outputs, bias: true }
    }

    /// Adds the layer; `name` is the prefix of its parameters.
    pub fn build(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let weight = parameter(g, &join(name, "weight"), [self.outputs, self.inputs])?;
        let bias = if self.bias { Some(parameter(g, &join(name, "bias"), [self.outputs])?) } else { None };
        let y = g.linear(x, weight, bias)?;
        g.trace(name, y)
    }
}

/// Rows of a table picked by i32 ids, as `torch.nn.Embedding`: `weight [entries, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// Rows of the table.
    pub entries: usize,
    /// Features of a row.
    pub width: usize,
}

impl Embedding {
    /// Adds the look-up: `ids […] → […, width]`. Ids out of range can't raise an error on the device: they pick the nearest
    /// row; check them on the host.
    pub fn build(&self, g: &mut Graph, name: &str, ids: ValueId) -> Result<ValueId> {
        let weight = self.weight(g, name)?;
        let y = g.gather(weight, ids, 0)?;
        g.trace(name, y)
    }

    /// The table itself, for an output layer that is tied to it: `logits = x·weightᵀ`.
    pub fn weight(&self, g: &mut Graph, name: &str) -> Result<ValueId> {
        parameter(g, &join(name, "weight"), [self.entries, self.width])
    }
}

/// Layer norm over the last axis, as `torch.nn.LayerNorm`: `weight`, `bias` `[width]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    /// Features.
    pub width: usize,
    /// ε, inside the root; PyTorch's default is 1e-5.
    pub epsilon: f32,
    /// Whether there is a bias.
    pub bias: bool,
}

impl LayerNorm {
    /// With weight, bias and ε = 1e-5.
    pub fn new(width: usize) -> Self {
        LayerNorm { width, epsilon: 1e-5, bias: true }
    }

    /// Adds the layer; `name` is the prefix of its parameters.
    pub fn build(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let weight = parameter(g, &join(name, "weight"), [self.width])?;
        let bias = if self.bias { Some(parameter(g, &join(name, "bias"), [self.width])?) } else { None };
        let y = g.layer_norm(x, Some(weight), bias, self.epsilon)?;
        g.trace(name, y)
    }
}

/// RMS norm over the last axis, as `torch.nn.RMSNorm`: `weight [width]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsNorm {
    /// Features.
    pub width: usize,
    /// ε, inside the root.
    pub epsilon: f32,
}

impl RmsNorm {
    /// Adds the layer; `name` is the prefix of its parameters.
    pub fn build(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let weight = parameter(g, &join(name, "weight"), [self.width])?;
        let y = g.rms_norm(x, Some(weight), self.epsilon)?;
        g.trace(name, y)
    }
}

/// The positions of Vaswani et al. (2017) as a constant `[length, width]`:
/// `p[t, 2i] = sin(t/10000^(2i/width))`, `p[t, 2i+1] = cos` of the same.
pub fn sinusoidal_positions(g: &mut Graph, length: usize, width: usize) -> Result<ValueId> {
    let angle = |t: usize, c: usize| t as f64 / 10_000f64.powf((c - c % 2) as f64 / width as f64);
    let at = |t: usize, c: usize| if c.is_multiple_of(2) { angle(t, c).sin() } else { angle(t, c).cos() };
    let table: Vec<f32> = (0..length).flat_map(|t| (0..width).map(move |c| at(t, c) as f32)).collect();
    g.constant(Tensor::new([length, width], table)?)
}

/// `x [B, T, width]` plus the first T rows of a learned table `weight [entries, width]`.
pub fn learned_positions(g: &mut Graph, name: &str, entries: usize, x: ValueId) -> Result<ValueId> {
    let shape = g.shape(x).clone();
    let (Some(&width), Some(&length)) = (shape.last(), shape.iter().rev().nth(1)) else {
        return Err(Error::op("learned_positions", format!("`x` has shape {shape}, expected [B, T, width]")));
    };
    if length > entries {
        return Err(Error::op("learned_positions", format!("{length} positions are needed, `{name}` has {entries}")));
    }
    let table = parameter(g, &join(name, "weight"), [entries, width])?;
    let rows = if length == entries { table } else { g.slice(table, 0, 0, length)? };
    g.add(x, rows)
}
