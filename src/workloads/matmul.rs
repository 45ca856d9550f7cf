use super::workload::{Size, Workload};
use crate::{DType, Result};

/// Squares, linear layers, batches, and products with few rows or one column.
pub(super) fn workloads(size: Size) -> Result<Vec<Workload>> {
    let mut all = Vec::new();
    let squares: &[usize] = match size {
        Size::Quick => &[128],
        Size::Full => &[256, 512, 1024],
        Size::Large => &[512, 1024, 2048, 4096, 8192],
    };
    for &n in squares {
        all.push(product([n, n, n], DType::F32)?);
    }
    if size == Size::Large {
        for dtype in [DType::F16, DType::BF16] {
            for n in [1024, 4096, 8192] {
                all.push(product([n, n, n], dtype)?);
            }
        }
        for rows in [1, 2, 4, 8] {
            all.push(linear([rows, 4096, 14_336], DType::F16, false)?);
        }
    }
    let layers: &[[usize; 3]] = match size {
        Size::Quick => &[[64, 128, 96]],
        Size::Full => &[[1024, 384, 1536]],
        Size::Large => &[[1024, 384, 1536], [8192, 4096, 16_384]],
    };
    for &sizes in layers {
        all.push(linear(sizes, DType::F32, true)?);
    }
    // As a decoder multiplies, one token at a time.
    let few: &[[usize; 3]] = match size {
        Size::Quick => &[[1, 64, 96]],
        Size::Full => &[[1, 1024, 4096], [4, 1024, 4096], [8, 1024, 4096]],
        Size::Large => &[[1, 4096, 14_336], [4, 4096, 14_336], [8, 4096, 14_336]],
    };
    for &sizes in few {
        all.push(linear(sizes, DType::F32, false)?);
    }
    let [m, k] = if size == Size::Quick { [64, 96] } else { [4096, 1024] };
    all.push(product([m, 1, k], DType::F32)?);
    let [b, m, n, k] = if size == Size::Quick { [2, 32, 24, 16] } else { [16, 256, 256, 64] };
    all.push(Workload::new("matmul", &format!("b{b} {m}x{n}x{k}"), |w| {
        let (x, y) = (w.input("a", &[b, m, k])?, w.input("b", &[b, k, n])?);
        w.graph.matmul(x, y)
    })?);
    let [b, h, m, n, k] = if size == Size::Quick { [2, 2, 16, 24, 16] } else { [4, 4, 128, 256, 128] };
    all.push(Workload::new("matmul", &format!("b{b} h{h} {m}x{n}x{k} a shared by b, b by h"), |w| {
        let (x, y) = (w.input("a", &[h, m, k])?, w.input("b", &[b, 1, k, n])?);
        w.graph.matmul(x, y)
    })?);
    let n = if size == Size::Quick { 64 } else { 512 };
    all.push(Workload::new("matmul", &format!("{n}x{n}x{n} transposed"), |w| {
        let (x, y) = (w.input("a", &[n, n])?, w.input("b", &[n, n])?);
        let x = w.graph.permute(x, &[1, 0])?;
        w.graph.matmul_transposed(x, y)
    })?);
    Ok(all)
}

fn suffix(dtype: DType) -> String {
    if dtype == DType::F32 { String::new() } else { format!(" {dtype}") }
}

/// `a [M, K] · b [K, N]`, of sizes M, N, K.
fn product([m, n, k]: [usize; 3], dtype: DType) -> Result<Workload> {
    Workload::new("matmul", &format!("{m}x{n}x{k}{}", suffix(dtype)), |w| {
        let a = w.graph.input("a", dtype, [m, k])?;
        let b = w.graph.input("b", dtype, [k, n])?;
        w.graph.matmul(a, b)
    })
}

/// A layer of `inputs` to `outputs` numbers for each of `rows` tokens, alone or with bias and gelu.
fn linear([rows, inputs, outputs]: [usize; 3], dtype: DType, whole: bool) -> Result<Workload> {
    let epilogue = if whole { " +bias +gelu" } else { "" };
    Workload::new("matmul", &format!("{rows}x{outputs}x{inputs} linear{epilogue}{}", suffix(dtype)), |w| {
        let x = w.graph.input("x", dtype, [rows, inputs])?;
        let weight = w.graph.input("w", dtype, [outputs, inputs])?;
        let bias = whole.then(|| w.graph.input("b", dtype, [outputs])).transpose()?;
        let y = w.graph.linear(x, weight, bias)?;
        if whole { w.graph.gelu(y) } else { Ok(y) }
    })
}
