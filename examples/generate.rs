//! A small GPT continues two prompts of different lengths: with a cache, in one batch, by one compiled program for all steps; and,
//! to compare, without a cache, by a run over the whole sequence for each token.
//!
//! `cargo run --release -p tilewise --example generate`

use std::{collections::BTreeMap, ops::ControlFlow, time::Instant};

use rand_pcg::{Pcg64, rand_core::Rng};
use tilewise::{
    DType, Graph, Tensor,
    gpu::Gpu,
    nn::{
        Gpt,
        generate::{self, Capacity, Generator, Request, Strategy},
    },
};

const NEW: usize = 48;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // This example draws its weights; `nn::Weights` loads those of a published model, `Gpt::from_config` its sizes.
    let model = Gpt::gpt2(1000, 128, 192, 4, 6);
    let mut random = Pcg64::new(7, 0);
    let mut weights: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, (_, shape)) in generate::parameters(&model)? {
        let n = shape.iter().product();
        let scale = if name.starts_with("wte") { 1.0 } else { 0.3 };
        let data = (0..n).map(|_| (random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0) * scale);
        weights.insert(name, Tensor::new(shape, data.collect::<Vec<_>>())?);
    }
    let prompts = vec![vec![464, 3, 9], vec![11, 12, 13, 14, 15, 16, 17, 18, 19]];

    let gpu = Gpu::new()?;
    println!("{} parameters, on {} ({})", weights.len(), gpu.profile().adapter, gpu.driver());
    let mut generator = Generator::new(&gpu, model.clone(), &weights, Capacity::items(2))?;
    let request = Request::new(prompts.clone(), NEW);
    generator.prepare(&request)?;
    print!("the first sequence, as it comes:");
    let greedy = generator.generate_streaming(&request, |token| {
        if token.item == 0 {
            print!(" {}", token.id);
        }
        ControlFlow::Continue(())
    })?;
    let (time, speed) = (greedy.time.ok_or("no clock")?, greedy.tokens_per_second().ok_or("no clock")?);
    println!("\nfirst token after {:.1?}, then {} steps: {speed:.0} tokens/s", time.to_first_token, greedy.steps);

    let strategy = Strategy::Sample { temperature: 0.8, top_k: Some(40), top_p: Some(0.95), seed: 1 };
    let sampled = generator.generate(&Request { strategy, ..request })?;
    println!("sampled: {:?} …", &sampled.sequences[0].ids[..8]);

    // Uncached: a program over as many tokens as there will be. No token attends to later ones, so zeros may stand there.
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + NEW;
    let mut g = Graph::new();
    let ids = g.input("ids", DType::I32, [2, longest])?;
    let logits = model.build(&mut g, ids)?;
    let next = g.argmax(logits, -1, false)?;
    g.output("next", next)?;
    let mut program = gpu.compile(&g, &weights)?;
    let mut rows = prompts.clone();
    let started = Instant::now();
    for _ in 0..NEW {
        let padded = rows.iter().flat_map(|row| (0..longest).map(|t| row.get(t).map_or(0, |&id| id as i32)));
        let ids = Tensor::new([2, longest], padded.collect::<Vec<_>>())?;
        let outputs = program.run(&[("ids", &ids)])?;
        let next = outputs["next"].as_i32().ok_or("ids are i32")?;
        for (b, row) in rows.iter_mut().enumerate() {
            row.push(next[b * longest + row.len() - 1] as u32);
        }
    }
    println!("uncached: {:.0} tokens/s", (2 * NEW) as f64 / started.elapsed().as_secs_f64());
    for (sequence, (row, prompt)) in greedy.sequences.iter().zip(rows.iter().zip(&prompts)) {
        assert_eq!(sequence.ids, row[prompt.len()..], "cached and uncached agree");
    }
    println!("cached and uncached agree, token by token");
    Ok(())
}
