//! Sizes of models, held against what can be and against the tensors of their weights, before anything is built: a file that
//! says a billion layers is refused, not built.

use super::{Bert, Gpt, gpt::GptNames};
use crate::{Error, Result};

/// Layers of a model, at most: those of published models have up to about a hundred, the deepest that were tried a thousand.
pub(crate) const LAYERS: usize = 4096;
/// Positions of a model, at most; tables of rotary positions are computed for each.
const POSITIONS: usize = 1 << 24;
/// Heads of a model, at most.
pub(crate) const HEADS: usize = 1 << 16;
/// Features, words, … of a model, at most: an axis.
pub(crate) const FEATURES: usize = i32::MAX as usize;

/// A size under its name in a file, and the most that it may be.
pub(crate) type Size = (&'static str, usize, usize);

/// An error unless each size is at least 1 and at most what it may be.
pub(crate) fn check_sizes(what: &str, sizes: &[Size]) -> Result<()> {
    match sizes.iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
        None => Ok(()),
        Some((key, value, most)) => Err(Error::format(what, format!("`{key}` is {value}, expected 1 to {most}"))),
    }
}

/// An error if a matrix of these two sizes has more elements than indices can tell apart.
fn check_matrix(what: &str, [a, b]: [Size; 2]) -> Result<()> {
    match a.1.checked_mul(b.1).filter(|&elements| elements <= FEATURES) {
        Some(_) => Ok(()),
        None => Err(Error::format(
            what,
            format!(
                "`{}` is {} and `{}` is {}: a matrix of them has more than {FEATURES} elements, which 32-bit indices can't tell \
                 apart",
                a.0, a.1, b.0, b.1
            ),
        )),
    }
}

/// The sizes of a model, as its config.json calls them.
struct Keys {
    vocabulary: Size,
    positions: Size,
    width: Size,
    layers: Size,
    hidden: Size,
    heads: Vec<Size>,
}

impl Keys {
    fn check(&self, what: &str) -> Result<()> {
        let Keys { vocabulary, positions, width, layers, hidden, heads } = self;
        check_sizes(what, &[*vocabulary, *positions, *width, *layers, *hidden])?;
        check_sizes(what, heads)?;
        [*vocabulary, *positions, *hidden].into_iter().try_for_each(|rows| check_matrix(what, [rows, *width]))
    }
}

impl Gpt {
    fn keys(&self) -> Keys {
        let [vocabulary, positions, width, layers, hidden] = match self.names {
            GptNames::Gpt2 => ["vocab_size", "n_positions", "n_embd", "n_layer", "n_inner"],
            GptNames::Llama => {
                ["vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "intermediate_size"]
            }
        };
        let heads = match self.names {
            GptNames::Gpt2 => vec![("n_head", self.heads, HEADS)],
            GptNames::Llama => vec![
                ("num_attention_heads", self.heads, HEADS),
                ("num_key_value_heads", self.key_heads, HEADS),
                ("head_dim", self.head_width, HEADS),
            ],
        };
        Keys {
            vocabulary: (vocabulary, self.vocabulary, FEATURES),
            positions: (positions, self.positions, POSITIONS),
            width: (width, self.width, FEATURES),
            layers: (layers, self.layers, LAYERS),
            hidden: (hidden, self.hidden, FEATURES),
            heads,
        }
    }

    /// The model, if its sizes can be built.
    pub(super) fn of_buildable_sizes(self, what: &str) -> Result<Self> {
        self.keys().check(what).map(|()| self)
    }

    /// Compares the sizes of a config.json with the tensors of the weights, before a graph is built: layers, vocabulary and
    /// widths. The names are those of [`Gpt::parameter_name`].
    ///
    /// ```no_run
    /// # fn main() -> tilewise::Result<()> {
    /// use tilewise::nn::{Gpt, Weights};
    /// let gpt = Gpt::from_config(&std::fs::read_to_string("model/config.json").unwrap())?;
    /// let weights = Weights::open("model")?.rename(|name| gpt.parameter_name(name))?;
    /// gpt.check_weights(&weights)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] with every size in which the two differ.
    #[cfg(feature = "native")]
    pub fn check_weights(&self, weights: &crate::nn::Weights) -> Result<()> {
        let keys = self.keys();
        let (layers, words, up) = match self.names {
            GptNames::Gpt2 => ("h.", "wte.weight", ("h.0.mlp.c_fc.weight", 1)),
            GptNames::Llama => ("model.layers.", "model.embed_tokens.weight", ("model.layers.0.mlp.up_proj.weight", 0)),
        };
        let sizes = [(keys.vocabulary, words, 0), (keys.width, words, 1), (keys.hidden, up.0, up.1)];
        compare(weights, keys.layers, layers, &sizes)
    }
}

impl Bert {
    fn keys(&self) -> Keys {
        Keys {
            vocabulary: ("vocab_size", self.vocabulary, FEATURES),
            positions: ("max_position_embeddings", self.positions, POSITIONS),
            width: ("hidden_size", self.width, FEATURES),
            layers: ("num_hidden_layers", self.layers, LAYERS),
            hidden: ("intermediate_size", self.hidden, FEATURES),
            heads: vec![("num_attention_heads", self.heads, HEADS), ("type_vocab_size", self.token_types, HEADS)],
        }
    }

    /// The model, if its sizes can be built.
    pub(super) fn of_buildable_sizes(self, what: &str) -> Result<Self> {
        self.keys().check(what).map(|()| self)
    }

    /// Compares the sizes of a config.json with the tensors of the weights, before a graph is built: layers, vocabulary,
    /// positions and widths. The names are those of [`Bert::parameter_name`].
    ///
    /// ```no_run
    /// # fn main() -> tilewise::Result<()> {
    /// use tilewise::nn::{Bert, Weights};
    /// let bert = Bert::from_config(&std::fs::read_to_string("model/config.json").unwrap())?;
    /// let weights = Weights::open("model")?.rename(|name| bert.parameter_name(name))?;
    /// bert.check_weights(&weights)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] with every size in which the two differ.
    #[cfg(feature = "native")]
    pub fn check_weights(&self, weights: &crate::nn::Weights) -> Result<()> {
        let keys = self.keys();
        let words = "embeddings.word_embeddings.weight";
        let sizes = [
            (keys.vocabulary, words, 0),
            (keys.width, words, 1),
            (keys.positions, "embeddings.position_embeddings.weight", 0),
            (("type_vocab_size", self.token_types, HEADS), "embeddings.token_type_embeddings.weight", 0),
            (keys.hidden, "encoder.layer.0.intermediate.dense.weight", 0),
        ];
        compare(weights, keys.layers, "encoder.layer.", &sizes)
    }
}

/// An error with each size that is another one than the weights have: the number of layers, whose tensors' names begin with
/// `prefix` and a number, and axes of tensors. What isn't there at all is for [`Weights::check`](crate::nn::Weights::check).
#[cfg(feature = "native")]
fn compare(
    weights: &crate::nn::Weights,
    (key, layers, _): Size,
    prefix: &str,
    sizes: &[(Size, &str, usize)],
) -> Result<()> {
    let number = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
    let last = weights.names().filter_map(number).max();
    let mut faults = Vec::new();
    match last.map_or(0, |last| last.saturating_add(1)) {
        0 => faults.push(format!("`{key}` is {layers}, the weights have no tensor of a layer (`{prefix}0.…`)")),
        there if there != layers => {
            faults.push(format!("`{key}` is {layers}, the weights have {there} layers (`{prefix}N.…`)"));
        }
        _ => {}
    }
    for ((key, value, _), tensor, axis) in sizes {
        if let Some(shape) = weights.shape(tensor)
            && shape.get(*axis) != Some(value)
        {
            faults.push(format!("`{key}` is {value}, `{tensor}` is {shape}"));
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Error::Binding(format!(
            "config.json and the weights are of different models:\n  {}",
            faults.join("\n  ")
        ))),
    }
}
