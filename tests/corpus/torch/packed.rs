//! Sequences of different lengths: padded, end to end, and as PyTorch's `PackedSequence`. All three give the same rows.

use tilewise::{
    Tensor, ValueId,
    graph::{Align, Mask},
    nn::{self, AttentionMasks},
};

use super::{
    case::{Case, Compute, Net, Run},
    layers::encoder,
};

pub(crate) fn find(group: &str, operator: &str) -> Option<Compute> {
    Some(Compute::Graph(match (group, operator) {
        ("packed", "scaled_dot_product_attention") => |net| three_ways(net, attention),
        ("packed", "TransformerEncoder") => |net| {
            three_ways(net, |net, x, mask| {
                let masks = AttentionMasks::from(mask);
                Ok(encoder(net.case)?.build(&mut net.g, "", x, &masks)?)
            })
        },
        _ => return None,
    }))
}

/// What is computed from `[B, T, …]` or from `[ΣT, …]`, as the mask says.
type Layer = fn(&mut Net<'_>, ValueId, Mask) -> Run<ValueId>;

fn three_ways(net: &mut Net<'_>, layer: Layer) -> Run<()> {
    let causal =
        if net.case.flag("is_causal") || net.case.flag("causal") { Mask::causal(Align::TopLeft) } else { Mask::none() };
    if net.case.wants("padded") {
        let (x, lengths) = (net.input("padded")?, net.input("lengths")?);
        let y = layer(net, x, causal.clone() & Mask::key_lengths(lengths))?;
        // Rows of padding are written as zero.
        let (b, t) = (net.g.shape(y)[0], net.g.shape(y)[1]);
        let rest = net.g.shape(y)[2..].to_vec();
        let rows = net.g.reshape(y, [b, t, rest.iter().product()])?;
        let real = nn::key_mask(&mut net.g, lengths, t)?;
        let rows = nn::mask_rows(&mut net.g, rows, real)?;
        let y = net.g.reshape(rows, [&[b, t], &rest[..]].concat())?;
        net.output("padded", y)?;
    }
    if net.case.wants("concat") {
        let (x, offsets) = (net.input("concat")?, net.input("offsets")?);
        let y = layer(net, x, causal.clone() & Mask::packed(offsets, offsets))?;
        net.output("concat", y)?;
    }
    if net.case.wants("packed") {
        let data = net.input("packed")?;
        let (sizes, indices) = (numbers(net.case, "batch_sizes")?, numbers(net.case, "sorted_indices")?);
        let (x, offsets) = nn::from_packed_sequence(&mut net.g, data, &sizes, Some(&indices))?;
        let y = layer(net, x, causal & Mask::packed(offsets, offsets))?;
        let y = nn::to_packed_sequence(&mut net.g, y, &sizes, Some(&indices))?;
        net.output("packed", y)?;
    }
    Ok(())
}

fn numbers(case: &Case, name: &str) -> Run<Vec<usize>> {
    let tensor: &Tensor = case.given(name)?;
    Ok(tensor.as_i32().ok_or_else(|| format!("`{name}` is {}", tensor.dtype()))?.iter().map(|&x| x as usize).collect())
}

/// `[…, q|k|v, head, size] → […, head, size]`
fn attention(net: &mut Net<'_>, x: ValueId, mask: Mask) -> Run<ValueId> {
    let g = &mut net.g;
    let shape = g.shape(x).to_vec();
    let tokens = shape.len() - 3;
    let outer = [&shape[..tokens], &shape[tokens + 1..]].concat();
    let mut part = |i: usize| -> Run<ValueId> {
        let x = g.slice(x, tokens as isize, i, i + 1)?;
        let x = g.reshape(x, outer.clone())?;
        // A batch has its heads in front of its tokens.
        Ok(if tokens == 2 { g.permute(x, &[0, 2, 1, 3])? } else { x })
    };
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let y = g.attention(q, k, v, mask)?;
    Ok(if tokens == 2 { g.permute(y, &[0, 2, 1, 3])? } else { y })
}
