//! What sentence-transformers' files say about the way from a text to its vector.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum as _;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tilewise::{fields, files};

use super::keys::{self, Keys};
use crate::{
    args::{EmbedArgs, PoolingMode},
    input,
};

/// From a text to its vector, apart from the Transformer itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recipe {
    /// Where the Transformer's files are.
    pub(super) folder: PathBuf,
    /// Put before each text.
    pub(super) prompt: String,
    /// Whether texts are lowercased before the tokenizer sees them.
    pub(super) lower_case: bool,
    /// The most tokens of a text, if a file or an option says.
    pub(super) max_tokens: Option<usize>,
    /// One vector each, put end to end.
    pub(super) pooling: Vec<PoolingMode>,
    /// Whether vectors get length 1.
    pub(super) normalize: bool,
}

/// An entry of modules.json.
#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// sentence_bert_config.json.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Limits {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

/// tokenizer_config.json.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    /// Some files have 10^30 for "no limit", so this is no integer.
    model_max_length: Option<f64>,
}

/// config_sentence_transformers.json.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Prompts {
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

/// config.json of the pooling module: `pooling_mode` in newer files, a switch for each mode in older ones.
#[derive(Deserialize)]
struct Pooling {
    pooling_mode: Option<OneOrMore>,
    include_prompt: Option<bool>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// The switches of older files, in the order in which vectors are put end to end.
const SWITCHES: [(&str, &str); 6] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

impl Recipe {
    /// Reads a model's folder. Options come before files; without files, the mean of the tokens, as it is: what
    /// sentence-transformers makes of a bare model.
    pub(super) fn open(args: &EmbedArgs) -> Result<Self> {
        let root = &args.model;
        if !root.is_dir() {
            bail!(
                "{} is no folder: --model wants one with config.json, tokenizer.json and model.safetensors",
                root.display()
            );
        }
        let (folder, pooling, normalize) = modules(root)?;
        let file = folder.join("sentence_bert_config.json");
        let limits: Limits = optional(&file, keys::TRANSFORMER)?.unwrap_or_default();
        // Of what tokenizer_config.json says, tokenizer.json has the rest.
        let tokenizer: TokenizerConfig = optional_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let file = root.join("config_sentence_transformers.json");
        let Prompts { prompts, default_prompt_name } = optional(&file, keys::ROOT)?.unwrap_or_default();
        let prompt = match args.prompt.as_ref().or(default_prompt_name.as_ref()) {
            None => String::new(),
            Some(name) => match prompts.get(name) {
                Some(prompt) => prompt.clone(),
                None if prompts.is_empty() => bail!("there is no prompt `{name}`: {} has none", file.display()),
                None => {
                    let names: Vec<&str> = prompts.keys().map(String::as_str).collect();
                    bail!("there is no prompt `{name}`: {} has {}", file.display(), names.join(", "));
                }
            },
        };
        let pooling = match pooling {
            _ if !args.pooling.is_empty() => args.pooling.clone(),
            None => vec![PoolingMode::Mean],
            Some(file) => {
                let config: Pooling = required(&file, keys::POOLING)?;
                if config.include_prompt == Some(false) && !prompt.is_empty() {
                    bail!("{}: include_prompt is false: prompts that are not pooled are not supported", file.display());
                }
                config.modes().with_context(|| file.display().to_string())?
            }
        };
        let known = tokenizer.model_max_length.filter(|&n| n < 1e9).map(|n| n as usize);
        Ok(Recipe {
            folder,
            prompt,
            lower_case: limits.do_lower_case,
            max_tokens: args.max_tokens.or(limits.max_seq_length).or(known),
            pooling,
            normalize: args.normalize.unwrap_or(normalize),
        })
    }

    /// What the tokenizer gets of a text.
    pub(super) fn prepare(&self, text: &str) -> String {
        let text = format!("{}{text}", self.prompt);
        if self.lower_case { text.to_lowercase() } else { text }
    }
}

/// The Transformer's folder, the pooling's config.json and whether vectors get length 1.
fn modules(root: &Path) -> Result<(PathBuf, Option<PathBuf>, bool)> {
    let file = root.join("modules.json");
    let Some(entries) = optional_json::<Vec<Map<String, Value>>>(&file)? else {
        return Ok((root.to_path_buf(), None, false));
    };
    let modules = entries.iter().map(|entry| checked::<Module>(&file, entry, keys::MODULE));
    let modules = modules.collect::<Result<Vec<_>>>()?;
    // The type is a Python path, which changed over the years; its last part did not.
    let kinds: Vec<&str> = modules.iter().map(|m| m.kind.rsplit('.').next().unwrap_or_default()).collect();
    let normalize = match kinds[..] {
        ["Transformer", "Pooling"] => false,
        ["Transformer", "Pooling", "Normalize"] => true,
        _ => bail!(
            "{} has the modules [{}]: what can be run is Transformer, Pooling and perhaps Normalize",
            file.display(),
            kinds.join(", ")
        ),
    };
    let folder = |module: &Module| files::within(root, &module.path).with_context(|| file.display().to_string());
    if let Some(module) = modules.get(2) {
        optional::<Map<String, Value>>(&folder(module)?.join("config.json"), keys::NORMALIZE)?;
    }
    Ok((folder(&modules[0])?, Some(folder(&modules[1])?.join("config.json")), normalize))
}

impl Pooling {
    fn modes(&self) -> Result<Vec<PoolingMode>> {
        let on = |switch: &str| self.rest.get(switch).and_then(Value::as_bool) == Some(true);
        let names: Vec<&str> = match &self.pooling_mode {
            Some(OneOrMore::One(name)) => vec![name],
            Some(OneOrMore::More(names)) => names.iter().map(String::as_str).collect(),
            None => SWITCHES.into_iter().filter(|(switch, _)| on(switch)).map(|(_, name)| name).collect(),
        };
        if names.is_empty() {
            return Ok(vec![PoolingMode::Mean]);
        }
        let mode = |name: &str| {
            PoolingMode::from_str(name, false).map_err(|_| {
                anyhow!("pooling `{name}` is not supported: cls, max, mean and mean_sqrt_len_tokens are (--pooling)")
            })
        };
        names.into_iter().map(mode).collect()
    }
}

/// A JSON object whose keys are known, if the file is there.
fn optional<T: DeserializeOwned>(file: &Path, known: Keys) -> Result<Option<T>> {
    if file.is_file() { required(file, known).map(Some) } else { Ok(None) }
}

fn required<T: DeserializeOwned>(file: &Path, known: Keys) -> Result<T> {
    checked(file, &json(file)?, known)
}

/// What an object of a file says, if its keys are known.
fn checked<T: DeserializeOwned>(file: &Path, object: &Map<String, Value>, known: Keys) -> Result<T> {
    keys::check(file, object, known)?;
    fields::decode(object, None).map_err(|why| anyhow!("{}: {why}", file.display()))
}

/// A JSON file, whatever its keys are, if it is there.
fn optional_json<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    if file.is_file() { json(file).map(Some) } else { Ok(None) }
}

fn json<T: DeserializeOwned>(file: &Path) -> Result<T> {
    fields::parse_any(&input::text(file)?).map_err(|why| anyhow!("{}: {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::{Pooling, PoolingMode};

    fn modes(json: &str) -> Result<Vec<PoolingMode>, String> {
        let config: Pooling = serde_json::from_str(json).expect("JSON");
        config.modes().map_err(|e| e.to_string())
    }

    #[test]
    fn pooling_is_read_from_old_and_new_files() {
        let old = r#"{"word_embedding_dimension": 8, "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true,
            "pooling_mode_max_tokens": false}"#;
        assert_eq!(modes(old), Ok(vec![PoolingMode::Cls, PoolingMode::Mean]));
        let root = r#"{"pooling_mode_mean_sqrt_len_tokens": true}"#;
        assert_eq!(modes(root), Ok(vec![PoolingMode::MeanSqrtLenTokens]));
        let new = r#"{"embedding_dimension": 8, "pooling_mode": "max", "include_prompt": true}"#;
        assert_eq!(modes(new), Ok(vec![PoolingMode::Max]));
        assert_eq!(modes(r#"{"pooling_mode": ["mean", "cls"]}"#), Ok(vec![PoolingMode::Mean, PoolingMode::Cls]));
        assert_eq!(modes("{}"), Ok(vec![PoolingMode::Mean]));
        let message = modes(r#"{"pooling_mode_lasttoken": true}"#).expect_err("refused");
        assert!(message.contains("lasttoken") && message.contains("--pooling"), "{message}");
    }
}
