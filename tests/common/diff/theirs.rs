//! "Theirs": Transformer layers written again, in f64 and plain loops, with room for mistakes. Nothing here is shared
//! with the library.

use std::{collections::BTreeMap, rc::Rc};

use tilewise::Tensor;

pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// `[B, T, E]`.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub(crate) b: usize,
    pub(crate) t: usize,
    pub(crate) e: usize,
    pub(crate) x: Vec<f64>,
}

impl Rows {
    pub(crate) fn of(tensor: &Tensor) -> Rows {
        let s = tensor.shape();
        Rows { b: s[0], t: s[1], e: s[2], x: tensor.to_f64() }
    }

    pub(crate) fn map(&self, f: impl Fn(f64) -> f64) -> Rows {
        Rows { x: self.x.iter().map(|&x| f(x)).collect(), ..self.clone() }
    }

    pub(crate) fn plus(&self, other: &Rows) -> Rows {
        Rows { x: self.x.iter().zip(&other.x).map(|(a, b)| a + b).collect(), ..self.clone() }
    }

    pub(crate) fn tensor(&self) -> Tensor {
        f32s(&[self.b, self.t, self.e], &self.x)
    }
}

pub(crate) fn f32s(shape: &[usize], x: &[f64]) -> Tensor {
    Tensor::new(shape, x.iter().map(|&x| x as f32).collect::<Vec<_>>()).expect("fits")
}

/// Numbers in (−1, 1) that depend on the name.
pub(crate) fn random(name: &str, shape: &[usize], size: f64) -> Tensor {
    let mut state =
        name.bytes().fold(0x9e37_79b9_7f4a_7c15u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    };
    (0..8).for_each(|_| {
        next();
    });
    f32s(shape, &(0..shape.iter().product()).map(|_| next() * size).collect::<Vec<_>>())
}

/// A linear layer that may forget things.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Linear {
    pub(crate) untransposed: bool,
    pub(crate) no_bias: bool,
}

impl Linear {
    pub(crate) fn run(self, w: &[f64], bias: &[f64], x: &Rows) -> Rows {
        let (n, m) = (x.e, w.len() / x.e);
        let weight = |o: usize, i: usize| if self.untransposed { w[i * m + o] } else { w[o * n + i] };
        let mut y = Rows { e: m, x: Vec::new(), ..x.clone() };
        for row in x.x.chunks(n) {
            for (o, bias) in bias.iter().enumerate() {
                let sum: f64 = (0..n).map(|i| row[i] * weight(o, i)).sum();
                y.x.push(sum + if self.no_bias { 0.0 } else { *bias });
            }
        }
        y
    }
}

/// How features become heads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Heads {
    #[default]
    Right,
    /// A reshape without a transpose.
    Direct,
    /// Feature d·H + h.
    Interleaved,
}

impl Heads {
    /// Where feature d of head h at position t stands in one item, `[T, E]` in memory.
    fn place(self, [heads, tokens, size]: [usize; 3], h: usize, t: usize, d: usize) -> usize {
        match self {
            Heads::Right => t * heads * size + h * size + d,
            Heads::Direct => (h * tokens + t) * size + d,
            Heads::Interleaved => t * heads * size + d * heads + h,
        }
    }
}

/// What a mask does to a score that is hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Hide {
    #[default]
    Infinity,
    /// Softmax first, then zeros.
    AfterSoftmax,
    /// The score becomes this.
    Number(f64),
    /// The boolean is added as a number.
    AddBoolean,
}

/// Query i sees key j of item b.
pub(crate) type Seen = Rc<dyn Fn(usize, usize, usize) -> bool>;

/// One attention, done right unless told otherwise.
#[derive(Clone)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) scale: Option<f64>,
    pub(crate) seen: Seen,
    pub(crate) hide: Hide,
    /// 3 keys, 2 queries, 1 heads.
    pub(crate) softmax: usize,
    pub(crate) split: Heads,
    pub(crate) merge: Heads,
    /// Which rows of in_proj serve q, k and v.
    pub(crate) order: [usize; 3],
    pub(crate) swap_keys_and_values: bool,
    pub(crate) out: Linear,
}

impl Attention {
    pub(crate) fn new(heads: usize, seen: impl Fn(usize, usize, usize) -> bool + 'static) -> Attention {
        Attention {
            heads,
            scale: None,
            seen: Rc::new(seen),
            hide: Hide::Infinity,
            softmax: 3,
            split: Heads::Right,
            merge: Heads::Right,
            order: [0, 1, 2],
            swap_keys_and_values: false,
            out: Linear::default(),
        }
    }

    pub(crate) fn run(
        &self,
        w: &Tensors,
        name: &str,
        query: &Rows,
        key: &Rows,
        value: &Rows,
        dump: &mut Tensors,
    ) -> Rows {
        let (b, tq, tk, e) = (query.b, query.t, key.t, query.e);
        let d = e / self.heads;
        let [in_w, in_b] = ["in_proj_weight", "in_proj_bias"].map(|part| w[&format!("{name}{part}")].to_f64());
        let project = |i: usize, x: &Rows| {
            let rows = self.order[i];
            Linear::default().run(&in_w[rows * e * e..][..e * e], &in_b[rows * e..][..e], x)
        };
        let [q, mut k, mut v] = [project(0, query), project(1, key), project(2, value)];
        for (part, x) in [("q", &q), ("k", &k), ("v", &v)] {
            dump.insert(format!("{name}{part}"), x.tensor());
        }
        if self.swap_keys_and_values {
            std::mem::swap(&mut k, &mut v);
        }
        let get = |x: &Rows, b: usize, h: usize, t: usize, i: usize| {
            x.x[b * x.t * e + self.split.place([self.heads, x.t, d], h, t, i)]
        };
        let scale = self.scale.unwrap_or(1.0 / (d as f64).sqrt());
        let at = |b: usize, h: usize, i: usize, j: usize| ((b * self.heads + h) * tq + i) * tk + j;
        let mut scores = vec![0.0; b * self.heads * tq * tk];
        let mut masked = scores.clone();
        let all: Vec<[usize; 4]> = (0..b)
            .flat_map(|b| (0..self.heads).map(move |h| (b, h)))
            .flat_map(|(b, h)| (0..tq * tk).map(move |ij| [b, h, ij / tk, ij % tk]))
            .collect();
        for &[b, h, i, j] in &all {
            let s = scale * (0..d).map(|c| get(&q, b, h, i, c) * get(&k, b, h, j, c)).sum::<f64>();
            let seen = (self.seen)(b, i, j);
            scores[at(b, h, i, j)] = s;
            masked[at(b, h, i, j)] = match self.hide {
                Hide::AddBoolean => s + f64::from(u8::from(seen)),
                _ if seen => s,
                Hide::Infinity => f64::NEG_INFINITY,
                Hide::Number(number) => number,
                Hide::AfterSoftmax => s,
            };
        }
        let mut weights = vec![0.0; masked.len()];
        for &[b, h, i, j] in &all {
            let line: Vec<f64> = match self.softmax {
                3 => (0..tk).map(|j| masked[at(b, h, i, j)]).collect(),
                2 => (0..tq).map(|i| masked[at(b, h, i, j)]).collect(),
                _ => (0..self.heads).map(|h| masked[at(b, h, i, j)]).collect(),
            };
            let most = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            // As PyTorch has it: nothing to see is 0/0.
            let sum: f64 = line.iter().map(|s| (s - most).exp()).sum();
            let weight = (masked[at(b, h, i, j)] - most).exp() / sum;
            let late = self.hide == Hide::AfterSoftmax && !(self.seen)(b, i, j);
            weights[at(b, h, i, j)] = if late { 0.0 } else { weight };
        }
        let mut merged = Rows { b, t: tq, e, x: vec![0.0; b * tq * e] };
        for b in 0..b {
            for h in 0..self.heads {
                for i in 0..tq {
                    for c in 0..d {
                        let sum: f64 = (0..tk).map(|j| weights[at(b, h, i, j)] * get(&v, b, h, j, c)).sum();
                        merged.x[b * tq * e + self.merge.place([self.heads, tq, d], h, i, c)] = sum;
                    }
                }
            }
        }
        dump.insert(format!("{name}scores"), f32s(&[b, self.heads, tq, tk], &scores));
        dump.insert(format!("{name}weights"), f32s(&[b, self.heads, tq, tk], &weights));
        let [out_w, out_b] = ["out_proj.weight", "out_proj.bias"].map(|part| w[&format!("{name}{part}")].to_f64());
        self.out.run(&out_w, &out_b, &merged)
    }
}

/// One layer norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub(crate) epsilon: f64,
    pub(crate) unbiased: bool,
    pub(crate) outside: bool,
    pub(crate) keep_mean: bool,
}

impl Norm {
    pub(crate) fn new() -> Norm {
        Norm { epsilon: 1e-5, unbiased: false, outside: false, keep_mean: false }
    }

    pub(crate) fn run(self, w: &Tensors, name: &str, x: &Rows) -> Rows {
        let [gain, bias] = ["weight", "bias"].map(|part| w[&format!("{name}{part}")].to_f64());
        let n = x.e as f64;
        let mut y = x.clone();
        for row in y.x.chunks_mut(x.e) {
            let mean = if self.keep_mean { 0.0 } else { row.iter().sum::<f64>() / n };
            let squares: f64 = row.iter().map(|x| (x - mean).powi(2)).sum();
            let variance = squares / if self.unbiased { n - 1.0 } else { n };
            let below = if self.outside { variance.sqrt() + self.epsilon } else { (variance + self.epsilon).sqrt() };
            for (i, x) in row.iter_mut().enumerate() {
                *x = (*x - mean) / below * gain[i] + bias[i];
            }
        }
        y
    }
}

/// erf by its series.
fn erf(x: f64) -> f64 {
    let (mut sum, mut term) = (x, x);
    for n in 1..200 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

pub(crate) fn relu(x: f64) -> f64 {
    // A NaN stays one.
    if x <= 0.0 { 0.0 } else { x }
}

pub(crate) fn gelu(x: f64) -> f64 {
    x / 2.0 * (1.0 + erf(x / 2f64.sqrt()))
}

pub(crate) fn gelu_tanh(x: f64) -> f64 {
    x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
}

/// Everything that a decoder layer may do differently.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) own: Attention,
    pub(crate) cross: Attention,
    pub(crate) norms: [Norm; 3],
    pub(crate) linear1: Linear,
    pub(crate) linear2: Linear,
    pub(crate) activation: fn(f64) -> f64,
    pub(crate) norm_first: bool,
    /// Which value is added behind each block: that before it, or (`Some(0)`) the target, or none (`None`).
    pub(crate) residuals: [Residual; 3],
    /// Keys and values of the second attention come from the target.
    pub(crate) memory_is_target: bool,
    /// p of the first dropout.
    pub(crate) dropout: f64,
    /// Which weights serve norm2.
    pub(crate) norm2: &'static str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Residual {
    #[default]
    Right,
    Missing,
    Target,
}

/// A decoder layer's outputs, module by module, as forward hooks see them; inside of attentions too if `inner`.
pub(crate) fn decoder_layer(
    plan: &Plan,
    w: &Tensors,
    prefix: &str,
    tgt: &Rows,
    memory: &Rows,
    inner: bool,
) -> (Tensors, Rows) {
    let mut dump = Tensors::new();
    let mut inside = Tensors::new();
    let name = |part: &str| format!("{prefix}{part}");
    let add = |residual: Residual, x: &Rows, y: &Rows| match residual {
        Residual::Right => x.plus(y),
        Residual::Missing => y.clone(),
        Residual::Target => tgt.plus(y),
    };
    let mut x = tgt.clone();
    for i in 0..3 {
        let norm_name = if i == 1 { name(plan.norm2) } else { name(&format!("norm{}.", i + 1)) };
        let norm = |x: &Rows| plan.norms[i].run(w, &norm_name, x);
        let before = if plan.norm_first { norm(&x) } else { x.clone() };
        let y = match i {
            0 => {
                let own = name("self_attn");
                let y = plan.own.run(w, &format!("{own}."), &before, &before, &before, &mut inside);
                dump.insert(own, y.tensor());
                y
            }
            1 => {
                let cross = name("multihead_attn");
                let from = if plan.memory_is_target { &before } else { memory };
                let y = plan.cross.run(w, &format!("{cross}."), &before, from, from, &mut inside);
                dump.insert(cross, y.tensor());
                y
            }
            _ => {
                let [w1, b1, w2, b2] = ["linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"]
                    .map(|part| w[&name(part)].to_f64());
                let hidden = plan.linear1.run(&w1, &b1, &before);
                dump.insert(name("linear1"), hidden.tensor());
                let active = hidden.map(plan.activation);
                dump.insert(name("dropout"), active.tensor());
                let y = plan.linear2.run(&w2, &b2, &active);
                dump.insert(name("linear2"), y.tensor());
                y
            }
        };
        let dropped = if i == 0 && plan.dropout > 0.0 {
            let chances = random("dropout", &[y.x.len()], 1.0).to_f64();
            let p = plan.dropout;
            let x = y.x.iter().zip(chances).map(|(y, c)| if (c + 1.0) / 2.0 < p { 0.0 } else { y / (1.0 - p) });
            Rows { x: x.collect(), ..y.clone() }
        } else {
            y
        };
        dump.insert(name(&format!("dropout{}", i + 1)), dropped.tensor());
        let sum = add(plan.residuals[i], &x, &dropped);
        dump.insert(
            name(&format!("norm{}", i + 1)),
            if plan.norm_first { before.tensor() } else { norm(&sum).tensor() },
        );
        x = if plan.norm_first { sum } else { norm(&sum) };
    }
    if inner {
        dump.append(&mut inside);
    }
    (dump, x)
}

/// Weights of a layer under PyTorch's names.
pub(crate) fn weights(prefix: &str, width: usize, hidden: usize, decoder: bool) -> Tensors {
    let mut all = Tensors::new();
    let mut add = |name: String, shape: &[usize], size: f64| {
        let tensor = random(&name, shape, size);
        all.insert(name, tensor);
    };
    for attention in ["self_attn", "multihead_attn"].iter().take(1 + usize::from(decoder)) {
        add(format!("{prefix}{attention}.in_proj_weight"), &[3 * width, width], 0.6);
        add(format!("{prefix}{attention}.in_proj_bias"), &[3 * width], 0.4);
        add(format!("{prefix}{attention}.out_proj.weight"), &[width, width], 0.6);
        add(format!("{prefix}{attention}.out_proj.bias"), &[width], 0.4);
    }
    add(format!("{prefix}linear1.weight"), &[hidden, width], 0.6);
    add(format!("{prefix}linear1.bias"), &[hidden], 0.4);
    add(format!("{prefix}linear2.weight"), &[width, hidden], 0.6);
    add(format!("{prefix}linear2.bias"), &[width], 0.4);
    for i in 1..=2 + usize::from(decoder) {
        add(format!("{prefix}norm{i}.weight"), &[width], 1.0);
        add(format!("{prefix}norm{i}.bias"), &[width], 0.4);
    }
    all
}
