use super::workload::{Builder, Size, Workload};
use crate::{
    DType, Result,
    graph::{Align, Attention, AttentionArgs, Mask, Op, ScoreMod},
};

/// Sizes of attention.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    /// Heads of q, and of k and v.
    heads: [usize; 2],
    rows: usize,
    keys: usize,
    width: usize,
}

impl Shape {
    const fn new(batch: usize, heads: usize, tokens: usize, width: usize) -> Self {
        Shape { batch, heads: [heads; 2], rows: tokens, keys: tokens, width }
    }

    /// One query for each sequence: a step of decoding, with four query heads to a key head.
    const fn decoding(batch: usize, keys: usize) -> Self {
        Shape { batch, heads: [8, 2], rows: 1, keys, width: 64 }
    }
}

/// What masks or shifts scores.
#[derive(Clone, Copy, PartialEq)]
enum Modifier {
    None,
    Causal,
    Window,
    Bias,
    Softcap,
    Boolean,
    Lengths,
    Function,
}

use Modifier::{Bias, Boolean, Causal, Function, Lengths, Softcap, Window};

/// Every modifier at one shape, the common ones at others; packed sequences; decoding.
pub(super) fn workloads(size: Size) -> Result<Vec<Workload>> {
    const NONE: Modifier = Modifier::None;
    let all_of_them: &[Modifier] = &[NONE, Causal, Window, Bias, Softcap, Boolean, Lengths, Function];
    let cases: Vec<(Shape, DType, &[Modifier])> = match size {
        Size::Quick => vec![
            (Shape::new(1, 2, 64, 32), DType::F32, all_of_them),
            (Shape { batch: 2, heads: [4, 2], rows: 1, keys: 96, width: 32 }, DType::F32, &[NONE]),
        ],
        Size::Full => vec![
            (Shape::new(1, 8, 256, 64), DType::F32, all_of_them),
            (Shape::new(2, 8, 512, 64), DType::F32, &[NONE, Causal]),
            (Shape::new(1, 4, 256, 128), DType::F32, &[NONE, Causal]),
            (Shape { heads: [8, 2], ..Shape::new(1, 8, 256, 64) }, DType::F32, &[Causal]),
            (Shape::decoding(1, 2048), DType::F32, &[NONE]),
            (Shape::decoding(4, 2048), DType::F32, &[Lengths]),
            (Shape::decoding(16, 2048), DType::F32, &[NONE]),
            (Shape::decoding(1, 8192), DType::F32, &[NONE]),
        ],
        Size::Large => vec![
            (Shape::new(2, 8, 512, 64), DType::F32, all_of_them),
            (Shape::new(1, 16, 4096, 64), DType::F32, &[NONE, Causal]),
            (Shape::new(1, 16, 4096, 128), DType::F32, &[NONE, Causal]),
            (Shape::new(1, 16, 4096, 128), DType::F16, &[NONE, Causal]),
            (Shape::new(1, 16, 16_384, 64), DType::F16, &[NONE, Causal]),
            (Shape::new(1, 16, 16_384, 128), DType::F16, &[NONE, Causal]),
            (Shape::decoding(1, 8192), DType::F32, &[NONE]),
            (Shape::decoding(16, 8192), DType::F32, &[NONE]),
            (Shape::decoding(16, 8192), DType::F16, &[NONE]),
        ],
    };
    let mut all = Vec::new();
    for (shape, dtype, modifiers) in cases {
        for &modifier in modifiers {
            all.push(attention(shape, dtype, modifier)?);
        }
    }
    let gradients: &[Shape] = match size {
        Size::Quick => &[Shape::new(1, 2, 64, 32)],
        Size::Full => &[Shape::new(1, 8, 256, 64), Shape::new(2, 8, 512, 64), Shape::new(1, 4, 256, 128)],
        Size::Large => &[Shape::new(1, 16, 4096, 64), Shape::new(1, 16, 4096, 128)],
    };
    for &shape in gradients {
        for modifier in [NONE, Causal] {
            all.push(gradient(shape, modifier)?);
        }
    }
    all.push(match size {
        Size::Quick => packed(&[10, 30], 2, 32)?,
        Size::Full => packed(&[256, 64, 128, 32], 8, 64)?,
        Size::Large => packed(&[4096, 512, 2048, 1024, 512], 16, 64)?,
    });
    all.push(merge(if size == Size::Quick { [2, 2, 64, 32] } else { [8, 8, 512, 64] })?);
    Ok(all)
}

fn attention(shape: Shape, dtype: DType, modifier: Modifier) -> Result<Workload> {
    let Shape { batch, heads: [heads, key_heads], rows, keys, width } = shape;
    let grouped = if heads == key_heads { String::new() } else { format!("/{key_heads}") };
    let window = keys as u32 / 4;
    let label = match modifier {
        Modifier::None => "",
        Causal => " causal",
        Window => &format!(" window {window}"),
        Bias => " bias",
        Softcap => " softcap",
        Boolean => " boolean mask",
        Lengths => " key lengths",
        Function => " function",
    };
    let suffix = if dtype == DType::F32 { String::new() } else { format!(" {dtype}") };
    let name = format!("b{batch} h{heads}{grouped} q{rows} k{keys} d{width}{label}{suffix}");
    Workload::new("attention", &name, |w| {
        let q = w.graph.input("q", dtype, [batch, heads, rows, width])?;
        let k = w.graph.input("k", dtype, [batch, key_heads, keys, width])?;
        let v = w.graph.input("v", dtype, [batch, key_heads, keys, width])?;
        let softcap = (modifier == Softcap).then_some(30.0);
        let mask = match modifier {
            Modifier::None | Softcap | Function => Mask::none(),
            Causal => Mask::causal(Align::BottomRight),
            Window => Mask::window(window, 0, Align::BottomRight),
            Bias => Mask::bias(w.input("bias", &[heads, rows, keys])?),
            Boolean => Mask::boolean(w.graph.input("mask", DType::Bool, [batch, 1, rows, keys])?),
            Lengths => Mask::key_lengths(w.integers("lengths", &[batch], lengths(batch, keys))?),
        };
        let mut args = AttentionArgs { softcap, ..mask.into() };
        if modifier == Function {
            let near =
                ScoreMod::new("score - 0.1 * f32(abs(i - j))", |s| s.score - 0.1 * f64::from((s.i - s.j).abs()))?;
            args = args.score_mod(near);
        }
        w.graph.attention(q, k, v, args)
    })
}

/// The gradients of q, k and v.
fn gradient(shape: Shape, modifier: Modifier) -> Result<Workload> {
    let Shape { batch, heads: [heads, key_heads], rows, keys, width } = shape;
    let causal = modifier == Causal;
    let name = format!("b{batch} h{heads} q{rows} k{keys} d{width}{}", if causal { " causal" } else { "" });
    Workload::new("attention_grad", &name, |w| {
        let q = w.input("q", &[batch, heads, rows, width])?;
        let k = w.input("k", &[batch, key_heads, keys, width])?;
        let v = w.input("v", &[batch, key_heads, keys, width])?;
        let dout = w.input("dout", &[batch, heads, rows, width])?;
        let statistics = w.input("statistics", &[2, batch, heads, rows])?;
        let options = Attention { causal, ..Attention::default() };
        let grads = w.graph.push(Op::AttentionGrad(options), &[q, k, v, dout, statistics])?;
        w.graph.output("dk", grads[1])?;
        w.graph.output("dv", grads[2])?;
        Ok(grads[0])
    })
}

/// What several runs over parts of the keys gave, put together.
fn merge([parts, heads, rows, width]: [usize; 4]) -> Result<Workload> {
    Workload::new("attention_merge", &format!("p{parts} h{heads} q{rows} d{width}"), |w| {
        let outs = w.input("outs", &[parts, heads, rows, width])?;
        let lses = w.input("lses", &[parts, heads, rows])?;
        Ok(w.graph.attention_merge_stacked(outs, lses)?.0)
    })
}

/// From all tokens down to half of them.
pub(super) fn lengths(batch: usize, tokens: usize) -> Vec<i32> {
    (0..batch).map(|i| (tokens - tokens * i / (2 * batch)) as i32).collect()
}

/// Sequences end to end, causal.
fn packed(lengths: &[usize], heads: usize, width: usize) -> Result<Workload> {
    let total: usize = lengths.iter().sum();
    let list: Vec<String> = lengths.iter().map(usize::to_string).collect();
    Workload::new("attention", &format!("packed {} h{heads} d{width} causal", list.join("+")), |w: &mut Builder| {
        let mut operand = |name: &str| w.input(name, &[total, heads, width]);
        let (q, k, v) = (operand("q")?, operand("k")?, operand("v")?);
        let starts = lengths.iter().scan(0, |at, &length| {
            *at += length as i32;
            Some(*at)
        });
        let starts: Vec<i32> = std::iter::once(0).chain(starts).collect();
        let starts = w.integers("starts", &[starts.len()], starts)?;
        w.graph.attention(q, k, v, Mask::packed(starts, starts) & Mask::causal(Align::TopLeft))
    })
}
