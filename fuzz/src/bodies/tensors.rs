//! Safetensors files, and the indexes of files in shards.

use std::{collections::BTreeMap, fs, path::Path};

use arbitrary::{Result, Unstructured};
use serde_json::{Value, json};
use tempfile::TempDir;
use tilewise::{DType, Tensor, nn::Weights, reference::Random, safetensors};

use super::{Outcome, Target, json};

pub(super) const FILES: Target = Target { name: "safetensors", make: make_file, check: check_file };
pub(super) const INDEXES: Target = Target { name: "index", make: make_index, check: check_index };

const WORDS: [&str; 24] = [
    "dtype",
    "shape",
    "data_offsets",
    "__metadata__",
    "format",
    "F32",
    "F16",
    "BF16",
    "I32",
    "U32",
    "I64",
    "BOOL",
    "F64",
    "U8",
    "F8_E4M3",
    "F4",
    "f32",
    "",
    "w",
    "a.b",
    "total_size",
    "weight_map",
    "metadata",
    "\u{0}",
];

const SHARDS: [&str; 12] = [
    "a.safetensors",
    "b.safetensors",
    "b.safetensors",
    "c.safetensors",
    "../a.safetensors",
    "./a.safetensors",
    "folder/a.safetensors",
    "",
    ".",
    "/dev/null",
    "/dev/zero",
    "a.safetensors\u{0}",
];

/// A file whose tensors are as they should be, then changed.
fn make_file(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let dtypes = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::Bool];
    let mut tensors = BTreeMap::new();
    for i in 0..u.int_in_range(0..=3usize)? {
        let shape: Vec<usize> =
            (0..u.int_in_range(0..=3usize)?).map(|_| u.int_in_range(0..=4)).collect::<Result<_>>()?;
        let tensor = Random::new(i as u64).tensor(*u.choose(&dtypes)?, shape, -1.0, 1.0).expect("it is small");
        tensors.insert(format!("t{i}"), tensor);
    }
    let bytes = safetensors::to_bytes(&tensors).expect("the header is short");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("it is JSON");
    let mut data = bytes[8 + length..].to_vec();
    while !u.ratio(1, 3u8)? {
        json::mutate(u, &mut header, &WORDS)?;
    }
    if u.ratio(1, 8u8)? {
        json::garble(u, &mut data)?;
    }
    let mut header = json::text(&header).into_bytes();
    if u.ratio(1, 2u8)? {
        header.resize(header.len().next_multiple_of(8), b' ');
    }
    let length = match u.int_in_range(0..=15u8)? {
        0 => u.arbitrary::<u64>()?,
        1 => u64::MAX - u.int_in_range(0..=16)?,
        2 => header.len() as u64 + 1,
        3 => (header.len() as u64).saturating_sub(1),
        _ => header.len() as u64,
    };
    let mut file = [&length.to_le_bytes()[..], &header, &data].concat();
    if u.ratio(1, 8u8)? {
        json::garble(u, &mut file)?;
    }
    Ok(file)
}

thread_local! {
    /// A folder of this thread's own.
    static FOLDER: TempDir = TempDir::new().expect("there is room for temporary files");
}

fn check_file(input: &[u8]) -> std::result::Result<Outcome, String> {
    let read = safetensors::from_bytes(input);
    FOLDER.with(|folder| {
        let path = folder.path().join("model.safetensors");
        fs::write(&path, input).map_err(|error| error.to_string())?;
        let opened = Weights::open(&path);
        match (&read, &opened) {
            (Err(error), _) if error.to_string().is_empty() => return Err("it is refused without a word".into()),
            (Err(_), Err(_)) => return Ok(Outcome::Refused),
            // A header can be right where a tensor has a dtype that is not read, or is not whole.
            (Err(_), Ok(weights)) => {
                for name in weights.names() {
                    let _ = weights.tensor(name);
                }
                return Ok(Outcome::Read);
            }
            (Ok(_), Err(error)) => return Err(format!("the bytes are read, the same file is not: {error}")),
            (Ok(_), Ok(_)) => {}
        }
        let (Ok(tensors), Ok(weights)) = (read, opened) else { unreachable!("both were read") };
        if !weights.names().eq(tensors.keys()) {
            return Err("the bytes have other names than the same file".into());
        }
        for (name, tensor) in &tensors {
            let of_file =
                weights.tensor(name).map_err(|error| format!("the bytes have `{name}`, the file: {error}"))?;
            same(name, tensor, &of_file)?;
        }
        let written = safetensors::to_bytes(&tensors).map_err(|e| format!("what was read can't be written: {e}"))?;
        let again = safetensors::from_bytes(&written).map_err(|e| format!("what was written can't be read: {e}"))?;
        if again.len() != tensors.len() {
            return Err("reading what was written gives other tensors".into());
        }
        tensors.iter().try_for_each(|(name, tensor)| same(name, tensor, &again[name]))?;
        Ok(Outcome::Whole)
    })
}

/// By their bits: NaN is in files too.
fn same(name: &str, a: &Tensor, b: &Tensor) -> std::result::Result<(), String> {
    if (a.dtype(), a.shape(), a.as_bytes()) == (b.dtype(), b.shape(), b.as_bytes()) {
        return Ok(());
    }
    Err(format!("`{name}` is {} {} one way and {} {} the other", a.dtype(), a.shape(), b.dtype(), b.shape()))
}

fn make_index(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut map = serde_json::Map::new();
    for name in ["a0", "a1", "b0"] {
        map.insert(name.into(), if name == "b0" { "b.safetensors" } else { "a.safetensors" }.into());
    }
    let mut index = json!({"metadata": {"total_size": 24}, "weight_map": map});
    while !u.ratio(1, 3u8)? {
        match u.int_in_range(0..=4u8)? {
            0 | 1 => {
                let (name, shard) = (*u.choose(&["a0", "a1", "b0", "c0", ""])?, *u.choose(&SHARDS)?);
                if let Some(map) = index.get_mut("weight_map").and_then(Value::as_object_mut) {
                    map.insert(name.into(), shard.into());
                }
            }
            2 => {
                let name = *u.choose(&["a0", "a1", "b0"])?;
                if let Some(map) = index.get_mut("weight_map").and_then(Value::as_object_mut) {
                    map.remove(name);
                }
            }
            _ => json::mutate(u, &mut index, &WORDS)?,
        }
    }
    let mut bytes = json::text(&index).into_bytes();
    if u.ratio(1, 12u8)? {
        json::garble(u, &mut bytes)?;
    }
    Ok(bytes)
}

fn check_index(input: &[u8]) -> std::result::Result<Outcome, String> {
    FOLDER.with(|folder| {
        let shards = |folder: &Path| -> tilewise::Result<()> {
            for (file, names) in [("a.safetensors", &["a0", "a1"][..]), ("b.safetensors", &["b0"])] {
                let tensors = names.iter().map(|name| (name.to_string(), Tensor::scalar(1.0))).collect();
                safetensors::save(folder.join(file), &tensors)?;
            }
            Ok(())
        };
        if !folder.path().join("b.safetensors").exists() {
            shards(folder.path()).map_err(|error| error.to_string())?;
        }
        let path = folder.path().join("model.safetensors.index.json");
        fs::write(&path, input).map_err(|error| error.to_string())?;
        let weights = match Weights::open(&path) {
            Err(error) if error.to_string().is_empty() => return Err("it is refused without a word".into()),
            Err(_) => return Ok(Outcome::Refused),
            Ok(weights) => weights,
        };
        for name in weights.names() {
            weights.tensor(name).map_err(|error| format!("`{name}` is listed, but can't be read: {error}"))?;
        }
        Ok(Outcome::Whole)
    })
}
