//! What is timed, from `cases.json`, which the Python scripts read too.

use serde::Deserialize;

/// An operation with its sizes.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub name: String,
    #[serde(flatten)]
    pub op: Op,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// `[batch, m, k] · [batch, k, n]`.
    Matmul { batch: usize, m: usize, n: usize, k: usize },
    /// q `[batch, heads, rows, width]`, k and v `[batch, heads, keys, width]`; causal from the top left.
    Attention { batch: usize, heads: usize, rows: usize, keys: usize, width: usize, causal: bool },
    /// Over the last axis of `[rows, width]`, with weight and bias, epsilon 1e-5.
    LayerNorm { rows: usize, width: usize },
    /// Over the last axis of `[rows, width]`.
    Softmax { rows: usize, width: usize },
}

/// The cases whose names contain one of the texts, or all if there is none.
pub fn chosen(texts: &[String]) -> Vec<Case> {
    let all: Vec<Case> = serde_json::from_str(include_str!("../cases.json")).expect("cases.json is valid");
    all.into_iter().filter(|case| texts.is_empty() || texts.iter().any(|text| case.name.contains(text))).collect()
}

impl Op {
    /// The shapes of the operands.
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        match *self {
            Op::Matmul { batch, m, n, k } => vec![vec![batch, m, k], vec![batch, k, n]],
            Op::Attention { batch, heads, rows, keys, width, .. } => {
                let keys = vec![batch, heads, keys, width];
                vec![vec![batch, heads, rows, width], keys.clone(), keys]
            }
            Op::LayerNorm { rows, width } => vec![vec![rows, width], vec![width], vec![width]],
            Op::Softmax { rows, width } => vec![vec![rows, width]],
        }
    }

    /// Bytes of the output.
    pub fn output_bytes(&self) -> usize {
        4 * match *self {
            Op::Matmul { batch, m, n, .. } => batch * m * n,
            Op::Attention { batch, heads, rows, width, .. } => batch * heads * rows * width,
            Op::LayerNorm { rows, width } | Op::Softmax { rows, width } => rows * width,
        }
    }

    /// Operands in [−1, 1), the same for all peers.
    pub fn operands(&self) -> Vec<Vec<f32>> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        self.shapes().iter().map(|shape| (0..shape.iter().product()).map(|_| draw()).collect()).collect()
    }
}
