//! What the dropouts of a training graph draw from.

use super::names::SEED;
use crate::{
    DType, Graph, Result, ValueId,
    graph::{Op, SEED_WORDS},
};

/// The seed of a training graph's dropouts, the input `train/seed` (u32 `[4]`): a [`Trainer`](super::Trainer) gives it by itself, another for
/// each run of the model ([`Settings::draws`](super::Settings::draws)). A graph has one; a second call returns it.
///
/// ```
/// # use tilewise::{DType, Graph, train::seed};
/// # let mut g = Graph::new();
/// let x = g.input("x", DType::F32, [2, 3])?;
/// let seed = seed(&mut g)?;
/// let y = g.dropout(x, seed, 0.1)?;
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Graph`](crate::Error::Graph) if the graph has another value of that name.
pub fn seed(g: &mut Graph) -> Result<ValueId> {
    match g.find(SEED) {
        Some(seed) if is_seed(g, seed) => Ok(seed),
        Some(_) | None => g.input(SEED, DType::U32, [SEED_WORDS]),
    }
}

fn is_seed(g: &Graph, value: ValueId) -> bool {
    let input = Op::Input { dtype: DType::U32, shape: [SEED_WORDS].into() };
    g.definition(value).op == input && g.update_of(value).is_none()
}

/// Whether the graph draws random numbers from a [`seed`].
pub(super) fn draws(g: &Graph) -> bool {
    g.find(SEED).is_some_and(|value| is_seed(g, value))
}
