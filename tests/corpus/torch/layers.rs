//! Attention with projections, layers of a Transformer, and stacks of them.

use tilewise::{
    graph::Mask,
    nn::{
        Activation, AttentionMasks, AttentionWeights, Decoder, DecoderLayer, Encoder, EncoderLayer, MultiheadAttention,
        Transformer,
    },
};

use super::case::{Case, Compute, Net, Run};

pub(crate) fn find(group: &str, operator: &str) -> Option<Compute> {
    Some(Compute::Graph(match (group, operator) {
        ("mha", "MultiheadAttention") => attention,
        ("encoder_layer", "TransformerEncoderLayer") => |net| {
            let (src, masks) = (net.input("src")?, masks(net, "src")?);
            let y = encoder_layer(net.case)?.build(&mut net.g, "", src, &masks)?;
            net.output("y", y)
        },
        ("decoder_layer", "TransformerDecoderLayer") => |net| {
            let (tgt, memory) = (net.input("tgt")?, net.input("memory")?);
            let (own, cross) = (masks(net, "tgt")?, masks(net, "memory")?);
            let y = decoder_layer(net.case)?.build(&mut net.g, "", tgt, memory, &own, &cross)?;
            net.output("y", y)
        },
        ("encoder", "TransformerEncoder") => |net| {
            let (src, masks) = (net.input("src")?, masks(net, "src")?);
            let y = encoder(net.case)?.build(&mut net.g, "", src, &masks)?;
            net.output("y", y)
        },
        ("transformer", "Transformer") => |net| {
            let operands = [net.input("src")?, net.input("tgt")?];
            let (source, target, cross) = (masks(net, "src")?, masks(net, "tgt")?, masks(net, "memory")?);
            let (encoders, decoders) = (net.case.size("num_encoder_layers")?, net.case.size("num_decoder_layers")?);
            let model = Transformer::new(encoder_layer(net.case)?, encoders, decoders);
            let y = model.build(&mut net.g, "", operands, &source, &target, &cross)?;
            net.output("y", y)
        },
        _ => return None,
    }))
}

/// `NAME_mask` and `NAME_key_padding_mask`, in PyTorch's polarity: true = may not be seen.
fn masks(net: &mut Net<'_>, name: &str) -> Run<AttentionMasks> {
    Ok(AttentionMasks {
        attn_mask: net.optional(&format!("{name}_mask"))?,
        key_padding_mask: net.optional(&format!("{name}_key_padding_mask"))?,
        mask: Mask::none(),
    })
}

fn attention(net: &mut Net<'_>) -> Run<()> {
    let query = net.input("query")?;
    let key = net.optional("key")?.unwrap_or(query);
    let value = net.optional("value")?.unwrap_or(key);
    let masks = AttentionMasks {
        attn_mask: net.optional("attn_mask")?,
        key_padding_mask: net.optional("key_padding_mask")?,
        mask: Mask::none(),
    };
    let case = net.case;
    let layer = MultiheadAttention {
        width: case.size("embed_dim")?,
        heads: case.size("num_heads")?,
        key_width: Some(case.size("kdim")?),
        value_width: Some(case.size("vdim")?),
        bias: case.flag("bias"),
        bias_kv: case.flag("add_bias_kv"),
        zero_attention: case.flag("add_zero_attn"),
        batch_first: case.flag("batch_first"),
    };
    let weights = match (case.wants("attn"), case.flag("attn_is_averaged_over_heads")) {
        (false, _) => AttentionWeights::None,
        (true, true) => AttentionWeights::Averaged,
        (true, false) => AttentionWeights::PerHead,
    };
    let (y, weights) = layer.build_with_weights(&mut net.g, "", [query, key, value], &masks, weights)?;
    net.output("y", y)?;
    match weights {
        Some(weights) => net.output("attn", weights),
        None => Ok(()),
    }
}

fn activation(case: &Case) -> Run<Activation> {
    match case.text("activation")? {
        "relu" => Ok(Activation::Relu),
        "gelu" => Ok(Activation::Gelu),
        other => Err(format!("the activation `{other}`").into()),
    }
}

pub(crate) fn encoder_layer(case: &Case) -> Run<EncoderLayer> {
    let (width, heads, hidden) = (case.size("d_model")?, case.size("nhead")?, case.size("dim_feedforward")?);
    let usual = EncoderLayer::new(width, heads, hidden);
    Ok(EncoderLayer {
        activation: activation(case)?,
        norm_first: case.flag("norm_first"),
        epsilon: case.optional_float("layer_norm_eps").map_or(usual.epsilon, |epsilon| epsilon as f32),
        ..usual
    })
}

fn decoder_layer(case: &Case) -> Run<DecoderLayer> {
    let EncoderLayer { width, heads, hidden, activation, norm_first, epsilon, .. } = encoder_layer(case)?;
    Ok(DecoderLayer { activation, norm_first, epsilon, ..DecoderLayer::new(width, heads, hidden) })
}

pub(crate) fn encoder(case: &Case) -> Run<Encoder> {
    Ok(Encoder {
        layer: encoder_layer(case)?,
        layers: case.size("num_layers").or_else(|_| case.size("layers"))?,
        final_norm: case.flag("final_norm"),
    })
}

/// Encoder and decoder of a model whose config has `layers: [encoder, decoder]`.
pub(crate) fn transformer(case: &Case) -> Run<(Encoder, Decoder)> {
    let layers = case.sizes("layers")?;
    let [encoders, decoders] = layers[..] else { return Err(format!("layers are {layers:?}").into()) };
    let Transformer { encoder, decoder } = Transformer::new(encoder_layer(case)?, encoders, decoders);
    Ok((encoder, decoder))
}
