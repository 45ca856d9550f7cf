use std::ops::Range;

use super::{Cache, Linear, join, parameter};
use crate::{
    DType, Error, Graph, Result, Shape, ValueId,
    graph::{Mask, Reduce, Unary},
};

/// `torch.nn.MultiheadAttention`, batch first unless said otherwise.
///
/// `query [B, Tq, E]`, `key [B, Tk, key_width]`, `value [B, Tk, value_width]` → `[B, Tq, E]`. Without a batch axis `[T, E]` too; with a
/// [`Mask::packed`](crate::graph::Mask::packed) mask, `[ΣT, E]` is a batch of packed sequences.
///
/// Parameters: `in_proj_weight [3E, E]`, or `q_proj_weight`, `k_proj_weight`, `v_proj_weight` where a width differs;
/// `in_proj_bias [3E]`; `out_proj.weight`, `out_proj.bias`; `bias_k`, `bias_v` `[1, 1, E]`.
///
/// Traced behind its name: `q`, `k`, `v` (projected, `[B, T, E]`), `q_heads`, `k_heads`, `v_heads` and `context` (`[B, H, T, D]`),
/// `merged` (`[B, Tq, E]`), `out_proj`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MultiheadAttention {
    /// E: features of query and result.
    pub width: usize,
    /// Heads; E is a multiple.
    pub heads: usize,
    /// Features of the keys (`kdim`); `None` is E.
    pub key_width: Option<usize>,
    /// Features of the values (`vdim`); `None` is E.
    pub value_width: Option<usize>,
    /// Whether the projections have biases.
    pub bias: bool,
    /// One more key and value, learned, the same for all (`add_bias_kv`).
    pub bias_kv: bool,
    /// One more key and value of zeros (`add_zero_attn`).
    pub zero_attention: bool,
    /// Batched operands are `[B, T, E]`; otherwise `[T, B, E]`.
    pub batch_first: bool,
}

/// Masks in PyTorch's polarity, and a [`Mask`] in tilewise's. A key is seen where all of them let it be seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionMasks {
    /// `[Tq, Tk]` or `[B·heads, Tq, Tk]`. bool: true = may **not** be seen. Float: added.
    pub attn_mask: Option<ValueId>,
    /// `[B, Tk]`. bool: true = may **not** be seen. Float: added.
    pub key_padding_mask: Option<ValueId>,
    /// Everything else: causal, windows, lengths, packed sequences. Boolean parts: true = **may** be seen.
    pub mask: Mask,
}

/// Whether the attention weights are asked for beside the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttentionWeights {
    /// No: the fused kernel runs and no weight is ever stored.
    #[default]
    None,
    /// Their mean over heads, `[B, Tq, Tk]`.
    Averaged,
    /// Those of each head, `[B, heads, Tq, Tk]`.
    PerHead,
}

/// Heads side by side become an axis: `[B, T, H·D] → [B, H, T, D]`, or packed `[ΣT, H·D] → [ΣT, H, D]`.
pub(super) fn split(g: &mut Graph, x: ValueId, heads: usize) -> Result<ValueId> {
    match g.shape(x)[..] {
        [tokens, width] if heads > 0 => g.reshape(x, [tokens, heads, width / heads]),
        _ => g.split_heads(x, heads),
    }
}

/// The other way.
pub(super) fn merge(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    match g.shape(x)[..] {
        [tokens, heads, size] => g.reshape(x, [tokens, heads * size]),
        _ => g.merge_heads(x),
    }
}

impl From<Mask> for AttentionMasks {
    fn from(mask: Mask) -> Self {
        AttentionMasks { mask, ..AttentionMasks::default() }
    }
}

impl MultiheadAttention {
    /// PyTorch's defaults, but batch first.
    pub fn new(width: usize, heads: usize) -> Self {
        MultiheadAttention {
            width,
            heads,
            key_width: None,
            value_width: None,
            bias: true,
            bias_kv: false,
            zero_attention: false,
            batch_first: true,
        }
    }

    /// Adds the layer to a graph, without attention weights: query `[B, Tq, E]`, key, value → `[B, Tq, E]`. `name` is
    /// the prefix of its parameters.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::{AttentionMasks, MultiheadAttention}};
    /// # let mut g = Graph::new();
    /// let target = g.input("target", DType::F32, [2, 5, 16])?;
    /// let source = g.input("source", DType::F32, [2, 7, 16])?;
    /// let attention = MultiheadAttention::new(16, 4);
    /// let y = attention.build(&mut g, "attention", [target, source, source], &AttentionMasks::default())?;
    /// assert_eq!(g.shape(y), &[2, 5, 16].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`], which begins with `name`, if the width is no multiple of the heads, or if an operand or a mask
    /// does not have the shape or dtype that it should have; if a [`Mask`] is given, or sequences are packed, where a
    /// key and value are added (`bias_kv`, `zero_attention`); and as [`Graph::attention`]. [`Error::Graph`] as
    /// [`parameter`].
    pub fn build(
        &self,
        g: &mut Graph,
        name: &str,
        [query, key, value]: [ValueId; 3],
        masks: &AttentionMasks,
    ) -> Result<ValueId> {
        Ok(self.build_with_weights(g, name, [query, key, value], masks, AttentionWeights::None)?.0)
    }

    /// Adds the layer to a graph; the second result is the attention weights, if they are asked for.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::{AttentionMasks, AttentionWeights, MultiheadAttention}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 5, 16])?;
    /// let (layer, masks) = (MultiheadAttention::new(16, 4), AttentionMasks::default());
    /// let (_, weights) = layer.build_with_weights(&mut g, "attention", [x; 3], &masks, AttentionWeights::PerHead)?;
    /// assert_eq!(g.shape(weights.unwrap()), &[2, 4, 5, 5].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`MultiheadAttention::build`]; [`Error::Op`] too for weights of packed sequences.
    pub fn build_with_weights(
        &self,
        g: &mut Graph,
        name: &str,
        operands: [ValueId; 3],
        masks: &AttentionMasks,
        weights: AttentionWeights,
    ) -> Result<(ValueId, Option<ValueId>)> {
        let given = self.check(g, name, operands)?;
        let packed = masks.mask.is_packed();
        // One layout inside: [B, T, E], or [ΣT, E] packed.
        let turned = given == 3 && !self.batch_first;
        let [query, key, value] = if turned {
            self.each(g, operands, |g, x| g.permute(x, &[1, 0, 2]))?
        } else if given == 2 && !packed {
            self.each(g, operands, |g, x| {
                let [t, e] = [g.shape(x)[0], g.shape(x)[1]];
                g.reshape(x, [1, t, e])
            })?
        } else {
            operands
        };
        let [q, k, v] = self.project(g, name, [query, key, value])?;
        self.trace(g, name, ["q", "k", "v"], [q, k, v])?;
        let [k, v] = self.extend(g, name, [k, v], packed)?;
        let keys = g.shape(k)[if packed { 0 } else { 1 }];
        let [q, k, v] = self.each(g, [q, k, v], |g, x| split(g, x, self.heads))?;
        self.trace(g, name, ["q_heads", "k_heads", "v_heads"], [q, k, v])?;
        let mask = self.mask(g, masks, keys)?;
        let attended = g.attention(q, k, v, mask.clone())?;
        let mut y = self.out(g, name, attended)?;
        if turned {
            y = g.permute(y, &[1, 0, 2])?;
        } else if given == 2 && !packed {
            let tokens = g.shape(y)[1];
            y = g.reshape(y, [tokens, self.width])?;
        }
        g.trace(name, y)?;
        let weights = match weights {
            AttentionWeights::None => None,
            AttentionWeights::Averaged | AttentionWeights::PerHead if packed => {
                return Err(Error::op(name, "attention weights are not given for packed sequences: run one at a time"));
            }
            AttentionWeights::Averaged | AttentionWeights::PerHead => {
                let all = g.attention_weights(q, k, mask)?;
                let averaged = weights == AttentionWeights::Averaged;
                let w = if averaged { g.reduce(Reduce::Mean, all, &[1], false)? } else { all };
                let inner: Shape = g.shape(w)[1..].into();
                Some(if given == 2 { g.reshape(w, inner)? } else { w })
            }
        };
        Ok((y, weights))
    }

    fn each(
        &self,
        g: &mut Graph,
        values: [ValueId; 3],
        f: impl Fn(&mut Graph, ValueId) -> Result<ValueId>,
    ) -> Result<[ValueId; 3]> {
        let [a, b, c] = values;
        Ok([f(g, a)?, f(g, b)?, f(g, c)?])
    }

    fn trace<const N: usize>(&self, g: &mut Graph, name: &str, parts: [&str; N], values: [ValueId; N]) -> Result<()> {
        parts.into_iter().zip(values).try_for_each(|(part, value)| g.trace(&join(name, part), value).map(drop))
    }

    fn check(&self, g: &Graph, name: &str, operands: [ValueId; 3]) -> Result<usize> {
        if self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            return Err(Error::op(name, format!("width {} is no multiple of {} heads", self.width, self.heads)));
        }
        let rank = g.shape(operands[0]).rank();
        let widths = [self.width, self.key_width.unwrap_or(self.width), self.value_width.unwrap_or(self.width)];
        for ((operand, value), width) in ["query", "key", "value"].iter().zip(operands).zip(widths) {
            let shape = g.shape(value);
            if !(2..=3).contains(&rank) || shape.rank() != rank || shape.last() != Some(&width) {
                return Err(Error::op(
                    name,
                    format!("`{operand}` has shape {shape}, expected [B, T, {width}] (or [T, {width}] for all three)"),
                ));
            }
        }
        Ok(rank)
    }

    /// Self-attention of `x [B, T, E]` over a cache with its keys and values put in. `name.keys` and `name.values` are the states.
    pub(super) fn build_cached(&self, g: &mut Graph, name: &str, x: ValueId, cache: &Cache) -> Result<ValueId> {
        self.check(g, name, [x, x, x])?;
        let projected = self.project(g, name, [x, x, x])?;
        let [q, k, v] = self.each(g, projected, |g, x| split(g, x, self.heads))?;
        let y = cache.attend(g, name, [q, k, v])?;
        self.out(g, name, y)
    }

    /// Keys and values of a memory `[B, S, key_width]`, `[B, H, S, D]` each.
    pub(super) fn keys_and_values(&self, g: &mut Graph, name: &str, memory: ValueId) -> Result<[ValueId; 2]> {
        let parts = self.project_equal(g, name, memory, 1..3)?;
        Ok([split(g, parts[0], self.heads)?, split(g, parts[1], self.heads)?])
    }

    /// Attention of `x [B, T, E]` over keys and values that are projected already.
    pub(super) fn build_over(
        &self,
        g: &mut Graph,
        name: &str,
        x: ValueId,
        [k, v]: [ValueId; 2],
        mask: Mask,
    ) -> Result<ValueId> {
        let q = self.project_equal(g, name, x, 0..1)?[0];
        let q = split(g, q, self.heads)?;
        let y = g.attention(q, k, v, mask)?;
        self.out(g, name, y)
    }

    /// Heads side by side again, and the last projection.
    fn out(&self, g: &mut Graph, name: &str, attended: ValueId) -> Result<ValueId> {
        let merged = merge(g, attended)?;
        self.trace(g, name, ["context", "merged"], [attended, merged])?;
        let out = Linear { inputs: self.width, outputs: self.width, bias: self.bias };
        out.build(g, &join(name, "out_proj"), merged)
    }

    /// q, k and v, `[…, E]` each.
    fn project(&self, g: &mut Graph, name: &str, operands: [ValueId; 3]) -> Result<[ValueId; 3]> {
        // Runs of equal operands: [q k v], [q] [k v], [q] [k] [v], …
        let mut parts = Vec::with_capacity(3);
        let mut from = 0;
        while from < 3 {
            let to = (from + 1..3).find(|&i| operands[i] != operands[from]).unwrap_or(3);
            parts.extend(self.project_equal(g, name, operands[from], from..to)?);
            from = to;
        }
        Ok([parts[0], parts[1], parts[2]])
    }

    /// Those of q, k and v (0, 1, 2) that come from one operand: one product where the weights lie together.
    fn project_equal(&self, g: &mut Graph, name: &str, x: ValueId, parts: Range<usize>) -> Result<Vec<ValueId>> {
        let e = self.width;
        let widths = [e, self.key_width.unwrap_or(e), self.value_width.unwrap_or(e)];
        let bias =
            if self.bias { Some(parameter(g, &join(name, "in_proj_bias"), [e.saturating_mul(3)])?) } else { None };
        let rows = |g: &mut Graph, of: ValueId, part: &Range<usize>| {
            if *part == (0..3) { Ok(of) } else { g.slice(of, 0, part.start * e, part.end.saturating_mul(e)) }
        };
        if widths != [e; 3] {
            let one = |i: usize| {
                let kind = ["q_proj_weight", "k_proj_weight", "v_proj_weight"][i];
                let weight = parameter(g, &join(name, kind), [e, widths[i]])?;
                let bias = bias.map(|bias| rows(g, bias, &(i..i + 1))).transpose()?;
                g.linear(x, weight, bias)
            };
            return parts.map(one).collect();
        }
        let weight = parameter(g, &join(name, "in_proj_weight"), [e.saturating_mul(3), e])?;
        let weight = rows(g, weight, &parts)?;
        let bias = bias.map(|bias| rows(g, bias, &parts)).transpose()?;
        let product = g.linear(x, weight, bias)?;
        if parts.len() == 1 {
            return Ok(vec![product]);
        }
        (0..parts.len()).map(|i| g.slice(product, -1, i * e, (i + 1) * e)).collect()
    }

    /// The learned and the zero key and value, behind the others.
    fn extend(&self, g: &mut Graph, name: &str, [k, v]: [ValueId; 2], packed: bool) -> Result<[ValueId; 2]> {
        if !self.bias_kv && !self.zero_attention {
            return Ok([k, v]);
        }
        if packed {
            return Err(Error::op(name, "bias_kv and zero_attention are not taken with packed sequences"));
        }
        let one: Shape = [g.shape(k)[0], 1, self.width].into();
        let (mut ks, mut vs) = (vec![k], vec![v]);
        if self.bias_kv {
            for (list, kind) in [(&mut ks, "bias_k"), (&mut vs, "bias_v")] {
                let row = parameter(g, &join(name, kind), [1, 1, self.width])?;
                list.push(g.broadcast(row, one.clone())?);
            }
        }
        if self.zero_attention {
            let zero = g.scalar(0.0, k)?;
            let zeros = g.broadcast(zero, one)?;
            ks.push(zeros);
            vs.push(zeros);
        }
        Ok([g.concat(&ks, 1)?, g.concat(&vs, 1)?])
    }

    /// All masks as one, in tilewise's polarity. Added keys (bias_kv, zero_attention) are seen by all.
    fn mask(&self, g: &mut Graph, masks: &AttentionMasks, keys: usize) -> Result<Mask> {
        let added = usize::from(self.bias_kv) + usize::from(self.zero_attention);
        if added > 0 && masks.mask != Mask::none() {
            return Err(Error::op(
                "multihead attention",
                "a Mask would hide the added key and value (bias_kv, zero_attention): use attn_mask and key_padding_mask",
            ));
        }
        let mut all = masks.mask.clone();
        for (value, name) in [(masks.attn_mask, "attn_mask"), (masks.key_padding_mask, "key_padding_mask")] {
            let Some(value) = value else { continue };
            let shape = g.shape(value).clone();
            let target: Shape = match (name, &shape[..]) {
                ("attn_mask", &[tq, tk]) => [tq, tk].into(),
                ("attn_mask", &[bh, tq, tk]) if bh % self.heads == 0 => [bh / self.heads, self.heads, tq, tk].into(),
                ("key_padding_mask", &[tk]) => [tk].into(),
                ("key_padding_mask", &[b, tk]) => [b, 1, 1, tk].into(),
                _ => {
                    let expected = match name {
                        "attn_mask" => "[Tq, Tk] or [B·heads, Tq, Tk]",
                        _ => "[B, Tk]",
                    };
                    return Err(Error::op(
                        "multihead attention",
                        format!("`{name}` has shape {shape}, expected {expected}"),
                    ));
                }
            };
            if target.last() != Some(&(keys - added)) {
                return Err(Error::op(
                    "multihead attention",
                    format!("`{name}` has shape {shape}, but there are {} keys", keys - added),
                ));
            }
            let mut value = g.reshape(value, target.clone())?;
            if added > 0 {
                let mut frame = vec![(0, 0); target.rank()];
                frame[target.rank() - 1] = (0, added);
                value = g.pad(value, &frame, 0.0)?;
            }
            all = all
                & match g.dtype(value) {
                    DType::Bool => Mask::boolean(g.unary(Unary::Not, value)?),
                    DType::F32 | DType::F16 | DType::BF16 => Mask::bias(value),
                    dtype @ (DType::I32 | DType::U32) => {
                        return Err(Error::dtype("multihead attention", name, dtype, "bool or float"));
                    }
                };
        }
        Ok(all)
    }
}
