//! The fifty sentences of `tests/data`, against what sentence-transformers made of them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tilewise::{Tensor, safetensors};

use super::made_up::empty;
use crate::common::{text, tilewise};

fn model() -> PathBuf {
    let folder = env::var_os("TILEWISE_MODEL").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/all-MiniLM-L6-v2"));
    assert!(folder.is_dir(), "{} is missing: `make model` fetches it", folder.display());
    folder.canonicalize().expect("readable")
}

fn rows(tensor: &Tensor) -> Vec<&[f32]> {
    tensor.as_f32().expect("f32").chunks(384).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The least cosine of the rows, and where.
fn least(found: &Tensor, expected: &Tensor) -> (f64, usize) {
    assert_eq!(found.shape(), expected.shape());
    let pairs = rows(found).into_iter().zip(rows(expected)).enumerate();
    pairs.map(|(i, (a, b))| (cosine(a, b), i)).min_by(|a, b| a.0.total_cmp(&b.0)).expect("fifty")
}

#[test]
#[ignore = "needs `make model`"]
fn sentences_are_embedded_as_sentence_transformers_does() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let json = fs::read(data.join("sentences.json")).expect("is there");
    let texts: Vec<String> = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(texts.len(), 50);
    let expected = safetensors::load(data.join("sentences.safetensors")).expect("is there");
    let folder = empty("sentences");
    let lines: Vec<String> = texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
    fs::write(folder.join("texts"), lines.join("\n")).expect("writable");
    let model = model();
    let embed = |more: &[&str]| {
        let options = ["embed", "--json-lines", "--file", "texts", "--format", "safetensors", "--output", "y"];
        let model = ["--model", model.to_str().expect("UTF-8")];
        let output = tilewise(&folder, &[&options[..], &model, more].concat());
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("have more than 256 tokens"), "{said}");
        println!("{}", said.lines().last().unwrap_or_default());
        safetensors::load(folder.join("y")).expect("written")
    };
    let together = embed(&[]);
    assert_eq!(together["tokens"], expected["lengths"]);
    let (cosine, text) = least(&together["embeddings"], &expected["embeddings"]);
    println!("least cosine with sentence-transformers: 1 − {:.1e}, text {text}", 1.0 - cosine);
    assert!(cosine >= 0.99999, "text {text}, {:?}: cosine {cosine}", texts[text]);
    for (i, row) in rows(&together["embeddings"]).into_iter().enumerate() {
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "text {i} has the length {length}");
    }
    // One by one (a batch of one token has room for one text), and in batches that other kernels take.
    for batch_tokens in ["1", "4096"] {
        let other = embed(&["--batch-tokens", batch_tokens]);
        let (cosine, text) = least(&other["embeddings"], &together["embeddings"]);
        println!("least cosine with batches of {batch_tokens} tokens: 1 − {:.1e}, text {text}", 1.0 - cosine);
        assert!(cosine >= 0.999_999, "text {text}, {:?}: cosine {cosine}", texts[text]);
    }
}
