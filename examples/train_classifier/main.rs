//! Sequences of unlike length learn padded and packed: the same gradients to rounding, and what each costs.
//!
//! ```sh
//! cargo run --release --example train_classifier
//! ```

mod task;

use clap::Parser;
use rand_pcg::Pcg64;
use task::Layout;
use tilewise::gpu::Gpu;

#[derive(Parser)]
struct Args {
    /// Steps of training
    #[arg(long, default_value_t = 150)]
    steps: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let gpu = Gpu::new()?;
    let batch = task::batch(&mut Pcg64::new(1, 0))?;
    let longest = batch.sequences.iter().map(Vec::len).max().unwrap_or(0);
    println!(
        "{} sequences of 4 to {longest} tokens, {} in all, {} if each is filled up to 32; on {}\n",
        batch.sequences.len(),
        task::TOKENS,
        32 * batch.sequences.len(),
        gpu.profile().adapter
    );

    let [padded, packed] = [Layout::Padded, Layout::Packed].map(|layout| task::grads(&gpu, layout, &batch));
    let (padded, packed) = (padded?, packed?);
    println!(
        "The gradients of all {} parameters differ by at most {:.1e} of the largest of each: by rounding.\n",
        padded.len(),
        task::difference(&padded, &packed)
    );
    println!("layout   last losses             right   a step      memory");
    for layout in [Layout::Padded, Layout::Packed] {
        let trained = task::train(&gpu, layout, args.steps.max(4))?;
        let last: Vec<String> = trained.losses.iter().rev().take(3).rev().map(|loss| format!("{loss:.3}")).collect();
        println!(
            "{:<8} {:<22} {:>5.0} %  {:>6.1} ms  {:>5.2} MiB",
            format!("{layout:?}").to_lowercase(),
            last.join(" "),
            100.0 * trained.right,
            1e3 * trained.seconds,
            trained.memory as f64 / f64::from(1 << 20)
        );
    }
    Ok(())
}
