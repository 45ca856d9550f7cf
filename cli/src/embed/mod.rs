//! Texts to vectors: a BERT with the files of sentence-transformers.

mod batch;
mod encoder;
mod keys;
mod recipe;
mod texts;
mod tokens;
mod write;

use std::time::Instant;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tilewise::{
    files,
    nn::{Bert, Weights},
};

use self::{
    batch::{Batch, Room},
    encoder::Encoder,
    recipe::Recipe,
    tokens::{TextTokenizer, listing},
    write::Embedded,
};
use crate::{
    args::{DeviceArgs, EmbedArgs, EmbedFormat},
    input,
    output::{self, note},
};

/// The most texts of a similarity table: wider ones can't be read.
const TABLE: usize = 20;

/// Embeds texts. Everything that the files and texts can have wrong is said before the device is opened.
pub(crate) fn run(args: &EmbedArgs, device: &DeviceArgs) -> Result<bool> {
    let recipe = Recipe::open(args)?;
    let bert = bert(&recipe)?;
    let tokenizer = TextTokenizer::open(&recipe, &bert)?;
    let weights = Weights::open(&recipe.folder)?.rename(|name| bert.parameter_name(name))?;
    bert.check_weights(&weights)?;
    args.output.as_ref().map_or(Ok(()), files::check)?;
    let texts = texts::read(args)?;
    if args.format == EmbedFormat::Table && texts.len() > TABLE {
        bail!("a table of {} texts can't be read: at most {TABLE}, or another --format", texts.len());
    }
    let tokens = tokenizer.tokenize(&recipe, &bert, &texts, args.long)?;
    // Graphs of all sizes have the same parameters.
    let smallest = encoder::graph(&bert, &recipe, Room::of(1, 1, 1))?;
    weights.check(&smallest)?;

    let started = Instant::now();
    let gpu = device.open()?;
    let adapter = gpu.profile().adapter.clone();
    note!("on {adapter} ({})", gpu.driver());
    let lengths: Vec<usize> = tokens.iter().map(|t| t.ids.len()).collect();
    let batches =
        batch::batches(&lengths, args.batch_tokens.map_or_else(|| batch::budget(gpu.profile().kind), |n| n as usize));
    let uploaded = weights.upload(&gpu, &smallest)?;
    let mut encoder = Encoder::new(gpu, &bert, &recipe, uploaded);
    let loaded = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let vectors = embed(&mut encoder, &batches, &tokens)?;
    let seconds = started.elapsed().as_secs_f64();
    let count: usize = lengths.iter().sum();
    note!(
        "{} texts, {count} tokens in {}: {:.1} texts/s, {:.0} tokens/s; {} to load the model",
        texts.len(),
        output::duration(seconds),
        texts.len() as f64 / seconds,
        count as f64 / seconds,
        output::duration(loaded)
    );
    let max_tokens = tokenizer.limit();
    Embedded { adapter: &adapter, recipe: &recipe, max_tokens, texts: &texts, tokens: &tokens, vectors: &vectors }
        .write(args)?;
    Ok(true)
}

/// The Transformer that config.json describes.
fn bert(recipe: &Recipe) -> Result<Bert> {
    let file = recipe.folder.join("config.json");
    if !file.is_file() {
        bail!("{} has no config.json; it has {}", recipe.folder.display(), listing(&recipe.folder));
    }
    Bert::from_config(&input::text(&file)?).with_context(|| file.display().to_string())
}

/// Each text's vector, in the order of the texts.
fn embed(encoder: &mut Encoder<'_>, batches: &[Batch], tokens: &[tokens::Tokens]) -> Result<Vec<Vec<f32>>> {
    let progress = ProgressBar::new(tokens.len() as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} texts, {elapsed}, {eta} left")
            .context("the progress bar's template")?,
    );
    let mut vectors = vec![Vec::new(); tokens.len()];
    for batch in batches {
        for (&text, vector) in batch.texts.iter().zip(encoder.run(batch, tokens)?) {
            vectors[text] = vector;
        }
        progress.inc(batch.texts.len() as u64);
    }
    progress.finish_and_clear();
    Ok(vectors)
}
