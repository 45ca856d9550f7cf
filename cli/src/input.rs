//! What the program reads: graphs and tensors.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use tilewise::{Graph, Tensor, safetensors};

/// The text of a file that should be JSON.
pub(crate) fn text(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("{} can't be read", file.display()))?;
    String::from_utf8(bytes).map_err(|_| {
        anyhow!("{}: this is no text; expected JSON (tensors are given by their own options)", file.display())
    })
}

/// A graph in JSON.
pub(crate) fn graph(file: &Path) -> Result<Graph> {
    Graph::from_json(&text(file)?).with_context(|| file.display().to_string())
}

/// The tensors of safetensors files by name, each in one of them.
pub(crate) fn tensors<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<BTreeMap<String, Tensor>> {
    let mut given = BTreeMap::new();
    for file in files {
        for (name, tensor) in safetensors::load(file)? {
            if given.insert(name.clone(), tensor).is_some() {
                bail!("`{name}` is in more than one of the input files; {} is the second", file.display());
            }
        }
    }
    Ok(given)
}
