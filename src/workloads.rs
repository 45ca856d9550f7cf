//! What is timed: the same graphs for `tilewise bench`, for criterion and for whoever compares another library.
//!
//! Sizes are those that people quote: square matmuls, attention over a few hundred tokens, norms of a 768-wide model.

use crate::{
    DType, Graph, Result, Tensor,
    graph::{Align, AttentionArgs, Mask, ScoreMod, ValueId},
};

/// A graph to be timed. Its inputs are drawn by [`Workload::inputs`].
#[derive(Clone, Debug)]
pub struct Workload {
    /// `family shape option`, such as `attention b1 h8 s256 d64 causal`.
    pub name: String,
    /// The family under test: the prefix that `tilewise bench --kernel` selects by.
    pub family: &'static str,
    /// The graph; its one output is `y`.
    pub graph: Graph,
}

impl Workload {
    fn new(family: &'static str, shape: &str, build: impl FnOnce(&mut Graph) -> Result<ValueId>) -> Result<Self> {
        let mut graph = Graph::new();
        let y = build(&mut graph)?;
        graph.output("y", y)?;
        Ok(Workload { name: format!("{family} {shape}"), family, graph })
    }

    /// Values in (−1, 1) for every input, the same at each call; lengths and ids are not used by any workload.
    pub fn inputs(&self) -> Result<Vec<(String, Tensor)>> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut draw = move || {
            // Marsaglia's xorshift64.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let mut tensor = |(name, value): (&str, ValueId)| {
            let shape = self.graph.shape(value);
            let n = shape.checked_elements("workload")?;
            Ok((name.to_string(), Tensor::new(shape, (0..n).map(|_| draw()).collect::<Vec<f32>>())?))
        };
        self.graph.inputs().map(&mut tensor).collect()
    }
}

/// Every workload; `quick` keeps the smallest of each family.
pub fn all(quick: bool) -> Result<Vec<Workload>> {
    let mut all = Vec::new();
    let sizes: &[usize] = if quick { &[128] } else { &[256, 512, 1024] };
    for &n in sizes {
        all.push(Workload::new("matmul", &format!("{n}x{n}x{n}"), |g| {
            let a = g.input("a", DType::F32, [n, n])?;
            let b = g.input("b", DType::F32, [n, n])?;
            g.matmul(a, b)
        })?);
    }
    let linear: &[[usize; 3]] = if quick { &[[64, 128, 96]] } else { &[[1024, 384, 1536], [1, 1024, 4096]] };
    for &[rows, input, output] in linear {
        all.push(Workload::new("matmul", &format!("{rows}x{input}x{output} +bias +gelu"), |g| {
            let x = g.input("x", DType::F32, [rows, input])?;
            let w = g.input("w", DType::F32, [output, input])?;
            let b = g.input("b", DType::F32, [output])?;
            let y = g.linear(x, w, Some(b))?;
            g.gelu(y)
        })?);
    }
    type Masking = (&'static str, bool, bool, Option<f32>);
    const MASKS: [Masking; 4] = [
        ("", false, false, None),
        (" causal", true, false, None),
        (" bias", false, true, None),
        (" softcap", false, false, Some(30.0)),
    ];
    let shapes: &[[usize; 5]] =
        if quick { &[[1, 2, 64, 64, 32]] } else { &[[1, 8, 256, 256, 64], [2, 8, 512, 512, 64], [4, 8, 1, 2048, 64]] };
    for &[b, h, tq, tk, d] in shapes {
        for (label, causal, bias, softcap) in MASKS {
            if tq == 1 && !label.is_empty() {
                continue;
            }
            let shape = format!("b{b} h{h} q{tq} k{tk} d{d}{label}");
            all.push(Workload::new("attention", &shape, |g| {
                let q = g.input("q", DType::F32, [b, h, tq, d])?;
                let k = g.input("k", DType::F32, [b, h, tk, d])?;
                let v = g.input("v", DType::F32, [b, h, tk, d])?;
                let mut mask = if causal { Mask::causal(Align::TopLeft) } else { Mask::none() };
                if bias {
                    mask = mask & Mask::bias(g.input("bias", DType::F32, [h, tq, tk])?);
                }
                g.attention(q, k, v, AttentionArgs { softcap, ..mask.into() })
            })?);
        }
    }
    let [b, h, tq, tk, d] = shapes[0];
    all.push(Workload::new("attention", &format!("b{b} h{h} q{tq} k{tk} d{d} function"), |g| {
        let [q, k, v] = [("q", tq), ("k", tk), ("v", tk)].map(|(name, t)| g.input(name, DType::F32, [b, h, t, d]));
        let near = ScoreMod::new("score - 0.1 * f32(abs(i - j))", |s| s.score - 0.1 * f64::from((s.i - s.j).abs()))?;
        g.attention(q?, k?, v?, AttentionArgs::from(Mask::none()).score_mod(near))
    })?);
    let parts: &[usize] = if quick { &[2, 2, 64, 32] } else { &[8, 8, 512, 64] };
    all.push(Workload::new("attention_merge", &format!("{parts:?}"), |g| {
        let outs = g.input("outs", DType::F32, parts)?;
        let lses = g.input("lses", DType::F32, &parts[..3])?;
        Ok(g.attention_merge_stacked(outs, lses)?.0)
    })?);
    let rows: &[[usize; 2]] = if quick { &[[64, 96]] } else { &[[4096, 768], [1024, 1024]] };
    for &[r, w] in rows {
        let shape = format!("{r}x{w}");
        all.push(Workload::new("layer_norm", &shape, |g| {
            let x = g.input("x", DType::F32, [r, w])?;
            let weight = g.input("weight", DType::F32, [w])?;
            let bias = g.input("bias", DType::F32, [w])?;
            g.layer_norm(x, Some(weight), Some(bias), 1e-5)
        })?);
        all.push(Workload::new("softmax", &shape, |g| {
            let x = g.input("x", DType::F32, [r, w])?;
            g.softmax(x, -1)
        })?);
        all.push(Workload::new("reduce", &format!("{shape} sum"), |g| {
            let x = g.input("x", DType::F32, [r, w])?;
            g.reduce(crate::graph::Reduce::Sum, x, &[-1], false)
        })?);
        all.push(Workload::new("pointwise", &format!("{shape} add"), |g| {
            let a = g.input("a", DType::F32, [r, w])?;
            let b = g.input("b", DType::F32, [r, w])?;
            g.add(a, b)
        })?);
        all.push(Workload::new("pointwise", &format!("{shape} gelu(a+b)*c"), |g| {
            let a = g.input("a", DType::F32, [r, w])?;
            let b = g.input("b", DType::F32, [w])?;
            let c = g.input("c", DType::F32, [r, w])?;
            let sum = g.add(a, b)?;
            let y = g.gelu(sum)?;
            g.mul(y, c)
        })?);
        all.push(Workload::new("copy", &format!("{shape} transpose"), |g| {
            let x = g.input("x", DType::F32, [r, w])?;
            g.permute(x, &[1, 0])
        })?);
    }
    let (batch, tokens, width, heads) = if quick { (1, 16, 64, 4) } else { (8, 128, 384, 12) };
    all.push(Workload::new("layer", &format!("encoder b{batch} t{tokens} e{width} h{heads}"), |g| {
        encoder_layer(g, [batch, tokens, width], heads)
    })?);
    Ok(all)
}

/// A post-norm encoder layer with gelu, four times as wide inside, as BERT has it.
fn encoder_layer(g: &mut Graph, [b, t, e]: [usize; 3], heads: usize) -> Result<ValueId> {
    let x = g.input("x", DType::F32, [b, t, e])?;
    let weight = |g: &mut Graph, name: &str, shape: &[usize]| g.input(name, DType::F32, shape);
    let wqkv = weight(g, "in_proj.weight", &[3 * e, e])?;
    let bqkv = weight(g, "in_proj.bias", &[3 * e])?;
    let qkv = g.linear(x, wqkv, Some(bqkv))?;
    let part = |g: &mut Graph, i: usize| {
        let part = g.slice(qkv, -1, i * e, (i + 1) * e)?;
        g.split_heads(part, heads)
    };
    let (q, k, v) = (part(g, 0)?, part(g, 1)?, part(g, 2)?);
    let seen = g.attention(q, k, v, Mask::none())?;
    let merged = g.merge_heads(seen)?;
    let wo = weight(g, "out_proj.weight", &[e, e])?;
    let bo = weight(g, "out_proj.bias", &[e])?;
    let attended = g.linear(merged, wo, Some(bo))?;
    let sum = g.add(x, attended)?;
    let (g1, b1) = (weight(g, "norm1.weight", &[e])?, weight(g, "norm1.bias", &[e])?);
    let x = g.layer_norm(sum, Some(g1), Some(b1), 1e-5)?;
    let (w1, c1) = (weight(g, "linear1.weight", &[4 * e, e])?, weight(g, "linear1.bias", &[4 * e])?);
    let (w2, c2) = (weight(g, "linear2.weight", &[e, 4 * e])?, weight(g, "linear2.bias", &[e])?);
    let hidden = g.linear(x, w1, Some(c1))?;
    let hidden = g.gelu(hidden)?;
    let fed = g.linear(hidden, w2, Some(c2))?;
    let sum = g.add(x, fed)?;
    let (g2, b2) = (weight(g, "norm2.weight", &[e])?, weight(g, "norm2.bias", &[e])?);
    g.layer_norm(sum, Some(g2), Some(b2), 1e-5)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_workload_is_a_valid_graph_with_inputs() {
        for workload in super::all(true).expect("quick").into_iter().chain(super::all(false).expect("full")) {
            workload.graph.verify().expect(&workload.name);
        }
        for workload in super::all(true).expect("quick") {
            let inputs = workload.inputs().expect(&workload.name);
            assert_eq!(inputs.len(), workload.graph.inputs().count());
            assert!(inputs.iter().all(|(_, t)| t.as_f32().expect("f32").iter().all(|x| x.abs() <= 1.0)));
        }
    }
}
