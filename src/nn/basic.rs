use super::{join, parameter};
use crate::{Error, Graph, Result, Shape, Tensor, ValueId};

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

    /// Adds the layer to a graph: `x […, in] → […, out]`. `name` is the prefix of its parameters.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Linear};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [1, 2])?;
    /// let y = Linear::new(2, 3).build(&mut g, "head", x)?;
    /// assert_eq!(g.shape(y), &[1, 3].into());
    /// let parameters: Vec<String> = g.parameters().map(|(_, value)| g.describe(value)).collect();
    /// assert_eq!(parameters, ["head.weight: f32 [3, 2]", "head.bias: f32 [3]"]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` is not f32 `[…, in]`; [`Error::Graph`] as [`parameter`].
    pub fn build(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let weight = parameter(g, &join(name, "weight"), [self.outputs, self.inputs])?;
        let bias = if self.bias { Some(parameter(g, &join(name, "bias"), [self.outputs])?) } else { None };
        let y = g.linear(x, weight, bias)?;
        g.trace(name, y)
    }
}

/// Dropout, as `torch.nn.Dropout` in training: see [`Graph::dropout`]. Layers take one where PyTorch's have theirs; a graph that
/// validates or generates is built without, or switched over by [`Graph::without_dropout`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// How often an element is dropped, from 0 to 1.
    pub p: f64,
    /// What is drawn from, i32 or u32 `[4]`, of the graph that is built: [`train::seed`](crate::train::seed), or one of your own.
    pub seed: ValueId,
}

impl Dropout {
    /// Adds it to a graph: `x […]` → the same shape. It has no parameters.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Dropout, train::seed};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 5, 16])?;
    /// let dropout = Dropout { p: 0.1, seed: seed(&mut g)? };
    /// let y = dropout.build(&mut g, "dropout", x)?;
    /// assert_eq!(g.shape(y), &[2, 5, 16].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::dropout`].
    pub fn build(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let y = g.dropout(x, self.seed, self.p)?;
        g.trace(name, y)
    }

    /// Likewise, or x itself where there is none.
    pub(super) fn maybe(dropout: Option<Self>, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        match dropout {
            Some(dropout) => dropout.build(g, name, x),
            None => g.trace(name, x),
        }
    }
}

/// Rows of a table, picked by i32 ids, as `torch.nn.Embedding`: `weight [entries, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// Rows of the table.
    pub entries: usize,
    /// Features of a row.
    pub width: usize,
}

impl Embedding {
    /// Adds the look-up: `ids […] → […, width]`. An id out of range can't raise an error on the device; it picks the
    /// nearest row. Check ids on the host.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Embedding};
    /// # let mut g = Graph::new();
    /// let ids = g.input("ids", DType::I32, [2, 7])?;
    /// let x = Embedding { entries: 50, width: 16 }.build(&mut g, "words", ids)?;
    /// assert_eq!(g.shape(x), &[2, 7, 16].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `ids` are not i32, or if the table is empty; [`Error::Graph`] as [`parameter`].
    pub fn build(&self, g: &mut Graph, name: &str, ids: ValueId) -> Result<ValueId> {
        let weight = self.weight(g, name)?;
        let y = g.gather(weight, ids, 0)?;
        g.trace(name, y)
    }

    /// The table itself, `[entries, width]`, for an output layer that is tied to it: `logits = x·weightᵀ`.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Embedding};
    /// # let mut g = Graph::new();
    /// let words = Embedding { entries: 50, width: 16 };
    /// let ids = g.input("ids", DType::I32, [2, 7])?;
    /// let x = words.build(&mut g, "words", ids)?;
    /// let table = words.weight(&mut g, "words")?;
    /// let logits = g.linear(x, table, None)?;
    /// assert_eq!((g.shape(logits), g.parameters().count()), (&[2, 7, 50].into(), 1));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] as [`parameter`].
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

    /// Adds the layer to a graph: `x […, width] → […, width]`. `name` is the prefix of its parameters.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::LayerNorm};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 7, 16])?;
    /// LayerNorm::new(16).build(&mut g, "norm", x)?;
    /// let names: Vec<&str> = g.parameters().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["norm.weight", "norm.bias"]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` is not f32 `[…, width]`, or if ε is negative or not finite; [`Error::Graph`] as
    /// [`parameter`].
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
    /// Adds the layer to a graph: `x […, width] → […, width]`. `name` is the prefix of its parameter.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::RmsNorm};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 7, 16])?;
    /// RmsNorm { width: 16, epsilon: 1e-6 }.build(&mut g, "norm", x)?;
    /// assert!(g.find("norm.weight").is_some());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `x` is not f32 `[…, width]`, or if ε is negative or not finite; [`Error::Graph`] as
    /// [`parameter`].
    pub fn build(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let weight = parameter(g, &join(name, "weight"), [self.width])?;
        let y = g.rms_norm(x, Some(weight), self.epsilon)?;
        g.trace(name, y)
    }
}

/// The positions of Vaswani et al. (2017) as a constant `[length, width]`: `p[t, 2i] = sin(t/10000^(2i/width))`,
/// `p[t, 2i+1] = cos` of the same.
///
/// ```
/// # use tilewise::{Graph, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// let positions = nn::sinusoidal_positions(&mut g, 1, 4)?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(positions).to_f64(), [0.0, 1.0, 0.0, 1.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Limit`] if there are more than 2³¹ − 1 elements.
pub fn sinusoidal_positions(g: &mut Graph, length: usize, width: usize) -> Result<ValueId> {
    // Before it is computed.
    Shape::from([length, width]).checked_elements("sinusoidal_positions")?;
    let angle = |t: usize, c: usize| t as f64 / 10_000f64.powf((c - c % 2) as f64 / width as f64);
    let at = |t: usize, c: usize| if c.is_multiple_of(2) { angle(t, c).sin() } else { angle(t, c).cos() };
    let table: Vec<f32> = (0..length).flat_map(|t| (0..width).map(move |c| at(t, c) as f32)).collect();
    g.constant(Tensor::new([length, width], table)?)
}

/// `x [B, T, width]` plus the first T rows of a learned table, `name.weight [entries, width]`.
///
/// ```
/// # use tilewise::{DType, Graph, nn};
/// # let mut g = Graph::new();
/// let x = g.input("x", DType::F32, [2, 7, 16])?;
/// let y = nn::learned_positions(&mut g, "positions", 512, x)?;
/// assert_eq!(g.shape(y), &[2, 7, 16].into());
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if `x` has fewer than two axes, is not f32, or has more tokens than the table has entries;
/// [`Error::Graph`] as [`parameter`].
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

/// The slopes of ALiBi (Press et al., 2022) for so many heads, f32 `[heads]`, as a constant for
/// [`AttentionArgs::slopes`](crate::graph::AttentionArgs::slopes).
///
/// For n heads, a power of two, `2^(−8·h/n)` for h = 1 … n. For other numbers as in the paper's code: the slopes of the power of
/// two below, and then every other one of twice as many heads, from the first on.
///
/// ```
/// # use tilewise::{Graph, nn, reference::Evaluation};
/// # let mut g = Graph::new();
/// let slopes = nn::alibi_slopes(&mut g, 6)?;
/// let values = Evaluation::<f64>::new(&g, &Default::default())?;
/// assert_eq!(values.value(slopes).to_f64(), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] for 0 heads; [`Error::Limit`] if there are more than 2³¹ − 1.
pub fn alibi_slopes(g: &mut Graph, heads: usize) -> Result<ValueId> {
    let Some(exponent) = heads.checked_ilog2() else {
        return Err(Error::op("alibi_slopes", "there are 0 heads, expected at least 1"));
    };
    let whole = 1usize << exponent;
    let slope = |h: usize, of: usize| (-8.0 * h as f64 / of as f64).exp2() as f32;
    let first = (1..=whole).map(|h| slope(h, whole));
    let others = (1..).step_by(2).take(heads - whole).map(|h| slope(h, 2 * whole));
    g.constant(Tensor::new([heads], first.chain(others).collect::<Vec<_>>())?)
}
