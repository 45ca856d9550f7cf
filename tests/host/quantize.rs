//! Weights of few bits: how far they are from what they stand for, and what lowering makes of them.

use std::collections::BTreeMap;

use half::{bf16, f16};
use proptest::prelude::*;
use tilewise::{
    DType, Graph, Result, Tensor,
    graph::QuantizedValue,
    kernel::Profile,
    lower::{self, Options, Program},
    nn::Linear,
    quantize::{Bits, Packing, Quantization, QuantizedWeight},
    reference,
};

use crate::common::{
    quantize::{kinds, weight},
    rows::Draw,
};

fn evaluated(quantized: &QuantizedWeight) -> Tensor {
    let mut g = Graph::new();
    let mut inputs = BTreeMap::new();
    let mut given = |g: &mut Graph, (name, tensor): (String, Tensor)| {
        let value = g.input(&name, tensor.dtype(), tensor.shape()).expect("an input");
        inputs.insert(name, tensor);
        value
    };
    let values: Vec<_> = quantized.named("w").into_iter().map(|named| given(&mut g, named)).collect();
    let zero = values.get(2).copied();
    let weight = QuantizedValue { packing: quantized.packing, words: values[0], scale: values[1], zero };
    let w = g.dequantize(weight).expect("the tensors fit");
    g.output("w", w).expect("an output");
    reference::evaluate(&g, &inputs).expect("the reference takes it").remove("w").expect("the output")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_weight_is_within_half_a_scale(
        rows in 1usize..5,
        columns in 1usize..300,
        kind in 0usize..7,
        shift in -1.0f32..1.0,
        magnitude in -3i32..4,
        seed: u64,
    ) {
        let mut draw = Draw::new(seed);
        let unit = 10f32.powi(magnitude);
        let w = weight(rows, columns, |_| (draw.float() + shift) * unit);
        let kind = kinds()[kind];
        let quantized = kind.quantize(&w).expect("finite");
        let near = quantized.dequantize().expect("it fits");
        prop_assert_eq!(evaluated(&quantized), near.clone(), "the reference reads it the same way");
        let scales = quantized.scale.to_f64();
        let groups = quantized.packing.groups();
        for (at, (w, near)) in w.to_f64().into_iter().zip(near.to_f64()).enumerate() {
            let (n, k) = (at / columns, at % columns);
            let scale = scales[n * groups + kind.group.map_or(0, |group| k / group)];
            // Half a scale, and a rounding of the scale and of the product to f32.
            let bound = 0.5 * scale + 1.2e-7 * (w.abs() + scale);
            prop_assert!((w - near).abs() <= bound, "[{n}, {k}]: {near} for {w}, scale {scale}");
        }
    }
}

#[test]
fn what_few_bits_can_say_is_kept() {
    // Steps of the scale, its ends among them: 7 · ½ for four bits, 127 · ½ for eight.
    for (kind, most) in [(Quantization::int4(32), 7), (Quantization::int8(), 127)] {
        let w = weight(3, 70, |i| ((i * 31) as i32 % (2 * most + 1) - most) as f32 * 0.5);
        let mut ends = w.as_f32().expect("f32").to_vec();
        // Each group has the largest.
        (0..3).flat_map(|n| [0, 32, 64].map(|k| n * 70 + k)).for_each(|at| ends[at] = most as f32 * 0.5);
        let w = Tensor::new([3, 70], ends).expect("as many");
        assert_eq!(kind.quantize(&w).and_then(|q| q.dequantize()).expect("it fits"), w);
    }
    // From the least to the largest, with 0 in between, which zero points keep exactly.
    let kind = Quantization::int4(16).asymmetric();
    let w = weight(2, 16, |i| (i % 16) as f32 - 3.0);
    assert_eq!(kind.quantize(&w).and_then(|q| q.dequantize()).expect("it fits"), w);
    // Nothing but zeros has no scale.
    for kind in kinds() {
        let none = weight(2, 40, |_| 0.0);
        assert_eq!(kind.quantize(&none).and_then(|q| q.dequantize()).expect("it fits"), none);
    }
}

#[test]
fn numbers_lie_from_the_lowest_bits_on() {
    let w = weight(1, 18, |i| i as f32 - 8.0);
    let quantized = Quantization::int4(16).asymmetric().quantize(&w).expect("finite");
    // −8 … 7 are 0 … 15 of one group, 8 and 9 of the next; what is behind them is 0.
    assert_eq!(quantized.words.as_u32(), Some(&[0x7654_3210, 0xfedc_ba98, 0x0000_00fd, 0][..]));
    assert_eq!(quantized.zero.as_ref().and_then(Tensor::as_u32), Some(&[0x08][..]));
    assert_eq!(quantized.packing.to_string(), "int4:16+zero");
    let eight = Quantization::int8().quantize(&weight(1, 3, |i| [-127.0, 0.0, 127.0][i])).expect("finite");
    assert_eq!(eight.words.as_u32(), Some(&[0x00ff_8001][..]));
    assert_eq!(eight.bytes() as u64, eight.packing.bytes(1, DType::F32));
}

#[test]
fn refusals_say_why() {
    let message = |kind: Quantization, w: &Tensor| kind.quantize(w).expect_err("refused").to_string();
    let w = weight(2, 3, |i| i as f32);
    assert_eq!(
        message(Quantization::int4(20), &w),
        "dequantize: a group of 20 columns, expected a power of two from 16 on"
    );
    assert!(message(Quantization::int8().asymmetric(), &w).contains("zero points need groups of columns"));
    let vector = Tensor::new([3], vec![1.0f32; 3]).expect("fits");
    assert_eq!(message(Quantization::int8(), &vector), "quantize: the weight is [3], expected [rows, columns]");
    let infinite = weight(2, 3, |i| if i == 4 { f32::INFINITY } else { 1.0 });
    assert_eq!(message(Quantization::int8(), &infinite), "quantize: weight [1, 1] is inf");
    let large = weight(1, 1, |_| 1e30);
    assert!(message(Quantization::int8().scales(DType::F16), &large).contains("need a scale that f16 can't hold"));
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [1, 40]).expect("an input");
    let words = g.input("words", DType::U32, [8, 4]).expect("an input");
    let scale = g.input("scale", DType::F32, [8, 2]).expect("an input");
    let packing = Packing { bits: Bits::Four, group: Some(32), zero: false, columns: 40 };
    let weight = QuantizedValue { packing, words, scale, zero: None };
    let refused = g.linear_quantized(x, weight, None).expect_err("refused").to_string();
    assert_eq!(refused, "dequantize: `words` is [8, 4], int4:32 of 40 columns needs [8, 8]");
}

/// A linear layer of few bits and one of f32, of 1 row and 4096 features.
fn program(build: impl FnOnce(&mut Graph) -> Result<()>) -> Program {
    let mut g = Graph::new();
    build(&mut g).expect("the graph is valid");
    let options = Options::default();
    lower::lower(&g, &Profile::portable(), &options).expect("it lowers")
}

#[test]
fn a_product_reads_few_bits_from_memory() {
    let layer = |quantization: Option<Quantization>| {
        program(|g| {
            let x = g.input("x", DType::F32, [1, 4096])?;
            let y = Linear { bias: false, ..Linear::new(4096, 512) }.build(g, "up", x)?;
            let y = g.silu(y)?;
            g.output("y", y)?;
            if let Some(quantization) = quantization {
                *g = g.quantized(quantization, |_| true)?;
            }
            Ok(())
        })
    };
    let plain = layer(None);
    for (kind, bytes) in [
        (Quantization::int8(), 512 * 4096 + 512 * 4),
        (Quantization::int4(128).scales(DType::F16), 512 * 4096 / 2 + 512 * 32 * 2),
        (Quantization::int4(32).asymmetric(), 512 * 4096 / 2 + 512 * 128 * 4 + 512 * 128 / 2),
    ] {
        let few = layer(Some(kind));
        assert_eq!(few.steps.len(), 1, "{few}");
        assert_eq!(few.steps[0].bytes(), plain.steps[0].bytes() - 512 * 4096 * 4 + bytes, "{few}");
        let summary = format!("M=1 N=512 K=4096 +silu f32·{}→f32", kind.packing(4096));
        assert_eq!(few.steps[0].summary, summary);
    }
}

#[test]
fn other_readers_get_the_weight_in_f32() {
    let both = program(|g| {
        let x = g.input("x", DType::F32, [4, 64])?;
        let w = g.quantized_parameter("w", [48, 64], Quantization::int8())?;
        let w = g.dequantize(w)?;
        let y = g.matmul_transposed(x, w)?;
        let z = g.matmul(y, w)?;
        g.output("z", z)
    });
    let families: Vec<&str> = both.steps.iter().map(|step| step.family).collect();
    // The product with the weight as it is needs it whole.
    assert_eq!(families, ["dequantize", "matmul", "matmul"], "{both}");
}

#[test]
fn narrow_weights_are_quantised_as_the_numbers_they_are() {
    let numbers: Vec<f32> = (0..64).map(|i| (i as f32 - 31.0) / 64.0).collect();
    let wide = Tensor::new([2, 32], numbers.clone()).expect("as many");
    let halves = Tensor::new([2, 32], numbers.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()).expect("as many");
    let brains = Tensor::new([2, 32], numbers.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()).expect("as many");
    let kind = Quantization::int4(32);
    let of = |weight: &Tensor| kind.quantize(weight).expect("finite");
    assert_eq!(of(&wide), of(&halves));
    assert_eq!(of(&wide), of(&brains));
}

/// A weight of one column, of which each row is a number in a word: a step along k is never taken.
#[test]
fn a_weight_of_one_column_is_read_where_it_lies() {
    let text = r#"{"nodes":[{"op":"parameter","dtype":"u32","shape":[3,4],"outputs":["w"]},{"op":"parameter","dtype":"f32","shape":[3,1],"outputs":["s"]},{"op":"dequantize","bits":"8","group":16,"columns":1,"inputs":["w","s"],"outputs":["d"]},{"op":"input","dtype":"f32","shape":[2,1],"outputs":["x"]},{"op":"matmul","transpose_b":true,"inputs":["x","d"],"outputs":["y"]}],"outputs":[{"name":"o","value":"y"}]}"#;
    let g = Graph::from_json(text).expect("fits");
    let program = lower::lower(&g, &Profile::portable(), &Options::default()).expect("lowers");
    assert_eq!(program.steps.len(), 1, "{program}");
    assert!(program.steps[0].summary.contains("int8:16"), "{program}");
}
