//! Weights of few bits: products read them as they lie, and models are quantised as they are loaded.

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Layout, Result, Shape, Tensor,
    gpu::Gpu,
    kernel::{Epilogue, MatmulDTypes, MatmulProblem, Problem},
    nn::Linear,
    quantize::Quantization,
    reference::{
        self,
        compare::{Check, Expected},
    },
};

use crate::common::{
    checked_gpu, gpu,
    quantize::{kinds, weight},
    rows::{Draw, profiles},
};

#[test]
fn every_variant_computes_with_few_bits_checked_and_trusted() {
    let mut draw = Draw::new(1);
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
                let safe = run(checked_gpu()).unwrap_or_else(|error| panic!("{label}: {error}"));
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
