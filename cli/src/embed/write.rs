use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
};

use anyhow::{Context, Result};
use serde::Serialize;
use tilewise::{Tensor, files, safetensors};

use super::{recipe::Recipe, tokens::Tokens};
use crate::{
    args::{EmbedArgs, EmbedFormat, PoolingMode},
    output,
};

/// How the vectors were made: the head of the JSON object.
#[derive(Serialize)]
struct Head<'a> {
    model: String,
    adapter: &'a str,
    pooling: &'a [PoolingMode],
    normalized: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    prompt: &'a str,
    max_tokens: usize,
    dimensions: usize,
}

/// A text and its vector.
#[derive(Serialize)]
struct Row<'a> {
    text: &'a str,
    tokens: usize,
    truncated: bool,
    embedding: &'a [f32],
}

/// All texts with their vectors, in the order in which they came.
pub(super) struct Embedded<'a> {
    pub(super) adapter: &'a str,
    pub(super) recipe: &'a Recipe,
    pub(super) max_tokens: usize,
    pub(super) texts: &'a [String],
    pub(super) tokens: &'a [Tokens],
    pub(super) vectors: &'a [Vec<f32>],
}

impl Embedded<'_> {
    /// Writes what `--format` says to where `--output` says.
    pub(super) fn write(&self, args: &EmbedArgs) -> Result<()> {
        if let (EmbedFormat::Safetensors, Some(file)) = (args.format, &args.output) {
            return Ok(safetensors::save(file, &self.tensors()?)?);
        }
        match &args.output {
            Some(file) => Ok(files::write_with(file, |out| self.write_text(args, out))?),
            None => match self.write_text(args, &mut BufWriter::new(io::stdout().lock())) {
                // A reader who has seen enough.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                written => written.context("the standard output can't be written"),
            },
        }
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let (rows, columns) = (self.vectors.len(), self.vectors.first().map_or(0, Vec::len));
        let tokens: Vec<i32> = self.tokens.iter().map(|t| t.ids.len() as i32).collect();
        Ok(BTreeMap::from([
            ("embeddings".to_string(), Tensor::new([rows, columns], self.vectors.concat())?),
            ("tokens".to_string(), Tensor::new([rows], tokens)?),
        ]))
    }

    fn write_text(&self, args: &EmbedArgs, out: &mut dyn Write) -> io::Result<()> {
        match args.format {
            EmbedFormat::Json => {
                let head = Head {
                    model: args.model.display().to_string(),
                    adapter: self.adapter,
                    pooling: &self.recipe.pooling,
                    normalized: self.recipe.normalize,
                    prompt: &self.recipe.prompt,
                    max_tokens: self.max_tokens,
                    dimensions: self.vectors.first().map_or(0, Vec::len),
                };
                // The head's own brace stays open for the rows, which take a line each.
                let head = serde_json::to_string(&head)?;
                write!(out, "{},\n\"texts\": [", head.trim_end_matches('}'))?;
                for (i, row) in self.rows().enumerate() {
                    out.write_all(if i == 0 { b"\n" } else { b",\n" })?;
                    serde_json::to_writer(&mut *out, &row)?;
                }
                out.write_all(b"\n]}\n")?;
            }
            EmbedFormat::JsonLines => {
                for row in self.rows() {
                    serde_json::to_writer(&mut *out, &row)?;
                    out.write_all(b"\n")?;
                }
            }
            EmbedFormat::Table | EmbedFormat::Safetensors => writeln!(out, "{}", self.table())?,
        }
        out.flush()
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.texts.iter().zip(self.tokens).zip(self.vectors).map(|((text, tokens), vector)| Row {
            text,
            tokens: tokens.ids.len(),
            truncated: tokens.is_cut(),
            embedding: vector,
        })
    }

    /// The cosine of each two texts' vectors.
    fn table(&self) -> comfy_table::Table {
        let numbers: Vec<String> = (1..=self.texts.len()).map(|i| format!(">{i}")).collect();
        let heads: Vec<&str> = ["", "text"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
        let mut table = output::table(&heads);
        for (i, (text, a)) in self.texts.iter().zip(self.vectors).enumerate() {
            // Line breaks and control characters would tear the table.
            let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let cosines = self.vectors.iter().map(|b| match cosine(a, b) {
                Some(cosine) => format!("{cosine:.3}"),
                None => "—".into(),
            });
            table.add_row([(i + 1).to_string(), output::short(line.trim(), 40)].into_iter().chain(cosines));
        }
        table
    }
}

/// `a·b / (‖a‖‖b‖)`; nothing for a vector of zeros.
fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths > 0.0).then(|| dot(a, b) / lengths)
}

#[cfg(test)]
mod tests {
    use super::cosine;

    #[test]
    fn the_cosine_of_nothing_is_none() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        assert_eq!(cosine(&[3.0, 4.0], &[-6.0, -8.0]), Some(-1.0));
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), None);
    }
}
