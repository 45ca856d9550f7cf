//! Operators with a state that goes from step to step.

use tilewise::{DType, Tensor, ValueId};

use super::import::{Builder, Call, Result, Slot};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "CausalConvWithState" => causal_convolution,
        "LinearAttention" => linear_attention,
        _ => return None,
    })
}

/// `y[b, c, t] = bias[c] + Σ_k weight[c, 0, k] · x[b, c, t − K + 1 + k]`, with what came before the input as state.
fn causal_convolution(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (x, weight, bias) = (c.x(0)?, c.x(1)?, c.optional(2)?);
    let (shape, k) = (c.shape(x), c.shape(weight)[2]);
    let (b, channels, t) = (shape[0], shape[1], shape[2]);
    let before = match c.optional(3)? {
        Some(past) => past,
        None => {
            let zeros = Tensor::zeros(c.dtype(x), [b, channels, k - 1])?;
            c.g().constant(zeros)?
        }
    };
    let dtype = c.dtype(x);
    let g = c.g();
    let line = g.concat(&[before, x], 2)?;
    let state = g.slice(line, 2, t, t + k - 1)?;
    let (line, weight) = (g.cast(line, DType::F32)?, g.cast(weight, DType::F32)?);
    let mut y: Option<ValueId> = None;
    for at in 0..k {
        let (from, factor) = (g.slice(line, 2, at, at + t)?, g.slice(weight, 2, at, at + 1)?);
        let factor = g.reshape(factor, [channels, 1])?;
        let term = g.mul(from, factor)?;
        y = Some(match y {
            Some(sum) => g.add(sum, term)?,
            None => term,
        });
    }
    let Some(mut y) = y else { return c.fault("the kernel is empty") };
    if let Some(bias) = bias {
        let bias = g.cast(bias, DType::F32)?;
        let bias = g.reshape(bias, [channels, 1])?;
        y = g.add(y, bias)?;
    }
    y = match c.node.text("activation") {
        Some("silu" | "swish") => c.g().silu(y)?,
        Some("none") | None => y,
        Some(other) => return c.fault(format!("the activation `{other}`")),
    };
    let y = c.g().cast(y, dtype)?;
    Ok(vec![y.into(), state.into()])
}

/// `o_t = scale · q_tᵀ S_t` with a state that each step decays and adds to:
/// `S_t = exp(g_t) · S_{t−1} + k_t ⊗ v_t`, and by the delta rule `… + β_t · k_t ⊗ (v_t − k_tᵀ exp(g_t) S_{t−1})`.
fn linear_attention(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let rule = c.node.text("update_rule").unwrap_or("gated_delta").to_string();
    let (gated, delta) = (rule.starts_with("gated"), rule.ends_with("delta"));
    let heads = c.node.int("q_num_heads").unwrap_or(1) as usize;
    let kv_heads = c.node.int("kv_num_heads").unwrap_or(1) as usize;
    let (q, k, v) = (c.x(0)?, c.x(1)?, c.x(2)?);
    let dtype = c.dtype(q);
    let (b, t) = (c.shape(q)[0], c.shape(q)[1]);
    // [B, heads, T, D], in f32
    let lines = |c: &mut Call<'_>, x: ValueId, heads: usize| -> Result<ValueId> {
        let x = c.g().cast(x, DType::F32)?;
        Ok(c.g().split_heads(x, heads)?)
    };
    let (q, k, v) = (lines(c, q, heads)?, lines(c, k, kv_heads)?, lines(c, v, kv_heads)?);
    let (dk, dv) = (c.shape(k)[3], c.shape(v)[3]);
    let scale = match c.node.float("scale") {
        Some(scale) if scale != 0.0 => scale,
        _ => 1.0 / (dk as f64).sqrt(),
    };
    let mut state = match c.optional(3)? {
        Some(past) => c.g().cast(past, DType::F32)?,
        None => {
            let zeros = Tensor::zeros(DType::F32, [b, kv_heads, dk, dv])?;
            c.g().constant(zeros)?
        }
    };
    let decay = match gated {
        true => {
            let decay = c.x(4)?;
            // One number for each feature of a key, or one for all of a head.
            let decay = lines(c, decay, kv_heads)?;
            Some(c.g().exp(decay)?)
        }
        false => None,
    };
    let beta = match delta {
        true => {
            let beta = c.x(5)?;
            let of = c.shape(beta)[2];
            Some(lines(c, beta, of)?)
        }
        false => None,
    };
    let g = c.g();
    let mut outputs = Vec::new();
    for step in 0..t {
        let (q, k, v) =
            (g.slice(q, 2, step, step + 1)?, g.slice(k, 2, step, step + 1)?, g.slice(v, 2, step, step + 1)?);
        let column = g.permute(k, &[0, 1, 3, 2])?;
        if let Some(decay) = decay {
            let decay = g.slice(decay, 2, step, step + 1)?;
            let decay = g.permute(decay, &[0, 1, 3, 2])?;
            state = g.mul(state, decay)?;
        }
        let mut new = v;
        if let Some(beta) = beta {
            let known = g.matmul(k, state)?;
            let beta = g.slice(beta, 2, step, step + 1)?;
            new = g.sub(new, known)?;
            new = g.mul(new, beta)?;
        }
        let outer = g.mul(column, new)?;
        state = g.add(state, outer)?;
        // Several query heads read one state.
        let rows = g.reshape(q, [b, kv_heads, heads / kv_heads, dk])?;
        let o = g.matmul(rows, state)?;
        outputs.push(g.reshape(o, [b, 1, heads * dv])?);
    }
    let y = g.concat(&outputs, 1)?;
    let factor = g.scalar(scale, y)?;
    let y = g.mul(y, factor)?;
    Ok(vec![g.cast(y, dtype)?.into(), g.cast(state, dtype)?.into()])
}
