//! Keys and values that stay on the device from one step of decoding to the next.

use super::{join, parameter};
use crate::{
    DType, Error, Graph, Result, Tensor, ValueId,
    graph::{Align, Binary, Mask},
};

/// A key–value cache in a graph that computes `tokens` tokens of each item, from the item's own position on.
///
/// Each self-attention has two states, `[B, heads, places, D]`. Token t of item b stands at the position
/// `starts[b] + t`. Rows past an item's real tokens may hold anything: no real token sees them, and later ones
/// overwrite them.
///
/// ```text
/// linear, places = 8                        circular, places = 5, window 3
///   position 0 1 2 3 4 5 6 7                  position 0 1 2 3 4 5 6 7 …
///   place    0 1 2 3 4 5 6 7, then full       place    0 1 2 3 4 0 1 2 …
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    items: usize,
    tokens: usize,
    places: usize,
    circular: bool,
    starts: ValueId,
    positions: ValueId,
    mask: Mask,
}

impl Cache {
    /// A cache for `tokens` tokens from the positions `starts`, i32 `[B]`, on. With a `window` a token sees itself and
    /// the `window − 1` before it.
    ///
    /// A circular cache needs a window, and `places ≥ window + tokens − 1` in every graph that shares it.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Cache};
    /// # let mut g = Graph::new();
    /// let starts = g.input("starts", DType::I32, [2])?;
    /// let cache = Cache::new(&mut g, starts, 3, 100, None, false)?;
    /// assert_eq!(g.shape(cache.positions()), &[2, 3].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `starts` is not i32 `[B]`, if there are more tokens than places, if the window is 0, or if a
    /// circular cache has no window or too few places.
    pub fn new(
        g: &mut Graph,
        starts: ValueId,
        tokens: usize,
        places: usize,
        window: Option<usize>,
        circular: bool,
    ) -> Result<Self> {
        const OP: &str = "cache";
        let items = match (g.dtype(starts), &g.shape(starts)[..]) {
            (DType::I32, &[items]) => items,
            _ => return Err(Error::op(OP, format!("`starts` is {}, expected i32 [B]", g.describe(starts)))),
        };
        let windowed = || window.map_or("no window".to_string(), |window| format!("a window of {window}"));
        if tokens > places || window == Some(0) {
            return Err(Error::op(OP, format!("{tokens} tokens with {} don't fit {places} places", windowed())));
        }
        let column = g.reshape(starts, [items, 1])?;
        let iota = g.constant(Tensor::new([tokens], (0..tokens as i32).collect::<Vec<_>>())?)?;
        let positions = g.add(column, iota)?;
        let mask = match (circular, window) {
            (false, None) => Mask::causal(Align::PerItem) & Mask::offsets(starts),
            (false, Some(window)) => {
                let left = u32::try_from(window - 1).unwrap_or(u32::MAX);
                let window = Mask::window(left, None, Align::PerItem);
                Mask::causal(Align::PerItem) & window & Mask::offsets(starts)
            }
            (true, Some(window)) if places >= (window - 1).saturating_add(tokens) => {
                circular_mask(g, starts, positions, tokens, places, window)?
            }
            (true, _) => {
                return Err(Error::op(
                    OP,
                    format!(
                        "a circular cache of {places} places can't take {tokens} tokens with {}: \
                         it needs a window, and window + tokens − 1 places",
                        windowed()
                    ),
                ));
            }
        };
        Ok(Cache { items, tokens, places, circular, starts, positions, mask })
    }

    /// i32 `[B, T]`: the position of each token in its sequence.
    pub fn positions(&self) -> ValueId {
        self.positions
    }

    /// Attention of `q [B, Hq, T, D]` over the cache, into which `k` and `v`, `[B, Hkv, T, D]`, are put first →
    /// `[B, Hq, T, D]`. The states are `name.keys` and `name.values`.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Cache};
    /// # let mut g = Graph::new();
    /// let starts = g.input("starts", DType::I32, [2])?;
    /// let cache = Cache::new(&mut g, starts, 1, 100, None, false)?;
    /// let q = g.input("q", DType::F32, [2, 8, 1, 64])?;
    /// let [k, v] = ["k", "v"].map(|name| g.input(name, DType::F32, [2, 2, 1, 64]));
    /// let out = cache.attend(&mut g, "layer.0", [q, k?, v?])?;
    /// assert_eq!(g.shape(out), &[2, 8, 1, 64].into());
    /// let states: Vec<&str> = g.states().map(|(name, ..)| name).collect();
    /// assert_eq!(states, ["layer.0.keys", "layer.0.values"]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the shapes are others than these, B and T those of the cache; [`Error::Graph`] if the name of a
    /// state is taken.
    pub fn attend(&self, g: &mut Graph, name: &str, [q, k, v]: [ValueId; 3]) -> Result<ValueId> {
        let k = self.put(g, &join(name, "keys"), k)?;
        let v = self.put(g, &join(name, "values"), v)?;
        g.attention(q, k, v, self.mask.clone())
    }

    fn put(&self, g: &mut Graph, name: &str, rows: ValueId) -> Result<ValueId> {
        let &[items, heads, tokens, size] = &g.shape(rows)[..] else {
            return Err(Error::op("cache", format!("`{name}` is given {}, expected [B, H, T, D]", g.describe(rows))));
        };
        if [items, tokens] != [self.items, self.tokens] {
            return Err(Error::op(
                "cache",
                format!("`{name}` is given {}, expected {} items of {}", g.describe(rows), self.items, self.tokens),
            ));
        }
        let state = g.input(name, g.dtype(rows), [items, heads, self.places, size])?;
        let (next, _) = g.append(state, rows, self.starts, 2, self.circular)?;
        g.update(state, next)?;
        Ok(next)
    }
}

/// Place j of a circular cache holds the last position up to `starts + tokens − 1` that is j modulo `places`. It is seen if that
/// position is within the window before the query.
fn circular_mask(
    g: &mut Graph,
    starts: ValueId,
    positions: ValueId,
    tokens: usize,
    places: usize,
    window: usize,
) -> Result<Mask> {
    let items = g.shape(starts)[0];
    let number = |g: &mut Graph, x: usize| g.scalar(x as f64, starts);
    let (count, after, width) = (number(g, places)?, number(g, tokens)?, number(g, window)?);
    let (zero, one) = (number(g, 0)?, number(g, 1)?);
    let end = g.add(starts, after)?;
    let last = g.sub(end, one)?;
    let last = g.reshape(last, [items, 1])?;
    let j = g.constant(Tensor::new([places], (0..places as i32).collect::<Vec<_>>())?)?;
    // (last − j) mod places, of a number that is not negative.
    let back = g.sub(last, j)?;
    let back = g.add(back, count)?;
    let rounds = g.div(back, count)?;
    let whole = g.mul(rounds, count)?;
    let back = g.sub(back, whole)?;
    let held = g.sub(last, back)?;
    let written = g.binary(Binary::GreaterEqual, held, zero)?;
    let [written, held] = [g.reshape(written, [items, 1, 1, places])?, g.reshape(held, [items, 1, 1, places])?];
    let own = g.reshape(positions, [items, 1, tokens, 1])?;
    let distance = g.sub(own, held)?;
    let past = g.binary(Binary::GreaterEqual, distance, zero)?;
    let near = g.binary(Binary::Less, distance, width)?;
    let seen = g.binary(Binary::And, past, near)?;
    let seen = g.binary(Binary::And, seen, written)?;
    let filled = g.min(end, count)?;
    Ok(Mask::boolean(seen) & Mask::key_lengths(filled))
}

/// Where the keys and values of a self-attention come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Past<'a> {
    /// All tokens are there at once.
    None(&'a Mask),
    /// Earlier ones lie in a cache.
    Cache(&'a Cache),
}

impl Past<'_> {
    pub(super) fn attend(self, g: &mut Graph, name: &str, [q, k, v]: [ValueId; 3]) -> Result<ValueId> {
        match self {
            Past::None(mask) => g.attention(q, k, v, mask.clone()),
            Past::Cache(cache) => cache.attend(g, name, [q, k, v]),
        }
    }
}

/// The keys and values of an encoder's output, computed once and read by every step of a decoder.
#[derive(Clone, Debug)]
pub struct Memory {
    items: usize,
    places: usize,
    lengths: ValueId,
}

impl Memory {
    /// A memory of up to `places` tokens of each item, of which the first `lengths`, i32 `[B]`, are real.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Memory};
    /// # let mut g = Graph::new();
    /// let lengths = g.input("lengths", DType::I32, [2])?;
    /// assert_eq!(Memory::new(&g, lengths, 50)?.lengths(), lengths);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `lengths` is not i32 `[B]`.
    pub fn new(g: &Graph, lengths: ValueId, places: usize) -> Result<Self> {
        match (g.dtype(lengths), &g.shape(lengths)[..]) {
            (DType::I32, &[items]) => Ok(Memory { items, places, lengths }),
            _ => Err(Error::op("memory", format!("`lengths` is {}, expected i32 [B]", g.describe(lengths)))),
        }
    }

    /// i32 `[B]`: the number of real tokens of each item.
    pub fn lengths(&self) -> ValueId {
        self.lengths
    }

    /// The mask that leaves only the real tokens.
    pub fn mask(&self) -> Mask {
        Mask::key_lengths(self.lengths)
    }

    /// Keeps `k` and `v`, `[B, H, S, D]` with S up to `places`, in the states `name.keys` and `name.values`,
    /// `[B, H, places, D]`.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Memory};
    /// # let mut g = Graph::new();
    /// let lengths = g.input("lengths", DType::I32, [2])?;
    /// let [k, v] = ["k", "v"].map(|name| g.input(name, DType::F32, [2, 4, 7, 64]));
    /// Memory::new(&g, lengths, 50)?.keep(&mut g, "cross", [k?, v?])?;
    /// let (name, state, _) = g.states().next().unwrap();
    /// assert_eq!((name, g.shape(state)), ("cross.keys", &[2, 4, 50, 64].into()));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the shapes are others than these, or S is over `places`; [`Error::Graph`] if the name of a
    /// state is taken.
    pub fn keep(&self, g: &mut Graph, name: &str, [k, v]: [ValueId; 2]) -> Result<()> {
        for (part, rows) in [("keys", k), ("values", v)] {
            let name = join(name, part);
            let &[items, heads, tokens, size] = &g.shape(rows)[..] else {
                return Err(Error::op(
                    "memory",
                    format!("`{name}` is given {}, expected [B, H, S, D]", g.describe(rows)),
                ));
            };
            if tokens > self.places {
                return Err(Error::op(
                    "memory",
                    format!("`{name}` is given {tokens} tokens for {} places", self.places),
                ));
            }
            let state = g.input(&name, g.dtype(rows), [items, heads, self.places, size])?;
            let zero = g.constant(Tensor::new([items], vec![0i32; items])?)?;
            let (next, _) = g.append(state, rows, zero, 2, false)?;
            g.update(state, next)?;
        }
        Ok(())
    }

    /// The keys and values `[B, H, places, D]` that [`Memory::keep`] kept under this name in another graph: the
    /// parameters `name.keys` and `name.values`. Give them the buffers of its states.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Memory};
    /// # let mut g = Graph::new();
    /// let lengths = g.input("lengths", DType::I32, [2])?;
    /// let memory = Memory::new(&g, lengths, 50)?;
    /// let [k, v] = memory.recall(&mut g, "cross", [4, 64])?;
    /// let q = g.input("q", DType::F32, [2, 4, 1, 64])?;
    /// let out = g.attention(q, k, v, memory.mask())?;
    /// assert_eq!(g.shape(out), &[2, 4, 1, 64].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] as [`parameter`].
    pub fn recall(&self, g: &mut Graph, name: &str, [heads, size]: [usize; 2]) -> Result<[ValueId; 2]> {
        let shape = [self.items, heads, self.places, size];
        Ok([parameter(g, &join(name, "keys"), shape)?, parameter(g, &join(name, "values"), shape)?])
    }
}
