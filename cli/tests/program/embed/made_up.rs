//! A model that is made up: 16 wide, 2 layers, a vocabulary of letters. Every file of it is written here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tilewise::{DType, Graph, Tensor, nn::Bert, reference, safetensors};

/// What is put around every text.
pub(crate) const CLS: i32 = 2;
pub(crate) const SEP: i32 = 3;
/// Width of the model.
pub(crate) const WIDTH: usize = 16;
/// Its positions.
pub(crate) const POSITIONS: usize = 24;

/// `[PAD] [UNK] [CLS] [SEP]`, a letter at a word's beginning, a letter inside.
fn vocabulary() -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(String::from).into_iter();
    let first = ('a'..='z').map(String::from);
    special.chain(first).chain(('a'..='z').map(|c| format!("##{c}"))).collect()
}

/// The tokens of a text of small letters and spaces, as WordPiece gives them, cut to `limit`.
pub(crate) fn ids(text: &str, limit: usize) -> Vec<i32> {
    let letters = text.split_whitespace().flat_map(|word| word.bytes().enumerate());
    let pieces = letters.map(|(i, c)| i32::from(c - b'a') + if i == 0 { 4 } else { 30 });
    [CLS].into_iter().chain(pieces.take(limit - 2)).chain([SEP]).collect()
}

pub(crate) fn config() -> Value {
    json!({
        "model_type": "bert", "vocab_size": vocabulary().len(), "hidden_size": WIDTH, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12
    })
}

/// With padding and truncation as files often have them, which must not matter.
pub(crate) fn tokenizer() -> Value {
    let vocabulary: BTreeMap<String, usize> = vocabulary().into_iter().enumerate().map(|(i, word)| (word, i)).collect();
    let special = |name: &str, id: i32| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true})
    };
    let piece = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    json!({
        "version": "1.0",
        "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [special("[PAD]", 0), special("[UNK]", 1), special("[CLS]", CLS), special("[SEP]", SEP)],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": false},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [piece("[CLS]"), text, piece("[SEP]")], "pair": [],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [CLS], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [SEP], "tokens": ["[SEP]"]}
            }
        },
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary}
    })
}

fn bert() -> Bert {
    Bert::from_config(&config().to_string()).expect("a BERT")
}

/// The model's graph for one text alone.
fn graph(tokens: usize) -> Graph {
    let mut g = Graph::new();
    let ids = g.input("ids", DType::I32, [1, tokens]).expect("fits");
    let hidden = bert().build(&mut g, "", ids, None, None).expect("builds").hidden;
    g.output("hidden", hidden).expect("a new name");
    g
}

/// Values in (−1, 1), norms' weights about 1, by the parameters' names.
pub(crate) fn weights() -> BTreeMap<String, Tensor> {
    let g = graph(1);
    let fill = |(name, value): (&str, _)| {
        let n = g.shape(value).elements().expect("small");
        let seed = name.bytes().fold(7usize, |h, b| (h * 31 + b as usize) % 1009);
        let shift = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        let data: Vec<f32> = (0..n).map(|i| ((i * 53 + seed) % 97) as f32 / 97.0 - 0.5 + shift).collect();
        (name.to_string(), Tensor::new(g.shape(value), data).expect("fits"))
    };
    g.parameters().map(fill).collect()
}

/// The last layer's tokens `[T, WIDTH]`, by the reference.
pub(crate) fn hidden(ids: &[i32], weights: &BTreeMap<String, Tensor>) -> Vec<Vec<f64>> {
    let mut given = weights.clone();
    given.insert("ids".into(), Tensor::new([1, ids.len()], ids.to_vec()).expect("fits"));
    let outputs = reference::evaluate(&graph(ids.len()), &given).expect("runs");
    outputs["hidden"].to_f64().chunks(WIDTH).map(<[f64]>::to_vec).collect()
}

/// A folder of this test alone, with nothing in it.
pub(crate) fn empty(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embed").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("writable");
    folder
}

/// A folder with the bare model: no file of sentence-transformers. Its weights have the names of a `BertForMaskedLM`.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = empty(name);
    put(&folder, "config.json", &config());
    put(&folder, "tokenizer.json", &tokenizer());
    let mut stored: BTreeMap<String, Tensor> =
        weights().into_iter().map(|(name, tensor)| (format!("bert.{name}"), tensor)).collect();
    stored.insert("cls.predictions.bias".into(), Tensor::zeros(DType::F32, [3]).expect("fits"));
    safetensors::save(folder.join("model.safetensors"), &stored).expect("writable");
    folder
}

/// Writes a JSON file, with the folders above it.
pub(crate) fn put(folder: &Path, name: &str, value: &Value) {
    let file = folder.join(name);
    fs::create_dir_all(file.parent().expect("has one")).expect("writable");
    fs::write(file, value.to_string()).expect("writable");
}

/// modules.json with modules of these types, in folders that are named as sentence-transformers does.
pub(crate) fn put_modules(folder: &Path, kinds: &[&str]) {
    let module = |(i, kind): (usize, &&str)| {
        let path = if i == 0 { String::new() } else { format!("{i}_{kind}") };
        json!({"idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}")})
    };
    put(folder, "modules.json", &kinds.iter().enumerate().map(module).collect());
}
