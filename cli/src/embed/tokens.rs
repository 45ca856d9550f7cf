use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, anyhow, bail};
use tilewise::nn::Bert;
use tokenizers::{Encoding, PostProcessor as _, Tokenizer, TruncationParams};

use super::recipe::Recipe;
use crate::{args::LongTexts, output::note};

/// Texts that are tokenized at once, on all cores; what is kept of a token is far less than what the tokenizer makes.
const CHUNK: usize = 512;
/// Texts that a message lists; more are only counted.
const LISTED: usize = 5;

/// A text as the model sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tokens {
    pub(super) ids: Vec<i32>,
    /// The segment of each token.
    pub(super) types: Vec<i32>,
    /// How many tokens the whole text has.
    pub(super) whole: usize,
}

/// A tokenizer.json, and the limit of the model that it is for.
pub(super) struct TextTokenizer {
    /// Without padding and truncation.
    whole: Tokenizer,
    /// With truncation to `limit` tokens.
    cut: Tokenizer,
    limit: usize,
}

impl Tokens {
    pub(super) fn is_cut(&self) -> bool {
        self.whole > self.ids.len()
    }
}

impl TextTokenizer {
    /// The tokenizer in the Transformer's folder. Whatever padding and truncation its file says is set aside: files are often
    /// saved with those of the training.
    pub(super) fn open(recipe: &Recipe, bert: &Bert) -> Result<Self> {
        let file = recipe.folder.join("tokenizer.json");
        if !file.is_file() {
            bail!(
                "{} has no tokenizer.json; it has {}. transformers writes one: \
                 AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
                recipe.folder.display(),
                listing(&recipe.folder)
            );
        }
        let fail = |e: tokenizers::Error| anyhow!("{}: {e}", file.display());
        let read = || Tokenizer::from_file(&file);
        let mut whole = calmly(read).with_context(|| file.display().to_string())?.map_err(fail)?;
        let direction = whole.get_truncation().map(|saved| saved.direction).unwrap_or_default();
        whole.with_padding(None).with_truncation(None).map_err(fail)?;
        let limit = recipe.max_tokens.unwrap_or(bert.positions);
        let added = whole.get_post_processor().map_or(0, |p| p.added_tokens(false));
        if added >= bert.positions {
            bail!(
                "the model has {} positions (max_position_embeddings in config.json), and tokenizer.json adds {added} tokens to \
                 each text: there is no room for a text; they are of different models",
                bert.positions
            );
        }
        if limit <= added || limit > bert.positions {
            bail!(
                "a limit of {limit} tokens a text: the tokenizer adds {added} to each, and the model has {} positions; \
                 expected {} to {} (--max-tokens)",
                bert.positions,
                added + 1,
                bert.positions
            );
        }
        let mut cut = whole.clone();
        let truncation = TruncationParams { max_length: limit, direction, ..TruncationParams::default() };
        cut.with_truncation(Some(truncation)).map_err(fail)?;
        Ok(TextTokenizer { whole, cut, limit })
    }

    /// The most tokens of a text.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Every text's tokens. Says on the standard error which texts were cut.
    pub(super) fn tokenize(
        &self,
        recipe: &Recipe,
        bert: &Bert,
        texts: &[String],
        long: LongTexts,
    ) -> Result<Vec<Tokens>> {
        let mut all = Vec::with_capacity(texts.len());
        for chunk in texts.chunks(CHUNK) {
            let prepared: Vec<String> = chunk.iter().map(|text| recipe.prepare(text)).collect();
            let fail = |e: tokenizers::Error| anyhow!("tokenizer.json: {e}");
            let whole = || self.whole.encode_batch_fast(prepared.clone(), true);
            let encodings = calmly(whole).context("tokenizer.json")?.map_err(fail)?;
            for (text, encoding) in prepared.into_iter().zip(encodings) {
                let number = all.len() + 1;
                let whole = encoding.len();
                if whole == 0 {
                    bail!("text {number} has no tokens, and the tokenizer adds none: there is nothing to embed");
                }
                // Before it is cut: a wrong tokenizer makes the most nonsense of long texts.
                let cut = || self.cut.encode_fast(text, true);
                let kept =
                    if whole > self.limit { calmly(cut).context("tokenizer.json")?.map_err(fail)? } else { encoding };
                all.push(self.checked(&kept, whole, bert).with_context(|| format!("text {number}"))?);
            }
        }
        self.report(&all, long)?;
        Ok(all)
    }

    /// The tokens, if the model has them all.
    fn checked(&self, encoding: &Encoding, whole: usize, bert: &Bert) -> Result<Tokens> {
        if let Some(&id) = encoding.get_ids().iter().find(|&&id| id as usize >= bert.vocabulary) {
            bail!(
                "tokenizer.json gives `{}` the number {id}, but the model has {} words (vocab_size in config.json): \
                 they are of different models",
                self.whole.id_to_token(id).unwrap_or_default(),
                bert.vocabulary
            );
        }
        if let Some(id) = encoding.get_type_ids().iter().find(|&&id| id as usize >= bert.token_types) {
            bail!(
                "tokenizer.json puts tokens into segment {id}, but the model has {} (type_vocab_size in config.json)",
                bert.token_types
            );
        }
        let numbers = |ids: &[u32]| ids.iter().map(|&id| id as i32).collect();
        Ok(Tokens { ids: numbers(encoding.get_ids()), types: numbers(encoding.get_type_ids()), whole })
    }

    fn report(&self, all: &[Tokens], long: LongTexts) -> Result<()> {
        let cut: Vec<String> = all
            .iter()
            .enumerate()
            .filter(|(_, tokens)| tokens.is_cut())
            .map(|(i, tokens)| format!("text {} has {}", i + 1, tokens.whole))
            .collect();
        if cut.is_empty() {
            return Ok(());
        }
        let rest = if cut.len() > LISTED { ", …" } else { "" };
        let message = format!(
            "{} of {} texts have more than {} tokens: {}{rest}",
            cut.len(),
            all.len(),
            self.limit,
            cut[..cut.len().min(LISTED)].join(", ")
        );
        match long {
            LongTexts::Refuse => bail!("{message}; shorten them, or let them be cut with `--long truncate`"),
            LongTexts::Truncate => note!("warning: {message}; only their beginnings are embedded"),
        }
        Ok(())
    }
}

/// Calls the library that reads tokenizers, which panics on some files that it should refuse. A panic is an error with its
/// message, and is not printed by itself.
fn calmly<T>(call: impl FnOnce() -> T) -> Result<T> {
    // The hook is the whole program's: one call at a time.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let called = panic::catch_unwind(AssertUnwindSafe(call));
    panic::set_hook(hook);
    called.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        let first = text.and_then(|text| text.lines().next()).unwrap_or("without a message");
        anyhow!("the tokenizer can't be run: the library that reads it gave up ({first}); is the file of this model, and whole?")
    })
}

/// The names in a folder, for messages.
pub(super) fn listing(folder: &Path) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    if names.is_empty() { "nothing in it".into() } else { names.join(", ") }
}
