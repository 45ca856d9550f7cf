use super::workload::{Random, Size, Workload};
use crate::{
    Result,
    grad::gradients,
    graph::{CrossEntropyArgs, Reduce},
};

/// What is limited by memory: norms, softmax, reductions, functions of elements, and moving data.
pub(super) fn workloads(size: Size) -> Result<Vec<Workload>> {
    let shapes: &[[usize; 2]] = match size {
        Size::Quick => &[[64, 96]],
        Size::Full => &[[4096, 768], [1024, 1024]],
        Size::Large => &[[4096, 768], [16_384, 4096]],
    };
    let mut all = Vec::new();
    for (i, &shape) in shapes.iter().enumerate() {
        all.extend(norms(shape, i == 0)?);
        all.extend(lines(shape, i == 0)?);
    }
    let [entries, width, tokens] = if size == Size::Quick { [100, 32, 16] } else { [30_522, 384, 1024] };
    all.push(Workload::new("gather", &format!("{tokens} of {entries}x{width}"), |w| {
        let table = w.input("table", &[entries, width])?;
        let mut random = Random(7);
        let ids = (0..tokens).map(|_| (random.next() % entries as u64) as i32).collect();
        let ids = w.integers("ids", &[tokens], ids)?;
        w.graph.gather(table, ids, 0)
    })?);
    all.push(Workload::new("scatter_add", &format!("{tokens}x{width} to {entries}"), |w| {
        let updates = w.input("updates", &[tokens, width])?;
        let mut random = Random(7);
        let ids = (0..tokens).map(|_| (random.next() % entries as u64) as i32).collect();
        let ids = w.integers("ids", &[tokens], ids)?;
        w.graph.scatter_add(updates, ids, 0, entries)
    })?);
    let (tokens, classes) = if size == Size::Quick { (16, 100) } else { (64, 30_522) };
    all.push(cross_entropy(tokens, classes, false)?);
    let [rows, width] = if size == Size::Quick { [64, 96] } else { [4096, 768] };
    all.push(dropout([rows, width], false)?);
    if size != Size::Quick {
        all.push(dropout([rows, width], true)?);
    }
    if size != Size::Quick {
        all.push(cross_entropy(2048, 1024, false)?);
        all.push(cross_entropy(2048, 1024, true)?);
    }
    Ok(all)
}

/// Alone, and as in a layer: behind an activation, before a residual.
fn dropout([rows, width]: [usize; 2], fused: bool) -> Result<Workload> {
    let formula = if fused { "dropout(gelu(a))+b" } else { "dropout" };
    Workload::new("pointwise", &format!("{rows}x{width} {formula}"), |w| {
        let x = w.input("x", &[rows, width])?;
        let seed = w.integers("seed", &[4], vec![7, 0, 1, 0])?;
        if !fused {
            return w.graph.dropout(x, seed, 0.1);
        }
        let residual = w.input("residual", &[rows, width])?;
        let active = w.graph.gelu(x)?;
        let dropped = w.graph.dropout(active, seed, 0.1)?;
        w.graph.add(dropped, residual)
    })
}

fn cross_entropy(tokens: usize, classes: usize, backward: bool) -> Result<Workload> {
    let label = if backward { " +gradient" } else { "" };
    Workload::new("cross_entropy", &format!("{tokens}x{classes}{label}"), |w| {
        let logits = w.input("logits", &[tokens, classes])?;
        let mut random = Random(7);
        let targets = (0..tokens).map(|_| (random.next() % classes as u64) as i32).collect();
        let targets = w.integers("targets", &[tokens], targets)?;
        let loss = w.graph.cross_entropy(logits, targets, CrossEntropyArgs::default())?.loss;
        if !backward {
            return Ok(loss);
        }
        let mean = w.graph.reduce(Reduce::Mean, loss, &[], false)?;
        w.graph.output("mean", mean)?;
        Ok(gradients(&mut w.graph, mean, &[logits])?[0])
    })
}

fn norms([rows, width]: [usize; 2], every: bool) -> Result<Vec<Workload>> {
    let shape = format!("{rows}x{width}");
    let norm = |family: &'static str, residual: bool| {
        let label = if residual { " +residual" } else { "" };
        Workload::new(family, &format!("{shape}{label}"), |w| {
            let mut x = w.input("x", &[rows, width])?;
            if residual {
                let residual = w.input("residual", &[rows, width])?;
                x = w.graph.add(x, residual)?;
                // The sum goes on beside the norm, as in a pre-norm layer.
                w.graph.output("sum", x)?;
            }
            let weight = w.input("weight", &[width])?;
            if family == "rms_norm" {
                return w.graph.rms_norm(x, Some(weight), 1e-5);
            }
            let bias = w.input("bias", &[width])?;
            w.graph.layer_norm(x, Some(weight), Some(bias), 1e-5)
        })
    };
    let mut all = vec![norm("layer_norm", false)?];
    if every {
        all.extend([norm("layer_norm", true)?, norm("rms_norm", false)?, norm("rms_norm", true)?]);
    }
    Ok(all)
}

fn lines([rows, width]: [usize; 2], every: bool) -> Result<Vec<Workload>> {
    let shape = format!("{rows}x{width}");
    let of_x =
        |family: &'static str, label: &str, build: fn(&mut crate::Graph, crate::ValueId) -> Result<crate::ValueId>| {
            Workload::new(family, &format!("{shape}{label}"), |w| {
                let x = w.input("x", &[rows, width])?;
                build(&mut w.graph, x)
            })
        };
    let mut all = vec![
        of_x("softmax", "", |g, x| g.softmax(x, -1))?,
        of_x("reduce", " sum", |g, x| g.reduce(Reduce::Sum, x, &[-1], false))?,
        of_x("copy", " transpose", |g, x| g.permute(x, &[1, 0]))?,
        Workload::new("pointwise", &format!("{shape} add"), |w| {
            let (a, b) = (w.input("a", &[rows, width])?, w.input("b", &[rows, width])?);
            w.graph.add(a, b)
        })?,
        Workload::new("pointwise", &format!("{shape} gelu(a+b)*c"), |w| {
            let (a, b, c) = (w.input("a", &[rows, width])?, w.input("b", &[width])?, w.input("c", &[rows, width])?);
            let sum = w.graph.add(a, b)?;
            let y = w.graph.gelu(sum)?;
            w.graph.mul(y, c)
        })?,
    ];
    if every {
        all.extend([
            of_x("reduce", " sum of columns", |g, x| g.reduce(Reduce::Sum, x, &[0], false))?,
            of_x("argmax", "", |g, x| g.argmax(x, -1, false))?,
        ]);
    }
    Ok(all)
}
