//! Functions of scores that are given in WGSL, each with a twin in Rust for the reference.

use std::{fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::wgsl::Text;
use crate::{Error, Result};

/// A query and a key of one attention, and their places: the arguments of functions of scores and masks. In WGSL each
/// field is an `i32` of the same name, and `table[index]` is an f32.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The batch item, or the number of the packed sequence.
    pub b: i32,
    /// The query head.
    pub h: i32,
    /// The key head that it reads.
    pub h_kv: i32,
    /// The query, counted from the start of its item or sequence.
    pub i: i32,
    /// The key, counted in the same way.
    pub j: i32,
    /// The place of the query among the keys: `i + offset`.
    pub position: i32,
    /// The number of queries of the item: its query length.
    pub q_len: i32,
    /// The number of keys of the item: its key length, or the last axis of a mask or bias that is shorter.
    pub k_len: i32,
    pub(crate) table: &'a [f64],
}

impl Pair<'_> {
    /// Element `index` of the table, in row-major order; an index out of range takes the nearest element.
    pub fn table(&self, index: i32) -> f64 {
        let last = self.table.len().saturating_sub(1);
        self.table.get(usize::try_from(index).unwrap_or(0).min(last)).copied().unwrap_or(f64::NAN)
    }
}

/// A score, and the [`Pair`] that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// The score: in WGSL an f32, after softcap, bias and ALiBi.
    pub score: f64,
    /// The query and the key. Their fields can be read from here too (`Deref`).
    pub pair: Pair<'a>,
}

impl<'a> Deref for Scored<'a> {
    type Target = Pair<'a>;
    fn deref(&self) -> &Pair<'a> {
        &self.pair
    }
}

/// The twin of a [`ScoreMod`], which the reference runs.
pub type ScoreTwin = dyn Fn(&Scored<'_>) -> f64 + Send + Sync;

/// The twin of a [`MaskMod`], which the reference runs.
pub type MaskTwin = dyn Fn(&Pair<'_>) -> bool + Send + Sync;

/// A function of a score, f32 → f32: FlexAttention's `score_mod`. It comes after softcap, bias and ALiBi; a result of −inf masks
/// the key (WGSL lets devices assume that there is no infinity: to mask a key, use a [`MaskMod`]).
///
/// ```
/// use tilewise::{DType, Graph, graph::{AttentionArgs, Mask, ScoreMod}};
/// let closer = ScoreMod::new("score - 0.1 * f32(abs(i - j))", |s| s.score - 0.1 * f64::from((s.i - s.j).abs()))?;
/// let mut g = Graph::new();
/// let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [1, 2, 16, 8]));
/// let out = g.attention(q?, k?, v?, AttentionArgs::from(Mask::none()).score_mod(closer))?;
/// # assert_eq!(g.shape(out), &[1, 2, 16, 8].into());
///
/// let wrong = ScoreMod::wgsl("scor * 0.5").unwrap_err();
/// assert_eq!(wrong.to_string(), "\
/// score function: no definition in scope for identifier: `scor`
///   scor * 0.5
///   ^^^^ unknown identifier");
/// # Ok::<(), tilewise::Error>(())
/// ```
pub type ScoreMod = Function<ScoreTwin>;

/// Whether a query attends to a key, for [`Mask::function`](super::Mask::function): FlexAttention's `mask_mod`. It is one more
/// predicate beside the others: a fully masked row still gives 0.
pub type MaskMod = Function<MaskTwin>;

/// A [`ScoreMod`] or [`MaskMod`]: WGSL text, checked when it is given, and its twin in Rust.
///
/// The text is an expression, or statements with a `return`, over the fields of [`Pair`] (and `score`, if it is a function of
/// scores) and WGSL's own functions. `table[index]` reads the table that is given to the attention beside the function, an
/// f32 value of the graph of any shape in row-major order; the index is an `i32`, and one out of range takes the nearest
/// element. It is straight-line code: no loops, and no indexing of arrays or vectors by what is not constant. Its variables
/// and arrays take at most 1 KiB, the size of an array is a plain number, and a text has at most 8 KiB, 384 words and signs a
/// statement and 48 brackets in brackets.
///
/// Functions are equal if their texts are; the text is what a graph in JSON keeps of them.
pub struct Function<T: ?Sized> {
    text: Text,
    twin: Option<Arc<T>>,
}

/// A kind of functions: of scores or of masks. There are no others, and the items of the trait are for this crate.
pub trait FunctionKind {
    /// The kind in messages.
    #[doc(hidden)]
    const NAME: &'static str;
    /// The type of the result in WGSL.
    #[doc(hidden)]
    const RESULT: &'static str;
    /// The parameters before the fields of [`Pair`], in WGSL.
    #[doc(hidden)]
    const LEADING: &'static str;
    /// Those of this kind among the functions of an attention.
    #[doc(hidden)]
    fn among<'a>(scores: &'a mut [ScoreMod], masks: &'a mut [MaskMod]) -> &'a mut [Function<Self>];
}

impl FunctionKind for ScoreTwin {
    const NAME: &'static str = "score function";
    const RESULT: &'static str = "f32";
    const LEADING: &'static str = "score: f32, ";
    fn among<'a>(scores: &'a mut [ScoreMod], _: &'a mut [MaskMod]) -> &'a mut [ScoreMod] {
        scores
    }
}

impl FunctionKind for MaskTwin {
    const NAME: &'static str = "mask function";
    const RESULT: &'static str = "bool";
    const LEADING: &'static str = "";
    fn among<'a>(_: &'a mut [ScoreMod], masks: &'a mut [MaskMod]) -> &'a mut [MaskMod] {
        masks
    }
}

impl<T: FunctionKind + ?Sized> Function<T> {
    /// A function without a twin: the device runs it, the reference can't.
    ///
    /// ```
    /// use tilewise::graph::MaskMod;
    /// let function = MaskMod::wgsl("i / 4 == j / 4")?;
    /// assert!(function.twin().is_none());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the text does not compile, with the line and the place in it; if it is empty, has a loop,
    /// declares something beside the function, indexes by what is not constant, or is larger than the bounds above.
    pub fn wgsl(text: &str) -> Result<Self> {
        let text = Text::new(text, T::NAME, &parameters::<T>(), T::RESULT)?;
        Ok(Function { text, twin: None })
    }

    /// The text as it was given.
    pub fn text(&self) -> &str {
        self.text.given()
    }

    /// The twin, if there is one.
    pub fn twin(&self) -> Option<&T> {
        self.twin.as_deref()
    }

    /// The twin, or an error that says how to give one.
    pub(crate) fn expect_twin(&self) -> Result<&T> {
        self.twin().ok_or_else(|| {
            Error::op(
                "attention",
                format!(
                    "the {} `{}` has no twin in Rust, which the reference needs; `Graph::attach` gives it one",
                    T::NAME,
                    self.text()
                ),
            )
        })
    }

    /// Whether it reads the table.
    pub fn uses_table(&self) -> bool {
        self.text.uses("table")
    }

    /// Whether it asks where the query stands among the keys.
    pub(crate) fn uses_position(&self) -> bool {
        self.text.uses("position")
    }

    /// A one-line WGSL function of this name, which calls `table` for elements of the table.
    pub(crate) fn definition(&self, name: &str, table: &str) -> String {
        Self::declared(name, &self.text.body(table))
    }

    /// A one-line WGSL function of this name and kind.
    pub(crate) fn declared(name: &str, body: &str) -> String {
        format!("fn {name}({}) -> {} {{ {body} }}", parameters::<T>(), T::RESULT)
    }

    fn with(self, twin: Arc<T>) -> Self {
        Function { twin: Some(twin), ..self }
    }

    /// Takes the twin of a function of the same text.
    pub(super) fn attach(&mut self, same: &Self) {
        self.twin.clone_from(&same.twin);
    }
}

/// The parameters of a function of this kind, as WGSL declares them.
fn parameters<T: FunctionKind + ?Sized>() -> String {
    let pair = ["b", "h", "h_kv", "i", "j", "position", "q_len", "k_len"].map(|name| format!("{name}: i32"));
    format!("{}{}", T::LEADING, pair.join(", "))
}

impl ScoreMod {
    /// A function of a score, and its twin.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, graph::{AttentionArgs, Mask, ScoreMod}, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let only_first = ScoreMod::new("score - 1000.0 * f32(j)", |s| s.score - 1000.0 * f64::from(s.j))?;
    /// let q = g.constant(Tensor::zeros(DType::F32, [1, 1, 2, 1])?)?;
    /// let v = g.constant(Tensor::new([1, 1, 2, 1], vec![2.0f32, 4.0])?)?;
    /// let out = g.attention(q, q, v, AttentionArgs::from(Mask::none()).score_mod(only_first))?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(out).to_f64(), [2.0, 2.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Function::wgsl`]. That the twin computes the same is not checked.
    pub fn new(text: &str, twin: impl Fn(&Scored<'_>) -> f64 + Send + Sync + 'static) -> Result<Self> {
        Ok(Self::wgsl(text)?.with(Arc::new(twin)))
    }
}

impl MaskMod {
    /// A predicate, and its twin.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, graph::{Mask, MaskMod}, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let own = MaskMod::new("i == j", |pair| pair.i == pair.j)?;
    /// let q = g.constant(Tensor::zeros(DType::F32, [1, 1, 2, 1])?)?;
    /// let v = g.constant(Tensor::new([1, 1, 2, 1], vec![2.0f32, 4.0])?)?;
    /// let out = g.attention(q, q, v, Mask::function(own))?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(out).to_f64(), [2.0, 4.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Function::wgsl`]. That the twin says the same is not checked.
    pub fn new(text: &str, twin: impl Fn(&Pair<'_>) -> bool + Send + Sync + 'static) -> Result<Self> {
        Ok(Self::wgsl(text)?.with(Arc::new(twin)))
    }
}

impl<T: ?Sized> Clone for Function<T> {
    fn clone(&self) -> Self {
        Function { text: self.text.clone(), twin: self.twin.clone() }
    }
}

impl<T: ?Sized> PartialEq for Function<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text.given() == other.text.given()
    }
}

impl<T: ?Sized> fmt::Debug for Function<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let twin = if self.twin.is_some() { "" } else { " without a twin" };
        write!(f, "{:?}{twin}", self.text.given())
    }
}

impl<T: ?Sized> Serialize for Function<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text.given())
    }
}

impl<'de, T: FunctionKind + ?Sized> Deserialize<'de> for Function<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::wgsl(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
