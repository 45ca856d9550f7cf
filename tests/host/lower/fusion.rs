//! What shares a kernel, what does not, and why.

use tilewise::{
    DType, Graph, Result, ValueId,
    grad::gradients,
    graph::{Binary, CrossEntropyArgs, Op, Reduce, Unary},
    lower::{Options, Program},
};

use super::{applied, families, graph, input, lowered, note, program, refused};

const MATMUL: &str = "fuse into matmul";
const NORM: &str = "fuse into norm";
const POINTWISE: &str = "fuse pointwise";

fn product(g: &mut Graph) -> Result<ValueId> {
    let (x, w) = (input(g, "x", &[4, 8])?, input(g, "w", &[16, 8])?);
    let y = g.matmul_transposed(x, w)?;
    g.name(y, "product")?;
    Ok(y)
}

#[test]
fn a_matmul_takes_its_whole_epilogue() {
    let all = program(|g| {
        let y = product(g)?;
        let (scale, bias, residual) = (g.scalar(0.5, y)?, input(g, "bias", &[16])?, input(g, "residual", &[4, 16])?);
        let y = g.mul(y, scale)?;
        let y = g.add(bias, y)?;
        let y = g.gelu(y)?;
        g.add(y, residual)
    });
    assert_eq!(families(&all), ["matmul"], "{all}");
    assert_eq!(all.steps[0].summary, "M=4 N=16 K=8 scale=0.5 +bias +gelu +residual");
    assert_eq!(all.steps[0].covers, ["product", "%6", "%7", "%8", "%9"]);
    applied(&all, MATMUL, "scale 0.5, bias `bias`, gelu, residual `residual` on the product before it is written");
    assert_eq!(all.peak_bytes(), 0);
    assert_eq!(all.unfused_bytes, 4 * 4 * 16 * 4);
}

#[test]
fn without_an_activation_a_large_operand_is_a_residual() {
    let residual = program(|g| {
        let y = product(g)?;
        let r = input(g, "r", &[4, 16])?;
        g.add(y, r)
    });
    assert_eq!(residual.steps[0].summary, "M=4 N=16 K=8 +residual");
    let both = program(|g| {
        let y = product(g)?;
        let (r, b) = (input(g, "r", &[4, 16])?, input(g, "b", &[16])?);
        let y = g.add(y, b)?;
        g.add(r, y)
    });
    assert_eq!(both.steps[0].summary, "M=4 N=16 K=8 +bias +residual");
}

#[test]
fn the_epilogue_ends_where_its_order_ends() {
    let late = program(|g| {
        let y = product(g)?;
        let (b, scale) = (input(g, "b", &[16])?, g.scalar(0.5, y)?);
        let y = g.relu(y)?;
        let y = g.mul(y, scale)?;
        g.add(y, b)
    });
    assert_eq!(families(&late), ["matmul", "pointwise"], "{late}");
    assert_eq!(late.steps[0].summary, "M=4 N=16 K=8 +relu");
    let stretched = program(|g| {
        let y = product(g)?;
        let b = input(g, "b", &[3, 1, 16])?;
        g.add(y, b)
    });
    assert_eq!(families(&stretched), ["matmul", "pointwise"], "{stretched}");
    assert!(stretched.notes.is_empty(), "{stretched}");
}

#[test]
fn a_product_with_other_readers_is_written() {
    let two = program(|g| {
        let y = product(g)?;
        let z = g.gelu(y)?;
        g.mul(y, z)
    });
    let kept = &two.notes[0];
    assert_eq!((kept.rule, kept.value.as_str(), kept.applied), (MATMUL, "product", false));
    assert_eq!(
        kept.reason,
        "`product` has 2 readers: `%3` (gelu), `%4` (mul); it is written to memory, and gelu is a kernel"
    );
    let mut g = Graph::new();
    let y = product(&mut g).and_then(|y| {
        g.output("raw", y)?;
        g.relu(y)
    });
    g.output("y", y.unwrap_or_else(|e| panic!("{e}"))).expect("a value");
    let output = lowered(&g, &Options::default());
    refused(&output, MATMUL, "`product` is the graph's output `raw`; it is written to memory, and relu is a kernel");
    assert_eq!(families(&output), ["matmul", "pointwise"]);
}

#[test]
fn products_of_vectors_have_epilogues_too() {
    for (a, b, out) in
        [(&[8][..], &[8, 5][..], &[5][..]), (&[3, 2, 8], &[8], &[3, 2]), (&[8], &[8], &[]), (&[8], &[3, 8, 5], &[3, 5])]
    {
        let vector = program(|g| {
            let (a, b, bias) =
                (input(g, "a", a)?, input(g, "b", b)?, input(g, "bias", &out[out.len().saturating_sub(1)..])?);
            let y = g.matmul(a, b)?;
            let y = g.add(y, bias)?;
            g.tanh(y)
        });
        assert_eq!(families(&vector), ["matmul"], "{vector}");
        assert_eq!(vector.buffers[vector.named()["y"].0].shape[..], *out);
    }
}

#[test]
fn a_norm_adds_its_operands_itself() {
    let only = program(|g| {
        let (x, r, w) = (input(g, "x", &[4, 8])?, input(g, "r", &[4, 8])?, input(g, "w", &[8])?);
        let s = g.add(x, r)?;
        g.name(s, "sum")?;
        g.layer_norm(s, Some(w), None, 1e-5)
    });
    assert_eq!(families(&only), ["norm"], "{only}");
    applied(&only, NORM, "the sum `sum` is never in memory");
    assert_eq!((only.steps[0].inputs.len(), only.steps[0].outputs.len()), (3, 1));
    assert_eq!(only.steps[0].covers, ["sum", "%4"]);

    // The sum's other reader stands between it and the norm, so the norm runs first.
    let shared = program(|g| {
        let (x, r) = (input(g, "x", &[4, 8])?, input(g, "r", &[1, 8])?);
        let s = g.add(r, x)?;
        g.name(s, "sum")?;
        let e = g.softmax(s, 0)?;
        let y = g.rms_norm(s, None, 1e-5)?;
        g.binary(Binary::Sub, y, e)
    });
    assert_eq!(families(&shared), ["norm", "softmax", "pointwise"], "{shared}");
    applied(&shared, NORM, "the sum `sum` is a second result");
    assert_eq!(shared.steps[0].outputs.len(), 2);
}

#[test]
fn a_norm_whose_weight_depends_on_the_sum_adds_nothing() {
    let cyclic = program(|g| {
        let (x, r) = (input(g, "x", &[4, 8])?, input(g, "r", &[4, 8])?);
        let s = g.add(x, r)?;
        let w = g.reduce(Reduce::Max, s, &[0], false)?;
        g.layer_norm(s, Some(w), None, 1e-5)
    });
    assert_eq!(families(&cyclic), ["pointwise", "reduce", "norm"], "{cyclic}");
}

#[test]
fn statistics_are_results_only_if_someone_reads_them() {
    let with = |mean: bool| {
        let mut g = Graph::new();
        let x = input(&mut g, "x", &[4, 8]).expect("valid");
        let op = Op::LayerNorm { axes: 1, epsilon: 1e-5, weight: false, bias: false };
        let results = g.push(op, &[x]).expect("valid");
        g.output("y", results[0]).expect("valid");
        g.output("rstd", results[2]).expect("valid");
        if mean {
            let twice = g.add(results[1], results[1]).expect("valid");
            g.output("mean", twice).expect("valid");
        }
        lowered(&g, &Options::default())
    };
    assert_eq!(with(false).steps[0].outputs.len(), 2);
    assert_eq!(with(true).steps[0].outputs.len(), 3);
}

#[test]
fn a_softmax_takes_a_positive_factor() {
    let scaled = |dtype: DType, factor: f64| {
        program(|g| {
            let x = g.input("x", dtype, [4, 8])?;
            let factor = g.scalar(factor, x)?;
            let x = g.mul(x, factor)?;
            g.softmax(x, -1)
        })
    };
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        assert_eq!(families(&scaled(dtype, 0.25)), ["softmax"], "{dtype}");
        applied(&scaled(dtype, 0.25), "fuse into softmax", "multiplies by 0.25 itself");
        // −inf, which hides an element, would become +inf.
        assert_eq!(families(&scaled(dtype, -0.25)), ["pointwise", "softmax"], "{dtype}");
    }
}

#[test]
fn pointwise_trees_are_one_kernel() {
    let tree = program(|g| {
        let (x, y) = (input(g, "x", &[4, 8])?, input(g, "row", &[8])?);
        let (a, b) = (g.exp(x)?, g.tanh(y)?);
        let c = g.add(a, a)?;
        let d = g.mul(c, a)?;
        let less = g.binary(Binary::Less, d, x)?;
        let e = g.select(less, d, c)?;
        g.mul(e, b)
    });
    // tanh(y) is smaller than the result: it is computed once, not for each row.
    assert_eq!(families(&tree), ["pointwise", "pointwise"], "{tree}");
    let notes: Vec<_> = tree.notes.iter().filter(|note| note.rule == POINTWISE).collect();
    assert_eq!(notes[0].reason, "`%3` [8] would be computed anew for each element of [4, 8]");
    assert_eq!(notes[1].reason, "exp, add, mul, less, where, mul in one kernel");
    assert_eq!(tree.steps[1].inputs.len(), 2);
    // What is cheap is computed again.
    let cheap = program(|g| {
        let (x, row) = (input(g, "x", &[4, 8])?, input(g, "row", &[8])?);
        let (a, b) = (g.exp(x)?, g.neg(row)?);
        g.mul(a, b)
    });
    assert_eq!(families(&cheap), ["pointwise"], "{cheap}");
}

#[test]
fn constants_are_numbers_in_the_kernel() {
    let constants = program(|g| {
        let x = input(g, "x", &[4, 8])?;
        let two = g.scalar(2.0, x)?;
        let row = g.broadcast(two, [1, 8])?;
        let x = g.binary(Binary::Pow, x, row)?;
        g.binary(Binary::Sub, two, x)
    });
    assert_eq!(families(&constants), ["pointwise"]);
    assert_eq!(constants.steps[0].inputs.len(), 1);
    assert_eq!(constants.buffers.len(), 2, "no buffer holds the constant");
}

#[test]
fn a_chain_stops_at_the_kernels_operands() {
    let many = program(|g| {
        let mut sum = input(g, "x0", &[8])?;
        for i in 1..10 {
            let x = input(g, &format!("x{i}"), &[8])?;
            sum = g.binary(Binary::Max, sum, x)?;
        }
        Ok(sum)
    });
    assert_eq!(families(&many), ["pointwise", "pointwise"], "{many}");
    let kept = many.notes.iter().find(|note| !note.applied).expect("a refusal");
    assert_eq!(kept.reason, "the kernel would read 8 tensors, it can read 7");
}

#[test]
fn a_pointwise_value_with_readers_elsewhere_is_written() {
    let two = program(|g| {
        let x = input(g, "x", &[4, 8])?;
        let e = g.exp(x)?;
        let sum = g.reduce(Reduce::Sum, e, &[1], true)?;
        g.div(e, sum)
    });
    assert_eq!(families(&two), ["pointwise", "reduce", "pointwise"], "{two}");
    assert!(note(&two, POINTWISE).reason.starts_with("`%1` has 2 readers: `%2` (sum), `%3` (div)"));
}

#[test]
fn fusion_can_be_turned_off() {
    let g = graph(|g| {
        let y = product(g)?;
        let (b, r, w) = (input(g, "b", &[16])?, input(g, "r", &[4, 16])?, input(g, "weight", &[16])?);
        let y = g.add(y, b)?;
        let y = g.unary(Unary::Silu, y)?;
        let y = g.add(y, r)?;
        g.layer_norm(y, Some(w), None, 1e-5)
    });
    let one_by_one = lowered(&g, &Options { fuse: false, ..Options::default() });
    assert_eq!(families(&one_by_one), ["matmul", "pointwise", "pointwise", "pointwise", "norm"]);
    assert_eq!(one_by_one.naive_bytes(), one_by_one.unfused_bytes);
    let fused = lowered(&g, &Options::default());
    assert_eq!(families(&fused), ["matmul", "norm"]);
    assert_eq!(fused.naive_bytes(), 4 * 16 * 4);
}

#[test]
fn a_matmul_that_reads_another_in_its_epilogue_runs_after_it() {
    let two = program(|g| {
        let first = product(g)?;
        let (x, w) = (input(g, "x2", &[4, 2])?, input(g, "w2", &[2, 16])?);
        let second = g.matmul(x, w)?;
        let second = g.relu(second)?;
        g.add(first, second)
    });
    assert_eq!(families(&two), ["matmul", "matmul"], "{two}");
    assert_eq!(two.steps[0].summary, "M=4 N=16 K=2 +relu");
    assert_eq!(two.steps[1].summary, "M=4 N=16 K=8 +residual");
}

#[test]
fn copies_are_made_where_a_kernel_needs_them() {
    // The two axes before the growing one are turned: no stride covers both.
    let turned = program(|g| {
        let (cache, new) = (input(g, "cache", &[2, 3, 4, 8, 5])?, input(g, "new", &[2, 4, 3, 1, 5])?);
        let at = g.input("at", DType::I32, [2])?;
        let new = g.permute(new, &[0, 2, 1, 3, 4])?;
        Ok(g.append(cache, new, at, 3, false)?.0)
    });
    assert_eq!(families(&turned), ["copy", "append"], "{turned}");
    assert!(
        note(&turned, "copy").reason.starts_with("it is read as it lies by no kernel: append: plain: axes"),
        "{turned}"
    );
    // The tables of rotary embedding are read densely.
    let tables = program(|g| {
        let (x, table) = (input(g, "x", &[1, 2, 3, 8])?, input(g, "table", &[16, 8])?);
        let positions = g.input("positions", DType::I32, [1, 3])?;
        let (cos, sin) = (g.slice(table, 1, 0, 4)?, g.slice(table, 1, 4, 8)?);
        Ok(g.push(Op::Rotary { interleaved: false }, &[x, cos, sin, positions])?[0])
    });
    assert_eq!(families(&tables), ["copy", "copy", "rotary"], "{tables}");
    assert!(tables.notes.iter().all(|note| note.reason == "its kernel reads a dense tensor"), "{tables}");
}

/// A norm reads f16 in place of the f32 that they are widened to, so they have to be in memory, whoever else reads the f32.
#[test]
fn what_a_kernel_widens_itself_is_in_no_chain() {
    let both = program(|g| {
        let x = input(g, "x", &[4, 8])?;
        let narrow = g.cast(x, DType::F16)?;
        let narrow = g.tanh(narrow)?;
        let wide = g.cast(narrow, DType::F32)?;
        let normed = g.rms_norm(wide, None, 1e-5)?;
        g.sub(normed, wide)
    });
    assert_eq!(families(&both), ["pointwise", "pointwise", "norm", "pointwise"], "{both}");
}

#[test]
fn the_gradient_of_a_cross_entropy_is_one_kernel_over_the_logits() {
    const SIZES: [usize; 2] = [6, 11];
    let lowered = |dtype: DType, weight: bool, smoothing: f32, z_loss: bool| {
        program(|g| {
            let logits = g.input("logits", dtype, SIZES)?;
            let targets = g.input("targets", DType::I32, [SIZES[0]])?;
            let weight = weight.then(|| input(g, "weight", &[SIZES[1]])).transpose()?;
            let args = CrossEntropyArgs { weight, ignore: Some(-100), smoothing };
            let rows = g.cross_entropy(logits, targets, args)?;
            let mut loss = g.reduce(Reduce::Sum, rows.loss, &[], false)?;
            if z_loss {
                let square = g.mul(rows.lse, rows.lse)?;
                let square = g.reduce(Reduce::Sum, square, &[], false)?;
                loss = g.add(loss, square)?;
            }
            Ok(gradients(g, loss, &[logits])?[0])
        })
    };
    // Nothing but dx has the size of the logits.
    let wide = |program: &Program| {
        let elements = SIZES.iter().product::<usize>();
        let outputs = program.steps.iter().flat_map(|step| &step.outputs);
        outputs.filter(|&&output| program.buffers[output.0].shape.elements() >= Some(elements)).count()
    };
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (weight, smoothing) in [(false, 0.0), (false, 0.1), (true, 0.0)] {
            let program = lowered(dtype, weight, smoothing, false);
            assert_eq!(families(&program), ["cross_entropy", "pointwise"], "{program}");
        }
        for z_loss in [false, true] {
            let program = lowered(dtype, true, 0.1, z_loss);
            assert_eq!(wide(&program), 1, "{program}");
        }
        assert_eq!(wide(&lowered(dtype, false, 0.1, true)), 1);
    }
}

fn seeded(g: &mut Graph) -> Result<[ValueId; 2]> {
    let x = input(g, "x", &[4, 8])?;
    Ok([x, g.input("seed", DType::U32, [4])?])
}

#[test]
fn a_dropout_is_part_of_a_chain() {
    let chain = program(|g| {
        let [x, seed] = seeded(g)?;
        let bias = input(g, "bias", &[8])?;
        let y = g.add(x, bias)?;
        let y = g.gelu(y)?;
        let y = g.dropout(y, seed, 0.1)?;
        g.add(y, x)
    });
    assert_eq!(families(&chain), ["pointwise"], "{chain}");
    assert_eq!(chain.steps[0].summary, "add gelu dropout add (f32, f32, u32) -> f32 [4, 8]");
    applied(&chain, POINTWISE, "add, gelu, dropout, add in one kernel");
    // Behind a product it is a kernel of its own: an epilogue has no place for it.
    let behind = program(|g| {
        let y = product(g)?;
        let seed = g.input("seed", DType::U32, [4])?;
        g.dropout(y, seed, 0.1)
    });
    assert_eq!(families(&behind), ["matmul", "pointwise"], "{behind}");
}

#[test]
fn a_dropout_of_nothing_is_left_out() {
    let none = program(|g| {
        let [x, seed] = seeded(g)?;
        let y = g.relu(x)?;
        let y = g.dropout(y, seed, 0.0)?;
        g.add(y, x)
    });
    assert_eq!(none.steps[0].summary, "relu add (f32) -> f32 [4, 8]");
    applied(&none, "simplify", "dropout of `%2`: it drops nothing");
    // What the graph takes, the program takes.
    assert!(none.buffers.iter().any(|buffer| buffer.name == "seed"));
}

/// It is read for every element, so that it must be in memory; and what it computes may be read as elements too.
#[test]
fn a_seed_joins_no_chain() {
    let computed = program(|g| {
        let [x, seed] = seeded(g)?;
        let one = g.scalar(1.0, seed)?;
        let next = g.add(seed, one)?;
        g.dropout(x, next, 0.1)
    });
    assert_eq!(families(&computed), ["pointwise", "pointwise"], "{computed}");
    refused(&computed, POINTWISE, "all of `%3` is read for each element, as a seed");
    let both = program(|g| {
        let seed = g.input("seed", DType::U32, [4])?;
        let x = g.cast(seed, DType::F32)?;
        g.dropout(x, seed, 0.1)
    });
    assert_eq!(both.steps[0].summary, "cast dropout (u32, u32) -> f32 [4]");
}

/// What is drawn for an element is drawn where the dropout has its shape.
#[test]
fn a_dropout_is_not_computed_anew_where_it_is_stretched() {
    let stretched = program(|g| {
        let [x, seed] = seeded(g)?;
        let column = input(g, "column", &[4, 1])?;
        let column = g.dropout(column, seed, 0.1)?;
        g.mul(x, column)
    });
    assert_eq!(families(&stretched), ["pointwise", "pointwise"], "{stretched}");
    refused(&stretched, POINTWISE, "`%3` [4, 1] would be computed anew for each element of [4, 8]");
}

#[test]
fn a_chain_has_few_dropouts() {
    let many = program(|g| {
        let [mut x, seed] = seeded(g)?;
        for _ in 0..20 {
            x = g.dropout(x, seed, 0.1)?;
        }
        Ok(x)
    });
    assert_eq!(families(&many), ["pointwise"; 3], "{many}");
}
