//! Two modalities: a whole encoder–decoder turns 7 source steps of width 12 into 5 target steps of width 20.
//!
//! `cargo run --release -p tilewise --example seq2seq`

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Tensor,
    gpu::Gpu,
    graph::{Align, Mask},
    nn::{AttentionMasks, Decoder, DecoderLayer, Encoder, EncoderLayer, Linear},
    reference::compare::{Check, Expected},
};

const SOURCE: [usize; 3] = [2, 7, 12]; // [B, T_a, E_a]
const TARGET: [usize; 3] = [2, 5, 20]; // [B, T_b, E_b]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::new();
    let source = g.input("source", DType::F32, SOURCE)?;
    let target = g.input("target", DType::F32, TARGET)?;
    let lengths = g.input("source lengths", DType::I32, [SOURCE[0]])?;

    // The encoder attends to the real tokens of the source, in both directions.
    let encoder = Encoder { layer: EncoderLayer::new(SOURCE[2], 3, 48), layers: 2, final_norm: true };
    let real = AttentionMasks::from(Mask::key_lengths(lengths));
    let memory = encoder.build(&mut g, "encoder", source, &real)?;

    // In each block of the decoder the target attends to itself, causally, and then to the memory: queries have width 20, keys
    // and values 12.
    let layer = DecoderLayer { memory_width: Some(SOURCE[2]), ..DecoderLayer::new(TARGET[2], 4, 80) };
    let decoder = Decoder { layer, layers: 2, final_norm: true };
    let causal = AttentionMasks::from(Mask::causal(Align::TopLeft));
    let decoded = decoder.build(&mut g, "decoder", target, memory, &causal, &real)?;
    let y = Linear::new(TARGET[2], TARGET[2]).build(&mut g, "head", decoded)?;
    g.output("y", y)?;

    // This example draws its weights; `nn::Weights` loads those of a PyTorch model under the same names.
    let mut inputs: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut weights: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, value) in g.inputs().filter(|(name, _)| *name != "source lengths") {
        inputs.insert(name.into(), draw(g.shape(value), name.len())?);
    }
    for (name, value) in g.parameters() {
        weights.insert(name.into(), draw(g.shape(value), name.len())?);
    }
    inputs.insert("source lengths".into(), Tensor::new([2], vec![7i32, 4])?);

    let gpu = Gpu::new()?;
    let mut program = gpu.compile(&g, &weights)?;
    let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let outputs = program.run(&given)?;
    println!("{} parameters, {} → {}", weights.len(), g.describe(source), g.describe(y));
    println!("on {} ({})", gpu.profile().adapter, gpu.driver());

    let everything = inputs.into_iter().chain(weights).collect();
    let expected = Expected::of_graph(&g, &everything, Check::measured())?;
    for comparison in expected.compare_named(&outputs)? {
        println!("against the CPU reference: {comparison}");
    }
    Ok(())
}

/// Values in (−0.5, 0.5).
fn draw(shape: &tilewise::Shape, seed: usize) -> tilewise::Result<Tensor> {
    let n = shape.checked_elements("draw")?;
    Tensor::new(shape, (0..n).map(|i| ((i * 61 + seed * 17) % 127) as f32 / 127.0 - 0.5).collect::<Vec<_>>())
}
