//! Constant masks that equal a causal mask: `causal` replaces them, so that kernels read no mask and skip masked tiles.

use std::collections::HashMap;

use super::rebuild::Rebuild;
use crate::{
    Data, Graph, Result, Tensor, ValueId,
    graph::{Align, Attention, AttentionOperand, NodeId, Op, Window},
};

const RULE: &str = "recognise causal mask";

/// What a known mask amounts to.
#[derive(Clone, Copy)]
enum Pattern {
    /// Every key is seen.
    Everything,
    /// Key j is seen by query i if j ≤ i + offset.
    Causal(i32),
}

/// What constants amount to as masks over so many keys: the layers of a model share theirs.
#[derive(Default)]
pub(super) struct Masks(HashMap<(ValueId, usize), Option<Pattern>>);

/// Replaces a constant mask, or a constant bias of 0 and −inf, that is a lower triangle.
pub(super) fn recognise(masks: &mut Masks, rebuild: &mut Rebuild<'_>, id: NodeId) -> Result<bool> {
    let node = rebuild.old.node(id);
    let Op::Attention(attention) = &node.op else { return Ok(false) };
    if attention.is_paged() {
        return Ok(false);
    }
    let found = [AttentionOperand::Mask, AttentionOperand::Bias].into_iter().find_map(|kind| {
        let input = attention.input_of(kind)?;
        let pattern = masks.pattern(rebuild.old, node.inputs[input], rebuild.old.shape(node.inputs[1])[2])?;
        Some((kind, input, with(attention, pattern)?, pattern))
    });
    let Some((kind, input, mut attention, pattern)) = found else { return Ok(false) };
    attention.operands.retain(|&other| other != kind);
    let inputs = node.inputs.iter().enumerate().filter(|(i, _)| *i != input);
    let inputs = inputs.map(|(_, &v)| rebuild.get(v)).collect::<Result<Vec<_>>>()?;
    let reason = match pattern {
        Pattern::Everything => format!("the constant {} masks nothing", kind.name()),
        Pattern::Causal(offset) => {
            let sign = if offset < 0 { '-' } else { '+' };
            format!(
                "the constant {} masks the keys j > i {sign} {}: masked tiles are skipped",
                kind.name(),
                offset.abs()
            )
        }
    };
    let result = node.outputs[0];
    rebuild.rewrite(id, Op::Attention(attention), &inputs)?;
    rebuild.note(RULE, result, true, reason);
    Ok(true)
}

/// The options with the pattern, if they have no other use for the alignment.
fn with(attention: &Attention, pattern: Pattern) -> Option<Attention> {
    let mut attention = attention.clone();
    if let Pattern::Causal(offset) = pattern {
        let taken = attention.causal
            || attention.window != Window::default()
            || attention.align != Align::default()
            || attention.input_of(AttentionOperand::Slopes).is_some()
            || offset != 0 && attention.uses_position();
        if taken {
            return None;
        }
        attention.causal = true;
        attention.align = if offset == 0 { Align::TopLeft } else { Align::Offset(offset) };
    }
    Some(attention)
}

impl Masks {
    /// The pattern of a constant of shape `[…, Tq, Tk]` whose leading axes are 1.
    fn pattern(&mut self, graph: &Graph, mut value: ValueId, keys: usize) -> Option<Pattern> {
        let shape = graph.shape(value);
        let [leading @ .., rows, columns] = &shape[..] else { return None };
        if leading.iter().any(|&size| size != 1) || *columns != keys || keys == 0 || *rows == 0 {
            return None;
        }
        // Reshapes in a row are one by now.
        if let Op::Reshape { .. } = graph.definition(value).op {
            value = graph.definition(value).inputs[0];
        }
        let Op::Constant { value: tensor } = &graph.definition(value).op else { return None };
        *self.0.entry((value, keys)).or_insert_with(|| of_tensor(tensor, keys))
    }
}

/// The pattern of rows of `keys` elements each, of any dtype that masks have.
fn of_tensor(tensor: &Tensor, keys: usize) -> Option<Pattern> {
    match tensor.data() {
        Data::Bool(seen) => triangle(seen, keys, |&seen| Some(seen)),
        Data::F32(bias) => triangle(bias, keys, |&x| seen(x)),
        Data::F16(bias) => triangle(bias, keys, |&x| seen(x.to_f32())),
        Data::BF16(bias) => triangle(bias, keys, |&x| seen(x.to_f32())),
        Data::I32(_) | Data::U32(_) => None,
    }
}

/// What a bias of nothing but 0 and −inf says of a key.
fn seen(bias: f32) -> Option<bool> {
    if bias == 0.0 { Some(true) } else { (bias == f32::NEG_INFINITY).then_some(false) }
}

/// The pattern of rows of `keys` elements each.
fn triangle<T>(elements: &[T], keys: usize, seen: impl Fn(&T) -> Option<bool>) -> Option<Pattern> {
    // Row i sees the keys j ≤ i + offset: bounds of the offset, which a row of some keys closes.
    let (mut least, mut most) = (i64::MIN, i64::MAX);
    for (i, row) in elements.chunks_exact(keys).enumerate() {
        let mut count = 0;
        for (j, element) in row.iter().enumerate() {
            match seen(element)? {
                true if count < j => return None,
                true => count += 1,
                false => {}
            }
        }
        let offset = count as i64 - 1 - i as i64;
        if count > 0 {
            least = least.max(offset);
        }
        if count < keys {
            most = most.min(offset);
        }
    }
    match (least, most) {
        (_, i64::MAX) => Some(Pattern::Everything),
        (i64::MIN, _) => None,
        _ if least > most => None,
        _ => i32::try_from(least).ok().map(Pattern::Causal),
    }
}
