//! What is wrong with a model, its files or the texts.

use std::{collections::BTreeMap, fs, path::Path, process::Output};

use serde_json::json;
use tilewise::{Tensor, safetensors};

use super::{
    made_up::{self, config, empty, folder, put, put_modules, tokenizer},
    with_input,
};
use crate::common::{fail, succeed, text, tilewise};

/// Embeds a text with these options; it is an error.
fn embed(folder: &Path, options: &[&str]) -> Output {
    let arguments: Vec<&str> = ["embed", "--model", ".", "ab cd"].iter().chain(options).copied().collect();
    tilewise(folder, &arguments)
}

#[test]
fn folders_that_are_no_model_are_named() {
    let folder = empty("no_model");
    fail(&tilewise(&folder, &["embed", "--model", "nowhere", "a"]), &["nowhere is no folder", "model.safetensors"]);
    fail(&embed(&folder, &[]), &["no config.json", "nothing in it"]);
    put(&folder, "config.json", &config());
    fail(&embed(&folder, &[]), &["no tokenizer.json", "it has config.json", "save_pretrained"]);
    put(&folder, "tokenizer.json", &tokenizer());
    fail(&embed(&folder, &[]), &["neither model.safetensors.index.json nor model.safetensors"]);
}

#[test]
fn files_that_do_not_fit_each_other_are_listed() {
    let folder = folder("misfits");
    let change = |name: &str, key: &str, value: serde_json::Value| {
        let mut changed = if name == "config.json" { config() } else { tokenizer() };
        changed[key] = value;
        put(&folder, name, &changed);
    };
    change("config.json", "model_type", json!("mpnet"));
    fail(&embed(&folder, &[]), &["config.json", "`mpnet`", "expected `bert`"]);
    change("config.json", "hidden_size", json!("wide"));
    fail(&embed(&folder, &[]), &["config.json", "wide"]);
    // Another vocabulary and one more layer than the weights have.
    let mut other = config();
    (other["vocab_size"], other["num_hidden_layers"]) = (json!(60), json!(3));
    put(&folder, "config.json", &other);
    let parts = [
        "config.json and the weights are of different models",
        "`num_hidden_layers` is 3, the weights have 2 layers",
        "`vocab_size` is 60, `embeddings.word_embeddings.weight` is [56, 16]",
    ];
    fail(&embed(&folder, &[]), &parts);
    change("config.json", "num_hidden_layers", json!(1_000_000_000));
    fail(&embed(&folder, &[]), &["config.json", "`num_hidden_layers` is 1000000000, expected 1 to 4096"]);
    // No room for what the tokenizer puts around a text.
    change("config.json", "max_position_embeddings", json!(0));
    fail(&embed(&folder, &[]), &["`max_position_embeddings` is 0, expected 1 to 16777216"]);
    change("config.json", "max_position_embeddings", json!(2));
    fail(
        &embed(&folder, &[]),
        &["the model has 2 positions", "tokenizer.json adds 2 tokens to each text: there is no room for a text"],
    );
    // Fewer words than the tokenizer gives: the weights say so too, but are asked first.
    change("config.json", "vocab_size", json!(30));
    fail(&embed(&folder, &[]), &["`vocab_size` is 30", "is [56, 16]"]);
    change("config.json", "type_vocab_size", json!(2));
    change("tokenizer.json", "model", json!({"type": "Teapot"}));
    fail(&embed(&folder, &[]), &["tokenizer.json"]);
    fs::write(folder.join("tokenizer.json"), "{").expect("writable");
    fail(&embed(&folder, &[]), &["tokenizer.json"]);
}

/// The library that reads tokenizers takes this file, and panics at the first text.
#[test]
fn a_tokenizer_that_gives_up_is_an_error() {
    let folder = folder("panics");
    let mut broken = tokenizer();
    broken["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="});
    put(&folder, "tokenizer.json", &broken);
    fail(
        &embed(&folder, &[]),
        &["tokenizer.json: the tokenizer can't be run: ", "index out of bounds", "of this model"],
    );
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let folder = folder("outside");
    put_modules(&folder, &["Transformer", "Pooling"]);
    for (at, path) in [(0, "/tmp"), (0, "../files"), (1, "1_Pooling/../../files")] {
        let text = fs::read_to_string(folder.join("modules.json")).expect("is there");
        let mut modules: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        modules[at]["path"] = json!(path);
        put(&folder, "modules.json", &modules);
        fail(&embed(&folder, &[]), &["modules.json", &format!("names `{path}`"), "leads out of the folder"]);
        put_modules(&folder, &["Transformer", "Pooling"]);
    }
}

#[test]
fn a_tokenizer_that_adds_nothing_has_nothing_for_an_empty_text() {
    let folder = folder("nothing_added");
    let mut bare = tokenizer();
    bare["post_processor"] = json!(null);
    put(&folder, "tokenizer.json", &bare);
    fail(&tilewise(&folder, &["embed", "--model", ".", "a", ""]), &["text 2 has no tokens", "nothing to embed"]);
}

#[test]
fn segments_that_the_model_lacks_are_refused() {
    let folder = folder("segments");
    let mut other = tokenizer();
    other["post_processor"]["single"][1]["Sequence"]["type_id"] = json!(5);
    put(&folder, "tokenizer.json", &other);
    fail(&embed(&folder, &[]), &["text 1", "segment 5", "the model has 2"]);
}

#[test]
fn modules_that_can_not_be_run_are_named() {
    let folder = folder("modules");
    put_modules(&folder, &["Transformer", "Pooling", "Dense"]);
    fail(&embed(&folder, &[]), &["modules.json", "[Transformer, Pooling, Dense]"]);
    put_modules(&folder, &["Transformer", "Pooling"]);
    fail(&embed(&folder, &[]), &["1_Pooling/config.json"]);
    put(&folder, "1_Pooling/config.json", &json!({"pooling_mode": "weightedmean"}));
    fail(&embed(&folder, &[]), &["1_Pooling/config.json", "`weightedmean`", "mean_sqrt_len_tokens"]);
    let prompts = json!({"prompts": {"query": "q "}});
    put(&folder, "config_sentence_transformers.json", &prompts);
    fail(&embed(&folder, &["--prompt", "passage"]), &["no prompt `passage`", "has query"]);
    put(&folder, "1_Pooling/config.json", &json!({"pooling_mode": "mean", "include_prompt": false}));
    fail(&embed(&folder, &["--prompt", "query"]), &["include_prompt"]);
}

/// Whatever would change the vectors and isn't run is named, with its file and value; what says nothing passes.
#[test]
fn keys_that_would_change_vectors_are_named() {
    let folder = folder("keys");
    let refused = |name: &str, value: serde_json::Value, parts: &[&str]| {
        put(&folder, name, &value);
        fail(&embed(&folder, &[]), &[&[name], parts].concat());
        fs::remove_file(folder.join(name)).expect("was written");
    };
    let mut other = config();
    other["local_attention"] = json!(128);
    put(&folder, "config.json", &other);
    fail(&embed(&folder, &[]), &["config.json", "`local_attention` is 128", "not known here"]);
    put(&folder, "config.json", &config());
    put_modules(&folder, &["Transformer", "Pooling", "Normalize"]);
    put(&folder, "1_Pooling/config.json", &json!({"pooling_mode": "mean", "word_embedding_dimension": 16}));
    refused("sentence_bert_config.json", json!({"query_length": 32}), &["`query_length` is 32", "not known here"]);
    refused(
        "sentence_bert_config.json",
        json!({"transformer_task": "fill-mask"}),
        &["`transformer_task`", r#"expected "feature-extraction""#],
    );
    refused("config_sentence_transformers.json", json!({"truncate_dim": 8}), &["`truncate_dim` is 8", "expected null"]);
    refused("config_sentence_transformers.json", json!({"model_type": "SparseEncoder"}), &["`model_type`"]);
    refused("2_Normalize/config.json", json!({"p": 1}), &["`p` is 1", "not known here"]);
    put(&folder, "sentence_bert_config.json", &json!({"max_seq_length": 8, "do_lower_case": false, "new": null}));
    put(
        &folder,
        "config_sentence_transformers.json",
        &json!({"__version__": {"pytorch": "2"}, "prompts": {}, "default_prompt_name": null, "similarity_fn_name": "cosine"}),
    );
    succeed(&folder, &["embed", "--model", ".", "ab cd"]);
    put(&folder, "1_Pooling/config.json", &json!({"pooling_mode_median_tokens": true}));
    fail(&embed(&folder, &[]), &["1_Pooling/config.json", "`pooling_mode_median_tokens` is true"]);
    let modules = json!([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer", "kwargs": ["task"]}]);
    put(&folder, "modules.json", &modules);
    fail(&embed(&folder, &[]), &["modules.json", r#"`kwargs` is ["task"]"#]);
}

#[test]
fn texts_that_can_not_be_embedded_are_named() {
    let folder = folder("texts");
    let long = "a b c d e f g h i j k l m n o p q r s t u v w x y z";
    let refused = tilewise(&folder, &["embed", "--model", ".", "--long", "refuse", "a", long, "b"]);
    fail(&refused, &["1 of 3 texts have more than 24 tokens", "text 2 has 28", "--long truncate"]);
    for (limit, reason) in [("2", "adds 2 to each"), ("25", "the model has 24 positions")] {
        fail(&embed(&folder, &["--max-tokens", limit]), &[reason, "expected 3 to 24"]);
    }
    let options = ["embed", "--model", "."];
    fail(&with_input(&folder, &options, b""), &["no texts in the standard input", "--file"]);
    fail(&with_input(&folder, &options, b"fine\n\xff\n"), &["standard input", "line 2", "utf-8"]);
    let json = [&options[..], &["--json-lines"]].concat();
    fail(&with_input(&folder, &json, b"\"a\"\n{}\n"), &["line 2", "expected a JSON string"]);
    fail(&tilewise(&folder, &["embed", "--model", ".", "--file", "none.txt"]), &["none.txt"]);
    let many: Vec<&str> = options.into_iter().chain(["--format", "table"]).chain(["a"; 21]).collect();
    fail(&tilewise(&folder, &many), &["a table of 21 texts", "at most 20"]);
    fail(
        &embed(&folder, &["--output", "nowhere/y.json"]),
        &["nowhere/y.json: can't be written: there is no folder nowhere"],
    );
    // A mistake on the command line itself.
    for wrong in [&["--format", "safetensors"][..], &["--file", "x"], &["--pooling", "sum"], &["--batch-tokens", "0"]] {
        assert_eq!(embed(&folder, wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn weights_that_are_not_finite_give_no_vectors() {
    let folder = folder("not_finite");
    let mut stored: BTreeMap<String, Tensor> = made_up::weights();
    let bias = stored.get_mut("encoder.layer.1.output.LayerNorm.bias").expect("a parameter");
    *bias = Tensor::new([16], vec![f32::NAN; 16]).expect("fits");
    safetensors::save(folder.join("model.safetensors"), &stored).expect("writable");
    let output = embed(&folder, &[]);
    fail(&output, &["text 1: its vector is not finite"]);
    assert!(!text(&output.stdout).contains("embedding"));
}
