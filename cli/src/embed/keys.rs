//! The keys of sentence-transformers' files: what is not read must not change vectors, or it is refused by its name.

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use tilewise::fields::{is, says_nothing};

/// What is done about a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// It is read, or it changes no vector.
    Known,
    /// It is run as if it had this value (JSON); with another it is refused.
    Only(&'static str),
}

/// Keys, each with its rule.
pub(super) type Keys = &'static [(&'static str, Rule)];

/// sentence_bert_config.json.
pub(super) const TRANSFORMER: Keys = &[
    ("max_seq_length", Rule::Known),
    ("do_lower_case", Rule::Known),
    ("transformer_task", Rule::Only(r#""feature-extraction""#)),
    ("modality_config", Rule::Only(r#"{"text": {"method": "forward", "method_output_name": "last_hidden_state"}}"#)),
    ("module_output_name", Rule::Only(r#""token_embeddings""#)),
    // Whether padding is computed, or cut out before.
    ("unpad_inputs", Rule::Known),
];

/// config_sentence_transformers.json. How two vectors are compared is up to their readers.
pub(super) const ROOT: Keys = &[
    ("__version__", Rule::Known),
    ("default_prompt_name", Rule::Known),
    ("model_type", Rule::Only(r#""SentenceTransformer""#)),
    ("prompts", Rule::Known),
    ("similarity_fn_name", Rule::Known),
    ("truncate_dim", Rule::Only("null")),
];

/// config.json of the pooling.
pub(super) const POOLING: Keys = &[
    ("embedding_dimension", Rule::Known),
    ("include_prompt", Rule::Known),
    ("pooling_mode", Rule::Known),
    ("pooling_mode_cls_token", Rule::Known),
    ("pooling_mode_lasttoken", Rule::Known),
    ("pooling_mode_max_tokens", Rule::Known),
    ("pooling_mode_mean_sqrt_len_tokens", Rule::Known),
    ("pooling_mode_mean_tokens", Rule::Known),
    ("pooling_mode_weightedmean_tokens", Rule::Known),
    ("word_embedding_dimension", Rule::Known),
];

/// config.json of the module that gives vectors length 1.
pub(super) const NORMALIZE: Keys = &[
    ("module_input_name", Rule::Only(r#""sentence_embedding""#)),
    ("module_output_name", Rule::Only(r#""sentence_embedding""#)),
];

/// An entry of modules.json.
pub(super) const MODULE: Keys =
    &[("idx", Rule::Known), ("name", Rule::Known), ("path", Rule::Known), ("type", Rule::Known)];

/// An error for a key that would change vectors and isn't run, and for one that nobody knows and that says something.
pub(super) fn check(file: &Path, keys: &Map<String, Value>, table: Keys) -> Result<()> {
    for (key, value) in keys {
        match table.iter().find(|(name, _)| name == key).map(|(_, rule)| rule) {
            Some(Rule::Known) => {}
            Some(Rule::Only(neutral)) if value.is_null() || is(value, neutral) => {}
            Some(Rule::Only(neutral)) => {
                bail!("{}: `{key}` is {value}, which is not run here: expected {neutral}", file.display())
            }
            None if says_nothing(value) => {}
            None => bail!(
                "{}: `{key}` is {value}, a key that is not known here and may change the vectors: remove it if it doesn't",
                file.display()
            ),
        }
    }
    Ok(())
}
