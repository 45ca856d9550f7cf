//! Norms, linear layers, activations, residuals, embeddings and positions.

use super::site::{Found, Site, constant};
use crate::{
    Error, Result, Shape, Tensor, ValueId,
    diff::{
        expand::named,
        rebuild::{Edit, Rebuild},
    },
    graph::{Binary, Node, NodeId, Op, Reduce, Unary},
};

pub(super) fn add(site: &Site<'_>, found: &mut Found) {
    let inside = |v: ValueId| site.attentions.iter().any(|a| [a.product, a.scores, a.biased, a.weights].contains(&v));
    for (v, node) in site.nodes() {
        if inside(v) || site.is_weight(v) {
            continue;
        }
        found.at = site.call(v);
        let weight = |input: usize| site.is_weight(node.inputs[input]);
        if let Op::LayerNorm { .. } = node.op {
            norms(site, v, node, found);
        } else if let Op::Matmul { .. } = node.op
            && weight(1)
        {
            linear(site, v, node, found);
        } else if let Op::Binary { function: Binary::Add } = node.op {
            sums(site, v, node, found);
        } else if let Op::Binary { function: Binary::Mul } = node.op
            && weight(1)
        {
            let embedding = matches!(site.g.definition(node.inputs[0]).op, Op::Gather { .. });
            let name = if embedding { "embedding not scaled" } else { "factor missing" };
            skipped(site, v, node.inputs[0], found, name, "a constant factor stands here");
        } else if let Op::Unary { function } = node.op {
            activations(v, node, function, found);
        } else if let Op::Gather { .. } = node.op
            && weight(0)
        {
            embeddings(site, v, found);
        }
    }
    found.at = site.name.to_string();
    on_top(site, found);
}

/// The value is its operand.
fn skipped(site: &Site<'_>, v: ValueId, operand: ValueId, found: &mut Found, name: &str, hint: &str) {
    if site.g.shape(v) == site.g.shape(operand) {
        found.add(name, hint, vec![Edit::new(v, move |r| r.value(operand))]);
    }
}

/// How a norm computes.
#[derive(Clone, Copy)]
struct Norm {
    epsilon: f64,
    /// ε is added to σ instead of σ².
    outside: bool,
    /// n − 1 instead of n.
    unbiased: bool,
    /// The mean is not taken off.
    keep_mean: bool,
    /// Counted from the last axis.
    axes: &'static [isize],
}

impl Norm {
    fn build(self, r: &mut Rebuild<'_>, node: &Node) -> Result<ValueId> {
        let x = r.value(node.inputs[0])?;
        let shape = r.g.shape(x).clone();
        if self.axes.len() > shape.rank() || self.axes.contains(&-2) && shape.rank() < 2 {
            return Err(Error::op("hypothesis", "too few axes"));
        }
        let n: usize = self.axes.iter().map(|&axis| shape[(shape.rank() as isize + axis) as usize]).product();
        let mean = r.g.reduce(Reduce::Mean, x, self.axes, true)?;
        let centred = r.g.sub(x, mean)?;
        let from = if self.keep_mean { x } else { centred };
        let squares = r.g.mul(from, from)?;
        let mut variance = r.g.reduce(Reduce::Mean, squares, self.axes, true)?;
        if self.unbiased {
            let factor = r.g.scalar(n as f64 / (n.max(2) - 1) as f64, x)?;
            variance = r.g.mul(variance, factor)?;
        }
        let epsilon = r.g.scalar(self.epsilon, x)?;
        let below = if self.outside {
            let root = r.g.sqrt(variance)?;
            r.g.add(root, epsilon)?
        } else {
            let sum = r.g.add(variance, epsilon)?;
            r.g.sqrt(sum)?
        };
        let mut y = r.g.div(from, below)?;
        for (i, &operand) in node.inputs[1..].iter().enumerate() {
            let operand = r.value(operand)?;
            let gain = i == 0 && matches!(node.op, Op::LayerNorm { weight: true, .. });
            y = if gain { r.g.mul(y, operand)? } else { r.g.add(y, operand)? };
        }
        Ok(y)
    }
}

fn norms(site: &Site<'_>, v: ValueId, node: &Node, found: &mut Found) {
    let Op::LayerNorm { axes: 1, epsilon, weight, bias } = node.op else { return };
    let ours = Norm { epsilon: epsilon.into(), outside: false, unbiased: false, keep_mean: false, axes: &[-1] };
    let mut other = |name: String, hint: &str, norm: Norm| {
        let node = node.clone();
        found.add(name, hint, vec![Edit::new(v, move |r| norm.build(r, &node))]);
    };
    let biased = "nn.LayerNorm divides by n: var(unbiased=False); torch.std and torch.var divide by n − 1";
    for wrong in [0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-3, 1e-2, 1e-1] {
        if (wrong - ours.epsilon).abs() > 1e-3 * ours.epsilon {
            let hint = format!("ε is {:e} here", epsilon);
            other(format!("ε = {wrong:e}"), &hint, Norm { epsilon: wrong, ..ours });
        }
    }
    other("ε outside the root".into(), "√(σ² + ε), not σ + ε", Norm { outside: true, ..ours });
    other("unbiased variance".into(), biased, Norm { unbiased: true, ..ours });
    for wrong in [ours.epsilon, 1e-6] {
        let name = match wrong == ours.epsilon {
            true => "unbiased variance, ε outside the root".to_string(),
            false => format!("unbiased variance, ε = {wrong:e} outside the root"),
        };
        other(name, biased, Norm { unbiased: true, outside: true, epsilon: wrong, ..ours });
    }
    other("RMS norm instead of layer norm".into(), "the mean is taken off first", Norm { keep_mean: true, ..ours });
    let last = "a layer norm goes over the features of each token by itself: the last axis";
    other("norm over the positions".into(), last, Norm { axes: &[-2], ..ours });
    other("norm over positions and features".into(), last, Norm { axes: &[-2, -1], ..ours });
    skipped(site, v, node.inputs[0], found, "norm missing", "the value arrives without its norm");
    // The last operands are gain and bias.
    let plain = |keep: [bool; 2]| {
        let (node, given) = (node.clone(), [weight, bias]);
        Edit::new(v, move |r| {
            let x = r.value(node.inputs[0])?;
            let mut at = 1;
            let mut operand = |i: usize| {
                let here = given[i].then(|| node.inputs[at]);
                at += usize::from(given[i]);
                here.filter(|_| keep[i])
            };
            let [weight, bias] = [operand(0), operand(1)].map(|v| v.map(|v| r.value(v)));
            r.g.layer_norm(x, weight.transpose()?, bias.transpose()?, epsilon)
        })
    };
    if weight {
        found.add("gain missing", "the norm's weight is not applied", vec![plain([false, true])]);
    }
    if bias {
        found.add("bias missing", "the norm's bias is not added", vec![plain([true, false])]);
    }
    turned_norms(site, v, node, found);
}

/// A norm behind a residual that should stand before the block, and the other way round.
fn turned_norms(site: &Site<'_>, v: ValueId, node: &Node, found: &mut Found) {
    let below = node.inputs[0];
    let sum = site.g.definition(below);
    if site.has(below)
        && matches!(sum.op, Op::Binary { function: Binary::Add })
        && !sum.inputs.iter().any(|&x| site.is_weight(x))
    {
        let [x, y] = [sum.inputs[0], sum.inputs[1]];
        let hint = "this layer is post-norm here, norm(x + block(x)); pre-norm is x + block(norm(x)) (norm_first)";
        // The block's output is the sum's second operand, and reads the first.
        let norm = |of: ValueId| {
            let node = node.clone();
            move |r: &mut Rebuild<'_>| {
                let x = r.unedited(of)?;
                let rest = node.inputs[1..].iter().map(|&w| r.value(w)).collect::<Result<Vec<_>>>()?;
                let operands: Vec<ValueId> = std::iter::once(x).chain(rest).collect();
                Ok(r.g.push(node.op.clone(), &operands)?[0])
            }
        };
        found.add("norm before instead of after", hint, vec![Edit::new(v, norm(x))]);
        if site.has(y) && site.depends(y, x) {
            let normed = norm(x);
            let edits = vec![Edit::new(v, move |r| {
                let own = normed(r)?;
                let block = r.replay(y, x, own)?;
                let x = r.value(x)?;
                r.g.add(x, block)
            })];
            found.add("norm before instead of after", hint, edits);
        }
    }
    // x + block(norm(x)), as norm(x + block(x)).
    let x = below;
    for (at, user) in site.nodes() {
        let residual = matches!(user.op, Op::Binary { function: Binary::Add }) && user.inputs[0] == x;
        if residual && site.has(user.inputs[1]) && site.depends(user.inputs[1], v) {
            let (node, block) = (node.clone(), user.inputs[1]);
            let edit = Edit::new(at, move |r| {
                let x = r.value(x)?;
                let y = r.replay(block, v, x)?;
                let sum = r.g.add(x, y)?;
                let rest = node.inputs[1..].iter().map(|&w| r.value(w)).collect::<Result<Vec<_>>>()?;
                let operands: Vec<ValueId> = std::iter::once(sum).chain(rest).collect();
                Ok(r.g.push(node.op.clone(), &operands)?[0])
            });
            let hint = "this layer is pre-norm here (norm_first), x + block(norm(x)); post-norm is norm(x + block(x))";
            found.add("norm after instead of before", hint, vec![edit]);
        }
    }
}

fn linear(site: &Site<'_>, v: ValueId, node: &Node, found: &mut Found) {
    let [x, w] = [node.inputs[0], node.inputs[1]];
    let shape = site.g.shape(w).clone();
    let Op::Matmul { transpose_a: false, transpose_b } = node.op else { return };
    skipped(site, v, x, found, "linear layer missing", "the value arrives as it was before the layer");
    let [outputs, inputs] = shape[..] else { return };
    if !transpose_b {
        return;
    }
    let hint = "PyTorch stores [out, in]: x @ weight.T + bias";
    // Square, or square blocks on top of each other (in_proj_weight).
    if inputs > 0 && outputs.is_multiple_of(inputs) {
        let edit = Edit::new(v, move |r| {
            let (x, w) = (r.value(x)?, r.value(w)?);
            let blocks = (0..outputs / inputs)
                .map(|i| {
                    let block = r.g.slice(w, 0, i * inputs, (i + 1) * inputs)?;
                    r.g.matmul(x, block)
                })
                .collect::<Result<Vec<_>>>()?;
            if blocks.len() == 1 { Ok(blocks[0]) } else { r.g.concat(&blocks, -1) }
        });
        found.add("weight not transposed", hint, vec![edit]);
    }
    if inputs != outputs {
        let edit = Edit::new(v, move |r| {
            let (x, w) = (r.value(x)?, r.value(w)?);
            let w = r.g.reshape(w, [inputs, outputs])?;
            r.g.matmul(x, w)
        });
        found.add("weight reshaped instead of transposed", hint, vec![edit]);
    }
}

/// Sums with a bias, with positions, and residuals.
fn sums(site: &Site<'_>, v: ValueId, node: &Node, found: &mut Found) {
    let [x, y] = [node.inputs[0], node.inputs[1]];
    if site.is_weight(y) {
        if site.g.shape(y).rank() < 2 {
            skipped(site, v, x, found, "bias missing", "the layer's bias is not added");
        } else {
            skipped(site, v, x, found, "positions missing", "the positions are not added");
            positions(site, v, [x, y], found);
        }
        return;
    }
    let skip = |to: ValueId| vec![Edit::new(v, move |r| r.value(to))];
    if site.g.shape(x) == site.g.shape(v) && site.g.shape(y) == site.g.shape(v) {
        found.add("residual missing", format!("`{}` is to be added here", site.call(x)), skip(y));
        found.add("block missing", format!("`{}` is to be added here", site.call(y)), skip(x));
        let twice = Edit::new(v, move |r| {
            let y = r.value(y)?;
            r.g.add(y, y)
        });
        found.add("block added to itself", format!("`{}` is to be added here", site.call(x)), vec![twice]);
    }
    let mut others = site.others();
    others.extend(site.nodes().into_iter().map(|(at, _)| at).filter(|&at| at < v && !site.is_weight(at)));
    others.sort_unstable();
    others.dedup();
    for other in others {
        let fits = site.g.shape(other) == site.g.shape(x) && other != x && other != y && other != v;
        if fits && !(other > v && site.has(other)) {
            let edit = Edit::new(v, move |r| {
                let (other, y) = (r.value(other)?, r.value(y)?);
                r.g.add(other, y)
            });
            let what = match named(site.g, other) {
                Some(name) => format!("`{name}`"),
                None => format!("a value on the way to `{}`", site.call(other)),
            };
            let hint = format!("{what} is added instead of `{}`", site.call(x));
            found.alone("residual from the wrong place", hint, vec![edit]);
        }
    }
}

/// Positions that are off by one, or go along the wrong axis.
fn positions(site: &Site<'_>, v: ValueId, [x, table]: [ValueId; 2], found: &mut Found) {
    let shape = site.g.shape(table).clone();
    let [length, width] = shape[..] else { return };
    let add = |tensor: Tensor| {
        let table = constant(tensor);
        vec![Edit::new(v, move |r| {
            let (x, table) = (r.value(x)?, table(r)?);
            r.g.add(x, table)
        })]
    };
    let definition = site.g.definition(table);
    // A learned table: other rows of it.
    if let (Op::Slice { starts, sizes, .. }, Some(&whole)) = (&definition.op, definition.inputs.first()) {
        let (start, size) = (starts[0], sizes[0]);
        let entries = site.g.shape(whole)[0];
        for (by, from) in [("late", start + 1), ("early", start.wrapping_sub(1))] {
            if from.checked_add(size).is_some_and(|end| end <= entries) {
                let edit = Edit::new(v, move |r| {
                    let (x, whole) = (r.value(x)?, r.value(whole)?);
                    let rows = r.g.slice(whole, 0, from, from + size)?;
                    r.g.add(x, rows)
                });
                found.add(format!("positions one too {by}"), "the first token has position 0", vec![edit]);
            }
        }
    }
    if let Op::Constant { .. } = definition.op {
        let angle = |t: f64, c: usize, of: usize| t / 10_000f64.powf((c - c % 2) as f64 / of as f64);
        let row =
            |t: f64, c: usize| if c.is_multiple_of(2) { angle(t, c, width).sin() } else { angle(t, c, width).cos() };
        let halves = |t: f64, c: usize| {
            let i = 2 * (c % width.div_ceil(2));
            if c < width.div_ceil(2) { angle(t, i, width).sin() } else { angle(t, i, width).cos() }
        };
        let mut tables: Vec<(String, &str, Vec<f32>)> = Vec::new();
        let all = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f32> {
            (0..length).flat_map(|t| (0..width).map(move |c| (t, c))).map(|(t, c)| f(t, c) as f32).collect()
        };
        let first = "the first token has position 0";
        tables.push(("positions one too late".into(), first, all(&|t, c| row(t as f64 + 1.0, c))));
        tables.push(("positions one too early".into(), first, all(&|t, c| row(t as f64 - 1.0, c))));
        let pairs = "sine and cosine alternate: p[t, 2i] = sin, p[t, 2i + 1] = cos of the same angle";
        tables.push(("sines, then cosines".into(), pairs, all(&|t, c| halves(t as f64, c))));
        let swapped = all(&|t, c| {
            if c.is_multiple_of(2) { angle(t as f64, c, width).cos() } else { angle(t as f64, c, width).sin() }
        });
        tables.push(("sine and cosine swapped".into(), pairs, swapped));
        for (name, hint, table) in tables {
            if let Ok(tensor) = Tensor::new([length, width], table) {
                found.add(name, hint, add(tensor));
            }
        }
    }
    // One position per item instead of per token.
    let into: Shape = site.g.shape(x).clone();
    if let [items, _, _] = into[..]
        && items <= length
    {
        let edit = Edit::new(v, move |r| {
            let (x, table) = (r.value(x)?, r.value(table)?);
            let rows = r.g.slice(table, 0, 0, items)?;
            let rows = r.g.reshape(rows, [items, 1, width])?;
            r.g.add(x, rows)
        });
        found.add("positions along the batch", "positions go along the tokens: check batch_first", vec![edit]);
    }
}

fn activations(v: ValueId, node: &Node, ours: Unary, found: &mut Found) {
    let x = node.inputs[0];
    let known = [
        (Unary::Relu, "relu"),
        (Unary::Gelu, "gelu (erf)"),
        (Unary::GeluTanh, "gelu (tanh)"),
        (Unary::Silu, "silu"),
        (Unary::Tanh, "tanh"),
        (Unary::Sigmoid, "sigmoid"),
    ];
    let Some((_, called)) = known.iter().find(|(function, _)| *function == ours) else { return };
    let hint = format!("the activation is {called} here");
    for (function, name) in known {
        if function != ours {
            let edit = Edit::new(v, move |r| {
                let x = r.value(x)?;
                r.g.unary(function, x)
            });
            found.add(format!("{name} instead of {called}"), hint.clone(), vec![edit]);
        }
    }
    let quick = Edit::new(v, move |r| {
        let x = r.value(x)?;
        let factor = r.g.scalar(1.702, x)?;
        let inner = r.g.mul(x, factor)?;
        let gate = r.g.sigmoid(inner)?;
        r.g.mul(x, gate)
    });
    found.add(format!("gelu (sigmoid) instead of {called}"), hint.clone(), vec![quick]);
    found.add("activation missing", hint, vec![Edit::new(v, move |r| r.value(x))]);
}

fn embeddings(site: &Site<'_>, v: ValueId, found: &mut Found) {
    let scaled = |user: &NodeId| matches!(site.g.node(*user).op, Op::Binary { function: Binary::Mul });
    let Some(&width) = site.g.shape(v).last() else { return };
    if site.users[v.index()].iter().any(scaled) {
        return;
    }
    for (name, factor) in
        [("embedding scaled by √E", (width as f64).sqrt()), ("embedding scaled by 1/√E", 1.0 / (width as f64).sqrt())]
    {
        let edit = Edit::new(v, move |r| {
            let x = r.plain(v)?;
            let factor = r.g.scalar(factor, x)?;
            r.g.mul(x, factor)
        });
        found.add(name, "the embedding is not scaled here", vec![edit]);
    }
}

/// Something that follows the value.
fn on_top(site: &Site<'_>, found: &mut Found) {
    let v = site.target;
    for (function, name) in [(Unary::Relu, "relu"), (Unary::Gelu, "gelu (erf)"), (Unary::GeluTanh, "gelu (tanh)")] {
        let edit = Edit::new(v, move |r| {
            let x = r.plain(v)?;
            r.g.unary(function, x)
        });
        found.add(format!("a {name} too many"), "no activation follows here", vec![edit]);
    }
    let edit = Edit::new(v, move |r| {
        let x = r.plain(v)?;
        r.g.softmax(x, -1)
    });
    found.add("a softmax too many", "no softmax follows here (cross_entropy has its own)", vec![edit]);
}
