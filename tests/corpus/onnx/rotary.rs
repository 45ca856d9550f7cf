//! Rotary position embedding (Su et al., 2021).

use tilewise::{Tensor, ValueId};

use super::{
    import::{Builder, Call, Result, Slot},
    pointwise::one,
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "RotaryEmbedding" => rotary,
        _ => return None,
    })
}

/// Features behind `rotary_embedding_dim` stay; that number is also twice the width of the tables.
fn rotary(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (x, cos, sin) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let flat = c.rank(0)? == 3;
    let heads = match (flat, c.node.int("num_heads")) {
        (true, Some(heads)) => c.g().split_heads(x, heads as usize)?,
        _ => x,
    };
    let shape = c.shape(heads);
    let (b, t) = (shape[0], shape[2]);
    let (tables, positions) = if c.has(3) {
        ([cos, sin], c.index(3)?)
    } else {
        // A row for each token, in order.
        let half = c.shape(cos)[2];
        let rows = |c: &mut Call<'_>, table: ValueId| c.g().reshape(table, [b * t, half]);
        let tables = [rows(c, cos)?, rows(c, sin)?];
        let every = Tensor::new([b, t], (0..(b * t) as i32).collect::<Vec<i32>>())?;
        (tables, c.g().constant(every)?)
    };
    let interleaved = c.node.flag("interleaved");
    let y = c.g().rotary(heads, tables, positions, interleaved)?;
    one(if flat { c.g().merge_heads(y)? } else { y })
}
