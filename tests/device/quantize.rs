//! Weights of few bits: how far they are from what they stand for, and that products read them as they lie.

use std::collections::BTreeMap;

use half::{bf16, f16};
use proptest::prelude::*;
use tilewise::{
    DType, Graph, Layout, Result, Shape, Tensor,
    gpu::Gpu,
    graph::QuantizedValue,
    kernel::{Epilogue, MatmulDTypes, MatmulProblem, Problem, Profile},
    lower::{self, Options, Program},
    nn::Linear,
    quantize::{Bits, Packing, Quantization, QuantizedWeight},
    reference::{
        self,
        compare::{Check, Expected},
    },
};

use crate::common::{
    gpu,
    rows::{Draw, profiles},
};

/// Both numbers of bits, a scale a row or a group, with and without zero points, scales of each dtype.
fn kinds() -> Vec<Quantization> {
    vec![
        Quantization::int8(),
        Quantization::int8().scales(DType::BF16),
        Quantization::int8().group(32).asymmetric().scales(DType::F16),
        Quantization::int4(128),
        Quantization::int4(64).asymmetric(),
        Quantization::int4(16).asymmetric().scales(DType::BF16),
        Quantization { group: None, ..Quantization::int4(32).scales(DType::F16) },
    ]
}

fn weight(rows: usize, columns: usize, number: impl FnMut(usize) -> f32) -> Tensor {
    Tensor::new([rows, columns], (0..rows * columns).map(number).collect::<Vec<_>>()).expect("as many")
}

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
fn every_variant_computes_with_few_bits_checked_and_trusted() {
    let mut draw = Draw::new(1);
    let checked = Gpu::builder().checked_shaders(true).build().expect("as the other one");
    for (i, kind) in kinds().into_iter().enumerate() {
        // In whole words, and not; up to eight rows, and more.
        let [m, n, k] = [[3, 36, 160], [35, 21, 133]][i % 2];
        let w = weight(n, k, |_| draw.float());
        let x = Tensor::new([m, k], draw.floats(m * k)).expect("as many");
        let quantized = kind.quantize(&w).expect("finite");
        let tensors: Vec<Tensor> = quantized.named("w").into_iter().map(|(_, tensor)| tensor).collect();
        let b = Layout::contiguous([n, k]).permute(&[1, 0]);
        let bias = Tensor::new([n], draw.floats(n)).expect("as many");
        let epilogue = Epilogue { bias: Some(Layout::contiguous([n])), ..Epilogue::default() };
        let out = [DType::F32, DType::F16, DType::BF16][i % 3];
        let problem = MatmulProblem::new(&Layout::contiguous([m, k]), &b, epilogue)
            .and_then(|p| p.stored_as(MatmulDTypes { out, ..MatmulDTypes::all(DType::F32) }))
            .and_then(|p| p.quantized(quantized.packing, kind.scales))
            .expect("it fits");
        let inputs: Vec<&Tensor> = [&x].into_iter().chain(&tensors).chain([&bias]).collect();
        let outputs = [(out, Shape::from([m, n]))];

        let mut g = Graph::new();
        let near = quantized.dequantize().expect("it fits");
        let given: BTreeMap<String, Tensor> =
            [("x", x.clone()), ("w", near), ("bias", bias.clone())].map(|(name, t)| (name.to_string(), t)).into();
        let values = ["x", "w", "bias"].map(|name| g.input(name, DType::F32, given[name].shape()).expect("an input"));
        let y = g.linear(values[0], values[1], Some(values[2])).expect("it fits");
        let y = g.cast(y, out).expect("a float");
        g.output("y", y).expect("an output");
        let expected = Expected::of_graph(&g, &given, Check::measured()).expect("the reference takes it");

        let mut done = Vec::new();
        for profile in profiles(gpu()) {
            for candidate in problem.candidates(&profile).iter().filter(|candidate| candidate.is_usable()) {
                if done.contains(&candidate.variant) {
                    continue;
                }
                done.push(candidate.variant);
                let kernel = problem.kernel(candidate.variant, &profile).expect("it is usable");
                let label = format!("{} {}", candidate.variant, problem.summary());
                let run = |gpu: &Gpu| gpu.run_kernel(&kernel, &inputs, &outputs);
                let results = run(gpu()).unwrap_or_else(|error| panic!("{label}: {error}"));
                expected.compare(&results).unwrap_or_else(|wrong| panic!("{label}: {wrong}"));
                let safe = run(&checked).unwrap_or_else(|error| panic!("{label}: {error}"));
                assert_eq!(results[0].as_bytes(), safe[0].as_bytes(), "{label}");
            }
        }
        for variant in ["plain", "register", "tiled_32x32"] {
            assert!(done.contains(&variant), "{variant} was not run: {done:?}");
        }
        assert_eq!(done.contains(&"vec"), m <= 8);
    }
}

/// A small network: two linear layers, a tied table that is looked up as well, a norm.
fn network() -> Graph {
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let ids = g.input("ids", DType::I32, [3])?;
        let table = g.parameter("table", DType::F32, [10, 32])?;
        let x = g.gather(table, ids, 0)?;
        let x = Linear::new(32, 48).build(g, "up", x)?;
        let x = g.relu(x)?;
        let x = Linear { bias: false, ..Linear::new(48, 32) }.build(g, "down", x)?;
        g.trace("net.down", x)?;
        let y = g.matmul_transposed(x, table)?;
        g.output("logits", y)
    };
    build(&mut g).expect("the network is valid");
    g
}

#[test]
fn a_model_is_quantised_as_it_is_loaded() {
    let whole = network();
    let kind = Quantization::int4(16).asymmetric();
    let small = whole.quantized(kind, |name| name != "nothing").expect("it can be");
    small.verify().expect("it is a graph like another");
    let names: Vec<&str> = small.parameters().map(|(name, _)| name).collect();
    // The table is looked up too, so it stays.
    let up = ["up.weight.words", "up.weight.scale", "up.weight.zero", "up.bias"];
    let down = ["down.weight.words", "down.weight.scale", "down.weight.zero"];
    assert_eq!(names, [&["table"][..], &up, &down].concat());
    assert_eq!(Graph::from_json(&small.to_json().expect("it is written")).expect("it is read"), small);
    let found: Vec<String> = small.quantized_parameters().expect("of one kind").into_iter().map(|w| w.name).collect();
    assert_eq!(found, ["up.weight", "down.weight"]);

    let mut draw = Draw::new(2);
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, value) in whole.parameters() {
        let shape = whole.shape(value);
        let numbers = draw.floats(shape.elements().expect("small"));
        tensors.insert(name.to_string(), Tensor::new(shape, numbers).expect("as many"));
    }
    let ids = Tensor::new([3], vec![1i32, 9, 4]).expect("fits");
    let file = std::env::temp_dir().join(format!("tilewise-quantize-{}.safetensors", std::process::id()));
    tilewise::safetensors::save(&file, &tensors).expect("it can be written");
    let weights = tilewise::nn::Weights::open(&file).expect("it can be read");
    let made = weights.tensors(&small).expect("the names fit");
    let uploaded = weights.upload(gpu(), &small).expect("the names fit");
    std::fs::remove_file(&file).expect("it was there");
    assert_eq!(made["up.weight.words"], kind.quantize(&tensors["up.weight"]).expect("finite").words);

    let mut inputs = made;
    inputs.insert("ids".into(), ids.clone());
    let expected = Expected::of_graph(&small, &inputs, Check::measured()).expect("the reference takes it");
    let mut executable = gpu().compile(&small, uploaded.parameters()).expect("it compiles");
    let outputs = executable.run(&[("ids", &ids)]).expect("it runs");
    expected.compare_named(&outputs.into_iter().collect()).unwrap_or_else(|wrong| panic!("{wrong}"));

    // What four bits cost: a few percent of the whole model's logits.
    tensors.insert("ids".into(), ids);
    let [whole, small] = [(&whole, &tensors), (&small, &inputs)]
        .map(|(graph, inputs)| reference::evaluate(graph, inputs).expect("the reference takes it")["logits"].to_f64());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let off = norm(&mut whole.iter().zip(&small).map(|(a, b)| a - b)) / norm(&mut whole.iter().copied());
    assert!(off > 0.0 && off < 0.1, "{off}");

    // A file that has the quantised tensors is read as it is; one that has neither is short of three.
    let mut without = tensors.clone();
    without.remove("ids");
    without.remove("up.weight");
    tilewise::safetensors::save(&file, &without).expect("it can be written");
    let error = tilewise::nn::Weights::open(&file).and_then(|w| w.tensors(&network().quantized(kind, |_| true)?));
    std::fs::remove_file(&file).expect("it was there");
    let error = error.expect_err("a weight is missing").to_string();
    assert!(error.contains("3 missing") && error.contains("up.weight.zero"), "{error}");
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
