use std::ops::BitAnd;

use super::{Align, Attention, AttentionOperand, Graph, MaskMod, ScoreMod, ValueId, Window};
use crate::{DType, Error, Result};

/// Which keys each query attends to. Masks are combined with `&`: a key is masked if any part masks it.
///
/// Rows are queries `i`, columns are keys `j`; `x` is not masked. `offset` says where query 0 stands among the keys:
///
/// ```text
/// causal(TopLeft)   offset 0         causal(BottomRight)   offset Tk − Tq     window(1, 0, TopLeft)
///      j 0 1 2 3 4                        j 0 1 2 3 4                            j 0 1 2 3 4
///  i 0   x . . . .                    i 0   x x x . .                        i 0   x . . . .
///  i 1   x x . . .                    i 1   x x x x .                        i 1   x x . . .
///  i 2   x x x . .                    i 2   x x x x x                        i 2   . x x . .
///
/// causal(TopLeft), Tq > Tk           causal(BottomRight), Tq > Tk             key_lengths = 3
///      j 0 1 2                            j 0 1 2                                j 0 1 2 3 4
///  i 0   x . .                        i 0   . . .   (fully masked: out is 0)  i 0   x x x . .
///  i 1   x x .                        i 1   . . .                             i 1   x x x . .
///  i 2   x x x                        i 2   x . .                             i 2   x x x . .
///  i 3   x x x                        i 3   x x .
///  i 4   x x x                        i 4   x x x
/// ```
///
/// ```
/// use tilewise::{DType, Graph, graph::{Align, Mask}};
/// let mut g = Graph::new();
/// let q = g.input("q", DType::F32, [2, 8, 1, 64])?;
/// let k = g.input("k", DType::F32, [2, 2, 100, 64])?;
/// let v = g.input("v", DType::F32, [2, 2, 100, 64])?;
/// let lengths = g.input("lengths", DType::I32, [2])?;
/// let mask = Mask::causal(Align::BottomRight) & Mask::key_lengths(lengths);
/// let out = g.attention(q, k, v, mask)?;
/// assert_eq!(g.shape(out), &[2, 8, 1, 64].into());
/// # Ok::<(), tilewise::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mask {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Causal(Align),
    Window(Window, Align),
    Aligned(Align),
    Offsets(ValueId),
    Boolean(ValueId),
    KeyPadding(ValueId),
    Bias(ValueId),
    KeyLengths(ValueId),
    QueryLengths(ValueId),
    Packed(ValueId, Option<ValueId>),
    Pages(ValueId),
    Function(MaskMod),
    Table(ValueId),
}

impl Mask {
    /// No key is masked.
    pub fn none() -> Self {
        Mask::default()
    }

    fn part(part: Part) -> Self {
        Mask { parts: vec![part] }
    }

    /// `j ≤ i + offset`: no key after the query's own position.
    pub fn causal(align: Align) -> Self {
        Mask::part(Part::Causal(align))
    }

    /// `i + offset − left ≤ j ≤ i + offset + right`: a sliding window; `None` is open.
    pub fn window(left: impl Into<Option<u32>>, right: impl Into<Option<u32>>, align: Align) -> Self {
        Mask::part(Part::Window(Window { left: left.into(), right: right.into() }, align))
    }

    /// Masks nothing, but says where query 0 stands among the keys: ALiBi without a causal mask needs this.
    pub fn aligned(align: Align) -> Self {
        Mask::part(Part::Aligned(align))
    }

    /// The offset of query 0 among the keys per batch item, i32 `[B]`, for parts aligned [`Align::PerItem`].
    pub fn offsets(offsets: ValueId) -> Self {
        Mask::part(Part::Offsets(offsets))
    }

    /// bool, true = the key **takes part** (may be seen); broadcasts from the right to `[B, Hq, Tq, Tk]`.
    ///
    /// *From the right* means that two axes are `[Tq, Tk]`: one row for each query, the same for all items. A mask of each item's
    /// keys, `[B, Tk]`, is [`Mask::key_padding`]; given here it is an error, or, where B happens to be Tq, something else
    /// (`explain` then notes how it is read).
    ///
    /// Columns are keys from the first on. **A mask with fewer columns than there are keys (and more than one) hides the keys past
    /// its end, which are the newest**: one that was made before a cache grew hides the token that came last. `explain`
    /// notes this too.
    ///
    /// ```text
    /// mask [2, 3], Tk = 5          x: the mask's own; h: past its end, hidden from every query
    ///      j 0 1 2 3 4
    ///  i 0   x x x h h
    ///  i 1   x x x h h
    /// ```
    pub fn boolean(mask: ValueId) -> Self {
        Mask::part(Part::Boolean(mask))
    }

    /// Added to the scores, −inf masks; broadcasts from the right to `[B, Hq, Tq, Tk]`.
    ///
    /// As with [`Mask::boolean`], two axes are `[Tq, Tk]`, columns are keys from the first on, and **one with fewer columns than
    /// there are keys (and more than one) hides the keys past its end, the newest**.
    pub fn bias(bias: ValueId) -> Self {
        Mask::part(Part::Bias(bias))
    }

    /// bool `[B, Tk]`: which keys of each item **may be seen**, by all heads and queries; true for real tokens, false for padding.
    ///
    /// This is `attention_mask` as Hugging Face's tokenizers give it (1 for real tokens; cast it to bool), and the **opposite** of
    /// PyTorch's `key_padding_mask`, which is true for padding:
    /// [`AttentionMasks::key_padding_mask`](crate::nn::AttentionMasks::key_padding_mask) takes that. Where the real tokens come
    /// first, [`Mask::key_lengths`] says the same in a number an item, and tiles of padding are never visited.
    ///
    /// With other leading axes than `[B, H]`: `[…, Tk]`, with q's axes before the heads.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, graph::Mask, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let q = g.constant(Tensor::zeros(DType::F32, [2, 1, 2, 4])?)?;
    /// let v = g.constant(Tensor::new([2, 1, 2, 1], vec![2.0f32, 4.0, 6.0, 8.0])?)?;
    /// let real = g.constant(Tensor::new([2, 2], vec![true, false, true, true])?)?;
    /// let out = g.attention(q, q, v, Mask::key_padding(real))?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(out).to_f64(), [2.0, 2.0, 7.0, 7.0]); // item 0 has one real key, item 1 two
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    pub fn key_padding(mask: ValueId) -> Self {
        Mask::part(Part::KeyPadding(mask))
    }

    /// i32 `[B]`: keys from here on are masked, as padding.
    pub fn key_lengths(lengths: ValueId) -> Self {
        Mask::part(Part::KeyLengths(lengths))
    }

    /// i32 `[B]`: rows of q from here on are fully masked, and give 0.
    pub fn query_lengths(lengths: ValueId) -> Self {
        Mask::part(Part::QueryLengths(lengths))
    }

    /// Whether a part says that sequences are packed.
    pub fn is_packed(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Packed(..)))
    }

    /// Packed sequences, end to end without padding. i32 `[B + 1]` each: where the sequences of q begin, and those of k
    /// and v, and the ends (`cu_seqlens`).
    pub fn packed(query_offsets: ValueId, key_offsets: ValueId) -> Self {
        Mask::part(Part::Packed(query_offsets, Some(key_offsets)))
    }

    /// Packed queries whose keys are paged, beside [`Mask::pages`]. i32 `[B + 1]`: where the sequences of q begin, and
    /// the end.
    pub fn packed_queries(query_offsets: ValueId) -> Self {
        Mask::part(Part::Packed(query_offsets, None))
    }

    /// k and v are pages, `[pages, page size, Hkv, D]`. i32 `[B, P]`: the page that holds each part of an item's keys.
    /// Key lengths say how many keys there are. See [`Attention`].
    pub fn pages(block_table: ValueId) -> Self {
        Mask::part(Part::Pages(block_table))
    }

    /// A predicate of your own, in WGSL. Several are joined by ∧.
    ///
    /// ```
    /// use tilewise::graph::{Mask, MaskMod};
    /// let blocks = MaskMod::new("i / 4 == j / 4", |s| s.i / 4 == s.j / 4)?;
    /// let mask = Mask::function(blocks);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    pub fn function(function: MaskMod) -> Self {
        Mask::part(Part::Function(function))
    }

    /// The `table` of the mask functions: f32, any shape, such as the document of each token.
    pub fn table(table: ValueId) -> Self {
        Mask::part(Part::Table(table))
    }
}

impl BitAnd for Mask {
    type Output = Mask;
    fn bitand(mut self, other: Mask) -> Mask {
        self.parts.extend(other.parts);
        self
    }
}

/// A mask and the modifiers of attention. A [`Mask`] alone turns into one that scales by 1/√D.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionArgs {
    /// Which keys each query may see.
    pub mask: Mask,
    /// Factor on q·k; `None` is 1/√D.
    pub scale: Option<f32>,
    /// c of `c·tanh(s/c)`, > 0, before any mask.
    pub softcap: Option<f32>,
    /// f32 `[Hq]`: ALiBi slopes.
    pub slopes: Option<ValueId>,
    /// f32 `[Hq]`: attention sinks, a learned logit a query head in the softmax's denominator.
    pub sinks: Option<ValueId>,
    /// Functions of the score, one after the other; after softcap, bias and ALiBi.
    pub score_mods: Vec<ScoreMod>,
    /// The `table` of the score functions: f32, any shape.
    pub score_table: Option<ValueId>,
}

impl From<Mask> for AttentionArgs {
    fn from(mask: Mask) -> Self {
        AttentionArgs { mask, ..AttentionArgs::default() }
    }
}

impl From<&AttentionArgs> for AttentionArgs {
    fn from(args: &AttentionArgs) -> Self {
        args.clone()
    }
}

impl AttentionArgs {
    /// Adds a function of the score, after those that are there.
    pub fn score_mod(mut self, function: ScoreMod) -> Self {
        self.score_mods.push(function);
        self
    }

    /// Sets the `table` of the score functions.
    pub fn score_table(mut self, table: ValueId) -> Self {
        self.score_table = Some(table);
        self
    }

    /// The operation and its operands after q, k and v, for these keys. Two parts of one kind become one: booleans by ∧, biases by +,
    /// lengths by min, windows by intersection.
    pub(super) fn resolve(self, g: &mut Graph, k: ValueId) -> Result<(Attention, Vec<ValueId>)> {
        use AttentionOperand as A;
        let AttentionArgs { scale, softcap, score_mods, .. } = self;
        let mut op = Attention { scale, softcap, score_mods, ..Attention::default() };
        let mut align: Option<Align> = None;
        let mut given: [(A, Option<ValueId>); 12] = [
            (A::Mask, None),
            (A::Bias, None),
            (A::KeyLengths, None),
            (A::QueryLengths, None),
            (A::Offsets, None),
            (A::QueryOffsets, None),
            (A::KeyOffsets, None),
            (A::Slopes, self.slopes),
            (A::Sinks, self.sinks),
            (A::BlockTable, None),
            (A::ScoreTable, self.score_table),
            (A::MaskTable, None),
        ];
        type Join = fn(&mut Graph, ValueId, ValueId) -> Result<ValueId>;
        let and: Join = |g, a, b| g.binary(super::Binary::And, a, b);
        let add: Join = |g, a, b| g.add(a, b);
        let min: Join = |g, a, b| g.min(a, b);
        let once: Join = |_, _, _| Err(Error::op("attention", "a mask names offsets, packed sequences or pages twice"));
        let one_table: Join = |_, _, _| {
            Err(Error::op(
                "attention",
                "a mask has two tables; join them end to end (`Graph::concat`), and let one begin where the other ends",
            ))
        };
        let mut put = |g: &mut Graph, operand: A, value: ValueId, join: Join| -> Result<()> {
            let slot = &mut given.iter_mut().find(|(kind, _)| *kind == operand).map(|(_, slot)| slot);
            if let Some(slot) = slot {
                **slot = Some(match **slot {
                    Some(old) if old != value => join(g, old, value)?,
                    _ => value,
                });
            }
            Ok(())
        };
        let elsewhere = self.mask.parts.iter().any(|part| matches!(part, Part::Pages(_) | Part::Packed(..)));
        for part in self.mask.parts {
            let aligned = match part {
                Part::Causal(align) => {
                    op.causal = true;
                    Some(align)
                }
                Part::Window(window, align) => {
                    let least = |a: Option<u32>, b: Option<u32>| a.into_iter().chain(b).min();
                    op.window = Window {
                        left: least(op.window.left, window.left),
                        right: least(op.window.right, window.right),
                    };
                    Some(align)
                }
                Part::Aligned(align) => Some(align),
                Part::Offsets(value) => {
                    put(g, A::Offsets, value, once)?;
                    Some(Align::PerItem)
                }
                Part::KeyPadding(value) => {
                    let value = padding(g, value, (!elsewhere).then_some(k))?;
                    put(g, A::Mask, value, and).map(|()| None)?
                }
                Part::Boolean(value) => put(g, A::Mask, value, and).map(|()| None)?,
                Part::Bias(value) => put(g, A::Bias, value, add).map(|()| None)?,
                Part::KeyLengths(value) => put(g, A::KeyLengths, value, min).map(|()| None)?,
                Part::QueryLengths(value) => put(g, A::QueryLengths, value, min).map(|()| None)?,
                Part::Packed(queries, keys) => {
                    put(g, A::QueryOffsets, queries, once)?;
                    keys.map(|keys| put(g, A::KeyOffsets, keys, once)).transpose().map(|_| None)?
                }
                Part::Pages(table) => put(g, A::BlockTable, table, once).map(|()| None)?,
                Part::Function(function) => {
                    op.mask_mods.push(function);
                    None
                }
                Part::Table(table) => put(g, A::MaskTable, table, one_table).map(|()| None)?,
            };
            match (align, aligned) {
                (Some(a), Some(b)) if a != b => {
                    return Err(Error::op(
                        "attention",
                        format!("parts of the mask are aligned {a} and {b}: one attention has one alignment"),
                    ));
                }
                _ => align = align.or(aligned),
            }
        }
        op.align = align.unwrap_or_default();
        let mut values = Vec::new();
        for (operand, value) in given {
            if let Some(value) = value {
                op.operands.push(operand);
                values.push(value);
            }
        }
        Ok((op, values))
    }
}

/// A mask of each item's keys, `[…, Tk]`, as one of heads, queries and keys; `k` if the number of keys is an axis of it.
fn padding(g: &mut Graph, mask: ValueId, k: Option<ValueId>) -> Result<ValueId> {
    const NAME: &str = "key_padding";
    let (dtype, shape) = (g.dtype(mask), g.shape(mask).clone());
    if dtype != DType::Bool {
        return Err(Error::dtype("attention", NAME, dtype, "bool, true for the keys that may be seen"));
    }
    let Some((&last, items)) = shape.split_last() else {
        return Err(Error::shape("attention", NAME, shape, "[B, Tk]"));
    };
    if let Some(&keys) = k.and_then(|k| g.shape(k).iter().rev().nth(1))
        && keys != last
    {
        let expected = format!("[B, Tk] with Tk = {keys}, an element for each key");
        return Err(Error::shape("attention", NAME, shape, expected));
    }
    g.reshape(mask, [items, &[1, 1, last]].concat())
}
