//! `config.json` of published models: what is read of it, and what is done about every key that is not.
//!
//! A key that changes numbers and is not built here must not pass silently. So each kind of model has a table of its keys
//! ([`Keys`]); a key that no table has is refused, unless its value says nothing.

use serde_json::{Map, Value};

use super::activation;
use crate::{
    Error, Result,
    fields::{is, says_nothing},
    nn::Activation,
};

/// What is done about a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// It is read, and built.
    Built,
    /// It changes nothing that is computed here: names, training, token numbers, how texts are drawn.
    Harmless,
    /// Built as if it had this value (JSON); with another it is refused. `null` says nothing.
    Only(&'static str),
}

/// Keys, each with its rule.
pub(super) type Keys = &'static [(&'static str, Rule)];

/// What `transformers` writes into the files of all models.
pub(super) const COMMON: Keys = {
    use Rule::{Built, Harmless, Only};
    &[
        ("model_type", Built),
        ("vocab_size", Built),
        ("tie_word_embeddings", Built),
        // Other computations than a model's own.
        ("quantization_config", Only("null")),
        ("compression_config", Only("null")),
        ("is_encoder_decoder", Only("false")),
        ("add_cross_attention", Only("false")),
        ("cross_attention_hidden_size", Only("null")),
        ("per_layer_config", Only("{}")),
        ("pruned_heads", Only("{}")),
        // Names and versions.
        ("_commit_hash", Harmless),
        ("_name_or_path", Harmless),
        ("architectures", Harmless),
        ("auto_map", Harmless),
        ("language", Harmless),
        ("license", Harmless),
        ("name", Harmless),
        ("name_or_path", Harmless),
        ("tokenizer_class", Harmless),
        ("transformers_version", Harmless),
        ("unsloth_fixed", Harmless),
        ("unsloth_version", Harmless),
        ("vocab_file", Harmless),
        // How a run is done, and what it returns. Sums are f32 here in any case.
        ("_attn_implementation", Harmless),
        ("_attn_implementation_autoset", Harmless),
        ("_attn_implementation_internal", Harmless),
        ("_experts_implementation", Harmless),
        ("attn_implementation", Harmless),
        ("chunk_size_feed_forward", Harmless),
        ("dtype", Harmless),
        ("output_attentions", Harmless),
        ("output_hidden_states", Harmless),
        ("output_past", Harmless),
        ("output_scores", Harmless),
        ("return_dict", Harmless),
        ("return_dict_in_generate", Harmless),
        ("tf_legacy_loss", Harmless),
        ("torch_dtype", Harmless),
        ("torchscript", Harmless),
        ("use_bfloat16", Harmless),
        ("use_cache", Harmless),
        ("use_return_dict", Harmless),
        // Training, and the heads of other tasks.
        ("classifier_dropout", Harmless),
        ("finetuning_task", Harmless),
        ("gradient_checkpointing", Harmless),
        ("id2label", Harmless),
        ("initializer_factor", Harmless),
        ("initializer_range", Harmless),
        ("label2id", Harmless),
        ("num_labels", Harmless),
        ("problem_type", Harmless),
        ("task_specific_params", Harmless),
        ("tie_encoder_decoder", Harmless),
        // Numbers of tokens.
        ("bos_token_id", Harmless),
        ("cls_token_id", Harmless),
        ("decoder_start_token_id", Harmless),
        ("eos_token_id", Harmless),
        ("mask_token_id", Harmless),
        ("pad_token_id", Harmless),
        ("sep_token_id", Harmless),
        ("unk_token_id", Harmless),
        // How texts are drawn: a request says that here.
        ("bad_words_ids", Harmless),
        ("begin_suppress_tokens", Harmless),
        ("diversity_penalty", Harmless),
        ("do_sample", Harmless),
        ("early_stopping", Harmless),
        ("encoder_no_repeat_ngram_size", Harmless),
        ("exponential_decay_length_penalty", Harmless),
        ("forced_bos_token_id", Harmless),
        ("forced_eos_token_id", Harmless),
        ("length_penalty", Harmless),
        ("max_length", Harmless),
        ("max_new_tokens", Harmless),
        ("min_length", Harmless),
        ("no_repeat_ngram_size", Harmless),
        ("num_beam_groups", Harmless),
        ("num_beams", Harmless),
        ("num_return_sequences", Harmless),
        ("prefix", Harmless),
        ("remove_invalid_values", Harmless),
        ("repetition_penalty", Harmless),
        ("suppress_tokens", Harmless),
        ("temperature", Harmless),
        ("top_k", Harmless),
        ("top_p", Harmless),
        ("typical_p", Harmless),
    ]
};

/// The object of a file, all of whose keys have been looked at.
#[derive(Debug)]
pub(super) struct Config {
    /// For messages: `Llama's config.json`.
    what: &'static str,
    keys: Map<String, Value>,
}

impl Config {
    /// Reads the text.
    ///
    /// # Errors
    /// [`Error::Format`] if it is no JSON object.
    pub(super) fn parse(what: &'static str, json: &str) -> Result<Self> {
        let keys = serde_json::from_str(json).map_err(|e| Error::format(what, e.to_string()))?;
        Ok(Config { what, keys })
    }

    /// A part of a file, with keys of its own.
    pub(super) fn part(what: &'static str, keys: Map<String, Value>) -> Self {
        Config { what, keys }
    }

    /// Holds every key against the tables.
    ///
    /// # Errors
    /// [`Error::Format`] for a key that would change numbers and isn't built, and for one that nobody knows and that says something.
    pub(super) fn check(&self, tables: &[Keys]) -> Result<()> {
        for (key, value) in &self.keys {
            let rule = tables.iter().flat_map(|table| table.iter()).find(|(name, _)| name == key).map(|(_, rule)| rule);
            match rule {
                Some(Rule::Built | Rule::Harmless) => {}
                Some(Rule::Only(neutral)) if value.is_null() || is(value, neutral) => {}
                Some(Rule::Only(neutral)) => {
                    return self.fail(format!(
                        "`{key}` is {}, which is not built here: expected {neutral}, or no such key",
                        brief(value)
                    ));
                }
                None if says_nothing(value) => {}
                None => {
                    return self.fail(format!(
                        "`{key}` is {}, a key that is not known here and may change what is computed: remove it from the \
                         file if it doesn't",
                        brief(value)
                    ));
                }
            }
        }
        Ok(())
    }

    /// An error about the file.
    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error::format(self.what, message))
    }

    /// The value of a key; `None` if it is not there or `null`.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there, be it as `null`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    fn read<'a, T>(&'a self, key: &str, form: &str, of: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match of(value) {
            Some(value) => Ok(Some(value)),
            None => self.fail(format!("`{key}` is {}, expected {form}", brief(value))),
        }
    }

    /// A size, if it is said.
    pub(super) fn size(&self, key: &str) -> Result<Option<usize>> {
        // Some writers have 4096.0.
        let whole = |value: &Value| value.as_u64().or_else(|| value.as_f64().and_then(whole_number));
        self.read(key, "an integer from 0 up", |value| usize::try_from(whole(value)?).ok())
    }

    /// A size that has to be said.
    pub(super) fn needed(&self, key: &str) -> Result<usize> {
        match self.size(key)? {
            Some(size) => Ok(size),
            None => self.fail(format!("the field `{key}` is missing")),
        }
    }

    /// A finite number, if it is said.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    /// A number that has to be said.
    pub(super) fn needed_number(&self, key: &str) -> Result<f64> {
        match self.number(key)? {
            Some(number) => Ok(number),
            None => self.fail(format!("the field `{key}` is missing")),
        }
    }

    /// A yes or no, if it is said.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A text, if it is said.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, "a text", Value::as_str)
    }

    /// A list, if it is said.
    pub(super) fn list(&self, key: &str) -> Result<Option<&[Value]>> {
        self.read(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// An object, if it is said.
    pub(super) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>> {
        self.read(key, "an object", Value::as_object)
    }

    /// An activation, if it is said.
    pub(super) fn activation(&self, key: &str) -> Result<Option<Activation>> {
        match self.text(key)? {
            Some(name) => match activation(name) {
                Ok(activation) => Ok(Some(activation)),
                Err(message) => self.fail(format!("`{key}`: {message}")),
            },
            None => Ok(None),
        }
    }
}

fn whole_number(number: f64) -> Option<u64> {
    (number >= 0.0 && number.fract() == 0.0 && number < 9e15).then_some(number as u64)
}

/// A value for a message.
fn brief(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_rule_and_every_neutral_value_is_json() {
        let tables =
            [COMMON, super::super::gpt_config::GPT2, super::super::gpt_config::LLAMA, super::super::bert::KEYS];
        for table in tables {
            for (i, (key, rule)) in table.iter().enumerate() {
                assert!(table[..i].iter().all(|(other, _)| other != key), "`{key}` stands twice");
                let common = COMMON.iter().any(|(other, _)| other == key);
                assert!(!common || table.as_ptr() == COMMON.as_ptr(), "`{key}` is common");
                if let Rule::Only(json) = rule {
                    assert!(serde_json::from_str::<Value>(json).is_ok(), "`{key}`: {json}");
                }
            }
        }
    }

    #[test]
    fn what_is_unknown_passes_only_if_it_says_nothing() {
        let check = |json: &str| Config::parse("a config", json).expect("JSON").check(&[COMMON]);
        for json in [r#"{"new": null}"#, r#"{"new": false}"#, r#"{"new": ""}"#, r#"{"new": []}"#, r#"{"new": {}}"#] {
            assert!(check(json).is_ok(), "{json}");
        }
        for (json, said) in [(r#"{"new": 0}"#, "0"), (r#"{"new": true}"#, "true"), (r#"{"new": "x"}"#, r#""x""#)] {
            let error = check(json).expect_err(json).to_string();
            assert!(error.contains(&format!("`new` is {said}, a key that is not known here")), "{error}");
        }
        assert!(check(r#"{"is_encoder_decoder": false, "top_k": 50, "temperature": 0.5}"#).is_ok());
        let error = check(r#"{"is_encoder_decoder": true}"#).expect_err("refused").to_string();
        assert!(error.contains("`is_encoder_decoder` is true, which is not built here: expected false"), "{error}");
    }
}
