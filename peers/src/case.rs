//! What is timed, from `cases.json`, and the operands, which are the same for all libraries.

use serde::{Deserialize, Serialize};

/// An operation with its sizes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    pub name: String,
    #[serde(flatten)]
    pub op: Op,
}

/// Every operand is f32; masks are 0 and 1, lengths are whole numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// a `[batch, m, k]` · b `[batch, k, n]`.
    Matmul {
        batch: usize,
        m: usize,
        n: usize,
        k: usize,
    },
    /// x `[rows, inputs]` · weight `[outputs, inputs]`ᵀ + bias, with gelu or without.
    Linear {
        rows: usize,
        inputs: usize,
        outputs: usize,
        #[serde(default)]
        gelu: bool,
    },
    Attention(Attention),
    /// Over the last axis of x `[rows, width]`, with weight and bias, epsilon 1e-5.
    LayerNorm {
        rows: usize,
        width: usize,
    },
    /// Over the last axis of x `[rows, width]`, with weight, epsilon 1e-5.
    RmsNorm {
        rows: usize,
        width: usize,
    },
    /// Over the last axis of x `[rows, width]`.
    Softmax {
        rows: usize,
        width: usize,
    },
    /// Of the last axis of x `[rows, width]`.
    Sum {
        rows: usize,
        width: usize,
    },
    /// x + 0.5.
    AddScalar {
        rows: usize,
        width: usize,
    },
    /// x·Φ(x).
    Gelu {
        rows: usize,
        width: usize,
    },
    /// x + bias `[width]` + residual `[rows, width]`.
    BiasResidual {
        rows: usize,
        width: usize,
    },
    Encoder(Encoder),
}

/// What is added by [`Op::AddScalar`].
pub const SCALAR: f32 = 0.5;
/// Of all norms.
pub const EPSILON: f32 = 1e-5;

/// q `[batch, heads, rows, width]`, k and v `[batch, key_heads, keys, width]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attention {
    pub batch: usize,
    pub heads: usize,
    /// As many as `heads`, if it isn't said.
    pub key_heads: Option<usize>,
    pub rows: usize,
    pub keys: usize,
    pub width: usize,
    /// From the top left.
    #[serde(default)]
    pub causal: bool,
    /// `[heads, rows, keys]`, added to the scores.
    #[serde(default)]
    pub bias: bool,
    pub softcap: Option<f32>,
    /// 1/√width, if it isn't said.
    pub scale: Option<f32>,
    /// `[batch, rows, keys]`; 1: the key may be seen.
    #[serde(default)]
    pub mask: bool,
    /// Lengths `[batch]`: how many keys there are of each item.
    #[serde(default)]
    pub padded: bool,
}

/// BERT's layers: post-norm, gelu, four times as wide inside; x `[batch, tokens, width]`, lengths `[batch]`. The parameters
/// have PyTorch's names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Encoder {
    pub layers: usize,
    pub batch: usize,
    pub tokens: usize,
    pub width: usize,
    pub heads: usize,
}

/// A named array.
#[derive(Clone, Debug)]
pub struct Operand {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// The cases whose names contain one of the texts, or all if there is none.
pub fn chosen(texts: &[String]) -> Vec<Case> {
    let all: Vec<Case> = serde_json::from_str(include_str!("../cases.json")).expect("cases.json is valid");
    all.into_iter().filter(|case| texts.is_empty() || texts.iter().any(|text| case.name.contains(text))).collect()
}

impl Attention {
    pub fn key_heads(&self) -> usize {
        self.key_heads.unwrap_or(self.heads)
    }

    pub fn scale(&self) -> f32 {
        self.scale.unwrap_or(1.0 / (self.width as f32).sqrt())
    }
}

impl Encoder {
    /// Name and shape of every parameter.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (e, inner) = (self.width, 4 * self.width);
        let of_a_layer: [(&str, Vec<usize>); 12] = [
            ("self_attn.in_proj_weight", vec![3 * e, e]),
            ("self_attn.in_proj_bias", vec![3 * e]),
            ("self_attn.out_proj.weight", vec![e, e]),
            ("self_attn.out_proj.bias", vec![e]),
            ("norm1.weight", vec![e]),
            ("norm1.bias", vec![e]),
            ("linear1.weight", vec![inner, e]),
            ("linear1.bias", vec![inner]),
            ("linear2.weight", vec![e, inner]),
            ("linear2.bias", vec![e]),
            ("norm2.weight", vec![e]),
            ("norm2.bias", vec![e]),
        ];
        let layer = |i: usize| of_a_layer.clone().map(|(name, shape)| (format!("layers.{i}.{name}"), shape));
        (0..self.layers).flat_map(layer).collect()
    }
}

impl Op {
    /// The operands with their values.
    pub fn operands(&self) -> Vec<Operand> {
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
        let mut operands = Vec::new();
        let mut add = |name: &str, shape: &[usize], value: &mut dyn FnMut(usize) -> f32| {
            let values = (0..shape.iter().product()).map(value).collect();
            operands.push(Operand { name: name.into(), shape: shape.to_vec(), values });
        };
        let mut plain = |list: &[(&str, &[usize])]| {
            for (name, shape) in list {
                add(name, shape, &mut |_| draw.next());
            }
        };
        match self {
            &Op::Matmul { batch, m, n, k } => plain(&[("a", &[batch, m, k]), ("b", &[batch, k, n])]),
            &Op::Linear { rows, inputs, outputs, .. } => {
                plain(&[("x", &[rows, inputs])]);
                add("weight", &[outputs, inputs], &mut |_| draw.next() * spread(inputs));
                add("bias", &[outputs], &mut |_| draw.next());
            }
            Op::Attention(a) => {
                let keys = [a.batch, a.key_heads(), a.keys, a.width];
                plain(&[("q", &[a.batch, a.heads, a.rows, a.width]), ("k", &keys), ("v", &keys)]);
                if a.bias {
                    add("bias", &[a.heads, a.rows, a.keys], &mut |_| draw.next());
                }
                if a.mask {
                    // Three in four, and the first: libraries differ in rows that see nothing.
                    let mut seen = |at: usize| f32::from(at.is_multiple_of(a.keys) || draw.next() > -0.5);
                    add("mask", &[a.batch, a.rows, a.keys], &mut seen);
                }
                if a.padded {
                    add("lengths", &[a.batch], &mut |i| length(i, a.batch, a.keys));
                }
            }
            &Op::LayerNorm { rows, width } => {
                plain(&[("x", &[rows, width]), ("weight", &[width]), ("bias", &[width])]);
            }
            &Op::RmsNorm { rows, width } => plain(&[("x", &[rows, width]), ("weight", &[width])]),
            &Op::Softmax { rows, width }
            | &Op::Sum { rows, width }
            | &Op::AddScalar { rows, width }
            | &Op::Gelu { rows, width } => plain(&[("x", &[rows, width])]),
            &Op::BiasResidual { rows, width } => {
                plain(&[("x", &[rows, width]), ("bias", &[width]), ("residual", &[rows, width])]);
            }
            Op::Encoder(e) => {
                plain(&[("x", &[e.batch, e.tokens, e.width])]);
                add("lengths", &[e.batch], &mut |i| length(i, e.batch, e.tokens));
                for (name, shape) in e.parameters() {
                    let (base, most) = match (&shape[..], name.contains("norm") && name.ends_with("weight")) {
                        ([_, inputs], _) => (0.0, spread(*inputs)),
                        (_, true) => (1.0, 0.1),
                        (_, false) => (0.0, 0.1),
                    };
                    add(&name, &shape, &mut |_| base + most * draw.next());
                }
            }
        }
        operands
    }

    /// Bytes of the output.
    pub fn output_bytes(&self) -> usize {
        4 * match self {
            Op::Matmul { batch, m, n, .. } => batch * m * n,
            Op::Linear { rows, outputs, .. } => rows * outputs,
            Op::Attention(a) => a.batch * a.heads * a.rows * a.width,
            Op::LayerNorm { rows, width }
            | Op::RmsNorm { rows, width }
            | Op::Softmax { rows, width }
            | Op::AddScalar { rows, width }
            | Op::Gelu { rows, width }
            | Op::BiasResidual { rows, width } => rows * width,
            Op::Sum { rows, .. } => *rows,
            Op::Encoder(e) => e.batch * e.tokens * e.width,
        }
    }

    /// Whether an element of the output means something: what a padded token becomes is up to the library.
    pub fn counts(&self, at: usize) -> bool {
        match self {
            Op::Encoder(e) => {
                let (item, token) = (at / (e.tokens * e.width), at / e.width % e.tokens);
                (token as f32) < length(item, e.batch, e.tokens)
            }
            _ => true,
        }
    }
}

/// From all tokens down to about half of them.
fn length(item: usize, batch: usize, tokens: usize) -> f32 {
    (tokens - tokens * item / (2 * batch)) as f32
}

/// Weights of this size keep the variance.
fn spread(inputs: usize) -> f32 {
    (3.0 / inputs as f32).sqrt()
}

/// Marsaglia's xorshift64: floats in [−1, 1).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
