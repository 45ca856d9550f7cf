//! An encoder–decoder learns to write down what it hears: frames of six measured numbers in, words out, source and target of unlike
//! length **and** width. And, with a switch, what the classic mistakes look like: the loss falls, and what it says is nonsense.
//!
//! ```sh
//! cargo run --release --example train_seq2seq
//! cargo run --release --example train_seq2seq -- --mistake no-causal-mask --svg curve.svg
//! ```

mod task;

use std::{error::Error, path::PathBuf, time::Instant};

use clap::Parser;
use plotters::prelude::*;
use task::{Mistake, Task};
use tilewise::gpu::Gpu;

#[derive(Parser)]
struct Args {
    /// Steps of training
    #[arg(long, default_value_t = 400)]
    steps: usize,
    /// What to do wrong
    #[arg(long, value_enum, default_value = "none")]
    mistake: Mistake,
    /// How often its layers drop an element while it learns; 0 if nothing is said, and 0.4 to leave it on
    #[arg(long)]
    dropout: Option<f64>,
    /// Where the parameters begin, what is dropped, and which utterances there are
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Draw the learning curve to this file
    #[arg(long)]
    svg: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let gpu = Gpu::new()?;
    let started = Instant::now();
    let mut task = Task::new(&gpu, args.mistake, args.dropout.unwrap_or(args.mistake.dropout()), args.seed)?;
    let steps = args.steps.max(1);
    println!(
        "frames [{}, {}, 6] → words [{}, {}], on {}; the step compiled in {:.1?}",
        task::ITEMS,
        task::SOURCE_TOKENS,
        task::ITEMS,
        task::TARGET_TOKENS,
        gpu.profile().adapter,
        started.elapsed()
    );
    let started = Instant::now();
    let mut losses = Vec::new();
    for step in 1..=steps {
        losses.push(task.step()?);
        if step % steps.div_ceil(10) == 0 || step == 1 {
            let loss = losses[step - 1];
            println!("step {step:>5}  loss {loss:.4}  {}", "█".repeat((loss * 25.0).clamp(1.0, 75.0) as usize));
        }
    }
    println!("{:.1?} for {steps} steps", started.elapsed());

    let found = task.validate()?;
    println!("\nOn utterances that it was never shown:");
    println!("  the loss                                       {:.4}", found.loss);
    println!("  words said right, shown the right ones before  {:>3.0} %", 100.0 * found.forced);
    println!("  utterances generated without a fault           {:>3.0} %", 100.0 * found.generated);
    for [said, generated] in found.examples.iter().take(4) {
        println!("  {said:?} was said, it writes {generated:?}");
    }
    if args.mistake == Mistake::DropoutLeftOn {
        task.switch_dropout_off();
        let right = task.validate()?;
        println!("\nThe same parameters, with dropout switched off:");
        println!("  the loss                                       {:.4}", right.loss);
        println!("  words said right, shown the right ones before  {:>3.0} %", 100.0 * right.forced);
        println!("  utterances generated without a fault           {:>3.0} %", 100.0 * right.generated);
    }
    println!("\nWhere it listens for each word of the first (encoder–decoder attention; columns are frames):");
    for row in &found.attention {
        let shades: String = row.iter().map(|weight| [' ', '░', '▒', '▓', '█'][(weight * 4.99) as usize % 5]).collect();
        println!("  |{shades}|");
    }
    println!("\n{}", verdict(args.mistake));
    if let Some(path) = args.svg {
        draw(&path, &losses)?;
        println!("the curve: {}", path.display());
    }
    Ok(())
}

/// What one sees here, and why.
fn verdict(mistake: Mistake) -> &'static str {
    match mistake {
        Mistake::None => {
            "Right: the loss falls, and what it generates is what was said. Try --mistake to see what isn't."
        }
        Mistake::Unshifted => {
            "The target was not shifted: each place saw its own answer. The loss falls to nothing, generation is nonsense."
        }
        Mistake::NoCausalMask => {
            "No causal mask: each place saw the next word, its answer. The loss falls to nothing, generation is nonsense."
        }
        Mistake::LossOnPadding => {
            "Padding counted: it is easy to say, so the loss looks better than the words are, and they learn from fewer places."
        }
        Mistake::NoPositions => {
            "No positions: attention sees a set, not a sequence. The loss stays where guessing the order leaves it."
        }
        Mistake::DropoutLeftOn => {
            "Dropout was left on: it learnt well, and says each word with a part of what it knows missing. Switch it off."
        }
    }
}

fn draw(path: &std::path::Path, losses: &[f32]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (720, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = losses.iter().copied().fold(0.1f32, f32::max);
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(1..losses.len(), 0f32..most)?;
    chart.configure_mesh().x_desc("step").y_desc("loss").draw()?;
    chart.draw_series(LineSeries::new((1..).zip(losses.iter().copied()), &BLUE))?;
    root.present()?;
    Ok(())
}
