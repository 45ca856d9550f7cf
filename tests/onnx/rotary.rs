//! Rotary position embedding (Su et al., 2021).

use tilewise::ValueId;

use crate::{
    import::{Builder, Call, Result, Slot},
    pointwise::one,
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "RotaryEmbedding" => rotary,
        _ => return None,
    })
}

/// Pairs of features turned by the angle of their position; features behind `rotary_embedding_dim` stay.
fn rotary(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let shape = c.shape(x);
    // [B, T, heads, D]
    let heads = match shape[..] {
        [_, _, _] => {
            let n = c.node.int("num_heads").unwrap_or(1) as usize;
            c.g().reshape(x, [shape[0], shape[1], n, shape[2] / n])?
        }
        [_, _, _, _] => c.g().permute(x, &[0, 2, 1, 3])?,
        _ => return c.fault(format!("{shape} has neither rank 3 nor 4")),
    };
    let split = c.shape(heads);
    let (b, t, n, d) = (split[0], split[1], split[2], split[3]);
    let turning = match c.node.int("rotary_embedding_dim") {
        None | Some(0) => d,
        Some(width) => width as usize,
    };
    let half = turning / 2;
    let (cos, sin) = (angles(c, 1, [b, t, 1, half])?, angles(c, 2, [b, t, 1, half])?);

    let interleaved = c.node.flag("interleaved");
    let g = c.g();
    let turned = g.slice(heads, 3, 0, turning)?;
    // Pairs are neighbours, or an element of the first half and one of the second.
    let (pairs, axis) = if interleaved { ([b, t, n, half, 2], 4) } else { ([b, t, n, 2, half], 3) };
    let turned = g.reshape(turned, pairs)?;
    let mut part = |i: usize| -> Result<ValueId> {
        let x = g.slice(turned, axis, i, i + 1)?;
        Ok(g.reshape(x, [b, t, n, half])?)
    };
    let (re, im) = (part(0)?, part(1)?);
    let (re_cos, im_sin, re_sin, im_cos) = (g.mul(re, cos)?, g.mul(im, sin)?, g.mul(re, sin)?, g.mul(im, cos)?);
    let (new_re, new_im) = (g.sub(re_cos, im_sin)?, g.add(re_sin, im_cos)?);
    let kept = if interleaved { [b, t, n, half, 1] } else { [b, t, n, 1, half] };
    let (new_re, new_im) = (g.reshape(new_re, kept)?, g.reshape(new_im, kept)?);
    let turned = g.concat(&[new_re, new_im], axis)?;
    let turned = g.reshape(turned, [b, t, n, turning])?;
    let rest = g.slice(heads, 3, turning, d)?;
    let y = if turning < d { g.concat(&[turned, rest], 3)? } else { turned };
    one(if shape.rank() == 3 { g.reshape(y, shape)? } else { g.permute(y, &[0, 2, 1, 3])? })
}

/// Cosines or sines of each position: rows of a table, or given as they are.
fn angles(c: &mut Call<'_>, operand: usize, shape: [usize; 4]) -> Result<ValueId> {
    let mut table = c.x(operand)?;
    if c.has(3) {
        let positions = c.index(3)?;
        table = c.g().gather(table, positions, 0)?;
    }
    Ok(c.g().reshape(table, shape)?)
}
