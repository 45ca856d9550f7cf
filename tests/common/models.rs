//! Weights of a formula for whole models.

use std::collections::BTreeMap;

use tilewise::{Graph, Tensor, ValueId, nn::Bert};

pub(crate) type Given = BTreeMap<String, Tensor>;

/// SplitMix64 (Steele, Lea and Flood, 2014) as a function of name and place: values in (−1, 1).
pub(crate) fn draw(name: &str, n: usize) -> impl Iterator<Item = f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (1..=n as u64).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

/// Weights of the size that trained ones have: matrices by the root of their width, norms around 1, small biases.
pub(crate) fn weights(g: &Graph) -> Given {
    let tensor = |(name, value): (&str, ValueId)| {
        let shape = g.shape(value);
        let n = shape.elements().expect("small");
        let (middle, scale) = match shape[..] {
            [_, _] if ["emb", "wte", "wpe"].iter().any(|part| name.contains(part)) => (0.0, 1.0),
            [_, inputs] => (0.0, 1.7 / (inputs as f32).sqrt()),
            _ if name.ends_with("bias") => (0.0, 0.1),
            _ => (1.0, 0.2),
        };
        let data: Vec<f32> = draw(name, n).map(|x| middle + scale * x).collect();
        (name.to_string(), Tensor::new(shape, data).expect("fits"))
    };
    g.parameters().map(tensor).collect()
}

pub(crate) fn i32s(shape: &[usize], values: &[i32]) -> Tensor {
    Tensor::new(shape, values.to_vec()).expect("fits")
}

pub(crate) fn ids(name: &str, n: usize, vocabulary: usize) -> Vec<i32> {
    draw(name, n).map(|x| ((x + 1.0) / 2.0 * vocabulary as f32) as i32 % vocabulary as i32).collect()
}

pub(crate) fn small_bert() -> Bert {
    Bert { epsilon: 1e-5, pooler: true, ..Bert::new(31, 12, 16, 2, 4, 24) }
}
