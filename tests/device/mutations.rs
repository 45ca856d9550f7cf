//! Do the cases of `tilewise verify` notice a kernel that is wrong? Each mutation breaks the shaders of attention, of the
//! cross entropy, or those of split or narrow rows, in one way that people get wrong, and some case has to fail for it.
//! `cargo test --test device mutations -- --nocapture` prints the table.

use std::{collections::BTreeMap, sync::Arc};

use tilewise::{
    DType, Tensor,
    gpu::LoadOptions,
    kernel::{AdapterKind, CooperativeMatrix, Source},
    lower::{Options, Program},
    reference::compare::Expected,
    verify::cases::{self, Case, Level},
};

use crate::common::gpu;

/// One way to be wrong.
struct Mutation {
    name: &'static str,
    /// The shader it breaks, whose family's cases are to notice it, and the variant that runs it.
    shader: &'static str,
    variant: &'static str,
    /// What is replaced in the specialised text, each wherever it stands, by what.
    edits: &'static [(&'static str, &'static str)],
}

impl Mutation {
    fn family(&self) -> &'static str {
        self.shader.split("::").next().unwrap_or_default()
    }
}

const fn mutation(
    name: &'static str,
    shader: &'static str,
    variant: &'static str,
    edits: &'static [(&'static str, &'static str)],
) -> Mutation {
    Mutation { name, shader, variant, edits }
}

/// Likewise, in the split variant of a family that reduces rows.
const fn split(name: &'static str, shader: &'static str, edits: &'static [(&'static str, &'static str)]) -> Mutation {
    Mutation { name, shader, variant: "split", edits }
}

/// What goes wrong where a row's shares meet. There the device's own tile shapes are used: on a software adapter a share is
/// one invocation's.
const SPLITS: &[Mutation] = &[
    split(
        "a share begins in the one before",
        "softmax::shares",
        &[("% p.shares * p.elems_of_share,", "% p.shares * (p.elems_of_share - 1u),")],
    ),
    split("a share's sum not rescaled", "softmax::shares", &[("sums *= exp(max(most - new_most, elem(-200.0)));", "")]),
    split(
        "sums of columns not rescaled",
        "softmax::shares",
        &[("total(sums * exp(max(most - elem(m), elem(-200.0))))", "total(sums)")],
    ),
    split(
        "shares merged without their maxima",
        "softmax::apply",
        &[(
            "return Partial(most, of_a + b.sum * exp(max(b.most - most, stat(-200.0))));",
            "return Partial(most, of_a + b.sum);",
        )],
    ),
    split(
        "the last share forgotten",
        "softmax::apply",
        &[("s < p.shares; s += LANES", "s + 1u < p.shares; s += LANES")],
    ),
    split(
        "the first line's shares",
        "softmax::apply",
        &[("let of_line = index / p.shares * p.shares;", "let of_line = 0u;")],
    ),
    split(
        "the last elements of a share not written",
        "softmax::apply",
        &[("for (; i < end; i += LANES) {", "for (; i + 1u < end; i += LANES) {")],
    ),
    split(
        "means of shares not weighted",
        "norm::apply",
        &[("let weight = b.count / max(count, 1.0);", "let weight = select(0.5, 1.0, a.count == 0.0);")],
    ),
    split("distance of the means forgotten", "norm::apply", &[(" + apart * apart * (a.count * weight)", "")]),
    split("each share's own shift forgotten", "norm::apply", &[("(found.x - shift) + found.z", "found.z")]),
    split("the last share forgotten", "norm::apply", &[("s < p.shares; s += LANES", "s + 1u < p.shares; s += LANES")]),
    split("the first row's shares", "norm::apply", &[("partials[row * p.shares + s]", "partials[s]")]),
    split(
        "statistics without the shift",
        "norm::apply",
        &[("store_statistics(row, shift + all.mean, inverse)", "store_statistics(row, all.mean, inverse)")],
    ),
    split(
        "blocks merged without their distance",
        "norm::shares",
        &[("block_squares + apart * apart * (f32(BLOCK) * count * per_count)", "block_squares")],
    ),
    split("columns taken for one", "norm::shares", &[(" + total(apart * apart) * count", "")]),
    split("a share counted in elems", "norm::shares", &[("Partial(count * f32(PACK),", "Partial(count,")]),
    split("the sum not kept", "norm::shares", &[("store_sum(i, s);", "store_sum(i, elem());")]),
    split(
        "an infinity in the shift",
        "norm::shares",
        &[("shift = select(average, 0.0, is_special(average));", "shift = average;")],
    ),
    split(
        "an infinite mean merged as a number",
        "norm::apply",
        &[("a.mean + b.mean, is_special(apart));", "a.mean + b.mean, false);")],
    ),
    split("a NaN of the reciprocal sum lost", "softmax::apply", &[("sum == stat(0.0))", "!(sum >= stat(0.5)))")]),
];

/// Likewise, in the plain variant, where rows are read and written in f16 or bf16.
const fn row(name: &'static str, shader: &'static str, edits: &'static [(&'static str, &'static str)]) -> Mutation {
    Mutation { name, shader, variant: "plain", edits }
}

/// What goes wrong in rows with a NaN.
const ODD_ROWS: &[Mutation] = &[
    row(
        "a NaN weighs nothing",
        "softmax::plain",
        &[("let e = select(exp(below), below,", "let e = select(exp(below), elem(),")],
    ),
    row(
        "−∞ stays beside a NaN",
        "softmax::plain",
        &[(
            "return select(score(v) - most, v, bitcast<bits>(v) == bits(0xff800000u)) - share;",
            "return select(score(v) - most - share, v, bitcast<bits>(v) == bits(0xff800000u));",
        )],
    ),
    row("no second look", "argmax::plain", &[("select(first, end, is_special(total(sum)))", "first")]),
    row(
        "the last NaN for the first",
        "argmax::plain",
        &[("<= elem_place(0x7f800000u));", "<= elem_place(0xffffffffu));")],
    ),
    row(
        "a NaN ranks by its sign",
        "argmax::plain",
        &[("return select(rank, stat_place(0xffffffffu),", "return select(rank, rank,")],
    ),
    row("sizes not looked at", "reduce::plain", &[("return select(v, all,", "return select(v, v,")]),
    Mutation {
        variant: "subgroup",
        ..row("a NaN is no rank", "reduce::subgroup", &[("select(rank, stat_bits(0u),", "select(rank, rank,")])
    },
    Mutation {
        variant: "subgroup",
        ..row("max(NaN, 0)", "norm::subgroup", &[("abs(variance)", "max(variance, 0.0)")])
    },
    Mutation {
        variant: "workgroup",
        ..row("max(NaN, 0)", "norm::workgroup", &[("abs(sums.y - rest * rest)", "max(sums.y - rest * rest, 0.0)")])
    },
    row("a NaN in relu", "pointwise::plain", &[("return relu_f32_or_nan(x, max(x, 0.0));", "return max(x, 0.0);")]),
    row(
        "a NaN in max",
        "pointwise::plain",
        &[("return select(max(a, b), a + b, is_nan(a) || is_nan(b));", "return max(a, b);")],
    ),
    row("a dropped NaN is 0", "pointwise::plain", &[("select(nothing, x * factor,", "select(0.0, x * factor,")]),
    row(
        "a NaN as an integer",
        "pointwise::plain",
        &[("let number = select(x, 0.0, is_nan(x));", "let number = select(x, 7.0, is_nan(x));")],
    ),
];

/// What goes wrong in what a dropout draws.
const DRAWS: &[Mutation] = &[
    row("nine rounds", "pointwise::plain", &[("return philox_round(c, key + 9u * step);", "return c;")]),
    row("a carry lost", "pointwise::plain", &[(" + (low >> vec2<u32>(16u))", "")]),
    row("the second carry lost", "pointwise::plain", &[(" + (other >> vec2<u32>(16u))", "")]),
    row(
        "words of the key swapped",
        "pointwise::plain",
        &[("key.x, low.y", "key.y, low.y"), ("key.y, low.x", "key.x, low.x")],
    ),
    row("what equals the threshold dropped", "pointwise::plain", &[("word >= threshold", "word > threshold")]),
    row(
        "one word for four elements",
        "pointwise::plain",
        &[("w0.y)", "w0.x)"), ("w0.z)", "w0.x)"), ("w0.w)", "w0.x)")],
    ),
];

/// What goes wrong in narrow rows.
const NARROW_ROWS: &[Mutation] = &[
    row("halves of a word swapped", "norm::plain", &[("(16u * (i & 1u))", "(16u * (~i & 1u))")]),
    row("halves of a word swapped", "softmax::plain", &[("(16u * (i & 1u))", "(16u * (~i & 1u))")]),
    row("f16 truncated", "norm::plain", &[("+ 0xfffu + ((a >> 13u) & 1u)", "")]),
    row("bf16 truncated", "softmax::plain", &[("+ 0x7fffu + ((bits >> 16u) & 1u)", "")]),
    row("every fourth element lost", "norm::plain", &[("| (bf16_bits(v.w) << 16u)", "")]),
    row("every fourth element lost", "softmax::plain", &[("| (f16_bits(v.w) << 16u)", "")]),
];

/// Likewise, in one of the variants of the cross entropy.
const fn cross_entropy(
    name: &'static str,
    variant: &'static str,
    edits: &'static [(&'static str, &'static str)],
) -> Mutation {
    Mutation { variant, ..row(name, "cross_entropy::plain", edits) }
}

const CROSS_ENTROPY: &[Mutation] = &[
    cross_entropy(
        "a block not rescaled",
        "plain",
        &[("so_far.sum *= exp(max(so_far.most - most, elem(-200.0)));", "")],
    ),
    cross_entropy(
        "the class after the target",
        "plain",
        &[("select(0u, u32(given), counts)", "select(0u, (u32(given) + 1u) % p.classes, counts)")],
    ),
    cross_entropy("an ignored target counts", "plain", &[("& (given != p.ignored)", "")]),
    cross_entropy("a class before the first", "plain", &[("(given >= 0)", "(given >= -1)")]),
    cross_entropy("a class behind the last", "plain", &[("(given < i32(p.classes))", "(given <= i32(p.classes))")]),
    cross_entropy("the target's weight left out", "plain", &[("own = weight_of(of_target.c);", "")]),
    cross_entropy(
        "the weight of an ignored row",
        "plain",
        &[("weight[row] = select(0.0, own,", "weight[row] = select(own, own,")],
    ),
    cross_entropy("all classes smoothed alike", "plain", &[("w = weights[i];", "")]),
    cross_entropy("the number of classes for their weights", "plain", &[("all = s.total;", "")]),
    cross_entropy("smoothing added to the whole loss", "plain", &[("p.sharp * cost", "cost")]),
    cross_entropy("an infinite pivot", "plain", &[("select(logit, 0.0, is_special(logit))", "logit")]),
    cross_entropy("a NaN weighs nothing", "plain", &[("select(exp(below), below,", "select(exp(below), elem(),")]),
    cross_entropy("the lowest lse for −∞", "plain", &[("infinity_of(s.most), nothing);", "s.most, nothing);")]),
    cross_entropy("halves of a word swapped", "plain", &[("(16u * (i & 1u))", "(16u * (~i & 1u))")]),
    split("shares not rescaled", "cross_entropy::merge", &[("a.sum * rescale(a.most, most)", "a.sum")]),
    split("smoothing of the last share alone", "cross_entropy::merge", &[("a.apart + b.apart", "b.apart")]),
    Mutation {
        shader: "cross_entropy::workgroup",
        ..cross_entropy("smoothing of one lane alone", "workgroup", &[("pairs[local] += pairs[local + step];", "")])
    },
    Mutation {
        shader: "cross_entropy::workgroup",
        ..cross_entropy(
            "straight-line elems taken twice",
            "workgroup",
            &[("first + CHUNKS * LANES, LANES", "first, LANES")],
        )
    },
    Mutation {
        shader: "cross_entropy::subgroup",
        ..cross_entropy("lanes not rescaled", "subgroup", &[("own.sum * rescale(own.most, most)", "own.sum")])
    },
];

/// What stands in the block that all variants share is broken in one of them.
/// What goes wrong in the gradient of attention.
const GRADIENT: &[Mutation] = &[
    mutation("Δ left out", "attention_grad::plain_rows", "plain", &[("(along - row.delta)", "along")]),
    mutation("Δ added", "attention_grad::plain_keys", "plain", &[("(along - row.delta)", "(along + row.delta)")]),
    mutation("the slope of the softcap", "attention_grad::plain_rows", "plain", &[("(1.0 - bend * bend)", "1.0")]),
    mutation("the scale of keys", "attention_grad::plain_keys", "plain", &[("ds * slope)", "ds)")]),
    mutation(
        "the first head of a group alone",
        "attention_grad::plain_keys",
        "plain",
        &[("h < (place.h + 1u) * p.group", "h < place.h * p.group + 1u")],
    ),
    mutation(
        "one query too few",
        "attention_grad::plain_keys",
        "plain",
        &[("min(item.q_len, j_end - item.lo)", "min(item.q_len, j_end - item.lo - 1)")],
    ),
    mutation(
        "queries from the second on",
        "attention_grad::plain_keys",
        "plain",
        &[("max(0, j - item.hi)", "max(1, j - item.hi)")],
    ),
    mutation("keys of the sequence before", "attention_grad::plain_keys", "plain", &[("<= row {", "< row {")]),
    mutation(
        "the distance without the offset",
        "attention_grad::plain_rows",
        "plain",
        &[("f32(j_c0 - query.position)", "f32(j_c0 - i32(row.i))")],
    ),
    mutation(
        "a bias of the first item alone",
        "attention_grad::plain_bias",
        "plain",
        &[("b < b_first + p.shared_items", "b < b_first + 1u")],
    ),
    mutation(
        "a bias of the first head alone",
        "attention_grad::plain_bias",
        "plain",
        &[("h < h_first + p.shared_heads", "h < h_first + 1u")],
    ),
    mutation(
        "sums of a bias of all heads",
        "attention_grad::plain_keys",
        "plain",
        &[
            ("        var of_bias = 0.0;", "        of_bias = of_bias;"),
            (
                "    let queries = queries_of(item, j, j + 1);",
                "    let queries = queries_of(item, j, j + 1);\n    var of_bias = 0.0;",
            ),
        ],
    ),
    mutation("statistics on the records", "attention_grad::beside", "plain", &[("items[p.at + i]", "items[i]")]),
    mutation(
        "a tile of others too few",
        "attention_grad::tiled_rows",
        "tiled",
        &[("j0 < keys.end", "j0 + BC < keys.end")],
    ),
    mutation(
        "a tile transposed",
        "attention_grad::tiled_keys",
        "tiled",
        &[("transpose(mat4x4<f32>(", "(mat4x4<f32>(")],
    ),
    mutation(
        "rows in the place of others",
        "attention_grad::tiled_keys",
        "tiled",
        &[("^ swizzle)];", "^ (swizzle & 3u))];")],
    ),
    mutation(
        "columns of the tile before",
        "attention_grad::tiled_rows",
        "tiled",
        &[("stage_across(t, k_rows, j0, keys.end, d0)", "stage_across(t, k_rows, j0, keys.end, 0u)")],
    ),
    mutation(
        "P for dT",
        "attention_grad::tiled_keys",
        "tiled",
        &[("dt_r0[0u] = pair_e0_r0.dt;", "dt_r0[0u] = pair_e0_r0.weight;")],
    ),
    mutation(
        "a lane's rows numbered as the next one's",
        "attention_grad::panel_keys",
        "panel",
        &[("let j_c0 = j0 + i32(lane * C + 0u);", "let j_c0 = j0 + i32(lane * C + 1u);")],
    ),
    mutation(
        "numbers of the first row",
        "attention_grad::panel_keys",
        "panel",
        &[("subgroupShuffle(lanes.lse, i - i0)", "subgroupShuffle(lanes.lse, 0u)")],
    ),
    mutation(
        "sequences after the first",
        "attention_grad::panel_keys",
        "panel",
        &[("record_end = p.records - 1u;", "record_end = start + 1u;")],
    ),
    mutation(
        "one element for all",
        "attention_grad::panel_rows",
        "panel",
        &[("fma(dt_c0, k_y0_e1,", "fma(dt_c0, k_y0_e0,")],
    ),
];

/// What of it a NaN or an infinity alone shows.
const ODD_GRADIENT: &[Mutation] = &[
    mutation(
        "hidden pairs",
        "attention_grad::plain_keys",
        "plain",
        &[("select(0.0, weight * (along - row.delta), score.seen)", "weight * (along - row.delta)")],
    ),
    mutation(
        "a NaN that a row doesn't see",
        "attention_grad::plain_rows",
        "plain",
        &[(
            "select(vec4<f32>(), k_four(k_row_c0, columns(d, width), p.k_d), pair_c0.seen)",
            "k_four(k_row_c0, columns(d, width), p.k_d)",
        )],
    ),
    mutation(
        "odd tiles forgotten",
        "attention_grad::tiled_keys",
        "tiled",
        &[("odd_tiles[w] = atomicLoad(&odd);", "odd_tiles[w] = 0u;")],
    ),
    mutation(
        "odd tiles forgotten",
        "attention_grad::panel_rows",
        "panel",
        &[("odd_tiles[w] = u32(odd);", "odd_tiles[w] = 0u;")],
    ),
];

const MUTATIONS: &[Mutation] = &[
    mutation(
        "top-left for bottom-right, no lengths",
        "attention::plain",
        "plain",
        &[("p.lo, p.hi, p.offset)", "p.lo, p.hi - p.offset, 0)")],
    ),
    mutation(
        "top-left for bottom-right, with lengths",
        "attention::sequences",
        "plain",
        &[("offset = k_len - q_len;", "offset = 0;")],
    ),
    mutation(
        "window one short on the left",
        "attention::plain",
        "plain",
        &[("max(0, row + item.lo),", "max(0, row + item.lo + 1),")],
    ),
    mutation("causal one too far", "attention::plain", "plain", &[("row + item.hi + 1)", "row + item.hi + 2)")]),
    mutation(
        "softcap after the bias",
        "attention::plain",
        "plain",
        &[
            ("value = head.cap * tanh_of(value);", ""),
            (
                "value += select(0.0, key.bias, seen);",
                "value = head.cap * tanh_of(value + select(0.0, key.bias, seen));",
            ),
        ],
    ),
    mutation("boolean mask inverted", "attention::plain", "plain", &[("& 0xffu) != 0u;", "& 0xffu) == 0u;")]),
    mutation(
        "a bias of −1e9 taken for −∞",
        "attention::plain",
        "plain",
        &[("seen = bitcast<u32>(added) != 0xff800000u;", "seen = added > -1e8;")],
    ),
    mutation(
        "query heads tiled over key heads",
        "attention::plain",
        "plain",
        &[
            ("h / p.group * p.k_h", "h % (p.heads / p.group) * p.k_h"),
            ("h / p.group * p.v_h", "h % (p.heads / p.group) * p.v_h"),
        ],
    ),
    mutation("ALiBi from the wrong end", "attention::plain", "plain", &[("f32(j - query.position)", "f32(j)")]),
    mutation("not scaled", "attention::plain", "plain", &[("var value = dot * head.scale;", "var value = dot;")]),
    mutation(
        "maximum not subtracted from what came before",
        "attention::plain",
        "plain",
        &[("let alpha = exp_of(m_i - m_new);", "let alpha = 1.0;")],
    ),
    mutation(
        "0 for rows that see nothing forgotten",
        "attention::plain",
        "plain",
        &[("select(o / l, vec4<f32>(), l == 0.0)", "o / l")],
    ),
    mutation(
        "log-sum-exp of rows that see nothing forgotten",
        "attention::plain",
        "plain",
        &[("select(select(lse, ABOVE_LOWEST, lse <= LOWEST), LOWEST, l == 0.0)", "lse")],
    ),
    mutation(
        "key length ignored",
        "attention::sequences",
        "plain",
        &[("min(k_len, p.k_limit)", "min(keys, p.k_limit)")],
    ),
    mutation("query length ignored", "attention::plain", "plain", &[("select(0, end, row < item.q_len)", "end")]),
    mutation("short mask ignored", "attention::sequences", "plain", &[("min(k_len, p.k_limit)", "k_len")]),
    mutation(
        "negative offset clamped to 0",
        "attention::sequences",
        "plain",
        &[("clamp(given, -FAR, FAR)", "clamp(given, 0, FAR)")],
    ),
    mutation(
        "packed sequences see the first one's keys",
        "attention::plain",
        "plain",
        &[(" + place.item.k_start * p.k_t", ""), (" + place.item.k_start * p.v_t", "")],
    ),
    mutation("sink forgotten", "attention::plain", "plain", &[("p.sinks_step]), 1.0)", "p.sinks_step]), 0.0)")]),
    mutation("sink counted by every split", "attention::tiled", "split_kv", &[("if place.split == 0u {", "if true {")]),
    mutation(
        "hidden keys in the maximum",
        "attention::tiled",
        "tiled",
        &[("four[0u] = score_e0.value;", "four[0u] = score_e0.value;\nm_new = max(m_new, score_e0.value);")],
    ),
    mutation("columns past D not zeroed", "attention::tiled", "tiled", &[("d < vec4<u32>(p.d))", "vec4<bool>(true))")]),
    mutation(
        "rows past the end of a sequence written",
        "attention::tiled",
        "tiled",
        &[("place.item.q_start + i, i < place.item.rows)", "place.item.q_start + i, true)")],
    ),
    mutation(
        "sums of the panels before lost",
        "attention::panel",
        "panel",
        &[("j0 > keys.first && query.first < i32(j0)", "false")],
    ),
    mutation(
        "divided with each panel",
        "attention::panel",
        "panel",
        &[("if i32(j0 + BLOCK) >= query.end {", "if i32(j0 + BLOCK) >= 0 {")],
    ),
    mutation(
        "the values of another lane's key",
        "attention::panel",
        "panel",
        &[("let v_row_c0_l1 = subgroupBroadcast(v_row_c0, 1u);", "let v_row_c0_l1 = subgroupBroadcast(v_row_c0, 0u);")],
    ),
    mutation(
        "a column of q for another",
        "attention::panel",
        "panel",
        &[(
            "let q_y0_e1 = subgroupBroadcast(q_i[0u / (Q_RUN * LANES) * Q_RUN + 0u % Q_RUN][1u]",
            "let q_y0_e1 = subgroupBroadcast(q_i[0u / (Q_RUN * LANES) * Q_RUN + 0u % Q_RUN][0u]",
        )],
    ),
    mutation(
        "what is said of a key taken for its neighbour",
        "attention::panel",
        "panel",
        &[("let key_c1 = key_of(head, query, i32(j0 + lane * C + 1u));", "let key_c1 = key_c0;")],
    ),
    mutation(
        "sums of the panels before not rescaled",
        "attention::panel",
        "panel",
        &[("let alpha = weight_of(m_old - m_new);", "let alpha = 1.0;")],
    ),
    mutation("whole tiles of a mask skipped", "attention::tiled", "block_mask", &[("& 1u) == 0u {", "& 2u) == 0u {")]),
    mutation(
        "mixed tiles taken for whole",
        "attention::tiled",
        "block_mask",
        &[("j0 / BC] == 1u;", "j0 / BC] != 2u;")],
    ),
    mutation("a mask looked at in its first row", "attention::block_mask", "block_mask", &[("+ i * p.mask_i;", ";")]),
    mutation("halves of a word swapped", "attention::plain", "plain", &[("(i & 1u)", "(~i & 1u)")]),
    mutation("f16 truncated", "attention::plain", "plain", &[("+ 0xfffu + ((a >> 13u) & 1u)", "")]),
    mutation("bf16 truncated", "attention::tiled", "tiled", &[("+ 0x7fffu + ((bits >> 16u) & 1u)", "")]),
    mutation("the other half of a word lost", "attention::merge", "split_kv", &[("| (f16_bits(two.y) << 16u)", "")]),
    mutation(
        "keys behind the end of a part taken for its own",
        "attention::panel",
        "panel",
        &[("query.end = min(query.end, i32(keys.end));", "")],
    ),
    mutation(
        "parts merged without their maxima",
        "attention::merge",
        "split_kv",
        &[("let alpha = exp_of(found.x - m);", "let alpha = 1.0;")],
    ),
    mutation("mask function ignored", "attention::plain", "plain", &[("seen = mask_mod(", "_ = mask_mod(")]),
    mutation("score function ignored", "attention::plain", "plain", &[("value = score_mod(", "_ = score_mod(")]),
    mutation(
        "functions told of another key head",
        "attention::plain",
        "plain",
        &[("head.h_kv = i32(h / p.group);", "head.h_kv = i32(h % p.group);")],
    ),
    mutation(
        "functions told of the query, not of its place",
        "attention::tiled",
        "tiled",
        &[("row + item.offset,", "row,")],
    ),
    mutation(
        "pages taken in a row",
        "attention::plain",
        "plain",
        &[("u32(page) * page_step", "j / p.page_rows * page_step")],
    ),
    mutation("the first item's pages", "attention::tiled", "tiled", &[("+ b * p.table_b", "")]),
    mutation("packed, the next sequence's pages", "attention::plain", "plain", &[("at -= p.table_b;", "")]),
    mutation("missing pages not reported", "attention::sequences", "plain", &[("report(FAULT_BLOCK_TABLE);", "")]),
    mutation("faults of all items on the last", "attention::sequences", "plain", &[("faults = 0u;\n}", "}")]),
];

/// What goes wrong where a sum is no number.
const ODD_SUMS: &[Mutation] = &[
    mutation(
        "a row that saw keys told by its sum",
        "attention::plain",
        "plain",
        &[("saw = saw || seen_c", "_ = saw || seen_c")],
    ),
    mutation(
        "the maximum of a row without its NaN",
        "attention::plain",
        "plain",
        &[
            ("exp_of(score_c0.value - m_new)", "exp_of(min(score_c0.value, 0.0) - m_new)"),
            ("exp_of(score_c1.value - m_new)", "exp_of(min(score_c1.value, 0.0) - m_new)"),
            ("exp_of(score_c2.value - m_new)", "exp_of(min(score_c2.value, 0.0) - m_new)"),
            ("exp_of(score_c3.value - m_new)", "exp_of(min(score_c3.value, 0.0) - m_new)"),
        ],
    ),
    mutation(
        "rows whose sums are no numbers left so",
        "attention::tiled",
        "tiled",
        &[("if atomicLoad(&odd) != 0u {", "if atomicLoad(&odd) == 9u {")],
    ),
    mutation("a row that saw keys told by its sum", "attention::tiled", "tiled", &[("saw |= seen;", "")]),
    mutation(
        "parts that saw keys told by their sums",
        "attention::merge",
        "split_kv",
        &[("if bitcast<u32>(found.y) != 0u {", "if found.y > 0.0 {")],
    ),
    mutation(
        "tiles with odd sums not noted",
        "attention::panel",
        "panel",
        &[("odd_tiles[w] = u32(odd);", "odd_tiles[w] = 0u;")],
    ),
    mutation(
        "scores of −∞ not noted",
        "attention::panel",
        "panel",
        &[("|| bitcast<u32>(least_of_all) == 0xff800000u", "")],
    ),
    mutation(
        "odd tiles of every other column part",
        "attention::mend",
        "panel",
        &[("let odd = odd_tiles[unit", "let odd = unit % 2u == 0u && odd_tiles[unit")],
    ),
    mutation(
        "the rows of another unit mended",
        "attention::mend",
        "panel",
        &[("unit % p.units_of_tile * ROWS + t", "t")],
    ),
];

/// In the variant on cooperative matrices, for adapters that have those of 8 by 8.
const COOPERATIVE: &[Mutation] = &[
    cooperative("O not rescaled", &[("if any_moved != 0u {", "if any_moved > 99u {")]),
    cooperative("O rescaled by other rows' maxima", &[("*= alphas[m_s + 0u * S +", "*= alphas[0u * m_s +")]),
    cooperative("l not rescaled", &[("l_i *= alpha;", "")]),
    cooperative("the maximum of a part of the row", &[("most = max(most, subgroupShuffleXor(most, x));", "")]),
    cooperative("columns past D not zeroed", &[("d < vec4<u32>(p.d))", "vec4<bool>(true))")]),
    cooperative(
        "rows whose sums are no numbers left so",
        &[("atomicLoad(&odd) != 0u && part", "atomicLoad(&odd) == 9u && part")],
    ),
    cooperative("hidden keys weighed", &[("all_y1, scores_y1.seen)", "all_y1, vec4<bool>(true))")]),
    cooperative(
        "a quad of k in its neighbour's place",
        &[("e_l1 % QUADS_K] = next_l1", "(e_l1 ^ 1u) % QUADS_K] = next_l1")],
    ),
    cooperative(
        "one matrix of weights twice",
        &[("coopMultiplyAdd(p_x3_m0, v_x3_n0,", "coopMultiplyAdd(p_x2_m0, v_x3_n0,")],
    ),
    cooperative("k not transposed", &[("coopLoad<mat_b>(", "coopLoadT<mat_b>(")]),
    cooperative(
        "rows past the end of a sequence written",
        &[("place.item.q_start + i, i < place.item.rows)", "place.item.q_start + i, true)")],
    ),
    cooperative("divided by another row's sum", &[("o, alphas[x]);", "o, alphas[0]);")]),
    cooperative("keys of another part", &[("query.end = min(query.end, i32(keys.end));", "")]),
];

const fn cooperative(name: &'static str, edits: &'static [(&'static str, &'static str)]) -> Mutation {
    mutation(name, "attention::coop", "coop_8x8", edits)
}

/// What goes wrong where workgroups share the columns of wide heads; the constant picks the texts in which two do.
const fn columns(
    name: &'static str,
    variant: &'static str,
    edits: &'static [(&'static str, &'static str)],
) -> Mutation {
    mutation(name, "attention::tiled", variant, edits)
}

const TWO_PARTS: (&str, &str) = ("const COLUMN_PARTS: u32 = 2u;", "const COLUMN_PARTS: u32 = 2u;");
const COLUMNS: &[Mutation] = &[
    columns(
        "all parts read the first columns of v",
        "tiled",
        &[TWO_PARTS, ("vec4<u32>(first + 4u * (x % V_STRIDE))", "vec4<u32>(4u * (x % V_STRIDE))")],
    ),
    columns("all parts write the first columns", "tiled", &[TWO_PARTS, ("v_first + 4u * (8u *", "4u * (8u *")]),
    columns(
        "a part takes the rows of another tile",
        "tiled",
        &[TWO_PARTS, ("place_of(w / COLUMN_PARTS)", "place_of(w)")],
    ),
    columns("no part writes the statistics", "split_kv", &[TWO_PARTS, ("&& v_first == 0u", "&& v_first == 1u")]),
    columns(
        "parts overlap by a vec4",
        "split_kv",
        &[TWO_PARTS, ("w % COLUMN_PARTS * 32u * NV", "w % COLUMN_PARTS * (32u * NV - 4u)")],
    ),
];

/// What a mutated kernel came to.
enum Fate {
    /// The case that noticed it, and how.
    Noticed(String, String),
    /// This many cases ran the broken text, and all passed; with 0 there was nothing to break.
    Survived(usize),
}

#[test]
fn every_mutation_is_noticed() {
    let cases = Cases::new("attention");
    every_one_is_noticed(&cases, MUTATIONS);
}

/// Without an adapter that has 8 by 8 matrices (Mesa 26 does) there is nothing to run; `REQUIRE_COOPERATIVE=1` makes that a
/// failure.
#[test]
fn every_mutation_on_cooperative_matrices_is_noticed() {
    let profile = gpu().profile();
    let matrix = CooperativeMatrix::square(8, [DType::F16, DType::F32]);
    if !profile.cooperative_matrices.contains(&matrix) {
        let required = std::env::var_os("REQUIRE_COOPERATIVE").is_some();
        assert!(!required, "REQUIRE_COOPERATIVE is set, but {} has no 8×8×8 matrices of f16", profile.adapter);
        eprintln!("{} has no 8×8×8 matrices of f16: attention on them is not mutated here", profile.adapter);
        return;
    }
    every_one_is_noticed(&Cases::new("attention"), COOPERATIVE);
}

#[test]
fn every_mutation_of_odd_sums_is_noticed() {
    let Cases(mut cases) = Cases::new("attention");
    cases.retain(|(case, _)| case.not_finite);
    every_one_is_noticed(&Cases(cases), ODD_SUMS);
}

#[test]
fn every_mutation_of_shared_columns_is_noticed() {
    every_one_is_noticed(&Cases::new("attention"), COLUMNS);
}

#[test]
fn every_mutation_of_a_row_is_noticed() {
    for family in ["norm", "softmax", "argmax", "reduce", "pointwise"] {
        let cases = Cases::new(family);
        let of_rows = SPLITS.iter().chain(NARROW_ROWS).chain(ODD_ROWS).chain(DRAWS);
        every_one_is_noticed(&cases, of_rows.filter(|mutation| mutation.family() == family));
    }
}

#[test]
fn every_mutation_of_a_cross_entropy_is_noticed() {
    every_one_is_noticed(&Cases::new("cross_entropy"), CROSS_ENTROPY);
}

#[test]
fn every_mutation_of_a_gradient_is_noticed() {
    let Cases(cases) = Cases::new("attention_grad");
    let (odd, others) = cases.into_iter().partition(|(case, _)| case.not_finite);
    every_one_is_noticed(&Cases(others), GRADIENT);
    every_one_is_noticed(&Cases(odd), ODD_GRADIENT);
}

fn every_one_is_noticed<'a>(cases: &Cases, mutations: impl IntoIterator<Item = &'a Mutation>) {
    let missed = mutations.into_iter().filter_map(|mutation| {
        let fate = cases.fate(mutation, |text| edited(text, mutation.edits));
        report(mutation.name, mutation, &fate);
        matches!(fate, Fate::Survived(_)).then_some(mutation.name)
    });
    let missed: Vec<&str> = missed.collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

/// Without one barrier, what one subgroup stages another has not seen yet. Each barrier is removed in turn.
#[test]
fn every_missing_barrier_is_noticed() {
    const BARRIER: &str = "workgroupBarrier();";
    let cases = Cases::new("attention");
    let tiled =
        Mutation { name: "a barrier gone", shader: "attention::tiled", variant: "tiled", edits: &[(BARRIER, "")] };
    let template = include_str!("../../shaders/attention/tiled.wesl");
    let barriers = template.matches(BARRIER).count();
    assert!(barriers > 4, "{barriers}");
    let missed = (1..=barriers).filter(|nth| {
        // The variant's text has all of the file's, in order.
        let fate = cases.fate(&tiled, |text| {
            assert_eq!(text.matches(BARRIER).count(), barriers);
            let (at, _) = text.match_indices(BARRIER).nth(nth - 1)?;
            Some(format!("{}{}", &text[..at], &text[at + BARRIER.len()..]))
        });
        report(&format!("barrier {nth} of {barriers} gone"), &tiled, &fate);
        matches!(fate, Fate::Survived(_))
    });
    let missed: Vec<usize> = missed.collect();
    // The first one after the loop over key tiles. llvmpipe leaves a loop by running its body once more, for no invocation
    // but with its barriers, so that this one is never missed there.
    let unseen: &[usize] = if gpu().profile().kind == AdapterKind::Cpu { &[barriers - 1] } else { &[] };
    assert!(missed.iter().all(|n| unseen.contains(n)), "not noticed: {missed:?}");
}

/// The text with all edits made, if each has something to change.
fn edited(text: &str, edits: &[(&str, &str)]) -> Option<String> {
    let all = edits.iter().all(|(from, _)| text.contains(from));
    all.then(|| edits.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to)))
}

/// The table, in its order.
struct Cases(Vec<(Case, Expected)>);

impl Cases {
    fn new(family: &str) -> Self {
        let cases = cases::of_family(family, Level::Quick, 1).expect("the table is valid");
        let expected = cases.into_iter().map(|case| {
            let expected = case.expected().expect("the reference takes every case");
            (case, expected)
        });
        Cases(expected.collect())
    }

    /// Runs the cases with a broken shader until one of them fails.
    fn fate(&self, mutation: &Mutation, broken: impl Fn(&str) -> Option<String>) -> Fate {
        let options = Options::default().force(mutation.family(), mutation.variant);
        let mut ran = 0;
        for (case, expected) in &self.0 {
            // What the variant can't do is no case for it.
            let Ok(mut program) = gpu().lower(&case.graph, &options) else { continue };
            if !mutate(&mut program, mutation.shader, &broken) {
                continue;
            }
            ran += 1;
            if let Some(how) = notice(&program, case, expected) {
                return Fate::Noticed(case.name.clone(), how);
            }
        }
        Fate::Survived(ran)
    }
}

/// Breaks every launch of the shader; false if there is none, or nothing to break.
fn mutate(program: &mut Program, shader: &str, broken: impl Fn(&str) -> Option<String>) -> bool {
    let mut changed = false;
    for launch in program.steps.iter_mut().flat_map(|step| &mut step.kernel.launches) {
        if launch.source.name == shader
            && let Some(text) = broken(&launch.source.wgsl)
        {
            // With all checks: a broken index must not bring the driver down.
            launch.source = Arc::new(Source::new(launch.source.name, text));
            changed = true;
        }
    }
    changed
}

/// How a program is wrong, if it is.
fn notice(program: &Program, case: &Case, expected: &Expected) -> Option<String> {
    let given = |wanted: &dyn Fn(&str) -> bool| -> Vec<(&str, &Tensor)> {
        case.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).filter(|(name, _)| wanted(name)).collect()
    };
    let parameters = given(&|name| case.graph.parameters().any(|(parameter, _)| parameter == name));
    let inputs = given(&|name| case.graph.inputs().any(|(input, _)| input == name));
    let mut executable =
        gpu().load_with(program, &parameters[..], LoadOptions { guard: true }).expect("a mutation is valid WGSL");
    match executable.run(&inputs) {
        Err(error) => Some(error.to_string()),
        Ok(outputs) => {
            let outputs: BTreeMap<String, Tensor> = outputs.into_iter().collect();
            expected.compare_named(&outputs).err().map(|mismatch| mismatch.to_string())
        }
    }
}

fn report(name: &str, mutation: &Mutation, fate: &Fate) {
    let (shader, variant) = (mutation.shader, mutation.variant);
    match fate {
        Fate::Noticed(case, how) => {
            let how: String = how.chars().take(100).collect();
            println!("{shader} {variant}: {name}\n    noticed by {case}: {how}");
        }
        Fate::Survived(ran) => println!("{shader} {variant}: {name}\n    SURVIVED {ran} cases"),
    }
}
