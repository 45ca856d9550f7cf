//! Attention written out by hand, in the ways that people do, and what keeps it from being recognised.

use tilewise::{
    DType, Data, Graph, Result, Tensor, ValueId,
    graph::{Align, Attention, AttentionOperand, Op},
    lower::{Options, Program},
};

use super::{applied, families, graph, input, lowered, note, program, refused};

const RULE: &str = "recognise attention";
const B: usize = 2;
const H: usize = 3;
const TQ: usize = 5;
const TK: usize = 7;
const D: usize = 4;
const DV: usize = 6;

struct Operands {
    q: ValueId,
    k: ValueId,
    v: ValueId,
}

fn operands(g: &mut Graph, leading: &[usize]) -> Result<Operands> {
    let shape = |t: usize, d: usize| [leading, &[t, d]].concat();
    Ok(Operands {
        q: input(g, "q", &shape(TQ, D))?,
        k: input(g, "k", &shape(TK, D))?,
        v: input(g, "v", &shape(TK, DV))?,
    })
}

/// `softmax(scores(q·kᵀ)) · v`, with [B, H] leading.
fn by_hand(scores: impl FnOnce(&mut Graph, ValueId) -> Result<ValueId>) -> Program {
    program(|g| {
        let Operands { q, k, v } = operands(g, &[B, H])?;
        let product = g.matmul_transposed(q, k)?;
        let scores = scores(g, product)?;
        let weights = g.softmax(scores, -1)?;
        g.matmul(weights, v)
    })
}

/// The only step is an attention, with this summary.
#[track_caller]
fn is_attention(program: &Program, summary: &str) {
    assert_eq!(families(program), ["attention"], "{program}");
    let shapes = format!("q[{B}, {H}, {TQ}, {D}] k[{B}, {H}, {TK}, {D}] v[{B}, {H}, {TK}, {DV}]");
    assert_eq!(program.steps[0].summary, format!("{shapes}{summary}"), "{program}");
    assert!(note(program, RULE).applied);
}

/// The word of a scale among the parameters of the only step's kernel.
fn has_parameter(program: &Program, value: f32) -> bool {
    program.steps[0].kernel.launches[0].params.contains(&value.to_bits())
}

#[test]
fn scale_anywhere() {
    is_attention(&by_hand(|_, s| Ok(s)), "");
    let mul = by_hand(|g, s| {
        let scale = g.scalar(0.375, s)?;
        g.mul(scale, s)
    });
    is_attention(&mul, "");
    applied(&mul, RULE, "scale 0.375");
    let div = by_hand(|g, s| {
        let root = g.scalar(4.0, s)?;
        g.div(s, root)
    });
    applied(&div, RULE, "scale 0.25");
    // On q as a product, on k as a quotient; both count.
    let on_operands = program(|g| {
        let Operands { q, k, v } = operands(g, &[B, H])?;
        let (half, four) = (g.scalar(0.5, q)?, g.scalar(4.0, q)?);
        let (q, k) = (g.mul(q, half)?, g.div(k, four)?);
        let kt = g.permute(k, &[0, 1, 3, 2])?;
        let scores = g.matmul(q, kt)?;
        let weights = g.softmax(scores, 3)?;
        g.matmul(weights, v)
    });
    is_attention(&on_operands, "");
    applied(&on_operands, RULE, "scale 0.125");
    assert!(has_parameter(&on_operands, 0.125));
}

#[test]
fn a_learned_scale_is_not_folded() {
    let learned = by_hand(|g, s| {
        let scale = g.parameter("temperature", DType::F32, [1])?;
        g.mul(s, scale)
    });
    refused(&learned, RULE, "the factor `temperature` on the scores is not a constant number");
}

#[test]
fn keys_transposed_by_flag_by_permute_or_stored_transposed() {
    let stored = program(|g| {
        let Operands { q, v, .. } = operands(g, &[B, H])?;
        let kt = input(g, "kt", &[B, H, D, TK])?;
        let scores = g.matmul(q, kt)?;
        let weights = g.softmax(scores, -1)?;
        let vt = g.permute(v, &[0, 1, 3, 2])?;
        g.matmul_transposed(weights, vt)
    });
    is_attention(&stored, "");
}

#[test]
fn softcap_written_out() {
    let capped = by_hand(|g, s| {
        let c = g.scalar(30.0, s)?;
        let inner = g.div(s, c)?;
        let t = g.tanh(inner)?;
        g.mul(t, c)
    });
    is_attention(&capped, " +softcap");
    applied(&capped, RULE, "scale 1, softcap 30");
    // tanh(s/8)·16 = softcap of 2·s at 16.
    let uneven = by_hand(|g, s| {
        let (eight, sixteen) = (g.scalar(8.0, s)?, g.scalar(16.0, s)?);
        let inner = g.div(s, eight)?;
        let t = g.tanh(inner)?;
        g.mul(sixteen, t)
    });
    applied(&uneven, RULE, "scale 2, softcap 16");
    let after_mask = by_hand(|g, s| {
        let bias = input(g, "bias", &[TQ, TK])?;
        let s = g.add(s, bias)?;
        g.tanh(s)
    });
    refused(&after_mask, RULE, "the scores are biased before the tanh that gives `%6`; attention does that after");
}

fn mask(g: &mut Graph, shape: &[usize]) -> Result<ValueId> {
    g.input("mask", DType::Bool, shape)
}

#[test]
fn masks_by_selection() {
    let kept = by_hand(|g, s| {
        let (mask, fill) = (mask(g, &[B, 1, 1, TK])?, g.scalar(f64::NEG_INFINITY, s)?);
        g.select(mask, s, fill)
    });
    is_attention(&kept, " +mask");
    assert_eq!(kept.steps[0].inputs.len(), 4);

    let hidden = by_hand(|g, s| {
        let (mask, fill) = (mask(g, &[TQ, TK])?, g.scalar(f64::NEG_INFINITY, s)?);
        g.select(mask, fill, s)
    });
    assert_eq!(families(&hidden), ["pointwise", "attention"], "{hidden}");
    assert_eq!(hidden.steps[0].covers, ["mask"]);

    // Both kinds at once are one mask.
    let both = by_hand(|g, s| {
        let (mask, fill) = (mask(g, &[TQ, TK])?, g.scalar(f64::NEG_INFINITY, s)?);
        let pad = g.input("pad", DType::Bool, [B, 1, 1, TK])?;
        let s = g.select(mask, s, fill)?;
        g.select(pad, fill, s)
    });
    assert_eq!(families(&both), ["pointwise", "attention"], "{both}");
    assert!(both.steps[1].summary.ends_with("+mask"));
}

#[test]
fn a_finite_fill_is_a_number() {
    for fill in [-1e9, f64::from(f32::MIN)] {
        let finite = by_hand(|g, s| {
            let (mask, fill) = (mask(g, &[TQ, TK])?, g.scalar(fill, s)?);
            g.select(mask, s, fill)
        });
        refused(
            &finite,
            RULE,
            "a fully masked row then weighs all keys equally, which a mask does not; put −inf there",
        );
        refused(&finite, RULE, &format!("puts {:e}", fill as f32));
        assert_eq!(families(&finite), ["matmul", "pointwise", "softmax", "matmul"]);
    }
}

#[test]
fn masks_by_addition() {
    for swapped in [false, true] {
        let added = by_hand(|g, s| {
            let bias = input(g, "bias", &[H, TQ, TK])?;
            if swapped { g.add(bias, s) } else { g.add(s, bias) }
        });
        is_attention(&added, " +bias");
    }
    // A bias of 0 and −inf by a condition is that condition.
    let selected = by_hand(|g, s| {
        let (zero, fill) = (g.scalar(0.0, s)?, g.scalar(f64::NEG_INFINITY, s)?);
        let mask = mask(g, &[TQ, TK])?;
        let bias = g.select(mask, zero, fill)?;
        g.add(s, bias)
    });
    is_attention(&selected, " +mask");
    let finite = by_hand(|g, s| {
        let (zero, fill) = (g.scalar(0.0, s)?, g.scalar(-1e9, s)?);
        let mask = mask(g, &[TQ, TK])?;
        let bias = g.select(mask, zero, fill)?;
        g.add(s, bias)
    });
    assert_eq!(families(&finite), ["pointwise", "attention"], "{finite}");
    assert!(finite.steps[1].summary.ends_with("+bias"));
    // Two biases, one subtracted, are summed before.
    let two = by_hand(|g, s| {
        let (a, b) = (input(g, "a", &[H, TQ, TK])?, input(g, "b", &[B, 1, 1, TK])?);
        let s = g.add(s, a)?;
        g.binary(tilewise::graph::Binary::Sub, s, b)
    });
    assert_eq!(families(&two), ["pointwise", "attention"], "{two}");
    // A bias that is a product itself.
    let relative = by_hand(|g, s| {
        let (x, w) = (input(g, "x", &[B, H, TQ, D])?, input(g, "w", &[D, TK])?);
        let relative = g.matmul(x, w)?;
        g.add(relative, s)
    });
    assert_eq!(families(&relative), ["matmul", "attention"], "{relative}");
}

#[test]
fn a_scale_after_the_mask_is_refused() {
    let late = by_hand(|g, s| {
        let bias = input(g, "bias", &[TQ, TK])?;
        let (s, scale) = (g.add(s, bias)?, g.scalar(0.5, s)?);
        g.mul(s, scale)
    });
    refused(&late, RULE, "the scores are biased before the mul");
}

#[test]
fn every_rank() {
    for leading in [&[][..], &[6], &[B, H]] {
        let ranked = program(|g| {
            let Operands { q, k, v } = operands(g, leading)?;
            let product = g.matmul_transposed(q, k)?;
            let mask_shape = [leading, &[TQ, TK]].concat();
            let (mask, fill) = (mask(g, &mask_shape)?, g.scalar(f64::NEG_INFINITY, product)?);
            let scores = g.select(mask, product, fill)?;
            let weights = g.softmax(scores, -1)?;
            g.matmul(weights, v)
        });
        assert_eq!(families(&ranked), ["attention"], "{ranked}");
        let q = match leading {
            [] => "q[1, 1, 5, 4]",
            [_] => "q[1, 6, 5, 4]",
            _ => "q[2, 3, 5, 4]",
        };
        assert!(ranked.steps[0].summary.starts_with(q), "{ranked}");
    }
    let five = program(|g| {
        let Operands { q, k, v } = operands(g, &[2, 2, 2])?;
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, -1)?;
        g.matmul(weights, v)
    });
    refused(&five, RULE, "the scores [2, 2, 2, 5, 7] have more than four axes");
}

/// As in models that fold batch and heads for the products and unfold them for the mask.
#[test]
fn heads_folded_for_the_products() {
    let folded = program(|g| {
        let Operands { q, k, v } = operands(g, &[B * H])?;
        let product = g.matmul_transposed(q, k)?;
        let unfolded = g.reshape(product, [B, H, TQ, TK])?;
        let (mask, fill) = (mask(g, &[B, 1, 1, TK])?, g.scalar(f64::NEG_INFINITY, product)?);
        let masked = g.select(mask, unfolded, fill)?;
        let weights = g.softmax(masked, -1)?;
        let folded = g.reshape(weights, [B * H, TQ, TK])?;
        g.matmul(folded, v)
    });
    is_attention(&folded, " +mask");
    // A bias for each of the B·H in a row, added where they are folded.
    let both = program(|g| {
        let Operands { q, k, v } = operands(g, &[B * H])?;
        let product = g.matmul_transposed(q, k)?;
        let bias = input(g, "bias", &[B * H, 1, TK])?;
        let product = g.add(product, bias)?;
        let unfolded = g.reshape(product, [B, H, TQ, TK])?;
        let weights = g.softmax(unfolded, -1)?;
        let folded = g.reshape(weights, [B * H, TQ, TK])?;
        g.matmul(folded, v)
    });
    is_attention(&both, " +bias");
}

fn repeated(g: &mut Graph, x: ValueId, times: usize) -> Result<ValueId> {
    let [b, h, t, d] = g.shape(x)[..] else { panic!("rank 4") };
    let x = g.reshape(x, [b, h, 1, t, d])?;
    let x = g.broadcast(x, [b, h, times, t, d])?;
    g.reshape(x, [b, h * times, t, d])
}

#[test]
fn repeated_heads_are_shared() {
    let grouped = program(|g| {
        let (q, k, v) =
            (input(g, "q", &[B, 6, TQ, D])?, input(g, "k", &[B, 2, TK, D])?, input(g, "v", &[B, 2, TK, DV])?);
        let (k, v) = (repeated(g, k, 3)?, repeated(g, v, 3)?);
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, -1)?;
        g.matmul(weights, v)
    });
    assert_eq!(families(&grouped), ["attention"], "{grouped}");
    assert_eq!(grouped.steps[0].summary, "q[2, 6, 5, 4] k[2, 2, 7, 4] v[2, 2, 7, 6]");
    applied(&grouped, RULE, "3 query heads a key head");
    // One key head, stretched by the product itself.
    let one = program(|g| {
        let (q, k, v) = (input(g, "q", &[B, 6, TQ, D])?, input(g, "k", &[B, 1, TK, D])?, input(g, "v", &[1, TK, DV])?);
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, -1)?;
        g.matmul(weights, v)
    });
    assert_eq!(families(&one), ["attention"], "{one}");
    assert_eq!(one.steps[0].summary, "q[2, 6, 5, 4] k[2, 1, 7, 4] v[2, 1, 7, 6]");
    applied(&one, RULE, "one key head for all query heads");
    // Repeated as tiles: head h reads key head h % 2, which attention does not.
    let tiled = program(|g| {
        let (q, k, v) =
            (input(g, "q", &[B, 6, TQ, D])?, input(g, "k", &[B, 2, TK, D])?, input(g, "v", &[B, 2, TK, DV])?);
        let mut tile = |x: ValueId| {
            let [b, h, t, d] = g.shape(x)[..] else { panic!("rank 4") };
            let x = g.reshape(x, [b, 1, h, t, d])?;
            let x = g.broadcast(x, [b, 3, h, t, d])?;
            g.reshape(x, [b, 3 * h, t, d])
        };
        let (k, v) = (tile(k)?, tile(v)?);
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, -1)?;
        g.matmul(weights, v)
    });
    assert!(tiled.steps.iter().any(|step| step.summary == "q[2, 6, 5, 4] k[2, 6, 7, 4] v[2, 6, 7, 6]"), "{tiled}");
}

#[test]
fn what_someone_else_reads_stays() {
    let mut g = Graph::new();
    let result = (|| {
        let Operands { q, k, v } = operands(&mut g, &[B, H])?;
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, -1)?;
        g.name(weights, "weights")?;
        let y = g.matmul(weights, v)?;
        g.output("y", y)?;
        g.output("attention", weights)
    })();
    result.unwrap_or_else(|e: tilewise::Error| panic!("{e}"));
    let as_output = lowered(&g, &Options::default());
    refused(&as_output, RULE, "`weights` is the graph's output `attention`");

    let two_readers = program(|g| {
        let Operands { q, k, v } = operands(g, &[B, H])?;
        let product = g.matmul_transposed(q, k)?;
        g.name(product, "scores")?;
        let weights = g.softmax(product, -1)?;
        let y = g.matmul(weights, v)?;
        let other = g.exp(product)?;
        let other = g.matmul(other, v)?;
        g.add(y, other)
    });
    refused(&two_readers, RULE, "`scores` has 2 readers: `%4` (softmax), `%6` (exp)");
}

#[test]
fn what_is_no_attention_gives_no_note() {
    let classifier = program(|g| {
        let x = input(g, "x", &[8, 16])?;
        let e = g.exp(x)?;
        let p = g.softmax(e, -1)?;
        let w = input(g, "w", &[16, 4])?;
        g.matmul(p, w)
    });
    assert!(classifier.notes.iter().all(|note| note.rule != RULE), "{classifier}");
    // Sums of sums of one value: followed on both sides, but not without end.
    let doubled = program(|g| {
        let mut x = input(g, "x", &[4, 4])?;
        for _ in 0..64 {
            x = g.add(x, x)?;
        }
        let p = g.softmax(x, -1)?;
        g.matmul(p, x)
    });
    assert!(doubled.notes.iter().all(|note| note.rule != RULE));
}

#[test]
fn other_axes_dtypes_and_stretched_operands_are_refused() {
    let columns = program(|g| {
        let (q, k, v) = (input(g, "q", &[TQ, D])?, input(g, "k", &[TQ, D])?, input(g, "v", &[TQ, DV])?);
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, 0)?;
        g.matmul(weights, v)
    });
    refused(&columns, RULE, "the softmax `%4` is not along the last axis");
    let stretched = program(|g| {
        let Operands { q, k, v } = operands(g, &[H])?;
        let product = g.matmul_transposed(q, k)?;
        let bias = input(g, "bias", &[B, 1, TQ, TK])?;
        let scores = g.add(product, bias)?;
        let weights = g.softmax(scores, -1)?;
        g.matmul(weights, v)
    });
    refused(&stretched, RULE, "`%5` stretches the scores [3, 5, 7] to [2, 3, 5, 7]");
    let values = program(|g| {
        let Operands { q, k, .. } = operands(g, &[H])?;
        let v = input(g, "more", &[B, H, TK, DV])?;
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, -1)?;
        g.matmul(weights, v)
    });
    refused(&values, RULE, "v [2, 3, 7, 6] stretches the weights [3, 5, 7]");
    let wide = program(|g| {
        let (q, k, v) = (input(g, "q", &[TQ, 300])?, input(g, "k", &[TK, 300])?, input(g, "v", &[TK, 8])?);
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, -1)?;
        g.matmul(weights, v)
    });
    assert_eq!(families(&wide), ["attention"], "{wide}");
}

#[test]
fn it_can_be_turned_off() {
    let g = graph(|g| {
        let Operands { q, k, v } = operands(g, &[B, H])?;
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, -1)?;
        g.matmul(weights, v)
    });
    let program = lowered(&g, &Options { recognise: false, ..Options::default() });
    assert_eq!(families(&program), ["matmul", "softmax", "matmul"]);
    assert!(program.notes.is_empty(), "{program}");
}

#[test]
fn half_precision_scores_in_f32() {
    let mixed = program(|g| {
        let q = g.input("q", DType::F16, [B, H, TQ, D])?;
        let k = g.input("k", DType::F16, [B, H, TK, D])?;
        let v = g.input("v", DType::F16, [B, H, TK, DV])?;
        let product = g.matmul_transposed(q, k)?;
        let product = g.cast(product, DType::F32)?;
        let weights = g.softmax(product, -1)?;
        let weights = g.cast(weights, DType::F16)?;
        g.matmul(weights, v)
    });
    assert!(note(&mixed, RULE).applied, "{mixed}");
    assert_eq!(mixed.steps.iter().filter(|step| step.family == "attention").count(), 1);
    let unequal = program(|g| {
        let Operands { q, k, .. } = operands(g, &[B, H])?;
        let v = g.input("v16", DType::F16, [B, H, TK, DV])?;
        let product = g.matmul_transposed(q, k)?;
        let weights = g.softmax(product, -1)?;
        let weights = g.cast(weights, DType::F16)?;
        g.matmul(weights, v)
    });
    let message = "q is f32, k is f32 and v is f16: products of one dtype are recognised";
    refused(&unequal, RULE, message);
}

const CAUSAL: &str = "recognise causal mask";

fn triangle(rows: usize, columns: usize, offset: isize) -> Vec<bool> {
    (0..rows as isize).flat_map(|i| (0..columns as isize).map(move |j| j <= i + offset)).collect()
}

fn with_constant_mask(seen: Vec<bool>, shape: &[usize]) -> Program {
    by_hand(|g, s| {
        let mask = g.constant(Tensor::new(shape, Data::Bool(seen))?)?;
        let fill = g.scalar(f64::NEG_INFINITY, s)?;
        g.select(mask, s, fill)
    })
}

#[test]
fn a_constant_triangle_is_causal() {
    is_attention(&with_constant_mask(triangle(TQ, TK, 0), &[TQ, TK]), " +causal");
    let bottom_right = with_constant_mask(triangle(TQ, TK, 2), &[1, 1, TQ, TK]);
    is_attention(&bottom_right, " +causal");
    applied(&bottom_right, CAUSAL, "the constant mask masks the keys j > i + 2");
    applied(&with_constant_mask(triangle(TQ, TK, -3), &[TQ, TK]), CAUSAL, "j > i - 3");
    applied(&with_constant_mask(triangle(TQ, TK, 6), &[TQ, TK]), CAUSAL, "masks nothing");
    let mut dented = triangle(TQ, TK, 1);
    dented[TK + 1] = false;
    let dented = with_constant_mask(dented, &[TQ, TK]);
    is_attention(&dented, " +mask");
    assert!(dented.notes.iter().all(|note| note.rule != CAUSAL));
    // Each row must follow from the same offset, also where a full row comes first.
    let mut late = vec![true; TQ * TK];
    late[TQ * TK - 1] = false;
    is_attention(&with_constant_mask(late, &[TQ, TK]), " +mask");
    // As a bias.
    let bias = by_hand(|g, s| {
        let bias: Vec<f32> =
            triangle(TQ, TK, 0).iter().map(|&seen| if seen { 0.0 } else { f32::NEG_INFINITY }).collect();
        let bias = g.constant(Tensor::new([TQ, TK], bias)?)?;
        g.add(s, bias)
    });
    is_attention(&bias, " +causal");
    let finite = by_hand(|g, s| {
        let bias: Vec<f32> = triangle(TQ, TK, 0).iter().map(|&seen| if seen { 0.0 } else { -1e9 }).collect();
        let bias = g.constant(Tensor::new([TQ, TK], bias)?)?;
        g.add(s, bias)
    });
    is_attention(&finite, " +bias");
}

/// A mask in attention that was built as such is looked at too, unless the alignment has another use.
#[test]
fn a_constant_triangle_beside_other_options() {
    let build = |causal: bool| {
        program(|g| {
            let Operands { q, k, v } = operands(g, &[B, H])?;
            let mask = g.constant(Tensor::new([TQ, TK], Data::Bool(triangle(TQ, TK, 1)))?)?;
            let align = if causal { Align::BottomRight } else { Align::TopLeft };
            let options = Attention { causal, align, operands: vec![AttentionOperand::Mask], ..Attention::default() };
            Ok(g.push(Op::Attention(options), &[q, k, v, mask])?[0])
        })
    };
    assert!(build(false).steps[0].summary.ends_with("+causal"));
    assert!(build(true).steps[0].summary.ends_with("+causal +mask"));
}
