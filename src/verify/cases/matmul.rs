use super::{
    case::{Cases, Draft},
    dequantize::{KINDS, packed},
};
use crate::{
    DType, Result, Shape, ValueId,
    graph::{Op, Unary},
    reference::compare::Check,
};

const FAMILY: &str = "matmul";

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    plain(&mut all)?;
    batched(&mut all)?;
    strided(&mut all)?;
    epilogues(&mut all)?;
    quantized(&mut all)?;
    not_finite(&mut all)?;
    Ok(all)
}

/// What is not finite reaches the sums that it is part of, and no other: no zero that pads a tile meets it.
fn not_finite(all: &mut Cases) -> Result<()> {
    let sizes = all.choose(&[[1, 7, 13], [7, 13, 11], [5, 67, 35], [67, 65, 33], [3, 131, 68]], &[[130, 129, 65]]);
    for [m, k, n] in sizes {
        for dtype in [DType::F32, DType::F16] {
            for transposed in [[false, false], [false, true], [true, false]] {
                let name = format!("{dtype} {m}x{k} · {k}x{n}, transposed {transposed:?}");
                all.add_not_finite(FAMILY, name, measured(k), |draft| {
                    let [a_shape, b_shape] = [([m, k], transposed[0]), ([k, n], transposed[1])]
                        .map(|([r, c], t)| if t { [c, r] } else { [r, c] });
                    // The last terms of a row and of a column, which stand for those past the end.
                    let odd = |draft: &mut Draft,
                               rows: usize,
                               columns: usize,
                               turned: bool,
                               places: &[(usize, usize, f64)]| {
                        let mut numbers: Vec<f64> = (0..rows * columns).map(|_| draft.random.real(-1.0, 1.0)).collect();
                        for &(row, column, number) in places {
                            numbers[if turned { column * rows + row } else { row * columns + column }] = number;
                        }
                        numbers
                    };
                    let a = odd(draft, m, k, transposed[0], &[(0, k - 1, f64::INFINITY), (m / 2, k / 2, f64::NAN)]);
                    let b = odd(
                        draft,
                        k,
                        n,
                        transposed[1],
                        &[(k - 1, n - 1, f64::NEG_INFINITY), (k - 1, 0, f64::INFINITY)],
                    );
                    let a = draft.numbers("a", dtype, a_shape, &a)?;
                    let b = draft.numbers("b", dtype, b_shape, &b)?;
                    Ok(vec![product(draft, a, b, transposed)?])
                })?;
            }
        }
    }
    Ok(())
}

/// Sums of k products of numbers from −1 to 1 have this size.
fn measured(k: usize) -> Check {
    Check::Measured { magnitude: (k as f64).sqrt() / 3.0 }
}

fn product(draft: &mut Draft, a: ValueId, b: ValueId, transposed: [bool; 2]) -> Result<ValueId> {
    let [transpose_a, transpose_b] = transposed;
    Ok(draft.graph.push(Op::Matmul { transpose_a, transpose_b }, &[a, b])?[0])
}

fn plain(all: &mut Cases) -> Result<()> {
    let sizes = all.choose(
        &[
            [1, 1, 1],
            [0, 3, 4],
            [3, 4, 0],
            [3, 0, 4],
            [1, 64, 33],
            [37, 64, 1],
            [2, 7, 300],
            [7, 13, 11],
            [16, 16, 16],
            [15, 17, 31],
            [33, 32, 35],
            [64, 64, 64],
            [63, 65, 67],
            [5, 1031, 9],
            // More rounds of loops than llvmpipe lets an invocation have, term by term.
            [3, 70000, 2],
        ],
        &[
            [1, 4096, 257],
            [2, 1000, 1000],
            [17, 1, 19],
            [128, 128, 128],
            [129, 127, 131],
            [131, 67, 259],
            [4, 5000, 12],
            [300, 9, 3],
            [256, 256, 256],
            [257, 31, 255],
            [40, 150_000, 8],
        ],
    );
    for [m, k, n] in sizes {
        for transposed in [[false, false], [false, true], [true, false], [true, true]] {
            let [ta, tb] = transposed;
            let a_shape = if ta { [k, m] } else { [m, k] };
            let b_shape = if tb { [n, k] } else { [k, n] };
            let t = |transposed: bool| if transposed { "ᵀ" } else { "" };
            let name = format!("{m}x{k}{} · {k}x{n}{}", t(ta), t(tb));
            // Products up to 64 and sums up to 2²⁴ are exact in f32.
            all.add(FAMILY, format!("{name} exact"), Check::Exact, |draft| {
                let a = draft.wholes("a", DType::F32, a_shape, [-8, 8])?;
                let b = draft.wholes("b", DType::F32, b_shape, [-8, 8])?;
                Ok(vec![product(draft, a, b, transposed)?])
            })?;
            if [ta, tb] == [false, false] || all.is_full() {
                all.add(FAMILY, name, measured(k), |draft| {
                    let a = draft.reals("a", DType::F32, a_shape, [-1.0, 1.0])?;
                    let b = draft.reals("b", DType::F32, b_shape, [-1.0, 1.0])?;
                    Ok(vec![product(draft, a, b, transposed)?])
                })?;
            }
        }
    }
    for dtype in [DType::F16, DType::BF16] {
        for [m, k, n] in all.choose(&[[1, 5, 3], [17, 33, 15], [1, 130, 70], [64, 48, 66]], &[[129, 127, 131]]) {
            for transpose_b in [false, true] {
                let b_shape = if transpose_b { [n, k] } else { [k, n] };
                let t = if transpose_b { "ᵀ" } else { "" };
                all.add(FAMILY, format!("{dtype} {m}x{k} · {k}x{n}{t}"), measured(k), |draft| {
                    let a = draft.reals("a", dtype, [m, k], [-1.0, 1.0])?;
                    let b = draft.weight("b", dtype, b_shape)?;
                    Ok(vec![product(draft, a, b, [false, transpose_b])?])
                })?;
            }
        }
    }
    Ok(())
}

fn batched(all: &mut Cases) -> Result<()> {
    let shapes = all.choose::<[&[usize]; 2]>(
        &[
            [&[3, 5, 7], &[3, 7, 4]],
            [&[5, 7], &[2, 7, 9]],
            [&[2, 3, 5, 7], &[7, 9]],
            [&[2, 1, 17, 8], &[1, 3, 8, 33]],
            [&[0, 5, 7], &[7, 9]],
            [&[7], &[7]],
            [&[7], &[7, 9]],
            [&[5, 7], &[7]],
            [&[4, 5, 7], &[7]],
            [&[33], &[2, 3, 33, 5]],
        ],
        &[[&[6, 65, 31], &[6, 31, 67]], [&[2, 3, 1, 70], &[2, 3, 70, 129]], [&[300, 3, 2], &[300, 2, 3]]],
    );
    for [a_shape, b_shape] in shapes {
        let (a_shape, b_shape) = (Shape::from(a_shape), Shape::from(b_shape));
        let k = a_shape.last().copied().unwrap_or(1);
        for exact in [true, false] {
            let (suffix, check) = if exact { (" exact", Check::Exact) } else { ("", measured(k)) };
            all.add(FAMILY, format!("{a_shape} · {b_shape}{suffix}"), check, |draft| {
                let a = operand(draft, "a", &a_shape, exact)?;
                let b = operand(draft, "b", &b_shape, exact)?;
                Ok(vec![draft.graph.matmul(a, b)?])
            })?;
        }
    }
    Ok(())
}

fn operand(draft: &mut Draft, name: &str, shape: &Shape, exact: bool) -> Result<ValueId> {
    if exact {
        draft.wholes(name, DType::F32, shape, [-8, 8])
    } else {
        draft.reals(name, DType::F32, shape, [-1.0, 1.0])
    }
}

/// Operands that are views: heads of a projection, a slice, a row that stretches.
fn strided(all: &mut Cases) -> Result<()> {
    all.add(FAMILY, "heads [B, T, H·D] against each other", Check::Exact, |draft| {
        let q = draft.wholes("q", DType::F32, [2, 9, 12], [-8, 8])?;
        let k = draft.wholes("k", DType::F32, [2, 17, 12], [-8, 8])?;
        let (q, k) = (draft.graph.split_heads(q, 3)?, draft.graph.split_heads(k, 3)?);
        Ok(vec![draft.graph.matmul_transposed(q, k)?])
    })?;
    all.add(FAMILY, "every second row, from the end", Check::Exact, |draft| {
        let a = draft.wholes("a", DType::F32, [21, 10], [-8, 8])?;
        let slice = Op::Slice { starts: vec![20, 1], sizes: vec![10, 4], steps: vec![-2, 2] };
        let a = draft.graph.push(slice, &[a])?[0];
        let b = draft.wholes("b", DType::F32, [4, 33], [-8, 8])?;
        Ok(vec![draft.graph.matmul(a, b)?])
    })?;
    all.add(FAMILY, "one row for all", Check::Exact, |draft| {
        let a = draft.wholes("a", DType::F32, [1, 19], [-8, 8])?;
        let a = draft.graph.broadcast(a, [18, 19])?;
        let b = draft.wholes("b", DType::F32, [19, 5], [-8, 8])?;
        Ok(vec![draft.graph.matmul(a, b)?])
    })?;
    all.add(FAMILY, "a third of one buffer", Check::Exact, |draft| {
        let qkv = draft.wholes("qkv", DType::F32, [7, 36], [-8, 8])?;
        let (q, k) = (draft.graph.slice(qkv, 1, 0, 12)?, draft.graph.slice(qkv, 1, 12, 24)?);
        Ok(vec![draft.graph.matmul_transposed(q, k)?])
    })
}

/// What lowering may fuse behind a product.
fn epilogues(all: &mut Cases) -> Result<()> {
    let sizes = all.choose(&[[17, 33, 20], [1, 64, 31]], &[[65, 130, 67]]);
    for [m, k, n] in sizes {
        let check = measured(k);
        all.add(FAMILY, format!("linear {m}x{k}x{n}"), check, |draft| {
            let x = draft.reals("x", DType::F32, [m, k], [-1.0, 1.0])?;
            let (w, b) = (draft.weight("w", DType::F32, [n, k])?, draft.weight("b", DType::F32, [n])?);
            Ok(vec![draft.graph.linear(x, w, Some(b))?])
        })?;
        let more = [Unary::GeluTanh, Unary::Silu, Unary::Sigmoid, Unary::Tanh];
        for function in all.choose(&[Unary::Relu, Unary::Gelu], &more) {
            all.add(FAMILY, format!("linear {m}x{k}x{n}, {}", function.name()), check, |draft| {
                let x = draft.reals("x", DType::F32, [m, k], [-1.0, 1.0])?;
                let (w, b) = (draft.weight("w", DType::F32, [n, k])?, draft.weight("b", DType::F32, [n])?);
                let y = draft.graph.linear(x, w, Some(b))?;
                Ok(vec![draft.graph.unary(function, y)?])
            })?;
        }
        for dtype in [DType::F32, DType::F16] {
            all.add(FAMILY, format!("{dtype} linear {m}x{k}x{n}, gelu, residual"), check, |draft| {
                let x = draft.reals("x", dtype, [2, m, k], [-1.0, 1.0])?;
                let (w, b) = (draft.weight("w", dtype, [n, k])?, draft.weight("b", dtype, [n])?);
                let residual = draft.reals("residual", dtype, [2, m, n], [-1.0, 1.0])?;
                let y = draft.graph.linear(x, w, Some(b))?;
                let y = draft.graph.gelu(y)?;
                Ok(vec![draft.graph.add(y, residual)?])
            })?;
        }
        all.add(FAMILY, format!("{m}x{k}x{n} scaled, with the sum as a second output"), check, |draft| {
            let a = draft.reals("a", DType::F32, [m, k], [-1.0, 1.0])?;
            let b = draft.reals("b", DType::F32, [k, n], [-1.0, 1.0])?;
            let y = draft.graph.matmul(a, b)?;
            let half = draft.graph.scalar(0.5, y)?;
            Ok(vec![y, draft.graph.mul(y, half)?])
        })?;
    }
    Ok(())
}

/// Linear layers with weights of few bits.
fn quantized(all: &mut Cases) -> Result<()> {
    let sizes = all.choose(&[[1, 64, 33], [7, 130, 24], [35, 67, 40]], &[[1, 1024, 257], [70, 260, 129]]);
    for (i, quantization) in KINDS.into_iter().enumerate() {
        for (j, &[m, k, n]) in sizes.iter().enumerate() {
            // Two sizes of each kind will do for a quick look.
            if !all.is_full() && j == i % 3 {
                continue;
            }
            let packing = quantization.packing(k);
            let name = format!("linear {m}x{k}x{n} of {packing}, scales {}", quantization.scales);
            // Products up to 8·255·3 and sums up to 2²⁴ are exact in f32.
            all.add(FAMILY, format!("{name} exact"), Check::Exact, |draft| {
                let x = draft.wholes("x", DType::F32, [m, k], [-8, 8])?;
                let w = packed(draft, [n, k], quantization, true)?;
                Ok(vec![draft.graph.linear_quantized(x, w, None)?])
            })?;
            // Weights up to 255 · 0.01.
            let check = Check::Measured { magnitude: 2.55 * (k as f64).sqrt() / 3.0 };
            all.add(FAMILY, format!("{name}, gelu, residual"), check, |draft| {
                let x = draft.reals("x", DType::F32, [m, k], [-1.0, 1.0])?;
                let w = packed(draft, [n, k], quantization, false)?;
                let bias = draft.weight("bias", DType::F32, [n])?;
                let residual = draft.reals("residual", DType::F32, [m, n], [-1.0, 1.0])?;
                let y = draft.graph.linear_quantized(x, w, Some(bias))?;
                let y = draft.graph.gelu(y)?;
                Ok(vec![draft.graph.add(y, residual)?])
            })?;
        }
    }
    // A sum of one product: no step along k is ever taken.
    for quantization in KINDS {
        for [m, n] in [[2, 3], [1, 1], [17, 1], [1, 33]] {
            let packing = quantization.packing(1);
            let name = format!("linear {m}x1x{n} of {packing}, scales {} exact", quantization.scales);
            all.add(FAMILY, name, Check::Exact, |draft| {
                let x = draft.wholes("x", DType::F32, [m, 1], [-8, 8])?;
                let w = packed(draft, [n, 1], quantization, true)?;
                Ok(vec![draft.graph.linear_quantized(x, w, None)?])
            })?;
        }
    }
    all.add(FAMILY, "f16 linear of few bits", measured(96), |draft| {
        let x = draft.reals("x", DType::F16, [2, 3, 96], [-1.0, 1.0])?;
        let w = packed(draft, [40, 96], KINDS[2], false)?;
        let bias = draft.weight("bias", DType::F16, [40])?;
        Ok(vec![draft.graph.linear_quantized(x, w, Some(bias))?])
    })
}
