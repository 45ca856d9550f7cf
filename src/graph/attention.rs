use serde::{Deserialize, Serialize};

use super::{
    Function, MaskMod, ScoreMod, ValueId,
    operand::{Operand, check_count, float},
};
use crate::{
    Error, Result,
    tensor::{DType, Shape},
};

/// Scaled dot-product attention with every mask and modifier at once.
///
/// `q [B, Hq, Tq, D]`, `k [B, Hkv, Tk, D]`, `v [B, Hkv, Tk, Dv]` → `out [B, Hq, Tq, Dv]`, `lse f32 [B, Hq, Tq]`,
/// `status i32 [B]` ([`Graph::attention`](super::Graph::attention) and JSON take any leading axes, as views of these). `Hq` is a multiple of `Hkv`, and query head `h` reads key head `h / (Hq/Hkv)`. q, k, v and bias
/// are f32, f16 or bf16, and may differ: a cache may be narrower than the queries. out has q's dtype, to which it is
/// rounded once.
///
/// ```text
/// s[i,j]    = f(softcap(scale · q_i·k_j) + bias[i,j] + slope[h]·(j − (i + offset)))      softcap(x) = c·tanh(x/c)
/// seen(i,j) = causal ∧ window ∧ boolean mask ∧ j < key length ∧ i < query length ∧ bias ≠ −inf ∧ same packed sequence
///             ∧ mask functions ∧ s ≠ −inf
/// out_i     = Σ_j seen · softmax_j(s) · v_j          lse_i = log Σ_j seen · exp(s[i,j])
/// ```
///
/// With sinks, a term of a key without a value joins the sum below the line, exp(sink\[h\]):
///
/// ```text
/// out_i     = Σ_j seen · exp(s[i,j]) · v_j / z_i         lse_i = log z_i         z_i = exp(sink[h]) + Σ_j seen · exp(s[i,j])
/// ```
///
/// f are the score functions ([`ScoreMod`]), one after the other; without any, s stays as it is.
///
/// A fully masked row (`seen` is false for all of its keys) gives `out` exactly 0 and `lse` the lowest finite f32 (with sinks: the head's sink). The `lse` of
/// a row that sees a key is above that: if its scores are no higher, it is the next f32, −3.4028233e38. A NaN or an infinity in `q`, `k` or `v`
/// reaches the rows that see it, as IEEE's arithmetic has it (a score of NaN or +∞ makes a row NaN, and so does one of −∞ that is all it sees,
/// unless a bias or a function made it so: that hides the key), and no other row. A length,
/// an entry of cumulative offsets or of the block table that is out of range counts as the nearest valid one, and the offset of
/// query 0 as at most ±2³⁰. `status` has a bit for each of them that was out of range, by item or sequence: see
/// [`AttentionFault`]. 0 means none.
///
/// Packed: `q [ΣTq, Hq, D]`, `k [ΣTk, Hkv, D]`, `v [ΣTk, Hkv, Dv]` → `out [ΣTq, Hq, Dv]`, `lse [ΣTq, Hq]`, with the
/// operands [`AttentionOperand::QueryOffsets`] and [`AttentionOperand::KeyOffsets`]. A query attends only to keys of
/// its own sequence, and `i`, `j` count from the start of each sequence. A boolean mask or a bias can't be given.
///
/// Paged: `k [pages, page size, Hkv, D]`, `v [pages, page size, Hkv, Dv]` and the operand
/// [`AttentionOperand::BlockTable`] of P pages an item: key j of item b is row `j mod page size` of page
/// `block_table[b, j / page size]`, and Tk is P · page size; key lengths say how many keys there are. Only entries of
/// pages below the key length are read. Items may share pages. q may be packed (then without
/// [`AttentionOperand::KeyOffsets`]).
///
/// Gradient, with P the weights and `Δ_i = Σ_c dout_ic·out_ic − dlse_i`:
///
/// ```text
/// dv = Pᵀ·dout        dS = P∘(dout·vᵀ − Δ)        dT = scale·dS∘(1 − (softcap(s)/c)²)        dq = dT·k        dk = dTᵀ·q
/// dbias = dS, summed over broadcast axes        dslope[h] = Σ dS·(j − (i + offset))        dsink[h] = −Σ_i exp(sink[h] − lse_i)·Δ_i
/// ```
///
/// A fully masked row gets and gives exactly 0.
///
/// Attention: Vaswani et al., 2017. Grouped heads: Ainslie et al., 2023. Windows: Beltagy et al., 2020. ALiBi: Press et
/// al., 2022. Sinks: Xiao et al., 2023, with a learned logit as in gpt-oss (OpenAI, 2025). Pages: Kwon et al., 2023. Kernels: online softmax (Milakov and Gimelshein, 2018), FlashAttention (Dao et
/// al., 2022; Dao, 2023).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Factor on q·k; `None` is 1/√D.
    #[serde(default)]
    pub scale: Option<f32>,
    /// c of `softcap`, > 0.
    #[serde(default)]
    pub softcap: Option<f32>,
    /// Whether keys after the query's own position are masked: `j ≤ i + offset`.
    #[serde(default)]
    pub causal: bool,
    /// Sliding window: `i + offset − left ≤ j ≤ i + offset + right`.
    #[serde(default)]
    pub window: Window,
    /// The offset of query 0 among the keys, from which `causal`, `window` and ALiBi count.
    #[serde(default)]
    pub align: Align,
    /// Functions of the score, one after the other.
    #[serde(default)]
    pub score_mods: Vec<ScoreMod>,
    /// Further predicates.
    #[serde(default)]
    pub mask_mods: Vec<MaskMod>,
    /// The operands after q, k and v, in order. Each kind at most once.
    #[serde(default)]
    pub operands: Vec<AttentionOperand>,
}

/// Bits of the status: which lengths, offsets or pages of an item were out of range and were clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum AttentionFault {
    /// A key length below 0 or over Tk.
    KeyLength = 1,
    /// A query length below 0 or over Tq.
    QueryLength = 2,
    /// An offset beyond ±2³⁰.
    Offset = 4,
    /// Entries of the queries' `cu_seqlens` that decrease or lie outside 0 to ΣTq. An entry belongs to the sequence
    /// that it ends, the first one to the first sequence.
    QueryOffsets = 8,
    /// The same of the keys' `cu_seqlens`, outside 0 to ΣTk.
    KeyOffsets = 16,
    /// An entry of the block table, for a page below the key length, that names no page.
    BlockTable = 32,
}

impl AttentionFault {
    /// Every fault, in the order of the bits.
    pub const ALL: [AttentionFault; 6] = [
        AttentionFault::KeyLength,
        AttentionFault::QueryLength,
        AttentionFault::Offset,
        AttentionFault::QueryOffsets,
        AttentionFault::KeyOffsets,
        AttentionFault::BlockTable,
    ];

    /// The faults in an element of the status.
    pub fn of(status: i32) -> impl Iterator<Item = AttentionFault> {
        Self::ALL.into_iter().filter(move |&fault| status & fault as i32 != 0)
    }

    /// The faults in words, an item a line; `None` if there are none.
    ///
    /// ```
    /// use tilewise::graph::AttentionFault;
    /// assert_eq!(AttentionFault::describe(&[0, 0]), None);
    /// assert_eq!(AttentionFault::describe(&[0, 33]).unwrap(), "\
    /// item 1: the key length is below 0 or over Tk; the block table names a page that is not there");
    /// ```
    pub fn describe(status: &[i32]) -> Option<String> {
        let faulty = status.iter().enumerate().filter(|(_, status)| **status != 0);
        let lines: Vec<String> = faulty
            .map(|(item, &status)| {
                let faults: Vec<&str> = Self::of(status).map(Self::text).collect();
                format!("item {item}: {}", faults.join("; "))
            })
            .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn text(self) -> &'static str {
        match self {
            AttentionFault::KeyLength => "the key length is below 0 or over Tk",
            AttentionFault::QueryLength => "the query length is below 0 or over Tq",
            AttentionFault::Offset => "the offset is beyond ±2³⁰",
            AttentionFault::QueryOffsets => "the query offsets decrease or lie outside 0 to ΣTq",
            AttentionFault::KeyOffsets => "the key offsets decrease or lie outside 0 to ΣTk",
            AttentionFault::BlockTable => "the block table names a page that is not there",
        }
    }
}

/// A sliding window: how many keys on either side of the query's own position are not masked; `None` is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Keys before the query's own position.
    #[serde(default)]
    pub left: Option<u32>,
    /// Keys after the query's own position.
    #[serde(default)]
    pub right: Option<u32>,
}

/// The offset of query 0 among the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// offset = 0: PyTorch's `is_causal`.
    #[default]
    TopLeft,
    /// offset = key length − query length, per batch item: FlashAttention, decoding.
    BottomRight,
    /// This offset; it may be negative.
    Offset(i32),
    /// Per batch item, from [`AttentionOperand::Offsets`].
    PerItem,
}

impl std::fmt::Display for Align {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Align::TopLeft => f.write_str("top-left"),
            Align::BottomRight => f.write_str("bottom-right"),
            Align::Offset(offset) => write!(f, "by the offset {offset}"),
            Align::PerItem => f.write_str("per item"),
        }
    }
}

/// An operand of attention after q, k and v.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionOperand {
    /// bool, broadcasts from the right to `[B, Hq, Tq, Tk]`: true = the key takes part. A last axis shorter than Tk (and
    /// not 1) masks the keys past its end.
    Mask,
    /// float, broadcasts like the mask: added to the scores; −inf masks the key.
    Bias,
    /// i32 `[B]`: keys from here on are masked.
    KeyLengths,
    /// i32 `[B]`: rows of q from here on are fully masked.
    QueryLengths,
    /// i32 `[B]`: the offset of query 0 among the keys, for [`Align::PerItem`].
    Offsets,
    /// i32 `[B + 1]`, cumulative: where each packed sequence of q begins, and the end (`cu_seqlens`).
    QueryOffsets,
    /// i32 `[B + 1]`, cumulative: where each packed sequence of k and v begins, and the end.
    KeyOffsets,
    /// f32 `[Hq]`: ALiBi (Press et al., 2022).
    Slopes,
    /// f32 `[Hq]`: the score of a key without a value, to which each row of the head attends too (Xiao et al., 2023).
    Sinks,
    /// i32 `[B, P]`: page n of an item's keys and values is page `block_table[b, n]` of k and v.
    BlockTable,
    /// f32, any shape: the `table` of the score functions.
    ScoreTable,
    /// f32, any shape: the `table` of the mask functions.
    MaskTable,
}

impl AttentionOperand {
    /// What is said of each operand: its name, its dtype (`None` for any float), and of what it has an element.
    fn row(self) -> (&'static str, Option<DType>, Extent) {
        match self {
            AttentionOperand::Mask => ("mask", Some(DType::Bool), Extent::Scores),
            AttentionOperand::Bias => ("bias", None, Extent::Scores),
            AttentionOperand::KeyLengths => ("key_lengths", Some(DType::I32), Extent::Items),
            AttentionOperand::QueryLengths => ("query_lengths", Some(DType::I32), Extent::Items),
            AttentionOperand::Offsets => ("offsets", Some(DType::I32), Extent::Items),
            AttentionOperand::QueryOffsets => ("query_offsets", Some(DType::I32), Extent::Starts),
            AttentionOperand::KeyOffsets => ("key_offsets", Some(DType::I32), Extent::Starts),
            AttentionOperand::Slopes => ("slopes", Some(DType::F32), Extent::Heads),
            AttentionOperand::Sinks => ("sinks", Some(DType::F32), Extent::Heads),
            AttentionOperand::BlockTable => ("block_table", Some(DType::I32), Extent::Pages),
            AttentionOperand::ScoreTable => ("score_table", Some(DType::F32), Extent::Table),
            AttentionOperand::MaskTable => ("mask_table", Some(DType::F32), Extent::Table),
        }
    }

    /// The name in graphs and messages.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Its dtype; `None` for any float.
    pub(crate) fn dtype(self) -> Option<DType> {
        self.row().1
    }

    /// Of what it has an element.
    pub(crate) fn extent(self) -> Extent {
        self.row().2
    }
}

/// Of what an operand of attention has an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Of each score; broadcasts to `[B, Hq, Tq, Tk]`.
    Scores,
    /// Of each query head, `[Hq]`.
    Heads,
    /// Of each batch item or packed sequence, `[B]`.
    Items,
    /// Of each packed sequence, and one for the end.
    Starts,
    /// Of each page of an item, `[B, P]`.
    Pages,
    /// Of what functions look up.
    Table,
}

/// The values that [`Attention`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionResults {
    /// `[B, Hq, Tq, Dv]`, packed `[ΣTq, Hq, Dv]`.
    pub out: ValueId,
    /// f32 `[B, Hq, Tq]`, packed `[ΣTq, Hq]`: the log-sum-exp of each row's scores.
    pub lse: ValueId,
    /// i32 `[B]`: bits of [`AttentionFault`].
    pub status: ValueId,
}

const OP: &str = "attention";

/// Functions of scores and masks of one attention: each may be as long as a function may be, and all of them are in one shader.
const FUNCTIONS: usize = 16;

/// Offsets of query 0 count as at most this, either way.
pub(crate) const FARTHEST: i32 = 1 << 30;

/// Sizes of an attention whose operands fit each other, packed and paged or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionSizes {
    pub(crate) packed: bool,
    /// B, or the number of packed sequences.
    pub(crate) items: usize,
    /// The first axis of q: B, or 1 if packed.
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    /// Tq; packed ΣTq.
    pub(crate) rows: usize,
    /// Tk; packed ΣTk.
    pub(crate) keys: usize,
    pub(crate) d: usize,
    pub(crate) dv: usize,
    /// How k and v are paged, if they are.
    pub(crate) pages: Option<AttentionPages>,
    /// A mask or bias that is shorter than Tk masks the keys from here on.
    pub(crate) key_limit: usize,
}

/// Pages of k and v.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionPages {
    pub(crate) count: usize,
    /// Rows of a page.
    pub(crate) rows: usize,
    /// Pages of an item.
    pub(crate) each: usize,
}

impl AttentionSizes {
    /// The shape of lse: an element for each row of q.
    pub(crate) fn lse(&self) -> Shape {
        let &AttentionSizes { packed, batch, heads, rows, .. } = self;
        if packed { [rows, heads].into() } else { [batch, heads, rows].into() }
    }

    /// The shape of out.
    pub(crate) fn out(&self) -> Shape {
        [&self.lse()[..], &[self.dv]].concat().into()
    }
}

/// The rows of so many pages of an item, which positions of 32 bits have to tell apart.
pub(super) fn places(op: &str, page_rows: usize, pages: usize) -> Result<usize> {
    let most = i32::MAX as usize;
    page_rows.checked_mul(pages).filter(|&rows| rows <= most).ok_or_else(|| {
        Error::op(
            op,
            format!(
                "{pages} pages of {page_rows} rows an item are more than {most} places: shorten the table of pages"
            ),
        )
    })
}

/// The last axis of a mask or bias, if it masks the keys past its end.
pub(crate) fn short_of(keys: usize, mask: &Shape) -> Option<usize> {
    mask.last().copied().filter(|&columns| columns < keys && columns != 1)
}

impl Attention {
    /// The index of this operand among the node's inputs, if it is given.
    pub fn input_of(&self, operand: AttentionOperand) -> Option<usize> {
        self.operands.iter().position(|&o| o == operand).map(|i| i + 3)
    }

    /// Whether q is packed sequences. k and v then are too, unless they are paged.
    pub fn is_packed(&self) -> bool {
        self.input_of(AttentionOperand::QueryOffsets).is_some()
    }

    /// Whether k and v are pages.
    pub fn is_paged(&self) -> bool {
        self.input_of(AttentionOperand::BlockTable).is_some()
    }

    /// Whether there are score or mask functions.
    pub fn has_functions(&self) -> bool {
        !(self.score_mods.is_empty() && self.mask_mods.is_empty())
    }

    /// The factor on q·k for heads of this size.
    pub(crate) fn scale_for(&self, d: usize) -> f64 {
        self.scale.map_or_else(|| 1.0 / (d as f64).sqrt(), f64::from)
    }

    /// Whether a function of the user asks where the query stands among the keys.
    pub(crate) fn uses_position(&self) -> bool {
        self.score_mods.iter().any(Function::uses_position) || self.mask_mods.iter().any(Function::uses_position)
    }

    /// The dtypes and shapes of out, lse and status, or why the operands do not fit.
    pub(super) fn results(&self, operands: &[Operand<'_>]) -> Result<Vec<(DType, Shape)>> {
        let sizes = self.fit(operands)?;
        Ok(vec![(operands[0].0, sizes.out()), (DType::F32, sizes.lse()), (DType::I32, [sizes.items].into())])
    }

    /// The sizes of attention over q, k, v and the further operands, or why options and operands do not fit.
    pub(crate) fn fit(&self, operands: &[Operand<'_>]) -> Result<AttentionSizes> {
        let names = self.operands.iter().map(|operand| operand.name());
        check_count(OP, operands.len(), &["q", "k", "v"].into_iter().chain(names).collect::<Vec<_>>())?;
        self.check_options()?;
        let mut sizes = self.sizes(operands)?;
        for (&kind, &operand) in self.operands.iter().zip(&operands[3..]) {
            self.check_operand(kind, operand, &sizes)?;
            if let AttentionOperand::Mask | AttentionOperand::Bias = kind {
                sizes.key_limit = sizes.key_limit.min(short_of(sizes.keys, operand.1).unwrap_or(sizes.keys));
            }
        }
        Ok(sizes)
    }

    fn check_options(&self) -> Result<()> {
        use AttentionOperand as A;
        let mut kinds = self.operands.clone();
        kinds.sort_unstable();
        if let Some(pair) = kinds.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::op(OP, format!("`{}` is given twice", pair[0].name())));
        }
        let functions = self.score_mods.len() + self.mask_mods.len();
        if functions > FUNCTIONS {
            return Err(Error::op(
                OP,
                format!("{functions} functions of scores and masks, at most {FUNCTIONS} are taken"),
            ));
        }
        let has = |operand| self.input_of(operand).is_some();
        if has(A::KeyOffsets) && has(A::BlockTable) {
            return Err(Error::op(OP, "keys are packed (`key_offsets`) or paged (`block_table`), not both"));
        }
        if has(A::QueryOffsets) != (has(A::KeyOffsets) || has(A::BlockTable) && has(A::QueryOffsets)) {
            return Err(Error::op(OP, "packed sequences need both `query_offsets` and `key_offsets`"));
        }
        if let Some(scale) = self.scale
            && !scale.is_finite()
        {
            return Err(Error::op(OP, format!("scale is {scale}, expected a finite number")));
        }
        if let Some(softcap) = self.softcap
            && !(softcap > 0.0 && softcap.is_finite())
        {
            return Err(Error::op(OP, format!("softcap is {softcap}, expected a finite number > 0")));
        }
        if (self.align == Align::PerItem) != has(A::Offsets) {
            return Err(Error::op(OP, "alignment per item and the operand `offsets` need each other"));
        }
        let uses = [
            (A::ScoreTable, "score function", self.score_mods.iter().any(Function::uses_table)),
            (A::MaskTable, "mask function", self.mask_mods.iter().any(Function::uses_table)),
        ];
        for (table, function, used) in uses {
            let name = table.name();
            match (used, has(table)) {
                (true, false) => {
                    return Err(Error::op(OP, format!("a {function} reads `table`, but there is no `{name}`")));
                }
                (false, true) => {
                    return Err(Error::op(OP, format!("there is a `{name}`, but no {function} reads `table`")));
                }
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }

    fn sizes(&self, operands: &[Operand<'_>]) -> Result<AttentionSizes> {
        let (q, k, v) = (float(OP, "q", operands[0])?, float(OP, "k", operands[1])?, float(OP, "v", operands[2])?);
        let (packed, paged) = (self.is_packed(), self.is_paged());
        let q_form = if packed { (3, "[ΣT, H, D]") } else { (4, "[B, H, T, D]") };
        let k_form = if paged { (4, "[pages, page size, H, D]") } else { q_form };
        for (operand, shape, (rank, form)) in [("q", q.1, q_form), ("k", k.1, k_form), ("v", v.1, k_form)] {
            if shape.rank() != rank {
                return Err(Error::shape(OP, operand, shape, format!("rank {rank}: {form}")));
            }
        }
        // Axes as (batch, heads, length, width), whatever the layout; pages as (pages, heads, page size, width).
        let q_axes = |s: &Shape| if packed { (1, s[1], s[0], s[2]) } else { (s[0], s[1], s[2], s[3]) };
        let k_axes = |s: &Shape| if paged { (s[0], s[2], s[1], s[3]) } else { q_axes(s) };
        let (batch, heads, rows, d) = q_axes(q.1);
        let ((bk, kv_heads, length, dk), (bv, hv, v_length, dv)) = (k_axes(k.1), k_axes(v.1));
        let three = || format!("`q` is {}, `k` is {}, `v` is {}", q.1, k.1, v.1);
        if paged && bk != bv {
            return Err(Error::op(OP, format!("{}: k and v must have as many pages", three())));
        }
        if !paged && (batch != bk || batch != bv) {
            return Err(Error::op(OP, format!("{}: the batch sizes differ", three())));
        }
        if d != dk {
            return Err(Error::op(OP, format!("{}: q and k must have the same head size", three())));
        }
        if kv_heads != hv || length != v_length {
            let length = if paged { "page size" } else { "length" };
            return Err(Error::op(OP, format!("{}: k and v must have the same heads and {length}", three())));
        }
        if heads != 0 && (kv_heads == 0 || heads % kv_heads != 0) {
            let groups = format!("{heads} query heads are no multiple of {kv_heads} key heads");
            return Err(Error::op(OP, format!("{}: {groups}", three())));
        }
        if d == 0 && self.scale.is_none() {
            return Err(Error::op(OP, format!("{}: a head size of 0 has no 1/√D; give a scale", three())));
        }
        let input = |operand| self.input_of(operand).map(|at| operands[at].1);
        let starts = input(AttentionOperand::QueryOffsets).filter(|starts| starts.rank() == 1);
        let items = if packed { starts.map_or(0, |starts| starts[0].saturating_sub(1)) } else { batch };
        let (keys, pages) = match input(AttentionOperand::BlockTable) {
            Some(table) => {
                if table.rank() != 2 || table[0] != items {
                    let expected = format!("[B, pages of an item] with B = {items}");
                    return Err(Error::shape(OP, AttentionOperand::BlockTable.name(), table, expected));
                }
                if bk == 0 && table.elements() != Some(0) && length > 0 {
                    return Err(Error::op(
                        OP,
                        format!("{}: there is no page for `block_table` {table} to name", three()),
                    ));
                }
                let keys = places(OP, length, table[1])?;
                (keys, Some(AttentionPages { count: bk, rows: length, each: table[1] }))
            }
            None => (length, None),
        };
        Ok(AttentionSizes { packed, items, batch, heads, kv_heads, rows, keys, d, dv, pages, key_limit: keys })
    }

    fn check_operand(&self, kind: AttentionOperand, operand: Operand<'_>, sizes: &AttentionSizes) -> Result<()> {
        let name = kind.name();
        let (_, shape) = match kind.dtype() {
            None => float(OP, name, operand)?,
            Some(expected) if operand.0 != expected => {
                return Err(Error::dtype(OP, name, operand.0, expected.name()));
            }
            Some(_) => operand,
        };
        let &AttentionSizes { packed, items, batch, heads, rows, keys, .. } = sizes;
        match kind.extent() {
            Extent::Scores => {
                if packed {
                    return Err(Error::op(OP, format!("`{name}` is not taken with packed sequences")));
                }
                let columns = short_of(keys, shape).unwrap_or(keys);
                if shape.rank() == 0 || !shape.broadcasts_to(&[batch, heads, rows, columns].into()) {
                    let scores = Shape::from([batch, heads, rows, keys]);
                    let mut expected = format!("one that broadcasts to [B, Hq, Tq, Tk] = {scores}");
                    if shape[..] == [batch, columns] {
                        expected += &format!(
                            "; if its rows are the items', it is `Mask::key_padding`, or [{batch}, 1, 1, {columns}]"
                        );
                    }
                    return Err(Error::shape(OP, name, shape, expected));
                }
            }
            Extent::Heads => {
                if shape != &Shape::from([heads]) {
                    return Err(Error::shape(OP, name, shape, format!("[Hq] = [{heads}]")));
                }
            }
            Extent::Starts => {
                if shape.rank() != 1 || shape[0] == 0 || shape[0] != items + 1 {
                    return Err(Error::shape(OP, name, shape, "[sequences + 1], the same for queries and keys"));
                }
            }
            Extent::Items => {
                if shape != &Shape::from([items]) {
                    return Err(Error::shape(OP, name, shape, format!("[B] = [{items}]")));
                }
            }
            Extent::Table => {
                if shape.contains(&0) {
                    return Err(Error::shape(OP, name, shape, "at least one element"));
                }
            }
            // Checked with the sizes.
            Extent::Pages => {}
        }
        Ok(())
    }
}
